"""The content of volumes as tar streams of the archive API.

No process reads or writes it.

The containers are created from our own image and never started. An image may hold a link where the
volume is to be mounted: the engine then mounts it at the link's target and archives the link, so
that every volume would look empty. So no other image is ever used, and a folder counts as read only
if the engine says that it read the folder itself.
"""

import posixpath
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from safe_compose.core.observed import FOLDER, Container, Volume, describe_location
from safe_compose.engine import full_disk, tar_top
from safe_compose.engine.errors import changing, inspecting, read_message
from safe_compose.engine.helper_args import make_mount
from safe_compose.engine.helper_containers import PARKED_AT, Helpers
from safe_compose.engine.helper_image import NoOwnImage
from safe_compose.engine.volume_entries import STAT, Chunks, Entries, is_folder, read_chunks
from safe_compose.errors import OperationFailed, SafeComposeError, StateChanged

ROOTS_AT_ONCE = 64
"""Most volumes that one container is created for when the roots of many are listed."""
ROOT_LISTING_LIMIT = 8 * 1024 * 1024
"""Most bytes of a volume's archive that are read to list its root."""
_ENTRY_SECONDS = 60.0
"""Seconds that the engine may take for one file, or for one look at an entry."""

_RELEASE_SECONDS = 30.0
"""Seconds that a mount may still take before docker deletes the volume."""


class Archives:
    """The volumes of a daemon, read and filled through containers that are never started."""

    def __init__(self, helpers: Helpers) -> None:
        """Use the daemon of `helpers`."""
        self.docker = helpers.docker
        self.helpers = helpers
        self._mounting: dict[str, threading.Thread] = {}
        """Volume -> what still waits for the engine to mount it."""

    def why_unseen(self) -> str | None:
        """Explain why no volume can be examined here; None where that is possible."""
        try:
            self.helpers.images.reach_image()
        except NoOwnImage as error:
            return error.message
        return None

    @contextmanager
    def stream(self, location: str) -> Iterator[Iterator[bytes]]:
        """Yield the location as a tar stream with members `volume/...`, through the archive API.

        This works without our own program, but loses user.* xattrs, fractions of seconds, sockets
        and sparseness (lab.md, section 3).

        Raises:
            OperationFailed: The location cannot be read.
        """
        with (
            self._reaching(location) as (container_id, path),
            self._receiving_archive(container_id, path) as chunks,
        ):
            yield chunks

    def require_readable(self, locations: Iterable[str]) -> None:
        """Check that the engine reads these locations, before anything is stopped to archive them.

        Without one free block it may not: to read from a container, an engine makes folders in the
        container's own layer. It could not start that container again either (28.5.2, run).

        Raises:
            OperationFailed: It does not read one of them.
        """
        for location in locations:
            try:
                with self.stream(location):
                    pass
            except OperationFailed as fault:
                raise OperationFailed(
                    f"{describe_location(location)} cannot be archived, so nothing was stopped:"
                    f" {fault.message}",
                    next_step=fault.next_step or self.docker.advise_on_full_disk(),
                ) from fault

    def unpack(self, location: str, chunks: Iterable[bytes]) -> None:
        """Unpack a tar stream with members `volume/...` into a location.

        Use a fresh volume, since a stream that breaks leaves parts. It is unpacked at `/`, because
        at `/volume` the root folder would lose its owner and mode (lab.md, section 3, run).

        Raises:
            OperationFailed: docker could not unpack it.
        """
        with (
            self.helpers.parking(location, read_only=False) as container_id,
            changing(f"unpack an archive into {describe_location(location)}"),
        ):
            api = self.docker.connection.api
            url = f"{api.base_url}/v{api.api_version}/containers/{container_id}/archive"
            # no limit on the time between two chunks: the daemon answers when the last one is on
            # its disk
            answer = api.put(url, params={"path": "/"}, data=iter(chunks), timeout=None)
            if not answer.ok:
                raise OperationFailed(
                    f"docker could not unpack an archive into {describe_location(location)}:"
                    f" {read_message(answer)}"
                )

    def list_root(self, location: str) -> list[str] | None:
        """Return the names at the location's root, or None when it could not be read.

        An empty list is certain: there is nothing. A long list may be cut off (only the first 8 MiB
        of its archive are read). None also when the engine does not take our image.
        """
        try:
            if not self._is_there(location):
                return None
            with self._reaching(location) as (container_id, path):
                names, whole = self._names_below(container_id, 1, path)
        except SafeComposeError:
            return None
        found = names.get("")
        # without an end of the archive, emptiness is not certain
        return found if whole or found else None

    def list_roots(self, locations: Sequence[str]) -> dict[str, list[str] | None]:
        """Return location -> names at its root, as `list_root` returns them.

        One container and one archive serve all that are empty or small, so that a hundred take no
        longer than a few.
        """
        found: dict[str, list[str] | None] = dict.fromkeys(locations)
        left = list(locations)
        while left:
            some, left = left[:ROOTS_AT_ONCE], left[ROOTS_AT_ONCE:]
            if len(some) == 1:
                found[some[0]] = self.list_root(some[0])
                continue
            listed = self._roots(some)
            found |= listed
            unseen = [name for name in some if name not in listed]
            if len(unseen) == len(some):
                found |= {name: self.list_root(name) for name in some}
            else:
                left = unseen + left
        return found

    def _is_there(self, location: str) -> bool:
        # a folder that is not there is refused when it is mounted; a volume would be created
        return location.startswith(FOLDER) or self.docker.volume(location) is not None

    def _roots(self, locations: Sequence[str]) -> dict[str, list[str] | None]:
        """Return the roots that precede the limit in one archive of all locations.

        They are empty when there is no archive.
        """
        try:
            gone = {name: None for name in locations if not self._is_there(name)}
            there = [name for name in locations if name not in gone]
            if not there:
                return dict(gone)
            mounts = [
                make_mount(name, f"{PARKED_AT}/{number:03}", read_only=True)
                for number, name in enumerate(there)
            ]
            with self.helpers.creating(
                {}, mounts, f"to reach {len(there)} volumes"
            ) as container_id:
                names, whole = self._names_below(container_id, 2)
        except SafeComposeError:
            return {}
        # The archive is sorted by name: all folders before the last one seen were read to their
        # end.
        numbers = {f"{number:03}": name for number, name in enumerate(there)}
        known = (
            len(there)
            if whole
            else max((number for number, at in enumerate(numbers) if at in names), default=0)
        )
        if not known:
            return gone | {there[0]: self.list_root(there[0])}
        return gone | {name: names.get(at) for at, name in list(numbers.items())[:known]}

    def _names_below(
        self, container_id: str, depth: int, path: str = PARKED_AT
    ) -> tuple[dict[str, list[str]], bool]:
        """Return the names at a depth of an archive, by folder, and whether its end was seen.

        A folder without entries has no names.

        Raises:
            OperationFailed: The archive has something else than folders above that depth.
        """
        names: dict[str, dict[str, None]] = {}
        whole = False
        with self._receiving_archive(container_id, path) as chunks:
            source = Chunks(chunks, ROOT_LISTING_LIMIT)
            try:
                with tarfile.open(fileobj=source, mode="r|", errorlevel=2) as archive:
                    for member in archive:
                        top, *parts = member.name.strip("/").split("/")
                        above = "/".join(parts[: depth - 1])
                        if f"/{top}" != PARKED_AT or (len(parts) < depth and not member.isdir()):
                            raise OperationFailed(
                                f"docker sent {member.name!r}, where a folder was asked for; it was"
                                " not read"
                            )
                        if len(parts) == depth - 1:
                            names[above] = {}
                        elif len(parts) >= depth:
                            names[above].setdefault(parts[depth - 1])
                    whole = source.ends_at(archive.offset)
            # KeyError: an entry below a folder that was not sent
            except (tarfile.TarError, OSError, KeyError):
                whole = False
        return {root: list(found) for root, found in names.items()}, whole

    def read_file(self, location: str, path: str, limit: int) -> bytes | None:
        """Return the bytes of one regular file of a location, or None.

        None where the path is no such file, or the file has more than `limit` bytes. The engine
        follows symbolic links on the way, within the volume and the image, which is empty.

        Raises:
            OperationFailed: The location cannot be read.
        """
        with self.entries([location], seconds=_ENTRY_SECONDS) as entries:
            return entries.file(location, path, limit)

    def list_existing(self, location: str, paths: Sequence[str]) -> list[str]:
        """Return those of the paths that exist in a location."""
        with self._reaching(location) as (container_id, root), inspecting():
            api = self.docker.connection.api
            url = f"{api.base_url}/v{api.api_version}/containers/{container_id}/archive"
            return [
                path
                for path in paths
                if api.head(url, params={"path": f"{root}/{path}"}, timeout=60).ok
            ]

    def explain_no_mount(self, volume: str, seconds: float) -> str | None:
        """Return the engine's reason why it cannot mount a volume, or `volume_reach.NO_ANSWER`.

        Returns:
            None where it can, or is not asked.

        A mount of a dead server takes minutes, and nothing can end it: after `seconds` it is left
        to itself. `require_released` waits for it.
        """
        from safe_compose.core.volume_reach import NO_ANSWER

        found: list[str | None] = []

        def ask() -> None:
            with (
                suppress(SafeComposeError),
                self.helpers.parking(volume, read_only=True) as container_id,
                inspecting(),
            ):
                api = self.docker.connection.api
                url = f"{api.base_url}/v{api.api_version}/containers/{container_id}/archive"
                with api.get(url, params={"path": PARKED_AT}, stream=True, timeout=60) as answer:
                    found.append(None if answer.ok else read_message(answer))

        if (asking := self._mounting.pop(volume, None)) is not None:
            asking.join(seconds)
        if asking is None or not asking.is_alive():
            asking = threading.Thread(target=ask, daemon=True)
            asking.start()
            asking.join(seconds)
        if asking.is_alive():
            self._mounting[volume] = asking
        return found[0] if found else NO_ANSWER if asking.is_alive() else None

    def require_released(self) -> None:
        """Wait until none of our containers holds a volume that the engine could not mount in time.

        docker deletes no volume that a container refers to.

        Raises:
            StateChanged: One still does after half a minute.
        """
        until = time.monotonic() + _RELEASE_SECONDS
        for volume, asking in self._mounting.items():
            asking.join(max(until - time.monotonic(), 0))
            if asking.is_alive():
                raise StateChanged(
                    f"the engine still tries to mount volume {volume}, and deletes it only after"
                    " that; nothing was deleted",
                    next_step="run the command again in a few minutes",
                )
        self._mounting.clear()

    def keeps_nothing_itself(self, volume: Volume) -> bool:
        """Return whether the engine's own folder of a local volume is certainly empty.

        What should be mounted there does not count.
        """
        try:
            if volume.mountpoint != f"{self.docker.volumes_folder()}/{volume.name}/_data":
                return False
            mount = make_mount(volume.mountpoint, PARKED_AT, read_only=True)
            with self.helpers.creating(
                {}, [mount], f"to look into {volume.mountpoint}"
            ) as container_id:
                names, whole = self._names_below(container_id, 1)
        except SafeComposeError:
            return False
        return whole and names == {"": []}

    @contextmanager
    def entries(self, volumes: Sequence[str], *, seconds: float) -> Iterator[Entries]:
        """Yield access to single entries of at most ROOTS_AT_ONCE existing volumes.

        It goes through one container that is created and never started, or through existing
        containers where the engine's disk is full. Requests later than `seconds` from now are
        refused.

        Raises:
            NoOwnImage: The engine does not take our image.
            OperationFailed: A volume cannot be reached.
        """
        until = time.monotonic() + seconds
        with ExitStack() as stack:
            if len(volumes) == 1 or self.docker.disk_is_full:
                places = {name: stack.enter_context(self._reaching(name)) for name in volumes}
            else:
                mounted = {name: f"{PARKED_AT}/{number:03}" for number, name in enumerate(volumes)}
                mounts = [make_mount(name, at, read_only=True) for name, at in mounted.items()]
                made = stack.enter_context(
                    self.helpers.creating({}, mounts, f"to reach {len(mounted)} volumes")
                )
                places = {name: (made, at) for name, at in mounted.items()}
            yield Entries(self.docker.connection.api, places, until)

    @contextmanager
    def _reaching(self, location: str) -> Iterator[tuple[str, str]]:
        """Yield a container that has the location, and its path in it.

        It is one of ours, created and never started. Where the engine's disk is too full for that,
        it is an existing one: the engine itself reads the mounted volume, and no program of the
        container's image runs.

        Raises:
            OperationFailed: There is no such container.
        """
        with ExitStack() as stack:
            found: tuple[str, str] | None = None
            if not self.docker.disk_is_full:
                try:
                    found = (
                        stack.enter_context(self.helpers.parking(location, read_only=True)),
                        PARKED_AT,
                    )
                except OperationFailed as fault:
                    if (
                        not full_disk.is_full(fault.message)
                        or (found := self._find_existing(location)) is None
                    ):
                        raise
            elif (found := self._find_existing(location)) is None:
                raise OperationFailed(
                    f"{describe_location(location)} cannot be read: {full_disk.FULL}, so no"
                    " container can be made for it, and none that exists has it",
                    next_step=self.docker.advise_on_full_disk(),
                )
            yield found

    def _find_existing(self, volume: str) -> tuple[str, str] | None:
        """Return a container that has the whole volume, and the path, or None.

        Nothing else is mounted below the path.
        """
        now = None if volume.startswith(FOLDER) else self.docker.volume(volume)
        if now is None:
            return None
        found = ((user.id, find_whole_mount(user, now)) for user in self.docker.users(volume))
        return next(((user, place) for user, place in found if place is not None), None)

    @contextmanager
    def _receiving_archive(
        self, container_id: str, path: str = PARKED_AT
    ) -> Iterator[Iterator[bytes]]:
        with inspecting():
            api = self.docker.connection.api
            url = f"{api.base_url}/v{api.api_version}/containers/{container_id}/archive"
            answer = api.get(url, params={"path": path}, stream=True, timeout=60)
        top = posixpath.basename(path)
        with answer:
            if not answer.ok:
                raise OperationFailed(f"docker could not read the volume: {read_message(answer)}")
            if not is_folder(answer.headers.get(STAT, ""), top):
                raise OperationFailed(
                    f"docker does not say that {path} is the folder of the volume; it was not read"
                )
            yield (
                read_chunks(answer) if path == PARKED_AT else _rename_top(read_chunks(answer), top)
            )


def _rename_top(chunks: Iterator[bytes], top: str) -> Iterator[bytes]:
    try:
        yield from tar_top.rename_top(chunks, top, PARKED_AT.strip("/"))
    except tar_top.BadStream as error:
        raise OperationFailed(f"docker did not send the whole volume: {error}") from error


def find_whole_mount(user: Container, volume: Volume) -> str | None:
    """Return the path at which a container has all of a volume, with nothing mounted below it.

    None where that is not certain. Only the container's own `HostConfig` shows a subpath; `Source`
    is the whole volume's all the same. Of a mount that was taken over from another container
    (`--volumes-from`) the subpath is unknown.
    """
    places = [posixpath.normpath(mount.destination) for mount in user.mounts]
    for mount, place in zip(user.mounts, places, strict=True):
        known = not mount.subpath and (mount.declared or volume.anonymous)
        whole = (
            known
            and mount.name == volume.name
            and mount.type == "volume"
            and mount.source in ("", volume.mountpoint)
        )
        if whole and place != "/" and not any(other.startswith(f"{place}/") for other in places):
            return place
    return None
