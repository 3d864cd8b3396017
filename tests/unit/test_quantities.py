"""Times as people read them in a sentence."""

import pytest

from safe_compose.core.quantities import format_stamp, rewrite_stamps


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-11-30T14:05:59Z", "2026-11-30 14:05 UTC"),
        ("2026-11-30T14:05:59.25+00:00", "2026-11-30 14:05 UTC"),
        ("2026-11-30T14:05:59+02:00", "2026-11-30T14:05:59+02:00"),
        ("yesterday", "yesterday"),
        ("", ""),
    ],
)
def test_a_time_of_our_files_is_told_to_the_minute_and_nothing_else_is_changed(
    text: str, words: str
) -> None:
    assert format_stamp(text) == words


def test_a_sentence_of_our_files_keeps_all_but_its_times() -> None:
    kept = "pinned until 2026-12-30T19:41:44Z, made before a deletion (shop_data)"
    assert rewrite_stamps(kept) == kept.replace("T19:41:44Z", " 19:41 UTC")
