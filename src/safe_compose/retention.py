"""Which backups stay: a policy over the verified ones, floors below it, and a reason for each that stays or goes."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from safe_compose.artifacts import Backup, ServerStatistics, shrunk

LOOK_BACK = timedelta(days=30)
"""For so long after much of a volume's content went its last backup with all of it is held: nobody may have noticed yet."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How many verified backups of each volume stay. A backup stays when any rule keeps it for any of its volumes."""

    last: int = 0
    """The newest so many."""
    daily: int = 0
    """The newest of each of the newest so many days (UTC) that have one; weeks (ISO) and months alike."""
    weekly: int = 0
    monthly: int = 0
    within: timedelta | None = None
    """Those that are at most so much older than the newest: not than now, so that a clock far ahead empties nothing."""

    @property
    def empty(self) -> bool:
        return not (self.last or self.daily or self.weekly or self.monthly or self.within)

    def __str__(self) -> str:
        counts = [("last", self.last), ("daily", self.daily), ("weekly", self.weekly), ("monthly", self.monthly)]
        words = [f"{name} {count}" for name, count in counts if count]
        return ", ".join([*words, *([f"within {_span(self.within)}"] if self.within else [])])


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is to come of one backup, and why."""

    backup: Backup
    stays: bool
    why: tuple[str, ...]
    held: tuple[str, ...] = ()
    """Why it goes only for a typed phrase; always empty for one that the policy lets go."""


Volume = tuple[str, str]
"""Engine id and name: two engines may have a volume of one name, and `app` has nothing to do with `app-staging`."""


def series(backups: Iterable[Backup], wanted: Callable[[Backup], bool] = lambda b: b.verified) -> dict[Volume, list[Backup]]:
    """Of each volume the verified backups that hold it, the newest first: by number, since names and clocks lie."""
    found: dict[Volume, list[Backup]] = {}
    for backup in sorted(backups, key=lambda b: b.seq, reverse=True):
        if wanted(backup):
            for record in backup.volumes:
                if record.artifacts:
                    found.setdefault((backup.engine_id, record.name), []).append(backup)
    return found


def later_than(backups: Iterable[Backup], now: datetime) -> Backup | None:
    """The newest backup that was made after `now`, by its own account: then a clock is wrong, and ages say nothing."""
    late = [b for b in backups if (at := _moment(b.created)) is not None and at > now]
    return max(late, key=lambda b: (b.created, b.seq), default=None)


def judge(backups: Sequence[Backup], policy: Policy, now: datetime, *, project: str | None = None) -> list[Judgement]:
    """What a policy means for every backup of a store, or for those of one project; the newest first.

    `backups` is the whole store: what another project's backups hold of a volume counts as well. Only verified backups are
    counted, and only they go. `policy` must not be empty.
    """
    if policy.empty:
        raise ValueError("an empty policy would keep nothing")
    late = later_than(backups, now)
    verified = series(backups)
    kept: dict[str, dict[str, list[str]]] = {}

    def keep(backup: Backup, why: str, volume: str) -> None:
        kept.setdefault(backup.path, {}).setdefault(why, []).append(volume)

    for (_, volume), line in verified.items():
        keep(line[0], "newest verified", volume)
        for backup, held in _held(line, volume, now):
            keep(backup, held, volume)
        for backup, rule in _by_rules(line, policy):
            keep(backup, rule, volume)
    judged = []
    for backup in sorted(backups, key=lambda b: b.seq, reverse=True):
        if project is not None and backup.project != project:
            continue
        if not backup.verified:
            judged.append(Judgement(backup, True, (_unverified(backup),)))
        elif late is not None:
            judged.append(Judgement(backup, True, (f"the clock is behind backup {late.id}, made {late.created}",)))
        elif rules := kept.get(backup.path):
            judged.append(Judgement(backup, True, tuple(f"{why} ({', '.join(names)})" for why, names in rules.items())))
        else:
            newest = {verified[backup.engine_id, v.name][0].id for v in backup.volumes if v.artifacts}
            judged.append(Judgement(backup, False, (f"no rule keeps it; newer and verified: {', '.join(sorted(newest))}",)))
    return judged


def one_by_one(backups: Sequence[Backup], chosen: Collection[str], now: datetime) -> list[Judgement]:
    """The same for backups that were named, whatever a policy says: each goes, for a phrase where something holds it.

    chosen: their paths.
    """
    held: dict[str, list[str]] = {}
    late = later_than(backups, now)
    verified, unverified = series(backups), series(backups, lambda b: not b.verified)
    for (_, volume), line in verified.items():
        if line[0].path in chosen:
            left = any(b.path not in chosen for b in line)
            held.setdefault(line[0].path, []).append(
                f"the newest verified backup of {volume}" if left else f"without it no verified backup of {volume} is left"
            )
        for backup, reason in _held(line, volume, now):
            held.setdefault(backup.path, []).append(f"{reason} ({volume})")
    for key, line in unverified.items():
        if key not in verified:
            held.setdefault(line[0].path, []).append(f"there is no verified backup of {key[1]}, and this is the newest other")
    judged = []
    for backup in backups:
        if backup.path in chosen:
            why = held.get(backup.path, [])
            why += ["what it holds cannot be read"] if not backup.volumes else []
            why += [f"the clock is behind backup {late.id}, made {late.created}"] if late is not None else []
            judged.append(Judgement(backup, False, ("asked for by its id",), tuple(dict.fromkeys(why))))
    return judged


def span(text: str) -> timedelta | None:
    """`48h`, `14d` or `8w` as a time; None for anything else, 0 and more than 100 years."""
    match = re.fullmatch(r"(\d{1,7})([hdw])", text.strip().lower(), re.ASCII)
    if match is None:
        return None
    found = timedelta(hours=int(match[1]) * {"h": 1, "d": 24, "w": 168}[match[2]])
    return found if timedelta(0) < found <= timedelta(days=36_525) else None


def phrase(doomed: Sequence[Judgement]) -> str | None:
    """What has to be typed before these go; None when a yes will do."""
    if not any(j.held for j in doomed):
        return None
    return f"forget {doomed[0].backup.id}" if len(doomed) == 1 else f"forget {len(doomed)} backups"


def over_budget(used: int, budget: int | None, policy: Policy | None) -> str | None:
    """The command that shows what could go, when the backups' bytes are more than `[store] max_size`; nothing goes by itself."""
    if budget is None or used <= budget:
        return None
    rules = "" if policy is not None else " --keep-daily 7 --keep-weekly 4 --keep-monthly 6"
    return f"safe-compose forget --dry-run{rules}"


def _by_rules(line: Sequence[Backup], policy: Policy) -> list[tuple[Backup, str]]:
    """Which backups of one volume, the newest first, the rules keep."""
    found = [(backup, f"last {policy.last}") for backup in line[: policy.last]]
    dated = [(backup, at) for backup in line if (at := _moment(backup.created)) is not None]
    found += [(backup, "its time does not read") for backup in line if _moment(backup.created) is None]
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
        found += [(b, f"within {_span(policy.within)}") for b, at in dated if newest - at <= policy.within]
    return found


def _held(line: Sequence[Backup], volume: str, now: datetime) -> list[tuple[Backup, str]]:
    """Which of one volume's verified backups, the newest first, are held for a while whatever the rules say, and why."""
    found = [(backup, f"pinned until {backup.pinned_until}, made before a deletion") for backup in _pinned(line, now)]
    newer: tuple[Backup, ServerStatistics] | None = None
    for backup in line:
        statistics = next((r.statistics for r in backup.volumes if r.name == volume), None)
        if statistics is None:
            continue
        if newer is not None and newer[1].kind == statistics.kind and (less := shrunk(statistics, newer[1])):
            noticed = _moment(newer[0].created)
            if noticed is None or noticed + LOOK_BACK > now:
                found.append((backup, f"the last one with all of it: in {newer[0].id} {less}"))
        newer = backup, statistics
    return found


def _pinned(line: Sequence[Backup], now: datetime) -> list[Backup]:
    """Of one volume's verified backups those that are pinned: of each day's the first and the last."""
    days: dict[str, list[Backup]] = {}
    for backup in line:
        if backup.pinned_until is not None:
            days.setdefault(backup.created[:10], []).append(backup)
    ends = [end for day in days.values() for end in dict.fromkeys((day[0].path, day[-1].path))]
    return [b for b in line if b.path in ends and ((until := _moment(b.pinned_until or "")) is None or until > now)]


def _unverified(backup: Backup) -> str:
    return f"{'broken' if backup.broken else 'not verified'}: counts for nothing, and goes only by its id"


def _moment(text: str) -> datetime | None:
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
