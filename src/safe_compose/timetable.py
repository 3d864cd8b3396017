"""What is known of scheduled backups: one file for each project in the store, below its journal; and whether one is missing."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from safe_compose import durable
from safe_compose.artifacts import slug
from safe_compose.durable import PRIVATE, Access, make_folders, told
from safe_compose.plan import time_text
from safe_compose.process import Process, stamp, utc_now

_VERSION = 1
LATE = timedelta(hours=2)
"""How much later than planned a run may begin before it counts as missed: clocks change, timers are spread."""
TRIAL_EVERY = timedelta(days=6, hours=12)
"""A weekly trial, with some room so that it stays on its day."""


@dataclass(frozen=True, slots=True)
class Record:
    """The schedule of one project and its last run. Times as `stamp` writes them, UTC."""

    project: str
    folder: str
    """Where it runs."""
    at: tuple[str, ...]
    """`HH:MM`, local time, each day."""
    since: str
    """When it was put in place."""
    how: str = "cron"
    """`systemd` or `cron`: what calls it."""
    began: str | None = None
    ended: str | None = None
    process: dict[str, Any] | None = None
    """Of the run that began last."""
    faults: tuple[str, ...] = ()
    """Of the run that ended last, without secrets."""
    backup: str | None = None
    """Its backup."""
    good: str | None = None
    """When a run last ended without a fault."""
    trial: str | None = None
    """When a backup was last restored on trial (L4)."""

    def trouble(self, now: datetime) -> str | None:
        """What a person should know, or None: the last run failed, did not end, or the next one is overdue."""
        if self.began is not None and (self.ended is None or self.ended < self.began):
            runner = Process.read(self.process) if self.process is not None else None
            if runner is None or runner.is_dead():
                return f"the scheduled backup of {self.began} did not end"
        elif self.faults:
            more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
            return f"the scheduled backup of {self.began} failed: {self.faults[0]}{more}"
        last = moment(self.began or self.since)
        if last is None or now - last > gap(self.at) + LATE:
            ago = f"{time_text((now - last).total_seconds())}" if last is not None else "an unknown time"
            return f"no scheduled backup has run for {ago}; it is planned daily at {', '.join(self.at)}"
        well = moment(self.good) or moment(self.since) or last
        if now - well > 2 * gap(self.at) + LATE:
            return f"no scheduled backup has ended well for {time_text((now - well).total_seconds())}"
        return None

    def trial_due(self, now: datetime) -> bool:
        """Whether it is a week since a backup was restored on trial."""
        last = moment(self.trial)
        return last is None or not timedelta(0) <= now - last < TRIAL_EVERY


def moment(text: str | None) -> datetime | None:
    """A time as `stamp` writes it; None for anything else."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def gap(at: Sequence[str]) -> timedelta:
    """The longest time between two runs.

    >>> gap(["03:00", "15:30"])
    datetime.timedelta(seconds=45000)
    """
    minutes = sorted(int(text[:2]) * 60 + int(text[3:]) for text in at) or [0]
    return timedelta(minutes=max(b - a for a, b in zip(minutes, [*minutes[1:], minutes[0] + 24 * 60], strict=True)))


class Timetable:
    """The schedules in the store at `root`."""

    def __init__(self, root: Path, access: Access = PRIVATE, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.folder = root / "journal" / "schedules"
        self._access = access
        self._clock = clock

    def all(self) -> list[Record]:
        """Every one that reads, by project; a file that is damaged is left out (its next run writes it anew)."""
        try:
            names = sorted(os.listdir(self.folder))  # noqa: PTH208 - names are all that is wanted
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return []
        read = [_read(self.folder / name) for name in names if name.endswith(".json") and not name.startswith(".")]
        return sorted((record for record in read if record is not None), key=lambda record: record.project)

    def of(self, project: str) -> Record | None:
        return _read(self._path(project))

    def troubles(self, project: str | None = None) -> dict[str, str]:
        """Project -> what is wrong with its schedule."""
        found = {r.project: r.trouble(self._clock()) for r in self.all() if project is None or r.project == project}
        return {name: trouble for name, trouble in found.items() if trouble is not None}

    def put(self, record: Record) -> None:
        """Write one down. Raises BackupFailed."""
        with told("write down the schedule"):
            make_folders(self.folder, self._access)
            shape = {"version": _VERSION, **asdict(record)}
            durable.replace(self._path(record.project), json.dumps(shape, indent=1).encode(), self._access)

    def take_away(self, project: str) -> None:
        """Forget one. Raises BackupFailed."""
        with told("take away the schedule"):
            self._path(project).unlink(missing_ok=True)

    def begin(self, record: Record) -> Record:
        """A run begins. Raises BackupFailed."""
        begun = replace(record, began=stamp(self._clock()), process=Process.current().facts())
        self.put(begun)
        return begun

    def end(self, record: Record, faults: Sequence[str], *, backup: str | None, tried: bool) -> Record:
        """A run ended; without a backup it was not a good one. Raises BackupFailed."""
        now = stamp(self._clock())
        done = replace(
            record,
            ended=now,
            process=None,
            faults=tuple(faults),
            backup=backup or record.backup,
            good=record.good if faults or backup is None else now,
            trial=now if tried else record.trial,
        )
        self.put(done)
        return done

    def _path(self, project: str) -> Path:
        return self.folder / f"{slug(project)}.json"


def _read(path: Path) -> Record | None:
    try:
        shape = json.loads(durable.read_regular(path))
        if shape.pop("version") != _VERSION:
            return None
        record = Record(**{**shape, "at": tuple(shape["at"]), "faults": tuple(shape["faults"])})
        gap(record.at)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return record
