"""Retention of backups: a policy, minimums below it, and a reason for each decision."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from safe_compose.core.backup import Backup, ServerStatistics, describe_shrinkage
from safe_compose.core.backup_summary import BackupSummary

LOOK_BACK = timedelta(days=30)
"""How long the last complete backup is held after much of a volume's content disappeared: the loss
may not have been noticed yet."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy: how many verified backups of each volume stay.

    A backup stays when any rule keeps it for any of its volumes.
    """

    last: int = 0
    """The number of newest backups to keep."""
    daily: int = 0
    """The number of newest days (UTC) with a backup, of each of which the newest is kept; likewise
    weeks (ISO) and months."""
    weekly: int = 0
    monthly: int = 0
    within: timedelta | None = None
    """Keeps backups that are at most that much older than the newest: not than now, so that a clock
    far ahead deletes nothing."""

    @property
    def empty(self) -> bool:
        """Whether the policy has no rule."""
        return not (self.last or self.daily or self.weekly or self.monthly or self.within)

    def __str__(self) -> str:
        """Return the rules as a text for people."""
        counts = [
            ("last", self.last),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
        ]
        words = [f"{name} {count}" for name, count in counts if count]
        return ", ".join([*words, *([f"within {_span(self.within)}"] if self.within else [])])


@dataclass(frozen=True, slots=True)
class Judgement:
    """The decision about one backup, with its reasons."""

    backup: Backup
    stays: bool
    why: tuple[str, ...]
    held: tuple[str, ...] = ()
    """Why it is forgotten only after a typed phrase; always empty for one that the policy lets
    go."""


Volume = tuple[str, str]
"""Engine id and name: two engines may have a volume of one name, and `app` has nothing to do with
`app-staging`."""


def group_by_volume(
    backups: Iterable[Backup], wanted: Callable[[Backup], bool] = lambda b: b.counts
) -> dict[Volume, list[Backup]]:
    """Return the verified backups of each volume, the newest first.

    The order is that of their numbers, since names and clocks may be wrong. One that was fetched
    without a signature is not among them: an off-site place must not decide what is deleted here.
    """
    found: dict[Volume, list[Backup]] = {}
    for backup in sorted(backups, key=lambda b: b.seq, reverse=True):
        if wanted(backup):
            for record in backup.volumes:
                if record.artifacts:
                    found.setdefault((backup.engine_id, record.name), []).append(backup)
    return found


def find_future(backups: Iterable[Backup], now: datetime) -> Backup | None:
    """Return the newest backup that claims to be made after `now`, or None.

    If there is one, a clock is wrong, and ages mean nothing. A backup of unknown origin says
    nothing about a clock here.
    """
    late = [
        b
        for b in backups
        if b.unsigned_from is None and (at := _parse_moment(b.created)) is not None and at > now
    ]
    return max(late, key=lambda b: (b.created, b.seq), default=None)


def judge(
    backups: Sequence[Backup], policy: Policy, now: datetime, *, project: str | None = None
) -> list[Judgement]:
    """Return the decision of a policy about every backup, the newest first.

    Only verified backups are counted, and only they are forgotten.

    Args:
        backups: The whole store: other projects' backups of a volume count as well.
        policy: The policy; it must not be empty.
        now: The current time, UTC.
        project: The project to judge; None: all.
    """
    if policy.empty:
        raise ValueError("an empty policy would keep nothing")
    late = find_future(backups, now)
    verified = group_by_volume(backups)
    reasons: dict[str, dict[str, list[str]]] = {}

    def keep(backup: Backup, why: str, volume: str) -> None:
        reasons.setdefault(backup.path, {}).setdefault(why, []).append(volume)

    for (_, volume), line in verified.items():
        keep(line[0], "newest verified", volume)
        for backup, held in _find_held(line, volume, now):
            keep(backup, held, volume)
        for backup, rule in _apply_rules(line, policy):
            keep(backup, rule, volume)
    judged = []
    for backup in sorted(backups, key=lambda b: b.seq, reverse=True):
        if project is not None and backup.project != project:
            continue
        if not backup.counts:
            judged.append(Judgement(backup, True, (_explain_unverified(backup),)))
        elif late is not None:
            judged.append(
                Judgement(
                    backup, True, (f"the clock is behind backup {late.id}, made {late.created}",)
                )
            )
        elif rules := reasons.get(backup.path):
            judged.append(
                Judgement(
                    backup,
                    True,
                    tuple(f"{why} ({', '.join(names)})" for why, names in rules.items()),
                )
            )
        else:
            newest = {
                verified[backup.engine_id, v.name][0].id for v in backup.volumes if v.artifacts
            }
            judged.append(
                Judgement(
                    backup,
                    False,
                    (f"no rule keeps it; newer and verified: {', '.join(sorted(newest))}",),
                )
            )
    return judged


def judge_each(
    backups: Sequence[Backup], chosen: Collection[str], now: datetime
) -> list[Judgement]:
    """Return the decisions about chosen backups.

    Each is to be forgotten, after a phrase where something holds it.

    Policies do not count. `chosen` are the paths of the backups.
    """
    held: dict[str, list[str]] = {}
    late = find_future(backups, now)
    verified, unverified = (
        group_by_volume(backups),
        group_by_volume(backups, lambda b: not b.counts),
    )
    for (_, volume), line in verified.items():
        if line[0].path in chosen:
            left = any(b.path not in chosen for b in line)
            held.setdefault(line[0].path, []).append(
                f"the newest verified backup of {volume}"
                if left
                else f"without it no verified backup of {volume} is left"
            )
        for backup, reason in _find_held(line, volume, now):
            held.setdefault(backup.path, []).append(f"{reason} ({volume})")
    for key, line in unverified.items():
        if key not in verified:
            held.setdefault(line[0].path, []).append(
                f"there is no verified backup of {key[1]}, and this is the newest other"
            )
    judged = []
    for backup in backups:
        if backup.path in chosen:
            why = held.get(backup.path, [])
            why += ["what it holds cannot be read"] if not backup.volumes else []
            why += (
                [f"the clock is behind backup {late.id}, made {late.created}"]
                if late is not None
                else []
            )
            judged.append(
                Judgement(backup, False, ("asked for by its id",), tuple(dict.fromkeys(why)))
            )
    return judged


def parse_span(text: str) -> timedelta | None:
    """Parse `48h`, `14d` or `8w`; return None for anything else, 0 and more than 100 years."""
    match = re.fullmatch(r"(\d{1,7})([hdw])", text.strip().lower(), re.ASCII)
    if match is None:
        return None
    found = timedelta(hours=int(match[1]) * {"h": 1, "d": 24, "w": 168}[match[2]])
    return found if timedelta(0) < found <= timedelta(days=36_525) else None


def choose_phrase(doomed: Sequence[Judgement]) -> str | None:
    """Return the phrase to type before these are forgotten; None when a yes suffices."""
    if not any(j.held for j in doomed):
        return None
    return f"forget {doomed[0].backup.id}" if len(doomed) == 1 else f"forget {len(doomed)} backups"


def explain_budget(used: int, budget: int | None, policy: Policy | None) -> str | None:
    """Return the command that shows what could be forgotten, or None.

    There is one when the backups take more bytes than `[store] max_size`; nothing is forgotten
    automatically.
    """
    if budget is None or used <= budget:
        return None
    rules = "" if policy is not None else " --keep-daily 7 --keep-weekly 4 --keep-monthly 6"
    return f"safe-compose forget --dry-run{rules}"


def _apply_rules(line: Sequence[Backup], policy: Policy) -> list[tuple[Backup, str]]:
    """Return the backups of one volume that the rules keep, with the rules.

    `line` has the newest first.
    """
    found = [(backup, f"last {policy.last}") for backup in line[: policy.last]]
    dated = [(backup, at) for backup in line if (at := _parse_moment(backup.created)) is not None]
    found += [
        (backup, "its time does not read")
        for backup in line
        if _parse_moment(backup.created) is None
    ]
    for name, count, period in (
        ("daily", policy.daily, _day),
        ("weekly", policy.weekly, _week),
        ("monthly", policy.monthly, _month),
    ):
        seen: dict[str, Backup] = {}
        for backup, at in dated:
            if period(at) not in seen and len(seen) < count:
                seen[period(at)] = backup
        found += [(backup, f"{name} {when}") for when, backup in seen.items()]
    if policy.within is not None and dated:
        newest = dated[0][1]
        found += [
            (b, f"within {_span(policy.within)}") for b, at in dated if newest - at <= policy.within
        ]
    return found


def _find_held(line: Sequence[Backup], volume: str, now: datetime) -> list[tuple[Backup, str]]:
    """Return the verified backups of one volume that are held whatever the rules say, and why."""
    found = [
        (backup, f"pinned until {backup.pinned_until}, made before a deletion")
        for backup in _select_pinned(line, now)
    ]
    newer: tuple[Backup, ServerStatistics] | None = None
    for backup in line:
        statistics = next((r.statistics for r in backup.volumes if r.name == volume), None)
        if statistics is None:
            continue
        if (
            newer is not None
            and newer[1].kind == statistics.kind
            and (less := describe_shrinkage(statistics, newer[1]))
        ):
            noticed = _parse_moment(newer[0].created)
            if noticed is None or noticed > now - LOOK_BACK:
                found.append((backup, f"the last one with all of it: in {newer[0].id} {less}"))
        newer = backup, statistics
    return found


def find_pinned(backups: Iterable[BackupSummary], now: datetime) -> frozenset[str]:
    """Return the paths of the backups that are pinned for at least one volume.

    `judge` decides in the same way.
    """
    lines: dict[Volume, list[BackupSummary]] = {}
    for backup in sorted(backups, key=lambda b: b.seq, reverse=True):
        if backup.counts:
            for name in backup.volumes:
                lines.setdefault((backup.engine_id, name), []).append(backup)
    return frozenset(backup.path for line in lines.values() for backup in _select_pinned(line, now))


B = TypeVar("B", Backup, BackupSummary)


def _select_pinned(line: Sequence[B], now: datetime) -> list[B]:
    """Return the pinned backups among the verified ones of a volume.

    Of each day, these are the first and the last one.
    """
    days: dict[str, list[B]] = {}
    for backup in line:
        if backup.pinned_until is not None:
            days.setdefault(backup.created[:10], []).append(backup)
    ends = [end for day in days.values() for end in dict.fromkeys((day[0].path, day[-1].path))]
    return [
        b
        for b in line
        if b.path in ends
        and ((until := _parse_moment(b.pinned_until or "")) is None or until > now)
    ]


def _explain_unverified(backup: Backup) -> str:
    if backup.unsigned_from is not None and backup.verified:
        return (
            f"fetched without a signature from {backup.unsigned_from}: counts for nothing, and goes"
            " only by its id"
        )
    return (
        f"{'broken' if backup.broken else 'not verified'}: counts for nothing, and goes only by"
        " its id"
    )


def _parse_moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if text.endswith("Z") else None
    except (ValueError, OverflowError):
        return None


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"


def _week(at: datetime) -> str:
    year, week, _ = at.isocalendar()
    return f"{year}-W{week:02}"


def _month(at: datetime) -> str:
    return f"{at:%Y-%m}"


def _span(span: timedelta) -> str:
    hours = int(span.total_seconds()) // 3600
    return f"{hours // 24}d" if hours % 24 == 0 else f"{hours}h"
