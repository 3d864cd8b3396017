"""The branches of `if`, `case` and `for` that a script takes, where its values are known."""

import fnmatch
from collections.abc import Callable
from typing import TYPE_CHECKING

from safe_compose.audit.shell_words import ShellSource, Word, read_text, read_word

if TYPE_CHECKING:
    import tree_sitter

Expand = Callable[[Word], tuple[Word, ...]]
_LOOPS = frozenset({"while_statement", "for_statement", "c_style_for_statement", "until_statement"})


def find_skipped(
    node: "tree_sitter.Node", source: ShellSource, expand: Expand
) -> "list[tree_sitter.Node]":
    """Return the children of a node that are surely not run."""
    if node.type == "case_statement":
        return _list_skipped_items(node, source, expand)
    if node.type == "if_statement":
        return _list_skipped_branches(node, source, expand)
    return []


def _list_skipped_items(
    node: "tree_sitter.Node", source: ShellSource, expand: Expand
) -> "list[tree_sitter.Node]":
    value = node.child_by_field_name("value")
    if value is None:
        return []
    word = read_word(value, source)
    if _is_in_loop(node) and word.parts and word.parts[0].name == "1":
        word = word._replace(
            parts=(word.parts[0]._replace(name="@", quoted=True),), text="$@", sure=False
        )
    subjects = expand(word) or (Word(""),)
    if not all(subject.sure for subject in subjects):
        return []
    items = [child for child in node.children if child.type == "case_item"]
    skipped, taken = [], False
    for item in items:
        patterns = [
            read_text(child, source).strip("'\"") for child in item.children_by_field_name("value")
        ]
        matches = any(
            fnmatch.fnmatchcase(subject.text, pattern) or "$" in pattern or "(" in pattern
            for pattern in patterns
            for subject in subjects
        )
        if not patterns or (matches and not (taken and len(subjects) == 1)):
            taken = True
        else:
            skipped.append(item)
    return skipped


def _is_in_loop(node: "tree_sitter.Node") -> bool:
    around = node.parent
    while around is not None:
        if around.type in _LOOPS:
            return True
        around = around.parent
    return False


def _list_skipped_branches(
    node: "tree_sitter.Node", source: ShellSource, expand: Expand
) -> "list[tree_sitter.Node]":
    names = [child.type for child in node.children]
    if "then" not in names:
        return []
    then = names.index("then")
    condition = [child for child in node.children[1:then] if child.is_named]
    holds = _evaluate(condition[0], source, expand) if len(condition) == 1 else None
    others = ("elif_clause", "else_clause")
    if holds is None:
        return []
    if holds:
        return [child for child in node.children if child.type in others]
    return [child for child in node.children[then:] if child.type not in (*others, "then", "fi")]


def _evaluate(node: "tree_sitter.Node", source: ShellSource, expand: Expand) -> bool | None:
    """Return whether a test of two known texts holds; None when it is not known."""
    inner = [child for child in node.children if child.is_named]
    if node.type != "test_command" or len(inner) != 1:
        return None
    parts = inner[0].children
    if inner[0].type == "unary_expression" and len(parts) == 2:
        value = _text(parts[1], source, expand)
        operator = read_text(parts[0], source)
        known = {"-z": value == "", "-n": value != ""}
        return known.get(operator) if value is not None else None
    if inner[0].type == "binary_expression" and len(parts) == 3:
        left, right = _text(parts[0], source, expand), _text(parts[2], source, expand)
        if left is None or right is None or "*" in right:
            return None
        operator = read_text(parts[1], source)
        return {"=": left == right, "==": left == right, "!=": left != right}.get(operator)
    return None


def _text(node: "tree_sitter.Node", source: ShellSource, expand: Expand) -> str | None:
    words = expand(read_word(node, source))
    if not words:
        return ""
    return words[0].text if len(words) == 1 and words[0].sure else None
