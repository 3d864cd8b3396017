"""Which files there are, and their bytes: git's list where there is a repository (so `.gitignore` counts), else every file."""

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from safe_compose.audit.files import LARGEST, Kind, kind_of_path, kind_of_shebang, may_have_shebang, may_matter
from safe_compose.errors import UsageError

_SKIPPED = frozenset({".git", ".hg", ".svn", "node_modules", ".venv", "venv", "__pycache__", ".tox", ".mypy_cache", ".ruff_cache"})
"""Folders that are not looked into where no repository says what belongs to it."""


class Note(NamedTuple):
    """Something that was not read, or not as what it is."""

    path: str
    line: int
    """0: the whole of it."""
    words: str


class Tree:
    """The files below some paths. `looked_at` and `notes` grow while they are walked."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises UsageError for a path that is not there."""
        self._paths = paths or (".",)
        self.looked_at = 0
        self.notes: list[Note] = []
        for path in self._paths:
            if not os.path.lexists(path):
                raise UsageError(f"there is no {path}; nothing was audited", next_step="safe-compose audit --help")

    def worth_reading(self) -> Iterator[tuple[str, Kind, bytes]]:
        """(path, kind, bytes) of every file that could hold a finding."""
        seen: set[str] = set()
        for given in self._paths:
            for path in self._below(given):
                shown = _shown(path)
                if shown not in seen:
                    seen.add(shown)
                    yield from self._read(path, shown)

    def _below(self, given: str) -> Iterator[str]:
        if Path(given).is_file():
            yield os.path.realpath(given) if Path(given).is_symlink() else given  # a link that a person names is meant
            return
        if not Path(given).is_dir():
            self.notes.append(Note(_shown(given), 0, "not read: it is no regular file"))
            return
        listed = self._listed(given)
        if listed is not None:
            yield from (os.path.join(given, name) for name in listed)  # noqa: PTH118 - 10,000 of them
            return
        for folder, folders, names in os.walk(given):
            folders[:] = sorted(name for name in folders if name not in _SKIPPED)
            yield from (os.path.join(folder, name) for name in sorted(names))  # noqa: PTH118

    def _listed(self, folder: str) -> list[str] | None:
        """What git knows below a folder, and what it does not ignore; None where there is no repository or no git."""
        # A repository's own settings may name programs: fsmonitor is the one that listing would start.
        argv = ["git", "-C", folder, "-c", "core.fsmonitor=false", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        except OSError:
            return None
        if done.returncode == 0:
            return [os.fsdecode(name) for name in dict.fromkeys(done.stdout.split(b"\0")) if name]
        if b"not a git repository" not in done.stderr:
            said = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
            self.notes.append(Note(_shown(folder), 0, f"git did not list its files, so ignored ones were read too ({said})"))
        return None

    def _read(self, path: str, shown: str) -> Iterator[tuple[str, Kind, bytes]]:
        kind = kind_of_path(shown)
        if kind is None and not may_have_shebang(shown):
            self.looked_at += 1
            return
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                return  # links, pipes and devices; what a link leads to is there under its own name
            self.looked_at += 1
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                if kind is None:
                    kind = kind_of_shebang(file.read(128))
                    if kind is None:
                        return
                    file.seek(0)
                if status.st_size > LARGEST:
                    self.notes.append(Note(shown, 0, f"not read: larger than {LARGEST >> 20} MiB"))
                    return
                data = file.read()
        except FileNotFoundError:
            return  # git still lists what was deleted
        except OSError as fault:
            self.notes.append(Note(shown, 0, f"not read: {fault.strerror}"))
            return
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            data = data.decode("utf-16", "replace").encode()
        if b"\0" in data[:8192]:
            self.notes.append(Note(shown, 0, "not read: it is binary"))
        elif may_matter(data):
            yield shown, kind, data


def _shown(path: str) -> str:
    """A path as it is told: from this folder where it is below it."""
    path = os.path.normpath(path)
    here = os.getcwd() + os.sep  # noqa: PTH109
    return path.removeprefix(here) if path.startswith(here) else path
