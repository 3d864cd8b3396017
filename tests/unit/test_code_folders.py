"""No folder of code or configuration counts as data, whatever the layout of a project is."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from safe_compose.core.folders import (
    FolderContent,
    MountedFolder,
    explain_by_content,
    explain_by_path,
    list_mounted,
)
from safe_compose.core.observed import FolderMount, Observed, Project
from testing.projects import ROOT

LAYOUTS: dict[str, dict[str, Any]] = YAML(typ="safe", pure=True).load(
    (ROOT / "tests" / "cases" / "code_folders.yaml").read_text()
)


def write_files(folder: Path, home: Path, names: list[str]) -> None:
    for name in names:
        path = home / name[2:] if name.startswith("~/") else folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def read_mounts(services: dict[str, Any], folder: Path, home: Path) -> Iterator[FolderMount]:
    """What the services mount of the host, as `docker compose config` shows it."""
    for service, body in services.items():
        for volume in body["volumes"]:
            source, colon, rest = volume.partition(":")
            target, _, mode = rest.partition(":")
            if colon:
                path = os.path.normpath(folder / source.replace("~", str(home), 1))
                image = body.get("image") or f"shop-{service}"
                yield FolderMount(path, service, target, mode == "ro", image)


def look_into(path: str) -> FolderContent:
    """What is in a folder."""
    root = Path(path)
    if not root.is_dir():
        return FolderContent("file" if root.exists() else "absent")
    names = tuple(sorted(child.name for child in root.iterdir()))
    files = tuple(str(file.relative_to(root)) for file in sorted(root.rglob("*")) if file.is_file())
    return FolderContent("folder", names, files, len(files), counted=True)


def explain(mounted: MountedFolder, project: Project) -> str | None:
    why = explain_by_path(mounted, project)
    return why if why is not None else explain_by_content(mounted, look_into(mounted.name), project)


@pytest.mark.parametrize("name", LAYOUTS)
def test_of_a_project_with_code_only_the_data_counts(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    folder, home = tmp_path / "work" / "shop", tmp_path / "home"
    write_files(folder, home, layout["files"])
    project = Project(
        "shop",
        "folder",
        "config",
        working_dir=str(folder),
        config_files=(str(folder / "compose.yaml"),),
        folders=tuple(read_mounts(layout["services"], folder, home)),
    )
    found = list_mounted(Observed("unix:///x", "E", project=project))
    reasons = {os.path.relpath(one.name, folder): explain(one, project) for one in found}
    assert [path for path, why in reasons.items() if why is None] == layout["data"], reasons


def test_there_are_enough_layouts() -> None:
    assert len(LAYOUTS) >= 20
