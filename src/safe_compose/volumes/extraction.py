"""Archives extracted into volumes, and volumes cleared before that."""

import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from safe_compose.core.backup import Artifact
from safe_compose.core.observed import describe_location
from safe_compose.core.text import shell_quote
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_image import NoOwnImage
from safe_compose.engine.named_pipe import AT as PIPE
from safe_compose.errors import OperationFailed, StateChanged, VerificationFailed
from safe_compose.volumes.archive import archive_and_list, read_entries, select_storable
from safe_compose.volumes.comparison import compare
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.gzip_stream import (
    checking,
    show_nothing,
    unpack,
)
from safe_compose.volumes.helper_program import (
    MOUNT,
    explain_no_program,
    feed,
    has_program,
    naming_fault,
    read_last_words,
)
from safe_compose.volumes.tar import BadTar

_ENGINE_LEAVES = "ACLs and holes in sparse files, if it had any, did not come back"
"""What the engine does not unpack from an archive that our program made (run, engine 20.10)."""


def extract(
    location: EngineLocation,
    folder: Path,
    artifacts: Sequence[Artifact],
    progress: Callable[[int], None] = show_nothing,
    *,
    add: bool = False,
) -> str:
    """Fill an existing empty volume from a verified archive, and compare the result with the list.

    The owner and mode of the volume's root are restored too. With `add` the volume may already hold
    a part of the archive (`survivors.is_part_of_archive`), which stays as it is. `artifacts` are
    those of one volume, as `archive` returned and `verify` accepted them.

    Returns:
        What could not be restored, in words; empty if nothing was lost.

    Raises:
        StateChanged: The volume is not empty.
        VerificationFailed: A file of the backup is not what was written (raised before the first
            byte is extracted), or the volume does not hold what the archive does (raised
            afterwards).
        OperationFailed: The engine cannot extract the archive.

    After an OperationFailed, or a VerificationFailed at the end, the volume holds a part of the
    data. Nothing here deletes it.
    """
    artifact, listing = archive_and_list(artifacts)
    if not add:
        _require_empty(location)
    blocks = unpack(folder, artifact, progress=progress, checked=True)
    lost = ""
    try:
        with checking(folder, artifact, listing) as require_checked:
            if not (why := explain_no_program(location.engine)):
                lost = _extract_by_helper(location, blocks, require_checked, add=add)
            elif add:
                raise OperationFailed(
                    f"{describe_location(location.name)}:"
                    f" what is missing cannot be put back here alone: {why}"
                )
            else:
                require_checked()
                with naming_fault(location.name, "extract"):
                    location.engine.archives.unpack(location.name, blocks)
                # An archive that the engine made has none of these.
                if artifact.detail.get("tar") == "helper":
                    lost = f"{_ENGINE_LEAVES}; the engine itself unpacked it, since {why}"

        # Compare with the list instead of reading the archive again: the list came from the volume
        # that was archived, and L2 compared the two.
        compare(lambda: select_storable(folder, listing), lambda: read_entries(location))
    except BadTar as error:
        raise VerificationFailed(
            f"{describe_location(location.name)}:"
            f" extract: it does not hold what {artifact.file} does: {error}",
            next_step="restore again into an empty volume",
        ) from error
    return lost


def _extract_by_helper(
    location: EngineLocation,
    blocks: Iterable[bytes],
    require_checked: Callable[[], None],
    *,
    add: bool,
) -> str:
    """Unpack blocks with our helper program, and return what could not be restored, in words."""
    adding = ("--add",) if add else ()
    piped = ("unpack", *adding, f"--file={PIPE}", MOUNT)
    helper = location.unpacking_helper(*adding, MOUNT, piped=piped)
    with (
        naming_fault(location.name, "extract"),
        location.engine.helpers.stream(helper, stdin=subprocess.PIPE) as filled,
    ):
        # Nothing is sent before this check. If it raises, the helper is killed before its input
        # ends.
        require_checked()
        feed(blocks, filled.stdin)
    return filled.warnings


def sync(location: EngineLocation) -> None:
    """Flush what was written into a volume to the disk, so that it survives a power failure.

    Only the file system of the volume is flushed (syncfs): a sync of all file systems may wait for
    a dead network. Without our own helper program the kernel flushes in its own time.

    Raises:
        OperationFailed: The helper failed.
    """
    if has_program(location.engine):
        with naming_fault(location.name, "sync"):
            location.engine.helpers.run(location.read_only_helper("sync", MOUNT))


def clear(location: EngineLocation) -> None:
    """Remove every entry of a volume and keep the volume itself.

    Only `restore` calls this, after a safety backup.

    Raises:
        OperationFailed: Our own helper program does not run, or entries are left.
    """
    cause = "something is left in it"
    try:
        location.engine.helpers.run(location.changing_helper("empty", MOUNT))
    except NoOwnImage as error:
        cause = error.message
    except HelperFailed as error:
        cause = read_last_words(error)
    if location.engine.archives.list_root(location.name) != []:
        raise OperationFailed(
            f"{describe_location(location.name)}: empty: {cause}",
            next_step="restore into a new volume instead",
        )


def _require_empty(location: EngineLocation) -> None:
    names = location.engine.archives.list_root(location.name)
    if names is None or names:
        state = (
            "cannot be looked into"
            if names is None
            else f"is not empty ({', '.join(map(repr, names[:3]))})"
        )
        step = f"safe-compose restore --volume {shell_quote(location.name)}"
        raise StateChanged(
            f"{describe_location(location.name)} {state}; nothing was written into it",
            next_step=step,
        )
