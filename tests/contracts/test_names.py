"""Functions are named by what they do, context managers by what goes on in their block."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "safe_compose"
NAMED_BY_WHAT_IT_GIVES = {
    "adopt", "draft", "entries", "lock", "open_session", "read", "script", "serve", "stream",
    "transaction",
}  # fmt: skip
"""Context managers with the name of what their block gets, as `open` has it."""
VERBS = {"bring", "embed", "exceed", "feed", "need", "proceed", "seed", "shed"}
"""Verbs that end like a participle."""
NOUNS = {"_sed", "_string", "mapping"}
"""Functions that read one program, one kind of word or one shape, among others that do."""
NO_VERBS = {
    "begun", "built", "done", "drawn", "given", "held", "kept", "known", "left", "lost", "made",
    "ran", "said", "seen", "sent", "shown", "taken", "thrown", "told", "written",
    "how", "what", "whether", "which", "why",
    "either", "other", "same", "some", "such",
    "above", "after", "again", "before", "below", "beside", "beyond", "elsewhere", "now", "once",
    "onwards", "then", "together", "whole", "within", "without",
}  # fmt: skip
"""Participles, pronouns and adverbs: as a name each hides what a function does."""


def _functions() -> Iterator[tuple[Path, ast.FunctionDef, bool]]:
    """Yield each function with its file, and whether it belongs to a module and not to a class."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield path.relative_to(SOURCE), node, node in tree.body


def _is_context_manager(node: ast.FunctionDef) -> bool:
    return any("contextmanager" in ast.unparse(each) for each in node.decorator_list)


def test_a_context_manager_is_named_by_what_goes_on_in_its_block() -> None:
    wrong = [
        f"{path}: {node.name}"
        for path, node, _ in _functions()
        if _is_context_manager(node)
        and not node.name.startswith("__")
        and node.name not in NAMED_BY_WHAT_IT_GIVES
        and not node.name.strip("_").partition("_")[0].endswith("ing")
    ]
    assert wrong == []


def test_no_function_is_named_by_a_participle_a_pronoun_or_an_adverb() -> None:
    wrong = [
        f"{path}: {node.name}"
        for path, node, of_module in _functions()
        if of_module and not _is_context_manager(node) and _hides_its_verb(node)
    ]
    assert wrong == []


def _hides_its_verb(node: ast.FunctionDef) -> bool:
    first = node.name.strip("_").partition("_")[0]
    if first in VERBS or node.name in NOUNS:
        return False
    if first.endswith("ing"):  # it may return a context manager
        return "ContextManager" not in ast.unparse(node.returns or node)
    return first in NO_VERBS or first.endswith("ed")
