"""README, guide, reference and examples against the program: nothing documented that is not there,
and the other way round.
"""

import ast
import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from safe_compose import errors
from safe_compose.cli import app, verb_help, verbs
from safe_compose.fastpath import first_look, launch
from safe_compose.grammar import own_flags, parser
from safe_compose.settings import load, schema
from testing import matrix, pictures
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "examples/dating/README.md",
    ROOT / "integrations/claude-code/skills/safe-compose/SKILL.md",
]
REFERENCE = ROOT / "docs" / "reference.md"
SOURCE = ROOT / "src" / "safe_compose"
COMMANDS: dict[str, Any] = dict(verb_help.list_commands(app.make_command(None)))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def section(page: Path, title: str) -> str:
    """What stands below a heading, up to the next one of the same level."""
    match = re.search(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text_of(page), re.MULTILINE | re.DOTALL
    )
    assert match, f"{page.name} has no section {title!r}"
    return match[1]


def rows(text: str) -> list[list[str]]:
    """The body cells of the tables in a text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = {n for n, row in enumerate(cells) if set("".join(row)) <= set("-")}
    return [row for n, row in enumerate(cells) if n not in rules and n + 1 not in rules]


def code_words(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def typed(text: str) -> Iterator[list[str]]:
    """The words of each command of ours in a piece of shell: `VARIABLE=x safe-compose ...`,
    `safe-compose ... && ...`.
    """
    for part in re.split(r"&&|\|\||[;|]|\$\(|<\(|\n", text.removeprefix("$ ")):
        if "safe-compose" not in part:
            continue
        words = shlex.split(re.sub(r"\)\"?$", "", part.strip().removeprefix("$ ")), comments=True)
        while words and re.match(r"\w+=", words[0]):
            del words[0]
        if words[:1] == ["safe-compose"]:
            yield words[1:]


def commands_of(page: Path) -> list[list[str]]:
    found: list[list[str]] = []
    for block in blocks(page, "sh"):
        found += typed(block)
    for block in blocks(page, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                found += typed(line)
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    for words in re.findall(r"`([^`\n]+)`", prose):
        if words.startswith("safe-compose ") and "[" not in words:
            found += typed(words)
    return found


def long_flags(verb: str) -> set[str]:
    return {name for name in all_flags(verb) if name.startswith("--")} - {"--help"}


def all_flags(words: str) -> set[str]:
    """The flags of a verb, or of a verb with an action; of a verb with actions those of all."""
    of = [one for name, one in COMMANDS.items() if f"{name} ".startswith(f"{words} ")]
    return {name for one in of for p in one.params for name in p.opts if name.startswith("-")} | {
        "--help"
    }


def fault_of(words: list[str]) -> str | None:
    """Why words after `safe-compose` are nothing that the program takes."""
    if launch.find_own_verb(words):
        verb = " ".join(words[:2] if words[0] in verbs.ACTIONS and words[1:] else words[:1])
        if verb not in COMMANDS and not words[1].startswith("-"):
            return f"{words[0]} has no {words[1]}"
        verb = verb if verb in COMMANDS else words[0]
        wrong = {word.partition("=")[0] for word in words[1:] if word.startswith("-")} - all_flags(
            verb
        )
        return f"{verb} has no {', '.join(sorted(wrong))}" if wrong else None
    if words in (["help", "VERB"], []) or words[0] == "docker":
        return None
    invocation = parser.parse(words)
    if invocation.doubt:
        return invocation.doubt
    return (
        None
        if invocation.verb or words[0] in ("up", "down", "help")
        else "neither a verb of ours nor one of the grammar"
    )


# -- the pages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name + "/" + page.name)
def test_every_command_of_ours_on_a_page_exists(page: Path) -> None:
    found = commands_of(page)
    faults = {" ".join(words): fault for words in found if (fault := fault_of(words))}
    assert not faults
    assert (
        found
        or page.name in ("CHANGELOG.md", "glossary.md", "index.md")
        or page.parent.name
        in (
            "dating",
            "explanation",
        )
    )


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    assert fault_of(["undo", "--everything"]) == "undo has no --everything"
    assert fault_of(["compose", "down", "-v", "--frobnicate"])
    assert fault_of(["frobnicate"])
    assert list(typed('eval "$(safe-compose shell bash)"')) == [["shell", "bash"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name + "/" + page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", text_of(page)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), target
        headings = re.findall(r"^#+ (.*)$", text_of(there), re.MULTILINE) if anchor else []
        slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in slugs, target


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    pages = [*PAGES, ROOT / "CONTRIBUTING.md"]
    named = {
        name
        for page in pages
        for name in re.findall(r"(?:`|^)make ([a-z]+)", text_of(page), re.MULTILINE)
    }
    assert named >= {"demo", "test", "docs", "pictures"}
    assert named <= targets


def test_the_documented_exit_codes_are_those_of_the_errors() -> None:
    documented = {int(row[0]) for row in rows(section(REFERENCE, "Exit codes"))}
    classes = [errors.SafeComposeError, *errors.SafeComposeError.__subclasses__()]
    assert documented == {fault.code for fault in classes}


def test_the_table_of_engines_is_that_of_the_results() -> None:
    text = section(REFERENCE, "Platforms")
    table = text.partition(matrix.BEGIN)[2].partition(matrix.END)[0]
    assert table == matrix.markdown(matrix.load())
    tried = {row[5] for row in rows(table)} - {"not tried"}
    assert tried == {result.date for result in matrix.load().values()}


def test_the_own_flags_in_the_reference_are_those_of_the_grammar() -> None:
    table = rows(section(REFERENCE, "Own flags before docker sees the words"))
    documented = {words.split()[0] for row in table for words in code_words(row[0])}
    assert documented == first_look.OWN_FLAGS == set(own_flags.OWN_FLAGS)


@pytest.mark.thorough
def test_every_variable_of_ours_is_in_the_reference() -> None:
    found = {
        node.value
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"SAFE_COMPOSE(_[A-Z_]+)?", node.value)
    }
    documented = {
        word for row in rows(section(REFERENCE, "Environment")) for word in code_words(row[0])
    }
    assert documented == found | {"CI"}


def test_every_verb_and_each_of_its_flags_is_in_the_reference_and_in_the_filter() -> None:
    documented = {
        next(iter(code_words(row[0]))).split()[0]: {
            w for w in code_words(row[1]) if w.startswith("--")
        }
        for row in rows(section(REFERENCE, "Own verbs"))
    }
    assert documented == {verb: long_flags(verb) for verb in verbs.VERBS}
    assert set(verbs.VERBS) == {*launch.OWN_VERBS, launch.START}


def test_every_verb_and_action_has_its_example() -> None:
    actions = [f"{verb} {action}" for verb, of in verbs.ACTIONS.items() for action in of]
    assert sorted(COMMANDS) == sorted([*verbs.VERBS, *actions])


def keys_of(model: Any, prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            yield from keys_of(field.annotation, f"{name}.")
        elif of_tables := [a for a in get_args(field.annotation) if hasattr(a, "model_fields")]:
            yield from keys_of(of_tables[0], f"{prefix}{name}.NAME.")
        else:
            of = "PATH" if name == "folders" else "NAME"
            yield f"{prefix}{name}.{of}" if not prefix else f"{prefix}{name}"


def test_every_setting_is_in_the_reference_for_the_file_that_takes_it() -> None:
    documented = {
        next(iter(code_words(row[0]))): row[1] for row in rows(section(REFERENCE, "Settings"))
    }
    assert {key for key, where in documented.items() if where != "user"} == set(
        keys_of(schema._ProjectFile)
    )
    assert {key for key, where in documented.items() if where != "project"} == set(
        keys_of(schema._UserFile)
    )


def names_of(verb: str) -> list[str]:
    """A verb, and it with each of its actions."""
    return [verb, *(f"{verb} {action}" for action in verbs.ACTIONS.get(verb, ()))]


def commands_page() -> str:
    """docs/commands.md, made from what the program says of itself."""
    lines = [
        "# Commands",
        "",
        (
            "What `safe-compose help VERB` says, in one place: `WRITE_DOCS=1 make test"
            " ARGS=tests/docs/test_docs.py` writes it."
        ),
        "What it all means: [reference.md](reference.md).",
    ]
    for words in (name for verb in verbs.VERBS for name in names_of(verb)):
        command = COMMANDS[words]
        context = typer.Context(
            command, info_name=f"safe-compose {words}", terminal_width=80, max_content_width=80
        )
        lines += [
            "",
            f"{'###' if ' ' in words else '##'} {words}",
            "",
            "```text",
            *(line.rstrip() for line in command.get_help(context).splitlines()),
            "```",
        ]
    return "\n".join(lines) + "\n"


def test_the_page_of_commands_is_what_the_program_says() -> None:
    page = ROOT / "docs" / "commands.md"
    if os.environ.get("WRITE_DOCS"):
        page.write_text(commands_page(), "utf-8")
    assert page.read_text("utf-8") == commands_page()


# -- the site and the translation ------------------------------------------------------------------


def test_the_readme_fits_and_begins_with_one_sentence_and_how_to_install_it() -> None:
    lines = text_of(ROOT / "README.md").splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if line.startswith("## ")][:2] == [
        "## Install",
        "## Sixty seconds to try",
    ]


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    site = text_of(ROOT / "mkdocs.yml")
    named = re.findall(r"^ +- (\S+\.md)$", site, re.MULTILINE)
    docs = ROOT / "docs"
    assert sorted(named) == sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))
    assert "font: false" in site


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_picture_shows_only_words_that_the_program_still_has(theme: str) -> None:
    picture = pictures.PICTURES / f"undo-{theme}.svg"
    assert f"docs/pictures/{picture.name}" in text_of(ROOT / "README.md")
    assert pictures.missing_words(picture) == [], "the picture is stale: make pictures"
    assert "://" not in text_of(picture).replace("http://www.w3.org/2000/svg", "").replace(
        "unix://", ""
    )


TRANSLATED = ["tutorial.md", "how-to/recover.md"]


def digest(page: Path) -> str:
    return hashlib.sha256(page.read_bytes()).hexdigest()[:16]


@pytest.mark.parametrize("name", TRANSLATED)
def test_the_russian_page_follows_the_english_one(name: str) -> None:
    """After a change of the English page: translate it, then put its digest into docs/ru/index.md."""
    english, russian = ROOT / "docs" / name, ROOT / "docs" / "ru" / name
    assert blocks(russian, r"\w+") == blocks(english, r"\w+")
    assert commands_of(russian) == commands_of(english)
    levels = [re.findall(r"^#+(?= )", text_of(page), re.MULTILINE) for page in (english, russian)]
    assert levels[0] == levels[1]
    assert f"<!-- {name} {digest(english)} -->" in text_of(ROOT / "docs/ru/index.md"), (
        f"docs/{name} has changed: translate it, then write its digest {digest(english)}"
    )


def test_nothing_is_installed_by_a_name_that_anybody_could_register() -> None:
    for page in (page for page in PAGES if page.name != "CHANGELOG.md"):
        for line in re.findall(r"(?:pip|pipx|uv tool) install [^`\n]*", text_of(page)):
            assert re.search(r"install (?:\S+ )*'?\.", line), f"{page.name}: {line}"


def test_the_ci_page_names_only_actions_that_exist() -> None:
    page = text_of(ROOT / "docs/ci.md")
    (added,) = set(re.findall(r"git submodule add URL (\S+?)`", page))
    used = set(re.findall(r"uses: (\S+)", page))
    ours = {name.removeprefix(f"./{added}/") for name in used if name.startswith("./")}
    assert used - {f"./{added}/{name}" for name in ours} == {
        "actions/checkout@v4",
        "actions/upload-artifact@v4",
    }
    assert [(ROOT / name / "action.yml").is_file() for name in ours] == [True]
    assert "example.org" not in page
    assert set(re.findall(r"pipx install '?\./([\w/-]+)", page)) == {added}


TOML = [
    (page.name, number, block)
    for page in PAGES
    for number, block in enumerate(blocks(page, "toml"))
]


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=f"{name}-{number}") for name, number, block in TOML]
)
def test_every_toml_snippet_is_accepted(block: str, tmp_path: Path) -> None:
    if "[require]" in block:
        faults: list[str] = []
        assert schema.parse_policy(load.POLICY_FILE, block.encode(), faults) is not None, faults
        return
    user = "[projects]" in block
    path = (
        tmp_path / ".config/safe-compose/config.toml"
        if user
        else tmp_path / "project/safe-compose.toml"
    )
    path.parent.mkdir(parents=True)
    path.write_text(block)
    settings = load.load(tmp_path / "project", {"HOME": str(tmp_path)})
    assert settings.files == (path,)
    assert settings.rules or not re.search(r"^\[(volumes|projects?)\]", block, re.MULTILINE)


# -- what the program suggests ---------------------------------------------------------------------


def words_in(node: ast.expr) -> str:
    """A string expression with NAME for whatever is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(words_in(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return words_in(node.left) + words_in(node.right)
    if isinstance(node, ast.IfExp):
        return f"{words_in(node.body)}; {words_in(node.orelse)}"
    return "NAME"


def suggestions() -> dict[str, str]:
    """Every `next_step` and everything of ours that says `to bring ... back`, with where it stands."""
    found: dict[str, str] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.keyword) and node.arg in ("next_step", "step"):
                found[f"{path.name}:{node.value.lineno}"] = words_in(node.value)
    return found


def commands_in(suggestion: str) -> list[list[str]]:
    pieces = re.split(r"`|, (?:then|or|and) | then |, | or |; |: |\n", suggestion)
    parts = [re.sub(r"^(?:try|write|add|use|check) ", "", piece.strip()) for piece in pieces]
    return [
        shlex.split(part)
        for part in parts
        if re.match(r"(?:safe-compose|docker|docker-compose) \w", part)
    ]


@pytest.mark.thorough
def test_no_suggestion_is_a_command_that_we_would_guard() -> None:
    """`docker stop` and `rm` without `-v` delete only what a `--rm` container leaves behind: the
    guard looks, others pass.
    """
    tried = 0
    for where, suggestion in suggestions().items():
        for program, *words in commands_in(suggestion):
            tried += 1
            if program == "safe-compose" and launch.find_own_verb(words):
                assert fault_of(words) is None, f"{where}: {suggestion}"
                continue
            invocation = parser.parse(
                words, "docker-compose" if program == "docker-compose" else "docker"
            )
            harmless = {"none", "autoremove_anon"} if words[0] in ("stop", "rm") else {"none"}
            assert invocation.kind in harmless, f"{where}: {suggestion}"
            assert invocation.doubt is None, f"{where}: {suggestion}"
    assert tried >= 20


def test_a_guarded_suggestion_would_be_noticed() -> None:
    (words,) = commands_in("look first, then docker compose down -v")
    assert parser.parse(words[1:]).kind == "compose_down_volumes"


# -- against a real engine -------------------------------------------------------------------------


def yaml_of_the_docs() -> list[Any]:
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page, "yaml"))
        if "x-safe-compose" in block
    ]


@pytest.mark.thorough
@pytest.mark.engine
@pytest.mark.parametrize("block", yaml_of_the_docs())
def test_every_yaml_snippet_decides_a_tier(
    block: str, compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    keys = re.findall(r"^  (\w+):$", block, re.MULTILINE)
    mounts = ", ".join(f'"{key}:/{key}"' for key in keys)
    project = compose_project(
        f"services: {{a: {{image: 'postgres:15', volumes: [{mounts}]}}}}\n{block}"
    )
    project.docker("compose", "create", "--pull", "never")
    done = safe_compose("--explain", "--json", "compose", "down", "-v", cwd=project.folder)
    said = {
        v["name"]: (v["tier"], v["why"])
        for v in json.loads(done.stdout)["volumes"]
        if not v["anonymous"]
    }
    assert set(said) == {f"{project.name}_{key}" for key in keys}, done.stderr
    for key in keys:
        tier, why = said[f"{project.name}_{key}"]
        word = re.search(rf"{key}:\n\s+x-safe-compose: (\w+)", block)
        assert word and tier == word[1]
        assert "x-safe-compose" in why


PROJECT = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_PASSWORD: example}
    volumes: [data:/var/lib/postgresql/data, files:/files]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, postgres], interval: 1s, retries: 60}
volumes: {data: {}, files: {}}
"""


def json_block(containing: str) -> Any:
    return next(json.loads(block) for block in blocks(REFERENCE, "json") if containing in block)


def documented_tree() -> set[str]:
    """Files of a backup of PostgreSQL and plain files; what other kinds and other ways make has a
    line as well.
    """
    (block,) = (
        b for b in blocks(ROOT / "docs/explanation/backups.md", "") if b.startswith("<store>")
    )
    found = set()
    for line in block.splitlines()[1:]:
        name = line.split()[0]
        elsewhere = "instead of" in line or any(
            kind in line for kind in ("MySQL", "Redis", "SQLite")
        )
        if name != "<volume>/" and not elsewhere:
            found.add(f"<volume>/{name}" if line.startswith("    ") else name)
    return found


@pytest.mark.thorough
@pytest.mark.engine
def test_a_real_backup_and_its_json_look_as_documented(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(PROJECT)
    project.up()
    made = safe_compose("backup", "--json", cwd=project.folder)
    assert made.returncode == 0, made.stderr
    shape = json.loads(made.stdout)
    folder = Path(shape["backup"]["path"])
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    volumes = "|".join(re.escape(name) for name in shape["backup"]["volumes"])
    named = {
        re.sub(r"/db-.*\.sql", "/db-<name>.sql", re.sub(rf"^({volumes})/", "<volume>/", name))
        for name in files
    }
    assert named | {"verification.json"} == documented_tree()

    listed = json.loads(safe_compose("list", "--json", cwd=project.folder).stdout)
    documented = json_block('"backups"')
    assert listed.keys() == documented.keys()
    assert listed["backups"] == [shape["backup"]]
    assert shape["backup"].keys() == documented["backups"][0].keys()
    assert shape["backup"]["verified"].keys() == documented["backups"][0]["verified"].keys()

    explained = json.loads(
        safe_compose("--explain", "--json", "compose", "down", "-v", cwd=project.folder).stdout
    )
    documented = json_block('"spared"')
    assert explained.keys() == documented.keys()
    assert explained["volumes"][0].keys() == documented["volumes"][0].keys()
    offline = json.loads(
        safe_compose(
            "--explain", "--json", "--offline", "compose", "down", "-v", cwd=project.folder
        ).stdout
    )
    assert offline.keys() == {"version", "argv", "verdict", "kind", "warnings"}

    guide = (folder / "RESTORE.md").read_text(encoding="utf-8")
    lines = re.findall(r"^```sh\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    steps = [
        part.strip() for line in lines for part in re.split(r"&&|\||\n", line.replace("\\\n", " "))
    ]
    by_docker = [shlex.split(step)[1:] for step in steps if step.startswith("docker ")]
    assert len(by_docker) >= 4
    for words in by_docker:
        assert parser.parse(words).kind in ("none", "autoremove_anon"), words
