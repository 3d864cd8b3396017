"""Volumes that may hold a project's earlier data, from before a folder, a name or a key changed.

Compose finds a volume by its name, PROJECT_KEY. After `mv shop store`, another `name:`, another key
or another mount path it silently creates an empty one next to the old one; the old one then has no
user and is deleted by the next prune.
"""

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from safe_compose.core.observed import (
    SERVICE_LABEL,
    VOLUME_LABEL,
    WORKING_DIR_LABEL,
    DeclaredVolume,
    Observed,
    Volume,
)

ALIKE = 0.6
"""Similarity of two project names that count as one renamed."""


class Suspect(NamedTuple):
    """A volume that may hold the data of a declared one."""

    volume: str
    of: str
    """The real name of the declared volume."""
    why: str
    sure: bool
    """Whether there is other evidence than similarity."""


def find_suspects(observed: Observed, exists: Callable[[str], bool]) -> list[Suspect]:
    """Return volumes that no running container uses and that look like this project's.

    `exists` tells whether a folder exists on this machine.
    """
    project = observed.project
    if project is None or project.mode != "config":
        return []
    mine = {d.name for d in project.volumes}
    found = []
    for volume in observed.volumes:
        if (
            volume.name in mine
            or volume.anonymous
            or any(u.lively for u in observed.users(volume.name))
        ):
            continue
        key = volume.labels.get(VOLUME_LABEL, "")
        if volume.project == project.name:
            found += _suspect_renamed_key(volume, key, project.volumes, observed)
        elif volume.project and (
            declared := next((d for d in project.volumes if d.key == key and not d.external), None)
        ):
            found += _suspect_renamed_project(volume, declared, observed, exists)
    return found


def _suspect_renamed_key(
    volume: Volume, key: str, declared: Sequence[DeclaredVolume], observed: Observed
) -> list[Suspect]:
    """Return the suspicion that a volume of this project had another key.

    The file does not declare the volume's key any more; the declared volume with the most similar
    key that is newer is its likely successor.
    """
    newer = [d for d in declared if not d.external and _is_newer(observed.volume(d.name), volume)]
    likeliest = sorted(newer, key=lambda d: -SequenceMatcher(None, key, d.key).ratio())[:1]
    why = f"made by this project for the key {key or '?'}, which its file does not declare any more"
    return [Suspect(volume.name, d.name, why, False) for d in likeliest]


def _suspect_renamed_project(
    volume: Volume, declared: DeclaredVolume, observed: Observed, exists: Callable[[str], bool]
) -> list[Suspect]:
    """Return the suspicion that a volume of another project with the same key is meant.

    There is none if that project still exists.
    """
    project, other = observed.project, volume.project
    assert project is not None and other is not None
    if not _is_newer(observed.volume(declared.name), volume):
        return []
    folders = {
        c.labels.get(WORKING_DIR_LABEL, "")
        for c in observed.containers
        if c.project == other and SERVICE_LABEL in c.labels
    }
    keys = {v.labels.get(VOLUME_LABEL) for v in observed.volumes if v.project == other}
    if project.working_dir in folders:
        return [
            Suspect(
                volume.name,
                declared.name,
                f"made for project {other}, which was this same folder",
                True,
            )
        ]
    if folders:
        gone = sorted(folder for folder in folders if folder and not exists(folder))
        if len(gone) != len(folders):
            return []  # that project exists elsewhere
        return [
            Suspect(
                volume.name,
                declared.name,
                f"made for project {other} in {gone[0]}, a folder that is gone",
                True,
            )
        ]
    alike = SequenceMatcher(None, other, project.name).ratio() >= ALIKE
    same = len(keys) > 1 and keys <= {d.key for d in project.volumes}
    why = (
        f"made for project {other}, which has no container and"
        f" {'a similar name' if alike else 'the same volumes'}"
    )
    return [Suspect(volume.name, declared.name, why, False)] if alike or same else []


def _is_newer(now: Volume | None, before: Volume) -> bool:
    """Return whether the declared volume does not exist, or was created after the other one.

    Up to engine 20.10 `CreatedAt` is the time of the last change in the root folder, which only
    moves it closer to now.
    """
    return now is None or not now.created_at or now.created_at >= before.created_at
