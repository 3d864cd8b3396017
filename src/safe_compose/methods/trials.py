"""What every trial stands on: a scratch volume, what was counted, the comparison, and the last words of a server that died."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from safe_compose.artifacts import DatabaseStatistics, ServerStatistics, VolumeRecord, hide_secrets
from safe_compose.engine import Engine
from safe_compose.errors import VerifyFailed


@contextmanager
def scratch(engine: Engine) -> Iterator[str]:
    """An empty volume of ours for the length of a block."""
    name = f"safe-compose-trial-{engine.run_id}-{secrets.token_hex(4)}"
    engine.create_volume(name, labels=engine.marks)
    try:
        yield name
    finally:
        engine.remove_volume(name)


def statistics_of(record: VolumeRecord) -> ServerStatistics:
    """What a volume held when it was backed up. Raises VerifyFailed when nobody counted it."""
    if record.statistics is None:
        raise VerifyFailed(f"volume {record.name}: trial: nothing was counted when it was backed up")
    return record.statistics


def counted_words(databases: Sequence[DatabaseStatistics]) -> str:
    """`3 tables, 4711 rows`"""
    return f"{sum(len(d.tables) for d in databases)} tables, {sum(d.rows for d in databases)} rows"


def require_same(wanted: Mapping[str, int], found: Mapping[str, int], subject: str, stage: str) -> None:
    """Each thing that was counted is there in the same number, and nothing else; raises VerifyFailed naming some that differ."""
    wrong = [
        f"{name}: {found.get(name, 'not there')}, was {wanted.get(name, 'not there')}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise VerifyFailed(
            f"volume {subject}: {stage}: counts differ: {'; '.join(wrong[:3])}{more}; it is not counted as good",
            next_step="make a new backup, or restore from another one: safe-compose list",
        )


def last_log(engine: Engine, container_id: str) -> str:
    """The last lines of a server of ours in one, for a message: at most 900 characters, without secrets."""
    lines = engine.logs_tail(container_id, 8).splitlines()
    return hide_secrets(" / ".join(line.strip() for line in lines if line.strip()))[-900:]
