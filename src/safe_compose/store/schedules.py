"""The state of scheduled backups: one file per project below the store's journal.

It tells whether a run failed or is overdue.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from safe_compose.core.quantities import format_seconds, format_stamp
from safe_compose.core.slug import slug
from safe_compose.system import files
from safe_compose.system.files import PRIVATE, Access, make_folders, reporting
from safe_compose.system.process import Process, read_clock, stamp

_VERSION = 1
_HOUR = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")
LATE = timedelta(hours=2)
"""How much later than planned a run may begin before it is missed: clocks change, timers are
spread."""
TRIAL_EVERY = timedelta(days=6, hours=12)
"""A weekly test restore, with some slack so that it stays on its day."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The schedule of one project and its last run.

    Times are UTC, as `stamp` writes them.
    """

    project: str
    folder: str
    """The folder in which it runs."""
    at: tuple[str, ...]
    """`HH:MM`, local time, each day."""
    since: str
    """When the schedule was set up."""
    how: str = "cron"
    """`systemd` or `cron`: the caller."""
    began: str | None = None
    ended: str | None = None
    process: dict[str, Any] | None = None
    """The process of the run that began last."""
    faults: tuple[str, ...] = ()
    """The errors of the run that ended last, without secrets."""
    backup: str | None = None
    """The backup of that run, or of an earlier one."""
    good: str | None = None
    """When a run last ended without an error."""
    trial: str | None = None
    """When a backup was last restored for a test (L4)."""

    def trouble(self, now: datetime) -> str | None:
        """Describe what is wrong: the last run failed or did not end, or the next one is overdue.

        Returns:
            None when all is well.
        """
        if self.began is not None and (self.ended is None or self.ended < self.began):
            runner = Process.read(self.process) if self.process is not None else None
            if runner is None or runner.is_dead():
                return f"the scheduled backup of {format_stamp(self.began)} did not end"
        elif self.faults:
            began = format_stamp(self.began or self.since)
            more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
            return f"the scheduled backup of {began} failed: {self.faults[0]}{more}"
        last = parse_moment(self.began or self.since)
        if last is not None and last > now + LATE:
            return (
                f"the scheduled backup of {format_stamp(self.began or self.since)} is dated in the"
                " future: a clock is wrong, or was"
            )
        if last is None or now - last > find_longest_gap(self.at) + LATE:
            ago = (
                f"{format_seconds((now - last).total_seconds())}"
                if last is not None
                else "an unknown time"
            )
            return (
                f"no scheduled backup has run for {ago}; it is planned daily at"
                f" {', '.join(self.at)}"
            )
        well = next(
            (at for text in (self.good, self.since) if (at := parse_moment(text)) and at <= now),
            last,
        )
        if now - well > 2 * find_longest_gap(self.at) + LATE:
            return (
                "no scheduled backup has ended well for"
                f" {format_seconds((now - well).total_seconds())}"
            )
        return None

    def trial_due(self, now: datetime) -> bool:
        """Return whether a week has passed since the last test restore."""
        last = parse_moment(self.trial)
        return last is None or not timedelta(0) <= now - last < TRIAL_EVERY


def parse_moment(text: str | None) -> datetime | None:
    """Parse a time as `stamp` writes it; return None for anything else."""
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return found if found is not None and found.utcoffset() == timedelta(0) else None


def find_longest_gap(at: Sequence[str]) -> timedelta:
    """Return the longest time between two runs.

    >>> find_longest_gap(["03:00", "15:30"])
    datetime.timedelta(seconds=45000)
    """
    minutes = sorted(int(text[:2]) * 60 + int(text[3:]) for text in at) or [0]
    return timedelta(
        minutes=max(
            b - a for a, b in zip(minutes, [*minutes[1:], minutes[0] + 24 * 60], strict=True)
        )
    )


class Schedules:
    """The schedules in the store at `root`."""

    def __init__(
        self, root: Path, access: Access = PRIVATE, *, clock: Callable[[], datetime] = read_clock
    ) -> None:
        """Use the schedules in the store at `root`."""
        self.folder = root / "journal" / "schedules"
        self._access = access
        self._clock = clock

    def all(self) -> list[Schedule]:
        """Return every readable schedule, by project.

        A damaged file is left out; its next run rewrites it.
        """
        try:
            names = sorted(os.listdir(self.folder))  # noqa: PTH208 - names are all that is wanted
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return []
        read = [
            _read(self.folder / name)
            for name in names
            if name.endswith(".json") and not name.startswith(".")
        ]
        return sorted(
            (record for record in read if record is not None), key=lambda record: record.project
        )

    def of(self, project: str) -> Schedule | None:
        """Return the schedule of a project; None when there is none or it is damaged."""
        return _read(self._path(project))

    def troubles(self, project: str | None = None) -> dict[str, str]:
        """Return project -> what is wrong with its schedule."""
        found = {
            r.project: r.trouble(self._clock())
            for r in self.all()
            if project is None or r.project == project
        }
        return {name: trouble for name, trouble in found.items() if trouble is not None}

    def put(self, record: Schedule) -> None:
        """Write a schedule.

        Raises:
            OperationFailed: The file cannot be written.
        """
        with reporting("write down the schedule"):
            make_folders(self.folder, self._access)
            shape = {"version": _VERSION, **asdict(record)}
            files.replace(
                self._path(record.project), json.dumps(shape, indent=1).encode(), self._access
            )

    def take_away(self, project: str) -> None:
        """Delete the schedule of a project, if there is one.

        Raises:
            OperationFailed: The file cannot be removed.
        """
        with reporting("take away the schedule"):
            self._path(project).unlink(missing_ok=True)

    def begin(self, record: Schedule) -> Schedule:
        """Record that a run began.

        Raises:
            OperationFailed: The schedule cannot be written.
        """
        begun = replace(record, began=stamp(self._clock()), process=Process.current().facts())
        self.put(begun)
        return begun

    def end(
        self, record: Schedule, faults: Sequence[str], *, backup: str | None, tried: bool
    ) -> Schedule:
        """Record that a run ended; without a backup it does not count as a good one.

        Args:
            record: The schedule as `begin` returned it.
            faults: Its errors, without secrets.
            backup: Id of the backup that it made, if any.
            tried: The run made a test restore.

        Raises:
            OperationFailed: The schedule cannot be written.
        """
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


def _read(path: Path) -> Schedule | None:
    try:
        shape = json.loads(files.read_regular(path))
        if shape.pop("version") != _VERSION:
            return None
        record = Schedule(**{**shape, "at": tuple(shape["at"]), "faults": tuple(shape["faults"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return record if _is_plausible(record) else None


def _is_plausible(record: Schedule) -> bool:
    """Return whether every value has its type; others may write to a team's store."""
    texts = (record.project, record.folder, record.since, record.how, *record.at, *record.faults)
    maybe = (record.began, record.ended, record.backup, record.good, record.trial)
    return (
        all(type(text) is str for text in texts)
        and all(text is None or type(text) is str for text in maybe)
        and all(_HOUR.fullmatch(text) for text in record.at)
        and (record.process is None or isinstance(record.process, dict))
    )
