"""The data of a project with the tiers that are proposed for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safe_compose.core import policy
from safe_compose.core.observed import (
    PROJECT_LABEL,
    SCRATCH_LABEL,
    TRASH_LABEL,
    VOLUME_LABEL,
    Project,
    Volume,
    kind_of_location,
)
from safe_compose.core.tier import Tier
from safe_compose.errors import UsageError
from safe_compose.grammar.parser import Invocation
from safe_compose.operations import folders
from safe_compose.operations.setup.files import SetupFile
from safe_compose.system import git
from safe_compose.workspace import Workspace

_MADE_BY_US = {SCRATCH_LABEL, TRASH_LABEL}


@dataclass(frozen=True, slots=True)
class SetupVolume:
    """A volume of the project, or a folder of the host with its data, with the proposal for it."""

    key: str
    """A volume's name in the compose file; a folder's path, relative to the project's folder
    (`./uploads`) where it lies in it."""
    volume: str
    """The name of the location."""
    tier: str
    why: str
    said: bool
    """A file, a label or the registry already states the tier."""
    looked_at: bool = False
    """It is disposable only as long as nothing made by a person is found in it."""

    @property
    def location(self) -> str:
        """`volume` or `folder`."""
        return kind_of_location(self.volume)


@dataclass(frozen=True, slots=True)
class SetupFindings:
    """A project that was inspected."""

    project: Project
    folder: Path
    rows: tuple[SetupVolume, ...]
    databases: tuple[str, ...]
    """PostgreSQL services: `rotate-password --sync` can set their password without the old one."""
    exposed: tuple[str, ...] = ()
    """Folders with data, relative to the project's, that git does not ignore in its work tree."""

    def select_lasting(self, tiers: Mapping[str, str]) -> dict[str, str]:
        """Return the tiers to write down, without those that depend on the content of a volume.

        Once written, such a tier would apply for ever, and the content would never be inspected
        again.
        """
        open_rows = {r.key for r in self.rows if r.looked_at}
        return {
            key: tier
            for key, tier in tiers.items()
            if key not in open_rows or tier != Tier.DISPOSABLE.value
        }


def inspect(workspace: Workspace, invocation: Invocation) -> SetupFindings:
    """Return the project of this folder with its volumes, including those not created yet.

    Folders of the host that hold data come after them.

    Raises:
        UsageError: There is no project here that compose can read.
    """
    observed = workspace.engine.commands.look(invocation)
    project = observed.project
    if project is None or project.mode != "config" or not project.working_dir:
        raise UsageError(
            "there is no compose project here that compose can read; nothing was written",
            next_step=(
                "cd to its compose file; docker compose config --quiet says what is wrong with one"
            ),
        )
    names = {d.name: d.key for d in project.volumes if not d.external}
    ours = [
        v
        for v in observed.volumes
        if v.project == project.name and not v.anonymous and not _MADE_BY_US & set(v.labels)
    ]
    there = {v.name: v for v in (*ours, *(v for v in observed.volumes if v.name in names))}
    own = {PROJECT_LABEL: project.name}  # compose will make them with it
    volumes = [*there.values(), *(Volume(name, labels=own) for name in names if name not in there)]
    rules = workspace.rules(observed)
    # Never by content: a volume that is empty today would be written down as disposable for ever.
    observed = workspace.trusting(observed)
    verdicts = [policy.judge(volume, observed, rules, None) for volume in volumes]
    rows = [
        SetupVolume(
            names.get(volume.name, volume.labels.get(VOLUME_LABEL, volume.name)),
            volume.name,
            v.tier.value,
            f"{v.why}; looked into each time, not written down" if v.looks else v.why,
            v.explicit,
            bool(v.looks),
        )
        for volume, v in zip(volumes, verdicts, strict=True)
    ]
    data = {v.volume for v in verdicts if v.kind == "postgres"}
    services = {m.service for m in project.mounts if m.volume in data}
    folder = Path(project.working_dir)
    host = folders.find_folders(workspace, observed).data
    rows += [_propose_folder(one.name, verdict, folder) for one, verdict in host]
    shared = workspace.engine.docker.connection.shares_paths
    return SetupFindings(
        project,
        folder,
        tuple(sorted(rows, key=lambda r: (r.location != "volume", r.key))),
        tuple(sorted(services)),
        tuple(_list_exposed(folder, [one.name for one, _ in host])) if shared else (),
    )


def _propose_folder(path: str, verdict: policy.Verdict, project: Path) -> SetupVolume:
    inside = Path(path).is_relative_to(project) and Path(path) != project
    key = f"./{Path(path).relative_to(project).as_posix()}" if inside else path
    return SetupVolume(key, path, verdict.tier.value, verdict.why, verdict.explicit)


def _list_exposed(project: Path, paths: Sequence[str]) -> Iterator[str]:
    """Yield the folders below the project's that its git work tree would publish."""
    for path in paths:
        below = Path(path).is_relative_to(project) and Path(path) != project
        tree = git.find_work_tree(path) if below and Path(path).is_dir() else None
        if tree is not None and git.is_ignored(path, tree) is False:
            yield Path(path).relative_to(project).as_posix()


def to_json(found: SetupFindings, files: Sequence[SetupFile], *, done: bool) -> dict[str, Any]:
    """Return findings and proposed files as JSON."""
    return {
        "project": found.project.name,
        "folder": str(found.folder),
        "volumes": [
            {
                "key": r.key,
                "name": r.volume,
                "location": r.location,
                "tier": r.tier,
                "why": r.why,
                "said": r.said,
            }
            for r in found.rows
        ],
        "files": [{"path": str(f.path), "diff": f.diff()} for f in files],
        "done": done,
    }


def list_next_steps(found: SetupFindings, *, scheduled: bool) -> Iterator[str]:
    """Yield what a person may want to do next."""
    if not scheduled and any(r.tier != Tier.DISPOSABLE.value for r in found.rows):
        yield "back it up every day: safe-compose schedule install (or: safe-compose schedule cron)"
    yield "see that all is in order: safe-compose doctor"
