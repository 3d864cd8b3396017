"""The changes that were made, and the record of them.

Each is recorded before it is made, so that a crash leaves nothing unknown.
"""

import base64
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from safe_compose.errors import Refused
from safe_compose.install.places import InstallPlaces
from safe_compose.system import files, trusted_file


@dataclass(frozen=True, slots=True)
class InstallChange:
    """A change of an installation."""

    way: str
    """The member of KINDS that it belongs to."""
    how: str
    """`file`: one of our own files. `head`, `tail`: a block of lines in a file of the user. `link`:
    a symbolic link. `aside`: a file that is renamed."""
    path: str
    text: str
    """The file, the lines, the link's target, or the new path."""
    name: str = ""
    """The name of a block, in its first and last line."""
    mode: int = 0o644
    created: bool = False
    """Whether the file did not exist before."""
    folders: tuple[str, ...] = ()
    """Folders that did not exist before, outermost first."""
    packed: bool = False
    """Whether the file is a native program, and `text` the base64 of its zlib-compressed bytes."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what two changes have in common when one takes the place of the other."""
        return self.path, "file" if self.how == "link" else self.how, self.name

    @property
    def content(self) -> bytes:
        """Return the content of a whole file.

        Raises:
            ValueError: A packed file is unreadable.
            zlib.error: A packed file is unreadable.
        """
        if self.packed:
            return zlib.decompress(base64.b64decode(self.text, validate=True))
        return self.text.encode("utf-8", "surrogateescape")

    @property
    def shown(self) -> str:
        """Return the change as it is shown to a person."""
        return (
            f"(a native program of {len(self.content)} bytes: safe-compose itself)"
            if self.packed
            else self.text
        )


def read_record(places: InstallPlaces) -> list[InstallChange]:
    """Return the recorded changes, the oldest first.

    Raises:
        Refused: The record is unreadable, or others could have changed it.
    """
    if not os.path.lexists(places.record):
        return []
    if (why := trusted_file.explain_unsafe(places.record)) is not None:
        raise Refused(
            f"the record of what safe-compose wrote is not trusted, since {why}; nothing was"
            " changed",
            next_step=(
                "correct its owner and mode, or remove the lines marked `safe-compose` by hand"
            ),
        )
    try:
        body = json.loads(files.read_regular(places.record))
        changes = [
            InstallChange(**{**entry, "folders": tuple(entry["folders"])})
            for entry in body["changes"]
        ]
        for change in changes:
            _ = change.content
        return changes
    except (OSError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise Refused(
            f"the record of what safe-compose wrote does not read ({places.record}); nothing was"
            " changed",
            next_step="remove the lines marked `safe-compose` by hand, then that file",
        ) from error


def remember(changes: Sequence[InstallChange], places: InstallPlaces) -> None:
    """Replace the record; remove it when there are no changes.

    Raises:
        Refused: It cannot be written.
    """
    record = places.record
    with telling_faults(str(record)):
        folders = json.loads(record.read_bytes())["folders"] if record.exists() else None
        if not changes:
            record.unlink(missing_ok=True)
            remove_empty(folders or ())
            return
        if folders is None:
            folders = [str(p) for p in reversed(record.parents) if not p.exists()]
            files.make_folders(record.parent)
        body = {"version": 1, "folders": folders, "changes": [asdict(change) for change in changes]}
        files.replace(record, json.dumps(body, indent=1).encode())


def remove_empty(folders: Sequence[str]) -> None:
    """Remove those of the folders that are empty, the innermost first."""
    for folder in map(Path, reversed(folders)):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def telling_faults(path: str) -> Iterator[None]:
    """Turn a file error inside the block into Refused."""
    try:
        yield
    except OSError as error:
        raise Refused(
            f"cannot change {path}: {files.explain_error(error)}; the changes before this one are"
            " done",
            next_step=(
                "correct that and run this again, or take it all back: safe-compose shell"
                " --uninstall"
            ),
        ) from error
