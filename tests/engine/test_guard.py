"""A guarded command on a real engine: what a person, a deploy job and a script see and keep."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_compose.fastpath import launch
from testing import stacks
from testing.disks import small_disk
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, unique, volume_exists
from testing.runs import helpers, list_leftovers
from testing.stacks import FILES, JOB, read_file, write_file
from testing.terminal import PROGRAM, Person

pytestmark = [pytest.mark.engine, pytest.mark.long]

CANARY = "canary-7f3b-password"


@pytest.fixture
def shop(compose_project: ProjectFactory) -> ComposeProject:
    """A database with rows and an app with a file, running."""
    project = compose_project(stacks.shop(CANARY), files=stacks.NO_TRIALS)
    project.up()
    project.psql(
        "CREATE TABLE orders (id serial PRIMARY KEY, what text); INSERT INTO orders (what) SELECT"
        " 'order ' || g FROM generate_series(1, 5000) g; CREATE ROLE clerk LOGIN PASSWORD 'x';"
        " ALTER TABLE orders OWNER TO clerk;",
        user="shop",
        database="shop",
    )
    write_file(project)
    return project


@pytest.fixture
def files(compose_project: ProjectFactory) -> ComposeProject:
    """An app with one critical file volume, running: the quickest project that is guarded."""
    project = compose_project(FILES)
    project.up()
    write_file(project)
    return project


def orders(project: ComposeProject) -> str:
    query = "SELECT count(*), md5(string_agg(id || what, ',' ORDER BY id)) FROM orders"
    return project.psql(query, user="shop", database="shop")


def backups(safe_compose: SafeCompose, project: ComposeProject) -> list[dict[str, object]]:
    answer = safe_compose("list", "--json")
    assert answer.returncode == 0, answer.stderr
    return [b for b in json.loads(answer.stdout)["backups"] if b["project"] == project.name]


# -- the story -------------------------------------------------------------------------------------


def test_without_a_terminal_the_command_is_refused_at_once_and_nothing_changes(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    before = files.running(), files.volumes(), read_file(files)
    answer = safe_compose("compose", "down", "-v", cwd=files.folder)
    assert answer.returncode == 77
    assert "--non-interactive --backup-first" in answer.stderr
    assert answer.stderr.rstrip().endswith("safe-compose: docker was not run (77)")
    assert answer.stdout == ""
    assert (files.running(), files.volumes(), read_file(files)) == before


def test_a_program_reads_what_was_deleted_and_where_the_copy_is(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    refused = safe_compose("--json", "compose", "down", "-v", cwd=files.folder)
    line = json.loads(refused.stderr.splitlines()[-2])
    assert line["docker_was_run"] is False and line["exit_code"] == refused.returncode == 77

    docker_alone = safe_compose("compose", "down", "--dry-run", cwd=files.folder).stdout
    done = safe_compose(*JOB, "--json", "compose", "down", "-v", cwd=files.folder)
    assert done.returncode == 0 and done.stdout == docker_alone == "", "stdout is docker's"
    told = json.loads(done.stderr.splitlines()[-1])
    [kept] = backups(safe_compose, files)
    [volume] = told["volumes"]
    assert (told["docker_was_run"], told["exit_code"], told["undo"].split()[-1]) == (
        True,
        0,
        "undo",
    )
    assert told["backup"] == {"id": kept["id"], "path": kept["path"], "level": "L2"}
    assert volume["name"] == f"{files.name}_uploads" and volume["outcome"] == "deleted"
    assert volume["backup"] == kept["id"] and volume["trash"] is False

    passed = safe_compose("--json", "compose", "down", "-v", cwd=files.folder)
    assert json.loads(passed.stderr.splitlines()[-1])["volumes"] == []
    harmless = safe_compose("--json", "compose", "down", cwd=files.folder)
    assert harmless.returncode == 64 and "--json would do nothing" in harmless.stderr


def test_a_refusal_names_what_keeps_from_asking(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    other = unique("other")
    docker("volume", "create", "--label", f"com.docker.compose.project={other}", other)
    project = compose_project(f"{FILES}    name: {other}\n")
    try:
        for words, env, why in (
            (("--backup-first",), {}, "there is no terminal to ask on"),
            (("--non-interactive",), {}, "(--non-interactive)"),
            ((), {"SAFE_COMPOSE_NON_INTERACTIVE": "1"}, "(SAFE_COMPOSE_NON_INTERACTIVE)"),
        ):
            done = safe_compose(*words, "compose", "down", "-v", cwd=project.folder, env=env)
            assert done.returncode == 77, done.stderr
            assert why in done.stderr, done.stderr
            assert ("(--non-interactive)" in done.stderr) == ("--non-interactive" in words)
    finally:
        docker("volume", "rm", other)


@pytest.mark.matrix
def test_a_person_types_the_name_and_undo_brings_rows_files_and_services_back(
    shop: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    before, labels = (
        orders(shop),
        shop.docker("volume", "inspect", *shop.volumes(), "--format", "{{json .Labels}}").stdout,
    )
    (shop.folder / "safe-compose.toml").unlink()  # with a trial, as where nobody says otherwise
    person = Person("compose", "down", "-v", cwd=shop.folder)
    screen = person.sees(f"type '{shop.name}'")
    assert f"{shop.name}_data" in screen and "critical" in screen
    person.types(shop.name)
    assert person.leaves_with() == 0, person.last_words
    assert "is verified (L4)" in person.last_words
    assert shop.volumes() == [] and shop.containers() == []
    [kept] = backups(safe_compose, shop)
    assert kept["reason"] == "pre-delete" and kept["pinned_until"]

    undone = safe_compose("undo", cwd=shop.folder)
    assert undone.returncode == 0, undone.stderr
    assert orders(shop) == before
    last = undone.stderr.rstrip().splitlines()[-1]
    assert re.fullmatch(
        r"safe-compose: all 2 volumes are back: [\d,]+ rows as before, 1 file", last
    )
    assert read_file(shop) == "a photo"
    assert (
        shop.docker("volume", "inspect", *shop.volumes(), "--format", "{{json .Labels}}").stdout
        == labels
    )
    owner = shop.psql(
        "SELECT tableowner FROM pg_tables WHERE tablename = 'orders'", user="shop", database="shop"
    )
    assert owner == "clerk"
    ids = shop.docker("compose", "ps", "-q").stdout
    shop.docker("compose", "up", "-d")
    assert shop.docker("compose", "ps", "-q").stdout == ids, "up recreated something after the undo"
    assert helpers(sealed_environment) == []


@pytest.mark.thorough
@pytest.mark.matrix
def test_a_deploy_job_gets_a_backup_and_undo_works_after_up_made_a_fresh_database(
    shop: ComposeProject, safe_compose: SafeCompose
) -> None:
    before = orders(shop)
    gone = safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder)
    assert gone.returncode == 0, gone.stderr
    assert shop.volumes() == []
    shop.up()
    shop.psql(
        "CREATE TABLE fresh (n int); INSERT INTO fresh VALUES (1)", user="shop", database="shop"
    )

    asked = safe_compose("undo", cwd=shop.folder)
    assert asked.returncode == 77, "the fresh content must not be overwritten without the phrase"
    assert shop.psql("SELECT n FROM fresh", user="shop", database="shop") == "1"

    undone = safe_compose("undo", "--confirm", shop.name, cwd=shop.folder)
    assert undone.returncode == 0, undone.stderr
    assert orders(shop) == before
    reasons = [b["reason"] for b in backups(safe_compose, shop)]
    assert reasons == ["pre-restore", "pre-delete"]
    ids = shop.docker("compose", "ps", "-q").stdout
    shop.docker("compose", "up", "-d")
    assert shop.docker("compose", "ps", "-q").stdout == ids


@pytest.mark.matrix
def test_the_reference_project_backs_up_what_matters_and_lets_the_rest_go(
    dating: ComposeProject, safe_compose: SafeCompose
) -> None:
    rows = dating.count_rows()
    plan = json.loads(
        safe_compose("--explain", "--json", "compose", "down", "-v", cwd=dating.folder).stdout
    )
    tiers = {v["name"].removeprefix(f"{dating.name}_"): v["tier"] for v in plan["volumes"]}
    assert tiers == {
        "postgres_data": "critical",
        "photo_storage": "critical",
        "traefik_certs": "important",
        "prometheus_data": "disposable",
        "grafana_data": "disposable",
        "loki_data": "disposable",
    }
    answer = safe_compose(*JOB, "down", "-v", cwd=dating.folder)
    assert answer.returncode == 0, answer.stderr
    [kept] = backups(safe_compose, dating)
    assert sorted(str(v).removeprefix(f"{dating.name}_") for v in kept["volumes"]) == [  # type: ignore[attr-defined]
        "photo_storage", "postgres_data", "traefik_certs",
    ]  # fmt: skip
    assert safe_compose("undo", cwd=dating.folder).returncode == 0
    assert dating.count_rows() == rows


def test_no_secret_stands_in_the_store_or_in_what_is_said(
    shop: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    answer = safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder)
    assert answer.returncode == 0, answer.stderr
    assert CANARY not in answer.stdout + answer.stderr
    texts = [
        p
        for p in (sealed_environment / "safe-compose").rglob("*")
        if p.is_file() and p.suffix != ".gz"
    ]
    assert any(p.name == "manifest.json" for p in texts)
    assert [p for p in texts if CANARY.encode() in p.read_bytes()] == []


@pytest.mark.thorough
def test_volume_rm_asks_for_the_volumes_own_name_and_undo_needs_no_compose(
    safe_compose: SafeCompose, tmp_path: Path
) -> None:
    name = unique("loose")
    docker("volume", "create", "--label", "purpose=odd, value", name)
    helper = ("run", "--rm", "-i", "-v", f"{name}:/v", "--network", "none", "busybox:latest")
    docker(*helper, "dd", "of=/v/f", "status=none", input="kept")
    try:
        person = Person("volume", "rm", name, cwd=tmp_path)
        person.sees(f"type '{name}'")
        person.types(name)
        assert person.leaves_with() == 0, person.last_words
        assert docker("volume", "inspect", name, check=False).returncode != 0
        undone = safe_compose("undo")
        assert undone.returncode == 0, undone.stderr
        assert docker(*helper, "cat", "/v/f").stdout == "kept"
        labels = json.loads(
            docker("volume", "inspect", name, "--format", "{{json .Labels}}").stdout
        )
        assert labels == {"purpose": "odd, value"}
    finally:
        docker("volume", "rm", "-f", name, check=False)


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_second_wrong_phrase_is_refused(files: ComposeProject) -> None:
    person = Person("compose", "down", "-v", cwd=files.folder)
    person.sees("type '")
    person.types(files.name.upper())
    person.sees("Once more, type '")
    person.types(files.name.upper())
    assert person.leaves_with() == 77
    assert "docker was not run (77)" in person.last_words
    assert read_file(files) == "a photo"


@pytest.mark.thorough
@pytest.mark.parametrize(("key", "code"), [("c", 130), ("d", 77)])
def test_ctrl_c_and_end_of_input_at_the_prompt_delete_nothing(
    files: ComposeProject, key: str, code: int
) -> None:
    person = Person("compose", "down", "-v", cwd=files.folder)
    person.sees("type '")
    person.presses(key)
    assert person.leaves_with() == code
    assert f"docker was not run ({code})" in person.last_words
    assert read_file(files) == "a photo"


def test_a_pipe_full_of_yes_answers_nothing(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    answer = safe_compose(
        "compose", "down", "-v", cwd=files.folder, input=f"y\nyes\n{files.name}\n" * 100
    )
    assert answer.returncode == 77
    assert read_file(files) == "a photo"


@pytest.mark.thorough
def test_what_was_typed_ahead_answers_nothing(files: ComposeProject) -> None:
    person = Person("compose", "down", "-v", cwd=files.folder)
    person.types(files.name)
    person.sees("type '")
    person.presses("d")
    assert person.leaves_with() == 77
    assert read_file(files) == "a photo"


@pytest.mark.thorough
@pytest.mark.parametrize("words", ["", "yes"])
def test_an_end_of_input_that_was_sent_ahead_ends_it(files: ComposeProject, words: str) -> None:
    """By `script -c ... </dev/null` and its like: a terminal on which nobody will ever type."""
    person = Person("compose", "down", "-v", cwd=files.folder)
    if words:
        person.types(words)
    person.presses("d")
    assert person.leaves_with() == 77
    assert read_file(files) == "a photo"


@pytest.mark.thorough
def test_confirm_replaces_typing_and_a_wrong_one_never_prompts(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    wrong = safe_compose("--confirm", "nonsense", "compose", "down", "-v", cwd=files.folder)
    assert wrong.returncode == 77 and files.name in wrong.stderr
    assert read_file(files) == "a photo"
    right = safe_compose("compose", "down", "-v", "--confirm", files.name, cwd=files.folder)
    assert right.returncode == 0, right.stderr
    assert files.volumes() == [] and len(backups(safe_compose, files)) == 1


@pytest.mark.thorough
def test_important_volumes_alone_ask_y_or_n(compose_project: ProjectFactory) -> None:
    project = compose_project(
        FILES, files={"safe-compose.toml": '[volumes]\nuploads = "important"\n'}
    )
    project.up()
    write_file(project)
    person = Person("compose", "down", "-v", cwd=project.folder)
    person.sees("[y/N]")
    person.types("")
    assert person.leaves_with() == 77
    person = Person("compose", "down", "-v", cwd=project.folder)
    person.sees("[y/N]")
    person.types("y")
    assert person.leaves_with() == 0, person.last_words
    assert project.volumes() == []


@pytest.mark.thorough
def test_a_disposable_volume_passes_with_one_line_that_says_why(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(
        FILES, files={"safe-compose.toml": '[volumes]\nuploads = "disposable"\n'}
    )
    project.up()
    write_file(project)
    answer = safe_compose("compose", "down", "-v", cwd=project.folder)
    assert answer.returncode == 0, answer.stderr
    assert "safe-compose.toml" in answer.stderr and "disposable" in answer.stderr
    assert project.volumes() == [] and backups(safe_compose, project) == []


@pytest.mark.thorough
def test_skip_backup_needs_its_own_phrase(files: ComposeProject, safe_compose: SafeCompose) -> None:
    both = safe_compose(
        "--skip-backup", "--backup-first", "compose", "down", "-v", cwd=files.folder
    )
    assert both.returncode == 64
    usual = safe_compose(
        "--skip-backup", "--confirm", files.name, "compose", "down", "-v", cwd=files.folder
    )
    assert usual.returncode == 77
    assert read_file(files) == "a photo"
    phrase = f"delete {files.name} without backup"
    right = safe_compose(
        "--skip-backup", "--confirm", phrase, "compose", "down", "-v", cwd=files.folder
    )
    assert right.returncode == 0, right.stderr
    assert files.volumes() == [] and backups(safe_compose, files) == []


def test_non_interactive_alone_is_refused_and_says_what_to_add(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    answer = safe_compose("compose", "down", "-v", "--non-interactive", cwd=files.folder)
    assert answer.returncode == 77 and "--backup-first" in answer.stderr
    assert read_file(files) == "a photo"


@pytest.mark.thorough
def test_backup_first_alone_is_enough_without_a_terminal(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    answer = safe_compose("compose", "down", "-v", "--backup-first", cwd=files.folder)
    assert answer.returncode == 0, answer.stderr
    assert files.volumes() == [] and len(backups(safe_compose, files)) == 1


def test_in_ci_a_store_in_the_runners_home_is_refused(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    answer = safe_compose(
        *JOB, "compose", "down", "-v", cwd=files.folder, env={"CI": "true", "SAFE_COMPOSE_HOME": ""}
    )
    assert answer.returncode == 73
    assert "SAFE_COMPOSE_HOME" in answer.stderr and "safe-compose.toml" in answer.stderr
    assert read_file(files) == "a photo"


def test_a_volume_of_another_project_needs_the_phrase_also_without_a_terminal(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    owner = compose_project(FILES)
    owner.up()
    write_file(owner)
    owner.docker("compose", "down")
    thief = compose_project(
        FILES.replace("  uploads:\n", f"  uploads: {{name: {owner.name}_uploads}}\n")
    )
    first = safe_compose(*JOB, "compose", "down", "-v", cwd=thief.folder)
    assert first.returncode == 77
    assert "--confirm 'delete 1 volume'" in first.stderr
    assert owner.volumes() == [f"{owner.name}_uploads"]


# -- explain ---------------------------------------------------------------------------------------


def test_explain_prints_the_documented_shape_and_runs_nothing(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    answer = safe_compose("compose", "down", "-v", "--explain", "--json", cwd=files.folder)
    assert answer.returncode == 0, answer.stderr
    plan = json.loads(answer.stdout)
    assert plan["version"] == 1
    assert plan["argv"] == ["compose", "down", "-v"]
    assert (plan["verdict"], plan["kind"]) == ("guard", "compose_down_volumes")
    assert (plan["project"], plan["inferred_from"], plan["mode"]) == (
        files.name,
        "folder",
        "config",
    )
    assert plan["endpoint"] == "unix:///var/run/docker.sock"
    [volume] = plan["volumes"]
    assert volume["name"] == f"{files.name}_uploads"
    assert volume["in_use_by"] == [f"{files.name}-app-1"]
    assert (volume["tier"], volume["anonymous"], volume["other_project"]) == (
        "critical",
        False,
        None,
    )
    assert (plan["phrase"], plan["backup"]) == (files.name, True)
    assert read_file(files) == "a photo"


def test_explain_offline_asks_no_daemon(safe_compose: SafeCompose) -> None:
    nowhere = {"DOCKER_HOST": "unix:///nonexistent.sock"}
    answer = safe_compose("--explain", "--json", "--offline", "volume", "rm", "x", env=nowhere)
    assert answer.returncode == 0
    plan = json.loads(answer.stdout)
    assert (plan["verdict"], plan["kind"]) == ("guard", "volume_rm")
    assert "volumes" not in plan


def test_explain_of_a_harmless_command_says_pass(safe_compose: SafeCompose) -> None:
    plan = json.loads(safe_compose("--explain", "--json", "ps").stdout)
    assert (plan["verdict"], plan["kind"]) == ("pass", "none")


# -- bad input and faults --------------------------------------------------------------------------


def test_an_unknown_context_is_69(files: ComposeProject, safe_compose: SafeCompose) -> None:
    answer = safe_compose(*JOB, "--context", "nope", "compose", "down", "-v", cwd=files.folder)
    assert answer.returncode == 69
    assert "docker was not run (69)" in answer.stderr
    assert read_file(files) == "a photo"


@pytest.mark.matrix
def test_a_dead_engine_is_69(files: ComposeProject, safe_compose: SafeCompose) -> None:
    answer = safe_compose(
        *JOB,
        "compose",
        "down",
        "-v",
        cwd=files.folder,
        env={"DOCKER_HOST": "unix:///nonexistent.sock"},
    )
    assert answer.returncode == 69
    assert read_file(files) == "a photo"


@pytest.mark.matrix
def test_a_compose_file_that_does_not_parse_gets_dockers_own_words_and_deletes_nothing(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    whole = (files.folder / "compose.yaml").read_text()
    (files.folder / "compose.yaml").write_text("services: [\n")
    answer = safe_compose(*JOB, "compose", "down", "-v", cwd=files.folder)
    assert answer.returncode != 0
    (files.folder / "compose.yaml").write_text(whole)
    assert read_file(files) == "a photo"


def test_a_configuration_that_does_not_read_is_78_with_all_its_faults(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    (files.folder / "safe-compose.toml").write_text(
        '[volumes]\nuploads = "precious"\n[backup]\ntrial_limit = "much"\n'
    )
    answer = safe_compose(*JOB, "compose", "down", "-v", cwd=files.folder)
    assert answer.returncode == 78
    assert "uploads" in answer.stderr and "trial_limit" in answer.stderr
    assert read_file(files) == "a photo"


def test_a_volume_that_runs_elsewhere_is_75_and_that_container_is_not_stopped(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    stranger = unique("stranger")
    docker(
        "run",
        "-d",
        "--init",
        "--name",
        stranger,
        "-v",
        f"{files.name}_uploads:/x",
        "busybox:latest",
        "sleep",
        "100000",
    )
    try:
        answer = safe_compose(*JOB, "compose", "down", "-v", cwd=files.folder)
        assert answer.returncode == 75, answer.stderr
        assert stranger in answer.stderr
        assert (
            docker("inspect", stranger, "--format", "{{.State.Running}}").stdout.strip() == "true"
        )
        assert read_file(files) == "a photo"
    finally:
        docker("rm", "-f", stranger)


@pytest.fixture
def small_store(tmp_path: Path) -> Iterator[Path]:
    """A store on a file system of 3 MB: larger than nothing, smaller than a backup."""
    with small_disk(tmp_path / "small", "size=3m") as store:
        yield store


@pytest.mark.thorough
def test_no_room_is_73_and_the_services_run_as_before(
    shop: ComposeProject, safe_compose: SafeCompose, small_store: Path
) -> None:
    before = shop.running(), orders(shop)
    answer = safe_compose(
        *JOB, "compose", "down", "-v", cwd=shop.folder, env={"SAFE_COMPOSE_HOME": str(small_store)}
    )
    assert answer.returncode == 73, answer.stderr
    assert "docker was not run (73)" in answer.stderr
    assert (shop.running(), orders(shop)) == before
    assert list(small_store.rglob(".partial-*")) == []


def _start(*argv: str, project: ComposeProject) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [PROGRAM, *argv],
        cwd=project.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _fill(project: ComposeProject, megabytes: int = 150) -> None:
    """Enough that a dump takes a moment."""
    project.psql(
        "CREATE TABLE big AS SELECT g, md5(g::text) || repeat('x', 900) AS filling FROM"
        f" generate_series(1, {megabytes * 1000}) g",
        user="shop",
        database="shop",
    )


@pytest.mark.thorough
def test_a_database_that_dies_in_mid_dump_is_73_and_everything_runs_again(
    shop: ComposeProject, sealed_environment: Path
) -> None:
    _fill(shop)
    before = shop.running()
    guarded = _start(*JOB, "compose", "down", "-v", project=shop)
    shop.wait_for_dump(user="shop", database="shop")
    docker("kill", f"{shop.name}-db-1")
    _, said = guarded.communicate(timeout=120)
    assert guarded.returncode == 73, said
    assert "docker was not run (73)" in said
    assert [name for name in before if "app" in name] == [
        name for name in shop.running() if "app" in name
    ]
    assert shop.volumes() != [] and helpers(sealed_environment) == []


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_a_signal_in_mid_backup_starts_everything_again_and_keeps_no_half_backup(
    shop: ComposeProject, sealed_environment: Path, number: signal.Signals, code: int
) -> None:
    _fill(shop)
    before = shop.running(), orders(shop)
    guarded = _start(*JOB, "compose", "down", "-v", project=shop)
    shop.wait_for_dump(user="shop", database="shop")
    os.killpg(guarded.pid, number)
    _, said = guarded.communicate(timeout=120)
    assert guarded.returncode == code, said
    assert "docker was not run" in said
    assert (shop.running(), orders(shop)) == before
    assert list_leftovers(sealed_environment) == []


@pytest.mark.thorough
def test_after_a_kill_recover_starts_again_what_was_stopped(
    shop: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    _fill(shop)
    before = shop.running(), orders(shop)
    guarded = _start(*JOB, "compose", "down", "-v", project=shop)
    shop.wait_for_dump(user="shop", database="shop")
    os.killpg(guarded.pid, signal.SIGKILL)
    guarded.communicate(timeout=60)
    assert shop.running() != before[0], "nothing was stopped, so this proves nothing"
    answer = safe_compose("recover")
    assert answer.returncode == 0, answer.stderr
    assert f"{shop.name}-app-1" in answer.stdout
    assert (shop.running(), orders(shop)) == before
    assert list_leftovers(sealed_environment) == []
    assert "nothing to recover" in safe_compose("recover").stdout


@pytest.mark.thorough
def test_two_at_once_one_of_them_is_75(shop: ComposeProject, safe_compose: SafeCompose) -> None:
    _fill(shop)
    first = _start(*JOB, "compose", "down", "-v", project=shop)
    shop.wait_for_dump(user="shop", database="shop")
    second = safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder)
    _, said = first.communicate(timeout=180)
    assert first.returncode == 0, said
    assert second.returncode == 75, second.stderr
    assert str(first.pid) in second.stderr
    assert shop.volumes() == []


# -- passing on ------------------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.thorough
def test_a_compose_file_on_stdin_reaches_the_probe_and_docker(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    text = (files.folder / "compose.yaml").read_text()
    answer = safe_compose(*JOB, "compose", "-f", "-", "down", "-v", cwd=files.folder, input=text)
    assert answer.returncode == 0, answer.stderr
    assert files.volumes() == [] and len(backups(safe_compose, files)) == 1


@pytest.mark.matrix
@pytest.mark.thorough
def test_exit_code_and_stdout_are_dockers(files: ComposeProject, safe_compose: SafeCompose) -> None:
    missing = unique("missing")
    name = unique("there")
    docker("volume", "create", name)
    docker(
        "run", "--rm", "-v", f"{name}:/v", "--network", "none", "busybox:latest", "touch", "/v/f"
    )
    answer = safe_compose(*JOB, "volume", "rm", missing, name)
    assert answer.returncode == 1, "docker's own code for the missing one"
    assert answer.stdout == f"{name}\n"
    assert docker("volume", "inspect", name, check=False).returncode != 0


def test_the_memory_and_imports_of_a_harmless_command_stay_small(safe_compose: SafeCompose) -> None:
    script = Path(PROGRAM).with_name(launch.ENTRY)
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", script, "compose", "version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not re.search(r"\b(docker|typer|rich|pydantic|psycopg|questionary)\b", answer.stderr)
    assert "Docker Compose version" in answer.stdout


@pytest.mark.thorough
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="needs root, to see an engine's folder and to mount",
)
@pytest.mark.parametrize("seen", ["on the engine's disk", "as a container sees it"])
def test_a_store_in_a_volume_that_dies_is_refused_be_it_disposable(
    seen: str, compose_project: ProjectFactory, tmp_path: Path
) -> None:
    text = (
        FILES.replace('["uploads:/app/uploads"]', '["uploads:/app/uploads", "kept:/root/.cache"]')
        + "  kept:\n"
    )
    project = compose_project(text, files={"safe-compose.toml": '[volumes]\nkept = "disposable"\n'})
    project.up()
    write_file(project)
    place = docker(
        "volume", "inspect", "--format", "{{.Mountpoint}}", f"{project.name}_kept"
    ).stdout.strip()
    if seen == "on the engine's disk":
        home, argv = f"{place}/store", [str(PROGRAM)]
    else:
        (tmp_path / "mounted here").mkdir()
        home = f"{tmp_path}/mounted here/store"
        argv = [
            "unshare",
            "--mount",
            "sh",
            "-ec",
            'mount --bind "$1" "$2"; shift 2; exec "$@"',
            "sh",
        ]
        argv += [place, str(Path(home).parent), str(PROGRAM)]

    def refused(*words: str) -> None:
        answer = subprocess.run(
            [*argv, *words], cwd=project.folder, env={**os.environ, "SAFE_COMPOSE_HOME": home},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert answer.returncode == 73 and f"in volume {project.name}_kept" in answer.stderr, (
            answer.stderr
        )

    refused(*JOB, "compose", "down", "-v")
    assert project.running() != [] and read_file(project) == "a photo"
    project.docker("compose", "down")
    refused(
        "volume", "rm", f"{project.name}_kept"
    )  # nothing else dies, so that nothing is backed up
    assert volume_exists(f"{project.name}_kept")
