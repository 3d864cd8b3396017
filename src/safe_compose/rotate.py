"""The road of a database's password: looked up, planned, backed up, changed everywhere at once, tried, or put back everywhere.

`--sync` is the other half: the files were changed already and nothing can log in, so the database follows them. A run that is
killed leaves its originals in the store; `recover` puts everything back from there, or finds that it was done.
"""

import os
import re
import secrets
import string
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safe_compose import backup, composefile, consumers, edits, prompts, shim
from safe_compose.artifacts import Backup
from safe_compose.consumers import Account, Source, Survey
from safe_compose.edits import Change, Originals
from safe_compose.engine import Engine, Files
from safe_compose.errors import BackupFailed, EngineUnavailable, Interrupted, LookAgain, Refused, SafeComposeError
from safe_compose.grammar import Invocation
from safe_compose.journal import Run, RunRecord
from safe_compose.methods import DATABASES, PASSWORDS
from safe_compose.methods.database import Role, Silent
from safe_compose.observed import Container, Observed
from safe_compose.world import World

HEALTH_SECONDS = 60.0
"""How long a container that was made anew may take to be what it was before, and a database to answer."""
LENGTH = 32
"""Letters and digits of a generated password: they need no quoting anywhere."""
_DIVERGES = "doesn't match configuration in compose file"
_RECREATES = re.compile(r"Container (\S+)\s+Recreate$", re.MULTILINE)


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


@dataclass(frozen=True, slots=True)
class Rotation:
    """Everything that will be done."""

    looked: Looked
    new: str = field(repr=False)
    survey: Survey
    changes: tuple[Change, ...]
    first: tuple[str, ...]
    """The database's service, when its container has to be made anew."""
    services: tuple[str, ...]
    """The others that have to be."""
    scale: Mapping[str, int] = field(default_factory=dict)
    """Service -> containers that run of it, where that is not one."""
    awaited: Mapping[str, str] = field(default_factory=dict)
    """Service -> `healthy` or `running`, as it is now and has to be again. Nobody waits for one that is neither."""
    sync: bool = False

    @property
    def kept(self) -> str:
        """What is backed up first."""
        server = self.looked.server
        return f"a dump of {server.volume}, a folder of the host" if server.in_folder else str(server.volume)

    def lines(self) -> list[str]:
        """The plan as it is shown: names and places, no value."""
        looked, account = self.looked, self.looked.account
        lines = [f"database:   {account.user} at {looked.container.name} ({looked.server.title})"]
        if self.sync:
            agrees = looked.agrees
            lines.append(
                "password:   the one that the files say"
                + (": the database has it already" if agrees else "; the database has another one" if agrees is False else "")
            )
        elif looked.agrees is False:
            lines.append("password:   the database does not have the one that the files say, so nothing can log in now")
        for edit in self.survey.edits:
            lines.append(f"edits:      {edit.source.path}: {', '.join(edit.places)}")
        for service, places in self.survey.takers.items():
            lines.append(f"takes it:   {service}: {', '.join(places)}")
        lines.append(f"backup:     {self.kept}, hot, before anything changes; nothing is deleted")
        if anew := [*self.first, *self.services]:
            lines.append(f"made anew:  {', '.join(anew)} (compose up -d --no-deps)")
        lines += [f"note:       {note}" for note in (*looked.notes, *looked.role.notes, *self.survey.notes)]
        return lines


# -- look --------------------------------------------------------------------------------------------------------------


def look(world: World, invocation: Invocation, service: str, user: str | None, old: str | None = None) -> Looked:
    """Find the service's database, role and password. `old`: what the database still has, where its server lets nobody in
    without. Raises Refused when one cannot be told, BackupFailed when it is silent."""
    engine = world.engine
    _refuse_half_done(world)
    observed = engine.look(invocation)
    model = engine.model(invocation)
    if model is None:
        raise Refused("compose cannot load this project; nothing was changed", next_step="docker compose config --quiet")
    try:
        account = consumers.account(model, service, user, edits.read)
    except consumers.Unfit as unfit:
        raise Refused(f"{unfit}; nothing was changed", next_step="safe-compose rotate-password --help") from unfit
    container = _container(engine, observed, str(model.get("name", "")), service)
    try:
        with _knowing(account, old):
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
    sources, notes = _sources(invocation, model)
    return Looked(invocation, observed, model, raw, account, container, server, role, sources, notes, old)


def _refuse_half_done(world: World) -> None:
    """What a killed run left must be put back first: its way back would undo whatever came after it."""
    for run in world.journal.unfinished():
        if run.facts.get("rotates") and run.engine_id in ("", world.engine.id):
            raise Refused(
                f"run {run.id} was killed while it changed the password of service {run.facts['rotates']}; nothing was changed",
                next_step="safe-compose recover",
            )


def _knowing(account: Account, *more: str | None) -> AbstractContextManager[None]:
    return PASSWORDS[account.kind].knowing(account.user, *(word for word in (account.password, *more) if word))


def _container(engine: Engine, observed: Observed, project: str, service: str) -> Container:
    found = [c for c in observed.containers if c.project == project and c.service == service and c.state == "running"]
    if len(found) > 1:
        raise Refused(f"{len(found)} containers of {service} run; which is the database cannot be told; nothing was changed")
    if not found:
        raise Refused(
            f"the database of service {service} does not run, so its password cannot be changed; nothing was changed",
            next_step=f"docker compose up -d --no-deps {service}",
        )
    return engine.container(found[0].id) or found[0]


def _sources(invocation: Invocation, model: Mapping[str, Any]) -> tuple[tuple[Source, ...], tuple[str, ...]]:
    """Every file of the project that may hold the password, and what could not be followed."""
    files = Files(invocation, os.environ)
    found: dict[str, Source] = {}
    notes = ["compose files that are not on this machine were not searched"] if files.unseen else []

    def add(path: Path, kind: str, services: tuple[str, ...] = ()) -> Source | None:
        real = os.path.realpath(path)
        if real in found:
            found[real] = replace(found[real], services=tuple(dict.fromkeys((*found[real].services, *services))))
            return None
        text = edits.read(real)
        if text is None:
            return None
        found[real] = Source(_short(path), kind, text, services)
        return found[real]

    waiting = [(file, files.working_dir) for file in files.files]
    while waiting:
        file, base = waiting.pop(0)
        source = add(file, "compose")
        if source is None:
            continue
        try:
            scalars = composefile.scalars(source.text)
        except composefile.Unreadable:
            continue  # the survey refuses it
        for kind, word in _references(scalars):
            if "$" in word or "://" in word:
                notes.append(f"{source.path} names {kind} by a variable or an address: {word}; it was not searched")
            elif kind == "include":
                waiting.append((base / word, (base / word).parent))
            elif kind == "extends":
                waiting.append((file.parent / word, file.parent))
            else:
                add(base / word, kind)
    named = [f for f in os.environ.get("COMPOSE_ENV_FILES", "").split(",") if f]
    for folder in files.folders():
        for name in named or [".env"]:
            add(folder / name, "env")
    for service in model.get("services") or {}:
        for path, _ in consumers.mounted_files(model, str(service)):
            add(Path(path), "file", (str(service),))
    return tuple(found.values()), tuple(notes)


def _references(scalars: Iterable[composefile.Scalar]) -> Iterator[tuple[str, str]]:
    """Files that a compose file names: ("include" | "extends" | "env" | "env_file" | "env_file raw", path)."""
    raw = {s.path[:-1] for s in scalars if s.path[-1:] == ("format",) and s.value == "raw"}
    for s in scalars:
        match s.path:
            case ("include", _) | ("include", _, "path") | ("include", _, "path", _):
                yield "include", s.value
            case ("include", _, "env_file") | ("include", _, "env_file", _):
                yield "env", s.value
            case ("services", _, "extends", "file"):
                yield "extends", s.value
            case ("services", _, "env_file") | ("services", _, "env_file", _):
                yield "env_file", s.value
            case ("services", _, "env_file", _, "path"):
                yield ("env_file raw" if s.path[:-1] in raw else "env_file"), s.value
            case _:
                continue


def _short(path: Path) -> str:
    """As people name it: relative to where we are, when it lies below."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)


# -- plan --------------------------------------------------------------------------------------------------------------


def generated() -> str:
    """A new password that needs no quoting anywhere."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(LENGTH))


def plan(world: World, looked: Looked, new: str, *, leave: frozenset[str], also: frozenset[str]) -> Rotation:
    """Everything that a new password changes. Raises Refused, with every reason, when one cannot be changed safely."""
    if not new or not new.isprintable() or new != new.strip():
        raise Refused("the new password is empty, has a blank at an end or holds control characters; nothing was changed")
    if new == looked.account.password:
        raise Refused("that is the password that the files hold already; nothing was changed", next_step=_sync_command(looked))
    survey = consumers.survey(
        looked.model, looked.raw, looked.sources, looked.account, new, exported=os.environ, leave=leave, also=also
    )
    if survey.refusals:
        raise Refused(
            "; ".join(survey.refusals) + "; nothing was changed", next_step="correct that, then run the same command again"
        )
    by_text = {edit.source.path: edit for edit in survey.edits}
    changes = tuple(Change.of(path, edit.source.text, edit.text) for path, edit in by_text.items())
    for change in changes:
        change.refuse_unless_possible()
    strangers = consumers.strangers(looked.model, looked.account)
    notes = (
        *survey.notes,
        *(f"{place} logs in with another password already" for place in strangers),
        *_neighbours(world.engine, looked),
    )
    touched = {*survey.takers, *survey.mounted, looked.account.service}
    return _with_services(world, looked, Rotation(looked, new, replace(survey, notes=notes), changes, (), ()), touched)


def _neighbours(engine: Engine, looked: Looked) -> Iterator[str]:
    """Containers of other projects that share a network with the database and know its password: nobody changes theirs."""
    networks = set(looked.container.networks) - {"host", "none"}
    beside = [c for c in looked.observed.containers if c.project != looked.project and networks & set(c.networks)]
    for other in beside:
        if keys := consumers.held_by(looked.model, looked.account, engine.private(other.id).environment):
            whose = f" of project {other.project}" if other.project else ""
            yield f"container {other.name}{whose} has the old password ({', '.join(keys)}) and keeps it: change it there"


def plan_sync(world: World, looked: Looked) -> Rotation:
    """The database follows the files: nothing is edited."""
    account = looked.account
    survey = consumers.survey(looked.model, looked.raw, (), account, account.password, exported={})
    strangers = consumers.strangers(looked.model, account)
    notes = tuple(f"{place} logs in with another password, and will still be refused" for place in strangers)
    touched = {
        c.service
        for c in looked.observed.containers
        if c.project == looked.project and c.service and c.lively
        if consumers.stale(looked.model, account, c.service, world.engine.private(c.id).environment)
    }
    rotation = Rotation(looked, account.password, Survey((), survey.takers, (), notes), (), (), (), sync=True)
    return _with_services(world, looked, rotation, touched)


def _with_services(world: World, looked: Looked, rotation: Rotation, touched: set[str]) -> Rotation:
    """Those of the touched services that run, the database first; how many containers of each. Raises Refused when compose
    would want to delete a volume for it."""
    mine = [c for c in looked.observed.containers if c.project == looked.project and c.lively and c.service in touched]
    lively = [c.service for c in mine]
    own = looked.account.service
    others = sorted({s for s in lively if s is not None and s != own})
    scale = {s: lively.count(s) for s in {*others, own} if lively.count(s) > 1}
    first = (own,) if own in lively else ()
    awaited = {s: state for s in (*first, *others) if (state := _state([c for c in mine if c.service == s]))}
    made = replace(rotation, first=first, services=tuple(others), scale=scale, awaited=awaited)
    anew = [*made.first, *made.services]
    said = _dry_run(world, looked.invocation, anew) if anew else ""
    if _DIVERGES in said:
        raise Refused(
            "the compose file defines a volume otherwise than it was made, and compose would delete it to make it anew; nothing "
            "was changed",
            next_step="put its definition back, then run the same command again",
        )
    if not made.sync and (changed := sorted(set(_RECREATES.findall(said)))):
        note = f"{', '.join(changed)}: the compose file says something else than it was made from, which takes effect as well"
        made = replace(made, survey=replace(made.survey, notes=(*made.survey.notes, note)))
    return made


def _state(containers: Sequence[Container]) -> str | None:
    """What all containers of a service are: `healthy`, else `running`, else nothing that could be waited for."""
    if all(c.health == "healthy" for c in containers):
        return "healthy"
    return "running" if all(c.state == "running" for c in containers) else None


def _sync_command(looked: Looked) -> str:
    return f"safe-compose rotate-password --sync {looked.account.service}"


# -- act ---------------------------------------------------------------------------------------------------------------


def act(world: World, rotation: Rotation, *, again: Callable[[Looked], Rotation], user: str | None, wait: float) -> dict[str, Any]:
    """Back up, change everything, try it, and tell; any failure or signal puts everything back.

    `again` makes the plan anew from a second look, under the lock. Raises LookAgain when that differs.
    """
    looked = rotation.looked
    with _knowing(looked.account, looked.old, rotation.new):
        return _acted(world, rotation, again=again, user=user, wait=wait)


def _acted(
    world: World, rotation: Rotation, *, again: Callable[[Looked], Rotation], user: str | None, wait: float
) -> dict[str, Any]:
    looked = rotation.looked
    if rotation.sync and looked.agrees and not rotation.first and not rotation.services:
        _try_login(world, rotation)
        return _told(rotation, None, done=True)
    kept = _backed_up(world, looked, wait)
    command = ("safe-compose", "rotate-password", looked.account.service)
    with world.catalogue.lock(world.engine.id, looked.project, wait=wait, command=command):
        now = again(look(world, looked.invocation, looked.account.service, user, looked.old))
        if now.lines() != rotation.lines() or [c.before for c in now.changes] != [c.before for c in rotation.changes]:
            raise LookAgain("the project changed between the plan and now; nothing was changed", next_step="look at the plan anew")
        _act(world, now, kept.id)
    return _told(rotation, kept.id, done=True)


def _backed_up(world: World, looked: Looked, wait: float) -> Backup:
    if looked.server.in_folder:
        kind = looked.account.kind
        return backup.of_folder(world, looked.observed, looked.container, kind, wait=wait, reason="pre-rotate")
    return backup.by_hand(world, looked.invocation, names=(looked.server.volume,), wait=wait, reason="pre-rotate")


def _act(world: World, rotation: Rotation, backup_id: str) -> None:
    looked, account = rotation.looked, rotation.looked.account
    passwords = PASSWORDS[account.kind]
    run_id = world.journal.new_id()
    originals = Originals(world.catalogue.root, run_id)
    invocation = looked.invocation
    run = world.journal.begin(
        run_id,
        command=("rotate-password", *(("--sync",) if rotation.sync else ()), account.service),
        program="safe-compose",
        docker_globals=invocation.docker_globals,
        compose_globals=invocation.compose_globals,
        project=looked.project,
        endpoint=world.engine.endpoint,
        engine_id=world.engine.id,
        rotates=account.service,
        helpers=world.run_id,
        backup=backup_id,
    )
    verifier = passwords.verifier(rotation.new, account.user)
    way = _Way(
        rotation.changes,
        looked.project,
        account.service,
        account.kind,
        account.user,
        looked.role.verifier,
        verifier,
        rotation.first,
        rotation.services,
        dict(rotation.scale),
        rotation.survey.mounted,
        dict(rotation.awaited),
    )
    # A server that lets nobody in without a password has to be entered to put it back
    needed = [] if account.kind == "postgres" else [w for w in (account.password, rotation.new, looked.old) if w]
    anew = False
    originals.keep(rotation.changes, passwords=needed, **way.facts())
    try:
        run.step("changing", files=[c.path for c in rotation.changes], role=account.user)
        for change in rotation.changes:
            change.apply()
        run.step("written")
        _prove_files(world, rotation)
        passwords.put(world.engine, looked.server, account.user, verifier)
        run.step("database")
        _try_login(world, rotation)
        run.step("let-in")
        anew = True
        _make_anew(world, way, invocation, stop_seconds=world.settings.stop_timeout)
        _try_login(world, rotation)
        run.step("rotated")
    except BaseException as fault:
        with backup.undisturbed():
            reached = replace(way, first=(), services=()) if not anew else way
            _put_back(world, run, originals, reached, invocation, fault)
        if isinstance(fault, KeyboardInterrupt):
            raise Interrupted("interrupted while the password was changed") from fault
        raise
    originals.drop()
    run.step("ended", outcome="the password was changed")


def _prove_files(world: World, rotation: Rotation) -> None:
    """Compose reads the files as they were meant: every consumer has the new password, and nothing else is another. Raises
    Refused."""
    if not rotation.changes:
        return
    looked = rotation.looked
    now = world.engine.model(looked.invocation)
    if now is None:
        raise Refused("compose does not load the edited files; they were put back")
    own = consumers.own_names(looked.raw, looked.account)
    left = bool(rotation.survey.left)
    if wrong := consumers.differences(looked.model, now, looked.account, rotation.new, own, leave=left):
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise Refused(
            f"compose does not read the edited files as they were meant: {'; '.join(wrong[:3])}{more}; everything was put back",
            next_step="change these places by hand, and name them with --leave",
        )


def _try_login(world: World, rotation: Rotation) -> None:
    looked, account = rotation.looked, rotation.looked.account
    found = _running(world.engine, looked.project, account.service)
    let_in = PASSWORDS[account.kind].lets_in(world.engine, found, account.user, rotation.new)
    if let_in is False:
        raise BackupFailed(f"{found.name} does not let {account.user} in over the network with the new password")
    if let_in is None:
        prompts.say(f"safe-compose: {found.name} asks for no password over a network, so no login could prove anything")
    else:
        prompts.say(f"safe-compose: {found.name} lets {account.user} in over the network")


def _running(engine: Engine, project: str, service: str) -> Container:
    """The one running container of a service. Raises BackupFailed."""
    found = [c for c in engine.containers() if c.project == project and c.service == service and c.state == "running"]
    if len(found) != 1:
        raise BackupFailed(f"service {service} has {len(found)} running containers, not one")
    return found[0]


# -- services ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Way:
    """What has to be known to go on, and to go back."""

    changes: tuple[Change, ...]
    project: str
    service: str
    kind: str
    user: str
    old: str | None
    new: str | None
    first: tuple[str, ...]
    services: tuple[str, ...]
    scale: dict[str, int]
    mounted: tuple[str, ...]
    awaited: dict[str, str]

    def facts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "changes"}

    @classmethod
    def read(cls, changes: Sequence[Change], facts: Mapping[str, Any]) -> "_Way":
        names = [n for n in cls.__slots__ if n != "changes"]
        given: dict[str, Any] = {n: tuple(facts[n]) if isinstance(facts[n], list) else facts[n] for n in names}
        return cls(tuple(changes), **given)


def _make_anew(
    world: World,
    way: _Way,
    invocation: Invocation | RunRecord,
    *,
    stop_seconds: int,
    cwd: str | None = None,
    back: bool = False,
) -> None:
    """The database's container first, then those of its clients, as the files say now. Raises BackupFailed.

    On the way `back` no client is waited for.
    """
    for some in (way.first, way.services):
        forced = tuple(s for s in some if s in way.mounted)
        for services, more in ((tuple(s for s in some if s not in forced), ()), (forced, ("--force-recreate",))):
            if not services:
                continue
            scaled = [word for s in services if s in way.scale for word in ("--scale", f"{s}={way.scale[s]}")]
            words = ("up", "-d", "--no-deps", "--pull", "never", "--timeout", str(stop_seconds), *more, *scaled, *services)
            done = _compose(world, invocation, words, cwd=cwd)
            if done.returncode:
                raise BackupFailed(f"compose could not make {', '.join(services)} anew (exit code {done.returncode})")
            _wait(world.engine, way, [s for s in services if not back or s == way.service])
        if way.service in some:
            _wait_answers(world.engine, way)


def _wait(engine: Engine, way: _Way, services: Sequence[str]) -> None:
    """Until the containers of services are what they were before. Raises BackupFailed as soon as one cannot be, or is late."""
    mine = [c for c in engine.containers() if c.project == way.project and c.service in services]
    awaited = [c.name for c in mine if way.awaited.get(c.service or "") == "healthy" and c.health == "starting"]
    others = [c.name for c in mine if way.awaited.get(c.service or "") != "healthy" and c.health == "starting"]
    if awaited:
        prompts.say(f"safe-compose: waiting until {', '.join(awaited)} is healthy as before (at most {HEALTH_SECONDS:.0f} s)")
    if others:
        prompts.say(f"safe-compose: not waiting until {', '.join(others)} is healthy: it was not before")
    for container in mine:
        if (state := way.awaited.get(container.service or "")) is not None:
            _wait_until(engine, container, state)


def _wait_until(engine: Engine, container: Container, state: str) -> None:
    """`running`, or `healthy` where it still has a health check."""
    until = time.monotonic() + HEALTH_SECONDS
    while True:
        now = engine.container(container.id)
        if now is not None and now.state == "running" and (state == "running" or now.health in (None, "healthy")):
            return
        ended = now is None or now.state in ("exited", "dead", "removing") or now.health == "unhealthy"
        if ended or time.monotonic() > until:
            found = f"{now.state}, health {now.health or 'not checked'}" if now else "gone"
            raise BackupFailed(f"container {container.name}, made anew, is not {state} but {found}")
        time.sleep(0.1)


def _wait_answers(engine: Engine, way: _Way) -> None:
    """Until the database's own server answers: its clients, and a trial login, would find none. Raises BackupFailed."""
    until = time.monotonic() + HEALTH_SECONDS
    while True:
        try:
            DATABASES[way.kind].server(engine, _running(engine, way.project, way.service))
            return
        except Silent:
            if time.monotonic() > until:
                raise
        time.sleep(0.2)


def _compose(
    world: World, invocation: Invocation | RunRecord, words: Sequence[str], *, cwd: str | None = None, show: bool = True
) -> "subprocess.CompletedProcess[bytes]":
    """Compose with the same words before the verb; stdin is empty, so that a question of compose is answered no."""
    command = [world.docker, *invocation.docker_globals, "compose", *invocation.compose_globals, *words]
    if show:
        prompts.say(f"safe-compose: docker compose {' '.join(words)}")
    return subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=2 if show else subprocess.PIPE,
        stderr=None if show else subprocess.STDOUT,
        env=shim.original_environment(),
        check=False,
    )


def _dry_run(world: World, invocation: Invocation, services: Sequence[str]) -> str:
    done = _compose(world, invocation, ("--dry-run", "up", "-d", "--no-deps", *services), show=False)
    return done.stdout.decode("utf-8", "replace")


# -- the way back ------------------------------------------------------------------------------------------------------


def _put_back(world: World, run: Run, originals: Originals, way: _Way, invocation: Invocation, fault: BaseException) -> None:
    """Files, role and services as they were; what cannot be put back leaves the run open, and is said."""
    with prompts.only_said():  # a full disk keeps nobody from putting back what was there
        run.step("putting-back")
    try:
        told = _back(world, way, invocation, stop_seconds=world.settings.stop_timeout)
        originals.drop()
        run.step("ended", outcome=f"put back: {type(fault).__name__}")
        prompts.say(f"safe-compose: put back: {', '.join(told) or 'nothing had changed'}")
    except SafeComposeError as further:
        prompts.say(f"safe-compose: not everything could be put back: {further.message}")
        prompts.say("safe-compose: what was there before is kept; to put it back: safe-compose recover")


def _back(world: World, way: _Way, invocation: Invocation | RunRecord, *, stop_seconds: int, cwd: str | None = None) -> list[str]:
    """Put everything back, from whatever point was reached; what was done, in words. Raises the first fault, after the rest.

    What somebody else has changed since is theirs: it is left, and said.
    """
    told: list[str] = []
    faults: list[SafeComposeError] = []

    def attempt(what: str, step: Callable[[], bool]) -> bool:
        try:
            if step():
                told.append(what)
        except LookAgain as theirs:
            told.append(theirs.message)
        except SafeComposeError as fault:
            faults.append(fault)
            return False
        return True

    for change in way.changes:

        def file(change: Change = change) -> bool:
            touched = change.state() != "before"
            change.take_back()
            return touched

        attempt(change.path, file)

    def role() -> bool:
        container = _running(world.engine, way.project, way.service)
        server = DATABASES[way.kind].server(world.engine, container)
        now = PASSWORDS[way.kind].role(world.engine, server, way.user).verifier
        if now == way.old:
            return False
        if now != way.new:
            raise LookAgain(f"the password of {way.user} was changed by somebody else meanwhile; it was left as it is")
        PASSWORDS[way.kind].put(world.engine, server, way.user, way.old)
        return True

    def services() -> bool:
        _make_anew(world, way, invocation, stop_seconds=stop_seconds, cwd=cwd, back=True)
        return True

    reached = attempt(f"the password of {way.user}", role)
    if way.first or way.services:
        silent = faults.pop() if not reached else None
        attempt(f"services {', '.join((*way.first, *way.services))}", services)
        if silent is not None:  # the database may not have run; now it does
            attempt(f"the password of {way.user}", role)
    if faults:
        raise faults[0]
    return told


def recover(world: World) -> list[str]:
    """Put back what runs left that were killed while they changed a password, or find that they had done everything. Returns
    what was done, in words."""
    told = []
    for record in world.journal.unfinished():
        if not record.facts.get("rotates") or record.engine_id not in ("", world.engine.id):
            continue
        originals = Originals(world.catalogue.root, record.id)
        world.engine.sweep(str(record.facts.get("helpers") or record.id))
        kept = originals.load()
        run = world.journal.reopen(record.id)
        complete = record.last("rotated") is not None and record.last("putting-back") is None
        if kept is None or complete:
            done = "it was complete" if complete else "nothing had changed"
        else:
            way = _Way.read(*kept)
            if record.last("let-in") is None:  # no container was made anew yet
                way = replace(way, first=(), services=())
            words_of = PASSWORDS[way.kind].knowing(way.user, *kept[1].get("passwords", ()))
            with world.catalogue.lock(world.engine.id, way.project, command=("safe-compose", "recover")), words_of:
                words = _back(world, way, record, stop_seconds=world.settings.stop_timeout, cwd=record.cwd or None)
            done = f"put back: {', '.join(words)}" if words else "nothing had changed"
        originals.drop()
        run.step("ended", outcome=f"cut off; {done}")
        told.append(f"run {record.id} was cut off while it changed the password of service {record.facts['rotates']}; {done}")
    for line in told:
        prompts.say(f"safe-compose: {line}")
    return told


# -- telling -----------------------------------------------------------------------------------------------------------


def _told(rotation: Rotation, backup_id: str | None, *, done: bool) -> dict[str, Any]:
    looked, account = rotation.looked, rotation.looked.account
    return {
        "service": account.service,
        "role": account.user,
        "container": looked.container.name,
        "sync": rotation.sync,
        "agreed_before": looked.agrees,
        "files": [{"path": e.source.path, "places": list(e.places)} for e in rotation.survey.edits],
        "takers": {service: list(places) for service, places in rotation.survey.takers.items()},
        "made_anew": [*rotation.first, *rotation.services],
        "notes": [*looked.notes, *looked.role.notes, *rotation.survey.notes],
        "backup": backup_id,
        "done": done,
    }


def shape(rotation: Rotation) -> dict[str, Any]:
    """What a plan is, as JSON: names and places, no value."""
    return _told(rotation, None, done=False)


# -- doctor ------------------------------------------------------------------------------------------------------------


def drifted(engine: Engine, invocation: Invocation, *, timeout: float) -> list[dict[str, Any]]:
    """Each running database of the project, and whether the password of the files lets its role in over the network, tried.

    `agrees` is None where that cannot be told; `why` says why. `timeout`: seconds for each. A login that fails stands in the
    server's log.
    """
    model = engine.model(invocation)
    found: list[dict[str, Any]] = []
    for service, body in ((model or {}).get("services") or {}).items():
        kind = consumers.serves(body) if isinstance(body, dict) else None
        mine = [c for c in engine.containers() if c.project == str((model or {}).get("name")) and c.service == service]
        if kind is None or model is None or [c.state for c in mine] != ["running"]:
            continue
        try:
            account = consumers.account(model, service, None, edits.read)
            agrees = PASSWORDS[kind].lets_in(engine, mine[0], account.user, account.password, timeout=timeout)
        except (consumers.Unfit, EngineUnavailable, BackupFailed) as fault:
            found.append({"service": service, "role": None, "agrees": None, "why": str(fault)})
            continue
        why = "it is on no network, or asks for no password there" if agrees is None else None
        found.append({"service": service, "role": account.user, "agrees": agrees, "why": why})
    return found
