"""The layout of a report: its findings, on at most so many lines. This module is pure."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from safe_compose.core.line_wrap import wrap_line
from safe_compose.core.text import LONGEST_CELL, make_visible
from safe_compose.ui.lines import Span
from safe_compose.ui.table_layout import (
    BAD,
    CAREFUL,
    FAINT,
    GOOD,
    HEADING,
    INDENT,
    lay_field,
    measure_line,
)


class Mark(NamedTuple):
    """The sign before a finding."""

    sign: str
    plain: str
    """The sign for a terminal whose encoding has not got the other one."""
    style: str


PROBLEM, WARNING, OK = Mark("✗", "x", BAD), Mark("!", "!", CAREFUL), Mark("✓", "+", GOOD)


class ReportLine(NamedTuple):
    """A finding with its sign and the command to type."""

    mark: Mark
    text: str
    command: str = ""


def lay_report(
    heading: str,
    answers: Sequence[str],
    findings: Sequence[ReportLine],
    *,
    width: int,
    height: int | None,
    more: str,
) -> list[list[Span]]:
    """Return the lines of a report.

    Args:
        heading: What the answers answer; it stands before the first.
        answers: Sentences, the most important first.
        findings: The findings, the worst first.
        width: The width of the terminal.
        height: The most lines; None for any number.
        more: The command that shows what had no space.
    """
    lines: list[list[Span]] = []
    quarter = len(answers) if height is None else max(1, height // 5)
    for n, answer in enumerate(answers[:quarter]):
        label = Span("" if n else f"{heading} ", HEADING)
        value = Span(make_visible(answer, LONGEST_CELL))
        lines += lay_field(label, value, width=width, indent=INDENT if n else 0, margin=INDENT)
    if left := len(answers) - quarter if quarter < len(answers) else 0:
        lines.append([Span(" " * INDENT), Span(f"and {left} more: {more}", FAINT)])
    blocks = [_lay_finding(finding, width) for finding in findings]
    shown = _count_fitting(blocks, None if height is None else height - len(lines))
    lines += [line for block in blocks[:shown] for line in block]
    if shown < len(blocks):
        lines.append([Span(f"and {len(blocks) - shown} more: {more}", FAINT)])
    return lines


def _count_fitting(blocks: Sequence[Sequence[object]], space: int | None) -> int:
    """Return how many blocks fit; at least one, and one line is left where not all do."""
    if space is None or sum(map(len, blocks)) <= space:
        return len(blocks)
    used = 0
    for number, block in enumerate(blocks):
        used += len(block)
        if used > space - 1:
            return max(number, 1)
    return len(blocks)


def _lay_finding(finding: ReportLine, width: int) -> list[list[Span]]:
    """Return a finding as lines; its command is one line to whoever copies it."""
    sign = finding.mark.sign if _can_show(finding.mark.sign) else finding.mark.plain
    label = Span(f"{sign} ", finding.mark.style)
    text = Span(make_visible(finding.text, LONGEST_CELL))
    lines = lay_field(label, text, width=width, indent=0, margin=2)
    if not finding.command:
        return lines
    command = Span(make_visible(finding.command, LONGEST_CELL), HEADING)
    behind = [*lines[-1], Span(": "), command]
    if measure_line(behind) <= width:
        return [*lines[:-1], behind]
    return [*lines, [Span(wrap_line(" " * INDENT + command.text, width), HEADING)]]


def _can_show(sign: str) -> bool:
    try:
        sign.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
