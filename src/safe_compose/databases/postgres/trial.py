"""Test restores of PostgreSQL."""

from safe_compose.core.backup import Evidence
from safe_compose.databases.postgres.base_backup import find_base
from safe_compose.databases.postgres.helper_server import PostgresHelper, PostgresLocation
from safe_compose.databases.postgres.helper_settings import blames_data
from safe_compose.databases.postgres.restore import require_equal, restore_dump, revive
from safe_compose.databases.postgres.row_counts import measure
from safe_compose.databases.trials import (
    ServerTrial,
    is_fault_of_data,
    is_server_lost,
    making_scratch_volume,
)
from safe_compose.engine.client_stream import HelperFailed


class PostgresTrial(ServerTrial):
    """A test restore of an archive, or else of a physical copy, or else of a dump."""

    def run(self) -> list[Evidence]:
        """Test the restore, as `ServerTrial.run` does."""
        if (
            self.record.statistics is not None
            and not self.has_archive
            and find_base(self.record.artifacts) is not None
        ):
            return [self.test_copy()]
        return super().run()

    def test_archive(self) -> Evidence:
        """Test the archive, as `ServerTrial.test_archive` does."""
        statistics, name = self.statistics, self.record.name
        place = PostgresLocation.of(self.record, self.image)
        with (
            self.extracting() as volume,
            PostgresHelper(place, volume, name).serving(statistics.user) as client,
        ):

            def is_blamed(error: HelperFailed) -> bool:
                if is_server_lost(error):
                    return is_fault_of_data(self.engine, client.container)
                return blames_data(error.stderr, error.returncode, bare=True)

            with self.counting(is_blamed):
                counted = measure(client, [d.name for d in statistics.databases])
        if not self.record.dump_older_than_archive:
            require_equal(statistics.databases, counted, name, "trial of the archive")
        return self.make_evidence("archive restored and started", counted)

    def test_copy(self) -> Evidence:
        """Restore and verify a physical copy, start a server on it and count its rows.

        pg_verifybackup does the verification.

        Raises:
            VerificationFailed: The copy is damaged, or the server holds something else.
            TrialSkipped: The test cannot be run here.
        """
        with making_scratch_volume(self.engine) as volume:
            place = PostgresLocation.of(self.record, self.image)
            counted = revive(volume, self.folder, self.record, place)
        return self.make_evidence("physical copy restored and started", counted)

    def test_dump(self) -> Evidence:
        """Test the dump, as `ServerTrial.test_dump` does."""
        statistics, name, notes = self.statistics, self.record.name, list[str]()
        place = PostgresLocation.of(self.record, self.image)
        with (
            making_scratch_volume(self.engine) as volume,
            PostgresHelper(place, volume, name).serving(statistics.user, fresh=True) as client,
            self.loading(),
        ):
            counted = restore_dump(
                client, self.folder, self.record.artifacts, statistics, notes=notes
            )
        require_equal(statistics.databases, counted, name, "trial of the dump")
        return self.make_evidence("dump restored into a fresh server", counted, notes)
