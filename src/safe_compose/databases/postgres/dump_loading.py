"""Changes to one of our dumps while it is loaded into a new database.

- A setting of pg_dump that the server is too old for is left out.
- Materialized views are filled last, because their source may be another server; event triggers are
  created after that.
- TimescaleDB is notified that its tables are being restored, before and after.
- A schema that comes after an extension may have been created by it.
- A dump looks up names in no schema but those it writes; functions that it calls may use names
  without a schema, and worked under the search_path of their database. A dump is loaded with that
  path only if it does not load without.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from safe_compose.databases.postgres.dump_lexer import DumpPiece, PieceKind
from safe_compose.databases.postgres.dump_scanner import CONNECT
from safe_compose.databases.postgres.encodings import IDENTIFIER
from safe_compose.engine.client_stream import TAIL

_VALUES = re.compile(rb"'((?:[^']|'')*+)'|(" + IDENTIFIER + rb")")
_SETS_PATH = re.compile(
    rb"(ALTER (?:DATABASE|ROLE) "
    + IDENTIFIER
    + rb"(?: IN DATABASE "
    + IDENTIFIER
    + rb")?) SET search_path (?:TO|=) ([^;]*+);",
    re.S,
)
_SETTING = re.compile(rb"SET ([a-z_]+) = [^;]*+;")
_SINCE = {
    b"default_table_access_method": 12,
    b"default_toast_compression": 14,
    b"transaction_timeout": 17,
}
"""Settings that pg_dump makes, mapped to the first major release that knows them: an image may have
a newer pg_dump than its server, which another release could not load (pg_backup_archiver.c).
"""
_PROVIDER_SINCE = 15
_LIBC = re.compile(
    rb"(CREATE DATABASE "
    + IDENTIFIER
    + rb" WITH TEMPLATE = template0 ENCODING = '[^']*+') LOCALE_PROVIDER = libc(?=[ ;])"
)
"""What pg_dump 15 and newer write of every database; libc is all that an older server has."""
_SCHEMA = re.compile(rb"CREATE SCHEMA (" + IDENTIFIER + rb");")
_NO_PATH = b"SELECT pg_catalog.set_config('search_path', '', false);"
_REFRESH = re.compile(
    rb"REFRESH MATERIALIZED VIEW (?:CONCURRENTLY )?(" + IDENTIFIER + rb"\." + IDENTIFIER + rb");"
)
_EVENT_TRIGGER = re.compile(rb"(?:CREATE|ALTER|COMMENT ON) EVENT TRIGGER ")
_EXTENSION = re.compile(rb"CREATE EXTENSION ")
_TIMESCALE = re.compile(rb'CREATE EXTENSION (?:IF NOT EXISTS )?"?timescaledb"?[ ;]')
_HOOK = """
DO $safe_compose$ DECLARE called pg_catalog.text; BEGIN
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  SELECT pg_catalog.format('SELECT %I.%I()', n.nspname, p.proname) INTO called
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
      AND d.objid = p.oid AND d.deptype = 'e'
      AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
    JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'timescaledb'
  WHERE p.proname = '{name}' AND p.pronargs = 0;
  IF called IS NOT NULL THEN EXECUTE called; END IF;
END $safe_compose$;
"""
"""Only a function that belongs to the extension is called, wherever it lies; older releases have
none.
"""
BEFORE_TIMESCALE = _HOOK.format(name="timescaledb_pre_restore").encode()
AFTER_TIMESCALE = _HOOK.format(name="timescaledb_post_restore").encode()

_STRIPPED = 80
"""Largest number of blanks that a full tail of the output lost at its ends."""
_MAY_FAIL = re.compile(
    rb"(?:CREATE (?:UNIQUE INDEX|INDEX|(?:CONSTRAINT )?TRIGGER|(?:OR REPLACE )?(?:RECURSIVE )?VIEW"
    rb"|MATERIALIZED VIEW"
    rb"|PUBLICATION|SUBSCRIPTION|STATISTICS)"
    rb"|ALTER TABLE (?:ONLY )?\S+ (?:ADD CONSTRAINT|CLUSTER ON|ALTER COLUMN \S+ SET STATISTICS)"
    rb"|ALTER INDEX|COMMENT ON"
    rb"|ALTER DATABASE \S+ SET"
    rb"|CREATE POLICY "
    + IDENTIFIER
    + rb" ON (?:"
    + IDENTIFIER
    + rb"\.)?"
    + IDENTIFIER
    + rb"(?= (?:FOR|TO|USING|WITH CHECK) )) ",
    re.IGNORECASE,
)
"""Statements that every row can be loaded without, and whose absence shows nobody more. Neither a
restrictive policy nor a rule is among them: they keep people from rows. Without a trigger or a
constraint more can be written than before, which is reported.
"""


@dataclass(slots=True)
class Loading:
    """The state of loading one dump: replacements of its pieces, and statements that come last.

    `begins` and `ends` switch psql's restricted mode, in which it takes no command from a script;
    they are empty if psql does not know it.
    """

    begins: bytes
    ends: bytes
    path: bytes = b""
    """A search_path as a quoted SQL string, for a dump that does not load without it; then
    statements that bring no row may fail, which psql reports on its stderr. Empty for loading the
    dump unchanged.
    """
    superuser: bool = True
    """The role that loads may call TimescaleDB and create event triggers; otherwise the superuser
    does so afterwards.
    """
    major: int = 0
    """Major version of the server that loads it; 0 if unknown."""
    refreshed: list[str] = field(default_factory=list)
    """Materialized views that are filled, as SQL names them."""
    _refreshes: list[bytes] = field(default_factory=list)
    _event_triggers: list[bytes] = field(default_factory=list)
    _timescale: bool = False
    _extensions: bool = False
    """An extension was created, and its script may have created schemas of the dump as well: it
    does so only where they are missing, and pg_dump writes some of them after it.
    """

    def send(self, piece: DumpPiece, script: bytes) -> bytes:
        """Return the script for psql in place of a piece, whose own text is `script` by now."""
        if piece.kind is PieceKind.COMMAND and CONNECT.fullmatch(piece.raw):
            # An older psql loses its options there, and a database may be set to read only. Every
            # line keeps its number.
            return script + b"SET default_transaction_read_only = off;"
        if piece.kind is not PieceKind.STATEMENT:
            return script
        if (setting := _SETTING.fullmatch(piece.raw)) is not None:
            unknown = 0 < self.major < _SINCE.get(setting[1], 0)
            return b"-- not known here: " + script if unknown else script
        if (created := self.adapt_creation(script)) != script:
            return created
        if (refresh := _REFRESH.fullmatch(piece.raw)) is not None:
            self.refreshed.append(refresh[1].decode("utf-8", "backslashreplace"))
            self._refreshes.append(script)
            return b"\n"
        if _EVENT_TRIGGER.match(piece.code):
            self._event_triggers.append(script)
            return b"\n"
        if _TIMESCALE.match(piece.raw) and self.superuser:
            self._timescale = self._extensions = True
            return script + BEFORE_TIMESCALE
        if _EXTENSION.match(piece.raw):
            self._extensions = True
        elif self._extensions and (schema := _SCHEMA.fullmatch(piece.raw)) is not None:
            return b"CREATE SCHEMA IF NOT EXISTS " + schema[1] + b";"
        if self.path and piece.raw == _NO_PATH:
            return b"SELECT pg_catalog.set_config('search_path', " + self.path + b", false);"
        return self.tolerate(script) if _MAY_FAIL.match(piece.code) else script

    def adapt_creation(self, statement: bytes) -> bytes:
        """Return a CREATE DATABASE without the locale provider for a server too old for it.

        Every other statement, and every one for a newer server, is unchanged.
        """
        if 0 < self.major < _PROVIDER_SINCE and (made := _LIBC.match(statement)) is not None:
            return made[1] + statement[made.end() :]
        return statement

    def last(self) -> Iterator[bytes]:
        """Yield the script for psql after the last piece."""
        for refresh in self._refreshes:
            yield self._ignoring_errors(refresh)
        if self._timescale:
            yield AFTER_TIMESCALE
        if self.superuser:
            yield from self.event_triggers()

    def event_triggers(self) -> Iterator[bytes]:
        """Yield the statements for event triggers, which a superuser's psql runs last.

        From then on event triggers run on every change.
        """
        for statement in self._event_triggers:
            yield self.tolerate(statement) + b"\n"

    def tolerate(self, statement: bytes) -> bytes:
        """Let a statement that brings no row fail if the dump does not load unchanged."""
        return self._ignoring_errors(statement) if self.path else statement

    def _ignoring_errors(self, statement: bytes) -> bytes:
        off = self.ends + b"\\set ON_ERROR_STOP off\n" + self.begins
        on = self.ends + b"\\set ON_ERROR_STOP on\n" + self.begins
        return b"\n" + off + statement + b"\n" + on


@dataclass(slots=True)
class Paths:
    """The settings of the search_path under which the functions of a dumped database worked."""

    _settings: list[tuple[int, bytes]] = field(default_factory=list)
    _schemas: dict[bytes, None] = field(default_factory=dict)

    def take(self, piece: DumpPiece, rank: int = 0) -> None:
        """Remember the settings in a piece of a dump.

        `rank`: 0 for the dump of the database, 1 for the script of the server's roles.
        """
        if piece.kind is not PieceKind.STATEMENT:
            return
        if (found := _SETS_PATH.fullmatch(piece.raw)) is not None:
            self._settings.append((rank + found[1].startswith(b"ALTER ROLE"), found[2]))
        elif (schema := _SCHEMA.fullmatch(piece.raw)) is not None:
            self._schemas[_plain(schema[1])] = None

    def path(self, roles: Iterable[DumpPiece] = ()) -> bytes:
        """Return the search_path as a quoted SQL string.

        It has the settings of the database, of its roles and of all roles, and then `public` and
        every other schema of the dump. The server's own schema stays first, as it always is.
        """
        for piece in roles:
            self.take(piece, 1)
        names = dict.fromkeys([b"$user"])
        for _, value in sorted(self._settings, key=lambda setting: setting[0]):
            for quoted, name in _VALUES.findall(value):
                names[_plain(name) if name else quoted.replace(b"''", b"'")] = None
        names |= {b"public": None, **self._schemas}
        remaining = [
            b'"' + name.replace(b'"', b'""') + b'"'
            for name in names
            if name not in (b"", b"pg_catalog", b"pg_temp")
        ]
        return b"E'" + b", ".join(remaining).replace(b"\\", b"\\\\").replace(b"'", b"''") + b"'"


def search_path(pieces: Iterable[DumpPiece], roles: Iterable[DumpPiece]) -> bytes:
    """Return the search_path of a dump and of the script of its roles, as a quoted SQL string."""
    found = Paths()
    for piece in pieces:
        found.take(piece)
    return found.path(roles)


def _plain(name: bytes) -> bytes:
    """Return the name of an identifier, in the dump's own encoding."""
    return name[1:-1].replace(b'""', b'"') if name.startswith(b'"') else name


def failures(said: str) -> list[str]:
    """Return psql's errors about statements that may fail, each once.

    If the output reached the limit of what is kept of it, a last entry says that there may be more.
    """
    found = [line.partition("ERROR:")[2].strip() for line in said.splitlines() if "ERROR:" in line]
    found += (
        ["there were more, which were not kept"]
        if len(said.encode("utf-8", "replace")) > TAIL - _STRIPPED
        else []
    )
    return list(dict.fromkeys(found))
