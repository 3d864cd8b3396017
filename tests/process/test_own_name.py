"""`safe-compose` by its own name: its help, its version, and words that were typed wrongly; as
docker, by whatever name, docker's own.
"""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safe_compose import __version__
from safe_compose.cli import app, verb_flags, verb_help, verbs
from safe_compose.core import coding_agents
from safe_compose.fastpath import launch
from safe_compose.grammar.spelling import find_near
from testing.fake_docker import FakeDocker, script
from testing.plain_install import plain_program

PROGRAM = plain_program()
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fake(tmp_path: Path) -> FakeDocker:
    """A docker that knows its version and says which words it got."""
    script(
        tmp_path / "bin" / "docker",
        '#!/bin/sh\n[ "$1" = --version ] && { echo "Docker version 28.5.2, build ecc6942"; exit; }\n'
        '[ "$*" = "compose version --short" ] && { echo 5.6.1; exit; }\n'
        'printf "docker got"; [ $# = 0 ] || printf " <%s>" "$@"; echo\n',
    )
    return FakeDocker(tmp_path / "bin")


@pytest.fixture
def run(fake: FakeDocker, tmp_path: Path) -> Run:
    def start(*words: str, program: Path = PROGRAM, **env: str) -> subprocess.CompletedProcess[str]:
        given = {"PATH": f"{fake.folder}:/usr/bin:/bin", "HOME": str(tmp_path), **env}
        return subprocess.run(
            [program, *words], env=given, capture_output=True, text=True, timeout=60, check=False
        )

    return start


def test_help_is_the_verbs_by_group_with_three_examples_and_where_dockers_is(run: Run) -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(done.stdout == run(*words).stdout for words in launch.HELP if words)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.rstrip(":") in verbs.GROUPS] == [
        "Protect:", "Back up:", "Bring back:", "Everyday:", "Machine:",
    ]  # fmt: skip
    assert all(any(line.split()[:1] == [verb] for line in lines) for verb in verbs.VERBS)
    examples = lines[lines.index("Examples:") + 1 :]
    assert sum(line.startswith("  safe-compose ") for line in examples) == 3
    assert lines[-1] == "docker's own help: safe-compose docker --help"
    assert max(map(len, lines)) <= 80


def test_without_a_word_the_verbs_and_examples_fit_on_one_screen(run: Run) -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) <= 22 and max(map(len, lines)) <= 80
    named = {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}
    assert all(named[title] == list(group) for title, group in verbs.GROUPS.items())
    assert sum(line.startswith("  safe-compose ") for line in lines) == 5, (
        "two usages, three examples"
    )
    assert any("safe-compose --help" in line for line in lines)


def test_version_names_ours_dockers_and_composes(run: Run, tmp_path: Path) -> None:
    assert run("--version").stdout == f"safe-compose {__version__} (docker 28.5.2, compose 5.6.1)\n"
    assert run("-v").stdout == run("--version").stdout
    nowhere = run("--version", PATH=str(tmp_path / "none"))
    assert (nowhere.returncode, nowhere.stdout) == (0, f"safe-compose {__version__} (no docker)\n")
    script(tmp_path / "bin" / "docker", "#!/bin/sh\nprintf '\\033[31m'; exit 1\n")
    assert run("--version").stdout == f"safe-compose {__version__} (docker unknown, no compose)\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["__complete", ""],
        ["--explain", "--offline", "volume", "rm", "v"],
    ],
)
def test_where_nobody_reads_the_output_it_is_no_bug(
    words: list[str], fake: FakeDocker, tmp_path: Path
) -> None:
    env = {"PATH": f"{fake.folder}:/usr/bin:/bin", "HOME": str(tmp_path)}
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        gone = subprocess.run(
            [PROGRAM, *words], env=env, stdout=nobody, stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert (gone.returncode, gone.stderr) == (141, "safe-compose: docker was not run (141)\n")


@pytest.mark.parametrize("verb", ["list", "commands", "journal"])
def test_a_verb_whose_output_nobody_reads_ends_with_141(
    verb: str, fake: FakeDocker, tmp_path: Path
) -> None:
    env = {"PATH": f"{fake.folder}:/usr/bin:/bin", "HOME": str(tmp_path)}
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        gone = subprocess.run(
            [PROGRAM, verb], env=env, stdout=nobody, stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert gone.returncode == 141 and "our bug" not in gone.stderr


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["list"], ["--json", "about"], ["shell", "bash"]]
)
def test_a_full_disk_behind_the_output_is_said(
    words: list[str], fake: FakeDocker, tmp_path: Path
) -> None:
    env = {"PATH": f"{fake.folder}:/usr/bin:/bin", "HOME": str(tmp_path)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [PROGRAM, *words], env=env, stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 73 and "our bug" not in done.stderr
    assert "stdout cannot be written (No space left on device)" in done.stderr


def test_an_answer_of_the_hook_that_cannot_be_written_stops_the_command(
    fake: FakeDocker, tmp_path: Path
) -> None:
    request = {"tool_name": "Bash", "tool_input": {"command": "docker compose down -v"}}
    env = {"PATH": f"{fake.folder}:/usr/bin:/bin", "HOME": str(tmp_path)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [PROGRAM, "hook"], env=env, input=json.dumps(request), stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2 and "the answer cannot be written" in done.stderr


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["list"], ["--json", "about"]])
def test_a_closed_output_is_no_bug(words: list[str], fake: FakeDocker, tmp_path: Path) -> None:
    env = {"PATH": f"{fake.folder}:/usr/bin:/bin", "HOME": str(tmp_path)}
    closed = subprocess.run(
        ["/bin/sh", "-c", '"$@" >&-', "sh", PROGRAM, *words],
        env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert closed.returncode == 0 and "our bug" not in closed.stderr


@pytest.mark.parametrize(
    "words", [*launch.HELP, *launch.VERSION, ("start", "--help"), ("__complete", "un"), ("ps",)]
)
def test_as_docker_these_words_are_dockers(
    words: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    link = tmp_path / "shims" / "docker"
    link.parent.mkdir()
    link.symlink_to(PROGRAM)
    bare = run(*words, program=tmp_path / "bin" / "docker")
    for done in (run(*words, program=link), run("docker", *words)):
        assert (done.returncode, done.stdout, done.stderr) == (0, bare.stdout, "")


def test_start_without_a_container_is_ours(run: Run) -> None:
    assert "safe-compose start" in run("start", "--help").stdout
    for words in (("--project", "shop", "--dry-run"), ("--yes", "-p", "shop"), ("-fcompose.yml",)):
        assert "docker got" not in run("start", *words).stdout
    assert (
        run("start", "--attach", "-p", "web").stdout == "docker got <start> <--attach> <-p> <web>\n"
    )
    assert run("docker", "start").stdout == "docker got <start>\n"


def test_as_docker_our_verbs_and_the_guard_are_there_all_the_same(run: Run) -> None:
    assert "safe-compose undo" in run("docker", "undo", "--help").stdout
    done = run("docker", "compose", "down", "-v")
    assert done.returncode != 0 and "docker was not run" in done.stderr


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["undoo"], "undo"),
        (["udno", "--json"], "undo"),
        (["lst"], "list"),
        (["bakcup"], "backup"),
        (["rotate-pasword", "db"], "rotate-password"),
        (["help", "undoo"], "undo"),
        (["docker", "undoo"], "undo"),
        (["--non-interactiv", "ps"], "--non-interactive"),
        (["--jsno", "list"], "--json"),
        (["--json", "lst"], "list"),
        (["--backup-frist", "compose", "down", "-v"], "--backup-first"),
        (["compose", "--backup-frist", "down", "-v"], "--backup-first"),
        (["compose", "down", "--non-interactiv", "-v"], "--non-interactive"),
        (["volume", "rm", "--confrim=x", "v"], "--confirm"),
        (["undo", "--non-interactiv"], "--non-interactive"),
        (["protect", "--tie", "critical", "v"], "--tier"),
    ],
)
def test_a_typing_error_is_64_and_names_what_was_meant(
    words: list[str], meant: str, run: Run
) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (64, "")
    assert f"did you mean {meant}?" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["tra"],
        ["start", "web"],
        ["start", "-a", "web"],
        ["start", "--attach"],
        ["foo"],
        ["load"],
        ["stat"],
        ["--tls", "ps"],
        ["compose", "ps", "--jso"],
        ["run", "image", "--non-interactiv"],
        ["compose", "down", "--", "--non-interactiv"],
        ["compose", "-p", "--non-interactiv", "down"],
        ["run", "undoo"],
        ["--confi", "folder", "compose", "down"],
        ["compose", "--config", "folder", "down"],
        ["compose", "down", "--config", "folder"],
    ],
)
def test_words_that_may_be_dockers_are_left_to_docker(words: list[str], run: Run) -> None:
    assert run(*words).stdout == f"docker got {' '.join(f'<{word}>' for word in words)}\n"


def test_our_flags_stand_before_the_words_of_docker(run: Run) -> None:
    done = run("--explain", "--json", "--offline", "compose", "down", "-v")
    assert done.returncode == 0 and '"verdict": "guard"' in done.stdout


def test_a_plugin_and_an_alias_of_docker_are_no_typing_errors(run: Run, tmp_path: Path) -> None:
    config = tmp_path / ".docker"
    script(config / "cli-plugins" / "docker-undoo", "#!/bin/sh\n")
    (config / "config.json").write_text('{"aliases": {"lst": "ps"}}')
    for word in ("undoo", "lst"):
        assert run(word).stdout == f"docker got <{word}>\n"


def test_a_slip_is_one_letter_of_a_short_word_and_two_of_a_long_one() -> None:
    assert find_near("undoo", ["undo"]) == find_near("nudo", ["undo"]) == "undo"
    assert find_near("unddoo", ["undo"]) is None
    assert find_near("bakcupp", ["backup"]) == "backup"
    assert find_near("--skip-bakcpu", ["--skip-backup"]) == "--skip-backup"
    assert find_near("x", ["y"]) is find_near("", ["undo"]) is find_near("-undo", ["undo"]) is None


@pytest.mark.parametrize("verb", ["undo", "restore"])
def test_a_yes_to_what_asks_for_a_phrase_is_refused(verb: str, run: Run) -> None:
    done = run(verb, "--yes")
    assert done.returncode == 64 and "--yes would do nothing" in done.stderr


@pytest.mark.parametrize("name", coding_agents.VARIABLES)
def test_the_line_for_programs_is_printed_where_an_agent_runs_us(name: str, run: Run) -> None:
    words = ("--non-interactive", "compose", "down", "-v")
    lines = run(*words, DOCKER_HOST="unix:///nowhere.sock", **{name: "1"}).stderr.splitlines()
    assert json.loads(lines[-2])["docker_was_run"] is False
    for env in ({name: ""}, {"CI": "true"}):
        log = run(*words, DOCKER_HOST="unix:///nowhere.sock", **env).stderr
        assert "docker was not run" in log and "{" not in log


# -- completion ------------------------------------------------------------------------------------


def kind_of(parameter: Any) -> str:
    """What the value of a parameter is, for completion."""
    for flag, kind in (("--project", "PROJECT"), ("--volume", "VOLUME")):
        if flag in parameter.opts:
            return kind
    if parameter.param_type_name == "argument":
        return f"{parameter.metavar}{'...' if parameter.nargs == -1 else ''}"
    return "" if parameter.is_flag else str(parameter.metavar)


def make_tables() -> str:
    """The module of the flags, made from the command line."""
    lines = [
        '"""The flags and arguments of our verbs, made by `WRITE_DOCS=1 make test`."""',
        "",
        "from collections.abc import Mapping",
        "",
    ]
    commands = dict(verb_help.list_commands(app.make_command(None)))
    for title, note, kind in (
        (
            "FLAGS: Mapping[str, Mapping[str, str]]",
            "Verb, and verb with action -> flag -> what its value is; empty: none.",
            "option",
        ),
        (
            "ARGUMENTS: Mapping[str, tuple[str, ...]]",
            "Verb, and verb with action -> what its arguments are.",
            "argument",
        ),
    ):
        table: dict[str, Any] = {}
        for verb in verbs.VERBS:
            actions = [f"{verb} {action}" for action in verbs.ACTIONS.get(verb, ())]
            for words in (verb, *actions):
                among = actions if words == verb and actions else [words]
                of = [p for one in among for p in commands[one].params if p.param_type_name == kind]
                if kind == "option":
                    table[words] = {word: kind_of(p) for p in of for word in p.opts}
                else:
                    table[words] = ("ACTION",) if among == actions else tuple(map(kind_of, of))
        lines += [f"{title} = {table!r}", f'"""{note}"""', ""]
    return "\n".join(lines)


def test_completion_knows_the_flags_of_every_verb() -> None:
    made: dict[str, Any] = {}
    exec(make_tables(), made)
    if os.environ.get("WRITE_DOCS"):
        Path(verb_flags.__file__).write_text(make_tables(), "utf-8")
        return
    assert made["FLAGS"] == verb_flags.FLAGS
    assert made["ARGUMENTS"] == verb_flags.ARGUMENTS


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for project, id in (("shop", "20261122T072700Z-3f9a1c"), ("bank", "20261123T072700Z-aaaaaa")):
        folder = tmp_path / "store" / project / id
        folder.mkdir(parents=True)
        (folder / "manifest.json").touch()
    (tmp_path / "store" / "shop" / "20261122T072700Z-bbbbbb").mkdir()
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("words", "candidates", "number"),
    [
        (["und"], ["undo"], 4),
        (["undo", "--non"], ["--non-interactive"], 4),
        (["show", ""], ["20261122T072700Z-3f9a1c", "20261123T072700Z-aaaaaa", "latest"], 4),
        (["show", "20261123"], ["20261123T072700Z-aaaaaa"], 4),
        (["show", "latest", ""], [], 4),
        (
            ["forget", "latest", "2026112"],
            ["20261122T072700Z-3f9a1c", "20261123T072700Z-aaaaaa"],
            4,
        ),
        (["verify", "--project", ""], ["shop"], 4),
        (["verify", "--project=s"], ["--project=shop"], 4),
        (["protect", ""], ["a b", "shop_data"], 4),
        (["protect", "--tier", ""], ["critical", "important"], 4),
        (["rotate-password", ""], ["db"], 4),
        (["trash", "e"], ["empty"], 4),
        (["trash", "--json", ""], ["empty", "list", "restore"], 4),
        (["trash", "--expi"], ["--expired"], 4),
        (["trash", "list", "--"], ["--help", "--json", "--project", "--utc", "--volume"], 4),
        (
            ["offsite", "pull", ""],
            ["20261122T072700Z-3f9a1c", "20261123T072700Z-aaaaaa", "latest"],
            4,
        ),
        (["offsite", "--to", "nas", "verify", "--a"], ["--all"], 4),
        (["schedule", "run", "--project", ""], ["shop"], 4),
        (["verify", "--junit", ""], [], 0),
        (["ps", ""], ["docker's"], 4),
        (["start", ""], ["docker's"], 4),
        (["start", "--y"], ["--yes"], 4),
    ],
)
def test_a_shell_is_given_our_words_besides_dockers(
    words: list[str], candidates: list[str], number: int, run: Run, store: Path, tmp_path: Path
) -> None:
    script(
        tmp_path / "bin" / "docker",
        "#!/bin/sh\ncase $* in\n"
        "*volume*Label*) echo shop;;\n"
        "*volume*) printf 'shop_data\\na b\\nbad\\033[31m\\n';;\n"
        "*--services*) echo db;;\n"
        '*) printf "docker\'s\\n:4\\n";;\nesac\n',
    )
    done = run("__completeNoDesc", *words, SAFE_COMPOSE_HOME=str(store))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*candidates, f":{number}"]


# -- the help of each verb -------------------------------------------------------------------------


ACTIONS = [f"{verb} {action}" for verb, of in verbs.ACTIONS.items() for action in of]


@pytest.mark.parametrize("verb", [*sorted(verbs.VERBS), *ACTIONS])
def test_the_help_of_a_verb_is_in_words_fits_and_has_an_example(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert app.run([*verb.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "<" not in text and "{" not in text and "VALUE" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert f"  Example:\n    safe-compose {verb}" in text
    assert "..." not in text.replace("...]", "").replace("ID...", "").partition("Options:")[2]
    assert verb in ACTIONS or len(verbs.VERBS[verb].does) <= 60


def test_help_of_a_verb_is_the_verbs_own(run: Run) -> None:
    assert run("help", "undo").stdout == run("undo", "--help").stdout != ""
    assert run("help", "trash", "empty").stdout == run("trash", "empty", "--help").stdout != ""


# -- verbs with actions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["schedule"],
        ["schedule", "status"],
        ["schedule", "--project", "shop"],
        ["schedule", "--project", "run"],
        ["--json", "schedule"],
        ["schedule", "--json", "status", "--project=shop"],
        ["offsite", "--project", "shop", "status"],
    ],
)
def test_flags_may_precede_the_action_and_schedule_alone_is_its_status(
    words: list[str], run: Run, tmp_path: Path
) -> None:
    done = run(*words, SAFE_COMPOSE_HOME=str(tmp_path / "store"))
    assert (done.returncode, done.stderr.count("\n")) == (0, int("--json" not in words))


@pytest.mark.parametrize(
    ("words", "fault", "help_of"),
    [
        (["trash"], "trash takes list, restore or empty", "trash --help"),
        (["trash", "lst"], "trash takes list, restore or empty, not 'lst'", "trash --help"),
        (["offsite", "--to", "pull"], "offsite takes push, pull, list, ", "offsite --help"),
        (["trash", "restore"], "trash restore needs an id, --volume or --project", "trash list"),
        (["trash", "--dry-rnu", "empty"], "did you mean --dry-run?", "help trash"),
        (["offsite", "push", "--al"], "did you mean --all?", "help offsite push"),
        (
            ["trash", "list", "--dry-run"],
            "--dry-run would do nothing: it goes with trash restore, empty",
            "help trash list",
        ),
    ],
)
def test_wrong_words_of_a_verb_with_actions_are_64_and_name_the_help(
    words: list[str], fault: str, help_of: str, run: Run
) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (64, "")
    assert fault in done.stderr and f"next: safe-compose {help_of}\n" in done.stderr
