"""Settings for a PostgreSQL server of ours on existing data, and the causes of its death.

The needs of a service's own server may be missing for ours: certificates, log folders, include
files and libraries of other mounts, memory, other machines. So ours gets settings that need
nothing; on the command line they override every file.
"""

import re
from collections.abc import Mapping

HBA_FILE = "/tmp/safe-compose.hba"  # path in a container of ours
WRITES_HBA = (
    'umask 022 && printf "local all all trust\\nhost all all 127.0.0.1/32 trust\\n" >"$0" && exec'
    ' "$@"'
)
"""For `sh -c`, with the file and then the server's arguments. Such a server has no network, so only
we reach it; the needs of the service's own rules (a password, another file) are not available here.
"""

_NEUTRAL = {
    "hba_file": HBA_FILE,
    "ssl": "off",
    "listen_addresses": "127.0.0.1",
    "logging_collector": "off",
    "log_destination": "stderr",
    "lc_messages": "C",
    "shared_buffers": "128MB",
    "huge_pages": "off",
    "max_connections": "100",
    "superuser_reserved_connections": "3",
    "max_wal_senders": "10",
    "archive_mode": "off",
    "archive_command": "",
    "autovacuum": "off",
    "synchronous_standby_names": "",
    "hot_standby": "on",
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    "temp_tablespaces": "",
}
"""These settings are known to every release since 9.4."""
_SINCE = {
    "max_logical_replication_workers": (10, "0"),
    "jit": (11, "off"),
    "primary_conninfo": (12, ""),
    "primary_slot_name": (12, ""),
    "recovery_min_apply_delay": (12, "0"),
    "archive_library": (15, ""),
    "reserved_connections": (16, "0"),
    "max_active_replication_origins": (18, "500"),
}
"""Setting, mapped to the first major release that knows it, and its value; an older one would not
start with it.
"""
_ON_A_COPY = {
    "unix_socket_directories": "/tmp",
    "wal_level": "logical",
    "max_replication_slots": "500",
}
"""Settings for another server's data: the slots that it left need them (slot.c:
RestoreSlotFromDisk).
"""
_NO_WORKERS = {"max_worker_processes": "0"}
"""A preloaded library's workers change rows by themselves (pg_cron, retention policies of
TimescaleDB).
"""
STANDBY_LIMITS = (
    "max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions",
    "max_locks_per_transaction",
)  # fmt: skip
"""A standby needs at least its primary's values (xlogrecovery.c: CheckRequiredParameterValues)."""


def options(
    settings: Mapping[str, str],
    major: int,
    *,
    fresh: bool,
    standby: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Return options for the server's command line.

    Args:
        settings: Needs of the data itself, as a backup recorded them.
        major: Its major version; 0 if unknown.
        fresh: The image's own entrypoint makes a new cluster first, and looks for the socket at its
            default location.
        standby: The limits of its primary, for a standby; otherwise None.
    """
    wanted = dict(_NEUTRAL) | {
        name: value for name, (since, value) in _SINCE.items() if major >= since
    }
    if not fresh:
        wanted |= _ON_A_COPY
    if settings.get("shared_preload_libraries"):
        wanted |= _NO_WORKERS
    wanted |= standby or {}
    wanted |= settings
    return tuple(word for name, value in wanted.items() for word in ("-c", f"{name}={value}"))


_SURROUNDINGS = re.compile(
    r"could not (?:map|attach to|create|get size of|resize|open|truncate).{0,20} shared memory"
    r"|could not create semaphores"
    r"|Cannot allocate memory|out of memory|No space left on device|huge page"
    r"|could not (?:access file|load library|load (?:server|root|private) |open configuration"
    r"|load .*pg_hba|create lock file|bind )"
    r"|could not create any (?:TCP/IP|Unix-domain) socket|could not (?:open"
    r"|create) .{0,10}log (?:file|directory)"
    r"|configuration (?:file|directory)|configuration parameter|invalid value for parameter"
    r"|invalid line .* in file"
    r"|insufficient parameter settings|[Ii]ncrease max_|must be (?:greater|less|loaded)|wal_level"
    r"|preloaded"
    r"|must specify restore_command|recovery ended before configured recovery target"
    r"|files are incompatible with server|\"root\" execution|Permission denied"
    r"|Operation not permitted|[Oo]nly the user",
)
"""Log messages of a server that fails because of its environment or settings, not of the data."""
_OWN_WORDS = re.compile(
    r"FATAL:|PANIC:|could not find the database system|is not a database cluster"
)


def blames_data(log: str, exit_code: int, *, bare: bool) -> bool:
    """Return whether the death of a server of ours is blamed on the data.

    Args:
        log: Its last lines.
        exit_code: 126 and 127 mean that no program was found, 137 that it was killed, as for lack
            of memory.
        bare: Nothing but the server program ran. Otherwise a script of the image may have ended for
            its own reasons, and only the server's messages count.
    """
    if exit_code in (125, 126, 127, 137):
        return False
    words = [line for line in log.split(" / ") if _OWN_WORDS.search(line)]
    if not words:
        return bare and _SURROUNDINGS.search(log) is None
    return any(_SURROUNDINGS.search(line) is None for line in words)
