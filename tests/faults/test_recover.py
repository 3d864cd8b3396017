"""Killed at every step of the way back: afterwards there is what was there before, or what was to
come; never a half.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from safe_compose.engine import connect
from safe_compose.operations.recover import rollback
from safe_compose.operations.recover.run import recover
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import CommandLine, Journal
from testing.faults import failing_syscalls
from testing.fixtures import ProjectFactory
from testing.projects import ComposeProject, docker, real_docker, unique
from testing.stacks import FILES, JOB
from testing.terminal import PROGRAM

pytestmark = [pytest.mark.engine, pytest.mark.long]


@dataclass(frozen=True)
class Site:
    """A project with a service on a volume of files, and the store of its backups."""

    project: ComposeProject
    store: Path

    def run(self, *words: str, at: int | None = None) -> "subprocess.CompletedProcess[str]":
        """`at`: SIGKILL takes the whole process group right after so many steps were written to the
        journal.
        """
        killing = (
            failing_syscalls("fsync", ".jsonl", "KILL GROUP", skip=at) if at is not None else {}
        )
        return subprocess.run(
            [PROGRAM, *words], cwd=self.project.folder, env={**os.environ,
             "SAFE_COMPOSE_HOME": str(self.store), **killing},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True,
            timeout=300,
        )  # fmt: skip

    def good(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def steps(self) -> list[str]:
        """Those of the newest run in the journal."""
        runs = [
            [json.loads(line) for line in f.read_text().splitlines()]
            for f in (self.store / "journal").glob("*.jsonl")
        ]
        newest = max(runs, key=lambda lines: int(lines[0]["seq"]))
        return [str(line["step"]) for line in newest[1:]]

    def files(self) -> list[tuple[str, int, int, bytes]] | None:
        """Every file of the volume with owner, mode and content; None where it is not there."""
        found = docker(
            "volume",
            "inspect",
            f"{self.project.name}_uploads",
            "--format",
            "{{.Mountpoint}}",
            check=False,
        )
        if found.returncode:
            return None
        root = Path(found.stdout.strip())
        return [(str(path.relative_to(root)), (at := path.lstat()).st_uid, at.st_mode,
          path.read_bytes() if path.is_file() else b"")
                for path in (root, *sorted(root.rglob("*")))]  # fmt: skip

    def sh(self, script: str) -> None:
        self.project.exec("app", "sh", "-c", f"cd /app/uploads && {script}")

    def left(self) -> list[str]:
        """Containers and volumes of ours that nobody will take away any more."""
        label = "label=io.github.safe-compose.helper"
        runs = {path.stem for path in (self.store / "journal").glob("*.jsonl")}
        found = []
        for kind in (("ps", "-a"), ("volume", "ls")):
            lines = docker(
                *kind, "--filter", label, "--format", '{{.Label "io.github.safe-compose.helper"}}'
            ).stdout.split()
            found += [line for line in lines if line in runs]
        return found + [str(path) for path in self.store.rglob(".partial-*")]


@pytest.fixture
def site(compose_project: ProjectFactory, tmp_path: Path) -> Site:
    made = Site(compose_project(FILES), tmp_path / "store")
    made.project.up()
    made.sh("mkdir a && echo one > a/1 && chown -R 1234:4321 a && chmod 640 a/1 && echo two > 2")
    return made


def changed(site: Site) -> tuple[str, ...]:
    """Over a volume that is in use: what is there is kept as a safety backup first."""
    if not (site.store / "journal").exists():
        site.good("backup")
    site.sh("rm -r a; echo newer > 2; echo three > 3")
    oldest = json.loads(site.good("list", "--json"))["backups"][-1]["id"]
    return ("restore", oldest, "--confirm", site.project.name)


def deleted(site: Site) -> tuple[str, ...]:
    site.good(*JOB, "compose", "down", "-v")
    return ("undo",)


def deleted_and_started(site: Site) -> tuple[str, ...]:
    site.good(*JOB, "compose", "down", "-v")
    site.project.up()
    site.sh("echo fresh > f")
    return ("undo", "--confirm", site.project.name)


@pytest.mark.thorough
@pytest.mark.parametrize("prepare", [changed, deleted, deleted_and_started])
def test_a_kill_at_any_step_leaves_all_as_it_was_or_all_restored_and_the_next_try_works(
    prepare: Callable[[Site], tuple[str, ...]], site: Site
) -> None:
    whole = site.files()
    words = prepare(site)
    before = (site.files(), site.project.running())
    site.good(*words)
    after, steps = (site.files(), site.project.running()), site.steps()
    assert after[0] == whole != before[0] and {"putting-back", "put-back", "ended"} <= set(steps)
    begin, end = 0, len(steps)
    if prepare is not changed:  # what comes before and after that is the same
        begin, end = steps.index("putting-back"), steps.index("undid") + 1
    words = prepare(site)
    left_open = False  # then the next run begins with a line in that one's journal
    for at, step in enumerate(steps[begin:end], start=begin + 1):
        killed = site.run(*words, at=at + left_open)
        assert killed.returncode == -9 and site.steps() == steps[:at], (step, killed.stderr)
        restored = not {"restored", "undid"}.isdisjoint(steps[:at])
        left_open = False
        if (
            step == "putting-back" and prepare is changed
        ):  # without `recover`: the next run does what that does
            site.good(*words)
            restored = True
        elif step == "ended":
            assert site.good("recover") == "nothing to recover\n"
        elif prepare is changed and step not in ("stopped", "backed-up", "put-back", "restored"):
            left_open = True
            assert site.files() == (after if restored else before)[0], step
        else:
            told = site.good("recover")
            assert "was cut off" in told, step
            if "docker compose up -d" in told:
                site.project.up()
        if not left_open:
            assert (site.files(), site.project.running()) == (after if restored else before), step
            assert site.left() == [], step
        if restored and at < end:
            words = prepare(site)
    assert restored, "the last of the tries was to come to its end"


def test_a_recover_that_is_killed_in_its_turn_is_gone_on_with(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = changed(site)
    before = (site.files(), site.project.running())
    killed = site.run(*words, at=9)
    assert killed.returncode == -9 and site.steps()[-1] == "put-back", site.steps()
    for _ in range(2):
        assert site.run("recover", at=0).returncode == -9 and site.steps()[-1] == "taking-back", (
            site.steps()
        )
    monkeypatch.setattr(
        rollback, "BEAT_SECONDS", 0
    )  # that a recover which takes long can be gone on with as well
    with connect(real_docker(), (), environ=os.environ, run_id=unique("test")) as engine:
        told = recover(engine, Catalogue.at(site.store), Journal(site.store), own_run="")
    assert f"started again: {site.project.name}-app-1" in told[0], told
    steps = site.steps()
    assert steps[-1] == "ended" and "filling" in steps[steps.index("taking-back") :], steps
    assert (site.files(), site.project.running()) == before and site.left() == []


@pytest.mark.thorough
def test_what_a_killed_run_left_is_not_backed_up_nor_taken_back_once_a_later_run_has_put_something_there(
    site: Site,
) -> None:
    words = changed(site)
    killed = site.run(*words, at=8)
    assert killed.returncode == -9 and site.steps()[-1] == "putting-back", site.steps()
    was = site.files()
    torn = site.run("backup")
    assert (
        torn.returncode == 73
        and "was cut off" in torn.stderr
        and "safe-compose recover" in torn.stderr
    ), torn.stderr
    journal, volume = Journal(site.store), f"{site.project.name}_uploads"
    later = journal.begin(
        journal.new_id(), CommandLine(("restore", "x")), engine_id=journal.runs()[0].engine_id
    )
    later.step("putting-back", volume=volume)
    later.step("restored", backup="x")
    later.step("ended", outcome="restored")
    told = site.good("recover")
    assert f"run {later.id} has written to it since" in told and f"--volume {volume}" in told
    assert site.files() == was


@pytest.mark.thorough
def test_a_helper_of_a_run_that_died_before_its_journal_goes_and_one_of_a_living_run_stays(
    site: Site,
) -> None:
    volume = f"{site.project.name}_uploads"
    holding = """if True:
        import os, signal, sys
        from pathlib import Path
        from safe_compose.system.files import PRIVATE
        from safe_compose.engine import connect
        from safe_compose.store.mark_key import mark_key
        with connect(sys.argv[1], (), environ=os.environ, run_id=sys.argv[2]) as engine:
            engine.mark_key = lambda: mark_key(Path(sys.argv[4]), PRIVATE, lambda: None)
            with engine.helpers.holding(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)
    """
    dead, alive = unique("dead"), unique("alive")
    assert (
        subprocess.run(
            [sys.executable, "-c", holding, real_docker(), dead, volume, site.store], check=False
        ).returncode
        == -9
    )
    with connect(real_docker(), (), environ=os.environ, run_id=alive) as engine:
        image = engine.docker.image("busybox:latest")
        assert image is not None
        with engine.helpers.holding(volume):
            site.good("recover")
            assert engine.helpers.leftovers(dead) == () and engine.helpers.leftovers(alive) != ()


@pytest.mark.thorough
def test_what_somebody_wrote_after_a_kill_is_not_taken_back_though_no_container_tells_of_it(
    site: Site,
) -> None:
    words = changed(site)
    killed = site.run(*words, at=8)
    assert killed.returncode == -9 and site.steps()[-1] == "putting-back", site.steps()
    site.project.up()
    site.sh(
        "echo precious > p && touch -d '2037-01-01 00:00' p"
    )  # by the clock that is long after the kill
    site.project.docker("compose", "down")
    was = site.files()
    told = site.good("recover")
    assert (
        "something was written to it since, at 2037-01-01" in told
        and "safe-compose restore" in told
    )
    assert site.files() == was


@pytest.mark.thorough
def test_a_safety_backup_that_is_gone_is_told_and_ends_the_matter(site: Site) -> None:
    words = changed(site)
    killed = site.run(*words, at=8)
    assert killed.returncode == -9 and site.steps()[-1] == "putting-back", site.steps()
    newest = json.loads(site.good("list", "--json"))["backups"][0]
    assert newest["reason"] == "pre-restore"
    shutil.rmtree(next(site.store.rglob(newest["id"])))
    was = site.files()
    assert "there is no backup" in site.good("recover")
    assert site.files() == was and site.good("recover") == "nothing to recover\n"


@pytest.mark.thorough
def test_a_safety_backup_whose_manifest_does_not_read_is_told_and_ends_the_matter(
    site: Site,
) -> None:
    words = changed(site)
    killed = site.run(*words, at=8)
    assert killed.returncode == -9 and site.steps()[-1] == "putting-back", site.steps()
    newest = json.loads(site.good("list", "--json"))["backups"][0]
    (next(site.store.rglob(newest["id"])) / "manifest.json").write_text("{")
    was = site.files()
    told = site.good("recover")
    assert f"backup {newest['id']}, which has what was in it, does not verify" in told, told
    assert site.files() == was and site.good("recover") == "nothing to recover\n"


def test_the_journal_tells_until_when_content_went_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, shown = Journal(tmp_path), [0]
    run = journal.begin(journal.new_id())
    told = rollback.add_heartbeat(run, "v", shown.append)
    told(1)
    monkeypatch.setattr(rollback, "BEAT_SECONDS", 0)
    told(2)
    [found] = journal.runs()
    assert shown == [0, 1, 2] and [(s["step"], s["volume"]) for s in found.steps] == [
        ("filling", "v")
    ]
