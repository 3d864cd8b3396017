"""The road of a refusal and of a person's consent to it: what is said for programs, and `safe-compose approve`.

A command that is refused for want of a person leaves a request with a code. A person reads, in a terminal, what it would
delete, and types the phrase that the command itself would have asked for. The same command then goes through once, with its
backup. `approvals` says why the code may be seen by the program that was refused.
"""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from safe_compose import prompts
from safe_compose.approvals import HOLDS, WAITS, Approvals, Asked, Request, identity_text
from safe_compose.artifacts import hide_secrets, redact, visible
from safe_compose.errors import Refused, SafeComposeError
from safe_compose.grammar import Invocation
from safe_compose.journal import Journal
from safe_compose.plan import Plan
from safe_compose.process import stamp
from safe_compose.world import World

VERSION = 1
TOLD = frozenset({65, 69, 73, 75, 77, 78})
"""The exit codes of a guarded command that programs are told about."""


class Case:
    """What is known of a guarded command so far."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.request: Request | None = None


@contextmanager
def told(invocation: Invocation) -> Iterator[Case]:
    """A refusal in the block carries one line of JSON, for whoever reads stderr without being a person."""
    case = Case()
    try:
        yield case
    except SafeComposeError as fault:
        if fault.code in TOLD:
            fault.report = json.dumps(report(fault, invocation, case), ensure_ascii=True)
        raise


def report(fault: SafeComposeError, invocation: Invocation, case: Case) -> dict[str, Any]:
    """The documented shape of a refusal. Keys are only ever added; no secret stands in it."""
    made, request = case.plan, case.request
    project = made.project if made else None
    return {
        "version": VERSION,
        "refused_by": "safe-compose",
        "docker_was_run": False,
        "exit_code": fault.code,
        "argv": list(redact(invocation.argv)),
        "folder": _here(),
        "kind": made.threat.kind if made else invocation.kind,
        "project": project,
        "endpoint": hide_secrets(made.observed.endpoint) if made else None,
        "volumes": [
            {"name": d.name, "tier": d.verdict.tier.value, "kind": d.verdict.kind, "other_project": d.other_project}
            for d in made.doomed
        ]
        if made
        else None,
        "why": hide_secrets(fault.message),
        "next": hide_secrets(fault.next_step) if fault.next_step else None,
        "who_decides": "a person: do not look for another way to the same end",
        "approve": {
            "code": request.code,
            "command": f"safe-compose approve {request.code}",
            "where": "a person types it in a terminal on this machine, in the folder above",
            "until": _until(WAITS),
            "then": "repeat the same command in the same folder within ten minutes: it goes through once, after its backup",
        }
        if request
        else None,
    }


# -- the guarded command -----------------------------------------------------------------------------------------------


@contextmanager
def offered(world: World, made: Plan, case: Case) -> Iterator[None]:
    """A refusal in the block, for want of a person, gets a code that a person can approve.

    Not where words of ours already decide (`--confirm`, `--skip-backup`), nor where the store dies with a CI runner.
    """
    try:
        yield
    except Refused as refusal:
        own = made.invocation.own
        lost = bool(os.environ.get("CI")) and not world.settings.store_configured
        if own.confirm is None and not own.skip_backup and not lost:
            with prompts.only_said():  # without a code it is refused all the same
                world.catalogue.ensure()
                case.request = Approvals(world.catalogue.root).ask(_asked(world, made), _shown(world, made))
                refusal.next_step = "; or ".join(
                    [
                        *filter(None, [refusal.next_step]),
                        f"a person types `safe-compose approve {case.request.code}` in a terminal, then the same command again",
                    ]
                )
        raise


def granted(world: World, made: Plan) -> str | None:
    """The code of a person's approval for exactly this, or None. It is not used up yet."""
    own = made.invocation.own
    if own.confirm is not None or own.skip_backup:
        return None
    return Approvals(world.catalogue.root).granted(_asked(world, made))


def take(world: World, made: Plan, code: str) -> None:
    """Use an approval up. Raises Refused when it is gone or expired by now."""
    if not Approvals(world.catalogue.root).take(_asked(world, made), code):
        raise Refused(f"approval {code} expired or was used by now; nothing was deleted")
    prompts.say(f"safe-compose: approved once by a person ({code})")


def _asked(world: World, made: Plan) -> Asked:
    return Asked(
        argv=made.invocation.argv,
        program=made.invocation.program,
        folder=_here(),
        endpoint=world.engine.endpoint,
        engine_id=world.engine.id,
        uid=os.getuid(),
        project=made.project or "",
        volumes=identity_text(list(made.identity())),
    )


def _shown(world: World, made: Plan) -> dict[str, Any]:
    return {
        "argv": list(redact(made.invocation.argv)),
        "program": made.invocation.program,
        "folder": _here(),
        "endpoint": hide_secrets(world.engine.endpoint),
        "project": made.project,
        "volumes": [
            {"name": d.name, "tier": d.verdict.tier.value, "why": d.verdict.why, "other_project": d.other_project}
            for d in made.doomed
        ],
        "phrase": made.phrase,
        "typed": made.typed,
        "pid": os.getpid(),
        "uid": os.getuid(),
        "at": stamp(datetime.now(UTC)),
    }


def _here() -> str:
    try:
        return os.path.realpath(Path.cwd())
    except FileNotFoundError:
        return ""


def _until(seconds: float) -> str:
    return stamp(datetime.now(UTC) + timedelta(seconds=seconds))


# -- the person --------------------------------------------------------------------------------------------------------


def listed(root: Path) -> list[dict[str, Any]]:
    """What waits for a person, and what was approved and not used yet, the oldest first."""
    return [
        {
            "code": request.code,
            "state": "waiting" if request.approved is None else "approved",
            **{key: request.shown.get(key) for key in ("argv", "program", "folder", "endpoint", "project", "volumes", "at")},
        }
        for request in Approvals(root).all()
    ]


def approve(root: Path, journal: Journal, code: str) -> None:
    """Show a person what a code would let through, ask for the phrase, and approve it once.

    Raises Refused without a terminal, and when the phrase is not typed; UsageError for a code that nobody waits for.
    """
    terminal = prompts.Terminal.open()
    if terminal is None:
        raise Refused("an approval is typed by a person, and there is no terminal here; nothing was approved")
    requests = Approvals(root)
    request = requests.find(code)
    shown = request.shown
    for line in _card(request):
        prompts.say(line)
    phrase = str(shown["phrase"])
    if shown.get("typed", True):
        answer = terminal.ask(f"It goes through once, within ten minutes, after a verified backup. To approve, type '{phrase}': ")
        if answer != phrase:
            raise Refused(f"the phrase was not '{phrase}'; nothing was approved")
    elif terminal.ask("It goes through once, within ten minutes, after a verified backup. Approve? [y/N] ").strip().lower() not in (
        "y",
        "yes",
    ):
        raise Refused("not confirmed; nothing was approved")
    entry = journal.begin(
        journal.new_id(),
        command=[str(word) for word in shown["argv"]],
        program=str(shown["program"]),
        project=shown.get("project"),
        cwd=str(shown["folder"]),
        endpoint=str(shown["endpoint"]),
        approval=request.code,
    )
    requests.grant(request)
    entry.step("ended", outcome=f"approved once ({request.code})")
    prompts.say(f"safe-compose: {request.code} is approved until {_until(HOLDS)}: the same command now goes through once")


def _card(request: Request) -> list[str]:
    shown = request.shown
    lines = [
        "This command was refused for want of a person. It deletes volumes for good.",
        f"command  {shlex.join([str(shown['program']), *map(str, shown['argv'])])}",
        f"folder   {shown['folder']}",
        f"daemon   {shown['endpoint']}",
        f"project  {shown.get('project') or '-'}",
        f"asked    {shown['at']}, by process {shown['pid']} of user {shown['uid']}",
    ]
    for volume in shown["volumes"]:
        other = f"; BELONGS TO PROJECT {volume['other_project']}" if volume.get("other_project") else ""
        lines.append(f"deletes  {volume['name']}: {volume['tier']}, {volume['why']}{other}")
    return [visible(line.replace("\n", "\\n")) for line in lines]
