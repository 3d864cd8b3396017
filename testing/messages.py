"""Message catalogues of gettext, for servers that speak another language in a test."""

import struct
from collections.abc import Mapping
from pathlib import Path


def write_catalogue(path: Path, messages: Mapping[str, str]) -> None:
    """Write a compiled catalogue (the format of GNU gettext's `.mo` files, in UTF-8)."""
    header = {"": "Content-Type: text/plain; charset=UTF-8\n"}
    entries = sorted((k.encode(), v.encode()) for k, v in {**header, **messages}.items())
    count, first = len(entries), 28
    place = first + 16 * count
    tables, texts = b"", b""
    for column in (0, 1):
        for entry in entries:
            tables += struct.pack("<2I", len(entry[column]), place + len(texts))
            texts += entry[column] + b"\0"
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = (0x950412DE, 0, count, first, first + 8 * count, 0, 0)
    path.write_bytes(struct.pack("<7I", *numbers) + tables + texts)
