"""What `--explain` says before, held against what the real clients then delete, on an engine where
nothing matters.

Each example is one argv (with folder, environment and stdin) over all destructive commands, both
levels of global flags, bundles, `=` forms, `--`, unknown flags and aliases. A volume that dies
without having been named is a false pass: there must be none. A volume named in vain is a false
alarm: counted. `SAFE_COMPOSE_DIFFERENTIAL=2000` runs that many argv for each client, at random, and
`SAFE_COMPOSE_DIFFERENTIAL_REPORT=FILE` keeps the counts.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from safe_compose import shim
from safe_compose.fastpath import queries
from testing.fixture import IMAGE, Fixture, plugin_folder, version_of
from testing.fixtures import OUTSIDE
from testing.oldclients import old_compose, old_docker
from testing.private_engine import private_engine
from testing.projects import LAB, real_docker

pytestmark = [pytest.mark.engine, pytest.mark.matrix, pytest.mark.xdist_group("differential")]

EXAMPLES = int(OUTSIDE.get("SAFE_COMPOSE_DIFFERENTIAL", "0")) or 42
LONG = "SAFE_COMPOSE_DIFFERENTIAL" in OUTSIDE
REPORT = OUTSIDE.get("SAFE_COMPOSE_DIFFERENTIAL_REPORT")
COMPOSE = sorted(
    LAB.glob("compose/*/docker-compose"), key=lambda p: [int(n) for n in p.parent.name.split(".")]
)


# -- words -----------------------------------------------------------------------------------------


def some(*words: str, most: int = 2) -> st.SearchStrategy[list[str]]:
    """A few of these, each one or more words, in any order, also twice."""
    return st.lists(st.sampled_from(words), max_size=most).map(
        lambda chosen: [w for c in chosen for w in c.split()]
    )


def rarely(*words: str) -> st.SearchStrategy[list[str]]:
    return st.sampled_from([""] * (4 * len(words)) + list(words)).map(str.split)


def line(*parts: st.SearchStrategy[list[str]] | str) -> st.SearchStrategy[list[str]]:
    taken = [st.just(p.split()) if isinstance(p, str) else p for p in parts]
    return st.tuples(*taken).map(lambda lists: [word for words in lists for word in words])


ODD = rarely("--", "-h", "--help", "--help=false", "--unknown", "--unknown x", "-Z", "-", "--=",
 "---", "-test.v", "--vol",
             "a-b", "c--d")  # fmt: skip
DOCKER = st.one_of(
    *[st.just([])] * 2,
    some("-D", "-l error", "-H HOST", "--config CONFIG", "-DHHOST", "--"),
    some("-D", "--debug=false", "-l error", "-lerror", "--log-level=info", "--config CONFIG",
     "-H HOST", "-DHHOST", "-H=HOST",
         "--tls=false", "-c default", "--context=default", "-v", "-Dv", "--", "-c down"),
)  # fmt: skip
COMPOSE_FLAGS = st.one_of(
    *[st.just([])] * 2,
    some("-p fx", "-pfy", "-f compose.yaml", "--profile tools", "--profile=*", "--dry-run=false",
     "--ansi never"),
    some("-p fx", "-pfx", "--project-name=fy", "-p=fx", "-p typo", "-f compose.yaml",
     "-fcompose.yaml", "--file=../fx/compose.yaml",
         "-f missing.yaml", "--profile tools", "--profile=*", "--profile nope", "--dry-run",
         "--dry-run=false", "--ansi never", "--progress plain", "--parallel 2", "--compatibility",
         "--verbose", "-v", "--project-directory ../fx", "--workdir=../fx", "--env-file .env",
         "--all-resources", "--", "-vp fx", "-p down", "-- x"),
)  # fmt: skip
SERVICES = st.one_of(some("db", "web", "tool"), some("db", "gone", "typo", "one", "false", "db=1"))
DESTRUCTIVE = {
    "down": line(
        "down",
        some("-v", "--volumes", "--volume", "-v=false", "--volumes=false", "--volumes=1", "-vt5",
         "-vt 0", "-t=1", "--rmi local",
             "--rmi=", "--remove-orphans", "--remove-orphans=false", "--timeout 0", "--timeout=0x1",
             most=3),
        rarely("--dry-run", "-vh", "-V", "--rmi -v", "-t -v", "-v0", "--volumes=yes"),
        ODD, st.one_of(st.just([]), st.just(["-v"])), st.one_of(st.just([]), SERVICES),
    ),
    "rm": line("rm", some("-v", "-f", "-s", "-fsv", "-sfv", "--stop", "--force", "--volumes", "-a",
      "-vf=false", most=4),
               rarely("--volume"),
               ODD, st.one_of(st.just([]), SERVICES)),
    "up": line("up", st.sampled_from([["-d"], ["--no-start"], ["-dV"], ["-dy"], ["-d", "--yes"],
       ["--y", "-d"], ["-dyV"]]),
               some("--force-recreate", "--no-recreate", "--remove-orphans", "--no-deps", "-V",
                "--renew-anon-volumes", "-y=false",
                    "--scale web=0", "-t 0", "--wait", "--pull never", most=2), ODD,
                    st.one_of(st.just([]), SERVICES)),
    "create": line("create", some("-y", "--yes", "--y=true", "--force-recreate", "--no-build",
      most=3), ODD,
                   st.one_of(st.just([]), SERVICES)),
    "run": line("run", some("-d", "--rm", "--no-deps", "-T", "-v x:/x", "--volume=y:/y", "-y",
      most=3), ODD,
                st.sampled_from([["web", "true"], ["db", "rm", "-v"], ["tool", "true"], ["-v",
                   "down"], []])),
    "scale": line("scale", some("--no-deps", "-y", most=1), ODD, st.sampled_from([["web=0"],
       ["db=2"], ["tool=1"], ["web"]])),
}  # fmt: skip
COMPOSE_LINE = st.one_of(
    line(COMPOSE_FLAGS, command)
    for command in [
        *DESTRUCTIVE.values(),
        DESTRUCTIVE["down"],
        DESTRUCTIVE["down"],
        DESTRUCTIVE["rm"],
    ]
)
THINGS = some(
    "loose",
    "kept",
    "fx_data",
    "fx-ext",
    "used",
    "typo",
    "fx_unused",
    "-f",
    "--force",
    "LOOSE",
    "lo",
    most=4,
)
BOXES = some(
    "plain", "runner", "passing", "marked", "fx-db-1", "typo", "/plain", "fx-gone-1", most=3
)
FILTERS = some("--filter label=keep", "--filter label!=keep", "--filter=label=keep=2",
 "--filter all=1", "--filter label=keep=1",
               "--filter until=1s", "--filter=nonsense=1", most=2)  # fmt: skip
PLAIN = st.one_of(
    line("volume", ODD, st.sampled_from([["rm"], ["remove"], ["rm", "-f"]]), ODD, THINGS),
    line("volume", ODD, "prune", some("-f", "--force", "-a", "--all", "-af", "-f=false", most=2),
     ODD, FILTERS),
    line("system prune", some("-f", "--volumes", "-fa", "--volumes=false", "--volumes=1", "-v",
      "--force", most=3), ODD, FILTERS),
    line("system prune -f --volumes", FILTERS),
    line(st.sampled_from([["rm"], ["container", "rm"], ["container", "remove"], ["remove"]]),
         some("-v", "-f", "-fv", "-vf", "--volumes", "--volumes=false", "--force=false", most=3),
         rarely("-l", "--volume"), ODD, BOXES),
    line(st.sampled_from([["stop", "-t", "0"], ["container", "stop", "--time=0"], ["kill"], ["kill",
        "-s", "HUP"],
                          ["container", "kill", "-sKILL"], ["rm", "-f"], ["restart", "-t", "0"]]),
                          ODD, BOXES),
    line("container prune", some("-f", most=1)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Typed:
    words: tuple[str, ...]
    folder: str = "fx"
    environ: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""


TYPED = st.builds(
    Typed,
    words=st.one_of(
        line(DOCKER, "compose", COMPOSE_LINE),
        line(DOCKER, "compose", COMPOSE_LINE),
        line(DOCKER, PLAIN),
    ).map(tuple),
    folder=st.sampled_from(["fx"] * 6 + ["fx/sub", "fy", "none"]),
    environ=st.sampled_from(
        [{}] * 8
        + [
            {"COMPOSE_PROJECT_NAME": "fx"},
            {"COMPOSE_PROJECT_NAME": "fy"},
            {"COMPOSE_PROFILES": "tools"},
            {"COMPOSE_REMOVE_ORPHANS": "1"},
            {"COMPOSE_FILE": "../fx/compose.yaml"},
            {"COMPOSE_PROJECT_NAME": "Not Valid"},
            {"DOCKER_API_VERSION": "1.40"},
        ]
    ),
    stdin=st.sampled_from(["", "", "y\n", "n\n", "y\ny\ny\n"]),
)


# -- clients ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClientUnderTest:
    """One pair of docker and compose, and how it is called."""

    name: str
    docker: Path
    config: Path
    compose: Path | None = None
    """The standalone docker-compose: the words after `compose` are for it."""


CLIENTS = (
    "docker-with-oldest-compose",
    "docker-with-newest-compose",
    "docker-20.10-with-oldest-compose",
    "newest-docker-compose",
    "docker-compose-1.29",
)


@pytest.fixture(scope="module")
def workspace(lab: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fixture]:
    with private_engine([IMAGE]) as engine:
        yield Fixture(engine, tmp_path_factory.mktemp("fixture"))


@pytest.fixture(scope="module")
def clients(lab: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClientUnderTest]:
    folder = tmp_path_factory.mktemp("clients")
    oldest, newest = COMPOSE[0], COMPOSE[-1]
    docker = Path(real_docker())
    old, new = plugin_folder(folder / "old", oldest), plugin_folder(folder / "new", newest)
    made = [
        ClientUnderTest(CLIENTS[0], docker, old),
        ClientUnderTest(CLIENTS[1], docker, new),
        ClientUnderTest(CLIENTS[2], old_docker(), old),
    ]
    for name, binary in ((CLIENTS[3], newest), (CLIENTS[4], old_compose())):
        alone = folder / name
        alone.mkdir()
        (alone / "docker-compose").symlink_to(binary)
        (alone / "docker").symlink_to(docker)
        made.append(ClientUnderTest(name, docker, new, alone / "docker-compose"))
    return {client.name: client for client in made}


def environment_of(client: ClientUnderTest, workspace: Fixture, typed: Typed) -> dict[str, str]:
    path = (
        f"{client.compose.parent}:/usr/bin:/bin"
        if client.compose
        else f"{client.docker.parent}:/usr/bin:/bin"
    )
    return {
        **{k: v for k, v in os.environ.items() if k not in ("PATH", "DOCKER_HOST")},
        "PATH": path,
        "DOCKER_HOST": workspace.engine.host,
        "DOCKER_CONFIG": str(client.config),
        "SAFE_COMPOSE_DOCKER": str(client.docker),
        **typed.environ,
    }


def words_of(client: ClientUnderTest, workspace: Fixture, typed: Typed) -> list[str]:
    words = [
        w.replace("HOST", workspace.engine.host).replace("CONFIG", str(client.config))
        for w in typed.words
    ]
    if client.compose is not None and "compose" in words:
        words.remove("compose")
    return words


# -- one argv --------------------------------------------------------------------------------------


def explained(
    client: ClientUnderTest, workspace: Fixture, typed: Typed
) -> tuple[int, dict[str, Any], str]:
    """What `--explain --json` says of it: in a fork of this process, which has all imports behind
    it.
    """
    program = "docker-compose" if client.compose else "docker"
    argv = [program, "--explain", "--json", *words_of(client, workspace, typed)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        reading, writing = os.pipe()
        os.write(writing, typed.stdin.encode())
        os.close(writing)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            code = 70
            try:
                if not typed.stdin:
                    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                else:
                    os.dup2(reading, 0)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                os.chdir(workspace.folder / typed.folder)
                os.environ.clear()
                os.environ.update(environment_of(client, workspace, typed))
                sys.argv = argv
                code = shim.main()
                if code == 0 and program == "docker":
                    invocation = shim.read(argv[3:], program)
                    if invocation.kind != "none":
                        print(json.dumps({"quick": queries.is_harmless_removal(invocation)}))
                sys.stdout.flush()
            finally:
                os._exit(code)
        os.close(reading)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        said = [json.loads(text) for text in out.read().decode().splitlines()]
        merged = {key: value for part in said for key, value in part.items()}
        return os.waitstatus_to_exitcode(status), merged, err.read().decode("utf-8", "replace")


def really(client: ClientUnderTest, workspace: Fixture, typed: Typed) -> int | None:
    """Run the real client; None when it does not end by itself."""
    program = str(client.compose or client.docker)
    try:
        done = subprocess.run(
            [program, *words_of(client, workspace, typed)],
            cwd=workspace.folder / typed.folder,
            env=environment_of(client, workspace, typed),
            input=typed.stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=40,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.returncode


class ExampleCount:
    """What came out, for one client."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tried = self.deleting = self.named = 0
        self.alarms: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.passes: list[str] = []
        self.faults: list[str] = []

    def add(
        self,
        typed: Typed,
        code: int,
        said: Mapping[str, Any],
        err: str,
        died: set[str],
        workspace: Fixture,
    ) -> None:
        self.tried += 1
        self.deleting += bool(died)
        self.named += bool(died) and code == 0
        named = {v["name"] for v in said.get("volumes", ())}
        shown = (
            f"{' '.join(typed.words)}  [in {typed.folder}, {dict(typed.environ)}, stdin"
            f" {typed.stdin!r}]"
        )
        if code not in (0, 64, 69, 77) or "our bug" in err:
            self.faults.append(f"{shown}: exit {code}: {err}")
        missed = died - named if code == 0 else set()
        if said.get("quick") and died:
            missed |= died
        if missed:
            self.passes.append(
                f"{shown}: died unnamed: {sorted(map(workspace.owner, missed))}; said {said}"
            )
        if code:
            kind = (
                f"refused ({code})"
                if died
                else f"refused ({code}) although nothing died: {err.splitlines()[0] if err else ''}"
            )
            if not died:
                self._alarm(kind, shown)
        elif named - died:
            whole = "some of what was named survived" if died else "nothing died"
            self._alarm(
                f"{said['kind']}: {whole}",
                f"{shown} survived: {sorted(map(workspace.owner, named - died))}",
            )

    def _alarm(self, kind: str, example: str) -> None:
        self.alarms[kind] += 1
        self.examples.setdefault(kind, example)

    def report(self) -> str:
        lines = [f"{self.name}: {self.tried} argv, {self.deleting} deleted something ({self.named} of them not refused),"
                 f" {len(self.passes)} false passes, {sum(self.alarms.values())} false alarms"]  # fmt: skip
        lines += [
            f"  {count} x {kind}\n      {self.examples[kind]}"
            for kind, count in self.alarms.most_common()
        ]
        return "\n".join([*lines, *self.passes, *self.faults])


@pytest.fixture(autouse=True)
def every_volume_counts(sealed_environment: Path) -> None:
    """By a word in the user's own file: no content has to be read for a verdict."""
    words = sealed_environment / ".config" / "safe-compose" / "config.toml"
    words.parent.mkdir(parents=True)
    words.write_text('[volumes]\n"*" = "critical"\n', encoding="utf-8")


@pytest.mark.thorough
@pytest.mark.parametrize("name", CLIENTS)
def test_every_volume_that_dies_was_named_before(
    name: str, workspace: Fixture, clients: dict[str, ClientUnderTest]
) -> None:
    client = clients[name]
    count = ExampleCount(
        f"{name} ({version_of(client.compose or client.config / 'cli-plugins' / 'docker-compose')})"
    )
    share = EXAMPLES if LONG else max(EXAMPLES // len(CLIENTS), 1)

    @seed(random.randrange(1 << 32) if LONG else CLIENTS.index(name))
    @settings(
        max_examples=share,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(TYPED)
    def one(typed: Typed) -> None:
        if client.compose is not None and "compose" not in typed.words:
            typed = Typed(("compose", "down", "-v"), typed.folder, typed.environ, typed.stdin)
        workspace.mend()
        before = workspace.volumes()
        code, said, err = explained(client, workspace, typed)
        ended = really(client, workspace, typed)
        helps = any(word.startswith(("-h", "--help")) for word in typed.words)
        workspace.settle(killed=ended == 0 and {"kill", "passing"} <= {*typed.words} and not helps)
        after = workspace.volumes()
        died = {volume for volume, serial in before.items() if after.get(volume) != serial}
        count.add(typed, code, said, err, died, workspace)

    one()
    if REPORT:
        with Path(REPORT).open("a", encoding="utf-8") as file:
            file.write(count.report() + "\n")
    assert count.tried >= share // 2
    assert count.named >= count.deleting // 2, (
        count.report()
    )  # each client is understood, not only refused
    assert not count.passes and not count.faults, count.report()
