"""A harmless command imports next to nothing: what the modules on its path import. Who may import
whom stands in pyproject.toml.
"""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "safe_compose"

HOT: dict[str, set[str]] = {
    "__init__.py": set(),
    "shim.py": {"os", "sys"},
    "fastpath/__init__.py": set(),
    "fastpath/launch.py": {"os", "sys"},
    "fastpath/first_look.py": set(),
    "fastpath/inspect.py": {"os"},
    "fastpath/go_program.py": set(),
    "fastpath/layer_data.py": set(),
    "fastpath/layers.py": {"os"},
    "fastpath/queries.py": {"os"},
    "grammar/__init__.py": set(),
    "grammar/parser.py": set(),
    "grammar/standalone.py": set(),
    "grammar/tables.py": set(),
    "grammar/own_flags.py": set(),
    "grammar/docopt.py": set(),
    "record.py": {"_operator"},
    "errors.py": set(),
}
"""What the modules on the way of every command may import when they are imported themselves."""
ENTRY = {"safe_compose.fastpath.first_look", "safe_compose.fastpath.launch"}
"""What of ours the entry point imports at once; the others may import no more than that, errors and
records.
"""
GRAMMAR = {"safe_compose.grammar.tables", "safe_compose.grammar.own_flags"}
"""What of the grammar its own modules import at once; `standalone` is loaded only for
docker-compose, `docopt` only for 1.x.
"""


def is_for_types(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def imports(
    path: Path, *, source: Path = SOURCE, lazy: bool = True, types: bool = False
) -> set[str]:
    """Dotted names of what a file imports: at import only unless `lazy`, without what only mypy
    sees unless `types`.
    """
    package = ("safe_compose", *path.relative_to(source).parent.parts)
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        match node:
            case ast.Import():
                found.update(alias.name for alias in node.names)
            case ast.ImportFrom():
                base = ".".join(
                    [*package[: len(package) - node.level + 1], *filter(None, [node.module])]
                )
                source = base if node.level else str(node.module)
                found.update(f"{source}.{alias.name}" for alias in node.names)
            case ast.FunctionDef() | ast.AsyncFunctionDef() if not lazy:
                return
        body = node.orelse if is_for_types(node) and not types else ast.iter_child_nodes(node)  # type: ignore[attr-defined]
        for child in body:
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def ours(names: set[str]) -> set[str]:
    """The modules of ours among dotted names, which may also name something in a module."""
    mine = {name for name in names if name.startswith("safe_compose.")}
    files = {name: SOURCE / Path(*name.split(".")[1:]) for name in mine}
    return {
        name if path.with_suffix(".py").exists() or path.is_dir() else name.rpartition(".")[0]
        for name, path in files.items()
    }


@pytest.mark.parametrize("name", HOT)
def test_the_way_of_every_command_imports_next_to_nothing(name: str) -> None:
    names = imports(SOURCE / name, lazy=False)
    assert {name.split(".")[0] for name in names} - {"safe_compose"} <= HOT[name]
    grammar = GRAMMAR if name.startswith("grammar/") else set()
    assert ours(names) <= {"safe_compose.errors", "safe_compose.record", *ENTRY, *grammar}
    if name == "shim.py":
        assert ours(names) == ENTRY


def test_the_reader_of_imports_sees_every_form_of_them(tmp_path: Path) -> None:
    text = (
        "import json.decoder\nfrom docker import errors\nfrom . import table\nfrom .kitchen import"
        " sink\ndef f():\n    import rich\nif TYPE_CHECKING:\n    import psycopg\n"
    )
    path = tmp_path / "example.py"
    path.write_text(text)
    names = imports(path, source=tmp_path)
    assert names == {
        "json.decoder",
        "docker.errors",
        "safe_compose.table",
        "safe_compose.kitchen.sink",
        "rich",
    }
    assert "rich" not in imports(path, source=tmp_path, lazy=False)
    assert "psycopg" in imports(path, source=tmp_path, types=True)


KINDS = {"postgres", "mysql", "mariadb", "redis"}
NAMES_A_KIND = {
    "core/known_images.py": "which images and files are of which kind",
    "core/relocation.py": "how a person looks into a restored volume",
    "credentials/account.py": "which variables of an image hold an account",
    "credentials/search.py": "words that too many passwords are",
    "operations/restore/database": "one database alone is restored to PostgreSQL only",
    "operations/setup/inspect.py": "whose password can be set without the old one",
    "store/catalogue/restore_databases.py": "what a person types for a kind",
}
"""Files and folders outside of `databases` that name a kind of database, and for what; nothing is
to be added.
"""


def test_outside_of_databases_a_kind_is_named_only_where_a_person_reads_it_or_an_image_tells_it() -> (
    None
):
    naming = set()
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).as_posix()
        tree = ast.parse(path.read_text())
        literals = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        modules = {part for name in ours(imports(path, types=True)) for part in name.split(".")[2:]}
        if not name.startswith("databases/") and KINDS & (literals | modules):
            naming.add(next((known for known in NAMES_A_KIND if name.startswith(known)), name))
    assert naming == NAMES_A_KIND.keys()


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.relative_to(SOURCE).as_posix())
    assert places and {name: at for name, at in places.items() if len(at) > 1} == {}
