"""What every kind of database offers: found, dumped, counted, proved, tried out and brought back.

A package per kind has these functions; the roads go by the kind that policy, or a manifest, names (`methods.DATABASES`).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from safe_compose.artifacts import Artifact, DatabaseStatistics, Evidence, ServerStatistics, VolumeRecord
from safe_compose.engine import Engine
from safe_compose.errors import BackupFailed, LookAgain
from safe_compose.observed import Container, DeclaredMount, Mount


class Silent(BackupFailed):
    """The database server does not run, or runs and does not answer us: there can be no dump, only a cold archive."""


class NoCopy(BackupFailed):
    """This server does not give a copy of its files while it runs. It can be dumped all the same."""


def another(container: Container) -> Silent:
    """At the socket of a container answers another server than at its port: it was not asked any further."""
    return Silent(
        f"container {container.name}: another server answers at its socket than at its port, as where containers share a folder of "
        "sockets; it was not dumped",
        next_step="give each server a folder of its own for its socket",
    )


def lasting(container: Container, mount: Mount | None, directory: str) -> Mount:
    """The mount, a volume or a folder of the host, that holds a data directory. Raises BackupFailed for what ends with its
    container."""
    if mount is not None and (mount.name if mount.type == "volume" else mount.type == "bind"):
        return mount
    raise BackupFailed(
        f"container {container.name}: its data directory {directory} lies in no volume and no folder of the host, so it ends with "
        "that container; nothing was dumped",
        next_step=f"docker inspect {container.name}",
    )


def counted_before(engine: Engine, record: VolumeRecord, image: str, volume: str) -> ServerStatistics:
    """What a volume held, where its data can be made again from a dump: with an image that is at hand, into an EMPTY volume.

    Raises BackupFailed, LookAgain.
    """
    if record.statistics is None:
        raise BackupFailed(f"volume {record.name}: it cannot be made again from a dump: it has none")
    if not image or engine.image(image) is None:
        raise BackupFailed(
            f"volume {record.name}: it cannot be made again from its dump: its image is not at hand, and none is pulled",
            next_step="docker pull the image of its service, then repeat the command",
        )
    if (names := engine.list_root(volume)) is None or names:
        raise LookAgain(f"volume {volume} is not empty; nothing was written into it")
    return record.statistics


class Stopped(NamedTuple):
    """A volume on which no server runs, and what is known of those that served it."""

    volume: str
    users: tuple[Container, ...]
    declared: tuple[DeclaredMount, ...]
    """What the compose file says of services that mount it."""
    image_ids: tuple[str, ...]
    """Local images to run helpers from, the likeliest first."""


class LeftBehind(NamedTuple):
    """What a stopped server left on its volume."""

    words: str
    """`control state 'shut down'`"""
    clean: bool
    """It was stopped in order; False also where that cannot be told."""
    statistics: ServerStatistics | None = None
    """What it held when it was stopped, where that was counted."""
    notes: tuple[str, ...] = ()
    """What has to be known about it, in words."""
    next_transaction: int | None = None
    """The number that the next write would have had, where the files tell it."""


class Role(NamedTuple):
    """What a server keeps of an account that logs in with a password."""

    verifier: str | None
    """What stands for the password there; it lets nobody in by itself. None: there is no password."""
    notes: tuple[str, ...] = ()
    """What has to be known before it changes, in words."""


class Passwords(Protocol):
    """How a kind of database keeps passwords."""

    def verifier(self, password: str, role: str) -> str:
        """What the server is to keep of a password, made on our side."""

    def fits(self, kept: str | None, password: str, role: str) -> bool | None:
        """Whether that is kept of this password. None: it cannot be told here."""

    def knowing(self, role: str, *passwords: str) -> AbstractContextManager[None]:
        """While the block lasts, our own sessions may log in with these where they need a password."""

    def role(self, engine: Engine, server: Any, name: str) -> Role:
        """What the server keeps now. Raises Refused when the account is not there or its password cannot be changed here."""

    def put(self, engine: Engine, server: Any, name: str, kept: str | None) -> None:
        """Put that in its place, whether it was made or read before. Raises BackupFailed."""

    def refused(self, log: str, name: str) -> int:
        """How many logins of an account, with a password, a server's log shows as refused."""

    def lets_in(self, engine: Engine, container: Container, name: str, password: str, *, timeout: float = ...) -> bool | None:
        """Whether a fresh login over the network works; None where that proves nothing. Raises BackupFailed."""


class Dump(Protocol):
    """What `dump` made of one server."""

    @property
    def server(self) -> Any: ...
    @property
    def artifacts(self) -> tuple[Artifact, ...]: ...
    @property
    def statistics(self) -> ServerStatistics: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...

    def written_since(self, engine: Engine) -> bool:
        """Whether anything may have been written since the dump began; the server must still run. Raises BackupFailed."""

    def is_older_than(self, left: LeftBehind) -> bool:
        """Whether what the stopped server left tells of a write after the dump: also in the moment before it stopped."""


class Database(Protocol):
    """One kind of database. A server is whatever `server` returns: it has a `title` (`PostgreSQL 15.18`), its `databases` and
    the `foreign_sessions` that are open besides ours, in words."""

    DUMPED_BEFORE_DELETION: bool
    """A dump beside the cold archive is worth its time: it can be read, and loaded into a newer server."""

    def serves(self, container: Container, volume_name: str) -> bool:
        """Whether, by its image and mounts, this is a server with its data in that volume."""

    def server(self, engine: Engine, container: Container) -> Any:
        """Find out all about the server in a running container. Raises Silent, BackupFailed."""

    def summary(self, engine: Engine, container: Container, *, timeout: float) -> str | None:
        """`PostgreSQL 15.18, 3 databases, 41 tables, about 1.2 M rows`, cheaply; None when it cannot be told."""

    def count(self, engine: Engine, server: Any) -> tuple[DatabaseStatistics, ...]:
        """Count everything of a running server now. Raises BackupFailed."""

    def dump(self, engine: Engine, server: Any, volume: str, into: Path, progress: Callable[[int], None] = ...) -> Dump:
        """Dump and count everything into `into/<slug of the volume>/`; `progress` gets bytes. Raises BackupFailed."""

    def settled(self, engine: Engine, container: Container) -> AbstractContextManager[Any]:
        """Around the stop of a running server: when the block begins, all that it holds is sure to be on its volume once it
        stopped. Yields what `left_behind` is told of it. A fault in the block lets the server go on as it did before.

        Raises BackupFailed.
        """

    def left_behind(self, engine: Engine, volume_name: str, image_ids: Sequence[str], server: Any) -> LeftBehind:
        """How a volume was left; nobody runs on it. `server` is what was dumped from it, else what `settled` yielded, or None.

        Raises BackupFailed.
        """

    def verify_dump(self, folder: Path, artifacts: Sequence[Artifact], statistics: ServerStatistics) -> list[Evidence]:
        """L2 and L3 of the dumps of one volume, from the disk; other artifacts are ignored. Raises VerifyFailed."""

    def trial(self, engine: Engine, folder: Path, record: VolumeRecord, image: str) -> list[Evidence]:
        """L4: restored into a scratch volume, started on no network, counted. Raises VerifyFailed, BackupFailed."""

    def rebuild(
        self, engine: Engine, folder: Path, record: VolumeRecord, volume_name: str, progress: Callable[[int], None] = ...
    ) -> None:
        """Make the data again from its dump in the existing EMPTY volume, and leave it stopped in order.

        Raises LookAgain for a volume that is not empty, VerifyFailed, BackupFailed.
        """
