"""Who may import whom: the house's table, read from the source; and that a harmless command wakes nobody."""

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "safe_compose"

PURE = {
    "grammar", "observed", "artifacts", "threat", "policy", "plan", "retention", "destination", "dsn", "dotenv", "composefile",
    "consumers", "predecessors", "elsewhere",
}  # fmt: skip
EFFECTS = {
    "config", "engine", "methods", "catalogue", "journal", "prompts", "approvals", "offsite", "edits", "timetable", "timer",
    "webhook",
}  # fmt: skip
ROADS = {
    "harmless", "shim", "nearby", "guard", "measure", "targets", "putting_back", "services", "restore", "swap", "piece",
    "halted", "backup", "proof", "copies", "world", "ways", "doctor", "consent", "hook", "hold", "lock", "volume_trash",
    "recover", "upkeep", "rotate", "audit", "schedule", "setup", "cli",
}  # fmt: skip
TOOLS = {"errors", "durable", "process"}
"""What any effect room may stand on: errors, and facts of the operating system."""

ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"shim"},
    "errors": set(),
    "harmless": set(),
    "shim": {"harmless", "errors", "grammar", "world", "guard", "cli", "ways", "podman", "hook", "nearby"},
    "podman": {"errors", "grammar"},
    "nearby": set(),
    "shell_line": set(),
    "grammar": {"errors", "record"},
    "record": set(),
    **{room: PURE | {"errors"} for room in PURE - {"grammar"}},
    **dict.fromkeys(EFFECTS, PURE | TOOLS),
    "durable": {"errors"},
    "process": {"errors"},
    "world": PURE | EFFECTS | TOOLS | {"shim"},
    "halted": PURE | EFFECTS | TOOLS,
    "proof": PURE | EFFECTS | TOOLS,
    "backup": PURE | EFFECTS | TOOLS | {"world", "halted", "proof"},
    "volume_trash": PURE | EFFECTS | TOOLS | {"world"},
    "copies": PURE | EFFECTS | TOOLS | {"proof"},
    "consent": PURE | EFFECTS | TOOLS | {"world"},
    "measure": PURE | EFFECTS | TOOLS | {"world", "backup"},
    "guard": PURE
    | EFFECTS
    | TOOLS
    | {"shim", "world", "halted", "backup", "copies", "measure", "consent", "podman", "hold", "lock", "volume_trash", "recover"},
    "hold": PURE | EFFECTS | TOOLS | {"world"},
    "lock": PURE | EFFECTS | TOOLS | {"world"},
    "doors": {"errors", "grammar", "shell_line"},
    "hook": PURE | TOOLS | {"harmless", "shim", "shell_line", "doors"},
    "audit": PURE | TOOLS | {"shim", "shell_line", "doors"},
    "upkeep": PURE | EFFECTS | TOOLS | {"proof"},
    "schedule": PURE | EFFECTS | TOOLS | {"world", "backup", "copies", "upkeep"},
    "recover": PURE | EFFECTS | TOOLS | {"halted", "proof", "backup", "volume_trash"},
    "targets": PURE | EFFECTS | TOOLS | {"world", "proof"},
    "putting_back": PURE | EFFECTS | TOOLS | {"world", "halted", "backup", "volume_trash", "recover", "targets"},
    "services": PURE | EFFECTS | TOOLS | {"shim", "world", "targets"},
    "restore": PURE | EFFECTS | TOOLS | {"world", "volume_trash", "recover", "targets", "putting_back", "services"},
    "piece": PURE | EFFECTS | TOOLS | {"world", "halted", "proof", "backup", "recover"},
    "swap": PURE | EFFECTS | TOOLS | {"world", "halted", "recover"},
    "setup": PURE | EFFECTS | TOOLS | {"world"},
    "rotate": PURE | EFFECTS | TOOLS | {"shim", "world", "halted", "backup"},
    "ways": TOOLS | {"harmless", "shim"},
    "doctor": PURE | EFFECTS | TOOLS | {"shim", "world", "backup", "ways", "rotate", "lock", "volume_trash"},
    "cli": PURE | EFFECTS | TOOLS | ROADS,
}
OUTSIDERS = {
    "docker": {"engine"},
    "requests": {"engine"},  # docker's own transport
    "urllib3": {"engine"},
    "ruamel": {"engine", "composefile", "audit"},
    "markdown_it": {"audit"},
    "psycopg": {"methods"},
    "obstore": {"offsite"},
    "pyrage": {"methods"},
    "isal": {"methods"},
    "questionary": {"prompts"},
    "rich": {"prompts"},
    "typer": {"cli"},
    "pydantic": {"config", "catalogue", "journal"},
    "platformdirs": {"config"},
    "filelock": {"catalogue"},
    "tree_sitter": {"shell_line"},
    "tree_sitter_bash": {"shell_line"},
}
"""Third-party package -> the rooms that may import it."""

HOT = {
    "harmless": {"_signal", "posix", "sys"}, "shim": {"os", "sys"}, "nearby": {"os"}, "grammar": set[str](),
    "record": {"collections"}, "errors": set[str](),
}  # fmt: skip
"""What the rooms on the way of every command may import when they are imported themselves."""


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


FILES = sorted(SOURCE.rglob("*.py"))


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(path: Path, *, source: Path = SOURCE, lazy: bool = True, types: bool = False) -> set[str]:
    """Dotted names of what a file imports: at import only unless `lazy`, without what only mypy sees unless `types`."""
    package = ("safe_compose", *path.relative_to(source).parent.parts)
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        match node:
            case ast.Import():
                found.update(alias.name for alias in node.names)
            case ast.ImportFrom():
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
                source = base if node.level else str(node.module)
                found.update(f"{source}.{alias.name}" for alias in node.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() if not lazy:
                return
        body = node.orelse if is_for_types(node) and not types else ast.iter_child_nodes(node)  # type: ignore[attr-defined]
        for child in body:
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def rooms(names: set[str]) -> set[str]:
    """The rooms of ours among dotted names; what the package itself exports is nobody's room."""
    known = {room_of(path) for path in FILES}
    return {name.split(".")[1] for name in names if name.startswith("safe_compose.") and name.split(".")[1] in known}


def test_every_file_stands_in_a_room_of_the_table() -> None:
    assert {room_of(path) for path in FILES} <= set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_whom_it_may(path: Path) -> None:
    room = room_of(path)
    names = imports(path)
    # Methods are handed an engine; they may know its values and its errors.
    allowed = ALLOWED.get(room, set()) | {room} | ({"engine"} if room == "methods" else set())
    assert rooms(names) <= allowed
    outside = {name.split(".")[0] for name in names} - {"safe_compose"} - sys.stdlib_module_names
    assert {name for name in outside if room not in OUTSIDERS.get(name, set())} == set()


@pytest.mark.parametrize("room", HOT)
def test_the_way_of_every_command_imports_next_to_nothing(room: str) -> None:
    names = imports(SOURCE / f"{room}.py", lazy=False)
    assert {name.split(".")[0] for name in names} - {"safe_compose"} <= HOT[room]
    assert rooms(names) <= {"errors", "record", "harmless"}
    if room == "shim":
        assert rooms(names) == {"harmless"}


def test_no_pure_room_reaches_for_the_outside() -> None:
    reaching = {"os", "subprocess", "socket", "shutil", "tempfile", "signal", "time", "threading", "urllib", "http"}
    for path in (path for path in FILES if room_of(path) in PURE):
        names = {name for name in imports(path) if not name.startswith("urllib.parse.")}  # text alone
        touched = {name.split(".")[0] for name in names} & reaching
        assert touched == set(), path


def test_the_reader_of_this_table_sees_every_form_of_import(tmp_path: Path) -> None:
    text = (
        "import json.decoder\nfrom docker import errors\nfrom . import plan\nfrom .engine import look\n"
        "def f():\n    import rich\nif TYPE_CHECKING:\n    import psycopg\n"
    )
    path = tmp_path / "room.py"
    path.write_text(text)
    names = imports(path, source=tmp_path)
    assert names == {"json.decoder", "docker.errors", "safe_compose.plan", "safe_compose.engine.look", "rich"}
    assert "rich" not in imports(path, source=tmp_path, lazy=False)
    assert "psycopg" in imports(path, source=tmp_path, types=True)
