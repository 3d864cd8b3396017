"""The logins of restored database servers, tried over the network as their clients would.

A restore whose database lets nobody in is no success: its rows are back, its service is not. The
causes are the password, which is older or newer than that of the files, and login rules that differ
from those of the server that was backed up.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from safe_compose import credentials
from safe_compose.core.backup import VolumeRecord
from safe_compose.core.observed import Container
from safe_compose.core.text import shell_quote
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.protocol import Passwords
from safe_compose.databases.registry import find_passwords, has_passwords
from safe_compose.engine import Engine
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.errors import OperationFailed, SafeComposeError
from safe_compose.ui import terminal

_START_SECONDS = 20.0
"""How long a server without a health check may take until it answers at all."""


class LoginResult(NamedTuple):
    """An attempt to log in to one server as its own environment says."""

    container: Container
    user: str
    works: bool | None
    """None when it could not be tried, or proves nothing since no password is asked for."""
    why: str | None = None

    def shape(self) -> dict[str, Any]:
        """Return it for `--json`."""
        return {
            "container": self.container.name,
            "user": self.user,
            "works": self.works,
            "why": self.why,
        }


def try_logins(
    engine: Engine, volumes: Iterable[tuple[VolumeRecord, str]]
) -> tuple[LoginResult, ...]:
    """Log in to each server that runs on a restored volume, and report what cannot be told.

    Args:
        engine: The engine.
        volumes: The records of what was restored, and the volumes that have it now.
    """
    observed = engine.commands.look_at_folders()
    found: dict[tuple[str, str], LoginResult] = {}
    for record, volume in volumes:
        if not has_passwords(record.data_kind):
            continue
        for user in observed.users(volume):
            if user.state == "running":
                for login in _try_server(
                    EngineContainer(engine, user), find_passwords(record.data_kind)
                ):
                    found.setdefault((login.container.id, login.user), login)
    for login in found.values():
        if login.works is None and login.why:
            terminal.say(
                f"safe-compose: whether {login.container.name} lets {login.user} in over the"
                f" network is not known: {login.why}"
            )
    return tuple(found.values())


def require_logins(logins: Sequence[LoginResult]) -> None:
    """Require that no server refuses the password of its own environment.

    Raises:
        OperationFailed: One does; what was restored stays.
    """
    refused = [login for login in logins if login.works is False]
    if not refused:
        return
    words = "; ".join(
        f"{login.container.name} does not let {login.user} in over the network with the password of"
        " its environment"
        for login in refused
    )
    service = refused[0].container.service
    raise OperationFailed(
        f"everything is back, but {words}",
        next_step=(
            f"safe-compose rotate-password --sync {shell_quote(service)}"
            if service
            else "safe-compose doctor"
        ),
    )


def _try_server(at: EngineContainer, passwords: Passwords) -> Iterator[LoginResult]:
    """Yield an attempt for each account that the environment of a server names."""
    container = at.container
    kind = credentials.find_kind({"image": container.image}, container.environment)
    if kind is None:
        return
    try:
        environment = dict(at.engine.docker.private(container.id).environment)
        _read_files(at, kind, environment)
        for user, password in credentials.list_declared(kind, environment):
            yield _try_login(at, passwords, user, password)
    except SafeComposeError as fault:  # everything is restored: this is only a report
        yield LoginResult(container, "anybody", None, fault.message)


def _read_files(at: EngineContainer, kind: str, environment: dict[str, str]) -> None:
    """Add the passwords that the environment names by their files in the container."""
    for _, key, _ in credentials.VARIABLES[kind]:
        path = environment.get(f"{key}_FILE")
        if path and not environment.get(key):
            try:
                raw = at.execute("cat", "--", path)
            except HelperFailed:
                continue
            text = raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")
            environment[key] = text.rstrip("\n")


def _try_login(at: EngineContainer, passwords: Passwords, user: str, password: str) -> LoginResult:
    container = at.container
    waits = container.health is None
    until = time.monotonic() + (_START_SECONDS if waits else 0.0)
    while True:
        try:
            works = passwords.can_log_in(at, user, password)
        except OperationFailed as fault:
            if time.monotonic() >= until:
                return LoginResult(container, user, None, fault.message)
            time.sleep(0.5)  # it may be starting; the loop has a time limit
        else:
            return LoginResult(container, user, works)
