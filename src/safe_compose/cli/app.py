"""Our own verbs: `safe-compose backup`, `list`, `undo`, ...

Their results, for people or as `--json`, go to stdout. Each module holds a verb or a family of
verbs (`verbs` names it); `options` holds what they share.
"""

import gc
import io
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from safe_compose.cli import unused_flags, values, verb_help, verbs
from safe_compose.cli.options import app
from safe_compose.errors import SafeComposeError, UsageError
from safe_compose.fastpath import launch
from safe_compose.system.signals import (
    ENDING,
    Terminated,
    die_by,
    raise_first,
    resend_dropped_signals,
)
from safe_compose.ui import terminal

_CUT_OFF = 130
"""The exit code that typer turns a Ctrl-C into; it prints nothing."""


def run(argv: Sequence[str]) -> int:
    """Run one of our own verbs and return its exit code.

    Raises:
        SafeComposeError: It failed.
        UsageError: It was called wrongly.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold bytes that are no text
    words = _move_verb_first(argv)
    command = make_command(words[0] if words else None)
    gc.freeze()  # modules and classes live as long as the process
    gc.enable()
    try:
        with _unwinding_on_signals():
            result = command.main(words, prog_name="safe-compose", standalone_mode=False)
            sys.stdout.flush()  # here, where a reader that has gone is no fault
    except SafeComposeError:
        raise
    except SystemExit as stop:
        # typer's answer to every broken pipe, also to that of an engine
        if isinstance(stop.__context__, BrokenPipeError):
            raise stop.__context__ from None
        raise
    except typer.Exit as stop:
        return int(stop.exit_code)
    except typer.Abort as stop:
        raise KeyboardInterrupt from stop
    except Exception as wrong:
        # typer vendors click since 0.29, whose usage errors have exit_code 2 and format_message
        if getattr(wrong, "exit_code", None) != 2:
            raise
        context = getattr(wrong, "ctx", None)
        verb = context.command_path.partition(" ")[2] if context is not None else words[0]
        raise UsageError(
            f"{verb}: {_explain(wrong, verb)}", next_step=f"safe-compose help {verb}"
        ) from wrong
    if result == _CUT_OFF:
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


def make_command(verb: str | None) -> typer.core.TyperGroup:
    """Return the command line with one verb of ours, or with all of them for None."""
    verbs.load(verb)
    command = typer.main.get_command(app)
    assert isinstance(command, typer.core.TyperGroup)
    values.take_plain(command)
    verb_help.complete(command)
    return command


def _explain(wrong: Exception, verb: str) -> str:
    """Return what typer says of wrong words, or the flag that was meant by a typing error."""
    flag = getattr(wrong, "option_name", None)
    if isinstance(flag, str) and hasattr(wrong, "possibilities"):
        return unused_flags.explain(verb, flag, wrong.possibilities or ())
    return str(wrong.format_message()) if hasattr(wrong, "format_message") else str(wrong)


def _move_verb_first(argv: Sequence[str]) -> list[str]:
    """Return the words with the verb first.

    Our flags may precede it, as they may precede a docker command: `safe-compose --json list`.
    """
    index = launch.count_own_flags(argv)
    return [*argv[index : index + 1], *argv[:index], *argv[index + 1 :]]


@contextmanager
def _unwinding_on_signals() -> Iterator[None]:
    """Unwind the block on the first SIGINT, SIGTERM or SIGHUP; later ones change nothing.

    So stopped containers are started again. After a SIGTERM or SIGHUP we then die by it.
    """
    before = {number: signal.getsignal(number) for number in ENDING}
    resend_dropped_signals()
    raise_first(lambda handler: [signal.signal(number, handler) for number in ENDING])
    try:
        yield
    except Terminated as terminated:
        terminal.say(f"safe-compose: ended by {signal.Signals(terminated.number).name}")
        die_by(terminated.number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
