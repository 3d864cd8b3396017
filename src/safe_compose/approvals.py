"""Requests for a person's approval, and approvals: one file each, good once, for one command in one folder on one engine.

The program that was refused sees its own code, and may well run under the same user. The code alone opens nothing: turning a
request into an approval needs the phrase typed on a terminal (`consent`), and an approval fits nothing but the command that
was shown there, with the same volumes. What a program of the same user could still do is forge a file here, as it could
call the engine itself; whoever has to fear that gives the agent another user.
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safe_compose import durable
from safe_compose.durable import PRIVATE, make_folders, sync_folder, told
from safe_compose.errors import UsageError
from safe_compose.process import Process

WAITS = 3600.0
"""Seconds that a request waits for a person."""
HOLDS = 600.0
"""Seconds that an approval holds."""
MOST = 20
"""Requests that are kept; a further one takes the place of the oldest that nobody approved."""

_VERSION = 1
_LETTERS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Without those that are mistaken for each other."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time that neither a stepped clock nor a restart of the machine can stretch."""

    wall: float
    """Seconds since 1970, by the clock."""
    boot: str
    """The kernel's boot id; empty where there is none."""
    up: float
    """Seconds since that boot, time asleep included where the system counts it."""

    @classmethod
    def now(cls) -> "Moment":
        clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        return cls(time.time(), Process.current().boot, time.clock_gettime(clock))

    def over(self, seconds: float, now: "Moment") -> bool:
        """Whether more than `seconds` have gone by since: by either clock, or when that cannot be told."""
        by_clock, by_boot = now.wall - self.wall, now.up - self.up
        return self.boot != now.boot or not 0 <= by_boot <= seconds or not -60 <= by_clock <= seconds


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person is asked to let through. Everything here must be the same again."""

    argv: tuple[str, ...]
    """docker's words, exactly; never written down."""
    program: str
    folder: str
    """Resolved: no symbolic link in it."""
    endpoint: str
    engine_id: str
    uid: int
    project: str
    volumes: str
    """Which volumes die, and how they are made, in a form to compare."""

    def digest(self, code: str) -> str:
        whole = json.dumps([code, *(value for value in asdict(self).values())])
        return hashlib.sha256(whole.encode("utf-8", "backslashreplace")).hexdigest()


@dataclass(frozen=True, slots=True)
class Request:
    """One file: what is shown to the person, and a digest of what it is good for."""

    code: str
    digest: str
    asked: Moment
    shown: Mapping[str, Any]
    """`argv` (without secrets), `program`, `folder`, `endpoint`, `project`, `volumes`, `phrase`, `typed`, `pid`, `uid`."""
    approved: Moment | None = None

    def expired(self, now: Moment) -> bool:
        return self.asked.over(WAITS, now) if self.approved is None else self.approved.over(HOLDS, now)


class Approvals:
    """The requests in the store at `root`. `clock`: now."""

    def __init__(self, root: Path, *, clock: Callable[[], Moment] = Moment.now) -> None:
        self.folder = root / "journal" / "approvals"
        self._clock = clock

    def ask(self, asked: Asked, shown: Mapping[str, Any]) -> Request:
        """Write a request down; the same one again keeps its code and waits anew. Raises BackupFailed."""
        waiting = self.all()
        for known in waiting:
            if known.approved is None and known.digest == asked.digest(known.code):
                again = replace(known, asked=self._clock(), shown=shown)
                self._write(again)
                return again
        with told("write down the request for an approval"):
            make_folders(self.folder, PRIVATE)
        unapproved = [request for request in waiting if request.approved is None]
        for old in unapproved[: max(0, len(waiting) + 1 - MOST)]:
            self._remove(old.code)
        letters = "".join(secrets.choice(_LETTERS) for _ in range(8))
        code = f"{letters[:4]}-{letters[4:]}"
        request = Request(code, asked.digest(code), self._clock(), shown)
        self._write(request)
        return request

    def all(self) -> list[Request]:
        """What has not expired, the oldest first. Files of what has are removed."""
        try:
            names = sorted(os.listdir(self.folder))  # noqa: PTH208 - names are all that is wanted
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return []
        found = []
        for name in names:
            request = self._read(name)
            if request is None:
                continue
            if request.expired(self._clock()):
                self._remove(request.code)
            else:
                found.append(request)
        return sorted(found, key=lambda request: (request.asked.up, request.code))

    def find(self, code: str) -> Request:
        """A request by its code, in any case, with or without its dash. Raises UsageError."""
        plain = code.upper().replace("-", "").strip()
        for request in self.all():
            if request.code.replace("-", "") == plain:
                return request
        raise UsageError(
            "no command waits for this code here: it may have expired, been used, or been asked with another store",
            next_step="safe-compose approve --list, in the folder of the refused command",
        )

    def grant(self, request: Request) -> Request:
        """Make an approval of a request. The caller has asked a person. Raises BackupFailed."""
        approved = replace(request, approved=self._clock())
        self._write(approved)
        return approved

    def granted(self, asked: Asked) -> str | None:
        """The code of an approval that fits exactly, or None. It is still there afterwards."""
        return next((r.code for r in self.all() if r.approved is not None and r.digest == asked.digest(r.code)), None)

    def take(self, asked: Asked, code: str) -> bool:
        """Use an approval up. False when it has expired or somebody else used it in between."""
        if self.granted(asked) != code:
            return False
        with told(f"use up approval {code}"):
            try:
                self._path(code).unlink()
            except FileNotFoundError:
                return False  # of two at once, one gets it
            sync_folder(self.folder)
        return True

    def _path(self, code: str) -> Path:
        return self.folder / f"{code}.json"

    def _remove(self, code: str) -> None:
        with suppress(OSError):  # an expired file that stays is expired all the same
            self._path(code).unlink()

    def _write(self, request: Request) -> None:
        with told("write down the request for an approval"):
            data = json.dumps({"version": _VERSION, **asdict(request)}, sort_keys=True) + "\n"
            durable.replace(self._path(request.code), data.encode("ascii"), PRIVATE)

    def _read(self, name: str) -> Request | None:
        """One file; None for what is none of ours, damaged, or another user's."""
        if not name.endswith(".json") or name.startswith("."):
            return None
        path = self.folder / name
        try:
            found = path.lstat()
            shape = json.loads(path.read_bytes())
            if found.st_uid not in (os.geteuid(), os.getuid()) or found.st_mode & 0o077 or shape["version"] != _VERSION:
                return None
            approved = Moment(**shape["approved"]) if shape["approved"] is not None else None
            request = Request(str(shape["code"]), str(shape["digest"]), Moment(**shape["asked"]), dict(shape["shown"]), approved)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return request if f"{request.code}.json" == name else None


def identity_text(identity: Sequence[object]) -> str:
    """A set of volumes in a form that two processes can compare."""
    return json.dumps(sorted(json.dumps(part, default=str) for part in identity))
