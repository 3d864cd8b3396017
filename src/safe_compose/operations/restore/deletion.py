"""The deletion that `undo` brings back, and the engine that it ran on."""

import os
from pathlib import Path

from safe_compose.core.quantities import format_stamp
from safe_compose.core.text import join_for_shell, shell_quote
from safe_compose.engine import Engine, connect
from safe_compose.errors import EngineUnavailable, Refused, UsageError
from safe_compose.store.run_record import RunRecord
from safe_compose.store.steps import Running, Trashed
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace


def find_deletion(workspace: Workspace, project: str | None) -> RunRecord:
    """Return the newest deletion here that was not undone and can be.

    Raises:
        UsageError: There is none.
        Refused: It ran without a backup.
    """
    cwd = None if project else str(Path.cwd())
    found = workspace.journal.last_deletion(project=project, cwd=cwd)
    runs = workspace.journal.runs()
    undone = {r.undid for r in runs}
    newer = [
        r
        for r in runs
        if r.id in undone
        and (found is None or r.seq > found.seq)
        and (r.project == project if project else cwd in (r.cwd, r.facts.get("working_dir")))
    ]
    where = f"project {project}" if project else "this folder"
    if found is None:
        already = f"; that of {format_stamp(newer[0].started)} was undone already" if newer else ""
        raise UsageError(
            f"the journal knows no guarded deletion in {where} that could be undone{already}",
            next_step=(
                f"safe-compose journal, then {_suggest_undo(workspace)} or safe-compose restore ID"
            ),
        )
    if newer:
        terminal.say(
            f"safe-compose: the deletion of {format_stamp(newer[0].started)} in {where} was"
            f" undone already; this is an older one, of {format_stamp(found.started)}"
        )
    if found.backup is None and found.newest(Trashed) is None:
        raise Refused(
            f"'{found.program} {' '.join(found.command)}' of {format_stamp(found.started)}"
            " ran without a backup; nothing can be undone",
            next_step="safe-compose list, then safe-compose restore ID for an older state",
        )
    return found


def _suggest_undo(workspace: Workspace) -> str:
    """Return the command that undoes the newest deletion of all."""
    other = workspace.journal.last_deletion()
    if other is None:
        return "safe-compose undo --project NAME"
    how = (
        f"safe-compose undo --project {shell_quote(other.project)}"
        if other.project
        else f"(cd {shell_quote(other.cwd)} && safe-compose undo)"
    )
    command = join_for_shell((other.program, *other.command))
    return f"{how} (it undoes '{command}' of {format_stamp(other.started)})"


def list_recorded(deletion: RunRecord) -> dict[str, tuple[str, dict[str, str]]]:
    """Return the volumes that a deletion was to delete, as it saw them.

    There are none for a deletion by an older release, which recorded less.
    """
    running = deletion.newest(Running)
    volumes = running.volumes if running is not None else ()
    return {
        v.name: (v.driver, dict(v.options))
        for v in volumes
        if v.driver is not None and v.options is not None
    }


def open_same_engine(workspace: Workspace, deletion: RunRecord) -> Engine:
    """Return the engine that the journal recorded, reached by the same words.

    Raises:
        EngineUnavailable: They reach another engine.
    """
    words = deletion.docker_globals
    engine = (
        workspace.engine
        if not words
        else connect(workspace.docker, words, environ=dict(os.environ), run_id=workspace.run_id)
    )
    engine.mark_key = workspace.engine.mark_key
    if engine.id != deletion.engine_id:
        raise EngineUnavailable(
            f"the deletion happened on {deletion.endpoint}, but {engine.endpoint} is another"
            " engine; nothing was restored",
            next_step="set DOCKER_HOST or DOCKER_CONTEXT as it was then",
        )
    return engine
