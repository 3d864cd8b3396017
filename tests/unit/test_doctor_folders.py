"""What doctor says of databases in folders of the host."""

import os
import subprocess
from pathlib import Path

import pytest

from safe_compose.core.file_systems import explain_unsafe
from safe_compose.core.observed import Container, FolderMount, Mount, Observed, Project
from safe_compose.operations.doctor.folders import examine_folders
from safe_compose.system import git
from safe_compose.system.mount_table import find_file_system, find_in_table

PG = "/var/lib/postgresql/data"
TABLE = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/my\040nas rw - nfs4 nas:/x rw,vers=4.2
31 22 0:41 / /mnt rw - tmpfs tmpfs rw
broken
32 22 8:2 / /srv rw - xfs /dev/sdb rw,nobarrier
""".strip()


def container(
    service: str,
    source: str,
    target: str,
    image: str = "postgres:16",
    *,
    n: int = 1,
    ro: bool = False,
) -> Container:
    labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": service}
    return Container(
        id=f"{service}{n}",
        name=f"shop-{service}-{n}",
        image=image,
        image_id="sha256:1",
        state="running",
        labels=labels,
        mounts=(Mount("bind", None, source, target, ro),),
    )


def observe(*containers: Container, folders: tuple[FolderMount, ...] = ()) -> Observed:
    services = tuple({c.service or "" for c in containers} | {f.user for f in folders})
    project = Project("shop", "folder", "config", services=services, folders=folders)
    return Observed("unix://", "E", containers=containers, project=project)


def problems(observed: Observed, *, shared: bool = False) -> list[str]:
    found = examine_folders(observed, {}, shared=shared)
    assert len(found.attention) == sum(len(f["problems"]) for f in found.facts)
    return [problem for folder in found.facts for problem in folder["problems"]]


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("/mnt/my nas/pg", "nfs4"),
        ("/mnt/my nas2", "tmpfs"),
        ("/home/me", "ext4"),
        ("/srv/pg", "xfs"),
        ("/srvx", "ext4"),
    ],
)
def test_the_file_system_of_a_path_is_the_one_mounted_nearest(path: str, want: str) -> None:
    found = find_in_table(TABLE, path)
    assert found is not None and found.type == want


def test_this_machine_says_on_what_a_folder_lies(tmp_path: Path) -> None:
    found = find_file_system("/proc/self")
    assert found is not None and found.type == "proc"
    assert find_file_system(str(tmp_path)) is not None


@pytest.mark.parametrize(
    ("kind", "options", "word"),
    [
        ("nfs4", "rw", "network share"),
        ("cifs", "rw", "network share"),
        ("tmpfs", "rw", "in memory"),
        ("9p", "rw", "another system"),
        ("fuse.sshfs", "rw", "a program"),
        ("exfat", "rw", "no journal"),
        ("ext4", "rw,nobarrier", "write barriers"),
        ("ext4", "rw,relatime", None),
        ("btrfs", "rw", None),
        ("fuse.fuse-overlayfs", "rw", None),
        ("overlay", "rw", None),
    ],
)
def test_file_systems_that_may_lose_synced_writes_are_known(
    kind: str, options: str, word: str | None
) -> None:
    why = explain_unsafe(kind, options.split(","))
    assert (why is None) if word is None else (why is not None and word in why)


def test_two_services_on_the_folder_of_a_database_are_named() -> None:
    db, web = container("db", "/srv/pg", PG), container("web", "/srv/pg/base", "/x", "me/web")
    (problem,) = problems(observe(db, web))
    assert problem.startswith("is shared: db and web may all write to it")
    later = FolderMount("/srv/pg", "old", PG)
    assert "db and old" in problems(observe(db, folders=(later,)))[0]
    assert "two containers" in problems(observe(db, container("db", "/srv/pg", PG, n=2)))[0]


def test_what_only_reads_it_or_mounts_the_whole_project_does_not_share_it() -> None:
    db = container("db", "/srv/shop/pg", PG)
    backup = container("backup", "/srv/shop/pg", "/backup", "me/backup", ro=True)
    web = container("web", "/srv/shop", "/app", "me/web")
    declared = FolderMount("/srv/shop/pg", "db", PG)
    assert problems(observe(db, backup, web, folders=(declared,))) == []


def test_a_folder_without_a_database_is_left_alone(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    one = container("web", f"{tmp_path}/up", "/app/uploads", "me/web")
    two = container("api", f"{tmp_path}/up", "/app/uploads", "me/api")
    assert examine_folders(observe(one, two), {}, shared=True).facts == []
    known = examine_folders(observe(one, two), {f"{tmp_path}/up": "files"}, shared=True)
    assert known.attention == ()  # it is not there
    (tmp_path / "up").mkdir()
    known = examine_folders(observe(one, two), {f"{tmp_path}/up": "files"}, shared=True)
    assert [line[:11] for line in known.attention] == ["the data in"]


@pytest.mark.parametrize(
    ("ignored", "asks"),
    [("", True), ("/pg/\n", False), ("/pg/*\n", False), ("p*\n", False), ("/other/\n", True)],
)
def test_a_database_that_git_does_not_ignore_is_found(
    ignored: str, asks: bool, tmp_path: Path
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "pg").mkdir()
    (tmp_path / ".gitignore").write_text(ignored)
    found = problems(observe(container("db", f"{tmp_path}/pg", PG)), shared=True)
    assert [f"Add /pg/ to {tmp_path}/.gitignore" in text for text in found] == [True] * asks
    assert problems(observe(container("db", f"{tmp_path}/pg", PG)), shared=False) == []


def test_a_hostile_repository_starts_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "started"
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for key in ("core.fsmonitor", "core.pager", "alias.check-ignore", "core.hooksPath"):
        subprocess.run(["git", "-C", tmp_path, "config", key, f"!touch {mark}"], check=True)
    (tmp_path / "a\nb").mkdir()
    assert git.find_work_tree(str(tmp_path / "a\nb")) == os.path.realpath(tmp_path)
    assert git.is_ignored(str(tmp_path / "a\nb"), str(tmp_path)) is False
    assert not mark.exists()
    assert git.is_ignored(str(tmp_path), "/nowhere") is None
