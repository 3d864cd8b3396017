"""Compose projects that tests start on the real engine, and that leave nothing behind."""

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from docker import APIClient, DockerClient
from docker.errors import APIError, NotFound

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "dating"
LAB = ROOT / ".lab"

Completed = subprocess.CompletedProcess[str]


def real_docker() -> str:
    """The real docker's path. Tests put shims only on the PATH of what they start, never on their
    own.
    """
    docker = shutil.which("docker")
    assert docker, "no docker on PATH: testing/up brings one"
    return docker


def docker(
    *argv: str, cwd: Path | None = None, check: bool = True, input: str | None = None
) -> Completed:
    """Run the real docker with no terminal. With `check`, a failure shows docker's own words."""
    done = subprocess.run(
        [real_docker(), *argv],
        cwd=cwd,
        input=input if input is not None else "",
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        start_new_session=True,
        timeout=300,
    )
    if check and done.returncode:
        raise AssertionError(
            f"docker {' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done


def require_success(answer: Completed) -> Completed:
    """The answer of a command that must end with 0."""
    assert answer.returncode == 0, answer.stderr
    return answer


def read_in_volume(
    volume: str, *argv: str, image: str = "busybox:latest", input: str | None = None
) -> str:
    """The stdout of one program in a throwaway container that sees the volume as /v."""
    words = (
        "run",
        "--rm",
        "-i",
        "--network",
        "none",
        "-v",
        f"{volume}:/v",
        "--entrypoint",
        argv[0],
        image,
    )
    return docker(*words, *argv[1:], input=input).stdout


@contextmanager
def _engine() -> Iterator[APIClient]:
    """The engine that `docker` would ask. A command of docker's takes six times the processor time
    of a question by HTTP, and the tests ask thousands of times. Behind ssh stands this machine's
    (`matrix.py`), and docker-py would need another library for it.
    """
    local = os.environ.get("DOCKER_HOST", "").startswith("ssh://")
    environ = {"DOCKER_HOST": ""} if local else None  # empty, it would be the process's own
    with closing(DockerClient.from_env(timeout=300, environment=environ)) as client:
        yield client.api


def volume_exists(name: str) -> bool:
    with _engine() as engine, suppress(NotFound):
        engine.inspect_volume(name)
        return True
    return False


def unique(base: str) -> str:
    """A name that no other test, worker or person uses."""
    return f"{base}-{uuid.uuid4().hex[:8]}"


def wait_until(what: str, condition: object, *, timeout: float = 60.0) -> None:
    """Poll `condition()` every 50 ms until it is true; fail the test naming `what` after `timeout`
    seconds.
    """
    assert callable(condition)
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        time.sleep(0.05)


_WATCH = """
DO $$ BEGIN
  FOR round IN 1 .. 12000 LOOP
    PERFORM pg_stat_clear_snapshot();
    IF EXISTS (SELECT FROM pg_stat_activity WHERE application_name <> 'psql' AND query LIKE 'COPY%') THEN RETURN; END IF;
    PERFORM pg_sleep(0.005);
  END LOOP;
  RAISE 'no dump within 60 s';
END $$"""


@dataclass(frozen=True, slots=True)
class ComposeProject:
    """A folder with a compose file; its name is the project's, as compose infers it."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def docker(self, *argv: str, check: bool = True, input: str | None = None) -> Completed:
        """Run the real docker in the project's folder."""
        return docker(*argv, cwd=self.folder, check=check, input=input)

    def up(self, *services: str) -> None:
        """Start it and wait until every service runs and is healthy. Nothing is pulled."""
        self.docker("compose", "up", "--detach", "--wait", "--pull", "never", *services)

    def volumes(self) -> list[str]:
        """The names of the project's volumes that exist, sorted, by label or by their prefix."""
        return _volumes_of(self.name)

    def containers(self) -> list[str]:
        """The names of the project's containers, running or not, sorted."""
        return _containers_of(self.name, all=True)

    def running(self) -> list[str]:
        """The names of the project's running containers, sorted."""
        return _containers_of(self.name, all=False)

    def exec(self, service: str, *argv: str, input: str | None = None) -> str:
        """The stdout of one program in the first container of a service. Compose would need five
        times the processor time.
        """
        return docker("exec", "-i", f"{self.name}-{service}-1", *argv, input=input).stdout

    def psql(
        self, query: str, *, service: str = "db", user: str = "dating", database: str = "dating"
    ) -> str:
        """Run SQL as the superuser over the socket and return what it prints, unaligned and without
        headers.
        """
        argv = ("psql", "-XqtA", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, "-f", "-")
        return self.exec(service, *argv, input=query).strip()

    def wait_for_dump(self, *, user: str, database: str) -> None:
        """Return while a dump of ours copies a table, 60 s at most. One statement that watches
        inside of the server: asking again and again could miss a short dump, and then ask a server
        that is being stopped.
        """
        self.psql(_WATCH, user=user, database=database)

    def load_rows(self, count: int) -> None:
        """Only in a copy of the example: add users, photos, likes and messages."""
        self._script("load-rows", str(count))

    def count_rows(self) -> str:
        """Only in a copy of the example: rows and a checksum for each table; equal text means equal
        data.
        """
        return self._script("count-rows")

    def _script(self, name: str, *argv: str) -> str:
        done = subprocess.run(
            [self.folder / name, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"
        return done.stdout


def _label(project: str) -> dict[str, str]:
    return {"label": f"com.docker.compose.project={project}"}


def _containers_of(project: str, *, all: bool) -> list[str]:
    with _engine() as engine:
        found = engine.containers(all=all, filters=_label(project))
    # A container that others link to has `/OTHER/ALIAS` among its names as well.
    names = [min(container["Names"], key=lambda name: name.count("/")) for container in found]
    return sorted(name.removeprefix("/") for name in names)


def _volumes_of(project: str) -> list[str]:
    with _engine() as engine:
        found = engine.volumes()["Volumes"] or []
    return sorted(
        volume["Name"]
        for volume in found
        if (volume["Labels"] or {}).get("com.docker.compose.project") == project
        or volume["Name"].startswith(f"{project}_")
    )


def remove_project(name: str) -> None:
    """Remove what carries the project's label or name, whatever a test did to its compose file or
    its volumes.
    """
    with _engine() as engine:

        def remove_containers(filters: dict[str, str]) -> None:
            for container in engine.containers(all=True, filters=filters):
                with suppress(APIError):
                    engine.remove_container(container["Id"], v=True, force=True)

        remove_containers(_label(name))
        for volume in _volumes_of(name):
            try:
                engine.remove_volume(volume, force=True)
            except APIError:
                remove_containers({"volume": volume})
                with suppress(APIError):
                    engine.remove_volume(volume, force=True)
        for network in engine.networks(filters=_label(name)):
            with suppress(APIError):
                engine.remove_network(network["Id"])


@contextmanager
def compose_project(
    parent: Path, text: str, *, name: str | None = None, files: Mapping[str, str] | None = None
) -> Iterator[ComposeProject]:
    """Write a project into `parent`/NAME (not started), and remove all of it afterwards.

    `name` is used as it is when given, so it has to be unique; `files` are further files, path ->
    text.
    """
    folder = parent / (name or unique("scproj"))
    folder.mkdir(parents=True)
    for path, content in {"compose.yaml": text, **(files or {})}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    try:
        yield ComposeProject(folder)
    finally:
        remove_project(folder.name)


@contextmanager
def example_project(
    parent: Path, *, rows: int = 100, services: Sequence[str] = ()
) -> Iterator[ComposeProject]:
    """A copy of examples/dating under a unique name: up, the database healthy, `rows` users loaded."""
    folder = parent / unique("dating")
    shutil.copytree(EXAMPLE, folder)
    project = ComposeProject(folder)
    try:
        project.up(*services)
        if rows:
            project.load_rows(rows)
        yield project
    finally:
        remove_project(project.name)
