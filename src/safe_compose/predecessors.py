"""Where did my data go: volumes that look like what a project's own once were, before a folder, a name or a key changed.

Compose takes a volume by its name, PROJECT_KEY. After `mv shop store`, another `name:`, another key or another mount path it makes
an empty one beside the old one, without a word; the old one then belongs to nobody and dies in the next prune.
"""

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from safe_compose.observed import SERVICE_LABEL, VOLUME_LABEL, WORKING_DIR_LABEL, DeclaredVolume, Observed, Volume

ALIKE = 0.6
"""How much two projects' names have in common that are taken for one renamed."""


class Suspect(NamedTuple):
    """A volume that may hold what a declared one should."""

    volume: str
    of: str
    """The real name of the declared one."""
    why: str
    sure: bool
    """Something else than likeness speaks for it."""


def suspects(observed: Observed, exists: Callable[[str], bool]) -> list[Suspect]:
    """Volumes that no living project uses and that look like this project's. `exists` tells whether a folder of this machine is
    there."""
    project = observed.project
    if project is None or project.mode != "config":
        return []
    mine = {d.name for d in project.volumes}
    found = []
    for volume in observed.volumes:
        if volume.name in mine or volume.anonymous or any(u.lively for u in observed.users(volume.name)):
            continue
        key = volume.labels.get(VOLUME_LABEL, "")
        if volume.project == project.name:
            found += _renamed_key(volume, key, project.volumes, observed)
        elif volume.project and (declared := next((d for d in project.volumes if d.key == key and not d.external), None)):
            found += _renamed_project(volume, declared, observed, exists)
    return found


def _renamed_key(volume: Volume, key: str, declared: Sequence[DeclaredVolume], observed: Observed) -> list[Suspect]:
    """A volume of this project whose key the file does not declare any more, for the likeliest of its volumes that is newer."""
    newer = [d for d in declared if not d.external and _made_later(observed.volume(d.name), volume)]
    likeliest = sorted(newer, key=lambda d: -SequenceMatcher(None, key, d.key).ratio())[:1]
    why = f"made by this project for the key {key or '?'}, which its file does not declare any more"
    return [Suspect(volume.name, d.name, why, False) for d in likeliest]


def _renamed_project(
    volume: Volume, declared: DeclaredVolume, observed: Observed, exists: Callable[[str], bool]
) -> list[Suspect]:
    """A volume of the same key that was made for another project, unless that project lives on."""
    project, other = observed.project, volume.project
    assert project is not None and other is not None
    if not _made_later(observed.volume(declared.name), volume):
        return []
    folders = {c.labels.get(WORKING_DIR_LABEL, "") for c in observed.containers if c.project == other and SERVICE_LABEL in c.labels}
    keys = {v.labels.get(VOLUME_LABEL) for v in observed.volumes if v.project == other}
    if project.working_dir in folders:
        return [Suspect(volume.name, declared.name, f"made for project {other}, which was this same folder", True)]
    if folders:
        gone = sorted(folder for folder in folders if folder and not exists(folder))
        if len(gone) != len(folders):
            return []  # that project lives elsewhere
        return [Suspect(volume.name, declared.name, f"made for project {other} in {gone[0]}, a folder that is gone", True)]
    alike = SequenceMatcher(None, other, project.name).ratio() >= ALIKE
    same = len(keys) > 1 and keys <= {d.key for d in project.volumes}
    why = f"made for project {other}, which has no container and {'a similar name' if alike else 'the same volumes'}"
    return [Suspect(volume.name, declared.name, why, False)] if alike or same else []


def _made_later(now: Volume | None, before: Volume) -> bool:
    """Whether the declared volume is not there, or was made after the other one. Up to engine 20.10 `CreatedAt` is the time of
    the last change in the root folder, which only moves it closer to now."""
    return now is None or not now.created_at or now.created_at >= before.created_at
