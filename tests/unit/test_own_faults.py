"""A fault of ours while docker runs: what docker did keeps its exit code, and what it can do
without us goes through.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from safe_compose.compose import single_use
from safe_compose.compose.files import Files
from safe_compose.core import plan, threat
from safe_compose.core.observed import Container, Mount, Observed, Volume
from safe_compose.core.plan import Doomed
from safe_compose.core.policy import Verdict
from safe_compose.core.tier import Tier
from safe_compose.errors import DockerNotFound, OperationFailed
from safe_compose.grammar import parser
from safe_compose.operations import outcome
from safe_compose.operations.guard import autoremove, bypass, execute
from safe_compose.store.journal import Journal
from safe_compose.system.files import Access
from safe_compose.volumes.survivors import RemainingContent

DOWN = parser.parse(["compose", "down", "-v"])


def test_a_journal_that_breaks_after_docker_ran_leaves_dockers_exit_code(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path, Access())
    nothing = SimpleNamespace(ensure=lambda: None, sweep=lambda: None, endpoint="unix:///x", id="E")
    nothing.helpers = nothing.folder = nothing
    workspace: Any = SimpleNamespace(
        journal=journal, run_id="20261129T000000Z-aaaaaa", catalogue=nothing, engine=nothing
    )
    made = plan.make(
        parser.parse(["rm", "-f", "one"]),
        Observed("", ""),
        threat.Threat("none", (), (), (), ()),
        (),
    )

    def docker(*_: object) -> int:
        (journal.folder / "20261129T000000Z-aaaaaa.jsonl").unlink()
        return 3

    assert autoremove.run(workspace, made, docker) == 3
    assert "cannot write the journal" in capfd.readouterr().err


@pytest.mark.parametrize("runs", [True, False], ids=["docker ran", "docker did not start"])
def test_a_helper_that_cannot_be_removed_hides_docker_only_where_it_did_not_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], *, runs: bool
) -> None:
    there = [
        Container(
            "1",
            "one",
            "app",
            "sha256:0",
            "running",
            mounts=(Mount("volume", "v", "", "/v"),),
            auto_remove=True,
        )
    ]

    @contextmanager
    def held(name: str) -> Iterator[None]:
        yield
        raise OperationFailed(f"cannot let go of {name}")

    def docker(*_: object) -> int:
        if not runs:
            raise DockerNotFound("no docker")
        there.clear()
        return 3

    engine = SimpleNamespace(
        helpers=SimpleNamespace(holding=held, sweep=lambda: None), endpoint="unix:///x", id="E",
        docker=SimpleNamespace(container=lambda _: there[0] if there else None,
         volume=lambda name: Volume(name)),
    )  # fmt: skip
    workspace: Any = SimpleNamespace(
        journal=Journal(tmp_path, Access()), run_id="20261129T000000Z-aaaaaa",
        catalogue=SimpleNamespace(folder=SimpleNamespace(ensure=lambda: None)),
        engine=engine, settings=SimpleNamespace(stop_timeout=1),
    )  # fmt: skip
    doomed = Doomed(Volume("v"), Verdict("v", Tier.CRITICAL, "", "files"), tuple(there))
    made = plan.make(
        parser.parse(["rm", "-f", "one"]),
        Observed("", ""),
        threat.Threat("none", (doomed.volume,)),
        [doomed],
    )
    if not runs:
        with pytest.raises(DockerNotFound):
            autoremove.run(workspace, made, docker)
        return
    assert autoremove.run(workspace, made, docker) == 3
    said = capfd.readouterr().err
    assert "cannot let go of v" in said and "kept what one had at /v in volume v" in said


@pytest.mark.parametrize(
    ("created", "now", "left", "became"),
    [
        pytest.param("1", "1", RemainingContent(0, 3, 0), "survived", id="whole"),
        pytest.param("1", "1", RemainingContent(2, 3, 0), "part", id="a part"),
        pytest.param("1", "2", RemainingContent(3, 3, 5), "gone", id="recreated and in use"),
        pytest.param(
            "1", "1", RemainingContent(3, 3, 5), "part", id="emptied, and written to since"
        ),
        pytest.param(
            "",
            "",
            RemainingContent(3, 3, 5),
            "part",
            id="of a plugin that tells no time, recreated",
        ),
        pytest.param(
            "",
            "",
            RemainingContent(0, 3, 0),
            "survived",
            id="of a plugin that tells no time, whole",
        ),
        pytest.param("1", None, None, "gone", id="not there"),
        pytest.param("1", "1", None, "survived", id="not looked into, the same"),
    ],
)
def test_what_became_of_a_volume_is_told_by_its_content_before_its_time(
    created: str, now: str | None, left: RemainingContent | None, became: str
) -> None:
    before = Volume("v", created_at=created)
    assert (
        outcome.judge_survival(
            before, None if now is None else replace(before, created_at=now), left
        )
        == became
    )


def test_only_a_command_with_a_backup_is_refused_because_of_a_stop_before_it() -> None:
    app = Container("1", "shop-app-1", "app", "sha256:0", "running")
    verdict = Verdict("shop_data", Tier.CRITICAL, "", "files")
    doomed = Doomed(Volume("shop_data"), verdict, (app,), None)
    deadly = threat.Threat(
        "compose_down_volumes", (doomed.volume,), stops=(app, replace(app, id="2", state="exited"))
    )
    for words, stopped in (([], [app]), (["--skip-backup"], [])):
        invocation = parser.parse(["compose", *words, "down", "-v"])
        made = plan.make(
            invocation,
            Observed("", "", volumes=(doomed.volume,), containers=(app,)),
            deadly,
            [doomed],
        )
        assert execute._list_stopped_first(made) == stopped


@pytest.fixture
def gone(tmp_path: Path) -> Iterator[None]:
    """We are in a folder that was deleted."""
    before = Path.cwd()
    folder = tmp_path / "gone"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()
    yield
    os.chdir(before)


def test_an_unguarded_command_goes_through_in_a_folder_that_is_gone(
    gone: None, capfd: pytest.CaptureFixture[str]
) -> None:
    bypass.note_unguarded(DOWN)
    assert "not journaled: No such file or directory" in capfd.readouterr().err


def test_a_folder_that_cannot_be_looked_into_has_no_compose_file(tmp_path: Path) -> None:
    too_long = parser.parse(
        ["compose", "--project-directory", str(tmp_path / ("x" * 300)), "down", "-v"]
    )
    assert Files(too_long, {}).files == []


def test_a_long_line_of_a_compose_file_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text("services: {}\n")
    Path("compose.yaml").write_text(
        f"include: [other.yaml]\nservices:\n  app:\n    command: {'x' * 300}.yaml\n"
    )
    held = single_use.read_inputs(lambda: Files(DOWN, {}))
    assert held == single_use.SingleUseInputs()
