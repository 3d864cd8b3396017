"""What our own verbs share: options, questions, and how they find project and store."""

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_compose import (
    config,
    copies,
    grammar,
    prompts,
)
from safe_compose.catalogue import Catalogue
from safe_compose.errors import Refused, UsageError
from safe_compose.methods import seal
from safe_compose.plan import size_text

app = typer.Typer(
    name="safe-compose", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)

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


def down_of(project: str | None, files: Sequence[str] | None) -> grammar.Invocation:
    """The `down -v` of that project: what it would delete is what a backup of the project must hold."""
    words = ["compose"]
    words += ["--project-name", project] if project else []
    words += [word for name in files or () for word in ("--file", str(Path(name).absolute()))]
    return grammar.parse([*words, "down", "--volumes"])


def catalogue_here() -> Catalogue:
    return Catalogue(config.load(Path.cwd(), dict(os.environ)).store)


def unlock(settings: config.Settings, identity: Path | None) -> None:
    """Read the keys that open encrypted backups. Raises UsageError for a file that was named for this command."""
    if identity is not None:
        seal.open_with(identity)
    elif settings.identity is not None:
        if settings.identity.exists():
            seal.open_with(settings.identity)
        else:
            prompts.say(f"safe-compose: encrypt.identity: there is no {settings.identity}: encrypted backups stay closed")


def print_json(shape: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"version": 1, **shape}) + "\n")


def verbs() -> dict[str, str]:
    """Every verb of ours, and what it does in a line."""
    found = [(c.name, c.callback) for c in app.registered_commands if c.callback is not None]
    return {name or call.__name__: (call.__doc__ or "").strip().splitlines()[0] for name, call in found}


def ask_yes(question: str, *, yes: bool) -> None:
    if yes:
        return
    terminal = prompts.Terminal.open()
    if terminal is None:
        raise Refused("there is no terminal to ask on; nothing was changed", next_step="add --yes")
    if terminal.ask(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed; nothing was changed")


def check_wait(seconds: float) -> None:
    if not math.isfinite(seconds) or seconds < 0:
        raise UsageError(f"--wait takes seconds from 0 on, not {seconds}")


def tell_offsite(action: str, outcomes: Sequence[copies.Outcome], *, as_json: bool) -> None:
    if as_json:
        print_json({"action": action, "offsite": [o.shape() for o in outcomes]})
        return
    for o in outcomes:
        said = f"FAILED: {o.fault.message}" if o.fault is not None else o.words or o.state
        sys.stdout.write(f"{o.id}  {o.destination.name}  {size_text(o.bytes)}  {said}\n")
