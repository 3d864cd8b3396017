"""The installed `safe-compose` as a process, in front of a fake docker that writes down everything
it was given.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from safe_compose import faults, shim
from safe_compose.fastpath import first_look, launch
from safe_compose.grammar import own_flags, tables
from testing.fake_docker import ODD_ENVIRONMENT, RECORDER, FakeDocker, script
from testing.plain_install import plain_program, plain_python

PROGRAM = plain_program()


@pytest.fixture
def fake(tmp_path: Path) -> FakeDocker:
    script(tmp_path / "bin with blank" / "docker", RECORDER)
    return FakeDocker(tmp_path / "bin with blank")


Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def run(fake: FakeDocker, tmp_path: Path) -> Run:
    """Run safe-compose (or another program) with the fake docker first on PATH and nothing else in
    the environment.
    """

    def start(
        *words: str | bytes,
        program: Path = PROGRAM,
        env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
        path: Sequence[Path] | None = None,
        **rest: object,
    ) -> subprocess.CompletedProcess[bytes]:
        assert PROGRAM.exists(), f"{PROGRAM} is not installed: make .venv"
        folders = os.pathsep.join(
            map(str, path if path is not None else [fake.folder, "/usr/bin", "/bin"])
        )
        environ = {b"PATH": os.fsencode(folders), b"HOME": os.fsencode(tmp_path)}
        environ |= {os.fsencode(name): os.fsencode(value) for name, value in (env or {}).items()}
        rest.setdefault("input", b"")
        if "stdin" in rest:
            del rest["input"]
        return subprocess.run(
            [program, *words], env=environ, capture_output=True, timeout=60, **rest
        )  # type: ignore[call-overload,no-any-return]

    return start


# -- unchanged (promise 1) -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["ps"],
        ["ps", "", "a\nb", " ", "-"],
        [b"ps", b"\xff\xfe", "é".encode()],
        ["compose", "down"],
        ["compose", "-f", "x y.yaml", "down", "--", "-v"],
        ["run", "--rm", "-v", "rm:/x", "image", "rm", "-v", b"\xff\n"],
        ["compose", "exec", "db", "psql", "-v", "ON_ERROR_STOP=1"],
        ["__complete", "compose", "down", "-v", ""],
        ["docker-cli-plugin-metadata"],
        ["--", "volume", "ls"],
    ],
)
def test_words_reach_docker_byte_for_byte(
    words: list[str | bytes], fake: FakeDocker, run: Run
) -> None:
    done = run(*words)
    assert fake.argv == [os.fsencode(word) for word in words]
    assert (done.returncode, done.stdout, done.stderr) == (0, b"docker speaks\n", b"")


@pytest.mark.parametrize(
    "words", [["/proc/self/environ"], ["/proc/self/environ", "--", "compose", "up"]]
)
def test_the_environment_of_a_native_docker_is_the_one_that_came(
    words: list[str], tmp_path: Path, run: Run
) -> None:
    """`cat` stands for a docker binary: its first operand makes it show the environment that it was
    given.
    """
    native = tmp_path / "native"
    native.mkdir()
    shutil.copy("/bin/cat", native / "docker")
    expected = {b"PATH": os.fsencode(native), b"HOME": os.fsencode(tmp_path), **ODD_ENVIRONMENT}
    done = run(words[0], path=[native], env=ODD_ENVIRONMENT)
    assert done.stdout.split(b"\0")[:-1] == [
        name + b"=" + value for name, value in expected.items()
    ]


def test_a_docker_that_is_a_script_gets_one_variable_more(
    fake: FakeDocker, run: Run, tmp_path: Path
) -> None:
    """It could call us back: the trail is how we would know."""
    run("ps", env=ODD_ENVIRONMENT)
    *came, trail = fake.bytes_of("environ").split(b"\0")[:-1]
    path = os.fsencode(os.pathsep.join([str(fake.folder), "/usr/bin", "/bin"]))
    expected = {b"PATH": path, b"HOME": os.fsencode(tmp_path), **ODD_ENVIRONMENT}
    assert came == [name + b"=" + value for name, value in expected.items()]
    assert trail.startswith(launch.TRAIL.encode() + b"=")


def test_repeated_names_and_order_of_the_environment_survive(tmp_path: Path) -> None:
    """Go takes the first of two variables of one name, a dict would keep the last. Only exec itself
    can make two.
    """
    native = tmp_path / "native"
    native.mkdir()
    shutil.copy("/bin/cat", native / "docker")
    start = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from safe_compose.fastpath.launch import"
        " Variables; os.execve(sys.argv[2], ['safe-compose', '/proc/self/environ'],"
        " Variables([(b'A', b'1'), (b'PATH', os.fsencode(sys.argv[3])), (b'A', b'2')]))"
    )
    source = Path(shim.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", start, source, PROGRAM, native],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == b"A=1\0PATH=" + os.fsencode(native) + b"\0A=2\0"


def test_process_id_folder_umask_and_argv0_are_kept(fake: FakeDocker, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    environ = {"PATH": f"{fake.folder}:/usr/bin:/bin"}
    with subprocess.Popen(
        [PROGRAM, "ps"], env=environ, cwd=folder, umask=0o027, stdout=subprocess.DEVNULL
    ) as child:
        assert child.wait(60) == 0
    assert fake.bytes_of("facts").decode() == repr([child.pid, str(folder), oct(0o027)])
    assert fake.bytes_of("argv0") == os.fsencode(fake.path)


def test_stdin_and_inherited_descriptors_are_untouched(
    fake: FakeDocker, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "seven").write_bytes(b"through seven")
    words = ["-c", 'exec "$@" 7<seven', "sh", str(PROGRAM), "compose", "down"]
    run(*words, program=Path("/bin/sh"), cwd=tmp_path, env={"READ": "07"}, input=b"typed\0\xff")
    assert fake.bytes_of("seven") == b"through seven"
    assert fake.bytes_of("stdin") == b"typed\0\xff"
    fds = fake.bytes_of("fds").split(b"\n")
    assert [n for n, target in enumerate(fds) if target.startswith(b"pipe:")] == [0, 1, 2]
    assert fds[7] == os.fsencode(tmp_path / "seven")
    assert fds[4:7] == [b"-", b"-", b"-"], "nothing of ours stays open (3 is the recorder's own)"


def ignored_signals(status: bytes) -> int:
    found = re.search(rb"SigIgn:\s*([0-9a-f]+)", status)
    assert found
    return int(found[1], 16)


@pytest.mark.parametrize(
    "words", [["/proc/self/status"], ["--non-interactive", "/proc/self/status"]]
)
def test_signals_that_python_ignores_are_put_back(
    words: list[str], tmp_path: Path, run: Run
) -> None:
    native = tmp_path / "native"
    native.mkdir()
    shutil.copy("/bin/cat", native / "docker")
    bare = subprocess.run(
        [native / "docker", "/proc/self/status"], capture_output=True, check=True, timeout=60
    )
    done = run(*words, path=[native])
    assert ignored_signals(done.stdout) == ignored_signals(bare.stdout)
    assert not ignored_signals(done.stdout) & (
        1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    )


@pytest.mark.parametrize("code", [0, 1, 2, 64, 77, 125, 127, 130, 255])
def test_dockers_exit_code_is_ours(code: int, run: Run) -> None:
    assert run("ps", env={"EXIT": str(code)}).returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGPIPE])
def test_dockers_death_by_a_signal_is_ours(number: signal.Signals, run: Run) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    assert run("ps", env={"DIE": str(int(number))}).returncode == -number


def test_a_signal_reaches_docker_because_it_is_the_same_process(tmp_path: Path) -> None:
    script(tmp_path / "docker", "#!/bin/sh\necho ready\nexec sleep 60\n")
    with subprocess.Popen(
        [PROGRAM, "logs", "-f"], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == -signal.SIGTERM


@pytest.mark.parametrize(
    "words", [["ps", "-a"], ["compose", "logs", "x"], ["__complete", "compose", "down", "-v"]]
)
def test_a_harmless_command_imports_nothing_heavy(words: list[str]) -> None:
    """Told by Python itself at the moment of exec."""
    program = (
        "import sys\ndef told(event, args):\n    if event == 'os.exec': sys.stdout.write('"
        " '.join(sys.modules)); sys.stdout.flush(); raise"
        " SystemExit\nsys.addaudithook(told)\nsys.path.insert(0,"
        f" {str(Path(shim.__file__).parents[1])!r})\nfrom safe_compose.shim import main\nsys.argv ="
        f" ['safe-compose', *{words!r}]\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    modules = set(done.stdout.split())
    assert "safe_compose.shim" in modules
    heavy = {
        "typer", "docker", "psycopg", "questionary", "rich", "pydantic", "argparse", "dataclasses",
        "re", "json", "subprocess", "typing", "pathlib", "enum", "collections",
        "safe_compose.grammar",
    }  # fmt: skip
    assert modules & heavy == set()


# -- which docker ----------------------------------------------------------------------------------


def test_links_to_us_on_path_are_skipped(fake: FakeDocker, run: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one" / "docker").symlink_to(PROGRAM)
    (tmp_path / "two" / "docker").hardlink_to(PROGRAM)
    done = run(
        "ps",
        program=tmp_path / "one" / "docker",
        path=[tmp_path / "one", tmp_path / "two", fake.folder],
    )
    assert (done.returncode, fake.words) == (0, ["ps"])


def test_another_copy_of_us_is_skipped(fake: FakeDocker, run: Run, tmp_path: Path) -> None:
    script(
        tmp_path / "copy" / "docker",
        f"#!{plain_python()}\nfrom safe_compose.shim import main\nraise SystemExit(main())\n",
    )
    assert run("ps", path=[tmp_path / "copy", fake.folder]).returncode == 0
    assert fake.words == ["ps"]


def test_folders_and_files_that_are_no_programs_are_skipped(
    fake: FakeDocker, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "a" / "docker").mkdir(parents=True)
    script(tmp_path / "b" / "docker", "no program").chmod(0o644)
    run("ps", path=[tmp_path / "a", tmp_path / "b", tmp_path / "missing", fake.folder])
    assert fake.words == ["ps"]


@pytest.mark.parametrize("words", [["ps"], ["compose", "down"], ["volume", "rm", "x"]])
def test_no_docker_besides_ourselves_is_127(words: list[str], run: Run, tmp_path: Path) -> None:
    (tmp_path / "docker").symlink_to(PROGRAM)
    done = run(*words, path=[tmp_path])
    assert done.returncode == 127
    assert done.stderr.endswith(b"safe-compose: docker was not run (127)\n")


def test_a_wrapper_that_calls_us_back_ends_with_127(run: Run, tmp_path: Path) -> None:
    script(tmp_path / "docker", f'#!/bin/sh\nexec "{PROGRAM}" "$@"\n')
    done = run("ps", path=[tmp_path, Path("/usr/bin"), Path("/bin")])
    assert done.returncode == 127
    assert b"leads back to safe-compose" in done.stderr


def test_a_wrapper_that_calls_us_as_a_child_ends_as_well(run: Run, tmp_path: Path) -> None:
    script(tmp_path / "docker", f'#!/bin/sh\n"{PROGRAM}" "$@"\nexit $?\n')
    assert run("ps", path=[tmp_path, Path("/usr/bin"), Path("/bin")]).returncode == 127


def test_a_wrapper_that_leads_on_to_another_docker_is_no_loop(
    fake: FakeDocker, run: Run, tmp_path: Path
) -> None:
    script(tmp_path / "docker", f'#!/bin/sh\nPATH="{fake.folder}" exec "{PROGRAM}" "$@"\n')
    assert run("ps", path=[tmp_path, fake.folder]).returncode == 0
    assert fake.words == ["ps"]


def test_the_chosen_docker_goes_before_path(fake: FakeDocker, run: Run, tmp_path: Path) -> None:
    chosen = script(tmp_path / "other" / "docker", RECORDER)
    run("ps", env={"SAFE_COMPOSE_DOCKER": str(chosen)})
    assert (chosen.parent / "argv").exists()
    assert not fake.ran


@pytest.mark.parametrize(
    "chosen", ["/nonexistent/docker", str(PROGRAM), "/"], ids=["missing", "ourselves", "folder"]
)
def test_a_chosen_docker_that_is_none_is_127(chosen: str, fake: FakeDocker, run: Run) -> None:
    done = run("ps", env={"SAFE_COMPOSE_DOCKER": chosen})
    assert done.returncode == 127
    assert not fake.ran


def test_docker_compose_by_name_runs_the_standalone_program(
    fake: FakeDocker, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "docker-compose").symlink_to(PROGRAM)
    standalone = script(tmp_path / "standalone" / "docker-compose", RECORDER)
    run(
        "-f",
        "x",
        "ps",
        program=tmp_path / "docker-compose",
        path=[tmp_path, standalone.parent, fake.folder],
    )
    assert (standalone.parent / "argv").read_bytes() == b"-f\0x\0ps\0"
    assert not fake.ran


@pytest.mark.parametrize("words", [["up", "-d"], ["down"]])
def test_docker_compose_needs_no_docker_beside_it(
    words: list[str], run: Run, tmp_path: Path
) -> None:
    """Also where only docker could say which engine its context means."""
    shimmed = tmp_path / "shim" / "docker-compose"
    shimmed.parent.mkdir()
    shimmed.symlink_to(PROGRAM)
    standalone = script(tmp_path / "standalone" / "docker-compose", RECORDER)
    folders = [shimmed.parent, standalone.parent]
    env = {"DOCKER_BUILDKIT": "1"}
    assert run(*words, program=shimmed, path=folders, env=env).returncode == 0
    assert (standalone.parent / "argv").read_bytes().split(b"\0")[:-1] == [
        w.encode() for w in words
    ]


def test_a_folder_that_was_deleted_stops_nothing(
    fake: FakeDocker, run: Run, tmp_path: Path
) -> None:
    left = f'cd "$1" && rmdir "$1" && shift && exec "{PROGRAM}" "$@"'
    (tmp_path / "left").mkdir()
    words = ["compose", "down"]
    run("-c", left, "sh", str(tmp_path / "left"), *words, program=Path("/bin/sh"))
    assert fake.words == words


@pytest.mark.parametrize(
    ("words", "argv"),
    [
        (["-f", "x", "ps"], ["compose", "-f", "x", "ps"]),
        (
            ["--host", "h", "--non-interactive", "-f", "x", "down"],
            ["--host", "h", "compose", "-f", "x", "down"],
        ),
        (["--verbose", "-v"], ["--debug", "compose", "version"]),
    ],
)
def test_docker_compose_without_a_standalone_program_is_dockers_compose(
    words: list[str], argv: list[str], fake: FakeDocker, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "docker-compose").symlink_to(PROGRAM)
    assert (
        run(*words, program=tmp_path / "docker-compose", path=[tmp_path, fake.folder]).returncode
        == 0
    )
    assert fake.words == argv


@pytest.mark.parametrize(("version", "runs"), [("1.29.2", True), ("v2.26.1", False), ("", False)])
def test_the_installed_docker_compose_decides_between_two_readings(
    version: str, runs: bool, fake: FakeDocker, run: Run, tmp_path: Path
) -> None:
    """`rm db -v` names a service `-v` in 1.29 and deletes anonymous volumes in 2.x; who says
    nothing is not trusted.
    """
    (tmp_path / "docker-compose").symlink_to(PROGRAM)
    standalone = script(
        tmp_path / "standalone" / "docker-compose",
        f'#!/bin/sh\n[ "$*" = version ] && {{ echo "docker-compose version {version}, build'
        f' 5becea4c"; exit; }}\n[ "$1" = version ] && {{ echo "{version}"; exit; }}\nprintf'
        ' "ran<%s>" "$@"\n',
    )
    done = run(
        *("rm", "db", "-v"),
        program=tmp_path / "docker-compose",
        path=[tmp_path, standalone.parent, fake.folder],
        env={"DOCKER_HOST": "unix:///nonexistent.sock"},
    )
    assert (done.stdout == b"ran<rm>ran<db>ran<-v>") == runs
    assert (done.returncode == 0) == runs


# -- our own words ---------------------------------------------------------------------------------


def test_own_flags_never_reach_docker(fake: FakeDocker, run: Run) -> None:
    run("--non-interactive", "--confirm", "ps", "ps", "--json")
    assert fake.words == ["ps", "--json"]


def test_up_and_down_alone_are_composes_in_the_executable_only(
    fake: FakeDocker, run: Run, tmp_path: Path
) -> None:
    run("-D", "--backup-first", "up", "-d")
    assert fake.words == ["-D", "compose", "up", "-d"]
    (tmp_path / "docker").symlink_to(PROGRAM)
    run("up", "-d", program=tmp_path / "docker", path=[tmp_path, fake.folder])
    assert fake.words == ["up", "-d"]


def test_own_verbs_are_dockers_in_a_shim_and_where_a_plugin_has_the_name(
    fake: FakeDocker, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "docker").symlink_to(PROGRAM)
    run("list", program=tmp_path / "docker", path=[tmp_path, fake.folder])
    assert fake.words == ["list"]
    script(tmp_path / ".docker" / "cli-plugins" / "docker-audit", "#!/bin/sh\n")
    run("audit", "x")
    assert fake.words == ["audit", "x"]


@pytest.mark.parametrize(
    "words",
    [
        ["--confirm"],
        ["--json", "ps"],
        ["--skip-backup", "volume", "rm", "x", "--backup-first"],
        ["compose", "down", "-v", "--confirm", "a", "--confirm=b"],
    ],
)
def test_own_flags_used_wrongly_are_64(words: list[str], fake: FakeDocker, run: Run) -> None:
    done = run(*words)
    assert done.returncode == 64
    assert done.stdout == b""
    assert done.stderr.startswith(b"safe-compose: ")
    assert done.stderr.endswith(b"safe-compose: docker was not run (64)\n")
    assert not fake.ran


def test_a_broken_stderr_changes_no_exit_code(fake: FakeDocker, run: Run, tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [PROGRAM, "--confirm"],
        env={"PATH": str(fake.folder)},
        stderr=write_end,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    os.close(write_end)
    assert done.returncode == 64


@pytest.mark.parametrize(
    "words",
    [
        ["compose", "down", "-v"],
        ["--non-interactive", "--backup-first", "compose", "down", "-v", "--confirm=x"],
        ["down", "-v"],
    ],
)
def test_switched_off_everything_goes_to_docker_and_we_say_so(
    words: list[str], fake: FakeDocker, run: Run
) -> None:
    done = run(*words, env={"SAFE_COMPOSE": "off"})
    assert (done.returncode, fake.words) == (0, ["compose", "down", "-v"])
    assert done.stderr == b"safe-compose: SAFE_COMPOSE=off, docker runs unguarded\n"


def test_control_characters_in_a_message_stay_words(run: Run) -> None:
    done = run("ps", env={"SAFE_COMPOSE_DOCKER": "/\x1b[2J\udcff"})
    assert b"\x1b" not in done.stderr
    assert b"\\x1b[2J" in done.stderr


def test_a_fault_of_ours_is_reported_in_few_words(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise OSError("a name that an engine gave: " + "b/" * 5000)
    except OSError:
        assert faults.report_bug(about_docker=True) == 70
    said = capfd.readouterr().err
    assert "our bug: OSError: a name that an engine gave: b/b" in said and len(said) < 1000


def test_an_exception_nobody_expected_is_70_and_docker_does_not_run(
    fake: FakeDocker, tmp_path: Path
) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        " sys.modules['safe_compose.operations.guard.run'] = None\nfrom safe_compose.shim import"
        " main\nsys.argv[0] = 'safe-compose'; raise SystemExit(main())\n"
    )
    words = [
        sys.executable,
        "-c",
        program,
        str(Path(shim.__file__).parents[1]),
        "volume",
        "rm",
        "x",
    ]
    environ = {"PATH": f"{fake.folder}:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        words, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 70
    assert "our bug" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith("safe-compose: docker was not run (70)\n")
    assert not fake.ran or "rm" not in fake.words  # it may have been asked which engine it reaches
    done = subprocess.run(
        words,
        env={**environ, "SAFE_COMPOSE_DEBUG": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" in done.stderr


# -- the filter ------------------------------------------------------------------------------------


def test_the_filter_knows_every_verb_and_every_flag_of_the_grammar() -> None:
    assert {
        path[-1] for path in (*tables.VERBS, *tables.OLD_VERBS, *tables.UNSUPPORTED_VERBS)
    } <= first_look.SUSPECT
    assert first_look.OWN_FLAGS == own_flags.OWN_FLAGS


@pytest.mark.engine
def test_no_own_verb_hides_a_command_of_docker() -> None:
    text = subprocess.run(
        ["docker", "--help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    commands = {
        line.split()[0].rstrip("*") for line in text.splitlines() if re.match(r"  [a-z]", line)
    }
    assert {"ps", "run", "volume"} <= commands
    assert commands & launch.OWN_VERBS == set()


@pytest.fixture
def launched(tmp_path: Path, fake: FakeDocker) -> Iterator[Callable[[str], list[str]]]:
    """Start us by a path given as text, from another folder."""

    def launch(program: str) -> list[str]:
        environ = {"PATH": f"{fake.folder}:/usr/bin:/bin"}
        subprocess.run(
            [program, "ps"],
            cwd=tmp_path,
            env=environ,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )
        return fake.words

    yield launch


def test_started_through_a_chain_of_links_under_a_path_with_blanks(
    tmp_path: Path, launched: Callable[[str], list[str]]
) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "safe-compose").symlink_to(PROGRAM)
    (tmp_path / "my docker").symlink_to(Path("a b", "safe-compose"))
    assert launched("./my docker") == ["ps"]
