"""The project that docker-compose 1.x means, and its volumes, asked of that program itself.

It knows no JSON and no dry run. `config` shows the declared volumes as YAML, and only `--verbose`
shows the project's name, in its requests to the daemon. Sources are those of docker-compose 1.29.2;
behaviour marked "run" was tried with it.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from safe_compose.compose.files import Files
from safe_compose.compose.single_use import SingleUseInputs, read_again
from safe_compose.core.observed import DeclaredMount, DeclaredVolume, Project
from safe_compose.engine.compose_document import mapping, read_tiers, service_mounts
from safe_compose.engine.compose_project import Compose, Finding
from safe_compose.errors import Refused
from safe_compose.grammar.parser import Invocation, parse, restore_v1_words
from safe_compose.grammar.tables import RECREATE

_PROJECT = re.compile(r"docker containers <- .*'com\.docker\.compose\.project=([-_a-z0-9]*)'")
"""The first request of `ps`; a second one may ask for an older spelling of the name
(compose/project.py)."""
_FILES = re.compile(
    r"^compose\.config\.config\.find: Using configuration files: (.+)$", re.MULTILINE
)
_DELETES = frozenset({"compose_down_volumes", "compose_rm_anon"})


class ComposeV1Query:
    """The query for one command of docker-compose 1.x.

    The two child processes are started first and answer while other work goes on.
    """

    def __init__(
        self, binary: str, invocation: Invocation, environ: Mapping[str, str], held: SingleUseInputs
    ) -> None:
        """Start the child processes.

        Args:
            binary: The docker-compose that will run.
            invocation: The command.
            environ: Its environment.
            held: Its inputs that can be read only once.
        """
        self._kind = invocation.kind
        # parsed again, because `--verbose` is docker's flag to a newer docker-compose
        self._invocation = parse(invocation.argv, "docker-compose", dialect="v1")
        self._environ = environ
        self._stdin = held.stdin
        self._files = Files(self._invocation, environ)
        self._compose = Compose(
            (binary, *self._invocation.docker_globals), self._invocation, environ, held
        )
        self._config = self._compose.start("config")
        self._ps = self._compose.start(
            "ps", "-q", globals_=("--verbose", *self._globals_without("verbose", "log-level"))
        )

    @property
    def may_delete(self) -> bool:
        """Return whether the command deletes volumes where the project loads."""
        return self._kind in _DELETES

    def drop(self) -> None:
        """End the child processes."""
        for probe in (self._config, self._ps):
            probe.drop()

    def answer(self, existing: Collection[str]) -> Finding:
        """Return the project that the command means, and warnings.

        The project is None when docker-compose does not load it for us, which proves nothing about
        the command, or when the command would delete nothing in any case (then not `may_delete`).

        Args:
            existing: The names of the engine's volumes.

        Raises:
            Refused: docker-compose would act and its plan is unknown.
        """
        if self._kind == RECREATE:
            return None, ()  # 1.x ends with an error where a definition changed (compose/volume.py)
        loads, _, stderr = self._ps.answer()
        shows, out, _ = self._config.answer()
        found = _PROJECT.search(stderr)
        if loads == shows == 1:  # docker-compose's own exit code
            return None, ()
        if not self.may_delete and (found is None or shows):
            return None, ()
        if found is None:
            raise _refuse_unknown("`docker-compose ps` does not tell which project it means", "ps")
        if shows:
            raise _refuse_unknown(
                "`docker-compose config` fails and does not show which volumes the project has",
                "config --quiet",
            )
        return self._project(found[1], out, _FILES.search(stderr), existing)

    def containers(self, project: str) -> frozenset[str]:
        """Return the ids of the containers that docker-compose itself finds for a project.

        It gets the command's flags.
        """
        words = ("--project-name", project, *self._globals_without("project-name"))
        _, out, _ = self._compose.start("ps", "-q", globals_=words).answer()
        return frozenset(out.decode("ascii", "replace").split())

    # -- internal ----------------------------------------------------------------------------------

    def _project(
        self, name: str, out: bytes, files: re.Match[str] | None, existing: Collection[str]
    ) -> Finding:
        shown = _read_yaml(out)
        volumes, services = mapping(shown or {}, "volumes"), mapping(shown or {}, "services")
        if shown is None or not all(isinstance(word, str) for word in _names(volumes, services)):
            # such as a volume called 1e3, which some YAML readers take for a number
            raise _refuse_unknown(
                "`docker-compose config` shows names that cannot be told for sure", "config"
            )
        paths = [Path.cwd() / path for path in files[1].split(",")] if files is not None else []
        tiers, warnings = read_tiers(tuple(self._words_for_us(paths)), volumes)
        declared = tuple(
            DeclaredVolume(
                key,
                _real_name(name, key, body, existing),
                body.get("external") is True,
                tiers.get(key),
            )
            for key, body in volumes.items()
        )
        real = {volume.key: volume.name for volume in declared}
        mounts = tuple(
            DeclaredMount(
                service,
                str(body.get("image") or f"{name}_{service}"),
                real[key],
                target,
                subpath=subpath,
            )
            for service, body in services.items()
            for key, target, subpath in service_mounts(body)
            if key in real
        )
        project = Project(
            name=name,
            inferred_from=self._guess_source(name),
            mode="config",
            working_dir=str(self._files.working_dir),
            config_files=tuple(map(str, paths)),
            services=tuple(services),
            volumes=declared,
            mounts=mounts,
            tier=tiers.get(""),
            recreates=False,
            old=True,
            config_digest=hashlib.sha256(out).hexdigest(),
        )
        return project, warnings

    def _words_for_us(self, paths: list[Path]) -> Iterator[Any]:
        """Yield the `x-safe-compose` of each file, which 1.x leaves out of its `config`.

        See compose/config/serialize.py. Compose does not use the key, so the files are read for it;
        an unreadable file counts as critical.
        """
        texts: list[bytes | None] = [] if paths else [self._stdin]  # `-f -` names no file
        for path in paths:
            texts.append(read_again(path))
        for text in texts:
            if text is None:
                yield "unreadable"
            elif b"x-safe-compose" in text or b"\\" in text:
                document = _read_yaml(text)
                yield document.get("x-safe-compose") if document is not None else "unreadable"

    def _guess_source(self, name: str) -> str:
        """Return where the name most likely came from, for people only.

        See compose/cli/command.py `get_project_name`.
        """
        if any(flag == "project-name" and value for flag, value in self._invocation.compose_flags):
            return "flag"
        folder = re.sub(r"[^-_a-z0-9]", "", self._files.working_dir.name.lower())
        return (
            "folder"
            if folder == name and not self._environ.get("COMPOSE_PROJECT_NAME")
            else "environment"
        )

    def _globals_without(self, *names: str) -> tuple[str, ...]:
        """Return the global flags without these ones, which 1.x accepts only once."""
        return restore_v1_words(
            (name, value) for name, value in self._invocation.compose_flags if name not in names
        )


def _real_name(project: str, key: str, body: Mapping[str, Any], existing: Collection[str]) -> str:
    """Return the volume that an entry stands for (compose/volume.py `true_name`, run).

    A volume with the name that compose gave before 1.21, without dashes and underscores in the
    project's part, precedes the one with today's name.
    """
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
    """Return a mapping; None for anything else, also for invalid YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    reader = YAML(typ="safe", pure=True)
    reader.allow_duplicate_keys = True  # like PyYAML, which 1.x uses
    try:
        document = reader.load(text)
    except (YAMLError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _refuse_unknown(why: str, words: str) -> Refused:
    return Refused(
        f"docker-compose 1.x would act on this project, but {why}; it was not run",
        next_step=f"see what `docker-compose {words}` says with the same flags",
    )
