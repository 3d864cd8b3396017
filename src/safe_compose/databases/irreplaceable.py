"""Data in volumes of a disposable kind that nobody could recreate: users' work, long histories.

Such a volume is checked before it is deleted without a backup. One helper container reads it, which
is created and never started, so that `--explain` may do it as well; the child process of
`sqlite.check` checks SQLite databases. A volume that cannot be read, or not in time, counts as
holding such data.
"""

import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from safe_compose.core.text import make_visible
from safe_compose.databases.sqlite.check import Checker
from safe_compose.engine import Engine
from safe_compose.engine.volume_archives import ROOTS_AT_ONCE
from safe_compose.engine.volume_entries import Entries, VolumeEntry, VolumeListing
from safe_compose.errors import SafeComposeError

SECONDS, SECONDS_EACH = 3.0, 0.5
"""Time limit in seconds for all such volumes of one command, and the addition for each: the user
waits for the confirmation screen. On an idle machine a volume takes some 50 ms.
"""
LONGEST = 15.0
"""Time limit in seconds for any number of volumes."""
KEPT_DAYS = 45
"""A history of more days was kept on purpose: Prometheus keeps 15 by default, VictoriaMetrics a
month.
"""
DATABASE_LIMIT = 16 << 20
"""Largest size in bytes of a Grafana database and its log that is read; a fresh one has about one
MiB.
"""
_LISTING_LIMIT = 2 << 20
"""Largest part of a folder's archive, in bytes, that is read to list it."""
_FEW = 3


class _InspectedVolume(NamedTuple):
    """A volume that is inspected."""

    entries: Entries
    name: str
    checker: Checker

    def listing(
        self, path: str = "", *, limit: int = _LISTING_LIMIT, keep: re.Pattern[str] | None = None
    ) -> VolumeListing:
        """Return the content of a folder; an empty listing if it is missing."""
        return self.entries.listing(self.name, path, limit=limit, keep=keep) or VolumeListing()

    def stat(self, path: str) -> VolumeEntry | None:
        return self.entries.stat(self.name, path)


def find(engine: Engine, wanted: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return why volumes should not be deleted without a backup; one without such data is left out.

    `wanted` maps a volume to the checks for it, by the names of `CHECKS`. This never raises: a
    volume that cannot be inspected is in the result.
    """
    found: dict[str, str] = {}
    names = list(wanted)
    seconds = min(LONGEST, SECONDS + SECONDS_EACH * len(names))
    until = time.monotonic() + seconds
    with Checker(seconds=SECONDS, total=seconds) as checker:
        for start in range(0, len(names), ROOTS_AT_ONCE):
            some = [
                name
                for name in names[start : start + ROOTS_AT_ONCE]
                if engine.docker.volume(name) is not None
            ]
            if not some:
                continue
            try:
                with engine.archives.entries(
                    some, seconds=max(0.0, until - time.monotonic())
                ) as entries:
                    for name in some:
                        if words := _inspect(
                            _InspectedVolume(entries, name, checker), wanted[name]
                        ):
                            found[name] = words
            except SafeComposeError as fault:
                found |= {name: _explain_unseen(fault) for name in some if name not in found}
    return found


def _inspect(volume: _InspectedVolume, wanted: Sequence[str]) -> str | None:
    try:
        return next((words for name in wanted if (words := CHECKS[name](volume)) is not None), None)
    except SafeComposeError as fault:
        return _explain_unseen(fault)


def _explain_unseen(fault: SafeComposeError) -> str:
    return f"it could not be looked into ({fault.message})"


# -- Grafana ---------------------------------------------------------------------------------------

_DATABASE = "grafana.db"
_STORED = (_DATABASE, f"{_DATABASE}-wal", f"{_DATABASE}-journal")
_KEEP = re.compile(r"grafana\.db(-wal|-journal)?")
_HIDDEN = r"\..*|lost\+found"
_GRAFANAS_OWN = re.compile(
    rf"{_HIDDEN}|grafana\.db(-wal|-shm|-journal)?|plugins|png|pdf|csv|alerting|bleve|unified-search"
)
"""Names that Grafana itself creates at the root of its data (pkg/setting and what it starts)."""


class CountedTable(NamedTuple):
    """Something that users create in Grafana: its names, and queries for its number.

    The first query that the schema of the database allows is the one that counts.
    """

    table: str
    one: str
    many: str
    queries: tuple[str, ...]


# `-1` is the provisioner; the first user and the first organization are created at the first start.
COUNTS = (
    CountedTable("dashboard", "dashboard", "dashboards", (
        "SELECT count(*) FROM dashboard d WHERE coalesce(d.is_folder, 0) = 0"
        " AND (coalesce(d.updated_by, 0) > 0 OR NOT EXISTS "
        "(SELECT 1 FROM dashboard_provisioning p WHERE p.dashboard_id = d.id))",
        "SELECT count(*) FROM dashboard",
    )),
    CountedTable("user", "user", "users", (
        "SELECT count(*) - 1 FROM user u WHERE coalesce(u.is_service_account, 0) = 0",
        "SELECT count(*) - 1 FROM user",
    )),
    CountedTable("user", "service account", "service accounts", (
        "SELECT count(*) FROM user u WHERE coalesce(u.is_service_account, 0) <> 0"
        " AND u.login NOT LIKE 'sa-%extsvc-%'",
    )),
    CountedTable("alert_rule", "alert rule", "alert rules", (
        "SELECT count(*) FROM alert_rule r WHERE NOT EXISTS (SELECT 1 FROM provenance_type p"
        " WHERE p.record_type = 'alertRule' AND p.record_key = r.uid AND p.provenance = 'file')",
        "SELECT count(*) FROM alert_rule",
    )),
    CountedTable("alert_configuration", "changed alert notification", "changed alert notifications",
     (
        'SELECT count(*) FROM alert_configuration a WHERE coalesce(a."default", 0) = 0',
        "SELECT count(*) - 1 FROM alert_configuration",
    )),
    CountedTable("data_source", "data source", "data sources", (
        "SELECT count(*) FROM data_source d WHERE coalesce(d.read_only, 0) = 0",
        "SELECT count(*) FROM data_source",
    )),
    CountedTable("annotation", "annotation", "annotations", (
        "SELECT count(*) FROM annotation a WHERE coalesce(a.alert_id, 0) = 0",
        "SELECT count(*) FROM annotation",
    )),
    CountedTable("org", "organization", "organizations", ("SELECT count(*) - 1 FROM org",)),
    CountedTable("resource", "resource", "resources", (
        "SELECT count(*) FROM resource r WHERE r.\"group\" NOT IN"
        " ('folder.grafana.app', 'iam.grafana.app', 'plugins.grafana.app') AND"
        " instr(CAST(r.value AS TEXT),"
        " '\"grafana.app/managedBy\":\"classic-file-provisioning\"') = 0",
        "SELECT count(*) FROM resource",
    )),
)  # fmt: skip
"""Tables according to pkg/services/sqlstore/migrations and pkg/storage/unified/sql of
grafana/grafana, versions 5 to 12.
"""
_QUERIES = tuple(query for count in COUNTS for query in count.queries)
_BY_ITSELF = re.compile(
    r"(\w+_)?migration_log|org_user|dashboard_(acl|tag|version|provisioning|usage_\w+)|folder"
    r"|alert_rule_(version|tag|state)"
    r"|alert_(instance|image|notification_state|configuration_history)|annotation_tag|tag"
    r"|provenance_type|server_lock|cache_data"
    r"|kv_store|permission|role|builtin_role|user_(role|auth|auth_token|stats|external_session)"
    r"|team_role|seed_assignment|session"
    r"|login_attempt|anon_device|secrets|data_keys|signing_key|secret_\w+|entity_events?"
    r"|library_element_connection|resource_\w+"
)
"""Tables whose rows Grafana writes by itself, or that mean nothing without a row of another table.
"""


def _check_grafana(volume: _InspectedVolume) -> str | None:
    # It may be written at any moment: what changed while it was read is read again.
    for _ in range(2):
        before = {name: volume.stat(name) for name in _STORED}
        there = [entry for entry in before.values() if entry is not None]
        if not all(entry.is_file for entry in there):
            return f"its {_DATABASE} is no regular file"
        if sum(entry.size for entry in there) > DATABASE_LIMIT:
            return f"its {_DATABASE} has more than {DATABASE_LIMIT >> 20} MiB"
        root = volume.listing(limit=DATABASE_LIMIT + _LISTING_LIMIT, keep=_KEEP)
        if before == {name: volume.stat(name) for name in _STORED}:
            break
    else:
        return f"its {_DATABASE} was written to all the time"
    if before[_DATABASE] is not None:
        if set(root.files) != {name for name, entry in before.items() if entry is not None}:
            return f"its {_DATABASE} could not be read"
        if (words := _judge_grafana(volume.checker, root.files)) is not None:
            return words
    if (words := _find_strange(root, _GRAFANAS_OWN, "Grafana")) is not None:
        return words
    return None if root.whole else "it holds more than could be listed in a moment"


def _find_strange(root: VolumeListing, own: re.Pattern[str], product: str) -> str | None:
    """Describe the first name at a root that the product does not create; None if there is none.

    Nobody knows what such a file holds.
    """
    strange = sorted(name for name in root.names if not own.fullmatch(name))
    return (
        f"it holds {make_visible(strange[0])}, which {product} does not make" if strange else None
    )


def _judge_grafana(checker: Checker, stored: Mapping[str, bytes]) -> str | None:
    """Describe what users created in a Grafana database; None for a fresh one.

    A database that cannot be read is described too. `stored` holds the database and its logs by
    name.
    """
    with tempfile.TemporaryDirectory(prefix="safe-compose-") as folder:
        for name, content in stored.items():
            Path(folder, name).write_bytes(content)
        judged = checker.judge(Path(folder, _DATABASE), _QUERIES)
    if (why := judged.fault or judged.unsure) is not None:
        return f"its {_DATABASE} could not be read ({make_visible(why)})"
    return describe_user_content(
        {table.table: table.rows for table in judged.tables}, judged.counts
    )


def describe_user_content(tables: Mapping[str, int], counts: Sequence[int | None]) -> str | None:
    """Describe what users created, as in `its grafana.db holds 120 dashboards and 2 users`.

    `tables` holds the rows of each table; `counts` the answers to the queries of COUNTS, in order.

    Returns:
        None for a fresh database.
    """
    answers = iter(counts)
    parts = []
    for count in COUNTS:
        known = [n for _, n in zip(count.queries, answers, strict=False) if n is not None]
        if known and known[0] > 0:
            parts.append(f"{known[0]} {count.one if known[0] == 1 else count.many}")
    asked = {count.table for count in COUNTS}
    others = sorted(
        name
        for name, rows in tables.items()
        if rows and name not in asked and not _BY_ITSELF.fullmatch(name)
    )
    parts += [f"rows of {make_visible(name)}" for name in others]
    if not parts:
        return None
    more = f" and {len(parts) - _FEW} other things" if len(parts) > _FEW else ""
    return f"its {_DATABASE} holds {', '.join(parts[:_FEW])}{more}"


# -- histories -------------------------------------------------------------------------------------

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_META = re.compile(rf"{_ULID.pattern}/meta\.json")
_MIN_MAX = re.compile(rb'"(minTime|maxTime)"\s*:\s*(-?\d{1,17})')
_META_LIMIT = 1 << 20
_PROMETHEUS_BY_HAND = ("snapshots", "rules", "prometheus.yml")
_PROMETHEUS_OWN = re.compile(
    rf"{_HIDDEN}|{_ULID.pattern}(\.tmp.*)?|wal|wbl|chunks_head|chunk_snapshot\..*|lock|queries\.active|data"
)
"""Names that Prometheus creates in its folder (tsdb); without `--storage.tsdb.path` that folder is
`data` below its working directory, which in its image is the root of the volume.
"""
_VICTORIA_OWN = re.compile(rf"{_HIDDEN}|data|indexdb|metadata|cache|snapshots|tmp|flock\.lock")
"""Names that VictoriaMetrics creates in its folder (lib/storage); that folder may be `data` of the
volume.
"""
_LOKI_OWN = re.compile(
    rf"{_HIDDEN}|chunks|index|index_cache|rules|rules-temp|ruler-wal|wal|compactor|retention"
    r"|(tsdb|boltdb)-shipper-(active|cache|compactor)|(tsdb|boltdb)-(active|cache)"
)
"""Names that Loki creates below its `path_prefix`, according to its own configurations."""
_ALERTMANAGER_OWN = re.compile(rf"{_HIDDEN}|(silences|nflog)(\..*)?|data")
_MONTH = re.compile(r"(\d{4})_(\d\d)")
_TABLE = re.compile(r".*?(\d{4,5})")
_DAY_MS = 86_400_000


def _check_prometheus(volume: _InspectedVolume) -> str | None:
    return _describe_blocks(volume, "") or _describe_blocks(volume, "data")


def _describe_blocks(volume: _InspectedVolume, base: str) -> str | None:
    """Describe the history in Prometheus blocks; None if it is short.

    Blocks are named by ULIDs, which begin with the time of their creation, and record in
    `meta.json` the time that they cover.
    """
    at = f"{base}/" if base else ""
    root = volume.listing(base, keep=_META)
    blocks = [name for name in root.names if _ULID.fullmatch(name)]
    cut = not root.whole
    for name in _PROMETHEUS_BY_HAND:
        if name in root.names or (cut and volume.stat(at + name) is not None):
            return f"it holds {at}{name}, which somebody put there"
    if (words := _find_strange(root, _PROMETHEUS_OWN, "Prometheus")) is not None:
        return words
    if not blocks:
        return None
    metas = list(root.files.values())
    if cut:  # a large block hides the others, and their `meta.json`
        metas += [
            volume.entries.file(volume.name, f"{at}{block}/meta.json", _META_LIMIT) or b""
            for block in blocks[:_FEW]
        ]
    covered = [int(number) for meta in metas for _, number in _MIN_MAX.findall(meta)]
    later: list[int] = []
    if cut and len(blocks) == len(root.names):  # the listing ended among the blocks
        newest = (volume.stat(at + name) for name in ("wal", "chunks_head"))
        later = [_milliseconds(entry.changed) for entry in newest if entry is not None]
    spans = [
        _span([*times, *later])
        for times in ([read_ulid_time(name) for name in blocks], covered)
        if times
    ]
    return _history("samples", max(spans) // _DAY_MS)


def read_ulid_time(ulid: str) -> int:
    """Return the time in the first ten characters of a ULID, in milliseconds since 1970."""
    number = 0
    for character in ulid[:10]:
        number = number * 32 + _CROCKFORD.index(character)
    return number


def _milliseconds(moment: datetime | None) -> int:
    return round((moment or datetime.now(UTC)).timestamp() * 1000)


def _check_victoria(volume: _InspectedVolume) -> str | None:
    """Describe the history in VictoriaMetrics data; None if it is short.

    There is a folder for each month, as in `data/small/2024_01`, and snapshots that a user asked
    for.
    """
    if (words := _find_strange(volume.listing(), _VICTORIA_OWN, "VictoriaMetrics")) is not None:
        return words
    days = []
    for base in ("", "data/"):
        if any(not name.startswith(".") for name in volume.listing(f"{base}snapshots").names):
            return f"it holds {base}snapshots, which somebody asked for"
    for folder in (f"{base}data/{size}" for base in ("", "data/") for size in ("small", "big")):
        listing = volume.listing(folder)
        days += [
            (int(m[1]) * 12 + int(m[2])) * 30
            for name in listing.names
            if (m := _MONTH.fullmatch(name))
        ]
        if not listing.whole:  # the newest names were not seen
            entry = volume.stat(folder)
            moment = (entry.changed if entry is not None else None) or datetime.now(UTC)
            days.append((moment.year * 12 + moment.month) * 30)
    return _history("samples", _span(days))


def _check_loki(volume: _InspectedVolume) -> str | None:
    """Describe the rules or the history in Loki data; None if there are none or it is short.

    Rules were sent to its ruler; tables of the index are named by their number of days or weeks
    since 1970.
    """
    if (words := _find_strange(volume.listing(), _LOKI_OWN, "Loki")) is not None:
        return words
    if any(not name.startswith(".") for name in volume.listing("rules").names):
        return "it holds alerting rules (rules/)"
    for folder in ("chunks/index", "index"):
        listing = volume.listing(folder)
        numbers = [int(m[1]) for name in listing.names if (m := _TABLE.fullmatch(name))]
        each = 1 if max(numbers, default=0) >= 10_000 else 7
        if numbers and not listing.whole:
            entry = volume.stat(folder)
            numbers.append(
                _milliseconds(entry.changed if entry is not None else None) // _DAY_MS // each
            )
        if (words := _history("logs", _span(numbers) * each)) is not None:
            return words
    return None


def _span(numbers: Iterable[int]) -> int:
    found = list(numbers)
    return max(found) - min(found) if found else 0


def _history(kind: str, days: int) -> str | None:
    return (
        f"it holds {kind} of {days} days, which nothing can bring back"
        if days > KEPT_DAYS
        else None
    )


def _check_silences(volume: _InspectedVolume) -> str | None:
    for path in ("silences", "data/silences"):
        if (entry := volume.stat(path)) is not None and (not entry.is_file or entry.size):
            return "it holds silences, which people set"
    return _find_strange(volume.listing(), _ALERTMANAGER_OWN, "Alertmanager")


CHECKS: Mapping[str, Callable[[_InspectedVolume], str | None]] = {
    "grafana": _check_grafana,
    "prometheus": _check_prometheus,
    "victoriametrics": _check_victoria,
    "loki": _check_loki,
    "alertmanager": _check_silences,
}
"""Checks that an entry in the table of known images may name."""
