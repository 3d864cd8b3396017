"""The removal of the folders that restores replaced and kept under other names."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from safe_compose.core.quantities import count, format_stamp
from safe_compose.core.text import join_for_shell, shell_quote
from safe_compose.errors import StateChanged
from safe_compose.operations.restore.request import LOCK_SECONDS, GivenAnswer
from safe_compose.operations.transaction import begin, locking
from safe_compose.store.run_record import RunRecord
from safe_compose.store.steps import Placing, Restored
from safe_compose.ui import terminal
from safe_compose.volumes import folder_swap
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.folder_swap import FolderState
from safe_compose.workspace import Workspace


@dataclass(frozen=True, slots=True)
class OldFolder:
    """A folder of the host that a restore replaced and kept."""

    folder: str
    """The path that it had."""
    path: str
    """The path that it has now."""
    project: str
    replaced: str
    """When the restore began, RFC 3339."""

    def shape(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {"folder": self.folder, "path": self.path, "replaced": self.replaced}


def finish(workspace: Workspace, names: Collection[str], answer: GivenAnswer) -> dict[str, Any]:
    """Remove the folders that restores on this engine replaced, and return the result as JSON.

    Args:
        workspace: The workspace.
        names: The folders that were restored; empty for all of them.
        answer: What the flags answer.

    Raises:
        StateChanged: A container uses one of the old folders, or the restored folder is not there
            any more; nothing was removed.
        Refused: It was not confirmed; nothing was removed.
        OperationFailed: One of them could not be removed.
    """
    found = [old for old in _list_old(workspace) if not names or old.folder in names]
    for old in found:
        until = format_stamp(old.replaced)
        terminal.say(f"safe-compose: {old.path}: was {old.folder} until {until}")
    if not found:
        terminal.say("safe-compose: no restore has left an old folder here")
    if answer.dry_run or not found:
        return {"removed": [], "found": [old.shape() for old in found]}
    for old in found:
        if users := workspace.engine.docker.users(old.path):
            raise StateChanged(
                f"container {users[0].name} uses {old.path}; nothing was removed",
                next_step=f"docker inspect {shell_quote(users[0].name)} shows its mounts",
            )
        _require_restored(workspace, old)
    phrase = (
        PurePosixPath(found[0].path).name if len(found) == 1 else f"remove {len(found)} folders"
    )
    terminal.ask_phrase(
        f"To remove {count(len(found), 'old folder')} for good",
        phrase,
        answer.phrase,
        ask=answer.may_ask,
        nothing="nothing was removed",
        why="data would be removed for good",
    )
    command = ("restore", "--finish")
    with locking(workspace, {old.project for old in found}, command, wait=LOCK_SECONDS):
        run = begin(workspace, command, project=found[0].project)
        removed: list[OldFolder] = []
        try:
            for old in found:
                _require_restored(workspace, old)
                path = PurePosixPath(old.path)
                parent = EngineLocation(workspace.engine, str(path.parent))
                run.step("removing-old-folder", folder=old.path)
                with terminal.showing_progress(f"remove {old.path}"):
                    folder_swap.remove(parent, path.name)
                removed.append(old)
                terminal.say(f"safe-compose: {old.path} is removed")
        finally:
            run.step("ended", outcome=f"{count(len(removed), 'old folder')} removed")
    return {"removed": [old.shape() for old in removed], "found": [old.shape() for old in found]}


def _require_restored(workspace: Workspace, old: OldFolder) -> None:
    """Check that the restored content is still in place: the old one may be the only copy.

    Raises:
        StateChanged: It is gone, or an empty folder is in its place, as docker makes one.
    """
    engine = workspace.engine
    now = _inspect(workspace, old.folder)
    lost = "is not there any more" if now in (None, FolderState.MISSING) else ""
    if now is FolderState.FOLDER and engine.archives.list_root(old.folder) == []:
        lost = "is empty"
    if lost and engine.archives.list_root(old.path) != []:
        raise StateChanged(
            f"the restored folder {old.folder} {lost}: {old.path} may be the only copy, and was not"
            " removed",
            next_step=_suggest_moving_back(old, is_empty=lost == "is empty"),
        )


def _suggest_moving_back(old: OldFolder, *, is_empty: bool) -> str:
    """Return the next step where the old folder may be the only copy."""
    words = join_for_shell(["mv", old.path, old.folder])
    if is_empty:  # mv would put it into that folder
        words = f"{join_for_shell(['rmdir', old.folder])} && {words}"
    return f"put it back: {words}; or restore it again: safe-compose restore"


def _list_old(workspace: Workspace) -> list[OldFolder]:
    """Return the old folders that are still there, the oldest first."""
    here = [run for run in workspace.journal.runs() if run.engine_id == workspace.engine.id]
    return [
        old
        for run in sorted(here, key=lambda run: run.seq)
        for old in _list_of_run(run)
        if _is_there(workspace, old.path)
    ]


def _list_of_run(run: RunRecord) -> Iterator[OldFolder]:
    if not run.every(Restored):
        return
    for step in run.every(Placing):
        if step.is_swap and step.existed:
            yield OldFolder(
                str(PurePosixPath(step.volume, step.path)),
                str(PurePosixPath(step.volume, step.old_path)),
                run.project or "volumes",
                run.started,
            )


def _is_there(workspace: Workspace, path: str) -> bool:
    return _inspect(workspace, path) in (FolderState.FOLDER, FolderState.FILE)


def _inspect(workspace: Workspace, path: str) -> FolderState | None:
    try:
        return folder_swap.inspect_folder(EngineLocation(workspace.engine, path))
    except StateChanged:
        return None  # the folder above is gone, and with it this one
