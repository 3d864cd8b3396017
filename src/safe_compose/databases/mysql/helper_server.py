"""A MySQL or MariaDB server of ours on a volume, without a network.

A fresh server is started by the image's entrypoint; on existing data the server program is started
directly, as the owner of the files.
"""

import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath

from safe_compose.core.backup import MYSQL_SETTINGS, VolumeRecord
from safe_compose.core.observed import INIT_FOLDERS, describe_location
from safe_compose.core.redaction import hide_secrets
from safe_compose.databases import owners
from safe_compose.databases.data_location import DataLocation, read_location
from safe_compose.databases.entrypoints import make_start_script
from safe_compose.databases.mysql.client import MysqlClient, naming_client_fault
from safe_compose.databases.mysql.discover import FOLDER, find_product
from safe_compose.databases.mysql.login import Login
from safe_compose.databases.protocol import understanding
from safe_compose.databases.trials import TrialSkipped, read_last_log, start_first
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.engine.helper_image import NoOwnImage
from safe_compose.errors import VerificationFailed
from safe_compose.volumes.engine_location import EngineLocation

READY_SECONDS = 180.0
"""Time limit for a server of ours until its first connection; recovery, and making a fresh data
directory, are included.
"""
_SOCKET = "/tmp/safe-compose.sock"  # path within a container of ours, on a tmpfs of its own
_QUIET = (
    "--event-scheduler=OFF",
    "--skip-log-bin",
    "--max-allowed-packet=1G",
    "--loose-innodb-strict-mode=OFF",
    "--loose-skip-slave-start",
    "--loose-skip-replica-start",
    "--loose-persisted-globals-load=OFF",
    "--loose-mysqlx=OFF",
    "--loose-wsrep-on=OFF",
    "--loose-super-read-only=OFF",
    "--read-only=OFF",
    "--innodb-buffer-pool-size=134217728",
    "--skip-log-error",
    "--general-log=OFF",
    "--slow-query-log=OFF",
    "--init-file=/dev/null",
    "--tmpdir=/tmp",
    "--loose-secure-file-priv=/tmp",
    "--loose-require-secure-transport=OFF",
)
"""Options that keep a server of ours from changing anything by itself: no event fires and nothing
is replicated. It accepts rows of every size; and it needs little memory, no certificates and no
files of other mounts, whatever the image's own settings.
"""
_NOT_MADE = (
    "ROOT_PASSWORD_FILE", "ROOT_PASSWORD_HASH", "ROOT_PASSWORD_HASH_FILE", "RANDOM_ROOT_PASSWORD",
    "ALLOW_EMPTY_ROOT_PASSWORD", "ALLOW_EMPTY_PASSWORD", "ONETIME_PASSWORD", "DATABASE",
    "DATABASE_FILE", "USER", "USER_FILE", "PASSWORD", "PASSWORD_FILE", "PASSWORD_HASH",
    "PASSWORD_HASH_FILE", "MASTER_HOST", "REPLICATION_USER",
)  # fmt: skip
"""Variables of an image, after its brand and an underscore, that have an entrypoint choose another
password for root, or create databases and accounts: a fresh server of ours gets those of a dump.
"""
_NO_ENCRYPTION = "--loose-ssl=OFF"
"""Not for a server that the image's entrypoint makes: there the entrypoint's own client of MariaDB
11.4 and later requires encryption, over a socket too (run).
"""
_SURROUNDINGS = re.compile(
    r"unknown (?:variable|option|suffix)|SSL|certificate|private key|shared library|shared object"
    r"|keyring|decrypt|encryption key"
    r"|[Cc]annot allocate|[Oo]ut of memory|No space left|Permission denied|secure.file.priv"
    r"|init.file|tmpdir|error logging"
    r"|for reading: No such file|option file|can't create"
)
"""Log messages of a server that does not start because of its environment or settings, not of the
data.
"""


@dataclass(frozen=True, slots=True)
class MysqlLocation(DataLocation):
    """The location and file layout of a MySQL or MariaDB server's data."""

    options: tuple[str, ...]

    @classmethod
    def of(cls, record: VolumeRecord, image: str) -> "MysqlLocation":
        """Return the location that a backup recorded.

        `image` decides if several containers had the data.

        Raises:
            VerificationFailed: The record names no location.
        """
        at = read_location(record, image)
        settings = record.statistics.settings if record.statistics else {}
        options = [
            f"--{name.replace('_', '-')}={settings[name]}"
            for name in MYSQL_SETTINGS
            if name in settings
        ]
        if at.directory != FOLDER:
            options.append(f"--datadir={at.directory}")
        return cls(
            at.image,
            at.destination,
            at.directory,
            tuple(options),
            owners=at.owners,
            subpath=at.subpath,
        )


@dataclass(frozen=True, slots=True)
class MysqlHelper:
    """A server of ours on a volume, described before it is started."""

    place: MysqlLocation
    location: EngineLocation
    subject: str
    """The name of the volume in faults."""

    @contextmanager
    def serving_fresh(self) -> Iterator[MysqlClient]:
        """Start a server of ours on an empty volume, and yield a client once it answers.

        The official entrypoint makes it, or the image's own one where there is no official one,
        without a network; the image's init scripts do not run, and no database or account that its
        environment names is made. The container is removed after the block.

        Raises:
            TrialSkipped: The server dies or does not answer in time, which says nothing about a
                backup.
        """
        image = self.location.engine.docker.image(self.place.image)
        is_mysql = image is not None and "MYSQL_VERSION" in image.environment
        program = "mysqld" if is_mysql else "mariadbd"
        start = make_start_script(image, ("mariadbd", "mysqld"), program)
        password = secrets.token_urlsafe(24)
        owners.make_mounted_folders(self.location, self.place, image)
        helper = Helper(
            image=self.place.image,
            argv=("sh", "-c", start, "sh", *_QUIET, *self.place.options),
            volumes=((self.location.name, self.place.destination, False),),
            subpath=self.place.subpath,
            tmpfs=INIT_FOLDERS,
            environment={
                **{f"{brand}_{name}": "" for brand in ("MARIADB", "MYSQL") for name in _NOT_MADE},
                **{f"{brand}_ROOT_PASSWORD": password for brand in ("MARIADB", "MYSQL")},
            },
            capabilities=("default",),
        )
        with (
            naming_client_fault(self.subject, "start a server on it"),
            self.location.engine.helpers.serve(helper) as container_id,
        ):
            login = Login("root", "environment", "MARIADB_ROOT_PASSWORD")
            yield _wait_ready(
                MysqlClient(self.location.engine, container_id, self.place.image, login),
                self.subject,
            )

    @contextmanager
    def serving_copy(self) -> Iterator[MysqlClient]:
        """Start the image's server program on an extracted archive, and yield a client of it.

        It runs as the owner of the files, without a network, and asks nobody for a password; the
        entrypoint is not involved. If it does not start with the image's settings files, it is
        started without them, since they may refer to other mounts.

        Raises:
            VerificationFailed: The server dies because of the restored data, or does not answer in
                time.
            TrialSkipped: The server cannot run here for another reason.
        """
        with naming_client_fault(self.subject, "start a server on it"), ExitStack() as started:
            owner = self._read_owner()
            starts = [
                partial(self._serve_bare, owner, settings) for settings in ((), ("--no-defaults",))
            ]
            yield start_first(started, starts)

    def _serve_bare(
        self, owner: str | None, settings: tuple[str, ...], started: ExitStack
    ) -> MysqlClient:
        """Start the server program under the image's name for it, and return a client of it.

        Raises:
            VerificationFailed: It dies because of the restored data, or does not answer in time.
            TrialSkipped: The image has no server program, or it cannot run here.
        """
        options = (
            *settings,
            *_QUIET,
            _NO_ENCRYPTION,
            *self.place.options,
            "--skip-grant-tables",
            "--skip-networking",
            f"--socket={_SOCKET}",
        )
        if settings and self.place.directory == FOLDER:
            options += (f"--datadir={FOLDER}",)
        for program in ("mariadbd", "mysqld"):
            helper = Helper(
                image=self.place.image,
                argv=(program, *options, "--pid-file=/tmp/safe-compose.pid"),
                volumes=((self.location.name, self.place.destination, False),),
                subpath=self.place.subpath,
                tmpfs=("/tmp",),
                user=owner,
            )
            try:
                container_id = started.enter_context(self.location.engine.helpers.serve(helper))
            except HelperFailed as error:
                if error.returncode != 127:
                    raise
                missing = error
            else:
                client = MysqlClient(
                    self.location.engine, container_id, self.place.image, socket=_SOCKET
                )
                return _wait_ready(client, self.subject)
        raise TrialSkipped(
            f"{describe_location(self.location.name)}:"
            f" its image has no server program: {missing.message}"
        )

    def _read_owner(self) -> str | None:
        """Return `uid:gid` of the data directory's files; None if unknown.

        Raises:
            VerificationFailed: The restored data has no database of the server's own.
        """
        system = str(PurePosixPath(self.place.inside, "mysql"))
        try:
            found = self.location.look([system])
        except NoOwnImage:
            return None
        if system not in found:
            raise VerificationFailed(
                f"{describe_location(self.subject)}:"
                f" there is no database of the server's own in what was"
                " restored"
            )
        return f"{found[system].uid}:{found[system].gid}"


def blames_data(log: str, exit_code: int) -> bool:
    """Return whether the death of a server program is blamed on the data.

    Only its errors count, since it warns about many other things. A program that was not found
    (126, 127) or was killed, as for lack of memory (137), is not.
    """
    errors = [line for line in log.split(" / ") if "ERROR" in line or "nknown" in line]
    return exit_code not in (125, 126, 127, 137) and not any(
        _SURROUNDINGS.search(line) for line in errors
    )


def _wait_ready(client: MysqlClient, subject: str) -> MysqlClient:
    """Wait for the final server and return a client of it.

    While a data directory is made, a temporary server listens on the socket alone.

    Raises:
        TrialSkipped: The server died or is silent, for a reason that says nothing about the data.
        VerificationFailed: The server died because of the data, or did not answer on existing data.
    """
    until = time.monotonic() + READY_SECONDS
    fresh = client.login.source != "none"
    while True:
        container = client.engine.docker.container(client.container)
        if container is None or container.state != "running":
            log, code = (
                read_last_log(client.engine, client.container),
                container.exit_code if container is not None else 0,
            )
            raise (VerificationFailed if not fresh and blames_data(log, code) else TrialSkipped)(
                f"{describe_location(subject)}: the server that was started on it died: {log}",
                next_step="look at the lines above; the backup itself is kept",
            )
        cause = ""
        for prefix in ("mariadb", "mysql"):
            tried = replace(client, prefix=prefix)
            try:
                sql = "SELECT @@socket, @@port, @@skip_networking, @@version"
                socket, port, alone, kind = parse_listening(tried.ask(sql, timeout=30), subject)
            except HelperFailed as error:
                cause = error.message
                if error.returncode in (126, 127):
                    continue
                break
            if fresh and alone:
                break
            return replace(tried, socket=socket, port=port, kind=kind)
        if time.monotonic() > until:
            raise (TrialSkipped if fresh else VerificationFailed)(
                f"{describe_location(subject)}:"
                " the server that was started on it did not answer within"
                f" {READY_SECONDS:.0f} s: {hide_secrets(cause)};"
                f" {read_last_log(client.engine, client.container)}"
            )
        # Between two questions; the loop has a time limit, and a dead server is detected above.
        time.sleep(0.2)


def parse_listening(rows: Sequence[Sequence[str]], subject: str) -> tuple[str, int, bool, str]:
    """Return a server's socket, its port, whether it is without a network, and its product.

    Raises:
        ServerUnreachable: The answer cannot be parsed.
    """
    with understanding(subject):
        socket, port, alone, version = rows[0]
        return socket, int(port), alone == "1", find_product(version)
    raise AssertionError  # an answer that cannot be parsed raises
