"""Every destructive command through the guard, on an engine of its own where a global prune harms
nobody; and each undone.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_compose.engine import connect, deletion_locks
from safe_compose.engine.errors import changing
from safe_compose.engine.helper_image import build
from safe_compose.engine.own_images import with_image
from testing.fixtures import SafeCompose
from testing.oldclients import old_compose, old_docker
from testing.plain_install import plain_program
from testing.private_engine import PrivateEngine, private_engine
from testing.projects import LAB, Completed, real_docker, unique, wait_until
from testing.stacks import JOB

pytestmark = [pytest.mark.engine, pytest.mark.matrix, pytest.mark.xdist_group("destructive")]

NEWEST = max(
    LAB.glob("compose/*/docker-compose"),
    key=lambda p: [int(n) for n in p.parent.name.split(".")],
    default=None,
)
APP = """
services:
  app:
    image: busybox:latest
    network_mode: none
    init: true
    command: [sleep, "100000"]
    stop_grace_period: 1s
    volumes: ["files:/files", "/hidden"]
volumes:
  files: {LABELS}
"""


@pytest.fixture(scope="module")
def engine(lab: None) -> Iterator[PrivateEngine]:
    with private_engine(["busybox:latest", "postgres:15"]) as started:
        yield started


@pytest.fixture(autouse=True)
def reach(engine: PrivateEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything goes to the private engine; what a test leaves is removed."""
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    yield
    if containers := engine.docker("ps", "-aq").stdout.split():
        engine.docker("rm", "-fv", *containers, check=False)
    if volumes := engine.volumes():
        engine.docker("volume", "rm", "-f", *volumes, check=False)


class Box:
    """Containers and volumes with a file in them."""

    def __init__(self, engine: PrivateEngine) -> None:
        self.engine = engine

    def volume(self, *labels: str, text: str = "kept") -> str:
        name = unique("vol")
        self.engine.docker(
            "volume", "create", *(w for label in labels for w in ("--label", label)), name
        )
        self.write(name, text)
        return name

    def write(self, volume: str, text: str) -> None:
        words = (
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
        )
        self.engine.docker(*words, input=text)

    def read(self, volume: str) -> str:
        words = (
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            f"{volume}:/v:ro",
            "busybox:latest",
            "cat",
            "/v/f",
        )
        return self.engine.docker(*words).stdout

    def container(self, *words: str, run: bool = True) -> tuple[str, str]:
        """A container with one anonymous volume that holds a file: (its name, the volume's name)."""
        name = unique("box")
        kind = ("run", "-d") if run else ("create",)
        command = ("sh", "-c", "echo kept > /data/f; exec sleep 100000")
        self.engine.docker(
            *kind,
            *words,
            "--init",
            "--network",
            "none",
            "--name",
            name,
            "-v",
            "/data",
            "busybox:latest",
            *command,
        )
        mounts = json.loads(self.engine.docker("inspect", name).stdout)[0]["Mounts"]
        volume = next(m["Name"] for m in mounts if m["Destination"] == "/data")
        if run:
            look = ("exec", name, "cat", "/data/f")
            wait_until(
                "the file is there",
                lambda: self.engine.docker(*look, check=False).stdout == "kept\n",
            )
        return name, volume

    def exists(self, volume: str) -> bool:
        return volume in self.engine.volumes()


@pytest.fixture
def box(engine: PrivateEngine) -> Box:
    return Box(engine)


def plan_of(safe_compose: SafeCompose, *words: str, **more: object) -> dict[str, object]:
    answer = safe_compose("--explain", "--json", *words, **more)  # type: ignore[arg-type]
    assert answer.returncode == 0, answer.stderr
    found: dict[str, object] = json.loads(answer.stdout)
    return found


def named(plan: dict[str, object]) -> set[str]:
    return {v["name"] for v in plan["volumes"]}  # type: ignore[attr-defined]


# -- volume rm and the prunes ----------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("words", "dies"),
    [
        (("volume", "prune", "-f"), {"free", "labelled", "anonymous"}),
        (("volume", "prune", "-f", "--filter", "label=keep"), {"labelled"}),
        (("volume", "prune", "--force", "--filter=label!=keep"), {"free", "anonymous"}),
        (
            ("system", "prune", "-f", "--volumes"),
            {"free", "labelled", "anonymous", "parked", "hidden"},
        ),
        (
            ("system", "prune", "--volumes", "-f", "--filter", "label!=keep"),
            {"free", "anonymous", "hidden", "parked"},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_prune_takes_what_was_named_and_undo_brings_it_back(
    words: tuple[str, ...], dies: set[str], box: Box, safe_compose: SafeCompose
) -> None:
    """Up to API 1.41 named volumes go too, since then only with --all, which a system prune does
    not have. Stopped containers go first in a system prune.
    """
    volumes = {
        "free": box.volume(),
        "labelled": box.volume("keep=1"),
        "used": box.volume(),
        "parked": box.volume(),
    }
    gone, volumes["anonymous"] = box.container()
    box.engine.docker("rm", "-f", gone)
    box.engine.docker(
        "run",
        "-d",
        "--network",
        "none",
        "-v",
        f"{volumes['used']}:/v",
        "busybox:latest",
        "sleep",
        "1000",
    )
    box.engine.docker("create", "-v", f"{volumes['parked']}:/v", "busybox:latest")
    stopped, volumes["hidden"] = box.container()
    box.engine.docker("stop", "-t", "0", stopped)
    if everything := box.engine.all_volumes:
        unnamed = dies - {"free", "labelled", "parked"}
        assert named(plan_of(safe_compose, *words)) == {volumes[name] for name in unnamed}
        if words[0] == "volume":
            words += everything
        else:
            dies = unnamed
    assert named(plan_of(safe_compose, *words)) == {volumes[name] for name in dies}

    refused = safe_compose(*words)
    assert refused.returncode == 77 and all(map(box.exists, volumes.values()))
    done = safe_compose(*JOB, *words)
    assert done.returncode == 0, done.stderr
    assert {name for name, volume in volumes.items() if not box.exists(volume)} == dies
    undone = safe_compose("undo")
    assert undone.returncode == 0, undone.stderr
    assert {name: box.read(volumes[name]).strip() for name in dies} == dict.fromkeys(dies, "kept")


@pytest.mark.thorough
def test_a_running_container_with_rm_does_not_stop_a_prune(
    box: Box, safe_compose: SafeCompose
) -> None:
    """Its anonymous volumes go when it ends, whatever a prune does."""
    free = box.volume()
    _, volume = box.container("--rm")
    done = safe_compose(*JOB, "volume", "prune", "-f", *box.engine.all_volumes)
    assert done.returncode == 0, done.stderr
    assert not box.exists(free) and box.exists(volume)


@pytest.mark.thorough
@pytest.mark.parametrize("old", [False, True], ids=["newest docker", "docker 20.10"])
def test_a_prune_filter_of_the_configuration_spares_nothing_for_sure(
    old: bool, box: Box, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    """docker 20.10 adds `pruneFilters` to a prune, 28.2 does not: what is named is the wider set."""
    free, labelled = box.volume(), box.volume("keep=1")
    config = sealed_environment / ".docker" / "config.json"
    config.parent.mkdir(exist_ok=True)
    config.write_text(json.dumps({"pruneFilters": ["label!=keep"]}))
    client = {"SAFE_COMPOSE_DOCKER": str(old_docker())} if old else {}
    # The old client speaks API 1.41 with every engine.
    words = ("volume", "prune", "-f", *(() if old else box.engine.all_volumes))
    assert named(plan_of(safe_compose, *words, env=client)) == {free, labelled}
    done = safe_compose(*JOB, *words, env=client)
    assert done.returncode == 0, done.stderr
    assert not box.exists(free) and box.exists(labelled) in ((True,) if old else (True, False))


# -- an image of ours that is missing, or goes -----------------------------------------------------


@pytest.fixture
def without_helper(engine: PrivateEngine) -> PrivateEngine:
    """An engine that has never seen our image."""
    engine.docker("rmi", *build("amd64").ids, check=False)
    assert not images(engine) & {*build("amd64").ids}
    return engine


def images(engine: PrivateEngine) -> set[str]:
    return set(engine.docker("image", "ls", "-aq", "--no-trunc").stdout.split())


@pytest.mark.thorough
def test_explain_looks_into_volumes_of_a_fresh_engine_and_leaves_no_image(
    without_helper: PrivateEngine, box: Box, safe_compose: SafeCompose
) -> None:
    full, empty = box.volume(), unique("vol")
    without_helper.docker("volume", "create", empty)
    before = images(without_helper)
    assert plan_of(safe_compose, "volume", "rm", empty)["verdict"] == "pass"
    both = plan_of(safe_compose, "volume", "rm", empty, full)
    assert {v["name"]: v["tier"] for v in both["volumes"]} == {
        empty: "disposable",
        full: "critical",
    }  # type: ignore[attr-defined]
    assert images(without_helper) == before
    assert without_helper.docker("ps", "-aq").stdout == ""


def test_explain_leaves_an_image_that_another_run_uses_meanwhile(
    without_helper: PrivateEngine,
) -> None:
    with connect(real_docker(), (), environ=os.environ, run_id=unique("test")) as engine:
        with engine.images.leaving_no_image():
            made = without_helper.docker("create", engine.images.own_image(), "list").stdout.strip()
        assert engine.images.own_image() in images(without_helper)
        without_helper.docker("rm", made)
        with engine.images.leaving_no_image():
            engine.images.own_image()  # this block did not bring it
        assert engine.images.own_image() in images(without_helper)


@pytest.mark.thorough
def test_a_volume_is_read_although_a_prune_takes_our_image_once_it_was_proved(
    without_helper: PrivateEngine, box: Box
) -> None:
    volume = box.volume()
    pruned: list[str] = []

    with connect(real_docker(), (), environ=os.environ, run_id=unique("test")) as engine:

        def proved() -> str:
            found = engine.images.reach_image()
            if not pruned:
                pruned.append(found)
                without_helper.docker("rmi", found)
            return found

        def create(image: str) -> str:
            with changing("create"):
                return deletion_locks.create(engine.docker.connection.api, volume, image)

        made = with_image(proved, create)
        assert pruned and without_helper.docker("ps", "-aq", "--no-trunc").stdout.split() == [made]
        assert engine.archives.list_root(volume) == ["f"]


# -- containers ------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    "line", ["rm -fv", "container rm -f -v", "container remove -vf", "remove -fv"]
)
def test_removing_a_container_with_its_volumes_is_undone(
    line: str, box: Box, safe_compose: SafeCompose
) -> None:
    words = line.split()
    name, volume = box.container()
    help_text = box.engine.docker(words[0], "--help", check=False).stdout
    known = "docker [OPTIONS] COMMAND" not in help_text  # that of docker itself
    plan = plan_of(safe_compose, *words, name)
    [seen] = plan["volumes"]  # type: ignore[misc]
    assert (seen["name"], seen["anonymous"], seen["in_use_by"]) == (volume, True, [name])
    done = safe_compose(*JOB, *words, name)
    if not known:  # clients from 23.0 to 28.2 have a `remove` of their own
        assert done.returncode == box.engine.docker(*words, name, check=False).returncode > 0
        assert box.exists(volume)
        return
    assert done.returncode == 0, done.stderr
    assert not box.exists(volume)
    undone = safe_compose("undo")
    assert undone.returncode == 0, undone.stderr
    assert box.read(volume) == "kept\n"


@pytest.mark.thorough
def test_a_database_in_an_anonymous_volume_is_recognised_and_named_by_container_and_path(
    box: Box, safe_compose: SafeCompose
) -> None:
    """Of an image that no rule knows, so only the content tells."""
    box.engine.docker("tag", "postgres:15", "house/store:1")
    name = unique("pg")
    box.engine.docker(
        "run",
        "-d",
        "--network",
        "none",
        "--name",
        name,
        "-e",
        "POSTGRES_PASSWORD=x",
        "house/store:1",
    )
    wait_until(
        "it serves",
        lambda: (
            box.engine.docker("exec", name, "pg_isready", "-h", "127.0.0.1", check=False).returncode
            == 0
        ),
    )
    [seen] = plan_of(safe_compose, "rm", "-fv", name)["volumes"]  # type: ignore[misc]
    assert (seen["tier"], seen["kind"], seen["anonymous"], seen["in_use_by"]) == (
        "critical",
        "postgres",
        True,
        [name],
    )
    refused = safe_compose("rm", "-fv", name)
    assert refused.returncode == 77
    assert f"{name}:/var/lib/postgresql/data" in safe_compose("--explain", "rm", "-fv", name).stdout
    done = safe_compose(*JOB, "rm", "-fv", name)
    assert done.returncode == 0, done.stderr
    assert not box.exists(seen["name"])
    undone = safe_compose("undo")
    assert undone.returncode == 0, undone.stderr
    words = (
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        f"{seen['name']}:/v:ro",
        "busybox:latest",
        "cat",
        "/v/PG_VERSION",
    )
    assert box.engine.docker(*words).stdout == "15\n"


@pytest.mark.thorough
@pytest.mark.parametrize("line", ["stop -t 1", "kill", "container kill -s TERM", "rm -f"])
def test_what_a_container_with_rm_held_is_kept_when_it_is_stopped(
    line: str, box: Box, safe_compose: SafeCompose
) -> None:
    words = line.split()
    name, volume = box.container("--rm")
    plan = plan_of(safe_compose, *words, name)
    assert (plan["verdict"], named(plan), plan["phrase"], plan["backup"]) == (
        "guard",
        {volume},
        None,
        False,
    )
    done = safe_compose(*words, name)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{name}\n"
    assert box.engine.docker("inspect", name, check=False).returncode != 0, (
        "it has gone, as it would have without us"
    )
    assert volume in done.stderr and "/data" in done.stderr
    assert box.engine.docker("ps", "-aq").stdout == "", "nothing of ours stays"
    assert box.read(volume) == "kept\n"


@pytest.mark.thorough
def test_a_signal_that_ends_nothing_leaves_the_container_and_its_volume(
    box: Box, safe_compose: SafeCompose
) -> None:
    name, volume = box.container("--rm")
    done = safe_compose("kill", "-s", "WINCH", name)
    assert done.returncode == 0, done.stderr
    assert "runs on" in done.stderr
    assert box.engine.docker("exec", name, "cat", "/data/f").stdout == "kept\n" and box.exists(
        volume
    )


@pytest.mark.thorough
def test_an_empty_anonymous_volume_of_a_container_with_rm_is_no_matter(
    box: Box, safe_compose: SafeCompose
) -> None:
    name = unique("box")
    words = (
        "run",
        "-d",
        "--rm",
        "--init",
        "--network",
        "none",
        "--name",
        name,
        "-v",
        "/data",
        "busybox:latest",
        "sleep",
        "1000",
    )
    box.engine.docker(*words)
    done = safe_compose("stop", "-t", "1", name)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}\n", "")


@pytest.mark.thorough
def test_removing_a_container_with_rm_and_its_volumes_says_how_to_keep_them(
    box: Box, safe_compose: SafeCompose
) -> None:
    name, volume = box.container("--rm")
    refused = safe_compose(*JOB, "rm", "-fv", name)
    assert refused.returncode == 75
    assert f"docker stop {name}" in refused.stderr
    assert box.exists(volume)


# -- compose ---------------------------------------------------------------------------------------


class ShopOnEngine:
    """A project with a named and an anonymous volume, a file in each, and the newest compose that
    the lab has.
    """

    def __init__(self, engine: PrivateEngine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        folder.mkdir()
        plugins = folder / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        assert NEWEST is not None
        (plugins / "docker-compose").symlink_to(NEWEST)
        self.write("{}")

    @property
    def env(self) -> dict[str, str]:
        return {"DOCKER_CONFIG": str(self.folder / "config")}

    def write(self, labels: str) -> None:
        (self.folder / "compose.yaml").write_text(APP.replace("{LABELS}", labels), encoding="utf-8")

    def list_without_headings(self) -> None:
        """Have docker print its lists as some people want them: one thing is then one line."""
        (self.folder / "config/config.json").write_text(
            '{"psFormat": "{{.Names}}", "volumesFormat": "{{.Name}}"}'
        )

    def compose(self, *words: str, input: str | None = None) -> Completed:
        done = subprocess.run(
            [real_docker(), "compose", *words], cwd=self.folder, env={**os.environ, **self.env},
            input=input or "", capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    def up(self) -> None:
        self.compose("up", "-d")
        for path in ("files", "hidden"):
            self.compose("exec", "-T", "app", "dd", f"of=/{path}/f", "status=none", input="kept")

    def read(self, path: str) -> str:
        return self.compose("exec", "-T", "app", "cat", f"/{path}/f").stdout

    @property
    def named(self) -> str:
        return f"{self.folder.name}_files"

    @property
    def anonymous(self) -> str:
        [one] = [v for v in self.engine.volumes() if len(v) == 64]
        return one


@pytest.fixture
def shop(engine: PrivateEngine, tmp_path: Path) -> ShopOnEngine:
    made = ShopOnEngine(engine, tmp_path / unique("shop"))
    made.up()
    return made


@pytest.mark.thorough
@pytest.mark.parametrize("words", [("rm", "-sfv"), ("rm", "--stop", "--force", "--volumes", "app")])
def test_compose_rm_takes_anonymous_volumes_and_undo_brings_them_back(
    words: tuple[str, ...], shop: ShopOnEngine, safe_compose: SafeCompose, box: Box
) -> None:
    anonymous = shop.anonymous
    plan = plan_of(safe_compose, "compose", *words, cwd=shop.folder, env=shop.env)
    assert named(plan) == {anonymous} and plan["phrase"] == shop.folder.name
    done = safe_compose(*JOB, "compose", *words, cwd=shop.folder, env=shop.env)
    assert done.returncode == 0, done.stderr
    assert not box.exists(anonymous) and box.exists(shop.named)
    undone = safe_compose("undo", cwd=shop.folder, env=shop.env)
    assert undone.returncode == 0, undone.stderr
    assert any(box.read(v) == "kept" for v in box.engine.volumes() if len(v) == 64)


@pytest.mark.thorough
def test_compose_rm_without_stop_leaves_running_containers_and_asks_nothing(
    shop: ShopOnEngine, safe_compose: SafeCompose
) -> None:
    anonymous = shop.anonymous
    done = safe_compose("compose", "rm", "-fv", cwd=shop.folder, env=shop.env)
    assert (done.returncode, "docker was not run" in done.stderr) == (0, False), done.stderr
    assert shop.anonymous == anonymous and shop.read("hidden") == "kept"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("words", "orphans"),
    [(("kill",), None), (("down", "--remove-orphans"), None), (("down",), "true")],
)
def test_what_a_one_off_container_with_rm_held_is_kept_when_compose_ends_it(
    words: tuple[str, ...],
    orphans: str | None,
    shop: ShopOnEngine,
    safe_compose: SafeCompose,
    box: Box,
) -> None:
    before = box.engine.volumes()
    shop.compose("run", "--rm", "-d", "app", "sh", "-c", "echo kept >/hidden/f; exec sleep 1000")
    [made] = [v for v in box.engine.volumes() - before if len(v) == 64]
    wait_until("the one-off container has written", lambda: box.read(made).strip() == "kept")
    shop.list_without_headings()
    env = {**shop.env, **({"COMPOSE_REMOVE_ORPHANS": orphans} if orphans else {})}
    done = safe_compose("compose", *words, cwd=shop.folder, env=env)
    assert done.returncode == 0, done.stderr
    assert made in done.stderr
    assert box.read(made).strip() == "kept"


@pytest.mark.thorough
def test_orphans_that_only_the_env_file_gives_up_are_spared_by_compose_and_no_matter(
    shop: ShopOnEngine, safe_compose: SafeCompose
) -> None:
    shop.compose("run", "--rm", "-d", "app", "sleep", "1000")
    (shop.folder / ".env").write_text("COMPOSE_REMOVE_ORPHANS=true\n")
    done = safe_compose("compose", "down", cwd=shop.folder, env=shop.env)
    assert (done.returncode, "safe-compose" in done.stderr) == (0, False), done.stderr
    left = shop.compose("ps", "--all", "--orphans", "--format", "{{.Name}} {{.State}}").stdout
    assert "app-run" in left and "running" in left, left


@pytest.mark.thorough
def test_compose_kill_without_a_one_off_container_is_no_matter(
    shop: ShopOnEngine, safe_compose: SafeCompose
) -> None:
    done = safe_compose("compose", "kill", "--signal", "CONT", cwd=shop.folder, env=shop.env)
    assert (done.returncode, "safe-compose" in done.stderr) == (0, False), done.stderr
    assert shop.read("hidden") == "kept"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("words", "answer"),
    [(("up", "-d", "-y"), None), (("up", "-d"), "y\n"), (("create", "--yes"), None)],
)
def test_a_volume_whose_definition_changed_is_backed_up_before_compose_recreates_it(
    words: tuple[str, ...],
    answer: str | None,
    shop: ShopOnEngine,
    safe_compose: SafeCompose,
    box: Box,
) -> None:
    here = {"cwd": shop.folder, "env": shop.env}
    before = plan_of(safe_compose, "compose", *words, **here, input=answer)
    assert (before["verdict"], named(before)) == ("pass", set()), "the definition is what it was"
    assert safe_compose("compose", *words, **here, input=answer).returncode == 0  # type: ignore[arg-type]
    assert shop.read("files") == "kept"

    shop.write("{labels: {changed: 'a<b $$x'}}")
    plan = plan_of(safe_compose, "compose", *words, **here, input=answer)
    assert (plan["kind"], plan["verdict"], named(plan)) == (
        "compose_recreate_changed_volume",
        "guard",
        {shop.named},
    )
    refused = safe_compose("compose", *words, **here, input=answer)  # type: ignore[arg-type]
    assert refused.returncode == 77, refused.stderr
    assert shop.read("files") == "kept"
    done = safe_compose(*JOB, "compose", *words, **here, input=answer)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    if words[0] == "create":
        shop.compose("start")
    assert shop.compose("exec", "-T", "app", "ls", "/files").stdout == "", "compose recreated it"
    asked = safe_compose("undo", "--confirm", shop.folder.name, **here)  # type: ignore[arg-type]
    assert asked.returncode == 0, asked.stderr
    assert box.read(shop.named) == "kept"


@pytest.mark.thorough
@pytest.mark.parametrize("answer", ["", "n\n"])
def test_no_answer_or_a_no_on_stdin_keeps_a_changed_volume(
    answer: str, shop: ShopOnEngine, safe_compose: SafeCompose
) -> None:
    shop.list_without_headings()
    shop.write("{labels: {changed: '1'}}")
    done = safe_compose("compose", "up", "-d", cwd=shop.folder, env=shop.env, input=answer)
    if answer:
        assert done.returncode == 77, "what stands on a pipe is not read to see whether it says yes"
    else:
        assert done.returncode == 0, done.stderr
    assert shop.read("files") == "kept"


@pytest.mark.thorough
def test_renewing_anonymous_volumes_says_one_line_and_passes(
    shop: ShopOnEngine, safe_compose: SafeCompose, box: Box
) -> None:
    anonymous = shop.anonymous
    done = safe_compose(
        "compose", "up", "-d", "-V", "--force-recreate", cwd=shop.folder, env=shop.env
    )
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("safe-compose:")]
    assert anonymous in line and "/hidden" in line
    assert box.read(anonymous) == "kept"


@pytest.mark.thorough
def test_docker_compose_of_version_one_is_guarded_through_its_shim(
    tmp_path: Path, box: Box
) -> None:
    folder = tmp_path / unique("oldshop")
    folder.mkdir()
    service = "{image: 'busybox:latest', network_mode: none, volumes: ['files:/f']}"
    text = f"version: '2.4'\nservices: {{app: {service}}}\nvolumes: {{files: {{}}}}\n"
    (folder / "docker-compose.yml").write_text(text, encoding="utf-8")
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "docker-compose").symlink_to(plain_program())
    path = f"{shims}:{old_compose().parent}:{os.environ['PATH']}"

    def run(*words: str) -> Completed:
        return subprocess.run(
            ["docker-compose", *words], cwd=folder, env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    made = run("up", "--no-start")
    assert made.returncode == 0, made.stderr
    volume = f"{folder.name}_files"
    box.write(volume, "kept")
    refused = run("down", "-v")
    assert refused.returncode == 77 and box.exists(volume)
    assert volume in refused.stderr and "--non-interactive --backup-first" in refused.stderr
    down = run("down")
    assert down.returncode == 0, down.stderr
    assert box.read(volume) == "kept"
