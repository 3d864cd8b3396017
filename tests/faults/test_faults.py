"""What must hold whatever goes wrong: no data dies without a verified backup, nothing is left half
done, docker's own bytes.
"""

import json
import os
import random
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pexpect
import pytest

from testing.disks import small_disk
from testing.engine_proxy import forwarding_tcp
from testing.fixtures import ProjectFactory, SafeCompose
from testing.plain_install import plain_python
from testing.projects import LAB, ComposeProject, docker, real_docker, unique, wait_until
from testing.runs import (
    kill_at_step,
    list_backups,
    list_leftovers,
    manifest,
    runs,
    start,
    steps,
    store,
)
from testing.stacks import FILES, JOB
from testing.terminal import PROGRAM, Person
from testing.watch import command_lines

pytestmark = [pytest.mark.engine, pytest.mark.long]


@pytest.fixture
def app(compose_project: ProjectFactory) -> ComposeProject:
    """A running app with one file in one critical volume."""
    project = compose_project(FILES)
    project.up()
    fill(f"{project.name}_uploads", "a photo")
    return project


def fill(volume: str, text: str) -> None:
    docker(
        "run",
        "--rm",
        "-i",
        "--network",
        "none",
        "-v",
        f"{volume}:/v",
        "busybox:latest",
        "dd",
        "of=/v/f",
        "status=none",
        input=text,
    )


def content(volume: str) -> str | None:
    """The file that `fill` wrote; None when the volume is gone."""
    if docker("volume", "inspect", volume, check=False).returncode:
        return None
    return docker(
        "run", "--rm", "--network", "none", "-v", f"{volume}:/v:ro", "busybox:latest", "cat", "/v/f"
    ).stdout


def states(project: ComposeProject) -> dict[str, str]:
    answer = docker(
        "ps",
        "-a",
        "--filter",
        f"label=com.docker.compose.project={project.name}",
        "--format",
        "{{.Names}}={{.State}}",
    )
    return dict(line.split("=") for line in answer.stdout.split())


@pytest.fixture
def slow_docker(tmp_path: Path) -> Path:
    """A docker that is the real one, except that `down` only says so and waits for a signal: then
    it ends with 42.

    It waits without a child of its own: dash starts one by vfork, and a Ctrl-Z that stops the child
    before its exec leaves dash in the middle of that, where it does not stop.
    """
    path = tmp_path / "bin" / "docker"
    path.parent.mkdir()
    (path.parent / "down").write_text(
        "import os, signal, sys\n"
        "def end(number, frame):\n"
        "    os.write(1, b'docker got the signal\\n')\n"
        "    os._exit(42)\n"
        "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):\n"
        "    signal.signal(number, end)\n"
        "open(sys.argv[1], 'w').close()\n"
        "while True:\n"
        "    signal.pause()\n"
    )
    path.write_text(
        "#!/bin/sh\n"
        f'case " $* " in *" config "* | *" ps "* | *" version "*) exec {real_docker()} "$@" ;; *"'
        ' down "*) ;; '
        f'*) exec {real_docker()} "$@" ;; esac\n'
        f"exec {plain_python()} -IS {path.parent}/down {path.parent}/runs\n"
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def idle_docker(tmp_path: Path) -> Path:
    """A docker that is the real one, except that `down` and `rm` end with 0 and do nothing."""
    path = tmp_path / "idle" / "docker"
    path.parent.mkdir()
    path.write_text(
        '#!/bin/sh\ncase " $* " in *" down "* | *" volume rm "*) exit 0 ;; esac\nexec'
        f' {real_docker()} "$@"\n'
    )
    path.chmod(0o755)
    return path


# -- states of containers --------------------------------------------------------------------------

MANY = """
x-app: &app {image: "busybox:latest", init: true, command: [sleep, "100000"]}
services:
  running: {<<: *app, volumes: ["data:/uploads"]}
  always: {<<: *app, restart: always, volumes: ["data:/uploads"]}
  paused: {<<: *app, volumes: ["data:/uploads"]}
  crashing: {<<: *app, command: [cat, /missing], restart: always, volumes: ["data:/uploads"]}
  exited: {<<: *app, volumes: ["data:/uploads"]}
  created: {<<: *app, volumes: ["data:/uploads"], scale: 0}
volumes: {data: }
"""


@pytest.mark.thorough
def test_every_container_is_brought_back_to_its_own_state_when_docker_did_nothing(
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    sealed_environment: Path,
    idle_docker: Path,
) -> None:
    project = compose_project(MANY)
    project.docker("compose", "up", "-d", "--pull", "never")
    project.docker("compose", "create", "--pull", "never", "--scale", "created=1", "created")
    fill(f"{project.name}_data", "rows")
    project.docker("compose", "pause", "paused")
    project.docker("compose", "stop", "-t", "0", "exited")
    bystander = unique("bystander")
    docker("run", "-d", "--init", "--name", bystander, "busybox:latest", "sleep", "100000")
    try:
        before: dict[str, str] = {}

        def settled() -> bool:  # the one that keeps crashing runs for a moment, again and again
            before.update(states(project))
            return sorted(before.values()) == [
                "created",
                "exited",
                "paused",
                "restarting",
                "running",
                "running",
            ]

        wait_until("the crashing one rests", settled)
        started = docker("inspect", bystander, "--format", "{{.State.StartedAt}}").stdout
        answer = safe_compose(
            *JOB,
            "compose",
            "down",
            "-v",
            cwd=project.folder,
            env={"SAFE_COMPOSE_DOCKER": str(idle_docker)},
        )
        assert answer.returncode == 0 and answer.stdout == ""
        assert f"still there: {project.name}_data" in answer.stderr
        wait_until("the crashing one restarts again", lambda: states(project) == before, timeout=15)
        assert content(f"{project.name}_data") == "rows"
        assert docker("inspect", bystander, "--format", "{{.State.StartedAt}}").stdout == started
        assert list_leftovers(sealed_environment) == []
    finally:
        docker("rm", "-f", bystander)


DATABASES = """
x-db: &db
  image: postgres:15
  healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
services:
  deep:
    <<: *db
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: canary-one, POSTGRES_DB: shop, PGDATA: /var/lib/postgresql/data/deep/er}
    volumes: ["deep:/var/lib/postgresql/data"]
  crashed:
    <<: *db
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: canary-two, POSTGRES_DB: shop}
    volumes: ["crashed:/var/lib/postgresql/data"]
  mute:
    <<: *db
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: canary-three, POSTGRES_DB: shop}
    volumes: ["mute:/var/lib/postgresql/data"]
volumes: {deep: , crashed: , mute: }
"""


@pytest.mark.thorough
def test_databases_that_are_deep_dead_or_mute_all_come_back_with_their_rows_and_no_secret_is_seen(
    compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    project = compose_project(DATABASES)
    project.up()
    rows = "CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 2000) g"
    for service in ("deep", "crashed", "mute"):
        project.psql(rows, service=service, user="shop", database="shop")
    project.psql(
        "ALTER SYSTEM SET hba_file = '/nowhere'", service="mute", user="shop", database="shop"
    )
    docker(
        "exec",
        f"{project.name}-mute-1",
        "sed",
        "-i",
        "s/^[a-z].*$/local all all reject/",
        "/var/lib/postgresql/data/pg_hba.conf",
    )
    docker(
        "exec",
        "-u",
        "postgres",
        f"{project.name}-mute-1",
        "pg_ctl",
        "reload",
        "-D",
        "/var/lib/postgresql/data",
    )
    docker("kill", f"{project.name}-crashed-1")
    with command_lines() as seen:
        answer = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "" and project.volumes() == []
    [backup] = list_backups(safe_compose, project)
    records = manifest(backup)
    methods = {
        name.removeprefix(f"{project.name}_"): record["method"] for name, record in records.items()
    }
    assert methods == {"deep": "dump+cold", "crashed": "dump+cold", "mute": "dump+cold"}
    for name in ("crashed", "mute"):
        assert "on a copy of the volume" in str(records[f"{project.name}_{name}"]["notes"])
    texts = [
        p.read_bytes()
        for p in store(sealed_environment).rglob("*")
        if p.is_file() and p.suffix != ".gz"
    ]
    secrets = [
        b"canary-one",
        b"canary-two",
        b"canary-three",
    ]  # `seen` has the words of other tests' programs as well
    assert [
        t for t in (*texts, *seen, answer.stderr.encode()) if any(secret in t for secret in secrets)
    ] == []

    undone = safe_compose("undo", cwd=project.folder)
    assert undone.returncode == 0, undone.stderr
    project.docker("compose", "up", "-d", "--pull", "never", "deep", "crashed")
    for service in ("deep", "crashed"):
        wait_until(
            f"{service} answers",
            lambda s=service: (
                project.docker(
                    "compose", "exec", "-T", s, "pg_isready", "-q", check=False
                ).returncode
                == 0
            ),
        )
        assert (
            project.psql("SELECT count(*) FROM t", service=service, user="shop", database="shop")
            == "2000"
        )
    assert list_leftovers(sealed_environment) == []


# -- which project ---------------------------------------------------------------------------------

LABELS = """
services:
  one: {image: "busybox:latest", command: [sleep, "1"], volumes: ["data:/uploads"]}
volumes: {data: }
"""
MORE = """
services:
  two: {image: "busybox:latest", command: [sleep, "1"], volumes: ["more:/uploads"]}
volumes: {more: }
"""
PROFILE = """
services:
  one: {image: "busybox:latest", command: [sleep, "1"], volumes: ["data:/uploads"]}
  tool: {image: "busybox:latest", command: [sleep, "1"], profiles: [tools], volumes: ["tooldata:/uploads"]}
volumes: {data: , tooldata: }
"""
WAYS: Mapping[
    str, tuple[Mapping[str, str], Sequence[str], Mapping[str, str], str, Sequence[str]]
] = {
    "two files": (
        {"compose.yaml": LABELS, "b.yaml": MORE},
        ("-f", "compose.yaml", "-f", "b.yaml"),
        {},
        ".",
        ("data", "more"),
    ),
    "override": (
        {"compose.yaml": LABELS, "compose.override.yaml": MORE},
        (),
        {},
        ".",
        ("data", "more"),
    ),
    "no override with -f": ({"compose.yaml": LABELS}, ("-f", "compose.yaml"), {}, ".", ("data",)),
    "name in the file": (
        {"compose.yaml": "name: ${NAMED}\n" + LABELS},
        (),
        {"NAMED": "@-named"},
        ".",
        ("data",),
    ),
    "a profile": ({"compose.yaml": PROFILE}, ("--profile", "tools"), {}, ".", ("data", "tooldata")),
    "profiles by variable": (
        {"compose.yaml": PROFILE},
        (),
        {"COMPOSE_PROFILES": "tools"},
        ".",
        ("data", "tooldata"),
    ),
    "project name by variable": (
        {"compose.yaml": LABELS},
        (),
        {"COMPOSE_PROJECT_NAME": "@-var"},
        ".",
        ("data",),
    ),
    "file in .env": (
        {"deep/c.yaml": LABELS, ".env": "COMPOSE_FILE=deep/c.yaml\n"},
        (),
        {},
        ".",
        ("data",),
    ),
    "project directory": (
        {"sub/compose.yaml": LABELS},
        ("--project-directory", "sub"),
        {},
        ".",
        ("data",),
    ),
    "include": (
        {"compose.yaml": "include: [other/c.yaml]\n" + LABELS, "other/c.yaml": MORE},
        (),
        {},
        ".",
        ("data", "more"),
    ),
    "from a folder below": ({"compose.yaml": LABELS, "a/b/x": ""}, (), {}, "a/b", ("data",)),
    "a name with odd letters": (
        {"compose.yaml": LABELS.replace("data", "da.ta_-1")},
        (),
        {},
        ".",
        ("da.ta_-1",),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_compose_deletes_was_in_the_plan(
    way: str, compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    files, words, variables, where, keys = WAYS[way]
    project = compose_project(
        files.get("compose.yaml", "services: {}\n"),
        files={k: v for k, v in files.items() if k != "compose.yaml"},
    )
    if "compose.yaml" not in files:
        (project.folder / "compose.yaml").unlink()
    env = {
        **os.environ,
        **{name: value.replace("@", project.name) for name, value in variables.items()},
    }
    here = project.folder / where

    def compose(*argv: str) -> str:
        done = subprocess.run(
            [real_docker(), "compose", *words, *argv],
            cwd=here,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    before = set(docker("volume", "ls", "-q").stdout.split())
    compose("create", "--pull", "never")
    name = str(json.loads(compose("config", "--format", "json"))["name"])
    try:
        there = {f"{name}_{key}" for key in keys}
        assert there <= set(docker("volume", "ls", "-q").stdout.split()) - before
        answer = safe_compose(
            "compose", *words, "down", "-v", "--explain", "--json", cwd=here, env=env
        )
        assert answer.returncode == 0, answer.stderr
        plan = json.loads(answer.stdout)
        assert plan["verdict"] == "guard" or all(v["tier"] == "disposable" for v in plan["volumes"])
        planned = {v["name"] for v in plan["volumes"]}
        compose("down", "-v", "-t", "0")
        assert there - set(docker("volume", "ls", "-q").stdout.split()) <= planned
    finally:
        docker("compose", "-p", name, "down", "-v", "-t", "0", check=False)
        for volume in docker("volume", "ls", "-q", "--filter", f"name={name}_").stdout.split():
            docker("volume", "rm", "-f", volume, check=False)


@pytest.mark.thorough
def test_a_broken_file_and_another_folders_words_do_not_let_a_project_die(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    """Three ways to mean a project from elsewhere; in each, the words of the folder we stand in
    would call it disposable.
    """
    project = compose_project(FILES)
    project.docker("compose", "create", "--pull", "never")
    fill(f"{project.name}_uploads", "a photo")
    broken = compose_project(
        "services: [\n",
        files={"safe-compose.toml": 'project = "disposable"\n[volumes]\nuploads = "disposable"\n'},
    )
    elsewhere = compose_project(
        FILES, files={"safe-compose.toml": '[volumes]\nuploads = "disposable"\n'}
    )
    for folder, words, env in (
        (broken.folder, (), {"COMPOSE_PROJECT_NAME": project.name}),
        (elsewhere.folder, ("-p", project.name), {}),
        (elsewhere.folder, (), {"COMPOSE_FILE": str(project.folder / "compose.yaml")}),
        (elsewhere.folder, ("-f", str(project.folder / "compose.yaml")), {}),
        (elsewhere.folder, ("--project-directory", str(project.folder)), {}),
    ):
        (broken.folder / "safe-compose.toml").write_text('[volumes]\nuploads = "disposable"\n')
        answer = safe_compose("compose", *words, "down", "-v", cwd=folder, env=env)
        assert answer.returncode == 77, (words, env, answer.stderr)
        assert content(f"{project.name}_uploads") == "a photo"


@pytest.mark.thorough
def test_an_external_volume_stays_and_an_anonymous_database_is_critical_by_its_content(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    shared = unique("shared")
    docker("volume", "create", shared)
    project = compose_project(f"""
services:
  app: {{image: "busybox:latest", command: [sleep, "100000"], init: true, volumes: ["shared:/shared", "/srv/x"]}}
volumes: {{shared: {{external: true, name: {shared}}}}}
""")
    try:
        project.up()
        fill(shared, "theirs")
        project.exec("app", "touch", "/srv/x/PG_VERSION")
        plan = json.loads(
            safe_compose("compose", "down", "-v", "--explain", "--json", cwd=project.folder).stdout
        )
        [volume] = plan["volumes"]
        assert (volume["anonymous"], volume["tier"], volume["kind"]) == (
            True,
            "critical",
            "postgres",
        )
        assert plan["spared"] == [{"name": shared, "why": "external"}]
        answer = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder)
        assert answer.returncode == 0, answer.stderr
        assert docker("volume", "inspect", volume["name"], check=False).returncode != 0
        assert content(shared) == "theirs"
        assert list(manifest(list_backups(safe_compose, project)[0])) == [volume["name"]]
    finally:
        docker("volume", "rm", "-f", shared, check=False)


# -- between the screen and the act ----------------------------------------------------------------


@pytest.mark.thorough
def test_what_changes_while_the_prompt_waits_is_75(
    app: ComposeProject, sealed_environment: Path
) -> None:
    volume, late = f"{app.name}_uploads", f"{app.name}_late"
    user = unique("user")

    def appears() -> None:
        docker(
            "volume",
            "create",
            "--label",
            f"com.docker.compose.project={app.name}",
            "--label",
            "com.docker.compose.volume=late",
            late,
        )
        fill(late, "new")

    def gets_a_user() -> None:
        docker("volume", "rm", late)
        docker(
            "run",
            "-d",
            "--init",
            "--name",
            user,
            "-v",
            f"{volume}:/v",
            "busybox:latest",
            "sleep",
            "100000",
        )

    def disappears() -> None:
        docker("rm", "-f", user, f"{app.name}-app-1")
        docker("volume", "rm", volume)

    for change in (appears, gets_a_user, disappears):
        person = Person("compose", "down", "-v", cwd=app.folder)
        person.sees(f"type '{app.name}'")
        change()
        person.types(app.name)
        assert person.leaves_with() == 75, (change, person.last_words)
        assert "docker was not run (75)" in person.last_words
        if change is not disappears:
            assert content(volume) == "a photo" and states(app) == {f"{app.name}-app-1": "running"}
    assert list_leftovers(sealed_environment) == []


@pytest.mark.thorough
def test_a_one_off_container_with_rm_is_not_destroyed_by_the_backup(
    app: ComposeProject, safe_compose: SafeCompose
) -> None:
    app.docker(
        "compose", "run", "-d", "--rm", "--name", f"{app.name}-once", "app", "sleep", "100000"
    )
    answer = safe_compose(*JOB, "compose", "down", "-v", cwd=app.folder)
    assert answer.returncode == 75 and f"{app.name}-once" in answer.stderr
    assert set(states(app).values()) == {"running"} and len(states(app)) == 2
    docker("rm", "-f", f"{app.name}-once")


# -- killed ----------------------------------------------------------------------------------------


def survives(safe_compose: SafeCompose, project: ComposeProject, since: set[str]) -> bool:
    """The data lives, or a verified backup of it was made."""
    return content(f"{project.name}_uploads") == "a photo" or any(
        str(b["id"]) not in since for b in list_backups(safe_compose, project)
    )


@pytest.mark.thorough
def test_a_kill_at_any_step_or_moment_leaves_the_data_or_a_verified_backup(
    app: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    moments: list[str | float] = [
        "stopping",
        "stopped",
        "archived",
        "backed-up",
        "verified",
        "running",
        "ran",
    ]
    chance = random.Random(7)
    moments += [chance.uniform(0.2, 2.5) for _ in range(6)]
    for moment in moments:
        before, count = (
            {str(b["id"]) for b in list_backups(safe_compose, app)},
            runs(sealed_environment),
        )
        guarded = start(*JOB, "compose", "down", "-v", cwd=app.folder)
        if isinstance(moment, str):
            kill_at_step(sealed_environment, moment, since=count)
        else:
            with suppress(subprocess.TimeoutExpired):
                guarded.wait(moment)
        with suppress(ProcessLookupError):
            os.killpg(guarded.pid, signal.SIGKILL)
        guarded.communicate(timeout=30)
        assert survives(safe_compose, app, before), moment
        if content(f"{app.name}_uploads") is None:
            undone = safe_compose("undo", cwd=app.folder)
            assert undone.returncode == 0, (moment, undone.stderr)
        else:
            recovered = safe_compose("recover", cwd=app.folder)
            assert recovered.returncode == 0, (moment, recovered.stderr)
        (
            app.docker("compose", "up", "-d", "--pull", "never")
            if moment
            in (
                "running",
                "ran",
            )
            or isinstance(moment, float)
            else None
        )
        assert states(app) == {f"{app.name}-app-1": "running"}, moment
        assert content(f"{app.name}_uploads") == "a photo", moment
        assert list_leftovers(sealed_environment) == [], moment


@pytest.mark.thorough
def test_the_next_guarded_run_recovers_by_itself(
    app: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path, idle_docker: Path
) -> None:
    app.docker("compose", "pause")
    guarded = start(*JOB, "compose", "down", "-v", cwd=app.folder)
    kill_at_step(sealed_environment, "stopped")
    os.killpg(guarded.pid, signal.SIGKILL)
    guarded.communicate(timeout=30)
    assert states(app) == {f"{app.name}-app-1": "exited"}
    answer = safe_compose(
        *JOB, "compose", "down", "-v", cwd=app.folder, env={"SAFE_COMPOSE_DOCKER": str(idle_docker)}
    )
    assert answer.returncode == 0, answer.stderr
    assert "was cut off; started again" in answer.stderr
    assert states(app) == {f"{app.name}-app-1": "paused"}
    assert list_leftovers(sealed_environment) == []


# -- interrupted -----------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("step", ["stopping", "stopped", "backed-up"])
def test_impatient_ctrl_c_at_a_terminal_starts_everything_again(
    step: str, app: ComposeProject, sealed_environment: Path
) -> None:
    person = Person("--confirm", app.name, "compose", "down", "-v", cwd=app.folder)
    kill_at_step(sealed_environment, step, person=person)
    for _ in range(3):
        person.presses("c")
    assert person.leaves_with() == 130, person.last_words
    assert "docker was not run (130)" in person.last_words
    assert states(app) == {f"{app.name}-app-1": "running"}
    assert content(f"{app.name}_uploads") == "a photo"
    assert list_leftovers(sealed_environment) == []


@pytest.mark.thorough
def test_while_docker_runs_ctrl_c_is_dockers_and_ctrl_z_stops_both(
    app: ComposeProject, sealed_environment: Path, slow_docker: Path
) -> None:
    env = {**os.environ, "SAFE_COMPOSE_DOCKER": str(slow_docker), "PS1": "", "TERM": "dumb"}
    shell = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile", "-i"],
        cwd=str(app.folder),
        env=env,
        encoding="utf-8",
        timeout=60,
    )
    shell.sendline("PS1='ready> '")
    shell.expect_exact("ready> ")
    shell.sendline(f"{PROGRAM} --confirm {app.name} compose down -v; echo first=$?")
    wait_until("docker runs", (slow_docker.parent / "runs").exists)
    shell.sendcontrol("z")
    shell.expect_exact("Stopped")
    assert "ran" not in steps(sealed_environment)
    shell.expect_exact("ready> ")
    shell.sendline("fg; echo code=$?")
    wait_until("the job has the terminal again", lambda: os.tcgetpgrp(shell.child_fd) != shell.pid)
    shell.sendcontrol("c")
    shell.expect(r"code=(\d+)")
    said = str(shell.before)
    assert shell.match.group(1) == "42", said
    assert "docker got the signal" in said and f"still there: {app.name}_uploads" in said
    assert "docker was not run" not in said
    assert states(app) == {f"{app.name}-app-1": "running"}
    shell.close(force=True)


@pytest.mark.thorough
def test_a_terminal_that_is_closed_ends_nothing_half_way(
    app: ComposeProject, sealed_environment: Path, slow_docker: Path
) -> None:
    for step in ("stopped", "running"):
        count = runs(sealed_environment)
        person = Person(
            "--confirm",
            app.name,
            "compose",
            "down",
            "-v",
            cwd=app.folder,
            env={"SAFE_COMPOSE_DOCKER": str(slow_docker)},
        )
        kill_at_step(sealed_environment, step, since=count, person=person)
        if step == "running":
            wait_until("docker runs", (slow_docker.parent / "runs").exists)
        person.hangs_up()
        wait_until("the run has ended", lambda: "ended" in steps(sealed_environment))
        assert ("ran" in steps(sealed_environment)) == (step == "running")
        assert states(app) == {f"{app.name}-app-1": "running"}
        assert list_leftovers(sealed_environment) == []
    prompted = Person("compose", "down", "-v", cwd=app.folder)
    prompted.sees("type '")
    prompted.hangs_up()
    assert content(f"{app.name}_uploads") == "a photo"


@pytest.mark.thorough
def test_a_hang_up_that_our_parent_ignores_stays_ignored(
    app: ComposeProject, sealed_environment: Path
) -> None:
    guarded = start(
        *JOB,
        "compose",
        "down",
        "-v",
        cwd=app.folder,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN) and None,
    )
    kill_at_step(sealed_environment, "stopping")
    os.killpg(guarded.pid, signal.SIGHUP)
    _, said = guarded.communicate(timeout=60)
    assert guarded.returncode == 0, said
    assert app.volumes() == []


# -- the store, the descriptors, the environment ---------------------------------------------------


@pytest.mark.thorough
def test_a_store_that_cannot_hold_the_backup_is_73_and_services_run_as_before(
    app: ComposeProject, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    a_file = tmp_path / "file"
    a_file.write_text("")
    before = states(app)
    with small_disk(tmp_path / "readonly", "ro") as readonly:
        for home in (a_file, readonly, a_file / "below"):
            answer = safe_compose(
                *JOB, "compose", "down", "-v", cwd=app.folder, env={"SAFE_COMPOSE_HOME": str(home)}
            )
            assert answer.returncode == 73, answer.stderr
            assert "docker was not run (73)" in answer.stderr
    for files in (
        1,
        30,
    ):  # the root alone; a store and its journal, and not what a backup is made of
        with small_disk(tmp_path / f"{files} files", f"nr_inodes={files}") as crowded:
            answer = safe_compose(
                *JOB,
                "compose",
                "down",
                "-v",
                cwd=app.folder,
                env={"SAFE_COMPOSE_HOME": str(crowded)},
            )
            assert answer.returncode == 73, answer.stderr
            assert ("no space is left" if files == 1 else " files are free") in answer.stderr
            assert "docker was not run (73)" in answer.stderr and not list(
                crowded.rglob("manifest.json")
            )
    app.exec("app", "dd", "if=/dev/urandom", "of=/app/uploads/big", "bs=1M", "count=190")
    with small_disk(
        tmp_path / "small", "size=184m"
    ) as small:  # 0.6 x 190 + 64 are asked for, 190 are needed
        answer = safe_compose(
            *JOB, "compose", "down", "-v", cwd=app.folder, env={"SAFE_COMPOSE_HOME": str(small)}
        )
        assert answer.returncode == 73, answer.stderr
        assert "No space left on device" in answer.stderr and "started again" in answer.stderr
        assert list(small.rglob(".partial-*")) == [] and list(small.rglob("manifest.json")) == []
    (elsewhere := tmp_path / "elsewhere").mkdir()
    with small_disk(store(elsewhere), "nr_inodes=60") as crowded:
        guarded = start(
            *JOB, "compose", "down", "-v", cwd=app.folder, env={"SAFE_COMPOSE_HOME": str(crowded)}
        )
        kill_at_step(elsewhere, "stopped")
        with suppress(
            OSError
        ):  # somebody uses them up; a manifest is only begun once all those bytes are on the disk
            for name in range(60):
                (crowded / f"{name}").touch()
        _, said = guarded.communicate(timeout=120)
        # Whether the draft's folder or a later file finds none left is a matter of milliseconds;
        # the words differ.
        assert (
            guarded.returncode == 73 and "no space " in said.lower() and "started again" in said
        ), said
        assert list_leftovers(elsewhere) == [] and list(crowded.rglob("manifest.json")) == []
    assert states(app) == before and content(f"{app.name}_uploads") == "a photo"


@pytest.mark.thorough
def test_a_backup_that_rots_before_it_is_read_back_is_65_kept_and_never_counted(
    app: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    app.exec("app", "dd", "if=/dev/urandom", "of=/app/uploads/big", "bs=1M", "count=60")
    guarded = start(*JOB, "compose", "down", "-v", cwd=app.folder)
    kill_at_step(sealed_environment, "archived")
    [path] = store(sealed_environment).rglob("data.tar.gz")
    with path.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(b"rot")
    _, said = guarded.communicate(timeout=120)
    assert guarded.returncode == 65, said
    assert "docker was not run (65)" in said and "data.tar.gz" in said
    assert content(f"{app.name}_uploads") == "a photo" and states(app) == {
        f"{app.name}-app-1": "running"
    }
    assert list_backups(safe_compose, app) == []
    [backup] = json.loads(safe_compose("list", "--json").stdout)["backups"]
    assert backup["verified"] is False
    assert list_leftovers(sealed_environment) == []


@pytest.mark.thorough
@pytest.mark.parametrize(
    "how",
    [
        "a container that has gone again",
        "a copy through a stopped one",
        "a container that came before",
    ],
)
def test_what_was_written_after_the_archive_began_is_seen_and_nothing_is_deleted(
    how: str, app: ComposeProject, tmp_path: Path, sealed_environment: Path
) -> None:
    late, volume, other = (
        how != "a container that came before",
        f"{app.name}_uploads",
        unique("other"),
    )
    if late:
        app.exec("app", "dd", "if=/dev/urandom", "of=/app/uploads/big", "bs=1M", "count=60")
    before = states(app)
    guarded = start(*JOB, "compose", "down", "-v", cwd=app.folder)
    kill_at_step(sealed_environment, "archived" if late else "stopping")
    guarded.send_signal(signal.SIGSTOP)
    # into a file that is there: the volume's root folder, whose time old engines tell, does not
    # change
    if how == "a container that has gone again":
        fill(volume, "a later photo")
    elif late:
        (tmp_path / "f").write_text("a later photo")
        docker("cp", str(tmp_path / "f"), f"{app.name}-app-1:/app/uploads/f")
    else:
        words = (
            "--init",
            "--network",
            "none",
            "-v",
            f"{volume}:/v",
            "busybox:latest",
            "sleep",
            "100000",
        )
        docker("run", "-d", "--name", other, *words)
    guarded.send_signal(signal.SIGCONT)
    try:
        _, said = guarded.communicate(timeout=120)
    finally:
        docker("rm", "-f", other, check=False)
    told = (
        "after its archive began" if late else f"container {other} was started on volume {volume}"
    )
    assert guarded.returncode == 75 and told in said, said
    assert content(volume) == ("a later photo" if late else "a photo") and states(app) == before
    assert list_leftovers(sealed_environment) == []


@pytest.mark.thorough
def test_closed_and_full_descriptors_change_nothing_but_what_is_heard(
    compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    """Also under a umask of 000 and without HOME. A broken pipe as stderr ends Compose 2.40 itself
    with 255, after our backup.
    """
    projects = []
    for redirection, code in (
        ("2>&-", 0),
        (">&-", 0),
        ("<&- >&- 2>&-", 0),
        ("2>/dev/full", 0),
        ("2> >(exec true)", 255),
    ):
        project = compose_project(FILES)
        projects.append(project.name)
        project.docker("compose", "create", "--pull", "never")
        fill(f"{project.name}_uploads", "a photo")
        line = f"umask 000; unset HOME; {PROGRAM} {' '.join(JOB)} compose down -v {redirection}"
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=project.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, (redirection, done)
        assert done.stdout == "", redirection
        assert bool(project.volumes()) == bool(code)
    backups = json.loads(safe_compose("list", "--json").stdout)["backups"]
    assert sorted(b["project"] for b in backups if b["verified"]) == sorted(projects)
    verified = safe_compose("verify", "--all")
    assert verified.returncode == 0, verified.stderr
    modes = {p.stat().st_mode & 0o077 for p in store(sealed_environment).rglob("*")}
    assert modes == {0}


# -- the prompt ------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_an_answer_that_is_nearly_the_phrase_is_not_the_phrase(app: ComposeProject) -> None:
    name = app.name.encode()
    for answer in (
        name + b" ",
        b" " + name,
        name + b"\x16\r",
        name + b"\x16\x01",
        b"\xff",
        b"",
    ):  # \x16: the next one literally
        person = Person("compose", "down", "-v", cwd=app.folder)
        for question in ("type '", "Once more, type '"):
            person.sees(question)
            person.types_bytes(answer + b"\n")
        assert person.leaves_with() == 77, (answer, person.last_words)
    assert content(f"{app.name}_uploads") == "a photo"


def test_nobody_is_asked_in_the_background_or_where_the_question_cannot_be_seen(
    app: ComposeProject,
) -> None:
    env = {**os.environ, "PS1": "", "TERM": "dumb"}
    shell = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile", "-i"],
        cwd=str(app.folder),
        env=env,
        encoding="utf-8",
        timeout=60,
    )
    for line in (
        f"{PROGRAM} compose down -v 2>err; echo code=$?.",
        f"{PROGRAM} compose down -v & wait $!; echo code=$?.",
        (
            f"(trap '' TTOU; {PROGRAM} compose down -v </dev/null) 2>&1 | cat >err; echo"
            " code=${PIPESTATUS[0]}."
        ),
        f"setsid --wait {PROGRAM} compose down -v; echo code=$?.",
    ):
        shell.sendline(line)
        shell.expect(r"code=(\d+)\.")
        assert shell.match.group(1) == "77", (line, shell.before)
    shell.close(force=True)
    assert content(f"{app.name}_uploads") == "a photo"


@pytest.mark.thorough
def test_two_hundred_volumes_on_a_narrow_terminal_are_all_shown_and_asked_about(
    compose_project: ProjectFactory,
) -> None:
    from docker.client import DockerClient

    project = compose_project("services: {}\n")
    client = DockerClient("unix:///var/run/docker.sock")
    names = [f"{project.name}_v{n:03d}" for n in range(200)]
    for name in names:
        client.volumes.create(
            name,
            labels={"com.docker.compose.project": project.name, "com.docker.compose.volume": name},
        )
    docker(
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        f"{names[0]}:/v",
        "busybox:latest",
        "touch",
        "/v/f",
    )
    env = {"COLUMNS": "20", "LINES": "10", "TERM": "xterm"}
    try:
        child = pexpect.spawn(
            PROGRAM,
            ["volume", "rm", *names],
            cwd=str(project.folder),
            env={**os.environ, **env},
            encoding="utf-8",
            timeout=60,
            dimensions=(10, 20),
        )
        child.expect_exact("type '")
        child.sendline("?")
        child.expect_exact("type '")
        shown = "".join(c for c in str(child.before) if c.isalnum())
        assert all(f"v{n:03d}" in shown for n in (0, 100, 199))
        child.sendcontrol("c")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 130
        assert len(project.volumes()) == 200
    finally:
        for name in names:
            client.volumes.get(name).remove(force=True)
        client.close()


# -- other ways to the same engine, other clients --------------------------------------------------


@pytest.mark.thorough
def test_every_name_of_the_engine_reaches_it_and_backs_up_there(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    other = tmp_path / "other.sock"
    other.symlink_to("/var/run/docker.sock")
    with forwarding_tcp() as tcp:
        docker("context", "create", "second", "--docker", f"host=unix://{other}")
        ways: list[tuple[tuple[str, ...], dict[str, str], str]] = [
            (("-H", tcp), {}, tcp),
            (("--context", "second"), {}, f"unix://{other}"),
            ((), {"DOCKER_HOST": f"unix://{other}"}, f"unix://{other}"),
            ((), {"DOCKER_CONTEXT": "second"}, f"unix://{other}"),
        ]
        for words, env, endpoint in ways:
            project = compose_project(FILES)
            project.docker("compose", "create", "--pull", "never")
            fill(f"{project.name}_uploads", "a photo")
            answer = safe_compose(
                *words, "compose", "down", "-v", *JOB, cwd=project.folder, env=env
            )
            assert answer.returncode == 0, (words, env, answer.stderr)
            [backup] = list_backups(safe_compose, project)
            assert backup["endpoint"] == endpoint
            undone = safe_compose("undo", cwd=project.folder, env=env)
            assert undone.returncode == 0, undone.stderr
            assert content(f"{project.name}_uploads") == "a photo"


@pytest.mark.thorough
@pytest.mark.parametrize("standalone", [True, False])
@pytest.mark.parametrize("version", ["2.26.1", "2.40.3"])
def test_docker_compose_by_name_and_as_a_plugin_is_guarded(
    version: str,
    standalone: bool,
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    tmp_path: Path,
) -> None:
    binary = LAB / "compose" / version / "docker-compose"
    ours = tmp_path / "ours" / "docker-compose"
    ours.parent.mkdir()
    ours.symlink_to(PROGRAM)
    plugins = tmp_path / "config" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(binary)
    path = {"PATH": os.pathsep.join([str(ours.parent), str(binary.parent), os.environ["PATH"]])}
    env = path if standalone else {"DOCKER_CONFIG": str(plugins.parent)}
    argv = [str(ours)] if standalone else [PROGRAM, "compose"]
    project = compose_project(FILES)
    project.docker("compose", "create", "--pull", "never")
    fill(f"{project.name}_uploads", "a photo")

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*argv, *words],
            cwd=project.folder,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            timeout=120,
        )

    assert version in run("version", "--short").stdout
    refused = run("down", "-v")
    assert refused.returncode == 77, refused.stderr
    answer = run("down", "-v", *JOB)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == "" and project.volumes() == []
    assert len(list_backups(safe_compose, project)) == 1
