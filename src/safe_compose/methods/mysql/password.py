"""The password of an account: its hash made here, read, put in place over the socket, and tried as a client of the network.

Only `mysql_native_password`, which MariaDB and MySQL up to 8.0 take by default: its hash can be made, and put back, without
the server ever seeing a password. MariaDB was tried; what is said of MySQL is from its documentation.
"""

import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import BackupFailed, Refused
from safe_compose.methods.archive import last_words
from safe_compose.methods.database import Role
from safe_compose.methods.mysql.server import ASK_TIMEOUT, Server, ask, contact, fault, given, session
from safe_compose.observed import Container

_HASH = re.compile(r"\*[0-9A-F]{40}")
_NATIVE = "mysql_native_password"
_WITHOUT = ("unix_socket", "auth_socket")
"""Plugins that let in by who asks on the server's own host, whatever the password."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DENIED = "ERROR 1045"


def verifier(password: str, role: str) -> str:
    """What the server keeps of a password: `*` and SHA1 of its SHA1."""
    inner = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(inner, usedforsecurity=False).hexdigest().upper()


def fits(kept: str | None, password: str, role: str) -> bool | None:
    """Whether a hash is that of a password."""
    return kept is not None and hmac.compare_digest(kept, verifier(password, role))


@contextmanager
def knowing(role: str, *passwords: str) -> Iterator[None]:
    """While the block lasts, sessions of ours may log in as that account with these too: whichever the server takes now."""
    before = given.copy()
    given.extend((role, password) for password in passwords)
    try:
        yield
    finally:
        given[:] = before


def role(engine: Engine, server: Server, name: str) -> Role:
    """What the server keeps of all accounts of a name. Raises Refused when their password cannot be changed here."""
    return role_of(_accounts(engine, server, name), name, server.container.name, server.address.prefix)


def role_of(rows: Sequence[tuple[str, str, str]], name: str, where: str, client: str = "mysql") -> Role:
    """What (host, plugin, hash) of all accounts of a name come to. Raises Refused, without any hash, where one has a password that
    cannot be made here: it would stay the old one."""
    if not rows:
        raise Refused(f"{where} has no account {name}: that is no matter of a password; nothing was changed")
    others = sorted({plugin for _, plugin, _ in rows} - {_NATIVE, *_WITHOUT})
    hashes = {kept for _, plugin, kept in rows if plugin == _NATIVE and _HASH.fullmatch(kept)}
    if others or not hashes:
        has = ", ".join(others or sorted({plugin for _, plugin, _ in rows}))
        raise Refused(
            f"account {name} of {where} has no password of the kind that can be made here (it has {has}); nothing was changed",
            next_step=f"docker exec -it {where} {client} -u root -p, then ALTER USER ... IDENTIFIED BY ...",
        )
    if len(hashes) > 1:
        raise Refused(
            f"the accounts {', '.join(f'{name}@{host}' for host, _, _ in rows)} of {where} differ in their passwords; nothing was "
            "changed"
        )
    return Role(hashes.pop())


def put(engine: Engine, server: Server, name: str, kept: str | None) -> None:
    """Give every account of a name that has a password this one. Raises BackupFailed."""
    if kept is None or not _HASH.fullmatch(kept):
        raise BackupFailed(f"what account {name} had for a password is no hash that is known; nothing was changed")
    rows = _accounts(engine, server, name)
    changed = "ALTER USER {} IDENTIFIED WITH mysql_native_password AS '{}';"
    form = "SET PASSWORD FOR {} = '{}';" if server.kind == "mariadb" else changed
    script = [
        form.format(f"{_literal(name)}@{_literal(host)}", kept)
        for host, plugin, now in rows
        if plugin == _NATIVE and _HASH.fullmatch(now)
    ]
    address = contact(engine, server.container.id, server.container.image_id)
    with fault(server.volume, f"change the password of {name}"), session(engine, address) as asked:
        asked.rows("SET SESSION sql_log_off = 1;\n" + "\n".join(script))


def refused(log: str, name: str) -> int:
    """How many logins of an account over a network the server's log shows as refused. Health checks often try without a password,
    and are content with that; from its own host we ourselves try which password it takes."""
    found = re.findall(rf"Access denied for user '{re.escape(name)}'@'([^']*)' \(using password: YES\)", log)
    return sum(host not in _LOOPBACK for host in found)


def lets_in(engine: Engine, container: Container, name: str, password: str, *, timeout: float = ASK_TIMEOUT) -> bool | None:
    """Whether a fresh login over the network works. None: the server is on no network, or knows that name from its own host
    alone. Raises BackupFailed when it is neither let in nor told that the password is wrong."""
    addresses = engine.addresses(container.id)
    if not addresses:
        return None
    image = container.image_id
    words = [f"--host={addresses[0]}", "--protocol=tcp", f"--user={name}", "--connect-timeout=10"]
    words += ["--loose-skip-ssl-verify-server-cert", "--loose-get-server-public-key", "--execute=SELECT 1"]
    denied = ""
    for program in ("mariadb", "mysql"):
        helper = Helper(
            image=image,
            argv=(program, "--no-defaults", *words),
            network=f"container:{container.id}",
            environment={"MYSQL_PWD": password},
        )
        try:
            engine.run(helper, timeout=timeout)
            return True
        except HelperFailed as error:
            if error.returncode in (126, 127):
                continue
            if _DENIED not in error.stderr and "ERROR 1130" not in error.stderr:
                what = f"a login to {container.name} over the network could not be tried"
                raise BackupFailed(f"{what}: {last_words(error)}") from error
            denied = error.stderr
            break
    return None if "ERROR 1130" in denied or _from_its_host_alone(engine, container, name, password) else False


def _from_its_host_alone(engine: Engine, container: Container, name: str, password: str) -> bool:
    """Whether the account exists for connections of the server's own host only, so that no network lets it in."""
    try:
        with knowing(name, password):
            address = contact(engine, container.id, container.image_id)
            rows = ask(engine, address, f"SELECT HOST FROM mysql.user WHERE USER = {_literal(name)}")
    except BackupFailed:
        return False  # nobody is let in: that is what was asked
    except HelperFailed:
        return False
    return bool(rows) and all(row[0] in _LOOPBACK for row in rows)


def _accounts(engine: Engine, server: Server, name: str) -> list[tuple[str, str, str]]:
    """(host, plugin, hash) of every account of a name."""
    sql = f"SELECT HOST, PLUGIN, AUTHENTICATION_STRING FROM mysql.user WHERE USER = {_literal(name)} ORDER BY HOST"
    address = contact(engine, server.container.id, server.container.image_id)
    with fault(server.volume, f"look at account {name}"):
        rows = ask(engine, address, sql)
    return [(row[0], row[1] or _NATIVE, row[2]) for row in rows]


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
