"""redis-cli, run within the container of one Redis or Valkey server."""

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from safe_compose.core.text import shell_quote
from safe_compose.databases.client import ASK_TIMEOUT, Client
from safe_compose.databases.redis.info import parse_facts
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.errors import OperationFailed
from safe_compose.volumes.helper_program import read_last_words

ERROR = re.compile(
    r"(?:ERR|NOAUTH|WRONGPASS|NOPERM|DENIED|LOADING|MISCONF|READONLY|BUSY|MASTERDOWN|NOREPLICAS"
    r"|EXECABORT)\b"
)
"""Beginnings of answers that are errors: redis-cli exits with 0 all the same."""


@dataclass(frozen=True, slots=True)
class RedisClient(Client):
    """A connection to one Redis or Valkey server, by exec."""

    program: str = "redis-cli"
    port: int = 6379
    password: str | None = field(default=None, repr=False)

    def secrets(self) -> Mapping[str, str]:
        """Return REDISCLI_AUTH if a password is known."""
        return {} if self.password is None else {"REDISCLI_AUTH": self.password}

    def argv(self, *words: str) -> tuple[str, ...]:
        """Return the command line of the client program."""
        return (self.program, "-p", str(self.port), *words)

    def ask(self, *words: str, timeout: float | None = ASK_TIMEOUT) -> str:
        """Return the answer to one command.

        Raises:
            ErrorAnswer: The server answered with an error.
            HelperFailed: The server cannot be reached.
        """
        answer = self.answer(*words, timeout=timeout).removesuffix("\n")
        if ERROR.match(answer):
            raise ErrorAnswer(answer.splitlines()[0][:200])
        return answer

    def answer(
        self, *words: str, stdin: str | None = None, timeout: float | None = ASK_TIMEOUT
    ) -> str:
        """Return everything that redis-cli writes, errors of the server included.

        Raises:
            HelperFailed: The server cannot be reached.
        """
        given = stdin.encode() if stdin is not None else None
        answer = self.run(self.argv(*words), stdin=given, timeout=timeout)
        return answer.decode("utf-8", "replace").replace("\r", "")

    def facts(self) -> dict[str, str]:
        """Return INFO as a table.

        Raises:
            ErrorAnswer: The server answered with an error.
            HelperFailed: The server cannot be reached.
        """
        return parse_facts(self.ask("INFO").split("\n"))

    def answers(self, commands: Sequence[str]) -> dict[str, list[str]]:
        """Return the answer to each of several commands as lines, from one start of redis-cli.

        Between the commands the server repeats a random word: so the value of a setting that has
        newlines in it cannot pass for another setting.

        Raises:
            HelperFailed: The server cannot be reached.
        """
        word = f"answered-{secrets.token_hex(16)}"
        answer = self.answer(stdin="".join(f"{command}\nPING {word}\n" for command in commands))
        pieces = answer.split(f"{word}\n")
        return {
            command: piece.removesuffix("\n").split("\n")
            for command, piece in zip(commands, pieces, strict=False)
        }


class ErrorAnswer(Exception):
    """The server answered with an error; the message is its text."""


@contextmanager
def asking(subject: str, stage: str) -> Iterator[None]:
    """Turn a failed command into a fault that names the container, the stage and the cause.

    Raises:
        OperationFailed: A command in the block failed.
    """
    try:
        yield
    except HelperFailed as error:
        raise OperationFailed(
            f"{subject}: {stage}: {read_last_words(error)}", next_step=error.next_step
        ) from error
    except ErrorAnswer as error:
        raise OperationFailed(
            f"{shell_quote(subject)}: {stage}: {error}",
            next_step=f"docker logs --tail 20 {shell_quote(subject)}",
        ) from error
