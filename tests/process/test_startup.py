"""What our own verbs import: the modules of the verb in hand, and libraries only where they are
used. Told by Python itself at the end of the verb, so no clock is needed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safe_compose.cli.verbs import VERBS
from safe_compose.store.catalogue import index
from testing.backups import fill
from testing.fixtures import SafeCompose
from testing.projects import wait_until

LIBRARIES = {
    "docker", "requests", "urllib3", "psycopg", "pydantic", "pydantic_core", "questionary",
    "prompt_toolkit", "ruamel", "filelock", "obstore", "pyrage", "markdown_it",
    "tree_sitter", "rich.console",
}  # fmt: skip
"""Libraries that take long to import, besides typer."""
OF_GUARD = {
    "safe_compose.workspace", "safe_compose.engine", "safe_compose.databases",
    "safe_compose.operations.guard", "safe_compose.grammar.parser", "safe_compose.core.policy",
}  # fmt: skip
"""What inspects a command and an engine."""
_TOLD = """
import atexit, sys
told, *words = sys.argv[1:]
def tell():
    with open(told, "w") as file:
        file.write("\\n".join(sys.modules))
atexit.register(tell)
sys.argv = ["safe-compose", *words]
from safe_compose.shim import main
sys.exit(main())
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a project, before a docker that says nothing."""
    docker, folder = tmp_path / "bin" / "docker", tmp_path / "elsewhere"
    docker.parent.mkdir()
    docker.write_text("#!/bin/sh\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    folder.mkdir()
    return folder


def imported(folder: Path, *words: str) -> set[str]:
    """The modules that Python holds when a verb has ended."""
    told = folder.parent / "modules"
    done = subprocess.run(
        [sys.executable, "-c", _TOLD, told, *words],
        cwd=folder,
        env={**os.environ, "DOCKER_HOST": "unix:///nowhere.sock"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(told.read_text().split("\n"))


@pytest.mark.parametrize(
    "words",
    [
        ("list",), ("list", "--json"), ("list", "--project", "shop"), ("journal",), ("about",),
        ("commands",), ("approve", "--list"), ("schedule", "status"), ("help", "restore"),
        ("undo", "--help"),
    ],
)  # fmt: skip
def test_a_verb_imports_no_library_that_it_does_not_use(
    words: tuple[str, ...], elsewhere: Path
) -> None:
    modules = imported(elsewhere, *words)
    assert "typer" in modules and modules & LIBRARIES == set()


@pytest.mark.parametrize("words", [("help",), ("--help",), ("__complete", "show", "")])
def test_help_and_completion_come_without_typer(words: tuple[str, ...], elsewhere: Path) -> None:
    modules = imported(elsewhere, *words)
    assert modules & {*LIBRARIES, "typer", "rich", "dataclasses", "json"} == set()


@pytest.mark.parametrize("words", [("list",), ("about",), ("help", "forget")])
def test_only_the_modules_of_the_verb_in_hand_are_imported(
    words: tuple[str, ...], elsewhere: Path
) -> None:
    modules = imported(elsewhere, *words)
    of_verbs = {f"safe_compose.cli.{verb.module}" for verb in VERBS.values()}
    assert modules & of_verbs == {f"safe_compose.cli.{VERBS[words[-1]].module}"}


def test_a_list_of_ten_backups_reads_their_manifests_once(
    elsewhere: Path, safe_compose: SafeCompose
) -> None:
    store = Path(os.environ["SAFE_COMPOSE_HOME"])
    fill(store, 10, projects=2)
    files = ("manifest.json", "verification.json")
    keys = [index.make_key(str(path.parent), files) for path in store.rglob("manifest.json")]
    wait_until("files old enough", lambda: all(key and index.is_settled(key) for key in keys))
    first = safe_compose("list")
    assert len(first.stdout.splitlines()) == 11
    for words in (("list",), ("list", "--json"), ("list", "--project", "project-1")):
        modules = imported(elsewhere, *words)
        assert "safe_compose.store.catalogue.schema" not in modules
        assert modules & {*LIBRARIES, *OF_GUARD} == set()
    assert safe_compose("list").stdout == first.stdout


_ASKED = """
import os, sys
asked = []
def note(event, arguments):
    if event == "subprocess.Popen":
        asked.append(" ".join(arguments[1][1:3]))
        if len(asked) == 3:
            print(*sys.modules)
            print(*asked, sep=",", flush=True)
            os._exit(0)
sys.addaudithook(note)
sys.argv = ["safe-compose", "compose", "down", "-v"]
from safe_compose.shim import main
main()
"""


def test_docker_is_asked_before_anything_is_imported_that_its_answer_can_wait_for(
    elsewhere: Path,
) -> None:
    """Told by Python itself at the moment when the third question is sent."""
    (elsewhere / "compose.yaml").write_text("services: {app: {image: none}}\n")
    done = subprocess.run(
        [sys.executable, "-c", _ASKED],
        cwd=elsewhere,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    names, asked = done.stdout.splitlines()
    modules = {*names.split()}
    later = {
        "safe_compose.core.backup", "safe_compose.core.policy", "safe_compose.store",
        "safe_compose.settings.load", "safe_compose.operations", "safe_compose.databases",
        "safe_compose.credentials.survey", "safe_compose.ui", "http.client", "email", "ssl", "rich",
        "typer", "safe_compose.workspace", "safe_compose.engine", "dataclasses", "json", "datetime",
        "hashlib", "tempfile", "socket", "typing",
    }  # fmt: skip
    assert "safe_compose.compose.first_query" in modules
    assert modules & {*LIBRARIES, *later} == set()
    assert asked == "compose config,info --format,context inspect"


def test_the_confirmation_is_shown_without_what_only_its_details_need() -> None:
    script = "import safe_compose.operations.guard.run, safe_compose.engine.http, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    later = {
        "safe_compose.databases", "safe_compose.volumes.archive", "safe_compose.store.steps",
        "safe_compose.operations.outcome", "safe_compose.operations.guard.execute", "typer",
        "rich.console", "http.client", "safe_compose.core.backup", "safe_compose.engine.parts",
        "safe_compose.engine.helper_containers", "safe_compose.engine.bridge", "random", "tempfile",
    }  # fmt: skip
    assert {*done.stdout.split()} & {*LIBRARIES, *later} == set()
