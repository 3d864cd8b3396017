"""The findings of `doctor` as a person reads them: the worst first, each with its cure."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from safe_compose.core.quantities import count, format_size

PERSON, WARNING, OK = "needs you", "warning", "ok"
"""The levels of findings, the worst first. Only the first makes the exit code 1."""
_CURE = ": safe-compose "


class DoctorFinding(NamedTuple):
    """One finding."""

    level: str
    text: str
    cure: str = ""
    """The command to type."""


def list_findings(found: Mapping[str, Any]) -> list[DoctorFinding]:
    """Return the findings in what `examine` found."""
    return [
        *map(_read_attention, found["attention"]),
        *_list_warnings(found),
        *_list_sound(found),
    ]


def _read_attention(line: str) -> DoctorFinding:
    """Return a line of `attention`, which ends with its command, as a finding."""
    text, mark, cure = line.rpartition(_CURE)
    return (
        DoctorFinding(PERSON, text, f"safe-compose {cure}") if mark else DoctorFinding(PERSON, line)
    )


def _list_warnings(found: Mapping[str, Any]) -> Iterator[DoctorFinding]:
    missed = [t for t in found["ways"] if t["verdict"] == "missed" and t["by"]]
    if missed and any(t["verdict"] == "caught" for t in found["ways"]):
        are = "is" if len(missed) == 1 else "are"
        text = f"{count(len(missed), 'way')} to docker can be guarded and {are} not"
        yield DoctorFinding(WARNING, text, "safe-compose doctor --verbose")
    for trap in found.get("docker", {}).get("traps", ()):
        if trap not in found["attention"]:
            yield DoctorFinding(WARNING, trap)
    store, project = found.get("store", {}), found.get("project")
    if "fault" not in store and store and not store.get("backups"):
        yield DoctorFinding(WARNING, "there are no backups yet", "safe-compose backup")
    elif project and project["volumes"] and project["name"] not in store.get("schedules", ()):
        text = f"{project['name']} is not backed up daily"
        yield DoctorFinding(WARNING, text, "safe-compose schedule install")


def _list_sound(found: Mapping[str, Any]) -> Iterator[DoctorFinding]:
    caught = sum(t["verdict"] == "caught" for t in found["ways"])
    if caught:
        tried = sum(t["verdict"] != "not tried" for t in found["ways"])
        yield DoctorFinding(OK, f"{caught} of {tried} ways to docker are guarded")
    if hooks := [a for a in found.get("agents", ()) if a["verdict"] == "stops"]:
        stopping = count(len(hooks), "hook of coding agents stops", "hooks of coding agents stop")
        yield DoctorFinding(OK, f"{stopping} what deletes data")
    docker, store, project = (found.get(name) or {} for name in ("docker", "store", "project"))
    if docker and "fault" not in docker:
        compose = docker["compose"] or "unknown"
        words = f"docker {docker['client']}, compose {compose}, {docker['endpoint']}"
        yield DoctorFinding(OK, words)
        if docker["trash"]["items"]:
            yield DoctorFinding(OK, f"the trash holds {format_trash(docker['trash'])}")
    if store.get("backups"):
        kept = f"{count(store['backups'], 'backup')} ({format_size(store['bytes'])})"
        yield DoctorFinding(OK, f"{kept} in {store['path']}, {format_size(store['free'])} free")
    if project.get("volumes"):
        backed_up = sum(v["backup"] is not None for v in project["volumes"])
        are_volumes = all(v.get("location", "volume") == "volume" for v in project["volumes"])
        of = count(len(project["volumes"]), "volume" if are_volumes else "location")
        have = "has" if backed_up == 1 else "have"
        yield DoctorFinding(
            OK, f"{backed_up} of {of} of {project['name']} {have} a verified backup"
        )
    passwords = project.get("passwords") or []
    if passwords and all(p["agrees"] for p in passwords):
        yield DoctorFinding(OK, "the databases have the passwords of the project's files")


def format_trash(trash: Mapping[str, Any]) -> str:
    """Return how much the trash holds: `2 items (1.2 GiB)`."""
    return f"{count(trash['items'], 'item')} ({format_size(trash['bytes'])})"


def conclude(findings: list[DoctorFinding]) -> str:
    """Return the last line: `no problems found`, or how many things need a person."""
    people = sum(f.level == PERSON for f in findings)
    warnings = sum(f.level == WARNING for f in findings)
    more = f"; {count(warnings, 'warning')}" if warnings else ""
    if people:
        return f"{count(people, 'thing')} {'needs' if people == 1 else 'need'} you{more}"
    return f"no problems found{more}"
