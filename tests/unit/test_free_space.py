"""A backup whose size nobody knows, as of a database in a folder of the host, needs some space."""

from pathlib import Path

import pytest

from safe_compose.core.observed import Observed
from safe_compose.engine import Engine
from safe_compose.engine.docker import Daemon
from safe_compose.errors import OperationFailed
from safe_compose.operations.backup.free_space import choose_fitting
from safe_compose.operations.backup.request import BackupRequest
from safe_compose.store.catalogue.catalogue import Catalogue

REQUEST = BackupRequest("shop", "manual", (), Observed("", ""), ())
ENGINE = Engine(Daemon("docker", (), environ={}), "20261129T000000Z-aaaaaa")
"""One that is not connected: without volumes it has no sizes to measure."""
FULL = Path("/proc")
"""A file system that never has space."""


def test_a_backup_of_unknown_size_is_not_begun_without_the_reserve() -> None:
    with pytest.raises(OperationFailed, match=r"64 MiB are needed .* no backup was made"):
        choose_fitting(Catalogue.at(FULL), ENGINE, REQUEST)


def test_a_backup_of_unknown_size_is_begun_with_the_reserve(tmp_path: Path) -> None:
    assert choose_fitting(Catalogue.at(tmp_path), ENGINE, REQUEST) == (REQUEST, [])
