"""A dump that anybody made, as a file: plain, through gzip, or in pg_dump's custom format; always read as the script it is."""

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import LookAgain, Refused, UsageError, VerifyFailed
from safe_compose.methods.archive import last_words
from safe_compose.methods.lexer import BadDump
from safe_compose.methods.postgres import cluster
from safe_compose.methods.postgres.said import NotOne, Said, elsewhere, said
from safe_compose.methods.stream import blocks_of

_PACKED = {
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
    b"\xfd7zXZ": ("xz", "xz -d"),
    b"BZh": ("bzip2", "bzip2 -d"),
    b"PK\x03\x04": ("zip", "unzip"),
    b"age-encryption.org/": ("age", "age -d -i KEY"),
}
"""First bytes -> what packed it, and what unpacks it."""


@dataclass(frozen=True, slots=True)
class DumpFile:
    """A file that looks like a dump of a database."""

    path: Path
    zipped: bool
    custom: bool
    whole: bool
    """Of a whole server, as pg_dumpall makes it."""
    mysql: bool
    """None of PostgreSQL at all, but of MySQL or MariaDB."""
    identity: tuple[int, int, int, int]
    """Device, inode, size, time of the last change: another one is another file."""

    @property
    def form(self) -> str:
        """In words."""
        form = "a whole server, plain SQL" if self.whole else "custom format" if self.custom else "plain SQL"
        return form + (", gzip" if self.zipped else "")


def look_at(path: Path) -> DumpFile:
    """What kind of file it is. Raises UsageError where there is none, Refused for one that is no dump that could be read here."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            head = file.read(512)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; nothing was restored") from error
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(
            f"{path} is no file; nothing was restored", next_step="a dump in folder format: pg_restore -f dump.sql FOLDER"
        )
    for magic, (name, program) in _PACKED.items():
        if head.startswith(magic):
            raise Refused(
                f"{path} is packed with {name}, which is not read here; nothing was restored",
                next_step=f"unpack it first: {program}",
            )
    zipped = head.startswith(b"\x1f\x8b")
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    if zipped:
        with _unzipping(path), gzip.open(path) as inside:
            head = inside.read(512)
    if head[257:262] == b"ustar" or head.startswith(b"toc.dat"):
        raise Refused(
            f"{path} is a tar file; nothing was restored",
            next_step="a dump in tar format becomes one that is read here with pg_restore -f dump.sql FILE",
        )
    other = b"-- MariaDB dump " in head or b"-- MySQL dump " in head
    return DumpFile(path, zipped, head.startswith(b"PGDMP"), cluster.is_cluster(head), other, identity)


def read(engine: Engine, image: str, file: DumpFile, database: str | None) -> Said:
    """All that can be known of a dump, from its first byte to its last. `image` has the pg_restore of the server that will get
    it; of a dump of a whole server `database` alone. Raises VerifyFailed for one that is cut, Refused for one that goes into no
    single database, UsageError where one of several has to be named, LookAgain."""
    try:
        with _script(engine, image, file) as blocks:
            return _part_of(file, cluster.survey(blocks), database) if file.whole else said(blocks)
    except BadDump as fault:
        raise _bad(file, fault) from fault


def _part_of(file: DumpFile, found: cluster.Cluster, database: str | None) -> Said:
    if database in found.databases:
        return replace(found.databases[str(database)], globals=found.globals)
    if database in found.others:
        raise NotOne(found.others[str(database)])
    server = next(iter(found.databases.values())).server
    has = ", ".join(f"{name} ({dump.rows} rows)" for name, dump in sorted(found.databases.items()))
    raise UsageError(
        f"{file.path} is a dump of a whole server (pg_dumpall), PostgreSQL {server or 'of unknown version'}, with the databases "
        f"{has}{f'; it has no {database}' if database else ''}; nothing was restored",
        next_step="add --database NAME; each is restored by itself, with the roles that it needs",
    )


@contextmanager
def script(engine: Engine, image: str, file: DumpFile, database: str, known: Said) -> Iterator[Iterator[bytes]]:
    """The dump as a script for a database of another name. Raises as `read`, also when it is not what was read before: whoever
    takes the blocks throws away what they made then."""
    again = Said()
    try:
        with _script(engine, image, file) as blocks:
            yield elsewhere(cluster.one(blocks, known.part) if known.part else blocks, database, again)
    except BadDump as fault:
        raise _bad(file, fault) from fault
    if (again.size, again.tables()) != (known.size, known.tables()):
        raise LookAgain(f"{file.path} changed while it was read; nothing was restored", next_step="run it again")


def _bad(file: DumpFile, fault: BadDump) -> VerifyFailed | Refused:
    words = f"{file.path}: {fault}; nothing was restored"
    if isinstance(fault, NotOne):
        return Refused(words, next_step="make a dump of the one database: pg_dump --create NAME")
    return VerifyFailed(words, next_step="make the dump again; psql would take one that is cut without a word")


@contextmanager
def _script(engine: Engine, image: str, file: DumpFile) -> Iterator[Iterator[bytes]]:
    with opened(file) as source:
        if not file.custom:
            yield blocks_of(source)
            return
        helper = Helper(image=image, argv=("pg_restore", "--create", "--file=-"))
        bad: BadDump | None = None
        try:
            with engine.stream(helper, stdin=source) as made:
                try:
                    yield blocks_of(made.stdout)
                except BadDump as fault:  # why pg_restore ended says more than that it did
                    bad = fault
                    for _ in blocks_of(made.stdout):
                        continue
            if bad is not None:
                raise bad
        except HelperFailed as error:
            if "unsupported version" in error.stderr:
                raise Refused(
                    f"{file.path} was made by a newer pg_dump than the server's own pg_restore can read ({last_words(error)}); "
                    "nothing was restored",
                    next_step="make it a script where it was made: pg_restore --create -f dump.sql FILE",
                ) from error
            raise VerifyFailed(
                f"{file.path}: {last_words(error)}; nothing was restored", next_step="make the dump again"
            ) from error


@contextmanager
def opened(file: DumpFile) -> Iterator[IO[bytes]]:
    """Its bytes, unzipped. Raises LookAgain, VerifyFailed."""
    with file.path.open("rb") as raw:
        found = os.fstat(raw.fileno())
        if (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) != file.identity:
            raise LookAgain(f"{file.path} changed meanwhile; nothing was restored", next_step="run it again")
        if not file.zipped:
            yield raw
            return
        with _unzipping(file.path), gzip.GzipFile(fileobj=raw) as inside:
            yield cast(IO[bytes], inside)


@contextmanager
def _unzipping(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise VerifyFailed(
            f"{path}: its gzip stream is cut or damaged ({error}); nothing was restored", next_step="make the dump again"
        ) from error
