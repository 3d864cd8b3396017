"""The losses if this machine died now: the age of the newest copies of each location."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from safe_compose.core.backup_summary import BackupSummary, OffsiteCopy
from safe_compose.core.observed import describe_location, kind_of_location
from safe_compose.core.quantities import format_age, format_seconds

_REMOTE = re.compile(r"(?:s3|sftp)://(?:[^@/]*@)?(?P<host>\[[^\]]*\]|[^:/]*)", re.ASCII)
HEADING = "If this machine died now:"
_SHOWN = 3
"""How many names of locations that are alike a sentence has."""
_HERE = re.compile(r"localhost|127\.[0-9.]+|\[::1\]", re.ASCII | re.IGNORECASE)


def list_losses(
    backups: Sequence[BackupSummary], project: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Return what is known of the copies of each project, this folder's first.

    `here` and `elsewhere` are the times of the newest verified backups that hold every location of
    the project, and of those with a verified copy off this machine; None where there is none.
    `locations` has the same of each location.

    Args:
        backups: All backups, the newest first.
        project: The facts of this folder's project; None: there is none.
    """
    own = [v["name"] for v in project["volumes"]] if project is not None else []
    found = [describe_losses(project["name"], own, backups)] if project is not None and own else []
    others: dict[str, BackupSummary] = {}
    for backup in backups:
        if backup.counts and not any(known["project"] == backup.project for known in found):
            known = others.setdefault(backup.project, backup)
            if known.reason not in ("manual", "schedule") and backup.reason in (
                "manual",
                "schedule",
            ):
                others[backup.project] = backup  # that one was meant to hold all
    for name, newest in others.items():
        found.append(describe_losses(name, [*newest.volumes, *newest.lacking], backups))
    return found


def describe_losses(
    project: str, names: Sequence[str], backups: Sequence[BackupSummary]
) -> dict[str, Any]:
    """Return what is known of the copies of a project's locations, as in `list_losses`."""
    mine = [b for b in backups if b.counts and b.project == project]
    sent = [b for b in mine if any(map(_is_elsewhere, b.offsite))]
    away = _find_oldest(names, sent)
    copies = [c for b in mine for c in b.offsite]
    return {
        "project": project,
        "here": _find_oldest(names, mine),
        "elsewhere": away,
        "at": next((c.name for b in sent for c in b.offsite if _is_elsewhere(c)), None),
        "not_backed_up": [v for v in names if not any(v in b.volumes for b in mine)],
        "unknown": [] if away is not None else _list_unknown(copies),
        "locations": [describe_copies(name, mine) for name in names],
    }


def describe_copies(name: str, backups: Sequence[BackupSummary]) -> dict[str, Any]:
    """Return what is known of the copies of one location.

    Args:
        name: The location's name.
        backups: Verified backups, the newest first.
    """
    mine = [b for b in backups if name in b.volumes]
    sent = next((b for b in mine if any(map(_is_elsewhere, b.offsite))), None)
    copies = [c for b in mine for c in b.offsite]
    return {
        "name": name,
        "location": kind_of_location(name),
        "here": mine[0].created if mine else None,
        "elsewhere": sent.created if sent is not None else None,
        "at": next((c.name for c in sent.offsite if _is_elsewhere(c)), None) if sent else None,
        "unknown": [] if sent is not None else _list_unknown(copies),
    }


def _list_unknown(copies: Sequence[OffsiteCopy]) -> list[str]:
    """Return the destinations whose copies nobody knows to be good or off this machine."""
    return list(dict.fromkeys(c.name for c in copies if _may_be_elsewhere(c)))


def _find_oldest(names: Sequence[str], backups: Sequence[BackupSummary]) -> str | None:
    """Return the time of the oldest of the locations' newest backups; None if one has none."""
    newest = [next((b.created for b in backups if v in b.volumes), None) for v in names]
    known = [created for created in newest if created]
    return min(known) if known and len(known) == len(newest) else None


def _is_elsewhere(copy: OffsiteCopy) -> bool:
    """Return whether every byte of a copy was read back from another machine."""
    remote = _REMOTE.match(copy.url)
    return copy.state == "verified" and bool(remote and not _HERE.fullmatch(remote["host"]))


def _may_be_elsewhere(copy: OffsiteCopy) -> bool:
    """Return whether nobody knows that: it was never read back, or its folder may be on a disk."""
    remote = _REMOTE.match(copy.url)
    sent = copy.state == "unknown" and copy.pushed is not None
    return (bool(remote) and sent) or (remote is None and copy.state == "verified")


def format_losses(losses: Sequence[Mapping[str, Any]], now: datetime) -> Iterator[str]:
    """Yield a sentence for each project: `shop loses the last 3 days (...)`.

    Where its locations differ, each part says of which it speaks, the worst first.
    """
    for loss in losses:
        groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
        for one in loss["locations"]:
            groups.setdefault(_measure(one, now), []).append(one)
        if len(groups) < 2:
            yield f"{loss['project']} loses {_format_loss(loss, now)}"
            continue
        parts = [
            f"{_format_lost(groups[key][0], now)} of {_format_names(groups[key])}"
            f" ({_format_copies(groups[key], now)})"
            for key in sorted(groups)
        ]
        yield f"{loss['project']} loses {'; '.join(parts)}"


def _measure(one: Mapping[str, Any], now: datetime) -> tuple[int, str]:
    """Return how much of a location is lost, the worst first, and what tells it from others."""
    if one["elsewhere"]:
        return 2, f"{_format_lost(one, now)} {one['at']}"
    return (1, ", ".join(one["unknown"])) if one["unknown"] else (0, "")


def _format_lost(one: Mapping[str, Any], now: datetime) -> str:
    if not one["elsewhere"]:
        return "everything"
    age = (now - datetime.fromisoformat(one["elsewhere"])).total_seconds()
    return f"the last {format_seconds(max(age, 0))}"


def _format_names(group: Sequence[Mapping[str, Any]]) -> str:
    names = [describe_location(one["name"]) for one in group[:_SHOWN]]
    more = len(group) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _format_copies(group: Sequence[Mapping[str, Any]], now: datetime) -> str:
    """Return where the copies of some locations are, and how old those here are."""
    first = group[0]
    if first["elsewhere"]:
        where = f"copy at {first['at']}"
    elif first["unknown"]:
        where = f"whether the copy at {', '.join(first['unknown'])} is good is unknown"
    else:
        where = "no verified copy is off this machine"
    lacking = [one for one in group if not one["here"]]
    if len(lacking) == len(group):
        return f"{where}; not backed up"
    if lacking:
        return f"{where}; not backed up: {_format_names(lacking)}"
    oldest = min(datetime.fromisoformat(one["here"]) for one in group)
    return f"{where}; newest here: {format_age(oldest, now)}"


def _format_loss(loss: Mapping[str, Any], now: datetime) -> str:
    """Return what a project loses of which all locations are alike."""
    here = (
        f"newest here: {format_age(datetime.fromisoformat(loss['here']), now)}"
        if loss["here"]
        else f"not backed up: {', '.join(loss['not_backed_up'])}"
        if loss["not_backed_up"]
        else "newest here: unknown"
    )
    if loss["elsewhere"]:
        return f"{_format_lost(loss, now)} (copy at {loss['at']}; {here})"
    if loss["unknown"]:
        places = ", ".join(loss["unknown"])
        return (
            f"everything, unless the copy at {places} is good and off this machine, which is"
            f" unknown ({here})"
        )
    return f"everything: no verified copy is off this machine ({here})"
