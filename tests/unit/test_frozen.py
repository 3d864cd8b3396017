"""Frozen classes behave as those of `dataclasses`, which they stand for."""

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, cast

import pytest

from safe_compose import frozen


@frozen.dataclass(frozen=True, slots=True)
class Ours:
    """A class of ours."""

    kind: ClassVar[str] = "kind"
    first: int
    second: str = "two"
    third: list[int] = dataclasses.field(default_factory=list, compare=False, repr=False)

    @property
    def both(self) -> str:
        """Two of its fields."""
        return f"{self.first} {self.second}"


@dataclasses.dataclass(frozen=True, slots=True)
class Theirs:
    """The same of Python's own."""

    kind: ClassVar[str] = "kind"
    first: int
    second: str = "two"
    third: list[int] = dataclasses.field(default_factory=list, compare=False, repr=False)


@frozen.dataclass(frozen=True, slots=True)
class Longer(Ours):
    """One with more fields."""

    fourth: int = 4


@frozen.dataclass(frozen=True, kw_only=True)
class Named:
    """One without slots, whose fields have to be named."""

    first: int = 1
    second: int

    @cached_property
    def total(self) -> int:
        """Their sum."""
        return self.first + self.second


@frozen.dataclass(frozen=True, eq=False)
class Alone:
    """One that is equal to itself only."""

    first: int


@frozen.dataclass(frozen=True, slots=True)
class Empty:
    """One without fields."""


def test_it_does_what_pythons_own_does() -> None:
    ours, theirs = Ours(1, third=[3]), Theirs(1, third=[3])
    assert (ours.first, ours.second, ours.third, ours.both) == (1, "two", [3], "1 two")
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours") == "Ours(first=1, second='two')"
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert [f.name for f in dataclasses.fields(ours)] == ["first", "second", "third"]
    assert Ours.__match_args__ == Theirs.__match_args__ and Ours.kind == "kind"
    assert Ours.__doc__ == "A class of ours." and Ours.__module__ == __name__
    assert pickle.loads(pickle.dumps(ours)) == copy.deepcopy(ours) == copy.copy(ours) == ours
    assert not hasattr(ours, "__dict__")
    match ours:
        case Ours(first, second):
            assert (first, second) == (1, "two")


def test_fields_that_count_are_compared_and_hashed() -> None:
    assert Ours(1) == Ours(1, "two", [3]) and hash(Ours(1)) == hash(Ours(1, "two", [3]))
    assert Ours(1) != Ours(2) and cast(object, Ours(1)) != Theirs(1) and Ours(1) != Longer(1)
    assert Empty() == Empty() and hash(Empty()) == hash(Empty()) and repr(Empty()) == "Empty()"
    alone = Alone(1)
    assert alone == alone and alone != Alone(1) and len({alone, Alone(1)}) == 2


def test_every_one_gets_a_default_of_its_own() -> None:
    assert Ours(1).third == [] and Ours(1).third is not Ours(1).third


def test_a_copy_with_other_values_is_complete() -> None:
    longer = Longer(1, "2", [3], 5)
    assert dataclasses.replace(longer, first=6) == Longer(6, "2", [3], 5)
    assert repr(longer) == "Longer(first=1, second='2', fourth=5)"
    named = Named(second=2)
    assert named.total == 3 and dataclasses.replace(named, first=5).total == 7
    assert named == Named(first=1, second=2) and hash(named) == hash(Named(second=2))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Ours(),  # type: ignore[call-arg]
        lambda: Ours(1, "2", [], 4),  # type: ignore[call-arg]
        lambda: Ours(1, first=1),  # type: ignore[misc]
        lambda: Ours(1, fourth=4),  # type: ignore[call-arg]
        lambda: Ours(second="2"),  # type: ignore[call-arg]
        lambda: Named(1, 2),  # type: ignore[call-arg]
        lambda: Named(),  # type: ignore[call-arg]
        lambda: dataclasses.replace(Ours(1), fourth=4),  # type: ignore[call-arg]
        lambda: frozen.dataclass(frozen=False)(Empty),
    ],
)
def test_it_takes_its_fields_and_nothing_else(wrong: Callable[[], Any]) -> None:
    with pytest.raises(TypeError):
        wrong()


@pytest.mark.parametrize("one", [Ours(1), Named(second=2), Alone(1), Empty()])
def test_nothing_of_it_can_be_changed(one: Any) -> None:
    for name in ("first", "other"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, name, 2)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(one, name)


def test_methods_of_its_own_stay() -> None:
    @frozen.dataclass(frozen=True, slots=True)
    class Own:
        """One with methods of its own."""

        first: int

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

        def __repr__(self) -> str:
            return "own"

    assert Own(1) == Own(2) and hash(Own(2)) == 1 and repr(Own(1)) == "own"
    assert inspect.isclass(Own)
