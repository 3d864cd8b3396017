"""A plan as text and as JSON, as `--explain` prints it."""

from collections.abc import Iterator
from typing import Any

from safe_compose.core import refused_words
from safe_compose.core.plan import Doomed, Plan
from safe_compose.core.quantities import count
from safe_compose.core.text import join_for_shell
from safe_compose.core.tier import Tier
from safe_compose.grammar.parser import Invocation
from safe_compose.grammar.tables import UNSUPPORTED


def to_json(plan: Plan) -> dict[str, Any]:
    """Return the documented form of `--explain --json` (design, section 3).

    Keys are only ever added.
    """
    project = plan.observed.project
    backs_up = (
        plan.verdict != "pass"
        and not plan.invocation.own.skip_backup
        and not plan.holds
        and bool(plan.backed_up)
    )
    return {
        "version": 1,
        "argv": list(plan.invocation.argv),
        "verdict": plan.verdict,
        "kind": plan.threat.kind,
        "project": plan.project,
        "inferred_from": project.inferred_from if project else None,
        "mode": project.mode if project else None,
        "endpoint": plan.observed.endpoint,
        "volumes": [
            {
                "name": d.name,
                "tier": d.verdict.tier.value,
                "why": d.verdict.why,
                "kind": d.verdict.kind,
                "anonymous": d.volume.anonymous,
                "in_use_by": [c.name for c in d.users],
                "mounted_at": list(d.places),
                "other_project": d.other_project,
                "bytes": d.bytes,
            }
            for d in plan.doomed
        ],
        "spared": [{"name": name, "why": why} for name, why in plan.threat.spared],
        "warnings": list(plan.notices),
        "unlocks": [{"volume": name, "container": lock} for name, lock in plan.unlocks],
        "phrase": plan.phrase,
        "backup": backs_up and (plan.safety != "trash" or plan.no_trash is not None),
        "trash": backs_up and plan.safety != "backup" and plan.no_trash is None,
    }


def to_offline_json(invocation: Invocation) -> dict[str, Any]:
    """Return `--explain --offline`: the meaning of the words alone, without `volumes`.

    Neither a daemon nor compose is asked.
    """
    # removing a lock needs a person, too
    deletes = invocation.kind not in ("none", "compose_renew_anon", "swarm_task_anon")
    warnings = [invocation.doubt] if invocation.doubt else []
    if invocation.kind == UNSUPPORTED:
        warnings.append(refused_words.reason(invocation))
    if not deletes and invocation.kind != "none":
        warnings.append("anonymous volumes may be replaced by empty ones")
    return {
        "version": 1,
        "argv": list(invocation.argv),
        "verdict": "refuse" if invocation.is_refused else "guard" if deletes else "pass",
        "kind": invocation.kind,
        "warnings": warnings,
    }


def format_lines(plan: Plan) -> list[str]:
    """Return the lines that `--explain` prints; names in them are not escaped."""
    lines = [
        _format_headline(plan),
        _label("command", join_for_shell([plan.invocation.program, *plan.invocation.argv])),
        _label("verdict", plan.verdict),
    ]
    if plan.project:
        of = plan.observed.project
        lines.append(
            _label("project", f"{plan.project}{f' (from the {of.inferred_from})' if of else ''}")
        )
    if plan.observed.endpoint:  # a harmless command asks none
        lines.append(_label("daemon", plan.observed.endpoint))
    for d in plan.doomed:
        lines += _format_volume(d)
    if not plan.holds:
        lines += _format_losses(plan)
    lines += [f"not touched: {name} ({why})" for name, why in plan.threat.spared]
    lines += [f"warning: {w}" for w in plan.notices]
    lines += [
        _label("unlocks", f"{name}: removes {lock}, and docker would delete it again")
        for name, lock in plan.unlocks
    ]
    if plan.unlocks:
        lines.append(_label("phrase", str(plan.phrase)))
    elif plan.verdict != "pass" and not plan.holds and plan.doomed:
        # Without a doomed volume, nobody knows what would be deleted.
        lines += _format_safety(plan)
    if plan.refusal:
        lines.append(_label("refused", plan.refusal))
    return lines


def _label(label: str, text: str) -> str:
    """Return a labelled line, like those of the confirmation screen."""
    return f"{label:<9} {text}"


def _format_headline(plan: Plan) -> str:
    volumes = count(len(plan.doomed), "volume")
    if plan.holds:
        return (
            f"This command would delete {volumes} with --rm containers; kept until they are gone."
        )
    if not plan.doomed:
        unknown = plan.verdict == "refuse"
        return f"This command deletes {'nobody knows what' if unknown else 'no volume'}."
    return f"This command deletes {volumes} for good."


def _format_volume(d: Doomed) -> list[str]:
    """Return two lines: name and tier, then why it has that tier and who uses it."""
    place = f"anonymous at {', '.join(d.places)}; " if d.volume.anonymous and d.places else ""
    users = ", ".join(f"{user.name} ({user.state})" for user in d.users) or "nothing"
    owner = f"  of project {d.other_project}" if d.other_project else ""
    return [
        f"{d.name}  {d.verdict.tier.value}{owner}",
        f"  {place}{d.verdict.why}; used by {users}; {d.last_backup or 'no verified backup'}",
    ]


def _format_losses(plan: Plan) -> list[str]:
    """Return the line that names what no backup holds."""
    skipped = plan.invocation.own.skip_backup
    lost = [
        d.name
        for d in plan.doomed
        if skipped or (d.verdict.tier is Tier.DISPOSABLE and d.verdict.why != "empty")
    ]
    return [f"will NOT come back: {', '.join(lost)}"] if lost else []


def _format_safety(plan: Plan) -> Iterator[str]:
    """Yield the lines about trash, backup and confirmation."""
    if plan.invocation.own.skip_backup:
        yield _label("backup", "none (--skip-backup)")
    elif plan.backed_up:
        names = ", ".join(d.name for d in plan.backed_up)
        if plan.safety != "backup":
            moved = f"{names}, moved there before docker runs"
            yield _label("trash", f"not possible: {plan.no_trash}" if plan.no_trash else moved)
        if plan.safety != "trash" or plan.no_trash:
            yield _label("backup", f"{names}, verified before docker runs")
    else:
        yield _label("backup", "none (nothing but disposable volumes)")
    is_typed = plan.typed or plan.invocation.own.skip_backup
    yield _label("phrase", str(plan.phrase)) if is_typed else _label("asks", "y/N")
