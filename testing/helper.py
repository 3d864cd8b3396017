"""The volume helper run natively, and folders with one of everything for it."""

import os
import socket
import subprocess
from pathlib import Path

from safe_compose.engine import helper_image

PROGRAM = helper_image.PROGRAMS / "volume_helper.amd64"


def helper(
    *argv: object, stdin: bytes | None = None, code: int = 0
) -> subprocess.CompletedProcess[bytes]:
    """Run the program itself; it must end with `code`."""
    words = [
        (
            os.fsencode(word)
            if isinstance(word, Path)
            else str(word).encode("utf-8", "surrogateescape")
        )
        for word in argv
    ]
    done = subprocess.run(
        [os.fsencode(PROGRAM), *words], input=stdin or b"", capture_output=True, timeout=120
    )
    assert done.returncode == code, f"{argv}: {done.returncode}: {done.stderr!r}"
    return done


def plant(top: Path) -> None:
    """A folder with one entry of each kind, every kind of attribute, holes, and names that are no
    text.
    """
    top.mkdir()
    (top / "plain").write_bytes(b"plain" * 1000)
    (top / "new\nline").touch()
    Path(os.fsdecode(bytes(top) + b"/bad\xff\xfe=%")).touch()
    (top / "dangling").symlink_to("/no/where")
    (top / "long link").symlink_to("x" * 300)
    (top / "folder" / "below").mkdir(parents=True)
    (top / "folder" / "below" / "file").write_bytes(b"1")
    (top / "folder" / ("n" * 200)).write_bytes(b"deep")
    (top / "set-uid").write_bytes(b"x")
    os.link(top / "plain", top / "hard")
    os.link(top / "dangling", top / "folder" / "hard link", follow_symlinks=False)
    os.mkfifo(top / "fifo")
    os.mknod(top / "device", 0o020600, os.makedev(1, 3))
    os.mknod(top / "disk", 0o060600, os.makedev(259, 1048575))
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(top / "socket"))
    _holes(top)
    _attributes(top)
    # pathlib of Python 3.11.2 fails at a link whose text is longer than a name may be.
    planted = [Path(at, name) for at, *both in os.walk(top) for name in (*both[0], *both[1])]
    for path in planted:
        os.chown(path, 1234, 4321, follow_symlinks=False)
    os.chown(top / "folder" / "below", 77, 3_000_000_000)
    os.chown(top, 1234, 3_000_000_000)
    os.setxattr(
        top / "set-uid",
        "security.capability",
        bytes.fromhex("0100000200200000000000000000000000000000"),
    )
    (top / "set-uid").chmod(0o4755)
    (top / "folder").chmod(0o1777)
    top.chmod(0o3751)
    for path in planted:
        os.utime(path, ns=(0, 1_600_000_000_987_654_321), follow_symlinks=False)
    os.utime(top / "new\nline", ns=(0, -1_250_000_000))
    os.utime(top / "set-uid", ns=(0, 5_000_000_000 * 10**9))
    os.utime(top, ns=(0, 1_234_567_890_000_000_000))


def _holes(top: Path) -> None:
    for name, pieces, size in (
        ("hole", (), 5 << 20),
        ("holes", ((409600, 1), (4 << 20, 3)), (4 << 20) + 3 * 4096),
        ("hole at the end", ((0, 1),), 3 << 20),
        ("many holes", tuple((n * 16384, 1) for n in range(500)), 500 * 16384 + 1),
    ):
        with (top / name).open("wb") as file:
            for offset, blocks in pieces:
                file.seek(offset)
                file.write(b"d" * blocks * 4096)
            file.truncate(size)


def _attributes(top: Path) -> None:
    os.setxattr(top / "plain", "user.note", b"line\nline\0end")
    os.setxattr(top / "plain", "user.a=b%c", b"")
    os.setxattr(top / "plain", "security.selinux", b"system_u:object_r:container_file_t:s0\0")
    os.setxattr(top / "dangling", "trusted.kept", b"1", follow_symlinks=False)
    os.setxattr(top / "fifo", "trusted.kept", b"2")
    os.setxattr(top / "folder", "trusted.overlay.opaque", b"y")
    os.setxattr(top, "user.root", b"3")
    subprocess.run(["setfacl", "-m", "u:77:r--,g:88:rwx,m::rw-", top / "new\nline"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:77:r--", top / "folder"], check=True)
    subprocess.run(["setfacl", "-m", "u:99:r-x", top / "folder"], check=True)
