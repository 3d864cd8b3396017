"""A physical copy of a running server by pg_basebackup, with the manifest that the server writes; and the way back into a
volume. The fastest way for a big database; it serves the same major version on the same kind of machine only.
"""

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from safe_compose.artifacts import Artifact, DatabaseStatistics, ServerStatistics, slug
from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import BackupFailed, VerifyFailed
from safe_compose.methods.archive import MOUNT, feed, last_words
from safe_compose.methods.database import NoCopy
from safe_compose.methods.postgres.dump import Dump, count
from safe_compose.methods.postgres.server import ASK_TIMEOUT, Server, ask, fault, reading, stream
from safe_compose.methods.stream import blocks_of, check, new_folder, nothing, pack, sync_folder, unpack, whole

COPY_FILE = "base.tar.gz"
SINCE = 13
"""The first major version that writes a manifest."""

_WRITE = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")


def base_of(artifacts: Sequence[Artifact]) -> Artifact | None:
    """The physical copy among artifacts."""
    return next((a for a in artifacts if a.kind == "base"), None)


def copy(engine: Engine, server: Server, volume: str, into: Path, progress: Callable[[int], None] = nothing) -> Dump:
    """Copy the files of a running server into `into/<slug of the volume>/base.tar.gz`, and count what it serves.

    Where somebody wrote meanwhile the counts are not those of the copy: `Dump.written_since` tells, as for a dump. Raises
    NoCopy when the server does not give one, which says nothing against a dump; BackupFailed.
    """
    if server.volume != volume:
        raise BackupFailed(f"volume {volume}: the server in {server.container.name} keeps its data in {server.volume}")
    if int(server.version.partition(".")[0]) < SINCE:
        raise NoCopy(f"{server.title} writes no manifest that a copy could be held against")
    folder = into / slug(volume)
    new_folder(folder, subject=volume, stage="copy")
    folders = _folders(engine, server)
    before = reading(engine, server)
    argv = (
        "pg_basebackup",
        "--pgdata=-",
        "--format=tar",
        "--wal-method=fetch",  # the only one that goes to stdout
        "--checkpoint=fast",
        "--manifest-checksums=SHA256",
        "--label=safe-compose",
        "--no-password",
        f"--dbname={server.address.conninfo(server.maintenance)}",
    )
    path = folder / COPY_FILE
    try:
        # Attached: pg_basebackup writes one tar into a folder or to stdout, never into a pipe that it is shown.
        with whole(path), stream(engine, server.address, argv) as made:
            sums = pack(blocks_of(made.stdout), path, subject=volume, stage="copy", progress=progress)
    except HelperFailed as error:
        raise NoCopy(f"pg_basebackup: {last_words(error)}") from error
    with fault(volume, "count"):
        databases, emptied = _without_unlogged(engine, server, count(engine, server))
    sync_folder(folder, subject=volume, stage="copy")
    sync_folder(into, subject=volume, stage="copy")
    artifact = Artifact(
        file=path.relative_to(into).as_posix(),
        kind="base",
        bytes=sums.bytes,
        sha256=sums.sha256,
        uncompressed_bytes=sums.uncompressed_bytes,
        volume=volume,
        detail={
            "by": "side container" if server.address.side else "exec",
            "pgdata": server.pgdata,
            "folders": json.dumps(folders),
        },
    )
    found = ServerStatistics(
        kind="postgres",
        version=server.version,
        user=server.user,
        system_identifier=server.system_identifier,
        pgdata=server.data_directory,
        databases=databases,
        settings=server.settings,
    )
    notes = (f"unlogged tables are empty in a physical copy, as after a crash: {', '.join(emptied)}",) if emptied else ()
    return Dump(server, (artifact,), found, before, (*notes, *server.warnings))


_UNLOGGED = (
    "SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(nspname, relname)) FROM pg_catalog.pg_class c "
    "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relpersistence = 'u'"
)


def _without_unlogged(
    engine: Engine, server: Server, databases: Sequence[DatabaseStatistics]
) -> tuple[tuple[DatabaseStatistics, ...], list[str]]:
    """What the copy holds of what the server does: the rows of unlogged tables are in none. Also which tables lose rows."""
    found, emptied = [], []
    for database in databases:
        unlogged = {(schema, table) for schema, table in json.loads(ask(engine, server.address, database.name, _UNLOGGED) or "[]")}
        tables = tuple(replace(t, rows=0) if (t.schema, t.table) in unlogged else t for t in database.tables)
        emptied += [f"{database.name}: {t.schema}.{t.table}" for t, kept in zip(database.tables, tables, strict=True) if t != kept]
        found.append(replace(database, tables=tables))
    return tuple(found), emptied


def _folders(engine: Engine, server: Server) -> list[list[int]]:
    """Owner, group and mode of the volume's root and of each folder down to the data directory: no copy holds those. Raises
    NoCopy."""
    data = PurePosixPath(server.data_directory)
    ways = [data, *data.parents][: len(PurePosixPath(server.pgdata).parts) + 1]
    argv = ("stat", "-L", "-c", "%u %g %a", *map(str, reversed(ways)))
    try:
        said = engine.execute(server.container.id, argv, timeout=ASK_TIMEOUT).decode("ascii")
    except HelperFailed as error:
        raise NoCopy(f"the owner of its folders cannot be asked: {last_words(error)}") from error
    rows = [line.split() for line in said.splitlines()]
    return [[int(uid), int(gid), int(mode, 8)] for uid, gid, mode in rows]


def put_back(
    engine: Engine, folder: Path, artifact: Artifact, image: str, volume: str, progress: Callable[[int], None] = nothing
) -> None:
    """Fill an empty volume from a physical copy, its folders' owners and modes included, and let pg_verifybackup of the same
    `image` look at every file and every transaction there.

    The copy was verified before (`verify_base`). Raises VerifyFailed, BackupFailed.
    """
    check(folder, artifact)
    data = PurePosixPath(MOUNT, artifact.detail.get("pgdata", "."))
    with fault(volume, "extract the physical copy"):
        engine.run(_writing(image, ("tar", "-xpf", "-", "-C", "/"), volume), stdin=_tree(artifact))
        argv = ("tar", "--numeric-owner", "-xpf", "-", "-C", str(data))
        with engine.stream(_writing(image, argv, volume), stdin=subprocess.PIPE) as filled:
            feed(unpack(folder, artifact, progress=progress), filled.stdin)
    helper = Helper(
        image=image,
        argv=("pg_verifybackup", "--quiet", str(data)),
        volumes=((volume, MOUNT, True),),
        environment={"LC_ALL": "C"},
        user="0:0",
        capabilities=("DAC_READ_SEARCH",),
    )
    try:
        engine.run(helper)
    except HelperFailed as error:
        raise VerifyFailed(
            f"volume {artifact.volume}: {artifact.file}: pg_verifybackup, once it was extracted: {last_words(error)}",
            next_step="make a new backup, or restore from another one: safe-compose list",
        ) from error


def _tree(artifact: Artifact) -> bytes:
    """A tar of the bare folders from the volume's root down to the data directory."""
    path = PurePosixPath(MOUNT.lstrip("/"), artifact.detail.get("pgdata", "."))
    ways = [path, *path.parents]
    facts: list[list[int]] = json.loads(artifact.detail["folders"])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for way, (uid, gid, mode) in zip(reversed(ways[: len(facts)]), facts, strict=True):
            member = tarfile.TarInfo(str(way))
            member.type, member.uid, member.gid, member.mode = tarfile.DIRTYPE, uid, gid, mode
            made.addfile(member)
    return out.getvalue()


def _writing(image: str, argv: tuple[str, ...], volume: str) -> Helper:
    return Helper(image=image, argv=argv, volumes=((volume, MOUNT, False),), user="0:0", capabilities=_WRITE)
