"""The start of a new, empty server in an image, without what the image's makers add to it.

Images that are made from official ones often have an entrypoint of their own, which runs the
official one and then creates objects, or needs what is not there for a server of ours: a license,
another machine. So the official entrypoint is run where the image has it.
"""

import shlex
from collections.abc import Collection
from pathlib import PurePosixPath

from safe_compose.engine.values import Image

OFFICIAL = "docker-entrypoint.sh"
"""The program that makes a server in the official images of PostgreSQL, MariaDB and MySQL."""


def make_start_script(image: Image | None, programs: Collection[str], program: str) -> str:
    """Return a script for `sh -c` that makes a server and starts it with the script's arguments.

    Args:
        image: The image; None if it is not known.
        programs: The names of its server program.
        program: The one to start where the image's own command is something else.
    """
    own = (*image.entrypoint, *(image.cmd or (program,))) if image is not None else (program,)
    command = image.cmd if image is not None else ()
    if not command or PurePosixPath(command[0]).name not in programs:
        command = (program,)
    official = shlex.join((OFFICIAL, *command))
    return (
        f'if command -v {OFFICIAL} >/dev/null 2>&1; then exec {official} "$@"; fi; exec'
        f' {shlex.join(own)} "$@"'
    )
