"""Build look-alikes of the images that the tests and the example use, from Debian packages, without any registry.

An image is two layers: the packages' files, merged straight from the .debs without running a maintainer script, and
our own few files (entrypoint, accounts, folders). It goes to the engine as a `docker save` archive through
`docker load`, since `docker import` of engine 20.10 refuses STOPSIGNAL. The names are those of the real images, so that
rules about images see what they would see in production; the label LABEL tells ours from real ones.
"""

import gzip
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from debian import Apt, say

LABEL = "safe-compose.lab"
FORMAT = 1
"""Part of each image's identity: raise it when the same recipe has to give another image."""

ROOTFS = Path(__file__).resolve().parent / "rootfs"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


BASE = _words(
    "base-files bash bsdutils coreutils debianutils diffutils dash findutils gosu grep gzip hostname libc-bin mawk "
    "ncurses-base sed tar tzdata util-linux xz-utils zstd"
)


@dataclass(frozen=True, slots=True)
class Release:
    """A Debian release: all packages of an image come from one, so that they fit each other."""

    name: str
    postgres: int
    """The major version of its PostgreSQL."""
    needless: tuple[str, ...]
    """What the packages depend on for their maintainer scripts or for parts that are left out (the JIT compiler)."""

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
    _words(
        "adduser debconf dpkg gcc-12-base init-system-helpers install-info libc-l10n libfile-find-rule-perl "
        "libgdbm-compat4 libgdbm6 libjson-perl libllvm14 libnumber-compare-perl libpam-modules libpam-modules-bin "
        "libperl5.36 libsemanage-common libsemanage2 libsepol2 libtext-glob-perl libz3-4 locales login lsb-base mariadb-common "
        "mysql-common netbase openssl perl perl-modules-5.36 postgresql-client-common postgresql-common readline-common "
        "sensible-utils ssl-cert sysvinit-utils ucf usrmerge util-linux-extra"
    ),
)
"""Its packages are PostgreSQL 15, MariaDB 10.11 and Redis 7.0."""

_NEEDLESS = (
    "adduser base-passwd debconf init-system-helpers libc-gconv-modules-extra libc-l10n libdebconfclient0 libgdbm-compat4t64 "
    "libgdbm6t64 libjson-perl libncursesw6 libpam-modules libpam-modules-bin libpam-runtime libsemanage-common libsemanage2 "
    "libsepol2 libtext-charwidth-perl libtext-wrapi18n-perl locales login.defs netbase openssl openssl-provider-legacy perl "
    "postgresql-client-common postgresql-common procps readline-common sensible-utils ssl-cert sysvinit-utils ucf "
)
TRIXIE = Release(
    "trixie",
    17,
    _words(
        _NEEDLESS + "gcc-14-base libio-pty-perl libipc-run-perl liblastlog2-2 libllvm19 libperl5.40 libproc2-0 libsqlite3-0 "
        "libz3-4 perl-modules-5.40 postgresql-common-dev"
    ),
)
FORKY = Release(
    "forky",
    18,
    _words(_NEEDLESS + "gcc-16-base libperl5.42 libproc2-1 libsystemd-shared perl-modules-5.42 systemd"),
)

MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Folders that are links into /usr on today's Debian; packages of bookworm still ship files below the old names."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or link of ours. A folder's `mode` has the type bits of none; `link` makes it a symlink."""

    content: bytes | None = None
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image: the packages it is made of, our own files, and its configuration as `docker inspect` shows it."""

    name: str
    packages: tuple[str, ...]
    entries: Mapping[str, Entry]
    config: Mapping[str, object]
    only: tuple[str, ...] = ()
    """Take just these files of the packages, and of their dependencies none."""
    edits: Mapping[str, tuple[bytes, bytes]] = field(default_factory=dict)
    """path -> (old, new): replaced in a packaged file."""
    release: Release = BOOKWORM

    def identity(self) -> str:
        """The hash of all that decides what the image contains, but for the packages' versions."""
        facts = asdict(self)
        del facts["release"]
        origin = [self.release.name, self.release.needless, self.release.unwanted]
        text = json.dumps([FORMAT, *origin, facts], default=repr, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _script(name: str) -> Entry:
    return Entry((ROOTFS / name).read_bytes(), 0o755)


def _folder(mode: int = 0o755, uid: int = 0, gid: int | None = None) -> Entry:
    return Entry(None, mode, (uid, uid if gid is None else gid))


def _text(text: str) -> Entry:
    return Entry(text.encode())


def _debian(*accounts: tuple[str, int, str, str]) -> dict[str, Entry]:
    """The frame of a Debian file system with accounts (name, uid = gid, home, shell)."""
    passwd = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    group = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"
    for name, uid, home, shell in accounts:
        passwd += f"{name}:x:{uid}:{uid}::{home}:{shell}\n"
        group += f"{name}:x:{uid}:\n"
    return {
        **{folder: Entry(link=f"usr/{folder}") for folder in ("bin", "sbin", "lib", "lib64")},
        "etc/passwd": _text(passwd),
        "etc/group": _text(group),
        "etc/nsswitch.conf": _text("passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"),
        "etc/localtime": Entry(link="/usr/share/zoneinfo/Etc/UTC"),
        "usr/bin/awk": Entry(link="mawk"),
        "usr/bin/which": Entry(link="which.debianutils"),
        "root": _folder(0o700),
        "run": _folder(),
        "tmp": _folder(0o1777),
        "var/tmp": _folder(0o1777),
        "var/run": Entry(link="/run"),
        "docker-entrypoint-initdb.d": _folder(),
    }


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _postgres(release: Release) -> Recipe:
    """As the official images are: from 18 on the volume is the folder above that of the version (docker-library/postgres)."""
    major = release.postgres
    pgdata = "/var/lib/postgresql/data" if major < 18 else f"/var/lib/postgresql/{major}/docker"
    volume = "/var/lib/postgresql/data" if major < 18 else "/var/lib/postgresql"
    return Recipe(
        name=f"postgres:{major}",
        packages=(f"postgresql-{major}", f"postgresql-client-{major}", "libnss-wrapper", *BASE),
        entries={
            **_debian(("postgres", 999, "/var/lib/postgresql", "/bin/bash")),
            "usr/local/bin/docker-entrypoint.sh": _script("postgres-entrypoint.sh"),
            "run/postgresql": _folder(0o3777, 999),
            "var/lib/postgresql": _folder(0o755 if major < 18 else 0o1777, 999),
            **({"var/lib/postgresql/data": _folder(0o1777, 999)} if major < 18 else {}),
        },
        edits={
            f"usr/share/postgresql/{major}/postgresql.conf.sample": (
                b"#listen_addresses = 'localhost'",
                b"listen_addresses = '*'",
            )
        },
        config={
            "Env": [
                f"PATH={PATH}:/usr/lib/postgresql/{major}/bin",
                "LANG=C.UTF-8",
                f"PG_MAJOR={major}",
                f"PGDATA={pgdata}",
            ],
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["postgres"],
            "ExposedPorts": {"5432/tcp": {}},
            "Volumes": {volume: {}},
            "StopSignal": "SIGINT",
        },
        release=release,
    )


POSTGRES = _postgres(BOOKWORM)

BOT = Recipe(
    name="dating-bot:latest",
    packages=POSTGRES.packages,
    entries={
        **_debian(("app", 1000, "/app", "/bin/bash")),
        "usr/local/bin/dating-bot": _script("bot-entrypoint.sh"),
        "app": _folder(0o755, 1000),
        "app/photos": _folder(0o750, 1000),
    },
    edits=POSTGRES.edits,
    config={
        "Env": [f"PATH={PATH}:/usr/lib/postgresql/15/bin", "LANG=C.UTF-8", "PHOTO_DIR=/app/photos"],
        "Entrypoint": ["dating-bot"],
        "User": "1000:1000",
        "WorkingDir": "/app",
    },
)

REDIS = Recipe(
    name="redis:7",
    packages=("redis-server", "redis-tools", *BASE),
    entries={
        **_debian(("redis", 999, "/data", "/bin/sh")),
        "usr/local/bin/docker-entrypoint.sh": _script("redis-entrypoint.sh"),
        "data": _folder(0o755, 999),
    },
    config={
        "Env": [f"PATH={PATH}", "REDIS_VERSION=7.0.15"],
        "Entrypoint": ["docker-entrypoint.sh"],
        # As in the official image, protected mode is off because only the container's network reaches it.
        "Cmd": ["redis-server", "--protected-mode", "no"],
        "ExposedPorts": {"6379/tcp": {}},
        "Volumes": {"/data": {}},
        "WorkingDir": "/data",
    },
)

MARIADB = Recipe(
    name="mariadb:10.11",
    packages=("mariadb-server-core", "mariadb-client-core", "mariadb-client", "mariadb-backup", "perl-base", *BASE),
    entries={
        **_debian(("mysql", 999, "/var/lib/mysql", "/bin/sh")),
        "usr/local/bin/docker-entrypoint.sh": _script("mariadb-entrypoint.sh"),
        "etc/mysql/my.cnf": _text("[client-server]\nsocket = /run/mysqld/mysqld.sock\n[mariadbd]\nskip-name-resolve\n"),
        "run/mysqld": _folder(0o1777, 999),
        "var/lib/mysql": _folder(0o1777, 999),
    },
    config={
        "Env": [f"PATH={PATH}", "LANG=C.UTF-8", "MARIADB_VERSION=10.11"],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["mariadbd"],
        "ExposedPorts": {"3306/tcp": {}},
        "Volumes": {"/var/lib/mysql": {}},
    },
)

BUSYBOX_APPLETS = _words(
    "[ awk basename cat chmod chown cp cut date dd df dirname du echo env expr false find grep gunzip gzip head hostname id "
    "kill ln ls md5sum mkdir mkfifo mknod mktemp mv nc od printf ps pwd readlink rm rmdir sed seq sh sha256sum sleep sort "
    "stat sync tail tar tee test touch tr true uname uniq vi wc wget which xargs yes zcat"
)


def _busybox(*accounts: tuple[str, int]) -> dict[str, Entry]:
    lines = [("root", 0), *accounts] if ("nobody", 65534) in accounts else [("root", 0), *accounts, ("nobody", 65534)]
    return {
        "etc/passwd": _text("".join(f"{name}:x:{uid}:{uid}::/:/bin/sh\n" for name, uid in lines)),
        "etc/group": _text("".join(f"{name}:x:{uid}:\n" for name, uid in lines)),
        "tmp": _folder(0o1777),
        **{f"bin/{applet}": Entry(link="busybox") for applet in BUSYBOX_APPLETS},
    }


BUSYBOX = Recipe(
    name="busybox:latest",
    packages=("busybox-static",),
    only=("bin/busybox",),
    entries=_busybox(),
    config={"Env": [f"PATH={PATH}"], "Cmd": ["sh"]},
)


def _sqlite(*statements: str) -> bytes:
    """The bytes of a fresh SQLite database."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.db"
        connection = sqlite3.connect(path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
        return path.read_bytes()


def _standin(
    name: str,
    folder: str,
    uid: int,
    seed: Mapping[str, bytes],
    *,
    mode: int = 0o755,
    entrypoint: Sequence[str] = ("/entrypoint.sh",),
    **config: object,
) -> Recipe:
    """An image that fills `folder` with `seed` once and waits; the data folder belongs to `uid` as in the real image."""
    share = "usr/share/standin"
    entries: dict[str, Entry] = {
        **_busybox(*([("service", uid)] if uid else [])),
        entrypoint[0].lstrip("/"): _script("standin-entrypoint.sh"),
        f"{share}/name": _text(name),
        f"{share}/folder": _text(folder),
        f"{share}/data": _folder(),
    }
    if uid:
        entries[folder.lstrip("/")] = _folder(mode, uid, 0 if name.startswith("grafana/grafana") else uid)
        config["User"] = str(uid)
    for path, content in seed.items():
        entries[f"{share}/data/{path}"] = Entry(content)
    return Recipe(
        name=name,
        packages=("busybox-static",),
        only=("bin/busybox",),
        entries=entries,
        config={"Env": [f"PATH={PATH}"], "Entrypoint": list(entrypoint), **config},
    )


_BLOCK = "01J9ZT5V0Q8M3X4N7B6C2D1E0F"
STANDINS = (
    _standin(
        "traefik:v2.10",
        "/letsencrypt",
        0,
        {
            "acme.json": json.dumps(
                {
                    "le": {
                        "Account": {"Email": "ops@example.org", "KeyType": "4096", "PrivateKey": "bm90IGEga2V5"},
                        "Certificates": [
                            {"domain": {"main": "dating.example.org"}, "certificate": "bm90IGEgY2VydA==", "Store": "default"}
                        ],
                    }
                },
                indent=2,
            ).encode()
        },
        Cmd=["traefik"],
        ExposedPorts={"80/tcp": {}},
    ),
    _standin(
        "prom/prometheus:latest",
        "/prometheus",
        65534,
        {
            "wal/00000000": bytes(range(256)) * 512,
            "chunks_head/000001": b"\x01\x30\xbc\x91" + bytes(4096),
            f"{_BLOCK}/meta.json": json.dumps({"ulid": _BLOCK, "minTime": 0, "maxTime": 7200000, "version": 1}).encode(),
            f"{_BLOCK}/index": b"\xba\xaa\xd7\x00\x02" + bytes(2048),
            f"{_BLOCK}/chunks/000001": b"\x85\xbd\x40\xdd\x01" + bytes(8192),
            f"{_BLOCK}/tombstones": b"\x01\x30\xba\x30\x01" + bytes(4),
            "queries.active": bytes(20001),
            "lock": b"",
        },
        entrypoint=("/bin/prometheus",),
        Cmd=["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"],
        ExposedPorts={"9090/tcp": {}},
        Volumes={"/prometheus": {}},
        WorkingDir="/prometheus",
    ),
    _standin(
        "grafana/grafana:latest",
        "/var/lib/grafana",
        472,
        {
            "grafana.db": _sqlite(
                "CREATE TABLE dashboard (id INTEGER PRIMARY KEY, title TEXT NOT NULL)",
                "INSERT INTO dashboard (title) VALUES ('Likes per minute'), ('Photos')",
            ),
            "plugins/.keep": b"",
            "png/.keep": b"",
        },
        mode=0o777,
        entrypoint=("/run.sh",),
        ExposedPorts={"3000/tcp": {}},
        WorkingDir="/usr/share/grafana",
    ),
    _standin(
        "grafana/loki:latest",
        "/loki",
        10001,
        {
            "chunks/ZmFrZS8xOjE6Mg==": gzip.compress(b"2026-07-01 bot: 3 users\n" * 500, mtime=0),
            "tsdb-shipper-active/uploader/name": b"loki-1730000000",
            "wal/00000000": bytes(32768),
            "rules/.keep": b"",
        },
        entrypoint=("/usr/bin/loki",),
        Cmd=["-config.file=/etc/loki/local-config.yaml"],
        ExposedPorts={"3100/tcp": {}},
    ),
)

SQLITE = Recipe(
    name="lab-sqlite:latest",
    packages=("python3.11-minimal", "libpython3.11-stdlib", "sqlite3", *BASE),
    entries={
        **_debian(("app", 1000, "/app", "/bin/bash")),
        "usr/bin/python3": Entry(link="python3.11"),
        "app": _folder(0o755, 1000),
        "app/state": _folder(0o755, 1000),
    },
    config={"Env": [f"PATH={PATH}"], "Cmd": ["python3"], "User": "1000:1000", "WorkingDir": "/app"},
)
"""An application's image with both programs that can copy a SQLite database."""

RECIPES = (POSTGRES, BUSYBOX, BOT, *STANDINS, REDIS, MARIADB)
SELDOM = (_postgres(TRIXIE), _postgres(FORKY), SQLITE)
"""Made only when they are asked for by name: few tests need them."""


def _merged(path: str) -> str:
    """`./lib/x` of a package as it lies in the image: `usr/lib/x`."""
    path = path.removeprefix("./").rstrip("/")
    top, slash, _ = path.partition("/")
    return f"usr/{path}" if slash and top in MERGED else path


def _members(deb: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as unpack:
        assert unpack.stdout is not None
        with tarfile.open(fileobj=unpack.stdout, mode="r|") as packed:
            for member in packed:
                yield member, packed
        unpack.stdout.read()  # the padding after the end marker, so that dpkg-deb does not die of a closed pipe
    if unpack.returncode:
        raise subprocess.CalledProcessError(unpack.returncode, "dpkg-deb")


def packages_layer(recipe: Recipe, apt: Apt, cache: Path) -> Path:
    """Return the layer of the packages' files, made once and kept below `cache`/layers."""
    if recipe.only:
        wanted = {name: version for name, version in apt.closure(recipe.packages).items() if name in recipe.packages}
    else:
        wanted = {name: version for name, version in apt.closure(recipe.packages).items() if name not in recipe.release.needless}
    merge = not recipe.only
    key = json.dumps([FORMAT, wanted, recipe.only, recipe.release.unwanted, repr(recipe.edits)])
    layer = cache / "layers" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.tar"
    if layer.exists():
        return layer
    debs = apt.download(wanted)
    layer.parent.mkdir(parents=True, exist_ok=True)
    partial = layer.with_suffix(f".{os.getpid()}")
    seen: set[str] = set(MERGED) if merge else set()
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as out:
        for deb in debs:
            for member, packed in _members(deb):
                path = _merged(member.name) if merge else member.name.removeprefix("./")
                if not path or path == "." or path in seen or (recipe.only and path not in recipe.only):
                    continue
                if f"{path}/".startswith(recipe.release.unwanted) or path.startswith(recipe.release.unwanted):
                    continue
                seen.add(path)
                source = packed.extractfile(member) if member.isfile() else None
                member.name = path
                if member.islnk():
                    member.linkname = _merged(member.linkname)
                if source is not None and path in recipe.edits:
                    old, new = recipe.edits[path]
                    content = source.read()
                    if old not in content:
                        raise ValueError(f"{path} of {deb.name} does not contain {old!r}")
                    content = content.replace(old, new)
                    member.size, source = len(content), io.BytesIO(content)
                out.addfile(member, source)
    return partial.rename(layer)


def own_layer(recipe: Recipe, path: Path) -> Path:
    """Write the layer with our own files, always the same bytes for the same recipe."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as out:
        made: set[str] = set()
        for name, entry in recipe.entries.items():
            for parent in reversed(Path(name).parents[:-1]):
                if str(parent) not in made and str(parent) not in recipe.entries and name.startswith("usr/share/standin"):
                    folder = tarfile.TarInfo(str(parent))
                    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                    out.addfile(folder)
                    made.add(str(parent))
            info = tarfile.TarInfo(name)
            info.mode = entry.mode
            info.uid, info.gid = entry.owner
            if entry.link is not None:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
                out.addfile(info)
            elif entry.content is None:
                info.type = tarfile.DIRTYPE
                out.addfile(info)
            else:
                info.size = len(entry.content)
                out.addfile(info, io.BytesIO(entry.content))
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _architecture() -> str:
    command = ["dpkg", "--print-architecture"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def load(recipe: Recipe, layers: Sequence[Path]) -> None:
    """Hand the image to the engine as a `docker save` archive on docker's stdin."""
    digests = [_sha256(layer) for layer in layers]
    image = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {**recipe.config, "Labels": {LABEL: recipe.identity()}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tests/lab"} for _ in digests],
        },
        sort_keys=True,
    ).encode()
    config_name = f"{hashlib.sha256(image).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [recipe.name], "Layers": [f"{digest}/layer.tar" for digest in digests]}]
    docker = ["docker", "load", "--quiet"]
    with subprocess.Popen(docker, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as loading:
        assert loading.stdin is not None
        with tarfile.open(fileobj=loading.stdin, mode="w|", format=tarfile.GNU_FORMAT) as out:
            for name, content in ((config_name, image), ("manifest.json", json.dumps(manifest).encode())):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                out.addfile(info, io.BytesIO(content))
            for digest, layer in zip(digests, layers, strict=True):
                info = tarfile.TarInfo(f"{digest}/layer.tar")
                info.size = layer.stat().st_size
                with layer.open("rb") as stream:
                    out.addfile(info, stream)
        loading.stdin.close()
    if loading.returncode:
        raise subprocess.CalledProcessError(loading.returncode, docker)


def present(recipe: Recipe) -> bool:
    """Is an image of that name there, a real one or ours of this very recipe?"""
    template = f'{{{{with .Config.Labels}}}}{{{{index . "{LABEL}"}}}}{{{{end}}}}'
    answer = subprocess.run(
        ["docker", "image", "inspect", "--format", template, recipe.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return answer.returncode == 0 and answer.stdout.strip() in ("", recipe.identity())


def pulled(recipe: Recipe) -> bool:
    """Try for the real image, when asked to; an engine without a way to the registry may hang, so not for long."""
    if os.environ.get("SAFE_COMPOSE_LAB_PULL") != "1" or recipe in (BOT, SQLITE):
        return False
    say(f"pulling {recipe.name}")
    try:
        return subprocess.run(["docker", "pull", "--quiet", recipe.name], timeout=120).returncode == 0
    except subprocess.TimeoutExpired:
        say(f"no {recipe.name} from a registry after 120 s: building a look-alike")
        return False


def main(cache: Path, names: Sequence[str]) -> int:
    """Make sure of the usual images and of those named."""
    sources: dict[str, Apt] = {}
    for recipe in (*RECIPES, *(r for r in SELDOM if r.name in names)):
        if present(recipe) or pulled(recipe):
            continue
        say(f"building a look-alike of {recipe.name} from Debian packages")
        apt = sources.setdefault(recipe.release.name, Apt(cache / "apt", recipe.release.name))
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            load(recipe, [packages_layer(recipe, apt, cache), own_layer(recipe, Path(folder) / "own.tar")])
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
