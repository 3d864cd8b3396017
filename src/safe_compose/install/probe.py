"""Probes of every way in which docker is called, with a command that docker does not have.

A route through safe-compose answers it with a word that only this process knows; the real docker
says that there is no such command. Neither has any other effect, and no daemon is asked.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from safe_compose.fastpath import first_look, launch
from safe_compose.system import children

TIMEOUT = 30.0
"""Seconds for one probe: a user's rc files may take their time."""
CRON = "put the shims' folder first in the crontab's PATH"
SUDO = "sudo safe-compose, or the shims' folder first in secure_path"
_TOGETHER = 4


@dataclass(frozen=True, slots=True)
class Route:
    """A way of calling docker."""

    name: str
    argv: tuple[str, ...]
    """The command, which ends in `docker safe-compose-probe`."""
    by: tuple[str, ...]
    """The installable kinds that catch it: `shims`, `plugin`, `rc`; empty: no wrapper can."""
    needs: tuple[str, ...] = ()
    """Programs that it needs."""
    stdin: str = ""
    hint: str = ""
    """Advice for a person."""
    bare: bool = False
    """Whether it gets only HOME and the system's PATH, as with cron and a fresh login."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of one probe."""

    way: str
    verdict: str
    """`caught`, `missed`, or `not tried`."""
    place: str
    """The program that answered: `docker` or `docker-compose` (a shim), `plugin`, `safe-compose` (a
    shell's function or alias)."""
    by: tuple[str, ...]
    why: str = ""
    """Why it was not tried."""
    hint: str = ""


def list_routes(scripts: Path) -> Iterator[Route]:
    """Yield all routes; `scripts` is a folder for those that need a file."""
    probe = first_look.PROBE
    call = f"docker {probe}"
    for shell in ("bash", "zsh", "fish"):
        yield Route(f"{shell}, at a prompt", (shell, "-ic", call), ("shims", "rc"), (shell,))
    yield Route(
        "bash, `command docker` at a prompt",
        ("bash", "-ic", f"command {call}"),
        ("shims",),
        ("bash",),
    )
    yield Route(
        "docker-compose, at a prompt",
        ("bash", "-ic", f"docker-compose {probe}"),
        ("shims", "rc"),
        ("bash",),
    )
    for shell in ("bash", "zsh", "fish"):
        yield Route(f"{shell} -c", (shell, "-c", call), ("shims",), (shell,))
    for shell in ("bash", "zsh", "fish"):
        name = f"{shell} -lc, from an empty environment"
        yield Route(name, (shell, "-lc", call), ("shims",), (shell,), bare=True)
    yield from _list_programs(scripts, probe)
    yield Route(
        "sh -c, docker compose", ("sh", "-c", f"docker compose {probe}"), ("shims", "plugin")
    )
    yield Route("sh -c, docker-compose", ("sh", "-c", f"docker-compose {probe}"), ("shims",))
    yield from _list_bypasses(probe)


def _list_programs(scripts: Path, probe: str) -> Iterator[Route]:
    """Yield the routes on which another program than an interactive shell starts docker."""
    call = f"docker {probe}"
    for name, first in (("bash script", "/bin/bash"), ("sh script", "/bin/sh")):
        path = scripts / name.replace(" ", "-")
        path.write_text(f"#!{first}\n{call}\n", encoding="ascii")
        path.chmod(0o700)
        yield Route(name, (str(path),), ("shims",), (first,))
    yield Route("dash -c", ("dash", "-c", call), ("shims",), ("dash",))
    yield Route(
        "make", ("make", "-s", "-f", "-"), ("shims",), ("make",), stdin=f"all:\n\t@{call}\n"
    )
    yield Route("xargs docker", ("xargs", "docker"), ("shims",), ("xargs",), stdin=f"{probe}\n")
    for words in (("env",), ("timeout", "20"), ("nohup",)):
        yield Route(f"{words[0]} docker", (*words, "docker", probe), ("shims",), (words[0],))
    python = "import subprocess; raise SystemExit(subprocess.call({}))"
    yield Route(
        "Python subprocess, a list",
        (sys.executable, "-Ic", python.format(["docker", probe])),
        ("shims",),
    )
    yield Route(
        "Python subprocess, shell=True",
        (sys.executable, "-Ic", python.format(f"{call!r}, shell=True")),
        ("shims",),
    )


def _list_bypasses(probe: str) -> Iterator[Route]:
    """Yield the routes that PATH never leads through us, or only sometimes."""
    yield Route(
        "cron (its usual PATH), docker",
        ("/bin/sh", "-c", f"docker {probe}"),
        (),
        bare=True,
        hint=CRON,
    )
    yield Route(
        "cron (its usual PATH), docker compose",
        ("/bin/sh", "-c", f"docker compose {probe}"),
        ("plugin",),
        bare=True,
    )
    # sudo drops our variable, so it is set again after it; that env looks for docker where sudo
    # would
    words = ("sudo", "-n", "env", f"{launch.PROBED}=@", "docker")
    yield Route("sudo docker", (*words, probe), (), ("sudo",), hint=SUDO)
    yield Route("sudo docker compose", (*words, "compose", probe), (), ("sudo",), hint=SUDO)
    if docker := launch.search("docker"):
        yield Route("docker, by its path", (docker, probe), ())
        yield Route("docker compose, by its path", (docker, "compose", probe), ("plugin",))
    if compose := launch.search("docker-compose"):
        yield Route("docker-compose, by its path", (compose, probe), ())


def probe_all(
    environ: Mapping[str, str], on_each: Callable[[], object] = lambda: None
) -> list[ProbeResult]:
    """Call docker in every way that this machine has, from this environment.

    Takes a few seconds.
    """
    with (
        tempfile.TemporaryDirectory(prefix="safe-compose-doctor-") as scripts,
        ThreadPoolExecutor(_TOGETHER) as pool,
    ):

        def attempt(route: Route) -> ProbeResult:
            done = _probe(route, environ)
            on_each()
            return done

        return list(pool.map(attempt, list(list_routes(Path(scripts)))))


def _probe(route: Route, environ: Mapping[str, str]) -> ProbeResult:
    word = secrets.token_hex(8)
    given = dict(environ)
    if route.bare:
        path = os.pathsep.join(
            ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        )
        given = {
            name: value for name, value in environ.items() if name in ("HOME", "USER", "LOGNAME")
        } | {"PATH": path}
    given = {
        name: value
        for name, value in given.items()
        if name not in (launch.TRAIL, "SAFE_COMPOSE", "BASH_ENV", "ENV")
    }
    given[launch.PROBED] = word
    for program in route.needs:
        if shutil.which(program, path=given.get("PATH", os.defpath)) is None:
            return ProbeResult(route.name, "not tried", "", route.by, f"there is no {program} here")
    argv = [part.replace("@", word) if part.endswith("=@") else part for part in route.argv]
    code, out, err = _run(argv, route.stdin, given)
    if code is None:
        return ProbeResult(
            route.name, "not tried", "", route.by, f"no answer within {TIMEOUT:.0f} s"
        )
    if route.needs == ("sudo",) and code != 0 and "sudo:" in err:
        return ProbeResult(route.name, "not tried", "", route.by, "sudo asks for a password")
    for line in out.splitlines():
        if line.startswith(f"{first_look.PROBE} {word} "):
            return ProbeResult(route.name, "caught", line.split()[-1], route.by)
    return ProbeResult(route.name, "missed", "", route.by, hint=route.hint)


def _run(
    argv: Sequence[str], stdin: str, environ: Mapping[str, str]
) -> tuple[int | None, str, str]:
    """Run a program in its own session; return its exit code, stdout and stderr.

    In its own session no interactive shell takes our terminal. The code is None when the program
    did not end in time.
    """
    try:
        done = children.run(
            argv, given=stdin.encode(), environ=dict(environ), seconds=TIMEOUT, largest=1 << 20
        )
    except OSError as error:
        return 127, "", str(error)
    except (subprocess.TimeoutExpired, children.TooMuch):
        return None, "", ""
    return (
        done.returncode,
        done.stdout.decode("utf-8", "replace"),
        done.stderr.decode("utf-8", "replace"),
    )
