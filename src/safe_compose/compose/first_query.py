"""The query to compose that takes longest, sent before anything else of a command is known."""

import os
from functools import partial
from typing import NamedTuple

from safe_compose.compose import single_use
from safe_compose.compose.files import Files, label_flag
from safe_compose.compose.probe import Probe
from safe_compose.compose.single_use import SingleUseInputs
from safe_compose.errors import Refused
from safe_compose.fastpath import launch
from safe_compose.grammar.parser import Invocation
from safe_compose.system.children import hold_standard_descriptors

_NO_INPUTS = SingleUseInputs()


class FirstQuery(NamedTuple):
    """What compose was asked about a command before the engine is known."""

    docker: str
    """The path of the real client that runs the command: docker or a standalone docker-compose."""
    invocation: Invocation | None
    """The command; None where compose must not be asked about it."""
    inputs: SingleUseInputs = _NO_INPUTS
    """What compose can read only once."""
    config: Probe | None = None
    """`docker compose config --format json` of the command; None where it was not started."""

    def drop(self) -> None:
        """End the child process."""
        if self.config is not None:
            self.config.drop()


def begin(invocation: Invocation, *, guarded: bool) -> FirstQuery:
    """Ask compose for the project of a command, without waiting for the answer.

    Only a pipe that must be read is waited for.

    Args:
        invocation: The command.
        guarded: Whether it is a guarded command of docker. For a verb of safe-compose, single-use
            inputs do not matter until it asks compose (`Commands.look`).

    Raises:
        DockerNotFound: There is no real docker.
        Refused: Compose would read something that can be read only once, for a guarded command.
    """
    hold_standard_descriptors()
    docker = launch.find_runner(invocation.program)
    standalone = invocation.program == "docker-compose"
    if invocation.verb[:1] != ("compose",) or (not standalone and label_flag(invocation)):
        return FirstQuery(docker, invocation)
    try:
        inputs = single_use.read_inputs(partial(Files, invocation, os.environ))
    except Refused:
        if guarded:
            raise
        return FirstQuery(docker, None)
    if standalone or launch.LaunchContext.plugin:
        return FirstQuery(docker, invocation, inputs)  # the engine finds its own docker first
    config = Probe(
        (
            *(docker, *invocation.docker_globals, "compose"),
            *(*invocation.compose_globals, "config", "--format", "json"),
        ),
        dict(os.environ),
        stdin=inputs.stdin,
        descriptors=inputs.descriptors,
    )
    return FirstQuery(docker, invocation, inputs, config)


def has_single_use_inputs(invocation: Invocation) -> bool:
    """Return whether compose would read an input that can be read only once; read nothing."""
    return invocation.verb[:1] == ("compose",) and single_use.is_any(Files(invocation, os.environ))
