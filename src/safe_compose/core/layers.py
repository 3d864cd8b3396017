"""The containers that a command removes, and what goes with their own layers.

This module is pure.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from safe_compose.core.compose_down import is_one_off, is_orphan, is_removed_by_down
from safe_compose.core.observed import CONFIG_HASH_LABEL, Container, Observed, Project
from safe_compose.core.prune import passes_filters, read_filters
from safe_compose.core.quantities import count
from safe_compose.core.text import make_visible
from safe_compose.core.threat import match_containers
from safe_compose.fastpath.layer_data import RECREATE, LayerData, find_folder
from safe_compose.grammar.parser import Invocation

MOST_NAMES = 3
"""Most containers, and most places of one container, that a sentence names."""


@dataclass(frozen=True, slots=True)
class LayerContent:
    """A container, with the data in its own layer, which goes with it."""

    container: Container
    data: LayerData
    unread: bool = False
    """Whether the engine did not list all of its changes in time."""
    changed: tuple[str, ...] = ()
    """The paths that it added or changed, folders included."""

    def describe(self) -> str:
        """Return its data in words: `a database in /var/lib/x, 3 files in /app/uploads`.

        What is unknown is said too.
        """
        found = [f"a database in {folder}" for folder in self.data.databases]
        found += [f"SQLite {path}" for path in self.data.sqlite]
        folders = Counter(find_folder(path) or path for path in self.data.files)
        found += [f"{count(number, 'file')} in {folder}" for folder, number in folders.items()]
        shown = [make_visible(words) for words in found[:MOST_NAMES]]
        shown += [f"{len(found) - MOST_NAMES} more"] if len(found) > MOST_NAMES else []
        if self.unread:
            shown.append(f"{'what else' if shown else 'what'} it holds could not be listed in time")
        return ", ".join(shown)


def describe_losses(losses: Sequence[LayerContent]) -> str:
    """Return in one sentence what goes with these containers."""
    known = [loss for loss in losses if not loss.data.is_empty]
    unknown = [loss.container.name for loss in losses if loss.data.is_empty]
    said = []
    if known:
        names = _join([f"{loss.container.name} ({loss.describe()})" for loss in known])
        said.append(f"this deletes data that is in no volume: {names}")
    if unknown:
        whose = "its own layer holds" if len(unknown) == 1 else "their own layers hold"
        subject = "also" if known else "this deletes"
        said.append(f"{subject} {_join(unknown)}: what {whose} could not be listed in time")
    return "; ".join(said)


def _join(words: Sequence[str]) -> str:
    """Return the first of these, each about a container, and the number of the others."""
    more = len(words) - MOST_NAMES
    shown = ", ".join(words[:MOST_NAMES])
    return shown + (f" and {count(more, 'other container')}" if more > 0 else "")


def find_removed(
    invocation: Invocation, observed: Observed, recreated: Collection[str] = ()
) -> tuple[Container, ...]:
    """Return the containers that the command removes, without those made to be thrown away.

    Args:
        invocation: The command.
        observed: The state of the engine.
        recreated: Ids of the containers that compose would replace.
    """
    goes = _find_rule(invocation, observed, recreated)
    if goes is None:
        return ()
    return tuple(
        c for c in observed.containers if not c.auto_remove and not c.is_marked_as_ours and goes(c)
    )


def _find_rule(
    invocation: Invocation, observed: Observed, recreated: Collection[str]
) -> Callable[[Container], bool] | None:
    """Return what tells whether the command removes a container; None where it removes none."""
    verb, project = invocation.verb, observed.project
    if verb == ("container", "rm"):
        force = invocation.is_set("force")
        named = {c.id for c in match_containers(invocation.operands, observed)}
        return lambda c: c.id in named and (force or not c.lively)
    if verb in (("container", "prune"), ("system", "prune")):
        filters = read_filters(invocation)
        return lambda c: not c.lively and passes_filters(filters, c.labels)
    if project is None:
        return None
    if verb == ("compose", "down"):
        theirs = [c for c in observed.containers if project.owns(c)]
        return lambda c: (
            project.owns(c) and is_removed_by_down(c, invocation, project, theirs, doubt=False)
        )
    if verb == ("compose", "rm"):
        return lambda c: _is_removed_by_rm(c, invocation, project)
    if verb in RECREATE:
        orphans = invocation.is_set("remove-orphans")
        return lambda c: (
            c.id in recreated
            or (orphans and project.owns(c) and is_orphan(c, project) and not is_one_off(c))
        )
    return None


def _is_removed_by_rm(container: Container, invocation: Invocation, project: Project) -> bool:
    named = not invocation.operands or container.service in invocation.operands
    ends = invocation.is_set("stop") or not container.lively
    return project.owns(container) and named and ends and not is_one_off(container)


def find_recreated(
    invocation: Invocation,
    observed: Observed,
    hashes: Mapping[str, str],
    images: Mapping[str, str],
) -> frozenset[str]:
    """Return the ids of the containers that compose would replace, or may replace.

    Args:
        invocation: The command.
        observed: The state of the engine.
        hashes: Service -> the hash of its definition, as compose computes it now.
        images: Reference of an image -> the id that it has now.
    """
    project = observed.project
    if project is None:
        return frozenset()
    named = {word.partition("=")[0] for word in invocation.operands}
    alone = invocation.is_set("no-deps")
    forced, every = invocation.is_set("force-recreate"), invocation.is_set("always-recreate-deps")
    renews_images = invocation.is_set("build") or invocation.flag("pull") == "always"

    def changed(container: Container) -> bool:
        service = container.service or ""
        meant = not named or service in named
        if service not in hashes or is_one_off(container) or (alone and not meant):
            return False
        if invocation.verb == ("compose", "run") and meant and named:
            return False  # a new container is made; that of the service stays
        return (
            (forced and meant)
            or (every and not meant)
            or renews_images
            or container.labels.get(CONFIG_HASH_LABEL) != hashes[service]
            or images.get(container.image, container.image_id) != container.image_id
        )

    return frozenset(c.id for c in observed.containers if project.owns(c) and changed(c))
