"""Detection of a Redis or Valkey server, of where its data lies, and whether it keeps it at all."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from safe_compose.core.backup import DatabaseStatistics, ServerStatistics
from safe_compose.core.observed import Container, Mount
from safe_compose.core.text import shell_quote
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.protocol import OwnFiles, ServerUnreachable, require_persistent
from safe_compose.databases.redis.client import ERROR, ErrorAnswer, RedisClient, asking
from safe_compose.databases.redis.info import (
    count_keys,
    find_product,
    list_sessions,
    list_warnings,
    parse_facts,
    parse_keyspace,
    read_version,
)
from safe_compose.databases.redis.login import log_in
from safe_compose.engine import Engine, StartConfiguration
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.errors import SafeComposeError
from safe_compose.volumes.helper_program import read_last_words

_SERVES = re.compile(r"redis|valkey|keydb")
_OTHERS = re.compile(r"exporter|commander|insight|sentinel|proxy|admin|ui$")
"""Parts of image names that contain a server's name and are no servers."""
_PLACES = ("/data", "/bitnami/redis", "/bitnami/valkey", "/var/lib/redis", "/var/lib/valkey")
_SETTINGS = (
    "dir",
    "dbfilename",
    "appendonly",
    "appendfilename",
    "appenddirname",
    "save",
    "shutdown-on-sigterm",
)
_PASSING = re.compile(r"temp-.*\.(?:rdb|aof)")
"""Files that exist while the server saves."""
_MEMORY_ONLY = re.compile(r"--save[\s=]+(?:''|\"\"|$)")
_SAVES = re.compile(r"--save[\s=]+['\"]?\d")
_SAVE_LINE = re.compile(r"^\s*save\s+(\S+)", re.M | re.IGNORECASE)
_SETS_APPENDING = re.compile(r"--appendonly[\s=]")
_APPENDING_LINE = re.compile(r"^\s*appendonly\s+['\"]?yes", re.M | re.IGNORECASE)
_APPENDS = re.compile(r"--appendonly[\s=]+['\"]?yes")


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A running server that lets us in and keeps its data in a volume."""

    container: Container
    client: RedisClient
    volume: str
    folder: str
    """The setting `dir`, relative to the volume's root; `.` is the root itself."""
    product: str
    """`Redis`, `Valkey` or `KeyDB`."""
    version: str
    settings: dict[str, str]
    facts: dict[str, str]
    """The answer to INFO."""
    databases: tuple[str, ...]
    foreign_sessions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def engine(self) -> Engine:
        """The engine that the server's container runs on."""
        return self.client.engine

    @property
    def at(self) -> EngineContainer:
        """The server's container, with its engine."""
        return EngineContainer(self.engine, self.container)

    @property
    def title(self) -> str:
        """Product and version, as in `Redis 7.0.15`."""
        return f"{self.product} {self.version}"

    @property
    def appends(self) -> bool:
        """Whether the server keeps an append-only file, which alone it loads when it starts."""
        return self.settings.get("appendonly") == "yes"

    @property
    def memory_only(self) -> bool:
        """Whether the server never saves by itself, so that its data is lost when it stops."""
        nosave = "nosave" in self.settings.get("shutdown-on-sigterm", "")
        return not self.appends and (not self.settings.get("save", "").strip() or nosave)

    @property
    def newer_than_6(self) -> bool:
        """Whether the append-only file is a folder of files with a manifest, as since Redis 7."""
        return "appenddirname" in self.settings

    def statistics(self, databases: tuple[DatabaseStatistics, ...]) -> ServerStatistics:
        """Return the statistics of the server for a backup's record."""
        names = ("dir", "dbfilename", "appendonly", "appendfilename", "appenddirname")
        settings = {name: self.settings[name] for name in names if name in self.settings}
        settings |= {"folder": self.folder, "server": f"{self.product.lower()}-server"}
        if modules := self.settings.get("modules"):
            settings["modules"] = modules
        return ServerStatistics(
            "redis", self.version, "default", pgdata="", databases=databases, settings=settings
        )


def is_server(container: Container) -> bool:
    """Return whether the image is one of a Redis or Valkey server."""
    name = container.image.rpartition("/")[2].partition("@")[0].partition(":")[0].lower()
    return _SERVES.search(name) is not None and _OTHERS.search(name) is None


def serves(container: Container, volume_name: str) -> bool:
    """Return whether image and mounts are those of a server with its data in that volume."""
    if not is_server(container):
        return False
    mounts = [m for m in container.mounts if m.location == volume_name]
    return any(
        _holds(m.destination, place) or _holds(place, m.destination)
        for m in mounts
        for place in _PLACES
    )


def server(at: EngineContainer) -> RedisServer:
    """Inspect the server in a running container.

    Raises:
        ServerUnreachable: The server does not answer, does not let us in, or gives no valid
            settings.
        OperationFailed: Its data does not lie in a volume.
    """
    client, container = log_in(at), at.container
    try:
        answers = client.answers(
            [*(f"CONFIG GET {name}" for name in _SETTINGS), "INFO", "MODULE LIST", "CLIENT LIST"]
        )
    except HelperFailed as error:
        raise ServerUnreachable(
            f"container {container.name}: the server does not answer: {read_last_words(error)}"
        ) from error
    settings = _settings(answers)
    facts = parse_facts(answers.get("INFO", ()))
    if wrong := _find_implausible(settings, facts):
        fault = next(
            (lines[0][:200] for lines in answers.values() if lines and ERROR.match(lines[0])), wrong
        )
        raise ServerUnreachable(
            f"container {container.name}: the server does not tell where it keeps its data"
            f" ({fault}); it was not dumped",
            next_step=f"stop it for the backup: docker stop {shell_quote(container.name)}",
        )
    mount = _mount(container, settings["dir"])
    mount = require_persistent(container, mount, settings["dir"])
    return RedisServer(
        container=container,
        client=client,
        volume=mount.location,
        folder=mount.inside(settings["dir"]),
        product=find_product(facts),
        version=read_version(facts),
        settings=settings,
        facts=facts,
        databases=tuple(d.name for d in count_keys(facts)),
        foreign_sessions=tuple(list_sessions(answers.get("CLIENT LIST", ()))),
        warnings=list_warnings(facts),
    )


def own_files(found: RedisServer) -> OwnFiles:
    """Return the files that the server is configured to write.

    Anything else in its folder (users, nodes of a cluster) is in no dump.
    """
    place = PurePosixPath(found.folder)
    files = [found.settings.get(name, "") for name in ("dbfilename", "appendfilename")]
    names = found.engine.archives.list_root(found.volume) or ()
    passing = [name for name in names if found.folder == "." and _PASSING.fullmatch(name)]
    folders = [found.settings["appenddirname"]] if found.appends and found.newer_than_6 else []
    return OwnFiles(
        tuple(str(place / name) for name in folders if name),
        tuple(str(place / name) for name in (*files, *passing) if name),
    )


def count(found: RedisServer) -> tuple[DatabaseStatistics, ...]:
    """Count the keys of every database of a running server.

    Raises:
        OperationFailed: The server does not answer.
    """
    with asking(found.container.name, "count its keys"):
        return parse_keyspace(found.client.ask("INFO", "keyspace"))


def summary(at: EngineContainer, *, timeout: float) -> str | None:
    """Describe a server as in `Redis 7.0.15, 2 databases, 1200 keys`; None if it does not answer.

    `timeout`: seconds for each question.
    """
    try:
        client = log_in(at, timeout=timeout)
        facts = parse_facts(client.answer("INFO", timeout=timeout).split("\n"))
    except (SafeComposeError, ErrorAnswer):
        return None
    if "redis_version" not in facts:
        return None
    counted = count_keys(facts)
    return (
        f"{find_product(facts)} {read_version(facts)}, {len(counted)} databases,"
        f" {sum(d.rows for d in counted)} keys"
    )


def is_memory_only(private: StartConfiguration, config: str = "") -> bool:
    """Return whether a server was told that nothing is ever written to the disk.

    `config` is the text of its configuration file, which its command line overrides.
    """
    words = private.argv
    bare = any(
        word == "--save" and after == ""
        for word, after in zip(words, (*words[1:], "-"), strict=True)
    )
    line = " ".join(words)
    saved = _SAVE_LINE.findall(config)
    emptied = bool(saved) and saved[-1] in ("''", '""') and not _SAVES.search(line)
    appends = (
        _APPENDS.search(line) if _SETS_APPENDING.search(line) else _APPENDING_LINE.search(config)
    )
    return (bare or bool(_MEMORY_ONLY.search(line)) or emptied) and not appends


def _settings(answers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Parse the answers to CONFIG GET, a name on a line and its value after it.

    The files of the loaded modules are added as `modules`.
    """
    found: dict[str, str] = {}
    for name in _SETTINGS:
        first, *rest = answers.get(f"CONFIG GET {name}", ()) or ("",)
        if first == name:
            found[name] = "\n".join(rest)
    if files := name_module_files(answers.get("INFO", ()), answers.get("MODULE LIST", ())):
        found["modules"] = files
    return found


def name_module_files(info: Sequence[str], listed: Sequence[str]) -> str:
    """Return the files of the modules that a server has loaded, with colons between them.

    `unknown` if one is not known, as before Redis 7. A module that is built in has none: its path
    is empty (Redis 8) or its own name (Valkey 9.1), and every server of the image has it.
    """
    loaded = [
        (listed[at + 1], listed[at + 5])
        for at in range(len(listed) - 5)
        if (listed[at], listed[at + 2], listed[at + 4]) == ("name", "ver", "path")
    ]
    files = [path for name, path in loaded if path not in ("", name)]
    known = len(loaded) == sum(line.startswith("module:") for line in info)
    return ":".join(files) if known and all(f.startswith("/") for f in files) else "unknown"


def _find_implausible(settings: Mapping[str, str], facts: Mapping[str, str]) -> str:
    """Describe an answer that no real server gives; empty if all are valid.

    Whoever may set `dir` and `dbfilename` of a server decides where a dump is looked for.
    """
    if "dir" not in settings or "redis_version" not in facts:
        return "no words"
    directory = PurePosixPath(settings["dir"])
    if not directory.is_absolute() or ".." in directory.parts or not _plain(settings["dir"]):
        return "its directory is none"
    names = [
        settings[name]
        for name in ("dbfilename", "appendfilename", "appenddirname")
        if name in settings
    ]
    return (
        ""
        if "dbfilename" in settings and all(map(is_file_name, names))
        else "the name of its file is none"
    )


def is_file_name(name: str) -> bool:
    """Return whether a name is that of a file within a folder, and not an option of a program."""
    return (
        _plain(name)
        and "/" not in name
        and name not in ("", ".", "..")
        and not name.startswith("-")
    )


def _plain(text: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Cs") for c in text)


def _mount(container: Container, directory: str) -> Mount | None:
    above = [m for m in container.mounts if _holds(m.destination, directory)]
    return max(above, key=lambda m: len(PurePosixPath(m.destination).parts), default=None)


def _holds(folder: str, path: str) -> bool:
    return PurePosixPath(path).is_relative_to(PurePosixPath(folder))
