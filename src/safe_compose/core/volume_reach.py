"""The reach of a volume beyond the engine's own storage, by its driver and options.

This module is pure.

The local driver mounts whatever its options say, as root and on the engine's host: `type=none,
o=bind, device=/etc` is a folder of the host (docs.docker.com/reference/cli/docker/volume/create,
"Driver-specific options"). Any other driver is a program that gets its options. So only a local
volume without options is known to stay inside.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from safe_compose.core.observed import Volume, is_in_memory
from safe_compose.core.redaction import hide_option, hide_secrets

if TYPE_CHECKING:
    from safe_compose.core.backup import VolumeRecord

_NOT_MOUNTED = (
    "failed to mount local volume: ",
    "error resolving passed in network volume address: ",
)
"""docker's messages about a volume whose device it could not mount (moby
volume/local/local_unix.go, `mount`; 20.10 to 28)."""
NO_ANSWER = "it does not answer"
"""Our own message about a volume whose mounting does not end."""

OURS = "io.github.safe-compose."
"""Prefix of the labels that this program obeys: a record must not bring one along."""


def describe_reach(driver: str, options: Mapping[str, str]) -> str | None:
    """Describe the reach of a volume for people, without secrets.

    Returns:
        None for a volume that stays in the engine's own storage.
    """
    shown = ", ".join(
        f"{name}={hide_option(name, value)}" for name, value in sorted(options.items())
    )
    if driver != "local":
        return f"driver {driver}" + (f" with {shown}" if shown else "")
    return f"options {shown}" if shown else None


def describe_reach_of(record: "VolumeRecord", now: Volume | None) -> str | None:
    """Describe the reach of the volume that gets a record's content.

    It is the existing volume `now`, which keeps its options, or else the one that would be created.
    """
    return (
        describe_reach(now.driver, now.options)
        if now is not None
        else describe_reach(record.driver, record.options)
    )


def is_only_a_definition(volume: Volume) -> bool:
    """Return whether the volume points at a folder, a share or a disk outside of the engine.

    Content there outlives the volume: the local driver unmounts it, then deletes its own folder
    (moby volume/local, `Remove`).
    """
    return (
        volume.driver == "local"
        and bool(volume.options.get("device"))
        and not is_in_memory(volume.driver, volume.options)
    )


def explain_no_loss(volume: Volume, words: str) -> str | None:
    """Explain why such a volume can be deleted without a backup, where the engine cannot mount it.

    The explanation has no secrets. `words` is the engine's message, or `NO_ANSWER`.

    Returns:
        None for any other message: then the content is unknown.
    """
    device = hide_secrets(volume.options.get("device", ""))
    found = next(
        (words.partition(known)[2] for known in _NOT_MOUNTED if known in words),
        NO_ANSWER if words == NO_ANSWER else None,
    )
    if found is None:
        return None
    flags = {flag.strip() for flag in volume.options.get("o", "").split(",")}
    if flags & {"bind", "rbind"} and found.endswith("no such file or directory"):
        return f"{device}, the folder that it points at, is not there: only its definition goes"
    cause = hide_secrets(found.rpartition(": ")[2])
    return (
        f"{device} cannot be mounted ({cause}): what is there stays, since docker deletes the"
        " definition alone"
    )


def drop_own_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels for a new volume, without those that this program obeys.

    Such a label could make it delete the volume, or tell whose it is.
    """
    return {name: value for name, value in labels.items() if not name.startswith(OURS)}
