"""A dump that anybody made, as a file: plain, through gzip, or in pg_dump's custom format; always read as the script it is."""

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import LookAgain, Refused, UsageError, VerifyFailed
from safe_compose.methods.archive import last_words
from safe_compose.methods.postgres.said import NotOne, Said, elsewhere, said
from safe_compose.methods.postgres.scan import BadDump
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
    """A file that looks like a dump of PostgreSQL."""

    path: Path
    zipped: bool
    custom: bool
    identity: tuple[int, int, int, int]
    """Device, inode, size, time of the last change: another one is another file."""

    @property
    def form(self) -> str:
        """In words."""
        return ("custom format" if self.custom else "plain SQL") + (", gzip" if self.zipped else "")


def look_at(path: Path) -> DumpFile:
    """What kind of file it is. Raises UsageError where there is none, Refused for one that is no dump of PostgreSQL."""
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
    for word, name in ((b"MariaDB dump", "MariaDB"), (b"MySQL dump", "MySQL")):
        if word in head:
            raise Refused(
                f"{path} is a dump of {name}; only those of PostgreSQL are put beside a living database; nothing was restored",
                next_step="give it to the server's own client: mysql or mariadb",
            )
    return DumpFile(path, zipped, head.startswith(b"PGDMP"), identity)


def read(engine: Engine, image: str, file: DumpFile) -> Said:
    """All that can be known of a dump, from its first byte to its last. `image` has the pg_restore of the server that will get
    it. Raises VerifyFailed for one that is cut, Refused for one that goes into no single database, LookAgain."""
    try:
        with _script(engine, image, file) as blocks:
            return said(blocks)
    except BadDump as fault:
        raise _bad(file, fault) from fault


@contextmanager
def script(engine: Engine, image: str, file: DumpFile, database: str, known: Said) -> Iterator[Iterator[bytes]]:
    """The dump as a script for a database of another name. Raises as `read`, also when it is not what was read before: whoever
    takes the blocks throws away what they made then."""
    again = Said()
    try:
        with _script(engine, image, file) as blocks:
            yield elsewhere(blocks, database, again)
    except BadDump as fault:
        raise _bad(file, fault) from fault
    if (again.bytes, again.tables()) != (known.bytes, known.tables()):
        raise LookAgain(f"{file.path} changed while it was read; nothing was restored", next_step="run it again")


def _bad(file: DumpFile, fault: BadDump) -> VerifyFailed | Refused:
    words = f"{file.path}: {fault}; nothing was restored"
    if isinstance(fault, NotOne):
        return Refused(words, next_step="make a dump of the one database: pg_dump --create NAME")
    return VerifyFailed(words, next_step="make the dump again; psql would take one that is cut without a word")


@contextmanager
def _script(engine: Engine, image: str, file: DumpFile) -> Iterator[Iterator[bytes]]:
    with _opened(file) as source:
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
def _opened(file: DumpFile) -> Iterator[IO[bytes]]:
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
