"""The lines of the confirmation screen, as a function of plan, facts and terminal size.

This module is pure. The short screen fits on the terminal, so that its headline is still there when
the question comes. All that it leaves out is among the details.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from safe_compose.core.plan import TRASH_DAYS, Doomed, Plan, estimate_effort
from safe_compose.core.quantities import count, format_seconds, format_size
from safe_compose.core.text import make_visible, shell_quote
from safe_compose.core.tier import Tier
from safe_compose.ui.lines import Line, Span, fill, fill_words, fold_question, make_span
from safe_compose.ui.volume_lines import LOSS, NOTICE, SIDE, describe_volumes

BELOW = 2
"""Lines of the terminal that stay free below the question, for the answer and a message."""
LONGEST_TEXT = 2_000
"""Most characters of a warning on the short screen."""
FEWEST = 6
"""Volumes for which the rest of the screen makes way."""
MOST_LINES = 2
"""Lines that a list of names or a command takes on the short screen."""
MOST_LOSS_LINES = 4
"""Lines that the names of what is lost may take there."""
LONGEST_LIST = 40
"""Most items of a list on the short screen."""
LONGEST_WORD = 300
"""Most characters of one word of the command on the short screen."""
_LABEL = 10
"""Columns of the labels."""


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """Everything on the confirmation screen that the plan does not say."""

    store: str = ""
    """The folder that the backup goes to; empty without a backup."""
    free: int | None = None
    """Bytes that are free there."""
    recipients: int = 0
    """For how many recipients it is encrypted."""
    copies: tuple[str, ...] = ()
    """The off-site places that get a copy before docker runs."""
    stopped: tuple[str, ...] = ()
    """The running containers that are stopped."""
    safer: str | None = None
    """A command that keeps the volumes."""
    warnings: tuple[str, ...] = ()
    patience: int | None = None
    """Seconds that a backup may take without a remark."""


class Size(NamedTuple):
    """The size of the terminal."""

    columns: int
    rows: int | None
    """None in a log, where nothing has to fit."""


USUAL = Size(80, 24)
"""The terminal on which the few volumes of most projects fit; they take no more lines elsewhere."""


@dataclass(frozen=True)
class Screen:
    """The content of the confirmation screen at one moment."""

    plan: Plan
    facts: Circumstances
    now: datetime
    measuring: bool = False
    """Whether what is unknown may still become known."""

    @property
    def doomed(self) -> Sequence[Doomed]:
        """The volumes, with everything that is known about them by now."""
        return self.plan.doomed

    @property
    def unknown(self) -> str:
        """The text for a value that is not known."""
        return "..." if self.measuring else "unknown"


class _Part(NamedTuple):
    """A group of lines that becomes shorter, or is left out, where it does not fit."""

    rank: int
    """0 always stays; of the others the highest goes first."""
    lines: list[Line]
    short: list[Line] = []  # noqa: RUF012
    """What stays of it."""


# -- the short screen ------------------------------------------------------------------------------


def make_lines(screen: Screen, size: Size) -> list[Line]:
    """Return the lines above the question.

    With the question they fit on a terminal of 24 rows: at most 22 lines for six volumes. The
    strictest volumes come first; those for which there are no lines are counted.
    """
    width = size.columns
    head = _make_head(screen, size)
    listed = _list_shown(screen)
    described = listed if size.rows is None else listed[: size.rows]
    entries = describe_volumes(described, screen.unknown, screen.now, width)
    tail = list(_make_tail(screen, size))
    if size.rows is None:
        return _join(head, entries, [], tail)
    short = len(listed) <= FEWEST and width >= USUAL.columns
    rows = min(size.rows, USUAL.rows or 0) if short else size.rows
    question = fold_question(make_visible(make_question(screen.plan)), width)
    limit = max(rows - BELOW - len(question.split("\n")), 1)
    order = sorted({part.rank for part in (*head, *tail)} - {0}, reverse=True)
    shown, fewest = len(entries), min(FEWEST, len(entries))
    while True:
        rest = _count_rest(listed[shown:], width)
        lines = _join(head, entries[:shown], rest, tail)
        if len(lines) <= limit:
            return lines
        if shown > fewest:
            shown -= 1
        elif order:
            rank = order.pop(0)
            head, tail = _shrink(head, rank), _shrink(tail, rank)
        elif shown > 1:
            shown, fewest = shown - 1, 1
        else:
            return lines


def make_question(plan: Plan) -> str:
    """Return the question, which is the last line."""
    question = f"To go on, type '{plan.phrase}': " if _is_typed(plan) else "Go on? [y/N] "
    return f"Details: ?  {question}"


def _is_typed(plan: Plan) -> bool:
    return plan.typed or plan.invocation.own.skip_backup


def _shrink(parts: Sequence[_Part], rank: int) -> list[_Part]:
    """Return the parts with what stays of those of one rank."""
    return [_Part(0, p.short) if p.rank == rank else p for p in parts]


def _join(
    head: Sequence[_Part], entries: Sequence[list[Line]], rest: list[Line], tail: Sequence[_Part]
) -> list[Line]:
    groups = [*(part.lines for part in head), *entries, rest, *(part.lines for part in tail)]
    return [line for lines in groups for line in lines]


def _list_shown(screen: Screen) -> list[Doomed]:
    """Return the volumes that get lines of their own: those that matter, the strictest first."""
    found = [d for d in screen.doomed if not _is_mere(d)]
    return sorted(found, key=lambda d: (d.verdict.tier.rank, d.name))


def _is_mere(doomed: Doomed) -> bool:
    """Return whether a volume is disposable and of the project that is meant."""
    return doomed.verdict.tier is Tier.DISPOSABLE and not doomed.other_project


def _make_head(screen: Screen, size: Size) -> list[_Part]:
    plan, width = screen.plan, size.columns
    lost = ", without a backup" if plan.invocation.own.skip_backup else ""
    headline = f"This command deletes {count(len(plan.doomed), 'volume')} for good{lost}."
    return [
        _Part(0, fill_words(headline, width, style=LOSS)),
        _Part(0, _make_command(plan, size)),
        *_make_places(plan, size),
        _Part(90, [()]),
    ]


def _make_command(plan: Plan, size: Size) -> list[Line]:
    """Return the exact command; words that do not fit are counted."""
    words = [shell_quote(word) for word in (plan.invocation.program, *plan.invocation.argv)]

    def draw(shown: Sequence[str]) -> list[Line]:
        fields = [make_span(word, "bold", LONGEST_WORD) for word in shown]
        return _label("command", fields, size.columns, separator=" ")

    return _shorten(words, draw, "... and {} more words (?)", size)


def _make_places(plan: Plan, size: Size) -> Iterator[_Part]:
    """Yield project and daemon: on one line where they fit, a remote daemon on one of its own."""
    daemon, width = plan.observed.endpoint, size.columns
    projects = _list_projects(plan)
    where = [make_span(projects[0])] if len(projects) == 1 else []
    if where and plan.observed.project:
        where.append(make_span(f"(from the {plan.observed.project.inferred_from})", SIDE))
    if is_remote(daemon):
        yield _Part(
            0, _label("daemon", [make_span(daemon, LOSS), make_span("REMOTE", LOSS)], width)
        )
    elif where:
        joined = [*where, make_span("on", SIDE), make_span(daemon, SIDE)]
        lines = _label("project", joined, width, separator=" ")
        if len(lines) == 1:
            yield _Part(0, lines)
            return
    if where:
        yield _Part(0, _label("project", where, width, separator=" "))
    elif projects:

        def draw(shown: Sequence[str]) -> list[Line]:
            return _label("projects", _separate(shown), width, separator=" ")

        yield _Part(0, _shorten(projects, draw, "and {} more (?)", size))
    if not is_remote(daemon):
        yield _Part(50, _label("daemon", [make_span(daemon, SIDE)], width))


def is_remote(endpoint: str) -> bool:
    """Return whether a daemon is not one of this machine."""
    return not endpoint.startswith(("unix://", "npipe://"))


def _list_projects(plan: Plan) -> list[str]:
    """Return the project, or the projects that own the volumes with the number of them."""
    if plan.project:
        return [plan.project]
    numbers = Counter(d.volume.project or "" for d in plan.doomed)
    if not any(numbers):
        return []
    ranked = sorted(numbers, key=lambda name: (not name, name))
    return [f"{name or 'without a project'} ({count(numbers[name], 'volume')})" for name in ranked]


def _count_rest(doomed: Sequence[Doomed], width: int) -> list[Line]:
    if not doomed:
        return []
    tiers = [d.verdict.tier for d in doomed]
    each = ", ".join(f"{tiers.count(tier)} {tier.value}" for tier in Tier if tier in tiers)
    return fill_words(f"and {len(doomed)} more: {each} (? shows all)", width, style="bold")


def _make_tail(screen: Screen, size: Size) -> Iterator[_Part]:
    """Yield everything between the volumes and the question."""
    plan, facts, width = screen.plan, screen.facts, size.columns
    yield from _make_losses(screen, size)
    yield _Part(91, [()])
    for d in screen.doomed:
        if d.remedy:
            reason = make_span(d.remedy[0].partition(". ")[0], longest=LONGEST_TEXT)
            better = [reason._replace(text=f"{reason.text}:"), make_span(d.remedy[1], "bold")]
            yield _Part(10, _label("better", better, width))
    yield _make_warnings([*plan.notices, *facts.warnings, *_warn_of_space(screen)], width)
    if plan.threat.spared:
        spared = [f"{name} ({why})" for name, why in plan.threat.spared]
        yield _Part(80, _list_names("not touched:", spared, size, SIDE))
    if facts.safer:
        safer = [make_span(facts.safer, "bold"), make_span("keeps every volume with a name")]
        yield _Part(25, _label("safer", safer, width, separator=" "))
    if facts.stopped and not plan.invocation.own.skip_backup:
        yield _Part(60, _label("will stop", [_describe_stops(facts)], width))
    yield from _make_promise(screen, width)


def _make_warnings(warnings: Sequence[str], width: int) -> _Part:
    """Return the warnings; where there is no space for them, their number."""
    lines = [
        line
        for warning in warnings
        for line in fill([make_span(f"warning: {warning}", NOTICE, LONGEST_TEXT)], width, hanging=9)
    ]
    number = f"{count(len(warnings), 'warning')} (?)"
    return _Part(20, lines, fill_words(number, width, style=NOTICE) if warnings else [])


def _make_losses(screen: Screen, size: Size) -> Iterator[_Part]:
    """Yield which of the disposable volumes are lost, and which have nothing in them."""
    mere = [d for d in screen.doomed if _is_mere(d)]
    lost = [d for d in mere if d.verdict.why != "empty"]
    sizes = [d.bytes for d in lost]
    known = [size for size in sizes if size is not None]
    total = f", {format_size(sum(known))}" if known and len(known) == len(sizes) else ""
    if lost:
        title = f"will NOT come back (disposable{total}):"
        # A log has no `?` that would show the reasons.
        listed = [f"{_name(d)} ({d.verdict.why})" if size.rows is None else _name(d) for d in lost]
        names = _list_names(title, listed, size, LOSS, MOST_LOSS_LINES)
        short = f"{count(len(lost), 'volume')} will NOT come back (?)"
        yield _Part(5, names, fill_words(short, size.columns, style=LOSS))
    if empty := [_name(d) for d in mere if d.verdict.why == "empty"]:
        yield _Part(70, _list_names("nothing in:", empty, size, SIDE))


def _name(doomed: Doomed) -> str:
    """Return the name of a volume; for an anonymous one the first digits and its place."""
    if not doomed.volume.anonymous:
        return doomed.name
    return f"{doomed.name[:12]} ({', '.join(doomed.places) or 'anonymous'})"


def _list_names(
    title: str, names: Sequence[str], size: Size, style: str, most: int = MOST_LINES
) -> list[Line]:
    """Return a list of whole names on a few lines; those that do not fit are counted."""

    def draw(shown: Sequence[str]) -> list[Line]:
        return fill([make_span(title, style), *_separate(shown)], size.columns, separator=" ")

    return _shorten(names, draw, "and {} more (?)", size, most)


def _separate(words: Sequence[str]) -> list[Span]:
    """Return the items of a list with commas."""
    return [make_span(f"{word},") for word in words[:-1]] + [make_span(words[-1])]


def _shorten(
    words: Sequence[str],
    draw: Callable[[Sequence[str]], list[Line]],
    rest: str,
    size: Size,
    most: int = MOST_LINES,
) -> list[Line]:
    """Return as many words as fit on `most` lines, at least one, and the number of others.

    A log gets all words.
    """
    if size.rows is None:
        return draw(words)

    def draw_first(shown: int) -> list[Line]:
        more = [rest.format(len(words) - shown)] if shown < len(words) else []
        return draw([*words[:shown], *more])

    most_words = min(len(words), LONGEST_LIST)
    if len(lines := draw_first(most_words)) <= most:
        return lines
    numbers = range(1, most_words)
    fitting = bisect_right(numbers, most, key=lambda shown: len(draw_first(shown)))
    return draw_first(max(fitting, 1))


def _warn_of_space(screen: Screen) -> Iterator[str]:
    """Yield a warning where the backup may not fit into its store."""
    effort, free = estimate_effort(screen.doomed), screen.facts.free
    if screen.facts.store and effort is not None and free is not None and free < effort.space:
        yield (
            f"the backup may need {format_size(effort.space)}, and {format_size(free)} are free in"
            f" {screen.facts.store}"
        )


def _describe_stops(facts: Circumstances) -> Span:
    if len(facts.stopped) == 1:
        return make_span(f"{facts.stopped[0]}, which starts again only if the backup fails")
    return make_span(f"{len(facts.stopped)} containers, which start again only if the backup fails")


def _make_promise(screen: Screen, width: int) -> Iterator[_Part]:
    """Yield what is made before docker runs, what it takes, and what can be typed instead."""
    plan, facts = screen.plan, screen.facts
    if plan.invocation.own.skip_backup:
        yield _Part(
            0,
            fill_words(
                "No backup will be made: undo cannot bring any of this back.", width, style=LOSS
            ),
        )
        return
    if not plan.backed_up:
        yield _Part(0, fill_words("No backup is made of disposable volumes.", width, style=LOSS))
        return
    if plan.safety != "backup":
        yield _Part(
            0, _label("trash", [make_span(_describe_trash(plan), longest=LONGEST_TEXT)], width)
        )
        if not facts.store:
            return
    words = f"made and verified first: {_describe_effort(screen)}{', in' if facts.store else ''}"
    to = [make_span(facts.store)] if facts.store else []
    copies = [make_span(f"and to {', '.join(facts.copies)}")] if facts.copies else []
    fields = [make_span(words), *to, *copies]
    short = _label("backup", [make_span("made and verified first")], width)
    yield _Part(15, _label("backup", fields, width, separator=" "), short)
    yield from _make_long(screen, width)


def _describe_trash(plan: Plan) -> str:
    if plan.no_trash:
        return f"not possible ({plan.no_trash}); backed up instead"
    what = f"the content is moved aside on the engine's own disk; undo works for {TRASH_DAYS} days"
    copied = plan.safety == "both" or plan.invocation.own.backup_first
    return what if copied else f"no copy is made: {what}"


def _describe_effort(screen: Screen) -> str:
    effort = estimate_effort(screen.doomed)
    if effort is None:
        return f"time and size {screen.unknown}"
    return f"about {format_seconds(effort.seconds)}, up to {format_size(effort.space)}"


def _make_long(screen: Screen, width: int) -> Iterator[_Part]:
    """Yield the remark about a long backup, and the phrase for the trash."""
    plan, effort, patience = screen.plan, estimate_effort(screen.doomed), screen.facts.patience
    long = effort is not None and patience is not None and effort.seconds > patience
    if long:
        words = (
            f"long: more than {format_seconds(patience or 0)} (backup.patience);"
            " `safe-compose backup` makes one while everything runs"
        )
        yield _Part(30, fill_words(words, width, style=NOTICE))
    if plan.trash_phrase is not None and not plan.invocation.own.backup_first:
        instead = f"without a copy, in seconds; undo works for {TRASH_DAYS} days"
        words = f"or '{plan.trash_phrase}': {instead}"
        yield _Part(31 if long else 65, fill_words(words, width, style=NOTICE if long else SIDE))
    elif long:
        words = f"the trash, which would take seconds, is not possible: {plan.no_trash}"
        yield _Part(61, fill_words(words, width, style=SIDE))


def _label(label: str, fields: Sequence[Span], width: int, *, separator: str = "  ") -> list[Line]:
    """Return a labelled line; further lines are indented like its first field."""
    first, *more = fill(fields, width, separator=separator, indent=_LABEL, hanging=_LABEL)
    return [(Span(f"{label:<{_LABEL}}", SIDE), *first[1:]), *more]
