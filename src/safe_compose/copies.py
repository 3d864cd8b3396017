"""The road of off-site copies: send a backup and read it back, look what is there, fetch one into the store."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safe_compose import destination, offsite, prompts, proof
from safe_compose.artifacts import Backup, Copy, Evidence, slug
from safe_compose.catalogue import Catalogue, read_copy
from safe_compose.config import Settings
from safe_compose.destination import Destination
from safe_compose.errors import BackupFailed, SafeComposeError, UsageError, VerifyFailed
from safe_compose.plan import size_text
from safe_compose.process import stamp, utc_now

MARGIN = 64 << 20
"""Bytes that must stay free in the store beside what is fetched."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one backup at one destination."""

    id: str
    project: str
    destination: Destination
    state: str
    """`verified`, `failed`, `there` (seen, not read), `would-send`, `would-fetch`, `unknown`."""
    at: str | None = None
    bytes: int = 0
    sent: int = 0
    """Files that were sent by this run."""
    fault: SafeComposeError | None = None
    words: str = ""

    def shape(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "id": self.id,
            "project": self.project,
            "destination": self.destination.name,
            "url": self.destination.url,
            "state": self.state,
            "at": self.at,
            "bytes": self.bytes,
            "sent": self.sent,
            "fault": self.fault.message if self.fault is not None else None,
        }


def chosen(settings: Settings, name: str | None) -> tuple[Destination, ...]:
    """The destination of that name or URL; all of the settings for None. Raises UsageError."""
    if name is None:
        if not settings.offsite:
            raise UsageError(
                "there is no off-site destination in the settings",
                next_step=f"name one by its URL ({destination.FORMS}), or write [offsite.NAME] into safe-compose.toml",
            )
        return settings.offsite
    found = next((d for d in settings.offsite if name in (d.name, d.url)), None)
    if found is not None:
        return (found,)
    if "://" not in name:
        there = f"there are: {', '.join(d.name for d in settings.offsite)}" if settings.offsite else "there is none"
        raise UsageError(f"the settings have no off-site destination {name!r}; {there}")
    try:
        return (destination.parse(name, name),)
    except ValueError as error:
        raise UsageError(f"that is no destination: {error}") from error  # its text may hold a password: not repeated


# -- send --------------------------------------------------------------------------------------------------------------


def push(catalogue: Catalogue, kept: Sequence[Backup], to: Destination, *, dry_run: bool = False) -> Iterator[Outcome]:
    """Send backups to one destination, each read back from its first byte to its last. Faults are in the outcomes."""
    try:
        place = offsite.open_place(to)
    except BackupFailed as fault:
        for one in kept:
            yield _failed(catalogue, one, to, fault, note=not dry_run)
        return
    try:
        for one in kept:
            try:
                yield _would_push(place, one, to) if dry_run else _push(catalogue, place, one, to)
            except SafeComposeError as fault:
                yield _failed(catalogue, one, to, fault, note=not dry_run)
    finally:
        place.close()


def _would_push(place: offsite.Place, kept: Backup, to: Destination) -> Outcome:
    there = offsite.MANIFEST in place.files(_key(kept))
    return Outcome(kept.id, kept.project, to, "there" if there else "would-send", bytes=kept.bytes)


def _push(catalogue: Catalogue, place: offsite.Place, kept: Backup, to: Destination) -> Outcome:
    if not kept.verified:
        raise VerifyFailed(
            f"backup {kept.id} is not verified ({kept.broken or 'it lacks evidence'}); it was not sent",
            next_step=f"safe-compose verify {kept.id}",
        )
    with catalogue.copying(kept.id):
        every = offsite.items(Path(kept.path), catalogue.sums(kept))
        with _moved(f"send {kept.id} to {to.name}, and read it back", 2 * sum(item.bytes for item in every)) as progress:
            done = offsite.push(place, Path(kept.path), _key(kept), every, progress)
        now = stamp(utc_now())
        before = _known(kept, to)
        pushed = now if done.sent or before is None else before.pushed or now
        catalogue.mark_copied(kept, Copy(to.name, to.url, pushed=pushed, verified=now))
    words = "was there already, read back" if not done.sent else "sent and read back"
    if done.was_whole and done.sent:
        words = f"was damaged there ({', '.join(done.sent)}), mended and read back"
    return Outcome(kept.id, kept.project, to, "verified", now, done.bytes, len(done.sent), words=words)


def _failed(catalogue: Catalogue, kept: Backup, to: Destination, fault: SafeComposeError, *, note: bool) -> Outcome:
    """A fault as an outcome, noted beside the backup. The backup in the store is as good as before."""
    if note:
        before = _known(kept, to) or Copy(to.name, to.url)
        with prompts.only_said():
            catalogue.mark_copied(kept, replace(before, url=to.url, fault=fault.message))
    return Outcome(kept.id, kept.project, to, "failed", stamp(utc_now()), kept.bytes, fault=fault)


def _known(kept: Backup, to: Destination) -> Copy | None:
    return next((c for c in kept.offsite if (c.name, c.url) == (to.name, to.url)), None)


def _key(kept: Backup) -> str:
    folder = Path(kept.path)
    return f"{folder.parent.name}/{folder.name}"


@contextmanager
def _moved(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for bytes that are reported as they come."""
    done = 0
    with prompts.progress(description, total=total) as report:

        def more(count: int) -> None:
            nonlocal done
            done += count
            report(done)

        yield more


# -- for a deletion ----------------------------------------------------------------------------------------------------


def reachable(required: Sequence[Destination]) -> None:
    """Each required destination answers, before anything is stopped for a backup. Raises BackupFailed."""
    for to in required:
        with _place(to, "nothing was deleted") as place:
            place.check(0)


def send_required(catalogue: Catalogue, kept: Backup, required: Sequence[Destination]) -> Backup:
    """The copies without which docker is not run. Raises BackupFailed: then the backup in the store is valid all the same."""
    for to in required:
        for outcome in push(catalogue, [kept], to):
            if outcome.fault is not None:
                raise BackupFailed(
                    f"the required off-site copy could not be made: {outcome.fault.message}; backup {kept.id} in the store is "
                    "valid; nothing was deleted",
                    next_step=f"correct that, then safe-compose offsite push {kept.id} --to {to.name}",
                ) from outcome.fault
            prompts.say(f"safe-compose: off-site {to.name}: {outcome.words}")
    return catalogue.find(kept.id)


# -- look --------------------------------------------------------------------------------------------------------------


def there(place: offsite.Place, project: str | None) -> list[Backup]:
    """Every whole copy as its own manifest tells it, the newest first; `path` is its key."""
    found = []
    for key in place.copies():
        folder, _, backup_id = key.partition("/")
        if project is None or folder in (project, slug(project), slug(f"{project} ")):
            found.append(_described(place, key, backup_id))
    return sorted(found, key=lambda b: (b.seq, b.created), reverse=True)


def _described(place: offsite.Place, key: str, backup_id: str) -> Backup:
    try:
        data = offsite.text(place, f"{key}/{offsite.MANIFEST}")
    except offsite.Missing:
        data = b""
    return read_copy(data, backup_id, key)


def listed(source: Destination, project: str | None) -> list[Backup]:
    """What is at a destination. Raises BackupFailed."""
    with _place(source) as place:
        return there(place, project)


def _find(place: offsite.Place, source: Destination, word: str, project: str | None) -> Backup:
    """One copy by its id, the beginning of one that is unique, or `latest`. Raises UsageError."""
    if word == "latest":
        every = [b for b in there(place, project) if b.broken is None]
        if not every:
            raise UsageError(f"there is no backup at {source.name}" + (f" of project {project}" if project else ""))
        return every[0]
    keys = [key for key in place.copies() if key.rpartition("/")[2].startswith(word)]
    exact = [key for key in keys if key.rpartition("/")[2] == word] or keys
    if len(exact) != 1:
        found = f"{len(exact)} backups begin with {word!r}" if exact else f"there is no backup {word!r}"
        raise UsageError(f"{found} at {source.name}", next_step=f"safe-compose offsite list --from {source.name}")
    return _described(place, exact[0], exact[0].rpartition("/")[2])


def verify(catalogue: Catalogue, source: Destination, word: str | None, project: str | None) -> Iterator[Outcome]:
    """Read one copy at a destination back as a whole, or for None every copy. Faults of a copy are in the outcomes.

    Raises BackupFailed when the destination cannot be reached, UsageError when it has no such backup.
    """
    with _place(source) as place:
        chosen = there(place, project) if word is None else [_find(place, source, word, project)]
        for kept in chosen:
            yield _verify(catalogue, place, kept, source)


def _verify(catalogue: Catalogue, place: offsite.Place, kept: Backup, source: Destination) -> Outcome:
    """What a copy must be is what the store says; where the store lacks it, what the copy says itself."""
    here = next((b for b in _in_store(catalogue, kept.id) if b.broken is None), None)
    size = 0
    try:
        if here is not None:
            sums = {item.name: item.sha256 for item in offsite.items(Path(here.path), catalogue.sums(here))}
        else:
            sums = catalogue.read_sums(_sums_there(place, kept), kept.id)
        size = sum(place.files(kept.path).values())
        with _moved(f"read {kept.id} back from {source.name}", size) as progress:
            faults = offsite.compare(place, kept.path, sums, progress)
        if faults:
            raise VerifyFailed(
                f"the copy of {kept.id} at {source.name} is not good: {'; '.join(faults)}",
                next_step=f"safe-compose offsite push {kept.id} --to {source.name}" if here is not None else None,
            )
    except SafeComposeError as fault:
        if here is not None:
            return _failed(catalogue, here, source, fault, note=True)
        return Outcome(kept.id, kept.project, source, "failed", stamp(utc_now()), size, fault=fault)
    now = stamp(utc_now())
    if here is not None:
        before = _known(here, source) or Copy(source.name, source.url)
        catalogue.mark_copied(here, replace(before, verified=now, fault=None))
    return Outcome(kept.id, kept.project, source, "verified", now, size, words="every byte read back")


def _sums_there(place: offsite.Place, kept: Backup) -> bytes:
    try:
        return offsite.text(place, f"{kept.path}/{offsite.SUMS}")
    except offsite.Missing as missing:
        raise VerifyFailed(f"the copy of {kept.id} is not good: {offsite.SUMS} is missing") from missing


def _in_store(catalogue: Catalogue, backup_id: str) -> list[Backup]:
    found = (catalogue.at(b.path) for b in catalogue.listed() if b.id == backup_id)
    return [b for b in found if b is not None]


# -- fetch -------------------------------------------------------------------------------------------------------------


def pull(
    catalogue: Catalogue, sources: Sequence[Destination], word: str, project: str | None, *, dry_run: bool = False
) -> tuple[Backup, Outcome]:
    """Fetch a backup into the store from the first destination that has it. It is listed after every byte was judged.

    One that is in the store and good is not fetched again. Raises UsageError, BackupFailed, VerifyFailed: then nothing of it
    is kept.
    """
    missing: UsageError | None = None
    for source in sources:
        with _place(source) as place:
            try:
                kept = _find(place, source, word, project)
            except UsageError as none:
                missing = missing or none
                continue
            return _pull(catalogue, place, source, kept, dry_run=dry_run)
    assert missing is not None  # there is at least one source
    raise missing


def _pull(
    catalogue: Catalogue, place: offsite.Place, source: Destination, kept: Backup, *, dry_run: bool
) -> tuple[Backup, Outcome]:
    for here in _in_store(catalogue, kept.id):
        if here.broken is None:
            return here, Outcome(kept.id, kept.project, source, "there", bytes=here.bytes, words="is in the store already")
        raise UsageError(
            f"backup {kept.id} is in the store, but broken ({here.broken}); nothing was fetched",
            next_step=f"move {here.path} out of the store, then fetch it again",
        )
    if kept.broken is not None:
        raise VerifyFailed(f"backup {kept.id} at {source.name} is not good: {kept.broken}; nothing was fetched")
    sizes = place.files(kept.path)
    need, free = sum(sizes.values()), catalogue.room().bytes
    if free < need + MARGIN:
        raise BackupFailed(
            f"no room for backup {kept.id}: {size_text(need)} are needed in {catalogue.root}, {size_text(free)} are free",
            next_step="make room there, or set SAFE_COMPOSE_HOME to a folder with more room",
        )
    if dry_run:
        return kept, Outcome(kept.id, kept.project, source, "would-fetch", bytes=need)
    with catalogue.copying(kept.id):
        fetched, evidence = _fetch(catalogue, place, source, kept, sizes)
        now = stamp(utc_now())
        catalogue.mark_verified(fetched, evidence)
        known = catalogue.mark_copied(catalogue.find(fetched.id), Copy(source.name, source.url, pushed=now, verified=now))
    return known, Outcome(kept.id, kept.project, source, "verified", now, need, words=f"fetched to {fetched.path}")


def _fetch(
    catalogue: Catalogue, place: offsite.Place, source: Destination, kept: Backup, sizes: dict[str, int]
) -> tuple[Backup, list[Evidence]]:
    try:
        described = offsite.text(place, f"{kept.path}/{offsite.MANIFEST}")
        summed = offsite.text(place, f"{kept.path}/{offsite.SUMS}")
    except offsite.Missing as missing:
        raise VerifyFailed(f"{missing} is missing at {source.name}; nothing was fetched") from missing
    with catalogue.adopt(kept.id, described, summed) as adoption:
        with _moved(f"fetch {kept.id} from {source.name}", sum(sizes.values())) as progress:
            for name, digest in adoption.files.items():
                blocks = offsite.fetch(place, f"{kept.path}/{name}", digest, sizes.get(name, 0), progress)
                adoption.write(name, blocks)
        evidence: list[Evidence] = []
        with prompts.progress(f"verify {kept.id}"):
            for record in adoption.backup.volumes:
                evidence += proof.check_files(adoption.path, record)
        return adoption.commit(), evidence


@contextmanager
def _place(at: Destination, but: str | None = None) -> Iterator[offsite.Place]:
    try:
        place = offsite.open_place(at)
    except BackupFailed as fault:
        if but is None:
            raise
        raise BackupFailed(f"{fault.message}; {but}", next_step=fault.next_step) from fault
    try:
        yield place
    finally:
        place.close()
