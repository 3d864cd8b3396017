"""Everything that is known about a destructive command, as `?` at the question shows it.

This module is pure.
"""

from collections.abc import Iterator
from datetime import datetime

from safe_compose.core.plan import TRASH_DAYS, Doomed, estimate_effort
from safe_compose.core.quantities import count, format_moment, format_seconds, format_size
from safe_compose.core.text import join_for_shell
from safe_compose.core.tier import Tier
from safe_compose.ui.confirmation_lines import Screen, is_remote
from safe_compose.ui.lines import Line, Span, fill, make_span
from safe_compose.ui.volume_lines import (
    LOSS,
    NOTICE,
    SIDE,
    TIER_STYLES,
    describe_contents,
    find_backup_time,
)

_LABEL = 16
"""Columns of the labels."""


def make_details(screen: Screen, width: int) -> list[Line]:
    """Return all details as lines: the command, each volume, what is done, what else could be."""
    lines: list[Line] = [()]
    for label, text, style in _list_command(screen):
        lines += _label(label, text, style, width)
    for d in sorted(screen.doomed, key=lambda d: (d.verdict.tier.rank, d.name)):
        lines += [(), *_make_title(d, screen.unknown, width)]
        for label, text, style in _list_facts(d, screen):
            lines += _label(label, text, style, width)
    lines.append(())
    for label, text, style in (*_list_effects(screen), *_list_alternatives(screen)):
        lines += _label(label, text, style, width)
    return [*lines, ()]


def _label(label: str, text: str, style: str, width: int) -> list[Line]:
    """Return a labelled text; where the terminal is narrow, below its label."""
    if width < 2 * _LABEL + 20:
        return [
            *fill([Span(f"{label}:", SIDE)], width),
            *fill([make_span(text, style)], width, indent=2),
        ]
    first, *more = fill([make_span(text, style)], width, indent=_LABEL, hanging=_LABEL)
    return [(Span(f"{label:<{_LABEL}}", SIDE), *first[1:]), *more]


_Fact = tuple[str, str, str]
"""Label, text and style."""


def _list_command(screen: Screen) -> Iterator[_Fact]:
    plan = screen.plan
    yield "command", join_for_shell([plan.invocation.program, *plan.invocation.argv]), "bold"
    if plan.project:
        of = plan.observed.project
        yield "project", f"{plan.project}{f' (from the {of.inferred_from})' if of else ''}", ""
    if is_remote(plan.observed.endpoint):
        yield "daemon", f"{plan.observed.endpoint}  REMOTE", LOSS
    else:
        yield "daemon", plan.observed.endpoint, ""


def _make_title(d: Doomed, unknown: str, width: int) -> list[Line]:
    size = f"size {unknown}" if d.bytes is None else format_size(d.bytes)
    tier = make_span(d.verdict.tier.value, TIER_STYLES[d.verdict.tier])
    return fill([make_span(d.name, "bold"), tier, make_span(size)], width)


def _list_facts(d: Doomed, screen: Screen) -> Iterator[_Fact]:
    """Yield what is known about one volume."""
    if d.other_project:
        yield "  belongs to", f"project {d.other_project}", LOSS
    yield "  why", d.verdict.why, ""
    yield "  contents", describe_contents(d), ""
    if not d.users:
        yield "  used by", "nothing", ""
    for user in d.users:
        places = ", ".join(m.destination for m in user.mounts if m.name == d.name)
        at = f" at {places}" if places else ""
        yield "  used by", f"{user.name} ({user.state}), image {user.image}{at}", ""
    if d.verdict.tier is Tier.DISPOSABLE:
        lost = "nothing in it" if d.verdict.why == "empty" else "not backed up, will NOT come back"
        yield "  afterwards", lost, SIDE if d.verdict.why == "empty" else LOSS
        return
    yield "  last write", _format(d.last_write, screen), ""
    made = find_backup_time(d.last_backup or "")
    known = f"{d.last_backup}, {_format(made, screen)}" if made else d.last_backup
    yield "  backed up", known or "no verified backup", ""


def _format(moment: datetime | None, screen: Screen) -> str:
    """Return a moment, which is never later than now: clocks differ."""
    return screen.unknown if moment is None else format_moment(min(moment, screen.now), screen.now)


def _list_effects(screen: Screen) -> Iterator[_Fact]:
    """Yield what is done before docker runs, and what it takes."""
    plan, facts = screen.plan, screen.facts
    for name, why in plan.threat.spared:
        yield "not touched", f"{name} ({why})", ""
    for warning in (*plan.notices, *facts.warnings):
        yield "warning", warning, NOTICE
    if plan.invocation.own.skip_backup:
        yield "backup", "none (--skip-backup): undo cannot bring any of this back", LOSS
        return
    effort = estimate_effort(screen.doomed)
    if facts.store:
        free = "" if facts.free is None else f" ({format_size(facts.free)} free)"
        yield "backup goes to", f"{facts.store}{free}", ""
        yield "it takes", str(effort) if effort else f"time and size {screen.unknown}", ""
    if facts.recipients:
        yield "encrypted for", count(facts.recipients, "recipient"), ""
    for copy in facts.copies:
        yield "copied to", copy, ""
    if facts.stopped:
        yield "will stop", ", ".join(facts.stopped), ""
        time = f"about {format_seconds(effort.seconds)}" if effort else "all that time"
        yield (
            "services down",
            f"{time} for the backup, then until somebody starts them; if it fails they start again"
            " at once",
            "",
        )


def _list_alternatives(screen: Screen) -> Iterator[_Fact]:
    """Yield what could be done instead."""
    plan, facts = screen.plan, screen.facts
    for d in screen.doomed:
        if d.remedy:
            yield "better", d.remedy[0], NOTICE
            yield "", d.remedy[1], "bold"
    if facts.safer:
        yield "safer", f"{facts.safer} keeps every volume with a name", ""
    effort, patience = estimate_effort(screen.doomed), facts.patience
    if effort is not None and patience is not None and effort.seconds > patience and facts.store:
        yield (
            "long",
            f"more than {format_seconds(patience)} (backup.patience); `safe-compose backup` makes"
            " one while everything runs",
            NOTICE,
        )
    if plan.invocation.own.skip_backup or not plan.backed_up:
        return
    if plan.trash_phrase is not None and not plan.invocation.own.backup_first:
        yield (
            "without a copy",
            f"'{plan.trash_phrase}' moves the content aside on the engine's own disk, in seconds;"
            f" it does not survive that disk, and undo brings it back within {TRASH_DAYS} days",
            "",
        )
    elif plan.no_trash:
        yield "trash", f"not possible: {plan.no_trash}", ""
