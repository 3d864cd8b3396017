"""The wheel, built and installed for real in the ways the README names, in front of a fake docker that says what it got."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab.projects import ROOT

ECHO = f"""#!{Path(sys.executable).resolve()} -IS
import json, os, sys
print(json.dumps({{
    "argv0": os.path.basename(sys.argv[0]),
    "argv": [word.encode("utf-8", "surrogateescape").hex() for word in sys.argv[1:]],
    "environ": open("/proc/self/environ", "rb").read().hex(),
    "pid": os.getpid(),
}}))
"""
ODD_WORDS = ("ps", "a b", "", "--format={{.ID}}", "'\"$x`\\", "\n", "größer", os.fsdecode(b"\xff\xfe"))
ORDINARY = {b"PLAIN": b"1", b"BYTES": b"\xff=\n2", b"EMPTY": b"", b"LC_ALL": b"C"}
ONLY_PROGRAMS_KNOW = {b"a.b": b"1", b"BASH_FUNC_x%%": b"() { :; }", b"1x": b"2", b"IFS": b":", b"PWD": b"/nowhere"}
"""Variables that a shell drops or changes on its way."""


def ran(*argv: object, env: Mapping[str, str] | None = None) -> str:
    """Run to success; what it printed."""
    done = subprocess.run(
        [str(word) for word in argv], env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packaging")


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    """The wheel as pip builds it from the source tree."""
    ran(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place / "wheel", ROOT)
    (made,) = (place / "wheel").iterdir()
    return made


@pytest.fixture(scope="module")
def tools(place: Path) -> Path:
    """The folder of a pipx and a uv."""
    venv.create(place / "tools", with_pip=True)
    ran(place / "tools/bin/pip", "install", "--quiet", "pipx", "uv")
    return place / "tools" / "bin"


@pytest.fixture(scope="module")
def by_pip(place: Path, wheel: Path) -> Path:
    """Plain pip, a venv below a folder with a blank, all dependencies."""
    folder = place / "with blank" / "venv"
    venv.create(folder, with_pip=True)
    ran(folder / "bin/pip", "install", "--quiet", wheel)
    return folder / "bin" / "safe-compose"


@pytest.fixture(scope="module")
def by_pip_plain(place: Path, wheel: Path) -> Path:
    """Plain pip, a path that a script's first line can hold; the dependencies are those of this environment."""
    folder = place / "venv"
    venv.create(folder, with_pip=True)
    ran(folder / "bin/pip", "install", "--quiet", "--no-deps", wheel)
    (ours,) = (path for path in map(Path, sys.path) if path.name == "site-packages" and (path / "typer").is_dir())
    (there,) = folder.glob("lib/python*/site-packages")
    (there / "dependencies.pth").write_text(f"{ours}\n")
    return folder / "bin" / "safe-compose"


@pytest.fixture(scope="module")
def by_pipx(place: Path, tools: Path, wheel: Path) -> Path:
    env = {"PIPX_HOME": str(place / "pipx"), "PIPX_BIN_DIR": str(place / "pipx-bin"), "UV_CACHE_DIR": str(place / "uv-cache")}
    ran(tools / "pipx", "install", "--python", sys.executable, wheel, env=env)
    return place / "pipx-bin" / "safe-compose"


@pytest.fixture(scope="module")
def by_uv(place: Path, tools: Path, wheel: Path) -> Path:
    env = {
        "UV_TOOL_DIR": str(place / "uv"),
        "UV_TOOL_BIN_DIR": str(place / "uv-bin"),
        "UV_CACHE_DIR": str(place / "uv-cache"),
        "UV_PYTHON_DOWNLOADS": "never",
    }
    ran(tools / "uv", "tool", "install", "--python", sys.executable, wheel, env=env)
    return place / "uv-bin" / "safe-compose"


@pytest.fixture(params=["by_pip", "by_pip_plain", "by_pipx", "by_uv"])
def installed(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A folder for PATH, with a docker in it."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "docker").write_text(ECHO)
    (folder / "docker").chmod(0o755)
    return folder


def start(program: Path, *words: str, environ: Mapping[bytes, bytes]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([program, *words], env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)


def got(done: subprocess.CompletedProcess[bytes]) -> tuple[list[str], dict[bytes, bytes]]:
    """The words and the environment that the fake docker was given; without our trail, which a docker that is a script gets."""
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    pairs = (entry.partition(b"=") for entry in bytes.fromhex(said["environ"]).split(b"\0") if entry)
    environ = {name: value for name, _, value in pairs if name != b"SAFE_COMPOSE_TRAIL"}
    return [os.fsdecode(bytes.fromhex(word)) for word in said["argv"]], environ


# -- what is in the wheel ----------------------------------------------------------------------------------------------


def test_the_wheel_holds_all_modules_the_native_program_the_shell_folder_the_type_marker_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        (metadata,) = (packed.read(name).decode() for name in names if name.endswith("/METADATA"))
    source = ROOT / "src"
    kinds = {".py", ".c", ".words", ".typed"}
    expected = {str(path.relative_to(source)) for path in source.rglob("*") if path.suffix in kinds}
    expected |= {f"safe_compose/shell/{path.name}" for path in (ROOT / "shell").iterdir()}
    assert {name for name in names if name.startswith("safe_compose/")} == expected
    assert "License-Expression: MIT\n" in metadata
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "Requires-Python: >=3.11\n" in metadata


def test_the_wheel_made_from_the_source_archive_is_the_same(place: Path, wheel: Path, tools: Path) -> None:
    env = {"UV_CACHE_DIR": str(place / "uv-cache"), "UV_PYTHON_DOWNLOADS": "never"}
    ran(tools / "uv", "build", "--quiet", "--python", sys.executable, "--out-dir", place / "dist", ROOT, env=env)
    (made,) = (place / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(made) as other:
        assert {i.filename: i.CRC for i in one.infolist()} == {i.filename: i.CRC for i in other.infolist()}


# -- installed -----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_every_word_reaches_docker_byte_for_byte(installed: Path, fake: Path) -> None:
    words, environ = got(start(installed, *ODD_WORDS, environ={b"PATH": bytes(fake), **ORDINARY}))
    assert words == list(ODD_WORDS)
    assert environ.items() >= {b"PATH": bytes(fake), **ORDINARY}.items()


@pytest.mark.parametrize("way", ["by_pip_plain", "by_pipx", "by_uv"])
def test_the_environment_reaches_docker_byte_for_byte(way: str, fake: Path, request: pytest.FixtureRequest) -> None:
    given = {b"PATH": bytes(fake), **ORDINARY, **ONLY_PROGRAMS_KNOW}
    _, environ = got(start(request.getfixturevalue(way), "ps", environ=given))
    assert environ == given


def test_below_a_folder_with_a_blank_only_what_the_readme_says_is_lost(by_pip: Path, fake: Path) -> None:
    """Installers start such a script through /bin/sh: `#!/bin/sh`, then an exec that Python reads as a string."""
    assert by_pip.read_bytes().startswith(b"#!/bin/sh\n")
    given = {b"PATH": bytes(fake), **ORDINARY, **ONLY_PROGRAMS_KNOW}
    _, environ = got(start(by_pip, "ps", environ=given))
    shells_own = {b"PWD", b"OLDPWD", b"IFS", b"OPTIND", b"PPID", b"SHLVL", b"_"}
    assert {name: value for name, value in environ.items() if name not in shells_own} == {b"PATH": bytes(fake), **ORDINARY}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "path with a blank" in readme and "`/bin/sh`" in readme


def test_the_process_id_is_kept(installed: Path, fake: Path) -> None:
    with subprocess.Popen([installed, "ps"], env={"PATH": str(fake)}, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert json.load(child.stdout)["pid"] == child.pid


def test_it_runs_through_links_and_by_the_name_of_the_standalone_compose(installed: Path, fake: Path, tmp_path: Path) -> None:
    links = tmp_path / "more links"
    links.mkdir()
    for name in ("docker", "docker-compose", "seatbelt"):
        (links / name).symlink_to(installed)
    environ = {b"PATH": bytes(links) + b":" + bytes(fake)}
    assert got(start(links / "docker", "ps", "-a", environ=environ))[0] == ["ps", "-a"]
    assert got(start(links / "seatbelt", "ps", "-a", environ=environ))[0] == ["ps", "-a"]
    assert got(start(links / "docker-compose", "ps", "-a", environ=environ))[0] == ["compose", "ps", "-a"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_function_comes_with_the_wheel(installed: Path, shell: str) -> None:
    text = start(installed, "shell", shell, environ={b"PATH": b"/nonexistent"}).stdout.decode()
    assert "docker" in text and "down" in text
    assert "@SUSPECT@" not in text


def test_bash_evaluates_the_shell_function(installed: Path, fake: Path) -> None:
    script = 'eval "$(safe-compose shell bash)"; docker ps "a b"; docker --explain --offline compose down -v'
    env = {"PATH": f"{installed.parent}:{fake}:/usr/bin:/bin", "HOME": str(fake)}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60)
    first, *rest = done.stdout.splitlines()
    assert [bytes.fromhex(word).decode() for word in json.loads(first)["argv"]] == ["ps", "a b"]
    assert rest == ["verdict:  guard (from the words alone)", "kind:     compose_down_volumes"]
    assert done.returncode == 0, done.stderr


def test_all_rooms_wake_up_and_a_guarded_command_is_not_run_blindly(installed: Path, fake: Path, tmp_path: Path) -> None:
    environ = {b"PATH": bytes(fake), b"HOME": bytes(tmp_path)}
    listed = start(installed, "list", "--json", environ=environ)
    assert json.loads(listed.stdout) == {"version": 1, "backups": []}, listed.stderr
    environ[b"DOCKER_HOST"] = b"unix:///nonexistent/docker.sock"
    refused = start(installed, "--non-interactive", "--backup-first", "volume", "rm", "x", environ=environ)
    assert refused.returncode == 69
    assert refused.stderr.decode().splitlines()[-1] == "safe-compose: docker was not run (69)"
    assert refused.stdout == b""


def test_no_installed_package_contradicts_another(by_pip: Path) -> None:
    assert "No broken requirements found" in ran(by_pip.with_name("pip"), "check")
