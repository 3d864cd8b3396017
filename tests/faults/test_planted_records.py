"""Records in a store that others write to, or that a wrong clock has written: schedules, indexes."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.backup import Backup
from safe_compose.store.catalogue import index
from safe_compose.store.journal import Journal
from safe_compose.store.schedules import Schedule, Schedules
from safe_compose.system.files import PRIVATE
from safe_compose.ui import pickers
from testing.clock import Clock

BROKEN = Backup("shop", 0, "", "shop", "", "", "", (), "/x", broken="its manifest is not JSON")
NOW = datetime(2026, 11, 22, 7, 27, tzinfo=UTC)


@pytest.fixture
def schedules(tmp_path: Path) -> Schedules:
    found = Schedules(tmp_path, clock=Clock(NOW))
    found.put(Schedule("shop", "/srv/shop", ("03:00",), "2026-11-21T03:00:00Z"))
    return found


@pytest.mark.parametrize(
    "planted",
    [
        {"since": 5}, {"since": None}, {"began": {}, "ended": []}, {"began": 7, "ended": "x"},
        {"faults": [None]}, {"faults": {"a": 1}, "at": []}, {"project": ["x"]}, {"project": 5},
        {"at": ["3:00"]}, {"at": [5]}, {"at": ["99:99"]}, {"at": ["0x:10"]}, {"good": 1e308},
        {"trial": True}, {"process": [1]}, {"process": "1"}, {"folder": None}, {"extra": 1},
    ],
)  # fmt: skip
def test_a_planted_schedule_hides_no_other_one(
    schedules: Schedules, planted: dict[str, Any]
) -> None:
    good = json.loads((schedules.folder / "shop.json").read_text())
    (schedules.folder / "other.json").write_text(json.dumps({**good, "project": "a", **planted}))
    (schedules.folder / "deep.json").write_text("[" * 100_000)
    found = schedules.all()
    assert "shop" in [record.project for record in found]
    assert all(type(record.project) is str for record in found)
    schedules.troubles()
    for record in found:
        record.trial_due(NOW)


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ({"since": "2026-11-21T03:00:00"}, "an unknown time"),
        ({"since": "2100-01-01T00:00:00Z"}, "dated in the future"),
        ({"began": "2100-01-01T00:00:00Z", "ended": "2100-01-01T00:01:00Z"}, "in the future"),
        ({"began": "0001-01-01T00:00:00Z", "ended": "0001-01-01T00:01:00Z"}, "has run for"),
        (
            {
                "since": "2026-01-01T00:00:00Z",
                "began": "2026-11-22T03:00:00Z",
                "ended": "2026-11-22T03:01:00Z",
                "good": "9999-12-31T23:59:59Z",
            },
            "has ended well for",
        ),
    ],
)
def test_a_time_of_a_wrong_clock_does_not_pass_for_a_backup_that_was_made(
    schedules: Schedules, planted: dict[str, Any], words: str
) -> None:
    path = schedules.folder / "shop.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **planted}))
    assert words in schedules.troubles()["shop"]


@pytest.mark.parametrize("created", ["yesterday", "2026", "99999-01-01T00:00:00Z", "2026-11-22"])
def test_an_index_with_a_time_that_is_none_is_read_as_none(tmp_path: Path, created: str) -> None:
    good = BROKEN.summarize()
    index.write(tmp_path, {"shop/x": ((1,), good)}, PRIVATE)
    assert index.read(tmp_path)
    path = tmp_path / index.NAME
    shape = json.loads(path.read_text())
    shape["lines"]["shop/x"][1][shape["names"].index("created")] = created
    path.write_text(json.dumps(shape))
    assert index.read(tmp_path) == {}


def test_a_broken_backup_is_shown_among_those_to_choose_from() -> None:
    words = pickers.describe_backup(BROKEN.summarize(), NOW)
    assert "its manifest is not JSON" in words


def test_a_run_with_steps_without_end_takes_no_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin(journal.new_id()).step("ended", outcome="good")
    planted = journal.folder / "20261122T072700Z-3f9a1c.jsonl"
    head, step = next(journal.folder.glob("*.jsonl")).read_bytes().splitlines(keepends=True)
    planted.write_bytes(head + step * 200_000)
    begun = time.process_time()
    found = {run.id: run for run in journal.runs()}
    assert time.process_time() - begun < 2
    assert "more than 100000 lines" in str(found[planted.stem].damaged)
    assert sorted(run.outcome for run in found.values()) == ["did not end", "good"]
