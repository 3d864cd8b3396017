"""A backup of one major version for a volume whose server now has another one.

The new server cannot read the files; it may be able to load a dump.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from safe_compose.core.backup import VolumeRecord
from safe_compose.core.observed import Container, DeclaredMount, describe_location
from safe_compose.databases import server_files
from safe_compose.engine import Engine
from safe_compose.errors import Refused
from safe_compose.volumes.archive import OTHERS
from safe_compose.volumes.engine_location import EngineLocation


def adapt_record(
    location: EngineLocation,
    record: VolumeRecord,
    containers: Iterable[Container],
    declared: Iterable[DeclaredMount],
) -> VolumeRecord | None:
    """Return a backup's record for loading its dump, if the server now has a newer major version.

    The new record has the dump, and the files that were archived with it. `volume` gets the
    content; `containers` are those that mount it now, and `declared` the mounts of the compose
    file's current services, which decide if there are no containers.

    Returns:
        None if the files fit, or nothing is known about that server (no local image).

    Raises:
        Refused: The content cannot be restored for that server: it is older, there is no dump or no
            complete one, or it would keep its data elsewhere.
    """
    then = _major_of_backup(location.engine, record)
    users = _servers(_users(containers, location.name), record) or _servers(
        _list_declared_users(location, declared), record
    )
    now = {major for _, _, major in users}
    if then is None or not now or then in now:
        return None
    user, pgdata, major = max(users, key=lambda u: u[2])
    statistics = record.statistics
    cause = _find_obstacle(record, then, (user, pgdata, major))
    if cause or statistics is None:
        raise Refused(
            f"{describe_location(record.name)} holds PostgreSQL {then}, and {user['image']} is"
            " its server now:"
            f" {cause}; nothing was restored",
            next_step=f"give the service an image of PostgreSQL {then}"
            + (f", or mount the volume above {pgdata}" if "keeps its data" in cause else "")
            + ", then run the command again",
        )
    dumps = tuple(a for a in record.artifacts if a.kind in _DUMPS)
    others = tuple(a for a in record.artifacts if a.kind in (*OTHERS, server_files.KIND))
    return replace(
        record,
        users=(user,),
        artifacts=(*dumps, *others),
        statistics=replace(statistics, pgdata=pgdata),
    )


_User = tuple[dict[str, str], str, int]
"""A user as a backup records it, its data directory, its major version."""


_DUMPS = ("globals", "database")


def _find_obstacle(record: VolumeRecord, then: int, user: _User) -> str:
    """Return why a user's server cannot load the dump of major version `then`; empty if it can."""
    mount, pgdata, major = user
    if major < then:
        return "an older server reads neither its files nor its dump"
    if record.statistics is None or not any(a.kind in _DUMPS for a in record.artifacts):
        return "its files do not serve another version, and the backup has no dump"
    if record.dump_older_than_archive:
        return (
            "its files do not serve another version, and the dump lacks what was written after it"
        )
    if not PurePosixPath(pgdata).is_relative_to(mount["destination"]):
        return (
            f"that image keeps its data in {pgdata}, which is not on the volume (mounted at"
            f" {mount['destination']})"
        )
    return ""


def _servers(users: Sequence[_User], record: VolumeRecord) -> list[_User]:
    """Return the users with their data in the volume, or else those at a recorded mount point."""
    then = {user["destination"] for user in record.users}
    inside = [u for u in users if PurePosixPath(u[1]).is_relative_to(u[0]["destination"])]
    return inside or [u for u in users if u[0]["destination"] in then]


def _users(containers: Iterable[Container], volume: str) -> list[_User]:
    found = []
    for container in containers:
        for mount in container.mounts:
            if mount.location == volume and (major := _major(container.environment)) is not None:
                user = _user(
                    container.name,
                    container.service or "",
                    container.image,
                    container.image_id,
                    mount.destination,
                )
                user |= {"subpath": mount.subpath} if mount.subpath else {}
                found.append((user, container.environment.get("PGDATA", mount.destination), major))
    return found


def _list_declared_users(
    location: EngineLocation, declared: Iterable[DeclaredMount]
) -> list[_User]:
    found = []
    for mount in (m for m in declared if m.volume == location.name):
        image = location.engine.docker.image(mount.image)
        if image is not None and (major := _major(image.environment)) is not None:
            user = _user("", mount.service, mount.image, image.id, mount.destination)
            found.append(
                (user, mount.pgdata or image.environment.get("PGDATA", mount.destination), major)
            )
    return found


def _user(
    container: str, service: str, image: str, image_id: str, destination: str
) -> dict[str, str]:
    return {
        "container": container,
        "service": service,
        "image": image,
        "image_id": image_id,
        "destination": destination,
    }


def _major_of_backup(engine: Engine, record: VolumeRecord) -> int | None:
    if record.statistics is not None:
        return _number(record.statistics.version.partition(".")[0])
    images = (engine.docker.image(user["image_id"]) for user in record.users)
    return next(
        (
            major
            for image in images
            if image is not None and (major := _major(image.environment)) is not None
        ),
        None,
    )


def _major(environment: Mapping[str, str]) -> int | None:
    return _number(environment.get("PG_MAJOR", ""))


def _number(word: str) -> int | None:
    return int(word) if word.isdecimal() else None
