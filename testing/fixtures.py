"""The types of the fixtures in conftest."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from testing.projects import Completed, ComposeProject

OUTSIDE: Mapping[str, str] = dict(os.environ)
"""The environment that pytest was started in; only the lab's own script still sees it."""


class ProjectFactory(Protocol):
    def __call__(
        self, text: str, name: str | None = None, files: Mapping[str, str] | None = None
    ) -> ComposeProject: ...


class SafeCompose(Protocol):
    def __call__(
        self,
        *argv: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        timeout: float = 300,
    ) -> Completed: ...
