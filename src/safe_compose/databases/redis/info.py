"""The parts of a Redis or Valkey server's INFO: its product, its keys and its clients."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from safe_compose.core.backup import DatabaseStatistics, TableCount

LASTING = "keys"
EXPIRING = "expiring keys"
"""Names of the two counts among the tables of a database."""


def count_database(number: int | str, lasting: int, expiring: int) -> DatabaseStatistics:
    """Make the statistics of one database's keys.

    The two tables are disjoint, so that the rows of a database are all its keys.
    """
    tables = [TableCount("", LASTING, lasting)]
    if expiring:
        tables.append(TableCount("", EXPIRING, expiring))
    return DatabaseStatistics(str(number), 0, tuple(tables))


def parse_keyspace(info: str) -> tuple[DatabaseStatistics, ...]:
    """Return the statistics in the answer to `INFO keyspace`."""
    return count_keys(parse_facts(info.split("\n")))


def describe_differences(
    wanted: Sequence[DatabaseStatistics], found: Sequence[DatabaseStatistics]
) -> str:
    """Describe how the counts differ; empty if they match. Keys that expire may be fewer."""
    then, now = {d.name: d for d in wanted}, {d.name: d for d in found}
    wrong = []
    for name in sorted({*then, *now}, key=parse_number):
        most = then[name].rows if name in then else 0
        least = sum(t.rows for t in then[name].tables if t.table == LASTING) if name in then else 0
        have = now[name].rows if name in now else 0
        if not least <= have <= most:
            wrong.append(f"database {name} has {have} keys, {most} were counted")
    return "; ".join(wrong)


def parse_number(text: str) -> int:
    """Parse a decimal number of at most 18 digits; anything else is 0."""
    return int(text) if re.fullmatch(r"\d{1,18}", text, re.ASCII) else 0


def read_version(facts: Mapping[str, str]) -> str:
    """Return the version, as in `7.0.15`."""
    found = re.match(
        r"[0-9A-Za-z.+-]{1,32}", facts.get("valkey_version") or facts["redis_version"], re.ASCII
    )
    return found[0] if found else "of unknown version"


def parse_facts(lines: Iterable[str]) -> dict[str, str]:
    """Return the `name:value` lines of INFO."""
    return {m[1]: m[2] for line in lines if (m := re.fullmatch(r"(\w+):(.*)", line))}


def count_keys(facts: dict[str, str]) -> tuple[DatabaseStatistics, ...]:
    """Return the statistics of each database with keys."""
    found = []
    for name, value in facts.items():
        if re.fullmatch(r"db\d{1,9}", name, re.ASCII):
            numbers = {
                k: parse_number(v) for k, _, v in (part.partition("=") for part in value.split(","))
            }
            keys = numbers.get("keys", 0)
            expiring = min(keys, numbers.get("expires", 0) + numbers.get("subexpiry", 0))
            found.append(count_database(name.removeprefix("db"), keys - expiring, expiring))
    return tuple(found)


def list_sessions(lines: Sequence[str]) -> Iterator[str]:
    """Yield a description of each connected client but our own."""
    for line in lines:
        if re.match(r"id=\d+ addr=", line):
            facts = dict(part.partition("=")[::2] for part in line.split(" "))
            if not facts.get("cmd", "").startswith("client"):
                yield (
                    f"{facts.get('name') or facts.get('user') or 'a client'} from"
                    f" {facts.get('addr', '?')}"
                )


def find_product(facts: dict[str, str]) -> str:
    """Return `Valkey`, `KeyDB` or `Redis`."""
    if facts.get("server_name") == "valkey" or "valkey_version" in facts:
        return "Valkey"
    return "KeyDB" if "keydb" in facts.get("executable", "") else "Redis"


def list_warnings(facts: dict[str, str]) -> tuple[str, ...]:
    """Return warnings if the server holds only a part of the data."""
    found = []
    if facts.get("role") == "slave":
        found.append("it is a replica: its primary may hold more")
    if facts.get("cluster_enabled") == "1":
        found.append(
            "it is one node of a cluster: the others are not in this backup unless their"
            " volumes are"
        )
    return tuple(found)
