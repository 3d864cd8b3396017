"""`protections.json`: which volumes a person has protected, for as long as the store lives."""

import json
from collections.abc import Mapping
from pathlib import Path

from safe_compose.durable import cause
from safe_compose.errors import BackupFailed
from safe_compose.policy import Rule, Tier

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
