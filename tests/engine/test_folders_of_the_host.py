"""A volume that points at a folder of the host or a share: no way back deletes what no deletion of
the volume ever touched.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.faults import failing_syscalls
from testing.fixtures import SafeCompose
from testing.projects import docker, read_in_volume, require_success, unique, volume_exists
from testing.runs import steps
from testing.stacks import JOB

pytestmark = pytest.mark.engine

Pair = tuple[str, str, Path]


@pytest.fixture
def pair(lab: None, safe_compose: SafeCompose, tmp_path: Path) -> Iterator[Pair]:
    """Two volumes that were deleted with a backup: one that points at a folder with a file in it,
    and a plain one.
    """
    folder = tmp_path / "uploads"
    folder.mkdir()
    outside, plain = unique("a-outside"), unique("b-plain")
    docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={folder}", outside)
    docker("volume", "create", plain)
    (folder / "photo").write_text("a photo")
    read_in_volume(plain, "dd", "of=/v/row", "status=none", input="a row")
    require_success(safe_compose(*JOB, "volume", "rm", outside, plain))
    assert (
        (folder / "photo").read_text() == "a photo"
        and not volume_exists(outside)
        and not volume_exists(plain)
    )
    yield outside, plain, folder
    docker("volume", "rm", "-f", outside, plain, check=False)


@pytest.mark.thorough
def test_a_folder_with_content_stays_as_it_was_when_the_undo_fails_or_is_killed(
    pair: Pair, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    outside, plain, folder = pair
    failed = safe_compose("undo", env=failing_syscalls("fsync", ".jsonl", "EIO", skip=3))
    assert (
        failed.returncode == 73 and "as it was: its content lies outside of docker" in failed.stderr
    ), failed.stderr
    assert (folder / "photo").read_text() == "a photo" and not volume_exists(outside)
    require_success(safe_compose("recover"))
    killed = safe_compose("undo", env=failing_syscalls("fsync", ".jsonl", "KILL GROUP", skip=2))
    assert killed.returncode == -9 and steps(sealed_environment)[-1] == "put-back", (
        steps(sealed_environment),
        killed.stderr,
    )
    require_success(safe_compose("recover"))
    assert (folder / "photo").read_text() == "a photo" and not volume_exists(outside)
    (folder / "later").write_text("written since")
    require_success(safe_compose("undo"))
    assert (
        sorted(path.name for path in folder.iterdir()) == ["later", "photo"]
        and read_in_volume(plain, "cat", "/v/row") == "a row"
    )


@pytest.mark.thorough
def test_a_folder_that_was_seen_empty_is_filled_and_is_empty_again_when_the_undo_fails_or_is_killed(
    pair: Pair, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    outside, plain, folder = pair
    (folder / "photo").unlink()
    failed = safe_compose("undo", env=failing_syscalls("fsync", ".jsonl", "EIO", skip=5))
    assert failed.returncode == 73 and f"{outside} is back" in failed.stderr, failed.stderr
    assert list(folder.iterdir()) == [] and not volume_exists(outside) and not volume_exists(plain)
    require_success(safe_compose("recover"))
    killed = safe_compose("undo", env=failing_syscalls("fsync", ".jsonl", "KILL GROUP", skip=3))
    assert killed.returncode == -9 and steps(sealed_environment)[-1] == "put-back", (
        steps(sealed_environment),
        killed.stderr,
    )
    assert (folder / "photo").exists()
    require_success(safe_compose("recover"))
    assert list(folder.iterdir()) == [] and not volume_exists(outside)
    require_success(safe_compose("undo"))
    assert (folder / "photo").read_text() == "a photo" and read_in_volume(
        plain, "cat", "/v/row"
    ) == "a row"
