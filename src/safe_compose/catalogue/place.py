"""The folder of the store: made, proved safe and ours, measured and locked."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from safe_compose.artifacts import redact, slug
from safe_compose.catalogue import locks, outgoing
from safe_compose.durable import PRIVATE, Access, cause, make_folder, make_folders, told
from safe_compose.durable import replace as replace_file
from safe_compose.errors import BackupFailed
from safe_compose.process import utc_now

PROTECTIONS, COUNTER = "protections.json", "store.json"
RESERVED = frozenset({"locks", "journal", "trash", COUNTER, PROTECTIONS})
_STORE_WAIT = 60.0
"""Seconds; the store's own lock is only ever held for moments."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is free where a path is, or would be made."""

    bytes: int
    inodes: int | None
    """None: that file system does not count them."""


def room(path: Path) -> Room:
    """What an ordinary user may still write there. Raises BackupFailed."""
    with told(f"measure the room in {path}"):
        existing = next(p for p in (path, *path.parents) if p.exists())
        free = os.statvfs(existing)
    return Room(free.f_bavail * free.f_frsize, free.f_favail if free.f_files else None)


class Place:
    """A store's folder at `root`. It need not exist: writing begins with `ensure`."""

    def __init__(self, root: Path, access: Access = PRIVATE, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.root = root
        self.access = access
        self._clock = clock

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r})"

    def ensure(self) -> None:
        """Make the store and prove that it can be written. Raises BackupFailed with the cause in words."""
        with told(f"make the store {self.root}"):
            make_folders(self.root, self.access)
        self._refuse_unsafe()
        with told(f"write to the store {self.root}"):
            with suppress(FileExistsError):
                make_folder(self.root / "locks", self.access)
            outgoing.prepare(self.root, self.access)
            ignore = self.root / ".gitignore"
            if not ignore.exists():  # a store inside of a work tree must never be committed
                replace_file(ignore, b"*\n", self.access)
            probe = self.root / f".probe-{os.getpid()}"
            replace_file(probe, b"probe\n", self.access)
            probe.unlink()

    def _refuse_unsafe(self) -> None:
        """Raises BackupFailed when others than its owner could change what is in the store."""
        with told(f"use the store {self.root}"):
            found = self.root.stat()
        ours = {os.geteuid()} | ({self.access.owner[0]} if self.access.owner is not None else set())
        shared = bool(self.access.files & 0o060)
        where = f"the store {self.root}"
        if not stat.S_ISDIR(found.st_mode):
            raise BackupFailed(f"cannot use {where}: a file is in the way", next_step="set SAFE_COMPOSE_HOME to a folder")
        if found.st_uid not in ours and not (shared and found.st_gid in {os.getegid(), *os.getgroups()}):
            raise BackupFailed(
                f"cannot use {where}: it belongs to user {found.st_uid}, not to {os.geteuid()}: others can change backups",
                next_step="set SAFE_COMPOSE_HOME to a folder of your own, or choose a shared store ([store] shared = true)",
            )
        if found.st_mode & (0o002 if shared else 0o022):
            raise BackupFailed(
                f"cannot use {where}: others may write to it (mode {stat.S_IMODE(found.st_mode):04o})",
                next_step=f"chmod {'o-w' if shared else 'go-w'} {self.root}",
            )
        self._refuse_strange()

    def _refuse_strange(self) -> None:
        """A folder with things in it that is no store yet stays as it is: our `.gitignore` would hide them all from git."""
        with told(f"look into {self.root}"):
            names = {entry.name for entry in os.scandir(self.root)}
        strange = sorted(name for name in names if not name.startswith(".") and name != "lost+found")
        if strange and names.isdisjoint({"locks", "store.json"}):
            raise BackupFailed(
                f"cannot use the store {self.root}: it is no store, and other things are in it ({', '.join(strange[:3])}...)",
                next_step=f"give it a folder of its own: SAFE_COMPOSE_HOME={self.root / 'safe-compose'}",
            )

    def room(self) -> Room:
        """What is free where backups go. Raises BackupFailed."""
        return room(self.root)

    def folder_of(self, project: str) -> Path:
        """Where a project's backups lie, whether or not there are any."""
        name = slug(project)
        # `slug` leaves `locks` as it is; one blank more gives it the hash that tells it from our own folder.
        return self.root / (slug(f"{project} ") if name in RESERVED else name)

    def _lock_path(self, name: str) -> Path:
        return self.root / "locks" / f"{name}.lock"

    @contextmanager
    def _hold(self, name: str, *, must_sign: bool = True) -> Iterator[None]:
        what = f"the {name} of {self.root}"
        with locks.held(self._lock_path(name), what, access=self.access, wait=_STORE_WAIT, must_sign=must_sign):
            yield

    @contextmanager
    def lock(
        self, engine_id: str, project: str, *, wait: float = 0, command: Sequence[str] = (), full: bool = False
    ) -> Iterator[None]:
        """Hold one project of one engine during the block.

        wait: seconds until LookAgain, which names the holder. command: what we run, shown to others without secrets.
        full: the store is there and its disk may be full.
        """
        if not full:
            self.ensure()
        name = f"{slug(project)}-{sha256(f'{engine_id} {project}'.encode()).hexdigest()[:12]}"
        words = redact(command)
        path, what = self._lock_path(name), f"project {project}"
        with locks.held(path, what, access=self.access, wait=wait, command=words, must_sign=not full):
            yield

    def _project_folders(self) -> list[Path]:
        return [Path(e.path) for e in folders_in(self.root) if not e.name.startswith(".") and e.name not in RESERVED]


def folders_in(folder: Path) -> list["os.DirEntry[str]"]:
    """The folders in a folder; none when it cannot be listed because it is not there."""
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if e.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise BackupFailed(f"cannot list {folder}: {cause(error)}", next_step="correct its owner and mode") from error


def backups_in(folder: Path) -> list["os.DirEntry[str]"]:
    return [e for e in folders_in(folder) if not e.name.startswith(".")]
