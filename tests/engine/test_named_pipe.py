"""Bytes of a helper that go past the daemon through a pipe of this host: used where it works, never
trusted more than a stream.
"""

import gzip
import hashlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_compose.core.backup import Artifact
from safe_compose.engine import Engine, connect, helper_containers
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.engine.named_pipe import AT as PIPE
from safe_compose.errors import OperationFailed
from safe_compose.volumes import archive, extraction
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.gzip_stream import read_blocks
from safe_compose.volumes.helper_program import feed
from testing.projects import docker, unique, wait_until

pytestmark = pytest.mark.engine

MEGABYTES = 48
REFUSING = """#!/bin/sh
for word; do
    case $word in type=bind*)
        echo "$word" >>{log}
        echo 'invalid mount config for type "bind": bind source path does not exist' >&2
        exit 125 ;;
    esac
done
exec {docker} "$@"
"""
"""A docker whose daemon does not see our files."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The place for temporary files, of this test alone: no pipe may be left there."""
    temporary = tmp_path / "temporary files, and more"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield temporary
    assert not list(temporary.iterdir())


@pytest.fixture
def engine(real_docker: str) -> Iterator[Engine]:
    with connect(real_docker, (), environ=dict(os.environ), run_id=unique("test")) as made:
        yield made
        assert made.helpers.leftovers() == ()


@pytest.fixture
def blind(real_docker: str, tmp_path: Path) -> Iterator[tuple[Engine, Path]]:
    """An engine that refuses to mount our files, and the list of what it was asked to mount."""
    log, program = tmp_path / "asked", tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(REFUSING.format(log=log, docker=real_docker))
    program.chmod(0o755)
    with connect(str(program), (), environ=dict(os.environ), run_id=unique("test")) as made:
        yield made, log
        assert made.helpers.leftovers() == ()


@pytest.fixture
def image(engine: Engine) -> str:
    found = engine.docker.image("postgres:15")
    assert found is not None
    return found.id


@pytest.fixture
def volume(engine: Engine) -> Iterator[str]:
    name = unique("sc-pipe")
    engine.docker.create_volume(name)
    yield name
    engine.docker.remove_volume(name)


def _both_ways(image: str) -> Helper:
    """The same megabytes to stdout or into the pipe."""
    argv = (
        "dd",
        "if=/dev/zero",
        "bs=65536",
        f"count={MEGABYTES * 16}",
        "iflag=fullblock",
        "status=none",
    )
    return Helper(image=image, argv=argv, piped=(*argv, f"of={PIPE}"))


def _filled(engine: Engine, volume: str, image: str) -> str:
    """The volume with some megabytes that no compressor makes small, in a file of somebody else."""
    script = (
        f"head -c {MEGABYTES}M /dev/urandom >/volume/big && chown 999 /volume/big && chmod 600"
        " /volume/big && sync"
    )
    helper = Helper(
        image=image,
        argv=("sh", "-c", script),
        volumes=((volume, "/volume", False),),
        capabilities=("default",),
    )
    engine.helpers.run(helper)
    return volume


@pytest.mark.thorough
def test_on_this_host_the_bytes_take_the_pipe_and_only_its_name_is_gone(
    engine: Engine, image: str, folder: Path
) -> None:
    with engine.helpers.stream(_both_ways(image)) as stream:
        container = engine.docker.container(stream.name)
        assert container is not None
        assert [(m.type, m.destination) for m in container.mounts if m.destination == PIPE] == [
            ("bind", PIPE)
        ]
        assert not list(folder.iterdir())
        assert sum(map(len, read_blocks(stream.stdout))) == MEGABYTES << 20


@pytest.mark.thorough
def test_a_daemon_that_does_not_see_our_files_sends_the_same_bytes_and_is_asked_once(
    blind: tuple[Engine, Path], image: str
) -> None:
    engine, asked = blind
    for _ in range(2):
        with engine.helpers.stream(_both_ways(image)) as stream:
            assert sum(map(len, read_blocks(stream.stdout))) == MEGABYTES << 20
    assert len(asked.read_text().splitlines()) == 1


@pytest.mark.thorough
def test_a_helper_that_may_not_open_the_pipe_sends_the_same_bytes(
    engine: Engine, image: str
) -> None:
    helper = Helper(
        image=image, argv=("echo", "here"), piped=("dd", "if=/dev/zero", f"of=/nowhere{PIPE}")
    )
    assert engine.helpers.run(helper) == b"here\n"


@pytest.mark.thorough
def test_a_helper_behind_another_kernel_does_not_hang_us(
    engine: Engine, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the pipe is one that nobody else opens: the program waits for ever, as one does that
    never opens it.
    """
    monkeypatch.setattr(helper_containers, "PIPE_PATIENCE", 1.0)
    assert (
        engine.helpers.run(Helper(image=image, argv=("echo", "here"), piped=("sleep", "600")))
        == b"here\n"
    )


@pytest.mark.thorough
def test_a_program_that_fails_before_it_opens_the_pipe_is_not_run_again(
    engine: Engine, image: str
) -> None:
    helper = Helper(
        image=image, argv=("echo", "again"), piped=("sh", "-c", "echo no such table >&2; exit 3")
    )
    with pytest.raises(HelperFailed, match="no such table") as fault:
        engine.helpers.run(helper)
    assert fault.value.returncode == 3


@pytest.mark.thorough
def test_an_end_of_file_is_no_success_unless_the_program_ends_with_0(
    engine: Engine, image: str
) -> None:
    seen = []
    with pytest.raises(HelperFailed) as fault, engine.helpers.stream(
        Helper(image=image, argv=("false",), piped=("sh", "-c", f"echo part >{PIPE}; exit 2"))
    ) as stream:  # fmt: skip
        seen.append(stream.stdout.read())
    assert seen == [b"part\n"] and fault.value.returncode == 2


@pytest.mark.thorough
def test_what_comes_after_the_end_fails_it(engine: Engine, image: str) -> None:
    script = f"echo part >{PIPE}; until test -e /tmp/go; do sleep 0.05; done; echo more >{PIPE}"
    with pytest.raises(HelperFailed, match="after the end of its output"), engine.helpers.stream(
        Helper(image=image, argv=("false",), piped=("sh", "-c", script))
    ) as stream:  # fmt: skip
        assert stream.stdout.read() == b"part\n"
        docker("exec", stream.name, "touch", "/tmp/go")


@pytest.mark.thorough
@pytest.mark.parametrize("stage", ["before the pipe is open", "amid the bytes"])
def test_ctrl_c_leaves_neither_pipe_nor_container(engine: Engine, image: str, stage: str) -> None:
    helper = (
        _both_ways(image)
        if stage == "amid the bytes"
        else Helper(image=image, argv=("true",), piped=("sleep", "600"))
    )
    reading = threading.Event()

    def interrupt() -> None:
        at_work = (
            reading.is_set
            if stage == "amid the bytes"
            else lambda: engine.helpers.leftovers() != ()
        )
        wait_until("the helper is there", at_work)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt), engine.helpers.stream(helper) as stream:
        stream.stdout.read(1)
        reading.set()
        threading.Event().wait(60)
    assert engine.helpers.leftovers() == ()


@pytest.mark.thorough
def test_input_goes_in_by_the_pipe_and_ends_when_it_is_closed(
    engine: Engine, image: str, volume: str
) -> None:
    data = os.urandom(3 << 20)
    helper = Helper(
        image=image, argv=("false",), piped=("dd", f"if={PIPE}", "of=/volume/x", "status=none"),
        volumes=((volume, "/volume", False),),
    )  # fmt: skip
    with engine.helpers.stream(helper, stdin=subprocess.PIPE) as stream:
        assert stream.stdin is not None
        stream.stdin.write(data)
    assert (
        engine.helpers.run(
            Helper(image=image, argv=("cat", "/volume/x"), volumes=((volume, "/volume", True),))
        )
        == data
    )


@pytest.mark.thorough
def test_a_feeding_side_that_fails_is_never_the_end_of_the_input(
    engine: Engine, image: str, volume: str
) -> None:
    script = f"cat {PIPE} >/volume/got; touch /volume/ended"
    helper = Helper(
        image=image,
        argv=("false",),
        piped=("sh", "-c", script),
        volumes=((volume, "/volume", False),),
    )
    with (
        pytest.raises(OSError, match="disk gone"),
        engine.helpers.stream(helper, stdin=subprocess.PIPE) as stream,
    ):
        assert stream.stdin is not None
        stream.stdin.write(b"half")
        stream.stdin.flush()
        wait_until(
            "the half arrived",
            lambda: docker("exec", stream.name, "cat", "/volume/got", check=False).stdout == "half",
        )
        raise OSError("disk gone")
    assert engine.helpers.leftovers() == ()
    assert engine.archives.list_root(volume) == ["got"]


@pytest.mark.thorough
def test_a_reader_that_dies_is_told_by_its_own_words(engine: Engine, image: str) -> None:
    helper = Helper(
        image=image,
        argv=("false",),
        piped=("sh", "-c", f"head -c 1 {PIPE} >/dev/null; echo full >&2; exit 4"),
    )
    with (
        pytest.raises(HelperFailed, match="full") as fault,
        engine.helpers.stream(helper, stdin=subprocess.PIPE) as stream,
    ):
        feed((bytes(1 << 20) for _ in range(64)), stream.stdin)
    assert fault.value.returncode == 4


@pytest.mark.thorough
def test_an_archive_is_the_same_both_ways_and_goes_back_both_ways(
    engine: Engine, blind: tuple[Engine, Path], image: str, volume: str, tmp_path: Path
) -> None:
    _filled(engine, volume, image)
    made = {}
    for way, through in (("pipe", engine), ("stream", blind[0])):
        found = through.docker.volume(volume)
        assert found is not None
        made[way] = archive.archive(EngineLocation(through, found.name), into=tmp_path / way)
        archive.verify(tmp_path / way, made[way])
    contents = [
        gzip.decompress((tmp_path / way / files[0].file).read_bytes()).rstrip(b"\0")
        for way, files in made.items()
    ]
    assert hashlib.sha256(contents[0]).digest() == hashlib.sha256(contents[1]).digest()
    lists = [
        gzip.decompress((tmp_path / way / files[1].file).read_bytes())
        for way, files in made.items()
    ]
    assert lists[0] == lists[1]
    assert blind[1].exists()
    for way, through in (("pipe", blind[0]), ("stream", engine)):
        _goes_back(through, tmp_path / way, made[way])


def _goes_back(engine: Engine, folder: Path, artifacts: tuple[Artifact, ...]) -> None:
    target = engine.docker.create_volume(unique("sc-pipe")).name
    try:
        extraction.extract(EngineLocation(engine, target), folder, artifacts)
    finally:
        engine.docker.remove_volume(target)


@pytest.mark.thorough
def test_a_helper_that_is_killed_amid_the_bytes_leaves_no_archive(
    engine: Engine, image: str, volume: str, tmp_path: Path
) -> None:
    found = engine.docker.volume(_filled(engine, volume, image))
    assert found is not None
    killed = []

    def kill_packer() -> bool:
        lines = docker(
            "ps", "--no-trunc", "--format", "{{.ID}} {{.Command}}", "--filter", f"volume={volume}"
        ).stdout.splitlines()
        names = [line.split()[0] for line in lines if line.split()[2].strip('"') == "pack"]
        killed.extend(name for name in names if docker("kill", name, check=False).returncode == 0)
        return bool(killed)

    def kill(size: int) -> None:
        if (
            size and not killed
        ):  # the daemon may not know yet that it runs; meanwhile the full pipe holds it
            wait_until("the helper was killed", kill_packer)

    with pytest.raises(OperationFailed, match=f"volume {volume}"):
        archive.archive(EngineLocation(engine, found.name), into=tmp_path / "store", progress=kill)
    assert killed
    assert engine.helpers.leftovers() == ()
    assert not list((tmp_path / "store").rglob("data.tar.gz"))
