"""A replacement of `typing.NamedTuple` that does not import `typing`.

That import would take 7 ms of every command that contains a suspicious word.
"""

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:

    class _Named(type):
        """A metaclass that turns a class with annotated fields into a namedtuple.

        Defaults and methods of the class are kept. `NamedTuple` itself, which has no base, stays a
        class.
        """

        def __new__(cls, name: str, bases: tuple[type, ...], names: "dict[str, Any]") -> "Any":
            if not bases:
                return super().__new__(cls, name, bases, names)
            fields = list(names.get("__annotations__", ()))
            made = namedtuple(
                name,
                fields,
                defaults=[names[f] for f in fields if f in names],
                module=names["__module__"],
            )
            for key, value in names.items():
                if key not in fields and key not in ("__module__", "__qualname__"):
                    setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_Named):
        """A base class for declaring records with named fields."""


__all__ = ["NamedTuple"]
