"""The examination of containers that keep data in their own layer, which ends with them."""

import time
from collections.abc import Sequence
from typing import Any

from safe_compose.core.layers import LayerContent
from safe_compose.core.observed import LAYER, ONEOFF_LABEL, Container, Observed
from safe_compose.core.policy import Verdict
from safe_compose.core.tier import Tier
from safe_compose.engine import Engine
from safe_compose.operations.doctor.findings import Findings
from safe_compose.operations.layer_changes import inspect_layers

LAYER_SECONDS = 3.0
"""How long the engine may take to list what the containers changed."""
_MOST = 8
"""Most databases of a container that are named."""


def list_layers(engine: Engine, observed: Observed) -> list[LayerContent]:
    """Return the project's containers with data outside of every mount."""
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
    found = inspect_layers(engine, own, until) if own else ()
    return [one for one in found if not one.data.is_empty]


def judge_layers(layers: Sequence[LayerContent]) -> list[Verdict]:
    """Return the verdicts about files in layers; a backup names a database there otherwise."""
    return [
        Verdict(
            f"{LAYER}{one.container.name}",
            Tier.CRITICAL,
            f"in no volume: {one.describe()}",
            "files" if one.data.files else "sqlite",
        )
        for one in layers
        if one.data.files or one.data.sqlite
    ]


def examine_layers(layers: Sequence[LayerContent]) -> Findings:
    """Find the databases outside of every mount."""
    found: list[dict[str, Any]] = []
    attention: list[str] = []
    for one in layers:
        for path in (*one.data.databases[:_MOST], *one.data.sqlite[:_MOST]):
            found.append({"container": one.container.name, "path": path})
            is_folder = path in one.data.databases
            attention.append(_explain(one.container, path, is_folder=is_folder))
    return Findings(found, tuple(attention))


def _explain(container: Container, path: str, *, is_folder: bool) -> str:
    what = f"its database in {path}" if is_folder else f"the SQLite database {path}"
    where = path if is_folder else path.rpartition("/")[0] or "/"
    return (
        f"{container.name} keeps {what} in its own layer, which `docker compose down` and every"
        f" update delete. Mount a volume at {where}, after: safe-compose backup"
    )
