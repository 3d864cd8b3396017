"""`RESTORE.md`: how to restore a backup by hand.

The instructions need only docker, sha256sum, gzip, tar and the database's own client.
"""

from collections.abc import Iterator
from urllib.parse import unquote

from safe_compose.core.backup import Artifact, Backup, VolumeRecord, folders_of_database
from safe_compose.core.quantities import format_stamp
from safe_compose.core.redaction import HIDDEN
from safe_compose.core.text import escape_markdown, join_for_shell, quote_markdown, shell_quote
from safe_compose.store.catalogue.restore_commands import (
    RUN,
    TAR_OPTIONS,
    check_made,
    create_location,
    format_block,
    is_restored_beside,
    print_file,
    set_variables,
)
from safe_compose.store.catalogue.restore_databases import describe_server


def write_text(backup: Backup) -> str:
    """Return the whole text of `RESTORE.md`.

    Its commands only create things: none deletes or overwrites.
    """
    return "\n".join(_lines(backup)) + "\n"


def _lines(backup: Backup) -> Iterator[str]:
    yield f"# Backup {escape_markdown(backup.id)}"
    yield ""
    made = (
        f"made {escape_markdown(format_stamp(backup.created))} ({escape_markdown(backup.reason)})"
    )
    yield (
        f"Project {quote_markdown(backup.project)}, {made} from {quote_markdown(backup.endpoint)}."
    )
    yield "With safe-compose:"
    yield from format_block(f"safe-compose restore {shell_quote(backup.id)}")
    yield from _introduce_commands(backup)
    for warning in backup.warnings:
        yield ""
        yield f"Warning: {escape_markdown(warning)}"
    if backup.omitted:
        yield ""
        yield "Not in this backup:"
        yield ""
    for omission in backup.omitted:
        what = "volume " if omission.kind == "volume" else ""
        yield f"- {what}{quote_markdown(omission.name)}: {escape_markdown(omission.reason)}"
    for record in backup.volumes:
        yield ""
        yield from _volume(record, backup.id)


def _introduce_commands(backup: Backup) -> Iterator[str]:
    """Yield what holds for all sections: the check of the files, and what the commands need."""
    yield (
        "Without it, in a POSIX shell. First go to this folder and check it; go on only when every"
        " line says OK:"
    )
    yield from format_block("sha256sum -c SHA256SUMS")
    yield "A dump that is cut short loads without an error, so never leave that check out."
    folders = any(r.location in ("folder", "file") for r in backup.volumes)
    what = "volume or folder" if folders else "volume"
    yield f"Each section below makes a new {what} and fills it. It does nothing when one of that"
    yield "name exists: then look at that one first, or change the name in `VOLUME`."
    if folders:
        yield (
            "Make a folder on the engine's own machine, as a user who may create it there (often"
            " root)."
        )
    yield "What `IMAGE` names must be on the engine (`docker image inspect`);"
    yield (
        "where it is gone: `docker pull`, or `docker compose build` where the compose file"
        " builds it."
    )
    if any(a.sealed for v in backup.volumes for a in v.artifacts):
        yield (
            "The files that end in `.age` are encrypted: `age` opens them with the identity of one"
            " of their recipients. Name its"
        )
        yield "file first; a wrong one prints `no identity matched` and nothing more:"
        yield from format_block("KEY=$HOME/key.txt")


def _volume(record: VolumeRecord, backup_id: str) -> Iterator[str]:
    what = "Volume" if record.location == "volume" else record.location.capitalize()
    yield f"## {what} {quote_markdown(record.name)}"
    yield ""
    made = record.created_at or "at an unknown time"
    yield (
        f"{escape_markdown(record.data_kind)}, method {escape_markdown(record.method)}, made"
        f" {escape_markdown(made)}."
    )
    for user in record.users:
        container, service = (
            quote_markdown(user.get("container", "?")),
            quote_markdown(user.get("service") or "-"),
        )
        place = (
            f"image {quote_markdown(user.get('image', '?'))} at"
            f" {quote_markdown(user.get('destination', '?'))}"
        )
        yield f"- used by {container} (service {service}), {place}"
    for artifact in record.artifacts:
        kind = escape_markdown(artifact.kind)
        if artifact.database is not None:
            kind += f" {quote_markdown(artifact.database)}"
        yield (
            f"- {quote_markdown(artifact.file)}: {kind}, {artifact.bytes} bytes, sha256"
            f" {escape_markdown(artifact.sha256)}"
        )
    for note in record.notes:
        yield f"- note: {escape_markdown(note)}"
    if any(HIDDEN in value for value in record.options.values()):
        yield f"- put the real value in the place of `{HIDDEN}` below"
    if record.location == "folder" and is_restored_beside(record):
        yield (
            "- `docker run -v` takes no path with a colon: the commands make another folder, which"
            " you then move to its place"
        )
    archives = [a for a in record.artifacts if a.kind == "archive"]
    for archive in archives:
        into = _into_container if record.location == "layer" else _from_archive
        yield from into(record, archive)
    for number, copy in enumerate(a for a in record.artifacts if a.kind == "sqlite"):
        yield from _sqlite_copy(copy, first=number == 0)
    yield from describe_server(record, shell_quote(f"restore-{backup_id}"), archived=bool(archives))
    for others in (a for a in record.artifacts if a.kind == "others"):
        yield from _describe_other_files(record, others)


def _from_archive(record: VolumeRecord, archive: Artifact) -> Iterator[str]:
    yield ""
    yield f"### {quote_markdown(record.name)} from its archive (everything as it was)"
    if archive.detail.get("tar") == "engine":
        yield from _unpack_through_engine(record, archive)
        return
    yield (
        "`IMAGE` is yours to choose: it needs GNU tar, and it sees the whole"
        f" {record.location}. Add `--cap-add SYS_ADMIN` after `--rm` where"
    )
    yield "`tar` says that it cannot set an attribute called `trusted.` something."
    before, after = ("FILLED= ", ' && FILLED="$VOLUME"') if record.sqlite else ("", "")
    yield from format_block(
        before + set_variables(record),
        f"{create_location(record)} &&",
        f"{print_file(archive)} | docker run --rm -i --pull never --network none --user 0 \\",
        '  -v "$VOLUME":/volume \\',
        f'  --entrypoint tar "$IMAGE" {TAR_OPTIONS}{after}',
    )
    if record.location == "file":
        yield (
            "It is in that new folder then. Move it to its own place while no container runs that"
            " mounts it."
        )


def _into_container(record: VolumeRecord, archive: Artifact) -> Iterator[str]:
    """Yield the section for the files of a container's own layer."""
    user = record.users[0] if record.users else {}
    yield ""
    yield f"### {quote_markdown(record.name)} into a container"
    yield (
        "They replace what is there under the same names. Stop the container first where it has a"
        " database open. Root keeps their"
    )
    yield "owners; `layer` is a new folder here."
    yield from format_block(
        f"CONTAINER={shell_quote(user.get('container') or 'NAME')}",
        f"mkdir layer && {print_file(archive)} | tar --numeric-owner -xpf - -C layer &&",
        'docker cp --archive layer/volume/. "$CONTAINER":/',
    )


def _describe_other_files(record: VolumeRecord, others: Artifact) -> Iterator[str]:
    """Yield the section for the files next to the database in its volume or folder.

    Its commands do nothing unless the section of the database has just created that, and overwrite
    no existing file.
    """
    yield ""
    yield (
        f"### {quote_markdown(record.name)}: the other files of the {record.location}, once its"
        " database is back"
    )
    yield (
        "They were archived while something may have written to them. Use the shell in which you"
        " restored the database."
    )
    yield "`IMAGE` needs GNU tar."
    excluded = join_for_shell([f"--exclude=volume/{path}" for path in folders_of_database(others)])
    yield from format_block(
        f"{check_made(record)} &&",
        f"{print_file(others)} | {RUN.format('-i ')} \\",
        f'  tar "$IMAGE" {TAR_OPTIONS} --skip-old-files {excluded}',
    )


def _unpack_through_engine(record: VolumeRecord, archive: Artifact) -> Iterator[str]:
    """Yield the section for an archive that docker packed through a container.

    That container is never started; docker unpacks the archive through such a container, too.
    """
    yield "`IMAGE` may be any image that has nothing at `/volume`; it is not started."
    before, after = ("FILLED= ", ' && FILLED="$VOLUME"') if record.sqlite else ("", "")
    yield from format_block(
        before + set_variables(record),
        f"{create_location(record)} &&",
        "CONTAINER=$(docker create --pull never --network none \\",
        '  -v "$VOLUME":/volume "$IMAGE" none) &&',
        f'{print_file(archive)} | docker cp - "$CONTAINER":/ && docker rm "$CONTAINER"{after}',
    )


def _sqlite_copy(copy: Artifact, *, first: bool) -> Iterator[str]:
    """Yield the section that follows the archive, in the same shell.

    Its commands do nothing unless the archive has just filled a new volume or folder.
    """
    if first:
        yield (
            "The archive was made while something wrote to it. Then put the consistent copies"
            " of its SQLite databases over"
        )
        yield "those that it holds, and remove what lay next to them. `IMAGE` needs `dd` and `rm`."
    place = shell_quote("/volume/" + unquote(copy.detail["path"], errors="surrogateescape"))
    yield from format_block(
        f"PLACE={place}",
        '[ "$FILLED" = "$VOLUME" ] &&',
        f'{print_file(copy)} | {RUN.format("-i ")} dd "$IMAGE" of="$PLACE" status=none &&',
        f'{RUN.format("")} rm "$IMAGE" -f "$PLACE-wal" "$PLACE-shm" "$PLACE-journal"',
    )
