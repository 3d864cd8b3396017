"""The settings that a person must approve before they count.

A project's file comes with a repository. So destinations and keys that it names, and that the
user's own settings do not, are no settings until the user has approved them
(`store.settings_approval`).
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safe_compose.core.destination import Destination

if TYPE_CHECKING:
    from safe_compose.settings.schema import FileSettings


class ForeignSetting(NamedTuple):
    """A setting for a destination or a key that the user's own settings do not name."""

    scope: str
    """The folder of the project that sets it; empty for the user's own file."""
    key: str
    """`offsite.NAME`, `encrypt.recipients`, `store.path`, `schedule.webhook`."""
    shown: str
    """The text that a person is asked about, without secrets."""
    value: tuple[str, ...]
    """The whole value: when it changes, the person is asked again."""


def find_foreign(
    project: "FileSettings", user: "FileSettings | None", folder: Path, own_store: Path
) -> tuple[ForeignSetting, ...]:
    """Return the settings of a project's file that need a person's approval.

    They reach beyond its folder, and the user's own settings do not name their targets.
    """
    scope = os.path.realpath(folder)
    found = []
    if (
        project.store is not None
        and not is_in(project.store, folder)
        and not is_in(project.store, own_store)
    ):
        real = os.path.realpath(project.store)
        found.append(ForeignSetting(scope, "store.path", f"backups are kept in {real}", (real,)))
    known = {_address(d) for d in (user.offsite if user is not None else ())}
    found += [
        ForeignSetting(scope, f"offsite.{d.name}", f"copies go to {_show(d)}", _address(d))
        for d in project.offsite
        if _address(d) not in known
    ]
    if set(project.recipients) - set(user.recipients if user is not None else ()):
        keys = tuple(sorted(project.recipients))
        found.append(
            ForeignSetting(
                scope,
                "encrypt.recipients",
                f"backups are readable only with a key of {', '.join(keys)}",
                keys,
            )
        )
    if project.webhook is not None and project.webhook != (
        user.webhook if user is not None else None
    ):
        host = project.webhook.split("/")[2].rpartition("@")[2]
        found.append(
            ForeignSetting(
                scope,
                "schedule.webhook",
                f"scheduled runs are reported to {host}",
                (project.webhook,),
            )
        )
    return tuple(found)


def find_plain_endpoints(user: "FileSettings | None") -> tuple[ForeignSetting, ...]:
    """Return the S3 servers of the user's own file that are reached without TLS.

    Data and the name of a key go there readable for all.
    """
    return tuple(
        ForeignSetting(
            "",
            f"offsite.{d.name}",
            f"copies go WITHOUT ENCRYPTION ON THE WAY to {_show(d)}",
            _address(d),
        )
        for d in (user.offsite if user is not None else ())
        if d.endpoint is not None and d.endpoint.startswith("http://")
    )


def _address(to: Destination) -> tuple[str, ...]:
    signatures = ("signed", *sorted(to.verify_keys)) if to.signed or to.verify_keys else ()
    return (to.url, to.endpoint or "", to.region or "", *signatures)


def _show(to: Destination) -> str:
    keys = f", where signatures of {', '.join(to.verify_keys)} count" if to.verify_keys else ""
    return to.url + (f" at {to.endpoint}" if to.endpoint is not None else "") + keys


def is_in(path: Path, folder: Path) -> bool:
    """Return whether a path is a folder or in it, symbolic links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
