"""What doctor tells of the project in a folder: lost data found again, databases without a name,
backups, drills, locks.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.observed import Container, DeclaredVolume, Observed, Project, Volume
from safe_compose.core.predecessors import find_suspects
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, remove_project, require_success

P, V, W = (
    "com.docker.compose.project",
    "com.docker.compose.volume",
    "com.docker.compose.project.working_dir",
)


def volume(name: str, project: str, key: str, *, made: str = "2026-01-01T00:00:00Z") -> Volume:
    return Volume(name, labels={P: project, V: key}, created_at=made)


def container(project: str, folder: str, *, state: str = "exited") -> Container:
    labels = {P: project, "com.docker.compose.service": "db", W: folder}
    return Container(
        id=project, name=f"{project}-db-1", image="x", image_id="x", state=state, labels=labels
    )


def look(*volumes: Volume, containers: tuple[Container, ...] = ()) -> list[tuple[str, bool]]:
    declared = tuple(DeclaredVolume(key, f"shop_{key}") for key in ("data", "up"))
    project = Project("shop", "folder", "config", working_dir="/srv/shop", volumes=declared)
    now = volume("shop_data", "shop", "data", made="2026-05-05T00:00:00Z")
    observed = Observed(
        "unix://", "E", volumes=(now, *volumes), containers=containers, project=project
    )
    return [
        (f"{s.volume} -> {s.of}", s.sure)
        for s in find_suspects(observed, lambda folder: folder == "/srv/other")
    ]


OLD, UP = volume("old_data", "old", "data"), volume("old_up", "old", "up")


@pytest.mark.parametrize(
    ("volumes", "containers", "found"),
    [
        pytest.param((OLD,), (), [], id="another project's, which is only down"),
        pytest.param(
            (OLD,),
            (container("old", "/srv/shop"),),
            [("old_data -> shop_data", True)],
            id="this same folder",
        ),
        pytest.param(
            (OLD,),
            (container("old", "/srv/gone"),),
            [("old_data -> shop_data", True)],
            id="its folder is gone",
        ),
        pytest.param((OLD,), (container("old", "/srv/other"),), [], id="it lives elsewhere"),
        pytest.param(
            (OLD, UP),
            (),
            [("old_data -> shop_data", False), ("old_up -> shop_up", False)],
            id="all keys",
        ),
        pytest.param((OLD, volume("old_x", "old", "x")), (), [], id="other keys too"),
        pytest.param(
            (volume("shop1_data", "shop1", "data"),),
            (),
            [("shop1_data -> shop_data", False)],
            id="a similar name",
        ),
        pytest.param(
            (volume("shop1_data", "shop1", "data", made="2026-06-06T00:00:00Z"),),
            (),
            [],
            id="made later",
        ),
        pytest.param(
            (volume("shop_dat", "shop", "dat"),),
            (),
            [("shop_dat -> shop_data", False)],
            id="a key that was renamed",
        ),
        pytest.param(
            (Volume("a" * 64, labels={P: "shop1", V: "data"}),), (), [], id="without a name"
        ),
    ],
)
def test_volumes_that_look_like_earlier_ones(
    volumes: tuple[Volume, ...], containers: tuple[Container, ...], found: list[tuple[str, bool]]
) -> None:
    assert look(*volumes, containers=containers) == found


COMPOSE = """\
services:
  app: {image: "busybox:latest", command: [sleep, "1000000"], init: true, network_mode: none, volumes: ["uploads:/app/uploads"]}
  db: {image: "postgres:15", environment: {POSTGRES_PASSWORD: canary-77aa}}
  other: {image: "postgres:15", environment: {POSTGRES_PASSWORD: canary-77aa}, volumes: ["pg:/var/lib/postgresql/data"]}
volumes: {uploads: , pg: }
"""


@pytest.mark.engine
def test_doctor_finds_what_a_renamed_folder_lost_and_a_database_without_a_name(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(COMPOSE)
    project.docker("compose", "create", "--pull", "never", "app")
    put = ("busybox:latest", "sh", "-c", "echo photo > /v/f")
    docker("run", "--rm", "--network", "none", "-v", f"{project.name}_uploads:/v", *put)
    project.docker("compose", "down")
    moved = docker("volume", "create").stdout.strip()  # as a changed mount path leaves one
    files = (
        "cd /v && mkdir base global pg_wal && echo 15 > PG_VERSION && head -c 100000 /dev/zero >"
        " base/1"
    )
    docker(
        "run", "--rm", "--network", "none", "-v", f"{moved}:/v", "busybox:latest", "sh", "-c", files
    )
    renamed = ComposeProject(project.folder.rename(project.folder.with_name(f"{project.name}-new")))
    try:
        renamed.docker("compose", "create", "--pull", "never")
        found = doctor(safe_compose, renamed.folder)
        whose = found["project"]
        earlier = {old["volume"]: old["of"] for old in whose["predecessors"]}
        assert earlier[f"{project.name}_uploads"] == f"{renamed.name}_uploads"
        assert earlier[moved] == f"{renamed.name}_pg"
        [nameless] = whose["anonymous_databases"]
        assert (nameless["container"], nameless["path"]) == (
            f"{renamed.name}-db-1",
            "/var/lib/postgresql/data",
        )
        said = "\n".join(found["attention"])
        assert f"is data missing? volume {project.name}_uploads" in said
        assert f"is data missing? volume {moved}" in said
        assert f"{renamed.name}-db-1 keeps its database in a volume without a name" in said
        assert f"volume {renamed.name}_uploads is critical and has no verified backup" in said
        assert whose["passwords"] == []  # it does not run
        assert (
            safe_compose(
                "backup", "--volume", f"{renamed.name}_uploads", cwd=renamed.folder
            ).returncode
            == 0
        )
        after = doctor(safe_compose, renamed.folder)
        assert f"volume {renamed.name}_uploads is critical" not in "\n".join(after["attention"])
        [uploads] = [
            v for v in after["project"]["volumes"] if v["name"] == f"{renamed.name}_uploads"
        ]
        assert (uploads["backup"]["level"], uploads["drill"], uploads["lock"]) == ("L2", None, None)
        assert "canary-77aa" not in json.dumps(found)
        assert "may_be_an_earlier" in safe_compose("doctor", "--verbose", cwd=renamed.folder).stdout
    finally:
        remove_project(renamed.name)
        docker("volume", "rm", moved)


IN_FOLDERS = """
services:
  db: {image: "postgres:15", environment: {POSTGRES_PASSWORD: x}, volumes: ["./pg:/var/lib/postgresql/data"]}
  other: {image: "busybox:latest", volumes: ["./pg:/pg", "./up:/app/uploads"]}
"""


@pytest.mark.engine
def test_doctor_finds_a_database_in_a_folder_that_two_services_share_and_git_does_not_ignore(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(IN_FOLDERS)
    subprocess.run(["git", "init", "-q", project.folder], check=True)
    for name in ("pg", "up"):
        (project.folder / name).mkdir()
    project.docker("compose", "create", "--pull", "never")
    found = doctor(safe_compose, project.folder)
    path = str(project.folder / "pg")
    folder, uploads = found["project"]["folders"]
    assert uploads["path"] == f"{project.folder}/up" and uploads["kind"] == "files"
    assert (folder["path"], folder["kind"], folder["services"]) == (
        path,
        "postgres",
        ["db", "other"],
    )
    said = "\n".join(found["attention"])
    assert f"the postgres database in folder {path} is shared: db and other may all write" in said
    assert f"the data in folder {project.folder}/up is in the git work tree" in said
    assert f"Add /pg/ to {project.folder}/.gitignore" in said
    tables = safe_compose("doctor", "--verbose", cwd=project.folder).stdout
    assert "# data in folders of the host" in tables and f"{path}\tpostgres\tdb,other" in tables
    (project.folder / ".gitignore").write_text("pg\n/up/\n")
    (project.folder / "compose.yaml").write_text(IN_FOLDERS.replace('"./pg:/pg", ', ""))
    project.docker("compose", "create", "--pull", "never")
    after = doctor(safe_compose, project.folder)
    assert after["project"]["folders"][0]["problems"] == []
    assert f"folder {path} is critical and has no verified backup" in "\n".join(after["attention"])
    [lost] = after["losses"]
    assert (
        lost["not_backed_up"] == [path, f"{project.folder}/up"]
        and lost["locations"][0]["location"] == "folder"
    )
    (project.folder / "up/photo.jpg").write_bytes(bytes(100))
    require_success(safe_compose("backup", "--volume", f"{project.folder}/up", cwd=project.folder))
    again = doctor(safe_compose, project.folder)
    known = {v["name"]: v for v in again["project"]["volumes"]}
    assert known[f"{project.folder}/up"]["backup"]["level"] == "L2"
    here = {one["name"]: one["here"] for one in again["losses"][0]["locations"]}
    assert here[path] is None and here[f"{project.folder}/up"]


@pytest.mark.engine
def test_doctor_finds_databases_in_the_layer_of_a_container(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    project = compose_project('services: {app: {image: "busybox:latest", volumes: ["./up:/up"]}}')
    project.docker("compose", "create", "--pull", "never")
    container = f"{project.name}-app-1"
    made = tmp_path / "made"
    (made / "app").mkdir(parents=True)
    (made / "app/shop.db").write_bytes(b"SQLite format 3\0" + bytes(84))
    (made / "var/lib/pg/global").mkdir(parents=True)
    (made / "var/lib/pg/global/pg_control").write_bytes(bytes(8192))
    docker("cp", f"{made}/.", f"{container}:/")
    found = doctor(safe_compose, project.folder)
    assert sorted(one["path"] for one in found["project"]["layer_databases"]) == [
        "/app/shop.db",
        "/var/lib/pg",
    ]
    said = "\n".join(found["attention"])
    assert f"{container} keeps the SQLite database /app/shop.db in its own layer" in said
    assert "Mount a volume at /app, " in said and "Mount a volume at /var/lib/pg, " in said
    [lost] = found["losses"]
    assert lost["not_backed_up"] == [f"layer:{container}"]
    assert f"the layer of container {container} is critical" in said


@pytest.mark.engine
def test_doctor_says_once_what_keeps_it_from_looking(
    tmp_path: Path, safe_compose: SafeCompose
) -> None:
    (tmp_path / "compose.yaml").write_text("services: [\n")
    broken = (
        "compose cannot load the project of this folder: docker compose config --quiet says why"
    )
    assert broken in doctor(safe_compose, tmp_path)["attention"]
    (tmp_path / "safe-compose.toml").write_text("[volumes]\ndata = 'importnt'\n")
    [fault] = [
        told for told in doctor(safe_compose, tmp_path)["attention"] if "safe-compose.toml" in told
    ]
    assert 'a tier is "critical"' in fault


def doctor(safe_compose: SafeCompose, folder: Path) -> dict[str, Any]:
    done = safe_compose("doctor", "--json", cwd=folder)
    assert done.returncode == 1, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
