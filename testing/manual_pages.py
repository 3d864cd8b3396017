"""Write the manual pages into build/man, from what the program says of itself.

.venv/bin/python -m testing.manual_pages     # `make man`

It is the source of docs/commands.md as well: the help of each verb. The exit codes are those of the
table in docs/reference.md.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

from safe_compose import __version__
from safe_compose.cli import app, overview, verb_help
from safe_compose.cli.verbs import ACTIONS, VERBS
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
    commands: dict[str, Any] = dict(verb_help.list_commands(app.make_command(None)))
    made = {"safe-compose.1": _overview_page()}
    made |= {f"safe-compose-{verb}.1": _verb_page(verb, commands) for verb in VERBS}
    return made


def _overview_page() -> str:
    text = overview.format_help()
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


def _verb_page(verb: str, commands: Mapping[str, Any]) -> str:
    parts = [f"{verb} {action}" for action in ACTIONS.get(verb, ())]
    lines = head(f"safe-compose-{verb}", VERBS[verb].does)
    lines.append(".SH SYNOPSIS")
    for words in parts or [verb]:
        usage = " ".join(commands[words].collect_usage_pieces(_context(words, commands)))
        lines += [".PP", f"\\fBsafe\\-compose {escape(words)}\\fR {escape(usage)}"]
    lines += [".SH DESCRIPTION", *_description(commands[verb])]
    for words in parts:
        lines += [f'.SH "{escape(words.upper())}"', *_description(commands[words])]
        lines += _options(words, commands)
    if not parts:
        lines += [".SH OPTIONS", *_options(verb, commands)]
    examples = ACTIONS[verb].values() if parts else [VERBS[verb].example]
    lines += [".SH EXAMPLE", *literal([f"safe-compose {example}" for example in examples])]
    lines += [*_exit_status(), ".SH SEE ALSO", ".BR safe\\-compose (1)", ""]
    return "\n".join(lines)


def _context(words: str, commands: Mapping[str, Any]) -> Any:
    return typer.Context(commands[words], info_name=f"safe-compose {words}")


def _description(command: Any) -> Iterator[str]:
    for part in (command.help or "").replace("\b", "").split("\n\n"):
        yield from (".PP", *paragraph(part))


def _options(words: str, commands: Mapping[str, Any]) -> Iterator[str]:
    context = _context(words, commands)
    for parameter in commands[words].get_params(context):
        if record := parameter.get_help_record(context):
            yield from (".TP", f"\\fB{escape(record[0])}\\fR", *(paragraph(record[1]) or ["\\&"]))


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
