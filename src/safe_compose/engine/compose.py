"""Which compose project a command means, as the installed compose itself understands it.

Compose files are never read for their meaning here: compose is asked with the same words, folder and environment. What it
prints holds secrets; only names, images, mounts and `x-safe-compose` are kept, and none of its words reach a message.
How compose decides is told in docker-facts, section 2; everything marked "run" below was tried with 2.26.1 and 2.40.3.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safe_compose.engine.connect import Probe
from safe_compose.errors import Refused
from safe_compose.grammar import Invocation
from safe_compose.observed import DeclaredMount, DeclaredVolume, Project

BY_LABEL = frozenset({"down", "kill", "rm"})
"""Verbs of section 4 that go by labels when `-p` stands without `-f`, or when the file does not load (`projectOrName`)."""
TIERS = frozenset({"critical", "important", "disposable"})
DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_NO_NAME = "safe-compose-asks"
_VERSION = re.compile(r"v?(\d+)\.(\d+)")
RECREATES_SINCE = (2, 32)
"""The first compose that recreates a volume whose definition changed."""

Finding = tuple[Project | None, tuple[str, ...]]


class Compose:
    """The compose that the command itself would run, with the command's own words."""

    def __init__(self, program: Sequence[str], invocation: Invocation, environ: Mapping[str, str], stdin: bytes | None) -> None:
        """`program` is `docker <globals> compose`, or the standalone binary with its globals."""
        self._program = tuple(program)
        self._invocation = invocation
        self._environ = dict(environ)
        self._stdin = stdin

    def start(self, *words: str, globals_: Sequence[str] | None = None, name: str | None = None) -> Probe:
        environ = self._environ if name is None else {**self._environ, "COMPOSE_PROJECT_NAME": name}
        words_before = self._invocation.compose_globals if globals_ is None else tuple(globals_)
        return Probe((*self._program, *words_before, *words), environ, stdin=self._stdin)

    def read(self, *words: str, globals_: Sequence[str] | None = None) -> dict[str, Any] | None:
        """What `config` prints as JSON; None when it fails."""
        return document(self.start("config", *words, "--format", "json", globals_=globals_))

    def succeeds(self, *words: str, name: str | None = None) -> bool:
        return self.start(*words, name=name).answer()[0] == 0


class Question:
    """`find` in two steps: the children are started first and answer while docker-py is imported."""

    def __init__(self, compose: Compose, invocation: Invocation, environ: Mapping[str, str], standalone: bool) -> None:
        self._compose = compose
        self._invocation = invocation
        self._environ = environ
        self._files = Files(invocation, environ)
        self._standalone = standalone
        verb = invocation.verb[-1] if invocation.verb else ""
        self._by_label = not verb or verb in BY_LABEL
        self._probes: dict[str, Probe] = {}
        # projectOrName: an empty -p counts as none
        self._label_flag = (_flag(invocation, "project-name") or "") if self._by_label and not self._files.flags else ""
        self._recreates = invocation.kind == "compose_recreate_changed_volume"
        if standalone or self._recreates:
            self._probes["version"] = compose.start("version", "--short", globals_=())
        if self._label_flag:
            return
        self._probes["config"] = compose.start("config", "--format", "json")
        if invocation.operands or invocation.is_set("remove-orphans") or self._files.removes_orphans:
            everything = (*invocation.compose_globals, "--profile", "*")
            self._probes["profiles"] = compose.start("config", "--format", "json", globals_=everything)
        if self._files.may_speak():
            # `config` drops the extensions of volumes from its JSON, except without interpolation (run)
            self._probes["raw"] = compose.start("config", "--no-interpolate", "--format", "json")

    def drop(self) -> None:
        for probe in self._probes.values():
            probe.drop()

    def is_old(self) -> bool:
        """Whether the program turned out to be docker-compose 1.x, which is asked otherwise (`compose_v1`): then nothing more
        is to be had from here. Raises Refused when a standalone program does not tell."""
        if self._standalone and self._version is None:
            self.drop()
            raise Refused(
                "this docker-compose does not tell its version, so what it would delete cannot be told either; it was not run",
                next_step="see what `docker-compose version --short` says",
            )
        old = self._version is not None and self._version[0] == 1
        if old:
            self.drop()
        return old

    def answer(self) -> Finding:
        """The project that the command means, and warnings.

        (None, ...) when compose itself will fail to load the project and so delete nothing. Raises Refused where compose
        would act and cannot be understood.
        """
        recreates = self._version is None or self._version >= RECREATES_SINCE
        if self._label_flag:
            return Project(self._label_flag, "flag", "label", removes_orphans=self._files.removes_orphans), ()
        shown = document(self._probes["config"])
        everything = document(self._probes["profiles"]) if "profiles" in self._probes else None
        raw = document(self._probes["raw"]) if "raw" in self._probes else None
        if shown is None:
            return self._does_not_show(raw)
        project, warnings = self._project(shown, everything, raw)
        project = replace(project, recreates=recreates)
        unknown = set(self._invocation.operands) - set(project.services) - set(project.disabled)
        if self._by_label and unknown:
            # An unknown service makes the file "not load", so that COMPOSE_PROJECT_NAME alone decides: 2.26.1 then takes
            # down everything of that project (run)
            fallback = self._environ.get("COMPOSE_PROJECT_NAME") or self._files.setting("COMPOSE_PROJECT_NAME") or project.name
            inferred = "environment" if fallback != project.name else project.inferred_from
            project = replace(project, name=fallback, mode="label", inferred_from=inferred)
            warnings += (f"the file has no service {', '.join(sorted(unknown))}: compose may take it for all of {fallback}",)
        return project, warnings

    @cached_property
    def _version(self) -> tuple[int, int] | None:
        """None where it was not asked, or is not told."""
        if "version" not in self._probes:
            return None
        _, out, _ = self._probes["version"].answer()
        found = _VERSION.match(out.decode("utf-8", "replace").strip())
        return (int(found[1]), int(found[2])) if found else None

    def _does_not_show(self, raw: dict[str, Any] | None) -> Finding:
        """`config` failed. That is not yet a promise that the command fails too, so compose is asked about itself.

        `ps -q` loads the project in the same way (`projectOrName`) and changes nothing; with an empty COMPOSE_PROJECT_NAME
        it cannot fall back to labels. With 2.40.3 a missing `env_file` ends `config` but not `down` (run).
        """
        if self._compose.succeeds("ps", "-q", name=""):
            raw = raw or self._compose.read("--no-interpolate")
            if raw is None or any("$" in name for name in _names(raw)):
                raise Refused(
                    "compose would act on this project, but `docker compose config` fails and does not show which volumes"
                    " it has; docker was not run",
                    next_step="`docker compose config --quiet` with the same flags says what is missing",
                )
            project, warnings = self._project(raw, None, raw)
            hidden = tuple(n for n, s in mapping(raw, "services").items() if isinstance(s, dict) and s.get("profiles"))
            project = replace(project, services=tuple(s for s in project.services if s not in hidden), disabled=hidden)
            return project, (*warnings, "`docker compose config` fails; volumes of inactive profiles are counted too")
        if not self._by_label:
            return None, ("compose cannot load this project, so it will fail and delete nothing",)
        name = self._environ.get("COMPOSE_PROJECT_NAME")
        if name is None and self._compose.succeeds("ps", "-q"):
            name = self._name_from_env_file()
        if not name:
            return None, ("compose cannot load this project and has no other name for it, so it will fail and delete nothing",)
        warning = f"the compose file does not load: compose silently goes by the labels of project {name}"
        return Project(name, "environment", "label", removes_orphans=self._files.removes_orphans), (warning,)

    def _name_from_env_file(self) -> str:
        """The COMPOSE_PROJECT_NAME that compose finds in `.env` or --env-file, asked of compose with a file of our own."""
        found = set()
        kept = [word for name, value in self._invocation.compose_flags if name == "env-file" for word in ("--env-file", value)]
        with tempfile.TemporaryDirectory(prefix="safe-compose-") as folder:
            ours = Path(folder) / "compose.yaml"
            ours.write_text(f"name: {_NO_NAME}\nservices: {{}}\n", "utf-8")
            for place in self._files.folders():
                words = (*kept, "--project-directory", str(place), "--file", str(ours))
                shown = self._compose.read(globals_=words)
                found.add(str((shown or {}).get("name", _NO_NAME)))
        found.discard(_NO_NAME)
        if len(found) != 1:
            raise Refused(
                "the compose file does not load, compose would go by labels, and which project it means cannot be told;"
                " docker was not run",
                next_step="name it: `docker compose -p NAME ...`, or mend the file (`docker compose config --quiet`)",
            )
        return found.pop()

    def _project(
        self, shown: dict[str, Any], everything: dict[str, Any] | None, raw: dict[str, Any] | None
    ) -> tuple[Project, tuple[str, ...]]:
        name = str(shown.get("name", ""))
        services = mapping(shown, "services")
        disabled = tuple(s for s in mapping(everything or {}, "services") if s not in services)
        declared = dict(mapping(shown, "volumes"))
        # `scale` takes SERVICE=N
        named = {word.partition("=")[0] for word in self._invocation.operands}
        for service in disabled:
            if service in named and everything is not None:
                # naming a service switches its profile on (run)
                for key, _ in service_mounts(mapping(everything, "services")[service]):
                    if key in mapping(everything, "volumes"):
                        declared.setdefault(key, mapping(everything, "volumes")[key])
        tiers, warnings = tiers_of((shown.get("x-safe-compose"),), mapping(raw or {}, "volumes"))
        volumes = tuple(
            DeclaredVolume(key, _real_name(name, key, body), _is_external(body), tiers.get(key), volume_hash(body))
            for key, body in declared.items()
        )
        real = {v.key: v.name for v in volumes}
        mounts = tuple(
            DeclaredMount(service, str(body.get("image") or f"{name}-{service}"), real[key], target)
            for source in (shown, everything or {})
            for service, body in mapping(source, "services").items()
            if source is shown or service in disabled
            for key, target in service_mounts(body)
            if key in real
        )
        project = Project(
            name=name,
            inferred_from=self._inferred_from(name),
            mode="config",
            working_dir=str(self._files.working_dir),
            config_files=tuple(str(f) for f in self._files.files),
            services=tuple(services),
            volumes=volumes,
            mounts=mounts,
            tier=tiers.get(""),
            disabled=disabled,
            removes_orphans=self._files.removes_orphans,
        )
        return project, warnings

    def _inferred_from(self, name: str) -> str:
        """For people only: where the name most likely came from (order of docker-facts, section 2)."""
        if _flag(self._invocation, "project-name"):
            return "flag"
        if self._environ.get("COMPOSE_PROJECT_NAME"):
            return "environment"
        if "COMPOSE_PROJECT_NAME" not in self._environ and self._files.setting("COMPOSE_PROJECT_NAME") == name:
            return "environment"
        folder = re.sub(r"[^a-z0-9_-]", "", self._files.working_dir.name.lower()).lstrip("_-")
        return "folder" if folder == name else "file"


class Files:
    """Where the project's files stand: for people, for the lookup of our own settings, never for what dies."""

    def __init__(self, invocation: Invocation, environ: Mapping[str, str]) -> None:
        self._environ = environ
        here = Path.cwd()
        directory = _flag(invocation, "project-directory") or _flag(invocation, "workdir")
        base = here / directory if directory else here
        self.flags = tuple(value for name, value in invocation.compose_flags if name == "file")
        named = [value for name, value in invocation.compose_flags if name == "env-file"]
        named = named or [f for f in environ.get("COMPOSE_ENV_FILES", "").split(",") if f]
        self._settings = dict(_settings([here / f for f in named] or [base / ".env"]))
        words = list(self.flags)
        if not words and (listed := environ.get("COMPOSE_FILE") or self._settings.get("COMPOSE_FILE")):
            words = listed.split(environ.get("COMPOSE_PATH_SEPARATOR") or ":")
        # a git or oci address is no path; `-` is stdin
        self.files = [here / w for w in words if w != "-" and "://" not in w]
        self.unseen = len(self.files) != len(words)
        if not words:
            self.files = _found_upward(base)
        first = self.files[0].parent if self.files else base
        self.working_dir = Path(base if directory else first).resolve()
        self._base = base
        self.removes_orphans = (self.setting("COMPOSE_REMOVE_ORPHANS") or "").lower() in ("1", "t", "true")

    def setting(self, key: str) -> str | None:
        """A COMPOSE_* variable: the shell's first, then the env file's."""
        return self._environ[key] if key in self._environ else self._settings.get(key)

    def folders(self) -> list[Path]:
        """Where compose may have found its `.env`: 2.26.1 looks beside the compose file, later ones in the cwd first (run)."""
        return list(dict.fromkeys([self._base, self.working_dir]))

    def may_speak(self) -> bool:
        """True when a word of ours may stand at a volume in any of the files: `x-safe-compose`, or a way to a further file."""
        if self.unseen:
            return True
        for file in self.files:
            try:
                text = file.read_bytes()
            except OSError:
                return False  # compose will say so itself
            if any(word in text for word in (b"x-safe-compose", b"include", b"extends", b"\\")):
                return True
        return False


def declared_mounts(
    compose: Sequence[str], environ: Mapping[str, str], cwd: str | None = None
) -> tuple[str, tuple[DeclaredMount, ...]]:
    """The project that `docker ... compose` with these globals means in a folder, and what its active services mount where.

    `("", ())` when its files do not load, or compose is too old to tell (1.x).
    """
    shown = document(Probe((*compose, "config", "--format", "json"), environ, cwd=cwd))
    if shown is None:
        return "", ()
    name = str(shown["name"])
    real = {key: _real_name(name, key, body) for key, body in mapping(shown, "volumes").items()}
    mounts = tuple(
        DeclaredMount(
            service,
            str(body.get("image") or f"{name}-{service}"),
            real[key],
            target,
            str(mapping(body, "environment").get("PGDATA") or ""),
        )
        for service, body in mapping(shown, "services").items()
        for key, target in service_mounts(body)
        if key in real
    )
    return name, mounts


def document(probe: Probe) -> dict[str, Any] | None:
    """What a `config --format json` printed; None when it failed or printed something else."""
    code, out, _ = probe.answer()
    if code:
        return None
    try:
        shown = json.loads(out)
    except ValueError:
        return None
    return shown if isinstance(shown, dict) and shown.get("name") else None


def volume_hash(body: Any) -> str | None:
    """The hash that compose leaves on a volume, from what `config --format json` prints of its definition.

    sha256 of Go's JSON of VolumeConfig (docker/compose 2.32.0 to 5.5.0 `VolumeHash`, compose-go `types.VolumeConfig`), the
    driver `local` written out. None for a definition with fields that these versions do not have.
    """
    if not isinstance(body, dict) or not body.get("name") or not set(body) <= {*_HASHED, "x-safe-compose"}:
        return None
    if "$" in json.dumps(body).replace("$$", ""):
        return None  # not interpolated
    given = {"driver": "local", **{key: value for key, value in body.items() if value}}
    parts = []
    for key in _HASHED:  # in the order of the struct's fields; empty ones are left out
        value = given.get(key)
        if not value:
            continue
        if isinstance(value, dict):
            if not all(isinstance(word, str) for word in value.values()):
                return None
            inner = (f"{_go_string(k)}:{_go_string(value[k])}" for k in sorted(value, key=lambda k: k.encode("utf-8", "replace")))
            parts.append(f"{_go_string(key)}:{{{','.join(inner)}}}")
        elif value is True:
            parts.append(f"{_go_string(key)}:true")
        elif isinstance(value, str):
            parts.append(f"{_go_string(key)}:{_go_string(value)}")
        else:
            return None
    return hashlib.sha256(f"{{{','.join(parts)}}}".encode("utf-8", "replace")).hexdigest()


_HASHED = ("name", "driver", "driver_opts", "external", "labels")


def _go_string(text: str) -> str:
    """A string as Go's encoding/json writes it: characters of HTML and the two line separators of Unicode are escaped too.

    `config` doubles each dollar sign, so that its output can be read back.
    """
    shown = json.dumps(text.replace("$$", "$"), ensure_ascii=False)
    for raw in "<>&\u2028\u2029":
        shown = shown.replace(raw, f"\\u{ord(raw):04x}")
    return shown


def _flag(invocation: Invocation, name: str) -> str | None:
    return next((value for key, value in reversed(invocation.compose_flags) if key == name), None)


def mapping(document_: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document_.get(key)
    return value if isinstance(value, dict) else {}


def _names(document_: Mapping[str, Any]) -> Iterator[str]:
    project = str(document_.get("name", ""))
    yield project
    for key, body in mapping(document_, "volumes").items():
        yield _real_name(project, key, body)


def _real_name(project: str, key: str, body: Any) -> str:
    name = body.get("name") if isinstance(body, dict) else None
    return str(name or (key if _is_external(body) else f"{project}_{key}"))


def _is_external(body: Any) -> bool:
    """`external: true`, or the older `external: {name: x}`. A word such as "true" in quotes is not: doubt widens."""
    external = body.get("external") if isinstance(body, dict) else None
    return external is True or isinstance(external, dict)


def service_mounts(body: Any) -> Iterator[tuple[str, str]]:
    """(key, destination) of each named volume that a service mounts; also in the short form `key:/path[:ro]`."""
    for mount in (body.get("volumes") or ()) if isinstance(body, dict) else ():
        if isinstance(mount, str):
            key, colon, rest = mount.partition(":")
            if colon and not key.startswith((".", "/", "~")):
                yield key, rest.partition(":")[0]
        elif isinstance(mount, dict) and mount.get("type") == "volume" and mount.get("source"):
            yield str(mount["source"]), str(mount.get("target", ""))


def tiers_of(tops: Sequence[Any], volumes: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """What `x-safe-compose` says: by volume key, "" for the whole project. An unknown word counts as critical.

    Forms: at the top a tier, or `{tier: ..., volumes: {KEY: TIER}}`; at a volume a tier, or `{tier: ...}`. `tops` are several
    where the files were not merged: of all that is said of one thing the strictest counts.
    """
    said: list[tuple[str, Any]] = []
    for top in tops:
        if isinstance(top, dict):
            said.append(("", top.get("tier")))
            said += [(str(key), body) for key, body in mapping(top, "volumes").items()]
        else:
            said.append(("", top))
    said += [(key, body.get("x-safe-compose")) for key, body in volumes.items() if isinstance(body, dict)]
    tiers: dict[str, str] = {}
    warnings: list[str] = []
    strictest = ("critical", "important", "disposable")
    for key, body in said:
        word = body.get("tier") if isinstance(body, dict) else body
        if word is None:
            continue
        if not isinstance(word, str) or word not in TIERS:
            warnings.append(
                f"x-safe-compose of {f'volume {key}' if key else 'the project'} is none of {', '.join(strictest)}:"
                " taken as critical"
            )
            word = "critical"
        tiers[key] = min(str(word), tiers.get(key, "disposable"), key=strictest.index)
    return tiers, tuple(warnings)


def _settings(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    for file in files:
        try:
            text = file.read_text("utf-8", "replace")
        except OSError:
            continue  # not there, or compose will say so itself
        for line in text.splitlines():
            match = re.match(r"\s*(?:export\s+)?(COMPOSE_\w+)\s*[=:]\s*(.*?)\s*$", line)
            if match:
                quoted = match[2][:1] in ('"', "'")
                yield match[1], match[2].strip("\"'") if quoted else re.split(r"\s#", match[2])[0]


def _found_upward(start: Path) -> list[Path]:
    """The default compose file and its override, searched from `start` upward as compose does."""
    start = start.resolve()
    for folder in (start, *start.parents):
        for name in DEFAULT_FILES:
            if (folder / name).is_file():
                stem, dot, suffix = name.partition(".")
                override = [folder / f"{stem}.override{dot}{s}" for s in dict.fromkeys((suffix, "yaml", "yml"))]
                return [folder / name, *[f for f in override if f.is_file()][:1]]
    return []
