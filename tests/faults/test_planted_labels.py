"""Labels of ours on things that are not ours: no clearing up after dead runs takes them away, and
the trash believes none.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_compose.system.process import Process
from testing.fixtures import SafeCompose
from testing.projects import docker, read_in_volume, unique, volume_exists

pytestmark = pytest.mark.engine


def dead_process() -> str:
    """The facts of a process that has certainly ended, as our labels hold them."""
    program = (
        "import json; from safe_compose.system.process import Process;"
        " print(json.dumps(Process.current().facts()))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    process = Process.read(json.loads(ended))
    assert process is not None and process.is_dead()
    return ended.strip()


@pytest.fixture
def names(lab: None) -> Iterator[list[str]]:
    """Names of containers and volumes that are removed after the test."""
    made: list[str] = []
    yield made
    for name in made:
        docker("rm", "--force", "--volumes", name, check=False)
        docker("volume", "rm", "--force", name, check=False)


@pytest.mark.parametrize("named", ["anyhow", "as ours"])
def test_what_merely_carries_the_labels_of_a_dead_run_stays(
    named: str, names: list[str], safe_compose: SafeCompose
) -> None:
    run = "20200101T000000Z-abcdef"
    suffix = unique("x").rpartition("-")[2]
    container, volume = (unique("planted"), unique("planted"))
    if named == "as ours":
        container, volume = (
            f"safe-compose-{run}-{int(suffix, 16)}",
            f"safe-compose-trial-{run}-{suffix}",
        )
    names += [container, volume]
    labels = [
        word
        for key, value in (("helper", run), ("process", dead_process()))
        for word in ("--label", f"io.github.safe-compose.{key}={value}")
    ]
    docker("volume", "create", *labels, volume)
    read_in_volume(volume, "dd", "of=/v/one", "status=none", input="a photo")
    docker("create", "--name", container, *labels, "-v", "/anonymous", "busybox:latest", "true")
    answer = safe_compose("recover")
    assert answer.returncode == 0, answer.stderr
    assert volume_exists(volume) and read_in_volume(volume, "cat", "/v/one") == "a photo"
    assert docker("container", "inspect", container, check=False).returncode == 0


def test_a_mark_fits_one_name_only(
    names: list[str], safe_compose: SafeCompose, real_docker: str, tmp_path: Path
) -> None:
    """Labels copied from a thing of ours to another one prove nothing."""
    from safe_compose.engine import connect

    with connect(real_docker, (), environ=dict(os.environ), run_id=unique("test")) as engine:
        engine.mark_key = lambda: bytes(32)
        mine, theirs = unique("planted"), unique("planted")
        names += [mine, theirs]
        labels = dict(engine.helpers.marks_for(mine))
        engine.docker.create_volume(mine, labels=labels)
        engine.docker.create_volume(theirs, labels=labels)
        with connect(real_docker, (), environ=dict(os.environ), run_id=engine.run_id) as later:
            later.mark_key = lambda: bytes(32)
            later.helpers.sweep()
    assert not volume_exists(mine) and volume_exists(theirs)


@pytest.mark.parametrize(
    ("run", "created"),
    [
        ("20200101T000000Z-abcdef", "2020-01-01T00:00:00Z"),
        ("../x", "9999-12-31T23:59:59Z"),
        ("x" * 400, "0001-01-01T00:00:00+23:59"),
    ],
    ids=["old", "at the end of all times", "before all times"],
)
def test_a_volume_that_looks_like_trash_is_neither_emptied_nor_restored(
    run: str, created: str, names: list[str], safe_compose: SafeCompose
) -> None:
    victim, planted = unique("victim"), f"safe-compose-trash-{unique('20200101T000000Z-abcdef')}"
    names += [victim, planted, f"safe-compose-lock-{planted}"]
    record = json.dumps(
        {"created": created, "project": "x", "labels": {"com.docker.compose.project": "x"}}
    )
    labels = {"": run, ".of": victim, ".record": record}
    words = [
        word
        for key, value in labels.items()
        for word in ("--label", f"io.github.safe-compose.trash{key}={value}")
    ]
    docker("volume", "create", *words, planted)
    read_in_volume(planted, "dd", "of=/v/one", "status=none", input="a photo")
    docker("volume", "create", victim)
    item = planted.removeprefix("safe-compose-trash-")
    for command in (
        ("trash", "empty", "--expired", "--yes", item),
        ("trash", "empty", "--confirm", "delete 1 item", item),
        ("trash", "restore", item, "--confirm", victim),
    ):
        answer = safe_compose(*command)
        assert answer.returncode == (64 if "--expired" in command else 77), answer.stderr
        assert (
            read_in_volume(planted, "cat", "/v/one") == "a photo"
            and read_in_volume(victim, "ls", "/v") == ""
        )
    answer = safe_compose("trash", "empty", "--expired", "--yes")
    assert answer.returncode == 0 and read_in_volume(planted, "cat", "/v/one") == "a photo", (
        answer.stderr
    )
    assert safe_compose("recover").returncode == 0
    assert read_in_volume(victim, "ls", "/v") == "" and volume_exists(planted)
    assert safe_compose("trash", "list").returncode == 0


def test_a_folder_in_a_label_that_no_file_system_takes_stops_nobody(
    safe_compose: SafeCompose, tmp_path: Path, lab: None
) -> None:
    """One container of anybody would end every guarded command of everybody otherwise."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    name = unique("scfolder")
    docker("volume", "create", name)
    try:
        for number, folder in enumerate((f"/{'a' * 300}", str(loop), f"{loop}/x")):
            docker(
                "create", "--name", f"{name}-{number}", "--network", "none",
                "--label", f"com.docker.compose.project={name}",
                "--label", f"com.docker.compose.project.working_dir={folder}",
                "-v", f"{name}:/v", "busybox:latest", "true",
            )  # fmt: skip
        done = safe_compose("--explain", "volume", "rm", name)
        assert done.returncode == 0, done.stderr
        for verb in ("down", "rm"):
            done = safe_compose(
                "--explain", "compose", "-p", name, verb, "-v", env={"HOME": str(tmp_path)}
            )
            assert done.returncode in (0, 78), done.stderr
    finally:
        docker("rm", *(f"{name}-{number}" for number in range(3)))
        docker("volume", "rm", name)
