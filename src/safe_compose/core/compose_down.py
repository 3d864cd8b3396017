"""The containers that `compose down` removes.

This module is pure.
"""

from collections.abc import Sequence

from safe_compose.core.observed import ONEOFF_LABEL, Container, Project
from safe_compose.grammar.parser import Invocation


def is_removed_by_down(
    container: Container,
    invocation: Invocation,
    project: Project,
    theirs: Sequence[Container],
    *,
    doubt: bool,
) -> bool:
    """Return whether `compose down` removes this container of the project.

    The rules were tried with 2.26.1 and 2.40.3.

    It removes exactly the services named, or else all services that are active (config mode) or
    have a container (label mode). One-offs and orphans are removed only with --remove-orphans;
    containers of inactive profiles are no orphans. `doubt` is the answer where this is unknown.
    """
    service = container.service or ""
    # 1.29.2 (compose/project.py `down`), run: one-offs are removed as well, but not those of
    # orphans
    if project.old:
        return service in project.services or (
            invocation.is_set("remove-orphans") and not is_one_off(container)
        )
    orphans_too = invocation.is_set("remove-orphans") or (
        project.removes_orphans and invocation.flag("remove-orphans") is None
    )
    if is_one_off(container) and not orphans_too:
        return False
    named = set(invocation.operands)
    if project.mode == "label":
        known = {c.service for c in theirs if not is_one_off(c)}
        if not named:
            return True
        if not named & known:
            # 2.26.1 takes a list of unknown names for all services, 2.30 does nothing
            # (docker-facts, section 1)
            return doubt
        return service in named or (doubt and orphans_too)
    if is_orphan(container, project):
        if service in project.disabled:
            return service in named
        return orphans_too
    return not named or service in named or (doubt and is_one_off(container))


def is_orphan(container: Container, project: Project) -> bool:
    """Return whether the compose file has no active service of the container (config mode)."""
    return project.mode == "config" and (container.service or "") not in project.services


def is_one_off(container: Container) -> bool:
    """Return whether `compose run` created the container."""
    return container.labels.get(ONEOFF_LABEL, "").lower() == "true"
