"""A command that would stop the container it is typed in, with a store that is kept there, is
refused before anything stops.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from safe_compose.system.own_container import ids_in
from testing.disks import showing
from testing.fixtures import ProjectFactory
from testing.projects import ROOT, Completed, ComposeProject, docker, real_docker, volume_exists
from testing.stacks import FILES, JOB, write_file
from testing.terminal import PROGRAM

ONE, TWO = "1" * 64, "2" * 64
FROM_INSIDE = f"""
700 690 8:1 /var/lib/docker/containers/{ONE}/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/sda1 rw
701 690 8:1 /var/lib/docker/containers/{ONE}/hostname /etc/hostname rw,relatime - ext4 /dev/sda1 rw
702 690 0:49 / /dev/shm rw,nosuid - tmpfs shm rw
"""
APART = f"60 50 8:2 /containers/{TWO}/hosts /etc/hosts rw - xfs /dev/sdb1 rw"
FROM_THE_HOST = f"""
30 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
99 30 0:49 / /var/lib/docker/containers/{ONE}/mounts/shm rw shared:9 - tmpfs shm rw
98 30 0:50 / /var/lib/docker/overlay2/{TWO}/merged rw shared:8 - overlay overlay rw
"""


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        pytest.param(FROM_INSIDE, {ONE}, id="in a container"),
        pytest.param(APART, {TWO}, id="docker has a disk of its own"),
        pytest.param(FROM_THE_HOST, set(), id="on the host"),
        pytest.param("", set(), id="nothing"),
        pytest.param("7 \n/containers/\n1 2 3 4 /etc/hosts", set(), id="damaged"),
    ],
)
def test_the_container_that_we_run_in_is_told_by_its_own_mounts_alone(
    mounts: str, found: set[str]
) -> None:
    assert ids_in(mounts) == found


CLIENT = "/client"
"""Where a container has the client of the lab's engine."""


def development(project_folder: Path, usr: Path) -> Mapping[str, str]:
    """Destination -> folder of the host, of all that a container needs to run the program under
    test. `usr` is the machine's /usr, as the engine sees it.
    """
    python = {
        str(Path(sys.base_prefix)),
        str(Path(PROGRAM).resolve().parents[1]),
        str(ROOT),
        str(ROOT.resolve()),
    }
    own = {path: path for path in (*python, str(project_folder), "/var/run/docker.sock")}
    system = {"/usr": usr, "/lib": usr / "lib", "/lib64": usr / "lib64"}
    client = {f"{CLIENT}/docker": Path(real_docker()).resolve()}
    return {**own, **{at: str(source) for at, source in (*system.items(), *client.items())}}


def developing(
    project: ComposeProject, compose: str, volumes: str, environment: str = "{}"
) -> None:
    """Start the services of a compose file, up to its line of volumes, and one that safe-compose
    runs in.
    """
    with showing(Path("/usr"), project.folder / "usr") as usr:
        mounts = "".join(
            f'\n      - "{source}:{at}"' for at, source in development(project.folder, usr).items()
        )
        service = f"""
  dev:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    environment: {environment}
    volumes:{mounts}
"""
        text = compose.replace(volumes, f"{service}{volumes}")
        (project.folder / "compose.yaml").write_text(text)
        project.up()


def typed_inside(project: ComposeProject, *words: str) -> Completed:
    # A password in the shell itself would be refused for that.
    environment = (
        "HOME=/root",
        "SAFE_COMPOSE_HOME=/root/store",
        "PGPASSWORD=",
        f"PATH={CLIENT}:/usr/local/bin:/usr/bin:/bin",
    )
    inside = (
        "exec",
        "--workdir",
        str(project.folder),
        *(word for value in environment for word in ("--env", value)),
    )
    return docker(*inside, f"{project.name}-dev-1", PROGRAM, *words, check=False)


@pytest.mark.engine
@pytest.mark.thorough
def test_a_command_that_would_stop_the_container_it_is_typed_in_is_refused(
    compose_project: ProjectFactory,
) -> None:
    project = compose_project(FILES)
    developing(project, FILES, "volumes:\n  uploads:")
    write_file(project)
    refused = typed_inside(project, *JOB, "compose", "down", "-v")
    assert (
        refused.returncode == 73
        and f"safe-compose runs in container {project.name}-dev-1" in refused.stderr
    ), refused.stderr
    assert (
        "from outside of that container" in refused.stderr
        and "docker was not run (73)" in refused.stderr
    )
    assert len(project.running()) == 2 and volume_exists(f"{project.name}_uploads")


SHOP = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_PASSWORD: "${DB_PASSWORD:?}"}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, postgres], interval: 1s, retries: 60}
volumes:
  data:
"""


@pytest.mark.engine
@pytest.mark.thorough
def test_a_new_password_that_would_recreate_the_container_it_is_typed_in_is_refused(
    compose_project: ProjectFactory,
) -> None:
    line = "DB_PASSWORD=first-word-of-all\n"
    project = compose_project(SHOP, files={".env": line})
    developing(project, SHOP, "volumes:\n  data:", '{PGPASSWORD: "${DB_PASSWORD:?}"}')
    refused = typed_inside(project, "rotate-password", "--generate", "--yes", "db")
    assert (
        refused.returncode == 73
        and f"safe-compose runs in container {project.name}-dev-1" in refused.stderr
    ), refused.stderr
    assert (project.folder / ".env").read_text() == line
    assert len(project.running()) == 2
