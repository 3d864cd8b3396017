"""The parser of the steps in a journal.

A line with facts that do not fit its step becomes an `UnreadableStep`, which no reader takes for
that step: others may write to a team's store.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from safe_compose.core.observed import CONTAINER_NAME, FOLDER, VOLUME_NAME
from safe_compose.store.steps import (
    BackedUp,
    Docker,
    DoomedVolume,
    Ended,
    Filling,
    Other,
    PasswordAccepted,
    PasswordRotated,
    Placing,
    Ran,
    Refilled,
    Refilling,
    Restored,
    RestoringDatabase,
    RestoringVolume,
    RolledBack,
    RollingBack,
    RollingBackPassword,
    Running,
    Step,
    StoppedContainer,
    Stopping,
    TakenFromTrash,
    Trashed,
    Trashing,
    Undid,
    UnreadableStep,
    Untrashing,
    VolumeRestored,
    VolumeStep,
    WritingLayer,
)

_CONTAINER_ID = re.compile(r"[0-9a-f]{12,64}")


def parse(shape: Mapping[str, Any]) -> Step:
    """Return the step that one line of a journal records; never raises.

    Returns:
        `Other` for a name that no reader knows, `UnreadableStep` for facts that do not fit the
        name.
    """
    name, at = shape.get("step"), _moment(shape.get("at"))
    if not isinstance(name, str):
        return UnreadableStep(at, "")
    make = _PARSERS.get(name)
    if make is None:
        return Other(at, name)
    try:
        return make(at, _Facts(shape))
    except _BadStep:
        return UnreadableStep(at, name)


class _BadStep(ValueError):
    """An error about a fact that does not fit its step."""


class _Facts:
    """The facts of one line.

    Every method but `has` raises _BadStep for a value of another kind.
    """

    def __init__(self, shape: Mapping[str, Any]) -> None:
        """Read the facts of a decoded line."""
        self._shape = shape

    def has(self, key: str) -> bool:
        return self._shape.get(key) is not None

    def text(self, key: str) -> str:
        found = self._shape.get(key)
        if not isinstance(found, str):
            raise _BadStep
        return found

    def maybe_text(self, key: str) -> str | None:
        return self.text(key) if self.has(key) else None

    def flag(self, key: str, *, missing: bool = False) -> bool:
        found = self._shape.get(key, missing)
        if not isinstance(found, bool):
            raise _BadStep
        return found

    def volume(self, key: str) -> str:
        return _match(VOLUME_NAME, self._shape.get(key))

    def location(self, key: str) -> str:
        """Return the name of a volume, or the absolute path of a folder of the host."""
        found = self._shape.get(key)
        if not isinstance(found, str) or not found.startswith(FOLDER):
            return self.volume(key)
        if "\0" in found or ".." in found.split("/"):
            raise _BadStep
        return found

    def maybe_volume(self, key: str) -> str | None:
        return self.volume(key) if self.has(key) else None

    def below(self, key: str) -> str:
        """Return a path within a volume."""
        found = self.text(key)
        if not found or "\0" in found or found.startswith("/") or ".." in found.split("/"):
            raise _BadStep
        return found

    def list(self, key: str) -> Sequence[Any]:
        found = self._shape.get(key, ())
        if not isinstance(found, list | tuple):
            raise _BadStep
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        found = self.list(key)
        if not all(isinstance(word, str) for word in found):
            raise _BadStep
        return tuple(found)

    def volumes(self, key: str) -> frozenset[str]:
        return frozenset(_match(VOLUME_NAME, name) for name in self.list(key))

    def parts(self, key: str) -> "tuple[_Facts, ...]":
        found = self.list(key)
        if not all(isinstance(part, dict) for part in found):
            raise _BadStep
        return tuple(_Facts(part) for part in found)

    def mapping(self, key: str) -> Mapping[str, Any]:
        found = self._shape.get(key)
        if not isinstance(found, dict):
            raise _BadStep
        return found

    def texts_by_name(self, key: str) -> Mapping[str, str]:
        found = self.mapping(key)
        if not all(isinstance(value, str) for value in found.values()):
            raise _BadStep
        return found


def _match(pattern: re.Pattern[str], word: object) -> str:
    if not isinstance(word, str) or not pattern.fullmatch(word):
        raise _BadStep
    return word


def _moment(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
        return found.astimezone(UTC) if found is not None and found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


At = datetime | None


def _of_volume(kind: type[VolumeStep]) -> "Callable[[At, _Facts], Step]":
    return lambda at, facts: kind(at, facts.location("volume"))


def _parse_stopping(at: At, f: _Facts) -> Step:
    return Stopping(
        at,
        tuple(
            StoppedContainer(
                _match(CONTAINER_NAME, part.text("id")),
                part.text("name"),
                part.text("state"),
                part.text("started_at"),
                part.maybe_text("health"),
            )
            for part in f.parts("containers")
        ),
    )


def _parse_running(at: At, f: _Facts) -> Step:
    return Running(
        at,
        tuple(
            DoomedVolume(
                part.volume("name"),
                part.maybe_text("driver"),
                part.texts_by_name("options") if part.has("options") else None,
            )
            for part in f.parts("volumes")
        ),
        f.maybe_text("backup"),
        f.texts("services"),
    )


def _parse_ran(at: At, f: _Facts) -> Step:
    gone = f.volumes("gone") if f.has("gone") else None
    return Ran(
        at, gone, f.volumes("survived"), frozenset(part.volume("name") for part in f.parts("parts"))
    )


def _parse_restoring_volume(at: At, f: _Facts) -> Step:
    if not f.has("volume"):
        return RollingBackPassword(at)
    return RestoringVolume(
        at,
        f.location("volume"),
        f.flag("existed", missing=True),  # only a volume that we certainly created is ever removed
        f.maybe_text("safety"),
        f.maybe_volume("trash"),
        f.flag("forgets"),
        f.flag("outside"),
        f.texts_by_name("users") if f.has("users") else None,
        f.flag("adds"),
        f.flag("seen_empty"),
    )


_STAGING = re.compile(r"\.(?:(?P<name>.*)\.)?safe-compose-(?P<token>[0-9a-f]{6})", re.DOTALL)
"""The name of a folder that is filled (`volumes.single_path`, `volumes.folder_swap`)."""


def _parse_writing_layer(at: At, f: _Facts) -> Step:
    container = _match(_CONTAINER_ID, f.text("container"))
    return WritingLayer(at, f.text("volume"), container, f.text("backup"))


def _parse_placing(at: At, f: _Facts) -> Step:
    """Return the step, unless its names are none that we give: what they name may be removed."""
    path, staging, old_path = f.below("path"), f.below("staging"), f.below("aside")
    named = _STAGING.fullmatch(staging)
    if (
        named is None
        or "/" in staging
        or named["name"] not in (None, path[:100])
        or old_path != f"{path}.before-{named['token']}"
    ):
        raise _BadStep
    return Placing(
        at, f.location("volume"), path, staging, old_path, f.flag("existed"), f.flag("is_file")
    )


def _parse_restoring_database(at: At, f: _Facts) -> Step:
    names = (f.text("database"), f.text("beside"), f.maybe_text("aside"))
    return RestoringDatabase(
        at, _match(CONTAINER_NAME, f.text("container")), f.text("volume"), *names, f.texts("roles")
    )


_PARSERS: Mapping[str, Callable[[At, _Facts], Step]] = {
    "ended": lambda at, f: Ended(at, f.maybe_text("outcome") or "ended"),
    "stopping": _parse_stopping,
    "backed-up": lambda at, f: BackedUp(at, f.maybe_text("backup")),
    "running": _parse_running,
    "docker": lambda at, f: Docker(at, f.mapping("process")),
    "ran": _parse_ran,
    "putting-back": _parse_restoring_volume,
    "put-back": _of_volume(VolumeRestored),
    "rolled-back": _of_volume(RolledBack),
    "taking-back": _of_volume(RollingBack),
    "filling": _of_volume(Filling),
    "refilling": lambda at, f: Refilling(at, f.volume("volume"), f.text("backup")),
    "refilled": _of_volume(Refilled),
    "restored": lambda at, _: Restored(at),
    "undid": lambda at, f: Undid(at, f.text("run")),
    "placing": _parse_placing,
    "writing-layer": _parse_writing_layer,
    "beside": _parse_restoring_database,
    "trashing": lambda at, f: Trashing(
        at, f.volume("volume"), f.volume("trash"), f.maybe_text("facts")
    ),
    "trashed": lambda at, f: Trashed(
        at, f.volume("volume"), f.volume("trash"), f.maybe_text("empty")
    ),
    "untrashing": _of_volume(Untrashing),
    "taken-out": _of_volume(TakenFromTrash),
    "let-in": lambda at, _: PasswordAccepted(at),
    "rotated": lambda at, _: PasswordRotated(at),
    "putting-password-back": lambda at, _: RollingBackPassword(at),
}
"""Name of each step that some reader knows -> the function that makes its value."""
KNOWN = frozenset(_PARSERS)
