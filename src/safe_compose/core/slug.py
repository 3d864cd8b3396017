"""Names for files and folders."""

import hashlib
import re


def slug(name: str) -> str:
    """Return a name for files and folders that no other name gets.

    It is the name itself if it is plain, or else its plain characters and a short hash of all of
    it.

    Two names never share a slug, also on a file system that ignores case.
    """
    if re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,99}", name) and not re.search(r"-[0-9a-f]{8}$", name):
        return name
    plain = re.sub(r"[^a-z0-9_.-]+", "_", name.lower()).strip("._-")[:60]
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{plain or 'name'}-{digest[:8]}"
