"""What will be done about a command that may delete volumes, and how that reads: the card, `--explain` and its JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from safe_compose.grammar import Invocation, Own
from safe_compose.observed import Container, Observed, Volume
from safe_compose.policy import Tier, Verdict
from safe_compose.threat import Threat

TRASH_KINDS = frozenset({"compose_down_volumes", "volume_rm"})
"""Doors behind which docker neither asks nor starts anything: a volume may stand there empty for a moment."""
TRASH_DAYS = 30
COMPOSE_KINDS = frozenset({"compose_down_volumes", "compose_rm_anon", "compose_renew_anon", "compose_recreate_changed_volume"})


@dataclass(frozen=True, slots=True)
class Doomed:
    """One volume that the command deletes, with everything the card says of it."""

    volume: Volume
    verdict: Verdict
    users: tuple[Container, ...] = ()
    other_project: str | None = None
    """The project it really belongs to, when that is not the one the command means."""
    bytes: int | None = None
    contents: str | None = None
    """`PostgreSQL 15.18, 2 databases, 41 tables, about 120000 rows`"""
    last_backup: str | None = None
    """Id of its newest verified backup."""
    last_write: str | None = None
    """`2026-11-25 15:41 UTC, 3 minutes ago`"""
    remedy: str | None = None
    """What helps better than deleting it, when something was seen that says so."""

    @property
    def name(self) -> str:
        return self.volume.name

    @property
    def places(self) -> tuple[str, ...]:
        """`CONTAINER:/path` for each container that mounts it: what an anonymous volume goes by."""
        return tuple(f"{c.name}:{m.destination}" for c in self.users for m in c.mounts if m.name == self.name)


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision about one invocation after one look."""

    invocation: Invocation
    observed: Observed
    threat: Threat
    project: str | None
    verdict: str
    """`pass`, `guard` or `refuse`."""
    doomed: tuple[Doomed, ...] = ()
    phrase: str | None = None
    warnings: tuple[str, ...] = ()
    refusal: str | None = None
    """Why `verdict` is `refuse`, and which flags to add."""
    details: Mapping[str, str] = field(default_factory=dict)
    """For the card only: where the backup goes, the room there."""
    patience: int | None = None
    """For the card only: seconds that a backup may take without a remark."""
    safety: str = "backup"
    """`backup`, `trash` (the content is moved aside and no copy is made, where that is possible) or `both`."""
    insisted: bool = False
    """The phrase for the trash was typed: then nothing else takes its place."""

    @property
    def backed_up(self) -> tuple[Doomed, ...]:
        """The volumes that must be in a verified backup before docker may run."""
        return tuple(d for d in self.doomed if d.verdict.tier is not Tier.DISPOSABLE)

    @property
    def typed(self) -> bool:
        """A phrase must be typed; otherwise (important volumes only) a y/N will do."""
        return any(d.verdict.tier is Tier.CRITICAL or d.other_project for d in self.doomed)

    @property
    def holds(self) -> bool:
        """Nothing will be deleted: the volumes of --rm containers are held until those have gone."""
        return self.verdict == "guard" and self.threat.kind == "autoremove_anon" and not self.invocation.own.skip_backup

    @property
    def touches_others(self) -> bool:
        return any(d.other_project for d in self.doomed)

    @property
    def no_trash(self) -> str | None:
        """Why what dies cannot all be moved into the trash instead of being copied, as far as this look tells; or None."""
        if self.threat.kind not in TRASH_KINDS:
            return "docker may ask, or start something, before it deletes"
        return next((f"{d.name}: {why}" for d in self.backed_up if (why := why_no_trash(d.volume)) is not None), None)

    @property
    def trash_phrase(self) -> str | None:
        """What may be typed instead of the phrase, to have no copy made; None where that is not possible."""
        possible = self.safety == "backup" and self.backed_up and not self.invocation.own.skip_backup and self.no_trash is None
        return f"trash {self.phrase}" if possible and self.phrase is not None else None

    def identity(self) -> frozenset[tuple[str, str, tuple[tuple[str, str], ...]]]:
        """What each later look must find again: the same volumes, made the same way.

        Not `CreatedAt`: up to engine 20.10 it is the time of the last change in the volume's root folder (run).
        """
        return frozenset((d.name, d.volume.driver, tuple(sorted(d.volume.labels.items()))) for d in self.doomed)


def why_no_trash(volume: Volume) -> str | None:
    """Why a volume's content cannot be renamed away, as far as the volume alone tells; None when it may be possible."""
    if volume.driver != "local":
        return f"driver {volume.driver}"
    if volume.options:
        return "driver options"
    if volume.anonymous:
        return "anonymous"
    if not volume.mountpoint.endswith(f"/volumes/{volume.name}/_data"):
        return f"its folder is {volume.mountpoint or 'unknown'}"
    return None


def room_needed(size: int) -> int:
    """Bytes to ask for before a backup of volumes with `size` bytes: what dump and archive of a database come to, and some.

    188 MiB of PostgreSQL came to 0.4 of that (bench, guarded); files that do not compress are why it is not the last word.
    """
    return int(size * 0.6) + (64 << 20)


class Effort(NamedTuple):
    """What a backup will take about."""

    room: int
    """Bytes."""
    seconds: float

    def __str__(self) -> str:
        return f"up to {size_text(self.room)} and about {time_text(self.seconds)}"


def effort(doomed: Sequence[Doomed]) -> Effort | None:
    """Room and time of the backup of these volumes; None while a size is not known.

    Time as measured from the stop to the end of the trial, rather long than short: stops, starts and the trial of little data take
    some 6 s; 188 MiB of PostgreSQL 3 s more; 3 GB, too much for a trial, 20 s (bench, guarded and ways).
    """
    sizes = [d.bytes for d in doomed if d.verdict.tier is not Tier.DISPOSABLE]
    if not sizes or None in sizes:
        return None
    size = sum(filter(None, sizes))
    return Effort(room_needed(size), 6 + size / (64 << 20))


def time_text(seconds: float) -> str:
    """Seconds as people say them: `1 second`, `11 seconds`, `4 minutes`, `3 hours`, `2 days`."""
    unit, size = next(((u, s) for u, s in (("day", 86400), ("hour", 3600), ("minute", 60)) if seconds >= 2 * s), ("second", 1))
    number = round(seconds / size)
    return f"{number} {unit}{'' if number == 1 else 's'}"


def moment_text(then: datetime, now: datetime) -> str:
    """`2026-11-25 15:41 UTC, 3 minutes ago`; both are UTC."""
    ago = (now - then).total_seconds()
    return f"{then:%Y-%m-%d %H:%M} UTC, " + ("just now" if ago < 1 else f"{time_text(ago)} ago")


def phrase_for(kind: str, project: str | None, doomed: Sequence[Doomed]) -> str:
    """What a person types: the project's name for compose verbs, the volume's own for `volume rm` of one, else a count.

    A set that touches another project always counts, so that no habit types it (design, section 6).
    """
    if not any(d.other_project for d in doomed):
        if kind in COMPOSE_KINDS and project:
            return project
        if kind == "volume_rm" and len(doomed) == 1:
            return doomed[0].name
    return f"delete {len(doomed)} volumes"


def skip_phrase(phrase: str) -> str:
    """The phrase for `--skip-backup`: `delete NAME without backup`."""
    name = phrase.removeprefix("delete ")
    return f"delete {name} without backup"


def make(
    invocation: Invocation,
    observed: Observed,
    threat: Threat,
    doomed: Sequence[Doomed],
    *,
    details: Mapping[str, str] | None = None,
) -> Plan:
    """Given what was seen and judged, decide: pass, guard, or refuse because the flags forbid to ask.

    >>> skip_phrase("shop")
    'delete shop without backup'
    """
    project = observed.project.name if observed.project else _common_project(doomed)
    warnings = (*observed.warnings, *threat.warnings)
    matter = [d for d in doomed if d.verdict.tier is not Tier.DISPOSABLE or d.other_project]
    if not matter:
        notes = tuple(_disposable_note(d) for d in doomed if d.bytes != 0 and d.verdict.why != "empty")
        return Plan(invocation, observed, threat, project, "pass", tuple(doomed), warnings=(*warnings, *notes))
    if threat.kind == "autoremove_anon" and not invocation.own.skip_backup:
        notes = tuple(f"volume {d.name} would go with its --rm container; it is kept" for d in matter)
        return Plan(invocation, observed, threat, project, "guard", tuple(doomed), warnings=(*warnings, *notes))
    phrase = phrase_for(threat.kind, project, doomed)
    touches_others = any(d.other_project for d in doomed)
    refusal = _refusal(invocation.own, phrase, touches_others=touches_others)
    return Plan(
        invocation,
        observed,
        threat,
        project,
        "refuse" if refusal else "guard",
        tuple(doomed),
        skip_phrase(phrase) if invocation.own.skip_backup else phrase,
        warnings,
        refusal,
        details or {},
    )


def _refusal(own: Own, phrase: str, *, touches_others: bool) -> str | None:
    if not own.non_interactive:
        return None
    if own.skip_backup:
        return None if own.confirm is not None else f"add --confirm '{skip_phrase(phrase)}'"
    if not own.backup_first:
        return "add --backup-first: then a verified backup takes the place of the typed confirmation"
    if touches_others and own.confirm is None:
        return f"volumes of another project are among them: add --confirm '{phrase}' as well"
    return None


def _common_project(doomed: Sequence[Doomed]) -> str | None:
    projects = {d.volume.project for d in doomed}
    return projects.pop() if len(projects) == 1 else None


def _disposable_note(doomed: Doomed) -> str:
    return f"volume {doomed.name} is deleted without a backup: {doomed.verdict.tier.value}, {doomed.verdict.why}"


def to_json(plan: Plan) -> dict[str, Any]:
    """The documented shape of `--explain --json` (design, section 3). Keys are only ever added."""
    project = plan.observed.project
    kept = plan.verdict != "pass" and not plan.invocation.own.skip_backup and not plan.holds and bool(plan.backed_up)
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
        "warnings": list(plan.warnings),
        "phrase": plan.phrase,
        "backup": kept and (plan.safety != "trash" or plan.no_trash is not None),
        "trash": kept and plan.safety != "backup" and plan.no_trash is None,
    }


def offline_json(invocation: Invocation) -> dict[str, Any]:
    """`--explain --offline`: what the words alone say, no daemon and no compose asked; `volumes` is absent."""
    deletes = invocation.kind not in ("none", "compose_renew_anon", "swarm_task_anon")
    warnings = [invocation.doubt] if invocation.doubt else []
    if not deletes and invocation.kind != "none":
        warnings.append("anonymous volumes may be replaced by empty ones")
    return {
        "version": 1,
        "argv": list(invocation.argv),
        "verdict": "guard" if deletes and not invocation.doubt else "pass",
        "kind": invocation.kind,
        "warnings": warnings,
    }


def as_text(plan: Plan) -> str:
    """The plan read aloud: what `--explain` prints and what tests compare as a whole."""
    lines = [f"command:  {plan.invocation.program} {' '.join(plan.invocation.argv)}", f"verdict:  {plan.verdict}"]
    if plan.project:
        inferred = f" (from the {plan.observed.project.inferred_from})" if plan.observed.project else ""
        lines.append(f"project:  {plan.project}{inferred}")
    if plan.observed.endpoint:  # a harmless command asks none
        lines.append(f"daemon:   {plan.observed.endpoint}")
    fate = "keeps:   " if plan.holds else "deletes: "
    lines += [f"{fate} {d.name}{_where(d)}: {d.verdict.tier.value}, {d.verdict.why}{_whose(d)}" for d in plan.doomed]
    lines += [f"spares:   {name}: {why}" for name, why in plan.threat.spared]
    lines += [f"warning:  {w}" for w in plan.warnings]
    if plan.verdict != "pass" and not plan.holds:
        if plan.invocation.own.skip_backup:
            lines.append("backup:   none (--skip-backup)")
        elif plan.backed_up:
            names = ", ".join(d.name for d in plan.backed_up)
            if plan.safety != "backup":
                why = f"not possible: {plan.no_trash}" if plan.no_trash else f"{names}, moved there before docker runs"
                lines.append(f"trash:    {why}")
            if plan.safety != "trash" or plan.no_trash:
                lines.append(f"backup:   {names}, verified before docker runs")
        else:
            lines.append("backup:   none (nothing but disposable volumes)")
        lines.append(f"phrase:   {plan.phrase}" if plan.typed or plan.invocation.own.skip_backup else "asks:     y/N")
    if plan.refusal:
        lines.append(f"refused:  {plan.refusal}")
    return "\n".join(lines)


def _where(doomed: Doomed) -> str:
    """The name of an anonymous volume says nothing to anybody."""
    return f" ({', '.join(doomed.places)})" if doomed.volume.anonymous and doomed.places else ""


def _whose(doomed: Doomed) -> str:
    return f" (belongs to project {doomed.other_project})" if doomed.other_project else ""


def size_text(size: int | None) -> str:
    """Bytes as people read them, in binary units: `45.0 MiB`; None is `not measured`."""
    if size is None:
        return "not measured"
    if size < 1024:
        return f"{size} B"
    amount = size / 1024
    for unit in ("KiB", "MiB", "GiB"):
        if round(amount, 1) < 1024:
            return f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
