"""What our own verbs import: the modules of the verb in hand, and libraries only where they are
used. Told by Python itself at the end of the verb, so no clock is needed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safe_compose.cli.verbs import VERBS

LIBRARIES = {
    "docker", "requests", "urllib3", "psycopg", "pydantic", "pydantic_core", "questionary",
    "prompt_toolkit", "ruamel", "filelock", "obstore", "pyrage", "markdown_it",
    "tree_sitter",
}  # fmt: skip
"""Libraries that take long to import, besides typer."""
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
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
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
