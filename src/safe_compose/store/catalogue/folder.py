"""The folder of the store: created, checked for safety and ownership, measured and locked."""

import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from safe_compose.core.redaction import redact
from safe_compose.core.slug import slug
from safe_compose.core.text import shell_quote
from safe_compose.errors import OperationFailed
from safe_compose.store import locks
from safe_compose.system.files import (
    PRIVATE,
    Access,
    explain_error,
    make_folder,
    make_folders,
    read_regular,
    reporting,
)
from safe_compose.system.files import replace as replace_file
from safe_compose.system.process import read_clock

PROTECTIONS, COUNTER = "protections.json", "store.json"
TRASH = ".trash"
FORMAT = 1
"""Format of the store, as its counter file records it; a store with a newer one is never
changed."""
RESERVED = frozenset({"locks", "journal", "trash", COUNTER, PROTECTIONS})
_STORE_WAIT = 60.0
"""Seconds; the store's own lock is held only briefly."""


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """The free space at a path, or where that path would be created."""

    bytes: int
    inodes: int | None
    """None where the file system does not count inodes."""


def measure_free_space(path: Path) -> FreeSpace:
    """Return the space that an ordinary user may still use at a path.

    Raises:
        OperationFailed: The file system cannot be asked.
    """
    with reporting(f"measure the free space in {path}"):
        existing = next(p for p in (path, *path.parents) if p.exists())
        free = os.statvfs(existing)
    return FreeSpace(free.f_bavail * free.f_frsize, free.f_favail if free.f_files else None)


class StoreFolder:
    """A store's folder at `root`.

    It need not exist: writing begins with `ensure`.
    """

    def __init__(
        self, root: Path, access: Access = PRIVATE, *, clock: Callable[[], datetime] = read_clock
    ) -> None:
        """Use the folder at `root`; new files get the modes and the owner of `access`."""
        self.root = root
        self.access = access
        self.clock = clock

    def __repr__(self) -> str:
        """Return the class name with the folder."""
        return f"{type(self).__name__}({str(self.root)!r})"

    def ensure(self) -> None:
        """Create the store and verify that it can be written to.

        Raises:
            OperationFailed: The store cannot be created or written to, or is not safe to use.
        """
        with reporting(f"make the store {self.root}"):
            make_folders(self.root, self.access)
        self.refuse_unsafe()
        with reporting(f"write to the store {self.root}"):
            with suppress(FileExistsError):
                make_folder(self.root / "locks", self.access)
            self.prepare_trash()
            ignore = self.root / ".gitignore"
            if not ignore.exists():  # a store inside a work tree must never be committed
                replace_file(ignore, b"*\n", self.access)
            probe = self.root / f".probe-{os.getpid()}"
            replace_file(probe, b"probe\n", self.access)
            probe.unlink()

    def prepare_trash(self) -> None:
        """Create the folder that forgotten backups are moved to, while the disk has space for it.

        Raises:
            OSError: The folder cannot be created.
            OperationFailed: Something else has its name.
        """
        path = self.root / TRASH
        try:
            make_folder(path, self.access)
        except FileExistsError as error:
            if not stat.S_ISDIR(path.lstat().st_mode):
                raise OperationFailed(
                    f"{path} is no folder; nothing was forgotten",
                    next_step=(
                        f"look at it, then move it away: mv {shell_quote(str(path))}"
                        f" {shell_quote(f'{path}.odd')}"
                    ),
                ) from error

    def refuse_unsafe(self) -> None:
        """Refuse a store whose content other users could change.

        Raises:
            OperationFailed: The store is no folder, belongs to another user, is writable by others,
                or is a folder with other things in it.
        """
        with reporting(f"use the store {self.root}"):
            found = self.root.stat()
        ours = {os.geteuid()} | ({self.access.owner[0]} if self.access.owner is not None else set())
        shared = bool(self.access.files & 0o060)
        where = f"the store {self.root}"
        if not stat.S_ISDIR(found.st_mode):
            raise OperationFailed(
                f"cannot use {where}: a file is in the way",
                next_step="set SAFE_COMPOSE_HOME to a folder",
            )
        if found.st_uid not in ours and not (
            shared and found.st_gid in {os.getegid(), *os.getgroups()}
        ):
            raise OperationFailed(
                f"cannot use {where}: it belongs to user {found.st_uid}, not to {os.geteuid()}:"
                " others can change backups",
                next_step=(
                    "set SAFE_COMPOSE_HOME to a folder of your own, or choose a shared store"
                    " ([store] shared = true)"
                ),
            )
        if found.st_mode & (0o002 if shared else 0o022):
            raise OperationFailed(
                f"cannot use {where}: others may write to it (mode"
                f" {stat.S_IMODE(found.st_mode):04o})",
                next_step=f"chmod {'o-w' if shared else 'go-w'} {shell_quote(str(self.root))}",
            )
        self._refuse_strange()

    def _refuse_strange(self) -> None:
        """Refuse a folder that is no store yet and holds other things.

        Our `.gitignore` would hide its files from git.
        """
        with reporting(f"look into {self.root}"):
            names = {entry.name for entry in os.scandir(self.root)}
        unexpected = sorted(
            name for name in names if not name.startswith(".") and name != "lost+found"
        )
        if unexpected and names.isdisjoint({"locks", "store.json"}):
            raise OperationFailed(
                f"cannot use the store {self.root}: it is no store, and other things are in it"
                f" ({', '.join(unexpected[:3])}...)",
                next_step=(
                    "give it a folder of its own:"
                    f" SAFE_COMPOSE_HOME={shell_quote(str(self.root / 'safe-compose'))}"
                ),
            )

    def free_space(self) -> FreeSpace:
        """Return the free space where backups are written.

        Raises:
            OperationFailed: The file system cannot be asked.
        """
        return measure_free_space(self.root)

    def counter(self) -> object:
        """Return the next backup number that the store has recorded; None when it is lost.

        Raises:
            OperationFailed: A newer safe-compose made the store.
        """
        try:
            found = json.loads(read_regular(self.root / COUNTER))
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(found, dict):
            return None
        if isinstance(found.get("format"), int) and found["format"] > FORMAT:
            raise OperationFailed(
                f"the store {self.root} was made by a newer safe-compose (format"
                f" {found['format']}); nothing was changed in it",
                next_step="install the newer safe-compose again",
            )
        return found.get("next_seq")

    def folder_of(self, project: str) -> Path:
        """Return the folder of a project's backups, whether or not it exists."""
        name = slug(project)
        # `slug` leaves `locks` unchanged; with a blank appended, it adds the hash that keeps the
        # project apart from our own folder.
        return self.root / (slug(f"{project} ") if name in RESERVED else name)

    def lock_path(self, name: str) -> Path:
        """Return the file of one of the store's locks.

        Raises:
            ValueError: The name leads to another folder; callers validate the names that they pass.
        """
        if "/" in name or "\0" in name:
            raise ValueError(f"no name of a lock: {name!r:.80}")
        return self.root / "locks" / f"{name}.lock"

    @contextmanager
    def holding(self, name: str, *, must_sign: bool = True) -> Iterator[None]:
        """Hold one of the store's own locks, which others hold only briefly.

        Raises:
            StateChanged: Another process held the lock for too long.
            OperationFailed: The lock cannot be taken.
        """
        what = f"the {name} of {self.root}"
        with locks.holding(
            self.lock_path(name), what, access=self.access, wait=_STORE_WAIT, must_sign=must_sign
        ):
            yield

    @contextmanager
    def lock(
        self,
        engine_id: str,
        project: str,
        *,
        wait: float = 0,
        command: Sequence[str] = (),
        full: bool = False,
    ) -> Iterator[None]:
        """Hold the lock of one project of one engine during the block.

        Args:
            engine_id: Id of the engine.
            project: Name of the project.
            wait: Seconds to wait before StateChanged is raised.
            command: The command of this process, shown to other processes without secrets.
            full: The store exists and its disk may be full.

        Raises:
            StateChanged: Another process, which the message names, holds the lock.
            OperationFailed: The store cannot be used, or its file system has no locks.
        """
        if not full:
            self.ensure()
        name = f"{slug(project)}-{sha256(f'{engine_id} {project}'.encode()).hexdigest()[:12]}"
        words = redact(command)
        path, what = self.lock_path(name), f"project {project}"
        with locks.holding(
            path, what, access=self.access, wait=wait, command=words, must_sign=not full
        ):
            yield

    def project_folders(self) -> list[Path]:
        """Return the folders that hold backups, one per project."""
        return [
            Path(e.path)
            for e in list_folders(self.root)
            if not e.name.startswith(".") and e.name not in RESERVED
        ]


def list_folders(folder: Path) -> list["os.DirEntry[str]"]:
    """Return the folders in a folder; none when it does not exist.

    Raises:
        OperationFailed: The folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if e.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise OperationFailed(
            f"cannot list {folder}: {explain_error(error)}", next_step="correct its owner and mode"
        ) from error


def list_backups(folder: Path) -> list["os.DirEntry[str]"]:
    """Return the folders of the backups in a project's folder.

    Raises:
        OperationFailed: The folder cannot be listed.
    """
    return [e for e in list_folders(folder) if not e.name.startswith(".")]
