"""The commands that `docker run`, `docker exec` and their forms in compose run in a container.

This module is pure.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from safe_compose.audit.programs import ENGINES
from safe_compose.audit.shell_words import Word, name_program

_BOOLEANS = frozenset(
    {
        "--rm", "--detach", "--interactive", "--tty", "--init", "--privileged", "--publish-all",
        "--read-only", "--no-healthcheck", "--oom-kill-disable", "--sig-proxy", "--quiet",
        "--disable-content-trust", "--no-tty", "--no-TTY", "--no-deps", "--service-ports",
        "--use-aliases", "--build", "--quiet-pull", "--quiet-build", "--remove-orphans", "--help",
        "--tls", "--tlsverify", "--debug", "--version", "--compatibility", "--all-resources",
        "--dry-run", "--use-api-socket", "--yes", "--replace", "--rmi", "--tls-verify", "--latest",
    }
)  # fmt: skip
_BOOLEAN_LETTERS = frozenset("ditPTqDvyl")
"""Letters of flags without a value, where no letter of a flag with one precedes them."""
_VERBS = frozenset({"run", "exec", "create"})
_GROUPS = frozenset({"container", "compose"})


class ContainerCommand(NamedTuple):
    """A command that runs inside a container."""

    words: tuple[Word, ...]
    """The command; the engine's client comes first where the image starts it."""
    mounts: tuple[tuple[str, str], ...] = ()
    """(source, target) of every mount that can be written to."""


def read_container(words: Sequence[Word]) -> ContainerCommand | None:
    """Return the command that an engine's client runs in a container, or None.

    Args:
        words: The words after the client.
    """
    index = 0
    groups: list[str] = []
    options: list[tuple[str, Word]] = []
    while index < len(words):
        text = words[index].text
        if text.startswith("-") and words[index].sure:
            index = _option(words, index, options, in_compose="compose" in groups or not groups)
        elif text in _GROUPS and not groups:
            groups.append(text)
            index += 1
        else:
            break
    if index >= len(words) or words[index].text not in _VERBS:
        return None
    index += 1
    options = []
    while index < len(words) and words[index].text.startswith("-") and words[index].text != "-":
        if words[index].text == "--":
            index += 1
            break
        index = _option(words, index, options)
    if index >= len(words):
        return None
    image, command = words[index], tuple(words[index + 1 :])
    entry = [value for name, value in options if name == "--entrypoint"]
    if entry:
        command = (entry[-1], *command)
    elif (client := _client(image)) and "compose" not in groups and words:
        first = name_program(command[0]) if command else None
        if command and first not in (*ENGINES, "sh", "ash", "bash", "env"):
            command = (Word(client), *command)
    return ContainerCommand(command, tuple(_mounts(options))) if command else None


def _option(
    words: Sequence[Word], index: int, options: list[tuple[str, Word]], *, in_compose: bool = False
) -> int:
    """Add the option at `index`, and return the index after it and its value."""
    text = words[index].text
    name, equals, value = text.partition("=")
    following = words[index + 1] if index + 1 < len(words) else Word("")
    if text.startswith("--"):
        if equals:
            options.append((name, words[index]._replace(text=value)))
            return index + 1
        if name in _BOOLEANS:
            return index + 1
        options.append((name, following))
        return index + 2
    letters = text[1:]
    booleans = _BOOLEAN_LETTERS - ({"v"} if not in_compose else set())
    takes = next((i for i, letter in enumerate(letters) if letter not in booleans), None)
    if takes is None:
        return index + 1
    attached = letters[takes + 1 :].removeprefix("=")
    options.append(
        ("-" + letters[takes], words[index]._replace(text=attached) if attached else following)
    )
    return index + 1 if attached else index + 2


def _client(image: Word) -> str | None:
    """Return the engine's client that an image starts, or None."""
    name = image.text.partition("@")[0]
    last = re.sub(r":[^/]*$", "", name)
    if last in ("docker", "library/docker", "docker.io/docker", "docker.io/library/docker"):
        return "docker"
    return "docker-compose" if last in ("docker/compose", "docker.io/docker/compose") else None


def _mounts(options: Sequence[tuple[str, Word]]) -> list[tuple[str, str]]:
    found = []
    for name, value in options:
        if name in ("-v", "--volume"):
            source, colon, rest = value.text.partition(":")
            target, _, mode = rest.partition(":")
            if colon and "ro" not in mode.split(","):
                found.append((source, target))
        elif name == "--mount":
            parts = [field.partition("=") for field in value.text.split(",")]
            fields = {key: text for key, _, text in parts}
            source = fields.get("src") or fields.get("source") or ""
            target = fields.get("dst") or fields.get("target") or fields.get("destination") or ""
            off = any(
                key in fields and fields[key] in ("", "true", "1") for key in ("readonly", "ro")
            )
            if source and not off:
                found.append((source, target))
    return found
