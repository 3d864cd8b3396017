"""The changes of containers in their own layers, as the engine lists them.

The engine walks a whole layer for its list, and holds the container's lock meanwhile (moby
daemon/changes.go). So every question here has an end.
"""

import base64
import binascii
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from safe_compose.engine.docker import Daemon
from safe_compose.engine.errors import changing, inspecting, read_message
from safe_compose.engine.http import read_json
from safe_compose.engine.volume_entries import read_chunks
from safe_compose.errors import OperationFailed
from safe_compose.fastpath.inspect import Queries
from safe_compose.fastpath.layers import read_changed

LARGEST = 32 << 20
"""Bytes of one list of changes; some 400,000 files."""
_DELETED = 2
_NOT_REGULAR = 0x8F280000
"""Go's `fs.ModeType`: the bits of folders, links, pipes, sockets, devices and irregular files."""
_FOLDER, _LINK = 1 << 31, 1 << 27
_SHORTEST = 0.001
_ANSWER_SECONDS = 60.0


class Changes(NamedTuple):
    """The paths that a container added or changed, folders included."""

    paths: tuple[str, ...] = ()
    whole: bool = True
    """False: the engine did not list all of them in time, or the list is longer than is read."""


class Layers:
    """The layers of the containers on a daemon."""

    def __init__(self, docker: Daemon) -> None:
        """Ask this daemon."""
        self._docker = docker

    def list_changes(self, containers: Sequence[str], until: float) -> list[Changes]:
        """Return the changes of each container; none of one that is gone or cannot be asked.

        Args:
            containers: The ids.
            until: The `time.monotonic()` at which the answers are no longer waited for.
        """
        found = self._docker.connection
        socket = found.address.removeprefix("unix://")
        queries = Queries(socket, _measure_time_left(until), LARGEST)
        base = f"/v{found.reader.version}/containers"
        answers = queries.get_all([f"{base}/{quote(one, safe='')}/changes" for one in containers])
        return [_parse(body, whole=whole) for body, whole in answers]

    def holds_file(self, container_id: str, path: str, until: float) -> bool | None:
        """Return whether a path is a file with content, or a link; None where that is unknown.

        Args:
            container_id: The container.
            path: The absolute path.
            until: As for `list_changes`.
        """
        from requests.exceptions import RequestException

        try:
            stat = self._stat(container_id, path, _measure_time_left(until))
        except RequestException:
            return None
        if stat is None:
            return None
        kind = stat[0] & _NOT_REGULAR
        return kind == _LINK or (kind == 0 and stat[1] > 0)

    def describe(self, container_id: str, path: str) -> str:
        """Return size, mode and time of a path in a container, encoded; empty where nothing is."""
        with inspecting():
            api = self._docker.connection.api
            answer = api.head(
                self._url(container_id), params={"path": path}, timeout=_ANSWER_SECONDS
            )
        return str(answer.headers.get("X-Docker-Container-Path-Stat", ""))

    def read_time(self, container_id: str, path: str) -> float | None:
        """Return when a path in a container was modified, in seconds since the epoch.

        Returns:
            0 where nothing is; None where it cannot be told.
        """
        with inspecting():
            api = self._docker.connection.api
            answer = api.head(
                self._url(container_id), params={"path": path}, timeout=_ANSWER_SECONDS
            )
        if answer.status_code == 404:
            return 0
        return _parse_time(answer.headers.get("X-Docker-Container-Path-Stat", ""))

    def is_folder(self, container_id: str, path: str) -> bool:
        """Return whether a path in a container is a folder, and not a link to one."""
        with inspecting():
            stat = self._stat(container_id, path, _ANSWER_SECONDS)
        return stat is not None and stat[0] & _NOT_REGULAR == _FOLDER

    @contextmanager
    def read(self, container_id: str, path: str) -> Iterator[Iterator[bytes]]:
        """Yield a path of a container as a tar stream; its members begin with the path's last part.

        Raises:
            OperationFailed: The engine does not read it.
        """
        with inspecting():
            api = self._docker.connection.api
            answer = api.get(
                self._url(container_id), params={"path": path}, stream=True, timeout=_ANSWER_SECONDS
            )
        with answer:
            if not answer.ok:
                raise OperationFailed(
                    f"docker could not read {path!r} in the container: {read_message(answer)}"
                )
            yield read_chunks(answer)

    def write(self, container_id: str, chunks: Iterable[bytes]) -> None:
        """Unpack a tar stream at the root of a container.

        No folder takes the place of something else, and nothing else that of a folder: the engine
        would delete what is there first.

        Raises:
            OperationFailed: The engine does not unpack it; a part of it may be there.
        """
        with changing("unpack an archive into the container"):
            api = self._docker.connection.api
            params = {"path": "/", "noOverwriteDirNonDir": "1"}
            answer = api.put(
                self._url(container_id), params=params, data=iter(chunks), timeout=None
            )
            if not answer.ok:
                raise OperationFailed(
                    f"docker could not unpack an archive into the container: {read_message(answer)}"
                )

    def _url(self, container_id: str) -> str:
        api = self._docker.connection.api
        return f"{api.base_url}/v{api.api_version}/containers/{quote(container_id)}/archive"

    def _stat(self, container_id: str, path: str, seconds: float) -> tuple[int, int] | None:
        """Return (mode, size) of a path, (0, 0) where nothing is; None for another answer."""
        api = self._docker.connection.api
        answer = api.head(self._url(container_id), params={"path": path}, timeout=seconds)
        if answer.status_code == 404:
            return 0, 0
        return _parse_stat(answer.headers.get("X-Docker-Container-Path-Stat", ""))


def _measure_time_left(until: float) -> float:
    return max(until - time.monotonic(), _SHORTEST)


def _parse(body: bytes, *, whole: bool) -> Changes:
    """Return the changes that the engine lists; those before the end of a list that breaks off."""
    if not whole:
        return Changes(tuple(read_changed(body)), whole=False)
    if not body:
        return Changes()
    try:
        return Changes(tuple(_list_paths(read_json(body))))
    except (ValueError, TypeError, RecursionError):
        return Changes(whole=False)


def _list_paths(listed: Any) -> list[str]:
    """Return the paths of a list of changes that a container can have, without deleted ones."""
    if not isinstance(listed, list | None):
        raise TypeError("no list")
    return [
        entry["Path"]
        for entry in listed or ()
        if isinstance(entry, dict)
        and isinstance(entry.get("Path"), str)
        and entry["Path"].startswith("/")
        and entry.get("Kind") != _DELETED
    ]


def _parse_stat(header: str) -> tuple[int, int] | None:
    """Return (mode, size) of a path, as the engine encodes them; None for another header."""
    try:
        stat = json.loads(base64.b64decode(header, validate=True))
        return int(stat["mode"]), int(stat["size"])
    except (binascii.Error, ValueError, LookupError, TypeError, RecursionError, OverflowError):
        return None


def _parse_time(header: str) -> float | None:
    """Return the time of a path, as the engine encodes it; None for another header."""
    try:
        stat = json.loads(base64.b64decode(header, validate=True))
        return datetime.fromisoformat(stat["mtime"]).timestamp()
    except (binascii.Error, ValueError, LookupError, TypeError, RecursionError, OverflowError):
        return None
