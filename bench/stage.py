"""Where it is measured: a folder of its own, a throwaway copy of the example, and processes that
are timed.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testing.projects import LAB, ComposeProject, docker, example_project, real_docker, unique

PROGRAM = str(Path(sys.executable).with_name("safe-compose"))
TOO_LONG = 600
"""Seconds after which a command counts as hanging."""
_IDLE = """
services:
  idle:
    image: postgres:15
    volumes: [data:/data]
volumes:
  data:
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """One project on the engine, its folder, and our store next to it."""

    project: ComposeProject
    idle: Path
    """The folder of a project that was never started: `compose down` has nothing to do there."""
    stopped: str
    """A container that was created and never started."""
    scratch: Path
    """For files of all kinds."""
    environ: Mapping[str, str]
    """With the store in the scratch folder, so that nobody's own is touched."""

    @property
    def database(self) -> str:
        """The name of the database's container."""
        return f"{self.project.name}-db-1"

    @property
    def volume(self) -> str:
        """The name of the database's volume."""
        return f"{self.project.name}_postgres_data"


@contextmanager
def stage(rows: int) -> Iterator[Stage]:
    """The example with `rows` users, running. All of it is removed afterwards, and nothing else."""
    folder = LAB / "bench" / unique("bench")
    (folder / "idle").mkdir(parents=True)
    (folder / "idle" / "compose.yaml").write_text(
        f"name: {unique('scidle')}{_IDLE}", encoding="utf-8"
    )
    stopped = unique("scstopped")
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ["SAFE_COMPOSE_HOME"] = str(folder / "store")
    try:
        docker(
            "create", "--name", stopped, "--network", "none", "--pull", "never", "dating-bot:latest"
        )
        with example_project(folder, rows=rows) as project:
            yield Stage(project, folder / "idle", stopped, folder, environ)
    finally:
        docker("rm", "--volumes", stopped, check=False)
        shutil.rmtree(folder)


def timed(
    argv: Sequence[str],
    *,
    cwd: Path,
    environ: Mapping[str, str],
    stdin: Path | None = None,
    check: bool = True,
) -> float:
    """Run a program to its end without a terminal, its output discarded; the seconds it took."""
    with (stdin or Path(os.devnull)).open("rb") as source:
        begun = time.perf_counter()
        done = subprocess.run(
            argv,
            cwd=cwd,
            env=environ,
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=TOO_LONG,
        )
        took = time.perf_counter() - begun
    if check and done.returncode:
        raise SystemExit(
            f"bench: {' '.join(argv)} ended with"
            f" {done.returncode}:\n{done.stderr.decode(errors='replace')}"
        )
    return took


def shell(script: str, *, cwd: Path, environ: Mapping[str, str]) -> float:
    """The seconds that a pipeline takes in bash; it fails when any part of it does."""
    return timed(["bash", "-c", f"set -euo pipefail; {script}"], cwd=cwd, environ=environ)


def watched(argv: Sequence[str], *, cwd: Path, environ: Mapping[str, str]) -> tuple[float, int]:
    """Run a program of ours; the seconds it took, and the most memory that it had itself, without
    its children, in bytes.

    VmHWM in /proc/PID/status is the highest mark so far, so the last look before its end tells it
    (proc(5); Linux only).
    """
    begun = time.perf_counter()
    nowhere = subprocess.DEVNULL
    child = subprocess.Popen(
        argv, cwd=cwd, env=environ, stdin=nowhere, stdout=nowhere, stderr=subprocess.PIPE
    )
    highest = 0
    words = b""
    assert child.stderr is not None
    os.set_blocking(child.stderr.fileno(), False)
    while child.poll() is None:
        highest = max(highest, high_mark(child.pid))
        words += child.stderr.read() or b""
        time.sleep(0.01)
    took = time.perf_counter() - begun
    words += child.stderr.read() or b""
    child.stderr.close()
    if child.returncode:
        raise SystemExit(
            f"bench: {' '.join(argv)} ended with"
            f" {child.returncode}:\n{words.decode(errors='replace')}"
        )
    return took, highest


def high_mark(pid: int) -> int:
    """The most memory that a process has had so far, in bytes; 0 when it has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0  # it has just ended, or there is no /proc
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


__all__ = [
    "PROGRAM",
    "Stage",
    "docker",
    "high_mark",
    "real_docker",
    "shell",
    "stage",
    "timed",
    "watched",
]
