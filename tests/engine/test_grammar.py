"""Docker's command line: what each spelling may do. `cases/argv.json` was found out by running real
clients.
"""

import http.server
import json
import os
import random
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from safe_compose.errors import UsageError
from safe_compose.grammar import own_flags, parser, tables
from safe_compose.grammar.own_flags import OwnFlags, add_environment
from safe_compose.grammar.parser import Invocation, parse

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "cases" / "argv.json").read_text()
)["cases"]
NAMES = {
    "renew_anon": "compose_renew_anon",
    "drop_reference": "none",
    "cli_error": "none",
    "autoremove_own": "none",
    "buildx_state": "none",
}
ONLY_A_LOOK_CAN_TELL = {
    22: "there is no service named false",
    41: "the compose that is installed refuses a project name in upper case",
    73: "there is no such context",
    236: "the container is not --rm",
    242: "an --rm container that is removed by force: the daemon's own removal may come first",
    244: "the container is not --rm",
    257: "the node is in no swarm",
    286: "there are no certificates",
}
LATER = {381: "podman"}


def case_id(case: dict[str, Any]) -> str:
    return f"{case['id']}: {' '.join(case['tokens'])}"


def read(line: str, program: str = "docker") -> Invocation:
    return parse(line.split(), program)


@pytest.mark.parametrize("case", [c for c in CASES if c["id"] not in LATER], ids=case_id)
def test_case_is_read_as_the_real_client_reads_it(case: dict[str, Any]) -> None:
    program, *words = case["tokens"]
    invocation = parse(words, program, dialect="v1" if "1.29" in case["target"] else "v2")
    kind = NAMES.get(case["kind"], case["kind"])
    assert invocation.argv == tuple(words)
    if case["expect"] == "guard":
        assert (invocation.kind, invocation.doubt) == (kind, None)
    elif case["id"] in ONLY_A_LOOK_CAN_TELL:
        assert invocation.kind != "none", "without a look the words must be believed"
    elif case["expect"] == "pass":
        assert invocation.kind == "none" or invocation.doubt is not None
    elif case["expect"] == "either":
        assert invocation.kind in (kind, "none") or invocation.doubt is not None
    else:
        assert (invocation.kind, invocation.doubt) == (kind, None)


DESTRUCTIVE = [
    ("compose down -v", "compose_down_volumes"),
    ("compose down -vt5", "compose_down_volumes"),
    ("compose down -t=10 -v", "compose_down_volumes"),
    ("compose down -t 0x10 --volumes", "compose_down_volumes"),
    ("compose down --volumes=false -v", "compose_down_volumes"),
    ("compose down -test.v -v", "compose_down_volumes"),
    ("compose down --rmi= -v", "compose_down_volumes"),
    ("compose --dry-run down -v --dry-run=false", "compose_down_volumes"),
    ("compose --verbose -v down -v", "compose_down_volumes"),
    ("compose -- x down -v", "compose_down_volumes"),
    ("--help compose down -v --help=false", "compose_down_volumes"),
    ("-- compose down -v", "compose_down_volumes"),
    ("-DHtcp://x compose -pfoo down -v", "compose_down_volumes"),
    ("compose rm -sv", "compose_rm_anon"),
    ("compose kill", "autoremove_anon"),
    ("compose kill -s TERM web", "autoremove_anon"),
    ("compose down --remove-orphans", "autoremove_anon"),
    ("compose down --remove-orphans -v", "compose_down_volumes"),
    ("compose up -dy", "compose_recreate_changed_volume"),
    ("compose up -dVy", "compose_recreate_changed_volume"),
    ("compose up --no-deps -V", "compose_renew_anon"),
    ("compose create --yes web", "compose_recreate_changed_volume"),
    ("volume rm x", "volume_rm"),
    ("volume remove -f x y", "volume_rm"),
    ("volume -- x rm y", "volume_rm"),
    ("-- -- x volume rm y", "volume_rm"),
    ("volume a-b rm x", "volume_rm"),  # docker 20.10 takes a-b for a flag
    ("a-b c--d=e system f-g prune --volumes", "system_prune_volumes"),
    ("-vD volume rm x", "volume_rm"),
    ("volume prune", "volume_prune"),
    ("volume prune -af --filter label=a", "volume_prune"),
    ("system prune --volumes -f", "system_prune_volumes"),
    ("rm -fv x", "container_rm_anon"),
    ("container remove --volumes x", "container_rm_anon"),
    ("remove -lv x", "container_rm_anon"),
    ("rm -f x", "autoremove_anon"),
    ("stop x", "autoremove_anon"),
    ("container kill -s KILL x", "autoremove_anon"),
    ("service rm x", "swarm_task_anon"),
    ("service remove x", "swarm_task_anon"),
    ("service update --force x", "swarm_task_anon"),
    ("service scale x=0", "swarm_task_anon"),
    ("service rollback x", "swarm_task_anon"),
    ("stack down x", "swarm_task_anon"),
    ("stack up -c f --prune x", "swarm_task_anon"),
    ("node update --availability drain n", "swarm_task_anon"),
    ("swarm leave -f", "swarm_task_anon"),
]


@pytest.mark.parametrize(("line", "kind"), DESTRUCTIVE)
def test_what_may_delete_is_recognised_without_a_doubt(line: str, kind: str) -> None:
    invocation = read(line)
    assert (invocation.kind, invocation.doubt) == (kind, None)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ps",
        "compose",
        "compose down",
        "compose down --rmi -v",
        "compose down -t -v",
        "compose down -t x -v",
        "compose down -t 09 -v",
        "compose down -v0",
        "compose down -v=",
        "compose down -v=yes",
        "compose down --volumes=",
        "compose down -- -v",
        "compose down -vh",
        "compose down ---v",
        "compose down --=v -v",
        "compose down -v --dry-run",
        "compose --dry-run=false --dry-run down -v",
        "compose --dry-run=maybe down -v",
        "compose -p down -v",
        "compose -vp other down -v",
        "compose -- down -v",
        "compose x down -v",
        "compose DOWN -v",
        "compose exec db down -v",
        "compose run web rm -v",
        "compose run -v a:b web",
        "compose run --volumes a:b web -y",
        "compose up -d",
        "compose up --yes=false",
        "compose stop",
        "compose down --remove-orphans=false",
        "-- -- compose down -v",
        "-H a -H b compose down -v",
        "-c x -H y compose down -v",
        "-l down volume rm x",
        "-D=maybe volume rm x",
        "-D= volume rm x",
        "--config volume rm",
        "volume rm",
        "volume rm -f",
        "volume rm -f=yes x",
        "volume rm -hf x",
        "volume -- rm x",
        "volume -h rm x",
        "volume delete x",
        "volume ls rm x",
        "volume prune x",
        "volume prune --filter x",
        "volume prune --filter",
        "help volume rm x",
        "system prune -af",
        "rm -v",
        "rm x",
        "restart x",
        "run --rm -v a:b image rm -v x",
        "exec c rm -v x",
        "container prune -f",
        "node update --availability active n",
        "service update x y",
    ],
)
def test_what_cannot_delete_is_left_alone(line: str) -> None:
    invocation = read(line)
    assert (invocation.kind, invocation.doubt) == ("none", None)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("compose down -vf", "compose_down_volumes"),
        ("compose down -v --now", "compose_down_volumes"),
        ("compose down -v --rmi unused", "compose_down_volumes"),
        ("compose down -V", "compose_down_volumes"),
        ("compose down --vol", "compose_down_volumes"),
        ("compose down --volumes-too", "compose_down_volumes"),
        ("compose --new down -v", "compose_down_volumes"),
        ("compose --new value down -v", "compose_down_volumes"),
        ("--new compose down -v", "compose_down_volumes"),
        ("--new value compose down -v", "compose_down_volumes"),
        ("-v compose down -v", "compose_down_volumes"),
        ("compose rm --volume", "compose_rm_anon"),
        ("compose run -y web", "compose_recreate_changed_volume"),
        ("compose scale --yes web=2", "compose_recreate_changed_volume"),
        ("compose watch -y", "compose_recreate_changed_volume"),
        ("volume rm -x name", "volume_rm"),
        ("volume -f rm x", "volume_rm"),
        ("system prune -fv", "system_prune_volumes"),
        ("system prune --Volumes", "system_prune_volumes"),
        ("rm -fV x", "container_rm_anon"),
        ("volume rm --all", "volume_rm"),
        ("volume prune --all-nodes x", "volume_prune"),
        ("stop --all", "autoremove_anon"),
        ("extension rm --new x", "unsupported"),
    ],
)
def test_a_flag_that_only_a_newer_client_could_know_leaves_a_doubt(line: str, kind: str) -> None:
    invocation = read(line)
    assert invocation.kind == kind
    assert invocation.doubt is not None
    assert "newer client" in invocation.doubt


@pytest.mark.parametrize(
    "line",
    ["compose down --quiet", "compose rm --foo", "rm --foo x", "compose -z ps", "volume ls --foo", "service rm --foo x",
     "compose up -V --foo", "system prune volumes", "compose down --", "compose down ---", "extension ls --foo"],
)  # fmt: skip
def test_an_unknown_flag_alone_deletes_nothing(line: str) -> None:
    assert (read(line).kind, read(line).doubt) == ("none", None)


@pytest.mark.parametrize(
    "line", ["compose up --foo", "compose --foo up", "compose up --foo --help", "--foo compose up"]
)
def test_an_unknown_flag_does_not_keep_compose_from_taking_an_answer(line: str) -> None:
    assert (read(line).asks, read(line).kind) == (True, "none")
    doubtful = parser.add_answer(read(line))
    assert doubtful.kind == "compose_recreate_changed_volume" and doubtful.is_refused


@pytest.mark.parametrize("line", ["compose down --foo", "compose --foo down"])
def test_an_unknown_flag_does_not_keep_orphans_from_going(line: str) -> None:
    doubtful = parser.add_remove_orphans(read(line))
    assert (doubtful.verb, doubtful.kind, doubtful.is_refused) == (
        ("compose", "down"),
        "autoremove_anon",
        True,
    )


def test_levels_are_kept_apart_and_verbatim() -> None:
    invocation = read("-Dl error -- compose -f a.yaml -pfoo --verbose down -vt 5 db -- -x")
    assert invocation.docker_globals == ("-Dl", "error")
    assert invocation.docker_flags == (("debug", "true"), ("log-level", "error"))
    assert invocation.compose_globals == ("-f", "a.yaml", "-pfoo", "--verbose")
    assert invocation.compose_flags == (
        ("file", "a.yaml"),
        ("project-name", "foo"),
        ("verbose", "true"),
    )
    assert invocation.verb == ("compose", "down")
    assert invocation.flags == (("volumes", "true"), ("timeout", "5"))
    assert invocation.operands == ("db", "-x")
    assert invocation.flag("project-name") == "foo"
    assert invocation.is_set("volumes")
    assert not invocation.is_set("remove-orphans")


@pytest.mark.parametrize(
    "line", ["rm -v x", "remove -v x", "container rm -v x", "container remove -v x"]
)
def test_every_alias_has_one_name(line: str) -> None:
    assert read(line).verb == ("container", "rm")


@pytest.mark.parametrize(
    ("line", "docker_globals", "kind"),
    [
        ("--host x down -v", ("--host", "x"), "compose_down_volumes"),
        ("--host=x --verbose down -v", ("--host", "x", "--debug"), "compose_down_volumes"),
        (
            "-f a --context x down -v",
            (),
            "none",
        ),  # after `a` nothing is rewritten any more, and compose has no --context
        ("-fa --context x down -v", ("--context", "x"), "compose_down_volumes"),
        ("-v down -v", (), "none"),
        ("-h down -v", (), "none"),
        ("--host", (), "none"),
        ("compose down -v", (), "none"),
        ("__complete down -v", (), "none"),
    ],
)
def test_standalone_compose_moves_dockers_flags(
    line: str, docker_globals: tuple[str, ...], kind: str
) -> None:
    invocation = read(line, "docker-compose")
    if invocation.doubt is None:
        assert invocation.kind == kind
    assert invocation.docker_globals == docker_globals
    assert invocation.argv == tuple(line.split())


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("down --vol", "compose_down_volumes"),
        ("-- down -v", "compose_down_volumes"),
        ("-f x --proj=y down -v", "none"),  # --project-name or --project-directory?
        ("--project-n y -c ctx down -vt 3", "compose_down_volumes"),
        ("-v down -v", "none"),
        ("down -v db", "none"),
        ("down --volumes=true", "none"),
        ("down -vh", "none"),
        ("down -v --help", "none"),
        ("rm -sv -- db", "compose_rm_anon"),
        ("rm --volumes", "none"),
        ("rm db -v", "none"),
        ("up -V", "compose_renew_anon"),
    ],
)
def test_the_old_compose_takes_prefixes_and_puts_options_first(line: str, kind: str) -> None:
    invocation = parse(line.split(), "docker-compose", dialect="v1")
    assert (invocation.kind, invocation.doubt) == (kind, None)


# -- our own flags ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        ("--non-interactive ps", "ps"),
        ("--non-interactive --backup-first compose down -v", "compose down -v"),
        ("compose --explain down -v", "compose down -v"),
        ("compose down --confirm a -v", "compose down -v"),
        ("compose down -v --confirm=a", "compose down -v"),
        ("volume rm x --explain --json", "volume rm x"),
        ("compose -f --explain down -v", "compose -f --explain down -v"),
        ("-H --explain volume rm x", "-H --explain volume rm x"),
        ("compose down -t --explain -v", "compose down -t --explain -v"),
        ("ps --json", "ps --json"),
        ("compose ps --json", "compose ps --json"),
        ("compose exec db x --explain", "compose exec db x --explain"),
        ("compose run --explain web --json", "compose run web --json"),
        ("volume --explain rm x", "volume --explain rm x"),
        ("compose down -- --explain", "compose down -- --explain"),
        ("-- --explain compose down", "-- --explain compose down"),
    ],
)
def test_own_flags_are_taken_out_where_they_are_ours(line: str, argv: str) -> None:
    assert read(line).argv == tuple(argv.split())


def test_own_flags_are_read() -> None:
    own = read("--non-interactive compose --backup-first down -v --confirm the --confirm=the").own
    assert own == OwnFlags(non_interactive=True, backup_first=True, confirm="the")
    assert read("volume rm x --explain --json --offline").own == OwnFlags(
        explain=True, json=True, offline=True
    )


@pytest.mark.parametrize(
    "line",
    [
        "--skip-backup --backup-first ps",
        "--offline volume rm x",
        "--confirm a volume rm --confirm b x",
        "volume rm x --confirm",
        "--explain=true volume rm x",
    ],
)
def test_own_flags_used_wrongly_are_refused(line: str) -> None:
    with pytest.raises(UsageError):
        read(line)


def test_the_environment_speaks_where_words_do_not() -> None:
    environ = {
        "SAFE_COMPOSE_NON_INTERACTIVE": "1",
        "SAFE_COMPOSE_BACKUP_FIRST": "true",
        "SAFE_COMPOSE_CONFIRM": "from outside",
    }
    assert add_environment(OwnFlags(), environ) == OwnFlags(
        non_interactive=True, backup_first=True, confirm="from outside"
    )
    assert add_environment(OwnFlags(confirm="typed"), environ).confirm == "typed"
    assert (
        add_environment(OwnFlags(), {"SAFE_COMPOSE_BACKUP_FIRST": "0", "SAFE_COMPOSE_CONFIRM": ""})
        == OwnFlags()
    )


@pytest.mark.parametrize(
    ("own", "environ"),
    [
        (OwnFlags(skip_backup=True), {"SAFE_COMPOSE_BACKUP_FIRST": "1"}),
        (OwnFlags(), {"SAFE_COMPOSE_BACKUP_FIRST": "yes"}),
    ],
)
def test_an_environment_that_contradicts_or_mumbles_is_refused(
    own: OwnFlags, environ: dict[str, str]
) -> None:
    with pytest.raises(UsageError):
        add_environment(own, environ)


# -- properties ------------------------------------------------------------------------------------

VOCABULARY = sorted(
    {word for case in CASES for word in case["tokens"][1:]}
    | {word for path in tables.VERBS for word in path}
    | own_flags.OWN_FLAGS
    | {
        "--confirm=x",
        "--",
        "-",
        "",
        "-x",
        "--foo",
        "\udcff",
        "a\nb",
        "-\udcff",
        "--é=1",
        "-test.v",
        "--dry-run=false",
    }
)
anything = st.lists(
    st.one_of(st.sampled_from(VOCABULARY), st.text(st.characters(codec=None), max_size=6)),
    max_size=9,
)
programs = st.sampled_from([("docker", "v2"), ("docker-compose", "v2"), ("docker-compose", "v1")])


@settings(max_examples=600, deadline=None)
@given(anything, programs)
@example(["compose", "-t"], ("docker-compose", "v2"))
@example(["-H", "compose", "down", "-v"], ("docker-compose", "v2"))
def test_no_words_raise_anything_but_a_usage_error(
    words: list[str], program: tuple[str, str]
) -> None:
    try:
        invocation = parse(words, program[0], dialect=program[1])
    except UsageError:
        return
    taken = [word for word in words if word.partition("=")[0] in own_flags.OWN_FLAGS]
    assert len(words) - 2 * len(taken) <= len(invocation.argv) <= len(words)
    assert invocation.doubt is None or invocation.kind != "none"


@settings(max_examples=600, deadline=None)
@given(anything, programs)
def test_taking_own_flags_out_changes_no_other_word_and_no_decision(
    words: list[str], program: tuple[str, str]
) -> None:
    try:
        invocation = parse(words, program[0], dialect=program[1])
    except UsageError:
        return
    again = parse(invocation.argv, program[0], dialect=program[1])
    assert again == invocation._replace(own=OwnFlags())
    rest = iter(words)
    assert all(any(word == other for other in rest) for word in invocation.argv), (
        "a subsequence, in order"
    )


OWN_WORDS = [
    ["--non-interactive"],
    ["--backup-first"],
    ["--explain", "--json"],
    ["--confirm", "-v"],
    ["--confirm=down"],
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(DESTRUCTIVE), st.data())
def test_own_flags_never_decide_the_kind(command: tuple[str, str], data: st.DataObject) -> None:
    words = command[0].split()
    own = data.draw(st.sampled_from(OWN_WORDS))
    invocation = parse([*own, *words])
    assert (invocation.kind, invocation.argv) == (command[1], tuple(words))
    if "--" not in words and "-test.v" not in words:
        assert parse([*words, *own])._replace(own=OwnFlags()) == parse(words)


# -- held against the real clients -----------------------------------------------------------------


def help_of(path: tuple[str, ...]) -> dict[str, bool]:
    """The long flags that `docker ... --help` shows, and whether each takes a value."""
    text = subprocess.run(
        ["docker", *path, "--help"], capture_output=True, text=True, check=True
    ).stdout
    shown = {}
    for line in text.splitlines():
        words = line.replace(",", " ").split()
        long = next((word for word in words[:2] if word.startswith("--")), None)
        if long and line.startswith("  ") and len(line) - len(line.lstrip()) <= 6:
            after = line[line.index(long) + len(long) :]
            shown[long[2:]] = after[:1] == " " and after[1:2] not in (" ", "")
    return shown


@pytest.mark.engine
@pytest.mark.parametrize("path", sorted(set(tables.VERBS) - {("remove",)}), ids=" ".join)
def test_the_tables_know_every_flag_that_the_installed_client_shows(path: tuple[str, ...]) -> None:
    verb = tables.VERBS[path]
    shown = help_of(path)
    assert shown or path in (("service", "rm"), ("service", "remove"))
    known = tables.table(verb.flags, tables.DRY_RUN, tables.HELP, spellings=verb.spellings)
    for name, valued in shown.items():
        meant = known.known(name)
        assert meant is not None, f"--{name}"
        assert (known.types[meant] != "bool") == valued, f"--{name}"


class FakeEngine(http.server.BaseHTTPRequestHandler):
    """Says yes to everything and writes down what would have been deleted."""

    protocol_version = "HTTP/1.1"
    asked: list[str] = []  # noqa: RUF012 - one list for all requests

    def log_message(self, format: str, *args: object) -> None: ...

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command in ("DELETE", "POST"):
            self.asked.append(f"{self.command} {self.path}")
        body = b"" if self.command == "HEAD" else b"{}"
        self.send_response(200)
        self.send_header("Api-Version", "1.45")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_DELETE = answer


class FakeEngineServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def fake_engine(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "d.sock"
    with FakeEngineServer(str(path), FakeEngine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"unix://{path}"
        server.shutdown()


def deleted(asked: list[str]) -> set[str]:
    kinds = set()
    for line in asked:
        if line.startswith("DELETE") and "/volumes/" in line:
            kinds.add("volume_rm")
        elif line.startswith("DELETE") and "v=1" in line:
            kinds.add("container_rm_anon")
        elif (
            (line.startswith("DELETE") and "force=1" in line) or "/stop" in line or "/kill" in line
        ):
            kinds.add("autoremove_anon")
        elif "/volumes/prune" in line:
            kinds.add("volume_prune")
    return kinds


@pytest.mark.thorough
@pytest.mark.engine
@pytest.mark.parametrize("seed", range(4))
def test_the_installed_client_does_what_the_grammar_says(seed: int, fake_engine: str) -> None:
    """Random command lines, given to the real docker with an engine that only listens."""
    chance = random.Random(seed)
    before = "-D --debug=false -v -l info -lerror --help --help=false -- -vD --foo -x -D=0 -D= -test.v -".split()  # noqa: SIM905
    verbs = [
        "volume rm",
        "volume remove",
        "rm",
        "container rm",
        "stop",
        "kill",
        "volume prune -f",
        "system prune -f",
    ]
    after = (  # noqa: SIM905
        "-f --force -v --volumes -vf -lv --volumes=false --volumes=1 -f=0 -f= --link -- -t 10 -t10"
        " -t=0x1 -s TERM --time 5 --timeout=1_0 --filter label=a --filter=x -a --help -h --help=0"
        " --volume -V --forc x y - -ftest.f --time=09 yes"
    ).split()
    environ = {**os.environ, "DOCKER_HOST": fake_engine}
    opened = 0
    for _ in range(40):
        words = [chance.choice(before) for _ in range(chance.choice([0, 0, 0, 1, 2]))]
        verb = chance.choice(verbs).split()
        if len(verb) > 1 and chance.random() < 0.15:
            verb.insert(1, chance.choice(before))
        words += verb + [chance.choice(after) for _ in range(chance.choice([1, 2, 2, 3]))]
        FakeEngine.asked.clear()
        subprocess.run(
            ["docker", *words],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        invocation = parse(words)
        said = {invocation.kind} - {"none"} if invocation.doubt is None else set()
        said = {"volume_prune" if kind == "system_prune_volumes" else kind for kind in said}
        asks = said == {"volume_prune"} and not invocation.is_set("force")
        assert deleted(FakeEngine.asked) == (set() if asks else said), words
        opened += bool(FakeEngine.asked)
    assert opened, "the engine was reached at least once"
