"""SQLite files that were made to harm whoever looks into them: nothing but the check of that one
file ends.
"""

import io
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from safe_compose.core.backup import Artifact, DatabaseStatistics
from safe_compose.databases import sqlite
from safe_compose.databases.sqlite.check import Checker, JudgedDatabase
from safe_compose.errors import VerificationFailed
from safe_compose.volumes import gzip_stream
from safe_compose.volumes.tar import read_members
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, real_docker, require_success, wait_until
from testing.runs import list_leftovers, start
from testing.stacks import JOB

ENDLESS = "instr(hex(zeroblob(30000000)), hex(zeroblob(15000000)) || '1')"
"""Days for one call of one function, in which SQLite looks at no clock."""
RECURSIVE = "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c)"
GREEDY = " || ".join(["hex(zeroblob(30000000))"] * 40)


def made(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)
    return path


def rewritten(path: Path, *schema: str) -> Path:
    """The schema as no SQLite would let anybody write it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        for statement in schema:
            db.execute(statement)
    return path


def altered(path: Path, at: int, data: bytes) -> Path:
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(whole)
    return path


def table_with(expression: str) -> Callable[[Path], Path]:
    """A table of one row whose constraint is that."""
    sql = f"CREATE TABLE t (a, CHECK ({expression} IS NOT 1))".replace("'", "''")
    return lambda path: rewritten(
        made(path, "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)"),
        f"UPDATE sqlite_schema SET sql = '{sql}' WHERE name = 't'",
    )


def generated_row(path: Path) -> Path:
    made(path, "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
    sql = f"CREATE TABLE t (a, b AS ({ENDLESS}) NOT NULL)".replace("'", "''")
    return rewritten(path, f"UPDATE sqlite_schema SET sql = '{sql}'")


def partial_index(path: Path) -> Path:
    made(
        path,
        "CREATE TABLE t (a)",
        "CREATE INDEX i ON t (a) WHERE a > 5",
        "INSERT INTO t VALUES (1)",
    )
    sql = f"CREATE INDEX i ON t (a) WHERE {ENDLESS} > a".replace("'", "''")
    return rewritten(path, f"UPDATE sqlite_schema SET sql = '{sql}' WHERE name = 'i'")


def index_of_an_expression(path: Path) -> Path:
    made(path, "CREATE TABLE t (a)", "CREATE INDEX i ON t (a + 1)", "INSERT INTO t VALUES (1)")
    sql = f"CREATE INDEX i ON t ({ENDLESS} + a)".replace("'", "''")
    return rewritten(path, f"UPDATE sqlite_schema SET sql = '{sql}' WHERE name = 'i'")


def view_as_table(path: Path) -> Path:
    made(path, "CREATE TABLE t (a)")
    return rewritten(
        path, f"UPDATE sqlite_schema SET sql = 'CREATE VIEW t AS SELECT {RECURSIVE} AS a'"
    )


def view_and_trigger(path: Path) -> Path:
    return made(
        path,
        "CREATE TABLE t (a)",
        "INSERT INTO t VALUES (1)",
        f"CREATE VIEW v AS SELECT {RECURSIVE} AS a",
        f"CREATE TRIGGER r AFTER INSERT ON t BEGIN INSERT INTO t SELECT {RECURSIVE}; END",
    )


def huge_schema(path: Path) -> Path:
    made(path, "CREATE TABLE t (a)")
    rows = (
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 400000) SELECT n"
        " FROM c"
    )
    return rewritten(
        path,
        "INSERT INTO sqlite_schema SELECT 'view', 'v' || n, 'v' || n, 0, 'CREATE VIEW v' || n || '"
        f" AS SELECT 1' FROM ({rows})",
    )


def deep_expression(path: Path) -> Path:
    made(path, "CREATE TABLE t (a)")
    return rewritten(
        path,
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE t (a CHECK"
        f" ({'(' * 90 + 'a' + ')' * 90}{' + 1' * 900}))'",
    )


def long_statement(path: Path) -> Path:
    made(path, "CREATE TABLE t (a)")
    return rewritten(
        path,
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE t (a CHECK (a <> ''' ||"
        " hex(zeroblob(4000000)) || '''))'",
    )


def extension(path: Path) -> Path:
    made(path, "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
    sql = f"CREATE TABLE t (a, CHECK (load_extension(''{path.parent}/evil.so'') IS NULL))"
    return rewritten(path, f"UPDATE sqlite_schema SET sql = '{sql}'")


def page_count(path: Path) -> Path:
    return altered(
        made(path, "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)"),
        28,
        struct.pack(">I", 0xFFFFFFFE),
    )


def circle(path: Path) -> Path:
    """The root of a table is its own rightmost child."""
    fill = (
        "INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 60)"
        " SELECT hex(zeroblob(500)) FROM c"
    )
    return altered(made(path, "CREATE TABLE t (a)", fill), 4096 + 8, struct.pack(">I", 2))


def circle_of_overflow(path: Path) -> Path:
    """A value of many pages whose second page comes after itself."""
    made(path, "CREATE TABLE t (a)", "INSERT INTO t VALUES (zeroblob(100000))")
    return altered(path, 2 * 4096, struct.pack(">I", 3))


def circle_of_free_pages(path: Path) -> Path:
    made(path, "CREATE TABLE t (a)", "INSERT INTO t VALUES (zeroblob(100000))", "DELETE FROM t")
    trunk = struct.unpack(">I", path.read_bytes()[32:36])[0]
    return altered(path, (trunk - 1) * 4096, struct.pack(">I", trunk))


def cut(path: Path) -> Path:
    fill = (
        "INSERT INTO t WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 99)"
        " SELECT hex(zeroblob(500)) FROM c"
    )
    os.truncate(made(path, "CREATE TABLE t (a)", fill), 30_000)
    return path


SLOW = {
    "a constraint": table_with(ENDLESS),
    "a generated column": generated_row,
    "a partial index": partial_index,
    "an index of an expression": index_of_an_expression,
}
QUICK: dict[str, tuple[Callable[[Path], Path], bool | None]] = {
    "memory": (table_with(GREEDY), False),
    "one value of a gigabyte": (table_with("zeroblob(999000000)"), False),
    "a view as a table": (view_as_table, None),
    "view and trigger": (view_and_trigger, True),
    "a deep expression": (deep_expression, False),
    "a long statement": (long_statement, False),
    "load_extension": (extension, None),
    "page count": (page_count, None),
    "circle": (circle, False),
    "circle of overflow": (circle_of_overflow, False),
    "circle of free pages": (circle_of_free_pages, False),
    "cut": (cut, False),
}
"""What is planted, and whether the database is whole; None where releases of SQLite differ."""


def judged(path: Path, seconds: float = 20) -> JudgedDatabase:
    with Checker(seconds=seconds) as checker:
        return checker.judge(path)


@pytest.mark.thorough
@pytest.mark.parametrize("plant", SLOW)
def test_what_would_take_for_ever_ends_in_time_and_is_said(plant: str, tmp_path: Path) -> None:
    path = SLOW[plant](tmp_path / "db")
    assert path.stat().st_size < 192 << 10
    begun = time.monotonic()
    found = judged(path, seconds=2)
    assert time.monotonic() - begun < 12
    assert found.fault is None and found.tables == () and "not finished" in str(found.unsure)


@pytest.mark.parametrize("plant", QUICK)
def test_a_planted_database_is_judged_or_said_and_takes_little(plant: str, tmp_path: Path) -> None:
    make, whole = QUICK[plant]
    path = make(tmp_path / "db")
    before = peak()
    found = judged(path)
    if whole is not None:
        assert (found.fault is None and found.unsure is None) == whole, found
    assert peak() - before < 600 << 10, "kilobytes of the largest child"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "home") == ["db"]


def peak() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def test_a_huge_schema_ends_in_time(tmp_path: Path) -> None:
    path = huge_schema(tmp_path / "db")
    begun = time.monotonic()
    found = judged(path, seconds=1)
    assert time.monotonic() - begun < 15
    assert found.fault is None and found.unsure is not None


def test_an_extension_is_never_loaded(tmp_path: Path) -> None:
    mark = tmp_path / "loaded"
    source = (
        f'#include <fcntl.h>\n__attribute__((constructor)) static void run(void) {{ open("{mark}",'
        " O_CREAT, 0600); }\n"
    )
    argv = ["cc", "-shared", "-fPIC", "-x", "c", "-o", str(tmp_path / "evil.so"), "-"]
    subprocess.run(argv, input=source, text=True, check=True)
    judged(extension(tmp_path / "db"))
    assert not mark.exists()


def test_a_journal_that_names_a_file_of_the_host_has_nobody_remove_it(tmp_path: Path) -> None:
    """SQLite removes the super-journal that a journal names once it was rolled back, whatever that
    file is.
    """
    path = made(tmp_path / "db", "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
    victim = tmp_path / "precious"
    victim.write_bytes(b"a letter\0that is no list of journals\0")
    magic, name = bytes.fromhex("d9d505f920a163d7"), str(victim).encode()
    pages = path.stat().st_size // 4096
    head = (magic + struct.pack(">IIIII", 0, 0x1234, pages, 512, 4096)).ljust(512, b"\0")
    tail = (
        struct.pack(">I", 0x40000000 // 4096 + 1)
        + name
        + struct.pack(">II", len(name), sum(name))
        + magic
    )
    (tmp_path / "db-journal").write_bytes(head + tail)
    found = judged(path)
    assert victim.exists() and "several databases" in str(found.unsure)


def test_a_log_of_gigabytes_and_one_that_writes_far_away_fill_no_disk(tmp_path: Path) -> None:
    path = made(tmp_path / "db", "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
    with (tmp_path / "db-wal").open("wb") as log:
        log.truncate(3 << 30)
    found = judged(path)
    assert found.rows == 1 or found.unsure is not None
    used = sum(p.stat().st_blocks * 512 for p in tmp_path.iterdir() if p.is_file())
    assert used < 80 << 20

    (tmp_path / "db-wal").unlink(missing_ok=True)
    (tmp_path / "db-wal").write_bytes(far_frame(path))
    judged(path)
    assert path.stat().st_size < 80 << 20, "a page at 15 TB was written"


def far_frame(path: Path) -> bytes:
    """A write-ahead log of one transaction: page 4,000,000,000 of a database of as many pages."""
    page = path.read_bytes()[:4096]
    salts = b"saltsalt"
    head = struct.pack(">IIII", 0x377F0682, 3007000, 4096, 0) + salts
    first, second = summed(head, 0, 0)
    head += struct.pack(">II", first, second)
    frames = b""
    for number, size in ((1, 0), (4_000_000_000, 4_000_000_000)):
        facts = struct.pack(">II", number, size)
        first, second = summed(facts + page, first, second)
        frames += facts + salts + struct.pack(">II", first, second) + page
    return head + frames


def summed(data: bytes, first: int, second: int) -> tuple[int, int]:
    """The checksum of a write-ahead log whose magic number says little-endian."""
    for one, two in struct.iter_unpack("<II", data):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return first, second


# -- many of them, in an archive -------------------------------------------------------------------


def archived(folder: Path, files: dict[str, bytes]) -> tuple[list[Artifact], sqlite.Finder]:
    """An archive as a backup has it, and what was found in it."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as made:
        root = tarfile.TarInfo("volume")
        root.type, root.mode = tarfile.DIRTYPE, 0o755
        made.addfile(root)
        for name, content in files.items():
            info = tarfile.TarInfo(f"volume/{name}")
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    folder.mkdir()
    sums = gzip_stream.pack([tar.getvalue()], folder / "data.tar.gz", subject="v", stage="t")
    finder = sqlite.Finder()
    for _ in read_members([tar.getvalue()], finder):
        continue
    return [
        Artifact("data.tar.gz", "archive", sums.bytes, sums.sha256, sums.uncompressed_bytes, "v")
    ], finder


def test_bad_ones_are_said_in_one_line_each_and_the_good_one_is_still_judged(
    tmp_path: Path,
) -> None:
    good_one = made(
        tmp_path / "good", "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)"
    ).read_bytes()
    files = {
        "good": good_one,
        "cut": cut(tmp_path / "cut").read_bytes(),
        "two\nlines\x1b[31m": circle(tmp_path / "circle").read_bytes(),
        "greedy": table_with(GREEDY)(tmp_path / "greedy").read_bytes(),
        "short": sqlite.MAGIC,
    }
    artifacts, finder = archived(tmp_path / "backup", files)
    proofs, words = sqlite.verify_archived(tmp_path / "backup", artifacts, finder, limit=1 << 30)
    assert [e.subject for e in proofs] == ["data.tar.gz: good"]
    assert len(words) == 3 and all("\n" not in line and "\x1b" not in line for line in words)
    assert (
        sum("is damaged" in line for line in words) == 2
        and sum("not judged" in line for line in words) == 1
    )


def test_four_thousand_databases_take_bounded_time(tmp_path: Path) -> None:
    small = made(
        tmp_path / "db", "PRAGMA page_size = 512", "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)"
    ).read_bytes()
    artifacts, finder = archived(tmp_path / "backup", {f"{n}.db": small for n in range(4_000)})
    begun = time.monotonic()
    proofs, words = sqlite.verify_archived(tmp_path / "backup", artifacts, finder, limit=1 << 30)
    assert time.monotonic() - begun < 72
    assert len(proofs) == 4_000 or "is over" in words[0]


def test_the_time_of_one_volume_is_limited_however_many_bad_ones_it_holds(tmp_path: Path) -> None:
    slow = table_with(ENDLESS)(tmp_path / "db")
    begun = time.monotonic()
    with Checker(seconds=1, total=2) as checker:
        found = [checker.judge(slow) for _ in range(50)]
    assert time.monotonic() - begun < 15
    assert all(f.unsure for f in found) and "is over" in str(found[-1].unsure)


def test_one_huge_database_does_not_hide_the_others(tmp_path: Path) -> None:
    small = made(tmp_path / "db", "CREATE TABLE t (a)").read_bytes()
    artifacts, finder = archived(
        tmp_path / "backup", {"huge": small + bytes(4 << 20), "small": small}
    )
    proofs, words = sqlite.verify_archived(tmp_path / "backup", artifacts, finder, limit=1 << 20)
    assert [e.subject for e in proofs] == [
        "data.tar.gz: small"
    ] and "1 SQLite databases were not opened" in words[0]


def test_a_copy_that_nobody_could_judge_when_it_was_made_is_not_rejected_when_somebody_can(
    tmp_path: Path,
) -> None:
    copy = made(tmp_path / "db", "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
    sums = gzip_stream.pack([copy.read_bytes()], tmp_path / "c.gz", subject="v", stage="t")
    facts = (sums.bytes, sums.sha256, sums.uncompressed_bytes)
    nothing = [DatabaseStatistics("db", 0, ())]
    for by, accepted in (
        (f"backup API (own); {sqlite.UNJUDGED}", True),
        ("backup API (own)", False),
    ):
        artifact = Artifact(
            "c.gz", "sqlite", *facts, "v", "db", {"path": "db", "owner": "0 0 644", "by": by}
        )
        if accepted:
            [found] = sqlite.verify_copies(tmp_path, [artifact], nothing)
            assert "not judged" in found.what
        else:
            with pytest.raises(VerificationFailed, match="rows"):
                sqlite.verify_copies(tmp_path, [artifact], nothing)


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_check_ends_with_whoever_asked_for_it(number: signal.Signals, tmp_path: Path) -> None:
    slow = table_with(ENDLESS)(tmp_path / "slow")
    code = (
        "import sys; from pathlib import Path; from safe_compose.databases.sqlite.check import"
        " Checker\nwith Checker(seconds=5) as checker:\n print('asks', flush=True);"
        " checker.judge(Path(sys.argv[1]))"
    )
    asking = subprocess.Popen(
        [sys.executable, "-c", code, slow],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert asking.stdout is not None and asking.stdout.readline() == "asks\n"
    wait_until("the check runs", lambda: checking(asking.pid))
    [child] = checking(asking.pid)
    os.kill(asking.pid, number)
    asking.wait()
    asking.stdout.close()
    wait_until(
        "the check has ended",
        lambda: not Path(f"/proc/{child}/cmdline").exists() or not cmdline(child),
        timeout=90,
    )


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def checking(parent: int) -> list[int]:
    """The processes that check for one of ours."""
    return [
        int(p.name)
        for p in Path("/proc").iterdir()
        if p.name.isdecimal()
        and b"sqlite/judge.py" in (line := cmdline(int(p.name)))
        and line.split(b"\0")[-2] == b"%d" % parent
    ]


# -- while services are down -----------------------------------------------------------------------


@pytest.fixture
def planted(compose_project: ProjectFactory, tmp_path: Path) -> ComposeProject:
    """A running service whose volume holds a database that nobody can check in time."""
    project = compose_project("""
services:
  app: {image: "busybox:latest", init: true, command: [sleep, "100000"], volumes: ["data:/data"]}
volumes: {data: }
""")
    project.up()
    slow = table_with(ENDLESS)(tmp_path / "slow").read_bytes()
    name = f"{project.name}-app-1"
    subprocess.run(
        [real_docker(), "exec", "-i", name, "dd", "of=/data/app.db"],
        input=slow,
        check=True,
        capture_output=True,
    )
    return project


@pytest.mark.thorough
@pytest.mark.engine
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_deletion_at_once_while_a_database_is_checked(
    number: signal.Signals, planted: ComposeProject, sealed_environment: Path
) -> None:
    running = start(*JOB, "compose", "down", "-v", cwd=planted.folder)
    wait_until("the check runs", lambda: checking(running.pid))
    running.send_signal(number)
    begun = time.monotonic()
    _, said = running.communicate(timeout=60)
    assert time.monotonic() - begun < 12, "the check itself takes 15 s"
    assert running.returncode == (130 if number == signal.SIGINT else -number), said
    assert "nothing was deleted" in said and planted.running() == [f"{planted.name}-app-1"]
    assert (
        len(planted.volumes()) == 1
        and list_leftovers(sealed_environment) == []
        and checking(running.pid) == []
    )


@pytest.mark.thorough
@pytest.mark.engine
def test_a_deletion_goes_through_with_a_database_that_nobody_can_check(
    planted: ComposeProject, safe_compose: SafeCompose
) -> None:
    begun = time.monotonic()
    passed = require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=planted.folder))
    assert time.monotonic() - begun < 120
    assert (
        "SQLite app.db: not judged" in passed.stderr
        and "the archive holds it as it is" in passed.stderr
    )
    assert planted.volumes() == []
