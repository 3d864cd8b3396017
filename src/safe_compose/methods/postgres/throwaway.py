"""A dump of a volume whose server does not run: made by a throwaway server on a copy, never on the volume itself."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from safe_compose.artifacts import Artifact, slug
from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import BackupFailed
from safe_compose.methods.archive import MOUNT, extract, last_words
from safe_compose.methods.database import Silent, Stopped
from safe_compose.methods.postgres.control import find_data, reading_helper, settings_left
from safe_compose.methods.postgres.dump import Dump, dump
from safe_compose.methods.postgres.restore import STOP_SECONDS, Place, serving
from safe_compose.methods.postgres.server import server
from safe_compose.methods.trials import scratch


def dump_stopped(
    engine: Engine, into: Path, archive: Sequence[Artifact], volume: str, stopped: Stopped
) -> tuple[Dump, dict[str, str]]:
    """Extract the archive just made of a volume into a scratch volume, start a server of the same major version on it, on no
    network, and dump and count what it serves into the folder of that archive. Also what served it, as a backup records users.

    Raises SafeComposeError where that cannot be done (no such image, it does not start, ...): then the archive stands alone,
    and no file is left but its own.
    """
    found, cause = None, "no local image can look into it"
    for image in stopped.image_ids:
        if engine.image(image) is None:
            continue
        try:
            found = find_data(engine, volume, image)
            if found is None:
                cause = "it holds no data directory"
            else:
                said = engine.run(reading_helper(volume, image, ("cat", f"{PurePosixPath(MOUNT, found)}/PG_VERSION")), timeout=60)
            break
        except HelperFailed as error:
            cause = last_words(error)
    if found is None:
        raise BackupFailed(f"volume {volume}: {cause}")
    major = said.decode("ascii", "replace").strip()
    place, reference = _place(engine, found, major, stopped)
    ours = {a.file for a in archive}
    try:
        with scratch(engine) as copy:
            extract(engine, into, archive, copy, [place.image, *stopped.image_ids])
            place = replace(place, settings=settings_left(engine, copy, place.image, found))
            role = _bootstrap_role(engine, copy, found, place)
            with serving(engine, place, copy, role, fresh=False, subject=volume) as (container_id, _):
                container = engine.container(container_id)
                if container is None:
                    raise Silent(f"volume {volume}: the server on a copy of it has gone")
                container = replace(
                    container, name=f"a copy of {volume}", environment={"POSTGRES_USER": role, "PGDATA": place.pgdata}
                )
                asked = replace(server(engine, container), volume=volume, foreign_sessions=())
                made = dump(engine, asked, volume, into)
                engine.stop(container_id, timeout=STOP_SECONDS)
    except BaseException:
        for file in (into / slug(volume)).iterdir():
            if file.relative_to(into).as_posix() not in ours:
                with suppress(FileNotFoundError):
                    file.unlink()
        raise
    user = {"container": "", "service": "", "image": reference, "image_id": place.image, "destination": place.destination}
    return made, user


def _place(engine: Engine, found: str, major: str, stopped: Stopped) -> tuple[Place, str]:
    """Which image serves it where: the containers' own, what the compose file declares, else any of that major version."""
    offers = [(u.image_id, u.image, m.destination) for u in stopped.users for m in u.mounts if m.name == stopped.volume]
    offers += [(d.image, d.image, d.destination) for d in stopped.declared]
    deep = PurePosixPath(found)
    usual = "/var/lib/postgresql/data" if found == "." else "/var/lib/postgresql"
    offers += [(i.id, next(iter(i.references), i.id), usual) for i in engine.images()]
    for ref, name, destination in offers:
        image = engine.image(ref)
        if image is not None and image.environment.get("PG_MAJOR") == major:
            return Place(image.id, destination, str(PurePosixPath(destination, deep)), {}), name
    raise BackupFailed(f"no local image of PostgreSQL {major} is at hand, and none is pulled")


def _bootstrap_role(engine: Engine, copy: str, found: str, place: Place) -> str:
    """The role that owns the cluster, as a single-user server on the copy tells without asking anybody for a password."""
    folder = str(PurePosixPath(MOUNT, found))
    argv: tuple[str, ...] = ("stat", "-c", "%u:%g", f"{folder}/PG_VERSION")
    owner = engine.run(reading_helper(copy, place.image, argv), timeout=60).decode().strip()
    helper = Helper(
        image=place.image,
        argv=("postgres", "--single", "-D", folder, *place.options, "template1"),
        volumes=((copy, MOUNT, False),),
        environment={"LC_ALL": "C"},
        user=owner,
    )
    said = engine.run(helper, stdin=b"SELECT rolname FROM pg_catalog.pg_authid WHERE oid = 10\n").decode("utf-8", "replace")
    for line in said.splitlines():  # ` 1: rolname = "shop" (typeid = 19, len = 64, typmod = -1, byval = f)`
        _, sign, rest = line.partition(' 1: rolname = "')
        if sign:
            return rest.rpartition('"')[0]
    raise BackupFailed("the copy does not tell the role that owns it")
