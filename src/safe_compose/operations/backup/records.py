"""The manifest's record of a volume: its users, its artifacts, and what decreased."""

import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from safe_compose.core.backup import Artifact, VolumeRecord, describe_shrinkage
from safe_compose.core.observed import (
    Container,
    Location,
    Mount,
    Volume,
    describe_location,
)
from safe_compose.core.policy import Verdict
from safe_compose.core.quantities import format_stamp
from safe_compose.core.slug import slug
from safe_compose.databases.registry import DATABASES
from safe_compose.engine import Engine
from safe_compose.operations.backup.request import BackupRequest
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.catalogue.checks import is_pair, is_service
from safe_compose.system.files import reporting
from safe_compose.ui import terminal


def note_losses(
    catalogue: Catalogue, engine: Engine, records: Iterable[VolumeRecord]
) -> list[VolumeRecord]:
    """Return the records, with a note where a volume holds much less than in its last backup.

    The note is also printed. That earlier, verified backup may be the one that somebody will want.
    """
    earlier = catalogue.reader.find_newest(
        engine.id, [r.name for r in records if r.statistics is not None]
    )
    noted = []
    for record in records:
        before = earlier.get(record.name)
        old = (
            next((r.statistics for r in before.volumes if r.name == record.name), None)
            if before
            else None
        )
        less = (
            describe_shrinkage(old, record.statistics)
            if old and record.statistics and old.kind == record.statistics.kind
            else None
        )
        if less and before:
            words = f"{less}: see backup {before.id} of {format_stamp(before.created)}"
            terminal.say(f"safe-compose: warning: {record.name}: {words}")
            record = replace(record, notes=(*record.notes, words))
        noted.append(record)
    return noted


def make_record(
    request: BackupRequest,
    location: Location,
    verdict: Verdict,
    method: str,
    artifacts: tuple[Artifact, ...],
) -> VolumeRecord:
    """Return the record of a location, with its users and artifacts."""
    users = request.observed.users(location.name)
    # The server comes first: a test restore and a restore take the image of the first user.
    if (database := DATABASES.get(verdict.kind)) is not None:
        users = tuple(
            sorted(
                users,
                key=lambda user: (
                    not database.serves(user, location.name),
                    not database.is_server(user),
                ),
            )
        )
    return VolumeRecord(
        name=location.name,
        driver=location.driver if isinstance(location, Volume) else "local",
        options=location.options if isinstance(location, Volume) else {},
        labels={name: value for name, value in location.labels.items() if is_pair(name, value)},
        created_at=location.created_at if isinstance(location, Volume) else "",
        tier=verdict.tier.value,
        data_kind=verdict.kind,
        anonymous=location.anonymous,
        method=method,
        users=tuple(
            describe_user(user, mount)
            for user in users
            for mount in user.mounts
            if mount.location == location.name
        ),
        artifacts=artifacts,
        location=location.kind,
    )


def tell_labels_left_out(location: Location) -> list[str]:
    """Report which labels a record cannot hold, and return that as notes.

    A manifest with such a label could not be read.
    """
    left = sorted(name for name, value in location.labels.items() if not is_pair(name, value))
    notes = [
        f"its label {name[:80]!r} cannot be written down, and does not come back"
        for name in left[:3]
    ]
    notes += [f"nor do {len(left) - 3} other labels"] if len(left) > 3 else []
    for note in notes:
        terminal.say(f"safe-compose: {location.name}: {note}")
    return notes


def describe_user(container: Container, mount: Mount) -> Mapping[str, str]:
    """Return the record of one mount of a volume.

    A label that is not a valid service name is left out, because a manifest with it could not be
    read.
    """
    user = {
        "container": container.name,
        "service": service if (service := container.service or "") and is_service(service) else "",
        "image": container.image,
        "image_id": container.image_id,
        "destination": mount.destination,
    }
    return {**user, "subpath": mount.subpath} if mount.subpath else user


def remove_half(into: Path, volume: str) -> None:
    """Remove what was made of a volume so far.

    Raises:
        OperationFailed: It cannot be removed.
    """
    with (
        reporting(f"remove what was made of {describe_location(volume)}"),
        suppress(FileNotFoundError),
    ):
        shutil.rmtree(into / slug(volume))
