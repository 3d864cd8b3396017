"""Physical copies of running servers by pg_basebackup, and their restore into a volume.

The server writes a manifest into the copy. This is the fastest backup of a big database; it serves
the same major version on the same kind of machine only.
"""

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from safe_compose.core.backup import Artifact, DatabaseStatistics
from safe_compose.core.observed import describe_location
from safe_compose.databases.dumps import make_artifact, making_dump_folder
from safe_compose.databases.postgres.client import naming_client_fault
from safe_compose.databases.postgres.discover import PostgresServer
from safe_compose.databases.postgres.dump import PostgresDump, find_owners, make_statistics
from safe_compose.databases.postgres.row_counts import count
from safe_compose.databases.postgres.server_facts import parse_major
from safe_compose.databases.postgres.write_counter import ask_counter
from safe_compose.databases.protocol import CopyRefused, understanding
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.errors import VerificationFailed
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.gzip_stream import Sums, check, pack, read_blocks, show_nothing, unpack
from safe_compose.volumes.helper_program import MOUNT, feed, read_last_words

COPY_FILE = "base.tar.gz"
SINCE = 13
"""The first major version that writes a manifest."""

_WRITE = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")


def find_base(artifacts: Sequence[Artifact]) -> Artifact | None:
    """Return the physical copy among artifacts; None if there is none."""
    return next((a for a in artifacts if a.kind == "base"), None)


def copy(
    server: PostgresServer, volume: str, into: Path, progress: Callable[[int], None] = show_nothing
) -> PostgresDump:
    """Copy the files of a running server into the backup, and count its rows.

    The copy is `into/<slug of the volume>/base.tar.gz`. If somebody wrote meanwhile, the counts are
    not those of the copy: `Dump.was_written_since` shows it, as for a dump.

    Raises:
        CopyRefused: The server does not allow a copy, which says nothing about a dump.
        OperationFailed: The copy cannot be written, or the rows not counted.
    """
    if parse_major(server.version) < SINCE:
        raise CopyRefused(f"{server.title} writes no manifest that a copy could be held against")
    with making_dump_folder(server, volume, into, "copy") as folder:
        folders = _folders(server)
        before = ask_counter(server)
        sums = _copy_files(server, folder / COPY_FILE, progress)
        with naming_client_fault(volume, "count"):
            databases, emptied = _drop_unlogged(server, count(server))
    detail = {"by": server.client.words, "pgdata": server.pgdata, **folders}
    artifact = make_artifact(folder / COPY_FILE, into, sums, volume, "base", detail=detail)
    found = make_statistics(server, databases)
    notes = (
        (f"unlogged tables are empty in a physical copy, as after a crash: {', '.join(emptied)}",)
        if emptied
        else ()
    )
    return PostgresDump(server, (artifact,), found, before, (*notes, *server.warnings))


def _copy_files(server: PostgresServer, path: Path, progress: Callable[[int], None]) -> Sums:
    """Pack the output of pg_basebackup.

    Raises:
        CopyRefused: pg_basebackup failed.
    """
    argv = (
        "pg_basebackup",
        "--pgdata=-",
        "--format=tar",
        "--wal-method=fetch",  # the only method that writes to stdout
        "--checkpoint=fast",
        "--manifest-checksums=SHA256",
        "--label=safe-compose",
        "--no-password",
        f"--dbname={server.client.conninfo(server.maintenance)}",
    )
    try:
        # Attached: pg_basebackup writes one tar into a folder or to stdout, never into a named
        # pipe.
        with server.client.stream(argv) as made:
            return pack(
                read_blocks(made.stdout),
                path,
                subject=server.volume,
                stage="copy",
                progress=progress,
            )
    except HelperFailed as error:
        raise CopyRefused(f"pg_basebackup: {read_last_words(error)}") from error
    raise AssertionError  # a stream that ends early raises


_UNLOGGED = (
    "SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(nspname, relname)) FROM"
    " pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE"
    " c.relkind = 'r' AND c.relpersistence = 'u'"
)


def _drop_unlogged(
    server: PostgresServer, databases: Sequence[DatabaseStatistics]
) -> tuple[tuple[DatabaseStatistics, ...], list[str]]:
    """Return the statistics of the copy, and the tables that lose their rows.

    The rows of unlogged tables are in no copy.
    """
    found, emptied = [], []
    for database in databases:
        answer = server.client.ask(database.name, _UNLOGGED)
        with understanding(f"database {database.name}"):
            unlogged = {(str(schema), str(table)) for schema, table in json.loads(answer or "[]")}
        tables = tuple(
            replace(t, rows=0) if (t.schema, t.table) in unlogged else t for t in database.tables
        )
        emptied += [
            f"{database.name}: {t.schema}.{t.table}"
            for t, copied in zip(database.tables, tables, strict=True)
            if t != copied
        ]
        found.append(replace(database, tables=tables))
    return tuple(found), emptied


def _folders(server: PostgresServer) -> dict[str, str]:
    """Return owner, group and mode of the volume's root and each folder down to the data directory.

    No copy holds them.

    Raises:
        CopyRefused: They are unknown.
    """
    if found := find_owners(server):
        return found
    raise CopyRefused("the owner of its folders cannot be asked")


def restore_copy(
    location: EngineLocation,
    folder: Path,
    artifact: Artifact,
    image: str,
    progress: Callable[[int], None] = show_nothing,
) -> None:
    """Fill an empty volume from a physical copy, and verify every file there with pg_verifybackup.

    The owners and modes of its folders are restored too. `image` is that of the server; its
    pg_verifybackup also reads every transaction. The copy was verified before (`verify_base`).

    Raises:
        VerificationFailed: The copy is damaged.
        OperationFailed: The volume cannot be written.
    """
    check(folder, artifact)
    engine = location.engine
    data = PurePosixPath(MOUNT, artifact.detail.get("pgdata", "."))
    with naming_client_fault(location.name, "extract the physical copy"):
        engine.helpers.run(
            _make_writer(image, ("tar", "-xpf", "-", "-C", "/"), location.name),
            stdin=_tree(artifact),
        )
        argv = ("tar", "--numeric-owner", "-xpf", "-", "-C", str(data))
        with engine.helpers.stream(
            _make_writer(image, argv, location.name), stdin=subprocess.PIPE
        ) as filled:
            feed(unpack(folder, artifact, progress=progress), filled.stdin)
    helper = Helper(
        image=image,
        argv=("pg_verifybackup", "--quiet", str(data)),
        volumes=((location.name, MOUNT, True),),
        environment={"LC_ALL": "C"},
        user="0:0",
        capabilities=("DAC_READ_SEARCH",),
    )
    try:
        engine.helpers.run(helper)
    except HelperFailed as error:
        raise VerificationFailed(
            f"{describe_location(artifact.volume)}:"
            f" {artifact.file}: pg_verifybackup, once it was extracted:"
            f" {read_last_words(error)}",
            next_step="make a new backup, or restore from another one: safe-compose list",
        ) from error


def _tree(artifact: Artifact) -> bytes:
    """Make a tar of the bare folders from the volume's root down to the data directory."""
    path = PurePosixPath(MOUNT.lstrip("/"), artifact.detail.get("pgdata", "."))
    folders = [path, *path.parents]
    facts: list[list[int]] = json.loads(artifact.detail["folders"])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for folder, (uid, gid, mode) in zip(reversed(folders[: len(facts)]), facts, strict=True):
            member = tarfile.TarInfo(str(folder))
            member.type, member.uid, member.gid, member.mode = tarfile.DIRTYPE, uid, gid, mode
            made.addfile(member)
    return out.getvalue()


def _make_writer(image: str, argv: tuple[str, ...], volume: str) -> Helper:
    return Helper(
        image=image, argv=argv, volumes=((volume, MOUNT, False),), user="0:0", capabilities=_WRITE
    )
