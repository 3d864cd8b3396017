"""The verification of off-site copies: they are read back, and their signatures checked."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from safe_compose.core.backup import Backup
from safe_compose.core.backup_summary import OffsiteCopy
from safe_compose.core.destination import Destination
from safe_compose.core.text import shell_quote
from safe_compose.errors import SafeComposeError, VerificationFailed
from safe_compose.offsite import place as offsite_place
from safe_compose.offsite import signing, transfer
from safe_compose.operations.offsite.copies import find, list_copies
from safe_compose.operations.offsite.destinations import open_signer, opening_place, showing_bytes
from safe_compose.operations.offsite.result import CopyOutcome
from safe_compose.operations.offsite.send import find_known_copy, note_failure
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.system.process import read_clock, stamp


def verify(
    catalogue: Catalogue, source: Destination, word: str | None, project: str | None
) -> Iterator[CopyOutcome]:
    """Read copies at a destination back completely, and yield an outcome for each.

    Faults of a copy are in its outcome.

    Args:
        catalogue: The catalogue of the store.
        source: The destination.
        word: The copy; None for every copy.
        project: Only copies of this project, if given.

    Raises:
        OperationFailed: The destination cannot be reached.
        UsageError: It has no such copy.
    """
    with opening_place(source) as place:
        chosen = (
            list_copies(place, project) if word is None else [find(place, source, word, project)]
        )
        for backup in chosen:
            yield _verify(catalogue, place, backup, source)


def _verify(
    catalogue: Catalogue, place: offsite_place.Place, backup: Backup, source: Destination
) -> CopyOutcome:
    """Verify one copy and return its outcome.

    It must be what the store says, or, when the store lacks the backup, what the copy itself says.
    """
    here = next((b for b in find_in_store(catalogue, backup.id) if b.broken is None), None)
    size = 0
    try:
        if backup.broken is not None and here is None:
            raise VerificationFailed(
                f"the copy of {backup.id} at {source.name} is not good: {backup.broken}"
            )
        if source.signed:
            check_signature(catalogue, place, source, backup, _read_sums(place, backup))
        if here is not None:
            sums = {
                item.name: item.sha256
                for item in transfer.list_items(Path(here.path), catalogue.reader.sums(here))
            }
        else:
            sums = catalogue.reader.read_sums(_read_sums(place, backup), backup.id)
        sizes = place.files(backup.path)
        size = sum(sizes.get(name, 0) for name in sums)
        with showing_bytes(f"read {backup.id} back from {source.name}", size) as progress:
            faults = transfer.compare(place, backup.path, sums, progress)
        if faults:
            raise VerificationFailed(
                f"the copy of {backup.id} at {source.name} is not good: {'; '.join(faults)}",
                next_step=(
                    f"safe-compose offsite push {backup.id} --to {shell_quote(source.name)}"
                    if here is not None
                    else None
                ),
            )
    except SafeComposeError as fault:
        if here is not None:
            return note_failure(catalogue, here, source, fault, note=True)
        return CopyOutcome(
            backup.id, backup.project, source, "failed", stamp(read_clock()), size, fault=fault
        )
    now = stamp(read_clock())
    if here is not None:
        before = find_known_copy(here, source) or OffsiteCopy(source.name, source.url)
        catalogue.writer.mark_copied(here, replace(before, verified=now, fault=None))
    return CopyOutcome(
        backup.id, backup.project, source, "verified", now, size, words="every byte read back"
    )


def _read_sums(place: offsite_place.Place, backup: Backup) -> bytes:
    try:
        return transfer.read_text(place, f"{backup.path}/{offsite_place.SUMS}")
    except offsite_place.FileMissing as missing:
        raise VerificationFailed(
            f"the copy of {backup.id} is not good: {offsite_place.SUMS} is missing"
        ) from missing


def check_signature(
    catalogue: Catalogue,
    place: offsite_place.Place,
    source: Destination,
    backup: Backup,
    summed: bytes,
) -> None:
    """Check that one of the keys that count for a destination signed the copy.

    Args:
        catalogue: The catalogue of the store.
        place: The open destination.
        source: The destination.
        backup: The copy.
        summed: The bytes of its SHA256SUMS.

    Raises:
        VerificationFailed: None did.
    """
    subject = f"backup {backup.id} at {source.name}"
    try:
        signature = transfer.read_text(place, f"{backup.path}/{signing.SIGNATURE}")
    except offsite_place.FileMissing as missing:
        raise VerificationFailed(
            f"{subject} has no signature ({signing.SIGNATURE}), and copies there must have one;"
            " nothing was kept",
            next_step=(
                f"where it is in the store: safe-compose offsite push {backup.id} --to"
                f" {shell_quote(source.name)} signs it"
            ),
        ) from missing
    own = open_signer(source, catalogue.folder.access).public()
    signing.check(
        summed, signature, (*source.verify_keys, *((own,) if own is not None else ())), subject
    )


def find_in_store(catalogue: Catalogue, backup_id: str) -> list[Backup]:
    """Return the backups in the store with this id."""
    found = (
        catalogue.reader.at(b.path) for b in catalogue.reader.list_summaries() if b.id == backup_id
    )
    return [b for b in found if b is not None]
