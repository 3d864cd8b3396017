"""Where copies of backups may go: a destination's URL, taken apart. Credentials never stand in one."""

import re
from dataclasses import dataclass, replace

_URL = re.compile(r"(?P<kind>s3|sftp|file)://(?P<place>[^/?#]*)(?P<path>/[^?#\0\n]*)?")
_HOST = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9_.-]*|\[[0-9a-fA-F:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?/?")
FORMS = "s3://BUCKET/PREFIX, sftp://USER@HOST:PORT/PATH or file:///PATH"


@dataclass(frozen=True, slots=True)
class Destination:
    """One place that copies go to. `<path>/<project>/<id>/` there holds what the store's folder holds."""

    name: str
    """As the settings call it; the URL itself where it was given on the command line."""
    url: str
    kind: str
    """`s3`, `sftp` or `file`."""
    path: str
    """Absolute for `file`; for `sftp` absolute, or relative to the home folder there; for `s3` the prefix, maybe empty."""
    host: str = ""
    """The server, or the bucket."""
    user: str = ""
    port: int | None = None
    endpoint: str | None = None
    """Of an S3 server that is not Amazon's."""
    region: str | None = None
    required: bool = False
    """A deletion needs the copy there as well."""


def parse(name: str, url: str, *, endpoint: str | None = None, region: str | None = None, required: bool = False) -> Destination:
    """Take a URL apart. Raises ValueError, which says what is wrong and repeats nothing that may be a secret."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"a destination is {FORMS}")
    kind, place, path = match["kind"], match["place"], match["path"] or ""
    if ":" in place.rpartition("@")[0]:
        raise ValueError("a URL must not hold a password or key: they come from the environment, ~/.aws or the ssh agent")
    if ".." in path.split("/"):
        raise ValueError("a path must not hold ..")
    if kind != "s3" and (endpoint is not None or region is not None):
        raise ValueError("endpoint and region belong to s3://")
    if endpoint is not None and not _ENDPOINT.fullmatch(endpoint):
        raise ValueError("an endpoint is https://HOST or http://HOST:PORT, without a path, user or password")
    found = Destination(name, url, kind, path, endpoint=endpoint, region=region, required=required)
    if kind == "file":
        if place or path.strip("/") == "":
            raise ValueError("a folder is written file:///ABSOLUTE/PATH, with three slashes")
        return replace(found, path=path.rstrip("/"))
    if kind == "s3":
        if not _BUCKET.fullmatch(place):
            raise ValueError("a bucket is written s3://BUCKET/PREFIX; its name has small letters, digits, dots and hyphens")
        return replace(found, host=place, path=path.strip("/"))
    server = _HOST.fullmatch(place)
    if server is None or path.strip("/") == "" or (server["port"] and not 0 < int(server["port"]) < 65536):
        raise ValueError("a server is written sftp://USER@HOST:PORT/PATH (USER@ and :PORT as ssh needs them; /~/ is the home)")
    home = path == "/~" or path.startswith("/~/")
    return replace(
        found,
        path=(path[2:].strip("/") or ".") if home else path.rstrip("/"),
        host=server["host"].strip("[]"),
        user=server["user"] or "",
        port=int(server["port"]) if server["port"] else None,
    )
