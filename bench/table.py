"""The one readable table that comes out."""

from collections.abc import Sequence

from pairs import Pairs, median

Row = tuple[str, ...]
HEAD: Row = ("what", "baseline", "ours", "ratio [95 %]", "added [95 %]", "n")


def seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if abs(value) < 1 else f"{value:.2f} s"


def pair(measured: Pairs, *, speed: bool = False) -> Row:
    """One row of a comparison. `speed`: the ratio tells how many times faster than the baseline
    ours is.
    """
    ratio, low, high = median([1 / r for r in measured.ratios] if speed else measured.ratios)
    added, least, most = median(measured.added)
    return (
        measured.name,
        seconds(median(measured.baseline)[0]),
        seconds(median(measured.contender)[0]),
        f"{ratio:.3f} [{low:.3f}, {high:.3f}]" + (" faster" if speed else ""),
        f"{seconds(added)} [{seconds(least)}, {seconds(most)}]",
        str(len(measured.baseline)),
    )


def single(name: str, values: Sequence[float], unit: str = "") -> Row:
    """One row of something that stands for itself: seconds, or a number with its unit."""
    middle, low, high = median(values)

    def show(value: float) -> str:
        return f"{value:.0f} {unit}" if unit else seconds(value)

    return (name, "", show(middle), "", f"[{show(low)}, {show(high)}]", str(len(values)))


def text(sections: Sequence[tuple[str, Sequence[Row]]]) -> str:
    """All sections under one head, aligned."""
    every = [HEAD, *(row for _, rows in sections for row in rows)]
    widths = [max(len(row[column]) for row in every) for column in range(len(HEAD))]

    def line(row: Row) -> str:
        return "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()

    lines = [line(HEAD), "-" * (sum(widths) + 2 * len(widths))]
    for title, rows in sections:
        lines += ["", title, *(line(row) for row in rows)]
    return "\n".join(lines)
