"""A forged archive of a layer is refused before it is written through a link of its own."""

import io
import tarfile
from pathlib import Path

import pytest

from safe_compose.core.backup import Artifact
from safe_compose.errors import VerificationFailed
from safe_compose.volumes.archive import archive_blocks
from safe_compose.volumes.layer_archive import list_files, stream_back

TYPES = {"d": tarfile.DIRTYPE, "f": tarfile.REGTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE}


def archive(into: Path, *members: tuple[str, str, str]) -> tuple[Artifact, ...]:
    """Make an archive of (type, path, target of a link)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for kind, path, target in (("d", "", ""), *members):
            info = tarfile.TarInfo(f"volume/{path}".rstrip("/"))
            info.type, info.linkname, info.mode = TYPES[kind], target, 0o755
            tar.addfile(info)
    return archive_blocks([stream.getvalue()], "layer:shop-app-1", into=into)


LINK = ("l", "app/x", "/data")


@pytest.mark.parametrize(
    "members",
    [
        [("d", "app", ""), LINK, ("f", "app/x/file", "")],
        [("d", "app", ""), ("f", "app/x", ""), ("f", "app/x/file", "")],
        [("f", "app/file", "")],
    ],
)
def test_what_lies_below_no_folder_is_refused(
    members: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    artifacts = archive(tmp_path, *members)
    with pytest.raises(VerificationFailed, match="does not lie in a folder"):
        list_files(tmp_path, artifacts)
    with pytest.raises(VerificationFailed, match="does not lie in a folder"):
        list(stream_back(tmp_path, artifacts, set()))


def test_an_own_archive_comes_back_under_its_paths(tmp_path: Path) -> None:
    artifacts = archive(
        tmp_path,
        ("d", "app", ""),
        ("f", "app/a", ""),
        ("h", "app/b", "volume/app/a"),
        ("l", "app/c", "a"),
    )
    assert len(list_files(tmp_path, artifacts)) == 4
    stream = io.BytesIO(b"".join(stream_back(tmp_path, artifacts, {b"app"})))
    with tarfile.open(fileobj=stream) as tar:
        assert [(m.name, m.linkname) for m in tar] == [
            ("app/a", ""),
            ("app/b", "app/a"),
            ("app/c", "a"),
        ]
