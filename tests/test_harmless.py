"""The first look of the programs on PATH: a docker that is a binary sees exactly what it would see without us."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lab.plain import plain_program, plain_python
from safe_compose import harmless
from safe_compose.ways import native as compiled
from safe_compose.ways import texts

PROGRAM = plain_program()
PACKAGE = str(Path(harmless.__file__).parents[1])


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `docker` and a `docker-compose` that are binaries."""
    folder = tmp_path_factory.mktemp("native")
    source = Path(__file__).parent / "lab" / "recorder.c"
    subprocess.run(["cc", "-O1", "-o", folder / "docker", source], check=True)
    shutil.copy(folder / "docker", folder / "docker-compose")
    return folder


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `--install shims` writes where there is no compiler."""
    folder = tmp_path_factory.mktemp("scripts")
    for name in ("docker", "docker-compose"):
        put(folder / name, texts.script(str(plain_python()), PACKAGE, sys.executable, plugin=False))
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, scripts: Path) -> Path:
    """A folder with what it writes where there is one."""
    folder = tmp_path_factory.mktemp("programs")
    closer = {name: str(put(folder / "closer" / name, (scripts / name).read_bytes())) for name in ("docker", "docker-compose")}
    for name, content in compiled.programs(closer, str(plain_python()), os.environ).items():
        put(folder / name, content)
    return folder


@pytest.fixture(params=["scripts", "programs"])
def shims(request: pytest.FixtureRequest) -> Path:
    """Either."""
    folder: Path = request.getfixturevalue(request.param)
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["docker", "docker-compose"]
    return folder


Words = Sequence[str | bytes]


def seen(program: Path, words: Words, environ: Mapping[bytes, bytes], cwd: Path | None = None) -> list[bytes]:
    """What the recorder tells; its process, group and session must be those of the program that was started."""
    with subprocess.Popen(
        [program, *words], env=environ, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, umask=0o027, process_group=0
    ) as child:
        out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, b"")
    numbers = f"pid:{child.pid} group:{child.pid} session:{os.getsid(0)}\n".encode()
    assert numbers in out
    return out.replace(numbers, b"").split(b"\n")


WORD = st.binary(max_size=12).filter(lambda word: b"\0" not in word)
NAME = st.binary(min_size=1, max_size=8).filter(lambda name: b"\0" not in name and b"=" not in name)
KEPT = {b"PATH", b"HOME", b"EXIT", b"LD_PRELOAD", b"LD_LIBRARY_PATH"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(WORD, max_size=4).filter(lambda words: not {os.fsdecode(w) for w in words} & {*harmless.SUSPECT, harmless.PROBE}),
    st.dictionaries(NAME.filter(lambda name: name not in KEPT), WORD, max_size=5),
)
@example([b"ps", "ж".encode("koi8-r")], {b"LANG": b"ru_RU.KOI8-R", b"LC_ALL": b"C"})
@example([b"compose", b"ps"], {b"a.b": b"1", b"BASH_FUNC_f%%": b"() { :; }", b"PYTHONUTF8": b"0", b"SAFE_COMPOSE": b"off"})
@example([b"__complete", b""], {b"SAFE_COMPOSE_DOCKER": b"", b"LANG": b"C"})
def test_a_binary_docker_sees_what_it_would_see_without_us(
    native: Path, shims: Path, words: list[bytes], more: dict[bytes, bytes]
) -> None:
    environ = {b"PATH": os.fsencode(f"{shims}:{native}"), **more}
    for name in ("docker", "docker-compose"):
        assert seen(shims / name, words, environ) == seen(native / name, words, environ)


def modules_at_exec(shims: Path, words: Sequence[str], environ: Mapping[str, str]) -> set[str]:
    """What was imported when docker was started, told by Python itself."""
    script = (shims / "docker").read_text()
    watching = (
        "import sys\n"
        "def told(event, args):\n"
        "    if event == 'os.exec': print(*sys.modules, flush=True); raise SystemExit\n"
        "sys.addaudithook(told)\n"
    )
    started = f"{watching}sys.argv = {[str(shims / 'docker'), *words]!r}\nexec({script!r})"
    done = subprocess.run(
        [plain_python(), "-IS", "-c", started], env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def test_a_harmless_command_does_not_even_import_os(native: Path, scripts: Path) -> None:
    environ = {"PATH": f"{scripts}:/nowhere:/home/me/.local/bin:/opt/..x/b..in:{native}"}
    for words in ([], ["ps"], ["compose", "logs", "-f"]):
        modules = modules_at_exec(scripts, words, environ)
        assert "harmless" in modules
        assert modules & {"os", "safe_compose.shim"} == set()
    for words in (["compose", "down"], ["ps", "rm"], [harmless.PROBE]):
        assert "safe_compose.shim" in modules_at_exec(scripts, words, environ)


def places(folder: Path, native: Path, programs: Path) -> dict[str, str]:
    """Kinds of PATH -> their text; in each the binary is what docker's user would get."""
    other = folder / "other"
    for name in ("linked", "dangling", "folder", "pipe", "plain", "ours", "empty", "program", "hard", "ours by link", "not ours"):
        (other / name).mkdir(parents=True)
    (other / "linked" / "docker").symlink_to(native / "docker")
    (other / "dangling" / "docker").symlink_to(folder / "nowhere")
    (other / "folder" / "docker").mkdir()
    os.mkfifo(other / "pipe" / "docker")
    (other / "plain" / "docker").write_text("no program")
    put(other / "ours" / "docker", "#!/bin/sh\n# safe_compose.shim\nexit 1\n")
    put(other / "empty" / "docker", "")
    put(other / "program" / "docker", (programs / "docker").read_bytes())
    (other / "hard" / "docker").hardlink_to(programs / "docker")
    (other / "ours by link" / "docker").symlink_to(programs / "docker")
    big = (native / "docker").read_bytes().ljust(harmless.LARGEST + 1, b"\0") + harmless.MARKER
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


def test_whatever_is_unusual_on_path_is_left_to_the_closer_look(native: Path, shims: Path, programs: Path, tmp_path: Path) -> None:
    for kind, path in places(tmp_path, native, programs).items():
        environ = {b"PATH": os.fsencode(f"{shims}:{path}")}
        closer = {b"PATH": os.fsencode(path)}
        first = [line for line in seen(shims / "docker", ["ps"], environ, tmp_path) if not line.startswith(b"environ:")]
        second = [line for line in seen(PROGRAM, ["ps"], closer, tmp_path) if not line.startswith(b"environ:")]
        assert first == second, kind


def test_a_repeated_variable_stays_repeated(native: Path, shims: Path) -> None:
    """Go takes the first of two variables of one name, a dict would keep the last. Only exec itself can make two."""
    start = (
        f"import os, sys; sys.path.insert(0, {PACKAGE!r}); from safe_compose.shim import Variables; "
        "os.execve(sys.argv[1], [sys.argv[1], 'ps'], Variables([(b'A', b'1'), (b'PATH', os.fsencode(sys.argv[2])), (b'A', b'2')]))"
    )
    command = [sys.executable, "-c", start, shims / "docker", str(native)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert b"environ:A=1\0PATH=" + os.fsencode(native) + b"\0A=2\0\n" in done.stdout


def test_every_exit_code_of_docker_is_ours(native: Path, shims: Path) -> None:
    for code in range(256):
        environ = {"PATH": f"{shims}:{native}", "EXIT": str(code)}
        assert subprocess.run([shims / "docker", "ps"], env=environ, stdout=subprocess.DEVNULL, timeout=60).returncode == code


def test_signals_that_were_ignored_for_docker_stay_ignored(native: Path, shims: Path) -> None:
    environ = {"PATH": f"{shims}:{native}"}
    command = ["sh", "-c", 'trap "" INT HUP; exec "$0" ps', shims / "docker"]
    done = subprocess.run(command, env={**environ, "PATH": f"{environ['PATH']}:/usr/bin:/bin"}, capture_output=True, timeout=60)
    [line] = [line for line in done.stdout.split(b"\n") if line.startswith(b"SigIgn:")]
    ignored = int(line.split()[1], 16)
    assert ignored & (1 << (signal.SIGINT - 1)) and ignored & (1 << (signal.SIGHUP - 1))
    assert not ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))


def test_switched_off_is_said_once(native: Path, shims: Path, tmp_path: Path) -> None:
    """Although the script starts again with the packages that the journal needs."""
    environ = {"PATH": f"{shims}:{native}", "HOME": str(tmp_path), "SAFE_COMPOSE": "off"}
    done = subprocess.run([shims / "docker", "volume", "rm", "x"], env=environ, capture_output=True, timeout=60, check=True)
    assert done.stdout.startswith(b"argv:" + os.fsencode(native / "docker") + b"\0volume\0rm\0x\0\n")
    assert done.stderr == b"safe-compose: SAFE_COMPOSE=off, docker runs unguarded\n"


# -- the native program ------------------------------------------------------------------------------------------------


class Stand(NamedTuple):
    """A native `docker` whose closer look is a program that says what it was given."""

    docker: Path
    closer: Path
    script: Path
    words: Path

    def woken(self, words: Words, path: str | bytes, **environ: str) -> bool:
        """Whether it took the closer look; then all words must have come along."""
        variables = {os.fsencode(name): os.fsencode(value) for name, value in {"PATH": path, **environ}.items()}
        said, _, _ = b"\n".join(seen(self.docker, words, variables)).partition(b"\nenviron:")
        listed = said.removeprefix(b"argv:").split(b"\0")[:-1]
        given = [os.fsencode(word) for word in words]
        woken = listed[0] == os.fsencode(self.closer)
        assert listed[1:] == ([b"-IS", os.fsencode(self.script), *given] if woken else given)
        return woken


@pytest.fixture(scope="module")
def stand(native: Path, tmp_path_factory: pytest.TempPathFactory) -> Stand:
    folder = tmp_path_factory.mktemp('sta \\ "nd" ж\udcff??/')
    closer = folder / "closer look"
    words, script = folder / "words", put(folder / "script", "")
    words.write_text(texts.waking_words())
    put(closer, f"#!/bin/sh\n{SPEAKS}")
    compiler = shutil.which("cc")
    assert compiler
    content = compiled.program(compiler, "docker", str(script), str(closer), os.environ, words=words)
    put(closer, (native / "docker").read_bytes())
    return Stand(put(folder / "docker", content), closer, script, words)


SPEAKS = 'echo "safe-compose: docker was not run (127)"; exit 127'


def test_the_list_of_the_native_program_is_that_of_the_script() -> None:
    """When this fails: .venv/bin/python -c 'from safe_compose.ways import texts; print(end=texts.waking_words())' > that file"""
    assert compiled.WORDS.read_text() == texts.waking_words()


def test_the_program_compiles_without_a_warning(tmp_path: Path) -> None:
    names = {"NAME": "docker", "WORDS": "w", "INTERPRETER": "i", "SCRIPT": "s", "MARKER": "m"}
    definitions = "".join(f'#define {name} "{value}"\n' for name, value in names.items()) + "#define LARGEST 4096\n"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-x", "c", "-", "-o", tmp_path / "made"]
    subprocess.run(["cc", *flags], input=definitions.encode() + compiled.SOURCE.read_bytes(), check=True)


def near_misses() -> list[str]:
    waking = sorted({*harmless.SUSPECT, *harmless.OWN_FLAGS, harmless.PROBE})
    changed = (w for word in waking for w in (word[:-1], f"{word}x", word.upper(), f"-{word}", f"{word}=1", f"{word}=", f" {word}"))
    return [*waking, *waking, *changed, "--", "=", "", "-", "end of words", "safe-compose words 1", "words", "\n"]


def wakes(words: Sequence[str]) -> bool:
    """What `harmless.pass_on` asks."""
    return not harmless.SUSPECT.isdisjoint(words) or harmless.PROBE in words or harmless.own_flags(words)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(near_misses()), WORD.map(os.fsdecode)), max_size=3))
@example(["a"] * 100_000)
@example(["a"] * 100_000 + ["rm"])
def test_the_program_wakes_python_for_the_words_of_the_script(native: Path, stand: Stand, words: list[str]) -> None:
    assert stand.woken(words, str(native)) == wakes(words)


def test_every_word_that_wakes_the_script_wakes_python(native: Path, stand: Stand) -> None:
    for word in {*harmless.SUSPECT, *harmless.OWN_FLAGS, harmless.PROBE, *(f"{flag}=x" for flag in harmless.OWN_FLAGS)}:
        assert stand.woken(["ps", word], str(native)), word


def test_the_program_and_the_script_decide_the_same_on_any_path(native: Path, programs: Path, stand: Stand, tmp_path: Path) -> None:
    kinds = [*places(tmp_path, native, programs).values(), "/nowhere", "", str(native), str(stand.docker.parent)]
    entries = sorted({path.removesuffix(f":{native}") for path in kinds})
    paths = [*kinds, *(f"{first}:{second}:{native}" for first in entries for second in entries if len(first + second) < 4000)]
    passed = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(stand.docker)])
        patch.chdir(tmp_path)
        for path in paths:
            found = None
            with suppress(OSError):
                found = harmless._docker(b"docker", {b"PATH": os.fsencode(path)})
            assert stand.woken(["ps"], path) == (found is None), path
            passed += found is not None
    assert 50 < passed < len(paths) - 50


def test_the_program_wakes_python_without_a_path_and_for_a_chosen_docker(native: Path, stand: Stand) -> None:
    without = seen(stand.docker, ["ps"], {})
    assert without[0].startswith(b"argv:" + os.fsencode(stand.closer))
    assert stand.woken(["ps"], str(native), SAFE_COMPOSE_DOCKER="/x")
    assert not stand.woken(["ps"], str(native), SAFE_COMPOSE_DOCKER="")


def test_a_word_of_a_newer_safe_compose_is_in_force_at_once(native: Path, stand: Stand) -> None:
    assert not stand.woken(["shred", "--force=1"], str(native))
    text = texts.waking_words()
    try:
        stand.words.write_text(text.replace("\nstop\n", "\nshred\nstop\n"))
        assert stand.woken(["shred"], str(native))
        stand.words.write_text(text.replace("\nstop\n", "\nstop\n--force\n"))
        assert stand.woken(["--force=1"], str(native))
    finally:
        stand.words.write_text(text)


def test_a_list_that_is_not_in_order_wakes_python(native: Path, stand: Stand) -> None:
    good = texts.waking_words().encode()
    first, *words, last, _ = good.split(b"\n")
    broken = [good[:length] for length in range(len(good))]
    broken += [good[length:] for length in range(1, len(good))]
    for middle in ([], [b""], [*words, b""], [*words, b"Stop"], [*words, b"st op"], [*words, b"stop\r"], [*words, b"st\0op"]):
        broken.append(b"\n".join([first, *middle, last, b""]))
    broken += [good + b"x", good + b"\n", good.replace(b" 1\n", b" 2\n"), good.replace(b"\n", b"\r\n"), b"\0" * len(good)]
    broken += [b"\n".join([first, *(words * 100), last, b""])]
    try:
        for content in broken:
            stand.words.write_bytes(content)
            assert stand.woken(["ps"], str(native)), content
        stand.words.unlink()
        assert stand.woken(["ps"], str(native))
        stand.words.mkdir()
        assert stand.woken(["ps"], str(native))
        stand.words.rmdir()
        os.mkfifo(stand.words)
        assert stand.woken(["ps"], str(native))
        stand.words.unlink()
        stand.words.symlink_to(stand.words)
        assert stand.woken(["ps"], str(native))
        stand.words.unlink()
    finally:
        stand.words.write_bytes(good)
    assert not stand.woken(["ps"], str(native))


@pytest.mark.parametrize("gone", ["closer", "script"])
def test_without_its_closer_look_the_program_runs_harmless_commands_and_no_others(native: Path, stand: Stand, gone: str) -> None:
    lost: Path = getattr(stand, gone)
    environ = {"PATH": str(native)}
    aside = lost.rename(lost.with_name("aside"))
    try:
        done = subprocess.run([stand.docker, "volume", "rm", "x"], env=environ, capture_output=True, timeout=60)
        harmless_done = subprocess.run([stand.docker, "ps"], env=environ, capture_output=True, timeout=60)
    finally:
        aside.rename(lost)
    assert (done.returncode, done.stdout) == (127, b"")
    first, step, last = done.stderr.splitlines()
    assert first.startswith(b"safe-compose: " + os.fsencode(lost)) and first.endswith(b": No such file or directory")
    assert step.startswith(b"  next: ") and last == b"safe-compose: docker was not run (127)"
    assert (harmless_done.returncode, harmless_done.stderr) == (0, b"")


def test_a_docker_that_does_not_start_is_left_to_python(stand: Stand, tmp_path: Path) -> None:
    put(tmp_path / "docker", harmless.ELF + b" of no machine")
    assert stand.woken(["ps"], str(tmp_path))


def test_the_program_leaves_every_signal_as_it_was(native: Path, programs: Path) -> None:
    """Which Python cannot: it ignores two from its start on and keeps no record."""
    start = "import os, signal, sys; [signal.signal(n, signal.SIG_IGN) for n in (13, 25, 10)]; os.execv(sys.argv[1], sys.argv[1:])"
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGUSR1):
        assert number in (13, 25, 10)
    said = []
    for folder in (native, programs):
        command = [sys.executable, "-c", start, folder / "docker", "ps"]
        done = subprocess.run(command, env={"PATH": str(native)}, capture_output=True, timeout=60, check=True)
        said.append([line for line in done.stdout.split(b"\n") if line.startswith(b"Sig")])
    assert said[0] == said[1]
    [ignored] = [int(line.split()[1], 16) for line in said[1] if line.startswith(b"SigIgn:")]
    assert ignored & (1 << 12) and ignored & (1 << 24) and ignored & (1 << 9)


def test_the_program_hands_on_an_environment_that_no_dict_could_hold(native: Path, programs: Path, tmp_path: Path) -> None:
    source = tmp_path / "start.c"
    source.write_text(
        "#include <unistd.h>\n"
        'int main(int n, char **words) { (void)n; char *odd[] = {"=C:=x", "alone", "A=1", words[2], "A=2", "", 0};\n'
        "return execve(words[1], words + 1, odd); }\n"
    )
    subprocess.run(["cc", "-o", tmp_path / "start", source], check=True)
    for folder in (native, programs):
        command = [tmp_path / "start", folder / "docker", f"PATH={native}"]
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)
        assert b"environ:=C:=x\0alone\0A=1\0PATH=" + os.fsencode(native) + b"\0A=2\0\0\n" in done.stdout
