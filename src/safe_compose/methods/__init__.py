"""How each kind of data is archived, dumped, proved and brought back. Every method is handed an engine."""

from collections.abc import Callable, Mapping

from safe_compose.errors import VerifyFailed
from safe_compose.methods import mysql, postgres, redis
from safe_compose.methods.database import Database, Dump, Passwords

DATABASES: Mapping[str, Database] = {"postgres": postgres, "mariadb": mysql, "mysql": mysql, "redis": redis}
"""Kind, as policy and manifests name it -> how such a database is handled."""


PHYSICAL: Mapping[str, Callable[..., Dump]] = {"postgres": postgres.copy}
"""Kind -> how the files of a running server are copied, with the parameters of its `dump`. Raises NoCopy too."""

STOPPED: Mapping[str, Callable[..., tuple[Dump, dict[str, str]]]] = {"postgres": postgres.dump_stopped}
"""Kind -> how a volume is dumped on which no server runs, from the archive just made of it."""


PASSWORDS: Mapping[str, Passwords] = {"postgres": postgres.password, "mysql": mysql.password}
"""Kind, as `consumers` names it -> how its passwords are changed."""


def database_of(kind: str) -> Database:
    """How the kind that a manifest names is handled. Raises VerifyFailed for one that only a newer safe-compose knows."""
    found = DATABASES.get(kind)
    if found is None:
        raise VerifyFailed(
            f"this safe-compose does not know databases of kind {kind!r}, so it cannot judge their dumps; nothing was touched",
            next_step="use the version that made the backup, or newer",
        )
    return found


__all__ = ["DATABASES", "PASSWORDS", "PHYSICAL", "STOPPED", "database_of"]
