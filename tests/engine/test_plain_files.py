"""Archives of volumes that are large in some way: one file of many GiB with nothing in it, a
hundred thousand small ones.
"""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_compose.engine import Engine
from safe_compose.engine.helper_args import Helper
from safe_compose.volumes import archive, extraction
from safe_compose.volumes.engine_location import EngineLocation

pytestmark = pytest.mark.engine
IMAGE = "postgres:15"
"""An image with GNU tar, find and perl."""


@pytest.fixture
def volumes(engine: Engine) -> Iterator[tuple[str, str]]:
    """Two empty volumes."""
    names = (f"Test_{uuid.uuid4().hex[:10]}", f"Test_{uuid.uuid4().hex[:10]}")
    for name in names:
        engine.docker.create_volume(name)
    yield names
    for name in names:
        engine.docker.remove_volume(name)


def inside(engine: Engine, volume: str, *argv: str) -> str:
    image = engine.docker.image(IMAGE)
    assert image is not None
    helper = Helper(
        image=image.id,
        argv=argv,
        volumes=((volume, "/v", False),),
        user="0:0",
        capabilities=("default",),
    )
    return engine.helpers.run(helper).decode("utf-8", "surrogateescape")


@pytest.mark.thorough
def test_a_huge_hole_a_socket_and_the_longest_name_cost_nothing(
    engine: Engine, volumes: tuple[str, str], tmp_path: Path
) -> None:
    old, new = volumes
    script = (
        "use Socket; open(my $f, '>', '/v/huge') or die; seek($f, 9 * 2**30, 0); print $f 'end';"
        " close $f;mkdir '/v/' . ('d' x 255); open(my $n, '>', '/v/' . ('d' x 255) . '/' . ('n' x"
        " 255)) or die; print $n 'x'; close $n;socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die;"
        " bind($s, sockaddr_un('/v/socket')) or die;"
    )
    inside(engine, old, "perl", "-e", script)
    volume = engine.docker.volume(old)
    assert volume is not None
    artifacts = archive.archive(EngineLocation(engine, volume.name), into=tmp_path)
    tar = artifacts[0]
    assert tar.bytes < 1 << 20, "the hole was stored"
    assert tar.detail["lost"] == "1 sockets (they hold nothing)"
    assert archive.verify(tmp_path, artifacts).level == "L2"
    extraction.extract(EngineLocation(engine, new), tmp_path, artifacts)
    look = ("find", "/v", "-not", "-type", "s", "-printf", r"%y %s %b %m %P\n")
    assert sorted(inside(engine, new, *look).splitlines()) == sorted(
        inside(engine, old, *look).splitlines()
    )
    assert inside(engine, new, "tail", "-c", "4", "/v/huge") == "\0end"


MEASURED = """
import json, os, re, sys
from pathlib import Path
from safe_compose.engine import connect
from safe_compose.volumes import archive, extraction
from safe_compose.volumes.engine_location import EngineLocation
docker, run_id, old, new, folder = sys.argv[1:]
with connect(docker, (), environ=os.environ, run_id=run_id) as engine:
    into = Path(folder)
    artifacts = archive.archive(EngineLocation(engine, old), into=into)
    what = archive.verify(into, artifacts).what
    extraction.extract(EngineLocation(engine, new), into, artifacts)
# not ru_maxrss, which a process inherits from the one that started it
highest = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(json.dumps({"what": what, "kib": highest}))
"""


@pytest.mark.thorough
def test_a_hundred_thousand_files_come_back_in_little_memory(
    engine: Engine, volumes: tuple[str, str], real_docker: str, tmp_path: Path
) -> None:
    old, new = volumes
    fill = (
        'for my $d (0 .. 99) { mkdir "/v/$d"; for (0 .. 999) { open(my $f, \'>\', "/v/$d/$_ file")'
        " or die; print $f $_ } }"
    )
    inside(engine, old, "perl", "-e", fill)
    argv = [
        sys.executable,
        "-c",
        MEASURED,
        real_docker,
        f"{engine.run_id}-x",
        old,
        new,
        str(tmp_path),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "100101 members equal the list" in found["what"]
    assert found["kib"] < 100 * 1024, f"{found['kib'] >> 10} MiB"
    assert inside(engine, new, "cat", "/v/42/777 file") == "777"
