"""Our own verbs: `safe-compose backup`, `list`, `undo`, ... What they print for people and as `--json` stands on stdout."""

import io
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_compose import (
    __version__,
    audit,
    backup,
    config,
    consent,
    copies,
    doctor,
    grammar,
    guard,
    harmless,
    hook,
    lock,
    policy,
    prompts,
    restore,
    rotate,
    schedule,
    shim,
    swap,
    timer,
    upkeep,
    volume_trash,
)
from safe_compose.artifacts import Backup, Copy, Listed
from safe_compose.audit import report
from safe_compose.catalogue import Catalogue
from safe_compose.destination import Destination
from safe_compose.errors import DockerNotFound, EngineUnavailable, Refused, SafeComposeError, UsageError, VerifyFailed
from safe_compose.journal import Journal, RunRecord
from safe_compose.methods import seal
from safe_compose.methods.postgres import bare
from safe_compose.plan import size_text
from safe_compose.policy import Tier
from safe_compose.process import utc_now
from safe_compose.retention import Policy, span
from safe_compose.timetable import Timetable
from safe_compose.ways import install as ways_in
from safe_compose.ways import texts
from safe_compose.world import World, enter, project_folder

app = typer.Typer(
    name="safe-compose", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)

LONGEST_LIFT = 7 * 24 * 3600
"""Seconds for which a protection may be lifted."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (a documented, versioned shape).")]
ProjectName = Annotated[str | None, typer.Option("--project", "-p", help="The compose project, instead of this folder's.")]
ComposeFile = Annotated[list[str] | None, typer.Option("--file", "-f", help="A compose file, as docker compose takes it.")]
VolumeName = Annotated[list[str] | None, typer.Option("--volume", help="Only this volume; may be repeated.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask y/N. It never overwrites data: that needs --confirm.")]
Confirm = Annotated[
    str | None, typer.Option("--confirm", envvar="SAFE_COMPOSE_CONFIRM", help="The phrase that would have been typed.")
]
Silent = Annotated[
    bool, typer.Option("--non-interactive", envvar="SAFE_COMPOSE_NON_INTERACTIVE", help="Never ask: refuse instead.")
]
Wait = Annotated[float, typer.Option(help="Seconds to wait for another safe-compose of this project.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]


IdentityFile = Annotated[
    Path | None,
    typer.Option("--identity", envvar="SAFE_COMPOSE_IDENTITY", help="What opens an encrypted backup: the file of a key."),
]


def run(argv: Sequence[str]) -> int:
    """Run one of our own verbs. Returns its exit code; raises SafeComposeError (64 when it was called wrongly)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold bytes that are no text
    words = _verb_first(argv)
    command = typer.main.get_command(app)
    try:
        with _signals_unwind():
            result = command.main(words, prog_name="safe-compose", standalone_mode=False)
            sys.stdout.flush()  # here, where a reader that has gone is no fault
    except SafeComposeError:
        raise
    except typer.Exit as stop:
        return int(stop.exit_code)
    except typer.Abort as stop:
        raise KeyboardInterrupt from stop
    except Exception as wrong:
        # typer vendors click since 0.29, whose usage errors carry exit_code 2 and a formatted message
        if getattr(wrong, "exit_code", None) != 2:
            raise
        message = wrong.format_message() if hasattr(wrong, "format_message") else str(wrong)
        raise UsageError(f"{words[0]}: {message}", next_step=f"safe-compose {words[0]} --help") from wrong
    return result if isinstance(result, int) else 0


def _verb_first(argv: Sequence[str]) -> list[str]:
    """Flags of ours may stand before the verb, as they may before a docker command: `safe-compose --json list`."""
    at = 0
    while at < len(argv) and argv[at].partition("=")[0] in harmless.OWN_FLAGS:
        at += 2 if argv[at] == "--confirm" else 1
    return [*argv[at : at + 1], *argv[:at], *argv[at + 1 :]]


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP unwinds, so that what was stopped is started again; later ones change nothing.

    After a SIGTERM or SIGHUP we then die by it.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def unwind(number: int, frame: object) -> None:
        for other in numbers:
            signal.signal(other, lambda *_: None)
        raise KeyboardInterrupt if number == signal.SIGINT else guard.Terminated(number)

    before = {number: signal.signal(number, unwind) for number in numbers}
    try:
        yield
    except guard.Terminated as terminated:
        prompts.say(f"safe-compose: ended by {signal.Signals(terminated.number).name}")
        guard.die_by(terminated.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _invocation(project: str | None, files: Sequence[str] | None) -> grammar.Invocation:
    """The `down -v` of that project: what it would delete is what a backup of the project must hold."""
    words = ["compose"]
    words += ["--project-name", project] if project else []
    words += [word for name in files or () for word in ("--file", str(Path(name).absolute()))]
    return grammar.parse([*words, "down", "--volumes"])


def _catalogue() -> Catalogue:
    return Catalogue(config.load(Path.cwd(), dict(os.environ)).store)


def _unlock(settings: config.Settings, identity: Path | None) -> None:
    """Read the keys that open encrypted backups. Raises UsageError for a file that was named for this command."""
    if identity is not None:
        seal.open_with(identity)
    elif settings.identity is not None:
        if settings.identity.exists():
            seal.open_with(settings.identity)
        else:
            prompts.say(f"safe-compose: encrypt.identity: there is no {settings.identity}: encrypted backups stay closed")


def _print_json(shape: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"version": 1, **shape}) + "\n")


# -- what there is -----------------------------------------------------------------------------------------------------


@app.command()
def commands(as_json: AsJson = False) -> None:
    """List our own verbs."""
    rows = verbs()
    if as_json:
        _print_json({"commands": [{"verb": name, "does": does} for name, does in rows.items()]})
    else:
        prompts.table("safe-compose", ["verb", "what it does"], list(rows.items()))


def verbs() -> dict[str, str]:
    """Every verb of ours, and what it does in a line."""
    found = [(c.name, c.callback) for c in app.registered_commands if c.callback is not None]
    return {name or call.__name__: (call.__doc__ or "").strip().splitlines()[0] for name, call in found}


@app.command()
def about(as_json: AsJson = False) -> None:
    """Show version, store and the docker that stands behind us."""
    settings = config.load(Path.cwd(), dict(os.environ))
    facts = {"safe-compose": __version__, "docker": shim.real_docker(), "store": str(settings.store)}
    if as_json:
        _print_json(facts)
    else:
        prompts.table("safe-compose", ["", ""], list(facts.items()), show_header=False)


@app.command()
def volumes(as_json: AsJson = False) -> None:
    """Show every volume of the engine with its tier, the reason for it, and its last verified backup."""
    invocation = _invocation(None, None)
    world = enter(invocation)
    observed = world.engine.look(invocation)  # with the project of this folder, whose compose file may say tiers
    rules = world.rules(observed)
    kept = world.newest_verified()
    shown = [(v, policy.judge(v, observed, rules, None)) for v in observed.volumes]
    locks = lock.states(world, observed)
    if as_json:
        _print_json(
            {
                "volumes": [
                    {
                        "name": v.name,
                        "project": v.project,
                        "tier": verdict.tier.value,
                        "why": verdict.why,
                        "kind": verdict.kind,
                        "in_use_by": [c.name for c in observed.users(v.name)],
                        "lock": locks[v.name],
                        "last_backup": kept.get(v.name),
                    }
                    for v, verdict in shown
                ]
            }
        )
        return
    rows = [
        (
            v.name,
            v.project or "-",
            verdict.tier.value,
            verdict.why,
            ", ".join(c.name for c in observed.users(v.name)) or "-",
            lock.WORDS[locks[v.name]],
            kept.get(v.name, "none"),
        )
        for v, verdict in shown
    ]
    prompts.table("volumes", ["volume", "project", "tier", "why", "used by", "lock", "last verified backup"], rows)


@app.command()
def protect(
    names: Annotated[list[str], typer.Argument(help="Volume names.")],
    tier: Annotated[str, typer.Option(help="critical or important.")] = "critical",
    locked: Annotated[bool, typer.Option("--lock", help="Have docker itself refuse to delete them, to every client.")] = False,
) -> None:
    """Make a tier the floor for volumes; it outlives any edited file. With --lock docker itself refuses to delete them."""
    if tier not in (Tier.CRITICAL.value, Tier.IMPORTANT.value):
        raise UsageError(f"--tier takes critical or important, not {tier!r}; nothing was changed")
    if locked:
        world = enter(_invocation(None, None))
        with closing(world.engine):
            lock.put(world, names, Tier(tier))
        return
    catalogue = _catalogue()
    catalogue.ensure()
    for name in names:
        catalogue.protect(name, Tier(tier))
        prompts.say(f"safe-compose: {name} is at least {tier} from now on")


@app.command()
def unprotect(
    names: Annotated[list[str], typer.Argument(help="Volume names.")],
    minutes: Annotated[str | None, typer.Option("--for", help="Only for a while: 10m, 2h.")] = None,
    confirm: Confirm = None,
    silent: Silent = False,
    yes: Yes = False,
) -> None:
    """Take protections and locks away, for good or for a while."""
    until = datetime.now(UTC) + _duration(minutes) if minutes else None
    how_long = f"until {until:%H:%M:%S} UTC" if until else "for good"
    catalogue = _catalogue()
    catalogue.ensure()
    world = _reached()
    locked = lock.held(world, names) if world is not None else []
    catalogue.require_protected([name for name in names if name not in locked])
    if locked:
        phrase = locked[0] if len(locked) == 1 else f"unlock {len(locked)} volumes"
        _phrase(f"To let docker delete {', '.join(locked)} again", phrase, confirm, ask=not silent, nothing="nothing was changed")
    else:
        _agree(f"Take the protection of {', '.join(names)} away {how_long}?", yes=yes)
    for name in names:
        if catalogue.is_protected(name):
            catalogue.unprotect(name, until=until)
        if world is not None and name in locked:
            world.engine.unlock_volume(name)
        prompts.say(f"safe-compose: {name} is no longer {'locked and ' if name in locked else ''}protected {how_long}")
    if locked and until:
        prompts.say("safe-compose: the first safe-compose command after that locks it again; at once: safe-compose protect --lock")


def _reached() -> World | None:
    """The world of this folder; None, which is said, when no daemon answers: a lock there stays then."""
    try:
        return enter(_invocation(None, None))
    except (EngineUnavailable, DockerNotFound) as fault:
        prompts.say(f"safe-compose: {fault.message}; should there be a lock, it stays")
        return None


def _phrase(question: str, phrase: str, confirm: str | None, *, ask: bool, nothing: str) -> None:
    """Have a phrase typed, or given. Raises Refused."""
    if confirm is not None:
        if confirm != phrase:
            raise Refused(f"--confirm does not match; {nothing}", next_step=f"--confirm '{phrase}'")
        return
    terminal = prompts.Terminal.open() if ask else None
    if terminal is None:
        raise Refused(f"nobody can be asked; {nothing}", next_step=f"add --confirm '{phrase}'")
    if terminal.ask(f"{question}, type '{phrase}': ") != phrase:
        raise Refused(f"the phrase was not '{phrase}'; {nothing}")


def _duration(text: str) -> timedelta:
    units = {"s": 1, "m": 60, "h": 3600}
    if len(text) < 2 or text[-1] not in units or not text[:-1].isdecimal() or not text.isascii():
        raise UsageError(f"--for takes a number and s, m or h, such as 10m; not {text!r}")
    seconds = int(text[:-1][:12]) * units[text[-1]]
    if not 0 < seconds <= LONGEST_LIFT:
        raise UsageError(f"--for takes at most {LONGEST_LIFT // 3600}h, not {text!r}; without it the protection ends for good")
    return timedelta(seconds=seconds)


def _agree(question: str, *, yes: bool) -> None:
    if yes:
        return
    terminal = prompts.Terminal.open()
    if terminal is None:
        raise Refused("there is no terminal to ask on; nothing was changed", next_step="add --yes")
    if terminal.ask(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed; nothing was changed")


@app.command()
def shell(
    name: Annotated[str | None, typer.Argument(help="Print the functions of bash, zsh or fish, to be evaluated.")] = None,
    install: Annotated[list[str] | None, typer.Option("--install", help="shims, plugin or rc; may be repeated.")] = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="Where shims go; it will stand first on PATH.")] = None,
    uninstall: Annotated[bool, typer.Option("--uninstall", help="Take away all that was installed.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Put safe-compose before docker: shell functions, programs on PATH, the compose plugin; or take it away."""
    if sum((name is not None, bool(install), uninstall)) != 1:
        raise UsageError("shell takes one of: bash, zsh, fish; --install shims|plugin|rc; --uninstall")
    places = ways_in.Places.here()
    if uninstall:
        _take_ways_away(places, yes=yes, as_json=as_json)
    elif install:
        _put_ways_in(ways_in.plan(install, folder, places), places, yes=yes, as_json=as_json)
    elif name in ("bash", "zsh", "fish"):
        texts.print_function(name)
    else:
        raise UsageError(f"there is no function for {name!r}, only for bash, zsh and fish")


def _put_ways_in(changes: Sequence[ways_in.Change], places: ways_in.Places, *, yes: bool, as_json: bool) -> None:
    """Show every change, then make it. With --json and without --yes it is shown only."""
    if not as_json:
        shown: dict[str, str] = {}
        for change in changes:
            sys.stdout.write(f"{_HOW[change.how]} {change.path}")
            if (same := shown.setdefault(change.text, change.path)) != change.path:
                sys.stdout.write(f": as in {same}\n")
            else:
                sys.stdout.write("\n" + "".join(f"    {line}\n" for line in change.text.strip("\n").split("\n")))
    if changes and (yes or not as_json):
        sys.stdout.flush()
        _agree(f"Make these {len(changes)} changes?", yes=yes)
        ways_in.apply(changes, places)
    if as_json:
        _print_json({"changes": [asdict(c) for c in changes], "done": yes or not changes})
    elif changes:
        prompts.say("safe-compose: done. In a new login shell, `safe-compose doctor` tries it")
    else:
        prompts.say("safe-compose: everything is in place, nothing was written")


_HOW = {"file": "write", "head": "begin with", "tail": "end with", "link": "link", "aside": "rename"}


def _take_ways_away(places: ways_in.Places, *, yes: bool, as_json: bool) -> None:
    """Undo what was installed; 77 when something was edited since and has to stay."""
    known = ways_in.recorded(places)
    if not as_json:
        sys.stdout.write("".join(f"take back {path}\n" for path in dict.fromkeys(change.path for change in known)))
    done: list[str] = []
    left: list[str] = []
    if known and (yes or not as_json):
        sys.stdout.flush()
        _agree(f"Take these {len(known)} changes back?", yes=yes)
        done, left = ways_in.uninstall(places)
    if as_json:
        _print_json({"changes": [asdict(c) for c in known], "done": yes or not known, "removed": done, "left": left})
    else:
        prompts.say("".join(f"safe-compose: {line}\n" for line in done) + f"safe-compose: {len(done)} changes taken back")
    if left:
        raise Refused("; ".join(left), next_step="remove them by hand where you want to, then run this again")


@app.command("doctor")
def examine(
    as_json: AsJson = False,
    ways_only: Annotated[bool, typer.Option("--ways", help="Try the ways to docker only: no daemon, no store.")] = False,
) -> None:
    """Try every way to docker and see which pass by here; look at engine and store. 1 when something needs a person."""
    prompts.say("safe-compose: calling docker in every way that this machine has, with a command that it does not know")
    found = doctor.examine(look=not ways_only)
    if as_json:
        _print_json(found)
    else:
        prompts.table("ways to docker", ["way", "", "what catches it"], doctor.as_rows(found))
        for name in ("docker", "store"):
            if name in found:
                prompts.table(name, ["", ""], [(k, str(v)) for k, v in found[name].items()], show_header=False)
        _tell_project(found.get("project"))
        if found.get("backups"):
            rows = [(b["volume"], b["id"], b["created"], b["level"]) for b in found["backups"]]
            prompts.table("newest verified backups", ["volume", "backup", "created", "level"], rows)
        sys.stdout.write("".join(f"needs a person: {line}\n" for line in found["attention"]) or "nothing needs a person\n")
    if found["attention"]:
        raise typer.Exit(1)


def _tell_project(project: dict[str, Any] | None) -> None:
    """What doctor found in this folder's project."""
    if project is None:
        return
    rows = [
        (
            v["name"],
            v["tier"],
            f"{v['backup']['created']} ({v['backup']['level']})" if v["backup"] else "none",
            v["drill"]["created"] if v["drill"] else "never",
            v["lock"] or "-",
        )
        for v in project["volumes"]
    ]
    prompts.table(f"project {project['name']}", ["volume", "tier", "newest verified backup", "restored for trial", "lock"], rows)
    if project["passwords"]:
        words = {True: "the one of the files", False: "ANOTHER ONE", None: "not told"}
        passwords = [(p["service"], p["role"] or "-", words[p["agrees"]], p["why"] or "") for p in project["passwords"]]
        prompts.table("passwords of its databases", ["service", "role", "the database has", ""], passwords)
    if project["predecessors"]:
        alike = [(p["volume"], size_text(p["bytes"]), p["of"], p["why"]) for p in project["predecessors"]]
        prompts.table("volumes that look like its own", ["volume", "size", "may be an earlier", "why"], alike)


# -- backups -----------------------------------------------------------------------------------------------------------


@app.command("backup")
def make_backup(
    project: ProjectName = None,
    files: ComposeFile = None,
    volume: VolumeName = None,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Back up the volumes of a project while it runs: databases by dump, the rest as archives. Verified afterwards."""
    _check_wait(wait)
    invocation = _invocation(project, files)
    world = enter(invocation)
    kept = backup.by_hand(world, invocation, names=volume or (), wait=wait)
    if over := world.over_budget():
        prompts.say(f"safe-compose: {over}")
    if as_json:
        _print_json({"backup": _listed(kept)})
        return
    for record in kept.volumes:
        if record.statistics:
            rows = [(d.name, str(len(d.tables)), str(d.rows), size_text(d.bytes)) for d in record.statistics.databases]
            prompts.table(record.name, ["database", "tables", "rows", "size"], rows)
        if record.sqlite:
            rows = [(d.name, str(len(d.tables)), str(d.rows), size_text(d.bytes)) for d in record.sqlite]
            prompts.table(record.name, ["SQLite database", "tables", "rows", "size"], rows)
    sys.stdout.write(f"{kept.path}  {size_text(kept.bytes)}  verified {kept.level}\n")


def _check_wait(seconds: float) -> None:
    if not math.isfinite(seconds) or seconds < 0:
        raise UsageError(f"--wait takes seconds from 0 on, not {seconds}")


@app.command("list")
def list_backups(project: ProjectName = None, as_json: AsJson = False) -> None:
    """List backups, newest first."""
    backups = _catalogue().listed(project)
    if as_json:
        _print_json({"backups": [_listed(b) for b in backups]})
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
    kept = _catalogue().find(id, project)
    if as_json:
        _print_json({"backup": _listed(kept), "details": asdict(kept)})
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
    _unlock(config.load(Path.cwd(), dict(os.environ)), identity)
    catalogue = _catalogue()
    if every or wanted is not None:
        there = catalogue.listed(project)
        chosen = upkeep.sample(there, wanted) if wanted is not None else there
    else:
        chosen = [Listed.of(catalogue.find(id or "latest", project))]
    with _receipt(receipt) as write:
        engine = enter(_invocation(None, None)).engine if trial else None
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
            }
            for r in readings
        ]
        _print_json({"results": results})
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
    _check_wait(wait)
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
        catalogue.empty_trash()  # of a run that was killed
    if as_json:
        _print_json({"forget": going.shape(done=act or not going.doomed)})
    elif act:
        sys.stdout.write(f"forgot {len(going.doomed)} backups, {size_text(going.bytes)}\n")


def _project_of_folder() -> str:
    """Whose rules the file in this folder holds. Raises UsageError where that cannot be told."""
    invocation = _invocation(None, None)
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
        _agree(f"Forget these {len(going.doomed)} backups for good?", yes=yes)
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
    _unlock(settings, identity)
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
    _tell_offsite(action, outcomes, as_json=as_json)
    if faults := [o.fault for o in outcomes if o.fault is not None]:
        worst = next((f for f in faults if isinstance(f, VerifyFailed)), faults[0])
        many = f"{len(faults)} of {len(outcomes)} failed; the first: " if len(faults) > 1 else ""
        raise type(worst)(f"{many}{worst.message}", next_step=worst.next_step)


def _tell_offsite(action: str, outcomes: Sequence[copies.Outcome], *, as_json: bool) -> None:
    if as_json:
        _print_json({"action": action, "offsite": [o.shape() for o in outcomes]})
        return
    for o in outcomes:
        said = f"FAILED: {o.fault.message}" if o.fault is not None else o.words or o.state
        sys.stdout.write(f"{o.id}  {o.destination.name}  {size_text(o.bytes)}  {said}\n")


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
        _print_json({"action": "list", "offsite": shapes})
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
        _print_json({"action": "status", "offsite": shapes})
        return
    cells = [(b.id, b.project, c.name, _copied(c), c.verified or "-", c.fault or "") for b, c in rows]
    prompts.table("off-site copies", ["id", "project", "at", "state", "last read back", ""], cells)


def _copied(copy: Copy) -> str:
    return "never sent" if copy.pushed is None and copy.verified is None and copy.fault is None else copy.state


# -- schedules ---------------------------------------------------------------------------------------------------------


@app.command("schedule")
def keep_schedule(
    action: Annotated[str, typer.Argument(help="install, cron, status, run or remove.")] = "status",
    at: Annotated[list[str] | None, typer.Option("--at", help="A time of day, 03:00 unless said; may be repeated.")] = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="Where the units go, instead of systemd's own folder.")] = None,
    project: ProjectName = None,
    files: ComposeFile = None,
    identity: IdentityFile = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Back a project up every day by a systemd timer or cron, and show how that goes. 1 when a person is needed."""
    if action not in ("install", "cron", "status", "run", "remove"):
        raise UsageError(f"schedule takes install, cron, status, run or remove, not {action!r}; nothing was changed")
    times = timer.times(at or ["03:00"])
    if action == "status":
        _tell_schedules(project, as_json=as_json)
    elif action == "run":
        _run_scheduled(project, files, timer.times(at or ()), identity, as_json=as_json)
    elif action == "remove":
        _remove_schedule(project, folder or timer.folder(os.environ), yes=yes)
    else:
        invocation = _invocation(project, files)
        world = enter(invocation)
        with closing(world.engine):
            job = schedule.job(world, invocation, times)
            if action == "cron":
                sys.stdout.write("".join(f"{line}\n" for line in timer.cron_lines(job)))
                prompts.say("safe-compose: add that with `crontab -e`; `safe-compose schedule status` shows it after its first run")
            else:
                _install_schedule(world, job, folder or timer.folder(os.environ), yes=yes, dry_run=dry_run)


def _install_schedule(world: World, job: timer.Job, into: Path, *, yes: bool, dry_run: bool) -> None:
    """Show the units, then write them and start the timer."""
    units = timer.units(job)
    schedule.refuse_other(world, job)
    for name, text in units.items():
        sys.stdout.write(f"write {into / name}\n" + "".join(f"    {line}\n" for line in text.rstrip("\n").split("\n")))
    sys.stdout.flush()
    if dry_run:
        return
    timer.check_listens()
    _agree(f"Write these {len(units)} files and start the timer?", yes=yes)
    schedule.put_in_place(world, job, units, into)
    prompts.say(f"safe-compose: {job.project} is backed up daily at {', '.join(job.at)}; next: {timer.next_run(job.name) or '?'}")
    if os.geteuid() != 0:
        prompts.say("safe-compose: while you are logged out a timer of yours runs only after `loginctl enable-linger`")


def _remove_schedule(project: str | None, folder: Path, *, yes: bool) -> None:
    settings = config.load(Path.cwd(), dict(os.environ))
    timetable = Timetable(settings.store, settings.access)
    here = [r.project for r in timetable.all() if (r.project == project if project else Path(r.folder) == Path.cwd())]
    if len(here) != 1:
        which = f"there is no schedule of {project}" if project else f"{len(here)} schedules run in this folder"
        raise UsageError(f"{which}; nothing was removed", next_step="safe-compose schedule status")
    _agree(f"Take the schedule of {here[0]} away?", yes=yes)
    names = [f"{timer.unit_name(here[0])}.{ending}" for ending in ("service", "timer")]
    for path in timer.remove(names, folder):
        prompts.say(f"safe-compose: deleted {path}")
    timetable.take_away(here[0])
    prompts.say(f"safe-compose: {here[0]} is no longer scheduled; a line in a crontab is yours to delete")


def _tell_schedules(project: str | None, *, as_json: bool) -> None:
    settings = config.load(Path.cwd(), dict(os.environ))
    timetable = Timetable(settings.store, settings.access)
    records = [r for r in timetable.all() if project is None or r.project == project]
    troubles = timetable.troubles(project)
    nexts = {r.project: timer.next_run(timer.unit_name(r.project)) if r.how == "systemd" else None for r in records}
    if as_json:
        shapes = [
            {
                "project": r.project, "folder": r.folder, "at": list(r.at), "how": r.how, "next": nexts[r.project],
                "began": r.began, "ended": r.ended, "good": r.good, "backup": r.backup, "trial": r.trial, "faults": list(r.faults),
                "trouble": troubles.get(r.project),
            }
            for r in records
        ]  # fmt: skip
        _print_json({"schedules": shapes})
    else:
        rows = [
            (r.project, ", ".join(r.at), r.how, r.began or "-", r.good or "-", r.backup or "-", r.trial or "-") for r in records
        ]
        prompts.table("schedules", ["project", "daily at", "by", "last run", "last good", "backup", "last trial"], rows)
        sys.stdout.write("".join(f"needs a person: {name}: {trouble}\n" for name, trouble in troubles.items()))
    if troubles:
        raise typer.Exit(1)


def _run_scheduled(
    project: str | None, files: Sequence[str] | None, at: Sequence[str], identity: Path | None, *, as_json: bool
) -> None:
    """One run, as a timer calls it. Its first fault gives the exit code."""
    here = _invocation(None, files)
    settings = config.load(project_folder(here), dict(os.environ))
    try:
        _unlock(settings, identity)
        world = enter(here)
        with closing(world.engine):
            ways = [here, _invocation(project, files)] if project is not None else [here]
            outcome = schedule.run(world, ways, project, at)
    except SafeComposeError as fault:
        if project is None:
            raise
        outcome = schedule.never_began(settings, project, fault)
    schedule.tell(settings, outcome)
    if as_json:
        _print_json({"run": outcome.shape()})
    if outcome.faults:
        raise outcome.faults[0]


# -- the way back ------------------------------------------------------------------------------------------------------


@app.command()
def undo(
    project: ProjectName = None,
    confirm: Confirm = None,
    silent: Silent = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Bring back what the last guarded command in this project destroyed: volumes, content, running services."""
    world = enter(_invocation(None, None))
    _unlock(world.settings, identity)
    done = restore.undo(world, project=project, confirm=confirm, ask=not silent, dry_run=dry_run)
    _tell_way_back("undone", done, as_json=as_json)


@app.command("restore")
def restore_backup(
    id: Annotated[
        str | None, typer.Argument(help="A backup's id, a unique prefix of it, latest; or a dump: ./FILE.sql, .sql.gz, .dump.")
    ] = None,
    project: ProjectName = None,
    files: ComposeFile = None,
    volume: VolumeName = None,
    database: Annotated[
        str | None, typer.Option("--database", help="Only this database, beside the living one and swapped in.")
    ] = None,
    into: Annotated[
        str | None, typer.Option("--into", help="Not home: into this volume (several: project), or into a scratch one for a look.")
    ] = None,
    confirm: Confirm = None,
    silent: Silent = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    source: Annotated[
        str | None, typer.Option("--from", help="Fetch it from this off-site destination first: NAME or URL.")
    ] = None,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Put the volumes of a backup back; what is there now is backed up first."""
    invocation = _invocation(project, files)
    world = enter(invocation)
    _unlock(world.settings, identity)
    if id is not None and ("/" in id or "." in id):  # no id of a backup has either
        if into is not None:
            raise UsageError("--into goes with a backup's id, not with a file; nothing was restored")
        _restore_file(world, invocation, Path(id), project, volume, database, confirm, silent, dry_run, as_json, source)
        return
    if source is not None:
        if id is None:
            raise UsageError(
                "restore --from needs a backup's id, or latest", next_step=f"safe-compose offsite list --from {source}"
            )
        where = copies.chosen(world.settings, source)
        kept, fetched = copies.pull(world.catalogue, where, id, project, dry_run=dry_run)
        if fetched.state == "would-fetch":
            _tell_offsite("pull", [fetched], as_json=as_json)
            return
        prompts.say(f"safe-compose: {kept.id} {fetched.words}")
        id, project = kept.id, None
    if project is None and id in (None, "latest"):
        project = _project_here(world, invocation)
    if id is None:
        if silent:
            raise UsageError("with --non-interactive restore needs a backup's id", next_step="safe-compose list")
        id = prompts.choose_backup(world.catalogue.listed(project))
    kept = world.catalogue.find(id, project)
    if database is not None:
        if into is not None:
            raise UsageError("--database goes into the living server, and --into into a volume: give one of them")
        restore.usable(world, kept, elsewhere=source is not None)
        dump = swap.Kept.of(world, kept, database, _only_one(volume))
        done = swap.restore(
            world, dump, volume=dump.record.name, project=None, database=database, confirm=confirm, ask=not silent, dry_run=dry_run
        )
        _tell_way_back("restored", done, as_json=as_json)
        return
    done = restore.restore(
        world,
        kept,
        names=volume or (),
        confirm=confirm,
        ask=not silent,
        dry_run=dry_run,
        elsewhere=source is not None,
        into=into,
    )
    _tell_way_back("restored", done, as_json=as_json)


def _only_one(volumes: Sequence[str] | None) -> str | None:
    if volumes is not None and len(volumes) > 1:
        raise UsageError("one database goes into one server: give --volume once; nothing was restored")
    return volumes[0] if volumes else None


def _restore_file(
    world: World,
    invocation: grammar.Invocation,
    path: Path,
    project: str | None,
    volume: Sequence[str] | None,
    database: str | None,
    confirm: str | None,
    silent: bool,
    dry_run: bool,
    as_json: bool,
    source: str | None,
) -> None:
    if source is not None:
        raise UsageError("--from goes with a backup's id, not with a file; nothing was restored")
    dump = swap.File(bare.look_at(path))
    where = project or (None if volume else _project_here(world, invocation))
    done = swap.restore(
        world, dump, volume=_only_one(volume), project=where, database=database, confirm=confirm, ask=not silent, dry_run=dry_run
    )
    _tell_way_back("restored", done, as_json=as_json)


def _project_here(world: World, invocation: grammar.Invocation) -> str | None:
    """The project of this folder, found as compose does; None where there is none: then every project is meant."""
    found = world.engine.look(invocation).project
    return found.name if found is not None and (found.mode == "config" or world.catalogue.listed(found.name)) else None


def _tell_way_back(title: str, done: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        _print_json({title: done})
        return
    for line in done.get("plan", ()):
        sys.stdout.write(line + "\n")
    statistics = done.get("statistics")
    if statistics:
        columns = ["volume", "database", *(f"{side}: tables, rows" for side in ("before", "backup", "now"))]
        prompts.table("databases", columns, [_sides(row) for row in statistics])


@app.command("trash")
def look_after_trash(
    action: Annotated[str, typer.Argument(help="list, restore or empty.")],
    ids: Annotated[list[str] | None, typer.Argument(help="Items' ids, unique prefixes of them, or names of volumes.")] = None,
    expired: Annotated[bool, typer.Option("--expired", help="With empty: only what is older than 30 days.")] = False,
    confirm: Confirm = None,
    silent: Silent = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """The content of volumes that were deleted without a copy: list it, restore it, or empty the trash for good."""
    if action not in ("list", "restore", "empty"):
        raise UsageError(f"trash takes list, restore or empty, not {action!r}", next_step="safe-compose trash --help")
    if expired and (action != "empty" or ids):
        raise UsageError("--expired goes with empty, and without ids")
    if action == "restore" and not ids:
        raise UsageError("trash restore needs an id", next_step="safe-compose trash list")
    _check_wait(wait)
    world = enter(_invocation(None, None))
    with closing(world.engine):
        if action != "list" and not dry_run:
            backup.recover(world.engine, world.catalogue, world.journal, but=world.engine.run_id)
        chosen = volume_trash.find(world.engine, ids) if ids else volume_trash.items(world.engine)
        if action == "list":
            _tell_trash(world, chosen, as_json=as_json)
        elif action == "restore":
            names = {item.record.name: item for item in chosen}
            if len(names) != len(chosen) or len({item.project for item in chosen}) != 1:
                raise UsageError("trash restore takes items of one project, and of each volume one")
            kept = volume_trash.as_backup(world.engine, chosen)
            done = restore.restore(world, kept, names=(), confirm=confirm, ask=not silent, dry_run=dry_run, trash=names)
            _tell_way_back("restored", done, as_json=as_json)
        else:
            going = [item for item in chosen if not expired or item.has_expired(utc_now())]
            if not as_json:
                _tell_trash(world, going, as_json=False)
            if going and not dry_run:
                sys.stdout.flush()
                _agree_to_empty(going, yes=yes, confirm=confirm, ask=not silent)
                volume_trash.empty(world, going, wait=wait)
            if as_json:
                _print_json({"emptied": [item.id for item in going], "done": not dry_run})


def _tell_trash(world: World, chosen: Sequence[volume_trash.Item], *, as_json: bool) -> None:
    sizes = world.engine.sizes([item.volume for item in chosen]) if chosen else {}
    holders = {item.id: world.engine.lock_of(item.volume) for item in chosen}
    held = {name: holder is not None and holder.state == "running" for name, holder in holders.items()}
    if as_json:
        shapes = [
            {
                "id": item.id, "volume": item.record.name, "project": item.project, "kind": item.record.data_kind,
                "created": item.created, "expires": item.expires, "expired": item.has_expired(utc_now()),
                "bytes": sizes.get(item.volume), "held": held[item.id],
            }
            for item in chosen
        ]  # fmt: skip
        _print_json({"trash": shapes})
        return
    rows = [
        (item.id, item.record.name, item.project, size_text(sizes.get(item.volume)), item.created,
         "EXPIRED" if item.has_expired(utc_now()) else item.expires, "held" if held[item.id] else "NOT HELD")
        for item in chosen
    ]  # fmt: skip
    prompts.table("trash", ["id", "volume", "project", "size", "since", "expires", ""], rows)


def _agree_to_empty(going: Sequence[volume_trash.Item], *, yes: bool, confirm: str | None, ask: bool) -> None:
    """A yes for what has expired; the phrase while any item has not. Raises Refused."""
    if all(item.has_expired(utc_now()) for item in going):
        _agree(f"Delete these {len(going)} items for good?", yes=yes)
        return
    phrase = f"delete {len(going)} items"
    _phrase("To delete them for good", phrase, confirm, ask=ask, nothing="nothing was deleted")


def _sides(row: dict[str, Any]) -> list[str]:
    sides = [row[side] for side in ("before", "backup", "now")]
    return [row["volume"], row["database"], *(f"{s['tables']}, {s['rows']}" if s else "-" for s in sides)]


# -- passwords ---------------------------------------------------------------------------------------------------------


@app.command("rotate-password")
def rotate_password(
    service: Annotated[str, typer.Argument(help="The database's service in the compose file.")],
    sync: Annotated[bool, typer.Option("--sync", help="The files were changed already: the database follows them.")] = False,
    user: Annotated[str | None, typer.Option("--user", help="The role, instead of the one that the image was told.")] = None,
    generate: Annotated[bool, typer.Option("--generate", help="Let a new password be generated.")] = False,
    from_stdin: Annotated[bool, typer.Option("--stdin", help="Read the new password from stdin.")] = False,
    from_file: Annotated[Path | None, typer.Option("--from-file", help="Read the new password from a file.")] = None,
    old_file: Annotated[
        Path | None, typer.Option("--old-file", help="MariaDB, MySQL: a file with the password that the database still has.")
    ] = None,
    leave: Annotated[
        list[str] | None, typer.Option("--leave", help="A key or file that stays as it is, to be changed by hand; may be repeated.")
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option("--also", help="A key with the same value that is this password too; may be repeated.")
    ] = None,
    project: ProjectName = None,
    files: ComposeFile = None,
    silent: Silent = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Change a database's password in the database and in every file that holds it; nothing is deleted."""
    _check_wait(wait)
    if sum((sync, generate, from_stdin, from_file is not None)) > 1:
        raise UsageError("rotate-password takes one of: --sync, --generate, --stdin, --from-file; nothing was changed")
    if sync and (leave or also):
        raise UsageError("--leave and --also go with a new password, not with --sync; nothing was changed")
    invocation = _invocation(project, files)
    world = enter(invocation)
    old = _password_of(old_file) if old_file is not None else None
    looked = rotate.look(world, invocation, service, user, old)
    left, taken = frozenset(leave or ()), frozenset(also or ())
    if sync:
        again: Callable[[rotate.Looked], rotate.Rotation] = lambda found: rotate.plan_sync(world, found)  # noqa: E731
    else:
        new = _new_password(generate=generate or dry_run, from_stdin=from_stdin, from_file=from_file, ask=not silent)
        again = lambda found: rotate.plan(world, found, new, leave=left, also=taken)  # noqa: E731
    planned = again(looked)
    if not as_json:
        sys.stdout.write("".join(f"{line}\n" for line in planned.lines()))
        sys.stdout.flush()
    if dry_run or (as_json and not yes):
        done = rotate.shape(planned)
    else:
        if silent and not yes:
            raise Refused("nobody may be asked (--non-interactive); nothing was changed", next_step="add --yes")
        _agree("Change it?", yes=yes)
        done = rotate.act(world, planned, again=again, user=user, wait=wait)
    if as_json:
        _print_json({"rotated": done})
    elif done["done"]:
        sys.stdout.write(f"{done['role']} has {'the password of the files' if sync else 'its new password'}\n")


def _new_password(*, generate: bool, from_stdin: bool, from_file: Path | None, ask: bool) -> str:
    """The new password, without the line end of a file. Raises Refused, UsageError."""
    if from_stdin or from_file is not None:
        return _password_of(from_file)
    if generate:
        return rotate.generated()
    terminal = prompts.Terminal.open() if ask else None
    if terminal is None:
        raise Refused(
            "there is no terminal to ask for the new password on; nothing was changed",
            next_step="add --generate, --stdin or --from-file",
        )
    new = terminal.ask("New password: ", hidden=True)
    if terminal.ask("The same again: ", hidden=True) != new:
        raise Refused("the two are not the same; nothing was changed")
    return new


def _password_of(file: Path | None) -> str:
    """What a file, or stdin, holds. Raises UsageError."""
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
        return data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the password cannot be read ({type(error).__name__}); nothing was changed") from None


# -- what was done -----------------------------------------------------------------------------------------------------


@app.command("journal")
def show_journal(as_json: AsJson = False) -> None:
    """Show the guarded commands, newest first, and how each ended."""
    runs = Journal(_catalogue().root).runs()
    if as_json:
        _print_json({"runs": [_run_shape(r) for r in runs]})
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
        _print_json({"requests": consent.listed(root)})
    else:
        rows = [(r["code"], r["state"], " ".join([r["program"], *r["argv"]]), r["folder"], r["at"]) for r in consent.listed(root)]
        prompts.table("requests", ["code", "state", "command", "folder", "asked"], rows)


@app.command("hook")
def answer_hook(
    strict: Annotated[bool, typer.Option("--strict", help="Deny where a person would be asked.")] = False,
) -> None:
    """Tell a coding agent, before it runs a shell line, whether that line deletes volumes: request and answer are JSON."""
    hook.main(["--strict"] if strict else [])


@app.command("audit")
def audit_files(
    paths: Annotated[list[str] | None, typer.Argument(help="Files and folders; this folder without any.")] = None,
    sarif: Annotated[bool, typer.Option("--sarif", help="Print SARIF 2.1.0.")] = False,
    github: Annotated[bool, typer.Option("--github", help="Print annotations for GitHub Actions.")] = False,
    baseline: Annotated[Path | None, typer.Option("--baseline", help="A file of known findings, which do not count.")] = None,
    write_baseline: Annotated[bool, typer.Option("--write-baseline", help="Write today's findings to --baseline.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Write warnings and safe forms into Markdown, shown as a diff first.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Find commands that delete volumes in documents, scripts, workflows and compose files. 1 when there are any."""
    if sum((sarif, github, as_json, fix, write_baseline)) > 1:
        raise UsageError("audit takes one of --json, --sarif, --github, --fix and --write-baseline")
    if (write_baseline and baseline is None) or (dry_run and not fix):
        raise UsageError("--write-baseline needs --baseline FILE, and --dry-run goes with --fix")
    found = audit.scan(paths or ())
    if write_baseline and baseline is not None:
        audit.write_text(baseline, report.baseline(found.findings))
        prompts.say(f"safe-compose: {baseline} knows {len(found.findings)} findings from now on")
        return
    known = report.read_baseline(audit.read_text(baseline), str(baseline)) if baseline is not None else {}
    new, old = report.without(found.findings, known)
    if fix:
        mended = audit.mendings(found._replace(findings=tuple(new)))
        for one in mended:
            sys.stdout.write(one.diff())
        if mended and not dry_run:
            sys.stdout.flush()
            _agree(f"Write {len(mended)} documents?", yes=yes)
            audit.write(mended)
            found = audit.scan(paths or ())
            new, old = report.without(found.findings, known)
    if as_json:
        _print_json(report.shape(new, old, found.notes, found.looked_at))
    elif sarif:
        sys.stdout.write(json.dumps(report.sarif(new, found.notes)) + "\n")
    elif github:
        sys.stdout.write("".join(f"{line}\n" for line in report.github(new, found.notes)))
    else:
        sys.stdout.write("".join(f"{line}\n" for line in report.text(new, found.notes, found.looked_at, len(old))))
    if new:
        raise typer.Exit(1)


@app.command()
def recover(as_json: AsJson = False) -> None:
    """After a crash: start again what was stopped, sweep what was half done, and say what was and was not done."""
    world = enter(_invocation(None, None))
    told = backup.recover(world.engine, world.catalogue, world.journal, but=world.engine.run_id)
    told += rotate.recover(world)
    lock.renew(world, world.engine.look(grammar.parse(["volume", "ls"])))
    if world.catalogue.root.exists() and (count := world.catalogue.empty_trash()):
        told.append(f"freed the room of {count} forgotten backups")
    if as_json:
        _print_json({"recovered": told})
    else:
        sys.stdout.write("\n".join(told) + "\n" if told else "nothing to recover\n")
