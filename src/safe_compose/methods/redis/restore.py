"""From an RDB, or an archive, back to a server that holds the keys: on trial in a scratch volume, and for good."""

import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from safe_compose.artifacts import Artifact, DatabaseStatistics, Evidence, ServerStatistics, VolumeRecord
from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import VerifyFailed
from safe_compose.methods.archive import MOUNT, extract
from safe_compose.methods.database import counted_before
from safe_compose.methods.redis.dump import verify_dump
from safe_compose.methods.redis.server import Access, Answer, ask, asking, differences, keyspace
from safe_compose.methods.stream import evidence, nothing, unpack
from safe_compose.methods.trials import last_log, scratch

READY_SECONDS = 600.0
"""How long a server of ours may take to load its data; one that dies is seen at once."""
STOP_SECONDS = 120


def trial(engine: Engine, folder: Path, record: VolumeRecord, image: str) -> list[Evidence]:
    """Try what an undo would use: the archive where there is one, else the RDB. L4 of the volume.

    Raises VerifyFailed when no server starts on it or holds other keys than were counted, BackupFailed when the engine cannot
    try it. Data of modules whose file is not known cannot be tried: then there is no evidence.
    """
    statistics = record.statistics
    if statistics is None or statistics.settings.get("modules") == "unknown":
        return []
    archived = any(a.kind == "archive" for a in record.artifacts)
    with scratch(engine) as volume:
        if archived:
            extract(engine, folder, record.artifacts, volume, [image])
        else:
            verify_dump(folder, record.artifacts, statistics)
            _fill(engine, folder, _dump_of(record), statistics, volume, image)
        with _serving(engine, image, volume, statistics, record.name, user="0:0") as (_, counted):
            _require_equal(statistics, counted, record.name, "trial")
    what = "archive restored" if archived else "RDB restored"
    return [evidence("L4", record.name, f"{what} and started: {sum(d.rows for d in counted)} keys counted")]


def rebuild(
    engine: Engine, folder: Path, record: VolumeRecord, volume_name: str, progress: Callable[[int], None] = nothing
) -> None:
    """Put the RDB of a hot backup into the existing EMPTY volume, so that the server loads it whether it appends or not.

    A server that appends loads nothing but its append-only file; one may begin with an RDB (`aof-use-rdb-preamble`, Redis 4 and
    later), and one under its old name is taken over by Redis 7. A server of our own is started on it, which also brings it into
    its own shape, counts, and is stopped in order. Raises LookAgain for a volume that is not empty, VerifyFailed, BackupFailed.
    """
    image = next((u["image_id"] for u in record.users if engine.image(u["image_id"]) is not None), "")
    statistics = counted_before(engine, record, image, volume_name)
    verify_dump(folder, record.artifacts, statistics)
    dump = _dump_of(record)
    _fill(engine, folder, dump, statistics, volume_name, image, progress)
    if statistics.settings.get("modules") == "unknown":
        return
    uid, gid, _ = _owner(dump, "owner")
    with _serving(engine, image, volume_name, statistics, record.name, user=f"{uid}:{gid}") as (container_id, counted):
        _require_equal(statistics, counted, record.name, "restore")
        if engine.stop(container_id, timeout=STOP_SECONDS):
            raise VerifyFailed(f"volume {record.name}: the restored server was not stopped in order")


def _dump_of(record: VolumeRecord) -> Artifact:
    found = next((a for a in record.artifacts if a.kind == "database"), None)
    if found is None:
        raise VerifyFailed(f"volume {record.name}: the backup has no dump of its Redis server")
    return found


def _require_equal(wanted: ServerStatistics, found: tuple[DatabaseStatistics, ...], subject: str, stage: str) -> None:
    if wrong := differences(wanted.databases, found):
        raise VerifyFailed(
            f"volume {subject}: {stage}: counts differ: {wrong}; it is not counted as good",
            next_step="make a new backup, or restore from another one: safe-compose list",
        )


# -- filling -----------------------------------------------------------------------------------------------------------


def _fill(
    engine: Engine,
    folder: Path,
    dump: Artifact,
    statistics: ServerStatistics,
    volume: str,
    image: str,
    progress: Callable[[int], None] = nothing,
) -> None:
    settings = statistics.settings
    names = [settings.get("dbfilename", "dump.rdb")]
    if settings.get("appendonly") == "yes":
        names.append(settings.get("appendfilename", "appendonly.aof"))
    engine.archive_in(volume, image, _tar(folder, dump, PurePosixPath(settings.get("folder", ".")), names, progress))


def _tar(
    folder: Path, dump: Artifact, place: PurePosixPath, names: Sequence[str], progress: Callable[[int], None]
) -> Iterator[bytes]:
    """The volume's root, the data directory and the RDB under each of the names, with the owners that were recorded."""
    uid, gid, mode = _owner(dump, "root")
    yield _head("volume", tarfile.DIRTYPE, uid, gid, mode)
    uid, gid, mode = _owner(dump, "owner")
    at = PurePosixPath("volume")
    for part in place.parts:
        at /= part
        yield _head(str(at), tarfile.DIRTYPE, uid, gid, mode)
    for number, name in enumerate(names):
        yield _head(str(at / name), tarfile.REGTYPE, uid, gid, 0o600, dump.uncompressed_bytes)
        yield from unpack(folder, dump, progress=progress if number == 0 else nothing)
        yield bytes(-dump.uncompressed_bytes % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _head(path: str, kind: bytes, uid: int, gid: int, mode: int, size: int = 0) -> bytes:
    info = tarfile.TarInfo(path)
    info.type, info.uid, info.gid, info.mode, info.size, info.mtime = kind, uid, gid, mode, size, int(time.time())
    return info.tobuf(tarfile.PAX_FORMAT)


def _owner(dump: Artifact, name: str) -> tuple[int, int, int]:
    """Numeric user and group, and mode, as they were; root's where they could not be asked."""
    words = dump.detail.get(name, "").split()
    return (int(words[0]), int(words[1]), int(words[2], 8)) if len(words) == 3 else (0, 0, 0o755)


# -- serving -----------------------------------------------------------------------------------------------------------


@contextmanager
def _serving(
    engine: Engine, image: str, volume: str, statistics: ServerStatistics, subject: str, *, user: str
) -> Iterator[tuple[str, tuple[DatabaseStatistics, ...]]]:
    """A server of ours on a volume, on no network, that saves nothing; yields its container's id and its keys once it has
    loaded them. Raises VerifyFailed when it dies or takes too long."""
    settings = statistics.settings
    highest = max((int(d.name) for d in statistics.databases), default=0)
    argv = [settings.get("server", "redis-server"), "--dir", str(PurePosixPath(MOUNT, settings.get("folder", ".")))]
    argv += ["--dbfilename", settings.get("dbfilename", "dump.rdb"), "--appendonly", settings.get("appendonly", "no")]
    argv += ["--appendfilename", settings.get("appendfilename", "appendonly.aof")]
    if "appenddirname" in settings:
        argv += ["--appenddirname", settings["appenddirname"]]
    argv += ["--save", "", "--bind", "127.0.0.1", "--port", "6379", "--databases", str(max(16, highest + 1))]
    argv += ["--aof-load-truncated", "no"]
    for module in filter(None, settings.get("modules", "").split(":")):
        argv += ["--loadmodule", module]
    helper = Helper(
        image=image,
        argv=tuple(argv),
        volumes=((volume, MOUNT, False),),
        user=user,
        capabilities=("DAC_OVERRIDE",) if user == "0:0" else (),
    )
    with asking(f"volume {subject}", "start a server on it"), engine.serve(helper) as container_id:
        access = Access(container_id, "valkey-cli" if settings.get("server") == "valkey-server" else "redis-cli")
        yield container_id, _loaded(engine, access, subject)


def _loaded(engine: Engine, access: Access, subject: str) -> tuple[DatabaseStatistics, ...]:
    until = time.monotonic() + READY_SECONDS
    while True:
        now = engine.container(access.container)
        if now is None or now.state != "running":
            raise VerifyFailed(
                f"volume {subject}: the server that was started on it died: {last_log(engine, access.container)}",
                next_step="look at the lines above; the backup itself is kept",
            )
        try:
            return keyspace(ask(engine, access, "INFO", "keyspace")) if ask(engine, access, "PING") == "PONG" else ()
        except (Answer, HelperFailed) as error:  # it is loading, or about to listen
            if time.monotonic() > until:
                raise VerifyFailed(
                    f"volume {subject}: the server that was started on it did not answer within {READY_SECONDS:.0f} s: "
                    f"{last_log(engine, access.container)}"
                ) from error
            time.sleep(0.1)
