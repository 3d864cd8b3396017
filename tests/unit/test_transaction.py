"""A change is made as a whole or taken back, and its journal says which."""

import signal
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.backup import Backup, VolumeRecord
from safe_compose.core.observed import Observed
from safe_compose.errors import Interrupted, OperationFailed
from safe_compose.operations.restore.execute import RestoreRun
from safe_compose.operations.restore.plan import RestorePlan
from safe_compose.operations.restore.target import RestoreTarget
from safe_compose.operations.transaction import transaction
from safe_compose.settings.load import Settings
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import Journal, Run
from safe_compose.store.steps import Restored, RolledBack
from safe_compose.system.signals import Terminated
from safe_compose.workspace import Workspace

NO_ENGINE: Any = None  # nothing is asked
MADE = "2026-11-22T07:27:00Z"
RECORD = VolumeRecord("v", "local", {}, {}, MADE, "critical", "files", False, "cold")
BACKUP = Backup(
    "20261122T072700Z-3f9a1c", 1, MADE, "shop", "unix:///x", "E", "manual", (), "/x", (RECORD,)
)


def taken_back(fault: BaseException) -> str:
    return f"taken back: {type(fault).__name__}"


def not_yet(fault: BaseException) -> str:
    return ""


def fails(fault: BaseException) -> str:
    raise RuntimeError("no way back")


def ignores_signals(fault: BaseException) -> str:
    signal.raise_signal(signal.SIGINT)
    return "taken back in peace"


@pytest.mark.parametrize(
    ("fault", "take_back", "starts_again", "raised", "outcome"),
    [
        pytest.param(None, taken_back, True, None, "done", id="it comes to its end"),
        pytest.param(None, taken_back, False, None, None, id="what was stopped does not start"),
        pytest.param(
            OperationFailed("no"),
            taken_back,
            True,
            OperationFailed,
            "taken back: OperationFailed",
            id="a fault",
        ),
        pytest.param(
            OperationFailed("no"),
            not_yet,
            True,
            OperationFailed,
            None,
            id="a fault that recover has to take back",
        ),
        pytest.param(
            OperationFailed("no"), fails, True, RuntimeError, None, id="a roll back that fails"
        ),
        pytest.param(
            OperationFailed("no"),
            ignores_signals,
            True,
            OperationFailed,
            "taken back in peace",
            id="a signal in a roll back",
        ),
        pytest.param(
            KeyboardInterrupt(),
            taken_back,
            True,
            Interrupted,
            "taken back: KeyboardInterrupt",
            id="ctrl-c",
        ),
        pytest.param(
            KeyboardInterrupt(),
            not_yet,
            True,
            Interrupted,
            None,
            id="ctrl-c that recover has to take back",
        ),
        pytest.param(
            Terminated(signal.SIGTERM),
            taken_back,
            True,
            Terminated,
            "taken back: Terminated",
            id="sigterm",
        ),
    ],
)
def test_the_journal_is_closed_with_what_became_of_a_change_or_stays_open(
    tmp_path: Path,
    fault: BaseException | None,
    take_back: Callable[[BaseException], str],
    starts_again: bool,
    raised: type[BaseException] | None,
    outcome: str | None,
) -> None:
    journal = Journal(tmp_path)
    run = journal.begin(journal.new_id())
    left = []

    def leave() -> bool:
        left.append(True)
        return starts_again

    def change() -> None:
        with transaction(run, take_back, leave=leave) as going_on:
            if fault is not None:
                raise fault
            going_on.outcome = "done"

    if raised is None:
        change()
    else:
        with pytest.raises(raised):
            change()
    found = journal.find(run.id)
    assert found is not None and found.outcome == (outcome or "did not end") and left == [True]


@pytest.mark.parametrize(
    "fault", [None, OperationFailed("of the change")], ids=["that was made", "that was taken back"]
)
def test_a_journal_that_cannot_be_closed_changes_nothing_of_what_became_of_a_change(
    fault: OperationFailed | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path)
    run = journal.begin(journal.new_id())
    with (
        pytest.raises(OperationFailed, match="of the change") if fault else nullcontext(),
        transaction(run, taken_back),
    ):
        run.path.unlink()
        if fault is not None:
            raise fault
    assert "write the journal" in capfd.readouterr().err


def test_ctrl_c_tells_what_became_of_the_change_unless_it_has_words_of_its_own(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path)
    for own, told in (
        (None, "interrupted: taken back: KeyboardInterrupt"),
        ("interrupted halfway", "interrupted halfway"),
    ):
        with (
            pytest.raises(Interrupted) as interrupted,
            transaction(journal.begin(journal.new_id()), taken_back, interrupted=own),
        ):
            raise KeyboardInterrupt
        assert interrupted.value.message == told


def test_a_signal_while_the_end_of_a_restore_is_journaled_rolls_nothing_back(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path)
    written = journal.begin(journal.new_id())

    def read_clock_in_a_signal() -> datetime:
        signal.raise_signal(signal.SIGINT)
        return datetime.now(UTC)

    settings = Settings(store=tmp_path)
    workspace = Workspace(
        "docker", NO_ENGINE, Catalogue.at(tmp_path), journal, settings, tmp_path, None
    )
    plan = RestorePlan(NO_ENGINE, BACKUP, Observed("", ""), ())
    run = Run(written.id, written.path, read_clock_in_a_signal)
    restore_run = RestoreRun(workspace, plan, run, undoes=None)
    restore_run.touched.append(RestoreTarget(RECORD, RECORD.name, None))
    with pytest.raises(KeyboardInterrupt) as interrupted:
        restore_run.settle()
    assert restore_run.roll_back(interrupted.value) == f"restored from {BACKUP.id}"
    found = journal.find(run.id)
    assert found is not None and found.every(Restored) and not found.every(RolledBack)
