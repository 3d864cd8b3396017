"""Two lines for each volume: name, tier and size, then its contents, last write and last backup.

This module is pure.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from safe_compose.core.plan import Doomed
from safe_compose.core.quantities import format_age, format_size
from safe_compose.core.tier import Tier
from safe_compose.ui.lines import Line, Span, fill, make_span

LOSS = "bold red"
"""The style of everything that is lost, or is lost elsewhere than expected."""
NOTICE = "yellow"
"""The style of what may make a person hesitate."""
SIDE = "dim"
"""The style of labels and of what matters less."""
TIER_STYLES = {Tier.CRITICAL: LOSS, Tier.IMPORTANT: NOTICE, Tier.DISPOSABLE: SIDE}
LONGEST_CONTENTS = 160
"""Most characters of a description of somebody else's on two lines."""
_LINES = 2
_LAYOUTS = 3


class _Entry(NamedTuple):
    """The fields of one volume."""

    name: Span
    owner: Span
    """The other project that it belongs to; usually empty."""
    tier: Span
    size: Span
    contents: tuple[Span, ...]
    """What is in it, from the longest to the shortest words."""
    written: Span
    backup: Span

    def layouts(self, contents: Span) -> tuple[tuple[tuple[Span, ...], tuple[Span, ...]], ...]:
        """Return the fields of both lines for each place that the last write may have."""
        head = (self.name, self.owner, self.tier)
        return (
            ((*head, self.size), (contents, self.written, self.backup)),
            ((*head, self.size, self.written), (contents, self.backup)),
            (head, (self.size, contents, self.written, self.backup)),
        )


class _Drawn(NamedTuple):
    """One volume in one layout."""

    loss: int
    """How much shorter its contents are than they could be; more than that for a third line."""
    lines: list[Line]


def describe_volumes(
    doomed: Sequence[Doomed], unknown: str, now: datetime, width: int
) -> list[list[Line]]:
    """Return the lines of each volume.

    They are two, unless a name or the terminal leaves no other choice. The same fields stand in the
    same place for all of them that have two.
    """
    entries = [_make_entry(d, unknown, now) for d in doomed]
    if not entries:
        return []
    columns = _Columns(
        max((e.name.width for e in entries if e.name.width <= width // 2), default=0),
        max(e.tier.width for e in entries),
        max(e.size.width for e in entries),
    )
    drawn = [_draw_layouts(entry, columns, width) for entry in entries]
    losses = [sum(d.loss for d in same) for same in zip(*drawn, strict=True)]
    same = losses.index(min(losses[:-1]))  # the last layout is for names that leave no other
    return [
        choices[same].lines
        if len(choices[same].lines) <= _LINES
        else min(choices, key=lambda drawn: drawn.loss).lines
        for choices in drawn
    ]


def _draw_layouts(entry: _Entry, columns: "_Columns", width: int) -> list[_Drawn]:
    """Return a volume in each layout, with as much of its contents as fits on two lines."""
    found: list[_Drawn] = []
    for place in range(_LAYOUTS):
        for loss, text in enumerate(entry.contents):
            drawn = _Drawn(loss, _draw(*entry.layouts(text)[place], columns, width))
            if len(drawn.lines) <= _LINES:
                break
        else:
            drawn = _Drawn(len(entry.contents) * len(drawn.lines), drawn.lines)
        found.append(drawn)
    return found


class _Columns(NamedTuple):
    """The widths that keep the first lines aligned."""

    name: int
    tier: int
    size: int


def _draw(
    first: Sequence[Span], second: Sequence[Span], columns: _Columns, width: int
) -> list[Line]:
    name, owner, tier, *rest = first
    padded = [
        _pad(name, columns.name),
        owner,
        _pad(tier, columns.tier) if rest else tier,
        *(_pad(field, columns.size) for field in rest[:-1]),
        *rest[-1:],
    ]
    aligned = fill(padded, width)
    lines = aligned if len(aligned) == 1 else fill(first, width)
    return [*lines, *fill(second, width, separator="; ", indent=2, hanging=2)]


def _pad(span: Span, columns: int) -> Span:
    return Span(span.text + " " * (columns - span.width), span.style)


def find_backup_time(id: str) -> datetime | None:
    """Return when a backup was made, by its id; None for an id of another form."""
    try:
        return datetime.strptime(id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def describe_contents(doomed: Doomed) -> str:
    """Return what is in a volume, as far as it is known."""
    if doomed.contents:
        return doomed.contents
    return "contents unknown" if doomed.verdict.kind == "unknown" else doomed.verdict.kind


def _make_entry(d: Doomed, unknown: str, now: datetime) -> _Entry:
    contents = describe_contents(d)
    what = f"{contents}, anonymous{_describe_place(d)}" if d.volume.anonymous else contents
    first, *more = what.split(", ")
    words = [f"{what}, {_describe_users(d)}", what, ", ".join([first, *more[1:]]), first]
    if d.volume.anonymous:
        words[2:] = [f"anonymous{_describe_place(d)}"]
    size = f"size {unknown}" if d.bytes is None else format_size(d.bytes)
    return _Entry(
        make_span(d.name, "bold"),
        make_span(f"of project {d.other_project}" if d.other_project else "", LOSS),
        make_span(d.verdict.tier.value, TIER_STYLES[d.verdict.tier]),
        make_span(size),
        tuple(make_span(text, longest=LONGEST_CONTENTS) for text in words),
        make_span(_describe_write(d, unknown, now)),
        make_span(_describe_backup(d, now)),
    )


def _describe_place(d: Doomed) -> str:
    """Return where an anonymous volume is mounted: its name means nothing to people."""
    return f" at {d.places[0].partition(':')[2]}" if d.places else ""


def _describe_users(d: Doomed) -> str:
    """Return the containers on a volume, with the state of those that do not run."""
    if not d.users:
        return "used by nothing"
    first = d.users[0]
    state = "" if first.state == "running" else f" ({first.state})"
    more = f" and {len(d.users) - 1} more" if len(d.users) > 1 else ""
    return f"used by {first.name}{state}{more}"


def _describe_write(d: Doomed, unknown: str, now: datetime) -> str:
    if d.verdict.tier is Tier.DISPOSABLE:
        return ""  # nobody looks for it there
    return (
        f"last write {unknown}"
        if d.last_write is None
        else f"written {format_age(min(d.last_write, now), now)}"
    )


def _describe_backup(d: Doomed, now: datetime) -> str:
    if d.last_backup is None:
        return "no verified backup"
    made = find_backup_time(d.last_backup)
    return f"backed up {format_age(min(made, now), now)}" if made else f"backup {d.last_backup}"
