"""Engines that are too old, cannot be reached or cannot run our program: one sentence and the right
code, nothing deleted, and services as before.
"""

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from testing.engine_proxy import ENGINE, accepting, answering
from testing.fixtures import ProjectFactory, SafeCompose
from testing.matrix import make_certificates
from testing.projects import Completed, ComposeProject, docker, require_success
from testing.stacks import FILES, JOB, read_file, write_file
from testing.terminal import PROGRAM

pytestmark = [pytest.mark.engine, pytest.mark.thorough]


@pytest.fixture
def project(compose_project: ProjectFactory) -> ComposeProject:
    made = compose_project(FILES)
    made.up()
    write_file(made)
    return made


def engine_says(path: str, **changes: object) -> dict[str, Any]:
    """What the engine says of itself, with other words."""
    argv = ["curl", "-s", "--unix-socket", ENGINE, f"http://localhost{path}"]
    done = subprocess.run(argv, check=True, capture_output=True)
    return {**json.loads(done.stdout), **changes}


def require_refusal(done: Completed, project: ComposeProject) -> None:
    assert done.returncode == 69, done.stderr
    assert done.stderr.rstrip().endswith("safe-compose: docker was not run (69)")
    assert "Traceback" not in done.stderr
    assert read_file(project) == "a photo"


def test_an_engine_that_ignores_mounts_or_a_version_that_it_does_not_speak_is_refused(
    project: ComposeProject, safe_compose: SafeCompose
) -> None:
    """Engines before API 1.25 know no `Mounts`: every volume would look empty."""
    down = (*JOB, "compose", "down", "-v")
    with answering(
        {"/version": engine_says("/version", ApiVersion="1.24", Version="1.12.6")}
    ) as host:
        done = safe_compose(*down, cwd=project.folder, env={"DOCKER_HOST": host})
    require_refusal(done, project)
    assert "API 1.24" in done.stderr and "1.13" in done.stderr
    for forced in ("1.99", "1.10", "latest"):
        env = {"DOCKER_API_VERSION": forced}
        done = safe_compose(*down, cwd=project.folder, env=env)
        require_refusal(done, project)
        assert "next: unset DOCKER_API_VERSION" in done.stderr, forced
    # An older version that the engine still speaks changes nothing.
    env = {"DOCKER_API_VERSION": "1.30"}
    require_success(safe_compose(*down, cwd=project.folder, env=env))
    require_success(safe_compose("undo", cwd=project.folder, env=env))
    assert read_file(project) == "a photo"


def test_an_architecture_without_our_program_is_backed_up_by_the_engine_itself(
    project: ComposeProject, safe_compose: SafeCompose
) -> None:
    with answering({"/version": engine_says("/version", Arch="riscv64")}) as host:
        env = {"DOCKER_HOST": host}
        done = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder, env=env)
        require_success(done)
        assert "riscv64" in done.stderr
        require_success(safe_compose("undo", cwd=project.folder, env=env))
    assert read_file(project) == "a photo"


HIDING = 'mount -t tmpfs -o mode=0 none "$0" && exec "$@"'


@pytest.mark.parametrize("safety", ["backup", "trash"])
def test_an_engine_whose_storage_is_hidden_from_us_is_asked_for_all_of_it(
    project: ComposeProject, sealed_environment: Path, safety: str
) -> None:
    """As that of another user's rootless engine, or one in another mount namespace."""
    (project.folder / "safe-compose.toml").write_text(f'[backup]\nsafety = "{safety}"\n')
    root = docker("info", "--format", "{{.DockerRootDir}}").stdout.strip()
    alone = ("unshare", "--mount", "sh", "-c", HIDING, root)

    def run(*argv: str) -> Completed:
        return subprocess.run(
            [*alone, *argv], cwd=project.folder, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=300,
        )  # fmt: skip

    assert require_success(run("ls", "-A", root)).stdout == ""
    gone = require_success(run(PROGRAM, *JOB, "compose", "down", "-v"))
    assert project.volumes() == []
    assert ("in the trash for 30 days" in gone.stderr) == (safety == "trash"), gone.stderr
    require_success(run(PROGRAM, "undo"))
    assert read_file(project) == "a photo"
    kept = json.loads(require_success(run(PROGRAM, "backup", "--json")).stdout)["backup"]
    write_file(project, "another")
    require_success(run(PROGRAM, "restore", kept["id"], "--confirm", project.name))
    assert read_file(project) == "a photo"


def test_volumes_that_are_not_where_a_rootless_engine_says_are_backed_up_instead_of_moved(
    project: ComposeProject, safe_compose: SafeCompose
) -> None:
    (project.folder / "safe-compose.toml").write_text('[backup]\nsafety = "trash"\n')
    said = engine_says(
        "/info",
        DockerRootDir="/home/somebody/.local/share/docker",
        SecurityOptions=["name=seccomp,profile=builtin", "name=rootless"],
    )
    with answering({"/info": said}) as host:
        env = {"DOCKER_HOST": host}
        gone = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder, env=env)
        require_success(gone)
        assert "cannot go into the trash: its folder is " in gone.stderr
        assert "it is backed up" in gone.stderr and project.volumes() == []
        require_success(safe_compose("undo", cwd=project.folder, env=env))
    assert read_file(project) == "a photo"


@contextmanager
def tls_engine(folder: Path) -> Iterator[str]:
    """The engine behind TLS; it asks for a client's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server-cert.pem", folder / "server-key.pem")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(near: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(near, server_side=True) as opened:
            opened.recv(1)

    address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    with accepting(listener, serve):
        yield address


def test_certificates_that_do_not_fit_are_named_in_dockers_words(
    project: ComposeProject, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    make_certificates(tmp_path / "right")
    make_certificates(tmp_path / "wrong")
    half = tmp_path / "half"
    shutil.copytree(tmp_path / "right", half)
    (half / "key.pem").unlink()
    with tls_engine(tmp_path / "right") as host:
        for folder in ("wrong", "half"):
            env = {
                "DOCKER_HOST": host,
                "DOCKER_TLS_VERIFY": "1",
                "DOCKER_CERT_PATH": str(tmp_path / folder),
            }
            done = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder, env=env)
            require_refusal(done, project)
            # Which of them docker gets to see depends on whether it still writes when it is refused.
            named = ("x509:", "tls:", "connection reset", "broken pipe", "certificate")
            assert any(words in done.stderr for words in named), (folder, done.stderr)


def test_an_ssh_host_that_asks_is_refused_with_the_command_to_try(
    project: ComposeProject, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    """ssh stands in: it fails as it does where it may not ask, or is never heard of again. It reads
    first, since docker tells of its own failed write if it can.
    """
    ssh = tmp_path / "ssh"
    ssh.write_text(
        "#!/bin/sh\n[ -t 0 ] && exec sleep 1000\n"
        "head -c 1 >/dev/null\necho 'root@far: Permission denied (publickey,password).' >&2\nexit 255\n"
    )
    ssh.chmod(0o755)
    env = {"DOCKER_HOST": "ssh://root@far:2222", "PATH": f"{tmp_path}:/usr/local/bin:/usr/bin:/bin"}
    done = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder, env=env)
    require_refusal(done, project)
    assert "Permission denied (publickey,password)" in done.stderr
    assert "ssh -o BatchMode=yes -l root -p 2222 -- far docker info" in done.stderr
    assert docker("ps", "-q", "--filter", f"name={project.name}").stdout
