"""Dumps of running Redis and Valkey servers as RDB files, and their verification.

A server saves in the background and the file is read, or it sends the RDB as to a replica.
"""

import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from safe_compose.core.backup import Artifact, Evidence, ServerStatistics
from safe_compose.core.observed import describe_location
from safe_compose.core.owners import parse_owner
from safe_compose.core.text import shell_quote
from safe_compose.databases import server_files
from safe_compose.databases.dumps import make_artifact, making_dump_folder
from safe_compose.databases.protocol import ShutdownState, understanding
from safe_compose.databases.redis.client import ErrorAnswer, asking
from safe_compose.databases.redis.discover import RedisServer
from safe_compose.databases.redis.info import count_database, parse_number
from safe_compose.databases.redis.rdb import BadRdb, Snapshot, read
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.errors import OperationFailed, VerificationFailed
from safe_compose.volumes.gzip_stream import (
    Sums,
    make_damage_fault,
    make_evidence,
    pack,
    read_blocks,
    show_nothing,
    unpack,
)
from safe_compose.volumes.helper_program import feed, read_last_words

RDB_FILE = "dump.rdb.gz"
SAVE_SECONDS = 3600.0
"""Time limit for a save; it is polled, and a failure is seen at once."""

_MARK = 40
"""Bytes that redis-cli writes after an RDB on its stdout if the server sent it without its length
(redis-cli.c, getRDB).
"""
_BUSY = re.compile(r"in progress|can't BGSAVE right now|scheduled", re.I)


@dataclass(frozen=True, slots=True)
class RedisDump:
    """The result of dumping one server."""

    server: RedisServer
    artifacts: tuple[Artifact, ...]
    statistics: ServerStatistics
    warnings: tuple[str, ...] = ()

    def was_written_since(self) -> bool:
        """Return True; nobody asks, since no dump is made before a deletion."""
        return True

    def is_older_than(self, _left: ShutdownState) -> bool:
        """Return False; nobody asks, since no dump is made before a deletion."""
        return False


def dump(
    server: RedisServer, volume: str, into: Path, progress: Callable[[int], None] = show_nothing
) -> RedisDump:
    """Write one RDB of all databases into `into/<slug of the volume>/`.

    A server that keeps its data in memory alone is asked as a replica asks, so that no file appears
    on its volume that it would load at its next start. Any other server saves in the background,
    and that file is read.

    Raises:
        OperationFailed: The server did not save, or what it sent is not its data.
    """
    name = server.container.name
    with making_dump_folder(server, volume, into) as folder:
        with asking(name, "look at its clock"), understanding(name):
            begun = int(server.client.ask("TIME").split()[0])
        warnings = list(server.warnings)
        if server.memory_only:
            sums, snapshot = _copy_as_replica(server, folder, into, progress)
            lasting = "no save points, no append-only file"
            warnings.append(
                f"{name} keeps its data in memory alone ({lasting}): a restart of it loses it"
            )
        else:
            _save_in_background(server, begun)
            path = PurePosixPath(server.settings["dir"], server.settings["dbfilename"])
            argv = ("cat", str(path))
            sums = _pack(server, argv, {}, folder / RDB_FILE, progress)
            snapshot = _read(into, _artifact(folder / RDB_FILE, into, volume, sums))
        artifact = _artifact(folder / RDB_FILE, into, volume, sums, **_owners(server))
        if snapshot.made is not None and snapshot.made < begun:
            raise OperationFailed(
                f"{describe_location(volume)}:"
                f" the server that answered in {name} is not the one that keeps its"
                " data there: the file is older than the save",
                next_step=f"docker inspect {shell_quote(name)}",
            )
        _require_checksum(server, into, artifact)
        files = server_files.read_by_programs(
            server.at, server.settings["dir"], *_make_find_tests(server)
        )
        owner = artifact.detail.get("owner", "")
        others = server_files.keep(
            files, _read_running(server), folder, into, volume, server.folder, owner
        )
        warnings += server_files.note(others)
    counted = tuple(
        count_database(number, keys.lasting, keys.expiring)
        for number, keys in sorted(snapshot.databases.items())
    )
    return RedisDump(server, (artifact, *others), server.statistics(counted), tuple(warnings))


def _make_find_tests(server: RedisServer) -> tuple[str, ...]:
    """Return the tests of `find` for the files that are not data.

    These are a rewritten configuration, a list of accounts, the state of a cluster.
    """
    named = [server.settings[n] for n in ("dbfilename", "appendfilename") if server.settings.get(n)]
    return tuple(
        word for name in (*named, "*.rdb", "*.aof", "*.log") for word in ("!", "-name", name)
    )


def _read_running(server: RedisServer) -> str:
    """Return the configuration and accounts of the running server, secrets included.

    Settings that were changed at run time need not be in any file. The text is empty if the server
    does not answer.
    """
    parts = []
    for words in (("CONFIG", "GET", "*"), ("ACL", "LIST")):
        with suppress(ErrorAnswer, HelperFailed):
            parts.append(f"# {' '.join(words)}\n{server.client.ask(*words)}\n")
    return "".join(parts)


def wait_for_saves(server: RedisServer) -> dict[str, str]:
    """Wait until nothing is being saved or rewritten, and return INFO.

    Raises:
        OperationFailed: The server does not answer, or saves for longer than SAVE_SECONDS.
    """
    name = server.container.name
    until = time.monotonic() + SAVE_SECONDS
    while True:
        with asking(name, "look at its saves"):
            facts = server.client.facts()
        running = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
        if not any(facts.get(key) == "1" for key in running):
            return facts
        if time.monotonic() > until:
            raise OperationFailed(
                f"{name}: it has been saving for {SAVE_SECONDS:.0f} s; nothing was dumped"
            )
        time.sleep(0.1)  # between two questions; the loop has a time limit


def _save_in_background(server: RedisServer, begun: int) -> None:
    """Run BGSAVE and wait until that save is on the disk.

    Raises:
        OperationFailed: The save failed.
    """
    name = server.container.name
    for _ in range(20):  # a save by somebody else ends at some time
        wait_for_saves(server)
        try:
            with asking(name, "BGSAVE"):
                try:
                    server.client.ask("BGSAVE")
                except ErrorAnswer as answer:
                    if _BUSY.search(str(answer)):
                        continue
                    raise
        except OperationFailed as fault:
            raise OperationFailed(
                f"{fault.message} (it cannot save in the background: no memory to fork, or its disk"
                " is full); nothing was dumped",
                next_step=f"docker logs --tail 20 {shell_quote(name)}",
            ) from fault
        facts = wait_for_saves(server)
        saved = (
            facts.get("rdb_last_bgsave_status") == "ok"
            and parse_number(facts.get("rdb_last_save_time", "")) >= begun
        )
        if not saved:
            raise OperationFailed(
                f"{name}: its save failed"
                f" (rdb_last_bgsave_status:{facts.get('rdb_last_bgsave_status')}); nothing was"
                " dumped",
                next_step=f"docker logs --tail 20 {shell_quote(name)}",
            )
        return
    raise OperationFailed(
        f"{name}: somebody else kept it saving; nothing was dumped", next_step="repeat the command"
    )


def _copy_as_replica(
    server: RedisServer, folder: Path, into: Path, progress: Callable[[int], None]
) -> tuple[Sums, Snapshot]:
    argv = (*server.client.argv(), "--rdb", "-")
    first = folder / f"raw-{RDB_FILE}"
    sums = _pack(server, argv, server.client.secrets(), first, progress)
    raw = _artifact(first, into, server.volume, sums)
    snapshot = _read(into, raw, mark=_MARK)
    if snapshot.bytes == sums.uncompressed_bytes:
        first.rename(folder / RDB_FILE)
        return sums, snapshot
    again = pack(
        _first(unpack(into, raw), snapshot.bytes),
        folder / RDB_FILE,
        subject=server.volume,
        stage="dump",
    )
    first.unlink()
    return again, snapshot


def _first(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    for block in blocks:
        if size > 0:
            yield block[:size]
        size -= len(block)


def _pack(
    server: RedisServer,
    argv: Sequence[str],
    given: Mapping[str, str],
    path: Path,
    progress: Callable[[int], None],
) -> Sums:
    with (
        asking(server.container.name, "read its RDB"),
        server.engine.helpers.execute_stream(
            server.container.id, tuple(argv), environment=given
        ) as made,
    ):
        return pack(
            read_blocks(made.stdout), path, subject=server.volume, stage="dump", progress=progress
        )


def _artifact(path: Path, into: Path, volume: str, sums: Sums, **detail: str) -> Artifact:
    return make_artifact(path, into, sums, volume, "database", detail={"format": "rdb", **detail})


def _read(into: Path, artifact: Artifact, *, mark: int = 0) -> Snapshot:
    try:
        return read(unpack(into, artifact), mark=mark)
    except BadRdb as error:
        raise OperationFailed(
            f"{describe_location(artifact.volume)}:"
            f" dump: what the server sent is no whole RDB file: {error}"
        ) from error


def _require_checksum(server: RedisServer, into: Path, artifact: Artifact) -> None:
    """Check the file's own CRC64 with the checker of the server's image, if it has one.

    Raises:
        OperationFailed: The checker rejects the file.
    """
    program = "valkey-check-rdb" if server.product == "Valkey" else "redis-check-rdb"
    helper = Helper(image=server.container.image_id, argv=(program, "/dev/stdin"), user="0:0")
    try:
        with server.engine.helpers.stream(helper, stdin=subprocess.PIPE, discard=True) as checked:
            feed(unpack(into, artifact), checked.stdin)
    except HelperFailed as error:
        if error.returncode in (126, 127):
            return  # the image has no such program; the structure was read to the end all the same
        raise OperationFailed(
            f"{describe_location(artifact.volume)}:"
            f" dump: {program} rejects it: {read_last_words(error)}"
        ) from error


def _owners(server: RedisServer) -> dict[str, str]:
    """Return `uid gid mode` of the data directory and of the volume's root, for a later restore."""
    directory = PurePosixPath(server.settings["dir"])
    root = (
        directory
        if server.folder == "."
        else PurePosixPath(str(directory).removesuffix(server.folder))
    )
    places = {"owner": directory, "root": root}
    known = {}
    for path in dict.fromkeys(places.values()):
        try:
            output = server.engine.helpers.execute(
                server.container.id, ("stat", "-c", "%u %g %a", str(path)), timeout=60
            )
        except HelperFailed:
            # The image has no stat: then they become root's, and its entrypoint gives them to the
            # server's user.
            continue
        words = output.decode("ascii", "replace").strip()
        with suppress(ValueError):  # a stat that prints only its own name counts as none
            parse_owner(words)
            known[path] = words
    return {name: known[path] for name, path in places.items() if path in known}


# -- verify ----------------------------------------------------------------------------------------


def verify_dump(
    folder: Path, artifacts: Sequence[Artifact], statistics: ServerStatistics
) -> list[Evidence]:
    """Verify the RDB of one volume at level L3 and return the evidence.

    L3 means: checksums match, the gzip stream and the file are complete, and the keys equal their
    counts.

    Raises:
        VerificationFailed: The RDB is damaged or differs, or there is neither an RDB nor an
            archive.
    """
    dumps = [a for a in artifacts if a.kind == "database"]
    if not dumps and not any(a.kind == "archive" for a in artifacts):
        raise VerificationFailed(
            "the backup has no dump of its Redis server; it is not counted as good",
            next_step="make a new backup",
        )
    found = []
    for artifact in dumps:
        try:
            snapshot = read(unpack(folder, artifact))
        except BadRdb as error:
            raise make_damage_fault(artifact, str(error)) from error
        counted = tuple(
            count_database(n, keys.lasting, keys.expiring)
            for n, keys in sorted(snapshot.databases.items())
        )
        if counted != statistics.databases:
            raise make_damage_fault(
                artifact, "it does not hold the keys that were counted when it was made"
            )
        keys = sum(d.rows for d in counted)
        found.append(
            make_evidence(
                "L3",
                artifact.file,
                f"whole RDB read, {keys} keys in {len(counted)} databases equal to their counts",
            )
        )
    return found
