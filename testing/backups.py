"""Stores of backups for tests and measurements, without an engine: real archives, or very many
manifests.
"""

import io
import json
import tarfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from safe_compose.core.backup import (
    Artifact,
    Backup,
    DatabaseStatistics,
    Evidence,
    ServerStatistics,
    TableCount,
    VolumeRecord,
)
from safe_compose.operations.backup import verify as backup_verify
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.catalogue.manifest import to_bytes, write_manifest
from safe_compose.volumes.archive import ARCHIVE_FILE, LIST_FILE
from safe_compose.volumes.gzip_stream import Sums, pack

PROJECTS = 20
TABLES = 40


def keep(catalogue: Catalogue, volumes: Sequence[str] = ("shop_data",), *, project: str = "shop", reason: str = "manual",
         verify: bool = True, engine_id: str = "E") -> Backup:  # fmt: skip
    """A backup whose archives are what a volume with one file gives; read back and verified unless
    told otherwise.
    """
    with catalogue.writer.draft(
        project, reason, endpoint="unix:///x", engine_id=engine_id
    ) as draft:
        records = []
        for name in volumes:
            folder = draft.folder(name)
            packed = [
                (ARCHIVE_FILE, "archive", _tar()),
                (LIST_FILE, "list", b"d 0 755 0 0 \0f 6 644 0 0 photo\0"),
            ]
            made = [
                _artifact(
                    f"{folder.name}/{file}",
                    kind,
                    name,
                    pack([data], folder / file, subject=name, stage="archive"),
                )
                for file, kind, data in packed
            ]
            records.append(
                VolumeRecord(name, "local", {}, {}, "", "critical", "files", False, "cold",
                 artifacts=tuple(made))
            )  # fmt: skip
        kept = draft.commit(records)
    return backup_verify.verify_draft(None, catalogue, kept, trial_limit=0) if verify else kept


def _artifact(file: str, kind: str, volume: str, sums: Sums) -> Artifact:
    detail = (
        {"members": "2", "list": "find", "tar": "gnu"} if kind == "archive" else {"members": "2"}
    )
    return Artifact(
        file, kind, sums.bytes, sums.sha256, sums.uncompressed_bytes, volume, detail=detail
    )  # fmt: skip


def _tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo("volume")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        photo = tarfile.TarInfo("volume/photo")
        photo.size = 6
        tar.addfile(photo, io.BytesIO(b"bytes!"))
    return data.getvalue()


def fill(root: Path, count: int, projects: int = PROJECTS) -> None:
    """A store of so many verified backups, as the catalogue would have written them, without its
    syncs.
    """
    (root / "locks").mkdir(mode=0o700, parents=True)
    root.chmod(0o700)
    for number in range(count):
        project = f"project-{number % projects}"
        day = f"2026-{1 + number // 28 % 12:02}-{1 + number % 28:02}"
        backup_id = f"{day.replace('-', '')}T072700Z-{number:06x}"
        folder = root / project / backup_id
        folder.mkdir(mode=0o700, parents=True)
        made = Backup(
            backup_id, number + 1, f"{day}T07:27:00Z", project, "unix:///var/run/docker.sock",
            "engine", "manual", (), str(folder), (_database(project), _files(project)),
        )  # fmt: skip
        manifest = write_manifest(made)
        found = [Evidence("L3" if a.kind == "database" else "L2", a.file, made.created, "read")
                 for v in made.volumes for a in v.artifacts]  # fmt: skip
        shape = {"format": 1, "manifest_sha256": sha256(manifest).hexdigest(), "broken": None}
        evidence = [
            {"level": e.level, "subject": e.subject, "at": e.at, "what": e.what} for e in found
        ]
        (folder / "manifest.json").write_bytes(manifest)
        (folder / "verification.json").write_bytes(to_bytes(shape | {"evidence": evidence}))
    (root / "store.json").write_text(json.dumps({"format": 1, "next_seq": count + 1}))


def _database(project: str) -> VolumeRecord:
    name = f"{project}_postgres_data"
    tables = tuple(TableCount("public", f"table_{n}", n) for n in range(TABLES))
    statistics = ServerStatistics(
        "postgres", "15.18", "app", "712", "", (DatabaseStatistics("app", 1 << 20, tables),)
    )
    dump = Artifact(f"{name}/db-app.sql.gz", "database", 1 << 20, "0" * 64, 1 << 22, name, "app")
    return VolumeRecord(
        name, "local", {}, {"com.docker.compose.project": project}, "2026-01-01T00:00:00Z",
        "critical", "postgres", False, "dump", artifacts=(dump,), statistics=statistics,
    )  # fmt: skip


def _files(project: str) -> VolumeRecord:
    name = f"{project}_uploads"
    made = tuple(
        Artifact(f"{name}/{file}", kind, 1 << 20, "0" * 64, 1 << 22, name)
        for file, kind in (("data.tar.gz", "archive"), ("data.list.gz", "list"))
    )
    return VolumeRecord(
        name, "local", {}, {}, "2026-01-01T00:00:00Z", "critical", "files", False, "live",
        artifacts=made
    )  # fmt: skip
