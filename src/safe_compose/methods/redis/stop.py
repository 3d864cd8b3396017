"""Around a stop: before it, all that the server holds is brought to its volume; after it, what lies there is checked."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from safe_compose.artifacts import DatabaseStatistics
from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import BackupFailed
from safe_compose.methods.archive import MOUNT, last_words
from safe_compose.methods.database import LeftBehind, Silent
from safe_compose.methods.redis.dump import SAVE_SECONDS, wait_for_saves
from safe_compose.methods.redis.server import Answer, Server, ask, asking, count, server, visibly_memory_only
from safe_compose.observed import Container

PAUSE_SECONDS = 600
"""How long writes of whoever is still connected wait; the stop ends it at once. Should we be killed it ends by itself."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A server just before its stop: nobody writes any more, and all that it holds is on its volume."""

    server: Server
    databases: tuple[DatabaseStatistics, ...]

    @property
    def foreign_sessions(self) -> tuple[str, ...]:
        return self.server.foreign_sessions


@dataclass(frozen=True, slots=True)
class Unasked:
    """One that did not let us in."""

    container: Container
    why: str
    since: int | None
    """Its clock before the stop, in seconds since 1970; None where it has none."""


@contextmanager
def settled(engine: Engine, container: Container) -> Iterator[Settled | Unasked]:
    """Around the stop of a running server: writes wait (as of Redis 6.2), what is only in memory is saved, keys are counted.

    A stop alone would lose the data of a server without save points and without an append-only file. One that does not let us
    in is stopped all the same unless its own command line says so. A fault in the block lets writes go on. Raises BackupFailed.
    """
    name = container.name
    try:
        found = server(engine, container)
    except Silent as silent:
        if visibly_memory_only(engine.private(container.id)):
            raise BackupFailed(
                f"container {name} keeps its data in memory alone (--save '' and no append-only file), so a stop loses it, and it "
                f"cannot be asked to save: {silent.message}; nothing was stopped",
                next_step=f"if what it holds may go: docker stop {name}, then repeat the command",
            ) from silent
        yield Unasked(container, silent.message, _clock(engine, container))
        return
    paused = _pause(engine, found)
    try:
        _bring_to_disk(engine, found)
        yield Settled(found, count(engine, found))
    except BaseException:
        if paused:
            with suppress(BackupFailed, Answer):  # it has stopped already, or the pause ends by itself
                ask(engine, found.access, "CLIENT", "UNPAUSE")
        raise


def _pause(engine: Engine, found: Server) -> bool:
    with asking(found.container.name, "pause writes"):
        try:
            ask(engine, found.access, "CLIENT", "PAUSE", str(PAUSE_SECONDS * 1000), "WRITE")
        except Answer:
            return False  # older than 6.2: whoever is still connected may write until the stop
    return True


def _bring_to_disk(engine: Engine, found: Server) -> None:
    name = found.container.name
    facts = wait_for_saves(engine, found)
    if found.appends:
        if facts.get("aof_last_write_status", "ok") != "ok":
            raise BackupFailed(
                f"{name}: its append-only file cannot be written (aof_last_write_status:{facts['aof_last_write_status']}), so a "
                "stop would lose data; nothing was stopped",
                next_step=f"docker logs --tail 20 {name}",
            )
        return
    if facts.get("rdb_changes_since_last_save") == "0" and not found.memory_only:
        return
    with asking(name, "SAVE"):  # in the foreground: needs no memory to fork, and nobody is served any more anyway
        ask(engine, found.access, "SAVE", timeout=SAVE_SECONDS)


def _clock(engine: Engine, container: Container) -> int | None:
    try:
        said = engine.execute(container.id, ("date", "+%s"), timeout=60).strip()
    except HelperFailed:
        return None
    return int(said) if said.isdigit() else None


# -- afterwards --------------------------------------------------------------------------------------------------------


def left_behind(engine: Engine, volume_name: str, image_ids: Sequence[str], known: Settled | Unasked | None) -> LeftBehind:
    """Whether the files that a server left are whole, by the checkers of its image; nobody runs on them. Raises BackupFailed."""
    if isinstance(known, Settled):
        return _expected(engine, volume_name, image_ids, known)
    rdb, appended = _look_for(engine, volume_name)
    words, whole, made = [], True, None
    if rdb is not None:
        fault, made = _check_rdb(engine, volume_name, rdb, image_ids)
        words.append(fault or f"{rdb} is whole")
        whole = whole and fault is None
    if appended is not None:
        fault = _check_appended(engine, volume_name, appended, image_ids)
        words.append(fault or f"{appended} is whole")
        whole = whole and fault is None
    told = "; ".join(words) or "there is neither an RDB nor an append-only file"
    if known is None:
        return LeftBehind(told, clean=whole, notes=() if whole else (told,))
    now = engine.container(known.container.id)
    ended = now is not None and now.exit_code == 0
    fresh = appended is not None or (made is not None and (known.since is None or made >= known.since))
    if not ended:
        told += f"; it ended with {now.exit_code if now else 'nothing to look at'}"
    if not fresh:
        told += "; nothing was saved when it stopped"
    return LeftBehind(told, clean=whole and ended and fresh, notes=(f"its keys were not counted: {known.why}",))


def _expected(engine: Engine, volume: str, image_ids: Sequence[str], known: Settled) -> LeftBehind:
    found = known.server
    images = (found.container.image_id, *image_ids)
    folder = PurePosixPath(found.folder)
    if found.appends:
        name = found.settings.get("appendfilename", "appendonly.aof")
        if found.newer_than_6:
            name = f"{found.settings['appenddirname']}/{name}.manifest"
        fault = _check_appended(engine, volume, str(folder / name), images)
    else:
        name = found.settings["dbfilename"]
        fault, _ = _check_rdb(engine, volume, str(folder / name), images)
    if fault is not None and not found.appends and not sum(d.rows for d in known.databases):
        fault = None  # an empty server may have no file at all
    notes = list(found.warnings)
    if found.memory_only:
        notes.append(
            f"{found.container.name} keeps its data in memory alone; before the stop it was saved to {name}, which it loads"
        )
    return LeftBehind(fault or f"{name} is whole", fault is None, found.statistics(known.databases), tuple(notes))


def _look_for(engine: Engine, volume: str) -> tuple[str | None, str | None]:
    """An RDB and an append-only file under their usual names at the root of a volume."""
    names = engine.list_root(volume) or []
    rdb = next((n for n in sorted(names, key=lambda n: n != "dump.rdb") if n.endswith(".rdb") and not n.startswith("temp-")), None)
    if "appendonlydir" in names:
        return rdb, "appendonlydir/appendonly.aof.manifest"
    return rdb, next((n for n in names if n == "appendonly.aof"), None)


def _check_rdb(engine: Engine, volume: str, path: str, image_ids: Sequence[str]) -> tuple[str | None, int | None]:
    """What is wrong with an RDB file, in words, or None; and when it was made."""
    fault, said = _checked(engine, volume, "check-rdb", path, image_ids, read_only=True)
    made = re.search(r"AUX FIELD ctime = '(\d+)'", said)
    return fault, int(made[1]) if made else None


def _check_appended(engine: Engine, volume: str, path: str, image_ids: Sequence[str]) -> str | None:
    # The checker opens what it only reads for writing, unless it is told to mend nothing is written.
    return _checked(engine, volume, "check-aof", path, image_ids, read_only=False)[0]


def _checked(
    engine: Engine, volume: str, tool: str, path: str, image_ids: Sequence[str], *, read_only: bool
) -> tuple[str | None, str]:
    """Run `redis-check-...` or `valkey-check-...` of the first image that has one; a fault in words or None, and its output."""
    for image in list(dict.fromkeys(image_ids))[:6]:
        if engine.image(image) is None:
            continue  # what a backup recorded may be gone
        for server_name in ("redis", "valkey"):
            helper = Helper(
                image=image,
                argv=(f"{server_name}-{tool}", f"{MOUNT}/{path}"),
                volumes=((volume, MOUNT, read_only),),
                user="0:0",
                capabilities=("DAC_OVERRIDE",),
            )
            try:
                return None, engine.run(helper).decode("utf-8", "replace")
            except HelperFailed as error:
                if error.returncode not in (126, 127):
                    return f"{path} is damaged or missing: {last_words(error) or error.message}", ""
    return f"{path} cannot be checked: no local image has redis-{tool}", ""
