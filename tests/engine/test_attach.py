"""Much output of a helper from the daemon's own socket: the same bytes, ends and faults as through
the docker client.
"""

import hashlib
import itertools
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_compose.engine import Engine, attach, connect
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.errors import OperationFailed
from safe_compose.volumes.gzip_stream import read_blocks
from testing.engine_proxy import cutting
from testing.projects import unique, wait_until

pytestmark = pytest.mark.engine


@pytest.fixture
def engine(real_docker: str) -> Iterator[Engine]:
    with connect(real_docker, (), environ=dict(os.environ), run_id=unique("test")) as made:
        made.helpers.pipes_work = False
        yield made
        assert made.helpers.leftovers() == ()


def _much(engine: Engine, *argv: str) -> Helper:
    """A helper whose bytes would take a pipe, if there were one."""
    image = engine.docker.image("postgres:15")
    assert image is not None
    return Helper(image=image.id, argv=argv, piped=("false",))


@pytest.mark.thorough
def test_output_comes_whole_whatever_is_said_beside_it(engine: Engine) -> None:
    one = "head -c 3000000 /dev/urandom | tee -a /tmp/x; echo $n >&2"
    script = f"for n in 1 2 3 4 5 6 7 8; do {one}; done; sha256sum </tmp/x >&2; exit 3"
    measured = hashlib.sha256()
    with (
        pytest.raises(HelperFailed) as fault,
        engine.helpers.stream(_much(engine, "bash", "-c", script)) as made,
    ):
        for block in read_blocks(made.stdout):
            measured.update(block)
    assert fault.value.returncode == 3
    assert fault.value.stderr.split()[-2] == measured.hexdigest()
    assert engine.helpers.leftovers() == ()


@pytest.mark.thorough
def test_what_is_not_read_is_no_fault_and_a_long_silence_is_none(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "READ_TIMEOUT", 6)
    with engine.helpers.stream(
        _much(engine, "sh", "-c", "echo first; sleep 7; head -c 10000000 /dev/zero")
    ) as made:
        assert made.stdout.readline() == b"first\n"
        assert made.stdout.read(1) == b"\0"


@pytest.mark.thorough
def test_a_program_that_is_not_there_and_one_that_takes_too_long_leave_nothing(
    engine: Engine,
) -> None:
    with pytest.raises(OperationFailed, match="no-such-program"):
        engine.helpers.run(_much(engine, "no-such-program"))
    assert engine.helpers.leftovers() == ()
    with pytest.raises(HelperFailed, match="after 1 s"):
        engine.helpers.run(_much(engine, "sleep", "600"), timeout=1)
    assert engine.helpers.leftovers() == ()


@pytest.mark.thorough
def test_ctrl_c_amid_the_bytes_leaves_nothing(engine: Engine) -> None:
    reading = threading.Event()

    def interrupt() -> None:
        wait_until("bytes come", reading.is_set)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with (
        pytest.raises(KeyboardInterrupt),
        engine.helpers.stream(_much(engine, "cat", "/dev/zero")) as made,
    ):
        while made.stdout.read(1 << 20):
            reading.set()
    assert engine.helpers.leftovers() == ()


FRAME = st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40))


@pytest.mark.thorough
@settings(deadline=None)
@given(st.lists(FRAME, max_size=12), st.integers(1, 60), st.integers(1, 60), st.integers(0, 20))
def test_frames_may_be_cut_and_read_anywhere_but_may_not_end_too_early(
    frames: list[tuple[int, bytes]], sent: int, asked: int, short: int
) -> None:
    framed = b"".join(
        bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for kind, data in frames
    )
    ends = list(itertools.accumulate((8 + len(data) for _, data in frames), initial=0))
    framed = framed[: len(framed) - short] if short < len(framed) else framed
    near, far = socket.socketpair()
    with near, far:
        tail = bytearray()
        output = attach._Output("it", near, tail)
        got, broke = b"", False
        space = bytearray(asked)
        for at in range(0, len(framed), sent):
            far.sendall(framed[at : at + sent])
        far.close()
        try:
            while count := output.readinto(space):
                got += space[:count]
        except OperationFailed:
            broke = True
    whole = b"".join(data for kind, data in frames if kind == 1)
    assert broke == (len(framed) not in ends)
    assert whole.startswith(got)
    if len(framed) == ends[-1]:
        assert got == whole
        assert bytes(tail) == b"".join(data for kind, data in frames if kind == 2)


@pytest.mark.thorough
def test_a_connection_that_is_cut_is_never_the_end_of_the_output(
    real_docker: str, tmp_path: Path, engine: Engine
) -> None:
    with (
        cutting(3_000_000) as host,
        connect(real_docker, ("-H", host), environ=dict(os.environ), run_id=engine.run_id) as cut,
    ):
        cut.helpers.pipes_work = False
        helper = _much(engine, "head", "-c", "64000000", "/dev/zero")
        with (
            pytest.raises(OperationFailed, match="the daemon broke off"),
            cut.helpers.stream(helper) as made,
        ):
            for _ in read_blocks(made.stdout):
                continue
    assert engine.helpers.leftovers() == ()
