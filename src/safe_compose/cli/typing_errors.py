"""Typing errors in our verbs and flags, where docker has no such command or flag."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from safe_compose.core.text import join_for_shell
from safe_compose.errors import UsageError
from safe_compose.fastpath import launch
from safe_compose.fastpath.first_look import DOCKER_WORDS, OWN_FLAGS
from safe_compose.grammar.spelling import count_slips, find_near


def refuse(words: Sequence[str]) -> None:
    """Refuse words whose first is nearly one of ours, and surely none of docker's.

    Args:
        words: Words whose first docker is not known to take.

    Raises:
        UsageError: It is a typing error.
    """
    word = words[0]
    name = word.partition("=")[0]
    meant = find_near(name, OWN_FLAGS if word[:1] == "-" else launch.OWN_VERBS)
    if meant is None or word in ("up", "down") or launch.has_plugin(word) or _is_alias(word):
        return
    other = find_near(name, DOCKER_WORDS)
    if other is not None and count_slips(name, other) <= count_slips(name, meant):
        return  # it may as well be one of docker's, and docker reports that
    if word[:1] == "-":
        raise UsageError(f"there is no flag {name}: did you mean {meant}?")
    raise UsageError(
        f"there is no command {word}: did you mean {meant}?",
        next_step=f"safe-compose {join_for_shell([meant, *words[1:]])}",
    )


def _is_alias(word: str) -> bool:
    """Return whether the user's docker configuration makes a command of that word.

    A file that does not read has none: docker itself complains about it.
    """
    home = os.environ.get("DOCKER_CONFIG") or Path("~/.docker").expanduser()
    try:
        aliases = json.loads(Path(home, "config.json").read_bytes())["aliases"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return isinstance(aliases, dict) and word in aliases
