"""The images of the demo: which are used, brought, replaced and removed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from testing import demo_images, images
from testing.demo_images import PREFIX, SERVICES, Record, Registry
from testing.projects import EXAMPLE
from testing.server_images import POSTGRES

DOCKER = r"""#!/bin/bash
# An engine that knows the images in $ENGINE, a file for each, and notes what it is asked.
cd "$ENGINE"
echo "$*" >>calls
file=${!#//\//_}
case "$1 $2" in
"image inspect") [[ -e $file ]] && { echo "["; cat "$file"; echo "]"; } ;;
"image ls") [[ ! -e $file.unreadable ]] || echo 123 ;;
"image rm") [[ ! -e $file.used ]] && rm "$file" ;;
"pull "*) [[ -e registry ]] && echo '{"Id": "pulled", "Created": "2024-01-01T00:00:00Z", "Config": {}}' >"$file" ;;
"load "*) cat >/dev/null ;;
esac
"""


class Engine:
    """An engine whose images are files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, identity: str, **more: Any) -> None:
        """Have an image."""
        (self.folder / name.replace("/", "_")).write_text(json.dumps({"Id": identity, **more}))

    def has(self, name: str) -> bool:
        """Return whether an image is there."""
        return (self.folder / name.replace("/", "_")).exists()

    def calls(self, verb: str) -> list[str]:
        """Return what it was asked that begins with these words."""
        return [
            line
            for line in (self.folder / "calls").read_text().splitlines()
            if line.startswith(verb)
        ]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    programs, folder = tmp_path / "bin", tmp_path / "engine"
    programs.mkdir()
    folder.mkdir()
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("ENGINE", str(folder))
    yield Engine(folder)


@pytest.fixture
def bring(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], dict[str, str]]:
    """Bring the images without Debian's packages, and return those that the override names."""

    def build(recipe: Any, *_: object) -> None:
        engine.put(recipe.name, f"built {recipe.name}", **loaded_by_the_lab(recipe.identity()))

    monkeypatch.setattr(demo_images, "build", build)
    project = tmp_path / "project"
    project.mkdir()

    def run() -> dict[str, str]:
        record = Record.load(tmp_path / "record")
        demo_images.bring(tmp_path, project, record, Registry(demo_images.pull))
        read = YAML(typ="safe").load((project / demo_images.OVERRIDE).read_text())
        assert {service["pull_policy"] for service in read["services"].values()} == {"never"}
        return {name: service["image"] for name, service in read["services"].items()}

    return run


def loaded_by_the_lab(identity: str) -> dict[str, Any]:
    return {"Created": images.CREATED, "Config": {"Labels": {images.LABEL: identity}}}


def remove(tmp_path: Path) -> None:
    demo_images.remove(Record.load(tmp_path / "record"))


def test_the_services_and_images_are_those_of_the_example() -> None:
    example = YAML(typ="safe").load((EXAMPLE / "compose.yaml").read_text())["services"]
    assert {name: service["image"] for name, service in example.items()} == {
        name: recipe.name for name, recipe in SERVICES.items()
    }


def test_without_a_registry_look_alikes_have_names_of_their_own_and_go_again(
    bring: Callable[[], dict[str, str]], engine: Engine, tmp_path: Path
) -> None:
    assert bring() == {name: PREFIX + recipe.name for name, recipe in SERVICES.items()}
    assert len(engine.calls("pull")) == 1, "a registry that fails is not asked again"
    assert not any(engine.has(recipe.name) for recipe in SERVICES.values())
    remove(tmp_path)
    assert not any(engine.has(PREFIX + recipe.name) for recipe in SERVICES.values())
    assert not (tmp_path / "record").exists()


def test_a_registry_is_tried_first_and_what_it_gave_goes_again(
    bring: Callable[[], dict[str, str]], engine: Engine, tmp_path: Path
) -> None:
    (engine.folder / "registry").touch()
    names = bring()
    assert names.pop("bot") == PREFIX + "dating-bot:latest", "nobody publishes that one"
    assert names == {name: SERVICES[name].name for name in names}
    assert len(engine.calls("pull")) == 5
    remove(tmp_path)
    assert not any(engine.has(name) for name in names.values())


def test_an_image_that_was_there_is_used_and_stays(
    bring: Callable[[], dict[str, str]], engine: Engine, tmp_path: Path
) -> None:
    engine.put("postgres:15", "somebody's", Created="2024-01-01T00:00:00Z", Config=None)
    engine.put("traefik:v2.10", "the tests'", **loaded_by_the_lab("an older one"))
    names = bring()
    assert names["db"] == "postgres:15" and names["traefik"] == PREFIX + "traefik:v2.10"
    remove(tmp_path)
    assert engine.has("postgres:15") and engine.has("traefik:v2.10")
    assert len(engine.calls("image rm")) == 5


def test_what_somebody_put_in_place_of_a_brought_image_or_uses_stays(
    bring: Callable[[], dict[str, str]],
    engine: Engine,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (engine.folder / "registry").touch()
    bring()
    engine.put("postgres:15", "newer", Created="2025-01-01T00:00:00Z")
    (engine.folder / "traefik:v2.10.used").touch()
    remove(tmp_path)
    assert engine.has("postgres:15") and engine.has("traefik:v2.10")
    assert "in use elsewhere and stay: traefik:v2.10\n" in capfd.readouterr().err


def test_a_run_that_was_cut_off_while_it_loaded_is_cleaned_up(
    engine: Engine, tmp_path: Path
) -> None:
    name = PREFIX + "postgres:15"
    record = Record.load(tmp_path / "record")
    record.expect(name)
    engine.put(name, "half", **loaded_by_the_lab("x"))
    remove(tmp_path)
    assert not engine.has(name)


def test_an_image_of_somebody_by_the_name_of_a_look_alike_is_not_replaced(
    bring: Callable[[], dict[str, str]], engine: Engine
) -> None:
    engine.put(PREFIX + "traefik:v2.10", "somebody's", Created="2024-01-01T00:00:00Z")
    with pytest.raises(SystemExit, match="nothing was replaced"):
        bring()


@pytest.mark.parametrize(
    ("image", "there"),
    [
        ({"Created": "2024-01-01T00:00:00Z", "Config": {"Labels": None}}, True),
        ({"Created": "2024-01-01T00:00:00Z", "Config": None}, True),
        # built on top of a look-alike, or committed from one
        ({"Created": "2026-01-01T00:00:00Z", "Config": {"Labels": {images.LABEL: "old"}}}, True),
        (loaded_by_the_lab("old"), False),
        (loaded_by_the_lab(POSTGRES.identity()), True),
    ],
)
def test_the_lab_replaces_only_an_older_image_of_its_own(
    image: dict[str, Any], there: bool, engine: Engine
) -> None:
    engine.put("postgres:15", "x", **image)
    assert images.present(POSTGRES) is there


def test_an_image_that_the_engine_cannot_describe_is_not_taken_for_a_missing_one(
    engine: Engine,
) -> None:
    assert not images.present(POSTGRES)
    (engine.folder / "postgres:15.unreadable").touch()
    with pytest.raises(images.subprocess.CalledProcessError):
        images.present(POSTGRES)
