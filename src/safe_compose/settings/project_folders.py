"""The folder in which each project of an engine was first seen, recorded in the user's own store.

A volume's label names a project but no folder, and any repository may set `name: shop`. So settings
of a folder's files that lower a tier or redirect data count only while no other folder is known as
that project's, or once a person has approved it.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from safe_compose.settings.foreign_settings import ForeignSetting
from safe_compose.system import files
from safe_compose.system.files import Access, acting_as_owner, make_folders, read_regular

_VERSION = 1
_LARGEST = 1 << 16
"""Largest size of one record in bytes."""


class KnownFolder(NamedTuple):
    """A project as it was first seen."""

    engine_id: str
    project: str
    folder: str
    """The path without symbolic links."""

    def make_setting(self, folder: str) -> ForeignSetting:
        """Return what a person must approve for the project to be another folder's as well."""
        shown = (
            f"project {self.project}, first seen in {self.folder}, is this folder's too: what its"
            " files lower and redirect counts"
        )
        return ForeignSetting(folder, "project", shown, tuple(self))


class ProjectFolders:
    """The records in the user's own store.

    An unreadable or unwritable record counts as missing.
    """

    def __init__(self, store: Path, access: Access) -> None:
        """Use the records in a store."""
        self._folder = store / "journal" / "projects"
        self._access = access

    def of(self, engine_id: str, project: str) -> str | None:
        """Return the folder of a project, or None where it is unknown."""
        with acting_as_owner(self._access):
            found = _read(self._path(engine_id, project))
        return (
            found.folder
            if found is not None and (found.engine_id, found.project) == (engine_id, project)
            else None
        )

    def all(self, project: str) -> Iterator[KnownFolder]:
        """Yield the records of the projects of that name, on every engine."""
        with acting_as_owner(self._access):
            names = sorted(self._folder.glob("*.json"))
            found = [seen for path in names if (seen := _read(path)) is not None]
        yield from (seen for seen in found if seen.project == project)

    def note(self, engine_id: str, project: str, folder: str) -> None:
        """Record the folder of a project, unless one is recorded."""
        if self.of(engine_id, project) is not None:
            return
        shape = {"version": _VERSION, **KnownFolder(engine_id, project, folder)._asdict()}
        # A command does not depend on this: a folder that cannot be recorded stays unknown.
        with suppress(OSError), acting_as_owner(self._access):
            make_folders(self._folder, self._access)
            files.replace(
                self._path(engine_id, project),
                (json.dumps(shape) + "\n").encode("ascii"),
                self._access,
            )

    def forget(self, engine_id: str, project: str) -> None:
        """Delete the record of a project whose last volume is deleted."""
        with suppress(OSError), acting_as_owner(self._access):  # as in `note`
            self._path(engine_id, project).unlink()

    def _path(self, engine_id: str, project: str) -> Path:
        digest = sha256(json.dumps([engine_id, project]).encode("ascii")).hexdigest()
        return self._folder / f"{digest}.json"


def _read(path: Path) -> KnownFolder | None:
    try:
        shape = json.loads(read_regular(path, _LARGEST))
        # it is a string until it is checked
        if shape["version"] != _VERSION or not os.path.isabs(shape["folder"]):  # noqa: PTH117
            return None
        return KnownFolder(str(shape["engine_id"]), str(shape["project"]), str(shape["folder"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
