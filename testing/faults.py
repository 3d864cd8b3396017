"""Errors of the file system where a test wants them: `faults.c`, compiled once and preloaded into
what is started.
"""

import atexit
import errno
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path


@cache
def _library() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="safe-compose-lab-"))
    atexit.register(shutil.rmtree, folder)
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def failing_syscalls(call: str, path: str, error: str, *, skip: int = 0) -> Mapping[str, str]:
    """The environment in which a call about a path fails. error: `EIO`, ..., or SIGKILL before the
    call is made, `KILL` for the program alone, `KILL GROUP` for all that it started in its process
    group as well.
    """
    number = (
        {"KILL": 0, "KILL GROUP": -1}.get(error)
        if error.startswith("KILL")
        else getattr(errno, error)
    )
    return {
        "LD_PRELOAD": str(_library()), "FAULT_CALL": call, "FAULT_PATH": path,
        "FAULT_ERRNO": str(number), "FAULT_SKIP": str(skip)
    }  # fmt: skip
