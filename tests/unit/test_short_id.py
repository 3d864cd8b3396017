"""Short ids: what is shown means one backup, and what is typed is never guessed at."""

import pytest

from safe_compose.core.short_id import find_matching, shorten_ids

A, B, C = "20261122T072700Z-3f9a1c", "20261122T072700Z-3f9b00", "20261123T072700Z-3f9a1c"
ONE, TEN = "20261124T091329Z-f1b47a-1", "20261124T091329Z-f1b47a-10"
LIKE_A_DATE = "20251122T072700Z-202611"


def mean(word: str, *every: str) -> list[str]:
    return find_matching(word, every, str)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        (A, [A]),
        ("3f9a1c", [A]),
        ("3f9a", [A]),
        ("3f9", []),
        ("20261122T072700Z-3f9", [A, B]),
        ("", []),
        ("*", []),
        ("../x", []),
        ("3F9A1C", []),
        ("3f9a1c\n", []),
    ],
)
def test_a_word_means_the_ids_that_it_begins_or_ends(word: str, meant: list[str]) -> None:
    assert mean(word, A, B) == meant


def test_an_item_of_the_trash_is_not_mistaken_for_the_tenth() -> None:
    assert mean("f1b47a-1", ONE, TEN) == [ONE]
    assert mean("f1b47a", ONE, TEN) == [ONE, TEN]


@pytest.mark.parametrize(
    ("every", "shown"),
    [
        ([A, B], ["3f9a1c", "3f9b00"]),
        ([A, C], [A, C]),
        ([ONE, TEN], ["f1b47a-1", "f1b47a-10"]),
        ([A, LIKE_A_DATE], ["3f9a1c", LIKE_A_DATE]),
        (["lost-3f9a1c", "x"], ["lost-3f9a1c", "x"]),
    ],
)
def test_what_is_shown_means_that_id_alone(every: list[str], shown: list[str]) -> None:
    shorten = shorten_ids(every)
    assert [shorten(id) for id in every] == shown
    assert all(mean(word, *every) == [id] for word, id in zip(shown, every, strict=True))


def test_an_id_that_is_gone_is_not_shown_as_another_one() -> None:
    assert shorten_ids([A])(C) == C
