"""Inputs of compose that can be read only once: pipes, terminals, open descriptors of this process.

A query to compose that empties a pipe leaves docker nothing to read, and one that does not see a
descriptor proves nothing about the command. So a pipe that is named as a descriptor (`<(...)`,
/dev/stdin) is read here, once, and a copy in memory takes its number, which compose and docker can
open any number of times. A path that can be read only once is refused before anything opens it.
"""

import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from safe_compose.core.text import shell_quote
from safe_compose.errors import Refused
from safe_compose.record import NamedTuple

TYPE_CHECKING = False  # typing would cost 3 ms before compose is asked
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object

SECONDS = 30.0
"""Seconds for a pipe to end; docker would wait for ever."""
LARGEST = 32 << 20
"""Largest size in bytes of a compose file or an env file."""
_MOST_LINKS = 40
"""Most symbolic links in one path, as many as Linux follows (path_resolution(7))."""
_MOST_FILES = 200
"""Most compose files that `include` and `extends` lead to."""
_LEADS = ("env_file", "label_file", "include", "extends")
"""Keys whose files compose reads to load a project. Those of `secrets` and `configs` are mounted,
not read."""
_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device"}
_WORD = re.compile(r"[^\s,\[\]{}\"'][^,\[\]{}\"'\n]*")


class NamedFiles(Protocol):
    """The files that the flags, variables and folders of a command name (`files.Files`)."""

    files: list[Path]
    named: list[Path]
    """All paths that compose opens because of them, descriptors included."""
    reads_stdin: bool
    """Whether `-` stands for stdin."""
    working_dir: Path

    def values(self) -> Mapping[str, str]:
        """Return the values of variables in the compose files."""
        ...


class SingleUseInputs(NamedTuple):
    """The inputs that were read, or must be inherited, so that compose sees what docker sees."""

    stdin: bytes | None = None
    """The content of stdin for `-f -`."""
    descriptors: tuple[int, ...] = ()
    """Descriptors that are open here and named as files; each can be opened again."""


def read_inputs(find: Callable[[], NamedFiles]) -> SingleUseInputs:
    """Read the inputs that can be read only once, and put a copy in the place of each.

    Args:
        find: Finds the files. Called again after each reading: an env file may name compose files.

    Raises:
        Refused: One of them is a pipe at a path, a terminal or a device, does not end, or is too
            large.
    """
    held: set[int] = set()
    while True:
        files = find()
        paths = [*files.named, *_list_named_files(files)]
        new = {
            number: path
            for path in paths
            if (number := find_descriptor(path)) is not None and number not in held
        }
        if not new:
            break
        for number, path in new.items():
            _hold(number, path)
        held |= set(new)
    _refuse_paths(paths)
    if not files.reads_stdin:
        return SingleUseInputs(None, tuple(sorted(held)))
    if 0 in held:
        raise Refused(
            "both - and /dev/stdin are to be read, and stdin can be read only once; docker was"
            " not run"
        )
    return SingleUseInputs(_content(0, Path("/dev/stdin")), tuple(sorted(held)))


def refuse(files: NamedFiles) -> None:
    """Refuse a pipe, a socket or a device at a path that compose would read.

    Nothing is read.

    Raises:
        Refused: There is one.
    """
    _refuse_paths([*files.named, *_list_named_files(files)])


def is_any(files: NamedFiles) -> bool:
    """Return whether any input of compose for a command can be read only once.

    Nothing is read.
    """
    paths = [*files.named, *_list_named_files(files)]
    return files.reads_stdin or any(
        find_descriptor(path) is not None or _kind(path) is not None for path in paths
    )


def find_descriptor(path: str | Path) -> int | None:
    """Return the descriptor of this process that a path leads to, or None.

    Symbolic links are followed.
    """
    # `resolve` would follow the link that the descriptor itself is
    at = os.path.abspath(path)  # noqa: PTH100
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(at)
        real = os.path.realpath(folder)
        if (
            real in ("/dev/fd", f"/proc/{os.getpid()}/fd", "/proc/self/fd")
            and name.isascii()
            and name.isdigit()
        ):
            return int(name)
        at = os.path.join(real, name)  # noqa: PTH118
        try:
            at = os.path.join(real, os.readlink(at))  # noqa: PTH115, PTH118
        except OSError:
            return None
    return None


def read_again(path: Path) -> bytes | None:
    """Return the bytes of a file that can be read again, or None.

    Never waits.
    """
    try:
        # checked before it is opened: opening alone would end a process that waits to write to a
        # pipe
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return file.read(LARGEST) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
    except OSError:
        return None


def duplicate(number: int) -> int:
    """Return a new descriptor of the same file with its own offset, for a child's stdin.

    Raises:
        OSError: It cannot be opened.
    """
    return os.open(f"/proc/self/fd/{number}", os.O_RDONLY | os.O_CLOEXEC)


# -- internal --------------------------------------------------------------------------------------


def _kind(path: Path) -> str | None:
    """Describe what a path leads to, or return None when it can be read again or does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None  # compose itself reports this
    return None if _is_null(found) else _KINDS.get(stat.S_IFMT(found.st_mode))


def _is_null(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == os.stat(os.devnull).st_rdev  # noqa: PTH116


def _refuse_paths(paths: Sequence[Path]) -> None:
    for path in paths:
        if find_descriptor(path) is None and (kind := _kind(path)) is not None:
            raise _refusal(f"{path} is {kind}", path)


def _refusal(what: str, path: Path) -> Refused:
    return Refused(
        f"{what}, which can be read only once: asking compose what the project has would leave"
        " docker nothing to read; nothing was done",
        next_step=(
            f"write it into a file (cat {shell_quote(str(path))} > NAME), and name that file"
            " instead"
        ),
    )


def _hold(number: int, path: Path) -> None:
    """Replace a descriptor by one that can be opened again.

    Raises:
        Refused: It is no pipe, or cannot be read.
    """
    try:
        found = os.fstat(number)
    except OSError:
        return  # closed: compose does not find it either
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) or _is_null(found):
        return
    if not stat.S_ISFIFO(found.st_mode) or number in (1, 2) or sys.platform != "linux":
        kind = (
            "a pipe"
            if stat.S_ISFIFO(found.st_mode)
            else "a terminal"
            if os.isatty(number)
            else "no file"
        )
        raise _refusal(f"{path} is {kind}", path)
    data = _content(number, path)
    copy = os.memfd_create("safe-compose")
    with os.fdopen(copy, "wb") as file:
        file.write(data)
        file.flush()
        os.dup2(copy, number, inheritable=True)
    # a reader of the descriptor itself finds the end, as with a pipe that was read
    os.lseek(number, 0, os.SEEK_END)


def _content(number: int, path: Path) -> bytes:
    """Return all that a descriptor delivers.

    Raises:
        Refused: It does not end, cannot be read, or is too large.
    """
    until = None if os.isatty(number) else time.monotonic() + SECONDS
    ready = select.poll()
    ready.register(number, select.POLLIN | select.POLLHUP)
    data = bytearray()
    while True:
        left = None if until is None else max(0.0, until - time.monotonic()) * 1000
        if not ready.poll(left):
            raise Refused(
                f"{path} did not come to its end within {SECONDS:.0f} s; docker was not run"
            )
        try:
            more = os.read(number, 1 << 16)
        except OSError as error:
            raise Refused(f"{path} cannot be read: {error.strerror}; docker was not run") from error
        data += more
        if not more:
            return bytes(data)
        if len(data) > LARGEST:
            raise Refused(f"{path} has more than {LARGEST >> 20} MiB; docker was not run")


# -- content of compose files ----------------------------------------------------------------------


def _list_named_files(files: NamedFiles) -> list[Path]:
    """Return the files that compose files name and compose reads, if one can be read only once.

    YAML is parsed only if a word somewhere leads to such a file: parsing it costs as much as
    compose itself.
    """
    sources = [
        path for path in files.named if path in files.files or find_descriptor(path) is not None
    ]
    texts = dict(_walk_files(sources, files))
    env_files = [at.parent / ".env" for at in texts if at not in sources]  # of included files
    elsewhere = [(at, text) for at, text in texts.items() if "project_directory" in text]
    env_files += [
        path / ".env" for at, text in elsewhere for path in _paths(_words(text), at, files)
    ]
    if not any(
        _is_once(path) for at, text in texts.items() for path in _paths(_words(text), at, files)
    ):
        return env_files
    return [
        *env_files,
        *(path for at, text in texts.items() for path in _paths(_values(text), at, files)),
    ]


def _walk_files(sources: Sequence[Path], files: NamedFiles) -> Iterator[tuple[Path, str]]:
    """Yield each compose file, also those of `include` and `extends`, with its text.

    The text is empty where it names no further files.
    """
    waiting, seen = list(sources), set(sources)
    while waiting and len(seen) <= _MOST_FILES:
        at = waiting.pop()
        text = (read_again(at) or b"").decode("utf-8", "replace")
        leads = "\\" in text or any(key in text for key in _LEADS)
        yield at, text if leads else ""
        if leads and ("include" in text or "extends" in text):
            found = {
                path for path in _paths(_words(text), at, files) if path.suffix in (".yml", ".yaml")
            } - seen
            # Path.is_file raises for a name that is too long
            waiting += sorted(path for path in found if os.path.isfile(path))  # noqa: PTH113
            seen |= found


def _is_once(path: Path) -> bool:
    return find_descriptor(path) not in (None, 1, 2) or _kind(path) is not None


def _paths(words: Iterator[str], at: Path, files: NamedFiles) -> Iterator[Path]:
    """Yield the paths to which words of a compose file may lead.

    They start from its own folder and from the project's.
    """
    values: Mapping[str, str] | None = None
    for word in dict.fromkeys(words):
        if "$" in word:
            values = files.values() if values is None else values
            word = _interpolate(word, values)
        if word and "\0" not in word and len(word) < 4096:
            yield from dict.fromkeys((at.parent / word, files.working_dir / word))


def _words(text: str) -> Iterator[str]:
    """Yield all words that may be values, and some that are not."""
    for found in _WORD.findall(text):
        piece = found.strip()
        while piece[:2] == "- ":
            piece = piece[2:].strip()
        yield piece
        yield piece.partition(" ")[0]
        if ": " in piece:
            yield piece.rpartition(": ")[2].strip().partition(" #")[0].strip()


def _values(text: str) -> Iterator[str]:
    """Yield the values of the keys whose files compose reads.

    Of a text that cannot be parsed, every word is yielded.
    """
    from safe_compose.credentials import compose_yaml

    try:
        scalars = compose_yaml.scalars(text, aliases=True)
    except compose_yaml.BadYaml:
        yield from _words(text)  # compose may load it all the same
        return
    for scalar in scalars:
        path = scalar.path
        if (
            path[:1] == ("include",)
            or "env_file" in path
            or "label_file" in path
            or path[-2:] == ("extends", "file")
        ):
            yield scalar.value


def _interpolate(word: str, values: Mapping[str, str]) -> str:
    """Replace variables in a word.

    The forms that name files are `$X`, `${X}`, `${X:-other}` and `${X-other}`.
    """

    def value(found: re.Match[str]) -> str:
        given = values.get(found[1] or found[2])
        return (given if given or (given is not None and found[3] != ":-") else found[4]) or ""

    return re.sub(r"\$(?:(\w+)|\{(\w+)(?:(:?-)([^}]*))?\})", value, word)
