"""The manual pages say what the program says, and every formatter at hand takes them."""

import re
import shutil
import subprocess

import pytest

from safe_compose.cli import app, verb_help
from safe_compose.cli.verbs import ACTIONS, VERBS
from testing import manual_pages

PAGES = manual_pages.pages()
FORMATTERS = [
    argv
    for argv in (
        ["groff", "-man", "-Tutf8", "-ww", "-rLL=78n"],
        ["mandoc", "-man", "-Tutf8", "-W", "warning"],
    )
    if shutil.which(argv[0])
]


def plain(text: str) -> str:
    """The text of a formatted page, its hyphens and blanks as they were written."""
    shown = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", text)
    return " ".join(re.sub(r"[‐−]\n\s+", "-", shown).replace("−", "-").split())


def test_there_is_a_page_for_each_verb_and_one_for_all() -> None:
    assert set(PAGES) == {"safe-compose.1", *(f"safe-compose-{verb}.1" for verb in VERBS)}


@pytest.mark.parametrize("verb", VERBS)
def test_a_page_has_each_flag_the_example_and_the_exit_codes(verb: str) -> None:
    text = PAGES[f"safe-compose-{verb}.1"].replace("\\-", "-")
    commands = dict(verb_help.list_commands(app.make_command(None)))
    of = [one for words, one in commands.items() if f"{words} ".startswith(f"{verb} ")]
    flags = {name for one in of for p in one.params for name in p.opts if name.startswith("--")}
    assert not [flag for flag in flags if flag not in text]
    for example in ACTIONS.get(verb, {}).values():
        assert f"safe-compose {example}\n" in text
    assert f"safe-compose {VERBS[verb].example}\n".replace("\\", "\\e") in text
    assert ".TP\n77\n" in text and ".TP\n130\n" in text


@pytest.mark.parametrize("name", PAGES)
def test_no_line_of_a_page_is_an_unknown_request(name: str) -> None:
    known = {".TH", ".SH", ".PP", ".TP", ".nf", ".fi", ".BR"}
    for line in PAGES[name].splitlines():
        assert line and (not line.startswith((".", "'")) or line.split()[0] in known), line


def test_text_that_roff_would_obey_is_shown() -> None:
    assert manual_pages.escape(".so /etc/passwd") == "\\&.so /etc/passwd"
    assert manual_pages.escape("a\\b --c") == "a\\eb \\-\\-c"


def test_the_formatters_of_this_machine_show_a_page_without_a_warning() -> None:
    for argv in FORMATTERS:
        for name in ("safe-compose.1", "safe-compose-restore.1"):
            done = subprocess.run(argv, input=PAGES[name], capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, ""), (argv, name)
            assert "--backup-first" in plain(done.stdout) or "--database NAME" in plain(done.stdout)
