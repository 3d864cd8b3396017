"""Flags that no docker client is known to have: that the client will reject them is no reason to
start it.

A command that may delete a volume is refused, whatever version the client tells. One that cannot
gets docker's own error.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_compose.core import refused_words
from safe_compose.grammar import parser, tables
from testing.engine_scene import VERSIONS
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import LAB, docker, real_docker, unique
from testing.stacks import FILES, JOB, read_file, write_file

PROGRAM = Path(sys.executable).with_name("safe-compose")
LIAR = """#!/bin/sh
# Tells an old version, and takes --brand-new and -Z wherever they stand.
case "$*" in
--version) echo 'Docker version 28.2.2, build e6534b4'; exit ;;
*version*--short*) echo 2.26.1; exit ;;
esac
for word; do
    shift
    case $word in --brand-new | -Z) ;; *) set -- "$@" "$word" ;; esac
done
exec {} "$@"
"""
RECORDER = '#!/bin/sh\necho "$*" >> "$(dirname "$0")/ran"\n'


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.matrix
@pytest.mark.thorough
@pytest.mark.engine
def test_a_client_that_lies_about_its_version_deletes_nothing(
    compose_project: ProjectFactory, tmp_path: Path
) -> None:
    project = compose_project(FILES)
    project.up()
    write_file(project)
    standalone = f"{LAB}/compose/{VERSIONS[0]}/docker-compose"
    wrapper = program(tmp_path / "wrapper" / "docker", LIAR.format(real_docker()))
    plugin = program(
        tmp_path / "config" / "cli-plugins" / "docker-compose", LIAR.format(standalone)
    )
    alone = program(tmp_path / "alone" / "docker-compose", LIAR.format(standalone))
    by_path = {"PATH": f"{alone.parent}:{os.environ['PATH']}"}
    for environ, line in (
        ({"SAFE_COMPOSE_DOCKER": str(wrapper)}, "compose down -v --brand-new"),
        ({"SAFE_COMPOSE_DOCKER": str(wrapper)}, "--brand-new compose down --volumes"),
        ({"DOCKER_CONFIG": str(plugin.parent.parent)}, "compose down --brand-new -v app"),
        ({"DOCKER_CONFIG": str(plugin.parent.parent)}, "compose rm -Zsfv"),
        (by_path, "docker-compose --brand-new down -v"),
    ):
        words = line.split()
        words[words[0] == "docker-compose" : 0] = JOB
        done = subprocess.run(
            [PROGRAM, *words], cwd=project.folder, env={**os.environ, **environ},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 77, (line, done.stderr)
        assert (
            "this command may delete data, and no client that safe-compose knows" in done.stderr
        ), line
        assert done.stderr.endswith("safe-compose: docker was not run (77)\n"), line
    assert read_file(project) == "a photo"


@pytest.mark.matrix
@pytest.mark.thorough
@pytest.mark.engine
def test_a_wrong_flag_that_can_do_no_harm_gets_dockers_own_error(
    safe_compose: SafeCompose, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "compose.yaml").write_text("services: {app: {image: 'busybox:latest'}}\n")
    name = unique("bare")
    docker("create", "--name", name, "busybox:latest", "true")
    request.addfinalizer(lambda: docker("rm", "-f", name, check=False))
    for line in ("compose down --new", "compose kill --new", f"stop -f {name}", f"rm -rf {name}"):
        bare = docker(*line.split(), check=False, cwd=tmp_path)
        ours = safe_compose(*line.split(), cwd=tmp_path)
        assert bare.returncode != 0
        assert (ours.returncode, ours.stderr) == (bare.returncode, bare.stderr), line
    assert docker("ps", "-aq", "--filter", f"name={name}").stdout


def ours(
    line: str, tmp_path: Path, **environ: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run it before a docker that writes down its words: (how it ended, what docker got)."""
    fake = program(tmp_path / "bin" / "docker", RECORDER)
    ran = fake.parent / "ran"
    ran.unlink(missing_ok=True)
    env = {"PATH": f"{fake.parent}:/usr/bin:/bin", "HOME": str(tmp_path), **environ}
    done = subprocess.run(
        [PROGRAM, *line.split()], env=env, input="", capture_output=True, text=True, timeout=60
    )
    return done, ran.read_text().splitlines() if ran.exists() else []


def test_what_may_delete_is_refused_whatever_the_client_would_say(tmp_path: Path) -> None:
    # Podman's removals have --all: only then the program has to say whether it is Podman.
    asked = {"compose down -v --new": [], "--confirm x volume rm --all": ["--version"]}
    for line, words in asked.items():
        done, ran = ours(line, tmp_path)
        assert (done.returncode, ran) == (77, words), done.stderr
        assert "takes --new there" in done.stderr or "takes --all there" in done.stderr
        assert done.stderr.endswith("docker was not run (77)\n")
    done, ran = ours("--explain --json compose down -v --new", tmp_path)
    plan = json.loads(done.stdout)
    assert (done.returncode, ran, plan["verdict"], plan["kind"], plan["volumes"]) == (
        0,
        [],
        "refuse",
        "compose_down_volumes",
        [],
    )
    done, ran = ours("--explain compose down -v --new", tmp_path)
    assert (done.returncode, ran) == (0, []) and "verdict   refuse" in done.stdout
    assert "backup:" not in done.stdout and "asks:" not in done.stdout, (
        "nobody looked which volumes would die"
    )


# -- recognized, and not supported yet -------------------------------------------------------------


def test_what_deletes_data_that_nobody_here_backs_up_is_refused_and_goes_by_with_off(
    tmp_path: Path,
) -> None:
    for line in ("extension rm one", "--non-interactive --backup-first extension uninstall one"):
        done, ran = ours(line, tmp_path)
        assert (done.returncode, ran) == (77, []), done.stderr
        assert (
            "deletes the extension's volumes" in done.stderr and "SAFE_COMPOSE=off" in done.stderr
        )
        assert done.stderr.endswith("docker was not run (77)\n")
    done, ran = ours("extension rm one", tmp_path, SAFE_COMPOSE="off")
    assert (done.returncode, ran) == (0, ["extension rm one"]), done.stderr
    done, ran = ours("extension rm --help", tmp_path)
    assert (done.returncode, done.stderr, ran) == (0, "", ["extension rm --help"])


DELETING = [
    " ".join([*path, *(f"--{flag}" for flag, _ in verb.destructive_flags if flag), "one"])
    for path, verb in tables.UNSUPPORTED_VERBS.items()
]


@pytest.mark.parametrize(
    "line",
    [
        *DELETING,
        "--context one extension rm -f two", "extension rm --new one", "extension --new rm one", "-D sandbox rm one",
        "desktop --new kubernetes reset-cluster", "model uninstall-runner --model",
    ],
)  # fmt: skip
def test_every_row_is_refused_in_every_spelling(line: str) -> None:
    invocation = parser.parse(line.split())
    assert (invocation.kind, invocation.is_refused) == (tables.UNSUPPORTED, True)
    assert refused_words.reason(invocation) and "SAFE_COMPOSE=off" in refused_words.next_step(
        invocation
    )


@pytest.mark.parametrize(
    "line",
    [
        *(" ".join([*path, "one", "--help"]) for path in tables.UNSUPPORTED_VERBS),
        "extension ls", "extension install one", "sandbox ls", "sandbox stop one", "desktop stop", "desktop restart",
        "desktop module reset", "desktop kubernetes images", "offload start", "model rm one", "model purge -f",
        "model uninstall-runner --images", "model stop-runner", "plugin disable -f one", "plugin rm one", "plugin upgrade one",
        "mcp catalog rm one", "buildx rm one", "buildx prune -f", "builder prune -f", "context rm one", "checkpoint rm one two",
        "image prune -af", "compose alpha viz", "compose publish one", "compose export one", "compose commit one two",
        "compose volumes", "debug one", "init", "app rm one", "scout cache prune", "network prune -f", "secret rm one",
    ],
)  # fmt: skip
def test_what_deletes_no_volume_is_handed_over(line: str) -> None:
    invocation = parser.parse(line.split())
    assert (invocation.kind, invocation.is_refused) == (tables.NONE, False)


@pytest.fixture
def drivers(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Two plugins of the engine that nobody enabled, by what they drive."""
    made = {}
    for kind in ("volumedriver", "logdriver"):
        folder = tmp_path / kind
        (folder / "rootfs").mkdir(parents=True)
        interface = {"Types": [f"docker.{kind}/1.0"], "Socket": "x.sock"}
        (folder / "config.json").write_text(
            json.dumps({"Interface": interface, "Entrypoint": ["/x"], "Linux": {}, "Network": {}})
        )
        made[kind] = unique("plugin")
        (folder / "rootfs" / made[kind]).touch()
        docker("plugin", "create", made[kind], str(folder))
    yield made
    for name in made.values():
        docker("plugin", "rm", "--force", name, check=False)


@pytest.mark.matrix
@pytest.mark.thorough
@pytest.mark.engine
def test_only_a_plugin_that_drives_volumes_may_not_be_removed(
    drivers: dict[str, str], safe_compose: SafeCompose
) -> None:
    refused = safe_compose("plugin", "rm", "--force", drivers["volumedriver"])
    assert refused.returncode == 77 and "docker was not run (77)" in refused.stderr
    both = safe_compose("plugin", "rm", "-f", *drivers.values())
    assert both.returncode == 77
    removed = safe_compose("plugin", "rm", "-f", drivers["logdriver"])
    assert removed.returncode == 0, removed.stderr
    left = docker("plugin", "ls", "--format", "{{.Name}}").stdout
    assert drivers["volumedriver"] in left and drivers["logdriver"] not in left
