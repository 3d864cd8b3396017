"""Type what `RESTORE.md` says, as a person would who has docker and the usual programs and nothing
of ours.
"""

import re
import shutil
import subprocess
from pathlib import Path


def type_recipe(backup: Path, tools: Path) -> None:
    """Check the backup, then for each volume follow the first way that is offered. `tools`: a
    folder that is not there yet.
    """
    tools.mkdir()
    for name in ("docker", "sha256sum", "gzip", "tar", "sleep"):
        program = shutil.which(name)
        assert program, name
        (tools / name).symlink_to(program)
    head, *volumes = re.split(r"^## ", (backup / "RESTORE.md").read_text(), flags=re.M)
    assert "sha256sum -c SHA256SUMS" in head and volumes
    for text in (
        "```sh\nsha256sum -c SHA256SUMS\n```",
        *(re.split(r"^### ", v, flags=re.M)[1] for v in volumes),
    ):
        script = replace_tar("".join(re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)))
        script = script.replace(
            "printf 'password: '; read -r POSTGRES_PASSWORD;", "POSTGRES_PASSWORD=typed;"
        )
        done = subprocess.run(
            ["/bin/sh", "-e"],
            input=script,
            cwd=backup,
            env={"PATH": str(tools)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


def replace_tar(script: str) -> str:
    """The image that a person chooses where the service's own has no GNU tar."""
    return (
        script.replace("IMAGE=busybox:latest", "IMAGE=postgres:15")
        if '--entrypoint tar "$IMAGE"' in script
        else script
    )
