"""Which server it is, where its data lies, and how it is asked: recognised, logged in to, proved, then talked to by its client.

The client runs in a side container of the service's own image that shares its network, once that is proved to reach the same
server; else as one bare program by exec over the socket, never a shell. A password stands in no argv, no log and no value of
ours that outlives a call: it is read anew for each connection and handed over as MYSQL_PWD by name.

MariaDB was tried; what is said of MySQL is from its documentation.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import IO

from safe_compose.engine import Engine, Helper, HelperFailed, Stream
from safe_compose.errors import BackupFailed, SafeComposeError
from safe_compose.methods.archive import last_words
from safe_compose.methods.database import Silent, another, lasting
from safe_compose.observed import Container, Mount

ASK_TIMEOUT = 60.0
"""Seconds for one small question."""
FOLDER = "/var/lib/mysql"
"""Where every image keeps its data unless it says otherwise."""

_USUAL_FOLDERS = (FOLDER, "/bitnami/mariadb", "/bitnami/mysql", "/config")
_PACKED = re.compile(r"mysql|mariadb|percona")
_VERSIONS = ("MARIADB_VERSION", "MYSQL_VERSION")
SYSTEM = ("information_schema", "mysql", "ndbinfo", "performance_schema", "sys")
_NEEDED = frozenset({"SELECT", "RELOAD", "PROCESS", "LOCK TABLES", "SHOW VIEW", "EVENT", "TRIGGER"})
"""Rights on everything, without which a dump would silently lack something."""
_LOG_LIMIT = 4 << 20
_GENERATED = re.compile(rb"GENERATED ROOT PASSWORD: ([^\r\n]+)")
_LOGGED = "the first start's log"


@dataclass(frozen=True, slots=True)
class Login:
    """An account, and where its password is to be found each time; never the password."""

    user: str = "root"
    source: str = "none"
    """`none` (empty, or let in as root of the system by the socket), `environment`, `file`, `log`, `given` (by who changes it)."""
    place: str = ""
    """The name of the variable, the path of the file in the container, the place in `given`."""

    @property
    def words(self) -> str:
        where = {"none": "without a password", "given": "with a given password", "log": f"with the password of {_LOGGED}"}
        return f"{self.user} {where.get(self.source) or f'with the password of {self.place}'}"


@dataclass(frozen=True, slots=True)
class Address:
    """How one server is reached."""

    container: str
    """The container's id."""
    image: str
    """Its image's id: where side containers come from."""
    login: Login = Login()
    prefix: str = "mariadb"
    """`mariadb` where the image has `mariadb` and `mariadb-dump`, else `mysql`."""
    socket: str = ""
    """Empty while only the client's own configuration knows it."""
    port: int = 3306
    side: bool = False
    """By a side container over 127.0.0.1; else by exec over the socket."""
    kind: str = "mariadb"
    """What the server is: `mariadb` or `mysql`."""

    @property
    def dumper(self) -> str:
        return "mariadb-dump" if self.prefix == "mariadb" else "mysqldump"

    def client(self, *options: str) -> tuple[str, ...]:
        """The argv of a client that reads statements and answers with lines."""
        return (self.prefix, *self.options(), "--batch", "--skip-column-names", "--unbuffered", *options)

    def options(self) -> tuple[str, ...]:
        """How a client program connects. No configuration file has a say once the socket is known."""
        if self.side:
            # The client of MariaDB 11.4 wants a certificate, one of MySQL 8 the server's key; this is the container's own loopback.
            way = ["--host=127.0.0.1", f"--port={self.port}", "--protocol=tcp"]
            way += ["--loose-skip-ssl-verify-server-cert", "--loose-get-server-public-key"]
        else:
            way = ["--host=localhost", "--protocol=socket", *([f"--socket={self.socket}"] if self.socket else [])]
        mine = ("--no-defaults",) if self.socket else ()
        return (*mine, *way, f"--user={self.login.user}", "--default-character-set=utf8mb4", "--max-allowed-packet=1G")


@dataclass(frozen=True, slots=True)
class Server:
    """One database server that runs, answers, and keeps its data in a volume."""

    container: Container
    address: Address
    volume: str
    kind: str
    """`mariadb` or `mysql`."""
    data_directory: str
    """Within the container, without a slash at its end."""
    version: str
    """`10.11.19`"""
    databases: tuple[str, ...]
    """Those that are not the server's own."""
    own: tuple[str, ...] = SYSTEM
    """Those that are."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Those without which another server cannot serve the same files."""
    temporary: str = "ibtmp1"
    """The file of temporary tables, which a clean stop removes."""
    foreign_sessions: tuple[str, ...] = ()
    """Clients that are connected besides us, in words."""
    warnings: tuple[str, ...] = ()
    in_folder: bool = False
    """`volume` is a folder of the host, mounted there: it can be dumped, not archived."""

    @property
    def title(self) -> str:
        return f"{'MariaDB' if self.kind == 'mariadb' else 'MySQL'} {self.version}"

    @property
    def user(self) -> str:
        return self.address.login.user


@dataclass(frozen=True, slots=True)
class Reading:
    """A look at what moves with every write: InnoDB's transaction counter, and how many statements ran that can change
    something. Equal ones mean that nobody wrote in between, given that nobody was at work at the first look."""

    transactions: str
    commands: int
    busy: bool
    """Another session was within a statement or a transaction, or applied what another server wrote."""

    def still(self, later: "Reading") -> bool:
        """Whether nothing at all was written between this reading and a later one."""
        return not self.busy and (self.transactions, self.commands) == (later.transactions, later.commands)


def data_mount(container: Container, data_directory: str | None = None) -> Mount | None:
    """The mount of a container under which the data directory lies (the deepest one), or None."""
    for folder in (data_directory,) if data_directory is not None else _USUAL_FOLDERS:
        above = [m for m in container.mounts if PurePosixPath(folder).is_relative_to(m.destination)]
        if above:
            return max(above, key=lambda m: len(PurePosixPath(m.destination).parts))
    return None


def serves(container: Container, volume_name: str) -> bool:
    """Whether, by its image and mounts, this is a MySQL or MariaDB server with its data in that volume."""
    name = container.image.rpartition("/")[2].partition("@")[0].lower()
    if not (_PACKED.search(name) or any(v in container.environment for v in _VERSIONS)):
        return False
    mount = data_mount(container)
    return mount is not None and mount.type == "volume" and mount.name == volume_name and not mount.read_only


# -- logging in --------------------------------------------------------------------------------------------------------


given: list[tuple[str, str]] = []
"""(account, password) that `password.knowing` lets sessions try, while a password changes: the container's own is no help then."""


def logins(engine: Engine, container_id: str) -> tuple[Login, ...]:
    """The accounts to try, the likeliest first, by what the variables of the official images say (`_FILE` ones too)."""
    told = {name: value for name, value in engine.private(container_id).environment.items() if value}
    found = []
    for brand in ("MARIADB", "MYSQL"):
        root = told.get(f"{brand}_ROOT_USER", "root")
        found += _passworded(told, root, f"{brand}_ROOT_PASSWORD")
    found.append(Login())
    if any(f"{brand}_RANDOM_ROOT_PASSWORD" in told for brand in ("MARIADB", "MYSQL")):
        found.append(Login("root", "log"))
    for brand in ("MARIADB", "MYSQL"):
        if user := told.get(f"{brand}_USER"):
            found += _passworded(told, user, f"{brand}_PASSWORD")
    found += [Login(user, "given", str(place)) for place, (user, _) in enumerate(given)]
    return tuple(dict.fromkeys(found))


def _passworded(told: Mapping[str, str], user: str, variable: str) -> list[Login]:
    if variable in told:
        return [Login(user, "environment", variable)]
    file = told.get(f"{variable}_FILE")
    return [Login(user, "file", file)] if file else []


def _secret(engine: Engine, address: Address) -> dict[str, str]:
    """The environment that lets a client in, for one call. Raises HelperFailed where a file does not read."""
    login = address.login
    if login.source == "environment":
        password = engine.private(address.container).environment.get(login.place, "")
    elif login.source == "file":
        password = engine.execute(address.container, ("cat", login.place), timeout=ASK_TIMEOUT).decode().rstrip("\n")
    elif login.source == "given":
        password = given[int(login.place)][1]
    elif login.source == "log":
        found = _GENERATED.findall(engine.logs_head(address.container, _LOG_LIMIT))
        password = found[-1].decode().strip() if found else ""
    else:
        return {}
    return {"MYSQL_PWD": password}


# -- asking ------------------------------------------------------------------------------------------------------------


def ask(engine: Engine, address: Address, sql: str, *, timeout: float | None = ASK_TIMEOUT) -> list[tuple[str, ...]]:
    """The rows that one statement answers with; it stands on an argv. Raises HelperFailed."""
    argv = address.client(f"--execute={sql}")
    if address.side:
        said = engine.run(_side(engine, address, argv), timeout=timeout)
    else:
        environment, user = _secret(engine, address), _system_user(address)
        said = engine.execute(address.container, argv, user=user, environment=environment, timeout=timeout)
    return [_row(line) for line in said.splitlines()]


@contextmanager
def stream(
    engine: Engine, address: Address, argv: Sequence[str], *, stdin: int | None = None, discard: bool = False
) -> Iterator[Stream]:
    """Run a client program and read (and write) while it runs. Raises HelperFailed at the end unless it ended with 0."""
    if address.side:
        with engine.stream(_side(engine, address, argv), stdin=stdin, discard=discard) as opened:
            yield opened
        return
    environment, user = _secret(engine, address), _system_user(address)
    with engine.execute_stream(
        address.container, tuple(argv), stdin=stdin, user=user, environment=environment, discard=discard
    ) as opened:
        yield opened


def _side(engine: Engine, address: Address, argv: Sequence[str]) -> Helper:
    return Helper(
        image=address.image,
        argv=tuple(argv),
        network=f"container:{address.container}",
        environment=_secret(engine, address),
    )


def _system_user(address: Address) -> str | None:
    """Where no password is known, the socket may let root of the system in as root of the database."""
    return "0" if address.login.source == "none" else None


@contextmanager
def fault(volume: str, stage: str, *, next_step: str | None = None) -> Iterator[None]:
    """Name volume, stage and cause when a client program fails, without the piece of a statement that the server quotes."""
    try:
        yield
    except HelperFailed as error:
        words = re.sub(r"near '.*", "near ...", last_words(error), flags=re.DOTALL)
        raise BackupFailed(f"volume {volume}: {stage}: {words}", next_step=next_step or error.next_step) from error


def quoted(name: str) -> str:
    """A name of a database or table as SQL."""
    return "`" + name.replace("`", "``") + "`"


_ESCAPES = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


def _row(line: bytes) -> tuple[str, ...]:
    """The columns of one line of `--batch`, in which newlines, tabs and backslashes are escaped."""
    columns = line.decode("utf-8", "backslashreplace").split("\t")
    return tuple(re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), column) for column in columns)


_ANSWERED = "---- safe-compose: answered ----"


class Session:
    """A client that is asked one thing after the other over its stdin and stdout."""

    def __init__(self, opened: Stream) -> None:
        self._opened = opened

    def rows(self, script: str) -> list[tuple[str, ...]]:
        """Send statements, and all the rows that they answer with. Raises SessionOver when the client ended."""
        stdin: IO[bytes] | None = self._opened.stdin
        if stdin is None:
            raise TypeError("the client was started without stdin")
        try:
            stdin.write(f"{script}\nSELECT '{_ANSWERED}';\n".encode())
            stdin.flush()
        except BrokenPipeError as error:
            raise SessionOver from error
        answers: list[tuple[str, ...]] = []
        while line := self._opened.stdout.readline():
            row = _row(line.removesuffix(b"\n"))
            if row == (_ANSWERED,):
                return answers
            answers.append(row)
        raise SessionOver

    def value(self, script: str) -> str:
        """The first column of the only row."""
        return self.rows(script)[0][0]


class SessionOver(Exception):
    """The client ended before it was told to; its exit code and words come with the end of the stream."""


_PREPARED = """
SET SESSION sql_mode = '';
SET SESSION lock_wait_timeout = {lock};
SET SESSION wait_timeout = 604800, net_read_timeout = 3600, net_write_timeout = 3600;
SET SESSION {limit} = 0;
"""
"""No time-out may end the transaction that holds the snapshot."""

LOCK_SECONDS = 15
"""How long the lock that a dump begins with is waited for: others who want to write wait behind it."""


@contextmanager
def session(engine: Engine, address: Address) -> Iterator[Session]:
    """An open session. Raises HelperFailed with the client's words when it ends by itself."""
    over: SessionOver | None = None
    with stream(engine, address, address.client(), stdin=-1) as opened:
        asked = Session(opened)
        try:
            limit = "max_statement_time" if address.kind == "mariadb" else "max_execution_time"
            asked.rows(_PREPARED.format(lock=LOCK_SECONDS, limit=limit))
            yield asked
        except SessionOver as error:
            over = error
        with suppress(BrokenPipeError):  # then it has ended; its exit code tells how
            if opened.stdin is not None:
                opened.stdin.close()
    if over is not None:
        raise BackupFailed("the database client ended before it was told to") from over


# -- finding out -------------------------------------------------------------------------------------------------------

_VARIABLES = (
    "version", "datadir", "socket", "port", "innodb_data_home_dir", "innodb_log_group_home_dir", "innodb_undo_directory",
    "innodb_temp_data_file_path", "innodb_page_size", "innodb_data_file_path", "lower_case_table_names",
)  # fmt: skip
_SETTINGS = ("innodb_page_size", "innodb_data_file_path", "lower_case_table_names")
_RIGHTS = (
    "SELECT PRIVILEGE_TYPE FROM information_schema.USER_PRIVILEGES WHERE GRANTEE = CONCAT('\\'', "
    "LEFT(CURRENT_USER(), LENGTH(CURRENT_USER()) - LENGTH(SUBSTRING_INDEX(CURRENT_USER(), '@', -1)) - 1), '\\'@\\'', "
    "SUBSTRING_INDEX(CURRENT_USER(), '@', -1), '\\'');"
)
_SESSIONS = (
    "SELECT USER, HOST, COALESCE(DB, ''), COMMAND FROM information_schema.PROCESSLIST "
    "WHERE ID <> CONNECTION_ID() AND COMMAND <> 'Daemon' ORDER BY ID;"
)
_LOST = (
    ("loadable functions", "SELECT COUNT(*) FROM mysql.func;"),
    ("plugins that were installed by a statement", "SELECT COUNT(*) FROM mysql.plugin;"),
    ("servers of federated tables", "SELECT COUNT(*) FROM mysql.servers;"),
)


def contact(engine: Engine, container_id: str, image: str, timeout: Callable[[], float] = lambda: ASK_TIMEOUT) -> Address:
    """The way by which a server lets us in, tried by exec. Raises Silent with what each account was told.

    `timeout`: seconds for the next question; may raise Silent.
    """
    causes = []
    try:
        accounts = logins(engine, container_id)
    except SafeComposeError as error:
        raise Silent(error.message) from error
    for prefix in ("mariadb", "mysql"):
        for login in accounts:
            address = Address(container_id, image, login, prefix)
            try:
                socket, port, said = ask(engine, address, "SELECT @@socket, @@port, @@version", timeout=timeout())[0]
                address = replace(address, socket=socket, port=int(port), kind=kind_of(said))
                rights = {row[0] for row in ask(engine, address, _RIGHTS, timeout=timeout())}
            except HelperFailed as error:
                if error.returncode in (126, 127):
                    causes.append(f"its image has no program {prefix}")
                    break  # no account would find it
                causes.append(f"{login.words}: {last_words(error)}")
                continue
            if missing := sorted(_NEEDED - rights):
                causes.append(f"{login.words}: it has no right to {', '.join(missing)} everywhere")
                continue
            return address
    raise Silent(
        f"the database server lets us in by no account that its settings name: {'; '.join(causes)}",
        next_step="let the variable of its root password say what the password is",
    )


def server(engine: Engine, container: Container) -> Server:
    """Find out all about the server in a running container, and prove that a side container reaches the same one.

    Raises Silent when it does not answer or is too old, BackupFailed when its data does not lie in one volume alone.
    """
    if container.state != "running":
        raise Silent(f"container {container.name}: the database does not run ({container.state})")
    try:
        address = contact(engine, container.id, container.image_id)
    except Silent as silent:
        raise Silent(
            f"container {container.name}: {silent.message}; it was not dumped",
            next_step=f"docker logs --tail 20 {container.name}",
        ) from silent
    proof = f"safe-compose-{secrets.token_hex(12)}"
    with fault(container.name, "ask the server"), session(engine, address) as asked:
        facts = dict(zip(_VARIABLES, asked.rows(f"SELECT {', '.join('@@' + v for v in _VARIABLES)};")[0], strict=True))
        version, kind = numbers_of(facts["version"]), address.kind
        if version < ((10, 2) if kind == "mariadb" else (5, 7)):
            raise Silent(f"container {container.name}: {facts['version']} is too old to be dumped with its accounts")
        own = tuple(name for name in SYSTEM if name != "sys" or kind == "mysql" or version >= (10, 6))
        databases = databases_of(asked, own)
        foreign = tuple(_in_words(*row) for row in asked.rows(_SESSIONS))
        warnings = [f"{n} {what} are in no dump" for what, sql in _LOST if (n := asked.value(sql)) != "0"]
        if prepared := len(asked.rows("XA RECOVER;")):
            warnings.append(f"{prepared} prepared (XA) transactions are in no dump")
        far = [row[0] for row in asked.rows(_FAR)] if kind == "mysql" and version >= (8, 0) else []
        asked.rows(f"SELECT GET_LOCK('{proof}', 0);")
        beside = _beside(engine, container, address, proof)
    directory = facts["datadir"].rstrip("/")
    mount = lasting(container, data_mount(container, directory), directory)
    volume = mount.name or mount.source
    _refuse_outside(engine, container, volume, directory, facts, far)
    return Server(
        container=container,
        address=beside,
        volume=volume,
        in_folder=mount.type == "bind",
        kind=kind,
        data_directory=directory,
        version=".".join(map(str, version)),
        databases=databases,
        own=own,
        settings={name: facts[name] for name in _SETTINGS},
        temporary=PurePosixPath(facts["innodb_temp_data_file_path"].partition(":")[0]).name,
        foreign_sessions=foreign,
        warnings=tuple(warnings),
    )


_FAR = "SELECT PATH FROM information_schema.INNODB_DATAFILES WHERE PATH LIKE '/%';"


def kind_of(version: str) -> str:
    """`10.11.19-MariaDB-0+deb12u1` -> `mariadb`."""
    return "mariadb" if "mariadb" in version.lower() else "mysql"


def numbers_of(version: str) -> tuple[int, ...]:
    """`10.11.19-MariaDB-0+deb12u1` -> (10, 11, 19). Some say `5.5.5-10.6.1-MariaDB`."""
    numbers = re.match(r"(?:5\.5\.5-)?(\d+)\.(\d+)\.(\d+)", version)
    return tuple(map(int, numbers.groups())) if numbers else (0,)


def databases_of(asked: Session, own: Sequence[str]) -> tuple[str, ...]:
    """The databases of a server but its own."""
    sql = f"SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE LOWER(SCHEMA_NAME) NOT IN ({_list(own)}) ORDER BY 1;"
    return tuple(row[0] for row in asked.rows(sql))


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _in_words(user: str, host: str, database: str, _: str) -> str:
    where = "the socket" if host in ("", "localhost") else host.rpartition(":")[0] or host
    return f"{user} in {database or 'no database'} from {where}"


def _beside(engine: Engine, container: Container, address: Address, proof: str) -> Address:
    """The same server through a side container, when that sees the lock that a session over the socket holds: only the same
    process can tell. Else the address as it is. Raises Silent where it was another container's server that answered at the
    socket."""
    side = replace(address, side=True)
    try:
        seen = ask(engine, side, f"SELECT IS_USED_LOCK('{proof}') IS NOT NULL")
    except HelperFailed:
        return address  # no TCP, or no such account over it: exec over the socket is the proved way
    if seen != [("1",)] and container.is_alone_at_its_ports:
        raise another(container)
    return side if seen == [("1",)] else address


def _refuse_outside(
    engine: Engine, container: Container, volume: str, directory: str, facts: dict[str, str], far: Sequence[str]
) -> None:
    """No part of the data may lie outside of the directory: an archive of the volume would be no database."""
    outside = []
    for variable in ("innodb_data_home_dir", "innodb_log_group_home_dir", "innodb_undo_directory"):
        place = facts[variable]
        if place not in ("", "NULL") and not (PurePosixPath(directory) / place).is_relative_to(directory):
            outside.append(f"{variable} is {place}")
    outside += [f"table {path}" for path in far if not PurePosixPath(path).is_relative_to(directory)]
    argv = ("find", directory, "-xdev", "-mindepth", "2", "(", "-name", "*.isl", "-o", "-type", "l", ")", "-print")
    with suppress(HelperFailed):  # no find in that image: the trial restore would find it out
        links = engine.execute(container.id, argv, timeout=ASK_TIMEOUT).decode("utf-8", "replace").splitlines()
        outside += [f"{link} points to another place" for link in links]
    if outside:
        raise BackupFailed(
            f"volume {volume}: the database of {container.name} also lives outside of it: {', '.join(outside[:3])}; that cannot "
            "be backed up yet, nothing was dumped",
            next_step="move it into the data directory, or back it up by your own means",
        )


# -- writes ------------------------------------------------------------------------------------------------------------

_HARMLESS = re.compile(
    r"Com_(?:select|show_.*|set_option|change_db|begin|commit|rollback|savepoint|release_savepoint|rollback_to_savepoint|flush"
    r"|lock_tables|unlock_tables|admin_commands|checksum|help|kill|empty_query|explain.*|stmt_.*|prepare_sql|execute_sql"
    r"|dealloc_sql|ha_.*)"
)
"""Statements that change nothing by themselves; prepared ones are counted once more by what they are. A commit of something
that was written moves the transaction counter, or was at work at the first look."""


def reading(asked: Session) -> Reading:
    """What moves with every write, now."""
    others = asked.rows(_SESSIONS)
    idle = [row for row in others if row[3] == "Sleep" and row[0] != "system user"]
    open_elsewhere = asked.value("SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id <> CONNECTION_ID();")
    commands = sum(int(n) for name, n in asked.rows("SHOW GLOBAL STATUS LIKE 'Com\\_%';") if not _HARMLESS.fullmatch(name))
    state = "".join(asked.rows("SHOW ENGINE INNODB STATUS;")[0])
    counter = re.search(r"Trx id counter (\w+)", state)
    if counter is None:
        raise BackupFailed("the server does not tell its transaction counter")
    return Reading(counter[1], commands, busy=len(idle) != len(others) or open_elsewhere != "0")


def summary(engine: Engine, container: Container, *, timeout: float) -> str | None:
    """`MariaDB 10.11.19, 3 databases, 41 tables, about 1.2 M rows` from the server's estimates, by exec only; None when it
    cannot be told. `timeout`: seconds for all questions together."""
    names = _list(SYSTEM)
    sql = (
        "SELECT @@version, (SELECT COUNT(*) FROM information_schema.SCHEMATA "
        f"WHERE LOWER(SCHEMA_NAME) NOT IN ({names})), COUNT(*), COALESCE(SUM(TABLE_ROWS), 0) FROM information_schema.TABLES "
        f"WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND LOWER(TABLE_SCHEMA) NOT IN ({names})"
    )
    until = time.monotonic() + timeout

    def left() -> float:
        if (seconds := until - time.monotonic()) <= 0:
            raise Silent(f"container {container.name}: its server did not answer in time")
        return seconds

    if container.state != "running":
        return None
    try:
        address = contact(engine, container.id, container.image_id, left)
        said, databases, tables, rows = ask(engine, address, sql, timeout=left())[0]
    except SafeComposeError:
        return None
    title = f"{'MariaDB' if address.kind == 'mariadb' else 'MySQL'} {'.'.join(map(str, numbers_of(said)))}"
    return (
        f"{title}, {databases} database{'s' * (databases != '1')}, {tables} table{'s' * (tables != '1')}, "
        f"about {_short(int(rows))} rows"
    )


def _short(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= 10 * size or (number >= size and unit != "k"):
            return f"{number / size:.1f} {unit}"
    return str(number)
