"""The examination of the routes to docker, and of the installation.

It determines which routes pass through safe-compose.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from safe_compose.fastpath import launch
from safe_compose.install import probe, program
from safe_compose.install.places import InstallPlaces
from safe_compose.install.plan import KINDS
from safe_compose.install.record import InstallChange, read_record
from safe_compose.operations.doctor.findings import Findings
from safe_compose.system import trusted_file


def examine_routes(on_each: Callable[[], object]) -> Findings:
    """Probe every route to docker, and call `on_each` after each of them."""
    attention: list[str] = []
    places = InstallPlaces.here()
    known = read_record(places)
    installed = [kind for kind in KINDS if any(change.way == kind for change in known)]
    tried = probe.probe_all(os.environ, on_each)
    if not any(t.verdict == "caught" for t in tried):
        attention.append(
            "no way to docker goes through safe-compose: safe-compose shell --install shims"
            " --install plugin --install rc"
        )
    missed = [t for t in tried if t.verdict == "missed" and set(t.by) & set(installed)]
    if missed:
        here = (
            " (this shell may be older than the installation: log in again)"
            if _is_older(known)
            else ""
        )
        names = ", ".join(t.way for t in missed)
        attention.append(f"installed, and still missed{here}: {names}")
    for path, why in _list_unsafe(known):
        attention.append(
            f"{path} is run as you and others can change it, since {why}: safe-compose shell"
            " --uninstall"
        )
    for path in _list_without_interpreter(known):
        attention.append(
            f"the Python in the first line of {path} has gone: safe-compose shell --install shims"
            " --install plugin"
        )
    for path, why in _list_broken(known):
        attention.append(f"{path} {why}: safe-compose shell --install shims --install plugin")
    if os.environ.get("SAFE_COMPOSE") == "off":
        attention.append("SAFE_COMPOSE=off is set here: nothing is guarded")
    return Findings(
        {
            "launcher": program.describe_program(),
            "installed": installed,
            "ways": [{**asdict(t), "by": list(t.by)} for t in tried],
        },
        tuple(attention),
    )


def _is_older(known: list[InstallChange]) -> bool:
    folders = {
        str(Path(c.path).parent)
        for c in known
        if c.way == "shims" and Path(c.path).name == "docker"
    }
    return bool(folders) and folders.isdisjoint(os.environ.get("PATH", "").split(os.pathsep))


def _list_unsafe(known: Sequence[InstallChange]) -> list[tuple[str, str]]:
    """Return each installed path that others can change, with the reason why they can."""
    paths = dict.fromkeys(change.path for change in known if change.how in ("file", "link"))
    return [
        (path, why)
        for path in paths
        if (why := trusted_file.explain_unsafe(Path(path))) is not None
    ]


def _list_broken(known: Sequence[InstallChange]) -> list[tuple[str, str]]:
    """Return each installed link that starts nothing, with the reason."""
    links = (Path(change.path) for change in known if change.how == "link")
    return [
        (str(path), why)
        for path in links
        if path.is_symlink() and (why := program.explain_broken(path)) is not None
    ]


def _list_without_interpreter(known: list[InstallChange]) -> list[str]:
    """Return the scripts, of a version that wrote some, whose interpreter has gone."""
    scripts = [change for change in known if change.text.startswith("#!")]
    return [
        c.path
        for c in scripts
        if not launch.is_program(c.text.partition("\n")[0][2:].partition(" ")[0])
    ]
