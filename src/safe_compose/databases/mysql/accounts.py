"""The accounts of a server as a script of statements, with the hashes of their passwords."""

import re

from safe_compose.databases.mysql.client import MysqlSession, quote_name
from safe_compose.databases.mysql.discover import parse_version
from safe_compose.databases.protocol import understanding
from safe_compose.errors import OperationFailed

HEALTHCHECK = "healthcheck"
"""The official image's own account for health checks. Its password is in a file of the data
directory, and each fresh directory gets its own, so the account of a fresh server stays as it is.
"""
_INTERNAL = ("mariadb.sys", "mysql.sys", "mysql.session", "mysql.infoschema")
_NAME = r"(?:`(?:[^`]|``)*`|'(?:[^'\\]|\\.|'')*')"
_UNRESOLVED = re.compile(r"(?!localhost$)(?=.*[^%_./0-9])[^:]+", re.IGNORECASE)
"""A host that must be looked up (`hostname_requires_resolving` of MariaDB's sql_acl.cc)."""
_ACCOUNT = re.compile(rf"CREATE USER ({_NAME}@{_NAME})(.*)", re.DOTALL)
_LIBRARY = re.compile(r"[\w.-]+", re.ASCII)
_DEFAULT_ROLE = re.compile(rf" DEFAULT ROLE (?:{_NAME}@{_NAME},?)+")


@understanding("the accounts")
def list_accounts(asked: MysqlSession, kind: str) -> list[tuple[str, str, bool]]:
    """Return (user, host, is a role) of all accounts but the server's internal ones.

    Accounts for names of hosts are left out where the server looks up no names
    (`skip_name_resolve`): it does not load them, so it cannot describe them either.
    """
    role = "is_role" if kind == "mariadb" else "'N'"
    skipped = ", ".join(f"'{name}'" for name in _INTERNAL)
    sql = (
        f"SELECT User, Host, {role} FROM mysql.user WHERE User NOT IN ({skipped}) ORDER BY {role}"
        " DESC, User, Host;"
    )
    unused = _UNRESOLVED if asked.value("SELECT @@skip_name_resolve;") == "1" else None
    return [
        (user, host, role == "Y")
        for user, host, role in asked.rows(sql)
        if role == "Y" or unused is None or unused.fullmatch(host) is None
    ]


def account(user: str, host: str, role: bool) -> str:
    """Write an account as SQL."""
    return quote_name(user) if role else f"{quote_name(user)}@{quote_name(host)}"


def accounts(asked: MysqlSession, kind: str) -> str:
    """Write a script that creates the accounts of a server on another one.

    It holds the accounts' hashes, rights and roles, and may be run twice.
    """
    if kind == "mysql" and parse_version(asked.value("SELECT @@version;")) >= (8, 0, 17):
        asked.rows("SET SESSION print_identified_with_as_hex = ON;")  # its hashes hold any byte
    made: list[str] = []
    given: list[str] = []
    settled: list[str] = []
    for user, host, role in list_accounts(asked, kind):
        name = "PUBLIC" if role and user == "PUBLIC" else account(user, host, role)
        grants = [row[0] for row in asked.rows(f"SHOW GRANTS FOR {name};")]
        given += [
            line
            for line in grants
            if line.startswith("GRANT ") and (user != HEALTHCHECK or " IDENTIFIED " not in line)
        ]
        if not role:
            create, alter = _user(asked.value(f"SHOW CREATE USER {name};"), user)
            made.append(create)
            settled += alter if user != HEALTHCHECK else []
        elif name != "PUBLIC":
            made.append(f"CREATE ROLE IF NOT EXISTS {name}")
        settled += [line for line in grants if not line.startswith("GRANT ")]
    before, after = _plugins(asked) if kind == "mariadb" else ([], [])
    # An account's properties come after its rights: MariaDB's GRANT repeats its password, which
    # ends an expiry.
    statements = ["SET SESSION sql_mode = ''", *before, *made, *given, *settled]
    statements += [*after, "FLUSH PRIVILEGES"]
    return "".join(f"{line};\n" for line in statements) + "-- accounts end here\n"


@understanding("the plugins")
def _plugins(asked: MysqlSession) -> tuple[list[str], list[str]]:
    """Return statements that load what a server of MariaDB loaded besides its own (10.4 and later).

    They are in two parts: what accounts log in with comes before them. What may refuse their
    passwords (`PASSWORD VALIDATION`) comes after them.
    """
    if parse_version(asked.value("SELECT @@version;")) < (10, 4):
        return [], []
    rows = asked.rows(
        "SELECT PLUGIN_TYPE, PLUGIN_NAME, PLUGIN_LIBRARY FROM information_schema.PLUGINS WHERE"
        " PLUGIN_LIBRARY IS NOT NULL AND PLUGIN_STATUS = 'ACTIVE' ORDER BY PLUGIN_NAME;"
    )
    loads = [
        (kind, f"INSTALL PLUGIN IF NOT EXISTS {quote_name(name)} SONAME {_quote_library(library)}")
        for kind, name, library in rows
    ]
    first = [statement for kind, statement in loads if kind == "AUTHENTICATION"]
    return first, [statement for kind, statement in loads if kind != "AUTHENTICATION"]


def _quote_library(library: str) -> str:
    """Write the name of a file among the server's plugins as SQL.

    Raises:
        ValueError: It is no such name.
    """
    if _LIBRARY.fullmatch(library) is None:
        raise ValueError(library)
    return f"'{library}'"


def _user(statement: str, user: str) -> tuple[str, list[str]]:
    """Return the statement that creates a missing account, and those that set its properties.

    MariaDB prints no empty password; MySQL prints default roles, which must have been granted
    before.

    Raises:
        OperationFailed: The server describes the account in an unknown form.
    """
    found = _ACCOUNT.fullmatch(statement)
    if found is None:
        raise OperationFailed(
            f"the server describes the account {user} in a way that is not understood"
        )
    name, rest = found.groups()
    roles = _DEFAULT_ROLE.search(rest)
    rest = _DEFAULT_ROLE.sub("", rest)
    if " IDENTIFIED " not in rest:
        rest = f" IDENTIFIED BY ''{rest}"
    more = [f"ALTER USER {name}{roles[0]}"] if roles is not None else []
    return f"CREATE USER IF NOT EXISTS {name}{rest}", [f"ALTER USER {name}{rest}", *more]
