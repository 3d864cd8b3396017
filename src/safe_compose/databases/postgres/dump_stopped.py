"""A dump of a volume whose server does not run, made by a temporary server on a copy.

The volume itself is never changed.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from safe_compose.core.backup import Artifact
from safe_compose.core.observed import describe_location
from safe_compose.core.slug import slug
from safe_compose.core.text import make_visible
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.postgres.connection import SEARCH_PATH
from safe_compose.databases.postgres.control_data import find_data_directory, read_settings_left
from safe_compose.databases.postgres.discover import server
from safe_compose.databases.postgres.dump import PostgresDump, dump
from safe_compose.databases.postgres.helper_server import PostgresHelper, PostgresLocation
from safe_compose.databases.protocol import ServerUnreachable, Stopped
from safe_compose.databases.trials import STOP_SECONDS, making_scratch_volume
from safe_compose.engine import Engine
from safe_compose.engine.helper_args import Helper
from safe_compose.errors import OperationFailed
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.extraction import extract
from safe_compose.volumes.helper_program import MOUNT


def dump_stopped(
    location: EngineLocation, into: Path, archive: Sequence[Artifact], stopped: Stopped
) -> tuple[PostgresDump, dict[str, str]]:
    """Dump an unused volume by a server on a copy of it.

    The archive just made of the volume is extracted into a scratch volume. A server of the same
    major version starts on it, without a network, and its content is dumped and counted into the
    folder of the archive.

    Returns:
        The dump, and the image and mount of its server, as a backup records users.

    Raises:
        SafeComposeError: The dump cannot be made (no such image, it does not start, ...). The
            archive remains, and every other file is removed.
    """
    engine, name, found = location.engine, location.name, find_data_directory(location)
    if found is None:
        raise OperationFailed(f"{describe_location(name)}: it holds no data directory")
    version = location.read(str(PurePosixPath(found, "PG_VERSION")), limit=100)
    major = (version or b"").decode("ascii", "replace").strip()
    place, reference = _place(engine, found, major, stopped)
    try:
        with making_scratch_volume(engine) as copy:
            extract(copy, into, archive)
            place = replace(place, settings=read_settings_left(copy, found))
            role = _bootstrap_role(copy, found, place)
            with PostgresHelper(place, copy, name).serving(role) as client:
                container = engine.docker.container(client.container)
                if container is None:
                    raise ServerUnreachable(
                        f"{describe_location(name)}: the server on a copy of it has gone"
                    )
                container = replace(
                    container,
                    name=f"a copy of {name}",
                    environment={"POSTGRES_USER": role, "PGDATA": place.directory},
                )
                asked = replace(
                    server(EngineContainer(engine, container)), volume=name, foreign_sessions=()
                )
                made = dump(asked, name, into)
                engine.docker.stop(client.container, timeout=STOP_SECONDS)
    except BaseException:
        _remove_except(into, name, {a.file for a in archive})
        raise
    user = {
        "container": "",
        "service": "",
        "image": reference,
        "image_id": place.image,
        "destination": place.destination,
    }
    return made, user


def _remove_except(into: Path, volume: str, files: set[str]) -> None:
    """Remove all files of a volume's folder but these."""
    for file in (into / slug(volume)).iterdir():
        if file.relative_to(into).as_posix() not in files:
            with suppress(FileNotFoundError):
                file.unlink()


def _place(
    engine: Engine, found: str, major: str, stopped: Stopped
) -> tuple[PostgresLocation, str]:
    """Return the image and mount for a server: only those of the volume's own service.

    The first match is used of the images of containers that mount the volume, those that the
    compose file declares for services that mount it, and those that the last verified backup
    recorded by id.

    Raises:
        OperationFailed: None of them is at hand.
    """
    offers = [
        (u.image_id, u.image, m.destination, m.subpath)
        for u in stopped.users
        for m in u.mounts
        if m.name == stopped.volume
    ]
    offers += [(d.image, d.image, d.destination, "") for d in stopped.declared]
    deep = PurePosixPath(found)
    usual = "/var/lib/postgresql/data" if found == "." else "/var/lib/postgresql"
    offers += [(image, image, usual, "") for image in stopped.recorded]
    for ref, name, destination, subpath in offers:
        image = engine.docker.image(ref)
        if (
            image is not None
            and image.environment.get("PG_MAJOR") == major
            and deep.is_relative_to(subpath)
        ):
            pgdata = str(PurePosixPath(destination, deep.relative_to(subpath)))
            return PostgresLocation(image.id, destination, pgdata, {}, subpath=subpath), name
    raise OperationFailed(
        f"the image of its own service, of PostgreSQL {make_visible(major)}, is not at hand, and no"
        " other one is used"
    )


def _bootstrap_role(copy: EngineLocation, found: str, place: PostgresLocation) -> str:
    """Return the role that owns the cluster, from a single-user server, which needs no password.

    Raises:
        OperationFailed: The server's output does not contain it.
    """
    folder = str(PurePosixPath(MOUNT, found))
    argv = ("stat", "-c", "%u:%g", f"{folder}/PG_VERSION")
    asking = Helper(
        image=place.image,
        argv=argv,
        volumes=((copy.name, MOUNT, True),),
        user="0:0",
        capabilities=("DAC_READ_SEARCH",),
    )
    owner = copy.engine.helpers.run(asking, timeout=60).decode("ascii", "replace").strip()
    helper = Helper(
        image=place.image,
        argv=(
            "postgres",
            "--single",
            "-D",
            folder,
            *place.options,
            "-c",
            f"search_path={SEARCH_PATH}",
            "template1",
        ),
        volumes=((copy.name, MOUNT, False),),
        environment={"LC_ALL": "C"},
        user=owner,
    )
    output = copy.engine.helpers.run(
        helper, stdin=b"SELECT rolname FROM pg_catalog.pg_authid WHERE oid = 10\n"
    ).decode("utf-8", "replace")
    # ` 1: rolname = "shop" (typeid = 19, len = 64, typmod = -1, byval = f)`
    for line in output.splitlines():
        _, sign, rest = line.partition(' 1: rolname = "')
        if sign:
            return rest.rpartition('"')[0]
    raise OperationFailed("the copy does not tell the role that owns it")
