"""The verdicts on locations: what rules, images and their content say about each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from safe_compose.core import policy
from safe_compose.core.known_images import ROOT
from safe_compose.core.observed import Location, Observed, Volume
from safe_compose.core.policy import Rule, Verdict
from safe_compose.core.tier import Tier
from safe_compose.core.volume_reach import explain_no_loss, is_only_a_definition
from safe_compose.workspace import Workspace

MOUNT_SECONDS = 5.0
"""How long the engine may take to mount a volume, to see whether its device exists."""


def judge(
    workspace: Workspace,
    locations: Sequence[Location],
    observed: Observed,
    rules: Sequence[Rule],
    *,
    quick: bool = False,
) -> list[Verdict]:
    """Return the verdicts on locations.

    Content is read only when no rule and no image rule decides, or when built-in knowledge
    makes a volume disposable that may hold a person's work (design, section 5).

    Args:
        workspace: The workspace, which remembers what was found.
        locations: The locations to judge.
        observed: The state of the engine.
        rules: The explicit rules.
        quick: Postpone that search for a person's work when another of them matters
            anyway. `Workspace.searched` says which volumes were searched.
    """
    if not locations:
        return []
    observed = workspace.trusting(observed)
    verdicts = [policy.judge(volume, observed, rules, None) for volume in locations]
    free = [v for v in locations if not policy.is_protected(v, observed, rules)]
    nowhere = _find_pointing_nowhere(workspace, free, verdicts, observed)
    there = [v for v in verdicts if v.volume not in nowhere]
    unclear = [
        v.volume for v in there if not v.explicit and (v.kind == "unknown" or ROOT in v.looks)
    ]
    contents = workspace.engine.archives.list_roots(unclear) if unclear else {}

    def decide(location: Location, verdict: Verdict) -> Verdict:
        if location.name in nowhere:
            return nowhere[location.name]
        if location.name in contents:
            return policy.judge(location, observed, rules, contents[location.name])
        return verdict

    decided = [decide(v, verdict) for v, verdict in zip(locations, verdicts, strict=True)]
    if quick and any(verdict.tier is not Tier.DISPOSABLE for verdict in decided):
        return decided
    found = _find_irreplaceable(workspace, there, contents)
    return [
        policy.judge(v, observed, rules, contents.get(v.name), found[v.name])
        if v.name in found
        else verdict
        for v, verdict in zip(locations, decided, strict=True)
    ]


def _find_irreplaceable(
    workspace: Workspace, verdicts: Sequence[Verdict], contents: Mapping[str, Sequence[str] | None]
) -> dict[str, str]:
    """Return volume -> the content that argues against its being disposable.

    A finding holds for the whole run. A file that was being written during the first look may
    be readable in the second, and a tier that falls in between would look like a changed state.
    """
    known = workspace.irreplaceable
    workspace.searched.update(v.volume for v in verdicts if v.looks)
    wanted = {
        v.volume: looks
        for v in verdicts
        if v.volume not in known and (looks := [k for k in v.looks if k != ROOT])
    }
    if wanted:
        from safe_compose.databases import irreplaceable  # the guard rarely needs it

        known.update(irreplaceable.find(workspace.engine, wanted))
    unseen = [v.volume for v in verdicts if ROOT in v.looks and contents.get(v.volume) is None]
    known.update({name: "its root could not be read" for name in unseen if name not in known})
    return {v.volume: known[v.volume] for v in verdicts if v.looks and v.volume in known}


def _find_pointing_nowhere(
    workspace: Workspace,
    locations: Sequence[Location],
    verdicts: Sequence[Verdict],
    observed: Observed,
) -> dict[str, Verdict]:
    """Return disposable verdicts for volumes without a target and without own content.

    Returns:
        Name -> verdict, for volumes whose device the engine cannot mount and whose own folder
            is empty.
    """
    by_name = {verdict.volume: verdict for verdict in verdicts}
    found = {}
    for volume in (v for v in locations if isinstance(v, Volume)):
        verdict = by_name[volume.name]
        settled = verdict.explicit or (verdict.tier is Tier.DISPOSABLE and not verdict.looks)
        if (
            settled
            or not is_only_a_definition(volume)
            or any(user.lively for user in observed.users(volume.name))
        ):
            continue
        words = workspace.engine.archives.explain_no_mount(volume.name, MOUNT_SECONDS)
        why = explain_no_loss(volume, words) if words is not None else None
        if why is not None and workspace.engine.archives.keeps_nothing_itself(volume):
            found[volume.name] = replace(verdict, tier=Tier.DISPOSABLE, why=why, looks=())
    return found
