"""Signatures of copies, which prove who made a backup that comes from an untrusted place.

`SHA256SUMS` is signed, and with it everything else: it holds the sha256 of every other file, and of
the manifest, which holds id, project and number. The signature is stored next to it as
`SHA256SUMS.sig`, made and checked by `ssh-keygen -Y` (OpenSSH 8.1 and later):

- a machine that only restores checks with the public key; with an HMAC it would hold the key that
  forges;
- the tool exists wherever ssh does, and a person can check by hand with it;
- there is no cryptography of our own, and no further dependency.

A signature does not prove that the place shows all of its copies, or the newest: an older copy is
signed as well (a rollback).
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from safe_compose.core.destination import parse_public_key
from safe_compose.errors import OperationFailed, VerificationFailed
from safe_compose.system import children
from safe_compose.system.files import Access, make_folders, reporting, set_owner, sync_folder

SIGNATURE = "SHA256SUMS.sig"
NAMESPACE = "safe-compose-backup"
"""Prevents a signature from counting for anything else that the key may sign."""
LARGEST = 16 << 10
"""Largest size in bytes of a signature, or of a key file."""
PRINCIPAL = "backup"
KEY, PUBLIC_KEY = "key", "key.pub"
SECONDS = 60.0

_ARMOR = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\n[A-Za-z0-9+/=\n]+-----END SSH SIGNATURE-----\n"
)


class Signer:
    """The key pair in a user's own store, created at the first signature."""

    def __init__(self, folder: Path, access: Access) -> None:
        """Use the key pair in a folder; new files get the owner of `access`."""
        self._folder = folder
        # 0700 and 0600 also in a shared store: each person has a key
        self._access = Access(owner=access.owner)

    @property
    def path(self) -> Path:
        """Return the path of the private key."""
        return self._folder / KEY

    def public(self) -> str | None:
        """Return the public key; None while there is no key.

        Raises:
            OperationFailed: The key cannot be used.
        """
        if not os.path.lexists(self.path):
            return None
        told_by = _run(["-y", "-P", "", "-f", str(self.path)])
        try:
            if told_by.returncode == 0:
                return parse_public_key(told_by.stdout.decode("ascii", "replace"))
        except ValueError:
            pass
        raise OperationFailed(f"the key {self.path} cannot be used: {_read_message(told_by)}")

    def make(self) -> str:
        """Return the public key; create the pair where there is none.

        Raises:
            OperationFailed: The key cannot be created or used.
        """
        self._require_key()
        found = self.public()
        assert found is not None  # it was created
        return found

    def sign(self, summed: bytes) -> bytes:
        """Return the signature of the bytes of a `SHA256SUMS`.

        An Ed25519 key always makes the same signature, so a copy that has it is not sent again.

        Raises:
            OperationFailed: The bytes cannot be signed.
        """
        self._require_key()
        made = _run(["-Y", "sign", "-q", "-f", str(self.path), "-n", NAMESPACE], summed)
        if made.returncode != 0 or not _ARMOR.fullmatch(made.stdout):
            raise OperationFailed(
                f"the backup cannot be signed with {self.path}: {_read_message(made)}; it was not"
                " copied",
                next_step="look at that key; ssh-keygen must be of OpenSSH 8.1 or later",
            )
        return made.stdout

    def _require_key(self) -> None:
        with reporting(f"make the key that signs copies in {self._folder}"):
            make_folders(self._folder, self._access)
            if not os.path.lexists(self.path):
                self._make()
            # never through a link; ssh-keygen requires 0600
            set_owner(self.path, self._access, folder=False)

    def _make(self) -> None:
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".new-") as fresh:
            new = Path(fresh, KEY)
            made = _run(["-q", "-t", "ed25519", "-N", "", "-C", "safe-compose", "-f", str(new)])
            if made.returncode != 0:
                raise OperationFailed(
                    f"ssh-keygen makes no key in {self._folder}: {_read_message(made)}; nothing was"
                    " copied"
                )
            for source in (new, Path(fresh, PUBLIC_KEY)):
                set_owner(source, self._access, folder=False)
                descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            with suppress(FileExistsError):  # another run has just created one: that one counts
                os.link(new, self.path)
                Path(fresh, PUBLIC_KEY).replace(self._folder / PUBLIC_KEY)
        sync_folder(self._folder)


def check(summed: bytes, signature: bytes, keys: Sequence[str], subject: str) -> None:
    """Require that one of the public `keys` signed these bytes of a `SHA256SUMS`.

    Args:
        summed: The bytes of `SHA256SUMS`.
        signature: The bytes of its signature.
        keys: The accepted public keys.
        subject: The copy, for messages.

    Raises:
        VerificationFailed: None of them did, or there is no key.
        OperationFailed: ssh-keygen cannot be run.
    """
    if not keys:
        raise VerificationFailed(
            f"{subject} cannot be checked: copies there must be signed, and there is no key to"
            " check them with; nothing was kept",
            next_step=(
                'write verify_key = ["ssh-ed25519 ..."] into [offsite.NAME] of your own settings:'
                " the line that `safe-compose offsite key` prints where the backups are made"
            ),
        )
    if len(signature) > LARGEST or not _ARMOR.fullmatch(signature):
        raise VerificationFailed(f"{subject} has a signature that does not read; nothing was kept")
    with tempfile.TemporaryDirectory(prefix="safe-compose-") as folder:
        allowed, file = Path(folder, "allowed"), Path(folder, "sig")
        allowed.write_text(
            "".join(f'{PRINCIPAL} namespaces="{NAMESPACE}" {key}\n' for key in keys), "ascii"
        )
        file.write_bytes(signature)
        words = [
            "-Y",
            "verify",
            "-f",
            str(allowed),
            "-I",
            PRINCIPAL,
            "-n",
            NAMESPACE,
            "-s",
            str(file),
        ]
        done = _run(words, summed)
    if done.returncode != 0:
        raise VerificationFailed(
            f"{subject} is signed by no key that counts here: somebody else made or changed it;"
            " nothing was kept",
            next_step=(
                "compare with `safe-compose offsite key` where it was made; a key that is new there"
                " goes into verify_key"
            ),
        )


def _run(words: Sequence[str], given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """Run ssh-keygen without the user's agent.

    Raises:
        OperationFailed: It is missing, or does not end properly.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("SSH_")
    } | {"LC_ALL": "C"}
    try:
        return children.run(
            ["ssh-keygen", *words], seconds=SECONDS, given=given, environ=environment
        )
    except FileNotFoundError as error:
        raise OperationFailed(
            "there is no ssh-keygen on this machine, and copies there must be signed",
            next_step="install the OpenSSH client",
        ) from error
    except (OSError, subprocess.TimeoutExpired, children.TooMuch) as error:
        raise OperationFailed(
            f"ssh-keygen does not end well: {type(error).__name__}; nothing was copied"
        ) from error


def _read_message(done: "subprocess.CompletedProcess[bytes]") -> str:
    return (
        done.stderr.decode("utf-8", "replace").strip()[-300:] or f"it ended with {done.returncode}"
    )
