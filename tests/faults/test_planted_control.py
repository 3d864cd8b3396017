"""The control file of a PostgreSQL data directory, as servers write it and as somebody else might:
only a whole one counts.
"""

import base64
import struct
from collections.abc import Callable

import pytest

from safe_compose.databases import postgres
from safe_compose.databases.postgres import control_file
from safe_compose.databases.postgres.control_file import BadControlFile, read
from safe_compose.databases.postgres.dump_stopped import _place
from safe_compose.databases.protocol import Stopped
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed
from safe_compose.volumes.engine_location import EngineLocation
from testing.projects import docker, unique

STATES = {
    0: "starting up",
    1: "shut down",
    2: "shut down in recovery",
    3: "shutting down",
    6: "in production",
}


def made(state: int = 1, version: int = 1300, at: int = 288) -> bytes:
    """A control file with a sound checksum."""
    data = bytearray(struct.pack("<QIIi", 77, version, 202209061, state).ljust(at, b"\0"))
    data[64:72] = struct.pack("<Q", (3 << 32) + 724)
    data[192:200] = struct.pack("<ii", 5, 64)
    return bytes(data + struct.pack("<I", crc(bytes(data)))).ljust(8192, b"\0")


def crc(data: bytes) -> int:
    """CRC-32C, bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@pytest.mark.parametrize("state", STATES)
def test_a_whole_one_tells_its_state_and_what_the_next_server_needs(state: int) -> None:
    found = read(made(state))
    assert (found.system_identifier, found.version) == (77, 1300)
    assert (found.state, found.next_transaction) == (STATES[state], (3 << 32) + 724)
    assert found.settings == {"max_prepared_transactions": "5", "max_locks_per_transaction": "64"}


def test_a_newer_version_tells_its_state_and_nothing_whose_place_is_not_known() -> None:
    found = read(made(version=2100, at=316))
    assert (found.state, found.next_transaction, dict(found.settings)) == ("shut down", None, {})


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: bytes(8192),
        lambda data: b"no control file",
        lambda data: data[:8191],
        lambda data: data + b"\0",
        lambda data: b"\xff" * 8192,
        lambda data: (
            data[:16] + struct.pack("<i", 6) + data[20:]
        ),  # another state, the old checksum
        lambda data: data[:64] + b"\1" + data[65:],
        lambda data: data[:288] + b"\0\0\0\0" + data[292:],
        lambda data: made(state=7),
        lambda data: made(state=-1),
        lambda data: made(version=0),
        lambda data: made(version=1 << 31),
    ],
)
def test_anything_else_is_no_control_file(harm: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BadControlFile):
        read(harm(made()))


def test_every_flipped_bit_before_the_checksum_is_seen() -> None:
    whole = made()
    for at in range(292):
        with pytest.raises(BadControlFile):
            read(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


@pytest.mark.thorough
@pytest.mark.engine
@pytest.mark.parametrize("major", [15, 17, 18])
def test_it_says_what_pg_controldata_says(major: int, postgres_image: Callable[[int], str]) -> None:
    script = (
        "initdb -D /tmp/d >/dev/null 2>&1; pg_controldata /tmp/d; echo; base64"
        " /tmp/d/global/pg_control"
    )
    words = (
        "run",
        "--rm",
        "--network",
        "none",
        "-u",
        "postgres",
        "-e",
        "LC_ALL=C",
        "--entrypoint",
        "sh",
        postgres_image(major),
    )
    said, _, encoded = docker(*words, "-c", script).stdout.partition("\n\n")
    told = {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in said.splitlines())
    }
    found = read(base64.b64decode(encoded))
    assert told["Database system identifier"] == str(found.system_identifier)
    assert (
        told["pg_control version number"] == str(found.version)
        and found.version in control_file._CHECKSUM_AT
    )
    assert told["Database cluster state"] == found.state
    assert told["Latest checkpoint's NextXID"] == f"0:{found.next_transaction}"
    assert told["max_prepared_xacts setting"] == found.settings["max_prepared_transactions"]
    assert told["max_locks_per_xact setting"] == found.settings["max_locks_per_transaction"]


@pytest.mark.thorough
@pytest.mark.engine
def test_where_our_program_cannot_run_the_engine_itself_brings_the_file(engine: Engine) -> None:
    volume = unique("files")
    docker("volume", "create", volume)
    try:
        script = (
            "mkdir /v/global /v/sub; base64 -d >/v/global/pg_control; ln -s /etc/hostname /v/link;"
            " ln -s nowhere /v/gone"
        )
        argv = (
            "run",
            "--rm",
            "-i",
            "--network",
            "none",
            "-v",
            f"{volume}:/v",
            "--entrypoint",
            "sh",
            "postgres:15",
            "-c",
            script,
        )
        docker(*argv, input=base64.b64encode(made()).decode())
        assert engine.archives.read_file(volume, control_file.FILE, 8192) == made()
        assert (
            read(engine.archives.read_file(volume, control_file.FILE, 1 << 20) or b"").state
            == "shut down"
        )
        for path, limit in (
            (control_file.FILE, 8191),
            ("missing", 9),
            ("sub", 9),
            ("link", 99),
            ("gone", 9),
            ("../etc/passwd", 9),
        ):
            assert engine.archives.read_file(volume, path, limit) is None, path
        assert engine.archives.list_existing(
            volume, ["sub", "global/pg_control", "missing", "sub/x"]
        ) == ["sub", "global/pg_control"]
        assert EngineLocation(engine, volume).find(["pg_control"], depth=5) == [control_file.FILE]
        assert EngineLocation(engine, volume).read(control_file.FILE, limit=8192) == made()
        assert EngineLocation(engine, volume).read(control_file.FILE, limit=8191) is None
        assert EngineLocation(engine, volume).read("missing", limit=9) is None
        assert (
            postgres.control_state(EngineLocation(engine, volume), None)
            == postgres.control_state(EngineLocation(engine, volume), ".")
            == "shut down"
        )
        assert postgres.control_state(EngineLocation(engine, volume), "sub") == "unknown"
    finally:
        docker("volume", "rm", "-f", volume)


@pytest.mark.thorough
@pytest.mark.engine
def test_only_an_image_that_the_volumes_own_service_has_or_had_serves_a_copy(
    engine: Engine,
) -> None:
    own = engine.docker.image("postgres:15")
    assert own is not None and own.environment["PG_MAJOR"] == "15"
    with pytest.raises(OperationFailed, match="no other one is used"):
        _place(engine, ".", "15", Stopped("nobodys", (), ()))
    with pytest.raises(OperationFailed, match="no other one is used"):
        _place(engine, ".", "16", Stopped("nobodys", (), (), (own.id,)))
    place, _ = _place(engine, ".", "15", Stopped("nobodys", (), (), ("sha256:" + "0" * 64, own.id)))
    assert (place.image, place.destination) == (own.id, "/var/lib/postgresql/data")
