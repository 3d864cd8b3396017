"""Every way in which docker is called, tried with a command that docker does not have.

A way of ours answers it with a word that only this process knows; the real docker says that there is no such command. Nothing
else happens in either case, and no daemon is asked.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from safe_compose import harmless, shim

TIMEOUT = 30.0
"""Seconds for one try: somebody's rc files may take their time."""
CRON = "put the shims' folder first in the crontab's PATH"
SUDO = "sudo safe-compose, or the shims' folder first in secure_path"
_TOGETHER = 4


@dataclass(frozen=True, slots=True)
class Way:
    """One way of calling docker."""

    name: str
    argv: tuple[str, ...]
    """Ends up at `docker safe-compose-probe`."""
    by: tuple[str, ...]
    """What can be installed that catches it: of `shims`, `plugin`, `rc`; nothing: no wrapper can."""
    needs: tuple[str, ...] = ()
    """Programs that it takes."""
    stdin: str = ""
    hint: str = ""
    """What a person can do about it."""
    bare: bool = False
    """Nothing but HOME and the system's PATH, as cron and a fresh login have it."""


@dataclass(frozen=True, slots=True)
class Try:
    """What came of it."""

    way: str
    verdict: str
    """`caught`, `missed`, or `not tried`."""
    place: str
    """Who answered: `docker` or `docker-compose` (a shim), `plugin`, `safe-compose` (a shell's function or alias)."""
    by: tuple[str, ...]
    why: str = ""
    """Why it was not tried."""
    hint: str = ""


def ways(scripts: Path) -> Iterator[Way]:
    """All of them; `scripts`: a folder for those that need a file."""
    probe = harmless.PROBE
    call = f"docker {probe}"
    for shell in ("bash", "zsh", "fish"):
        yield Way(f"{shell}, at a prompt", (shell, "-ic", call), ("shims", "rc"), (shell,))
    yield Way("bash, `command docker` at a prompt", ("bash", "-ic", f"command {call}"), ("shims",), ("bash",))
    yield Way("docker-compose, at a prompt", ("bash", "-ic", f"docker-compose {probe}"), ("shims", "rc"), ("bash",))
    for shell in ("bash", "zsh", "fish"):
        yield Way(f"{shell} -c", (shell, "-c", call), ("shims",), (shell,))
    for shell in ("bash", "zsh", "fish"):
        yield Way(f"{shell} -lc, from an empty environment", (shell, "-lc", call), ("shims",), (shell,), bare=True)
    for name, first in (("bash script", "/bin/bash"), ("sh script", "/bin/sh")):
        path = scripts / name.replace(" ", "-")
        path.write_text(f"#!{first}\n{call}\n", encoding="ascii")
        path.chmod(0o700)
        yield Way(name, (str(path),), ("shims",), (first,))
    yield Way("dash -c", ("dash", "-c", call), ("shims",), ("dash",))
    yield Way("make", ("make", "-s", "-f", "-"), ("shims",), ("make",), stdin=f"all:\n\t@{call}\n")
    yield Way("xargs docker", ("xargs", "docker"), ("shims",), ("xargs",), stdin=f"{probe}\n")
    for words in (("env",), ("timeout", "20"), ("nohup",)):
        yield Way(f"{words[0]} docker", (*words, "docker", probe), ("shims",), (words[0],))
    python = "import subprocess; raise SystemExit(subprocess.call({}))"
    yield Way("Python subprocess, a list", (sys.executable, "-Ic", python.format(["docker", probe])), ("shims",))
    yield Way("Python subprocess, shell=True", (sys.executable, "-Ic", python.format(f"{call!r}, shell=True")), ("shims",))
    yield Way("sh -c, docker compose", ("sh", "-c", f"docker compose {probe}"), ("shims", "plugin"))
    yield Way("sh -c, docker-compose", ("sh", "-c", f"docker-compose {probe}"), ("shims",))
    yield from _past_the_path(probe)


def _past_the_path(probe: str) -> Iterator[Way]:
    """Those that no PATH leads to us, or only sometimes."""
    yield Way("cron (its usual PATH), docker", ("/bin/sh", "-c", f"docker {probe}"), (), bare=True, hint=CRON)
    yield Way("cron (its usual PATH), docker compose", ("/bin/sh", "-c", f"docker compose {probe}"), ("plugin",), bare=True)
    # sudo drops our variable, so it is given again behind it; that env looks for docker where sudo would
    words = ("sudo", "-n", "env", f"{shim.PROBED}=@", "docker")
    yield Way("sudo docker", (*words, probe), (), ("sudo",), hint=SUDO)
    yield Way("sudo docker compose", (*words, "compose", probe), (), ("sudo",), hint=SUDO)
    if docker := shim.search("docker"):
        yield Way("docker, by its path", (docker, probe), ())
        yield Way("docker compose, by its path", (docker, "compose", probe), ("plugin",))
    if compose := shim.search("docker-compose"):
        yield Way("docker-compose, by its path", (compose, probe), ())


def try_all(environ: Mapping[str, str], on_each: Callable[[], object] = lambda: None) -> list[Try]:
    """Call docker in every way that this machine has, from this environment. Takes a few seconds."""
    with tempfile.TemporaryDirectory(prefix="safe-compose-doctor-") as scripts, ThreadPoolExecutor(_TOGETHER) as pool:

        def attempt(way: Way) -> Try:
            done = _try(way, environ)
            on_each()
            return done

        return list(pool.map(attempt, list(ways(Path(scripts)))))


def _try(way: Way, environ: Mapping[str, str]) -> Try:
    word = secrets.token_hex(8)
    given = dict(environ)
    if way.bare:
        path = os.pathsep.join(["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
        given = {name: value for name, value in environ.items() if name in ("HOME", "USER", "LOGNAME")} | {"PATH": path}
    given = {name: value for name, value in given.items() if name not in (shim.TRAIL, "SAFE_COMPOSE", "BASH_ENV", "ENV")}
    given[shim.PROBED] = word
    for program in way.needs:
        if shutil.which(program, path=given.get("PATH", os.defpath)) is None:
            return Try(way.name, "not tried", "", way.by, f"there is no {program} here")
    argv = [part.replace("@", word) if part.endswith("=@") else part for part in way.argv]
    code, out, err = _run(argv, way.stdin, given)
    if code is None:
        return Try(way.name, "not tried", "", way.by, f"no answer within {TIMEOUT:.0f} s")
    if way.needs == ("sudo",) and code != 0 and "sudo:" in err:
        return Try(way.name, "not tried", "", way.by, "sudo asks for a password")
    for line in out.splitlines():
        if line.startswith(f"{harmless.PROBE} {word} "):
            return Try(way.name, "caught", line.split()[-1], way.by)
    return Try(way.name, "missed", "", way.by, hint=way.hint)


def _run(argv: Sequence[str], stdin: str, environ: Mapping[str, str]) -> tuple[int | None, str, str]:
    """In a session of its own, so that no interactive shell takes our terminal. No code: it did not end in time."""
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=dict(environ), start_new_session=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
    except OSError as error:
        return 127, "", str(error)
    try:
        out, err = child.communicate(stdin, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return None, "", ""
    return child.returncode, out, err
