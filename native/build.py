"""Compile the volume helper for each architecture that a compiler is at hand for, and the launcher
for one: `python native/build.py FOLDER`.

The build hook of the wheel (hatch_build.py) and the Makefile use it; only the standard library is
needed. The programs are static, and the same sources, compiler and libraries give the same bytes
wherever they lie.
"""

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
LAUNCHER = "launcher.c"
PREFIX = "volume_helper."
"""A program is called `volume_helper.ARCHITECTURE`, in docker's words for it."""
COMPILERS = {
    "amd64": ("x86_64-linux-gnu-gcc", "x86_64"),
    "arm64": ("aarch64-linux-gnu-gcc", "aarch64"),
}
"""Architecture -> the name of its cross compiler, and of the machine that needs none."""
FLAGS = (
    "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror",
    "-fstack-protector-strong", "-fPIE", "-static-pie", "-s", "-Wl,--build-id=none",
    "-Wl,-z,relro,-z,now", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2",
)  # fmt: skip
SQLITE = ("-DWITH_SQLITE", "-lsqlite3", "-lm", "-lpthread")


def compiler_for(architecture: str) -> str | None:
    """A C compiler for Linux on that architecture, or None."""
    cross, machine = COMPILERS[architecture]
    if (found := shutil.which(cross)) is not None:
        return found
    if sys.platform == "linux" and platform.machine() == machine:
        return shutil.which("cc") or shutil.which("gcc")
    return None


def _compile(argv: list[str], source: str | None = None) -> str | None:
    """The compiler's complaint; None when it had none."""
    done = subprocess.run(
        argv, cwd=SOURCES, input=source or "", capture_output=True, text=True, check=False
    )
    return (
        None
        if done.returncode == 0
        else done.stderr.strip() or f"{argv[0]} ended with {done.returncode}"
    )


def links_sqlite(compiler: str, folder: Path) -> bool:
    """Whether libsqlite3.a for that architecture is at hand."""
    source = "#include <sqlite3.h>\nint main(void) { return sqlite3_hard_heap_limit64(0) != 0; }\n"
    return (
        _compile(
            [compiler, "-static-pie", "-o", str(folder / "try"), "-x", "c", "-", *SQLITE[1:]],
            source,
        )
        is None
    )


def compile_program(compiler: str, target: Path, *, sqlite: bool) -> str | None:
    """Compile it; the compiler's complaint, or None."""
    sources = sorted(path.name for path in SOURCES.glob("*.c") if path.name != LAUNCHER)
    macros, libraries = (SQLITE[:1], SQLITE[1:]) if sqlite else ((), ())
    # by bare names, in their own folder, so that no path gets into the program
    complaint = _compile([compiler, *FLAGS, *macros, "-o", str(target), *sources, *libraries])
    if complaint is None:
        target.chmod(0o755)
    return complaint


def build(folder: Path) -> tuple[list[Path], list[str]]:
    """Compile every program into a folder: those that were made, and a line for each that was not,
    or lacks something.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    missing: list[str] = []
    for architecture in COMPILERS:
        target = folder / f"{PREFIX}{architecture}"
        compiler = compiler_for(architecture)
        with tempfile.TemporaryDirectory(dir=folder) as aside:
            sqlite = compiler is not None and links_sqlite(compiler, Path(aside))
            new = Path(aside, target.name)
            complaint = (
                compile_program(compiler, new, sqlite=sqlite)
                if compiler
                else "there is no C compiler for it"
            )
            if complaint is not None:
                missing.append(f"no volume helper for linux/{architecture}: {complaint}")
                target.unlink(missing_ok=True)
                continue
            new.replace(target)  # whoever reads it meanwhile sees a whole one
            made.append(target)
        if not sqlite:
            missing.append(
                f"the volume helper for linux/{architecture} is made without SQLite: no"
                " libsqlite3.a for it"
            )
    return made, missing


def _literal(value: bytes) -> str:
    """Bytes as a string literal of C."""
    return '"' + "".join(f"\\{byte:03o}" for byte in value) + '"'


def list_words(words: Iterable[str]) -> bytes:
    """Words as the launcher holds them: with a line break before and behind each."""
    return "\n".join(["", *sorted(words), ""]).encode()


def definitions() -> dict[str, bytes | int]:
    """What is compiled into the launcher, from the modules that Python uses."""
    sys.path.insert(0, str(SOURCES.parent / "src"))
    try:
        from safe_compose.fastpath import first_look, launch
    finally:
        del sys.path[0]
    return {
        "WAKING": list_words({*first_look.SUSPECT, first_look.PROBE, *first_look.OWN_FLAGS}),
        "FIRST": list_words({*launch.OWN_VERBS, "docker-compose"}),
        "HELP": list_words({word for words in (*launch.HELP, *launch.VERSION) for word in words}),
        "KNOWN": list_words(first_look.DOCKER_WORDS),
        "COMPLETE": list_words(launch.COMPLETE),
        "START": launch.START.encode(),
        "PLUMBING": list_words(first_look.PLUMBING),
        "FOREIGN": list_words(launch.FOREIGN),
        "PLUGINS": "\n".join(["", *launch.SYSTEM_PLUGINS, ""]).encode(),
        "MARKER": first_look.MARKER,
        "ENTRY": launch.ENTRY.encode(),
        "LAUNCHED": launch.LAUNCHED.encode(),
        "ASIDE": launch.ASIDE.encode(),
        "ORIGIN": launch.ORIGIN.encode(),
        "LARGEST": first_look.LARGEST,
    }


def launcher_source() -> str:
    """The source of the launcher with its definitions."""
    lines = (
        f"#define {name} {value if isinstance(value, int) else _literal(value)}\n"
        for name, value in definitions().items()
    )
    source = (SOURCES / LAUNCHER).read_text(encoding="utf-8")
    return "".join(lines) + f'#line 1 "{LAUNCHER}"\n' + source


SCRIPT = """\
#!python
# {marker}
import sys

try:
    from {marker} import main
except Exception as error:  # of a damaged installation: 127, and docker is not run
    sys.stderr.write(
        f"safe-compose: its package for {{sys.executable}} does not load: {{type(error).__name__}}:"
        f" {{error}}\\n  next: install safe-compose again\\n"
        "safe-compose: docker was not run (127)\\n"
    )
    sys.exit(127)
sys.exit(main({arguments}))
"""
"""Installers replace the first line. Scripts that they write themselves may import more than
Python's own start does (`re`, with pip before 25)."""


def script(*, launched: bool) -> str:
    """The script that starts Python: for the launcher, or in its place."""
    marker = str(definitions()["MARKER"], "ascii")  # type: ignore[arg-type]
    return SCRIPT.format(marker=marker, arguments="launched=True" if launched else "")


def build_launcher(architecture: str, target: Path) -> str | None:
    """Compile the launcher; the complaint, or None.

    One that another copy would not recognize counts as not made.
    """
    if architecture not in COMPILERS:
        return "there is none for this machine"
    compiler = compiler_for(architecture)
    if compiler is None:
        return f"there is no C compiler for linux/{architecture}"
    argv = [compiler, *FLAGS, "-o", str(target), "-x", "c", "-"]
    complaint = _compile(argv, launcher_source())
    if complaint is not None:
        return complaint
    if definitions()["MARKER"] not in target.read_bytes()[:4096]:
        return "the mark is not at its beginning"
    target.chmod(0o755)
    return None


def main() -> int:
    """0 when at least one program was made."""
    made, missing = build(Path(sys.argv[1]).resolve())
    for line in missing:
        print(line, file=sys.stderr)
    return 0 if made else 1


if __name__ == "__main__":
    sys.exit(main())
