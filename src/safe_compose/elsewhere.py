"""Where the volumes of a backup go when they do not go home: a new volume, another project, or a scratch one for a look."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from shlex import quote

from safe_compose.artifacts import VolumeRecord
from safe_compose.errors import UsageError
from safe_compose.observed import CONFIG_HASH_LABEL, PROJECT_LABEL, SCRATCH_LABEL, VOLUME_LABEL, DeclaredMount

SCRATCH = "scratch"
"""The word for `--into` that means: a volume of its own, to look at and to throw away."""
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Other places for the volumes of a backup."""

    name: str
    """What was typed; it is asked for again before content is replaced."""
    owner: str
    """The project that gets them; `volumes` where none does."""
    records: tuple[VolumeRecord, ...]
    """With the labels that they get there. Local volumes without options: an option may point at the very place where the
    original keeps its data."""
    places: Mapping[str, str]
    """Name in the backup -> name there."""


def elsewhere(
    word: str,
    records: Sequence[VolumeRecord],
    *,
    backup_id: str,
    project: str,
    token: str,
    here: str,
    declared: Iterable[DeclaredMount],
) -> Elsewhere:
    """What `--into WORD` means: `scratch`; for one volume the name of a volume, for several that of a project.

    project: the backup's; token: what tells scratch volumes apart; here: the project of the folder that we stand in, whose
    compose file declares these mounts. Raises UsageError.
    """
    if word == SCRATCH:
        places = {r.name: f"scratch-{token}-{r.name}" for r in records}
        labels = {r.name: {SCRATCH_LABEL: backup_id} for r in records}
        return _made(word, "volumes", records, places, labels)
    if len(records) == 1:
        return _one(word, records[0], here, declared)
    if not _PROJECT.fullmatch(word):
        raise UsageError(f"--into takes the name of a project for several volumes, not {word!r}; nothing was restored")
    foreign = [r.name for r in records if not r.name.startswith(f"{project}_") or r.anonymous]
    if foreign or word == project:
        why = f"{', '.join(foreign)} would have no name there" if foreign else f"they are {project}'s own: leave --into out"
        raise UsageError(f"--into {word}: {why}; nothing was restored", next_step="choose one with --volume NAME")
    places = {r.name: f"{word}_{r.name.removeprefix(f'{project}_')}" for r in records}
    labels = {r.name: _labels_of(r, word) for r in records}
    return _made(word, word, records, places, labels)


def _labels_of(record: VolumeRecord, project: str) -> dict[str, str]:
    """Compose's own are those of the new project; a hash of the definition, which holds the old name, would make it ask."""
    kept = {key: value for key, value in record.labels.items() if key != CONFIG_HASH_LABEL}
    return kept | {PROJECT_LABEL: project} if PROJECT_LABEL in kept else kept


def _one(word: str, record: VolumeRecord, here: str, declared: Iterable[DeclaredMount]) -> Elsewhere:
    if not _VOLUME.fullmatch(word):
        raise UsageError(f"--into takes the name of a volume, not {word!r}; nothing was restored")
    if word == record.name:
        raise UsageError(f"{word} is where it comes from: leave --into out; nothing was restored")
    labels: dict[str, str] = {}
    ours = here and word.startswith(f"{here}_") and any(m.volume == word for m in declared)
    if ours:  # as compose would make it: then it asks nothing about it
        labels = {PROJECT_LABEL: here, VOLUME_LABEL: word.removeprefix(f"{here}_")}
    return _made(word, here if ours else "volumes", [record], {record.name: word}, {record.name: labels})


def _made(
    word: str,
    owner: str,
    records: Sequence[VolumeRecord],
    places: Mapping[str, str],
    labels: Mapping[str, Mapping[str, str]],
) -> Elsewhere:
    moved = (replace(r, driver="local", options={}, labels=labels[r.name], anonymous=False) for r in records)
    return Elsewhere(word, owner, tuple(moved), places)


def how_to_look(record: VolumeRecord, volume: str, image: str) -> Iterator[str]:
    """The commands that show what is in a scratch volume, without a network, and those that throw it away."""
    statistics = record.statistics
    name = quote(volume)
    if statistics is not None and statistics.kind in ("mysql", "mariadb") and record.users:
        words = sorted(statistics.settings.items())
        options = "".join(f" --{key.replace('_', '-')}={quote(value)}" for key, value in words)
        place = quote(record.users[0]["destination"])
        yield f"docker run -d --pull never --network none --name {name} -v {name}:{place} {quote(image)}{options}"
        yield f"docker exec -it {name} sh -c 'exec \"$(command -v mariadb || command -v mysql)\" -u root -p'"
        yield f"docker rm -f {name}"
        yield f"docker volume rm {name}"
        return
    if statistics is None or statistics.kind != "postgres" or not record.users:
        yield f"docker run --rm -it --pull never --network none -v {name}:/volume:ro --entrypoint sh {quote(image)}"
        yield f"docker volume rm {name}"
        return
    place = next((u["destination"] for u in record.users if statistics.pgdata.startswith(u["destination"])), "")
    settings = "".join(f" -c {quote(f'{key}={value}')}" for key, value in sorted(statistics.settings.items()))
    database = next((d.name for d in statistics.databases if d.name != "postgres"), "postgres")
    yield (
        f"docker run -d --pull never --network none --name {name} -e PGDATA={quote(statistics.pgdata)} "
        f"-v {name}:{quote(place or statistics.pgdata)} {quote(image)}{' postgres' + settings if settings else ''}"
    )
    yield f"docker exec -it {name} psql -U {quote(statistics.user)} -d {quote(database)}"
    yield f"docker rm -f {name}"
    yield f"docker volume rm {name}"
