"""The journal: what was done is on disk before the next step, and reads whatever a crash left of
it.
"""

import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest

from safe_compose.errors import OperationFailed
from safe_compose.store.journal import CommandLine, Journal, Run
from safe_compose.system.files import SHARED, Access
from safe_compose.system.process import Process
from testing.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Journal:
    return Journal(tmp_path / "store", clock=clock)


def begin(
    journal: Journal, project: str = "shop", cwd: str = "/srv/shop", endpoint: str = "unix:///x"
) -> Run:
    return journal.begin(
        journal.new_id(),
        CommandLine(("compose", "down", "-v")),
        project=project,
        cwd=cwd,
        endpoint=endpoint,
        engine_id="E",
    )


def delete(journal: Journal, **where: str) -> Run:
    run = begin(journal, **where)
    run.step("backed-up", backup=f"backup-of-{run.id}")
    run.step("running", backup=f"backup-of-{run.id}", volumes=[])
    run.step("ran", code=0, gone=["shop_data"], survived=[])
    run.step("ended", outcome="docker exited with 0")
    return run


def test_a_run_is_read_back_as_it_was_written(journal: Journal) -> None:
    run = journal.begin(
        "20261122T072700Z-000001",
        CommandLine(
            ("compose", "-p", "shop", "down", "-v"),
            program="docker-compose",
            docker_globals=("-H", "ssh://me@host"),
            compose_globals=("-p", "shop"),
        ),
        project="shop",
        cwd="/srv/shop",
        endpoint="ssh://me@host",
        engine_id="E",
        working_dir="/srv/shop",
    )
    run.step("stopping", containers=[{"name": "shop-db-1", "state": "running"}])
    run.step("odd", path=Path("/x"), names=frozenset({"b", "a"}), words=("a", "\udcff\n"))
    run.step("ended", outcome="docker exited with 0")
    (found,) = journal.runs()
    assert found == journal.find("20261122T072700Z-000001")
    assert (found.seq, found.started, found.program) == (
        1,
        "2026-11-22T07:27:00Z",
        "docker-compose",
    )
    assert found.command == ("compose", "-p", "shop", "down", "-v")
    assert (found.docker_globals, found.compose_globals) == (
        ("-H", "ssh://me@host"),
        ("-p", "shop"),
    )
    assert (found.project, found.cwd, found.endpoint, found.engine_id) == (
        "shop",
        "/srv/shop",
        "ssh://me@host",
        "E",
    )
    assert (found.facts["working_dir"], found.facts["version"], found.facts["uid"]) == (
        "/srv/shop",
        1,
        os.getuid(),
    )
    assert found.process == Process.current()
    assert [s["step"] for s in found.steps] == ["stopping", "odd", "ended"]
    assert (found.steps[1]["path"], found.steps[1]["names"], found.steps[1]["words"]) == (
        "/x",
        ["a", "b"],
        ["a", "\udcff\n"],
    )
    assert (found.outcome, found.damaged) == ("docker exited with 0", None)


def test_where_there_is_no_journal_there_are_no_runs(journal: Journal) -> None:
    assert (
        journal.runs() == journal.list_unfinished() == []
        and journal.last_deletion() is None
        and journal.find("x") is None
    )


def test_every_step_is_one_line_and_no_secret_is_in_it(journal: Journal) -> None:
    run = journal.begin(
        "r1",
        CommandLine(
            ("--confirm", "c4n4ry", "run", "-e", "A=c4n4ry"),
            docker_globals=("-H", "tcp://a:c4n4ry@h"),
        ),
    )
    run.step("looked")
    text = run.path.read_text()
    assert len(text.splitlines()) == 2 and text.endswith("\n") and "c4n4ry" not in text
    assert [isinstance(json.loads(line), dict) for line in text.splitlines()] == [True, True]


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_modes_do_not_depend_on_the_umask(journal: Journal, umask: int) -> None:
    before = os.umask(umask)
    try:
        begin(journal).step("looked")
    finally:
        os.umask(before)
    modes = {
        (p.is_dir(), stat.S_IMODE(p.stat().st_mode))
        for p in [journal.folder, *journal.folder.iterdir()]
    }
    assert modes == {(True, 0o700), (False, 0o600)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_writes_under_sudo_belongs_to_the_invoking_user(tmp_path: Path) -> None:
    begin(Journal(tmp_path / "store", Access(owner=(65534, 65534))))
    assert {p.stat().st_uid for p in (tmp_path / "store").rglob("*")} == {65534}


def test_an_id_is_used_once(journal: Journal) -> None:
    journal.begin("r1")
    with pytest.raises(OperationFailed, match="a file is in the way"):
        journal.begin("r1")


def test_runs_are_ordered_by_number_when_the_clock_steps_back(
    journal: Journal, clock: Clock
) -> None:
    first = begin(journal)
    clock.now -= timedelta(days=400)
    second = begin(journal)
    assert [r.id for r in journal.runs()] == [second.id, first.id]


@pytest.mark.parametrize("damage", [None, b"", b"x", b"\xff"])
def test_a_lost_number_is_counted_again(journal: Journal, damage: bytes | None) -> None:
    begin(journal)
    begin(journal)
    number = journal.folder / ".number"
    number.unlink() if damage is None else number.write_bytes(damage)
    run = begin(journal)
    assert next((r.seq, r.id) for r in journal.runs()) == (3, run.id)


# -- damage ----------------------------------------------------------------------------------------


def test_a_last_line_that_was_cut_short_is_left_out(journal: Journal) -> None:
    run = begin(journal)
    run.step("looked")
    run.step("stopping", containers=[])
    data = run.path.read_bytes()
    for length in range(data.index(b"\n") + 1, len(data)):
        run.path.write_bytes(data[:length])
        (found,) = journal.runs()
        assert found.damaged is None and len(found.steps) == data[:length].count(b"\n") - 1


def test_a_step_after_a_cut_line_is_not_swallowed(journal: Journal) -> None:
    run = begin(journal)
    run.step("looked")
    with run.path.open("ab") as file:
        file.write(b'{"step": "stop')
    journal.reopen(run.id).step("ended", outcome="recovered")
    found = journal.find(run.id)
    assert found is not None and ([s["step"] for s in found.steps], found.damaged) == (
        ["looked", "ended"],
        None,
    )


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\n", b"[]\n", b"{}\n", b'{"version": 2, "seq": 1}\n', b"[" * 100_000 + b"\n"],
)
def test_a_damaged_file_is_listed_last_and_hides_no_other(journal: Journal, data: bytes) -> None:
    run = begin(journal)
    (journal.folder / "zzz.jsonl").write_bytes(data)
    first, last = journal.runs()
    assert (first.id, first.damaged, last.id, last.damaged) == (
        run.id,
        None,
        "zzz",
        "its first line does not read",
    )
    assert journal.list_unfinished() == []


def test_a_damaged_line_in_the_middle_is_told(journal: Journal) -> None:
    run = begin(journal)
    with run.path.open("ab") as file:
        file.write(b"garbage\n")
    run.step("ended", outcome="x")
    found = journal.find(run.id)
    assert found is not None and (found.damaged, found.outcome) == ("a line does not read", "x")


def test_a_step_that_does_not_fit_is_taken_back(journal: Journal) -> None:
    run = begin(journal)
    size = run.path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
        with pytest.raises(OperationFailed, match="cannot write the journal"):
            run.step("stopping", containers=["x" * 100])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert run.path.stat().st_size == size


def test_a_file_in_the_place_of_the_journal_is_told(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "journal").write_text("x")
    with pytest.raises(OperationFailed, match="a file is in the way"):
        begin(Journal(tmp_path / "store"))
    assert Journal(tmp_path / "store").runs() == []


# -- unfinished runs -------------------------------------------------------------------------------

CHILD = """
import os, sys
from pathlib import Path
from safe_compose.store.journal import Journal
run = Journal(Path(sys.argv[1])).begin(f"20261122T072700Z-{sys.argv[2]}", project="shop")
run.step("stopping", containers=[{"id": "1"}])
if sys.argv[2] == "000003":
    run.step("ended", outcome="x")
print("ready", flush=True)
sys.stdin.readline()
"""


def test_a_killed_run_is_unfinished_and_a_living_or_ended_one_is_not(journal: Journal) -> None:
    root = str(journal.folder.parent)
    words = [sys.executable, "-c", CHILD, root]
    processes = [
        subprocess.Popen([*words, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in ("000001", "000002", "000003")
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        for process in (processes[0], processes[2]):
            process.kill()
            process.wait()
        (found,) = journal.list_unfinished()
        assert (found.id, found.outcome) == ("20261122T072700Z-000001", "did not end")
        step = found.last("stopping")
        assert step is not None and step["containers"] == [{"id": "1"}]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({}, False),
        ({"pid": 2**22 - 1}, True),
        ({"started": "1"}, True),  # the number was given to a younger process
        ({"started": ""}, False),
        ({"boot": "before"}, True),
        (
            {"boot": "before", "host": "elsewhere"},
            False,
        ),  # a store on a network: that machine may well be up
        ({"boot": ""}, False),
        ({"pid": 2**22 - 1, "namespace": "pid:[1]"}, False),  # a number of another container
    ],
)
def test_a_process_is_dead_only_when_that_is_certain(
    changes: dict[str, object], dead: bool
) -> None:
    process = Process.read({**Process.current().facts(), **changes})
    assert process is not None and process.is_dead() is dead


@pytest.mark.parametrize("pid", [None, "1", 0, -1, True, 1.5])
def test_a_damaged_process_is_none(pid: object) -> None:
    assert Process.read({"pid": pid}) is None


# -- the last deletion -----------------------------------------------------------------------------


def test_the_last_deletion_is_found_by_project_folder_and_endpoint(journal: Journal) -> None:
    shop, blog = (
        delete(journal),
        delete(journal, project="blog", cwd="/srv/blog", endpoint="tcp://h"),
    )

    def found(**where: str) -> str | None:
        run = journal.last_deletion(**where)
        return run.id if run else None

    assert (
        found()
        == found(project="blog")
        == found(cwd="/srv/blog")
        == found(endpoint="tcp://h")
        == blog.id
    )
    assert found(project="shop") == found(cwd="/srv/shop") == found(endpoint="unix:///x") == shop.id
    assert found(project="other") is found(project="shop", endpoint="tcp://h") is None
    record = journal.last_deletion()
    assert record is not None and record.backup == f"backup-of-{blog.id}"


def test_a_deletion_is_found_from_the_projects_own_folder(journal: Journal) -> None:
    run = journal.begin("r1", cwd="/elsewhere", working_dir="/srv/shop")
    run.step("running", backup="b")
    found = journal.last_deletion(cwd="/srv/shop")
    assert found is not None and found.id == "r1"


def test_what_was_undone_is_not_found_again(journal: Journal) -> None:
    older, newer = delete(journal), delete(journal)
    undo = begin(journal)
    undo.step("undid", run=newer.id)
    found = journal.last_deletion()
    assert found is not None and found.id == older.id


def test_runs_after_which_everything_is_there_are_no_deletions(journal: Journal) -> None:
    begin(journal).step("backed-up", backup="b")
    run = begin(journal)
    run.step("running", backup="b")
    run.step("ran", code=1, gone=[], survived=["shop_data"])
    assert journal.last_deletion() is None


def test_a_run_that_died_while_docker_ran_counts_as_a_deletion(journal: Journal) -> None:
    run = begin(journal)
    run.step("running", backup="b")
    found = journal.last_deletion()
    assert found is not None and (found.id, found.backup) == (run.id, "b")


def test_a_deletion_without_a_backup_hides_the_older_one(journal: Journal) -> None:
    delete(journal)
    run = begin(journal)
    run.step("running", backup=None)
    run.step("ran", code=0, gone=["shop_data"], survived=[])
    found = journal.last_deletion()
    assert found is not None and (found.id, found.backup) == (run.id, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_member_of_a_shared_store_goes_on_with_the_journal_of_another(
    request: pytest.FixtureRequest,
) -> None:
    group, member = 65533, 65532
    store = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    request.addfinalizer(lambda: shutil.rmtree(store))
    os.chown(store, 0, group)
    store.chmod(0o2770)
    begin(Journal(store, SHARED)).step("ended", outcome="done")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([group])
            os.setgid(member)
            os.setuid(member)
            begin(Journal(store, SHARED)).step("ended", outcome="done")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert sorted(run.seq for run in Journal(store, SHARED).runs()) == [1, 2]
