"""The tutorial, line by line: its own commands, at a terminal where a person types."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from testing.projects import ROOT, docker
from testing.terminal import PROGRAM, Person

PAGE = (ROOT / "docs" / "tutorial.md").read_text("utf-8")
GUARDED = "safe-compose compose down -v"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(lab: None, tmp_path: Path, sealed_environment: Path) -> Path:
    """The folder that the reader makes, below one of our own: the project is called `shop`."""
    if docker("volume", "ls", "-q", "--filter", "name=shop_data").stdout.strip():
        pytest.fail("a project called shop is on this engine: remove it first")
    return tmp_path / "shop"


@pytest.mark.engine
@pytest.mark.thorough
def test_the_tutorial_works_line_by_line(folder: Path) -> None:
    (compose_file,) = blocks("yaml")
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert lines[:2] == ["mkdir shop", "cd shop"] and lines.count(GUARDED) == 1
    folder.mkdir()
    (folder / "compose.yaml").write_text(compose_file)
    printed: dict[str, str] = {}
    try:
        for line in lines[2:]:
            printed[line] = delete(folder) if line == GUARDED else run(line, folder)
    finally:
        subprocess.run(
            [shutil.which("docker") or "docker", "compose", "down", "--volumes"],
            cwd=folder, capture_output=True,
        )  # fmt: skip
    assert "shop_data" not in printed["docker volume ls --filter name=shop_data"]
    assert "shop_data" in printed["safe-compose volumes"]
    (counted,) = (text for line, text in printed.items() if "SELECT count" in line)
    assert counted.strip() == "5000" and "It prints `5000`" in PAGE


def delete(folder: Path) -> str:
    """Type the command, and `shop` at the question, as the page says."""
    assert "type the project's name, `shop`, and press Enter" in PAGE
    person = Person("compose", "down", "-v", cwd=folder)
    person.sees("type 'shop'")
    person.types("shop")
    code = person.leaves_with()
    assert code == 0, person.last_words
    return person.last_words


def run(line: str, folder: Path) -> str:
    line = re.sub(r"^safe-compose(?= )", PROGRAM, line)
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, (line, done.stderr)
    return done.stdout
