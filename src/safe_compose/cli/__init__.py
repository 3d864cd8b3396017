"""Our own verbs: `safe-compose backup`, `list`, `undo`, ... What they print for people and as `--json` stands on stdout.

Each module holds the verbs of one chapter; `words` is what they share.
"""

import io
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from safe_compose import guard, harmless, prompts

# Each module adds its verbs, in the order in which `commands` lists them.
# isort: off
from safe_compose.cli import machine, store, offsite, daily, back, causes, done  # noqa: F401

# isort: on
from safe_compose.cli.words import app, verbs
from safe_compose.errors import SafeComposeError, UsageError

__all__ = ["app", "run", "verbs"]

_CUT_OFF = 130
"""What typer makes of a Ctrl-C, without a word."""


def run(argv: Sequence[str]) -> int:
    """Run one of our own verbs. Returns its exit code; raises SafeComposeError (64 when it was called wrongly)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold bytes that are no text
    words = _verb_first(argv)
    command = typer.main.get_command(app)
    try:
        with _signals_unwind():
            result = command.main(words, prog_name="safe-compose", standalone_mode=False)
            sys.stdout.flush()  # here, where a reader that has gone is no fault
    except SafeComposeError:
        raise
    except typer.Exit as stop:
        return int(stop.exit_code)
    except typer.Abort as stop:
        raise KeyboardInterrupt from stop
    except Exception as wrong:
        # typer vendors click since 0.29, whose usage errors carry exit_code 2 and a formatted message
        if getattr(wrong, "exit_code", None) != 2:
            raise
        message = wrong.format_message() if hasattr(wrong, "format_message") else str(wrong)
        raise UsageError(f"{words[0]}: {message}", next_step=f"safe-compose {words[0]} --help") from wrong
    if result == _CUT_OFF:
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


def _verb_first(argv: Sequence[str]) -> list[str]:
    """Flags of ours may stand before the verb, as they may before a docker command: `safe-compose --json list`."""
    at = 0
    while at < len(argv) and argv[at].partition("=")[0] in harmless.OWN_FLAGS:
        at += 2 if argv[at] == "--confirm" else 1
    return [*argv[at : at + 1], *argv[:at], *argv[at + 1 :]]


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP unwinds, so that what was stopped is started again; later ones change nothing.

    After a SIGTERM or SIGHUP we then die by it.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def unwind(number: int, frame: object) -> None:
        for other in numbers:
            signal.signal(other, lambda *_: None)
        raise KeyboardInterrupt if number == signal.SIGINT else guard.Terminated(number)

    before = {number: signal.signal(number, unwind) for number in numbers}
    try:
        yield
    except guard.Terminated as terminated:
        prompts.say(f"safe-compose: ended by {signal.Signals(terminated.number).name}")
        guard.die_by(terminated.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
