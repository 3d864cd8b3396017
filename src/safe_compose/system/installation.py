"""The installation of safe-compose: where it came from, and how to add an extra to it."""

import json
import shlex
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit


def describe_extra(extra: str) -> str:
    """Return the command that adds an extra to this installation.

    It names the folder that safe-compose was installed from, never a package by name alone: that
    name on an index may belong to somebody else.
    """
    source, editable = _find_source()
    return make_command(extra, source, sys.prefix, editable=editable)


def make_command(extra: str, source: str | None, prefix: str, *, editable: bool = False) -> str:
    """Return the command that installs safe-compose again with an extra.

    Args:
        extra: The name of the extra.
        source: The folder or file that it was installed from; None if that is unknown or gone.
        prefix: The folder of the environment that it runs in.
        editable: Whether the source itself is what runs.
    """
    what = shlex.quote(f"{source or '.'}[{extra}]")
    if "/pipx/venvs/" in prefix:
        command = f"pipx install --force {what}"
    elif "/uv/tools/" in prefix:
        command = f"uv tool install --force {what}"
    else:
        pip = f"{shlex.quote(prefix)}/bin/python -m pip install"
        command = f"{pip} --editable {what}" if editable else f"{pip} {what}"
    return command if source else f"in the checkout of safe-compose: {command}"


def _find_source() -> tuple[str | None, bool]:
    """Return the place that safe-compose was installed from (PEP 610), and if it is editable."""
    from importlib import metadata  # slow, and needed for a fault alone

    try:
        text = metadata.distribution("safe-compose").read_text("direct_url.json")
        found = json.loads(text or "{}")
        url = urlsplit(found["url"])
    except (metadata.PackageNotFoundError, OSError, ValueError, KeyError):
        return None, False
    path = unquote(url.path)
    if url.scheme != "file" or not Path(path).exists():
        return None, False
    return path, bool(found.get("dir_info", {}).get("editable"))
