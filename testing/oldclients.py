"""Clients of yesterday, from Debian packages: docker 20.10 and docker-compose 1.29 (Python), each
in a folder of its own.

Nothing is installed: the files lie below .lab/ and run from there, the Python one with the
interpreter of its own release. What that compiles is kept there: it takes four times as long as the
rest of a start.
"""

import fcntl
import os
import stat
import subprocess
from pathlib import Path

from testing.debian import Apt, candidate, extract_one, say
from testing.projects import LAB

RELEASE = "bookworm"
NOT_NEEDED = frozenset(
    {
        "libc6",
        "gcc-12-base",
        "libgcc-s1",
        "dpkg",
        "tar",
        "debconf",
        "openssl",
        "ca-certificates",
        "lsb-release",
    }
)
"""What docker-compose 1.29 depends on and every machine has, or only maintainer scripts need."""
WRAPPER = """#!/bin/sh
# docker-compose 1.29 with the Python and the libraries of its own Debian release
root={root}
for folder in "$root"/usr/lib/*-linux-gnu; do :; done
exec env -u PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX="$root/bytecode" \\
	PYTHONHOME="$root/usr" PYTHONPATH="$root/usr/lib/python3/dist-packages" \\
	LD_LIBRARY_PATH="$folder:$root/lib/${{folder##*/}}" "$root/usr/bin/python3.11" "$root/usr/bin/docker-compose" "$@"
"""


def old_docker() -> Path:
    """The path of a docker client 20.10 (Debian's docker.io of bookworm), fetched once."""
    with _alone():
        target = LAB / "docker" / "20.10" / "docker"
        if not target.exists():
            apt = Apt(LAB / "apt", RELEASE)
            [deb] = apt.download({"docker.io": candidate(apt, "docker.io")})
            extract_one(deb, "usr/bin/docker", target)
            say(f"docker 20.10 is {target}")
        return target


def old_compose() -> Path:
    """The path of a docker-compose 1.29.2 that runs by itself, fetched once."""
    with _alone():
        root = LAB / "compose-1.29"
        target = root / "docker-compose"
        if not target.exists():
            apt = Apt(LAB / "apt", RELEASE)
            packages = {
                name: v
                for name, v in apt.closure(["docker-compose"]).items()
                if name not in NOT_NEEDED
            }
            for deb in apt.download(packages):
                subprocess.run(["dpkg-deb", "--extract", str(deb), str(root)], check=True)
        wrapper = WRAPPER.format(root=_quoted(root))
        if not target.exists() or target.read_text(encoding="utf-8") != wrapper:
            partial = root / f".docker-compose.{os.getpid()}"
            partial.write_text(wrapper, encoding="utf-8")
            partial.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
            partial.rename(target)
            say(f"docker-compose 1.29 is {target}")
        return target


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"


class _alone:
    """One at a time, other test workers included."""

    def __enter__(self) -> None:
        LAB.mkdir(exist_ok=True)
        self._file = (LAB / "oldclients.lock").open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()
