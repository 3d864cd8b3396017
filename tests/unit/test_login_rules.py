"""Which rules of `pg_hba.conf` a cluster that is made again from a dump needs."""

import pytest

from safe_compose.databases.postgres.authentication import (
    adapt_rules,
    choose_method,
    find_network_method,
)
from safe_compose.databases.postgres.dump_roles import list_md5_logins

FRESH = b"""# IPv4 local connections: host all all all md5
local   all  all                 trust
host    all  all  127.0.0.1/32   trust
host    replication  all  ::1/128  trust

host all all all scram-sha-256
"""
MD5 = b"md5" + b"0" * 32


@pytest.mark.parametrize(
    ("before", "logins", "wanted"),
    [
        (FRESH.replace(b"scram-sha-256", b"md5"), ("shop",), b"md5"),
        (FRESH.replace(b"scram-sha-256", b"password"), ("shop",), b"md5"),
        (FRESH.replace(b"scram-sha-256", b"md5"), (), None),
        (FRESH.replace(b"scram-sha-256", b"trust"), (), b"trust"),
        (FRESH, ("shop",), None),
        (None, ("shop",), b"md5"),
        (None, (), None),
        (b"hostssl all all 0.0.0.0/0 md5\n", ("shop",), b"md5"),
        (b"host all all 10.0.0.0/8 trust # all\n", (), None),
    ],
)
def test_the_method_is_that_of_the_old_server_and_fits_the_passwords_of_its_roles(
    before: bytes | None, logins: tuple[str, ...], wanted: bytes | None
) -> None:
    assert choose_method(before, logins) == wanted


def test_only_the_rule_for_everybody_on_a_network_changes() -> None:
    assert find_network_method(FRESH) == b"scram-sha-256"
    adapted = adapt_rules(FRESH, b"md5")
    assert adapted == FRESH.replace(b"all scram-sha-256", b"all md5")
    assert adapt_rules(adapted, b"trust") == adapted


def test_roles_that_log_in_with_md5_are_found_as_pg_dumpall_writes_them() -> None:
    rest = b"NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB"
    tail = b"NOREPLICATION NOBYPASSRLS"
    script = b"".join(
        [
            b"CREATE ROLE shop;\n",
            b"ALTER ROLE shop WITH SUPERUSER INHERIT CREATEROLE CREATEDB LOGIN REPLICATION"
            b" BYPASSRLS PASSWORD '" + MD5 + b"';\n",
            b'ALTER ROLE "Ada L" WITH ' + rest + b" LOGIN " + tail + b" CONNECTION LIMIT 7"
            b" PASSWORD '" + MD5 + b"' VALID UNTIL '2040-01-01 00:00:00+00';\n",
            b"ALTER ROLE staff WITH " + rest + b" NOLOGIN " + tail + b" PASSWORD '" + MD5 + b"';\n",
            b"ALTER ROLE new WITH " + rest + b" LOGIN " + tail + b" PASSWORD 'SCRAM-SHA-256$x';\n",
        ]
    )
    assert list_md5_logins(script) == ("shop", "Ada L")
