"""The wheel, built and installed for real in the ways the README names, in front of a fake docker
that says what it got.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from test_root import ALLOWED

from safe_compose.fastpath import first_look, launch
from testing.projects import ROOT

ECHO = f"""#!{Path(sys.executable).resolve()} -IS
import json, os, sys
print(json.dumps({{
    "argv0": os.path.basename(sys.argv[0]),
    "argv": [word.encode("utf-8", "surrogateescape").hex() for word in sys.argv[1:]],
    "environ": open("/proc/self/environ", "rb").read().hex(),
    "pid": os.getpid(),
}}))
"""
ODD_WORDS = (
    "ps",
    "a b",
    "",
    "--format={{.ID}}",
    "'\"$x`\\",
    "\n",
    "größer",
    os.fsdecode(b"\xff\xfe"),
)
ORDINARY = {b"PLAIN": b"1", b"BYTES": b"\xff=\n2", b"EMPTY": b"", b"LC_ALL": b"C"}
COMPILED = [
    arch
    for arch, machine, cross in (
        ("amd64", "x86_64", "x86_64-linux-gnu-gcc"),
        ("arm64", "aarch64", "aarch64-linux-gnu-gcc"),
    )
    if shutil.which(cross) or (platform.machine() == machine and shutil.which("cc"))
]
"""Architectures that the volume helper can be compiled for on this machine."""
ONLY_PROGRAMS_KNOW = {
    b"a.b": b"1",
    b"BASH_FUNC_x%%": b"() { :; }",
    b"1x": b"2",
    b"IFS": b":",
    b"PWD": b"/nowhere",
}
"""Variables that a shell drops or changes on its way."""


def ran(*argv: object, env: Mapping[str, str] | None = None) -> str:
    """Run to success; what it printed."""
    done = subprocess.run(
        [str(word) for word in argv],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packaging")


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    """The wheel as pip builds it from the source tree."""
    ran(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        place / "wheel",
        ROOT,
    )
    (made,) = (place / "wheel").iterdir()
    return made


@pytest.fixture(scope="module")
def tools(place: Path) -> Path:
    """The folder of a pipx and a uv."""
    venv.create(place / "tools", with_pip=True)
    ran(place / "tools/bin/pip", "install", "--quiet", "pipx", "uv")
    return place / "tools" / "bin"


@pytest.fixture(scope="module")
def old_pip(place: Path) -> Path:
    """A pip as Debian 12 and Ubuntu 24.04 have it, in a folder for PYTHONPATH."""
    folder = place / "old pip"
    ran(sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, "pip==23.2")
    return folder


@pytest.fixture(scope="module")
def by_old_pip(place: Path, wheel: Path, old_pip: Path) -> Path:
    """An old pip, below a folder with a blank; the dependencies are those of this environment."""
    folder = place / "with an old pip" / "venv"
    venv.create(folder, with_pip=False)
    words = ("-m", "pip", "install", "--quiet", "--no-deps", wheel)
    ran(folder / "bin/python", *words, env={"PYTHONPATH": str(old_pip)})
    lend_dependencies(folder)
    return folder / "bin" / "safe-compose"


@pytest.fixture(scope="module")
def editable(place: Path) -> Path:
    """The source tree itself, copied so that nothing is built in it."""
    tree = place / "source"
    names = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    for name in map(os.fsdecode, filter(None, names)):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    folder = place / "editable venv"
    venv.create(folder, with_pip=True)
    ran(folder / "bin/pip", "install", "--quiet", "--no-deps", "--editable", tree)
    lend_dependencies(folder)
    return folder / "bin" / "safe-compose"


def lend_dependencies(folder: Path) -> None:
    """Have a virtual environment find the packages of this one."""
    (ours,) = (
        path
        for path in map(Path, sys.path)
        if path.name == "site-packages" and (path / "typer").is_dir()
    )
    (there,) = folder.glob("lib/python*/site-packages")
    (there / "dependencies.pth").write_text(f"{ours}\n")


@pytest.fixture(scope="module")
def by_pip(place: Path, wheel: Path) -> Path:
    """Plain pip, a venv below a folder with a blank, all dependencies."""
    folder = place / "with blank" / "venv"
    venv.create(folder, with_pip=True)
    ran(folder / "bin/pip", "install", "--quiet", wheel)
    return folder / "bin" / "safe-compose"


@pytest.fixture(scope="module")
def by_pip_plain(place: Path, wheel: Path) -> Path:
    """Plain pip, a path that a script's first line can hold; the dependencies are those of this
    environment.
    """
    folder = place / "venv"
    venv.create(folder, with_pip=True)
    ran(folder / "bin/pip", "install", "--quiet", "--no-deps", wheel)
    lend_dependencies(folder)
    return folder / "bin" / "safe-compose"


@pytest.fixture(scope="module")
def by_pipx(place: Path, tools: Path, wheel: Path) -> Path:
    env = {
        "PIPX_HOME": str(place / "pipx"),
        "PIPX_BIN_DIR": str(place / "pipx-bin"),
        "UV_CACHE_DIR": str(place / "uv-cache"),
    }
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


WAYS = ["by_pip", "by_old_pip", "by_pipx", "by_uv", "editable"]


@pytest.fixture(params=WAYS)
def installed(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def recorder(place: Path) -> Path:
    """A folder for PATH with a docker that is a binary and tells all that it was given."""
    folder = place / "recorder"
    folder.mkdir()
    source = ROOT / "testing" / "recorder.c"
    subprocess.run(["cc", "-O1", "-o", folder / "docker", source], check=True)
    return folder


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A folder for PATH, with a docker in it."""
    folder = tmp_path / "fake"
    folder.mkdir()
    (folder / "docker").write_text(ECHO)
    (folder / "docker").chmod(0o755)
    return folder


def start(
    program: Path, *words: str, environ: Mapping[bytes, bytes]
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [program, *words], env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )


def got(done: subprocess.CompletedProcess[bytes]) -> tuple[list[str], dict[bytes, bytes]]:
    """The words and the environment that the fake docker was given; without our trail, which a
    docker that is a script gets.
    """
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    pairs = (
        entry.partition(b"=") for entry in bytes.fromhex(said["environ"]).split(b"\0") if entry
    )
    environ = {name: value for name, _, value in pairs if name != b"SAFE_COMPOSE_TRAIL"}
    return [os.fsdecode(bytes.fromhex(word)) for word in said["argv"]], environ


# -- what is in the wheel --------------------------------------------------------------------------


def test_the_wheel_holds_all_modules_the_native_programs_the_shell_folder_the_type_marker_and_the_licence(
    wheel: Path,
) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        (metadata,) = (packed.read(name).decode() for name in names if name.endswith("/METADATA"))
    source = ROOT / "src"
    kinds = {".py", ".typed", ".js"}
    expected = {str(path.relative_to(source)) for path in source.rglob("*") if path.suffix in kinds}
    expected |= {f"safe_compose/shell/{path.name}" for path in (ROOT / "shell").iterdir()}
    expected |= {f"safe_compose/native/volume_helper.{arch}" for arch in COMPILED}
    assert {name for name in names if name.startswith("safe_compose/")} == expected
    scripts = {name.rpartition("/")[2] for name in names if ".data/scripts/" in name}
    assert scripts == {"safe-compose", "safe-compose-python"}
    assert not any(name.endswith("entry_points.txt") for name in names)
    assert wheel.name.split("-", 2)[2] == {
        "x86_64": "py3-none-manylinux_2_17_x86_64.musllinux_1_1_x86_64.whl",
        "aarch64": "py3-none-manylinux_2_17_aarch64.musllinux_1_1_aarch64.whl",
    }.get(platform.machine(), "py3-none-any.whl")
    assert "License-Expression: MIT\n" in metadata
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "Requires-Python: >=3.11\n" in metadata


def test_the_programs_of_the_wheel_are_static_and_made_for_their_machines(wheel: Path) -> None:
    """The architecture stands in an ELF header's bytes 18 and 19; a program header of type 3
    (PT_INTERP) would want a loader.
    """
    assert COMPILED, "the machine that tests has a C compiler"
    with zipfile.ZipFile(wheel) as packed:
        programs = [
            (architecture, packed.read(f"safe_compose/native/volume_helper.{architecture}"))
            for architecture in COMPILED
        ]
        (launcher,) = (n for n in packed.namelist() if n.endswith("scripts/safe-compose"))
        own = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
        programs.append((own, packed.read(launcher)))
    for architecture, program in programs:
        assert program[:6] == b"\x7fELF\x02\x01"
        assert int.from_bytes(program[18:20], "little") == {"amd64": 62, "arm64": 183}[architecture]
        table, size, count = (
            int.from_bytes(program[a:b], "little") for a, b in ((32, 40), (54, 56), (56, 58))
        )
        assert 3 not in {
            int.from_bytes(program[at : at + 4], "little")
            for at in range(table, table + size * count, size)
        }


def test_the_words_of_the_launcher_are_those_that_python_obeys(wheel: Path) -> None:
    """An editable installation has them from its last `make .venv/ready`."""
    with zipfile.ZipFile(wheel) as packed:
        (name,) = (n for n in packed.namelist() if n.endswith("scripts/safe-compose"))
        made = packed.read(name)
    waking = {*first_look.SUSPECT, first_look.PROBE, *first_look.OWN_FLAGS}
    first = {*launch.OWN_VERBS, "docker-compose"}
    known, completing = first_look.DOCKER_WORDS, launch.COMPLETE
    for words in (waking, first, known, completing, first_look.PLUMBING, launch.FOREIGN):
        assert f"\n{chr(10).join(sorted(words))}\n\0".encode() in made
    installed = Path(sys.executable).with_name("safe-compose")
    if installed.read_bytes()[:4] == first_look.ELF:
        assert installed.read_bytes() == made, "make .venv/ready"


@pytest.mark.thorough
@pytest.mark.skipif("arm64" not in COMPILED, reason="there is no compiler for arm64")
def test_the_launcher_of_arm64_is_made_on_another_machine_and_runs(place: Path, fake: Path) -> None:
    words = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place / "arm64", ROOT)
    ran(sys.executable, *words, env={"SAFE_COMPOSE_ARCHITECTURE": "arm64"})
    (made,) = (place / "arm64").iterdir()
    assert made.name.endswith("-manylinux_2_17_aarch64.musllinux_1_1_aarch64.whl")
    with zipfile.ZipFile(made) as packed:
        (name,) = (n for n in packed.namelist() if n.endswith("scripts/safe-compose"))
        program = Path(packed.extract(name, place / "arm64 scripts"))
    program.chmod(0o755)
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    argv = [program] if platform.machine() == "aarch64" else [emulator, program]
    assert argv[0] is not None
    done = subprocess.run(
        [*argv, "volume", "rm", "x"], env={"PATH": str(fake)}, capture_output=True, timeout=60
    )
    assert done.returncode == 127, done.stderr
    assert done.stderr.endswith(b"safe-compose: docker was not run (127)\n")


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="the helper is made for these"
)
def test_the_installed_program_is_the_one_of_the_wheel_and_runs(
    by_pip_plain: Path, wheel: Path
) -> None:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    (program,) = by_pip_plain.parent.parent.glob(
        f"lib/python*/site-packages/safe_compose/native/volume_helper.{architecture}"
    )
    with zipfile.ZipFile(wheel) as packed:
        assert program.read_bytes() == packed.read(f"safe_compose/native/{program.name}")
    loader = [program] if os.access(program, os.X_OK) else ["/lib64/ld-linux-x86-64.so.2", program]
    assert subprocess.run([*loader, "features"], capture_output=True).returncode == 0


@pytest.mark.thorough
def test_without_a_compiler_the_wheel_is_made_all_the_same(place: Path, fake: Path) -> None:
    """It says what is missing, and the installed program says it in its turn."""
    (place / "bare").mkdir(exist_ok=True)
    for name in ("git", "uname"):
        if (found := shutil.which(name)) is not None and not (place / "bare" / name).exists():
            (place / "bare" / name).symlink_to(found)
    argv = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-v",
        "--no-deps",
        "--wheel-dir",
        place / "without",
        ROOT,
    ]
    environ = {**os.environ, "PATH": str(place / "bare")}
    done = subprocess.run(
        argv,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "no volume helper for linux/amd64: there is no C compiler for it" in done.stdout
    assert "no launcher, safe-compose starts later: there is no C compiler" in done.stdout
    (made,) = (place / "without").iterdir()
    assert made.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(made) as packed:
        assert not [name for name in packed.namelist() if "native/" in name]
    folder = place / "venv-without"
    venv.create(folder, with_pip=True)
    ran(folder / "bin/pip", "install", "--quiet", "--no-deps", made)
    lend_dependencies(folder)
    script = (
        "from safe_compose.engine import helper_image as h\ntry: h.image('amd64')\nexcept"
        " h.NoOwnImage as e: print(e)"
    )
    assert "this installation came without the volume helper for linux/amd64" in ran(
        folder / "bin/python", "-c", script
    )
    text = (folder / "bin" / "safe-compose").read_text()
    assert "import re" not in text and not (folder / "bin" / "safe-compose-python").exists()
    about = ran(folder / "bin" / "safe-compose", "about", "--json", env={"PATH": f"{fake}"})
    assert json.loads(about)["launcher"].startswith("script ")
    assert got(start(folder / "bin" / "safe-compose", "ps", environ={b"PATH": bytes(fake)}))[0] == [
        "ps"
    ]


def test_the_source_archive_holds_the_programs_sources(place: Path, tools: Path) -> None:
    env = {"UV_CACHE_DIR": str(place / "uv-cache"), "UV_PYTHON_DOWNLOADS": "never"}
    ran(
        tools / "uv",
        "build",
        "--quiet",
        "--sdist",
        "--python",
        sys.executable,
        "--out-dir",
        place / "sources",
        ROOT,
        env=env,
    )
    (made,) = (place / "sources").glob("*.tar.gz")
    with tarfile.open(made) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {f"native/{path.name}" for path in (ROOT / "native").iterdir() if path.is_file()} | {
        "hatch_build.py"
    } <= names
    assert not [
        name
        for name in names
        if "volume_helper." in name and not name.endswith((".py", ".c", ".h"))
    ]
    at_the_top = {name.partition("/")[0] for name in names if name}
    assert at_the_top <= ALLOWED | {"PKG-INFO"}
    assert {name for name in at_the_top if name.startswith(".")} <= {".gitignore"}


@pytest.mark.thorough
def test_the_wheel_made_from_the_source_archive_is_the_same(
    place: Path, wheel: Path, tools: Path
) -> None:
    env = {"UV_CACHE_DIR": str(place / "uv-cache"), "UV_PYTHON_DOWNLOADS": "never"}
    ran(
        tools / "uv",
        "build",
        "--quiet",
        "--python",
        sys.executable,
        "--out-dir",
        place / "dist",
        ROOT,
        env=env,
    )
    (made,) = (place / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(made) as other:
        assert {i.filename: i.CRC for i in one.infolist()} == {
            i.filename: i.CRC for i in other.infolist()
        }


# -- installed -------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_every_word_reaches_docker_byte_for_byte(installed: Path, fake: Path) -> None:
    words, environ = got(start(installed, *ODD_WORDS, environ={b"PATH": bytes(fake), **ORDINARY}))
    assert words == list(ODD_WORDS)
    assert environ.items() >= {b"PATH": bytes(fake), **ORDINARY}.items()


@pytest.mark.parametrize("words", [["ps"], ["compose", "up"]], ids=["harmless", "asks Python"])
def test_docker_is_unchanged_however_it_was_installed(
    installed: Path, recorder: Path, words: list[str]
) -> None:
    """Words, environment, folder, umask, signals and descriptors, through a link as well."""
    given = {b"PATH": bytes(recorder), **ORDINARY, **ONLY_PROGRAMS_KNOW}
    (link := recorder.parent / f"link to {installed.parts[-3]}").unlink(missing_ok=True)
    link.symlink_to(installed)
    bare = start(recorder / "docker", *words, environ=given)
    for program in (installed, link):
        done = start(program, *words, environ=given)
        lines = [x.split(b"\n") for x in (done.stdout, bare.stdout)]
        ours, theirs = ([line for line in x if not line.startswith(b"pid:")] for x in lines)
        assert (ours, done.stderr, done.returncode) == (theirs, b"", 0)


@pytest.mark.thorough
def test_docker_is_unchanged_for_a_user_without_an_environment(
    place: Path, wheel: Path, recorder: Path
) -> None:
    """`pip install --user`: no Python stands next to the launcher."""
    home = place / "home of a user"
    python = Path(sys.executable).resolve()
    words = ("-m", "pip", "install", "--quiet", "--no-deps", "--break-system-packages", "--user")
    pip = next(path for path in map(Path, sys.path) if (path / "pip").is_dir())
    ran(python, *words, wheel, env={"HOME": str(home), "PYTHONPATH": str(pip)})
    program = home / ".local" / "bin" / "safe-compose"
    given = {b"PATH": bytes(recorder), b"HOME": bytes(home), **ORDINARY, **ONLY_PROGRAMS_KNOW}
    for line in ("ps", "compose up"):
        done, bare = (
            start(path, *line.split(), environ=given) for path in (program, recorder / "docker")
        )
        lines = [x.split(b"\n") for x in (done.stdout, bare.stdout)]
        ours, theirs = ([line for line in x if not line.startswith(b"pid:")] for x in lines)
        assert (ours, done.stderr) == (theirs, b"")


def test_about_says_which_launcher_is_in_place(installed: Path, fake: Path) -> None:
    environ = {b"PATH": bytes(fake), b"HOME": bytes(fake)}
    about = start(installed, "about", "--json", environ=environ)
    assert json.loads(about.stdout)["launcher"] == "native", about.stderr


def test_the_process_id_is_kept(installed: Path, fake: Path) -> None:
    with subprocess.Popen(
        [installed, "ps"], env={"PATH": str(fake)}, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert json.load(child.stdout)["pid"] == child.pid


def test_it_runs_through_links_and_by_the_name_of_the_standalone_compose(
    installed: Path, fake: Path, tmp_path: Path
) -> None:
    links = tmp_path / "more links"
    links.mkdir()
    for name in ("docker", "docker-compose", "seatbelt"):
        (links / name).symlink_to(installed)
    environ = {b"PATH": bytes(links) + b":" + bytes(fake)}
    assert got(start(links / "docker", "ps", "-a", environ=environ))[0] == ["ps", "-a"]
    assert got(start(links / "seatbelt", "ps", "-a", environ=environ))[0] == ["ps", "-a"]
    assert got(start(links / "docker-compose", "ps", "-a", environ=environ))[0] == [
        "compose",
        "ps",
        "-a",
    ]


def test_the_plugin_of_opencode_comes_with_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        assert b"@COMMAND@" in packed.read("safe_compose/install/opencode_plugin.js")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_function_comes_with_the_wheel(installed: Path, shell: str) -> None:
    text = start(installed, "shell", shell, environ={b"PATH": b"/nonexistent"}).stdout.decode()
    assert "docker" in text and "down" in text
    assert "@SUSPECT@" not in text


def test_bash_evaluates_the_shell_function(installed: Path, fake: Path) -> None:
    script = (
        'eval "$(safe-compose shell bash)"; docker ps "a b"; docker --explain --offline compose'
        " down -v"
    )
    env = {"PATH": f"{installed.parent}:{fake}:/usr/bin:/bin", "HOME": str(fake)}
    done = subprocess.run(
        ["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60
    )
    first, *rest = done.stdout.splitlines()
    assert [bytes.fromhex(word).decode() for word in json.loads(first)["argv"]] == ["ps", "a b"]
    assert rest == ["verdict   guard (from the words alone)", "kind      compose_down_volumes"]
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_all_suspicious_words_wake_up_and_a_guarded_command_is_not_run_blindly(
    installed: Path, fake: Path, tmp_path: Path
) -> None:
    environ = {b"PATH": bytes(fake), b"HOME": bytes(tmp_path)}
    listed = start(installed, "list", "--json", environ=environ)
    assert json.loads(listed.stdout) == {"version": 1, "backups": []}, listed.stderr
    environ[b"DOCKER_HOST"] = b"unix:///nonexistent/docker.sock"
    refused = start(
        installed, "--non-interactive", "--backup-first", "volume", "rm", "x", environ=environ
    )
    assert refused.returncode == 69
    assert refused.stderr.decode().splitlines()[-1] == "safe-compose: docker was not run (69)"
    assert refused.stdout == b""


def test_no_installed_package_contradicts_another(by_pip: Path) -> None:
    assert "No broken requirements found" in ran(by_pip.with_name("pip"), "check")
