"""Requests for a person's approval, and approvals: one file each, valid once, for one plan.

The refused program sees its own code and may run as the same user, so the code alone permits
nothing. Turning a request into an approval needs the phrase typed on a terminal
(`operations.approval`). An approval fits only the plan that was shown there: command, folder,
engine, volumes with their tiers, the steps before docker runs, and every setting.

Files that belong to another user, or that others may write to, are ignored. A program of the same
user could still forge a file here, just as it could call the engine itself; to exclude that, run
the agent as another user.
"""

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safe_compose.errors import UsageError
from safe_compose.system import files
from safe_compose.system.files import PRIVATE, make_folders, read_own, reporting, sync_folder
from safe_compose.system.process import Process

WAITS = 3600.0
"""Seconds that a request waits for a person."""
HOLDS = 600.0
"""Seconds that an approval is valid."""
MOST = 20
"""Largest number of requests kept; a further one replaces the oldest request that is not
approved."""

_VERSION = 2
_LARGEST = 1 << 20
"""Largest size of a file in bytes; a larger one is not from safe-compose."""
_LONGEST_CHANGE = 200
"""Largest number of characters of a value in a sentence about a change."""
_USED = ".used"
"""Suffix of the file that marks an approval as used, so that a restored copy of it does not
count."""
_LETTERS = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
"""The characters of a code, without those that are easily confused."""
_CODE = re.compile(rf"[{_LETTERS}]{{4}}-[{_LETTERS}]{{4}}")


@dataclass(frozen=True, slots=True)
class Moment:
    """A time whose age neither a changed clock nor a reboot can understate."""

    wall: float
    """Seconds since 1970, by the clock."""
    boot: str
    """The kernel's boot id; empty where the system has none."""
    up: float
    """Seconds since that boot, including suspend where the system counts it."""

    @classmethod
    def now(cls) -> "Moment":
        """Return the current moment."""
        clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        return cls(time.time(), Process.current().boot, time.clock_gettime(clock))

    def over(self, seconds: float, now: "Moment") -> bool:
        """Return whether more than `seconds` have passed since this moment.

        Either clock suffices. The time also counts as passed after a reboot, or when a clock went
        backwards (the wall clock by more than a minute).
        """
        by_clock, by_boot = now.wall - self.wall, now.up - self.up
        return (
            self.boot != now.boot or not 0 <= by_boot <= seconds or not -60 <= by_clock <= seconds
        )


@dataclass(frozen=True, slots=True)
class ApprovalSubject:
    """A whole plan that a person is asked to approve.

    Everything in it must be equal at the next run.
    """

    argv: tuple[str, ...]
    """docker's arguments, exactly; never written to disk."""
    terms: Mapping[str, str]
    """The terms shown to the person, by name: command, folder, engine, each volume, safety mode,
    store, recipients, settings."""
    hidden: Mapping[str, str] = field(default_factory=dict)
    """Values that are not shown because they may hold secrets, by name; only their digests are
    written."""

    def digest(self, code: str) -> str:
        """Return the digest of the whole subject, salted with the code."""
        whole = json.dumps(
            [code, self.argv, sorted(self.terms.items()), sorted(self.hidden.items())]
        )
        return _digest(whole)

    def digest_hidden(self, code: str) -> dict[str, str]:
        """Return a digest of each value that is not shown, so that a change of it can be named."""
        words = {"words of the command": json.dumps(self.argv), **self.hidden}
        return {name: _digest(f"{code}\0{value}") for name, value in words.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """The file of one request: the terms shown to the person, and a digest of the whole subject."""

    code: str
    digest: str
    asked: Moment
    terms: Mapping[str, str]
    """The terms shown to the person, which must be equal at the next run."""
    sealed: Mapping[str, str]
    shown: Mapping[str, Any]
    """Facts for lists and for the prompt: `argv` (without secrets), `program`, `folder`,
    `endpoint`, `project`, `volumes`, `phrase`, `typed`, `pid`, `at`."""
    approved: Moment | None = None

    def is_expired(self, now: Moment) -> bool:
        """Return whether the request, or the approval once granted, is too old to be used."""
        return (
            self.asked.over(WAITS, now) if self.approved is None else self.approved.over(HOLDS, now)
        )

    def fits(self, asked: ApprovalSubject) -> bool:
        """Return whether this request is for exactly this subject.

        The terms are compared in addition to the digest because they are what the person was shown.
        """
        return self.digest == asked.digest(self.code) and self.terms == asked.terms

    def changes(self, asked: ApprovalSubject) -> list[str]:
        """Return one sentence for each value that differs from what the person was shown."""
        sealed = asked.digest_hidden(self.code)
        names = [
            name
            for name in (*asked.terms, *self.terms)
            if self.terms.get(name) != asked.terms.get(name)
        ]
        words = [
            _change(name, self.terms.get(name), asked.terms.get(name))
            for name in dict.fromkeys(names)
        ]
        return words + [
            f"{name} changed" for name in sealed if self.sealed.get(name) != sealed[name]
        ]


def _change(name: str, before: str | None, now: str | None) -> str:
    if before is None:
        return f"{name} is new: {_short(now or '')}"
    return (
        f"{name} is gone" if now is None else f"{name} was {_short(before)}, and is {_short(now)}"
    )


def _short(words: str) -> str:
    return f"'{words}'" if len(words) <= _LONGEST_CHANGE else f"'{words[:_LONGEST_CHANGE]}...'"


class Approvals:
    """The requests and approvals in the store at `root`."""

    def __init__(self, root: Path, *, clock: Callable[[], Moment] = Moment.now) -> None:
        """Use the store at `root`; `clock` returns the current moment."""
        self.folder = root / "journal" / "approvals"
        self._clock = clock

    def ask(self, asked: ApprovalSubject, shown: Mapping[str, Any]) -> ApprovalRequest:
        """Write a request and return it; an equal waiting one keeps its code and waits from now on.

        Raises:
            OperationFailed: The request cannot be written.
        """
        waiting = self.all()
        for known in waiting:
            if known.approved is None and known.digest == asked.digest(known.code):
                renewed = replace(known, asked=self._clock(), shown=shown)
                self._write(renewed)
                return renewed
        with reporting("write down the request for an approval"):
            make_folders(self.folder, PRIVATE)
        unapproved = [request for request in waiting if request.approved is None]
        for old in unapproved[: max(0, len(waiting) + 1 - MOST)]:
            self._remove(old.code)
        import secrets

        letters = "".join(secrets.choice(_LETTERS) for _ in range(8))
        code = f"{letters[:4]}-{letters[4:]}"
        request = ApprovalRequest(
            code, asked.digest(code), self._clock(), asked.terms, asked.digest_hidden(code), shown
        )
        self._write(request)
        return request

    def all(self) -> list[ApprovalRequest]:
        """Return the requests and approvals that have not expired, the oldest first.

        Files of expired ones are removed, and used approvals are left out.
        """
        if not self._is_ours():
            return []
        try:
            names = sorted(os.listdir(self.folder))  # noqa: PTH208 - names are all that is wanted
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return []
        found = []
        for name in names:
            request = self._read(name)
            if request is None:
                continue
            if request.is_expired(self._clock()):
                self._remove(request.code)
            elif f"{request.code}{_USED}" not in names:
                found.append(request)
        self._sweep(names)
        return sorted(found, key=lambda request: (request.asked.up, request.code))

    def find(self, code: str) -> ApprovalRequest:
        """Return the request with a code, in upper or lower case, with or without its dash.

        Raises:
            UsageError: No request waits under this code.
        """
        plain = code.upper().replace("-", "").strip()
        for request in self.all():
            if request.code.replace("-", "") == plain:
                return request
        raise UsageError(
            "no command waits for this code here: it may have expired, been used, or been asked"
            " with another store",
            next_step="safe-compose approve --list, in the folder of the refused command",
        )

    def grant(self, request: ApprovalRequest) -> ApprovalRequest:
        """Turn a request into an approval.

        The caller has asked a person.

        Raises:
            OperationFailed: The approval cannot be written.
        """
        approved = replace(request, approved=self._clock())
        self._write(approved)
        return approved

    def find_granted(self, asked: ApprovalSubject) -> str | None:
        """Return the code of an approval that fits exactly, or None.

        The approval is not used up.
        """
        return next((r.code for r in self.all() if r.approved is not None and r.fits(asked)), None)

    def list_outdated(self, asked: ApprovalSubject) -> list[tuple[str, list[str]]]:
        """Return approvals for the same command in the same folder that do not fit any more.

        Returns:
            The code of each, with the sentences of `ApprovalRequest.changes`.
        """
        same = ("command", "folder")
        return [
            (r.code, r.changes(asked))
            for r in self.all()
            if r.approved is not None
            and not r.fits(asked)
            and all(r.terms.get(n) == asked.terms.get(n) for n in same)
        ]

    def any_approved(self) -> bool:
        """Return whether there is an approval that is neither expired nor used."""
        return any(r.approved is not None for r in self.all())

    def take(self, asked: ApprovalSubject, code: str) -> bool:
        """Use an approval up.

        Returns:
            False when it has expired, does not fit, or another process used it in the meantime.

        Raises:
            OperationFailed: The file of the approval cannot be renamed.
        """
        if self.find_granted(asked) != code:
            return False
        with reporting(f"use up approval {code}"):
            try:
                self._path(code).rename(self.folder / f"{code}{_USED}")
            except FileNotFoundError:
                return False  # of two processes at once, one gets it
            sync_folder(self.folder)
        return True

    def _path(self, code: str) -> Path:
        return self.folder / f"{code}.json"

    def _is_ours(self) -> bool:
        """Return whether the folder belongs to this user and no other user can add files to it."""
        try:
            found = self.folder.lstat()
        except OSError:
            return False
        return (
            stat.S_ISDIR(found.st_mode)
            and found.st_uid == os.geteuid()
            and not found.st_mode & 0o022
        )

    def _sweep(self, names: Sequence[str]) -> None:
        """Remove the marks of used approvals that are old enough to have expired."""
        for name in names:
            if name.endswith(_USED):
                with suppress(OSError):
                    path = self.folder / name
                    if time.time() - path.lstat().st_ctime > WAITS + HOLDS:
                        path.unlink()

    def _remove(self, code: str) -> None:
        with suppress(OSError):  # an expired file that cannot be removed stays expired
            self._path(code).unlink()

    def _write(self, request: ApprovalRequest) -> None:
        with reporting("write down the request for an approval"):
            data = json.dumps({"version": _VERSION, **asdict(request)}) + "\n"
            files.replace(self._path(request.code), data.encode("ascii"), PRIVATE)

    def _read(self, name: str) -> ApprovalRequest | None:
        """Read one file; None for one that is foreign, damaged or another user's."""
        if not name.endswith(".json") or name.startswith("."):
            return None
        try:
            shape = json.loads(read_own(self.folder / name, _LARGEST))
            if shape["version"] != _VERSION:
                return None
            approved = Moment(**shape["approved"]) if shape["approved"] is not None else None
            terms, sealed = (
                {str(k): str(v) for k, v in shape[part].items()} for part in ("terms", "sealed")
            )
            code, digest = str(shape["code"]), str(shape["digest"])
            request = ApprovalRequest(
                code,
                digest,
                Moment(**shape["asked"]),
                terms,
                sealed,
                dict(shape["shown"]),
                approved,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        return request if f"{request.code}.json" == name and _CODE.fullmatch(request.code) else None
