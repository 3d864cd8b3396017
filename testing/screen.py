"""The screen that our verbs leave on a terminal of some width, as an emulator shows it.

They run in a child that is forked from the test: the imports, which take longer than most verbs,
are there already.
"""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import pyte

from safe_compose import faults
from safe_compose.cli import app, verbs
from safe_compose.errors import SafeComposeError

PROGRAM = str(Path(sys.executable).with_name("safe-compose"))
LONGEST = 600
"""Lines that are kept: what scrolls off a real terminal is seen here all the same."""


def show(*argv: str, width: int, cwd: Path, env: Mapping[str, str]) -> list[str]:
    """Run a verb on a terminal of so many columns, and return the lines that it shows."""
    return emulate(run(*argv, width=width, cwd=cwd, env=env), width)


def run(*argv: str, width: int, cwd: Path, env: Mapping[str, str], messages: bool = False) -> bytes:
    """Run a verb on a terminal, and return what it writes there.

    With `messages` stderr is that terminal as well.
    """
    verbs.load(None)
    child, descriptor = pty.fork()
    if child == 0:
        # pytest's workers have a size of their own in the environment.
        sizeless = {key: value for key, value in env.items() if key not in ("COLUMNS", "LINES")}
        _become(argv, cwd, {"TERM": "xterm-256color", **sizeless}, messages=messages)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    os.write(descriptor, b"\n")  # it waits for its terminal to be of that size
    written = b""
    with suppress(OSError):  # EIO when the last one that had it open has gone
        while more := os.read(descriptor, 1 << 16):
            written += more
    os.close(descriptor)
    os.waitpid(child, 0)
    return written.removeprefix(b"\r\n")


def pipe(*argv: str, cwd: Path, env: Mapping[str, str]) -> str:
    """Run a verb whose stdout is a pipe, and return what it writes there."""
    verbs.load(None)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.dup2(writer, 1)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 2)
        os.closerange(3, 256)
        _become(argv, cwd, env, wait=False)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as written:
        text = written.read()
    os.waitpid(child, 0)
    return text


def emulate(written: bytes, width: int) -> list[str]:
    """Return the lines that a terminal shows of what was written to it."""
    screen = pyte.Screen(width, LONGEST)
    pyte.ByteStream(screen).feed(written)
    lines = [line.rstrip() for line in screen.display]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def find_broken(written: bytes, width: int) -> set[str]:
    """Return the words that a terminal of this width shows on more than one row.

    Those that are as wide as the terminal, or nearly so, do not count.
    """
    words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode()).split()
    shown = {*" ".join(emulate(written, width)).split()}
    return {word for word in words if len(word) < width - 6 and word not in shown}


def _become(
    argv: tuple[str, ...],
    cwd: Path,
    env: Mapping[str, str],
    *,
    wait: bool = True,
    messages: bool = False,
) -> None:
    """Run a verb as the whole of this process, as the entry point does; never return."""
    code = 70
    try:
        if wait:
            os.read(0, 1)
            if not messages:  # progress is another matter
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        streams: list[IO[str]] = [os.fdopen(n, "w", encoding="utf-8") for n in (1, 2)]
        sys.stdout, sys.stderr = streams
        sys.__stdout__ = streams[0]  # type: ignore[misc, assignment]
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        try:
            code = app.run(argv)
        except SafeComposeError as fault:
            code = faults.end(fault.code, fault.lines(), fault.next_step, about_docker=False)
        for stream in streams:
            stream.flush()
    finally:
        os._exit(code)
