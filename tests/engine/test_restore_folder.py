"""A folder of the host comes back as it was, beside what is there now, and never over it unasked."""

import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed
from safe_compose.operations.recover import run as recover_run
from safe_compose.store.steps import Placing
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.folder_swap import FolderSwap
from testing.disks import mounting, small_disk
from testing.faults import failing_syscalls
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import (
    ComposeProject,
    docker,
    require_success,
    unique,
    volume_exists,
    wait_until,
)
from testing.recipe import replace_tar
from testing.runs import every_step

pytestmark = pytest.mark.engine
BOX = 'image: "busybox:latest", init: true, command: [sleep, "100000"], stop_grace_period: 1s'


@pytest.fixture
def shop(compose_project: ProjectFactory, safe_compose: SafeCompose) -> ComposeProject:
    """A running project with a folder of photos, which are in a backup."""
    made = compose_project(
        f"""
services:
  web: {{{BOX}, volumes: ["./uploads:/app/uploads", "things:/things"]}}
volumes: {{things: {{}}}}
"""
    )
    uploads = made.folder / "uploads"
    (uploads / "odd, 'name").mkdir(parents=True)
    (uploads / "odd, 'name" / "photo\n1").write_bytes(b"\0photo")
    (uploads / "empty").mkdir(mode=0o711)
    (uploads / "link").symlink_to("/etc/passwd")
    os.chown(uploads / "empty", 1234, 4321)
    uploads.chmod(0o2750)
    os.utime(uploads / "empty", (1_000_000_000, 1_000_000_000))
    made.up()
    require_success(safe_compose("backup", cwd=made.folder))
    return made


def describe(folder: Path) -> dict[str, Any]:
    """All that is below a folder, with owners, modes, times and content."""
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        facts = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        times = facts.st_mtime_ns if path != folder else 0
        if path.suffix == ".db":  # a copy of a SQLite database is a new file
            times, content = 0, None
        found[str(path.relative_to(folder))] = (
            stat.filemode(facts.st_mode), facts.st_uid, facts.st_gid, times, content
        )  # fmt: skip
    return found


def old_folders(project: ComposeProject) -> list[Path]:
    return sorted(project.folder.glob("uploads.before-*"))


def leftovers(project: ComposeProject) -> list[Path]:
    return sorted(project.folder.glob(".uploads.safe-compose-*"))


def restore(safe_compose: SafeCompose, project: ComposeProject, *argv: str, **options: Any) -> Any:
    return safe_compose(
        "restore", "latest", *argv, "--non-interactive", cwd=project.folder, **options
    )


def test_a_folder_that_vanished_comes_back_byte_for_byte_and_nothing_is_asked(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    uploads = shop.folder / "uploads"
    before = describe(uploads)
    docker("compose", "stop", cwd=shop.folder)
    uploads.rename(shop.folder / "lost")
    answer = require_success(restore(safe_compose, shop, "--volume", "./uploads"))
    assert describe(uploads) == before
    assert f"folder {uploads} is back" in answer.stderr, answer.stderr
    assert old_folders(shop) == leftovers(shop) == []


def test_what_is_there_needs_the_phrase_and_stays_under_a_told_name(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    uploads = shop.folder / "uploads"
    before = describe(uploads)
    (uploads / "later").write_text("written since the backup")
    now = describe(uploads)
    refused = restore(safe_compose, shop, "--volume", "./uploads")
    assert refused.returncode == 77 and "nothing was restored" in refused.stderr, refused.stderr
    assert describe(uploads) == now and old_folders(shop) == leftovers(shop) == []
    started = docker("inspect", "-f", "{{.State.StartedAt}}", f"{shop.name}-web-1").stdout
    phrase = json.loads(
        require_success(
            restore(safe_compose, shop, "--volume", "./uploads", "--dry-run", "--json")
        ).stdout
    )["restored"]["phrase"]
    answer = require_success(
        restore(safe_compose, shop, "--volume", "./uploads", "--confirm", phrase)
    )
    [old] = old_folders(shop)
    assert describe(uploads) == before and describe(old) == now and leftovers(shop) == []
    assert f"{old}: safe-compose restore --finish removes it" in answer.stderr, answer.stderr
    # the container was stopped meanwhile, and sees the new content
    assert docker("inspect", "-f", "{{.State.StartedAt}}", f"{shop.name}-web-1").stdout != started
    assert "later" not in shop.exec("web", "ls", "/app/uploads")
    assert "1234" in shop.exec("web", "stat", "-c", "%u", "/app/uploads/empty")

    asked = safe_compose("restore", "--finish", "--non-interactive", cwd=shop.folder)
    assert asked.returncode == 77 and "nothing was removed" in asked.stderr and old.is_dir()
    assert re.search(r" until \d{4}-\d\d-\d\d \d\d:\d\d UTC\n", asked.stderr), asked.stderr
    odd = safe_compose("restore", "--finish", "--settings", "--confirm", old.name, cwd=shop.folder)
    assert odd.returncode == 64 and old.is_dir(), odd.stderr
    uploads.rename(shop.folder / "gone")  # then the old one may be the only copy
    only = safe_compose("restore", "--finish", "--confirm", old.name, cwd=shop.folder)
    assert only.returncode == 75 and "may be the only copy" in only.stderr and old.is_dir()
    uploads.mkdir()  # as docker does
    only = safe_compose("restore", "--finish", "--confirm", old.name, cwd=shop.folder)
    assert only.returncode == 75 and "is empty" in only.stderr and old.is_dir()
    [step] = re.findall(r"put it back: (.*?); or", " ".join(only.stderr.split()))
    subprocess.run(["sh", "-c", step], check=True)
    assert describe(uploads) == now
    uploads.rename(old)
    (shop.folder / "gone").rename(uploads)
    done = require_success(
        safe_compose("restore", "--finish", "--confirm", old.name, "--json", cwd=shop.folder)
    )
    assert json.loads(done.stdout)["finished"]["removed"][0]["path"] == str(old)
    assert old_folders(shop) == [] and describe(uploads) == before
    again = require_success(safe_compose("restore", "--finish", cwd=shop.folder))
    assert "no restore has left an old folder" in again.stderr


def test_a_folder_goes_elsewhere_or_into_a_volume_for_a_look(
    shop: ComposeProject, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    uploads, elsewhere, volume = shop.folder / "uploads", tmp_path / "look here", unique("look")
    before = describe(uploads)
    asked = restore(safe_compose, shop, "--volume", "./uploads", "--into", str(elsewhere))
    assert asked.returncode == 77 and not elsewhere.exists(), asked.stderr
    require_success(
        restore(
            safe_compose, shop, "--volume", "./uploads", "--into", str(elsewhere), "--confirm",
            str(elsewhere),
        )
    )  # fmt: skip
    assert describe(elsewhere) == before == describe(uploads)
    try:
        require_success(restore(safe_compose, shop, "--volume", "./uploads", "--into", volume))
        names = docker(
            "run", "--rm", "--network", "none", "-v", f"{volume}:/v:ro", "busybox:latest", "ls",
            "/v",
        ).stdout.split()  # fmt: skip
        assert names == ["empty", "link", "odd,", "'name"]
        assert volume_exists(volume)
    finally:
        docker("volume", "rm", "-f", volume, check=False)


def test_a_link_or_a_file_in_its_place_and_a_missing_folder_above_are_told(
    shop: ComposeProject, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    uploads = shop.folder / "uploads"
    docker("compose", "stop", cwd=shop.folder)
    backup = json.loads(require_success(safe_compose("list", "--json", cwd=shop.folder)).stdout)
    id = backup["backups"][0]["id"]
    lost = tmp_path / "lost"
    uploads.rename(lost)
    uploads.symlink_to(tmp_path)
    before = sorted(tmp_path.iterdir())
    through = safe_compose(
        "restore", id, "--volume", str(uploads.parent.resolve() / "uploads"), "--non-interactive",
        cwd=tmp_path,
    )  # fmt: skip
    assert through.returncode != 0 and uploads.is_symlink(), through.stderr
    assert sorted(tmp_path.iterdir()) == before
    uploads.unlink()
    uploads.write_text("a file")
    refused = restore(safe_compose, shop, "--volume", str(uploads))
    assert refused.returncode == 77 and "is a file now" in refused.stderr, refused.stderr
    assert uploads.read_text() == "a file"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("call", "path", "skip"),
    [
        ("fsync", ".jsonl", 2),
        ("fsync", ".jsonl", 3),
        ("fsync", ".jsonl", 4),
        ("fsync", ".jsonl", 5),
    ],
)
def test_wherever_it_is_killed_recover_leaves_one_whole_folder_or_the_other(
    shop: ComposeProject, safe_compose: SafeCompose, call: str, path: str, skip: int
) -> None:
    uploads = shop.folder / "uploads"
    before = describe(uploads)
    (uploads / "later").write_text("written since the backup")
    now = describe(uploads)
    argv = ("--volume", "./uploads", "--confirm", shop.name)
    killed = restore(
        safe_compose, shop, *argv, env=failing_syscalls(call, path, "KILL GROUP", skip=skip)
    )
    if killed.returncode == 0:
        pytest.fail(f"it was not killed: {killed.stderr}")
    require_success(safe_compose("recover", cwd=shop.folder))
    assert leftovers(shop) == []
    if old_folders(shop):
        assert describe(old_folders(shop)[0]) == now and describe(uploads) == before
    else:
        assert describe(uploads) == now
    assert f"{shop.name}-web-1" in shop.running()
    # and it can be done again
    require_success(restore(safe_compose, shop, *argv))
    assert describe(uploads) == before


def test_a_fault_after_the_fill_leaves_the_folder_as_it_was(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    uploads = shop.folder / "uploads"
    (uploads / "later").write_text("written since the backup")
    now = describe(uploads)
    failed = restore(
        safe_compose, shop, "--confirm", shop.name,
        env=failing_syscalls("fsync", ".jsonl", "EIO", skip=4),
    )  # fmt: skip
    assert failed.returncode == 73, failed.stderr
    assert describe(uploads) == now and leftovers(shop) == [] and old_folders(shop) == []
    assert f"{shop.name}-web-1" in shop.running()


def test_a_folder_that_is_a_mount_is_copied_into_after_a_safety_backup(
    shop: ComposeProject, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    uploads = shop.folder / "uploads"
    docker("compose", "down", cwd=shop.folder)
    with mounting(tmp_path / "disk", uploads):
        (uploads / "other").write_text("what is there now")
        shop.up()
        plan = require_success(restore(safe_compose, shop, "--volume", "./uploads", "--dry-run"))
        assert "something is mounted there" in plan.stdout, plan.stderr
        answer = require_success(
            restore(safe_compose, shop, "--volume", "./uploads", "--confirm", shop.name)
        )
        assert (uploads / "odd, 'name" / "photo\n1").read_bytes() == b"\0photo", answer.stderr
        assert not (uploads / "other").exists() and uploads.is_mount()
        backups = json.loads(
            require_success(safe_compose("list", "--json", cwd=shop.folder)).stdout
        )["backups"]
        assert backups[0]["reason"] == "pre-restore", backups
        back = require_success(
            safe_compose(
                "restore", backups[0]["id"], "--non-interactive", "--confirm", shop.name,
                cwd=shop.folder,
            )
        )  # fmt: skip
        assert (uploads / "other").read_text() == "what is there now", back.stderr
        shop.docker("compose", "down")


def test_a_container_that_mounts_it_by_a_link_or_mounts_a_part_of_it_is_stopped_too(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    made = compose_project(
        f"""
services:
  web: {{{BOX}, volumes: ["{tmp_path}/link:/app/uploads"]}}
  part: {{{BOX}, volumes: ["./uploads/empty:/part"]}}
"""
    )
    uploads = made.folder / "uploads"
    (uploads / "empty").mkdir(parents=True)
    (uploads / "photo").write_text("a photo")
    (tmp_path / "link").symlink_to(uploads)
    made.up()
    require_success(safe_compose("backup", "--volume", "./uploads", cwd=made.folder))
    (uploads / "photo").write_text("another")
    names = [f"{made.name}-{service}-1" for service in ("part", "web")]
    plan = require_success(
        restore(safe_compose, made, "--volume", "./uploads", "--dry-run", "--json")
    )
    assert sorted(json.loads(plan.stdout)["restored"]["stops"]) == names
    started = docker("inspect", "-f", "{{.State.StartedAt}}", *names).stdout
    require_success(restore(safe_compose, made, "--volume", "./uploads", "--confirm", made.name))
    assert not set(docker("inspect", "-f", "{{.State.StartedAt}}", *names).stdout.split()) & set(
        started.split()
    )
    assert made.exec("web", "cat", "/app/uploads/photo") == "a photo"
    made.exec("part", "touch", "/part/new")
    assert (uploads / "empty" / "new").exists()


def test_a_folder_with_a_mount_in_it_is_not_renamed(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    uploads = shop.folder / "uploads"
    with small_disk(uploads / "a disk", "size=3m") as disk:
        (disk / "photo").write_text("on the disk")
        refused = restore(safe_compose, shop, "--volume", "./uploads", "--confirm", shop.name)
        assert refused.returncode == 77, refused.stderr
        assert f"umount '{disk}'" in refused.stderr, refused.stderr
        assert (disk / "photo").read_text() == "on the disk"
        assert old_folders(shop) == leftovers(shop) == []
        assert f"{shop.name}-web-1" in shop.running()
    require_success(restore(safe_compose, shop, "--volume", "./uploads", "--confirm", shop.name))
    assert len(old_folders(shop)) == 1


def test_a_container_that_mounts_a_folder_above_is_stopped_if_it_is_of_the_project(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    made = compose_project(
        f"""
services:
  web: {{{BOX}, volumes: ["./uploads:/app/uploads"]}}
  look: {{{BOX}, volumes: [".:/work:ro"]}}
  all:
    image: "busybox:latest"
    init: true
    stop_grace_period: 1s
    volumes: [".:/work"]
    command: [sh, -c, "exec 3>>/work/uploads/log; while sleep 0.1; do echo x >&3; done"]
"""
    )
    uploads = made.folder / "uploads"
    uploads.mkdir()
    (uploads / "photo").write_text("a photo")
    made.up()
    other = unique("above")
    docker(
        *("run", "-d", "--name", other, "--init", "-v", f"{made.folder.parent}:/all"),
        *("busybox:latest", "sleep", "100000"),
    )
    try:
        require_success(safe_compose("backup", "--volume", "./uploads", cwd=made.folder))
        plan = require_success(
            restore(safe_compose, made, "--volume", "./uploads", "--dry-run", "--json")
        )
        shape = json.loads(plan.stdout)["restored"]
        assert shape["stops"] == [f"{made.name}-web-1", f"{made.name}-all-1"], shape
        assert f"mount a folder above, and go on: {other}" in plan.stdout, plan.stdout
        done = require_success(
            restore(safe_compose, made, "--volume", "./uploads", "--confirm", made.name)
        )
        assert f"{made.name}-all-1" in made.running(), done.stderr
        # whoever had a file open writes into the restored folder now
        [old] = old_folders(made)
        size = (old / "log").stat().st_size
        wait_until("it writes", lambda: (uploads / "log").stat().st_size > 20)
        assert (old / "log").stat().st_size == size
    finally:
        docker("rm", "-f", other)


def test_a_read_only_disk_is_left_alone_and_its_containers_start_again(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    made = compose_project(f'services: {{web: {{{BOX}, volumes: ["./disk/up:/data"]}}}}')
    with small_disk(made.folder / "disk", "size=3m") as disk:
        (disk / "up").mkdir()
        (disk / "up" / "photo").write_text("a photo")
        made.up()
        require_success(safe_compose("backup", cwd=made.folder))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        failed = restore(safe_compose, made, "--confirm", made.name)
        assert failed.returncode == 73 and "Read-only file system" in failed.stderr, failed.stderr
        assert f"{made.name}-web-1" in made.running(), failed.stderr
        told = require_success(safe_compose("recover", cwd=made.folder))
        assert "nothing to recover" in told.stdout + told.stderr
        made.docker("compose", "down")


def test_the_folder_above_may_be_a_link_now(
    safe_compose: SafeCompose, compose_project: ProjectFactory, tmp_path: Path
) -> None:
    made = compose_project(f'services: {{web: {{{BOX}, volumes: ["./data/up:/data"]}}}}')
    up = made.folder / "data" / "up"
    up.mkdir(parents=True)
    (up / "photo").write_text("a photo")
    made.up()
    require_success(safe_compose("backup", cwd=made.folder))
    made.docker("compose", "down")
    up.parent.rename(tmp_path / "larger disk")
    up.parent.symlink_to(tmp_path / "larger disk")
    made.up()
    (up / "later").write_text("written since")
    plan = require_success(restore(safe_compose, made, "--dry-run", "--json"))
    shape = json.loads(plan.stdout)["restored"]
    assert shape["stops"] == [f"{made.name}-web-1"], shape
    assert shape["volumes"][0]["into"] == str(tmp_path / "larger disk" / "up"), shape
    require_success(restore(safe_compose, made, "--confirm", made.name))
    assert "later" not in made.exec("web", "ls", "/data")
    [old] = (tmp_path / "larger disk").glob("up.before-*")
    assert (old / "later").exists() and (up / "photo").read_text() == "a photo"


def test_recover_takes_no_folder_that_docker_made_for_the_restored_one(
    shop: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    uploads = shop.folder / "uploads"
    before = describe(uploads)
    docker("compose", "stop", cwd=shop.folder)
    uploads.rename(shop.folder / "lost")
    killed = restore(
        safe_compose, shop, "--volume", "./uploads",
        env=failing_syscalls("fsync", ".jsonl", "KILL GROUP", skip=2),
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr
    # as if it had been killed just before the new folder was renamed, and docker then made one for
    # a container that starts
    [staging] = {s["staging"] for s in every_step(sealed_environment) if s.get("step") == "placing"}
    uploads.rename(shop.folder / staging)
    uploads.mkdir()
    told = safe_compose("recover", cwd=shop.folder)
    assert "something else made uploads meanwhile" in told.stderr, told.stderr
    assert len(leftovers(shop)) == 1
    uploads.rmdir()
    require_success(safe_compose("recover", cwd=shop.folder))
    assert leftovers(shop) == []
    require_success(restore(safe_compose, shop, "--volume", "./uploads"))
    assert describe(uploads) == before


@pytest.mark.thorough
def test_between_the_two_renames_the_folder_is_missing_and_recover_moves_it_back(
    shop: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    uploads = shop.folder / "uploads"
    (uploads / "later").write_text("written since the backup")
    now = describe(uploads)
    docker("compose", "stop", cwd=shop.folder)
    argv = ("--volume", "./uploads", "--confirm", shop.name)
    cut = failing_syscalls("fsync", ".jsonl", "KILL GROUP", skip=2)
    killed = restore(safe_compose, shop, *argv, env=cut)
    assert killed.returncode == -9, killed.stderr
    [old] = old_folders(shop)
    [staging] = {s["staging"] for s in every_step(sealed_environment) if s.get("step") == "placing"}
    uploads.rename(shop.folder / staging)
    # nothing takes what is left for an old folder, while nobody knows how the restore ended
    early = safe_compose("restore", "--finish", "--confirm", old.name, cwd=shop.folder)
    assert describe(old if old.exists() else uploads) == now, early.stderr
    require_success(safe_compose("recover", cwd=shop.folder))
    assert describe(uploads) == now and old_folders(shop) == leftovers(shop) == []

    require_success(restore(safe_compose, shop, *argv))
    [old] = old_folders(shop)
    finish = ("restore", "--finish", "--confirm", old.name)
    for skip in (0, 1):
        cut = failing_syscalls("fsync", ".jsonl", "KILL GROUP", skip=skip)
        killed = safe_compose(*finish, cwd=shop.folder, env=cut)
        assert killed.returncode == -9 and describe(old) == now, killed.stderr
    (old / "later").unlink()  # as if it had been killed half way
    require_success(safe_compose(*finish, cwd=shop.folder))
    assert old_folders(shop) == [] and (uploads / "empty").is_dir()


def test_a_path_restored_inside_of_a_folder_is_settled_though_its_staging_is_left(
    engine: Engine, tmp_path: Path
) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    for name, text in (("photo", "new"), ("photo.before-0a1b2c", "old")):
        (folder / name).write_text(text)
    (folder / ".safe-compose-0a1b2c").mkdir()
    step = Placing(
        None, str(folder), "photo", ".safe-compose-0a1b2c", "photo.before-0a1b2c", existed=True
    )
    assert recover_run._settle_path(engine, step).settled
    assert sorted(path.name for path in folder.iterdir()) == ["photo", "photo.before-0a1b2c"]
    assert (folder / "photo").read_text() == "new"


def test_by_hand_the_commands_of_the_recipe_bring_folders_and_files_back(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    made = compose_project(
        f"""
services:
  web:
    {{{BOX}, volumes: ["./-it's $$(touch x):/app/data", "./shop.db:/app/shop.db",
      "./deep/er:/app/uploads",
      {{type: bind, source: "./a:b", target: /data, bind: {{create_host_path: false}}}}]}}
"""
    )
    odd, deep, alone = (made.folder / n for n in ("-it's $(touch x)", "deep/er", "shop.db"))
    colon = made.folder / "a:b"
    colon.mkdir(mode=0o700)
    (colon / "note").write_text("a note")
    (odd / "sub").mkdir(parents=True)
    for database in (odd / "sub" / "-a 'b.db", alone):
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE orders (number)")
            connection.execute("INSERT INTO orders VALUES (1), (2)")
            connection.commit()
        os.chown(database, 1234, 4321)
    deep.mkdir(parents=True)
    (deep / "photo\n1").write_bytes(b"\0photo")
    (deep / "link").symlink_to("photo\n1")
    (deep / "pipe").hardlink_to(deep / "photo\n1")
    os.setxattr(deep / "pipe", "user.note", b"mine")
    deep.chmod(0o2750)
    made.up()
    backup = json.loads(require_success(safe_compose("backup", "--json", cwd=made.folder)).stdout)
    made.docker("compose", "down")
    before = {path: describe(path) for path in (odd, deep, alone, colon)}
    shutil.rmtree(odd)
    shutil.rmtree(colon)
    shutil.rmtree(deep.parent)
    alone.unlink()

    kept = Path(backup["backup"]["path"])
    text = (kept / "RESTORE.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    script = replace_tar("".join(b for b in blocks if not b.startswith("safe-compose ")))
    # as in a terminal: a line that fails does not end the shell
    done = subprocess.run(
        ["/bin/sh"], input=script, cwd=kept, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    [filled] = made.folder.glob("shop.db.restored/*")
    filled.rename(alone)
    (made.folder / "a_b.restored").rename(colon)
    for path, described in before.items():
        assert describe(path) == described, f"{script}\n{done.stderr}"
    assert os.getxattr(deep / "pipe", "user.note") == b"mine"
    assert (deep / "pipe").stat().st_ino == (deep / "photo\n1").stat().st_ino
    for database in (odd / "sub" / "-a 'b.db", alone):
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == (2,)
    # again it does nothing, and says so
    (deep / "later").write_text("written since")
    again = subprocess.run(
        ["/bin/sh"], input=script, cwd=kept, capture_output=True, text=True, timeout=120
    )
    assert again.returncode != 0 and (deep / "later").read_text() == "written since"
    assert not list(kept.glob("x")) and not (made.folder / "x").exists()


@pytest.mark.thorough
@pytest.mark.parametrize("skip", range(1, 3))
def test_a_restore_of_one_path_in_a_folder_may_be_killed_at_any_step(
    shop: ComposeProject, safe_compose: SafeCompose, skip: int
) -> None:
    uploads = shop.folder / "uploads"
    before = describe(uploads)
    (uploads / "empty" / "later").write_text("written since the backup")
    now = describe(uploads)
    argv = ("--volume", "./uploads", "--path", "empty", "--confirm", "empty")
    cut = failing_syscalls("fsync", ".jsonl", "KILL GROUP", skip=skip)
    killed = restore(safe_compose, shop, *argv, env=cut)
    assert killed.returncode == -9, killed.stderr
    require_success(safe_compose("recover", cwd=shop.folder))
    assert list(uploads.glob(".safe-compose-*")) == []
    if old := list(uploads.glob("empty.before-*")):
        assert [path.name for path in old[0].iterdir()] == ["later"]
        shutil.rmtree(old[0])
        before["."] = describe(uploads)["."]
        assert describe(uploads) == before
    else:
        assert describe(uploads) == now


@pytest.mark.thorough
@pytest.mark.parametrize("skip", range(1, 4))
def test_a_restore_into_another_folder_may_be_killed_at_any_step(
    shop: ComposeProject, safe_compose: SafeCompose, tmp_path: Path, skip: int
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("of somebody else")
    before, now = describe(shop.folder / "uploads"), describe(elsewhere)
    argv = ("--volume", "./uploads", "--into", str(elsewhere), "--confirm", str(elsewhere))
    cut = failing_syscalls("fsync", ".jsonl", "KILL GROUP", skip=skip)
    killed = restore(safe_compose, shop, *argv, env=cut)
    assert killed.returncode == -9, killed.stderr
    require_success(safe_compose("recover", cwd=shop.folder))
    assert list(tmp_path.glob(".elsewhere.safe-compose-*")) == []
    if old := list(tmp_path.glob("elsewhere.before-*")):
        assert describe(old[0]) == now and describe(elsewhere) == before
    else:
        assert describe(elsewhere) == now
    assert describe(shop.folder / "uploads") == before


def test_a_link_that_comes_into_the_path_meanwhile_is_not_followed(
    engine: Engine, tmp_path: Path
) -> None:
    above, outside = tmp_path / "above", tmp_path / "outside"
    (above / "uploads").mkdir(parents=True)
    (outside / "uploads").mkdir(parents=True)
    (outside / "uploads" / "photo").write_text("of somebody else")
    before = describe(outside)
    swap = FolderSwap.of(EngineLocation(engine, str(above / "uploads")), "0a1b2c")
    swap.make_staging()
    above.rename(tmp_path / "gone")
    above.symlink_to(outside)
    for change in (swap.make_staging, lambda: swap.swap_in(existed=True)):
        with pytest.raises(OperationFailed, match="by a link, and its path leads to"):
            change()
    for existed in (False, True):
        with pytest.raises(OperationFailed, match="by a link"):
            swap.revert(existed=existed)
    assert describe(outside) == before
    above.unlink()
    (tmp_path / "gone").rename(above)
    staging = above / swap.staging_name
    staging.rename(above / "gone")
    staging.symlink_to(outside)
    with pytest.raises(OperationFailed, match="by a link"):
        swap.swap_in(existed=True)
    swap.revert(existed=True)
    assert describe(outside) == before and (above / "uploads").is_dir()
