"""The verbs for the protection of volumes and folders."""

import os
from collections.abc import Mapping, Sequence, Set
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from safe_compose.cli.options import (
    AsJson,
    Confirm,
    NonInteractive,
    Yes,
    app,
    ask_yes,
    make_absolute,
    make_down,
    print_json,
)
from safe_compose.core.observed import VOLUME_LABEL, Observed, kind_of_location
from safe_compose.core.quantities import format_stamp
from safe_compose.core.text import join_for_shell
from safe_compose.core.tier import Tier
from safe_compose.errors import DockerNotFound, EngineUnavailable, UsageError
from safe_compose.grammar.spelling import find_near
from safe_compose.operations import deletion_lock, folders
from safe_compose.settings import load
from safe_compose.store.protections import ProtectionStores
from safe_compose.system.files import find_real_path
from safe_compose.system.process import stamp
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace, open_workspace

LONGEST_LIFT = 7 * 24 * 3600
"""Seconds for which a protection may be lifted."""


@app.command()
def protect(
    names: Annotated[list[str], typer.Argument(help="Names of volumes, paths of folders.")],
    tier: Annotated[str, typer.Option(help="critical or important.")] = "critical",
    locked: Annotated[
        bool,
        typer.Option("--lock", help="Have docker itself refuse to delete them, to every client."),
    ] = False,
    ahead: Annotated[
        bool, typer.Option("--ahead", help="Also of volumes that are not made yet.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Set the lowest tier of volumes, whatever files say; --lock: docker refuses to delete them."""
    names = [make_absolute(name) for name in names]
    if tier not in (Tier.CRITICAL.value, Tier.IMPORTANT.value):
        raise UsageError(f"--tier takes critical or important, not {tier!r}; nothing was changed")
    if locked:
        _refuse_folders(names)
        workspace = open_workspace(make_down(None, None))
        with closing(workspace.engine):
            deletion_lock.create(workspace, names, Tier(tier))
            states = {
                name: lock.state if (lock := workspace.engine.locks.find(name)) else None
                for name in names
            }
        _tell_protected(names, tier, states, as_json=as_json)
        return
    protections = ProtectionStores.of(load.load(Path.cwd(), dict(os.environ)))
    if all(names):
        names = [_follow(name) for name in names] if ahead else _find_existing(names)
    for name in names:
        protections.protect([name], Tier(tier))
        terminal.say(f"safe-compose: {name} is at least {tier} from now on")
    _tell_protected(names, tier, {}, as_json=as_json)


def _tell_protected(
    names: Sequence[str], tier: str, locks: Mapping[str, str | None], *, as_json: bool
) -> None:
    if as_json:
        shapes = [{"name": name, "tier": tier, "lock": locks.get(name)} for name in names]
        print_json({"protected": shapes})


@app.command()
def unprotect(
    names: Annotated[list[str], typer.Argument(help="Names of volumes, paths of folders.")],
    minutes: Annotated[str | None, typer.Option("--for", help="Only for a while: 10m, 2h.")] = None,
    confirm: Confirm = None,
    non_interactive: NonInteractive = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Take protections and locks away, for good or for a while."""
    names = [make_absolute(name) for name in names]
    until = datetime.now(UTC) + _parse_duration(minutes) if minutes else None
    how_long = f"until {format_stamp(stamp(until))}" if until else "for good"
    protections = ProtectionStores.of(load.load(Path.cwd(), dict(os.environ)))
    names = [name if protections.is_protected(name) else _follow(name) for name in names]
    workspace = _open_workspace()
    locked = deletion_lock.list_held(workspace, names) if workspace is not None else []
    protections.require_protected([name for name in names if name not in locked])
    if locked:
        phrase = locked[0] if len(locked) == 1 else f"unlock {len(locked)} volumes"
        terminal.ask_phrase(
            f"To let docker delete {', '.join(locked)} again",
            phrase,
            confirm,
            ask=not non_interactive,
            nothing="nothing was changed",
        )
    else:
        ask_yes(
            f"Take the protection of {', '.join(names)} away {how_long}?",
            yes=yes,
            ask=not non_interactive,
        )
    for name in names:
        protections.unprotect(name, until=until)
        if workspace is not None and name in locked:
            workspace.engine.locks.unlock(name)
        gone = "protection and the lock" if name in locked else "protection"
        terminal.say(f"safe-compose: took the {gone} of {name} away {how_long}")
    if locked and until:
        terminal.say(
            "safe-compose: the first safe-compose command after that locks it again; at once:"
            " safe-compose protect --lock"
        )
    if as_json:
        ends = stamp(until) if until else None
        shapes = [{"name": name, "until": ends, "unlocked": name in locked} for name in names]
        print_json({"unprotected": shapes})


def _refuse_folders(names: Sequence[str]) -> None:
    """Refuse to lock a folder, which docker never deletes.

    Raises:
        UsageError: One of the names is a folder's.
    """
    if paths := [name for name in names if kind_of_location(name) == "folder"]:
        raise UsageError(
            f"docker deletes no folder, so it cannot be locked: {', '.join(paths)}; nothing was"
            " changed",
            next_step=f"without --lock: safe-compose protect {join_for_shell(paths)}",
        )


def _find_existing(names: Sequence[str]) -> list[str]:
    """Return the names of existing locations; a folder is one that a service or container mounts.

    A folder is known by its real path, as far as the engine's paths are ours. Where no daemon
    answers nothing is looked up, which is reported.

    Raises:
        UsageError: There is none. It names those that may be meant: a key of a compose file is no
            volume's name.
    """
    workspace = _open_workspace("whether there are such volumes was not looked up")
    if workspace is None:
        return list(names)
    with closing(workspace.engine):
        seen = workspace.engine.commands.look(make_down(None, None))
        seen = folders.resolve(workspace.engine, seen)
        existing = {v.name for v in seen.volumes} | _list_folders(seen)
        found = folders.resolve_names(workspace.engine, names)
        if missing := [name for name in found if name not in existing]:
            raise _explain_missing(missing, seen, existing)
        return found


def _list_folders(seen: Observed) -> set[str]:
    """Return the paths that services and containers mount from the host."""
    mounted = {m.source for c in seen.containers for m in c.mounts if m.type == "bind"}
    declared = {f.path for f in seen.project.folders} if seen.project is not None else set()
    return mounted | declared


def _follow(name: str) -> str:
    return find_real_path(name) if kind_of_location(name) == "folder" else name


def _explain_missing(missing: Sequence[str], seen: Observed, existing: Set[str]) -> UsageError:
    """Return the error about names of nothing, with those that may be meant."""
    if paths := [name for name in missing if kind_of_location(name) == "folder"]:
        return UsageError(
            f"no service here and no container mounts {', '.join(paths)}; nothing was changed",
            next_step=(
                "for folders that are mounted later: safe-compose protect --ahead"
                f" {join_for_shell(paths)}"
            ),
        )
    meant = [v for v in seen.volumes if v.labels.get(VOLUME_LABEL) in missing]
    here = [v.name for v in meant if seen.project is not None and v.project == seen.project.name]
    meant_names = here or ([v.name for v in meant] if len(meant) == 1 else [])
    near = (find_near(name, existing) for name in missing)
    meant_names = sorted(meant_names or {name for name in near if name is not None})
    hint = f"; did you mean {', '.join(meant_names)}?" if meant_names else ""
    return UsageError(
        f"there is no volume {', '.join(missing)} on {seen.endpoint}; nothing was changed{hint}",
        next_step=(
            f"safe-compose protect {join_for_shell(meant_names)}"
            if meant_names
            else (
                "docker volume ls; for volumes that are not made yet: safe-compose protect"
                f" --ahead {join_for_shell(missing)}"
            )
        ),
    )


def _open_workspace(otherwise: str = "should there be a lock, it stays") -> Workspace | None:
    """Return the workspace of this folder, or None when no daemon answers.

    That is reported, with its consequences.
    """
    try:
        return open_workspace(make_down(None, None))
    except (EngineUnavailable, DockerNotFound) as fault:
        terminal.say(f"safe-compose: {fault.message}; {otherwise}")
        return None


def _parse_duration(text: str) -> timedelta:
    units = {"s": 1, "m": 60, "h": 3600}
    if len(text) < 2 or text[-1] not in units or not text[:-1].isdecimal() or not text.isascii():
        raise UsageError(f"--for takes a number and s, m or h, such as 10m; not {text!r}")
    seconds = int(text[:-1][:12]) * units[text[-1]]
    if not 0 < seconds <= LONGEST_LIFT:
        raise UsageError(
            f"--for takes at most {LONGEST_LIFT // 3600}h, not {text!r}; without it the protection"
            " ends for good"
        )
    return timedelta(seconds=seconds)
