"""The volumes that a prune takes, and the filters that decide.

This module is pure.
"""

from collections.abc import Mapping, Sequence

from safe_compose.core.observed import ANONYMOUS_LABEL, Observed, Volume
from safe_compose.grammar.parser import Invocation


def list_prunable(
    invocation: Invocation, observed: Observed, *, all_is_images: bool = False
) -> list[Volume]:
    """Return the volumes that the engine takes for prunable (docker-facts, traps 7 and 15).

    They are local, without driver options, pass the label filters and, from API 1.42 on, are
    anonymous by label unless all are asked for.

    Wider than the truth: label filters in `pruneFilters` of docker's configuration are not applied,
    because client 20.10 adds them to a prune and client 28.2 does not (run).
    """
    filters = read_filters(invocation)
    takes_all = (
        observed.prune_takes_named
        or (invocation.is_set("all") and not all_is_images)
        or any(key == "all" and value not in ("0", "false") for key, value in filters)
    )
    return [
        v
        for v in observed.volumes
        if v.driver == "local" and not v.options
        if takes_all or ANONYMOUS_LABEL in v.labels
        if passes_filters(filters, v.labels)
    ]


def read_filters(invocation: Invocation) -> list[tuple[str, str]]:
    """Return (key, value) of each --filter; `label!=x` has the key `label!`.

    Keys are compared in lower case, without blanks.
    """
    pairs = (value.partition("=") for name, value in invocation.flags if name == "filter")
    return [(key.strip().lower(), value.strip()) for key, _, value in pairs]


def passes_filters(filters: Sequence[tuple[str, str]], labels: Mapping[str, str]) -> bool:
    """Return whether labels pass filters, as moby's matchLabels decides.

    Every `label` filter must match; `label!` keeps what matches all of its filters.
    """

    def matches(wanted: str) -> bool:
        key, equals, value = wanted.partition("=")
        return key in labels and (not equals or labels[key] == value)

    without = [value for key, value in filters if key == "label!"]
    return all(matches(value) for key, value in filters if key == "label") and not (
        without and all(map(matches, without))
    )
