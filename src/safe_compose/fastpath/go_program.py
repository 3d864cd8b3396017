"""The main package that a Go program was built from: it tells docker's own client from others.

Reading it takes less than a millisecond; to start the client and ask takes twenty.
"""

# pathlib would cost more than all of this:
# ruff: noqa: PTH123

DOCKER = "github.com/docker/cli/cmd/docker"
"""The main package of docker's client (github.com/docker/cli)."""
_ELF = b"\x7fELF\x02\x01"
"""The beginning of a 64-bit little-endian ELF file."""
_SECTION = b".go.buildinfo"
_MAGIC = b"\xff Go buildinf:"
_INLINE = 2
"""The flag of a header that is followed by its two texts, as since Go 1.18 (debug/buildinfo)."""
_HEADER = 32
_SENTINEL = 16
"""Bytes before and behind the text about modules (cmd/go/internal/modload)."""
_LONGEST_NUMBER = 4
"""Bytes; each holds seven bits of it (encoding/binary)."""
_LARGEST = 1 << 20


def read_main_package(path: str) -> str | None:
    """Return the import path of a Go program's main package, or None where it does not say."""
    try:
        section = _read_section(path)
        if not section.startswith(_MAGIC) or not section[15] & _INLINE:
            return None
        _, rest = _split_text(section[_HEADER:])  # the version of Go
        modules, _ = _split_text(rest)
    except (OSError, ValueError, IndexError, OverflowError):
        return None
    line = modules[_SENTINEL:].partition(b"\n")[0]
    return line[5:].decode("ascii", "replace") if line.startswith(b"path\t") else None


def _read_section(path: str) -> bytes:
    """Return the section of an ELF file that holds what Go wrote; empty where there is none."""
    with open(path, "rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(min(size, _LARGEST))

        head = read(0, 64)
        if not head.startswith(_ELF):
            return b""
        size, count, names_at = (_number(head, at, 2) for at in (58, 60, 62))
        table = read(_number(head, 40, 8), size * count)
        sections = [table[at : at + size] for at in range(0, len(table), max(size, 1))]
        where = [(_number(one, 24, 8), _number(one, 32, 8)) for one in sections]
        names = read(*where[names_at])
        for one, (offset, length) in zip(sections, where, strict=True):
            start = _number(one, 0, 4)
            if names[start : names.index(b"\0", start)] == _SECTION:
                return read(offset, length)
    return b""


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _split_text(data: bytes) -> tuple[bytes, bytes]:
    """Return the text at the beginning of data, which its length precedes, and what follows it."""
    length = 0
    for at in range(_LONGEST_NUMBER):
        length |= (data[at] & 0x7F) << 7 * at
        if data[at] < 0x80:
            return data[at + 1 : at + 1 + length], data[at + 1 + length :]
    raise ValueError
