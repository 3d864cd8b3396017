"""Delete and undo on one engine: through its socket, and over `ssh://` to this machine."""

from collections.abc import Mapping
from functools import partial

import table
from pairs import alternate
from stage import PROGRAM, Stage, timed

from testing.offsite_servers import sftp_server, user


def rows(stage: Stage, rounds: int) -> list[table.Row]:
    """One row: each round deletes and undoes, so that the same project is there for the next."""
    with sftp_server(stage.scratch / "sshd") as line:
        remote = {
            **stage.environ,
            **line.environment,
            "DOCKER_HOST": f"ssh://{user()}@127.0.0.1:{line.port}",
        }
        return [
            table.pair(
                alternate(
                    "down -v and undo, over ssh / through the socket",
                    partial(_delete_and_undo, stage, stage.environ),
                    partial(_delete_and_undo, stage, remote),
                    rounds,
                )
            )
        ]


def _delete_and_undo(stage: Stage, environ: Mapping[str, str]) -> float:
    delete = (PROGRAM, "--non-interactive", "--backup-first", "compose", "down", "-v")
    return sum(
        timed(argv, cwd=stage.project.folder, environ=environ)
        for argv in (delete, (PROGRAM, "undo"))
    )
