"""Of projects with code, configuration and caches in folders, only the data is listed."""

import json
import os
import posixpath
from collections.abc import Iterator
from typing import Any

import pytest
from ruamel.yaml import YAML

from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ROOT, require_success

pytestmark = [pytest.mark.engine, pytest.mark.thorough]

LAYOUTS: dict[str, dict[str, Any]] = YAML(typ="safe", pure=True).load(
    (ROOT / "tests" / "cases" / "code_folders.yaml").read_text()
)


def put_into(folder: str, layout: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The services of a layout whose files stand in a folder of the project."""
    for name, body in layout["services"].items():
        volumes = []
        for volume in body["volumes"]:
            source, colon, rest = volume.partition(":")
            inner = posixpath.normpath(posixpath.join(folder, source))
            source = source if source.startswith(("/", "~")) else f"./{inner}"
            volumes.append(f"{source}:{rest}" if colon else volume)
        image = body.get("image") or f"shop-{name}"
        yield f"{folder}-{name}", {"image": image, "volumes": volumes}


def test_all_of_them_in_one_project_show_only_the_data(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    folders = {f"layout{number}": layout for number, layout in enumerate(LAYOUTS.values())}
    services = dict(one for name, layout in folders.items() for one in put_into(name, layout))
    files = {f"{name}/{file}": "x" for name, layout in folders.items() for file in layout["files"]}
    project = compose_project(json.dumps({"services": services}), files=files)
    shown = require_success(safe_compose("volumes", "--json", cwd=project.folder))
    found = {
        os.path.relpath(row["name"], project.folder) for row in json.loads(shown.stdout)["volumes"]
    }
    assert found == {
        f"{name}/{data}" for name, layout in folders.items() for data in layout["data"]
    }
