"""Installation and removal: every change is shown first, recorded, and undone byte for byte.

Each change is recorded below `$XDG_STATE_HOME/safe-compose` before it is made, so that a crash in
between leaves nothing that `uninstall` does not know. A change that was edited since is never
removed: it is named, and stays.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from safe_compose.install import scripts
from safe_compose.install.places import InstallPlaces
from safe_compose.install.plan import read_text
from safe_compose.install.record import (
    InstallChange,
    read_record,
    remember,
    remove_empty,
    telling_faults,
)
from safe_compose.system import files
from safe_compose.system.files import Access


def apply(changes: Sequence[InstallChange], places: InstallPlaces) -> None:
    """Make the changes.

    Raises:
        Refused: A file cannot be written; earlier changes stay recorded.
    """
    for change in changes:
        known = read_record(places)
        before = next((k for k in known if k.key == change.key), None)
        # Both the old and the new one until it is done: whichever a crash leaves in the file is
        # known.
        remember([*known, change], places)
        with telling_faults(change.path):
            _write(change, before)
        remember([*(k for k in known if k is not before), change], places)


def _write(change: InstallChange, before: InstallChange | None) -> None:
    path = Path(change.path)
    for folder in change.folders:
        if not Path(folder).is_dir():
            files.make_folder(Path(folder), Access(folders=0o755))
    match change.how:
        case "aside":
            if not os.path.lexists(change.text):  # otherwise it was renamed before
                path.rename(change.text)
        case "link":
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.symlink_to(change.text)
            draft.rename(path)
        case "file":
            files.replace(path, change.content, Access(files=change.mode))
        case _:
            text = read_text(path) if path.exists() else ""
            if before is not None and before.text in text:
                text = text.replace(before.text, _join(change.text, before.text), 1)
            else:
                text = change.text + text if change.how == "head" else text + change.text
            _write_over(path, text)


def _join(new: str, old: str) -> str:
    """Return a new block with the leading line break that the old block needed."""
    return "\n" + new if old.startswith("\n") and not new.startswith("\n") else new


def uninstall(places: InstallPlaces) -> tuple[list[str], list[str]]:
    """Undo all recorded changes; return two lists of sentences.

    Returns:
        The changes that were undone, and those that were left because they had been edited.

    Raises:
        Refused: The record is unreadable, or a file cannot be changed.
    """
    done: list[str] = []
    left: list[str] = []
    remaining: list[InstallChange] = []
    for change in reversed(read_record(places)):
        with telling_faults(change.path):
            outcome, gone = _take_away(change)
        (done if gone else left).append(f"{change.path}: {outcome}")
        if not gone:
            remaining.insert(0, change)
    remember(remaining, places)
    return done, left


def _take_away(change: InstallChange) -> tuple[str, bool]:
    path = Path(change.path)
    match change.how:
        case "aside":
            if not os.path.lexists(change.text):
                return "nothing to put back", True
            if os.path.lexists(path):
                return (
                    f"another one is there now; the one from before is still {change.text}",
                    False,
                )
            Path(change.text).rename(path)
            return "put back", True
        case "link":
            if path.is_symlink() and str(path.readlink()) != change.text:
                return "leads somewhere else now, left", False
            if not path.is_symlink() and os.path.lexists(path):
                return "is no link any more, left", False
            outcome = _unlink(path, there=path.is_symlink())
        case "file":
            if path.is_file() and path.read_bytes() != change.content:
                return "was edited since, left", False
            outcome = _unlink(path, there=path.is_file())
        case _:
            outcome, gone = _take_block(change, path)
            if not gone:
                return outcome, gone
    if not os.path.lexists(path):
        remove_empty(change.folders)
    return outcome, True


def _unlink(path: Path, *, there: bool) -> str:
    if not there:
        return "already gone"
    path.unlink()
    return "removed"


def _take_block(change: InstallChange, path: Path) -> tuple[str, bool]:
    text = read_text(path) if path.exists() else ""
    at = text.find(change.text)
    if at < 0:
        if change.name and scripts.OPEN.format(change.name) in text:
            return (
                f"the lines after `{scripts.OPEN.format(change.name)}` were edited since, left",
                False,
            )
        return "already gone", True
    rest = text[at + len(change.text) :]
    # lines were added after ours: they stay lines of their own
    joint = "\n" if rest and change.text.startswith("\n") else ""
    text = text[:at] + joint + rest
    if not text and change.created:
        path.unlink()
    else:
        _write_over(path, text)
    return "our lines removed", True


def _write_over(path: Path, text: str) -> None:
    """Replace a file in one step, behind a symbolic link, with its mode and owner."""
    real = path.resolve()
    access = Access(files=0o644)
    if real.exists():
        now = real.stat()
        access = Access(files=stat.S_IMODE(now.st_mode), owner=(now.st_uid, now.st_gid))
    files.replace(real, text.encode("utf-8", "surrogateescape"), access)
