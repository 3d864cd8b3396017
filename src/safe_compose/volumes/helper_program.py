"""Our helper program in a container on one volume: its input and its failures."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from safe_compose.core.observed import describe_location
from safe_compose.core.redaction import hide_secrets
from safe_compose.core.text import join_lines
from safe_compose.engine import Engine
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_image import NoOwnImage
from safe_compose.errors import OperationFailed, StateChanged

MOUNT = "/volume"
"""Mount point of a volume in helpers; our image has no such folder."""

_FAILED, _CHANGED, UNTOUCHED = 1, 3, 10
"""Exit codes of our helper program: it failed; files changed while it read them; it cannot be done,
and nothing was touched.
"""


class FilesChanged(Exception):
    """Some files changed while they were read; everything was written."""


def has_program(engine: Engine) -> bool:
    """Return whether our helper program can run on the engine."""
    return not explain_no_program(engine)


def explain_no_program(engine: Engine) -> str:
    """Return why our own helper program cannot run on the engine; empty if it can."""
    try:
        engine.images.own_image()
    except NoOwnImage as error:
        return error.message
    return ""


def feed(blocks: Iterable[bytes], pipe: IO[bytes] | None) -> None:
    """Write all blocks into a helper and close its input.

    A helper that died is no fault here: its exit code explains more than a broken pipe.
    """
    if pipe is None:
        raise TypeError("the helper was started without stdin")
    try:
        for block in blocks:
            pipe.write(block)
        pipe.close()
    except BrokenPipeError:
        with suppress(BrokenPipeError):
            pipe.close()


@contextmanager
def naming_fault(volume: str, stage: str, *, live: bool = False) -> Iterator[None]:
    """Turn a helper's failure into a fault that names the volume, the stage and the cause.

    Raises:
        OperationFailed: The helper failed.
        StateChanged: The helper refused before it wrote anything.
        FilesChanged: Files changed during a `live` run.
    """
    try:
        yield
    except HelperFailed as error:
        cause = read_last_words(error)
        if error.returncode == _CHANGED and live:
            raise FilesChanged(cause) from error
        if error.returncode == _CHANGED or (error.returncode == _FAILED and "changed" in cause):
            raise OperationFailed(
                f"{describe_location(volume)}: {stage}: {cause}",
                next_step="stop whatever writes into the volume, then repeat the command",
            ) from error
        if error.returncode == UNTOUCHED:
            raise StateChanged(
                f"{describe_location(volume)}: {stage}: {cause}; nothing was written into it"
            ) from error
        raise OperationFailed(
            f"{describe_location(volume)}: {stage}: {cause}", next_step=error.next_step
        ) from error


def read_last_words(error: HelperFailed) -> str:
    """Return the last output of a failed helper, for a message.

    At most three lines and 600 characters are returned, with secrets hidden.
    """
    words = join_lines(str(error.stderr or "").splitlines())
    return hide_secrets(words or error.message)[-600:]
