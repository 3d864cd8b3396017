r"""Scripts for psql, and its mode that takes no commands from them (`\restrict`, CVE-2025-8714)."""

import secrets
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from safe_compose.databases.client import ASK_TIMEOUT
from safe_compose.databases.postgres.client import PSQL, PostgresClient
from safe_compose.databases.postgres.connection import Use
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.volumes.helper_program import feed

_SINCE = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}
r"""Major version, mapped to the first minor release whose psql knows `\restrict`; every later major
version does.
"""


def psql_version(client: PostgresClient) -> tuple[int, ...]:
    """Return the version of the psql that connects to a server; empty if unknown.

    Raises:
        HelperFailed: psql cannot be run.
    """
    words = (
        client.run(("psql", "--version"), timeout=ASK_TIMEOUT).decode("ascii", "replace").split()
    )
    digits = next((word for word in words if word[:1].isdigit()), "").split(".")
    return tuple(int(d[:4]) for d in digits if d.isdecimal())


def knows_restrict(psql: Sequence[int]) -> bool:
    r"""Return whether a version of psql knows `\restrict`; True for an unknown version.

    An unknown version is not held against a dump.
    """
    major, minor = (*psql, 0, 0)[:2]
    return not major or major >= 18 or (major in _SINCE and minor >= _SINCE[major])


def new_key(psql: Sequence[int]) -> str | None:
    r"""Return a key that no dump can know; None for a psql that may not know `\restrict`."""
    return secrets.token_hex(16) if any(psql) and knows_restrict(psql) else None


def restrict_key(client: PostgresClient) -> str | None:
    r"""Return a new key for the psql that connects to a server.

    It is None if that psql may not know `\restrict`.

    Raises:
        HelperFailed: psql cannot be run.
    """
    return new_key(psql_version(client))


@contextmanager
def _expecting_restrict() -> Iterator[None]:
    r"""Suggest a newer image if psql does not know `\restrict` although its version should.

    Raises:
        HelperFailed: The failure of the block, with the suggestion as its next step.
    """
    try:
        yield
    except HelperFailed as error:
        if "invalid command \\restrict" in error.stderr:
            error.next_step = (
                "pull the latest minor release of the server's image: its psql is older than it"
                " should be"
            )
        raise


def feed_psql(
    client: PostgresClient,
    database: str,
    blocks: Iterable[bytes],
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a script in psql, and return the errors that it was allowed to ignore.

    It stops at the first other error.

    Raises:
        HelperFailed: psql failed.
    """
    argv = (*PSQL, "--output=/dev/null", f"--dbname={client.conninfo(database, Use.LOAD)}")
    with (
        _expecting_restrict(),
        client.stream(argv, stdin=subprocess.PIPE, discard=True, environment=environment) as psql,
    ):
        feed(blocks, psql.stdin)
    return psql.warnings
