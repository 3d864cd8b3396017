"""The client programs of MariaDB and MySQL, with which a server is queried and changed.

MariaDB was tested; statements about MySQL are from its documentation.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from safe_compose.core.observed import describe_location
from safe_compose.databases.client import (
    ANSWER_LIMIT,
    ASK_TIMEOUT,
    QUESTION_SECONDS,
    Client,
    ClientSession,
    open_session,
)
from safe_compose.databases.mysql.login import NO_PASSWORD, Login, secret
from safe_compose.databases.protocol import ServerUnreachable, understanding
from safe_compose.engine.client_stream import HelperFailed, Stream
from safe_compose.errors import OperationFailed
from safe_compose.volumes.helper_program import read_last_words


@dataclass(frozen=True, slots=True)
class MysqlClient(Client):
    """A connection to one MySQL or MariaDB server."""

    login: Login = NO_PASSWORD
    prefix: str = "mariadb"
    """`mariadb` if the image has `mariadb` and `mariadb-dump`, otherwise `mysql`."""
    socket: str = ""
    """Empty as long as only the client's own configuration knows it."""
    port: int = 3306
    kind: str = "mariadb"
    """Product of the server: `mariadb` or `mysql`."""
    charset: str = "utf8mb4"
    """The character set in which the server answers clients, of which ours ask for utf8mb4."""

    def exec_user(self) -> str | None:
        """Return the system's root if no password is known.

        The socket may let it in as the database's root.
        """
        return "0" if self.login.source == "none" else None

    def secrets(self) -> Mapping[str, str]:
        """Return MYSQL_PWD if the account has a password.

        Raises:
            HelperFailed: A file with the password cannot be read.
        """
        return secret(self.engine, self.container, self.login)

    @property
    def dumper(self) -> str:
        """The dump program that belongs to the client."""
        return "mariadb-dump" if self.prefix == "mariadb" else "mysqldump"

    def argv(self, *options: str, seconds: float | None = None) -> tuple[str, ...]:
        """Return the command line of a client that reads statements and answers with lines.

        The client never reconnects by itself, which would end a snapshot unnoticed, and gives no
        file to a server that asks for one. `seconds`: time after which the server ends a reading
        statement, even if its client was killed.
        """
        fixed = (
            "--batch",
            "--skip-column-names",
            "--unbuffered",
            "--skip-reconnect",
            "--local-infile=0",
        )
        return (
            self.prefix,
            *self.options(),
            *fixed,
            f"--init-command={_first_command(seconds)}",
            *options,
        )

    def options(self) -> tuple[str, ...]:
        """Return the connection options of a client program.

        No configuration file has an influence once the socket is known.
        """
        if self.side:
            # A client of MySQL 8 requires the server's key.
            connection = ["--host=127.0.0.1", f"--port={self.port}", "--protocol=tcp"]
            connection += ["--loose-get-server-public-key"]
        else:
            connection = [
                "--host=localhost",
                "--protocol=socket",
                *([f"--socket={self.socket}"] if self.socket else []),
            ]
        # The client of MariaDB 11.4 and later requires a certificate, over a socket too (run); this
        # is the container's own socket or loopback interface.
        connection.append("--loose-skip-ssl-verify-server-cert")
        mine = ("--no-defaults",) if self.socket else ()
        return (
            *mine,
            *connection,
            f"--user={self.login.user}",
            "--default-character-set=utf8mb4",
            "--max-allowed-packet=1G",
        )

    def ask(self, sql: str, *, timeout: float | None = ASK_TIMEOUT) -> list[tuple[str, ...]]:
        """Return the rows of one statement's answer; the statement is visible on the command line.

        Raises:
            HelperFailed: The client failed.
        """
        answer = self.run(self.argv(f"--execute={sql}", seconds=timeout), timeout=timeout)
        return [_row(line) for line in answer.removesuffix(b"\n").split(b"\n") if answer]

    def session(self) -> AbstractContextManager["MysqlSession"]:
        """Open a session for a block.

        Raises:
            HelperFailed: The client ended by itself; the message is its output.
            OperationFailed: The client ended too early, but without a failure.
        """
        limit = "max_statement_time" if self.kind == "mariadb" else "max_execution_time"

        def begin(opened: Stream) -> MysqlSession:
            asked = MysqlSession(opened)
            asked.rows(_PREPARED.format(lock=LOCK_SECONDS, limit=limit))
            return asked

        return open_session(
            self.stream(self.argv(), stdin=-1),
            begin,
            "the database client ended before it was told to",
        )


def _first_command(seconds: float | None) -> str:
    """Return the first command of a connection, which sets how our statements are read.

    Quotes and backslashes have their usual meaning whatever the server's own settings. Each product
    reads only the conditional comment of its own kind (MariaDB skips 50700 to 99999).
    """
    if seconds is None:
        return "SET SESSION sql_mode = ''"
    limits = (
        f"/*M!100200 , max_statement_time = {seconds:.3f} */ /*!50708 , max_execution_time ="
        f" {seconds * 1000:.0f} */"
    )
    return f"SET SESSION sql_mode = '' {limits}"


_DAMAGE = re.compile(r"(?:\b(?:ERROR|[Ee]rror):? |\()(?:1034|1035|1194|1195|1712|1877|1932)\b")
"""What servers and dump programs say of damaged data, by number (errmsg.sys): its words are of the
server's language. An archive of all its files, stopped in order, keeps as much as there is.
"""


@contextmanager
def naming_client_fault(volume: str, stage: str, *, next_step: str | None = None) -> Iterator[None]:
    """Turn a client program's failure into a fault that names the volume, the stage and the cause.

    The part of a statement that the server quotes is left out.

    Raises:
        ServerUnreachable: The data is damaged, so that it cannot be dumped.
        OperationFailed: The client failed for another reason.
    """
    try:
        yield
    except HelperFailed as error:
        words = re.sub(r"near '.*", "near ...", read_last_words(error), flags=re.DOTALL)
        if _DAMAGE.search(error.stderr):
            raise ServerUnreachable(
                f"{describe_location(volume)}:"
                f" {stage}: {words}: its data is damaged, so it cannot be dumped"
            ) from error
        raise OperationFailed(
            f"{describe_location(volume)}: {stage}: {words}", next_step=next_step or error.next_step
        ) from error


def quote_name(name: str) -> str:
    """Quote the name of a database or table for SQL."""
    return "`" + name.replace("`", "``") + "`"


_ESCAPES = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


def _row(line: bytes) -> tuple[str, ...]:
    """Return the columns of one line of `--batch`.

    Newlines, tabs and backslashes are escaped in it.
    """
    columns = line.decode("utf-8", "backslashreplace").split("\t")
    return tuple(re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), column) for column in columns)


class MysqlSession(ClientSession):
    """A session with a client that answers one question after the other."""

    def rows(self, script: str, *, seconds: float = QUESTION_SECONDS) -> list[tuple[str, ...]]:
        """Send statements and return all rows that they answer with.

        Raises:
            SessionEnded: The client ended.
            OperationFailed: The answer takes too long, or is too long.
        """
        self.send(script)
        with self.within(seconds):
            return [_row(line) for line in self.lines("the database server", most=ANSWER_LIMIT)]
        raise AssertionError  # an aborted block raises

    def value(self, script: str, *, seconds: float = QUESTION_SECONDS) -> str:
        """Return the first column of the only row.

        Raises:
            ServerUnreachable: The answer has no such value.
        """
        rows = self.rows(script, seconds=seconds)
        with understanding("the session"):
            return rows[0][0]
        raise AssertionError  # an answer that cannot be parsed raises


_PREPARED = """
SET SESSION sql_mode = '';
SET SESSION lock_wait_timeout = {lock};
SET SESSION wait_timeout = 604800, net_read_timeout = 3600, net_write_timeout = 3600;
SET SESSION {limit} = 0;
"""
"""Session settings: no timeout may end the transaction that holds the snapshot."""
LOCK_SECONDS = 15
"""Time to wait for the lock that a dump begins with: writers queue up behind it."""
