"""A daemon behind ssh: one login for all of ours, the same result as at the socket, and nothing
left running.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from testing.fixtures import ProjectFactory, SafeCompose
from testing.offsite_servers import sftp_server, user
from testing.projects import docker, require_success, wait_until
from testing.stacks import FILES, JOB, read_file, shop, write_file
from testing.terminal import Person

pytestmark = [pytest.mark.engine, pytest.mark.thorough]


class SshDaemon:
    """The lab's daemon, behind an sshd of our own that counts logins."""

    def __init__(self, folder: Path, port: int, environment: Mapping[str, str]) -> None:
        self._log = folder / "log"
        self._port = str(port).encode()
        self.environment = environment

    def logins(self) -> int:
        return self._log.read_text().count("Accepted publickey")

    def sessions(self) -> int:
        """How many programs were started there; a forwarded connection starts none."""
        return self._log.read_text().count("Starting session: command")

    def list_shared(self) -> list[int]:
        """The ssh processes of safe-compose that share a login here, by their socket."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                shared = b"-S" in words and any(b"/safe-compose-" in w for w in words)
                if shared and self._port in words:
                    found.append(int(entry.name))
        return found


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[SshDaemon]:
    with sftp_server(tmp_path / "ssh", settings="MaxSessions 100\nLogLevel VERBOSE\n") as line:
        host = f"ssh://{user()}@127.0.0.1:{line.port}"
        yield SshDaemon(tmp_path / "ssh", line.port, {**line.environment, "DOCKER_HOST": host})


def test_a_deletion_and_its_undo_log_in_once_besides_docker_itself(
    compose_project: ProjectFactory, safe_compose: SafeCompose, daemon: SshDaemon
) -> None:
    project = compose_project(FILES)
    project.up()
    write_file(project)
    started = daemon.logins()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in daemon.environment.items():
            patch.setenv(name, value)
        project.docker("compose", "stop", "-t", "0")
        project.docker("compose", "down")
    bare = daemon.logins() - started
    project.up()

    started, programs = daemon.logins(), daemon.sessions()
    deleted = safe_compose(
        *JOB, "compose", "down", "-v", cwd=project.folder, env=daemon.environment
    )
    require_success(deleted)
    # `docker info` proves that both reach one engine, and compose is asked whether it would load
    assert daemon.logins() - started <= bare + 4
    assert daemon.sessions() - programs <= bare + 5
    assert project.volumes() == []
    require_success(safe_compose("undo", cwd=project.folder, env=daemon.environment))
    assert read_file(project) == "a photo"
    assert daemon.list_shared() == []


def test_a_killed_run_leaves_no_ssh_behind(
    compose_project: ProjectFactory, daemon: SshDaemon
) -> None:
    project = compose_project(shop("canary-51e0"))
    project.up()
    project.psql("CREATE TABLE t AS SELECT 1 AS id", user="shop", database="shop")
    write_file(project)

    def measured() -> bool:
        """Whether one that is killed at its question knew all: a busy engine is too slow."""
        person = Person("compose", "down", "-v", cwd=project.folder, env=daemon.environment)
        screen = person.sees(f"type '{project.name}'")
        assert "REMOTE" in screen
        assert daemon.list_shared() != []
        person.dies()
        wait_until("ssh has ended", lambda: daemon.list_shared() == [])
        return "size unknown" not in screen and "1 table" in screen

    wait_until("sizes and contents are known through ssh", measured)
    assert docker("volume", "ls", "-q", "-f", f"name={project.name}_").stdout != ""


def test_links_of_this_machine_say_nothing_about_the_folders_of_that_one(
    compose_project: ProjectFactory, safe_compose: SafeCompose, daemon: SshDaemon
) -> None:
    project = compose_project(
        """
services:
  web: {image: "busybox:latest", init: true, command: [sleep, "100000"], volumes: ["./there:/d"]}
""",
        files={"there/a": "1"},
    )
    project.up()
    run = partial(safe_compose, cwd=project.folder, env=daemon.environment)
    require_success(run("backup"))
    (project.folder / "there").rename(project.folder / "here")
    (project.folder / "there").symlink_to("here")
    words = ("restore", "latest", "--volume", "./there", "--into", "scratch", "--dry-run")
    plan = require_success(run(*words))
    assert f"{project.folder}/there" in plan.stdout, plan.stdout
