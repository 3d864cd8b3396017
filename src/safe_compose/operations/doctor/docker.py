"""The examination of docker: versions, their known traps, and our trash on its engine."""

import os
from typing import Any

from safe_compose.core.quantities import count
from safe_compose.engine import Engine, connect
from safe_compose.errors import SafeComposeError
from safe_compose.fastpath import launch
from safe_compose.operations import trash
from safe_compose.operations.doctor.findings import Findings
from safe_compose.operations.doctor.project import SIZES_SECONDS
from safe_compose.system.process import make_id, read_clock


def list_traps(api: tuple[int, int], compose: tuple[int, ...] | None) -> list[str]:
    """Return what these versions are known to delete beyond what people expect."""
    found = []
    if compose is not None and (2, 2, 3) <= compose < (2, 4):
        found.append(
            f"compose {_format_version(compose)} deletes `external: true` volumes on `down -v`"
            " (docker/compose#9172): upgrade it"
        )
    if compose is not None and (2, 0) <= compose < (2, 29):
        found.append(
            f"compose {_format_version(compose)}: `down -v SERVICE` deletes volumes of other"
            " services too, those that nobody uses"
        )
    if compose is not None and (2, 0) <= compose < (2, 30):
        found.append(
            f"compose {_format_version(compose)}: `-p PROJECT down -v WRONG-SERVICE` takes down all"
            " of the project"
        )
    if api < (1, 42):
        found.append(
            f"API {_format_version(api)}: `docker volume prune` deletes named volumes too, not only"
            " anonymous ones (from 1.42 on)"
        )
    return found


def examine_docker() -> Findings:
    """Examine docker and its engine; if that is impossible, the facts hold the fault."""
    try:
        docker = launch.find_docker()
        with connect(docker, (), environ=dict(os.environ), run_id=make_id(read_clock())) as engine:
            client, compose = engine.commands.client_versions()
            kept = _examine_trash(engine)
            facts: dict[str, Any] = {
                "path": docker,
                "client": _format_version(client),
                "compose": _format_version(compose),
                "endpoint": engine.endpoint,
                "remote": engine.docker.remote,
                "api": _format_version(engine.docker.api_version),
                "traps": list_traps(engine.docker.api_version, compose),
                "trash": kept.facts,
            }
    except SafeComposeError as fault:
        return Findings({"fault": fault.message}, (fault.message,))
    return Findings(
        facts, (*kept.attention, *(trap for trap in facts["traps"] if "upgrade" in trap))
    )


def _examine_trash(engine: Engine) -> Findings:
    """Examine the trash on the engine: how much it holds, and whether locks protect it."""
    attention: list[str] = []
    items = trash.list_items(engine)
    sizes = (
        engine.docker.sizes([item.volume for item in items], timeout=SIZES_SECONDS) if items else {}
    )
    if expired := [item for item in items if item.has_expired(read_clock())]:
        attention.append(
            f"the trash has {count(len(expired), 'item')} older than 30 days: safe-compose trash"
            " empty --expired"
        )
    for item in items:
        if (holder := engine.locks.find(item.volume)) is None or holder.state != "running":
            attention.append(
                f"nothing protects item {item.id} of the trash from a prune: safe-compose recover"
            )
    size = sum(sizes.values()) if len(sizes) == len(items) else None
    return Findings({"items": len(items), "bytes": size}, tuple(attention))


def _format_version(version: tuple[int, ...] | None) -> str | None:
    return ".".join(map(str, version)) if version is not None else None
