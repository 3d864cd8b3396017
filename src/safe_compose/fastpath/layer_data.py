"""The data among the files that a container changed in its own layer.

`docker diff` lists those files. It does not look into mounts, so what it lists outside of every
mount is deleted with the container. Only names are known: an application's database has a file of
a telling name, and everything that programs and packages write for themselves is left out. The
list comes from a container and may hold any name.
"""

from safe_compose.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

REMOVE = frozenset(
    {
        ("compose", "down"),
        ("compose", "rm"),
        ("container", "rm"),
        ("container", "prune"),
        ("system", "prune"),
    }
)
"""The verbs that remove containers."""
RECREATE = frozenset(
    {
        ("compose", "up"),
        ("compose", "create"),
        ("compose", "run"),
        ("compose", "scale"),
        ("compose", "watch"),
    }
)
"""The verbs that replace containers whose service changed."""
DATABASE_FILES = {
    "pg_control": 2,
    "ibdata1": 1,
    "WiredTiger.wt": 1,
    "dump.rdb": 1,
    "appendonly.aof": 1,
    "appendonly.aof.manifest": 2,
}
"""Name of a file that every server of its kind writes -> how many levels above it the folder of
the data is."""
SQLITE_ENDINGS = (".sqlite", ".sqlite3", ".db", ".db3", ".sqlitedb")
SQLITE_LOGS = ("-wal", "-journal")
"""Suffixes of the files beside a SQLite database that may hold commits, or their undoing."""
SQLITE_COMPANIONS = (*SQLITE_LOGS, "-shm")
"""What SQLite adds to the name of a database for the files beside it."""
UPLOADS = frozenset(
    {
        "uploads", "upload", "media", "attachments", "avatars", "photos", "pictures", "documents",
        "userfiles", "user-files", "user_files", "userdata", "storage", "files", "data",
    }
)  # fmt: skip
"""Folders in which applications keep what their users gave them, anywhere in a container."""
_ROOTS = frozenset({"srv", "config"})
"""Such folders at the root of a container."""
_NOISE = frozenset(
    {
        "cache", "caches", ".cache", "__pycache__", "node_modules", "tmp", "temp", ".tmp", "log",
        "logs", ".npm", ".yarn", ".pnpm-store", ".next", ".nuxt", ".git", ".pki", ".gnupg",
        ".java", ".config", ".local", ".bundle", ".cargo", ".gradle", ".m2", ".nuget", ".pip",
        ".pytest_cache", ".mypy_cache", ".ruff_cache", "site-packages", "dist-packages",
        "sessions", "framework", "views", "lost+found", "vendor", ".venv", "venv", "dist",
        ".vscode-server", ".mozilla",
    }
)  # fmt: skip
"""Folders of caches, logs, sessions and programs."""
_NOISE_ENDINGS = (
    ".pid", ".log", ".lock", ".lck", ".sock", ".socket", ".swp", ".tmp", ".pyc", ".pyo", ".so",
    "/Thumbs.db", "/thumbs.db", "/aliases.db",
)  # fmt: skip
_SYSTEM = frozenset(
    {
        "proc", "sys", "dev", "run", "tmp", "etc", "bin", "sbin", "lib", "lib32", "lib64", "libx32",
        "boot",
    }
)  # fmt: skip
"""Folders at the root that hold no data of an application."""
_OF_VAR = frozenset({"run", "lock", "log", "cache", "tmp", "spool", "mail", "backups", "empty"})
_OF_VAR_LIB = frozenset(
    {
        "apt", "dpkg", "apk", "rpm", "dnf", "yum", "zypp", "pacman", "ucf", "misc", "systemd",
        "dbus", "pam", "alternatives", "ca-certificates", "python", "ghc", "gems", "logrotate",
        "nginx", "update-rc.d", "insserv", "private", "polkit-1", "snapd", "containerd", "docker",
    }
)  # fmt: skip
"""Folders of `/var/lib` that package managers and the system keep."""
_OF_USR = (("src",), ("app",), ("share", "elasticsearch"), ("share", "opensearch"))
"""The folders of `/usr` in which applications are installed together with their data."""


class LayerData(NamedTuple):
    """The data in a container's own layer, as far as names show it; paths are the container's."""

    databases: tuple[str, ...] = ()
    """The folders of database servers."""
    sqlite: tuple[str, ...] = ()
    """SQLite databases, by their names."""
    files: tuple[str, ...] = ()
    """Files in folders of uploads; an empty folder there may be among them."""

    @property
    def is_empty(self) -> bool:
        """Return whether there is none."""
        return not (self.databases or self.sqlite or self.files)


def find_data(paths: "Collection[str]", mounts: "Collection[str]" = ()) -> LayerData:
    """Return the data among changed paths.

    Args:
        paths: The paths that were added or changed, folders included, without deleted ones.
        mounts: The paths at which something is mounted: what lies below is not in the layer.
    """
    changed = set(paths)
    folders = {path.rpartition("/")[0] for path in changed}
    lowest = [path for path in changed if path not in folders and not is_noise(path)]
    own = leave_out_below(lowest, [mount.rstrip("/") for mount in mounts])
    roots = {root for path in own if (root := _find_database(path)) is not None}
    rest = leave_out_below(own, roots)
    sqlite = [path for path in rest if _is_sqlite(path, changed)]
    companions = {f"{path}{end}" for path in sqlite for end in SQLITE_COMPANIONS}
    known = companions.union(sqlite)
    files = [path for path in rest if path not in known and _is_upload(path)]
    return LayerData(tuple(sorted(roots)), tuple(sqlite), tuple(files))


def leave_out_below(paths: "Collection[str]", folders: "Collection[str]") -> list[str]:
    """Return the paths that are none of these folders and below none of them, sorted.

    A container chooses how long both lists are, so not each path is compared to each folder.
    """
    known = frozenset(folders)
    kept: list[str] = []
    top = None
    for path in _sort(known.union(paths)):
        if top is not None and path.startswith(top):
            continue
        if path in known:
            top = f"{path}/"
        else:
            kept.append(path)
    return kept


def find_highest(paths: "Collection[str]") -> list[str]:
    """Return the paths that are below none of the others, sorted."""
    kept: list[str] = []
    for path in _sort(paths):
        if not kept or not path.startswith(f"{kept[-1]}/"):
            kept.append(path)
    return kept


def _sort(paths: "Collection[str]") -> list[str]:
    """Return paths sorted part by part: what is below a folder follows it at once."""
    return sorted(paths, key=lambda path: path.replace("/", "\0"))


def is_noise(path: str) -> bool:
    """Return whether a path belongs to the system, a package, a cache or a log."""
    parts = path.split("/")[1:]
    if not parts or parts[0] in _SYSTEM or path.endswith(_NOISE_ENDINGS):
        return True
    if parts[0] == "var":
        if parts[1:2] == ["lib"]:
            if len(parts) < 4 or parts[2] in _OF_VAR_LIB:
                return True
        elif parts[1:2] and parts[1] in _OF_VAR:
            return True
    if parts[0] == "usr" and not any(tuple(parts[1 : 1 + len(p)]) == p for p in _OF_USR):
        return True
    return not _NOISE.isdisjoint(parts)


def _find_database(path: str) -> str | None:
    """Return the folder of the database server that writes such a file, or None."""
    levels = DATABASE_FILES.get(path.rpartition("/")[2])
    if levels is None:
        return None
    parts = path.split("/")
    return "/".join(parts[:-levels]) if len(parts) > levels + 1 else None


def _is_sqlite(path: str, changed: "Collection[str]") -> bool:
    if path.endswith(SQLITE_COMPANIONS):
        return False
    companions = (f"{path}{end}" in changed for end in SQLITE_COMPANIONS)
    return path.lower().endswith(SQLITE_ENDINGS) or any(companions)


def _is_upload(path: str) -> bool:
    return find_folder(path) is not None


def find_folder(path: str) -> str | None:
    """Return the folder of uploads that a file lies in: `/app/uploads`; None for another file."""
    parts = path.split("/")[:-1]
    if parts[1:3] == ["var", "lib"]:
        return "/".join(parts[:4])  # of an application: `is_noise` has left out the others
    if parts[1:2] and parts[1] in _ROOTS:
        return "/".join(parts[:2])
    at = next((at for at, part in enumerate(parts) if part in UPLOADS), None)
    return None if at is None else "/".join(parts[: at + 1])
