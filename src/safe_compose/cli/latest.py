"""The project whose newest backup `latest` means."""

from typing import TYPE_CHECKING

from safe_compose.cli.options import make_down
from safe_compose.errors import DockerNotFound
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.ui import terminal

if TYPE_CHECKING:
    from safe_compose.engine.commands import Commands
    from safe_compose.grammar.parser import Invocation


def find_folder_project(
    commands: "Commands", invocation: "Invocation", catalogue: Catalogue
) -> str | None:
    """Return the project of this folder, found as compose does; the engine is not asked.

    Returns:
        None where there is none: then every project is meant. A folder that only lends its name
        counts when there are backups under that name.

    Raises:
        Refused: Compose would act on a project here that it does not show.
    """
    found = commands.find_project(invocation)
    return (
        found.name
        if found is not None
        and (found.mode == "config" or catalogue.reader.list_summaries(found.name))
        else None
    )


def choose_project(id: str | None, project: str | None, catalogue: Catalogue) -> str | None:
    """Return the project that `--project` names, or the folder's where `latest` is asked for.

    Args:
        id: The argument of the verb; None is `latest`.
        project: The value of `--project`.
        catalogue: The catalogue of the store.

    Returns:
        None for every project. If the store has backups of several, that is reported.

    Raises:
        Refused: Compose would act on a project here that it does not show.
    """
    if project is not None or id not in (None, "latest"):
        return project
    from safe_compose.workspace import begin

    invocation = make_down(None, None)
    try:
        begun = begin(invocation)
    except DockerNotFound:
        found = None
    else:
        try:
            found = find_folder_project(begun.engine.commands, invocation, catalogue)
        finally:
            begun.engine.close()
    if found is None and len({line.project for line in catalogue.reader.list_summaries()}) > 1:
        terminal.say("safe-compose: no compose project in this folder: latest is of all projects")
    return found
