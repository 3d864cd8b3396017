"""The verb that changes a database's password without deleting anything."""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_compose.cli.options import (
    AsJson,
    ComposeFile,
    DryRun,
    NonInteractive,
    ProjectName,
    Wait,
    Yes,
    app,
    ask_yes,
    check_wait,
    make_down,
    print_json,
)
from safe_compose.errors import Refused, UsageError
from safe_compose.operations.passwords import inspect, plan, run
from safe_compose.ui import terminal as ui_terminal
from safe_compose.workspace import open_workspace

Sync = Annotated[
    bool,
    typer.Option("--sync", help="The files were changed already: the database follows them."),
]

User = Annotated[
    str | None,
    typer.Option("--user", help="The role, instead of the one that the image's variables name."),
]

Generate = Annotated[bool, typer.Option("--generate", help="Let a new password be generated.")]

FromStdin = Annotated[bool, typer.Option("--stdin", help="Read the new password from stdin.")]

FromFile = Annotated[
    Path | None, typer.Option("--from-file", help="Read the new password from a file.")
]

OldFile = Annotated[
    Path | None,
    typer.Option("--old-file", help="A file with the password that the database still has."),
]

Leave = Annotated[
    list[str] | None,
    typer.Option(
        "--leave",
        help="A key or file that stays as it is, to be changed by hand; may be repeated.",
    ),
]

Also = Annotated[
    list[str] | None,
    typer.Option(
        "--also", help="A key with the same value that is this password too; may be repeated."
    ),
]


@app.command("rotate-password")
def rotate_password(
    service: Annotated[str, typer.Argument(help="The database's service in the compose file.")],
    sync: Sync = False,
    user: User = None,
    generate: Generate = False,
    from_stdin: FromStdin = False,
    from_file: FromFile = None,
    old_file: OldFile = None,
    leave: Leave = None,
    also: Also = None,
    project: ProjectName = None,
    files: ComposeFile = None,
    non_interactive: NonInteractive = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = 60.0,
    as_json: AsJson = False,
) -> None:
    """Change a password in its database and in every file that holds it; nothing is deleted."""
    check_wait(wait)
    sources = (sync, generate, from_stdin, from_file is not None)
    _check_arguments(sources, sync=sync, selects=bool(leave or also))
    invocation = make_down(project, files)
    workspace = open_workspace(invocation)
    old = _read_password(old_file) if old_file is not None else None
    inspection = inspect.inspect(workspace, invocation, service, user, old)
    if sync:
        make_plan = partial(plan.plan_sync, workspace)
    else:
        new = _new_password(
            generate=generate or dry_run,
            from_stdin=from_stdin,
            from_file=from_file,
            ask=not non_interactive,
        )
        make_plan = partial(
            plan.plan, workspace, new=new, leave=frozenset(leave or ()), also=frozenset(also or ())
        )
    rotation = make_plan(inspection)
    if not as_json:
        for line in rotation.lines():
            ui_terminal.tell(line)
        ui_terminal.flush()
    if dry_run or (as_json and not yes):
        done = plan.to_json(rotation)
    else:
        ask_yes("Change it?", yes=yes, ask=not non_interactive)
        done = run.rotate(workspace, rotation, again=make_plan, user=user, wait=wait)
    _tell_rotated(done, sync=sync, as_json=as_json)


def _check_arguments(sources: Sequence[bool], *, sync: bool, selects: bool) -> None:
    """Check that the arguments go together.

    Raises:
        UsageError: They do not.
    """
    if sum(sources) > 1:
        raise UsageError(
            "rotate-password takes one of: --sync, --generate, --stdin, --from-file; nothing was"
            " changed"
        )
    if sync and selects:
        raise UsageError(
            "--leave and --also go with a new password, not with --sync; nothing was changed"
        )


def _tell_rotated(done: Mapping[str, Any], *, sync: bool, as_json: bool) -> None:
    if as_json:
        print_json({"rotated": done})
        return
    if not done["done"]:
        return
    ui_terminal.tell(
        f"{done['role']} has {'the password of the files' if sync else 'its new password'}"
    )
    if broken := done["unencoded"]:
        ui_terminal.say(
            "safe-compose: still broken, because a password stands there unencoded:"
            f" {', '.join(broken)}"
        )


def _new_password(*, generate: bool, from_stdin: bool, from_file: Path | None, ask: bool) -> str:
    """Return the new password, without the line end of a file.

    Raises:
        Refused: There is no terminal to ask on, or the two answers differ.
        UsageError: It cannot be read.
    """
    if from_stdin or from_file is not None:
        return _read_password(from_file)
    if generate:
        return plan.generate()
    terminal = ui_terminal.Terminal.open() if ask else None
    if terminal is None:
        raise Refused(
            "there is no terminal to ask for the new password on; nothing was changed",
            next_step="add --generate, --stdin or --from-file",
        )
    new = terminal.ask("New password: ", hidden=True)
    if terminal.ask("The same again: ", hidden=True) != new:
        raise Refused("the two are not the same; nothing was changed")
    return new


def _read_password(file: Path | None) -> str:
    """Return the password in a file, or on stdin.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
        return data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the password cannot be read ({type(error).__name__}); nothing was changed"
        ) from None
