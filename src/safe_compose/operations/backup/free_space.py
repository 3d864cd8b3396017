"""Free space: whether a backup fits into the store, checked before a byte of it is written."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from safe_compose.core import backup_set, plan, retention
from safe_compose.core.backup import Omission
from safe_compose.core.quantities import format_size
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed
from safe_compose.operations.backup.request import BackupRequest
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.system.files import MAKE_SPACE

if TYPE_CHECKING:
    from safe_compose.settings.load import Settings

FILES_PER_VOLUME = 16
"""The files and folders that a backup of one volume creates, with a reserve."""


def require_free_space(
    catalogue: Catalogue, engine: Engine, request: BackupRequest
) -> Mapping[str, int]:
    """Return the size of each volume in bytes, as far as the engine reports it.

    Raises:
        OperationFailed: A backup of them would not fit into the store.
    """
    sizes = engine.docker.sizes([v.name for v, _ in request.volumes])
    if short := _explain_shortage(catalogue, sum(sizes.values()), len(request.volumes)):
        raise OperationFailed(
            f"no space for the backup: {short}; nothing was deleted", next_step=MAKE_SPACE
        )
    return sizes


def _explain_shortage(catalogue: Catalogue, size: int, volumes: int) -> str:
    """Return why volumes of this total size in bytes would not fit; empty when they would."""
    need = plan.estimate_space(size)
    free = catalogue.folder.free_space()
    if free.bytes >= need and (
        free.inodes is None or free.inodes >= FILES_PER_VOLUME * (1 + volumes)
    ):
        return ""
    left = f"{free.bytes >> 20} MiB" if free.bytes < need else f"that, but only {free.inodes} files"
    return f"about {need >> 20} MiB are needed in {catalogue.root}, {left} are free"


def choose_fitting(
    catalogue: Catalogue, engine: Engine, request: BackupRequest
) -> tuple[BackupRequest, list[Omission]]:
    """Return the request reduced to the volumes that fit into the store, and the omitted ones.

    Those that matter most are taken first, and the smallest of them.

    For a request without volumes, whose size is unknown, the reserve alone has to be free.

    Raises:
        OperationFailed: None of them fits.
    """
    if not request.volumes and (short := _explain_shortage(catalogue, 0, 1)):
        raise OperationFailed(
            f"no space for the backup: {short}; no backup was made", next_step=MAKE_SPACE
        )
    sizes = {**request.sizes, **engine.docker.sizes([v.name for v, _ in request.volumes])}
    by_worth = sorted(
        request.volumes, key=lambda judged: (judged[1].tier.rank, sizes.get(judged[0].name, 0))
    )
    taken: set[str] = set()
    left = []
    for volume, verdict in by_worth:
        size = sum(sizes.get(name, 0) for name in (*taken, volume.name))
        if short := _explain_shortage(catalogue, size, 1 + len(taken)):
            left.append(
                backup_set.omit_failed(
                    volume.name, verdict.tier.value, f"no space for it: {short}", MAKE_SPACE
                )
            )
        else:
            taken.add(volume.name)
    if left and not taken:
        raise OperationFailed(
            f"{left[0].name}: {left[0].reason}; no backup was made", next_step=MAKE_SPACE
        )
    return (
        replace(
            request, sizes=sizes, volumes=tuple(j for j in request.volumes if j[0].name in taken)
        ),
        left,
    )


def explain_over_budget(catalogue: Catalogue, settings: "Settings") -> str | None:
    """Return a warning if the store exceeds `[store] max_size`, with the command to see more.

    Returns:
        The warning; None when the store is within its limit.
    """
    budget = settings.max_size
    if budget is None:
        return None
    used = sum(backup.bytes for backup in catalogue.reader.list_summaries())
    command = retention.explain_budget(used, budget, settings.retention)
    if command is None:
        return None
    return (
        f"the backups take {format_size(used)}, more than max_size ({format_size(budget)}); see"
        f" what could go: {command}"
    )
