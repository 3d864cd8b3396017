"""`typing.NamedTuple` without typing, whose import takes 7 ms of every command with a suspicious word."""

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:

    class _Named(type):
        """Makes a namedtuple of a class with annotated fields, their defaults and methods; `NamedTuple` itself stays a class."""

        def __new__(cls, name: str, bases: tuple[type, ...], names: "dict[str, Any]") -> "Any":
            if not bases:
                return super().__new__(cls, name, bases, names)
            fields = list(names.get("__annotations__", ()))
            made = namedtuple(name, fields, defaults=[names[f] for f in fields if f in names], module=names["__module__"])
            for key, value in names.items():
                if key not in fields and key not in ("__module__", "__qualname__"):
                    setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_Named):
        """The base that a record is declared with."""


__all__ = ["NamedTuple"]
