"""psql and the other client programs, with which one PostgreSQL server is queried and changed.

They never run in a shell in the service's container, because a process that loses its parent there
can make Postgres restart (tried).
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from safe_compose.core.observed import describe_location
from safe_compose.databases.client import (
    ASK_TIMEOUT,
    QUESTION_SECONDS,
    Client,
    ClientSession,
    open_session,
)
from safe_compose.databases.postgres import login
from safe_compose.databases.postgres.connection import IN_ENGLISH, Use, format_conninfo, options
from safe_compose.databases.postgres.encodings import UTF8, decode_answer
from safe_compose.databases.protocol import ServerUnreachable
from safe_compose.engine.client_stream import HelperFailed, Stream
from safe_compose.errors import OperationFailed
from safe_compose.volumes.helper_program import read_last_words

APPLICATION = "safe-compose"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class PostgresClient(Client):
    """A connection to one PostgreSQL server."""

    user: str
    port: int = 5432
    socket: str = "/var/run/postgresql"
    major: int = 0
    """Major version of the server; 0 if unknown."""
    secret: login.Secret | None = None
    """The password that the server asks for; None if it asks for none."""
    system_user: str | None = None
    """User of an exec if the server lets its own user in (`peer`); None for the container's user.
    """
    superuser: bool = True
    """The user may change settings that only a superuser may."""
    VARIABLES: ClassVar[Mapping[str, str]] = IN_ENGLISH

    def exec_user(self) -> str | None:
        """Return the server's own user if that is let in without a password."""
        return self.system_user

    def secrets(self) -> Mapping[str, str]:
        """Return PGPASSWORD if the server asks for a password.

        Raises:
            HelperFailed: A file with the password cannot be read.
        """
        return login.make_environment(self.engine, self.container, self.secret)

    def conninfo(self, database: str, use: Use = Use.READ, *, seconds: float | None = None) -> str:
        """Return a connection string that no database name can break out of (`x=y`, `--help`).

        It never holds a password. `seconds`: time after which the server ends each statement.
        """
        return format_conninfo(
            host=LOOPBACK if self.side else self.socket,
            port=self.port,
            user=self.user,
            dbname=database,
            application_name=APPLICATION,
            connect_timeout=10,
            options=options(use, self.major, seconds=seconds, superuser=self.superuser),
            **({} if use is Use.LOAD else {"client_encoding": "UTF8"}),
        )

    def ask(
        self, database: str, sql: str, *, use: Use = Use.READ, timeout: float | None = ASK_TIMEOUT
    ) -> str:
        """Return the answer to one statement, without its last newline.

        Raises:
            HelperFailed: The query failed.
        """
        argv = (
            *PSQL,
            f"--dbname={self.conninfo(database, use, seconds=timeout)}",
            f"--command={sql}",
        )
        return decode_answer(self.run(argv, timeout=timeout)).removesuffix("\n")

    def session(self, database: str, use: Use = Use.READ) -> AbstractContextManager["PsqlSession"]:
        """Open a psql session for a block.

        Raises:
            HelperFailed: psql ended by itself; the message is its output.
            OperationFailed: psql ended too early, but without a failure.
        """
        argv = (*PSQL, f"--dbname={self.conninfo(database, use)}")
        return open_session(
            self.stream(argv, stdin=-1),
            lambda opened: PsqlSession(opened, self, database, use),
            f"psql ended before it was told to (database {database})",
        )


class PsqlSession(ClientSession):
    """A psql session that answers one question after the other, in one database at a time."""

    def __init__(self, opened: Stream, client: PostgresClient, database: str, use: Use) -> None:
        """Begin a session in `database`."""
        super().__init__(opened)
        self._client = client
        self._use = use
        self.database = database
        self.codec = UTF8
        """Codec of the server's answers."""

    def connect(self, database: str) -> None:
        """Continue in another database of the same server."""
        if database != self.database:
            # psql reads this word as an identifier: in double quotes every character but these
            # stands for itself. `server` refuses names with a newline, which would end the command.
            target = self._client.conninfo(database, self._use).replace('"', '""')
            self.line(f'\\connect -reuse-previous=off "{target}"')
            self.database, self.codec = database, UTF8

    def begin(self, script: str) -> Iterator[str]:
        """Send statements now, and return an iterator that reads their answers later, line by line.

        Only one script may run at a time.

        Raises:
            SessionEnded: psql ended.
            OperationFailed: A line is too long.
        """
        self.send(script)
        return self._answers()

    def _answers(self) -> Iterator[str]:
        for line in self.lines(f"the server of database {self.database}"):
            yield decode_answer(line, self.codec)

    def line(self, script: str, *, seconds: float = QUESTION_SECONDS) -> str:
        """Return the one line that statements answer with.

        Raises:
            SessionEnded: psql ended.
            OperationFailed: The answer takes too long, or is too long.
        """
        with self.within(seconds):
            return "\n".join(self.begin(script))
        raise AssertionError  # an aborted block raises


_NO_LOCKS = "out of shared memory"
_DAMAGE = re.compile(
    r"ERROR:  (?:invalid page in block|could not read block|missing chunk number"
    r"|unexpected chunk number|could not access status of"
    r" transaction|compressed \S+ data is corrupt)"
)
"""A server's errors about damaged data: an archive of all its files, made after a proper stop,
keeps as much as there is.
"""
_MORE_LOCKS = (
    "pg_dump locks every table at once: give the server a higher max_locks_per_transaction and"
    ' restart it, or set method = "physical" under [backup]'
)
PSQL = (
    "psql",
    "--no-psqlrc",
    "--quiet",
    "--no-align",
    "--tuples-only",
    "--no-password",
    "--set=ON_ERROR_STOP=1",
    "--set=VERBOSITY=terse",
)
"""Terse, because the details of an error hold rows and statements: data of others, verifiers of
passwords.
"""


@contextmanager
def naming_client_fault(volume: str, stage: str, *, next_step: str | None = None) -> Iterator[None]:
    """Turn a client program's failure into a fault that names the volume, the stage and the cause.

    Raises:
        ServerUnreachable: The server has too few locks for a dump, or its data is damaged.
        OperationFailed: The client failed for another reason.
    """
    try:
        yield
    except HelperFailed as error:
        words = f"{describe_location(volume)}: {stage}: {read_last_words(error)}"
        if _NO_LOCKS in error.stderr:
            raise ServerUnreachable(words, next_step=_MORE_LOCKS) from error
        if _DAMAGE.search(error.stderr):
            raise ServerUnreachable(
                f"{words}: its data is damaged, so it cannot be dumped", next_step=next_step
            ) from error
        raise OperationFailed(words, next_step=next_step or error.next_step) from error
