"""After a crash: what a run that was killed left half is finished or taken back, and what it stopped runs again."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from safe_compose import backup, prompts, proof, volume_trash
from safe_compose.artifacts import VolumeRecord
from safe_compose.catalogue import Catalogue
from safe_compose.engine import Engine
from safe_compose.errors import BackupFailed, SafeComposeError, UsageError, VerifyFailed
from safe_compose.grammar import parse
from safe_compose.halted import Was, bring_back
from safe_compose.journal import Journal, Run, RunRecord
from safe_compose.methods import archive, postgres, rename, stream, written

_LOOK = parse(["volume", "ls"])

BEAT_SECONDS = 10.0
"""While content goes into a volume the journal gets a line at least so often: nothing that a dead run wrote is much younger than
its last one."""
_AFTERWARDS = timedelta(seconds=5)
"""What a helper may still write when its run is dead."""
_SEARCH_SECONDS = 120.0
"""How long it may take to find the youngest file of a volume."""


def recover(engine: Engine, catalogue: Catalogue, journal: Journal, *, but: str, holding: Collection[str] = ()) -> list[str]:
    """Finish what a killed run left: put back what was there before content was half put back, start again what it stopped,
    remove its helpers and its half backup.

    A container that was touched since (another `StartedAt`) is left alone, and so are those on a volume that could not be put
    back: a server must not start on half of its data. `but` is the id of the run that asks; `holding` the projects whose lock
    it has. Returns what was done, in words.
    """
    told = []
    for run in journal.unfinished():
        if run.id == but or run.engine_id not in ("", engine.id) or run.facts.get("rotates"):
            continue  # a change of a password is finished by `safe-compose recover` alone: files of a project belong to it
        engine.sweep(run.id)  # first of all: a helper of it might go on with what is put right now
        moved, whole = volume_trash.recover(engine, journal, run)
        if whole:
            words, whole = _taken_back(engine, catalogue, journal, journal.find(run.id) or run, holding)
            moved += words
        stopped = [Was(**facts) for step in run.steps if step["step"] == "stopping" for facts in step["containers"]]
        left = [was for was in reversed(stopped) if (now := engine.container(was.id)) is not None and not was.touched(now)]
        half = _half_put_back(journal.find(run.id) or run)
        revived, _ = bring_back(engine, () if half or not whole else left)
        told.append(f"run {run.id} was cut off" + (f"; started again: {', '.join(revived)}" if revived else ""))
        told += [*moved, *half]
        if not whole:
            told.append("to go on with it: safe-compose recover")
            continue
        if run.undid is not None:
            told.append("all of it was put back; its services may not run: docker compose up -d")
        if (words_placed := _half_placed(engine, run)) is not None:
            told.append(words_placed)
        if (words_swapped := _half_swapped(engine, run)) is not None:
            told.append(words_swapped)
            if not words_swapped.startswith("database "):
                continue  # it stays open: the next one tries again
        if half and left:
            told.append(f"left stopped until then: {', '.join(was.name for was in left)}")
        journal.reopen(run.id).step("ended", outcome="; ".join(["cut off", *(half or ["recovered"])]))
    with prompts.only_said():  # what is left and holds a volume is refused by name where that matters
        engine.sweep_dead()
    told += [f"removed the half backup {name}" for name in catalogue.sweep()]
    for line in told:
        prompts.say(f"safe-compose: {line}")
    return told


def _half_swapped(engine: Engine, run: RunRecord) -> str | None:
    """Brings the restore of one database to one of its two ends, and says to which; None for every other run."""
    facts = run.last("beside")
    if facts is None:
        return None
    container = engine.container(str(facts["container"]))
    new = facts["beside"]
    if container is None:
        return f"database {new} may be left in volume {facts['volume']}: its server has gone"
    try:
        return postgres.settled_swap(engine, postgres.server(engine, container), facts)[1]
    except BackupFailed as fault:
        return f"left for now: database {new} of {container.name} ({fault.message}); once it runs: safe-compose recover"


def _half_placed(engine: Engine, run: RunRecord) -> str | None:
    """Brings the restore of one file or folder to one of its two ends, and says to which; None for every other run."""
    facts = run.last("placing")
    if facts is None:
        return None
    piece = archive.Piece(*(str(facts[name]) for name in archive.Piece._fields))
    try:
        done = archive.settle(engine, piece, existed=bool(facts["existed"]))
    except BackupFailed as fault:
        left = f"{piece.staging} may be left, and what was {piece.path} may be {piece.aside}"
        return f"volume {piece.volume}: {left}: {fault.message}"
    kept = f"; the one before it is {piece.aside}" if done and facts["existed"] else ""
    return f"{piece.path} of volume {piece.volume} {'was restored' if done else 'is as it was'}{kept}"


# -- whole volumes -----------------------------------------------------------------------------------------------------


class Begun(NamedTuple):
    """A volume into which content is being put back, as the journal keeps it: all that the way back from there needs."""

    volume: str
    existed: bool
    """It was there before; else it is made for this."""
    safety: str | None
    """The backup of what it held; None where it held nothing."""
    trash: str | None
    """The volume of the trash whose content is renamed into it."""
    forgets: bool
    """A tmpfs: nothing is put into it."""
    outside: bool
    """It points at a place outside of docker's own."""
    users: Mapping[str, str]
    """Id of each container on it -> its `StartedAt`."""


def beating(run: Run, into: str, report: Callable[[int], None]) -> Callable[[int], None]:
    """`report`, with a line in the journal now and then: `recover` must know until when we wrote."""
    last = time.monotonic()

    def told(done: int) -> None:
        nonlocal last
        report(done)
        if time.monotonic() - last >= BEAT_SECONDS:
            last = time.monotonic()
            with prompts.only_said():  # no way back is cut off because the disk of the store is full
                run.step("filling", volume=into)

    return told


def take_back(
    engine: Engine, catalogue: Catalogue, begun: Begun, images: Sequence[str], progress: Callable[[int], None]
) -> None:
    """What was there before is there again, from wherever the putting back was cut off. images: local ones to run helpers from.

    Raises SafeComposeError; it can be called again then.
    """
    if engine.volume(begun.volume) is None or (begun.forgets and begun.existed):
        return
    if begun.trash is not None:
        volume_trash.take_out(engine, begun.volume, begun.trash)  # never emptied: it may be the only copy
    elif begun.existed or (begun.outside and not begun.forgets):
        archive.empty(engine, begun.volume, images)
    if not begun.existed:
        engine.remove_volume(begun.volume)
    elif begun.safety is not None:
        folder, old = _old(catalogue, begun.safety, begun.volume)
        archive.extract(engine, folder, old.artifacts, begun.volume, images, progress)
        archive.sync(engine, begun.volume, images)


def _old(catalogue: Catalogue, safety: str, volume: str) -> tuple[Path, VolumeRecord]:
    """What a volume held, in its safety backup. Raises UsageError where that is gone."""
    kept = catalogue.find(safety)
    return Path(kept.path), next(r for r in kept.volumes if r.name == volume)


def _taken_back(
    engine: Engine, catalogue: Catalogue, journal: Journal, run: RunRecord, holding: Collection[str]
) -> tuple[list[str], bool]:
    """Take back what a dead `undo` or `restore` has half put back, the last first: what was done, in words, and whether
    nothing of it has to wait. What cannot be taken back for good is told by `_half_put_back`."""
    waiting = list(run.half.values())
    if not waiting:
        return [], True
    told: list[str] = []
    projects = {str(p) for p in run.facts.get("projects", ())} - set(holding)
    try:
        with _locked(catalogue, engine, projects):
            for step in reversed(waiting):
                begun = Begun(*(step.get(name) for name in Begun._fields))
                if begun.users is None:  # written by an older release, which kept less
                    continue
                why = _another_run(journal, run, begun.volume) or _obstacle(engine, catalogue, run, begun)
                if why is not None:
                    told.append(f"volume {begun.volume}: what was there was not put back: {why}")
                    continue
                again = journal.reopen(run.id)
                again.step("taking-back", volume=begun.volume)  # what is written from here on is ours again
                with prompts.progress(f"put back what was in {begun.volume}") as report:
                    told_on = beating(again, begun.volume, report)
                    take_back(engine, catalogue, begun, _images(engine, catalogue, begun), told_on)
                again.step("rolled-back", volume=begun.volume)
                what = "what was there before" if begun.existed else "gone again, as it was before"
                told.append(f"volume {begun.volume} {'has again ' if begun.existed else 'is '}{what}")
    except rename.CannotMove as fault:
        told.append(f"volume {waiting[0]['volume']}: {fault.message}")
    except SafeComposeError as fault:
        return [*told, f"what was there was not put back yet: {fault.message}"], False
    return told, True


@contextmanager
def _locked(catalogue: Catalogue, engine: Engine, projects: Collection[str]) -> Iterator[None]:
    with ExitStack() as locks:
        for project in sorted(projects):
            locks.enter_context(catalogue.lock(engine.id, project, command=("safe-compose", "recover")))
        yield


def _another_run(journal: Journal, run: RunRecord, volume: str) -> str | None:
    """The later run that put content into the volume or deleted it: then what is there now is not what `run` left."""
    for later in journal.runs():
        if later.seq <= run.seq or later.engine_id != run.engine_id:
            continue
        doomed = {str(v["name"]) for step in later.steps if step["step"] == "running" for v in step.get("volumes", ())}
        filled = {str(step["volume"]) for step in later.steps if step["step"] == "putting-back"}
        if volume in doomed | filled:
            return f"run {later.id} has written to it since"
    return None


def _obstacle(engine: Engine, catalogue: Catalogue, run: RunRecord, begun: Begun) -> str | None:
    """Why what is in the volume now must stay, or what was there cannot come back; None when nothing speaks against it."""
    for user in engine.look(_LOOK).users(begun.volume):
        now = engine.container(user.id)
        if now is None or now.started_at.startswith("0001-"):
            continue
        if now.lively or now.started_at != begun.users.get(now.id):
            return f"container {now.name} has run on it since"
    try:
        if begun.safety is not None:
            folder, old = _old(catalogue, begun.safety, begun.volume)
            if (locked := stream.locked(folder, old)) is not None:
                raise locked
            proof.check_files(folder, old)
    except (UsageError, VerifyFailed) as fault:
        return fault.message
    return _written_since(engine, run, begun, _images(engine, catalogue, begun)) if begun.trash is None else None


def _written_since(engine: Engine, run: RunRecord, begun: Begun, images: Sequence[str]) -> str | None:
    """Whether somebody else wrote to it, by the youngest file: `compose up` and `down` leave no container that would tell."""
    if engine.volume(begun.volume) is None:
        return None
    dead = datetime.fromisoformat(str(run.steps[-1]["at"])) + timedelta(seconds=BEAT_SECONDS) + _AFTERWARDS
    youngest = written.last_written(engine, [begun.volume], images, timeout=_SEARCH_SECONDS).get(begun.volume)
    if youngest is None:
        return "nobody can tell whether something was written to it since"
    return f"something was written to it since, at {youngest:%Y-%m-%d %H:%M:%S} UTC" if youngest > dead else None


def _images(engine: Engine, catalogue: Catalogue, begun: Begun) -> tuple[str, ...]:
    old = _old(catalogue, begun.safety, begun.volume)[1].users if begun.safety is not None else ()
    recorded = [u["image_id"] for u in old if engine.image(u["image_id"])]
    return tuple(dict.fromkeys([*recorded, *backup.image_candidates(engine, engine.look(_LOOK), begun.volume)]))


def _half_put_back(run: RunRecord) -> list[str]:
    """What a killed `undo` or `restore` left half: which volumes, and where what was there is. Empty for every other run."""
    waiting = run.half
    taken_out = {str(step["volume"]) for step in run.steps if step["step"] == "taken-out"}
    done = {str(step["volume"]) for step in run.steps if step["step"] == "put-back"}
    words = []
    for volume, step in waiting.items():
        safety = step.get("safety")
        state = "was put back whole" if volume in done else "holds a part of what was put back"
        state = "is empty" if volume in taken_out else state
        before = (
            f"what was there is in backup {safety}: safe-compose restore {safety} --volume {volume}"
            if safety
            else ("nothing was there before")
        )
        words.append(f"volume {volume} {state}; {before}")
    return [*words, f"or finish it: safe-compose {' '.join(run.command)}"] if words else []
