"""Passwords for servers that ask for one even over their socket.

Causes are `initdb --auth-local=scram-sha-256` or a custom pg_hba.conf. As for MariaDB, the password
is the one that the container was started with. It is on no command line, in no log, and in no
long-lived value of ours: it is read again for each connection, and passed as PGPASSWORD by name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from safe_compose.databases.engine_container import FILE_LIMIT
from safe_compose.engine import Engine

_VARIABLES = (
    "POSTGRES_PASSWORD",
    "POSTGRESQL_PASSWORD",
    "POSTGRESQL_POSTGRES_PASSWORD",
    "PGPASSWORD",
)
"""Variables of the official image and of Bitnami's; each may have a `_FILE` variable that names a
file.
"""
_REFUSED = re.compile(r"authentication failed|no password supplied|pg_hba\.conf")
_PEER = re.compile(r"\b(?:Peer|Ident)\b", re.I)
"""The rest of the message is in the server's language: no connection of ours has asked for English
by then.
"""
_NO_CONNECTION = 2
"""psql's exit code (settings.h: EXIT_BADCONN)."""
_NOT_OURS = re.compile(
    r"Is the server running|timeout expired|could not|server closed|does not exist"
    r"|database system is|too many"
    r"|permission denied"
)
"""Messages of libpq, and of a server that speaks English, for which no password helps."""
_ASK_SECONDS = 60.0


class Secret(NamedTuple):
    """The place of a password, but never the password itself."""

    source: str
    """`environment`, `file`, or `given` (by the code that changes it)."""
    place: str
    """The name of the variable, the path of the file in the container, or the index in `given`."""


given: list[tuple[str, str]] = []
"""(role, password) that `password.knowing` lets sessions try while a password changes, when the
container's own password does not help.
"""


def is_refused(words: str) -> bool:
    """Return whether a server refused a login, so that another login may work."""
    return _REFUSED.search(words) is not None


def may_be_refused(words: str, returncode: int) -> bool:
    """Return whether a message in any language may be a refused login.

    psql made no connection then, and there is no other message that explains it.
    """
    return is_refused(words) or (returncode == _NO_CONNECTION and _NOT_OURS.search(words) is None)


def is_for_its_own_user(words: str) -> bool:
    """Return whether the server lets in the system user that has the role's name."""
    return _PEER.search(words) is not None


def find_secrets(
    environment: Mapping[str, str], roles: Sequence[str]
) -> Iterator[tuple[str, Secret]]:
    """Yield (role, place of its password), the likeliest first."""
    for role in roles:
        yield from (
            (role, Secret("given", str(place)))
            for place, (owner, _) in enumerate(given)
            if owner == role
        )
    for variable in _VARIABLES:
        if environment.get(variable):
            yield from ((role, Secret("environment", variable)) for role in roles)
        elif file := environment.get(f"{variable}_FILE"):
            yield from ((role, Secret("file", file)) for role in roles)


def read_password(engine: Engine, container_id: str, path: str) -> str:
    """Return the password in a file of a container, as the image's entrypoint reads it.

    Raises:
        HelperFailed: The file cannot be read.
    """
    raw = engine.helpers.execute(
        container_id, ("cat", "--", path), timeout=_ASK_SECONDS, limit=FILE_LIMIT
    )
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape").rstrip("\n")


def make_environment(engine: Engine, container_id: str, secret: Secret | None) -> dict[str, str]:
    """Return PGPASSWORD for one call of a client; empty without a password.

    Raises:
        HelperFailed: A file with the password cannot be read.
    """
    if secret is None:
        return {}
    if secret.source == "given":
        password = given[int(secret.place)][1]
    elif secret.source == "file":
        password = read_password(engine, container_id, secret.place)
    else:
        password = engine.docker.private(container_id).environment.get(secret.place, "")
    return {"PGPASSWORD": password}
