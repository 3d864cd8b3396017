"""The programs that `harmless.c` becomes where a C compiler is at hand: 6 ms sooner in docker than a script.

The compiler runs at installation only: no shell, the source on its stdin, its words kept back unless it fails. What it made is
tried before it is believed; whatever goes wrong is said in one line, and scripts stand on PATH instead.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from safe_compose import harmless, shim

SOURCE = Path(harmless.__file__).resolve().with_suffix(".c")
WORDS = SOURCE.with_suffix(".words")
SECONDS = 60.0
"""For one run of the compiler, or of what it made."""


class NotMade(Exception):
    """Why there is no program."""


def programs(scripts: Mapping[str, str], interpreter: str, environ: Mapping[str, str]) -> dict[str, bytes]:
    """For each name in docker's place the program that does the first look and leaves the closer one to its script.

    `scripts`: name -> path of the script, which need not be there yet. Empty where there is no compiler, or when it fails,
    which is said.
    """
    compiler = shutil.which("cc", path=environ.get("PATH"))
    if compiler is None or sys.platform != "linux":
        return {}
    try:
        return {name: program(compiler, name, script, interpreter, environ) for name, script in scripts.items()}
    except (NotMade, OSError) as fault:
        shim.say(f"safe-compose: {compiler} makes no programs here ({fault}); scripts stand on PATH instead, which start later")
        return {}


def program(compiler: str, name: str, script: str, interpreter: str, environ: Mapping[str, str], *, words: Path = WORDS) -> bytes:
    """One of them. Raise NotMade, OSError."""
    definitions = {"NAME": name, "WORDS": str(words), "INTERPRETER": interpreter, "SCRIPT": script}
    lines = [f"#define {key} {_literal(os.fsencode(value))}\n" for key, value in definitions.items()]
    lines += [f"#define MARKER {_literal(harmless.MARKER)}\n", f"#define LARGEST {harmless.LARGEST}\n"]
    with tempfile.TemporaryDirectory(prefix="safe-compose-cc-") as folder:
        made = Path(folder, "made")
        argv = [compiler, "-std=c99", "-O2", "-s", "-x", "c", "-o", str(made), "-"]
        code, said = _run(argv, "".join(lines).encode() + SOURCE.read_bytes(), {**environ, "LC_ALL": "C"})
        if code != 0:
            raise NotMade(f"it ended with {code}: {said.strip().partition(chr(10))[0]}")
        content = made.read_bytes()
        if content[:4] != harmless.ELF or not harmless.is_copy(content, len(content)):
            raise NotMade(f"what it made, {len(content)} bytes, is not the program")
        made.chmod(0o700)
        # No docker is to be found there, so that every way through it ends with the same line.
        code, said = _run([str(made)], b"", {"PATH": folder})
        if code != 127 or not said.endswith("safe-compose: docker was not run (127)\n"):
            raise NotMade(f"what it made ended with {code}, not with 127: {said.strip().rpartition(chr(10))[2]}")
    return content


def _literal(value: bytes) -> str:
    """As a string of C, whatever bytes it has."""
    return '"' + "".join(f"\\{byte:03o}" for byte in value) + '"'


def _run(argv: list[str], given: bytes, environ: Mapping[str, str]) -> tuple[int, str]:
    """Run it without a terminal: its exit code, and all that it printed. Raise NotMade when it takes too long, and OSError."""
    with subprocess.Popen(
        argv, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as child:
        try:
            said, _ = child.communicate(given, timeout=SECONDS)
        except BaseException as error:  # Ctrl-C too: a compiler is several processes
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise NotMade(f"{Path(argv[0]).name} takes longer than {SECONDS:.0f} s") from error
            raise
    return child.returncode, said.decode("utf-8", "replace")
