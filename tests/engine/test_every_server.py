"""The same scenes with every version and brand of database server, on one project each.

Those of MySQL 9.7, MariaDB 11.8, Redis 8, Valkey 9.1 and PostgreSQL 18 have no next major version:
none that is newer can be had from Debian.
"""

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testing.database_servers import SERVERS, Server
from testing.faults import failing_syscalls
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import Completed, ComposeProject, require_success
from testing.runs import list_leftovers, start, steps
from testing.stacks import JOB

pytestmark = [pytest.mark.engine, pytest.mark.long, pytest.mark.servers]

SECRET, OTHER = "canary-41d0-first", "canary-41d0-other"


@dataclass
class Life:
    """A server's project with rows in it, and all that safe-compose said about it."""

    server: Server
    project: ComposeProject
    home: Path
    program: SafeCompose
    said: list[str] = field(default_factory=list)
    kept: str = ""
    """The id of a hot backup."""
    before: str = ""
    """What the rows look like."""

    def run(self, *argv: str, input: str | None = None) -> Completed:
        done = self.program(*argv, cwd=self.project.folder, input=input)
        self.said += [done.stdout, done.stderr]
        return done

    def good(self, *argv: str, input: str | None = None) -> Completed:
        return require_success(self.run(*argv, input=input))

    def ask(self, statements: str) -> str:
        return self.server.ask(self.project, statements)

    def log_in(self, password: str) -> str:
        return self.server.log_in(self.project, password)

    def delete(self) -> None:
        self.good(*JOB, "compose", "down", "-v")
        assert self.project.volumes() == []

    def require_rows(self) -> None:
        assert self.ask(self.server.look) == self.before
        assert self.log_in(SECRET) == self.server.who


def is_backed_up_hot_and_tried(life: Life) -> None:
    kept = json.loads(life.good("backup", "--json").stdout)["backup"]
    assert kept["verified"]["level"] == "L3"
    life.kept = kept["id"]
    life.good("verify", life.kept)
    assert '"L4"' in life.good("verify", "--trial", life.kept, "--json").stdout
    life.require_rows()


def gets_one_database_back(life: Life) -> None:
    life.ask(life.server.later)
    after = life.ask(life.server.look)
    assert after != life.before
    restore = ("restore", life.kept, "--database", "shop", "--confirm", "shop")
    if life.server.renames:
        life.good(*restore)
        life.require_rows()
    else:
        refused = life.run(*restore)
        assert refused.returncode in (64, 77) and "nothing was restored" in refused.stderr
        life.before = after
        life.require_rows()


def gets_another_password_and_follows_its_files(life: Life) -> None:
    dotenv = life.project.folder / ".env"
    if not life.server.rotates:
        refused = life.run("rotate-password", "db", "--stdin", "--yes", input=OTHER)
        assert refused.returncode and "is no PostgreSQL, MySQL or MariaDB server" in refused.stderr
        assert dotenv.read_text() == f"PASSWORD={SECRET}\n"
        return
    planned = life.good("rotate-password", "db", "--generate", "--dry-run")
    assert ".env: PASSWORD" in planned.stdout
    life.good("rotate-password", "db", "--stdin", "--yes", input=OTHER)
    assert dotenv.read_text() == f"PASSWORD={OTHER}\n"
    assert life.log_in(OTHER) == life.server.who != life.log_in(SECRET)
    dotenv.write_text(f"PASSWORD={SECRET}\n")
    life.good("rotate-password", "--sync", "db", "--yes")
    assert life.log_in(OTHER) != life.server.who
    life.require_rows()


def is_deleted_started_anew_and_brought_back(life: Life) -> None:
    life.delete()
    life.project.up()
    life.good("undo", "--confirm", life.project.name)
    life.require_rows()


def is_settled_by_recover_after_a_kill(life: Life) -> None:
    """With its data half put back; the run before went the same way."""
    before = steps(life.home).index("putting-back")
    life.delete()
    life.project.up()
    killing = failing_syscalls("fsync", ".jsonl", "KILL GROUP", skip=before)
    undo = start("undo", "--confirm", life.project.name, cwd=life.project.folder, env=killing)
    life.said += undo.communicate(timeout=300)
    assert undo.returncode == -signal.SIGKILL and steps(life.home)[-1] == "putting-back"
    life.good("recover")
    assert list_leftovers(life.home) == []
    life.good("undo", "--confirm", life.project.name)
    life.require_rows()


def comes_back_from_the_hot_backup_alone(life: Life) -> None:
    life.before = life.ask(life.server.look)
    kept = json.loads(life.good("backup", "--json").stdout)["backup"]["id"]
    life.project.docker("compose", "down")
    life.project.docker("volume", "rm", f"{life.project.name}_data")
    life.good("restore", kept)
    life.project.up()
    life.require_rows()


def goes_on_as_the_next_major_version(life: Life) -> None:
    if life.server.newer is None:
        return
    life.delete()
    life.server = SERVERS[life.server.newer]
    (life.project.folder / "compose.yaml").write_text(life.server.compose(), "utf-8")
    life.good("undo")
    life.require_rows()


SCENES: tuple[Callable[[Life], None], ...] = (
    is_backed_up_hot_and_tried,
    gets_one_database_back,
    gets_another_password_and_follows_its_files,
    is_deleted_started_anew_and_brought_back,
    is_settled_by_recover_after_a_kill,
    comes_back_from_the_hot_backup_alone,
    goes_on_as_the_next_major_version,
)


@pytest.mark.thorough
@pytest.mark.parametrize("name", SERVERS)
def test_a_server(
    server_image: Callable[[str], str],
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    sealed_environment: Path,
    name: str,
) -> None:
    server = SERVERS[name]
    server_image(server.image)
    if server.newer is not None:
        server_image(SERVERS[server.newer].image)
    project = compose_project(server.compose(), files={".env": f"PASSWORD={SECRET}\n"})
    project.up()
    life = Life(server, project, sealed_environment, safe_compose)
    life.ask(server.fill)
    life.before = life.ask(server.look)
    for scene in SCENES:
        scene(life)
    said = "".join(life.said)
    assert SECRET not in said and OTHER not in said
