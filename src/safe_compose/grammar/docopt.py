"""The words of docker-compose 1.29, as docopt 0.6.2 reads them."""

from safe_compose.grammar.tables import Flags, Rejected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def parse_docopt(words: "Sequence[str]", flags: Flags) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (flags with values, all from the first operand on), as docopt's `parse_argv` does.

    Options come first.

    Raises:
        Rejected: docker-compose 1.29 rejects the words.
    """
    given: list[tuple[str, str]] = []
    rest = list(reversed(words))
    while rest and rest[-1] not in ("--", "-") and rest[-1].startswith("-"):
        word = rest.pop()
        if word.startswith("--"):
            typed, equals, value = word[2:].partition("=")
            name = expand_prefix(typed, flags)
            if flags.types[name] == "bool":
                if equals:
                    raise Rejected(f"--{name} takes no value")
                value = "true"
            elif not equals:
                if not rest:
                    raise Rejected(f"--{name} needs an argument")
                value = rest.pop()
            given.append((name, value))
            continue
        given += _parse_letters(word[1:], rest, flags)
    for name, value in given:
        if flags.types[name] == "int" and not value.strip().lstrip("+-").replace("_", "").isdigit():
            # accepted by docopt, refused by int() before anything runs
            raise Rejected(f"--{name} does not take {value!r}")
    return given, rest[::-1]


def _parse_letters(letters: str, rest: list[str], flags: Flags) -> "Iterator[tuple[str, str]]":
    """Yield the flags of a word of letters; the last one may take its value from `rest`."""
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter not in flags.names:
            raise Rejected(f"-{letter} is no flag")
        name = flags.names[letter]
        if flags.types[name] == "bool":
            yield name, "true"
        elif letters or rest:
            yield name, letters or rest.pop()
            letters = ""
        else:
            raise Rejected(f"-{letter} needs an argument")


def expand_prefix(typed: str, flags: Flags) -> str:
    """Return the long flag that docopt takes a unique prefix for.

    Raises:
        Rejected: There is none, or there are several.
    """
    long_names = [name for name in flags.types if len(name) > 1]
    if typed in long_names:
        return typed
    similar = [name for name in long_names if name.startswith(typed)]
    if len(similar) != 1:
        raise Rejected(f"--{typed} is no flag")
    return similar[0]
