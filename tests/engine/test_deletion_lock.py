"""`protect --lock`: docker itself refuses to delete a volume, whoever asks and however, until a
person lets it go.
"""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_compose.engine import helper_image
from testing.fixtures import ProjectFactory, SafeCompose
from testing.no_program import without_program
from testing.private_engine import PrivateEngine, private_engine
from testing.projects import docker, unique
from testing.terminal import Person

pytestmark = [pytest.mark.engine, pytest.mark.matrix]

APP = """
services:
  app: {image: "busybox:latest", init: true, command: [sleep, "100000"], volumes: ["uploads:/app/uploads"]}
volumes: {uploads: }
"""


@pytest.fixture
def volume(lab: None) -> Iterator[str]:
    """A volume with a file in it, and whatever locks it, removed after the test."""
    name = unique("locked")
    docker("volume", "create", name)
    docker(
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        f"{name}:/v",
        "busybox:latest",
        "touch",
        "/v/photo",
    )
    yield name
    docker("rm", "-f", f"safe-compose-lock-{name}", check=False)
    docker("volume", "rm", "-f", name, check=False)


def exists(name: str) -> bool:
    return docker("volume", "inspect", name, check=False).returncode == 0


def lock_of(safe_compose: SafeCompose, name: str) -> str | None:
    answer = safe_compose("volumes", "--json")
    assert answer.returncode == 0, answer.stderr
    [found] = [v for v in json.loads(answer.stdout)["volumes"] if v["name"] == name]
    assert found["in_use_by"] == []
    lock: str | None = found["lock"]
    return lock


def raw_delete(path: str, method: str = "DELETE", address: str = "/var/run/docker.sock") -> int:
    """The status of one request to the engine's own API, as any other client would send it."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(address)
        wire.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\nConnection:"
            " close\r\n\r\n".encode()
        )
        return int(wire.makefile("rb").readline().split()[1])


def test_nobody_deletes_a_locked_volume_until_a_person_types_its_name(
    volume: str, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    missing = safe_compose("protect", "--lock", unique("nowhere"))
    assert missing.returncode == 64 and "there is no volume" in missing.stderr
    made = safe_compose("protect", "--lock", volume)
    assert made.returncode == 0 and "docker refuses to delete it" in made.stderr
    assert lock_of(safe_compose, volume) == "running"
    for refused in (
        docker("volume", "rm", volume, check=False),
        docker("volume", "rm", "-f", volume, check=False),
    ):
        assert refused.returncode != 0 and "in use" in refused.stderr
    assert raw_delete(f"/volumes/{volume}?force=1") == 409

    through = safe_compose("volume", "rm", volume)
    assert through.returncode == 1 and "in use" in through.stderr
    assert (
        "is locked against deletion, so docker refuses; to let it go: safe-compose unprotect"
        f" {volume}" in through.stderr
    )
    explained = json.loads(safe_compose("--explain", "--json", "volume", "rm", volume).stdout)
    assert explained["verdict"] == "pass" and explained["spared"] == [
        {"name": volume, "why": "locked against deletion: docker refuses"}
    ]

    for words in (("--yes",), ("--confirm", "wrong")):
        unasked = safe_compose("unprotect", volume, *words)
        assert unasked.returncode == 77 and f"--confirm '{volume}'" in unasked.stderr
    person = Person("unprotect", volume, cwd=tmp_path)
    person.sees(f"type '{volume}': ")
    person.types(volume)
    assert person.leaves_with() == 0
    assert lock_of(safe_compose, volume) is None
    docker("volume", "rm", volume)


def test_a_lock_that_was_lifted_for_a_while_or_removed_by_hand_comes_back(
    volume: str, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    assert safe_compose("protect", "--lock", volume).returncode == 0
    docker("rm", "-f", f"safe-compose-lock-{volume}")
    assert lock_of(safe_compose, volume) == "missing"
    again = safe_compose("volume", "rm", volume)
    assert (
        again.returncode == 1
        and "was missing and is there again" in again.stderr
        and exists(volume)
    )

    lifted = safe_compose("unprotect", "--for", "10m", volume, "--confirm", volume)
    assert lifted.returncode == 0 and lock_of(safe_compose, volume) is None
    assert safe_compose("volume", "rm", volume).returncode == 77, "a lifted lock is no permission"
    registry = sealed_environment / "safe-compose" / "protections.json"
    shape = json.loads(registry.read_text())
    shape["protections"][volume]["suspended_until"] = "2026-01-01T00:00:00Z"
    registry.write_text(json.dumps(shape))
    assert safe_compose("volume", "rm", volume).returncode == 1 and exists(volume)
    assert lock_of(safe_compose, volume) == "running"


def test_compose_down_leaves_a_locked_volume_and_says_why(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(APP)
    project.up()
    name = f"{project.name}_uploads"
    try:
        assert safe_compose("protect", "--lock", name).returncode == 0
        down = safe_compose("compose", "down", "-v", cwd=project.folder)
        assert down.returncode == 0 and f"volume {name} is locked against deletion" in down.stderr
        assert project.containers() == [] and exists(name)
    finally:
        docker("rm", "-f", f"safe-compose-lock-{name}", check=False)


@pytest.fixture(scope="module")
def engine(lab: None) -> Iterator[PrivateEngine]:
    with private_engine(["busybox:latest"]) as started:
        yield started


def test_every_prune_spares_what_is_locked_also_after_the_daemon_was_killed(
    engine: PrivateEngine, safe_compose: SafeCompose
) -> None:
    there = {"DOCKER_HOST": engine.host}
    for name in ("kept", "loose"):
        engine.docker("volume", "create", name)
    assert safe_compose("protect", "--lock", "kept", env=there).returncode == 0
    engine.docker("container", "prune", "-f")
    engine.docker("volume", "prune", "-f", *engine.all_volumes)
    assert engine.volumes() == {"kept"}
    engine.docker("system", "prune", "-af", "--volumes")
    address = engine.host.removeprefix("unix://")
    assert (
        raw_delete("/volumes/prune", "POST", address) == 200
        and raw_delete("/volumes/kept?force=1", address=address) == 409
    )
    engine.lose_power()
    engine.start()
    engine.docker("system", "prune", "-af", "--volumes")
    assert engine.volumes() == {"kept"}
    listed = json.loads(safe_compose("volumes", "--json", env=there).stdout)["volumes"]
    assert [v["lock"] for v in listed] == ["running"]
    assert safe_compose("unprotect", "kept", "--confirm", "kept", env=there).returncode == 0


def test_where_our_program_cannot_run_the_lock_is_weaker_and_that_is_said(
    engine: PrivateEngine, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    there = {"DOCKER_HOST": engine.host, **without_program(tmp_path / "copy")}
    engine.docker("volume", "create", "weak")
    made = safe_compose("protect", "--lock", "weak", env=there)
    assert made.returncode == 0 and "weaker" in made.stderr and "container prune" in made.stderr
    listed = json.loads(safe_compose("volumes", "--json", env=there).stdout)["volumes"]
    assert [v["lock"] for v in listed if v["name"] == "weak"] == ["created"]
    assert engine.docker("volume", "rm", "-f", "weak", check=False).returncode == 1
    engine.docker("container", "prune", "-f")
    guarded = safe_compose("system", "prune", "-f", "--volumes", env=there)
    assert "the lock on volume weak was missing and is there again" in guarded.stderr


def test_a_label_alone_makes_no_lock_and_a_lock_of_an_older_version_is_replaced(
    volume: str, safe_compose: SafeCompose
) -> None:
    name = f"safe-compose-lock-{volume}"
    words = (
        "run",
        "-d",
        "--name",
        name,
        "--label",
        f"io.github.safe-compose.lock={volume}",
        "-v",
        f"{volume}:/volume:ro",
    )
    docker(*words, "busybox:latest", "sleep", "100000")
    assert json.loads(safe_compose("--explain", "--json", "volume", "rm", volume).stdout)[
        "spared"
    ] != [{"name": volume, "why": "locked against deletion: docker refuses"}]
    [found] = [
        v
        for v in json.loads(safe_compose("volumes", "--json").stdout)["volumes"]
        if v["name"] == volume
    ]
    assert found["lock"] is None and found["in_use_by"] == [name]
    assert safe_compose("protect", "--lock", volume).returncode == 0
    assert lock_of(safe_compose, volume) == "running"
    image = docker(
        "inspect", "-f", "{{.Image}} {{json .Config.Entrypoint}} {{json .Config.Cmd}}", name
    ).stdout.split(maxsplit=1)
    assert (
        image[0] in helper_image.list_known_ids()
        and image[1].strip() == '["/safe-compose-helper"] ["pause"]'
    )
    assert safe_compose("unprotect", volume, "--confirm", volume).returncode == 0
    assert docker("ps", "-aq", "--filter", f"name={name}").stdout == ""
