"""Encryption of artifacts to recipients in the age format (age-encryption.org/v1).

It uses pyrage, from the extra `encrypt`. Data is encrypted in the same pass that packs it, so that
no plain byte reaches the store. Each run adds one more recipient, whose identity is never written
anywhere: with it the run reads back from the disk what it wrote. It is lost when the process ends.
"""

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Full, Queue
from typing import IO, Any, NoReturn, Protocol

from safe_compose.errors import ConfigError, OperationFailed, UsageError
from safe_compose.system.installation import describe_extra

SUFFIX = ".age"
MAGIC = b"age-encryption.org/v1\n"
"""First bytes of an age file; a gzip file begins differently."""
_WAITING = 16
"""Blocks that may wait between two threads, of 64 KiB and more."""
_TICK = 0.2
"""Seconds between two checks whether the other thread is still alive."""
_LARGEST_KEY = 1 << 16


class KeyMissing(UsageError):
    """No identity at hand opens the file, which may be intact."""


class _Keys:
    """The keys of this process: recipients it encrypts to, and identities it decrypts with."""

    def __init__(self) -> None:
        self.recipients: list[Any] = []
        self.identities: list[Any] = []
        self.own: Any = None


_keys = _Keys()
"""One set for the whole process, like its user or its umask: artifacts are packed and read in many
places, and one place that was forgotten would leave its artifact in the store unencrypted.
"""


def set_recipients(recipients: Sequence[str]) -> None:
    """Encrypt everything packed from now on to these recipients and to this process itself.

    Without recipients nothing is encrypted.

    Raises:
        OperationFailed: The extra `encrypt` is not installed.
        ConfigError: A recipient cannot be parsed.
    """
    if not recipients:
        _keys.recipients = []
        return
    age = _age()
    found = []
    for number, text in enumerate(recipients, 1):
        make = age.ssh.Recipient if text.startswith("ssh-") else age.x25519.Recipient
        try:
            found.append(make.from_str(text))
        except age.RecipientError as error:
            raise ConfigError(
                f"encrypt.recipients: number {number} does not read as a recipient ({error}); no"
                " backup was made",
                next_step=(
                    'correct it: age1... of `age-keygen -y FILE`, or the "ssh-ed25519 ..." line of'
                    " a public key"
                ),
            ) from error
    if _keys.own is None:
        _keys.own = age.x25519.Identity.generate()
        _keys.identities.append(_keys.own)
    _keys.recipients = [*found, _keys.own.to_public()]


def is_set() -> bool:
    """Return whether what is packed now is encrypted."""
    return bool(_keys.recipients)


def add_identity(path: Path) -> None:
    """Add the identities of a file that age-keygen wrote, or an SSH private key.

    Raises:
        UsageError: The file cannot be read or holds no usable identity.
        OperationFailed: The extra `encrypt` is not installed.
    """
    age = _age()
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(_LARGEST_KEY)
    except OSError as error:
        raise UsageError(
            f"the identity {path} cannot be read: {error.strerror or error}; nothing was done"
        ) from error
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            found = [age.ssh.Identity.from_buffer(data)]
        else:
            lines = [line.strip() for line in data.decode("utf-8").splitlines()]
            found = [
                age.x25519.Identity.from_str(line)
                for line in lines
                if line and not line.startswith("#")
            ]
    # The error's text may hold a part of the key.
    except (age.IdentityError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(
            f"{path} holds no identity that can be used ({type(error).__name__}); nothing was done",
            next_step=(
                "give the file that age-keygen wrote, or an ssh private key without a passphrase"
            ),
        ) from error
    if not found:
        raise UsageError(f"{path} holds no identity; nothing was done")
    _keys.identities += found


def _age() -> Any:
    try:
        import pyrage
    except ImportError as error:
        raise OperationFailed(
            "encryption needs the extra `encrypt`, which is not installed; nothing was done",
            next_step=describe_extra("encrypt"),
        ) from error
    return pyrage


# -- encrypt ---------------------------------------------------------------------------------------


class Sink(Protocol):
    """A consumer of bytes."""

    def write(self, piece: bytes, /) -> object:
        """Accept the next bytes."""
        ...

    def close(self) -> None:
        """Flush everything; no more bytes follow."""


def open_writer(file: Sink) -> Sink:
    """Return a writer that encrypts into `file`, or `file` itself if nothing is encrypted."""
    return _Encryption(file) if _keys.recipients else file


class _Encryption:
    """A writer that encrypts in its own thread, since age reads one file and writes another."""

    def __init__(self, file: Sink) -> None:
        self._file = file
        self._age = _age()
        self._recipients = list(_keys.recipients)
        self._pieces: Queue[bytes] = Queue(_WAITING)
        self._left = b""
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="seal")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._age.encrypt_io(
                _EncryptedReader(self._read), _EncryptedWriter(self._write), self._recipients
            )
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
            self._fault = error  # age replaces this exception by one of its own
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
        self._hand_over(b"")  # an empty piece marks the end
        self._thread.join()
        if self._fault is not None:
            raise self._fault
        self._file.close()


class _EncryptedReader:
    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.read = read


class _EncryptedWriter:
    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def write(self, piece: bytes) -> int:
        self._write(piece)
        return len(piece)

    def flush(self) -> None:
        """Do nothing; no data is buffered."""


# -- decrypt ---------------------------------------------------------------------------------------


class EncryptedFileDamaged(Exception):
    """The file is not a complete age file."""


def is_encrypted(file: IO[bytes]) -> bool:
    """Return whether a file begins like an age file, and rewind it."""
    begins = file.read(len(MAGIC))
    file.seek(0)
    return begins == MAGIC


def decrypt(read: Callable[[int], bytes], name: str) -> Generator[bytes, None, None]:
    """Yield the decrypted content of a file.

    By the time the last piece is read, age has verified that nothing is missing or changed. `read`
    returns the encrypted bytes; `name` serves messages.

    Raises:
        KeyMissing: No identity at hand opens the file.
        EncryptedFileDamaged: The file is incomplete or was changed.

    Faults of `read` pass through.
    """
    age = _age()
    pieces: Queue[bytes] = Queue(_WAITING)
    left = threading.Event()
    fault: list[BaseException] = []

    def reading(size: int) -> bytes:
        try:
            return read(max(size, 1))
        except BaseException as error:
            fault.append(error)  # age replaces this exception by one of its own
            raise

    def taken(piece: bytes) -> None:
        while not left.is_set():
            with suppress(Full):
                pieces.put(bytes(piece), timeout=_TICK)
                return
        # Not InterruptedError, which Rust takes for "try again".
        raise BrokenPipeError("nobody reads on")

    def run() -> None:
        try:
            age.decrypt_io(_EncryptedReader(reading), _EncryptedWriter(taken), _keys.identities)
        except BaseException as error:  # noqa: BLE001  (raised in the thread that reads)
            fault.append(error)

    if not _keys.identities:
        raise KeyMissing(
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
    if fault:
        _raise(fault[0], name, age)


def _raise(fault: BaseException, name: str, age: Any) -> NoReturn:
    """Raise the fault of a decryption with a message for the user."""
    if isinstance(fault, age.DecryptError):
        raise KeyMissing(
            f"{name} is encrypted for other identities than the given one; nothing was touched",
            next_step="give the identity of one of its recipients: --identity FILE",
        ) from fault
    if isinstance(fault, OSError):
        raise EncryptedFileDamaged("it cannot be decrypted to its end") from fault
    raise fault
