"""The verbs about this machine and what is on it: volumes and their protection, ways in, doctor."""

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_compose import (
    __version__,
    config,
    doctor,
    lock,
    policy,
    prompts,
    setup,
    shim,
)
from safe_compose.cli.words import (
    AsJson,
    ComposeFile,
    Confirm,
    DryRun,
    ProjectName,
    Silent,
    Yes,
    app,
    ask_yes,
    catalogue_here,
    down_of,
    print_json,
    verbs,
)
from safe_compose.errors import DockerNotFound, EngineUnavailable, Refused, UsageError
from safe_compose.plan import size_text
from safe_compose.policy import Tier
from safe_compose.timetable import Timetable
from safe_compose.ways import install as ways_in
from safe_compose.ways import texts
from safe_compose.world import World, enter

LONGEST_LIFT = 7 * 24 * 3600
"""Seconds for which a protection may be lifted."""


@app.command()
def commands(as_json: AsJson = False) -> None:
    """List our own verbs."""
    rows = verbs()
    if as_json:
        print_json({"commands": [{"verb": name, "does": does} for name, does in rows.items()]})
    else:
        prompts.table("safe-compose", ["verb", "what it does"], list(rows.items()))


@app.command()
def about(as_json: AsJson = False) -> None:
    """Show version, store and the docker that stands behind us."""
    settings = config.load(Path.cwd(), dict(os.environ))
    facts = {"safe-compose": __version__, "docker": shim.real_docker(), "store": str(settings.store)}
    if as_json:
        print_json(facts)
    else:
        prompts.table("safe-compose", ["", ""], list(facts.items()), show_header=False)


@app.command("setup")
def set_up(
    deploy: Annotated[
        bool, typer.Option("--deploy", help="Also write a deploy job for GitHub Actions that deletes nothing.")
    ] = False,
    project: ProjectName = None,
    files: ComposeFile = None,
    silent: Silent = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write down which volumes of a project matter, and keep backups out of git; every change is shown first."""
    invocation = down_of(project, files)
    world = enter(invocation)
    with closing(world.engine):
        found = setup.look(world, invocation)
        tiers = {r.key: r.tier for r in found.rows}
        if found.rows and not (yes or silent or dry_run or as_json) and sys.stdin.isatty() and sys.stderr.isatty():
            tiers = prompts.choose_tiers([(r.key, r.tier, r.why) for r in found.rows])
        elif not as_json:
            rows = [(r.key, r.tier, r.why) for r in found.rows]
            prompts.table(f"volumes of {found.project.name}", ["volume", "tier", "why"], rows)
        written = setup.proposed(found, tiers, deploy=deploy)
        setup.refuse_unless_possible(written)
        act = bool(written) and not dry_run and (yes or not as_json)
        if not as_json:
            sys.stdout.write("".join(file.diff() for file in written))
            sys.stdout.flush()
        if act:
            if silent and not yes:
                raise Refused("nobody may be asked (--non-interactive); nothing was written", next_step="add --yes")
            ask_yes(f"Write {'these' if len(written) > 1 else 'this'}?", yes=yes)
            setup.apply(written)
        if as_json:
            print_json({"setup": setup.shape(found, written, done=act or not written)})
            return
        if not written:
            prompts.say("safe-compose: everything is in place, nothing was written")
        scheduled = Timetable(world.catalogue.root).of(found.project.name) is not None
        for step in setup.next_steps(found, scheduled=scheduled):
            prompts.say(f"safe-compose: {step}")


@app.command()
def volumes(as_json: AsJson = False) -> None:
    """Show every volume of the engine with its tier, the reason for it, and its last verified backup."""
    invocation = down_of(None, None)
    world = enter(invocation)
    observed = world.engine.look(invocation)  # with the project of this folder, whose compose file may say tiers
    rules = world.rules(observed)
    kept = world.newest_verified()
    shown = [(v, policy.judge(v, observed, rules, None)) for v in observed.volumes]
    locks = lock.states(world, observed)
    if as_json:
        print_json(
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
        world = enter(down_of(None, None))
        with closing(world.engine):
            lock.put(world, names, Tier(tier))
        return
    catalogue = catalogue_here()
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
    catalogue = catalogue_here()
    catalogue.ensure()
    world = _reached()
    locked = lock.held(world, names) if world is not None else []
    catalogue.require_protected([name for name in names if name not in locked])
    if locked:
        phrase = locked[0] if len(locked) == 1 else f"unlock {len(locked)} volumes"
        prompts.ask_phrase(
            f"To let docker delete {', '.join(locked)} again", phrase, confirm, ask=not silent, nothing="nothing was changed"
        )
    else:
        ask_yes(f"Take the protection of {', '.join(names)} away {how_long}?", yes=yes)
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
        return enter(down_of(None, None))
    except (EngineUnavailable, DockerNotFound) as fault:
        prompts.say(f"safe-compose: {fault.message}; should there be a lock, it stays")
        return None


def _duration(text: str) -> timedelta:
    units = {"s": 1, "m": 60, "h": 3600}
    if len(text) < 2 or text[-1] not in units or not text[:-1].isdecimal() or not text.isascii():
        raise UsageError(f"--for takes a number and s, m or h, such as 10m; not {text!r}")
    seconds = int(text[:-1][:12]) * units[text[-1]]
    if not 0 < seconds <= LONGEST_LIFT:
        raise UsageError(f"--for takes at most {LONGEST_LIFT // 3600}h, not {text!r}; without it the protection ends for good")
    return timedelta(seconds=seconds)


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
                sys.stdout.write("\n" + "".join(f"    {line}\n" for line in change.shown.strip("\n").split("\n")))
    if changes and (yes or not as_json):
        sys.stdout.flush()
        ask_yes(f"Make these {len(changes)} changes?", yes=yes)
        ways_in.apply(changes, places)
    if as_json:
        print_json({"changes": [asdict(c) for c in changes], "done": yes or not changes})
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
        ask_yes(f"Take these {len(known)} changes back?", yes=yes)
        done, left = ways_in.uninstall(places)
    if as_json:
        print_json({"changes": [asdict(c) for c in known], "done": yes or not known, "removed": done, "left": left})
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
        print_json(found)
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
