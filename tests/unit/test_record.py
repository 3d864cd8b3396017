"""Records behave as those of `typing.NamedTuple`, which they stand for."""

import copy
import pickle
from typing import NamedTuple

import pytest

from safe_compose import record


class Ours(record.NamedTuple):
    """A record of ours."""

    first: int
    second: str = "two"
    third: tuple[int, ...] = ()

    @property
    def both(self) -> str:
        """Two of its fields."""
        return f"{self.first} {self.second}"


class Theirs(NamedTuple):
    """The same of Python's own."""

    first: int
    second: str = "two"
    third: tuple[int, ...] = ()


def test_a_record_is_a_tuple_with_names() -> None:
    ours, theirs = Ours(1, third=(3,)), Theirs(1, third=(3,))
    assert ours == theirs and hash(ours) == hash(theirs) and [*ours] == [1, "two", (3,)]
    assert (ours.first, ours.second, ours.third, ours.both) == (1, "two", (3,), "1 two")
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert ours._asdict() == theirs._asdict() and Ours._fields == Theirs._fields
    assert ours._replace(second="2") == Ours(1, "2", (3,)) and ours.second == "two"
    assert pickle.loads(pickle.dumps(ours)) == copy.deepcopy(ours) == ours
    assert Ours.__doc__ == "A record of ours." and Ours.__module__ == __name__
    match ours:
        case Ours(first, second):
            assert (first, second) == (1, "two")


def test_a_record_takes_its_fields_and_nothing_else() -> None:
    for wrong in (
        lambda: Ours(),  # type: ignore[call-arg]
        lambda: Ours(1, "2", (), 4),  # type: ignore[call-arg]
        lambda: Ours(1, first=1),  # type: ignore[misc]
        lambda: Ours(1, fourth=4),  # type: ignore[call-arg]
        lambda: Ours(second="2"),  # type: ignore[call-arg]
        lambda: Ours(1)._replace(fourth=4),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError):
            wrong()
    for change in (
        lambda one: setattr(one, "first", 2),
        lambda one: setattr(one, "other", 2),
        lambda one: delattr(one, "first"),
    ):
        with pytest.raises(AttributeError):
            change(Ours(1))
