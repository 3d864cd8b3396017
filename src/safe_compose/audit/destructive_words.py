"""Words that a text must hold before anything in it can delete a volume.

This module is pure.
"""

import re

from safe_compose.audit.shell_words import unescape

_DELETING = frozenset(
    {
        "rm", "remove", "delete", "kill", "stop", "-y", "--yes", "reset", "rmtree", "mv", "find",
        "shred", "approve", "unprotect", "forget", "trash", "uninstall", "--uninstall",
    }
)  # fmt: skip


def may_hold_destructive(text: str) -> bool:
    r"""Return whether a text holds words that could delete a volume; when in doubt, True.

    Order and quoting of the words do not matter.

    >>> may_hold_destructive('d"ock"er com\\pose down')
    True
    >>> may_hold_destructive("rm -rf node_modules")
    False
    """
    plain = re.sub(r"[\"']", "", text)
    words = {
        word
        for reading in (plain.replace("\\", ""), unescape(plain))
        for word in re.split(r"[^A-Za-z0-9_-]+", reading)
    }
    lower = {word.lower() for word in words}
    if lower & {"down", "prune"} or "SAFE_COMPOSE" in words:
        return True
    about = bool(lower & {"compose", "volume", "volumes", "container", "containers"}) or any(
        engine in word
        for word in lower
        for engine in ("docker", "podman", "nerdctl", "safe-compose")
    )
    about = about or re.search(r"/var/lib|local/share|\brm\b.*\s/(\*|\s|$)", plain) is not None
    return about and not lower.isdisjoint(_DELETING)
