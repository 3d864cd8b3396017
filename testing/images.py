"""Build look-alikes of the images that the tests and the example use, from Debian packages, without
any registry.

An image is two layers: the packages' files, merged straight from the .debs without running a
maintainer script, and our own few files (entrypoint, accounts, folders). It goes to the engine as a
`docker save` archive through `docker load`, since `docker import` of engine 20.10 refuses
STOPSIGNAL. The names are those of the real images, so that rules about images see what they would
see in production; the label LABEL tells ours from real ones.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from testing.debian import Apt, say
from testing.image_recipe import FORMAT, MERGED, Recipe
from testing.npm import npm_layer
from testing.server_images import MARIADB, POSTGRES, REAL_SERVERS, REDIS
from testing.standin_images import BOT, BUSYBOX, SQLITE, STANDINS

LABEL = "safe-compose.lab"
CREATED = "1970-01-01T00:00:00Z"


RECIPES = (POSTGRES, BUSYBOX, BOT, *STANDINS, REDIS, MARIADB)
SELDOM = (*REAL_SERVERS, SQLITE)
"""Made only when they are asked for by name: few tests need them."""


def _merged(path: str) -> str:
    """`./lib/x` of a package as it lies in the image: `usr/lib/x`."""
    path = path.removeprefix("./").rstrip("/")
    top, slash, _ = path.partition("/")
    return f"usr/{path}" if slash and top in MERGED else path


def _members(deb: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE
    ) as unpack:
        assert unpack.stdout is not None
        with tarfile.open(fileobj=unpack.stdout, mode="r|") as packed:
            for member in packed:
                yield member, packed
        unpack.stdout.read()  # the padding after the end marker, so that dpkg-deb does not die of a closed pipe
    if unpack.returncode:
        raise subprocess.CalledProcessError(unpack.returncode, "dpkg-deb")


def packages_layer(recipe: Recipe, apt: Apt, cache: Path) -> Path:
    """Return the layer of the packages' files, made once and kept below `cache`/layers."""
    wanted = {
        name: version
        for name, version in apt.closure(recipe.packages).items()
        if (name in recipe.packages if recipe.only else name not in recipe.release.needless)
    }
    merge = not recipe.only
    key = json.dumps([FORMAT, wanted, recipe.only, recipe.release.unwanted, repr(recipe.edits)])
    layer = cache / "layers" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.tar"
    if layer.exists():
        return layer
    debs = apt.download(wanted)
    layer.parent.mkdir(parents=True, exist_ok=True)
    partial = layer.with_suffix(f".{os.getpid()}")
    seen: set[str] = set(MERGED) if merge else set()
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as out:
        for deb in debs:
            for member, packed in _members(deb):
                path = _merged(member.name) if merge else member.name.removeprefix("./")
                if (
                    not path
                    or path == "."
                    or path in seen
                    or (recipe.only and path not in recipe.only)
                ):
                    continue
                if f"{path}/".startswith(recipe.release.unwanted) or path.startswith(
                    recipe.release.unwanted
                ):
                    continue
                seen.add(path)
                source = packed.extractfile(member) if member.isfile() else None
                member.name = path
                if member.islnk():
                    member.linkname = _merged(member.linkname)
                if source is not None and path in recipe.edits:
                    old, new = recipe.edits[path]
                    content = source.read()
                    if old not in content:
                        raise ValueError(f"{path} of {deb.name} does not contain {old!r}")
                    content = content.replace(old, new)
                    member.size, source = len(content), io.BytesIO(content)
                out.addfile(member, source)
    return partial.rename(layer)


def own_layer(recipe: Recipe, path: Path) -> Path:
    """Write the layer with our own files, always the same bytes for the same recipe."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as out:
        made: set[str] = set()
        for name, entry in recipe.entries.items():
            for parent in reversed(Path(name).parents[:-1]):
                if (
                    str(parent) not in made
                    and str(parent) not in recipe.entries
                    and name.startswith("usr/share/standin")
                ):
                    folder = tarfile.TarInfo(str(parent))
                    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                    out.addfile(folder)
                    made.add(str(parent))
            info = tarfile.TarInfo(name)
            info.mode = entry.mode
            info.uid, info.gid = entry.owner
            if entry.link is not None:
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
                out.addfile(info)
            elif entry.content is None:
                info.type = tarfile.DIRTYPE
                out.addfile(info)
            else:
                info.size = len(entry.content)
                out.addfile(info, io.BytesIO(entry.content))
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _architecture() -> str:
    command = ["dpkg", "--print-architecture"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def load(recipe: Recipe, layers: Sequence[Path]) -> None:
    """Hand the image to the engine as a `docker save` archive on docker's stdin."""
    digests = [_sha256(layer) for layer in layers]
    image = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "created": CREATED,
            "config": {**recipe.config, "Labels": {LABEL: recipe.identity()}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "history": [{"created": CREATED, "created_by": "testing"} for _ in digests],
        },
        sort_keys=True,
    ).encode()
    config_name = f"{hashlib.sha256(image).hexdigest()}.json"
    manifest = [
        {
            "Config": config_name,
            "RepoTags": [recipe.name],
            "Layers": [f"{digest}/layer.tar" for digest in digests],
        }
    ]
    docker = ["docker", "load", "--quiet"]
    with subprocess.Popen(docker, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as loading:
        assert loading.stdin is not None
        with tarfile.open(fileobj=loading.stdin, mode="w|", format=tarfile.GNU_FORMAT) as out:
            for name, content in (
                (config_name, image),
                ("manifest.json", json.dumps(manifest).encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                out.addfile(info, io.BytesIO(content))
            for digest, layer in zip(digests, layers, strict=True):
                info = tarfile.TarInfo(f"{digest}/layer.tar")
                info.size = layer.stat().st_size
                with layer.open("rb") as stream:
                    out.addfile(info, stream)
        loading.stdin.close()
    if loading.returncode:
        raise subprocess.CalledProcessError(loading.returncode, docker)


def find_image(name: str) -> dict[str, Any] | None:
    """Return what the engine knows of an image, or None when it has none of that name.

    Raise CalledProcessError when the engine does not say.
    """
    command = ["docker", "image", "inspect", name]
    shown = subprocess.run(command, capture_output=True, text=True)
    if shown.returncode == 0:
        found: dict[str, Any] = json.loads(shown.stdout)[0]
        return found
    listing = ["docker", "image", "ls", "--quiet", name]
    if subprocess.run(listing, check=True, stdout=subprocess.PIPE).stdout.strip():
        raise subprocess.CalledProcessError(shown.returncode, command, stderr=shown.stderr)
    return None


def is_ours(image: Mapping[str, Any]) -> bool:
    """Is it one that `load` made? A label alone is inherited by what somebody builds on top."""
    labels = (image.get("Config") or {}).get("Labels") or {}
    return LABEL in labels and image.get("Created") == CREATED


def holds(image: Mapping[str, Any], recipe: Recipe) -> bool:
    """Is it ours, of this very recipe?"""
    return is_ours(image) and image["Config"]["Labels"][LABEL] == recipe.identity()


def present(recipe: Recipe) -> bool:
    """Is an image of that name there, somebody's own or ours of this very recipe? Only an older one
    of ours is ever replaced.
    """
    image = find_image(recipe.name)
    return image is not None and (not is_ours(image) or holds(image, recipe))


def pulled(recipe: Recipe) -> bool:
    """Try for the real image, when asked to; an engine without a way to the registry may hang, so
    not for long.
    """
    if os.environ.get("SAFE_COMPOSE_LAB_PULL") != "1" or recipe in (BOT, SQLITE):
        return False
    say(f"pulling {recipe.name}")
    try:
        return (
            subprocess.run(["docker", "pull", "--quiet", recipe.name], timeout=120).returncode == 0
        )
    except subprocess.TimeoutExpired:
        say(f"no {recipe.name} from a registry after 120 s: building a look-alike")
        return False


def fetched_layers(recipe: Recipe, cache: Path, sources: dict[str, Apt]) -> list[Path]:
    """Return the layers that need an archive or a registry, each fetched once; see `build`."""
    apt = sources.setdefault(recipe.release.name, Apt(cache / "apt", recipe.release.name))
    layers = [packages_layer(recipe, apt, cache)]
    if recipe.npm is not None:
        layers.append(npm_layer(recipe.npm, recipe.edits, cache))
    return layers


def fetch_usual_layers(cache: Path) -> None:
    """Fetch what the usual images are made of, for an engine that will have no network."""
    sources: dict[str, Apt] = {}
    for recipe in RECIPES:
        fetched_layers(recipe, cache, sources)


def build(recipe: Recipe, cache: Path, sources: dict[str, Apt]) -> None:
    """Build a look-alike and load it; `sources` has an apt for each release that was asked."""
    say(f"building a look-alike of {recipe.name} from packages of Debian {recipe.release.name}")
    layers = fetched_layers(recipe, cache, sources)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        load(recipe, [*layers, own_layer(recipe, Path(folder) / "own.tar")])


def main(cache: Path, names: Sequence[str]) -> int:
    """Make sure of the usual images and of those named."""
    sources: dict[str, Apt] = {}
    for recipe in (*RECIPES, *(r for r in SELDOM if r.name in names)):
        if not present(recipe) and not pulled(recipe):
            build(recipe, cache, sources)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
