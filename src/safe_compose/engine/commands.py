"""The effects of a command on a daemon, as the daemon and compose report them."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_compose.compose import single_use
from safe_compose.compose.files import Files, label_flag
from safe_compose.compose.first_query import FirstQuery
from safe_compose.compose.probe import Probe
from safe_compose.compose.single_use import SingleUseInputs
from safe_compose.core.observed import (
    CONFIG_HASH_LABEL,
    NUMBER_LABEL,
    ONEOFF_LABEL,
    PROJECT_LABEL,
    SERVICE_LABEL,
    WORKING_DIR_LABEL,
    Container,
    Observed,
    Project,
    Volume,
)
from safe_compose.core.redaction import hide_secrets
from safe_compose.engine import values
from safe_compose.engine.compose_project import Compose, ComposeQuery
from safe_compose.engine.docker import Daemon
from safe_compose.engine.errors import inspecting
from safe_compose.errors import DockerNotFound, EngineUnavailable
from safe_compose.grammar.parser import Invocation, parse
from safe_compose.system.files import find_real_path

if TYPE_CHECKING:
    from safe_compose.engine.compose_v1 import ComposeV1Query
    from safe_compose.engine.helper_containers import Helpers

NO_COMMAND = parse(["volume", "ls"])
"""A command that changes nothing, for a look at all volumes and containers."""
CONFIG_FILES_LABEL = "com.docker.compose.project.config_files"


class Commands:
    """The effects of commands on a daemon, as the daemon and compose report them."""

    def __init__(
        self,
        docker: Daemon,
        get_helpers: "Callable[[], Helpers]",
        *,
        compose: str | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Use a daemon.

        Args:
            docker: The daemon.
            get_helpers: Returns the helpers of the run, which few commands need.
            compose: Path of the standalone docker-compose, for a command of it; see `engine.begin`.
            descriptors: Open descriptors of this process that are files to compose.
        """
        self.docker = docker
        self._get_helpers = get_helpers
        self._compose = compose
        self._descriptors = tuple(descriptors)
        self._early: tuple[Invocation, ComposeQuery] | None = None
        self._versions: tuple[tuple[int, ...] | None, tuple[int, ...] | None] | None = None
        self._old_reaches_us = False
        """The docker-compose is 1.x, and was seen to reach this engine."""
        self._wrapper_reaches_us = False
        """The docker-compose is docker's own program, or was seen to reach this engine."""

    def ask(self, query: FirstQuery) -> None:
        """Start the other queries that compose will have to answer; see `begin`."""
        invocation = query.invocation
        if invocation is not None and invocation.verb[:1] == ("compose",):
            question = self._question(invocation, query.inputs.stdin, query.config)
            self._early = invocation, question

    def close(self) -> None:
        """Drop queries whose answers are not needed any more."""
        if self._early is not None:
            self._early[1].drop()
            self._early = None

    def client_versions(self) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Return the versions of the docker client and of compose, None for an unknown one."""
        if self._versions is None:
            probes = [
                Probe((self.docker.client, "--version"), self.docker.environ),
                Probe(
                    (*self._compose_program(self._compose is not None), "version", "--short"),
                    self.docker.environ,
                ),
            ]
            answers = [probe.answer() for probe in probes]
            found = [
                re.search(rb"(\d+)\.(\d+)\.(\d+)", out) if code == 0 else None
                for code, out, _ in answers
            ]
            numbers = [tuple(int(n) for n in m.groups()) if m else None for m in found]
            self._versions = numbers[0], numbers[1]
        return self._versions

    def find_project(self, invocation: Invocation) -> Project | None:
        """Return the project of a command of `docker compose`; the daemon is not asked.

        Returns:
            None where compose finds none, or does not load it for us.

        Raises:
            Refused: Compose would act and its plan is unknown.
        """
        query = self._question(invocation, None)
        try:
            return query.answer()[0]
        finally:
            query.drop()

    def look_at_folders(self, invocation: Invocation = NO_COMMAND) -> Observed:
        """Return what `look` does, with the folders of the host by their real paths.

        A container that mounts one by a symbolic link is found then too. `look` itself does not
        resolve them: a dead network share among them would hold up every guarded command.

        Raises:
            EngineUnavailable: The daemon does not answer.
            Refused: Compose would act and its plan is unknown.
        """
        observed = self.look(invocation)
        if not self.docker.connection.shares_paths:
            return observed
        containers = tuple(map(values.resolve_folders, observed.containers))
        return replace(observed, containers=containers)

    def look(self, invocation: Invocation = NO_COMMAND, *, stdin: bytes | None = None) -> Observed:
        """Return the volumes, containers and compose project of this command, at one moment.

        Containers that cannot matter to the command come from the list alone: their start,
        environment and `--rm` are empty, and each of their mounts counts as declared.

        Args:
            invocation: The command.
            stdin: The content of stdin for `-f -`.

        Raises:
            EngineUnavailable: The daemon does not answer.
            Refused: Compose would act and its plan is unknown.
        """
        question: ComposeQuery | None = None
        if self._early is not None and self._early[0]._replace(own=invocation.own) == invocation:
            question, self._early = self._early[1], None
        elif invocation.verb[:1] == ("compose",) and not self._old_reaches_us:
            question = self._question(invocation, stdin)
        takes_named = self._prune_probe(invocation)
        with inspecting():
            listing = self.docker.connection.reader.get("/volumes")
            bodies = self.docker.connection.reader.get("/containers/json", all="1")
            listed = [_resolve_folder(values.read_listed_container(body)) for body in bodies]
            volumes = tuple(
                sorted(map(values.read_volume, listing.get("Volumes") or ()), key=lambda v: v.name)
            )
            warnings = tuple(f"docker: {words}" for words in listing.get("Warnings") or ())
        project, not_loaded = None, False
        if question is not None and not question.is_old():
            project, more = question.answer()
            not_loaded = project is None
            warnings += more
            if invocation.program == "docker-compose" and not self._wrapper_reaches_us:
                self._require_wrapper_reaches_us(invocation)
        elif invocation.verb[:1] == ("compose",):
            project, more, not_loaded = self._find_old(invocation, stdin, volumes)
            warnings += more
        if project is not None and not project.working_dir:
            project = _locate_project(project, listed)
        return Observed(
            endpoint=self.docker.endpoint,
            engine_id=self.docker.id,
            volumes=volumes,
            containers=self._inspect(listed, invocation, project, volumes),
            project=project,
            not_loaded=not_loaded,
            warnings=warnings,
            prune_takes_named=takes_named() if takes_named else True,
        )

    def _inspect(
        self,
        listed: Sequence[Container],
        invocation: Invocation,
        project: Project | None,
        volumes: Sequence[Volume],
    ) -> tuple[Container, ...]:
        """Return the containers that still exist, fully inspected where they matter."""
        owned = (c for c in listed if project is not None and project.owns(c))
        shared = frozenset(name for c in owned for name in c.volume_names())
        containers = []
        for container in listed:
            if values.is_worth_inspecting(container, invocation, project, volumes, shared):
                inspected = self.docker.container(container.id)
                if inspected is None:
                    continue  # removed since the list was made
                container = _resolve_folder(inspected)
            containers.append(container)
        return tuple(containers)

    def model(self, invocation: Invocation, *, interpolated: bool = True) -> dict[str, Any] | None:
        """Return all that compose makes of the project's files, secrets included, or None.

        The result must never be kept, written or shown. None when the files do not load.

        Raises:
            Refused: Compose would read a file that can be read only once.
        """
        single_use.refuse(Files(invocation, self.docker.environ))
        held = SingleUseInputs(None, self._descriptors)
        compose = Compose(
            self._compose_program(invocation.program == "docker-compose"),
            invocation,
            self.docker.environ,
            held,
        )
        return compose.read(*(() if interpolated else ("--no-interpolate",)))

    def run_compose(
        self, invocation: Invocation, words: Sequence[str], *, stdin: bytes | None, seconds: float
    ) -> tuple[int, str]:
        """Run compose as the command would, with other words than its verb.

        Returns:
            Its exit code, and the end of its stderr without secrets.

        Raises:
            EngineUnavailable: It took longer than `seconds`; the cause is TimeoutExpired.
        """
        program = self._compose_program(invocation.program == "docker-compose")
        compose = Compose(
            program, invocation, self.docker.environ, SingleUseInputs(stdin, self._descriptors)
        )
        code, _, stderr = compose.start(*words).answer(seconds)

        return code, hide_secrets(" / ".join(stderr.split("\n")[-4:]).strip(" /"))[-600:]

    def service_hashes(self, invocation: Invocation) -> dict[str, str] | None:
        """Return service -> the hash by which compose sees that its definition changed, or None.

        None when compose does not say it: docker-compose 1.x, files that do not load, or an input
        that can be read only once.
        """
        held = SingleUseInputs(None, self._descriptors)
        program = self._compose_program(invocation.program == "docker-compose")
        code, out, _ = (
            Compose(program, invocation, self.docker.environ, held)
            .start("config", "--hash", "*")
            .answer()
        )
        lines = (line.split() for line in out.decode("utf-8", "replace").splitlines())
        return {words[0]: words[1] for words in lines if len(words) == 2} if code == 0 else None

    # -- internal ----------------------------------------------------------------------------------

    def _question(
        self, invocation: Invocation, stdin: bytes | None, config: Probe | None = None
    ) -> ComposeQuery:
        standalone = invocation.program == "docker-compose"
        if standalone or not label_flag(invocation):
            single_use.refuse(Files(invocation, self.docker.environ))
        compose = Compose(
            self._compose_program(standalone),
            invocation,
            self.docker.environ,
            SingleUseInputs(stdin, self._descriptors),
        )
        return ComposeQuery(
            compose, invocation, self.docker.environ, standalone=standalone, config=config
        )

    def _compose_program(self, standalone: bool) -> tuple[str, ...]:
        if not standalone:
            return (*self.docker.command, "compose")
        return (self._standalone(), *self.docker.client_globals)

    def _standalone(self) -> str:
        binary = self._compose or shutil.which(
            "docker-compose", path=self.docker.environ.get("PATH")
        )
        if binary is None:
            raise DockerNotFound("there is no docker-compose on PATH")
        return binary

    def _find_old(
        self, invocation: Invocation, stdin: bytes | None, volumes: Iterable[Volume]
    ) -> tuple[Project | None, tuple[str, ...], bool]:
        """Return the project of a docker-compose 1.x command, warnings, and whether loading failed.

        Raises:
            EngineUnavailable: It does not reach this engine.
            Refused: It would act and its plan is unknown.
        """
        from safe_compose.engine.compose_v1 import ComposeV1Query

        old = ComposeV1Query(
            self._standalone(),
            invocation,
            self.docker.environ,
            SingleUseInputs(stdin, self._descriptors),
        )
        try:
            project, warnings = old.answer({volume.name for volume in volumes})
            if project is not None and not self._old_reaches_us:
                self._require_v1_reaches_us(old, project)
        finally:
            old.drop()
        return project, warnings, project is None and old.may_delete

    def _require_v1_reaches_us(self, old: "ComposeV1Query", project: Project) -> None:
        """Require that docker-compose 1.x reaches this engine.

        It chooses a daemon by its own rules: DOCKER_HOST in `.env` counts, DOCKER_CONTEXT does not,
        and before 1.26 no context does. So it has to find a container, never started, that only
        this engine has.

        Raises:
            EngineUnavailable: It does not find the container.
        """
        # 1.x would drop capital letters from a project's name
        name = f"safe-compose-{os.urandom(8).hex()}"
        found = False
        if project.services:
            labels = {
                PROJECT_LABEL: name,
                SERVICE_LABEL: project.services[0],
                ONEOFF_LABEL: "False",
                NUMBER_LABEL: "1",
            }
            with self._get_helpers().creating(labels) as container_id:
                found = container_id in old.containers(name)
        if not found:
            raise _refuse_endpoint(self.docker.endpoint)
        self._old_reaches_us = True

    def _require_wrapper_reaches_us(self, invocation: Invocation) -> None:
        """Require that a docker-compose which is a script reaches this engine.

        A script may choose a context or a DOCKER_HOST of its own. So it has to find a container,
        never started, that only this engine has.

        Raises:
            EngineUnavailable: It does not find the container.
        """
        with Path(self._standalone()).open("rb") as file:
            is_script = file.read(2) == b"#!"
        if is_script:
            name = f"safe-compose-{os.urandom(8).hex()}"
            labels = {
                PROJECT_LABEL: name,
                SERVICE_LABEL: "x",
                ONEOFF_LABEL: "False",
                NUMBER_LABEL: "1",
                CONFIG_HASH_LABEL: "x",
            }
            compose = Compose(
                self._compose_program(True), invocation, self.docker.environ, SingleUseInputs()
            )
            with self._get_helpers().creating(labels) as container_id:
                asked = compose.start("ps", "--all", "--quiet", globals_=("--project-name", name))
                if container_id not in asked.answer()[1].decode("ascii", "replace").split():
                    raise _refuse_endpoint(self.docker.endpoint)
        self._wrapper_reaches_us = True

    def _prune_probe(self, invocation: Invocation) -> Callable[[], bool] | None:
        """Start asking, for a prune only, whether it takes named volumes without `--all`.

        See docker-facts, section 1.
        """
        if not invocation.kind.endswith(("volume_prune", "system_prune_volumes")):
            return None
        probe = Probe(
            (*self.docker.command, "version", "--format", "{{.Client.APIVersion}}"),
            self.docker.environ,
        )

        def takes_named() -> bool:
            code, out, _ = probe.answer()
            match = re.fullmatch(r"(\d+)\.(\d+)", out.decode("ascii", "replace").strip())
            if (
                code
                or match is None
                or min((int(match[1]), int(match[2])), self.docker.api_version) < (1, 42)
            ):
                return True
            flags = dict(invocation.docker_flags)
            environ = self.docker.environ
            folder = (
                flags.get("config")
                or environ.get("DOCKER_CONFIG")
                or f"{environ.get('HOME', '')}/.docker"
            )
            try:
                settings = json.loads(Path(folder, "config.json").read_bytes())
            except FileNotFoundError:
                return False
            except (OSError, ValueError, RecursionError):
                return True
            filters = (settings.get("pruneFilters") if isinstance(settings, dict) else None) or ()
            if not isinstance(filters, list | tuple):
                return True
            return any(str(f).startswith("all") for f in filters)

        return takes_named


def _refuse_endpoint(endpoint: str) -> EngineUnavailable:
    return EngineUnavailable(
        "this docker-compose does not show that it would reach the same engine as docker"
        f" ({endpoint})",
        next_step="name the engine to both: export DOCKER_HOST, and unset DOCKER_CONTEXT",
    )


def _resolve_folder(container: Container) -> Container:
    """Return the container with its project folder free of symbolic links, if that folder exists.

    Compose records the folder as the shell spells it ($PWD), but a command typed there runs in the
    real one.
    """
    folder = container.labels.get(WORKING_DIR_LABEL, "")
    if (
        not os.path.isabs(folder)  # noqa: PTH117
        or not os.path.isdir(folder)  # noqa: PTH112 - pathlib raises, see find_real_path
        or (real := find_real_path(folder)) == folder
    ):
        return container
    return replace(container, labels={**container.labels, WORKING_DIR_LABEL: real})


def _locate_project(project: Project, containers: Iterable[Container]) -> Project:
    """Return the project with the folder and files that its containers' labels name."""
    for container in containers:
        if container.project == project.name and container.labels.get(WORKING_DIR_LABEL):
            files = tuple(f for f in container.labels.get(CONFIG_FILES_LABEL, "").split(",") if f)
            return replace(
                project, working_dir=container.labels[WORKING_DIR_LABEL], config_files=files
            )
    return project
