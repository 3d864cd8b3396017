"""Make the pictures of the README from a real run of examples/dating, in a dark and a light form.

.venv/bin/python -m testing.pictures        # `make pictures`

A person at a terminal of 80 columns deletes the project's volumes and brings them back. What the
terminal showed becomes an SVG without fonts or scripts from elsewhere. Each picture also holds the
words of the program that were seen in it: `missing_words` says which of them it no longer says.
"""

import ast
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import pexpect
import pyte

from testing.projects import EXAMPLE, ROOT, docker

PICTURES = ROOT / "docs" / "pictures"
NAME = "dating"
HOME = "/home/me"
"""The home folder that the pictures show; the real one is temporary."""
COLUMNS, ROWS = 80, 24
ROW_HEIGHT, CHARACTER, FONT, MARGIN = 18, 8.43, 14, 16
SHORTEST = 8
"""Letters from which on a piece of text of the program tells it from others."""


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of one form of the pictures."""

    name: str
    background: str
    text: str
    colours: dict[str, str]


THEMES = (
    Theme("dark", "#0d1117", "#e6edf3", {
        "red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "blue": "#79c0ff",
        "magenta": "#d2a8ff", "cyan": "#76e3ea", "brightblack": "#8b949e",
    }),
    Theme("light", "#f6f8fa", "#1f2328", {
        "red": "#cf222e", "green": "#116329", "brown": "#7d4e00", "blue": "#0550ae",
        "magenta": "#6639ba", "cyan": "#1b7c83", "brightblack": "#57606a",
    }),
)  # fmt: skip

Line = Sequence[pyte.screens.Char]


class Shell:
    """Bash at a terminal, with what it showed since the last clearing."""

    def __init__(self, folder: Path, home: Path) -> None:
        """Start it in the folder, with the program first on PATH."""
        self._screen = pyte.Screen(COLUMNS, 200)
        self._stream = pyte.Stream(self._screen)
        (inputrc := home / ".inputrc").write_text("set enable-bracketed-paste off\n")
        environment = {
            "INPUTRC": str(inputrc),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "COMPOSE_PROGRESS": "quiet",
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "PS1": "$ ",
        }
        self._child = pexpect.spawn(
            "bash", ["--norc", "--noprofile"], cwd=str(folder), env=environment,
            encoding="utf-8", timeout=150, dimensions=(ROWS, COLUMNS),
        )  # fmt: skip
        self.waits_for("$ ")

    def waits_for(self, text: str) -> None:
        """Wait until the text is shown."""
        self._child.expect_exact(text)
        self._stream.feed(str(self._child.before) + text)

    def types(self, line: str, until: str = "\r\n$ ") -> None:
        """Type a line, and wait for the prompt or another text."""
        self._child.sendline(line)
        self.waits_for(until)

    def lines(self) -> list[Line]:
        """Return what was shown, without the last prompt."""
        rows: list[Line] = [[self._screen.buffer[y][x] for x in range(COLUMNS)] for y in range(200)]
        while rows and text_of(rows[-1]) in ("", "$"):
            rows.pop()
        return rows


def text_of(line: Line) -> str:
    """Return the text of a line."""
    return "".join(char.data for char in line).rstrip()


def make_home() -> Path:
    """Make a home folder whose path is as long as the one that the pictures show for it."""
    for number in range(10):
        home = Path(f"/tmp/me{number}")
        with suppress(FileExistsError):
            home.mkdir(mode=0o700)
            return home
    sys.exit("pictures: every folder /tmp/me0 to /tmp/me9 is in use")


def show_home(line: Line, home: Path) -> Line:
    """Return the line with `HOME` in the place of the path of our temporary home folder."""
    text = "".join(char.data for char in line)
    if str(home) not in text:
        return line
    shown = text.replace(str(home), HOME)
    return [char._replace(data=letter) for char, letter in zip(line, shown, strict=True)]


def scene() -> list[Line]:
    """Play the story, and return what the terminal showed."""
    found = docker("volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={NAME}")
    if found.stdout.strip():
        sys.exit(f"pictures: a project called {NAME} is on this engine: left alone")
    home = make_home()
    try:
        folder = home / NAME
        shutil.copytree(EXAMPLE, folder)
        try:
            docker("compose", "up", "--detach", "--wait", cwd=folder)
            os.spawnl(os.P_WAIT, folder / "load-rows", "load-rows", "500")
            shell = Shell(folder, home)
            shell.types("alias docker=safe-compose")
            shell.types("docker compose down -v", f"type '{NAME}'")
            shell.waits_for(": ")
            shell.types(NAME)
            shell.types("safe-compose undo")
            return [show_home(line, home) for line in shell.lines()]
        finally:
            docker("compose", "down", "--volumes", "--timeout", "5", cwd=folder, check=False)
    finally:
        shutil.rmtree(home)


def draw(lines: Sequence[Line], theme: Theme, words: Sequence[str]) -> str:
    """Return the SVG of the lines."""
    width = round(COLUMNS * CHARACTER + 2 * MARGIN)
    height = len(lines) * ROW_HEIGHT + 2 * MARGIN
    rows = "\n".join(
        f'<text x="{MARGIN}" y="{MARGIN + number * ROW_HEIGHT + FONT}">{spans(line, theme)}</text>'
        for number, line in enumerate(lines)
        if text_of(line)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}"'
        f' font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"'
        f' font-size="{FONT}" fill="{theme.text}" xml:space="preserve" role="img">\n'
        "<title>A terminal: volumes are deleted after a backup, and brought back</title>\n"
        f"<metadata>{escape(json.dumps(words, ensure_ascii=False))}</metadata>\n"
        f'<rect width="100%" height="100%" rx="8" fill="{theme.background}"/>\n{rows}\n</svg>\n'
    )


def spans(line: Line, theme: Theme) -> str:
    """Return the runs of one line with their colours; each starts at its own column."""
    found: list[tuple[int, str, str]] = []
    for column, char in enumerate(line[: len(text_of(line))]):
        look = ' font-weight="bold"' if char.bold else ""
        if char.fg != "default":
            colour = theme.colours.get(char.fg, theme.text)
            look += f' fill="{colour}"'
        if found and found[-1][2] == look:
            found[-1] = (found[-1][0], found[-1][1] + char.data, look)
        else:
            found.append((column, char.data, look))
    return "".join(
        f'<tspan x="{MARGIN + column * CHARACTER:.2f}" textLength="{len(text) * CHARACTER:.2f}"'
        f"{look}>{escape(text)}</tspan>"
        for column, text, look in found
        if text.strip()
    )


def literals() -> Iterator[str]:
    """Yield each piece of text in the program's source."""
    for path in (ROOT / "src" / "safe_compose").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value.strip()


def words_in(lines: Iterable[str]) -> list[str]:
    """Return the texts of the program that are shown in the lines."""
    shown = " ".join(" ".join(lines).split())
    return sorted({text for text in literals() if len(text) >= SHORTEST and text in shown})


def missing_words(picture: Path) -> list[str]:
    """Return the words in a picture that the program no longer has: then it is stale."""
    match = re.search(r"<metadata>(.*)</metadata>", picture.read_text("utf-8"))
    assert match, f"{picture.name} was not made by `make pictures`"
    unescaped = match[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return sorted(set(json.loads(unescaped)) - set(literals()))


def main() -> None:
    """Play the story and write the pictures."""
    lines = scene()
    words = words_in(text_of(line) for line in lines)
    PICTURES.mkdir(exist_ok=True)
    for theme in THEMES:
        path = PICTURES / f"undo-{theme.name}.svg"
        path.write_text(draw(lines, theme, words), "utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
