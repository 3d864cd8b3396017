"""Compose projects that tests start on the real engine, and that leave nothing behind."""

import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "dating"
LAB = ROOT / ".lab"

Completed = subprocess.CompletedProcess[str]


def real_docker() -> str:
    """The real docker's path. Tests put shims only on the PATH of what they start, never on their own."""
    docker = shutil.which("docker")
    assert docker, "no docker on PATH: tests/lab/up brings one"
    return docker


def docker(*argv: str, cwd: Path | None = None, check: bool = True, input: str | None = None) -> Completed:
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
        raise AssertionError(f"docker {' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def good(answer: Completed) -> Completed:
    """The answer of a command that must end with 0."""
    assert answer.returncode == 0, answer.stderr
    return answer


def in_volume(volume: str, *argv: str, image: str = "busybox:latest", input: str | None = None) -> str:
    """The stdout of one program in a throwaway container that sees the volume as /v."""
    words = ("run", "--rm", "-i", "--network", "none", "-v", f"{volume}:/v", "--entrypoint", argv[0], image)
    return docker(*words, *argv[1:], input=input).stdout


def volume_exists(name: str) -> bool:
    return docker("volume", "inspect", name, check=False).returncode == 0


def unique(base: str) -> str:
    """A name that no other test, worker or person uses."""
    return f"{base}-{uuid.uuid4().hex[:8]}"


def wait_until(what: str, condition: object, *, timeout: float = 60.0) -> None:
    """Poll `condition()` every 50 ms until it is true; fail the test naming `what` after `timeout` seconds."""
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
        return sorted(_named("volume", self.name))

    def containers(self) -> list[str]:
        """The names of the project's containers, running or not, sorted."""
        answer = docker("ps", "-a", "--filter", f"label=com.docker.compose.project={self.name}", "--format", "{{.Names}}")
        return sorted(answer.stdout.split())

    def running(self) -> list[str]:
        """The names of the project's running containers, sorted."""
        answer = docker("ps", "--filter", f"label=com.docker.compose.project={self.name}", "--format", "{{.Names}}")
        return sorted(answer.stdout.split())

    def exec(self, service: str, *argv: str, input: str | None = None) -> str:
        """The stdout of one program in the first container of a service. Compose would need five times the processor time."""
        return docker("exec", "-i", f"{self.name}-{service}-1", *argv, input=input).stdout

    def psql(self, query: str, *, service: str = "db", user: str = "dating", database: str = "dating") -> str:
        """Run SQL as the superuser over the socket and return what it prints, unaligned and without headers."""
        argv = ("psql", "-XqtA", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, "-f", "-")
        return self.exec(service, *argv, input=query).strip()

    def wait_for_dump(self, *, user: str, database: str) -> None:
        """Return while a dump of ours copies a table, 60 s at most. One statement that watches inside of the server: asking
        again and again could miss a short dump, and then ask a server that is being stopped."""
        self.psql(_WATCH, user=user, database=database)

    def load_rows(self, count: int) -> None:
        """Only in a copy of the example: add users, photos, likes and messages."""
        self._script("load-rows", str(count))

    def count_rows(self) -> str:
        """Only in a copy of the example: rows and a checksum for each table; equal text means equal data."""
        return self._script("count-rows")

    def _script(self, name: str, *argv: str) -> str:
        done = subprocess.run([self.folder / name, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        return done.stdout


def _named(kind: str, project: str) -> set[str]:
    label = f"label=com.docker.compose.project={project}"
    found = set(docker(kind, "ls", "--quiet", "--filter", label).stdout.split())
    if kind == "volume":
        by_prefix = docker("volume", "ls", "--quiet", "--filter", f"name={project}_").stdout.split()
        found |= {name for name in by_prefix if name.startswith(f"{project}_")}
    return found


def remove_project(name: str) -> None:
    """Remove what carries the project's label or name, whatever a test did to its compose file or its volumes."""
    label = f"label=com.docker.compose.project={name}"
    if containers := docker("ps", "-aq", "--filter", label).stdout.split():
        docker("rm", "--force", "--volumes", *containers, check=False)
    for volume in sorted(_named("volume", name)):
        users = docker("ps", "-aq", "--filter", f"volume={volume}").stdout.split()
        if users:
            docker("rm", "--force", "--volumes", *users, check=False)
        docker("volume", "rm", "--force", volume, check=False)
    if networks := sorted(_named("network", name)):
        docker("network", "rm", *networks, check=False)


@contextmanager
def compose_project(
    parent: Path, text: str, *, name: str | None = None, files: Mapping[str, str] | None = None
) -> Iterator[ComposeProject]:
    """Write a project into `parent`/NAME (not started), and remove all of it afterwards.

    `name` is used as it is when given, so it has to be unique; `files` are further files, path -> text.
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
def example_project(parent: Path, *, rows: int = 100, services: Sequence[str] = ()) -> Iterator[ComposeProject]:
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
