"""Which folders of the host hold data that a backup takes: never code, never the machine's own.

This module is pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from posixpath import basename, dirname, normpath, splitext
from typing import NamedTuple

from safe_compose.core.known_folders import claim_of_folder, is_data
from safe_compose.core.known_images import Claim, claim_of_content
from safe_compose.core.observed import PROJECT_LABEL, FolderMount, HostFolder, Observed, Project
from safe_compose.core.policy import Verdict
from safe_compose.core.tier import Tier

_OF_THE_MACHINE = (
    "/proc",
    "/sys",
    "/dev",
    "/etc/localtime",
    "/etc/timezone",
    "/var/run/docker.sock",
    "/run/docker.sock",
)
"""Paths that many containers mount from the host and that hold no user data."""
_SYSTEM = (
    "/bin",
    "/boot",
    "/etc",
    "/lib",
    "/lib64",
    "/run",
    "/sbin",
    "/tmp",
    "/usr",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/log",
    "/var/run",
)
"""Folders of the operating system: a container that mounts one looks at the machine."""
_HOMES = ("/", "/home", "/mnt", "/media", "/opt", "/root", "/srv", "/var", "/var/lib", "/data")
"""Folders that many unrelated things lie in."""
_DESKTOP = ("/host_mnt", "/run/desktop")
"""Where Docker Desktop has the folders of its host: not their own paths."""
_MADE_AGAIN = frozenset(
    {"node_modules", "bower_components", "vendor", ".venv", "venv", "__pycache__", ".cache",
     ".tox", ".mypy_cache", ".pytest_cache", ".gradle", ".m2", ".npm", ".cargo", ".next", ".nuxt",
     ".parcel-cache", ".turbo", "target", "dist", "build", "coverage", ".git"}
)  # fmt: skip
"""Names of folders that a tool makes from files elsewhere, or that a clone has."""
_PROJECT_FILES = frozenset(
    {"package.json", "tsconfig.json", "composer.json", "pyproject.toml", "setup.py", "setup.cfg",
     "requirements.txt", "pipfile", "manage.py", "gemfile", "rakefile", "config.ru", "go.mod",
     "cargo.toml", "pom.xml", "build.gradle", "build.gradle.kts", "build.sbt", "mix.exs",
     "makefile", "cmakelists.txt", "dockerfile", "jenkinsfile", "procfile", "artisan", ".git",
     ".github", ".gitlab-ci.yml", ".editorconfig", ".eslintrc.json", "compose.yaml", "compose.yml",
     "docker-compose.yml", "docker-compose.yaml"}
)  # fmt: skip
"""Names, in lower case, that only the root of a work tree has."""
_SOURCES = frozenset(
    {".py", ".pyx", ".js", ".mjs", ".cjs", ".jsx", ".ts", ".tsx", ".vue", ".svelte", ".php",
     ".phtml", ".twig", ".rb", ".erb", ".go", ".rs", ".java", ".kt", ".kts", ".scala", ".groovy",
     ".clj", ".cs", ".fs", ".c", ".h", ".cc", ".cpp", ".hpp", ".swift", ".ex", ".exs", ".erl",
     ".lua", ".pl", ".pm", ".r", ".jl", ".dart", ".sh", ".bash", ".ps1", ".bat", ".html", ".htm",
     ".css", ".scss", ".sass", ".less", ".tf", ".proto", ".graphql", ".j2", ".tmpl", ".tpl",
     ".ipynb", ".hs", ".elm", ".sol", ".zig", ".nim", ".map"}
)  # fmt: skip
_CONFIGURATION = frozenset(
    {".conf", ".cfg", ".cnf", ".ini", ".yml", ".yaml", ".json", ".toml", ".env", ".xml",
     ".properties", ".rules", ".sql", ".txt", ".md", ".crt", ".pem", ".key", ".template", ".hcl",
     ".acl", ".lock"}
)  # fmt: skip
_DATABASE_FILES = frozenset(
    {".db", ".db3", ".sqlite", ".sqlite3", ".mdb", ".rdb", ".bolt", ".duckdb", ".realm"}
)
_WRITTEN = frozenset({"acme.json"})
"""Names of files that programs write and that are mostly mounted alone: Traefik's certificates
(doc.traefik.io/traefik/https/acme: "storage")."""
_CONFIGURED_AT = ("/etc", "/docker-entrypoint-initdb.d", "/usr/local/etc", "/usr/share", "/bin")
_DATA_WORDS = frozenset({"data", "db", "database", "state", "store", "persist", "persistent"})
_DATA_AT = ("/var/lib", "/var/opt", "/data", "/srv", "/config")
"""Where images keep what they write."""
ABSENT = "it is not there"
"""The reason of a folder that the engine does not find."""
_PLACES = 5
"""Most mount points of a folder that are named."""


class MountedFolder(NamedTuple):
    """A folder or file of the host, with every mount of it by the project."""

    folder: HostFolder
    mounts: tuple[FolderMount, ...]

    @property
    def name(self) -> str:
        """Its path."""
        return self.folder.name

    @property
    def where(self) -> str:
        """The places of its mounts, in words: `web:/data; proxy:/conf, read-only`."""
        places = list(
            dict.fromkeys(
                f"{m.user}:{m.destination}{', read-only' if m.read_only else ''}"
                for m in self.mounts
            )
        )
        more = len(places) - _PLACES
        return "; ".join(places[:_PLACES]) + (f" and {more} more" if more > 0 else "")

    @property
    def claims(self) -> list[Claim]:
        """What images and mount paths say of it, as far as they know it; without its readers."""
        found = (claim_of_folder(m.image, m.destination, m.pgdata) for m in self.writers)
        return [claim for claim in found if claim is not None]

    @property
    def writers(self) -> list[FolderMount]:
        """The mounts through which services can write to it."""
        return [m for m in self.mounts if not m.read_only]


class FolderContent(NamedTuple):
    """The content of a folder or a single file, as far as it was read."""

    kind: str
    """`folder`, `file`, `odd` (a socket, a device), `absent` or `unseen`."""
    names: tuple[str, ...] = ()
    """The names at its root."""
    files: tuple[str, ...] = ()
    """The paths of some of its files, relative to it."""
    size: int = 0
    """The bytes of its files, as far as they were counted."""
    counted: bool = False
    """Whether all of them were counted."""
    tracked: bool | None = None
    """Whether git tracks everything at its root; None where that is unknown."""
    is_sqlite: bool = False
    """Whether it is a single file that begins as a SQLite database does."""


def list_mounted(observed: Observed) -> tuple[MountedFolder, ...]:
    """Return each folder or file of the host that the project mounts, by its path.

    What every machine has (`/proc`, the time zone, docker's socket) is left out.
    """
    project = observed.project
    if project is None:
        return ()
    mounts: dict[str, dict[FolderMount, None]] = {}
    for mount in (*project.folders, *_mounts_of_containers(observed, project)):
        # the time zone's path leads elsewhere, once it is without links
        of_machine = (mount.path, normpath(mount.destination))
        if not any(_is_within(path, _OF_THE_MACHINE) for path in of_machine):
            mounts.setdefault(mount.path, {})[mount] = None
    labels = {PROJECT_LABEL: project.name}
    return tuple(
        MountedFolder(HostFolder(path, labels=labels), tuple(mounts[path]))
        for path in sorted(mounts)
    )


def list_staying(observed: Observed) -> tuple[tuple[str, str], ...]:
    """Return (path, why) of each folder with data that a removal of the project leaves there."""
    found = []
    for one in list_mounted(observed):
        claim = next((c for c in one.claims if c.tier is Tier.CRITICAL), None)
        if claim is not None:
            found.append((one.name, f"{claim.kind} in a folder of the host, which stays"))
    return tuple(found)


def _mounts_of_containers(observed: Observed, project: Project) -> Iterator[FolderMount]:
    for container in observed.containers:
        if project.owns(container) and not container.is_marked_as_ours:
            for mount in container.mounts:
                if mount.type == "bind" and mount.source:
                    yield FolderMount(
                        mount.source,
                        container.service or container.name,
                        mount.destination,
                        mount.read_only,
                        container.image,
                        container.environment.get("PGDATA", ""),
                    )


def explain_impossible(mounted: MountedFolder) -> str | None:
    """Return why nobody can have a folder backed up, by its path alone, or None."""
    path = mounted.name
    if not path.startswith("/"):
        return "a path of another kind of host"
    if normpath(path) != path or "\0" in path:
        return "its path is not in its normal form"
    if _is_within(path, _DESKTOP):
        return "Docker Desktop shows it under this path, and the host has it under another"
    if path.endswith(".sock") or any(m.destination.endswith(".sock") for m in mounted.mounts):
        return "a socket"
    return "it is the whole machine" if path == "/" else None


def explain_by_path(mounted: MountedFolder, project: Project) -> str | None:
    """Return why a folder is no data of the project by its path and mounts, or None."""
    path = mounted.name
    if not mounted.writers:
        return "no service writes to it"
    if _holds_project(path, project):
        return "it holds the project itself, with its compose file"
    strange = not _is_in_project(path, project) and not mounted.claims
    if path in _HOMES or (strange and _is_within(path, _SYSTEM)):
        return "it is the machine's own"
    if basename(path).lower() in _MADE_AGAIN:
        return f"{basename(path)} is made from other files"
    claims = mounted.claims
    if len(claims) == len(mounted.writers) and not any(map(is_data, claims)):
        return claims[0].why
    return None


def _holds_project(path: str, project: Project) -> bool:
    files = (normpath(file) for file in (project.working_dir, *project.config_files) if file)
    return any(_is_within(file, (path,)) for file in files)


def explain_by_content(mounted: MountedFolder, look: FolderContent, project: Project) -> str | None:
    """Return why a folder is no data of the project by what is in it, or None where it is.

    In doubt, what lies where images keep their data counts as data.
    """
    if look.kind == "absent":
        return ABSENT
    if look.kind == "odd":
        return "a socket, a device or the like"
    if look.kind == "file":
        return _explain_file(mounted, look, project)
    if look.kind == "unseen":  # what is likely to be data then fails in its backup, with the cause
        near = _is_in_project(mounted.name, project)
        likely = near or any(map(is_data, mounted.claims))
        return None if likely else "the engine does not show it"
    if claim_of_content(look.names, orphan=False) is not None or any(
        claim.tier is Tier.CRITICAL and claim.kind not in ("files", "unknown")
        for claim in mounted.claims
    ):
        return None  # a database, even where git has it
    if look.tracked:
        return "git has all of it"
    likely = any(map(is_data, mounted.claims)) or any(
        _is_data_target(m.destination) for m in mounted.writers
    )
    if likely:
        if (why := _find_project_file(look.names)) and not _is_at_home(mounted):
            return f"it looks like code: {why}"
        sources = [file for file in look.files if _is_source(file)]
        if len(sources) * 2 > len(look.files) and not _is_at_home(mounted):
            return f"it looks like code: {sources[0]}"
        return None
    if not look.names:
        return "it is empty"
    if why := _find_project_file(look.names) or next(filter(_is_source, look.files), None):
        return f"it looks like code: {why}"
    return _explain_unknown(mounted, look, project)


def _explain_unknown(mounted: MountedFolder, look: FolderContent, project: Project) -> str | None:
    """Return why a folder of which nobody knows anything is not taken, or None."""
    if all(_is_within(m.destination, _CONFIGURED_AT) for m in mounted.mounts) or (
        look.files and all(_is_configuration(file) for file in look.files)
    ):
        return "it looks like configuration"
    if not _is_in_project(mounted.name, project):
        return "it lies outside of the project's folder, and nobody here knows what is in it"
    return None


def _explain_file(mounted: MountedFolder, look: FolderContent, project: Project) -> str | None:
    """Return why a single file is no data of the project, or None where it is.

    Most files that are mounted alone are configuration, also where a service could write to them.
    """
    names = [mounted.name, *(m.destination for m in mounted.mounts)]
    if look.is_sqlite or _is_database_name(names) or any(basename(n) in _WRITTEN for n in names):
        return None
    if look.tracked:
        return "git has it"
    if any(map(_is_source, names)):
        return "it looks like code"
    at_data = any(_is_data_target(dirname(m.destination)) for m in mounted.writers)
    if any(map(is_data, mounted.claims)) or at_data:
        return None
    if all(map(_is_configuration, names)):
        return "it looks like configuration"
    return "it is empty" if not look.size else _explain_unknown(mounted, look, project)


def judge_look(verdict: Verdict, look: FolderContent) -> Verdict:
    """Return the verdict on a single file with what was seen of it; others stay as they are.

    A file that is named like a database and is none that is known is copied at rest only.
    """
    if look.kind != "file":
        return verdict
    if look.is_sqlite:
        return replace(verdict, kind="sqlite")
    named = _is_database_name([*look.names]) and look.size
    return verdict if named or verdict.kind != "unknown" else replace(verdict, kind="files")


def _is_database_name(names: Iterable[str]) -> bool:
    return any(splitext(name)[1].lower() in _DATABASE_FILES for name in names)


def _is_in_project(path: str, project: Project) -> bool:
    folder = project.working_dir
    return bool(folder) and _is_within(path, (normpath(folder),))


def _is_at_home(mounted: MountedFolder) -> bool:
    """Return whether an image is known to keep its data there, programs among them."""
    return any(claim.from_image and is_data(claim) for claim in mounted.claims)


def _is_data_target(destination: str) -> bool:
    path = normpath(destination)
    return _is_within(path, _DATA_AT) or basename(path).lower() in _DATA_WORDS


def _find_project_file(names: Iterable[str]) -> str | None:
    return next((name for name in sorted(names) if name.lower() in _PROJECT_FILES), None)


def _is_source(file: str) -> bool:
    return splitext(file)[1].lower() in _SOURCES or basename(file).lower() in _PROJECT_FILES


def _is_configuration(file: str) -> bool:
    name = basename(file).lower()
    return name.startswith(".") or splitext(name)[1] in _CONFIGURATION


def _is_within(path: str, folders: Sequence[str]) -> bool:
    return any(path == f or path.startswith(f"{f.rstrip('/')}/") for f in folders)
