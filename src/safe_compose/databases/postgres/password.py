"""The password of a role: its verifier, made here, read, set over the socket and tested.

The server never sees a password, so its log, pg_stat_statements and command lines do not either.
Setting a verifier that was read before is an exact reversal that needs no password (E8 of
backup-facts, run). A login is tested as a client of the network.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from safe_compose.core.observed import Container
from safe_compose.core.text import join_for_shell, shell_quote
from safe_compose.databases.client import ASK_TIMEOUT
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.postgres import login
from safe_compose.databases.postgres.client import APPLICATION, PSQL, naming_client_fault
from safe_compose.databases.postgres.connection import (
    IN_ENGLISH,
    Use,
    format_conninfo,
    identifier,
    literal,
)
from safe_compose.databases.postgres.discover import PostgresServer, find_reachable, locate
from safe_compose.databases.postgres.server_facts import parse_name
from safe_compose.databases.protocol import LoginRefused, Role, ServerUnreachable, understanding
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.errors import OperationFailed, Refused
from safe_compose.volumes.helper_program import read_last_words

_SCRAM = re.compile(
    r"SCRAM-SHA-256\$(\d{1,10}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)", re.ASCII
)
_MOST_DIGITS = 7
"""Largest number of digits in the number of iterations; more would run for minutes here."""
_MD5 = re.compile(r"md5[0-9a-f]{32}")
_ASKED = "no password supplied"
"""In libpq's own message, which is English for us, where a server asks for a password."""
_REFUSED_LINE = re.compile(r'\bFATAL:  password authentication failed for user "(.*)"$')
_INVALID_PASSWORD = re.compile(r"(?<!\w)28P01(?!\w)")
"""ERRCODE_INVALID_PASSWORD (errcodes.txt) before a severity and a message: the same in each
language.
"""
_ENGLISH_LOG = re.compile(r"database system is ready to accept|password authentication failed")
"""Log lines that only a server with English messages writes: about its start, and about a password.
"""
_QUIET = (
    "SET log_statement = 'none'; SET log_min_duration_statement = -1; SET log_min_error_statement ="
    " 'panic'; SET log_duration = off; SET synchronous_commit = on; SET"
    " pg_stat_statements.track_utility = off;"
)
"""Not even a verifier should be in a log."""


def verifier(password: str, role: str, _like: str | None = None) -> str:
    """Return a SCRAM-SHA-256 verifier of a password with a fresh salt, made by libpq."""
    from psycopg import pq

    # libpq makes it without a server; it only needs a connection object, which is never connected
    nowhere = pq.PGconn.connect_start(b"host=/nonexistent")
    try:
        return nowhere.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode(
            "ascii"
        )
    finally:
        nowhere.finish()


def fits(stored: str | None, password: str, role: str) -> bool | None:
    """Return whether a verifier is that of a password; None if that cannot be decided here."""
    if stored is None:
        return False
    if match := _SCRAM.fullmatch(stored):
        if len(match[1]) > _MOST_DIGITS:
            return None
        normal = password if password.isascii() else unicodedata.normalize("NFKC", password)
        try:
            salted = hashlib.pbkdf2_hmac(
                "sha256", normal.encode(), base64.b64decode(match[2]), int(match[1])
            )
            expected = base64.b64decode(match[3])
        except ValueError:  # not base64, or no iterations
            return None
        key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
        return hmac.compare_digest(key, expected) or (None if not password.isascii() else False)
    if _MD5.fullmatch(stored):
        found = hashlib.md5(f"{password}{role}".encode(), usedforsecurity=False).hexdigest()
        return hmac.compare_digest(f"md5{found}", stored)
    return None


@contextmanager
def knowing(role: str, *passwords: str) -> Iterator[None]:
    """Let our sessions log in as a role with these passwords too, for the length of a block.

    Whichever password the server takes then works.
    """
    before = login.given.copy()
    login.given.extend((role, password) for password in passwords)
    try:
        yield
    finally:
        login.given[:] = before


def role(server: PostgresServer, name: str) -> Role:
    """Return the stored verifier of a role.

    Raises:
        Refused: Its password cannot be changed here.
    """
    sql = (
        "SELECT pg_catalog.jsonb_build_object('verifier', rolpassword, 'login', rolcanlogin,"
        " 'standby', pg_catalog.pg_is_in_recovery(), 'over', COALESCE(rolvaliduntil <"
        f" pg_catalog.now(), false)) FROM pg_catalog.pg_authid WHERE rolname = {literal(name)}"
    )
    with naming_client_fault(server.volume, f"look at role {name}"):
        answer = find_reachable(server).ask(server.maintenance, sql)
    if not answer:
        raise Refused(
            f"{server.container.name} has no role {name}: that is no matter of a password; nothing"
            " was changed",
            next_step=(
                f"docker exec -it {shell_quote(server.container.name)} psql -U"
                f" {shell_quote(server.user)} -d {shell_quote(server.maintenance)}, then \\du"
            ),
        )
    with understanding(server.container.name):
        facts = json.loads(answer)
        stored, standby, login, over = (
            facts["verifier"],
            facts["standby"],
            facts["login"],
            facts["over"],
        )
        stored = None if stored is None else parse_name(stored)
    if standby:
        raise Refused(
            f"{server.container.name} is a standby: it takes its roles from its primary; nothing"
            " was changed",
            next_step="run the same for the service of the primary",
        )
    if not login:
        raise Refused(
            f"role {name} of {server.container.name} may not log in at all; nothing was changed"
        )
    notes = [f"role {name} is past its VALID UNTIL: no password lets it in"] if over else []
    if stored is not None and _MD5.fullmatch(stored):
        notes.append(
            f"role {name} has an md5 password and gets a SCRAM one: a client older than PostgreSQL"
            " 10 cannot use that"
        )
    return Role(stored, tuple(notes))


def put(server: PostgresServer, name: str, stored: str | None) -> None:
    """Set a role's verifier; None removes its password.

    Raises:
        OperationFailed: The verifier is of an unknown form, or the server refuses.
    """
    if stored is not None and not (_SCRAM.fullmatch(stored) or _MD5.fullmatch(stored)):
        raise OperationFailed(
            f"what role {name} had for a password is no verifier that is known; nothing was changed"
        )
    words = f"'{stored}'" if stored is not None else "NULL"
    client, stage = find_reachable(server), f"change the password of role {name}"
    with (
        naming_client_fault(server.volume, stage),
        client.session(server.maintenance, Use.CHANGE) as asked,
    ):
        asked.line(f"{_QUIET}\nALTER ROLE {identifier(name)} PASSWORD {words};")


def count_refused(log: str, name: str | None = None) -> int | None:
    """Count the logins that a server's log shows as refused for a wrong password.

    They are counted for one role, or for any if `name` is None.

    Returns:
        None if the log does not show them: it is in another language and its lines have no SQLSTATE
            (`log_line_prefix` with `%e`), or it goes elsewhere (`logging_collector`).
    """
    whose = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])" if name is not None else "")
    found, severity = 0, None
    for line in log.splitlines():
        if line.endswith('"') and (english := _REFUSED_LINE.search(line)) is not None:
            found += name in (None, english[1])
        elif (of_line := _severity_of_invalid_password(line)) is not None:
            severity = severity or of_line  # a message's details follow it, with the same SQLSTATE
            found += of_line == severity and whose.search(line) is not None
    return found if found or _ENGLISH_LOG.search(log) is not None else None


def _severity_of_invalid_password(line: str) -> str | None:
    """Return what stands for a severity in a line about a wrong password; None in any other.

    Whoever may run a statement may have a line of any length logged: it is read in one pass.
    """
    if (code := _INVALID_PASSWORD.search(line)) is None:
        return None
    before, colon, _ = line[code.end() :].partition(":  ")
    words = before.split()
    return words[-1] if colon and words else None


def may_need_password(fault: ServerUnreachable) -> bool:
    """Return whether the server refused all passwords that its container has."""
    return isinstance(fault, LoginRefused)


def by_hand(container: Container) -> str:
    """Return the command with which a user changes the password of the container's own role."""
    name = container.environment.get("POSTGRES_USER", "postgres")
    database = container.environment.get("POSTGRES_DB", name)
    words = ["docker", "exec", "-it", container.name, "psql", "-U", name, "-d", database]
    return f"{join_for_shell(words)}, then \\password"


def can_log_in(
    at: EngineContainer, name: str, password: str, *, timeout: float = ASK_TIMEOUT
) -> bool | None:
    """Return whether a new login over the network works.

    It is tried from a side container that shares the server's network, to its own address there:
    the official image trusts everybody on 127.0.0.1.

    Returns:
        None if the server is without a network, or asks for no password there.

    Raises:
        OperationFailed: The server neither accepts nor refuses the login.
    """
    addresses = at.engine.docker.addresses(at.container.id)
    if not addresses:
        return None
    address = addresses[0], locate(at, name).port

    def connect(given: str | None) -> HelperFailed | None:
        return _connect(at, name, address, given, timeout=timeout)

    failure = connect(None)
    if failure is None:
        return None
    if _ASKED in failure.stderr:
        failure = connect(password)
        if failure is None:
            return True
        if _refuses_like(failure, connect(secrets.token_urlsafe())):
            return False
    raise OperationFailed(
        f"a login to {at.name} over the network could not be tried: {read_last_words(failure)}"
    ) from failure


def _refuses_like(failure: HelperFailed, wrong: HelperFailed | None) -> bool:
    """Return whether a login failed as one with a password that is surely wrong.

    The message is in the server's language: no connection of ours has asked for English by then.
    """
    return (
        wrong is not None
        and login.may_be_refused(failure.stderr, failure.returncode)
        and (failure.returncode, failure.stderr) == (wrong.returncode, wrong.stderr)
    )


def _connect(
    at: EngineContainer,
    name: str,
    address: tuple[str, int],
    password: str | None,
    *,
    timeout: float,
) -> HelperFailed | None:
    """Log in over the network; return the failure, or None where it worked."""
    host, port = address
    conninfo = format_conninfo(
        host=host,
        port=port,
        user=name,
        dbname="postgres",
        application_name=APPLICATION,
        connect_timeout=int(min(timeout, 10)),
    )
    helper = Helper(
        image=at.container.image_id,
        argv=(*PSQL, f"--dbname={conninfo}", "--command=SELECT 1"),
        network=f"container:{at.container.id}",
        environment={**IN_ENGLISH, **({} if password is None else {"PGPASSWORD": password})},
    )
    try:
        at.engine.helpers.run(helper, timeout=timeout)
    except HelperFailed as error:
        return None if 'database "postgres" does not exist' in error.stderr else error
    return None
