"""A backup takes the folders of the host that hold a project's data, and no code."""

import json
import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.folders import (
    FolderContent,
    explain_by_content,
    explain_by_path,
    explain_impossible,
    list_mounted,
)
from safe_compose.core.observed import FolderMount, Observed, Project
from testing.disks import small_disk
from testing.fixtures import ProjectFactory, SafeCompose
from testing.private_engine import private_engine
from testing.projects import ComposeProject, docker, real_docker, require_success

BOX = 'image: "busybox:latest", init: true, command: [sleep, "100000"]'


# -- what counts, without an engine ----------------------------------------------------------------


def decide(
    path: str, destination: str, image: str, look: FolderContent, *, read_only: bool = False
) -> str:
    """Why a folder of a project in /home/me/shop is not backed up; empty where it is."""
    project = Project(
        "shop",
        "folder",
        "config",
        working_dir="/home/me/shop",
        config_files=("/home/me/shop/compose.yaml",),
        folders=(FolderMount(path, "web", destination, read_only, image),),
    )
    found = list_mounted(Observed("unix:///x", "E", project=project))
    if not found:
        return "of the machine"
    [mounted] = found
    return (
        explain_impossible(mounted)
        or explain_by_path(mounted, project)
        or explain_by_content(mounted, look, project)
        or ""
    )


FILES = FolderContent("folder", ("a.jpg", "b"), ("a.jpg", "b/c.pdf"), 10, counted=True)
CODE = FolderContent("folder", ("src", "lib"), ("src/main.py", "src/view.py"), 10, counted=True)
APP = FolderContent(
    "folder", ("package.json", "img"), ("package.json", "img/a.jpg"), 10, counted=True
)
DATABASE = FolderContent("folder", ("PG_VERSION", "base"), ("PG_VERSION",), 10, counted=True)


@pytest.mark.parametrize(
    ("path", "destination", "image", "look"),
    [
        ("/home/me/shop/postgres", "/var/lib/postgresql/data", "postgres:16", DATABASE),
        ("/srv/pg", "/somewhere", "unknown", DATABASE),
        ("/home/me/shop/uploads", "/app/uploads", "shop-web", FILES),
        ("/home/me/shop/things", "/things", "shop-web", FILES),
        ("/srv/shop", "/data", "shop-web", FILES),
        ("/srv/next", "/var/www/html", "nextcloud:29", CODE),
        ("/home/me/shop/new\nline", "/things", "shop-web", FolderContent("unseen")),
        (
            "/home/me/shop/notes",
            "/app/notes",
            "shop-web",
            FolderContent("file", ("notes",), size=1),
        ),
        (
            "/home/me/shop/s.json",
            "/data/s.json",
            "shop-web",
            FolderContent("file", ("s.json",), size=1),
        ),
    ],
)
def test_data_is_backed_up(path: str, destination: str, image: str, look: FolderContent) -> None:
    assert decide(path, destination, image, look) == ""


@pytest.mark.parametrize(
    ("path", "destination", "image", "look"),
    [
        ("/home/me/shop", "/app", "node", APP),
        ("/home/me", "/host", "node", APP),
        ("/home/me/shop/web", "/app", "node", APP),
        ("/home/me/shop/src", "/app/src", "python", CODE),
        ("/home/me/shop/src", "/data/src", "python", CODE),
        ("/home/me/shop/web", "/files", "node", APP),
        ("/home/me/shop/node_modules", "/app/node_modules", "node", FILES),
        ("/home/me/shop/conf", "/etc/nginx/conf.d", "nginx", FILES),
        ("/home/me/shop/init", "/docker-entrypoint-initdb.d", "postgres", FILES),
        (
            "/home/me/shop/uploads",
            "/uploads",
            "x",
            FolderContent("folder", ("a",), ("a",), tracked=True),
        ),
        ("/home/me/shop/nginx.conf", "/nginx.conf", "nginx", FolderContent("file")),
        ("/home/me/pictures", "/pics-of-me", "x", FILES),
        ("/var/run/docker.sock", "/var/run/docker.sock", "x", FILES),
        ("/etc", "/host/etc", "x", FILES),
        ("/", "/host", "x", FILES),
        ("/run/x.sock", "/x.sock", "x", FILES),
        ("C:\\data", "/data", "x", FILES),
        ("/host_mnt/c/data", "/data", "x", FILES),
        ("/home/me/shop/../data", "/data", "x", FILES),
        ("/home/me/shop/gone", "/data", "x", FolderContent("absent")),
    ],
)
def test_code_configuration_and_the_machine_are_not(
    path: str, destination: str, image: str, look: FolderContent
) -> None:
    assert decide(path, destination, image, look) != ""


def test_what_no_service_writes_to_is_not() -> None:
    assert "no service writes" in decide(
        "/home/me/shop/uploads", "/uploads", "x", FILES, read_only=True
    )


# -- against a real engine -------------------------------------------------------------------------


def backup(
    safe_compose: SafeCompose, project: ComposeProject, *argv: str, code: int = 0
) -> tuple[dict[str, Any], dict[str, str]]:
    """What a backup holds by its short name, and why it does not hold the rest."""
    done = safe_compose("backup", *argv, cwd=project.folder)
    assert done.returncode == code, done.stderr
    shown = require_success(safe_compose("show", "latest", "--json", cwd=project.folder))
    made = json.loads(shown.stdout)["details"]
    short = str(project.folder) + "/"
    return (
        {v["name"].removeprefix(short): v for v in made["volumes"]},
        {o["name"].removeprefix(short): o["reason"] for o in made["omitted"]},
    )


WEB = f"""
services:
  web:
    {{{BOX}, volumes: ["./uploads:/app/uploads", "./src:/app/src", "./conf:/conf:ro"]}}
"""


@pytest.mark.engine
def test_the_folders_with_data_are_taken_and_it_is_said_why_not_the_others(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    files = {"uploads/a.jpg": "a photo", "src/main.py": "x = 1", "conf/a": "1"}
    project = compose_project(WEB, files=files)
    project.up()
    taken, left = backup(safe_compose, project)
    assert taken.keys() == {"uploads"} and left.keys() == {"src", "conf"}, (taken, left)
    assert taken["uploads"]["method"] == "live" and taken["uploads"]["location"] == "folder"
    assert "main.py" in left["src"] and "no service writes to it" in left["conf"]
    uploads = str(project.folder / "uploads")
    listed = require_success(safe_compose("volumes", "--json", cwd=project.folder))
    [row] = json.loads(listed.stdout)["volumes"]
    assert (row["name"], row["location"], row["kind"]) == (uploads, "folder", "files")
    assert row["last_backup"] and row["in_use_by"] == [f"{project.name}-web-1"], row
    taken, _ = backup(safe_compose, project, "--volume", str(project.folder / "src"))
    assert taken.keys() == {"src"}


@pytest.mark.engine
def test_settings_decide_otherwise_by_path_and_a_large_folder_is_named(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    settings = """
[folders]
"./conf" = "important"
"./src" = "critical"
"./cache*" = "disposable"
[backup]
max_folder = "1KB"
"""
    files = {
        "uploads/a.jpg": "a photo" * 200,
        "src/main.py": "x = 1",
        "conf/a": "1",
        "caches/x": "1",
    }
    text = WEB.replace('"./conf:/conf:ro"', '"./conf:/conf:ro", "./caches:/data"')
    project = compose_project(text, files={**files, "safe-compose.toml": settings})
    project.up()
    done = safe_compose("backup", cwd=project.folder)
    assert done.returncode == 73 and f"partial: it lacks {project.folder}/uploads" in done.stderr
    assert 'name it under [folders] in safe-compose.toml: "critical" takes it' in done.stderr
    taken, left = backup(safe_compose, project, code=73)
    assert taken.keys() == {"conf", "src"}, (taken, left)
    assert (taken["conf"]["tier"], taken["src"]["tier"]) == ("important", "critical")
    assert "its files take 1.4 KiB, and max_folder is 1000 B" in left["uploads"], left
    doctor = safe_compose("doctor", "--json", cwd=project.folder)
    wanted = (
        f"folder {project.folder}/uploads is critical and has no verified backup: it takes more"
    )
    assert wanted in doctor.stdout, doctor.stdout
    assert 'safe-compose.toml: folders."./cache*" says disposable' in left["caches"], left


@pytest.mark.engine
def test_a_folder_behind_a_link_is_one_by_its_real_path_with_all_its_users(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    project = compose_project(
        f'services: {{web: {{{BOX}, volumes: ["./uploads:/uploads", "./disk:/media"]}}}}',
        files={"uploads/a": "1"},
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "b").write_text("2")
    (project.folder / "disk").symlink_to(disk)
    link = tmp_path / "link"
    link.symlink_to(project.folder)
    up = ["docker", "compose", "-p", project.name, "up", "-d", "--quiet-pull"]
    subprocess.run(up, cwd=link, env={**os.environ, "PWD": str(link)}, check=True)
    taken, _ = backup(safe_compose, project)
    assert taken.keys() == {"uploads", str(disk)}, taken
    assert [record["method"] for record in taken.values()] == ["live", "live"]
    taken, _ = backup(safe_compose, project, "--volume", "./disk")
    assert taken.keys() == {str(disk)}


@pytest.mark.engine
def test_odd_names_are_backed_up_and_the_configuration_beside_them_is_not(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    odd = 'uploads, "of" \x1b[31mme; $1'
    source = json.dumps(f"./{odd}").replace("$", "$$")
    project = compose_project(
        f"""
services:
  web:
    {{{BOX}, volumes: [{{type: bind, source: {source}, target: /uploads}}, "./shop.db:/app/shop.db",
      "./settings.ini:/app/settings.ini"]}}
""",
        files={f"{odd}/a": "1", "shop.db": "", "settings.ini": ""},
    )
    project.up()
    done = require_success(safe_compose("backup", cwd=project.folder))
    assert "\x1b" not in done.stdout + done.stderr
    shown = require_success(safe_compose("show", "latest", "--json", cwd=project.folder))
    made = json.loads(shown.stdout)["details"]
    assert [v["name"] for v in made["volumes"]] == [
        f"{project.folder}/shop.db",
        f"{project.folder}/{odd}",
    ]
    lacking = {o["name"]: o["lacking"] for o in made["omitted"]}
    assert lacking == {f"{project.folder}/settings.ini": False}
    wrong = safe_compose("restore", "latest", "--volume", "./other", cwd=project.folder)
    assert wrong.returncode == 64, wrong.stderr
    assert f"does not hold folder {project.folder}/other; nothing" in wrong.stderr, wrong.stderr


IN_FOLDERS = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_PASSWORD: geheim}
    volumes: ["./postgres:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1], interval: 1s, retries: 60}
"""


@pytest.mark.engine
def test_a_database_in_a_folder_is_dumped_while_it_runs_and_test_restored(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(IN_FOLDERS)
    try:
        project.up()
        sql = "CREATE TABLE orders AS SELECT g FROM generate_series(1, 500) g"
        project.exec("db", "psql", "-qU", "postgres", "-c", sql)
        taken, _ = backup(safe_compose, project)
        assert taken.keys() == {"postgres"} and taken["postgres"]["method"] == "dump"
        [tables] = [d["tables"] for d in taken["postgres"]["statistics"]["databases"]]
        assert [t["rows"] for t in tables] == [500]
        done = require_success(safe_compose("verify", "latest", "--trial", cwd=project.folder))
        assert "L4" in done.stdout + done.stderr
        project.docker("compose", "stop")
        taken, _ = backup(safe_compose, project)
        assert taken["postgres"]["method"] == "cold"
    finally:
        project.docker("compose", "down", "--timeout", "1")
        docker(
            *("run", "--rm", "-v", f"{project.folder}:/p", "busybox:latest"),
            *("rm", "-rf", "/p/postgres"),
        )


@pytest.mark.engine
def test_tracked_linked_nested_and_vanished_folders(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "projects").mkdir(parents=True)
    binds = (
        *("tracked:/data/tracked", "mixed:/data/mixed", "linked:/files", "gone:/data/gone"),
        *("outer:/data/outer", "outer/inner:/data/inner", "wide:/data/wide", "wide/db:/data/db"),
    )
    volumes = ", ".join(f'"./{bind}"' for bind in binds)
    project = compose_project(
        f"services: {{web: {{{BOX}, volumes: [{volumes}]}}}}",
        files={
            f"{name}/a.csv": "1" for name in ("tracked", "mixed", "outer", "outer/inner", "gone")
        },
    )
    git = ("git", "-C", str(project.folder), "-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "tracked", "mixed"], check=True)
    (project.folder / "mixed" / "new.csv").write_text("2")
    (project.folder / "linked").symlink_to("/")
    (project.folder / "wide" / "db" / "WiredTiger").mkdir(parents=True)
    project.up()
    backup(safe_compose, project, "--volume", str(project.folder / "gone"))
    project.docker("compose", "kill")
    shutil.rmtree(project.folder / "gone")
    taken, left = backup(safe_compose, project, code=73)
    assert taken.keys() == {"mixed", "outer", "wide/db"}, (taken, left)
    assert "git has all of it" in left["tracked"]
    assert "the whole machine" in left["/"]
    assert "lies in" in left["outer/inner"] and "the database in" in left["wide"]
    assert "not there any more; backup" in left["gone"]


@pytest.mark.engine
def test_sqlite_in_a_folder_is_copied_consistently_and_an_unknown_database_only_at_rest(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(
        f'services: {{web: {{{BOX}, volumes: ["./app:/app/data", "./mongo:/data/db"]}}}}',
        files={"mongo/WiredTiger": "x"},
    )
    (project.folder / "app").mkdir()
    with closing(sqlite3.connect(project.folder / "app" / "shop.db")) as shop:
        shop.executescript("PRAGMA journal_mode=WAL; CREATE TABLE orders (n); ")
        shop.execute("INSERT INTO orders VALUES (1), (2)")
        shop.commit()
        project.up()
        taken, left = backup(safe_compose, project, code=73)
    assert "a running mongodb is not archived" in left["mongo"]
    [record] = taken.values()
    assert (record["method"], [d["tables"][0]["rows"] for d in record["sqlite"]]) == ("live", [2])
    project.docker("compose", "kill")
    taken, _ = backup(safe_compose, project)
    assert {name: record["method"] for name, record in taken.items()} == {
        "app": "cold",
        "mongo": "cold",
    }


@pytest.mark.engine
def test_what_is_mounted_in_a_folder_is_backed_up_by_itself_or_the_backup_is_partial(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    binds = "./data:/data", "./data/a disk/media:/media", "./data/inner:/inner"
    project = compose_project(
        f"services: {{web: {{{BOX}, volumes: {json.dumps(binds)}}}}}",
        files={"data/a.csv": "1", "data/inner/b.csv": "2"},
    )
    disk = project.folder / "data" / "a disk"
    with small_disk(disk, "size=3m"):
        (disk / "media").mkdir()
        (disk / "media" / "photo").write_text("a photo")
        project.up()
        try:
            taken, left = backup(safe_compose, project, code=73)
            assert taken.keys() == {"data", "data/a disk/media"}, (taken, left)
            assert "lies in" in left["data/inner"]
            assert "something is mounted there" in left["data/a disk"], left
            _, left = backup(safe_compose, project, "--volume", "./data", code=73)
            assert "something is mounted there" in left["data/a disk"], left
            (project.folder / "safe-compose.toml").write_text(
                '[folders]\n"data/a disk" = "disposable"\n'
            )
            taken, left = backup(safe_compose, project)
            assert "disposable" in left["data/a disk"], left
        finally:
            project.docker("compose", "down", "--timeout", "1")


@pytest.mark.engine
def test_a_folder_is_not_at_rest_while_a_container_mounts_one_above(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(
        f"""
services:
  web: {{{BOX}, volumes: ["./app:/app/data"]}}
  all: {{{BOX}, volumes: [".:/work"]}}
"""
    )
    (project.folder / "app").mkdir()
    with closing(sqlite3.connect(project.folder / "app" / "shop.db")) as database:
        database.execute("CREATE TABLE orders (number)")
        database.execute("INSERT INTO orders VALUES (1), (2)")
        database.commit()
    project.up()
    project.docker("compose", "stop", "web")
    taken, _ = backup(safe_compose, project)
    assert taken["app"]["method"] == "live", taken
    assert [d["tables"][0]["rows"] for d in taken["app"]["sqlite"]] == [2]
    project.docker("compose", "stop", "all")
    taken, _ = backup(safe_compose, project)
    assert taken["app"]["method"] == "cold", taken


@pytest.mark.engine
def test_a_folder_that_is_replaced_by_a_link_meanwhile_is_not_in_the_backup(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    project = compose_project(
        f'services: {{web: {{{BOX}, volumes: ["./uploads:/data"]}}}}', files={"uploads/a": "1"}
    )
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("of somebody else")
    uploads = project.folder / "uploads"
    project.up()
    programs = tmp_path / "programs"
    programs.mkdir()
    wrapper = programs / "docker"
    wrapper.write_text(
        f'#!/bin/sh\ncase " $* " in *source={uploads},*" pack "*) [ -L {uploads} ] ||'
        f" {{ mv {uploads} {tmp_path}/gone; ln -s {tmp_path}/outside {uploads}; }} ;; esac\n"
        f'exec {real_docker()} "$@"\n'
    )
    wrapper.chmod(0o755)
    done = safe_compose(
        "backup", "--volume", "./uploads", cwd=project.folder,
        env={"PATH": f"{programs}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert uploads.is_symlink()
    assert done.returncode == 73, done.stderr
    assert "by a link" in done.stderr, done.stderr
    assert json.loads(safe_compose("list", "--json").stdout)["backups"] == []


@pytest.mark.engine
def test_a_folder_with_a_newline_in_its_name_is_backed_up_and_restored(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    source = json.dumps("./new\nline, 'of \"me")
    project = compose_project(
        f"""
services:
  web: {{{BOX}, volumes: [{{type: bind, source: {source}, target: /data}}]}}
""",
        files={"new\nline, 'of \"me/a": "1"},
    )
    project.up()
    taken, _ = backup(safe_compose, project)
    [name] = taken
    project.docker("compose", "down")
    folder = project.folder / name
    folder.rename(project.folder / "gone")
    require_success(safe_compose("restore", "latest", "--volume", f"./{name}", cwd=project.folder))
    assert (folder / "a").read_text() == "1"


@pytest.mark.engine
def test_the_path_of_another_kind_of_host_is_said_to_be_one(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(
        f"""
services:
  web:
    {{{BOX}, volumes: ['C:\\data:/data', "/host_mnt/c/data:/data2", "./uploads:/uploads"]}}
""",
        files={"uploads/a": "1", "C:\\data/b": "2"},
    )
    taken, left = backup(safe_compose, project)
    assert taken.keys() == {"uploads"}, (taken, left)
    assert "a path of another kind of host" in left["C:\\data"], left
    assert "Docker Desktop" in left["/host_mnt/c/data"], left


@pytest.mark.thorough
def test_owners_that_an_engine_with_user_namespaces_cannot_see_are_named(
    lab: None, safe_compose: SafeCompose
) -> None:
    with private_engine(["busybox:latest"], options=["--userns-remap=default"]) as remapped:
        shop = remapped.folder / "shop"
        uploads = shop / "uploads"
        uploads.mkdir(parents=True)
        photo = uploads / "photo"
        photo.write_bytes(b"a photo")
        for path, mode in ((shop, 0o755), (uploads, 0o755), (photo, 0o644)):
            path.chmod(mode)  # root of such an engine is another user here
            os.chown(path, 1000, 1000)
        (shop / "compose.yaml").write_text(
            "name: shop\nservices:\n"
            f"  app: {{{BOX}, network_mode: none, volumes: [./uploads:/uploads]}}\n"
        )
        remapped.docker("compose", "--project-directory", str(shop), "up", "-d")
        there = {"DOCKER_HOST": remapped.host}
        answer = require_success(safe_compose("backup", cwd=shop, env=there))
    assert (
        "lost in its archive: owners that this engine maps to nobody (2 entries of 65534)"
        in " ".join(answer.stderr.split())
    )
