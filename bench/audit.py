"""What `safe-compose audit` takes for a repository of 10,000 files, made for this with 60 findings
in it.
"""

import json
import random
import shutil
import subprocess
from pathlib import Path

import table
from stage import PROGRAM, Stage, timed

FILES = 10_000
FINDINGS = 60
SPEAKING = 400
"""Files that speak of docker and delete nothing, besides those with a finding."""
_SHARES = {
    "py": 30,
    "ts": 25,
    "md": 15,
    "yml": 8,
    "json": 6,
    "sh": 4,
    "txt": 3,
    "svg": 3,
    "png": 4,
    "": 2,
}
"""Of a hundred files, by ending."""
_WORDS = (
    "the", "value", "of", "a", "key", "is", "read", "down", "to", "its", "end", "and", "up", "next",
    "one", "when", "rm", "or", "run", "would", "remove", "what", "stands", "there", "-x", "$it",
)  # fmt: skip


def rows(stage: Stage, rounds: int) -> list[table.Row]:
    """Its wall time, against `git ls-files` and reading every byte with grep."""
    folder = stage.scratch / "repository"
    try:
        bytes_in_all = fill(folder)
        words = [PROGRAM, "audit", "--json"]
        shape = json.loads(
            subprocess.run(
                words, cwd=folder, env=dict(stage.environ), capture_output=True, check=False
            ).stdout
        )
        if len(shape["findings"]) != FINDINGS:
            raise SystemExit(f"bench: {len(shape['findings'])} findings instead of {FINDINGS}")
        audit = [
            timed(words, cwd=folder, environ=stage.environ, check=False) for _ in range(rounds)
        ]
        start = [
            timed([PROGRAM, "commands"], cwd=folder, environ=stage.environ) for _ in range(rounds)
        ]
        grep = [
            timed(["grep", "-rlI", "docker"], cwd=folder, environ=stage.environ)
            for _ in range(rounds)
        ]
        name = f"{FILES} files, {bytes_in_all >> 20} MiB"
        return [
            table.single(f"audit: {name}", audit),
            table.single("of that, the start of one of our verbs", start),
            table.single(f"grep -rlI docker: {name}", grep),
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(folder: Path) -> int:
    """Make the repository; the same one each time. Returns its bytes."""
    chance = random.Random(1)
    endings = [ending for ending, share in _SHARES.items() for _ in range(share)]
    total = 0
    for number in range(FILES):
        ending = endings[number % len(endings)]
        text = _text(chance, int(chance.lognormvariate(8, 1.1)))
        if number % (FILES // SPEAKING) == 0 and ending not in ("png", "svg"):
            text += (
                "\n\ndocker compose -f compose.yaml up -d\ndocker compose down\ndocker compose logs"
                " -f web\n"
            )
        path = (
            folder
            / f"part{number % 97}"
            / f"folder{number % 13}"
            / (f"file{number}.{ending}" if ending else f"file{number}")
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode() if ending != "png" else bytes(chance.randbytes(len(text)))
        path.write_bytes(data)
        total += len(data)
    for number in range(FINDINGS):
        path = folder / f"part{number % 97}" / f"reset{number}.{('md', 'sh', 'yml')[number % 3]}"
        command = "docker compose -f compose.yaml down -v"
        forms = (
            f"Reset:\n\n```sh\n{command}\n```\n",
            f"#!/bin/sh\n{command}\n",
            f"jobs:\n  a:\n    steps:\n      - run: {command}\n",
        )
        path.write_text(forms[number % 3])
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run(["git", "add", "--all"], cwd=folder, check=True, capture_output=True)
    return total


def _text(chance: random.Random, size: int) -> str:
    """Lines of words, some of them those that a finding is made of."""
    lines = []
    while size > 0:
        lines.append(
            "    " * chance.randrange(3)
            + " ".join(chance.choices(_WORDS, k=chance.randrange(3, 12)))
        )
        size -= len(lines[-1]) + 1
    return "\n".join(lines) + "\n"
