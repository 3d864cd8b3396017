"""An engine that does not answer everything: deletions go on without sizes, which may take minutes
to tell, and not without events.
"""

import socket
from collections.abc import Iterator
from functools import partial

import pytest

from safe_compose.engine import docker as engine_docker
from testing.engine_proxy import copy, relay, serving
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import docker, require_success, unique, volume_exists
from testing.stacks import JOB


class _EngineProxy:
    """Passes everything on to the engine, but for the question about sizes, which is never
    answered, and the one about events where it is forbidden.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.hides_events = False
        self.host = ""

    def ask(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while chunk := source.recv(65536):
                if b"/system/df" in chunk.split(b"\r\n", 1)[0]:
                    self.asked += 1
                    continue
                if self.hides_events and b"/events" in chunk.split(b"\r\n", 1)[0]:
                    source.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                    continue
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            target.close()


@pytest.fixture
def proxy(lab: None) -> Iterator[_EngineProxy]:
    made = _EngineProxy()
    with serving(partial(relay, asked=made.ask, answered=copy)) as made.host:
        yield made


@pytest.mark.engine
@pytest.mark.thorough
def test_a_deletion_waits_a_few_seconds_for_sizes(
    proxy: _EngineProxy, safe_compose: SafeCompose
) -> None:
    assert engine_docker.SIZES_SECONDS <= 10
    name = unique("loose")
    docker("volume", "create", name)
    docker(
        "run", "--rm", "--network", "none", "-v", f"{name}:/v", "busybox:latest", "touch", "/v/x"
    )
    try:
        env = {"DOCKER_HOST": proxy.host}
        require_success(safe_compose("--explain", "volume", "rm", name, env=env))
        assert proxy.asked == 0
        deleted = require_success(safe_compose(*JOB, "volume", "rm", name, env=env))
        assert "size unknown" in deleted.stderr and not volume_exists(name) and proxy.asked == 2
        require_success(safe_compose("undo", env=env))
        assert volume_exists(name)
    finally:
        docker("volume", "rm", "-f", name)


@pytest.mark.engine
def test_a_proxy_that_hides_events_stops_and_deletes_nothing(
    proxy: _EngineProxy, compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(
        """
services:
  app: {image: "busybox:latest", init: true, command: [sleep, "100000"], volumes: ["data:/data"]}
volumes: {data: {}}
"""
    )
    project.docker("compose", "up", "-d", "--pull", "never")
    project.docker("compose", "exec", "-T", "app", "touch", "/data/photo")
    started = project.docker("compose", "ps", "-q", "app").stdout
    proxy.hides_events = True
    refused = safe_compose(
        *JOB, "compose", "down", "-v", cwd=project.folder, env={"DOCKER_HOST": proxy.host}
    )
    assert refused.returncode == 69, refused.stderr
    assert "events" in refused.stderr and "docker was not run" in refused.stderr
    assert project.docker("compose", "ps", "-q", "app").stdout == started
    assert project.docker("compose", "exec", "-T", "app", "ls", "/data").stdout == "photo\n"
