"""Which backups stay: the rules, the floors that hold whatever the rules say, and a reason for
each.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_compose.core import retention
from safe_compose.core.backup import (
    Artifact,
    Backup,
    DatabaseStatistics,
    Evidence,
    ServerStatistics,
    TableCount,
    VolumeRecord,
)
from safe_compose.core.retention import Judgement, Policy
from safe_compose.system.process import stamp

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def backup(
    seq: int,
    at: datetime = NOW,
    volumes: Sequence[str] = ("app",),
    *,
    verified: bool = True,
    broken: str | None = None,
    pinned: datetime | None = None,
    engine: str = "E",
    project: str = "shop",
) -> Backup:
    """A backup whose id is its number; its name and path say nothing of its age."""
    records = []
    for name in volumes:
        file = f"{name}/data.tar.gz"
        made = Artifact(file, "archive", 1, "", 1, name)
        records.append(
            VolumeRecord(
                name, "local", {}, {}, "", "critical", "files", False, "cold", artifacts=(made,)
            )
        )
    evidence = (
        [Evidence("L2", f"{name}/data.tar.gz", stamp(at), "read") for name in volumes]
        if verified
        else []
    )
    return Backup(
        f"b{seq}", seq, stamp(at), project, "unix:///x", engine,
        "pre-delete" if pinned else "manual", (), f"/store/{9999 - seq}", tuple(records),
        tuple(evidence), stamp(pinned) if pinned else None, broken=broken,
    )  # fmt: skip


def goes(judged: Iterable[Judgement]) -> list[int]:
    return sorted(j.backup.seq for j in judged if not j.stays)


def why(judged: Iterable[Judgement], seq: int) -> str:
    return "; ".join(next(j.why for j in judged if j.backup.seq == seq))


def daily(count: int, **more: object) -> list[Backup]:
    """One a day, the last one today."""
    return [backup(n, NOW - (count - n) * DAY, **more) for n in range(1, count + 1)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "stay"),
    [
        (Policy(last=3), [38, 39, 40]),
        (Policy(daily=2), [39, 40]),
        (
            Policy(weekly=3),
            [30, 37, 40],
        ),  # 25 November 2026 is a Wednesday; the 22nd and the 15th are Sundays
        (Policy(monthly=3), [15, 40]),
        (Policy(within=2 * DAY), [38, 39, 40]),
        (Policy(within=timedelta(hours=1)), [40]),
        (Policy(last=1, monthly=2), [15, 40]),
        (Policy(last=10**9), list(range(1, 41))),
    ],
)
def test_each_rule_keeps_the_newest_of_its_periods(policy: Policy, stay: list[int]) -> None:
    judged = retention.judge(daily(40), policy, NOW)
    assert sorted(set(range(1, 41)) - set(goes(judged))) == stay


def test_a_period_without_a_backup_takes_no_place() -> None:
    kept = [
        backup(1, NOW - 300 * DAY),
        backup(2, NOW - 200 * DAY),
        backup(3, NOW - 2 * DAY),
        backup(4),
    ]
    assert goes(retention.judge(kept, Policy(daily=3), NOW)) == [1]


def test_every_backup_has_its_reasons() -> None:
    judged = retention.judge(daily(3), Policy(last=1, daily=2), NOW)
    assert why(judged, 3) == "newest verified (app); last 1 (app); daily 2026-11-25 (app)"
    assert why(judged, 2) == "daily 2026-11-24 (app)"
    assert why(judged, 1) == "no rule keeps it; newer and verified: b3"
    assert (
        str(Policy(1, 2, 3, 4, timedelta(hours=36)))
        == "last 1, daily 2, weekly 3, monthly 4, within 36h"
    )


def test_an_empty_policy_is_refused() -> None:
    assert Policy().empty and not Policy(within=DAY).empty
    with pytest.raises(ValueError, match="empty policy"):
        retention.judge(daily(3), Policy(), NOW)


def test_volumes_are_counted_one_by_one_whatever_their_names_have_in_common() -> None:
    kept = [
        backup(1, volumes=["app"]), backup(2, volumes=["app-staging"]), backup(3,
         volumes=["app-staging"]),
        backup(4, volumes=["app-staging", "app_db"]), backup(5, volumes=["app"], engine="another"),
    ]  # fmt: skip
    judged = retention.judge(kept, Policy(last=1), NOW)
    assert goes(judged) == [
        2,
        3,
    ], "neither a longer name nor another engine's volume replaces `app`"
    assert why(judged, 4) == "newest verified (app-staging, app_db); last 1 (app-staging, app_db)"


def test_a_backup_stays_while_it_is_the_newest_of_any_of_its_volumes() -> None:
    kept = [backup(1, volumes=["app", "old"]), backup(2), backup(3)]
    assert goes(retention.judge(kept, Policy(last=1), NOW)) == [2]


def test_what_does_not_prove_itself_counts_for_nothing_and_is_left_alone() -> None:
    kept = [
        backup(1),
        backup(2),
        backup(3, broken="a bit"),
        backup(4, verified=False),
        backup(5, broken="cut", verified=False),
    ]
    judged = retention.judge(kept, Policy(last=1), NOW)
    assert goes(judged) == [1]
    assert "goes only by its id" in why(judged, 3) and "goes only by its id" in why(judged, 4)


def test_order_is_by_number_and_not_by_clock_or_name() -> None:
    kept = [backup(1, NOW), backup(2, NOW - 400 * DAY), backup(3, NOW - 300 * DAY)]
    assert goes(retention.judge(kept, Policy(last=1), NOW)) == [1, 2]


def test_nothing_goes_while_the_clock_is_behind_a_backup() -> None:
    kept = [*daily(5), backup(6, NOW + timedelta(seconds=1), volumes=["other"], verified=False)]
    judged = retention.judge(kept, Policy(last=1), NOW)
    assert goes(judged) == [] and "the clock is behind backup b6" in why(judged, 1)
    assert goes(retention.judge(kept, Policy(last=1), NOW + timedelta(seconds=1))) == [1, 2, 3, 4]


def test_a_clock_far_ahead_does_not_age_everything() -> None:
    assert goes(retention.judge(daily(5), Policy(within=2 * DAY), NOW + 10_000 * DAY)) == [1, 2]


def test_of_the_backups_before_deletions_the_first_and_the_last_of_a_day_are_pinned() -> None:
    hours = [
        backup(n, NOW - 5 * DAY + timedelta(minutes=n), pinned=NOW + 25 * DAY) for n in range(1, 6)
    ]
    other = backup(6, NOW - 5 * DAY, volumes=["logs"], pinned=NOW + 25 * DAY)
    kept = [*hours, other, *(backup(n) for n in range(7, 10)), backup(10, volumes=["logs"])]
    judged = retention.judge(kept, Policy(last=1), NOW)
    assert goes(judged) == [2, 3, 4, 7, 8]
    assert "made before a deletion" in why(judged, 1) and "made before a deletion" in why(judged, 6)
    assert goes(retention.judge(kept, Policy(last=1), NOW + 26 * DAY)) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_broken_one_is_not_the_first_of_its_day() -> None:
    day = NOW - DAY
    kept = [
        backup(1, day, broken="x", pinned=NOW + DAY),
        *(backup(n, day, pinned=NOW + DAY) for n in (2, 3, 4)),
        backup(5),
    ]
    assert goes(retention.judge(kept, Policy(last=1), NOW)) == [3]


def with_rows(seq: int, rows: int, **more: object) -> Backup:
    """A backup of a database of so many rows."""
    made = backup(seq, NOW - (20 - seq) * DAY, **more)  # type: ignore[arg-type]
    database = DatabaseStatistics("app", 0, (TableCount("public", "users", rows),))
    statistics = ServerStatistics("postgres", "15", "app", databases=(database,))
    return replace(made, volumes=(replace(made.volumes[0], statistics=statistics),))


def test_the_last_backup_before_rows_went_outlives_the_rules_for_thirty_days() -> None:
    """A volume that was emptied unnoticed: a few days of backups of nothing must not push out what
    was there.
    """
    kept = [with_rows(1, 90), with_rows(2, 100), *(with_rows(n, 3) for n in range(3, 10))]
    judged = retention.judge(kept, Policy(last=2), NOW)
    assert goes(judged) == [1, 3, 4, 5, 6, 7] and "in b3 3 rows, 100 before" in why(judged, 2)
    assert (
        retention.choose_phrase(by_id(kept, 2)) == "forget b2"
        and retention.choose_phrase(by_id(kept, 1)) is None
    )
    assert goes(retention.judge(kept, Policy(last=2), NOW + 20 * DAY)) == [1, 2, 3, 4, 5, 6, 7]
    files = [with_rows(1, 90), *(with_rows(n, 60) for n in range(2, 5))]
    assert goes(retention.judge(files, Policy(last=1), NOW)) == [
        1,
        2,
        3,
    ], "it went down by less than half"


def test_one_project_is_looked_at_and_the_whole_store_counts() -> None:
    kept = [backup(1), backup(2, project="blog"), backup(3), backup(4, project="blog")]
    judged = retention.judge(kept, Policy(last=1), NOW, project="shop")
    assert [j.backup.seq for j in judged] == [3, 1] and goes(judged) == [
        1,
        3,
    ], "number 4 holds the same volume of the same engine"


def test_a_time_that_does_not_read_is_no_age() -> None:
    kept = [replace(backup(1), created="yesterday"), backup(2), backup(3)]
    assert goes(retention.judge(kept, Policy(last=1), NOW)) == [2]


# -- by id -----------------------------------------------------------------------------------------


def by_id(kept: Sequence[Backup], *numbers: int, now: datetime = NOW) -> list[Judgement]:
    return retention.judge_each(kept, {b.path for b in kept if b.seq in numbers}, now)


def test_what_nothing_holds_goes_without_a_phrase() -> None:
    kept = [backup(1), backup(2, verified=False), backup(3, broken="x"), backup(4), backup(5)]
    judged = by_id(kept, 1, 2, 3, 4)
    assert goes(judged) == [1, 2, 3, 4] and retention.choose_phrase(judged) is None


@pytest.mark.parametrize(
    ("kept", "numbers", "held", "phrase"),
    [
        (daily(3), [3], "the newest verified backup of app", "forget b3"),
        (daily(3), [1, 2, 3], "without it no verified backup of app is left", "forget 3 backups"),
        (
            [backup(1, pinned=NOW + DAY), backup(2)],
            [1],
            "pinned until 2026-11-26T12:00:00Z",
            "forget b1",
        ),
        (
            [backup(1, verified=False), backup(2, broken="x")],
            [2],
            "there is no verified backup of app",
            "forget b2",
        ),
        (
            [replace(backup(1, broken="no manifest"), volumes=()), backup(2)],
            [1],
            "cannot be read",
            "forget b1",
        ),
        (
            [backup(1), backup(2), backup(3, NOW + DAY, ["x"])],
            [1],
            "the clock is behind backup b3",
            "forget b1",
        ),
    ],
)
def test_what_is_held_goes_only_for_a_phrase(
    kept: list[Backup], numbers: list[int], held: str, phrase: str
) -> None:
    judged = by_id(kept, *numbers)
    assert goes(judged) == numbers and retention.choose_phrase(judged) == phrase
    assert any(held in reason for j in judged for reason in j.held)


def test_a_pin_that_has_run_out_holds_nothing() -> None:
    assert retention.choose_phrase(by_id([backup(1, pinned=NOW - DAY), backup(2)], 1)) is None


@pytest.mark.parametrize(
    ("text", "hours"),
    [("48h", 48), ("14d", 336), ("8W", 1344), (" 1d ", 24), ("0d", None), ("-1d", None), ("1", None), ("1y", None), ("²d", None),
     ("9999999w", None), ("", None)],
)  # fmt: skip
def test_ages_are_hours_days_or_weeks(text: str, hours: int | None) -> None:
    assert retention.parse_span(text) == (None if hours is None else timedelta(hours=hours))


@pytest.mark.parametrize(
    ("used", "budget", "told"), [(11, None, False), (10, 10, False), (11, 10, True)]
)
def test_a_budget_names_a_command_that_deletes_nothing(
    used: int, budget: int | None, told: bool
) -> None:
    for policy, command in (
        (Policy(last=1), "safe-compose forget --dry-run"),
        (None, "safe-compose forget --dry-run --keep-"),
    ):
        found = retention.explain_budget(used, budget, policy)
        assert (found is not None) == told and (found or command).startswith(command)


# -- whatever happens ------------------------------------------------------------------------------


@dataclass
class Store:
    """A store in memory, and a clock that jumps."""

    now: datetime = NOW
    backups: list[Backup] = field(default_factory=list)
    numbers: int = 0

    def run(
        self, volumes: Sequence[str], engine: str, outcome: str, *, before_deletion: bool
    ) -> None:
        self.numbers += 1
        pinned = self.now + 30 * DAY if before_deletion else None
        made = backup(
            self.numbers, self.now, volumes, engine=engine, pinned=pinned,
            verified=outcome == "good", broken="cut" if outcome == "broken" else None,
        )  # fmt: skip
        if outcome != "killed":
            self.backups.append(made)

    def rot(self, place: int) -> None:
        if self.backups:
            at = place % len(self.backups)
            self.backups[at] = replace(self.backups[at], broken="a bit", evidence=())

    def forget(self, policy: Policy) -> None:
        before = {
            volume: line[0].seq for volume, line in retention.group_by_volume(self.backups).items()
        }
        judged = retention.judge(self.backups, policy, self.now)
        gone = [j.backup for j in judged if not j.stays]
        assert len(judged) == len(self.backups) and all(j.why for j in judged)
        assert all(b.verified for b in gone)
        assert all(
            retention.choose_phrase(retention.judge_each(self.backups, {b.path}, self.now)) is None
            for b in gone
        )
        self.backups = [b for b in self.backups if b not in gone]
        assert {
            volume: line[0].seq for volume, line in retention.group_by_volume(self.backups).items()
        } == before


COUNTS = st.integers(0, 3)
POLICIES = st.builds(
    Policy,
    COUNTS,
    COUNTS,
    COUNTS,
    COUNTS,
    st.none() | st.integers(1, 10**6).map(lambda hours: timedelta(hours=hours)),
).filter(lambda policy: not policy.empty)
STEPS = st.one_of(
    st.tuples(
        st.just("run"), st.lists(st.sampled_from(["app", "app-staging", "ap"]), min_size=1,
         max_size=3, unique=True),
        st.sampled_from(["E", "F"]), st.sampled_from(["good", "good", "good", "unverified",
          "broken", "killed"]), st.booleans(),
    ),
    st.tuples(st.just("clock"), st.integers(-100_000, 100_000) | st.sampled_from([1, 24, 168])),
    st.tuples(st.just("rot"), st.integers(0, 100)),
    st.tuples(st.just("forget"), POLICIES),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=40), POLICIES)
def test_no_sequence_of_runs_leaves_a_volume_without_the_verified_backup_that_it_had(
    steps: list[tuple[object, ...]], last: Policy
) -> None:
    """Failures, kills, rot, clocks that jump, engines, names that begin alike: only rot ever takes
    a volume's newest good one.
    """
    store = Store()
    for step in [*steps, ("forget", last)]:
        match step:
            case "run", list(volumes), str(engine), str(outcome), bool(before):
                store.run(volumes, engine, outcome, before_deletion=before)
            case "clock", int(hours):
                store.now += timedelta(hours=hours)
            case "rot", int(place):
                store.rot(place)
            case "forget", Policy() as policy:
                store.forget(policy)
