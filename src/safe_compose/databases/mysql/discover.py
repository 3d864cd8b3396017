"""Detection of a MySQL or MariaDB server, of a login to it, and of where its data lies."""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from safe_compose.core.backup import MYSQL_SETTINGS
from safe_compose.core.observed import Container, Mount, describe_location
from safe_compose.core.text import shell_quote
from safe_compose.databases.client import (
    ANSWER_LIMIT,
    ask_timeout,
    summary_words,
    time_left,
)
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.mysql.client import MysqlClient, MysqlSession, naming_client_fault
from safe_compose.databases.mysql.login import logins
from safe_compose.databases.mysql.write_counter import SESSIONS
from safe_compose.databases.protocol import (
    OwnFiles,
    ServerUnreachable,
    report_other_server,
    require_persistent,
    understanding,
)
from safe_compose.engine import Engine
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.errors import OperationFailed, SafeComposeError
from safe_compose.volumes.helper_program import read_last_words

FOLDER = "/var/lib/mysql"
"""Default data directory of every image."""
_USUAL_FOLDERS = (FOLDER, "/bitnami/mariadb", "/bitnami/mysql", "/config")
_PACKED = re.compile(r"mysql|mariadb|percona")
_VERSIONS = ("MARIADB_VERSION", "MYSQL_VERSION")
SYSTEM = ("information_schema", "mysql", "ndbinfo", "performance_schema", "sys")
_NEEDED = frozenset({"SELECT", "RELOAD", "PROCESS", "LOCK TABLES", "SHOW VIEW", "EVENT", "TRIGGER"})
"""Global privileges without which a dump would silently be incomplete."""


@dataclass(frozen=True, slots=True)
class MysqlServer:
    """A running database server that answers and keeps its data in a volume."""

    container: Container
    client: MysqlClient
    volume: str
    kind: str
    """`mariadb` or `mysql`."""
    data_directory: str
    """Path within the container, without a trailing slash."""
    version: str
    """As in `10.11.19`."""
    databases: tuple[str, ...]
    """Databases that are not the server's own."""
    own: tuple[str, ...] = SYSTEM
    """The server's own databases."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings without which another server cannot serve the same files."""
    temporary: str = "ibtmp1"
    """The file of temporary tables, which a clean stop removes."""
    foreign_sessions: tuple[str, ...] = ()
    """Other connected clients, described in words."""
    warnings: tuple[str, ...] = ()
    inside: str = "."
    """The data directory relative to the volume's root."""
    part: bool = False
    """Only a part of the volume is mounted there."""
    in_folder: bool = False
    """`volume` is a folder of the host that is mounted there: it can be dumped, not archived."""

    @property
    def title(self) -> str:
        """Product and version, as in `MariaDB 10.11.19`."""
        return f"{_brand(self.kind)} {self.version}"

    @property
    def engine(self) -> Engine:
        """The engine that the server's container runs on."""
        return self.client.engine

    @property
    def at(self) -> EngineContainer:
        """The server's container, with its engine."""
        return EngineContainer(self.engine, self.container)

    @property
    def user(self) -> str:
        """The account that lets us in."""
        return self.client.login.user


def data_mount(container: Container, data_directory: str | None = None) -> Mount | None:
    """Return the deepest mount that holds a container's data directory; None if there is none."""
    for folder in (data_directory,) if data_directory is not None else _USUAL_FOLDERS:
        above = [m for m in container.mounts if PurePosixPath(folder).is_relative_to(m.destination)]
        if above:
            return max(above, key=lambda m: len(PurePosixPath(m.destination).parts))
    return None


def is_server(container: Container) -> bool:
    """Return whether the image is one of a MySQL or MariaDB server."""
    name = container.image.rpartition("/")[2].partition("@")[0].lower()
    return _PACKED.search(name) is not None or any(v in container.environment for v in _VERSIONS)


def serves(container: Container, volume_name: str) -> bool:
    """Return whether image and mounts are those of a server with its data in that volume."""
    if not is_server(container):
        return False
    mount = data_mount(container)
    return mount is not None and mount.location == volume_name and not mount.read_only


def own_files(found: MysqlServer) -> OwnFiles:
    """Return the data directory, and the paths in it that a server creates."""
    return OwnFiles((found.inside,), known=_OWN_PATHS)


_OWN_PATHS = re.compile(
    r"(?:mysql|performance_schema|sys|#\w+|lost\+found)/.*|ibdata\d+|ib_\w+|ibtmp\d+|undo_?\d+"
    r"|mysql\.ibd|#ib_.*|aria_log.*|(?:auto|mysqld-auto|\.my-healthcheck)\.cnf|(?:mysql|mariadb)\w*_info"
    r"|(?:grastate|gvwstate)\.dat|galera\.cache|(?:mysql|mariadb)_upgrade\w*|ddl_recovery.*|\.my-healthcheck.*"
    r"|[^/]*\.(?:\d{6,}|index|state|info|pem|pid|err|log|sock|flag|lock|dblwr|idx)"
    r"|[^/]+/(?:db\.opt|[^/]+\.(?:frm|ibd|ibt|isl|sdi|cfg|cfp|par|opt|MY[DI]|MA[DI]|MRG|TRG|TRN|CS[MV]"
    r"|AR[MNZ]|fts|hlindex))",
    re.DOTALL,
)
"""Files that MySQL, MariaDB and their storage engines create in a data directory."""


_VARIABLES = (
    "version", "datadir", "socket", "port", "innodb_data_home_dir", "innodb_log_group_home_dir",
    "innodb_undo_directory", "innodb_temp_data_file_path", "innodb_page_size",
    "innodb_data_file_path", "lower_case_table_names",
)  # fmt: skip
_RIGHTS = (
    "SELECT PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES WHERE GRANTEE = CONCAT('\\'',"
    " LEFT(CURRENT_USER(), LENGTH(CURRENT_USER()) - LENGTH(SUBSTRING_INDEX(CURRENT_USER(), '@',"
    " -1)) - 1), '\\'@\\'', SUBSTRING_INDEX(CURRENT_USER(), '@', -1), '\\'');"
)
_LOST = (
    ("loadable functions", "SELECT COUNT(*) FROM mysql.func;"),
    ("plugins that were installed by a statement", "SELECT COUNT(*) FROM mysql.plugin;"),
    ("servers of federated tables", "SELECT COUNT(*) FROM mysql.servers;"),
    (
        "accounts for names of hosts, which the server does not load (skip_name_resolve),",
        "SELECT IF(@@skip_name_resolve, COUNT(*), 0) FROM mysql.user WHERE Host <> 'localhost'"
        " AND Host NOT LIKE '%:%' AND Host RLIKE '[^%_./0-9]';",
    ),
)


def contact(at: EngineContainer, timeout: Callable[[], float] = ask_timeout) -> MysqlClient:
    """Return a client that the server lets in, tried by exec.

    `timeout`: seconds for the next question; it may raise ServerUnreachable.

    Raises:
        ServerUnreachable: The server refuses all accounts; the message has its answer to each.
    """
    causes = []
    try:
        accounts = logins(at.engine.docker.private(at.container.id).environment)
    except SafeComposeError as error:
        raise ServerUnreachable(error.message) from error
    for prefix in ("mariadb", "mysql"):
        for login in accounts:
            client = MysqlClient(at.engine, at.container.id, at.container.image_id, login, prefix)
            try:
                rows = client.ask(
                    "SELECT @@socket, @@port, @@version, @@character_set_results", timeout=timeout()
                )
                with understanding("it"):
                    socket, port, version, charset = rows[0]
                    client = replace(
                        client,
                        socket=socket,
                        port=int(port),
                        kind=find_product(version),
                        charset=charset,
                    )
                rights = {row[0] for row in client.ask(_RIGHTS, timeout=timeout())}
            except ServerUnreachable as unreachable:
                causes.append(f"{login.words}: {unreachable.message}")
                continue
            except HelperFailed as error:
                if error.returncode in (126, 127):
                    causes.append(f"its image has no program {prefix}")
                    break  # no other account would find it
                causes.append(f"{login.words}: {read_last_words(error)}")
                continue
            if missing := sorted(_NEEDED - rights):
                causes.append(f"{login.words}: it has no right to {', '.join(missing)} everywhere")
                continue
            return client
    raise ServerUnreachable(
        "the database server lets us in by no account that its settings name:"
        f" {'; '.join(dict.fromkeys(causes))}",
        next_step="let the variable of its root password say what the password is",
    )


def _connect(at: EngineContainer) -> MysqlClient:
    """Return a client of the server in a running container, by exec.

    Raises:
        ServerUnreachable: The server lets us in by no account, or a dump would lose text.
    """
    container = at.container
    if container.state != "running":
        raise ServerUnreachable(
            f"container {container.name}: the database does not run ({container.state})"
        )
    try:
        client = contact(at)
    except ServerUnreachable as unreachable:
        raise ServerUnreachable(
            f"container {container.name}: {unreachable.message}; it was not dumped",
            next_step=f"docker logs --tail 20 {shell_quote(container.name)}",
        ) from unreachable
    # In any other character set, missing characters become question marks, with the same counts
    # (run on MariaDB 10.11).
    if client.charset != "utf8mb4":
        raise ServerUnreachable(
            f"container {container.name}: its server answers every client in {client.charset},"
            " whatever that asks for (skip-character-set-client-handshake, init_connect): a dump"
            " would lose characters; it was not dumped",
            next_step=(
                "start the server without that option, or stop it for the backup: "
                f"docker stop {shell_quote(container.name)}"
            ),
        )
    return client


def server(at: EngineContainer) -> MysqlServer:
    """Inspect the server in a running container.

    A side container is used if it verifiably reaches the same server.

    Raises:
        ServerUnreachable: The server does not answer or is too old.
        OperationFailed: Its data does not lie in one volume alone.
    """
    client, container = _connect(at), at.container
    proof = f"safe-compose-{secrets.token_hex(12)}"
    with (
        naming_client_fault(container.name, "ask the server"),
        client.session() as asked,
        understanding(container.name),
    ):
        [values] = asked.rows(f"SELECT {', '.join('@@' + v for v in _VARIABLES)};")[:1]
        facts = dict(zip(_VARIABLES, values, strict=True))
        version, kind = (
            _require_supported_version(container, facts["version"], client.kind),
            client.kind,
        )
        own = tuple(
            name for name in SYSTEM if name != "sys" or kind == "mysql" or version >= (10, 6)
        )
        databases = list_databases(asked, own)
        foreign = tuple(_in_words(*row) for row in asked.rows(SESSIONS))
        warnings = tuple(_list_undumped(asked))
        far = [row[0] for row in asked.rows(_FAR)] if kind == "mysql" and version >= (8, 0) else []
        asked.rows(f"SELECT GET_LOCK('{proof}', 0);")
        client = _use_side_container(container, client, proof)
    directory = facts["datadir"].rstrip("/")
    mount = require_persistent(container, data_mount(container, directory), directory)
    volume = mount.name or mount.source
    _refuse_outside(at, volume, directory, facts, far)
    return MysqlServer(
        container=container,
        client=client,
        volume=volume,
        in_folder=mount.type == "bind",
        kind=kind,
        data_directory=directory,
        inside=mount.inside(directory),
        part=bool(mount.subpath),
        version=".".join(map(str, version)),
        databases=databases,
        own=own,
        settings={name: facts[name] for name in MYSQL_SETTINGS},
        temporary=PurePosixPath(facts["innodb_temp_data_file_path"].partition(":")[0]).name,
        foreign_sessions=foreign,
        warnings=warnings,
    )


def _require_supported_version(container: Container, version: str, kind: str) -> tuple[int, ...]:
    """Return the parsed version of a server that can be dumped with its accounts.

    Raises:
        ServerUnreachable: It is too old.
    """
    found = parse_version(version)
    if found < ((10, 2) if kind == "mariadb" else (5, 7)):
        raise ServerUnreachable(
            f"container {container.name}: {version} is too old to be dumped with its accounts"
        )
    return found


def _list_undumped(asked: MysqlSession) -> Iterator[str]:
    """Yield a warning for each kind of content that no dump holds."""
    for name, sql in _LOST:
        if (number := asked.value(sql)) != "0":
            yield f"{number} {name} are in no dump"
    if prepared := len(asked.rows("XA RECOVER;")):
        yield f"{prepared} prepared (XA) transactions are in no dump"


_FAR = "SELECT PATH FROM information_schema.INNODB_DATAFILES WHERE PATH LIKE '/%';"


def find_product(version: str) -> str:
    """Return the product of a version: `10.11.19-MariaDB-0+deb12u1` -> `mariadb`."""
    return "mariadb" if "mariadb" in version.lower() else "mysql"


def parse_version(version: str) -> tuple[int, ...]:
    """Parse a version: `10.11.19-MariaDB-0+deb12u1` -> (10, 11, 19).

    Some servers print `5.5.5-10.6.1-MariaDB`.
    """
    numbers = re.match(r"(?:5\.5\.5-)?(\d+)\.(\d+)\.(\d+)", version)
    return tuple(map(int, numbers.groups())) if numbers else (0,)


def list_databases(asked: MysqlSession, own: Sequence[str]) -> tuple[str, ...]:
    """Return the databases of a server but its own."""
    sql = (
        "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE LOWER(SCHEMA_NAME) NOT IN"
        f" ({_list(own)}) ORDER BY 1;"
    )
    return tuple(row[0] for row in asked.rows(sql))


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _in_words(user: str, host: str, database: str, _: str) -> str:
    where = "the socket" if host in ("", "localhost") else host.rpartition(":")[0] or host
    return f"{user} in {database or 'no database'} from {where}"


def _use_side_container(container: Container, client: MysqlClient, proof: str) -> MysqlClient:
    """Return a client of the same server in a side container, if that really is the same server.

    A session over the socket holds a lock, and only a client of the same server sees it. If the
    side container cannot log in, the client is returned unchanged.

    Raises:
        ServerUnreachable: Another container's server answered at the socket.
    """
    side = replace(client, side=True)
    try:
        seen = side.ask(f"SELECT IS_USED_LOCK('{proof}') IS NOT NULL")
    except HelperFailed:
        # There is no TCP, or no such account over it: exec over the socket is the verified
        # connection.
        return client
    if seen != [("1",)] and container.is_alone_at_its_ports:
        raise report_other_server(container)
    return side if seen == [("1",)] else client


def _refuse_outside(
    at: EngineContainer,
    volume: str,
    directory: str,
    facts: dict[str, str],
    far: Sequence[str],
) -> None:
    """Require that no part of the data lies outside of the data directory.

    An archive of the volume would not be a complete database otherwise.

    Raises:
        OperationFailed: Some data lies elsewhere.
    """
    outside = []
    for variable in ("innodb_data_home_dir", "innodb_log_group_home_dir", "innodb_undo_directory"):
        place = facts[variable]
        if place not in ("", "NULL") and not (PurePosixPath(directory) / place).is_relative_to(
            directory
        ):
            outside.append(f"{variable} is {place}")
    outside += [
        f"table {path}" for path in far if not PurePosixPath(path).is_relative_to(directory)
    ]
    argv = (
        "find",
        directory,
        "-xdev",
        "-mindepth",
        "2",
        "(",
        "-name",
        "*.isl",
        "-o",
        "-type",
        "l",
        ")",
        "-print",
    )
    with suppress(HelperFailed):  # no find in that image: the test restore would detect it
        answer = at.execute(*argv, limit=ANSWER_LIMIT)
        links = answer.decode("utf-8", "replace").splitlines()
        outside += [f"{link} points to another place" for link in links]
    if outside:
        raise OperationFailed(
            f"{describe_location(volume)}: the database of {at.name} also lives outside of it:"
            f" {', '.join(outside[:3])}; that cannot be backed up yet, nothing was dumped",
            next_step="move it into the data directory, or back it up by your own means",
        )


def summary(at: EngineContainer, *, timeout: float) -> str | None:
    """Describe a server as in `MariaDB 10.11.19, 3 databases, 41 tables, about 1.2 M rows`.

    The numbers are the server's estimates, asked by exec only. `timeout`: seconds for all questions
    together.

    Returns:
        None if the server does not answer.
    """
    names = _list(SYSTEM)
    sql = (
        "SELECT @@version, (SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE"
        f" LOWER(SCHEMA_NAME) NOT IN ({names})), COUNT(*), COALESCE(SUM(TABLE_ROWS), 0) FROM"
        " information_schema.TABLES WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND"
        f" LOWER(TABLE_SCHEMA) NOT IN ({names})"
    )
    left = time_left(at.name, timeout)
    if at.container.state != "running":
        return None
    try:
        client = contact(at, left)
        answer = client.ask(sql, timeout=left())
        with understanding(at.name):
            version, *numbers = answer[0]
            databases, tables, rows = map(int, numbers)
    except SafeComposeError:
        return None
    return summary_words(
        f"{_brand(client.kind)} {'.'.join(map(str, parse_version(version)))}",
        databases,
        tables,
        rows,
    )


def _brand(kind: str) -> str:
    return "MariaDB" if kind == "mariadb" else "MySQL"
