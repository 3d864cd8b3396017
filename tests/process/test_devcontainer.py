"""The feature for development containers: what it declares, and its installation below DESTDIR."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import safe_compose
from testing.projects import ROOT

FEATURE = ROOT / "integrations" / "devcontainer" / "safe-compose"
PYTHON = """#!/bin/bash
printf '%q ' "$@" >>"$CALLS"; echo >>"$CALLS"
[[ $1 != -c ]] || exit "${PYTHON_IS_OLD-0}"
[[ $2 != venv ]] || { mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; }
"""
LINE = 'command -v safe-compose >/dev/null && eval "$(safe-compose shell bash)"\n'


@pytest.fixture
def feature(tmp_path: Path) -> Path:
    """A copy of the feature with a wheel, as `make devcontainer` makes it."""
    folder = tmp_path / "a feature"
    shutil.copytree(FEATURE, folder)
    (folder / "safe_compose-1.0-py3-none-any.whl").touch()
    return folder


def install(feature: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    top = feature.parent
    programs = top / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("sh", "bash", "dirname", "mkdir", "cp", "ln", "chmod", "chown", "grep"):
        found = shutil.which(name)
        assert found is not None
        if not (programs / name).exists():
            (programs / name).symlink_to(found)
    (programs / "python3").write_text(PYTHON)
    (programs / "python3").chmod(0o755)
    (top / "root" / "etc").mkdir(parents=True, exist_ok=True)
    given = {"PATH": str(programs), "DESTDIR": str(top / "root"), "CALLS": str(top / "calls")}
    return subprocess.run(
        [feature / "install.sh"], env={**given, **environ}, capture_output=True, text=True
    )


def test_it_declares_its_options_and_keeps_the_store_when_the_container_is_rebuilt() -> None:
    declared = json.loads((FEATURE / "devcontainer-feature.json").read_text("utf-8"))
    assert declared["id"] == FEATURE.name
    assert declared["version"] == safe_compose.__version__
    (mount,) = declared["mounts"]
    assert mount["type"] == "volume" and "${devcontainerId}" in mount["source"]
    assert declared["containerEnv"] == {"SAFE_COMPOSE_HOME": mount["target"]}
    for option in declared["options"].values():
        assert option.keys() == {"type", "default", "description"}
    assert os.access(FEATURE / "install.sh", os.X_OK)


def test_it_installs_the_wheel_that_lies_next_to_it_and_nothing_by_name(feature: Path) -> None:
    for _ in range(2):
        done = install(feature, _REMOTE_USER=str(os.getuid()))
        assert done.returncode == 0, done.stderr
    root = feature.parent / "root"
    calls = [shlex.split(line) for line in (feature.parent / "calls").read_text().splitlines()]
    wheel = str(feature / "safe_compose-1.0-py3-none-any.whl")
    assert [c for c in calls if "pip" in c] == [["-m", "pip", "install", "--quiet", wheel]] * 2
    assert (root / "etc/bash.bashrc").read_text() == LINE, "once, however often it is installed"
    assert (root / "var/lib/safe-compose").stat().st_mode & 0o777 == 0o700
    link = root / "usr/local/bin/safe-compose"
    assert str(link.readlink()) == "/usr/local/lib/safe-compose/bin/safe-compose"


def test_without_the_function_no_start_file_is_changed(feature: Path) -> None:
    assert install(feature, FUNCTION="false").returncode == 0
    assert list((feature.parent / "root" / "etc").iterdir()) == []


def test_without_a_wheel_or_a_python_it_says_what_is_missing(feature: Path) -> None:
    old = install(feature, PYTHON_IS_OLD="1")
    assert old.returncode == 1 and "Python 3.11 or newer" in old.stderr
    for wheel in feature.glob("*.whl"):
        wheel.unlink()
    none = install(feature)
    assert none.returncode == 1 and "make devcontainer" in none.stderr
    assert not (feature.parent / "root" / "usr").exists()
