"""A scheduled backup with all that follows it, and the report when one fails or is missing.

A run makes a hot backup, forgets what the rules release, makes off-site copies, reads a share of
the backups again (L2), and once a week test-restores the newest one (L4). After a failed backup
nothing is forgotten.
"""

import http.client
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from safe_compose.core import backup_set
from safe_compose.core.backup import Backup, Omission
from safe_compose.core.destination import Destination
from safe_compose.core.redaction import hide_secrets
from safe_compose.core.text import shell_quote
from safe_compose.errors import (
    OperationFailed,
    Refused,
    SafeComposeError,
    StateChanged,
    UsageError,
    VerificationFailed,
)
from safe_compose.grammar.parser import Invocation
from safe_compose.operations import folders, forget, offsite
from safe_compose.operations.backup import layers, manual, omissions
from safe_compose.operations.schedule import systemd
from safe_compose.settings.load import Settings
from safe_compose.store.schedules import Schedule, Schedules
from safe_compose.system.files import find_real_path
from safe_compose.system.process import read_clock, stamp
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace

READ_AGAIN = Fraction(1, 7)
"""The share of a project's backups that each run reads again.

With daily runs, every backup has its turn within a week.
"""
_WEBHOOK_SECONDS = 20
_CARRIED = (
    "PATH", "HOME", "SUDO_USER", "SAFE_COMPOSE_HOME", "SAFE_COMPOSE_DOCKER",
    "SAFE_COMPOSE_IDENTITY", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES",
    "COMPOSE_ENV_FILES", "COMPOSE_PATH_SEPARATOR", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
    "AWS_PROFILE", "AWS_REGION",
)  # fmt: skip
"""Variables that say which project, engine and store are meant, for a timer that lacks them.

None of them is a secret.
"""


@dataclass
class ScheduledRun:
    """A record of what one run did."""

    project: str
    began: str
    backup: str | None = None
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of a part's name and its result."""
    faults: list[SafeComposeError] = field(default_factory=list)
    tried: bool = False
    skipped: bool = False
    omitted: tuple[Omission, ...] = ()
    """What the backup does not hold."""

    def shape(self) -> dict[str, Any]:
        """Return the run as JSON, also for the webhook."""
        return {
            "project": self.project,
            "host": socket.gethostname(),
            "began": self.began,
            "ended": stamp(read_clock()),
            "ok": not self.faults,
            "skipped": self.skipped,
            "backup": self.backup,
            "steps": [{"step": step, "words": words} for step, words in self.steps],
            "faults": [fault.message for fault in self.faults],
            "omitted": [asdict(omission) for omission in self.omitted],
        }


def make_job(workspace: Workspace, invocation: Invocation, at: Sequence[str]) -> systemd.Job:
    """Return what a timer would run for the project of `invocation`.

    Raises:
        UsageError: There is no such project, or a variable holds a password.
    """
    found = workspace.engine.commands.look(invocation).project
    if found is None or found.mode != "config":
        raise UsageError(
            "there is no compose project here that compose can read; nothing was written",
            next_step=(
                "cd to its compose file; docker compose config --quiet says what is wrong with one"
            ),
        )
    files = [f"--file={value}" for name, value in invocation.compose_flags if name == "file"]
    times = [f"--at={text}" for text in at]
    argv = (
        sys.executable,
        "-P",
        "-m",
        "safe_compose",
        "schedule",
        "run",
        f"--project={found.name}",
        *files,
        *times,
    )
    environ = {name: os.environ[name] for name in _CARRIED if os.environ.get(name)}
    for name, value in environ.items():
        if hide_secrets(value) != value:
            raise UsageError(
                f"{name} holds a password, which would stand in the unit; nothing was written",
                next_step="name the engine by a docker context, and the keys by files",
            )
    return systemd.Job(found.name, str(Path.cwd()), argv, environ, tuple(at))


def list_omissions(workspace: Workspace, invocation: Invocation) -> tuple[Omission, ...]:
    """Return what a scheduled run would not back up as things are now.

    These are some folders and files of the host, and volumes that do not exist, such as those of a
    profile that was never started.

    Raises:
        OperationFailed: The project keeps no data, so every run would fail.
    """
    observed = backup_set.add_idle_mounts(workspace.engine.commands.look(invocation))
    found = backup_set.select_volumes(observed)
    host = folders.find_folders(workspace, observed, for_backup=True)
    if not (found.volumes or found.omitted or host.data) and not layers.find_layers(
        workspace.engine, observed
    ):
        omissions.tell_omitted(host.omitted)
        raise OperationFailed(
            "the project here has no volume, no folder with data and no data in its containers, so"
            " a run would back up nothing; nothing was written",
            next_step="safe-compose volumes",
        )
    return (*found.omitted, *host.omitted)


def install(workspace: Workspace, plan: systemd.Job, units: dict[str, str], into: Path) -> None:
    """Install the units and record the schedule.

    Raises:
        Refused: A project of the same name is scheduled in another folder, or systemd does not
            accept the units.
    """
    known = refuse_other(workspace, plan)
    workspace.catalogue.folder.ensure()
    systemd.install(units, into)
    timetable = Schedules(workspace.catalogue.root, workspace.settings.access)
    now = stamp(read_clock())
    schedule = known or Schedule(plan.project, plan.folder, plan.at, now)
    timetable.put(replace(schedule, at=plan.at, how="systemd", since=now))


def refuse_other(workspace: Workspace, plan: systemd.Job) -> Schedule | None:
    """Return the schedule that the project has; None when it has none.

    Raises:
        Refused: The schedule is of another project, which has the same name in another folder.
    """
    known = Schedules(workspace.catalogue.root).of(plan.project)
    if known is not None and find_real_path(known.folder) != find_real_path(plan.folder):
        raise Refused(
            f"a project {plan.project} is scheduled already, in {known.folder}; nothing was"
            " written",
            next_step=(
                "in that folder: safe-compose schedule remove --project"
                f" {shell_quote(plan.project)}"
            ),
        )
    return known


# -- a run -----------------------------------------------------------------------------------------


def run(
    workspace: Workspace, invocations: Sequence[Invocation], name: str | None, at: Sequence[str]
) -> ScheduledRun:
    """Make one scheduled run, and return its record.

    It is recorded from its first moment. Faults are in the record, and every part runs that still
    can.

    Args:
        workspace: The workspace.
        invocations: The commands that may mean the project, the best first: the folder's own files
            say more than a name.
        name: The name of the project; None for that of the current folder.
        at: The times of the schedule.

    Raises:
        UsageError: None of them finds the project.
        OperationFailed: The store is missing, or cannot be written.
    """
    invocation, name = _find_project(workspace, invocations, name)
    timetable = Schedules(workspace.catalogue.root, workspace.settings.access)
    workspace.protections.require_present()
    workspace.catalogue.folder.ensure()
    known = timetable.of(name) or Schedule(name, str(Path.cwd()), tuple(at), stamp(read_clock()))
    record = timetable.begin(replace(known, at=tuple(at) or known.at))
    outcome = ScheduledRun(name, record.began or "")
    backups: list[manual.ManualBackup] = []

    def make() -> str:
        made = manual.back_up_all(
            workspace, invocation, names=(), wait=0, reason="schedule", made=backups
        )[-1].backup
        outcome.backup, outcome.omitted = made.id, made.omitted
        if (partial := omissions.report_incomplete(made)) is not None:
            outcome.faults.append(partial)
            return f"PARTIAL: {partial.message}"
        return f"{made.id} ({made.level})"

    try:
        _run_part(outcome, "backup", make)
    except StateChanged as busy:
        outcome.skipped = not backups
        outcome.faults += [busy] if backups else []
        outcome.steps.append(("backup", f"{'FAILED' if backups else 'skipped'}: {busy.message}"))
    complete = outcome.backup is not None
    if backups and not complete:  # the last one failed
        outcome.backup = backups[-1].backup.id
    if complete:
        _run_part(outcome, "forget", lambda: _forget(workspace, name))
    for within, made in backups:
        for to in within.settings.offsite:
            _run_part(outcome, f"copy to {to.name}", partial(_copy, within, made, to))
    if complete:
        for to in workspace.settings.offsite:
            if not any(to in within.settings.offsite for within, _ in backups):
                _run_part(outcome, f"copy to {to.name}", partial(_refuse_copy, to))
    _run_part(outcome, "read again", lambda: _reverify(workspace, name))
    if record.trial_due(read_clock()):
        _run_part(outcome, "trial", lambda: _trial(workspace, name, outcome))
    timetable.end(
        record,
        [fault.message for fault in outcome.faults],
        backup=outcome.backup,
        tried=outcome.tried,
    )
    return outcome


def _find_project(
    workspace: Workspace, invocations: Sequence[Invocation], name: str | None
) -> tuple[Invocation, str]:
    for invocation in invocations:
        found = workspace.engine.commands.look(invocation).project
        if found is not None and (found.name == name or (name is None and found.mode == "config")):
            return invocation, found.name
    what = f"there is no project {name} here" if name else "there is no compose project here"
    raise UsageError(f"{what}; nothing was backed up", next_step="safe-compose schedule status")


def report_not_begun(settings: Settings, project: str, fault: SafeComposeError) -> ScheduledRun:
    """Record and return a run that could not begin, such as without a daemon or a compose file."""
    timetable = Schedules(settings.store, settings.access)
    outcome = ScheduledRun(project, stamp(read_clock()), faults=[fault])
    if (known := timetable.of(project)) is not None:
        # On a full disk, the schedule shows it in time all the same, because the run did not end.
        with terminal.reporting_only():
            timetable.end(timetable.begin(known), [fault.message], backup=None, tried=False)
    return outcome


def _run_part(outcome: ScheduledRun, name: str, work: Callable[[], str]) -> None:
    """Run one part of a scheduled run, and keep its fault, so that the next part runs.

    Raises:
        StateChanged: The backup found the project locked.
    """
    try:
        words = work()
    except StateChanged:
        if name == "backup":
            raise
        outcome.steps.append((name, "skipped: another safe-compose is at work"))
        return
    except SafeComposeError as fault:
        outcome.faults.append(fault)
        words = f"FAILED: {fault.message}"
    outcome.steps.append((name, words))
    # The command ends with the first fault, whose message is printed then.
    if outcome.faults and words.endswith(last := f": {outcome.faults[0].message}"):
        words = f"{words.removesuffix(last)}, see the last lines"
    terminal.say(f"safe-compose: {name}: {words}")


def _forget(workspace: Workspace, project: str) -> str:
    policy = workspace.settings.retention
    if policy is None or policy.empty:
        return "no rules: everything stays"
    going = forget.select_by_policy(workspace.catalogue, policy, read_clock(), project)
    going.refuse_wrong_clock()
    if going.doomed:
        forget.forget(workspace.catalogue, workspace.journal, going, ("schedule", "run"), wait=0)
    return f"forgot {len(going.doomed)} of {len(going.judged)} backups"


def _copy(workspace: Workspace, backup: Backup, to: Destination) -> str:
    (sent,) = offsite.push(workspace.catalogue, [backup], to)
    if sent.fault is not None:
        raise sent.fault
    return sent.words or sent.state


def _refuse_copy(to: Destination) -> str:
    """Refuse the copy of volumes that are not the project's own to a destination of its file.

    Raises:
        OperationFailed: Always.
    """
    raise OperationFailed(
        f"not copied to {to.name}: the project's file names it, and not all of these volumes are"
        " the project's own",
        next_step=(
            "name that destination in your own settings file, whose words count for every volume"
        ),
    )


def _reverify(workspace: Workspace, project: str) -> str:
    chosen = forget.choose_sample(workspace.catalogue.reader.list_summaries(project), READ_AGAIN)
    broken = [
        r for r in forget.reverify(workspace.catalogue, chosen, None, time.monotonic) if r.fault
    ]
    if broken:
        raise VerificationFailed(
            f"{len(broken)} of {len(chosen)} backups do not verify:"
            f" {', '.join(r.listed.id for r in broken)}"
        )
    return f"{len(chosen)} of {project} verified"


def _trial(workspace: Workspace, project: str, outcome: ScheduledRun) -> str:
    newest = next((b for b in workspace.catalogue.reader.list_summaries(project) if b.counts), None)
    if newest is None:
        return "no verified backup yet"
    (reading,) = forget.reverify(workspace.catalogue, [newest], workspace.engine, time.monotonic)
    if reading.fault:
        raise VerificationFailed(f"backup {newest.id} does not come back: {reading.fault}")
    outcome.tried = True
    return f"{newest.id} verified {reading.listed.level}"


def tell(settings: Settings, outcome: ScheduledRun) -> None:
    """Notify the webhook of the settings, if there is one.

    That it cannot be reached is reported and fails nothing.
    """
    if settings.webhook is not None and (
        fault := _post(settings.webhook, {"version": 1, **outcome.shape()})
    ):
        terminal.say(f"safe-compose: the webhook was not reached: {fault}")


def _post(url: str, shape: Mapping[str, Any]) -> str | None:
    """Post a JSON object to a URL.

    Returns:
        What went wrong; None for success. The URL is never part of it, because it may hold a
            secret.
    """
    request = urllib.request.Request(
        url,
        json.dumps(shape).encode(),
        {"Content-Type": "application/json", "User-Agent": "safe-compose"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=_WEBHOOK_SECONDS):
            return None
    except urllib.error.HTTPError as fault:
        return f"it answered {fault.code}"
    except (
        OSError,
        ValueError,
        http.client.HTTPException,
    ) as fault:  # the last: what answers speaks no HTTP
        reason = getattr(fault, "reason", fault)
        return (
            type(reason).__name__
            if not isinstance(reason, OSError)
            else reason.strerror or type(reason).__name__
        )
