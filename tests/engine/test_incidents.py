"""Twenty ways in which people have lost data with these commands, each with the way back, and where that is proved.

Number, what happened: the file and how the name of its test begins. Those without a file are below.

1. `down -v` against a restart loop: test_guard `test_a_person_types_the_name_and_undo_brings_rows`
2. an agent types `down -v`: test_guard `test_without_a_terminal_the_command_is_refused_at_once`
3. `system prune --volumes` on a host of many projects: test_destructive_commands `test_a_prune_takes_what_was_named_and_undo`
4. `volume rm` of several volumes: `test_incidents_4_and_14`
5. Podman in docker's place, "keep postgres" ignored: test_impostors `test_a_docker_that_answers_as_podman`,
   test_deletion_lock `test_every_prune_spares_what_is_locked`
6. the source deleted before the copy was read: test_faults `test_a_backup_that_rots_before_it_is_read_back`
7. to 9. another folder means the same project: `test_incidents_7_8_and_9`, test_faults `test_a_broken_file_and_another_folders`
10. the folder was renamed, "all data gone": `test_incident_10`
11. a changed password, "so delete the volume": test_password_rotation `test_the_incident_and_the_way_out_of_it`,
    test_guard `test_a_deploy_job_gets_a_backup_and_undo_works`
12. a newer major version of PostgreSQL: test_restore_elsewhere `test_a_database_is_looked_at_and_goes_into_a_server`,
    test_postgres_kinds `test_a_dump_follows_its_service_to_newer_servers`
13. the database lay in an anonymous volume: test_destructive_commands `test_a_database_in_an_anonymous_volume_is_recognised`,
    test_destructive_commands `test_compose_rm_takes_anonymous_volumes_and_undo`
14. `| xargs docker volume rm` from a README: `test_incidents_4_and_14`
15. and 16. a clean-up script, a make target: `test_incidents_15_and_16`
17. a prune by cron: test_destructive_commands `test_a_prune_takes_what_was_named_and_undo`,
    test_install `test_a_guarded_command_wakes_the_whole`
18. `external: true` was not honoured: test_faults `test_an_external_volume_stays`
19. the backup was empty, cut, or went over data: test_restore_database `test_what_cannot_be_restored_is_refused`,
    test_restore `test_a_damaged_backup_is_65`
20. the backups lay with the data: `test_incident_20`
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testing import stacks
from testing.fixtures import ProjectFactory
from testing.projects import Completed, ComposeProject, docker, remove_project, unique
from testing.terminal import PROGRAM

pytestmark = [pytest.mark.engine, pytest.mark.long]

JOB = {"SAFE_COMPOSE_NON_INTERACTIVE": "1", "SAFE_COMPOSE_BACKUP_FIRST": "1"}
ROWS = (
    "CREATE TABLE orders (id int PRIMARY KEY, what text); INSERT INTO orders SELECT g, 'o' || g"
    " FROM generate_series(1, 2000) g"
)
SUM = "SELECT count(*), md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o"


def compose_file(name: str) -> str:
    """The shop's, with its project's name in it: so that it does not depend on the folder."""
    return f"name: {name}\n{stacks.shop('canary-13c8-password')}"


def test_every_test_that_is_named_above_exists() -> None:
    here = Path(__file__)
    for file, name in re.findall(r"(?:\b(test_\w+) )?`(test_\w+)`", str(__doc__)):
        [path] = here.parents[1].rglob(f"{file}.py") if file else [here]
        source = path.read_text()
        assert f"\ndef {name}" in source, f"{file or here.stem}: {name}"


@dataclass(frozen=True)
class ShopWithShims:
    """One living shop for all incidents: each ends with the same rows and files that it began with."""

    project: ComposeProject
    store: Path
    shims: Path

    def run(
        self, *argv: str, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> Completed:
        """Run a program as a script would: the shims first on PATH, no terminal."""
        environment = {
            **os.environ,
            "SAFE_COMPOSE_HOME": str(self.store),
            "PATH": f"{self.shims}:{os.environ['PATH']}",
        }
        return subprocess.run(
            argv, cwd=cwd or self.project.folder, env={**environment, **(env or {})},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True,
            timeout=300,
        )  # fmt: skip

    def good(
        self, *argv: str, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> Completed:
        done = self.run(*argv, env=env, cwd=cwd)
        assert done.returncode == 0, done.stderr
        return done

    def content(self, project: ComposeProject | None = None) -> tuple[str, str]:
        project = project or self.project
        rows = project.psql(SUM, user="shop", database="shop")
        find = ("find", "/app/uploads", "-type", "f", "-exec", "sha256sum", "{}", "+")
        files = project.exec("app", *find)
        return rows, "".join(sorted(files.splitlines(keepends=True)))


@pytest.fixture(scope="module")
def shop(
    module_compose_project: ProjectFactory, tmp_path_factory: pytest.TempPathFactory
) -> ShopWithShims:
    name, folder = unique("incident"), tmp_path_factory.mktemp("shop")
    project = module_compose_project(compose_file(name), name, stacks.NO_TRIALS)
    project.up()
    project.psql(ROWS, user="shop", database="shop")
    project.exec("app", "sh", "-c", "cd /app/uploads && mkdir a && echo one > a/1 && echo two > 2")
    subprocess.run(
        [PROGRAM, "shell", "--install", "shims", "--dir", folder / "bin", "--yes"],
        check=True,
        capture_output=True,
    )
    return ShopWithShims(project, folder / "store", folder / "bin")


@pytest.mark.thorough
def test_incidents_4_and_14_several_volumes_by_xargs_from_a_readme(shop: ShopWithShims) -> None:
    before = shop.content()
    shop.project.docker("compose", "down")
    line = f"docker volume ls -q --filter name={shop.project.name}_ | xargs docker volume rm"
    refused = shop.run("sh", "-c", line)
    assert refused.returncode == 123 and "docker was not run (77)" in refused.stderr, refused.stderr
    assert shop.project.volumes() == [f"{shop.project.name}_{name}" for name in ("data", "uploads")]
    shop.good("sh", "-c", line, env={**JOB, "SAFE_COMPOSE_CONFIRM": "delete 2 volumes"})
    assert shop.project.volumes() == []
    shop.good(str(PROGRAM), "undo")
    shop.project.up()
    assert shop.content() == before


def test_incidents_7_8_and_9_another_checkout_means_the_living_project(
    shop: ShopWithShims, tmp_path: Path
) -> None:
    before = shop.content()
    (tmp_path / "compose.yaml").write_text(compose_file(shop.project.name))
    running = shop.project.running()
    refused = shop.run(
        "docker", "compose", "down", "--remove-orphans", "--volumes", env=JOB, cwd=tmp_path
    )
    assert refused.returncode == 77 and str(shop.project.folder) in refused.stderr, refused.stderr
    assert shop.project.running() == running and shop.content() == before


@pytest.mark.thorough
def test_incidents_15_and_16_a_make_target_hides_it_and_a_fresh_database_is_there_already(
    shop: ShopWithShims,
) -> None:
    before = shop.content()
    (shop.project.folder / "Makefile").write_text("docker-clean:\n\tsh clean.sh\n")
    (shop.project.folder / "clean.sh").write_text(
        "set -e\ndocker compose down -v\ndocker compose up -d --wait --pull never\n"
    )
    refused = shop.run("make", "docker-clean")
    assert refused.returncode == 2 and "docker was not run (77)" in refused.stderr, refused.stderr
    assert shop.content() == before
    shop.good("make", "docker-clean", env=JOB)
    assert (
        shop.project.psql("SELECT to_regclass('orders') IS NULL", user="shop", database="shop")
        == "t"
    )
    asked = shop.run(str(PROGRAM), "undo")
    assert asked.returncode == 77 and f"--confirm '{shop.project.name}'" in asked.stderr
    shop.good(str(PROGRAM), "undo", "--confirm", shop.project.name)
    assert shop.content() == before
    assert shop.project.running() == [
        f"{shop.project.name}-{service}-1" for service in ("app", "db")
    ]


@pytest.fixture
def renamed(shop: ShopWithShims, tmp_path: Path) -> Iterator[ComposeProject]:
    """The same compose file under another project's name."""
    name = unique("renamed")
    folder = tmp_path / name
    folder.mkdir()
    (folder / "compose.yaml").write_text(compose_file(name))
    yield ComposeProject(folder)
    remove_project(name)


@pytest.mark.thorough
def test_incident_10_a_renamed_folder_starts_empty_and_gets_its_data_back(
    shop: ShopWithShims, renamed: ComposeProject
) -> None:
    before, old = shop.content(), shop.project.name
    kept = json.loads(shop.good(str(PROGRAM), "backup", "--json").stdout)["backup"]["id"]
    renamed.up()
    assert renamed.psql("SELECT to_regclass('orders') IS NULL", user="shop", database="shop") == "t"
    words = (str(PROGRAM), "restore", kept, "--into", renamed.name)
    asked = shop.run(*words, cwd=renamed.folder)
    assert asked.returncode == 77 and f"--confirm '{renamed.name}'" in asked.stderr, asked.stderr
    shop.good(*words, "--confirm", renamed.name, cwd=renamed.folder)
    assert shop.content(renamed) == before == shop.content()
    assert shop.project.running() == [f"{old}-{service}-1" for service in ("app", "db")]


@pytest.mark.thorough
def test_incident_20_a_store_that_would_die_with_the_data_is_refused(shop: ShopWithShims) -> None:
    volume = f"{shop.project.name}_uploads"
    inside = (
        Path(docker("volume", "inspect", volume, "--format", "{{.Mountpoint}}").stdout.strip())
        / "store"
    )
    refused = shop.run(
        "docker", "compose", "down", "-v", env={**JOB, "SAFE_COMPOSE_HOME": str(inside)}
    )
    assert refused.returncode == 73 and f"in volume {volume}" in refused.stderr, refused.stderr
    assert len(shop.project.running()) == 2
    docker("run", "--rm", "-v", f"{volume}:/v", "busybox:latest", "rm", "-rf", "/v/store")
