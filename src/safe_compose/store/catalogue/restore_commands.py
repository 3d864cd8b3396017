"""The commands in `RESTORE.md` that several of its sections use."""

from collections.abc import Iterable, Iterator, Sequence

from safe_compose.core.backup import Artifact, VolumeRecord
from safe_compose.core.text import join_for_shell, shell_quote

TAR_OPTIONS = "-C / --numeric-owner --same-owner --xattrs '--xattrs-include=*' --acls -xpf -"
RUN = 'docker run --rm {}--pull never --network none --user 0 -v "$VOLUME":/volume --entrypoint'
"""Beginning of a helper command. It gets `-i` only where input is piped in: otherwise `docker run`
would consume the lines pasted after it."""


def format_block(*lines: str) -> Iterator[str]:
    """Yield a block of shell commands with empty lines around it."""
    yield ""
    yield "```sh"
    yield from lines
    yield "```"
    yield ""


def print_file(artifact: Artifact) -> str:
    """Return the command that prints the content of a file."""
    file = shell_quote("./" + artifact.file)
    return f'age -d -i "$KEY" {file} | gzip -dc' if artifact.sealed else f"gzip -dc {file}"


def create_location(record: VolumeRecord) -> str:
    """Return the commands that create the volume as it was, or the folder.

    They fail where one of that name exists.
    """
    made = f"MADE={shell_quote(record.name)}"
    if record.location in ("folder", "file"):
        # not `mkdir -p` alone, which leaves an existing folder alone and succeeds
        return f'mkdir -p "${{VOLUME%/*}}/" && mkdir "$VOLUME" && {made}'
    absent = '! docker volume inspect "$VOLUME" >/dev/null 2>&1'
    return f"{absent} && {_make_create_command(record)} && {made}"


def check_made(record: VolumeRecord) -> str:
    """Return the command that fails unless a section before it created the volume or folder."""
    return f'[ "$MADE" = {shell_quote(record.name)} ]'


def _make_create_command(record: VolumeRecord) -> str:
    words = ["docker", "volume", "create", "--driver", record.driver]
    words += [
        word
        for name, value in sorted(record.options.items())
        for word in ("--opt", f"{name}={value}")
    ]
    words += [
        word
        for name, value in sorted(record.labels.items())
        for word in ("--label", f"{name}={value}")
    ]
    return join_for_shell(words) + ' "$VOLUME"'


def is_restored_beside(record: VolumeRecord) -> bool:
    """Return whether the commands make a new folder next to the place, from which it is moved.

    A single file comes out within a folder; and `docker run -v` takes no path with a colon.
    """
    return record.location == "file" or (record.location == "folder" and ":" in record.name)


def _mountable(record: VolumeRecord) -> str:
    return record.name.replace(":", "_")


def set_variables(record: VolumeRecord) -> str:
    """Return the assignments of the variables that the other commands use."""
    image = next((u["image"] for u in record.users if u.get("image")), "debian:12")
    name = f"{_mountable(record)}.restored" if is_restored_beside(record) else record.name
    return f"MADE= VOLUME={shell_quote(name)} IMAGE={shell_quote(image)}"


def run_on_volume(before: str, commands: Iterable[Sequence[str]]) -> list[str]:
    """Return lines that run commands of the service's image on the volume after a line.

    Each runs only if the one before it succeeded.
    """
    lines = [before]
    for program, *rest in commands:
        lines[-1] += " &&"
        lines.append(f'{RUN.format("")} {program} "$IMAGE" {join_for_shell(rest)}')
    return lines
