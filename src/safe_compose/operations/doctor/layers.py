"""The examination of containers that keep a database in their own layer, which ends with them."""

import time
from typing import Any

from safe_compose.core.observed import ONEOFF_LABEL, Container, Observed
from safe_compose.engine import Engine
from safe_compose.fastpath.layer_data import find_data
from safe_compose.operations.doctor.findings import Findings

LAYER_SECONDS = 3.0
"""How long the engine may take to list what the containers changed."""
_MOST_CHECKED = 8
"""Most databases of a container that are named; SQLite files are looked at one by one."""


def examine_layers(engine: Engine, observed: Observed) -> Findings:
    """Find the project's databases outside of every mount."""
    project = observed.project
    own = [
        container
        for container in observed.containers
        if project is not None
        and project.owns(container)
        and container.labels.get(ONEOFF_LABEL) != "True"
        and not container.auto_remove
        and not container.is_marked_as_ours
    ]
    until = time.monotonic() + LAYER_SECONDS
    listed = engine.layers.list_changes([container.id for container in own], until) if own else []
    found: list[dict[str, Any]] = []
    attention: list[str] = []
    for container, changes in zip(own, listed, strict=True):
        data = find_data(changes.paths, [mount.destination for mount in container.mounts])
        files = [
            path
            for path in data.sqlite[:_MOST_CHECKED]
            if engine.layers.holds_file(container.id, path, until) is not False
        ]
        for path in (*data.databases[:_MOST_CHECKED], *files):
            found.append({"container": container.name, "path": path})
            attention.append(_explain(container, path, is_folder=path in data.databases))
    return Findings(found, tuple(attention))


def _explain(container: Container, path: str, *, is_folder: bool) -> str:
    what = f"its database in {path}" if is_folder else f"the SQLite database {path}"
    where = path if is_folder else path.rpartition("/")[0] or "/"
    return (
        f"{container.name} keeps {what} in its own layer, which `docker compose down` and every"
        f" update delete: mount a volume at {where}"
    )
