"""What would be lost if this machine died now: how old the newest copies of each project are."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from safe_compose.core.backup import BackupSummary, OffsiteCopy
from safe_compose.core.quantities import format_age, format_seconds

_REMOTE = re.compile(r"(?:s3|sftp)://(?:[^@/]*@)?(?P<host>\[[^\]]*\]|[^:/]*)", re.ASCII)
_HERE = re.compile(r"localhost|127\.[0-9.]+|\[::1\]", re.ASCII | re.IGNORECASE)


def list_losses(
    backups: Sequence[BackupSummary], project: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Return what is known of the copies of each project, this folder's first.

    `here` and `elsewhere` are the times of the newest verified backups that hold every volume of
    the project, and of those with a verified copy off this machine; None where there is none.

    Args:
        backups: All backups, the newest first.
        project: The facts of this folder's project; None: there is none.
    """
    own = [v["name"] for v in project["volumes"]] if project is not None else []
    found = [_describe(project["name"], own, backups)] if project is not None and own else []
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
        found.append(_describe(name, [*newest.volumes, *newest.lacking], backups))
    return found


def _describe(
    project: str, volumes: Sequence[str], backups: Sequence[BackupSummary]
) -> dict[str, Any]:
    mine = [b for b in backups if b.counts and b.project == project]
    sent = [b for b in mine if any(map(_is_elsewhere, b.offsite))]
    away = _find_oldest(volumes, sent)
    copies = [c for b in mine for c in b.offsite]
    return {
        "project": project,
        "here": _find_oldest(volumes, mine),
        "elsewhere": away,
        "at": next((c.name for b in sent for c in b.offsite if _is_elsewhere(c)), None),
        "not_backed_up": [v for v in volumes if not any(v in b.volumes for b in mine)],
        "unknown": []
        if away is not None
        else list(dict.fromkeys(c.name for c in copies if _may_be_elsewhere(c))),
    }


def _find_oldest(volumes: Sequence[str], backups: Sequence[BackupSummary]) -> str | None:
    """Return the time of the oldest of the volumes' newest backups; None if one has none."""
    newest = [next((b.created for b in backups if v in b.volumes), None) for v in volumes]
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
    """Yield a sentence for each project: `shop loses the last 3 days (...)`."""
    for loss in losses:
        here = (
            f"newest here: {format_age(datetime.fromisoformat(loss['here']), now)}"
            if loss["here"]
            else f"not backed up: {', '.join(loss['not_backed_up'])}"
            if loss["not_backed_up"]
            else "newest here: unknown"
        )
        if loss["elsewhere"]:
            age = (now - datetime.fromisoformat(loss["elsewhere"])).total_seconds()
            what = f"the last {format_seconds(max(age, 0))} (copy at {loss['at']}; {here})"
        elif loss["unknown"]:
            places = ", ".join(loss["unknown"])
            what = (
                f"everything, unless the copy at {places} is good and off this machine, which is"
                f" unknown ({here})"
            )
        else:
            what = f"everything: no verified copy is off this machine ({here})"
        yield f"{loss['project']} loses {what}"
