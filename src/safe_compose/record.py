"""A replacement of `typing.NamedTuple` that imports neither `typing` nor `collections`.

Those imports would take 7 and 2 ms of every command that contains a suspicious word.
"""

from _operator import itemgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple
else:

    class _Record(tuple):
        """The methods of every record; the same as those of a namedtuple."""

        __slots__ = ()
        _fields = ()
        _field_defaults: "dict[str, Any]"

        def __new__(cls, *values: "Any", **named: "Any") -> "Any":
            row = [*values]
            for field in cls._fields[len(values) :]:
                if field in named:
                    row.append(named.pop(field))
                elif field in cls._field_defaults:
                    row.append(cls._field_defaults[field])
            if named or len(row) != len(cls._fields):
                raise TypeError(f"{cls.__name__} takes {', '.join(cls._fields)}")
            return tuple.__new__(cls, row)

        def __getnewargs__(self) -> tuple:
            return tuple(self)

        def __repr__(self) -> str:
            pairs = zip(self._fields, self, strict=True)
            return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in pairs)})"

        def _asdict(self) -> "dict[str, Any]":
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **changes: "Any") -> "Any":
            return type(self)(**{**self._asdict(), **changes})

    class _Named(type):
        """A metaclass that turns a class with annotated fields into a record.

        Defaults and methods of the class are kept. `NamedTuple` itself, which has no base, stays a
        class.
        """

        def __new__(cls, name: str, bases: tuple[type, ...], names: "dict[str, Any]") -> "Any":
            if not bases:
                return super().__new__(cls, name, bases, names)
            fields = tuple(names.get("__annotations__", ()))
            body = {key: value for key, value in names.items() if key not in fields}
            getters = {field: property(itemgetter(at)) for at, field in enumerate(fields)}
            facts = {
                "__slots__": (),
                "__match_args__": fields,
                "_fields": fields,
                "_field_defaults": {field: names[field] for field in fields if field in names},
            }
            return type(name, (_Record,), {**body, **getters, **facts})

    class NamedTuple(metaclass=_Named):
        """A base class for declaring records with named fields."""


__all__ = ["NamedTuple"]
