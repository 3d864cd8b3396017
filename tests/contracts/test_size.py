"""A module fits on a few screens, a function on one."""

import ast

from testing.projects import ROOT

MODULE, FUNCTION = 500, 50
"""Most lines; the docstring of a function does not count."""
MODULES = sorted([*(ROOT / "src" / "safe_compose").rglob("*.py"), *(ROOT / "testing").glob("*.py")])


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    has_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    text = ((first.end_lineno or 0) - first.lineno + 1) if has_text else 0
    return (function.end_lineno or 0) - function.lineno + 1 - text


def test_no_module_and_no_function_is_too_long() -> None:
    long: list[str] = []
    for path in MODULES:
        text = path.read_text("utf-8")
        if (count := text.count("\n")) > MODULE:
            long.append(f"{path.relative_to(ROOT)}: {count} lines")
        long += [
            f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}: {count} lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if (count := code_lines(node)) > FUNCTION
        ]
    assert not long, "\n".join(long)
