"""The notes about lines that delete data inside a database, or a folder that a service mounts."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from safe_compose.audit import agent_hook
from safe_compose.audit.agent_hook import HookOptions
from safe_compose.audit.agent_verdicts import judge
from safe_compose.audit.sql_statements import find_deletions

HERE = Path("/somewhere")

DELETE_DATA = [
    "psql -c 'DROP TABLE users'",
    'psql -U me -d shop -Atc "truncate users"',
    "psql --command='drop schema public cascade'",
    'psql -c"delete from users"',
    "docker compose exec -T db psql -U postgres -c 'DROP DATABASE shop'",
    "docker exec -i db psql <<EOF\nbegin;\ndelete from users;\ncommit;\nEOF",
    "docker run --rm postgres:16 psql -h db -c 'alter table a drop column b'",
    "cat <<< 'truncate a' | docker compose exec -T db psql",
    "echo 'drop table x;' > a.sql; psql -f a.sql",
    "printf 'drop table x;\\n' > a.sql && docker exec -i db psql < a.sql",
    "cat > a.sql <<E\nupdate a set x = 1;\nE\npsql --file=a.sql",
    "docker exec db mysql -uroot -psecret shop -e 'DELETE FROM a WHERE 1=1'",
    "echo 'DROP DATABASE shop' | docker exec -i db mariadb -uroot",
    'mariadb -NBe"TRUNCATE TABLE x"',
    "mysql --execute='/*!50000 DROP TABLE x */'",
    "mysqladmin -uroot drop shop",
    "sqlite3 app.db 'UPDATE a SET x = 1'",
    "sqlite3 app.db <<< 'drop table a'",
    "psql -c 'with a as (delete from b returning *) insert into c select * from a'",
    "psql -c 'explain analyze delete from a'",
    "psql -c \"DO \\$\\$ begin execute 'drop schema x'; end \\$\\$\"",
    "psql -c 'select 1' -c 'drop table b'",
    "kubectl exec -it pg-0 -- psql -c 'drop schema public cascade'",
    "ssh db1 \"psql -c 'drop schema public cascade'\"",
    "sudo -u postgres psql -c 'DROP DATABASE x'",
    'for t in a b; do psql -c "drop table $t"; done',
    "dropdb shop",
    "docker exec db dropdb -U postgres shop",
    "pg_restore --clean -d shop a.dump",
    "npx prisma migrate reset --force",
    "pnpm exec prisma db push --force-reset",
    "yarn prisma migrate reset",
    "bundle exec rails db:drop db:create",
    "RAILS_ENV=test bin/rails db:reset",
    "docker compose run --rm web bundle exec rake db:reset",
    "python3 manage.py flush --no-input",
    "docker compose exec web ./manage.py flush",
    "django-admin flush",
    "poetry run alembic downgrade base",
    "uv run python -m alembic downgrade base",
    "flask db downgrade base",
    "php artisan migrate:fresh --seed",
    "./vendor/bin/sail artisan migrate:fresh",
    "npx knex migrate:rollback --all",
    "npx sequelize-cli db:drop",
    "yarn typeorm schema:drop -d x.ts",
    "mix ecto.reset",
    "mix ecto.drop",
    "dotnet ef database drop -f",
    "bin/console doctrine:database:drop --force",
    "redis-cli -h cache FLUSHALL",
    "docker exec r redis-cli -a pw -n 2 flushdb async",
    "echo flushall | valkey-cli",
    "mongosh shop --eval 'db.dropDatabase()'",
    "docker exec -i m mongosh shop <<< 'db.users.deleteMany({})'",
    "mongorestore --drop dump",
    "dropdb -h localhost shop",
    "npx --yes prisma@5 migrate reset -f",
    "npx prisma@latest db push --force-reset",
    "docker compose run --rm artisan migrate:fresh",
    "echo 'drop table x;' > a.sql; psql -c '\\i a.sql'",
    "echo 'drop table x;' > a.sql; sqlite3 app.db '.read a.sql'",
]
KEEP_DATA = [
    "psql -c \"select 'drop table x'\"",
    "psql -c 'select * from a -- drop table b'",
    "psql -c 'select * from a /* drop table b */ where x'",
    "psql -c 'select \"drop\" from a'",
    "psql -c 'DROP INDEX i'",
    "psql -c 'drop view v'",
    "psql -c 'alter table a drop constraint b'",
    "psql -c 'alter table a alter column b drop not null'",
    "psql -c 'delete from a where id = 3'",
    "psql -c 'delete from a where id in (select id from b)'",
    "psql -c 'update a set x = (select 1 from b) where id = 3'",
    "psql -c 'explain delete from a'",
    "psql -c 'BEGIN; DELETE FROM a; ROLLBACK'",
    "psql -c 'insert into a values (1) on conflict (x) do update set y = 1'",
    "psql -c 'grant delete on a to b'",
    "psql -c 'select * from a for update'",
    "psql -c 'select truncate(1.5, 1)'",
    "psql -c 'create trigger t after delete on a execute function f()'",
    "psql -f schema.sql",
    "mysql -e 'show tables'",
    "mysqladmin status",
    "mysqldump --add-drop-table shop > a.sql",
    "sqlite3 app.db .tables",
    "grep -r 'DROP TABLE' migrations",
    "git commit -m 'drop table users'",
    "echo 'DROP TABLE users' > notes.txt",
    "rg flushall src",
    "redis-cli get flushall",
    "redis-cli del flushdb",
    "mongosh --eval 'db.users.deleteMany({a: 1})'",
    "mongosh --eval 'db.users.find()'",
    "npx prisma migrate dev",
    "npx prisma db push",
    "npx prisma migrate reset --help",
    "rails db:migrate",
    "rails db:rollback",
    "python manage.py migrate",
    "python manage.py sqlflush",
    "alembic downgrade -1",
    "alembic downgrade base --sql",
    "php artisan migrate",
    "php artisan migrate:fresh --pretend",
    "npx knex migrate:rollback",
    "npx knex migrate:latest",
    "mix ecto.migrate",
    "man dropdb",
    "dropdb -h",
    "psql -c 'create function f() returns void as $$ delete from a; $$ language sql'",
    "mysql -e 'drop user x; drop view v; drop temporary table t'",
    "mysql -e 'alter table a drop primary key, drop index b'",
    "psql -c 'delete from a using b where a.id = b.id'",
    "psql <<'E'\n-- drop table x\ninsert into a values ('; drop table b');\nE",
    "docker run --name prisma web db push",
    "which dropdb",
    "npm run build",
]


@pytest.mark.parametrize("line", DELETE_DATA)
def test_a_line_that_deletes_data_inside_a_database_runs_and_is_noted(line: str) -> None:
    answer = judge(line, HERE)
    assert answer.decision == ""
    assert answer.note.startswith("Run `safe-compose backup`")


@pytest.mark.parametrize("line", KEEP_DATA)
def test_a_line_that_keeps_the_data_is_not_noted(line: str) -> None:
    assert judge(line, HERE) == ("", "", "")


def test_a_note_holds_neither_names_nor_secrets_of_the_line() -> None:
    note = judge("mysql -uroot -phunter2 -e 'drop table payroll'", HERE).note
    assert "hunter2" not in note and "payroll" not in note and "mysql: DROP TABLE" in note


def test_a_line_that_is_stopped_for_another_reason_says_only_that() -> None:
    answer = judge("psql -c 'drop table a'; /usr/bin/docker volume rm x", HERE)
    assert (answer.decision, answer.note) == ("deny", "")


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("package.json", '{"scripts": {"db:reset": "prisma migrate reset"}}', "npm run db:reset"),
        ("Makefile", "reset:\n\tdocker compose exec db dropdb shop\n", "make reset"),
        ("reset.sh", "psql -c 'truncate users'\n", "./reset.sh"),
    ],
)
def test_a_script_that_deletes_data_inside_a_database_is_noted(
    file: str, text: str, line: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(text)
    assert file in judge(line, tmp_path).note


@pytest.mark.parametrize(
    "part", ["(", "/*", "$a$", "'", '"', "\\", "delete from a ", "with x as ("]
)
def test_sql_of_any_kind_is_read_in_linear_time(part: str) -> None:
    began = time.process_time()
    find_deletions(part * 50_000)
    assert time.process_time() - began < 1


# -- folders that a service mounts -----------------------------------------------------------------

COMPOSE = """
services:
  db:
    image: postgres:16
    volumes:
      - ${DATA:-./data}/pg:/var/lib/postgresql/data
      - ./init.sql:/docker-entrypoint-initdb.d/init.sql:ro
      - named:/x
      - ${ELSEWHERE}/cache:/cache
      - $PWD/logs:/logs
      - ./app.db:/data/app.db
      - ${STATE}:/var/lib/shop
      - ./src:/srv/shop
  web:
    volumes:
      - .:/app
      - {type: bind, source: ./uploads, target: /app/uploads}
      - {type: bind, source: ./config, target: /etc/app, read_only: true}
  varnish:
    image: varnish:7
    volumes:
      - ./html-cache/sub:/var/lib/varnish
volumes:
  named:
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    for name in ("data/pg", "uploads", "sub"):
        (folder / name).mkdir(parents=True)
    (folder / "compose.yaml").write_text(COMPOSE)
    (folder / "data/pg/PG_VERSION").write_text("16")
    (folder / "app.db").touch()
    (folder / "src").mkdir()
    (folder / "src/main.py").touch()
    (folder / "compose.mail.yaml").write_text("services: {mail: {volumes: ['./mail:/var/mail']}}")
    (folder / ".env").write_text("STATE=./state\nPASSWORD=hunter2\n")
    (folder / ".gitignore").write_text("# local\nuploads/\n*.log\n")
    return folder


@pytest.mark.parametrize(
    "line",
    [
        "rm -rf data",
        "rm -rf ./data/pg",
        "rm -rf data/pg/base",
        "rm -rf data/*",
        "rm -r -f d*",
        "rm -rf uploads && docker compose up -d",
        "cd sub && rm -rf ../data",
        "rm -rf *",
        "sudo rm -rf data",
        "find data -mindepth 1 -delete",
        'rm -rf "$PWD/data"',
        "rm -rf $(pwd)/data",
        "git clean -fdx",
        "git clean -ffdx data",
        "git clean -xdf -e uploads",
        "git clean -fdX -e data",
        "mv data data.old",
        "mv -t /elsewhere uploads",
        "mv data/pg/base /elsewhere",
        "rm data/pg/PG_VERSION",
        "rm -rf uploads/tmp",
        "truncate -s 0 data/pg/PG_VERSION",
        "rsync -a --delete backup/ data/pg/",
        "rsync -a backup/ data/pg/",
        "cp -r backup/. data/pg",
        "cp new data/pg/PG_VERSION",
        "sudo chown -R 1000:1000 data",
        "chown --recursive $(id -u) .",
        "chmod -R 777 ./data/pg",
        "chgrp -R --reference=sub uploads",
        "rm app.db",
        "rm -rf state",
        "rm -rf mail",
        "docker compose down; chown -R me data",
    ],
)
def test_a_removed_folder_of_a_service_is_noted(line: str, project: Path) -> None:
    answer = judge(line, project)
    assert answer.decision == ""
    assert answer.note.startswith("Run `safe-compose backup` first: ") and "mounts" in answer.note


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("rm -rf data", "`rm` removes files of {}/data/pg, which the service db mounts"),
        ("mv data /x", "`mv` moves {}/data/pg, which the service db mounts"),
        ("chown -R me data/pg", "`chown` changes the owner or mode of files in {}/data/pg,"),
        ("cp -r b/. uploads", "`cp` overwrites files of {}/uploads, which the service web mounts"),
    ],
)
def test_the_note_says_what_happens_to_which_folder(line: str, says: str, project: Path) -> None:
    assert says.format(project) in judge(line, project).note


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("package.json", '{"scripts": {"clean": "rm -rf data"}}', "npm run clean"),
        ("Makefile", "reset:\n\trm -rf ./data\n", "make reset"),
        ("reset.sh", "sudo chown -R me uploads\n", "bash reset.sh"),
    ],
)
def test_a_script_that_removes_a_folder_of_a_service_is_noted(
    file: str, text: str, line: str, project: Path
) -> None:
    (project / file).write_text(text)
    note = judge(line, project).note
    assert file in note and str(project) in note


@pytest.mark.parametrize(
    "line",
    [
        "rm -rf node_modules dist",
        "rm -rf /cache",
        "rm -rf $OTHER/data",
        "rm -rf config",
        "rm -rf sub",
        "rm data.txt",
        "docker compose exec web rm -rf data",
        "find data -name x",
        "git clean -fd",
        "git clean -ndx",
        "git clean -fdx sub",
        "git clean -fdx -e data -e uploads -e app.db",
        "git checkout .",
        "mv sub other",
        "mv sub uploads",
        "cp photo.jpg uploads",
        "cp photo.jpg uploads/new.jpg",
        "cp -r uploads /elsewhere",
        "cp -rn backup/. data/pg",
        "rsync -a data/ backup/",
        "chown 1000 data",
        "chmod +x data",
        "chown -R 1000 sub",
        "mkdir -p data && chown -R 1000:1000 data",
        "rm -rf html-cache",
        "rm data",
        "rm -rf cached",
        "rm -rf logs",
        "rm -rf src",
    ],
)
def test_another_folder_is_not_noted(line: str, project: Path) -> None:
    assert judge(line, project) == ("", "", "")


def test_a_compose_file_of_any_content_is_no_fault(tmp_path: Path) -> None:
    bomb = "a: &a [x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(50))
    for text in ("services: [", "services: {a: 3, b: {volumes: [3, {source: 4}]}}", "", bomb):
        (tmp_path / "compose.yaml").write_text(text)
        assert judge("rm -rf data", tmp_path).note == ""


# -- settings and agents ---------------------------------------------------------------------------


def ask_hook(agent: str, line: str, here: Path, **more: Any) -> str:
    request = {"tool_name": "Bash", "tool_input": {"command": line}, "cwd": str(here), **more}
    return agent_hook.run(request, HookOptions(agent=agent))


LINE = "docker compose exec db psql -c 'drop table a'"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "home/.config/safe-compose").mkdir(parents=True)
    return tmp_path / "home"


def test_a_note_decides_nothing_and_only_agents_that_have_a_key_for_it_get_one(home: Path) -> None:
    claude = json.loads(ask_hook("claude", LINE, home, permission_mode="auto"))
    assert set(claude) == {"hookSpecificOutput", "systemMessage"}
    assert set(claude["hookSpecificOutput"]) == {"hookEventName", "additionalContext"}
    assert "safe-compose backup" in claude["hookSpecificOutput"]["additionalContext"]
    codex = json.loads(ask_hook("codex", LINE, home))  # it fails on keys that it does not know
    assert codex == {"hookSpecificOutput": claude["hookSpecificOutput"]}
    assert ask_hook("cursor", LINE, home) == "{}\n"
    for agent in ("gemini", "copilot", "opencode"):
        assert ask_hook(agent, LINE, home) == ""


@pytest.mark.parametrize(
    ("user", "project", "want"),
    [
        ("", "", "note"),
        ("off", "", "off"),
        ("ask", "", "ask"),
        ("", "off", "off"),
        ("", "ask", "ask"),
        ("note", "off", "note"),
        ("ask", "off", "ask"),
        ("off", "ask", "ask"),
        ("off", "note", "note"),
    ],
)
def test_a_projects_file_may_only_raise_what_the_users_says(
    user: str, project: str, want: str, home: Path, tmp_path: Path
) -> None:
    here = tmp_path / "shop" / "sub"
    here.mkdir(parents=True)
    for path, value in (
        (home / ".config/safe-compose/config.toml", user),
        (here.parent / "safe-compose.toml", project),
    ):
        if value:
            path.write_text(f'[hook]\ninside = "{value}"\n')
    said = ask_hook("claude", LINE, here, permission_mode="default")
    assert said == "" if want == "off" else "safe-compose backup" in said
    assert ('"permissionDecision": "ask"' in said) == (want == "ask")
    assert '"deny"' not in said


def test_a_file_that_others_may_write_raises_and_does_not_lower(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "safe-compose.toml"
    for value, asks in (("ask", True), ("off", False)):
        path.write_text(f'[hook]\ninside = "{value}"\n')
        path.chmod(0o666)
        said = ask_hook("claude", LINE, tmp_path, permission_mode="default")
        assert ('"ask"' in said) == asks and said != ""


def test_a_setting_that_does_not_read_leaves_the_note(home: Path, tmp_path: Path) -> None:
    (tmp_path / "safe-compose.toml").write_text('[hook]\ninside = "never"\n')
    assert "additionalContext" in ask_hook("claude", LINE, tmp_path)
