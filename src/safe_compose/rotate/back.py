"""Everything put back: files, role and services, from whatever point was reached; also what a killed run left."""

from collections.abc import Callable
from dataclasses import replace

from safe_compose import prompts
from safe_compose.edits import Change, Originals
from safe_compose.errors import LookAgain, SafeComposeError
from safe_compose.grammar import Invocation
from safe_compose.journal import Run, RunRecord
from safe_compose.methods import DATABASES, PASSWORDS
from safe_compose.rotate.anew import Way, make_anew, running
from safe_compose.world import World


def put_back(world: World, run: Run, originals: Originals, way: Way, invocation: Invocation, fault: BaseException) -> None:
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


def _back(world: World, way: Way, invocation: Invocation | RunRecord, *, stop_seconds: int, cwd: str | None = None) -> list[str]:
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
        container = running(world.engine, way.project, way.service)
        server = DATABASES[way.kind].server(world.engine, container)
        now = PASSWORDS[way.kind].role(world.engine, server, way.user).verifier
        if now == way.old:
            return False
        if now != way.new:
            raise LookAgain(f"the password of {way.user} was changed by somebody else meanwhile; it was left as it is")
        PASSWORDS[way.kind].put(world.engine, server, way.user, way.old)
        return True

    def services() -> bool:
        make_anew(world, way, invocation, stop_seconds=stop_seconds, cwd=cwd, back=True)
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
            way = Way.read(*kept)
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
