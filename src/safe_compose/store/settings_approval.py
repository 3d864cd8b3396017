"""A person's approval of settings that send data off-site or choose who can decrypt it.

A cloned repository brings a `safe-compose.toml` that belongs to the user like all its other files.
So settings that reach outside its own folder count only once a person has seen them, as with
`direnv allow`. The approval is a file in the user's own store, named by a hash of what was
approved: a changed setting needs a new approval.
"""

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from safe_compose.errors import Refused
from safe_compose.settings.foreign_settings import ForeignSetting
from safe_compose.settings.load import Settings
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.system import files
from safe_compose.system.files import acting_as_owner, make_folders, reporting
from safe_compose.system.process import read_clock, stamp
from safe_compose.ui import terminal as ui_terminal

COMMAND = "safe-compose approve --settings"
_told: set[str] = set()


def list_waiting(settings: Settings) -> tuple[ForeignSetting, ...]:
    """Return the settings that no person has approved yet."""
    return tuple(one for one in settings.foreign if is_waiting(settings, one))


def is_waiting(settings: Settings, one: ForeignSetting) -> bool:
    """Return whether no person has approved this setting yet."""
    return not _is_approved(settings, one)


def reduce_to_approved(settings: Settings, *, silent: bool = False) -> Settings:
    """Return the settings that hold while others wait for approval, and report those that wait.

    While a setting of the project waits, these are the user's own settings. The user's own
    destinations that wait are left out.

    Args:
        settings: The settings as they were read.
        silent: Do not report what waits.
    """
    found = list_waiting(settings)
    if not found:
        return settings
    if not silent:
        lines = "; ".join(format_setting(one) for one in found)
        say_once(
            f"safe-compose: not obeyed until a person approves it: {lines}. To do so: {COMMAND}"
        )
    left = (
        settings.personal
        if settings.personal is not None and any(one.scope for one in found)
        else settings
    )
    refused = {one.key for one in found if not one.scope}
    return replace(
        left,
        offsite=tuple(
            d for d in left.offsite if f"offsite.{d.name}" not in refused or d.endpoint is None
        ),
    )


def tell(settings: Settings) -> None:
    """Report which settings files are not obeyed, and why."""
    for remark in settings.remarks:
        say_once(f"safe-compose: {remark}")


def say_once(text: str) -> None:
    """Write a line to stderr, once per process, because settings are read more than once."""
    if text not in _told:
        _told.add(text)
        ui_terminal.say(text)


def require(settings: Settings, doing: str) -> None:
    """Require that no setting waits for an approval.

    Args:
        settings: The settings as they were read.
        doing: What was not done, for the message.

    Raises:
        Refused: A setting waits (exit code 77).
    """
    if found := list_waiting(settings):
        raise make_refusal(found, doing)


def make_refusal(found: Sequence[ForeignSetting], doing: str) -> Refused:
    """Return the refusal that names the waiting settings and the command for a person."""
    folder = next((one.scope for one in found if one.scope), os.getcwd())  # noqa: PTH109
    return Refused(
        "settings that no person has approved yet:"
        f" {'; '.join(format_setting(one) for one in found)}; {doing}",
        next_step=f"a person types, in a terminal in {folder}: {COMMAND}",
    )


def ask(
    settings: Settings, found: Sequence[ForeignSetting], terminal: ui_terminal.Terminal
) -> bool:
    """Show the waiting settings, and record them as approved if the person agrees.

    Returns:
        Whether the person agreed.

    Raises:
        OperationFailed: The approval cannot be written.
    """
    ui_terminal.say(
        "These settings send data to other places than your own settings, encrypt it for other"
        " keys, or speak for another project:"
    )
    for one in found:
        ui_terminal.say(f"  {format_setting(one)}")
    if terminal.ask("Approve them from now on, until they change? [y/N] ").strip().lower() not in (
        "y",
        "yes",
    ):
        return False
    record(settings, found)
    return True


def approve(settings: Settings) -> None:
    """Ask a person to approve the waiting settings.

    Raises:
        Refused: There is no terminal, or the answer is no.
        OperationFailed: The approval cannot be written.
    """
    found = list_waiting(settings)
    if not found:
        ui_terminal.say("safe-compose: nothing in the settings here waits for an approval")
        return
    terminal = ui_terminal.Terminal.open()
    if terminal is None:
        raise Refused(
            "settings are approved by a person, and there is no terminal here; nothing was approved"
        )
    if not ask(settings, found, terminal):
        raise Refused("not confirmed; nothing was approved")
    ui_terminal.say("safe-compose: approved until they change")


def record(settings: Settings, approved: Sequence[ForeignSetting]) -> None:
    """Write approvals to the user's own store.

    Raises:
        OperationFailed: The store cannot be written.
    """
    access = (settings.personal or settings).access
    Catalogue.at(settings.approved_in or settings.store, access).folder.ensure()
    private = replace(access, folders=0o700, files=0o600)
    with reporting("write down the approval"), acting_as_owner(access):
        make_folders(_folder(settings), private)
        for one in approved:
            when = {"at": stamp(read_clock()), "uid": os.getuid()}
            shape = {"version": 1, "scope": one.scope, "key": one.key, "shown": one.shown, **when}
            files.replace(
                _path(settings, one),
                (json.dumps(shape, sort_keys=True) + "\n").encode("ascii"),
                private,
            )


def format_setting(one: ForeignSetting) -> str:
    """Format one setting for people: its file, its key and its effect."""
    if one.key == "project":
        return f"{one.scope}: {one.shown}"
    return (
        f"{f'{one.scope}/safe-compose.toml' if one.scope else 'your own settings'}: {one.key}:"
        f" {one.shown}"
    )


def _is_approved(settings: Settings, one: ForeignSetting) -> bool:
    owners = {
        0,
        os.geteuid(),
        *([settings.access.owner[0]] if settings.access.owner is not None else []),
    }
    try:
        found = os.lstat(_path(settings, one))
    except OSError:
        return False  # a file that cannot be examined approves nothing
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_uid in owners
        and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _folder(settings: Settings) -> Path:
    return (settings.approved_in or settings.store) / "journal" / "settings"


def _path(settings: Settings, one: ForeignSetting) -> Path:
    digest = sha256(
        json.dumps([one.scope, one.key, one.value]).encode("utf-8", "backslashreplace")
    ).hexdigest()
    return _folder(settings) / f"{digest}.json"
