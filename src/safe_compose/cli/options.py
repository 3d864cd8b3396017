"""Options of several verbs, questions, and the search for project, settings and store."""

import math
import os
import sys
from collections.abc import Sequence
from os.path import normpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safe_compose.errors import Refused, UsageError
from safe_compose.settings import load
from safe_compose.store import settings_approval
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.system.files import find_real_path
from safe_compose.ui import terminal as ui_terminal

if TYPE_CHECKING:
    from safe_compose.engine import Engine
    from safe_compose.grammar import parser

app = typer.Typer(
    name="safe-compose",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _name_verbs() -> None:
    """Have typer expect a verb, also where only one is loaded."""


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (a documented, versioned shape).")]

ProjectName = Annotated[
    str | None,
    typer.Option("--project", "-p", help="The compose project, instead of this folder's."),
]

ComposeFile = Annotated[
    list[str] | None,
    typer.Option("--file", "-f", help="A compose file, as docker compose takes it."),
]


def _is_path(word: str) -> bool:
    """Return whether a word is the path of a folder; the name of no volume has a slash."""
    return "/" in word or word in (".", "..")


def make_absolute(name: str) -> str:
    """Return the name of a location: a path of a folder as an absolute one, another as it is.

    Links stay, since the path may be one of another machine.

    >>> make_absolute("shop_pgdata"), make_absolute("/srv/shop/../uploads/")
    ('shop_pgdata', '/srv/uploads')
    """
    return normpath(str(Path.cwd() / name)) if _is_path(name) else name


def _make_all_absolute(names: list[str] | None) -> list[str] | None:
    return names and [make_absolute(name) for name in names]


VolumeName = Annotated[
    list[str] | None,
    typer.Option(
        "--volume",
        help="Only this volume, or folder by its path; repeatable.",
        callback=_make_all_absolute,
    ),
]

HoldsVolume = Annotated[
    list[str] | None,
    typer.Option(
        "--volume",
        help="Only what holds this volume or folder; repeatable.",
        callback=_make_all_absolute,
    ),
]

Yes = Annotated[
    bool,
    typer.Option("--yes", help="Do not ask y/N. It never overwrites data: that needs --confirm."),
]

Confirm = Annotated[
    str | None,
    typer.Option(
        "--confirm",
        envvar="SAFE_COMPOSE_CONFIRM",
        show_envvar=False,
        help="The phrase that would have been typed.",
    ),
]

NonInteractive = Annotated[
    bool,
    typer.Option(
        "--non-interactive",
        envvar="SAFE_COMPOSE_NON_INTERACTIVE",
        show_envvar=False,
        help="Never ask: refuse instead.",
    ),
]

Every = Annotated[bool, typer.Option("--all", help="Every backup.")]

BACKUP_ID = "A backup's id, its short id, or latest."

Utc = Annotated[bool, typer.Option("--utc", help="Show times in UTC instead of ages.")]

Wait = Annotated[
    float, typer.Option(help="Seconds to wait for another safe-compose of this project.")
]

Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show everything that was found, in tables.")
]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]

IdentityFile = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        envvar="SAFE_COMPOSE_IDENTITY",
        show_envvar=False,
        help="The key file that opens encrypted backups.",
    ),
]


def make_down(project: str | None, files: Sequence[str] | None) -> "parser.Invocation":
    """Return the `down -v` of a project, which is never run: it serves to look the project up."""
    from safe_compose.grammar import parser

    words = ["compose"]
    words += ["--project-name", project] if project else []
    words += [word for name in files or () for word in ("--file", str(Path(name).absolute()))]
    return parser.parse([*words, "down", "--volumes"])


def make_lookup(project: str | None, files: Sequence[str] | None) -> "parser.Invocation":
    """Return an invocation that has all services of the project looked up.

    Services of inactive profiles count too: only then does it matter which containers are orphans.
    """
    from safe_compose.grammar import parser

    words = make_down(project, files)
    return parser.parse([*words.argv, "--remove-orphans"])


def load_settings(folder: Path | None = None, *, doing: str | None = None) -> load.Settings:
    """Return the settings of a folder, as far as a person has approved them.

    Args:
        folder: The folder; None: this one.
        doing: The text that says what is not done while some of them wait for approval. None: those
            are left out, which is reported.

    Raises:
        Refused: Some of them wait for approval, and `doing` is given.
    """
    settings = load.load(folder or Path.cwd(), dict(os.environ))
    settings_approval.tell(settings)
    if doing is not None:
        settings_approval.require(settings, doing)
    return settings_approval.reduce_to_approved(settings)


def open_catalogue() -> Catalogue:
    """Return the store that the settings of this folder name."""
    settings = load_settings()
    return Catalogue.at(settings.store, settings.access)


def unlock(settings: load.Settings, identity: Path | None) -> None:
    """Read the keys that open encrypted backups.

    Raises:
        UsageError: A file that was named for this command cannot be read.
    """
    from safe_compose.volumes import encryption

    if identity is not None:
        encryption.add_identity(identity)
    elif settings.identity is not None:
        if settings.identity.exists():
            encryption.add_identity(settings.identity)
        else:
            ui_terminal.say(
                f"safe-compose: encrypt.identity: there is no {settings.identity}: encrypted"
                " backups stay closed"
            )


def print_json(shape: dict[str, Any]) -> None:
    """Print one JSON object with the version of its shape."""
    ui_terminal.tell_json({"version": 1, **shape})


def ask_yes(
    question: str, *, yes: bool, ask: bool = True, nothing: str = "nothing was changed"
) -> None:
    """Ask a question on the terminal, unless `yes` answers it.

    Args:
        question: The question.
        yes: The value of `--yes`.
        ask: Whether a person may be asked.
        nothing: The text that says what was not done where nobody may be asked.

    Raises:
        Refused: The answer is no, nobody may be asked, or there is no terminal to ask on.
    """
    if yes:
        return
    if not ask:
        given = "--non-interactive" in sys.argv
        why = "--non-interactive" if given else "SAFE_COMPOSE_NON_INTERACTIVE"
        raise Refused(f"nobody may be asked ({why}); {nothing}", next_step="add --yes")
    terminal = ui_terminal.Terminal.open()
    if terminal is None:
        raise Refused("there is no terminal to ask on; nothing was changed", next_step="add --yes")
    if terminal.ask(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed; nothing was changed")


def check_wait(seconds: float) -> None:
    """Check the value of `--wait`.

    Raises:
        UsageError: It is negative, or no finite number.
    """
    if not math.isfinite(seconds) or seconds < 0:
        raise UsageError(f"--wait takes seconds from 0 on, not {seconds}")


def read_location(engine: "Engine", word: str) -> str:
    """Return the name of the location that a word means: a path becomes absolute.

    It becomes real too, unless the folders are those of another machine.
    """
    if not _is_path(word):
        return word
    path = os.path.abspath(word)  # noqa: PTH100
    return find_real_path(path) if engine.docker.connection.shares_paths else path


def read_locations(engine: "Engine", words: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the locations that the words of `--volume` mean."""
    return tuple(read_location(engine, word) for word in words or ())
