"""The way back of one database: from a backup, or from a dump that anybody made, into a server that lives.

read all of it -> look at the server -> show the plan -> ask -> lock -> restore beside the living one -> count -> stop the
services that use it -> two renames in one transaction -> log in as they do -> start them again. Whatever goes wrong before the
renames are committed, a SIGKILL as well, leaves the living database as it was; afterwards it is there under the name that was
told, until somebody drops it.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any, Protocol

from safe_compose import prompts
from safe_compose.artifacts import Artifact, Backup, DatabaseStatistics, TableCount, VolumeRecord
from safe_compose.engine import Engine
from safe_compose.errors import BackupFailed, Interrupted, LookAgain, Refused, SafeComposeError, UsageError, VerifyFailed
from safe_compose.grammar import parse
from safe_compose.halted import Halted, signals_wait, undisturbed
from safe_compose.journal import Run
from safe_compose.methods import mysql, postgres, stream
from safe_compose.methods.lexer import BadDump
from safe_compose.methods.mysql import foreign
from safe_compose.methods.postgres import bare, beside
from safe_compose.methods.postgres.dump import differences, measure
from safe_compose.methods.postgres.said import NotOne, Said, elsewhere, said
from safe_compose.methods.trials import require_same
from safe_compose.observed import Container, Observed
from safe_compose.plan import size_text
from safe_compose.recover import recover
from safe_compose.world import World

LOCK_SECONDS = 60.0
SETTLE_SECONDS = 3.0
"""How long a session may last that is there when nobody should be: a health check comes and goes."""
_LOOK = parse(["volume", "ls"])


class Source(Protocol):
    """A dump of one database, wherever it comes from."""

    @property
    def words(self) -> str:
        """`backup 20261122T072700Z-3f9a1c`"""

    @property
    def backup_id(self) -> str | None: ...

    def read(self, engine: Engine, image: str) -> Said:
        """All of it, from the first byte to the last. Raises VerifyFailed, Refused, LookAgain."""

    def script(self, engine: Engine, image: str, name: str, known: Said) -> Any:
        """A context that yields the same dump under another name. Raises as `read`."""

    def counted(self, known: Said) -> DatabaseStatistics | None:
        """What must be there afterwards; None where a dump holds its rows in a form that is not counted."""

    def globals(self, known: Said) -> bytes:
        """The script of the server's roles; empty where there is none."""

    def size(self, known: Said) -> int:
        """Bytes that the database took, or will about take."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One database of a backup."""

    world: World
    kept: Backup
    record: VolumeRecord
    database: str

    @classmethod
    def of(cls, world: World, kept: Backup, database: str, volume: str | None) -> "Kept":
        """Raises UsageError where the backup has no dump of it."""
        having = [r for r in kept.volumes if volume in (None, r.name) and _has(r, database)]
        if not having:
            dumped = sorted({a.database for r in kept.volumes for a in r.artifacts if a.kind == "database" and a.database})
            there = f"it has {', '.join(dumped)}" if dumped else "it has none"
            raise UsageError(
                f"backup {kept.id} has no dump of database {database} ({there}); nothing was restored",
                next_step=f"safe-compose show {kept.id}",
            )
        if len(having) > 1:
            names = ", ".join(r.name for r in having)
            raise UsageError(f"database {database} is in {names}; nothing was restored", next_step="add --volume NAME")
        if having[0].data_kind != "postgres":
            raise Refused(
                f"volume {having[0].name} is {having[0].data_kind}: one database alone is restored to PostgreSQL only; nothing "
                "was restored",
                next_step=f"the whole volume for a look: safe-compose restore {kept.id} --volume {having[0].name} --into scratch",
            )
        return cls(world, kept, having[0], database)

    @property
    def words(self) -> str:
        return f"backup {self.kept.id} of {self.kept.created}"

    @property
    def backup_id(self) -> str | None:
        return self.kept.id

    def size(self, known: Said) -> int:
        return self._statistics.bytes

    @property
    def _statistics(self) -> DatabaseStatistics:
        every = self.record.statistics.databases if self.record.statistics is not None else ()
        found = next((d for d in every if d.name == self.database), None)
        if found is None:
            raise VerifyFailed(f"backup {self.kept.id}: database {self.database} was not counted when it was dumped")
        return found

    def read(self, engine: Engine, image: str) -> Said:
        folder, dump = Path(self.kept.path), _dump_of(self.record, self.database)
        assert dump is not None  # `of` looked
        try:
            if (locked := stream.locked(folder, replace(self.record, artifacts=(dump,)))) is not None:
                raise locked
            with prompts.progress(f"verify {dump.file}", total=dump.uncompressed_bytes) as report:
                try:
                    found = said(stream.unpack(folder, dump, progress=report))
                except NotOne as fault:  # which says nothing against the backup
                    raise Refused(
                        f"{dump.file}: {fault}; nothing was restored",
                        next_step=f"the whole volume: safe-compose restore {self.kept.id} --volume {self.record.name}",
                    ) from fault
                except BadDump as fault:
                    raise stream.unproved(dump, str(fault)) from fault
            if wrong := differences(found.scanner, self._statistics):
                raise stream.unproved(dump, wrong)
        except VerifyFailed as fault:
            self.world.catalogue.mark_broken(self.kept, fault.message)
            raise VerifyFailed(f"{fault.message}; nothing was touched", next_step=fault.next_step) from fault
        return found

    @contextmanager
    def script(self, engine: Engine, image: str, name: str, known: Said) -> Iterator[Iterable[bytes]]:
        dump = _dump_of(self.record, self.database)
        assert dump is not None
        yield elsewhere(stream.unpack(Path(self.kept.path), dump), name, Said())

    def counted(self, known: Said) -> DatabaseStatistics | None:
        return self._statistics

    def globals(self, known: Said) -> bytes:
        artifact = next((a for a in self.record.artifacts if a.kind == "globals"), None)
        return b"".join(stream.unpack(Path(self.kept.path), artifact)) if artifact is not None else b""


def _has(record: VolumeRecord, database: str) -> bool:
    """A dump of its own, or one of a whole server of another kind that holds it."""
    if record.data_kind == "postgres" or record.statistics is None:
        return _dump_of(record, database) is not None
    return database in {d.name for d in record.statistics.databases}


def _dump_of(record: VolumeRecord, database: str) -> Artifact | None:
    return next((a for a in record.artifacts if a.kind == "database" and a.database == database), None)


@dataclass(frozen=True, slots=True)
class File:
    """A dump that anybody made."""

    file: bare.DumpFile
    database: str | None = None
    """Which one of a dump of a whole server."""

    @property
    def words(self) -> str:
        return f"{self.file.path} ({self.file.form}, {size_text(self.file.identity[2])})"

    @property
    def backup_id(self) -> str | None:
        return None

    def size(self, known: Said) -> int:
        return known.size

    def read(self, engine: Engine, image: str) -> Said:
        with prompts.progress(f"read {self.file.path.name}"):
            return bare.read(engine, image, self.file, self.database)

    def script(self, engine: Engine, image: str, name: str, known: Said) -> Any:
        return bare.script(engine, image, self.file, name, known)

    def counted(self, known: Said) -> DatabaseStatistics | None:
        tables = tuple(TableCount(schema, table, rows) for (schema, table), rows in known.tables())
        return DatabaseStatistics(known.database or "", 0, tables, known.scanner.large_objects) if tables else None

    def globals(self, known: Said) -> bytes:
        return known.globals


def from_file(world: World, path: Path, *, database: str | None, volume: str | None, project: str | None) -> File:
    """A dump as the source of a restore. Raises UsageError, VerifyFailed, and Refused for one of MySQL or MariaDB, with what a
    person can do."""
    found = bare.look_at(path)
    if not found.mysql:
        return File(found, database)
    with bare.opened(found) as source, prompts.progress(f"read {path.name}"):
        dump = foreign.said(stream.blocks_of(source))
    engine = world.engine
    name, password = "CONTAINER", ""
    if len(serving := _running(engine, engine.look(_LOOK), mysql.serves, volume, project)) == 1:
        name, environment = serving[0][0].name, engine.private(serving[0][0].id).environment
        password = next((key for key in ("MARIADB_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD") if environment.get(key)), "")
    raise Refused(
        f"{path} is {dump.words}. It is put in no living database's place: this server cannot rename a database, and renaming its "
        "tables leaves triggers, views and routines behind. Nothing was restored",
        next_step=dump.next_step(path, zipped=found.zipped, container=name, password=password),
    )


# -- look --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Swap:
    """What will be done, after one look."""

    engine: Engine
    source: Source
    dump: Said
    server: postgres.Server
    living: beside.Living
    database: str
    new: str
    """The name while it is restored."""
    aside: str | None
    """The name that the living one gets; None where there is none."""
    stops: tuple[Container, ...]
    strangers: tuple[str, ...]
    """Who is connected and cannot be stopped by us, in words."""
    missing: tuple[str, ...]
    """Roles that the dump names and the server lacks."""
    before: DatabaseStatistics | None

    @property
    def project(self) -> str:
        return self.server.container.project or "volumes"

    def to_look(self) -> Iterator[str]:
        """The commands that show what is in it, and the one that throws it away."""
        client = f"docker exec -it {self.server.container.name} psql -U {quote(self.server.user)}"
        yield f"{client} -d {self.database}"
        yield f"{client} -d {self.server.maintenance} -c {quote(f'DROP DATABASE {beside.identifier(self.database)}')}"

    def expects(self) -> DatabaseStatistics | None:
        return self.source.counted(self.dump)

    def shape(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "backup": self.source.backup_id,
            "file": str(self.source.file.path) if isinstance(self.source, File) else None,
            "volumes": [],
            "database": {
                "name": self.database,
                "server": self.server.container.name,
                "volume": self.server.volume,
                "version": self.server.version,
                "kept_as": self.aside,
                "dumped_from": self.dump.server or None,
                "dumped_by": self.dump.client or None,
                "roles": list(self.missing),
            },
            "stops": [c.name for c in self.stops],
            "phrase": self.database if self.living.exists else None,
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        dump, server = self.dump, self.server
        made = f"PostgreSQL {dump.server}, by pg_dump {dump.client}" if dump.server else "it does not say of which server"
        yield f"from {self.source.words}: {made}"
        expects = self.expects()
        tables = f"{len(expects.tables)} tables, {expects.rows} rows" if expects else "rows as INSERT: not counted beforehand"
        yield f"  whole: {tables}{f', {dump.scanner.large_objects} large objects' if dump.scanner.large_objects else ''}"
        yield f"  into database {self.database} of {server.container.name} ({server.title}, volume {server.volume})"
        if self.living.exists:
            held = f"{len(self.before.tables)} tables, {self.before.rows} rows, " if self.before is not None else ""
            held += size_text(self.living.bytes)
            yield f"  the living one ({held}) stays on the server as {self.aside}, with its last writes"
        else:
            yield "  there is none of that name yet"
        if self.missing:
            yield f"  roles that the server lacks are made: {', '.join(self.missing)}"
        if self.stops:
            yield f"  stopped for the moment of the swap, then started again: {', '.join(c.name for c in self.stops)}"


def restore(
    world: World,
    source: Source,
    *,
    volume: str | None,
    project: str | None,
    database: str | None,
    confirm: str | None,
    ask: bool = True,
    dry_run: bool = False,
    scratch: bool = False,
) -> dict[str, Any]:
    """Restore one database beside the living one and swap it in; `scratch`: under a name of its own, for a look.

    volume: whose server gets it; without one the only running PostgreSQL of `project`, else of the engine. database: its name
    there; default the name that the dump was made under. Raises UsageError, Refused, LookAgain, VerifyFailed, BackupFailed: the
    living one is as it was then.
    """
    engine = world.engine
    if not dry_run:
        recover(engine, world.catalogue, world.journal, but=world.run_id)
    container = _serving(engine, engine.look(_LOOK), volume, project)
    server = postgres.server(engine, container)
    dump = source.read(engine, server.address.image)
    name = database or dump.database or dump.part or None
    if scratch:
        name = f"scratch_{world.run_id[-6:]}_{_plain(name or 'dump')}"
    if name is None:
        raise UsageError(
            f"{source.words} does not say the name of its database; nothing was restored",
            next_step=f"add --database NAME; the server has {', '.join(server.databases)}",
        )
    found = _look(world, source, dump, server, name, world.run_id[-6:])
    for line in found.lines():
        prompts.say(f"safe-compose: {line}")
    _possible(found)
    if dry_run:
        return {**found.shape(), "dry_run": True, "plan": list(found.lines())}
    if found.living.exists:
        _consent(found, confirm, ask)
    done = _locked(world, found, name)
    if scratch:
        prompts.say(f"safe-compose: nothing uses database {name}. To look at it, then to throw it away:")
        for line in found.to_look():
            prompts.say(f"  {line}")
    return done


def _locked(world: World, found: Swap, name: str) -> dict[str, Any]:
    """Look again under the project's lock, then act. Raises as `restore` does."""
    engine, source, dump, server = found.engine, found.source, found.dump, found.server
    world.catalogue.ensure()
    with world.catalogue.lock(engine.id, found.project, wait=LOCK_SECONDS, command=("safe-compose", "restore")):
        _same(engine, server.container)
        again = _look(world, source, dump, server, name, world.run_id[-6:], found.before)
        if again.living.exists != found.living.exists:
            raise LookAgain("the server changed between the plan and now; nothing was restored", next_step="run it again")
        _possible(again)
        return _act(world, again)


def _serving(engine: Engine, observed: Observed, volume: str | None, project: str | None) -> Container:
    """The container of the running server. Raises UsageError, Refused."""
    serving = _running(engine, observed, postgres.serves, volume, project)
    if len(serving) == 1:
        return serving[0][0]
    if volume is not None:
        raise Refused(
            f"no running PostgreSQL keeps its data in volume {volume}; nothing was restored",
            next_step="start its service (docker compose up -d SERVICE), or restore the whole volume without --database",
        )
    where = f"in project {project}" if project else "on this engine"
    names = ", ".join(name for _, name in serving) or "none"
    raise UsageError(
        f"which PostgreSQL shall get it? Running {where}: {names}; nothing was restored", next_step="add --volume NAME"
    )


def _running(
    engine: Engine, observed: Observed, serves: Callable[[Container, str], bool], volume: str | None, project: str | None
) -> list[tuple[Container, str]]:
    """The running servers of one kind with the volume of each: that volume, else those of a project, else all."""
    running = [c for c in observed.containers if c.state == "running"]
    inspected = [full for c in running if (full := engine.container(c.id)) is not None]
    return [
        (c, name) for c in inspected for name in sorted(c.volume_names())
        if serves(c, name) and (volume == name if volume is not None else project in (None, c.project))
    ]  # fmt: skip


def _same(engine: Engine, container: Container) -> None:
    """Raises LookAgain unless the same server runs still."""
    now = engine.container(container.id)
    if now is None or now.started_at != container.started_at or now.state != "running":
        raise LookAgain(f"container {container.name} was restarted or removed meanwhile; nothing was restored")


def _look(
    world: World,
    source: Source,
    dump: Said,
    server: postgres.Server,
    name: str,
    token: str,
    before: DatabaseStatistics | None = None,
) -> Swap:
    engine = world.engine
    living = beside.living(engine, server, name)
    observed = engine.look(_LOOK)
    stops, strangers = _clients(engine, observed, server, name) if living.exists else ((), ())
    missing = tuple(r for r in dump.roles if r not in living.roles)
    small = living.exists and living.bytes <= world.settings.trial_limit
    base = _plain(name)
    if before is None and small:
        [before] = measure(engine, beside.near(server), [name])
    new, aside = f"{base}_new_{token}", f"{base}_old_{token}" if living.exists else None
    return Swap(engine, source, dump, server, living, name, new, aside, stops, strangers, missing, before)


def _plain(name: str) -> str:
    """A name of plain letters, so that no statement of a dump needs a quote where it stands."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name.lower())[:40]


def _clients(
    engine: Engine, observed: Observed, server: postgres.Server, database: str
) -> tuple[tuple[Container, ...], tuple[str, ...]]:
    """The services of the server's own project that use it: those that are connected, and those that compose starts after it.
    And everybody else who is connected, in words."""
    own = server.container
    lively = [c for o in observed.containers if o.lively and o.id != own.id and (c := engine.container(o.id)) is not None]
    mine = [c for c in lively if own.project is not None and c.project == own.project]
    clients = {c.id: c for c in mine if own.service is not None and own.service in c.depends_on}
    strangers: list[str] = []
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        strangers = []
        for session in beside.sessions(engine, server, database):
            at = [c for c in lively if session.address in c.addresses]
            inside = (
                [c for c in lively if c.network_mode == f"container:{own.id}"] if session.address in ("127.0.0.1", "::1") else []
            )
            owner = next(iter(at or inside), None)
            if owner is not None and owner in mine and not owner.auto_remove:
                clients[owner.id] = owner
            else:
                of = f", container {owner.name} of project {owner.project or '-'}" if owner is not None else ""
                strangers.append(f"{session}{of}")
        if not strangers or time.monotonic() > until:
            break
        time.sleep(0.2)  # between two looks; the end is bounded
    return tuple(clients.values()), tuple(strangers)


def _possible(found: Swap) -> None:
    """Raises Refused, BackupFailed, LookAgain."""
    expects = found.expects()
    extensions = [e.partition(" ")[0] for e in expects.extensions] if expects is not None else []
    reason = beside.obstacle(found.dump, extensions, found.server, found.living, found.source.size(found.dump))
    if reason is not None:
        fault = BackupFailed if "are needed" in reason[0] else Refused
        raise fault(
            f"{found.source.words} does not fit {found.server.container.name}: {reason[0]}; nothing was restored",
            next_step=reason[1],
        )
    if found.strangers:
        raise LookAgain(
            f"database {found.database} is in use by clients that are not services of this project: {'; '.join(found.strangers)}; "
            "nothing was restored",
            next_step="end those sessions, then run it again",
        )


def _consent(found: Swap, confirm: str | None, ask: bool) -> None:
    why = f"database {found.database} would be replaced"
    question = "To put it in the place of the living one"
    prompts.ask_phrase(question, found.database, confirm, ask=ask, nothing="nothing was restored", why=why)


# -- act ---------------------------------------------------------------------------------------------------------------


def _act(world: World, found: Swap) -> dict[str, Any]:
    engine, server = found.engine, found.server
    run = world.journal.begin(
        world.run_id,
        command=("restore", found.source.backup_id or "FILE"),
        program="safe-compose",
        project=found.project,
        endpoint=engine.endpoint,
        engine_id=engine.id,
    )
    halted = Halted(engine, run)
    facts: dict[str, Any] = {
        "container": server.container.id,
        "volume": server.volume,
        "database": found.database,
        "beside": found.new,
        "aside": found.aside,
        "roles": [],
    }
    outcome = "nothing was changed"
    try:
        run.step("beside", **facts)
        now, words = _beside_and_in(found, run, halted, facts)
        outcome = f"database {found.database} restored"
    except BaseException as fault:
        outcome = _take_back(found, facts)
        if isinstance(fault, KeyboardInterrupt):
            raise Interrupted(f"interrupted: {outcome}") from fault
        raise
    finally:
        whole = halted.restore()
        with prompts.only_said():
            engine.sweep()
        with prompts.only_said():
            if whole and outcome:
                run.step("ended", outcome=outcome)
    _tell(found)
    sides = {"before": _counts(found.before), "backup": _counts(found.expects()), "now": _counts(now)}
    row = {"volume": server.volume, "database": found.database, **sides}
    return {**found.shape(), "login": words, "statistics": [row]}


def _beside_and_in(found: Swap, run: Run, halted: Halted, facts: dict[str, Any]) -> tuple[DatabaseStatistics, str]:
    """Load, compare, stop, swap, log in. Raises; the caller takes back, by `facts`."""
    engine, server, source = found.engine, found.server, found.source
    creates = found.dump.database is not None
    if found.missing:
        script = beside.roles_script(source.globals(found.dump), found.missing, found.living.roles)
        beside.make_roles(engine, server, found.database, script)
        facts["roles"] = list(found.missing)  # only what is surely ours is taken back
        run.step("beside", **facts)
    if not creates:
        beside.make_empty(engine, server, found.database, found.new, exists=found.living.exists)
    with (
        prompts.progress(f"restore {found.database} as {found.new}", total=found.dump.size) as report,
        source.script(engine, server.address.image, found.new, found.dump) as blocks,
    ):
        now = beside.load(engine, server, found.database, found.new, _told(blocks, report), creates=creates)
    if (expects := found.expects()) is not None:
        require_same(_flat(expects), _flat(now, of=expects), server.volume, f"restore of database {found.database}")
    run.step("loaded", database=found.new, tables=len(now.tables), rows=now.rows)
    fits = _login(engine, server, found.database if found.living.exists else server.maintenance)
    stopping = [there for c in found.stops if (there := engine.container(c.id)) is not None]
    halted.stop(stopping)
    beside.end_sessions(engine, server, found.database, [at for c in stopping for at in c.addresses])
    _, strangers = _clients(engine, engine.look(_LOOK), server, found.database)
    if strangers:
        raise LookAgain(f"database {found.database} is in use again ({'; '.join(strangers)})", next_step="run it again")
    with signals_wait():
        run.step("swapping", database=found.database, beside=found.new, aside=found.aside)
        beside.swap(engine, server, found.database, found.new, found.aside)
        run.step("swapped", database=found.database)
        after = _login(engine, server, found.database)
        if fits[0] and not after[0]:
            if found.aside is not None:
                beside.swap(engine, server, found.database, found.aside, found.new)
            raise VerifyFailed(f"the service's own login does not work on what was restored: {after[1]}")
        run.step("restored", database=found.database)
    return now, after[1]


def _login(engine: Engine, server: postgres.Server, database: str) -> tuple[bool, str]:
    """Whether the service's own way in works, and that in words."""
    try:
        fault = beside.login(engine, server, database)
    except beside.NoLogin as reason:
        return False, f"not tried: {reason}"
    return (True, "works") if fault is None else (False, fault)


def _take_back(found: Swap, facts: Mapping[str, Any]) -> str:
    """After a fault: to one of the two ends, as the server's own names say. Empty when that has to wait for `recover`."""
    with undisturbed():
        try:
            done, words = beside.settled(found.engine, found.server, facts)
        except SafeComposeError as fault:
            prompts.say(
                f"safe-compose: database {found.new} could not be taken away: {fault.message}; database {found.database} was not "
                "touched. Once the server runs again: safe-compose recover"
            )
            return ""
    prompts.say(f"safe-compose: {words}")
    return words if done else "nothing was changed"


def _told(blocks: Iterable[bytes], report: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    for block in blocks:
        done += len(block)
        report(done)
        yield block


def _flat(counted: DatabaseStatistics, of: DatabaseStatistics | None = None) -> Mapping[str, int]:
    """Rows of each table; `of`: only of those that it has, because a dump of anybody's may leave some out."""
    wanted = {(t.schema, t.table) for t in (of or counted).tables}
    found = {f"{t.schema}.{t.table}": t.rows for t in counted.tables if (t.schema, t.table) in wanted}
    return {**found, "large objects": counted.large_objects}


def _counts(database: DatabaseStatistics | None) -> dict[str, int] | None:
    return {"tables": len(database.tables), "rows": database.rows} if database is not None else None


def _tell(found: Swap) -> None:
    prompts.say(f"safe-compose: database {found.database} of {found.server.container.name} is back, from {found.source.words}")
    if found.aside is not None:
        sql = f"DROP DATABASE {beside.identifier(found.aside)}"
        ask = f"docker exec {found.server.container.name} psql -U {quote(found.server.user)} -d {found.server.maintenance}"
        words = f"the one before it is kept as {found.aside}; when nobody needs it any more"
        prompts.say(f"safe-compose: {words}: {ask} -c {quote(sql)}")
