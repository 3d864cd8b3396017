"""The copies at a destination, as their own manifests describe them."""

import re
from dataclasses import replace

from safe_compose.core.backup import Backup
from safe_compose.core.destination import Destination
from safe_compose.core.quantities import format_size
from safe_compose.core.short_id import find_matching, name_first
from safe_compose.core.slug import slug
from safe_compose.core.text import shell_quote
from safe_compose.errors import PlaceUnusable, UsageError, VerificationFailed
from safe_compose.offsite import limits, transfer
from safe_compose.offsite import place as offsite_place
from safe_compose.operations.offsite.destinations import opening_place
from safe_compose.store.catalogue.catalogue import read_copy
from safe_compose.store.catalogue.checks import is_project_folder
from safe_compose.system.process import is_id
from safe_compose.ui import terminal

_PART_OF_ID = re.compile(r"[0-9TZa-f-]{1,23}", re.ASCII)


def _list_keys(place: offsite_place.Place) -> tuple[list[str], int]:
    """Return `<project>/<id>` of every copy at a destination, and the number of other names there.

    Raises:
        OperationFailed: The destination cannot be read.
    """
    found: dict[str, None] = {}
    others = 0
    for key in place.copies():
        project, _, backup_id = key.partition("/")
        if is_project_folder(project) and is_id(backup_id):
            found[key] = None
        else:
            others += 1
    return list(found), others


def list_copies(place: offsite_place.Place, project: str | None) -> list[Backup]:
    """Return every complete copy as its own manifest describes it, the newest first.

    Its `path` is its key at the destination.

    Raises:
        PlaceUnusable: The manifests are too large altogether, or reading them takes too long.
        OperationFailed: The destination cannot be read.
    """
    found = []
    keys, others = _list_keys(place)
    if others:
        terminal.say(
            f"safe-compose: {place.title}: {others} folders there have no name of a backup; they"
            " were passed over"
        )
    read, looking = 0, limits.Deadline(place.title)
    for key in keys:
        folder, _, backup_id = key.partition("/")
        if project is None or folder in (project, slug(project), slug(f"{project} ")):
            data = read_manifest(place, key)
            read += len(data)
            looking.count()
            if read > limits.MOST_TEXT:
                raise PlaceUnusable(
                    f"{place.title}: its manifests take more than {format_size(limits.MOST_TEXT)};"
                    " no more was read"
                )
            found.append(_summarize(describe(data, key, backup_id)))
    return sorted(found, key=lambda b: (b.seq, b.created), reverse=True)


def read_manifest(place: offsite_place.Place, key: str) -> bytes:
    """Return the bytes of a manifest; empty when none can be read."""
    try:
        return transfer.read_text(place, f"{key}/{offsite_place.MANIFEST}")
    except (offsite_place.FileMissing, VerificationFailed):
        return b""


def describe(data: bytes, key: str, backup_id: str) -> Backup:
    """Return a copy as its manifest describes it.

    It is marked as broken if it is in the folder of another project.
    """
    found = read_copy(data, backup_id, key)
    folder = key.partition("/")[0]
    if found.broken is None and folder not in (slug(found.project), slug(f"{found.project} ")):
        return replace(found, broken="it lies in the folder of another project")
    return found


def _summarize(backup: Backup) -> Backup:
    """Return what lists show and what a copy is chosen by.

    Thousands of manifests are held in memory at once.
    """
    return replace(
        backup,
        volumes=tuple(replace(v, statistics=None, sqlite=(), notes=()) for v in backup.volumes),
        warnings=(),
    )


def list_all(source: Destination, project: str | None) -> list[Backup]:
    """Return the copies at a destination.

    Raises:
        OperationFailed: It cannot be read.
    """
    with opening_place(source) as place:
        return list_copies(place, project)


def find(place: offsite_place.Place, source: Destination, word: str, project: str | None) -> Backup:
    """Return one copy by its id, its short id, a unique beginning of either, or `latest`.

    Raises:
        UsageError: There is no such copy, or there are several.
        OperationFailed: The destination cannot be read.
    """
    if word == "latest":
        every = [b for b in list_copies(place, project) if b.broken is None]
        if not every:
            raise UsageError(
                f"there is no backup at {shell_quote(source.name)}"
                + (f" of project {project}" if project else ""),
                next_step=f"safe-compose offsite list --from {shell_quote(source.name)}",
            )
        return describe(read_manifest(place, every[0].path), every[0].path, every[0].id)
    if not _PART_OF_ID.fullmatch(word):
        raise UsageError(
            f"{word!r:.80} is no id of a backup, nor the beginning of one",
            next_step="safe-compose offsite list",
        )
    exact = find_matching(word, _list_keys(place)[0], lambda key: key.rpartition("/")[2])
    if len(exact) != 1:
        meant = name_first([key.rpartition("/")[2] for key in exact])
        found = (
            f"{word!r} means {len(exact)} backups ({meant})"
            if exact
            else f"there is no backup {word!r}"
        )
        raise UsageError(
            f"{found} at {shell_quote(source.name)}",
            next_step=f"safe-compose offsite list --from {shell_quote(source.name)}",
        )
    return describe(read_manifest(place, exact[0]), exact[0], exact[0].rpartition("/")[2])
