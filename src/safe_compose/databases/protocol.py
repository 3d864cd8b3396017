"""The interface of every kind of database: detection, dumps, counts, verification and restore.

Each kind has a package with these functions; operations select it by the kind that policy, or a
manifest, names (`registry.DATABASES`).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from safe_compose.core.backup import (
    Artifact,
    DatabaseStatistics,
    Evidence,
    ServerStatistics,
    VolumeRecord,
)
from safe_compose.core.image_source import suggest_command_for_user
from safe_compose.core.observed import Container, DeclaredMount, Mount, describe_location
from safe_compose.core.text import shell_quote
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed, StateChanged
from safe_compose.volumes.engine_location import EngineLocation


class ServerUnreachable(OperationFailed):
    """The server does not run, does not answer or cannot be dumped: a cold archive remains."""


class LoginRefused(ServerUnreachable):
    """The server answers, and refuses all passwords of its container."""


class CopyRefused(OperationFailed):
    """The server does not allow a copy of its files while it runs; it can still be dumped."""


@contextmanager
def understanding(subject: str) -> Iterator[None]:
    """Parse the answers of the server of `subject` in a block.

    Raises:
        ServerUnreachable: An answer has a form that no server gives: it comes from a program in an
            image that is not ours.
    """
    try:
        yield
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise ServerUnreachable(
            f"{subject}: the database server answers in a way that is not understood"
            f" ({type(error).__name__}); it was not dumped"
        ) from error


def report_other_server(container: Container) -> ServerUnreachable:
    """Make the fault of a container whose socket and port belong to different servers.

    The server is not asked any further.
    """
    return ServerUnreachable(
        f"container {container.name}: another server answers at its socket than at its port, as"
        " where containers share a folder of sockets; it was not dumped",
        next_step="give each server a folder of its own for its socket",
    )


def require_persistent(container: Container, mount: Mount | None, directory: str) -> Mount:
    """Return the mount, a volume or a folder of the host, that holds a data directory.

    Raises:
        OperationFailed: The data is lost with its container.
    """
    if mount is not None and (mount.name if mount.type == "volume" else mount.type == "bind"):
        return mount
    raise OperationFailed(
        f"container {container.name}: its data directory {directory} lies in no volume and no"
        " folder of the host, so it ends with that container; nothing was dumped",
        next_step=f"docker inspect {shell_quote(container.name)}",
    )


def list_service_images(location: EngineLocation) -> tuple[str, ...]:
    """Return the ids of the images of the containers that have the volume, running or not.

    These images see its data anyway; no image but these and our own ever sees the volume.
    Containers of ours are no users, whatever image an older version took for them.

    Raises:
        EngineUnavailable: The engine does not answer.
    """
    docker = location.engine.docker
    users = [user for user in docker.users(location.name) if not user.is_marked_as_ours]
    return tuple(
        dict.fromkeys(user.image_id for user in users if docker.image(user.image_id) is not None)
    )


def read_statistics(location: EngineLocation, record: VolumeRecord, image: str) -> ServerStatistics:
    """Return the statistics of a volume that can be rebuilt from a dump.

    The image must be at hand and the volume empty, except for the files that were archived with the
    dump.

    Raises:
        OperationFailed: The backup has no dump, or the image is missing.
        StateChanged: The volume is not empty.
    """
    if record.statistics is None:
        raise OperationFailed(
            f"{describe_location(record.name)}: it cannot be made again from a dump: it has none"
        )
    if not image or location.engine.docker.image(image) is None:
        user = next((u for u in record.users if u.get("image")), {})
        named = f" ({user['image']})" if user else ""
        step = suggest_command_for_user(user, record.labels)
        raise OperationFailed(
            f"{describe_location(record.name)}:"
            f" it cannot be made again from its dump: its image{named} is not"
            " at hand, and none is pulled",
            next_step=(
                f"{step}; then repeat the command"
                if step
                else "load the image (docker load), then repeat the command"
            ),
        )
    if any(a.kind == "others" for a in record.artifacts):
        # What lies next to the database was restored a moment ago, into an empty volume.
        return record.statistics
    if (names := location.engine.archives.list_root(location.name)) is None or names:
        raise StateChanged(
            f"{describe_location(location.name)} is not empty; nothing was written into it"
        )
    return record.statistics


class OwnFiles(NamedTuple):
    """The parts of a volume that are a database's own, so that its dump stands for them.

    Paths are relative to the volume's root.
    """

    folders: tuple[str, ...]
    """Folders with everything below them; `.` is the whole volume."""
    files: tuple[str, ...] = ()
    known: re.Pattern[str] | None = None
    """The paths below the first folder that a server creates. Other files there are in no dump, and
    not archived with it. None: every path.
    """


class Stopped(NamedTuple):
    """A volume on which no server runs, and the facts about its former servers."""

    volume: str
    users: tuple[Container, ...]
    declared: tuple[DeclaredMount, ...]
    """Mounts of the volume in the compose file."""
    recorded: tuple[str, ...] = ()
    """Ids of the images that served it, as its last verified backup recorded them."""


class ShutdownState(NamedTuple):
    """The state in which a stopped server left its volume."""

    words: str
    """As in `control state 'shut down'`."""
    clean: bool
    """The server was stopped properly; False also if that is unknown."""
    statistics: ServerStatistics | None = None
    """The content at the stop, if it was counted."""
    notes: tuple[str, ...] = ()
    """Messages about it for the user."""
    next_transaction: int | None = None
    """Number of the next write's transaction, if the files show it."""


class Role(NamedTuple):
    """The stored password of an account."""

    verifier: str | None
    """The value that the server stores for the password; it lets nobody in by itself. None if there
    is no password.
    """
    notes: tuple[str, ...] = ()
    """Messages for the user before the password changes."""


class Passwords(Protocol):
    """The handling of passwords by a kind of database."""

    def verifier(self, password: str, role: str, like: str | None = None, /) -> str:
        """Return the value that the server stores for a password, computed on our side.

        It is of the same kind as `like`, what is stored now, where there are several kinds.
        """

    def fits(self, stored: str | None, password: str, role: str) -> bool | None:
        """Return whether a stored value is that of a password; None if it is not known here."""

    def knowing(self, role: str, *passwords: str) -> AbstractContextManager[None]:
        """Let our own sessions log in with these passwords during a block, if they need one."""

    def role(self, server: Any, name: str) -> Role:
        """Return the stored password of an account.

        Raises:
            Refused: The account is missing or its password cannot be changed here.
        """

    def put(self, server: Any, name: str, stored: str | None) -> None:
        """Store a value for an account, whether it was computed or read before.

        Raises:
            OperationFailed: The server refuses it.
        """

    def count_refused(self, log: str, name: str | None = None) -> int | None:
        """Count the refused logins with a password in a server's log.

        They are counted for one account, or for any if `name` is None.

        Returns:
            None if the log does not show them.
        """

    def may_need_password(self, fault: ServerUnreachable, /) -> bool:
        """Return whether a server that could not be asked may let us in with another password."""

    def by_hand(self, container: Container) -> str:
        """Return the command that changes a password in a container without a compose file."""

    def can_log_in(
        self,
        at: EngineContainer,
        name: str,
        password: str,
        *,
        timeout: float = ...,
    ) -> bool | None:
        """Return whether a new login over the network works; None if that proves nothing.

        Raises:
            OperationFailed: The login could not be tried.
        """


class Dump(Protocol):
    """The result of dumping one server."""

    @property
    def server(self) -> Any:
        """The server that was dumped."""
        ...

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The files of the dump."""
        ...

    @property
    def statistics(self) -> ServerStatistics:
        """The counted content."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages for the user."""
        ...

    def was_written_since(self) -> bool:
        """Return whether anything may have been written since the dump began.

        The server must still run.

        Raises:
            OperationFailed: The server does not answer.
        """

    def is_older_than(self, left: ShutdownState, /) -> bool:
        """Return whether a stopped server's files show a write after the dump.

        A write in the moment before the stop counts.
        """


class Trial(Protocol):
    """A test restore of the backup of one volume."""

    def run(self) -> list[Evidence]:
        """Test the restore and return the evidence.

        Raises:
            VerificationFailed: The backup does not restore.
            TrialSkipped: No server can run on it for a reason that says nothing about the backup.
            OperationFailed: The engine cannot run the test.
        """


class Summary(Protocol):
    """A function that describes the content of a running server."""

    def __call__(self, at: EngineContainer, *, timeout: float) -> str | None:
        """Describe a server, as in `PostgreSQL 15.18, 3 databases, 41 tables, about 1.2 M rows`.

        The numbers are cheap to get. `timeout` is in seconds.

        Returns:
            None if the server does not answer.
        """


Progress = Callable[[int], None]
"""A callback that gets the number of bytes so far."""
PhysicalCopy = Callable[[Any, str, Path, Progress], Dump]
"""Copies the files of a running server, like `dump`. Raises CopyRefused too."""
StoppedDump = Callable[
    [EngineLocation, Path, Sequence[Artifact], Stopped], tuple[Dump, dict[str, str]]
]
"""Dumps a volume on which no server runs, from the archive just made of it; also returns a
description of what served it.
"""
UpgradedRecord = Callable[
    [EngineLocation, VolumeRecord, Iterable[Container], Iterable[DeclaredMount]],
    VolumeRecord | None,
]
"""Returns the record as its dump has to be loaded, if the volume's server now has a newer major
version. Raises Refused.
"""
SettleRestore = Callable[[Any, Mapping[str, Any]], tuple[bool, str]]
"""Finishes or reverts an interrupted restore of a single database. Returns whether the new one is
in place, and that in words. Raises OperationFailed.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One kind of database.

    A server is whatever `server` returns: it has a `title` (`PostgreSQL 15.18`), its `databases`,
    and the `foreign_sessions` that are open besides ours, in words. It holds its engine and its
    container.
    """

    is_server: Callable[[Container], bool]
    """Return whether the image of a container is one of a server of the kind."""
    serves: Callable[[Container, str], bool]
    """Return whether image and mounts are those of a server with its data in the named volume."""
    server: Callable[[EngineContainer], Any]
    """Inspect the server in a running container. Raises ServerUnreachable, OperationFailed."""
    summary: Summary
    count: Callable[[Any], tuple[DatabaseStatistics, ...]]
    """Count everything in a running server. Raises OperationFailed."""
    dump: Callable[[Any, str, Path, Progress], Dump]
    """Dump and count everything in a server into `into/<slug of the volume>/`. Raises
    OperationFailed.
    """
    settling: Callable[[EngineContainer], AbstractContextManager[Any]]
    """Prepare a running server for its stop in a block: when the block begins, everything that the
    server holds is sure to be on its volume after the stop. Yields the argument for
    `inspect_shutdown`. If the block fails, the server continues as before.

    Raises OperationFailed.
    """
    own_files: Callable[[Any], OwnFiles]
    """Return the parts of its volume that a server's dump stands for."""
    inspect_shutdown: Callable[[EngineLocation, Any], ShutdownState]
    """Inspect how an unused volume was left. The last argument is the server that was dumped from
    it, or what `settling` yielded, or None.

    Raises OperationFailed.
    """
    verify_dump: Callable[[Path, Sequence[Artifact], ServerStatistics], list[Evidence]]
    """Verify the dumps of one volume at levels L2 and L3, from the disk; other artifacts are
    ignored. Raises VerificationFailed.
    """
    trial: Callable[[Engine, Path, VolumeRecord, str], Trial]
    """Describe the test restore of a volume at level L4: into a scratch volume, started without a
    network, and counted. The last argument is the image of its server.
    """
    rebuild: Callable[[EngineLocation, Path, VolumeRecord, Progress], tuple[str, ...]]
    """Rebuild the data from its dump in the existing empty volume, and stop its server properly.
    Returns what could not be restored besides the rows, in words.

    Raises StateChanged for a volume that is not empty, VerificationFailed, OperationFailed.
    """
    dumped_before_deletion: bool = True
    """A dump in addition to the cold archive is worth its time: it can be read, and loaded into a
    newer server.
    """
    held_in_memory: bool = False
    """A running server may hold all of its data in memory, so that its size on the disk shows
    nothing.
    """

    # Abilities of some kinds only; None for the others.

    physical: PhysicalCopy | None = None
    stopped: StoppedDump | None = None
    passwords: Passwords | None = None
    """Handling of its passwords."""
    upgraded: UpgradedRecord | None = None
    missing_extensions: Callable[[Any], Mapping[str, tuple[str, ...]]] | None = None
    """Return the databases of a running server that need extensions which its image lacks, with the
    names of these. Raises OperationFailed.
    """
    settle_restore: SettleRestore | None = None
    """None also means that a single database of this kind cannot be restored alone."""
