"""Our own verbs as people and programs use them: text and JSON on stdout, one clear message when
called wrongly.
"""

import io
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safe_compose.cli import app, verbs
from safe_compose.errors import SafeComposeError
from safe_compose.fastpath import launch
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, unique
from testing.stacks import write_file
from testing.terminal import PROGRAM, Person

NOWHERE = {"DOCKER_HOST": "unix:///nonexistent.sock"}
SHOP = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: canary-33d1, POSTGRES_DB: shop}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck:
      test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop]
      interval: 1s
      retries: 60
  app:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    volumes: ["uploads:/app/uploads", "scratch:/scratch"]
  queue:
    image: busybox:latest
    init: true
    command: [sleep, "100000"]
    volumes: ["queue:/var/lib/rabbitmq"]
volumes:
  data:
  uploads:
  scratch: {x-safe-compose: disposable}
  queue: {x-safe-compose: disposable}
"""


def shape(answer: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    assert found["version"] == 1
    return found


# -- without an engine -----------------------------------------------------------------------------


def test_the_words_that_are_ours_are_the_verbs_that_there_are() -> None:
    assert set(verbs.VERBS) == {*launch.OWN_VERBS, launch.START}


@pytest.mark.thorough
def test_commands_lists_every_verb_with_a_line(safe_compose: SafeCompose) -> None:
    found = shape(safe_compose("commands", "--json", env=NOWHERE))["commands"]
    assert {c["verb"]: c["does"] for c in found} == {
        name: verb.does for name, verb in verbs.VERBS.items()
    }
    text = safe_compose("commands", env=NOWHERE).stdout
    assert all(re.search(rf"^\s*{verb}\s+\S", text, re.M) for verb in launch.OWN_VERBS)


@pytest.mark.thorough
def test_about_tells_version_store_and_docker(
    safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    found = shape(safe_compose("about", "--json", env=NOWHERE))
    assert found["store"] == str(sealed_environment / "safe-compose") and found["docker"].endswith(
        "/docker"
    )
    assert re.fullmatch(r"\d+\.\d+.*", found["safe-compose"])
    assert found["launcher"].partition(" ")[0] in ("native", "script")
    assert found["store"] in safe_compose("about", env=NOWHERE).stdout


@pytest.mark.thorough
def test_a_store_whose_path_is_no_text_is_printed_all_the_same(
    safe_compose: SafeCompose, tmp_path: Path
) -> None:
    odd = os.fsdecode(bytes(tmp_path) + b"/caf\xe9")
    for words in (("about",), ("about", "--json"), ("list",)):
        answer = safe_compose(*words, env={**NOWHERE, "SAFE_COMPOSE_HOME": odd})
        assert answer.returncode == 0 and "Traceback" not in answer.stderr
    assert json.loads(safe_compose("about", "--json", env={"SAFE_COMPOSE_HOME": odd}).stdout)[
        "store"
    ].startswith(str(tmp_path))


@pytest.mark.thorough
def test_an_empty_store_lists_nothing_and_finds_nothing(
    safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    assert shape(safe_compose("list", "--json"))["backups"] == []
    assert shape(safe_compose("journal", "--json"))["runs"] == []
    assert shape(safe_compose("verify", "--all", "--json"))["results"] == []
    for words in (("show", "latest"), ("verify",), ("show", "x")):
        assert safe_compose(*words).returncode == 64
    assert not (sealed_environment / "safe-compose").exists(), "reading made the store"


@pytest.mark.thorough
def test_protect_is_a_floor_that_unprotect_lifts_for_good_or_for_a_while(
    safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    registry = sealed_environment / "safe-compose" / "protections.json"
    assert (
        safe_compose("protect", "--ahead", "shop_data", "shop_up", "--tier", "important").returncode
        == 0
    )
    assert "shop_data" in registry.read_text() and "important" in registry.read_text()
    unasked = safe_compose("unprotect", "shop_data")
    assert (
        unasked.returncode == 77
        and "--yes" in unasked.stderr
        and "shop_data" in registry.read_text()
    )
    lifted = safe_compose("unprotect", "shop_data", "--for", "10m", "--yes")
    assert (
        lifted.returncode == 0
        and "until" in lifted.stderr
        and "suspended_until" in registry.read_text()
    )
    assert safe_compose("unprotect", "shop_data", "--yes").returncode == 0
    assert "shop_data" not in registry.read_text() and "shop_up" in registry.read_text()
    again = safe_compose("unprotect", "shop_data", "--yes")
    assert again.returncode == 64 and "shop_up" in again.stderr


@pytest.mark.thorough
def test_unprotect_asks_a_person(safe_compose: SafeCompose, tmp_path: Path) -> None:
    assert safe_compose("protect", "--ahead", "shop_data").returncode == 0
    for answer, code in (("", 77), ("y", 0)):
        person = Person("unprotect", "shop_data", cwd=tmp_path)
        person.sees("for good? [y/N]")
        person.types(answer)
        assert person.leaves_with() == code
    assert safe_compose("protect", "--ahead", "shop_data").returncode == 0
    for key, code, words in (
        ("c", 130, "safe-compose: interrupted"),
        ("d", 77, "end of input at the prompt; nothing was done"),
    ):
        person = Person("unprotect", "shop_data", cwd=tmp_path)
        person.sees("for good? [y/N]")
        person.presses(key)
        assert person.leaves_with() == code and words in person.last_words


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "--nonsense"], "--nonsense"),
        (["--nonsense-less", "list"], None),
        (["show"], "Missing argument"),
        (["show", "a", "b"], "b"),
        (["protect"], "Missing argument"),
        (["protect", ""], "name"),
        (["protect", "x", "--tier", "disposable"], "critical or important"),
        (["unprotect", "x", "--for", "soon", "--yes"], "10m"),
        (["unprotect", "x", "--for", "99999999999999h", "--yes"], "at most"),
        (["unprotect", "x", "--for", "²m", "--yes"], "10m"),
        (["unprotect", "x", "--for", "0m", "--yes"], "--for"),
        (["backup", "--wait", "soon"], "--wait"),
        (["backup", "--wait", "nan"], "--wait"),
        (["backup", "--wait", "-1"], "--wait"),
        (["restore", "--non-interactive", "--volume"], "--volume"),
        (["--explain", "list"], "--explain"),
        (["list", "extra"], "extra"),
        (["undo", "--confirm"], "--confirm"),
    ],
)
def test_wrong_words_are_64_with_one_clear_message(
    safe_compose: SafeCompose, words: list[str], said: str | None
) -> None:
    if said is None:
        assert launch.find_own_verb(words) is None, "an unknown flag first is docker's to reject"
        return
    answer = safe_compose(*words, env=NOWHERE)
    assert answer.returncode == 64 and answer.stdout == ""
    first, *rest = answer.stderr.splitlines()
    assert first.startswith("safe-compose: ") and said in first
    assert (
        len(rest) <= 1
        and "Traceback" not in answer.stderr
        and "docker was not run" not in answer.stderr
    )


def test_flags_of_ours_may_stand_before_the_verb(safe_compose: SafeCompose) -> None:
    assert shape(safe_compose("--json", "list"))["backups"] == []
    assert safe_compose("--confirm", "x", "undo", env=NOWHERE).returncode == 69


@pytest.mark.parametrize("verb", sorted(launch.OWN_VERBS))
def test_every_verb_has_help_that_asks_nobody(safe_compose: SafeCompose, verb: str) -> None:
    answer = safe_compose(verb, "--help", env=NOWHERE)
    assert (
        answer.returncode == 0 and f"safe-compose {verb}" in answer.stdout and answer.stderr == ""
    )


@pytest.mark.parametrize(
    "words",
    [["backup"], ["undo"], ["restore", "x"], ["volumes"], ["recover"], ["verify", "--trial", "x"]],
)
def test_verbs_that_need_the_engine_are_69_without_one(
    safe_compose: SafeCompose, words: list[str]
) -> None:
    answer = safe_compose(*words, env=NOWHERE)
    assert answer.returncode in (64, 69) and "Traceback" not in answer.stderr
    assert answer.returncode == 69 or words[0] == "verify"


WORDS = st.one_of(
    st.sampled_from(
        ["--json", "--all", "--trial", "--help", "--yes", "--confirm", "--for", "--volume",
         "--project", "-p", "-f", "--file",
         "--wait", "--tier", "--dry-run", "--", "-", "-h", "", "latest", "..", "../../etc",
         "x" * 300, "critical", "10m", "-1", "--json=1", "--project=", "a b", "\udcff", "\n", "*",
         "é"]
    ),
    st.text(st.characters(exclude_characters="\0"), max_size=12),
)  # fmt: skip
HARMLESS = sorted(
    launch.OWN_VERBS - {"shell", "doctor", "hook", "approve"}
)  # those have tests of their own


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(verb=st.sampled_from(HARMLESS), words=st.lists(WORDS, max_size=5))
def test_no_words_whatever_are_a_bug_of_ours(
    verb: str, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE["DOCKER_HOST"])
    monkeypatch.chdir(tmp_path)
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    code: object
    try:
        with redirect_stdout(out), redirect_stderr(io.StringIO()):
            code = app.run([verb, *words])
    except SafeComposeError as fault:
        code = fault.code
    assert code in (0, 64, 65, 69, 73, 77)


def test_a_reader_that_goes_early_is_no_fault(safe_compose: SafeCompose) -> None:
    for words in ("commands", "list", "commands --json"):
        done = subprocess.run(
            ["bash", "-c", f'"$0" {words} | true; exit "${{PIPESTATUS[0]}}"', PROGRAM],
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, 1, 141) and done.stderr == "", done.stderr


# -- with one --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredShop:
    """A running project, backed up once by hand; the store is this module's."""

    project: ComposeProject
    store: Path
    kept: dict[str, Any]
    said: str

    def __call__(self, *words: str, **more: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [PROGRAM, *words], cwd=more.get("cwd", self.project.folder), env={**os.environ,
             "SAFE_COMPOSE_HOME": str(self.store)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True,
            timeout=120,
        )  # fmt: skip


@pytest.fixture(scope="module")
def shop(
    module_compose_project: ProjectFactory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StoredShop]:
    project = module_compose_project(SHOP)
    project.up()
    project.psql(
        "CREATE TABLE orders AS SELECT g AS n FROM generate_series(1, 1234) g",
        user="shop",
        database="shop",
    )
    write_file(project, "a photo", "uploads/f")
    asking = StoredShop(project, tmp_path_factory.mktemp("store") / "store", {}, "")
    answer = asking("backup")
    assert answer.returncode == 0, answer.stderr
    [kept] = shape(asking("list", "--json"))["backups"]
    yield StoredShop(project, asking.store, kept, answer.stdout + answer.stderr)


@pytest.mark.thorough
@pytest.mark.engine
def test_backup_counts_and_ends_with_path_and_size_and_stops_nothing(shop: StoredShop) -> None:
    lines = shop.said.splitlines()
    assert any(
        re.search(r"connected to \S+-db-1: PostgreSQL 15\.\d+, 2 databases", line) for line in lines
    )
    assert any(re.search(r"shop\s+1\s+1234\s", line) for line in lines)
    assert any(
        re.fullmatch(rf"{re.escape(shop.kept['path'])}  [\d.]+ [KM]iB  verified L3", line)
        for line in lines
    )
    assert shop.kept["volumes"] == [
        f"{shop.project.name}_data",
        f"{shop.project.name}_uploads",
    ], "disposable ones are left out"
    assert len(shop.project.running()) == 3
    assert "no trial" not in shop.said and "canary-33d1" not in shop.said


@pytest.mark.thorough
@pytest.mark.engine
def test_list_and_show_tell_the_same_in_text(shop: StoredShop) -> None:
    assert (
        shop.kept["id"] in shop("list").stdout
        and shop.kept["id"] not in shop("list", "-p", "nobody").stdout
    )
    shown = shape(shop("show", "latest", "--json"))
    assert shown["backup"]["id"] == shop.kept["id"]
    methods = {v["name"].rpartition("_")[2]: v["method"] for v in shown["details"]["volumes"]}
    assert methods == {"data": "dump", "uploads": "live"}
    text = shop("show", shop.kept["id"][:18]).stdout
    assert "globals.sql.gz" in text and "L3" in text and "1,234 rows" in text


@pytest.mark.thorough
@pytest.mark.engine
def test_volumes_tells_tier_reason_and_last_backup_as_the_screen_would(shop: StoredShop) -> None:
    name = shop.project.name
    found = {v["name"]: v for v in shape(shop("volumes", "--json"))["volumes"]}
    data, scratch = found[f"{name}_data"], found[f"{name}_scratch"]
    assert (data["tier"], data["kind"], data["in_use_by"]) == (
        "critical",
        "postgres",
        [f"{name}-db-1"],
    )
    assert data["last_backup"].startswith(shop.kept["id"]) and scratch["last_backup"] is None
    assert scratch["tier"] == "disposable", "what the compose file says counts here too"
    [lost] = shape(shop("volumes", "--json"))["losses"]
    assert (data["elsewhere"], lost["project"], lost["elsewhere"]) == (None, name, None)
    here = {one["name"]: one["here"] for one in lost["locations"]}
    assert here[data["name"]] == shop.kept["created"] and scratch["name"] not in here
    assert re.search(rf"{name}_data\s+{name}\s+critical", shop("volumes").stdout)
    one = shape(shop("volumes", "--project", name, "--volume", f"{name}_data", "--json"))["volumes"]
    assert one == [data]
    assert shop("volumes", "--volume", "nothing").returncode == 64
    assert shop("volumes", "--all", "--project", name).returncode == 64


@pytest.mark.thorough
@pytest.mark.engine
def test_verify_reads_again_and_tries_out_on_request(shop: StoredShop) -> None:
    plain = shape(shop("verify", "--json"))["results"]
    assert [(r["id"], r["fault"]) for r in plain] == [(shop.kept["id"], None)]
    tried = shop("verify", shop.kept["id"], "--trial")
    assert tried.returncode == 0 and "verified L4" in tried.stdout, tried.stderr


@pytest.mark.thorough
@pytest.mark.engine
def test_a_running_database_that_cannot_be_dumped_yet_is_refused_with_a_reason(
    shop: StoredShop,
) -> None:
    answer = shop("backup", "--volume", f"{shop.project.name}_queue")
    assert answer.returncode == 73
    assert (
        "a running rabbitmq is not archived" in answer.stderr
        and f"docker stop {shop.project.name}-queue-1" in answer.stderr
    )
    missing = shop("backup", "--volume", "nobody_has_this")
    assert missing.returncode == 73 and "no such volume: nobody_has_this" in missing.stderr
    assert list(shop.store.rglob(".partial-*")) == []


@pytest.mark.thorough
@pytest.mark.engine
def test_nothing_to_back_up_is_said(shop: StoredShop, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(f"name: {unique('none')}\nservices: {{}}\n")
    answer = shop("backup", cwd=tmp_path)
    assert (
        answer.returncode == 73
        and "no volume or folder here" in answer.stderr
        and "safe-compose volumes" in answer.stderr
    )


@pytest.mark.thorough
@pytest.mark.engine
def test_journal_tells_what_was_run_in_words_that_can_be_typed(shop: StoredShop) -> None:
    runs = shape(shop("journal", "--json"))["runs"]
    first = runs[-1]
    assert (
        first["command"] == ["safe-compose", "backup"]
        and first["outcome"] == f"backup {shop.kept['id']}"
    )
    assert (first["project"], first["backup"]) == (shop.project.name, shop.kept["id"])
    assert (
        "safe-compose backup" in shop("journal").stdout
        and "docker backup" not in shop("journal").stdout
    )
    assert shape(shop("recover", "--json"))["recovered"] == []


@pytest.mark.thorough
@pytest.mark.engine
def test_a_flipped_bit_is_65_and_latest_is_the_older_good_one(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project("services: {}\nvolumes: {notes: {}}\n")
    volume = f"{project.name}_notes"
    label = f"com.docker.compose.project={project.name}"
    docker(
        "volume", "create", "--label", label, "--label", "com.docker.compose.volume=notes", volume
    )
    docker(
        "run", "--rm", "-v", f"{volume}:/v", "--network", "none", "busybox:latest", "touch", "/v/f"
    )
    for _ in range(2):  # nothing runs: the volume of a stopped project
        made = shape(safe_compose("backup", "--json", cwd=project.folder))["backup"]
    newest, older = shape(safe_compose("list", "--json"))["backups"]
    assert (newest["id"], newest["verified"]["level"]) == (made["id"], "L2")
    archive = next(Path(newest["path"]).rglob("data.tar.gz"))
    data = bytearray(archive.read_bytes())
    data[-9] ^= 1
    archive.write_bytes(bytes(data))
    broken = safe_compose("verify", "--all")
    assert broken.returncode == 65 and "1 of 2 backups do not verify" in broken.stderr
    assert re.search(rf"{newest['id']}\t\S+\tBROKEN\t\S", broken.stdout) and re.search(
        rf"{older['id']}\t\S+\tverified L2", broken.stdout
    )
    listed = shape(safe_compose("list", "--json"))["backups"]
    assert [b["verified"] is False for b in listed] == [True, False]
    assert shape(safe_compose("show", "latest", "--json"))["backup"]["id"] == older["id"]
    assert "BROKEN" in safe_compose("list").stdout
