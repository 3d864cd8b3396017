"""A manifest that names what a backup lacks is readable, whatever the backup lacks."""

import pytest

from safe_compose.core import backup_set
from safe_compose.core.backup import Backup, Omission
from safe_compose.store.catalogue.checks import find_fault


def backup(omission: Omission) -> Backup:
    moment = "2026-11-22T07:27:00Z"
    return Backup(
        "20261122T072700Z-3f9a1c", 1, moment, "shop", "", "", "manual", (), "", omitted=(omission,)
    )


@pytest.mark.parametrize("name", ["shop_data", "/srv/shop", "layer:shop-app-1"])
def test_a_backup_that_lacks_a_location_can_be_read(name: str) -> None:
    lacking = backup_set.omit_failed(name, "critical", "it changed meanwhile", "docker stop app")
    assert find_fault(backup(lacking)) is None


def test_a_kind_that_nobody_knows_is_refused() -> None:
    assert "kind" in (find_fault(backup(Omission("x", "planet", "why"))) or "")
