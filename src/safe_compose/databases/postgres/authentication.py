"""The method by which a server asks for passwords over a network, kept when a dump is loaded.

A dump has the roles with their verifiers, and not `pg_hba.conf`. A fresh cluster of a newer image
asks for SCRAM (official image, 14 and later), which no md5 verifier answers: nobody could log in.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from safe_compose.core.backup import Artifact
from safe_compose.core.owners import FILES
from safe_compose.databases import server_files
from safe_compose.databases.postgres.dump_roles import list_md5_logins
from safe_compose.engine.helper_image import NoOwnImage
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.gzip_stream import unpack

RULES = "pg_hba.conf"
_SCRAM, _MD5, _TRUST = b"scram-sha-256", b"md5", b"trust"
_ANYWHERE = (b"all", b"0.0.0.0/0", b"::/0", b"::0/0")
_LIMIT = 1 << 20


def find_network_method(rules: bytes) -> bytes | None:
    """Return the method of the rule for all clients of a network; None if there is no such rule.

    That is the rule which the official image's entrypoint adds (`host all all all METHOD`).
    """
    for line in rules.split(b"\n"):
        words = line.partition(b"#")[0].split()
        if len(words) == 5 and words[:3] == [b"host", b"all", b"all"] and words[3] in _ANYWHERE:
            return words[4]
    return None


def choose_method(before: bytes | None, md5_logins: Sequence[str]) -> bytes | None:
    """Return the method that the new server's rules need, or None if they can stay.

    Args:
        before: The rules of the server that was dumped; None if they are unknown.
        md5_logins: The roles that may log in with an md5 verifier.
    """
    method = find_network_method(before) if before is not None else None
    if method == _TRUST:
        return _TRUST
    # Under SCRAM such roles were let in by no network before either.
    return _MD5 if md5_logins and method != _SCRAM else None


def adapt_rules(rules: bytes, method: bytes) -> bytes:
    """Return rules that ask the clients of a network by another method.

    With md5, roles with a SCRAM verifier are still asked for SCRAM (documentation of PostgreSQL,
    "Password Authentication").
    """
    lines = []
    for line in rules.split(b"\n"):
        if find_network_method(line) == _SCRAM:
            line = line.replace(_SCRAM, method)
        lines.append(line)
    return b"\n".join(lines)


def keep_method(
    location: EngineLocation, folder: Path, artifacts: Sequence[Artifact], inside: str
) -> list[str]:
    """Let the rules of a rebuilt cluster ask as those of the dumped server did.

    No server may run on it. `inside`: its data directory relative to the volume's root.

    Returns:
        What was changed, in words.

    Raises:
        VerificationFailed: A file of the backup is damaged.
        OperationFailed: The volume cannot be read or written.
    """
    script = next(a for a in artifacts if a.kind == "globals")
    logins = list_md5_logins(b"".join(unpack(folder, script)))
    before = server_files.read_files(folder, artifacts).get(RULES)
    method = choose_method(before, logins)
    path = str(PurePosixPath(inside, RULES))
    now = location.read(path, limit=_LIMIT) if method is not None else None
    if method is None or now is None or (adapted := adapt_rules(now, method)) == now:
        return []
    owner = _read_owner(location, path) or script.detail.get(FILES, "0 0 600")
    server_files.put_files(location, {RULES: adapted}, inside, owner)
    if method == _TRUST:
        return [f"its login rules let everybody in without a password as before ({RULES}: trust)"]
    return [
        f"its login rules take md5 passwords as before ({RULES}: md5), for these have no other:"
        f" {', '.join(logins)}; safe-compose rotate-password gives a SCRAM one"
    ]


def _read_owner(location: EngineLocation, path: str) -> str | None:
    """Return `uid gid mode` of a file; None where our own helper program does not run."""
    try:
        found = location.look([path])[path]
    except NoOwnImage:
        return None
    return f"{found.uid} {found.gid} {found.mode & 0o7777:o}"
