"""`protect` of a folder that a service mounts: a floor, as for a volume."""

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
    require_success(safe_compose("protect", "./alias", cwd=here))  # a link to it
    assert f'"{path}"' in registry.read_text()
    unknown = safe_compose("protect", "./elsewhere", cwd=here)
    assert unknown.returncode == 64
    assert f"mounts {here}/elsewhere; nothing was changed" in unknown.stderr
    assert f"protect --ahead {here}/elsewhere" in unknown.stderr
    require_success(safe_compose("protect", "--ahead", "./elsewhere", cwd=here))
    locked = safe_compose("protect", "--lock", path, cwd=here)
    assert locked.returncode == 64 and "docker deletes no folder" in locked.stderr
