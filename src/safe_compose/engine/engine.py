"""The engine of one run: a daemon that can be asked what a command would do there, and compose with it."""

import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safe_compose.engine import look
from safe_compose.engine.archives import Archives
from safe_compose.engine.compose import Compose, Finding, Question
from safe_compose.engine.compose_v1 import OldQuestion
from safe_compose.engine.connect import Probe
from safe_compose.engine.faults import reading
from safe_compose.engine.locks import Locks
from safe_compose.errors import DockerNotFound, EngineUnavailable
from safe_compose.grammar import Invocation
from safe_compose.observed import (
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

CONFIG_FILES_LABEL = "com.docker.compose.project.config_files"


def connect(docker: str, docker_globals: Sequence[str], *, environ: Mapping[str, str], run_id: str) -> "Engine":
    """The engine that `docker <docker_globals>` reaches under this environment, proved to be the same by its id.

    Errors as of `begin` and `Engine.open`.
    """
    engine = begin(docker, docker_globals, environ=environ, run_id=run_id)
    engine.open()
    return engine


def begin(
    docker: str,
    docker_globals: Sequence[str],
    *,
    environ: Mapping[str, str],
    run_id: str,
    compose: str | None = None,
    invocation: Invocation | None = None,
    stdin: bytes | None = None,
) -> "Engine":
    """An engine whose questions are on their way: `open` it to have their answers, or `close` it.

    `docker` is the real client's path; `compose` that of the standalone docker-compose where the command is one. With
    `invocation` (and the `stdin` of a `-f -`) compose is asked at once as well, and the first `look` at that invocation finds
    its answer ready. Raises DockerNotFound.
    """
    if Path(docker).name.startswith("docker-compose"):
        compose, docker = docker, _beside(docker, environ)
    engine = Engine(docker, docker_globals, environ=environ, run_id=run_id, compose=compose)
    engine.ask(invocation, stdin)
    return engine


def _beside(compose: str, environ: Mapping[str, str]) -> str:
    """The docker client that stands beside a standalone docker-compose, else the first on PATH."""
    beside = str(Path(compose).with_name("docker"))
    found = shutil.which(beside) or shutil.which("docker", path=environ.get("PATH"))
    if found is None:
        raise DockerNotFound("there is no docker client to inspect the engine with")
    return found


class Engine(Archives, Locks):
    """One daemon, for one run. `close` it before docker is exec'd; as a context manager it closes itself."""

    def __init__(
        self,
        docker: str,
        docker_globals: Sequence[str],
        *,
        environ: Mapping[str, str],
        run_id: str,
        compose: str | None = None,
    ) -> None:
        super().__init__(docker, docker_globals, environ=environ, run_id=run_id)
        self._compose = compose
        self._early: tuple[Invocation, Question] | None = None
        self._versions: tuple[tuple[int, ...] | None, tuple[int, ...] | None] | None = None
        self._old_reaches_us = False
        """The docker-compose is 1.x, and was seen to go to this engine."""

    def ask(self, invocation: Invocation | None = None, stdin: bytes | None = None) -> None:
        """Send docker and compose off with what will be asked of them; see `begin`."""
        if invocation is not None and invocation.verb[:1] == ("compose",):
            self._early = invocation, self._question(invocation, stdin)
        super().ask()

    def close(self) -> None:
        if self._early is not None:
            self._early[1].drop()
            self._early = None
        super().close()

    def client_versions(self) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
        """Versions of the docker client and of compose; None for one that does not tell."""
        if self._versions is None:
            probes = [
                Probe((self.docker, "--version"), self._environ),
                Probe((*self._compose_program(self._compose is not None), "version", "--short"), self._environ),
            ]
            answers = [probe.answer() for probe in probes]
            found = [re.search(rb"(\d+)\.(\d+)\.(\d+)", out) if code == 0 else None for code, out, _ in answers]
            numbers = [tuple(int(n) for n in m.groups()) if m else None for m in found]
            self._versions = numbers[0], numbers[1]
        return self._versions

    def look(self, invocation: Invocation, *, stdin: bytes | None = None) -> Observed:
        """Volumes, containers and the compose project that this command means, at one moment.

        `stdin` is what `-f -` had on stdin. Containers that cannot matter to the command come from the list alone: their
        start, environment and `--rm` are empty, and each of their mounts counts as declared.
        Raises EngineUnavailable; Refused where compose would act and cannot be understood.
        """
        question: Question | None = None
        if self._early is not None and self._early[0]._replace(own=invocation.own) == invocation:
            question, self._early = self._early[1], None
        elif invocation.verb[:1] == ("compose",) and not self._old_reaches_us:
            question = self._question(invocation, stdin)
        takes_named = self._prune_probe(invocation)
        with reading():
            listing = self._way.reader.get("/volumes")
            listed = [look.container_from_list(body) for body in self._way.reader.get("/containers/json", all="1")]
            volumes = tuple(sorted(map(look.volume_from, listing.get("Volumes") or ()), key=lambda v: v.name))
            warnings = tuple(f"docker: {words}" for words in listing.get("Warnings") or ())
        project = None
        if question is not None and not question.is_old():
            project, more = question.answer()
            warnings += more
        elif invocation.verb[:1] == ("compose",):
            project, more = self._find_old(invocation, stdin, volumes)
            warnings += more
        if project is not None and not project.working_dir:
            project = _placed(project, listed)
        containers = []
        for container in listed:
            if look.worth_inspecting(container, invocation, project, volumes):
                inspected = self.container(container.id)
                if inspected is None:
                    continue  # gone since the list was made
                container = inspected
            containers.append(container)
        return Observed(
            endpoint=self.endpoint,
            engine_id=self.id,
            volumes=volumes,
            containers=tuple(containers),
            project=project,
            warnings=warnings,
            prune_takes_named=takes_named() if takes_named else True,
        )

    def model(self, invocation: Invocation, *, interpolated: bool = True) -> dict[str, Any] | None:
        """All that compose makes of the project's files, secrets included: to be judged, never to be kept, written or shown.

        None when the files do not load.
        """
        compose = Compose(self._compose_program(invocation.program == "docker-compose"), invocation, self._environ, None)
        return compose.read(*(() if interpolated else ("--no-interpolate",)))

    # -- inside --------------------------------------------------------------------------------------------------------

    def _question(self, invocation: Invocation, stdin: bytes | None) -> Question:
        standalone = invocation.program == "docker-compose"
        compose = Compose(self._compose_program(standalone), invocation, self._environ, stdin)
        return Question(compose, invocation, self._environ, standalone)

    def _compose_program(self, standalone: bool) -> tuple[str, ...]:
        if not standalone:
            return (self.docker, *self.docker_globals, "compose")
        return (self._standalone(), *self.docker_globals)

    def _standalone(self) -> str:
        binary = self._compose or shutil.which("docker-compose", path=self._environ.get("PATH"))
        if binary is None:
            raise DockerNotFound("there is no docker-compose on PATH")
        return binary

    def _find_old(self, invocation: Invocation, stdin: bytes | None, volumes: Iterable[Volume]) -> Finding:
        """The project that a command of docker-compose 1.x means, and warnings. Raises as `look` does."""
        old = OldQuestion(self._standalone(), invocation, self._environ, stdin)
        try:
            project, warnings = old.answer({volume.name for volume in volumes})
            if project is not None and not self._old_reaches_us:
                self._prove_old_reaches_us(old, project)
        finally:
            old.drop()
        return project, warnings

    def _prove_old_reaches_us(self, old: OldQuestion, project: Project) -> None:
        """docker-compose 1.x goes to a daemon by rules of its own: DOCKER_HOST in `.env` counts, DOCKER_CONTEXT does not, and
        before 1.26 no context does. So it has to find a container, never started, that only this engine has.

        Raises EngineUnavailable.
        """
        name = f"safe-compose-{secrets.token_hex(8)}"  # 1.x would drop capital letters from a project's name
        image = next((image.id for image in self.images()), None)
        found = False
        if image is not None and project.services:
            labels = {PROJECT_LABEL: name, SERVICE_LABEL: project.services[0], ONEOFF_LABEL: "False", NUMBER_LABEL: "1"}
            with self._created(image, labels) as container_id:
                found = container_id in old.containers(name)
        if not found:
            raise EngineUnavailable(
                f"this docker-compose does not show that it would reach the same engine as docker ({self.endpoint})",
                next_step="name the engine to both: export DOCKER_HOST, and unset DOCKER_CONTEXT",
            )
        self._old_reaches_us = True

    def _prune_probe(self, invocation: Invocation) -> Callable[[], bool] | None:
        """Asks, for a prune only, whether it takes named volumes without `--all` (docker-facts, section 1)."""
        if not invocation.kind.endswith(("volume_prune", "system_prune_volumes")):
            return None
        probe = Probe((self.docker, *self.docker_globals, "version", "--format", "{{.Client.APIVersion}}"), self._environ)

        def takes_named() -> bool:
            code, out, _ = probe.answer()
            match = re.fullmatch(r"(\d+)\.(\d+)", out.decode("ascii", "replace").strip())
            if code or match is None or min((int(match[1]), int(match[2])), self.api_version) < (1, 42):
                return True
            flags = dict(invocation.docker_flags)
            folder = flags.get("config") or self._environ.get("DOCKER_CONFIG") or f"{self._environ.get('HOME', '')}/.docker"
            try:
                settings = json.loads(Path(folder, "config.json").read_bytes())
            except FileNotFoundError:
                return False
            except (OSError, ValueError):
                return True
            filters = settings.get("pruneFilters") if isinstance(settings, dict) else None
            return any(str(f).startswith("all") for f in filters or ())

        return takes_named


def _placed(project: Project, containers: Iterable[Container]) -> Project:
    """The project with the folder and files that its containers were made from, as their labels tell."""
    for container in containers:
        if container.project == project.name and container.labels.get(WORKING_DIR_LABEL):
            files = tuple(f for f in container.labels.get(CONFIG_FILES_LABEL, "").split(",") if f)
            return replace(project, working_dir=container.labels[WORKING_DIR_LABEL], config_files=files)
    return project
