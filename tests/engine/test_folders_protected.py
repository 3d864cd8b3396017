"""`protect` of a folder that a service mounts: a floor, as for a volume."""

import json
from pathlib import Path

import pytest

from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import require_success

pytestmark = pytest.mark.engine

COMPOSE = """
services:
  web: {image: "busybox:latest", volumes: ["./up [1]:/app/uploads", "./link:/x"]}
"""


def test_a_folder_of_a_service_is_protected_by_its_path(
    compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    project = compose_project(COMPOSE)
    here, path = project.folder, str(project.folder / "up [1]")
    Path(path).mkdir()
    (here / "alias").symlink_to(path)
    registry = sealed_environment / "safe-compose" / "protections.json"
    require_success(safe_compose("protect", "./up [1]/", cwd=here))
    assert f'"{path}"' in registry.read_text()
    assert safe_compose("unprotect", path, "--yes", cwd=here).returncode == 0
    data = json.loads(safe_compose("volumes", "--json", cwd=here).stdout)["volumes"]
    assert [v["name"] for v in data if v["tier"] == "critical"] == [path]
    require_success(safe_compose("protect", "./alias", cwd=here))  # a link to it
    assert f'"{path}"' in registry.read_text()
    linked = here / "link"
    linked.symlink_to(here / "target")
    linked.resolve().mkdir()
    (linked / "main.py").write_text("code")
    require_success(safe_compose("protect", "./link", cwd=here))  # mounted by this link
    shown = json.loads(safe_compose("volumes", "--json", cwd=here).stdout)["volumes"]
    [row] = [v for v in shown if v["name"] == str(here / "target")]
    assert row["tier"] == "critical"  # although it is code
    require_success(safe_compose("unprotect", "./link", "--yes", cwd=here))
    shown = json.loads(safe_compose("volumes", "--json", cwd=here).stdout)["volumes"]
    assert [v["name"] for v in shown] == [path]
    unknown = safe_compose("protect", "./elsewhere", cwd=here)
    assert unknown.returncode == 64
    assert f"mounts {here}/elsewhere; nothing was changed" in unknown.stderr
    assert f"protect --ahead {here}/elsewhere" in unknown.stderr
    require_success(safe_compose("protect", "--ahead", "./elsewhere", cwd=here))
    locked = safe_compose("protect", "--lock", path, cwd=here)
    assert locked.returncode == 64 and "docker deletes no folder" in locked.stderr


def test_a_folder_is_named_by_a_relative_path_too(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(COMPOSE)
    path = project.folder / "up [1]"
    path.mkdir()
    (path / "photo.jpg").write_bytes(bytes(100))
    require_success(safe_compose("backup", "--volume", "./up [1]/", cwd=project.folder))
    shown = safe_compose("volumes", "--volume", "up [1]", "--json", cwd=project.folder)
    assert shown.returncode == 64  # without a slash it is the name of a volume
    shown = safe_compose("volumes", "--volume", "./up [1]", "--json", cwd=project.folder)
    [row] = json.loads(require_success(shown).stdout)["volumes"]
    assert (row["name"], row["location"]) == (str(path), "folder") and row["last_backup"]
    listed = safe_compose("list", "--volume", "./up [1]", "--json", cwd=project.folder)
    assert len(json.loads(require_success(listed).stdout)["backups"]) == 1
