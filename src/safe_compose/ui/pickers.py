"""Choices that a person makes with the arrow keys.

questionary takes 100 ms to import, so it is imported only when a person is about to choose.
"""

import sys
from collections.abc import Sequence
from datetime import datetime

from safe_compose.core.backup_summary import BackupSummary
from safe_compose.core.quantities import format_moment, format_size
from safe_compose.core.text import LONGEST_CELL, make_visible
from safe_compose.core.tier import Tier
from safe_compose.errors import Refused, UsageError
from safe_compose.system.process import read_clock


def choose_backup(backups: Sequence[BackupSummary]) -> str:
    """Return the id of a backup that a person picks with the arrow keys.

    Raises:
        UsageError: There is no backup.
        Refused: There is no terminal, so an id must be given.
    """
    if not backups:
        raise UsageError("there is no backup to choose from", next_step="safe-compose backup")
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(
            "no terminal to choose a backup on",
            next_step="safe-compose list, then safe-compose restore ID",
        )
    import questionary

    now = read_clock()
    choices = [
        questionary.Choice(describe_backup(b, now), value=b.id, disabled=b.broken) for b in backups
    ]
    answer = questionary.select("Restore which backup?", choices=choices).unsafe_ask()
    return str(answer)


def describe_backup(backup: BackupSummary, now: datetime) -> str:
    """Return one backup as a line to choose; one with an unreadable manifest has no time."""
    created = (
        format_moment(datetime.fromisoformat(backup.created), now)
        if backup.created
        else "time unknown"
    )
    unproved = backup.broken or "not verified"
    state = backup.level or "verified" if backup.verified else unproved
    return make_visible(
        f"{backup.project}  {created}  {backup.reason}  {format_size(backup.bytes)} "
        f" {', '.join(backup.volumes)}  [{state}]"
    )


def choose_tiers(rows: Sequence[tuple[str, str, str]]) -> dict[str, str]:
    """Return the tier of each volume as a person chooses it on a terminal.

    `rows` are (key, proposed tier, why).

    Raises:
        KeyboardInterrupt: The person leaves without an answer.
    """
    import questionary

    chosen = {key: tier for key, tier, _ in rows}
    width = max((len(key) for key, _, _ in rows), default=0)
    while True:
        choices = [
            questionary.Choice(
                make_visible(f"{key:{width}}  {chosen[key]:10}  {why}", LONGEST_CELL), value=key
            )
            for key, _, why in rows
        ]
        picked = questionary.select(
            "Change a volume's tier?",
            choices=[questionary.Choice("no, go on with these", value=""), *choices],
        ).unsafe_ask()
        if not picked:
            return chosen
        tiers = [tier.value for tier in Tier]
        chosen[picked] = questionary.select(
            make_visible(f"{picked} is"), choices=tiers, default=chosen[picked]
        ).unsafe_ask()
