"""The verbs about what was done and what was refused: journal, approve, hook, recover."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_compose import (
    config,
    consent,
    grammar,
    hook,
    lock,
    prompts,
    recover,
    rotate,
    volume_trash,
)
from safe_compose.cli.words import AsJson, app, catalogue_here, down_of, print_json
from safe_compose.errors import UsageError
from safe_compose.journal import Journal, RunRecord
from safe_compose.world import enter


@app.command("journal")
def show_journal(as_json: AsJson = False) -> None:
    """Show the guarded commands, newest first, and how each ended."""
    runs = Journal(catalogue_here().root).runs()
    if as_json:
        print_json({"runs": [_run_shape(r) for r in runs]})
        return
    rows = [(r.id, " ".join([r.program, *r.command]), r.project or "-", r.backup or "-", r.outcome) for r in runs]
    prompts.table("journal", ["run", "command", "project", "backup", "outcome"], rows)


def _run_shape(run: RunRecord) -> dict[str, Any]:
    return {
        "id": run.id,
        "started": run.started,
        "command": [run.program, *run.command],
        "project": run.project,
        "endpoint": run.endpoint,
        "backup": run.backup,
        "outcome": run.outcome,
        "damaged": run.damaged,
        "steps": list(run.steps),
    }


@app.command()
def approve(
    code: Annotated[str | None, typer.Argument(help="The code that a refused command printed.")] = None,
    pending: Annotated[bool, typer.Option("--list", help="List what waits for a person.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let one refused command through, once, after its backup: a person types its phrase in a terminal."""
    settings = config.load(Path.cwd(), dict(os.environ))
    root = settings.store
    if pending == (code is not None) or (as_json and code is not None):
        raise UsageError("approve takes a code, or --list (which --json goes with)", next_step="safe-compose approve --list")
    if code is not None:
        consent.approve(root, Journal(root, settings.access), code)
    elif as_json:
        print_json({"requests": consent.listed(root)})
    else:
        rows = [(r["code"], r["state"], " ".join([r["program"], *r["argv"]]), r["folder"], r["at"]) for r in consent.listed(root)]
        prompts.table("requests", ["code", "state", "command", "folder", "asked"], rows)


@app.command("hook")
def answer_hook(
    strict: Annotated[bool, typer.Option("--strict", help="Deny where a person would be asked.")] = False,
) -> None:
    """Tell a coding agent, before it runs a shell line, whether that line deletes volumes: request and answer are JSON."""
    hook.main(["--strict"] if strict else [])


@app.command("recover")
def after_a_crash(as_json: AsJson = False) -> None:
    """After a crash: start again what was stopped, sweep what was half done, and say what was and was not done."""
    world = enter(down_of(None, None))
    told = recover.recover(world.engine, world.catalogue, world.journal, but=world.engine.run_id)
    told += rotate.recover(world)
    lock.renew(world, world.engine.look(grammar.parse(["volume", "ls"])))
    volume_trash.hold(world)
    if world.catalogue.root.exists() and (count := world.catalogue.finish_forgetting()):
        told.append(f"freed the room of {count} forgotten backups")
    if as_json:
        print_json({"recovered": told})
    else:
        sys.stdout.write("\n".join(told) + "\n" if told else "nothing to recover\n")
