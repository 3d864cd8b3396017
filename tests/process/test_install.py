"""Every way in, in real shells and sealed homes: what it catches, what it leaves alone, and that it
goes away without a trace.
"""

import base64
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from safe_compose.fastpath import first_look, launch
from safe_compose.install import scripts
from testing.fake_docker import ODD_ENVIRONMENT, RECORDER, FakeDocker, script
from testing.fixtures import ProjectFactory
from testing.launcher import make_script
from testing.plain_install import plain_program
from testing.projects import ROOT, ComposeProject, docker
from testing.routes import log_in, markdown, run_doctor, verdicts
from testing.stacks import write_file

PROGRAM = plain_program()
SHELLS = ("bash", "zsh", "fish")
ALL = ("--install", "shims", "--install", "plugin", "--install", "rc")
Completed = subprocess.CompletedProcess[str]


class Machine(NamedTuple):
    """A home and a docker, both with a blank in their path."""

    home: Path
    fake: FakeDocker
    program: Path = PROGRAM

    def environ(self, **more: str) -> dict[str, str]:
        path = os.pathsep.join([str(self.fake.folder), "/usr/bin", "/bin"])
        return {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", **more}

    def run(self, *argv: str | Path, input: str = "", **more: str) -> Completed:
        environ = self.environ(**more)
        return subprocess.run(
            argv,
            env=environ,
            cwd=self.home,
            input=input,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def shell(self, *words: str, **more: str) -> Completed:
        """Our verb `shell`, without a terminal."""
        words_ = [str(self.program), "shell", *words]
        return subprocess.run(
            words_, env=self.environ(**more), cwd=self.home, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="surrogateescape", timeout=60,
            start_new_session=True,
        )  # fmt: skip

    @property
    def shims(self) -> Path:
        return self.home / ".local/share/safe-compose-shims"

    def through_shims(self, *argv: str | Path, **more: str) -> Completed:
        path = os.pathsep.join([str(self.shims), str(self.fake.folder), "/usr/bin", "/bin"])
        return self.run(*argv, **{"PATH": path, **more})


def furnish_machine(folder: Path) -> Machine:
    home = folder / "my home"
    home.mkdir()
    programs = folder / "bin with blank"
    script(programs / "docker", RECORDER)
    script(programs / "docker-compose", RECORDER)
    return Machine(home, FakeDocker(programs))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return furnish_machine(tmp_path)


def contents(folder: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """Every file with its mode and its bytes, every link with where it leads, every folder."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        what = (
            str(path.readlink())
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else None
        )
        found[str(path.relative_to(folder))] = stat.S_IMODE(status.st_mode), what
    return found


# -- functions -------------------------------------------------------------------------------------

EVALUATE = {
    "bash": 'eval "$({} shell bash)"',
    "zsh": 'eval "$({} shell zsh)"',
    "fish": "{} shell fish | source",
}


def in_shell(
    machine: Machine,
    shell: str,
    line: str,
    *,
    before: str = "",
    flags: Sequence[str] = (),
    **more: str,
) -> Completed:
    lines = f"{before}\n{EVALUATE[shell].format(scripts.quote(str(PROGRAM), shell))}\n{line}\n"
    return machine.run(shell, *flags, "-c", lines, **more)


def test_the_words_of_the_functions_are_those_of_one_table() -> None:
    expected = {
        *first_look.SUSPECT,
        *launch.OWN_VERBS,
        first_look.PROBE,
        *(f"{flag}*" for flag in first_look.OWN_FLAGS),
    }
    posix = scripts.make_function("bash", "/x")
    listed = [line.strip().partition(")")[0] for line in posix.splitlines() if "--confirm*" in line]
    assert [set(words.split(" | ")) for words in listed] == [expected, expected - launch.OWN_VERBS]
    fish = [
        line
        for line in scripts.make_function("fish", "/x").splitlines()
        if line.strip().startswith("case ") and "--confirm" in line
    ]
    assert [set(words.replace("'", "").split()[1:]) for words in fish] == [
        expected,
        expected - launch.OWN_VERBS,
    ]
    assert not re.search("@[A-Z_]+@", posix)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "words",
    [
        ["ps"],
        [],
        ["ps", "", "a b", "*", "~", "-n"],
        ["exec", "x", "é\n"],
        ["__complete", "compose", "down", ""],
    ],
)
def test_harmless_words_reach_docker_unchanged_through_a_function(
    machine: Machine, shell: str, words: list[str]
) -> None:
    line = f"docker {' '.join(scripts.quote(word, shell) for word in words)}"
    done = in_shell(machine, shell, line, EXIT="7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "docker speaks\n", "")
    assert machine.fake.words == words


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "line", ["docker volume prune", "docker compose down -v", "docker-compose down -v"]
)
def test_what_may_delete_goes_to_safe_compose_through_a_function(
    machine: Machine, shell: str, line: str
) -> None:
    done = in_shell(machine, shell, line, DOCKER_HOST="unix:///nonexistent.sock")
    assert done.returncode == 69
    assert done.stderr.endswith("safe-compose: docker was not run (69)\n")


@pytest.mark.parametrize(
    ("shell", "emulate"), [("bash", ""), ("zsh", ""), ("zsh", "emulate sh"), ("zsh", "emulate ksh")]
)
def test_functions_mind_neither_strict_modes_nor_aliases(
    machine: Machine, shell: str, emulate: str
) -> None:
    aliases = "shopt -s expand_aliases 2>/dev/null\n" if shell == "bash" else ""
    aliases += (
        "alias docker='echo aliased' local='echo l' command='echo c' return='echo r'"
        " complete='echo x'"
    )
    before = f"{emulate}\n{aliases}\nset -eu"
    line = (
        f"unalias docker local command return\ndocker ps && docker\n{launch.PROBED}=word docker"
        f" {first_look.PROBE}\n"
    )
    line += "EXIT=3 docker ps\necho not reached"
    done = in_shell(machine, shell, line, before=before)
    assert (done.returncode, done.stderr) == (3, "")
    assert (
        done.stdout
        == f"docker speaks\ndocker speaks\n{first_look.PROBE} word safe-compose\ndocker speaks\n"
    )


def test_in_posix_mode_bash_gets_the_function_of_docker_alone(machine: Machine) -> None:
    line = f"export {launch.PROBED}=word; docker {first_look.PROBE}; docker-compose ps; echo on"
    done = in_shell(machine, "bash", line, flags=["--posix"])
    assert (done.stdout, done.stderr) == (
        f"{first_look.PROBE} word safe-compose\ndocker speaks\non\n",
        "",
    )


def test_bash_keeps_the_completion_of_docker_and_lends_it_to_safe_compose(machine: Machine) -> None:
    ask = (
        "COMP_WORDS=(safe-compose {}); COMP_CWORD=2; _safe_compose_complete; echo ${{COMPREPLY[@]}}"
    )
    line = f"complete -p docker; {ask.format('compose do')}; {ask.format('undo --non')}"
    before = "_docker() { COMPREPLY=(docker\\'s $1 $2 $3); }; complete -o default -F _docker docker"
    done = in_shell(machine, "bash", line, before=before)
    assert (done.stdout, done.stderr) == (
        "complete -o default -F _docker docker\ndocker's docker do compose\n--non-interactive\n",
        "",
    )


def test_zsh_keeps_the_completion_of_docker_and_lends_it_to_safe_compose(machine: Machine) -> None:
    before = "autoload -U compinit; compinit -D -u; _docker() { :; }; compdef _docker docker"
    ask = "words=(safe-compose {}); CURRENT=3; _safe_compose_complete"
    shown = "compadd() { print -- $2; }; _normal() { print -- $words; }"
    line = (
        f'print "$_comps[docker]"; {shown}; {ask.format("compose do")}; {ask.format("undo --non")}'
    )
    done = in_shell(machine, "zsh", line, before=before)
    assert (done.stdout, done.stderr) == ("_docker\ndocker compose do\n--non-interactive\n", "")


def test_fish_keeps_the_completion_of_docker_and_lends_it_to_safe_compose(machine: Machine) -> None:
    before = "complete --command docker --no-files --arguments 'containers compose'"
    line = "complete -C 'docker con'; complete -C 'safe-compose con'; complete -C 'safe-compose undo --non'"
    done = in_shell(machine, "fish", line, before=before)
    assert (done.stdout, done.stderr) == ("containers\ncontainers\n--non-interactive\n", "")


# -- there and away again --------------------------------------------------------------------------


def empty(home: Path) -> None:
    assert not list(home.iterdir())


def lived_in(home: Path) -> None:
    """Files as people have them: no new line at the end, other bytes than text, DOS line ends, a
    link, a mode of their own.
    """
    (home / ".bashrc").write_bytes(b"export A=1 # no new line")
    (home / ".bash_profile").write_bytes(b"\xff\xfe # not text\r\n. ~/.bashrc\r\n")
    (home / "dotfiles").mkdir()
    (home / "dotfiles" / "zshenv").write_bytes(b"")
    (home / "dotfiles" / "zshenv").chmod(0o600)
    (home / ".zshenv").symlink_to("dotfiles/zshenv")
    (home / ".profile").write_bytes(b"umask 022\n")
    (home / ".config" / "fish" / "conf.d").mkdir(parents=True)
    (home / ".local" / "state").mkdir(parents=True)


@pytest.mark.thorough
@pytest.mark.parametrize("furnish", [empty, lived_in])
@pytest.mark.parametrize(
    "kinds",
    [("--install", "shims"), ("--install", "rc"), ("--install", "shims", "--install", "rc")],
    ids=" ".join,
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


@pytest.mark.thorough
def test_what_was_written_by_others_in_between_stays(machine: Machine) -> None:
    lived_in(machine.home)
    machine.shell("--install", "shims", "--install", "rc", "--yes")
    with (machine.home / ".bashrc").open("a") as file:
        file.write("export B=2\n")
    assert machine.shell("--uninstall", "--yes").returncode == 0
    assert (machine.home / ".bashrc").read_text() == "export A=1 # no new line\nexport B=2\n"


@pytest.mark.thorough
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
    whole = machine.shell("--install", "shims", "--install", "rc", "--show")
    assert whole.returncode == 77 and contents(machine.home) == before
    for change in plan["changes"]:
        assert change["path"] in asked.stdout and change["path"] in whole.stdout
        for line in change["text"].splitlines():
            assert line in whole.stdout
    assert (asked.stdout + whole.stdout).replace("\n", "").isprintable()
    assert [c["text"] for c in plan["changes"] if c["how"] == "link"] == [str(PROGRAM)] * 3


@pytest.mark.thorough
def test_lines_that_somebody_edited_are_left_and_named(machine: Machine) -> None:
    machine.shell("--install", "shims", "--yes")
    profile, program = machine.home / ".profile", machine.shims / "docker"
    profile.write_text(profile.read_text().replace("export PATH", "export PATH # mine"))
    script(program.with_name("mine"), "#!/bin/sh\n").replace(program)
    edited = profile.read_text(), program.read_bytes()
    gone = machine.shell("--uninstall", "--yes")
    assert gone.returncode == 77
    assert str(profile) in gone.stderr
    assert str(program) in gone.stderr
    assert (profile.read_text(), program.read_bytes()) == edited
    assert not (machine.shims / "docker-compose").exists()
    assert machine.shell("--install", "shims", "--yes").returncode == 77, (
        "nor are they written over"
    )
    profile.unlink()
    program.unlink()
    assert machine.shell("--uninstall", "--yes").returncode == 0
    assert not machine.shims.exists()


# -- what earlier versions wrote -------------------------------------------------------------------

OLD_SCRIPT = f"""\
#!{sys.executable} -IS
# {first_look.MARKER.decode()}: written by `safe-compose shell --install shims`
import sys

sys.path.insert(0, {str(ROOT / "src/safe_compose/fastpath")!r})
try:
    from first_look import pass_on

    pass_on()
except ImportError:
    pass
sys.path[0] = {str(ROOT / "src")!r}
from {first_look.MARKER.decode()} import main

sys.exit(main(python={sys.executable!r}))
"""
OLD_PROGRAM = first_look.ELF + b"compiled" * 1000 + first_look.MARKER + b"-IS" * 1000


def write_as_before(machine: Machine, *, compiled: bool) -> None:
    """The shims of a version that had no launcher, with its record."""
    changes = []
    for name in ("docker", "docker-compose"):
        path = machine.shims / name
        if compiled:
            script(path.parent / "closer" / name, OLD_SCRIPT)
            change = {"path": str(path.parent / "closer" / name), "text": OLD_SCRIPT}
            changes.append({**change, "folders": []})
        script(path, "" if compiled else OLD_SCRIPT)
        text = OLD_SCRIPT
        if compiled:
            path.write_bytes(OLD_PROGRAM)
            text = base64.b64encode(zlib.compress(OLD_PROGRAM)).decode()
        changes.append({"path": str(path), "text": text, "packed": compiled, "folders": []})
    local = machine.home / ".local"
    folders = [str(path) for path in (local, local / "share", machine.shims)]
    changes[0]["folders"] = folders + ([str(machine.shims / "closer")] if compiled else [])
    record = machine.home / ".local/state/safe-compose/ways.json"
    record.parent.mkdir(parents=True)
    common = {"way": "shims", "how": "file", "mode": 0o755, "created": True}
    body = {"version": 1, "folders": [str(p) for p in (local, local / "state", record.parent)]}
    body["changes"] = [{**common, **change} for change in changes]  # type: ignore[assignment]
    record.write_text(json.dumps(body))


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "script"])
def test_the_shims_of_an_earlier_version_are_replaced_and_removed(
    machine: Machine, compiled: bool
) -> None:
    write_as_before(machine, compiled=compiled)
    if not compiled:
        assert machine.through_shims("docker", "ps").stdout == "docker speaks\n"
        environ = {"DOCKER_HOST": "unix:///nonexistent.sock"}
        assert machine.through_shims("docker", "volume", "rm", "x", **environ).returncode == 69
    assert launch.is_ourselves(str(machine.shims / "docker"))
    assert machine.shell("--install", "shims", "--yes").returncode == 0
    for name in ("docker", "docker-compose"):
        assert (machine.shims / name).readlink() == PROGRAM
    assert machine.through_shims("docker", "ps").stdout == "docker speaks\n"
    assert "nothing was written" in machine.shell("--install", "shims", "--yes").stderr
    gone = machine.shell("--uninstall", "--yes")
    assert (gone.returncode, contents(machine.home)) == (0, {}), gone.stderr


def test_what_an_earlier_version_wrote_is_removed_without_a_new_installation(
    machine: Machine,
) -> None:
    write_as_before(machine, compiled=True)
    assert machine.shell("--uninstall", "--yes").returncode == 0
    assert contents(machine.home) == {}


@pytest.mark.thorough
def test_a_record_of_a_program_that_does_not_read_changes_nothing(machine: Machine) -> None:
    write_as_before(machine, compiled=True)
    record = machine.home / ".local/state/safe-compose/ways.json"
    body = json.loads(record.read_text())
    next(change for change in body["changes"] if change.get("packed"))["text"] = "eJz="
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


@pytest.mark.thorough
def test_another_folder_takes_the_place_of_the_first_on_path(
    machine: Machine, tmp_path: Path
) -> None:
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


@pytest.mark.thorough
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
        ["--install", "aliases"],
        ["--install", "rc", "--dir", "/x"],
        ["--install", "shims", "--dir", "/a:b"],
        ["tcsh"],
    ],
)
def test_words_that_make_no_sense_are_64(machine: Machine, words: list[str]) -> None:
    assert machine.shell(*words, "--yes").returncode == 64
    assert not list(machine.home.iterdir())


@pytest.mark.thorough
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


# -- programs on PATH ------------------------------------------------------------------------------


def install_shims(machine: Machine, kind: str) -> Machine:
    """Shims that lead to the launcher, or to the script in its place."""
    if kind == "script":
        folder = machine.home.parent / "without compiler"
        folder.mkdir()
        machine = machine._replace(program=make_script(folder / "safe-compose"))
    done = machine.shell("--install", "shims", "--yes")
    assert done.returncode == 0, done.stderr
    assert {path.name: path.readlink() for path in machine.shims.iterdir()} == {
        "docker": machine.program,
        "docker-compose": machine.program,
        "safe-compose": machine.program,
    }
    return machine


@pytest.fixture(params=["program", "script"])
def shims(machine: Machine, request: pytest.FixtureRequest) -> Machine:
    """With what is installed where there is a compiler, and where there is none."""
    return install_shims(machine, request.param)


@pytest.fixture(scope="module", params=["program", "script"])
def installed_once(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Machine:
    return install_shims(furnish_machine(tmp_path_factory.mktemp("shims")), request.param)


def test_a_new_login_shell_finds_safe_compose_and_that_one_installs_again(shims: Machine) -> None:
    for shell in ("bash", "zsh", "fish"):
        done = shims.run(shell, "-lc", "safe-compose about --json")
        assert done.returncode == 0 and json.loads(done.stdout)["safe-compose"], done.stderr
    before = contents(shims.shims)
    link = shims._replace(program=shims.shims / "safe-compose")
    for lost in (False, True):
        if lost:
            (shims.home / ".local/state/safe-compose/ways.json").unlink()
        assert link.shell("--install", "shims", "--yes").returncode == (77 if lost else 0)
        assert contents(shims.shims) == before
    assert shims.through_shims("docker", "ps").returncode == 0


@pytest.fixture
def same_shims(installed_once: Machine) -> Iterator[Machine]:
    """The same for tests that only call them: installed once, and still as they were afterwards.
    What the fake docker saw of the test before is gone.
    """
    before = contents(installed_once.shims)
    for path in installed_once.fake.folder.iterdir():
        if path.name not in ("docker", "docker-compose"):
            path.unlink()
    yield installed_once
    assert contents(installed_once.shims) == before


@pytest.mark.parametrize(
    "words", [["ps", "", "a b\n"], ["compose", "down"], [], ["run", "--rm", "x", "rm", "-v"]]
)
def test_a_shim_hands_over_byte_for_byte(same_shims: Machine, words: list[str]) -> None:
    done = same_shims.through_shims("docker", *words, EXIT="9")
    assert (done.returncode, done.stdout, done.stderr) == (9, "docker speaks\n", "")
    assert same_shims.fake.words == words


def test_the_environment_passes_through_a_shim_as_it_came(
    same_shims: Machine, tmp_path: Path
) -> None:
    native = tmp_path / "native"
    native.mkdir()
    shutil.copy("/bin/cat", native / "docker")
    environ = {
        b"PATH": os.fsencode(f"{same_shims.shims}:{native}"),
        b"HOME": os.fsencode(same_shims.home),
        **ODD_ENVIRONMENT,
    }
    done = subprocess.run(
        [same_shims.shims / "docker", "/proc/self/environ"],
        env=environ,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split(b"\0")[:-1] == [name + b"=" + value for name, value in environ.items()]


@pytest.mark.thorough
def test_the_shim_of_docker_compose_runs_the_standalone_program(same_shims: Machine) -> None:
    assert same_shims.through_shims("docker-compose", "-f", "x", "ps").returncode == 0
    assert same_shims.fake.words == ["-f", "x", "ps"]


@pytest.mark.thorough
def test_a_guarded_command_wakes_the_whole_program_from_a_shim(same_shims: Machine) -> None:
    done = same_shims.through_shims(
        "docker", "volume", "rm", "x", DOCKER_HOST="unix:///nonexistent.sock"
    )
    assert done.returncode == 69
    assert done.stderr.endswith("safe-compose: docker was not run (69)\n")


@pytest.mark.thorough
def test_a_shim_finds_the_real_docker_again_after_an_upgrade(
    shims: Machine, tmp_path: Path
) -> None:
    newer = script(tmp_path / "newer" / "docker", "#!/bin/sh\necho newer\n")
    newer.replace(shims.fake.path)
    assert shims.through_shims("docker", "ps").stdout == "newer\n"
    elsewhere = script(tmp_path / "elsewhere" / "docker", "#!/bin/sh\necho elsewhere\n")
    shims.fake.path.unlink()
    done = shims.run(
        "docker", "ps", PATH=f"{shims.shims}:{shims.fake.folder}:{elsewhere.parent}:/usr/bin:/bin"
    )
    assert done.stdout == "elsewhere\n"


@pytest.mark.thorough
def test_two_folders_of_shims_know_each_other(shims: Machine, tmp_path: Path) -> None:
    shims.shell("--install", "shims", "--dir", str(tmp_path / "second"), "--yes")
    path = f"{shims.shims}:{tmp_path / 'second'}:{shims.fake.folder}:/usr/bin:/bin"
    assert shims.run("docker", "ps", PATH=path).stdout == "docker speaks\n"


@pytest.mark.parametrize("call", ['exec docker "$@"', 'docker "$@"; exit $?'])
def test_a_wrapper_that_looks_for_docker_on_path_again_ends_with_127(
    shims: Machine, call: str
) -> None:
    script(shims.fake.path, f"#!/bin/sh\n{call}\n")
    done = shims.through_shims("docker", "ps")
    assert done.returncode == 127
    assert "leads back to safe-compose" in done.stderr


def test_no_docker_besides_the_shims_is_127(same_shims: Machine) -> None:
    done = same_shims.run(same_shims.shims / "docker", "ps", PATH=str(same_shims.shims))
    assert done.returncode == 127
    assert done.stderr.endswith("safe-compose: docker was not run (127)\n")


@pytest.mark.parametrize("shell", [*SHELLS, "dash"])
def test_without_safe_compose_docker_is_found_as_though_it_had_never_been(
    machine: Machine, tmp_path: Path, shell: str
) -> None:
    program = make_script(tmp_path / "safe-compose")
    machine = install_shims(machine._replace(program=program), "program")
    program.unlink()
    for words in (["ps", "-a"], ["compose", "down", "-v"]):
        done = machine.through_shims(shell, "-c", " ".join(["docker", *words]))
        assert (done.returncode, done.stdout, done.stderr) == (0, "docker speaks\n", "")
        assert machine.fake.words == words
    assert machine._replace(program=PROGRAM).shell("--install", "shims", "--yes").returncode == 0
    assert (machine.shims / "docker").readlink() == PROGRAM


@pytest.mark.thorough
@pytest.mark.parametrize(
    "words",
    [
        ["ps", first_look.PROBE],
        [first_look.PROBE, "down"],
        ["compose", "-p", "x", first_look.PROBE],
    ],
)
def test_the_probe_answers_for_nothing_but_itself(same_shims: Machine, words: list[str]) -> None:
    done = same_shims.through_shims("docker", *words, **{launch.PROBED: "word"})
    assert done.stdout == "docker speaks\n"
    assert same_shims.fake.words == words


def test_without_its_variable_the_probe_is_dockers_to_reject(same_shims: Machine) -> None:
    assert same_shims.through_shims("docker", first_look.PROBE).stdout == "docker speaks\n"


# -- docker's own plugin ---------------------------------------------------------------------------

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
    return subprocess.run(
        [PROGRAM, "shell", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def plugged(lab: None, sealed_environment: Path) -> Plugged:
    real = next(
        path
        for folder in launch.list_plugin_folders()
        if launch.is_program(str(path := Path(folder, "docker-compose")))
    )
    done = install_here("--install", "plugin", "--yes")
    assert done.returncode == 0, done.stderr
    return Plugged(sealed_environment / ".docker" / "cli-plugins" / "docker-compose", real)


def said(*argv: str | Path, env: dict[str, str] | None = None) -> tuple[int, bytes, bytes]:
    environ = {**os.environ, **(env or {})}
    done = subprocess.run(
        argv,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        start_new_session=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.matrix
@pytest.mark.engine
@pytest.mark.parametrize(
    "words",
    [
        [METADATA],
        HOOKS,
        ["compose", "version"],
        ["version"],
        ["__complete", "compose", "dow"],
        ["compose", "nonsense"],
    ],
    ids=str,
)
@pytest.mark.parametrize("origin", ["docker", None])
def test_the_plugin_says_what_the_real_one_says(
    plugged: Plugged, words: list[str], origin: str | None
) -> None:
    environ = {launch.ORIGIN: origin} if origin else {}
    assert said(plugged.ours, *words, env=environ) == said(plugged.real, *words, env=environ)


@pytest.mark.matrix
@pytest.mark.thorough
@pytest.mark.engine
def test_docker_sees_the_same_compose_through_the_plugin(
    plugged: Plugged, real_docker: str
) -> None:
    calls = (
        ["compose", "version"],
        ["__complete", "compose", "do"],
        ["compose", "--help"],
        ["--debug", "compose", "ls", "--filter", "name=nobody", "-q"],
    )

    def answers() -> list[tuple[int, bytes, bytes]]:
        """Without the times that Compose 5 puts before its debug lines, and without the connections
        over ssh, whose number varies.
        """
        told = [said(real_docker, *words) for words in calls]
        varying = rb'time="[^"]*"|.*commandconn: starting ssh.*\n'
        return [(code, out, re.sub(varying, b"", err)) for code, out, err in told]

    through = answers()
    assert install_here("--uninstall", "--yes").returncode == 0
    assert not plugged.ours.parent.parent.exists()
    assert through == answers()


@pytest.fixture
def files(compose_project: ProjectFactory) -> ComposeProject:
    project = compose_project(FILES)
    project.up()
    write_file(project)
    return project


@pytest.mark.thorough
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


@pytest.mark.matrix
@pytest.mark.engine
@pytest.mark.parametrize("shimmed", [False, True], ids=["by path", "through a shim"])
def test_down_through_the_plugin_is_guarded_once_and_then_done(
    plugged: Plugged,
    files: ComposeProject,
    real_docker: str,
    shimmed: bool,
    sealed_environment: Path,
) -> None:
    program = real_docker
    if shimmed:
        assert install_here("--install", "shims", "--yes").returncode == 0
        program = str(sealed_environment / ".local/share/safe-compose-shims/docker")
    job = {"SAFE_COMPOSE_NON_INTERACTIVE": "1", "SAFE_COMPOSE_BACKUP_FIRST": "1"}
    code, _, err = said(
        program, "compose", "-f", str(files.folder / "compose.yaml"), "down", "-v", env=job
    )
    assert code == 0, err
    assert files.volumes() == []
    listed = said(PROGRAM, "list", "--json")
    assert [b["volumes"] for b in json.loads(listed[1])["backups"]] == [[f"{files.name}_uploads"]]
    assert err.count(b"is verified") == 1


@pytest.mark.thorough
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
    plugged: Plugged,
    files: ComposeProject,
    sealed_environment: Path,
    tiers: str,
    switch: str,
    line: bytes,
) -> None:
    assert install_here("--install", "shims", "--yes").returncode == 0
    (files.folder / "safe-compose.toml").write_text(tiers)
    program = sealed_environment / ".local/share/safe-compose-shims/docker"
    argv = (program, "compose", "-f", files.folder / "compose.yaml", "down", "-v")
    code, _, err = said(*argv, env={"SAFE_COMPOSE": switch})
    assert (code, files.volumes()) == (0, []), err
    assert err.count(line) == 1


@pytest.mark.thorough
@pytest.mark.engine
def test_a_plugin_in_the_users_own_folder_steps_aside_and_comes_back(
    lab: None,
    sealed_environment: Path,
    tmp_path: Path,
    real_docker: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = next(
        path
        for folder in launch.list_plugin_folders()
        if launch.is_program(str(path := Path(folder, "docker-compose")))
    )
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "my docker"))
    theirs = tmp_path / "my docker" / "cli-plugins" / "docker-compose"
    theirs.parent.mkdir(parents=True)
    theirs.symlink_to(real)
    before = contents(tmp_path / "my docker")
    version = said(real_docker, "compose", "version")
    done = install_here("--install", "plugin", "--yes")
    assert done.returncode == 0, done.stderr
    assert (theirs.is_symlink(), theirs.with_name(launch.ASIDE).readlink()) == (False, real)
    assert (
        said(real_docker, "compose", first_look.PROBE, env={launch.PROBED: "word"})[1]
        == f"{first_look.PROBE} word plugin\n".encode()
    )
    assert said(real_docker, "compose", "version") == version
    assert "nothing was written" in install_here("--install", "plugin", "--yes").stderr
    assert install_here("--uninstall", "--yes").returncode == 0
    assert contents(tmp_path / "my docker") == before


@pytest.mark.engine
def test_where_another_folder_goes_first_the_plugin_is_refused(
    lab: None, sealed_environment: Path, tmp_path: Path
) -> None:
    script(tmp_path / "extra" / "docker-compose", "#!/bin/sh\n")
    (sealed_environment / ".docker").mkdir(exist_ok=True)
    (sealed_environment / ".docker" / "config.json").write_text(
        json.dumps({"cliPluginsExtraDirs": [str(tmp_path / "extra")]})
    )
    done = install_here("--install", "plugin", "--yes")
    assert done.returncode == 77
    assert str(tmp_path / "extra") in done.stderr
    assert not (
        sealed_environment / ".docker" / "cli-plugins" / "docker-compose"
    ).is_file() or not launch.is_ourselves(
        str(sealed_environment / ".docker" / "cli-plugins" / "docker-compose")
    )


@pytest.mark.engine
def test_the_plugin_finds_the_real_one_again_after_an_upgrade(
    plugged: Plugged, sealed_environment: Path, tmp_path: Path
) -> None:
    newer = script(tmp_path / "extra" / "docker-compose", '#!/bin/sh\necho "newer $*"\n')
    (sealed_environment / ".docker" / "config.json").write_text(
        json.dumps({"cliPluginsExtraDirs": [str(newer.parent)]})
    )
    assert said(plugged.ours, METADATA)[1] == f"newer {METADATA}\n".encode()


# -- doctor ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(
    lab: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, str]]]:
    """What doctor found with each way in alone."""
    yield verdicts(tmp_path_factory.mktemp("ways"))


@pytest.mark.engine
def test_doctor_finds_what_each_way_in_catches(table: dict[str, dict[str, str]]) -> None:
    assert {table[f"{shell}, at a prompt"]["rc"] for shell in SHELLS} == {"caught"}
    assert table["make"] == {"rc": "missed", "shims": "caught", "plugin": "missed"}
    assert table["docker compose, by its path"] == {
        "rc": "missed",
        "shims": "missed",
        "plugin": "caught",
    }
    assert table["docker, by its path"] == dict.fromkeys(("rc", "shims", "plugin"), "missed")


@pytest.mark.engine
def test_the_table_in_the_documentation_is_doctors(table: dict[str, dict[str, str]]) -> None:
    """Row by row, because a machine may lack a program."""
    page = (ROOT / "docs/how-to/install.md").read_text(encoding="utf-8").splitlines()
    tried = {way: row for way, row in table.items() if "not tried" not in row.values()}
    assert len(tried) > 20
    assert [line for line in markdown(tried).splitlines() if line not in page] == []


@pytest.mark.thorough
@pytest.mark.engine
def test_doctor_needs_a_person_when_nothing_is_caught_and_none_when_all_is(
    lab: None, tmp_path: Path
) -> None:
    bare = run_doctor(tmp_path / "bare home")
    assert bare["installed"] == []
    assert "no way to docker goes through safe-compose" in str(bare["attention"])
    whole = run_doctor(tmp_path / "whole home", "shims", "plugin", "rc")
    assert (whole["installed"], whole["attention"]) == (["shims", "plugin", "rc"], [])


@pytest.mark.thorough
@pytest.mark.engine
def test_doctor_notices_a_way_that_was_broken(lab: None, tmp_path: Path) -> None:
    home = tmp_path / "plugged home"
    run_doctor(home, "plugin")
    (home / ".docker" / "cli-plugins" / "docker-compose").unlink()
    done = log_in(home, str(PROGRAM), "doctor", "--ways", "--json")
    assert done.returncode == 1
    assert "docker compose, by its path" in str(json.loads(done.stdout)["attention"])


@pytest.mark.thorough
@pytest.mark.engine
def test_doctor_tells_of_engine_and_store(
    safe_compose: Callable[..., Completed], sealed_environment: Path
) -> None:
    found = json.loads(safe_compose("doctor", "--json").stdout)
    client = docker("version", "--format", "{{.Client.Version}}").stdout.strip()
    assert found["docker"]["client"] == client.partition("+")[0]
    assert found["store"]["exists"] is False
    lost = json.loads(
        safe_compose("doctor", "--json", env={"DOCKER_HOST": "unix:///nonexistent.sock"}).stdout
    )
    assert "fault" in lost["docker"]
    assert lost["docker"]["fault"] in lost["attention"]


def test_versions_with_traps_are_known() -> None:
    from safe_compose.operations.doctor.docker import list_traps

    assert len(list_traps((1, 41), (2, 3, 0))) == 4
    assert len(list_traps((1, 42), (2, 29, 7))) == 1
    assert (
        list_traps((1, 42), (2, 30, 0))
        == list_traps((1, 43), None)
        == list_traps((1, 42), (1, 29, 2))
        == []
    )
