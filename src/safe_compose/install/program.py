"""The installed `safe-compose`: the launcher, or the script in its place."""

import os
from pathlib import Path

from safe_compose.fastpath import first_look
from safe_compose.install import scripts

_MACHINES = {62: "x86_64", 183: "aarch64"}
"""`e_machine` of an ELF file (elf(5)) -> the name of the machine, as uname has it."""


def describe_program() -> str:
    """Return which of the two stands at the path of `safe-compose`."""
    if _read_head(Path(scripts.find_program()))[:4] == first_look.ELF:
        return "native"
    return "script (installed without a C compiler: docker starts later)"


def explain_broken(path: Path) -> str | None:
    """Return why a link to the program starts nothing here; None when it does."""
    if not path.exists():
        return f"leads to {path.readlink()}, which has gone"
    head = _read_head(path)
    made_for = _MACHINES.get(int.from_bytes(head[18:20], "little"))
    if head[:4] == first_look.ELF and made_for not in (None, os.uname().machine):
        return f"is made for {made_for}, and this machine is {os.uname().machine}"
    return None


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""
