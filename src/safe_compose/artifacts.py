"""What a backup is made of: files with their sums, statistics of what is in them, and the evidence that they are good."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WORKPLACE, OWNER = ".workplace-", "owner.json"
"""What a folder beside the backups begins with in which something is looked at for a moment, and the file in it that names the
process that made it."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a backup, hashed while it was written."""

    file: str
    """Path relative to the backup's folder, `/` separated."""
    kind: str
    """`archive` (tar.gz of a volume), `globals` (pg_dumpall --globals-only), `database` (one plain dump, or an RDB), `base` (tar.gz
    of a running server's files, by pg_basebackup), `sqlite` (a consistent copy of one SQLite database, for the place of the torn
    one in the archive), `list`."""
    bytes: int
    sha256: str
    uncompressed_bytes: int
    volume: str
    database: str | None = None
    detail: Mapping[str, str] = field(default_factory=dict)
    """Small facts: `tar`: gnu or engine, `members`: how many, `lost`: what this way of archiving loses, `control`: the
    Postgres control state."""

    @property
    def sealed(self) -> bool:
        """Only a key opens it (age)."""
        return self.file.endswith(".age")


@dataclass(frozen=True, slots=True)
class TableCount:
    schema: str
    table: str
    rows: int


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """What one database held in the dump's own snapshot."""

    name: str
    bytes: int
    tables: tuple[TableCount, ...] = ()
    large_objects: int = 0
    extensions: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(t.rows for t in self.tables)


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """What one database server held."""

    kind: str
    """`postgres`, `mariadb`, `redis`, ..."""
    version: str
    """`15.18`"""
    user: str
    """The bootstrap role that the dump was made as."""
    system_identifier: str = ""
    pgdata: str = ""
    databases: tuple[DatabaseStatistics, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """What its data needs or means: settings without which no server starts on it (`max_prepared_transactions`), for Redis
    `dir`, `dbfilename`, `appendonly`, ...; never a secret."""

    @property
    def rows(self) -> int:
        return sum(d.rows for d in self.databases)


def shrunk(before: ServerStatistics, now: ServerStatistics) -> str | None:
    """That databases went or more than half of the rows did since an earlier backup, in words; None where nothing of the kind."""
    gone = sorted({d.name for d in before.databases} - {d.name for d in now.databases})
    if gone:
        return f"database {', '.join(gone)} is not there any more"
    return f"{now.rows} rows, {before.rows} before" if now.rows * 2 < before.rows else None


@dataclass(frozen=True, slots=True)
class Evidence:
    """That one artifact, or one volume of a backup, is good."""

    level: str
    """`L1` size and sha256; `L2` whole stream read, members equal the list; `L3` rows in the dump equal the counts of the
    same snapshot; `L4` restored and started on no network, counted."""
    subject: str
    """The artifact's file, or the volume's name for L4."""
    at: str
    """UTC, `2026-11-22T07:27:00Z`."""
    what: str
    """In words: `41 tables, 120000 rows counted`."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What is known of one off-site copy of a backup."""

    name: str
    """The destination, as the settings call it."""
    url: str
    """Without credentials, since it never has any."""
    pushed: str | None = None
    """UTC; when it was last sent whole, or fetched from there."""
    verified: str | None = None
    """UTC; when every byte of it was last read back and found good."""
    fault: str | None = None
    """Why the last push or verification failed, or None."""

    @property
    def state(self) -> str:
        return "failed" if self.fault is not None else "verified" if self.verified is not None else "unknown"


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """One volume as it was, with everything needed to make it again."""

    name: str
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
    """`container`, `service`, `image`, `image_id`, `destination` of each container that mounted it."""
    artifacts: tuple[Artifact, ...] = ()
    statistics: ServerStatistics | None = None
    sqlite: tuple[DatabaseStatistics, ...] = ()
    """The SQLite databases that were copied consistently beside a `live` archive, by their paths."""
    dump_older_than_archive: bool = False
    """Or older than the physical copy: then the counts are no measure for what it holds."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup as its manifest tells it."""

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
    """The docker argv that made it necessary; empty for a backup by hand."""
    path: str
    volumes: tuple[VolumeRecord, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    pinned_until: str | None = None
    tool_version: str = ""
    warnings: tuple[str, ...] = ()
    broken: str | None = None
    """Why it must not be trusted, or None. A broken one is kept, shown, and never chosen by itself."""
    offsite: tuple[Copy, ...] = ()
    """One for each destination that it was sent to, or that could not be reached for it."""

    @property
    def bytes(self) -> int:
        return sum(a.bytes for v in self.volumes for a in v.artifacts)

    @property
    def level(self) -> str | None:
        """The highest level at which it was verified (the lowest over its subjects is what a deletion asks of it)."""
        return max((e.level for e in self.evidence), default=None) if self.broken is None else None

    @property
    def unproved(self) -> tuple[str, ...]:
        """The files that lack the evidence a deletion asks for: L3 for each dump and physical copy, L2 for each archive and
        the globals."""
        proved: dict[str, str] = {}
        for evidence in self.evidence:
            proved[evidence.subject] = max(evidence.level, proved.get(evidence.subject, ""))
        asked = {"archive": "L2", "globals": "L2", "database": "L3", "base": "L3", "sqlite": "L3"}
        files = [a for v in self.volumes for a in v.artifacts]
        return tuple(a.file for a in files if proved.get(a.file, "") < asked.get(a.kind, ""))

    @property
    def verified(self) -> bool:
        """Good enough to delete for, and to be chosen by itself."""
        return self.broken is None and any(v.artifacts for v in self.volumes) and not self.unproved


@dataclass(frozen=True, slots=True)
class Listed:
    """A backup as lists show it: what is asked of thousands at once."""

    id: str
    seq: int
    created: str
    project: str
    endpoint: str
    engine_id: str
    reason: str
    volumes: tuple[str, ...]
    bytes: int
    path: str
    level: str | None
    verified: bool
    verified_at: str
    """When it was last read back; empty when it never was, or is broken."""
    pinned_until: str | None
    broken: str | None
    offsite: tuple[Copy, ...] = ()

    @classmethod
    def of(cls, backup: Backup) -> "Listed":
        return cls(
            id=backup.id,
            seq=backup.seq,
            created=backup.created,
            project=backup.project,
            endpoint=backup.endpoint,
            engine_id=backup.engine_id,
            reason=backup.reason,
            volumes=tuple(v.name for v in backup.volumes),
            bytes=backup.bytes,
            path=backup.path,
            level=backup.level,
            verified=backup.verified,
            verified_at=max((e.at for e in backup.evidence), default=""),
            pinned_until=backup.pinned_until,
            broken=backup.broken,
            offsite=backup.offsite,
        )


HIDDEN = "***"
"""Stands where a secret was."""

_SECRET_NAME = r"(?:password|passwd|passphrase|\bpwd|\bpass|secret|token|api_?key|access_?key|private_?key|credential)"
_SECRET_PAIR = re.compile(rf"(?i)([\w.-]*{_SECRET_NAME}[\w.-]*[=:])[^,\s]+")
_URL_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^/@\s:]*:)[^/@\s]+(?=@)")
_PAIR = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)=.*", re.DOTALL)
_VALUE_IS_SECRET = frozenset({"--confirm", "--password"})
_PAIR_FOLLOWS = frozenset({"-e", "--env", "--build-arg"})
_BUNDLE_WITH_ENV = re.compile(r"-[A-Za-z]*e")


def hide_secrets(text: str) -> str:
    """A text with the values of `password=...`-like words and the passwords of URLs replaced by `***`."""
    return _URL_PASSWORD.sub(rf"\g<1>{HIDDEN}", _SECRET_PAIR.sub(rf"\g<1>{HIDDEN}", text))


def redact(argv: Sequence[str]) -> tuple[str, ...]:
    """A command as it may be written down: for people to read, not to be run again.

    Values of `--confirm` and `--password`, of `-e NAME=value` and `--build-arg NAME=value` in every spelling, of words that
    look like `PASSWORD=value`, and passwords in URLs become `***`. Hides too much rather than too little.
    """
    words: list[str] = []
    before = ""
    for word in argv:
        flag, equals, value = word.partition("=")
        pair = _PAIR.fullmatch(word)
        if before in _VALUE_IS_SECRET or (before == "-p" and "login" in words):
            shown = HIDDEN
        elif equals and flag in _VALUE_IS_SECRET:
            shown = f"{flag}={HIDDEN}"
        elif pair and (before in _PAIR_FOLLOWS or _BUNDLE_WITH_ENV.fullmatch(before)):
            shown = f"{pair[1]}={HIDDEN}"
        elif flag in _PAIR_FOLLOWS and "=" in value:
            shown = f"{flag}={value.partition('=')[0]}={HIDDEN}"
        elif equals and not flag.startswith("--") and (glued := re.fullmatch(r"(-[A-Za-z]*e=?)([A-Za-z_][\w.-]*)", flag)):
            shown = f"{glued[1]}{glued[2]}={HIDDEN}"
        elif pair and _SECRET_PAIR.match(word):
            shown = f"{pair[1]}={HIDDEN}"  # the whole value: it may hold blanks and commas
        else:
            shown = hide_secrets(word)
        words.append(shown)
        before = word
    return tuple(words)


def visible(text: str) -> str:
    """A text whose control characters, but for line ends, are written out: labels, names and answers of servers are other
    people's words, and a terminal obeys some of them."""
    return text if text.isprintable() else "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def slug(name: str) -> str:
    """A name for files and folders: the name itself when it is plain, else its plain letters and a short hash of all of it.

    Two names never share a slug, also on a file system that ignores case.
    """
    if re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,99}", name) and not re.search(r"-[0-9a-f]{8}$", name):
        return name
    plain = re.sub(r"[^a-z0-9_.-]+", "_", name.lower()).strip("._-")[:60]
    return f"{plain or 'name'}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
