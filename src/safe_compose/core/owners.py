"""The owners of a data directory as a backup records them, and the commands that restore them."""

import json
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from safe_compose.core.backup import Artifact

FOLDERS, FILES = "folders", "files"
"""Keys of an artifact's `detail`: `[[uid, gid, mode], ...]` of the folders from the volume's root
down to the data directory, as JSON, and `uid gid mode` of one of the files in there."""
_FILES = re.compile(r"(\d{1,10}) (\d{1,10}) ([0-7]{1,5})", re.ASCII)
_GROUP_READS = 0o050


class Owner(NamedTuple):
    """The numeric user and group, and the permission bits."""

    uid: int
    gid: int
    mode: int


def parse_owner(words: str) -> Owner:
    """Return the owner from `uid gid mode` as `stat` prints it.

    Raises:
        ValueError: The text has another form; the program may come from any image.
    """
    if (found := _FILES.fullmatch(words)) is None:
        raise ValueError(words)
    return Owner(int(found[1]), int(found[2]), int(found[3], 8))


class Owners(NamedTuple):
    """The recorded owners of one data directory."""

    folders: tuple[Owner, ...]
    """Those of the volume's root first, of the data directory last."""
    files: Owner

    @classmethod
    def of(cls, artifacts: Iterable[Artifact]) -> "Owners | None":
        """Return the owners recorded with one volume's dump, or None.

        Backups of earlier releases have none, nor those where they could not be determined.
        """
        for artifact in artifacts:
            words, of_folders = (
                _FILES.fullmatch(artifact.detail.get(FILES, "")),
                artifact.detail.get(FOLDERS),
            )
            folders = tuple(Owner(*map(int, folder)) for folder in json.loads(of_folders or "[]"))
            if words is not None and folders:
                return cls(folders, Owner(int(words[1]), int(words[2]), int(words[3], 8)))
        return None

    def at(self, inside: str) -> list[tuple[str, Owner]]:
        """Return each folder from the volume's root (`.`) to the data directory, with its owner.

        Where the data directory `inside` lies deeper than it did (an image of a newer major
        version), the additional folders get the data directory's owner.
        """
        ways = list_folders_to(inside)
        known = list(self.folders[: len(ways)])
        known += [self.folders[-1]] * (len(ways) - len(known))
        known[-1] = self.folders[-1]
        return list(zip(ways, known, strict=True))


def list_folders_to(inside: str) -> list[str]:
    """Return the folders from a volume's root down to one within it: `a/b` -> `.`, `a`, `a/b`."""
    path = PurePosixPath(inside)
    return [str(way) for way in (*reversed(path.parents), path)] if path.parts else ["."]


def make_file_commands(owners: Owners, directory: str) -> list[tuple[str, ...]]:
    """Return the commands that give a mounted data directory and its content to its owner.

    PostgreSQL derives from the data directory's mode whether its group may read (`initdb
    --allow-group-access`), and gives new files the same mode; existing files must follow.
    """
    found: list[tuple[str, ...]] = [
        ("chown", "-R", "-h", f"{owners.files.uid}:{owners.files.gid}", directory)
    ]
    if owners.folders[-1].mode & _GROUP_READS == _GROUP_READS:
        found.append(("chmod", "-R", "g+rX", directory))
    return found


def make_folder_commands(owners: Owners, mount: str, inside: str) -> list[tuple[str, ...]]:
    """Return the commands that then set owner and mode of each folder to the data directory.

    They start at the volume's root.

    The volume's root is mounted at `mount`.
    """
    found: list[tuple[str, ...]] = []
    for path, owner in owners.at(inside):
        place = str(PurePosixPath(mount, path))
        found += [("chown", f"{owner.uid}:{owner.gid}", place), ("chmod", f"{owner.mode:o}", place)]
    return found
