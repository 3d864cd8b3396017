"""The store over the years: what is forgotten and what never is, lists of very many backups, rot,
faults of the disk.
"""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from safe_compose.core.backup import Backup
from safe_compose.core.backup_summary import BackupSummary
from safe_compose.core.short_id import find_end
from safe_compose.errors import OperationFailed, StateChanged, UsageError, VerificationFailed
from safe_compose.operations import forget
from safe_compose.operations.backup import verify
from safe_compose.operations.doctor.store import examine_store
from safe_compose.store.catalogue import index
from safe_compose.store.catalogue.catalogue import Catalogue
from testing.backups import fill, keep
from testing.clock import Clock
from testing.disks import small_disk
from testing.faults import failing_syscalls
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ROOT, docker, wait_until
from testing.terminal import Person

DAY = timedelta(days=1)


@pytest.fixture
def clock() -> Clock:
    """Begins a hundred days ago."""
    return Clock(datetime.now(UTC) - 100 * DAY)


@pytest.fixture
def catalogue(sealed_environment: Path, clock: Clock) -> Catalogue:
    """The store that the program of the same test uses."""
    return Catalogue.at(sealed_environment / "safe-compose", clock=clock)


def days(catalogue: Catalogue, clock: Clock, count: int, **more: Any) -> list[Backup]:
    """One verified backup a day, the oldest first."""
    made = []
    for _ in range(count):
        clock.now += DAY
        made.append(keep(catalogue, **more))
    return made


def shape(answer: "subprocess.CompletedProcess[str]", code: int = 0) -> dict[str, Any]:
    assert answer.returncode == code, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    assert found["version"] == 1
    return found


def ids(catalogue: Catalogue) -> list[str]:
    """What is there, the oldest first; from the manifests."""
    return [b.id for b in reversed(Catalogue.at(catalogue.root).reader.backups())]


def flip_a_bit(kept: Backup) -> None:
    """In the middle of the archive."""
    path = next(Path(kept.path).rglob("data.tar.gz"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


# -- forget ----------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_nothing_goes_while_nobody_said_what_should_stay(
    safe_compose: SafeCompose, catalogue: Catalogue, clock: Clock
) -> None:
    made = days(catalogue, clock, 2)
    answer = safe_compose("forget", "--yes")
    assert (
        answer.returncode == 64 and "safe-compose forget --dry-run --keep-daily 7" in answer.stderr
    )
    for words in (
        ("--keep-last", "0"),
        ("--keep-within", "soon"),
        ("latest",),
        (made[0].id, "--keep-last", "1"),
        ("nobody",),
    ):
        assert safe_compose("forget", *words, "--yes").returncode == 64
    assert ids(catalogue) == [b.id for b in made]


@pytest.mark.thorough
def test_a_person_sees_a_reason_for_each_before_any_goes(
    safe_compose: SafeCompose, catalogue: Catalogue, clock: Clock, tmp_path: Path
) -> None:
    made = days(catalogue, clock, 4)
    for answer, left in (("n", made), ("y", made[2:])):
        person = Person("forget", "--keep-last", "2", cwd=tmp_path, env={"NO_COLOR": "1"})
        shown = person.sees("Forget these 2 backups for good? [y/N]")
        oldest, newest = find_end(made[0].id), find_end(made[3].id)
        assert re.search(rf"{oldest} .*GOES\s+no rule keeps it; newer and verified: ", shown)
        assert re.search(
            rf"{newest} .*stays\s+newest verified \(shop_data\); last 2 \(shop_data\)", shown
        )
        person.types(answer)
        assert person.leaves_with() == (0 if answer == "y" else 77)
        assert ids(catalogue) == [b.id for b in left]
    run, *_ = shape(safe_compose("journal", "--json"))["runs"]
    assert run["command"] == ["safe-compose", "forget"] and run["outcome"].startswith(
        "forgot 2 backups"
    )
    assert [b["backup"] for b in run["steps"][0]["backups"]] == [made[1].id, made[0].id]
    assert list((catalogue.root / ".trash").iterdir()) == []


@pytest.mark.thorough
def test_a_job_says_yes_and_reads_json_as_it_is_documented(
    safe_compose: SafeCompose, catalogue: Catalogue, clock: Clock
) -> None:
    made = days(catalogue, clock, 3)
    answer = safe_compose("forget", "--keep-last", "1", "--non-interactive")
    assert answer.returncode == 77 and "--yes" in answer.stderr
    for words in (("--dry-run", "--yes"), ()):
        assert (
            shape(safe_compose("forget", "--keep-last", "1", "--json", *words))["forget"]["done"]
            is False
        )
    assert ids(catalogue) == [b.id for b in made]
    done = shape(safe_compose("forget", "--keep-last", "1", "--json", "--yes"))["forget"]
    assert (
        done["done"]
        and [b["id"] for b in done["forget"]] == [made[1].id, made[0].id]
        and ids(catalogue) == [made[2].id]
    )
    page = (ROOT / "docs/reference.md").read_text()
    documented = json.loads(
        next(b for b in re.findall(r"```json\n(.*?)```", page, re.S) if '"forget": {' in b)
    )["forget"]
    assert (
        done.keys() == documented.keys() and done["keep"][0].keys() == documented["keep"][0].keys()
    )
    again = shape(safe_compose("forget", "--keep-last", "1", "--json"))["forget"]
    assert again["done"] and again["forget"] == []


@pytest.mark.thorough
def test_what_is_held_goes_by_id_only_for_the_phrase(
    safe_compose: SafeCompose, catalogue: Catalogue, clock: Clock
) -> None:
    unreadable, _, newest = days(catalogue, clock, 3)
    Path(unreadable.path, "manifest.json").write_text("{")
    (unverified,) = days(catalogue, clock, 1, volumes=["new_data"], verify=False)
    clock.now = datetime.now(UTC) - 20 * DAY
    pinned, _ = keep(catalogue, ["photos"], reason="pre-delete"), keep(catalogue, ["photos"])
    for kept in (unreadable, newest, unverified, pinned):
        answer = safe_compose("forget", kept.id[:21], "--yes")
        assert answer.returncode == 77 and f"--confirm 'forget {kept.id}'" in answer.stderr
    before = ids(catalogue)
    for words in (
        ("--confirm", "forget"),
        ("--confirm", f"forget {pinned.id}", "--project", "blog"),
    ):
        assert safe_compose("forget", pinned.id, newest.id, "--yes", *words).returncode in (64, 77)
    assert ids(catalogue) == before
    every = [b.id for b in (unreadable, newest, unverified, pinned)]
    assert safe_compose("forget", *every, "--confirm", "forget 4 backups").returncode == 0
    assert ids(catalogue) == [i for i in before if i not in every]


@pytest.mark.thorough
def test_a_phrase_is_typed_by_a_person_who_was_told_what_is_lost(
    catalogue: Catalogue, clock: Clock, tmp_path: Path
) -> None:
    (kept,) = days(catalogue, clock, 1)
    for typed, code in (("y", 77), (f"forget {kept.id}", 0)):
        person = Person("forget", kept.id, "--yes", cwd=tmp_path)
        assert "without it no verified backup of shop_data is left" in person.sees(
            "To forget for good, type"
        )
        person.types(typed)
        if code:
            person.sees("Once more")
            person.types(typed)
        assert person.leaves_with() == code
    assert ids(catalogue) == []


@pytest.mark.thorough
def test_a_broken_one_goes_by_its_id_and_never_by_a_rule(
    safe_compose: SafeCompose, catalogue: Catalogue, clock: Clock
) -> None:
    good, broken, gutted, newest = days(catalogue, clock, 4)
    catalogue.writer.mark_broken(broken, "a bit")
    next(Path(gutted.path).rglob("data.tar.gz")).unlink()  # its evidence still says that it is good
    by_rule = shape(safe_compose("forget", "--keep-last", "2", "--json", "--yes"))["forget"]
    assert by_rule["forget"] == [], "what is broken, or lacks a file, took the place of a good one"
    assert {b["id"]: "only by its id" in b["why"][0] for b in by_rule["keep"]} == {
        good.id: False, broken.id: True, gutted.id: True, newest.id: False,
    }  # fmt: skip
    assert safe_compose("forget", broken.id, gutted.id, "--yes").returncode == 0
    assert ids(catalogue) == [good.id, newest.id]


def test_nothing_goes_by_a_rule_while_the_clock_is_behind(
    safe_compose: SafeCompose, catalogue: Catalogue, clock: Clock
) -> None:
    made = days(catalogue, clock, 2)
    clock.now = datetime.now(UTC) + DAY
    late = keep(catalogue, ["other_data"])
    answer = safe_compose("forget", "--keep-last", "1", "--yes")
    assert (
        answer.returncode == 77 and late.id in answer.stderr and "a clock is wrong" in answer.stderr
    )
    assert ids(catalogue) == [*(b.id for b in made), late.id]


@pytest.mark.thorough
def test_the_settings_hold_the_rules_and_those_of_a_project_are_for_it_alone(
    safe_compose: SafeCompose,
    catalogue: Catalogue,
    clock: Clock,
    sealed_environment: Path,
    tmp_path: Path,
) -> None:
    shop, blog = (
        days(catalogue, clock, 3),
        days(catalogue, clock, 3, project="blog", volumes=["blog_data"]),
    )
    user = sealed_environment / ".config/safe-compose/config.toml"
    user.parent.mkdir(parents=True)
    user.write_text("[retention]\nkeep_last = 2\n")
    planned = shape(safe_compose("forget", "--json"))["forget"]
    assert planned["policy"] == "last 2" and {b["id"] for b in planned["forget"]} == {
        shop[0].id,
        blog[0].id,
    }
    assert (
        shape(safe_compose("forget", "--json", "--keep-daily", "1"))["forget"]["policy"]
        == "daily 1"
    ), "flags are all the rules"
    (tmp_path / "safe-compose.toml").write_text("[retention]\nkeep_last = 1\n")
    nowhere = {"DOCKER_HOST": "unix:///nonexistent.sock"}
    unclear = safe_compose("forget", "--yes", env=nowhere)
    assert unclear.returncode == 64 and "--project NAME" in unclear.stderr
    assert safe_compose("forget", "--yes", "--project", "blog", env=nowhere).returncode == 0
    assert ids(catalogue) == [*(b.id for b in shop), blog[2].id]


@pytest.mark.parametrize(
    "fault",
    [
        "[retention]\nkeep_last = 0",
        "[retention]\nkeep_within = '1y'",
        "[retention]\nkeep_yearly = 1",
    ],
)
def test_wrong_rules_in_a_file_are_78(
    fault: str, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    (tmp_path / "safe-compose.toml").write_text(fault)
    answer = safe_compose("forget", "--dry-run")
    assert answer.returncode == 78 and "retention.keep_" in answer.stderr


def test_a_backup_that_is_in_use_is_not_forgotten(
    safe_compose: SafeCompose, catalogue: Catalogue, clock: Clock
) -> None:
    made = days(catalogue, clock, 2)
    with catalogue.folder.lock("E", "shop", command=("compose", "down", "-v")):
        answer = safe_compose("forget", "--keep-last", "1", "--yes", "--wait", "0")
        assert answer.returncode == 75 and f"process {os.getpid()}" in answer.stderr
    assert ids(catalogue) == [b.id for b in made]


def test_before_it_is_used_a_proved_backup_is_held_against_its_sums_and_another_is_read_to_its_end(
    catalogue: Catalogue,
) -> None:
    read, unread = keep(catalogue), keep(catalogue, verify=False)
    for kept in (read, unread):
        verify.check_before_use(kept, kept.volumes[0])
    lies = replace(
        unread.volumes[0],
        artifacts=tuple(replace(a, uncompressed_bytes=1) for a in unread.volumes[0].artifacts),
    )
    with pytest.raises(VerificationFailed, match="holds more bytes than were written"):
        verify.check_before_use(unread, lies)
    flip_a_bit(read)
    with pytest.raises(VerificationFailed, match="its sha256 is not the one"):
        verify.check_before_use(read, read.volumes[0])


def test_what_changed_between_plan_and_act_is_looked_at_again(
    catalogue: Catalogue, clock: Clock
) -> None:
    """The newest one breaks after the plan was shown: by now the older one is the floor."""
    older, newest = days(catalogue, clock, 2)
    going = forget.select_by_policy(catalogue, forget.Policy(last=1), datetime.now(UTC), None)
    assert [j.backup.id for j in going.doomed] == [older.id]
    flip_a_bit(newest)
    assert verify.verify_again(catalogue, newest, None).fault
    with pytest.raises(StateChanged, match=older.id):
        forget.forget(catalogue, forget.Journal(catalogue.root), going, ("forget",), wait=0)
    assert ids(catalogue) == [older.id, newest.id]


@pytest.mark.thorough
def test_a_kill_at_any_step_leaves_each_backup_whole_or_gone(
    safe_compose: SafeCompose, catalogue: Catalogue, clock: Clock
) -> None:
    """SIGKILL before each call that changes a name, until one run comes to its end; the next run
    clears up after the last.
    """
    made = days(catalogue, clock, 3)
    sizes = {b.id: sorted(p.name for p in Path(b.path).rglob("*")) for b in made}
    seen = set()
    for skip in range(100):
        env = failing_syscalls("any", str(catalogue.root), "KILL", skip=skip)
        if safe_compose("forget", "--keep-last", "1", "--yes", env=env).returncode == 0:
            break
        left = ids(catalogue)
        seen.add(len(left))
        assert left[-1] == made[-1].id
        for kept in catalogue.reader.backups():
            assert (
                sorted(p.name for p in Path(kept.path).rglob("*")) == sizes[kept.id]
                and kept.verified
            )
        if (
            len(left) == 1
        ):  # the rest is cleared up by the next run, killed at its first call and at its second ...
            env = failing_syscalls("unlink", str(catalogue.root / ".trash"), "KILL", skip=1)
            safe_compose("forget", "--keep-last", "1", "--yes", env=env)
            assert safe_compose("forget", "--keep-last", "1", "--yes").returncode == 0
            break
    assert seen == {3, 1} or seen == {3, 2, 1}
    assert ids(catalogue) == [made[-1].id] and list((catalogue.root / ".trash").iterdir()) == []


def test_a_full_disk_can_be_made_room_on(
    safe_compose: SafeCompose, tmp_path: Path, clock: Clock
) -> None:
    with small_disk(tmp_path / "disk", "size=512k") as disk:
        catalogue = Catalogue.at(disk / "store", clock=clock)
        made = days(catalogue, clock, 3)
        with (
            pytest.raises(OSError, match="No space left"),
            (disk / "filled").open("wb", buffering=0) as file,
        ):
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(OperationFailed, match="no space is left"):
            keep(catalogue)
        answer = safe_compose(
            "forget", "--keep-last", "1", "--yes", env={"SAFE_COMPOSE_HOME": str(disk / "store")}
        )
        assert answer.returncode == 0 and "the disk is full" in answer.stderr, answer.stderr
        assert ids(catalogue) == [made[2].id]
        runs = shape(
            safe_compose("journal", "--json", env={"SAFE_COMPOSE_HOME": str(disk / "store")})
        )["runs"]
        assert [(r["outcome"][:8], r["damaged"]) for r in runs] == [("forgot 2", None)]
        assert keep(catalogue).verified


@pytest.mark.thorough
def test_a_read_only_store_is_listed_verified_and_keeps_everything(
    safe_compose: SafeCompose, tmp_path: Path, clock: Clock
) -> None:
    with small_disk(tmp_path / "disk", "size=4m") as disk:
        env = {"SAFE_COMPOSE_HOME": str(disk / "store")}
        made = days(Catalogue.at(disk / "store", clock=clock), clock, 2)
        flip_a_bit(made[0])
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert len(shape(safe_compose("list", "--json", env=env))["backups"]) == 2
        answer = safe_compose("forget", "--keep-last", "1", "--yes", env=env)
        assert answer.returncode == 73 and "that file system is read-only" in answer.stderr, (
            answer.stderr
        )
        good = safe_compose("verify", made[1].id, env=env)
        assert good.returncode == 0 and "\tverified L2\t" in good.stdout, good
        assert "not recorded" in good.stderr and "that file system is read-only" in good.stderr
        both = safe_compose("verify", "--all", "--json", env=env)
        told = {
            r["id"]: (bool(r["fault"]), bool(r["verified"]), r["recorded"])
            for r in shape(both, 65)["results"]
        }
        assert told == {made[0].id: (True, False, False), made[1].id: (False, True, False)}
        assert ids(Catalogue.at(disk / "store")) == [b.id for b in made]


@pytest.mark.thorough
def test_a_store_that_others_write_to_or_a_newer_version_made_is_left_alone(
    safe_compose: SafeCompose, catalogue: Catalogue, clock: Clock
) -> None:
    made = days(catalogue, clock, 2)
    catalogue.root.chmod(0o770)
    answer = safe_compose("forget", "--keep-last", "1", "--yes")
    assert answer.returncode == 73 and f"chmod go-w {catalogue.root}" in answer.stderr
    catalogue.root.chmod(0o700)
    (catalogue.root / "store.json").write_text('{"format": 2, "next_seq": 9}')
    answer = safe_compose("forget", "--keep-last", "1", "--yes")
    assert answer.returncode == 73 and "made by a newer safe-compose" in answer.stderr
    assert ids(catalogue) == [b.id for b in made]


# -- links and other tricks ------------------------------------------------------------------------


def test_what_a_link_in_the_trash_leads_to_is_not_removed(
    safe_compose: SafeCompose, catalogue: Catalogue, tmp_path: Path
) -> None:
    keep(catalogue)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (catalogue.root / ".trash" / "link").symlink_to(precious)
    assert safe_compose("forget", "--keep-last", "1", "--yes").returncode == 0
    assert (precious / "file").read_text() == "x" and list(
        (catalogue.root / ".trash").iterdir()
    ) == []


def test_a_link_in_the_place_of_the_trash_is_refused(
    safe_compose: SafeCompose, catalogue: Catalogue, clock: Clock, tmp_path: Path
) -> None:
    made = days(catalogue, clock, 2)
    (catalogue.root / ".trash").rmdir()
    (catalogue.root / ".trash").symlink_to(tmp_path)
    answer = safe_compose("forget", "--keep-last", "1", "--yes")
    assert answer.returncode == 73 and "is no folder" in answer.stderr
    assert ids(catalogue) == [b.id for b in made]


def test_a_backup_is_not_written_through_a_link(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.folder.ensure()
    (catalogue.root / "shop").symlink_to(tmp_path)
    with pytest.raises(OperationFailed, match="not a folder of the store"):
        keep(catalogue)
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize("trick", ["pipe", "link", "archive link", "folder link"])
def test_files_that_are_none_are_broken_and_nothing_waits_for_them(
    trick: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    kept = keep(catalogue)
    manifest = Path(kept.path, "manifest.json")
    folder = Path(kept.path, "shop_data")
    if trick == "pipe":
        manifest.unlink()
        os.mkfifo(manifest)
    elif trick == "link":
        manifest.symlink_to(manifest.rename(tmp_path / "manifest.json"))
    elif trick == "archive link":
        (folder / "data.tar.gz").symlink_to((folder / "data.tar.gz").rename(tmp_path / "elsewhere"))
    else:
        folder.symlink_to(folder.rename(tmp_path / "elsewhere"))
    (found,) = catalogue.reader.backups()
    assert verify.verify_again(catalogue, found, None).fault
    assert [
        b.broken is not None
        for b in (*catalogue.reader.backups(), *catalogue.reader.list_summaries())
    ] == [True, True]


# -- very many -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """A store of 300 backups in three projects, whose index is written."""
    root = tmp_path_factory.mktemp("crowd") / "store"
    fill(root, 300, projects=3)
    return with_index(Catalogue.at(root))


def with_index(catalogue: Catalogue) -> Catalogue:
    """Files that are younger than two seconds are in no index."""
    keys = [
        index.make_key(b.path, ("manifest.json", "verification.json"))
        for b in catalogue.reader.backups()
    ]
    wait_until(
        "files old enough", lambda: all(key is not None and index.is_settled(key) for key in keys)
    )
    catalogue.reader.list_summaries()
    assert (catalogue.root / index.NAME).exists()
    return catalogue


def manifests_read(look: Callable[[], object]) -> int:
    """How many manifests are opened while something is looked at."""
    opened: list[str] = []
    listening = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if listening and event == "open" and str(arguments[0]).endswith("/manifest.json"):
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)
    look()
    listening = False
    return len(opened)


def fresh(catalogue: Catalogue) -> list[BackupSummary]:
    return [b.summarize() for b in Catalogue.at(catalogue.root).reader.backups()]


@pytest.mark.thorough
def test_a_list_of_very_many_reads_no_manifest_and_tells_the_same(
    crowd: Catalogue, safe_compose: SafeCompose
) -> None:
    answer = shape(safe_compose("list", "--json", env={"SAFE_COMPOSE_HOME": str(crowd.root)}))[
        "backups"
    ]
    assert len(answer) == 300 and answer[0]["seq"] == 300 and answer[0]["verified"]["level"] == "L3"
    assert manifests_read(lambda: Catalogue.at(crowd.root).reader.list_summaries()) == 0
    assert Catalogue.at(crowd.root).reader.list_summaries() == fresh(crowd)
    assert Catalogue.at(crowd.root).reader.list_summaries("project-1") == [
        b for b in fresh(crowd) if b.project == "project-1"
    ]
    assert manifests_read(lambda: Catalogue.at(crowd.root).reader.find("latest")) == 1, (
        "what is chosen is read itself"
    )


def test_every_change_shows_at_once_and_an_index_that_lies_decides_nothing(
    crowd: Catalogue, tmp_path: Path
) -> None:
    catalogue = Catalogue.at(tmp_path / "store")
    subprocess.run(
        ["cp", "-a", crowd.root, catalogue.root], check=True
    )  # other inodes: its index fits nothing
    with_index(catalogue)
    newest, second, third, *_ = catalogue.reader.backups()
    catalogue.writer.mark_broken(newest, "a bit")
    path = Path(second.path, "manifest.json")
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b'"manual"', b'"Manual"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # same name, size, mtime and inode
    subprocess.run(["rm", "-r", third.path], check=True)
    added = keep(catalogue, project="another")
    assert catalogue.reader.list_summaries() == fresh(catalogue)
    assert [b.broken for b in catalogue.reader.list_summaries()[:3]] == [
        None,
        "a bit",
        "its manifest was changed after it was verified",
    ]
    lies = json.loads((catalogue.root / index.NAME).read_text())
    Path(added.path, "verification.json").unlink()
    at = lies["names"].index("verified")
    key = index.make_key(added.path, ("manifest.json", "verification.json"))
    line = [getattr(replace(added, evidence=()).summarize(), name) for name in lies["names"]]
    line[at] = True
    lies["lines"][f"another/{added.id}"] = [key, line]
    (catalogue.root / index.NAME).write_text(json.dumps(lies))
    assert catalogue.reader.list_summaries()[0].verified, "the lie is believed by a list"
    assert catalogue.reader.find("latest").id != added.id, "and by nothing else"
    going = forget.select_by_policy(catalogue, forget.Policy(last=1), datetime.now(UTC), "another")
    assert [(j.stays, "not verified" in j.why[0]) for j in going.judged] == [(True, True)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"format": 1, "names": [], "lines": {}}',
        b"[" * 100_000,
        b"\xff",
        None,
    ],
)
def test_a_damaged_index_is_made_again(data: bytes | None, crowd: Catalogue) -> None:
    path = crowd.root / index.NAME
    path.unlink()
    path.write_bytes(data) if data is not None else path.symlink_to("/etc/passwd")
    assert Catalogue.at(crowd.root).reader.list_summaries() == fresh(crowd)
    assert manifests_read(lambda: Catalogue.at(crowd.root).reader.list_summaries()) == 0
    assert not path.is_symlink() and path.stat().st_mode & 0o777 == 0o600


@pytest.mark.thorough
def test_a_table_of_very_many_is_one_line_each(
    crowd: Catalogue, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    fill(tmp_path / "store", 600)
    env = {"SAFE_COMPOSE_HOME": str(tmp_path / "store")}
    head, *lines = safe_compose("list", env=env).stdout.splitlines()
    assert head.split("\t")[:6] == ["id", "project", "created", "size", "verified", "reason"]
    assert len(lines) == 600 and all(
        re.fullmatch(r"\S+Z-\w+\tproject-\d+\t\S+Z\t\d+\tL3\tmanual\t.*", line) for line in lines
    )


# -- reading again ---------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_rotating_sample_comes_round_and_finds_the_rot(
    safe_compose: SafeCompose, catalogue: Catalogue, clock: Clock, tmp_path: Path
) -> None:
    made = days(catalogue, clock, 3)
    never = keep(catalogue, verify=False)
    flip_a_bit(made[1])
    flip_a_bit(made[2])
    sampled = []
    for _ in range(2):
        answer = safe_compose("verify", "--sample", "1/4", "--json")
        sampled += [r["id"] for r in json.loads(answer.stdout)["results"]]
        read_at = datetime.now(UTC).second  # evidence knows no less
        wait_until("the next second", lambda at=read_at: datetime.now(UTC).second != at)
    assert sampled == [never.id, made[0].id] and answer.returncode == 0, (
        "the never read one first, then the oldest"
    )
    receipt = tmp_path / "receipt.xml"
    answer = safe_compose("verify", "--sample", "25%", "--junit", str(receipt))
    assert answer.returncode == 65 and f"{made[1].id}\tshop\tBROKEN" in answer.stdout
    suite = ElementTree.parse(receipt).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert [c.get("name") for c in suite] == [made[1].id] and "is damaged" in str(
        suite[0][0].get("message")
    )
    rest = shape(safe_compose("verify", "--all", "--json"), code=65)["results"]
    assert {r["id"]: r["fault"] is None for r in rest} == {
        made[0].id: True,
        made[1].id: False,
        made[2].id: False,
        never.id: True,
    }
    assert shape(safe_compose("show", "latest", "--json"))["backup"]["id"] == never.id
    assert [b["verified"] is False for b in shape(safe_compose("list", "--json"))["backups"]] == [
        False,
        True,
        True,
        False,
    ]
    assert "verified L2" in safe_compose("verify", "--sample", "100%").stdout, (
        "broken ones are not sampled for ever"
    )


@pytest.mark.thorough
def test_a_damaged_page_on_the_disk_is_not_good_again_by_itself(
    safe_compose: SafeCompose, catalogue: Catalogue
) -> None:
    kept = keep(catalogue)
    flip_a_bit(kept)
    assert safe_compose("verify").returncode == 65
    assert safe_compose("verify").returncode == 64, "latest is none any more"
    flip_a_bit(kept)  # back
    assert safe_compose("verify", kept.id).returncode == 0, "its own bytes prove it again"


@pytest.mark.thorough
def test_progress_tells_which_of_how_many(
    safe_compose: SafeCompose, catalogue: Catalogue, clock: Clock, tmp_path: Path
) -> None:
    made = days(catalogue, clock, 2)
    person = Person("verify", "--all", cwd=tmp_path)
    person.sees(f"2 of 2: {made[0].id} of shop")
    assert person.leaves_with() == 0


@pytest.mark.parametrize("share", ["0%", "101%", "2/1", "1/0", "ten", "-1%", "", "1%%", "²%"])
def test_a_share_is_above_nothing_and_at_most_all(share: str) -> None:
    with pytest.raises(UsageError, match="10% or 1/7"):
        forget.parse_share(share)


@pytest.mark.thorough
def test_wrong_words_for_verify_are_64_and_read_nothing(
    safe_compose: SafeCompose, catalogue: Catalogue, tmp_path: Path
) -> None:
    kept = keep(catalogue)
    for words in (
        ("--all", "--sample", "10%"),
        (kept.id, "--all"),
        ("--all", "--junit", str(tmp_path / "no" / "file")),
    ):
        answer = safe_compose("verify", *words)
        assert answer.returncode == 64 and kept.id not in answer.stdout


def test_a_receipt_holds_whatever_a_fault_says() -> None:
    odd = Backup("b1", 1, "", "a\x00b\udcff", "", "", "", (), "/x").summarize()
    root = ElementTree.fromstring(
        forget.format_junit(
            [forget.ReverificationResult(odd, 'ends with "\x1b]<&\ud800\ufffe', 0.5)]
        )
    )
    assert (
        root[0].get("classname") == "a\\x00b\\udcff"
        and root[0][0].get("message") == 'ends with "\\x1b]<&\\ud800\\xfffe'
    )


def test_doctor_tells_of_rot_and_of_more_than_the_budget_and_deletes_nothing(
    catalogue: Catalogue, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    broken, _ = days(catalogue, clock, 2)
    catalogue.writer.mark_broken(broken, "a bit")
    (tmp_path / "safe-compose.toml").write_text("[store]\nmax_size = 1\n")
    attention = examine_store().attention
    assert "1 backup did not verify: safe-compose list" in attention
    assert any(
        re.search(r"more than max_size; .*: safe-compose forget --dry-run --keep-daily 7", line)
        for line in attention
    )
    assert len(ids(catalogue)) == 2


# -- a disk that says no, and a real deletion ------------------------------------------------------

APP = """
services:
  app: {image: "busybox:latest", init: true, command: [sleep, "100000"], volumes: ["uploads:/uploads"]}
volumes:
  uploads:
"""


@pytest.mark.thorough
@pytest.mark.engine
def test_a_disk_that_reports_an_error_or_has_no_locks_is_73_and_the_volume_lives(
    compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    """Network file systems and quotas report at fsync and close: after every byte seemed to be
    written.
    """
    project = compose_project(APP)
    project.docker("compose", "create", "--pull", "never")
    job = ("--non-interactive", "--backup-first", "compose", "down", "-v")
    said: Mapping[tuple[str, str, str], str] = {
        ("fsync", "data.tar.gz", "EIO"): os.strerror(errno.EIO),
        ("close", "data.tar.gz", "EDQUOT"): os.strerror(errno.EDQUOT),
        ("fsync", "/SHA256SUMS", "EIO"): "the disk reports an input/output error",
        ("close", "/manifest.json", "ENOSPC"): "no space is left on that file system",
        ("rename", "/.partial-", "EIO"): "the disk reports an input/output error",
        ("flock", "safe-compose/locks", "ENOLCK"): "that file system has no locks",
        ("flock", "safe-compose/locks", "EOPNOTSUPP"): "that file system has no locks",
    }
    for (call, path, error), words in said.items():
        answer = safe_compose(*job, cwd=project.folder, env=failing_syscalls(call, path, error))
        assert answer.returncode == 73 and "docker was not run (73)" in answer.stderr, (
            call,
            path,
            answer.stderr,
        )
        assert words in answer.stderr, (call, path, answer.stderr)
        assert project.volumes() == [f"{project.name}_uploads"]
        assert shape(safe_compose("list", "--json"))["backups"] == []
        assert list((sealed_environment / "safe-compose").rglob(".partial-*")) == []


@pytest.mark.thorough
@pytest.mark.engine
def test_more_than_the_budget_is_told_on_the_screen_and_after_the_backup_and_deletes_nothing(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(APP)
    project.docker("compose", "create", "--pull", "never")
    (project.folder / "safe-compose.toml").write_text(
        "[store]\nmax_size = 1\n\n[retention]\nkeep_last = 1\n"
    )
    made = [
        shape(safe_compose("backup", "--json", cwd=project.folder))["backup"]["id"]
        for _ in range(2)
    ]
    answer = safe_compose(
        "--non-interactive", "--backup-first", "compose", "down", "-v", cwd=project.folder
    )
    assert answer.returncode == 0, answer.stderr
    assert (
        answer.stderr.count(
            "more than max_size (1 B); see what could go: safe-compose forget --dry-run"
        )
        == 2
    )
    listed = [b["id"] for b in shape(safe_compose("list", "--json"))["backups"]]
    assert listed[1:] == made[::-1] and len(listed) == 3
    planned = shape(safe_compose("forget", "--dry-run", "--json", cwd=project.folder))["forget"]
    assert [b["id"] for b in planned["forget"]] == made[::-1], (
        "the project of the folder is found by itself"
    )
    (path,) = docker("volume", "ls", "-q", "--filter", f"name={project.name}").stdout.split() or [
        ""
    ]
    assert path == ""
