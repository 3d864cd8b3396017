"""Deletions of volumes without docker's command line: in the engine's data folder."""

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from safe_compose.audit.containers import ContainerCommand
from safe_compose.audit.programs import REMOVERS
from safe_compose.audit.shell import read_argv
from safe_compose.audit.shell_line import ShellLine, SimpleCommand
from safe_compose.audit.shell_words import Word

_ROOTS = (
    "/var/lib/docker",
    "/var/lib/containers/storage",
    ".local/share/docker",
    ".local/share/containers/storage",
)
_MOUNTPOINT = "a volume's folder"


def find_data_root(command: SimpleCommand, line: ShellLine, here: Path) -> str:
    """Return the engine's data folder that a removing command would reach, or empty."""
    program = command.program or ""
    targets = find_removed_words(command, line)
    if any(word.origin == "mountpoint" for word in targets):
        return _MOUNTPOINT
    deep = program != "rm" or any(
        re.fullmatch(r"-[A-Za-z]*[rR][A-Za-z]*|--recursive", w.text) for w in command.words[1:]
    )
    above = deep and program in ("rm", "mv", "find", "shred")
    folders = [str(here), *_folders(line)]
    into = _find_destination(command) if program == "mv" else None
    return next(
        (
            root
            for word in targets
            for folder in ([""] if word.text.startswith("/") else folders)
            if (root := _find_reached_root(word.text, folder, above=above and word is not into))
        ),
        "",
    )


def _find_destination(command: SimpleCommand) -> Word | None:
    """Return the word of `mv` that says where files are moved to: nothing above it is removed."""
    words = command.words[1:]
    for before, word in pairwise(words):
        if before.text in ("-t", "--target-directory"):
            return word
    if any(word.text.startswith("--target-directory=") for word in words):
        return None
    operands = [word for word in words if not word.text.startswith("-")]
    return operands[-1] if len(operands) > 1 else None


def find_written_root(target: Word, line: ShellLine, here: Path) -> str:
    """Return the engine's data folder in which a redirect empties a file, or empty."""
    if target.origin == "mountpoint":
        return _MOUNTPOINT
    folders = [""] if target.text.startswith("/") else [str(here), *_folders(line)]
    return next(
        (
            root
            for folder in folders
            if (root := _find_reached_root(target.text, folder, above=False))
        ),
        "",
    )


def _folders(line: ShellLine) -> Iterator[str]:
    """Yield the folders that the line changes to."""
    for command in line.commands:
        if command.program in ("cd", "pushd") and len(command.words) > 1:
            yield command.words[1].text


def find_removed_words(command: SimpleCommand, line: ShellLine) -> Sequence[Word]:
    """Return the words of a command that name what it removes, moves or overwrites."""
    program, words = command.program, command.words[1:]
    texts = [word.text for word in words]
    operands = [word for word in words if not word.text.startswith("-")]
    if program == "find":
        runs = [w for w in words if w.text in ("sh", "bash")]
        deletes = "-delete" in texts or any(
            inner.program in REMOVERS - {"find"} and (inner.words[0] in words or runs)
            for inner in line.commands
            if "wrapper" in inner.via
        )
        starts = next((n for n, t in enumerate(texts) if t.startswith(("-", "(", "!"))), len(texts))
        return words[:starts] if deletes else ()
    if program == "rsync":
        if "--remove-source-files" in texts:
            return operands
        return operands[-1:] if any(t.startswith("--del") for t in texts) else ()
    if program == "dd":
        return [w._replace(text=w.text[3:]) for w in words if w.text.startswith("of=")]
    return operands


def _find_reached_root(text: str, folder: str, *, above: bool) -> str:
    """Return the data folder that a path lies in, or above.

    Args:
        text: The path, with patterns and variables as they are typed.
        folder: The folder that a relative path begins in.
        above: Whether a folder above it counts as well.
    """
    home = os.environ.get("HOME", "/root")
    text = re.sub(r"^(~|\$HOME|\$\{HOME\})(?=/|$)", home, text)
    path = posixpath.normpath(posixpath.join(folder or "/", text))
    literal = re.split(r"[*?\[{$`]", path)[0]
    for root in _ROOTS:
        root = root if root.startswith("/") else posixpath.join(home, root)
        if path == root or path.startswith(root + "/"):
            return root
        start = literal if literal != path else path + "/"
        if above and (path == "/" or literal == "/" or root.startswith(start)):
            return root
    return ""


def find_mounted_root(inner: ContainerCommand) -> str:
    """Return the engine's data folder that a container gets and removes files from, or empty."""
    home = os.environ.get("HOME", "/root")
    for source, target in inner.mounts:
        full = re.sub(r"^(~|\$HOME|\$\{HOME\})(?=/|$)", home, source)
        for root in _ROOTS:
            root = root if root.startswith("/") else posixpath.join(home, root)
            inside = full == root or full.startswith(root + "/")
            around = full == "/" or root.startswith(full.rstrip("/") + "/")
            if not full.startswith("/") or not (inside or around):
                continue
            wanted = target if inside else posixpath.join(target, root[len(full.rstrip("/")) + 1 :])
            for command in read_argv(inner.words, expand=True).commands:
                texts = [word.text for word in command.words[1:]]
                removes = command.program in REMOVERS and (
                    command.program != "find" or "-delete" in texts or "-exec" in texts
                )
                if removes and any(_touches(text, wanted) for text in texts):
                    return root
    return ""


def _touches(text: str, target: str) -> bool:
    """Return whether a path in a container lies in a mount, or above it, or is not absolute."""
    if text.startswith("-"):
        return False
    if not text.startswith("/"):
        return text in (".", "*", "./*")
    path = re.split(r"[*?\[{$`]", text)[0].rstrip("/")
    return (path + "/").startswith(target.rstrip("/") + "/") or (target + "/").startswith(
        path + "/"
    )
