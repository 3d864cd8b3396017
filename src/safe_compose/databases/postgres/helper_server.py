"""A PostgreSQL server of ours on a volume, without a network or other needs of the service.

On existing data only the server program of the service's image runs, as the owner of the files. The
image's entrypoint is used to make a new cluster, or if the program cannot be found without it.
"""

import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from safe_compose.core.backup import POSTGRES_SETTINGS, VolumeRecord
from safe_compose.core.initdb import initdb_arguments
from safe_compose.core.observed import INIT_FOLDERS, describe_location
from safe_compose.databases import owners
from safe_compose.databases.data_location import DataLocation, read_location
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.entrypoints import make_start_script
from safe_compose.databases.postgres.client import PostgresClient, naming_client_fault
from safe_compose.databases.postgres.control_data import read_limits_left
from safe_compose.databases.postgres.discover import locate
from safe_compose.databases.postgres.helper_settings import (
    HBA_FILE,
    STANDBY_LIMITS,
    WRITES_HBA,
    blames_data,
    options,
)
from safe_compose.databases.postgres.server_facts import add_version, parse_major
from safe_compose.databases.trials import TrialSkipped, read_last_log, start_first
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.engine.helper_image import NoOwnImage
from safe_compose.errors import VerificationFailed
from safe_compose.volumes.engine_location import EngineLocation

READY_SECONDS = 120.0
"""Time limit for a server of ours until its first connection; recovery of a crashed copy and initdb
are included.
"""
_STANDBY = ("standby.signal", "recovery.conf")
"""Files in a data directory that follows another server (the second before release 12)."""


@dataclass(frozen=True, slots=True)
class PostgresLocation(DataLocation):
    """The location of a PostgreSQL server's data, and the settings that the data needs."""

    settings: Mapping[str, str]
    """Settings that the data itself needs."""

    @property
    def needs(self) -> dict[str, str]:
        """The entries of `settings` that may come from a backup, which anybody may have written."""
        return {name: self.settings[name] for name in POSTGRES_SETTINGS if name in self.settings}

    @property
    def options(self) -> tuple[str, ...]:
        """`needs` as options for a command line."""
        return tuple(
            word for name, value in self.needs.items() for word in ("-c", f"{name}={value}")
        )

    @classmethod
    def of(cls, record: VolumeRecord, image: str) -> "PostgresLocation":
        """Return the location that a backup recorded.

        `image` decides if several containers had the data.

        Raises:
            VerificationFailed: The record names no location.
        """
        at = read_location(record, image)
        settings = record.statistics.settings if record.statistics else {}
        return cls(
            at.image, at.destination, at.directory, settings, owners=at.owners, subpath=at.subpath
        )


@dataclass(frozen=True, slots=True)
class PostgresHelper:
    """A server of ours on a volume, described before it is started."""

    place: PostgresLocation
    location: EngineLocation
    subject: str
    """The name of the volume in faults."""

    @contextmanager
    def serving(self, user: str, *, fresh: bool = False) -> Iterator[PostgresClient]:
        """Start a server of ours on a volume, and yield a client once it answers.

        With `fresh` the volume is empty, and a cluster is made first, without the image's init
        scripts. The container is removed after the block.

        Raises:
            VerificationFailed: The server dies because of the data, or does not answer in time.
            TrialSkipped: The server cannot run here for another reason.
        """
        with naming_client_fault(self.subject, "start a server on it"), ExitStack() as started:
            helpers = [self._describe_fresh(user)] if fresh else self._describe_copies()
            starts = [partial(self._serve, helper, user, fresh) for helper in helpers]
            yield start_first(started, starts)

    def _serve(self, helper: Helper, user: str, fresh: bool, started: ExitStack) -> PostgresClient:
        """Start a server and return a client of it, once it answers.

        Raises:
            VerificationFailed: It dies because of the data, or does not answer in time.
            TrialSkipped: It cannot run here for another reason.
        """
        try:
            container_id = started.enter_context(self.location.engine.helpers.serve(helper))
            return self._wait_ready(container_id, user, fresh=fresh, bare=helper.user is not None)
        except HelperFailed as error:
            if error.returncode not in (126, 127):
                raise
            raise TrialSkipped(
                f"{describe_location(self.subject)}: its image has no program to start:"
                f" {error.message}"
            ) from error

    def _describe_fresh(self, user: str) -> Helper:
        """Describe a container in which the official entrypoint makes a cluster and then serves it.

        It is the image's own entrypoint where there is no official one. Files that an image names
        for its secrets are not available here, nor is another place for its log of transactions.
        """
        image = self.location.engine.docker.image(self.place.image)
        owners.make_mounted_folders(self.location, self.place, image)
        environment = {
            "POSTGRES_USER": user,
            "POSTGRES_PASSWORD": secrets.token_urlsafe(24),
            "POSTGRES_DB": "postgres",
        }
        environment |= {f"{name}_FILE": "" for name in environment}
        environment["POSTGRES_INITDB_WALDIR"] = ""
        if arguments := initdb_arguments(self.place.settings):
            environment["POSTGRES_INITDB_ARGS"] = arguments
        start = make_start_script(image, ("postgres",), "postgres")
        words = ("sh", "-c", start, "sh", *options(self.place.needs, self._major(), fresh=True))
        return _helper(self.place, self.location.name, words, environment, as_owner=None)

    def _describe_copies(self) -> list[Helper]:
        """Describe servers on existing data that are tried in turn.

        The first uses the data's own settings files; the second does not, since they may include
        files of other mounts; the third also loads no libraries, which may be on such mounts; the
        last uses the image's entrypoint.
        """
        owner, standby = self._read_owner_and_limits()
        major = self._major()
        own = options(self.place.needs, major, fresh=False, standby=standby)
        none = ("-c", "config_file=/dev/null")
        bare = [own, (*none, *own)]
        if self.place.needs.get("shared_preload_libraries"):
            without = options(
                {**self.place.needs, "shared_preload_libraries": ""},
                major,
                fresh=False,
                standby=standby,
            )
            bare.append((*none, *without))
        program = (
            "postgres",
            "-D",
            self.place.directory,
            "-c",
            f"data_directory={self.place.directory}",
        )
        helpers = (
            [
                _helper(self.place, self.location.name, (*program, *words), {}, as_owner=owner)
                for words in bare
            ]
            if owner is not None
            else []
        )
        return [
            *helpers,
            _helper(self.place, self.location.name, (*self._entrypoint(), *own), {}, as_owner=None),
        ]

    def _entrypoint(self) -> tuple[str, ...]:
        image = self.location.engine.docker.image(self.place.image)
        return (*image.entrypoint, *(image.cmd or ("postgres",))) if image else ("postgres",)

    def _major(self) -> int:
        image = self.location.engine.docker.image(self.place.image)
        return parse_major(image.environment.get("PG_MAJOR", "")) if image is not None else 0

    def _read_owner_and_limits(self) -> tuple[str | None, dict[str, str] | None]:
        """Return owner and group of the data directory (None if unknown), and a standby's limits.

        The limits are None if the data is no standby's.

        Raises:
            VerificationFailed: There is no data directory.
        """
        paths = [str(PurePosixPath(self.place.inside, name)) for name in ("PG_VERSION", *_STANDBY)]
        try:
            found = self.location.look(paths)
        except NoOwnImage:
            return None, None
        version = found.get(paths[0])
        if version is None:
            raise VerificationFailed(
                f"{describe_location(self.subject)}:"
                f" there is no data directory of PostgreSQL in what was"
                " restored"
            )
        owner = f"{version.uid}:{version.gid}" if version.uid else None
        if not any(path in found for path in paths[1:]):
            return owner, None
        limits = read_limits_left(self.location, self.place.inside)
        return owner, {name: limits[name] for name in STANDBY_LIMITS if name in limits}

    def _wait_ready(
        self, container_id: str, user: str, *, fresh: bool, bare: bool
    ) -> PostgresClient:
        """Wait for the final server and return a client of it.

        While a cluster is made, a temporary server listens on the socket, never on TCP.

        Raises:
            VerificationFailed: The server died because of the data, or did not answer on existing
                data.
            TrialSkipped: The server died or is silent, for a reason that says nothing about the
                data.
        """
        until = time.monotonic() + READY_SECONDS
        while True:
            container = self.location.engine.docker.container(container_id)
            if container is None or container.state != "running":
                log = read_last_log(self.location.engine, container_id)
                code = container.exit_code if container is not None else 0
                if fresh or not blames_data(log, code, bare=bare):
                    raise TrialSkipped(
                        f"{describe_location(self.subject)}:"
                        f" no server of ours runs here ({code}): {log}",
                        next_step="look at the lines above; they say nothing against the backup",
                    )
                raise VerificationFailed(
                    f"{describe_location(self.subject)}:"
                    f" the server that was started on it died: {log}",
                    next_step="look at the lines above; the backup itself is kept",
                )
            client = locate(EngineContainer(self.location.engine, container), user)
            host = "127.0.0.1" if fresh else client.socket
            try:
                self.location.engine.helpers.execute(
                    container_id,
                    ("pg_isready", "--quiet", f"--host={host}", f"--port={client.port}"),
                    timeout=30,
                )
            except HelperFailed as error:
                if time.monotonic() > until:
                    fault_of = TrialSkipped if fresh else VerificationFailed
                    raise fault_of(
                        f"{describe_location(self.subject)}:"
                        f" the server that was started on it did not answer"
                        f" within {READY_SECONDS:.0f} s:"
                        f" {read_last_log(self.location.engine, container_id)}"
                    ) from error
                # Between two questions; the loop has a time limit, and a dead server is detected
                # above.
                time.sleep(0.2)
            else:
                return add_version(client)


def _helper(
    place: PostgresLocation,
    volume: str,
    words: tuple[str, ...],
    environment: Mapping[str, str],
    *,
    as_owner: str | None,
) -> Helper:
    return Helper(
        image=place.image,
        argv=("sh", "-c", WRITES_HBA, HBA_FILE, *words),
        volumes=((volume, place.destination, False),),
        subpath=place.subpath,
        tmpfs=INIT_FOLDERS if as_owner is None else ("/tmp",),
        environment={"PGDATA": place.directory, **environment},
        user=as_owner,
        capabilities=("default",) if as_owner is None else (),
    )
