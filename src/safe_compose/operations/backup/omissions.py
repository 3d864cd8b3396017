"""Messages about what a backup does not hold."""

from collections.abc import Iterable, Iterator

from safe_compose.core.backup import Backup, Omission
from safe_compose.errors import OperationFailed
from safe_compose.ui import terminal


def format_omissions(omitted: Iterable[Omission]) -> Iterator[str]:
    """Yield a line for each omission, followed by the next step for one that is lacking."""
    for omission in omitted:
        what = "volume " if omission.kind == "volume" else ""
        tier = f" ({omission.tier}, LACKING)" if omission.lacking else ""
        yield f"not in this backup: {what}{omission.name}{tier}: {omission.reason}"
        if omission.next_step:
            yield f"  next: {omission.next_step}"


def tell_omitted(omitted: Iterable[Omission]) -> None:
    """Print a line for each omission."""
    for line in format_omissions(omitted):
        terminal.say(line if line.startswith(" ") else f"safe-compose: {line}")


def report_incomplete(backup: Backup) -> OperationFailed | None:
    """Return the fault that a partial backup ends with; None for a backup that lacks nothing."""
    if not backup.lacking:
        return None
    lacks = "; ".join(f"{o.name} ({o.reason})" for o in backup.lacking)
    holds = ", ".join(v.name for v in backup.volumes)
    return OperationFailed(
        f"backup {backup.id} is partial: it lacks {lacks}; what it holds ({holds}) is kept"
        f" and verified ({backup.level})",
        next_step=backup.lacking[0].next_step or None,
    )
