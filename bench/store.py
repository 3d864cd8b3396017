"""What a store with very many backups costs: `list`, and what the card asks of it."""

import json
import shutil
from functools import partial
from hashlib import sha256
from pathlib import Path

import table
from pairs import alternate
from stage import PROGRAM, Stage, timed

from safe_compose.artifacts import Artifact, Backup, DatabaseStatistics, Evidence, ServerStatistics, TableCount, VolumeRecord
from safe_compose.catalogue.manifest import as_bytes, write_manifest

MANY = 10_000
PROJECTS = 20
TABLES = 40


def rows(stage: Stage, rounds: int) -> list[table.Row]:
    """`list` with very many backups, against the same of a store with ten; cold is the first time after they were made."""
    few, many = stage.scratch / "few", stage.scratch / "many"
    try:
        fill(few, 10)
        fill(many, MANY)
        words = [PROGRAM, "list", "--json"]
        asked = partial(timed, words, cwd=stage.scratch, environ={**stage.environ, "SAFE_COMPOSE_HOME": str(few)})
        crowded = partial(timed, words, cwd=stage.scratch, environ={**stage.environ, "SAFE_COMPOSE_HOME": str(many)})
        text = partial(timed, words[:2], cwd=stage.scratch, environ={**stage.environ, "SAFE_COMPOSE_HOME": str(many)})
        first = crowded()
        warm = alternate(f"list --json, {MANY} backups / 10 backups", asked, crowded, rounds)
        return [
            table.single(f"list --json, {MANY} backups, every manifest read", [first]),
            table.pair(warm),
            table.single(f"list, {MANY} backups, as text", [text() for _ in range(rounds)]),
        ]
    finally:
        shutil.rmtree(few, ignore_errors=True)
        shutil.rmtree(many, ignore_errors=True)


def fill(root: Path, count: int) -> None:
    """A store of so many verified backups, as the catalogue would have written them, without its syncs."""
    (root / "locks").mkdir(mode=0o700, parents=True)
    root.chmod(0o700)
    for number in range(count):
        project = f"project-{number % PROJECTS}"
        day = f"2026-{1 + number // 28 % 12:02}-{1 + number % 28:02}"
        backup_id = f"{day.replace('-', '')}T072700Z-{number:06x}"
        folder = root / project / backup_id
        folder.mkdir(mode=0o700, parents=True)
        backup = Backup(
            backup_id, number + 1, f"{day}T07:27:00Z", project, "unix:///var/run/docker.sock", "engine", "manual", (),
            str(folder), (_database(project), _files(project)),
        )  # fmt: skip
        manifest = write_manifest(backup)
        found = [Evidence("L3" if a.kind == "database" else "L2", a.file, backup.created, "read")
                 for v in backup.volumes for a in v.artifacts]  # fmt: skip
        shape = {"format": 1, "manifest_sha256": sha256(manifest).hexdigest(), "broken": None}
        evidence = [{"level": e.level, "subject": e.subject, "at": e.at, "what": e.what} for e in found]
        (folder / "manifest.json").write_bytes(manifest)
        (folder / "verification.json").write_bytes(as_bytes(shape | {"evidence": evidence}))
    (root / "store.json").write_text(json.dumps({"format": 1, "next_seq": count + 1}))


def _database(project: str) -> VolumeRecord:
    name = f"{project}_postgres_data"
    tables = tuple(TableCount("public", f"table_{n}", n) for n in range(TABLES))
    statistics = ServerStatistics("postgres", "15.18", "app", "712", "", (DatabaseStatistics("app", 1 << 20, tables),))
    dump = Artifact(f"{name}/db-app.sql.gz", "database", 1 << 20, "0" * 64, 1 << 22, "0" * 64, name, "app")
    return VolumeRecord(
        name, "local", {}, {"com.docker.compose.project": project}, "2026-01-01T00:00:00Z", "critical", "postgres", False,
        "dump", artifacts=(dump,), statistics=statistics,
    )  # fmt: skip


def _files(project: str) -> VolumeRecord:
    name = f"{project}_uploads"
    made = tuple(
        Artifact(f"{name}/{file}", kind, 1 << 20, "0" * 64, 1 << 22, "0" * 64, name)
        for file, kind in (("data.tar.gz", "archive"), ("data.list.gz", "list"))
    )
    return VolumeRecord(
        name, "local", {}, {}, "2026-01-01T00:00:00Z", "critical", "files", False, "live", artifacts=made
    )  # fmt: skip
