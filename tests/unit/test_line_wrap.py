"""A long line on a terminal: no word is cut, and what is copied from it is still one command."""

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_compose.core.line_wrap import wrap_line
from safe_compose.core.text import join_for_shell
from testing import screen

COMMAND = (
    "safe-compose: docker compose -f compose.yaml up -d --no-deps database traefik web-application"
)


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_every_name_of_a_command_stands_whole_on_one_row(columns: int) -> None:
    wrapped = wrap_line(COMMAND, columns)
    assert "\n" not in wrapped and wrapped.split() == COMMAND.split()
    rows = screen.emulate(wrapped.encode(), columns)
    assert len(rows) > 1 and " ".join(rows).split() == COMMAND.split()
    assert all(row.startswith("  ") for row in rows[1:])


@settings(deadline=None)
@given(st.lists(st.text("ab '\"$|é漢", max_size=30), max_size=9), st.integers(20, 90))
def test_a_shell_reads_the_same_words_of_what_is_shown(words: list[str], columns: int) -> None:
    command = join_for_shell(["docker", *words])
    assert shlex.split(wrap_line(command, columns)) == shlex.split(command)


@settings(deadline=None)
@given(
    st.lists(st.text("abc-'漢", min_size=1, max_size=18), min_size=1, max_size=20),
    st.integers(40, 90),
)
def test_no_word_that_fits_is_cut(words: list[str], columns: int) -> None:
    text = " ".join(words)
    rows = screen.emulate(wrap_line(f"x: {text}", columns).encode(), columns)
    assert {*"".join(" ".join(rows)).split()} >= {word for word in words if "'" not in word}


def test_what_fits_and_json_are_left_alone() -> None:
    for text in ("", "short", "x" * 80, '{"a": "' + "b c " * 40 + '"}'):
        assert wrap_line(text, 80) == text
    assert wrap_line("docker's " * 20, 80).count("docker's") == 20
    assert wrap_line(COMMAND, 0) == COMMAND
