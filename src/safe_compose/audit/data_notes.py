"""The data that a shell line deletes besides volumes: in databases, and in folders of services.

No guard stands before such commands. The answer about them is a note, unless the settings ask for
more (`[hook] inside`).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from safe_compose.audit.compose_mounts import find_mounts
from safe_compose.audit.data_commands import CLIENTS, DATA_WORDS, find_data_deletion
from safe_compose.audit.mounted_folders import find_mount_loss, may_change_folder
from safe_compose.audit.shell_line import ShellLine
from safe_compose.audit.shell_words import Word

_NAMED = re.compile(
    "|".join(rf"(?<![\w-]){re.escape(name)}(?![\w-])" for name in (*CLIENTS, *DATA_WORDS))
)


def may_hold_data_deletion(text: str, here: Path) -> bool:
    """Return whether a script may delete data inside a database, or files that a service mounts."""
    if _NAMED.search(text) is not None:
        return True
    return may_change_folder(text) and bool(find_mounts(here))


def find_notes(line: ShellLine, here: Path) -> Iterator[str]:
    """Yield a sentence about each command of a line that deletes such data."""

    def read_written(path: Word) -> str:
        return "\n".join(
            word.text
            for write in line.writes
            if write.path.text == path.text
            for word in write.content
        )

    for command in line.commands:
        deletes = find_data_deletion(command, read_written)
        if deletes:
            where = " on another machine" if "ssh" in command.via else ""
            yield _sentence(f"`{deletes}` deletes data inside a database{where}", where)
        elif loss := find_mount_loss(command, line, here):
            yield _sentence(
                f"`{command.program}` {loss.does} {loss.mount.source}, which the service"
                f" {loss.mount.service} mounts",
                "",
            )


def _sentence(what: str, where: str) -> str:
    return (
        f"Run `safe-compose backup`{where} first: {what}, and safe-compose makes no backup before"
        " it"
    )
