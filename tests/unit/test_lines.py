"""Lines of styled text that are no wider than the terminal."""

from hypothesis import given
from hypothesis import strategies as st

from safe_compose.ui.lines import fill, make_span, measure, read_plain


@given(st.lists(st.integers(1, 12), max_size=8), st.integers(20, 30), st.sampled_from(["; ", "  "]))
def test_a_line_has_no_column_too_many_whatever_ends_it(
    sizes: list[int], width: int, separator: str
) -> None:
    lines = fill([make_span("x" * size) for size in sizes], width, separator=separator)
    assert all(measure(line) <= width for line in lines)
    assert sum(read_plain(line).count("x") for line in lines) == sum(sizes)
