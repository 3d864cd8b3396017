"""A volume, folder or file on an engine: helper containers for it, and its single entries.

The entries are the content of a small file, the entry at a path, and files by name. Our own helper
program reads them. Where it cannot run, the engine's archive API does, which follows symbolic links
within the location.
"""

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from safe_compose.core.observed import FOLDER, describe_location
from safe_compose.engine import Engine
from safe_compose.engine.client_stream import HelperFailed, Stream
from safe_compose.engine.helper_args import Helper
from safe_compose.engine.helper_image import CHANGES, READS, UNPACKS, NoOwnImage
from safe_compose.errors import OperationFailed
from safe_compose.system.files import find_real_path
from safe_compose.volumes.gzip_stream import read_blocks
from safe_compose.volumes.helper_program import MOUNT
from safe_compose.volumes.tar import BadTar, Member, read_list

SECONDS = 60.0
"""Time limit of one inspection; a volume of millions of files is not searched to its end."""
_MOST = 1000
"""Largest number of paths that a search returns."""
CHANGED, MISSING = 3, 10
"""Exit codes of our helper program for: done, but something changed meanwhile; and: no such file.
"""


@dataclass(frozen=True, slots=True)
class EngineLocation:
    """A volume, folder or file that our own helper program reads and changes in containers."""

    engine: Engine
    name: str
    is_file: bool = False
    """Whether it is a single file of the host, which is seen in the folder that it lies in."""

    @property
    def mounted(self) -> str:
        """What helpers mount: the volume, or the folder; that in which a single file lies."""
        return str(PurePosixPath(self.name).parent) if self.is_file else self.name

    @property
    def only(self) -> tuple[str, ...]:
        """The option that makes our helper program see nothing but a single file."""
        return (f"--only={PurePosixPath(self.name).name}",) if self.is_file else ()

    def require_in_place(self) -> None:
        """Check that no link has come into the path of a folder or file, as far as seen from here.

        Every helper mounts the path anew, and the engine follows links: after a folder on the way
        was replaced by one, a helper would read or change another folder.

        Raises:
            OperationFailed: The path leads elsewhere now.
        """
        if not (self.name.startswith(FOLDER) and self.engine.docker.connection.shares_paths):
            return
        if (real := find_real_path(self.name)) != self.name:
            raise OperationFailed(
                f"{describe_location(self.name)} was replaced meanwhile by a link, and its path"
                f" leads to {real} now",
                next_step="put the folder back in its place, or run the command again",
            )

    def read_only_helper(self, *argv: str) -> Helper:
        """Describe a helper container that sees the location and cannot change it."""
        return self.engine.helpers.own(
            *argv, volumes=((self.mounted, MOUNT, True),), capabilities=READS
        )

    def changing_helper(self, *argv: str) -> Helper:
        """Describe a helper container that changes the location."""
        return self.engine.helpers.own(
            *argv, volumes=((self.mounted, MOUNT, False),), capabilities=CHANGES
        )

    def unpacking_helper(self, *argv: str, piped: tuple[str, ...] = ()) -> Helper:
        """Describe a helper container that unpacks into the location."""
        return self.engine.helpers.own(
            "unpack",
            *argv,
            piped=piped,
            volumes=((self.mounted, MOUNT, False),),
            capabilities=UNPACKS,
        )

    def read(self, path: str, *, limit: int) -> bytes | None:
        """Return the bytes of a regular file.

        Returns:
            None if there is no such file, or it has more than `limit` bytes.

        Raises:
            OperationFailed: The location cannot be read.
        """
        try:
            helper = self.read_only_helper("cat", MOUNT, path)
        except NoOwnImage:
            return self.engine.archives.read_file(self.mounted, path, limit)
        data = b""
        try:
            with self.engine.helpers.stream(helper) as opened, ending_after(SECONDS, opened):
                data = opened.stdout.read(limit + 1)
                if len(data) > limit:
                    opened.abort()
        except HelperFailed as error:
            if error.returncode == MISSING or len(data) > limit:
                return None
            raise
        return data if len(data) <= limit else None

    def read_head(self, path: str, size: int) -> bytes:
        """Return the first bytes of a regular file, at most `size`.

        Raises:
            OperationFailed: The file cannot be read.
            NoOwnImage: Our own helper program does not run on this engine.
        """
        head = b""
        try:
            with (
                self.engine.helpers.stream(self.read_only_helper("cat", MOUNT, path)) as opened,
                ending_after(SECONDS, opened),
            ):
                head = opened.stdout.read(size)
                opened.abort()
        except HelperFailed:
            if len(head) < size:
                raise
        return head

    def look(self, paths: Sequence[str]) -> dict[str, Member]:
        """Return the entry at each of the paths; missing ones are left out.

        Raises:
            OperationFailed: The location cannot be read.
            NoOwnImage: Our own helper program does not run on this engine.
        """
        helper = self.read_only_helper("stat", MOUNT, *paths)
        answers = self.engine.helpers.run(helper, timeout=SECONDS).split(b"\0")[:-1]
        if len(answers) != len(paths):
            raise OperationFailed(
                f"{describe_location(self.name)}:"
                f" there were {len(answers)} answers to {len(paths)} questions"
                " about it"
            )
        found = {}
        for path, record in zip(paths, answers, strict=True):
            if not record.startswith(b"- "):
                [found[path]] = read_list([record + b"\0"])
        return found

    def is_there(self, path: str) -> bool:
        """Return whether the location has a path.

        Raises:
            OperationFailed: The location cannot be read.
        """
        try:
            return bool(self.look([path]))
        except NoOwnImage:
            return bool(self.engine.archives.list_existing(self.mounted, [path]))

    def find(self, names: Collection[str], *, depth: int) -> list[str]:
        """Return the paths of entries with one of these names, the shortest paths first.

        The search goes at most `depth` levels below the root. Where our own helper program cannot
        run, only the root and its folders are searched.

        Raises:
            OperationFailed: The location cannot be read.
        """
        try:
            helper = self.read_only_helper("list", *self.only, MOUNT)
        except NoOwnImage:
            folders = [
                "",
                *(f"{name}/" for name in (self.engine.archives.list_root(self.name) or ())[:200]),
            ]
            return self.engine.archives.list_existing(
                self.mounted, [folder + name for folder in folders for name in names]
            )
        found: list[str] = []
        try:
            with self.engine.helpers.stream(helper) as opened, ending_after(SECONDS, opened):
                for member in read_list(read_blocks(opened.stdout)):
                    path = member.path.decode("utf-8", "surrogateescape")
                    if (
                        path.count("/") < depth
                        and PurePosixPath(path).name in names
                        and len(found) < _MOST
                    ):
                        found.append(path)
        except BadTar as error:
            raise OperationFailed(
                f"{describe_location(self.name)}: it was not listed to its end: {error}"
            ) from error
        except HelperFailed as error:
            if error.returncode != CHANGED:
                raise
        return sorted(found, key=lambda path: (path.count("/"), path))


@contextmanager
def ending_after(seconds: float, opened: Stream) -> Iterator[None]:
    """Kill a helper that still runs after `seconds`; leaving its own block raises then."""
    timer = threading.Timer(seconds, opened.abort)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
