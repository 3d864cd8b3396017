"""Changes to a JSON file of somebody else's that leave every other byte as it is.

The text is scanned into values with their places in it. Comments are read where the program that
owns the file reads them; a comma after the last value is not.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

DEEPEST = 64
"""Most levels of a file that is changed."""
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
_SPACE = re.compile(r"[ \t\r\n]*")
_SPACE_AND_COMMENTS = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)


class NotJson(Exception):
    """An error about a text that is no JSON, in a sentence with the line."""


@dataclass(frozen=True, slots=True)
class JsonValue:
    """A value and its place in the text."""

    start: int
    end: int
    """After its last character."""
    members: tuple["JsonMember", ...] = ()
    data: Any = None
    """The value itself, as `json.loads` returns it."""

    def get(self, key: str) -> "JsonValue | None":
        """Return the member of an object, or None.

        Raises:
            NotJson: It stands there twice: programs disagree about which one counts.
        """
        found = [member.value for member in self.members if member.key == key]
        if len(found) > 1:
            raise NotJson(f"it has {json.dumps(key)} twice")
        return found[0] if found else None


@dataclass(frozen=True, slots=True)
class JsonMember:
    """A member of an object, or of an array (then without a key)."""

    key: str | None
    start: int
    """Where its key begins, or its value."""
    value: JsonValue


def parse(text: str, *, comments: bool) -> JsonValue:
    """Return the value of a whole text.

    Args:
        text: The text.
        comments: Whether `//` and `/* */` are read.

    Raises:
        NotJson: It is no JSON, or nested more than DEEPEST levels.
    """
    return _Scanner(text, comments=comments).run()


class _Scanner:
    def __init__(self, text: str, *, comments: bool) -> None:
        self._text = text
        self._space = _SPACE_AND_COMMENTS if comments else _SPACE

    def run(self) -> JsonValue:
        value = self._value(self._skip(1 if self._text.startswith("\ufeff") else 0), 0)
        if self._skip(value.end) != len(self._text):
            raise self._make_fault(value.end, "more than one value")
        return value

    def _value(self, at: int, depth: int) -> JsonValue:
        if depth > DEEPEST:
            raise self._make_fault(at, f"more than {DEEPEST} levels")
        if self._text[at : at + 1] in ("{", "["):
            return self._container(at, depth)
        found = _STRING.match(self._text, at) or _SCALAR.match(self._text, at)
        if found is None:
            raise self._make_fault(at, "no JSON")
        try:
            return JsonValue(at, found.end(), data=json.loads(found[0]))
        except ValueError as error:  # a number of more digits than Python reads
            raise self._make_fault(at, "a number that is too long") from error

    def _container(self, start: int, depth: int) -> JsonValue:
        is_object = self._text[start] == "{"
        close = "}" if is_object else "]"
        members: list[JsonMember] = []
        at = self._skip(start + 1)
        while self._text[at : at + 1] != close or members:
            members.append(self._member(at, depth, is_object=is_object))
            at = self._skip(members[-1].value.end)
            if self._text[at : at + 1] == close:
                break
            if self._text[at : at + 1] != ",":
                raise self._make_fault(at, f"neither `,` nor `{close}`")
            at = self._skip(at + 1)
        data = (
            {str(m.key): m.value.data for m in members}
            if is_object
            else [m.value.data for m in members]
        )
        return JsonValue(start, at + 1, tuple(members), data)

    def _member(self, at: int, depth: int, *, is_object: bool) -> JsonMember:
        if not is_object:
            return JsonMember(None, at, self._value(at, depth + 1))
        key = _STRING.match(self._text, at)
        if key is None:
            raise self._make_fault(at, "no key")
        colon = self._skip(key.end())
        if self._text[colon : colon + 1] != ":":
            raise self._make_fault(colon, "no `:` after a key")
        value = self._value(self._skip(colon + 1), depth + 1)
        return JsonMember(json.loads(key[0]), at, value)

    def _skip(self, at: int) -> int:
        found = self._space.match(self._text, at)
        return found.end() if found is not None else at

    def _make_fault(self, at: int, what: str) -> NotJson:
        return NotJson(f"line {self._text.count(chr(10), 0, at) + 1}: {what}")


def add(text: str, container: JsonValue, key: str | None, data: Any) -> str:
    """Return the text with a member added at the end of an object or an array.

    It is indented like the rest; in a container of one line it stands in that line.

    Args:
        text: The text.
        container: The object or array, as `parse` found it in the text.
        key: The member's key; None for an array.
        data: The member's value.
    """
    inner = text[container.start + 1 : container.end - 1]
    step = _find_step(text)
    own = _indent_of_line(text, container.start)
    one_line = "\n" not in (inner if container.members else text)
    new = json.dumps(data, ensure_ascii=False, indent=None if one_line else step)
    if key is not None:
        new = f"{json.dumps(key)}: {new}"
    after = container.start + 1 + len(inner.rstrip())
    if one_line:
        joint, tail = (", " if container.members else ""), ""
    else:
        level = (
            _indent_of_line(text, container.members[-1].start) if container.members else own + step
        )
        joint = "\n" + level
        new = new.replace("\n", "\n" + level)
        tail = "" if container.members or "\n" in inner[len(inner.rstrip()) :] else "\n" + own
    added = joint + new + tail
    if "\r\n" in text:
        added = added.replace("\n", "\r\n")
    if container.members and not one_line:
        last = container.members[-1].value.end
        return text[:last] + "," + text[last:after] + added + text[after:]
    return text[:after] + added + text[after:]


def remove(text: str, container: JsonValue, index: int) -> str:
    """Return the text without one member of an object or an array, and without its comma."""
    member = container.members[index]
    blank = len(text[: member.start].rstrip())
    if index + 1 < len(container.members):  # the comma after it
        following = container.members[index + 1].start
        comma = _find_comma(text, member.value.end)
        space = _SPACE.match(text, comma + 1)
        end = space.end() if space is not None else following
        return text[: member.start] + text[end:]
    if index:  # the comma before it
        comma = _find_comma(text, container.members[index - 1].value.end)
        return text[:comma] + text[comma + 1 : blank] + text[member.value.end :]
    rest = text[member.value.end : container.end - 1]
    end = container.end - 1 if not rest.strip() else member.value.end
    return text[:blank] + text[end:]


def _find_comma(text: str, at: int) -> int:
    found = _SPACE_AND_COMMENTS.match(text, at)
    return found.end() if found is not None else at


def _indent_of_line(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _find_step(text: str) -> str:
    """Return the indentation of one level: that of the first indented line, or two blanks."""
    found = re.search(r"^([ \t]+)\S", text, re.MULTILINE)
    return found[1] if found is not None else "  "
