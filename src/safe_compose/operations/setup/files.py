"""The files of a project that setup writes, each as a whole."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safe_compose.errors import Refused, StateChanged
from safe_compose.system import project_files
from safe_compose.system.files import Access, reporting, sync_folder, write


@dataclass(frozen=True, slots=True)
class SetupFile:
    """A file with its proposed text."""

    path: Path
    before: str | None
    """Its current text; None when the file does not exist."""
    after: str

    def diff(self) -> str:
        """Return the change as a unified diff."""
        old = [] if self.before is None else self.before.splitlines(keepends=True)
        name = str(self.path)
        lines = difflib.unified_diff(
            old,
            self.after.splitlines(keepends=True),
            "/dev/null" if self.before is None else name,
            name,
        )
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def read_text(path: Path) -> str | None:
    """Return the text of a file; None when there is no file.

    Raises:
        Refused: It is not a readable text file.
    """
    if not os.path.lexists(path):
        return None
    found = project_files.read(str(path))
    if found is None:
        raise Refused(
            f"{path} is there, but it is no text file that can be read; nothing was written"
        )
    return found


def refuse_unless_possible(files: Sequence[SetupFile]) -> None:
    """Check that all files can be written, before the first one is.

    Raises:
        Refused: One of them cannot be written.
    """
    for file in files:
        if file.before is not None:
            _change(file).refuse_unless_possible()
        elif not os.access(_find_nearest(file.path.parent), os.W_OK | os.X_OK):
            raise Refused(
                f"{file.path} cannot be written; nothing was written",
                next_step="run setup as the folder's owner",
            )


def apply(files: Sequence[SetupFile]) -> None:
    """Write the files, each as a whole.

    Raises:
        StateChanged: A file was changed or created meanwhile.
        OperationFailed: A file cannot be written.
    """
    for file in files:
        if file.before is not None:
            _change(file).apply()
            continue
        above = _find_nearest(file.path.parent).stat()
        owner = (above.st_uid, above.st_gid) if os.geteuid() == 0 else None
        try:
            with reporting(f"write {file.path}"):
                file.path.parent.mkdir(parents=True, exist_ok=True)
                write(
                    file.path,
                    file.after.encode("utf-8", "surrogateescape"),
                    Access(files=0o644, owner=owner),
                )
                sync_folder(file.path.parent)
        except Exception as fault:
            if isinstance(fault.__cause__, FileExistsError):
                raise StateChanged(
                    f"{file.path} was made by somebody else meanwhile; it was left as it is"
                ) from fault
            raise


def _change(file: SetupFile) -> project_files.FileChange:
    return project_files.FileChange.of(str(file.path), file.before or "", file.after)


def _find_nearest(folder: Path) -> Path:
    return next(p for p in (folder, *folder.parents) if p.is_dir())
