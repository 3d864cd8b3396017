"""The content of one restored volume: from the trash, from an archive, or from a dump."""

from dataclasses import replace
from pathlib import Path

from safe_compose.core.backup import VolumeRecord
from safe_compose.core.observed import describe_location
from safe_compose.core.quantities import count
from safe_compose.databases import server_files, sqlite
from safe_compose.databases.protocol import Database
from safe_compose.databases.registry import find_database
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed
from safe_compose.operations import trash
from safe_compose.operations.recover.rollback import add_heartbeat
from safe_compose.operations.restore.plan import RestorePlan
from safe_compose.operations.restore.target import RestoreTarget, find_archive
from safe_compose.store.journal import Run
from safe_compose.ui import terminal
from safe_compose.volumes import archive, extraction
from safe_compose.volumes.engine_location import EngineLocation


def fill(
    plan: RestorePlan,
    run: Run,
    target: RestoreTarget,
    into: str,
    *,
    empty_first: bool,
    add: bool = False,
    with_settings: bool = False,
) -> str:
    """Fill a volume from the trash, from the archive, or else from the dump, and return which.

    Args:
        plan: The plan that the target is part of.
        run: The run to journal to.
        target: The target with its record.
        into: The volume to fill.
        empty_first: Clear the volume first.
        add: Add only what is missing.
        with_settings: Also restore what a dump's server kept next to its databases.

    Raises:
        SafeComposeError: It failed.
    """
    location = EngineLocation(plan.engine, into)
    if empty_first:
        extraction.clear(location)
    if target.trash:
        trash.move_back(location, target.trash)
        return "trash"
    if find_archive(target.record) is not None:
        _fill_from_archive(plan, run, target, location, add=add)
        source = "archive"
    else:
        _fill_from_dump(plan, run, target, location)
        _restore_settings(plan, target, location, wanted=with_settings)
        source = target.source
    extraction.sync(location)
    return source


def _fill_from_archive(
    plan: RestorePlan, run: Run, target: RestoreTarget, location: EngineLocation, *, add: bool
) -> None:
    into, folder, artifacts = location.name, Path(plan.backup.path), target.record.artifacts
    tar = find_archive(target.record)
    size = tar.uncompressed_bytes if tar is not None else None
    with terminal.showing_progress(
        f"restore {_name(target, into)}", total=size, ends=False
    ) as report:
        progress = add_heartbeat(run, into, report)
        lost = extraction.extract(location, folder, artifacts, progress, add=add)
    if lost:
        terminal.say(f"safe-compose: {_name(target, into)}: {lost}")
    if copies := sqlite.put_copies(location, folder, artifacts):
        terminal.say(
            f"safe-compose: {_name(target, into)}: the consistent copy of"
            f" {count(copies, 'SQLite database')} is back, not the archive's"
        )


def _name(target: RestoreTarget, into: str) -> str:
    """Return the name of what is filled, for people: a folder is filled under another one."""
    return target.into if target.swap is not None else into


def _fill_from_dump(
    plan: RestorePlan, run: Run, target: RestoreTarget, location: EngineLocation
) -> None:
    into, folder, record = location.name, Path(plan.backup.path), target.record
    if others := archive.select_others(record.artifacts):
        with terminal.showing_progress(
            f"restore the other files of {_name(target, into)}"
        ) as report:
            progress = add_heartbeat(run, into, report)
            lost = extraction.extract(location, folder, others, progress)
        if lost:
            terminal.say(f"safe-compose: {_name(target, into)}: {lost}")
    size = sum(a.uncompressed_bytes for a in record.artifacts if a.kind in ("database", "base"))
    with terminal.showing_progress(
        f"restore {_name(target, into)} from its {target.source}", total=size, ends=False
    ) as report:
        progress = add_heartbeat(run, into, report)
        current = _choose_image(plan.engine, record)
        notes = find_database_of_dump(record).rebuild(location, folder, current, progress)
    for note in notes:
        terminal.say(f"safe-compose: {_name(target, into)}: {note}")


def _restore_settings(
    plan: RestorePlan, target: RestoreTarget, location: EngineLocation, *, wanted: bool
) -> None:
    """Restore the settings that a dump's server kept next to its databases, if that is wanted."""
    folder, artifacts = Path(plan.backup.path), target.record.artifacts
    words = ""
    if target.server:
        names = server_files.list_names(artifacts)
        words = f"its settings are of another major version, and not back: {names}" if names else ""
    elif wanted:
        restored = server_files.restore_files(location, folder, artifacts)
        words = f"its settings are back as well: {', '.join(restored)}" if restored else ""
    if words:
        terminal.say(f"safe-compose: {location.name}: {words}")


def _choose_image(engine: Engine, record: VolumeRecord) -> VolumeRecord:
    """Return the record with the current images of its references where the recorded ones are gone.

    A dump also loads into a later build of the same image.
    """
    users = []
    for user in record.users:
        image = engine.docker.image(user["image_id"]) or engine.docker.image(user["image"])
        users.append({**user, "image_id": image.id} if image is not None else user)
    return replace(record, users=tuple(users))


def find_database_of_dump(record: VolumeRecord) -> Database:
    """Return the kind of database that was dumped.

    Raises:
        OperationFailed: The record has no dump.
    """
    if record.statistics is None:
        raise OperationFailed(
            f"{describe_location(record.name)}: it cannot be made again from a dump: it has none"
        )
    return find_database(record.statistics.kind)
