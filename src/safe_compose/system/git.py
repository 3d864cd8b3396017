"""Questions to git about paths of this machine.

A repository may be hostile: its settings may name programs, of which these questions start none.
"""

import os
import subprocess

from safe_compose.system import children

_SECONDS = 5.0
_INSIDE = "safe-compose-probe"
"""A name of no file: a folder whose content alone is ignored counts as ignored."""


def find_work_tree(path: str) -> str | None:
    """Return the folder of the git work tree that a path lies in, or None."""
    folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120
    while True:
        if os.path.lexists(os.path.join(folder, ".git")):  # noqa: PTH118
            return folder
        above = os.path.dirname(folder)  # noqa: PTH120
        if above == folder:
            return None
        folder = above


def is_ignored(path: str, work_tree: str) -> bool | None:
    """Return whether git ignores a path of a work tree, or all that a folder there holds.

    None where git is not there or does not answer, as in a repository of another user.
    """
    real = os.path.realpath(path)
    asked = os.fsencode(f"{real}\0{real}/{_INSIDE}\0")
    try:
        done = _ask(work_tree, "check-ignore", "--stdin", "-z", given=asked)
    except (OSError, subprocess.TimeoutExpired, children.TooMuch):
        return None
    return {0: True, 1: False}.get(done.returncode)


def has_all(path: str, work_tree: str) -> bool | None:
    """Return whether git tracks everything in a folder of a work tree, and something is there.

    What git ignores is not tracked. None where git is not there or does not answer.
    """
    inside = os.path.relpath(os.path.realpath(path), work_tree)
    place = ("--", f":(top,literal){inside}")
    try:
        others = _ask(work_tree, "ls-files", "--others", "--directory", "-z", *place)
        if others.returncode or others.stdout:
            return None if others.returncode else False
        known = _ask(work_tree, "ls-files", "--cached", "-z", *place)
    except (OSError, subprocess.TimeoutExpired, children.TooMuch):
        return None
    return None if known.returncode else bool(known.stdout)


def _ask(
    work_tree: str, *words: str, given: bytes | None = None
) -> "subprocess.CompletedProcess[bytes]":
    argv = ["git", "-C", work_tree, "-c", "core.fsmonitor=false", *words]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environ["GIT_OPTIONAL_LOCKS"] = "0"
    return children.run(argv, seconds=_SECONDS, given=given, environ=environ)
