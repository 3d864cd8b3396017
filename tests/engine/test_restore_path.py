"""One file or folder of a backup, put back into a volume while what uses it goes on."""

import json
import os
from pathlib import Path

import pyrage
import pytest

from safe_compose.engine import connect
from safe_compose.operations.recover.run import recover
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import Journal
from safe_compose.volumes import single_path
from safe_compose.volumes.engine_location import EngineLocation
from testing.approvals import approve_settings
from testing.faults import failing_syscalls
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, real_docker, unique

pytestmark = [pytest.mark.engine, pytest.mark.long]

APP = """
services:
  app:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    volumes: ["uploads:/u"]
volumes:
  uploads:
"""


def sh(project: ComposeProject, script: str) -> str:
    return project.docker("compose", "exec", "-T", "app", "sh", "-c", f"cd /u && {script}").stdout


@pytest.mark.thorough
def test_one_file_or_folder_comes_back_while_the_service_goes_on(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(APP)
    project.up()
    sh(
        project,
        "mkdir -p a/b && echo one > a/b/1 && echo two > 'a/b/two words' && chown -R 1234:4321 a &&"
        " chmod 640 a/b/1",
    )
    sh(project, "echo top > top && mkdir data && echo x > data/x && ln -s /etc away")
    kept = json.loads(safe_compose("backup", "--json", cwd=project.folder).stdout)["backup"]["id"]
    sh(project, "rm a/b/1 && echo newer > 'a/b/two words' && echo newer > top && rm -r data")
    started = docker("inspect", f"{project.name}-app-1", "--format", "{{.State.StartedAt}}").stdout

    def restore(path: str, *words: str) -> tuple[int, str]:
        done = safe_compose("restore", kept, "--path", path, *words, cwd=project.folder)
        return done.returncode, done.stdout + done.stderr

    code, said = restore("a/b/1")
    assert code == 0 and "nothing is there now" in said, said
    assert sh(project, "cat a/b/1 && stat -c '%u:%g %a' a/b/1") == "one\n1234:4321 640\n"
    code, said = restore("a/b", "--confirm", project.name)
    assert code == 77 and "--confirm 'a/b'" in said, said
    done = safe_compose(
        "restore", kept, "--path", "a/b", "--confirm", "a/b", "--json", cwd=project.folder
    )
    shape = json.loads(done.stdout)["restored"]
    assert shape["path"]["entries"] == 3
    assert sh(project, "cat 'a/b/two words'") == "two\n"
    assert sh(project, f"cat '{shape['path']['kept_as']}/two words'") == "newer\n"
    for path, code, words in (
        ("a/../top", 64, "relative"), ("no/such", 64, "has no no/such"),
        ("data/x", 75, "not there, or a link"),
    ):  # fmt: skip
        found, said = restore(path, "--confirm", path)
        assert found == code and words in said, (path, said)
    killed = safe_compose(
        "restore",
        kept,
        "--path",
        "top",
        "--confirm",
        "top",
        cwd=project.folder,
        env=failing_syscalls("fsync", ".jsonl", "KILL", skip=1),
    )
    assert killed.returncode == -9
    store = Path(os.environ["SAFE_COMPOSE_HOME"])
    with connect(real_docker(), (), environ=os.environ, run_id="full") as engine:
        engine.docker.disk_is_full = True  # our program cannot run there
        lines = recover(engine, Catalogue.at(store), Journal(store), own_run="")
    assert "left for now" in "\n".join(lines), "its run stays open for the next recovery"
    assert "top of volume" in (told := safe_compose("recover").stdout) and "is as it was" in told
    assert sh(project, "cat top && ls -a | grep safe-compose; true") == "newer\n"
    assert (
        docker("inspect", f"{project.name}-app-1", "--format", "{{.State.StartedAt}}").stdout
        == started
    )


@pytest.mark.thorough
def test_a_piece_may_have_another_name_elsewhere_and_odd_signs_in_its_own(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(APP)
    project.up()
    sh(
        project,
        "mkdir a b && echo one > a/1 && ln a/1 b/1 && ln a/1 b/2 && echo odd > 'b/x\\ty[1]*'",
    )
    kept = json.loads(safe_compose("backup", "--json", cwd=project.folder).stdout)["backup"]["id"]
    sh(project, "echo newer > a/1 && rm -r b && mkdir b")
    for path in ("b/1", "b/x\\ty[1]*"):
        done = safe_compose("restore", kept, "--path", path, cwd=project.folder)
        assert done.returncode == 0, done.stderr
    assert sh(project, "cat a/1 b/1 b/x*") == "newer\none\nodd\n"
    for path in ("b", "a"):  # whichever of them the archive holds as the link
        done = safe_compose("restore", kept, "--path", path, "--confirm", path, cwd=project.folder)
        assert done.returncode == 0, done.stderr
    assert (
        sh(project, "cat a/1 b/1 b/2; stat -c %h a/1 b/1; ls -A | grep -v before")
        == "one\none\none\n1\n2\na\nb\n"
    )


@pytest.mark.thorough
def test_one_file_of_an_encrypted_copy_elsewhere_comes_back_with_the_key_alone(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    place, key = tmp_path / "place", pyrage.x25519.Identity.generate()
    place.mkdir()
    (tmp_path / "key").write_text(f"{key}\n")
    project = compose_project(
        APP, files={"safe-compose.toml": f'[encrypt]\nrecipients = ["{key.to_public()}"]\n'}
    )
    approve_settings(project.folder)
    project.up()
    sh(project, "mkdir a && echo one > a/1")
    for words in (("backup",), ("offsite", "push", "latest", "--to", f"file://{place}")):
        done = safe_compose(*words, cwd=project.folder)
        assert done.returncode == 0, done.stderr
    sh(project, "echo newer > a/1")
    lost = {"SAFE_COMPOSE_HOME": str(tmp_path / "another store")}
    approve_settings(project.folder, lost)
    words = ("restore", "latest", "--from", f"file://{place}", "--path", "a/1", "--confirm", "a/1")
    refused = safe_compose(*words, cwd=project.folder, env=lost)
    assert refused.returncode == 64 and "--identity FILE" in refused.stderr, refused.stderr
    assert sh(project, "cat a/1") == "newer\n"
    restored = safe_compose(
        *words, "--identity", str(tmp_path / "key"), cwd=project.folder, env=lost
    )
    assert restored.returncode == 0, restored.stderr
    assert sh(project, "cat a/1") == "one\n"


STATES = [
    ("echo old > f", True, False),
    (
        "echo old > f; mkdir -p .safe-compose-t/volume; echo new > .safe-compose-t/volume/f",
        True,
        False,
    ),
    (
        (
            "echo old > f.before-t; mkdir -p .safe-compose-t/volume; echo new >"
            " .safe-compose-t/volume/f"
        ),
        True,
        False,
    ),
    ("echo old > f.before-t; echo new > f; mkdir .safe-compose-t", True, True),
    ("mkdir -p .safe-compose-t/volume; echo new > .safe-compose-t/volume/f", False, False),
    ("echo new > f; mkdir .safe-compose-t", False, True),
]
"""What a cut leaves, whether something was there before, and whether the new one is then in its
place.
"""


def test_wherever_it_was_cut_off_it_is_brought_to_one_of_two_ends() -> None:
    volume = unique("piece")
    docker("volume", "create", volume)
    try:
        run = (
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            f"{volume}:/v",
            "-w",
            "/v",
            "busybox:latest",
            "sh",
            "-c",
        )
        docker(
            *run,
            "; ".join(
                f"mkdir {n}; cd {n}; {state}; cd .." for n, (state, _, _) in enumerate(STATES)
            ),
        )
        with connect(real_docker(), (), environ=os.environ, run_id=unique("test")) as engine:
            for n, (state, existed, done) in enumerate(STATES):
                piece = single_path.SinglePath(
                    EngineLocation(engine, volume),
                    f"{n}/f",
                    f"{n}/.safe-compose-t",
                    f"{n}/f.before-t",
                )
                assert piece.settle(existed=existed) is done, state
        left = docker(
            *run, "for f in $(find . -mindepth 2); do echo $f $(cat $f); done | sort"
        ).stdout.splitlines()
        for n, (state, existed, done) in enumerate(STATES):
            ends = [f"./{n}/f new"] * done + [f"./{n}/f{'.before-t' * done} old"] * existed
            assert [line for line in left if line.startswith(f"./{n}/")] == ends, state
    finally:
        docker("volume", "rm", "-f", volume)
