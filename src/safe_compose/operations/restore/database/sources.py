"""The sources of a dump of one database: a backup, or a dump file of any origin."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from safe_compose.core.backup import Artifact, Backup, DatabaseStatistics, TableCount, VolumeRecord
from safe_compose.core.observed import describe_location
from safe_compose.core.quantities import format_size, format_stamp
from safe_compose.core.text import shell_quote
from safe_compose.databases import mysql
from safe_compose.databases.mysql import dump_file
from safe_compose.databases.postgres import dump_file as postgres_dump_file
from safe_compose.databases.postgres.dump import describe_differences
from safe_compose.databases.postgres.dump_lexer import split_dump
from safe_compose.databases.postgres.dump_loading import Loading
from safe_compose.databases.postgres.dump_reader import (
    DumpSummary,
    extract_database,
    rename_database,
    summarize,
)
from safe_compose.databases.registry import is_restored_alone
from safe_compose.databases.sql_lexer import BadDump, NotADump
from safe_compose.engine import Engine
from safe_compose.errors import Refused, UsageError, VerificationFailed
from safe_compose.operations.backup import verify
from safe_compose.operations.restore.database.servers import list_running_servers
from safe_compose.ui import terminal
from safe_compose.volumes import gzip_stream
from safe_compose.workspace import Workspace


class DumpSource(Protocol):
    """A dump of one database, from any source."""

    @property
    def words(self) -> str:
        """The source in words: `backup 20261122T072700Z-3f9a1c`."""

    @property
    def backup_id(self) -> str | None:
        """The id of the backup; None for a file."""
        ...

    def read(self, engine: Engine, image: str, /) -> DumpSummary:
        """Read the dump completely and return its summary.

        Raises:
            VerificationFailed: It is damaged.
            Refused: It is not a dump that can be restored.
            StateChanged: The file changed.
        """

    @property
    def own(self) -> bool:
        """Whether it is a backup of this store, made from a server of ours.

        Otherwise its content can come from anybody.
        """

    def script(
        self,
        engine: Engine,
        image: str,
        name: str,
        known: DumpSummary,
        how: Loading,
        afterwards: IO[bytes],
        /,
    ) -> Any:
        """Return a context that yields the dump under another name, to be loaded like that.

        Unless the dump `needs_superuser`, it is for a role that owns only that database, and what
        is left to the superuser is written to `afterwards`.

        Raises:
            VerificationFailed: It is damaged.
            Refused: It is not a dump that can be restored.
            StateChanged: The file changed.
        """

    def expect_statistics(self, known: DumpSummary, /) -> DatabaseStatistics | None:
        """Return what must be in the database afterwards.

        Returns:
            The statistics; None when the dump's rows have a form that is not counted.
        """

    def globals(self, known: DumpSummary, /) -> bytes:
        """Return the script of the server's roles; empty when there is none."""

    def size(self, known: DumpSummary, /) -> int:
        """Return the bytes that the database took, or will roughly take."""


@dataclass(frozen=True, slots=True)
class BackupSource:
    """A dump of one database in a backup."""

    workspace: Workspace
    backup: Backup
    record: VolumeRecord
    database: str
    own: bool = True

    @classmethod
    def of(
        cls,
        workspace: Workspace,
        backup: Backup,
        database: str,
        volume: str | None,
        *,
        own: bool = True,
    ) -> "BackupSource":
        """Return the dump of a database in a backup.

        Args:
            workspace: The workspace.
            backup: The backup.
            database: The name of the database in the backup.
            volume: The volume of its server; None if only one has it.
            own: The backup was not just fetched from off-site. One that was fetched without a
                signature is never our own.

        Raises:
            UsageError: The backup has no dump of it, or several.
            Refused: Databases of this kind cannot be restored alone.
        """
        having = [r for r in backup.volumes if volume in (None, r.name) and _has(r, database)]
        if not having:
            dumped = sorted(
                {
                    a.database
                    for r in backup.volumes
                    for a in r.artifacts
                    if a.kind == "database" and a.database
                }
            )
            there = f"it has {', '.join(dumped)}" if dumped else "it has none"
            raise UsageError(
                f"backup {backup.id} has no dump of database {database} ({there}); nothing was"
                " restored",
                next_step=f"safe-compose show {backup.id}",
            )
        if len(having) > 1:
            names = ", ".join(r.name for r in having)
            raise UsageError(
                f"database {database} is in {names}; nothing was restored",
                next_step="add --volume NAME",
            )
        if not is_restored_alone(having[0].data_kind):
            raise Refused(
                f"{describe_location(having[0].name)} is {having[0].data_kind}: one database"
                " alone is restored"
                " to PostgreSQL only; nothing was restored",
                next_step=(
                    f"the whole volume for a look: safe-compose restore {backup.id} --volume"
                    f" {shell_quote(having[0].name)} --into scratch"
                ),
            )
        return cls(workspace, backup, having[0], database, own and backup.unsigned_from is None)

    @property
    def words(self) -> str:
        """The backup and its time, in words."""
        return f"backup {self.backup.id} of {format_stamp(self.backup.created)}"

    @property
    def backup_id(self) -> str | None:
        """The id of the backup."""
        return self.backup.id

    def size(self, _known: DumpSummary, /) -> int:
        """Return the bytes that the database took when it was dumped.

        Raises:
            VerificationFailed: It was not counted then.
        """
        return self._statistics.bytes

    @property
    def _statistics(self) -> DatabaseStatistics:
        every = self.record.statistics.databases if self.record.statistics is not None else ()
        found = next((d for d in every if d.name == self.database), None)
        if found is None:
            raise VerificationFailed(
                f"backup {self.backup.id}: database {self.database} was not counted when it was"
                " dumped"
            )
        return found

    def read(self, _engine: Engine, _image: str, /) -> DumpSummary:
        """Read the dump completely, compare it with the recorded counts, and return its summary.

        Raises:
            VerificationFailed: It is damaged; the backup was marked.
            Refused: It is not a dump that can be read.
        """
        folder, dump = Path(self.backup.path), _dump_of(self.record, self.database)
        assert dump is not None  # `of` has checked
        with verify.marking_damage(self.workspace.catalogue, self.backup):
            gzip_stream.require_key(folder, [dump])
            with terminal.showing_progress(
                f"verify {dump.file}", total=dump.uncompressed_bytes
            ) as report:
                try:
                    found = summarize(
                        gzip_stream.unpack(folder, dump, progress=report), own=self.own
                    )
                except NotADump as fault:  # this says nothing against the backup
                    raise Refused(
                        f"{dump.file}: {fault}; nothing was restored",
                        next_step=(
                            f"the whole volume: safe-compose restore {self.backup.id} --volume"
                            f" {shell_quote(self.record.name)}"
                        ),
                    ) from fault
                except BadDump as fault:
                    raise gzip_stream.make_damage_fault(dump, str(fault)) from fault
            if wrong := describe_differences(found.scanner, self._statistics):
                raise gzip_stream.make_damage_fault(dump, wrong)
        return found

    @contextmanager
    def script(
        self,
        _engine: Engine,
        _image: str,
        name: str,
        known: DumpSummary,
        how: Loading,
        afterwards: IO[bytes],
        /,
    ) -> Iterator[Iterable[bytes]]:
        """Yield the dump under another name.

        Unless the dump `needs_superuser`, it is for a role that owns only that database, and what
        is left to the superuser is written to `afterwards`.
        """
        dump = _dump_of(self.record, self.database)
        assert dump is not None
        blocks = gzip_stream.unpack(Path(self.backup.path), dump)
        if known.needs_superuser is not None:
            yield rename_database(blocks, name, DumpSummary(), how=how)
        else:
            yield extract_database(
                split_dump(blocks), name, known, DumpSummary(), afterwards, how=how
            )

    def expect_statistics(self, _known: DumpSummary, /) -> DatabaseStatistics | None:
        """Return what was counted when the database was dumped.

        Raises:
            VerificationFailed: It was not counted then.
        """
        return self._statistics

    def globals(self, _known: DumpSummary, /) -> bytes:
        """Return the script of the server's roles; empty when the backup has none."""
        artifact = next((a for a in self.record.artifacts if a.kind == "globals"), None)
        return (
            b"".join(gzip_stream.unpack(Path(self.backup.path), artifact))
            if artifact is not None
            else b""
        )


def has_dump(backup: Backup, database: str, volumes: Sequence[str] | None) -> bool:
    """Return whether a backup has a dump of a database, in one of these volumes or in any."""
    return any(
        _has(record, database) for record in backup.volumes if not volumes or record.name in volumes
    )


def _has(record: VolumeRecord, database: str) -> bool:
    """Return whether a record has a dump of the database, or of a whole server that holds it."""
    if is_restored_alone(record.data_kind) or record.statistics is None:
        return _dump_of(record, database) is not None
    return database in {d.name for d in record.statistics.databases}


def _dump_of(record: VolumeRecord, database: str) -> Artifact | None:
    return next(
        (a for a in record.artifacts if a.kind == "database" and a.database == database), None
    )


@dataclass(frozen=True, slots=True)
class FileSource:
    """A dump file of any origin."""

    file: postgres_dump_file.DumpFile
    database: str | None = None
    """The database in a dump of a whole server."""

    @property
    def words(self) -> str:
        """The path, format and size, in words."""
        return f"{self.file.path} ({self.file.form}, {format_size(self.file.identity[2])})"

    @property
    def backup_id(self) -> str | None:
        """None: a file has no backup."""
        return None

    def size(self, known: DumpSummary, /) -> int:
        """Return the bytes that the database will roughly take."""
        return known.size

    def read(self, engine: Engine, image: str, /) -> DumpSummary:
        """Read the file completely and return its summary.

        Raises:
            VerificationFailed: It is damaged.
            Refused: It is not a dump that can be restored.
            StateChanged: It changed meanwhile.
        """
        with terminal.showing_progress(f"read {self.file.path.name}"):
            return postgres_dump_file.read(engine, image, self.file, self.database)

    @property
    def own(self) -> bool:
        """False: the content can come from anybody."""
        return False

    def script(
        self,
        engine: Engine,
        image: str,
        name: str,
        known: DumpSummary,
        how: Loading,
        afterwards: IO[bytes],
        /,
    ) -> Any:
        """Return a context that yields the dump under another name.

        Unless the dump `needs_superuser`, it is for a role that owns only that database, and what
        is left to the superuser is written to `afterwards`.
        """
        return postgres_dump_file.script(engine, image, self.file, name, known, how, afterwards)

    def expect_statistics(self, known: DumpSummary, /) -> DatabaseStatistics | None:
        """Return the rows of each table in the dump; None when their form is not counted."""
        tables = tuple(TableCount(schema, table, rows) for (schema, table), rows in known.tables())
        return (
            DatabaseStatistics(known.database or "", 0, tables, known.scanner.large_objects)
            if tables
            else None
        )

    def globals(self, known: DumpSummary, /) -> bytes:
        """Return the script of the server's roles; empty when there is none."""
        return known.globals


def open_dump_file(
    workspace: Workspace,
    path: Path,
    *,
    database: str | None,
    volume: str | None,
    project: str | None,
) -> FileSource:
    """Open a dump file as the source of a restore.

    Raises:
        UsageError: The file cannot be read.
        VerificationFailed: It is damaged.
        Refused: It is not a dump that can be restored. For one of MySQL or MariaDB, the next step
            says what a person can do.
    """
    found = postgres_dump_file.identify(path)
    if not found.mysql:
        return FileSource(found, database)
    with (
        postgres_dump_file.opening(found) as source,
        terminal.showing_progress(f"read {path.name}"),
    ):
        dump = dump_file.summarize(gzip_stream.read_blocks(source))
    engine = workspace.engine
    name, password = "CONTAINER", ""
    if (
        len(
            serving := list_running_servers(
                engine, engine.commands.look(), mysql.serves, volume, project
            )
        )
        == 1
    ):
        name, environment = serving[0][0].name, engine.docker.private(serving[0][0].id).environment
        password = next(
            (
                key
                for key in ("MARIADB_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD")
                if environment.get(key)
            ),
            "",
        )
    raise Refused(
        f"{path} is {dump.words}. It is put in no living database's place: this server cannot"
        " rename a database, and renaming its tables leaves triggers, views and routines behind."
        f" {f'Besides, {dump.fault}. ' * bool(dump.fault)}Nothing was restored",
        next_step=dump.next_step(path, zipped=found.zipped, container=name, password=password),
    )
