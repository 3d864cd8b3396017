"""One project that a real Compose treats, for the versions that the lab has."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safe_compose.compose.first_query import FirstQuery
from safe_compose.compose.single_use import SingleUseInputs
from safe_compose.core.threat import Threat, find_threat
from safe_compose.engine import begin
from safe_compose.grammar import parser
from testing.projects import LAB, ComposeProject, docker, unique

VERSIONS = sorted(p.parent.name for p in LAB.glob("compose/*/docker-compose"))
"""The standalone files that the lab brought, by version."""


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def look_at(
    project: ComposeProject,
    real: str,
    *words: str,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    stdin: bytes | None = None,
    early: bool = False,
    standalone: Path | None = None,
    dialect: str = "v2",
) -> tuple[Threat, object]:
    """Return the threat of a command typed in the project's folder, and the project."""
    program = "docker-compose" if standalone else "docker"
    invocation = parser.parse(words, program, dialect=dialect)
    with (
        inside(folder or project.folder),
        begin(
            real,
            invocation.docker_globals,
            environ={**os.environ, **(environ or {})},
            run_id=unique("test"),
            compose=str(standalone) if standalone else None,
            query=FirstQuery(real, invocation if early else None, SingleUseInputs(stdin)),
        ) as engine,
    ):
        engine.open()
        observed = engine.commands.look(invocation, stdin=stdin)
    return find_threat(invocation, observed), observed.project


class Scene:
    """One project, asked about and then really treated, with one version of compose."""

    def __init__(self, project: ComposeProject, binary: Path, real: str) -> None:
        self.project = project
        self.binary = binary
        self.real = real

    def compose(
        self,
        *words: str,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
        stdin: str = "",
    ) -> int:
        done = subprocess.run(
            [self.binary, *words],
            cwd=folder or self.project.folder,
            env={**os.environ, **(environ or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode

    def up(self, *words: str) -> None:
        assert self.compose(*words, "up", "-d") == 0

    def ask(self, *words: str, **given: object) -> tuple[Threat, object]:
        return look_at(self.project, self.real, *words, standalone=self.binary, **given)  # type: ignore[arg-type]

    def mine(self) -> set[str]:
        """Every volume that belongs to the test: by its name, or mounted by one of its containers."""
        ids = docker("ps", "-aq", "--filter", f"name={self.project.name}").stdout.split()
        mounted = (
            docker("inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", *ids).stdout.split()
            if ids
            else []
        )
        named = docker("volume", "ls", "-q", "--filter", f"name={self.project.name}").stdout.split()
        return {*mounted, *named}

    def kill(self, *words: str, **given: object) -> tuple[Threat, object, set[str], set[str]]:
        """Ask, run it, and return (threat, project, volumes that died, containers that died or
        stopped).
        """
        threat, project = self.ask(*words, **given)
        before, ran = self.mine(), set(self.project.running())
        self.compose(*words, **{k: v for k, v in given.items() if k in ("environ", "folder")})  # type: ignore[arg-type]
        after = set(docker("volume", "ls", "-q").stdout.split())
        return threat, project, before - after, ran - set(self.project.running())


def names(threat: Threat) -> set[str]:
    return {v.name for v in threat.volumes}


def stopped(threat: Threat) -> set[str]:
    return {c.name for c in threat.stops if c.lively}
