"""What every test gets: a sealed environment; and, for tests marked `engine`, a real engine with
projects on it.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testing.engines import CERTIFICATES, chosen
from testing.fixtures import OUTSIDE, ProjectFactory, SafeCompose
from testing.projects import ROOT, Completed, ComposeProject, example_project, unique
from testing.projects import compose_project as make_project

if TYPE_CHECKING:
    from safe_compose.engine import Engine


SEALED_PREFIXES = ("DOCKER_", "COMPOSE_", "SAFE_COMPOSE_", "XDG_", "PG", "POSTGRES_")
SEALED_NAMES = ("CI", "SAFE_COMPOSE", "BASH_ENV", "ENV", "PYTHONDONTWRITEBYTECODE")
"""The last would have each of some thousand commands compile the program again, which nobody who
installed it waits for.
"""
PLUGIN_FOLDERS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)

for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    # `nohup`, and a shell's background jobs, have their children ignore these: what the tests start
    # would inherit that, and a Ctrl-C at a pseudo terminal would do nothing.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(
            _number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        )


# The client of the chosen stack, and the dockerd that private engines start, once the lab has them.
STACK = chosen()
"""Named by a variable that no test sees."""
os.environ["PATH"] = f"{STACK.programs}:{os.environ.get('PATH', os.defpath)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests marked `engine` the lab, and start the files that take longest first.

    A worker that got one of them last would have the others wait for it.
    """
    thorough: Counter[Path] = Counter()
    long = {item.path for item in items if item.get_closest_marker("long")}
    for item in items:
        thorough[item.path] += item.get_closest_marker("thorough") is not None
        if item.get_closest_marker("engine") and isinstance(item, pytest.Function):
            item.fixturenames.insert(0, "lab")
    engine = {item.path for item in items if item.get_closest_marker("engine")}
    order = {
        path: (path not in long, -thorough[path], path not in engine, -path.stat().st_size)
        for path in {item.path for item in items}
    }
    items.sort(key=lambda item: order[item.path])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which files took longest, where the whole took minutes."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.location[0]] += report.duration
    if (total := sum(seconds.values())) < 100:
        return
    terminalreporter.section(f"slowest 10 files, of {total:.0f} s")
    for path, taken in seconds.most_common(10):
        terminalreporter.write_line(f"{taken:7.0f} s  {path}")


def _seal(patch: pytest.MonkeyPatch, home: Path) -> None:
    for name in tuple(os.environ):
        if name.startswith(SEALED_PREFIXES) or name in SEALED_NAMES:
            patch.delenv(name)
    home.mkdir(parents=True, exist_ok=True)
    patch.setenv("HOME", str(home))
    patch.setenv("SAFE_COMPOSE_HOME", str(home / "safe-compose"))
    for name, folder in (
        ("CONFIG", ".config"),
        ("DATA", ".local/share"),
        ("STATE", ".local/state"),
        ("CACHE", ".cache"),
    ):
        patch.setenv(f"XDG_{name}_HOME", str(home / folder))
    if host := OUTSIDE.get("SAFE_COMPOSE_LAB_HOST"):  # `testing/matrix.py` sets it
        patch.setenv("DOCKER_HOST", host)
        if host.startswith("tcp:"):
            patch.setenv("DOCKER_TLS_VERIFY", "1")
            patch.setenv("DOCKER_CERT_PATH", str(CERTIFICATES))
    # Where the lab could put Compose only into the home folder of a user without root, docker has
    # to find it there.
    plugin = Path(OUTSIDE.get("HOME", "/"), ".docker/cli-plugins/docker-compose")
    if plugin.exists() and not any(
        Path(folder, "docker-compose").exists() for folder in PLUGIN_FOLDERS
    ):
        link = home / ".docker" / "cli-plugins" / "docker-compose"
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(plugin)


def _let_pass(folder: Path) -> None:
    """Let an engine of another user reach what tests have it mount, by its path."""
    top = Path(tempfile.gettempdir())
    for each in (folder, *folder.parents):
        # Each start of pytest closes the folder of all its runs again.
        if top in each.parents and not (mode := each.stat().st_mode) & 0o001:
            each.chmod(mode | 0o011)


@pytest.fixture(scope="session", autouse=True)
def _sealed_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fixtures that outlive one test run sealed as well."""
    with pytest.MonkeyPatch.context() as patch:
        _seal(patch, tmp_path_factory.mktemp("home"))
        yield


@pytest.fixture(autouse=True)
def sealed_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a home of its own and nothing of docker's, compose's or ours in the
    environment.

    Return that home; SAFE_COMPOSE_HOME is `safe-compose` in it.
    """
    home = tmp_path / "home"
    _seal(monkeypatch, home)
    if STACK.rootless:
        _let_pass(tmp_path)
    return home


@pytest.fixture(scope="session")
def lab(_sealed_session: None) -> None:
    """A real engine, Compose and the images. Fails, never skips, when they cannot be had; workers
    wait for each other.
    """
    _bring_lab()


@pytest.fixture(scope="session")
def postgres_image(lab: None) -> Callable[[int], str]:
    """Make sure of the image of a major version of PostgreSQL (13 to 18), and return its name."""

    def bring(major: int) -> str:
        name = f"postgres:{major}"
        _bring_lab(name)
        return name

    return bring


@pytest.fixture(scope="session")
def server_image(lab: None) -> Callable[[str], str]:
    """Make sure of an image of `testing/server_images.py`, and return its name."""

    def bring(name: str) -> str:
        _bring_lab(name)
        return name

    return bring


@pytest.fixture(scope="session")
def sqlite_image(lab: None) -> str:
    """The name of an image with Python and the sqlite3 program."""
    name = "lab-sqlite:latest"
    _bring_lab(name)
    return name


def _bring_lab(*images: str) -> None:
    environment = {
        name: value
        for name, value in OUTSIDE.items()
        if not name.startswith(("DOCKER_HOST", "DOCKER_CONTEXT"))
    }
    up = ROOT / "testing" / "up"
    done = subprocess.run(
        [up, *images], env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if done.returncode:
        pytest.fail(f"testing/up ended with {done.returncode}:\n{done.stderr}", pytrace=False)


def _factory(stack: ExitStack, parent: Path) -> ProjectFactory:
    def make(
        text: str, name: str | None = None, files: Mapping[str, str] | None = None
    ) -> ComposeProject:
        made: AbstractContextManager[ComposeProject] = make_project(
            parent, text, name=name, files=files
        )
        return stack.enter_context(made)

    return make


@pytest.fixture
def compose_project(lab: None, tmp_path: Path) -> Iterator[ProjectFactory]:
    """A factory of projects: `compose_project(text, name=None, files={})`, not started, removed
    after the test.
    """
    with ExitStack() as stack:
        yield _factory(stack, tmp_path / "projects")


@pytest.fixture(scope="module")
def module_compose_project(
    lab: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProjectFactory]:
    """The same for one module, for servers that several tests only read."""
    with ExitStack() as stack:
        yield _factory(stack, tmp_path_factory.mktemp("projects"))


@pytest.fixture
def dating(lab: None, tmp_path: Path) -> Iterator[ComposeProject]:
    """A running copy of the example with 100 users, of this test alone."""
    with example_project(tmp_path / "projects") as project:
        yield project


@pytest.fixture(scope="module")
def module_dating(lab: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeProject]:
    """A running copy of the example for one module: only for tests that change nothing in it."""
    with example_project(tmp_path_factory.mktemp("projects")) as project:
        yield project


@pytest.fixture
def safe_compose(tmp_path: Path) -> SafeCompose:
    """Run the installed `safe-compose` as a process of its own session: no terminal, empty stdin
    unless `input`.

    `env` is added to the sealed environment. The exit code is not checked.
    """
    program = Path(sys.executable).with_name("safe-compose")

    def run(
        *argv: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float = 300,
    ) -> Completed:
        assert program.exists(), f"{program} is not installed: make .venv"
        return subprocess.run(
            [program, *argv],
            cwd=cwd or tmp_path,
            env={**os.environ, **(env or {})},
            input=input if input is not None else "",
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            start_new_session=True,
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="session")
def real_docker(lab: None) -> str:
    """The path of the real docker."""
    docker = shutil.which("docker")
    assert docker
    return docker


@pytest.fixture(scope="module")
def engine(real_docker: str) -> "Iterator[Engine]":
    """The engine as our own code sees it, for one module; no helper of it may be left."""
    from safe_compose.engine import connect

    with connect(real_docker, (), environ=os.environ, run_id=unique("test")) as opened:
        yield opened
        assert opened.helpers.leftovers() == ()
