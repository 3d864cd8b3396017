"""From a dump back to a living server: only into a fresh one, only from files that were read to the end first."""

import secrets
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safe_compose.artifacts import Artifact, DatabaseStatistics, ServerStatistics, VolumeRecord
from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import Refused, VerifyFailed
from safe_compose.methods.archive import feed
from safe_compose.methods.database import counted_before
from safe_compose.methods.postgres.control import clean, control_state
from safe_compose.methods.postgres.dump import measure, verify_dump
from safe_compose.methods.postgres.physical import base_of, put_back
from safe_compose.methods.postgres.scan import top_level_lines
from safe_compose.methods.postgres.server import PSQL, Address, ask, fault, locate, stream
from safe_compose.methods.stream import nothing, unpack
from safe_compose.methods.trials import last_log, require_same

READY_SECONDS = 120.0
"""How long a server of ours may take to its first connection; recovery of a crashed copy and initdb are in it."""
STOP_SECONDS = 120
_QUOTE = "SELECT pg_catalog.format('%I', {literal})"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the data of a server lies: in which image, on which mount, in which folder."""

    image: str
    destination: str
    pgdata: str
    settings: Mapping[str, str]
    """For the server's command line."""

    @property
    def options(self) -> tuple[str, ...]:
        return tuple(word for name, value in self.settings.items() for word in ("-c", f"{name}={value}"))

    @classmethod
    def of(cls, record: VolumeRecord, image: str) -> "Place":
        """As a backup recorded it: the mount that the data directory lies under, and the image of the container that had it
        there; `image` where several had."""
        pgdata = record.statistics.pgdata if record.statistics else ""
        above = [u for u in record.users if (pgdata + "/").startswith(u["destination"].rstrip("/") + "/")]
        if not pgdata or not above:
            raise VerifyFailed(f"volume {record.name}: the backup does not say where the server kept its data")
        user = max(above, key=lambda u: (len(u["destination"]), u["image_id"] == image))
        settings = record.statistics.settings if record.statistics else {}
        return cls(user["image_id"], user["destination"], pgdata, settings)


@contextmanager
def serving(engine: Engine, place: Place, volume: str, user: str, *, fresh: bool, subject: str) -> Iterator[tuple[str, Address]]:
    """A server of ours on a volume, on no network, by the image's own entrypoint; yields container id and address once it
    answers, and removes the container.

    `fresh`: the volume is empty, a cluster is made first. Raises VerifyFailed when it dies or does not answer in time.
    """
    image = engine.image(place.image)
    command = (*image.entrypoint, *(image.cmd or ("postgres",))) if image else ("postgres",)
    command += place.options
    environment = {"PGDATA": place.pgdata}
    if fresh:
        environment |= {"POSTGRES_USER": user, "POSTGRES_PASSWORD": secrets.token_urlsafe(24)}
    helper = Helper(
        image=place.image,
        argv=command,
        volumes=((volume, place.destination, False),),
        environment=environment,
        capabilities=("default",),
    )
    with fault(subject, "start a server on it"), engine.serve(helper) as container_id:
        yield container_id, _ready(engine, container_id, user, fresh=fresh, subject=subject)


def _ready(engine: Engine, container_id: str, user: str, *, fresh: bool, subject: str) -> Address:
    """Wait for the final server: while a cluster is made, a temporary one listens on the socket, never on TCP."""
    until = time.monotonic() + READY_SECONDS
    while True:
        container = engine.container(container_id)
        if container is None or container.state != "running":
            raise VerifyFailed(
                f"volume {subject}: the server that was started on it died: {last_log(engine, container_id)}",
                next_step="look at the lines above; the backup itself is kept",
            )
        address = locate(engine, container, user)
        host = "127.0.0.1" if fresh else address.socket
        try:
            engine.execute(container_id, ("pg_isready", "--quiet", f"--host={host}", f"--port={address.port}"), timeout=30)
        except HelperFailed as error:
            if time.monotonic() > until:
                raise VerifyFailed(
                    f"volume {subject}: the server that was started on it did not answer within {READY_SECONDS:.0f} s: "
                    f"{last_log(engine, container_id)}"
                ) from error
            time.sleep(0.2)  # between two questions; the end is bounded and a dead server is seen above
        else:
            return address


def restore_dump(
    engine: Engine,
    address: Address,
    folder: Path,
    artifacts: Sequence[Artifact],
    statistics: ServerStatistics,
    progress: Callable[[int], None] = nothing,
) -> tuple[DatabaseStatistics, ...]:
    """Load globals and databases into a fresh server that we started ourselves, and count what is there then.

    Every file is verified before psql sees a byte. Empty databases that the fresh server has and the dump makes are dropped;
    one that is not empty is Refused. Raises VerifyFailed, BackupFailed.
    """
    verify_dump(folder, artifacts, statistics)
    wanted = [a for a in artifacts if a.kind == "database" and a.database is not None]
    subject = next(a.volume for a in artifacts)
    roles = next(a for a in artifacts if a.kind == "globals")
    with fault(subject, "restore the dump"):
        there = _names(engine, address, "SELECT datname FROM pg_catalog.pg_database WHERE NOT datistemplate")
        for name in there:
            if name in {a.database for a in wanted}:
                _drop_empty(engine, address, name)
        known = set(_names(engine, address, "SELECT rolname FROM pg_catalog.pg_roles"))
        script = b"".join(unpack(folder, roles))
        _load(engine, address, [idempotent(script, known)])
    done = 0
    counted: list[DatabaseStatistics] = []
    for artifact in wanted:
        assert artifact.database is not None
        with fault(subject, f"restore database {artifact.database}"):
            _load(engine, address, unpack(folder, artifact, progress=partial(_onwards, progress, done)))
            ask(engine, address, artifact.database, "ANALYZE", timeout=None)
            counted += measure(engine, address, [artifact.database])
        done += artifact.uncompressed_bytes
    return tuple(counted)


def _onwards(progress: Callable[[int], None], done: int, size: int) -> None:
    progress(done + size)


def rebuild(
    engine: Engine, folder: Path, record: VolumeRecord, volume_name: str, progress: Callable[[int], None] = nothing
) -> None:
    """Make the data of a Postgres volume again from its dump: a fresh cluster of the service's own image in the existing
    EMPTY volume, loaded, counted, and stopped cleanly. Or from its physical copy: that one put back, recovered and counted.

    Raises LookAgain for a volume that is not empty, VerifyFailed, BackupFailed.
    """
    place = Place.of(record, "")
    statistics = counted_before(engine, record, place.image, volume_name)
    verify_dump(folder, record.artifacts, statistics)
    if base_of(record.artifacts) is not None:
        revive(engine, folder, record, place, volume_name, progress)
    else:
        with serving(engine, place, volume_name, statistics.user, fresh=True, subject=record.name) as (container_id, address):
            counted = restore_dump(engine, address, folder, record.artifacts, statistics, progress)
            engine.stop(container_id, timeout=STOP_SECONDS)
        require_equal(statistics.databases, counted, record.name, "restore")
    state = control_state(engine, volume_name, [place.image], None)
    if not clean(state):
        raise VerifyFailed(f"volume {record.name}: the restored server was not stopped cleanly (control state '{state}')")


def revive(
    engine: Engine, folder: Path, record: VolumeRecord, place: Place, volume: str, progress: Callable[[int], None] = nothing
) -> tuple[DatabaseStatistics, ...]:
    """Put a verified physical copy into an empty volume, let the server recover, count, and stop it in order.

    Where writes came while it was counted the counts are only told. Raises VerifyFailed, BackupFailed.
    """
    statistics, base = record.statistics, base_of(record.artifacts)
    assert statistics is not None and base is not None  # the callers looked
    put_back(engine, folder, base, place.image, volume, progress)
    with (
        serving(engine, place, volume, statistics.user, fresh=False, subject=record.name) as (container_id, address),
        fault(record.name, "count what was restored"),
    ):
        counted = measure(engine, address, [d.name for d in statistics.databases])
        engine.stop(container_id, timeout=STOP_SECONDS)
    if not record.dump_older_than_archive:
        require_equal(statistics.databases, counted, record.name, "restore of the physical copy")
    return counted


def require_equal(wanted: Iterable[DatabaseStatistics], found: Iterable[DatabaseStatistics], subject: str, stage: str) -> None:
    """Every table of every database has the rows it had; raises VerifyFailed naming some that have not."""
    require_same(_flat(wanted), _flat(found), subject, stage)


def _flat(databases: Iterable[DatabaseStatistics]) -> Mapping[str, int]:
    found = {}
    for database in databases:
        found[f"large objects of {database.name}"] = database.large_objects
        for table in database.tables:
            found[f"{database.name}: {table.schema}.{table.table}"] = table.rows
    return found


def idempotent(script: bytes, known: set[str]) -> bytes:
    """The globals for a server that has some of the roles already: their CREATE ROLE becomes a comment, all else stays,
    so that every other error still stops psql."""
    pieces = []
    at = 0
    for start, line in top_level_lines(script):
        if line.startswith(b"CREATE ROLE ") and line.endswith(b";"):
            name = line.removeprefix(b"CREATE ROLE ").removesuffix(b";")
            if name.startswith(b'"'):
                name = name[1:-1].replace(b'""', b'"')
            if name.decode("utf-8", "backslashreplace") in known:
                pieces += [script[at:start], b"-- there already: "]
                at = start
    return b"".join([*pieces, script[at:]])


def _names(engine: Engine, address: Address, sql: str) -> list[str]:
    """Names cannot hold newlines here: pg_dump refuses such databases, pg_dumpall such roles."""
    return [line for line in ask(engine, address, "template1", sql).split("\n") if line]


def _drop_empty(engine: Engine, address: Address, name: str) -> None:
    [statistics] = measure(engine, address, [name])
    if statistics.tables or statistics.large_objects:
        raise Refused(
            f"database {name} of the server that the dump goes into is not empty; nothing was restored",
            next_step="restore into an empty volume",
        )
    literal = "'" + name.replace("'", "''") + "'"
    quoted = ask(engine, address, "template1", f"SET standard_conforming_strings = on; {_QUOTE.format(literal=literal)}")
    ask(engine, address, "template1", f"DROP DATABASE {quoted}")


def _load(engine: Engine, address: Address, blocks: Iterable[bytes]) -> None:
    """Feed a verified script to psql, which stops at the first error."""
    argv = (*PSQL, "--output=/dev/null", f"--dbname={address.conninfo('template1')}")
    try:
        with stream(engine, address, argv, stdin=subprocess.PIPE, discard=True) as psql:
            feed(blocks, psql.stdin)
    except HelperFailed as error:
        if "invalid command \\restrict" in error.stderr:  # pg_dump writes it since August 2025
            error.next_step = "pull the latest minor release of the server's image: its psql is older than the one that dumped"
        raise
