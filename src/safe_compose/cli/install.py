"""The verb that installs safe-compose before docker."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from safe_compose.cli.options import (
    AsJson,
    Yes,
    app,
    ask_yes,
    load_settings,
    print_json,
)
from safe_compose.cli.unused_flags import refuse_unused
from safe_compose.core.quantities import count
from safe_compose.core.text import join_for_shell
from safe_compose.errors import Refused, UsageError
from safe_compose.install import apply, scripts
from safe_compose.install.places import InstallPlaces
from safe_compose.install.plan import plan
from safe_compose.install.record import InstallChange, read_record
from safe_compose.ui import terminal


@app.command()
def shell(
    name: Annotated[
        str | None,
        typer.Argument(help="Print the functions of bash, zsh or fish, to be evaluated."),
    ] = None,
    install: Annotated[
        list[str] | None, typer.Option("--install", help="shims, plugin or rc; may be repeated.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where shims go; it will stand first on PATH.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="With --install: show the whole text of each change.")
    ] = False,
    uninstall: Annotated[
        bool, typer.Option("--uninstall", help="Take away all that was installed.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Install safe-compose before docker (functions, programs, plugin), or uninstall it."""
    if sum((name is not None, bool(install), uninstall)) != 1:
        raise UsageError(
            "shell takes one of: bash, zsh, fish; --install shims|plugin|rc; --uninstall"
        )
    refuse_unused(
        f"shell {'--uninstall' if uninstall else '--install' if install else name}",
        {
            "--yes": yes and name is not None,
            "--json": as_json and name is not None,
            "--dir": not install and folder,
            "--show": not install and show,
        },
    )
    places = InstallPlaces.here()
    if uninstall:
        _remove_routes(places, yes=yes, as_json=as_json)
    elif install:
        changes = plan(install, folder, places)
        if not as_json:
            _tell_changes(changes, whole=show)
        _install_routes(changes, places, yes=yes, as_json=as_json)
    elif name in ("bash", "zsh", "fish"):
        scripts.print_function(name)
    else:
        raise UsageError(f"there is no function for {name!r}, only for bash, zsh and fish")


def _install_routes(
    changes: Sequence[InstallChange], places: InstallPlaces, *, yes: bool, as_json: bool
) -> None:
    """Make the changes after a yes. With `--json` and without `--yes` they are only shown."""
    if changes and (yes or not as_json):
        terminal.flush()
        ask_yes(f"Change {count(len({change.path for change in changes}), 'file')}?", yes=yes)
        apply.apply(changes, places)
    if as_json:
        print_json({"changes": [asdict(c) for c in changes], "done": yes or not changes})
    elif changes:
        found = shutil.which("safe-compose") or any(c.way in ("shims", "rc") for c in changes)
        doctor = join_for_shell(["safe-compose" if found else scripts.find_program(), "doctor"])
        terminal.say(f"safe-compose: done. In a new login shell, `{doctor}` tries it")
    else:
        terminal.say("safe-compose: everything is in place, nothing was written")


def _tell_changes(changes: Sequence[InstallChange], *, whole: bool) -> None:
    """Print a line for each path, or with `whole` the text of each change."""
    if not whole:
        hows: dict[str, list[str]] = {}
        for change in changes:
            hows.setdefault(change.path, []).append(_HOW[change.how])
        for path, how in hows.items():
            terminal.tell(f"{' and '.join(dict.fromkeys(how))} {path}".replace(_TWICE, _BOTH))
        if changes:
            terminal.say("safe-compose: --show prints the text of each change")
        return
    shown: dict[str, str] = {}
    for change in changes:
        line = f"{_HOW[change.how]} {change.path}"
        if (same := shown.setdefault(change.text, change.path)) != change.path:
            terminal.tell(f"{line}: as in {same}")
        else:
            terminal.tell(line)
            terminal.tell_lines(change.shown.strip("\n"), indent="    ")


_TWICE = "add at the beginning of and add at the end of"
_BOTH = "add at the beginning and at the end of"
_HOW = {
    "file": "write",
    "head": "add at the beginning of",
    "tail": "add at the end of",
    "link": "link",
    "aside": "rename",
}


def _remove_routes(places: InstallPlaces, *, yes: bool, as_json: bool) -> None:
    """Undo what was installed.

    Raises:
        Refused: Something was edited since, so it stays.
    """
    known = read_record(places)
    if not as_json:
        for path in dict.fromkeys(change.path for change in known):
            terminal.tell(f"take back {path}")
    done: list[str] = []
    left: list[str] = []
    if known and (yes or not as_json):
        terminal.flush()
        files = count(len({change.path for change in known}), "file")
        ask_yes(f"Take the changes of {files} back?", yes=yes)
        done, left = apply.uninstall(places)
    if as_json:
        print_json(
            {
                "changes": [asdict(c) for c in known],
                "done": yes or not known,
                "removed": done,
                "left": left,
            }
        )
    else:
        # What was announced and done needs no second line.
        notes = dict.fromkeys(line for line in done if not line.endswith("removed"))
        for line in [*notes, f"{count(len(done), 'change')} taken back"]:
            terminal.say(f"safe-compose: {line}")
        terminal.say(
            f"safe-compose: what stays: backups and journal in {load_settings().store}, the package"
            " itself, and the functions of shells that are open"
        )
    if left:
        raise Refused(
            "; ".join(left), next_step="remove them by hand where you want to, then run this again"
        )
