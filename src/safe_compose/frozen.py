"""A replacement of `dataclasses.dataclass` for frozen classes, made in a fifth of the time.

Python's own compiles six functions for each class. The modules that a confirmation screen needs
have fifty of them, which took a third of our own time until it is shown. Here all classes share
their methods. What `dataclasses` does with such a class (`replace`, `fields`, `asdict`) it does
with these.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    import dataclasses
    from dataclasses import MISSING, FrozenInstanceError
    from operator import attrgetter

    def dataclass(
        *,
        frozen: bool,
        slots: bool = False,
        eq: bool = True,
        repr: bool = True,
        kw_only: bool = False,
    ) -> object:
        """Return a decorator that makes a frozen dataclass of a class."""
        if not frozen:
            raise TypeError("only frozen classes are made here")
        plain = dataclasses.dataclass(
            init=False, repr=False, eq=False, slots=slots, kw_only=kw_only
        )

        def decorate(cls: type) -> type:
            own = {**cls.__dict__}
            made = plain(cls)
            fields = dataclasses.fields(made)
            made.__init__ = _make_init(made, fields)
            made.__setattr__, made.__delattr__ = _refuse_to_set, _refuse_to_delete
            if slots:
                made.__getstate__, made.__setstate__ = _get_state, _set_state
            if eq:
                _add_comparison(made, own, [f.name for f in fields if f.compare])
            if repr and "__repr__" not in own:
                made.__repr__ = _describe
            return made

        return decorate

    def _make_init(made: type, fields: tuple) -> object:
        """Return an `__init__` that takes the fields as Python's own would."""
        names = tuple(f.name for f in fields)
        positional = tuple(f.name for f in fields if not f.kw_only)
        defaults = {f.name: f.default for f in fields if f.default is not MISSING}
        factories = {f.name: f.default_factory for f in fields if f.default_factory is not MISSING}
        in_slots = "__dict__" not in dir(made)
        setters = [getattr(made, name).__set__ for name in names] if in_slots else []
        all_positional = positional == names

        def complete(given: tuple, named: dict) -> list:
            """Return the values of all fields, in their order."""
            if len(given) > len(positional):
                raise TypeError(f"{made.__qualname__} takes {', '.join(positional)}")
            values = dict(zip(positional, given, strict=False))
            if twice := values.keys() & named.keys() or named.keys() - {*names}:
                raise TypeError(f"{made.__qualname__} does not take {', '.join(twice)} there")
            values.update(named)
            missing = [
                n for n in names if n not in values and n not in defaults and n not in factories
            ]
            if missing:
                raise TypeError(f"{made.__qualname__} lacks {', '.join(missing)}")
            return [
                values[n] if n in values else defaults[n] if n in defaults else factories[n]()
                for n in names
            ]

        def __init__(self: object, /, *given: object, **named: object) -> None:  # noqa: N807
            if named or len(given) != len(names) or not all_positional:
                given = complete(given, named)
            if in_slots:
                for setter, value in zip(setters, given, strict=True):
                    setter(self, value)
            else:
                self.__dict__.update(zip(names, given, strict=True))

        return __init__

    def _add_comparison(made: type, own: dict, names: list[str]) -> None:
        """Add `__eq__` and `__hash__` over these fields, unless the class has its own."""
        read = attrgetter(*names) if names else lambda _self: ()

        def __eq__(self: object, other: object) -> object:  # noqa: N807
            if other.__class__ is not self.__class__:
                return NotImplemented
            return read(self) == read(other)

        def __hash__(self: object) -> int:  # noqa: N807
            return hash(read(self))

        if "__eq__" not in own:
            made.__eq__ = __eq__
        if own.get("__hash__") is None:
            made.__hash__ = __hash__

    def _refuse_to_set(_self: object, name: str, _value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def _refuse_to_delete(_self: object, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def _get_state(self: object) -> list:
        return [getattr(self, f.name) for f in dataclasses.fields(self)]

    def _set_state(self: object, state: list) -> None:
        for field, value in zip(dataclasses.fields(self), state, strict=True):
            object.__setattr__(self, field.name, value)

    def _describe(self: object) -> str:
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr]
        return f"{type(self).__qualname__}({', '.join(shown)})"


__all__ = ["dataclass"]
