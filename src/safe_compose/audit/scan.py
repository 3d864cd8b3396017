"""`safe-compose audit`: finds commands that delete volumes in the files of a project.

    files --walk--> bytes that could matter --finders--> snippets --shell--> commands
          --grammar--> findings

`file_kinds` determines the kind of a file; `markdown`, `yaml` and `formats` are the finders,
`snippets` their results; `findings` detects destructive commands and suggests safer forms,
`folder_findings` those that remove or change folders of services; `report` prints them;
`fix_markdown` writes warnings into documents. Only `walk`, `compose_mounts` and this module read
files.
"""

import os
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safe_compose.audit import file_kinds, findings, folder_findings, shell, shell_line
from safe_compose.audit.compose_mounts import ServiceMount, is_compose_file
from safe_compose.audit.findings import Finding
from safe_compose.audit.snippets import FileSnippets
from safe_compose.audit.walk import FileTree, Note
from safe_compose.errors import Refused, StateChanged, UsageError
from safe_compose.system import files
from safe_compose.system.installation import describe_extra


class Report(NamedTuple):
    """The result of one audit."""

    findings: tuple[Finding, ...]
    notes: tuple[Note, ...]
    looked_at: int
    """Number of files, read or not."""


class FixedDocument(NamedTuple):
    """A document, before and after its warnings were added."""

    path: str
    before: bytes
    after: bytes

    def diff(self) -> str:
        """Return the changes for a person to read."""
        from safe_compose.audit import fix_markdown

        return fix_markdown.diff(self.path, self.before, self.after)


def scan(paths: Sequence[str]) -> Report:
    """Audit files and folders, or the current folder.

    Raises:
        UsageError: A path does not exist, or the extra is not installed.
    """
    _check_installed()
    tree = FileTree(paths)
    mounts = folder_findings.list_data_mounts(tree.list_compose_files(), paths)
    found: list[Finding] = []
    notes: list[Note] = []
    for path, kind, data in tree.worth_reading(folder_findings.make_filter(mounts)):
        new, faults = judge_file(path, kind, data, mounts)
        found += new
        notes += faults
    return Report(
        tuple(sorted(found, key=lambda f: (f.path, f.line))), (*tree.notes, *notes), tree.looked_at
    )


def judge_file(
    path: str, kind: file_kinds.FileKind, data: bytes, mounts: Sequence[ServiceMount] = ()
) -> tuple[list[Finding], list[Note]]:
    """Return the findings in one file's bytes, and notes on parts that could not be read."""
    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff").replace("\r\n", "\n")
    try:
        read = file_kinds.choose_finder(kind)(text)
    except (RecursionError, ValueError) as fault:
        plain = file_kinds.choose_finder(file_kinds.FileKind("prose"))(text)
        read = FileSnippets(
            plain.snippets,
            notes=(
                (1, f"does not read as {kind.name} ({type(fault).__name__}); read as plain text"),
            ),
        )
    found = findings.find(path, text, read, unattended=kind.unattended)
    notes = [Note(path, line, words) for line, words in read.notes]
    if found.left_out:
        listed = len(found.findings)
        words = f"{listed} findings are listed; {found.left_out} more places were not judged"
        notes.append(Note(path, 0, words))
    inside = kind.name == "dockerfile" or is_compose_file(path)  # what runs in a container
    losses = [] if inside else folder_findings.find_folder_losses(path, text, read, mounts)
    return sorted([*found.findings, *losses], key=lambda f: f.line), notes


def _check_installed() -> None:
    try:
        shell.read("")
        file_kinds.choose_finder(file_kinds.MARKDOWN)
    except (shell_line.ParserMissing, ImportError) as missing:
        raise UsageError(
            "audit needs the extra `audit`, which is not installed; nothing was audited",
            next_step=describe_extra("audit"),
        ) from missing


def plan_fixes(report: Report) -> list[FixedDocument]:
    """Return the documents of a report with warnings added; nothing is written."""
    # imported with its parser, which other verbs do not need
    from safe_compose.audit import fix_markdown

    done = []
    for path in dict.fromkeys(f.path for f in report.findings):
        if file_kinds.find_kind_by_path(path) == file_kinds.MARKDOWN:
            before = files.read_regular(path)
            after = fix_markdown.fix(path, before)
            if after != before:
                done.append(FixedDocument(path, before, after))
    return done


def write(documents: Sequence[FixedDocument]) -> None:
    """Write the fixed documents, each in one step, with its current mode.

    Raises:
        StateChanged: A document was changed in the meantime.
        Refused: A document cannot be written.
    """
    for one in documents:
        path = Path(one.path)
        try:
            if files.read_regular(path) != one.before:
                raise StateChanged(
                    f"{one.path} was changed meanwhile; it was left as it is",
                    next_step="safe-compose audit --fix",
                )
            status = path.stat()
            access = files.Access(
                files=stat.S_IMODE(status.st_mode), owner=(status.st_uid, status.st_gid)
            )
            files.replace(path, one.after, access)
        except OSError as fault:
            raise Refused(
                f"cannot write {one.path}: {files.explain_error(fault)}; it is as it was"
            ) from fault


def read_text(path: Path) -> str:
    """Return the text of a file that was named on the command line.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        return files.read_regular(path).decode("utf-8", "replace")
    except OSError as fault:
        step = f"safe-compose audit --baseline {shlex.quote(str(path))} --write-baseline"
        raise UsageError(
            f"cannot read {path}: {files.explain_error(fault)}; nothing was audited", next_step=step
        ) from fault


def write_text(path: Path, text: str) -> None:
    """Write a file of a project (a baseline) in one step; an existing one keeps its mode.

    Raises:
        Refused: It cannot be written.
    """
    try:
        umask = os.umask(0)
        os.umask(umask)
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~umask
        files.replace(path, text.encode(), files.Access(files=mode))
    except OSError as fault:
        raise Refused(f"cannot write {path}: {files.explain_error(fault)}") from fault


__all__ = [
    "Finding",
    "FixedDocument",
    "Note",
    "Report",
    "judge_file",
    "plan_fixes",
    "read_text",
    "scan",
    "write",
    "write_text",
]
