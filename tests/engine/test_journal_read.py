"""A journal is read by every reader, whichever steps are in it, whoever wrote them and however old
they are.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safe_compose.store.journal import Journal
from safe_compose.store.step_parser import KNOWN, parse
from safe_compose.store.steps import (
    Other,
    Placing,
    RestoringVolume,
    RollingBackPassword,
    Step,
    UnreadableStep,
)
from safe_compose.system.process import Process
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, require_success, volume_exists
from testing.runs import store
from testing.stacks import FILES, JOB, NO_TRIALS, write_file

SOURCE = Path(__file__).parents[2] / "src" / "safe_compose"
WAS = {
    "id": "0" * 64,
    "name": "gone-1",
    "state": "running",
    "started_at": "2026-01-01T00:00:00Z",
    "health": None,
}
EVERY: dict[str, dict[str, Any]] = {
    "ended": {"outcome": "done"},
    "stopping": {"containers": [WAS]},
    "backed-up": {"backup": "20261129T000000Z-aaaaaa", "path": "/x"},
    "running": {
        "volumes": [{"name": "gone_data", "created_at": "", "driver": "local", "options": {}}],
        "backup": None, "services": ["a"],
    },
    "docker": {"process": {"pid": 1}},
    "ran": {"code": 0, "gone": ["gone_data"], "survived": [], "parts": []},
    "putting-back": {"volume": "gone_data", "existed": True, "safety": None, "trash": None,
     "forgets": False, "outside": False,
                     "users": {}, "adds": False, "seen_empty": False},
    "put-back": {"volume": "gone_data", "source": "archive"},
    "rolled-back": {"volume": "gone_data"},
    "taking-back": {"volume": "gone_data"},
    "filling": {"volume": "gone_data"},
    "refilling": {"volume": "gone_data", "backup": "20261129T000000Z-aaaaaa"},
    "refilled": {"volume": "gone_data"},
    "restored": {"backup": "20261129T000000Z-aaaaaa"},
    "undid": {"run": "20261129T000000Z-bbbbbb", "backup": "20261129T000000Z-aaaaaa"},
    "placing": {"volume": "gone_data", "path": "a/b", "staging": ".safe-compose-0a1b2c",
     "aside": "a/b.before-0a1b2c", "existed": False},
    "beside": {"container": "0" * 64, "volume": "gone_data", "database": "shop",
     "beside": "shop_new", "aside": None, "roles": []},
    "writing-layer": {"volume": "layer:gone-1", "container": "0" * 64,
     "backup": "20261129T000000Z-aaaaaa"},
    "trashing": {"volume": "gone_data", "trash": "gone_trash", "facts": "0"},
    "trashed": {"volume": "gone_data", "trash": "gone_trash", "empty": "2026-01-01T00:00:00Z"},
    "untrashing": {"volume": "gone_data", "trash": "gone_trash"},
    "taken-out": {"volume": "gone_data", "trash": "gone_trash"},
    "let-in": {},
    "rotated": {},
    "putting-password-back": {},
}  # fmt: skip
"""One step of every kind that is read, as it is written."""
ODD: list[Any] = [
    None,
    7,
    True,
    "",
    "../../etc",
    [None],
    [7],
    [{}],
    {"name": 7},
    {"a": [1]},
    "\udcff\n",
    -1.5,
]


def test_every_step_that_is_read_has_an_example_here() -> None:
    assert EVERY.keys() == KNOWN


@pytest.mark.parametrize("name", sorted(EVERY))
def test_a_step_is_read_as_it_was_written(name: str) -> None:
    step = parse({"step": name, "at": "2026-11-29T18:00:00Z", "t": 1.0, **EVERY[name]})
    assert not isinstance(step, Other | UnreadableStep) and step.at is not None, step
    more = parse(
        {"step": name, "at": "2026-11-29T18:00:00Z", **EVERY[name], "of a newer release": [1]}
    )
    assert more == step


@pytest.mark.parametrize("name", sorted(EVERY))
def test_facts_that_are_not_those_of_the_step_raise_nothing(name: str) -> None:
    for key in EVERY[name]:
        for odd in ODD:
            assert isinstance(parse({"step": name, "at": odd, **EVERY[name], key: odd}), Step)
        assert isinstance(
            parse({"step": name, **{k: v for k, v in EVERY[name].items() if k != key}}), Step
        )
    assert isinstance(parse({"step": [name]}), UnreadableStep) and isinstance(
        parse({}), UnreadableStep
    )


def test_one_word_of_two_writers_is_told_apart() -> None:
    assert isinstance(
        parse({"step": "putting-back", "at": "2026-11-29T18:00:00Z", "t": 0.1}), RollingBackPassword
    )
    assert isinstance(parse({"step": "putting-back", "volume": "v"}), RestoringVolume)
    older = parse({"step": "putting-back", "volume": "v"})
    assert isinstance(older, RestoringVolume) and older.existed, (
        "what an older release made is never taken for ours"
    )
    for outside in ("../v", "/v", "a/../../v", ""):
        assert isinstance(
            parse({"step": "placing", **EVERY["placing"], "path": outside}), UnreadableStep
        )


@pytest.mark.parametrize(
    "facts",
    [
        {"volume": "/", "path": "x", "staging": "home", "aside": "y"},
        {"volume": "/home", "path": "me", "staging": ".ssh", "aside": "me.before-0a1b2c"},
        {"staging": "b/.safe-compose-0a1b2c"},
        {"volume": "/srv", "staging": ".c.safe-compose-0a1b2c"},
        {"aside": "a/b.before-ffffff"},
        {"volume": "/srv/../etc"},
    ],
)
def test_a_line_that_names_what_we_never_name_makes_recover_remove_nothing(
    facts: dict[str, str],
) -> None:
    assert isinstance(parse({"step": "placing", **EVERY["placing"]}), Placing)
    assert isinstance(parse({"step": "placing", **EVERY["placing"], **facts}), UnreadableStep)


def steps_written() -> Iterator[tuple[str, set[str]]]:
    """Name and facts of each step that the source writes, where it names them one by one."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="step"),
                    args=[ast.Constant(value=str(name))],
                    keywords=keywords,
                ):
                    if all(keyword.arg is not None for keyword in keywords):
                        yield name, {str(keyword.arg) for keyword in keywords}


def test_the_source_writes_each_step_with_the_facts_that_are_read() -> None:
    written = list(steps_written())
    assert {"ended", "running", "ran", "trashed", "putting-password-back"} & {
        name for name, _ in written
    }
    for name, facts in written:
        if name in EVERY:
            needed = {
                k
                for k in EVERY[name]
                if isinstance(parse({"step": name, **_without(EVERY[name], k)}), UnreadableStep)
            }
            assert needed <= facts, name


def _without(facts: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in facts.items() if k != key}


def test_every_reader_of_the_journal_reads_every_step(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "store")
    for name, facts in EVERY.items():
        run = journal.begin(journal.new_id(), engine_id="E")
        run.step(name, **facts)
        for odd in ODD:
            run.step(name, **dict.fromkeys(facts, odd))
    every = journal.begin(
        journal.new_id(), engine_id="E", rotates=["db"], projects={"a": 1}, restores=7
    )
    for name, facts in EVERY.items():
        every.step(name, **facts)
    for found in journal.runs():
        _ = (
            found.outcome,
            found.backup,
            found.deleted,
            found.taken,
            found.taken_in_part,
            found.half,
            found.undid,
            found.rotates,
        )
        assert set(found.half_refilled) <= {"gone_data"}
        assert found.projects == frozenset() and found.process is not None
    assert journal.last_deletion() is not None and journal.volumes_made("E") == frozenset()
    assert journal.find_earlier_losses("E", {"gone_data", "None", "7"}, "") == {}
    assert {name for found in journal.runs() for name in found.unreadable} >= {
        "running",
        "trashed",
        "stopping",
    }


# -- on an engine ----------------------------------------------------------------------------------


def dead_run(home: Path, number: int, *steps: dict[str, Any], **head: Any) -> None:
    """The file of a run whose process has ended and that did not come to its end."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid).facts()
    child.communicate(b"\n")
    folder = store(home) / "journal"
    folder.mkdir(parents=True, exist_ok=True)
    first = {
        "version": 1, "run": "", "seq": number, "started": "2026-11-29T00:00:00Z",
        "process": process, "cwd": "/", "endpoint": "", "engine_id": docker("info", "--format",
         "{{.ID}}").stdout.strip(), "program": "safe-compose",
        "argv": ["x"], "docker_globals": [], "compose_globals": [], "project": None, **head,
    }  # fmt: skip
    lines = [first, *({"at": "2026-11-29T00:00:01Z", "t": 0.1, **step} for step in steps)]
    (folder / f"20261129T00000{number}Z-aaaaa{number}.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines)
    )


@pytest.fixture
def project(compose_project: ProjectFactory) -> ComposeProject:
    project = compose_project(FILES, files=NO_TRIALS)
    project.up()
    write_file(project)
    return project


@pytest.mark.thorough
@pytest.mark.engine
def test_a_roll_back_that_was_cut_off_keeps_nobody_from_a_backup(
    project: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    home = sealed_environment
    require_success(safe_compose("backup", cwd=project.folder))
    dead_run(
        home, 1, {"step": "changing"}, {"step": "written"}, {"step": "putting-back"}, rotates="db"
    )
    dead_run(
        home,
        2,
        *(
            {"step": name, **facts}
            for name, facts in EVERY.items()
            if name not in ("ended", "restored", "undid")
        ),
    )
    dead_run(
        home,
        3,
        *(
            {"step": name, **dict.fromkeys(facts, odd)}
            for name, facts in EVERY.items()
            for odd in ODD
            if odd
        ),
    )
    dead_run(
        home, 4, {"step": "putting-back", "at": "yesterday", **EVERY["putting-back"]}, projects=[7]
    )
    require_success(safe_compose("backup", cwd=project.folder))
    recovered = require_success(safe_compose("recover", cwd=project.folder))
    assert "cut off while it changed the password of service db" in recovered.stderr
    assert not volume_exists("gone_data"), "nothing was made for a look"
    for words in (("journal", "--json"), ("volumes",), ("trash", "list"), ("list",)):
        require_success(safe_compose(*words, cwd=project.folder))
    gone = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder)
    assert gone.returncode == 0 and project.volumes() == [], gone.stderr
    require_success(safe_compose("undo", cwd=project.folder))
