"""What counts as disposable holds nothing of a person's work: each such volume is looked into
before it passes.
"""

import io
import json
import re
import sqlite3
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.known_images import ROOT
from safe_compose.core.observed import PROJECT_LABEL, Container, Mount, Observed, Project, Volume
from safe_compose.core.policy import judge
from safe_compose.core.tier import Tier
from safe_compose.databases import irreplaceable
from safe_compose.databases.irreplaceable import COUNTS, describe_user_content, read_ulid_time
from safe_compose.databases.sqlite.check import Checker
from safe_compose.engine.volume_entries import VolumeEntry, VolumeListing
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, real_docker, require_success, unique
from testing.terminal import Person

CRITICAL, IMPORTANT, DISPOSABLE = Tier

FRESH = """
CREATE TABLE migration_log (id INTEGER PRIMARY KEY, migration_id TEXT);
INSERT INTO migration_log VALUES (1, 'create user table');
CREATE TABLE user (id INTEGER PRIMARY KEY, login TEXT, is_service_account INTEGER);
INSERT INTO user VALUES (1, 'admin', 0);
CREATE TABLE org (id INTEGER PRIMARY KEY, name TEXT);
INSERT INTO org VALUES (1, 'Main Org.');
CREATE TABLE dashboard (id INTEGER PRIMARY KEY, title TEXT, is_folder INTEGER, updated_by INTEGER);
CREATE TABLE dashboard_provisioning (id INTEGER PRIMARY KEY, dashboard_id INTEGER);
CREATE TABLE alert_rule (id INTEGER PRIMARY KEY, uid TEXT);
CREATE TABLE provenance_type (record_key TEXT, record_type TEXT, provenance TEXT);
CREATE TABLE alert_configuration (id INTEGER PRIMARY KEY, "default" INTEGER);
INSERT INTO alert_configuration VALUES (1, 1);
CREATE TABLE data_source (id INTEGER PRIMARY KEY, read_only INTEGER);
CREATE TABLE annotation (id INTEGER PRIMARY KEY, alert_id INTEGER);
CREATE TABLE playlist (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE resource (guid TEXT, "group" TEXT, value TEXT);
"""
"""A Grafana database after its first start, as far as it matters here."""
PROVISIONED = """
INSERT INTO dashboard VALUES (1, 'from a file', 0, -1), (2, 'its folder', 1, -1);
INSERT INTO dashboard_provisioning VALUES (1, 1);
INSERT INTO alert_rule VALUES (1, 'r1');
INSERT INTO provenance_type VALUES ('r1', 'alertRule', 'file');
INSERT INTO data_source VALUES (1, 1);
INSERT INTO annotation VALUES (1, 7);
INSERT INTO resource VALUES ('g', 'dashboard.grafana.app', '{"grafana.app/managedBy":"classic-file-provisioning"}');
"""


def grafana(folder: Path, *statements: str) -> Path:
    path = folder / "grafana.db"
    with sqlite3.connect(path) as opened:
        opened.executescript(FRESH + "".join(statements))
    opened.close()
    return path


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        pytest.param("", None, id="fresh"),
        pytest.param(PROVISIONED, None, id="all from files"),
        pytest.param(
            "DROP TABLE provenance_type; DROP TABLE resource;", None, id="fresh, an older schema"
        ),
        pytest.param(
            "INSERT INTO dashboard (title) VALUES ('a'), ('b');", "2 dashboards", id="dashboards"
        ),
        pytest.param(
            PROVISIONED + "UPDATE dashboard SET updated_by = 1 WHERE id = 1;",
            "1 dashboard",
            id="edited by hand",
        ),
        pytest.param("INSERT INTO user VALUES (2, 'alice', 0);", "1 user", id="a user"),
        pytest.param(
            "INSERT INTO user VALUES (2, 'sa-1-ci', 1);",
            "1 service account",
            id="a service account",
        ),
        pytest.param(
            "INSERT INTO user VALUES (2, 'sa-1-extsvc-oncall', 1);",
            None,
            id="a service account of Grafana's own",
        ),
        pytest.param(
            "INSERT INTO alert_rule VALUES (1, 'r9');", "1 alert rule", id="an alert rule"
        ),
        pytest.param(
            'UPDATE alert_configuration SET "default" = 0;',
            "1 changed alert notification",
            id="a contact point",
        ),
        pytest.param("INSERT INTO data_source VALUES (1, 0);", "1 data source", id="a data source"),
        pytest.param(
            "INSERT INTO annotation VALUES (1, NULL);", "1 annotation", id="an annotation"
        ),
        pytest.param(
            "INSERT INTO playlist VALUES (1, 'tv');",
            "rows of playlist",
            id="a table that nobody here knows",
        ),
        pytest.param(
            "INSERT INTO resource VALUES ('g', 'dashboard.grafana.app', '{}');",
            "1 resource",
            id="unified storage",
        ),
        pytest.param(
            "DROP TABLE dashboard; CREATE TABLE dashboard (id INTEGER, title TEXT); INSERT INTO"
            " dashboard VALUES (1, 'x');",
            "1 dashboard",
            id="a schema without folders",
        ),
        pytest.param(
            "DROP TABLE dashboard; CREATE VIEW dashboard AS WITH RECURSIVE n(id) AS (SELECT 1 UNION"
            " ALL SELECT id + 1 FROM n) SELECT id FROM n;",
            "could not be read",
            id="a hostile view without end",
        ),
    ],
)
def test_what_people_made_in_grafana_is_told_from_what_it_makes_itself(
    tmp_path: Path, statements: str, words: str | None
) -> None:
    database = grafana(tmp_path, statements)
    queries = [query for count in COUNTS for query in count.queries]
    with Checker(seconds=2, total=4) as checker:
        judged = checker.judge(database, queries)
    if judged.fault or judged.unsure:
        assert words == "could not be read" and "in time" in str(judged.unsure)
        return
    said = describe_user_content({t.table: t.rows for t in judged.tables}, judged.counts)
    assert said == (None if words is None else f"its grafana.db holds {words}")


def test_the_time_in_the_name_of_a_block_is_read() -> None:
    assert read_ulid_time("01J9ZT5V0Q8M3X4N7B6C2D1E0F") == 1_728_718_236_695


def seen(image: str, path: str) -> Observed:
    mount = Mount("volume", "shop_data", "", path)
    user = Container(
        "c", "c-1", image, "sha256:1", "running", labels={PROJECT_LABEL: "shop"}, mounts=(mount,)
    )
    return Observed(
        "unix:///x", "E", containers=(user,), project=Project("shop", "folder", "config")
    )


@pytest.mark.parametrize(
    ("image", "path", "tier", "looks"),
    [
        ("grafana/grafana", "/var/lib/grafana", DISPOSABLE, ("grafana",)),
        ("bitnami/grafana:11", "/opt/bitnami/grafana/data", DISPOSABLE, ("grafana",)),
        ("prom/prometheus", "/prometheus", DISPOSABLE, ("prometheus",)),
        ("prom/alertmanager", "/alertmanager", DISPOSABLE, ("alertmanager",)),
        ("victoriametrics/victoria-metrics", "/storage", DISPOSABLE, ("victoriametrics",)),
        ("grafana/loki", "/loki", DISPOSABLE, ("loki",)),
        ("grafana/mimir", "/data", IMPORTANT, ()),
        ("netdata/netdata", "/var/lib/netdata", IMPORTANT, ()),
        ("netdata/netdata", "/var/cache/netdata", DISPOSABLE, ()),
        ("fluent/fluentd", "/fluentd/log", IMPORTANT, ()),
        ("balabit/syslog-ng", "/var/log", IMPORTANT, ()),
        ("grafana/tempo", "/var/tempo", DISPOSABLE, (ROOT,)),
        ("varnish", "/var/lib/varnish", DISPOSABLE, (ROOT,)),
        ("nginx", "/var/log/nginx", DISPOSABLE, (ROOT,)),
        ("app", "/var/log/audit", IMPORTANT, ()),
        ("app", "/var/log/mysql", IMPORTANT, ()),
        ("nginx", "/var/cache/nginx", DISPOSABLE, (ROOT,)),
        ("ubuntu/bind9", "/var/cache/bind", CRITICAL, ()),
        ("app", "/tmp", DISPOSABLE, (ROOT,)),
        ("node:22", "/app/node_modules", DISPOSABLE, ()),
        # Work of people, and never disposable
        ("traefik:v3", "/letsencrypt", IMPORTANT, ()),
        ("traefik:v3", "/data", CRITICAL, ()),
        ("n8nio/n8n", "/home/node/.n8n", CRITICAL, ()),
        ("louislam/uptime-kuma", "/app/data", CRITICAL, ()),
        ("minio/minio", "/data", CRITICAL, ()),
        ("registry:2", "/var/lib/registry", CRITICAL, ()),
        ("portainer/portainer-ce", "/data", CRITICAL, ()),
        ("dpage/pgadmin4", "/var/lib/pgadmin", CRITICAL, ()),
        ("jellyfin/jellyfin", "/config", CRITICAL, ()),
        ("vaultwarden/server", "/data", CRITICAL, ()),
        ("homeassistant/home-assistant", "/config", CRITICAL, ()),
    ],
)
def test_every_disposable_kind_says_what_is_looked_at(
    image: str, path: str, tier: Tier, looks: tuple[str, ...]
) -> None:
    volume = Volume("shop_data", labels={PROJECT_LABEL: "shop"})
    verdict = judge(volume, seen(image, path), (), None)
    assert (verdict.tier, verdict.looks) == (tier, looks)
    assert set(looks) <= {ROOT, *irreplaceable.CHECKS}


@pytest.mark.parametrize(
    "content",
    [("PG_VERSION",), ("ibdata1",), ("app.sqlite3",)],
    ids=["postgres", "mysql", "sqlite"],
)
@pytest.mark.parametrize(
    ("image", "path"), [("app", "/tmp"), ("nginx", "/var/log"), ("varnish", "/var/cache")]
)
def test_a_database_makes_no_cache_and_no_log_folder_disposable(
    image: str, path: str, content: tuple[str, ...]
) -> None:
    verdict = judge(
        Volume("shop_data", labels={PROJECT_LABEL: "shop"}), seen(image, path), (), content
    )
    assert verdict.tier is CRITICAL


def test_a_raised_grafana_is_handled_as_the_sqlite_database_that_it_is() -> None:
    volume = Volume("shop_data", labels={PROJECT_LABEL: "shop"})
    verdict = judge(
        volume,
        seen("grafana/grafana", "/var/lib/grafana"),
        (),
        None,
        "its grafana.db holds 2 users",
    )
    assert (verdict.tier, verdict.kind, verdict.looks) == (IMPORTANT, "sqlite", ())
    assert verdict.why.endswith(
        "the place of its dashboards' state, and its grafana.db holds 2 users"
    )


class EntriesInMemory:
    """What a volume holds, read as `Entries` reads one of an engine."""

    def __init__(self, files: Mapping[str, bytes], *, whole: bool = True) -> None:
        self.files = files
        self.whole = whole

    def stat(self, volume: str, path: str) -> VolumeEntry | None:
        if path in self.files:
            return VolumeEntry(len(self.files[path]), None, is_file=True, is_folder=False)
        below = any(name.startswith(f"{path}/") for name in self.files)
        return VolumeEntry(0, None, is_file=False, is_folder=True) if below else None

    def file(self, volume: str, path: str, limit: int) -> bytes | None:
        return self.files.get(path)

    def listing(
        self, volume: str, path: str = "", *, limit: int, keep: re.Pattern[str] | None = None
    ) -> VolumeListing | None:
        at = f"{path}/" if path else ""
        inside = {
            name.removeprefix(at): data
            for name, data in sorted(self.files.items())
            if name.startswith(at)
        }
        names = tuple(dict.fromkeys(name.partition("/")[0] for name in inside))
        return VolumeListing(
            names,
            self.whole,
            {n: d for n, d in inside.items() if keep is not None and keep.fullmatch(n)},
        )


def looked_at(name: str, files: Mapping[str, bytes], *, whole: bool = True) -> str | None:
    held: Any = EntriesInMemory(files, whole=whole)
    unused: Any = None
    return irreplaceable.CHECKS[name](irreplaceable._InspectedVolume(held, "v", unused))


BLOCK = b'{"minTime": %d, "maxTime": %d}'
YEARS = {
    "01HF7YAT000000000000000000/meta.json": BLOCK % (0, 730 * 86_400_000),
    "wal/0": b"x",
    "queries.active": b"",
}
WEEK = {
    "01HF7YAT000000000000000000/meta.json": BLOCK % (0, 7 * 86_400_000),
    "wal/0": b"x",
    "chunks_head/1": b"",
    "lock": b"",
}
MONTHS = {f"data/small/2024_{month:02}/p": b"x" for month in (1, 11)} | {
    "metadata/m": b"",
    "flock.lock": b"",
    "indexdb/i": b"",
}


def below(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


@pytest.mark.parametrize(
    ("look", "files", "words"),
    [
        pytest.param("prometheus", YEARS, "samples of 730 days", id="prometheus, at the root"),
        pytest.param(
            "prometheus",
            below("data", YEARS),
            "samples of 730 days",
            id="prometheus, its own default",
        ),
        pytest.param(
            "prometheus", below("data", WEEK), None, id="prometheus, its own default, a week"
        ),
        pytest.param(
            "prometheus",
            WEEK | below("data", YEARS),
            "samples of 730 days",
            id="prometheus, an older one next to it",
        ),
        pytest.param(
            "prometheus",
            below("tsdb", YEARS),
            "it holds tsdb, which Prometheus does not",
            id="prometheus, elsewhere",
        ),
        pytest.param(
            "prometheus",
            below("data/old", YEARS),
            "it holds old, which Prometheus",
            id="prometheus, deeper",
        ),
        pytest.param(
            "prometheus",
            WEEK | {"export.csv": b"1"},
            "it holds export.csv",
            id="prometheus, a file of a person",
        ),
        pytest.param(
            "prometheus",
            below("data", {"snapshots/s/x": b""}),
            "it holds data/snapshots",
            id="prometheus, a snapshot",
        ),
        pytest.param(
            "victoriametrics", MONTHS, "it holds samples of", id="victoriametrics, at the root"
        ),
        pytest.param(
            "victoriametrics",
            below("data", MONTHS),
            "it holds samples of",
            id="victoriametrics, in data",
        ),
        pytest.param(
            "victoriametrics",
            below("vm", MONTHS),
            "it holds vm, which VictoriaMetrics",
            id="victoriametrics, elsewhere",
        ),
        pytest.param(
            "victoriametrics",
            {"snapshots/2024/x": b""},
            "it holds snapshots",
            id="victoriametrics, a snapshot",
        ),
        pytest.param(
            "victoriametrics",
            {"snapshots/.keep": b"", "tmp/x": b"", "cache/y": b""},
            None,
            id="victoriametrics, fresh",
        ),
        pytest.param(
            "loki",
            {"fake/index/20000/a": b"x"},
            "it holds fake, which Loki does not make",
            id="loki, elsewhere",
        ),
        pytest.param(
            "loki",
            {"data/chunks/index/i_20000/a": b"", "wal/0": b""},
            "it holds data, which Loki",
            id="loki, in data",
        ),
        pytest.param(
            "loki",
            {"wal/0": b"", "tsdb-shipper-active/w": b"", "compactor/x": b""},
            None,
            id="loki, fresh",
        ),
        pytest.param(
            "alertmanager",
            {"am/silences": b"x"},
            "it holds am, which Alertmanager",
            id="alertmanager, elsewhere",
        ),
        pytest.param(
            "alertmanager",
            {"data/silences": b"", "data/nflog": b"x"},
            None,
            id="alertmanager, its own default",
        ),
    ],
)
def test_a_history_counts_wherever_in_its_volume_it_lies(
    look: str, files: Mapping[str, bytes], words: str | None
) -> None:
    for whole in (True, False):
        said = looked_at(look, files, whole=whole)
        assert said is None if words is None else words in str(said)


@pytest.mark.parametrize(
    "name",
    [
        "month",
        "years",
        "covered",
        "snapshot",
        "partitions",
        "index",
        "rules",
        "logs",
        "silences",
        "quiet",
    ],
)
def test_what_the_products_make_themselves_is_told_from_what_is_kept(
    tmp_path: Path, name: str
) -> None:
    image, _, tier, words = CASES[name]
    look = {"victoria-metrics": "victoriametrics"}.get(
        image.partition("/")[2], image.partition("/")[2]
    )
    files = {
        path: held for path, held in content(name, tmp_path).items() if isinstance(held, bytes)
    }
    said = looked_at(look, files)
    assert said is None if tier is DISPOSABLE else words in str(said)


# -- on an engine ----------------------------------------------------------------------------------

DAY = 86_400_000
CASES: dict[str, tuple[str, str, Tier, str]] = {
    "fresh": ("grafana/grafana", "/var/lib/grafana", DISPOSABLE, ""),
    "dashboards": (
        "grafana/grafana",
        "/var/lib/grafana",
        IMPORTANT,
        "its grafana.db holds 120 dashboards",
    ),
    "wal": ("grafana/grafana", "/var/lib/grafana", IMPORTANT, "its grafana.db holds 1 user"),
    "damaged": (
        "grafana/grafana",
        "/var/lib/grafana",
        IMPORTANT,
        "its grafana.db could not be read",
    ),
    "large": (
        "grafana/grafana",
        "/var/lib/grafana",
        IMPORTANT,
        "its grafana.db has more than 16 MiB",
    ),
    "link": ("grafana/grafana", "/var/lib/grafana", IMPORTANT, "its grafana.db is no regular file"),
    "strange": (
        "grafana/grafana",
        "/var/lib/grafana",
        IMPORTANT,
        "it holds dashboards, which Grafana does not make",
    ),
    "plugins": ("grafana/grafana", "/var/lib/grafana", DISPOSABLE, ""),
    "month": ("prom/prometheus", "/prometheus", DISPOSABLE, ""),
    "years": ("prom/prometheus", "/prometheus", IMPORTANT, "it holds samples of 730 days"),
    "covered": ("prom/prometheus", "/prometheus", IMPORTANT, "it holds samples of 400 days"),
    "snapshot": (
        "prom/prometheus",
        "/prometheus",
        IMPORTANT,
        "it holds snapshots, which somebody put there",
    ),
    "partitions": (
        "victoriametrics/victoria-metrics",
        "/storage",
        IMPORTANT,
        "it holds samples of 300 days",
    ),
    "index": ("grafana/loki", "/loki", IMPORTANT, "it holds logs of 100 days"),
    "rules": ("grafana/loki", "/loki", IMPORTANT, "it holds alerting rules"),
    "logs": ("grafana/loki", "/loki", DISPOSABLE, ""),
    "silences": ("prom/alertmanager", "/alertmanager", IMPORTANT, "it holds silences"),
    "quiet": ("prom/alertmanager", "/alertmanager", DISPOSABLE, ""),
    "database": ("app", "/var/cache/app", CRITICAL, "it holds app.sqlite3"),
}


def ulid(day: int) -> str:
    milliseconds, name = 1_700_000_000_000 + day * DAY, ""
    for _ in range(10):
        milliseconds, digit = divmod(milliseconds, 32)
        name = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"[digit] + name
    return name + "0" * 16


def content(name: str, folder: Path) -> Mapping[str, bytes | str]:
    """Path -> content of the volume of a case; a text is where a symbolic link leads."""
    block = b'{"minTime": %d, "maxTime": %d}'
    match name:
        case "fresh":
            return {
                "grafana.db": grafana(folder).read_bytes(),
                "plugins/.keep": b"",
                "png/.keep": b"",
            }
        case "dashboards":
            rows = "".join(f"INSERT INTO dashboard (title) VALUES ('d{n}');" for n in range(120))
            return {"grafana.db": grafana(folder, rows).read_bytes()}
        case "wal":
            path = grafana(folder)
            opened = sqlite3.connect(path, isolation_level=None)
            opened.execute("PRAGMA journal_mode = WAL")
            opened.execute("INSERT INTO user VALUES (2, 'alice', 0)")
            found = {at.name: at.read_bytes() for at in (path, Path(f"{path}-wal"))}
            opened.close()
            return found
        case "damaged":
            return {"grafana.db": b"SQLite format 3\0" + bytes(range(256)) * 40}
        case "large":
            return {"grafana.db": bytes(17 << 20)}
        case "link":
            return {"grafana.db": "elsewhere.db", "elsewhere.db": grafana(folder).read_bytes()}
        case "strange":
            return {"grafana.db": grafana(folder).read_bytes(), "dashboards/mine.json": b"{}"}
        case "plugins":
            return {"plugins/a/plugin.json": b"{}"}
        case "month":
            return {
                f"{ulid(day)}/meta.json": block % (day * DAY, (day + 1) * DAY)
                for day in range(0, 30, 5)
            } | {"wal/0": b"x"}
        case "years":
            return {f"{ulid(day)}/meta.json": b"{}" for day in (0, 365, 730)} | {"wal/0": b"x"}
        case "covered":
            return {f"{ulid(0)}/meta.json": block % (DAY, 401 * DAY)}
        case "snapshot":
            return {"snapshots/one/x": b"", "wal/0": b"x"}
        case "partitions":
            return {
                "data/small/2024_01/p": b"x",
                "data/big/2024_11/p": b"x",
                "metadata/minTimestampForCompositeIndex": b"8",
            }
        case "index":
            return {
                "chunks/index/loki_index_20000/a.gz": b"x",
                "chunks/index/loki_index_20100/a.gz": b"x",
            }
        case "rules":
            return {"rules/fake/mine.yaml": b"groups: []", "chunks/c": b"x"}
        case "logs":
            return {
                "rules/.keep": b"",
                "chunks/index/index_20000/a.gz": b"x",
                "chunks/index/index_20020/a.gz": b"x",
            }
        case "silences":
            return {"silences": b"\x1f", "nflog": b"x"}
        case "quiet":
            return {"silences": b"", "nflog": b"x"}
        case _:
            return {"app.sqlite3": grafana(folder).read_bytes()}


@pytest.fixture(scope="module")
def monitoring(
    module_compose_project: ProjectFactory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComposeProject]:
    """A project with a volume for each case, filled; its containers are created and never started."""
    tags = sorted({f"{image}:disposable" for image, *_ in CASES.values()})
    for tag in tags:
        docker("tag", "busybox:latest", tag)
    services = "".join(
        f'  {name}: {{image: "{image}:disposable", command: ["true"], volumes:'
        f' ["{name}:{path}"]}}\n'
        for name, (image, path, *_) in CASES.items()
    )
    project = module_compose_project(
        f"services:\n{services}volumes:\n" + "".join(f"  {name}:\n" for name in CASES)
    )
    project.docker("compose", "create", "--pull", "never")
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name in CASES:
            for path, held in content(name, tmp_path_factory.mktemp(name)).items():
                info = tarfile.TarInfo(f"{name}/{path}")
                if isinstance(held, str):
                    info.type, info.linkname = tarfile.SYMTYPE, held
                    archive.addfile(info)
                else:
                    info.size = len(held)
                    archive.addfile(info, io.BytesIO(held))
    holder = unique("holder")
    docker(
        "create",
        "--name",
        holder,
        *(f"-v={project.name}_{name}:/v/{name}" for name in CASES),
        "busybox:latest",
        "true",
    )
    try:
        subprocess.run(
            [real_docker(), "cp", "-", f"{holder}:/v"], input=data.getvalue(), check=True
        )
    finally:
        docker("rm", holder)
    yield project
    for tag in tags:
        docker("rmi", tag, check=False)


@pytest.mark.thorough
@pytest.mark.engine
def test_what_a_disposable_volume_holds_decides(
    monitoring: ComposeProject, safe_compose: SafeCompose
) -> None:
    answer = safe_compose("--explain", "--json", "compose", "down", "-v", cwd=monitoring.folder)
    assert answer.returncode == 0, answer.stderr
    found = {
        v["name"].removeprefix(f"{monitoring.name}_"): v
        for v in json.loads(answer.stdout)["volumes"]
    }
    assert {name: v["tier"] for name, v in found.items()} == {
        name: tier.value for name, (_, _, tier, _) in CASES.items()
    }
    for name, (_, _, _, words) in CASES.items():
        assert words in found[name]["why"], name
    shown = json.loads(safe_compose("volumes", "--json", cwd=monitoring.folder).stdout)["volumes"]
    tiers = {v["name"].removeprefix(f"{monitoring.name}_"): v["tier"] for v in shown}
    assert (tiers["dashboards"], tiers["fresh"], tiers["index"]) == (
        "important",
        "disposable",
        "important",
    )
    proposed = safe_compose("setup", "--json", cwd=monitoring.folder)
    assert proposed.returncode == 0 and "grafana" not in str(
        json.loads(proposed.stdout)["setup"]["files"]
    ), proposed.stdout


@pytest.mark.thorough
@pytest.mark.engine
def test_dashboards_made_by_hand_come_back_and_what_was_not_kept_is_named(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    text = """
services:
  grafana: {image: "grafana/grafana:latest", volumes: ["grafana:/var/lib/grafana"]}
  loki: {image: "grafana/loki:latest", volumes: ["loki:/loki", "photos:/photos"]}
volumes: {grafana: , loki: , photos: }
"""
    project = compose_project(text)
    project.up()
    made = grafana(tmp_path, "INSERT INTO dashboard (title) VALUES ('mine');")
    docker("cp", str(made), f"{project.name}-grafana-1:/var/lib/grafana/grafana.db")
    refused = safe_compose("--non-interactive", "compose", "down", "-v", cwd=project.folder)
    assert refused.returncode == 77 and len(project.volumes()) == 3
    assert (
        "its grafana.db holds 1 dashboard"
        in safe_compose("--explain", "compose", "down", "-v", cwd=project.folder).stdout
    )
    docker("cp", str(made), f"{project.name}-loki-1:/photos/one.jpg")
    person = Person(
        "compose", "down", "-v", cwd=project.folder
    )  # the confirmation screen is shown first, and inspects then
    person.sees(f"type '{project.name}'")
    person.types("?")
    person.sees("holds 1 dashboard")
    person.sees(f"type '{project.name}'")
    person.types(project.name)
    assert person.leaves_with() == 0 and project.volumes() == [], person.last_words
    assert (
        f"deleted 1 volume, without a copy (disposable): {project.name}_loki" in person.last_words
    )
    undone = require_success(safe_compose("undo", cwd=project.folder)).stderr.splitlines()
    assert undone[-2] == f"safe-compose: in no backup, because disposable: {project.name}_loki"
    assert undone[-1].startswith("safe-compose: 2 of 3 volumes are back: "), undone
    back = tmp_path / "back.db"
    docker("cp", f"{project.name}-grafana-1:/var/lib/grafana/grafana.db", str(back))
    assert back.read_bytes() == made.read_bytes()
