"""The compose project that a command means, as the installed compose itself understands it.

The meaning of compose files is never interpreted here: compose is asked with the same arguments,
folder and environment. Its output holds secrets; only names, images, mounts and `x-safe-compose`
are kept, and none of its text reaches a message. docker-facts, section 2 explains how compose
decides; behaviour marked "run" below was tried with 2.26.1 and 2.40.3.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safe_compose.compose.files import BY_LABEL, Files, flag, label_flag
from safe_compose.compose.probe import Probe
from safe_compose.compose.single_use import SingleUseInputs, is_any
from safe_compose.core.observed import DeclaredMount, DeclaredVolume, Project
from safe_compose.engine.compose_document import (
    host_folders,
    idle_mounts,
    is_external,
    list_hooked_services,
    list_names,
    mapping,
    parse_document,
    read_tiers,
    real_name,
    service_mounts,
    volume_hash,
)
from safe_compose.errors import Refused
from safe_compose.grammar.parser import Invocation, parse

_NO_NAME = "safe-compose-asks"
_VERSION = re.compile(r"v?(\d+)\.(\d+)")
RECREATES_SINCE = (2, 32)
"""The first compose that recreates a volume whose definition changed."""

Finding = tuple[Project | None, tuple[str, ...]]


class Compose:
    """The compose that the command itself would run, with the command's own arguments."""

    def __init__(
        self,
        program: Sequence[str],
        invocation: Invocation,
        environ: Mapping[str, str],
        held: SingleUseInputs,
    ) -> None:
        """Run compose for this invocation.

        Args:
            program: `docker <globals> compose`, or the standalone binary with its globals.
            invocation: The command.
            environ: Its environment.
            held: Its inputs that can be read only once.
        """
        self._program = tuple(program)
        self._invocation = invocation
        self._environ = dict(environ)
        self._held = held

    def start(
        self, *words: str, globals_: Sequence[str] | None = None, name: str | None = None
    ) -> Probe:
        """Start compose with other words than the command's verb.

        `globals_` replaces the command's own global flags, and `name` sets COMPOSE_PROJECT_NAME.
        """
        environ = self._environ if name is None else {**self._environ, "COMPOSE_PROJECT_NAME": name}
        words_before = self._invocation.compose_globals if globals_ is None else tuple(globals_)
        return Probe(
            (*self._program, *words_before, *words),
            environ,
            stdin=self._held.stdin,
            descriptors=self._held.descriptors,
        )

    def read(self, *words: str, globals_: Sequence[str] | None = None) -> dict[str, Any] | None:
        """Return the output of `config` as JSON; None when it fails."""
        return parse_document(self.start("config", *words, "--format", "json", globals_=globals_))

    def succeeds(self, *words: str, name: str | None = None) -> bool:
        """Return whether compose exits with 0."""
        return self.start(*words, name=name).answer()[0] == 0


class ComposeQuery:
    """The query for a command's project, in two steps.

    The child processes are started first and answer while docker-py is imported.
    """

    def __init__(
        self,
        compose: Compose,
        invocation: Invocation,
        environ: Mapping[str, str],
        *,
        standalone: bool,
        config: Probe | None,
    ) -> None:
        """Start the child processes; that of `config` unless it was started already."""
        self._compose = compose
        self._invocation = invocation
        self._environ = environ
        self._files = Files(invocation, environ)
        self._standalone = standalone
        verb = invocation.verb[-1] if invocation.verb else ""
        self._by_label = not verb or verb in BY_LABEL
        self._probes: dict[str, Probe] = {}
        self._label_flag = label_flag(invocation)
        self._recreates = invocation.kind == "compose_recreate_changed_volume"
        if standalone or self._recreates:
            self._probes["version"] = compose.start("version", "--short", globals_=())
        if self._label_flag:
            return
        self._probes["config"] = config or compose.start("config", "--format", "json")
        if (
            invocation.operands
            or invocation.is_set("remove-orphans")
            or self._files.removes_orphans
        ):
            everything = (*invocation.compose_globals, "--profile", "*")
            self._probes["profiles"] = compose.start(
                "config", "--format", "json", globals_=everything
            )
        if self._files.may_speak():
            # `config` drops the extensions of volumes from its JSON, except without interpolation
            # (run)
            self._probes["raw"] = compose.start("config", "--no-interpolate", "--format", "json")

    def drop(self) -> None:
        """End the child processes."""
        for probe in self._probes.values():
            probe.drop()

    def is_old(self) -> bool:
        """Return whether the program is docker-compose 1.x, which only `compose_v1` can query.

        The queries are then dropped.

        Raises:
            Refused: A standalone program does not report its version.
        """
        if self._standalone and self._version is None:
            self.drop()
            raise Refused(
                "this docker-compose does not tell its version, so what it would delete cannot be"
                " told either; it was not run",
                next_step="see what `docker-compose version --short` says",
            )
        old = self._version is not None and self._version[0] == 1
        if old:
            self.drop()
        return old

    def answer(self) -> Finding:
        """Return the project that the command means, and warnings.

        The project is None when compose does not load it for us, which proves nothing about the
        command.

        Raises:
            Refused: Compose would act and its plan is unknown.
        """
        recreates = self._version is None or self._version >= RECREATES_SINCE
        if self._label_flag:
            return (
                Project(
                    self._label_flag, "flag", "label", removes_orphans=self._files.removes_orphans
                ),
                (),
            )
        shown = parse_document(self._probes["config"])
        everything = (
            parse_document(self._probes["profiles"]) if "profiles" in self._probes else None
        )
        raw = parse_document(self._probes["raw"]) if "raw" in self._probes else None
        if shown is None:
            return self._does_not_show(raw)
        project, warnings = self._project(shown, everything, raw)
        project = replace(project, recreates=recreates)
        unknown = set(self._invocation.operands) - set(project.services) - set(project.disabled)
        if self._by_label and unknown:
            # An unknown service makes the file "not load", so that COMPOSE_PROJECT_NAME alone
            # decides: 2.26.1 then takes down everything of that project (run).
            fallback = (
                self._environ.get("COMPOSE_PROJECT_NAME")
                or self._files.setting("COMPOSE_PROJECT_NAME")
                or project.name
            )
            inferred = "environment" if fallback != project.name else project.inferred_from
            project = replace(project, name=fallback, mode="label", inferred_from=inferred)
            warnings += (
                (
                    f"the file has no service {', '.join(sorted(unknown))}: compose may take it for"
                    f" all of {fallback}"
                ),
            )
        return project, warnings

    @cached_property
    def _version(self) -> tuple[int, int] | None:
        """Return the version; None where it was not asked for, or is not reported."""
        if "version" not in self._probes:
            return None
        _, out, _ = self._probes["version"].answer()
        found = _VERSION.match(out.decode("utf-8", "replace").strip())
        return (int(found[1]), int(found[2])) if found else None

    def _does_not_show(self, raw: dict[str, Any] | None) -> Finding:
        """Find the project although `config` failed.

        That does not mean that the command would fail too, so compose is asked about itself.

        `ps -q` loads the project in the same way (`projectOrName`) and changes nothing; with an
        empty COMPOSE_PROJECT_NAME it cannot fall back to labels. With 2.40.3 a missing `env_file`
        ends `config` but not `down` (run).

        When `ps` fails too, the cause may still be our environment: docker has a terminal, on which
        git and ssh ask for a passphrase.
        """
        if self._compose.succeeds("ps", "-q", name=""):
            raw = raw or self._compose.read("--no-interpolate")
            if raw is None or any("$" in name for name in list_names(raw)):
                raise Refused(
                    "compose would act on this project, but `docker compose config` fails and does"
                    " not show which volumes it has; docker was not run",
                    next_step=(
                        "`docker compose config --quiet` with the same flags says what is missing"
                    ),
                )
            project, warnings = self._project(raw, None, raw)
            hidden = tuple(
                n
                for n, s in mapping(raw, "services").items()
                if isinstance(s, dict) and s.get("profiles")
            )
            project = replace(
                project,
                services=tuple(s for s in project.services if s not in hidden),
                disabled=hidden,
            )
            return project, (
                *warnings,
                "`docker compose config` fails; volumes of inactive profiles are counted too",
            )
        if not self._by_label:
            return None, self._unlike_docker()
        name = self._environ.get("COMPOSE_PROJECT_NAME")
        if name is None and self._compose.succeeds("ps", "-q"):
            name = self._name_from_env_file()
        if not name or self._files.lead_elsewhere():
            return None, self._unlike_docker()
        warning = (
            f"the compose file does not load: compose silently goes by the labels of project {name}"
        )
        return Project(name, "environment", "label", removes_orphans=self._files.removes_orphans), (
            warning,
        )

    def _unlike_docker(self) -> tuple[str, ...]:
        """Explain why compose may load the project for docker and not for us."""
        if not self._files.remote:
            return ()
        return (
            (
                "a compose file is at a git or OCI address: what git and ssh would ask at your"
                " terminal they cannot ask here, so that a key with a passphrase has to be in the"
                " agent (ssh-add)"
            ),
        )

    def _name_from_env_file(self) -> str:
        """Return the COMPOSE_PROJECT_NAME of `.env` or --env-file.

        Compose is asked for it with our own file.

        Raises:
            Refused: There is none, or more than one.
        """
        import tempfile

        found = set()
        flags = [
            word
            for name, value in self._invocation.compose_flags
            if name == "env-file"
            for word in ("--env-file", value)
        ]
        with tempfile.TemporaryDirectory(prefix="safe-compose-") as folder:
            ours = Path(folder) / "compose.yaml"
            ours.write_text(f"name: {_NO_NAME}\nservices: {{}}\n", "utf-8")
            for place in self._files.folders():
                words = (*flags, "--project-directory", str(place), "--file", str(ours))
                shown = self._compose.read(globals_=words)
                found.add(str((shown or {}).get("name", _NO_NAME)))
        found.discard(_NO_NAME)
        if len(found) != 1:
            raise Refused(
                "the compose file does not load, compose would go by labels, and which project it"
                " means cannot be told; docker was not run",
                next_step=(
                    "name it: `docker compose -p NAME ...`, or mend the file (`docker compose"
                    " config --quiet`)"
                ),
            )
        return found.pop()

    def _project(
        self, shown: dict[str, Any], everything: dict[str, Any] | None, raw: dict[str, Any] | None
    ) -> tuple[Project, tuple[str, ...]]:
        """Return the project with the warnings about its tiers.

        Args:
            shown: What compose says of the active services.
            everything: The same of all services, or None.
            raw: The files as they are written, or None.
        """
        name = str(shown.get("name", ""))
        services = mapping(shown, "services")
        disabled = tuple(s for s in mapping(everything or {}, "services") if s not in services)
        declared = self._declared_volumes(shown, everything or {}, disabled)
        tiers, warnings = read_tiers((shown.get("x-safe-compose"),), mapping(raw or {}, "volumes"))
        volumes = tuple(
            DeclaredVolume(
                key,
                real_name(name, key, body),
                is_external(body),
                tiers.get(key),
                volume_hash(body),
            )
            for key, body in declared.items()
        )
        project = Project(
            name=name,
            inferred_from=self._guess_source(name),
            mode="config",
            working_dir=str(self._files.working_dir),
            config_files=tuple(str(f) for f in self._files.files),
            services=tuple(services),
            volumes=volumes,
            mounts=_list_mounts(name, (shown, everything or {}), disabled, volumes),
            hooked=list_hooked_services(services),
            idle=idle_mounts(name, everything or {}, disabled, {v.name for v in volumes}),
            folders=host_folders((shown, everything or {})),
            tier=tiers.get(""),
            disabled=disabled,
            removes_orphans=self._files.removes_orphans,
            config_digest=hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest(),
            unseen_files=self._files.remote,
        )
        return project, warnings

    def _declared_volumes(
        self, shown: dict[str, Any], everything: dict[str, Any], disabled: Sequence[str]
    ) -> dict[str, Any]:
        """Return the declared volumes, with those of disabled services that the command names."""
        declared = dict(mapping(shown, "volumes"))
        # `scale` takes SERVICE=N
        named = {word.partition("=")[0] for word in self._invocation.operands}
        for service in disabled:
            if service in named:
                # naming a service activates its profile (run)
                for key, *_ in service_mounts(mapping(everything, "services")[service]):
                    if key in mapping(everything, "volumes"):
                        declared.setdefault(key, mapping(everything, "volumes")[key])
        return declared

    def _guess_source(self, name: str) -> str:
        """Return where the name most likely came from, for people only.

        The order is that of docker-facts, section 2.
        """
        if flag(self._invocation, "project-name"):
            return "flag"
        if self._environ.get("COMPOSE_PROJECT_NAME"):
            return "environment"
        if (
            "COMPOSE_PROJECT_NAME" not in self._environ
            and self._files.setting("COMPOSE_PROJECT_NAME") == name
        ):
            return "environment"
        folder = re.sub(r"[^a-z0-9_-]", "", self._files.working_dir.name.lower()).lstrip("_-")
        return "folder" if folder == name else "file"


def _list_mounts(
    name: str,
    sources: Sequence[Mapping[str, Any]],
    disabled: Sequence[str],
    volumes: Sequence[DeclaredVolume],
) -> tuple[DeclaredMount, ...]:
    """Return the mounts of the active services, and of the disabled ones from the second source."""
    real = {v.key: v.name for v in volumes}
    return tuple(
        DeclaredMount(
            service,
            str(body.get("image") or f"{name}-{service}"),
            real[key],
            target,
            subpath=subpath,
        )
        for source in sources
        for service, body in mapping(source, "services").items()
        if source is sources[0] or service in disabled
        for key, target, subpath in service_mounts(body)
        if key in real
    )


def read_declared_mounts(
    compose: Sequence[str], environ: Mapping[str, str], cwd: str | None = None
) -> tuple[str, tuple[DeclaredMount, ...]]:
    """Return the project of `docker ... compose` in a folder and its active services' mounts.

    Returns:
        `("", ())` when its files do not load, or compose is too old to report them (1.x).
    """
    shown = _read_config(compose, environ, cwd)
    if shown is None:
        return "", ()
    name = str(shown["name"])
    real = {key: real_name(name, key, body) for key, body in mapping(shown, "volumes").items()}
    mounts = tuple(
        DeclaredMount(
            service,
            str(body.get("image") or f"{name}-{service}"),
            real[key],
            target,
            str(mapping(body, "environment").get("PGDATA") or ""),
            subpath,
        )
        for service, body in mapping(shown, "services").items()
        for key, target, subpath in service_mounts(body)
        if key in real
    )
    folders = tuple(
        DeclaredMount(
            service,
            str(body.get("image") or f"{name}-{service}"),
            folder.path,
            folder.destination,
            str(mapping(body, "environment").get("PGDATA") or ""),
        )
        for service, body in mapping(shown, "services").items()
        for folder in host_folders([{"services": {service: body}}])
    )
    return name, mounts + folders


def read_declared_hooks(
    compose: Sequence[str], environ: Mapping[str, str], cwd: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """Return the project of `docker ... compose` in a folder, and its services that have hooks.

    Returns:
        `("", ())` when its files do not load.
    """
    shown = _read_config(compose, environ, cwd)
    return (
        (str(shown["name"]), list_hooked_services(mapping(shown, "services")))
        if shown is not None
        else ("", ())
    )


def _read_config(
    compose: Sequence[str], environ: Mapping[str, str], cwd: str | None
) -> dict[str, Any] | None:
    """Return the output of `config` in a folder.

    None when the files do not load, or when one can be read only once; then it is not read.
    """
    program = "docker-compose" if Path(compose[0]).name == "docker-compose" else "docker"
    if is_any(Files(parse([*compose[1:], "down"], program), environ, folder=cwd)):
        return None
    return parse_document(Probe((*compose, "config", "--format", "json"), environ, cwd=cwd))
