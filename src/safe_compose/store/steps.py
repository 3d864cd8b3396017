"""The steps of a journal: one class per kind of step (`step_parser` reads the lines of a file).

Readers dispatch on the class, never on a name and its facts: two writers may use one name for
different things, a newer release may write more facts and an older one fewer, and others may write
to a team's store.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from safe_compose.core.observed import FOLDER


@dataclass(frozen=True, slots=True)
class Step:
    """A line of a journal."""

    at: datetime | None
    """When it was written, UTC; None where that is unreadable."""


@dataclass(frozen=True, slots=True)
class VolumeStep(Step):
    """A step that names nothing but its volume."""

    volume: str


@dataclass(frozen=True, slots=True)
class Other(Step):
    """A step that only people read, or one of a newer release."""

    name: str


@dataclass(frozen=True, slots=True)
class UnreadableStep(Step):
    """A step with facts that do not fit its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Ended(Step):
    """A step: the run has ended."""

    outcome: str


# -- containers and docker -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoppedContainer:
    """A container as it was before a run stopped it."""

    id: str
    name: str
    state: str
    started_at: str
    health: str | None


@dataclass(frozen=True, slots=True)
class Stopping(Step):
    """A step: containers are about to be stopped."""

    containers: tuple[StoppedContainer, ...]


@dataclass(frozen=True, slots=True)
class BackedUp(Step):
    """A step: a backup was made."""

    backup: str | None


@dataclass(frozen=True, slots=True)
class DoomedVolume:
    """A volume that docker is about to delete.

    Older releases did not record driver and options (None).
    """

    name: str
    driver: str | None
    options: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Running(Step):
    """A step: docker is about to run; holds the volumes to delete and the id of their backup."""

    volumes: tuple[DoomedVolume, ...]
    backup: str | None
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Docker(Step):
    """A step: the docker command that deletes has started; holds its process."""

    process: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ran(Step):
    """A step: docker has ended; `gone` is None where the run could not check."""

    gone: frozenset[str] | None
    survived: frozenset[str]
    parts: frozenset[str]
    """Volumes that may still hold a part of their content."""


# -- content that goes into volumes ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RestoringVolume(Step):
    """A step: content is about to go into a volume; holds all that a rollback needs."""

    volume: str
    existed: bool
    """Whether the volume existed before; otherwise it is created for this restore."""
    safety: str | None
    """The backup of its earlier content; None where it held nothing."""
    trash: str | None
    """The trash volume whose content is renamed into it."""
    forgets: bool
    """Whether it is a tmpfs: no content is written to it."""
    outside: bool
    """Whether it points at a path outside of docker's own folder."""
    users: Mapping[str, str] | None
    """Id of each container that uses it -> its `StartedAt`; None in steps of older releases, which
    did not record it."""
    adds: bool
    """Whether it holds a part of its content, and only what is missing is restored."""
    seen_empty: bool
    """Whether it was created for this and seen empty. False where this was not checked, as in older
    releases."""


@dataclass(frozen=True, slots=True)
class VolumeRestored(VolumeStep):
    """A step: the volume has all of its content."""


@dataclass(frozen=True, slots=True)
class RolledBack(VolumeStep):
    """A step: the volume is as it was before `RestoringVolume`."""


@dataclass(frozen=True, slots=True)
class RollingBack(VolumeStep):
    """A step: `recover` is about to make a volume as it was before `RestoringVolume`."""


@dataclass(frozen=True, slots=True)
class Filling(VolumeStep):
    """A step: content still goes into a volume, as a sign of life."""


@dataclass(frozen=True, slots=True)
class Refilling(Step):
    """A step: a volume in memory is about to get its content back from a backup.

    A stop of the run itself emptied it.
    """

    volume: str
    backup: str


@dataclass(frozen=True, slots=True)
class Refilled(VolumeStep):
    """A step: a volume in memory has all of its content again."""


@dataclass(frozen=True, slots=True)
class Restored(Step):
    """A step: all that a run had to restore is restored."""


@dataclass(frozen=True, slots=True)
class Undid(Restored):
    """A step: an `undo` has restored everything; names the run that it undid."""

    run: str


@dataclass(frozen=True, slots=True)
class Placing(Step):
    """A step: a path of an archive is about to go into a volume in use (`SinglePath`)."""

    volume: str
    path: str
    staging: str
    old_path: str
    existed: bool
    is_file: bool = False
    """Whether it is a single file of the host, which is filled within the staging folder."""

    @property
    def is_swap(self) -> bool:
        """Whether a whole folder or file of the host is exchanged, and not a path within one."""
        named = self.staging.startswith(f".{self.path[:100]}.")  # of one path, it has another name
        return self.volume.startswith(FOLDER) and "/" not in self.path and named


@dataclass(frozen=True, slots=True)
class WritingLayer(Step):
    """A step: files of a backup are about to go into a container's own layer."""

    volume: str
    """The name of the layer in the backup."""
    container: str
    backup: str


@dataclass(frozen=True, slots=True)
class RestoringDatabase(Step):
    """A step: a database is about to be restored next to the current one, to be swapped in."""

    container: str
    volume: str
    database: str
    new_database: str
    """The name of the new database."""
    old_name: str | None
    """The name that the current database gets; None where there is none."""
    roles: tuple[str, ...]
    """Roles created for it."""

    def facts(self) -> dict[str, Any]:
        """Return the facts in the form that the server's own code takes."""
        return {
            "database": self.database,
            "beside": self.new_database,
            "aside": self.old_name,
            "roles": list(self.roles),
        }


# -- the trash -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trashing(Step):
    """A step: the content of a volume is about to move to a volume of the trash.

    `facts` is a hash of the trash volume's label.
    """

    volume: str
    trash: str
    facts: str | None


@dataclass(frozen=True, slots=True)
class Trashed(Step):
    """A step: the content of a volume has moved to the trash.

    `empty` is when the empty volume in its place was created, as the engine says.
    """

    volume: str
    trash: str
    empty: str | None


@dataclass(frozen=True, slots=True)
class Untrashing(VolumeStep):
    """A step: the content is about to move back because docker did not delete the volume."""


@dataclass(frozen=True, slots=True)
class TakenFromTrash(VolumeStep):
    """A step: the content that an `undo` had half restored is back in the trash."""


# -- passwords -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PasswordAccepted(Step):
    """A step: the server accepts the new password; containers are recreated from here on."""


@dataclass(frozen=True, slots=True)
class PasswordRotated(Step):
    """A step: everything has the new password, and it was tested."""


@dataclass(frozen=True, slots=True)
class RollingBackPassword(Step):
    """A step: everything is about to get the old password back.

    Older releases wrote it as `putting-back` without a volume.
    """
