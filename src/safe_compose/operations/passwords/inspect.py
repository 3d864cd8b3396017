"""The inspection before a rotation: the server, its role, and files with the password."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from safe_compose import credentials
from safe_compose.compose.files import Files
from safe_compose.core.observed import Container, Observed
from safe_compose.core.text import shell_quote
from safe_compose.credentials import Account, CredentialFile
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.protocol import Role, ServerUnreachable
from safe_compose.databases.registry import DATABASES, find_passwords
from safe_compose.engine import Engine
from safe_compose.errors import EngineUnavailable, OperationFailed, Refused
from safe_compose.grammar.parser import Invocation
from safe_compose.operations.passwords import project_sources
from safe_compose.system import project_files
from safe_compose.workspace import Workspace


@dataclass(frozen=True, slots=True)
class RotationInspection:
    """A result of the inspection before a new password is chosen."""

    invocation: Invocation
    observed: Observed
    model: Mapping[str, Any] = field(repr=False)
    raw: Mapping[str, Any] | None = field(repr=False)
    account: Account
    container: Container
    server: Any
    role: Role = field(repr=False)
    sources: tuple[CredentialFile, ...]
    notes: tuple[str, ...] = ()
    old: str | None = field(default=None, repr=False)
    """The password that the database still has, as a person stated it."""

    @property
    def project(self) -> str:
        """The name of the project."""
        return str(self.model.get("name", ""))

    @property
    def agrees(self) -> bool | None:
        """Whether the database has the password of the files; None when that is unknown."""
        return find_passwords(self.account.kind).fits(
            self.role.verifier, self.account.password, self.account.user
        )


def inspect(
    workspace: Workspace,
    invocation: Invocation,
    service: str,
    user: str | None,
    old: str | None = None,
) -> RotationInspection:
    """Find the database of a service, its role and its password.

    Args:
        workspace: The workspace.
        invocation: The command that means the project.
        service: The service of the database.
        user: The role; None for that of the project's files.
        old: The password that the database still has, if its server admits nobody without one.

    Raises:
        Refused: One of them cannot be determined.
        OperationFailed: The server does not answer.
    """
    engine = workspace.engine
    _refuse_unfinished(workspace)
    observed = engine.commands.look(invocation)
    model = engine.commands.model(invocation)
    if model is None:
        raise _refuse_unloaded(invocation)
    mine = [
        c
        for c in observed.containers
        if c.project == str(model.get("name", "")) and c.service == service
    ]
    try:
        account = credentials.account(
            model, service, user, project_files.read, mine[0].environment if mine else None
        )
    except credentials.UnsupportedAccount as unfit:
        raise Refused(
            f"{unfit}; nothing was changed", next_step="safe-compose rotate-password --help"
        ) from unfit
    container = _find_container(engine, mine, service)
    try:
        with knowing(account, old):
            server = DATABASES[account.kind].server(EngineContainer(engine, container))
            role = find_passwords(account.kind).role(server, account.user)
    except ServerUnreachable as silent:
        if not find_passwords(account.kind).may_need_password(silent):
            raise
        raise OperationFailed(
            f"{silent.message}; nothing was changed",
            next_step=(
                "put the password that the database still has into a file, and add --old-file FILE"
            ),
        ) from silent
    raw = engine.commands.model(invocation, interpolated=False)
    found, notes = project_sources.find(invocation, model)
    return RotationInspection(
        invocation, observed, model, raw, account, container, server, role, found, notes, old
    )


def _refuse_unfinished(workspace: Workspace) -> None:
    """Refuse to begin before a killed rotation is rolled back.

    Its rollback would undo whatever came after it.

    Raises:
        Refused: There is such a run.
    """
    for run in workspace.journal.list_unfinished():
        if run.rotates is not None and run.engine_id in ("", workspace.engine.id):
            raise Refused(
                f"run {run.id} was killed while it changed the password of service {run.rotates};"
                " nothing was changed",
                next_step="safe-compose recover",
            )


def knowing(account: Account, *more: str | None) -> AbstractContextManager[None]:
    """Return a context in which the account's password and these are used to log in."""
    return find_passwords(account.kind).knowing(
        account.user, *(word for word in (account.password, *more) if word)
    )


def _refuse_unloaded(invocation: Invocation) -> Refused:
    if Files(invocation, os.environ).files:
        return Refused(
            "compose cannot load this project; nothing was changed",
            next_step="docker compose config --quiet",
        )
    return Refused(
        "there is no compose file here; nothing was changed",
        next_step="cd to the folder of the compose file",
    )


def _find_container(engine: Engine, mine: Sequence[Container], service: str) -> Container:
    found = [c for c in mine if c.state == "running"]
    if len(found) > 1:
        raise Refused(
            f"{len(found)} containers of {service} run; which is the database cannot be told;"
            " nothing was changed"
        )
    if not found:
        paused = any(c.state == "paused" for c in mine)
        raise Refused(
            f"the database of service {service} {'is paused' if paused else 'does not run'}, so its"
            " password cannot be changed; nothing was changed",
            next_step=(
                f"docker compose {'unpause' if paused else 'up -d --no-deps'}"
                f" {shell_quote(service)}"
            ),
        )
    return engine.docker.container(found[0].id) or found[0]


# -- doctor ----------------------------------------------------------------------------------------


def list_drifted(engine: Engine, invocation: Invocation, *, timeout: float) -> list[dict[str, Any]]:
    """Return the project's running databases, and whether the password of the files works.

    This is tried over the network. A login that fails is recorded in the server's log.

    Args:
        engine: The engine.
        invocation: The command that means the project.
        timeout: Seconds for each login.

    Returns:
        A JSON object for each database. `agrees` is None when this cannot be determined; `why`
            gives the reason.
    """
    model = engine.commands.model(invocation)
    found: list[dict[str, Any]] = []
    if model is None:
        return found
    running = [
        c
        for c in engine.docker.containers()
        if c.project == str(model.get("name", "")) and c.state == "running"
    ]
    for service, body in (model.get("services") or {}).items():
        mine = [c for c in running if c.service == service]
        inside = mine[0].environment if len(mine) == 1 else None
        kind = (
            credentials.serves(body, inside)
            if isinstance(body, dict) and inside is not None
            else None
        )
        if kind is None:
            continue
        try:
            account = credentials.account(model, service, None, project_files.read, inside)
            agrees = find_passwords(kind).can_log_in(
                EngineContainer(engine, mine[0]), account.user, account.password, timeout=timeout
            )
        except (credentials.UnsupportedAccount, EngineUnavailable, OperationFailed) as fault:
            found.append({"service": service, "role": None, "agrees": None, "why": str(fault)})
            continue
        why = "it is on no network, or asks for no password there" if agrees is None else None
        if broken := credentials.find_unencoded(model, [account.password]):
            why = (
                f"{', '.join(broken)} holds the password as it is, so its client reads another one:"
                " percent-encode it there"
            )
        found.append({"service": service, "role": account.user, "agrees": agrees, "why": why})
    return found
