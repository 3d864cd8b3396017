"""The password of an account: its hash, made here, read, set over the socket and tested.

Supported are `mysql_native_password`, the default of MariaDB and of MySQL up to 5.7, and
`caching_sha2_password`, that of MySQL since 8.0: their hashes can be made, and restored, without
the server ever seeing a password. A login is tested as a client of the network. MariaDB 10.11 and
11.8 and MySQL 9.7 were tested.

A stored password is one hash of the first kind, or a JSON object of a hash of the second kind for
each host of the account: each has a salt of its own.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from safe_compose.core.observed import Container
from safe_compose.core.text import shell_quote
from safe_compose.databases.client import ASK_TIMEOUT
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.mysql import caching_sha2
from safe_compose.databases.mysql.client import naming_client_fault
from safe_compose.databases.mysql.discover import MysqlServer, contact
from safe_compose.databases.mysql.login import given
from safe_compose.databases.protocol import Role, ServerUnreachable, understanding
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.errors import OperationFailed, Refused
from safe_compose.volumes.helper_program import read_last_words

_HASH = re.compile(r"\*[0-9A-F]{40}")
_NATIVE = "mysql_native_password"
_WITHOUT = ("unix_socket", "auth_socket")
"""Plugins that decide by the client's user on the server's own host, whatever the password."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DENIED = "ERROR 1045"
_STARTED, _VERSION = "ready for connections", re.compile(r"Version: '[^']*MariaDB")
"""What only a server of MariaDB that speaks English logs (ER_STARTUP): MySQL 8 logs no refused
login unless told to.
"""


def verifier(password: str, _role: str, like: str | None = None) -> str:
    """Return what the server stores for a password, of the same kind as `like`."""
    hashes = _parse(like)
    if hashes is not None:
        return json.dumps({host: caching_sha2.make_hash(password) for host in hashes})
    return _make_native(password)


def _make_native(password: str) -> str:
    """Return `*` and SHA1 of the password's SHA1."""
    inner = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(inner, usedforsecurity=False).hexdigest().upper()


def _parse(stored: str | None) -> dict[str, str] | None:
    """Return host -> hash of `caching_sha2_password`; None if a stored value is of another kind."""
    if stored is None or not stored.startswith("{"):
        return None
    try:
        found = json.loads(stored)
    except ValueError:
        return None
    whole = isinstance(found, dict) and all(
        isinstance(one, str) and caching_sha2.is_hash(one) for one in found.values()
    )
    return found if whole and found else None


def fits(stored: str | None, password: str, _role: str) -> bool | None:
    """Return whether a stored value is that of a password; None if it is not known here."""
    hashes = _parse(stored)
    if hashes is None:
        return stored is not None and hmac.compare_digest(stored, _make_native(password))
    answers = [caching_sha2.fits(one, password) for one in hashes.values()]
    return False if False in answers else None if None in answers else True


@contextmanager
def knowing(role: str, *passwords: str) -> Iterator[None]:
    """Let our sessions log in to an account with these passwords too, for the length of a block.

    Whichever password the server takes then works.
    """
    before = given.copy()
    given.extend((role, password) for password in passwords)
    try:
        yield
    finally:
        given[:] = before


def role(server: MysqlServer, name: str) -> Role:
    """Return the stored password of all accounts of a name.

    Raises:
        Refused: Their password cannot be changed here.
    """
    return role_of(_accounts(server, name), name, server.container.name, server.client.prefix)


def role_of(
    rows: Sequence[tuple[str, str, str]], name: str, where: str, client: str = "mysql"
) -> Role:
    """Return the stored password in (host, plugin, hash) of all accounts of a name.

    Raises:
        Refused: An account has a password that cannot be made here, and would keep the old one; the
            message holds no hash.
    """
    if not rows:
        raise Refused(
            f"{where} has no account {name}: that is no matter of a password; nothing was changed"
        )
    others = sorted({plugin for _, plugin, _ in rows} - {_NATIVE, caching_sha2.PLUGIN, *_WITHOUT})
    native = {found for _, plugin, found in rows if plugin == _NATIVE and _HASH.fullmatch(found)}
    salted = {
        host: found
        for host, plugin, found in rows
        if plugin == caching_sha2.PLUGIN and caching_sha2.is_hash(found)
    }
    if others or not (native or salted):
        has = ", ".join(others or sorted({plugin for _, plugin, _ in rows}))
        raise Refused(
            f"account {name} of {where} has no password of the kind that can be made here (it has"
            f" {has}); nothing was changed",
            next_step=_by_hand(where, client),
        )
    if len(native) + bool(salted) > 1 or _differ(salted, name):
        raise Refused(
            f"the accounts {', '.join(f'{name}@{host}' for host, _, _ in rows)} of {where} differ"
            " in their passwords; nothing was changed"
        )
    return Role(native.pop() if native else json.dumps(salted))


def _differ(salted: Mapping[str, str], name: str) -> bool:
    """Return whether a password that is known here fits some of an account's hosts, and not all."""
    answers = (
        {caching_sha2.fits(one, password) for one in salted.values()}
        for owner, password in given
        if owner == name
    )
    return any({True, False} <= found for found in answers)


def put(server: MysqlServer, name: str, stored: str | None) -> None:
    """Set the stored password of every account of a name that has a password.

    Raises:
        OperationFailed: The hash is of an unknown form, or the server refuses.
    """
    hashes = _parse(stored)
    if stored is None or (hashes is None and not _HASH.fullmatch(stored)):
        raise OperationFailed(
            f"what account {name} had for a password is no hash that is known; nothing was changed"
        )
    rows = _accounts(server, name)
    if hashes is not None:
        script = [
            f"ALTER USER {_literal(name)}@{_literal(host)} IDENTIFIED WITH {caching_sha2.PLUGIN} AS"
            f" 0x{hashes[host].encode('latin-1').hex()};"
            for host, _, _ in rows
            if host in hashes
        ]
    else:
        changed = "ALTER USER {} IDENTIFIED WITH mysql_native_password AS '{}';"
        form = "SET PASSWORD FOR {} = '{}';" if server.kind == "mariadb" else changed
        script = [
            form.format(f"{_literal(name)}@{_literal(host)}", stored)
            for host, plugin, now in rows
            if plugin == _NATIVE and _HASH.fullmatch(now)
        ]
    client = contact(server.at)
    with (
        naming_client_fault(server.volume, f"change the password of {name}"),
        client.session() as asked,
    ):
        asked.rows("SET SESSION sql_log_off = 1;\n" + "\n".join(script))


def count_refused(log: str, name: str | None = None) -> int | None:
    """Count the refused logins over a network in a log.

    They are counted for one account, or for any if `name` is None. Health checks often try without
    a password, and are content with that; from the server's own host we ourselves try which
    password it takes. The language of a log is that of `lc_messages`.

    Returns:
        None if the log does not show refused logins.
    """
    whose = re.escape(name) if name is not None else "[^']*"
    found = re.findall(rf"Access denied for user '{whose}'@'([^']*)' \(using password: YES\)", log)
    number = sum(host not in _LOOPBACK for host in found)
    return number if number or _VERSION.search(log.partition(_STARTED)[2]) is not None else None


def may_need_password(_fault: ServerUnreachable) -> bool:
    """Return True: only the server's client shows why we are not let in, so a password may help."""
    return True


def by_hand(container: Container) -> str:
    """Return the command with which a user changes the password of an account."""
    return _by_hand(container.name, "mariadb" if "mariadb" in container.image.lower() else "mysql")


def _by_hand(container: str, client: str) -> str:
    return (
        f"docker exec -it {shell_quote(container)} {client} -u root -p, then ALTER USER ..."
        " IDENTIFIED BY ..."
    )


def can_log_in(
    at: EngineContainer, name: str, password: str, *, timeout: float = ASK_TIMEOUT
) -> bool | None:
    """Return whether a new login over the network works.

    Returns:
        None if the server is without a network, or knows that account from its own host only.

    Raises:
        OperationFailed: The server neither accepts nor refuses the login.
    """
    container = at.container
    addresses = at.engine.docker.addresses(container.id)
    if not addresses:
        return None
    image = container.image_id
    words = [f"--host={addresses[0]}", "--protocol=tcp", f"--user={name}", "--connect-timeout=10"]
    words += [
        "--loose-skip-ssl-verify-server-cert",
        "--loose-get-server-public-key",
        "--execute=SELECT 1",
    ]
    denied = ""
    for program in ("mariadb", "mysql"):
        helper = Helper(
            image=image,
            argv=(program, "--no-defaults", *words),
            network=f"container:{container.id}",
            environment={"MYSQL_PWD": password},
        )
        try:
            at.engine.helpers.run(helper, timeout=timeout)
            return True
        except HelperFailed as error:
            if error.returncode in (126, 127):
                continue
            if _DENIED not in error.stderr and "ERROR 1130" not in error.stderr:
                failure = f"a login to {container.name} over the network could not be tried"
                raise OperationFailed(f"{failure}: {read_last_words(error)}") from error
            denied = error.stderr
            break
    return None if "ERROR 1130" in denied or _from_its_host_alone(at, name, password) else False


def _from_its_host_alone(at: EngineContainer, name: str, password: str) -> bool:
    """Return whether an account exists only for connections from the server's own host.

    No network lets it in then.
    """
    try:
        with knowing(name, password):
            client = contact(at)
            rows = client.ask(f"SELECT HOST FROM mysql.user WHERE USER = {_literal(name)}")
    except OperationFailed:
        return False  # no login works, which is the answer
    except HelperFailed:
        return False
    return bool(rows) and all(row[0] in _LOOPBACK for row in rows)


def _accounts(server: MysqlServer, name: str) -> list[tuple[str, str, str]]:
    """Return (host, plugin, hash) of every account of a name."""
    sql = (
        "SELECT HOST, PLUGIN, HEX(AUTHENTICATION_STRING) FROM mysql.user WHERE USER ="
        f" {_literal(name)} ORDER BY HOST"
    )
    client = contact(server.at)
    with naming_client_fault(server.volume, f"look at account {name}"):
        rows = client.ask(sql)
    with understanding(server.container.name):  # a salt may hold any byte
        return [(h, p or _NATIVE, bytes.fromhex(a).decode("latin-1")) for h, p, a in rows]
    raise AssertionError  # an answer that cannot be parsed raises


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
