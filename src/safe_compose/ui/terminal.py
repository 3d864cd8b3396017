"""The terminal: plain lines, the typed phrase, progress, and the console for live output.

All output to stdout, stderr and the terminal goes through this module (or through `faults.say`,
which needs no import) and through `make_visible`. Output before docker runs goes to stderr; an
answer is never read from stdin.
"""

import io
import json
import os
import shutil
import sys
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, cast

from rich.cells import cell_len, set_cell_size

from safe_compose.core.line_wrap import wrap_line
from safe_compose.core.quantities import format_seconds, format_size
from safe_compose.core.text import (
    make_lines_visible,
    make_visible,
    shell_quote_always,
)
from safe_compose.errors import Interrupted, Refused, SafeComposeError
from safe_compose.system.terminal_columns import read_columns
from safe_compose.ui.colours import is_dumb, make_painter
from safe_compose.ui.lines import Line, fold_question

if TYPE_CHECKING:
    from rich.console import Console

TYPED_AHEAD = 100
"""Most lines typed ahead that are examined: `yes` never ends."""
_BAR = 20
"""Columns of a progress bar."""
END_OF_INPUT = "end of input at the prompt; nothing was done"


class _Stderr(io.TextIOBase):
    """The stderr of this process, whose errors are ignored.

    It may be closed, full, a pipe without a reader, or a terminal that has gone: no backup stops
    for it, and no output goes anywhere else.
    """

    def __init__(self) -> None:
        """Use the current stderr."""
        self._stream = sys.stderr  # the current one: rich replaces it while something live is shown
        self._encoding = getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        with suppress(OSError, ValueError):
            if self._stream is not None:
                self._stream.flush()

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    @property
    def columns(self) -> int:
        """The columns of the terminal that it is; 0 for none."""
        # What rich puts in its place while something live is shown says that it is none.
        stream = getattr(self._stream, "rich_proxied_file", self._stream)
        return read_columns(2) if stream is not None and stream.isatty() else 0

    def fileno(self) -> int:
        """Return 2."""
        return 2

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return the encoding of the stream."""
        return self._encoding


def _open_console() -> "Console":
    """Return a console on stderr, which is a terminal."""
    from rich.console import Console  # longer to import than a list takes

    file = cast(IO[str], _Stderr())
    return Console(file=file, highlight=False, markup=False, emoji=False)


def is_terminal() -> bool:
    """Return whether stderr is a terminal."""
    return _Stderr().isatty()


def is_live() -> bool:
    """Return whether lines on stderr can be changed later.

    `FORCE_COLOR` asks for colours, in a log as well, and not for that.
    """
    return is_terminal() and not is_dumb()


def read_size() -> os.terminal_size:
    """Return columns and rows of the terminal on stderr, as it is now.

    `COLUMNS` may be older than that; it counts where the terminal does not know its size.
    """
    with suppress(OSError, ValueError):
        found = os.get_terminal_size(2)
        if found.columns and found.lines:
            return found
    return shutil.get_terminal_size()


def show_lines(lines: Sequence[Line], *, over: int | None = None) -> None:
    """Print lines on stderr in their styles, as the terminal and `NO_COLOR` allow.

    Args:
        lines: The lines.
        over: How many lines above the cursor are first cleared, on a live terminal.
    """
    stderr = _Stderr()
    paint = make_painter(is_terminal=stderr.isatty())
    painted = ["".join(paint(span.text, span.style) for span in line) for line in lines]
    clear = "" if over is None else f"\x1b[{over}F\x1b[J"
    stderr.write(clear + "\n".join([*painted, ""]))
    stderr.flush()


def say(text: str) -> None:
    """Print one plain line on stderr; on a terminal no word of it goes over two rows."""
    stderr = _Stderr()
    print(wrap_line(make_visible(text), stderr.columns), file=stderr, flush=True)


def tell(text: str) -> None:
    """Print one plain line of a command's result on stdout, wrapped like those on stderr."""
    _tell_exactly(wrap_line(make_visible(text), read_columns(1)))


def _tell_exactly(text: str) -> None:
    print(_make_encodable(text, sys.stdout.encoding))


def tell_fields(fields: Sequence[str]) -> None:
    """Print one line of fields on stdout, separated by tabs; tabs and newlines in them are escaped.

    Fields may hold our own colours already, so they must be visible.
    """
    print(_make_encodable("\t".join(fields), sys.stdout.encoding))


def tell_lines(text: str, *, indent: str = "") -> None:
    """Print a text of several lines on stdout: a diff, or a file that is about to be written."""
    for line in make_lines_visible(text):
        _tell_exactly(indent + line)


def tell_json(shape: Mapping[str, Any]) -> None:
    """Print one JSON document on stdout, exact and in ASCII, without control characters."""
    print(json.dumps(shape))


def flush() -> None:
    """Flush stdout before a question on the terminal."""
    sys.stdout.flush()


def _make_encodable(text: str, encoding: str | None) -> str:
    """Escape characters that a terminal's encoding lacks; such a name is no error."""
    return text.encode(encoding or "utf-8", "backslashreplace").decode(encoding or "utf-8")


@contextmanager
def reporting_only() -> Iterator[None]:
    """Report one of our errors in the block on stderr, and go on."""
    try:
        yield
    except SafeComposeError as fault:
        for line in fault.lines():
            say(f"safe-compose: {line}")


class Terminal:
    """The controlling terminal, if a person can be asked there.

    That means: /dev/tty opens, stderr is that same terminal, and we are its foreground process
    group. An answer is read as one canonical line after type-ahead was discarded, so that `yes |`,
    here-documents and impatient typing answer nothing. An end of input in the type-ahead counts:
    `script </dev/null` and similar commands send it, and no input follows it.
    """

    def __init__(self, fd: int) -> None:
        """Use an open terminal."""
        self.fd = fd

    @classmethod
    def open(cls) -> "Terminal | None":
        """Return the terminal, or None when no person can be asked."""
        try:
            fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # tcgetpgrp returns ENOTTY for any terminal but our controlling one, so this checks that
            # stderr is that terminal.
            here = os.tcgetpgrp(2) == os.tcgetpgrp(fd) == os.getpgrp()
        except OSError:
            here = False
        if here:
            return cls(fd)
        os.close(fd)
        return None

    def ask(self, question: str, *, hidden: bool = False) -> str:
        """Return one line typed after the question, without its newline.

        With `hidden` the input is not shown.

        Raises:
            Refused: The input ended, or the terminal has gone.
        """
        try:
            with self._reading_lines(echo=not hidden):
                os.write(self.fd, self._fold(make_visible(question)).encode(errors="replace"))
                line = b""
                while not line.endswith(b"\n"):
                    more = os.read(self.fd, 4096)
                    if not more:
                        os.write(self.fd, b"\n")
                        raise Refused(END_OF_INPUT)
                    line += more
                if hidden:
                    os.write(self.fd, b"\n")
        except (OSError, termios.error) as error:
            raise Refused("the terminal has gone; nothing was done") from error
        except KeyboardInterrupt:
            with suppress(OSError):
                os.write(self.fd, b"\n")  # what is said of it begins a line
            raise
        return line[:-1].decode(errors="surrogateescape")

    def _fold(self, question: str) -> str:
        """Return a question folded to this terminal's columns."""
        try:
            columns = os.get_terminal_size(self.fd).columns or 80
        except OSError:
            columns = 80
        return fold_question(question, columns)

    def ask_phrase(self, question: str, phrase: str) -> bool:
        """Return whether a phrase was typed after the question, or once more after a typing error.

        Raises:
            Refused: The input ended, or the terminal has gone.
        """
        return phrase in (
            self.ask(text)
            for text in (f"{question}: ", f"That was not '{phrase}'. Once more, type '{phrase}': ")
        )

    @contextmanager
    def hiding_echo(self) -> Iterator[None]:
        """Do not show what is typed during the block; signals stay."""
        try:
            before = termios.tcgetattr(self.fd)
            quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
            termios.tcsetattr(self.fd, termios.TCSANOW, quiet)
        except (OSError, termios.error) as error:
            raise Refused("the terminal has gone; nothing was done") from error
        try:
            yield
        finally:
            with suppress(OSError, termios.error):
                termios.tcsetattr(self.fd, termios.TCSANOW, before)

    @contextmanager
    def _reading_lines(self, *, echo: bool = True) -> Iterator[None]:
        """Read whole lines during the block: type-ahead is discarded, and Enter ends a line.

        The previous state is restored afterwards.
        """
        before = termios.tcgetattr(self.fd)
        canonical = termios.tcgetattr(self.fd)
        canonical[0] = canonical[0] & ~(termios.IGNCR | termios.INLCR) | termios.ICRNL
        canonical[3] = (
            canonical[3] & ~termios.ECHO
            | termios.ICANON
            | termios.ISIG
            | (termios.ECHO if echo else 0)
        )
        if before[3] & termios.ICANON and _has_ended():
            raise Refused(END_OF_INPUT)
        try:
            termios.tcsetattr(self.fd, termios.TCSAFLUSH, canonical)
            yield
        finally:
            # a terminal that has gone needs no reset, and its error must not hide another
            with suppress(termios.error):
                termios.tcsetattr(self.fd, termios.TCSANOW, before)


def _has_ended() -> bool:
    """Return whether the type-ahead, which is discarded by this, ends with an end of input."""
    fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return any(not os.read(fd, 4096) for _ in range(TYPED_AHEAD))
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def ask_phrase(
    question: str, phrase: str, confirm: str | None, *, ask: bool, nothing: str, why: str = ""
) -> None:
    """Require a typed phrase, with one more try, or the same phrase as `confirm`.

    Args:
        question: The text before the request for the phrase.
        phrase: The phrase.
        confirm: The value of `--confirm`; None: not given.
        ask: Whether a person may be asked.
        nothing: The text that says what was not done.
        why: The reason for the question, for the message where no person can be asked.

    Raises:
        Refused: The phrase differs, or no person can be asked.
        Interrupted: Ctrl-C was pressed.
    """
    if confirm is not None:
        if confirm != phrase:
            raise Refused(
                f"--confirm does not match; {nothing}",
                next_step=f"--confirm {shell_quote_always(phrase)}",
            )
        return
    terminal = Terminal.open() if ask else None
    if terminal is None:
        nobody = f"{f'{why}, and ' if why else ''}nobody can be asked"
        raise Refused(
            f"{nobody}; {nothing}", next_step=f"add --confirm {shell_quote_always(phrase)}"
        )
    try:
        is_typed = terminal.ask_phrase(f"{question}, type '{phrase}'", phrase)
    except KeyboardInterrupt as stop:
        raise Interrupted(f"interrupted; {nothing}") from stop
    if not is_typed:
        raise Refused(f"the phrase was not '{phrase}'; {nothing}")


@contextmanager
def showing_progress(
    description: str, total: int | None = None, *, ends: bool = True
) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of bytes done so far.

    A terminal shows a bar with rate and remaining time, and then one line; other outputs get one
    line at the beginning.

    Args:
        description: What is done.
        total: The estimated number of bytes.
        ends: Whether a line says that it is done; False: the caller has more to say of it.
    """
    if not is_live():
        say(f"safe-compose: {description} ...")
        yield lambda _done: None
        return
    from rich.progress import Progress, ProgressColumn, Task
    from rich.text import Text

    class Pace(ProgressColumn):
        def render(self, task: Task) -> Text:
            done = int(task.completed)
            pace = format_pace(done, total, task.elapsed or 0)
            share = None if not total else done / total
            return Text(fit_progress(description, share, pace, read_size().columns - 1))

    with Progress(Pace(), console=_open_console(), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)
    if ends:
        say(f"safe-compose: {description}: done")


def fit_progress(description: str, share: float | None, pace: str, columns: int) -> str:
    """Return the line of a step that goes on, which is never wider than the terminal.

    Args:
        description: What is done.
        share: The part that is done, from 0 to 1; None for unknown.
        pace: The text of `format_pace`.
        columns: The width of the line; the bar is left out first, then the end of the description.
    """
    name = make_visible(f"safe-compose: {description}")
    filled = 0 if share is None else min(max(int(share * _BAR), 0), _BAR)
    bar = "" if share is None else f"[{'=' * filled}{' ' * (_BAR - filled)}]"
    for parts in ((name, bar, pace), (name, pace)):
        line = "  ".join(part for part in parts if part)
        if cell_len(line) <= columns:
            return line
    room = columns - cell_len(pace) - 5
    return f"{set_cell_size(name, room)}...  {pace}" if room > 0 else set_cell_size(pace, columns)


def format_pace(done: int, total: int | None, seconds: float) -> str:
    """Return the state of a transfer: `31.0 MiB, 22.1 MiB/s, about 2 seconds left`.

    It is only the time while there are too few bytes for a rate.
    """
    if done < 1 << 20 or seconds <= 0:
        return format_seconds(seconds)
    rate = done / seconds
    left = (
        f"about {format_seconds(max(1, (total - done) / rate))} left"
        if total is not None and total > done
        else format_seconds(seconds)
    )
    return f"{format_size(done)}, {format_size(int(rate))}/s, {left}"
