"""What is left when safe-compose goes before its shims and its plugin: docker works on, and nothing
deletes volumes unseen.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from test_install import Machine, contents

from safe_compose.fastpath import launch
from testing.fake_docker import RECORDER, FakeDocker, script
from testing.launcher import make_entry, make_launcher

HARMLESS = [
    "version", "up -d --wait", "down", "down --remove-orphans", "--verbose down", "ps -a",
    "run --rm -v a:/b app rm -rf /b/x", "stop", "exec app apt-get install -y curl", "-p run logs",
    "create", "rm -f app", "watch",
]  # fmt: skip
DELETES = [
    "down -v", "down --volumes", "down --vol", "-f x.yaml down -tv 1", "-p run down -v", "rm -fv",
    "up -d -y", "create --yes", "--profile exec down --volume",
]  # fmt: skip
ONLY_DOCKERS = [
    "volume rm x",
    "volume prune -f",
    "system prune -f --volumes",
    "rm -v x",
    "container rm --volumes x",
]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    home = tmp_path / "my home"
    for name in ("docker", "docker-compose"):
        script(tmp_path / "bin" / name, RECORDER)
    plugin = FakeDocker(home / ".docker" / "cli-plugins").folder
    script(plugin / "docker-compose", RECORDER)
    (tmp_path / "installed").mkdir()
    make_entry(tmp_path / "installed")
    program = make_launcher(tmp_path / "installed")
    return Machine(home, FakeDocker(tmp_path / "bin"), program)


def uninstall(machine: Machine) -> None:
    """As `pipx uninstall` leaves it: neither the launcher nor its Python."""
    shutil.rmtree(machine.program.parent)


def plugin_of(machine: Machine) -> Path:
    return machine.home / ".docker" / "cli-plugins" / "docker-compose"


def test_the_plugin_that_stays_hands_on_to_the_one_that_was_renamed(machine: Machine) -> None:
    ours = plugin_of(machine)
    assert machine.shell("--install", "plugin", "--yes").returncode == 0
    assert launch.is_ourselves(str(ours)) and ours.with_name(launch.ASIDE).exists()
    uninstall(machine)
    for line in HARMLESS:
        done = machine.run(ours, "compose", *line.split(), EXIT="9")
        assert (done.returncode, done.stdout, done.stderr) == (9, "docker speaks\n", ""), line
        assert FakeDocker(ours.parent).words == ["compose", *line.split()]
    for line in DELETES:
        done = machine.run(ours, "compose", *line.split())
        assert (done.returncode, done.stdout) == (127, ""), line
        *_, step, last = done.stderr.splitlines()
        assert last == "safe-compose: docker was not run (127)"
    subprocess.run(
        ["sh", "-c", step.partition("real plugin back: ")[2]], check=True
    )  # what it says to do ends it
    assert machine.run(ours, "compose", "down", "-v").stdout == "docker speaks\n"
    assert not ours.with_name(launch.ASIDE).exists()


def test_a_shim_holds_back_only_what_plainly_deletes_when_its_python_has_gone(
    machine: Machine,
) -> None:
    assert machine.shell("--install", "shims", "--yes").returncode == 0
    machine.program.with_name(launch.ENTRY).unlink()
    for line in HARMLESS:
        words = line.split() if line in ("version", "ps -a", "stop") else ["compose", *line.split()]
        done = machine.through_shims("docker", *words, EXIT="9")
        assert (done.returncode, done.stdout, done.stderr) == (9, "docker speaks\n", ""), line
        assert machine.fake.words == words
    deleting = [["compose", *line.split()] for line in DELETES]
    for words in [*deleting, *(line.split() for line in ONLY_DOCKERS)]:
        done = machine.through_shims("docker", *words)
        assert (done.returncode, done.stdout) == (127, ""), words
        assert done.stderr.endswith("safe-compose: docker was not run (127)\n")


def test_docker_works_on_through_shims_and_plugin_in_any_order(machine: Machine) -> None:
    for kind in ("plugin", "shims", "rc"):
        assert machine.shell("--install", kind, "--yes").returncode == 0
    before = contents(machine.home)
    uninstall(machine)
    for words in (["compose", "up", "-d"], ["run", "-v", "a:/b", "x"], ["stop", "x"], ["ps"]):
        done = machine.through_shims("docker", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "docker speaks\n", "")
        assert machine.fake.words == words
    assert contents(machine.home) == before


def test_the_renamed_plugin_comes_back_although_the_record_was_lost(machine: Machine) -> None:
    before = contents(machine.home)
    assert machine.shell("--install", "plugin", "--yes").returncode == 0
    shutil.rmtree(machine.home / ".local")
    assert machine.shell("--install", "plugin", "--yes").returncode == 0
    assert "nothing was written" in machine.shell("--install", "plugin", "--yes").stderr
    assert machine.shell("--uninstall", "--yes").returncode == 0
    assert contents(machine.home / ".docker") == {
        path.removeprefix(".docker/"): what
        for path, what in before.items()
        if path.startswith(".docker/")
    }


def test_what_is_handed_on_keeps_the_signals(machine: Machine) -> None:
    ours = plugin_of(machine)
    assert machine.shell("--install", "plugin", "--yes").returncode == 0
    uninstall(machine)
    shutil.copy("/bin/cat", ours.with_name(launch.ASIDE))
    ignored = next(
        line
        for line in machine.run(ours, "/proc/self/status").stdout.splitlines()
        if line.startswith("SigIgn")
    )
    assert not int(ignored.split()[1], 16) & 1 << (signal.SIGPIPE - 1)
    assert os.access(ours, os.X_OK)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_function_whose_program_was_removed_says_so_and_runs_docker(
    machine: Machine, shell: str
) -> None:
    text = machine.shell(shell).stdout
    file = machine.home / "function"
    file.write_text(text)
    uninstall(machine)
    source = "source function"
    done = machine.run(shell, "-c", f"{source}; docker compose down -v; docker ps")
    said = "safe-compose: it was removed, and docker runs unguarded\n"
    assert (done.stdout, done.stderr) == ("docker speaks\n" * 2, said)


def test_an_installation_is_shown_in_few_lines_and_what_stays_after_it_is_named(
    machine: Machine,
) -> None:
    for name in (".bashrc", ".zshrc"):
        (machine.home / name).touch()
    short = machine.shell("--install", "shims", "--install", "rc")
    assert "add at the beginning and at the end of" in short.stdout
    assert short.returncode == 77 and 0 < len(short.stdout.splitlines()) <= 10
    whole = machine.shell("--install", "shims", "--install", "rc", "--show")
    assert len(whole.stdout.splitlines()) > len(short.stdout.splitlines())
    assert machine.shell("--install", "rc", "--yes").returncode == 0
    taken = machine.shell("--uninstall", "--yes")
    gone = taken.stderr
    assert len((taken.stdout + gone).splitlines()) <= 24 and gone.count(".bashrc") == 0
    assert "what stays: backups and journal in" in gone
