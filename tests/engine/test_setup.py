"""`safe-compose setup`: what a project's files should say, shown first; and the deploy job that it
writes, run step by step.
"""

import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from safe_compose.errors import ConfigError, Refused
from safe_compose.operations.setup import propose
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, require_success
from testing.stacks import FILES
from testing.terminal import PROGRAM, Person

DOCS = Path(__file__).parents[2] / "docs"
LINES = {"data": 'data = "critical"  # why', "a b": '"a b" = "important"  # why'}
TIERS = {"data": "critical", "a b": "important"}


# -- a settings file that is there already ---------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# mine\n[backup]\ntrial_limit = '4GiB'  # much",
        "[volumes]  # what matters\nold = 'critical'\n\n[store]\npath = 'backups'\n",
        "[volumes]\r\ndata = 'disposable'\r\n",
        "[store]\npath = 'x'\n[volumes]\n",
        "\ufeff[volumes]\r\nold = 'critical'  # важно\r\n",
    ],
)
def test_what_stands_in_it_stays_and_only_what_is_missing_comes(text: str) -> None:
    after = propose.add_rows(text, "volumes", TIERS, LINES, "x.toml")
    before, found = (
        tomllib.loads(text.removeprefix("\ufeff")),
        tomllib.loads(after.removeprefix("\ufeff")),
    )
    assert found["volumes"] == {**TIERS, **before.get("volumes", {})}
    assert {k: v for k, v in found.items() if k != "volumes"} == {
        k: v for k, v in before.items() if k != "volumes"
    }
    kept = iter(after.splitlines())
    assert all(line in kept for line in text.splitlines()), "every line is there, in its order"
    assert propose.add_rows(after, "volumes", TIERS, LINES, "x.toml") == after


@pytest.mark.parametrize(
    "text",
    [
        "volumes = {old = 'critical'}\n",
        "volumes.old = 'critical'\n",
        '[store]\npath = """\n[volumes]\n"""\n',
    ],
)
def test_what_cannot_be_added_to_without_guessing_is_refused_with_the_lines(text: str) -> None:
    with pytest.raises(Refused) as refused:
        propose.add_rows(text, "volumes", TIERS, LINES, "x.toml")
    assert 'data = "critical"' in str(refused.value.next_step)


def test_a_file_that_does_not_read_is_78() -> None:
    with pytest.raises(ConfigError, match="nothing was written"):
        propose.add_rows("[volumes\n", "volumes", TIERS, LINES, "x.toml")


def test_the_guide_for_ci_shows_exactly_this_job() -> None:
    assert f"```yaml\n{propose.make_deploy_job(['db'])}```\n" in (DOCS / "ci.md").read_text("utf-8")


# -- a project -------------------------------------------------------------------------------------

SHOP = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: "${DB_PASSWORD}", POSTGRES_DB: shop}
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
    volumes: ["data:/var/lib/postgresql/data"]
  web: {image: "grafana/grafana:latest", command: [sleep, "100000"], volumes: ["metrics:/var/lib/grafana", "odd.thing:/thing"]}
volumes: {data: , metrics: , odd.thing: {name: "sc-${COMPOSE_PROJECT_NAME}-unknown"}}
"""


@pytest.fixture
def shop(compose_project: ProjectFactory) -> ComposeProject:
    project = compose_project(SHOP)
    (project.folder / ".env").write_text(
        f"DB_PASSWORD=first-one\nCOMPOSE_PROJECT_NAME={project.name}\n", "utf-8"
    )
    (project.folder / ".git").mkdir()
    return project


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.mark.thorough
@pytest.mark.engine
def test_every_change_is_shown_before_it_is_made_and_the_second_time_there_is_none(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    before = files(shop.folder)
    for words in ((), ("--dry-run",), ("--json",), ("--non-interactive",)):
        shown = safe_compose("setup", *words, cwd=shop.folder)
        assert shown.returncode == (77 if words in ((), ("--non-interactive",)) else 0), (
            shown.stderr
        )
        assert 'data = \\"critical\\"' in shown.stdout or 'data = "critical"' in shown.stdout
        assert files(shop.folder) == before
    done = safe_compose("setup", "--yes", cwd=shop.folder)
    assert done.returncode == 0, done.stderr
    written = files(shop.folder)
    assert set(written) - set(before) == {"safe-compose.toml", ".gitignore"}
    said = tomllib.loads(written["safe-compose.toml"].decode())
    assert said["volumes"] == {
        "data": "critical",
        "odd.thing": "critical",
    }, "metrics is looked into each time"
    assert written[".gitignore"] == b"/backups/\n"
    judged = json.loads(
        safe_compose("--explain", "--json", "compose", "down", "-v", cwd=shop.folder).stdout
    )
    assert judged["verdict"] == "pass", "nothing is made yet, and the file reads"
    (shop.folder / "safe-compose.toml").chmod(0o640)
    again = safe_compose("setup", "--yes", cwd=shop.folder)
    assert again.returncode == 0 and "nothing was written" in again.stderr
    assert files(shop.folder) == written
    (shop.folder / "safe-compose.toml").write_text("[volumes]\nmetrics = 'critical'  # ours\n")
    more: dict[str, Any] = json.loads(
        safe_compose("setup", "--yes", "--json", cwd=shop.folder).stdout
    )["setup"]
    assert more["done"] and [Path(f["path"]).name for f in more["files"]] == ["safe-compose.toml"]
    after = (shop.folder / "safe-compose.toml").read_text("utf-8")
    assert (
        "metrics = 'critical'  # ours\n" in after
        and tomllib.loads(after)["volumes"]["data"] == "critical"
    )
    assert (shop.folder / "safe-compose.toml").stat().st_mode & 0o777 == 0o640


IN_FOLDERS = """
services:
  db: {image: "postgres:15", volumes: ["./pg [1]:/var/lib/postgresql/data"]}
  web: {image: "busybox:latest", volumes: ["./up:/app/uploads", "./src:/src", "logs:/var/log/app"]}
volumes: {logs: }
"""


@pytest.mark.engine
def test_folders_with_data_are_written_down_and_kept_out_of_git(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(IN_FOLDERS)
    folder = project.folder
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / "pg [1]").mkdir()
    for name in ("up/photo.jpg", "src/main.py"):
        (folder / name).parent.mkdir()
        (folder / name).write_text("x")
    (folder / "safe-compose.toml").write_text("[folders]\n'./up' = 'important'  # ours\n")
    rows = json.loads(safe_compose("setup", "--json", cwd=folder).stdout)["setup"]["volumes"]
    assert [(r["key"], r["location"], r["tier"]) for r in rows if r["location"] == "folder"] == [
        ("./pg [1]", "folder", "critical"),
        ("./up", "folder", "important"),
    ]
    require_success(safe_compose("setup", "--yes", cwd=folder))
    after = (folder / "safe-compose.toml").read_text()
    assert "'./up' = 'important'  # ours\n" in after
    assert tomllib.loads(after)["folders"] == {"./pg [[]1]": "critical", "./up": "important"}
    assert (folder / ".gitignore").read_text() == "/backups/\n/pg \\[1]/\n/up/\n"
    written = files(folder)
    again = safe_compose("setup", "--yes", cwd=folder)
    assert again.returncode == 0 and "nothing was written" in again.stderr
    assert files(folder) == written
    (folder / "safe-compose.toml").unlink()
    require_success(safe_compose("setup", "--yes", cwd=folder))
    anew = tomllib.loads((folder / "safe-compose.toml").read_text())
    assert anew["folders"] == {"./pg [[]1]": "critical", "./up": "critical"}


@pytest.mark.thorough
@pytest.mark.engine
def test_one_yes_protects_a_project_and_backs_it_up(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    project = compose_project(FILES)
    project.up()
    written = project.folder / "safe-compose.toml"
    for words, code in ((("start",), 77), (("start", "--dry-run"), 0)):
        shown = safe_compose(*words, cwd=project.folder)
        assert shown.returncode == code, shown.stderr
        assert f"write {written}" in shown.stdout and not written.exists()
    assert "add --yes" in safe_compose("start", cwd=project.folder).stderr
    done = safe_compose("start", "--yes", cwd=project.folder)
    assert done.returncode == 0 and "safe-compose undo" in done.stderr, done.stderr
    assert tomllib.loads(written.read_text("utf-8"))["volumes"]["uploads"] == "critical"
    listed = json.loads(safe_compose("list", "--json", cwd=project.folder).stdout)["backups"]
    assert [b["project"] for b in listed if b["verified"]] == [project.name]
    nowhere = safe_compose("start", cwd=tmp_path)
    assert nowhere.returncode == 64 and "no compose project here" in nowhere.stderr


@pytest.mark.thorough
@pytest.mark.engine
def test_a_person_changes_a_tier_with_the_arrow_keys(shop: ComposeProject) -> None:
    person = Person("setup", cwd=shop.folder)
    person.sees("no, go on with these")
    person.types_bytes(b"\x1b[B\r")  # the first volume: data
    person.sees("data is")
    person.types_bytes(b"\x1b[B\r")  # critical -> important
    person.sees("no, go on with these")
    person.types_bytes(b"\r")
    person.sees('data = "important"')
    person.sees("[y/N]")
    person.types("y")
    assert person.leaves_with() == 0, person.last_words
    assert (
        tomllib.loads((shop.folder / "safe-compose.toml").read_text("utf-8"))["volumes"]["data"]
        == "important"
    )


@pytest.mark.thorough
@pytest.mark.engine
def test_the_deploy_job_follows_a_changed_password_and_deletes_nothing(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    done = safe_compose("setup", "--deploy", "--yes", cwd=shop.folder)
    assert done.returncode == 0, done.stderr
    job = YAML(typ="safe").load((shop.folder / ".github/workflows/deploy.yml").read_text("utf-8"))[
        "jobs"
    ]["deploy"]
    steps = {step["name"]: step["run"] for step in job["steps"] if "run" in step}
    path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"

    def deploy(dotenv: str) -> tuple[int, str]:
        """As a runner does it: one shell for each step, the first that fails ends it."""
        said = ""
        for name, script in steps.items():
            ran = subprocess.run(
                ["bash", "-e", "-c", script], cwd=shop.folder, env={**os.environ, "PATH": path,
                 "DOTENV": dotenv, "CI": "true"},
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
                start_new_session=True,
            )  # fmt: skip
            said += f"{name}\n{ran.stdout}{ran.stderr}"
            if ran.returncode:
                return ran.returncode, said
        return 0, said

    name = f"COMPOSE_PROJECT_NAME={shop.name}"
    code, said = deploy(f"DB_PASSWORD=first-one\n{name}")
    assert code == 0, said
    shop.psql(
        "CREATE TABLE t AS SELECT g FROM generate_series(1, 300) g", user="shop", database="shop"
    )
    code, said = deploy(f"DB_PASSWORD=second-one\n{name}")
    assert code == 0, said
    assert "second-one" not in said and "first-one" not in said
    assert shop.psql("SELECT count(*) FROM t", user="shop", database="shop") == "300"
    address = "host=db user=shop dbname=shop password=second-one"
    login = shop.docker(
        "compose",
        "run",
        "--rm",
        "--no-deps",
        "--pull",
        "never",
        "-T",
        "db",
        "psql",
        address,
        "-Atc",
        "SELECT 7",
    )
    assert login.stdout.strip().endswith("7")
    assert b"<testsuite" in (shop.folder / "receipt.xml").read_bytes()
    before, volumes = files(shop.folder), shop.volumes()
    code, said = deploy("")
    assert code == 1 and "the secret DOTENV is empty" in said
    assert files(shop.folder) == before and shop.volumes() == volumes
