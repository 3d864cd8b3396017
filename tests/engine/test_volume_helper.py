"""The volume helper: the program itself, run as root in temporary folders; and its image on a real
engine.
"""

import io
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from safe_compose.engine import Engine, helper_image
from safe_compose.engine.helper_image import NoOwnImage
from safe_compose.volumes.tar import Member, read_list
from testing.helper import PROGRAM, helper
from testing.projects import ROOT, real_docker, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the helper runs as root")


def names(folder: Path) -> dict[bytes, Member]:
    return {member.path: member for member in read_list([helper("list", folder).stdout])}


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with one entry of each kind, and names that are no text."""
    top = tmp_path / "odd"
    top.mkdir(mode=0o2751)
    os.chown(top, 1234, 3_000_000_000)
    top.chmod(0o2751)
    (top / "plain").write_bytes(b"12345")
    (top / "new\nline").touch()
    Path(os.fsdecode(bytes(top) + b"/bad\xff\xfe")).touch()
    (top / "link").symlink_to("/etc/passwd")
    (top / "folder").mkdir(mode=0o000)
    (top / "folder" / "setuid").touch()
    (top / "folder" / "setuid").chmod(0o4755)
    os.mkfifo(top / "fifo")
    os.mknod(top / "device", 0o020600, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(top / "socket"))
    return top


# -- looking ---------------------------------------------------------------------------------------


def test_the_list_is_what_gnu_find_prints(odd: Path) -> None:
    found = subprocess.run(
        ["find", odd, "-xdev", "-printf", r"%y %s %m %U %G %P\0"], capture_output=True, check=True
    )
    assert sorted(helper("list", odd).stdout.split(b"\0")) == sorted(found.stdout.split(b"\0"))


def test_a_link_in_the_place_of_the_folder_is_refused(odd: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(odd)
    assert b"cannot be opened" in helper("list", tmp_path / "link", code=10).stderr


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder with 3,000 folders one below the other, and a file in the last."""
    top = tmp_path / "deep"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.mknod("bottom", 0o100644, dir_fd=here)
    os.close(here)
    yield top
    subprocess.run(["rm", "-rf", top], check=True)  # pytest would run out of stack


@pytest.mark.thorough
def test_a_tree_deeper_than_there_are_descriptors_is_listed(deep: Path) -> None:
    limited = ["prlimit", "--nofile=100", PROGRAM, "list", deep]
    done = subprocess.run(limited, capture_output=True, check=True)
    assert len(done.stdout.split(b"\0")) - 1 == 3002
    assert b"/deep/bottom\0" in done.stdout


def test_a_mount_is_named_and_not_entered(tmp_path: Path) -> None:
    (tmp_path / "volume" / "mounted").mkdir(parents=True)
    subprocess.run(["mount", "--bind", "/etc", tmp_path / "volume" / "mounted"], check=True)
    try:
        done = helper("list", tmp_path / "volume")
    finally:
        subprocess.run(["umount", tmp_path / "volume" / "mounted"], check=True)
    assert [m.path for m in read_list([done.stdout])] == [b"", b"mounted"]
    assert done.stderr == b"mounted: something is mounted here, which is not entered\n"


def test_newest_tells_the_last_write_of_each_folder(odd: Path, tmp_path: Path) -> None:
    for root, folders, files in os.walk(odd):
        for name in (*folders, *files):
            os.utime(Path(root, name), (1, 1_000_000_000), follow_symlinks=False)
    os.utime(odd / "folder" / "setuid", (1, 1_700_000_000))
    os.utime(odd, (1, 1_000_000_001))
    (tmp_path / "other").mkdir()
    os.utime(tmp_path / "other", (1, -5))
    out = helper("newest", odd, tmp_path / "other").stdout
    assert out == b"1700000000 %s\n-5 %s\n" % (bytes(odd), bytes(tmp_path / "other"))


def test_pause_ends_at_once_with_a_signal() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        child = subprocess.Popen([PROGRAM, "pause"])
        wait_until(
            "it waits for a signal",
            lambda pid=child.pid: "sigtimedwait" in Path(f"/proc/{pid}/wchan").read_text(),
        )
        child.send_signal(number)
        assert child.wait(10) == 0


def test_the_kernel_refuses_the_program_all_that_it_has_no_use_for() -> None:
    """Whoever made the program do his will could start nothing, mount nothing, and open no file by
    its number.
    """
    child = subprocess.Popen([PROGRAM, "pause"])
    wait_until(
        "it waits for a signal",
        lambda: "sigtimedwait" in Path(f"/proc/{child.pid}/wchan").read_text(),
    )
    status = Path(f"/proc/{child.pid}/status").read_text()
    child.terminate()
    assert child.wait(10) == 0
    assert "\nSeccomp:\t2\n" in status and "\nNoNewPrivs:\t1\n" in status
    allowed = (ROOT / "native" / "sandbox.c").read_text()
    for call in (
        "execve",
        "mount",
        "socket",
        "ptrace",
        "ioctl",
        "open_by_handle_at",
        "clone",
        "unshare",
        "setns",
        "bpf",
        "kill",
    ):
        assert not re.search(rf"\bSYS_{call}\b", allowed)


def test_wrong_words_end_with_2() -> None:
    for words in (
        (),
        ("nonsense",),
        ("list",),
        ("list", "/", "/"),
        ("newest",),
        ("pause", "x"),
        ("sync",),
    ):
        assert b"usage" in helper(*words, code=2).stderr


# -- single entries --------------------------------------------------------------------------------


def test_cat_reads_a_regular_file_and_nothing_else(odd: Path, tmp_path: Path) -> None:
    assert helper("cat", odd, "plain").stdout == b"12345"
    (tmp_path / "target").touch()
    helper("cat", odd, "plain", f"--file={tmp_path}/target")
    assert (tmp_path / "target").read_bytes() == b"12345"
    for missing in ("nothing", "plain/x", "nothing/x"):
        assert helper("cat", odd, missing, code=10).stderr == b"no such file\n"
    for other in (
        "link",
        "folder",
        "fifo",
        "device",
        "socket",
        "../odd/plain",
        "/etc/passwd",
        "",
        ".",
        "link/x",
    ):
        done = helper("cat", odd, other, code=1)
        assert done.stdout == b"" and done.stderr.count(b"\n") == 1


def test_a_path_through_a_link_is_refused(odd: Path) -> None:
    (odd / "way").symlink_to("folder")
    for words in (
        ("cat", odd, "way/setuid"),
        ("mkdir", odd, "way/x", "700"),
        ("rename", odd, "way/setuid", "x"),
        ("rename", odd, "plain", "way/x"),
        ("remove", odd, "way/setuid"),
        ("own", odd, "way/setuid", 0, 0, "600"),
        ("put", odd, "way/x", 0, 0, "600"),
    ):
        before = names(odd)
        assert b"symbolic link" in helper(*words, code=1).stderr
        assert names(odd) == before


def test_stat_tells_each_entry_and_what_is_not_there(odd: Path) -> None:
    found = helper(
        "stat", odd, "plain", "nothing", "link", "folder/setuid", "link/x", "."
    ).stdout.split(b"\0")
    assert found == [
        b"f 5 644 0 3000000000 plain", b"- ", b"l 11 777 0 3000000000 link",
        b"f 0 4755 0 3000000000 folder/setuid", b"- ", b"d 4096 2751 1234 3000000000 ", b"",
    ]  # fmt: skip


def test_mkdir_put_and_own_make_what_is_said(odd: Path) -> None:
    helper("mkdir", odd, "new", "1750")
    helper("put", odd, "new/file", 7, 8, "4640", stdin=b"content" * 100_000)
    helper("own", odd, "link", 9, 10, "777")
    helper("own", odd, "new", 11, 12, "3711")
    helper("own", odd, "fifo", 13, 14, "0")
    found = names(odd)
    assert found[b"new"][2:5] == (0o3711, 11, 12)
    assert found[b"new/file"][1:5] == (700_000, 0o4640, 7, 8)
    assert found[b"link"][3:5] == (9, 10)
    assert found[b"fifo"][2:5] == (0, 13, 14)
    assert (odd / "new" / "file").read_bytes() == b"content" * 100_000
    for words in (
        ("mkdir", odd, "new", "700"),
        ("put", odd, "new/file", 0, 0, "600"),
        ("put", odd, "link", 0, 0, "600"),
    ):
        assert b"is there already" in helper(*words, code=10).stderr
    helper("mkdir", odd, "nothing/x", "700", code=10)
    for mode in ("9", "-1", "", "10000", "0x1"):
        helper("mkdir", odd, "other", mode, code=2)
    assert b"other" not in names(odd)


def test_rename_never_replaces(odd: Path) -> None:
    helper("rename", odd, "plain", "folder/renamed")
    assert b"folder/renamed" in names(odd) and b"plain" not in names(odd)
    before = names(odd)
    assert b"is there already" in helper("rename", odd, "folder/renamed", "link", code=10).stderr
    assert b"is not there" in helper("rename", odd, "nothing", "x", code=10).stderr
    helper("rename", odd, "folder", "../folder", code=1)
    helper("rename", odd, "folder", "folder/x", code=10)
    assert names(odd) == before


def test_remove_takes_what_is_below_and_follows_no_link(odd: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (odd / "folder" / "link").symlink_to(kept)
    helper("remove", odd, "folder", "link", "nothing", "plain/x", "nothing/x")
    found = names(odd)
    assert b"folder" not in found and b"link" not in found and b"plain" in found
    assert (kept / "file").exists()
    helper("empty", odd)
    assert set(names(odd)) == {b""}
    assert (odd.stat().st_mode & 0o7777, odd.stat().st_uid) == (0o2751, 1234)


def test_remove_and_empty_stop_at_a_mount(odd: Path) -> None:
    (odd / "folder" / "mounted").mkdir()
    subprocess.run(["mount", "--bind", "/etc", odd / "folder" / "mounted"], check=True)
    try:
        assert b"something is mounted" in helper("remove", odd, "folder", code=1).stderr
        assert b"something is mounted" in helper("empty", odd, code=1).stderr
        assert Path("/etc/passwd").exists()
    finally:
        subprocess.run(["umount", odd / "folder" / "mounted"], check=True)


def test_the_deepest_tree_is_removed(deep: Path) -> None:
    helper("remove", deep, "deep")
    assert set(names(deep)) == {b""}


# -- exchange --------------------------------------------------------------------------------------


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """A folder as an engine keeps its local volumes in: `full` has content, `trash` has none."""
    top = tmp_path / "volumes"
    for name in ("full", "trash"):
        (top / name / "_data").mkdir(parents=True)
    (top / "full" / "_data" / "file").write_bytes(b"content")
    os.chown(top / "full" / "_data", 999, 998)
    (top / "full" / "_data").chmod(0o2700)
    return top


def _state(volumes: Path) -> dict[str, tuple[int, list[str]]]:
    found = {}
    for volume in sorted(volumes.iterdir()):
        data = volume / "_data"
        found[volume.name] = (data.stat().st_ino, [path.name for path in data.iterdir()])
    return found


def test_exchange_moves_the_content_out_and_back(volumes: Path) -> None:
    before = _state(volumes)
    helper("exchange", "look", volumes, "full", "trash")
    helper("exchange", "look", volumes, "full", "full")
    assert _state(volumes) == before
    for _ in range(2):  # a repeated one changes nothing
        assert (
            helper("exchange", "out", volumes, "full", "trash", stdin=b"go\n").stdout
            == b"ready\ndone\n"
        )
        assert _state(volumes) == {"full": before["trash"], "trash": before["full"]}
        facts = (volumes / "full" / "_data").stat()
        assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7777) == (999, 998, 0o2700)
    for _ in range(2):
        assert (
            helper("exchange", "back", volumes, "full", "trash", stdin=b"go\n").stdout
            == b"ready\ndone\n"
        )
        assert _state(volumes) == before


def test_exchange_is_done_when_docker_has_deleted_the_volume(volumes: Path) -> None:
    helper("exchange", "out", volumes, "full", "trash", stdin=b"go\n")
    subprocess.run(["rm", "-r", volumes / "full"], check=True)
    assert (
        helper("exchange", "out", volumes, "full", "trash", stdin=b"go\n").stdout
        == b"ready\ndone\n"
    )
    assert (
        helper("exchange", "back", volumes, "full", "trash", stdin=b"go\n", code=10).stderr
        == b"the volume has no folder\n"
    )
    assert (volumes / "trash" / "_data" / "file").read_bytes() == b"content"


@pytest.mark.parametrize("word", [b"", b"go", b"no\n", b"go \n", b"gogogogogogogogogogogogo\n"])
def test_exchange_waits_for_the_word(volumes: Path, word: bytes) -> None:
    before = _state(volumes)
    done = helper("exchange", "out", volumes, "full", "trash", stdin=word, code=10)
    assert (done.stdout, done.stderr) == (b"ready\n", b"nobody said go\n")
    assert _state(volumes) == before


def test_exchange_says_beforehand_that_a_file_system_may_not_be_able_to(tmp_path: Path) -> None:
    place = tmp_path / "other"
    place.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", place], check=True)
    try:
        (place / "full" / "_data").mkdir(parents=True)
        done = helper("exchange", "look", place, "full", "full", code=10)
        assert done.stderr == b"its file system is not known to exchange two folders\n"
    finally:
        subprocess.run(["umount", place], check=True)


def test_exchange_looks_again_after_the_word(volumes: Path) -> None:
    """Content that appeared in the empty one meanwhile is not discarded."""
    for way, late in (("out", "trash"), ("back", "full")):
        argv = [PROGRAM, "exchange", way, volumes, "full", "trash"]
        child = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        (volumes / late / "_data" / "late").touch()
        before = _state(volumes)
        _, words = child.communicate(b"go\n", timeout=60)
        assert child.returncode == 10 and b"other content" in words
        assert _state(volumes) == before
        (volumes / late / "_data" / "late").unlink()
        if way == "out":
            helper("exchange", "out", volumes, "full", "trash", stdin=b"go\n")


@pytest.mark.parametrize(
    "what",
    [
        "volume",
        "data",
        "trash",
        "trash data",
        "mounted",
        "mounted trash",
        "no trash",
        "file",
        "name",
    ],
)
def test_exchange_refuses_what_is_no_plain_folder(volumes: Path, tmp_path: Path, what: str) -> None:
    name = "trash" if "trash" in what else "full"
    mount = volumes / name / "_data"
    aside = tmp_path / "aside"
    if what.startswith("mounted"):
        subprocess.run(["mount", "--bind", mount, mount], check=True)
    elif what in ("data", "trash data", "file"):
        mount.rename(aside)
        if what == "file":
            mount.touch()
        else:
            mount.symlink_to(aside)
    elif what != "name":
        (volumes / name).rename(aside)
        if what != "no trash":
            (volumes / name).symlink_to(aside)
    try:
        for way in ("look", "out", "back"):
            done = helper(
                "exchange",
                way,
                volumes,
                "../full" if what == "name" else "full",
                "trash",
                stdin=b"go\n",
                code=10,
            )
            assert done.stdout == b"" and done.stderr.count(b"\n") == 1
    finally:
        if what.startswith("mounted"):
            subprocess.run(["umount", mount], check=True)


# -- the image -------------------------------------------------------------------------------------


def test_the_image_holds_the_program_and_nothing_else() -> None:
    with tarfile.open(fileobj=io.BytesIO(helper_image.image("amd64"))) as archive:
        read = {
            member.name: file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }
    (entry,) = json.loads(read["manifest.json"])
    (layer,) = entry["Layers"]
    config = json.loads(read[entry["Config"]])
    with tarfile.open(fileobj=io.BytesIO(read[layer])) as content:
        (member,) = content.getmembers()
        program = content.extractfile(member)
        assert program is not None and program.read() == PROGRAM.read_bytes()
    assert (member.name, member.mode, member.uid, member.gid) == (
        "safe-compose-helper",
        0o755,
        0,
        0,
    )
    assert config["config"].keys() == {"Entrypoint", "Labels"}
    once = helper_image.image("amd64")
    helper_image.build.cache_clear()
    assert helper_image.image("amd64") == once


def test_an_image_that_differs_in_anything_is_not_ours() -> None:
    ours = helper_image.build("amd64")
    body = {
        "Id": ours.config_digest,
        "RootFS": {"Type": "layers", "Layers": [ours.layer_digest]},
        "Config": {"Entrypoint": ["/safe-compose-helper"], "Volumes": None},
    }
    assert ours.is_described_by(body, ours.config_digest)
    other = f"sha256:{'0' * 64}"
    for change in (
        {"Id": other},
        {"Id": ours.manifest_digest},
        {"RootFS": {"Type": "layers", "Layers": [other]}},
        {"RootFS": {"Type": "layers", "Layers": [ours.layer_digest, other]}},
        {"RootFS": None},
        {"Config": {"Entrypoint": ["/bin/sh"]}},
        {"Config": {"Entrypoint": None}},
        {"Config": {"Entrypoint": ["/safe-compose-helper"], "Volumes": {"/volume": {}}}},
    ):
        assert not ours.is_described_by({**body, **change}, ours.config_digest), change
    assert not ours.is_described_by({**body, "Id": other}, other)


@pytest.mark.parametrize("arch", ["", "riscv64", "windows/amd64", "../amd64"])
def test_another_architecture_has_no_image(arch: str) -> None:
    with pytest.raises(NoOwnImage, match="architecture"):
        helper_image.image(arch)


def test_an_installation_without_the_program_has_no_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(helper_image, "PROGRAMS", tmp_path)
    helper_image.build.cache_clear()
    with pytest.raises(NoOwnImage, match="without the volume helper"):
        helper_image.image("amd64")
    helper_image.build.cache_clear()


@pytest.fixture
def volume(engine: Engine) -> Iterator[str]:
    name = f"test-helper-{os.urandom(6).hex()}"
    engine.docker.create_volume(name)
    yield name
    engine.docker.remove_volume(name)


@pytest.mark.engine
def test_the_engine_runs_our_own_image(engine: Engine, volume: str) -> None:
    identity = engine.images.own_image()
    assert identity in helper_image.build("amd64").ids
    seen = engine.helpers.own(
        "list", "/volume", volumes=((volume, "/volume", True),), capabilities=helper_image.READS
    )
    assert seen.image == identity
    assert engine.helpers.run(seen) == b"d 4096 755 0 0 \0"
    assert engine.images.reach_image() == identity


@pytest.mark.thorough
@pytest.mark.engine
def test_an_old_kernel_or_filter_without_openat2_is_enough(
    engine: Engine, volume: str, tmp_path: Path
) -> None:
    """Then each component is opened by itself, and a mount is known by its number."""
    profile = tmp_path / "seccomp.json"
    rule = {"names": ["openat2"], "action": "SCMP_ACT_ERRNO"}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    content = tmp_path / "volume"
    (content / "a" / "b").mkdir(parents=True)
    (content / "a" / "b" / "file").write_text("x")
    (content / "way").symlink_to("a")

    def run(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        argv = [
            real_docker(),
            "run",
            "--rm",
            "-i",
            "--network=none",
            f"--security-opt=seccomp={profile}",
        ]
        argv += [
            "--mount",
            f"type=volume,source={volume},target=/volume",
            "--tmpfs",
            "/volume/mounted",
            engine.images.own_image(),
        ]
        return subprocess.run([*argv, *words], input=stdin, capture_output=True, timeout=120)

    archive = helper("pack", content).stdout
    plain = [
        "--mount",
        f"type=volume,source={volume},target=/volume",
        f"--security-opt=seccomp={profile}",
    ]
    argv = [
        real_docker(),
        "run",
        "--rm",
        "-i",
        *plain,
        engine.images.own_image(),
        "unpack",
        "/volume",
    ]
    subprocess.run(argv, input=archive, check=True)
    assert run("cat", "/volume", "a/b/file").stdout == b"x"
    assert b"symbolic link" in run("cat", "/volume", "way/b/file").stderr
    listed_there = run("list", "/volume")
    assert b"mounted: something is mounted here" in listed_there.stderr
    assert {m.path for m in read_list([listed_there.stdout])} == {
        b"",
        b"a",
        b"a/b",
        b"a/b/file",
        b"way",
        b"mounted",
    }
    assert run("remove", "/volume", "a").returncode == 0
    assert b"something is mounted" in run("empty", "/volume").stderr


@pytest.mark.engine
def test_an_engine_of_another_architecture_is_reached_through_an_image_of_nothing(
    engine: Engine, volume: str
) -> None:
    nothing = helper_image.build_empty("amd64")
    identity = engine.images.bring(nothing)
    assert identity in nothing.ids
    mount = f"type=volume,source={volume},target=/volume,readonly"
    made = subprocess.run(
        [real_docker(), "create", "--pull=never", "--mount", mount, identity, "none"],
        capture_output=True,
        check=True,
        text=True,
    )
    subprocess.run([real_docker(), "rm", made.stdout.strip()], capture_output=True, check=True)
    shown = subprocess.run(
        [real_docker(), "image", "inspect", identity], capture_output=True, check=True
    )
    (body,) = json.loads(shown.stdout)
    assert body["RootFS"]["Layers"] == [nothing.layer_digest]


# -- SQLite ----------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """A folder with a database in WAL mode that belongs to somebody else, and a connection that has
    written and stays.
    """
    if b"sqlite" not in helper("features").stdout.split():
        pytest.skip("this helper was built without SQLite")
    folder = tmp_path / "volume"
    folder.mkdir()
    os.chown(folder, 1000, 1000)
    with closing(sqlite3.connect(folder / "app.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (n INTEGER, filler TEXT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", ((n, "x" * 500) for n in range(2000)))
        connection.commit()
        for path in folder.iterdir():
            os.chown(path, 1000, 1000)
        yield folder, connection


def _rows(content: bytes) -> int:
    with closing(sqlite3.connect(":memory:")) as copy:
        copy.deserialize(
            content[:18] + b"\1\1" + content[20:]
        )  # out of WAL mode, which memory does not have
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return int(copy.execute("SELECT count(*) FROM t").fetchone()[0])


def test_a_database_in_use_is_copied_with_what_is_in_its_log(
    database: tuple[Path, sqlite3.Connection],
) -> None:
    folder, connection = database
    connection.execute("INSERT INTO t VALUES (-1, 'not committed')")
    assert _rows(helper("sqlite-copy", folder, "app.db").stdout) == 2000
    connection.commit()
    assert _rows(helper("sqlite-copy", folder, "app.db").stdout) == 2001
    assert {path.stat().st_uid for path in folder.iterdir()} == {1000}


def test_files_that_sqlite_has_to_make_belong_to_the_owner_of_the_database(
    database: tuple[Path, sqlite3.Connection],
) -> None:
    folder, connection = database
    connection.close()
    assert [path.name for path in folder.iterdir()] == ["app.db"]
    assert _rows(helper("sqlite-copy", folder, "app.db").stdout) == 2000
    assert {path.stat().st_uid for path in folder.iterdir()} == {1000}


def test_a_locked_database_is_waited_for_and_then_named(
    tmp_path: Path, database: tuple[Path, sqlite3.Connection]
) -> None:
    folder, connection = database
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("BEGIN EXCLUSIVE")
    done = helper("sqlite-copy", folder, "app.db", "--seconds", 0, code=1)
    assert b"app.db is locked" in done.stderr and done.stdout == b""
    connection.rollback()
    assert _rows(helper("sqlite-copy", folder, "app.db", "--seconds", 0).stdout) == 2000
    assert not list(Path("/tmp").glob("safe-compose-copy.*"))


def test_what_is_no_database_is_refused(database: tuple[Path, sqlite3.Connection]) -> None:
    folder, _ = database
    (folder / "text").write_bytes(b"this is no database" * 100)
    (folder / "link").symlink_to("app.db")
    (folder / "way").symlink_to(".")
    os.mkfifo(folder / "fifo")
    for name in ("text", "link", "way/app.db", "fifo", "."):
        done = helper("sqlite-copy", folder, name, code=1)
        assert done.stdout == b"" and done.stderr.count(b"\n") == 1
    assert helper("sqlite-copy", folder, "nothing", code=10).stderr == b"no such file\n"
