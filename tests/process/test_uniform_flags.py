"""`--project`, `--volume`, `--json` and `--yes`: the same on every verb, or refused with a reason."""

import json
import os
from pathlib import Path

import pytest

from safe_compose.cli import app, verb_flags, verbs
from safe_compose.errors import UsageError
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import CommandLine, Journal
from testing.backups import keep
from testing.fixtures import SafeCompose

NO_ENGINE = {"DOCKER_HOST": "unix:///nowhere.sock"}
FLAGS = {"--project": ["shop"], "--volume": ["shop_data"], "--json": [], "--yes": []}


@pytest.fixture
def store() -> Path:
    return Path(os.environ["SAFE_COMPOSE_HOME"])


@pytest.mark.parametrize("verb", verbs.VERBS)
def test_a_verb_takes_the_flag_or_says_why_it_would_do_nothing(verb: str) -> None:
    assert "--json" in verb_flags.FLAGS[verb]
    for flag, value in FLAGS.items():
        if flag in verb_flags.FLAGS[verb]:
            continue
        with pytest.raises(UsageError) as refused:
            app.run([verb, flag, *value])
        assert f"{verb}: {flag} would do nothing: " in refused.value.message
        assert "such option" not in refused.value.message


@pytest.mark.parametrize(
    "words",
    [
        ("schedule", "status", "--yes"),
        ("schedule", "remove", "--at", "03:00"),
        ("schedule", "cron", "--dry-run"),
        ("trash", "list", "--yes"),
        ("trash", "restore", "x", "--yes"),
        ("offsite", "key", "--project", "shop"),
        ("offsite", "status", "--dry-run"),
        ("offsite", "list", "--all"),
        ("audit", "--yes"),
        ("shell", "bash", "--json"),
        ("shell", "bash", "--yes"),
        ("shell", "--uninstall", "--dir", "/x"),
    ],
    ids=" ".join,
)
def test_an_action_refuses_a_flag_of_the_others(
    words: tuple[str, ...], safe_compose: SafeCompose, tmp_path: Path
) -> None:
    done = safe_compose(*words, cwd=tmp_path, env=NO_ENGINE)
    assert done.returncode == 64 and "would do nothing" in done.stderr, done.stderr


def test_only_what_holds_a_volume_is_listed_read_and_shown(
    store: Path, safe_compose: SafeCompose
) -> None:
    catalogue = Catalogue.at(store)
    both = keep(catalogue, ["shop_data", "shop_photos"])
    photos = keep(catalogue, ["shop_photos"])
    keep(catalogue, ["bank_data"], project="bank")

    def ids(*words: str) -> list[str]:
        return [
            b["id"] for b in json.loads(safe_compose("list", *words, "--json").stdout)["backups"]
        ]

    assert ids("--volume", "shop_photos") == [photos.id, both.id]
    assert ids("--volume", "shop_photos", "--volume", "shop_data") == [both.id]
    none = safe_compose("list", "--volume", "other").stderr
    assert "no backups with other" in none

    read = json.loads(safe_compose("verify", "--all", "--volume", "shop_data", "--json").stdout)
    assert [r["id"] for r in read["results"]] == [both.id]
    shown = safe_compose("show", "latest", "--project", "shop", "--volume", "shop_data", "--json")
    assert json.loads(shown.stdout)["backup"]["id"] == both.id
    wrong = safe_compose("show", photos.id, "--volume", "shop_data")
    assert wrong.returncode == 64 and "does not hold shop_data" in wrong.stderr
    assert safe_compose("verify", "--volume", "other").returncode == 64


def test_the_journal_is_narrowed_to_a_project_and_a_volume(
    store: Path, safe_compose: SafeCompose
) -> None:
    journal = Journal(store)
    for project, volume in (("shop", "shop_data"), ("bank", "bank_data")):
        run = journal.begin(
            journal.new_id(), CommandLine(("volume", "rm", volume)), project=project
        )
        run.step("running", volumes=[{"name": volume}])
        run.step("ran", code=0, gone=[volume], survived=[])
        run.step("ended", outcome="deleted")

    def projects(*words: str) -> list[str]:
        runs = json.loads(safe_compose("journal", *words, "--json").stdout)["runs"]
        return [run["project"] for run in runs]

    assert projects() == ["bank", "shop"]
    assert projects("--project", "shop") == projects("--volume", "shop_data") == ["shop"]
    assert "no guarded commands of project x" in safe_compose("journal", "--project", "x").stderr


def test_a_protection_is_told_as_json(safe_compose: SafeCompose, tmp_path: Path) -> None:
    set_ = safe_compose("protect", "--ahead", "shop_data", "--json", cwd=tmp_path, env=NO_ENGINE)
    assert json.loads(set_.stdout) == {
        "version": 1, "protected": [{"name": "shop_data", "tier": "critical", "lock": None}]
    }  # fmt: skip
    words = ("unprotect", "shop_data", "--yes", "--json")
    taken = safe_compose(*words, cwd=tmp_path, env=NO_ENGINE)
    assert json.loads(taken.stdout) == {
        "version": 1, "unprotected": [{"name": "shop_data", "until": None, "unlocked": False}]
    }  # fmt: skip
