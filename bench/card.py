"""From Enter to the first paint of the card, against `docker compose config` alone."""

import os
import pty
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import table
from pairs import alternate
from stage import PROGRAM, Stage, docker, real_docker, timed

from lab.projects import unique

VOLUMES = 200
FIRST_LINE = b"This command deletes volumes for good."


def rows(stage: Stage, rounds: int) -> list[table.Row]:
    """The comparison on the engine as it is, and with many more volumes on it."""
    config = [real_docker(), "compose", "config", "--format", "json"]
    bare = partial(timed, config, cwd=stage.project.folder, environ=stage.environ)
    painted = partial(first_paint, stage)
    few = alternate("card of down -v / compose config", bare, painted, rounds)
    with many_volumes(VOLUMES):
        many = alternate(f"the same, {VOLUMES} more volumes there", bare, painted, rounds)
    return [table.pair(few), table.pair(many)]


def first_paint(stage: Stage) -> float:
    """Seconds until the card's first line stands on a terminal. Nobody answers: the command is then interrupted."""
    begun = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(stage.project.folder)
        os.execve(PROGRAM, [PROGRAM, "compose", "down", "-v"], {**stage.environ, "TERM": "xterm"})
    seen = b""
    took = None
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        while True:
            try:
                piece = screen.read(65536)
            except OSError:
                break  # EIO: the other side has closed (pty(7))
            if not piece:
                break
            seen += piece
            if took is None and FIRST_LINE in seen:
                took = time.perf_counter() - begun
                os.kill(pid, signal.SIGINT)
    os.waitpid(pid, 0)
    if took is None:
        raise SystemExit(f"bench: no card was painted:\n{seen.decode(errors='replace')}")
    return took


@contextmanager
def many_volumes(count: int) -> Iterator[None]:
    """So many empty volumes of nobody's, for the length of a block."""
    prefix = unique("scmany")
    names = [f"{prefix}-{number}" for number in range(count)]
    try:
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(lambda name: docker("volume", "create", name), names))
        yield
    finally:
        docker("volume", "rm", "--force", *names, check=False)
