"""The password of a role: its verifier made here, read, put in place over the socket, and tried as a client of the network.

The server never sees a password, so neither do its log, pg_stat_statements or an argv. To put back a verifier that was read
before is an exact way back that needs no password (E8 of backup-facts, run).
"""

import base64
import hashlib
import hmac
import json
import re
import unicodedata
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import BackupFailed, Refused
from safe_compose.methods.archive import last_words
from safe_compose.methods.database import Role
from safe_compose.methods.postgres.server import APPLICATION, ASK_TIMEOUT, PSQL, Address, Server, ask, fault, locate, session
from safe_compose.observed import Container

_SCRAM = re.compile(r"SCRAM-SHA-256\$(\d+):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")
_MD5 = re.compile(r"md5[0-9a-f]{32}")
_REFUSED = ("password authentication failed", "no password supplied")
_QUIET = (
    "SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement = 'panic'; "
    "SET log_duration = off; SET synchronous_commit = on; SET pg_stat_statements.track_utility = off;"
)
"""Not even a verifier has to stand in a log."""


def verifier(password: str, role: str) -> str:
    """What the server keeps of a password: SCRAM-SHA-256 with a fresh salt, made by libpq."""
    from psycopg import pq

    # libpq makes it without a server; it only wants an object of a connection, which this one never becomes
    nowhere = pq.PGconn.connect_start(b"host=/nonexistent")
    try:
        return nowhere.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode("ascii")
    finally:
        nowhere.finish()


def fits(kept: str | None, password: str, role: str) -> bool | None:
    """Whether a verifier is that of a password. None: it cannot be told here."""
    if kept is None:
        return False
    if match := _SCRAM.fullmatch(kept):
        normal = password if password.isascii() else unicodedata.normalize("NFKC", password)
        salted = hashlib.pbkdf2_hmac("sha256", normal.encode(), base64.b64decode(match[2]), int(match[1]))
        stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
        return hmac.compare_digest(stored, base64.b64decode(match[3])) or (None if not password.isascii() else False)
    if _MD5.fullmatch(kept):
        found = hashlib.md5(f"{password}{role}".encode(), usedforsecurity=False).hexdigest()
        return hmac.compare_digest(f"md5{found}", kept)
    return None


def knowing(role: str, *passwords: str) -> AbstractContextManager[None]:
    """The socket asks for none."""
    return nullcontext()


def role(engine: Engine, server: Server, name: str) -> Role:
    """What the server keeps of a role. Raises Refused when its password cannot be changed here."""
    sql = (
        "SELECT pg_catalog.jsonb_build_object('verifier', rolpassword, 'login', rolcanlogin, "
        "'standby', pg_catalog.pg_is_in_recovery(), 'over', COALESCE(rolvaliduntil < pg_catalog.now(), false)) "
        f"FROM pg_catalog.pg_authid WHERE rolname = {_literal(name)}"
    )
    with fault(server.volume, f"look at role {name}"):
        said = ask(engine, _socket(server), server.maintenance, sql)
    if not said:
        raise Refused(
            f"{server.container.name} has no role {name}: that is no matter of a password; nothing was changed",
            next_step=f"docker exec -it {server.container.name} psql -U {server.user} -d {server.maintenance}, then \\du",
        )
    facts = json.loads(said)
    if facts["standby"]:
        raise Refused(
            f"{server.container.name} is a standby: it takes its roles from its primary; nothing was changed",
            next_step="run the same for the service of the primary",
        )
    if not facts["login"]:
        raise Refused(f"role {name} of {server.container.name} may not log in at all; nothing was changed")
    notes = [f"role {name} is past its VALID UNTIL: no password lets it in"] if facts["over"] else []
    if facts["verifier"] is not None and _MD5.fullmatch(facts["verifier"]):
        notes.append(f"role {name} has an md5 password and gets a SCRAM one: a client older than PostgreSQL 10 cannot use that")
    return Role(facts["verifier"], tuple(notes))


def put(engine: Engine, server: Server, name: str, kept: str | None) -> None:
    """Give a role this verifier (None: no password). Raises BackupFailed."""
    if kept is not None and not (_SCRAM.fullmatch(kept) or _MD5.fullmatch(kept)):
        raise BackupFailed(f"what role {name} had for a password is no verifier that is known; nothing was changed")
    words = f"'{kept}'" if kept is not None else "NULL"
    identifier = '"' + name.replace('"', '""') + '"'
    address = _socket(server)
    with fault(server.volume, f"change the password of role {name}"), session(engine, address, server.maintenance) as asked:
        asked.line(f"{_QUIET}\nALTER ROLE {identifier} PASSWORD {words};")


def refused(log: str, name: str) -> int:
    """How many logins of a role the server's log shows as refused."""
    return log.count(f'password authentication failed for user "{name}"')


def lets_in(engine: Engine, container: Container, name: str, password: str, *, timeout: float = ASK_TIMEOUT) -> bool | None:
    """Whether a fresh login over the network works. None: the server is on no network, or asks for no password there.

    From a side container that shares the server's network, to its own address there: over 127.0.0.1 the official image
    believes anybody. Raises BackupFailed when it is neither let in nor told that the password is wrong.
    """
    from psycopg.conninfo import make_conninfo

    addresses = engine.addresses(container.id)
    if not addresses:
        return None
    port = locate(engine, container, name).port
    for given in ({}, {"PGPASSWORD": password}):
        conninfo = make_conninfo(
            host=addresses[0],
            port=port,
            user=name,
            dbname="postgres",
            application_name=APPLICATION,
            connect_timeout=int(min(timeout, 10)),
        )
        helper = Helper(
            image=container.image_id,
            argv=(*PSQL, f"--dbname={conninfo}", "--command=SELECT 1"),
            network=f"container:{container.id}",
            environment=given,
        )
        try:
            engine.run(helper, timeout=timeout)
        except HelperFailed as error:
            if any(words in error.stderr for words in _REFUSED):
                if given:
                    return False
                continue
            if 'database "postgres" does not exist' not in error.stderr:
                what = f"a login to {container.name} over the network could not be tried"
                raise BackupFailed(f"{what}: {last_words(error)}") from error
        return True if given else None
    return False


def _socket(server: Server) -> Address:
    return replace(server.address, side=False)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
