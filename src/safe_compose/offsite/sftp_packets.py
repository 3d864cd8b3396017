"""The packets of SFTP, version 3 (draft-ietf-secsh-filexfer-02): numbers and formats.

This module is pure.
"""

import struct

INIT, VERSION, OPEN, CLOSE, READ, WRITE = 1, 2, 3, 4, 5, 6
OPENDIR, READDIR, REMOVE, MKDIR, STAT, RENAME = 11, 12, 13, 14, 17, 18
STATUS, HANDLE, DATA, NAME, ATTRS = 101, 102, 103, 104, 105
EXTENDED, EXTENDED_REPLY = 200, 201
OK, EOF, NO_SUCH_FILE = 0, 1, 2
FOR_READING, FOR_WRITING = 0x01, 0x02 | 0x08 | 0x10  # write, create, truncate
HAS_SIZE, HAS_OWNER, HAS_MODE, HAS_TIMES, HAS_MORE = 0x1, 0x2, 0x4, 0x8, 0x80000000
FOLDER, FILE, KIND = 0o040000, 0o100000, 0o170000


class SftpFault(Exception):
    """An error about a status that is not the expected one."""

    def __init__(self, code: int, message: str) -> None:
        """Keep the status code with the server's message."""
        super().__init__(message)
        self.code = code


class Malformed(Exception):
    """An error about a packet that is too short, or holds an impossible value."""


def pack_string(value: bytes) -> bytes:
    """Return a counted string."""
    return struct.pack(">I", len(value)) + value


def take_number(data: bytes, at: int) -> tuple[int, int]:
    """Return the unsigned 32-bit number at an offset, and the offset after it.

    Raises:
        Malformed: The packet ends before that.
    """
    if at + 4 > len(data):
        raise Malformed
    return int.from_bytes(data[at : at + 4]), at + 4


def take_string(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the counted string at an offset, and the offset after it.

    Raises:
        Malformed: The packet ends before that.
    """
    length, at = take_number(data, at)
    if at + length > len(data):
        raise Malformed
    return data[at : at + length], at + length


def take_attributes(data: bytes, at: int) -> tuple[int, int, int]:
    """Return size and mode of an ATTRS structure (section 5 of the draft), and the offset after it.

    Raises:
        Malformed: The packet ends before that.
    """
    flags, at = take_number(data, at)
    size = mode = 0
    if flags & HAS_SIZE:
        high, at = take_number(data, at)
        low, at = take_number(data, at)
        size = high << 32 | low
    at += 8 if flags & HAS_OWNER else 0
    if flags & HAS_MODE:
        mode, at = take_number(data, at)
    at += 8 if flags & HAS_TIMES else 0
    if flags & HAS_MORE:
        count, at = take_number(data, at)
        for _ in range(2 * count):
            _, at = take_string(data, at)
    if at > len(data):
        raise Malformed
    return size, mode, at
