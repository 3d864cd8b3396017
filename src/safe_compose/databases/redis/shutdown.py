"""The stop of a Redis or Valkey server: saving its data before, and checking its files after."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from safe_compose.core.backup import DatabaseStatistics
from safe_compose.core.observed import Container
from safe_compose.core.text import shell_quote
from safe_compose.databases.engine_container import FILE_LIMIT, EngineContainer
from safe_compose.databases.protocol import (
    ServerUnreachable,
    ShutdownState,
    list_service_images,
)
from safe_compose.databases.redis.client import ErrorAnswer, asking
from safe_compose.databases.redis.discover import (
    RedisServer,
    count,
    is_file_name,
    is_memory_only,
    server,
    serves,
)
from safe_compose.databases.redis.dump import SAVE_SECONDS, wait_for_saves
from safe_compose.databases.redis.info import parse_number
from safe_compose.databases.redis.login import read_config
from safe_compose.databases.redis.rdb import BadRdb, read
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.engine.helper_image import NoOwnImage
from safe_compose.errors import OperationFailed
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.gzip_stream import read_blocks
from safe_compose.volumes.helper_program import MOUNT, read_last_words

PAUSE_SECONDS = 600
"""Time for which writes of connected clients are suspended; the stop ends it at once. If we are
killed it ends by itself.
"""
_VALKEY = b"VALKEY"
"""How an RDB of Valkey 8.1 and later begins (rdb.c)."""
_MANIFEST_LINE = re.compile(r"file (\S+) seq \d{1,19} type ([bih])(?: startoffset \d{1,19})?")


@dataclass(frozen=True, slots=True)
class SavedServer:
    """A server just before its stop: nobody writes any more, and all its data is on its volume."""

    server: RedisServer
    databases: tuple[DatabaseStatistics, ...]

    @property
    def foreign_sessions(self) -> tuple[str, ...]:
        """Clients that are connected to the server."""
        return self.server.foreign_sessions


@dataclass(frozen=True, slots=True)
class ServerNotAsked:
    """A server that did not let us in before its stop."""

    container: Container
    why: str
    since: int | None
    """Its clock before the stop, in seconds since 1970; None if the container has no `date`."""


@contextmanager
def settling(at: EngineContainer) -> Iterator[SavedServer | ServerNotAsked]:
    """Prepare a running server for the stop in the block: suspend writes, save, and count the keys.

    Writes can be suspended since Redis 6.2. A stop alone would lose the data of a server without
    save points and without an append-only file. A server that does not let us in is stopped all the
    same, unless it may keep its data in memory alone. If the block fails, writes continue.

    Raises:
        OperationFailed: The server cannot save its data; nothing was stopped.
    """
    try:
        found = server(at)
    except ServerUnreachable as unreachable:
        _require_saving_at_stop(at, unreachable)
        yield ServerNotAsked(at.container, unreachable.message, _clock(at))
        return
    paused = _pause(found)
    try:
        _bring_to_disk(found)
        yield SavedServer(found, count(found))
    except BaseException:
        if paused:
            # It has stopped already, or the pause ends by itself.
            with suppress(OperationFailed, ErrorAnswer):
                found.client.ask("CLIENT", "UNPAUSE")
        raise


def _require_saving_at_stop(at: EngineContainer, why: ServerUnreachable) -> None:
    """Require that a server which cannot be asked is known to write what it holds to its volume.

    Its settings may have changed while it runs, so a file of its data has to be there as well.

    Raises:
        OperationFailed: It may keep its data in memory alone.
    """
    container, private = at.container, at.engine.docker.private(at.container.id)
    step = f"if what it holds may go: docker stop {shell_quote(container.name)}"
    if is_memory_only(private, read_config(at, private)):
        fact = (
            "keeps its data in memory alone (save '' and no append-only file), so a stop loses it,"
        )
    else:
        locations = {m.location for m in container.mounts if serves(container, m.location)}
        for name in locations:
            if any(_StoppedFiles(EngineLocation(at.engine, name), ()).find_files()):
                return
        step = f"have it save (redis-cli SAVE with a login of yours), or {step}"
        fact = "has saved nothing on its volume yet, so a stop may lose what it holds,"
    raise OperationFailed(
        f"container {container.name} {fact} and it cannot be asked to save: {why.message}; nothing"
        " was stopped",
        next_step=f"{step}; then repeat the command",
    ) from why


def _pause(found: RedisServer) -> bool:
    with asking(found.container.name, "pause writes"):
        try:
            found.client.ask("CLIENT", "PAUSE", str(PAUSE_SECONDS * 1000), "WRITE")
        except ErrorAnswer:
            return False  # older than 6.2: connected clients may write until the stop
    return True


def _bring_to_disk(found: RedisServer) -> None:
    name = found.container.name
    facts = wait_for_saves(found)
    if found.appends:
        if facts.get("aof_last_write_status", "ok") != "ok":
            raise OperationFailed(
                f"{name}: its append-only file cannot be written"
                f" (aof_last_write_status:{facts['aof_last_write_status']}), so a stop would lose"
                " data; nothing was stopped",
                next_step=f"docker logs --tail 20 {shell_quote(name)}",
            )
        return
    if facts.get("rdb_changes_since_last_save") == "0" and not found.memory_only:
        return
    # In the foreground: it needs no memory to fork, and no client is served any more anyway.
    with asking(name, "SAVE"):
        found.client.ask("SAVE", timeout=SAVE_SECONDS)


def _clock(at: EngineContainer) -> int | None:
    try:
        output = at.execute("date", "+%s").strip()
    except HelperFailed:
        return None
    return parse_number(output.decode("ascii", "replace")) or None


# -- inspect the files -----------------------------------------------------------------------------


def inspect_shutdown(
    location: EngineLocation, known: SavedServer | ServerNotAsked | None
) -> ShutdownState:
    """Check whether the files that a stopped server left are complete.

    The checkers of the service's own image do it, taken from the containers that have the volume.
    If it has none, our own reader reads an RDB file, and an append-only file cannot be checked.

    Raises:
        OperationFailed: The volume cannot be read.
    """
    if isinstance(known, SavedServer):
        return _read_expected(location, known)
    files = _StoppedFiles(location, list_service_images(location))
    rdb, appended = files.find_files()
    words, whole, made = [], True, None
    if rdb is not None:
        fault, made = files.check_rdb(rdb)
        words.append(fault or f"{rdb} is whole")
        whole = whole and fault is None
    if appended is not None:
        fault = files.check_appended(appended)
        words.append(fault or f"{appended} is whole")
        whole = whole and fault is None
    summary = "; ".join(words) or "there is neither an RDB nor an append-only file"
    if known is None:
        return ShutdownState(summary, clean=whole, notes=() if whole else (summary,))
    now = location.engine.docker.container(known.container.id)
    ended = now is not None and now.exit_code == 0
    fresh = appended is not None or (
        made is not None and (known.since is None or made >= known.since)
    )
    if not ended:
        summary += f"; it ended with {now.exit_code if now else 'nothing to look at'}"
    if not fresh:
        summary += "; nothing was saved when it stopped"
    return ShutdownState(
        summary, clean=whole and ended and fresh, notes=(f"its keys were not counted: {known.why}",)
    )


def _read_expected(location: EngineLocation, known: SavedServer) -> ShutdownState:
    found = known.server
    files = _StoppedFiles(location, (found.container.image_id,))
    folder = PurePosixPath(found.folder)
    if found.appends:
        name = found.settings.get("appendfilename", "appendonly.aof")
        if found.newer_than_6:
            name = f"{found.settings['appenddirname']}/{name}.manifest"
        fault = files.check_appended(str(folder / name))
    else:
        name = found.settings["dbfilename"]
        fault, _ = files.check_rdb(str(folder / name))
    if fault is not None and not found.appends and not sum(d.rows for d in known.databases):
        fault = None  # an empty server may have no file at all
    notes = list(found.warnings)
    if found.memory_only:
        notes.append(
            f"{found.container.name} keeps its data in memory alone; before the stop it was saved"
            f" to {name}, which it loads"
        )
    return ShutdownState(
        fault or f"{name} is whole", fault is None, found.statistics(known.databases), tuple(notes)
    )


class _Wrong(Exception):
    """A checker rejects a file; the message says why."""


@dataclass(frozen=True, slots=True)
class _StoppedFiles:
    """The files that a stopped server left, and the images whose checkers judge them."""

    location: EngineLocation
    images: tuple[str, ...]

    def find_files(self) -> tuple[str | None, str | None]:
        """Find an RDB and an append-only file under their usual names at the root of the volume."""
        names = self.location.engine.archives.list_root(self.location.name) or []
        rdb = next(
            (
                n
                for n in sorted(names, key=lambda n: n != "dump.rdb")
                if n.endswith(".rdb") and not n.startswith("temp-")
            ),
            None,
        )
        if "appendonlydir" in names:
            return rdb, "appendonlydir/appendonly.aof.manifest"
        return rdb, next((n for n in names if n == "appendonly.aof"), None)

    def check_rdb(self, path: str) -> tuple[str | None, int | None]:
        """Return why an RDB file is damaged, or None; and when it was made."""
        try:
            output = self._run_check("check-rdb", path, read_only=True)
        except _Wrong as fault:
            return str(fault), None
        if output is None:
            return self._read_rdb(path)
        made = re.search(r"AUX FIELD ctime = '(\d+)'", output)
        return None, parse_number(made[1]) if made else None

    def _read_rdb(self, path: str) -> tuple[str | None, int | None]:
        """Check an RDB file with our own reader, which does not verify the checksum at its end.

        Returns:
            Why it is damaged, or None; and when it was made.
        """
        try:
            with self.location.engine.helpers.stream(
                self.location.read_only_helper("cat", MOUNT, path)
            ) as opened:
                return None, read(read_blocks(opened.stdout)).made
        except BadRdb as fault:
            return f"{path} is damaged: {fault}", None
        except HelperFailed as error:
            return f"{path} is damaged or missing: {read_last_words(error)}", None
        except NoOwnImage as fault:
            return f"{path} cannot be checked: {fault.message}", None

    def check_appended(self, path: str) -> str | None:
        """Return why an append-only file is damaged or cannot be checked, or None."""
        # The checker opens even what it only reads for writing. Unless it is asked to repair the
        # file it writes nothing.
        try:
            output = self._run_check("check-aof", path, read_only=False)
        except _Wrong as fault:
            return self._check_parts(path, str(fault))
        return (
            None
            if output is not None
            else f"{path} cannot be checked: the service's own image has no redis-check-aof"
        )

    def _check_parts(self, path: str, fault: str) -> str | None:
        """Check each file of an append-only file that the checker rejects as a whole.

        valkey-check-aof (9.1, run) does not know the RDB of its own server at the beginning
        (`VALKEY080`), and takes it for commands. valkey-check-rdb knows it.

        Returns:
            Why it is damaged, or None; `fault` where it does not begin with such an RDB.
        """
        manifest = self.location.read(path, limit=FILE_LIMIT)
        folder = PurePosixPath(path).parent
        parts = [str(folder / name) for name in list_parts(manifest or b"")]
        if not parts or not self._begins_with(parts[0], _VALKEY):
            return fault
        wrong, _ = self.check_rdb(parts[0])
        for part in parts[1:] if wrong is None else ():
            try:
                self._run_check("check-aof", part, read_only=False)
            except _Wrong as found:
                return str(found)
        return wrong

    def _begins_with(self, path: str, magic: bytes) -> bool:
        try:
            with self.location.engine.helpers.stream(
                self.location.read_only_helper("cat", MOUNT, path)
            ) as opened:
                head = opened.stdout.read(len(magic))
                opened.abort()
        except (HelperFailed, NoOwnImage):
            return False
        return bool(head == magic)

    def _run_check(self, tool: str, path: str, *, read_only: bool) -> str | None:
        """Return the output of the first image's checker; None if no image has one.

        Raises:
            _Wrong: The checker rejects the file.
        """
        for image in self.images:
            for server_name in ("redis", "valkey"):
                helper = Helper(
                    image=image,
                    argv=(f"{server_name}-{tool}", f"{MOUNT}/{path}"),
                    volumes=((self.location.name, MOUNT, read_only),),
                    user="0:0",
                    capabilities=("DAC_OVERRIDE",),
                )
                try:
                    return self.location.engine.helpers.run(helper).decode("utf-8", "replace")
                except HelperFailed as error:
                    if error.returncode not in (126, 127):
                        words = read_last_words(error) or error.message
                        raise _Wrong(f"{path} is damaged or missing: {words}") from error
        return None


def list_parts(manifest: bytes) -> list[str]:
    """Return the files that a manifest of an append-only file names, the base first.

    Its lines are `file NAME seq NUMBER type b|i|h` (aof.c); files of type `h` are of the past. The
    result is empty if the manifest has another form.
    """
    found: dict[str, list[str]] = {"b": [], "i": [], "h": []}
    for line in manifest.decode("utf-8", "replace").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words = _MANIFEST_LINE.fullmatch(line)
        if words is None or not is_file_name(words[1]):
            return []
        found[words[2]].append(words[1])
    return [*found["b"], *found["i"]] if len(found["b"]) == 1 else []
