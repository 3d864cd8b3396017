"""Restore of an RDB or an archive for a Redis or Valkey server, for good or as a test."""

import re
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from safe_compose.core.backup import (
    Artifact,
    DatabaseStatistics,
    Evidence,
    ServerStatistics,
    VolumeRecord,
)
from safe_compose.core.observed import describe_location
from safe_compose.databases.protocol import read_statistics
from safe_compose.databases.redis.client import ErrorAnswer, RedisClient, asking
from safe_compose.databases.redis.discover import is_file_name
from safe_compose.databases.redis.dump import verify_dump
from safe_compose.databases.redis.info import describe_differences, parse_keyspace, parse_number
from safe_compose.databases.trials import (
    STOP_SECONDS,
    ServerTrial,
    TrialSkipped,
    making_scratch_volume,
    read_last_log,
)
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.errors import VerificationFailed
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.gzip_stream import make_evidence, show_nothing, unpack
from safe_compose.volumes.helper_program import MOUNT

READY_SECONDS = 600.0
"""Time limit for a server of ours to load its data; one that dies is seen at once."""
MOST_DATABASES = 100_000
"""Each database costs a server memory, even an empty one."""
_SURROUNDINGS = re.compile(
    r"[Cc]an't load module|Can't initialize module|failed to load: |module type"
    r"|cannot open shared object|[Oo]ut [Oo]f [Mm]emory"
    r"|Can't allocate|[Cc]annot allocate|FATAL CONFIG FILE ERROR|No space left|Failed listening",
)
"""Log messages of a server that does not start because of its environment (a module on another
mount), not of the data.
"""
_SERVERS = ("redis-server", "valkey-server", "keydb-server")


class RedisTrial(ServerTrial):
    """A test restore of an archive, or else of an RDB."""

    def run(self) -> list[Evidence]:
        """Test the restore, as `ServerTrial.run` does.

        Raises:
            TrialSkipped: Its server had a module whose file is not known.
        """
        statistics = self.record.statistics
        if statistics is not None and statistics.settings.get("modules") == "unknown":
            raise TrialSkipped("its server had loaded a module, and did not say from which file")
        return super().run()

    def test_archive(self) -> Evidence:
        """Test the archive, as `ServerTrial.test_archive` does."""
        with self.extracting() as volume:
            return self._serve(volume, "archive restored")

    def test_dump(self) -> Evidence:
        """Test the RDB, as `ServerTrial.test_dump` does."""
        verify_dump(self.folder, self.record.artifacts, self.statistics)
        with making_scratch_volume(self.engine) as volume:
            _fill(volume, self.folder, _dump_of(self.record), self.statistics)
            return self._serve(volume, "RDB restored")

    def _serve(self, location: EngineLocation, restored: str) -> Evidence:
        """Start a server on a volume, and return the evidence that it has the counted keys.

        Raises:
            VerificationFailed: No server starts on the data, or it holds other keys.
        """
        name = self.record.name
        with _serving(location, self.image, self.statistics, name, user="0:0") as (_, counted):
            _require_equal(self.statistics, counted, name, "trial")
        keys = sum(d.rows for d in counted)
        return make_evidence("L4", name, f"{restored} and started: {keys} keys counted")


def rebuild(
    location: EngineLocation,
    folder: Path,
    record: VolumeRecord,
    progress: Callable[[int], None] = show_nothing,
) -> tuple[str, ...]:
    """Restore the RDB of a hot backup into an existing empty volume, so that a server loads it.

    A server that appends loads nothing but its append-only file; that file may begin with an RDB
    (`aof-use-rdb-preamble`, Redis 4 and later), and Redis 7 takes over one under its old name. So
    the RDB is written under both names if the server appends. A server of our own is started on the
    data, which also converts it into its own format; it counts the keys and is stopped properly.

    Raises:
        StateChanged: The volume is not empty.
        VerificationFailed: The RDB is damaged, or the restored server holds other keys.
        OperationFailed: The engine cannot restore the volume.
    """
    engine = location.engine
    image = next(
        (u["image_id"] for u in record.users if engine.docker.image(u["image_id"]) is not None), ""
    )
    statistics = read_statistics(location, record, image)
    verify_dump(folder, record.artifacts, statistics)
    dump = _dump_of(record)
    _fill(location, folder, dump, statistics, progress)
    if statistics.settings.get("modules") == "unknown":
        return ()
    uid, gid, _ = _owner(dump, "owner")
    with _serving(location, image, statistics, record.name, user=f"{uid}:{gid}") as (
        container_id,
        counted,
    ):
        _require_equal(statistics, counted, record.name, "restore")
        if engine.docker.stop(container_id, timeout=STOP_SECONDS):
            raise VerificationFailed(
                f"{describe_location(record.name)}: the restored server was not stopped in order"
            )
    return ()


def _dump_of(record: VolumeRecord) -> Artifact:
    found = next((a for a in record.artifacts if a.kind == "database"), None)
    if found is None:
        raise VerificationFailed(
            f"{describe_location(record.name)}: the backup has no dump of its Redis server"
        )
    return found


def _require_equal(
    wanted: ServerStatistics, found: tuple[DatabaseStatistics, ...], subject: str, stage: str
) -> None:
    if wrong := describe_differences(wanted.databases, found):
        raise VerificationFailed(
            f"{describe_location(subject)}:"
            f" {stage}: counts differ: {wrong}; it is not counted as good",
            next_step="make a new backup, or restore from another one: safe-compose list",
        )


# -- fill a volume ---------------------------------------------------------------------------------


def _fill(
    location: EngineLocation,
    folder: Path,
    dump: Artifact,
    statistics: ServerStatistics,
    progress: Callable[[int], None] = show_nothing,
) -> None:
    settings = statistics.settings
    _require_known(settings, location.name)
    names = [settings.get("dbfilename", "dump.rdb")]
    if settings.get("appendonly") == "yes":
        names.append(settings.get("appendfilename", "appendonly.aof"))
    location.engine.archives.unpack(
        location.name,
        _tar(folder, dump, PurePosixPath(settings.get("folder", ".")), names, progress),
    )


def _tar(
    folder: Path,
    dump: Artifact,
    place: PurePosixPath,
    names: Sequence[str],
    progress: Callable[[int], None],
) -> Iterator[bytes]:
    """Yield a tar of the volume's root, the data directory and the RDB under each of the names.

    Owners and modes are those that were recorded.
    """
    uid, gid, mode = _owner(dump, "root")
    yield _head("volume", tarfile.DIRTYPE, uid, gid, mode)
    uid, gid, mode = _owner(dump, "owner")
    at = PurePosixPath("volume")
    for part in place.parts:
        at /= part
        yield _head(str(at), tarfile.DIRTYPE, uid, gid, mode)
    for name in names:
        yield _head(str(at / name), tarfile.REGTYPE, uid, gid, 0o600, dump.uncompressed_bytes)
        yield from unpack(folder, dump, progress=progress if name == names[0] else show_nothing)
        yield bytes(-dump.uncompressed_bytes % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _head(path: str, kind: bytes, uid: int, gid: int, mode: int, size: int = 0) -> bytes:
    info = tarfile.TarInfo(path)
    info.type, info.uid, info.gid, info.mode, info.size, info.mtime = (
        kind,
        uid,
        gid,
        mode,
        size,
        int(time.time()),
    )
    return info.tobuf(tarfile.PAX_FORMAT)


def _owner(dump: Artifact, name: str) -> tuple[int, int, int]:
    """Return the recorded user, group and mode; root's if they are unknown."""
    words = re.fullmatch(r"(\d{1,10}) (\d{1,10}) ([0-7]{1,4})", dump.detail.get(name, ""), re.ASCII)
    return (int(words[1]), int(words[2]), int(words[3], 8)) if words else (0, 0, 0o755)


# -- run a server ----------------------------------------------------------------------------------


def _require_known(settings: Mapping[str, str], subject: str) -> None:
    """Refuse settings of a record that no server has.

    A backup may come from somewhere else, and its settings become words of a command.

    Raises:
        VerificationFailed: A setting is invalid.
    """
    names = [
        settings[name]
        for name in ("dbfilename", "appendfilename", "appenddirname")
        if name in settings
    ]
    invalid = [name for name in names if not is_file_name(name)]
    invalid += [s for s in [settings.get("server", _SERVERS[0])] if s not in _SERVERS]
    folder = settings.get("folder", ".")
    invalid += [folder] if folder.startswith("/") or ".." in PurePosixPath(folder).parts else []
    if invalid:
        raise VerificationFailed(
            f"{describe_location(subject)}:"
            f" the backup has a setting that no server has: {invalid[0]!r}"
        )


@contextmanager
def _serving(
    location: EngineLocation,
    image: str,
    statistics: ServerStatistics,
    subject: str,
    *,
    user: str,
) -> Iterator[tuple[str, tuple[DatabaseStatistics, ...]]]:
    """Run a server of ours on a volume, without a network and without saving.

    Yields:
        The id of its container, and its keys once it has loaded them.

    Raises:
        VerificationFailed: The server dies because of the data, or takes too long.
        TrialSkipped: The server dies because of its environment.
    """
    helper = Helper(
        image=image,
        argv=_argv(statistics, subject),
        volumes=((location.name, MOUNT, False),),
        user=user,
        capabilities=("DAC_OVERRIDE",) if user == "0:0" else (),
    )
    with (
        asking(f"volume {subject}", "start a server on it"),
        location.engine.helpers.serve(helper) as container_id,
    ):
        valkey = statistics.settings.get("server") == "valkey-server"
        program = "valkey-cli" if valkey else "redis-cli"
        yield (
            container_id,
            _wait_loaded(RedisClient(location.engine, container_id, image, program), subject),
        )


def _argv(statistics: ServerStatistics, subject: str) -> tuple[str, ...]:
    """Return the command of a server of ours with the settings that its data needs.

    Raises:
        VerificationFailed: A setting of the backup is invalid, or it names too many databases.
    """
    settings = statistics.settings
    _require_known(settings, subject)
    highest = max((parse_number(d.name) for d in statistics.databases), default=0)
    if highest > MOST_DATABASES:
        raise VerificationFailed(
            f"{describe_location(subject)}:"
            f" it names database {highest}; no server of ours is started with so"
            " many"
        )
    options = {
        "dir": str(PurePosixPath(MOUNT, settings.get("folder", "."))),
        "dbfilename": settings.get("dbfilename", "dump.rdb"),
        "appendonly": settings.get("appendonly", "no"),
        "appendfilename": settings.get("appendfilename", "appendonly.aof"),
        **({"appenddirname": settings["appenddirname"]} if "appenddirname" in settings else {}),
        "save": "",
        "bind": "127.0.0.1",
        "port": "6379",
        "databases": str(max(16, highest + 1)),
        "aof-load-truncated": "no",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    for module in filter(None, settings.get("modules", "").split(":")):
        words += ["--loadmodule", module]
    return (settings.get("server", _SERVERS[0]), *words)


def _wait_loaded(client: RedisClient, subject: str) -> tuple[DatabaseStatistics, ...]:
    until = time.monotonic() + READY_SECONDS
    while True:
        now = client.engine.docker.container(client.container)
        if now is None or now.state != "running":
            log, code = (
                read_last_log(client.engine, client.container),
                now.exit_code if now is not None else 0,
            )
            outside = code in (125, 126, 127, 137) or _SURROUNDINGS.search(log) is not None
            raise (TrialSkipped if outside else VerificationFailed)(
                f"{describe_location(subject)}: the server that was started on it died: {log}",
                next_step="look at the lines above; the backup itself is kept",
            )
        try:
            return (
                parse_keyspace(client.ask("INFO", "keyspace"))
                if client.ask("PING") == "PONG"
                else ()
            )
        except (ErrorAnswer, HelperFailed) as error:  # it is loading, or not listening yet
            if time.monotonic() > until:
                raise VerificationFailed(
                    f"{describe_location(subject)}:"
                    " the server that was started on it did not answer within"
                    f" {READY_SECONDS:.0f} s: {read_last_log(client.engine, client.container)}"
                ) from error
            time.sleep(0.1)
