"""The verbs about backups: made, listed, read again, forgotten."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_compose import backup, config, prompts, upkeep
from safe_compose.artifacts import Backup, Copy, Listed
from safe_compose.catalogue import Catalogue
from safe_compose.cli.words import (
    AsJson,
    ComposeFile,
    Confirm,
    DryRun,
    IdentityFile,
    ProjectName,
    Silent,
    VolumeName,
    Wait,
    Yes,
    app,
    ask_yes,
    catalogue_here,
    check_wait,
    down_of,
    print_json,
    unlock,
)
from safe_compose.errors import DockerNotFound, EngineUnavailable, Refused, UsageError, VerifyFailed
from safe_compose.journal import Journal
from safe_compose.plan import size_text
from safe_compose.process import utc_now
from safe_compose.retention import Policy, span
from safe_compose.world import enter


@app.command("backup")
def make_backup(
    project: ProjectName = None,
    files: ComposeFile = None,
    volume: VolumeName = None,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Back up the volumes of a project while it runs: databases by dump, the rest as archives. Verified afterwards."""
    check_wait(wait)
    invocation = down_of(project, files)
    world = enter(invocation)
    kept = backup.by_hand(world, invocation, names=volume or (), wait=wait)
    if over := world.over_budget():
        prompts.say(f"safe-compose: {over}")
    if as_json:
        print_json({"backup": _listed(kept)})
        return
    for record in kept.volumes:
        if record.statistics:
            rows = [(d.name, str(len(d.tables)), str(d.rows), size_text(d.bytes)) for d in record.statistics.databases]
            prompts.table(record.name, ["database", "tables", "rows", "size"], rows)
        if record.sqlite:
            rows = [(d.name, str(len(d.tables)), str(d.rows), size_text(d.bytes)) for d in record.sqlite]
            prompts.table(record.name, ["SQLite database", "tables", "rows", "size"], rows)
    sys.stdout.write(f"{kept.path}  {size_text(kept.bytes)}  verified {kept.level}\n")


@app.command("list")
def list_backups(project: ProjectName = None, as_json: AsJson = False) -> None:
    """List backups, newest first."""
    backups = catalogue_here().listed(project)
    if as_json:
        print_json({"backups": [_listed(b) for b in backups]})
        return
    columns = ["id", "project", "created", "reason", "size", "volumes", "verified"]
    rows = [(b.id, b.project, b.created, b.reason, size_text(b.bytes), ", ".join(b.volumes), _verdict(b)) for b in backups]
    prompts.table("backups", columns, rows)


def _verdict(kept: Backup | Listed) -> str:
    return f"BROKEN: {kept.broken}" if kept.broken else (kept.level or "") if kept.verified else "no"


def _listed(kept: Backup | Listed) -> dict[str, Any]:
    line = Listed.of(kept) if isinstance(kept, Backup) else kept
    return {
        "id": line.id,
        "seq": line.seq,
        "created": line.created,
        "project": line.project,
        "endpoint": line.endpoint,
        "reason": line.reason,
        "volumes": list(line.volumes),
        "bytes": line.bytes,
        "path": line.path,
        "verified": {"level": line.level, "at": line.verified_at} if line.verified else False,
        "pinned_until": line.pinned_until,
        "offsite": [
            {"name": c.name, "url": c.url, "state": c.state, "pushed": c.pushed, "verified": c.verified, "fault": c.fault}
            for c in line.offsite
        ],
    }


def _copy(copy: Copy) -> str:
    when = f"failed: {copy.fault}" if copy.fault is not None else f"verified {copy.verified}" if copy.verified else "not verified"
    return f"{copy.name}: {when}"


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="A backup's id, a unique prefix of it, or latest.")],
    project: ProjectName = None,
    as_json: AsJson = False,
) -> None:
    """Show what one backup holds, and the evidence for it."""
    kept = catalogue_here().find(id, project)
    if as_json:
        print_json({"backup": _listed(kept), "details": asdict(kept)})
        return
    facts = {**_listed(kept), "volumes": ", ".join(v.name for v in kept.volumes), "bytes": size_text(kept.bytes)}
    facts["verified"] = _verdict(kept)
    facts["encrypted"] = "age" if any(a.sealed for v in kept.volumes for a in v.artifacts) else "no"
    facts["offsite"] = "\n".join(_copy(c) for c in kept.offsite) or "nowhere"
    prompts.table(kept.id, ["", ""], [(k, str(v)) for k, v in facts.items() if v is not None], show_header=False)
    files = [(v.name, v.method, a.file, a.kind, size_text(a.bytes), a.sha256[:16]) for v in kept.volumes for a in v.artifacts]
    prompts.table("files", ["volume", "method", "file", "kind", "size", "sha256"], files)
    prompts.table("evidence", ["level", "of", "at", "what"], [(e.level, e.subject, e.at, e.what) for e in kept.evidence])
    for note in (*kept.warnings, *(n for v in kept.volumes for n in v.notes)):
        sys.stdout.write(f"note: {note}\n")


@app.command()
def verify(
    id: Annotated[str | None, typer.Argument(help="A backup's id, a unique prefix of it, or latest (the default).")] = None,
    project: ProjectName = None,
    every: Annotated[bool, typer.Option("--all", help="Every backup.")] = False,
    share: Annotated[
        str | None, typer.Option("--sample", help="A share, such as 10% or 1/7: those that were read longest ago.")
    ] = None,
    trial: Annotated[bool, typer.Option("--trial", help="Also restore it into a scratch server (L4).")] = False,
    receipt: Annotated[Path | None, typer.Option("--junit", help="Write what was found to a file, as JUnit XML.")] = None,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Read backups again from the first byte to the last; 65 when one does not prove itself."""
    if sum((id is not None, every, share is not None)) > 1:
        raise UsageError("verify takes one of: an id, --all, --sample", next_step="safe-compose verify --all")
    wanted = upkeep.share_of(share) if share is not None else None
    unlock(config.load(Path.cwd(), dict(os.environ)), identity)
    catalogue = catalogue_here()
    if every or wanted is not None:
        there = catalogue.listed(project)
        chosen = upkeep.sample(there, wanted) if wanted is not None else there
    else:
        chosen = [Listed.of(catalogue.find(id or "latest", project))]
    with _receipt(receipt) as write:
        engine = enter(down_of(None, None)).engine if trial else None
        readings = []
        for reading in upkeep.read_again(catalogue, chosen, engine, time.monotonic):
            readings.append(reading)
            if not as_json:
                verdict = f"BROKEN: {reading.fault}" if reading.fault else f"verified {reading.listed.level or ''}"
                sys.stdout.write(f"{reading.listed.id}  {verdict}\n")
        write(upkeep.junit(readings))
    if as_json:
        results = [
            {
                "id": r.listed.id,
                "project": r.listed.project,
                "volumes": list(r.listed.volumes),
                "bytes": r.listed.bytes,
                "seconds": round(r.seconds, 3),
                "verified": _listed(r.listed)["verified"],
                "fault": r.fault,
                "recorded": r.unrecorded is None,
            }
            for r in readings
        ]
        print_json({"results": results})
    broken = [r.listed.id for r in readings if r.fault]
    if broken:
        raise VerifyFailed(f"{len(broken)} of {len(readings)} backups do not verify: {', '.join(broken)}")


@contextmanager
def _receipt(path: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Where the receipt goes: opened before hours of reading, and not after. UsageError when it cannot be written."""
    if path is None:
        yield lambda _: None
        return
    try:
        with path.open("wb") as file:
            yield file.write
    except OSError as error:
        raise UsageError(f"--junit {path} cannot be written: {error.strerror or error}") from error


@app.command()
def forget(
    ids: Annotated[list[str] | None, typer.Argument(help="Backups' ids, or unique prefixes of them.")] = None,
    project: ProjectName = None,
    last: Annotated[int | None, typer.Option("--keep-last", min=1, help="Of each volume the newest so many.")] = None,
    daily: Annotated[int | None, typer.Option("--keep-daily", min=1, help="The newest of so many days.")] = None,
    weekly: Annotated[int | None, typer.Option("--keep-weekly", min=1, help="The newest of so many weeks.")] = None,
    monthly: Annotated[int | None, typer.Option("--keep-monthly", min=1, help="The newest of so many months.")] = None,
    within: Annotated[
        str | None, typer.Option("--keep-within", help="Those at most so much older than the newest: 48h, 14d, 8w.")
    ] = None,
    confirm: Confirm = None,
    silent: Silent = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Forget backups: those that no rule keeps, or the named ones. Shows the plan with a reason for each first."""
    check_wait(wait)
    settings = config.load(Path.cwd(), dict(os.environ))
    catalogue, now = Catalogue(settings.store, settings.access), utc_now()
    flags = any(rule is not None for rule in (last, daily, weekly, monthly, within))
    if ids and flags:
        raise UsageError("forget takes ids or rules, not both; nothing was forgotten")
    if ids:
        going = upkeep.by_id(catalogue, ids, now, project)
    else:
        age = span(within) if within is not None else None
        if within is not None and age is None:
            raise UsageError(f"--keep-within takes 48h, 14d or 8w, not {within!r}; nothing was forgotten")
        rules = Policy(last or 0, daily or 0, weekly or 0, monthly or 0, age) if flags else settings.retention
        if not flags and settings.own_retention and project is None:
            project = _project_of_folder()
        going = upkeep.by_policy(catalogue, rules, now, project)
    if not as_json:
        _tell_forgetting(going)
    if not dry_run:
        going.refuse_wrong_clock()
    answered = yes or (confirm is not None and going.phrase is not None)
    act = bool(going.doomed) and not dry_run and (answered or not as_json)
    if act:
        sys.stdout.flush()
        _agree_to_forget(going, yes=yes, confirm=confirm, ask=not silent)
        upkeep.forget(catalogue, Journal(settings.store, settings.access), going, ("forget", *(ids or ())), wait=wait)
    elif not dry_run and catalogue.root.exists():
        catalogue.finish_forgetting()  # of a run that was killed
    if as_json:
        print_json({"forget": going.shape(done=act or not going.doomed)})
    elif act:
        sys.stdout.write(f"forgot {len(going.doomed)} backups, {size_text(going.bytes)}\n")


def _project_of_folder() -> str:
    """Whose rules the file in this folder holds. Raises UsageError where that cannot be told."""
    invocation = down_of(None, None)
    try:
        world = enter(invocation)
        with closing(world.engine):
            found = world.engine.look(invocation).project
    except (EngineUnavailable, DockerNotFound):
        found = None
    if found is None:
        raise UsageError(
            "the [retention] here is of one project, and which that is cannot be told; nothing was forgotten",
            next_step="safe-compose forget --dry-run --project NAME",
        )
    return found.name


def _tell_forgetting(going: upkeep.Forgetting) -> None:
    rows = [
        (j.backup.id, j.backup.project, size_text(j.backup.bytes), "stays" if j.stays else "GOES", "; ".join((*j.why, *j.held)))
        for j in going.judged
    ]
    prompts.table(f"keep {going.policy}" if going.policy else "forget", ["id", "project", "size", "", "why"], rows)
    doomed = len(going.doomed)
    rules = f"keep {going.policy}: " if going.policy is not None else ""
    sys.stdout.write(f"{rules}{doomed} of {len(rows)} backups go ({size_text(going.bytes)})\n")


def _agree_to_forget(going: upkeep.Forgetting, *, yes: bool, confirm: str | None, ask: bool) -> None:
    """A yes for what the rules let go; the phrase for what something holds. Raises Refused."""
    phrase = going.phrase
    if phrase is None:
        if not ask and not yes:
            raise Refused("nobody may be asked (--non-interactive); nothing was forgotten", next_step="add --yes")
        ask_yes(f"Forget these {len(going.doomed)} backups for good?", yes=yes)
        return
    if confirm is not None:
        if confirm != phrase:
            raise Refused("--confirm does not match; nothing was forgotten", next_step=f"--confirm '{phrase}'")
        return
    held = "; ".join(dict.fromkeys(f"{j.backup.id}: {why}" for j in going.doomed for why in j.held))
    terminal = prompts.Terminal.open() if ask else None
    if terminal is None:
        raise Refused(f"{held}; nobody can be asked; nothing was forgotten", next_step=f"add --confirm '{phrase}'")
    if terminal.ask(f"{held}\nTo forget for good, type '{phrase}': ") != phrase:
        raise Refused(f"the phrase was not '{phrase}'; nothing was forgotten")
