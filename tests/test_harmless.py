"""The first look of the programs on PATH: a docker that is a binary sees exactly what it would see without us."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lab.plain import plain_program, plain_python
from safe_compose import harmless
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


@pytest.fixture(scope="module")
def shims(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `--install shims` writes."""
    folder = tmp_path_factory.mktemp("shims")
    for name in ("docker", "docker-compose"):
        (folder / name).write_text(texts.script(str(plain_python()), PACKAGE, sys.executable, plugin=False))
        (folder / name).chmod(0o755)
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


def test_a_harmless_command_does_not_even_import_os(native: Path, shims: Path) -> None:
    environ = {"PATH": f"{shims}:/nowhere:/home/me/.local/bin:/opt/..x/b..in:{native}"}
    for words in ([], ["ps"], ["compose", "logs", "-f"]):
        modules = modules_at_exec(shims, words, environ)
        assert "harmless" in modules
        assert modules & {"os", "safe_compose.shim"} == set()
    for words in (["compose", "down"], ["ps", "rm"], [harmless.PROBE]):
        assert "safe_compose.shim" in modules_at_exec(shims, words, environ)


def places(folder: Path, native: Path) -> dict[str, str]:
    """Kinds of PATH -> their text; in each the binary is what docker's user would get."""
    other = folder / "other"
    for name in ("linked", "dangling", "folder", "pipe", "plain", "hidden", "ours"):
        (other / name).mkdir(parents=True)
    (other / "linked" / "docker").symlink_to(native / "docker")
    (other / "dangling" / "docker").symlink_to(folder / "nowhere")
    (other / "folder" / "docker").mkdir()
    os.mkfifo(other / "pipe" / "docker")
    (other / "plain" / "docker").write_text("no program")
    (other / "ours" / "docker").write_text("#!/bin/sh\n# safe_compose.shim\nexit 1\n")
    (other / "ours" / "docker").chmod(0o755)
    (other / "file").write_text("a file")
    (folder / "docker").symlink_to(native / "docker")
    before = {name: f"{other / name}:{native}" for name in ("linked", "dangling", "folder", "pipe", "plain", "ours", "file")}
    odd = {
        "empty": f":{native}",
        "relative": f"other/linked:{native}",
        "slash": f"{native}/",
        "dots": f"{native}/../{native.name}",
        "dot": f"{native}/.",
    }
    return {**before, **odd, "twice": f"{native}:{native}", "double": f"/{native}"}


def test_whatever_is_unusual_on_path_is_left_to_the_closer_look(native: Path, shims: Path, tmp_path: Path) -> None:
    for kind, path in places(tmp_path, native).items():
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
