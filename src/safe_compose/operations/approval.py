"""The report of a refusal for programs, and its approval by a person: `safe-compose approve`.

A command that is refused because no person confirmed it leaves a request with a code. In a
terminal, a person reads what it would delete and types the phrase that the command itself would
have asked for. The same command then goes through once, with its backup. `approvals` explains why
the refused program may see the code.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from safe_compose.core.plan import Doomed, Plan
from safe_compose.core.quantities import format_stamp
from safe_compose.core.redaction import hide_option, hide_secrets, redact
from safe_compose.core.text import join_for_shell
from safe_compose.errors import Refused, SafeComposeError
from safe_compose.grammar.parser import Invocation
from safe_compose.settings.load import Settings
from safe_compose.store.approvals import HOLDS, WAITS, ApprovalRequest, Approvals, ApprovalSubject
from safe_compose.store.journal import CommandLine, Journal
from safe_compose.system.process import stamp
from safe_compose.ui import terminal as ui_terminal
from safe_compose.workspace import Workspace

VERSION = 1
TOLD = frozenset({65, 69, 73, 75, 77, 78})
"""The exit codes of a guarded command that are reported to programs."""
_MAY_HOLD_SECRETS = frozenset({"webhook", "foreign", "personal"})
"""Settings of which only digests are written down.

`personal` consists of the others, without the project's file.
"""
_MOST_CHANGES = 5
"""How many changes a refusal names at most; one is reason enough."""


class RefusalContext:
    """A record of what is known so far about a guarded command."""

    def __init__(self) -> None:
        """Start without a plan and without a request."""
        self.plan: Plan | None = None
        self.request: ApprovalRequest | None = None
        self.nobody = "nobody may be asked (SAFE_COMPOSE_NON_INTERACTIVE)"
        """Why no person is asked, where none is: the environment says so, unless a flag does."""


@contextmanager
def reporting_refusals(invocation: Invocation) -> Iterator[RefusalContext]:
    """Attach one line of JSON to a refusal in the block, for programs that read stderr."""
    case = RefusalContext()
    try:
        yield case
    except SafeComposeError as fault:
        if fault.code in TOLD or invocation.own.json:
            fault.report = json.dumps(report(fault, invocation, case), ensure_ascii=True)
            fault.is_report_wanted = invocation.own.json
        raise


def report(fault: SafeComposeError, invocation: Invocation, case: RefusalContext) -> dict[str, Any]:
    """Return the documented JSON object of a refusal.

    Keys are only ever added. It contains no secret.
    """
    made, request = case.plan, case.request
    project = made.project if made else None
    return {
        "version": VERSION,
        "refused_by": "safe-compose",
        "docker_was_run": False,
        "exit_code": fault.code,
        "argv": list(redact(invocation.argv)),
        "folder": find_folder(),
        "kind": made.threat.kind if made else invocation.kind,
        "project": project,
        "endpoint": hide_secrets(made.observed.endpoint) if made else None,
        "volumes": (
            [
                {
                    "name": d.name,
                    "tier": d.verdict.tier.value,
                    "kind": d.verdict.kind,
                    "other_project": d.other_project,
                }
                for d in made.doomed
            ]
            if made
            else None
        ),
        "why": hide_secrets(fault.message),
        "next": hide_secrets(fault.next_step) if fault.next_step else None,
        "who_decides": "a person: do not look for another way to the same end",
        "approve": (
            {
                "code": request.code,
                "command": f"safe-compose approve {request.code}",
                "where": "a person types it in a terminal on this machine, in the folder above",
                "until": _format_limit(WAITS),
                "then": (
                    "repeat the same command in the same folder within ten minutes: it goes through"
                    " once, after its backup"
                ),
            }
            if request
            else None
        ),
    }


# -- the guarded command ---------------------------------------------------------------------------


@contextmanager
def offering_approval(workspace: Workspace, made: Plan, case: RefusalContext) -> Iterator[None]:
    """Give a refusal in the block a code that a person can approve.

    No code is given where flags already decide (`--confirm`, `--skip-backup`), or where the store
    would be lost with a CI runner.
    """
    try:
        yield
    except Refused as refusal:
        own = made.invocation.own
        lost = bool(os.environ.get("CI")) and not workspace.settings.store_configured
        if own.confirm is None and not own.skip_backup and not lost:
            with ui_terminal.reporting_only():  # without a code it is refused all the same
                workspace.own_catalogue.folder.ensure()
                asked = describe_subject(workspace, made)
                approvals = Approvals(workspace.own_store)
                for code, changes in approvals.list_outdated(asked):
                    refusal.message += (
                        f". Approval {code} was given for another plan:"
                        f" {'; '.join(changes[:_MOST_CHANGES])}"
                    )
                case.request = approvals.ask(asked, _make_shown(workspace, made))
                refusal.next_step = "; or ".join(
                    [
                        *filter(None, [refusal.next_step]),
                        (
                            f"a person types `safe-compose approve {case.request.code}` in a"
                            " terminal, then the same command again"
                        ),
                    ]
                )
        raise


def find_granted(workspace: Workspace, made: Plan) -> str | None:
    """Return the code of a person's approval for exactly this plan, without using it up.

    Returns:
        The code; None when there is no approval, or when flags already decide.
    """
    own = made.invocation.own
    if own.confirm is not None or own.skip_backup:
        return None
    approvals = Approvals(workspace.own_store)
    return (
        approvals.find_granted(describe_subject(workspace, made))
        if approvals.any_approved()
        else None
    )


def take(workspace: Workspace, made: Plan, code: str) -> None:
    """Use up an approval.

    Raises:
        Refused: The approval has expired or has been used meanwhile.
    """
    if not Approvals(workspace.own_store).take(describe_subject(workspace, made), code):
        raise Refused(f"approval {code} expired or was used by now; nothing was deleted")
    ui_terminal.say(f"safe-compose: approved once by a person ({code})")


def describe_subject(workspace: Workspace, made: Plan) -> ApprovalSubject:
    """Return everything that a person approves together with this plan.

    That is what the confirmation screen shows, and everything else that decides what is done.
    """
    invocation = made.invocation
    own = invocation.own
    terms = {
        "command": join_for_shell([invocation.program, *redact(invocation.argv)]),
        "folder": find_folder(),
        "user": str(os.getuid()),
        "daemon": hide_secrets(made.observed.endpoint),
        "engine": made.observed.engine_id,
        "docker": workspace.docker,
        "project": _describe_project(made),
        "does": made.threat.kind,
        **{f"volume {d.name}": _describe_volume(d) for d in made.doomed},
        "not touched": ", ".join(f"{name} ({why})" for name, why in made.threat.spared),
        "stopped for it": ", ".join(f"{c.name} {c.id[:12]}" for c in made.threat.stops if c.lively),
        "warnings": "; ".join(made.warnings),
        "first": describe_steps_before(made),
        "own flags": (
            f"--backup-first {_yes(own.backup_first)}, --skip-backup {_yes(own.skip_backup)}"
        ),
        "typed": made.phrase or "",
        "CI": _yes(bool(os.environ.get("CI"))),
        **dict(made.promises),
        **{f"setting {name}": words for name, words in _describe_settings(workspace.settings)},
    }
    hidden = {
        f"the setting {name}": repr(getattr(workspace.settings, name))
        for name in sorted(_MAY_HOLD_SECRETS)
    }
    if made.observed.project is not None:
        hidden["what the compose files say"] = made.observed.project.config_digest
    return ApprovalSubject(invocation.argv, terms, hidden)


def describe_steps_before(made: Plan) -> str:
    """Return in words what is done before docker runs."""
    if made.invocation.own.skip_backup or not made.backed_up:
        return "nothing: no backup is made"
    trash = made.safety != "backup" and made.no_trash is None
    if trash and made.safety == "trash" and not made.invocation.own.backup_first:
        return "NO COPY IS MADE: the content is moved into the trash"
    return f"a verified backup{', and the content is moved into the trash' if trash else ''}"


def _describe_project(made: Plan) -> str:
    project = made.observed.project
    if project is None:
        return made.project or "none"
    files = f", {', '.join(project.config_files)}" if project.config_files else ""
    return (
        f"{project.name} (from the {project.inferred_from}, by {project.mode}), in"
        f" {project.working_dir or '-'}{files}"
    )


def _describe_volume(d: Doomed) -> str:
    """Return everything that identifies a volume and its value.

    While a container references a volume, the volume cannot be recreated, so the ids of the
    containers show whether it was. The creation time of a volume that nothing runs on is changed by
    nobody.
    """
    volume = d.volume
    made = [] if any(user.lively for user in d.users) else [f"made {volume.created_at}"]
    facts = [
        *([f"BELONGS TO PROJECT {d.other_project}"] if d.other_project else []),
        f"{d.verdict.tier.value}, {d.verdict.why}",
        f"kind {d.verdict.kind}",
        f"driver {volume.driver}",
        *(
            f"option {name}={hide_option(name, value)}"
            for name, value in sorted(volume.options.items())
        ),
        *(
            f"label {name}={hide_option(name, value)}"
            for name, value in sorted(volume.labels.items())
        ),
        *(
            f"used by {c.name} {c.id[:12]} ({'running' if c.lively else 'stopped'})"
            for c in sorted(d.users, key=lambda c: c.id)
        ),
        *made,
    ]
    return "; ".join(facts)


def _describe_settings(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield every setting, except those that may hold a secret; those are part of `hidden`."""
    for one in fields(settings):
        if one.name not in _MAY_HOLD_SECRETS:
            yield one.name, hide_secrets(_format_setting(getattr(settings, one.name)))


def _format_setting(value: object) -> str:
    """Return a setting in full, as text for people."""
    if isinstance(value, tuple):
        return ", ".join(_format_setting(part) for part in value) or "none"
    if value is None or isinstance(value, bool):
        return "none" if value is None else _yes(value)
    return str(value)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _make_shown(workspace: Workspace, made: Plan) -> dict[str, Any]:
    """Return what a request stores for display to the person who approves it."""
    return {
        "argv": list(redact(made.invocation.argv)),
        "program": made.invocation.program,
        "folder": find_folder(),
        "endpoint": hide_secrets(workspace.engine.endpoint),
        "project": made.project,
        "volumes": [
            {
                "name": d.name,
                "tier": d.verdict.tier.value,
                "why": d.verdict.why,
                "other_project": d.other_project,
            }
            for d in made.doomed
        ],
        "layers": made.layer_warning or "",
        "phrase": made.phrase,
        "typed": made.typed,
        "pid": os.getpid(),
        "uid": os.getuid(),
        "at": stamp(datetime.now(UTC)),
    }


def find_folder() -> str:
    """Return the folder that the command was called in; empty where it was deleted."""
    try:
        return os.path.realpath(Path.cwd())
    except FileNotFoundError:
        return ""


def _format_limit(seconds: float) -> str:
    return stamp(datetime.now(UTC) + timedelta(seconds=seconds))


# -- the person's side -----------------------------------------------------------------------------


def list_requests(root: Path) -> list[dict[str, Any]]:
    """Return the requests that wait for a person or are approved and unused, the oldest first."""
    return [
        {
            "code": request.code,
            "state": "waiting" if request.approved is None else "approved",
            **{
                key: request.shown.get(key)
                for key in ("argv", "program", "folder", "endpoint", "project", "volumes", "at")
            },
        }
        for request in Approvals(root).all()
    ]


def approve(root: Path, journal: Journal, code: str) -> None:
    """Show a person what a code would let through, ask for the phrase, and approve it once.

    Raises:
        Refused: There is no terminal, or the phrase was not typed.
        UsageError: There is no request with this code.
    """
    terminal = ui_terminal.Terminal.open()
    if terminal is None:
        raise Refused(
            "an approval is typed by a person, and there is no terminal here; nothing was approved"
        )
    requests = Approvals(root)
    request = requests.find(code)
    shown = request.shown
    for line in _show_request(request):
        ui_terminal.say(line)
    phrase = str(shown["phrase"])
    question = (
        f"It goes through once, within ten minutes, after this: {request.terms.get('first', '?')}."
    )
    if shown.get("typed", True):
        if not terminal.ask_phrase(f"{question} To approve, type '{phrase}'", phrase):
            raise Refused(f"the phrase was not '{phrase}'; nothing was approved")
    elif terminal.ask(f"{question} Approve? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed; nothing was approved")
    entry = journal.begin(
        journal.new_id(),
        CommandLine([str(word) for word in shown["argv"]], str(shown["program"])),
        project=shown.get("project"),
        cwd=str(shown["folder"]),
        endpoint=str(shown["endpoint"]),
        approval=request.code,
    )
    requests.grant(request)
    entry.step("ended", outcome=f"approved once ({request.code})")
    ui_terminal.say(
        f"safe-compose: {request.code} is approved until"
        f" {format_stamp(_format_limit(HOLDS))}: the same command now goes through once"
    )


def _show_request(request: ApprovalRequest) -> list[str]:
    """Return the lines that show a request to a person."""
    shown = request.shown
    settings = [
        f"{name.removeprefix('setting ')}={words}"
        for name, words in request.terms.items()
        if name.startswith("setting ")
    ]
    asked = format_stamp(str(shown.get("at", "?")))
    return [
        "This command was refused for want of a person. It deletes volumes for good.",
        *(
            f"{name:<8} {words}"
            for name, words in request.terms.items()
            if words and not name.startswith("setting ")
        ),
        *(f"{'layers':<8} {words}" for words in [shown.get("layers")] if words),
        f"{'settings':<8} {', '.join(settings)}",
        f"{'asked':<8} {asked}, by process {shown.get('pid', '?')}",
    ]
