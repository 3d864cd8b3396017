"""Login to a Redis or Valkey server, without a password or with its container's own."""

import re
import time
from collections.abc import Iterator

from safe_compose.core.text import shell_quote
from safe_compose.databases.client import ASK_TIMEOUT
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.protocol import ServerUnreachable
from safe_compose.databases.redis.client import ErrorAnswer, RedisClient
from safe_compose.databases.redis.info import parse_number
from safe_compose.engine import StartConfiguration
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.volumes.helper_program import read_last_words

_PASSWORD_OPTION = re.compile(r"--requirepass[\s=]+(?:'([^']+)'|\"([^\"]+)\"|([^\s'\"]+))")
_PASSWORD_LINE = re.compile(r"^\s*requirepass\s+(?:'([^']+)'|\"([^\"]+)\"|(\S+))\s*$", re.M)
_PASSWORD_NAME = re.compile(r"(?:REDIS|VALKEY|KEYDB)\w*(?:PASS|AUTH)\w*")
_PORT_OPTION = re.compile(r"--port[\s=]+(\d+)")
_PORT_LINE = re.compile(r"^\s*port\s+(\d+)\s*$", re.M)
_INCLUDE_LINE = re.compile(r"^\s*include\s+['\"]?([^\s'\"*?]+)['\"]?\s*$", re.M)
_MOST_INCLUDED = 8
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


def log_in(at: EngineContainer, *, timeout: float = ASK_TIMEOUT) -> RedisClient:
    """Return a client that the server accepts.

    No password is tried first, then those that the container was started with.

    Raises:
        ServerUnreachable: The server does not run, does not answer or refuses all of them.
    """
    container = at.container
    if container.state != "running":
        raise ServerUnreachable(
            f"container {container.name}: the server does not run ({container.state})"
        )
    private = at.engine.docker.private(container.id)
    config = read_config(at, private)
    port = _port(private, config)
    client = "redis-cli"
    cause = ""
    until = time.monotonic() + timeout
    for password in _passwords(at, private, config):
        while True:
            try:
                tried = RedisClient(
                    at.engine, container.id, container.image_id, client, port, password
                )
                if (answer := tried.ask("PING", timeout=timeout)) == "PONG":
                    return tried
                cause = f"it answered PING with {answer[:60]!r}"
            except HelperFailed as error:
                cause = read_last_words(error)
                if error.returncode in (126, 127) and client == "redis-cli":
                    client = "valkey-cli"
                    continue
            except ErrorAnswer as refusal:
                cause = str(refusal)
                if cause.startswith("LOADING") and time.monotonic() < until:
                    time.sleep(0.2)  # between two questions; the loop has a time limit
                    continue
            break
    raise ServerUnreachable(
        f"container {container.name}: the server does not let us in: {cause.rstrip('.')}; it was"
        " not dumped",
        next_step=(
            "set REDISCLI_AUTH to its password in the container's environment, or stop it: docker"
            f" stop {shell_quote(container.name)}"
        ),
    )


def _passwords(
    at: EngineContainer, private: StartConfiguration, config: str
) -> Iterator[str | None]:
    """Yield None, which uses the container's own REDISCLI_AUTH, and then up to eight passwords.

    There are no more because a server may log each failure.
    """
    yield None
    found: list[str] = []
    line = " ".join(private.argv)
    after = [
        word
        for before, word in zip(private.argv, private.argv[1:], strict=False)
        if before == "--requirepass"
    ]
    found += after
    for match in (*_PASSWORD_OPTION.finditer(line), *_PASSWORD_LINE.finditer(config)):
        found.append(next(group for group in match.groups() if group is not None))
    for name, value in sorted(private.environment.items()):
        if _PASSWORD_NAME.match(name) and value:
            found += [_read_file(at, value).strip("\r\n")] if name.endswith("_FILE") else [value]
    resolved = (
        _VARIABLE.sub(lambda m: private.environment.get(m[1], m[0]), word) for word in found
    )
    yield from list(
        dict.fromkeys(word for word in (*after, *resolved) if word and "\0" not in word)
    )[:8]


def _port(private: StartConfiguration, config: str) -> int:
    match = _PORT_OPTION.search(" ".join(private.argv)) or _PORT_LINE.search(config)
    named = next(
        (
            n
            for k in ("REDIS_PORT_NUMBER", "VALKEY_PORT_NUMBER")
            if (n := parse_number(private.environment.get(k, "")))
        ),
        0,
    )
    return (parse_number(match[1]) if match else named) or 6379


def read_config(at: EngineContainer, private: StartConfiguration) -> str:
    """Return the text of the configuration file on the command line; empty if there is none.

    The text of the files that it includes follows, as a server reads them.
    """
    path = next((word for word in " ".join(private.argv).split() if word.endswith(".conf")), None)
    config = _read_file(at, path) if path else ""
    included = [_read_file(at, path) for path in _INCLUDE_LINE.findall(config)[:_MOST_INCLUDED]]
    return "\n".join((config, *included))


def _read_file(at: EngineContainer, path: str) -> str:
    try:
        return at.execute("cat", "--", path).decode("utf-8", "replace")
    except HelperFailed:
        return ""  # then no password is known from there
