"""The URL of a destination for backup copies, taken apart.

It never holds credentials.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

_URL = re.compile(r"(?P<kind>s3|sftp|file)://(?P<place>[^/?#]*)(?P<path>/[^?#\0\n]*)?")
_HOST = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9_.-]*"
    r"|\[[0-9a-fA-F:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?/?")
_PUBLIC_KEY = re.compile(
    r"((?:sk-)?(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp[0-9]{3})(?:@openssh\.com)?) "
    r"([A-Za-z0-9+/]{16,3000}={0,3})(?: [^\r\n]*)?"
)
FORMS = "s3://BUCKET/PREFIX, sftp://USER@HOST:PORT/PATH or file:///PATH"


@dataclass(frozen=True, slots=True)
class Destination:
    """A place that copies go to.

    `<path>/<project>/<id>/` there mirrors the folder of a backup in the store.
    """

    name: str
    """The name in the settings; the URL itself where it was given on the command line."""
    url: str
    kind: str
    """`s3`, `sftp` or `file`."""
    path: str
    """Absolute for `file`; for `sftp` absolute, or relative to the home folder there; for `s3` the
    prefix, possibly empty."""
    host: str = ""
    """The server, or the bucket."""
    user: str = ""
    port: int | None = None
    endpoint: str | None = None
    """The URL of an S3 server that is not Amazon's."""
    region: str | None = None
    required: bool = False
    """Whether a deletion requires the copy there as well."""
    signed: bool = False
    """Whether copies are signed when they are sent, and one without a good signature is not
    fetched."""
    verify_keys: tuple[str, ...] = ()
    """Public keys of the machines whose copies are fetched, in addition to this machine's own."""
    key_folder: str = ""
    """The folder of this user's own signing key; never one that a project chose."""

    def is_same_place(self, other: "Destination") -> bool:
        """Return whether both lead to the same copies, however their URLs are written."""
        mine, theirs = (
            (d.kind, d.host.lower(), d.port, d.path.strip("/"), d.endpoint) for d in (self, other)
        )
        return mine == theirs


def parse_public_key(text: str) -> str:
    """Return a public key without its comment, as settings hold it: type and base64.

    Raises:
        ValueError: The text is no public key.
    """
    found = _PUBLIC_KEY.fullmatch(text.strip())
    if found is None:
        raise ValueError("a public key is one line of a .pub file: ssh-ed25519 AAAA...")
    return f"{found[1]} {found[2]}"


def keep_signed(
    every: Sequence[Destination], mine: Sequence[Destination], key_folder: str
) -> tuple[Destination, ...]:
    """Return the destinations, with the signatures that the user's own settings require.

    A requirement holds for each destination with the place or the name of one of `mine`.

    A project's file that names such a place, or uses such a name, cannot lower that.

    Args:
        every: The destinations.
        mine: Destinations of the user's own settings and root's.
        key_folder: The folder of this user's own signing key.
    """

    def raised(to: Destination) -> Destination:
        to = replace(to, key_folder=key_folder)
        own = next(
            (d for d in mine if d.signed and (d.name == to.name or d.is_same_place(to))), None
        )
        return replace(to, signed=True, verify_keys=own.verify_keys) if own is not None else to

    return tuple(map(raised, every))


def parse(
    name: str,
    url: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    required: bool = False,
) -> Destination:
    """Return the destination that a URL means.

    Raises:
        ValueError: The URL is invalid. The message says why and repeats no part that may be a
            secret.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"a destination is {FORMS}")
    kind, place, path = match["kind"], match["place"], match["path"] or ""
    if ":" in place.rpartition("@")[0]:
        raise ValueError(
            "a URL must not hold a password or key: they come from the environment, ~/.aws or the"
            " ssh agent"
        )
    if ".." in path.split("/"):
        raise ValueError("a path must not hold ..")
    if kind != "s3" and (endpoint is not None or region is not None):
        raise ValueError("endpoint and region belong to s3://")
    if endpoint is not None and not _ENDPOINT.fullmatch(endpoint):
        raise ValueError(
            "an endpoint is https://HOST or http://HOST:PORT, without a path, user or password"
        )
    found = Destination(name, url, kind, path, endpoint=endpoint, region=region, required=required)
    if kind == "file":
        if place or path.strip("/") == "":
            raise ValueError("a folder is written file:///ABSOLUTE/PATH, with three slashes")
        return replace(found, path=path.rstrip("/"))
    if kind == "s3":
        if not _BUCKET.fullmatch(place):
            raise ValueError(
                "a bucket is written s3://BUCKET/PREFIX; its name has small letters, digits, dots"
                " and hyphens"
            )
        return replace(found, host=place, path=path.strip("/"))
    return _add_server(found, place)


def _add_server(found: Destination, place: str) -> Destination:
    """Return an sftp destination with the parts of its server and path.

    Raises:
        ValueError: They are invalid.
    """
    server, path = _HOST.fullmatch(place), found.path
    if (
        server is None
        or path.strip("/") == ""
        or (server["port"] and not 0 < int(server["port"]) < 65536)
    ):
        raise ValueError(
            "a server is written sftp://USER@HOST:PORT/PATH (USER@ and :PORT as ssh needs them; /~/"
            " is the home)"
        )
    home = path == "/~" or path.startswith("/~/")
    return replace(
        found,
        path=(path[2:].strip("/") or ".") if home else path.rstrip("/"),
        host=server["host"].strip("[]"),
        user=server["user"] or "",
        port=int(server["port"]) if server["port"] else None,
    )
