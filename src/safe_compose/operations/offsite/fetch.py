"""The fetch of a copy into the store, where it is listed only after every byte was verified."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from safe_compose.core.backup import Backup, Evidence
from safe_compose.core.backup_summary import OffsiteCopy
from safe_compose.core.destination import Destination
from safe_compose.core.quantities import format_size
from safe_compose.core.text import shell_quote
from safe_compose.errors import OperationFailed, UsageError, VerificationFailed
from safe_compose.offsite import limits, transfer
from safe_compose.offsite import place as offsite_place
from safe_compose.operations.backup import verify as backup_verify
from safe_compose.operations.offsite.check import check_signature, find_in_store
from safe_compose.operations.offsite.copies import find
from safe_compose.operations.offsite.destinations import opening_place, showing_bytes
from safe_compose.operations.offsite.result import CopyOutcome
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.catalogue.restore_md import write_text
from safe_compose.system.files import MAKE_SPACE, read_regular
from safe_compose.system.process import read_clock, stamp
from safe_compose.ui import terminal

MARGIN = 64 << 20
"""The bytes that must stay free in the store in addition to what is fetched."""


def _refuse_rollback(catalogue: Catalogue, source: Destination, chosen: Backup) -> None:
    """Refuse `latest` at a destination that has lost a newer copy of the same project.

    It must not silently become an older one. This machine cannot miss what it never knew of.

    Raises:
        VerificationFailed: A newer copy was sent there and verified.
    """
    for line in catalogue.reader.list_summaries(chosen.project):
        sent = any(
            c.url == source.url and c.verified is not None and c.fault is None for c in line.offsite
        )
        if sent and line.engine_id == chosen.engine_id and line.seq > chosen.seq:
            raise VerificationFailed(
                f"the newest backup of {chosen.project} at {source.name} is {chosen.id}, but"
                f" {line.id}, which is newer, was sent there and read back: that place has lost it,"
                " or goes back in time; nothing was fetched",
                next_step=(
                    f"name the one that is meant: safe-compose offsite pull {chosen.id} --from"
                    f" {shell_quote(source.name)}"
                ),
            )


def pull(
    catalogue: Catalogue,
    sources: Sequence[Destination],
    word: str,
    project: str | None,
    *,
    dry_run: bool = False,
) -> tuple[Backup, CopyOutcome]:
    """Fetch a backup into the store from the first destination that has it.

    It is listed after every byte was verified. A good backup that is in the store is not fetched
    again.

    Args:
        catalogue: The catalogue of the store.
        sources: The destinations, the first one first.
        word: The id, the unique beginning of an id, or `latest`.
        project: Only a backup of this project, if given.
        dry_run: Only determine what would be fetched.

    Returns:
        The backup and the outcome.

    Raises:
        UsageError: No destination has it, or a broken one with this id is in the store.
        OperationFailed: It cannot be fetched, or does not fit into the store; nothing of it is
            kept.
        VerificationFailed: It is damaged or not signed; nothing of it is kept.
    """
    missing: UsageError | None = None
    for source in sources:
        with opening_place(source) as place:
            try:
                backup = find(place, source, word, project)
            except UsageError as none:
                missing = missing or none
                continue
            if word == "latest":
                _refuse_rollback(catalogue, source, backup)
            return _pull(catalogue, place, source, backup, dry_run=dry_run)
    assert missing is not None  # there is at least one source
    raise missing


def _pull(
    catalogue: Catalogue,
    place: offsite_place.Place,
    source: Destination,
    backup: Backup,
    *,
    dry_run: bool,
) -> tuple[Backup, CopyOutcome]:
    """Fetch one copy, unless it is in the store, and return the backup and the outcome."""
    for here in find_in_store(catalogue, backup.id):
        if here.broken is None:
            return here, CopyOutcome(
                backup.id,
                backup.project,
                source,
                "there",
                bytes=here.bytes,
                words="is in the store already",
            )
        raise UsageError(
            f"backup {backup.id} is in the store, but broken ({here.broken}); nothing was fetched",
            next_step=f"move {here.path} out of the store, then fetch it again",
        )
    if backup.broken is not None:
        raise VerificationFailed(
            f"backup {backup.id} at {source.name} is not good: {backup.broken}; nothing was fetched"
        )
    sizes = _read_sizes(place, source, backup)
    need, free = sum(sizes.values()), catalogue.folder.free_space().bytes
    if free < need + MARGIN:
        raise OperationFailed(
            f"no space for backup {backup.id}: {format_size(need)} are needed in {catalogue.root},"
            f" {format_size(free)} are free",
            next_step=MAKE_SPACE,
        )
    if dry_run:
        return backup, CopyOutcome(backup.id, backup.project, source, "would-fetch", bytes=need)
    with catalogue.writer.copying(backup.id):
        fetched = _fetch(catalogue, place, source, backup, sizes)
    now = fetched.offsite[0].verified
    return fetched, CopyOutcome(
        backup.id, backup.project, source, "verified", now, need, words=f"fetched to {fetched.path}"
    )


def _read_sizes(place: offsite_place.Place, source: Destination, backup: Backup) -> dict[str, int]:
    """Return the size of every file of a copy, which must be what its manifest says.

    Raises:
        VerificationFailed: A size differs.
    """
    listed = place.files(backup.path)
    wanted = {a.file: a.bytes for v in backup.volumes for a in v.artifacts}
    for name, size in wanted.items():
        if listed.get(name) != size:
            there = (
                f"has {listed[name]} bytes there, {size} were written"
                if name in listed
                else "is missing there, or no file"
            )
            raise VerificationFailed(
                f"backup {backup.id} at {source.name} is not good: {name} {there}; nothing was kept"
            )
    texts = (offsite_place.RECIPE, offsite_place.SUMS, offsite_place.MANIFEST)
    return wanted | {name: min(listed.get(name, 0), limits.LARGEST_TEXT) for name in texts}


def _fetch(
    catalogue: Catalogue,
    place: offsite_place.Place,
    source: Destination,
    backup: Backup,
    sizes: dict[str, int],
) -> Backup:
    """Fetch and verify every byte of a copy, and return the backup.

    What is recorded about it is what this run found out, and whether the copy was signed.

    Raises:
        VerificationFailed: It is damaged or not signed; nothing was kept.
    """
    from safe_compose.store.catalogue.schema import Verification

    try:
        described = transfer.read_text(place, f"{backup.path}/{offsite_place.MANIFEST}")
        summed = transfer.read_text(place, f"{backup.path}/{offsite_place.SUMS}")
    except offsite_place.FileMissing as missing:
        raise VerificationFailed(
            f"{missing} is missing at {source.name}; nothing was fetched"
        ) from missing
    if source.signed:
        check_signature(catalogue, place, source, backup, summed)
    with catalogue.writer.adopt(backup.id, described, summed) as adoption:
        if adoption.backup.project != backup.project or adoption.backup.seq != backup.seq:
            raise VerificationFailed(
                f"the manifest of {backup.id} at {source.name} changed while it was read;"
                " nothing was kept"
            )
        with showing_bytes(
            f"fetch {backup.id} from {source.name}", sum(sizes.values())
        ) as progress:
            for name, digest in adoption.files.items():
                blocks = transfer.fetch(
                    place, f"{backup.path}/{name}", digest, sizes.get(name, 0), progress
                )
                adoption.write(name, blocks)
        evidence: list[Evidence] = []
        with terminal.showing_progress(f"verify {backup.id}"):
            for record in adoption.backup.volumes:
                evidence += backup_verify.check_files(adoption.path, record)
        now = stamp(read_clock())
        if not source.signed:
            _warn_unsigned(adoption.path, adoption.backup, source)
        return adoption.commit(
            Verification(
                manifest_sha256=sha256(described).hexdigest(),
                evidence=tuple(evidence),
                offsite=(OffsiteCopy(source.name, source.url, pushed=now, verified=now),),
                unsigned_from=None if source.signed else source.url,
            )
        )


def _warn_unsigned(folder: Path, backup: Backup, source: Destination) -> None:
    terminal.say(
        f"safe-compose: {backup.id} is whole, but nobody vouches for who made it: copies at"
        f" {source.name} are not signed ([offsite.NAME] signed = true). It replaces no backup of"
        " this store"
    )
    if read_regular(folder / offsite_place.RECIPE) != write_text(backup).encode(
        "utf-8", "backslashreplace"
    ):
        terminal.say(
            f"safe-compose: its {offsite_place.RECIPE} is not the one that this version writes:"
            " read it before a line of it is run"
        )
