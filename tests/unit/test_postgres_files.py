"""What is judged of Postgres files without any engine: a physical copy against its manifest, a
backup against today's server.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from safe_compose.core.backup import Artifact, DatabaseStatistics, ServerStatistics, VolumeRecord
from safe_compose.core.observed import Container, Mount
from safe_compose.databases import postgres
from safe_compose.engine import Engine
from safe_compose.errors import Refused, VerificationFailed
from safe_compose.operations.restore.target import RestoreTarget, find_archive
from safe_compose.volumes import gzip_stream
from safe_compose.volumes.engine_location import EngineLocation

FILES = {
    "PG_VERSION": b"15\n",
    "base/1/1259": b"relation" * 999,
    "global/pg_control": b"\0" * 8192,
    "name\udcff": b"odd",
}
NOTHING = cast(Engine, None)
"""For questions that need no engine: asking it would fail the test."""


def manifest(files: Mapping[str, bytes]) -> bytes:
    """As the server writes it: a name that is no UTF-8 in hex, the sum of all lines before it in
    the last one.
    """
    rows = []
    for name, data in files.items():
        raw = name.encode("utf-8", "surrogateescape")
        path = {"Encoded-Path": raw.hex()} if "\udcff" in name else {"Path": name}
        rows.append(
            {
                **path,
                "Size": len(data),
                "Checksum-Algorithm": "SHA256",
                "Checksum": hashlib.sha256(data).hexdigest(),
            }
        )
    text = (
        '{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": '
        + json.dumps(rows)
        + ',\n"WAL-Ranges": [],\n'
    )
    return (
        text + '"Manifest-Checksum": "' + hashlib.sha256(text.encode()).hexdigest() + '"}\n'
    ).encode()


def copy(folder: Path, members: Mapping[str, bytes], *, tail: bytes = b"") -> Artifact:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.USTAR_FORMAT, errors="surrogateescape"
    ) as made:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    (folder / "base.tar.gz").unlink(missing_ok=True)
    sums = gzip_stream.pack([out.getvalue() + tail], folder / "base.tar.gz", subject="v", stage="t")
    return Artifact("base.tar.gz", "base", sums.bytes, sums.sha256, sums.uncompressed_bytes, "v")


def counted(*artifacts: Artifact) -> tuple[tuple[Artifact, ...], ServerStatistics]:
    return artifacts, ServerStatistics(
        "postgres", "15.18", "u", databases=(DatabaseStatistics("d", 0),)
    )


def test_a_physical_copy_is_proved_by_the_manifest_of_the_server(tmp_path: Path) -> None:
    whole = {
        **FILES,
        "pg_wal/000000010000000000000002": b"w" * 100,
        "backup_manifest": manifest(FILES),
    }
    [evidence] = postgres.verify_dump(tmp_path, *counted(copy(tmp_path, whole)))
    assert (evidence.level, evidence.subject) == (
        "L3",
        "base.tar.gz",
    ) and "4 files equal" in evidence.what


@pytest.mark.parametrize(
    ("members", "cause"),
    [
        ({**FILES}, "no manifest"),
        (
            {**FILES, "PG_VERSION": b"16\n", "backup_manifest": manifest(FILES)},
            "PG_VERSION is not as",
        ),
        (
            {k: v for k, v in FILES.items() if k != "base/1/1259"}
            | {"backup_manifest": manifest(FILES)},
            "base/1/1259 is not as",
        ),
        ({**FILES, "base/1/9": b"", "backup_manifest": manifest(FILES)}, "base/1/9 is not as"),
        ({**FILES, "backup_manifest": manifest(FILES).replace(b"1259", b"1260")}, "was changed"),
        ({**FILES, "backup_manifest": manifest(FILES)[:-3]}, "does not read"),
    ],
    ids=["none", "a byte", "a file less", "a file more", "changed manifest", "cut manifest"],
)
def test_a_copy_that_is_not_what_its_manifest_says_is_rejected(
    members: dict[str, bytes], cause: str, tmp_path: Path
) -> None:
    with pytest.raises(VerificationFailed, match=cause):
        postgres.verify_dump(tmp_path, *counted(copy(tmp_path, members)))


def test_a_copy_that_is_cut_or_damaged_on_disk_is_rejected(tmp_path: Path) -> None:
    artifact = copy(tmp_path, {**FILES, "backup_manifest": manifest(FILES)})
    file = tmp_path / artifact.file
    raw = file.read_bytes()
    for bad in (
        raw[: len(raw) // 2],
        raw[:-1],
        raw + b"x",
        raw[:100] + bytes([raw[100] ^ 1]) + raw[101:],
    ):
        file.write_bytes(bad)
        with pytest.raises(VerificationFailed):
            postgres.verify_dump(tmp_path, *counted(artifact))


# -- which server serves it today ------------------------------------------------------------------

OLD, NEW = "/var/lib/postgresql/data", "/var/lib/postgresql"


def server(major: int, mounted: str, pgdata: str) -> Container:
    environment = {"PG_MAJOR": str(major), "PGDATA": pgdata}
    mount = Mount("volume", "v", "", mounted)
    return Container(
        "c",
        "shop-db-1",
        f"postgres:{major}",
        "sha256:new",
        "exited",
        environment=environment,
        mounts=(mount,),
    )


def record(version: str, kinds: tuple[str, ...], *, older: bool = False) -> VolumeRecord:
    user = {
        "container": "shop-db-1",
        "service": "db",
        "image": "postgres:15",
        "image_id": "sha256:old",
        "destination": OLD,
    }
    files = tuple(Artifact(f"{kind}.gz", kind, 1, "", 1, "v") for kind in kinds)
    return VolumeRecord(
        "v", "local", {}, {}, "", "critical", "postgres", False, "dump+cold", (user,), files,
        ServerStatistics("postgres", version, "u", pgdata=OLD), dump_older_than_archive=older,
    )  # fmt: skip


BOTH = ("archive", "list", "globals", "database")


def test_files_go_back_under_their_own_major_version_and_the_dump_under_a_newer_one() -> None:
    kept = record("15.18", BOTH)
    for same in (
        [server(15, OLD, OLD)],
        [],
        [server(15, OLD, OLD), server(18, NEW, f"{NEW}/18/docker")],
    ):
        assert postgres.adapt_record(EngineLocation(NOTHING, "v"), kept, same, ()) is None
    # a tool of another version that only looks at it elsewhere is no server of it
    assert (
        postgres.adapt_record(EngineLocation(NOTHING, "v"), kept, [server(17, "/backup", OLD)], ())
        is None
    )
    newer = postgres.adapt_record(
        EngineLocation(NOTHING, "v"), kept, [server(18, NEW, f"{NEW}/18/docker")], ()
    )
    assert newer is not None and newer.statistics is not None
    assert [a.kind for a in newer.artifacts] == ["globals", "database"]
    assert (newer.users[0]["image_id"], newer.users[0]["destination"]) == ("sha256:new", NEW)
    assert newer.statistics.pgdata == f"{NEW}/18/docker"


def test_what_lay_beside_a_database_goes_along_to_a_newer_major_version() -> None:
    kept = record("15.18", ("globals", "database", "others", "others list", "settings"))
    newer = postgres.adapt_record(EngineLocation(NOTHING, "v"), kept, [server(17, OLD, OLD)], ())
    assert newer is not None
    assert [a.kind for a in newer.artifacts] == [a.kind for a in kept.artifacts]


@pytest.mark.parametrize(
    "kinds", [BOTH, ("globals", "database", "others", "others list")], ids=["archive", "others"]
)
def test_a_person_reads_what_of_a_volume_stays_behind_when_only_its_dump_fits(
    kinds: tuple[str, ...],
) -> None:
    kept = record("15.18", kinds)
    newer = postgres.adapt_record(EngineLocation(NOTHING, "v"), kept, [server(17, OLD, OLD)], ())
    assert newer is not None
    found = target(newer, kept)
    stays = "safe-compose restore k-1 --volume v --into scratch"
    assert (stays in (found.stays("k-1") or "")) == (kinds == BOTH)
    assert target(kept, kept, image="").stays("k-1") is None


def target(made: VolumeRecord, kept: VolumeRecord, image: str = "postgres:17") -> RestoreTarget:
    return RestoreTarget(made, "v", None, server=image, archived=find_archive(kept) is not None)


@pytest.mark.parametrize(
    ("kept", "now", "cause"),
    [
        (record("18.6", BOTH), server(15, OLD, OLD), "an older server reads neither"),
        (record("15.18", ("archive", "list")), server(17, OLD, OLD), "the backup has no dump"),
        (record("15.18", ("base",)), server(17, OLD, OLD), "the backup has no dump"),
        (
            record("15.18", BOTH, older=True),
            server(17, OLD, OLD),
            "lacks what was written after it",
        ),
        (record("15.18", BOTH), server(18, OLD, f"{NEW}/18/docker"), "which is not on the volume"),
    ],
    ids=["older", "no dump", "physical", "writes after the dump", "elsewhere"],
)
def test_what_another_major_version_could_not_hold_is_refused(
    kept: VolumeRecord, now: Container, cause: str
) -> None:
    with pytest.raises(Refused, match=cause) as fault:
        postgres.adapt_record(EngineLocation(NOTHING, "v"), kept, [now], ())
    assert fault.value.next_step is not None and "image of PostgreSQL" in fault.value.next_step
