"""Times as people read them in a sentence."""

import pytest

from safe_compose.core.quantities import format_stamp


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
