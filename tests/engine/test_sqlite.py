"""SQLite in any volume: copied whole while an application writes as fast as it can, judged in
archives, and put back.
"""

import gzip
import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.backup import Artifact, DatabaseStatistics
from safe_compose.databases import sqlite
from safe_compose.databases.sqlite.check import Checker, JudgedDatabase
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed, VerificationFailed
from safe_compose.volumes import archive, gzip_stream
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.tar import read_members
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import (
    ComposeProject,
    docker,
    real_docker,
    require_success,
    unique,
    wait_until,
)
from testing.recipe import type_recipe
from testing.stacks import JOB

PLACES = ("state", "sub dir/Ünï.log")
"""The one with a rollback journal, the other with a write-ahead log; no name tells what they are.
"""

# In every transaction a row in each of two tables and their number in a third: a torn copy is one
# where these differ. Hundreds of them a second come into every copy; without a rest they would take
# a whole processor from who makes it.
WRITER = r"""
import sqlite3, threading, time
def write(path, mode):
    db = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
    db.execute(f'PRAGMA journal_mode={mode}')
    db.execute('PRAGMA synchronous=OFF')
    db.executescript('CREATE TABLE IF NOT EXISTS one (n INTEGER PRIMARY KEY, t TEXT);'
        'CREATE TABLE IF NOT EXISTS two (n INTEGER, t TEXT);'
        'CREATE INDEX IF NOT EXISTS i ON two (t); CREATE TABLE IF NOT EXISTS total (n INTEGER);')
    n = db.execute('SELECT count(*) FROM one').fetchone()[0]
    while True:
        n += 1
        db.execute('BEGIN IMMEDIATE')
        db.execute('INSERT INTO one VALUES (?, ?)', (n, 'x' * (n % 700)))
        db.execute('INSERT INTO two VALUES (?, ?)', (n, str(n * 7919 % 10007) + 'y' * (n % 300)))
        db.execute('DELETE FROM total')
        db.execute('INSERT INTO total VALUES (?)', (n,))
        db.execute('COMMIT')
        time.sleep(0.001)
import os
os.makedirs('/app/state/sub dir', exist_ok=True)
threading.Thread(target=write, args=('/app/state/sub dir/Ünï.log', 'WAL'), daemon=True).start()
write('/app/state/state', 'DELETE')
"""


def counts(path: Path) -> int:
    """How many transactions are in a copy; fails when one of them is torn."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        one, two, total = (
            db.execute(f"SELECT {q}").fetchone()[0]
            for q in ("count(*) FROM one", "count(*) FROM two", "n FROM total")
        )
        assert one == two == total
        assert db.execute("SELECT count(*) FROM one WHERE length(t) <> n % 700").fetchone() == (0,)
        return int(total)


# -- without an engine -----------------------------------------------------------------------------


def make(path: Path, rows: int, mode: str = "DELETE") -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA journal_mode={mode}")
    db.execute("PRAGMA wal_autocheckpoint=0")
    db.execute('CREATE TABLE "a \'b""c" (n)')
    db.executemany('INSERT INTO "a \'b""c" VALUES (?)', ((f"row {i} " * 20,) for i in range(rows)))
    return db


def judge(path: Path) -> JudgedDatabase:
    with Checker() as checker:
        return checker.judge(path)


def test_a_log_that_was_not_written_back_yet_counts(tmp_path: Path) -> None:
    db = make(tmp_path / "live", 50, "WAL")
    for end in ("", "-wal"):
        (tmp_path / f"copy{end}").write_bytes((tmp_path / f"live{end}").read_bytes())
    db.close()
    judged = judge(tmp_path / "copy")
    assert (judged.fault, judged.unsure, judged.rows, judged.tables[0].table) == (
        None,
        None,
        50,
        "a 'b\"c",
    )


@pytest.mark.parametrize("harm", ["cut", "flipped", "zeroed page"])
def test_a_damaged_database_is_not_counted_as_good(tmp_path: Path, harm: str) -> None:
    make(tmp_path / "db", 400).close()
    data = bytearray((tmp_path / "db").read_bytes())
    if harm == "cut":
        del data[len(data) // 2 :]
    elif harm == "flipped":
        data[4096 * 2 + 3] ^= 0xFF  # how many cells a page has
    else:
        data[4096 * 3 : 4096 * 4] = bytes(4096)
    (tmp_path / "db").write_bytes(data)
    judged = judge(tmp_path / "db")
    assert judged.fault is not None


def test_a_database_that_needs_its_applications_own_functions_is_unsure_not_damaged(
    tmp_path: Path,
) -> None:
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as db:
        db.create_collation("own", lambda a, b: (a > b) - (a < b))
        db.execute("CREATE TABLE t (n TEXT COLLATE own)")
        db.execute("CREATE INDEX i ON t (n)")
        db.executemany("INSERT INTO t VALUES (?)", (("b",), ("a",)))
    judged = judge(tmp_path / "db")
    assert judged.fault is None and "own" in str(judged.unsure)


@pytest.mark.parametrize(
    "sql", ["c AS (json_extract(d, '$.x'))", "c AS (d ->> '$.x') STORED", "CHECK (json_valid(d))"]
)
def test_a_database_whose_schema_uses_json_is_judged(tmp_path: Path, sql: str) -> None:
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as db:
        db.execute(f"CREATE TABLE t (d TEXT, {sql})")
        db.execute("CREATE INDEX i ON t (json_extract(d, '$.x'))")
        db.execute("INSERT INTO t (d) VALUES (?)", ('{"x": 1}',))
    judged = judge(tmp_path / "db")
    assert (judged.fault, judged.unsure, judged.rows) == (None, None, 1)


def packed(folder: Path, path: Path) -> Artifact:
    sums = gzip_stream.pack([path.read_bytes()], folder / "c.gz", subject="v", stage="t")
    facts = (sums.bytes, sums.sha256, sums.uncompressed_bytes)
    return Artifact("c.gz", "sqlite", *facts, "v", "db", {"path": "db", "owner": "0 0 644"})


def test_a_copy_is_looked_at_beside_the_backup_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "db", 10).close()
    (tmp_path / "backup").mkdir()
    artifact = packed(tmp_path / "backup", tmp_path / "db")
    counted = DatabaseStatistics("db", 0, judge(tmp_path / "db").tables)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert [e.level for e in sqlite.verify_copies(tmp_path / "backup", [artifact], [counted])] == [
        "L3"
    ]
    assert {p.name for p in tmp_path.iterdir()} <= {"backup", "db", "home"}


def test_a_copy_that_is_whole_but_not_what_was_counted_is_rejected(tmp_path: Path) -> None:
    make(tmp_path / "db", 10).close()
    artifact = packed(tmp_path, tmp_path / "db")
    counted = DatabaseStatistics("db", 0, judge(tmp_path / "db").tables)
    assert [e.level for e in sqlite.verify_copies(tmp_path, [artifact], [counted])] == ["L3"]
    (tmp_path / "c.gz").unlink()
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as db:
        db.execute('DELETE FROM "a \'b""c" WHERE rowid = 3')
    with pytest.raises(VerificationFailed, match="rows"):
        sqlite.verify_copies(tmp_path, [packed(tmp_path, tmp_path / "db")], [counted])
    with pytest.raises(VerificationFailed, match="no copy of db"):
        sqlite.verify_copies(tmp_path, [], [counted])


@pytest.mark.parametrize("sparse", [False, True])
def test_databases_are_found_by_their_first_bytes_in_sparse_files_too(
    tmp_path: Path, sparse: bool
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    make(volume / "odd name", 5).close()
    (volume / "sqlite.db").write_bytes(b"not one")
    (volume / "empty.db").touch()
    if sparse:
        with (volume / "odd name").open("r+b") as file:
            file.truncate(1 << 20)
        with (volume / "hole first").open("wb") as file:
            file.seek(1 << 20)
            file.write(sqlite.MAGIC)
    argv = [
        "tar",
        "--create",
        "--format=posix",
        "--sparse",
        "--hole-detection=raw",
        "-C",
        tmp_path,
        "volume",
    ]
    tar = subprocess.run(argv, check=True, capture_output=True).stdout
    finder = sqlite.Finder()
    with_look = list(read_members([tar], finder))
    assert with_look == list(read_members([tar]))
    assert list(finder.found) == [b"odd name"]


# -- with an engine --------------------------------------------------------------------------------


@pytest.fixture
def app(compose_project: ProjectFactory, sqlite_image: str) -> ComposeProject:
    """An application that writes into two databases as fast as it can, some thousand transactions
    under way.
    """
    text = f"""
services:
  app:
    image: {sqlite_image}
    init: true
    command: [python3, -c, {json.dumps(WRITER)}]
    volumes: ["state:/app/state"]
volumes:
  state:
"""
    project = compose_project(text)
    project.up()
    wait_until("the application has written", lambda: min(written(project)) > 500)
    return project


def written(project: ComposeProject) -> tuple[int, ...]:
    """What a client of the living databases sees; 0 before they are there."""
    look = (
        "import sqlite3,sys; print(sqlite3.connect(sys.argv[1], timeout=60).execute('SELECT n FROM"
        " total').fetchone()[0])"
    )
    found = []
    for place in PLACES:
        words = ("compose", "exec", "-T", "app", "python3", "-c", look, f"/app/state/{place}")
        done = project.docker(*words, check=False)
        found.append(int(done.stdout) if done.returncode == 0 else 0)
    return tuple(found)


def from_volume(volume: str, folder: Path) -> tuple[int, ...]:
    """Transactions in the databases of a volume at rest; fails where one is torn."""
    folder.mkdir()
    words = (
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        f"{volume}:/v:ro",
        "--entrypoint",
        "tar",
        "postgres:15",
        "-C",
        "/v",
        "-c",
        ".",
    )
    made = subprocess.run([real_docker(), *words], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", folder], input=made.stdout, check=True)
    return tuple(counts(folder / place) for place in PLACES)


def newest(safe_compose: SafeCompose, project: ComposeProject) -> tuple[Path, dict[str, Any]]:
    found = json.loads(
        require_success(safe_compose("list", "--project", project.name, "--json")).stdout
    )["backups"][0]
    return Path(found["path"]), json.loads((Path(found["path"]) / "manifest.json").read_text())


@pytest.mark.thorough
@pytest.mark.engine
def test_hot_cold_and_back_while_an_application_writes(
    app: ComposeProject, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    volume = f"{app.name}_state"
    before = written(app)
    hot = json.loads(require_success(safe_compose("backup", "--json", cwd=app.folder)).stdout)[
        "backup"
    ]
    assert hot["verified"]["level"] == "L3"
    folder, manifest = newest(safe_compose, app)
    [record] = manifest["volumes"]
    assert record["method"] == "live" and {d["name"] for d in record["sqlite"]} == set(PLACES)
    kept = {}
    for artifact in record["artifacts"]:
        if artifact["kind"] == "sqlite":
            assert artifact["detail"]["by"].startswith("backup API")
            copy = tmp_path / "copy"
            copy.write_bytes(gzip.decompress((folder / artifact["file"]).read_bytes()))
            kept[artifact["database"]] = counts(copy)
    assert all(kept[place] >= seen for place, seen in zip(PLACES, before, strict=True))
    owners = app.exec("app", "find", "/app/state", "!", "-user", "1000")
    assert owners == "", "the copying left files of another user behind"

    before = written(app)
    deleted = require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=app.folder))
    assert app.volumes() == [], deleted.stderr
    evidence = json.loads((newest(safe_compose, app)[0] / "verification.json").read_text())[
        "evidence"
    ]
    assert (
        sorted(e["what"].partition(",")[0] for e in evidence if "SQLite" in e["what"])
        == ["SQLite: integrity_check ok"] * 2
    )
    require_success(safe_compose("undo", cwd=app.folder))
    wait_until("the application writes again", lambda: min(written(app)) > 0)
    app.docker("compose", "stop", "-t", "1")
    after = from_volume(volume, tmp_path / "undone")
    assert all(now >= seen for now, seen in zip(after, before, strict=True))

    app.docker("compose", "down")
    require_success(safe_compose("restore", hot["id"], "--confirm", app.name, cwd=app.folder))
    assert from_volume(volume, tmp_path / "restored") == tuple(kept[place] for place in PLACES)
    docker("volume", "rm", volume)
    type_recipe(Path(hot["path"]), tmp_path / "tools")
    assert from_volume(volume, tmp_path / "typed") == tuple(kept[place] for place in PLACES)
    names = {p.name for p in (tmp_path / "restored").rglob("*") if p.is_file()}
    assert names == {"state", "Ünï.log"}, "a stale log next to a restored database"


@pytest.mark.thorough
@pytest.mark.engine
def test_each_way_of_copying_gives_whole_databases_or_says_that_it_cannot(
    app: ComposeProject, engine: Engine, sqlite_image: str, tmp_path: Path
) -> None:
    volume = engine.docker.volume(f"{app.name}_state")
    assert volume is not None
    made = archive.archive(EngineLocation(engine, volume.name), into=tmp_path, live=True)
    found = sqlite.find(tmp_path, made)
    assert {sqlite.make_readable(path) for path in found} == set(PLACES)

    def copy(name: str, *ways: str) -> None:
        into = tmp_path / name
        copies, counted, notes = sqlite.copy_databases(
            EngineLocation(engine, volume.name), found, into, methods=ways
        )
        assert len(copies) == 2 and notes == ()
        for artifact, statistics in zip(copies, counted, strict=True):
            target = tmp_path / f"{name}.db"
            target.write_bytes(gzip.decompress((into / artifact.file).read_bytes()))
            assert {t.table: t.rows for t in statistics.tables} == dict.fromkeys(
                ("one", "two"), counts(target)
            ) | {"total": 1}

    for _ in range(2):
        for way in sqlite.METHODS:
            copy(unique(way), way)
    with pytest.raises(OperationFailed, match="written to all the time"):
        copy("busy")
    docker("kill", f"{app.name}-app-1")  # in the middle of a transaction as likely as not
    copy("stable")


@pytest.mark.thorough
@pytest.mark.engine
def test_a_damaged_database_is_said_and_archived_as_it_is_whether_it_runs_or_goes(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    make(tmp_path / "db", 400).close()
    data = (tmp_path / "db").read_bytes()
    broken = data[: 4096 * 3] + bytes(4096) + data[4096 * 4 :]
    project = compose_project("""
services:
  app: {image: "busybox:latest", init: true, command: [sleep, "100000"], volumes: ["kept:/kept", "uploads:/uploads"]}
volumes: {kept: , uploads: }
""")
    project.up()
    name = f"{project.name}-app-1"
    for place in ("kept/app.sqlite", "uploads/somebodys.sqlite"):
        subprocess.run(
            [real_docker(), "exec", "-i", name, "dd", f"of=/{place}"],
            input=broken,
            check=True,
            capture_output=True,
        )
    hot = require_success(safe_compose("backup", "--json", cwd=project.folder))
    assert "app.sqlite is damaged" in hot.stderr and "holds it as it was read" in hot.stderr
    assert json.loads(hot.stdout)["backup"]["verified"]["level"] == "L2"
    passed = require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder))
    for file in ("app.sqlite", "somebodys.sqlite"):
        assert f"{file} is damaged" in passed.stderr and "holds it as it is" in passed.stderr
    assert project.volumes() == []
    require_success(safe_compose("undo", cwd=project.folder))
    back = subprocess.run(
        [real_docker(), "exec", name, "cat", "/kept/app.sqlite"], check=True, capture_output=True
    ).stdout
    assert back == broken
