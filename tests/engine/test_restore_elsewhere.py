"""A backup that does not go home: into a new volume, another project, a newer server, or a scratch
volume for a look.
"""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from safe_compose.core.backup import ServerStatistics, VolumeRecord
from safe_compose.core.observed import CONFIG_HASH_LABEL, PROJECT_LABEL, VOLUME_LABEL, DeclaredMount
from safe_compose.core.relocation import Relocation, list_inspection_commands, plan_relocation
from safe_compose.errors import UsageError
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, read_in_volume, remove_project, unique

FILES = """
services:
  app:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    volumes: ["uploads:/app/uploads", "notes:/app/notes"]
volumes:
  uploads:
  notes:
"""


def record(name: str, **labels: str) -> VolumeRecord:
    known = {
        PROJECT_LABEL: "shop",
        VOLUME_LABEL: name.partition("_")[2],
        CONFIG_HASH_LABEL: "abc",
        **labels,
    }
    options = {"type": "none", "device": "/srv/data", "o": "bind"}
    return VolumeRecord(name, "local", options, known, "", "critical", "files", False, "cold")


def placed(
    word: str, *records: VolumeRecord, declared: tuple[DeclaredMount, ...] = ()
) -> Relocation:
    return plan_relocation(
        word,
        records,
        backup_id="ID",
        project="shop",
        token="3f9a1c",
        here="shop",
        declared=declared,
    )


def test_one_volume_goes_into_a_volume_and_several_into_a_project() -> None:
    data, notes = record("shop_data"), record("shop_notes")
    one = placed("shop_data17", data)
    assert (one.owner, dict(one.new_names), dict(one.records[0].labels)) == (
        "volumes",
        {"shop_data": "shop_data17"},
        {},
    )
    ours = placed(
        "shop_data17",
        data,
        declared=(DeclaredMount("db", "postgres:17", "shop_data17", "/var/lib/postgresql/data"),),
    )
    assert ours.owner == "shop" and ours.records[0].labels == {
        PROJECT_LABEL: "shop",
        VOLUME_LABEL: "data17",
    }
    both = placed("other", data, notes)
    assert both.owner == "other" and dict(both.new_names) == {
        "shop_data": "other_data",
        "shop_notes": "other_notes",
    }
    assert both.records[0].labels == {PROJECT_LABEL: "other", VOLUME_LABEL: "data"}
    scratch = placed("scratch", data)
    assert (
        dict(scratch.new_names) == {"shop_data": "scratch-3f9a1c-shop_data"}
        and PROJECT_LABEL not in scratch.records[0].labels
    )
    assert all(r.options == {} for made in (one, both, scratch) for r in made.records), (
        "an option points at the original's data"
    )


@pytest.mark.parametrize(
    ("word", "names"),
    [("shop_data", ("shop_data",)), ("a b", ("shop_data",)), ("-x", ("shop_data",)), ("Other", ("shop_data", "shop_notes")),
     ("shop", ("shop_data", "shop_notes")), ("other", ("shop_data", "loose"))],
)  # fmt: skip
def test_a_place_that_is_none_is_refused(word: str, names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="nothing was restored"):
        placed(word, *map(record, names))


@pytest.fixture
def other(lab: None) -> Iterator[str]:
    """The name of a project that a test restores into."""
    name = unique("other")
    yield name
    remove_project(name)


@pytest.mark.thorough
@pytest.mark.engine
def test_files_go_into_another_project_and_a_scratch_volume_is_looked_at_and_thrown_away(
    compose_project: ProjectFactory, safe_compose: SafeCompose, other: str
) -> None:
    shop = compose_project(FILES)
    shop.up()
    for name in ("uploads", "notes"):
        read_in_volume(f"{shop.name}_{name}", "sh", "-c", f"echo {name} > /v/f")
    made = safe_compose("backup", "--json", cwd=shop.folder)
    kept = json.loads(made.stdout)["backup"]["id"]
    moved = safe_compose("restore", kept, "--into", other, cwd=shop.folder)
    assert (
        moved.returncode == 0
        and f"{shop.name}_notes is in {other}_notes now, from its archive" in moved.stderr
    ), moved.stderr
    assert [read_in_volume(f"{other}_{name}", "cat", "/v/f") for name in ("uploads", "notes")] == [
        "uploads\n",
        "notes\n",
    ]
    labels = json.loads(docker("volume", "inspect", f"{other}_notes").stdout)[0]["Labels"]
    assert (labels[PROJECT_LABEL], labels[VOLUME_LABEL]) == (other, "notes")

    read_in_volume(f"{other}_notes", "sh", "-c", "echo newer > /v/f")
    for words in ((), ("--confirm", shop.name)):
        refused = safe_compose(
            "restore", kept, "--into", other, "--non-interactive", *words, cwd=shop.folder
        )
        assert refused.returncode == 77 and f"--confirm '{other}'" in refused.stderr
    assert read_in_volume(f"{other}_notes", "cat", "/v/f") == "newer\n"
    one = (
        "restore",
        kept,
        "--volume",
        f"{shop.name}_notes",
        "--into",
        f"{other}_notes",
        "--confirm",
        f"{other}_notes",
    )
    over = safe_compose(*one, "--json", cwd=shop.folder)
    assert over.returncode == 0 and json.loads(over.stdout)["restored"]["safety"], over.stderr
    assert read_in_volume(f"{other}_notes", "cat", "/v/f") == "notes\n"

    look = safe_compose(
        "restore", kept, "--volume", f"{shop.name}_uploads", "--into", "scratch", cwd=shop.folder
    )
    assert look.returncode == 0 and "nothing was started" in look.stderr, look.stderr
    shown, trashed_volumes = commands(look.stderr)
    assert docker(*[w for w in shown if w != "-it"], "-c", "cat /volume/f").stdout == "uploads\n"
    gone = safe_compose(*trashed_volumes, cwd=shop.folder)
    assert (
        gone.returncode == 0
        and "the journal of restore --into scratch says disposable" in gone.stderr
    ), gone.stderr
    assert docker("volume", "inspect", trashed_volumes[-1], check=False).returncode != 0
    assert shop.running() == [f"{shop.name}-app-1"]


def commands(said: str) -> list[list[str]]:
    """The words after `docker` of each command that was told."""
    return [shlex.split(line)[1:] for line in re.findall(r"^  (docker .*)$", said, re.M)]


DATABASE = """
services:
  db:
    image: {image}
    environment: {{POSTGRES_USER: shop, POSTGRES_PASSWORD: canary-77aa-password, POSTGRES_DB: shop}}
    volumes: ["{key}:/var/lib/postgresql/data"]
    healthcheck:
      test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop]
      interval: 1s
      retries: 60
volumes:
  {key}:
"""
ROWS = (
    "CREATE TABLE orders (id int, what text); INSERT INTO orders SELECT g, 'o' || g FROM"
    " generate_series(1, 500) g"
)
SUM = "SELECT count(*), md5(string_agg(id || what, ',' ORDER BY id)) FROM orders"


@pytest.mark.thorough
@pytest.mark.engine
def test_a_database_is_looked_at_and_goes_into_a_server_of_a_newer_major_version(
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    postgres_image: object,
    tmp_path: Path,
) -> None:
    newer = postgres_image(17)  # type: ignore[operator]
    shop: ComposeProject = compose_project(DATABASE.format(image="postgres:15", key="data"))
    shop.up()
    shop.psql(ROWS, user="shop", database="shop")
    before = shop.psql(SUM, user="shop", database="shop")
    assert safe_compose("backup", cwd=shop.folder).returncode == 0

    look = safe_compose("restore", "latest", "--into", "scratch", cwd=shop.folder)
    assert look.returncode == 0, look.stderr
    start, ask, stop, throw = commands(look.stderr)
    docker(*start)
    try:
        name = ask[2]
        for _ in range(100):
            if docker("exec", name, "pg_isready", "-q", check=False).returncode == 0:
                break
            docker("exec", name, "sleep", "0.2")
        asked = docker(*[w for w in ask if w != "-it"], "-XqtA", "-c", SUM)
        assert asked.stdout.strip() == before
        assert (
            docker("inspect", name, "--format", "{{.HostConfig.NetworkMode}}").stdout.strip()
            == "none"
        )
    finally:
        docker(*stop)
        docker(*throw)

    shop.docker("compose", "stop")
    (shop.folder / "compose.yaml").write_text(DATABASE.format(image=newer, key="data17"))
    went = safe_compose(
        "restore",
        "latest",
        "--volume",
        f"{shop.name}_data",
        "--into",
        f"{shop.name}_data17",
        cwd=shop.folder,
    )
    assert went.returncode == 0 and newer in went.stderr, went.stderr
    up = shop.docker("compose", "up", "--detach", "--wait", "--pull", "never")
    assert "already exists" not in up.stderr, up.stderr
    assert shop.psql("SHOW server_version", user="shop", database="shop").startswith("17.")
    assert shop.psql(SUM, user="shop", database="shop") == before
    assert f"{shop.name}_data" in shop.volumes(), "the old volume stays"


def test_what_is_printed_for_a_look_names_only_settings_that_a_server_needs() -> None:
    for kind, needed in (("postgres", "max_locks_per_transaction"), ("mysql", "innodb_page_size")):
        settings = {needed: "64", "template1_locale": "UTF8 C", "init_file": "/volume/x.sql"}
        statistics = ServerStatistics(kind, "15", "shop", pgdata="/data", settings=settings)
        mounted = {"image": "db", "destination": "/data"}
        server = replace(record("shop_data"), statistics=statistics, users=(mounted,))
        start = next(iter(list_inspection_commands(server, "scratch", "db")))
        assert "64" in start, start
        assert not re.search("template1|init.file", start), start
