"""Commands that remove or change files that a service mounts: docker deletes no volume.

Words of other programs are read as they are, so that a path that a variable names is not known.
"""

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from safe_compose.audit.compose_mounts import ServiceMount, find_mounts
from safe_compose.audit.data_folder import find_removed_words
from safe_compose.audit.shell_line import ShellLine, SimpleCommand
from safe_compose.audit.shell_words import Word

REMOVES, MOVES, CHANGES, OVERWRITES = (
    "removes files of",
    "moves",
    "changes the owner or mode of files in",
    "overwrites files of",
)
_DEEP_REMOVERS = frozenset({"find", "rsync", "trash", "srm"})
"""Programs that remove folders without a flag."""
_FILE_REMOVERS = frozenset({"rm", "unlink", "shred", "truncate", "dd"})
_CHANGERS = frozenset({"chown", "chmod", "chgrp"})
_COPIERS = frozenset({"cp", "rsync", "install"})
PROGRAMS = _DEEP_REMOVERS | _FILE_REMOVERS | _CHANGERS | _COPIERS | {"mv", "git"}
"""The programs that are known here."""
_NAMED = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(PROGRAMS - {'git'}))}|git\s+clean)(?![\w-])")
_OWN_FOLDER = re.compile(r"dirname|BASH_SOURCE|\$0|\$\{0|PWD|pwd|show-toplevel|ROOT|BASE", re.ASCII)
"""Matches what scripts name the folder by that they stand in, or one above."""


class MountLoss(NamedTuple):
    """A mount of which a command would remove or change files."""

    mount: ServiceMount
    does: str
    """What it does to them: `REMOVES`, `MOVES`, `CHANGES` or `OVERWRITES`."""


class _Reached(NamedTuple):
    """The words of a command that name files."""

    does: str
    words: Sequence[Word]
    deep: bool = True
    """Whether folders are taken whole; otherwise only the files that are named."""
    above: bool = True
    """Whether folders above a mount are taken, with it."""


def may_change_folder(text: str) -> bool:
    """Return whether a text names a program that removes or changes files."""
    return _NAMED.search(text) is not None


def find_mount_loss(
    command: SimpleCommand,
    line: ShellLine,
    here: Path,
    mounts: Sequence[ServiceMount] | None = None,
) -> MountLoss | None:
    """Return a mount of which a command would remove or change files, or None.

    Args:
        command: The command.
        line: The line that it stands in.
        here: The folder in which the line runs.
        mounts: What services mount; None: what the compose files of that folder say.
    """
    if command.program not in PROGRAMS or command.via & {"container", "ssh"}:
        return None
    folder = _folder_of(command, line, here)
    if command.program == "git" and folder:
        mount = _find_cleaned(command, folder, mounts)
        return MountLoss(mount, REMOVES) if mount is not None else None
    for reached in _find_reached(command, line):
        paths = [p for word in reached.words if (p := _path_of(word, folder))]
        if reached.does == CHANGES:
            made = {p for word in _find_made(line) if (p := _path_of(word, folder))}
            paths = [p for p in paths if p not in made]  # a folder that is set up here
        for mount in (
            (find_mounts(Path(folder or here)) if mounts is None else mounts) if paths else ()
        ):
            if any(_is_lost(path, mount, reached) for path in paths):
                return MountLoss(mount, reached.does)
    return None


def _find_reached(command: SimpleCommand, line: ShellLine) -> Iterator[_Reached]:
    """Yield the words of files that a command removes or changes."""
    program, words = command.program or "", command.words[1:]
    flags = [word.text for word in words if word.text.startswith("-")]
    recursive = _has_flag(flags, "rR", "--recursive", "--archive") or (
        program in ("cp", "rsync") and _has_flag(flags, "a")
    )
    operands = [word for word in words if not word.text.startswith("-")]
    if program == "mv":
        yield _Reached(MOVES, _drop_destination(words))
    elif program in _CHANGERS:
        named = any(flag.startswith("--reference") for flag in flags)
        yield _Reached(CHANGES, (operands if named else operands[1:]) if recursive else ())
    elif program in _DEEP_REMOVERS or program in _FILE_REMOVERS:
        removed = find_removed_words(command, line)
        yield _Reached(REMOVES, removed, program in _DEEP_REMOVERS or recursive)
    if program in _COPIERS and len(operands) > 1 and not _has_flag(flags, "n", "--dry-run"):
        into, sources = operands[-1], operands[:-1]
        inner = [
            into._replace(text=posixpath.join(into.text, posixpath.basename(source.text)))
            for source in sources
        ]
        yield (
            _Reached(OVERWRITES, [into], above=False)
            if recursive
            else _Reached(OVERWRITES, [into, *inner], deep=False)
        )


def _has_flag(flags: Sequence[str], letters: str, *longs: str) -> bool:
    return any(
        flag in longs or re.match(rf"-[A-Za-z]*[{letters}]", flag) is not None for flag in flags
    )


def _drop_destination(words: Sequence[Word]) -> Sequence[Word]:
    """Return the operands of `mv` that are moved."""
    operands = [word for word in words if not word.text.startswith("-")]
    for index, word in enumerate(words[:-1]):
        if word.text in ("-t", "--target-directory"):
            return [one for one in operands if one is not words[index + 1]]
    if any(word.text.startswith("--target-directory=") for word in words):
        return operands
    return operands[:-1]


def _find_made(line: ShellLine) -> Iterator[Word]:
    """Yield the folders that the line itself makes."""
    for command in line.commands:
        if command.program in ("mkdir", "install"):
            yield from (word for word in command.words[1:] if not word.text.startswith("-"))


def _folder_of(command: SimpleCommand, line: ShellLine, here: Path) -> str:
    """Return the folder in which a command of the line runs; empty when it is not known."""
    folder = str(here)
    for before in line.commands[: line.commands.index(command)]:
        if before.program not in ("cd", "pushd"):
            continue
        words = [word for word in before.words[1:] if not word.text.startswith("-")]
        if len(words) == 1 and words[0].sure:
            folder = posixpath.join(folder, os.path.expanduser(words[0].text))  # noqa: PTH111
        elif not (words and _OWN_FOLDER.search(words[0].text)):
            return ""
    return posixpath.normpath(folder)


def _path_of(word: Word, folder: str) -> str:
    """Return the absolute path that a word names; empty when it is not known."""
    text = re.sub(r"^(?:\$PWD|\$\{PWD\}|\$\(pwd\)|`pwd`)(?=/|$)", ".", word.text)
    text = re.sub(r"^(?:\$HOME|\$\{HOME\})(?=/|$)", "~", text)
    if "\0" in text or (not word.sure and re.search(r"[$`]", text)):
        return ""
    text = os.path.expanduser(text)  # noqa: PTH111
    if not folder and not text.startswith("/"):
        return ""
    return posixpath.normpath(posixpath.join(folder, text))


def _is_lost(path: str, mount: ServiceMount, reached: _Reached) -> bool:
    """Return whether a path that a command reaches has files of a mount with data."""
    if not mount.holds_data:
        return False
    inside = _covers(mount.source, path)
    if reached.deep:
        return inside or (reached.above and _covers(path, mount.source))
    if reached.does == OVERWRITES:
        return inside and Path(path).is_file()
    if path.count("/") > mount.source.count("/"):
        return inside
    return _covers(path, mount.source) and Path(mount.source).is_file()


def _covers(path: str, inner: str) -> bool:
    """Return whether a path, which may be a pattern, is another one or lies above it."""
    parts, others = path.split("/"), inner.split("/")
    if path == "/":
        return True
    return len(parts) <= len(others) and all(
        fnmatchcase(other, part) for part, other in zip(parts, others, strict=False)
    )


def _find_cleaned(
    command: SimpleCommand, folder: str, mounts: Sequence[ServiceMount] | None
) -> ServiceMount | None:
    """Return a mount that `git clean` removes with what git ignores, or None."""
    texts = [word.text for word in command.words[1:]]
    if "clean" not in texts:
        return None
    rest = texts[texts.index("clean") + 1 :]
    letters = {letter for text in rest if re.match(r"-\w", text) for letter in text[1:]}
    forced = "f" in letters or "--force" in rest
    ignored = letters & {"x", "X"}
    if not forced or not ignored or "d" not in letters or "n" in letters or "--dry-run" in rest:
        return None
    left_out = [
        value.strip("/")
        for before, text in zip(["", *rest], rest, strict=False)
        for value in (text, text.partition("=")[2])
        if value and (before in ("-e", "--exclude") or text.startswith("--exclude="))
    ]
    paths = [text for text in rest if not text.startswith("-") and text not in left_out] or ["."]
    cleaned = [posixpath.normpath(posixpath.join(folder, path)) for path in paths]
    for mount in find_mounts(Path(folder)) if mounts is None else mounts:
        names = mount.source.split("/")
        below = any(_covers(path, mount.source) for path in cleaned)
        there = mounts is not None or Path(mount.source).exists()
        if mount.holds_data and below and there and not set(left_out) & set(names):
            return mount
    return None
