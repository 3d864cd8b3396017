"""Which project docker-compose 1.x means, and which volumes it declares: asked of that very program.

It knows no JSON and no dry run. `config` shows the declared volumes as YAML, and the project's name stands only in what
`--verbose` tells of its questions to the daemon. Sources are those of docker-compose 1.29.2; what is marked "run" was tried
with it.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from safe_compose.engine.compose import Compose, Files, Finding, mapping, service_mounts, tiers_of
from safe_compose.errors import Refused
from safe_compose.grammar import RECREATE, Invocation, old_words, parse
from safe_compose.observed import DeclaredMount, DeclaredVolume, Project

_PROJECT = re.compile(r"docker containers <- .*'com\.docker\.compose\.project=([-_a-z0-9]*)'")
"""The first question of `ps`; a second one may ask for an older spelling of the name (compose/project.py)."""
_FILES = re.compile(r"^compose\.config\.config\.find: Using configuration files: (.+)$", re.MULTILINE)
_DELETES = frozenset({"compose_down_volumes", "compose_rm_anon"})


class OldQuestion:
    """What one command of docker-compose 1.x means; the two children are started first and answer while others work."""

    def __init__(self, binary: str, invocation: Invocation, environ: Mapping[str, str], stdin: bytes | None) -> None:
        """`binary` is the docker-compose that will run; `stdin` is what `-f -` had on stdin."""
        self._kind = invocation.kind
        # read anew, because `--verbose` is docker's flag to a newer docker-compose
        self._invocation = parse(invocation.argv, "docker-compose", dialect="v1")
        self._environ = environ
        self._stdin = stdin
        self._files = Files(self._invocation, environ)
        self._compose = Compose((binary, *self._invocation.docker_globals), self._invocation, environ, stdin)
        self._config = self._compose.start("config")
        self._ps = self._compose.start("ps", "-q", globals_=("--verbose", *self._globals_without("verbose", "log-level")))

    def drop(self) -> None:
        for probe in (self._config, self._ps):
            probe.drop()

    def answer(self, existing: Collection[str]) -> Finding:
        """The project that the command means, and warnings; `existing` are the names of the engine's volumes.

        (None, ...) when docker-compose itself fails to load the project, or would delete nothing in any case. Raises Refused
        where it would act and cannot be understood.
        """
        if self._kind == RECREATE:
            return None, ()  # where a definition changed 1.x ends with an error (compose/volume.py)
        loads, _, told = self._ps.answer()
        shows, out, _ = self._config.answer()
        found = _PROJECT.search(told)
        if loads == shows == 1:  # its own exit; one that was killed may work the next time
            return None, ("docker-compose cannot load this project, so it will fail and delete nothing",)
        if self._kind not in _DELETES and (found is None or shows):
            return None, ()
        if found is None:
            raise _not_understood("`docker-compose ps` does not tell which project it means", "ps")
        if shows:
            raise _not_understood("`docker-compose config` fails and does not show which volumes the project has", "config --quiet")
        return self._project(found[1], out, _FILES.search(told), existing)

    def containers(self, project: str) -> frozenset[str]:
        """Ids of the containers that docker-compose itself finds for a project of this name, with the command's words."""
        words = ("--project-name", project, *self._globals_without("project-name"))
        _, out, _ = self._compose.start("ps", "-q", globals_=words).answer()
        return frozenset(out.decode("ascii", "replace").split())

    # -- inside --------------------------------------------------------------------------------------------------------

    def _project(self, name: str, out: bytes, files: re.Match[str] | None, existing: Collection[str]) -> Finding:
        shown = _read_yaml(out)
        volumes, services = mapping(shown or {}, "volumes"), mapping(shown or {}, "services")
        if shown is None or not all(isinstance(word, str) for word in _names(volumes, services)):
            # such as a volume called 1e3: a number to some readers of YAML
            raise _not_understood("`docker-compose config` shows names that cannot be told for sure", "config")
        paths = [Path.cwd() / path for path in files[1].split(",")] if files is not None else []
        tiers, warnings = tiers_of(tuple(self._words_for_us(paths)), volumes)
        declared = tuple(
            DeclaredVolume(key, _real_name(name, key, body, existing), body.get("external") is True, tiers.get(key))
            for key, body in volumes.items()
        )
        real = {volume.key: volume.name for volume in declared}
        mounts = tuple(
            DeclaredMount(service, str(body.get("image") or f"{name}_{service}"), real[key], target)
            for service, body in services.items()
            for key, target in service_mounts(body)
            if key in real
        )
        project = Project(
            name=name,
            inferred_from=self._inferred_from(name),
            mode="config",
            working_dir=str(self._files.working_dir),
            config_files=tuple(map(str, paths)),
            services=tuple(services),
            volumes=declared,
            mounts=mounts,
            tier=tiers.get(""),
            recreates=False,
            old=True,
        )
        return project, warnings

    def _words_for_us(self, paths: list[Path]) -> Iterator[Any]:
        """`x-safe-compose` at the top of each file: 1.x leaves it out of what `config` shows (compose/config/serialize.py).

        It is a word to us, not to compose, so the files are read for it; one that cannot be read counts as critical.
        """
        texts: list[bytes | None] = [] if paths else [self._stdin]  # `-f -` names no file
        for path in paths:
            try:
                texts.append(path.read_bytes())
            except OSError:
                texts.append(None)
        for text in texts:
            if text is None:
                yield "unreadable"
            elif b"x-safe-compose" in text or b"\\" in text:
                document = _read_yaml(text)
                yield document.get("x-safe-compose") if document is not None else "unreadable"

    def _inferred_from(self, name: str) -> str:
        """For people only: where the name most likely came from (compose/cli/command.py `get_project_name`)."""
        if any(flag == "project-name" and value for flag, value in self._invocation.compose_flags):
            return "flag"
        folder = re.sub(r"[^-_a-z0-9]", "", self._files.working_dir.name.lower())
        return "folder" if folder == name and not self._environ.get("COMPOSE_PROJECT_NAME") else "environment"

    def _globals_without(self, *names: str) -> tuple[str, ...]:
        """The words before the verb without these flags, which 1.x takes only once."""
        return old_words((name, value) for name, value in self._invocation.compose_flags if name not in names)


def _real_name(project: str, key: str, body: Mapping[str, Any], existing: Collection[str]) -> str:
    """The volume that an entry stands for (compose/volume.py `true_name`, run): a volume of the name that compose gave before
    1.21, without dashes and underscores in the project's part, goes before the one of today's name."""
    if body.get("name") is not None:
        return str(body["name"])
    before = f"{re.sub('[-_]', '', project)}_{key}"
    return before if before in existing else f"{project.lstrip('-_')}_{key}"


def _names(volumes: Mapping[Any, Any], services: Mapping[Any, Any]) -> Iterator[Any]:
    yield from services
    for key, body in volumes.items():
        yield key
        yield body.get("name", "") if isinstance(body, dict) else None


def _read_yaml(text: bytes) -> dict[str, Any] | None:
    """A mapping; None for anything else, also for what is no YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    reader = YAML(typ="safe", pure=True)
    reader.allow_duplicate_keys = True  # as PyYAML, which 1.x reads with
    try:
        document = reader.load(text)
    except (YAMLError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _not_understood(why: str, words: str) -> Refused:
    return Refused(
        f"docker-compose 1.x would act on this project, but {why}; it was not run",
        next_step=f"see what `docker-compose {words}` says with the same flags",
    )
