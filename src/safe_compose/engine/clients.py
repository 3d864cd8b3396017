"""Byte streams through the real docker binary: it half-closes on every transport, docker-py does not (dependencies.md 2.1).

Each client runs in a session of its own, so a Ctrl-C at the terminal reaches us alone; we end it and remove its container.
"""

import contextlib
import csv
import io
import json
import posixpath
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

from safe_compose.engine.pipe import AT, NeverOpened, Pipe
from safe_compose.errors import BackupFailed
from safe_compose.observed import HELPER_LABEL, PROCESS_LABEL
from safe_compose.process import Process

TAIL = 8192
"""Bytes of stderr that are kept."""
CHUNK = 256 * 1024
DEFAULT_CAPABILITIES = ("default",)
SERVING_PROCESSES = 1024
"""As many as a server of ours may have: a broken one must not take all that the machine has."""
SERVING_SHARES = 512
"""Of the processor, where others have 1024: a trial yields to what serves people."""
_NOT_STARTED = (125, 126, 127)
"""`docker run` ends so when the container, or the program in it, could not be started."""


class HelperFailed(BackupFailed):
    """A container of ours, or a command in one, did not end with 0."""

    def __init__(self, what: str, returncode: int, stderr: str) -> None:
        last = " / ".join(line.strip() for line in stderr.strip().splitlines()[-3:])
        super().__init__(f"{what} failed ({returncode}){': ' + last if last else ''}")
        self.returncode = returncode
        """docker's: 125 when docker could not start it, 126 or 127 when the program could not be; else the program's own."""
        self.stderr = stderr
        """The last 8 KiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Helper:
    """A container of ours. It never pulls, never logs, carries our label and no compose label, and leaves no volume."""

    image: str
    """Image id, so that nothing can be pulled."""
    argv: tuple[str, ...] = ()
    """One bare argv, never a shell pipeline; empty means what the image itself starts."""
    piped: tuple[str, ...] = ()
    """The same program writing into (or, where it is fed, reading from) the file `pipe.AT` instead of its stdout (stdin): for
    what is big, where the daemon shares our file system. Empty: there is no such way."""
    network: str = "none"
    """Or `container:ID`."""
    volumes: tuple[tuple[str, str, bool], ...] = ()
    """(volume's name, path, read only)."""
    binds: tuple[tuple[str, str], ...] = ()
    """(folder of the engine's host, path): only what is the engine's own."""
    tmpfs: tuple[str, ...] = ()
    """Besides these, each VOLUME of the image that nothing is mounted on gets a tmpfs."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Handed over by name; the values stand in the client's environment only."""
    user: str | None = None
    capabilities: tuple[str, ...] = ()
    """All are dropped but these; `("default",)` leaves docker's own set."""
    memory: str | None = None
    """As `--memory` takes it: `256m`."""


class Stream:
    """The running client of a helper or an exec."""

    def __init__(self, stdout: IO[bytes], stdin: IO[bytes] | None, name: str, what: str, abort: Callable[[], None]) -> None:
        self.stdout = stdout
        self.stdin = stdin
        """Writable when `stdin=subprocess.PIPE` was asked; closing it tells the program that the input ends."""
        self.name = name
        """The container's name."""
        self.what = what
        """For a message."""
        self.abort = abort
        """Kill the container, then the client; leaving the block then raises."""


def run_words(
    helper: Helper, name: str, run_id: str, image_volumes: Sequence[str], *, stdin: bool, pipe: Pipe | None = None
) -> list[str]:
    """The words after `docker <globals>` that run a helper in the foreground, its bytes through `pipe` where there is one."""
    words = ["run", "--rm", "--log-driver", "none", *_shared(helper, name, run_id, image_volumes)]
    if pipe is not None:
        mount = _csv(["type=bind", f"source={pipe.path}", f"target={AT}"])
        return [*words, "--mount", mount, *_program(helper.image, helper.piped)]
    return [*words, *(["--interactive"] if stdin else []), *_program(helper.image, helper.argv)]


def create_words(helper: Helper, name: str, run_id: str, image_volumes: Sequence[str]) -> list[str]:
    """The same for one that is started later, and removes itself when it ends."""
    words = ["create", "--rm", "--log-driver", "none", *_shared(helper, name, run_id, image_volumes)]
    return [*words, *_program(helper.image, helper.argv)]


def serve_words(helper: Helper, name: str, run_id: str, image_volumes: Sequence[str]) -> list[str]:
    """The same for one that serves in the background. It keeps a small log and stays when it dies, to tell why it did."""
    words = ["run", "--detach", "--pids-limit", str(SERVING_PROCESSES), "--cpu-shares", str(SERVING_SHARES)]
    words += ["--log-driver", "local", "--log-opt", "max-size=1m", "--log-opt", "max-file=1"]
    words += ["--log-opt", "compress=false"]  # 20.10 refuses a single file that it should compress (run)
    return [*words, *_shared(helper, name, run_id, image_volumes), *_program(helper.image, helper.argv)]


def exec_words(
    container_id: str, argv: Sequence[str], *, stdin: bool, user: str | None, environment: Mapping[str, str]
) -> list[str]:
    """The words after `docker <globals>` that run one bare argv in a container that is not ours."""
    words = ["exec", *(["--interactive"] if stdin else []), *(["--user", user] if user is not None else [])]
    for key in environment:
        words += ["--env", key]
    return [*words, container_id, *argv]


def uncovered(helper: Helper, image_volumes: Sequence[str]) -> list[str]:
    """Paths that need a tmpfs, lest docker makes an anonymous volume for them."""
    taken = {posixpath.normpath(path) for _, path, _ in helper.volumes}
    return [p for p in dict.fromkeys([*helper.tmpfs, *image_volumes]) if posixpath.normpath(p) not in taken]


def marks(run_id: str) -> dict[str, str]:
    """The labels of everything that a run makes for itself. The name of this host is nothing for a daemon that may be another's."""
    facts = {name: fact for name, fact in Process.current().facts().items() if name != "host"}
    return {HELPER_LABEL: run_id, PROCESS_LABEL: json.dumps(facts)}


def _shared(helper: Helper, name: str, run_id: str, image_volumes: Sequence[str]) -> list[str]:
    words = ["--name", name, "--pull=never", "--network", helper.network]
    for key, value in marks(run_id).items():
        words += ["--label", f"{key}={value}"]
    for volume, path, read_only in helper.volumes:
        # without volume-nocopy docker fills an empty volume from the image and changes the owner of its root
        options = ["type=volume", f"source={volume}", f"target={path}", "volume-nocopy=true"]
        words += ["--mount", _csv([*options, "readonly"] if read_only else options)]
    for source, path in helper.binds:
        words += ["--mount", _csv(["type=bind", f"source={source}", f"target={path}"])]
    for path in uncovered(helper, image_volumes):
        words += ["--tmpfs", path]
    for key in helper.environment:
        words += ["--env", key]
    if helper.user is not None:
        words += ["--user", helper.user]
    if helper.capabilities != DEFAULT_CAPABILITIES:
        words += ["--cap-drop", "ALL"]
        for capability in helper.capabilities:
            words += ["--cap-add", capability]
    if helper.memory is not None:
        words += ["--memory", helper.memory]
    return words


def _program(image: str, argv: Sequence[str]) -> list[str]:
    if not argv:
        return [image]
    return ["--entrypoint", argv[0], image, *argv[1:]]


def _csv(fields: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(fields)
    return text.getvalue()


@contextmanager
def client(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    what: str,
    name: str,
    stdin: IO[bytes] | int | None,
    discard: bool,
    clean: Callable[[], None],
    pipe: Pipe | None = None,
    patience: float | None = None,
) -> Iterator[Stream]:
    """Run one docker client for the length of the block.

    Given its argv and environment, what to call it in a message, what it reads (None: nothing; `subprocess.PIPE`: what the
    block writes; a file: copied to it by a thread), whether its stdout is thrown away, and what removes its container.
    Leaving the block normally ends its input, waits for its exit and raises HelperFailed unless that is 0. On any exception,
    Ctrl-C included, the client is killed first (a terminated one would still wait for its container) and `clean` is called.

    With a `pipe` its bytes go through that, in or out as `stdin` tells. NeverOpened is then raised, before any byte was
    read or asked for, when the container could not use it within `patience` seconds; the pipe's name is removed.
    """
    attached = None if pipe is not None else stdin
    child = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL if attached is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environ),
        start_new_session=True,
    )
    assert child.stdout is not None
    stdout, into = child.stdout, child.stdin
    tail = bytearray()
    faults: list[BaseException] = []

    def abort() -> None:
        # The container first: were the client the first to go, the program would take that for the end of its input.
        clean()
        child.kill()

    threads = [threading.Thread(target=_keep_tail, args=(child.stderr, tail), daemon=True)]
    if attached is not None and not isinstance(attached, int):
        threads.append(threading.Thread(target=_feed, args=(attached, child.stdin, faults, abort), daemon=True))
    if discard or pipe is not None:
        threads.append(threading.Thread(target=_discard, args=(child.stdout,), daemon=True))
    try:
        for thread in threads:
            thread.start()
        if pipe is not None:
            try:
                if stdin is None:
                    stdout = pipe.reader(lambda: child.poll() is not None, patience)
                else:
                    into = pipe.writer(lambda: child.poll() is not None, patience)
            except NeverOpened:
                if child.poll() is None or child.returncode in (0, *_NOT_STARTED):
                    raise
                threads[0].join()
                if AT.encode() in tail:
                    raise
                raise HelperFailed(what, child.returncode, bytes(tail).decode("utf-8", "replace")) from None
            finally:
                pipe.remove()
        yield Stream(stdout, into, name, what, abort)
        if stdin == subprocess.PIPE and into is not None:
            # a program that has gone tells its reason by its exit code, which comes next
            with contextlib.suppress(BrokenPipeError):
                into.close()
        unread = not stdout.closed and (stdout is not child.stdout or not discard) and _discard(stdout)
        code = child.wait()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]
        if code:
            raise HelperFailed(what, code, bytes(tail).decode("utf-8", "replace"))
        if stdout is not child.stdout and (unread or stdout.read(1)):
            raise HelperFailed(what, code, "it went on writing after the end of its output")
    except BaseException:
        if child.poll() is None:
            if stdout is not child.stdout:
                pass  # the daemon has nothing to wait for: a killed program leaves a pipe at once
            elif not discard and not stdout.closed:
                # While nobody reads, the engine waits for the client to take the rest, and a removal waits for the engine
                threading.Thread(target=_discard, args=(stdout,), daemon=True).start()
            abort()
            child.wait()
        clean()  # once more: the client may have been about to create the container
        raise
    finally:
        for end in (into, stdout, child.stdin, child.stdout, child.stderr):
            if end is not None:
                with contextlib.suppress(BrokenPipeError):
                    end.close()


def _keep_tail(source: IO[bytes], tail: bytearray) -> None:
    while chunk := source.read1(CHUNK):  # type: ignore[attr-defined]  # a pipe of Popen is a BufferedReader
        tail += chunk
        del tail[:-TAIL]


def _discard(source: IO[bytes]) -> bool:
    """Read to the end; whether there was anything."""
    found = False
    while source.read(CHUNK):
        found = True
    return found


def _feed(source: IO[bytes], target: IO[bytes], faults: list[BaseException], abort: Callable[[], None]) -> None:
    """Copy `source` to the client. A fault of the source fails the stream, and the program never sees an early end."""
    try:
        while chunk := source.read(CHUNK):
            target.write(chunk)
        target.close()
    except BrokenPipeError:
        return  # the program has gone; its exit code tells why
    except Exception as error:  # noqa: BLE001  # raised again by `client`, in the caller's thread
        faults.append(error)
        abort()
