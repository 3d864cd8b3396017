"""The plan for a command that may delete volumes.

It is shown on the confirmation screen and by `--explain`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from safe_compose.core.observed import CONFIG_HASH_LABEL, Container, Observed, Volume
from safe_compose.core.policy import Verdict
from safe_compose.core.quantities import count, format_seconds, format_size
from safe_compose.core.text import shell_quote_always
from safe_compose.core.threat import Threat
from safe_compose.core.tier import Tier
from safe_compose.grammar.own_flags import OwnFlags
from safe_compose.grammar.parser import Invocation
from safe_compose.grammar.tables import RECREATE

NOT_LOADED = "see what `docker compose config --quiet` with the same flags says, and correct that"
TRASH_KINDS = frozenset({"compose_down_volumes", "volume_rm"})
"""Commands for which docker neither asks nor starts anything, so that a volume may be empty for a
moment."""
TRASH_DAYS = 30
COMPOSE_KINDS = frozenset(
    {
        "compose_down_volumes",
        "compose_rm_anon",
        "compose_renew_anon",
        "compose_recreate_changed_volume",
    }
)


@dataclass(frozen=True, slots=True)
class Doomed:
    """A volume that the command deletes, with all its facts on the confirmation screen."""

    volume: Volume
    verdict: Verdict
    users: tuple[Container, ...] = ()
    other_project: str | None = None
    """The project that it really belongs to, when that is not the one that the command means."""
    bytes: int | None = None
    contents: str | None = None
    """`PostgreSQL 15.18, 2 databases, 41 tables, about 120000 rows`"""
    last_backup: str | None = None
    """Id and level of its newest verified backup: `20261122T072700Z-3f9a1c (L4)`."""
    last_write: datetime | None = None
    """When something in it was last written, UTC; None: unknown."""
    remedy: tuple[str, str] | None = None
    """A better remedy than deleting it, when something was seen that suggests one."""

    @property
    def name(self) -> str:
        """The name of the volume."""
        return self.volume.name

    @property
    def places(self) -> tuple[str, ...]:
        """`CONTAINER:/path` for each container that mounts it.

        People recognize an anonymous volume by that.
        """
        return tuple(
            f"{c.name}:{m.destination}" for c in self.users for m in c.mounts if m.name == self.name
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision about one invocation after one observation."""

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
    safety: str = "backup"
    """`backup`, `trash` (the content is moved and not copied, where that is possible) or `both`."""
    promises: tuple[tuple[str, str], ...] = ()
    """Effects of the settings on the backup, by name: recipients, off-site copies, the store. They
    must not change."""
    must_back_up: bool = False
    """Whether root's policy allows no deletion without a backup."""
    unlocks: tuple[tuple[str, str], ...] = ()
    """(volume, container) of each deletion lock that is removed while its volume stays."""
    insisted: bool = False
    """Whether the phrase for the trash was typed, so that nothing else may replace it."""
    layer_warning: str | None = None
    """What the containers' own layers lose; None while nobody has looked. It changes with every
    file that somebody uploads, so a person's approval does not depend on it."""

    @property
    def backed_up(self) -> tuple[Doomed, ...]:
        """The volumes that must be in a verified backup before docker may run."""
        return tuple(d for d in self.doomed if d.verdict.tier is not Tier.DISPOSABLE)

    @property
    def notices(self) -> tuple[str, ...]:
        """All warnings that a person is shown."""
        return (*self.warnings, *filter(None, [self.layer_warning]))

    @property
    def typed(self) -> bool:
        """Whether a phrase must be typed; otherwise y/N suffices.

        The latter is for important volumes only.
        """
        return any(d.verdict.tier is Tier.CRITICAL or d.other_project for d in self.doomed)

    @property
    def holds(self) -> bool:
        """Whether nothing will be deleted.

        The volumes of --rm containers are then kept until those containers are gone.
        """
        removes_itself = self.threat.kind == "autoremove_anon" and not self.unlocks
        return self.verdict == "guard" and removes_itself and not self.invocation.own.skip_backup

    @property
    def touches_others(self) -> bool:
        """Whether a volume of another project would be deleted."""
        return any(d.other_project for d in self.doomed)

    @property
    def no_trash(self) -> str | None:
        """Explain why the doomed volumes cannot all be moved into the trash, or return None.

        The answer is as good as this observation.
        """
        if self.threat.kind not in TRASH_KINDS:
            return "docker may ask, or start something, before it deletes"
        return next(
            (
                f"{d.name}: {why}"
                for d in self.backed_up
                if (why := explain_no_trash(d.volume)) is not None
            ),
            None,
        )

    @property
    def trash_phrase(self) -> str | None:
        """The phrase that chooses the trash instead of a copy, or None.

        None where the trash is not possible.
        """
        allowed = (
            self.safety == "backup"
            and not self.must_back_up
            and not self.invocation.own.skip_backup
        )
        possible = allowed and self.backed_up and self.no_trash is None
        return f"trash {self.phrase}" if possible and self.phrase is not None else None

    def identity(self) -> frozenset[tuple[str, str, tuple[tuple[str, str], ...], str]]:
        """Return the facts that each later observation must find unchanged.

        They are the volumes, their definitions and their tiers.

        `CreatedAt` is not among them: up to engine 20.10 it is the time of the last change in the
        volume's root folder (run).
        """
        return frozenset(
            (d.name, d.volume.driver, tuple(sorted(d.volume.labels.items())), d.verdict.tier.value)
            for d in self.doomed
        )


def explain_no_trash(volume: Volume) -> str | None:
    """Explain why a volume's content cannot be renamed, or return None when it may be possible.

    Only the volume itself is considered.
    """
    if volume.driver != "local":
        return f"driver {volume.driver}"
    if volume.options:
        return "driver options"
    if volume.anonymous:
        return "anonymous"
    if not volume.mountpoint.endswith(f"/volumes/{volume.name}/_data"):
        return f"its folder is {volume.mountpoint or 'unknown'}"
    return None


def estimate_space(size: int) -> int:
    """Return the bytes to require before a backup of volumes with `size` bytes.

    They suffice for dump and archive of a database, with a reserve. 188 MiB of PostgreSQL took 0.4
    of them (bench, guarded); files that do not compress may need more.
    """
    return int(size * 0.6) + (64 << 20)


class Effort(NamedTuple):
    """The estimated cost of a backup."""

    space: int
    """Bytes."""
    seconds: float

    def __str__(self) -> str:
        """Return the estimate as a text for people."""
        return f"up to {format_size(self.space)} and about {format_seconds(self.seconds)}"


def estimate_effort(doomed: Sequence[Doomed]) -> Effort | None:
    """Return the estimated space and time for a backup of these volumes.

    None while a size is unknown.

    The time is measured from the stop to the end of the test restore, rather long than short:
    stops, starts and the test restore of little data take some 6 s; 188 MiB of PostgreSQL 3 s more;
    3 GB, too much for a test restore, 20 s (bench, guarded and ways).
    """
    sizes = [d.bytes for d in doomed if d.verdict.tier is not Tier.DISPOSABLE]
    if not sizes or None in sizes:
        return None
    size = sum(filter(None, sizes))
    # the size of small data: its archive, and some files that describe it
    small = 2 * size + (1 + len(sizes)) * (64 << 10)
    return Effort(min(estimate_space(size), small), 6 + size / (64 << 20))


def choose_phrase(kind: str, project: str | None, doomed: Sequence[Doomed]) -> str:
    """Return the phrase to type.

    It is the project for compose verbs, the volume for `volume rm` of one, or else a count.

    A set that touches another project always gets a count, so that the phrase is not typed out of
    habit (design, section 6).
    """
    if not any(d.other_project for d in doomed):
        if kind in COMPOSE_KINDS and project:
            return project
        if kind == "volume_rm" and len(doomed) == 1:
            return doomed[0].name
    return f"delete {count(len(doomed), 'volume')}"


def skip_phrase(phrase: str) -> str:
    """Return the phrase for `--skip-backup`: `delete NAME without backup`."""
    name = phrase.removeprefix("delete ")
    return f"delete {name} without backup"


def make(
    invocation: Invocation,
    observed: Observed,
    threat: Threat,
    doomed: Sequence[Doomed],
) -> Plan:
    """Decide about an invocation: pass, guard, or refuse because the flags forbid a question.

    >>> skip_phrase("shop")
    'delete shop without backup'
    """
    project = observed.project.name if observed.project else _find_common_project(doomed)
    made = Plan(
        invocation,
        observed,
        threat,
        project,
        "pass",
        tuple(doomed),
        warnings=(*observed.warnings, *threat.warnings),
    )
    if _may_take_unseen(invocation, observed):
        return replace(made, verdict="refuse", doomed=(), refusal=NOT_LOADED)
    matter = [d for d in doomed if d.verdict.tier is not Tier.DISPOSABLE or d.other_project]
    if unlocks := tuple(
        (name, lock) for name, lock in threat.unlocks if name not in {d.name for d in doomed}
    ):
        return _plan_unlocking(made, unlocks, matter=bool(matter))
    if not matter:
        notes = (_note_disposable(d) for d in doomed if d.bytes != 0 and d.verdict.why != "empty")
        return replace(made, warnings=(*made.warnings, *notes))
    if threat.kind == "autoremove_anon" and not invocation.own.skip_backup:
        notes = (f"volume {d.name} would go with its --rm container; it is kept" for d in matter)
        return replace(made, verdict="guard", warnings=(*made.warnings, *notes))
    phrase = choose_phrase(threat.kind, project, doomed)
    others = sorted({d.other_project for d in doomed if d.other_project})
    refusal = _explain_refusal(invocation.own, phrase, others)
    return replace(
        made,
        verdict="refuse" if refusal else "guard",
        phrase=skip_phrase(phrase) if invocation.own.skip_backup else phrase,
        refusal=refusal,
    )


def _may_take_unseen(invocation: Invocation, observed: Observed) -> bool:
    """Return whether unknown volumes may be deleted.

    That is so when compose did not load the project for us.

    It may load for docker, which has a terminal, a later state of the network, and other
    differences.
    """
    if not observed.not_loaded or invocation.kind == "compose_renew_anon":
        return False
    recreates = invocation.kind == RECREATE  # only volumes that compose 2.32 or newer made
    return any(not recreates or CONFIG_HASH_LABEL in volume.labels for volume in observed.volumes)


def _plan_unlocking(made: Plan, unlocks: tuple[tuple[str, str], ...], *, matter: bool) -> Plan:
    """Return the plan of a command that removes deletion locks.

    It requires a phrase, as `unprotect` does, and is never combined with a deletion.
    """
    own, names = made.invocation.own, [name for name, _ in unlocks]
    phrase = names[0] if len(names) == 1 else f"unlock {len(names)} volumes"
    refusal = None
    if matter:
        refusal = (
            f"leave {', '.join(lock for _, lock in unlocks)} out, or first: safe-compose unprotect"
            f" {' '.join(names)}"
        )
    elif own.non_interactive and own.confirm is None:
        refusal = f"add --confirm '{phrase}'"
    return replace(
        made,
        project=None,
        verdict="refuse" if refusal else "guard",
        phrase=phrase,
        refusal=refusal,
        unlocks=unlocks,
    )


def _explain_refusal(own: OwnFlags, phrase: str, others: Sequence[str]) -> str | None:
    if not own.non_interactive:
        return None
    if own.skip_backup:
        return (
            None
            if own.confirm is not None
            else f"add --confirm {shell_quote_always(skip_phrase(phrase))}"
        )
    if not own.backup_first:
        return (
            "add --backup-first: then a verified backup takes the place of the typed confirmation"
        )
    if others and own.confirm is None:
        return (
            f"volumes of another project ({', '.join(others)}) are among them: add --confirm"
            f" {shell_quote_always(phrase)} as well"
        )
    return None


def _find_common_project(doomed: Sequence[Doomed]) -> str | None:
    projects = {d.volume.project for d in doomed}
    return projects.pop() if len(projects) == 1 else None


def _note_disposable(doomed: Doomed) -> str:
    return (
        f"volume {doomed.name} is deleted without a backup: {doomed.verdict.tier.value},"
        f" {doomed.verdict.why}"
    )
