"""What is known before a new password is: the server, its role, and every file of the project that may hold the password."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from safe_compose import consumers, edits
from safe_compose.consumers import Account, Source
from safe_compose.engine import Engine, Files
from safe_compose.errors import BackupFailed, EngineUnavailable, Refused
from safe_compose.grammar import Invocation
from safe_compose.methods import DATABASES, PASSWORDS
from safe_compose.methods.database import Role, Silent
from safe_compose.observed import Container, Observed
from safe_compose.rotate import sources
from safe_compose.world import World


@dataclass(frozen=True, slots=True)
class Looked:
    """What is known before a new password is."""

    invocation: Invocation
    observed: Observed
    model: Mapping[str, Any] = field(repr=False)
    raw: Mapping[str, Any] | None = field(repr=False)
    account: Account
    container: Container
    server: Any
    role: Role = field(repr=False)
    sources: tuple[Source, ...]
    notes: tuple[str, ...] = ()
    old: str | None = field(default=None, repr=False)
    """What a person said that the database still has."""

    @property
    def project(self) -> str:
        return str(self.model.get("name", ""))

    @property
    def agrees(self) -> bool | None:
        """Whether the database has the password of the files."""
        return PASSWORDS[self.account.kind].fits(self.role.verifier, self.account.password, self.account.user)


def look(world: World, invocation: Invocation, service: str, user: str | None, old: str | None = None) -> Looked:
    """Find the service's database, role and password. `old`: what the database still has, where its server lets nobody in
    without. Raises Refused when one cannot be told, BackupFailed when it is silent."""
    engine = world.engine
    _refuse_half_done(world)
    observed = engine.look(invocation)
    model = engine.model(invocation)
    if model is None:
        raise _unloaded(invocation)
    mine = [c for c in observed.containers if c.project == str(model.get("name", "")) and c.service == service]
    try:
        account = consumers.account(model, service, user, edits.read, mine[0].environment if mine else None)
    except consumers.Unfit as unfit:
        raise Refused(f"{unfit}; nothing was changed", next_step="safe-compose rotate-password --help") from unfit
    container = _container(engine, mine, service)
    try:
        with knowing(account, old):
            server = DATABASES[account.kind].server(engine, container)
            role = PASSWORDS[account.kind].role(engine, server, account.user)
    except Silent as silent:
        if account.kind == "postgres":
            raise
        raise BackupFailed(
            f"{silent.message}; nothing was changed",
            next_step="put the password that the database still has into a file, and add --old-file FILE",
        ) from silent
    raw = engine.model(invocation, interpolated=False)
    found, notes = sources.find(invocation, model)
    return Looked(invocation, observed, model, raw, account, container, server, role, found, notes, old)


def _refuse_half_done(world: World) -> None:
    """What a killed run left must be put back first: its way back would undo whatever came after it."""
    for run in world.journal.unfinished():
        if run.facts.get("rotates") and run.engine_id in ("", world.engine.id):
            raise Refused(
                f"run {run.id} was killed while it changed the password of service {run.facts['rotates']}; nothing was changed",
                next_step="safe-compose recover",
            )


def knowing(account: Account, *more: str | None) -> AbstractContextManager[None]:
    return PASSWORDS[account.kind].knowing(account.user, *(word for word in (account.password, *more) if word))


def _unloaded(invocation: Invocation) -> Refused:
    if Files(invocation, os.environ).files:
        return Refused("compose cannot load this project; nothing was changed", next_step="docker compose config --quiet")
    return Refused("there is no compose file here; nothing was changed", next_step="cd to the folder of the compose file")


def _container(engine: Engine, mine: Sequence[Container], service: str) -> Container:
    found = [c for c in mine if c.state == "running"]
    if len(found) > 1:
        raise Refused(f"{len(found)} containers of {service} run; which is the database cannot be told; nothing was changed")
    if not found:
        paused = any(c.state == "paused" for c in mine)
        raise Refused(
            f"the database of service {service} {'is paused' if paused else 'does not run'}, so its password cannot be changed; "
            "nothing was changed",
            next_step=f"docker compose {'unpause' if paused else 'up -d --no-deps'} {service}",
        )
    return engine.container(found[0].id) or found[0]


# -- doctor ------------------------------------------------------------------------------------------------------------


def drifted(engine: Engine, invocation: Invocation, *, timeout: float) -> list[dict[str, Any]]:
    """Each running database of the project, and whether the password of the files lets its role in over the network, tried.

    `agrees` is None where that cannot be told; `why` says why. `timeout`: seconds for each. A login that fails stands in the
    server's log.
    """
    model = engine.model(invocation)
    found: list[dict[str, Any]] = []
    if model is None:
        return found
    running = [c for c in engine.containers() if c.project == str(model.get("name", "")) and c.state == "running"]
    for service, body in (model.get("services") or {}).items():
        mine = [c for c in running if c.service == service]
        inside = mine[0].environment if len(mine) == 1 else None
        kind = consumers.serves(body, inside) if isinstance(body, dict) and inside is not None else None
        if kind is None:
            continue
        try:
            account = consumers.account(model, service, None, edits.read, inside)
            agrees = PASSWORDS[kind].lets_in(engine, mine[0], account.user, account.password, timeout=timeout)
        except (consumers.Unfit, EngineUnavailable, BackupFailed) as fault:
            found.append({"service": service, "role": None, "agrees": None, "why": str(fault)})
            continue
        why = "it is on no network, or asks for no password there" if agrees is None else None
        found.append({"service": service, "role": account.user, "agrees": agrees, "why": why})
    return found
