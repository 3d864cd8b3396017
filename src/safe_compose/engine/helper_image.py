"""Our own image: only the volume helper, a static program that comes with this package.

The program is described in native/ and docs. The image's bytes are made here and are always the
same, so its ids are known before any engine is asked. An engine's image counts as ours only when it
has such an id and such a layer; its name proves nothing, since any image can be given that name.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safe_compose.errors import OperationFailed

PROGRAM = "/safe-compose-helper"
"""The program's path in the image."""
PROGRAMS = Path(__file__).resolve().parent.parent / "native"
"""The folder that holds `volume_helper.ARCHITECTURE`; the build makes it, and it may be missing."""
REPOSITORY = "safe-compose/helper"
"""The name that people see; never used to find it."""
NOTHING = "safe-compose/nothing"
ARCHITECTURES = ("amd64", "arm64")
"""Docker's names of the architectures that a helper is made for."""

READS = ("DAC_READ_SEARCH",)
"""Capabilities of `list`, `newest`, `cat` and `stat`: read the files of every user."""
PACKS = ("DAC_READ_SEARCH", "SYS_ADMIN")
"""Capabilities of `pack`. Linux shows trusted.* attributes only with SYS_ADMIN (capabilities(7)),
and a volume in which another Docker engine stores its layers is useless without them
(trusted.overlay.*)."""
UNPACKS = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SYS_ADMIN")
"""Capabilities of `unpack`: every owner, mode and device, capabilities of programs, and trusted.*
and security.* attributes."""
CHANGES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")
"""Capabilities of `exchange`, `mkdir`, `rename`, `remove`, `empty`, `own` and `put`."""

_OTHER_ARCHITECTURES = ("386", "arm", "loong64", "mips64le", "ppc64le", "riscv64", "s390x")
"""Other architectures that docker runs on, without a helper."""
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_EPOCH = "1970-01-01T00:00:00Z"
_ARCHITECTURE = re.compile(r"[a-z0-9]{1,20}")


class NoOwnImage(OperationFailed):
    """An error that says why the helper cannot run on this engine."""


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image, and how an engine must describe it."""

    files: Mapping[str, bytes]
    """An OCI image layout, with the manifest.json that engines before 25 read."""
    config_digest: str
    """`sha256:...`: the image's id where the engine stores images itself."""
    manifest_digest: str
    """`sha256:...`: its id where containerd stores them (the default from engine 29 on)."""
    layer_digest: str
    """`sha256:...` of the uncompressed layer, its only one."""
    entrypoint: tuple[str, ...]
    reference: str
    """Name and tag, for people."""

    @property
    def ids(self) -> tuple[str, str]:
        """Return the ids that the image may have on an engine."""
        return self.config_digest, self.manifest_digest

    def archive(self) -> bytes:
        """Return the tar archive that `docker load` takes."""
        return _layout(self.files)

    def is_described_by(self, body: Mapping[str, Any], identity: str) -> bool:
        """Return whether the engine's answer for `identity` describes this image and no other."""
        layers = (body.get("RootFS") or {}).get("Layers")
        entrypoint = (body.get("Config") or {}).get("Entrypoint") or []
        volumes = (body.get("Config") or {}).get("Volumes")
        return (
            identity in self.ids
            and body.get("Id") == identity
            and layers == [self.layer_digest]
            and entrypoint == list(self.entrypoint)
            and not volumes
        )


def image(arch: str) -> bytes:
    """Return our image for an architecture (`amd64`, `arm64`) as `docker load` takes it.

    The bytes are always the same.

    Raises:
        NoOwnImage: This installation has no program for it.
    """
    return build(arch).archive()


@cache
def build(arch: str) -> BuiltImage:
    """Return our image for an architecture.

    Raises:
        NoOwnImage: This installation has no program for it.
    """
    if arch not in ARCHITECTURES:
        raise NoOwnImage(
            "there is no volume helper for the engine's architecture"
            f" ({arch or 'which it does not tell'})"
        )
    path = PROGRAMS / f"volume_helper.{arch}"
    try:
        program = path.read_bytes()
    except OSError as error:
        raise NoOwnImage(
            f"this installation came without the volume helper for linux/{arch} ({error.strerror})",
            next_step="install a wheel that holds it, or install with a C compiler at hand",
        ) from error
    info = tarfile.TarInfo(PROGRAM.lstrip("/"))
    info.mode = 0o755
    info.size = len(program)
    return _build(
        arch,
        _tar([(info, program)]),
        (PROGRAM,),
        REPOSITORY,
        "the volume helper: lists, packs and unpacks volumes",
    )


@cache
def build_empty(arch: str) -> BuiltImage:
    """Return an image without a single file, for containers that are never started.

    Raises:
        NoOwnImage: The architecture is unknown.
    """
    if not _ARCHITECTURE.fullmatch(arch):
        raise NoOwnImage("the engine does not tell its architecture")
    return _build(arch, _tar([]), (), NOTHING, "no files: for containers that are never started")


@cache
def list_known_ids() -> frozenset[str]:
    """Return the ids that our images of this version have on any engine."""
    found: set[str] = set()
    for arch in ARCHITECTURES:
        with suppress(NoOwnImage):
            found.update(build(arch).ids)
    for arch in (*ARCHITECTURES, *_OTHER_ARCHITECTURES):
        found.update(build_empty(arch).ids)
    return frozenset(found)


def _build(
    arch: str, layer: bytes, entrypoint: tuple[str, ...], repository: str, title: str
) -> BuiltImage:
    layer_digest = _digest(layer)
    config = _json(
        {
            "architecture": arch,
            "config": {
                **({"Entrypoint": list(entrypoint)} if entrypoint else {}),
                "Labels": {"org.opencontainers.image.title": f"safe-compose: {title}"},
            },
            "created": _EPOCH,
            "history": [{"created": _EPOCH, "created_by": "safe-compose"}],
            "os": "linux",
            "rootfs": {"diff_ids": [layer_digest], "type": "layers"},
        }
    )
    manifest = _json(
        {
            "config": {"digest": _digest(config), "mediaType": _CONFIG_TYPE, "size": len(config)},
            "layers": [{"digest": layer_digest, "mediaType": _LAYER_TYPE, "size": len(layer)}],
            "mediaType": _MANIFEST_TYPE,
            "schemaVersion": 2,
        }
    )
    layer_blob = _blob(layer_digest)
    tag = layer_digest.removeprefix("sha256:")[:12]
    reference = f"{repository}:{tag}"
    entry = {
        "annotations": {
            "io.containerd.image.name": f"docker.io/{reference}",
            "org.opencontainers.image.ref.name": tag,
        },
        "digest": _digest(manifest),
        "mediaType": _MANIFEST_TYPE,
        "platform": {"architecture": arch, "os": "linux"},
        "size": len(manifest),
    }
    files = {
        layer_blob: layer,  # hashed once: the confirmation screen waits for it
        **{_blob(_digest(content)): content for content in (config, manifest)},
        "index.json": _json({"manifests": [entry], "mediaType": _INDEX_TYPE, "schemaVersion": 2}),
        "manifest.json": _json(
            [{"Config": _blob(_digest(config)), "Layers": [layer_blob], "RepoTags": [reference]}]
        ),
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
    }
    return BuiltImage(
        files, _digest(config), _digest(manifest), layer_digest, entrypoint, reference
    )


def _layout(files: Mapping[str, bytes]) -> bytes:
    folders = [tarfile.TarInfo(name) for name in ("blobs", "blobs/sha256")]
    for folder in folders:
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
    members = [(folder, b"") for folder in folders]
    for name, content in files.items():
        info = tarfile.TarInfo(name)
        info.size = len(content)
        members.append((info, content))
    return _tar(members)


def _tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as made:
        for info, content in members:
            made.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
