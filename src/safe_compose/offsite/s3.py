"""A bucket of S3, or of a compatible server, through obstore (the extra `s3`).

Credentials come from the environment, from `~/.aws` (keys of a profile), or from the machine's own
role. A copy has no temporary name: its manifest is sent last, and without one it is no copy. A
checksum of the server proves nothing here (the ETag of an object in parts is no hash of it): sent
data is read back. Every wait for a server is limited.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from configparser import ConfigParser, Error
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from safe_compose.core.destination import Destination
from safe_compose.core.redaction import hide_secrets
from safe_compose.errors import OperationFailed, PlaceUnusable, SafeComposeError
from safe_compose.offsite.limits import LISTING_SECONDS, WINDOW_SECONDS, Deadline
from safe_compose.offsite.place import BLOCK, MANIFEST, FileMissing, make_fault
from safe_compose.system.installation import describe_extra

PART = 8 << 20
"""Bytes of one part of an upload; more where a file would otherwise have more than `PARTS` (S3
allows 10,000)."""
PARTS = 9000
IN_FLIGHT = 48 << 20
"""Most bytes of parts in transit at once."""

WAIT_SECONDS = 2 * WINDOW_SECONDS
"""Longest wait for one block of an object, with the client's retries."""
UPLOAD_SECONDS = 3600.0
"""Longest time in which an upload takes no further block: several parts are in transit at once, up
to `IN_FLIGHT`."""
MEMORY = 512 << 20
"""Most bytes of memory that one wait for a listing may add: obstore reads an answer completely
before it returns any of it."""

_CODE = re.compile(r"<Code>([^<]{1,80})</Code>")
_NO_ANSWER = (
    "decoding",
    "deserial",
    "Invalid",
    "invalid",
    "unexpected",
    "incomplete",
    "list response",
    "non-xml",
    "redirect",
)
"""Words in obstore's errors about an answer that breaks off or is invalid."""
_LOOK_SECONDS = 0.5
LARGEST_ERROR = 1 << 16
"""Most characters of an error that are searched."""
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")
_INDIRECT = ("role_arn", "sso_session", "sso_start_url", "credential_process", "source_profile")


_T = TypeVar("_T")


class Bucket:
    """A bucket, below one prefix."""

    def __init__(
        self,
        destination: Destination,
        *,
        listing: float = LISTING_SECONDS,
        wait: float = WAIT_SECONDS,
    ) -> None:
        """Connect to the bucket.

        Args:
            destination: The bucket, its prefix and its server.
            listing: Seconds for all names of the bucket.
            wait: Seconds for one block of an object.

        Raises:
            OperationFailed: The extra `s3` is not installed, or the settings are unusable.
        """
        self._listing, self._wait = listing, wait
        try:
            import obstore
            from obstore.store import S3Store
        except ImportError as error:
            raise make_fault(
                destination,
                "s3:// needs the extra `s3`, which is not installed",
                next_step=describe_extra("s3"),
            ) from error
        self._to = destination
        self.title = f"off-site {destination.name}"
        self._api = obstore
        found = _find_settings(destination, os.environ)
        config: dict[str, Any] = {name: value for name, value in found.items() if value}
        endpoint = config.get("endpoint", "")
        self._at = endpoint or f"S3 ({config['region']})"
        options = _make_client_options(destination, endpoint)
        try:
            self._store = S3Store(
                destination.host,
                prefix=destination.path or None,
                client_options=options,
                retry_config={"max_retries": 4, "retry_timeout": timedelta(minutes=3)},
                **config,
            )
        except Exception as error:  # any error that a wrong endpoint or region causes
            raise self._make_fault(error) from error

    def check(self, _need: int) -> None:
        """Check that the bucket answers; its free space is unknown.

        Raises:
            OperationFailed: The server refuses.
            PlaceUnusable: It does not answer properly, or in time.
        """
        self._list("", limit=1)

    def copies(self) -> list[str]:
        """Return `<project>/<id>` of every folder that holds a manifest.

        Raises:
            OperationFailed: The server refuses.
            PlaceUnusable: It does not answer properly, or in time.
        """
        found = [name.rpartition("/") for name in self._list("")]
        return [folder for folder, _, file in found if file == MANIFEST and folder.count("/") == 1]

    def files(self, folder: str) -> dict[str, int]:
        """Return the name below the folder -> size of every object in it.

        Raises:
            OperationFailed: The server refuses.
            PlaceUnusable: It does not answer properly, or in time.
        """
        return {name.removeprefix(f"{folder}/"): size for name, size in self._list(folder).items()}

    def put(self, name: str, blocks: Iterable[bytes], size: int) -> None:
        """Upload an object; it appears, or replaces an old one, only when it is complete.

        Raises:
            OperationFailed: The server refuses.
            PlaceUnusable: It does not answer properly, or in time.
        """
        part = max(PART, -(-size // PARTS))
        left = threading.Event()
        taken = [time.monotonic()]

        def until_left() -> Iterator[bytes]:
            for block in blocks:
                taken[0] = time.monotonic()
                if left.is_set():
                    raise BrokenPipeError("nobody waits for this upload any more")
                yield block

        def send() -> None:
            self._api.put(
                self._store,
                name,
                until_left(),
                use_multipart=size > part,
                chunk_size=part,
                max_concurrency=max(1, IN_FLIGHT // part),
            )

        try:
            ended, _ = _call_in_thread(
                send, None, lambda: time.monotonic() - taken[0] > UPLOAD_SECONDS
            )
            if not ended:
                raise PlaceUnusable(
                    f"{self.title}: bucket {self._to.host} at {self._at} took nothing more of"
                    f" {name}"
                )
        except SafeComposeError:  # of `blocks`, or from above
            raise
        except Exception as error:
            raise self._make_fault(error) from error
        finally:
            left.set()

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of an object.

        Raises:
            FileMissing: There is no such object.
            OperationFailed: The server refuses.
            PlaceUnusable: It does not answer properly, or in time.
        """
        try:
            stream = iter(
                self._await(
                    lambda: self._api.get(self._store, name).stream(min_chunk_size=BLOCK),
                    self._wait,
                )
            )
            while block := self._await(lambda: next(stream, None), self._wait):
                yield bytes(block)
        except FileNotFoundError as error:
            raise FileMissing(name) from error
        except SafeComposeError:
            raise
        except Exception as error:
            raise self._make_fault(error, reading=True) from error

    def close(self) -> None:
        """Do nothing: no connection stays open."""

    def _list(self, folder: str, *, limit: int | None = None) -> dict[str, int]:
        found: dict[str, int] = {}
        looking = Deadline(self.title, self._listing)
        try:
            stream = iter(self._api.list(self._store, folder or None))
            while some := self._await(lambda: next(stream, None), looking.remaining, listing=True):
                looking.count(len(some))
                for entry in some:
                    if str(entry["path"]) in found:
                        raise PlaceUnusable(
                            f"{self.title}: it lists one name again and again; nothing of it is"
                            " used"
                        )
                    found[str(entry["path"])] = int(entry["size"])
                if limit is not None:
                    break
        except SafeComposeError:
            raise
        except Exception as error:
            raise self._make_fault(error) from error
        return found

    def _await(self, call: Callable[[], _T], seconds: float, *, listing: bool = False) -> _T:
        """Return the result of a call.

        Raises:
            PlaceUnusable: There is none in time, or a listing takes too much memory.
        """
        before = _read_memory_use()
        ended, result = _call_in_thread(
            call, seconds, lambda: listing and _read_memory_use() - before > MEMORY
        )
        if not ended:
            raise PlaceUnusable(
                f"{self.title}: bucket {self._to.host} at {self._at} has stopped answering, or does"
                " not come to an end",
                next_step="look at the server and the line, then try again",
            )
        return cast(_T, result)

    def _make_fault(self, error: Exception, *, reading: bool = False) -> OperationFailed:
        """Return the server's message without the request, which would reveal the key's id.

        Returns:
            A PlaceUnusable if the answer broke off, or is invalid.
        """
        whole = str(error)[:LARGEST_ERROR]
        code, message = _CODE.search(whole), _MESSAGE.search(whole)
        if code is not None:
            cause = f"{code[1]}: {message[1]}" if message is not None else code[1]
        else:
            cause = re.sub(r"\?\S*", "", whole.split("\n")[0]).rpartition(" - ")[2]
        cause = f"bucket {self._to.host} at {self._at}: {hide_secrets(cause)[:300]}"
        if code is None and (reading or any(words in whole for words in _NO_ANSWER)):
            return PlaceUnusable(
                f"{self.title}: {cause}",
                next_step="look at the server and the line, then try again",
            )
        return make_fault(
            self._to,
            cause,
            next_step=(
                "look at the endpoint, the region and the credentials (AWS_PROFILE,"
                " AWS_ACCESS_KEY_ID), then try again"
            ),
        )


def _call_in_thread(
    call: Callable[[], _T],
    seconds: float | None = None,
    give_up: Callable[[], bool] = lambda: False,
) -> tuple[bool, _T | None]:
    """Make a call in a thread; return whether it ended, and its result.

    obstore does not return from a call for a signal, and a silent server must not block us. An
    abandoned thread ends with the process.
    """
    result: list[_T] = []
    fault: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call())
        # raised again below, in the thread that waits
        except BaseException as error:  # noqa: BLE001
            fault.append(error)

    thread = threading.Thread(target=run, daemon=True, name="s3")
    thread.start()
    ends = None if seconds is None else time.monotonic() + seconds
    while thread.is_alive() and (ends is None or time.monotonic() < ends) and not give_up():
        thread.join(_LOOK_SECONDS)
    if fault:
        raise fault[0]
    return (True, result[0]) if result else (False, None)


def _read_memory_use() -> int:
    """Return the bytes of memory that this process uses; 0 where that is unknown (no /proc)."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except (OSError, ValueError, IndexError):
        return 0


def _find_settings(destination: Destination, environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return endpoint, region and keys as the AWS tools find them.

    The destination's own settings precede the environment, and that the profile. Without keys
    obstore asks the machine's role (web identity, container, instance).

    Raises:
        OperationFailed: The profile does not get its keys from a file.
    """
    profile = _profile(destination, environ)
    key, secret, token = (
        environ.get(f"AWS_{n}") for n in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
    )
    if not (key and secret):
        key, secret, token = (
            profile.get(f"aws_{n}") for n in ("access_key_id", "secret_access_key", "session_token")
        )
        if not (key and secret) and (indirect := [name for name in _INDIRECT if name in profile]):
            raise make_fault(
                destination,
                f"the AWS profile gets its keys by {indirect[0]}, which is not done here",
                next_step='eval "$(aws configure export-credentials --format env)", then try again',
            )
    regions = (
        destination.region,
        environ.get("AWS_REGION"),
        environ.get("AWS_DEFAULT_REGION"),
        profile.get("region"),
    )
    ends = (
        destination.endpoint,
        environ.get("AWS_ENDPOINT_URL_S3"),
        environ.get("AWS_ENDPOINT_URL"),
        profile.get("endpoint_url"),
    )
    return {
        "region": next((r for r in regions if r), "us-east-1"),
        "endpoint": next((e.rstrip("/") for e in ends if e), None),
        "access_key_id": key,
        "secret_access_key": secret,
        "session_token": token,
    }


def _make_client_options(destination: Destination, endpoint: str) -> Any:
    """Return the options of obstore's HTTP client.

    Raises:
        OperationFailed: The file of certificates cannot be read.
    """
    options = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": "20s",
        "read_timeout": "5m",  # for one read; a whole file may take any time
        "timeout": "7days",
    }
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        options["root_certificate"] = _text(destination, Path(bundle))
    return options


def _profile(destination: Destination, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the settings of the chosen profile in the two files of the AWS tools.

    Empty where there are none.

    Raises:
        OperationFailed: A file cannot be read.
    """
    home = Path(environ.get("HOME", "/"))
    name = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or "default"
    facts: dict[str, str] = {}
    for variable, file, section in (
        ("AWS_CONFIG_FILE", "config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ):
        path = Path(environ.get(variable) or home / ".aws" / file)
        if not os.path.exists(path):  # noqa: PTH110 - pathlib raises for a name that is too long
            continue
        parser = ConfigParser(interpolation=None, default_section="no such section")
        try:
            parser.read_string(_text(destination, path))
        except Error as error:
            # it holds secrets
            raise make_fault(
                destination, f"{path} does not read ({type(error).__name__})"
            ) from error
        if parser.has_section(section):
            facts |= parser[section]
    return facts


def _text(destination: Destination, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise make_fault(destination, f"{path} cannot be read ({type(error).__name__})") from error
