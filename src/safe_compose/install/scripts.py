"""The texts of an installation: shell functions, and lines for rc files.

Every new shell runs this (`eval "$(safe-compose shell bash)"`), so it imports almost nothing.
"""

# pathlib would cost more than all of this:
# ruff: noqa: PTH100, PTH112, PTH118, PTH119, PTH120, PTH123

import os
import sys

from safe_compose.fastpath import first_look, launch

OPEN, CLOSE = "# >>> safe-compose: {} >>>", "# <<< safe-compose: {} <<<"
"""The first and the last line of every block in a file of the user."""


def print_function(shell: str) -> int:
    """Print the function for `shell` to evaluate; return 0."""
    sys.stdout.write(make_function(shell, find_program()))
    sys.stdout.flush()
    return 0


def find_program() -> str:
    """Return the path of the `safe-compose` that runs, or that is installed with this Python."""
    here = os.path.abspath(sys.argv[0])
    for path in (here, os.path.realpath(here)):
        if os.path.basename(path) == "safe-compose":
            return path
    return os.path.join(os.path.dirname(sys.executable), "safe-compose")


def list_filter_words(*, verbs: bool) -> list[str]:
    """Return the shells' part of the filter, as `case` patterns.

    Each matches words that start safe-compose wherever they occur.
    """
    words = {*first_look.SUSPECT, first_look.PROBE, *(launch.OWN_VERBS if verbs else ())}
    return sorted(words) + sorted(f"{flag}*" for flag in first_look.OWN_FLAGS)


def make_function(shell: str, program: str) -> str:
    """Return the functions `docker` and `docker-compose` for bash, zsh or fish.

    They hold the path of safe-compose.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    # a wheel's, the source's
    folders = [os.path.join(here, "..", "shell"), os.path.join(here, "..", "..", "..", "shell")]
    file = "safe-compose.fish" if shell == "fish" else "safe-compose.sh"
    folder = next(folder for folder in folders if os.path.isdir(folder))
    with open(os.path.join(folder, file), encoding="utf-8") as template:
        text = template.read()
    for place, verbs in (("@DOCKER_WORDS@", True), ("@COMPOSE_WORDS@", False)):
        words = list_filter_words(verbs=verbs)
        text = text.replace(
            place, " ".join(f"'{word}'" for word in words) if shell == "fish" else " | ".join(words)
        )
    own = sorted(launch.OWN_VERBS)
    text = text.replace("@BASH_VERBS@", " | ".join(f"1:{verb}" for verb in own))
    text = text.replace("@VERBS@", (" " if shell == "fish" else " | ").join(own))
    return text.replace("@PROGRAM@", quote(program, shell))


def quote(word: str, shell: str) -> str:
    """Return a word as that shell reads it back."""
    if shell == "fish":
        return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return "'" + word.replace("'", "'\\''") + "'"


def make_block(name: str, body: str) -> str:
    """Return marked lines for a file of the user."""
    return f"{OPEN.format(name)}\n{body}{CLOSE.format(name)}\n"


def make_path_lines(folder: str, shell: str) -> str:
    """Return lines that put `folder` first on PATH, unless it is first already.

    `shell` is sh (also for bash and zsh) or fish.
    """
    word = quote(folder, shell)
    if shell == "fish":
        return f'test "$PATH[1]" = {word}; or set -gx PATH {word} $PATH\n'
    return (
        f'case "${{PATH-}}:" in\n{word}:*) ;;\n*) PATH={word}"${{PATH:+:$PATH}}"; export PATH'
        " ;;\nesac\n"
    )


def make_function_lines(program: str, shell: str) -> str:
    """Return lines that evaluate the functions in every interactive shell.

    They do nothing after safe-compose has been removed.
    """
    word = quote(program, shell)
    if shell == "fish":
        return (
            f"if status is-interactive; and test -x {word}\n    {word} shell fish | source\nend\n"
        )
    return f'case $- in *i*) if [ -x {word} ]; then eval "$({word} shell {shell})"; fi ;; esac\n'
