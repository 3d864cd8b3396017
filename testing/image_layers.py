"""Images made from those of the lab, as companies make their own: with scripts, extensions and
settings added.
"""

import io
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from testing.projects import docker, real_docker, unique


@contextmanager
def deriving_image(base: str, files: Mapping[str, str], *lines: str) -> Iterator[str]:
    """The name of an image like `base` with these files (path -> text, executable) and further
    lines of a Dockerfile.
    """
    context, name = io.BytesIO(), unique("lab-derived")
    recipe = "\n".join(
        [f"FROM {base}", *(f"COPY {number} {path}" for number, path in enumerate(files)), *lines]
    )
    with tarfile.open(fileobj=context, mode="w") as tar:
        for path, text in {
            "Dockerfile": recipe,
            **{str(n): text for n, text in enumerate(files.values())},
        }.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(text.encode()), 0o755
            tar.addfile(member, io.BytesIO(text.encode()))
    words = [real_docker(), "build", "--quiet", "--network", "none", "--tag", name, "-"]
    done = subprocess.run(words, input=context.getvalue(), capture_output=True)
    assert done.returncode == 0, done.stderr
    try:
        yield name
    finally:
        docker("rmi", "--force", name, check=False)
