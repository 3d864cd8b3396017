"""The data in containers' own layers, and its backup while everything runs.

A database there is dumped by its server, as one in a folder of the host; SQLite databases and
uploads are read through the engine, and only the files that names show to be data.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import NoReturn

from safe_compose.core.backup import VolumeRecord
from safe_compose.core.compose_down import is_one_off
from safe_compose.core.layers import LayerContent
from safe_compose.core.observed import (
    LAYER,
    NUMBER_LABEL,
    PROJECT_LABEL,
    Container,
    Layer,
    Location,
    Mount,
    Observed,
)
from safe_compose.core.policy import Verdict
from safe_compose.core.text import shell_quote
from safe_compose.core.tier import Tier
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.registry import DATABASES
from safe_compose.engine import Engine
from safe_compose.errors import EngineUnavailable, OperationFailed, SafeComposeError
from safe_compose.fastpath.layer_data import (
    SQLITE_LOGS,
    LayerData,
    find_folder,
    find_highest,
    leave_out_below,
)
from safe_compose.operations.backup.jobs import VolumeJob
from safe_compose.operations.backup.records import describe_user, remove_half
from safe_compose.operations.layer_changes import LISTING_SECONDS, inspect_layers
from safe_compose.store.catalogue.checks import is_pair
from safe_compose.ui import terminal
from safe_compose.volumes.archive import archive_blocks
from safe_compose.volumes.layer_archive import LayerFiles, stream_files

ATTEMPTS = 3
"""How often files are read that somebody changes meanwhile."""


@dataclass(frozen=True, slots=True)
class FoundLayer:
    """A container whose layer holds data."""

    engine: Engine
    layer: Layer
    container: Container
    data: LayerData
    changed: tuple[str, ...]
    """The paths that the container changed."""

    def dump_server(self, folder: str, name: str, into: Path) -> VolumeRecord:
        """Dump the server whose data lies in the layer, and return the record of a volume.

        Raises:
            OperationFailed: It is of a kind that nobody can dump, or cannot be dumped.
        """
        container = self.container
        place = Mount("bind", None, folder, folder)
        seen = replace(container, mounts=(*container.mounts, place))
        kind = next((k for k, d in DATABASES.items() if d.is_server(seen)), None)
        if kind is None or container.state != "running":
            raise OperationFailed(
                f"the database in {folder} of container {container.name} cannot be dumped: a copy"
                " of its files while it runs would be silently wrong",
                next_step=f"stop it for the backup: docker stop {shell_quote(container.name)}",
            )
        database = DATABASES[kind]
        server = database.server(EngineContainer(self.engine, seen))
        with terminal.showing_progress(f"dump {container.name} ({server.title})") as report:
            dump = database.dump(replace(server, volume=name), name, into, report)
        note = (
            f"its data lies in {folder} of container {container.name} alone, in no volume;"
            f" restored, it becomes the volume {name}, to be mounted there"
        )
        return VolumeRecord(
            name=name,
            driver="local",
            options={},
            labels={},
            created_at="",
            tier=Tier.CRITICAL.value,
            data_kind=kind,
            anonymous=False,
            method="dump",
            users=(describe_user(container, place),),
            artifacts=dump.artifacts,
            statistics=dump.statistics,
            notes=(note, *dump.warnings),
        )

    def archive_files(self, into: Path) -> VolumeRecord:
        """Archive the files of the layer, and return its record.

        A SQLite database counts as read when neither it nor the file beside it changed meanwhile.

        Raises:
            OperationFailed: They cannot be read, or change faster than they are read.
        """
        container, name = self.container, self.layer.name
        for left in reversed(range(ATTEMPTS)):
            before = self._list_states()
            wanted = self._choose_files()
            with terminal.showing_progress(f"archive {name}") as report:
                artifacts = archive_blocks(
                    stream_files(self.engine, container.id, wanted),
                    name,
                    into=into,
                    progress=report,
                    live=container.lively,
                )
            self._require_rest()
            if not container.lively or before == self._list_states():
                break
            if not left:
                raise OperationFailed(
                    f"the SQLite databases of container {container.name} were written during each"
                    f" of {ATTEMPTS} attempts to read them: a copy would be silently wrong",
                    next_step=f"stop it for the backup: docker stop {shell_quote(container.name)}",
                )
            remove_half(into, name)
        notes = ["its container ran meanwhile: files that changed may be inconsistent"]
        return VolumeRecord(
            name=name,
            driver="local",
            options={},
            labels={key: value for key, value in self.layer.labels.items() if is_pair(key, value)},
            created_at="",
            tier=Tier.CRITICAL.value,
            data_kind=_find_kind(self.data),
            anonymous=False,
            # Its SQLite databases are opened for the verification, as those of a volume at rest.
            method="cold",
            users=(describe_user(container, Mount("layer", None, "", "/")),),
            artifacts=artifacts,
            notes=tuple(notes) if container.lively else (),
            location=self.layer.kind,
        )

    def _require_rest(self) -> None:
        """Check that a container that was at rest before its files were read still is.

        Raises:
            OperationFailed: It was started meanwhile.
        """
        container = self.container
        now = None if container.lively else self.engine.docker.container(container.id)
        if now is not None and (now.lively or now.started_at != container.started_at):
            raise OperationFailed(
                f"container {container.name} was started while its files were read: a copy may be"
                " inconsistent",
                next_step="repeat the command",
            )

    def _list_states(self) -> list[str]:
        """Return size and time of each SQLite database and its companions, as the engine says."""
        return [
            self.engine.layers.describe(self.container.id, f"{path}{end}")
            for path in self.data.sqlite
            for end in ("", *SQLITE_LOGS)
        ]

    def _choose_files(self) -> LayerFiles:
        """Return the files to be archived, without those of a server that runs."""
        until = time.monotonic() + LISTING_SECONDS
        identity, data, holds = self.container.id, self.data, self.engine.layers.holds_file
        databases = () if self.container.lively else data.databases
        files = set(self.changed).difference(databases, leave_out_below(self.changed, databases))
        files.update(data.files)
        for path in data.sqlite:
            beside = (f"{path}{end}" for end in SQLITE_LOGS)
            files.add(path)
            # An unknown one is read as well: without its log, a database is silently wrong.
            files.update(p for p in beside if holds(identity, p, until) is not False)
        roots = _list_roots(data, cold=not self.container.lively)
        return LayerFiles(sorted((*roots, *leave_out_below(files, roots))), files)


def find_layers(
    engine: Engine, observed: Observed, names: Sequence[str] = ()
) -> list[tuple[Layer, Verdict]]:
    """Return the layers with data of the observed project, or the named ones, with their verdicts.

    Containers that end with `--rm` are made to be thrown away.

    Args:
        engine: The engine.
        observed: The state of the engine, with the project.
        names: These layers instead, of any project.
    """
    return [
        (layer, _judge(layer, loss))
        for loss in _find_losses(engine, observed, names)
        for layer in [_make_layer(loss)]
    ]


def find_locations(engine: Engine, observed: Observed) -> list[tuple[Location, Verdict, str]]:
    """Return what a backup holds of the layers of the observed project.

    Returns:
        The location by the name that it has in a backup, its verdict, and its container.
    """
    found: list[tuple[Location, Verdict, str]] = []
    taken = list_taken_names(observed)
    for loss in _find_losses(engine, observed):
        layer, container = _make_layer(loss), loss.container
        if loss.unread or _list_roots(loss.data, cold=not container.lively):
            found.append((layer, _judge(layer, loss), container.name))
        for number, _ in enumerate(loss.data.databases if container.lively else ()):
            dump = Location(name_dump(container, number, taken), labels=layer.labels)
            found.append((dump, _judge(dump, loss), container.name))
    return found


def _find_losses(
    engine: Engine, observed: Observed, names: Sequence[str] = ()
) -> Iterator[LayerContent]:
    project = observed.project
    theirs = [
        c
        for c in observed.containers
        if not c.is_marked_as_ours
        and not c.auto_remove
        and (f"{LAYER}{c.name}" in names if names else project is not None and project.owns(c))
    ]
    for loss in inspect_layers(engine, theirs, time.monotonic() + LISTING_SECONDS):
        if loss.unread:
            terminal.say(
                f"safe-compose: not all that {loss.container.name} changed in its own layer could"
                f" be listed within {LISTING_SECONDS:.0f} s"
            )
        if loss.unread or not loss.data.is_empty:
            yield loss


def _judge(location: Location, loss: LayerContent) -> Verdict:
    why = f"in the layer of {loss.container.name}, in no volume: {loss.describe()}"
    return Verdict(location.name, Tier.CRITICAL, why, _find_kind(loss.data))


def _find_kind(data: LayerData) -> str:
    return "files" if data.files or not data.sqlite else "sqlite"


def _make_layer(loss: LayerContent) -> Layer:
    project = loss.container.project
    labels = {PROJECT_LABEL: project} if project is not None else {}
    paths = _list_roots(loss.data, cold=True)
    return Layer(f"{LAYER}{loss.container.name}", labels=labels, paths=paths)


def make_jobs(engine: Engine, layer: Layer, taken: set[str], into: Path) -> Iterator[VolumeJob]:
    """Yield the jobs that back up a layer: one for its files, and one for each database server.

    Where that cannot be told any more, there is one job, which fails.

    Args:
        engine: The engine.
        layer: The layer.
        taken: The names that no dump may have (`list_taken_names`); those of the dumps are added.
        into: The folder of the backup.
    """
    tier = Tier.CRITICAL.value
    try:
        found = _look_again(engine, layer)
    except (OperationFailed, EngineUnavailable) as fault:
        yield VolumeJob(layer.name, tier, partial(_raise, fault))
        return
    container, data = found.container, found.data
    for number, folder in enumerate(data.databases if container.lively else ()):
        name = name_dump(container, number, taken)
        make = partial(found.dump_server, folder, name, into)
        yield VolumeJob(name, tier, make, repeat=layer.name)
    if _list_roots(data, cold=not container.lively):
        yield VolumeJob(layer.name, tier, partial(found.archive_files, into))


def _look_again(engine: Engine, layer: Layer) -> FoundLayer:
    """Return the container of a layer, and what the layer holds now.

    Raises:
        OperationFailed: It is gone, or what it holds cannot be told.
        EngineUnavailable: The daemon does not answer.
    """
    container = engine.docker.container(layer.name.removeprefix(LAYER))
    if container is None:
        raise OperationFailed(f"the container of {layer.name} is not there any more")
    [loss] = inspect_layers(engine, [container], time.monotonic() + LISTING_SECONDS)
    if loss.unread:
        raise OperationFailed(
            f"not all that container {container.name} changed in its own layer could be listed"
            f" within {LISTING_SECONDS:.0f} s: a copy would lack some of it",
            next_step=f"see what it writes: docker diff {shell_quote(container.name)}; then give"
            " that a volume",
        )
    if loss.data.is_empty:
        raise OperationFailed(
            f"the data in the layer of container {container.name} is not there any more"
        )
    return FoundLayer(engine, layer, container, loss.data, loss.changed)


def _raise(fault: SafeComposeError) -> NoReturn:
    raise fault


def list_taken_names(observed: Observed) -> set[str]:
    """Return the names of volumes that exist, or that the project declares."""
    names = {volume.name for volume in observed.volumes}
    return (
        names | {volume.name for volume in observed.project.volumes} if observed.project else names
    )


def name_dump(container: Container, number: int, taken: set[str]) -> str:
    """Return the volume that a dump of a server without a volume is restored to, and take its name.

    The first one of a service's first container is named after the service.

    Args:
        container: The container of the server.
        number: Which of its servers it is, from 0.
        taken: The names that it may not have; its own is added.
    """
    service = container.service
    if is_one_off(container) or container.labels.get(NUMBER_LABEL, "1") != "1":
        service = None
    base = f"{container.project or 'volumes'}_{service or container.name}-dump"
    names = (f"{base}-{n}" if n > 1 else base for n in count(number + 1))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def _list_roots(data: LayerData, *, cold: bool) -> tuple[str, ...]:
    """Return the paths that hold data, without those below another.

    Args:
        data: The data.
        cold: Whether the folders of database servers are among them.
    """
    paths = {find_folder(path) or path for path in data.files} | set(data.sqlite)
    paths |= set(data.databases) if cold else set()
    return tuple(sorted(find_highest(paths)))
