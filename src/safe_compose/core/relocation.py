"""The targets of a restore elsewhere: a volume, a folder, another project, or a scratch volume."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from shlex import quote

from safe_compose.core.backup import MYSQL_SETTINGS, POSTGRES_SETTINGS, VolumeRecord
from safe_compose.core.observed import (
    CONFIG_HASH_LABEL,
    FOLDER,
    PROJECT_LABEL,
    SCRATCH_LABEL,
    VOLUME_LABEL,
    DeclaredMount,
    kind_of_location,
)
from safe_compose.core.slug import slug
from safe_compose.errors import UsageError

SCRATCH = "scratch"
"""The word for `--into` that means a new volume, to inspect and to delete."""
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Relocation:
    """The other names and labels for the volumes of a backup."""

    name: str
    """The word that was typed; it is asked for again before content is replaced."""
    owner: str
    """The project that gets them; `volumes` where none does."""
    records: tuple[VolumeRecord, ...]
    """The records with their new labels. The volumes are local and have no options, because an
    option may point at the very place where the original keeps its data."""
    new_names: Mapping[str, str]
    """The name in the backup -> the new name."""


def plan_relocation(
    word: str,
    records: Sequence[VolumeRecord],
    *,
    backup_id: str,
    project: str,
    token: str,
    here: str,
    declared: Iterable[DeclaredMount],
) -> Relocation:
    """Return the meaning of `--into WORD`.

    It is `scratch`, the name of a volume, the path of a folder for the content of a folder or, for
    several volumes, the name of a project.

    Args:
        word: The word.
        records: The volumes to restore.
        backup_id: The backup's id.
        project: The backup's project.
        token: Makes the names of scratch volumes unique.
        here: The project of the current folder.
        declared: The mounts that its compose file declares.

    Raises:
        UsageError: The word is no such name, or names the original.
    """
    if word == SCRATCH:
        new_names = {r.name: f"scratch-{token}-{_name_for_volume(r)}" for r in records}
        labels = {r.name: {SCRATCH_LABEL: backup_id} for r in records}
        return _relocate(word, "volumes", records, new_names, labels)
    if len(records) == 1:
        return _relocate_one(word, records[0], here, declared)
    if not _PROJECT.fullmatch(word):
        raise UsageError(
            f"--into takes the name of a project for several volumes, not {word!r}; nothing was"
            " restored"
        )
    foreign = [r.name for r in records if not r.name.startswith(f"{project}_") or r.anonymous]
    if foreign or word == project:
        why = (
            f"{', '.join(foreign)} would have no name there"
            if foreign
            else f"they are {project}'s own: leave --into out"
        )
        raise UsageError(
            f"--into {word}: {why}; nothing was restored", next_step="choose one with --volume NAME"
        )
    new_names = {r.name: f"{word}_{r.name.removeprefix(f'{project}_')}" for r in records}
    labels = {r.name: _make_labels(r, word) for r in records}
    return _relocate(word, word, records, new_names, labels)


def _name_for_volume(record: VolumeRecord) -> str:
    """Return the part of a volume's name that tells what its content was."""
    return record.name if record.location == "volume" else slug(record.name.strip("/"))


def _make_labels(record: VolumeRecord, project: str) -> dict[str, str]:
    """Return a volume's labels for a new project.

    Compose's labels name the new project. The hash of the definition, which includes the old name,
    is dropped: it would make compose ask.
    """
    kept = {key: value for key, value in record.labels.items() if key != CONFIG_HASH_LABEL}
    return kept | {PROJECT_LABEL: project} if PROJECT_LABEL in kept else kept


def _relocate_one(
    word: str, record: VolumeRecord, here: str, declared: Iterable[DeclaredMount]
) -> Relocation:
    if word.startswith(FOLDER) and record.location == "folder" and word != record.name:
        return _relocate(word, "volumes", [record], {record.name: word}, {record.name: {}})
    if word.startswith(FOLDER) and record.location == "volume":
        raise UsageError(
            f"{record.name} is a volume, and goes into a volume, not into a folder; nothing was"
            " restored",
            next_step="restore it into a volume for a look: --into scratch",
        )
    if not _VOLUME.fullmatch(word) and word != record.name:
        raise UsageError(f"--into takes the name of a volume, not {word!r}; nothing was restored")
    if word == record.name:
        raise UsageError(f"{word} is where it comes from: leave --into out; nothing was restored")
    labels: dict[str, str] = {}
    ours = here and word.startswith(f"{here}_") and any(m.volume == word for m in declared)
    if ours:  # as compose would create it, so that compose does not ask about it
        labels = {PROJECT_LABEL: here, VOLUME_LABEL: word.removeprefix(f"{here}_")}
    return _relocate(
        word, here if ours else "volumes", [record], {record.name: word}, {record.name: labels}
    )


def _relocate(
    word: str,
    owner: str,
    records: Sequence[VolumeRecord],
    new_names: Mapping[str, str],
    labels: Mapping[str, Mapping[str, str]],
) -> Relocation:
    moved = (
        replace(
            r,
            driver="local",
            options={},
            labels=labels[r.name],
            anonymous=False,
            location=kind_of_location(new_names[r.name]),
        )
        for r in records
    )
    return Relocation(word, owner, tuple(moved), new_names)


def list_inspection_commands(record: VolumeRecord, volume: str, image: str) -> Iterator[str]:
    """Yield commands that show the content of a scratch volume, and that delete it.

    They use no network.
    """
    statistics = record.statistics
    name = quote(volume)
    if statistics is not None and statistics.kind in ("mysql", "mariadb") and record.users:
        options = "".join(
            f" --{key.replace('_', '-')}={quote(statistics.settings[key])}"
            for key in MYSQL_SETTINGS
            if key in statistics.settings
        )
        place = quote(record.users[0]["destination"])
        yield (
            f"docker run -d --pull never --network none --name {name} -v {name}:{place}"
            f" {quote(image)}{options}"
        )
        yield (
            f'docker exec -it {name} sh -c \'exec "$(command -v mariadb || command -v mysql)" -u'
            " root -p'"
        )
        yield f"docker rm -f {name}"
        yield f"docker volume rm {name}"
        return
    if statistics is None or statistics.kind != "postgres" or not record.users:
        yield (
            f"docker run --rm -it --pull never --network none -v {name}:/volume:ro --entrypoint sh"
            f" {quote(image)}"
        )
        yield f"docker volume rm {name}"
        return
    place = next(
        (u["destination"] for u in record.users if statistics.pgdata.startswith(u["destination"])),
        "",
    )
    settings = "".join(
        f" -c {quote(f'{key}={statistics.settings[key]}')}"
        for key in POSTGRES_SETTINGS
        if key in statistics.settings
    )
    database = next((d.name for d in statistics.databases if d.name != "postgres"), "postgres")
    yield (
        f"docker run -d --pull never --network none --name {name} -e"
        f" PGDATA={quote(statistics.pgdata)} -v {name}:{quote(place or statistics.pgdata)}"
        f" {quote(image)}{' postgres' + settings if settings else ''}"
    )
    yield f"docker exec -it {name} psql -U {quote(statistics.user)} -d {quote(database)}"
    yield f"docker rm -f {name}"
    yield f"docker volume rm {name}"
