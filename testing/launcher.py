"""The launcher and the scripts of an installation, made for a test."""

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from testing.plain_install import plain_python
from testing.projects import ROOT

sys.path.insert(0, str(ROOT / "native"))
import build  # native/build.py, which is no package: taken as the build hook takes it

sys.path.remove(str(ROOT / "native"))


@cache
def _compiled(flags: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "made")
        argv = ["cc", *flags, "-D_GNU_SOURCE", "-x", "c", "-o", str(made), "-"]
        subprocess.run(argv, input=build.launcher_source().encode(), check=True)
        return made.read_bytes()


def make_launcher(folder: Path, *flags: str) -> Path:
    """`safe-compose` in that folder, compiled with other flags than those of the wheel if given."""
    program = folder / "safe-compose"
    program.write_bytes(_compiled(flags or build.FLAGS))
    program.chmod(0o755)
    return program


def _write_script(path: Path, *, launched: bool) -> Path:
    text = build.script(launched=launched).replace("#!python", f"#!{plain_python()}", 1)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def make_entry(folder: Path) -> Path:
    """The script that the launcher in that folder starts."""
    return _write_script(folder / "safe-compose-python", launched=True)


def make_script(path: Path) -> Path:
    """Make the script that stands in the launcher's place where there was no compiler."""
    return _write_script(path, launched=False)
