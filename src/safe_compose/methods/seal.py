"""Artifacts that only a key opens: the age format, to recipients (age-encryption.org/v1, by pyrage, the extra `encrypt`).

What is packed is sealed in the same pass, so that the store never sees a plain byte. One more recipient is made for each run,
whose identity is never written anywhere: with it the run reads back from the disk what it wrote, and it goes with the process.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Full, Queue
from typing import IO, Any, Protocol

from safe_compose.errors import BackupFailed, ConfigError, UsageError

SUFFIX = ".age"
MAGIC = b"age-encryption.org/v1\n"
"""What such a file begins with; a gzip file begins otherwise."""
_WAITING = 16
"""Pieces between two threads; of 64 KiB and more."""
_TICK = 0.2
"""Seconds between two looks whether the other thread still lives."""
_LARGEST_KEY = 1 << 16


class Locked(UsageError):
    """None of the identities at hand opens it: nothing can be said against it."""


class _Ring:
    """The keys that this process holds: whom it seals for, and what it can open."""

    def __init__(self) -> None:
        self.recipients: list[Any] = []
        self.identities: list[Any] = []
        self.own: Any = None


_ring = _Ring()
"""One for the process, like its user or its umask: artifacts are packed and read in many places, and one that was left out would
lie in the store in the clear."""


def for_recipients(recipients: Sequence[str]) -> None:
    """Seal from now on whatever is packed, for these and for this process itself; for none: do not.

    Raises BackupFailed when the extra is not installed, ConfigError for one that does not read.
    """
    if not recipients:
        _ring.recipients = []
        return
    age = _age()
    found = []
    for number, text in enumerate(recipients, 1):
        make = age.ssh.Recipient if text.startswith("ssh-") else age.x25519.Recipient
        try:
            found.append(make.from_str(text))
        except age.RecipientError as error:
            raise ConfigError(
                f"encrypt.recipients: number {number} does not read as a recipient ({error}); no backup was made",
                next_step='correct it: age1... of `age-keygen -y FILE`, or the "ssh-ed25519 ..." line of a public key',
            ) from error
    if _ring.own is None:
        _ring.own = age.x25519.Identity.generate()
        _ring.identities.append(_ring.own)
    _ring.recipients = [*found, _ring.own.to_public()]


def is_set() -> bool:
    """Whether what is packed now is sealed."""
    return bool(_ring.recipients)


def open_with(path: Path) -> None:
    """Add the identities of a file, as age-keygen writes it, or an ssh private key. Raises UsageError, BackupFailed."""
    age = _age()
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(_LARGEST_KEY)
    except OSError as error:
        raise UsageError(f"the identity {path} cannot be read: {error.strerror or error}; nothing was done") from error
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            found = [age.ssh.Identity.from_buffer(data)]
        else:
            lines = [line.strip() for line in data.decode("utf-8").splitlines()]
            found = [age.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (age.IdentityError, UnicodeDecodeError, ValueError) as error:  # its text may hold a part of the key
        raise UsageError(
            f"{path} holds no identity that can be used ({type(error).__name__}); nothing was done",
            next_step="give the file that age-keygen wrote, or an ssh private key without a passphrase",
        ) from error
    if not found:
        raise UsageError(f"{path} holds no identity; nothing was done")
    _ring.identities += found


def _age() -> Any:
    try:
        import pyrage
    except ImportError as error:
        raise BackupFailed(
            "encryption needs the extra `encrypt`, which is not installed; nothing was done",
            next_step="pip install 'safe-compose[encrypt]'",
        ) from error
    return pyrage


# -- seal --------------------------------------------------------------------------------------------------------------


class _Plain(Protocol):
    def write(self, piece: bytes, /) -> object: ...

    def close(self) -> None: ...


def sink(file: _Plain) -> _Plain:
    """Where bytes are written to be sealed on their way into `file`; that one itself when nothing is sealed."""
    return _Sealing(file) if _ring.recipients else file


class _Sealing:
    """age pulls from one file and pushes into another, so it works in a thread of its own."""

    def __init__(self, file: _Plain) -> None:
        self._file = file
        self._age = _age()
        self._recipients = list(_ring.recipients)
        self._pieces: Queue[bytes] = Queue(_WAITING)
        self._left = b""
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="seal")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._age.encrypt_io(_Reader(self._read), _Writer(self._write), self._recipients)
        except BaseException as error:  # noqa: BLE001  (raised in the thread that writes)
            self._fault = self._fault or error

    def _read(self, size: int) -> bytes:
        if not self._left:
            self._left = self._pieces.get()
        piece, self._left = self._left[:size], self._left[size:]
        return piece

    def _write(self, piece: bytes) -> None:
        try:
            self._file.write(piece)
        except BaseException as error:
            self._fault = error  # age makes another one of it
            raise

    def write(self, piece: bytes, /) -> None:
        if piece:
            self._hand_over(piece)

    def _hand_over(self, piece: bytes) -> None:
        while True:
            if self._fault is not None:
                raise self._fault
            with suppress(Full):
                self._pieces.put(piece, timeout=_TICK)
                return

    def close(self) -> None:
        self._hand_over(b"")  # the end
        self._thread.join()
        if self._fault is not None:
            raise self._fault
        self._file.close()


class _Reader:
    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read


class _Writer:
    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def write(self, piece: bytes) -> int:
        self._write(piece)
        return len(piece)

    def flush(self) -> None:
        """Nothing is held back."""


# -- open --------------------------------------------------------------------------------------------------------------


class Damaged(Exception):
    """It is no whole age file."""


def is_sealed(file: IO[bytes]) -> bool:
    """By how it begins; the file is at its beginning afterwards."""
    begins = file.read(len(MAGIC))
    file.seek(0)
    return begins == MAGIC


def opened(read: Callable[[int], bytes], name: str) -> Generator[bytes, None, None]:
    """What a sealed file holds, a piece at a time; at its end age has proved that nothing is missing or changed.

    read: the sealed bytes. Raises Locked when no identity at hand opens it, Damaged, and what `read` raises.
    """
    age = _age()
    pieces: Queue[bytes] = Queue(_WAITING)
    left = threading.Event()
    fault: list[BaseException] = []

    def reading(size: int) -> bytes:
        try:
            return read(max(size, 1))
        except BaseException as error:
            fault.append(error)  # age makes another one of it
            raise

    def taken(piece: bytes) -> None:
        while not left.is_set():
            with suppress(Full):
                pieces.put(bytes(piece), timeout=_TICK)
                return
        raise BrokenPipeError("nobody reads on")  # not InterruptedError: that means "try again" to Rust

    def run() -> None:
        try:
            age.decrypt_io(_Reader(reading), _Writer(taken), _ring.identities)
        except BaseException as error:  # noqa: BLE001  (raised in the thread that reads)
            fault.append(error)

    if not _ring.identities:
        raise Locked(
            f"{name} is encrypted, and no identity was given; nothing was touched",
            next_step="add --identity FILE, or set SAFE_COMPOSE_IDENTITY",
        )
    thread = threading.Thread(target=run, daemon=True, name="open")
    thread.start()
    try:
        while thread.is_alive() or not pieces.empty():
            with suppress(Empty):
                yield pieces.get(timeout=_TICK)
        thread.join()
    finally:
        left.set()
        thread.join()
    if fault and isinstance(fault[0], age.DecryptError):
        raise Locked(
            f"{name} is encrypted for other identities than the given one; nothing was touched",
            next_step="give the identity of one of its recipients: --identity FILE",
        ) from fault[0]
    if fault and isinstance(fault[0], OSError):
        raise Damaged("it cannot be decrypted to its end") from fault[0]
    if fault:
        raise fault[0]
