"""This environment's Python and `safe-compose` at paths that the first line of a script can hold.

A `#!` line takes no blank and only 127 characters, so below such a folder an installer starts its
scripts through /bin/sh, which changes the environment. Tests that compare it byte for byte go round
that by a link, as a person would.
"""

import atexit
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path


@cache
def plain_python() -> Path:
    """This Python, with this environment's packages."""
    here = Path(sys.executable)
    if " " not in str(here) and len(str(here)) < 120:
        return here
    folder = Path(tempfile.mkdtemp(prefix="safe-compose-lab-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "venv").symlink_to(sys.prefix)
    return folder / "venv" / "bin" / here.name


def plain_program() -> Path:
    """The `safe-compose` that is installed with this Python: the launcher takes any path."""
    return Path(sys.executable).with_name("safe-compose")
