"""`protections.json`: which volumes a person has protected, for as long as the store lives."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from safe_compose.catalogue.place import PROTECTIONS, Place
from safe_compose.durable import cause, replace, told
from safe_compose.errors import BackupFailed, UsageError
from safe_compose.policy import Rule, Tier
from safe_compose.process import stamp

_FORMAT = 1

Protections = Mapping[str, Mapping[str, str]]
"""Volume name -> `tier`, `since`, `suspended_until` while it is lifted, and `locked_on`: ids of the engines where docker is kept
from deleting it, a blank between."""


def read(path: Path) -> Protections:
    """What is protected; nothing when there is no such file. Raises BackupFailed when it does not read."""
    try:
        found = json.loads(path.read_bytes())
        every: Protections = found["protections"]
        for facts in every.values():
            Tier(facts["tier"])
            if not all(isinstance(value, str) for value in facts.values()) or "since" not in facts:
                raise ValueError("a value that is no text")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise BackupFailed(f"cannot read what is protected ({path}): {cause(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BackupFailed(
            f"cannot read what is protected: {path} is damaged; nothing was deleted",
            next_step=f"correct that file, or move it away and protect the volumes again: mv {path} {path}.damaged",
        ) from error
    return every


def text(every: Protections) -> bytes:
    return (json.dumps({"format": _FORMAT, "protections": every}, sort_keys=True, indent=1) + "\n").encode("ascii")


def rules(every: Protections, now: str) -> list[Rule]:
    """The floors that hold at a moment. now: `2026-11-22T07:27:00Z`."""
    return [
        Rule(_literal(name), Tier(facts["tier"]), f"safe-compose protect, {facts['since']}", floor=True)
        for name, facts in sorted(every.items())
        if facts.get("suspended_until", "") <= now
    ]


def locked(every: Protections, now: str, engine_id: str) -> list[str]:
    """The volumes of an engine that are to have a deletion lock at a moment."""
    return [
        name
        for name, facts in sorted(every.items())
        if engine_id in facts.get("locked_on", "").split() and facts.get("suspended_until", "") <= now
    ]


def _literal(name: str) -> str:
    """A name as a pattern for just this name."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


class Registry(Place):
    """A store that knows which volumes are protected."""

    def protections(self) -> list[Rule]:
        """The floors that hold now. Raises BackupFailed when the registry does not read: then nobody knows them."""
        return rules(read(self.root / PROTECTIONS), stamp(self._clock()))

    def locked(self, engine_id: str) -> list[str]:
        """The volumes of an engine that are to have a deletion lock now. Raises BackupFailed as `protections` does."""
        return locked(read(self.root / PROTECTIONS), stamp(self._clock()), engine_id)

    def is_protected(self, name: str) -> bool:
        """Whether there is something to take away, be it lifted for a while."""
        return name in read(self.root / PROTECTIONS)

    def protect(self, name: str, tier: Tier, *, lock_on: str | None = None) -> None:
        """Make `tier` the floor of a volume, until `unprotect`; with a lock on the engine of that id. Raises UsageError,
        BackupFailed."""
        if tier is Tier.DISPOSABLE or not name:
            raise UsageError("a protection is critical or important, and of a volume with a name; nothing was changed")
        with self._protections() as every:
            engines = {*every.get(name, {}).get("locked_on", "").split(), *([lock_on] if lock_on else [])}
            locked = {"locked_on": " ".join(sorted(engines))} if engines else {}
            every[name] = {"tier": tier.value, "since": stamp(self._clock()), **locked}

    def require_protected(self, names: Iterable[str]) -> None:
        """Raises UsageError when one of the volumes is not protected, BackupFailed."""
        every = read(self.root / PROTECTIONS)
        there = f"protected are: {', '.join(sorted(every))}" if every else "nothing is protected"
        for name in names:
            if name not in every:
                raise UsageError(f"{name} is not protected ({there}); nothing was changed")

    def unprotect(self, name: str, *, until: datetime | None = None) -> None:
        """Take a protection away, or lift it until a moment. Raises UsageError when there is none, BackupFailed."""
        self.require_protected([name])
        with self._protections() as every:
            facts = every.pop(name, None)
            if facts is not None and until is not None:
                every[name] = {**facts, "suspended_until": stamp(until)}

    @contextmanager
    def _protections(self) -> Iterator[dict[str, Mapping[str, str]]]:
        """The registry to be changed in the block, and written when it ends well."""
        self.ensure()
        with self._hold("protections"):
            every = dict(read(self.root / PROTECTIONS))
            yield every
            with told("write what is protected"):
                replace(self.root / PROTECTIONS, text(every), self.access)
