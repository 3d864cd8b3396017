"""`safe-compose schedule`: units and crontab lines, runs that fail or are missing, and who is told."""

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.quantities import format_stamp
from safe_compose.errors import Refused, UsageError
from safe_compose.operations.schedule import run, systemd
from safe_compose.store.schedules import Schedule, Schedules, find_longest_gap
from safe_compose.system.process import Process, stamp
from testing.approvals import approve_settings
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, real_docker, require_success
from testing.terminal import Person

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
RECORD = Schedule("shop", "/srv/shop", ("03:00",), stamp(NOW - timedelta(days=9)))


def at(**ago: float) -> str:
    return stamp(NOW - timedelta(**ago))


# -- what a person is told -------------------------------------------------------------------------


def test_a_run_that_ended_well_and_one_that_goes_on_are_no_trouble() -> None:
    assert (
        replace(RECORD, began=at(hours=9), ended=at(hours=8), good=at(hours=8)).trouble(NOW) is None
    )
    assert (
        replace(
            RECORD, good=at(days=1), began=at(hours=1), process=Process.current().facts()
        ).trouble(NOW)
        is None
    )
    assert replace(RECORD, since=at(hours=25)).trouble(NOW) is None  # it has not had its turn yet


def test_a_failed_a_killed_and_a_missed_run_are_told() -> None:
    failed = replace(
        RECORD, began=at(hours=9), ended=at(hours=8), faults=("no space is left", "no such host")
    )
    assert (
        failed.trouble(NOW)
        == f"the scheduled backup of {format_stamp(at(hours=9))} failed: no space is left (and 1 more)"
    )
    gone = subprocess.Popen(["true"])
    facts = {**Process.current().facts(), "pid": gone.pid}
    gone.wait()
    killed = replace(RECORD, began=at(hours=9), ended=at(days=2), process=facts)
    assert killed.trouble(NOW) == f"the scheduled backup of {format_stamp(at(hours=9))} did not end"
    missed = replace(RECORD, began=at(days=3), ended=at(days=3))
    assert (
        missed.trouble(NOW)
        == "no scheduled backup has run for 3 days; it is planned daily at 03:00"
    )
    skipped = replace(RECORD, began=at(hours=9), ended=at(hours=9), good=at(days=3))
    assert skipped.trouble(NOW) == "no scheduled backup has ended well for 3 days"
    assert (
        RECORD.trouble(NOW)
        == "no scheduled backup has run for 9 days; it is planned daily at 03:00"
    )


def test_several_times_a_day_make_a_miss_show_sooner() -> None:
    assert find_longest_gap(["03:00"]) == timedelta(days=1)
    assert find_longest_gap(["22:00", "04:00", "12:00"]) == timedelta(hours=10)
    often = replace(
        RECORD, at=("00:00", "06:00", "12:00", "18:00"), began=at(hours=9), ended=at(hours=9)
    )
    assert often.trouble(NOW)
    assert replace(often, at=("03:00",), good=at(hours=9)).trouble(NOW) is None


def test_a_trial_is_due_once_a_week() -> None:
    assert RECORD.trial_due(NOW)
    assert not replace(RECORD, trial=at(days=6)).trial_due(NOW)
    assert replace(RECORD, trial=at(days=6, hours=23)).trial_due(NOW)
    assert replace(RECORD, trial=stamp(NOW + timedelta(days=30))).trial_due(
        NOW
    )  # a clock was wrong


def test_a_timetable_survives_damage(tmp_path: Path) -> None:
    timetable = Schedules(tmp_path, clock=lambda: NOW)
    assert timetable.all() == []
    timetable.put(RECORD)
    timetable.put(replace(RECORD, project="Магазин"))
    assert [r.project for r in timetable.all()] == ["shop", "Магазин"]
    for text in (
        "",
        "{",
        "[]",
        '{"version": 1}',
        '{"version": 2}',
        '{"version": 1, "at": ["x"], "faults": []}',
    ):
        (timetable.folder / "shop.json").write_text(text)
        assert timetable.of("shop") is None
        assert [r.project for r in timetable.all()] == ["Магазин"]
    timetable.take_away("Магазин")
    assert timetable.troubles() == {}


# -- units and lines -------------------------------------------------------------------------------

JOB = systemd.Job(
    "shop",
    "/srv/a b/100%",
    ("/x y/python", "-m", "safe_compose", "--project=$x"),
    {"A": 'q"\\%$'},
    ("03:05", "15:00"),
)


def test_units_hold_any_path_and_value() -> None:
    units = systemd.make_units(JOB)
    assert list(units) == ["safe-compose-shop.service", "safe-compose-shop.timer"]
    service, wake = units.values()
    assert "\nWorkingDirectory=/srv/a b/100%%\n" in service
    assert '\nExecStart="/x y/python" "-m" "safe_compose" "--project=$$x"\n' in service
    assert '\nEnvironment="A=q\\"\\\\%%$"\n' in service
    assert "\nOnCalendar=*-*-* 03:05:00\nOnCalendar=*-*-* 15:00:00\n" in wake
    assert "\nPersistent=true\n" in wake
    for bad in ("a\nb", "a ", "\x1b"):
        with pytest.raises(UsageError):
            systemd.make_units(JOB._replace(folder=bad))


def test_a_line_for_cron_runs_what_it_says(tmp_path: Path) -> None:
    folder = tmp_path / "a 100% b"
    folder.mkdir()
    job = JOB._replace(folder=str(folder), argv=("sh", "-c", 'printf "%s|%s" "$PWD" "$A"'))
    first, second = systemd.make_cron_lines(job)
    assert first.startswith("5 3 * * * ")
    assert second.startswith("0 15 * * * ")
    command = first.split(" ", 5)[5].replace("\\%", "%")  # as cron reads it
    assert "%" not in first.replace("\\%", "")
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == f'{folder}|q"\\%$'


def test_times_of_day_are_checked() -> None:
    assert systemd.parse_times(["15:00", "3:05", "03:05"]) == ("03:05", "15:00")
    for bad in ("24:00", "3", "03:60", "noon", ""):
        with pytest.raises(UsageError):
            systemd.parse_times([bad])


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that writes its words down, and fails for those in a file next to it. Returns the
    record.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    record = folder / "record"
    record.touch()
    script = folder / "systemctl"
    script.write_text(
        f'#!/bin/sh\necho "$*" >>{record}\nif [ -e {folder}/fails ] && [ "$*" != "${{*%"$(cat'
        f' {folder}/fails)"*}}" ]; then echo refused >&2; exit 1; fi\ncase "$*" in *Version*) echo'
        ' 252;; *NextElapse*) echo "Thu 2026-11-26 03:00:00 UTC";; esac\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return record


def test_what_systemd_does_not_take_is_put_back(tmp_path: Path, systemctl: Path) -> None:
    units, into = systemd.make_units(JOB), tmp_path / "units"
    (systemctl.parent / "fails").write_text("enable")
    with pytest.raises(Refused, match="refused"):
        systemd.install(units, into)
    assert list(into.iterdir()) == []
    (systemctl.parent / "fails").unlink()
    systemd.install(units, into)
    before = {path.name: path.read_text() for path in into.iterdir()}
    assert before == units
    (systemctl.parent / "fails").write_text("enable")
    with pytest.raises(Refused):
        systemd.install(systemd.make_units(JOB._replace(at=("01:00",))), into)
    assert {path.name: path.read_text() for path in into.iterdir()} == before
    foreign = into / "safe-compose-other.timer"
    foreign.write_text("mine\n")
    with pytest.raises(Refused, match="not written by safe-compose"):
        systemd.remove(["safe-compose-other.service", foreign.name], into)
    with pytest.raises(Refused, match="not written by safe-compose"):
        systemd.install(systemd.make_units(JOB._replace(project="other")), into)
    assert foreign.read_text() == "mine\n"
    assert not (into / "safe-compose-other.service").exists()


# -- against a real engine -------------------------------------------------------------------------

PROJECT = "services: {a: {image: 'postgres:15', volumes: ['files:/files']}}\nvolumes: {files: {}}\n"


@pytest.fixture
def project(compose_project: ProjectFactory) -> ComposeProject:
    """A project with one volume of files that nobody uses now."""
    made = compose_project(PROJECT)
    made.docker("compose", "create", "--pull", "never")
    return made


@pytest.fixture
def listener() -> Iterator[tuple[str, list[Any]]]:
    """A web address of our own, and what it was told."""
    told: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook?token=s3cret", told
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_where_nobody_speaks_http_is_told_in_words_and_never_shown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):  # closed with bytes unread it would be a reset
                    continue

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        said = run._post(
            f"http://127.0.0.1:{server.getsockname()[1]}/hook?token=s3cret", {"version": 1}
        )
        thread.join(timeout=10)
    assert said and "s3cret" not in said


@pytest.mark.thorough
@pytest.mark.engine
def test_a_scheduled_run_keeps_copies_reads_again_and_tells_when_it_fails(
    project: ComposeProject,
    safe_compose: SafeCompose,
    listener: tuple[str, list[Any]],
    tmp_path: Path,
) -> None:
    url, told = listener
    copies = tmp_path / "copies"
    copies.mkdir()
    (project.folder / "safe-compose.toml").write_text(
        '[volumes]\nfiles = "critical"\n[retention]\nkeep_last = 1\n'
        f'[offsite.disk]\nurl = "file://{copies}"\n[schedule]\nwebhook = "{url}"\n'
    )
    approve_settings(project.folder)
    words = ("schedule", "run", f"--project={project.name}", "--at=03:00", "--json")
    first, second = (
        json.loads(safe_compose(*words, cwd=project.folder).stdout)["run"] for _ in range(2)
    )
    assert first["faults"] == []
    assert [step["step"] for step in first["steps"]] == [
        "backup",
        "forget",
        "copy to disk",
        "read again",
        "trial",
    ]
    assert [step["step"] for step in second["steps"]] == [
        "backup",
        "forget",
        "copy to disk",
        "read again",
    ]  # the trial is weekly
    assert (second["ok"], second["faults"]) == (True, [])
    assert "forgot 1 of 2" in second["steps"][1]["words"]
    assert [told_run["backup"] for told_run in told] == [first["backup"], second["backup"]]
    listed = json.loads(safe_compose("list", "--json", cwd=project.folder).stdout)["backups"]
    assert [(b["id"], b["reason"], b["offsite"][0]["state"]) for b in listed] == [
        (second["backup"], "schedule", "verified")
    ]

    shown = safe_compose("schedule", "status", "--json", cwd=project.folder)
    (known,) = json.loads(shown.stdout)["schedules"]
    assert shown.returncode == 0
    assert (known["project"], known["at"], known["trouble"], known["backup"]) == (
        project.name,
        ["03:00"],
        None,
        second["backup"],
    )

    copies.rename(tmp_path / "elsewhere")
    failed = safe_compose(*words, cwd=project.folder)
    assert failed.returncode == 73, failed.stderr
    assert told[-1]["ok"] is False
    assert told[-1]["faults"]
    after = safe_compose("schedule", cwd=project.folder)
    assert after.returncode == 1
    [line] = [line for line in after.stdout.splitlines() if line.startswith(project.name)]
    assert line.split("\t")[-1].startswith("the scheduled backup of ")
    attention = json.loads(safe_compose("doctor", "--json", cwd=project.folder).stdout)["attention"]
    assert any(line.startswith(f"{project.name}: the scheduled backup of ") for line in attention)
    gone = safe_compose(*words, cwd=project.folder, env={"DOCKER_HOST": "unix:///nowhere.sock"})
    assert gone.returncode == 69
    assert told[-1]["faults"]

    person = Person("compose", "down", "-v", cwd=project.folder)
    person.sees("warning: the scheduled backup of ")
    person.sees(f"type '{project.name}': ")
    person.presses("d")
    assert person.leaves_with() == 77
    assert all(
        "s3cret" not in text for run in (failed, gone, after) for text in (run.stdout, run.stderr)
    )


@pytest.mark.thorough
@pytest.mark.engine
def test_a_schedule_is_installed_once_and_taken_away(
    project: ComposeProject, safe_compose: SafeCompose, systemctl: Path, tmp_path: Path
) -> None:
    units = tmp_path / "units"
    words = ("schedule", "install", "--at", "4:30", "--dir", str(units))
    shown = safe_compose(*words, "--dry-run", cwd=project.folder)
    assert shown.returncode == 0, shown.stderr
    assert "    OnCalendar=*-*-* 04:30:00\n" in shown.stdout
    assert safe_compose(*words, cwd=project.folder).returncode == 77  # nobody was asked
    assert not units.exists()
    plan = json.loads(safe_compose(*words, "--json", cwd=project.folder).stdout)["schedule"]
    assert (plan["project"], plan["at"], plan["done"]) == (project.name, ["04:30"], False)
    assert "OnCalendar=*-*-* 04:30:00" in plan["files"][1]["text"] and not units.exists()
    for _ in range(2):
        done = safe_compose(*words, "--yes", cwd=project.folder)
        assert done.returncode == 0, done.stderr
        assert "next: 2026-11-26 03:00 UTC" in done.stderr
    name = systemd.make_unit_name(project.name)
    assert sorted(path.name for path in units.iterdir()) == [f"{name}.service", f"{name}.timer"]
    assert f"WorkingDirectory={project.folder}\n" in (units / f"{name}.service").read_text()
    written = (units / f"{name}.service").read_text()
    for variable in (
        "HOME",
        "SAFE_COMPOSE_HOME",
    ):  # which store is meant does not change with who starts it
        assert f'Environment="{variable}={os.environ[variable]}"\n' in written
    assert f"enable --now {name}.timer" in systemctl.read_text()

    secret = safe_compose(
        "schedule",
        "cron",
        cwd=project.folder,
        env={"COMPOSE_FILE": "compose.yaml", "AWS_PROFILE": "password=x"},
    )
    assert secret.returncode == 64
    assert "password=x" not in secret.stdout + secret.stderr
    # a line of a crontab holds 900 bytes, and the folders of tests have long names
    short = {"PATH": f"{Path(real_docker()).parent}:/usr/bin:/bin"}
    cron = ("schedule", "cron")
    line = require_success(safe_compose(*cron, cwd=project.folder, env=short)).stdout
    assert line.startswith(f"0 3 * * * cd {project.folder} && ")
    assert f"schedule run --project={project.name} --at=03:00" in line
    as_json = safe_compose(*cron, "--json", cwd=project.folder, env=short).stdout
    assert json.loads(as_json)["cron"] == line.splitlines()

    remove = ("schedule", "remove", "--dir", str(units))
    plan = json.loads(safe_compose(*remove, "--json", cwd=project.folder).stdout)["schedule"]
    assert plan == {"project": project.name, "deleted": [], "done": False}
    assert safe_compose(*remove, "--dry-run", "--yes", cwd=project.folder).returncode == 0
    assert len(list(units.iterdir())) == 2
    removed = safe_compose("schedule", "remove", "--dir", str(units), "--yes", cwd=project.folder)
    assert removed.returncode == 0, removed.stderr
    assert list(units.iterdir()) == []
    assert (
        json.loads(safe_compose("schedule", "--json", cwd=project.folder).stdout)["schedules"] == []
    )


@pytest.mark.engine
def test_what_no_run_would_back_up_is_named_before_a_schedule_is_installed(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    units = tmp_path / "units"
    words = ("schedule", "install", "--yes", "--dir", str(units))
    service = "services: {db: {image: 'postgres:15', volumes: ['./pg:/var/lib/postgresql/data'"
    folder = compose_project(service + "]}}\n").folder
    refused = safe_compose(*words, cwd=folder)
    assert refused.returncode == 73 and "would back up nothing" in refused.stderr
    assert f"not in this backup: {folder}/pg" in refused.stderr and not units.exists()
    assert safe_compose("schedule", "cron", cwd=folder).stdout == ""
    mixed = service + ", 'files:/files'], profiles: [db]}}\nvolumes: {files: {}}\n"
    folder = compose_project(mixed).folder
    shown = safe_compose(*words, "--dry-run", cwd=folder)
    assert shown.returncode == 0 and f"not in this backup: {folder}/pg" in shown.stderr
