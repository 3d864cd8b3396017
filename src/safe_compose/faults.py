"""The message of a fault, and the exit code that it ends with.

Only imported when something is said, so that a harmless command is not slower for it.
"""

# pathlib would cost more than all of this:
# ruff: noqa: PTH109

import os
import sys

_LONGEST_FAULT = 400
"""Characters of an unexpected exception's text, which can hold what an engine said."""


def end(
    code: int,
    message: "str | list[str]",
    next_step: str | None,
    *,
    about_docker: bool,
    report: str | None = None,
    is_report_wanted: bool = False,
) -> int:
    """Print a fault with its next step and return its exit code.

    Args:
        code: The exit code.
        message: The message, or its lines.
        next_step: What to do next, if anything.
        about_docker: Also say that docker was not run.
        report: One line of JSON for programs, printed where a coding agent runs us.
        is_report_wanted: Print it whoever runs us.
    """
    first, *more = [message] if isinstance(message, str) else message
    say(f"safe-compose: {first}")
    for line in more:
        say(line)
    if next_step:
        say(f"  next: {next_step}")
    if report is not None and (is_report_wanted or _runs_for_agent()):
        say(report)
    if about_docker:
        say(f"safe-compose: docker was not run ({code})")
    return code


def _runs_for_agent() -> bool:
    """Return whether a coding agent reads our stderr."""
    from safe_compose.core import coding_agents

    return not os.isatty(2) and coding_agents.is_here(os.environ)


def report_fault(error: Exception, *, about_docker: bool) -> int:
    """Report an exception, inside its handler, and return its exit code."""
    from safe_compose.errors import SafeComposeError

    if isinstance(error, SafeComposeError):
        return end(
            error.code,
            error.lines(),
            error.next_step,
            about_docker=about_docker,
            report=error.report,
            is_report_wanted=error.is_report_wanted,
        )
    if isinstance(error, FileNotFoundError) and not has_working_directory():
        return end(
            77,
            "the folder that this runs in was deleted; nothing was done",
            "cd to another one",
            about_docker=about_docker,
        )
    if isinstance(error, OSError) and _is_of_full_output(error):
        drop_output()
        return end(
            73,
            f"stdout cannot be written ({error.strerror}), so what it shows is not complete",
            "free space where the output goes, then run this again",
            about_docker=about_docker,
        )
    return report_bug(about_docker=about_docker)


def _is_of_full_output(error: OSError) -> bool:
    """Return whether stdout is a file that takes no more; errors of other files have their name."""
    import errno
    import stat

    if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return False
    mode = os.fstat(1).st_mode
    return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not os.isatty(1))


def drop_output() -> None:
    """Leave our output out from now on: the interpreter still flushes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def report_broken_pipe(*, about_docker: bool) -> int:
    """Return exit code 141 where nobody reads our output any more; any other pipe is our bug."""
    import select

    output = select.poll()
    output.register(1, 0)
    if not output.poll(0):
        return report_bug(about_docker=about_docker)
    drop_output()
    if about_docker:
        say("safe-compose: docker was not run (141)")
    return 141


def report_bug(*, about_docker: bool) -> int:
    """Report an unexpected exception, inside its handler, and return exit code 70."""
    error = sys.exc_info()[1]
    if os.environ.get("SAFE_COMPOSE_DEBUG"):
        import traceback

        for line in traceback.format_exc().rstrip().split("\n"):
            say(line)
    return end(
        70,
        f"our bug: {type(error).__name__}: {str(error)[:_LONGEST_FAULT]}",
        "`safe-compose journal` shows how far it came; SAFE_COMPOSE_DEBUG=1 shows where it broke",
        about_docker=about_docker,
    )


def say(text: str) -> None:
    """Print one line on stderr, with control characters made visible.

    On a terminal no word of it goes over two rows.
    """
    if len(text) > 20_000 or not (text.isascii() and text.isprintable()):
        from safe_compose.core.text import make_visible

        text = make_visible(text)
    from safe_compose.system.terminal_columns import read_columns

    if columns := read_columns(2):
        from safe_compose.core.line_wrap import wrap_line

        text = wrap_line(text, columns)
    try:
        os.write(2, text.encode("utf-8", "backslashreplace") + b"\n")
    except OSError:
        return  # stderr is closed or a broken pipe: the operation must not depend on it


def has_working_directory() -> bool:
    """Return whether the current folder exists: nearly everything but `docker ps` needs one."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True
