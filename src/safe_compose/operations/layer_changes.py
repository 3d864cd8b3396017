"""The data that containers hold in their own layers, by the names of changed files."""

from collections.abc import Iterator, Sequence

from safe_compose.core.layers import LayerContent
from safe_compose.core.observed import Container
from safe_compose.engine import Engine
from safe_compose.fastpath.layer_data import LayerData, find_data

LISTING_SECONDS = 30.0
"""Seconds for the engine's lists of what containers changed, where a copy depends on them."""
MOST_CHECKED = 16
"""Most files of a container that are looked at one by one; of more, some certainly exist."""


def inspect_layers(
    engine: Engine, containers: Sequence[Container], until: float
) -> Iterator[LayerContent]:
    """Yield the content of each container's layer, as far as it is known until a moment."""
    listed = engine.layers.list_changes([container.id for container in containers], until)
    for container, changes in zip(containers, listed, strict=True):
        found = find_data(changes.paths, [mount.destination for mount in container.mounts])

        def is_there(path: str, identity: str = container.id) -> bool:
            return engine.layers.holds_file(identity, path, until) is not False

        sqlite, files = (
            paths if len(paths) > MOST_CHECKED else tuple(filter(is_there, paths))
            for paths in (found.sqlite, found.files)
        )
        data = LayerData(found.databases, sqlite, files)
        yield LayerContent(container, data, unread=not changes.whole, changed=changes.paths)
