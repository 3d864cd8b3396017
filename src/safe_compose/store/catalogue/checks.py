"""Rules for the content of a manifest, whose values become paths, labels, arguments and output.

A manifest may come from an off-site copy, or from a store that others write to: none of it is used
before these rules hold. This module is pure: it reads no file and asks no engine.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from safe_compose.core.observed import CONTAINER_NAME, FOLDER, LAYER, VOLUME_NAME
from safe_compose.core.tier import TIER_NAMES
from safe_compose.system.process import is_id

if TYPE_CHECKING:
    from safe_compose.core.backup import Artifact, Backup, Omission, ServerStatistics, VolumeRecord

LARGEST_NUMBER = 1 << 53
"""Upper bound of bytes, rows and backup numbers; no real size reaches it."""
LONGEST_NAME = 255
"""Largest number of bytes of one part of a path: no file system in use takes more (NAME_MAX)."""
DEEPEST = 4
"""Largest number of parts of the path of a file; safe-compose writes two."""
MOST_FILES = 200_000
LARGEST_SCRIPT = 256 << 20
"""Largest size in bytes of the script of a server's accounts, which is read as a whole."""
LONGEST_WORD = 4096
"""Largest number of characters of a name, path or value."""

_PLAIN_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_PROJECT_FOLDER = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_DRIVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,254}")
_SERVICE = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._-]{0,254}")
"""compose-spec: `^[a-zA-Z0-9._-]+$`, but without a leading hyphen, because the name becomes an
argument of compose."""
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,511}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z")
_SETTING = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_OWNER = re.compile(r"[0-9]{1,10} [0-9]{1,10} [0-7]{1,5}")
_KINDS = frozenset(
    {
        "archive",
        "globals",
        "database",
        "base",
        "sqlite",
        "list",
        "settings",
        "others",
        "others list",
    }
)
_INSIDE_THE_VOLUME = ("folder", "dbfilename", "appendfilename", "appenddirname")
_OWNERS = ("owner", "root", "files")
_PROGRAMS = ("redis-server", "valkey-server")
"""Programs that the setting `server` may name, because it is started."""


def is_normal_path(file: str) -> bool:
    """Return whether a path is relative, stays inside its folder, and is in its normal form."""
    parts = file.split("/")
    return (
        "\0" not in file
        and all(
            part not in ("", ".", "..")
            and len(part.encode("utf-8", "surrogateescape")) <= LONGEST_NAME
            for part in parts
        )
        and len(parts) <= DEEPEST
    )


def is_plain_path(file: str) -> bool:
    """Return whether a path is normal and uses only the characters of our own file names.

    No other file system spells such a path differently.
    """
    return is_normal_path(file) and all(_PLAIN_PART.fullmatch(part) for part in file.split("/"))


def is_project_folder(name: str) -> bool:
    """Return whether a name can be the folder of a project in a store (`backup.slug`)."""
    return _PROJECT_FOLDER.fullmatch(name) is not None


def is_service(name: str) -> bool:
    """Return whether a name can be a compose service and be passed to compose as an argument."""
    return _SERVICE.fullmatch(name) is not None


def is_pair(name: str, value: str) -> bool:
    """Return whether a pair can be a driver option or a label.

    The engine accepts all others as labels, which are passed on no command line.
    """
    return "\0" not in name and "\0" not in value and len(name) <= LONGEST_WORD


def is_moment(text: str) -> bool:
    """Return whether a text is a time as manifests write it."""
    if not _MOMENT.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def find_volume_fault(record: "VolumeRecord") -> str | None:
    """Describe the first impossible value of a record, or return None."""
    return next(_faults_of_volume(record), None)


def find_collision(files: Iterable[str]) -> str | None:
    """Return a path that a file system may confuse with another one of them, or None.

    Such a path differs from another one only in case, or is also the folder of another one.
    """
    seen: set[str] = set()
    folders: set[str] = set()
    for file in files:
        low = file.lower()
        above = {str(p) for p in PurePosixPath(low).parents} - {"."}
        if low in seen or low in folders or above & seen:
            return file
        seen.add(low)
        folders |= above
    return None


def find_fault(backup: "Backup") -> str | None:
    """Describe the first impossible value of a manifest, or return None."""
    return next(_faults(backup), None)


def _faults(backup: "Backup") -> Iterator[str]:
    if not is_id(backup.id):
        yield f"its id has not the form of one: {backup.id!r:.80}"
    if not 0 < backup.seq < LARGEST_NUMBER:
        yield "its number is impossible"
    if len(backup.project) > LONGEST_WORD or "\0" in backup.project:
        yield "the name of its project is impossible"
    for what, moment in (("created", backup.created), ("pinned_until", backup.pinned_until)):
        if moment is not None and not is_moment(moment):
            yield f"{what} is no time: {moment!r:.80}"
    names = [record.name for record in backup.volumes]
    if len(set(names)) != len(names):
        yield "it names a volume twice"
    files = [artifact.file for record in backup.volumes for artifact in record.artifacts]
    if len(files) > MOST_FILES:
        yield f"it names more than {MOST_FILES} files"
    if (twice := find_collision(files)) is not None:
        yield f"it names a file twice: {twice!r}"
    for record in backup.volumes:
        yield from _faults_of_volume(record)
    if len(backup.omitted) > MOST_FILES:
        yield f"it names more than {MOST_FILES} things that it does not hold"
    for omission in backup.omitted:
        yield from _faults_of_omission(omission, names)


def _faults_of_volume(record: "VolumeRecord") -> Iterator[str]:
    if not _is_location(record):
        yield f"{record.name!r:.80} is no name of a {record.location}"
    if not _DRIVER.fullmatch(record.driver):
        yield f"volume {record.name}: {record.driver!r:.80} is no name of a driver"
    if record.tier not in TIER_NAMES:
        yield f"volume {record.name}: {record.tier!r:.80} is no tier"
    for what, pairs in (("option", record.options), ("label", record.labels)):
        for name, value in pairs.items():
            if not is_pair(name, value):
                yield f"volume {record.name}: {name!r:.80} is no {what}"
    for user in record.users:
        yield from _faults_of_user(record.name, user)
    for artifact in record.artifacts:
        yield from _faults_of_file(record, artifact)
    if record.statistics is not None:
        yield from _faults_of_server(record.name, record.statistics)
    for database in (
        *record.sqlite,
        *(record.statistics.databases if record.statistics is not None else ()),
    ):
        counts = (database.bytes, database.large_objects, *(t.rows for t in database.tables))
        if not all(0 <= count < LARGEST_NUMBER for count in counts):
            yield f"volume {record.name}: a count of database {database.name!r:.80} is impossible"


def _is_location(record: "VolumeRecord") -> bool:
    """Return whether the name of a record is that of its kind of location, as it says."""
    name = record.name
    if record.location in ("folder", "file"):
        plain = name == f"{FOLDER}{PurePosixPath(name[1:])}"  # without `//`, `.` and a last slash
        return name.startswith(FOLDER) and name != FOLDER and _is_below(name[1:]) and plain
    if record.location == "layer":
        return name.startswith(LAYER) and bool(CONTAINER_NAME.fullmatch(name.removeprefix(LAYER)))
    return record.location == "volume" and VOLUME_NAME.fullmatch(name) is not None


def _faults_of_omission(omission: "Omission", held: Collection[str]) -> Iterator[str]:
    # The name is only shown: a compose file may declare a volume by a name that docker never takes.
    if omission.kind not in ("volume", "folder", "layer", "database"):
        yield f"it lacks something of a kind that nobody knows: {omission.kind!r:.80}"
    if omission.kind == "volume" and omission.name in held:
        yield f"it says that it holds volume {omission.name}, and that it does not"
    if omission.tier and omission.tier not in TIER_NAMES:
        yield f"{omission.name!r:.80}: {omission.tier!r:.80} is no tier"
    if any(
        "\0" in text or len(text) > LONGEST_WORD
        for text in (omission.name, omission.reason, omission.next_step)
    ):
        yield f"why it does not hold {omission.name!r:.80} does not read"


def _faults_of_user(volume: str, user: Mapping[str, str]) -> Iterator[str]:
    forms = (
        ("container", CONTAINER_NAME),
        ("service", _SERVICE),
        ("image", _REFERENCE),
        ("image_id", _IMAGE_ID),
    )
    for key, form in forms:
        if (value := user.get(key)) and not form.fullmatch(value):
            yield f"volume {volume}: {value!r:.80} is no {key.replace('_', ' ')}"
    place = user.get("destination")
    if place is not None and not (place.startswith("/") and _is_below(place.lstrip("/"))):
        yield f"volume {volume}: {place!r:.80} is no place in a container"
    if not _is_below(part := user.get("subpath", "")):
        yield f"volume {volume}: {part!r:.80} is no folder of a volume"


def _faults_of_file(record: "VolumeRecord", artifact: "Artifact") -> Iterator[str]:
    if not is_normal_path(artifact.file):
        yield (
            "its manifest names a file outside of its folder, or not in its normal form:"
            f" {artifact.file!r:.300}"
        )
    if artifact.volume != record.name:
        yield f"volume {record.name}: {artifact.file} is said to be of another volume"
    if artifact.kind not in _KINDS:
        yield (
            f"volume {record.name}: {artifact.file} is of a kind that nobody knows:"
            f" {artifact.kind!r:.80}"
        )
    if not (
        0 <= artifact.bytes < LARGEST_NUMBER and 0 <= artifact.uncompressed_bytes < LARGEST_NUMBER
    ):
        yield f"volume {record.name}: the size of {artifact.file} is impossible"
    if artifact.kind == "globals" and artifact.uncompressed_bytes > LARGEST_SCRIPT:
        yield f"volume {record.name}: {artifact.file} is larger than any script of accounts"
    if not _SHA256.fullmatch(artifact.sha256):
        yield f"volume {record.name}: the sha256 of {artifact.file} is none"
    yield from _faults_of_detail(record, artifact)


def _faults_of_detail(record: "VolumeRecord", artifact: "Artifact") -> Iterator[str]:
    detail = artifact.detail
    for key in _OWNERS:
        if detail.get(key) and not _OWNER.fullmatch(detail[key]):
            yield f"volume {record.name}: {artifact.file}: {key} is none"
    if artifact.kind == "sqlite" and not ({"path", "owner"} <= detail.keys() and detail["owner"]):
        yield f"volume {record.name}: {artifact.file} does not say where it belongs"
    for key in ("path", "pgdata"):
        if not _is_below(unquote(detail.get(key, ".") or ".", errors="surrogateescape")):
            yield (
                f"volume {record.name}: {artifact.file}: it leads out of the volume:"
                f" {detail[key]!r:.80}"
            )
    if (artifact.kind == "base" or "folders" in detail) and not _is_list_of_owners(
        detail.get("folders", "")
    ):
        yield f"volume {record.name}: {artifact.file}: its folders do not read"


def _faults_of_server(volume: str, server: "ServerStatistics") -> Iterator[str]:
    for name, value in server.settings.items():
        if not _SETTING.fullmatch(name) or "\0" in value or "\n" in value:
            yield f"volume {volume}: {name!r:.80} is no setting of a database server"
        if name in _INSIDE_THE_VOLUME and not _is_below(value):
            yield f"volume {volume}: {name} leads out of the volume: {value!r:.80}"
    if server.settings.get("server", _PROGRAMS[0]) not in _PROGRAMS:
        yield f"volume {volume}: {server.settings['server']!r:.80} is no server"
    if any(
        "\0" in text or "\n" in text for text in (server.user, server.pgdata)
    ) or ".." in server.pgdata.split("/"):
        yield f"volume {volume}: what it says of its server is impossible"


def _is_below(path: str) -> bool:
    return (
        not path.startswith("/")
        and ".." not in path.split("/")
        and "\0" not in path
        and len(path) <= LONGEST_WORD
    )


def _is_list_of_owners(text: str) -> bool:
    """Return whether the text is `[[uid, gid, mode], ...]`, as `databases.owners` writes it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(found, list)
        and len(found) <= LONGEST_WORD
        and all(
            isinstance(f, list)
            and len(f) == 3
            and all(type(n) is int and 0 <= n < 1 << 32 for n in f)
            for f in found
        )
    )
