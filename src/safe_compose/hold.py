"""The road of `stop`, `kill` and `rm -f` of a --rm container: its end takes its anonymous volumes along, so they are held.

Such a volume cannot be archived before: stopping the container is the deletion. But docker keeps a volume that any other
container references, so a created, never started one of ours holds it until the --rm container has gone. Nothing is deleted,
so nobody is asked.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack

from safe_compose import prompts
from safe_compose.errors import LookAgain, SafeComposeError
from safe_compose.grammar import Invocation
from safe_compose.observed import Container
from safe_compose.plan import Plan
from safe_compose.world import World

PASSING_SECONDS = 5.0
"""How long a container may live on after a signal that need not end it."""


def run(world: World, made: Plan, run_docker: Callable[[World, Invocation], int]) -> int:
    """Hold the volumes that matter, run docker, let go when the containers are gone; docker's exit code."""
    world.catalogue.ensure()
    journal_run = world.journal.begin(
        world.run_id,
        command=made.invocation.argv,
        program=made.invocation.program,
        docker_globals=made.invocation.docker_globals,
        endpoint=world.engine.endpoint,
        engine_id=world.engine.id,
    )
    leaving = {c.id: c for d in made.backed_up for c in d.users if c.auto_remove}
    code: int | None = None
    try:
        with ExitStack() as held:
            for doomed in made.backed_up:
                held.enter_context(world.engine.held(doomed.name, next(c.image_id for c in doomed.users)))
            if any(world.engine.container(c.id) is None for c in leaving.values()):
                raise LookAgain("a container ended by itself meanwhile; look again with `docker ps -a`")
            journal_run.step("holding", volumes=[d.name for d in made.backed_up])
            code = run_docker(world, made.invocation)
            with prompts.only_said():
                _await_end(world, made, leaving)
        with prompts.only_said():
            _tell(world, made, leaving)
    finally:
        try:
            world.engine.sweep()
        except SafeComposeError as fault:
            prompts.say(f"safe-compose: {fault.message}")
        journal_run.step("ended", outcome="docker was not run" if code is None else f"docker exited with {code}")
    return code


def _await_end(world: World, made: Plan, leaving: dict[str, Container]) -> None:
    """Docker returns before it removes such a container, and `kill` before it has ended."""
    ends = {c.id for c in made.threat.stops}
    for identity in leaving:
        until = time.monotonic() + (world.settings.stop_timeout if identity in ends else PASSING_SECONDS)
        while world.engine.container(identity) is not None and time.monotonic() < until:
            time.sleep(0.05)


def _tell(world: World, made: Plan, leaving: dict[str, Container]) -> None:
    for doomed in made.backed_up:
        user = next(c for c in doomed.users if c.id in leaving)
        where = next(m.destination for m in user.mounts if m.name == doomed.name)
        if world.engine.container(user.id) is not None:
            prompts.say(f"safe-compose: {user.name} runs on; when it ends, its volume {doomed.name} ({where}) goes with it")
        elif world.engine.volume(doomed.name) is None:
            prompts.say(f"safe-compose: volume {doomed.name} of {user.name} ({where}) is gone")
        else:
            prompts.say(
                f"safe-compose: kept what {user.name} had at {where} in volume {doomed.name}, which nothing uses any more;"
                f" to use it again: -v {doomed.name}:{where}"
            )
