"""The transfer of backups to a destination; each is read back completely."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from safe_compose.core.backup import Backup
from safe_compose.core.backup_summary import OffsiteCopy
from safe_compose.core.destination import Destination
from safe_compose.core.text import shell_quote
from safe_compose.errors import OperationFailed, SafeComposeError, VerificationFailed
from safe_compose.offsite import place as offsite_place
from safe_compose.offsite import signing, transfer
from safe_compose.operations.offsite.destinations import open_signer, opening_place, showing_bytes
from safe_compose.operations.offsite.result import CopyOutcome
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.system.files import read_regular
from safe_compose.system.process import read_clock, stamp
from safe_compose.ui import terminal


def push(
    catalogue: Catalogue, backups: Sequence[Backup], to: Destination, *, dry_run: bool = False
) -> Iterator[CopyOutcome]:
    """Send backups to one destination, read each back completely, and yield the outcomes.

    Faults are in the outcomes.
    """
    try:
        place = transfer.open_place(to)
    except OperationFailed as fault:
        for one in backups:
            yield note_failure(catalogue, one, to, fault, note=not dry_run)
        return
    try:
        for one in backups:
            try:
                yield _plan_push(place, one, to) if dry_run else _push(catalogue, place, one, to)
            except SafeComposeError as fault:
                yield note_failure(catalogue, one, to, fault, note=not dry_run)
    finally:
        place.close()


def _plan_push(place: offsite_place.Place, backup: Backup, to: Destination) -> CopyOutcome:
    there = offsite_place.MANIFEST in place.files(_make_key(backup))
    return CopyOutcome(
        backup.id, backup.project, to, "there" if there else "would-send", bytes=backup.bytes
    )


def _push(
    catalogue: Catalogue, place: offsite_place.Place, backup: Backup, to: Destination
) -> CopyOutcome:
    """Send one backup, read it back, record the copy, and return the outcome.

    Raises:
        VerificationFailed: The backup is not verified; it was not sent.
    """
    if not backup.verified:
        raise VerificationFailed(
            f"backup {backup.id} is not verified ({backup.broken or 'it lacks evidence'}); it was"
            " not sent",
            next_step=f"safe-compose verify {backup.id}",
        )
    with catalogue.writer.copying(backup.id):
        every = _list_items(catalogue, backup, to)
        with showing_bytes(
            f"send {backup.id} to {to.name}, and read it back",
            2 * sum(item.bytes for item in every),
        ) as progress:
            done = transfer.push(place, Path(backup.path), _make_key(backup), every, progress)
        now = stamp(read_clock())
        before = find_known_copy(backup, to)
        pushed = now if done.sent or before is None else before.pushed or now
        catalogue.writer.mark_copied(
            backup, OffsiteCopy(to.name, to.url, pushed=pushed, verified=now)
        )
    words = "was there already, read back" if not done.sent else "sent and read back"
    if done.was_whole and done.sent:
        words = f"was damaged there ({', '.join(done.sent)}), mended and read back"
    return CopyOutcome(
        backup.id, backup.project, to, "verified", now, done.bytes, len(done.sent), words=words
    )


def _list_items(
    catalogue: Catalogue, backup: Backup, to: Destination
) -> list[transfer.TransferItem]:
    """Return the files of a copy: those of the backup, and a signature where one is required.

    Raises:
        VerificationFailed: A file is not part of the backup, or changes.
        OperationFailed: A file cannot be read or signed.
    """
    names = {
        offsite_place.MANIFEST,
        offsite_place.RECIPE,
        *(a.file for v in backup.volumes for a in v.artifacts),
    }
    sums = catalogue.reader.sums(backup)
    if strange := sorted(sums.keys() ^ names):
        raise VerificationFailed(
            f"backup {backup.id}: {strange[0]!r} is no file of it, or is missing in SHA256SUMS; it"
            " was not copied"
        )
    every = transfer.list_items(Path(backup.path), sums)
    if not to.signed:
        return every
    summed = read_regular(Path(backup.path, offsite_place.SUMS))
    if sha256(summed).hexdigest() != next(
        item.sha256 for item in every if item.name == offsite_place.SUMS
    ):
        raise VerificationFailed(
            f"SHA256SUMS of backup {backup.id} is changing this moment; it was not copied"
        )
    own = open_signer(to, catalogue.folder.access)
    signature = own.sign(summed)
    public = own.public()
    signing.check(summed, signature, (public,) if public is not None else (), f"backup {backup.id}")
    signed = transfer.TransferItem(
        signing.SIGNATURE, len(signature), sha256(signature).hexdigest(), signature
    )
    return [*every[:-1], signed, every[-1]]


def note_failure(
    catalogue: Catalogue, backup: Backup, to: Destination, fault: SafeComposeError, *, note: bool
) -> CopyOutcome:
    """Return a fault as an outcome, and record it with the backup if `note` is set.

    The backup in the store is as good as before.
    """
    if note:
        before = find_known_copy(backup, to) or OffsiteCopy(to.name, to.url)
        with terminal.reporting_only():
            catalogue.writer.mark_copied(backup, replace(before, url=to.url, fault=fault.message))
    return CopyOutcome(
        backup.id, backup.project, to, "failed", stamp(read_clock()), backup.bytes, fault=fault
    )


def find_known_copy(backup: Backup, to: Destination) -> OffsiteCopy | None:
    """Return what the store knows about a backup's copy at a destination; None for nothing."""
    return next((c for c in backup.offsite if (c.name, c.url) == (to.name, to.url)), None)


def _make_key(backup: Backup) -> str:
    """Return the key of a backup at a destination: `<project>/<id>`."""
    folder = Path(backup.path)
    return f"{folder.parent.name}/{folder.name}"


def require_reachable(required: Sequence[Destination]) -> None:
    """Check that each required destination answers, before anything is stopped for a backup.

    Raises:
        OperationFailed: One does not.
    """
    for to in required:
        with opening_place(to, "nothing was deleted") as place:
            place.check(0)


def send_required(catalogue: Catalogue, backup: Backup, required: Sequence[Destination]) -> Backup:
    """Make the copies without which docker is not run, and return the backup.

    Raises:
        OperationFailed: A copy could not be made; the backup in the store is valid all the same.
    """
    for to in required:
        for outcome in push(catalogue, [backup], to):
            if outcome.fault is not None:
                raise OperationFailed(
                    f"the required off-site copy could not be made: {outcome.fault.message}; backup"
                    f" {backup.id} in the store is valid; nothing was deleted",
                    next_step=(
                        f"correct that, then safe-compose offsite push {backup.id} --to"
                        f" {shell_quote(to.name)}"
                    ),
                ) from outcome.fault
            terminal.say(f"safe-compose: off-site {to.name}: {outcome.words}")
    return catalogue.reader.find(backup.id)
