"""The engine package against a real engine: what it says a command threatens is held against what
docker really deletes.
"""

import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.observed import HELPER_LABEL
from safe_compose.engine import Engine, connect
from safe_compose.engine.bridge import Bridge
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.errors import DockerNotFound, EngineUnavailable, OperationFailed, Refused
from safe_compose.grammar import parser
from testing.engine_proxy import forwarding_tcp
from testing.engine_scene import VERSIONS, Scene, inside, look_at, names, stopped
from testing.projects import LAB, ComposeProject, docker, unique, wait_until

pytestmark = pytest.mark.engine


SERVICE = "image: busybox:latest, command: [sleep, '600'], stop_grace_period: 0s"
BASIC = f"""
services:
  web: {{{SERVICE}, depends_on: [db], volumes: ["web:/w"]}}
  db: {{{SERVICE}, environment: {{SECRET: hunter2, POSTGRES_USER: bob}}, volumes: ["data:/d", "/anonymous"]}}
volumes: {{web: {{}}, data: {{}}}}
"""


@pytest.fixture
def engine(real_docker: str) -> Iterator[Engine]:
    with connect(real_docker, (), environ=dict(os.environ), run_id=unique("test")) as made:
        yield made
        made.helpers.sweep()


@pytest.fixture
def busybox(engine: Engine) -> str:
    image = engine.docker.image("busybox:latest")
    assert image is not None
    return image.id


@pytest.fixture
def volume(engine: Engine) -> Iterator[str]:
    name = unique("sc-volume")
    docker("volume", "create", name)
    yield name
    docker("volume", "rm", "--force", name)


@pytest.fixture(params=VERSIONS)
def scene(
    request: pytest.FixtureRequest, compose_project: Callable[..., ComposeProject], real_docker: str
) -> Callable[..., Scene]:
    def make(text: str, files: Mapping[str, str] | None = None) -> Scene:
        name = unique("sceng")
        binary = LAB / "compose" / request.param / "docker-compose"
        return Scene(compose_project(text.replace("NAME", name), name, files), binary, real_docker)

    return make


@pytest.mark.matrix
def test_down_with_volumes_kills_what_was_named_and_stops_what_was_named(
    scene: Callable[..., Scene],
) -> None:
    s = scene(BASIC)
    s.up()
    threat, project, died, ended = s.kill("down", "-v")
    n = s.project.name
    assert died == names(threat) and len(died) == 3 and {f"{n}_web", f"{n}_data"} < died
    assert ended == stopped(threat) == {f"{n}-web-1", f"{n}-db-1"}
    assert (project.name, project.mode, project.inferred_from) == (n, "config", "folder")  # type: ignore[attr-defined]
    assert project.working_dir == str(s.project.folder.resolve())  # type: ignore[attr-defined]


def test_an_external_volume_and_an_inactive_profile_are_spared(scene: Callable[..., Scene]) -> None:
    text = f"""
services:
  db: {{{SERVICE}, volumes: ["data:/d", "ext:/e"]}}
  tool: {{{SERVICE}, profiles: [tools], volumes: ["tool:/t"]}}
volumes: {{data: {{}}, tool: {{}}, ext: {{external: true, name: NAME-ext}}}}
"""
    s = scene(text)
    n = s.project.name
    docker("volume", "create", f"{n}-ext")
    try:
        s.up("--profile", "tools")
        threat, _, died, ended = s.kill("down", "-v")
    finally:
        docker("rm", "-f", f"{n}-tool-1", f"{n}-db-1", check=False)
        docker("volume", "rm", f"{n}-ext", check=False)
    assert died == names(threat) == {f"{n}_data"}
    assert ended == stopped(threat) == {f"{n}-db-1"}
    spared = dict(threat.spared)
    assert spared[f"{n}-ext"] == "external"
    assert f"{n}-tool-1" in spared[f"{n}_tool"]


def test_a_named_profile_service_counts(scene: Callable[..., Scene]) -> None:
    text = f"""
services:
  db: {{{SERVICE}, volumes: ["data:/d"]}}
  tool: {{{SERVICE}, profiles: [tools], volumes: ["tool:/t"]}}
volumes: {{data: {{}}, tool: {{name: NAME-elsewhere}}}}
"""
    s = scene(text)
    n = s.project.name
    s.up("--profile", "tools")
    threat, _, died, ended = s.kill("down", "-v", "tool")
    assert died == {f"{n}-elsewhere"} <= names(threat)
    assert ended == stopped(threat) == {f"{n}-tool-1"}


@pytest.mark.thorough
def test_down_of_one_service_threatens_only_what_nobody_else_holds(
    scene: Callable[..., Scene],
) -> None:
    s = scene(BASIC)
    s.up()
    threat, _, died, ended = s.kill("down", "-v", "web")
    n = s.project.name
    assert died == names(threat) == {f"{n}_web"}
    assert ended == stopped(threat) == {f"{n}-web-1"}
    assert f"{n}-db-1" in dict(threat.spared)[f"{n}_data"]


@pytest.mark.thorough
def test_a_one_off_container_holds_its_volume_unless_orphans_go_too(
    scene: Callable[..., Scene],
) -> None:
    s = scene(BASIC)
    s.up()
    n = s.project.name
    assert s.compose("run", "-d", "--name", f"{n}-oneoff", "web", "sleep", "600") == 0
    threat, _, died, ended = s.kill("down", "-v")
    assert f"{n}_web" not in died and f"{n}_web" not in names(threat)
    assert f"{n}-oneoff" in dict(threat.spared)[f"{n}_web"]
    assert ended == stopped(threat)
    threat, _, died, ended = s.kill("down", "-v", "--remove-orphans")
    assert died == names(threat) == {f"{n}_web"}
    assert ended == stopped(threat) == {f"{n}-oneoff"}


def test_a_name_override_and_a_volume_of_another_project_with_the_declared_name(
    scene: Callable[..., Scene],
) -> None:
    s = scene(
        f"services: {{db: {{{SERVICE}, volumes: ['data:/d', 'own:/o']}}}}\nvolumes: {{data: {{}},"
        " own: {name: NAME-x}}"
    )
    n = s.project.name
    docker("volume", "create", "--label", "com.docker.compose.project=other", f"{n}_data")
    s.up()
    threat, _, died, _ = s.kill("down", "-v")
    assert died == names(threat) == {f"{n}_data", f"{n}-x"}
    assert [v.project for v in threat.volumes if v.name == f"{n}_data"] == ["other"]


@pytest.mark.thorough
def test_an_anonymous_volume_inherited_at_a_recreation_survives(
    scene: Callable[..., Scene],
) -> None:
    s = scene(BASIC)
    s.up()
    assert s.compose("up", "-d", "--force-recreate") == 0
    threat, _, died, _ = s.kill("down", "-v")
    anonymous = [name for name, why in threat.spared if "anonymous" in why]
    for name in anonymous:
        docker("volume", "rm", name)
    n = s.project.name
    assert died == names(threat) == {f"{n}_web", f"{n}_data"}
    assert len(anonymous) == 1


def test_the_project_flag_alone_means_labels_and_ignores_the_file(
    scene: Callable[..., Scene],
) -> None:
    s = scene(
        BASIC.replace(
            "volumes: {web: {}, data: {}}", "volumes: {web: {}, data: {name: NAME-hidden}}"
        )
    )
    n = s.project.name
    docker("volume", "create", "--label", f"com.docker.compose.project={n}", f"{n}-stray")
    s.up()
    threat, project, died, ended = s.kill("-p", n, "down", "-v", folder=s.project.folder.parent)
    assert (project.mode, project.inferred_from) == ("label", "flag")  # type: ignore[attr-defined]
    assert project.working_dir == str(s.project.folder)  # type: ignore[attr-defined]
    assert died == names(threat) and {f"{n}_web", f"{n}-hidden", f"{n}-stray"} < died
    assert ended == stopped(threat) == {f"{n}-web-1", f"{n}-db-1"}


def test_a_broken_file_with_a_project_name_silently_means_labels(
    scene: Callable[..., Scene],
) -> None:
    s = scene(BASIC)
    s.up()
    (s.project.folder / "compose.yaml").write_text("services: {a: [}")
    n = s.project.name
    threat, project, died, ended = s.kill("down", "-v", environ={"COMPOSE_PROJECT_NAME": n})
    assert (project.mode, project.inferred_from) == ("label", "environment")  # type: ignore[attr-defined]
    assert died == names(threat) and len(died) == 3
    assert ended == stopped(threat)


def test_a_broken_file_with_a_project_name_in_its_env_file_means_labels(
    scene: Callable[..., Scene],
) -> None:
    s = scene(BASIC)
    s.up()
    n = s.project.name
    (s.project.folder / "compose.yaml").write_text("services: {a: [}")
    (s.project.folder / ".env").write_text(f"COMPOSE_PROJECT_NAME={n}\n")
    threat, project, died, _ = s.kill("down", "-v")
    assert (project.name, project.mode) == (n, "label")  # type: ignore[attr-defined]
    assert died == names(threat) and len(died) == 3


def test_an_unset_required_variable_means_labels_too(scene: Callable[..., Scene]) -> None:
    s = scene(BASIC)
    s.up()
    (s.project.folder / "compose.yaml").write_text(BASIC + "\nx-needed: ${NOT_THERE:?}\n")
    threat, project, died, _ = s.kill(
        "down", "-v", environ={"COMPOSE_PROJECT_NAME": s.project.name}
    )
    assert project.mode == "label"  # type: ignore[attr-defined]
    assert died == names(threat) and len(died) == 3


def test_a_broken_file_without_a_name_makes_compose_fail_and_threatens_nothing(
    scene: Callable[..., Scene],
) -> None:
    s = scene(BASIC)
    s.up()
    (s.project.folder / "compose.yaml").write_text("services: {a: [}")
    threat, project, died, ended = s.kill("down", "-v", environ={"COMPOSE_PROJECT_NAME": ""})
    assert project is None
    assert (died, ended, names(threat)) == (set(), set(), set())
    assert s.compose("down", "-v") != 0


def test_a_missing_env_file_does_not_hide_volumes(scene: Callable[..., Scene]) -> None:
    """`config` fails on it in every version, `down` of newer ones does not."""
    s = scene(BASIC.replace("depends_on", "env_file: [late.env], depends_on"), {"late.env": ""})
    s.up()
    (s.project.folder / "late.env").unlink()
    threat, _, died, ended = s.kill("down", "-v")
    assert died == names(threat) and ended == stopped(threat)
    assert len(died) in (0, 3)


def test_an_unknown_service_with_a_project_name_may_mean_everything(
    scene: Callable[..., Scene],
) -> None:
    s = scene(BASIC)
    s.up()
    threat, project, died, _ = s.kill(
        "down", "-v", "typo", environ={"COMPOSE_PROJECT_NAME": s.project.name}
    )
    assert project.mode == "label"  # type: ignore[attr-defined]
    assert died <= names(threat) and len(names(threat)) == 3
    assert threat.stops == ()


def test_rm_with_volumes_kills_anonymous_volumes_of_stopped_containers(
    scene: Callable[..., Scene],
) -> None:
    s = scene(BASIC)
    s.up()
    assert names(s.ask("rm", "-fv")[0]) == set()
    threat, _, died, ended = s.kill("rm", "-fsv", "db")
    assert died == names(threat) and len(died) == 1 and s.project.name not in next(iter(died))
    assert ended == stopped(threat) == {f"{s.project.name}-db-1"}


def test_a_compose_file_from_stdin_is_given_to_the_probe(
    compose_project: Callable[..., ComposeProject], real_docker: str, tmp_path: Path
) -> None:
    project = compose_project(BASIC)
    project.docker("compose", "-p", project.name, "up", "-d")
    words = ("compose", "-p", project.name, "-f", "-", "down", "-v")
    threat, found = look_at(
        project, real_docker, *words, folder=tmp_path, stdin=BASIC.encode(), early=True
    )
    assert found.mode == "config"  # type: ignore[attr-defined]
    assert {f"{project.name}_data", f"{project.name}_web"} < names(threat)


def test_tiers_in_the_file_are_read_and_an_unknown_word_is_critical(
    compose_project: Callable[..., ComposeProject], real_docker: str
) -> None:
    text = f"""
x-safe-compose: {{tier: important, volumes: {{two: disposable, six: nonsense, seven: [odd]}}}}
services: {{a: {{{SERVICE}, volumes: ["one:/a", "two:/b", "six:/c"]}}}}
volumes: {{one: {{x-safe-compose: disposable}}, two: {{x-safe-compose: {{tier: critical}}}}, six: {{}}}}
"""
    project = compose_project(text)
    _, found = look_at(project, real_docker, "compose", "down", "-v")
    assert found.tier == "important"  # type: ignore[attr-defined]
    tiers = {v.key: v.tier for v in found.volumes}  # type: ignore[attr-defined]
    assert tiers == {"one": "disposable", "two": "critical", "six": "critical"}
    mounts = {(m.volume, m.image, m.destination) for m in found.mounts}  # type: ignore[attr-defined]
    assert (f"{project.name}_one", "busybox:latest", "/a") in mounts


def test_no_secret_is_kept(
    compose_project: Callable[..., ComposeProject], real_docker: str
) -> None:
    project = compose_project(BASIC)
    project.up()
    invocation = parser.parse(("compose", "down", "-v"))
    with (
        inside(project.folder),
        connect(real_docker, (), environ=dict(os.environ), run_id=unique("test")) as engine,
    ):
        observed = engine.commands.look(invocation)
    assert "hunter2" not in repr(observed)
    assert "bob" in repr(observed)


@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        (("--context", "not-there"), {}),
        ((), {"DOCKER_CONTEXT": "not-there"}),
        (("-H", "unix:///nowhere/docker.sock"), {}),
        ((), {"DOCKER_HOST": "tcp://127.0.0.1:1"}),
    ],
)
def test_a_daemon_that_cannot_be_reached_is_said_in_dockers_own_words(
    real_docker: str, flags: tuple[str, ...], environ: Mapping[str, str]
) -> None:
    theirs = subprocess.run(
        [real_docker, *flags, "info"], env={**os.environ, **environ}, capture_output=True, text=True
    )
    with pytest.raises(EngineUnavailable) as caught:
        connect(real_docker, flags, environ={**os.environ, **environ}, run_id="x")
    assert caught.value.code == 69
    assert caught.value.message.splitlines()[0][:40] in theirs.stderr + theirs.stdout


def test_a_docker_that_reaches_another_engine_is_not_trusted(
    real_docker: str, tmp_path: Path
) -> None:
    liar = tmp_path / "docker"
    liar.write_text(
        f'#!/bin/sh\n[ "$1" = info ] && echo OTHER:ENGINE && exit 0\nexec {real_docker} "$@"\n'
    )
    liar.chmod(0o755)
    with pytest.raises(EngineUnavailable, match="OTHER:ENGINE"):
        connect(str(liar), (), environ=dict(os.environ), run_id="x")


def test_a_docker_that_is_not_there_is_127(tmp_path: Path) -> None:
    with pytest.raises(DockerNotFound):
        connect(str(tmp_path / "docker"), (), environ=dict(os.environ), run_id="x")


def test_a_daemon_that_is_not_a_local_socket_is_reached_through_dockers_own_dialer(
    engine: Engine, real_docker: str, busybox: str, volume: str
) -> None:
    with (
        forwarding_tcp() as host,
        connect(real_docker, ("-H", host), environ=dict(os.environ), run_id=engine.run_id) as far,
    ):
        assert (far.id, far.endpoint, far.docker.remote) == (engine.id, host, True)
        assert far.docker.volume(volume) == engine.docker.volume(volume)
        assert far.helpers.run(Helper(image=busybox, argv=("echo", "hello"))) == b"hello\n"
        assert far.archives.list_root(volume) == []


def test_the_bridge_is_private_and_leaves_nothing_behind(real_docker: str) -> None:
    bridge = Bridge((real_docker, "system", "dial-stdio"), os.environ)
    folder = Path(bridge.path).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as way:
        way.connect(bridge.path)
        way.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        assert b"200 OK" in way.recv(4096)
    bridge.close()
    assert not folder.exists()


def test_the_api_version_is_the_older_of_both_sides(real_docker: str) -> None:
    with connect(
        real_docker, (), environ={**os.environ, "DOCKER_API_VERSION": "1.40"}, run_id="x"
    ) as engine:
        assert engine.docker.api_version == (1, 40)
    with connect(
        real_docker, (), environ={**os.environ, "DOCKER_API_VERSION": ""}, run_id="x"
    ) as engine:
        assert engine.docker.api_version > (1, 40)


def test_client_versions_are_numbers(engine: Engine) -> None:
    client, compose = engine.commands.client_versions()
    assert client is not None and compose is not None
    assert client > (20, 10) and compose > (2, 0)


@pytest.mark.matrix
def test_prune_takes_named_volumes_before_api_1_42(engine: Engine) -> None:
    observed = engine.commands.look(parser.parse(("volume", "prune")))
    assert observed.prune_takes_named == (engine.docker.api_version < (1, 42))


# -- helpers ---------------------------------------------------------------------------------------


def test_a_helper_reads_stdin_and_gives_its_whole_stdout(engine: Engine, busybox: str) -> None:
    data = os.urandom(3_000_000)
    assert engine.helpers.run(Helper(image=busybox, argv=("cat",)), stdin=data) == data
    assert engine.helpers.leftovers() == ()


def test_a_helper_gets_its_environment_without_the_value_on_any_argv(
    engine: Engine, busybox: str
) -> None:
    helper = Helper(
        image=busybox,
        argv=("sh", "-c", "echo $PGPASSWORD; sleep 60"),
        environment={"PGPASSWORD": "hunter2"},
    )
    with pytest.raises(KeyboardInterrupt), engine.helpers.stream(helper) as stream:
        assert stream.stdout.readline() == b"hunter2\n"
        argvs = b"".join(p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists())
        assert stream.name.encode() in argvs and b"hunter2" not in argvs
        raise KeyboardInterrupt
    assert engine.helpers.leftovers() == ()


@pytest.mark.parametrize(
    ("argv", "code"), [(("sh", "-c", "echo reason >&2; exit 7"), 7), (("nonsense",), 127)]
)
def test_a_helper_that_fails_tells_why(
    engine: Engine, busybox: str, argv: tuple[str, ...], code: int
) -> None:
    with pytest.raises(HelperFailed) as caught:
        engine.helpers.run(Helper(image=busybox, argv=argv))
    assert caught.value.returncode == code
    assert ("reason" if code == 7 else "nonsense") in caught.value.stderr
    assert engine.helpers.leftovers() == ()


def test_a_helper_that_takes_too_long_is_removed(engine: Engine, busybox: str) -> None:
    with pytest.raises(HelperFailed, match="after 1 s"):
        engine.helpers.run(Helper(image=busybox, argv=("sleep", "600")), timeout=1)
    assert engine.helpers.leftovers() == ()


def test_an_image_that_is_not_there_is_never_pulled(engine: Engine) -> None:
    with pytest.raises(OperationFailed, match="nothing is ever pulled"):
        engine.helpers.run(Helper(image="no-such-image:latest", argv=("true",)))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_no_container_and_no_volume(
    engine: Engine, volume: str, error: type[BaseException]
) -> None:
    image = engine.docker.image("postgres:15")
    assert image is not None and image.volumes
    helper = Helper(image=image.id, argv=("sleep", "600"), volumes=((volume, "/volume", False),))
    with pytest.raises(error), engine.helpers.stream(helper) as stream:
        wait_until("the helper runs", lambda: engine.docker.container(stream.name) is not None)
        made = engine.docker.container(stream.name)
        assert made is not None
        assert made.volume_names() == {
            volume
        }  # no anonymous volume was made that could be left behind
        assert made.labels == {**made.labels, HELPER_LABEL: engine.run_id} and made.project is None
        raise error
    assert engine.helpers.leftovers() == ()
    docker("volume", "rm", volume)


def test_a_broken_source_fails_the_stream_and_the_program_never_sees_an_early_end(
    engine: Engine, busybox: str, volume: str
) -> None:
    class Broken(io.RawIOBase):
        def __init__(self) -> None:
            self.left = [b"half", OSError("disk gone")]

        def read(self, size: int = -1) -> bytes:
            item = self.left.pop(0)
            if isinstance(item, OSError):
                wait_until("the half arrived", lambda: engine.helpers.leftovers() != ())
                raise item
            return item

    helper = Helper(
        image=busybox,
        argv=("sh", "-c", "cat && touch /volume/ended"),
        volumes=((volume, "/volume", False),),
    )
    source: Any = Broken()
    with (
        pytest.raises(OSError, match="disk gone"),
        engine.helpers.stream(helper, stdin=source) as stream,
    ):
        stream.stdout.read()
    assert engine.helpers.leftovers() == ()
    assert engine.archives.list_root(volume) == []


def test_what_the_block_writes_reaches_the_helper(
    engine: Engine, busybox: str, volume: str
) -> None:
    helper = Helper(
        image=busybox,
        argv=("sh", "-c", "cat > /volume/x; seq 100000"),
        volumes=((volume, "/volume", False),),
    )
    with engine.helpers.stream(helper, stdin=subprocess.PIPE, discard=True) as stream:
        assert stream.stdin is not None
        stream.stdin.write(b"payload")
    reader = Helper(image=busybox, argv=("cat", "/volume/x"), volumes=((volume, "/volume", True),))
    assert engine.helpers.run(reader) == b"payload"


def test_all_capabilities_are_dropped_unless_named(engine: Engine, busybox: str) -> None:
    look = ("grep", "CapEff", "/proc/self/status")
    assert engine.helpers.run(Helper(image=busybox, argv=look)).split()[1] == b"0000000000000000"
    assert (
        engine.helpers.run(Helper(image=busybox, argv=look, capabilities=("CHOWN",))).split()[1]
        == b"0000000000000001"
    )
    assert (
        int(
            engine.helpers.run(Helper(image=busybox, argv=look, capabilities=("default",))).split()[
                1
            ],
            16,
        )
        > 1
    )


def test_a_server_is_removed_with_its_volumes_and_tells_its_log(engine: Engine) -> None:
    image = engine.docker.image("postgres:15")
    assert image is not None
    with engine.helpers.serve(
        Helper(image=image.id, argv=("sh", "-c", "echo ready; sleep 600"))
    ) as container_id:
        made = engine.docker.wait_running(container_id, timeout=20)
        assert made.volume_names() == frozenset() and made.network_mode == "none"
        wait_until("the log is there", lambda: "ready" in engine.docker.logs_tail(container_id))
        assert engine.helpers.execute(container_id, ("cat",), stdin=b"in") == b"in"
        with pytest.raises(HelperFailed) as caught:
            engine.helpers.execute(container_id, ("sh", "-c", "exit 3"))
        assert caught.value.returncode == 3
    assert engine.docker.container(container_id) is None


def test_a_server_that_dies_is_told_and_removed(engine: Engine, busybox: str) -> None:
    with (
        pytest.raises(OperationFailed, match="exited"),
        engine.helpers.serve(
            Helper(image=busybox, argv=("sh", "-c", "echo why; exit 1"))
        ) as container_id,
    ):
        wait_until(
            "it ended",
            lambda: (
                (c := engine.docker.container(container_id)) is not None and c.state == "exited"
            ),
        )
        assert "why" in engine.docker.logs_tail(container_id)
        engine.docker.wait_healthy(container_id, timeout=5)
    assert engine.helpers.leftovers() == ()


def test_an_archive_goes_out_and_in_and_keeps_the_root(
    engine: Engine, busybox: str, volume: str
) -> None:
    fill = "echo data > /volume/file; chown 1234:4321 /volume; chmod 2751 /volume"
    own = ("CHOWN", "FOWNER", "FSETID", "DAC_OVERRIDE")
    engine.helpers.run(
        Helper(
            image=busybox,
            argv=("sh", "-c", fill),
            volumes=((volume, "/volume", False),),
            capabilities=own,
        )
    )
    with engine.archives.stream(volume) as chunks:
        data = b"".join(chunks)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert sorted(tar.getnames()) == ["volume", "volume/file"]
    name = unique("sc-copy")
    copy = engine.docker.create_volume(name, labels=engine.helpers.marks_for(name))
    engine.archives.unpack(copy.name, iter([data[:1000], data[1000:]]))
    show = Helper(
        image=busybox,
        argv=("stat", "-c", "%u:%g %a", "/volume"),
        volumes=((copy.name, "/volume", True),),
    )
    assert engine.helpers.run(show) == b"1234:4321 2751\n"
    with pytest.raises(OperationFailed):
        engine.archives.unpack(copy.name, iter([data[:700]]))
    engine.helpers.sweep()
    assert engine.docker.volume(copy.name) is None and engine.helpers.leftovers() == ()


def test_the_root_is_listed_without_starting_anything(
    engine: Engine, busybox: str, volume: str
) -> None:
    assert engine.archives.list_root(volume) == []
    fill = (
        "mkdir /volume/base; echo 15 > /volume/PG_VERSION; dd if=/dev/zero of=/volume/base/big"
        " bs=1M count=20"
    )
    engine.helpers.run(
        Helper(image=busybox, argv=("sh", "-c", fill), volumes=((volume, "/volume", False),))
    )
    listed = engine.archives.list_root(volume)
    assert listed is not None and "PG_VERSION" in listed
    assert engine.archives.list_root(unique("not-there")) is None
    assert engine.helpers.leftovers() == ()


@pytest.mark.thorough
def test_the_roots_of_many_are_listed_at_once_also_behind_big_ones(
    engine: Engine, busybox: str
) -> None:
    names = [unique("sc-root") for _ in range(9)]
    for name in names:
        engine.docker.create_volume(name, labels=engine.helpers.marks_for(name))
    fill = (
        "mkdir /volume/base; echo 15 > /volume/PG_VERSION; dd if=/dev/zero of=/volume/base/big"
        " bs=1M count=9"
    )
    for name in (names[0], names[4]):
        engine.helpers.run(
            Helper(image=busybox, argv=("sh", "-c", fill), volumes=((name, "/volume", False),))
        )
    engine.helpers.run(
        Helper(
            image=busybox, argv=("touch", "/volume/last"), volumes=((names[8], "/volume", False),)
        )
    )
    missing = unique("not-there")
    found = engine.archives.list_roots([*names[:6], missing, *names[6:]])
    assert found.pop(missing) is None
    for name in (names[0], names[4]):
        assert "PG_VERSION" in (found.pop(name) or ())
    assert found.pop(names[8]) == ["last"]
    assert found == {name: [] for name in names[1:4] + names[5:8]}
    engine.helpers.sweep()
    assert engine.helpers.leftovers() == () and engine.docker.volume(missing) is None


def test_the_root_is_reached_through_our_own_image_alone(engine: Engine, volume: str) -> None:
    begun = time.time()
    with (
        engine.archives.stream(volume) as chunks,
        tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar,
    ):
        assert tar.getnames() == ["volume"]
    words = (
        "events",
        "--since",
        f"{begun:.9f}",
        "--until",
        f"{time.time():.9f}",
        "--filter",
        "event=create",
    )
    made = docker(
        *words,
        "--filter",
        f"label={HELPER_LABEL}={engine.run_id}",
        "--format",
        "{{.Actor.Attributes.image}}",
    )
    assert made.stdout.split() == [engine.images.own_image()]


def test_sizes_are_measured(engine: Engine, busybox: str, volume: str) -> None:
    argv = ("dd", "if=/dev/zero", "of=/volume/x", "bs=1024", "count=1024")
    engine.helpers.run(Helper(image=busybox, argv=argv, volumes=((volume, "/volume", False),)))
    assert 1024 * 1024 <= engine.docker.sizes([volume])[volume] < 2 * 1024 * 1024


def test_a_container_is_stopped_and_started(
    engine: Engine, compose_project: Callable[..., ComposeProject]
) -> None:
    project = compose_project(
        "services: {a: {image: busybox:latest, command: [sh, -c, \"trap 'exit 5' TERM; sleep 600 &"
        ' wait"]}}'
    )
    project.up()
    name = f"{project.name}-a-1"
    assert engine.docker.stop(name, timeout=10) == 5
    assert (
        stopped_one := engine.docker.container(name)
    ) is not None and stopped_one.state == "exited"
    engine.docker.start(name)
    assert engine.docker.wait_healthy(name, timeout=10).started_at > stopped_one.started_at
    engine.docker.pause(name)
    assert (
        (paused := engine.docker.container(name)) is not None
        and paused.state == "paused"
        and paused.lively
    )
    engine.docker.unpause(name)


def test_a_helper_of_a_killed_run_is_swept(
    engine: Engine, busybox: str, real_docker: str, volume: str
) -> None:
    program = f"""
import os
from safe_compose.engine import connect
from safe_compose.engine.helper_args import Helper
with connect({real_docker!r}, (), environ=dict(os.environ), run_id={engine.run_id!r}) as engine:
    engine.mark_key = lambda: bytes(32)
    helper = Helper(image={busybox!r}, argv=("sleep", "600"), volumes=(({volume!r}, "/volume", True),))
    with engine.helpers.stream(helper) as stream:
        print(stream.name, flush=True)
        stream.stdout.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        name = child.stdout.readline().decode().strip()
        # Not before it runs: its client outlives the kill, and could still be creating it behind
        # the sweep's back.
        wait_until(
            "the helper runs",
            lambda: (
                (found := engine.docker.container(name)) is not None and found.state == "running"
            ),
        )
        child.kill()
    assert engine.helpers.leftovers() != ()
    engine.helpers.sweep()
    assert (
        engine.helpers.leftovers() != ()
    )  # it carries our label, and nothing proves that it is ours
    engine.mark_key = lambda: bytes(32)
    engine.helpers.sweep()
    assert engine.helpers.leftovers() == ()


def test_a_docker_compose_that_does_not_tell_its_version_is_refused(
    compose_project: Callable[..., ComposeProject], real_docker: str, tmp_path: Path
) -> None:
    silent = tmp_path / "docker-compose"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    with pytest.raises(Refused, match="does not tell its version"):
        look_at(compose_project(BASIC), real_docker, "down", "-v", standalone=silent)


def test_a_context_is_followed(engine: Engine, real_docker: str, tmp_path: Path) -> None:
    flags = ("--config", str(tmp_path))
    docker(*flags, "context", "create", "here", "--docker", "host=unix:///var/run/docker.sock")
    inspected = json.loads(docker(*flags, "--context", "here", "context", "inspect").stdout)
    with connect(
        real_docker, (*flags, "--context", "here"), environ=dict(os.environ), run_id="x"
    ) as other:
        assert (other.id, other.endpoint) == (
            engine.id,
            inspected[0]["Endpoints"]["docker"]["Host"],
        )
