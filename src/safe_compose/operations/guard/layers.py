"""The data in the layers of containers that a command removes: no volume holds it.

docker deletes the layer with its container. As a rule this is said in one line, and docker runs;
`[guard] layers` makes a question of it, or silence.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import replace

from safe_compose.compose.first_query import has_single_use_inputs
from safe_compose.core.layers import LayerContent, describe_losses, find_recreated, find_removed
from safe_compose.core.observed import LAYER, Observed
from safe_compose.core.plan import Plan
from safe_compose.core.text import shell_quote, shell_quote_always
from safe_compose.errors import Interrupted, Refused, SafeComposeError
from safe_compose.fastpath.layer_data import RECREATE, REMOVE
from safe_compose.grammar import own_flags
from safe_compose.grammar.parser import Invocation
from safe_compose.operations.layer_changes import LISTING_SECONDS, inspect_layers
from safe_compose.system.children import hold_standard_descriptors
from safe_compose.ui import terminal
from safe_compose.workspace import Workspace, open_workspace

PATIENCE = 0.7
"""Seconds for the engine's lists of all containers; the first look had the rest of a second."""


def check(invocation: Invocation) -> None:
    """Say what a command without a guard of its own takes from the layers of containers.

    A fault on the way changes nothing: docker then runs as it was asked to.

    Raises:
        Refused: The settings ask for a confirmation, and there was none.
        OperationFailed: The backup that takes its place failed.
    """
    hold_standard_descriptors()
    if has_single_use_inputs(invocation):
        return
    invocation = invocation._replace(own=own_flags.add_environment(invocation.own, os.environ))
    try:
        workspace = open_workspace(invocation, guarded=True)
    except SafeComposeError:
        return  # docker says itself what is wrong
    with workspace.engine:
        try:
            observed = workspace.engine.commands.look(invocation)
        except SafeComposeError:
            return
        tell(workspace, invocation, observed)


def tell(workspace: Workspace, invocation: Invocation, observed: Observed) -> None:
    """Say what a command takes from the layers of containers, as the settings want it.

    Raises:
        Refused: They ask for a confirmation, and there was none.
    """
    mode, losses = find_losses(workspace, invocation, observed)
    if not losses:
        return
    terminal.say(f"safe-compose: {describe_losses(losses)}; {advise(losses)}")
    if mode == "ask":
        _confirm(workspace, invocation, losses)


def add_warning(workspace: Workspace, made: Plan) -> Plan:
    """Return a plan that a person confirms anyway, with a warning of what the layers lose.

    Layers that were looked into already are not looked into again.
    """
    if made.layer_warning is not None:
        return made
    _, losses = find_losses(workspace, made.invocation, made.observed)
    warning = f"{describe_losses(losses)}; {advise(losses)}" if losses else ""
    return replace(made, layer_warning=warning)


def find_losses(
    workspace: Workspace, invocation: Invocation, observed: Observed
) -> tuple[str, list[LayerContent]]:
    """Return the setting `[guard] layers`, and the containers with data of their own that go.

    A fault of the engine is no reason to stop docker: then there are none.
    """
    try:
        mode = workspace.settings_for(observed, ()).layers
        if mode == "off" or invocation.verb not in REMOVE | RECREATE:
            return mode, []
        recreated = _find_recreated(workspace, invocation, observed)
    except SafeComposeError:
        return "off", []
    until = time.monotonic() + PATIENCE
    found = inspect_layers(workspace.engine, find_removed(invocation, observed, recreated), until)
    return mode, [loss for loss in found if loss.unread or not loss.data.is_empty]


def _find_recreated(
    workspace: Workspace, invocation: Invocation, observed: Observed
) -> frozenset[str]:
    """Return the containers that compose would replace; none for a verb that replaces none."""
    project = observed.project
    if invocation.verb not in RECREATE or project is None or project.old:
        return frozenset()
    hashes = workspace.engine.commands.service_hashes(invocation)
    if hashes is None:
        return frozenset()
    references = {c.image for c in observed.containers if project.owns(c)}
    found = {name: workspace.engine.docker.image(name) for name in references}
    images = {name: image.id for name, image in found.items() if image is not None}
    return find_recreated(invocation, observed, hashes, images)


def advise(losses: Sequence[LayerContent]) -> str:
    """Return what keeps the data."""
    if all(loss.container.project for loss in losses):
        return "to keep it, first: safe-compose backup"
    return f"to keep it, first: docker cp {shell_quote(losses[0].container.name)}:PATH ."


def _confirm(workspace: Workspace, invocation: Invocation, losses: Sequence[LayerContent]) -> None:
    """Have the loss confirmed by a person or by flags; a backup takes the place of that.

    Raises:
        Refused: It was not confirmed.
        OperationFailed: The backup failed.
    """
    own = invocation.own
    projects = {loss.container.project for loss in losses}
    name = projects.pop() if len(projects) == 1 else None
    phrase = name or losses[0].container.name
    nobody = own.confirm is not None or own.non_interactive
    ask = None if nobody else terminal.Terminal.open()
    if ask is None and own.backup_first and own.confirm is None and name is not None:
        _back_up(workspace, invocation, losses)
        return
    if ask is None:
        if own.confirm == phrase:
            return
        raise Refused(
            "[guard] layers asks for a confirmation before data in a container's own layer goes",
            next_step=(
                "add --non-interactive --backup-first to back it up, or --confirm"
                f" {shell_quote_always(phrase)} to lose it"
                if name is not None
                else f"{advise(losses)}; then add --confirm {shell_quote_always(phrase)}"
            ),
        )
    try:
        answer = ask.ask("Delete it without a backup? [y/N] ")
    except KeyboardInterrupt as stop:
        raise Interrupted("interrupted; nothing was removed") from stop
    if answer.strip().lower() not in ("y", "yes"):
        raise Refused("not confirmed; nothing was removed")


def keep_where_asked(workspace: Workspace, made: Plan) -> None:
    """Back up the layers of a confirmed deletion, where the settings ask about them.

    Raises:
        OperationFailed: The backup failed.
    """
    own = made.invocation.own
    if own.skip_backup or workspace.settings_for(made.observed, ()).layers != "ask":
        return
    _, losses = find_losses(workspace, made.invocation, made.observed)
    if losses and made.observed.project is not None:
        _back_up(workspace, made.invocation, losses)


def _back_up(workspace: Workspace, invocation: Invocation, losses: Sequence[LayerContent]) -> None:
    """Back up what the layers of these containers of one project hold.

    With more patience some may turn out to hold nothing.

    Raises:
        OperationFailed: A part of them could not be backed up.
    """
    # Imported here, docker runs sooner where nothing is backed up.
    from safe_compose.operations.backup import manual
    from safe_compose.operations.backup.omissions import report_incomplete

    until = time.monotonic() + LISTING_SECONDS
    again = inspect_layers(workspace.engine, [loss.container for loss in losses], until)
    names = [
        f"{LAYER}{loss.container.name}" for loss in again if loss.unread or not loss.data.is_empty
    ]
    if not names:
        return
    backup = manual.back_up(workspace, invocation, names=names, wait=0.0, reason="pre-delete")
    if (fault := report_incomplete(backup)) is not None:
        raise fault
    terminal.say(
        f"safe-compose: what their layers hold is in backup {backup.id}; to restore it:"
        f" safe-compose restore {backup.id}"
    )
