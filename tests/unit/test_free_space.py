"""A backup whose size nobody knows, as of a database in a folder of the host, needs some space."""

from types import SimpleNamespace
from typing import Any

import pytest

from safe_compose.core.observed import Observed
from safe_compose.errors import OperationFailed
from safe_compose.operations.backup.free_space import choose_fitting
from safe_compose.operations.backup.request import BackupRequest
from safe_compose.store.catalogue.folder import FreeSpace

REQUEST = BackupRequest("shop", "manual", (), Observed("", ""), ())
ENGINE: Any = SimpleNamespace(docker=SimpleNamespace(sizes=lambda names: {}))


def store(free: int) -> Any:
    folder = SimpleNamespace(free_space=lambda: FreeSpace(free, None))
    return SimpleNamespace(root="/store", folder=folder)


def test_a_backup_of_unknown_size_is_not_begun_without_the_reserve() -> None:
    with pytest.raises(OperationFailed, match=r"64 MiB are needed .* no backup was made"):
        choose_fitting(store(1 << 20), ENGINE, REQUEST)


def test_a_backup_of_unknown_size_is_begun_with_the_reserve() -> None:
    assert choose_fitting(store(1 << 30), ENGINE, REQUEST) == (REQUEST, [])
