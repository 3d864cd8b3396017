"""The removal of old backups from the store, and the re-verification of a share of the others.

Nothing here runs by itself, and no backup is ever forgotten to make room.
"""

import errno
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

from safe_compose.core import retention
from safe_compose.core.backup import Backup
from safe_compose.core.backup_summary import BackupSummary
from safe_compose.core.quantities import count, format_size, format_stamp
from safe_compose.core.retention import Judgement, Policy
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed, Refused, UsageError
from safe_compose.operations.backup import verify
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import CommandLine, Journal, Run
from safe_compose.ui import terminal

# -- forgetting ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forgetting:
    """A decision about which backups are forgotten and which stay, with the reasons."""

    judged: tuple[Judgement, ...]
    policy: Policy | None
    """The policy that decided; None when backups were named."""
    project: str | None
    now: datetime
    late: Backup | None
    """A backup that was made later than now, which means that a clock is wrong."""

    @property
    def doomed(self) -> tuple[Judgement, ...]:
        """The backups that are forgotten."""
        return tuple(j for j in self.judged if not j.stays)

    @property
    def phrase(self) -> str | None:
        """The phrase that a person has to type; None when none is needed."""
        return retention.choose_phrase(self.doomed)

    @property
    def bytes(self) -> int:
        """The size of the forgotten backups together."""
        return sum(j.backup.bytes for j in self.doomed)

    def shape(self, *, done: bool) -> dict[str, Any]:
        """Return the decision as JSON."""
        return {
            "done": done,
            "policy": str(self.policy) if self.policy is not None else None,
            "phrase": self.phrase,
            "bytes": self.bytes,
            "forget": [_describe_judgement(j) for j in self.doomed],
            "keep": [_describe_judgement(j) for j in self.judged if j.stays],
        }

    def refuse_wrong_clock(self) -> None:
        """Refuse to apply a policy by age when the clock is behind.

        Raises:
            Refused: A backup was made later than now.
        """
        if self.policy is not None and self.late is not None:
            raise Refused(
                f"it is {self.now:%Y-%m-%d %H:%M} UTC by this clock, and backup {self.late.id} was"
                f" made {format_stamp(self.late.created)}: a clock is wrong; nothing was forgotten",
                next_step=(
                    "set the clock; if that backup was made by a wrong one: safe-compose forget"
                    f" {self.late.id}"
                ),
            )


def _describe_judgement(judged: Judgement) -> dict[str, Any]:
    backup = judged.backup.summarize()
    return {
        "id": backup.id,
        "created": backup.created,
        "project": backup.project,
        "volumes": list(backup.volumes),
        "bytes": backup.bytes,
        "verified": backup.verified,
        "why": list(judged.why),
        "held": list(judged.held),
    }


def select_by_policy(
    catalogue: Catalogue, policy: Policy | None, now: datetime, project: str | None
) -> Forgetting:
    """Return what a policy forgets and keeps.

    Raises:
        UsageError: There is no policy, so nobody said what should stay.
    """
    if policy is None or policy.empty:
        raise UsageError(
            "nobody said which backups should stay; nothing was forgotten",
            next_step=(
                "safe-compose forget --dry-run --keep-daily 7 --keep-weekly 4 --keep-monthly 6, or"
                " write [retention] into the settings"
            ),
        )
    every = _list_sound(catalogue)
    judged = retention.judge(every, policy, now, project=project)
    return Forgetting(tuple(judged), policy, project, now, retention.find_future(every, now))


def select_by_id(
    catalogue: Catalogue, ids: Sequence[str], now: datetime, project: str | None
) -> Forgetting:
    """Return what forgetting the named backups means.

    Raises:
        UsageError: There is no such backup, or `latest` was named: that name means a changing
            backup.
    """
    if "latest" in ids:
        raise UsageError(
            "forget takes ids, and not latest; nothing was forgotten", next_step="safe-compose list"
        )
    chosen = {catalogue.reader.find(word, project).path for word in ids}
    every = _list_sound(catalogue)
    judged = retention.judge_each(every, chosen, now)
    return Forgetting(tuple(judged), None, project, now, retention.find_future(every, now))


def _list_sound(catalogue: Catalogue, found: Sequence[Backup] | None = None) -> list[Backup]:
    """Return every backup, marked as broken if files of it are missing.

    Whatever was once verified of such a backup, it replaces no other.
    """
    backups = catalogue.reader.backups(bare=True) if found is None else found
    return [
        replace(b, broken=lacks) if b.verified and (lacks := catalogue.reader.lacks(b)) else b
        for b in backups
    ]


def forget(
    catalogue: Catalogue, journal: Journal, going: Forgetting, words: Sequence[str], *, wait: float
) -> None:
    """Remove the doomed backups under their projects' locks, journal it, and free their space.

    On a full disk, the journal is written after space was freed.

    Args:
        catalogue: The catalogue of the store.
        journal: The journal of the store.
        going: What is forgotten.
        words: Our own command, for the journal.
        wait: Seconds to wait for another safe-compose that uses a project.

    Raises:
        StateChanged: Another safe-compose uses a project, which is named, or one of the backups may
            not be forgotten any more.
        OperationFailed: The store cannot be written.
    """
    doomed = [j.backup for j in going.doomed]
    held = {j.backup.path: set(j.held) for j in going.doomed}

    def may_go(found: Sequence[Backup]) -> Collection[str]:
        every = _list_sound(catalogue, found)
        if going.policy is not None:
            judged = retention.judge(every, going.policy, going.now, project=going.project)
        else:
            judged = retention.judge_each(every, held.keys(), going.now)
        return {
            j.backup.path
            for j in judged
            if not j.stays and set(j.held) <= held.get(j.backup.path, set())
        }

    facts = [
        {"backup": b.id, "project": b.project, "volumes": [v.name for v in b.volumes]}
        for b in doomed
    ]
    with _locking(catalogue, doomed, wait):
        run: Run | None = None
        try:
            try:
                run = _begin(journal, words, going.project)
                run.step("forgetting", backups=facts)
                written = True
            except OperationFailed as fault:
                if not _is_full(fault):
                    raise
                terminal.say(
                    "safe-compose: the disk is full: the journal is written once it is not"
                )
                written = False
            catalogue.trash.forget([b.path for b in doomed], may_go)
        except BaseException as fault:
            if run is not None:
                with terminal.reporting_only():
                    run.step("ended", outcome=f"not all forgotten: {type(fault).__name__}")
            raise
    catalogue.trash.finish_forgetting()
    run = run or _begin(journal, words, going.project)
    if not written:
        run.step("forgetting", backups=facts)
    run.step("ended", outcome=f"forgot {count(len(doomed), 'backup')}, {format_size(going.bytes)}")


@contextmanager
def _locking(catalogue: Catalogue, doomed: Sequence[Backup], wait: float) -> Iterator[None]:
    """Hold the locks of the projects of these backups, on their engines."""
    with ExitStack() as locks:
        for engine_id, project in sorted({(b.engine_id, b.project) for b in doomed}):
            command = ("safe-compose", "forget")
            locks.enter_context(
                catalogue.folder.lock(engine_id, project, wait=wait, command=command, full=True)
            )
        yield


def _begin(journal: Journal, words: Sequence[str], project: str | None) -> Run:
    return journal.begin(journal.new_id(), CommandLine(words, "safe-compose"), project=project)


def _is_full(fault: OperationFailed) -> bool:
    return isinstance(fault.__cause__, OSError) and fault.__cause__.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
    )


# -- reading again ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReverificationResult:
    """A result of reading one backup again."""

    listed: BackupSummary
    """The backup, as it is known afterwards."""
    fault: str | None
    seconds: float
    unrecorded: str | None = None
    """Why the result is not in the store, such as a read-only or full file system."""
    is_closed: bool = False
    """Whether a key was lacking, so that of some files only size and SHA-256 were compared."""


def parse_share(text: str) -> Fraction:
    """Return `10%` or `1/7` as a fraction.

    Raises:
        UsageError: It is not such a share, or not above 0 and at most 1.
    """
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


def choose_sample(backups: Sequence[BackupSummary], share: Fraction) -> list[BackupSummary]:
    """Return a share of the backups, rounded up: those that were read longest ago.

    So each of them gets its turn. Backups known to be broken are left out, as they would always
    come first.
    """
    whole = sorted((b for b in backups if b.broken is None), key=lambda b: (b.verified_at, b.seq))
    return whole[: math.ceil(len(whole) * share)]


def reverify(
    catalogue: Catalogue,
    chosen: Sequence[BackupSummary],
    engine: Engine | None,
    clock: Callable[[], float],
) -> Iterator[ReverificationResult]:
    """Read backups completely, one by one, record the results and yield them.

    Args:
        catalogue: The catalogue of the store.
        chosen: The backups to read.
        engine: The engine for test restores; None for none.
        clock: A clock in seconds.
    """
    for number, listed in enumerate(chosen, start=1):
        if len(chosen) > 1:
            terminal.say(
                f"safe-compose: {number} of {len(chosen)}: {listed.id} of {listed.project},"
                f" {format_size(listed.bytes)}"
            )
        begun = clock()
        backup = catalogue.reader.at(listed.path)
        if backup is None:
            yield ReverificationResult(listed, "it has gone", clock() - begun)
            continue
        judged = verify.verify_again(catalogue, backup, engine)
        if judged.unrecorded is not None:
            terminal.say(
                f"safe-compose: what was found of {listed.id} is not recorded: {judged.unrecorded}"
            )
        now = judged.backup if judged.unrecorded is not None else catalogue.reader.at(listed.path)
        yield ReverificationResult(
            now.summarize() if now is not None else listed,
            judged.fault,
            clock() - begun,
            judged.unrecorded,
            judged.is_closed,
        )


def format_junit(readings: Sequence[ReverificationResult]) -> bytes:
    """Return a JUnit report: one test case per backup, a failure for each that does not verify."""
    suite = ElementTree.Element(
        "testsuite",
        name="safe-compose verify",
        tests=str(len(readings)),
        failures=str(sum(r.fault is not None for r in readings)),
        errors="0",
        time=f"{sum(r.seconds for r in readings):.3f}",
    )
    for reading in readings:
        facts = {
            "classname": reading.listed.project,
            "name": reading.listed.id,
            "time": f"{reading.seconds:.3f}",
        }
        case = ElementTree.SubElement(
            suite, "testcase", {name: _escape_xml(value) for name, value in facts.items()}
        )
        if reading.fault is not None:
            failure = ElementTree.SubElement(
                case, "failure", message=_escape_xml(reading.fault), type="VerificationFailed"
            )
            failure.text = _escape_xml(f"{reading.listed.path}\n{reading.fault}")
    ElementTree.indent(suite)
    return bytes(ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))


def _escape_xml(text: str) -> str:
    r"""Return text with the characters that XML 1.0 cannot hold written as `\x..`."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return re.sub(
        r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]",
        lambda m: f"\\x{ord(m[0]):02x}",
        plain,
    )
