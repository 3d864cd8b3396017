"""Files of a project that are changed in place: whole, with everything that belongs to them, or put
back.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safe_compose.errors import OperationFailed, Refused, StateChanged
from safe_compose.system.project_files import FileChange, Originals, read
from testing.faults import failing_syscalls

OLD, NEW = "A=1\nPASSWORD=first \udcff\n", "A=1\nPASSWORD=second \udcff\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "project" / ".env"
    path.parent.mkdir()
    path.write_bytes(OLD.encode("utf-8", "surrogateescape"))
    path.chmod(0o640)
    return path


def test_a_file_keeps_mode_owner_and_attributes_through_change_and_back(file: Path) -> None:
    try:
        os.setxattr(file, "user.note", b"ours")
        marked = True
    except OSError:  # a file system without them
        marked = False
    link = file.with_name("link.env")
    link.symlink_to(file.name)
    before = file.stat()
    text = read(str(link))
    assert text == OLD
    change = FileChange.of(str(link), text, NEW)
    change.refuse_unless_possible()
    for step, content in (
        (change.apply, change.after),
        (change.take_back, change.before),
        (change.take_back, change.before),
    ):
        step()
        now = file.stat()
        assert file.read_bytes() == content
        assert (now.st_mode, now.st_uid, now.st_gid) == (
            before.st_mode,
            before.st_uid,
            before.st_gid,
        )
        assert not marked or os.getxattr(file, "user.note") == b"ours"
    assert link.is_symlink()
    assert sorted(p.name for p in file.parent.iterdir()) == [".env", "link.env"]


def test_what_somebody_else_changed_meanwhile_is_left_alone(file: Path) -> None:
    change = FileChange.of(str(file), OLD, NEW)
    file.write_text("theirs")
    for step in (change.apply, change.take_back):
        with pytest.raises(StateChanged, match="changed by somebody else"):
            step()
    assert file.read_text() == "theirs"


def test_a_file_with_a_second_name_is_refused(file: Path) -> None:
    os.link(file, file.with_name("other"))
    with pytest.raises(Refused, match="hard link"):
        FileChange.of(str(file), OLD, NEW).refuse_unless_possible()


def test_what_cannot_be_written_is_said_of_the_project_and_not_of_the_store(file: Path) -> None:
    file.with_name("..env.safe-compose.new").mkdir()  # where the new content would be written first
    change = FileChange.of(str(file), OLD, NEW)
    with pytest.raises(OperationFailed, match=f"cannot write {file}") as failed:
        change.apply()
    assert failed.value.next_step == "correct that, then run the same command again"
    assert read(str(file)) == OLD


def test_a_kill_in_the_middle_leaves_the_old_file_and_the_way_back(
    file: Path, tmp_path: Path
) -> None:
    change = FileChange.of(str(file), OLD, NEW)
    originals = Originals(tmp_path, "run")
    originals.keep([change], old="verifier")
    code = (
        "from pathlib import Path; from safe_compose.system.project_files import Originals; "
        f"Originals(Path({str(tmp_path)!r}), 'run').load()[0][0].apply()"
    )
    died = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **failing_syscalls("rename", "/..env.safe-compose", "KILL")},
    )
    assert died.returncode == -9
    assert len(list(file.parent.iterdir())) == 2
    assert (
        originals.path.stat().st_mode & 0o777,
        originals.path.parent.stat().st_mode & 0o777,
    ) == (0o600, 0o700)
    loaded = originals.load()
    assert loaded is not None
    [again], facts = loaded
    assert (again, facts["old"], again.state()) == (change, "verifier", "before")
    again.take_back()
    assert list(file.parent.iterdir()) == [file]
    originals.drop()
    originals.drop()
    assert originals.load() is None
