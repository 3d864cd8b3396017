"""The services that ran before a deletion, started again as compose was called then; never with a flag that deletes."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from safe_compose import prompts, shim
from safe_compose.engine import Engine
from safe_compose.journal import RunRecord
from safe_compose.targets import Way
from safe_compose.world import World

HEALTH_SECONDS = 120.0
"""How long those that were started may take to report healthy."""
_NO_SERVICE = "no such service"
_DIVERGES = "doesn't match configuration in compose file"
"""In compose's question whether a volume may be deleted and made anew (2.32 and later)."""


def start(world: World, engine: Engine, deletion: RunRecord, way: Way) -> list[str]:
    """Start what ran before the deletion: `compose up -d --no-deps` with the recorded words, in the recorded folder.

    Never `-V`, never `-y`, stdin empty (so a question of compose is answered no). When compose cannot be asked like that, or
    would ask whether a volume may be deleted, the command is printed instead.
    """
    services = [str(s) for s in (deletion.last("running") or {}).get("services", ())]
    if not services:
        return []
    words = ("up", "-d", "--no-deps", *services)
    said = _dry_run(world, deletion, words)
    if gone := [s for s in services if _NO_SERVICE in said.lower() and _is_gone(world, deletion, s)]:
        prompts.say(f"safe-compose: not in the compose file any more, so not started: {', '.join(gone)}")
        services = [s for s in services if s not in gone]
        if not services:
            return []
        words = ("up", "-d", "--no-deps", *services)
        said = _dry_run(world, deletion, words)
    shown = " ".join([deletion.program, *_words(deletion, *words)])
    if command_of(world, deletion) is None or "-" in deletion.compose_globals:
        prompts.say(f"safe-compose: the volumes are back; start the services yourself: {shown}")
        return []
    if name := _diverging(way, said):
        prompts.say(
            f"safe-compose: the volumes are back as they were, but the compose file now defines {name} otherwise and compose "
            f"would delete it to make it anew; nothing was started. Put its definition back, then: {shown}"
        )
        return []
    prompts.say(f"safe-compose: {shown}")
    if code := compose(world, deletion, *words):
        prompts.say(f"safe-compose: the volumes are back, but compose ended with {code}; run it yourself: {shown}")
        return []
    for container in engine.containers():
        if container.project == deletion.project and container.service in services and container.health is not None:
            with prompts.only_said():
                engine.wait_healthy(container.id, timeout=HEALTH_SECONDS)
    return services


def _words(deletion: RunRecord, *words: str) -> list[str]:
    """What follows `docker`, or the standalone `docker-compose`."""
    verb = [] if deletion.program == "docker-compose" else ["compose"]
    return [*deletion.docker_globals, *verb, *deletion.compose_globals, *words]


def command_of(world: World, deletion: RunRecord, *words: str) -> list[str] | None:
    """The program that ran the deletion, with these words for compose; None when it cannot be run as it was then.

    Another version of compose would make its containers anew, under other names.
    """
    program = shim.search("docker-compose") if deletion.program == "docker-compose" else world.docker
    if program is None or not Path(deletion.cwd).is_dir():
        return None
    return [program, *_words(deletion, *words)]


def compose(world: World, deletion: RunRecord, *words: str) -> int:
    """Run compose as it was run then; its exit code. What it prints goes to stderr."""
    command = command_of(world, deletion, *words)
    if command is None:
        return 1
    ended = subprocess.run(
        command,
        cwd=deletion.cwd,
        stdin=subprocess.DEVNULL,
        stdout=2,
        env=shim.original_environment(),
        check=False,
    )
    return ended.returncode


def _dry_run(world: World, deletion: RunRecord, words: Sequence[str]) -> str:
    """What compose says that it would do. docker-compose 1.x takes `--dry-run` for a mistake and ends."""
    return _said(world, deletion, "--dry-run", *words)


def _is_gone(world: World, deletion: RunRecord, service: str) -> bool:
    """Whether the compose file has no such service, in no profile either."""
    return _NO_SERVICE in _said(world, deletion, "config", "--quiet", service).lower()


def _said(world: World, deletion: RunRecord, *words: str) -> str:
    command = command_of(world, deletion, *words)
    if command is None or "-" in deletion.compose_globals:
        return ""
    ended = subprocess.run(
        command,
        cwd=deletion.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=shim.original_environment(),
        check=False,
    )
    return ended.stdout.decode("utf-8", "replace")


def _diverging(way: Way, said: str) -> str | None:
    """The volumes that compose would want to delete and make anew, as its own dry run says; None when there are none.
    docker-compose 1.x never deletes a changed volume."""
    if _DIVERGES not in said:
        return None
    named = [t.record.name for t in way.targets if any(t.record.name in line for line in said.splitlines() if _DIVERGES in line)]
    return ", ".join(named) or "a volume"
