"""A backup of one major version, and the server of another that its volume is mounted by today: files do not serve it, a dump
may."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from safe_compose.artifacts import VolumeRecord
from safe_compose.engine import Engine
from safe_compose.errors import Refused
from safe_compose.observed import Container, DeclaredMount


def moved(
    engine: Engine, record: VolumeRecord, volume: str, containers: Iterable[Container], declared: Iterable[DeclaredMount]
) -> VolumeRecord | None:
    """The record as its dump has to be loaded, when its volume's server is now of a newer major version; None when the files
    fit, or nothing can be told of that server (no local image).

    `volume` gets the content; `containers` are those that mount it now, `declared` what the compose file says of today's
    services: asked where there are none.
    Raises Refused when the content cannot go into that server: it is older, there is no dump or no whole one, or it would
    keep its data elsewhere.
    """
    then = _major_of_backup(engine, record)
    users = _servers(_users(containers, volume), record) or _servers(_declared(engine, declared, volume), record)
    now = {major for _, _, major in users}
    if then is None or not now or then in now:
        return None
    user, pgdata, major = max(users, key=lambda u: u[2])
    statistics, dumps = record.statistics, tuple(a for a in record.artifacts if a.kind in ("globals", "database"))
    cause = ""
    if major < then:
        cause = "an older server reads neither its files nor its dump"
    elif statistics is None or not dumps:
        cause = "its files do not serve another version, and the backup has no dump"
    elif record.dump_older_than_archive:
        cause = "its files do not serve another version, and the dump lacks what was written after it"
    elif not PurePosixPath(pgdata).is_relative_to(user["destination"]):
        cause = f"that image keeps its data in {pgdata}, which is not on the volume (mounted at {user['destination']})"
    if cause or statistics is None:
        raise Refused(
            f"volume {record.name} holds PostgreSQL {then}, and {user['image']} is its server now: {cause}; nothing was restored",
            next_step=f"give the service an image of PostgreSQL {then}"
            + (f", or mount the volume above {pgdata}" if "keeps its data" in cause else "")
            + ", then run the command again",
        )
    return replace(record, users=(user,), artifacts=dumps, statistics=replace(statistics, pgdata=pgdata))


_User = tuple[dict[str, str], str, int]
"""As a backup records a user, its data directory, its major version."""


def _servers(users: Sequence[_User], record: VolumeRecord) -> list[_User]:
    """Those that keep their data in the volume; else those that mount it where a server had it then."""
    then = {user["destination"] for user in record.users}
    inside = [u for u in users if PurePosixPath(u[1]).is_relative_to(u[0]["destination"])]
    return inside or [u for u in users if u[0]["destination"] in then]


def _users(containers: Iterable[Container], volume: str) -> list[_User]:
    found = []
    for container in containers:
        for mount in container.mounts:
            if mount.type == "volume" and mount.name == volume and (major := _major(container.environment)) is not None:
                user = _user(container.name, container.service or "", container.image, container.image_id, mount.destination)
                found.append((user, container.environment.get("PGDATA", mount.destination), major))
    return found


def _declared(engine: Engine, declared: Iterable[DeclaredMount], volume: str) -> list[_User]:
    found = []
    for mount in (m for m in declared if m.volume == volume):
        image = engine.image(mount.image)
        if image is not None and (major := _major(image.environment)) is not None:
            user = _user("", mount.service, mount.image, image.id, mount.destination)
            found.append((user, mount.pgdata or image.environment.get("PGDATA", mount.destination), major))
    return found


def _user(container: str, service: str, image: str, image_id: str, destination: str) -> dict[str, str]:
    return {"container": container, "service": service, "image": image, "image_id": image_id, "destination": destination}


def _major_of_backup(engine: Engine, record: VolumeRecord) -> int | None:
    if record.statistics is not None:
        return _number(record.statistics.version.partition(".")[0])
    images = (engine.image(user["image_id"]) for user in record.users)
    return next((major for image in images if image is not None and (major := _major(image.environment)) is not None), None)


def _major(environment: Mapping[str, str]) -> int | None:
    return _number(environment.get("PG_MAJOR", ""))


def _number(word: str) -> int | None:
    return int(word) if word.isdecimal() else None
