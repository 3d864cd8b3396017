"""Common parts of all kinds of dumps: their folder, their record, and reading them back."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from safe_compose.core.backup import Artifact, TableCount
from safe_compose.core.observed import Container, describe_location
from safe_compose.core.slug import slug
from safe_compose.databases.sql_lexer import BadDump
from safe_compose.errors import OperationFailed
from safe_compose.volumes.backup_files import new_folder, removing_new_files, sync_folder
from safe_compose.volumes.gzip_stream import Sums, make_damage_fault, unpack


class DumpedServer(Protocol):
    """A server that is dumped."""

    @property
    def container(self) -> Container:
        """The server's container."""
        ...

    @property
    def volume(self) -> str:
        """Name of the volume that holds the server's data."""
        ...


class DumpScanner(Protocol):
    """A reader of a dump; both methods raise BadDump."""

    def feed(self, block: bytes) -> None:
        """Scan the next bytes of a dump."""
        ...

    def finish(self) -> None:
        """End the dump and check that it is complete."""
        ...


Scanning = TypeVar("Scanning", bound=DumpScanner)


@contextmanager
def making_dump_folder(
    server: DumpedServer, volume: str, into: Path, stage: str = "dump"
) -> Iterator[Path]:
    """Make the folder of a volume's dump for a block, and flush it to the disk at the block's end.

    If the block fails, the files that it made are removed: another dump, or a copy of another kind,
    may follow in the same folder, and half a dump belongs in no backup.

    Raises:
        OperationFailed: The server keeps its data in another volume, or the folder cannot be
            written.
    """
    if server.volume != volume:
        raise OperationFailed(
            f"{describe_location(volume)}: the server in {server.container.name} keeps its data in"
            f" {server.volume}"
        )
    folder = into / slug(volume)
    new_folder(folder, subject=volume, stage=stage)
    with removing_new_files(folder):
        yield folder
    sync_folder(folder, subject=volume, stage=stage)
    sync_folder(into, subject=volume, stage=stage)


def make_artifact(
    path: Path,
    into: Path,
    sums: Sums,
    volume: str,
    kind: str,
    *,
    database: str | None = None,
    detail: Mapping[str, str],
) -> Artifact:
    """Return the record of a file that was just written."""
    return Artifact(
        file=path.relative_to(into).as_posix(),
        kind=kind,
        bytes=sums.bytes,
        sha256=sums.sha256,
        uncompressed_bytes=sums.uncompressed_bytes,
        volume=volume,
        database=database,
        detail=dict(detail),
    )


def scan_dump(folder: Path, artifact: Artifact, scanner: Scanning) -> Scanning:
    """Read a dump to its end with a scanner, and return the scanner.

    Raises:
        VerificationFailed: The dump is damaged or incomplete.
    """
    try:
        for block in unpack(folder, artifact):
            scanner.feed(block)
        scanner.finish()
    except BadDump as error:
        raise make_damage_fault(artifact, str(error)) from error
    return scanner


def compare_rows(dumped: Mapping[tuple[str, str], int], counted: Iterable[TableCount]) -> list[str]:
    """Return a description of each table whose rows in a dump are not as many as were counted."""
    expected = {(t.schema, t.table): t.rows for t in counted}
    return [
        f"{'.'.join(table)} has {dumped.get(table, 'no')} rows in the dump,"
        f" {expected.get(table, 'no')} were counted"
        for table in sorted(expected.keys() | dumped.keys())
        if expected.get(table) != dumped.get(table)
    ]


def join_first(found: Sequence[str]) -> str:
    """Join the first three findings, with the number of the others."""
    return "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
