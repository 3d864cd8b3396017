"""The words that may follow on a command line of ours, for a shell that completes it.

The questions and answers are those of docker's own completion (`__complete` of cobra): a line for
each word, with a description behind a tab, then `:` and a number, of which 4 means "no files".
Everything that takes long to import is left out: a shell asks at each press of the key.
"""

# pathlib would cost more than all of this:
# ruff: noqa: PTH111, PTH113, PTH118, PTH123

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from safe_compose.cli.verb_flags import ARGUMENTS, FLAGS
from safe_compose.cli.verbs import ACTIONS, VERBS
from safe_compose.fastpath import launch

NO_FILES, FILES = 4, 0
SECONDS = 2
"""How long docker may take to name volumes, projects or services."""
CHOICES: Mapping[str, Mapping[str, Sequence[str]]] = {
    "SHELL": {"shell": ("bash", "zsh", "fish")},
    "HOW": {"shell": ("shims", "plugin", "rc")},
    "TIER": {"protect": ("critical", "important")},
    "SCOPE": {"hook": ("user", "project")},
}
"""What a value is called -> verb -> the words that it may be."""
_LARGEST = 1 << 20
"""Most characters of a settings file that are read."""
_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")
_PROJECT = '{{.Label "com.docker.compose.project"}}'


def answer(words: Sequence[str]) -> int:
    """Print the words that may take the place of the last one; return 0.

    Args:
        words: `__complete` or `__completeNoDesc`, and the words of the command line.
    """
    *before, typed = words[1:]
    if before:
        found, directive = _complete_verb(before, typed)
        if before[0] == launch.START:  # with a container it is docker's
            found += _ask_docker(words)
        lines = sorted(dict.fromkeys(found))
    else:
        described = [f"{name}\t{verb.does}" for name, verb in VERBS.items()]
        lines, directive = [*described, *_ask_docker(words)], NO_FILES
    shown = [line for line in lines if line.startswith(typed) and _is_printable(line)]
    if words[0].endswith("NoDesc"):
        shown = [line.partition("\t")[0] for line in shown]
    text = "".join(f"{line}\n" for line in [*shown, f":{directive}"])
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()
    return 0


def _is_printable(line: str) -> bool:
    return all(part.isprintable() for part in line.split("\t", 1))


def _ask_docker(words: Sequence[str]) -> list[str]:
    """Return docker's own answer, without the number at its end."""
    return [line for line in _run_docker(*words) if line[:1] != ":"]


def _complete_verb(before: Sequence[str], typed: str) -> tuple[list[str], int]:
    """Return the words that may follow a verb of ours and its words so far, and the number."""
    verb, *given = before
    words = verb
    if action := next((word for word in given if word in ACTIONS.get(verb, ())), None):
        given.remove(action)
        words = f"{verb} {action}"
    flags = FLAGS.get(words, {})
    name, equals, _ = typed.partition("=")
    if typed[:1] == "-" and not (equals and flags.get(name)):
        return [flag for flag in (*flags, "--help") if flag.startswith("--")], NO_FILES
    if equals and typed[:1] == "-":
        values, directive = _list_values(verb, flags[name])
        return [f"{name}={value}" for value in values], directive
    if given and (value := flags.get(given[-1])):
        return _list_values(verb, value)
    operands = 0
    for index, word in enumerate(given):
        taken = index > 0 and bool(flags.get(given[index - 1]))
        operands += not taken and word[:1] != "-"
    names = ARGUMENTS.get(words, ())
    kind = names[min(operands, len(names) - 1)] if names else ""
    if operands >= len(names) and not kind.endswith("..."):
        return [], NO_FILES
    return _list_values(verb, kind.removesuffix("..."))


def _list_values(verb: str, kind: str) -> tuple[list[str], int]:
    """Return the known values of a kind, and the number for the shell."""
    if kind == "ACTION":
        return [*ACTIONS[verb]], NO_FILES
    if kind in ("DIR", "FILE", "PATH"):
        return [], FILES
    if kind == "ID" and verb == "trash":
        return [], NO_FILES
    if kind == "ID":
        latest = [] if verb == "forget" else ["latest"]
        return [*latest, *_list_backups()], FILES if verb == "restore" else NO_FILES
    if kind == "VOLUME":
        return _run_docker("volume", "ls", "--format", "{{.Name}}"), NO_FILES
    if kind == "PROJECT":
        return [
            line for line in _run_docker("volume", "ls", "--format", _PROJECT) if line
        ], NO_FILES
    if kind == "SERVICE":
        return _run_docker("compose", "config", "--services"), NO_FILES
    return list(CHOICES.get(kind, {}).get(verb, ())), NO_FILES


def _run_docker(*words: str) -> list[str]:
    """Return the lines that docker prints; none when it fails or takes too long."""
    from safe_compose.errors import DockerNotFound

    try:
        done = subprocess.run(
            [launch.find_docker(), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, DockerNotFound):
        return []
    return os.fsdecode(done.stdout).splitlines() if done.returncode == 0 else []


def _list_backups() -> Iterator[str]:
    """Yield the id of each backup with its project's folder; an unreadable store has none."""
    for folder in _scan(_find_store()):
        for entry in _scan(folder.path):
            if _ID.fullmatch(entry.name) and os.path.lexists(f"{entry.path}/manifest.json"):
                yield f"{entry.name}\t{folder.name}"


def _scan(path: str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(path) as entries:
            return [e for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def _find_store() -> str:
    """Return the folder of the backups, as far as it is told without reading all settings."""
    if chosen := os.environ.get("SAFE_COMPOSE_HOME"):
        return os.path.expanduser(chosen)
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    home = os.path.expanduser("~")
    places = ((".", "safe-compose.toml"), (home, f"{config}/safe-compose/config.toml"))
    for folder, file in places:
        if (named := _read_store_path(file)) is not None:
            return os.path.join(folder, os.path.expanduser(named))
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "safe-compose")


def _read_store_path(path: str) -> str | None:
    """Return `store.path` of a settings file, or None; a file that does not read has none."""
    if not os.path.isfile(path):
        return None
    from safe_compose.core.toml import parse_toml

    try:
        with open(path, encoding="utf-8") as file:
            named = parse_toml(file.read(_LARGEST))["store"]["path"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return named if isinstance(named, str) else None
