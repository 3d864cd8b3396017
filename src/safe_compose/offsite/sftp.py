"""An SFTP server as destination of copies.

It uses version 3 of the protocol (draft-ietf-secsh-filexfer-02, which OpenSSH implements) over `ssh
-s HOST sftp`, so that files stream in both directions, errors have names, and an account without a
shell suffices. OpenSSH's extensions for rename-over, sync and free space are used where a server
offers them (its PROTOCOL file, section 4).

The server is not trusted: every length, number and name that it sends is checked, and every wait is
limited.
"""

import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress

from safe_compose.core.destination import Destination
from safe_compose.core.redaction import hide_secrets
from safe_compose.errors import OperationFailed
from safe_compose.offsite.limits import STALL_SECONDS, SYNC_SECONDS, Deadline
from safe_compose.offsite.place import MANIFEST, PARTIAL, FileMissing, make_fault
from safe_compose.offsite.sftp_packets import (
    CLOSE,
    DATA,
    EOF,
    EXTENDED,
    EXTENDED_REPLY,
    FILE,
    FOLDER,
    FOR_READING,
    FOR_WRITING,
    HAS_MODE,
    KIND,
    MKDIR,
    NAME,
    NO_SUCH_FILE,
    OPEN,
    OPENDIR,
    READ,
    READDIR,
    REMOVE,
    RENAME,
    STAT,
    WRITE,
    Malformed,
    SftpFault,
    pack_string,
    take_attributes,
    take_number,
    take_string,
)
from safe_compose.offsite.sftp_session import SftpSession

PIECE = 32768
"""Bytes of one read or write: every server must accept that much (section 3 of the draft)."""
WINDOW = 64
"""Most requests in transit at once; 2 MiB with those pieces."""
DEEPEST = 8
"""Most folders below each other in a copy; ours have two."""


class SftpServer:
    """A session with a server.

    Its base folder must exist there.
    """

    def __init__(self, destination: Destination, *, stall: float = STALL_SECONDS) -> None:
        """Connect to the server.

        Args:
            destination: The server and its base folder.
            stall: Seconds without any answer after which the server counts as dead.

        Raises:
            OperationFailed: ssh fails, or the base folder does not exist.
            PlaceUnusable: The server does not answer properly, or in time.
        """
        self._to = destination
        self.title = f"off-site {destination.name}"
        self._session = SftpSession(destination, self.title, stall)
        try:
            self._session.greet()
            with self._reporting_errors("looked at"):
                self._stat(self._path(""))
        except BaseException:
            self.close()
            raise

    # -- operations of a place ---------------------------------------------------------------------

    def check(self, need: int) -> None:
        """Check that the server has `need` bytes of free space, if it reports its space.

        Raises:
            OperationFailed: It has less, or refuses.
            PlaceUnusable: It does not answer properly, or in time.
        """
        free = self._measure_free_space()
        if free is not None and free < need:
            raise make_fault(
                self._to,
                f"no space: {need >> 20} MiB are needed, {free >> 20} MiB are free there",
                next_step="make room there and try again",
            )

    def copies(self) -> list[str]:
        """Return `<project>/<id>` of every folder that holds a manifest.

        Raises:
            OperationFailed: The server refuses.
            PlaceUnusable: It does not answer properly, or in time.
        """
        found = []
        looking = Deadline(self.title)
        with self._reporting_errors("listed"):
            for project in self._folders("", looking):
                for name in self._folders(project, looking):
                    looking.count()
                    with suppress(SftpFault):
                        self._stat(self._path(f"{project}/{name}/{MANIFEST}"))
                        found.append(f"{project}/{name}")
        return found

    def files(self, folder: str) -> dict[str, int]:
        """Return the name below the folder -> size of every file in it.

        Empty where there is no such folder.

        Raises:
            OperationFailed: The server refuses.
            PlaceUnusable: It does not answer properly, or in time.
        """
        found: dict[str, int] = {}
        looking = Deadline(self.title)
        with self._reporting_errors("listed"):
            waiting = [""]
            while waiting:
                below = waiting.pop()
                try:
                    entries = self._entries(f"{folder}/{below}".rstrip("/"), looking)
                except SftpFault as fault:
                    if fault.code == NO_SUCH_FILE:
                        continue
                    raise
                if below.count("/") > DEEPEST:
                    raise self._session.bad(
                        "it lists more folders below each other than a backup has"
                    )
                for name, size, mode in entries:
                    if mode & KIND == FOLDER:
                        waiting.append(f"{below}{name}/")
                    elif mode & KIND == FILE:
                        found[f"{below}{name}"] = size
        return found

    def put(self, name: str, blocks: Iterable[bytes], _size: int) -> None:
        """Write a file, synced if the server can; it appears only when it is complete.

        Raises:
            OperationFailed: The server refuses.
            PlaceUnusable: It does not answer properly, or in time.
        """
        parent, _, plain = name.rpartition("/")
        draft = f"{parent}/.{plain}.new"
        with self._reporting_errors("written"):
            self._make_folders(parent)
            # mode 0600, whatever the server's umask
            handle = self._session.open_handle(
                OPEN,
                pack_string(self._path(draft)) + struct.pack(">III", FOR_WRITING, HAS_MODE, 0o600),
            )
            self._write(handle, blocks)
            if b"fsync@openssh.com" in self._session.extensions:
                self._session.ask(
                    EXTENDED,
                    pack_string(b"fsync@openssh.com") + pack_string(handle),
                    patience=SYNC_SECONDS,
                )
            self._session.ask(CLOSE, pack_string(handle), patience=SYNC_SECONDS)
            self._move(draft, name)

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file.

        Raises:
            FileMissing: There is no such file.
            OperationFailed: The server refuses.
            PlaceUnusable: It does not answer properly, or in time.
        """
        with self._reporting_errors("read"):
            try:
                handle = self._session.open_handle(
                    OPEN, pack_string(self._path(name)) + struct.pack(">III", FOR_READING, 0, 0)
                )
            except SftpFault as fault:
                if fault.code == NO_SUCH_FILE:
                    raise FileMissing(name) from fault
                raise
            yield from self._stream(handle)
            self._session.ask(CLOSE, pack_string(handle))

    def rename(self, old: str, new: str) -> None:
        """Rename a folder.

        Raises:
            OperationFailed: The server refuses, for example because the new name exists.
            PlaceUnusable: It does not answer properly, or in time.
        """
        with self._reporting_errors("written"):
            # RENAME refuses to replace
            self._session.ask(RENAME, pack_string(self._path(old)) + pack_string(self._path(new)))

    def close(self) -> None:
        """End the session."""
        self._session.close()

    # -- internal ----------------------------------------------------------------------------------

    def _path(self, name: str) -> bytes:
        return os.fsencode(f"{self._to.path}/{name}".rstrip("/") or "/")

    def _folders(self, folder: str, looking: Deadline) -> list[str]:
        entries = self._entries(folder, looking)
        return [
            name
            for name, _, mode in entries
            if mode & KIND == FOLDER and not name.startswith((".", PARTIAL))
        ]

    def _entries(self, folder: str, looking: Deadline) -> list[tuple[str, int, int]]:
        """Return (name, size, mode) of the entries of a folder, without `.` and `..`."""
        handle = self._session.open_handle(OPENDIR, pack_string(self._path(folder)))
        found: dict[bytes, tuple[str, int, int]] = {}
        while True:
            try:
                kind, data = self._session.reply(
                    self._session.send(READDIR, pack_string(handle)), until=looking
                )
            except SftpFault as fault:
                if fault.code == EOF:
                    break
                raise
            if kind != NAME:
                raise self._session.bad("it answers a request for names with something else")
            for name, size, mode in self._names(data):
                looking.count()
                if name in (b".", b".."):
                    continue
                if (
                    b"/" in name
                    or not name
                    or name in found
                    or any(byte < 32 or byte == 127 for byte in name)
                ):
                    raise self._session.bad(
                        f"it lists a name that no folder can hold: {os.fsdecode(name)!r:.100}"
                    )
                found[name] = (os.fsdecode(name), size, mode)
        self._session.ask(CLOSE, pack_string(handle))
        return list(found.values())

    def _names(self, data: bytes) -> list[tuple[bytes, int, int]]:
        """Return the entries of one NAME packet.

        Raises:
            PlaceUnusable: It is cut short, or empty: the draft ends a listing by a status.
        """
        found = []
        try:
            count, at = take_number(data, 0)
            for _ in range(count):
                name, at = take_string(data, at)
                _, at = take_string(data, at)  # the line of `ls -l`
                size, mode, at = take_attributes(data, at)
                found.append((name, size, mode))
        except Malformed as fault:
            raise self._session.bad("a list of names is cut short") from fault
        if not found:
            raise self._session.bad(
                "it answers a request for names with none, and does not end the list"
            )
        return found

    def _stat(self, path: bytes) -> None:
        self._session.reply(self._session.send(STAT, pack_string(path)))

    def _make_folders(self, folder: str) -> None:
        parts = folder.split("/")
        for length in range(1, len(parts) + 1):
            path = self._path("/".join(parts[:length]))
            try:
                self._stat(path)
            except SftpFault as fault:
                if fault.code != NO_SUCH_FILE:
                    raise
                self._session.ask(MKDIR, pack_string(path) + struct.pack(">II", HAS_MODE, 0o700))

    def _write(self, handle: bytes, blocks: Iterable[bytes]) -> None:
        waiting: deque[int] = deque()
        at = 0
        for block in blocks:
            for start in range(0, len(block), PIECE):
                piece = block[start : start + PIECE]
                waiting.append(
                    self._session.send(
                        WRITE, pack_string(handle) + struct.pack(">Q", at) + pack_string(piece)
                    )
                )
                at += len(piece)
                if len(waiting) >= WINDOW:
                    self._session.reply(waiting.popleft())
        for number in waiting:
            self._session.reply(number)

    def _stream(self, handle: bytes) -> Iterator[bytes]:
        """Yield the bytes of a file in order, with several requests in transit.

        A server may answer with fewer bytes than were requested.
        """
        waiting: deque[tuple[int, int]] = deque()
        asked = at = 0
        ended = False
        while waiting or not ended:
            while not ended and len(waiting) < WINDOW:
                waiting.append((self._ask_for(handle, asked, PIECE), asked))
                asked += PIECE
            number, start = waiting.popleft()
            data = self._data(number, PIECE)
            ended = ended or not data
            while data:
                yield data
                at += len(data)
                left = start + PIECE - at
                data = self._data(self._ask_for(handle, at, left), left) if left > 0 else b""
            if at < start + PIECE and not ended:
                ended = True  # requests beyond the end are answered with no data

    def _ask_for(self, handle: bytes, at: int, length: int) -> int:
        return self._session.send(READ, pack_string(handle) + struct.pack(">QI", at, length))

    def _data(self, number: int, asked: int) -> bytes:
        """Return the bytes that a READ request delivered; none at the end of the file."""
        try:
            kind, data = self._session.reply(number)
        except SftpFault as fault:
            if fault.code == EOF:
                return b""
            raise
        found = self._session.string(data) if kind == DATA else None
        if found is None or len(found) > asked:
            raise self._session.bad(
                "it answers a request for data with something else, or with more than was asked for"
            )
        return found

    def _move(self, old: str, new: str) -> None:
        """Rename a file over another, in one step if the server can.

        Otherwise remove the old one first.
        """
        words = pack_string(self._path(old)) + pack_string(self._path(new))
        if b"posix-rename@openssh.com" in self._session.extensions:
            self._session.ask(EXTENDED, pack_string(b"posix-rename@openssh.com") + words)
            return
        with suppress(SftpFault):
            self._session.ask(REMOVE, pack_string(self._path(new)))
        self._session.ask(RENAME, words)

    def _measure_free_space(self) -> int | None:
        if b"statvfs@openssh.com" not in self._session.extensions:
            return None
        with self._reporting_errors("measured"):
            kind, data = self._session.reply(
                self._session.send(
                    EXTENDED, pack_string(b"statvfs@openssh.com") + pack_string(self._path(""))
                )
            )
            if kind != EXTENDED_REPLY or len(data) < 40:
                raise self._session.bad("it does not say how much is free there")
        _, fragment, _, _, available = struct.unpack_from(">5Q", data)
        return int(fragment * available)

    def _reporting_errors(self, done: str) -> "_ErrorReport":
        return _ErrorReport(self, done)

    def fault(self, done: str, fault: SftpFault) -> OperationFailed:
        """Return the error for a refusal of the server."""
        hint = ""
        if done == "written":
            with suppress(SftpFault, OperationFailed):
                free = self._measure_free_space()
                hint = f"; {free >> 20} MiB are free there" if free is not None else ""
        if done == "looked at" and fault.code == NO_SUCH_FILE:
            return make_fault(
                self._to,
                f"there is no folder {self._to.path} on {self._to.host}",
                next_step="make it there, and try again",
            )
        return make_fault(
            self._to,
            f"cannot be {done}: {hide_secrets(str(fault))}{hint}",
            next_step="correct that, then try again",
        )


class _ErrorReport:
    """A context manager that turns a refusal of the server into OperationFailed.

    It is no generator, because blocks of it hold a `yield`.
    """

    def __init__(self, server: SftpServer, done: str) -> None:
        self._server = server
        self._done = done

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> None:
        if isinstance(fault, SftpFault):
            raise self._server.fault(self._done, fault) from fault
