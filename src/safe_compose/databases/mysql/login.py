"""Accounts of a MySQL or MariaDB server that may let us in, and where their passwords are.

A password is on no command line, in no log and in no long-lived value of ours: it is read again for
each connection and passed as MYSQL_PWD by name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from safe_compose.databases.client import ASK_TIMEOUT
from safe_compose.databases.engine_container import FILE_LIMIT
from safe_compose.engine import Engine

_LOG_LIMIT = 4 << 20
_GENERATED = re.compile(rb"GENERATED ROOT PASSWORD: ([^\r\n]+)")
_LOGGED = "the first start's log"


@dataclass(frozen=True, slots=True)
class Login:
    """An account and the place of its password, but never the password itself."""

    user: str = "root"
    source: str = "none"
    """`none` (empty, or let in as the system's root by the socket), `environment`, `file`, `log` or
    `given` (by the code that changes it).
    """
    place: str = ""
    """The name of the variable, the path of the file in the container, or the index in `given`."""

    @property
    def words(self) -> str:
        """A description of the account for a message."""
        where = {
            "none": "without a password",
            "given": "with a given password",
            "log": f"with the password of {_LOGGED}",
        }
        return f"{self.user} {where.get(self.source) or f'with the password of {self.place}'}"


NO_PASSWORD = Login()
"""Root, let in as the system's root by the socket, or with an empty password."""

given: list[tuple[str, str]] = []
"""(account, password) that `password.knowing` lets sessions try while a password changes, when the
container's own password does not help.
"""


def logins(variables: Mapping[str, str]) -> tuple[Login, ...]:
    """Return the accounts to try, the likeliest first.

    They are found in the variables of the official images, `_FILE` variables included.
    """
    environment = {name: value for name, value in variables.items() if value}
    found = []
    for brand in ("MARIADB", "MYSQL"):
        root = environment.get(f"{brand}_ROOT_USER", "root")
        found += _list_password_logins(environment, root, f"{brand}_ROOT_PASSWORD")
    found.append(Login())
    if any(f"{brand}_RANDOM_ROOT_PASSWORD" in environment for brand in ("MARIADB", "MYSQL")):
        found.append(Login("root", "log"))
    for brand in ("MARIADB", "MYSQL"):
        if user := environment.get(f"{brand}_USER"):
            found += _list_password_logins(environment, user, f"{brand}_PASSWORD")
    found += [Login(user, "given", str(place)) for place, (user, _) in enumerate(given)]
    return tuple(dict.fromkeys(found))


def _list_password_logins(environment: Mapping[str, str], user: str, variable: str) -> list[Login]:
    if variable in environment:
        return [Login(user, "environment", variable)]
    file = environment.get(f"{variable}_FILE")
    return [Login(user, "file", file)] if file else []


def secret(engine: Engine, container_id: str, login: Login) -> dict[str, str]:
    """Return MYSQL_PWD for one call of a client; empty without a password.

    Raises:
        HelperFailed: A file with the password cannot be read.
    """
    if login.source == "environment":
        password = engine.docker.private(container_id).environment.get(login.place, "")
    elif login.source == "file":
        output = engine.helpers.execute(
            container_id, ("cat", "--", login.place), timeout=ASK_TIMEOUT, limit=FILE_LIMIT
        )
        password = _word(output).rstrip("\n")
    elif login.source == "given":
        password = given[int(login.place)][1]
    elif login.source == "log":
        found = _GENERATED.findall(engine.docker.logs_head(container_id, _LOG_LIMIT))
        password = _word(found[-1]).strip() if found else ""
    else:
        return {}
    return {"MYSQL_PWD": password}


def _word(raw: bytes) -> str:
    """Decode any bytes into a value that an environment can hold."""
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")
