"""Test restores of MySQL and MariaDB."""

from collections.abc import Iterator
from dataclasses import replace

from safe_compose.core.backup import DatabaseStatistics, Evidence
from safe_compose.databases.mysql.contents import count_tables, list_contents
from safe_compose.databases.mysql.helper_server import MysqlHelper, MysqlLocation
from safe_compose.databases.mysql.restore import own_databases, require_equal, restore_dump
from safe_compose.databases.trials import (
    ServerTrial,
    is_fault_of_data,
    is_server_lost,
    making_scratch_volume,
)
from safe_compose.engine.client_stream import HelperFailed


class MysqlTrial(ServerTrial):
    """A test restore of an archive, or else of a dump."""

    def test_archive(self) -> Evidence:
        """Test the archive, as `ServerTrial.test_archive` does."""
        statistics, name = self.statistics, self.record.name
        place = MysqlLocation.of(self.record, self.image)
        with (
            self.extracting() as volume,
            MysqlHelper(place, volume, name).serving_copy() as client,
        ):

            def is_blamed(error: HelperFailed) -> bool:
                return not is_server_lost(error) or is_fault_of_data(self.engine, client.container)

            with self.counting(is_blamed), client.session() as asked:
                contents = list_contents(asked, own_databases(statistics))
                counted = count_tables(asked, contents)
        if not self.record.dump_older_than_archive:
            volatile = {
                (database, table)
                for database, table, engine_name in contents.tables
                if engine_name == "MEMORY"
            }
            require_equal(
                _drop_volatile(statistics.databases, volatile),
                _drop_volatile(counted, volatile),
                name,
                "trial of the archive",
            )
        return self.make_evidence("archive restored and started", counted)

    def test_dump(self) -> Evidence:
        """Test the dump, as `ServerTrial.test_dump` does."""
        statistics, name = self.statistics, self.record.name
        place = MysqlLocation.of(self.record, self.image)
        with (
            making_scratch_volume(self.engine) as volume,
            MysqlHelper(place, volume, name).serving_fresh() as client,
            self.loading(),
        ):
            counted = restore_dump(client, self.folder, self.record.artifacts, statistics)
        require_equal(statistics.databases, counted, name, "trial of the dump")
        return self.make_evidence("dump restored into a fresh server", counted)


def _drop_volatile(
    databases: tuple[DatabaseStatistics, ...], names: set[tuple[str, str]]
) -> Iterator[DatabaseStatistics]:
    """Yield the statistics without tables whose rows no restart keeps, and without events.

    A server that asks nobody for a password shows no events (run).
    """
    for database in databases:
        yield replace(
            database,
            tables=tuple(t for t in database.tables if (t.schema, t.table) not in names),
            extensions=tuple(name for name in database.extensions if not name.startswith("event ")),
        )
