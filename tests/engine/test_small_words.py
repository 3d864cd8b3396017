"""What is shown is what holds: sizes, times, pins, names of volumes, and which backup `latest`
means.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from safe_compose.core import plan, retention
from safe_compose.core.backup import Backup
from safe_compose.core.backup_summary import BackupSummary
from safe_compose.core.observed import Container, Volume
from safe_compose.core.plan import Doomed
from safe_compose.core.policy import Verdict
from safe_compose.core.tier import Tier
from safe_compose.errors import UsageError
from safe_compose.operations.guard import confirmation_facts
from safe_compose.operations.restore.database import sources
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.system.process import stamp
from testing.backups import keep
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, require_success, unique
from testing.stacks import FILES, JOB, NO_TRIALS, write_file

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("then", "plausible"),
    [
        (NOW - timedelta(minutes=3), True),
        (NOW + timedelta(minutes=5), True),
        (datetime(1970, 1, 1, tzinfo=UTC), False),
        (datetime(1980, 1, 1, tzinfo=UTC), False),
        (datetime(2038, 1, 19, tzinfo=UTC), False),
    ],
    ids=["minutes ago", "a clock ahead", "an image's folder", "a zip's epoch", "the future"],
)
def test_a_time_at_which_nothing_can_have_been_written_is_unknown(
    then: datetime, plausible: bool
) -> None:
    assert confirmation_facts.is_plausible(then, NOW) == plausible


def doomed(kind: str, size: int | None, state: str = "running") -> Doomed:
    user = Container("c", "c-1", "redis:7", "sha256:1", state)
    return Doomed(Volume("v"), Verdict("v", Tier.CRITICAL, "", kind), (user,), None, bytes=size)


def test_no_bytes_on_the_disk_say_nothing_of_a_running_redis() -> None:
    assert confirmation_facts.choose_size(doomed("redis", None), 0) is None
    assert confirmation_facts.choose_size(doomed("redis", None), 92) == 92
    assert confirmation_facts.choose_size(doomed("redis", None, "exited"), 0) == 0
    assert confirmation_facts.choose_size(doomed("files", None), 0) == 0


def test_no_bytes_of_a_volume_that_only_points_to_a_place_say_nothing() -> None:
    share = Volume("v", options={"type": "nfs", "device": ":/exports/v"})
    for volume in (share, Volume("v", driver="plugin")):
        pointing = replace(doomed("files", None, "exited"), volume=volume)
        assert confirmation_facts.choose_size(pointing, 0) is None
        assert confirmation_facts.choose_size(pointing, 5) == 5


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (2, "up to 128.0 KiB and about 6 seconds"),
        (0, "up to 128.0 KiB and about 6 seconds"),
        (100 << 20, "up to 124.0 MiB"),
    ],
    ids=["two bytes", "nothing", "100 MiB"],
)
def test_the_room_that_a_backup_needs_follows_the_data(size: int, words: str) -> None:
    assert str(plan.estimate_effort([doomed("files", size)])).startswith(words)


def test_only_what_forget_holds_is_shown_as_pinned() -> None:
    def made(seq: int, hours: int, *volumes: str, until: int = 30) -> BackupSummary:
        created = NOW - timedelta(hours=hours)
        kept = Backup(
            f"b{seq}", seq, stamp(created), "shop", "", "E", "pre-delete", (), f"/store/b{seq}"
        )
        line = replace(kept.summarize(), volumes=volumes, verified=True, level="L3")
        return replace(line, pinned_until=stamp(NOW + timedelta(days=until)))

    lines = [
        made(4, 1, "data"),
        made(3, 2, "data"),
        made(2, 3, "data"),
        made(1, 4, "data"),
        made(5, 100, "old", until=-1),
    ]
    assert retention.find_pinned(lines, NOW) == {"/store/b4", "/store/b1"}
    assert retention.find_pinned([*lines, made(6, 2, "data", "uploads")], NOW) == {
        "/store/b6",
        "/store/b1",
    } | {"/store/b6"}
    assert (
        retention.find_pinned([replace(line, verified=False) for line in lines], NOW) == frozenset()
    )


def test_latest_is_the_newest_that_has_what_is_asked_for(tmp_path: Path) -> None:
    catalogue = Catalogue.at(tmp_path / "store")
    older, newer = keep(catalogue), keep(catalogue, reason="pre-restore")
    assert catalogue.reader.find("latest", "shop").id == newer.id
    assert (
        catalogue.reader.find("latest", "shop", fits=lambda kept: kept.reason == "manual").id
        == older.id
    )
    found = catalogue.reader.find("latest", "shop", fits=lambda kept: False)
    assert found.id == newer.id, "then its own message says what it lacks"
    assert not sources.has_dump(newer, "shop", None)


def test_where_nothing_is_verified_the_next_step_verifies_what_is_there(tmp_path: Path) -> None:
    catalogue = Catalogue.at(tmp_path / "store")
    fetched = keep(catalogue, verify=False)
    with pytest.raises(UsageError) as refused:
        catalogue.reader.find("latest", "shop")
    assert refused.value.next_step == f"safe-compose verify {fetched.id}"
    with pytest.raises(UsageError) as refused:
        catalogue.reader.find("latest", "blog")
    assert refused.value.next_step == "safe-compose list"


# -- on an engine ----------------------------------------------------------------------------------


@pytest.fixture
def project(compose_project: ProjectFactory) -> ComposeProject:
    project = compose_project(FILES, files=NO_TRIALS)
    project.up()
    write_file(project)
    return project


@pytest.mark.thorough
@pytest.mark.engine
def test_names_that_are_no_volumes_are_refused_with_those_that_are_meant(
    project: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    wrong = safe_compose("protect", "uploads", cwd=project.folder)
    assert (
        wrong.returncode == 64 and f"safe-compose protect {project.name}_uploads" in wrong.stderr
    ), wrong.stderr
    slip = safe_compose("protect", f"{project.name}_uplaods", cwd=project.folder)
    assert f"did you mean {project.name}_uploads?" in slip.stderr, slip.stderr
    nothing = safe_compose(
        "protect", nowhere := unique("nowhere"), f"{project.name}_uploads", cwd=project.folder
    )
    assert nothing.returncode == 64 and f"protect --ahead {nowhere}" in nothing.stderr
    assert not (sealed_environment / "safe-compose" / "protections.json").exists(), "all or nothing"
    require_success(safe_compose("protect", "--ahead", nowhere, cwd=project.folder))
    require_success(safe_compose("protect", f"{project.name}_uploads", cwd=project.folder))
    unreachable = safe_compose(
        "protect", "x", cwd=project.folder, env={"DOCKER_HOST": "tcp://127.0.0.1:1"}
    )
    assert unreachable.returncode == 0 and "was not looked up" in unreachable.stderr, (
        unreachable.stderr
    )
    # The files here are a project under any name
    named = safe_compose("setup", "-p", unique("other"), "--json", cwd=project.folder)
    assert named.returncode == 0 and [
        v["key"] for v in json.loads(named.stdout)["setup"]["volumes"]
    ] == ["uploads"], named.stderr


@pytest.mark.thorough
@pytest.mark.engine
def test_show_and_forget_say_the_same_of_a_pin(
    project: ComposeProject, safe_compose: SafeCompose
) -> None:
    for _ in range(3):
        require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder))
        project.up()
        write_file(project)
    listed = json.loads(safe_compose("list", "--json", cwd=project.folder).stdout)["backups"]
    assert [bool(b["pinned_until"]) for b in listed] == [True, False, True]
    plans = json.loads(
        safe_compose("forget", "--keep-last", "1", "--dry-run", "--json", cwd=project.folder).stdout
    )["forget"]
    for b in listed:
        shown = json.loads(safe_compose("show", b["id"], "--json", cwd=project.folder).stdout)[
            "backup"
        ]
        assert shown["pinned_until"] == b["pinned_until"]
    assert str(listed[1]["id"]) in json.dumps(plans)
    assert docker("volume", "ls", "-q").stdout
