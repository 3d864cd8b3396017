"""The statements of SQL that delete data, found by their words.

Nothing is checked against a database, so a statement on a temporary or empty table counts as well.
This module is pure.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

LONGEST = 100_000
"""Most characters of SQL that are read."""
_DOLLAR = re.compile(r"\$[A-Za-z_]?\w*\$")
_START = re.compile(r"--|/\*|['\"`;()=\\]|\$[A-Za-z_]?\w*\$|[A-Za-z_][\w$]*|\d+")
_STRING = {
    "'": re.compile(r"'(?:[^'\\]|\\.)*'", re.DOTALL),
    '"': re.compile(r'"[^"]*"'),
    "`": re.compile(r"`[^`]*`"),
}
_DROPPED = frozenset({"TABLE", "DATABASE", "SCHEMA", "TABLESPACE", "KEYSPACE", "OWNED"})
_DROPPED_WITH = frozenset({"TYPE", "DOMAIN", "EXTENSION"})
"""What takes columns away when it is dropped with CASCADE."""
_NO_COLUMN = frozenset(
    {
        "CONSTRAINT", "INDEX", "KEY", "PRIMARY", "FOREIGN", "CHECK", "DEFAULT", "NOT", "IDENTITY",
        "EXPRESSION", "STATISTICS", "TRIGGER", "RULE", "POLICY", "ROLE", "USER",
    }
)  # fmt: skip
"""What `ALTER TABLE ... DROP` takes away without data."""
_ALWAYS_TRUE = (["TRUE"], ["1"], ["1", "=", "1"])
_IN_TEXT = re.compile(
    r"\b(DROP)\s+(?:TABLE|DATABASE|SCHEMA|OWNED)\b|\b(TRUNCATE)\b|\b(DELETE)\s+FROM\b",
    re.IGNORECASE,
)


class _Token(NamedTuple):
    word: str
    """In upper case."""
    depth: int
    """How many parentheses are open before it."""


def find_deletions(text: str) -> list[str]:
    """Return what the statements of a script delete with: `DROP TABLE`, `DELETE without WHERE`.

    >>> find_deletions("select 1; drop table users; delete from a where id = 1")
    ['DROP TABLE']
    """
    text = text[:LONGEST]
    statements = [deletion for words in _split(text) for deletion in _deletions(words)]
    if "\\gexec" in text:  # psql runs what a query prints
        statements += _read_text(text)
    if _is_rolled_back(text):
        statements = [one for one in statements if not one.startswith(("DELETE", "UPDATE"))]
    return list(dict.fromkeys(statements))


def _is_rolled_back(text: str) -> bool:
    words = [token.word for statement in _split(text) for token in statement]
    return words[:1] in (["BEGIN"], ["START"]) and words[-1:] == ["ROLLBACK"]


def _split(text: str) -> Iterator[list[_Token]]:
    """Yield the words of each statement, without comments, strings and quoted names."""
    tokens: list[_Token] = []
    at = depth = 0
    while found := _START.search(text, at):
        mark, at = found[0], found.end()
        if mark == "--" or (mark == "\\" and _begins_line(text, found.start())):
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif mark == "/*":
            executed = re.compile(r"!\d*").match(text, at)  # MySQL runs what stands in /*! ... */
            end = executed.end() if executed else text.find("*/", at) + 2
            at = len(text) if end < 2 else end
        elif mark in _STRING:
            string = _STRING[mark].match(text, found.start())
            at = string.end() if string else len(text)
            tokens.append(_Token("", depth))
        elif _DOLLAR.fullmatch(mark):
            end = text.find(mark, at)
            at = len(text) if end < 0 else end + len(mark)
            tokens.append(_Token(text[found.start() : at], depth))
        elif mark == ";":
            yield tokens
            tokens, depth = [], 0
        elif mark in "()":
            depth = max(0, depth + (1 if mark == "(" else -1))
            tokens.append(_Token(mark, depth))
        elif mark != "\\":
            tokens.append(_Token(mark.upper(), depth))
    yield tokens


def _begins_line(text: str, at: int) -> bool:
    return not text[text.rfind("\n", 0, at) + 1 : at].strip()


def _deletions(statement: Sequence[_Token]) -> Iterator[str]:
    """Yield what one statement deletes with."""
    words = [token.word for token in statement if token.word not in "()"]
    if words[:1] == ["EXPLAIN"] and not {"ANALYZE", "ANALYSE"} & set(words[:6]):
        return
    match words[:1]:
        case ["DROP"]:
            kind = next((word for word in words[1:3] if word != "FOREIGN"), "")
            if kind in _DROPPED or (kind in _DROPPED_WITH and "CASCADE" in words):
                yield f"DROP {kind}"
        case ["TRUNCATE"]:
            yield "TRUNCATE"
        case ["ALTER"]:
            yield from _of_alter(words)
        case ["CREATE"]:
            if words[1:4] == ["OR", "REPLACE", "TABLE"]:
                yield "CREATE OR REPLACE TABLE"
        case ["DO"]:
            for word in words:
                yield from _read_text(word) if word.startswith("$") else ()
        case ["GRANT" | "REVOKE" | "COMMENT" | "PREPARE"]:
            return
        case _:
            yield from _of_rows(statement)


def _of_alter(words: Sequence[str]) -> Iterator[str]:
    if "TABLE" not in words[1:3]:
        return
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == "DROP" and after not in _NO_COLUMN:
            yield f"ALTER TABLE ... DROP {after if after == 'PARTITION' else 'COLUMN'}"
        elif (word, after) == ("TRUNCATE", "PARTITION"):
            yield "ALTER TABLE ... TRUNCATE PARTITION"


def _of_rows(statement: Sequence[_Token]) -> Iterator[str]:
    """Yield DELETE and UPDATE of every row, at the beginning or in a `WITH`."""
    before = "("
    for index, token in enumerate(statement):
        begins = before in ("(", ")", "ANALYZE", "ANALYSE", "BEGIN", "EXPLAIN")
        before = token.word
        if not begins or token.word not in ("DELETE", "UPDATE"):
            continue
        rest = []
        for following in statement[index + 1 :]:
            if following.depth < token.depth:
                break
            if following.depth == token.depth and following.word != ")":
                rest.append(following.word)
        needed = "FROM" if token.word == "DELETE" else "SET"
        if needed not in rest:
            continue
        condition = rest[rest.index("WHERE") + 1 :] if "WHERE" in rest else None
        if condition is None or condition in _ALWAYS_TRUE:
            yield f"{token.word} without WHERE"


def _read_text(text: str) -> list[str]:
    """Return what a text that is run as SQL later deletes with, by its words alone."""
    return [
        next(word for word in found.groups() if word).upper() for found in _IN_TEXT.finditer(text)
    ]
