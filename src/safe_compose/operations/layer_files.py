"""The files of an archive, written into a container's own layer and read back."""

import time
from collections.abc import Collection, Sequence
from pathlib import Path

from safe_compose.core.backup import Artifact
from safe_compose.core.observed import Container
from safe_compose.core.text import make_visible, shell_quote
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed, StateChanged
from safe_compose.fastpath.layer_data import SQLITE_LOGS, find_data
from safe_compose.volumes.layer_archive import LayerFiles, stream_back, stream_files
from safe_compose.volumes.tar import Member, read_members

_SECONDS = 10.0
MOST_ASKED = 5000
"""Most files whose times are asked for, one by one."""
MOST_SINGLE = 64
"""Most files that are read back one by one; of more, the folders that hold them."""


def require_free(container: Container, entries: Sequence[Member], nothing: str) -> None:
    """Check that nothing writes to what is replaced, and that no mount hides it.

    Args:
        container: The container.
        entries: What is written.
        nothing: What was not done, for the message.

    Raises:
        StateChanged: A running program may have a database open, or a mount is in the way.
    """
    paths = [to_path(entry) for entry in entries if entry.type != "d"]
    data = find_data(paths)
    if container.lively and (data.sqlite or data.databases):
        raise StateChanged(
            f"container {container.name} runs, and may have a database open that would be replaced;"
            f" {nothing}",
            next_step=(
                f"docker stop {shell_quote(container.name)}, then repeat the command, then docker"
                f" start {shell_quote(container.name)}"
            ),
        )
    for mount in container.mounts:
        below = f"{mount.destination.rstrip('/')}/"
        if any(f"{path}/".startswith(below) or below.startswith(f"{path}/") for path in paths):
            raise StateChanged(
                f"container {container.name} has something mounted at {mount.destination} now:"
                f" files of its layer would go there; {nothing}",
                next_step="look at them in a volume of their own: --into scratch",
            )


def require_no_log(
    engine: Engine, container: Container, entries: Sequence[Member], nothing: str
) -> None:
    """Check that the container has no log of a SQLite database that is replaced.

    SQLite would apply that log to the restored file.

    Args:
        engine: The engine.
        container: The container.
        entries: What is written; a log among it replaces the one that is there.
        nothing: What was not done, for the message.

    Raises:
        StateChanged: There is such a log, or nobody can tell.
    """
    paths = {to_path(entry) for entry in entries if entry.type != "d"}
    logs = (f"{path}{end}" for path in find_data(sorted(paths)).sqlite for end in SQLITE_LOGS)
    for log in logs:
        until = time.monotonic() + _SECONDS
        if log not in paths and engine.layers.holds_file(container.id, log, until) is not False:
            raise StateChanged(
                f"container {container.name} has {make_visible(log)}, a log of the database that is"
                f" there now; {nothing}",
                next_step="start it and stop it, so that its program closes the database; then"
                " repeat the command",
            )


def write_files(
    engine: Engine,
    container: Container,
    folder: Path,
    artifacts: Sequence[Artifact],
    entries: Sequence[Member],
) -> None:
    """Write the files of a verified archive, and read them back; it can be done again.

    Args:
        engine: The engine.
        container: The container.
        folder: The folder of the backup.
        artifacts: The archive of the layer, and its list.
        entries: What the archive holds.

    Raises:
        OperationFailed: They could not be written, or are not what the archive holds.
        VerificationFailed: The archive is damaged.
    """
    there = _find_folders(engine, container, entries)
    engine.layers.write(container.id, stream_back(folder, artifacts, there))
    _compare(engine, container, entries)


def _find_folders(engine: Engine, container: Container, entries: Sequence[Member]) -> set[bytes]:
    """Return the folders of the archive that the container has: they stay as they are."""
    layers, found = engine.layers, {b""}
    folders = sorted((entry for entry in entries if entry.type == "d"), key=lambda e: e.path)
    for entry in folders:
        above = entry.path.rpartition(b"/")[0]
        if above in found and layers.is_folder(container.id, to_path(entry)):
            found.add(entry.path)
    return found


def _compare(engine: Engine, container: Container, entries: Sequence[Member]) -> None:
    """Check that the container holds each file of the archive with its size, owner and mode.

    Raises:
        OperationFailed: One is missing or differs.
    """
    wanted = {entry.path: entry for entry in entries if entry.type != "d"}
    paths = {to_path(entry) for entry in entries if entry.type != "d"}
    found: dict[bytes, Member] = {}
    folders = {path.rpartition("/")[0] or path for path in paths}
    roots = sorted(paths if len(paths) <= MOST_SINGLE else folders)
    tops = tuple(r for r in roots if not any(r != q and r.startswith(f"{q}/") for q in roots))
    files = LayerFiles(tops, paths)
    for member in read_members(stream_files(engine, container.id, files)):
        if member.type != "d":
            found[member.path] = member
    for path, entry in wanted.items():
        now = found.get(path)
        if now is not None and now.type == "h":
            now = found.get(now.link)
        if now is None or now[1:5] != entry[1:5]:
            raise OperationFailed(
                f"{path.decode('utf-8', 'replace')!r} in container {container.name} is not"
                " what the archive holds",
                next_step="repeat the command",
            )


def find_written(
    engine: Engine, container: Container, paths: Collection[str], after: float
) -> str | None:
    """Return one of the files that was written to after a time, or None.

    Args:
        engine: The engine.
        container: The container.
        paths: The absolute paths; those of which nobody can tell count as written to.
        after: The time, in seconds since the epoch.
    """
    if len(paths) > MOST_ASKED:
        return f"one of {len(paths)} files"
    for path in sorted(paths):
        when = engine.layers.read_time(container.id, path)
        if when is None or when > after:
            return path
    return None


def to_path(entry: Member) -> str:
    """Return the absolute path of an entry."""
    return "/" + entry.path.decode("utf-8", "surrogateescape")
