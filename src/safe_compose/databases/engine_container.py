"""A container on an engine, whose programs and small files tell about its server."""

from dataclasses import dataclass

from safe_compose.core.observed import Container
from safe_compose.engine import Engine

FILE_LIMIT = 1 << 20
"""Largest size in bytes of a small file in a container: a setting, a password."""
SECONDS = 60.0
"""Time limit for one small program in a container."""


@dataclass(frozen=True, slots=True)
class EngineContainer:
    """A container on an engine, with what was known of it when it was inspected."""

    engine: Engine
    container: Container

    @property
    def name(self) -> str:
        """The name of the container."""
        return self.container.name

    def inspect_again(self) -> Container | None:
        """Return the container as it is now; None if it is gone."""
        return self.engine.docker.container(self.container.id)

    def execute(self, *argv: str, timeout: float = SECONDS, limit: int = FILE_LIMIT) -> bytes:
        """Return the output of a program in the container.

        Raises:
            HelperFailed: The program failed, or its output is larger than `limit` bytes.
        """
        return self.engine.helpers.execute(self.container.id, argv, timeout=timeout, limit=limit)
