"""The road of `safe-compose schedule`: backups that nobody has to think of, and what is told when one fails or is missing.

One run: a hot backup, then what the rules let go is forgotten, the copies off-site, a share of the backups read again (L2), and
once a week the newest one restored on trial (L4). After a failed backup nothing is forgotten.
"""

import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from safe_compose import backup, copies, prompts, timer, upkeep, webhook
from safe_compose.artifacts import Backup, hide_secrets
from safe_compose.config import Settings
from safe_compose.destination import Destination
from safe_compose.errors import LookAgain, Refused, SafeComposeError, UsageError, VerifyFailed
from safe_compose.grammar import Invocation
from safe_compose.process import stamp, utc_now
from safe_compose.timetable import Record, Timetable
from safe_compose.world import World

READ_AGAIN = Fraction(1, 7)
"""Of a project's backups, each run: every one has its turn within a week of daily runs."""
_CARRIED = (
    "PATH", "HOME", "SUDO_USER", "SAFE_COMPOSE_HOME", "SAFE_COMPOSE_DOCKER", "SAFE_COMPOSE_IDENTITY", "DOCKER_HOST",
    "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME",
    "COMPOSE_PROFILES", "COMPOSE_ENV_FILES", "COMPOSE_PATH_SEPARATOR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "AWS_PROFILE",
    "AWS_REGION",
)  # fmt: skip
"""Variables that say which project, engine and store are meant: a timer starts without them. None of them is a secret."""


@dataclass
class Outcome:
    """What one run did."""

    project: str
    began: str
    backup: str | None = None
    steps: list[tuple[str, str]] = field(default_factory=list)
    """(part, what came of it)."""
    faults: list[SafeComposeError] = field(default_factory=list)
    tried: bool = False
    skipped: bool = False

    def shape(self) -> dict[str, Any]:
        """As JSON, and for the webhook."""
        return {
            "project": self.project,
            "host": socket.gethostname(),
            "began": self.began,
            "ended": stamp(utc_now()),
            "ok": not self.faults,
            "skipped": self.skipped,
            "backup": self.backup,
            "steps": [{"step": step, "words": words} for step, words in self.steps],
            "faults": [fault.message for fault in self.faults],
        }


def job(world: World, invocation: Invocation, at: Sequence[str]) -> timer.Job:
    """What a timer would run for the project of `invocation`. Raises UsageError where there is none."""
    found = world.engine.look(invocation).project
    if found is None or found.mode != "config":
        raise UsageError(
            "there is no compose project here that compose can read; nothing was written",
            next_step="cd to its compose file; docker compose config --quiet says what is wrong with one",
        )
    files = [f"--file={value}" for name, value in invocation.compose_flags if name == "file"]
    times = [f"--at={text}" for text in at]
    argv = (sys.executable, "-P", "-m", "safe_compose", "schedule", "run", f"--project={found.name}", *files, *times)
    environ = {name: os.environ[name] for name in _CARRIED if os.environ.get(name)}
    for name, value in environ.items():
        if hide_secrets(value) != value:
            raise UsageError(
                f"{name} holds a password, which would stand in the unit; nothing was written",
                next_step="name the engine by a docker context, and the keys by files",
            )
    return timer.Job(found.name, str(Path.cwd()), argv, environ, tuple(at))


def put_in_place(world: World, plan: timer.Job, units: dict[str, str], into: Path) -> None:
    """Install the units and write the schedule down. Raises Refused."""
    known = refuse_other(world, plan)
    world.catalogue.ensure()
    timer.install(units, into)
    timetable = Timetable(world.catalogue.root, world.settings.access)
    now = stamp(utc_now())
    kept = known or Record(plan.project, plan.folder, plan.at, now)
    timetable.put(replace(kept, at=plan.at, how="systemd", since=now))


def refuse_other(world: World, plan: timer.Job) -> Record | None:
    """The schedule that the project has already. One of the same name in another folder is another project's: Refused."""
    known = Timetable(world.catalogue.root).of(plan.project)
    if known is not None and Path(known.folder).resolve() != Path(plan.folder).resolve():
        raise Refused(
            f"a project {plan.project} is scheduled already, in {known.folder}; nothing was written",
            next_step=f"in that folder: safe-compose schedule remove --project {plan.project}",
        )
    return known


# -- a run -------------------------------------------------------------------------------------------------------------


def run(world: World, ways: Sequence[Invocation], name: str | None, at: Sequence[str]) -> Outcome:
    """One scheduled run, recorded from its first moment. Its faults are in the outcome; each part runs that still can.

    ways: how the project may be meant, the best first: the folder's own files say more than a name. Raises UsageError when it
    is none of them.
    """
    invocation, name = _meant(world, ways, name)
    timetable = Timetable(world.catalogue.root, world.settings.access)
    world.catalogue.ensure()
    known = timetable.of(name) or Record(name, str(Path.cwd()), tuple(at), stamp(utc_now()))
    record = timetable.begin(replace(known, at=tuple(at) or known.at))
    outcome = Outcome(name, record.began or "")
    kept: list[Backup] = []

    def make() -> str:
        kept.append(backup.by_hand(world, invocation, names=(), wait=0, reason="schedule"))
        outcome.backup = kept[0].id
        return f"{kept[0].id} ({kept[0].level})"

    try:
        _part(outcome, "backup", make)
    except LookAgain as busy:
        outcome.skipped = True
        outcome.steps.append(("backup", f"skipped: {busy.message}"))
    if kept:
        _part(outcome, "forget", lambda: _forget(world, name))
        for to in world.settings.offsite:
            _part(outcome, f"copy to {to.name}", partial(_copy, world, kept[0], to))
    _part(outcome, "read again", lambda: _read_again(world, name))
    if record.trial_due(utc_now()):
        _part(outcome, "trial", lambda: _trial(world, name, outcome))
    timetable.end(record, [fault.message for fault in outcome.faults], backup=outcome.backup, tried=outcome.tried)
    return outcome


def _meant(world: World, ways: Sequence[Invocation], name: str | None) -> tuple[Invocation, str]:
    for invocation in ways:
        found = world.engine.look(invocation).project
        if found is not None and (found.name == name or (name is None and found.mode == "config")):
            return invocation, found.name
    what = f"there is no project {name} here" if name else "there is no compose project here"
    raise UsageError(f"{what}; nothing was backed up", next_step="safe-compose schedule status")


def never_began(settings: Settings, project: str, fault: SafeComposeError) -> Outcome:
    """A run that ended before it could begin (no daemon, no compose file): the schedule says so as well."""
    timetable = Timetable(settings.store, settings.access)
    outcome = Outcome(project, stamp(utc_now()), faults=[fault])
    if (known := timetable.of(project)) is not None:
        with prompts.only_said():  # on a full disk the schedule shows it in time all the same: its run did not end
            timetable.end(timetable.begin(known), [fault.message], backup=None, tried=False)
    return outcome


def _part(outcome: Outcome, name: str, work: Callable[[], str]) -> None:
    """One part of a run; its fault is kept and the next part runs. LookAgain of the backup is for the caller."""
    try:
        words = work()
    except LookAgain:
        if name == "backup":
            raise
        outcome.steps.append((name, "skipped: another safe-compose is at work"))
        return
    except SafeComposeError as fault:
        outcome.faults.append(fault)
        words = f"FAILED: {fault.message}"
    outcome.steps.append((name, words))
    prompts.say(f"safe-compose: {name}: {words}")


def _forget(world: World, project: str) -> str:
    policy = world.settings.retention
    if policy is None or policy.empty:
        return "no rules: everything stays"
    going = upkeep.by_policy(world.catalogue, policy, utc_now(), project)
    going.refuse_wrong_clock()
    if going.doomed:
        upkeep.forget(world.catalogue, world.journal, going, ("schedule", "run"), wait=0)
    return f"forgot {len(going.doomed)} of {len(going.judged)} backups"


def _copy(world: World, kept: Backup, to: Destination) -> str:
    (sent,) = copies.push(world.catalogue, [kept], to)
    if sent.fault is not None:
        raise sent.fault
    return sent.words or sent.state


def _read_again(world: World, project: str) -> str:
    chosen = upkeep.sample(world.catalogue.listed(project), READ_AGAIN)
    broken = [r for r in upkeep.read_again(world.catalogue, chosen, None, time.monotonic) if r.fault]
    if broken:
        raise VerifyFailed(f"{len(broken)} of {len(chosen)} backups do not verify: {', '.join(r.listed.id for r in broken)}")
    return f"{len(chosen)} of {project} verified"


def _trial(world: World, project: str, outcome: Outcome) -> str:
    newest = next((b for b in world.catalogue.listed(project) if b.verified), None)
    if newest is None:
        return "no verified backup yet"
    (reading,) = upkeep.read_again(world.catalogue, [newest], world.engine, time.monotonic)
    if reading.fault:
        raise VerifyFailed(f"backup {newest.id} does not come back: {reading.fault}")
    outcome.tried = True
    return f"{newest.id} verified {reading.listed.level}"


def tell(settings: Settings, outcome: Outcome) -> None:
    """Tell the webhook of the settings, if there is one; that it cannot be reached is said and fails nothing."""
    if settings.webhook is not None and (fault := webhook.tell(settings.webhook, {"version": 1, **outcome.shape()})):
        prompts.say(f"safe-compose: the webhook was not reached: {fault}")
