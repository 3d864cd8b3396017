"""The files to audit, and their bytes.

Git's list counts where there is a repository (so that `.gitignore` applies), else every file.
"""

import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from safe_compose.audit.compose_mounts import is_compose_file
from safe_compose.audit.file_kinds import (
    LARGEST,
    FileKind,
    find_kind_by_path,
    find_kind_by_shebang,
    may_have_shebang,
    may_matter,
)
from safe_compose.errors import UsageError
from safe_compose.system import children

_SKIPPED = frozenset(
    {
        ".git", ".hg", ".svn", "node_modules", ".venv", "venv", "__pycache__", ".tox",
        ".mypy_cache", ".ruff_cache",
    }
)  # fmt: skip
"""Folders that are skipped where no repository defines its content."""


_GIT_SECONDS = 60.0
_GIT_BYTES = 256 << 20
"""Most bytes of names that git lists."""


class Note(NamedTuple):
    """A note about a file, or a part of it, that was not read as its kind."""

    path: str
    line: int
    """0: the whole file."""
    words: str


class FileTree:
    """The files below some paths.

    `looked_at` and `notes` grow while they are walked.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        """Use these paths, or the current folder.

        Raises:
            UsageError: A path does not exist.
        """
        self._paths = paths or (".",)
        self.looked_at = 0
        self.notes: list[Note] = []
        self._listed: dict[str, list[str]] = {}
        for path in self._paths:
            if not os.path.lexists(path):
                raise UsageError(
                    f"there is no {path}; nothing was audited",
                    next_step="safe-compose audit --help",
                )

    def list_compose_files(self) -> list[str]:
        """Return the files that are named as compose files are."""
        return [p for given in self._paths for p in self._list(given) if is_compose_file(p)]

    def worth_reading(
        self, may_matter: Callable[[bytes], bool] = may_matter
    ) -> Iterator[tuple[str, FileKind, bytes]]:
        """Yield (path, kind, bytes) of every file that could hold a finding."""
        seen: set[str] = set()
        for given in self._paths:
            for path in self._list(given):
                shown = _show(path)
                if shown not in seen:
                    seen.add(shown)
                    yield from self._read(path, shown, may_matter)

    def _list(self, given: str) -> list[str]:
        if given not in self._listed:
            self._listed[given] = list(self._walk_below(given))
        return self._listed[given]

    def _walk_below(self, given: str) -> Iterator[str]:
        if Path(given).is_file():
            # a link that a person names is followed
            yield os.path.realpath(given) if Path(given).is_symlink() else given
            return
        if not Path(given).is_dir():
            self.notes.append(Note(_show(given), 0, "not read: it is no regular file"))
            return
        listed = self._list_tracked(given)
        if listed is not None:
            # pathlib is too slow for 10,000 of them
            yield from (os.path.join(given, name) for name in listed)  # noqa: PTH118
            return
        for folder, folders, names in os.walk(given):
            folders[:] = sorted(name for name in folders if name not in _SKIPPED)
            yield from (os.path.join(folder, name) for name in sorted(names))  # noqa: PTH118

    def _list_tracked(self, folder: str) -> list[str] | None:
        """Return the files below a folder that git does not ignore.

        None without a repository or git.
        """
        # A repository's own settings may name programs; listing would start only fsmonitor.
        argv = [
            "git",
            "-C",
            folder,
            "-c",
            "core.fsmonitor=false",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]
        try:
            done = children.run(argv, seconds=_GIT_SECONDS, largest=_GIT_BYTES)
        except (OSError, subprocess.TimeoutExpired, children.TooMuch) as fault:
            if not isinstance(fault, OSError):
                self.notes.append(
                    Note(
                        _show(folder),
                        0,
                        "git did not end listing its files, so ignored ones were read too",
                    )
                )
            return None
        if done.returncode == 0:
            return [os.fsdecode(name) for name in dict.fromkeys(done.stdout.split(b"\0")) if name]
        if b"not a git repository" not in done.stderr:
            problem = done.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
            self.notes.append(
                Note(
                    _show(folder),
                    0,
                    f"git did not list its files, so ignored ones were read too ({problem})",
                )
            )
        return None

    def _read(
        self, path: str, shown: str, may_matter: Callable[[bytes], bool]
    ) -> Iterator[tuple[str, FileKind, bytes]]:
        kind = find_kind_by_path(shown)
        if kind is None and not may_have_shebang(shown):
            self.looked_at += 1
            return
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                # links, pipes and devices; the target of a link is listed under its own name
                return
            self.looked_at += 1
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                if kind is None:
                    kind = find_kind_by_shebang(file.read(128))
                    if kind is None:
                        return
                    file.seek(0)
                if status.st_size > LARGEST:
                    self.notes.append(Note(shown, 0, f"not read: larger than {LARGEST >> 20} MiB"))
                    return
                data = file.read()
        except FileNotFoundError:
            return  # git still lists deleted files
        except OSError as fault:
            self.notes.append(Note(shown, 0, f"not read: {fault.strerror}"))
            return
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            data = data.decode("utf-16", "replace").encode()
        if b"\0" in data[:8192]:
            self.notes.append(Note(shown, 0, "not read: it is binary"))
        elif may_matter(data):
            yield shown, kind, data


def _show(path: str) -> str:
    """Return a path for display: relative to this folder where it is below it."""
    path = os.path.normpath(path)
    here = os.getcwd() + os.sep  # noqa: PTH109
    return path.removeprefix(here) if path.startswith(here) else path
