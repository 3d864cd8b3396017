"""Passwords in connection strings, `.env` files and compose files: found as readers mean them, and
nothing else ever changes.
"""

import json
import string
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from safe_compose import credentials
from safe_compose.core.redaction import hide_secrets
from safe_compose.credentials import Account, CredentialFile, compose_yaml, dotenv, dsn
from safe_compose.databases import mysql, postgres
from safe_compose.errors import Refused
from safe_compose.grammar import parser
from safe_compose.operations.passwords import project_sources
from testing.projects import docker

PRINTABLE = string.ascii_letters + string.digits + string.punctuation + " äжß€"
passwords = st.text(PRINTABLE, min_size=1, max_size=24)
names = st.text(string.ascii_lowercase + string.digits + "_", min_size=1, max_size=8).filter(
    lambda s: s[0].isalpha()
)


def libpq(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@st.composite
def connection_strings(draw: st.DrawFn) -> tuple[str, str, str]:
    """(text, form, password)"""
    user, host, name = draw(names), draw(names), draw(names)
    form = draw(st.sampled_from(["url", "parameter", "words", "pairs", "go"]))
    if form in ("pairs", "go"):
        password = draw(
            st.text(string.ascii_letters + string.digits + "!%^*_-+.~", min_size=1, max_size=24)
        )
    else:
        password = draw(passwords)
    encoded = quote(password, safe=draw(st.sampled_from(["", "!$*", "-._~"])))
    scheme = draw(
        st.sampled_from(
            ["postgres", "postgresql+asyncpg", "mysql+pymysql", "jdbc:postgresql", "mariadb"]
        )
    )
    text = {
        "url": f"{scheme}://{user}:{encoded}@{host}:5432/{name}?sslmode=disable",
        "parameter": f"{scheme}://{host}:5432/{name}?user={user}&password={encoded}&ssl=false",
        "words": f"host={host} port=5432 user={user} password={libpq(password)} dbname={name}",
        "pairs": f"Host={host};Port=5432;Username={user};Password={password};Database={name}",
        "go": f"{user}:{password}@tcp({host}:3306)/{name}?parseTime=true",
    }[form]
    return text, form, password


@settings(deadline=None)
@given(connection_strings(), passwords)
def test_a_connection_string_keeps_everything_but_its_password(
    made: tuple[str, str, str], new: str
) -> None:
    text, form, password = made
    found = [f for f in dsn.find_passwords(text) if f.form == form]
    assert [f.password for f in found] == [password]
    try:
        changed = dsn.put(text, found[0], new)
    except dsn.UnwritablePassword:
        assert form in ("pairs", "go")
        return
    assert changed.startswith(text[: found[0].start])
    assert changed.endswith(text[found[0].end :])
    again = [f for f in dsn.find_passwords(changed) if f.form == form]
    assert [(f.password, f.user, f.host) for f in again] == [(new, found[0].user, found[0].host)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://u:p%40ss@db/x", [("p@ss", "u", "db")]),
        ("postgresql+psycopg2://u:a:b@[::1]:5432/x", [("a:b", "u", "::1")]),
        ("redis://:secret@cache:6379/0", [("secret", "", "cache")]),
        ("postgres://u:${PW}@db/x", [("${PW}", "u", "db")]),
        ("psql 'host=db user=u password=p1' -c x", [("p1", "u", "db")]),
        ("Server=tcp:db,1433;User Id=u;Pwd=p1;", [("p1", "u", "db")]),
        ("https://example.org/?next=1", []),
        ("password=lonely", []),
        ("a;b;password=c", []),
    ],
)
def test_forms_of_connection_strings(text: str, expected: list[tuple[str, str, str]]) -> None:
    assert [(f.password, f.user, f.host) for f in dsn.find_passwords(text)] == expected


# -- .env ------------------------------------------------------------------------------------------

lines = st.one_of(
    st.just(""),
    st.text(PRINTABLE, max_size=20).map(lambda s: f"# {s}"),
    st.tuples(names, st.text(string.ascii_letters + string.digits, max_size=8)).map(
        lambda t: f"{t[0].upper()}={t[1]} # why"
    ),
    st.tuples(names, st.text(string.ascii_letters + " #=", max_size=8)).map(
        lambda t: f"export {t[0].upper()} = '{t[1]}'"
    ),
    st.just('MANY="one\ntwo=2\n# three"'),
)


@settings(deadline=None)
@given(
    before=st.lists(lines, max_size=5),
    after=st.lists(lines, max_size=5),
    mark=st.sampled_from(["", "'", '"']),
    tail=st.sampled_from(["", " ", " # the old one", "\t"]),
    ending=st.sampled_from(["\n", "\r\n"]),
    old=st.text(string.ascii_letters + string.digits + "@:/!", min_size=1, max_size=12),
    new=passwords,
)
def test_an_env_file_keeps_every_byte_but_the_value(
    before: list[str], after: list[str], mark: str, tail: str, ending: str, old: str, new: str
) -> None:
    head = "".join(f"{line}{ending}" for line in before)
    foot = ending + ending.join(after)
    text = f"{head}ZZ_SECRET={mark}{old}{mark}{tail}{foot}"
    entry = next(e for e in dotenv.entries(text) if e.key == "ZZ_SECRET")
    assert entry.value == old
    try:
        changed = dotenv.replace_values(text, {entry: new})
    except dotenv.Unquotable:
        assert set(new) & set("'\"\\$`")
        return
    assert changed.startswith(f"{head}ZZ_SECRET=")
    assert changed.endswith(f"{tail}{foot}")
    again = next(e for e in dotenv.entries(changed) if e.key == "ZZ_SECRET")
    assert again.value == new
    assert [e[:2] for e in dotenv.entries(changed) if e.key != "ZZ_SECRET"] == [
        e[:2] for e in dotenv.entries(text) if e.key != "ZZ_SECRET"
    ]


@pytest.mark.engine
def test_compose_reads_every_value_that_is_written_as_it_was_meant(tmp_path: Path) -> None:
    """Of each kind of quoting and each character: what we read and what compose reads is the same,
    before and after.
    """
    samples = [f"a{c}b" for c in string.punctuation + " ä€"] + [
        f"{c}x{c}" for c in string.punctuation
    ]
    samples += ["-1", "0x1f", "true", "1e5"]
    text = "".join(
        f"K{n}={mark}old{n}{mark}\n" for n, mark in enumerate(["", "'", '"'] * len(samples))
    )
    values: dict[dotenv.Assignment, str] = {}
    for n, entry in enumerate(dotenv.entries(text)):
        try:
            dotenv.write_value(entry, samples[n // 3])
        except dotenv.Unquotable:
            continue
        values[entry] = samples[n // 3]
    assert len(values) > 150
    (tmp_path / "values.env").write_text(dotenv.replace_values(text, values), "utf-8")
    (tmp_path / "compose.yaml").write_text("services: {a: {image: x, env_file: [values.env]}}\n")
    shown = json.loads(docker("compose", "config", "--format", "json", cwd=tmp_path).stdout)
    told = credentials.environment(shown["services"]["a"])
    assert {e.key: told[e.key] for e in values} == {e.key: value for e, value in values.items()}


# -- compose files ---------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    style=st.sampled_from(["", "'", '"']),
    old=st.text(string.ascii_letters, min_size=1, max_size=12),
    new=passwords,
    flow=st.booleans(),
)
def test_a_compose_file_keeps_every_byte_but_the_value(
    style: str, old: str, new: str, flow: bool
) -> None:
    assume(old.lower() not in ("y", "n", "on", "off", "no", "yes", "true", "false", "null"))
    head = "# the shop\nservices:\n  db:\n    image:   postgres:15   # old\n"
    value = f"{style}{old}{style}"
    block = f"    environment:\n      POSTGRES_PASSWORD: {value}"
    line = f"    environment: {{A: 1, POSTGRES_PASSWORD: {value} , B: x}}" if flow else block
    text = f"{head}{line}   # why\n\nvolumes: {{}}\n"
    scalar = next(s for s in compose_yaml.scalars(text) if s.path[-1] == "POSTGRES_PASSWORD")
    assert compose_yaml.is_simple(text, scalar)
    changed = compose_yaml.replace_scalars(text, {scalar: new})
    assert changed.startswith(text[: scalar.start])
    assert changed.endswith(text[scalar.end :])
    again = {s.path: s.value for s in compose_yaml.scalars(changed)}
    assert again == {**{s.path: s.value for s in compose_yaml.scalars(text)}, scalar.path: new}


@pytest.mark.parametrize("innermost", ["[]", "{}", "x"])
def test_aliases_of_aliases_are_given_up_also_where_nothing_is_in_them(innermost: str) -> None:
    lists = (f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    text = f"a0: &a0 {innermost}\n{''.join(lists)}"
    with pytest.raises(compose_yaml.BadYaml, match="too many values"):
        compose_yaml.scalars(text, aliases=True)
    assert len(compose_yaml.scalars(text)) == (innermost == "x")


# -- consumers -------------------------------------------------------------------------------------

OLD, NEW = "hunter2-first", "Sec0nd_one-xyz"
COMPOSE = """\
name: shop
services:
  db:
    image: postgres:15
    environment:
      POSTGRES_USER: shop
      POSTGRES_PASSWORD: ${DB_PASSWORD:?}
  web:
    image: shop/web
    environment:
      DATABASE_URL: postgresql+asyncpg://shop:${DB_PASSWORD}@db:5432/shop
"""


def model(**services: Mapping[str, Any]) -> dict[str, Any]:
    db = {
        "image": "postgres:15",
        "environment": {"POSTGRES_USER": "shop", "POSTGRES_PASSWORD": OLD},
    }
    return {"name": "shop", "services": {"db": db, **services}}


def look(
    sources: list[CredentialFile],
    *,
    new: str = NEW,
    shown: dict[str, Any] | None = None,
    exported: Mapping[str, str] | None = None,
    **more: Any,
) -> credentials.Survey:
    url = f"postgresql+asyncpg://shop:{OLD}@db:5432/shop"
    shown = shown or model(web={"image": "shop/web", "environment": {"DATABASE_URL": url}})
    raw = {"services": {"db": {"environment": {"POSTGRES_PASSWORD": "${DB_PASSWORD:?}"}}}}
    found = credentials.account(shown, "db", None, lambda path: None)
    return credentials.survey(shown, raw, sources, found, new, exported=exported or {}, **more)


def test_the_usual_project_changes_one_line_of_env() -> None:
    found = look(
        [
            CredentialFile("compose.yaml", "compose", COMPOSE),
            CredentialFile(".env", "env", f"# keep\nDB_PASSWORD={OLD}\nX=1\n"),
        ]
    )
    assert not found.refusals
    assert [(e.source.path, e.text, e.places) for e in found.edits] == [
        (".env", f"# keep\nDB_PASSWORD={NEW}\nX=1\n", ("DB_PASSWORD (line 2)",))
    ]
    assert dict(found.takers) == {
        "db": ("environment.POSTGRES_PASSWORD",),
        "web": ("environment.DATABASE_URL",),
    }


@pytest.mark.parametrize(
    ("sources", "new", "words"),
    [
        ([CredentialFile(".env", "env", f"DB_PASSWORD={OLD}\n")], "p@ss/word", "unencoded"),
        (
            [CredentialFile(".env", "env", f"DB_PASSWORD={OLD}\nADMIN_PASSWORD={OLD}\n")],
            NEW,
            "--leave ADMIN_PASSWORD",
        ),
        (
            [CredentialFile(".env", "env", f"DB_PASSWORD={OLD}\nDSN=weird<{OLD}>\n")],
            NEW,
            "cannot be parsed",
        ),
        (
            [
                CredentialFile(
                    "compose.yaml", "compose", f"x: &pw {OLD}\ny: {{POSTGRES_PASSWORD: *pw}}\n"
                )
            ],
            NEW,
            "&",
        ),
        ([CredentialFile("compose.yaml", "compose", "a: [\n")], NEW, "no YAML"),
        (
            [
                CredentialFile(
                    "compose.yaml", "compose", f"x: {{y: {{\n DB_PASSWORD: >-\n   {OLD}\n"
                )
            ],
            NEW,
            "no YAML",
        ),
        (
            [CredentialFile("compose.yaml", "compose", f"x:\n DB_PASSWORD: >-\n   {OLD}\n")],
            NEW,
            "several lines",
        ),
        (
            [CredentialFile("users.txt", "file", '"shop" "SCRAM-SHA-256$4096:x$y:z"\n')],
            NEW,
            "list of users",
        ),
        ([CredentialFile("app.ini", "file", f"[db]\npass => {OLD}\n")], NEW, "--leave app.ini"),
        ([], NEW, "no file of this project"),
    ],
)
def test_what_cannot_be_changed_safely_is_refused_without_showing_it(
    sources: list[CredentialFile], new: str, words: str
) -> None:
    found = look(sources, new=new)
    assert any(words in refusal for refusal in found.refusals)
    assert OLD not in str((found.refusals, found.notes, found.takers))
    assert new not in str((found.refusals, found.notes, found.takers))


def test_an_exported_variable_wins_over_env_and_is_refused() -> None:
    sources = [
        CredentialFile("compose.yaml", "compose", COMPOSE),
        CredentialFile(".env", "env", f"DB_PASSWORD={OLD}\n"),
    ]
    assert (
        "DB_PASSWORD is exported"
        in look(sources, exported={"DB_PASSWORD": OLD, "OTHER": OLD}).refusals[0]
    )
    assert not look(sources, exported={"OTHER": OLD}).refusals


def test_another_database_with_the_same_variable_is_refused() -> None:
    other = {"image": "postgis/postgis:16", "environment": {"POSTGRES_PASSWORD": OLD}}
    found = look([CredentialFile(".env", "env", f"DB_PASSWORD={OLD}\n")], shown=model(other=other))
    assert "database other takes the same password" in found.refusals[0]


def test_every_kind_of_file_is_rewritten_where_it_stands() -> None:
    sources = [
        CredentialFile(
            "compose.yaml",
            "compose",
            COMPOSE.replace("${DB_PASSWORD:?}", f"${{DB_PASSWORD:-{OLD}}}"),
        ),
        CredentialFile(
            "app.env",
            "env_file",
            f"SPRING_URL='jdbc:postgresql://db/shop?user=shop&password={OLD}'  # jdbc\n",
            ("web",),
        ),
        CredentialFile("secret.txt", "file", f"{OLD}\n", ("web",)),
        CredentialFile("userlist.txt", "file", f'"other" "{OLD}"\n"shop" "{OLD}"\n', ("pool",)),
        CredentialFile(
            "pgpass", "file", f"db:5432:*:shop:{OLD}\ndb:5432:*:other:{OLD}\n", ("job",)
        ),
    ]
    found = look(sources)
    assert not found.refusals
    texts = {e.source.path: e.text for e in found.edits}
    assert texts == {
        "compose.yaml": sources[0].text.replace(OLD, NEW),
        "app.env": sources[1].text.replace(OLD, NEW),
        "secret.txt": f"{NEW}\n",
        "userlist.txt": f'"other" "{OLD}"\n"shop" "{NEW}"\n',
        "pgpass": f"db:5432:*:shop:{NEW}\ndb:5432:*:other:{OLD}\n",
    }
    assert found.mounted == ("web", "pool", "job")


def test_a_default_that_does_not_count_keeps_nobody_from_anything() -> None:
    text = COMPOSE.replace("${DB_PASSWORD:?}", f"${{DB_PASSWORD:-{OLD}}}").replace(
        "${DB_PASSWORD}", f"${{DB_PASSWORD:-{OLD}}}"
    )
    sources = [
        CredentialFile("compose.yaml", "compose", text),
        CredentialFile(".env", "env", f"DB_PASSWORD={OLD}\n"),
    ]
    found = look(sources)
    assert not found.refusals
    assert [e.source.path for e in found.edits] == [
        ".env"
    ]  # no new password goes into a file that git knows
    where = (
        "compose.yaml, line {}: the default of DB_PASSWORD, which does not count, stays the old"
        " password"
    )
    assert found.notes == (where.format(7), where.format(11))
    emptied = look([sources[0], CredentialFile(".env", "env", "DB_PASSWORD=\n")])
    assert [e.source.path for e in emptied.edits] == ["compose.yaml"]
    assert emptied.edits[0].text == text.replace(OLD, NEW)


def test_a_common_word_is_not_replaced_where_it_means_something_else() -> None:
    shown = model()
    shown["services"]["db"]["environment"] = {
        "POSTGRES_USER": "postgres",
        "POSTGRES_PASSWORD": "postgres",
    }
    text = "POSTGRES_USER=postgres\nPOSTGRES_PASSWORD=postgres\nPOSTGRES_DB=postgres\nURL=postgres://postgres:postgres@db/postgres\n"
    found = look([CredentialFile(".env", "env", text)], shown=shown)
    assert not found.refusals
    assert (
        found.edits[0].text
        == f"POSTGRES_USER=postgres\nPOSTGRES_PASSWORD={NEW}\nPOSTGRES_DB=postgres\nURL=postgres://postgres:{NEW}@db/postgres\n"
    )


def test_the_model_shows_whether_everything_followed() -> None:
    before = model(
        web={"environment": {"URL": f"postgres://shop:{OLD}@db/shop", "TOKEN": "t", "DB_PASS": OLD}}
    )
    found = Account("db", "postgres", "shop", OLD, ("POSTGRES_PASSWORD",))
    after = json.loads(json.dumps(before).replace(OLD, NEW))
    assert credentials.find_differences(before, after, found, NEW, frozenset()) == []
    half = json.loads(json.dumps(after).replace(f"shop:{NEW}", f"shop:{OLD}"))
    still = "services.web.environment.URL still has the old password"
    assert credentials.find_differences(before, half, found, NEW, frozenset()) == [still]
    other = json.loads(json.dumps(after).replace('"t"', '"u"'))
    assert (
        "TOKEN changed" in credentials.find_differences(before, other, found, NEW, frozenset())[0]
    )


EVERYWHERE = """\
name: shop   # every kind of place at once
include: [more.yaml]
x-web: &web
  image: shop/web
  environment: &env
    DB_PASS: '${DB_PASSWORD}'
services:
  db:
    image: postgres:15
    environment:
      - POSTGRES_USER=shop
      - POSTGRES_PASSWORD=${DB_PASSWORD}
  web: {<<: *web, env_file: [app.env]}
  literal:
    image: shop/literal
    environment:
      PGPASSWORD: OLD   # here as well
      OTHER: [x]
    command: ["serve", "--dsn", "postgres://shop:OLD@db/shop?x=1"]
  list:
    image: shop/list
    environment: [ "URL=host=db user=shop password='OLD' dbname=shop", 'DATABASE_PASSWORD=OLD' ]
""".replace("OTHER: [x]", "OTHER: x")
FILES = {
    ".env": "# one\nDB_PASSWORD=OLD\n",
    "app.env": "export DB_URL='postgresql+asyncpg://shop:OLD@db:5432/shop'\r\nGO_DSN=x\r\n",
    "more.yaml": (
        "services:\n  more:\n    image: shop/more\n    environment: {JDBC:"
        " 'jdbc:postgresql://db/shop?user=shop&password=OLD'}\n"
    ),
    "compose.override.yaml": 'services:\n  db:\n    environment:\n      PG_PASSWORD: "OLD"\n',
}


@pytest.mark.thorough
@pytest.mark.engine
def test_compose_reads_edited_files_as_they_were_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_docker: str
) -> None:
    """Odd passwords, in every kind of place: all consumers get it, nothing else changes, by the
    words of compose itself.
    """
    monkeypatch.chdir(tmp_path)
    invocation = parser.parse(["compose", "config"])

    def shown(*words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            docker("compose", "config", "--format", "json", *words, cwd=tmp_path).stdout
        )
        return found

    for name, text in {"compose.yaml": EVERYWHERE, **FILES}.items():
        (tmp_path / name).write_text(text.replace("OLD", OLD), "utf-8", newline="")
    old = OLD
    odd = ("p@ss:w/o?r#d&x", "do$llar$$ {x}", 'quo"te-once', "it's one", "ключ €", "100% = a;b,c")
    for new in ("Plain1-._~", "true-0123456", *odd):
        before = shown()
        found, notes = project_sources.find(invocation, before)
        assert not notes
        account = credentials.account(before, "db", None, lambda path: None)
        found = credentials.survey(
            before, shown("--no-interpolate"), found, account, new, exported={}
        )
        assert not found.refusals, (new, found.refusals)
        for edit in found.edits:
            (tmp_path / edit.source.path).write_text(edit.text, "utf-8", newline="")
        assert len(found.edits) == 5
        assert set(found.takers) == {"db", "web", "literal", "list", "more"}
        assert credentials.find_differences(before, shown(), account, new, frozenset()) == [], new
        assert not any(old in (tmp_path / name).read_text() for name in ("compose.yaml", *FILES))
        old = new


SHA2 = "$A$005$secret-of-the-server" + "x" * 43
NATIVE = "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"


@pytest.mark.parametrize(
    "rows",
    [
        [("%", "caching_sha2_password", SHA2[:-1])],
        [("%", "mysql_native_password", NATIVE), ("localhost", "caching_sha2_password", SHA2)],
        [("%", "sha256_password", SHA2)],
        [("%", "ed25519", SHA2), ("localhost", "mysql_native_password", NATIVE)],
        [("localhost", "unix_socket", "")],
        [
            ("%", "mysql_native_password", NATIVE),
            ("localhost", "mysql_native_password", NATIVE.replace("2470", "2471")),
        ],
        [],
    ],
)
def test_an_account_of_mysql_whose_password_would_stay_the_old_one_is_refused(
    rows: list[tuple[str, str, str]],
) -> None:
    with pytest.raises(Refused, match="nothing was changed") as refused:
        mysql.password.role_of(rows, "app", "shop-db-1")
    assert SHA2 not in f"{refused.value.message} {refused.value.next_step}"
    assert "*247" not in refused.value.message
    if [plugin for _, plugin, _ in rows] == ["caching_sha2_password"]:
        assert "it has caching_sha2_password" in refused.value.message


def test_each_host_of_an_account_of_mysql_keeps_a_salted_hash_of_its_own() -> None:
    made = [mysql.password.verifier("first", "app", json.dumps({"%": SHA2})) for _ in range(2)]
    hashes = [json.loads(one)["%"] for one in made]
    assert hashes[0] != hashes[1] and all(h.startswith("$A$005$") for h in hashes)
    rows = [(host, "caching_sha2_password", h) for host, h in zip("%x", hashes, strict=True)]
    stored = mysql.password.role_of(rows, "app", "shop-db-1").verifier
    assert mysql.password.fits(stored, "first", "app") is True
    assert mysql.password.fits(stored, "First", "app") is False
    assert mysql.password.fits(json.dumps({"%": "$A$FFF" + SHA2[6:]}), "first", "app") is None
    other = json.loads(mysql.password.verifier("other", "app", stored))
    assert sorted(other) == ["%", "x"]
    rows[1] = ("x", "caching_sha2_password", other["x"])
    with mysql.password.knowing("app", "first"), pytest.raises(Refused, match="differ"):
        mysql.password.role_of(rows, "app", "shop-db-1")


def test_an_account_of_mysql_with_the_usual_hash_is_taken() -> None:
    rows = [("%", "mysql_native_password", NATIVE), ("localhost", "unix_socket", "")]
    assert (
        mysql.password.role_of(rows, "root", "shop-db-1").verifier
        == NATIVE
        == mysql.password.verifier("password", "root")
    )
    assert mysql.password.fits(NATIVE, "password", "root")
    assert not mysql.password.fits(NATIVE, "Password", "root")


@pytest.mark.parametrize(
    ("kept", "fits"),
    [
        ("SCRAM-SHA-256$1:c2FsdA==$bm90IGl0:bm90IGl0", False),
        ("SCRAM-SHA-256$99999999999:c2FsdA==$bm90IGl0:bm90IGl0", None),
        ("SCRAM-SHA-256$2147483647:c2FsdA==$bm90IGl0:bm90IGl0", None),
        ("SCRAM-SHA-256$0:c2FsdA==$bm90IGl0:bm90IGl0", None),
        ("SCRAM-SHA-256$1:c2FsdAA$bm90IGl0:bm90IGl0", None),
        ("SCRAM-SHA-256$1:c2FsdA==$b:bm90IGl0", None),
    ],
    ids=["another", "too many digits", "too many rounds", "no rounds", "odd salt", "odd key"],
)
def test_a_verifier_that_no_server_makes_is_told_apart_from_a_wrong_password(
    kept: str, fits: bool | None
) -> None:
    assert postgres.password.fits(kept, "password", "root") is fits
    assert postgres.password.fits(
        postgres.password.verifier("password", "root"), "password", "root"
    )


@pytest.mark.parametrize(
    ("address", "hidden", "shown"),
    [
        ("https://canary-token@host/x.git#main", "canary-token", "https://***@host/x.git#main"),
        ("https://canary-token:x-oauth-basic@host/x", "canary-token", "https://***:***@host/x"),
        ("https://user:canary-token@host/x", "canary-token", "https://user:***@host/x"),
        (
            "git@host:x.git ssh://user@host https://host/a@b",
            "canary-token",
            "git@host:x.git ssh://user@host https://host/a@b",
        ),
    ],
    ids=["token", "token of an application", "password", "no secret"],
)
def test_no_token_of_an_address_is_shown(address: str, hidden: str, shown: str) -> None:
    assert hide_secrets(address) == shown and hidden not in shown


def test_an_included_address_that_is_not_searched_is_named_without_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compose.yaml").write_text(
        "include: ['https://canary-token@host/x.git']\nservices: {}\n"
    )
    _, [note] = project_sources.find(parser.parse(["compose", "config"]), {})
    assert "https://***@host/x.git" in note and "canary-token" not in note


def test_refused_logins_are_counted_from_a_servers_log() -> None:
    access = "[Warning] Access denied for user '{}'@'{}' (using password: {})\n"
    log = access.format("app", "172.18.0.3", "YES") + access.format(
        "app", "localhost", "YES"
    )  # the second is our own
    log += access.format("app", "172.18.0.3", "NO") + access.format("app2", "172.18.0.3", "YES")
    assert (mysql.password.count_refused(log, "app"), mysql.password.count_refused(log)) == (1, 2)
    failed = (
        'FATAL:  password authentication failed for user "{}"\nDETAIL:  Connection matched ...\n'
    )
    log = failed.format("shop") * 2 + failed.format("shop2")
    assert [postgres.password.count_refused(log, name) for name in ("shop", "other", None)] == [
        2,
        0,
        3,
    ]


GERMAN = """\
2026-11-29 22:00:00.000 UTC [1] {0}LOG:  Datenbanksystem ist bereit, um Verbindungen anzunehmen
2026-11-29 22:00:01.000 UTC [61] {1}FATAL:  Passwort-Authentifizierung für Benutzer »shop« fehlgeschlagen
2026-11-29 22:00:01.000 UTC [61] {1}DETAIL:  Verbindung stimmte mit pg_hba.conf-Zeile 128 überein (»shop«)
2026-11-29 22:00:02.000 UTC [62] {1}FATAL:  Passwort-Authentifizierung für Benutzer »shop2« fehlgeschlagen
"""


def test_a_log_in_another_language_gives_a_number_by_its_sqlstate_or_none() -> None:
    assert postgres.password.count_refused(GERMAN.format("", ""), "shop") is None
    coded = GERMAN.format("00000 ", "28P01 ")
    assert [postgres.password.count_refused(coded, name) for name in ("shop", "shop2", None)] == [
        1,
        1,
        2,
    ]
    assert (
        postgres.password.count_refused(
            "LOG:  redirecting log output to logging collector process\n", "shop"
        )
        is None
    )
    assert (
        postgres.password.count_refused(
            "LOG:  database system is ready to accept connections\n", "shop"
        )
        == 0
    )
    german = (
        "[Note] mariadbd: bereit für Verbindungen.\nVersion: '10.11.14-MariaDB'\n[Warning] Benutzer"
        " 'app' hat keine Zugriff"
    )
    assert mysql.password.count_refused(german, "app") is None
    english = (
        "[Note] mariadbd: ready for connections.\nVersion: '10.11.14-MariaDB-0+deb12u2' "
        " socket: ..."
    )
    assert mysql.password.count_refused(english, "app") == 0


@pytest.mark.parametrize(
    "line",
    [
        "28P01 " + "x" * (4 << 20),
        'FATAL:  password authentication failed for user "' * 50_000 + "x",
        "ready for connections " * 100_000,
    ],
    ids=["a word without an end", "one refusal in another", "one start after the other"],
)
def test_a_log_of_one_endless_line_keeps_nobody_waiting(line: str) -> None:
    begun = time.monotonic()
    assert (
        not postgres.password.count_refused(line, "shop")
        and mysql.password.count_refused(line, "shop") is None
    )
    assert time.monotonic() - begun < 5


def test_an_account_that_cannot_be_told_is_said_so() -> None:
    for service, words in (("nope", "no service nope"), ("web", "no PostgreSQL")):
        with pytest.raises(credentials.UnsupportedAccount, match=words):
            credentials.account(model(web={"image": "nginx"}), service, None, lambda path: None)


def test_another_role_is_known_by_whatever_name_its_server_has() -> None:
    shown = model(
        web={"image": "shop/web", "environment": {"URL": f"postgres://app:{NEW}@pg:5432/shop"}}
    )
    shown["services"]["db"]["networks"] = {"default": {"aliases": ["pg"]}}
    found = credentials.account(shown, "db", "app", lambda path: None)
    assert (found.user, found.password) == ("app", NEW)
    other = {
        "image": "postgres:15",
        "environment": {"POSTGRES_PASSWORD": OLD},
        "networks": {"default": {"aliases": ["pg2"]}},
    }
    shown = model(db2=other, web={"environment": {"URL": f"postgres://app:{NEW}@pg2:5432/shop"}})
    with pytest.raises(credentials.UnsupportedAccount, match="no password is used for app"):
        credentials.account(shown, "db", "app", lambda path: None)


def test_a_database_that_is_built_here_is_known_by_what_its_container_has_inside() -> None:
    shown = model()
    shown["services"]["db"] = {"build": {"context": "."}, "environment": {"POSTGRES_PASSWORD": OLD}}
    with pytest.raises(credentials.UnsupportedAccount, match="no PostgreSQL"):
        credentials.account(shown, "db", None, lambda path: None)
    found = credentials.account(shown, "db", None, lambda path: None, {"PG_MAJOR": "15"})
    assert (found.kind, found.user, found.password) == ("postgres", "postgres", OLD)
    backups = {"image": "somebody/postgres-backup", "environment": {"POSTGRES_PASSWORD": OLD}}
    assert (
        credentials.serves(backups, {"PG_MAJOR": "15"}) is None
    )  # made from such an image, and no server
