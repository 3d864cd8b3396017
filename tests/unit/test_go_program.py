"""The main package of a Go program, read from the file: docker's own client is told from others without
being started.
"""

import random
from pathlib import Path

import pytest

from safe_compose.fastpath import go_program

PODMAN = "github.com/containers/podman/v5/cmd/podman"


def text(content: bytes) -> bytes:
    """A text as Go writes it: its length, seven bits a byte, and itself."""
    length, head = len(content), b""
    while length >= 0x80:
        head, length = head + bytes([length & 0x7F | 0x80]), length >> 7
    return head + bytes([length]) + content


def go_build(package: str, *, flags: int = 2, section: bytes = b".go.buildinfo") -> bytes:
    """An ELF file that has nothing but what Go says of itself."""
    modules = b"0" * 16 + f"path\t{package}\nmod\tx\n".encode() + b"x" * 900 + b"1" * 16
    info = b"\xff Go buildinf:\x08" + bytes([flags]) + bytes(16) + text(b"go1.24.1") + text(modules)
    names = b"\0" + section + b"\0.shstrtab\0"
    at_info, at_names = 64, 64 + len(info)
    table = at_names + len(names)

    def header(name: int, offset: int, size: int) -> bytes:
        return name.to_bytes(4, "little") + bytes(20) + b"".join(
            number.to_bytes(8, "little") for number in (offset, size)
        ) + bytes(24)  # fmt: skip

    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    head[40:48] = table.to_bytes(8, "little")
    head[58:64] = b"".join(number.to_bytes(2, "little") for number in (64, 3, 2))
    sections = header(0, 0, 0) + header(1, at_info, len(info))
    sections += header(2 + len(section), at_names, len(names))
    return bytes(head) + info + names + sections


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "docker"


@pytest.mark.parametrize("package", [go_program.DOCKER, PODMAN, "command-line-arguments"])
def test_the_main_package_is_read(package: str, program: Path) -> None:
    program.write_bytes(go_build(package))
    assert go_program.read_main_package(str(program)) == package


@pytest.mark.parametrize(
    "data",
    [
        b"", b"#!/bin/sh\n", go_build(go_program.DOCKER, flags=0),
        go_build(go_program.DOCKER, section=b".go.buildinf_"),
        go_build(go_program.DOCKER).replace(b"path\t", b"mod\t\t"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_say_has_none(data: bytes, program: Path) -> None:
    assert go_program.read_main_package(str(program)) is None
    program.write_bytes(data)
    assert go_program.read_main_package(str(program)) is None
    assert go_program.read_main_package(str(program.parent)) is None


def test_a_damaged_file_is_no_fault(program: Path) -> None:
    whole = go_build(go_program.DOCKER)
    chance = random.Random(16)
    for size in range(0, len(whole) - 200, 7):
        program.write_bytes(whole[:size])
        assert go_program.read_main_package(str(program)) is None
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 8)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        program.write_bytes(data)
        go_program.read_main_package(str(program))
