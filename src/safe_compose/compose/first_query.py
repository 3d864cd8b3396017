"""The queries to compose and docker that take longest, sent before our own imports."""

import os
from collections.abc import Mapping, Sequence
from functools import partial

from safe_compose.compose import single_use
from safe_compose.compose.files import Files, label_flag
from safe_compose.compose.probe import Probe
from safe_compose.compose.single_use import SingleUseInputs
from safe_compose.errors import Refused
from safe_compose.fastpath import launch
from safe_compose.grammar.parser import Invocation
from safe_compose.record import NamedTuple
from safe_compose.system.children import hold_standard_descriptors

_NO_INPUTS = SingleUseInputs()


class DaemonQuery(NamedTuple):
    """The questions to docker about the daemon that it would reach."""

    identity: Probe
    context: Probe

    def drop(self) -> None:
        """End the child processes."""
        self.identity.drop()
        self.context.drop()


class FirstQuery(NamedTuple):
    """The questions to compose and docker about a command, before the engine is known."""

    docker: str
    """The path of the real client that runs the command: docker or a standalone docker-compose."""
    invocation: Invocation | None
    """The command; None where compose must not be asked about it."""
    inputs: SingleUseInputs = _NO_INPUTS
    """What compose can read only once."""
    config: Probe | None = None
    """`docker compose config --format json` of the command; None where it was not started."""
    daemon: DaemonQuery | None = None
    """None where docker was not asked yet."""

    def drop(self) -> None:
        """End the child processes."""
        if self.config is not None:
            self.config.drop()
        if self.daemon is not None:
            self.daemon.drop()


def ask_daemon(
    docker: str, docker_globals: Sequence[str], environ: Mapping[str, str]
) -> DaemonQuery:
    """Ask docker which daemon it would reach, and for the id of that one.

    Args:
        docker: Path of the real docker client.
        docker_globals: The command's global flags, verbatim.
        environ: The command's environment.

    Raises:
        DockerNotFound: The client cannot be started.
    """
    command = (docker, *docker_globals)
    identity = Probe((*command, "info", "--format", "{{.ID}}"), environ)
    try:
        return DaemonQuery(identity, Probe((*command, "context", "inspect"), environ))
    except BaseException:
        identity.drop()
        raise


def begin(invocation: Invocation, *, guarded: bool) -> FirstQuery:
    """Ask compose for the project of a command, and docker for its daemon.

    The answers are not waited for.

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
    asks_compose = invocation.verb[:1] == ("compose",) and (
        standalone or not label_flag(invocation)
    )
    query = FirstQuery(docker, invocation)
    if asks_compose:
        try:
            inputs = single_use.read_inputs(partial(Files, invocation, os.environ))
        except Refused:
            if guarded:
                raise
            return FirstQuery(docker, None)
        query = query._replace(inputs=inputs)
    if standalone or launch.LaunchContext.plugin or is_standalone(docker):
        return query  # the engine has to find its own docker first
    try:
        if asks_compose:
            query = query._replace(config=_ask_compose(docker, invocation, query.inputs))
        daemon = ask_daemon(docker, invocation.docker_globals, dict(os.environ))
        return query._replace(daemon=daemon)
    except BaseException:
        query.drop()
        raise


def is_standalone(program: str) -> bool:
    """Return whether a program is a docker-compose of its own, by its name."""
    return os.path.basename(program).startswith("docker-compose")  # noqa: PTH119


def _ask_compose(docker: str, invocation: Invocation, inputs: SingleUseInputs) -> Probe:
    return Probe(
        (
            *(docker, *invocation.docker_globals, "compose"),
            *(*invocation.compose_globals, "config", "--format", "json"),
        ),
        dict(os.environ),
        stdin=inputs.stdin,
        descriptors=inputs.descriptors,
    )


def has_single_use_inputs(invocation: Invocation) -> bool:
    """Return whether compose would read an input that can be read only once; read nothing."""
    return invocation.verb[:1] == ("compose",) and single_use.is_any(Files(invocation, os.environ))
