"""A bucket of S3, or of a server that speaks the same, through obstore (the extra `s3`).

Credentials come from the environment, from `~/.aws` (keys of a profile), or from the machine's own role. A copy has no other
name meanwhile: its manifest comes last, and without one it is none. A checksum of the server proves nothing here (the ETag of
an object in parts is no hash of it): what was sent is read back.
"""

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from configparser import ConfigParser, Error
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from safe_compose.artifacts import hide_secrets
from safe_compose.destination import Destination
from safe_compose.errors import BackupFailed, SafeComposeError
from safe_compose.offsite import BLOCK, MANIFEST, Missing, unusable

PART = 8 << 20
"""Bytes of one part of an upload; larger where a file would else have more than `PARTS` (S3 allows 10,000)."""
PARTS = 9000
IN_FLIGHT = 48 << 20
"""Bytes of parts on their way at once."""

_CODE = re.compile(r"<Code>([^<]{1,80})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")
_INDIRECT = ("role_arn", "sso_session", "sso_start_url", "credential_process", "source_profile")


_T = TypeVar("_T")


class Bucket:
    """One bucket, below one prefix."""

    def __init__(self, destination: Destination) -> None:
        try:
            import obstore
            from obstore.store import S3Store
        except ImportError as error:
            raise unusable(
                destination, "s3:// needs the extra `s3`, which is not installed", next_step="pip install 'safe-compose[s3]'"
            ) from error
        self._to = destination
        self._api = obstore
        found = _found(destination, os.environ)
        config: dict[str, Any] = {name: value for name, value in found.items() if value}
        endpoint = config.get("endpoint", "")
        self._at = endpoint or f"S3 ({config['region']})"
        client: Any = {
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": "20s",
            "read_timeout": "5m",  # of one read; the whole of a file may take as long as it takes
            "timeout": "7days",
        }
        if bundle := os.environ.get("AWS_CA_BUNDLE"):
            client["root_certificate"] = _text(destination, Path(bundle))
        try:
            self._store = S3Store(
                destination.host,
                prefix=destination.path or None,
                client_options=client,
                retry_config={"max_retries": 4, "retry_timeout": timedelta(minutes=3)},
                **config,
            )
        except Exception as error:  # whatever a wrong endpoint or region makes of it
            raise self._fault(error) from error

    def check(self, need: int) -> None:
        """Its room is nobody's to tell; that it answers us is."""
        self._list("", limit=1)

    def copies(self) -> list[str]:
        found = [name.rpartition("/") for name in self._list("")]
        return [folder for folder, _, file in found if file == MANIFEST and folder.count("/") == 1]

    def files(self, folder: str) -> dict[str, int]:
        return {name.removeprefix(f"{folder}/"): size for name, size in self._list(folder).items()}

    def put(self, name: str, blocks: Iterable[bytes], size: int) -> None:
        part = max(PART, -(-size // PARTS))
        left = threading.Event()

        def until_left() -> Iterator[bytes]:
            for block in blocks:
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
            _aside(send)
        except Exception as error:
            raise self._own(error) from error
        finally:
            left.set()

    def read(self, name: str) -> Iterator[bytes]:
        try:
            stream = iter(_aside(lambda: self._api.get(self._store, name).stream(min_chunk_size=BLOCK)))
            while block := _aside(lambda: next(stream, None)):
                yield bytes(block)
        except FileNotFoundError as error:
            raise Missing(name) from error
        except Exception as error:
            raise self._own(error) from error

    def close(self) -> None:
        """Nothing stays open."""

    def _list(self, folder: str, *, limit: int | None = None) -> dict[str, int]:
        found: dict[str, int] = {}
        try:
            stream = iter(self._api.list(self._store, folder or None))
            while some := _aside(lambda: next(stream, None)):
                found.update({str(entry["path"]): int(entry["size"]) for entry in some})
                if limit is not None:
                    break
        except Exception as error:
            raise self._own(error) from error
        return found

    def _own(self, error: Exception) -> Exception:
        """Faults of ours that came through obstore stay what they are."""
        return error if isinstance(error, SafeComposeError) else self._fault(error)

    def _fault(self, error: Exception) -> BackupFailed:
        """What the server said; without the request, which would tell the key's id."""
        whole = str(error)
        code, message = _CODE.search(whole), _MESSAGE.search(whole)
        if code is not None:
            said = f"{code[1]}: {message[1]}" if message is not None else code[1]
        else:
            said = re.sub(r"\?\S*", "", whole.split("\n")[0]).rpartition(" - ")[2]
        return unusable(
            self._to,
            f"bucket {self._to.host} at {self._at}: {hide_secrets(said)}",
            next_step="look at the endpoint, the region and the credentials (AWS_PROFILE, AWS_ACCESS_KEY_ID), then try again",
        )


def _aside(call: Callable[[], _T]) -> _T:
    """The result of a call, made in a thread: obstore does not return from one for a signal, and nobody must wait for a server
    that has gone silent. After a Ctrl-C the thread ends with the process."""
    result: list[_T] = []
    fault: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as error:  # noqa: BLE001  (raised again below, in the thread that waits)
            fault.append(error)

    thread = threading.Thread(target=run, daemon=True, name="s3")
    thread.start()
    thread.join()
    if fault:
        raise fault[0]
    return result[0]


def _found(destination: Destination, environ: Mapping[str, str]) -> dict[str, str | None]:
    """Endpoint, region and keys as the AWS tools find them: the destination's own words, the environment, the profile.

    Without keys obstore asks the machine's role (web identity, container, instance). Raises BackupFailed for a profile that
    takes more than reading its keys.
    """
    profile = _profile(destination, environ)
    key, secret, token = (environ.get(f"AWS_{n}") for n in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"))
    if not (key and secret):
        key, secret, token = (profile.get(f"aws_{n}") for n in ("access_key_id", "secret_access_key", "session_token"))
        if not (key and secret) and (indirect := [name for name in _INDIRECT if name in profile]):
            raise unusable(
                destination,
                f"the AWS profile gets its keys by {indirect[0]}, which is not done here",
                next_step='eval "$(aws configure export-credentials --format env)", then try again',
            )
    regions = (destination.region, environ.get("AWS_REGION"), environ.get("AWS_DEFAULT_REGION"), profile.get("region"))
    ends = (destination.endpoint, environ.get("AWS_ENDPOINT_URL_S3"), environ.get("AWS_ENDPOINT_URL"), profile.get("endpoint_url"))
    return {
        "region": next((r for r in regions if r), "us-east-1"),
        "endpoint": next((e.rstrip("/") for e in ends if e), None),
        "access_key_id": key,
        "secret_access_key": secret,
        "session_token": token,
    }


def _profile(destination: Destination, environ: Mapping[str, str]) -> Mapping[str, str]:
    """What the two files of the AWS tools say of the chosen profile; nothing where there are none."""
    home = Path(environ.get("HOME", "/"))
    name = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or "default"
    facts: dict[str, str] = {}
    for variable, file, section in (
        ("AWS_CONFIG_FILE", "config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ):
        path = Path(environ.get(variable) or home / ".aws" / file)
        if not path.exists():
            continue
        parser = ConfigParser(interpolation=None, default_section="no such section")
        try:
            parser.read_string(_text(destination, path))
        except Error as error:
            raise unusable(destination, f"{path} does not read ({type(error).__name__})") from error  # it holds secrets
        if parser.has_section(section):
            facts |= parser[section]
    return facts


def _text(destination: Destination, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unusable(destination, f"{path} cannot be read ({type(error).__name__})") from error
