"""The verb that ends what a crash interrupted: recover."""

from safe_compose.cli.options import AsJson, IdentityFile, app, make_down, print_json, unlock
from safe_compose.operations import deletion_lock, trash
from safe_compose.operations.passwords import roll_back
from safe_compose.operations.recover import run as recover_run
from safe_compose.ui import terminal
from safe_compose.workspace import open_workspace


@app.command("recover")
def recover_from_crash(identity: IdentityFile = None, as_json: AsJson = False) -> None:
    """After a crash: restore what was there, start stopped containers, remove half-made backups."""
    workspace = open_workspace(make_down(None, None))
    unlock(workspace.settings, identity)
    lines = recover_run.recover(
        workspace.engine,
        workspace.catalogue,
        workspace.journal,
        own_run=workspace.engine.run_id,
    )
    lines += roll_back.recover(workspace)
    deletion_lock.renew(workspace, workspace.engine.commands.look())
    trash.recreate_locks(workspace)
    if workspace.catalogue.root.exists() and (
        count := workspace.catalogue.trash.finish_forgetting()
    ):
        lines.append(f"freed the space of {count} forgotten backups")
    if as_json:
        print_json({"recovered": lines})
    else:
        for line in lines or ["nothing to recover"]:
            terminal.tell(line)
