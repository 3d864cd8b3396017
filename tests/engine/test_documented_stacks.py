"""Five self-hosted projects in the layout that their documentation shows, with all data in folders.

The compose files are our own; the images are look-alikes with the names of the real ones.
"""

import json
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, require_success, unique

pytestmark = [pytest.mark.engine, pytest.mark.thorough]

BOX = 'init: true, command: [sleep, "100000"]'
LOOK_ALIKES = {
    "immich-app/immich-server": "busybox:latest",
    "immich-app/immich-machine-learning": "busybox:latest",
    "immich-app/postgres": "postgres:15",
    "library/nextcloud": "busybox:latest",
    "paperless-ngx/paperless-ngx": "busybox:latest",
    "vaultwarden/server": "busybox:latest",
    "langgenius/dify-api": "busybox:latest",
    "langgenius/dify-plugin-daemon": "busybox:latest",
    "langgenius/dify-sandbox": "busybox:latest",
    "ubuntu/squid": "busybox:latest",
    "library/nginx": "busybox:latest",
}
"""The image that stands for each."""
HEALTHY = "healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1], interval: 1s, retries: 90}"


@dataclass(frozen=True)
class Stack:
    """A project, its files, and what a backup of it has to take."""

    text: str
    """The compose file; `%` stands for the registry and tag of a look-alike."""
    files: dict[str, str]
    methods: dict[str, str]
    """How each folder with data is backed up."""
    left: tuple[str, ...]
    """Mounted folders and files, and volumes, that a backup leaves out."""
    service: str = ""
    """The service of the database."""
    client: tuple[str, ...] = ()
    """The command that runs SQL there."""


PSQL = ("psql", "-XqtA", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-f", "-")
IMMICH = Stack(
    f"""
services:
  immich-server:
    {{image: "%immich-app/immich-server%", {BOX},
      volumes: ["./library:/data", "./thumbs:/data/thumbs", "/etc/localtime:/etc/localtime:ro"]}}
  immich-machine-learning:
    {{image: "%immich-app/immich-machine-learning%", {BOX}, volumes: ["./model-cache:/cache"]}}
  database:
    image: "%immich-app/postgres%"
    environment: {{POSTGRES_PASSWORD: geheim, POSTGRES_INITDB_ARGS: --data-checksums}}
    volumes: ["./postgres:/var/lib/postgresql/data"]
    {HEALTHY}
""",
    {
        "library/upload/7a/one.jpg": "a photo",
        "library/profile/7a/me.jpg": "a face",
        "library/.immich": "",
        "thumbs/7a/one.webp": "small",
        "model-cache/clip/model.onnx": "weights",
        ".env": "UPLOAD_LOCATION=./library\n",
    },
    {"library": "live", "thumbs": "live", "postgres": "dump"},
    ("model-cache",),
    "database",
    PSQL,
)
NEXTCLOUD = Stack(
    f"""
services:
  db:
    image: mariadb:10.11
    environment: {{MARIADB_ROOT_PASSWORD: geheim, MARIADB_DATABASE: nextcloud}}
    volumes: ["./db:/var/lib/mysql"]
    healthcheck: {{test: [CMD, mariadb-admin, ping, -h, 127.0.0.1], interval: 1s, retries: 90}}
  app: &app
    {{image: "%library/nextcloud%", {BOX}, volumes: ["./nextcloud:/var/www/html"]}}
  cron: *app
  web:
    {{image: "%library/nginx%", {BOX},
      volumes: ["./nextcloud:/var/www/html:ro", "./nginx.conf:/etc/nginx/nginx.conf:ro"]}}
""",
    {
        "nextcloud/index.php": "<?php",
        "nextcloud/lib/base.php": "<?php",
        "nextcloud/config/config.php": "<?php $CONFIG = [];",
        "nextcloud/data/anna/files/letter.odt": "a letter",
        "nginx.conf": "events {}",
    },
    {"nextcloud": "live", "db": "dump"},
    ("nginx.conf",),
    "db",
    ("mariadb", "-N", "-uroot", "-pgeheim", "nextcloud"),
)
PAPERLESS = Stack(
    f"""
services:
  broker:
    {{image: "redis:7", volumes: ["./redisdata:/data"]}}
  db:
    image: postgres:15
    environment: {{POSTGRES_PASSWORD: geheim}}
    volumes: ["./pgdata:/var/lib/postgresql/data"]
    {HEALTHY}
  webserver:
    {{image: "%paperless-ngx/paperless-ngx%", {BOX},
      volumes: ["./data:/usr/src/paperless/data", "./media:/usr/src/paperless/media",
                "./export:/usr/src/paperless/export", "./consume:/usr/src/paperless/consume",
                "./scripts:/opt/scripts:ro"]}}
""",
    {
        "data/index/a.seg": "words",
        "media/documents/originals/0000001.pdf": "a bill",
        "export/manifest.json": "[]",
        "consume/scan.pdf": "a scan",
        "scripts/post.sh": "#!/bin/sh",
        "docker-compose.env": "PAPERLESS_URL=x\n",
    },
    {
        "redisdata": "dump",
        "pgdata": "dump",
        "data": "live",
        "media": "live",
        "export": "live",
        "consume": "live",
    },
    ("scripts",),
    "db",
    PSQL,
)
VAULTWARDEN = Stack(
    f"""
services:
  vaultwarden:
    {{image: "%vaultwarden/server%", {BOX}, volumes: ["./vw-data:/data"]}}
  proxy:
    {{image: "%library/nginx%", {BOX},
      volumes: ["./conf.d:/etc/nginx/conf.d", "./html:/usr/share/nginx/html"]}}
""",
    {
        "vw-data/rsa_key.pem": "a key",
        "vw-data/attachments/c1/a1": "a scan",
        "conf.d/vault.conf": "server {}",
        "html/index.html": "<p>",
        "html/logo.png": "a logo",
    },
    {"vw-data": "live"},
    ("conf.d", "html"),
)
DIFY = Stack(
    f"""
services:
  api: &api
    {{image: "%langgenius/dify-api%", {BOX}, volumes: ["./volumes/app/storage:/app/api/storage"]}}
  worker: *api
  db_postgres:
    image: postgres:15
    environment: {{POSTGRES_PASSWORD: geheim, PGDATA: /var/lib/postgresql/data/pgdata}}
    volumes: ["./volumes/db/data:/var/lib/postgresql/data"]
    {HEALTHY}
  redis:
    {{image: "redis:7", volumes: ["./volumes/redis/data:/data"]}}
  sandbox:
    {{image: "%langgenius/dify-sandbox%", {BOX},
      volumes: ["./volumes/sandbox/dependencies:/dependencies", "./volumes/sandbox/conf:/conf"]}}
  plugin_daemon:
    {{image: "%langgenius/dify-plugin-daemon%", {BOX}, volumes: ["./volumes/plugin_daemon:/app/storage"]}}
  ssrf_proxy:
    {{image: "%ubuntu/squid%", {BOX},
      volumes: ["./ssrf_proxy/squid.conf.template:/etc/squid/squid.conf.template",
                "./ssrf_proxy/docker-entrypoint.sh:/docker-entrypoint-mount.sh"]}}
  nginx:
    {{image: "%library/nginx%", {BOX},
      volumes: ["./nginx/nginx.conf.template:/etc/nginx/nginx.conf.template",
                "./nginx/conf.d:/etc/nginx/conf.d", "./nginx/ssl:/etc/ssl"]}}
""",
    {
        "volumes/app/storage/upload_files/t1/a.pdf": "a contract",
        "volumes/app/storage/privkeys/t1/private.pem": "a key",
        "volumes/plugin_daemon/plugin/a/manifest.yaml": "a: 1",
        "volumes/plugin_daemon/cwd/a/main.py": "x = 1",
        "volumes/sandbox/dependencies/python-requirements.txt": "x",
        "volumes/sandbox/conf/config.yaml": "app: {}",
        "ssrf_proxy/squid.conf.template": "http_port 3128",
        "ssrf_proxy/docker-entrypoint.sh": "#!/bin/bash",
        "nginx/nginx.conf.template": "events {}",
        "nginx/conf.d/default.conf.template": "server {}",
        "nginx/ssl/dify.key": "a key",
    },
    {
        "volumes/app/storage": "live",
        "volumes/db/data": "dump",
        "volumes/redis/data": "dump",
        "volumes/plugin_daemon": "live",
        "nginx/ssl": "live",
    },
    (
        "volumes/sandbox/dependencies",
        "volumes/sandbox/conf",
        "ssrf_proxy/squid.conf.template",
        "ssrf_proxy/docker-entrypoint.sh",
        "nginx/nginx.conf.template",
        "nginx/conf.d",
    ),
    "db_postgres",
    PSQL,
)
STACKS = {
    "Immich": IMMICH,
    "Nextcloud": NEXTCLOUD,
    "Paperless-ngx": PAPERLESS,
    "Vaultwarden": VAULTWARDEN,
    "Dify": DIFY,
}


@pytest.fixture(scope="module")
def names(lab: None) -> Iterator[dict[str, str]]:
    """The full names of the look-alikes."""
    tag = unique("lab")
    made = {name: f"lab.example/{name}:{tag}" for name in LOOK_ALIKES}
    for name, base in LOOK_ALIKES.items():
        docker("tag", base, made[name])
    yield made
    docker("rmi", "--force", *made.values(), check=False)


@pytest.fixture
def running(
    request: pytest.FixtureRequest,
    names: dict[str, str],
    compose_project: ProjectFactory,
) -> Iterator[tuple[Stack, ComposeProject]]:
    """The stack of the test's parameter, up, with rows in its database."""
    stack = STACKS[request.param]
    text = stack.text
    for name, full in names.items():
        text = text.replace(f"%{name}%", full)
    project = compose_project(text, files=stack.files)
    try:
        make_sqlite(project)
        project.up()
        if stack.service:
            sql(stack, project, "CREATE TABLE orders (id integer PRIMARY KEY, what text)")
            sql(stack, project, "INSERT INTO orders VALUES (1, 'ä'), (2, NULL), (3, 'c')")
        yield stack, project
    finally:
        project.docker("compose", "down", "--timeout", "1", check=False)
        words = ("run", "--rm", "--network", "none", "-v", f"{project.folder}:/p", "busybox:latest")
        docker(*words, "sh", "-c", "rm -rf /p/*", check=False)


def make_sqlite(project: ComposeProject) -> None:
    """Where the project is Vaultwarden's, its database."""
    folder = project.folder / "vw-data"
    if folder.is_dir():
        with closing(sqlite3.connect(folder / "db.sqlite3")) as database, database:
            database.execute("CREATE TABLE ciphers (uuid TEXT PRIMARY KEY, data TEXT)")
            database.executemany("INSERT INTO ciphers VALUES (?, ?)", [("a", "x"), ("b", "y")])


def sql(stack: Stack, project: ComposeProject, query: str) -> str:
    return project.exec(stack.service, *stack.client, input=query)


def read_rows(stack: Stack, project: ComposeProject) -> str:
    """The rows of the stack's database, of a server or in SQLite."""
    if stack.service:
        return sql(stack, project, "SELECT * FROM orders ORDER BY 1")
    with closing(sqlite3.connect(project.folder / "vw-data" / "db.sqlite3")) as database:
        return str(database.execute("SELECT * FROM ciphers ORDER BY 1").fetchall())


def show(safe_compose: SafeCompose, project: ComposeProject) -> dict[str, Any]:
    shown = require_success(safe_compose("show", "latest", "--json", cwd=project.folder))
    details = json.loads(shown.stdout)["details"]
    assert isinstance(details, dict)
    return details


def shorten(project: ComposeProject, name: str) -> str:
    return name.removeprefix(f"{project.folder}/")


def list_archived(made: dict[str, Any], project: ComposeProject, folder: str) -> set[str]:
    """The files in the archive of a folder, by their paths in the project."""
    [record] = [v for v in made["volumes"] if shorten(project, v["name"]) == folder]
    [file] = [a["file"] for a in record["artifacts"] if a["kind"] == "archive"]
    with tarfile.open(Path(made["path"]) / file) as archive:
        members = [m.name.partition("/")[2] for m in archive if m.isfile()]
    return {f"{folder}/{name}" for name in members}


def describe(folder: Path) -> dict[str, Any]:
    """All that is in a folder, with owners, modes, times and content.

    Of a SQLite database, which is copied as of one moment, only the rows are the same.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        content = path.read_bytes() if path.is_file() else None
        exact = (facts.st_mtime_ns, content) if path.suffix != ".sqlite3" else ()
        owner = (facts.st_uid, facts.st_gid)
        found[str(path.relative_to(folder))] = (facts.st_mode, owner, *exact)
    return found


@pytest.mark.parametrize("running", STACKS, indirect=True)
def test_the_data_of_a_documented_stack_is_backed_up_and_nothing_else_and_comes_back(
    running: tuple[Stack, ComposeProject], safe_compose: SafeCompose
) -> None:
    stack, project = running
    require_success(safe_compose("backup", cwd=project.folder))
    made = show(safe_compose, project)
    methods = {shorten(project, v["name"]): v["method"] for v in made["volumes"]}
    assert methods == stack.methods, made
    assert {shorten(project, o["name"]) for o in made["omitted"]} == set(stack.left), made
    assert {v["location"] for v in made["volumes"]} == {"folder"}
    live = [name for name, method in methods.items() if method == "live"]
    for folder in live:
        files = {
            shorten(project, str(file))
            for file in (project.folder / folder).rglob("*")
            if file.is_file()
        }
        assert list_archived(made, project, folder) == files
        assert files >= {name for name in stack.files if name.startswith(f"{folder}/")}
    if stack.service:
        done = require_success(safe_compose("verify", "latest", "--trial", cwd=project.folder))
        assert "L4" in done.stdout

    rows = read_rows(stack, project)
    before = {folder: describe(project.folder / folder) for folder in live}
    project.docker("compose", "down", "--timeout", "1")
    for folder in methods:
        shutil.rmtree(project.folder / folder)
    require_success(safe_compose("restore", "latest", "--non-interactive", cwd=project.folder))
    assert {folder: describe(project.folder / folder) for folder in live} == before
    project.up()
    assert read_rows(stack, project) == rows
