"""A command that is printed as the way on is the one that goes on: all of its words, each as a
shell needs it.
"""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from safe_compose.core.backup import VolumeRecord
from safe_compose.fastpath import launch
from safe_compose.grammar import parser
from safe_compose.operations.guard import confirm
from safe_compose.operations.recover.rollback import list_half_restored
from safe_compose.operations.restore.request import RestoreChoice
from safe_compose.operations.trash import TrashItem
from safe_compose.store.run_record import RunRecord
from safe_compose.store.step_parser import parse
from testing.launcher import make_launcher

BEGUN = parse({
    "step": "putting-back", "volume": "a", "existed": True, "safety": "20261129T000000Z-aaaaaa",
    "trash": None, "forgets": False, "outside": False, "users": {}, "adds": False,
})  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        pytest.param(RestoreChoice(), [], id="all of it"),
        pytest.param(
            RestoreChoice(("a", "b")), ["--volume", "a", "--volume", "b"], id="some volumes"
        ),
        pytest.param(
            RestoreChoice(source="nas", into="x", settings=True),
            ["--from", "nas", "--into", "x", "--settings"],
            id="all",
        ),
    ],
)
def test_a_restore_that_was_cut_off_is_finished_by_its_own_words(
    choice: RestoreChoice, words: list[str]
) -> None:
    command = choice.command("20261129T000000Z-bbbbbb")
    assert list(command) == ["restore", "20261129T000000Z-bbbbbb", *words]
    *_, last = list_half_restored(RunRecord("x", command=command, events=(BEGUN,)))
    assert shlex.split(last.partition(": ")[2]) == ["safe-compose", *command]


def test_items_of_the_trash_are_restored_by_their_own_ids() -> None:
    record = VolumeRecord("shop_data", "local", {}, {}, "", "critical", "files", False, "cold")
    when = "2026-11-29T00:00:00Z"
    items = {
        name: TrashItem(
            f"safe-compose-trash-{name}", "20261129T000000Z-aaaaaa", when, "shop", record
        )
        for name in ("one", "two")
    }
    assert RestoreChoice(trash=items).command("x") == ("trash", "restore", "one", "two")


def test_a_word_with_a_blank_stays_one_word() -> None:
    *_, last = list_half_restored(
        RunRecord("x", command=("restore", "y", "--path", "a b; c"), events=(BEGUN,))
    )
    assert shlex.split(last.partition(": ")[2]) == [
        "safe-compose",
        "restore",
        "y",
        "--path",
        "a b; c",
    ]
    safer = confirm._suggest_without_volumes(
        parser.parse(["compose", "-f", "my files/$a.yaml", "down", "-v"])
    )
    assert safer == "docker compose -f 'my files/$a.yaml' down"


@pytest.mark.parametrize("name", ["it is; $here", "it's here"])
def test_a_plugin_that_is_left_behind_names_the_one_that_it_stands_before(
    name: str, tmp_path: Path
) -> None:
    folder = tmp_path / name / "cli-plugins"
    folder.mkdir(parents=True)
    here = make_launcher(folder).rename(folder / "docker-compose")
    aside = folder / launch.ASIDE
    aside.write_text("#!/bin/sh\n")
    aside.chmod(0o755)
    done = subprocess.run(
        [here, "compose", "down", "-v"], env=dict(os.environ), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 127
    _, names, step = done.stderr.partition("put the real plugin back: ")
    if "'" in name:  # no shell would read it back
        assert not names and "next: install safe-compose again\n" in done.stderr
    else:
        assert shlex.split(step.splitlines()[0]) == ["mv", "-f", str(aside), str(here)]
