"""Places that others can write to, files of schedulers, and programs that do not end."""

import grp
import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from safe_compose.compose.probe import Probe
from safe_compose.engine.compose_document import parse_document
from safe_compose.errors import OperationFailed, Refused, SafeComposeError, UsageError
from safe_compose.install import apply
from safe_compose.install.places import InstallPlaces
from safe_compose.install.plan import plan
from safe_compose.install.record import InstallChange
from safe_compose.operations.doctor import routes
from safe_compose.operations.schedule import systemd
from safe_compose.settings import load
from safe_compose.store.catalogue.folder import StoreFolder
from safe_compose.system import children, files, trusted_file
from testing.fixtures import SafeCompose
from testing.projects import wait_until

# -- programs that do not end ----------------------------------------------------------------------

ENDLESS = "while True: import os; os.write(1, b'x' * 65536)"
FAMILY = """
import os, subprocess, sys, time
ours = sys.argv[1]
kinds = [{}, {"start_new_session": True}, {"process_group": 0}]
for kind in kinds:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)", ours], **kind)
open(ours, "w").close()
time.sleep(1000)
"""


def alive(mark: str) -> list[int]:
    """Processes, zombies apart, that have a word among their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            found += [int(entry.name)] if mark.encode() in words and state != "Z" else []
    return found


def test_giving_a_program_up_ends_everything_that_it_started(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    child = children.start([sys.executable, "-c", FAMILY, mark])
    wait_until("the family is complete", lambda: Path(mark).exists() and len(alive(mark)) == 4)
    with pytest.raises(subprocess.TimeoutExpired):
        children.finish(child, seconds=0.1)
    wait_until("those that were killed are gone", lambda: alive(mark) == [])


def test_a_program_that_prints_without_end_is_ended_and_takes_no_memory() -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))\n"
        "from safe_compose.system import children\n"
        f"try: children.run([sys.executable, '-c', {ENDLESS!r}], seconds=60)\n"
        "except children.TooMuch as fault: print(fault)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "it printed more than 32 MiB\n", done.stderr


def test_words_on_stderr_without_end_are_cut_and_the_answer_is_kept() -> None:
    code = "import os; [os.write(2, b'y' * 65536) for _ in range(1000)]; print('answer')"
    done = children.run([sys.executable, "-c", code], seconds=60)
    assert done.stdout == b"answer\n" and len(done.stderr) == 64 << 10


def test_a_program_that_reads_nothing_and_one_whose_child_keeps_its_pipes_end_in_time() -> None:
    big = b"z" * (4 << 20)
    assert children.run([sys.executable, "-c", "print(1)"], given=big, seconds=30).stdout == b"1\n"
    counts = "import sys; print(len(sys.stdin.read()))"
    assert (
        children.run([sys.executable, "-c", counts], given=big, seconds=30).stdout == b"4194304\n"
    )
    began = time.monotonic()
    keeps = (
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(20)'],"
        " start_new_session=True)"
    )
    assert (
        children.run(
            [sys.executable, "-c", f"import subprocess, sys; {keeps}; print(2)"], seconds=30
        ).stdout
        == b"2\n"
    )
    assert time.monotonic() - began < 15


def test_what_compose_prints_of_a_file_that_is_nested_too_deeply_is_no_document() -> None:
    prints = """print('{"name": "shop", "x-deep": ' + '[' * %d + ']' * %d + '}')"""
    read = [
        parse_document(Probe([sys.executable, "-c", prints % (deep, deep)], os.environ))
        for deep in (10, 5000)
    ]
    assert read[0] is not None and read[1] is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_ends_us_ends_what_we_asked(number: signal.Signals, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    code = "import sys; from safe_compose.system import children\n"
    code += f"children.run([sys.executable, '-c', {FAMILY!r}, {mark!r}], seconds=600)"
    us = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True
    )
    wait_until("the family is complete", lambda: Path(mark).exists() and len(alive(mark)) == 4)
    us.send_signal(number)
    assert us.wait(30) == -number
    wait_until("all have gone", lambda: alive(mark) == [])


def docker_that(path: Path, does: str) -> Path:
    """A docker that answers nothing but does something when compose's config is asked for; all else
    is the real one's.
    """
    from testing.projects import real_docker

    program = path / "docker"
    program.write_text(
        f"#!/bin/sh\ncase \" $* \" in *' config '*) {does} ;; esac\nexec"
        f' {shlex.quote(real_docker())} "$@"\n'
    )
    program.chmod(0o755)
    return program


@pytest.mark.engine
def test_a_compose_that_prints_without_end_is_refused_and_nothing_of_it_is_left(
    safe_compose: SafeCompose, tmp_path: Path, lab: None
) -> None:
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    mark = str(tmp_path / "mark")
    program = docker_that(
        tmp_path, f"{shlex.quote(sys.executable)} -c {shlex.quote(ENDLESS)} {shlex.quote(mark)}"
    )
    answer = safe_compose(
        "compose", "down", "-v", env={"SAFE_COMPOSE_DOCKER": str(program)}, timeout=120
    )
    assert answer.returncode == 69, answer.stderr
    assert "does not end: it printed more than 32 MiB; nothing was looked at" in answer.stderr
    assert alive(mark) == []


@pytest.mark.engine
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_compose_does_not_outlive_a_look_that_was_ended(
    number: signal.Signals, tmp_path: Path, lab: None
) -> None:
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    mark = str(tmp_path / "mark")
    program = docker_that(
        tmp_path, f"{shlex.quote(sys.executable)} -c {shlex.quote(FAMILY)} {shlex.quote(mark)}"
    )
    argv = [str(Path(sys.executable).with_name("safe-compose")), "compose", "down", "-v"]
    environ = {**os.environ, "SAFE_COMPOSE_DOCKER": str(program)}
    us = subprocess.Popen(
        argv, cwd=tmp_path, env=environ, stderr=subprocess.PIPE, start_new_session=True
    )
    wait_until("compose is at work", lambda: len(alive(mark)) >= 4)
    us.send_signal(number)
    us.communicate(timeout=60)
    assert us.returncode == (130 if number == signal.SIGINT else -number)
    wait_until("all have gone", lambda: alive(mark) == [])


# -- crontabs and units ----------------------------------------------------------------------------

JOB = systemd.Job("shop", "/srv/shop", ("python", "-m", "safe_compose"), {"A": "b"}, ("03:05",))
NOT_IN_A_LINE = (
    "/srv/a\n* * * * * id",
    "/srv/a\rb",
    "/srv/\x1b[2J",
    "/srv/\u202eb",
    "/srv/\udcff",
    "/srv/\u2028x",
    "/srv/\x00",
)


@pytest.mark.parametrize("name", NOT_IN_A_LINE)
@pytest.mark.parametrize("write", [systemd.make_cron_lines, systemd.make_units])
def test_what_would_be_a_second_line_is_refused(
    name: str, write: Callable[[systemd.Job], object]
) -> None:
    for job in (
        JOB._replace(folder=name), JOB._replace(project=name), JOB._replace(argv=("python", f"--file={name}")),
        JOB._replace(environ={"A": name}),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="cannot hold"):
            write(job)


def test_a_name_that_would_take_the_next_line_of_a_unit_in_is_refused() -> None:
    for name in ("/srv/a\\", "/srv/a ", " /srv/a"):
        with pytest.raises(UsageError, match="cannot hold"):
            systemd.make_units(JOB._replace(folder=name))


def as_cron_reads_it(command: str, *, collapses: bool) -> str:
    """The command that a cron hands to the shell (do_command.c): of Vixie, which collapses two
    backslashes, or of others.
    """
    read, escaped = "", False
    for character in command:
        if escaped and (character == "%" or (collapses and character == "\\")):
            read = read[:-1]
        elif character == "%" and not escaped:
            break
        read += character
        escaped = character == "\\" and not escaped
    return read


@pytest.mark.parametrize("collapses", [True, False])
@pytest.mark.parametrize(
    "name", ["100%", "a\\%b", "a\\\\%", "%", "it's", "$(id)", "`id`", "a b", "\\", "\\\\", "'\\%'"]
)
def test_a_line_of_a_crontab_is_read_back_by_every_cron(
    name: str, collapses: bool, tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    job = JOB._replace(
        folder=str(folder), argv=("sh", "-c", 'printf "%s|%s" "$PWD" "$A"'), environ={"A": name}
    )
    [line] = systemd.make_cron_lines(job)
    assert "\n" not in line and line.startswith("5 3 * * * ")
    command = as_cron_reads_it(line.split(" ", 5)[5], collapses=collapses)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.stdout == f"{folder}|{name}", (line, command, done.stderr)


def test_a_line_that_cron_would_cut_is_refused() -> None:
    with pytest.raises(UsageError, match="holds 900 bytes"):
        systemd.make_cron_lines(JOB._replace(folder="/srv/" + "x" * 900))


@pytest.mark.thorough
@pytest.mark.engine
def test_schedule_prints_nothing_for_a_folder_whose_name_is_not_shown(
    safe_compose: SafeCompose, tmp_path: Path, lab: None
) -> None:
    """With a line separator of Unicode: compose itself refuses a folder with a newline."""
    folder = tmp_path / "a\u2028* * * * * id"
    folder.mkdir()
    (folder / "compose.yaml").write_text(
        "name: planted\nservices: {a: {image: busybox, volumes: ['data:/data']}}\nvolumes: {data: }\n"
    )
    for words in (("cron",), ("install", "--dry-run", "--dir", str(tmp_path / "units"))):
        answer = safe_compose("schedule", *words, cwd=folder)
        assert answer.returncode == 64 and answer.stdout == "", answer
        assert "cannot hold" in answer.stderr and "\u2028" not in answer.stderr


# -- places that others can change -----------------------------------------------------------------

OTHER = 12345
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def _anybody(folder: Path) -> Path:
    folder.chmod(0o777)
    return folder


def _anybody_but_sticky(folder: Path) -> Path:
    folder.chmod(0o1777)
    return folder


def _a_group(folder: Path) -> Path:
    os.chown(folder, -1, OTHER)
    folder.chmod(0o775)
    return folder


def _somebody_else(folder: Path) -> Path:
    os.chown(folder, OTHER, OTHER)
    return folder


def _below_anybodys(folder: Path) -> Path:
    below = folder / "ours"
    below.mkdir()
    folder.chmod(0o777)
    return below


def _below_somebody_elses(folder: Path) -> Path:
    below = folder / "ours" / "deep"
    below.mkdir(parents=True)
    os.chown(folder, OTHER, OTHER)
    return below


def _link_into_anybodys(folder: Path) -> Path:
    folder.chmod(0o777)
    (folder / "in").mkdir()
    link = folder.with_name("link")
    link.symlink_to(folder / "in")
    return link


def _somebody_elses_link(folder: Path) -> Path:
    folder.chmod(0o1777)
    target = folder.with_name("target")
    target.mkdir()
    link = folder / "link"
    link.symlink_to(target)
    os.chown(link, OTHER, OTHER, follow_symlinks=False)
    return link


def _missing_below_sticky(folder: Path) -> Path:
    folder.chmod(0o1777)
    return folder / "not" / "made"


UNSAFE: Sequence[Callable[[Path], Path]] = (
    _anybody, _anybody_but_sticky, _a_group, _somebody_else, _below_anybodys, _below_somebody_elses,
    _link_into_anybodys, _somebody_elses_link, _missing_below_sticky,
)  # fmt: skip


@only_root
@pytest.mark.parametrize("plant", UNSAFE)
def test_shims_are_not_put_where_others_can_change_them(
    plant: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(0o755)
    assert trusted_file.explain_unsafe(folder / "docker") is None
    place = plant(folder)
    before = sorted(tmp_path.rglob("*"))
    assert trusted_file.explain_unsafe(place / "docker") is not None
    places = InstallPlaces(tmp_path, {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})
    with pytest.raises(Refused, match="no safe place"):
        plan(["shims"], place, places)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_ours_in_a_sticky_one_and_a_group_of_our_own_are_safe(tmp_path: Path) -> None:
    below = tmp_path / "sticky" / "ours"
    below.mkdir(parents=True)
    below.parent.chmod(0o1777)
    assert trusted_file.explain_unsafe(below / "docker") is None
    below.chmod(0o775)  # where each user has a group alone: the umask 002 of many systems
    mine = pwd.getpwuid(os.geteuid())
    alone = (
        grp.getgrgid(mine.pw_gid).gr_name == mine.pw_name and not grp.getgrgid(mine.pw_gid).gr_mem
    )
    assert (trusted_file.explain_unsafe(below / "docker") is None) is (alone and mine.pw_gid != 0)
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "symbolic links" in str(trusted_file.explain_unsafe(tmp_path / "a" / "docker"))


@only_root
@pytest.mark.parametrize(
    "plant", ["pipe", "hard link", "of another user", "link to another user's"]
)
def test_no_lines_are_written_into_an_rc_file_that_is_not_ours(plant: str, tmp_path: Path) -> None:
    rc = tmp_path / ".bashrc"
    other = tmp_path / "other"
    other.write_text("# theirs\n")
    if plant == "pipe":
        os.mkfifo(rc)
    elif plant == "hard link":
        rc.hardlink_to(other)
    elif plant == "of another user":
        rc.write_text("")
        os.chown(rc, OTHER, OTHER)
    else:
        os.chown(other, OTHER, OTHER)
        rc.symlink_to(other)
    with pytest.raises(Refused):
        plan(["rc"], None, InstallPlaces(tmp_path, {"PATH": "/usr/bin:/bin"}))
    assert other.read_text() == "# theirs\n"


@only_root
def test_doctor_names_shims_that_others_can_change(tmp_path: Path) -> None:
    folder = tmp_path / "shims"
    folder.mkdir(0o755)
    known = [InstallChange("shims", "file", str(folder / "docker"), "#!/bin/sh\n")]
    assert routes._list_unsafe(known) == []
    folder.chmod(0o777)
    [(path, why)] = routes._list_unsafe(known)
    assert path == str(folder / "docker") and "others may write" in why


@only_root
def test_a_record_that_others_can_change_takes_nothing_away(tmp_path: Path) -> None:
    places = InstallPlaces(tmp_path, {"PATH": "/usr/bin:/bin"})
    victim = tmp_path / "victim"
    victim.write_text("words")
    change = InstallChange("shims", "file", str(victim), "words")
    places.record.parent.mkdir(parents=True)
    places.record.write_text(json.dumps({"version": 1, "folders": [], "changes": [asdict(change)]}))
    os.chown(places.record, OTHER, OTHER)
    with pytest.raises(Refused, match="not trusted"):
        apply.uninstall(places)
    assert victim.exists()


# -- root on behalf of the user who called sudo ----------------------------------------------------

CALLER = next((user for user in pwd.getpwall() if user.pw_uid != 0), None)


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[tuple[pwd.struct_passwd, Path]]:
    """A user who calls sudo, and a folder of that user's that everybody can reach."""
    if os.geteuid() != 0 or CALLER is None:
        pytest.skip("only root acts for another user")
    folder = Path(tempfile.mkdtemp(prefix="sc-caller-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "theirs").mkdir()
    os.chown(folder / "theirs", CALLER.pw_uid, CALLER.pw_gid)
    try:
        yield CALLER, folder
    finally:
        shutil.rmtree(folder)


def as_caller(user: pwd.struct_passwd) -> files.Access:
    return files.Access(owner=(user.pw_uid, user.pw_gid), acts=True)


def test_a_store_named_by_a_user_is_made_with_that_users_rights(
    caller: tuple[pwd.struct_passwd, Path],
) -> None:
    user, folder = caller
    with pytest.raises(OperationFailed, match="permission denied"):
        StoreFolder(folder / "of root" / "store", as_caller(user)).ensure()
    assert [p.name for p in folder.iterdir()] == ["theirs"]
    store = folder / "theirs" / "store"
    StoreFolder(store, as_caller(user)).ensure()
    assert {p.lstat().st_uid for p in (store, *store.rglob("*"))} == {user.pw_uid}
    assert os.geteuid() == 0 and not os.path.lexists(folder / "probe")
    (folder / "probe").touch()  # and afterwards the rights are root's again
    assert (folder / "probe").stat().st_uid == 0


@pytest.mark.parametrize("part", ["", "locks", "store.json"])
def test_a_link_in_that_store_leads_root_nowhere_else(
    part: str, caller: tuple[pwd.struct_passwd, Path]
) -> None:
    user, folder = caller
    store, target = folder / "theirs" / "store", folder / "target"
    target.mkdir(0o755)
    (target / "victim").write_text("words")
    if part == "":
        store.symlink_to(target)
    else:
        StoreFolder(store, as_caller(user)).ensure()
        shutil.rmtree(store / part, ignore_errors=True)
        (store / part).unlink(missing_ok=True)
        (store / part).symlink_to(target / "victim" if "." in part else target)
    with suppress(SafeComposeError):
        place = StoreFolder(store, as_caller(user))
        place.ensure()
        with place.lock("engine", "shop"):
            pass
    with pytest.raises(OSError):
        files.write(store / (part or ".") / "new", b"", as_caller(user))
    assert [p.name for p in target.iterdir()] == ["victim"] and (
        target / "victim"
    ).read_text() == "words"


def test_the_settings_of_a_sudo_caller_act_with_that_users_rights(
    caller: tuple[pwd.struct_passwd, Path],
) -> None:
    user, folder = caller
    found = load.load(None, {"SUDO_USER": user.pw_name, "HOME": "/root"}, uid=0)
    assert found.access.owner == (user.pw_uid, user.pw_gid) and found.access.acts
    named = load.load(
        None, {"SUDO_USER": user.pw_name, "HOME": "/root", "SAFE_COMPOSE_HOME": str(folder)}, uid=0
    )
    assert not named.access.acts  # whoever may hand root a variable named that one
