"""The project's own files, changed in place and put back: never half written, with the owner, mode and attributes they had.

While a change is under way its originals lie in the store (0600), so that a run that was killed can be undone.
"""

import base64
import errno
import json
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safe_compose import durable
from safe_compose.durable import Access, told
from safe_compose.errors import BackupFailed, LookAgain, Refused

LARGEST = 1 << 20
"""Bytes of a file that is looked at: what is larger is no settings."""


def read(path: str) -> str | None:
    """The text of a regular file, through symbolic links; bytes that are no UTF-8 survive. None for anything else: no file, a
    folder, one that is large or holds NUL, or may not be read."""
    try:
        real = os.path.realpath(path)
        kind = Path(real).stat()
        if not stat.S_ISREG(kind.st_mode) or kind.st_size > LARGEST:
            return None
        data = durable.read_regular(real)
    except OSError:
        return None
    return None if b"\0" in data else data.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Change:
    """One file, before and after."""

    path: str
    """Without symbolic links."""
    before: bytes = field(repr=False)
    after: bytes = field(repr=False)

    @classmethod
    def of(cls, path: str, before: str, after: str) -> "Change":
        encoded = [text.encode("utf-8", "surrogateescape") for text in (before, after)]
        return cls(os.path.realpath(path), *encoded)

    def refuse_unless_possible(self) -> None:
        """Raises Refused when the file could not be replaced with all that belongs to it, before anything is touched."""
        try:
            found = os.lstat(self.path)
        except OSError as error:
            raise Refused(f"{self.path}: {durable.cause(error)}; nothing was changed") from error
        folder = str(Path(self.path).parent)
        step = "make it writable, or run this as the user that owns it"
        if not os.access(folder, os.W_OK | os.X_OK) or not os.access(self.path, os.W_OK):
            raise Refused(f"{self.path} cannot be written; nothing was changed", next_step=step)
        if os.geteuid() != 0 and (found.st_uid != os.geteuid() or found.st_gid not in (os.getegid(), *os.getgroups())):
            raise Refused(f"{self.path} belongs to somebody else, and would not afterwards; nothing was changed", next_step=step)
        if found.st_nlink > 1:
            raise Refused(f"{self.path} has another name (a hard link) that would keep the old content; nothing was changed")
        if os.path.ismount(self.path):
            raise Refused(f"{self.path} is mounted by itself and cannot be replaced; nothing was changed")

    def state(self) -> str:
        """`before`, `after`, or `other` for what somebody else made of it."""
        try:
            now = durable.read_regular(self.path)
        except OSError:
            return "other"
        return "before" if now == self.before else "after" if now == self.after else "other"

    def apply(self) -> None:
        """Write the new content. Raises LookAgain when the file is not what was looked at, BackupFailed."""
        self._swap("before", self.after)

    def take_back(self) -> None:
        """Write the old content. Raises LookAgain when somebody else has changed the file since, BackupFailed."""
        with told(f"put {self.path} back"):
            _draft_of(Path(self.path)).unlink(missing_ok=True)  # it holds the new password
        if self.state() != "before":
            self._swap("after", self.before)

    def _swap(self, wanted: str, data: bytes) -> None:
        if self.state() != wanted:
            raise LookAgain(f"{self.path} was changed by somebody else meanwhile; it was left as it is")
        try:
            _replace(Path(self.path), data)
        except OSError as error:
            step = "correct that, then run the same command again"
            raise BackupFailed(f"cannot write {self.path}: {durable.cause(error)}", next_step=step) from error

    def shape(self) -> dict[str, str]:
        return {
            "path": self.path,
            "before": base64.b64encode(self.before).decode("ascii"),
            "after": base64.b64encode(self.after).decode("ascii"),
        }

    @classmethod
    def from_shape(cls, shape: Mapping[str, str]) -> "Change":
        return cls(shape["path"], base64.b64decode(shape["before"]), base64.b64decode(shape["after"]))


def _draft_of(path: Path) -> Path:
    """Where new content is written first. The name is always the same, so that what a killed run left is found."""
    return path.with_name(f".{path.name}.safe-compose.new")


def _replace(path: Path, data: bytes) -> None:
    """One step: a reader, or a power cut, finds the old or the new, and with it owner, mode and extended attributes."""
    found = path.lstat()
    draft = _draft_of(path)
    try:
        draft.unlink(missing_ok=True)  # of a run that was killed here
        durable.write(draft, data, Access(files=stat.S_IMODE(found.st_mode), owner=(found.st_uid, found.st_gid)))
        if os.geteuid() != 0 and draft.lstat().st_gid != found.st_gid:
            os.chown(draft, -1, found.st_gid)
            draft.chmod(stat.S_IMODE(found.st_mode))
        for name in os.listxattr(path, follow_symlinks=False) if hasattr(os, "listxattr") else ():
            try:
                os.setxattr(draft, name, os.getxattr(path, name), follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EACCES):
                    raise
        draft.rename(path)
    except BaseException:
        with suppress(OSError):  # the first fault is the one to tell
            draft.unlink()
        raise
    durable.sync_folder(path.parent)


class Originals:
    """What a run needs to put everything back, on the disk before the first change, and gone when it has ended."""

    def __init__(self, root: Path, run_id: str) -> None:
        self.path = root / ".rotations" / f"{run_id}.json"

    def keep(self, changes: Sequence[Change], **facts: Any) -> None:
        """Raises BackupFailed."""
        with told("keep what is about to change"):
            durable.make_folders(self.path.parent)
            shape = {"version": 1, "changes": [change.shape() for change in changes], **facts}
            durable.write(self.path, json.dumps(shape).encode("ascii"))
            durable.sync_folder(self.path.parent)

    def load(self) -> tuple[list[Change], dict[str, Any]] | None:
        """The changes and facts, or None when there are none. Raises BackupFailed."""
        if not self.path.exists():
            return None
        try:
            shape = json.loads(durable.read_regular(self.path))
            return [Change.from_shape(one) for one in shape["changes"]], shape
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackupFailed(f"{self.path} does not read: put the files back by hand") from error

    def drop(self) -> None:
        """Raises BackupFailed."""
        with told("remove what was kept for the way back"), suppress(FileNotFoundError):
            self.path.unlink()
            durable.sync_folder(self.path.parent)
