"""What is said to be back after a restore."""

import pytest

from safe_compose.core.backup import Artifact
from safe_compose.operations.restore.statistics import count_entries


@pytest.mark.parametrize(
    ("stated", "number"),
    [("28", 27), ("0", 0), ("", 0), ("-5", 0), ("many", 0), ("٣", 0), ("9" * 5000, 0)],
)
def test_a_manifest_that_states_no_number_of_entries_is_no_fault(stated: str, number: int) -> None:
    listing = Artifact("v/list.gz", "list", 1, "0" * 64, 1, "v", detail={"members": stated})
    archive = Artifact("v/v.tar.gz", "archive", 1, "0" * 64, 1, "v", detail={"members": "5"})
    assert count_entries([listing, archive]) == number
