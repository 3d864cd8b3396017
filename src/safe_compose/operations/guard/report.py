"""The report of what docker deleted."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from safe_compose.core.backup import Backup
from safe_compose.core.plan import TRASH_DAYS, Plan
from safe_compose.core.quantities import count
from safe_compose.core.redaction import hide_secrets, redact
from safe_compose.core.text import shell_quote
from safe_compose.core.tier import Tier
from safe_compose.operations import approval
from safe_compose.operations.backup.before_deletion import ColdBackup
from safe_compose.operations.outcome import CommandOutcome, find_outcome
from safe_compose.store.journal import Run
from safe_compose.ui import terminal as ui_terminal
from safe_compose.workspace import Workspace

MOST_NAMES = 40
"""Most volumes that one line names; the journal has all."""
_OWN_NAMES = ("safe-compose", "docker", "docker-compose")


def report(
    workspace: Workspace,
    made: Plan,
    journal_run: Run,
    backup: ColdBackup | None,
    trashed: Sequence[str],
    code: int,
) -> None:
    """Journal and print what was really deleted, whatever the exit code says.

    Args:
        workspace: The workspace.
        made: The plan that docker carried out.
        journal_run: The run to journal to.
        backup: The backup, if one was made.
        trashed: The volumes whose content is in the trash.
        code: Docker's exit code; minus the signal that it died by.
    """
    found = find_outcome(
        workspace.engine, made.doomed, backup.backup if backup else None, trashed, made.threat.kind
    )
    gone, survived = found.gone, found.survived
    journal_run.step(
        "ran", code=code, gone=gone, survived=survived, parts=[part.facts() for part in found.parts]
    )
    ended = f"exited with {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
    if survived:
        ui_terminal.say(f"safe-compose: docker {ended}; still there: {_list(survived)}")
    for part in found.parts:
        ui_terminal.say(f"safe-compose: docker {ended}; {part.words()}")
    stored = backup.backup if backup else None
    for line in list_deleted(made, gone, stored, trashed):
        ui_terminal.say(f"safe-compose: {line}")
    if found.parts and stored and not gone:
        ui_terminal.say(f"safe-compose: all of it is in backup {stored.id}")
    if (gone or found.parts) and (stored or trashed):
        lost = any(
            d.name in gone and d not in made.backed_up and d.verdict.why != "empty"
            for d in made.doomed
        )
        what = "back what was kept" if lost else "everything back"
        ui_terminal.say(f"safe-compose: to bring {what}: {_make_next_step(workspace, stored)}")
    if made.invocation.own.json:
        undo = _make_next_step(workspace, stored) if stored or trashed else None
        _say_as_json(describe(made, found, stored, trashed, code=code, undo=undo))


def report_as_json(workspace: Workspace, made: Plan, code: int) -> None:
    """Print what became of the volumes of a command that ran without a backup, for `--json`."""
    found = find_outcome(workspace.engine, made.doomed, None, (), made.threat.kind)
    _say_as_json(describe(made, found, None, (), code=code, undo=None))


def _say_as_json(shape: dict[str, Any]) -> None:
    """Print the line for programs on stderr: stdout is docker's."""
    ui_terminal.say(json.dumps(shape, ensure_ascii=True))


def describe(
    made: Plan,
    found: CommandOutcome,
    backup: Backup | None,
    trashed: Collection[str],
    *,
    code: int,
    undo: str | None,
) -> dict[str, Any]:
    """Return the documented JSON object of a command that docker ran. Keys are only ever added.

    Args:
        made: The plan that docker carried out.
        found: What became of its volumes.
        backup: The backup, if one was made.
        trashed: The volumes whose content is in the trash.
        code: Docker's exit code; minus the signal that it died by.
        undo: The command that brings back what was deleted; None where nothing was kept.
    """
    copied = {record.name for record in backup.volumes} if backup else set()
    states = {
        **dict.fromkeys(found.gone, "deleted"),
        **dict.fromkeys(found.survived, "kept"),
        **{part.name: "part deleted" if part.left else "unknown" for part in found.parts},
    }
    lost = bool(found.gone or found.parts)
    return {
        "version": approval.VERSION,
        "guarded_by": "safe-compose",
        "docker_was_run": True,
        "exit_code": code if code >= 0 else 128 - code,
        "argv": list(redact(made.invocation.argv)),
        "folder": approval.find_folder(),
        "kind": made.threat.kind,
        "project": made.project,
        "endpoint": hide_secrets(made.observed.endpoint),
        "volumes": [
            {
                "name": d.name,
                "tier": d.verdict.tier.value,
                "kind": d.verdict.kind,
                "other_project": d.other_project,
                "outcome": states[d.name],
                "backup": backup.id if backup and d.name in copied else None,
                "trash": d.name in trashed,
            }
            for d in made.doomed
        ],
        "backup": {"id": backup.id, "path": backup.path, "level": backup.level} if backup else None,
        "undo": undo if lost else None,
    }


def list_deleted(
    made: Plan, gone: Collection[str], backup: Backup | None, trashed: Collection[str]
) -> Iterator[str]:
    """Yield one line for all deleted volumes with the same fate, so that each is named once."""
    copied = {record.name for record in backup.volumes} if backup else set()
    fates: dict[str, list[str]] = {}
    for d in sorted(made.doomed, key=lambda d: d.verdict.tier.rank):
        if d.name in gone:
            where = [
                *([f"with a copy in backup {backup.id}"] if backup and d.name in copied else []),
                *([f"in the trash for {TRASH_DAYS} days"] if d.name in trashed else []),
            ]
            if not where:
                disposable = d.verdict.tier is Tier.DISPOSABLE
                empty = disposable and d.verdict.why == "empty"
                where = ["empty" if empty else f"without a copy{' (disposable)' * disposable}"]
            fates.setdefault(" and ".join(where), []).append(d.name)
    for fate, names in fates.items():
        yield f"deleted {count(len(names), 'volume')}, {fate}: {_list(names)}"


def _list(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _make_next_step(workspace: Workspace, backup: Backup | None) -> str:
    there = workspace.whole.store if workspace.whole is not None else workspace.catalogue.root
    root = workspace.catalogue.root
    sealed = backup is not None and any(a.sealed for v in backup.volumes for a in v.artifacts)
    return make_undo_command(
        None if root == there else root, needs_key=sealed and workspace.settings.identity is None
    )


def make_undo_command(store: Path | None, *, needs_key: bool) -> str:
    """Return the command that undoes this deletion, as it works in the shell that called us.

    It names the program by its path where no `safe-compose` is found.

    Args:
        store: The store to name, where another one would be searched; None for none.
        needs_key: Whether the backup is encrypted and no setting names the key.
    """
    sudo = os.environ.get("SUDO_COMMAND", "").partition(" ")[0]
    words = ["sudo"] if os.path.basename(sudo) in _OWN_NAMES else []  # noqa: PTH119
    if store is not None:
        words.append(f"SAFE_COMPOSE_HOME={shell_quote(str(store))}")
    called = Path(sys.argv[0])
    known = shutil.which("safe-compose") or called.name != "safe-compose"
    words.append("safe-compose" if known else shell_quote(str(called.absolute())))
    return " ".join([*words, "undo", *(["--identity", "KEYFILE"] if needs_key else [])])
