"""Other people's words on a terminal, in RESTORE.md and in commands to paste: shown, never obeyed."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from safe_compose.core.text import (
    LONGEST,
    escape_markdown,
    join_for_shell,
    make_lines_visible,
    make_visible,
    quote_markdown,
    shell_quote,
    shell_quote_always,
)
from safe_compose.ui import tables, terminal
from safe_compose.ui.table_layout import Cell, Column, lay_out

SOURCE = Path(__file__).parents[2] / "src" / "safe_compose"

FORGED = "\nsafe-compose: verified"
PLANTED = (
    f"a{FORGED}",
    f"a\r{FORGED}",
    "a\x1b[2J\x1b]0;title\x07\x1b[8m",
    "a\x9b2J",  # C1: CSI in one character
    "a\x85b\x0bb\x0cb",
    "a\u2028safe-compose: verified\u2029b",
    "a\u202egnp\u2066x\u2069\u200e\u061c",
    "a\u200b\u200d\ufeff\u00ad\u2060b",
    "a\u3164\u115f\uffa0\u2800\ufe0f\U000e0041b",
    "a\udcff\ud800",
    "[bold]a[/] [/nothing] [link=x]y[/link] :skull:",
    "a" + "\u0301" * 500,
    "\u0301a",
    "x" * 100_000,
    "\x7fa\x00b\tc",
)
"""What somebody may have named something."""

COMMANDING = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\u115f\uffa0\ufeff\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""Characters that no output of ours may hold, but for our own styling."""
STYLING = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("words", PLANTED)
def test_every_planted_name_becomes_one_line_of_harmless_characters(words: str) -> None:
    shown = make_visible(words)
    assert not COMMANDING.search(shown) and "\n" not in shown
    assert len(shown) <= LONGEST + 40
    shown.encode("utf-8")


def test_names_of_other_scripts_are_shown_as_they_are() -> None:
    for name in ("données", "数据库", "Ελληνικά", "ไทย", "हिन्दी", "vo\u0302lume"):
        assert make_visible(name) == name


def test_a_text_of_ours_keeps_its_lines_and_nothing_else() -> None:
    assert make_lines_visible("+a\x1b[2J\n-b\r\n") == ["+a\\x1b[2J", "-b\\r"]
    assert make_lines_visible("") == []


WORDS = (
    "x y",
    "'",
    "`id`",
    "$(id)",
    "~",
    "=ls",
    "-v",
    "",
    "a\\",
    "!!",
    "\n#",
    "é'\n\\",
    "-e\x1b%s!",
    "a\n",
)


@pytest.mark.parametrize("words", [*PLANTED[:-2], *WORDS])
@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish"])
def test_a_printed_word_is_read_back_by_a_shell_as_the_same_word(shell: str, words: str) -> None:
    if not any((Path(folder) / shell).exists() for folder in ("/bin", "/usr/bin")):
        pytest.skip(f"no {shell}")
    if "\x00" in words or "\ud800" in words:
        words = words.replace("\x00", "").replace(
            "\ud800", ""
        )  # no name of a file or argument holds these
    if shell in ("sh", "fish") and words.endswith("\n"):
        pytest.skip("the one word that these cannot read on one line")
    printed = shell_quote(words)
    assert (
        make_visible(printed, len(printed)) == printed
    )  # what the border shows is what may be pasted
    said = subprocess.run(
        [shell, "-c", f"printf %s {printed}"], capture_output=True, check=True
    ).stdout
    assert said == words.encode("utf-8", "surrogateescape")
    assert shell_quote_always(words)[:1] in ("'", "$", '"')


def test_a_printed_command_runs_nothing_that_stands_in_a_name(tmp_path: Path) -> None:
    owner = f"postgres; touch {tmp_path}/owned #\ntouch {tmp_path}/owned"
    printed = join_for_shell(["printf", "%s", owner])
    said = subprocess.run(["sh", "-c", printed], capture_output=True, text=True)
    assert not (tmp_path / "owned").exists(), said


def test_markdown_of_a_name_is_neither_heading_nor_fence_nor_html() -> None:
    for name in (
        "a\n# heading",
        "```sh\nrm -rf /\n```",
        "a`b",
        "``",
        "`",
        " ",
        "",
        "<script>x</script>",
        "x\u2028# y",
    ):
        for made in (quote_markdown(name), escape_markdown(name)):
            assert "\n" not in made and not made.startswith(("#", "```\n"))
    assert (
        escape_markdown("# a <b> [x](y) *z* 1 &lt; `c`")
        == r"\# a \<b\> \[x\](y) \*z\* 1 \&lt; \`c\`"
    )
    assert escape_markdown("pg_dump of a_b") == "pg_dump of a_b"


# -- the border ------------------------------------------------------------------------------------


def test_markup_in_other_peoples_words_is_never_interpreted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    evil = "[/] [bold red]x[/bold red] [/nothing]"
    tables.print_table([Column(evil), Column("b")], [[Cell(evil), Cell(evil)]], title=evil)
    with terminal.showing_progress(evil):
        pass
    terminal.say(evil)
    terminal.tell(evil)
    said = capsys.readouterr()
    assert said.out.count("[/nothing]") == 5 and said.err.count("[/nothing]") == 2


@pytest.mark.parametrize("words", PLANTED)
def test_no_cell_of_a_table_forges_a_line(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_table([Column("id"), Column("name")], [[Cell("1"), Cell(words)]])
    said = STYLING.sub("", capsys.readouterr().out)
    assert [line.count("\t") for line in said.split("\n")] == [1, 1, 0]
    assert not COMMANDING.search(said.replace("\t", ""))
    assert not re.search(r"^\s*safe-compose: verified", said, re.MULTILINE)


def test_columns_stand_below_each_other_whatever_the_width_of_the_letters() -> None:
    rows = [[Cell("数据库"), Cell("x")], [Cell("e\u0301"), Cell("x")]]
    laid = lay_out([Column("name"), Column("b")], rows, 80).lines
    header, wide, combined = ["".join(span.text for span in line) for line in laid if line][:3]
    assert header.index("b") == 8 and wide.index("x") == 5 and combined.index("x") == 9


BORDER = {"ui/terminal.py", "ui/tables.py"}
"""The files that may print; every other one calls them."""
PAST_THE_BORDER = {
    (
        "shim.py",
        "sys.stdout.write",
    ): "the answer to a probe of ours: our own word and a token of ours",
    ("shim.py", "sys.stdout"): "the null device takes its place where it was closed",
    ("faults.py", "os.write"): "`say` of what stands before any import; it calls `visible`",
    ("audit/agent_hook.py", "sys.stdout.write"): "one JSON document, in ASCII",
    ("audit/agent_hook.py", "sys.stderr.write"): "why a request cannot be read: sentences of ours",
    ("cli/completion.py", "sys.stdout.buffer"): "lines that a shell reads, printable ones alone",
    ("cli/overview.py", "sys.stdout.write"): "the list of our verbs, and versions, with no import",
    ("ui/report_layout.py", "sys.stdout"): "only its encoding",
    ("databases/sqlite/judge.py", "sys.stdout.write"): "the answer of a child of ours, read by us",
    (
        "install/scripts.py",
        "sys.stdout.write",
    ): "shell functions without other people's words; they are evaluated",
}
HARMLESS = {"isatty", "encoding", "reconfigure", "flush", "fileno"}


PRINTERS = {"echo", "secho", "Console", "print_exc", "print_exception", "pprint"}


def _writes_to_a_terminal(name: str, around: ast.AST | None) -> bool:
    return (
        name == "os.write"
        and isinstance(around, ast.Call)
        and ast.unparse(around.args[0]) in ("1", "2")
    )


def outputs(tree: ast.AST) -> set[str]:
    """Every way to print that a file uses."""
    inside = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    found = set()
    for node in ast.walk(tree):
        name = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
        around = inside.get(id(node))
        if name.endswith(("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__")):
            if isinstance(around, ast.Attribute):
                found |= {f"{name}.{around.attr}"} if around.attr not in HARMLESS else set()
            elif not isinstance(around, ast.Compare) and "isinstance" not in ast.unparse(around):
                found.add(name)
        elif (
            name == "print"
            or name.rpartition(".")[2] in PRINTERS
            or _writes_to_a_terminal(name, around)
        ):
            found.add(name)
    return found


def test_nothing_is_printed_past_the_border() -> None:
    past = {
        (str(path.relative_to(SOURCE)), name)
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).as_posix() not in BORDER
        for name in outputs(ast.parse(path.read_text()))
    }
    assert past == set(PAST_THE_BORDER), "print with prompts.say (stderr) or prompts.tell (stdout)"


def test_the_search_for_output_finds_every_way_to_print() -> None:
    for line in (
        "print('x')", "sys.stdout.write('x')", "out = sys.stderr", "shutil.copyfileobj(a, sys.stdout.buffer)", "typer.echo('x')",
        "click.secho('x')", "rich.console.Console().print('x')", "os.write(2, b'x')", "sys.__stderr__.write('x')",
        "print('x', file=sys.stderr)", "traceback.print_exc()",
    ):  # fmt: skip
        assert outputs(ast.parse(line)), line
    for line in (
        "sys.stdout.isatty()",
        "sys.stderr is not None",
        "os.write(fd, b'x')",
        "file.write('x')",
    ):
        assert not outputs(ast.parse(line)), line


SAFE_WORDS = {"shell_quote", "join_for_shell", "shell_quote_always", "quote", "join"}
SAFE_VALUES = {
    "phrase",
    "words[0]",
    "verb",
    "self.name",
    "'o-w' if shared else 'go-w'",
    "who.lower()",
    "client",
    "_MOUNT_FOLDER",
    "backup_id",
    "_suggest_undo(workspace)",
    "advise(losses)",
}
"""Quoted where they are made, our own words, or ids, which are checked where they come in."""
COMMANDS = ("safe-compose ", "docker ", "--", "chmod", "rm ", "mv ", "SAFE_COMPOSE_HOME=")


def test_every_name_in_a_printed_next_step_is_a_word_of_a_shell() -> None:
    bare = []
    for path in SOURCE.rglob("*.py"):
        steps = [
            n.value
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.keyword) and n.arg == "next_step"
        ]
        for text in (t for step in steps for t in ast.walk(step) if isinstance(t, ast.JoinedStr)):
            if any(word in ast.unparse(text) for word in COMMANDS):
                for value in (
                    ast.unparse(v.value) for v in text.values if isinstance(v, ast.FormattedValue)
                ):
                    if not (
                        value in SAFE_VALUES
                        or value.endswith(".id")
                        or any(f"{safe}(" in value for safe in SAFE_WORDS)
                    ):
                        bare.append(f"{path.relative_to(SOURCE)}:{text.lineno}: {value}")
    assert [b for b in bare if "_undo_into" not in b and " if " not in b] == []
