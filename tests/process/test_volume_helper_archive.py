"""What the volume helper packs and unpacks, without an engine: everything comes back, GNU tar
agrees, hostile input is refused.
"""

import io
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safe_compose.volumes.comparison import compare
from safe_compose.volumes.tar import read_list, read_members
from testing.disks import mounting
from testing.helper import PROGRAM, helper, plant

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the helper runs as root")
GNU_EXTRACT = ("tar", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xpf", "-")
GNU_CREATE = (
    "tar",
    "--xattrs",
    "--xattrs-include=*",
    "--acls",
    "--numeric-owner",
    "--sparse",
    "--format=posix",
    "-cpf",
    "-",
)


def everything(folder: Path) -> dict[str, tuple[object, ...]]:
    """Path -> all that Linux keeps of an entry; sockets, which no archive holds, are left out."""
    found: dict[str, tuple[object, ...]] = {}
    names: dict[tuple[int, int], str] = {}
    for root, folders, files in os.walk(folder):
        for path in (Path(root), *(Path(root, name) for name in (*folders, *files))):
            facts = path.lstat()
            kind = facts.st_mode >> 12
            relative = str(path.relative_to(folder))
            if kind == 0o14 or relative in found:
                continue
            attributes = {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
            }
            content: object = None
            if kind == 0o10:
                content = path.read_bytes()
            elif kind == 0o12:
                content = path.readlink()
            first = (
                names.setdefault((facts.st_dev, facts.st_ino), relative) if kind != 4 else relative
            )
            found[relative] = (
                facts.st_mode, facts.st_uid, facts.st_gid, facts.st_mtime_ns, facts.st_rdev,
                attributes, content, facts.st_nlink if kind != 4 else 0, first,
            )  # fmt: skip
    return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that keeps every kind of attribute, with a planted `volume` and an
    empty `out`.
    """
    with mounting(tmp_path / "image", tmp_path / "disk") as disk:
        plant(disk / "volume")
        (disk / "out").mkdir()
        yield disk


def packed(folder: Path, *more: str) -> bytes:
    return helper("pack", *more, folder).stdout


def tar(*added: tuple[str, dict[str, object]], top: bool = True) -> bytes:
    """An archive of these members; the content of a file is `data`."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
    ) as made:
        for name, facts in (
            (("volume", {"type": tarfile.DIRTYPE, "mode": 0o755}),) if top else ()
        ) + added:
            info = tarfile.TarInfo(name)
            data = bytes(facts.pop("data", b""))  # type: ignore[call-overload]
            info.size = len(data)
            for key, value in facts.items():
                setattr(info, key, value)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


# -- there and back --------------------------------------------------------------------------------


def test_everything_comes_back(place: Path) -> None:
    before = everything(place / "volume")
    archive = packed(place / "volume")
    helper("unpack", place / "out", stdin=archive)
    assert everything(place / "out") == before
    assert everything(place / "volume") == before
    assert any("trusted.kept" in facts[5] for facts in before.values())  # type: ignore[operator]
    assert any("system.posix_acl_default" in facts[5] for facts in before.values())  # type: ignore[operator]


def test_gnu_tar_restores_it_by_hand(place: Path) -> None:
    subprocess.run(GNU_EXTRACT, cwd=place / "out", input=packed(place / "volume"), check=True)
    assert everything(place / "out" / "volume") == everything(place / "volume")


def test_what_gnu_tar_packed_is_unpacked(place: Path) -> None:
    archive = subprocess.run(
        (*GNU_CREATE, "volume"), cwd=place, capture_output=True, check=True
    ).stdout
    helper("unpack", place / "out", stdin=archive)
    assert everything(place / "out") == everything(place / "volume")


def test_the_strict_reader_agrees_with_the_list(place: Path) -> None:
    archive, listing = packed(place / "volume"), helper("list", place / "volume").stdout
    count = len(everything(place / "volume"))
    assert compare(lambda: read_members([archive]), lambda: read_list([listing])) == count


def test_holes_stay_holes(place: Path) -> None:
    archive = packed(place / "volume")
    assert len(archive) < 3 << 20
    helper("unpack", place / "out", stdin=archive)
    for name in ("hole", "holes", "hole at the end", "many holes"):
        assert (place / "out" / name).stat().st_blocks == (place / "volume" / name).stat().st_blocks


def test_an_ownerless_folder_below_a_default_acl_inherits_nothing(place: Path) -> None:
    """The ACL of a folder that is there already, and of those on the way, are not handed down while
    it is filled.
    """
    subprocess.run(["setfacl", "-d", "-m", "u:55:rwx", place / "out"], check=True)
    helper("unpack", place / "out", stdin=packed(place / "volume"))
    assert everything(place / "out") == everything(place / "volume")


def test_it_goes_through_a_pipe_with_a_name(place: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: helper("unpack", f"--file={pipe}", place / "out"))
    reader.start()
    assert helper("pack", f"--file={pipe}", place / "volume").stdout == b""
    reader.join(60)
    assert everything(place / "out") == everything(place / "volume")


def test_a_size_above_what_a_plain_header_holds(place: Path) -> None:
    (place / "big").mkdir()
    (place / "big" / "nine gigabytes").touch()
    os.truncate(place / "big" / "nine gigabytes", 9 << 30)
    helper("unpack", place / "out", stdin=packed(place / "big"))
    assert (place / "out" / "nine gigabytes").stat().st_size == 9 << 30


PARTS = st.binary(min_size=1, max_size=12).filter(
    lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..")
)
LETTERS = st.characters(codec="ascii", exclude_characters="\0")
ENTRIES = st.tuples(
    st.lists(PARTS, min_size=1, max_size=4),
    st.sampled_from("fdlpch"),
    st.integers(0, 0o7777),
    st.integers(0, (1 << 32) - 2),
    st.integers(-(1 << 31), 1 << 33),  # what ext4 holds
    st.binary(max_size=600),
    st.dictionaries(st.text(LETTERS, min_size=1, max_size=20), st.binary(max_size=50), max_size=3),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=st.lists(ENTRIES, max_size=12))
def test_any_tree_comes_back(
    tree: list[tuple[list[bytes], str, int, int, int, bytes, dict[str, bytes]]],
) -> None:
    with _workplace() as workplace:
        top = workplace / "volume"
        for path, kind, mode, owner, seconds, content, attributes in tree:
            _make(top, path, kind, mode, owner, seconds, content, attributes)
        archive, listing = packed(top), helper("list", top).stdout
        compare(lambda: read_members([archive]), lambda: read_list([listing]))
        (workplace / "out").mkdir()
        helper("unpack", workplace / "out", stdin=archive)
        assert everything(workplace / "out") == everything(top)


@contextmanager
def _workplace() -> Iterator[Path]:
    """A folder for one example, with an empty `volume` in it."""
    path = Path(tempfile.mkdtemp())
    (path / "volume").mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _make(
    top: Path,
    parts: list[bytes],
    kind: str,
    mode: int,
    owner: int,
    seconds: int,
    content: bytes,
    attributes: dict[str, bytes],
) -> None:
    """One entry; what cannot be made, because its path or a part of it is taken, is left out."""
    path = Path(os.fsdecode(b"/".join((bytes(top), *parts))))
    try:
        if os.path.lexists(path):  # perhaps a FIFO, whose other end nobody opens
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        match kind:
            case "f":
                path.write_bytes(content)
            case "d":
                path.mkdir()
            case "l":
                path.symlink_to(os.fsdecode(content.replace(b"\0", b"") or b"x"))
            case "p":
                os.mkfifo(path)
            case "c":
                os.mknod(path, 0o020600, os.makedev(owner % 4096, owner % 65536))
            case _:
                files = sorted(p for p in top.rglob("*") if p.is_symlink() or not p.is_dir())
                os.link(files[owner % len(files)], path, follow_symlinks=False)
                return
        os.chown(path, owner, owner // 2, follow_symlinks=False)
        if kind != "l":
            path.chmod(mode)
        for name, value in attributes.items():
            os.setxattr(
                path,
                f"{'user' if kind in 'fd' else 'trusted'}.{name}",
                value,
                follow_symlinks=False,
            )
        os.utime(path, ns=(0, seconds * 10**9 + owner % 10**9), follow_symlinks=False)
    except (OSError, ZeroDivisionError):
        return


# -- trees that change -----------------------------------------------------------------------------


def _while_it_packs(
    folder: Path, change: Callable[[], None], *more: str
) -> subprocess.CompletedProcess[bytes]:
    """Pack, and change something once the first bytes of a big file have been read."""
    child = subprocess.Popen(
        [PROGRAM, "pack", *more, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None and child.stderr is not None
    first = child.stdout.read(1 << 18)
    change()
    out, words = child.communicate(timeout=60)
    return subprocess.CompletedProcess([], child.returncode, first + out, words)


@pytest.mark.parametrize("change", ["shorter", "longer", "rewritten"])
def test_a_file_that_changes_is_named(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    path = folder / "changes"
    path.write_bytes(b"x" * (8 << 20))

    def act() -> None:
        with path.open("r+b") as file:
            if change == "shorter":
                file.truncate(3 << 20)
            elif change == "longer":
                file.seek(0, os.SEEK_END)
                file.write(b"more")
            else:
                file.write(b"y")

    done = _while_it_packs(folder, act)
    assert (done.returncode, done.stderr) == (1, b"changes changed while it was read\n")
    path.write_bytes(b"x" * (8 << 20))
    done = _while_it_packs(folder, act, "--live")
    assert (done.returncode, done.stderr) == (3, b"changes changed while it was read\n")
    assert [(m.path, m.size) for m in read_members([done.stdout])] == [
        (b"", 0),
        (b"changes", 8 << 20),
    ]


def test_a_folder_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    for number in range(40):
        (folder / f"{number}").mkdir(parents=True)
        (folder / f"{number}" / "big").write_bytes(b"x" * (1 << 20))
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "big").write_bytes(b"secret" * 100_000)

    def act() -> None:
        for number in range(40):
            (folder / f"{number}").rename(tmp_path / f"{number}")
            (folder / f"{number}").symlink_to(secret)

    done = _while_it_packs(folder, act, "--live")
    assert done.returncode == 3
    assert b"secret" * 10 not in done.stdout
    list(read_members([done.stdout]))


def test_something_mounted_inside_is_no_whole_archive(tmp_path: Path) -> None:
    (tmp_path / "volume" / "mounted").mkdir(parents=True)
    subprocess.run(["mount", "--bind", "/etc", tmp_path / "volume" / "mounted"], check=True)
    try:
        done = helper("pack", tmp_path / "volume", code=1)
        assert done.stderr == b"mounted: something is mounted here, which is not packed\n"
        live = helper("pack", "--live", tmp_path / "volume", code=3)
    finally:
        subprocess.run(["umount", tmp_path / "volume" / "mounted"], check=True)
    assert [m.path for m in read_members([live.stdout])] == [b"", b"mounted"]


def test_sockets_are_counted(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "volume" / "s"))
    assert (
        helper("pack", tmp_path / "volume").stderr
        == b"1 sockets were left out; they hold nothing\n"
    )


# -- hostile archives ------------------------------------------------------------------------------

FOLDER = {"type": tarfile.DIRTYPE, "mode": 0o755}
HOSTILE = {
    "an absolute name": ((("/volume/x"), {}),),
    "a way up": (("volume/../x", {}),),
    "a way up at the end": (("volume/a/..", dict(FOLDER)),),
    "a point": (("volume/./x", {}),),
    "an empty component": (("volume//x", {}),),
    "another top": (("other/x", {}),),
    "the top as a link": (("volume", {"type": tarfile.SYMTYPE, "linkname": "/etc"}),),
    "a file with a slash at its end": (("volume/x/", {}),),
    "below a link": (("volume/l", {"type": tarfile.SYMTYPE, "linkname": "/tmp"}), ("volume/l/x",
      {})),
    "a folder in the place of a link": (("volume/l", {"type": tarfile.SYMTYPE, "linkname": "/tmp"}),
     ("volume/l", dict(FOLDER))),
    "below a file": (("volume/f", {}), ("volume/f/x", {})),
    "a file twice": (("volume/f", {}), ("volume/f", {})),
    "a file over a folder": (("volume/d", dict(FOLDER)), ("volume/d", {})),
    "below what is not there": (("volume/d/x", {}),),
    "a hard link to nothing": (("volume/h", {"type": tarfile.LNKTYPE, "linkname": "volume/x"}),),
    "a hard link out": (("volume/h", {"type": tarfile.LNKTYPE,
       "linkname": "volume/../../etc/passwd"}),),
    "a hard link to an absolute name": (("volume/h", {"type": tarfile.LNKTYPE,
       "linkname": "/etc/passwd"}),),
    "a hard link to the top": (("volume/h", {"type": tarfile.LNKTYPE, "linkname": "volume"}),),
    "a hard link to a folder": (("volume/d", dict(FOLDER)), ("volume/h", {"type": tarfile.LNKTYPE,
       "linkname": "volume/d"})),
    "a hard link through a link": (
        ("volume/l", {"type": tarfile.SYMTYPE, "linkname": "/etc"}),
        ("volume/h", {"type": tarfile.LNKTYPE, "linkname": "volume/l/passwd"}),
    ),
    "a link to nowhere": (("volume/l", {"type": tarfile.SYMTYPE, "linkname": ""}),),
    "an unknown type": (("volume/x", {"type": b"Z"}),),
    "an old sparse form": (("volume/x", {"pax_headers": {"GNU.sparse.map": "0,1",
        "GNU.sparse.size": "10"}}),),
    "a sparse map that lies": (
        ("volume/x", {"data": b"1\n0\n99999\n".ljust(512, b"\0") + b"x" * 10, "pax_headers": {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999"}}),
    ),
    "a sparse map that goes back": (
        ("volume/x", {"data": b"2\n100\n5\n0\n5\n".ljust(512, b"\0") + b"x" * 10, "pax_headers": {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "200"}}),
    ),
    "a sparse map beyond its file": (
        ("volume/x", {"data": b"1\n9223372036854775000\n1000\n".ljust(512, b"\0") + b"x" * 1000,
          "pax_headers": {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9000"}}),
    ),
    "a sparse map of endless pieces": (
        ("volume/x", {"data": b"99999999999\n".ljust(512, b"\0"), "pax_headers": {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"}}),
    ),
    "a sparse name that leads out": (
        ("volume/x", {"data": b"0\n".ljust(512, b"\0"), "pax_headers": {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "0",
            "GNU.sparse.name": "volume/../../x"}}),
    ),
    "a negative size": (("volume/x", {"pax_headers": {"size": "-1536"}}),),
    "a size without end": (("volume/x", {"pax_headers": {"size": "999999999999999999"}}),),
    "an owner that is none": (("volume/x", {"pax_headers": {"uid": "4294967295"}}),),
    "an ACL that is none": (("volume/x", {"pax_headers": {"SCHILY.acl.access": "user:root:rwx"}}),),
    "a folder with content": (("volume/d", {"type": tarfile.DIRTYPE, "data": b"x"}),),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_is_refused_and_nothing_is_written_outside(
    what: str, tmp_path: Path
) -> None:
    out = tmp_path / "inner" / "out"
    out.mkdir(parents=True)
    archive = tar(*((name, dict(facts)) for name, facts in HOSTILE[what]))
    before = {path for path in tmp_path.rglob("*") if out not in path.parents}
    done = helper("unpack", out, stdin=archive, code=1)
    assert done.stderr.count(b"\n") == 1 and done.stderr.isascii()
    assert {path for path in tmp_path.rglob("*") if out not in path.parents} == before


def test_a_cut_or_damaged_archive_is_refused(place: Path) -> None:
    archive = packed(place / "volume")
    for length in (0, 100, 512, 5000, len(archive) // 2, len(archive.rstrip(b"\0"))):
        shutil.rmtree(place / "out")
        (place / "out").mkdir()
        assert (
            b"ends too early"
            in helper("unpack", place / "out", stdin=archive[:length], code=1).stderr
        )
    shutil.rmtree(place / "out")
    (place / "out").mkdir()
    assert (
        b"follows the end"
        in helper("unpack", place / "out", stdin=archive + b"more", code=1).stderr
    )


def test_a_folder_that_is_not_empty_is_not_touched(place: Path) -> None:
    (place / "out" / "mine").touch()
    assert (
        b"not empty"
        in helper("unpack", place / "out", stdin=packed(place / "volume"), code=10).stderr
    )
    assert [path.name for path in (place / "out").iterdir()] == ["mine"]


def test_what_the_file_system_cannot_keep_of_trusted_attributes_is_counted(tmp_path: Path) -> None:
    """As a user namespace refuses them; here the capability is taken away."""
    (tmp_path / "out").mkdir()
    archive = tar(
        (
            "volume/x",
            {"pax_headers": {"SCHILY.xattr.trusted.kept": "1", "SCHILY.xattr.user.kept": "2"}},
        )
    )
    argv = ["setpriv", "--bounding-set=-sys_admin", PROGRAM, "unpack", tmp_path / "out"]
    done = subprocess.run(argv, input=archive, capture_output=True)
    assert (done.returncode, done.stderr) == (
        0,
        b"1 extended attributes were not taken by this system or its file system\n",
    )
    assert os.listxattr(tmp_path / "out" / "x") == ["user.kept"]


# -- a part ----------------------------------------------------------------------------------------


def test_one_member_comes_with_its_folders_and_nothing_else(place: Path) -> None:
    before = everything(place / "volume")
    helper(
        "unpack",
        "--member",
        "volume/folder/below",
        "--member",
        "volume/set-uid",
        place / "out",
        stdin=packed(place / "volume"),
    )
    found = everything(place / "out")
    assert set(found) == {".", "folder", "folder/below", "folder/below/file", "set-uid"}
    assert found["folder"] == before["folder"]
    assert found["folder/below/file"] == before["folder/below/file"]


def test_a_member_that_is_not_there_is_named(place: Path) -> None:
    done = helper(
        "unpack",
        "--member",
        "volume/folder/bel",
        place / "out",
        stdin=packed(place / "volume"),
        code=1,
    )
    assert done.stderr == b"folder/bel is not in the archive\n"
    for name in ("volume", "volume/../x", "/x", ""):
        helper("unpack", "--member", name, place / "out", stdin=b"", code=10)


def test_only_one_name_of_a_folder_is_packed_listed_and_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "-a b").write_text("not this")
    (folder / "-a b").write_text("this")
    (folder / "other").write_text("secret")
    packed = helper("pack", "--only=-a b", str(folder))
    assert packed.returncode == 0, packed.stderr
    names = [member.path for member in read_members([packed.stdout])]
    listed = helper("list", "--only=-a b", str(folder))
    assert names == [m.path for m in read_list([listed.stdout])] == [b"", b"-a b"]
    assert b"secret" not in packed.stdout
    os.utime(folder / "other", (1_000_000_000, 1_000_000_000))
    newest = helper("newest", str(folder / "other"), str(folder))
    assert newest.stdout.startswith(f"1000000000 {folder}/other\n".encode())


def test_a_mount_that_is_left_out_of_a_live_archive_is_named_last(tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    inner = folder / "a disk"
    inner.mkdir(parents=True)
    with mounting(tmp_path / "disk", inner):
        (inner / "secret").write_text("secret")
        done = helper("pack", "--live", str(folder), code=3)
    last = done.stderr.decode().splitlines()[-1]
    assert last.endswith("a disk: something is mounted here, which is not packed"), last
    assert b"secret" not in done.stdout
