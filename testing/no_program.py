"""Our package as it is where nothing could be compiled: without the volume helper."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from testing.projects import ROOT


def without_program(folder: Path) -> dict[str, str]:
    """Return what to add to the environment of a command of ours, or of Python, to have it use that
    package. `folder`: not there yet.
    """
    left_out = shutil.ignore_patterns("native", "__pycache__")
    shutil.copytree(ROOT / "src" / "safe_compose", folder / "safe_compose", ignore=left_out)
    return {"PYTHONPATH": str(folder)}


def python_without_program(folder: Path, code: str, *argv: str) -> str:
    """The stdout of a Python program that uses that package."""
    environ = {**os.environ, **without_program(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
