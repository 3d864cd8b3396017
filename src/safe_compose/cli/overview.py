"""The answers to `safe-compose`, `safe-compose --help`, `--version` and `commands`.

They come without typer, whose import takes longer than all of this.
"""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from safe_compose import __version__
from safe_compose.cli.verbs import GROUPS

_VERSION = re.compile(r"[0-9]+(\.[0-9]+)+[\w.+-]{0,40}", re.ASCII)

_HEAD = """\
docker, with a verified backup before a command that deletes volumes

Usage:
  safe-compose COMMAND ...       any command of docker, guarded
  safe-compose VERB [OPTIONS]    one of the verbs below
"""

_FLAGS = """\
Flags of a guarded command:
  --backup-first       without a terminal: verified backup instead of the phrase
  --non-interactive    never ask: refuse instead
  --confirm PHRASE     the phrase that would have been typed
  --skip-backup        delete without a backup; needs a phrase of its own
  --explain            show what would be deleted, and stop; --json, --offline
"""

_EXAMPLES = """\
Examples:
  safe-compose compose down -v      delete the volumes, after a backup and a yes
  safe-compose undo                 bring back what that deleted
  safe-compose backup               back up the project of this folder now
"""

_TAIL = """\
More about one verb: safe-compose help VERB
docker's own help: safe-compose docker --help
"""


def print_usage() -> int:
    """Print the names of the verbs by group, with three examples, on one screen; return 0."""
    groups = "".join(f"{f'{title}:':<13}{'  '.join(verbs)}\n" for title, verbs in GROUPS.items())
    more = "What each verb does, and the flags: safe-compose --help\n"
    sys.stdout.write(f"{_HEAD}\n{groups}\n{_EXAMPLES}\n{more}{_TAIL}")
    sys.stdout.flush()
    return 0


def print_help() -> int:
    """Print the verbs by group and what each does, with three examples; return 0."""
    sys.stdout.write(format_help())
    sys.stdout.flush()
    return 0


def format_help() -> str:
    """Return the verbs by group and what each does, with our flags and three examples."""
    start = "`start CONTAINER` is docker's.\n"
    return f"{_HEAD}\n{_format_groups()}\n{_FLAGS}\n{_EXAMPLES}\n{start}{_TAIL}"


def print_verbs() -> int:
    """Print the verbs by group; return 0."""
    sys.stdout.write(_format_groups())
    sys.stdout.flush()
    return 0


def _format_groups() -> str:
    groups = (
        "".join([f"{title}:\n", *(f"  {name:<17}{verb.does}\n" for name, verb in verbs.items())])
        for title, verbs in GROUPS.items()
    )
    return "\n".join(groups)


def print_version() -> int:
    """Print our version with those of docker and compose; return 0."""
    sys.stdout.write(f"safe-compose {__version__} ({_describe_docker()})\n")
    sys.stdout.flush()
    return 0


def _describe_docker() -> str:
    from safe_compose.errors import DockerNotFound
    from safe_compose.fastpath import launch

    try:
        path = launch.find_docker()
    except DockerNotFound:
        return "no docker"
    with ThreadPoolExecutor() as pool:
        compose = pool.submit(_read_version, path, "compose", "version", "--short")
        docker = _read_version(path, "--version")
    found = compose.result()
    return f"docker {docker or 'unknown'}, {f'compose {found}' if found else 'no compose'}"


def _read_version(*command: str) -> str | None:
    """Return the version that a command prints, or None."""
    from safe_compose.fastpath import launch
    from safe_compose.system import children

    try:
        done = children.run(
            command, seconds=20, largest=1 << 16, environ=launch.read_original_environment()
        )
    except (OSError, subprocess.TimeoutExpired, children.TooMuch):
        return None
    found = _VERSION.search(done.stdout.decode("ascii", "replace"))
    return found[0] if found is not None and done.returncode == 0 else None
