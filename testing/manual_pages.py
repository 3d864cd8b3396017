"""Write the manual pages into build/man, from what the program says of itself.

.venv/bin/python -m testing.manual_pages     # `make man`

It is the source of docs/commands.md as well: the help of each verb. The exit codes are those of the
table in docs/reference.md.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from safe_compose import __version__
from safe_compose.cli import app, overview
from safe_compose.cli.verbs import VERBS
from testing.projects import ROOT

FOLDER = ROOT / "build" / "man"


def escape(text: str) -> str:
    """Return text as roff shows it, whatever it begins with."""
    shown = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{shown}" if shown.startswith((".", "'")) else shown


def paragraph(text: str) -> list[str]:
    """Return the lines of a text that is filled."""
    return [escape(line) for line in textwrap.wrap(" ".join(text.split()), 100)]


def literal(lines: Sequence[str]) -> list[str]:
    """Return lines that keep their breaks."""
    return [".nf", *map(escape, lines), ".fi"]


def head(name: str, does: str) -> list[str]:
    """Return the head of a page, by which `man -k` finds it."""
    title = f'.TH "{escape(name.upper())}" 1 "" "safe\\-compose {__version__}" "User Commands"'
    return [title, ".SH NAME", f"{escape(name)} \\- {escape(does)}"]


def pages() -> dict[str, str]:
    """Return each page by the name of its file."""
    commands: dict[str, Any] = dict(app.make_command(None).commands)
    made = {"safe-compose.1": _overview_page()}
    made |= {f"safe-compose-{verb}.1": _verb_page(verb, commands[verb]) for verb in VERBS}
    return made


def _overview_page() -> str:
    text = f"{overview._HEAD}\n{overview._format_groups()}\n{overview._TAIL}"
    does, _, rest = text.partition("\n")
    lines = head("safe-compose", does)
    for title, body in _sections(rest):
        lines += [f'.SH "{escape(title.upper())}"', *literal(body)]
    lines += [*_exit_status(), ".SH SEE ALSO"]
    lines += [f".BR {escape(f'safe-compose-{verb}')} (1)," for verb in VERBS]
    return "\n".join([*lines, ".BR docker (1)", ""])


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the parts of the overview by title; lines without one come last, as notes."""
    notes: list[str] = []
    for block in text.strip().split("\n\n"):
        title, *body = block.splitlines()
        if title.endswith(":") and body and body[0].startswith("  "):
            yield title.removesuffix(":").replace("Usage", "Synopsis"), body
        else:
            notes += [title, *body]
    yield "Notes", notes


def _verb_page(verb: str, command: Any) -> str:
    context = typer.Context(command, info_name=f"safe-compose {verb}")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = head(f"safe-compose-{verb}", VERBS[verb].does)
    lines += [".SH SYNOPSIS", f"\\fBsafe\\-compose {escape(verb)}\\fR {escape(usage)}"]
    lines += [".SH DESCRIPTION"]
    for part in (command.help or "").replace("\b", "").split("\n\n"):
        lines += [".PP", *paragraph(part)]
    options = [found for p in command.get_params(context) if (found := p.get_help_record(context))]
    lines.append(".SH OPTIONS")
    for words, said in options:
        lines += [".TP", f"\\fB{escape(words)}\\fR", *(paragraph(said) or ["\\&"])]
    lines += [".SH EXAMPLE", *literal([f"safe-compose {VERBS[verb].example}"])]
    lines += [*_exit_status(), ".SH SEE ALSO", ".BR safe\\-compose (1)", ""]
    return "\n".join(lines)


def _exit_status() -> list[str]:
    reference = (ROOT / "docs" / "reference.md").read_text("utf-8")
    table = reference.partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    lines = [".SH EXIT STATUS", "Once docker has run, it is docker's. Before that:"]
    for code, meaning in re.findall(r"^\| (\d+) \| (.*) \|$", table, re.MULTILINE):
        plain = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", meaning).replace("`", "")
        lines += [".TP", code, *paragraph(plain)]
    return lines


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")
    print(f"{len(pages())} pages in {FOLDER.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
