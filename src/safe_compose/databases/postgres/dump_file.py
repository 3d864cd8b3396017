"""Dump files from any source: plain, gzipped, or in pg_dump's custom format.

They are always read as a script.
"""

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from safe_compose.core.quantities import count
from safe_compose.databases.postgres import dumpall
from safe_compose.databases.postgres.dump_lexer import split_dump
from safe_compose.databases.postgres.dump_loading import Loading
from safe_compose.databases.postgres.dump_reader import DumpSummary, extract_database, summarize
from safe_compose.databases.sql_lexer import BadDump, NotADump
from safe_compose.engine import Engine
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.errors import Refused, StateChanged, UsageError, VerificationFailed
from safe_compose.volumes.gzip_stream import GZIP, read_blocks
from safe_compose.volumes.helper_program import read_last_words

_PACKED = {
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
    b"\xfd7zXZ": ("xz", "xz -d"),
    b"BZh": ("bzip2", "bzip2 -d"),
    b"PK\x03\x04": ("zip", "unzip"),
    b"age-encryption.org/": ("age", "age -d -i KEY"),
}
"""First bytes, mapped to the program that packed the file and the one that unpacks it."""
_NO_DUMPS = {
    b"REDIS": (
        "a file of Redis (RDB)",
        "put it into an empty volume as dump.rdb, and start a server of Redis on that",
    ),
    b"VALKEY": (
        "a file of Valkey (RDB)",
        "put it into an empty volume as dump.rdb, and start a server of Valkey on that",
    ),
    b"*": (
        "an append-only file of Redis",
        "put it into an empty volume, and start Redis on that with --appendonly yes",
    ),
    b"SQLite format 3\0": (
        "a SQLite database",
        "copy it to where it belongs while nothing uses it",
    ),
    b"\xff\xfe": (
        "text in UTF-16",
        "make it UTF-8 first: iconv -f UTF-16 -t UTF-8 FILE > dump.sql",
    ),
    b"\xfe\xff": (
        "text in UTF-16",
        "make it UTF-8 first: iconv -f UTF-16 -t UTF-8 FILE > dump.sql",
    ),
    b"\xef\xbb\xbf": (
        "a file that an editor has put a mark before (BOM)",
        "take it away first: tail -c +4 FILE > dump.sql",
    ),
}
"""First bytes, mapped to the kind of file and what can be done with it."""
_SUSPICIOUS_BYTES, _SUSPICIOUS_RATIO = 1 << 30, 500
"""A gzip stream that expands to so many bytes, and by so much, holds no dump."""


@dataclass(frozen=True, slots=True)
class DumpFile:
    """A file that looks like a dump of a database."""

    path: Path
    zipped: bool
    custom: bool
    whole: bool
    """The dump is of a whole server, as pg_dumpall makes it."""
    mysql: bool
    """The dump is of MySQL or MariaDB, not of PostgreSQL."""
    identity: tuple[int, int, int, int]
    """Device, inode, size, time of the last change: if they differ, it is another file."""

    @property
    def form(self) -> str:
        """The format in words."""
        form = (
            "a whole server, plain SQL"
            if self.whole
            else "custom format"
            if self.custom
            else "plain SQL"
        )
        return form + (", gzip" if self.zipped else "")


def identify(path: Path) -> DumpFile:
    """Identify a dump file by its first bytes.

    Raises:
        UsageError: There is no such file.
        Refused: The file is no dump that can be read here.
        VerificationFailed: The file is empty or damaged.
    """
    try:
        with _open(path) as file:
            found = os.fstat(file.fileno())
            head = file.read(512) if stat.S_ISREG(found.st_mode) else b""
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; nothing was restored") from error
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(
            f"{path} is no file; nothing was restored",
            next_step="a dump in folder format: pg_restore -f dump.sql FOLDER",
        )
    _refuse_packed(path, head)
    zipped = head.startswith(GZIP)
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    if zipped:
        with _unzipping(path), gzip.open(path) as inside:
            head = inside.read(512)
        _refuse_packed(path, head)
        if head.startswith(GZIP):
            raise Refused(
                f"{path} is packed twice; nothing was restored",
                next_step="unpack it once first: gzip -d",
            )
    if not head:
        raise VerificationFailed(
            f"{path} is empty; nothing was restored", next_step="make the dump again"
        )
    _refuse_others(path, head)
    other = b"-- MariaDB dump " in head or b"-- MySQL dump " in head
    return DumpFile(
        path, zipped, head.startswith(b"PGDMP"), dumpall.is_cluster(head), other, identity
    )


def _refuse_others(path: Path, head: bytes) -> None:
    """Refuse a file that is no dump, or one in a format that is not read here.

    Raises:
        Refused: It is such a file.
    """
    for magic, (name, step) in _NO_DUMPS.items():
        if head.startswith(magic):
            raise Refused(
                f"{path} is {name}, no dump of PostgreSQL; nothing was restored", next_step=step
            )
    if head[257:262] == b"ustar" or head.startswith(b"toc.dat"):
        raise Refused(
            f"{path} is a tar file; nothing was restored",
            next_step=(
                "a dump in tar format becomes one that is read here with pg_restore -f dump.sql"
                " FILE"
            ),
        )


def _open(path: Path) -> IO[bytes]:
    """Open a file without waiting for the writer of a pipe."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")


def _refuse_packed(path: Path, head: bytes) -> None:
    for magic, (name, program) in _PACKED.items():
        if head.startswith(magic):
            raise Refused(
                f"{path} is packed with {name}, which is not read here; nothing was restored",
                next_step=f"unpack it first: {program}",
            )


def read(engine: Engine, image: str, file: DumpFile, database: str | None) -> DumpSummary:
    """Read a dump from its first byte to its last, and describe it.

    `image` has the pg_restore of the server that will get it. Of a dump of a whole server only
    `database` is described.

    Raises:
        VerificationFailed: The dump is truncated.
        Refused: The dump does not fit into a single database.
        UsageError: One of several databases has to be named.
        StateChanged: The file changed.
    """
    try:
        with _opening_script(engine, image, file) as blocks:
            return (
                _part_of(file, dumpall.survey(blocks), database)
                if file.whole
                else summarize(blocks)
            )
    except BadDump as fault:
        raise _make_fault(file, fault) from fault


def _part_of(file: DumpFile, found: dumpall.Cluster, database: str | None) -> DumpSummary:
    if database in found.databases:
        return replace(found.databases[str(database)], globals=found.globals)
    if database in found.others:
        raise NotADump(found.others[str(database)])
    server = next(iter(found.databases.values())).server
    has = ", ".join(
        f"{name} ({count(dump.rows, 'row')})" for name, dump in sorted(found.databases.items())
    )
    raise UsageError(
        f"{file.path} is a dump of a whole server (pg_dumpall), PostgreSQL"
        f" {server or 'of unknown version'}, with the databases"
        f" {has}{f'; it has no {database}' if database else ''}; nothing was restored",
        next_step="add --database NAME; each is restored by itself, with the roles that it needs",
    )


@contextmanager
def script(
    engine: Engine,
    image: str,
    file: DumpFile,
    database: str,
    known: DumpSummary,
    how: Loading,
    afterwards: IO[bytes],
) -> Iterator[Iterator[bytes]]:
    """Yield the dump as a script for a database of another name and a role that owns nothing else.

    `afterwards` gets the statements for the superuser. The caller takes the blocks and discards its
    database if this raises.

    Raises:
        StateChanged: The file is not what was read before.
        VerificationFailed: The dump is truncated.
        Refused: The dump does not fit into a single database.
    """
    again = DumpSummary()
    try:
        with _opening_script(engine, image, file) as blocks:
            pieces = (
                dumpall.extract_pieces(blocks, known.part) if known.part else split_dump(blocks)
            )
            yield extract_database(pieces, database, known, again, afterwards, how=how)
    except BadDump as fault:
        raise _make_fault(file, fault) from fault
    if (again.size, again.tables()) != (known.size, known.tables()):
        raise StateChanged(
            f"{file.path} changed while it was read; nothing was restored", next_step="run it again"
        )


def _make_fault(file: DumpFile, fault: BadDump) -> VerificationFailed | Refused:
    words = f"{file.path}: {fault}; nothing was restored"
    if isinstance(fault, NotADump):
        step = (
            fault.next_step
            or "look at that line; make the dump of one database with pg_dump --create NAME alone"
        )
        return Refused(words, next_step=step)
    return VerificationFailed(
        words, next_step="make the dump again; psql would take one that is cut without a word"
    )


@contextmanager
def _opening_script(engine: Engine, image: str, file: DumpFile) -> Iterator[Iterator[bytes]]:
    with opening(file) as source:
        if not file.custom:
            yield read_blocks(source)
            return
        helper = Helper(image=image, argv=("pg_restore", "--create", "--file=-"))
        bad: BadDump | None = None
        try:
            with engine.helpers.stream(helper, stdin=source) as made:
                try:
                    yield read_blocks(made.stdout)
                # The fault of the dump matters more than that of pg_restore.
                except BadDump as fault:
                    bad = fault
                    for _ in read_blocks(made.stdout):
                        continue
            if bad is not None:
                raise bad
        except HelperFailed as error:
            if "unsupported version" in error.stderr:
                raise Refused(
                    f"{file.path} was made by a newer pg_dump than the server's own pg_restore can"
                    f" read ({read_last_words(error)}); nothing was restored",
                    next_step=(
                        "make it a script where it was made: pg_restore --create -f dump.sql FILE"
                    ),
                ) from error
            raise VerificationFailed(
                f"{file.path}: {read_last_words(error)}; nothing was restored",
                next_step="make the dump again",
            ) from error


@contextmanager
def opening(file: DumpFile) -> Iterator[IO[bytes]]:
    """Open the dump's bytes, unzipped.

    Raises:
        StateChanged: The file changed.
        VerificationFailed: Its gzip stream is damaged.
        Refused: Its gzip stream expands too far.
    """
    with _open(file.path) as raw:
        found = os.fstat(raw.fileno())
        if (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) != file.identity:
            raise StateChanged(
                f"{file.path} changed meanwhile; nothing was restored", next_step="run it again"
            )
        if not file.zipped:
            yield raw
            return
        with _unzipping(file.path), _Unzipped(fileobj=raw) as inside:
            inside.packed = found.st_size
            yield cast(IO[bytes], inside)


class _Unzipped(gzip.GzipFile):
    """A gzip stream that may not expand further than a dump does."""

    packed = 0
    _grown = 0

    def read(self, size: int | None = -1) -> bytes:
        """Return the next unzipped bytes.

        Raises:
            _DecompressionBomb: The stream expands too far.
        """
        piece = super().read(size)
        self._grown += len(piece)
        if self._grown > max(_SUSPICIOUS_BYTES, self.packed * _SUSPICIOUS_RATIO):
            raise _DecompressionBomb
        return piece


class _DecompressionBomb(Exception):
    """A gzip stream expands too far."""


@contextmanager
def _unzipping(path: Path) -> Iterator[None]:
    try:
        yield
    except _DecompressionBomb as error:
        raise Refused(
            f"{path} grows to more than {_SUSPICIOUS_RATIO} times its size, which no dump does;"
            " nothing was restored",
            next_step="look into it with: gzip -dc FILE | head; if it is a dump, unpack it first",
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise VerificationFailed(
            f"{path}: its gzip stream is cut or damaged ({error}); nothing was restored",
            next_step="make the dump again",
        ) from error
