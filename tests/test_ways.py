"""Every way in, in real shells and sealed homes: what it catches, what it leaves alone, and that it goes away without a trace."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from conftest import ProjectFactory
from lab.plain import plain_program
from lab.projects import ROOT, ComposeProject, docker
from lab.stacks import write_file
from lab.ways import examined, log_in, markdown, verdicts
from safe_compose import harmless, shim
from safe_compose.errors import Refused
from safe_compose.ways import install, native, texts
from test_shim import ODD_ENVIRONMENT, RECORDER, FakeDocker, script

PROGRAM = plain_program()
SHELLS = ("bash", "zsh", "fish")
ALL = ("--install", "shims", "--install", "plugin", "--install", "rc")
Completed = subprocess.CompletedProcess[str]


class Machine(NamedTuple):
    """A home and a docker, both with a blank in their path."""

    home: Path
    fake: FakeDocker

    def environ(self, **more: str) -> dict[str, str]:
        path = os.pathsep.join([str(self.fake.folder), "/usr/bin", "/bin"])
        return {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", **more}

    def run(self, *argv: str | Path, input: str = "", **more: str) -> Completed:
        environ = self.environ(**more)
        return subprocess.run(argv, env=environ, cwd=self.home, input=input, capture_output=True, text=True, timeout=60)

    def shell(self, *words: str, **more: str) -> Completed:
        """Our verb `shell`, without a terminal."""
        words_ = [str(PROGRAM), "shell", *words]
        return subprocess.run(
            words_, env=self.environ(**more), cwd=self.home, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="surrogateescape", timeout=60, start_new_session=True,
        )  # fmt: skip

    @property
    def shims(self) -> Path:
        return self.home / ".local/share/safe-compose-shims"

    def through_shims(self, *argv: str | Path, **more: str) -> Completed:
        path = os.pathsep.join([str(self.shims), str(self.fake.folder), "/usr/bin", "/bin"])
        return self.run(*argv, **{"PATH": path, **more})


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    home = tmp_path / "my home"
    home.mkdir()
    folder = tmp_path / "bin with blank"
    script(folder / "docker", RECORDER)
    script(folder / "docker-compose", RECORDER)
    return Machine(home, FakeDocker(folder))


def contents(folder: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """Every file with its mode and its bytes, every link with where it leads, every folder."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        what = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = stat.S_IMODE(status.st_mode), what
    return found


# -- functions ---------------------------------------------------------------------------------------------------------

EVALUATE = {"bash": 'eval "$({} shell bash)"', "zsh": 'eval "$({} shell zsh)"', "fish": "{} shell fish | source"}


def in_shell(machine: Machine, shell: str, line: str, *, before: str = "", flags: Sequence[str] = (), **more: str) -> Completed:
    lines = f"{before}\n{EVALUATE[shell].format(texts.quoted(str(PROGRAM), shell))}\n{line}\n"
    return machine.run(shell, *flags, "-c", lines, **more)


def test_the_words_of_the_functions_are_those_of_one_table() -> None:
    expected = {*harmless.SUSPECT, *shim.OWN_VERBS, harmless.PROBE, *(f"{flag}*" for flag in harmless.OWN_FLAGS)}
    posix = texts.function("bash", "/x")
    listed = [line.strip().partition(")")[0] for line in posix.splitlines() if "'/x'" in line]
    assert [set(words.split(" | ")) for words in listed] == [expected, expected - shim.OWN_VERBS]
    fish = [line for line in texts.function("fish", "/x").splitlines() if line.strip().startswith("case ") and "--confirm" in line]
    assert [set(words.replace("'", "").split()[1:]) for words in fish] == [expected, expected - shim.OWN_VERBS]
    assert "@" not in posix.replace('"$@"', "")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "words", [["ps"], [], ["ps", "", "a b", "*", "~", "-n"], ["exec", "x", "é\n"], ["__complete", "compose", "down", ""]]
)
def test_harmless_words_reach_docker_unchanged_through_a_function(machine: Machine, shell: str, words: list[str]) -> None:
    line = f"docker {' '.join(texts.quoted(word, shell) for word in words)}"
    done = in_shell(machine, shell, line, EXIT="7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "docker speaks\n", "")
    assert machine.fake.words == words


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("line", ["docker volume prune", "docker compose down -v", "docker-compose down -v"])
def test_what_may_delete_goes_to_safe_compose_through_a_function(machine: Machine, shell: str, line: str) -> None:
    done = in_shell(machine, shell, line, DOCKER_HOST="unix:///nonexistent.sock")
    assert done.returncode == 69
    assert done.stderr.endswith("safe-compose: docker was not run (69)\n")


@pytest.mark.parametrize(("shell", "emulate"), [("bash", ""), ("zsh", ""), ("zsh", "emulate sh"), ("zsh", "emulate ksh")])
def test_functions_mind_neither_strict_modes_nor_aliases(machine: Machine, shell: str, emulate: str) -> None:
    aliases = "shopt -s expand_aliases 2>/dev/null\n" if shell == "bash" else ""
    aliases += "alias docker='echo aliased' local='echo l' command='echo c' return='echo r' complete='echo x'"
    before = f"{emulate}\n{aliases}\nset -eu"
    line = f"unalias docker local command return\ndocker ps && docker\n{shim.PROBED}=word docker {harmless.PROBE}\n"
    line += "EXIT=3 docker ps\necho not reached"
    done = in_shell(machine, shell, line, before=before)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == f"docker speaks\ndocker speaks\n{harmless.PROBE} word safe-compose\ndocker speaks\n"


def test_in_posix_mode_bash_gets_the_function_of_docker_alone(machine: Machine) -> None:
    line = f"export {shim.PROBED}=word; docker {harmless.PROBE}; docker-compose ps; echo on"
    done = in_shell(machine, "bash", line, flags=["--posix"])
    assert (done.stdout, done.stderr) == (f"{harmless.PROBE} word safe-compose\ndocker speaks\non\n", "")


def test_bash_keeps_the_completion_of_docker_and_lends_it_to_safe_compose(machine: Machine) -> None:
    line = "complete -p docker; _safe_compose_complete; echo $?; complete -p safe-compose"
    done = in_shell(machine, "bash", line, before="complete -o default -F __start_docker docker")
    spec = "complete -o default -F __start_docker {}\n"
    assert (done.stdout, done.stderr) == (spec.format("docker") + "124\n" + spec.format("safe-compose"), "")


def test_zsh_keeps_the_completion_of_docker_and_lends_it_to_safe_compose(machine: Machine) -> None:
    before = "autoload -U compinit; compinit -D -u; _docker() { :; }; compdef _docker docker"
    done = in_shell(machine, "zsh", 'print "$_comps[docker] $_comps[safe-compose]"', before=before)
    assert (done.stdout, done.stderr) == ("_docker _docker\n", "")


def test_fish_keeps_the_completion_of_docker_and_lends_it_to_safe_compose(machine: Machine) -> None:
    before = "complete --command docker --no-files --arguments 'containers compose'"
    line = "complete -C 'docker con'; complete -C 'safe-compose con'"
    done = in_shell(machine, "fish", line, before=before)
    assert (done.stdout, done.stderr) == ("containers\ncontainers\n", "")


# -- there and away again ----------------------------------------------------------------------------------------------


def empty(home: Path) -> None:
    assert not list(home.iterdir())


def lived_in(home: Path) -> None:
    """Files as people have them: no new line at the end, other bytes than text, DOS line ends, a link, a mode of their own."""
    (home / ".bashrc").write_bytes(b"export A=1 # no new line")
    (home / ".bash_profile").write_bytes(b"\xff\xfe # not text\r\n. ~/.bashrc\r\n")
    (home / "dotfiles").mkdir()
    (home / "dotfiles" / "zshenv").write_bytes(b"")
    (home / "dotfiles" / "zshenv").chmod(0o600)
    (home / ".zshenv").symlink_to("dotfiles/zshenv")
    (home / ".profile").write_bytes(b"umask 022\n")
    (home / ".config" / "fish" / "conf.d").mkdir(parents=True)
    (home / ".local" / "state").mkdir(parents=True)


@pytest.mark.parametrize("furnish", [empty, lived_in])
@pytest.mark.parametrize(
    "kinds", [("--install", "shims"), ("--install", "rc"), ("--install", "shims", "--install", "rc")], ids=" ".join
)
def test_uninstall_leaves_the_home_as_it_was_byte_for_byte(
    machine: Machine, furnish: Callable[[Path], None], kinds: tuple[str, ...]
) -> None:
    furnish(machine.home)
    before = contents(machine.home)
    done = machine.shell(*kinds, "--yes")
    assert done.returncode == 0, done.stderr
    written = contents(machine.home)
    assert written != before
    again = machine.shell(*kinds, "--yes")
    assert "nothing was written" in again.stderr
    assert contents(machine.home) == written
    gone = machine.shell("--uninstall", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert contents(machine.home) == before


def test_what_was_written_by_others_in_between_stays(machine: Machine) -> None:
    lived_in(machine.home)
    machine.shell("--install", "shims", "--install", "rc", "--yes")
    with (machine.home / ".bashrc").open("a") as file:
        file.write("export B=2\n")
    assert machine.shell("--uninstall", "--yes").returncode == 0
    assert (machine.home / ".bashrc").read_text() == "export A=1 # no new line\nexport B=2\n"


def test_everything_is_shown_before_and_nothing_is_written_unasked(machine: Machine) -> None:
    lived_in(machine.home)
    before = contents(machine.home)
    asked = machine.shell(*("--install", "shims", "--install", "rc"))
    assert asked.returncode == 77
    assert "nothing was changed" in asked.stderr
    shown = machine.shell("--install", "shims", "--install", "rc", "--json")
    plan = json.loads(shown.stdout)
    assert (plan["version"], plan["done"]) == (1, False)
    assert contents(machine.home) == before
    for change in plan["changes"]:
        assert change["path"] in asked.stdout
        shown = str(native.SOURCE) if change["packed"] else change["text"]
        for line in shown.splitlines():
            assert line in asked.stdout
    assert asked.stdout.replace("\n", "").isprintable()
    assert [change["packed"] for change in plan["changes"]].count(True) == 2


def test_lines_that_somebody_edited_are_left_and_named(machine: Machine) -> None:
    machine.shell("--install", "shims", "--yes")
    profile, program = machine.home / ".profile", machine.shims / "docker"
    profile.write_text(profile.read_text().replace("export PATH", "export PATH # mine"))
    program.write_bytes(program.read_bytes() + b"# mine\n")
    edited = profile.read_text(), program.read_bytes()
    gone = machine.shell("--uninstall", "--yes")
    assert gone.returncode == 77
    assert str(profile) in gone.stderr
    assert str(program) in gone.stderr
    assert (profile.read_text(), program.read_bytes()) == edited
    assert not (machine.shims / "docker-compose").exists()
    assert machine.shell("--install", "shims", "--yes").returncode == 77, "nor are they written over"
    profile.unlink()
    program.unlink()
    assert machine.shell("--uninstall", "--yes").returncode == 0
    assert not machine.shims.exists()


# -- programs that a compiler makes ------------------------------------------------------------------------------------

NO_COMPILER = "there is none"
COMPILERS = {
    "fails": 'echo "<stdin>:1:1: error: \a no" >&2; exit 1',
    "has no headers": 'exec /usr/bin/cc -nostdinc "$@"',
    "makes nothing": "exit 0",
    "makes a script": "{ echo '#!/bin/sh'; echo '# safe_compose.shim'; } >made",
    "makes another program": "cp /bin/cat made",
    "makes what does not start": "printf '\\177ELF safe_compose.shim' >made",
    "is killed": "kill -9 $$",
}


def compiler(folder: Path, body: str) -> str:
    """A PATH with that compiler first. Its `made` is the file that it is to write, its words are kept from it."""
    into = 'while [ "$1" != -o ]; do set -- "$@" "$1"; shift; done; cd "${2%/*}" || exit; shift 2; set -- "$@" -o made\n'
    script(folder / "cc", f"#!/bin/sh\n{into}{body}\n")
    return str(folder)


def kinds(machine: Machine) -> list[str]:
    """What stands in the shims' folder: `program`, `script` or `closer`, sorted."""
    found = []
    for path in sorted(machine.shims.iterdir()):
        found.append("closer" if path.is_dir() else "program" if path.read_bytes()[:4] == harmless.ELF else "script")
    return found


def test_without_a_compiler_scripts_are_written_and_nothing_is_said(machine: Machine) -> None:
    done = machine.shell("--install", "shims", "--yes", PATH=str(machine.fake.folder))
    assert (done.returncode, kinds(machine)) == (0, ["script", "script"])
    assert done.stderr == "safe-compose: done. In a new login shell, `safe-compose doctor` tries it\n"


@pytest.mark.parametrize("body", COMPILERS.values(), ids=COMPILERS)
def test_a_compiler_that_makes_no_program_is_told_and_scripts_are_written(machine: Machine, tmp_path: Path, body: str) -> None:
    path = f"{compiler(tmp_path / 'compiler', body)}:{machine.environ()['PATH']}"
    done = machine.shell("--install", "shims", "--yes", PATH=path)
    assert (done.returncode, kinds(machine)) == (0, ["script", "script"])
    told, _ = done.stderr.splitlines()
    assert "makes no programs here" in told and told.isprintable()
    assert machine.through_shims("docker", "ps").stdout == "docker speaks\n"


def test_a_compiler_that_does_not_end_is_killed_with_all_its_children(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "SECONDS", 1)
    path = compiler(tmp_path / "compiler", "sleep 100000 & sleep 100000")
    assert native.programs({"docker": "/x"}, sys.executable, {"PATH": f"{path}:/usr/bin:/bin"}) == {}
    assert "cc takes longer than 1 s" in capfd.readouterr().err


@pytest.mark.parametrize("first", [None, NO_COMPILER], ids=["program", "script"])
def test_programs_and_scripts_take_each_others_place(machine: Machine, first: str | None) -> None:
    lived_in(machine.home)
    before = contents(machine.home)
    paths = [machine.environ()["PATH"], str(machine.fake.folder)]
    stand = [["closer", "program", "program"], ["script", "script"]]
    if first:
        paths.reverse()
        stand.reverse()
    assert machine.shell("--install", "shims", "--yes", PATH=paths[0]).returncode == 0
    assert kinds(machine) == stand[0]
    assert machine.shell("--install", "shims", "--yes", PATH=paths[1]).returncode == 0
    assert kinds(machine)[-2:] == stand[1][-2:]
    assert machine.through_shims("docker", "ps").stdout == "docker speaks\n"
    assert machine.shell("--uninstall", "--yes").returncode == 0
    assert contents(machine.home) == before


def test_a_record_of_a_program_that_does_not_read_changes_nothing(machine: Machine) -> None:
    machine.shell("--install", "shims", "--yes")
    record = machine.home / ".local/state/safe-compose/ways.json"
    assert record.stat().st_size < 30_000
    body = json.loads(record.read_text())
    next(change for change in body["changes"] if change["packed"])["text"] = "eJz="
    record.write_text(json.dumps(body))
    assert "does not read" in machine.shell("--uninstall", "--yes").stderr


def test_somebody_elses_program_is_never_written_over(machine: Machine, tmp_path: Path) -> None:
    other = script(tmp_path / "it's theirs" / "docker", "#!/bin/sh\n")
    before = contents(machine.home)
    done = machine.shell("--install", "shims", "--dir", str(other.parent), "--yes")
    assert done.returncode == 77
    assert "not ours" in done.stderr
    assert other.read_text() == "#!/bin/sh\n"
    assert contents(machine.home) == before
    _, told, step = done.stderr.partition("next: move it away: ")
    subprocess.run(["sh", "-c", step.splitlines()[0]], check=True)
    assert told and list(other.parent.iterdir()) == [other.with_name("docker.before")]


def test_another_folder_takes_the_place_of_the_first_on_path(machine: Machine, tmp_path: Path) -> None:
    before = contents(machine.home)
    machine.shell("--install", "shims", "--yes")
    folder = tmp_path / "it's here"
    assert machine.shell("--install", "shims", "--dir", str(folder), "--yes").returncode == 0
    text = (machine.home / ".profile").read_text()
    assert (text.count(">>> safe-compose"), str(machine.shims) in text) == (1, False)
    done = machine.run("sh", "-c", ". ./.profile; command -v docker; . ./.profile; echo $PATH")
    found, path = done.stdout.splitlines()
    assert found == str(folder / "docker")
    assert path.count(str(folder)) == 1
    assert machine.shell("--uninstall", "--yes").returncode == 0
    assert contents(machine.home) == before
    assert not folder.exists()


def test_github_gets_the_folder_in_its_own_file(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "github-path"
    file.write_text("/opt/tool/bin\n")
    machine.shell("--install", "shims", "--yes", GITHUB_PATH=str(file))
    assert file.read_text() == f"/opt/tool/bin\n{machine.shims}\n"
    machine.shell("--uninstall", "--yes")
    assert file.read_text() == "/opt/tool/bin\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["bash", "--uninstall"],
        ["--install", "doors"],
        ["--install", "rc", "--dir", "/x"],
        ["--install", "shims", "--dir", "/a:b"],
        ["tcsh"],
    ],
)
def test_words_that_make_no_sense_are_64(machine: Machine, words: list[str]) -> None:
    assert machine.shell(*words, "--yes").returncode == 64
    assert not list(machine.home.iterdir())


def test_a_record_that_does_not_read_changes_nothing(machine: Machine) -> None:
    machine.shell("--install", "shims", "--yes")
    record = machine.home / ".local/state/safe-compose/ways.json"
    record.write_text("{")
    before = contents(machine.home)
    for words in (("--uninstall",), ("--install", "shims")):
        done = machine.shell(*words, "--yes")
        assert done.returncode == 77
        assert "does not read" in done.stderr
    assert contents(machine.home) == before


# -- programs on PATH --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["program", "script"])
def shims(machine: Machine, request: pytest.FixtureRequest) -> Machine:
    """With what is installed where there is a compiler, and where there is none."""
    path = machine.environ()["PATH"] if request.param == "program" else str(machine.fake.folder)
    done = machine.shell("--install", "shims", "--yes", PATH=path)
    assert done.returncode == 0, done.stderr
    assert kinds(machine)[-2:] == [request.param] * 2
    return machine


@pytest.mark.parametrize("words", [["ps", "", "a b\n"], ["compose", "down"], [], ["run", "--rm", "x", "rm", "-v"]])
def test_a_shim_hands_over_byte_for_byte(shims: Machine, words: list[str]) -> None:
    done = shims.through_shims("docker", *words, EXIT="9")
    assert (done.returncode, done.stdout, done.stderr) == (9, "docker speaks\n", "")
    assert shims.fake.words == words


def test_the_environment_passes_through_a_shim_as_it_came(shims: Machine, tmp_path: Path) -> None:
    native = tmp_path / "native"
    native.mkdir()
    shutil.copy("/bin/cat", native / "docker")
    environ = {b"PATH": os.fsencode(f"{shims.shims}:{native}"), b"HOME": os.fsencode(shims.home), **ODD_ENVIRONMENT}
    done = subprocess.run([shims.shims / "docker", "/proc/self/environ"], env=environ, capture_output=True, timeout=60, check=True)
    assert done.stdout.split(b"\0")[:-1] == [name + b"=" + value for name, value in environ.items()]


def test_the_shim_of_docker_compose_runs_the_standalone_program(shims: Machine) -> None:
    assert shims.through_shims("docker-compose", "-f", "x", "ps").returncode == 0
    assert shims.fake.words == ["-f", "x", "ps"]


def test_a_guarded_command_wakes_the_whole_program_from_a_shim(shims: Machine) -> None:
    done = shims.through_shims("docker", "volume", "rm", "x", DOCKER_HOST="unix:///nonexistent.sock")
    assert done.returncode == 69
    assert done.stderr.endswith("safe-compose: docker was not run (69)\n")


def test_a_shim_finds_the_real_docker_again_after_an_upgrade(shims: Machine, tmp_path: Path) -> None:
    newer = script(tmp_path / "newer" / "docker", "#!/bin/sh\necho newer\n")
    newer.replace(shims.fake.path)
    assert shims.through_shims("docker", "ps").stdout == "newer\n"
    elsewhere = script(tmp_path / "elsewhere" / "docker", "#!/bin/sh\necho elsewhere\n")
    shims.fake.path.unlink()
    done = shims.run("docker", "ps", PATH=f"{shims.shims}:{shims.fake.folder}:{elsewhere.parent}:/usr/bin:/bin")
    assert done.stdout == "elsewhere\n"


def test_two_folders_of_shims_know_each_other(shims: Machine, tmp_path: Path) -> None:
    shims.shell("--install", "shims", "--dir", str(tmp_path / "second"), "--yes")
    path = f"{shims.shims}:{tmp_path / 'second'}:{shims.fake.folder}:/usr/bin:/bin"
    assert shims.run("docker", "ps", PATH=path).stdout == "docker speaks\n"


@pytest.mark.parametrize("call", ['exec docker "$@"', 'docker "$@"; exit $?'])
def test_a_wrapper_that_looks_for_docker_on_path_again_ends_with_127(shims: Machine, call: str) -> None:
    script(shims.fake.path, f"#!/bin/sh\n{call}\n")
    done = shims.through_shims("docker", "ps")
    assert done.returncode == 127
    assert "leads back to safe-compose" in done.stderr


def test_no_docker_besides_the_shims_is_127(shims: Machine) -> None:
    done = shims.run(shims.shims / "docker", "ps", PATH=str(shims.shims))
    assert done.returncode == 127
    assert done.stderr.endswith("safe-compose: docker was not run (127)\n")


def test_without_safe_compose_a_shim_lets_harmless_commands_through_and_no_others(shims: Machine) -> None:
    written = [path for path in shims.shims.rglob("docker*") if path.read_bytes()[:2] == b"#!"]
    assert len(written) == 2
    for path in written:
        path.write_text(path.read_text().replace(repr(str(ROOT / "src")), repr("/nonexistent")))
    assert shims.through_shims("docker", "ps", "-a").returncode == 0
    assert shims.fake.words == ["ps", "-a"]
    done = shims.through_shims("docker", "compose", "down", "-v")
    assert done.returncode == 127
    assert f"or remove {shims.shims}/docker\n" in done.stderr
    assert done.stderr.endswith("safe-compose: docker was not run (127)\n")
    assert shims.fake.words == ["ps", "-a"]


def test_an_interpreter_with_a_blank_in_its_path_is_reached_by_a_link(machine: Machine, tmp_path: Path) -> None:
    blank = tmp_path / "py thon"
    blank.mkdir()
    (blank / "python3").symlink_to(sys.executable)
    folder = tmp_path / "plain"
    interpreter, links = install.find_interpreter(folder, "shims", [str(blank / "python3")])
    assert [(c.how, c.path, c.text) for c in links] == [("link", interpreter, str(blank / "python3"))]
    folder.mkdir()
    Path(interpreter).symlink_to(links[0].text)
    script(folder / "docker", texts.script(interpreter, str(ROOT / "src"), sys.executable, plugin=False))
    path = f"{folder}:{machine.fake.folder}:/usr/bin:/bin"
    assert machine.run("docker", "ps", PATH=path).stdout == "docker speaks\n"
    with pytest.raises(Refused, match="first line"):
        install.find_interpreter(tmp_path / "a b", "shims", [str(blank / "python3")])


@pytest.mark.parametrize("words", [["ps", harmless.PROBE], [harmless.PROBE, "down"], ["compose", "-p", "x", harmless.PROBE]])
def test_the_probe_answers_for_nothing_but_itself(shims: Machine, words: list[str]) -> None:
    done = shims.through_shims("docker", *words, **{shim.PROBED: "word"})
    assert done.stdout == "docker speaks\n"
    assert shims.fake.words == words


def test_without_its_variable_the_probe_is_dockers_to_reject(shims: Machine) -> None:
    assert shims.through_shims("docker", harmless.PROBE).stdout == "docker speaks\n"


# -- docker's own plugin -----------------------------------------------------------------------------------------------

METADATA = "docker-cli-plugin-metadata"
HOOKS = ("docker-cli-plugin-hooks", '{"RootCmd":"compose","Flags":{},"CommandError":""}')
FILES = """
services:
  app: {image: "busybox:latest", init: true, command: [sleep, "100000"], volumes: ["uploads:/app/uploads"]}
volumes:
  uploads:
"""


class Plugged(NamedTuple):
    """The plugin in its folder, and the real one."""

    ours: Path
    real: Path


def install_here(*words: str) -> Completed:
    """In the sealed home of this test."""
    return subprocess.run([PROGRAM, "shell", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)


@pytest.fixture
def plugged(lab: None, sealed_environment: Path) -> Plugged:
    real = next(path for folder in shim.plugin_folders() if shim.is_program(str(path := Path(folder, "docker-compose"))))
    done = install_here("--install", "plugin", "--yes")
    assert done.returncode == 0, done.stderr
    return Plugged(sealed_environment / ".docker" / "cli-plugins" / "docker-compose", real)


def said(*argv: str | Path, env: dict[str, str] | None = None) -> tuple[int, bytes, bytes]:
    environ = {**os.environ, **(env or {})}
    done = subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, start_new_session=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.engine
@pytest.mark.parametrize(
    "words",
    [[METADATA], HOOKS, ["compose", "version"], ["version"], ["__complete", "compose", "dow"], ["compose", "nonsense"]],
    ids=str,
)
@pytest.mark.parametrize("origin", ["docker", None])
def test_the_plugin_says_what_the_real_one_says(plugged: Plugged, words: list[str], origin: str | None) -> None:
    environ = {shim.ORIGIN: origin} if origin else {}
    assert said(plugged.ours, *words, env=environ) == said(plugged.real, *words, env=environ)


@pytest.mark.engine
def test_docker_sees_the_same_compose_through_the_plugin(plugged: Plugged, real_docker: str) -> None:
    calls = (
        ["compose", "version"],
        ["__complete", "compose", "do"],
        ["compose", "--help"],
        ["--debug", "compose", "ls", "--filter", "name=nobody", "-q"],
    )
    through = [said(real_docker, *words) for words in calls]
    assert install_here("--uninstall", "--yes").returncode == 0
    assert not plugged.ours.parent.parent.exists()
    assert through == [said(real_docker, *words) for words in calls]


@pytest.fixture
def files(compose_project: ProjectFactory) -> ComposeProject:
    project = compose_project(FILES)
    project.up()
    write_file(project)
    return project


@pytest.mark.engine
@pytest.mark.parametrize("words", [[], ["--debug"]], ids=["plain", "globals"])
def test_down_by_dockers_path_is_refused_without_a_terminal(
    plugged: Plugged, files: ComposeProject, real_docker: str, words: list[str]
) -> None:
    argv = [real_docker, *words, "compose", "-f", str(files.folder / "compose.yaml"), "down", "-v"]
    code, _, err = said(*argv, env={"PATH": "/usr/bin:/bin"})
    assert code == 77, err
    assert b"safe-compose: docker was not run (77)" in err
    assert files.volumes() == [f"{files.name}_uploads"]
    assert files.running()


@pytest.mark.engine
@pytest.mark.parametrize("shimmed", [False, True], ids=["by path", "through a shim"])
def test_down_through_the_plugin_is_guarded_once_and_then_done(
    plugged: Plugged, files: ComposeProject, real_docker: str, shimmed: bool, sealed_environment: Path
) -> None:
    program = real_docker
    if shimmed:
        assert install_here("--install", "shims", "--yes").returncode == 0
        program = str(sealed_environment / ".local/share/safe-compose-shims/docker")
    job = {"SAFE_COMPOSE_NON_INTERACTIVE": "1", "SAFE_COMPOSE_BACKUP_FIRST": "1"}
    code, _, err = said(program, "compose", "-f", str(files.folder / "compose.yaml"), "down", "-v", env=job)
    assert code == 0, err
    assert files.volumes() == []
    listed = said(PROGRAM, "list", "--json")
    assert [b["volumes"] for b in json.loads(listed[1])["backups"]] == [[f"{files.name}_uploads"]]
    assert err.count(b"is verified") == 1


@pytest.mark.engine
@pytest.mark.parametrize(
    ("tiers", "switch", "line"),
    [
        ('[volumes]\nuploads = "disposable"\n', "on", b"is deleted without a backup"),
        ("", "off", b"safe-compose: SAFE_COMPOSE=off, docker runs unguarded"),
    ],
    ids=["disposable", "off"],
)
def test_what_passes_by_a_shim_and_the_plugin_is_told_once(
    plugged: Plugged, files: ComposeProject, sealed_environment: Path, tiers: str, switch: str, line: bytes
) -> None:
    assert install_here("--install", "shims", "--yes").returncode == 0
    (files.folder / "safe-compose.toml").write_text(tiers)
    program = sealed_environment / ".local/share/safe-compose-shims/docker"
    argv = (program, "compose", "-f", files.folder / "compose.yaml", "down", "-v")
    code, _, err = said(*argv, env={"SAFE_COMPOSE": switch})
    assert (code, files.volumes()) == (0, []), err
    assert err.count(line) == 1


@pytest.mark.engine
def test_a_plugin_in_the_users_own_folder_steps_aside_and_comes_back(
    lab: None, sealed_environment: Path, tmp_path: Path, real_docker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = next(path for folder in shim.plugin_folders() if shim.is_program(str(path := Path(folder, "docker-compose"))))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "my docker"))
    theirs = tmp_path / "my docker" / "cli-plugins" / "docker-compose"
    theirs.parent.mkdir(parents=True)
    theirs.symlink_to(real)
    before = contents(tmp_path / "my docker")
    version = said(real_docker, "compose", "version")
    done = install_here("--install", "plugin", "--yes")
    assert done.returncode == 0, done.stderr
    assert (theirs.is_symlink(), theirs.with_name(shim.ASIDE).readlink()) == (False, real)
    assert said(real_docker, "compose", harmless.PROBE, env={shim.PROBED: "word"})[1] == f"{harmless.PROBE} word plugin\n".encode()
    assert said(real_docker, "compose", "version") == version
    assert "nothing was written" in install_here("--install", "plugin", "--yes").stderr
    assert install_here("--uninstall", "--yes").returncode == 0
    assert contents(tmp_path / "my docker") == before


@pytest.mark.engine
def test_where_another_folder_goes_first_the_plugin_is_refused(lab: None, sealed_environment: Path, tmp_path: Path) -> None:
    script(tmp_path / "extra" / "docker-compose", "#!/bin/sh\n")
    (sealed_environment / ".docker").mkdir(exist_ok=True)
    (sealed_environment / ".docker" / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [str(tmp_path / "extra")]}))
    done = install_here("--install", "plugin", "--yes")
    assert done.returncode == 77
    assert str(tmp_path / "extra") in done.stderr
    assert not (sealed_environment / ".docker" / "cli-plugins" / "docker-compose").is_file() or not shim.is_ourselves(
        str(sealed_environment / ".docker" / "cli-plugins" / "docker-compose")
    )


@pytest.mark.engine
def test_the_plugin_finds_the_real_one_again_after_an_upgrade(plugged: Plugged, sealed_environment: Path, tmp_path: Path) -> None:
    newer = script(tmp_path / "extra" / "docker-compose", '#!/bin/sh\necho "newer $*"\n')
    (sealed_environment / ".docker" / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [str(newer.parent)]}))
    assert said(plugged.ours, METADATA)[1] == f"newer {METADATA}\n".encode()


# -- doctor ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(lab: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, str]]]:
    """What doctor found with each way in alone."""
    yield verdicts(tmp_path_factory.mktemp("ways"))


@pytest.mark.engine
def test_doctor_finds_what_each_way_in_catches(table: dict[str, dict[str, str]]) -> None:
    assert {table[f"{shell}, at a prompt"]["rc"] for shell in SHELLS} == {"caught"}
    assert table["make"] == {"rc": "missed", "shims": "caught", "plugin": "missed"}
    assert table["docker compose, by its path"] == {"rc": "missed", "shims": "missed", "plugin": "caught"}
    assert table["docker, by its path"] == dict.fromkeys(("rc", "shims", "plugin"), "missed")


@pytest.mark.engine
def test_the_table_in_the_readme_is_doctors(table: dict[str, dict[str, str]]) -> None:
    """Row by row, because a machine may lack a program."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    tried = {way: row for way, row in table.items() if "not tried" not in row.values()}
    assert len(tried) > 20
    assert [line for line in markdown(tried).splitlines() if line not in readme] == []


@pytest.mark.engine
def test_doctor_needs_a_person_when_nothing_is_caught_and_none_when_all_is(lab: None, tmp_path: Path) -> None:
    bare = examined(tmp_path / "bare home")
    assert bare["installed"] == []
    assert "no way to docker passes by safe-compose" in str(bare["attention"])
    whole = examined(tmp_path / "whole home", "shims", "plugin", "rc")
    assert (whole["installed"], whole["attention"]) == (["shims", "plugin", "rc"], [])


@pytest.mark.engine
def test_doctor_notices_a_way_that_was_broken(lab: None, tmp_path: Path) -> None:
    home = tmp_path / "plugged home"
    examined(home, "plugin")
    (home / ".docker" / "cli-plugins" / "docker-compose").unlink()
    done = log_in(home, str(PROGRAM), "doctor", "--ways", "--json")
    assert done.returncode == 1
    assert "docker compose, by its path" in str(json.loads(done.stdout)["attention"])


@pytest.mark.engine
def test_doctor_tells_of_engine_and_store(safe_compose: Callable[..., Completed], sealed_environment: Path) -> None:
    found = json.loads(safe_compose("doctor", "--json").stdout)
    assert found["docker"]["client"] == docker("version", "--format", "{{.Client.Version}}").stdout.strip()
    assert found["store"]["exists"] is False
    lost = json.loads(safe_compose("doctor", "--json", env={"DOCKER_HOST": "unix:///nonexistent.sock"}).stdout)
    assert "fault" in lost["docker"]
    assert lost["docker"]["fault"] in lost["attention"]


def test_versions_with_traps_are_known() -> None:
    from safe_compose.doctor import traps

    assert len(traps((1, 41), (2, 3, 0))) == 4
    assert len(traps((1, 42), (2, 29, 7))) == 1
    assert traps((1, 42), (2, 30, 0)) == traps((1, 43), None) == traps((1, 42), (1, 29, 2)) == []
