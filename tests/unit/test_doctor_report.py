"""What doctor says: what would be lost, the worst first, at most a screen, and the last line."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from safe_compose.core.backup_summary import BackupSummary, OffsiteCopy
from safe_compose.operations.doctor import report
from safe_compose.operations.doctor.losses import format_losses, list_losses
from safe_compose.ui.report_layout import OK, PROBLEM, WARNING, ReportLine, lay_report

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
BACKUP = BackupSummary(
    id="20261130T090000Z-3f9a1c", seq=2, created="2026-11-30T09:00:00Z", project="shop",
    endpoint="unix:///x", engine_id="E", reason="manual", volumes=("shop_db", "shop_up"), bytes=1,
    path="/x", level="L3", verified=True, verified_at="", pinned_until=None, broken=None,
)  # fmt: skip
OLDER = replace(BACKUP, id="20261128T120000Z-0c2e11", seq=1, created="2026-11-28T12:00:00Z")
READ = OffsiteCopy("nas", "sftp://me@nas/copies", NOW.isoformat(), NOW.isoformat())
SENT = replace(READ, verified=None)
SHOP: dict[str, Any] = {"name": "shop", "volumes": [{"name": "shop_db"}, {"name": "shop_up"}]}


def say(*backups: BackupSummary, project: dict[str, Any] | None = SHOP) -> list[str]:
    return list(format_losses(list_losses(backups, project), NOW))


@pytest.mark.parametrize(
    ("backups", "said"),
    [
        (
            (BACKUP, replace(OLDER, offsite=(READ,))),
            "shop loses the last 2 days (copy at nas; newest here: 3 hours ago)",
        ),
        (
            (BACKUP, OLDER),
            "shop loses everything: no verified copy is off this machine (newest here: 3 hours ago)",
        ),
        (
            (replace(BACKUP, offsite=(SENT,)),),
            "shop loses everything, unless the copy at nas is good and off this machine, which is"
            " unknown (newest here: 3 hours ago)",
        ),
        (
            (replace(BACKUP, offsite=(replace(READ, url="file:///mnt/disk"),)),),
            "shop loses everything, unless the copy at nas is good and off this machine, which is"
            " unknown (newest here: 3 hours ago)",
        ),
        (
            (replace(BACKUP, offsite=(replace(READ, url="sftp://localhost:2222/x"),)),),
            "shop loses everything: no verified copy is off this machine (newest here: 3 hours ago)",
        ),
        (
            (replace(BACKUP, volumes=("shop_db",)),),
            "shop loses everything: no verified copy is off this machine (not backed up: shop_up)",
        ),
        (
            (replace(BACKUP, volumes=("shop_db",), offsite=(READ,)), OLDER),
            "shop loses everything of volume shop_up (no verified copy is off this machine; newest"
            " here: 2 days ago); the last 3 hours of volume shop_db (copy at nas; newest here: 3"
            " hours ago)",
        ),
        (
            (replace(BACKUP, broken="x", verified=False, level=None),),
            "shop loses everything: no verified copy is off this machine (not backed up: shop_db,"
            " shop_up)",
        ),
    ],
)
def test_what_would_be_lost_is_never_better_than_it_is(
    backups: tuple[BackupSummary, ...], said: str
) -> None:
    assert say(*backups) == [said]


def test_locations_that_differ_are_named_the_worst_first_and_not_without_end() -> None:
    names = ["shop_db", "/srv/shop/up", "layer:shop-web-1", "shop_a", "shop_b", "shop_c"]
    project = {"name": "shop", "volumes": [{"name": name} for name in names]}
    db = replace(BACKUP, volumes=("shop_db",), offsite=(READ,))
    folder = replace(OLDER, volumes=("/srv/shop/up",), offsite=(SENT,))
    losses = list_losses((db, folder), project)
    assert list(format_losses(losses, NOW)) == [
        "shop loses everything of the layer of container shop-web-1, volume shop_a, volume shop_b"
        " and 1 more (no verified copy is off this machine; not backed up); everything of folder"
        " /srv/shop/up (whether the copy at nas is good is unknown; newest here: 2 days ago); the"
        " last 3 hours of volume shop_db (copy at nas; newest here: 3 hours ago)"
    ]
    assert losses[0]["locations"][1] == {
        "name": "/srv/shop/up", "location": "folder", "here": OLDER.created, "elsewhere": None,
        "at": None, "unknown": ["nas"],
    }  # fmt: skip
    assert losses[0]["locations"][2]["location"] == "layer"


def test_every_project_counts_this_folders_first() -> None:
    blog = replace(BACKUP, project="blog", volumes=("blog_db",), lacking=("blog_up",))
    assert [line.split()[0] for line in say(blog, BACKUP)] == ["shop", "blog"]
    assert "not backed up: blog_up" in say(blog, project=None)[0]


FOUND: dict[str, Any] = {
    "ways": [
        {"way": "bash", "verdict": "caught", "by": ["rc"]},
        {"way": "make", "verdict": "missed", "by": ["shims"]},
        {"way": "by its path", "verdict": "missed", "by": []},
    ],
    "agents": [],
    "docker": {
        "client": "28.5.2", "compose": None, "endpoint": "unix:///x", "traps": ["compose is old"],
        "trash": {"items": 1, "bytes": None},
    },
    "store": {"backups": 1, "bytes": 10, "free": 20, "path": "/x", "schedules": []},
    "project": {"name": "shop", "volumes": [{"backup": None}], "passwords": [], "predecessors": []},
    "attention": ["volume shop_db is critical: it has no backup: safe-compose backup", "look"],
}  # fmt: skip


def test_the_worst_comes_first_with_its_cure_behind_it() -> None:
    found = report.list_findings(FOUND)
    assert [f.level for f in found] == sorted(
        (f.level for f in found), key=[report.PERSON, report.WARNING, report.OK].index
    )
    assert found[:3] == [
        (report.PERSON, "volume shop_db is critical: it has no backup", "safe-compose backup"),
        (report.PERSON, "look", ""),
        (
            report.WARNING,
            "1 way to docker can be guarded and is not",
            "safe-compose doctor --verbose",
        ),
    ]
    assert (report.WARNING, "compose is old", "") in found
    assert (report.WARNING, "shop is not backed up daily", "safe-compose schedule install") in found
    words = " ".join(f.text for f in found)
    assert "None" not in words and "1 item (not measured)" in words
    assert report.conclude(found) == "2 things need you; 3 warnings"
    assert report.conclude([]) == "no problems found"
    assert report.conclude(found[1:2]) == "1 thing needs you"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_report_is_at_most_a_screen_and_breaks_no_command(width: int) -> None:
    cure = "safe-compose backup --volume a-volume-with-a-name-of-fifty-columns-which-is-long"
    findings = [ReportLine(mark, f"finding {n}", cure) for n, mark in enumerate([PROBLEM] * 20)]
    findings += [ReportLine(WARNING, "w"), ReportLine(OK, "fine")]
    answers = [f"project-{n} loses everything: no verified copy is off it" for n in range(9)]
    laid = lay_report(
        "If this machine died now:", answers, findings, width=width, height=21, more="doctor -v"
    )
    lines = ["".join(span.text for span in line) for line in laid]
    assert len(lines) <= 21 and lines[0].startswith("If this machine died now: project-0 loses")
    assert all(len(line) <= width or line.split() == cure.split() for line in lines)
    assert (
        "more: doctor -v" in lines[-1]
        and sum(cure in " ".join(line.split()) for line in lines) >= 7
    )
    whole = lay_report("If:", answers, findings, width=width, height=None, more="")
    assert sum("finding" in span.text for line in whole for span in line) == 20


def test_what_an_engine_names_cannot_command_the_terminal() -> None:
    [line] = lay_report(
        "", [], [ReportLine(OK, "a\x1b[2J\nb", "c\x07")], width=80, height=9, more=""
    )
    assert "".join(span.text for span in line) == "✓ a\\x1b[2J\\nb: c\\x07"
