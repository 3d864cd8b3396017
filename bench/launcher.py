"""What a harmless command costs: the launcher, the PATH shim, Python, the shell function, and words
that only look suspicious.
"""

import subprocess
from functools import partial
from pathlib import Path

import table
from pairs import Pairs, alternate
from stage import PROGRAM, Stage, real_docker, timed

PYTHON = f"{PROGRAM}-python"
"""What the launcher starts for words that may matter; called by itself it looks at any."""
HARMLESS: tuple[tuple[str, ...], ...] = (("ps",), ("compose", "ps"))
_FUNCTION = r"""
eval "$(safe-compose shell bash)"
measure() { # NAME COMMAND...: microseconds
	local begun=${EPOCHREALTIME/./} ended
	"${@:2}" </dev/null >/dev/null
	ended=${EPOCHREALTIME/./}
	printf '%s %s\n' "$1" "$((ended - begun))"
}
measure warm command docker "$@" >/dev/null
for ((round = 0; round < rounds; round++)); do
	if ((round % 2)); then
		measure ours docker "$@"; measure bare command docker "$@"
	else
		measure bare command docker "$@"; measure ours docker "$@"
	fi
done
"""


def rows(stage: Stage, rounds: int) -> list[table.Row]:
    """The comparisons against bare docker."""
    bare = real_docker()
    folder = stage.project.folder

    def run(program: str, words: tuple[str, ...], cwd: Path = folder) -> float:
        return timed([program, *words], cwd=cwd, environ=stage.environ)

    found = []
    shim = _shim(stage)
    for words in HARMLESS:
        name = f"docker {' '.join(words)}"
        docker = partial(run, bare, words)
        found.append(table.pair(alternate(f"{name}: A/A control", docker, docker, rounds)))
        found.append(
            table.pair(
                alternate(f"{name}: safe-compose", docker, partial(run, PROGRAM, words), rounds)
            )
        )
        found.append(
            table.pair(alternate(f"{name}: PATH shim", docker, partial(run, shim, words), rounds))
        )
        found.append(
            table.pair(
                alternate(f"{name}: Python entry", docker, partial(run, PYTHON, words), rounds)
            )
        )
        found.append(table.pair(_function(stage, f"{name}: bash function", words, rounds)))
    suspicious: tuple[tuple[tuple[str, ...], Path], ...] = (
        (("compose", "down"), stage.idle),
        (
            (
                "run",
                "--rm",
                "--network",
                "none",
                "--pull",
                "never",
                "--entrypoint",
                "true",
                "dating-bot:latest",
            ),
            folder,
        ),
        (("volume", "rm", "--help"), folder),
        (("stop", stage.stopped), folder),
    )
    for words, cwd in suspicious:
        name = " ".join(words[:2]) + ("" if len(words) < 3 else " ...") + ": safe-compose"
        few = max(rounds // 2, 5)
        found.append(
            table.pair(
                alternate(
                    name, partial(run, bare, words, cwd), partial(run, PROGRAM, words, cwd), few
                )
            )
        )
    return found


def _shim(stage: Stage) -> str:
    """The `docker` that `--install shims` writes, in a home of its own."""
    home, folder = stage.scratch / "home of shims", stage.scratch / "shims"
    home.mkdir()
    environ = {
        name: value for name, value in stage.environ.items() if not name.startswith("XDG_")
    } | {"HOME": str(home)}
    argv = [PROGRAM, "shell", "--install", "shims", "--dir", str(folder), "--yes"]
    subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, check=True, capture_output=True)
    if Path(PROGRAM).read_bytes()[:4] != b"\x7fELF":
        raise SystemExit("bench: the launcher needs a C compiler (cc), then: make .venv/ready")
    return str(folder / "docker")


def _function(stage: Stage, name: str, words: tuple[str, ...], rounds: int) -> Pairs:
    """Both sides in one bash process, as at a prompt."""
    environ = {
        **stage.environ,
        "PATH": f"{Path(PROGRAM).parent}:{stage.environ['PATH']}",
        "rounds": str(rounds),
    }
    argv = ["bash", "-c", _FUNCTION, "bench", *words]
    done = subprocess.run(
        argv, cwd=stage.project.folder, env=environ, check=True, capture_output=True, text=True
    )
    taken: dict[str, list[float]] = {"bare": [], "ours": []}
    for line in done.stdout.splitlines():
        which, microseconds = line.split()
        taken[which].append(int(microseconds) / 1e6)
    return Pairs(name, tuple(taken["bare"]), tuple(taken["ours"]))
