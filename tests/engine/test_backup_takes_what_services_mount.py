"""A backup holds what a project's services mount, not what a deletion would take; what it leaves
out is named with its reason.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core import backup_set, folders
from safe_compose.core.backup import Backup, VolumeRecord
from safe_compose.core.observed import (
    HELPER_LABEL,
    LOCK_LABEL,
    NUMBER_LABEL,
    ONEOFF_LABEL,
    PROJECT_LABEL,
    SERVICE_LABEL,
    TRASH_LABEL,
    Container,
    DeclaredMount,
    DeclaredVolume,
    FolderMount,
    Mount,
    Observed,
    Project,
    Volume,
)
from safe_compose.store.catalogue import checks
from testing.approvals import approve_settings
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import docker, read_in_volume, require_success, unique

BOX = 'image: "busybox:latest", init: true, command: [sleep, "100000"]'


# -- the set, without an engine --------------------------------------------------------------------


def container(
    name: str, *volumes: str, binds: tuple[str, ...] = (), project: str = "shop", **labels: str
) -> Container:
    mounts = [Mount("volume", volume, "", f"/{volume}") for volume in volumes]
    mounts += [Mount("bind", None, path, "/data") for path in binds]
    labels = {PROJECT_LABEL: project, SERVICE_LABEL: name, **labels}
    return Container(name, name, "app", "sha256:0", "running", labels=labels, mounts=tuple(mounts))


def names(observed: Observed) -> set[str]:
    return {volume.name for volume in backup_set.select_volumes(observed).volumes}


def test_volumes_count_by_declaration_by_label_and_by_any_container_of_the_project() -> None:
    own = {PROJECT_LABEL: "shop"}
    volumes = [
        "declared",
        "external",
        "idle",
        "renamed",
        "one-off",
        "inherited",
        "strange",
        "theirs",
    ]
    volumes += ["anonymous-1", "anonymous-2"]
    observed = Observed(
        "unix:///x",
        "E",
        volumes=(
            *(Volume(name) for name in volumes),
            Volume("labelled", labels=own),
            Volume("trashed", labels={**own, TRASH_LABEL: "run"}),
            Volume("looks-like-trash", labels={TRASH_LABEL: "run"}),
        ),
        containers=(
            container("web", "inherited", "looks-like-trash"),
            container("gone", "renamed"),
            container("run", "one-off", **{ONEOFF_LABEL: "True"}),
            container("theirs", "theirs", project="other"),
            container("helper", "strange", **{HELPER_LABEL: "run"}),
            container("lock", "strange", **{LOCK_LABEL: "strange"}),
            container("planted", "anonymous-1", **{HELPER_LABEL: "run", NUMBER_LABEL: "1"}),
            container("planted-too", "anonymous-2", **{LOCK_LABEL: "x", NUMBER_LABEL: "1"}),
        ),
        project=Project(
            "shop",
            "folder",
            "config",
            volumes=(
                DeclaredVolume("declared", "declared"),
                DeclaredVolume("external", "external", external=True),
            ),
            idle=(DeclaredMount("report", "app", "idle", "/idle"),),
        ),
    )
    wanted = {
        "declared",
        "external",
        "idle",
        "renamed",
        "one-off",
        "inherited",
        "labelled",
        "looks-like-trash",
    }
    wanted |= {
        "anonymous-1",
        "anonymous-2",
    }  # a label that a service or its image plants leaves nothing out
    assert names(observed) == wanted
    assert (
        names(Observed("unix:///x", "E", volumes=observed.volumes, containers=observed.containers))
        == set()
    )


def test_what_is_not_there_is_named_with_the_reason() -> None:
    observed = Observed(
        "unix:///x",
        "E",
        containers=(container("web", binds=("/srv/photos", "/var/run/docker.sock", "/proc/1")),),
        project=Project(
            "shop",
            "folder",
            "config",
            volumes=(DeclaredVolume("a", "shop_a"), DeclaredVolume("b", "b", external=True)),
            mounts=(
                DeclaredMount("later", "app", "shop_a", "/a"),
                DeclaredMount("later", "app", "b", "/b"),
            ),
        ),
    )
    found = {(o.name, o.kind): o for o in backup_set.select_volumes(observed).omitted}
    assert set(found) == {
        ("shop_a", "volume"),
        ("b", "volume"),
    }
    assert found["shop_a", "volume"].reason == "not created yet (service later)"
    assert found["b", "volume"].reason == "external, and it is not there"
    assert not any(o.lacking for o in found.values())


def test_whatever_a_compose_file_calls_its_things_the_backup_stays_readable() -> None:
    mounts = tuple(FolderMount("/srv/x" * 900, f"web{n}", "/data") for n in range(300))
    strange = (DeclaredVolume("a", "no name of a volume\n"), DeclaredVolume("b", "b" * 9000))
    project = Project("shop", "folder", "config", volumes=strange, folders=mounts)
    observed = Observed("unix:///x", "E", project=project)
    [mounted] = folders.list_mounted(observed)
    omitted = (
        *backup_set.select_volumes(observed).omitted,
        backup_set.omit_folder(mounted.name, mounted.where),
    )
    record = VolumeRecord("shop_data", "local", {}, {}, "", "critical", "files", False, "cold")
    when = "2026-11-22T07:27:00Z"
    kept = Backup(
        "20261122T072700Z-3f9a1c",
        1,
        when,
        "shop",
        "x",
        "E",
        "manual",
        (),
        "/x",
        (record,),
        omitted=omitted,
    )
    assert len(omitted) == 3 and checks.find_fault(kept) is None
    assert "; web4:/data and 295 more" in omitted[-1].reason


# -- against a real engine -------------------------------------------------------------------------


@pytest.fixture
def outside(lab: None) -> Iterator[tuple[str, str]]:
    """Two volumes that no project owns, each with a file. Ask for it before the project that uses
    them, which goes first then.
    """
    made = unique("outside"), unique("idle")
    for name in made:
        docker("volume", "create", name)
        read_in_volume(name, "touch", "/v/file")
    yield made
    for name in made:
        docker("volume", "rm", name)


def everything(external: str, idle: str, service: str = "app") -> str:
    return f"""
services:
  {service}:
    {{{BOX}, volumes: ["uploads:/uploads", "outside:/outside", "cache:/var/cache", "/nameless", "./conf:/conf:ro"]}}
  later: {{{BOX}, volumes: ["later:/later"], deploy: {{replicas: 0}}}}
  report: {{{BOX}, volumes: ["idle:/idle"], profiles: [never]}}
volumes:
  uploads:
  cache:
  later:
  outside: {{external: true, name: {external}}}
  idle: {{external: true, name: {idle}}}
"""


def backed_up(safe_compose: SafeCompose, *words: str, cwd: Path) -> dict[str, Any]:
    answer = require_success(safe_compose("backup", "--json", *words, cwd=cwd))
    shape = json.loads(answer.stdout)
    return {**shape["backup"], "omitted": shape["omitted"]}


@pytest.mark.thorough
@pytest.mark.engine
def test_external_locked_inherited_idle_and_left_over_volumes_are_in_the_backup(
    outside: tuple[str, str],
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    tmp_path: Path,
) -> None:
    external, idle = outside
    project = compose_project(everything(external, idle), files={"conf/app.conf": "x"})
    project.up("app")
    prefix = project.name
    app = f"{prefix}-app-1"
    for place in ("uploads", "outside", "nameless", "var/cache"):
        docker("exec", app, "touch", f"/{place}/file")
    project.docker("compose", "up", "--detach", "--force-recreate", "--pull", "never", "app")
    nameless = _nameless(app)
    project.docker("compose", "run", "--detach", "-v", f"{prefix}_scratch:/scratch", "app")
    read_in_volume(f"{prefix}_scratch", "touch", "/v/file")
    # the service has another name now: its container, and what only that mounts, stay
    (project.folder / "compose.yaml").write_text(everything(external, idle, service="web"))
    try:
        require_success(safe_compose("protect", "--lock", f"{prefix}_uploads"))
        wanted = {f"{prefix}_uploads", f"{prefix}_scratch", external, idle, nameless}
        made = backed_up(safe_compose, cwd=project.folder)
        assert wanted <= set(made["volumes"]) and made["lacking"] == []
        omitted = {o["name"]: o for o in made["omitted"]}
        assert omitted[f"{prefix}_cache"]["reason"].startswith("disposable: ")
        assert omitted[f"{prefix}_later"]["reason"] == "not created yet (service later)"
        assert "web:/conf, read-only" in omitted[str(project.folder / "conf")]["reason"]
        manifest = json.loads((Path(made["path"]) / "manifest.json").read_text())
        assert manifest["omitted"] == made["omitted"]
        assert f"- `{project.folder}/conf`" in (Path(made["path"]) / "RESTORE.md").read_text()
        shown = require_success(safe_compose("show", made["id"], cwd=project.folder)).stdout
        assert (
            f"not in this backup: volume {prefix}_later: not created yet (service later)\n" in shown
        )

        run = require_success(
            safe_compose("schedule", "run", f"--project={prefix}", "--json", cwd=project.folder)
        )
        scheduled = json.loads(run.stdout)["run"]
        assert scheduled["omitted"] == made["omitted"]
        kept = json.loads(
            require_success(safe_compose("list", "--json", "--project", prefix)).stdout
        )["backups"][0]
        assert kept["id"] == scheduled["backup"] and set(kept["volumes"]) == set(made["volumes"])

        by_name = backed_up(safe_compose, "--project", prefix, cwd=tmp_path)
        assert wanted - {idle} <= set(by_name["volumes"])
    finally:
        docker("rm", "-f", f"safe-compose-lock-{prefix}_uploads", check=False)


MIXED = f"""
services:
  app: {{{BOX}, volumes: ["uploads:/uploads", "outside:/outside"]}}
volumes:
  uploads:
  outside: {{external: true, name: OUTSIDE}}
"""


@pytest.mark.thorough
@pytest.mark.engine
def test_a_projects_settings_hold_for_its_own_volumes_beside_an_external_one(
    outside: tuple[str, str],
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    tmp_path: Path,
) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    settings = f'[offsite.disk]\nurl = "file://{copies}"\n[volumes]\nuploads = "critical"\n'
    project = compose_project(
        MIXED.replace("OUTSIDE", outside[0]), files={"safe-compose.toml": settings}
    )
    approve_settings(project.folder)
    project.docker("compose", "create", "--pull", "never")
    run = require_success(
        safe_compose("schedule", "run", f"--project={project.name}", "--json", cwd=project.folder)
    )
    scheduled = json.loads(run.stdout)["run"]
    made = json.loads(
        require_success(
            safe_compose("list", "--json", "--project", project.name, cwd=project.folder)
        ).stdout
    )["backups"]
    own, others = made
    assert scheduled["backup"] == own["id"] and scheduled["faults"] == []
    assert own["volumes"] == [f"{project.name}_uploads"] and others["volumes"] == [outside[0]]
    assert [copy["state"] for copy in own["offsite"]] == ["verified"] and others["offsite"] == []
    [told] = [o for o in scheduled["omitted"] if o["kind"] == "volume"]
    assert told["name"] == outside[0] and not told["lacking"] and others["id"] in told["reason"]

    project.docker("compose", "down")
    docker("volume", "rm", f"{project.name}_uploads")
    after = {o["name"]: o["reason"] for o in backed_up(safe_compose, cwd=project.folder)["omitted"]}
    assert (
        after[f"{project.name}_uploads"] == f"it is not there any more; backup {own['id']} holds it"
    )


IN_PROFILES = """
services:
  app: {BOX, volumes: ["uploads:/uploads"]}
  db:
    image: postgres:15
    profiles: [data]
    environment: {POSTGRES_PASSWORD: canary-profile}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, postgres], interval: 1s, retries: 60}
  archive:
    image: postgres:15
    profiles: [archive]
    environment: {POSTGRES_PASSWORD: canary-profile}
    volumes: ["old:/var/lib/postgresql/data", "./old-files:/import"]
volumes: {uploads: , data: , old: }
""".replace("BOX", BOX)
"""Nobody names a profile when a backup is made: one database runs all the same, one does not."""


@pytest.mark.thorough
@pytest.mark.engine
def test_a_database_of_a_profile_is_backed_up_where_it_runs_and_named_where_it_was_never_started(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    project = compose_project(IN_PROFILES)
    data, old = f"{project.name}_data", f"{project.name}_old"
    project.docker(*("compose", "--profile", "data", "up", "--detach", "--wait", "--pull", "never"))
    project.psql("CREATE TABLE t AS SELECT 1 AS n", user="postgres", database="postgres")
    dry = ("schedule", "install", "--dry-run", "--dir", str(tmp_path / "units"))
    shown = require_success(safe_compose(*dry, cwd=project.folder))
    assert f"not in this backup: volume {old}: not created yet (service archive)" in shown.stderr
    assert data not in shown.stderr
    run = require_success(
        safe_compose("schedule", "run", f"--project={project.name}", "--json", cwd=project.folder)
    )
    assert json.loads(run.stdout)["run"]["faults"] == []
    made = backed_up(safe_compose, cwd=project.folder)
    assert data in made["volumes"] and made["lacking"] == []
    manifest = json.loads((Path(made["path"]) / "manifest.json").read_text())
    [record] = [v for v in manifest["volumes"] if v["name"] == data]
    assert record["method"] == "dump"
    [database] = record["statistics"]["databases"]
    assert [t["rows"] for t in database["tables"]] == [1]
    # stopped, it is archived, and nobody has to name its profile for that either
    project.docker("compose", "--profile", "data", "stop", "db")
    made = backed_up(safe_compose, cwd=project.folder)
    manifest = json.loads((Path(made["path"]) / "manifest.json").read_text())
    assert data in {v["name"] for v in manifest["volumes"]} and made["lacking"] == []


def _nameless(name: str) -> str:
    shown = json.loads(docker("inspect", name).stdout)[0]["Mounts"]
    found: str = next(m["Name"] for m in shown if m["Destination"] == "/nameless")
    return found
