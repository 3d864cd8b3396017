"""A run that was killed, with everything that its recovery needs."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from safe_compose.engine import Engine
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import Journal
from safe_compose.store.run_record import RunRecord


@dataclass(frozen=True, slots=True)
class KilledRun:
    """A killed run of this engine and store."""

    engine: Engine
    catalogue: Catalogue
    journal: Journal
    record: RunRecord
    holding: Collection[str] = ()
    """The projects whose locks are held already."""

    def reread(self) -> "KilledRun":
        """Return the run with what its recovery has journaled until now."""
        return replace(self, record=self.journal.find(self.record.id) or self.record)

    @contextmanager
    def locking(self, projects: Collection[str]) -> Iterator[None]:
        """Hold the locks of these projects, as far as they are not held already.

        Raises:
            StateChanged: Another safe-compose holds one of them.
        """
        command = ("safe-compose", "recover")
        with ExitStack() as locks:
            for project in sorted(set(projects) - set(self.holding)):
                lock = self.catalogue.folder.lock(self.engine.id, project, command=command)
                locks.enter_context(lock)
            yield
