"""The commands that delete data inside a database, a cache or a queue: docker deletes no volume.

Rows of three tables name them: clients that take statements, programs whose words delete, and
programs that start another one by its name. This module is pure.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from safe_compose.audit.programs import ENGINES
from safe_compose.audit.shell_line import SimpleCommand
from safe_compose.audit.shell_words import Word, name_program
from safe_compose.audit.sql_statements import find_deletions

Files = Callable[[Word], str]
"""Returns what a line writes into a file before; empty when it writes nothing."""
_MOST = 8
"""Most words before the program in a command that starts it, and most files that a text names."""
_READS_FILE = re.compile(r"^\s*(?:\\ir?|\\\.|\.read|source)\s+([^\s;]+)", re.MULTILINE)
"""Matches what has a client read a file."""


class _Client(NamedTuple):
    """A program that takes statements."""

    statements: frozenset[str]
    """Its options whose value is a statement."""
    files: frozenset[str]
    """Its options whose value is a file of statements."""
    operands: int
    """How many operands come before statements; -1: operands are no statements."""
    find: Callable[[str], list[str]]


_CLIENTS = """
psql pgcli usql|-c --command|-f --file|-1|sql
mysql mariadb mycli mysqlsh|-e --execute --sql|-f --file|-1|sql
sqlite3 litecli|-cmd|-init|1|sql
duckdb|-c -s -cmd|-init -f|1|sql
cockroach|-e --execute|-f --file|-1|sql
clickhouse clickhouse-client clickhouse-local|-q --query|--queries-file|-1|sql
sqlcmd|-Q -q|-i|-1|sql
cqlsh|-e --execute|-f --file|-1|sql
mongosh mongo|--eval|-f --file|-1|mongo
redis-cli valkey-cli keydb-cli redis-cli6|||0|cache
""".strip()
_DATA_WORDS = """
prisma|migrate reset;db push --force-reset
rails rake|db:drop*;db:reset*;db:purge*;db:migrate:reset*;db:truncate_all*;db:schema:load*;\\
  db:setup*;db:seed:replant*
manage.py django-admin|flush;reset_db;migrate zero
alembic|downgrade base
flask|db downgrade base
artisan|migrate:fresh;migrate:refresh;migrate:reset;db:wipe
ace|migration:fresh;migration:refresh;migration:reset;db:wipe;db:truncate
knex|migrate:rollback --all
sequelize sequelize-cli|db:drop;db:migrate:undo:all
typeorm typeorm-ts-node-commonjs typeorm-ts-node-esm|schema:drop
mikro-orm|schema:drop;schema:fresh;migration:fresh
mix|ecto.drop;ecto.reset;ecto.rollback --all
console|doctrine:database:drop;doctrine:schema:drop;doctrine:fixtures:load
doctrine|orm:schema-tool:drop
phinx|rollback 0
yii|migrate/fresh
ef dotnet-ef|database drop
sqlx|database drop;database reset
diesel|database drop;database reset
supabase|db reset
dbmate|drop
goose|reset;down-to 0
migrate|drop;down -all
flyway|clean
liquibase|drop-all;dropAll
wp|db drop;db reset;db clean
drush|sql:drop;sql-drop
heroku|pg:reset
dropdb|*
mysqladmin mariadb-admin|drop
pg_restore|--clean;-c
mongorestore|--drop
rabbitmqctl|reset;force_reset;delete_queue;purge_queue
kafka-topics kafka-topics.sh|--delete
"""
_STARTERS = frozenset(
    {
        "npx", "pnpx", "bunx", "pnpm", "yarn", "npm", "bun", "bundle", "bundler", "spring",
        "poetry", "uv", "uvx", "pipenv", "pdm", "rye", "hatch", "pixi", "conda", "python",
        "pypy", "php", "ruby", "node", "deno", "dotnet", "tsx", "ts-node", "sail", "lando",
        "ddev", "dip", "symfony", "heroku", "dotenv", "composer", "turbo", "nx", "mise", "rtx",
        "asdf", "devbox", "kubectl", "oc", "lerna", "rushx", "vendor", "corepack",
    }
)  # fmt: skip
"""Programs that start another one, whose name is among their first words."""
_HARMLESS = frozenset({"--help", "help", "--dry-run", "--sql", "--pretend", "--list", "-l"})
_MONGO = re.compile(
    r"\b(dropDatabase)\s*\(|\.(drop)\s*\(|\.(deleteMany|remove)\s*\(\s*(?:\{\s*\}\s*)?\)"
)
_FLUSH = re.compile(r"\bflush(?:all|db)\b", re.IGNORECASE)
_FLUSH_LINE = re.compile(r"^\s*(?:flushall|flushdb)\b.*", re.IGNORECASE)
_CACHE_VALUES = frozenset(
    {"-h", "-p", "-a", "-n", "-u", "-s", "-i", "-r", "-t", "-d", "-D", "-X", "--user", "--pass",
     "--sni", "--cacert", "--cert", "--key", "--tls-ciphers", "--eval"}
)  # fmt: skip


def _find_in_mongo(code: str) -> list[str]:
    return [f"{next(name for name in found.groups() if name)}()" for found in _MONGO.finditer(code)]


def _find_in_cache(text: str) -> list[str]:
    return [line.split()[0].upper() for line in text.splitlines() if _FLUSH_LINE.match(line)]


_LANGUAGES: dict[str, Callable[[str], list[str]]] = {
    "sql": find_deletions,
    "mongo": _find_in_mongo,
    "cache": _find_in_cache,
}


def _rows(table: str) -> Iterator[list[str]]:
    for row in table.replace("\\\n", " ").strip().splitlines():
        yield row.split("|")


def _read_clients() -> dict[str, _Client]:
    found = {}
    for names, statements, files, operands, language in _rows(_CLIENTS):
        client = _Client(
            frozenset(statements.split()),
            frozenset(files.split()),
            int(operands),
            _LANGUAGES[language],
        )
        found.update(dict.fromkeys(names.split(), client))
    return found


def _read_words() -> dict[str, tuple[tuple[str, ...], ...]]:
    found = {}
    for names, forms in _rows(_DATA_WORDS):
        words = tuple(tuple(form.split()) for form in forms.split(";"))
        found.update(dict.fromkeys(names.split(), words))
    return found


CLIENTS = _read_clients()
"""The clients of databases, by name."""
DATA_WORDS = _read_words()
"""The words that make other programs delete data, by program: each form is words in this order,
patterns allowed; those that begin with `-` may stand anywhere."""


def find_data_deletion(command: SimpleCommand, files: Files) -> str:
    """Return what a command deletes data with, as `psql: DROP TABLE`, or empty.

    Names of tables and values are left out, since the words may hold secrets.
    """
    at = _find_program(command.words)
    if at is None:
        return ""
    name, rest = _name(command.words[at]), command.words[at + 1 :]
    if name in CLIENTS:
        texts = _statements(CLIENTS[name], rest, files) or [w.text for w in command.stdin]
        named = [found[1] for text in texts for found in _READS_FILE.finditer(text)]
        texts += [files(Word(path)) for path in named[:_MOST]]
        deletions = CLIENTS[name].find("\n;".join(texts))
        return f"{name}: {', '.join(deletions[:3])}" if deletions else ""
    texts = [word.text for word in rest]
    if texts[-1:] == ["-h"] or _HARMLESS & {text.partition("=")[0] for text in texts}:
        return ""
    form = next((form for form in DATA_WORDS[name] if _matches(form, texts)), None)
    shown = [] if form is None or form == ("*",) else [word.rstrip("*") for word in form]
    return " ".join([name, *shown]) if form is not None else ""


def _name(word: Word) -> str:
    """Return the name of a program, without the version that npx takes after it."""
    return re.sub(r"(?<=\w)@[\w.^~-]+$", "", name_program(word) or "")


def _find_program(words: Sequence[Word]) -> int | None:
    """Return where in a command the program of a table stands, or None."""
    first = _name(words[0])
    if first in CLIENTS:
        return 0
    after = [word.text for word in words[1 : _MOST + 1]]
    if first in DATA_WORDS and any(_matches(form, after) for form in DATA_WORDS[first]):
        return 0
    in_container = first in ENGINES and {"run", "exec"} & set(after)  # a service of its name
    if not in_container and re.sub(r"[\d.]+$", "", first) not in _STARTERS:
        return 0 if first in DATA_WORDS else None
    for index, word in enumerate(words[1 : _MOST + 1], 1):
        if _name(word) in CLIENTS or _name(word) in DATA_WORDS:
            return index
    return 0 if first in DATA_WORDS else None


def _matches(form: Sequence[str], texts: Sequence[str]) -> bool:
    """Return whether words have the words of a form, in its order."""
    flags = {text.partition("=")[0] for text in texts}
    if any(word.startswith("-") and word not in flags for word in form):
        return False
    operands = iter(text for text in texts if not text.startswith("-"))
    return all(
        any(fnmatchcase(operand, word) for operand in operands)
        for word in form
        if not word.startswith("-")
    )


def _statements(client: _Client, rest: Sequence[Word], files: Files) -> list[str]:
    """Return the statements among the words of a client, and in the files that they name."""
    found: list[str] = []
    operands: list[str] = []
    index = 0
    while index < len(rest):
        text = rest[index].text
        following = rest[index + 1] if index + 1 < len(rest) else Word("")
        for flags, read in ((client.statements, _text_of), (client.files, files)):
            value = _value_of(text, rest[index], following, flags)
            if value is not None:
                found.append(read(value))
                index += value is following
                break
        else:
            if not text.startswith("-"):
                operands.append(text)
            elif client.operands == 0 and text in _CACHE_VALUES:
                index += 1
        index += 1
    if client.operands == 0:
        return _cache_commands(operands)
    return [*found, *(operands[client.operands :] if client.operands > 0 else [])]


def _cache_commands(operands: Sequence[str]) -> list[str]:
    """Return the command of a cache's client as one line; a script of Lua by its words."""
    if operands[:1] and operands[0].lower() in ("eval", "call"):
        flush = _FLUSH.search(" ".join(operands[1:]))
        return [flush[0]] if flush else [" ".join(operands)]
    return [" ".join(operands)] if operands else []


def _text_of(word: Word) -> str:
    return word.text


def _value_of(text: str, word: Word, following: Word, flags: frozenset[str]) -> Word | None:
    """Return the value that an option of a client has, or None when it is another option.

    Short options are bundled (`-Atc`) and take an attached value (`-cSELECT`).
    """
    name, equals, value = text.partition("=")
    if text in flags:
        return following
    if equals and name in flags and name.startswith("--"):
        return word._replace(text=value)
    if not text.startswith("-") or text.startswith("--"):
        return None
    letters = {flag[1] for flag in flags if len(flag) == 2}
    bundle = next((n for n, letter in enumerate(text[1:9], 1) if letter in letters), None)
    if bundle is not None and re.search(r"\s", text):
        return word._replace(text=text[bundle + 1 :])
    if re.fullmatch(r"-[A-Za-z0-9]{1,8}", text) and text[-1] in letters:
        return following
    return None
