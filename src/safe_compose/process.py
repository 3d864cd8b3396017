"""Who is running: ids of runs and backups, and whether the process that wrote one down still lives."""

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


def utc_now() -> datetime:
    """The clock that rooms are given unless a caller hands them another one."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """A moment as manifests and journals write it: `2026-11-22T07:27:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_id(moment: datetime) -> str:
    """The id of a run or a backup, `20261122T072700Z-3f9a1c`: for people to read; nothing is ever ordered by it."""
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told apart from a later one with the same number."""

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
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> "Process":
        """A process of this machine that lives, or has just ended and was not waited for."""
        return cls(pid, _boot_id(), _start_of(pid), _pid_namespace(), os.uname().nodename)

    @classmethod
    def read(cls, facts: Mapping[str, object]) -> "Process | None":
        """The process that `facts()` described; None when the description is damaged."""
        pid = facts.get("pid")
        if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
            return None
        rest = [facts.get(name, "") for name in ("boot", "started", "namespace", "host")]
        boot, started, namespace, host = (value if isinstance(value, str) else "" for value in rest)
        return cls(pid, boot, started, namespace, host)

    def facts(self) -> dict[str, object]:
        """What to write down so that `read` finds this process again."""
        return {
            "pid": self.pid, "boot": self.boot, "started": self.started, "namespace": self.namespace, "host": self.host
        }  # fmt: skip

    def is_dead(self) -> bool:
        """True only when it is certain: the same machine booted again, or this kernel has no such process any more."""
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
            pass  # it lives and belongs to somebody else; its start still tells whether it is the one meant
        # A zombie does nothing any more; it may stay for ever where the first process of a container waits for nobody.
        return bool(self.started) and (_start_of(self.pid) != self.started or _field(self.pid, 3) == "Z")


def with_environment(pair: bytes) -> list[int] | None:
    """Ids of the processes of this machine that were started with `NAME=value`, as far as we may see; None without /proc."""
    if sys.platform != "linux":
        return None
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue  # it has just gone, or it is somebody else's: what we start is ours
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
    """A field of /proc/PID/stat from the third on, as proc(5) counts them."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""  # no /proc, or the process has just gone: the caller then goes by the number alone
    # The name stands in brackets and may hold blanks and brackets itself; field 3 follows its last `)`.
    fields = text.rpartition(")")[2].split()
    return fields[number - 3] if len(fields) > number - 3 else ""


def hold_standard_descriptors() -> None:
    """Where stdin, stdout or stderr came closed, no file of ours may get that number: what is said would be written into it.

    /dev/null holds the place until exec (it is not inherited), so docker finds it as closed as we did.
    """
    while (held := os.open(os.devnull, os.O_RDWR)) <= 2:
        continue
    os.close(held)
