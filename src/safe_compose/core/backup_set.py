"""The volumes that a backup of a project takes, and those that it leaves out.

This module is pure.

The set is all that the project's services mount, not what a deletion would take: a deletion spares
external volumes, locked ones and those of containers that it leaves alone, but a backup needs them
all the same.
"""

from dataclasses import replace
from typing import NamedTuple

from safe_compose.core.backup import Omission, VolumeRecord
from safe_compose.core.observed import (
    HELPER_LABEL,
    SCRATCH_LABEL,
    TRASH_LABEL,
    Location,
    Observed,
    Project,
    Volume,
    describe_location,
    kind_of_location,
)
from safe_compose.core.policy import Verdict
from safe_compose.core.redaction import hide_secrets
from safe_compose.core.text import drop_subject
from safe_compose.core.tier import Tier

_OURS = frozenset({HELPER_LABEL, SCRATCH_LABEL, TRASH_LABEL})
_LONGEST = 2000
"""Largest number of characters of one text."""


class BackupSet(NamedTuple):
    """The scope of a backup of a project."""

    volumes: tuple[Volume, ...]
    """Every existing volume that its services mount, by name."""
    omitted: tuple[Omission, ...]
    """Volumes that they mount and that do not exist."""


def select_volumes(observed: Observed) -> BackupSet:
    """Return the volumes that the services of the observed project mount.

    Folders of the host: `core.folders`.

    The set is empty where no project was found. It holds volumes that the compose file declares,
    also for inactive profiles and whether external or not; volumes with the project's label; and
    volumes of any of its containers, whether running, stopped, of a renamed service or left by
    `compose run`, including anonymous volumes and those inherited from an earlier container.
    """
    project = observed.project
    if project is None:
        return BackupSet((), ())
    containers = [c for c in observed.containers if project.owns(c) and not c.is_marked_as_ours]
    declared = _list_declared(project)
    mounted = {name for c in containers for name in c.volume_names()}
    labelled = {
        v.name
        for v in observed.volumes
        if v.project == project.name and not _OURS & v.labels.keys()
    }
    wanted = declared.keys() | mounted | labelled
    volumes = tuple(sorted((v for v in observed.volumes if v.name in wanted), key=lambda v: v.name))
    absent = sorted(wanted - {v.name for v in volumes})
    missing = (_omission(name, "volume", declared.get(name, "it is not there")) for name in absent)
    return BackupSet(volumes, tuple(missing))


def add_idle_mounts(observed: Observed) -> Observed:
    """Return the observation with the mounts of services in inactive profiles added.

    Their volumes can then be judged by them.
    """
    project = observed.project
    if project is None or not project.idle:
        return observed
    return replace(observed, project=replace(project, mounts=(*project.mounts, *project.idle)))


def _list_declared(project: Project) -> dict[str, str]:
    """Return the volumes that the compose file names -> why each of them may not exist."""
    found = {
        m.volume: f"not created yet (service {m.service})" for m in (*project.mounts, *project.idle)
    }
    for volume in project.volumes:
        if volume.external:
            found[volume.name] = "external, and it is not there"
        found.setdefault(volume.name, "not created yet")
    return found


def _omission(name: str, kind: str, reason: str, tier: str = "") -> Omission:
    """Return an omission that fits into a manifest, whatever names a compose file uses."""
    return Omission(
        name.replace("\0", "")[:_LONGEST], kind, reason.replace("\0", "")[:_LONGEST], tier
    )


def explain_omission(location: Location, verdict: Verdict, observed: Observed) -> Omission | None:
    """Return why an existing volume does not belong in a backup; None for one that does."""
    if verdict.tier is Tier.DISPOSABLE:
        return omit_disposable(verdict)
    if location.in_memory and not observed.is_mounted(location.name):
        why = (
            "it keeps its content in memory, and no container runs on it: there is nothing to"
            " back up"
        )
        return Omission(location.name, "volume", why, verdict.tier.value)
    return None


def omit_folder(path: str, reason: str, tier: str = "") -> Omission:
    """Return the omission of a folder of the host."""
    return _omission(path, "folder", reason, tier)


def omit_disposable(verdict: Verdict) -> Omission:
    """Return the omission of a disposable location."""
    kind = kind_of_location(verdict.volume)
    return _omission(verdict.volume, kind, f"disposable: {verdict.why}", Tier.DISPOSABLE.value)


def omit_closed(record: VolumeRecord) -> list[Omission]:
    """Return the omissions of the databases that a dump lacks because they take no connections.

    An archive or a physical copy of the volume holds them.
    """
    if record.method != "dump" or record.statistics is None:
        return []
    return [
        replace(
            _omission(
                f"database {name} of {describe_location(record.name)}",
                "database",
                "it accepts no connections, so nobody can dump it",
                record.tier,
            ),
            lacking=True,
            next_step=(
                "let it accept them (ALTER DATABASE ... ALLOW_CONNECTIONS true), or set method ="
                ' "physical" under [backup]; then: safe-compose backup'
            ),
        )
        for name in record.statistics.closed
    ]


def omit_failed(name: str, tier: str, reason: str, next_step: str | None) -> Omission:
    """Return the omission of a location that belongs in a backup and could not be backed up."""
    why = drop_subject(reason, describe_location(name))
    return replace(
        _omission(name, kind_of_location(name), hide_secrets(why), tier),
        lacking=True,
        next_step=hide_secrets(next_step or "")[:_LONGEST],
    )
