"""The verb about copies of backups elsewhere."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from safe_compose import config, copies, prompts
from safe_compose.artifacts import Backup, Copy, Listed
from safe_compose.catalogue import Catalogue
from safe_compose.cli.words import AsJson, DryRun, IdentityFile, ProjectName, app, print_json, tell_offsite, unlock
from safe_compose.destination import Destination
from safe_compose.errors import UsageError, VerifyFailed
from safe_compose.plan import size_text


@app.command()
def offsite(
    action: Annotated[str, typer.Argument(help="push, pull, list, verify or status.")],
    id: Annotated[str | None, typer.Argument(help="A backup's id, a unique prefix of it, or latest.")] = None,
    place: Annotated[
        str | None, typer.Option("--to", "--from", help="The destination: a name of the settings, or a URL. Without it: all.")
    ] = None,
    project: ProjectName = None,
    every: Annotated[bool, typer.Option("--all", help="Every backup.")] = False,
    dry_run: DryRun = False,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Keep copies of backups elsewhere: push and pull them, list, verify and show what is known of them."""
    if action not in ("push", "pull", "list", "verify", "status"):
        raise UsageError(
            f"offsite takes push, pull, list, verify or status, not {action!r}", next_step="safe-compose offsite --help"
        )
    if every and (id is not None or action == "pull"):
        raise UsageError("--all goes with push, verify and status, and without an id")
    settings = config.load(Path.cwd(), dict(os.environ))
    unlock(settings, identity)
    catalogue = Catalogue(settings.store, settings.access)
    where = copies.chosen(settings, place) if action != "status" else ()
    if action == "status":
        _tell_copies(
            catalogue.listed(project) if id is None else [Listed.of(catalogue.find(id, project))], settings, as_json=as_json
        )
        return
    if action == "list":
        found = [(to, copies.listed(to, project)) for to in where]
        _tell_listed(found, as_json=as_json)
        return
    if action == "pull":
        if id is None:
            raise UsageError("offsite pull needs a backup's id, or latest", next_step="safe-compose offsite list")
        outcomes = [copies.pull(catalogue, where, id, project, dry_run=dry_run)[1]]
    elif action == "push":
        kept = [b for b in catalogue.backups(project) if b.broken is None] if every else [catalogue.find(id or "latest", project)]
        outcomes = [outcome for to in where for outcome in copies.push(catalogue, kept, to, dry_run=dry_run)]
    else:
        outcomes = [outcome for to in where for outcome in copies.verify(catalogue, to, None if every else id or "latest", project)]
    tell_offsite(action, outcomes, as_json=as_json)
    if faults := [o.fault for o in outcomes if o.fault is not None]:
        worst = next((f for f in faults if isinstance(f, VerifyFailed)), faults[0])
        many = f"{len(faults)} of {len(outcomes)} failed; the first: " if len(faults) > 1 else ""
        raise type(worst)(f"{many}{worst.message}", next_step=worst.next_step)


def _tell_listed(found: Sequence[tuple[Destination, Sequence[Backup]]], *, as_json: bool) -> None:
    if as_json:
        shapes = [
            {
                "id": b.id, "seq": b.seq, "created": b.created, "project": b.project, "reason": b.reason, "bytes": b.bytes,
                "volumes": [v.name for v in b.volumes], "destination": to.name, "url": to.url, "fault": b.broken,
            }
            for to, backups in found
            for b in backups
        ]  # fmt: skip
        print_json({"action": "list", "offsite": shapes})
        return
    rows = [
        (b.id, to.name, b.project, b.created, b.reason, size_text(b.bytes), ", ".join(v.name for v in b.volumes), b.broken or "")
        for to, backups in found
        for b in backups
    ]
    prompts.table("off-site", ["id", "at", "project", "created", "reason", "size", "volumes", ""], rows)


def _tell_copies(kept: Sequence[Listed], settings: config.Settings, *, as_json: bool) -> None:
    """What is known without asking anybody: for each backup every destination of the settings, and every other copy."""
    rows = []
    for b in kept:
        known = {c.name: c for c in b.offsite}
        names = dict.fromkeys([*(d.name for d in settings.offsite), *known])
        urls = {d.name: d.url for d in settings.offsite}
        rows += [(b, known.get(name) or Copy(name, urls[name])) for name in names]
    if as_json:
        shapes = [{"id": b.id, "project": b.project, "destination": c.name, "url": c.url, "state": _copied(c), "pushed": c.pushed,
                   "verified": c.verified, "fault": c.fault} for b, c in rows]  # fmt: skip
        print_json({"action": "status", "offsite": shapes})
        return
    cells = [(b.id, b.project, c.name, _copied(c), c.verified or "-", c.fault or "") for b, c in rows]
    prompts.table("off-site copies", ["id", "project", "at", "state", "last read back", ""], cells)


def _copied(copy: Copy) -> str:
    return "never sent" if copy.pushed is None and copy.verified is None and copy.fault is None else copy.state
