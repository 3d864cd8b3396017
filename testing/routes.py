"""The commands that each route catches, for the table in the README.

`safe-compose doctor` is asked in a home of its own.

.venv/bin/python testing/routes.py        # prints it; needs bash, zsh, fish, sudo, make and
docker with compose
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("safe-compose")
KINDS = ("rc", "shims", "plugin")


def log_in(home: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the first one after a login: nothing of our own environment, bash has read
    its files.
    """
    sealed = {
        "HOME": str(home),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        **environ,
    }
    argv = ["bash", "-lc", 'exec "$@"', "bash", *words]
    return subprocess.run(
        argv,
        env=sealed,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def run_doctor(home: Path, *kinds: str) -> dict[str, object]:
    """Return what doctor says of the routes after that was installed in an empty home."""
    home.mkdir(parents=True)
    if kinds:
        words = [word for kind in kinds for word in ("--install", kind)]
        done = log_in(home, str(PROGRAM), "shell", *words, "--yes")
        assert done.returncode == 0, done.stderr
    done = log_in(home, str(PROGRAM), "doctor", "--ways", "--json")
    found: dict[str, object] = json.loads(done.stdout)
    assert done.returncode == bool(found["attention"])
    return found


def verdicts(folder: Path) -> dict[str, dict[str, str]]:
    """Way -> kind of installation -> verdict."""
    table: dict[str, dict[str, str]] = {}
    for kind in KINDS:
        for one in run_doctor(folder / kind, kind)["ways"]:  # type: ignore[attr-defined]
            table.setdefault(one["way"], {})[kind] = one["verdict"]
    return table


def markdown(table: Mapping[str, Mapping[str, str]]) -> str:
    lines = ["| docker called from | rc | shims | plugin |", "|---|---|---|---|"]
    for way, row in table.items():
        cells = [
            "caught" if row[kind] == "caught" else "-" if row[kind] == "missed" else row[kind]
            for kind in KINDS
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(markdown(verdicts(Path(scratch))))
