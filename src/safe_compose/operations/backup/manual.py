"""The backups of `safe-compose backup`: nothing is stopped, databases are dumped while they run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safe_compose.core import backup_set
from safe_compose.core.backup import Backup, Omission
from safe_compose.core.folders import ABSENT
from safe_compose.core.observed import Layer, Location, Observed, kind_of_location
from safe_compose.core.policy import Verdict
from safe_compose.errors import OperationFailed, SafeComposeError, StateChanged, VerificationFailed
from safe_compose.grammar.parser import Invocation
from safe_compose.operations import folders
from safe_compose.operations.backup import layers
from safe_compose.operations.backup.hot import copy_as_used_now
from safe_compose.operations.backup.jobs import VolumeJob, make_manual
from safe_compose.operations.backup.location_copy import LocationCopy
from safe_compose.operations.backup.omissions import tell_omitted
from safe_compose.operations.backup.request import BackupRequest
from safe_compose.operations.verdicts import judge
from safe_compose.ui import terminal
from safe_compose.volumes import encryption

if TYPE_CHECKING:
    from safe_compose.workspace import Workspace


def find_project(
    workspace: "Workspace", invocations: Sequence[Invocation], name: str | None
) -> Invocation:
    """Return the first of these invocations that finds the project of that name, else the last.

    The first ones say more about the project.
    """
    for invocation in invocations[:-1]:
        found = workspace.engine.commands.look(invocation).project
        if found is not None and found.name == name:
            return invocation
    return invocations[-1]


class _Chosen(NamedTuple):
    """The scope of a manual backup."""

    volumes: tuple[tuple[Location, Verdict], ...]
    omitted: tuple[Omission, ...]
    sizes: Mapping[str, int]
    """The bytes of folders of the host."""


def _choose_volumes(workspace: "Workspace", observed: Observed, names: Sequence[str]) -> _Chosen:
    """Return the volumes and folders of a manual backup with their verdicts, and the omitted ones.

    Raises:
        OperationFailed: There is no such volume, no project, or nothing that needs a backup.
    """
    found = backup_set.select_volumes(observed)
    paths = [n for n in names if kind_of_location(n) == "folder"] if names else None
    host = folders.find_folders(workspace, observed, paths, for_backup=True)
    of_layers = layers.find_layers(workspace.engine, observed, names)
    if names:
        found = backup_set.BackupSet(tuple(v for v in observed.volumes if v.name in names), ())
        there = (*found.volumes, *(one for one, _ in (*host.data, *of_layers)))
        _require_found(names, [one.name for one in there])
    elif observed.project is None:
        raise OperationFailed(
            "there is no compose project here that compose can load; no backup was made",
            next_step=(
                "docker compose config --quiet says what is wrong; or name a project: safe-compose"
                " backup --project NAME"
            ),
        )
    judged: list[tuple[Location, Verdict]] = list(
        zip(
            found.volumes,
            judge(workspace, found.volumes, observed, workspace.rules(observed)),
            strict=True,
        )
    )
    judged += host.data
    judged += of_layers
    passed = {
        v.name: why
        for v, verdict in judged
        if not names and (why := backup_set.explain_omission(v, verdict, observed)) is not None
    }
    chosen = tuple((v, verdict) for v, verdict in judged if v.name not in passed)
    omitted = (
        *passed.values(),
        *_note_backups_of_absent(workspace, (*found.omitted, *host.omitted)),
    )
    if not chosen:
        tell_omitted(omitted)
        raise OperationFailed(
            "there is no volume or folder here that would need a backup",
            next_step="safe-compose volumes",
        )
    return _Chosen(chosen, omitted, host.sizes)


def _require_found(names: Iterable[str], found: Iterable[str]) -> None:
    """Check that each named volume and folder was found.

    Raises:
        OperationFailed: One was not.
    """
    if missing := sorted(set(names) - set(found)):
        kind = kind_of_location(missing[0])
        none = {"folder": "no service of this project mounts", "layer": "no data is in"}
        raise OperationFailed(
            f"{none.get(kind, 'no such volume:')} {', '.join(missing)}; no backup was made",
            next_step="docker volume ls" if kind == "volume" else "safe-compose volumes",
        )


def _note_backups_of_absent(workspace: "Workspace", omitted: Sequence[Omission]) -> list[Omission]:
    """Return the omissions, with the newest verified backup of each volume that does not exist.

    Such a volume was deleted by somebody.
    """
    absent = [o.name for o in omitted if o.kind == "volume" or o.reason.startswith(ABSENT)]
    backup = workspace.catalogue.reader.find_newest(workspace.engine.id, absent)
    return [
        (
            replace(o, reason=f"it is not there any more; backup {backup[o.name].id} holds it")
            if o.name in backup
            else o
        )
        for o in omitted
    ]


class ManualBackup(NamedTuple):
    """A verified backup with the workspace that it was made in.

    The workspace has the settings that the backup was made with.
    """

    workspace: "Workspace"
    backup: Backup


def back_up(
    workspace: "Workspace",
    invocation: Invocation,
    *,
    names: Sequence[str],
    wait: float,
    reason: str = "manual",
) -> Backup:
    """Back up a project or named volumes while everything runs, and return the last backup.

    Otherwise this is `back_up_all`.
    """
    return back_up_all(workspace, invocation, names=names, wait=wait, reason=reason)[-1].backup


def back_up_all(
    workspace: "Workspace",
    invocation: Invocation,
    *,
    names: Sequence[str],
    wait: float,
    reason: str = "manual",
    made: list[ManualBackup] | None = None,
) -> list[ManualBackup]:
    """Back up a project or named volumes while everything runs, and return the verified backups.

    As a rule there is one. Databases are dumped, everything else is archived, and nothing is
    stopped. A volume that cannot be backed up is left out and named in `Backup.lacking`;
    `report_incomplete` then gives the fault to end with. If the project's own file says how backups
    of its volumes are kept, the volumes of others come first, in a backup of their own with the
    user's settings.

    Args:
        workspace: The workspace.
        invocation: The command that means the project.
        names: The volumes; by default what the project's services mount (`backup_set`), without the
            disposable volumes.
        wait: Seconds to wait for the project's lock.
        reason: The reason that the backup records.
        made: A list that receives each backup as soon as it is made.

    Raises:
        OperationFailed: Nothing of the last backup could be made; `made` holds the earlier ones.
        VerificationFailed: Nothing of the last backup verified.
        StateChanged: Another safe-compose holds the lock.
        Refused: A person must first approve part of the settings.
    """
    observed = backup_set.add_idle_mounts(workspace.engine.commands.look(invocation))
    workspace.note_folders(observed)
    observed = folders.resolve(workspace.engine, observed)
    names = folders.resolve_names(workspace.engine, names)
    chosen, omitted, sizes = _choose_volumes(workspace, observed, names)
    # Before the first backup is made, because a person may have to approve settings.
    groups = _group_by_settings(workspace, observed, chosen)
    owners = (
        {v.project for v, _ in chosen}
        if names
        else {observed.project.name if observed.project else None}
    )
    project = (owners.pop() if len(owners) == 1 else None) or "volumes"
    made = [] if made is None else made
    failed: SafeComposeError | None = None
    apart: list[Omission] = []
    for number, (within, group) in enumerate(groups, start=1):
        last = number == len(groups)
        left_out = (*apart, *omitted) if last else ()
        request = BackupRequest(project, reason, (), observed, group, sizes=sizes, omitted=left_out)
        try:
            made.append(ManualBackup(within, _back_up_group(within, request, wait)))
            apart += _list_partial(made[-1].backup)
        except (OperationFailed, VerificationFailed, StateChanged) as fault:
            if isinstance(fault, StateChanged) and made:
                fault.message += f"; not backed up: {', '.join(v.name for v, _ in group)}"
            elif isinstance(fault, StateChanged) and failed is not None:
                raise failed from fault
            failed = failed or fault
            if last or isinstance(fault, StateChanged):
                _tell_made(made)
                raise
            apart += [
                backup_set.omit_failed(v.name, verdict.tier.value, fault.message, fault.next_step)
                for v, verdict in group
            ]
    return made


def _group_by_settings(
    workspace: "Workspace", observed: Observed, chosen: Sequence[tuple[Location, Verdict]]
) -> list[tuple["Workspace", tuple[tuple[Location, Verdict], ...]]]:
    """Return the volumes of others, then the project's own, each with their settings.

    Raises:
        Refused: A person must first approve part of the settings.
    """
    others = workspace.list_not_own(observed, [v for v, _ in chosen])
    groups = (
        tuple(j for j in chosen if j[0].name in others),
        tuple(j for j in chosen if j[0].name not in others),
    )
    return [
        (workspace.for_locations(observed, [v for v, _ in group], "no backup was made"), group)
        for group in groups
        if group
    ]


def _tell_made(made: Sequence[ManualBackup]) -> None:
    """Report the backups that are kept although a later one failed."""
    for one in made:
        names = ", ".join(v.name for v in one.backup.volumes)
        terminal.say(f"safe-compose: backup {one.backup.id} of {names} is kept")


def _list_partial(backup: Backup) -> list[Omission]:
    """Return the omissions that the project's own backup lists for the volumes of this one."""
    why = (
        "not the project's own, by its label and its users: kept as your own settings say, in"
        f" backup {backup.id}"
    )
    return [
        *backup.lacking,
        *(Omission(record.name, "volume", why, record.tier) for record in backup.volumes),
    ]


def _back_up_group(workspace: "Workspace", request: BackupRequest, wait: float) -> Backup:
    encryption.set_recipients(workspace.settings.recipients)

    def jobs(request: BackupRequest, into: Path) -> Iterator[VolumeJob]:
        taken = layers.list_taken_names(request.observed)
        for volume, verdict in request.volumes:
            if isinstance(volume, Layer):
                yield from layers.make_jobs(workspace.engine, volume, taken, into)
                continue
            copy = LocationCopy(
                workspace.engine, request, volume, verdict, into, workspace.settings.method
            )
            make = partial(copy_as_used_now, copy)
            yield VolumeJob(volume.name, verdict.tier.value, make)

    return make_manual(workspace, request, jobs, wait)
