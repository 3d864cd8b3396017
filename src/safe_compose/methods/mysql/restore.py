"""From a dump, or from an extracted archive, back to a living server: only from files that were read to the end first."""

import secrets
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from safe_compose.artifacts import Artifact, DatabaseStatistics, ServerStatistics, VolumeRecord, hide_secrets
from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import Refused, VerifyFailed
from safe_compose.methods.archive import MOUNT, feed
from safe_compose.methods.database import counted_before
from safe_compose.methods.mysql.control import left_behind, look_for
from safe_compose.methods.mysql.dump import (
    HEALTHCHECK,
    account,
    accounts,
    counted,
    look,
    names_of_accounts,
    verify_dump,
)
from safe_compose.methods.mysql.server import FOLDER, SYSTEM, Address, Login, Session, ask, fault, kind_of, session, stream
from safe_compose.methods.stream import nothing, unpack
from safe_compose.methods.trials import last_log, require_same

READY_SECONDS = 180.0
"""How long a server of ours may take to its first connection; recovery, and making a fresh data directory, are in it."""
STOP_SECONDS = 120
_SOCKET = "/tmp/safe-compose.sock"  # within a container of ours, on a tmpfs of its own

_QUIET = (
    "--event-scheduler=OFF",
    "--skip-log-bin",
    "--max-allowed-packet=1G",
    "--loose-innodb-strict-mode=OFF",
    "--loose-skip-slave-start",
    "--loose-skip-replica-start",
    "--loose-persisted-globals-load=OFF",
    "--loose-mysqlx=OFF",
)
"""A server of ours changes nothing by itself: no event fires, nothing is replicated; and it takes rows of every size."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the data of a server lies: in which image, on which mount, in which folder; and how its files are laid out."""

    image: str
    destination: str
    directory: str
    options: tuple[str, ...]

    @classmethod
    def of(cls, record: VolumeRecord, image: str) -> "Place":
        """As a backup recorded it: the mount that the data directory lies under, and the image of the container that had it
        there; `image` where several had."""
        directory = record.statistics.pgdata if record.statistics else ""
        above = [u for u in record.users if directory and PurePosixPath(directory).is_relative_to(u["destination"])]
        if not above:
            raise VerifyFailed(f"volume {record.name}: the backup does not say where the server kept its data")
        user = max(above, key=lambda u: (len(u["destination"]), u["image_id"] == image))
        settings = record.statistics.settings if record.statistics else {}
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        if directory != FOLDER:
            options.append(f"--datadir={directory}")
        return cls(user["image_id"], user["destination"], directory, tuple(options))


def own_databases(statistics: ServerStatistics) -> tuple[str, ...]:
    """The server's own databases, as they were told from the others when they were counted."""
    counted_too = {d.name.lower() for d in statistics.databases}
    return tuple(name for name in SYSTEM if name not in counted_too)


# -- servers of ours ---------------------------------------------------------------------------------------------------


@contextmanager
def serving_fresh(engine: Engine, place: Place, volume: str, subject: str) -> Iterator[tuple[str, Address]]:
    """A server of ours on an empty volume, on no network, made by the image's own entrypoint as the service's was; yields
    container id and address once it answers, and removes the container.

    Raises VerifyFailed when it dies or does not answer in time.
    """
    image = engine.image(place.image)
    words = (*image.entrypoint, *(image.cmd or ("mariadbd",))) if image else ("mariadbd",)
    password = secrets.token_urlsafe(24)
    helper = Helper(
        image=place.image,
        argv=(*words, *_QUIET, *place.options),
        volumes=((volume, place.destination, False),),
        environment={"MARIADB_ROOT_PASSWORD": password, "MYSQL_ROOT_PASSWORD": password},
        capabilities=("default",),
    )
    with fault(subject, "start a server on it"), engine.serve(helper) as container_id:
        login = Login("root", "environment", "MARIADB_ROOT_PASSWORD")
        yield container_id, _ready(engine, Address(container_id, place.image, login), subject)


@contextmanager
def serving_copy(engine: Engine, place: Place, volume: str, subject: str) -> Iterator[Address]:
    """The server program of the image on an extracted archive, as the owner of its files, on no network, asking nobody for a
    password; the entrypoint has no part in it. Raises as `serving_fresh` does."""
    folder = str(PurePosixPath(MOUNT) / PurePosixPath(place.directory).relative_to(place.destination))
    with fault(subject, "start a server on it"), ExitStack() as started:
        try:
            found = look_for(engine, volume, place.image, ("-path", folder, "-prune", "-printf", "%U:%G\\n"))
        except HelperFailed:
            found = []  # no such find in that image
        if not found and place.directory != place.destination:
            raise VerifyFailed(f"volume {subject}: there is no {place.directory} in what was restored")
        options = (*_QUIET, *place.options, "--skip-grant-tables", "--skip-networking", f"--socket={_SOCKET}")
        for program in ("mariadbd", "mysqld"):
            helper = Helper(
                image=place.image,
                argv=(program, *options, "--pid-file=/tmp/safe-compose.pid"),
                volumes=((volume, place.destination, False),),
                tmpfs=("/tmp",),
                user=found[0] if found else None,
            )
            try:
                container_id = started.enter_context(engine.serve(helper))
                break
            except HelperFailed as error:
                if error.returncode != 127 or program == "mysqld":
                    raise
        yield _ready(engine, Address(container_id, place.image, socket=_SOCKET), subject)


def _ready(engine: Engine, address: Address, subject: str) -> Address:
    """Wait for the final server: while a data directory is made, a temporary one listens on the socket alone."""
    until = time.monotonic() + READY_SECONDS
    fresh = address.login.source != "none"
    while True:
        container = engine.container(address.container)
        if container is None or container.state != "running":
            raise VerifyFailed(
                f"volume {subject}: the server that was started on it died: {last_log(engine, address.container)}",
                next_step="look at the lines above; the backup itself is kept",
            )
        cause = ""
        for prefix in ("mariadb", "mysql"):
            tried = replace(address, prefix=prefix)
            try:
                sql = "SELECT @@socket, @@port, @@skip_networking, @@version"
                socket, port, alone, version = ask(engine, tried, sql, timeout=30)[0]
            except HelperFailed as error:
                cause = error.message
                if error.returncode in (126, 127):
                    continue
                break
            if fresh and alone == "1":
                break
            return replace(tried, socket=socket, port=int(port), kind=kind_of(version))
        if time.monotonic() > until:
            raise VerifyFailed(
                f"volume {subject}: the server that was started on it did not answer within {READY_SECONDS:.0f} s: "
                f"{hide_secrets(cause)}; {last_log(engine, address.container)}"
            )
        time.sleep(0.2)  # between two questions; the end is bounded and a dead server is seen above


# -- from a dump -------------------------------------------------------------------------------------------------------


def restore_dump(
    engine: Engine,
    address: Address,
    folder: Path,
    artifacts: Sequence[Artifact],
    statistics: ServerStatistics,
    progress: Callable[[int], None] = nothing,
) -> tuple[DatabaseStatistics, ...]:
    """Load databases, then accounts, into a fresh server that we started ourselves, and count what is there then.

    Every file is verified before a client sees a byte. A server that holds any table is Refused. Afterwards nobody gets in
    with the password that the fresh server had. Raises VerifyFailed, BackupFailed.
    """
    verify_dump(folder, artifacts, statistics)
    subject = next(a.volume for a in artifacts)
    found: tuple[DatabaseStatistics, ...] = ()
    with fault(subject, "restore the dump"), session(engine, address) as asked:
        own = own_databases(statistics)
        if look(asked, own).tables:
            raise Refused(
                "the server that the dump goes into is not empty; nothing was restored", next_step="restore into an empty volume"
            )
        for dump in (a for a in artifacts if a.kind == "database"):
            _load(engine, address, unpack(folder, dump, progress=progress))
        found = counted(asked, look(asked, own))
        for script in (a for a in artifacts if a.kind == "globals"):
            text = b"".join(unpack(folder, script))
            _load(engine, address, [text])
            _same_accounts(asked, text.decode("utf-8", "replace"), statistics.kind, subject)
    return found


def _load(engine: Engine, address: Address, blocks: Iterable[bytes]) -> None:
    """Feed a verified script to the client, which stops at the first error."""
    argv = address.client("--binary-mode")
    with stream(engine, address, argv, stdin=subprocess.PIPE, discard=True) as client:
        feed(blocks, client.stdin)


def _same_accounts(asked: Session, script: str, kind: str, subject: str) -> None:
    """Drop the accounts that the fresh server has by itself and the old one had not; then every other must be as it was."""
    names = [account(*name) for name in names_of_accounts(asked, kind) if name[0] not in (HEALTHCHECK, "PUBLIC")]
    for name in names:
        if f"CREATE USER IF NOT EXISTS {name} " not in script and f"CREATE ROLE IF NOT EXISTS {name};" not in script:
            asked.rows(f"DROP USER {name};")
    old, new = _statements(script), _statements(accounts(asked, kind))
    if old != new:
        raise VerifyFailed(f"volume {subject}: restore: {len(old ^ new)} statements about accounts differ from what was dumped")


def _statements(script: str) -> frozenset[str]:
    """What is said of every account but the one that a fresh server keeps."""
    return frozenset(line for line in script.splitlines() if HEALTHCHECK not in line)


def rebuild(
    engine: Engine, folder: Path, record: VolumeRecord, volume_name: str, progress: Callable[[int], None] = nothing
) -> None:
    """Make the data of a volume again from its dump: a fresh data directory of the service's own image in the existing EMPTY
    volume, loaded, counted, with the old accounts, and stopped cleanly.

    Raises LookAgain for a volume that is not empty, VerifyFailed, BackupFailed.
    """
    place = Place.of(record, "")
    statistics = counted_before(engine, record, place.image, volume_name)
    verify_dump(folder, record.artifacts, statistics)
    with serving_fresh(engine, place, volume_name, record.name) as (container_id, address):
        found = restore_dump(engine, address, folder, record.artifacts, statistics, progress)
        code = engine.stop(container_id, timeout=STOP_SECONDS)
    require_equal(statistics.databases, found, record.name, "restore")
    left = left_behind(engine, volume_name, [place.image], None)
    if code != 0 or not left.clean:
        raise VerifyFailed(f"volume {record.name}: the restored server did not stop cleanly ({left.words}; it ended with {code})")


def require_equal(wanted: Iterable[DatabaseStatistics], found: Iterable[DatabaseStatistics], subject: str, stage: str) -> None:
    """Every table has the rows it had and every other object is there; raises VerifyFailed naming some that differ."""
    require_same(_flat(wanted), _flat(found), subject, stage)


def _flat(databases: Iterable[DatabaseStatistics]) -> Mapping[str, int]:
    found = {}
    for database in databases:
        found[f"database {database.name}"] = 1
        for table in database.tables:
            found[f"{table.schema}.{table.table}"] = table.rows
        for what in database.extensions:
            found[f"{what} of {database.name}"] = 1
    return found
