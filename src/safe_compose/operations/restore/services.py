"""The services that ran before a deletion, started again as compose was called then.

No flag that deletes is ever used.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from safe_compose.core.text import join_for_shell
from safe_compose.engine import Engine
from safe_compose.fastpath import launch
from safe_compose.operations.restore.plan import RestorePlan
from safe_compose.store.catalogue.checks import is_service
from safe_compose.store.run_record import RunRecord
from safe_compose.store.steps import Running
from safe_compose.system import children
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace

_SECONDS = 300.0
"""How long compose may take to say what it would do."""

HEALTH_SECONDS = 120.0
"""How long started containers may take to report that they are healthy."""
_NO_SERVICE = "no such service"
_DIVERGES = "doesn't match configuration in compose file"
"""A part of compose's question whether a volume may be deleted and recreated (2.32 and later)."""


def start(
    workspace: Workspace, engine: Engine, deletion: RunRecord, plan: RestorePlan
) -> list[str]:
    """Start what ran before the deletion, and return the services that were started.

    This is `compose up -d --no-deps` with the recorded words, in the recorded folder. It never has
    `-V` or `-y`, and stdin is empty, so a question of compose is answered no. If compose cannot be
    called like that, or would ask whether a volume may be deleted, the command is printed instead.
    """
    running = deletion.newest(Running)
    services = [s for s in (running.services if running is not None else ()) if is_service(s)]
    if not services:
        return []
    words = ("up", "-d", "--no-deps", *services)
    output = _dry_run(workspace, deletion, words)
    if gone := [
        s for s in services if _NO_SERVICE in output.lower() and _is_gone(workspace, deletion, s)
    ]:
        terminal.say(
            f"safe-compose: not in the compose file any more, so not started: {', '.join(gone)}"
        )
        services = [s for s in services if s not in gone]
        if not services:
            return []
        words = ("up", "-d", "--no-deps", *services)
        output = _dry_run(workspace, deletion, words)
    shown = join_for_shell([deletion.program, *_make_words(deletion, *words)])
    if find_command(workspace, deletion) is None or "-" in deletion.compose_globals:
        terminal.say(f"safe-compose: the volumes are back; start the services yourself: {shown}")
        return []
    if name := _find_diverging(plan, output):
        terminal.say(
            "safe-compose: the volumes are back as they were, but the compose file now defines"
            f" {name} otherwise and compose would delete it to recreate it; nothing was started."
            f" Put its definition back, then: {shown}"
        )
        return []
    terminal.say(f"safe-compose: {shown}")
    if code := run_compose(workspace, deletion, *words):
        images = _suggest_image_commands(workspace, engine, deletion, services)
        then = (
            f"images of the services are gone. Bring these back and start them: {images}{shown}"
            if images
            else f"compose ended with {code}; run it yourself: {shown}"
        )
        terminal.say(f"safe-compose: the volumes are back, but {then}")
        return []
    _wait_healthy(engine, deletion, services)
    return services


def _wait_healthy(engine: Engine, deletion: RunRecord, services: Sequence[str]) -> None:
    """Wait until the started containers with a health check are healthy, or report that."""
    for container in engine.docker.containers():
        if (
            container.project == deletion.project
            and container.service in services
            and container.health is not None
        ):
            with terminal.reporting_only():
                engine.docker.wait_healthy(container.id, timeout=HEALTH_SECONDS)


def _suggest_image_commands(
    workspace: Workspace, engine: Engine, deletion: RunRecord, services: Sequence[str]
) -> str:
    """Return the commands that build or pull the images that the engine lacks, each with ` && `.

    For example `docker compose build web && docker compose pull db && `; empty when no image is
    missing, or when compose does not report its services.
    """
    model = _read_services(workspace, deletion)
    gone: dict[str, list[str]] = {"build": [], "pull": []}
    for name in services:
        service = model.get(name)
        if isinstance(service, dict):
            built = bool(service.get("build"))
            image = service.get("image") or f"{deletion.project}-{name}"
            with terminal.reporting_only():
                if engine.docker.image(str(image)) is None:
                    gone["build" if built else "pull"].append(name)
    commands = [
        join_for_shell([deletion.program, *_make_words(deletion, verb, *names)])
        for verb, names in gone.items()
        if names
    ]
    return "".join(f"{command} && " for command in commands)


def _read_services(workspace: Workspace, deletion: RunRecord) -> dict[str, Any]:
    """Return the services as compose resolves them, secrets included; empty when it does not.

    The result must never be stored or shown.
    """
    command = find_command(workspace, deletion, "config", "--format", "json")
    if command is None or "-" in deletion.compose_globals:
        return {}
    try:
        ended = children.run(
            command, cwd=deletion.cwd, seconds=_SECONDS, environ=launch.read_original_environment()
        )
        found = json.loads(ended.stdout)["services"]
    except (
        subprocess.TimeoutExpired,
        children.TooMuch,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ):
        return {}
    return found if isinstance(found, dict) else {}


def _make_words(deletion: RunRecord, *words: str) -> list[str]:
    """Return the arguments of `docker`, or of the standalone `docker-compose`."""
    verb = [] if deletion.program == "docker-compose" else ["compose"]
    return [*deletion.docker_globals, *verb, *deletion.compose_globals, *words]


def find_command(workspace: Workspace, deletion: RunRecord, *words: str) -> list[str] | None:
    """Return the program of the deletion with these words for compose.

    Another version of compose would recreate its containers, under other names.

    Returns:
        The command; None when it cannot be run as it was then.
    """
    program = (
        launch.search("docker-compose")
        if deletion.program == "docker-compose"
        else workspace.docker
    )
    if program is None or not os.path.isdir(deletion.cwd):  # noqa: PTH112
        return None
    return [program, *_make_words(deletion, *words)]


def run_compose(workspace: Workspace, deletion: RunRecord, *words: str) -> int:
    """Run compose as it was run then, and return its exit code; its output goes to stderr."""
    command = find_command(workspace, deletion, *words)
    if command is None:
        return 1
    return children.run_shown(command, cwd=deletion.cwd, environ=launch.read_original_environment())


def _dry_run(workspace: Workspace, deletion: RunRecord, words: Sequence[str]) -> str:
    """Return what compose says it would do.

    docker-compose 1.x takes `--dry-run` for a mistake and ends.
    """
    return _read_output(workspace, deletion, "--dry-run", *words)


def _is_gone(workspace: Workspace, deletion: RunRecord, service: str) -> bool:
    """Return whether the compose file has no such service in any profile."""
    return _NO_SERVICE in _read_output(workspace, deletion, "config", "--quiet", service).lower()


def _read_output(workspace: Workspace, deletion: RunRecord, *words: str) -> str:
    """Return what compose prints, in the folder and with the words of the deletion.

    Returns:
        Its output; empty when it cannot be called like that, or takes too long.
    """
    command = find_command(workspace, deletion, *words)
    if command is None or "-" in deletion.compose_globals:
        return ""
    try:
        ended = children.run(
            command,
            cwd=deletion.cwd,
            seconds=_SECONDS,
            stderr=subprocess.STDOUT,
            environ=launch.read_original_environment(),
        )
    except (subprocess.TimeoutExpired, children.TooMuch):
        return ""  # `up` has an empty stdin, so its question is answered no all the same
    return ended.stdout.decode("utf-8", "replace")


def _find_diverging(plan: RestorePlan, output: str) -> str | None:
    """Return the volumes that compose would delete and recreate according to its dry run.

    docker-compose 1.x never deletes a changed volume.

    Returns:
        The names, separated by commas; None when there are none.
    """
    if _DIVERGES not in output:
        return None
    named = [
        t.record.name
        for t in plan.targets
        if any(t.record.name in line for line in output.splitlines() if _DIVERGES in line)
    ]
    return ", ".join(named) or "a volume"
