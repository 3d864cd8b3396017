"""The inspection of the engine: which volumes are doomed, which of them matter, what to ask."""

from collections.abc import Sequence
from dataclasses import replace

from safe_compose.core import folders, plan, policy, threat
from safe_compose.core.observed import Observed, Volume
from safe_compose.core.plan import Doomed, Plan
from safe_compose.core.tier import Tier
from safe_compose.errors import Refused
from safe_compose.grammar.parser import Invocation
from safe_compose.operations.verdicts import judge
from safe_compose.settings import load
from safe_compose.store import settings_approval
from safe_compose.ui import terminal as ui_terminal
from safe_compose.workspace import Workspace

MOST_NAMES = 20
"""Most volumes that a sentence names."""


def look(
    workspace: Workspace, invocation: Invocation, before: Plan | None = None, *, quick: bool = False
) -> Plan:
    """Inspect the engine once, and return the plan of a command.

    Args:
        workspace: The workspace.
        invocation: The command.
        before: The plan of an earlier inspection, since when containers were stopped. That volumes
            in memory are empty by now lowers no verdict.
        quick: As for `verdicts.judge`; the confirmation screen then inspects what was postponed.
    """
    observed = workspace.engine.commands.look(invocation, stdin=workspace.stdin)
    threatened = threat.find_threat(invocation, observed)
    rules = workspace.rules(observed)
    verdicts = judge(workspace, threatened.volumes, observed, rules, quick=quick)
    known = (
        {d.name: d.verdict for d in before.doomed if d.volume.in_memory}
        if before is not None
        else {}
    )
    judged = [
        (v, known.get(v.name, verdict))
        for v, verdict in zip(threatened.volumes, verdicts, strict=True)
    ]
    matter = [volume for volume, verdict in judged if verdict.tier is not Tier.DISPOSABLE]
    settings = workspace.settings_for(observed, matter)
    last_backups = workspace.with_settings(
        settings_approval.reduce_to_approved(settings, silent=True)
    ).newest_verified()
    doomed = [
        Doomed(
            volume,
            verdict,
            observed.users(volume.name),
            policy.find_other_project(volume, observed),
            last_backup=last_backups.get(volume.name),
        )
        for volume, verdict in judged
    ]
    if threatened.kind == "compose_down_volumes":
        staying = folders.list_staying(observed)
        threatened = replace(threatened, spared=(*threatened.spared, *staying))
    made = plan.make(invocation, observed, threatened, doomed)
    _tell_ignored(workspace, observed, matter, rules)
    if invocation.own.skip_backup:
        return _plan_without_backup(made, settings)
    must = bool(settings.required_copies) or settings.must_back_up
    safety = "both" if settings.safety == "trash" and must else settings.safety
    return replace(
        made, safety=safety, promises=_list_promises(settings), must_back_up=settings.must_back_up
    )


def _tell_ignored(
    workspace: Workspace,
    observed: Observed,
    volumes: Sequence[Volume],
    rules: Sequence[policy.Rule],
) -> None:
    """Report each volume that the project's files would lower and that is not the project's own."""
    observed = workspace.trusting(observed)
    for volume in volumes:
        if ignored := policy.list_ignored(volume, observed, rules):
            settings_approval.say_once(
                f"safe-compose: {', '.join(dict.fromkeys(ignored))} does not count for volume"
                f" {volume.name}: it is not that project's own, by its label and its users"
            )


def _plan_without_backup(made: Plan, settings: load.Settings) -> Plan:
    """Return the plan of a `--skip-backup`, refused where root's policy requires a backup."""
    if settings.must_back_up and made.backed_up:
        why = f"{load.POLICY_FILE} requires a backup: leave --skip-backup out"
        return replace(made, verdict="refuse", refusal=why, must_back_up=True)
    return replace(made, safety="backup")


def make_refusal_of_unloaded(made: Plan) -> Refused:
    """Return the refusal of a command whose project compose does not load.

    What compose says about it is printed.
    """
    for warning in made.warnings:
        ui_terminal.say(f"safe-compose: {warning}")
    return Refused(
        "compose does not load this project when it is asked what it has, so which volumes the"
        " command would delete cannot be told",
        next_step=made.refusal,
    )


def tell_unseen(workspace: Workspace, made: Plan) -> None:
    """Report which volumes count as critical only because they cannot be inspected."""
    unseen = [
        d
        for d in made.doomed
        if d.verdict.kind == "unknown"
        and not d.verdict.explicit
        and d.verdict.tier is Tier.CRITICAL
    ]
    if unseen and (why := workspace.engine.archives.why_unseen()) is not None:
        ui_terminal.say(
            f"safe-compose: {list_names(unseen)} {'was' if len(unseen) == 1 else 'were'} not looked"
            f" into: {why}"
        )


def list_names(doomed: Sequence[Doomed]) -> str:
    """Return these volumes in words, with the names of those that matter.

    `--explain` has all of them.
    """
    if len(doomed) == 1:
        return f"volume {doomed[0].name}"
    matter = sorted(
        (d for d in doomed if d.verdict.tier is not Tier.DISPOSABLE),
        key=lambda d: d.verdict.tier.rank,
    )
    names = ", ".join(d.name for d in matter[:MOST_NAMES])
    more = f", {len(matter) - MOST_NAMES} more" if len(matter) > MOST_NAMES else ""
    rest = len(doomed) - len(matter)
    return f"{len(doomed)} volumes ({names}{more}{f' and {rest} disposable' if rest else ''})"


def _list_promises(settings: load.Settings) -> tuple[tuple[str, str], ...]:
    """Return (label, value) pairs of the settings that shape a backup.

    Each of them must still hold when the backup is made.
    """
    copies = ", ".join(f"{to.name} ({to.url})" for to in settings.required_copies)
    return (
        ("backup goes to", str(settings.store)),
        ("encrypted for", ", ".join(settings.recipients) or "nobody"),
        ("copied off-site to", copies or "nowhere"),
    )
