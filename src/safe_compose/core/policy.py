"""The tier of a volume and the reason for it.

Explicit rules come first, then images and mount paths, then content.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from posixpath import normpath
from typing import Any

from safe_compose.core.known_folders import claim_of_folder
from safe_compose.core.known_images import (
    ROOT,
    Claim,
    VolumeUse,
    claim_of_content,
    claim_of_image,
    claim_of_path,
    find_strictest,
)
from safe_compose.core.observed import (
    FOLDER,
    LAYER,
    PROJECT_LABEL,
    VOLUME_LABEL,
    WORKING_DIR_LABEL,
    Container,
    Location,
    Observed,
)
from safe_compose.core.tier import Tier


@dataclass(frozen=True, slots=True)
class Rule:
    """An explicit rule about volumes."""

    pattern: str
    """fnmatch pattern, case-sensitive. It matches the volume's real name or, within the command's
    project, its compose key; with `of_project`, the name of the volume's project."""
    tier: Tier
    source: str
    """The file and key of the rule: `safe-compose.toml: volumes.cache`, `protect`."""
    floor: bool = False
    """Whether it comes from `protect`: it raises, never lowers, and nothing lowers below it."""
    of_project: bool = False
    own: bool = False
    """Whether it comes from a project's own files: it lowers only volumes with the label of that
    project."""
    project: str | None = None
    """That project, as compose names it; None: unknown, so the rule can only raise."""
    only_raises: bool = False
    """Whether it comes from a file that other users can have written."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The value of one location."""

    volume: str
    """The name of the location: a volume's, or see `observed.Location`."""
    tier: Tier
    why: str
    """A description for the confirmation screen and for `--explain`."""
    kind: str
    """Its content: `postgres`, `mariadb`, `mysql`, `redis`, `mongodb`, `sqlite`, `files`,
    `certificates`, `metrics`, `cache`, `logs`, another product's name, or `unknown`."""
    explicit: bool = False
    """Whether a rule decided, not built-in knowledge."""
    looks: tuple[str, ...] = ()
    """What must be checked in a volume that built-in knowledge makes disposable, before it may
    pass: `ROOT`, or a name of `databases.irreplaceable.CHECKS`. Empty for every other volume."""


def judge(
    location: Location,
    observed: Observed,
    rules: Sequence[Rule],
    content: Sequence[str] | None,
    found: str | None = None,
) -> Verdict:
    """Return the verdict about a location for the command that is about to run; never fails.

    What is unknown counts as critical.

    Args:
        location: The location.
        observed: The state of the engine.
        rules: Explicit rules.
        content: The names at its root; `()` when it is empty, None when it was not read or is
            unreadable.
        found: A reason against its being disposable, where it was checked (`Verdict.looks`).
    """
    known = _claim_by_knowledge(location, observed, content)
    if found is not None and known.tier is Tier.DISPOSABLE:
        kind = "sqlite" if "grafana" in known.looks else known.kind
        known = Claim(Tier.IMPORTANT, kind, f"{known.why}, and {found}", known.from_image)
    words = [
        r for r in (*rules, *_compose_words(location, observed)) if _matches(r, location, observed)
    ]
    free = [r for r in words if _may_lower(r, location, observed)]
    strictest = min(free, key=lambda r: r.tier.rank, default=None)
    tier, why = (
        (known.tier, known.why)
        if strictest is None
        else (strictest.tier, _describe_rule(strictest))
    )
    explicit = strictest is not None
    for rule in words:
        if rule not in free and rule.tier < tier:
            tier, why, explicit = rule.tier, _describe_rule(rule), True
    return Verdict(location.name, tier, why, known.kind, explicit, () if explicit else known.looks)


def is_protected(location: Location, observed: Observed, rules: Sequence[Rule]) -> bool:
    """Return whether a rule that nothing lowers requires a backup of the location."""
    return any(
        rule.floor and rule.tier is not Tier.DISPOSABLE and _matches(rule, location, observed)
        for rule in rules
    )


def is_wanted(location: Location, observed: Observed, rules: Sequence[Rule]) -> bool:
    """Return whether a rule about this location, not about its project, asks for a backup of it."""
    return any(
        not rule.of_project
        and rule.tier is not Tier.DISPOSABLE
        and _matches(rule, location, observed)
        for rule in rules
    )


def find_other_project(location: Location, observed: Observed) -> str | None:
    """Return the other project that a location belongs to, or None.

    Its label decides, then the labels of the containers that use it, and, for a project of
    the same name, the folder that compose recorded on them: the same name in another folder is
    another project. None also when the command means no project (`volume rm`).
    """
    project = observed.project
    if project is None:
        return None
    if location.project and location.project != project.name:
        return location.project
    for user in observed.users(location.name):
        if user.project and user.project != project.name:
            return user.project
        folder = user.labels.get(WORKING_DIR_LABEL, "")
        if project.mode == "config" and project.working_dir and user.project and folder:
            here, there = normpath(project.working_dir), normpath(folder)
            if here != there:
                return f"{user.project} in {there}"
    return None


def _describe_rule(rule: Rule) -> str:
    return f"protected ({rule.source})" if rule.floor else f"{rule.source} says {rule.tier.value}"


def _belongs(location: Location, observed: Observed) -> bool:
    """Return whether a location is of the command's project: by declaration, label, users."""
    project = observed.project
    return project is not None and (
        location.project == project.name
        or any(d.name == location.name for d in project.volumes)
        or any(u.project == project.name for u in observed.users(location.name))
    )


def is_own(location: Location, observed: Observed, project: str) -> bool:
    """Return whether a location belongs to a project and to no other.

    It has the project's label, no container of another project, or of the same name in another
    folder, uses it, and none without a project writes to it.
    """
    users = observed.users(location.name)
    if (
        location.project != project
        or _is_elsewhere(project, observed)
        or find_other_project(location, observed) is not None
    ):
        return False
    return all(u.project == project or (not u.project and _only_reads(u, location)) for u in users)


def _is_elsewhere(project: str, observed: Observed) -> bool:
    return (
        observed.project is not None
        and observed.project.name == project
        and observed.project.elsewhere is not None
    )


def _only_reads(user: Container, location: Location) -> bool:
    return all(m.read_only for m in user.mounts if m.is_within(location.name))


def add_label_of_users(location: Location, observed: Observed) -> Location:
    """Return an anonymous volume with the label of the one project whose containers alone use it.

    Any other volume is returned unchanged.
    """
    owners = {user.project for user in observed.users(location.name)}
    if not location.anonymous or location.project is not None or len(owners) != 1 or None in owners:
        return location
    return replace(location, labels={**location.labels, PROJECT_LABEL: str(next(iter(owners)))})


def _may_lower(rule: Rule, location: Location, observed: Observed) -> bool:
    """Return whether a rule may lower a location's tier.

    A rule of a project's own files can lower only what is that project's; it can raise all others.
    """
    if rule.floor or rule.only_raises:
        return False
    return not rule.own or (rule.project is not None and is_own(location, observed, rule.project))


def list_ignored(location: Location, observed: Observed, rules: Sequence[Rule]) -> list[str]:
    """Return the sources of rules that would lower a location but do not count.

    They do not count because the location is not the project's own.
    """
    words = [
        r for r in (*rules, *_compose_words(location, observed)) if r.own and not r.only_raises
    ]
    lowering = [r for r in words if r.tier is not Tier.CRITICAL and _matches(r, location, observed)]
    return [r.source for r in lowering if not _may_lower(r, location, observed)]


def _matches(rule: Rule, location: Location, observed: Observed) -> bool:
    if rule.of_project:
        # Only a location that belongs to one project alone may be lowered as part of it.
        owners = {location.project} if location.project else set()
        owners |= {u.project for u in observed.users(location.name) if u.project}
        if _belongs(location, observed) and observed.project is not None:
            owners.add(observed.project.name)
        matching = [o for o in owners if o is not None and fnmatchcase(o, rule.pattern)]
        raises = rule.floor or rule.only_raises or rule.tier is Tier.CRITICAL
        return bool(matching) if raises else len(matching) == len(owners) > 0
    if location.kind != "volume":
        # the names of volumes have patterns of their own: "*" under [volumes] means no folder
        kind = LAYER if location.name.startswith(LAYER) else FOLDER
        return rule.pattern.startswith(kind) and fnmatchcase(location.name, rule.pattern)
    names = {location.name}
    if (
        rule.project is not None
        and location.project == rule.project
        and location.labels.get(VOLUME_LABEL)
    ):
        names.add(location.labels[VOLUME_LABEL])
    if observed.project is not None and _belongs(location, observed):
        names |= {d.key for d in observed.project.volumes if d.name == location.name}
        if location.project == observed.project.name and location.labels.get(VOLUME_LABEL):
            names.add(location.labels[VOLUME_LABEL])
    return any(fnmatchcase(name, rule.pattern) for name in names)


def _compose_words(location: Location, observed: Observed) -> list[Rule]:
    """Return the rules of `x-safe-compose` for the location and for the whole project.

    A word that is no tier counts as critical.
    """
    project = observed.project
    if project is None:
        return []
    whose: dict[str, Any] = {
        "own": True,
        "project": project.name,
        "only_raises": project.distrust is not None,
    }
    rules = [
        Rule(location.name, *_compose_tier(d.tier, f"x-safe-compose of volume {d.key}"), **whose)
        for d in project.volumes
        if d.name == location.name and d.tier is not None
    ]
    if project.tier is not None:
        tier, source = _compose_tier(project.tier, "x-safe-compose of the compose file")
        rules.append(Rule(project.name, tier, source, of_project=True, **whose))
    return rules


def _compose_tier(word: str, source: str) -> tuple[Tier, str]:
    try:
        return Tier(word), source
    except ValueError:
        return Tier.CRITICAL, f"{source} (its word {word!r} is no tier)"


def _claim_by_knowledge(
    location: Location, observed: Observed, content: Sequence[str] | None
) -> Claim:
    """Return the claim of built-in knowledge: image and path, then content, else critical.

    Content counts for volumes that no image rule knows. An image's name is a word in a compose
    file, so it lowers only the locations of that same project.
    """
    if location.in_memory and not observed.is_mounted(location.name):
        why = "its content is kept in memory and ended with the last container on it: it is empty"
        return Claim(Tier.DISPOSABLE, "unknown", why)
    uses = _uses(location, observed)
    claims = [
        (use, claim if claim is None or use.own or claim.tier is Tier.CRITICAL else None)
        for use, claim in _claims(location, uses)
    ]
    known = [claim for _, claim in claims if claim is not None]
    strangers = [use for use, claim in claims if claim is None and not use.read_only]
    if any(claim.from_image for claim in known):
        # A backup tool that reads the volume at /backup/metrics does not make it a backup.
        known = [
            claim
            for use, claim in claims
            if claim is not None and (claim.from_image or not use.read_only)
        ]
        if strangers and min(c.tier for c in known) is Tier.DISPOSABLE:
            use = strangers[0]
            known.append(
                Claim(
                    Tier.CRITICAL,
                    "unknown",
                    f"image {use.image}, which nobody here knows, writes to it too",
                )
            )
        claim = _merge_looks(known)
        marked = claim_of_content(content or (), orphan=False) if ROOT in claim.looks else None
        return claim if marked is None else marked
    found = claim_of_content(content or (), orphan=not uses)
    if found is not None:
        return find_strictest([found, *known])
    if strangers or not known:
        empty = content is not None and len(content) == 0
        if empty and not any(c.tier is Tier.CRITICAL for c in known):
            return Claim(Tier.DISPOSABLE, "unknown", "empty")
        where = (
            f"image {strangers[0].image} at {strangers[0].destination}"
            if strangers
            else "no container uses it"
        )
        if strangers and any(claim is not None for _, claim in _claims(location, strangers)):
            where += ", but it lacks the label of that container's project"
        known.append(Claim(Tier.CRITICAL, "unknown", f"nobody here knows what is in it ({where})"))
    return _merge_looks(known)


def _merge_looks(claims: Sequence[Claim]) -> Claim:
    """Return the strictest claim, with all required checks where every claim says disposable."""
    strictest = find_strictest(claims)
    looks = (
        {look for claim in claims for look in claim.looks}
        if strictest.tier is Tier.DISPOSABLE
        else set()
    )
    return strictest._replace(looks=tuple(sorted(looks)))


def _claims(location: Location, uses: Iterable[VolumeUse]) -> list[tuple[VolumeUse, Claim | None]]:
    """Return the claim of each use.

    A use of one folder of the volume lowers nothing.
    """
    found = (
        (use, claim_of_folder(use.image, use.destination, use.pgdata))
        if location.kind in ("folder", "file")
        else (use, claim_of_image(use) or claim_of_path(use))
        for use in uses
    )
    return [
        (
            use,
            (
                None
                if claim is not None and use.subpath and claim.tier is not Tier.CRITICAL
                else claim
            ),
        )
        for use, claim in found
    ]


def _uses(location: Location, observed: Observed) -> list[VolumeUse]:
    """Return every mount of a location.

    Mounts of existing containers come first, then those of declared services without a container.
    """
    uses = [
        VolumeUse(
            user.image,
            mount.destination,
            mount.read_only,
            user.environment.get("PGDATA", ""),
            own=user.project is not None
            and user.project == location.project
            and not _is_elsewhere(user.project, observed),
            subpath=mount.subpath,
        )
        for user in observed.users(location.name)
        for mount in user.mounts
        if mount.location == location.name
    ]
    project = observed.project
    if project is None:
        return uses
    own = project.name == location.project and project.elsewhere is None
    seen = {(use.image, normpath(use.destination), use.subpath) for use in uses}
    declared = [
        VolumeUse(m.image, m.destination, False, own=own, subpath=m.subpath)
        for m in project.mounts
        if m.volume == location.name
    ]
    declared += [
        VolumeUse(m.image, m.destination, m.read_only, m.pgdata, own=own)
        for m in project.folders
        if m.path == location.name
    ]
    return uses + [
        use for use in declared if (use.image, normpath(use.destination), use.subpath) not in seen
    ]
