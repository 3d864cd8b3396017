"""One SFTP session through the system's own ssh, with its settings, known hosts, keys and agent.

It never asks for input. The server is not trusted: every length, number and name that it sends is
checked, and every wait is limited.
"""

import os
import select
import shutil
import struct
import subprocess
import time
from contextlib import suppress
from typing import NoReturn

from safe_compose.core.destination import Destination
from safe_compose.core.redaction import hide_secrets
from safe_compose.errors import PlaceUnusable
from safe_compose.offsite.limits import Deadline
from safe_compose.offsite.place import make_fault
from safe_compose.offsite.sftp_packets import (
    HANDLE,
    INIT,
    OK,
    STATUS,
    VERSION,
    Malformed,
    SftpFault,
    take_number,
    take_string,
)
from safe_compose.system import children

LARGEST_PACKET = 1 << 20
LARGEST_HANDLE = 256
"""Largest number of bytes of a handle (section 6.3 of the draft)."""
LONGEST_MESSAGE = 300
"""Most characters of a server's message that are shown."""
KEPT_STDERR = 8192
"""Most bytes of ssh's stderr that are kept."""
LARGEST_AHEAD = 16 << 20
"""Most bytes that may wait here unread: more than all answers that are ever in transit."""
_OPTIONS = (
    "BatchMode=yes", "ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=4",
    "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes", "PermitLocalCommand=no",
    "RequestTTY=no",
)  # fmt: skip


class SftpSession:
    """The ssh process of a session, and the requests in transit."""

    def __init__(self, destination: Destination, title: str, stall: float) -> None:
        """Start ssh; call `greet` next.

        Args:
            destination: The server.
            title: Name of the destination, for messages.
            stall: Seconds without any answer after which the server counts as dead.

        Raises:
            OperationFailed: ssh is missing or cannot be started.
        """
        self._to = destination
        self.title = title
        self._stall = stall
        ssh = shutil.which("ssh")
        if ssh is None:
            raise make_fault(
                destination,
                "there is no ssh on this machine",
                next_step="install the OpenSSH client",
            )
        words = [ssh, *(w for option in _OPTIONS for w in ("-o", option))]
        words += ["-p", str(destination.port)] if destination.port else []
        words += ["-l", destination.user] if destination.user else []
        try:
            self._ssh = children.start(
                [*words, "-s", "--", destination.host, "sftp"], stdin=subprocess.PIPE
            )
        except OSError as error:
            raise make_fault(
                destination, f"ssh does not start: {error.strerror or error}"
            ) from error
        assert self._ssh.stdin and self._ssh.stdout and self._ssh.stderr  # pipes were asked for
        self._pipes = (self._ssh.stdin, self._ssh.stdout, self._ssh.stderr)
        self._out, self._in = self._ssh.stdin.fileno(), self._ssh.stdout.fileno()
        self._err: int | None = self._ssh.stderr.fileno()
        for pipe_of_ours in self._pipes:
            os.set_blocking(pipe_of_ours.fileno(), False)
        self._came = bytearray()
        """Bytes that were read and are no whole packet yet."""
        self._stderr = b""
        """The end of ssh's stderr."""
        self._greeted = False
        self._number = 0
        self._awaited: set[int] = set()
        """The requests in transit: only answers to them are accepted."""
        self._replies: dict[int, tuple[int, bytes]] = {}
        self.extensions: set[bytes] = set()

    def close(self) -> None:
        """End the session, and kill an ssh that does not end."""
        for pipe in self._pipes:
            with suppress(OSError):  # of a session that is already dead
                pipe.close()
        try:
            self._ssh.wait(timeout=5)
        except subprocess.TimeoutExpired:
            children.end(self._ssh)  # with the proxies that it started

    def greet(self) -> None:
        """Agree on the version, and read the server's extensions.

        Raises:
            OperationFailed: ssh could not connect.
            PlaceUnusable: The server does not answer properly, or in time.
        """
        self._transmit(struct.pack(">BI", INIT, 3))
        kind, data = self._packet(self._stall)
        try:
            version, at = take_number(data, 0)
            while at < len(data):
                name, at = take_string(data, at)
                _, at = take_string(data, at)
                self.extensions.add(name)
        except Malformed as fault:
            raise self.bad("its greeting is cut short") from fault
        if kind != VERSION or version != 3:
            raise self.bad("it does not speak version 3 of the protocol")
        self._greeted = True

    def send(self, kind: int, body: bytes) -> int:
        """Send a request; return its number for `reply`.

        Raises:
            OperationFailed: The session has ended.
            PlaceUnusable: The server accepts no data in time.
        """
        self._number += 1
        self._awaited.add(self._number)
        self._transmit(struct.pack(">BI", kind, self._number) + body)
        return self._number

    def _transmit(self, packet: bytes) -> None:
        """Send a packet.

        Raises:
            OperationFailed: The session has ended.
            PlaceUnusable: The server accepts no data in time.
        """
        view = memoryview(struct.pack(">I", len(packet)) + packet)
        ends = time.monotonic() + self._stall
        while view:
            if self._wait(ends, writing=True):
                try:
                    view = view[os.write(self._out, view) :]
                except BlockingIOError:
                    continue
                except OSError:
                    self._raise_fault()
                ends = time.monotonic() + self._stall

    def _packet(self, patience: float) -> tuple[int, bytes]:
        """Return type and body of the next packet, which must arrive within `patience` seconds."""
        ends = time.monotonic() + patience
        self._fill(4, ends)
        (length,) = struct.unpack_from(">I", self._came)
        if not 0 < length <= LARGEST_PACKET:
            raise self.bad("it sends a packet of an impossible length")
        self._fill(4 + length, ends)
        packet = bytes(self._came[4 : 4 + length])
        del self._came[: 4 + length]
        return packet[0], packet[1:]

    def _fill(self, count: int, ends: float) -> None:
        """Wait until `count` bytes have arrived."""
        while len(self._came) < count:
            self._wait(ends)

    def _wait(self, ends: float, *, writing: bool = False) -> bool:
        """Read all that has arrived, or wait for data; return whether ssh accepts data.

        Raises:
            OperationFailed: The session has ended.
            PlaceUnusable: No data arrived before `ends`.
        """
        left = ends - time.monotonic()
        waiting = select.poll()  # not `select`, which cannot handle descriptors above 1023
        for descriptor in (self._in, self._err):
            if descriptor is not None:
                waiting.register(descriptor, select.POLLIN)
        if writing:
            waiting.register(self._out, select.POLLOUT)
        ready = {descriptor for descriptor, _ in waiting.poll(max(0.0, left) * 1000)}
        if not ready and left <= 0:
            raise PlaceUnusable(
                f"{self.title}: {self._to.host} has stopped answering; nothing more was awaited",
                next_step="look at the server and the line, then try again",
            )
        if self._err in ready:
            self._keep_stderr()
        if self._in in ready:
            self._take_in()
        return self._out in ready

    def _take_in(self) -> None:
        try:
            data = os.read(self._in, 1 << 18)
        except BlockingIOError:
            return
        if not data:
            self._raise_fault()
        self._came += data
        if len(self._came) > LARGEST_AHEAD:
            raise self.bad("it sends what nobody asked for")

    def _keep_stderr(self) -> None:
        """Keep the end of ssh's stderr."""
        assert self._err is not None  # the caller checked
        try:
            more = os.read(self._err, 1 << 16)
        except BlockingIOError:
            return
        if more:
            self._stderr = (self._stderr + more)[-KEPT_STDERR:]
        else:
            self._err = None

    def reply(
        self, number: int, *, patience: float | None = None, until: Deadline | None = None
    ) -> tuple[int, bytes]:
        """Return type and body of the answer to a request.

        Raises:
            SftpFault: The answer is a status other than OK.
            OperationFailed: The session has ended.
            PlaceUnusable: The server does not answer properly, or in time.
        """
        while number not in self._replies:
            most = self._stall if patience is None else max(patience, self._stall)
            kind, data = self._packet(most if until is None else min(most, until.remaining))
            try:
                answered, at = take_number(data, 0)
            except Malformed as fault:
                raise self.bad("an answer is cut short") from fault
            if answered not in self._awaited:
                raise self.bad("it answers a request that was not made")
            self._awaited.discard(answered)
            self._replies[answered] = (kind, data[at:])
        kind, data = self._replies.pop(number)
        if kind == STATUS:
            try:
                code, at = take_number(data, 0)
                message = (
                    take_string(data, at)[0].decode("utf-8", "replace")[:LONGEST_MESSAGE]
                    if at < len(data)
                    else ""
                )
            except Malformed as fault:
                raise self.bad("a status is cut short") from fault
            if code != OK:
                raise SftpFault(code, message or f"status {code}")
        return kind, data

    def ask(self, kind: int, body: bytes, *, patience: float | None = None) -> None:
        """Send a request and wait until it is done.

        Raises:
            SftpFault: The answer is a status other than OK.
            OperationFailed: The session has ended.
            PlaceUnusable: The server does not answer properly, or in time.
        """
        self.reply(self.send(kind, body), patience=patience)

    def open_handle(self, kind: int, body: bytes) -> bytes:
        """Send a request and return the handle that it opens.

        Raises:
            SftpFault: The answer is a status other than OK.
            OperationFailed: The session has ended.
            PlaceUnusable: The server does not answer properly, or in time.
        """
        answer, data = self.reply(self.send(kind, body))
        handle = self.string(data) if answer == HANDLE else b""
        if not 0 < len(handle) <= LARGEST_HANDLE:
            raise self.bad("it opens a file and gives no handle for it")
        return handle

    def string(self, data: bytes) -> bytes:
        """Return the counted string at the beginning of an answer.

        Raises:
            PlaceUnusable: The answer is cut short.
        """
        try:
            return take_string(data, 0)[0]
        except Malformed as fault:
            raise self.bad("an answer is cut short") from fault

    def bad(self, what: str) -> PlaceUnusable:
        """Return the error for behaviour that no SFTP server has."""
        return PlaceUnusable(
            f"{self.title}: what answers on {self._to.host} is no SFTP server: {what}; nothing of"
            " it is used",
            next_step=f"try it by hand: {self._make_sftp_command()}",
        )

    def _raise_fault(self) -> NoReturn:
        """Report the end of the session with ssh's own message.

        Raises:
            PlaceUnusable: The session had begun, or ssh is still running: it is no SFTP server.
            OperationFailed: ssh could not connect.
        """
        with suppress(OSError):
            self._pipes[0].close()
        try:
            code: int | None = self._ssh.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        before = b""
        while self._err is not None and before != self._stderr:
            before = self._stderr
            self._keep_stderr()
        words = self._stderr.decode("utf-8", "replace").strip().splitlines()
        cause = (
            hide_secrets("; ".join(line.strip() for line in words[-5:] if line.strip()))
            or "it said nothing"
        )
        ended = f"ssh ended with {code}" if code is not None else "what answers is no SFTP server"
        if self._greeted or code is None:
            raise PlaceUnusable(
                f"{self.title}: {ended}: {cause}",
                next_step=f"try it by hand: {self._make_sftp_command()}",
            )
        raise make_fault(
            self._to, f"{ended}: {cause}", next_step=f"try it by hand: {self._make_sftp_command()}"
        )

    def _make_sftp_command(self) -> str:
        at = f"-P {self._to.port} " if self._to.port else ""
        who = f"{self._to.user}@" if self._to.user else ""
        return f"sftp {at}{who}{self._to.host}"
