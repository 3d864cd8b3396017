"""Functions that make untrusted text safe to show on a terminal, in Markdown and in shell commands.

Names, labels, versions, paths and error messages come from engines, images, databases, repositories
and off-site places. A terminal interprets some characters, Markdown and shells interpret others.
All output passes `make_visible` at the boundary (`ui`, `faults.say`), everything in `RESTORE.md`
passes `escape_markdown` or `quote_markdown`, and every word of a printed command passes
`shell_quote`.
"""

import re
import shlex
from collections.abc import Iterable

LONGEST = 20_000
"""Largest number of characters of a shown line; a longer one is cut in the middle, and says so."""
LONGEST_CELL = 2_000
"""Largest number of characters of one cell of a table."""
_MOST_MARKS = 4
"""Most combining marks in a row that are shown: more of them would paint over other lines."""

# Python calls these printable although they are invisible: Unicode's Default_Ignorable_Code_Point
# without category C, and the blank Braille pattern. Everything else that is invisible (C0, C1, bidi
# controls, zero-width, surrogates, line separators, unassigned) is not printable already.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def make_visible(text: str, longest: int = LONGEST) -> str:
    """Return a text as one line in which every control or invisible character is escaped.

    Newlines are escaped as well: a name with a newline must not begin a line that looks like one of
    ours.
    """
    if len(text) > longest:
        half = longest // 2
        text = f"{text[:half]}[... {len(text) - 2 * half} characters ...]{text[-half:]}"
    if text.isascii():
        return (
            text
            if text.isprintable()
            else "".join(c if c.isprintable() else _escape(c) for c in text)
        )
    return _escape_piled_marks(
        "".join(c if c.isprintable() and not _INVISIBLE.match(c) else _escape(c) for c in text)
    )


def drop_subject(message: str, subject: str) -> str:
    """Return a message without the subject it begins with, for a line that has named it already.

    >>> drop_subject("volume a: it is full", "volume a")
    'it is full'
    """
    return message.removeprefix(f"{subject}: ")


def join_lines(lines: Iterable[str]) -> str:
    """Return the last three lines that a program printed as one, without blank and repeated ones.

    >>> join_lines(["a ", "", "b", "b"])
    'a / b'
    """
    seen = dict.fromkeys(line.strip() for line in lines if line.strip())
    return " / ".join([*seen][-3:])


def make_lines_visible(text: str) -> list[str]:
    """Return the lines of our own text (a diff, a file to be written), each of them visible."""
    return [make_visible(line) for line in text.removesuffix("\n").split("\n")] if text else []


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def _escape_piled_marks(text: str) -> str:
    """Escape combining marks at the beginning, and those beyond `_MOST_MARKS` in a row.

    At the beginning they would change our own character.
    """
    if text.isascii():
        return text
    import unicodedata  # not needed for the plain words of nearly every name

    shown: list[str] = []
    marks = _MOST_MARKS
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        shown.append(_escape(character) if marks > _MOST_MARKS else character)
    return "".join(shown)


# -- shells ----------------------------------------------------------------------------------------


def shell_quote(word: str) -> str:
    """Return one word as a POSIX shell, bash, zsh and fish read it back.

    It is on one line and all visible.

    A word with control characters becomes `"$(printf '...')"`, in octal. One that ends with a
    newline, which that would drop, becomes `$'...'`, which old POSIX shells and fish do not read:
    there the command fails.
    """
    # fish reads these within single quotes
    if make_visible(word, len(word)) == word and not re.search(r"\\(?:[\\']|\Z)", word):
        # zsh: =NAME is a path
        return (
            f"'{word}'" if word.startswith("=") and shlex.quote(word) == word else shlex.quote(word)
        )
    written = "".join(_octal(c) for c in word)
    if word.endswith("\n"):
        return f"$'{written}'"
    written = written.replace("%", "%%").replace("!", "\\041")
    if written.startswith("-"):
        written = "\\055" + written[1:]
    return f"\"$(printf '{written}')\""


def shell_quote_always(word: str) -> str:
    """Return one word for a shell like `shell_quote`, in quotes even where it needs none."""
    plain = shell_quote(word)
    return f"'{plain}'" if plain == word else plain


def join_for_shell(words: Iterable[str]) -> str:
    """Return a shell command made of untrusted words."""
    return " ".join(map(shell_quote, words))


def _octal(character: str) -> str:
    """Return one character as printf and `$'...'` read it."""
    if character not in "'\\" and make_visible(character) == character:
        return character
    raw = character.encode(
        "utf-8", "surrogateescape" if "\udc80" <= character <= "\udcff" else "replace"
    )
    return "".join(f"\\{byte:03o}" for byte in raw)


# -- Markdown --------------------------------------------------------------------------------------


def quote_markdown(text: str) -> str:
    """Return a name as Markdown code on one line, whatever it holds."""
    flat = make_visible(text) or " "
    longest = max((len(run) for run in re.findall("`+", flat)), default=0)
    if longest == 0:
        return f"`{flat}`" if flat.strip() == flat or not flat.strip() else f"` {flat} `"
    fence = "`" * (longest + 1)
    return f"{fence} {flat} {fence}"


def escape_markdown(text: str) -> str:
    """Return a sentence for a paragraph or list item of Markdown.

    It is on one line, without markup or HTML.
    """
    flat = re.sub(
        r"([\\`*\[\]<>|~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_]))",
        r"\\\1",
        make_visible(text).strip(),
    )
    return re.sub(r"^(#|\+|=|-|\d+[.)])", lambda m: f"{m[1][:-1]}\\{m[1][-1]}", flat)
