"""One database restored beside the living one of the same server, and put in its place by two renames in one transaction.

Until those renames are committed the living database is not touched; afterwards it is there under another name. Which of the
two holds, the names alone tell: that is all that `settled` needs after a crash.
"""

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from safe_compose.artifacts import DatabaseStatistics
from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import BackupFailed, LookAgain
from safe_compose.methods.archive import feed, last_words
from safe_compose.methods.postgres.dump import measure
from safe_compose.methods.postgres.said import Said
from safe_compose.methods.postgres.scan import top_level_lines
from safe_compose.methods.postgres.server import PSQL, Address, Server, ask, fault, run, session, stream

_RESTRICT_SINCE = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}
"""Major -> the minor release whose psql knows `\\restrict` first (CVE-2025-8714); every later major does."""


def literal(text: str) -> str:
    """A string of SQL that means the same whatever `standard_conforming_strings` is."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Session:
    """One client that is connected to a database."""

    user: str
    application: str
    address: str
    """Empty: over the socket in the server's own container."""

    def __str__(self) -> str:
        program = f" ({self.application})" if self.application else ""
        return f"{self.user}{program} from {self.address or 'the socket in the container'}"


@dataclass(frozen=True, slots=True)
class Living:
    """The server that gets a database, and the one of that name that it has now."""

    exists: bool
    bytes: int
    roles: frozenset[str]
    available: frozenset[str]
    """Extensions that could be created."""
    psql: tuple[int, ...]
    free: int | None
    """Bytes where the server keeps its data; None where that cannot be told."""
    databases: frozenset[str]


_LIVING = """
SELECT pg_catalog.jsonb_build_object(
  'bytes', (SELECT pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database WHERE datname = {name}),
  'roles', (SELECT pg_catalog.jsonb_agg(rolname) FROM pg_catalog.pg_roles),
  'available', (SELECT pg_catalog.jsonb_agg(name) FROM pg_catalog.pg_available_extensions),
  'databases', (SELECT pg_catalog.jsonb_agg(datname) FROM pg_catalog.pg_database))
"""
_SESSIONS = """
SELECT COALESCE(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(usename, application_name,
         COALESCE(pg_catalog.host(client_addr), '')) ORDER BY pid), '[]')
FROM pg_catalog.pg_stat_activity
WHERE datname = {name} AND backend_type = 'client backend' AND application_name <> 'safe-compose'
"""


def near(server: Server) -> Address:
    """The way of small questions: one bare psql in the server's own container, which costs a third of a container for it."""
    return replace(server.address, side=False)


def maintenance(server: Server, database: str) -> str:
    """A database to ask from that is not the one that is renamed."""
    return server.maintenance if server.maintenance != database else "template1"


def living(engine: Engine, server: Server, database: str) -> Living:
    """Look at the server. Raises BackupFailed."""
    with fault(server.volume, "look at the server"):
        facts: dict[str, Any] = json.loads(
            ask(engine, near(server), maintenance(server, database), _LIVING.format(name=literal(database)))
        )
        version = run(engine, near(server), ("psql", "--version")).decode("ascii", "replace").split()
    digits = next((word for word in version if word[:1].isdigit()), "0").split(".")
    return Living(
        exists=facts["bytes"] is not None,
        bytes=int(facts["bytes"] or 0),
        roles=frozenset(facts["roles"]),
        available=frozenset(facts["available"] or ()),
        psql=tuple(int(d) for d in digits if d.isdecimal()),
        free=_free(engine, server),
        databases=frozenset(facts["databases"]),
    )


def _free(engine: Engine, server: Server) -> int | None:
    try:
        said = engine.execute(server.container.id, ("df", "-Pk", server.data_directory), timeout=30).decode("ascii", "replace")
        return int(said.splitlines()[-1].split()[3]) << 10
    except (HelperFailed, IndexError, ValueError):
        return None  # no df in that image: then the disk itself will tell


def sessions(engine: Engine, server: Server, database: str) -> list[Session]:
    """Who is connected to a database besides us. Raises BackupFailed."""
    with fault(server.volume, "look who is connected"):
        sql = _SESSIONS.format(name=literal(database))
        return [Session(*map(str, row)) for row in json.loads(ask(engine, near(server), maintenance(server, database), sql))]


def end_sessions(engine: Engine, server: Server, database: str, addresses: Iterable[str]) -> None:
    """End what clients left behind that were stopped: a server notices only when it has something to tell them. Raises
    BackupFailed."""
    here = ", ".join(map(literal, addresses)) or "NULL"
    sql = (
        "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity "
        f"WHERE datname = {literal(database)} AND pg_catalog.host(client_addr) IN ({here})"
    )
    with fault(server.volume, "end the sessions of stopped services"):
        ask(engine, near(server), maintenance(server, database), sql)


def obstacle(dump: Said, extensions: Iterable[str], server: Server, found: Living, size: int) -> tuple[str, str] | None:
    """Why a dump cannot go into a server, and what could be done; None where nothing is known against it.

    size: bytes that the database is likely to take.
    """
    major = _major(server.version)
    if dump.server and _major(dump.server) > major:
        return (
            f"it was made from PostgreSQL {dump.server}, and the server is {server.version}: an older one does not take it",
            f"give the service an image of PostgreSQL {_major(dump.server)}, with a new volume",
        )
    if dump.client and _major(dump.client) > major:
        return (
            f"it was made by pg_dump {dump.client}, whose scripts a server {server.version} need not understand",
            f"make the dump with the server's own pg_dump {major}",
        )
    if dump.restricted and not knows_restrict(found.psql):
        psql = ".".join(map(str, found.psql))
        return (
            f"it has \\restrict, which the server's own psql {psql} does not know",
            f"pull the latest minor release of PostgreSQL {major}",
        )
    if missing := sorted({*dump.extensions, *extensions} - found.available):
        return f"the server has no extension {', '.join(missing)}", "give the service an image that has it"
    if found.free is not None and found.free < size * 6 // 5:
        return (
            f"about {size * 6 // 5 >> 20} MiB are needed beside the living database, {found.free >> 20} MiB are free",
            "make room where docker keeps its volumes",
        )
    return None


def knows_restrict(psql: Sequence[int]) -> bool:
    """Whether that version of psql knows `\\restrict`; one that cannot be told is not held against a dump."""
    major, minor = (*psql, 0, 0)[:2]
    return not major or major >= 18 or (major in _RESTRICT_SINCE and minor >= _RESTRICT_SINCE[major])


def _major(version: str) -> int:
    head = version.partition(".")[0]
    return int(head) if head.isdecimal() else 0


# -- roles -------------------------------------------------------------------------------------------------------------


def roles_script(script: bytes, missing: Sequence[str], known: frozenset[str]) -> bytes:
    """What of a globals script makes the missing roles, with their passwords and memberships; those that it does not have are
    made without a login. Nothing that is there already is changed."""
    wanted, there = set(missing), set(missing) | known
    kept: list[bytes] = []
    made: set[str] = set()
    for _, line in top_level_lines(script):
        words = _words_of(line)
        name = words[2] if len(words) > 2 else ""
        if words[:2] == ["CREATE", "ROLE"] and name in wanted:
            made.add(name)
            kept.append(line)
        elif words[:2] == ["ALTER", "ROLE"] and name in wanted and words[3:5] != ["IN", "DATABASE"]:
            kept.append(line)
        elif words[:1] == ["GRANT"] and len(words) > 3 and words[2] == "TO" and {words[1], words[3]} & wanted:
            by = words[words.index("BY") + 1] if "BY" in words[4:] else words[1]
            if {words[1], words[3], by} <= there:
                kept.append(line)
    bare = [f"CREATE ROLE {identifier(name)} NOLOGIN;".encode() for name in missing if name not in made]
    return b"".join(line + b"\n" for line in (*bare, *kept))


def _words_of(line: bytes) -> list[str]:
    """The words of a statement of one line, names without their quotes; empty for any other line."""
    if not line.endswith(b";"):
        return []
    words, quoted = [], line[:-1].decode("utf-8", "backslashreplace").split('"')
    for at, piece in enumerate(quoted):
        words += [piece] if at % 2 else piece.split()
    return words


# -- the new one -------------------------------------------------------------------------------------------------------

_LIKE = """
SELECT pg_catalog.format('CREATE DATABASE {new} TEMPLATE template0 OWNER %I ENCODING %L LC_COLLATE %L LC_CTYPE %L',
    pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype) ||
  CASE r->>'datlocprovider'
    WHEN 'i' THEN pg_catalog.format(' LOCALE_PROVIDER icu ICU_LOCALE %L', COALESCE(r->>'datlocale', r->>'daticulocale'))
    WHEN 'b' THEN pg_catalog.format(' LOCALE_PROVIDER builtin BUILTIN_LOCALE %L', r->>'datlocale') ELSE '' END
FROM pg_catalog.pg_database d, pg_catalog.to_jsonb(d) r WHERE d.datname = {old} \\gexec
"""
_GRANTS = """
SELECT 'REVOKE ALL ON DATABASE {new} FROM PUBLIC' FROM pg_catalog.pg_database WHERE datname = {old} AND datacl IS NOT NULL \\gexec
SELECT pg_catalog.format('GRANT %s ON DATABASE {new} TO %s%s', a.privilege_type,
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
  FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a WHERE d.datname = {old} \\gexec
"""
_SETTINGS = """
SELECT pg_catalog.format('SELECT FROM pg_catalog.set_config(%L, %L, false)', n, v),
  pg_catalog.format('ALTER %s SET %s FROM CURRENT',
    CASE s.setrole WHEN 0 THEN 'DATABASE {new}' ELSE pg_catalog.format('ROLE %I IN DATABASE {new}',
      pg_catalog.pg_get_userbyid(s.setrole)) END, n), pg_catalog.format('RESET %s', n)
  FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase, pg_catalog.unnest(s.setconfig) c,
    pg_catalog.split_part(c, '=', 1) n, pg_catalog.substr(c, pg_catalog.length(n) + 2) v
  WHERE d.datname = {old} \\gexec
"""
"""FROM CURRENT, because a list (`search_path`) cannot be written down as one string."""


def make_roles(engine: Engine, server: Server, database: str, script: bytes) -> None:
    """Run what `roles_script` gave: all of it, or nothing. Raises BackupFailed."""
    with fault(server.volume, "make the roles of the dump"):
        _load(engine, server.address, maintenance(server, database), [b"BEGIN;\n", script, b"COMMIT;\n"])


def make_empty(engine: Engine, server: Server, database: str, new: str, *, exists: bool) -> None:
    """An empty database for a dump that does not make its own: like the living one where there is one. Raises BackupFailed."""
    names = {"new": identifier(new), "old": literal(database)}
    script = "".join((_LIKE, _GRANTS, _SETTINGS)).format(**names) if exists else f"CREATE DATABASE {names['new']};"
    with fault(server.volume, f"make database {new}"), session(engine, server.address, maintenance(server, database)) as asked:
        asked.line(script)


def load(engine: Engine, server: Server, database: str, new: str, blocks: Iterable[bytes], *, creates: bool) -> DatabaseStatistics:
    """Feed a dump for `new` to psql, which stops at the first error; analyse and count it. Raises BackupFailed."""
    with fault(server.volume, f"restore database {database} beside the living one"):
        _load(engine, server.address, maintenance(server, database) if creates else new, blocks)
        ask(engine, near(server), new, "ANALYZE", timeout=None)
        [counted] = measure(engine, near(server), [new])
        return counted


def _load(engine: Engine, address: Address, database: str, blocks: Iterable[bytes]) -> None:
    argv = (*PSQL, "--output=/dev/null", f"--dbname={address.conninfo(database)}")
    with stream(engine, address, argv, stdin=subprocess.PIPE, discard=True) as psql:
        feed(blocks, psql.stdin)


def swap(engine: Engine, server: Server, database: str, new: str, aside: str | None) -> None:
    """Both renames, or none. `aside`: the name that the living one gets; None where there is none. Raises LookAgain where
    somebody is connected to it (the server itself waits five seconds for them to go), BackupFailed."""
    renames = [f"ALTER DATABASE {identifier(database)} RENAME TO {identifier(aside)}"] if aside is not None else []
    renames.append(f"ALTER DATABASE {identifier(new)} RENAME TO {identifier(database)}")
    try:
        # one string is one transaction
        ask(engine, near(server), maintenance(server, database), "; ".join(["SET lock_timeout = '20s'", *renames]))
    except HelperFailed as error:
        if "being accessed by other users" in error.stderr:
            there = "; ".join(map(str, sessions(engine, server, database))) or "somebody"
            raise LookAgain(
                f"database {database} is in use ({there}); it was left as it was", next_step="end those sessions, then run it again"
            ) from error
        raise BackupFailed(f"volume {server.volume}: rename database {database}: {last_words(error)}") from error


# -- what a restore that did not end left ------------------------------------------------------------------------------


def settled(engine: Engine, server: Server, facts: Mapping[str, Any]) -> tuple[bool, str]:
    """Bring a restore of one database that was cut off to one of its two ends, by the names that the server has: whether the
    new one is in place, and that in words. `facts` are those of the journal. Raises BackupFailed."""
    database, new, aside = str(facts["database"]), str(facts["beside"]), facts.get("aside")
    names = living(engine, server, database).databases
    if new not in names and (aside in names if aside else database in names):
        kept = f"; the one before it is {aside}" if aside else ""
        return True, f"database {database} of {server.container.name} was restored whole{kept}"
    take_away(engine, server, database, new, [str(role) for role in facts.get("roles", ())])
    return False, f"database {database} of {server.container.name} is as it was: what was restored beside it was taken away"


def take_away(engine: Engine, server: Server, database: str, new: str, roles: Sequence[str]) -> None:
    """Drop the database that was made beside the living one, and the roles that were made for it. Raises BackupFailed."""
    where, address = maintenance(server, database), near(server)
    with fault(server.volume, f"take away database {new}"):
        ask(
            engine,
            address,
            where,
            f"SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity "
            f"WHERE datname = {literal(new)}",
        )
        ask(engine, address, where, f"DROP DATABASE IF EXISTS {identifier(new)}")
        for role in roles:
            ask(engine, address, where, f"DROP ROLE IF EXISTS {identifier(role)}")


# -- the service's own way in ------------------------------------------------------------------------------------------


def login(engine: Engine, server: Server, database: str) -> str | None:
    """Log in over the network as the service's environment says, where a password is asked for: why it failed, or None.

    Raises NoLogin where that cannot be tried. The password stands in no argv.
    """
    from psycopg.conninfo import make_conninfo

    container = server.container
    if not container.addresses or not container.networks:
        raise NoLogin("its container is in no network of its own")
    environment = engine.private(container.id).environment
    password = environment.get("POSTGRES_PASSWORD") or _password_file(engine, container.id, environment)
    if password is None:
        raise NoLogin("its environment names no password")
    user = environment.get("POSTGRES_USER") or "postgres"
    where = make_conninfo(
        host=container.addresses[0], port=server.address.port, user=user, dbname=database, connect_timeout=10,
        application_name="safe-compose",
    )  # fmt: skip
    helper = Helper(
        image=server.address.image,
        argv=(*PSQL, f"--dbname={where}", "--command=SELECT 1"),
        network=container.networks[0],
        environment={"PGPASSWORD": password},
    )
    try:
        engine.run(helper, timeout=60)
    except HelperFailed as error:
        return last_words(error)
    return None


class NoLogin(Exception):
    """A login cannot be tried; the text says why."""


def _password_file(engine: Engine, container_id: str, environment: Mapping[str, str]) -> str | None:
    path = environment.get("POSTGRES_PASSWORD_FILE")
    if not path:
        return None
    try:
        return engine.execute(container_id, ("cat", path), timeout=30).decode("utf-8").rstrip("\r\n")
    except HelperFailed:
        return None
