"""Processes that may have ended: the ids of runs and backups, and whether a recorded one lives."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from safe_compose.system.children import read_stat


def read_clock() -> datetime:
    """Return the current time, UTC; callers may use another clock."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """Return a time as manifests and journals write it: `2026-11-22T07:27:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def make_id(moment: datetime) -> str:
    """Return a new id of a run or a backup: `20261122T072700Z-3f9a1c`.

    It is for people to read; nothing is ever ordered by it.
    """
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}-{os.urandom(3).hex()}"


_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")
_LARGEST_PID = (1 << 31) - 1
"""Largest pid_t; `os.kill` raises OverflowError above it."""


def is_id(text: str) -> bool:
    """Return whether a text has the form of `make_id`, with a possible date and ASCII digits alone.

    Ids become names of folders and lock files, so one from elsewhere is checked before any use of
    it.
    """
    if _ID.fullmatch(text) is None:
        return False
    try:
        datetime.strptime(text[:16], "%Y%m%dT%H%M%SZ")
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Process:
    """A process, distinguishable from a later one with the same number."""

    pid: int
    boot: str
    """The kernel's boot id; empty where there is none (not Linux)."""
    started: str
    """Ticks since boot at which it started (field 22 of /proc/PID/stat); empty where unknown."""
    namespace: str
    """The pid namespace: a number of another container means nothing here."""
    host: str

    @classmethod
    def current(cls) -> "Process":
        """Return this process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> "Process":
        """Return a process of this machine that lives, or has ended and was not waited for yet."""
        return cls(pid, _boot_id(), _start_of(pid), _pid_namespace(), os.uname().nodename)

    @classmethod
    def read(cls, facts: Mapping[str, object]) -> "Process | None":
        """Return the process that `facts()` described; None when the description is damaged."""
        pid = facts.get("pid")
        if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid <= _LARGEST_PID:
            return None
        rest = [facts.get(name, "") for name in ("boot", "started", "namespace", "host")]
        boot, started, namespace, host = (value if isinstance(value, str) else "" for value in rest)
        return cls(pid, boot, started, namespace, host)

    def facts(self) -> dict[str, object]:
        """Return the values from which `read` identifies this process again."""
        return {
            "pid": self.pid, "boot": self.boot, "started": self.started,
            "namespace": self.namespace, "host": self.host
        }  # fmt: skip

    def is_dead(self) -> bool:
        """Return True only when the process is certainly dead.

        That is so after a reboot of the same machine, or when this kernel has no such process any
        more.
        """
        here = Process.current()
        if self.boot != here.boot:
            return bool(self.boot) and self.host == here.host
        if self.namespace != here.namespace or (not self.boot and self.host != here.host):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            # it lives and belongs to another user; its start still shows whether it is the same
            # process
            pass
        # A zombie does nothing any more; it may stay for ever where the first process of a
        # container waits for no children.
        return bool(self.started) and (
            _start_of(self.pid) != self.started or _field(self.pid, 3) == "Z"
        )


def find_by_environment(pair: bytes) -> list[int] | None:
    """Return ids of processes of this machine that were started with `NAME=value`.

    Only visible environments count.

    Returns:
        None without /proc.
    """
    if sys.platform != "linux":
        return None
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue  # it has just ended, or belongs to another user: our children are ours
            found += [int(entry.name)] if pair in environment.split(b"\0") else []
    return found


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text("ascii").strip() if sys.platform == "linux" and path.exists() else ""


def _pid_namespace() -> str:
    link = Path("/proc/self/ns/pid")
    return str(link.readlink()) if sys.platform == "linux" and link.is_symlink() else ""


def _start_of(pid: int) -> str:
    return _field(pid, 22)


def _field(pid: int, number: int) -> str:
    """Return a field of /proc/PID/stat from the third on, as proc(5) counts them.

    Empty when it is unknown.
    """
    fields = read_stat(pid)
    return fields[number - 3] if len(fields) > number - 3 else ""
