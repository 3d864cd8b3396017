"""What is written for each way in: shell functions, lines for rc files, and scripts that stand in docker's place.

On the way of every new shell (`eval "$(safe-compose shell bash)"`), so it imports next to nothing.
"""
# pathlib would cost more than all of this:
# ruff: noqa: PTH100, PTH112, PTH118, PTH119, PTH120, PTH123

import os
import sys

from safe_compose import harmless, shim

OPEN, CLOSE = "# >>> safe-compose: {} >>>", "# <<< safe-compose: {} <<<"
"""The first and the last line of every block in a file that is not ours."""
CLOSER = "closer"
"""The folder beside our native programs on PATH, itself not there: with the scripts that take the closer look."""


def print_function(shell: str) -> int:
    """Print what `shell` evaluates; 0."""
    sys.stdout.write(function(shell, program()))
    return 0


def program() -> str:
    """The path of the `safe-compose` that runs, or that stands beside this Python."""
    here = os.path.abspath(sys.argv[0])
    if os.path.basename(here) == "safe-compose":
        return here
    return os.path.join(os.path.dirname(sys.executable), "safe-compose")


def filter_words(*, verbs: bool) -> list[str]:
    """The shells' part of the filter, as `case` patterns: words that wake safe-compose wherever they stand."""
    words = {*harmless.SUSPECT, harmless.PROBE, *(shim.OWN_VERBS if verbs else ())}
    return sorted(words) + sorted(f"{flag}*" for flag in harmless.OWN_FLAGS)


def waking_words() -> str:
    """The file `harmless.words`, which `harmless.c` reads at every call: what wakes the grammar, one a line; the first line
    says how to understand it, and without the last it was cut.

    Should `harmless.pass_on` ever look at more than words, PATH and SAFE_COMPOSE_DOCKER, the number goes up here and in the C:
    programs that were compiled before then leave everything to Python.
    """
    words = sorted({*harmless.SUSPECT, harmless.PROBE, *harmless.OWN_FLAGS})
    return "\n".join(["safe-compose words 1", *words, "end of words", ""])


def function(shell: str, program: str) -> str:
    """The functions `docker` and `docker-compose` for bash, zsh or fish, with the path of safe-compose in them."""
    here = os.path.dirname(os.path.abspath(__file__))
    folders = [os.path.join(here, "..", "shell"), os.path.join(here, "..", "..", "..", "shell")]  # a wheel's, the source's
    file = "safe-compose.fish" if shell == "fish" else "safe-compose.sh"
    folder = next(folder for folder in folders if os.path.isdir(folder))
    with open(os.path.join(folder, file), encoding="utf-8") as template:
        text = template.read()
    for place, verbs in (("@DOCKER_WORDS@", True), ("@COMPOSE_WORDS@", False)):
        words = filter_words(verbs=verbs)
        text = text.replace(place, " ".join(f"'{word}'" for word in words) if shell == "fish" else " | ".join(words))
    return text.replace("@PROGRAM@", quoted(program, shell))


def quoted(word: str, shell: str) -> str:
    """A word as that shell reads it back."""
    if shell == "fish":
        return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return "'" + word.replace("'", "'\\''") + "'"


def block(name: str, body: str) -> str:
    """Marked lines for a file that belongs to somebody else."""
    return f"{OPEN.format(name)}\n{body}{CLOSE.format(name)}\n"


def path_lines(folder: str, shell: str) -> str:
    """Put `folder` first on PATH, where it is not first already. `shell`: sh (also for bash and zsh) or fish."""
    word = quoted(folder, shell)
    if shell == "fish":
        return f'test "$PATH[1]" = {word}; or set -gx PATH {word} $PATH\n'
    return f'case "${{PATH-}}:" in\n{word}:*) ;;\n*) PATH={word}"${{PATH:+:$PATH}}"; export PATH ;;\nesac\n'


def function_lines(program: str, shell: str) -> str:
    """Evaluate the functions in every interactive shell; nothing happens where safe-compose has gone."""
    word = quoted(program, shell)
    if shell == "fish":
        return f"if status is-interactive; and test -x {word}\n    {word} shell fish | source\nend\n"
    return f'case $- in *i*) if [ -x {word} ]; then eval "$({word} shell {shell})"; fi ;; esac\n'


def script(interpreter: str, package: str, python: str, *, plugin: bool) -> str:
    """The script that stands in docker's place: on PATH (or behind a native program there), or among docker's CLI plugins.

    `interpreter`: absolute, without blanks, any Python that can read `safe_compose.shim` below the folder `package`.
    `python`: the one that finds all of our packages; needed for guarded commands only.
    """
    how, where = ("plugin", _SYSTEM.format(folders=shim.SYSTEM_PLUGINS)) if plugin else ("shims", _PATH)
    call = f"main(plugin=True, python={python!r})" if plugin else f"main(python={python!r})"
    return _SCRIPT.format(
        interpreter=interpreter,
        first="" if plugin else _HARMLESS.format(package=package),
        marker=harmless.MARKER.decode(),
        how=how,
        package=package,
        call=call,
        folders=where,
        words=sorted(harmless.SUSPECT),
        largest=harmless.LARGEST,
        closer=f"/{CLOSER}/",
    )


_SCRIPT = """\
#!{interpreter} -IS
# {marker}: `safe-compose shell --install {how}` wrote this, `safe-compose shell --uninstall` takes it away.
import sys

{first}sys.path.insert(0, {package!r})
try:
    from {marker} import main
except ImportError:
    main = None
sys.path.append(sys.path.pop(0))
if main:
    sys.exit({call})

# safe-compose has gone. What cannot delete a volume goes to the real docker all the same. (Quoted: read only when it is needed.)
exec(r'''
import os

for folder in {folders}:
    path = os.path.join(os.path.abspath(folder), os.path.basename(sys.argv[0]))
    try:
        with open(path, "rb") as file:
            ours = b"{marker}" in file.read({largest})
    except OSError:
        continue
    if not ours and os.access(path, os.X_OK) and not set(sys.argv) & set({words}):
        os.execv(path, [path, *sys.argv[1:]])
sys.stderr.write("safe-compose is no longer installed, and this may delete volumes (or there is no docker besides it).\\n")
path = os.path.abspath(sys.argv[0]).replace("{closer}docker", "/docker")
sys.stderr.write("  next: install safe-compose again, or remove " + path + "\\n")
sys.stderr.write("safe-compose: docker was not run (127)\\n")
sys.exit(127)
''')
"""
_HARMLESS = """\
sys.path.insert(0, {package!r} + "/safe_compose")  # found there without a look through every installed package
try:
    from harmless import pass_on

    pass_on()
except ImportError:
    pass
del sys.path[0]
"""
_PATH = 'os.environ.get("PATH", os.defpath).split(os.pathsep)'
_SYSTEM = "{folders!r}"
