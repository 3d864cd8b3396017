"""A full disk of the engine: its error messages, and commands that free space without loss of data.

This module is pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from safe_compose.core.observed import HELPER_LABEL, LOCK_LABEL
from safe_compose.core.quantities import format_size
from safe_compose.core.text import join_for_shell

FULL = "the engine's disk is full"
_WORDS = ("no space left on device", "disk quota exceeded")
"""The kernel's messages, as docker repeats them; the first one also appears when there are no
inodes left (ENOSPC, EDQUOT)."""
_ENDED = ("exited", "created", "dead")
_NAMED = 10
"""Most containers that one command names."""
_WRITTEN = 1 << 20
"""Bytes in a container's own layer up to which its removal may be proposed: more may be data of
value."""


def is_full(words: str) -> bool:
    """Return whether a message of docker says that its disk has no space, or no inodes."""
    return any(known in words.lower() for known in _WORDS)


class CleanupCommand(NamedTuple):
    """A command that frees space."""

    command: str
    bytes: int
    """The space that it frees, as far as the engine reports it."""
    takes: str
    """A description of what it removes."""


def list_cleanup_commands(usage: Mapping[str, Any], docker: str = "docker") -> list[CleanupCommand]:
    """Return commands that free space, in the order to try them.

    None of them is one that this program would guard.

    Data that can be had again comes first: build cache, then images without a name that no
    container uses, then containers that have ended, have no volume, and wrote almost nothing into
    themselves.

    Args:
        usage: The body of `GET /system/df`.
        docker: The words that reach that engine, such as `docker -c prod`.
    """
    cache = sum(
        _size(c, "Size")
        for c in usage.get("BuildCache") or ()
        if not c.get("InUse") and not c.get("Shared")
    )
    images = [i for i in usage.get("Images") or () if _is_dangling(i)]
    unnamed = sum(_size(i, "Size") - max(0, _size(i, "SharedSize")) for i in images)
    ended = sorted(
        (c for c in usage.get("Containers") or () if _has_ended_without_volume(c)),
        key=lambda c: -_size(c, "SizeRw"),
    )
    ended = ended[:_NAMED]
    names = [str(c["Names"][0]).lstrip("/") for c in ended]
    found = [
        CleanupCommand(f"{docker} builder prune", cache, "build cache"),
        CleanupCommand(f"{docker} image prune", unnamed, "images without a name"),
        CleanupCommand(
            f"{docker} rm {join_for_shell(names)}",
            sum(_size(c, "SizeRw") for c in ended),
            "ended containers without a volume, with what they wrote into themselves",
        ),
    ]
    there = (cache > 0, bool(images), bool(ended))
    return [proposal for proposal, useful in zip(found, there, strict=True) if useful]


def format_advice(commands: Sequence[CleanupCommand]) -> str:
    """Return the next step where the disk is full: these commands, in order."""
    if not commands:
        return (
            "make room on the disk that the engine keeps its data on (containers' logs, other"
            " files), then run it again"
        )
    steps = "; ".join(f"{p.command} ({p.takes}, about {format_size(p.bytes)})" for p in commands)
    return f"make room on the engine's disk, in this order: {steps}; then run it again"


def _is_dangling(image: Mapping[str, Any]) -> bool:
    """Return whether `docker image prune` would remove an image."""
    tags = [tag for tag in image.get("RepoTags") or () if tag != "<none>:<none>"]
    digests = [digest for digest in image.get("RepoDigests") or () if digest != "<none>@<none>"]
    return not tags and not digests and int(image.get("Containers") or 0) <= 0


def _has_ended_without_volume(container: Mapping[str, Any]) -> bool:
    labels: Iterable[str] = container.get("Labels") or ()
    ours = HELPER_LABEL in labels or LOCK_LABEL in labels
    mounted = any(mount.get("Type") == "volume" for mount in container.get("Mounts") or ())
    small = _size(container, "SizeRw") <= _WRITTEN
    return (
        container.get("State") in _ENDED
        and bool(container.get("Names"))
        and small
        and not ours
        and not mounted
    )


def _size(body: Mapping[str, Any], key: str) -> int:
    return int(body.get(key) or 0)
