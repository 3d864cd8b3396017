"""The road of `safe-compose audit`: commands that delete volumes, found in the files of a project.

    files --tree--> bytes that could matter --finders--> pieces of shell --shell_line--> commands --grammar--> findings

`files` tells the kind of a file; `markdown`, `yaml_files` and `recipes` are the finders, `pieces` what they give; `judge` finds
the doors and the safer forms; `report` says it; `mend` writes warnings into documents. Only `tree` and this file read anything.
"""

import os
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safe_compose import durable, shell_line
from safe_compose.artifacts import visible
from safe_compose.audit import files, judge
from safe_compose.audit.judge import Finding
from safe_compose.audit.pieces import Read
from safe_compose.audit.tree import Note, Tree
from safe_compose.doors import INSTALL
from safe_compose.errors import LookAgain, Refused, UsageError


class Report(NamedTuple):
    """What one audit found."""

    findings: tuple[Finding, ...]
    notes: tuple[Note, ...]
    looked_at: int
    """Files, read or not."""


class Mended(NamedTuple):
    """A document, before and after."""

    path: str
    before: bytes
    after: bytes

    def diff(self) -> str:
        """What changes, for a person to read."""
        from safe_compose.audit import mend

        return visible(mend.diff(self.path, self.before, self.after))


def scan(paths: Sequence[str]) -> Report:
    """Audit files and folders; this folder without any. Raises UsageError for a path that is not there, or without the extra."""
    _check_installed()
    tree = Tree(paths)
    found: list[Finding] = []
    notes: list[Note] = []
    for path, kind, data in tree.worth_reading():
        said, faults = judged(path, kind, data)
        found += said
        notes += faults
    return Report(tuple(sorted(found, key=lambda f: (f.path, f.line))), (*tree.notes, *notes), tree.looked_at)


def judged(path: str, kind: files.Kind, data: bytes) -> tuple[list[Finding], list[Note]]:
    """The findings in one file's bytes, and what in it could not be read."""
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        read = files.finder_of(kind)(text)
    except (RecursionError, ValueError) as fault:
        plain = files.finder_of(files.Kind("prose"))(text)
        read = Read(plain.pieces, notes=((1, f"does not read as {kind.name} ({type(fault).__name__}); read as plain text"),))
    found = judge.findings(path, text, read, unattended=kind.unattended)
    return found, [Note(path, line, words) for line, words in read.notes]


def _check_installed() -> None:
    try:
        shell_line.read("")
        files.finder_of(files.MARKDOWN)
    except (shell_line.Missing, ImportError) as missing:
        raise UsageError(
            "audit needs the extra `audit`, which is not installed; nothing was audited", next_step=INSTALL
        ) from missing


def mendings(report: Report) -> list[Mended]:
    """The documents of a report with warnings written in; nothing is written yet."""
    from safe_compose.audit import mend  # with its parser, which other verbs do not need

    done = []
    for path in dict.fromkeys(f.path for f in report.findings):
        if files.kind_of_path(path) == files.MARKDOWN:
            before = durable.read_regular(path)
            after = mend.mended(path, before)
            if after != before:
                done.append(Mended(path, before, after))
    return done


def write(mended: Sequence[Mended]) -> None:
    """Put the mended documents in place, each in one step, with the mode it has. Raises LookAgain, Refused."""
    for one in mended:
        path = Path(one.path)
        try:
            if durable.read_regular(path) != one.before:
                raise LookAgain(f"{one.path} was changed meanwhile; it was left as it is", next_step="safe-compose audit --fix")
            status = path.stat()
            access = durable.Access(files=stat.S_IMODE(status.st_mode), owner=(status.st_uid, status.st_gid))
            durable.replace(path, one.after, access)
        except OSError as fault:
            raise Refused(f"cannot write {one.path}: {durable.cause(fault)}; it is as it was") from fault


def read_text(path: Path) -> str:
    """A file that was named. Raises UsageError when it cannot be read."""
    try:
        return durable.read_regular(path).decode("utf-8", "replace")
    except OSError as fault:
        step = f"safe-compose audit --baseline {shlex.quote(str(path))} --write-baseline"
        raise UsageError(f"cannot read {path}: {durable.cause(fault)}; nothing was audited", next_step=step) from fault


def write_text(path: Path, text: str) -> None:
    """Write a file of a project (a baseline) in one step; one that is there keeps its mode. Raises Refused."""
    try:
        umask = os.umask(0)
        os.umask(umask)
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~umask
        durable.replace(path, text.encode(), durable.Access(files=mode))
    except OSError as fault:
        raise Refused(f"cannot write {path}: {durable.cause(fault)}") from fault


__all__ = ["Finding", "Mended", "Note", "Report", "judged", "mendings", "read_text", "scan", "write", "write_text"]
