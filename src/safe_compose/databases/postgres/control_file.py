"""A reader of the control file of a PostgreSQL data directory, `global/pg_control`.

The layouts are those of src/include/catalog/pg_control.h in PostgreSQL 9.4 to 18, little-endian,
for 64-bit machines and 32-bit ARM.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

FILE = "global/pg_control"
_SIZE = 8192
"""Size of every control file in bytes (PG_CONTROL_FILE_SIZE); everything after the checksum is
zero.
"""
_MOST = 512
"""PG_CONTROL_MAX_SAFE_SIZE: the checksum is before this offset."""
_STATES = (
    "starting up",
    "shut down",
    "shut down in recovery",
    "shutting down",
    "in crash recovery",
    "in archive recovery",
    "in production",
)
"""DBState, in the words of pg_controldata."""
_CHECKSUM_AT = {1100: 288, 1201: 288, 1300: 288, 1700: 288, 1800: 292}
"""pg_control_version (11, 12, 13 to 16, 17, 18), mapped to the offset of its CRC. If the CRC is
there, all other fields are at their known offsets.
"""
_UNSUMMED = (942,)
"""9.4 has another polynomial than 9.5, and the same pg_control_version."""


class BadControlFile(Exception):
    """The bytes are not a whole control file; the message says why."""


@dataclass(frozen=True, slots=True)
class ControlData:
    """The content of a control file."""

    system_identifier: int
    version: int
    """pg_control_version, as in 1300."""
    state: str
    """`shut down`, `in production`, ... as in pg_controldata's output."""
    next_transaction: int | None = None
    """Full id (epoch and number) of the next transaction; None if its offset is unknown."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings that a server's command line may have had, without which another one refuses to
    start on its data.
    """
    limits: Mapping[str, str] = field(default_factory=dict)
    """Settings below which a standby does not follow."""


def read(data: bytes) -> ControlData:
    """Parse a whole control file.

    Raises:
        BadControlFile: The bytes are not one, or their checksum is wrong.
    """
    if len(data) != _SIZE:
        raise BadControlFile(f"it has {len(data)} bytes, not {_SIZE}")
    identifier, version, _catalog, state = struct.unpack_from("<QIIi", data)
    if not 900 <= version <= 99_99:
        raise BadControlFile("its version is unknown")
    if not 0 <= state < len(_STATES):
        raise BadControlFile(f"its state {state} is unknown")
    at = _checksum_at(data)
    if at is None and version not in _UNSUMMED:
        raise BadControlFile("its checksum is wrong")
    if at is None or _CHECKSUM_AT.get(version) != at:
        return ControlData(identifier, version, _STATES[state])
    place = 192 if version >= 1201 else 188
    prepared, locks = struct.unpack_from("<ii", data, place)
    settings = {"max_prepared_transactions": str(prepared), "max_locks_per_transaction": str(locks)}
    names = (
        "max_connections",
        "max_worker_processes",
        *(["max_wal_senders"] if version >= 1201 else []),
    )
    numbers = struct.unpack_from(f"<{len(names)}i", data, place - 4 * len(names))
    limits = {name: str(number) for name, number in zip(names, numbers, strict=True)}
    return ControlData(
        identifier,
        version,
        _STATES[state],
        _next_transaction(data, version),
        settings,
        limits,
    )


def _next_transaction(data: bytes, version: int) -> int:
    """Read checkPointCopy.nextXid: 64 bits since 12; before, its upper half precedes it."""
    if version >= 1201:
        return int(struct.unpack_from("<Q", data, 64)[0])
    epoch, number = struct.unpack_from("<II", data, 60)
    return (int(epoch) << 32) + int(number)


def _checksum_at(data: bytes) -> int | None:
    """Return the offset of the CRC-32C of all bytes before it; None if there is none.

    It is searched for, since every version may change the layout; one of a hundred offsets matches
    by chance once in forty million files.
    """
    crc = 0xFFFFFFFF
    for at, byte in enumerate(data[:_MOST]):
        if at >= 128 and at % 4 == 0 and struct.unpack_from("<I", data, at)[0] == crc ^ 0xFFFFFFFF:
            return at
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return None


def _table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = (number >> 1) ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return tuple(table)


_TABLE = _table()
"""CRC-32C (Castagnoli), reflected."""
