"""The roles that a dump names and a server lacks, created from the script that came with it."""

import re
from collections.abc import Sequence

from safe_compose.databases.postgres.client import naming_client_fault
from safe_compose.databases.postgres.connection import identifier
from safe_compose.databases.postgres.discover import PostgresServer
from safe_compose.databases.postgres.dump_lexer import PieceKind, split_dump
from safe_compose.databases.postgres.dump_reader import make_restrict_lines
from safe_compose.databases.postgres.encodings import IDENTIFIER, decode_name
from safe_compose.databases.postgres.restrict import feed_psql
from safe_compose.databases.postgres.target_server import choose_maintenance_database

_CREATES_ROLE = re.compile(rb"CREATE ROLE (" + IDENTIFIER + rb");")
_ALTERS_ROLE = re.compile(
    rb"(ALTER ROLE (" + IDENTIFIER + rb") WITH)((?: [A-Z]+| CONNECTION LIMIT -?\d+)*?)"
    rb"((?: PASSWORD '[^'\\]*')?(?: VALID UNTIL '[^'\\]*')?;)"
)
_SETS_ROLE = re.compile(rb"ALTER ROLE (" + IDENTIFIER + rb") SET [A-Za-z_.]+ TO [^;]++;")
_GRANTS_ROLE = re.compile(
    rb"GRANT ("
    + IDENTIFIER
    + rb") TO ("
    + IDENTIFIER
    + rb")(?: WITH (?:ADMIN|INHERIT|SET) (?:OPTION|TRUE|FALSE)"
    rb"(?:, (?:ADMIN|INHERIT|SET) (?:OPTION|TRUE|FALSE))*)?(?: GRANTED BY (" + IDENTIFIER + rb"))?;"
)
"""Statements about roles as pg_dumpall writes them (pg_dumpall.c: dumpRoles, dumpRoleMembership,
dumpUserConfig).
"""
_MD5_LOGIN = re.compile(rb" PASSWORD 'md5[0-9a-f]{32}'")
_POWERS = re.compile(rb"\b(?=(?:SUPERUSER|CREATEROLE|CREATEDB|REPLICATION|BYPASSRLS)\b)")


def make_roles_script(
    script: bytes, missing: Sequence[str], known: frozenset[str], *, own: bool = True
) -> bytes:
    """Return the part of a globals script that creates the missing roles.

    Their passwords and memberships are included; roles that the script lacks are created without a
    login. Existing roles are not changed. `own` marks a backup of ours; otherwise the roles get no
    power over the server, nor that of an existing role.
    """
    wanted, there = set(missing), set(missing) | known
    statements: list[bytes] = []
    made: set[str] = set()
    for piece in split_dump([script]):
        if piece.kind is not PieceKind.STATEMENT:
            continue
        raw = piece.raw
        if (created := _CREATES_ROLE.fullmatch(raw)) is not None and decode_name(
            created[1]
        ) in wanted:
            made.add(decode_name(created[1]))
            statements.append(raw)
        elif (altered := _ALTERS_ROLE.fullmatch(raw)) is not None and decode_name(
            altered[2]
        ) in wanted:
            statements.append(
                raw if own else altered[1] + _POWERS.sub(b"NO", altered[3]) + altered[4]
            )
        elif (
            own
            and (setting := _SETS_ROLE.fullmatch(piece.code)) is not None
            and decode_name(setting[1]) in wanted
        ):
            statements.append(raw)
        elif (granted := _GRANTS_ROLE.fullmatch(raw)) is not None:
            role, member = decode_name(granted[1]), decode_name(granted[2])
            by = decode_name(granted[3]) if granted[3] is not None else role
            if {role, member} & wanted and {role, member, by} <= there and (own or role in wanted):
                statements.append(raw)
    bare = [
        f"CREATE ROLE {identifier(name)} NOLOGIN;".encode() for name in missing if name not in made
    ]
    return b"".join(line + b"\n" for line in (*bare, *statements))


def list_md5_logins(script: bytes) -> tuple[str, ...]:
    """Return the roles of a globals script that may log in, with an md5 password."""
    return tuple(
        decode_name(altered[2])
        for piece in split_dump([script])
        if (altered := _ALTERS_ROLE.fullmatch(piece.raw)) is not None
        and b"LOGIN" in altered[3].split()
        and _MD5_LOGIN.match(altered[4])
    )


def make_roles(server: PostgresServer, database: str, script: bytes, key: str | None) -> None:
    """Run a script of `make_roles_script`, as a whole or not at all.

    Raises:
        OperationFailed: The server refuses.
    """
    begins, ends = make_restrict_lines(key)
    with naming_client_fault(server.volume, "make the roles of the dump"):
        feed_psql(
            server.client,
            choose_maintenance_database(server, database),
            [begins, b"BEGIN;\n", script, b"COMMIT;\n", ends],
        )
