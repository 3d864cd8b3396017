"""Common parts of all test restores: a scratch volume, the counts, and the log of a dead server."""

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safe_compose.core.backup import DatabaseStatistics, Evidence, ServerStatistics, VolumeRecord
from safe_compose.core.observed import describe_location
from safe_compose.core.quantities import count
from safe_compose.core.redaction import hide_secrets
from safe_compose.databases.dumps import join_first
from safe_compose.engine import Engine
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.errors import OperationFailed, Refused, VerificationFailed
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.extraction import extract
from safe_compose.volumes.gzip_stream import make_evidence
from safe_compose.volumes.helper_program import read_last_words

_Client = TypeVar("_Client")
STOP_SECONDS = 120
"""How long a server of ours may take to stop cleanly."""
KILLED = (125, 126, 127, 137)
"""Exit codes that say nothing about a program: it was not started, or killed."""


class TrialSkipped(OperationFailed):
    """A backup cannot be tested here, for a reason that says nothing about the backup.

    Its other evidence stands.
    """


@contextmanager
def making_scratch_volume(engine: Engine) -> Iterator[EngineLocation]:
    """Make an empty volume of ours for a block, and remove it afterwards."""
    name = f"safe-compose-trial-{engine.run_id}-{secrets.token_hex(4)}"
    engine.docker.create_volume(name, labels=engine.helpers.marks_for(name))
    try:
        yield EngineLocation(engine, name)
    finally:
        engine.docker.remove_volume(name)


def format_counts(databases: Sequence[DatabaseStatistics]) -> str:
    """Format counts, as in `3 tables, 4,711 rows`."""
    tables, rows = sum(len(d.tables) for d in databases), sum(d.rows for d in databases)
    return f"{count(tables, 'table')}, {count(rows, 'row')}"


@dataclass(frozen=True, slots=True)
class ServerTrial(ABC):
    """A test restore of one volume at level L4: in a scratch volume, served by its image, counted.

    An archive is tested if there is one, otherwise the dump.
    """

    engine: Engine
    folder: Path
    """The folder of the backup."""
    record: VolumeRecord
    image: str

    @property
    def has_archive(self) -> bool:
        """Whether the backup has an archive of the volume."""
        return any(a.kind == "archive" for a in self.record.artifacts)

    @property
    def statistics(self) -> ServerStatistics:
        """What was counted when the volume was backed up.

        Raises:
            VerificationFailed: Nothing was.
        """
        if self.record.statistics is None:
            raise VerificationFailed(
                f"{describe_location(self.record.name)}:"
                f" trial: nothing was counted when it was backed up"
            )
        return self.record.statistics

    def run(self) -> list[Evidence]:
        """Test the restore and return the evidence; there is none if nothing was counted.

        Raises:
            VerificationFailed: The server does not start, or does not hold what was counted.
            TrialSkipped, OperationFailed: The engine cannot run the test, which says nothing about
                the backup.
        """
        if self.record.statistics is None:
            return []
        return [self.test_archive() if self.has_archive else self.test_dump()]

    @abstractmethod
    def test_archive(self) -> Evidence:
        """Extract the archive, start a server on it and count its rows.

        If there were writes after the dump, the counts are of the archive alone and are not
        compared.

        Raises:
            VerificationFailed: The server does not start because of the data, or holds something
                else.
            TrialSkipped: The test cannot be run here.
        """

    @abstractmethod
    def test_dump(self) -> Evidence:
        """Load the dump into a fresh server and count its rows.

        Raises:
            VerificationFailed: The server holds something else.
            TrialSkipped: The dump does not load by itself. That says nothing about it: it holds
                every row that was counted.
        """

    @contextmanager
    def extracting(self) -> Iterator[EngineLocation]:
        """Extract the archive into a scratch volume for a block."""
        with making_scratch_volume(self.engine) as volume:
            extract(volume, self.folder, self.record.artifacts)
            yield volume

    @contextmanager
    def counting(self, is_blamed: Callable[[HelperFailed], bool]) -> Iterator[None]:
        """Count the tables of a restored archive in a block; `is_blamed` judges its failure.

        Raises:
            VerificationFailed: They cannot be counted, and the data is to blame.
            TrialSkipped: They cannot be counted for another reason.
        """
        try:
            yield
        except HelperFailed as error:
            raise (VerificationFailed if is_blamed(error) else TrialSkipped)(
                f"{describe_location(self.record.name)}: trial: the tables cannot be counted:"
                f" {read_last_words(error)}"
            ) from error

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Load the dump in a block.

        Raises:
            TrialSkipped: The client failed, or the server is not empty.
        """
        try:
            yield
        except (OperationFailed, Refused) as error:
            raise TrialSkipped(
                f"{error.message}; every row that was counted is in it", next_step=error.next_step
            ) from error

    def make_evidence(
        self, restored: str, counted: Sequence[DatabaseStatistics], notes: Sequence[str] = ()
    ) -> Evidence:
        """Return the evidence that what was restored holds these counts."""
        result = f"{restored}: {format_counts(counted)} counted"
        return make_evidence("L4", self.record.name, "; ".join((result, *notes)))


def start_first(started: ExitStack, starts: Iterable[Callable[[ExitStack], _Client]]) -> _Client:
    """Start one server after the other until one answers, and return its client.

    Args:
        started: The stack that ends the server that answers; each other one ends at once.
        starts: Each starts a server on the stack that it gets, and waits until it answers.

    Raises:
        VerificationFailed: None answers, and the data is to blame for at least one of them.
        TrialSkipped: None answers, for reasons that say nothing about the data.
    """
    deaths: list[VerificationFailed | TrialSkipped] = []
    for start in starts:
        with ExitStack() as one:
            try:
                client = start(one)
            except (VerificationFailed, TrialSkipped) as death:
                deaths.append(death)
            else:
                started.enter_context(one.pop_all())
                return client
    raise find_blamed(deaths)


def find_blamed(
    deaths: Sequence[VerificationFailed | TrialSkipped],
) -> VerificationFailed | TrialSkipped:
    """Return the death to report: the first that is blamed on the data, or the last."""
    return next((death for death in deaths if isinstance(death, VerificationFailed)), deaths[-1])


def require_same(
    wanted: Mapping[str, int], found: Mapping[str, int], subject: str, stage: str
) -> None:
    """Require that all counts are the same, and that nothing else was found.

    Raises:
        VerificationFailed: Something differs; the message names some of it.
    """
    wrong = [
        f"{name}: {found.get(name, 'not there')}, was {wanted.get(name, 'not there')}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
    if wrong:
        raise VerificationFailed(
            f"{describe_location(subject)}:"
            f" {stage}: counts differ: {join_first(wrong)}; it is not counted as"
            " good",
            next_step="make a new backup, or restore from another one: safe-compose list",
        )


_CONNECTION_LOST = re.compile(
    r"server closed the connection|connection to server was lost|terminating connection"
    r"|ERROR 20(?:06|13) |gone away"
    r"|is not running|No such container",
)
"""Messages of a client, or of docker, about a server that is gone: psql and libpq; MariaDB and
MySQL (2006, 2013).
"""
_FELL = re.compile(
    r"PANIC:|(?:terminated by|got) (?:signal|exception) (?!(?:9|15)\b)|[Aa]ssertion failure"
)


def is_server_lost(error: HelperFailed) -> bool:
    """Return whether a query failed because the server or its container is gone.

    Such a failure does not come from the data that was read.
    """
    return error.returncode in KILLED or _CONNECTION_LOST.search(error.stderr) is not None


def is_crash_of_data(log: str, exit_code: int) -> bool:
    """Return whether a server crashed because of the data it read, according to its log.

    A server that was killed, as for lack of memory or by a cleanup, does not count.
    """
    return exit_code not in KILLED and _FELL.search(log) is not None


def is_fault_of_data(engine: Engine, container_id: str) -> bool:
    """Return whether a server of ours that is gone crashed because of its data.

    If its container is gone too, that is unknown and the answer is False.
    """
    container = engine.docker.container(container_id)
    return container is not None and is_crash_of_data(
        read_last_log(engine, container_id), container.exit_code
    )


def read_last_log(engine: Engine, container_id: str) -> str:
    """Return the last log lines of a server of ours for a message.

    They are at most 900 characters, with secrets hidden.
    """
    lines = engine.docker.logs_tail(container_id, 8).splitlines()
    return hide_secrets(" / ".join(line.strip() for line in lines if line.strip()))[-900:]
