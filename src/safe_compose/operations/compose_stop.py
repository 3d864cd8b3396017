"""Services that compose stops with `pre_stop` hooks, which it runs in their containers first."""

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from safe_compose.core.observed import ONEOFF_LABEL, Container
from safe_compose.core.redaction import hide_secrets
from safe_compose.core.text import join_for_shell, shell_quote
from safe_compose.engine import Engine, read_declared_hooks
from safe_compose.errors import EngineUnavailable, OperationFailed
from safe_compose.fastpath import launch
from safe_compose.system import children

HOOK_SECONDS = 3600.0
"""How long hooks may run, in addition to the stop time of their containers.

A hook that hangs would block a job for ever.
"""
_FOR_EVER = 24 * 3600.0
"""The limit for a container that may take as long as it wants to stop."""
FAILS_WHEN_STOPPED = (2, 30), (2, 38)
"""The first broken and the first fixed version of compose.

In between, compose also runs the hooks of stopped containers. That fails, so its `down` and `rm`
end before they remove anything (docker/compose#12978).
"""


@dataclass(frozen=True, slots=True)
class HookedServices:
    """A project's services with hooks, as its files declare them, and the compose to run them."""

    project: str
    services: frozenset[str]
    version: tuple[int, ...] | None
    """The version of compose; None when it does not report one."""
    run: Callable[[Sequence[str], float], tuple[int, str]]
    """Run compose with more arguments as the command itself would, with a time limit in seconds.

    Returns its exit code and its output. Raises EngineUnavailable, caused by TimeoutExpired, when
    it takes longer.
    """

    def of(self, containers: Sequence[Container]) -> list[Container]:
        """Return the containers in which compose runs a hook when it stops them."""
        return [
            c
            for c in containers
            if c.project == self.project
            and c.service in self.services
            and c.labels.get(ONEOFF_LABEL, "").lower() != "true"
        ]

    def list_stopped_with(
        self, containers: Sequence[Container], every: Sequence[Container]
    ) -> list[Container]:
        """Return the running containers in `every` that compose would stop as well.

        Compose stops all containers of a service together.
        """
        services, given = {c.service for c in self.of(containers)}, {c.id for c in containers}
        return [
            c for c in self.of(every) if c.lively and c.service in services and c.id not in given
        ]

    def stop(self, containers: Sequence[Container], least: int) -> None:
        """Stop the containers whose services have hooks, as `docker compose stop SERVICE` does.

        When this is interrupted, a hook that has begun in a container continues.

        Args:
            containers: The containers to stop; those without hooks are ignored.
            least: The minimum of seconds that each container gets.

        Raises:
            OperationFailed: A hook fails, in which case compose would not stop the container
                either, or does not end within `HOOK_SECONDS`.
            EngineUnavailable: Compose cannot be run.
        """
        hooked = self.of(containers)
        if not hooked:
            return
        own = [c.stop_timeout for c in hooked if c.stop_timeout is not None]
        words = (
            [] if any(seconds < 0 for seconds in own) else ["--timeout", str(max([least, *own]))]
        )
        services = sorted({str(c.service) for c in hooked})
        longest = _FOR_EVER if not words else max([least, *own])
        try:
            code, output = self.run(["stop", *words, *services], HOOK_SECONDS + longest)
        except EngineUnavailable as fault:
            if not isinstance(fault.__cause__, subprocess.TimeoutExpired):
                raise
            raise OperationFailed(
                f"the pre_stop hooks of {', '.join(services)} did not end within"
                f" {HOOK_SECONDS / 60:.0f} minutes, so that compose does not stop it",
                next_step=f"see what they wait for: docker top {shell_quote(hooked[0].name)}",
            ) from fault
        if code:
            raise OperationFailed(
                f"compose could not stop {', '.join(services)}, whose pre_stop hooks run first"
                f" (exit code {code}): {output}",
                next_step=f"docker compose stop {join_for_shell(services)} shows what is wrong",
            )

    def refuse_where_a_stop_blocks(self, containers: Sequence[Container], command: str) -> None:
        """Refuse a version of compose that could not continue after its containers were stopped.

        Raises:
            OperationFailed: This compose fails on stopped containers with hooks; nothing was
                stopped.
        """
        first, after = FAILS_WHEN_STOPPED
        if (
            self.version is None
            or not first <= tuple(self.version[:2]) < after
            or not (hooked := self.of(containers))
        ):
            return
        services = sorted({str(c.service) for c in hooked})
        version = ".".join(map(str, self.version))
        raise OperationFailed(
            f"this compose ({version}) fails on containers that are stopped already and have"
            f" pre_stop hooks ({', '.join(services)}), so that `{command}` could not go on after"
            " the backup; nothing was stopped or deleted",
            next_step=(
                f"docker compose rm --stop --force {join_for_shell(services)}, then run the command"
                " again; or install compose 2.38 or newer"
            ),
        )


def find_hooked_services(
    docker: str, engine: Engine, containers: Sequence[Container]
) -> HookedServices | None:
    """Return the services with hooks of the project in this folder.

    Only files declare hooks, so those of a project in another folder are unknown.

    Returns:
        The services; None when there are none, or when no running container given is of that
            project.
    """
    projects = {c.project for c in containers if c.lively and c.project is not None}
    if not projects:
        return None
    command = (docker, *engine.docker.client_globals, "compose")
    project, services = read_declared_hooks(command, dict(os.environ))
    if project not in projects or not services:
        return None

    def run(words: Sequence[str], seconds: float) -> tuple[int, str]:
        try:
            environ = launch.read_original_environment()
            done = children.run(
                [*command, *words], seconds=seconds, stderr=subprocess.STDOUT, environ=environ
            )
        except subprocess.TimeoutExpired as fault:
            raise EngineUnavailable(f"compose did not end within {seconds:.0f} s") from fault
        except (OSError, children.TooMuch) as fault:
            return 1, str(fault)
        return done.returncode, _last_words(done.stdout.decode("utf-8", "replace"))

    return HookedServices(project, frozenset(services), engine.commands.client_versions()[1], run)


def _last_words(output: str) -> str:
    return hide_secrets(
        " / ".join(line.strip() for line in output.splitlines()[-3:] if line.strip())
    )[-600:]
