"""The kinds of databases, one entry for each."""

from collections.abc import Iterable, Mapping

from safe_compose.core.observed import Container
from safe_compose.databases import mysql, postgres, redis
from safe_compose.databases.protocol import (
    Database,
    Passwords,
    PhysicalCopy,
    SettleRestore,
    StoppedDump,
    UpgradedRecord,
)
from safe_compose.errors import VerificationFailed

_POSTGRES = Database(
    is_server=postgres.is_server,
    serves=postgres.serves,
    server=postgres.server,
    summary=postgres.summary,
    count=postgres.count,
    dump=postgres.dump,
    settling=postgres.settling,
    own_files=postgres.own_files,
    inspect_shutdown=postgres.inspect_shutdown,
    verify_dump=postgres.verify_dump,
    trial=postgres.PostgresTrial,
    rebuild=postgres.rebuild,
    physical=postgres.copy,
    stopped=postgres.dump_stopped,
    passwords=postgres.password,
    upgraded=postgres.adapt_record,
    missing_extensions=postgres.find_missing_extensions,
    settle_restore=postgres.settle_restore,
)
_MYSQL = Database(
    is_server=mysql.is_server,
    serves=mysql.serves,
    server=mysql.server,
    summary=mysql.summary,
    count=mysql.count,
    dump=mysql.dump,
    settling=mysql.settling,
    own_files=mysql.own_files,
    inspect_shutdown=mysql.inspect_shutdown,
    verify_dump=mysql.verify_dump,
    trial=mysql.MysqlTrial,
    rebuild=mysql.rebuild,
    passwords=mysql.password,
)
_REDIS = Database(
    is_server=redis.is_server,
    serves=redis.serves,
    server=redis.server,
    summary=redis.summary,
    count=redis.count,
    dump=redis.dump,
    settling=redis.settling,
    own_files=redis.own_files,
    inspect_shutdown=redis.inspect_shutdown,
    verify_dump=redis.verify_dump,
    trial=redis.RedisTrial,
    rebuild=redis.rebuild,
    # The archive after a stop holds the same RDB, and the append-only file too.
    dumped_before_deletion=False,
    held_in_memory=True,
)

DATABASES: Mapping[str, Database] = {
    "postgres": _POSTGRES,
    "mariadb": _MYSQL,
    "mysql": _MYSQL,
    "redis": _REDIS,
}
"""Kinds, as policy, manifests and `credentials` name them, mapped to their implementations."""


def find_database(kind: str) -> Database:
    """Return the database of the kind that a manifest names.

    Raises:
        VerificationFailed: Only a newer safe-compose knows the kind.
    """
    found = DATABASES.get(kind)
    if found is None:
        raise VerificationFailed(
            f"this safe-compose does not know databases of kind {kind!r}, so it cannot judge their"
            " dumps; nothing was touched",
            next_step="use the version that made the backup, or newer",
        )
    return found


def has_passwords(kind: object) -> bool:
    """Return whether the passwords of a kind can be changed here; False for an unknown kind."""
    found = DATABASES.get(kind) if isinstance(kind, str) else None
    return found is not None and found.passwords is not None


def find_passwords(kind: str) -> Passwords:
    """Return the handling of passwords of a kind that `credentials` names.

    Raises:
        KeyError: The kind is unknown or has no passwords.
    """
    found = DATABASES[kind].passwords
    if found is None:
        raise KeyError(kind)
    return found


def find_physical_copy(kind: str) -> PhysicalCopy | None:
    """Return the function that copies the files of a running server, or None."""
    found = DATABASES.get(kind)
    return found.physical if found is not None else None


def find_stopped_dump(kind: str) -> StoppedDump | None:
    """Return the function that dumps an unused volume of a kind; None if it has none."""
    found = DATABASES.get(kind)
    return found.stopped if found is not None else None


def find_upgraded_record(kind: str) -> UpgradedRecord | None:
    """Return the function that adapts a record to a newer major version, or None."""
    found = DATABASES.get(kind)
    return found.upgraded if found is not None else None


def may_hold_in_memory(containers: Iterable[Container], volume: str) -> bool:
    """Return whether a running server of a volume may hold data that only its stop writes there."""
    return any(
        container.lively and database.held_in_memory and database.serves(container, volume)
        for container in containers
        for database in DATABASES.values()
    )


def is_restored_alone(kind: str) -> bool:
    """Return whether a single database of a server of that kind can be restored alone."""
    found = DATABASES.get(kind)
    return found is not None and found.settle_restore is not None


def find_restored_alone() -> tuple[SettleRestore, Database]:
    """Return `settle_restore` and the entry of the one kind that can be restored alone."""
    return next((d.settle_restore, d) for d in DATABASES.values() if d.settle_restore is not None)


__all__ = [
    "DATABASES",
    "find_database",
    "find_passwords",
    "find_physical_copy",
    "find_restored_alone",
    "find_stopped_dump",
    "find_upgraded_record",
    "has_passwords",
    "is_restored_alone",
    "may_hold_in_memory",
]
