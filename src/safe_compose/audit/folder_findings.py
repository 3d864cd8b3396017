"""Detection of commands in files that remove or change what a service of the repository mounts.

docker deletes no volume then, so that nothing stands before such a command when it runs.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from safe_compose.audit.compose_mounts import ServiceMount, find_mounts, read_mounts
from safe_compose.audit.file_kinds import may_matter, occur_together
from safe_compose.audit.findings import DANGER, MOST, SECONDS, Finding, is_allowed
from safe_compose.audit.mounted_folders import (
    CHANGES,
    OVERWRITES,
    PROGRAMS,
    MountLoss,
    find_mount_loss,
    may_change_folder,
)
from safe_compose.audit.safer_commands import show_words
from safe_compose.audit.shell import read, read_argv
from safe_compose.audit.shell_line import ShellLine, SimpleCommand
from safe_compose.audit.shell_words import Word
from safe_compose.audit.snippets import WORD, FileSnippets, Snippet

REMOVE_KIND, CHANGE_KIND = "folder_rm", "folder_change"
_MOST_FOLDERS = 8
"""Most folders in which a relative path is looked for."""
_MOST_FILES = 100
"""Most compose files of a repository that are read."""
_PROGRAM = re.compile("|".join(rf"\b{name}\b" for name in sorted(PROGRAMS)).encode())
_CLEANS = re.compile(rb"\bgit\b[^\n]*\bclean\b")
_ANY_NAME = rb"(?<![\w.])(?:\.\.?/?|(?:\./)?\*)(?![\w.*/])"
"""Matches a path that may be any folder: `.`, `..`, `*`."""


def list_data_mounts(files: Sequence[str], paths: Sequence[str]) -> list[ServiceMount]:
    """Return the mounts with data, by compose files, or by those at or above some paths."""
    found = [m for path in files[:_MOST_FILES] for m in read_mounts(Path(path).absolute())]
    if not files:
        starts = [Path(path).absolute() for path in paths[:_MOST_FILES] or (".",)]
        folders = dict.fromkeys(p if p.is_dir() else p.parent for p in starts)
        found = [m for folder in folders for m in find_mounts(folder)]
    return [m for m in dict.fromkeys(found) if m.holds_data]


def make_filter(mounts: Sequence[ServiceMount]) -> Callable[[bytes], bool]:
    """Return a filter of files that could hold a finding, of folders or of volumes."""
    if not mounts:
        return may_matter
    names = {part for mount in mounts for part in mount.source.split("/") if part}
    paths = "|".join(re.escape(name) for name in sorted(names)).encode("utf-8", "surrogateescape")
    named = re.compile(rb"(?:%s)|%s" % (paths, _ANY_NAME))

    def may_hold_finding(data: bytes) -> bool:
        whole = _CLEANS.search(data) is not None
        return may_matter(data) or whole or occur_together(data, named, _PROGRAM)

    return may_hold_finding


def find_folder_losses(
    path: str, text: str, found: FileSnippets, mounts: Sequence[ServiceMount]
) -> list[Finding]:
    """Return the findings in one file's snippets, without allowed commands.

    A relative path may begin in the folder of the file, or in one with a compose file.

    Args:
        path: The path of the file, for the findings.
        text: Its text.
        found: Its snippets.
        mounts: What services mount; nothing is read without them.
    """
    until = time.monotonic() + SECONDS
    own = str(Path(path).absolute().parent)
    folders = list(dict.fromkeys([own, *(m.root for m in mounts)]))[:_MOST_FOLDERS]
    lines = text.split("\n")
    seen: dict[tuple[int, str], Finding] = {}
    for snippet in found.snippets if mounts and "allow-file" not in text else ():
        if not may_change_folder(snippet.text or " ".join(snippet.argv)):
            continue
        for row, command, loss in _find_in_snippet(snippet, folders, mounts):
            at = snippet.at(row)
            if len(seen) >= MOST or time.monotonic() > until:
                return sorted(seen.values(), key=lambda f: f.line)
            if loss is not None and not is_allowed(lines, at) and not _is_warning(snippet):
                one = _make_finding(path, at, command, loss, snippet)
                seen.setdefault((at, one.command), one)
    return sorted(seen.values(), key=lambda f: f.line)


def _find_in_snippet(
    snippet: Snippet, folders: Sequence[str], mounts: Sequence[ServiceMount]
) -> Iterator[tuple[int, SimpleCommand, MountLoss | None]]:
    words = [Word(word, bare=False, row=number * WORD) for number, word in enumerate(snippet.argv)]
    line = read_argv(words) if words else read(snippet.text)
    for command in line.commands:
        yield command.words[0].row, command, _find_loss(command, line, folders, mounts)


def _find_loss(
    command: SimpleCommand, line: ShellLine, folders: Sequence[str], mounts: Sequence[ServiceMount]
) -> MountLoss | None:
    for folder in folders:
        loss = find_mount_loss(command, line, Path(folder), mounts)
        if loss is not None:
            return loss
    return None


def _make_finding(
    path: str, at: int, command: SimpleCommand, loss: MountLoss, snippet: Snippet
) -> Finding:
    mount, shown = loss.mount, show_words(command.words)
    source = mount.source.removeprefix(mount.root.rstrip("/") + "/")
    return Finding(
        path,
        at,
        CHANGE_KIND if loss.does in (CHANGES, OVERWRITES) else REMOVE_KIND,
        shown,
        None,
        f"safe-compose backup && {shown}",
        block=snippet.block,
        mount=f"{source}, which the service {mount.service} mounts",
    )


def _is_warning(snippet: Snippet) -> bool:
    """Return whether a block next to the command speaks of danger and names the backup."""
    return any(
        DANGER.search(around.prose)
        and any(code.split()[:2] == ["safe-compose", "backup"] for code in around.codes)
        for around in snippet.surroundings
    )
