"""The content of a backup: files with digests, statistics of the data, and evidence."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from safe_compose.core.backup_summary import BackupSummary, OffsiteCopy
from safe_compose.core.quantities import count

WORKPLACE, OWNER = ".workplace-", "owner.json"
"""Prefix of a temporary folder next to the backups in which something is inspected, and the file in
it that names the process that made it."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a backup, hashed while it was written."""

    file: str
    """Path relative to the backup's folder, `/` separated."""
    kind: str
    """`archive` (tar.gz of a volume), `others` (of its files besides a database that was dumped),
    `globals` (pg_dumpall --globals-only), `database` (one plain dump, or an RDB), `base` (tar.gz of
    a running server's files, by pg_basebackup), `sqlite` (a consistent copy of one SQLite database,
    which replaces the torn one in the archive), `list` and `others list`, `settings` (files that a
    server kept next to its databases)."""
    bytes: int
    sha256: str
    uncompressed_bytes: int
    volume: str
    database: str | None = None
    detail: Mapping[str, str] = field(default_factory=dict)
    """Further facts: `tar`: helper or engine (of an earlier release: gnu), `members`: their number,
    `lost`: what this way of archiving loses, `control`: the Postgres control state."""

    @property
    def sealed(self) -> bool:
        """Whether the file is encrypted with age, so that only a key opens it."""
        return self.file.endswith(".age")


def folders_of_database(others: Artifact) -> tuple[str, ...]:
    """Return the folders that an archive of kind `others` leaves out.

    They are relative to the volume's root.

    There are none where the record of them is unreadable.
    """
    try:
        found = json.loads(others.detail.get("without", "[]"))
    except (ValueError, RecursionError):
        return ()
    return tuple(path for path in found if isinstance(path, str)) if isinstance(found, list) else ()


@dataclass(frozen=True, slots=True)
class TableCount:
    """The number of rows of one table."""

    schema: str
    table: str
    rows: int


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """The content of one database in the dump's own snapshot."""

    name: str
    bytes: int
    tables: tuple[TableCount, ...] = ()
    large_objects: int = 0
    extensions: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """The number of rows of all tables."""
        return sum(t.rows for t in self.tables)


POSTGRES_SETTINGS = (
    "max_prepared_transactions",
    "shared_preload_libraries",
    "max_locks_per_transaction",
)
"""Settings that another PostgreSQL server on the same data gets on its command line; it gets no
others that a backup may name."""

MYSQL_SETTINGS = ("innodb_page_size", "innodb_data_file_path", "lower_case_table_names")
"""Settings without which another MySQL or MariaDB server cannot serve the same files; it gets no
others that a backup may name."""


STANDBY = "in_hot_standby"
"""The setting that PostgreSQL reports, as `on`, while it follows another server. A backup names it,
and no server gets it."""


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """The content of one database server."""

    kind: str
    """`postgres`, `mariadb`, `redis`, ..."""
    version: str
    """`15.18`"""
    user: str
    """The bootstrap role that made the dump."""
    system_identifier: str = ""
    pgdata: str = ""
    databases: tuple[DatabaseStatistics, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings that its data needs, without which no server starts on it
    (`max_prepared_transactions`), or that locate its data: for Redis `dir`, `dbfilename`,
    `appendonly`, ...; never a secret."""

    closed: tuple[str, ...] = ()
    """Names of databases that accept no connections; no dump holds them."""

    @property
    def rows(self) -> int:
        """The number of rows of all databases."""
        return sum(d.rows for d in self.databases)

    @property
    def is_standby(self) -> bool:
        """Whether the server followed another one, as no server made from its dump does."""
        return self.settings.get(STANDBY) == "on"


def describe_shrinkage(before: ServerStatistics, now: ServerStatistics) -> str | None:
    """Describe a loss since an earlier backup, or return None.

    A loss is a database that is gone, or more than half of the rows.
    """
    gone = sorted({d.name for d in before.databases} - {d.name for d in now.databases})
    if gone:
        return f"database {', '.join(gone)} is not there any more"
    return (
        f"{count(now.rows, 'row')}, {before.rows:,} before" if now.rows * 2 < before.rows else None
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """A proof that an artifact, or a volume of a backup, is good."""

    level: str
    """`L1`: size and sha256; `L2`: the whole stream was read and its members equal the list; `L3`:
    the rows in the dump equal the counts of the same snapshot; `L4`: restored and started without a
    network, and counted."""
    subject: str
    """The artifact's file, or the volume's name for L4."""
    at: str
    """UTC, `2026-11-22T07:27:00Z`."""
    what: str
    """A description: `41 tables, 120000 rows counted`."""


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """A location as it was, with everything needed to create it again.

    For a folder or a layer, driver and options say nothing.
    """

    name: str
    """The name of the location: of a volume, or see `observed.Location`."""
    driver: str
    options: Mapping[str, str]
    labels: Mapping[str, str]
    created_at: str
    tier: str
    data_kind: str
    """`postgres`, `files`, ..."""
    anonymous: bool
    method: str
    """`dump`, `physical`, `cold` (every user stopped), `dump+cold`, `live` (users were running)."""
    users: tuple[Mapping[str, str], ...] = ()
    """`container`, `service`, `image`, `image_id`, `destination` of each container that mounted
    it."""
    artifacts: tuple[Artifact, ...] = ()
    statistics: ServerStatistics | None = None
    sqlite: tuple[DatabaseStatistics, ...] = ()
    """The SQLite databases that were copied consistently in addition to a `live` archive, by their
    paths."""
    dump_older_than_archive: bool = False
    """Whether the dump is older than the archive or the physical copy, so that its counts do not
    apply to that."""
    notes: tuple[str, ...] = ()
    location: str = "volume"
    """`volume`, `folder` or `layer`."""


@dataclass(frozen=True, slots=True)
class Omission:
    """An object that a project's services mount and a backup lacks, with the reason."""

    name: str
    """The volume, the path of the folder on the host, or `layer:CONTAINER`."""
    kind: str
    """`volume`, `folder`, `layer`, or `database` of a volume that is held otherwise."""
    reason: str
    """A description without secrets: `disposable: mounted at /var/cache: cache`."""
    tier: str = ""
    """The tier of an existing volume; else empty."""
    lacking: bool = False
    """Whether it belongs in the backup and could not be backed up: the backup is partial."""
    next_step: str = ""
    """The command or action to try next, where `lacking` is true."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup as its manifest describes it."""

    id: str
    """`20261122T072700Z-3f9a1c`"""
    seq: int
    created: str
    """UTC, RFC 3339."""
    project: str
    endpoint: str
    engine_id: str
    reason: str
    """`manual`, `schedule`, `pre-delete`, `pre-restore`."""
    command: tuple[str, ...]
    """The docker arguments that made it necessary; empty for a backup by hand."""
    path: str
    volumes: tuple[VolumeRecord, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    pinned_until: str | None = None
    tool_version: str = ""
    warnings: tuple[str, ...] = ()
    omitted: tuple[Omission, ...] = ()
    """Objects that the project's services mount and the backup does not hold. Empty for backups of
    earlier releases, where they are unknown."""
    broken: str | None = None
    """Why it must not be trusted, or None. A broken backup is kept, shown, and never chosen
    automatically."""
    offsite: tuple[OffsiteCopy, ...] = ()
    """One entry for each destination that it was sent to, or that could not be reached for it."""
    unsigned_from: str | None = None
    """The place from which it was fetched without a signature, or None. Its author is unknown: it
    is never preferred to one that was made here or was signed, and it replaces none of those.
    `UNKNOWN_PLACE` where the record of it is lost."""

    @property
    def bytes(self) -> int:
        """The size of all files in bytes."""
        return sum(a.bytes for v in self.volumes for a in v.artifacts)

    @property
    def lacking(self) -> tuple[Omission, ...]:
        """The volumes that belong in the backup and could not be backed up.

        There are some only in a partial backup.
        """
        return tuple(o for o in self.omitted if o.lacking)

    @property
    def level(self) -> str | None:
        """The highest level at which it was verified, or None.

        A deletion requires the lowest level over its subjects instead.
        """
        return max((e.level for e in self.evidence), default=None) if self.broken is None else None

    @property
    def unproved(self) -> tuple[str, ...]:
        """The files that lack the evidence that a deletion requires.

        That is L3 for each dump and physical copy, and L2 for each archive, the globals and the
        settings.
        """
        proved: dict[str, str] = {}
        for evidence in self.evidence:
            proved[evidence.subject] = max(evidence.level, proved.get(evidence.subject, ""))
        asked = {
            "archive": "L2",
            "others": "L2",
            "globals": "L2",
            "settings": "L2",
            "database": "L3",
            "base": "L3",
            "sqlite": "L3",
        }
        files = [a for v in self.volumes for a in v.artifacts]
        return tuple(a.file for a in files if proved.get(a.file, "") < asked.get(a.kind, ""))

    @property
    def verified(self) -> bool:
        """Whether it is good enough for a deletion, and to be chosen automatically."""
        return self.broken is None and any(v.artifacts for v in self.volumes) and not self.unproved

    @property
    def counts(self) -> bool:
        """Whether it is verified and was made here or was signed.

        Only such a backup may decide which others are kept.
        """
        return self.verified and self.unsigned_from is None

    def summarize(self) -> BackupSummary:
        """Return what lists show of it."""
        return BackupSummary(
            id=self.id,
            seq=self.seq,
            created=self.created,
            project=self.project,
            endpoint=self.endpoint,
            engine_id=self.engine_id,
            reason=self.reason,
            volumes=tuple(v.name for v in self.volumes),
            bytes=self.bytes,
            path=self.path,
            level=self.level,
            verified=self.verified,
            verified_at=max((e.at for e in self.evidence), default=""),
            pinned_until=self.pinned_until,
            broken=self.broken,
            offsite=self.offsite,
            unsigned_from=self.unsigned_from,
            lacking=tuple(o.name for o in self.lacking),
        )
