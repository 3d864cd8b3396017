"""Which volumes matter: every rule as a row of a table."""

from dataclasses import replace

import pytest

from safe_compose.core.known_images import parse_image_name
from safe_compose.core.observed import (
    PROJECT_LABEL,
    VOLUME_LABEL,
    WORKING_DIR_LABEL,
    Container,
    DeclaredMount,
    DeclaredVolume,
    Mount,
    Observed,
    Project,
    Volume,
)
from safe_compose.core.policy import Rule, find_other_project, judge
from safe_compose.core.tier import Tier
from safe_compose.engine.compose_document import service_mounts

CRITICAL, IMPORTANT, DISPOSABLE = Tier
SHOP = Project("shop", "folder", "config", working_dir="/srv/shop")


def volume(name: str = "shop_data", project: str | None = "shop", key: str | None = None) -> Volume:
    labels = {PROJECT_LABEL: project} if project else {}
    return Volume(name, labels=labels | ({VOLUME_LABEL: key} if key else {}))


def user(
    image: str,
    path: str,
    *,
    of: str = "shop_data",
    read_only: bool = False,
    project: str | None = "shop",
    folder: str = "/srv/shop",
    environment: dict[str, str] | None = None,
) -> Container:
    labels = {PROJECT_LABEL: project, WORKING_DIR_LABEL: folder} if project else {}
    mount = Mount("volume", of, "", path, read_only)
    return Container(
        "c1",
        "c-1",
        image,
        "sha256:1",
        "running",
        labels=labels,
        mounts=(mount,),
        environment=environment or {},
    )


def seen(*users: Container, project: Project | None = SHOP) -> Observed:
    return Observed("unix:///x", "engine", containers=users, project=project)


@pytest.mark.parametrize(
    ("name", "image", "path", "tier", "kind", "why"),
    [
        ("postgres_data", "postgres:15", "/var/lib/postgresql/data", CRITICAL, "postgres",
         "image postgres:15 mounts it at its data directory"),
        ("photo_storage", "dating-bot:latest", "/app/photos", CRITICAL, "files",
         "mounted at /app/photos of image dating-bot:latest: photos"),
        ("traefik_certs", "traefik:v3.0", "/letsencrypt", IMPORTANT, "certificates",
         "image traefik:v3.0 mounts it at the place of its certificates"),
        ("prometheus_data", "prom/prometheus:v2.50.0", "/prometheus", DISPOSABLE, "metrics",
         "image prom/prometheus:v2.50.0 mounts it at the place of its metrics"),
        ("grafana_data", "grafana/grafana:10.0.0", "/var/lib/grafana", DISPOSABLE, "metrics",
         "image grafana/grafana:10.0.0 mounts it at the place of its dashboards' state"),
        ("loki_data", "grafana/loki:2.9.0", "/loki", DISPOSABLE, "logs",
         "image grafana/loki:2.9.0 mounts it at the place of its logs"),
    ],
)  # fmt: skip
def test_the_six_volumes_of_the_example(
    name: str, image: str, path: str, tier: Tier, kind: str, why: str
) -> None:
    verdict = judge(
        volume(f"dating_{name}"), seen(user(image, path, of=f"dating_{name}")), (), None
    )
    assert (verdict.tier, verdict.kind, verdict.why, verdict.explicit) == (tier, kind, why, False)


@pytest.mark.parametrize(
    ("image", "path", "tier", "kind"),
    [
        ("postgres@sha256:" + "a" * 64, "/var/lib/postgresql/data", CRITICAL, "postgres"),
        ("registry.example:5000/team/postgres:15@sha256:00", "/var/lib/postgresql/data/", CRITICAL, "postgres"),
        ("localhost/postgres", "/var/lib/postgresql/data", CRITICAL, "postgres"),
        ("postgres:18", "/var/lib/postgresql", CRITICAL, "postgres"),
        ("postgres:15", "/var/lib/postgresql/data/pg_wal", CRITICAL, "postgres"),
        ("postgis/postgis:16-3.4", "/var/lib/postgresql/data", CRITICAL, "postgres"),
        ("timescale/timescaledb:latest-pg16", "/var/lib/postgresql/data", CRITICAL, "postgres"),
        ("pgvector/pgvector:pg16", "/var/lib/postgresql/data", CRITICAL, "postgres"),
        ("bitnami/postgresql:16", "/bitnami/postgresql", CRITICAL, "postgres"),
        ("supabase/postgres:15", "/var/lib/postgresql/data", CRITICAL, "postgres"),
        ("mysql:8", "/var/lib/mysql", CRITICAL, "mysql"),
        ("percona/percona-server:8.0", "/var/lib/mysql", CRITICAL, "mysql"),
        ("mariadb:11", "/var/lib/mysql", CRITICAL, "mariadb"),
        ("mongo:7", "/data/db", CRITICAL, "mongodb"),
        ("mongo:7", "/data/configdb", CRITICAL, "mongodb"),
        ("redis:7-alpine", "/data", CRITICAL, "redis"),
        ("valkey/valkey:8", "/data", CRITICAL, "redis"),
        ("eqalpha/keydb", "/data", CRITICAL, "redis"),
        ("docker.elastic.co/elasticsearch/elasticsearch:8.12.0", "/usr/share/elasticsearch/data", CRITICAL, "elasticsearch"),
        ("opensearchproject/opensearch:2", "/usr/share/opensearch/data", CRITICAL, "opensearch"),
        ("influxdb:2", "/var/lib/influxdb2", CRITICAL, "influxdb"),
        ("clickhouse/clickhouse-server", "/var/lib/clickhouse", CRITICAL, "clickhouse"),
        ("cassandra:5", "/var/lib/cassandra", CRITICAL, "cassandra"),
        ("couchdb:3", "/opt/couchdb/data", CRITICAL, "couchdb"),
        ("neo4j:5", "/data", CRITICAL, "neo4j"),
        ("minio/minio", "/data", CRITICAL, "files"),
        ("rabbitmq:3-management", "/var/lib/rabbitmq", CRITICAL, "rabbitmq"),
        ("nextcloud:29", "/var/www/html", CRITICAL, "files"),
        ("gitea/gitea:1", "/data", CRITICAL, "files"),
        ("vaultwarden/server:1.32", "/data", CRITICAL, "sqlite"),
        ("caddy:2", "/data", IMPORTANT, "certificates"),
        ("certbot/certbot", "/etc/letsencrypt", IMPORTANT, "certificates"),
        ("nginx:1", "/etc/letsencrypt", IMPORTANT, "certificates"),
        ("nginx:1", "/etc/nginx/certs", IMPORTANT, "certificates"),
        ("myapp", "/app/uploads/certs", CRITICAL, "files"),
        ("quay.io/prometheus/prometheus:v3", "/prometheus", DISPOSABLE, "metrics"),
        ("somebody/prometheus", "/prometheus", CRITICAL, "unknown"),
        ("prom/prometheus", "/somewhere", CRITICAL, "unknown"),
        ("prom/prometheus", "/", CRITICAL, "unknown"),
        ("grafana/grafana", "/var/lib", CRITICAL, "unknown"),
        ("somebody/memcached", "/var/lib/varnish", CRITICAL, "unknown"),
        ("nginx:1", "/var/log/nginx", DISPOSABLE, "logs"),
        ("nginx:1", "/var/cache/nginx", DISPOSABLE, "cache"),
        ("node:22", "/app/node_modules", DISPOSABLE, "cache"),
        ("myapp", "/tmp", DISPOSABLE, "cache"),
        ("myapp", "/tmp/work", CRITICAL, "unknown"),
        ("myapp", "/app/cache", CRITICAL, "unknown"),
        ("myapp", "/app/logs", CRITICAL, "unknown"),
        ("myapp", "/var/lib/postgresql/data", CRITICAL, "postgres"),
        ("sha256:" + "b" * 64, "/var/lib/mysql", CRITICAL, "mysql"),
        ("postgres:15", "/srv/anything", CRITICAL, "unknown"),
        ("myapp", "/data", CRITICAL, "unknown"),
    ],
)  # fmt: skip
def test_an_image_and_a_path_decide(image: str, path: str, tier: Tier, kind: str) -> None:
    verdict = judge(volume(), seen(user(image, path)), (), None)
    assert (verdict.tier, verdict.kind) == (tier, kind)


def test_a_moved_pgdata_is_found() -> None:
    moved = user("postgres:15", "/srv/pg", environment={"PGDATA": "/srv/pg/main"})
    assert judge(volume(), seen(moved), (), None).kind == "postgres"


@pytest.mark.parametrize(
    ("users", "tier", "kind"),
    [
        # a metrics container that also mounts the database makes nothing disposable
        ([("postgres:15", "/var/lib/postgresql/data", False), ("prom/prometheus", "/prometheus", False)], CRITICAL, "postgres"),
        ([("prom/prometheus", "/prometheus", False), ("postgres:15", "/var/lib/postgresql/data", False)], CRITICAL, "postgres"),
        ([("prom/prometheus", "/prometheus", False), ("offen/backup", "/backup/prometheus", True)], DISPOSABLE, "metrics"),
        ([("prom/prometheus", "/prometheus", False), ("reader", "/in", True)], DISPOSABLE, "metrics"),
        ([("prom/prometheus", "/prometheus", False), ("writer", "/out", False)], CRITICAL, "unknown"),
        ([("nginx", "/var/cache/nginx", False), ("writer", "/out", False)], CRITICAL, "unknown"),
        ([("traefik", "/letsencrypt", False), ("dumper", "/in", True)], IMPORTANT, "certificates"),
    ],
)  # fmt: skip
def test_the_strictest_of_all_users_decides(
    users: list[tuple[str, str, bool]], tier: Tier, kind: str
) -> None:
    observed = seen(*(user(image, path, read_only=ro) for image, path, ro in users))
    verdict = judge(volume(), observed, (), None)
    assert (verdict.tier, verdict.kind) == (tier, kind)


def test_declared_mounts_count_when_the_containers_are_gone() -> None:
    project = replace(
        SHOP, mounts=(DeclaredMount("prom", "prom/prometheus", "shop_data", "/prometheus"),)
    )
    assert judge(volume(), seen(project=project), (), None).tier is DISPOSABLE


@pytest.mark.parametrize(
    ("image", "path"),
    [("prom/prometheus", "/prometheus"), ("app", "/tmp"), ("traefik", "/letsencrypt")],
)
def test_a_folder_of_a_volume_says_nothing_that_would_lower_the_rest(image: str, path: str) -> None:
    whole, part = (
        Mount("volume", "shop_data", "", path),
        Mount("volume", "shop_data", "", path, subpath="part"),
    )
    mounts = {
        part: DeclaredMount("one", image, "shop_data", path, subpath=part) for part in ("", "part")
    }
    declared = {part: replace(SHOP, mounts=(mount,)) for part, mount in mounts.items()}
    for observed in (
        seen(replace(user(image, path), mounts=(part,))),
        seen(project=declared["part"]),
    ):
        verdict = judge(volume(), observed, (), ("part", "orders"))
        assert (verdict.tier, verdict.kind, verdict.looks) == (CRITICAL, "unknown", ())
    for observed in (seen(replace(user(image, path), mounts=(whole,))), seen(project=declared[""])):
        assert judge(volume(), observed, (), ("part", "orders")).tier is not CRITICAL
    data = "/var/lib/postgresql/data"
    database = replace(user("postgres:17", data), mounts=(replace(part, destination=data),))
    assert judge(volume(), seen(database), (), ("part",)).kind == "postgres"


def test_the_folder_of_a_volume_that_a_service_mounts_is_read() -> None:
    long = {"type": "volume", "source": "data", "target": "/p", "volume": {"subpath": "./part/"}}
    body = {
        "volumes": [
            long,
            {**long, "volume": {}},
            {**long, "volume": {"subpath": "."}},
            "data:/q:ro",
        ]
    }
    assert list(service_mounts(body)) == [
        ("data", "/p", "part"),
        ("data", "/p", ""),
        ("data", "/p", ""),
        ("data", "/q", ""),
    ]


@pytest.mark.parametrize(
    ("content", "tier", "kind", "why"),
    [
        (("PG_VERSION", "base"), CRITICAL, "postgres", "it holds PG_VERSION: postgres data"),
        (("ibdata1",), CRITICAL, "mysql", "it holds ibdata1: mysql data"),
        (("mysql",), CRITICAL, "mysql", "it holds mysql: mysql data"),
        (("dump.rdb",), CRITICAL, "redis", "it holds dump.rdb: redis data"),
        (("appendonlydir",), CRITICAL, "redis", "it holds appendonlydir: redis data"),
        (("WiredTiger",), CRITICAL, "mongodb", "it holds WiredTiger: mongodb data"),
        (("a.txt", "app.sqlite3"), CRITICAL, "sqlite", "it holds app.sqlite3: a SQLite database"),
        (("app.db",), CRITICAL, "sqlite", "it holds app.db: a SQLite database"),
        (("notes.txt",), CRITICAL, "unknown", "nobody here knows what is in it (no container uses it)"),
        ((), DISPOSABLE, "unknown", "empty"),
        (None, CRITICAL, "unknown", "nobody here knows what is in it (no container uses it)"),
    ],
)  # fmt: skip
def test_content_decides_for_volumes_that_nobody_knows(
    content: tuple[str, ...] | None, tier: Tier, kind: str, why: str
) -> None:
    verdict = judge(volume(), seen(), (), content)
    assert (verdict.tier, verdict.kind, verdict.why) == (tier, kind, why)


@pytest.mark.parametrize(
    ("image", "path", "content", "tier"),
    [
        (
            "postgres:15",
            "/var/lib/postgresql/data",
            (),
            CRITICAL,
        ),  # known, so emptiness says nothing
        ("myapp", "/app/photos", (), CRITICAL),
        (
            "grafana/grafana",
            "/var/lib/grafana",
            ("grafana.db",),
            DISPOSABLE,
        ),  # an image rule knows it
        ("nginx", "/var/cache/nginx", ("PG_VERSION",), CRITICAL),  # only its path does
        ("myapp", "/data", (), DISPOSABLE),
        ("myapp", "/data", ("x",), CRITICAL),
    ],
)
def test_content_against_image_and_path(
    image: str, path: str, content: tuple[str, ...], tier: Tier
) -> None:
    assert judge(volume(), seen(user(image, path)), (), content).tier is tier


DATABASE = user("postgres:15", "/var/lib/postgresql/data")
METRICS = user("prom/prometheus", "/prometheus")


@pytest.mark.parametrize(
    ("users", "rules", "tier", "why"),
    [
        (DATABASE, [Rule("shop_data", DISPOSABLE, "a.toml: volumes.shop_data")], DISPOSABLE,
         "a.toml: volumes.shop_data says disposable"),
        (METRICS, [Rule("shop_*", CRITICAL, "a.toml: volumes.shop_*")], CRITICAL, "a.toml: volumes.shop_* says critical"),
        (DATABASE, [Rule("*", DISPOSABLE, "a"), Rule("shop_data", IMPORTANT, "b")], IMPORTANT, "b says important"),
        (DATABASE, [Rule("SHOP_DATA", DISPOSABLE, "a")], CRITICAL, "image postgres:15 mounts it at its data directory"),
        (METRICS, [Rule("shop_data", CRITICAL, "protect", floor=True)], CRITICAL, "protected (protect)"),
        (METRICS, [Rule("shop_data", IMPORTANT, "protect", floor=True), Rule("*", DISPOSABLE, "a")], IMPORTANT,
         "protected (protect)"),
        (DATABASE, [Rule("shop_data", IMPORTANT, "protect", floor=True)], CRITICAL,
         "image postgres:15 mounts it at its data directory"),
        (DATABASE, [Rule("sh*", DISPOSABLE, "a", of_project=True)], DISPOSABLE, "a says disposable"),
        (DATABASE, [Rule("ci-*", DISPOSABLE, "a", of_project=True)], CRITICAL,
         "image postgres:15 mounts it at its data directory"),
        (DATABASE, [Rule("*", DISPOSABLE, "a", of_project=True), Rule("shop_data", CRITICAL, "b")], CRITICAL,
         "b says critical"),
    ],
)  # fmt: skip
def test_explicit_words_beat_knowledge_both_ways(
    users: Container, rules: list[Rule], tier: Tier, why: str
) -> None:
    verdict = judge(volume(), seen(users), rules, None)
    assert (verdict.tier, verdict.why) == (tier, why)


def test_an_explicit_verdict_says_so_and_keeps_the_kind() -> None:
    verdict = judge(volume(), seen(DATABASE), [Rule("*", DISPOSABLE, "a")], None)
    assert (verdict.explicit, verdict.kind) == (True, "postgres")


@pytest.mark.parametrize(
    ("word", "tier"),
    [("disposable", DISPOSABLE), ("important", IMPORTANT), ("disposible", CRITICAL)],
)
def test_x_safe_compose_of_a_volume_counts(word: str, tier: Tier) -> None:
    project = replace(SHOP, volumes=(DeclaredVolume("data", "shop_data", tier=word),))
    verdict = judge(volume(), seen(DATABASE, project=project), (), None)
    assert (verdict.tier, verdict.explicit) == (tier, True)


def test_x_safe_compose_of_the_file_counts_for_every_volume_of_the_project() -> None:
    project = replace(SHOP, tier="disposable")
    assert judge(volume(), seen(DATABASE, project=project), (), None).tier is DISPOSABLE
    assert judge(volume(project="other"), seen(project=project), (), None).tier is CRITICAL


def test_a_compose_key_counts_within_its_project_only() -> None:
    rule = Rule("cache", DISPOSABLE, "a")
    project = replace(SHOP, volumes=(DeclaredVolume("cache", "shop_cache"),))
    assert (
        judge(volume("shop_cache", key="cache"), seen(project=project), [rule], None).tier
        is DISPOSABLE
    )
    assert (
        judge(volume("blog_cache", "blog", key="cache"), seen(project=project), [rule], None).tier
        is CRITICAL
    )


@pytest.mark.parametrize(
    ("rule", "observed", "name", "of", "tier"),
    [
        (Rule("*", DISPOSABLE, "a", own=True), seen(), "blog_data", "blog", CRITICAL),
        (Rule("*", DISPOSABLE, "a", own=True, of_project=True), seen(), "blog_data", "blog", CRITICAL),
        (Rule("blog_data", DISPOSABLE, "a", own=True), seen(), "blog_data", "blog", CRITICAL),
        (Rule("*", DISPOSABLE, "a", own=True), seen(project=None), "blog_data", "blog", CRITICAL),
        (Rule("*", DISPOSABLE, "a", own=True, of_project=True), seen(project=None), "blog_data", "blog", CRITICAL),
        (Rule("shop_data", DISPOSABLE, "a", own=True), seen(project=None), "shop_data", "shop", CRITICAL),
        (Rule("shop_data", DISPOSABLE, "a", own=True, project="shop"), seen(project=None), "shop_data", "shop", DISPOSABLE),
        (Rule("*", DISPOSABLE, "a", own=True, project="shop"), seen(), "shop_data", "shop", DISPOSABLE),
        (Rule("*", DISPOSABLE, "a", own=True, project="shop"), seen(), "shop_data", None, CRITICAL),
        (Rule("*", DISPOSABLE, "a", own=True, project="shop", only_raises=True), seen(), "shop_data", "shop", CRITICAL),
    ],
)  # fmt: skip
def test_a_project_file_never_lowers_a_volume_of_another_project(
    rule: Rule, observed: Observed, name: str, of: str | None, tier: Tier
) -> None:
    assert judge(volume(name, of), observed, [rule], None).tier is tier


def test_a_project_file_may_raise_a_volume_of_another_project() -> None:
    foreign = user("prom/prometheus", "/prometheus", project="blog")
    verdict = judge(
        volume(project="blog"), seen(foreign), [Rule("*", CRITICAL, "a", own=True)], None
    )
    assert (verdict.tier, verdict.why) == (CRITICAL, "a says critical")


@pytest.mark.parametrize(
    ("of", "observed", "expected"),
    [
        ("shop", seen(), None),
        ("blog", seen(), "blog"),
        (None, seen(), None),
        (None, seen(user("x", "/x", project="blog")), "blog"),
        ("shop", seen(user("x", "/x", folder="/srv/shop/")), None),
        ("shop", seen(user("x", "/x", folder="/home/me/shop")), "shop in /home/me/shop"),
        ("shop", seen(user("x", "/x", folder="/other"), project=replace(SHOP, mode="label")), None),
        ("shop", seen(user("x", "/x", project=None)), None),
        ("blog", seen(project=None), None),
    ],
)
def test_a_volume_of_another_project_is_named(
    of: str | None, observed: Observed, expected: str | None
) -> None:
    assert find_other_project(volume(project=of), observed) == expected


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("postgres", ("postgres",)),
        ("docker.io/library/postgres:15", ("postgres",)),
        ("localhost:5000/a/b/c@sha256:0", ("b", "c")),
        ("sha256:0", ()),
        ("", ()),
        ("///", ()),
    ],
)
def test_image_references_are_stripped(reference: str, name: tuple[str, ...]) -> None:
    assert parse_image_name(reference) == name
