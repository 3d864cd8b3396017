"""`protections.json`: the volumes that a person has protected, for as long as the store exists."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from safe_compose.core.text import shell_quote
from safe_compose.core.tier import Tier
from safe_compose.errors import OperationFailed, UsageError
from safe_compose.store.catalogue.folder import PROTECTIONS, StoreFolder
from safe_compose.system import trusted_file
from safe_compose.system.files import explain_error, replace, reporting
from safe_compose.system.process import stamp

if TYPE_CHECKING:
    from safe_compose.core.policy import Rule

_FORMAT = 1
_LARGEST = 1 << 26

Protections = Mapping[str, Mapping[str, str]]
"""Volume name -> `tier`, `since`, `suspended_until` while the protection is suspended, and
`locked_on`: ids of the engines on which a deletion lock keeps the volume, separated by blanks."""


def read(path: Path) -> Protections:
    """Read the protected volumes; none when the file does not exist.

    Raises:
        OperationFailed: The file is unreadable or damaged.
    """
    try:
        # its owner does not matter: its content can only raise tiers
        file = trusted_file.read(path, frozenset(), _LARGEST)
        if file is None:
            return {}
        every: Protections = json.loads(file.data or b"")["protections"]
        for facts in every.values():
            Tier(facts["tier"])
            if not all(isinstance(value, str) for value in facts.values()) or "since" not in facts:
                raise ValueError("a value that is no text")
    except OSError as error:
        raise OperationFailed(
            f"cannot read what is protected ({path}): {explain_error(error)}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OperationFailed(
            f"cannot read what is protected: {path} is damaged; nothing was deleted",
            next_step=(
                "correct that file, or move it away and protect the volumes again: mv"
                f" {shell_quote(str(path))} {shell_quote(str(path))}.damaged"
            ),
        ) from error
    return every


def to_bytes(every: Protections) -> bytes:
    """Return the bytes of `protections.json`."""
    return (
        json.dumps({"format": _FORMAT, "protections": every}, sort_keys=True, indent=1) + "\n"
    ).encode("ascii")


def make_rules(every: Protections, now: str) -> "list[Rule]":
    """Return the tier floors that hold at a moment.

    Args:
        every: The protections of a store.
        now: UTC, such as `2026-11-22T07:27:00Z`.
    """
    from safe_compose.core.policy import Rule  # with the tables of images, which no list needs

    return [
        Rule(
            _literal(name),
            Tier(facts["tier"]),
            f"safe-compose protect, {facts['since']}",
            floor=True,
        )
        for name, facts in sorted(every.items())
        if facts.get("suspended_until", "") <= now
    ]


def list_locked(every: Protections, now: str, engine_id: str) -> list[str]:
    """Return the volumes of an engine that must have a deletion lock at a moment."""
    return [
        name
        for name, facts in sorted(every.items())
        if engine_id in facts.get("locked_on", "").split()
        and facts.get("suspended_until", "") <= now
    ]


def _literal(name: str) -> str:
    """Return a pattern that matches just this name."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


class ProtectionRegistry:
    """The protected volumes of one store."""

    def __init__(self, folder: StoreFolder) -> None:
        """Use the registry in this store's folder."""
        self._folder = folder

    def rules(self) -> "list[Rule]":
        """Return the tier floors that hold now.

        Raises:
            OperationFailed: The registry is unreadable, so the floors are unknown.
        """
        return make_rules(read(self._folder.root / PROTECTIONS), stamp(self._folder.clock()))

    def list_locked(self, engine_id: str) -> list[str]:
        """Return the volumes of an engine that must have a deletion lock now.

        Raises:
            OperationFailed: The registry is unreadable.
        """
        return list_locked(
            read(self._folder.root / PROTECTIONS), stamp(self._folder.clock()), engine_id
        )

    def is_protected(self, name: str) -> bool:
        """Return whether a volume is protected, even if the protection is suspended.

        Raises:
            OperationFailed: The registry is unreadable.
        """
        return name in read(self._folder.root / PROTECTIONS)

    def protect(self, name: str, tier: Tier, *, lock_on: str | None = None) -> None:
        """Make `tier` the floor of a volume until `unprotect`.

        Args:
            name: Name of the volume.
            tier: Critical or important.
            lock_on: Id of an engine on which the volume is to have a deletion lock as well.

        Raises:
            UsageError: The tier is disposable, or the name is empty.
            OperationFailed: The registry cannot be read or written.
        """
        if tier is Tier.DISPOSABLE or not name:
            raise UsageError(
                "a protection is critical or important, and of a volume with a name; nothing was"
                " changed"
            )
        with self._changing() as every:
            engines = {
                *every.get(name, {}).get("locked_on", "").split(),
                *([lock_on] if lock_on else []),
            }
            locked = {"locked_on": " ".join(sorted(engines))} if engines else {}
            every[name] = {"tier": tier.value, "since": stamp(self._folder.clock()), **locked}

    def require_protected(self, names: Iterable[str]) -> None:
        """Require that all the volumes are protected.

        Raises:
            UsageError: One of them is not protected.
            OperationFailed: The registry is unreadable.
        """
        every = read(self._folder.root / PROTECTIONS)
        there = f"protected are: {', '.join(sorted(every))}" if every else "nothing is protected"
        for name in names:
            if name not in every:
                raise UsageError(f"{name} is not protected ({there}); nothing was changed")

    def unprotect(self, name: str, *, until: datetime | None = None) -> None:
        """Remove a protection, or suspend it until a moment.

        Raises:
            UsageError: The volume is not protected.
            OperationFailed: The registry cannot be read or written.
        """
        self.require_protected([name])
        with self._changing() as every:
            facts = every.pop(name, None)
            if facts is not None and until is not None:
                every[name] = {**facts, "suspended_until": stamp(until)}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Mapping[str, str]]]:
        """Lock the registry and yield it; write it when the block ends without an exception."""
        self._folder.ensure()
        with self._folder.holding("protections"):
            every = dict(read(self._folder.root / PROTECTIONS))
            yield every
            with reporting("write what is protected"):
                replace(self._folder.root / PROTECTIONS, to_bytes(every), self._folder.access)
