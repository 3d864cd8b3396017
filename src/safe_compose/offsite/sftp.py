"""A server that speaks SFTP, through the system's own ssh: its settings, known hosts, keys and agent; it never asks.

The words of version 3 of the protocol (draft-ietf-secsh-filexfer-02, which OpenSSH speaks) over `ssh -s HOST sftp`: so that
files stream in both directions, faults have names, and an account without a shell is enough. OpenSSH's extensions for
rename-over, sync and free space are used where a server offers them (its PROTOCOL file, section 4).
"""

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import IO, NoReturn

from safe_compose.artifacts import hide_secrets
from safe_compose.destination import Destination
from safe_compose.errors import BackupFailed
from safe_compose.offsite import MANIFEST, PARTIAL, Missing, unusable

_INIT, _VERSION, _OPEN, _CLOSE, _READ, _WRITE = 1, 2, 3, 4, 5, 6
_OPENDIR, _READDIR, _REMOVE, _MKDIR, _STAT, _RENAME = 11, 12, 13, 14, 17, 18
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS = 101, 102, 103, 104, 105
_EXTENDED, _EXTENDED_REPLY = 200, 201
_OK, _EOF, _NO_SUCH_FILE = 0, 1, 2
_FOR_READING, _FOR_WRITING = 0x01, 0x02 | 0x08 | 0x10  # write, create, truncate
_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES, _HAS_MORE = 0x1, 0x2, 0x4, 0x8, 0x80000000
_FOLDER, _FILE, _KIND = 0o040000, 0o100000, 0o170000

PIECE = 32768
"""Bytes of one read or write: every server must take that much (section 3 of the draft)."""
WINDOW = 64
"""Requests on their way at once; 2 MiB with those pieces."""
LARGEST_PACKET = 1 << 20

_OPTIONS = (
    "BatchMode=yes", "ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=4", "ForwardAgent=no",
    "ForwardX11=no", "ClearAllForwardings=yes", "PermitLocalCommand=no", "RequestTTY=no",
)  # fmt: skip


class _Fault(Exception):
    """A status other than the one that was hoped for."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Server:
    """One session. Its base folder must exist there."""

    def __init__(self, destination: Destination) -> None:
        self._to = destination
        ssh = shutil.which("ssh")
        if ssh is None:
            raise unusable(destination, "there is no ssh on this machine", next_step="install the OpenSSH client")
        words = [ssh, *(w for option in _OPTIONS for w in ("-o", option))]
        words += ["-p", str(destination.port)] if destination.port else []
        words += ["-l", destination.user] if destination.user else []
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the session)
        try:
            self._ssh = subprocess.Popen(
                [*words, "-s", "--", destination.host, "sftp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
            )
        except OSError as error:
            self._said.close()
            raise unusable(destination, f"ssh does not start: {error.strerror or error}") from error
        assert self._ssh.stdin is not None and self._ssh.stdout is not None  # pipes were asked for
        self._out: IO[bytes] = self._ssh.stdin
        self._in: IO[bytes] = self._ssh.stdout
        self._number = 0
        self._replies: dict[int, tuple[int, bytes]] = {}
        self._extensions: set[bytes] = set()
        try:
            self._greet()
            with self._told("looked at"):
                self._stat(self._path(""))
        except BaseException:
            self.close()
            raise

    # -- what a place does ---------------------------------------------------------------------------------------------

    def check(self, need: int) -> None:
        free = self._free()
        if free is not None and free < need:
            raise unusable(
                self._to,
                f"no room: {need >> 20} MiB are needed, {free >> 20} MiB are free there",
                next_step="make room there and try again",
            )

    def copies(self) -> list[str]:
        found = []
        with self._told("listed"):
            for project in self._folders(""):
                for name in self._folders(project):
                    with suppress(_Fault):
                        self._stat(self._path(f"{project}/{name}/{MANIFEST}"))
                        found.append(f"{project}/{name}")
        return found

    def files(self, folder: str) -> dict[str, int]:
        found: dict[str, int] = {}
        with self._told("listed"):
            waiting = [""]
            while waiting:
                below = waiting.pop()
                try:
                    entries = self._entries(f"{folder}/{below}".rstrip("/"))
                except _Fault as fault:
                    if fault.code == _NO_SUCH_FILE:
                        continue
                    raise
                for name, size, mode in entries:
                    if mode & _KIND == _FOLDER:
                        waiting.append(f"{below}{name}/")
                    elif mode & _KIND == _FILE:
                        found[f"{below}{name}"] = size
        return found

    def put(self, name: str, blocks: Iterable[bytes], size: int) -> None:
        parent, _, plain = name.rpartition("/")
        draft = f"{parent}/.{plain}.new"
        with self._told("written"):
            self._make_folders(parent)
            # mode 0600, whatever its umask
            handle = self._handle(_OPEN, _text(self._path(draft)) + struct.pack(">III", _FOR_WRITING, _HAS_MODE, 0o600))
            self._write(handle, blocks)
            if b"fsync@openssh.com" in self._extensions:
                self._ask(_EXTENDED, _text(b"fsync@openssh.com") + _text(handle))
            self._ask(_CLOSE, _text(handle))
            self._move(draft, name)

    def read(self, name: str) -> Iterator[bytes]:
        with self._told("read"):
            try:
                handle = self._handle(_OPEN, _text(self._path(name)) + struct.pack(">III", _FOR_READING, 0, 0))
            except _Fault as fault:
                if fault.code == _NO_SUCH_FILE:
                    raise Missing(name) from fault
                raise
            yield from self._stream(handle)
            self._ask(_CLOSE, _text(handle))

    def rename(self, old: str, new: str) -> None:
        with self._told("written"):
            self._ask(_RENAME, _text(self._path(old)) + _text(self._path(new)))  # refuses to take an existing one's place

    def close(self) -> None:
        for pipe in (self._out, self._in):
            with suppress(OSError):  # of a session that is dead already
                pipe.close()
        try:
            self._ssh.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()
        self._said.close()

    # -- what it is made of --------------------------------------------------------------------------------------------

    def _path(self, name: str) -> bytes:
        return os.fsencode(f"{self._to.path}/{name}".rstrip("/") or "/")

    def _folders(self, folder: str) -> list[str]:
        return [name for name, _, mode in self._entries(folder) if mode & _KIND == _FOLDER and not name.startswith((".", PARTIAL))]

    def _entries(self, folder: str) -> list[tuple[str, int, int]]:
        """Name, size, mode of what is in a folder, without the dots."""
        handle = self._handle(_OPENDIR, _text(self._path(folder)))
        found: list[tuple[str, int, int]] = []
        while True:
            try:
                kind, data = self._reply(self._send(_READDIR, _text(handle)))
            except _Fault as fault:
                if fault.code == _EOF:
                    break
                raise
            if kind != _NAME:
                self._broken()
            (count,), at = struct.unpack_from(">I", data), 4
            for _ in range(count):
                name, at = _take(data, at)
                _, at = _take(data, at)  # as `ls -l` would show it
                size, mode, at = _attributes(data, at)
                if name not in (b".", b".."):
                    found.append((os.fsdecode(name), size, mode))
        self._ask(_CLOSE, _text(handle))
        return found

    def _stat(self, path: bytes) -> None:
        self._reply(self._send(_STAT, _text(path)))

    def _make_folders(self, folder: str) -> None:
        parts = folder.split("/")
        for length in range(1, len(parts) + 1):
            path = self._path("/".join(parts[:length]))
            try:
                self._stat(path)
            except _Fault as fault:
                if fault.code != _NO_SUCH_FILE:
                    raise
                self._ask(_MKDIR, _text(path) + struct.pack(">II", _HAS_MODE, 0o700))

    def _write(self, handle: bytes, blocks: Iterable[bytes]) -> None:
        waiting: list[int] = []
        at = 0
        for block in blocks:
            for start in range(0, len(block), PIECE):
                piece = block[start : start + PIECE]
                waiting.append(self._send(_WRITE, _text(handle) + struct.pack(">Q", at) + _text(piece)))
                at += len(piece)
                if len(waiting) >= WINDOW:
                    self._reply(waiting.pop(0))
        for number in waiting:
            self._reply(number)

    def _stream(self, handle: bytes) -> Iterator[bytes]:
        """Every byte in order, several requests ahead; a server may answer with less than was asked for."""
        waiting: list[tuple[int, int]] = []
        asked = at = 0
        ended = False
        while waiting or not ended:
            while not ended and len(waiting) < WINDOW:
                waiting.append((self._ask_for(handle, asked, PIECE), asked))
                asked += PIECE
            number, start = waiting.pop(0)
            data = self._data(number)
            ended = ended or not data
            while data:
                yield data
                at += len(data)
                data = self._data(self._ask_for(handle, at, start + PIECE - at)) if at < start + PIECE else b""
            if at < start + PIECE and not ended:
                ended = True  # what is asked for beyond the end is answered with nothing

    def _ask_for(self, handle: bytes, at: int, length: int) -> int:
        return self._send(_READ, _text(handle) + struct.pack(">QI", at, length))

    def _data(self, number: int) -> bytes:
        try:
            kind, data = self._reply(number)
        except _Fault as fault:
            if fault.code == _EOF:
                return b""
            raise
        if kind != _DATA:
            self._broken()
        return _take(data, 0)[0]

    def _move(self, old: str, new: str) -> None:
        """Put a file in the place of another in one step where the server can; else the old one goes first."""
        words = _text(self._path(old)) + _text(self._path(new))
        if b"posix-rename@openssh.com" in self._extensions:
            self._ask(_EXTENDED, _text(b"posix-rename@openssh.com") + words)
            return
        with suppress(_Fault):
            self._ask(_REMOVE, _text(self._path(new)))
        self._ask(_RENAME, words)

    def _free(self) -> int | None:
        if b"statvfs@openssh.com" not in self._extensions:
            return None
        with self._told("measured"):
            kind, data = self._reply(self._send(_EXTENDED, _text(b"statvfs@openssh.com") + _text(self._path(""))))
            if kind != _EXTENDED_REPLY or len(data) < 40:
                self._broken()
        _, fragment, _, _, available = struct.unpack_from(">5Q", data)
        return int(fragment * available)

    # -- the protocol --------------------------------------------------------------------------------------------------

    def _greet(self) -> None:
        self._transmit(struct.pack(">BI", _INIT, 3))
        kind, data = self._packet()
        if kind != _VERSION:
            self._broken()
        at = 4
        while at < len(data):
            name, at = _take(data, at)
            _, at = _take(data, at)
            self._extensions.add(name)

    def _send(self, kind: int, body: bytes) -> int:
        self._number += 1
        self._transmit(struct.pack(">BI", kind, self._number) + body)
        return self._number

    def _transmit(self, packet: bytes) -> None:
        try:
            self._out.write(struct.pack(">I", len(packet)) + packet)
            self._out.flush()
        except OSError:
            self._broken()

    def _packet(self) -> tuple[int, bytes]:
        (length,) = struct.unpack(">I", self._exactly(4))
        if not 0 < length <= LARGEST_PACKET:
            self._broken()
        packet = self._exactly(length)
        return packet[0], packet[1:]

    def _exactly(self, count: int) -> bytes:
        data = self._in.read(count)
        if len(data) < count:
            self._broken()
        return data

    def _reply(self, number: int) -> tuple[int, bytes]:
        """The answer to a request. Raises _Fault for every status but OK."""
        while number not in self._replies:
            kind, data = self._packet()
            if len(data) < 4:
                self._broken()
            self._replies[struct.unpack_from(">I", data)[0]] = (kind, data[4:])
        kind, data = self._replies.pop(number)
        if kind == _STATUS:
            (code,) = struct.unpack_from(">I", data)
            if code != _OK:
                message = _take(data, 4)[0].decode("utf-8", "replace") if len(data) > 4 else ""
                raise _Fault(code, message or f"status {code}")
        return kind, data

    def _ask(self, kind: int, body: bytes) -> None:
        self._reply(self._send(kind, body))

    def _handle(self, kind: int, body: bytes) -> bytes:
        answer, data = self._reply(self._send(kind, body))
        if answer != _HANDLE:
            self._broken()
        return _take(data, 0)[0]

    def _told(self, done: str) -> "_Told":
        return _Told(self, done)

    def fault(self, done: str, fault: _Fault) -> BackupFailed:
        """A refusal of the server, in words."""
        hint = ""
        if done == "written":
            with suppress(_Fault, BackupFailed):
                free = self._free()
                hint = f"; {free >> 20} MiB are free there" if free is not None else ""
        if done == "looked at" and fault.code == _NO_SUCH_FILE:
            return unusable(
                self._to, f"there is no folder {self._to.path} on {self._to.host}", next_step="make it there, and try again"
            )
        return unusable(self._to, f"cannot be {done}: {hide_secrets(str(fault))}{hint}", next_step="correct that, then try again")

    def _broken(self) -> NoReturn:
        """The session ended, or what answers is no SFTP server: ssh's own words say why."""
        with suppress(OSError):
            self._out.close()
        try:
            code: int | None = self._ssh.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self._said.seek(0)
        words = self._said.read().decode("utf-8", "replace").strip().splitlines()
        said = hide_secrets("; ".join(line.strip() for line in words[-5:] if line.strip())) or "it said nothing"
        ended = f"ssh ended with {code}" if code is not None else "what answers is no SFTP server"
        at = f"-p {self._to.port} " if self._to.port else ""
        who = f"{self._to.user}@" if self._to.user else ""
        raise unusable(self._to, f"{ended}: {said}", next_step=f"try it by hand: sftp {at.replace('-p', '-P')}{who}{self._to.host}")


class _Told:
    """Turns a refusal of the server inside the block into BackupFailed. No generator: blocks of it hold a `yield`."""

    def __init__(self, server: Server, done: str) -> None:
        self._server = server
        self._done = done

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> None:
        if isinstance(fault, _Fault):
            raise self._server.fault(self._done, fault) from fault


def _text(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _take(data: bytes, at: int) -> tuple[bytes, int]:
    """A counted string at a place, and where it ends."""
    (length,) = struct.unpack_from(">I", data, at)
    end = at + 4 + length
    return data[at + 4 : end], end


def _attributes(data: bytes, at: int) -> tuple[int, int, int]:
    """Size and mode of an ATTRS structure (section 5 of the draft), and where it ends."""
    (flags,) = struct.unpack_from(">I", data, at)
    at += 4
    size = mode = 0
    if flags & _HAS_SIZE:
        (size,) = struct.unpack_from(">Q", data, at)
        at += 8
    at += 8 if flags & _HAS_OWNER else 0
    if flags & _HAS_MODE:
        (mode,) = struct.unpack_from(">I", data, at)
        at += 4
    at += 8 if flags & _HAS_TIMES else 0
    if flags & _HAS_MORE:
        (count,) = struct.unpack_from(">I", data, at)
        at += 4
        for _ in range(2 * count):
            _, at = _take(data, at)
    return size, mode, at
