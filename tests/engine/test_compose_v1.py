"""docker-compose 1.29.2 on a real engine: what we say it would delete is held against what it then
deletes.
"""

import json
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from safe_compose.core.observed import Project
from safe_compose.errors import EngineUnavailable, Refused
from testing.engine_scene import Scene, names, stopped
from testing.fixtures import ProjectFactory, SafeCompose
from testing.oldclients import old_compose
from testing.private_engine import private_engine
from testing.projects import docker, unique

pytestmark = [pytest.mark.engine, pytest.mark.long]

SERVICE = (
    "image: busybox:latest, init: true, command: [sleep, '600'], stop_grace_period: 0s,"
    " network_mode: none"
)
DATA = f"""
services: {{db: {{{SERVICE}, volumes: ["data:/d"]}}}}
volumes: {{data: {{}}}}
"""

Stage = Callable[..., Scene]


@pytest.fixture
def scene(compose_project: ProjectFactory, real_docker: str) -> Stage:
    def make(text: str, files: Mapping[str, str] | None = None) -> Scene:
        name = unique("scold")
        return Scene(
            compose_project(text.replace("NAME", name), name, files), old_compose(), real_docker
        )

    return make


@pytest.fixture
def volume() -> Iterator[Callable[..., str]]:
    """A factory of loose volumes, removed after the test."""
    made: list[str] = []

    def make(name: str, *words: str) -> str:
        docker("volume", "create", *words, name)
        made.append(name)
        return name

    yield make
    for name in made:
        users = docker("ps", "-aq", "--filter", f"volume={name}").stdout.split()
        docker("rm", "-f", *users, check=False)
        docker("volume", "rm", "-f", name)


def found(project: object) -> Project:
    assert isinstance(project, Project)
    return project


@pytest.mark.matrix
def test_down_with_volumes_takes_all_that_is_declared_and_what_one_offs_hold(
    scene: Stage, volume: Callable[..., str]
) -> None:
    s = scene(f"""
services:
  db: {{{SERVICE}, volumes: ["data:/d", "/anonymous", "ext:/e", "own:/o"]}}
  tool: {{{SERVICE}, profiles: [tools], volumes: ["tool:/t"]}}
volumes: {{data: {{}}, unused: {{}}, tool: {{}}, own: {{name: NAME-own}}, ext: {{external: {{name: NAME-ext}}}}}}
""")
    n = s.project.name
    volume(f"{n}-ext")
    volume(f"{n}-stray", "--label", f"com.docker.compose.project={n}")
    s.up("--profile", "tools")
    assert s.compose("run", "-d", "--name", f"{n}-oneoff", "db", "sleep", "600") == 0
    threat, project, died, ended = s.kill("down", "-v")
    named = {f"{n}_data", f"{n}_unused", f"{n}_tool", f"{n}-own"}
    assert died == names(threat) and named < died
    assert len(died) == len(named) + 2  # anonymous ones of the service and of the one-off
    assert ended == stopped(threat) == {f"{n}_db_1", f"{n}_tool_1", f"{n}-oneoff"}
    assert dict(threat.spared)[f"{n}-ext"] == "external"
    assert (found(project).name, found(project).inferred_from) == (n, "folder")
    assert found(project).config_files == (str(s.project.folder / "compose.yaml"),)


@pytest.mark.thorough
def test_orphans_go_with_the_flag_only_and_leave_their_volumes(scene: Stage) -> None:
    s = scene(
        f"services: {{db: {{{SERVICE}}}, gone: {{{SERVICE}, volumes: ['old:/o',"
        " '/anonymous']}}\nvolumes: {old: {}}"
    )
    n = s.project.name
    s.up()
    anonymous = s.mine() - {f"{n}_old"}
    (s.project.folder / "compose.yaml").write_text(DATA)
    assert stopped(s.ask("down", "-v")[0]) == {f"{n}_db_1"}
    threat, _, died, ended = s.kill("down", "-v", "--remove-orphans")
    docker("volume", "rm", *anonymous)
    assert died == names(threat) == set()
    assert ended == stopped(threat) == {f"{n}_db_1", f"{n}_gone_1"}


@pytest.mark.thorough
def test_a_volume_of_the_name_before_1_21_goes_first(
    scene: Stage, volume: Callable[..., str]
) -> None:
    """It may well be another project's: `my-shop` takes `myshop_data`."""
    s = scene(DATA)
    today, before = (
        volume(f"{s.project.name}_data"),
        volume(f"{s.project.name.replace('-', '')}_data"),
    )
    threat, _ = s.ask("down", "-v")
    assert s.compose("down", "-v") == 0
    left = set(docker("volume", "ls", "-q").stdout.split())
    assert names(threat) == {before}
    assert before not in left and today in left
    threat, _, died, _ = s.kill("down", "-v")
    assert died == names(threat) == {today}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("line", "environ", "file"),
    [
        ("-p My.KEY_", {}, ""),
        ("", {"COMPOSE_PROJECT_NAME": "My.KEY_"}, ".env"),
        ("", {}, ".env"),
        ("--env-file sub/other", {}, "sub/other"),
        ("--verbose --log-level ERROR --project-directory sub -f compose.yaml", {}, "sub/.env"),
    ],
)
def test_the_project_is_the_one_that_it_goes_by(
    scene: Stage, volume: Callable[..., str], line: str, environ: Mapping[str, str], file: str
) -> None:
    key = unique("k")
    said = {name: value.replace("KEY", key) for name, value in environ.items()}
    from_file = "Not.this.one" if said else f"My.{key}_"
    s = scene(
        DATA,
        {
            "sub/keep": "",
            **({file: f"export COMPOSE_PROJECT_NAME='{from_file}' # a name\n"} if file else {}),
        },
    )
    name = volume(f"my{key}__data")
    threat, project = s.ask(
        *shlex.split(line.replace("KEY", key)), "down", "-v", environ=said, dialect="v1"
    )
    assert s.compose(*shlex.split(line.replace("KEY", key)), "down", "-v", environ=said) == 0
    assert name not in docker("volume", "ls", "-q").stdout.split()
    assert names(threat) == {name}
    assert (found(project).name, found(project).inferred_from) == (
        f"my{key}_",
        "flag" if "-p " in line else "environment",
    )


@pytest.mark.thorough
def test_rm_takes_anonymous_volumes_of_one_offs_too(scene: Stage) -> None:
    s = scene(
        f"services: {{db: {{{SERVICE}, volumes: ['data:/d', '/anonymous']}}}}\nvolumes: {{data:"
        " {}}"
    )
    s.up()
    assert s.compose("run", "-d", "--name", f"{s.project.name}-oneoff", "db", "sleep", "600") == 0
    assert names(s.ask("rm", "-f", "-v")[0]) == set()
    threat, _, died, ended = s.kill("rm", "-s", "-f", "-v")
    assert died == names(threat) and len(died) == 2 and f"{s.project.name}_data" not in died
    assert ended == stopped(threat) == {f"{s.project.name}_db_1", f"{s.project.name}-oneoff"}


@pytest.mark.thorough
def test_up_deletes_nothing_neither_with_new_anonymous_volumes_nor_with_a_changed_one(
    scene: Stage, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    s = scene(
        f"services: {{db: {{{SERVICE}, volumes: ['data:/d', '/anonymous']}}}}\nvolumes: {{data:"
        " {}}"
    )
    s.up()
    anonymous = s.mine() - {f"{s.project.name}_data"}
    threat, _, died, _ = s.kill("up", "-d", "-V", "--force-recreate")
    docker("volume", "rm", *anonymous)
    assert (died, names(threat)) == (set(), set())
    assert all(name in "".join(threat.warnings) for name in anonymous)
    (s.project.folder / "compose.yaml").write_text(
        DATA.replace("data: {}", "data: {driver_opts: {type: tmpfs, device: tmpfs}}")
    )
    answer = safe_compose(
        *("docker-compose", "--explain", "--json", "up", "-d"),
        cwd=s.project.folder,
        env=first_on_path(tmp_path),
        input="y\n",
    )
    assert json.loads(answer.stdout)["verdict"] == "pass", answer.stderr
    assert s.compose("up", "-d", stdin="y\n") != 0
    assert f"{s.project.name}_data" in s.mine()


@pytest.mark.thorough
def test_a_file_that_it_does_not_load_threatens_nothing(scene: Stage) -> None:
    s = scene(DATA)
    s.up()
    (s.project.folder / "compose.yaml").write_text(
        f"name: {s.project.name}\n{DATA}"
    )  # 1.x knows no `name`
    threat, project, died, ended = s.kill(
        "down", "-v", environ={"COMPOSE_PROJECT_NAME": s.project.name}
    )
    assert project is None
    assert (died, ended, names(threat)) == (set(), set(), set())


@pytest.mark.thorough
def test_names_that_readers_of_yaml_take_for_numbers_are_refused(scene: Stage) -> None:
    s = scene("services: {db: {image: 'busybox:latest'}}\nvolumes: {1e3: {}}")
    with pytest.raises(Refused, match="cannot be told for sure"):
        s.ask("down", "-v")


@pytest.mark.thorough
def test_a_daemon_that_only_docker_compose_would_reach_is_not_overlooked(
    scene: Stage, volume: Callable[..., str]
) -> None:
    """1.x takes DOCKER_HOST from `.env`, docker does not."""
    with private_engine(["busybox:latest"]) as other:
        s = scene(DATA, {".env": f"DOCKER_HOST={other.host}\n"})
        other.docker("volume", "create", f"{s.project.name}_data")
        with pytest.raises(
            EngineUnavailable, match="does not show that it would reach the same engine"
        ):
            s.ask("down", "-v")
        threat, _ = s.ask("-H", "unix:///var/run/docker.sock", "down", "-v")
        assert names(threat) == set()
        assert s.compose("down", "-v") == 0
        assert f"{s.project.name}_data" not in other.volumes()


@pytest.mark.thorough
def test_tiers_in_the_files_are_read_although_config_leaves_them_out(scene: Stage) -> None:
    s = scene(
        f"""
x-safe-compose: {{tier: disposable, volumes: {{two: disposable}}}}
services: {{a: {{{SERVICE}, volumes: ["one:/a", "two:/b"]}}}}
volumes: {{one: {{x-safe-compose: critical}}, two: {{}}}}
""",
        {
            "compose.override.yaml": (
                'services: {a: {labels: {a: b}}}\n"\\x78-safe-compose": {tier: important}\n'
            )
        },
    )
    _, project = s.ask("down", "-v")
    assert found(project).tier == "important"
    assert {v.key: v.tier for v in found(project).volumes} == {
        "one": "critical",
        "two": "disposable",
    }
    _, project = s.ask(
        "-f", "-", "down", "-v", stdin=DATA.encode() + b"\nx-safe-compose: nonsense\n"
    )
    assert found(project).tier == "critical"


def first_on_path(folder: Path) -> dict[str, str]:
    """An environment in which `docker-compose` is 1.29.2."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "docker-compose").symlink_to(old_compose())
    return {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.matrix
@pytest.mark.thorough
def test_down_with_volumes_is_backed_up_and_undone_with_the_same_program(
    scene: Stage, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    s = scene(DATA)
    n, folder, environ = s.project.name, s.project.folder, first_on_path(tmp_path)
    s.up()
    docker("exec", "-i", f"{n}_db_1", "dd", "of=/d/one", "status=none", input="precious")
    words = ("docker-compose", "down", "-v")
    refused = safe_compose(*words, "--non-interactive", cwd=folder, env=environ)
    assert refused.returncode == 77
    assert (s.mine(), s.project.running()) == ({f"{n}_data"}, [f"{n}_db_1"])
    done = safe_compose(*words, "--non-interactive", "--backup-first", cwd=folder, env=environ)
    assert done.returncode == 0, done.stderr
    assert (s.mine(), s.project.containers()) == (set(), [])
    back = safe_compose("undo", cwd=folder, env=environ)
    assert back.returncode == 0, back.stderr
    assert s.project.running() == [f"{n}_db_1"]  # `docker compose` would have called it db-1
    assert docker("exec", f"{n}_db_1", "cat", "/d/one").stdout == "precious"
    assert "docker-compose up -d --no-deps db" in back.stderr
