"""The document that compose prints of a project: volumes, mounts and `x-safe-compose`."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from posixpath import normpath
from typing import Any

from safe_compose.compose.probe import Probe
from safe_compose.core.observed import DeclaredMount, FolderMount
from safe_compose.core.tier import TIER_NAMES


def list_hooked_services(services: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the services that have `pre_stop` hooks, which compose before 2.30 does not load."""
    return tuple(
        name for name, body in services.items() if isinstance(body, dict) and body.get("pre_stop")
    )


def parse_document(probe: Probe) -> dict[str, Any] | None:
    """Return the output of `config --format json`, or None when it failed or is something else."""
    code, out, _ = probe.answer()
    if code:
        return None
    try:
        shown = json.loads(out)
    except (ValueError, RecursionError):  # a project's file may nest anything below an `x-` key
        return None
    return shown if isinstance(shown, dict) and shown.get("name") else None


def volume_hash(body: Any) -> str | None:
    """Return the hash that compose leaves on a volume, from the definition that `config` prints.

    It is the sha256 of Go's JSON of VolumeConfig (docker/compose 2.32.0 to 5.5.0 `VolumeHash`,
    compose-go `types.VolumeConfig`), with the driver `local` written out.

    Returns:
        None for a definition with fields that these versions do not have, or with variables.
    """
    if (
        not isinstance(body, dict)
        or not body.get("name")
        or not set(body) <= {*_HASHED, "x-safe-compose"}
    ):
        return None
    if "$" in json.dumps(body).replace("$$", ""):
        return None  # not interpolated
    given = {"driver": "local", **{key: value for key, value in body.items() if value}}
    parts = []
    for key in _HASHED:  # in the order of the struct's fields, without empty ones
        value = given.get(key)
        if not value:
            continue
        if isinstance(value, dict):
            if not all(isinstance(word, str) for word in value.values()):
                return None
            inner = (
                f"{_go_string(k)}:{_go_string(value[k])}"
                for k in sorted(value, key=lambda k: k.encode("utf-8", "replace"))
            )
            parts.append(f"{_go_string(key)}:{{{','.join(inner)}}}")
        elif value is True:
            parts.append(f"{_go_string(key)}:true")
        elif isinstance(value, str):
            parts.append(f"{_go_string(key)}:{_go_string(value)}")
        else:
            return None
    return hashlib.sha256(f"{{{','.join(parts)}}}".encode("utf-8", "replace")).hexdigest()


_HASHED = ("name", "driver", "driver_opts", "external", "labels")


def _go_string(text: str) -> str:
    """Return a string as Go's encoding/json writes it.

    It also escapes characters of HTML and the two line separators of Unicode. `config` doubles each
    dollar sign, so that its output can be read back.
    """
    shown = json.dumps(text.replace("$$", "$"), ensure_ascii=False)
    for raw in "<>&\u2028\u2029":
        shown = shown.replace(raw, f"\\u{ord(raw):04x}")
    return shown


def mapping(document_: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the mapping under a key; empty where there is none."""
    value = document_.get(key)
    return value if isinstance(value, dict) else {}


def list_names(document_: Mapping[str, Any]) -> Iterator[str]:
    """Yield the name of the project, and those of its volumes."""
    project = str(document_.get("name", ""))
    yield project
    for key, body in mapping(document_, "volumes").items():
        yield real_name(project, key, body)


def real_name(project: str, key: str, body: Any) -> str:
    """Return the name that a volume of a document has on the engine."""
    name = body.get("name") if isinstance(body, dict) else None
    return str(name or (key if is_external(body) else f"{project}_{key}"))


def is_external(body: Any) -> bool:
    """Return whether a volume is `external: true`, or the older `external: {name: x}`.

    A quoted "true" does not count: when in doubt, the volume belongs to the project.
    """
    external = body.get("external") if isinstance(body, dict) else None
    return external is True or isinstance(external, dict)


def service_mounts(body: Any) -> Iterator[tuple[str, str, str]]:
    """Yield (key, destination, subpath) of each named volume that a service mounts.

    The short form `key:/path[:ro]` counts too. The subpath is `volume.subpath`, the mounted folder
    of the volume; it is empty for the whole volume.
    """
    for mount in (body.get("volumes") or ()) if isinstance(body, dict) else ():
        if isinstance(mount, str):
            key, colon, rest = mount.partition(":")
            if colon and not key.startswith((".", "/", "~")):
                yield key, rest.partition(":")[0], ""
        elif isinstance(mount, dict) and mount.get("type") == "volume" and mount.get("source"):
            subpath = normpath(str(mapping(mount, "volume").get("subpath") or ".")).strip("/")
            yield (
                str(mount["source"]),
                str(mount.get("target", "")),
                "" if subpath == "." else subpath,
            )


def idle_mounts(
    name: str, everything: Mapping[str, Any], disabled: Sequence[str], known: Set[str]
) -> tuple[DeclaredMount, ...]:
    """Return mounts of services in inactive profiles, of volumes that are not among `known`.

    Without the profiles, `config` does not show these volumes.
    """
    declared = mapping(everything, "volumes")
    services = mapping(everything, "services")
    return tuple(
        DeclaredMount(
            service,
            str(services[service].get("image") or f"{name}-{service}"),
            real,
            target,
            subpath=subpath,
        )
        for service in disabled
        for key, target, subpath in service_mounts(services[service])
        if key in declared and (real := real_name(name, key, declared[key])) not in known
    )


def host_folders(documents: Iterable[Mapping[str, Any]]) -> tuple[FolderMount, ...]:
    """Return the bind mounts of all services.

    `config` prints them in the long form, with absolute paths, and each dollar twice.
    """
    found: dict[FolderMount, None] = {}
    for document_ in documents:
        name = str(document_.get("name", ""))
        for service, body in mapping(document_, "services").items():
            for mount in (body.get("volumes") or ()) if isinstance(body, dict) else ():
                if isinstance(mount, dict) and mount.get("type") == "bind" and mount.get("source"):
                    target, read_only = (
                        _undouble(mount.get("target", "")),
                        mount.get("read_only") is True,
                    )
                    image = _undouble(body.get("image") or f"{name}-{service}")
                    pgdata = _undouble(mapping(body, "environment").get("PGDATA") or "")
                    found[
                        FolderMount(
                            _undouble(mount["source"]), service, target, read_only, image, pgdata
                        )
                    ] = None
    return tuple(found)


def _undouble(text: Any) -> str:
    return str(text).replace("$$", "$")


def read_tiers(
    tops: Sequence[Any], volumes: Mapping[str, Any]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the tiers that `x-safe-compose` sets, and warnings.

    The key of a tier is that of its volume, or "" for the whole project.

    At the top of a file it is a tier or `{tier: ..., volumes: {KEY: TIER}}`; at a volume, a tier or
    `{tier: ...}`. An unknown word counts as critical. `tops` are several where the files were not
    merged; the strictest tier for an object counts.
    """
    entries: list[tuple[str, Any]] = []
    for top in tops:
        if isinstance(top, dict):
            entries.append(("", top.get("tier")))
            entries += [(str(key), body) for key, body in mapping(top, "volumes").items()]
        else:
            entries.append(("", top))
    entries += [
        (key, body.get("x-safe-compose")) for key, body in volumes.items() if isinstance(body, dict)
    ]
    tiers: dict[str, str] = {}
    warnings: list[str] = []
    for key, body in entries:
        word = body.get("tier") if isinstance(body, dict) else body
        if word is None:
            continue
        if not isinstance(word, str) or word not in TIER_NAMES:
            warnings.append(
                f"x-safe-compose of {f'volume {key}' if key else 'the project'} is none of"
                f" {', '.join(TIER_NAMES)}: taken as critical"
            )
            word = "critical"
        tiers[key] = min(str(word), tiers.get(key, "disposable"), key=TIER_NAMES.index)
    return tiers, tuple(warnings)
