"""The words that a shell makes of a word, as far as its text and the line before it show them.

This module is pure.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from safe_compose.audit.shell_words import Part, Word, split_parts

MOST = 64
"""Most words that one word expands to."""
LONGEST = 20_000
"""Most characters of a value; what is longer stays unexpanded."""
_BRACES = re.compile(r"\{([^{}\s]*,[^{}\s]*)\}")
Values = Mapping[str, Sequence[tuple[Word, ...]]]
"""Each variable's values, in the order in which they are set."""
Output = Callable[[str], tuple[Word, ...]]
"""Returns what the commands of a substitution print; no sure words where that is unknown."""


def expand(word: Word, values: Values, output: Output) -> tuple[Word, ...]:
    """Return the words that a shell makes of one word.

    Variables with one known value and the output of known commands are replaced; others remain as
    they are.
    """
    if word.sure:
        return _expand_braces(word) if word.bare else (word,)
    words: list[Word] = []
    parts: list[Part] = []
    origin = ""
    for part in split_parts(word):
        found = _values_of(part, values, output)
        if found is None:
            parts.append(part)
            continue
        origin = next((w.origin for w in found if w.origin), origin)
        if not part.quoted and not part.name.endswith("]") and part.name not in ("@", "*"):
            found = tuple(piece for one in found for piece in _split(one))
        for number, one in enumerate(found[: MOST + 1]):
            if number and parts:
                words.append(_join(parts, word, origin))
                parts = []
            parts.extend(split_parts(one._replace(bare=word.bare and one.bare)))
    if parts:
        words.append(_join(parts, word, origin))
    if len(words) > MOST:
        return (*words[:MOST], Word("$@", False, False, word.row, (Part("$@", "@"),)))
    return tuple(words)


def _join(parts: Sequence[Part], word: Word, origin: str) -> Word:
    if sum(len(part.text) for part in parts) > LONGEST:
        return word._replace(origin=origin)
    sure = all(part.known for part in parts)
    text = "".join(part.text for part in parts)
    return Word(text, sure, False, word.row, () if sure else tuple(parts), origin)


def _values_of(part: Part, values: Values, output: Output) -> tuple[Word, ...] | None:
    """Return the words that a part stands for; None when they are not known at all."""
    if part.known:
        return (Word(part.text, bare=False),) if part.quoted else (Word(part.text),)
    if part.name == "<(":
        return None
    if part.script:
        found = output(part.script)
        return found if found and (found[0].sure or found[0].origin) else None
    given = values.get(part.name.removesuffix("[@]"), ())
    empty = bool(given) and all(word.sure and not word.text for word in given[-1])
    if len(given) == 1 and not (empty and part.default):
        return given[0]
    if (not given or empty) and part.default:
        return (Word(part.default, sure="$" not in part.default and "`" not in part.default),)
    return None


def _split(word: Word) -> Iterator[Word]:
    """Yield the words that an unquoted value falls into."""
    if not word.sure and word.parts and not re.search(r"\s", word.text):
        yield word
        return
    for piece in word.text.split():
        sure = word.sure or ("$" not in piece and "`" not in piece)
        parts = () if sure else (Part(piece, name="?"),)
        yield Word(piece, sure, False, word.row, parts, word.origin)


def _expand_braces(word: Word) -> tuple[Word, ...]:
    """Return the alternatives of `{a,b}`, in the order of the shell; the rest stays."""
    done: list[str] = []
    waiting = [word.text]
    if not _BRACES.search(word.text):
        return (word,)
    while waiting and len(done) + len(waiting) <= MOST:
        text = waiting.pop(0)
        found = _BRACES.search(text)
        if found is None:
            done.append(text)
        else:
            before, after = text[: found.start()], text[found.end() :]
            waiting = [before + one + after for one in found[1].split(",")] + waiting
    return tuple(
        Word(text, True, True, word.row, (), "braces") for text in [*done, *waiting] if text
    )


def split_lines(texts: Sequence[Word]) -> tuple[Word, ...]:
    """Return the words that `xargs` makes of its input; a text of unknown value is one."""
    return tuple(
        one
        for word in texts
        for one in (
            [word._replace(text=text) for text in word.text.split()[:1000]] if word.sure else [word]
        )
    )


def alias_meanings(words: Sequence[Word]) -> Iterator[Word]:
    """Yield what aliases stand for: `a='x'` of most shells, `a 'x'` of fish."""
    operands = [word for word in words if not word.text.startswith("-")]
    if len(operands) > 1 and "=" not in operands[0].text:
        text = " ".join(word.text for word in operands[1:])
        yield operands[1]._replace(text=text, sure=all(w.sure for w in operands[1:]))
        return
    for word in operands:
        yield word._replace(text=word.text.partition("=")[2])


def could_be(word: Word, text: str) -> bool:
    """Return whether an unknown word may have a value: its known parts must fit.

    >>> could_be(Word("do$x", False, parts=(Part("do"), Part("$x", "x"))), "down")
    True
    """
    if word.sure:
        return word.text == text
    if word.origin in ("ids", "mountpoint", "paths"):
        return False
    known = [part.text for part in split_parts(word) if part.known]
    at = 0
    parts = split_parts(word)
    for part in known:
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    first, last = parts[0], parts[-1]
    return (not first.known or text.startswith(first.text)) and (
        not last.known or text.endswith(last.text)
    )
