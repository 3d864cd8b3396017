"""`latest` is the newest backup of the project in this folder, for every verb that takes it."""

import json
from pathlib import Path

import pytest

from safe_compose.store.catalogue.catalogue import Catalogue
from testing.backups import keep
from testing.fixtures import SafeCompose
from testing.terminal import PROGRAM

NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent.sock"}
VERBS = (
    ("verify",),
    ("verify", "latest"),
    ("show", "latest"),
    ("offsite", "push"),
    ("offsite", "push", "latest"),
    ("offsite", "verify", "latest"),
    ("offsite", "pull", "latest"),
    ("offsite", "status", "latest"),
)


@pytest.fixture
def catalogue(sealed_environment: Path) -> Catalogue:
    return Catalogue.at(sealed_environment / "safe-compose")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "blog"
    folder.mkdir()
    (folder / "compose.yaml").write_text("name: blog\nservices: {db: {image: busybox}}\n")
    return folder


def configure_place(home: Path, place: Path) -> None:
    place.mkdir()
    settings = home / ".config" / "safe-compose" / "config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'[offsite.nas]\nurl = "{place.as_uri()}"\n')


def test_no_verb_takes_the_backup_of_another_project(
    safe_compose: SafeCompose, catalogue: Catalogue, project: Path, sealed_environment: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    configure_place(sealed_environment, tmp_path / "place")
    other = keep(catalogue, project="shop")
    pushed = safe_compose("offsite", "push", "--project", "shop", env=NO_ENGINE)
    assert pushed.returncode == 0, pushed.stderr
    for words in VERBS:
        answer = safe_compose(*words, cwd=project, env=NO_ENGINE)
        assert answer.returncode == 64 and "of project blog" in answer.stderr, (words, answer)
        assert other.id not in answer.stdout, words
    own = keep(catalogue, project="blog")
    newest = keep(catalogue, project="shop")
    for words in (("show", "latest", "--json"), ("show", "latest", "--json", "--project", "shop")):
        shown = safe_compose(*words, cwd=project, env=NO_ENGINE)
        wanted = newest.id if "shop" in words else own.id
        assert json.loads(shown.stdout)["backup"]["id"] == wanted, shown.stderr
    assert own.id in safe_compose("verify", cwd=project, env=NO_ENGINE).stdout


def test_without_a_project_it_is_of_all_and_that_is_said(
    safe_compose: SafeCompose, catalogue: Catalogue, tmp_path: Path
) -> None:
    keep(catalogue, project="shop")
    only = safe_compose("verify", cwd=tmp_path, env=NO_ENGINE)
    assert only.returncode == 0 and "of all projects" not in only.stderr
    newest = keep(catalogue, project="blog")
    answer = safe_compose("verify", cwd=tmp_path, env=NO_ENGINE)
    assert answer.returncode == 0 and newest.id in answer.stdout
    assert "no compose project in this folder: latest is of all projects" in answer.stderr
    bare = safe_compose("verify", cwd=tmp_path, env={"PATH": str(Path(PROGRAM).parent)})
    assert bare.returncode == 0 and newest.id in bare.stdout, bare.stderr
