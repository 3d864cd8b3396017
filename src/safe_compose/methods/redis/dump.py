"""The RDB of a running server: saved in the background and read, or taken as a replica would; and the proof from the disk."""

import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from safe_compose.artifacts import Artifact, Evidence, ServerStatistics, slug
from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import BackupFailed, VerifyFailed
from safe_compose.methods.archive import feed, last_words
from safe_compose.methods.database import LeftBehind
from safe_compose.methods.redis.rdb import BadRdb, Snapshot, read
from safe_compose.methods.redis.server import (
    Answer,
    Server,
    ask,
    ask_facts,
    asking,
    client_words,
    database,
    environment,
)
from safe_compose.methods.stream import Sums, blocks_of, evidence, new_folder, nothing, pack, sync_folder, unpack, unproved

RDB_FILE = "dump.rdb.gz"
SAVE_SECONDS = 3600.0
"""How long a save may take; it is polled, and one that fails is seen at once."""

_MARK = 40
"""Bytes that redis-cli leaves behind an RDB on its stdout where the server sent it without its length (redis-cli.c, getRDB)."""
_BUSY = re.compile(r"in progress|can't BGSAVE right now|scheduled", re.I)


@dataclass(frozen=True, slots=True)
class Dump:
    """What `dump` made of one server."""

    server: Server
    artifacts: tuple[Artifact, ...]
    statistics: ServerStatistics
    warnings: tuple[str, ...] = ()

    def written_since(self, engine: Engine) -> bool:
        """Taken for yes: before a deletion no dump is made, so nobody asks."""
        return True

    def is_older_than(self, left: LeftBehind) -> bool:
        """Not asked either."""
        return False


def dump(engine: Engine, server: Server, volume: str, into: Path, progress: Callable[[int], None] = nothing) -> Dump:
    """One RDB of all databases into `into/<slug of the volume>/`.

    A server that keeps its data in memory alone is asked as a replica asks, so that no file appears on its volume that it would
    load at its next start; else it saves in the background and that file is read. Raises BackupFailed.
    """
    name = server.container.name
    if server.volume != volume:
        raise BackupFailed(f"volume {volume}: the server in {name} keeps its data in {server.volume}")
    folder = into / slug(volume)
    new_folder(folder, subject=volume, stage="dump")
    with asking(name, "look at its clock"):
        begun = int(ask(engine, server.access, "TIME").split()[0])
    warnings = list(server.warnings)
    if server.memory_only:
        sums, snapshot = _as_replica(engine, server, folder, into, progress)
        warnings.append(f"{name} keeps its data in memory alone (no save points, no append-only file): a restart of it loses it")
    else:
        _save_in_background(engine, server, begun)
        argv = ("cat", str(PurePosixPath(server.settings["dir"], server.settings["dbfilename"])))
        sums = _packed(engine, server, argv, {}, folder / RDB_FILE, progress)
        snapshot = _read(into, _artifact(folder / RDB_FILE, into, volume, sums))
    artifact = _artifact(folder / RDB_FILE, into, volume, sums, **_owners(engine, server))
    if snapshot.made is not None and snapshot.made < begun:
        raise BackupFailed(
            f"volume {volume}: the server that answered in {name} is not the one that keeps its data there: the file is older "
            "than the save",
            next_step=f"docker inspect {name}",
        )
    _require_checksum(engine, server, into, artifact)
    if others := _others(engine, server):
        warnings.append(f"other files of the volume are in no dump: {', '.join(others[:5])}")
    sync_folder(folder, subject=volume, stage="dump")
    sync_folder(into, subject=volume, stage="dump")
    counted = tuple(database(number, keys.lasting, keys.expiring) for number, keys in sorted(snapshot.databases.items()))
    return Dump(server, (artifact,), server.statistics(counted), tuple(warnings))


def wait_for_saves(engine: Engine, server: Server) -> dict[str, str]:
    """INFO, once nothing is being saved or rewritten any more. Raises BackupFailed."""
    name = server.container.name
    until = time.monotonic() + SAVE_SECONDS
    while True:
        with asking(name, "look at its saves"):
            facts = ask_facts(engine, server.access)
        running = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
        if not any(facts.get(key) == "1" for key in running):
            return facts
        if time.monotonic() > until:
            raise BackupFailed(f"{name}: it has been saving for {SAVE_SECONDS:.0f} s; nothing was dumped")
        time.sleep(0.1)  # between two questions; the end is bounded


def _save_in_background(engine: Engine, server: Server, begun: int) -> None:
    """BGSAVE, and wait until that very save is on the disk."""
    name = server.container.name
    for _ in range(20):  # whoever else saves meanwhile ends at some time
        wait_for_saves(engine, server)
        try:
            with asking(name, "BGSAVE"):
                try:
                    ask(engine, server.access, "BGSAVE")
                except Answer as answer:
                    if _BUSY.search(str(answer)):
                        continue
                    raise
        except BackupFailed as fault:
            raise BackupFailed(
                f"{fault.message} (it cannot save in the background: no memory to fork, or its disk is full); nothing was dumped",
                next_step=f"docker logs --tail 20 {name}",
            ) from fault
        facts = wait_for_saves(engine, server)
        saved = facts.get("rdb_last_bgsave_status") == "ok" and int(facts.get("rdb_last_save_time", "0")) >= begun
        if not saved:
            raise BackupFailed(
                f"{name}: its save failed (rdb_last_bgsave_status:{facts.get('rdb_last_bgsave_status')}); nothing was dumped",
                next_step=f"docker logs --tail 20 {name}",
            )
        return
    raise BackupFailed(f"{name}: somebody else kept it saving; nothing was dumped", next_step="repeat the command")


def _as_replica(engine: Engine, server: Server, folder: Path, into: Path, progress: Callable[[int], None]) -> tuple[Sums, Snapshot]:
    argv = (*client_words(server.access), "--rdb", "-")
    first = folder / f"raw-{RDB_FILE}"
    sums = _packed(engine, server, argv, environment(server.access), first, progress)
    raw = _artifact(first, into, server.volume, sums)
    snapshot = _read(into, raw, mark=_MARK)
    if snapshot.bytes == sums.uncompressed_bytes:
        first.rename(folder / RDB_FILE)
        return sums, snapshot
    again = pack(_first(unpack(into, raw), snapshot.bytes), folder / RDB_FILE, subject=server.volume, stage="dump")
    first.unlink()
    return again, snapshot


def _first(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    for block in blocks:
        if size > 0:
            yield block[:size]
        size -= len(block)


def _packed(
    engine: Engine, server: Server, argv: Sequence[str], given: dict[str, str], path: Path, progress: Callable[[int], None]
) -> Sums:
    with (
        asking(server.container.name, "read its RDB"),
        engine.execute_stream(server.container.id, tuple(argv), environment=given) as made,
    ):
        return pack(blocks_of(made.stdout), path, subject=server.volume, stage="dump", progress=progress)


def _artifact(path: Path, into: Path, volume: str, sums: Sums, **detail: str) -> Artifact:
    return Artifact(
        file=path.relative_to(into).as_posix(),
        kind="database",
        bytes=sums.bytes,
        sha256=sums.sha256,
        uncompressed_bytes=sums.uncompressed_bytes,
        volume=volume,
        detail={"format": "rdb", **detail},
    )


def _read(into: Path, artifact: Artifact, *, mark: int = 0) -> Snapshot:
    try:
        return read(unpack(into, artifact), mark=mark)
    except BadRdb as error:
        raise BackupFailed(f"volume {artifact.volume}: dump: what the server sent is no whole RDB file: {error}") from error


def _require_checksum(engine: Engine, server: Server, into: Path, artifact: Artifact) -> None:
    """The file's own CRC64, by the checker of the server's image where it has one; raises BackupFailed."""
    program = "valkey-check-rdb" if server.product == "Valkey" else "redis-check-rdb"
    helper = Helper(image=server.container.image_id, argv=(program, "/dev/stdin"), user="0:0")
    try:
        with engine.stream(helper, stdin=subprocess.PIPE, discard=True) as checked:
            feed(unpack(into, artifact), checked.stdin)
    except HelperFailed as error:
        if error.returncode in (126, 127):
            return  # no such program in there: its structure was read to the end all the same
        raise BackupFailed(f"volume {artifact.volume}: dump: {program} rejects it: {last_words(error)}") from error


def _owners(engine: Engine, server: Server) -> dict[str, str]:
    """`uid gid mode` of the data directory and of the volume's root, for the day when they are made again."""
    directory = PurePosixPath(server.settings["dir"])
    root = directory if server.folder == "." else PurePosixPath(str(directory).removesuffix(server.folder))
    places = {"owner": directory, "root": root}
    known = {}
    for path in dict.fromkeys(places.values()):
        try:
            said = engine.execute(server.container.id, ("stat", "-c", "%u %g %a", str(path)), timeout=60)
        except HelperFailed:
            continue  # no stat in there: root's, and the image's entrypoint gives them to whom it starts as
        known[path] = said.decode("ascii", "replace").strip()
    return {name: known[path] for name, path in places.items() if path in known}


def _others(engine: Engine, server: Server) -> list[str]:
    """What lies beside the data at the root of the volume."""
    known = {server.settings.get(name, "") for name in ("dbfilename", "appendfilename", "appenddirname")}
    names = engine.list_root(server.volume, server.container.image_id) or []
    if server.folder != ".":
        return []
    return sorted(n for n in names if n not in known and not re.fullmatch(r"temp-.*\.(rdb|aof)|lost\+found", n))


# -- proof -------------------------------------------------------------------------------------------------------------


def verify_dump(folder: Path, artifacts: Sequence[Artifact], statistics: ServerStatistics) -> list[Evidence]:
    """Read the RDB of one volume from the disk: sums, whole gzip stream, whole file, its keys equal to their counts (L3).

    Raises VerifyFailed, also when there is neither an RDB nor an archive.
    """
    dumps = [a for a in artifacts if a.kind == "database"]
    if not dumps and not any(a.kind == "archive" for a in artifacts):
        raise VerifyFailed("the backup has no dump of its Redis server; it is not counted as good", next_step="make a new backup")
    found = []
    for artifact in dumps:
        try:
            snapshot = read(unpack(folder, artifact))
        except BadRdb as error:
            raise unproved(artifact, str(error)) from error
        counted = tuple(database(n, keys.lasting, keys.expiring) for n, keys in sorted(snapshot.databases.items()))
        if counted != statistics.databases:
            raise unproved(artifact, "it does not hold the keys that were counted when it was made")
        keys = sum(d.rows for d in counted)
        found.append(
            evidence("L3", artifact.file, f"whole RDB read, {keys} keys in {len(counted)} databases equal to their counts")
        )
    return found
