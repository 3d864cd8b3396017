"""The road that keeps the store in order: backups are forgotten when a person or a schedule asks, and a share is read again.

Nothing here runs by itself, and nothing is ever forgotten to make room.
"""

import errno
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

from safe_compose import prompts, proof, retention
from safe_compose.artifacts import Backup, Listed
from safe_compose.catalogue import Catalogue
from safe_compose.engine import Engine
from safe_compose.errors import BackupFailed, Refused, UsageError
from safe_compose.journal import Journal, Run
from safe_compose.plan import size_text
from safe_compose.retention import Judgement, Policy

# -- forgetting --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forgetting:
    """What would go, what stays, and why."""

    judged: tuple[Judgement, ...]
    policy: Policy | None
    """None: backups that were named."""
    project: str | None
    now: datetime
    late: Backup | None
    """One that was made later than now: a clock is wrong."""

    @property
    def doomed(self) -> tuple[Judgement, ...]:
        return tuple(j for j in self.judged if not j.stays)

    @property
    def phrase(self) -> str | None:
        return retention.phrase(self.doomed)

    @property
    def bytes(self) -> int:
        return sum(j.backup.bytes for j in self.doomed)

    def shape(self, *, done: bool) -> dict[str, Any]:
        """As JSON."""
        return {
            "done": done,
            "policy": str(self.policy) if self.policy is not None else None,
            "phrase": self.phrase,
            "bytes": self.bytes,
            "forget": [_line(j) for j in self.doomed],
            "keep": [_line(j) for j in self.judged if j.stays],
        }

    def refuse_wrong_clock(self) -> None:
        """Raises Refused when the policy's ages would be told by a clock that is behind."""
        if self.policy is not None and self.late is not None:
            raise Refused(
                f"it is {self.now:%Y-%m-%d %H:%M:%S} UTC by this clock, and backup {self.late.id} was made {self.late.created}: "
                "a clock is wrong; nothing was forgotten",
                next_step=f"set the clock; if that backup was made by a wrong one: safe-compose forget {self.late.id}",
            )


def _line(judged: Judgement) -> dict[str, Any]:
    kept = Listed.of(judged.backup)
    return {
        "id": kept.id,
        "created": kept.created,
        "project": kept.project,
        "volumes": list(kept.volumes),
        "bytes": kept.bytes,
        "verified": kept.verified,
        "why": list(judged.why),
        "held": list(judged.held),
    }


def by_policy(catalogue: Catalogue, policy: Policy | None, now: datetime, project: str | None) -> Forgetting:
    """What a policy lets go. Raises UsageError when there is none: nobody said what should stay."""
    if policy is None or policy.empty:
        raise UsageError(
            "nobody said which backups should stay; nothing was forgotten",
            next_step="safe-compose forget --dry-run --keep-daily 7 --keep-weekly 4 --keep-monthly 6, or write [retention] "
            "into the settings",
        )
    every = _sound(catalogue)
    judged = retention.judge(every, policy, now, project=project)
    return Forgetting(tuple(judged), policy, project, now, retention.later_than(every, now))


def by_id(catalogue: Catalogue, ids: Sequence[str], now: datetime, project: str | None) -> Forgetting:
    """The named backups. Raises UsageError for one that is not there, and for `latest`: a name that wanders."""
    if "latest" in ids:
        raise UsageError("forget takes ids, and not latest; nothing was forgotten", next_step="safe-compose list")
    chosen = {catalogue.find(word, project).path for word in ids}
    every = _sound(catalogue)
    judged = retention.one_by_one(every, chosen, now)
    return Forgetting(tuple(judged), None, project, now, retention.later_than(every, now))


def _sound(catalogue: Catalogue, found: Sequence[Backup] | None = None) -> list[Backup]:
    """Every backup, those as broken whose files are not there: whatever was once proved, they replace nothing."""
    backups = catalogue.backups(bare=True) if found is None else found
    return [replace(b, broken=lacks) if b.verified and (lacks := catalogue.lacks(b)) else b for b in backups]


def forget(catalogue: Catalogue, journal: Journal, going: Forgetting, words: Sequence[str], *, wait: float) -> None:
    """Do it: take the doomed ones out under every lock that matters, write it down, free their room.

    words: our own command, for the journal. wait: seconds for another safe-compose of a project. On a full disk it is written
    down after room was made. Raises LookAgain when another safe-compose uses a project (named), or when one of them may not go
    any more; BackupFailed.
    """
    doomed = [j.backup for j in going.doomed]
    held = {j.backup.path: set(j.held) for j in going.doomed}

    def may_go(found: Sequence[Backup]) -> Collection[str]:
        every = _sound(catalogue, found)
        if going.policy is not None:
            judged = retention.judge(every, going.policy, going.now, project=going.project)
        else:
            judged = retention.one_by_one(every, held.keys(), going.now)
        return {j.backup.path for j in judged if not j.stays and set(j.held) <= held.get(j.backup.path, set())}

    facts = [{"backup": b.id, "project": b.project, "volumes": [v.name for v in b.volumes]} for b in doomed]
    with ExitStack() as locks:
        for engine_id, project in sorted({(b.engine_id, b.project) for b in doomed}):
            command = ("safe-compose", "forget")
            locks.enter_context(catalogue.lock(engine_id, project, wait=wait, command=command, full=True))
        run: Run | None = None
        try:
            try:
                run = _begin(journal, words, going.project)
                run.step("forgetting", backups=facts)
                written = True
            except BackupFailed as fault:
                if not _is_full(fault):
                    raise
                prompts.say("safe-compose: the disk is full: the journal is written after room was made")
                written = False
            catalogue.forget([b.path for b in doomed], may_go)
        except BaseException as fault:
            if run is not None:
                with prompts.only_said():
                    run.step("ended", outcome=f"not all forgotten: {type(fault).__name__}")
            raise
    catalogue.finish_forgetting()
    run = run or _begin(journal, words, going.project)
    if not written:
        run.step("forgetting", backups=facts)
    run.step("ended", outcome=f"forgot {len(doomed)} backups, {size_text(going.bytes)}")


def _begin(journal: Journal, words: Sequence[str], project: str | None) -> Run:
    return journal.begin(journal.new_id(), command=words, program="safe-compose", project=project)


def _is_full(fault: BackupFailed) -> bool:
    return isinstance(fault.__cause__, OSError) and fault.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)


# -- reading again -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """One backup read again: what is wrong with it, or None."""

    listed: Listed
    """As it is known afterwards."""
    fault: str | None
    seconds: float
    unrecorded: str | None = None
    """Why the store does not know it: a file system that only reads, or a full one."""


def share_of(text: str) -> Fraction:
    """`10%` or `1/7` as a share. Raises UsageError for anything that is not above 0 and at most 1."""
    percent = re.fullmatch(r"(\d{1,3})(?:\.(\d{1,3}))?\s*%", text.strip(), re.ASCII)
    parts = re.fullmatch(r"(\d{1,6})\s*/\s*(\d{1,6})", text.strip(), re.ASCII)
    share = Fraction(0)
    if percent is not None:
        share = Fraction(f"{percent[1]}.{percent[2] or 0}") / 100
    elif parts is not None and int(parts[2]):
        share = Fraction(int(parts[1]), int(parts[2]))
    if not 0 < share <= 1:
        raise UsageError(f"--sample takes a share such as 10% or 1/7, not {text!r}")
    return share


def sample(backups: Sequence[Listed], share: Fraction) -> list[Listed]:
    """A share of the backups, rounded up: those that were read longest ago, so that every one has its turn.

    Those that are known to be broken are left out: they would stand first for ever.
    """
    whole = sorted((b for b in backups if b.broken is None), key=lambda b: (b.verified_at, b.seq))
    return whole[: math.ceil(len(whole) * share)]


def read_again(
    catalogue: Catalogue, chosen: Sequence[Listed], engine: Engine | None, clock: Callable[[], float]
) -> Iterator[Reading]:
    """Read backups from the first byte to the last, one by one, and record what is found. clock: seconds."""
    for number, listed in enumerate(chosen, start=1):
        if len(chosen) > 1:
            prompts.say(f"safe-compose: {number} of {len(chosen)}: {listed.id} of {listed.project}, {size_text(listed.bytes)}")
        begun = clock()
        kept = catalogue.at(listed.path)
        if kept is None:
            yield Reading(listed, "it has gone", clock() - begun)
            continue
        judged = proof.verify_again(catalogue, kept, engine)
        if judged.unrecorded is not None:
            prompts.say(f"safe-compose: what was found of {listed.id} is not recorded: {judged.unrecorded}")
        now = judged.backup if judged.unrecorded is not None else catalogue.at(listed.path)
        yield Reading(Listed.of(now) if now is not None else listed, judged.fault, clock() - begun, judged.unrecorded)


def junit(readings: Sequence[Reading]) -> bytes:
    """The receipt that CI systems read: one test case for each backup, a failure for each that does not prove itself."""
    suite = ElementTree.Element(
        "testsuite",
        name="safe-compose verify",
        tests=str(len(readings)),
        failures=str(sum(r.fault is not None for r in readings)),
        errors="0",
        time=f"{sum(r.seconds for r in readings):.3f}",
    )
    for reading in readings:
        facts = {"classname": reading.listed.project, "name": reading.listed.id, "time": f"{reading.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", {name: _xml(value) for name, value in facts.items()})
        if reading.fault is not None:
            failure = ElementTree.SubElement(case, "failure", message=_xml(reading.fault), type="VerifyFailed")
            failure.text = _xml(f"{reading.listed.path}\n{reading.fault}")
    ElementTree.indent(suite)
    return bytes(ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))


def _xml(text: str) -> str:
    """What XML 1.0 cannot hold, as `\\x..`."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", lambda m: f"\\x{ord(m[0]):02x}", plain)
