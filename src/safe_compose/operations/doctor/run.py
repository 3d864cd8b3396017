"""The examination of `safe-compose doctor`: which routes are guarded, and what is not in order.

Routes are probed. Findings that need a person are listed under `attention`; the exit code is then
1, otherwise 0.
"""

from collections.abc import Callable, Mapping
from typing import Any

from safe_compose import __version__
from safe_compose.operations.doctor.agents import examine_agents
from safe_compose.operations.doctor.docker import examine_docker
from safe_compose.operations.doctor.project import examine_project
from safe_compose.operations.doctor.routes import examine_routes
from safe_compose.operations.doctor.store import examine_store


def examine(on_each: Callable[[], object] = lambda: None, *, look: bool = True) -> dict[str, Any]:
    """Return everything that doctor reports, in the shape of its JSON.

    Args:
        on_each: Called after each route was probed.
        look: Also examine the daemon, the project and the store; otherwise only the routes and the
            hooks of coding agents.
    """
    routes = examine_routes(on_each)
    agents = examine_agents()
    found: dict[str, Any] = {
        "safe-compose": __version__, **routes.facts, "agents": agents.facts
    }  # fmt: skip
    attention = [*routes.attention, *agents.attention]
    if look:
        docker = examine_docker()
        found["docker"] = docker.facts
        attention += docker.attention
        if "fault" not in docker.facts:
            project = examine_project()
            found["project"] = project.facts
            attention += project.attention
        store = examine_store(found.get("project"))
        found |= store.facts
        attention += store.attention
    return {**found, "attention": list(dict.fromkeys(attention))}


def format_rows(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the routes as rows of a table: route, result, and reason or remedy."""
    return [
        (
            t["way"],
            f"{t['verdict']}{' by ' + t['place'] if t['place'] else ''}",
            t["why"] or t["hint"] or " or ".join(t["by"]) or "nothing can",
        )
        for t in found["ways"]
    ]
