"""The key that marks what a store creates."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from safe_compose.store.mark_key import mark_key
from safe_compose.system.files import PRIVATE

MAKES = """if True:
    import resource, sys
    from pathlib import Path
    from safe_compose.store.mark_key import mark_key
    from safe_compose.system.files import PRIVATE
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    print((mark_key(Path(sys.argv[1]), PRIVATE, lambda: None) or b"").hex())
"""


def begin_making(store: Path, largest_file: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", MAKES, store, str(largest_file)], stdout=subprocess.PIPE, text=True
    )


def test_a_key_that_could_not_be_written_whole_is_made_by_the_next_run(tmp_path: Path) -> None:
    assert begin_making(tmp_path, 8).communicate()[0] == "\n"
    assert list(tmp_path.rglob(".mark-key*")) == []
    found = mark_key(tmp_path, PRIVATE, lambda: None)
    assert found is not None and len(found) == 32
    assert mark_key(tmp_path, PRIVATE, None) == found
    assert (tmp_path / "journal" / ".mark-key").stat().st_mode & 0o777 == 0o600


def test_runs_that_make_the_key_at_once_get_the_same_one(tmp_path: Path) -> None:
    runs = [begin_making(tmp_path, 1 << 20) for _ in range(4)]
    found = {run.communicate()[0].strip() for run in runs}
    assert len(found) == 1 and len(found.pop()) == 64
    assert len(list(tmp_path.rglob(".mark-key*"))) == 1


def test_nothing_is_written_where_nothing_may_be_written(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert mark_key(store, PRIVATE, None) is None and not store.exists()


def test_a_file_system_without_hard_links_gets_one_key_that_no_other_run_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    def make_first(self: Path, target: Path) -> None:
        self.write_bytes(bytes(32))
        self.chmod(0o600)
        refuse(self, target)

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    found = mark_key(tmp_path / "one", PRIVATE, lambda: None)
    assert found is not None and mark_key(tmp_path / "one", PRIVATE, lambda: None) == found
    monkeypatch.setattr(Path, "hardlink_to", make_first)
    assert mark_key(tmp_path / "other", PRIVATE, lambda: None) == bytes(32)
    assert len(list(tmp_path.rglob(".mark-key*"))) == 2
