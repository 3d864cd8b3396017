"""Fetch a package of the npm registry with the machine's own npm, and make a layer of an image of it.

npm verifies the package against the registry's checksum. None of its scripts runs.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from testing.debian import say
from testing.image_recipe import FORMAT, NpmPackage


class NoNpmPackage(Exception):
    """The package cannot be had here; the message says why."""


def npm_layer(package: NpmPackage, edits: Mapping[str, tuple[bytes, bytes]], cache: Path) -> Path:
    """Return the layer of a package's files, made once and kept below `cache`/layers.

    Raises:
        NoNpmPackage: There is no npm, or it does not bring the package.
    """
    key = json.dumps([FORMAT, repr(package), repr(edits)])
    layer = cache / "layers" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.tar"
    if layer.exists():
        return layer
    layer.parent.mkdir(parents=True, exist_ok=True)
    partial = layer.with_suffix(f".{os.getpid()}")
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as out:
        for member, content in _list_members(package, _download(package, cache)):
            if content is not None and member.name in edits:
                old, new = edits[member.name]
                if old not in content:
                    raise ValueError(f"{member.name} does not contain {old!r}")
                content = content.replace(old, new)
                member.size = len(content)
            if content is not None and member.name == package.appended[0]:
                content += package.appended[1]
                member.size = len(content)
            out.addfile(member, io.BytesIO(content) if content is not None else None)
    return partial.rename(layer)


def _download(package: NpmPackage, cache: Path) -> Path:
    """Return the package's file, kept below `cache`/npm.

    Raises:
        NoNpmPackage: There is no npm, or it does not bring the package.
    """
    folder = cache / "npm" / f"{package.name.replace('/', '+')}-{package.version}"
    if not any(folder.glob("*.tgz")):
        npm = shutil.which("npm")
        if npm is None:
            raise NoNpmPackage(f"no npm on PATH, which brings {package.name}")
        folder.mkdir(parents=True, exist_ok=True)
        named = f"{package.name}@{package.version}"
        say(f"downloading npm package {named}")
        command = [npm, "pack", "--silent", "--ignore-scripts", named]
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        if done.returncode:
            raise NoNpmPackage(f"npm does not bring {named}; its reason is above")
    return next(iter(folder.glob("*.tgz")))


def _list_members(
    package: NpmPackage, path: Path
) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """Yield each file of the package's folder as it lies in the image, and the links that it lists.

    Every file is made executable: npm keeps no mode but that.
    """
    inside = f"package/{package.folder}/"
    with tarfile.open(path, "r:gz") as packed:
        for member in packed:
            source = packed.extractfile(member) if member.isfile() else None
            if source is None or not member.name.startswith(inside):
                continue
            content = source.read()
            name = member.name.removeprefix(inside)
            if name == package.links:
                yield from _list_links(package, content)
                continue
            made = tarfile.TarInfo(f"{package.into}/{name}")
            made.size, made.mode = len(content), 0o755
            yield made, content


def _list_links(package: NpmPackage, listed: bytes) -> Iterator[tuple[tarfile.TarInfo, None]]:
    for link in json.loads(listed):
        source, target = Path(link["source"]), Path(link["target"])
        made = tarfile.TarInfo(f"{package.into}/{target.relative_to(package.folder)}")
        made.type, made.mode = tarfile.SYMTYPE, 0o777
        made.linkname = os.path.relpath(source, target.parent)
        yield made, None
