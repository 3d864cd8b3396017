"""From Enter to the first paint of the confirmation screen, against `docker compose config` alone."""

import os
import pty
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import table
from pairs import Pairs, alternate
from stage import PROGRAM, Stage, docker, real_docker, timed

from safe_compose.engine import connect
from testing.projects import unique

VOLUMES = 200
MANY = 2000
CONTAINERS = 50
FIRST_LINE = b"This command deletes "
_THREE = """
name: {name}
services:
  db:
    image: postgres:15
    volumes: [data:/var/lib/postgresql/data]
  bot:
    image: dating-bot:latest
    volumes: [photos:/app/photos]
  loki:
    image: grafana/loki:latest
    volumes: [logs:/loki]
volumes: {{data: , photos: , logs: }}
"""


def rows(stage: Stage, rounds: int) -> list[table.Row]:
    """The confirmation screen of a project of three services against `docker compose config` while
    there are more and more of others' things on the engine, and how its time grows with them.
    """
    found = []
    config = [real_docker(), "compose", "config", "--format", "json"]
    with three_services(stage) as folder:
        bare = partial(timed, config, cwd=folder, environ=stage.environ)
        painted = partial(first_paint, stage, folder)

        def measured(name: str) -> Pairs:
            pairs = alternate(name, bare, painted, rounds)
            found.append(table.pair(pairs))
            return pairs

        few = measured("confirmation of down -v / compose config")
        with many_volumes(VOLUMES) as names:
            some = measured(f"the same, {VOLUMES} more volumes there")
            with many_containers(names[:CONTAINERS]):
                crowd = measured(f"the same, and {CONTAINERS} more containers")
        with many_volumes(MANY):
            most = measured(f"the same, {MANY} more volumes there")
    more = (
        (f"{VOLUMES} volumes", some),
        (f"{VOLUMES} volumes and {CONTAINERS} containers", crowd),
        (f"{MANY} volumes", most),
    )
    return found + [
        table.pair(_growth(f"confirmation with {name} / with none", few, then))
        for name, then in more
    ]


def _growth(name: str, before: Pairs, after: Pairs) -> Pairs:
    """The same thing at two times, pair by pair: the second is scaled by how fast `config` was then
    and before.
    """
    speeds = (b / a for b, a in zip(before.baseline, after.baseline, strict=True))
    return Pairs(
        name,
        before.contender,
        tuple(c * speed for c, speed in zip(after.contender, speeds, strict=True)),
    )


@contextmanager
def three_services(stage: Stage) -> Iterator[Path]:
    """The folder of a project of three services whose containers were created and never started."""
    folder = stage.scratch / "three"
    folder.mkdir()
    (folder / "compose.yaml").write_text(_THREE.format(name=unique("scthree")), encoding="utf-8")
    try:
        docker("compose", "create", "--pull", "never", cwd=folder)
        yield folder
    finally:
        docker("compose", "down", "--volumes", cwd=folder, check=False)


def first_paint(stage: Stage, folder: Path) -> float:
    """Seconds until the first line of the confirmation screen is on a terminal. Nobody answers: the
    command is then interrupted.
    """
    begun = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # a bench in the background of a script was started with it ignored
        os.chdir(folder)
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
        raise SystemExit(
            f"bench: no confirmation screen was shown:\n{seen.decode(errors='replace')}"
        )
    return took


@contextmanager
def many_volumes(count: int) -> Iterator[list[str]]:
    """So many empty volumes of nobody's, for the length of a block; their names."""
    prefix = unique("scmany")
    names = [f"{prefix}-{number}" for number in range(count)]
    try:
        with connect(real_docker(), (), environ=dict(os.environ), run_id=prefix) as engine:
            for name in names:
                engine.docker.create_volume(name)
        yield names
    finally:
        for first in range(0, count, VOLUMES):
            docker("volume", "rm", "--force", *names[first : first + VOLUMES], check=False)


@contextmanager
def many_containers(volumes: Sequence[str]) -> Iterator[None]:
    """A container for each of these volumes, never started."""
    words = ("create", "--network", "none", "--pull", "never", "--volume")
    try:
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(
                pool.map(
                    lambda name: docker(
                        *words, f"{name}:/data", "--name", name, "dating-bot:latest"
                    ),
                    volumes,
                )
            )
        yield
    finally:
        docker("rm", "--force", *volumes, check=False)
