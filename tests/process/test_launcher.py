"""The launcher, and the script in its place where there was no compiler: docker sees exactly what it
would see without us, and Python is asked about everything that is not plainly harmless.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from safe_compose.fastpath import first_look, launch
from testing.launcher import make_entry, make_launcher, make_script

PACKAGE = str(Path(first_look.__file__).parents[2])
NAMES = ("docker", "docker-compose")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `docker` and a `docker-compose` that are binaries."""
    folder = tmp_path_factory.mktemp("native")
    source = Path(__file__).parents[2] / "testing" / "recorder.c"
    subprocess.run(["cc", "-O1", "-o", folder / "docker", source], check=True)
    shutil.copy(folder / "docker", folder / "docker-compose")
    return folder


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(0o755)
    return path


def link_both(folder: Path, program: Path) -> Path:
    """A folder with what `--install shims` makes of a program."""
    for name in NAMES:
        (folder / name).symlink_to(program)
    return folder


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shims of an installation without a compiler."""
    program = make_script(tmp_path_factory.mktemp("script") / "safe-compose")
    return link_both(tmp_path_factory.mktemp("shims"), program)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shims of one with a compiler."""
    folder = tmp_path_factory.mktemp("launcher with blank")
    make_entry(folder)
    return link_both(tmp_path_factory.mktemp("shims"), make_launcher(folder))


@pytest.fixture(params=["scripts", "programs"])
def shims(request: pytest.FixtureRequest) -> Path:
    """Either."""
    folder: Path = request.getfixturevalue(request.param)
    return folder


Words = Sequence[str | bytes]


def seen(
    program: Path, words: Words, environ: Mapping[bytes, bytes], cwd: Path | None = None
) -> list[bytes]:
    """What the recorder tells; its process, group and session must be those of the program that was
    started.
    """
    with subprocess.Popen(
        [program, *words],
        env=environ,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        umask=0o027,
        process_group=0,
    ) as child:
        out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, b"")
    numbers = f"pid:{child.pid} group:{child.pid} session:{os.getsid(0)}\n".encode()
    assert numbers in out
    return out.replace(numbers, b"").split(b"\n")


WORD = st.binary(max_size=12).filter(lambda word: b"\0" not in word)
NAME = st.binary(min_size=1, max_size=8).filter(lambda name: b"\0" not in name and b"=" not in name)
KEPT = {b"PATH", b"HOME", b"EXIT", b"LD_PRELOAD", b"LD_LIBRARY_PATH"}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(WORD, max_size=4).filter(
        lambda words: not {os.fsdecode(w) for w in words} & {*first_look.SUSPECT, first_look.PROBE}
    ),
    st.dictionaries(NAME.filter(lambda name: name not in KEPT), WORD, max_size=5),
)
@example([b"ps", "ж".encode("koi8-r")], {b"LANG": b"ru_RU.KOI8-R", b"LC_ALL": b"C"})
@example(
    [b"compose", b"ps"],
    {b"a.b": b"1", b"BASH_FUNC_f%%": b"() { :; }", b"PYTHONUTF8": b"0", b"SAFE_COMPOSE": b"off"},
)
@example([b"__complete", b""], {b"SAFE_COMPOSE_DOCKER": b"", b"LANG": b"C"})
def test_a_binary_docker_sees_what_it_would_see_without_us(
    native: Path, shims: Path, words: list[bytes], more: dict[bytes, bytes]
) -> None:
    environ = {b"PATH": os.fsencode(f"{shims}:{native}"), **more}
    for name in ("docker", "docker-compose"):
        assert seen(shims / name, words, environ) == seen(native / name, words, environ)


def places(folder: Path, native: Path, programs: Path) -> dict[str, str]:
    """Kinds of PATH -> their text; in each the binary is what docker's user would get."""
    other = folder / "other"
    program = (programs / "docker").resolve()
    for name in (
        "linked",
        "dangling",
        "folder",
        "pipe",
        "plain",
        "ours",
        "empty",
        "program",
        "hard",
        "ours by link",
        "old",
        "not ours",
    ):
        (other / name).mkdir(parents=True)
    (other / "linked" / "docker").symlink_to(native / "docker")
    (other / "dangling" / "docker").symlink_to(folder / "nowhere")
    (other / "folder" / "docker").mkdir()
    os.mkfifo(other / "pipe" / "docker")
    (other / "plain" / "docker").write_text("no program")
    put(other / "ours" / "docker", "#!/bin/sh\n# safe_compose.shim\nexit 1\n")
    put(other / "empty" / "docker", "")
    put(other / "program" / "docker", program.read_bytes())
    (other / "hard" / "docker").hardlink_to(program)
    (other / "ours by link" / "docker").symlink_to(program)
    old = first_look.ELF + b"compiled by an earlier version".ljust(20_000, b"\0")
    put(other / "old" / "docker", old + first_look.MARKER)
    big = (native / "docker").read_bytes().ljust(first_look.LARGEST + 1, b"\0") + first_look.MARKER
    put(other / "not ours" / "docker", big)
    (other / "file").write_text("a file")
    (folder / "docker").symlink_to(native / "docker")
    before = {path.name: f"{path}:{native}" for path in other.iterdir()}
    odd = {
        "empty": f":{native}",
        "relative": f"other/linked:{native}",
        "slash": f"{native}/",
        "dots": f"{native}/../{native.name}",
        "dot": f"{native}/.",
        "long": ":".join(["/no" * 30] * 1000 + [str(native)]),
        "longest": f"/{'n' * 5000}:{native}",
    }
    return {**before, **odd, "twice": f"{native}:{native}", "double": f"/{native}"}


def test_whatever_is_unusual_on_path_is_left_to_python(
    native: Path, scripts: Path, programs: Path, tmp_path: Path
) -> None:
    """The launcher and Python become the same docker."""
    for kind, path in places(tmp_path, native, programs).items():
        said = []
        for shims in (programs, scripts):
            environ = {b"PATH": os.fsencode(f"{shims}:{path}")}
            lines = seen(shims / "docker", ["ps"], environ, tmp_path)
            said.append([line for line in lines if not line.startswith(b"environ:")])
        assert said[0] == said[1], kind


def test_a_repeated_variable_stays_repeated(native: Path, shims: Path) -> None:
    """Go takes the first of two variables of one name, a dict would keep the last. Only exec itself
    can make two.
    """
    start = (
        f"import os, sys; sys.path.insert(0, {PACKAGE!r}); from safe_compose.fastpath.launch import"
        " Variables; os.execve(sys.argv[1], [sys.argv[1], 'ps'], Variables([(b'A', b'1'),"
        " (b'PATH', os.fsencode(sys.argv[2])), (b'A', b'2')]))"
    )
    command = [sys.executable, "-c", start, shims / "docker", str(native)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert b"environ:A=1\0PATH=" + os.fsencode(native) + b"\0A=2\0\n" in done.stdout


def test_every_exit_code_of_docker_is_ours(native: Path, shims: Path) -> None:
    for code in range(256):
        environ = {"PATH": f"{shims}:{native}", "EXIT": str(code)}
        assert (
            subprocess.run(
                [shims / "docker", "ps"], env=environ, stdout=subprocess.DEVNULL, timeout=60
            ).returncode
            == code
        )


IGNORED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@pytest.mark.parametrize("ignored", [(), IGNORED[:1], IGNORED[1:2], IGNORED], ids=len)
@pytest.mark.parametrize("words", [["ps"], ["compose", "up"]], ids=["harmless", "asks Python"])
def test_docker_finds_every_signal_as_it_came(
    native: Path, programs: Path, words: list[str], ignored: tuple[signal.Signals, ...]
) -> None:
    """Python ignores two of them from its start on; the launcher tells which were ignored before."""
    start = (
        "import os, signal, sys; [signal.signal(n, signal.SIG_DFL) for n in (13, 25)];"
        f" [signal.signal(n, signal.SIG_IGN) for n in {[int(n) for n in ignored]}];"
        " os.execv(sys.argv[1], sys.argv[1:])"
    )
    said = []
    for folder in (native, programs):
        command = [sys.executable, "-c", start, folder / "docker", *words]
        done = subprocess.run(
            command, env={"PATH": str(native)}, capture_output=True, timeout=60, check=True
        )
        said.append([line for line in done.stdout.split(b"\n") if line.startswith(b"Sig")])
    assert said[0] == said[1]


def test_switched_off_is_said_once(native: Path, shims: Path, tmp_path: Path) -> None:
    """Although the script starts again with the packages that the journal needs."""
    environ = {"PATH": f"{shims}:{native}", "HOME": str(tmp_path), "SAFE_COMPOSE": "off"}
    done = subprocess.run(
        [shims / "docker", "volume", "rm", "x"],
        env=environ,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(
        b"argv:" + os.fsencode(native / "docker") + b"\0volume\0rm\0x\0\n"
    )
    assert done.stderr == b"safe-compose: SAFE_COMPOSE=off, docker runs unguarded\n"


# -- the launcher ----------------------------------------------------------------------------------


class Stand(NamedTuple):
    """A launcher whose Python is a program that says what it was given."""

    folder: Path
    python: Path

    @property
    def entry(self) -> Path:
        return self.folder / launch.ENTRY

    def program(self, name: str = "docker") -> Path:
        return self.folder / "links" / name

    def woken(
        self, words: Words, path: str | bytes, *, name: str = "docker", **environ: str
    ) -> bool:
        """Whether it started Python; then all words must have come along."""
        given = [os.fsencode(word) for word in words]
        listed = self.started(given, path, name=name, **environ)
        woken = listed[0] == os.fsencode(self.python)
        program = os.fsencode(self.program(name))
        front = [os.fsencode(self.entry), launch.LAUNCHED.encode(), program, name.encode(), b"-"]
        alias = name == "safe-compose" and given[:1] == [b"docker"]
        assert listed[1:] == ([*front, *given] if woken else given[alias:])
        return woken

    def started(
        self, words: Words, path: str | bytes, *, name: str = "docker", **environ: str
    ) -> list[bytes]:
        """The words of the program that it became."""
        variables = {"PATH": path, **environ}
        encoded = {os.fsencode(key): os.fsencode(value) for key, value in variables.items()}
        lines = b"\n".join(seen(self.program(name), words, encoded))
        said, _, _ = lines.partition(b"\nenviron:")
        return said.removeprefix(b"argv:").split(b"\0")[:-1]


def make_stand(folder: Path, native: Path, *flags: str) -> Stand:
    python = put(folder / "a python", (native / "docker").read_bytes())
    stand = Stand(folder, python)
    put(stand.entry, os.fsencode(f"#!{python}\n# safe_compose.shim\n"))
    program = make_launcher(folder, *flags)
    (folder / "links").mkdir()
    for name in (*NAMES, "safe-compose", "podman"):
        stand.program(name).symlink_to(program)
    return stand


@pytest.fixture(scope="module")
def stand(native: Path, tmp_path_factory: pytest.TempPathFactory) -> Stand:
    return make_stand(tmp_path_factory.mktemp('sta \\ "nd" ж\udcff??/'), native)


OWN_NAME = sorted(
    {word for words in (*launch.HELP, *launch.VERSION) for word in words} | {launch.START}
)


def near_misses() -> list[str]:
    waking = sorted({*first_look.SUSPECT, *first_look.OWN_FLAGS, first_look.PROBE})
    changed = (
        w
        for word in waking
        for w in (
            word[:-1],
            f"{word}x",
            word.upper(),
            f"-{word}",
            f"{word}=1",
            f"{word}=",
            f" {word}",
            f"{word}\n",
        )
    )
    first = [*first_look.PLUMBING, *launch.OWN_VERBS, *OWN_NAME, "docker-compose", "docker", "ps"]
    return [*waking, *waking, *changed, *first, "--", "=", "", "-", "\n", "down\nrm"]


def wakes(words: Sequence[str], name: str) -> bool:
    """What Python decides by the words alone (`shim.main`)."""
    own = name == "safe-compose"
    alias = own and words[:1] == ["docker"]
    words = words[1:] if alias else words
    if own and is_ours(words, alias=alias):
        return True
    return words[:1] not in [[word] for word in first_look.PLUMBING] and (
        not first_look.SUSPECT.isdisjoint(words)
        or first_look.PROBE in words
        or first_look.own_flags(words)
    )


def is_ours(words: Sequence[str], *, alias: bool) -> bool:
    """Whether words by our own name may be for us."""
    first = words[0] if words else ""
    if tuple(words) in (*launch.HELP, *launch.VERSION):
        return not alias
    if first in launch.COMPLETE:
        own = {*launch.OWN_VERBS, launch.START, "docker-compose"}
        return not alias and len(words) > 1 and (len(words) == 2 or words[1] in own)
    if first == launch.START:
        for word in words[1:]:
            if word.startswith(launch.START_VALUES):
                return not alias
            if not word.startswith("--"):
                return False
        return not alias
    return first not in first_look.PLUMBING and (
        first in {*launch.OWN_VERBS, "help", "docker-compose"}
        or not first_look.is_known_to_docker(first)
    )


WORD_LISTS = st.lists(st.one_of(st.sampled_from(near_misses()), WORD.map(os.fsdecode)), max_size=3)


@settings(max_examples=150, deadline=None)
@given(WORD_LISTS, st.sampled_from([*NAMES, "safe-compose"]))
@example(["a"] * 100_000, "docker")
@example(["a"] * 100_000 + ["rm"], "docker")
@example(["__complete", "compose", "down", ""], "safe-compose")
def test_python_is_started_for_the_words_that_it_may_hold_back(
    native: Path, stand: Stand, words: list[str], name: str
) -> None:
    assert stand.woken(words, str(native), name=name) == wakes(words, name)


SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.mark.thorough
def test_no_word_and_no_path_confuses_it(
    native: Path, programs: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """With AddressSanitizer and UBSan, which end the program at any fault."""
    stand = make_stand(tmp_path_factory.mktemp("sanitized"), native, *SANITIZED)
    paths = list(places(tmp_path, native, programs).values())

    @settings(max_examples=200, deadline=None)
    @given(WORD_LISTS, st.sampled_from([*NAMES, "safe-compose"]), st.sampled_from(paths))
    def compare(words: list[str], name: str, path: str) -> None:
        woken = stand.woken(words, path, name=name)
        assert woken or not wakes(words, name)

    compare()


def test_every_word_of_the_tables_starts_python(native: Path, stand: Stand) -> None:
    for word in {
        *first_look.SUSPECT,
        *first_look.OWN_FLAGS,
        first_look.PROBE,
        *(f"{flag}=x" for flag in first_look.OWN_FLAGS),
    }:
        assert stand.woken(["ps", word], str(native)), word
    for verb in launch.OWN_VERBS:
        assert stand.woken([verb], str(native), name="safe-compose"), verb
        assert not stand.woken([verb], str(native)), verb
    assert stand.woken(["ps"], str(native), name="podman")


def test_it_finds_the_docker_that_python_finds_on_any_path(
    native: Path, programs: Path, stand: Stand, tmp_path: Path
) -> None:
    kinds = [
        *places(tmp_path, native, programs).values(),
        "/nowhere",
        "",
        str(native),
        str(stand.program().parent),
    ]
    entries = sorted({path.removesuffix(f":{native}") for path in kinds})
    paths = [
        *kinds,
        *(
            f"{first}:{second}:{native}"
            for first in entries
            for second in entries
            if len(first + second) < 4000
        ),
    ]
    passed = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(stand.program())])
        patch.chdir(tmp_path)
        patch.delenv("SAFE_COMPOSE_DOCKER", raising=False)
        for path in paths:
            started = stand.started(["ps"], path)
            if started[0] == os.fsencode(stand.python):
                continue
            patch.setenv("PATH", path)
            assert started == [os.fsencode(launch.find_docker()), b"ps"], path
            passed += 1
    assert 50 < passed < len(paths) - 50


def test_python_is_started_without_a_path_and_for_a_chosen_docker(
    native: Path, stand: Stand
) -> None:
    without = seen(stand.program(), ["ps"], {})
    assert without[0].startswith(b"argv:" + os.fsencode(stand.python))
    assert stand.woken(["ps"], str(native), SAFE_COMPOSE_DOCKER="/x")
    assert not stand.woken(["ps"], str(native), SAFE_COMPOSE_DOCKER="")


def test_the_compose_plugin_is_always_left_to_python(native: Path, stand: Stand) -> None:
    plugin = stand.folder / "cli-plugins" / "docker-compose"
    plugin.parent.mkdir()
    plugin.symlink_to(stand.folder / "safe-compose")
    lines = seen(plugin, ["compose", "ps"], {b"PATH": os.fsencode(native)})
    assert lines[0].startswith(b"argv:" + os.fsencode(stand.python))
    assert stand.woken(["ps"], str(native), name="docker-compose", **{launch.ORIGIN: "docker"})
    assert not stand.woken(["ps"], str(native), **{launch.ORIGIN: "docker"})


INTERPRETERS = {
    "plain": "#!{}\n",
    "pip, with a blank": "#!/bin/sh\n'''exec' \"{}\" \"$0\" \"$@\"\n' '''\n",
    "pip, long": "#!/bin/sh\n'''exec' {} \"$0\" \"$@\"\n' '''\n",
    "uv": "#!/bin/sh\n'''exec' '{}' \"$0\" \"$@\"\n' '''\n",
}


@pytest.mark.parametrize("form", INTERPRETERS)
def test_the_interpreter_of_every_installer_is_started_without_a_shell(
    native: Path, tmp_path: Path, form: str
) -> None:
    """A shell would drop variables whose names it does not allow."""
    blank = "" if form == "pip, long" else "with blank "
    folder = tmp_path / f"{blank}{'x' * 150}"
    folder.mkdir()
    python = put(folder / "python", (native / "docker").read_bytes())
    entry = put(folder / launch.ENTRY, INTERPRETERS[form].format(python))
    environ = {b"PATH": b"/nowhere", b"a.b": b"1", b"BASH_FUNC_x%%": b"() { :; }"}
    program = make_launcher(folder)
    argv, variables, *_ = seen(program, ["volume", "rm", "x"], environ)
    words = [launch.LAUNCHED, str(program), "safe-compose", "-", "volume", "rm", "x"]
    assert argv == b"argv:" + "\0".join([str(python), str(entry), *words, ""]).encode()
    assert variables == b"environ:PATH=/nowhere\0a.b=1\0BASH_FUNC_x%%=() { :; }\0"


def test_a_script_that_names_more_than_its_interpreter_is_left_to_the_kernel(
    native: Path, tmp_path: Path
) -> None:
    python = put(tmp_path / "python", (native / "docker").read_bytes())
    program = make_launcher(tmp_path)
    for first in (f"{python} -s", f" {python}"):
        entry = put(tmp_path / launch.ENTRY, f"#!{first}\n")
        argv = seen(program, ["list"], {})[0]
        words = [*first.split(), str(entry), launch.LAUNCHED, str(program)]
        assert argv.startswith(b"argv:" + "\0".join([*words, ""]).encode())


def damage_by_shell(stand: Stand) -> None:
    stand.entry.write_bytes(os.fsencode(INTERPRETERS["uv"].format(stand.python)))
    stand.python.unlink()


def damage_by_folder(stand: Stand) -> None:
    stand.entry.unlink()
    stand.entry.mkdir()


DAMAGE: dict[str, Callable[[Stand], object]] = {
    "no script": lambda stand: stand.entry.unlink(),
    "an empty script": lambda stand: stand.entry.write_text(""),
    "no interpreter": lambda stand: stand.python.unlink(),
    "no interpreter, by the shell": damage_by_shell,
    "a folder": damage_by_folder,
    "an interpreter of no machine": lambda stand: stand.python.write_bytes(b"\x7fELF of none"),
}
HELD = (
    ["volume", "rm", "x"],
    ["compose", "down", "-v"],
    ["system", "prune", "--volumes"],
    ["desktop", "reset"],
    ["--non-interactive", "--backup-first", "volume", "rm", "x"],
)
PASSED = (
    ["compose", "down"],
    ["stop", "x"],
    ["run", "--rm", "-v", "a:/b", "x", "rm"],
)


@pytest.mark.parametrize("damage", DAMAGE)
def test_without_its_python_it_runs_what_plainly_deletes_nothing(
    native: Path, tmp_path: Path, damage: str
) -> None:
    (tmp_path / "damaged").mkdir()
    stand = make_stand(tmp_path / "damaged", native)
    DAMAGE[damage](stand)

    def run(name: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [stand.program(name), *words],
            env={"PATH": str(native)},
            capture_output=True,
            timeout=60,
        )

    for name in ("docker", "safe-compose"):
        for words in HELD:
            done = run(name, *words)
            assert (done.returncode, done.stdout) == (127, b""), words
        first, step, last = done.stderr.splitlines()
        assert first.startswith(b"safe-compose: " + os.fsencode(tmp_path)), first
        assert b" does not start: " in first and b"Success" not in first
        assert step.startswith(b"  next: ") and last == b"safe-compose: docker was not run (127)"
        for words in PASSED:
            done = run(name, *words)
            assert (done.returncode, done.stderr) == (0, b""), words
    assert run("safe-compose", "list").returncode == 127
    assert run("docker-compose", "down", "-v").returncode == 127


def test_a_damaged_package_is_127_and_says_what_is_wrong(native: Path, tmp_path: Path) -> None:
    folder, site = tmp_path / "half", tmp_path / "site"
    folder.mkdir()
    put(site / "safe_compose" / "__init__.py", "")
    put(site / "safe_compose" / "shim.py", "def main(:\n")
    make_entry(folder)
    environ = {"PATH": str(native), "PYTHONPATH": str(site)}
    argv = [make_launcher(folder), "volume", "rm", "x"]
    done = subprocess.run(argv, env=environ, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (127, b"")
    assert b"SyntaxError" in done.stderr
    assert done.stderr.endswith(b"safe-compose: docker was not run (127)\n")


@pytest.mark.parametrize("name", [*NAMES, "safe-compose"])
def test_who_types_the_launchers_own_word_gains_nothing(
    native: Path, scripts: Path, programs: Path, name: str
) -> None:
    environ = {"PATH": str(native), "DOCKER_HOST": "unix:///nonexistent.sock"}
    front = [launch.LAUNCHED, "/x/docker", "docker", "-"]
    for folder in (programs, scripts):
        program = (folder / "docker").resolve() if name == "safe-compose" else folder / name
        for times in (1, 2):
            argv = [program, *(front * times), "compose", "down", "-v"]
            done = subprocess.run(argv, env=environ, capture_output=True, timeout=60)
            if b"docker was not run" in done.stderr:
                assert (done.returncode, done.stdout) == (69, b"")
            else:  # to docker the word is an unknown command, and what follows means nothing
                given = b"\0" + b"\0".join(os.fsencode(word) for word in argv[1:]) + b"\0\n"
                assert given in done.stdout


def test_a_docker_that_does_not_start_is_left_to_python(stand: Stand, tmp_path: Path) -> None:
    put(tmp_path / "docker", first_look.ELF + b" of no machine")
    assert stand.woken(["ps"], str(tmp_path))


def test_it_runs_with_closed_streams_and_without_any_word(native: Path, programs: Path) -> None:
    source = "import os, sys; [os.close(n) for n in (0, 2)]; os.execv(sys.argv[1], sys.argv[1:])"
    for words in ([], ["ps"], ["compose", "up"]):
        said = []
        for folder in (native, programs):
            argv = [sys.executable, "-c", source, folder / "docker", *words]
            done = subprocess.run(
                argv, env={"PATH": str(native)}, stdout=subprocess.PIPE, timeout=60, check=True
            )
            lines = done.stdout.split(b"\n")
            said.append([line for line in lines if not line.startswith((b"pid:", b"argv:"))])
        assert said[0] == said[1]


def test_the_program_hands_on_an_environment_that_no_dict_could_hold(
    native: Path, programs: Path, tmp_path: Path
) -> None:
    source = tmp_path / "start.c"
    source.write_text(
        '#include <unistd.h>\nint main(int n, char **words) { (void)n; char *odd[] = {"=C:=x",'
        ' "alone", "A=1", words[2], "A=2", "", 0};\nreturn execve(words[1], words + 1, odd); }\n'
    )
    subprocess.run(["cc", "-o", tmp_path / "start", source], check=True)
    for folder in (native, programs):
        command = [tmp_path / "start", folder / "docker", f"PATH={native}"]
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)
        assert (
            b"environ:=C:=x\0alone\0A=1\0PATH=" + os.fsencode(native) + b"\0A=2\0\0\n"
            in done.stdout
        )
