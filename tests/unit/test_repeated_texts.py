"""An error says each thing once, however many layers word it."""

import pytest

from safe_compose.core.backup import Backup, Omission
from safe_compose.core.backup_set import omit_failed
from safe_compose.databases.postgres.client import naming_client_fault
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.errors import OperationFailed
from safe_compose.operations.backup.omissions import format_omissions, report_incomplete

DATA, LAYER, FOLDER = "shop_data", "layer:shop-web-1", "/srv/shop"
FULL = "FATAL:  the disk is full\nFATAL:  the disk is full\npsql: error: it ended\n"


def fail(name: str) -> Omission:
    """What a backup lacks when a database client failed on this location."""
    with pytest.raises(OperationFailed) as raised, naming_client_fault(name, "dump"):
        raise HelperFailed("pg_dump", 1, FULL)
    return omit_failed(name, "critical", raised.value.message, None)


@pytest.mark.parametrize("name", [DATA, LAYER, FOLDER])
def test_what_a_backup_lacks_is_named_once_with_its_reason(name: str) -> None:
    lacks = fail(name)
    [line] = format_omissions([lacks])
    backup = Backup(
        "20261122T072700Z-3f9a1c", 1, "2026-11-22T07:27:00Z", "shop", "x", "E", "manual", (), "/x",
        (), omitted=(lacks,),
    )  # fmt: skip
    fault = report_incomplete(backup)
    assert fault is not None
    for text in (line, fault.message):
        assert text.count(name.removeprefix("layer:")) == 1, text
        assert text.count("the disk is full") == 1, text
        assert "dump: FATAL:  the disk is full / psql: error: it ended" in text


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("a\n\n b \na\n", "dump failed (1): a / b"),
        ("1\n2\n3\n4\n", "dump failed (1): 2 / 3 / 4"),
        ("\n", "dump failed (1)"),
    ],
)
def test_a_line_that_a_program_prints_again_is_shown_once(stderr: str, message: str) -> None:
    assert HelperFailed("dump", 1, stderr).message == message
