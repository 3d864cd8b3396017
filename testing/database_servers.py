"""Database servers of every version and brand that the tests have, set up as the documentation of
their images says: what differs between them, so that one list of scenes fits them all.
"""

from dataclasses import dataclass, replace

from testing.projects import ComposeProject, docker

_ROWS = (
    "CREATE TABLE t (id int, what varchar(99));"
    " INSERT INTO t VALUES (1, 'grün'), (2, ''), (3, NULL);"
)


@dataclass(frozen=True)
class Server:
    """A server of one service, `db`, whose password is in `.env`."""

    image: str
    body: str
    """What its service has beside image, volume and health check."""
    folder: str
    health: str
    client: tuple[str, ...]
    """The client in the server's container, with all rights; statements come on stdin."""
    login: tuple[str, ...]
    """The client of another container, which prints `who`; it finds the password in the variables
    of each brand.
    """
    who: str
    fill: str = _ROWS
    later: str = "INSERT INTO t VALUES (4, 'later');"
    look: str = "SELECT COUNT(*), SUM(id), MAX(what) FROM t;"
    renames: bool = False
    """Can one of its databases take the place of another?"""
    rotates: bool = True
    """Does safe-compose change its password?"""
    newer: str | None = None
    """The next major version in `SERVERS`, where it can be had."""

    def compose(self) -> str:
        return f"""
services:
  db:
    image: {self.image}
    {self.body}
    volumes: ["data:{self.folder}"]
    healthcheck: {{test: {self.health}, interval: 1s, retries: 120}}
volumes: {{data: }}
"""

    def ask(self, project: ComposeProject, statements: str) -> str:
        return project.exec("db", *self.client, input=statements).strip()

    def log_in(self, project: ComposeProject, password: str) -> str:
        """What a client on the project's network gets."""
        words = ("run", "--rm", "--network", f"{project.name}_default")
        variables = ("PGPASSWORD", "MYSQL_PWD", "REDISCLI_AUTH")
        given = [word for name in variables for word in ("-e", f"{name}={password}")]
        program, *argv = self.login
        done = docker(*words, *given, "--entrypoint", program, self.image, *argv, check=False)
        return (done.stderr if done.returncode else done.stdout).strip()


def _postgres(version: int, newer: int | None) -> Server:
    return Server(
        f"postgres:{version}",
        "environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: '${PASSWORD}', POSTGRES_DB: shop}",
        "/var/lib/postgresql/data" if version < 18 else "/var/lib/postgresql",
        "[CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop]",
        ("psql", "-XqtA", "-v", "ON_ERROR_STOP=1", "-U", "shop", "-d", "shop", "-f", "-"),
        ("psql", "-h", "db", "-U", "shop", "-d", "shop", "-XtAc", "SELECT current_user"),
        "shop",
        renames=True,
        newer=None if newer is None else f"postgres {newer}",
    )


def _mysql(image: str, brand: str, program: str, health: str, newer: str | None = None) -> Server:
    login = (program, "-h", "db", "-u", "root", "-N", "--loose-skip-ssl-verify-server-cert")
    return Server(
        image,
        f"environment: {{{brand}_ROOT_PASSWORD: '${{PASSWORD}}', {brand}_DATABASE: shop,"
        f" {brand}_USER: app, {brand}_PASSWORD: app-password}}",
        "/var/lib/mysql",
        health,
        ("sh", "-c", f"MYSQL_PWD=${brand}_ROOT_PASSWORD exec {program} -uroot -N shop"),
        (*login, "-e", "SELECT SUBSTRING_INDEX(USER(), '@', 1)"),
        "root",
        newer=newer,
    )


def _key_value(image: str, program: str, newer: str | None = None) -> Server:
    """With the save points that it has by itself, as in the official images."""
    ask = f"REDISCLI_AUTH=$PASSWORD exec {program}-cli"
    return Server(
        image,
        f"environment: {{PASSWORD: '${{PASSWORD}}'}}\n"
        f"    command: [{program}-server, --requirepass, '${{PASSWORD}}']",
        "/data",
        f"[CMD-SHELL, '{ask.replace('$', '$$').replace('exec ', '')} ping | grep -q PONG']",
        ("sh", "-c", ask),
        (f"{program}-cli", "-h", "db", "PING"),
        "PONG",
        fill="SET greeting grün\nRPUSH queue a b ''\nSELECT 3\nHSET h f v",
        later="SET later x",
        look="GET greeting\nLRANGE queue 0 -1\nDBSIZE\nSELECT 3\nHGETALL h\nDBSIZE",
        rotates=False,
        newer=newer,
    )


_OWN_SYSTEM = (
    "INSERT INTO spatial_ref_sys (srid, auth_name, auth_srid, proj4text)"
    " SELECT 910101, 'shop', 1, proj4text FROM spatial_ref_sys WHERE srid = 3857;"
)
"""A row in a table of the extension's own, which a dump has to keep apart from those it came with."""


def _postgis(version: int, image: str) -> Server:
    return replace(
        _postgres(version, None),
        image=image,
        fill="CREATE EXTENSION postgis;"
        " CREATE TABLE t (id int, at geography(Point, 4326)); CREATE INDEX ON t USING gist (at);"
        f" INSERT INTO t VALUES (1, 'POINT(13.4 52.5)'), (2, 'POINT(2.3 48.9)'); {_OWN_SYSTEM}",
        later="INSERT INTO t VALUES (4, 'POINT(0 0)');",
        look="SELECT count(*), sum(id), ST_AsText(ST_Transform(ST_Collect(at::geometry), 910101))"
        " FROM t;",
    )


_PGVECTOR = replace(
    _postgres(18, None),
    image="pgvector/pgvector:pg18",
    fill="CREATE EXTENSION vector; CREATE TABLE t (id int, v vector(3));"
    " CREATE INDEX ON t USING hnsw (v vector_l2_ops);"
    " INSERT INTO t VALUES (1, '[1,2,3]'), (2, '[-1,0,0.5]');",
    later="INSERT INTO t VALUES (4, '[7,7,7]');",
    look="SELECT count(*), sum(id), max(v::text) FROM t;"
    " SET enable_seqscan = off; SELECT id FROM t ORDER BY v <-> '[1,2,2]' LIMIT 1;",
)

SERVERS = {
    **{f"postgres {version}": _postgres(version, version + 1) for version in range(13, 18)},
    "postgres 18": _postgres(18, None),
    "postgis 15": _postgis(15, "postgis/postgis:15-3.3"),
    "postgis 17": _postgis(17, "postgis/postgis:17-3.5"),
    "postgis 18": _postgis(18, "postgis/postgis:18-3.6"),
    "pgvector 18": _PGVECTOR,
    "mysql 9.7": _mysql("mysql:9.7", "MYSQL", "mysql", "[CMD, mysqladmin, ping, -h, 127.0.0.1]"),
    "mariadb 10.11": _mysql(
        "mariadb:10.11",
        "MARIADB",
        "mariadb",
        "[CMD, mariadb-admin, ping, -h, 127.0.0.1]",
        "mariadb 11.8",
    ),
    "mariadb 11.8": _mysql(
        "mariadb:11.8",
        "MARIADB",
        "mariadb",
        "[CMD, healthcheck.sh, --connect, --innodb_initialized]",
    ),
    "redis 7": _key_value("redis:7", "redis", "redis 8"),
    "redis 8": _key_value("redis:8", "redis"),
    "valkey 9.1": _key_value("valkey/valkey:9.1", "valkey"),
}
