"""The project's own files, changed in place and rolled back.

They are never half written, and keep owner, mode and attributes. During a change the originals are
in the store (0600), so that a killed run can be undone.
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

from safe_compose.errors import OperationFailed, Refused, StateChanged
from safe_compose.system import files
from safe_compose.system.files import Access, reporting

LARGEST = 1 << 20
"""Bytes; a larger file is no settings file."""


def read(path: str) -> str | None:
    """Return the text of a regular file, through symbolic links; bytes that are no UTF-8 survive.

    Returns:
        None for anything else: no file, a folder, a large file, one that holds NUL, or one that may
        not be read.
    """
    try:
        real = os.path.realpath(path)
        kind = Path(real).stat()
        if not stat.S_ISREG(kind.st_mode) or kind.st_size > LARGEST:
            return None
        data = files.read_regular(real)
    except OSError:
        return None
    return None if b"\0" in data else data.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file, before and after a change."""

    path: str
    """The path without symbolic links."""
    before: bytes = field(repr=False)
    after: bytes = field(repr=False)

    @classmethod
    def of(cls, path: str, before: str, after: str) -> "FileChange":
        """Return the change of a file from one text to another."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in (before, after)]
        return cls(os.path.realpath(path), *encoded)

    def refuse_unless_possible(self) -> None:
        """Require that the file can be replaced with all its attributes.

        Call it before anything is changed.

        Raises:
            Refused: It cannot.
        """
        try:
            found = os.lstat(self.path)
        except OSError as error:
            raise Refused(
                f"{self.path}: {files.explain_error(error)}; nothing was changed"
            ) from error
        folder = str(Path(self.path).parent)
        step = "make it writable, or run this as the user that owns it"
        if not os.access(folder, os.W_OK | os.X_OK) or not os.access(self.path, os.W_OK):
            raise Refused(f"{self.path} cannot be written; nothing was changed", next_step=step)
        if os.geteuid() != 0 and (
            found.st_uid != os.geteuid() or found.st_gid not in (os.getegid(), *os.getgroups())
        ):
            raise Refused(
                f"{self.path} belongs to somebody else, and would not afterwards; nothing was"
                " changed",
                next_step=step,
            )
        if found.st_nlink > 1:
            raise Refused(
                f"{self.path} has another name (a hard link) that would keep the old content;"
                " nothing was changed"
            )
        if os.path.ismount(self.path):
            raise Refused(
                f"{self.path} is mounted by itself and cannot be replaced; nothing was changed"
            )

    def state(self) -> str:
        """Return `before`, `after`, or `other` for content of another author."""
        try:
            now = files.read_regular(self.path)
        except OSError:
            return "other"
        return "before" if now == self.before else "after" if now == self.after else "other"

    def apply(self) -> None:
        """Write the new content.

        Raises:
            StateChanged: The file is not as it was inspected.
            OperationFailed: It cannot be written.
        """
        self._swap("before", self.after)

    def take_back(self) -> None:
        """Write the old content.

        Raises:
            StateChanged: The file has been changed by others since.
            OperationFailed: It cannot be written.
        """
        with reporting(f"put {self.path} back"):
            _draft_of(Path(self.path)).unlink(missing_ok=True)  # it holds the new password
        if self.state() != "before":
            self._swap("after", self.before)

    def _swap(self, wanted: str, data: bytes) -> None:
        if self.state() != wanted:
            raise StateChanged(
                f"{self.path} was changed by somebody else meanwhile; it was left as it is"
            )
        try:
            _replace(Path(self.path), data)
        except OSError as error:
            step = "correct that, then run the same command again"
            raise OperationFailed(
                f"cannot write {self.path}: {files.explain_error(error)}", next_step=step
            ) from error

    def shape(self) -> dict[str, str]:
        """Return the change in the form that is stored as JSON."""
        return {
            "path": self.path,
            "before": base64.b64encode(self.before).decode("ascii"),
            "after": base64.b64encode(self.after).decode("ascii"),
        }

    @classmethod
    def from_shape(cls, shape: Mapping[str, str]) -> "FileChange":
        """Return the change from its stored form."""
        return cls(
            shape["path"], base64.b64decode(shape["before"]), base64.b64decode(shape["after"])
        )


def _draft_of(path: Path) -> Path:
    """Return the path that new content is first written to.

    The name is always the same, so that a killed run's draft is found.
    """
    return path.with_name(f".{path.name}.safe-compose.new")


def _replace(path: Path, data: bytes) -> None:
    """Replace a file in one step, and keep its owner, mode and extended attributes.

    A reader, or a power cut, finds the old or the new content.

    Raises:
        OSError: It cannot be written.
    """
    found = path.lstat()
    draft = _draft_of(path)
    try:
        draft.unlink(missing_ok=True)  # left by a run that was killed here
        files.write(
            draft,
            data,
            Access(files=stat.S_IMODE(found.st_mode), owner=(found.st_uid, found.st_gid)),
        )
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
        with suppress(OSError):  # report the first error
            draft.unlink()
        raise
    files.sync_folder(path.parent)


class Originals:
    """The data that a run needs to restore all files.

    It is written before the first change and removed at the end.
    """

    def __init__(self, root: Path, run_id: str) -> None:
        """Use the file of a run in the store at `root`."""
        self.path = root / ".rotations" / f"{run_id}.json"

    def keep(self, changes: Sequence[FileChange], **facts: Any) -> None:
        """Write the changes, with further facts.

        Raises:
            OperationFailed: They cannot be written.
        """
        with reporting("keep what is about to change"):
            files.make_folders(self.path.parent)
            shape = {"version": 1, "changes": [change.shape() for change in changes], **facts}
            files.write(self.path, json.dumps(shape).encode("ascii"))
            files.sync_folder(self.path.parent)

    def load(self) -> tuple[list[FileChange], dict[str, Any]] | None:
        """Return the changes and facts, or None when there are none.

        Raises:
            OperationFailed: They are unreadable.
        """
        if not self.path.exists():
            return None
        try:
            shape = json.loads(files.read_regular(self.path))
            return [FileChange.from_shape(one) for one in shape["changes"]], shape
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OperationFailed(
                f"{self.path} does not read: put the files back by hand"
            ) from error

    def drop(self) -> None:
        """Remove the file.

        Raises:
            OperationFailed: It cannot be removed.
        """
        with reporting("remove what was kept for the way back"), suppress(FileNotFoundError):
            self.path.unlink()
            files.sync_folder(self.path.parent)
