"""The store of backups: durable, private, numbered, locked, and readable whatever is damaged in it."""

import errno
import gzip
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from safe_compose.core.backup import (
    OWNER,
    WORKPLACE,
    Artifact,
    Backup,
    DatabaseStatistics,
    Evidence,
    ServerStatistics,
    TableCount,
    VolumeRecord,
)
from safe_compose.core.policy import Rule
from safe_compose.core.redaction import hide_option, redact
from safe_compose.core.slug import slug
from safe_compose.core.tier import Tier
from safe_compose.errors import OperationFailed, StateChanged, UsageError
from safe_compose.store.catalogue.catalogue import Catalogue, Draft, measure_free_space
from safe_compose.system.files import SHARED, Access
from safe_compose.system.process import Process
from testing.clock import Clock
from testing.plain_install import plain_python

ROOT = os.geteuid() == 0
AT = "2026-11-22T07:27:00Z"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalogue(tmp_path: Path, clock: Clock) -> Catalogue:
    return Catalogue.at(tmp_path / "store", clock=clock)


def record(name: str = "shop_data", *artifacts: Artifact) -> VolumeRecord:
    return VolumeRecord(
        name, "local", {}, {"a": "b"}, AT, "critical", "files", False, "cold", artifacts=artifacts
    )


def artifact(
    draft: Draft,
    file: str = "data.tar.gz",
    data: bytes = b"data",
    kind: str = "archive",
    volume: str = "shop_data",
) -> Artifact:
    folder = draft.folder(volume)
    (folder / file).write_bytes(data)
    digest = sha256(data).hexdigest()
    return Artifact(f"{folder.name}/{file}", kind, len(data), digest, len(data), volume)


def keep(
    catalogue: Catalogue,
    project: str = "shop",
    reason: str = "manual",
    *,
    command: tuple[str, ...] = (),
) -> Backup:
    with catalogue.writer.draft(
        project, reason, endpoint="unix:///x", engine_id="E", command=command
    ) as draft:
        return draft.commit([record("shop_data", artifact(draft))])


def verified(catalogue: Catalogue, backup: Backup) -> Backup:
    return catalogue.writer.mark_verified(
        backup, [Evidence("L2", "shop_data/data.tar.gz", AT, "read")]
    )


# -- what a backup looks like ----------------------------------------------------------------------


def test_a_backup_is_read_back_as_it_was_kept(catalogue: Catalogue) -> None:
    tables = (TableCount("public", "users", 3), TableCount("odd schema", 'odd "table"', 0))
    databases = (DatabaseStatistics('odd "name"', 10, tables, 2, ("plpgsql",)),)
    statistics = ServerStatistics(
        "postgres", "15.18", "app", "712", "/var/lib/postgresql/data", databases
    )
    with catalogue.writer.draft(
        "shop", "manual", endpoint="unix:///x", engine_id="E", command=("compose", "down", "-v")
    ) as draft:
        full = replace(
            record("shop_data", artifact(draft)),
            statistics=statistics,
            users=({"container": "c", "image": "postgres:15"},),
            options={"type": "tmpfs"},
            notes=("a note",),
            dump_older_than_archive=True,
        )
        kept = draft.commit([full], warnings=("a warning",))
    fresh = Catalogue.at(catalogue.root)
    assert fresh.reader.backups() == [kept]
    assert (kept.volumes, kept.command, kept.warnings) == (
        (full,),
        ("compose", "down", "-v"),
        ("a warning",),
    )
    assert re.fullmatch(r"20261122T072700Z-[0-9a-f]{6}", kept.id)
    assert (kept.seq, kept.created, kept.verified, kept.level) == (1, AT, False, None)


def test_the_manifest_is_versioned_and_sorted(catalogue: Catalogue) -> None:
    text = Path(keep(catalogue).path, "manifest.json").read_text()
    assert json.loads(text)["format"] == 1
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_sha256sum_accepts_every_file_and_knows_all_but_what_may_change(
    catalogue: Catalogue,
) -> None:
    with catalogue.writer.draft("shop", "manual", endpoint="e", engine_id="E") as draft:
        files = [
            artifact(draft, name, name.encode())
            for name in ("data.tar.gz", "odd name\nwith \\ line.gz")
        ]
        (draft.path / "shop_data" / "extra.txt").write_text("not an artifact")
        kept = draft.commit([record("shop_data", *files)])
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=kept.path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.count(": OK\n")) == (0, 5)
    later = ("SHA256SUMS", "verification.json")
    assert len([p for p in Path(kept.path).rglob("*") if p.is_file() and p.name not in later]) == 5


def test_only_what_happens_before_a_deletion_is_pinned_for_thirty_days(
    catalogue: Catalogue,
) -> None:
    assert keep(catalogue).pinned_until is None
    assert keep(catalogue, reason="pre-delete").pinned_until == "2026-12-22T07:27:00Z"


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(catalogue: Catalogue, umask: int) -> None:
    before = os.umask(umask)
    try:
        catalogue.folder.ensure()
        with catalogue.writer.draft("shop", "manual", endpoint="e", engine_id="E") as draft:
            made = artifact(draft)
            (draft.path / "shop_data" / "data.tar.gz").chmod(0o644)
            kept = draft.commit([record("shop_data", made)])
        verified(catalogue, kept)
        catalogue.protections.protect("a", Tier.CRITICAL)
        with catalogue.folder.lock("E", "shop"):
            modes = {
                (p.is_dir(), stat.S_IMODE(p.stat().st_mode))
                for p in [catalogue.root, *catalogue.root.rglob("*")]
            }
    finally:
        os.umask(before)
    assert modes == {(True, 0o700), (False, 0o600)}


def test_a_shared_store_is_for_its_group(tmp_path: Path) -> None:
    catalogue = Catalogue.at(tmp_path / "store", SHARED)
    keep(catalogue)
    modes = {
        (p.is_dir(), stat.S_IMODE(p.stat().st_mode))
        for p in [catalogue.root, *catalogue.root.rglob("*")]
    }
    assert modes == {(True, 0o2770), (False, 0o660)}


@pytest.mark.skipif(not ROOT, reason="only root gives files away")
def test_what_root_writes_under_sudo_belongs_to_the_invoking_user(tmp_path: Path) -> None:
    catalogue = Catalogue.at(tmp_path / "me" / "store", Access(owner=(65534, 65534)))
    verified(catalogue, keep(catalogue))
    catalogue.protections.protect("a", Tier.CRITICAL)
    with catalogue.folder.lock("E", "shop"):
        owners = {p.stat().st_uid for p in (tmp_path / "me").rglob("*")} | {
            (tmp_path / "me").stat().st_uid
        }
    assert owners == {65534}


def test_the_store_ignores_itself_in_git(catalogue: Catalogue) -> None:
    catalogue.folder.ensure()
    assert (catalogue.root / ".gitignore").read_text() == "*\n"


# -- secrets ---------------------------------------------------------------------------------------

CANARY = "c4n4ry"


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["--confirm", CANARY, "compose", "down"], ["--confirm", "***", "compose", "down"]),
        ([f"--confirm={CANARY}"], ["--confirm=***"]),
        (["run", "-e", f"X={CANARY}"], ["run", "-e", "X=***"]),
        (["run", "-e", "X"], ["run", "-e", "X"]),
        (["run", "-ite", f"X={CANARY}"], ["run", "-ite", "X=***"]),
        (["run", f"-eX={CANARY}"], ["run", "-eX=***"]),
        (["run", f"-iteX={CANARY}"], ["run", "-iteX=***"]),
        (["run", f"-e=X={CANARY}"], ["run", "-e=X=***"]),
        (["run", f"--env=X={CANARY}"], ["run", "--env=X=***"]),
        (["run", "--env", f"X=a {CANARY}\nb"], ["run", "--env", "X=***"]),
        (["build", "--build-arg", f"TOKEN={CANARY}"], ["build", "--build-arg", "TOKEN=***"]),
        (["login", "-u", "me", "-p", CANARY], ["login", "-u", "me", "-p", "***"]),
        (["login", "--password", CANARY], ["login", "--password", "***"]),
        ([f"DB_PASSWORD=a {CANARY}, b"], ["DB_PASSWORD=***"]),
        (["-o", f"o=username=me,password={CANARY},uid=0"], ["-o", "o=username=me,password=***,uid=0"]),
        (["-o", f"o=password=a,,{CANARY},b c"], ["-o", "o=password=***"]),
        (["-H", f"tcp://me:{CANARY}@host:2376"], ["-H", "tcp://me:***@host:2376"]),
        (["compose", "-p", "shop", "-f", "a=b.yaml", "down", "-v", "-t=5"],
         ["compose", "-p", "shop", "-f", "a=b.yaml", "down", "-v", "-t=5"]),
        (["-H", "ssh://me@host"], ["-H", "ssh://me@host"]),
        (["compose", "run", "--rm", "db", "mysql", f"-p{CANARY}", "shop"], ["compose", "run", "--rm", "db", "..."]),
        (["run", "-e", f"X={CANARY}", "db", "redis-cli", "-a", CANARY], ["run", "-e", "X=***", "db", "..."]),
        (["docker", "compose", "run", "db", "mysql", f"-p{CANARY}"], ["docker", "compose", "run", "db", "..."]),
        (["/usr/bin/docker-compose", "run", "db", "mysql", f"-p{CANARY}"], ["/usr/bin/docker-compose", "run", "db", "..."]),
        (["docker", "run", "shop", "serve"], ["docker", "run", "shop", "serve"]),
        (["compose", "run", "db"], ["compose", "run", "db"]),
    ],
)  # fmt: skip
def test_commands_are_written_down_without_secrets(argv: list[str], shown: list[str]) -> None:
    assert redact(argv) == tuple(shown)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("o", f"username=me,password=a,,{CANARY},uid=0,ro", "username=me,password=***,uid=0,ro"),
        ("o", f"sep=;username=me;password=a,{CANARY};uid=0", "sep=;username=me;password=***"),
        ("o", f"pass=,{CANARY}", "pass=***"),
        ("o", f"username=me,password2=a {CANARY} b,vers=3.0", "username=me,password2=***,vers=3.0"),
        ("o", f"PASSWORD={CANARY},vers=1,password={CANARY},ro", "PASSWORD=***,ro"),
        ("o", f"password=a,ro,{CANARY}=x", "password=***"),
        ("password", CANARY, "***"),
        ("sftp_pass", f"a b,{CANARY}", "***"),
        ("token", f"uid=0,{CANARY}", "***"),
        ("device", f"//me:{CANARY}@host/share", "//me:***@host/share"),
        ("o", "addr=10.0.0.1,rw,nfsvers=4", "addr=10.0.0.1,rw,nfsvers=4"),
        ("o", "username=me,password=", "username=me,password="),
        ("password", "", ""),
    ],
)
def test_no_part_of_a_secret_in_an_option_is_shown(name: str, value: str, shown: str) -> None:
    assert hide_option(name, value) == shown


def test_no_secret_reaches_the_store(catalogue: Catalogue) -> None:
    with catalogue.writer.draft(
        "shop", "manual", endpoint="e", engine_id="E", command=("run", "-e", f"A={CANARY}")
    ) as draft:
        secret = replace(
            record("shop_data", artifact(draft)), options={"o": f"username=me,password={CANARY}"}
        )
        kept = draft.commit([secret])
    with catalogue.folder.lock("E", "shop", command=("--confirm", CANARY)):
        texts = [p.read_text() for p in catalogue.root.rglob("*") if p.is_file()]
    assert not [text for text in texts if CANARY in text]
    assert kept.volumes[0].options == {"o": "username=me,password=***"}
    assert "give it again" in kept.volumes[0].notes[0]


# -- nothing half kept -----------------------------------------------------------------------------


def names(catalogue: Catalogue) -> list[str]:
    return sorted(p.name for folder in catalogue.root.glob("shop*") for p in folder.iterdir())


@pytest.mark.parametrize("fault", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_a_fault_in_the_block_removes_the_draft(catalogue: Catalogue, fault: BaseException) -> None:
    with (
        pytest.raises(type(fault)),
        catalogue.writer.draft("shop", "manual", endpoint="e", engine_id="E") as draft,
    ):
        artifact(draft)
        raise fault
    assert names(catalogue) == []
    assert not list((catalogue.root / "locks").glob("draft-*"))


def test_a_draft_without_a_commit_is_no_backup(catalogue: Catalogue) -> None:
    with catalogue.writer.draft("shop", "manual", endpoint="e", engine_id="E") as draft:
        artifact(draft)
    assert names(catalogue) == [] and draft.backup is None


def test_a_draft_has_no_name_before_its_commit(catalogue: Catalogue) -> None:
    with catalogue.writer.draft("shop", "manual", endpoint="e", engine_id="E") as draft:
        assert names(catalogue) == [f".partial-{draft.id}"]
        assert catalogue.reader.backups() == []
        draft.commit([record("shop_data", artifact(draft))])
        assert names(catalogue) == [draft.id]


def test_a_missing_or_short_artifact_is_refused(catalogue: Catalogue) -> None:
    with (
        pytest.raises(OperationFailed, match="is missing"),
        catalogue.writer.draft("shop", "m", endpoint="e", engine_id="E") as draft,
    ):
        (draft.path / artifact(draft).file).unlink()
        draft.commit([record("shop_data", replace(_nothing(), file="shop_data/data.tar.gz"))])
    with (
        pytest.raises(OperationFailed, match="3 bytes on disk, 4 were"),
        catalogue.writer.draft("shop", "m", endpoint="e", engine_id="E") as draft,
    ):
        made = artifact(draft)
        (draft.path / made.file).write_bytes(b"dat")
        draft.commit([record("shop_data", made)])
    assert names(catalogue) == []


def _nothing() -> Artifact:
    return Artifact("x", "archive", 0, "", 0, "shop_data")


@pytest.mark.parametrize(
    "file", ["../x", "/etc/passwd", "a/../../x", "", "manifest.json", "SHA256SUMS"]
)
def test_an_artifact_outside_of_the_folder_is_refused(catalogue: Catalogue, file: str) -> None:
    with (
        pytest.raises(OperationFailed, match="impossible name"),
        catalogue.writer.draft("shop", "m", endpoint="e", engine_id="E") as draft,
    ):
        draft.commit([record("shop_data", replace(_nothing(), file=file))])


def test_a_backup_that_could_not_be_read_again_is_not_kept(catalogue: Catalogue) -> None:
    with (
        pytest.raises(
            OperationFailed, match=r"could not be read again .*'rbd/data' is no name of a volume"
        ),
        catalogue.writer.draft("shop", "m", endpoint="e", engine_id="E") as draft,
    ):
        draft.commit([record("rbd/data", artifact(draft))])
    assert names(catalogue) == []


def test_a_backup_of_nothing_is_none(catalogue: Catalogue) -> None:
    with (
        pytest.raises(OperationFailed, match="of no volume"),
        catalogue.writer.draft("shop", "m", endpoint="e", engine_id="E") as draft,
    ):
        draft.commit([])


@contextmanager
def small_disk(path: Path, options: str) -> Iterator[None]:
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.mark.skipif(not ROOT, reason="mounting needs root")
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=256k"):
        catalogue = Catalogue.at(tmp_path / "disk" / "store")
        kept = keep(catalogue)
        with (
            pytest.raises(OperationFailed, match="no space is left") as caught,
            catalogue.writer.draft("shop", "m", endpoint="e", engine_id="E") as draft,
        ):
            artifact(draft, data=b"x" * (1 << 20))
        assert "SAFE_COMPOSE_HOME" in (caught.value.next_step or "")
        assert names(catalogue) == [kept.id]
        assert measure_free_space(tmp_path / "disk").bytes < 256 << 10


@pytest.mark.skipif(not ROOT, reason="mounting needs root")
def test_a_disk_that_fills_up_at_the_commit_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=128k"):
        catalogue = Catalogue.at(tmp_path / "disk" / "store")
        with (
            pytest.raises(OperationFailed, match="no space is left"),
            catalogue.writer.draft("shop", "m", endpoint="e", engine_id="E") as draft,
        ):
            made = artifact(draft)
            (tmp_path / "disk" / "fill").write_bytes(
                b"x" * measure_free_space(tmp_path / "disk").bytes
            )
            draft.commit([record("shop_data", made)])
        (tmp_path / "disk" / "fill").unlink()
        assert names(catalogue) == [] and catalogue.reader.backups() == []
        assert keep(catalogue).seq >= 1


@pytest.mark.skipif(not ROOT, reason="mounting needs root")
def test_no_inodes_is_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=1m,nr_inodes=8"):
        assert measure_free_space(tmp_path / "disk").inodes is not None
        with pytest.raises(OperationFailed, match="no space is left"):
            keep(Catalogue.at(tmp_path / "disk" / "store"))


def test_a_file_size_limit_is_a_failed_backup(catalogue: Catalogue) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    catalogue.folder.ensure()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with (
            pytest.raises(OperationFailed, match="larger than its limit"),
            catalogue.writer.draft("shop", "m", endpoint="e", engine_id="E") as draft,
        ):
            artifact(draft, data=b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert names(catalogue) == []


@pytest.mark.skipif(not ROOT, reason="mounting needs root")
def test_a_read_only_file_system_is_told_by_name(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=128k"):
        catalogue = Catalogue.at(tmp_path / "disk" / "store")
        kept = keep(catalogue)
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "disk"], check=True)
        with pytest.raises(OperationFailed, match="that file system is read-only"):
            catalogue.folder.ensure()
        with pytest.raises(OperationFailed, match="that file system is read-only"):
            keep(catalogue)
        assert catalogue.reader.backups() == [kept]


# -- a store that cannot be used -------------------------------------------------------------------


def test_a_file_in_the_place_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("x")
    with pytest.raises(OperationFailed, match="a file is in the way"):
        Catalogue.at(tmp_path / "store").folder.ensure()
    with pytest.raises(OperationFailed, match="a file is in the way"):
        Catalogue.at(tmp_path / "store" / "below").folder.ensure()
    assert Catalogue.at(tmp_path / "store").reader.backups() == []


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
def test_a_store_that_others_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(mode)
    with pytest.raises(OperationFailed, match="others may write to it") as caught:
        Catalogue.at(tmp_path / "store").folder.ensure()
    assert caught.value.next_step == f"chmod go-w {tmp_path / 'store'}"


def test_a_shared_store_is_still_not_for_everybody(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o777)
    with pytest.raises(OperationFailed, match="others may write"):
        Catalogue.at(tmp_path / "store", SHARED).folder.ensure()


@pytest.mark.skipif(not ROOT, reason="only root gives folders away")
def test_a_store_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o700)
    os.chown(tmp_path / "store", 65534, 65534)
    with pytest.raises(OperationFailed, match="belongs to user 65534"):
        Catalogue.at(tmp_path / "store").folder.ensure()


def test_a_store_behind_a_symbolic_link_is_used(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "store").symlink_to("real")
    assert Path(keep(Catalogue.at(tmp_path / "store")).path).is_dir()


def test_a_store_of_a_newer_version_is_not_written_to(catalogue: Catalogue) -> None:
    catalogue.folder.ensure()
    (catalogue.root / "store.json").write_text('{"format": 2, "next_seq": 9}')
    with pytest.raises(OperationFailed, match="newer safe-compose"):
        keep(catalogue)
    assert names(catalogue) == []


# -- numbers ---------------------------------------------------------------------------------------


def test_order_is_by_number_when_the_clock_steps_back(catalogue: Catalogue, clock: Clock) -> None:
    first = keep(catalogue)
    clock.now -= timedelta(days=400)
    second = keep(catalogue, "blog")
    clock.now += timedelta(days=1)
    third = keep(catalogue)
    assert [b.id for b in catalogue.reader.backups()] == [third.id, second.id, first.id]
    assert [b.id for b in catalogue.reader.backups("shop")] == [third.id, first.id]
    assert len({first.id, second.id, third.id}) == 3


@pytest.mark.parametrize(
    "damage",
    [None, b"", b"{", b"[]", b'{"next_seq": "x"}', b'{"next_seq": -1}', b'{"next_seq": true}'],
)
def test_a_lost_number_is_counted_again(catalogue: Catalogue, damage: bytes | None) -> None:
    keep(catalogue)
    keep(catalogue, "blog")
    path = catalogue.root / "store.json"
    path.unlink() if damage is None else path.write_bytes(damage)
    assert keep(catalogue).seq == 3


# -- reading what is damaged -----------------------------------------------------------------------


def damage_manifest(path: Path, **changes: object) -> None:
    shape = json.loads((path / "manifest.json").read_text()) | changes
    (path / "manifest.json").write_text(json.dumps(shape))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda p: (p / "manifest.json").unlink(), "it has no manifest"),
        (lambda p: (p / "manifest.json").write_bytes(b""), "its manifest is not JSON"),
        (lambda p: (p / "manifest.json").write_bytes(b"\xff"), "its manifest is not JSON"),
        (lambda p: (p / "manifest.json").write_bytes(b"[]"), "its manifest does not read"),
        (lambda p: (p / "manifest.json").write_bytes(b"[" * 100_000), "its manifest is not JSON"),
        (lambda p: damage_manifest(p, format=2), "made by a newer safe-compose"),
        (lambda p: damage_manifest(p, format=0), "its manifest does not read: format"),
        (lambda p: damage_manifest(p, seq=0), "its manifest does not read: seq"),
        (lambda p: damage_manifest(p, id="another"), "belongs to another backup"),
        (lambda p: damage_manifest(p, volumes=[{"name": 1}]), "its manifest does not read: volumes.0"),
        (lambda p: damage_manifest(p, volumes="x"), "its manifest does not read: volumes"),
        (lambda p: ((p / "manifest.json").unlink(), (p / "manifest.json").mkdir()), "cannot be read: a folder is in the way"),
        (lambda p: (p / "verification.json").write_bytes(b"{"), "its verification.json does not read"),
        (lambda p: (p / "verification.json").write_bytes(b"{}"), "its verification.json does not read"),
        (lambda p: damage_manifest(p, project="blog "), "its manifest was changed after it was verified"),
    ],
)  # fmt: skip
def test_one_damaged_backup_is_listed_and_the_rest_stays_usable(
    catalogue: Catalogue, damage: object, why: str
) -> None:
    good, bad = verified(catalogue, keep(catalogue)), verified(catalogue, keep(catalogue))
    damage(Path(bad.path))  # type: ignore[operator]
    found = {b.id: b for b in catalogue.reader.backups()}
    assert found[good.id] == good
    assert why in (found[bad.id].broken or "")
    assert not found[bad.id].verified and found[bad.id].level is None
    assert catalogue.reader.find("latest").id == good.id
    assert catalogue.reader.find(bad.id).broken == found[bad.id].broken


@pytest.mark.parametrize("file", ["../x", "/etc/passwd", "a/../../b", ""])
def test_a_manifest_that_names_files_elsewhere_is_broken(catalogue: Catalogue, file: str) -> None:
    kept = keep(catalogue)
    shape = json.loads(Path(kept.path, "manifest.json").read_text())
    shape["volumes"][0]["artifacts"][0]["file"] = file
    Path(kept.path, "manifest.json").write_text(json.dumps(shape))
    assert "outside of its folder" in (catalogue.reader.find(kept.id).broken or "")


def test_keys_of_a_later_version_are_passed_over(catalogue: Catalogue) -> None:
    kept = keep(catalogue)
    damage_manifest(Path(kept.path), later="x")
    (Path(kept.path) / "verification.json").unlink()  # it is about the bytes of before
    found = catalogue.reader.find(kept.id)
    assert found.broken is None and replace(found, unsigned_from=None) == kept


def test_strange_files_in_the_store_disturb_nothing(catalogue: Catalogue) -> None:
    kept = keep(catalogue)
    (catalogue.root / "a file").write_text("x")
    (catalogue.root / "shop" / "a file").write_text("x")
    (catalogue.root / "shop" / "link").symlink_to(kept.id)
    assert catalogue.reader.backups() == [kept]


# -- finding ---------------------------------------------------------------------------------------


def test_a_backup_is_found_by_id_and_by_a_unique_beginning(catalogue: Catalogue) -> None:
    kept = keep(catalogue)
    assert (
        catalogue.reader.find(kept.id)
        == catalogue.reader.find(kept.id[:20])
        == catalogue.reader.find(kept.id, "shop")
        == kept
    )


def test_an_ambiguous_or_unknown_id_names_the_candidates(catalogue: Catalogue) -> None:
    first, second = keep(catalogue), keep(catalogue, "blog")
    with pytest.raises(UsageError) as caught:
        catalogue.reader.find("2026")
    assert first.id in caught.value.message and second.id in caught.value.message
    for word in ("x", "", "../shop", "."):
        with pytest.raises(UsageError, match=first.id):
            catalogue.reader.find(word)
    with pytest.raises(UsageError, match="there is no backup"):
        catalogue.reader.find(first.id, "blog")


def test_latest_is_the_newest_verified_one(catalogue: Catalogue) -> None:
    first = verified(catalogue, keep(catalogue))
    second = verified(catalogue, keep(catalogue))
    catalogue.writer.mark_broken(second, "cut short")
    third = keep(catalogue)
    assert catalogue.reader.find("latest") == catalogue.reader.find("latest", "shop") == first
    assert third.id in [line.id for line in catalogue.reader.list_passed_over(first)]
    assert verified(catalogue, third) == catalogue.reader.find("latest")
    with pytest.raises(UsageError, match="no verified backup of project blog"):
        catalogue.reader.find("latest", "blog")


# -- what is found out later -----------------------------------------------------------------------


def test_evidence_is_kept_beside_the_sums(catalogue: Catalogue) -> None:
    kept = verified(catalogue, keep(catalogue))
    assert (kept.level, kept.verified) == ("L2", True)
    assert "verification.json" not in Path(kept.path, "SHA256SUMS").read_text()
    assert Catalogue.at(catalogue.root).reader.find(kept.id) == kept


def test_evidence_adds_up(catalogue: Catalogue) -> None:
    kept = verified(catalogue, keep(catalogue))
    later = catalogue.writer.mark_verified(kept, [Evidence("L4", "shop_data", AT, "tried")])
    again = catalogue.writer.mark_verified(
        later, [Evidence("L2", "shop_data/data.tar.gz", "2027-01-01T00:00:00Z", "read again")]
    )
    assert [(e.level, e.what) for e in again.evidence] == [("L2", "read again"), ("L4", "tried")]
    assert catalogue.reader.find(kept.id) == again


def test_a_broken_backup_loses_its_evidence_and_is_good_again_only_as_a_whole(
    catalogue: Catalogue,
) -> None:
    kept = verified(catalogue, keep(catalogue))
    broken = catalogue.writer.mark_broken(kept, "sha256 differs")
    assert (broken.broken, broken.verified, broken.evidence) == ("sha256 differs", False, ())
    assert (
        catalogue.writer.mark_verified(broken, [Evidence("L4", "shop_data", AT, "x")]).broken
        == "sha256 differs"
    )
    assert verified(catalogue, broken).verified


@pytest.mark.parametrize(
    ("kind", "level", "proved"),
    [("archive", "L1", False), ("archive", "L2", True), ("globals", "L2", True), ("database", "L2", False),
     ("database", "L3", True), ("list", "L1", True)],
)  # fmt: skip
def test_verified_asks_of_each_artifact_what_a_deletion_asks(
    catalogue: Catalogue, kind: str, level: str, proved: bool
) -> None:
    with catalogue.writer.draft("shop", "manual", endpoint="e", engine_id="E") as draft:
        made = artifact(draft, kind=kind)
        kept = draft.commit([record("shop_data", made)])
    kept = catalogue.writer.mark_verified(kept, [Evidence(level, made.file, AT, "x")])
    assert (kept.verified, kept.unproved) == (proved, () if proved else (made.file,))


def test_a_damaged_folder_can_be_marked(catalogue: Catalogue) -> None:
    kept = keep(catalogue)
    Path(kept.path, "manifest.json").unlink()
    assert (
        catalogue.writer.mark_broken(catalogue.reader.find(kept.id), "no manifest").broken
        == "no manifest"
    )


# -- protections -----------------------------------------------------------------------------------


def test_a_protection_is_a_floor_until_it_is_taken_away(catalogue: Catalogue) -> None:
    assert catalogue.protections.rules() == []
    catalogue.protections.protect("shop_data", Tier.CRITICAL)
    catalogue.protections.protect("a[b]*", Tier.IMPORTANT)
    assert Catalogue.at(catalogue.root).protections.rules() == [
        Rule("a[[]b][*]", Tier.IMPORTANT, f"safe-compose protect, {AT}", floor=True),
        Rule("shop_data", Tier.CRITICAL, f"safe-compose protect, {AT}", floor=True),
    ]
    catalogue.protections.unprotect("shop_data")
    catalogue.protections.unprotect("a[b]*")
    assert catalogue.protections.rules() == []


def test_a_protection_can_be_lifted_for_a_while(catalogue: Catalogue, clock: Clock) -> None:
    catalogue.protections.protect("shop_data", Tier.CRITICAL)
    catalogue.protections.unprotect("shop_data", until=clock.now + timedelta(minutes=10))
    assert catalogue.protections.rules() == []
    clock.now += timedelta(minutes=10)
    assert [r.pattern for r in catalogue.protections.rules()] == ["shop_data"]


def test_wrong_uses_of_protections_change_nothing(catalogue: Catalogue) -> None:
    catalogue.protections.protect("shop_data", Tier.CRITICAL)
    with pytest.raises(UsageError, match="protected are: shop_data"):
        catalogue.protections.unprotect("other")
    with pytest.raises(UsageError):
        catalogue.protections.protect("shop_data", Tier.DISPOSABLE)
    assert [r.tier for r in catalogue.protections.rules()] == [Tier.CRITICAL]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b'{"protections": {"a": {}}}',
        b'{"protections": {"a": {"tier": "x"}}}',
    ],
)
def test_damaged_protections_are_never_taken_for_none(catalogue: Catalogue, data: bytes) -> None:
    catalogue.folder.ensure()
    (catalogue.root / "protections.json").write_bytes(data)
    with pytest.raises(OperationFailed, match="is damaged"):
        catalogue.protections.rules()
    with pytest.raises(OperationFailed, match="is damaged"):
        catalogue.protections.protect("a", Tier.CRITICAL)
    assert (catalogue.root / "protections.json").read_bytes() == data


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "project",
    [
        ".",
        "..",
        "-x",
        "Ünïcödé",
        "SHOP",
        "locks",
        "journal",
        "store.json",
        "a b",
        "a\nb",
        "x" * 300,
        "",
        "trash",
        "\udcff",
    ],
)
def test_odd_project_names_get_a_folder_of_their_own(catalogue: Catalogue, project: str) -> None:
    kept, other = keep(catalogue, project), keep(catalogue, "shop")
    found = Catalogue.at(catalogue.root).reader.backups(project)
    folder = Path(kept.path).parent
    assert folder.parent == catalogue.root and not folder.name.startswith((".", "-"))
    assert folder.name not in ("locks", "journal", "trash", "store.json", "shop")
    assert [(b.id, b.broken) for b in found] == [(kept.id, None)]
    assert [b.id for b in catalogue.reader.backups()] == [other.id, kept.id]


def test_slugs_of_different_names_differ() -> None:
    every = [
        "shop",
        "Shop",
        "SHOP",
        "shop.",
        "shop ",
        "sh/op",
        "sh_op",
        ".shop",
        "-shop",
        "shop-1a2b3c4d",
        "\udcff",
        "\udcfe",
    ]
    assert len({slug(name) for name in every}) == len(every)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", slug(name)) for name in every)


# -- several processes -----------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from safe_compose.store.catalogue.catalogue import Catalogue
catalogue = Catalogue.at(Path(sys.argv[2]))
def wait():
    print("ready", flush=True)
    sys.stdin.readline()
if sys.argv[1] == "lock":
    with catalogue.folder.lock("E", "shop", command=("compose", "down", "-v", "--confirm", "secret")):
        wait()
elif sys.argv[1] == "draft":
    with catalogue.writer.draft("shop", "manual", endpoint="e", engine_id="E") as draft:
        (draft.path / "half").write_text("x")
        print(draft.id, flush=True)
        wait()
"""


@contextmanager
def child(what: str, root: Path) -> Iterator["subprocess.Popen[str]"]:
    words = [sys.executable, "-c", CHILD, what, str(root)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_process_is_told_who_holds_the_project(catalogue: Catalogue) -> None:
    with child("lock", catalogue.root) as process:
        assert line(process) == "ready"
        with pytest.raises(StateChanged) as caught, catalogue.folder.lock("E", "shop"):
            pass
        said = caught.value.message
        assert (
            f"process {process.pid}" in said
            and "`compose down -v --confirm ***`" in said
            and "project shop" in said
        )
        with catalogue.folder.lock("E", "blog"), catalogue.folder.lock("E2", "shop"):
            pass  # neither is the same
        process.communicate("\n")
    with catalogue.folder.lock("E", "shop"):
        pass


def test_a_lock_dies_with_its_holder_and_can_be_waited_for(catalogue: Catalogue) -> None:
    with child("lock", catalogue.root) as process:
        assert line(process) == "ready"
        process.kill()
        with catalogue.folder.lock("E", "shop", wait=30):
            pass


def test_the_same_process_does_not_lock_twice(catalogue: Catalogue) -> None:
    with catalogue.folder.lock("E", "shop"):
        with pytest.raises(StateChanged), catalogue.folder.lock("E", "shop"):
            pass
        with pytest.raises(StateChanged), catalogue.folder.lock("E", "shop", wait=0.2):
            pass


def test_a_killed_draft_is_swept_and_a_living_one_is_not(catalogue: Catalogue) -> None:
    with child("draft", catalogue.root) as dead, child("draft", catalogue.root) as living:
        dead_id, living_id = line(dead), line(living)
        assert line(dead) == line(living) == "ready"
        dead.kill()
        dead.wait()
        kept = keep(catalogue)
        assert catalogue.reader.backups() == [kept]
        assert catalogue.writer.sweep() == (dead_id,)
        assert names(catalogue) == sorted([kept.id, f".partial-{living_id}"])
        assert catalogue.writer.sweep() == ()
        assert not (catalogue.root / "locks" / f"draft-{dead_id}.lock").exists()


def test_drafts_in_doubt_are_left_alone(catalogue: Catalogue) -> None:
    catalogue.folder.ensure()
    (catalogue.root / "shop" / ".partial-nobody-knows").mkdir(parents=True)
    (catalogue.root / "shop" / ".partial-20261122T072700Z-000002").mkdir()
    facts = {"pid": 1, "boot": "another", "started": "1", "namespace": "", "host": "another-host"}
    (catalogue.root / "locks" / "draft-20261122T072700Z-000002.lock").write_text(
        json.dumps({"process": facts})
    )
    assert catalogue.writer.sweep() == ()
    assert names(catalogue) == [".partial-20261122T072700Z-000002", ".partial-nobody-knows"]


def test_a_draft_from_before_a_reboot_is_swept(catalogue: Catalogue) -> None:
    catalogue.folder.ensure()
    (catalogue.root / "shop" / ".partial-20261122T072700Z-000001").mkdir(parents=True)
    facts = {
        "pid": 1,
        "boot": "another",
        "started": "1",
        "namespace": "",
        "host": os.uname().nodename,
    }
    (catalogue.root / "locks" / "draft-20261122T072700Z-000001.lock").write_text(
        json.dumps({"process": facts})
    )
    assert catalogue.writer.sweep() == ("20261122T072700Z-000001",)


def test_what_a_killed_run_was_looking_at_is_swept_and_a_living_ones_is_not(
    catalogue: Catalogue,
) -> None:
    catalogue.folder.ensure()
    gone = {
        "pid": 1,
        "boot": "another",
        "started": "1",
        "namespace": "",
        "host": os.uname().nodename,
    }
    for name, facts in (("gone", gone), ("here", Process.current().facts())):
        folder = catalogue.root / "shop" / f"{WORKPLACE}{name}"
        folder.mkdir(parents=True)
        (folder / OWNER).write_text(json.dumps({"process": facts}))
        (folder / "copy").write_bytes(b"rows")
    assert catalogue.writer.sweep() == ()
    assert names(catalogue) == [f"{WORKPLACE}here"]


@pytest.mark.thorough
def test_many_processes_never_share_a_number(catalogue: Catalogue) -> None:
    catalogue.folder.ensure()
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from testing.backups"
        " import keep;from safe_compose.store.catalogue.catalogue import Catalogue\nfor _ in"
        " range(5): keep(Catalogue.at(Path(sys.argv[1])))"
    )
    words = [sys.executable, "-c", code, str(catalogue.root), str(ROOT)]
    processes = [subprocess.Popen(words) for _ in range(3)]
    assert [p.wait(60) for p in processes] == [0, 0, 0]
    assert sorted(b.seq for b in catalogue.reader.backups()) == list(range(1, 16))


def test_a_file_system_without_locks_is_told(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    catalogue.folder.ensure()
    monkeypatch.setattr("fcntl.flock", no_locks)
    with (
        pytest.raises(OperationFailed, match="that file system has no locks"),
        catalogue.folder.lock("E", "shop"),
    ):
        pass


# -- RESTORE.md ------------------------------------------------------------------------------------


def restore_text(catalogue: Catalogue, **changes: object) -> str:
    statistics = ServerStatistics("postgres", "15.18", "app", "712", "/var/lib/postgresql/data")
    users = (
        {
            "container": "shop-db-1",
            "service": "db",
            "image": "postgres:15",
            "destination": "/var/lib/postgresql/data",
        },
    )
    with catalogue.writer.draft("shop", "pre-delete", endpoint="unix:///x", engine_id="E") as draft:
        files = (
            artifact(draft),
            artifact(draft, "data.list.gz", kind="list"),
            artifact(draft, "globals.sql.gz", kind="globals"),
            replace(artifact(draft, "db.sql.gz", kind="database"), database="it's"),
        )
        full = replace(
            record("shop_data", *files),
            statistics=statistics,
            users=users,
            method="dump+cold",
            **changes,
        )
        return Path(draft.commit([full, record("shop_photos")]).path, "RESTORE.md").read_text()


def blocks(text: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_recipe_names_every_artifact_and_volume(catalogue: Catalogue) -> None:
    text = restore_text(catalogue)
    for name in (
        "shop_data",
        "shop_photos",
        "data.tar.gz",
        "data.list.gz",
        "globals.sql.gz",
        "db.sql.gz",
        "shop-db-1",
    ):
        assert name in text


def test_the_recipe_is_shell_and_deletes_nothing(catalogue: Catalogue) -> None:
    text = restore_text(catalogue, labels={"a b": "it's $HOME `x`"}, options={"o": "addr=1,rw"})
    for block in blocks(text):
        assert subprocess.run(["sh", "-n"], input=block, text=True).returncode == 0
        assert not re.search(r"volume (rm|remove|prune)|down|prune|rm -\w*v|--volumes", block)
    assert "--opt o=addr=1,rw --label 'a b=it'\"'\"'s $HOME `x`'" in text


def test_an_older_dump_is_said_to_be_older(catalogue: Catalogue) -> None:
    assert "Prefer the archive" in restore_text(catalogue, dump_older_than_archive=True)
    assert "Prefer the archive" not in restore_text(catalogue)


def test_the_recipe_words_reach_docker_as_they_were_recorded(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    """The archive's block is run against a docker that writes its words down: names and labels must
    survive the shell.
    """
    labels = {"com.docker.compose.project": "shop", "odd": 'it\'s $HOME `x` \\ "q"'}
    text = restore_text(catalogue, labels=labels)
    block = next(b for b in blocks(text) if "data.tar.gz" in b)
    log, fake = tmp_path / "log", tmp_path / "bin" / "docker"
    fake.parent.mkdir()
    fake.write_text(
        f"#!{plain_python()}\nimport json, sys\nopen({str(log)!r},"
        " 'a').write(json.dumps(sys.argv[1:]) + '\\n')\nsys.exit(1 if 'inspect' in sys.argv else"
        " 0)\n"
    )
    fake.chmod(0o755)
    folder = catalogue.reader.backups()[0].path
    subprocess.run(
        ["sh", "-c", block],
        cwd=folder,
        env={**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"},
    )
    said = [json.loads(words) for words in log.read_text().splitlines()]
    assert said[0] == ["volume", "inspect", "shop_data"]
    assert said[1] == [
        "volume", "create", "--driver", "local", "--label", "com.docker.compose.project=shop",
        "--label", f"odd={labels['odd']}", "shop_data",
    ]  # fmt: skip
    assert said[2][-1] == "-xpf-" or said[2][-2:] == ["-xpf", "-"]
    assert "shop_data:/volume" in said[2] and "--xattrs" in said[2]


@pytest.mark.parametrize("location", ["folder", "volume"])
def test_the_recipe_adds_the_other_files_only_to_what_its_database_has_just_made(
    catalogue: Catalogue, tmp_path: Path, location: str
) -> None:
    """In the same shell, also under another name; never in a live folder or volume."""
    live = tmp_path / "live"
    live.mkdir()
    name = str(live) if location == "folder" else "shop_data"
    statistics = ServerStatistics("redis", "7.2", "")
    with catalogue.writer.draft("shop", "manual", endpoint="e", engine_id="E") as draft:
        rdb = artifact(draft, "dump.rdb.gz", kind="database", volume=name)
        others = artifact(draft, "others.tar.gz", kind="others", volume=name)
        made = replace(
            record(name, rdb, others), users=USERS, statistics=statistics, location=location
        )
        kept = draft.commit([made])
    check, database, rest = blocks(Path(kept.path, "RESTORE.md").read_text())[1:]
    log, fake = tmp_path / "log", tmp_path / "bin" / "docker"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\necho "$*" >>{log}\n'
        'case "$*" in "volume inspect shop_data") exit 0;; "volume inspect"*) exit 1;; esac\n'
    )
    fake.chmod(0o755)

    def paste(text: str) -> list[str]:
        log.write_text("")
        subprocess.run(
            ["sh"],
            input=text,
            text=True,
            cwd=kept.path,
            env={**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"},
            capture_output=True,
        )
        return [line for line in log.read_text().splitlines() if not line.startswith("volume ")]

    assert "sha256sum" in check
    assert paste(rest) == paste(database + rest) == []
    assert paste(f"VOLUME={name}\n" + rest) == []
    other = str(tmp_path / "above" / "other") if location == "folder" else "other"
    renamed = database.replace(f"VOLUME={name}", f"VOLUME={other}")
    done = paste(renamed + rest)
    assert all(f"-v {other}:/volume" in line for line in done), done
    assert "--skip-old-files" in done[-1]
    assert list(live.iterdir()) == []
    assert Path(other).is_dir() == (location == "folder")


def docker(*words: str, check: bool = True, **more: object) -> bytes:
    return subprocess.run(["docker", *words], check=check, capture_output=True, **more).stdout  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def volume_name(lab: None) -> Iterator[str]:
    name = f"recipe-{uuid.uuid4().hex[:12]}"
    yield name
    docker("volume", "rm", "-f", name, check=False)


USERS = (
    {
        "container": "db",
        "service": "db",
        "image": "postgres:15",
        "destination": "/var/lib/postgresql/data",
    },
)


@pytest.mark.engine
def test_a_volume_comes_back_by_hand_from_its_archive(
    catalogue: Catalogue, volume_name: str
) -> None:
    tar = docker(
        "run", "--rm", "--network", "none", "--entrypoint", "bash", "postgres:15", "-c",
        "mkdir -m 750 /volume && cd /volume && umask 027 && echo one >'odd name' && ln 'odd name' hard && ln -s nowhere soft "
        "&& mkdir -m 2750 deep && chown 123:456 . deep && touch -d @1000000000 deep && tar -C / -czf - volume",
    )  # fmt: skip
    with catalogue.writer.draft("shop", "manual", endpoint="e", engine_id="E") as draft:
        made = artifact(draft, data=tar, volume=volume_name)
        kept = draft.commit(
            [replace(record(volume_name, made), users=USERS, labels={"odd": "it's $HOME"})]
        )
    check, put_back = blocks(Path(kept.path, "RESTORE.md").read_text())[1:3]
    done = subprocess.run(
        ["sh", "-ec", check + put_back], cwd=kept.path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    listing = "cd /volume && stat -c '%n %A %u:%g %h' . * && stat -c %Y deep && cat hard"
    found = docker(
        "run",
        "--rm",
        "-v",
        f"{volume_name}:/volume",
        "--entrypoint",
        "bash",
        "postgres:15",
        "-c",
        listing,
    )
    assert found.decode().splitlines() == [
        ". drwxr-x--- 123:456 3", "deep drwxr-s--- 123:456 2", "hard -rw-r----- 0:0 2",
        "odd name -rw-r----- 0:0 2", "soft lrwxrwxrwx 0:0 1", "1000000000", "one",
    ]  # fmt: skip
    assert (
        docker("volume", "inspect", "-f", "{{.Labels.odd}}", volume_name).decode().strip()
        == "it's $HOME"
    )
    again = subprocess.run(["sh", "-c", put_back], cwd=kept.path, capture_output=True, text=True)
    assert again.returncode != 0  # it is there now, and nothing is written over it


@pytest.mark.engine
def test_a_folder_comes_back_by_hand_where_nothing_is(
    catalogue: Catalogue, lab: None, tmp_path: Path
) -> None:
    """It is made with its parent; what is there, or a link in its place, is left alone."""
    uploads = tmp_path / "a b" / "uploads"
    tar = docker(
        "run", "--rm", "--network", "none", "--entrypoint", "bash", "postgres:15", "-c",
        "mkdir -m 2750 /volume && cd /volume && echo one >'odd name' && chown 123:456 . "
        "&& tar -C / -czf - volume",
    )  # fmt: skip
    with catalogue.writer.draft("shop", "manual", endpoint="e", engine_id="E") as draft:
        made = artifact(draft, data=tar, volume=str(uploads))
        kept = draft.commit(
            [replace(record(str(uploads), made), users=USERS, location="folder", labels={})]
        )
    check, put_back = blocks(Path(kept.path, "RESTORE.md").read_text())[1:3]

    def paste(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-ec", text], cwd=kept.path, capture_output=True, text=True, check=False
        )

    done = paste(check + put_back)
    assert done.returncode == 0, done.stderr
    facts = uploads.stat()
    assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (123, 456, 0o2750)
    assert (uploads / "odd name").read_text() == "one\n"
    (uploads / "odd name").write_text("two")
    assert paste(put_back).returncode != 0 and (uploads / "odd name").read_text() == "two"
    uploads.rename(tmp_path / "kept")
    uploads.symlink_to(tmp_path / "nowhere")
    assert paste(put_back).returncode != 0 and not (tmp_path / "nowhere").exists()


@pytest.mark.thorough
@pytest.mark.engine
@pytest.mark.parametrize("location", ["volume", "folder"])
def test_a_database_comes_back_by_hand_from_its_dump(
    catalogue: Catalogue, volume_name: str, tmp_path: Path, location: str
) -> None:
    """The dumps are what pg_dumpall and pg_dump write, as far as the recipe depends on it."""
    at = volume_name if location == "volume" else str(tmp_path / "gone" / "postgres")
    texts = {
        "globals.sql.gz": (
            "CREATE ROLE app;\nALTER ROLE app WITH SUPERUSER LOGIN;\nCREATE ROLE reader;\n"
        ),
        "db.sql.gz": (
            "CREATE DATABASE \"it's\";\n\\connect -reuse-previous=on \"dbname='it\\'s'\"\nCREATE"
            " TABLE t (a int);\nALTER TABLE t OWNER TO reader;\nCOPY t FROM stdin;\n1\n2\n\\.\n"
        ),
    }
    statistics = ServerStatistics("postgres", "15", "app", "", "/var/lib/postgresql/data")
    with catalogue.writer.draft("shop", "manual", endpoint="e", engine_id="E") as draft:
        files = [
            artifact(draft, name, gzip.compress(text.encode()), volume=at)
            for name, text in texts.items()
        ]
        globals_, database = (
            replace(files[0], kind="globals"),
            replace(files[1], kind="database", database="it's"),
        )
        kept = draft.commit(
            [
                replace(
                    record(at, globals_, database),
                    users=USERS,
                    statistics=statistics,
                    location=location,
                )
            ]
        )
    server = f"restore-{kept.id}"
    start, roles, load, stop = blocks(Path(kept.path, "RESTORE.md").read_text())[2:]
    try:
        for block in (start, roles, load):
            done = subprocess.run(
                ["sh", "-c", block],
                cwd=kept.path,
                input="a password\n",
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
        rows = docker(
            "exec", server, "psql", "-XAtU", "app", "-d", "it's", "-c", "select count(*) from t"
        )
        assert rows.strip() == b"2"
        assert subprocess.run(["sh", "-c", stop], capture_output=True).returncode == 0
        if location == "volume":
            docker("volume", "inspect", volume_name)
        else:
            assert Path(at, "PG_VERSION").read_text() == "15\n"
    finally:
        docker("rm", "-f", server, check=False)
