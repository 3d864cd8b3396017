"""Which server it is, how we log in, where its data lies and whether it keeps it at all: asked by redis-cli in its container."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath

from safe_compose.artifacts import DatabaseStatistics, ServerStatistics, TableCount
from safe_compose.engine import Engine, HelperFailed, Private
from safe_compose.errors import BackupFailed, SafeComposeError
from safe_compose.methods.archive import last_words
from safe_compose.methods.database import Silent
from safe_compose.observed import Container, Mount

ASK_TIMEOUT = 60.0
"""Seconds for one small question, and for a server that is loading its data."""

LASTING = "keys"
EXPIRING = "expiring keys"
"""How the two are called among the tables of a database."""

_SERVES = re.compile(r"redis|valkey|keydb")
_OTHERS = re.compile(r"exporter|commander|insight|sentinel|proxy|admin|ui$")
"""Images that have the name in theirs and are no server."""
_PLACES = ("/data", "/bitnami/redis", "/bitnami/valkey", "/var/lib/redis", "/var/lib/valkey")

_SETTINGS = ("dir", "dbfilename", "appendonly", "appendfilename", "appenddirname", "save", "shutdown-on-sigterm")
_FAULT = re.compile(r"(?:ERR|NOAUTH|WRONGPASS|NOPERM|DENIED|LOADING|MISCONF|READONLY|BUSY|MASTERDOWN|NOREPLICAS|EXECABORT)\b")
"""How an answer begins that is an error: redis-cli ends with 0 all the same."""

_PASSWORD_OPTION = re.compile(r"--requirepass[\s=]+(?:'([^']+)'|\"([^\"]+)\"|([^\s'\"]+))")
_PASSWORD_LINE = re.compile(r"^\s*requirepass\s+(?:'([^']+)'|\"([^\"]+)\"|(\S+))\s*$", re.M)
_PASSWORD_NAME = re.compile(r"(?:REDIS|VALKEY|KEYDB)\w*(?:PASS|AUTH)\w*")
_PORT_OPTION = re.compile(r"--port[\s=]+(\d+)")
_PORT_LINE = re.compile(r"^\s*port\s+(\d+)\s*$", re.M)
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_MEMORY_ONLY = re.compile(r"--save[\s=]+(?:''|\"\"|$)")
_APPENDS = re.compile(r"--appendonly[\s=]+['\"]?yes")


class Answer(Exception):
    """The server answered with an error; its words."""


@dataclass(frozen=True, slots=True)
class Access:
    """How one server is asked."""

    container: str
    client: str = "redis-cli"
    port: int = 6379
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Server:
    """One server that runs, lets us in, and keeps its data in a volume."""

    container: Container
    access: Access
    volume: str
    folder: str
    """Its `dir` relative to the volume's root; `.` is the root itself."""
    product: str
    """`Redis`, `Valkey`, `KeyDB`"""
    version: str
    settings: dict[str, str]
    facts: dict[str, str]
    """What INFO said."""
    databases: tuple[str, ...]
    foreign_sessions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.product} {self.version}"

    @property
    def appends(self) -> bool:
        """It keeps an append-only file, and loads that alone when it starts."""
        return self.settings.get("appendonly") == "yes"

    @property
    def memory_only(self) -> bool:
        """It writes nothing by itself: what it holds is gone when it stops."""
        nosave = "nosave" in self.settings.get("shutdown-on-sigterm", "")
        return not self.appends and (not self.settings.get("save", "").strip() or nosave)

    @property
    def newer_than_6(self) -> bool:
        """The append-only file is a folder of files with a manifest."""
        return "appenddirname" in self.settings

    def statistics(self, databases: tuple[DatabaseStatistics, ...]) -> ServerStatistics:
        names = ("dir", "dbfilename", "appendonly", "appendfilename", "appenddirname")
        settings = {name: self.settings[name] for name in names if name in self.settings}
        settings |= {"folder": self.folder, "server": f"{self.product.lower()}-server"}
        if modules := self.settings.get("modules"):
            settings["modules"] = modules
        return ServerStatistics("redis", self.version, "default", pgdata="", databases=databases, settings=settings)


def serves(container: Container, volume_name: str) -> bool:
    """Whether, by its image and mounts, this is a Redis or Valkey server with its data in that volume."""
    name = container.image.rpartition("/")[2].partition("@")[0].partition(":")[0].lower()
    if not _SERVES.search(name) or _OTHERS.search(name):
        return False
    mounts = [m for m in container.mounts if m.type == "volume" and m.name == volume_name]
    return any(_holds(m.destination, place) or _holds(place, m.destination) for m in mounts for place in _PLACES)


def server(engine: Engine, container: Container) -> Server:
    """Find out all about the server in a running container.

    Raises Silent when it does not answer or does not let us in, BackupFailed when its data lies in no volume.
    """
    access = log_in(engine, container)
    words = [*(f"CONFIG GET {name}" for name in _SETTINGS), "INFO", "MODULE LIST", "CLIENT LIST"]
    try:
        said = _client(engine, access, (), stdin="\n".join(words))
    except HelperFailed as error:
        raise Silent(f"container {container.name}: the server does not answer: {last_words(error)}") from error
    lines = said.split("\n")
    settings = _settings(lines)
    facts = _facts(lines)
    if "dir" not in settings or "redis_version" not in facts:
        fault = next((line for line in lines if _FAULT.match(line)), "no words")
        raise Silent(
            f"container {container.name}: the server does not tell where it keeps its data ({fault}); it was not dumped",
            next_step=f"stop it for the backup: docker stop {container.name}",
        )
    mount = _mount(container, settings["dir"])
    if mount is None or mount.type != "volume" or mount.name is None:
        raise BackupFailed(
            f"container {container.name}: its data directory {settings['dir']} lies in no volume; nothing was dumped",
            next_step=f"docker inspect {container.name}",
        )
    return Server(
        container=container,
        access=access,
        volume=mount.name,
        folder=str(PurePosixPath(settings["dir"]).relative_to(mount.destination)),
        product=_product(facts),
        version=facts.get("valkey_version") or facts["redis_version"],
        settings=settings,
        facts=facts,
        databases=tuple(name.removeprefix("db") for name in facts if re.fullmatch(r"db\d+", name)),
        foreign_sessions=tuple(_sessions(lines)),
        warnings=_warnings(facts),
    )


def count(engine: Engine, found: Server) -> tuple[DatabaseStatistics, ...]:
    """The keys of every database of a running server now. Raises BackupFailed."""
    with asking(found.container.name, "count its keys"):
        return keyspace(ask(engine, found.access, "INFO", "keyspace"))


def summary(engine: Engine, container: Container, *, timeout: float) -> str | None:
    """`Redis 7.0.15, 2 databases, 1200 keys`; None when it cannot be told. `timeout`: seconds for each question."""
    try:
        access = log_in(engine, container, timeout=timeout)
        facts = _facts(_client(engine, access, ("INFO",), timeout=timeout).split("\n"))
    except (SafeComposeError, Answer):
        return None
    if "redis_version" not in facts:
        return None
    counted = _keyspace(facts)
    version = facts.get("valkey_version") or facts["redis_version"]
    return f"{_product(facts)} {version}, {len(counted)} databases, {sum(d.rows for d in counted)} keys"


def database(number: int | str, lasting: int, expiring: int) -> DatabaseStatistics:
    """The keys of one database; the two tables are disjoint, so that its rows are all its keys."""
    tables = [TableCount("", LASTING, lasting)]
    if expiring:
        tables.append(TableCount("", EXPIRING, expiring))
    return DatabaseStatistics(str(number), 0, tuple(tables))


def keyspace(info: str) -> tuple[DatabaseStatistics, ...]:
    """What `INFO keyspace` says."""
    return _keyspace(_facts(info.split("\n")))


def differences(wanted: Sequence[DatabaseStatistics], found: Sequence[DatabaseStatistics]) -> str:
    """What is not as it was counted, in words; keys that expire may be fewer. Empty when it is all there."""
    then, now = {d.name: d for d in wanted}, {d.name: d for d in found}
    wrong = []
    for name in sorted({*then, *now}, key=int):
        most = then[name].rows if name in then else 0
        least = sum(t.rows for t in then[name].tables if t.table == LASTING) if name in then else 0
        have = now[name].rows if name in now else 0
        if not least <= have <= most:
            wrong.append(f"database {name} has {have} keys, {most} were counted")
    return "; ".join(wrong)


def visibly_memory_only(private: Private) -> bool:
    """Its command line alone says that nothing is ever written to the disk."""
    words = private.argv
    bare = any(word == "--save" and after == "" for word, after in zip(words, (*words[1:], "-"), strict=True))
    line = " ".join(words)
    return (bare or bool(_MEMORY_ONLY.search(line))) and not _APPENDS.search(line)


# -- asking ------------------------------------------------------------------------------------------------------------


def ask(engine: Engine, access: Access, *words: str, timeout: float | None = ASK_TIMEOUT) -> str:
    """The answer to one command. Raises Answer for an error of the server's, HelperFailed where it cannot be reached."""
    said = _client(engine, access, words, timeout=timeout).removesuffix("\n")
    if _FAULT.match(said):
        raise Answer(said.splitlines()[0][:200])
    return said


def ask_facts(engine: Engine, access: Access) -> dict[str, str]:
    """INFO, as a table."""
    return _facts(ask(engine, access, "INFO").split("\n"))


@contextmanager
def asking(subject: str, stage: str) -> Iterator[None]:
    """Name container, stage and cause when a command fails."""
    try:
        yield
    except HelperFailed as error:
        raise BackupFailed(f"{subject}: {stage}: {last_words(error)}", next_step=error.next_step) from error
    except Answer as error:
        raise BackupFailed(f"{subject}: {stage}: {error}", next_step=f"docker logs --tail 20 {subject}") from error


def environment(access: Access) -> dict[str, str]:
    """Handed over by name; never on an argv."""
    return {} if access.password is None else {"REDISCLI_AUTH": access.password}


def client_words(access: Access) -> tuple[str, ...]:
    return (access.client, "-p", str(access.port))


def _client(
    engine: Engine, access: Access, words: Sequence[str], *, stdin: str | None = None, timeout: float | None = ASK_TIMEOUT
) -> str:
    given = stdin.encode() if stdin is not None else None
    argv = (*client_words(access), *words)
    said = engine.execute(access.container, argv, stdin=given, environment=environment(access), timeout=timeout)
    return said.decode("utf-8", "replace").replace("\r", "")


def log_in(engine: Engine, container: Container, *, timeout: float = ASK_TIMEOUT) -> Access:
    """A way in that the server takes: no password, then what the container was started with. Raises Silent."""
    if container.state != "running":
        raise Silent(f"container {container.name}: the server does not run ({container.state})")
    private = engine.private(container.id)
    config = _config(engine, container, private)
    port = _port(private, config)
    client = "redis-cli"
    cause = ""
    until = time.monotonic() + timeout
    for password in _passwords(engine, container, private, config):
        while True:
            try:
                if (said := ask(engine, Access(container.id, client, port, password), "PING", timeout=timeout)) == "PONG":
                    return Access(container.id, client, port, password)
                cause = f"it answered PING with {said[:60]!r}"
            except HelperFailed as error:
                cause = last_words(error)
                if error.returncode in (126, 127) and client == "redis-cli":
                    client = "valkey-cli"
                    continue
            except Answer as answer:
                cause = str(answer)
                if cause.startswith("LOADING") and time.monotonic() < until:
                    time.sleep(0.2)  # between two questions; the end is bounded
                    continue
            break
    raise Silent(
        f"container {container.name}: the server does not let us in: {cause}; it was not dumped",
        next_step=f"set REDISCLI_AUTH to its password in the container's environment, or stop it: docker stop {container.name}",
    )


def _passwords(engine: Engine, container: Container, private: Private, config: str) -> Iterator[str | None]:
    """None first: the container's own REDISCLI_AUTH counts then. At most eight, because a server may note each failure."""
    yield None
    found: list[str] = []
    line = " ".join(private.argv)
    after = [word for before, word in zip(private.argv, private.argv[1:], strict=False) if before == "--requirepass"]
    found += after
    for match in (*_PASSWORD_OPTION.finditer(line), *_PASSWORD_LINE.finditer(config)):
        found.append(next(group for group in match.groups() if group is not None))
    for name, value in sorted(private.environment.items()):
        if _PASSWORD_NAME.match(name) and value:
            found += [_file(engine, container, value).strip("\r\n")] if name.endswith("_FILE") else [value]
    resolved = (_VARIABLE.sub(lambda m: private.environment.get(m[1], m[0]), word) for word in found)
    yield from list(dict.fromkeys(word for word in (*after, *resolved) if word))[:8]


def _port(private: Private, config: str) -> int:
    match = _PORT_OPTION.search(" ".join(private.argv)) or _PORT_LINE.search(config)
    named = next((v for k in ("REDIS_PORT_NUMBER", "VALKEY_PORT_NUMBER") if (v := private.environment.get(k, "")).isdigit()), "")
    return int(match[1] if match else named or 6379)


def _config(engine: Engine, container: Container, private: Private) -> str:
    """The configuration file that its command line names, as text; empty where there is none."""
    path = next((word for word in " ".join(private.argv).split() if word.endswith(".conf")), None)
    return _file(engine, container, path) if path else ""


def _file(engine: Engine, container: Container, path: str) -> str:
    try:
        return engine.execute(container.id, ("cat", path), timeout=ASK_TIMEOUT).decode("utf-8", "replace")
    except HelperFailed:
        return ""  # then its password is not known from there


# -- reading answers ---------------------------------------------------------------------------------------------------


def _settings(lines: Sequence[str]) -> dict[str, str]:
    """What CONFIG GET said, each name on a line and its value on the next; and the files of the loaded modules."""
    found: dict[str, str] = {}
    at = 0
    while at < len(lines) - 1 and not lines[at].startswith("# "):
        if lines[at] in _SETTINGS:
            found[lines[at]] = lines[at + 1]
            at += 1
        at += 1
    paths = [after for line, after in pairwise(lines) if line == "path" and after.startswith("/")]
    if any(line.startswith("module:") for line in lines):
        found["modules"] = ":".join(paths) or "unknown"
    return found


def _facts(lines: Sequence[str]) -> dict[str, str]:
    """The `name:value` lines of INFO."""
    return {m[1]: m[2] for line in lines if (m := re.fullmatch(r"(\w+):(.*)", line))}


def _keyspace(facts: dict[str, str]) -> tuple[DatabaseStatistics, ...]:
    found = []
    for name, value in facts.items():
        if re.fullmatch(r"db\d+", name):
            numbers = {k: int(v) for k, _, v in (part.partition("=") for part in value.split(",")) if v.isdigit()}
            keys = numbers.get("keys", 0)
            expiring = min(keys, numbers.get("expires", 0) + numbers.get("subexpiry", 0))
            found.append(database(name.removeprefix("db"), keys - expiring, expiring))
    return tuple(found)


def _sessions(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        if re.match(r"id=\d+ addr=", line):
            facts = dict(part.partition("=")[::2] for part in line.split(" "))
            if not facts.get("cmd", "").startswith("client"):
                yield f"{facts.get('name') or facts.get('user') or 'a client'} from {facts.get('addr', '?')}"


def _product(facts: dict[str, str]) -> str:
    if facts.get("server_name") == "valkey" or "valkey_version" in facts:
        return "Valkey"
    return "KeyDB" if "keydb" in facts.get("executable", "") else "Redis"


def _warnings(facts: dict[str, str]) -> tuple[str, ...]:
    found = []
    if facts.get("role") == "slave":
        found.append("it is a replica: its primary may hold more")
    if facts.get("cluster_enabled") == "1":
        found.append("it is one node of a cluster: the others are not in this backup unless their volumes are")
    return tuple(found)


def _mount(container: Container, directory: str) -> Mount | None:
    above = [m for m in container.mounts if _holds(m.destination, directory)]
    return max(above, key=lambda m: len(PurePosixPath(m.destination).parts), default=None)


def _holds(folder: str, path: str) -> bool:
    return PurePosixPath(path).is_relative_to(PurePosixPath(folder))
