"""A table for a width: what is dropped, what goes below, and that nothing is cut."""

import re

import pytest

from safe_compose.ui.lines import Span
from safe_compose.ui.table_layout import Cell, Column, lay_out, wrap

COLUMNS = [
    Column("id"),
    Column("project", 1),
    Column("size", 2, is_number=True),
    Column("volumes", 3),
    Column("note", is_prose=True),
]


def lines(width: int, *rows: tuple[str, ...], columns: list[Column] = COLUMNS) -> list[str]:
    laid = lay_out(columns, [[Cell(text) for text in row] for row in rows], width)
    return ["".join(span.text for span in line) for line in laid.lines]


ROW = ("3f9a1c", "dating", "1.0 MiB", "dating_data, dating_photos", "")


def test_columns_go_by_rank_and_those_without_text_always() -> None:
    assert lines(80, ROW) == [
        "id      project     size  volumes",
        "3f9a1c  dating   1.0 MiB  dating_data, dating_photos",
    ]
    assert lines(30, ROW) == ["id      project     size", "3f9a1c  dating   1.0 MiB"]
    assert lines(20, ROW) == ["id      project", "3f9a1c  dating"]
    assert lay_out(COLUMNS, [[Cell(text) for text in ROW]], 20).dropped == ("size", "volumes")


def test_a_sentence_stands_at_the_right_or_below_and_is_broken_between_words() -> None:
    row = (*ROW[:3], "", "the archive is damaged: its sum is another one than was written")
    assert lines(60, row)[1:] == [
        "3f9a1c  dating   1.0 MiB  the archive is damaged: its sum is",
        "                          another one than was written",
    ]
    assert lines(40, row)[1:] == [
        "3f9a1c  dating   1.0 MiB",
        "    note: the archive is damaged: its",
        "    sum is another one than was written",
    ]


@pytest.mark.parametrize("width", [24, 40, 60, 80, 200])
def test_no_name_is_cut_and_no_line_is_wider_than_its_only_word(width: int) -> None:
    path = "/var/lib/safe-compose/a-project-with-a-long-name/20261122T072700Z-3f9a1c"
    rows = [
        ("3f9a1c", "a-project-with-a-long-name", "1 B", "x", f"its folder {path} is gone"),
        (path, "p", "1 B", "a_volume_of_nearly_forty_columns_in_all, b", ""),
    ]
    shown = lines(width, *rows)
    words = [word for line in shown for word in re.split(r"[ ,]+", line)]
    assert {"3f9a1c", path} <= set(words)
    assert all(line.strip() == path or len(line) <= width for line in shown), shown


def test_a_title_and_a_name_cannot_style_or_break_a_line() -> None:
    [_, row] = lines(80, ("a\x1b[31m\nb", "\t", "", "", ""))
    assert row.split() == ["a\\x1b[31m\\nb", "\\t"]


def test_wrap_breaks_between_words_alone() -> None:
    assert wrap("one two three", 3, 7) == ["one", "two", "three"]
    assert wrap("a-word-that-is-too-long b", 5, 5) == ["a-word-that-is-too-long", "b"]
    assert wrap("", 5, 5) == [""]
    assert Span("x").style == ""
