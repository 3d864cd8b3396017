"""The road of a guarded command: look, plan, card, ask, lock, look again, back up, verify, look again, run docker, tell.

Nothing of ours stands on stdout, and stdin is docker's. Before docker runs every exit is an error of ours; after it ran the
exit code is docker's.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import IO, TYPE_CHECKING, NoReturn

from safe_compose import config, consent, grammar, hold, lock, plan, podman, policy, prompts, shim, threat
from safe_compose.artifacts import visible
from safe_compose.engine import Engine
from safe_compose.errors import BackupFailed, DockerNotFound, EngineUnavailable, Interrupted, LookAgain, Refused, SafeComposeError
from safe_compose.grammar import Invocation
from safe_compose.journal import Journal, Run
from safe_compose.observed import HELPER_LABEL, Observed
from safe_compose.plan import Doomed, Plan
from safe_compose.policy import Tier
from safe_compose.process import Process, hold_standard_descriptors
from safe_compose.world import Begun, World, enter, project_folder

if TYPE_CHECKING:  # imported when a card has been painted or answered: it stands there 40 ms sooner
    from safe_compose.backup import Kept, Request
    from safe_compose.halted import Halted
    from safe_compose.volume_trash import Thrown


class Terminated(BaseException):
    """SIGTERM or SIGHUP came before docker ran: clean up, then die by the same signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(invocation: Invocation, begun: Begun | None = None) -> int:
    """Stand between the command and docker.

    begun: the questions that are on their way already, since before this module was imported.

    Returns docker's exit code, or 0 for `--explain`; execs docker itself when nothing that matters would die; raises a
    SafeComposeError when docker was not run.
    """
    hold_standard_descriptors()
    try:
        with consent.told(invocation) as case:
            return _stand(invocation, begun, case)
    finally:
        if begun is not None:
            begun.engine.close()


def _stand(invocation: Invocation, begun: Begun | None, case: consent.Case) -> int:
    invocation = invocation._replace(own=grammar.own_from_environment(invocation.own, os.environ))
    if invocation.own.explain and invocation.own.offline:
        return _explain_offline(invocation)
    if invocation.kind == "none" and invocation.doubt is None:
        return _explain_harmless(invocation)
    try:
        world = enter(invocation, begun)
    except EngineUnavailable:  # Podman and nerdctl do not answer what docker is asked first: say who it was
        podman.refuse_impostor(shim.real_docker(invocation.program))
        raise
    gc.freeze()  # what has been imported stays; see `shim.wake`
    gc.enable()
    if "podman" in world.engine.maker.lower():  # docker's own client, at Podman's socket
        podman.refuse("Podman")
    if invocation.doubt is not None and _client_rejects(world.engine, invocation):
        return _explain_harmless(invocation) if invocation.own.explain else _hand_over(world, invocation)
    made = case.plan = look(world, invocation)
    if invocation.own.explain:
        _explain(made)
        return 0
    if lock.renew(world, made.observed):
        made = case.plan = look(world, invocation)
    if made.verdict == "pass":
        for warning in made.warnings:
            prompts.say(f"safe-compose: {warning}")
        return _hand_over(world, invocation)
    with signals_raise():
        code = hold.run(world, made, run_docker) if made.holds else _guarded(world, made, case)
    return code if code >= 0 else die_by(-code)


# -- look and plan ---------------------------------------------------------------------------------------------------


def _client_rejects(engine: Engine, invocation: Invocation) -> bool:
    """A flag that our tables do not know is an error to every client they cover; only a newer one could know it."""
    docker, compose = engine.client_versions()
    if invocation.verb[:1] == ("compose",):
        return compose is not None and compose[:2] <= grammar.KNOWN_COMPOSE
    return docker is not None and docker[:2] <= grammar.KNOWN_DOCKER


def look(world: World, invocation: Invocation) -> Plan:
    """One look at the engine, judged: which volumes die, which of them matter, what must be asked."""
    observed = world.engine.look(invocation, stdin=world.stdin)
    threatened = threat.threatened(invocation, observed)
    rules = world.rules(observed)
    kept = world.newest_verified()
    doomed = [
        Doomed(
            volume,
            verdict,
            observed.users(volume.name),
            policy.other_project(volume, observed),
            last_backup=kept.get(volume.name),
        )
        for volume, verdict in zip(threatened.volumes, world.judge(threatened.volumes, observed, rules), strict=True)
    ]
    made = plan.make(invocation, observed, threatened, doomed)
    return replace(made, safety="backup" if invocation.own.skip_backup else world.safety(observed))


def _explain(made: Plan) -> None:
    text = json.dumps(plan.to_json(made), ensure_ascii=False) if made.invocation.own.json else visible(plan.as_text(made))
    sys.stdout.write(text + "\n")


def _explain_offline(invocation: Invocation) -> int:
    shape = plan.offline_json(invocation)
    if invocation.own.json:
        sys.stdout.write(json.dumps(shape, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(f"verdict:  {shape['verdict']} (from the words alone)\nkind:     {shape['kind']}\n")
    return 0


def _explain_harmless(invocation: Invocation) -> int:
    """`--explain` of a command that cannot delete a volume: nothing is asked of the daemon."""
    harmless = plan.make(invocation, Observed("", ""), threat.Threat("none", (), (), (), ()), ())
    _explain(harmless)
    return 0


# -- pass ------------------------------------------------------------------------------------------------------------


def _hand_over(world: World, invocation: Invocation) -> int:
    """Let docker take our place; with a compose file that was read from stdin it runs as a child and reads it again."""
    world.engine.close()
    if world.stdin is None:
        shim.hand_over(invocation.argv, invocation.program, judged=True)
    code = run_docker(world, invocation)
    return code if code >= 0 else die_by(-code)


def note_unguarded(invocation: Invocation) -> None:
    """Journal a command that SAFE_COMPOSE=off lets through, where that is possible; it goes through all the same."""
    try:
        settings = config.load(project_folder(invocation), dict(os.environ))
        journal = Journal(settings.store, settings.access)
        entry = journal.begin(journal.new_id(), command=invocation.argv, program=invocation.program)
        entry.step("ended", outcome="handed over unguarded (SAFE_COMPOSE=off)")
    except SafeComposeError as fault:
        prompts.say(f"safe-compose: not journaled: {fault.message}")


# -- guard -----------------------------------------------------------------------------------------------------------


def _guarded(world: World, made: Plan, case: consent.Case) -> int:
    own = made.invocation.own
    approval = consent.granted(world, made)
    with consent.offered(world, made, case):
        if made.verdict == "refuse" and approval is None:
            raise Refused(
                f"this command deletes {_names(made.doomed)}, and nobody may be asked (--non-interactive)",
                next_step=made.refusal,
            )
    if not own.skip_backup:
        _backup_outlives_us(world.settings)
        world.catalogue.ensure()
    terminal = None if own.non_interactive or own.confirm is not None or approval else prompts.Terminal.open()
    if terminal is None and approval is None:
        with consent.offered(world, made, case):
            made = _answer_given(made)
    prompts.show_card(_with_details(world, made), lambda: _measured(world, made))
    if terminal is not None:
        made = _ask(made, terminal)
    command = (made.invocation.program, *made.invocation.argv)
    with world.catalogue.lock(world.engine.id, made.project or "volumes", command=command):
        if approval is not None:
            consent.take(world, made, approval)
        return _act(world, made, approval)


def _act(world: World, made: Plan, approval: str | None) -> int:
    """Back up, run docker, tell. The lock of the project is held; whatever happens, what was stopped is started again."""
    from safe_compose import volume_trash
    from safe_compose.halted import Halted

    journal_run = world.journal.begin(
        world.engine.run_id,
        command=made.invocation.argv,
        program=made.invocation.program,
        docker_globals=made.invocation.docker_globals,
        compose_globals=made.invocation.compose_globals,
        project=made.project,
        working_dir=made.observed.project.working_dir if made.observed.project else "",
        endpoint=world.engine.endpoint,
        engine_id=world.engine.id,
        approval=approval,
    )
    halted = Halted(world.engine, journal_run)
    thrown = volume_trash.Thrown(world.engine, journal_run)
    code: int | None = None
    try:
        last, kept = _prepared(world, made, journal_run, halted, thrown)
        started = partial(_note_docker, journal_run) if thrown.names else None
        code = run_docker(world, made.invocation, started)
        with prompts.only_said():  # docker ran: its exit code is ours, and a fault of ours changes nothing any more
            _tell(world, last, journal_run, kept.id if kept else None, thrown.names, code)
    except KeyboardInterrupt as interrupt:
        raise Interrupted("interrupted; nothing was deleted") from interrupt
    finally:
        _leave(world, journal_run, halted, thrown, code)
    return code


def _note_docker(journal_run: Run, pid: int) -> None:
    """Which docker it is that deletes: should we die, nothing is put back under its hands."""
    with prompts.only_said():
        journal_run.step("docker", process=Process.of(pid).facts())


def _prepared(
    world: World, made: Plan, journal_run: Run, halted: "Halted", thrown: "Thrown"
) -> "tuple[Plan, Kept | None]":
    """Everything that must be true before docker may run. Returns the last look and the backup."""
    from safe_compose import backup, copies
    from safe_compose.recover import recover

    holding = (made.project or "volumes",)
    recover(world.engine, world.catalogue, world.journal, but=world.engine.run_id, holding=holding)
    again = replace(look(world, made.invocation), safety=made.safety, insisted=made.insisted)
    _same(made, again)
    kept = None
    aside = _aside(world, again)
    needed = again.backed_up and not made.invocation.own.skip_backup
    if needed and len(aside) == len(again.backed_up) and again.safety == "trash" and not made.invocation.own.backup_first:
        backup.stop_all(world.engine, _request(again), world.settings, halted)
    elif needed:
        required = world.required_copies(again.observed)
        copies.reachable(required)
        backup.seal_for(world, again.observed)
        kept = backup.before_deletion(world.engine, world.catalogue, journal_run, _request(again), world.settings, halted)
        with prompts.only_said():
            if over := world.over_budget():
                prompts.say(f"safe-compose: {over}")
        if required:
            copies.send_required(world.catalogue, kept.backup, required)
            journal_run.step("copied", backup=kept.id, to=[to.name for to in required])
    last = _last_look(world, again, kept)
    if aside:
        last = _move_aside(world, last, aside, thrown)
    journal_run.step("running", **_way_back(again, kept))  # of `again`: by now the services are stopped
    return last, kept


def _request(made: Plan) -> "Request":
    from safe_compose import backup

    return backup.Request(
        project=made.project or "volumes",
        reason="pre-delete",
        command=made.invocation.argv,
        observed=made.observed,
        volumes=tuple((d.volume, d.verdict) for d in made.backed_up),
        may_stop=made.threat.stops,
    )


def _aside(world: World, made: Plan) -> frozenset[str]:
    """The volumes whose content goes into the trash before docker runs. Where one cannot go there it is said why; BackupFailed
    when a person had asked for just that."""
    if made.safety == "backup" or made.invocation.own.skip_backup:
        return frozenset()
    from safe_compose.methods import rename

    refusals = {d.name: made.no_trash for d in made.backed_up}
    if made.no_trash is None:
        folder = world.engine.volumes_folder()
        refusals = {d.name: rename.examine(world.engine, d.volume, folder) for d in made.backed_up}
    told = [f"volume {name} cannot go into the trash: {why}" for name, why in refusals.items() if why is not None]
    if told and made.insisted:
        raise BackupFailed(f"{'; '.join(told)}; nothing was deleted", next_step="run the command again, for a backup instead")
    for words in told:
        prompts.say(f"safe-compose: {words}; it is backed up")
    return frozenset(name for name, why in refusals.items() if why is None)


def _move_aside(world: World, last: Plan, names: frozenset[str], thrown: "Thrown") -> Plan:
    """Move content into the trash. Returns the plan with the volumes as they stand there now, empty."""
    from safe_compose import backup

    request = _request(last)
    now = []
    for d in last.doomed:
        if d.name in names:
            thrown.throw(d.volume, backup.record_of(request, d.volume, d.verdict, "trash", ()), last.project or "volumes")
            prompts.say(f"safe-compose: the content of {d.name} is in the trash")
        now.append(replace(d, volume=world.engine.volume(d.name) or d.volume))
    world.engine.sweep()
    if left := world.engine.leftovers():
        raise LookAgain(f"helper containers are still there ({', '.join(left)}); nothing was deleted")
    for d in now:
        if d.name in names and (on := [u.name for u in world.engine.users(d.name) if u.lively]):
            raise LookAgain(f"container {on[0]} was started on volume {d.name}; nothing was deleted")
    return replace(last, doomed=tuple(now))


def _leave(world: World, journal_run: Run, halted: "Halted", thrown: "Thrown", code: int | None) -> None:
    """Put back what is in the trash and was not deleted, start again what was stopped, remove our helpers, close the journal.
    No fault here hides what happened before.

    A run that could not do all of it stays open, so that `recover` and the next run try it once more.
    """
    from safe_compose.halted import undisturbed

    with undisturbed():
        untouched = thrown.settle(docker_ran=code is not None)
        if not untouched:
            prompts.say("safe-compose: what was stopped stays so until then: nothing may start on an empty volume")
        restored = whole = untouched and halted.restore()
    with prompts.only_said():
        if code is None:
            whole = False  # until they are gone
            world.engine.sweep()
            whole = restored
    with prompts.only_said():
        if whole:
            journal_run.step("ended", outcome="docker was not run" if code is None else f"docker exited with {code}")
        else:
            prompts.say("safe-compose: to start them later: safe-compose recover")


def _way_back(made: Plan, kept: "Kept | None") -> dict[str, object]:
    """What `undo` needs: the volumes meant, the backup, and the services that ran."""
    running = [c.service for c in made.threat.stops if c.lively and c.service]
    return {
        "volumes": [{"name": d.name, "created_at": d.volume.created_at} for d in made.doomed],
        "backup": kept.id if kept else None,
        "services": sorted({s for s in running if s}),
    }


def _backup_outlives_us(settings: config.Settings) -> None:
    if os.environ.get("CI") and not settings.store_configured and not settings.required_copies:
        raise BackupFailed(
            "CI is set and the backup would be kept in this runner's home, which dies with it; nothing was deleted",
            next_step="set SAFE_COMPOSE_HOME, or [store] path in safe-compose.toml, or an off-site copy with required = true",
        )


def _without_copy(made: Plan) -> Plan:
    """The phrase for the trash was given."""
    return replace(made, safety="trash", insisted=True)


def _answer_given(made: Plan) -> Plan:
    """Without anybody to ask: the flags must have answered. Returns the plan as they say; raises Refused, naming the flags to
    add."""
    own = made.invocation.own
    if own.confirm is not None:
        if own.confirm == made.trash_phrase and not own.backup_first:
            return _without_copy(made)
        if own.confirm != made.phrase:
            raise Refused(
                f"--confirm does not match: this command deletes {_names(made.doomed)}",
                next_step=f"--confirm '{made.phrase}'",
            )
        return made
    if own.non_interactive and own.backup_first:
        return made
    job = "add --non-interactive --backup-first (a verified backup instead of the confirmation)"
    raise Refused(
        f"this command deletes {_names(made.doomed)}, and there is no terminal to confirm it on. A person decides this",
        next_step=f"add --confirm '{made.phrase}'"
        if own.skip_backup
        else job + (f", and --confirm '{made.phrase}'" if made.touches_others else ""),
    )


def _ask(made: Plan, terminal: prompts.Terminal) -> Plan:
    answer = terminal.ask(prompts.question_for(made))
    if answer == made.trash_phrase and not made.invocation.own.backup_first:
        return _without_copy(made)
    if made.typed or made.invocation.own.skip_backup:
        if answer != made.phrase:
            raise Refused(f"the phrase was not '{made.phrase}'; nothing was deleted")
    elif answer.strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed; nothing was deleted")
    return made


def _with_details(world: World, made: Plan) -> Plan:
    details = {}
    copied = made.safety != "trash" or made.no_trash is not None or made.invocation.own.backup_first
    if copied and not made.invocation.own.skip_backup:
        details["backup goes to"] = f"{world.catalogue.root} ({plan.size_text(world.catalogue.room().bytes)} free)"
        if over := world.over_budget():
            details["store"] = over
        if trouble := _schedule_trouble(world, made):
            details["schedule"] = trouble
        if recipients := world.recipients(made.observed):
            details["encrypted for"] = f"{len(recipients)} recipient{'s' if len(recipients) != 1 else ''}"
        if required := world.required_copies(made.observed):
            details["copied off-site"] = ", ".join(f"{to.name} ({to.url})" for to in required)
    if not made.invocation.own.skip_backup and made.threat.stops:
        names = ", ".join(c.name for c in made.threat.stops if c.lively)
        details["stopped for it"] = names or "nothing runs"
    if milder := _without_volumes(made.invocation):
        details["safer"] = f"{milder} keeps every volume with a name"
    return replace(made, details=details, patience=world.settings.patience)


def _schedule_trouble(world: World, made: Plan) -> str | None:
    """What is wrong with the project's scheduled backups: now is when somebody reads it."""
    from safe_compose.timetable import Timetable

    return Timetable(world.catalogue.root).troubles().get(made.project or "")


def _without_volumes(invocation: Invocation) -> str | None:
    """The same command as it would be without its flag for volumes; None where that is another command, or not sure."""
    words = [word for word in invocation.argv if word not in ("-v", "--volumes", "--volume")]
    harmless = grammar.parse(words, invocation.program).kind == "none"
    return " ".join([invocation.program, *words]) if harmless and invocation.kind == "compose_down_volumes" else None


def _measured(world: World, made: Plan) -> Iterator[Sequence[Doomed]]:
    from safe_compose import measure

    yield from measure.for_card(world, made)


def _same(made: Plan, again: Plan) -> None:
    if made.identity() != again.identity() or again.verdict != made.verdict:
        raise LookAgain(
            "the volumes changed between the plan and now; nothing was deleted",
            next_step="run the command again and look anew",
        )


def _last_look(world: World, made: Plan, kept: "Kept | None") -> Plan:
    """The same volumes, nobody wrote since the archive began, and no helper of ours is left to hold a volume."""
    world.engine.sweep()
    left = world.engine.leftovers()
    if left:
        raise LookAgain(f"helper containers of this backup are still there ({', '.join(left)}); nothing was deleted")
    again = look(world, made.invocation)
    _same(made, again)
    if kept is None:
        return again
    for d in again.backed_up:
        if parked := [u.name for u in d.users if HELPER_LABEL in u.labels]:
            raise LookAgain(
                f"a helper container of another safe-compose holds volume {d.name}; nothing was deleted",
                next_step=f"when that one is dead: docker rm -f {' '.join(parked)}, then run the command again",
            )
        if kept.created_at.get(d.name) != d.volume.created_at:
            raise LookAgain(
                f"volume {d.name} changed after its archive began; nothing was deleted",
                next_step="find out what writes into it, stop that, then run the command again",
            )
        for user in d.users:
            if user.lively or kept.ran_since(user):
                raise LookAgain(
                    f"container {user.name} ran on volume {d.name} after its archive began; nothing was deleted",
                    next_step="stop what starts it, then run the command again",
                )
    return again


def _tell(world: World, made: Plan, journal_run: Run, backup_id: str | None, aside: Sequence[str], code: int) -> None:
    """What really died, whatever the exit code says; our own failures here change nothing any more."""
    gone: list[str] = []
    survived: list[str] = []
    for d in made.doomed:
        now = world.engine.volume(d.name)
        (survived if now is not None and now.created_at == d.volume.created_at else gone).append(d.name)
    journal_run.step("ran", code=code, gone=gone, survived=survived)
    if survived:
        prompts.say(f"safe-compose: docker exited with {code}; still there: {', '.join(survived)}")
    if gone:
        kept = [f"backup {backup_id}"] if backup_id else []
        kept += [f"in the trash for {plan.TRASH_DAYS} days: {', '.join(n for n in gone if n in aside)}"] if aside else []
        prompts.say(f"safe-compose: deleted {', '.join(gone)}; {'; '.join(kept) or 'no backup'}")
    if gone and (backup_id or aside):
        prompts.say("safe-compose: to bring everything back: safe-compose undo")


def _names(doomed: Sequence[Doomed]) -> str:
    if len(doomed) == 1:
        return f"volume {doomed[0].name}"
    matter = [d.name for d in doomed if d.verdict.tier is not Tier.DISPOSABLE]
    rest = len(doomed) - len(matter)
    return f"{len(doomed)} volumes ({', '.join(matter)}{f' and {rest} disposable' if rest else ''})"


# -- run docker ------------------------------------------------------------------------------------------------------


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOPPING = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)

Handler = Callable[[int, FrameType | None], object] | signal.Handlers


def _handle(numbers: Sequence[int], handler: Handler) -> None:
    """Handle signals, except those that our parent had us ignore (`nohup`, a background job): they stay ignored for docker
    as well, which inherits that."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


@contextmanager
def signals_raise() -> Iterator[None]:
    """While we work, the first SIGINT, SIGTERM or SIGHUP unwinds, so that what was stopped is started again.

    Those that follow change nothing: an impatient second Ctrl-C must not cut that off half-way. SIGQUIT still ends us.
    """

    def unwind(number: int, frame: FrameType | None) -> None:
        _handle(_ENDING, lambda *_: None)
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    _handle(_ENDING, unwind)
    try:
        yield
    except Terminated as terminated:
        name, code = signal.Signals(terminated.number).name, 128 + terminated.number
        prompts.say(f"safe-compose: ended by {name}; nothing was deleted")
        prompts.say(f"safe-compose: docker was not run ({code})")
        die_by(terminated.number)


def die_by(number: int) -> NoReturn:
    """End by a signal as if it had never been caught."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)  # blocked by our parent: the shell's number for it


class _Relay:
    """What signals do while docker runs: INT and QUIT reach it from the terminal by themselves, TERM and HUP are passed on;
    the terminal's stops do not stop us, but docker's own stop does (`_wait`), or else `fg` would find us stopped twice.

    Handlers, not SIG_IGN, so that exec gives docker the default dispositions. They are never put back: once docker ran only
    the telling is left, and it must not be cut off.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []
        _handle((*_ENDING, *_STOPPING, signal.SIGQUIT), self._on)

    def _on(self, number: int, frame: FrameType | None) -> None:
        if self._child is None:
            self._early += [number] if number not in _STOPPING else []
        elif number in (signal.SIGTERM, signal.SIGHUP) and self._child.returncode is None:
            os.kill(self._child.pid, number)  # not send_signal: its poll() would take the exit status from `_wait`

    def start(
        self,
        argv: Sequence[str],
        environment: Mapping[bytes, bytes],
        stdin: IO[bytes] | None,
        started: Callable[[int], None] | None,
    ) -> "subprocess.Popen[bytes]":
        if self._early:  # the last moment in which nothing has happened yet
            raise KeyboardInterrupt if self._early[0] in (signal.SIGINT, signal.SIGQUIT) else Terminated(self._early[0])
        try:
            self._child = subprocess.Popen(argv, stdin=stdin, env=environment, close_fds=False)
        except OSError as error:
            raise DockerNotFound(f"{argv[0]} does not start: {error.strerror}", next_step="set SAFE_COMPOSE_DOCKER") from error
        for number in self._early:
            self._on(number, None)
        if started is not None:
            started(self._child.pid)
        return self._child


def run_docker(world: World, invocation: Invocation, started: Callable[[int], None] | None = None) -> int:
    """Run the real docker as a child in our process group with everything inherited; its exit code, or its death.

    `started` gets its process id. When docker is stopped (Ctrl-Z) we stop as well. Minus N: it died by signal N. Raises
    DockerNotFound when it does not start.
    """
    with _replayed(world.stdin) as stdin:
        code = _wait(_Relay().start([world.docker, *invocation.argv], shim.guarded_environment(), stdin, started))
    _handle(_STOPPING, signal.SIG_DFL)
    return code


def _wait(child: "subprocess.Popen[bytes]") -> int:
    while True:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode
        os.kill(os.getpid(), signal.SIGSTOP)


@contextmanager
def _replayed(data: bytes | None) -> Iterator[IO[bytes] | None]:
    if data is None:
        yield None
        return
    with tempfile.TemporaryFile() as again:
        again.write(data)
        again.seek(0)
        yield again
