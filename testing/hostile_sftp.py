"""A server that speaks SFTP as a stranger would: whole and well-behaved, but for the one thing that
it was told to do.

Run in the place of `ssh`: `python hostile_sftp.py MODE FOLDER`. It serves FOLDER for reading.
"""

import os
import stat
import struct
import sys
import time
from pathlib import Path

INIT, VERSION, OPEN, CLOSE, READ, OPENDIR, READDIR, STAT = 1, 2, 3, 4, 5, 11, 12, 17
STATUS, HANDLE, DATA, NAME, ATTRS = 101, 102, 103, 104, 105
FOREVER = 100_000


def text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def string(data: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">I", data, at)
    return data[at + 4 : at + 4 + length], at + 4 + length


class Hostile:
    def __init__(self, mode: str, root: Path) -> None:
        self.mode, self.root = mode, root
        self.handles: dict[bytes, list[bytes] | Path] = {}
        self.count = 0
        self.folder = root
        self.later: list[tuple[int, bytes]] = []

    def send(self, kind: int, number: int, body: bytes) -> None:
        packet = struct.pack(">BI", kind, number) + body
        os.write(1, struct.pack(">I", len(packet)) + packet)

    def run(self) -> None:
        if self.mode == "noise":
            for _ in range(2000):
                os.write(2, b"x" * 65536 + b"\n")
        while head := self.exactly(4):
            (length,) = struct.unpack(">I", head)
            packet = self.exactly(length)
            if packet[0] == INIT:
                self.greet()
            else:
                self.answer(packet[0], struct.unpack_from(">I", packet, 1)[0], packet[5:])

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count and (more := os.read(0, count - len(data))):
            data += more
        return data

    def greet(self) -> None:
        if self.mode == "stall greeting":
            time.sleep(FOREVER)
        if self.mode == "greeting cut short":
            os.write(1, struct.pack(">I", 9) + struct.pack(">BI", VERSION, 3) + b"\0\0\0\xff")
            return
        os.write(1, struct.pack(">I", 5) + struct.pack(">BI", VERSION, 3))

    def path(self, name: bytes) -> Path:
        return Path(os.fsdecode(name))

    def attributes(self, path: Path) -> bytes:
        found = path.lstat()
        size = found.st_size
        if self.mode == "size 2^63" and stat.S_ISREG(found.st_mode):
            size = 1 << 63
        if self.mode == "size -1536" and stat.S_ISREG(found.st_mode):
            size = (1 << 64) - 1536
        return struct.pack(">IQI", 0x1 | 0x4, size, found.st_mode)

    def answer(self, kind: int, number: int, body: bytes) -> None:
        if self.mode == "another id":
            number += 1000
        if self.mode == "answers out of order" and kind == READ:
            self.later.append((number, body))
            if len(self.later) == 4:  # of the 64 that are asked for at once
                self.mode = ""
                for waiting, asked in reversed(self.later):
                    self.read(waiting, asked)
            return None
        if kind == STAT:
            path = self.path(string(body, 0)[0])
            if not path.exists():
                return self.send(
                    STATUS, number, struct.pack(">I", 2) + text(b"No such file") + text(b"")
                )
            if self.mode == "status cut short":
                return self.send(STATUS, number, b"\0\0")
            return self.send(ATTRS, number, self.attributes(path))
        if kind == OPENDIR:
            path = self.path(string(body, 0)[0])
            if not path.is_dir():
                return self.send(
                    STATUS, number, struct.pack(">I", 2) + text(b"No such file") + text(b"")
                )
            self.count += 1
            handle = b"h" * 300 if self.mode == "long handle" else b"d%d" % self.count
            self.handles[handle] = [
                os.fsencode(entry) for entry in sorted(p.name for p in path.iterdir())
            ]
            self.folder = path
            return self.send(HANDLE, number, text(handle))
        if kind == READDIR:
            return self.list(number, string(body, 0)[0])
        if kind == OPEN:
            path = self.path(string(body, 0)[0])
            if not path.is_file():
                return self.send(
                    STATUS, number, struct.pack(">I", 2) + text(b"No such file") + text(b"")
                )
            self.count += 1
            handle = b"same" if self.mode == "one handle for all" else b"f%d" % self.count
            self.handles[handle] = path
            return self.send(HANDLE, number, text(handle))
        if kind == READ:
            return self.read(number, body)
        self.send(STATUS, number, struct.pack(">I", 0) + text(b"") + text(b""))

    def entry(self, name: bytes, attributes: bytes) -> bytes:
        return text(name) + text(name) + attributes

    def list(self, number: int, handle: bytes) -> None:
        folder = struct.pack(">IQI", 0x1 | 0x4, 0, 0o040755)
        if self.mode == "stall listing":
            time.sleep(FOREVER)
        if self.mode == "endless listing":
            self.count += 1000
            many = b"".join(self.entry(b"p%d" % (self.count + n), folder) for n in range(1000))
            return self.send(NAME, number, struct.pack(">I", 1000) + many)
        if self.mode == "empty lists":
            return self.send(NAME, number, struct.pack(">I", 0))
        if self.mode == "count that lies":
            return self.send(NAME, number, struct.pack(">I", 0x7FFFFFFF) + self.entry(b"a", folder))
        if self.mode == "packet of 2 GB":
            os.write(1, struct.pack(">I", 0x7FFFFFFF) + b"x")
            time.sleep(FOREVER)
        if self.mode == "data for names":
            return self.send(DATA, number, text(b"x"))
        if self.mode.startswith("name "):
            planted = self.mode.removeprefix("name ").encode().decode("unicode_escape").encode()
            return self.send(NAME, number, struct.pack(">I", 1) + self.entry(planted, folder))
        names = self.handles[handle]
        if not isinstance(names, list) or not names:
            return self.send(STATUS, number, struct.pack(">I", 1) + text(b"end") + text(b""))
        found = [
            self.entry(name, self.attributes(self.folder / os.fsdecode(name))) for name in names
        ]
        self.handles[handle] = []
        self.send(NAME, number, struct.pack(">I", len(found)) + b"".join(found))

    def read(self, number: int, body: bytes) -> None:
        handle, at = string(body, 0)
        offset, length = struct.unpack_from(">QI", body, at)
        if self.mode == "stall reading":
            time.sleep(FOREVER)
        if self.mode == "more than asked":
            return self.send(DATA, number, text(b"x" * (length + 1)))
        if self.mode == "endless file":
            return self.send(DATA, number, text(b" " * length))
        if self.mode == "data cut short":
            return self.send(DATA, number, struct.pack(">I", 100) + b"x")
        if self.mode == "dies while reading":
            sys.exit(1)
        path = self.handles[handle]
        assert isinstance(path, Path)
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(min(length, 7) if self.mode == "short reads" else length)
        if not data:
            return self.send(STATUS, number, struct.pack(">I", 1) + text(b"end") + text(b""))
        self.send(DATA, number, text(data))


if __name__ == "__main__":
    Hostile(sys.argv[1], Path(sys.argv[2])).run()
