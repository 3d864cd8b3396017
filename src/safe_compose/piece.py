"""The way back of one file or folder: out of an archive into a volume that lives, while what uses it goes on.

It is extracted beside its place and renamed there, so that nobody ever sees a half of it; what was there keeps another name.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from safe_compose import backup, prompts, proof
from safe_compose.artifacts import Backup, VolumeRecord
from safe_compose.errors import Interrupted, LookAgain, Refused, SafeComposeError, UsageError, VerifyFailed
from safe_compose.grammar import parse
from safe_compose.halted import undisturbed
from safe_compose.methods import DATABASES, archive, stream
from safe_compose.observed import PROJECT_LABEL
from safe_compose.recover import recover
from safe_compose.world import World

LOCK_SECONDS = 60.0


def restore(
    world: World, kept: Backup, *, volume: str | None, path: str, confirm: str | None, ask: bool = True, dry_run: bool = False
) -> dict[str, Any]:
    """Put one path of one volume of a backup back. Raises UsageError, Refused, LookAgain, VerifyFailed, BackupFailed: then all is
    as it was."""
    engine, record = world.engine, _record(kept, volume)
    words = PurePosixPath(path)
    if words.is_absolute() or ".." in words.parts or not words.parts:
        raise UsageError(f"--path is relative to the root of the volume, as in uploads/one.jpg; not {path!r}; nothing was restored")
    path = str(words)
    folder = Path(kept.path)
    if not dry_run:
        recover(engine, world.catalogue, world.journal, but=world.run_id)
    count = _read(world, kept, record, path)
    if engine.volume(record.name) is None:
        raise LookAgain(
            f"volume {record.name} is not there; nothing was restored",
            next_step=f"the whole of it: safe-compose restore {kept.id} --volume {record.name}",
        )
    recorded = [u["image_id"] for u in record.users if engine.image(u["image_id"])]
    images = dict.fromkeys([*recorded, *backup.image_candidates(engine, engine.look(parse(["volume", "ls"])), record.name)])
    piece = archive.piece_of(engine, record.name, path, world.run_id[-6:], tuple(images))
    if not archive.parent_is_real(engine, piece):
        raise LookAgain(
            f"the folder that {path} goes into is not there, or a link; nothing was restored",
            next_step=f"restore that folder: --path {words.parent}",
        )
    existed = archive.there(engine, piece, path)
    aside = piece.aside if existed else None
    plan = [
        f"from backup {kept.id} of {kept.created}: {path} ({count} files and folders)",
        f"  into volume {record.name}, while what uses it goes on",
        f"  what is there now stays as {aside}" if existed else "  nothing is there now",
    ]
    for line in plan:
        prompts.say(f"safe-compose: {line}")
    shape: dict[str, Any] = {
        "backup": kept.id,
        "volumes": [{"name": record.name, "into": record.name, "from": "archive", "action": "one path"}],
        "path": {"path": path, "entries": count, "kept_as": aside},
        "stops": [],
        "phrase": path if existed else None,
    }
    if dry_run:
        return {**shape, "dry_run": True, "plan": plan}
    if existed:
        _consent(path, confirm, ask)
    _act(world, kept, record, piece, folder, existed=existed)
    prompts.say(f"safe-compose: {path} of {record.name} is back" + (f"; the one before it is {aside}" if aside else ""))
    return shape


def _record(kept: Backup, volume: str | None) -> VolumeRecord:
    having = [r for r in kept.volumes if volume in (None, r.name) and any(a.kind == "archive" for a in r.artifacts)]
    if volume is None:
        having = [r for r in having if r.data_kind not in DATABASES]
    if len(having) != 1:
        names = ", ".join(r.name for r in having) or "none"
        raise UsageError(
            f"--path is of one volume that was archived, and here they are: {names}; nothing was restored",
            next_step="add --volume NAME",
        )
    if having[0].data_kind in DATABASES:
        whole = f"--volume {having[0].name} --into scratch"
        raise Refused(
            f"volume {having[0].name} holds {having[0].data_kind}: one file of a database is of no use; nothing was restored",
            next_step=f"safe-compose restore {kept.id} {'--database NAME' if having[0].data_kind == 'postgres' else whole}",
        )
    return having[0]


def _read(world: World, kept: Backup, record: VolumeRecord, path: str) -> int:
    """Read the archive whole; how many entries the path has. Raises VerifyFailed, Refused, UsageError."""
    folder = Path(kept.path)
    for artifact in record.artifacts:
        place = unquote(artifact.detail.get("path", ""), errors="surrogateescape") if artifact.kind == "sqlite" else ""
        if place and PurePosixPath(place).is_relative_to(path):
            raise Refused(
                f"{path} holds the SQLite database {place}, which was copied apart from the archive; nothing was restored",
                next_step=f"the whole volume: safe-compose restore {kept.id} --volume {record.name} --into scratch",
            )
    try:
        if (locked := stream.locked(folder, record)) is not None:
            raise locked
        with prompts.progress(f"verify {kept.id}") as report:
            proof.check_before_use(kept, record, report)
    except VerifyFailed as fault:
        world.catalogue.mark_broken(kept, fault.message)
        raise VerifyFailed(f"{fault.message}; nothing was touched", next_step=fault.next_step) from fault
    if not (count := archive.holds(folder, record.artifacts, path)):
        raise UsageError(f"backup {kept.id} has no {path} in {record.name}; nothing was restored")
    return count


def _consent(path: str, confirm: str | None, ask: bool) -> None:
    question = "To put it in the place of what is there"
    prompts.ask_phrase(question, path, confirm, ask=ask, nothing="nothing was restored", why=f"{path} would be replaced")


def _act(world: World, kept: Backup, record: VolumeRecord, piece: archive.Piece, folder: Path, *, existed: bool) -> None:
    engine, project = world.engine, record.labels.get(PROJECT_LABEL, kept.project)
    world.catalogue.ensure()
    with world.catalogue.lock(engine.id, project, wait=LOCK_SECONDS, command=("safe-compose", "restore")):
        run = world.journal.begin(
            world.run_id,
            command=("restore", kept.id),
            program="safe-compose",
            project=project,
            endpoint=engine.endpoint,
            engine_id=engine.id,
        )
        outcome = f"{piece.path} restored"
        try:
            facts: Mapping[str, object] = piece._asdict()
            run.step("placing", **facts, existed=existed)
            with prompts.progress(f"restore {piece.path}") as report:
                archive.place(engine, folder, record.artifacts, piece, report)
            with undisturbed():
                archive.settle(engine, piece, existed=existed)
        except BaseException as fault:
            outcome = _take_back(world, piece, existed=existed)
            if isinstance(fault, KeyboardInterrupt):
                raise Interrupted(f"interrupted: {outcome or 'see above'}") from fault
            raise
        finally:
            with prompts.only_said():
                engine.sweep()
            with prompts.only_said():
                if outcome:
                    run.step("ended", outcome=outcome)


def _take_back(world: World, piece: archive.Piece, *, existed: bool) -> str:
    """Empty when that has to wait for `recover`."""
    with undisturbed():
        try:
            done = archive.settle(world.engine, piece, existed=existed)
        except SafeComposeError as fault:
            prompts.say(f"safe-compose: {piece.path} could not be tidied up: {fault.message}; then: safe-compose recover")
            return ""
    return f"{piece.path} restored" if done else "nothing was changed"
