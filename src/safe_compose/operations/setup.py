"""`safe-compose setup`: what a project's files should say, shown as a diff first.

Inspect the project, propose a tier for each volume, compose the texts, show them, write them. A
second run changes nothing.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
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
)
from safe_compose.core.tier import Tier
from safe_compose.errors import ConfigError, Refused, StateChanged, UsageError
from safe_compose.grammar.parser import Invocation
from safe_compose.settings.load import PROJECT_FILE
from safe_compose.system import project_files
from safe_compose.system.files import Access, reporting, sync_folder, write
from safe_compose.workspace import Workspace

_MADE_BY_US = {SCRATCH_LABEL, TRASH_LABEL}
DEPLOY_FILE = ".github/workflows/deploy.yml"
_IGNORED = "/backups/"
"""A folder where a project's store may be, and where people put dumps made by hand."""
_RULES = """
[retention]            # what `safe-compose forget` leaves; nothing is forgotten by itself
keep_daily = 7
keep_weekly = 4
keep_monthly = 6
"""


@dataclass(frozen=True, slots=True)
class SetupVolume:
    """A volume of the project with the proposal for it."""

    key: str
    """Its name in the compose file."""
    volume: str
    tier: str
    why: str
    said: bool
    """A file, a label or the registry already states the tier."""
    looked_at: bool = False
    """It is disposable only as long as nothing made by a person is found in it."""


@dataclass(frozen=True, slots=True)
class SetupFile:
    """A file with its proposed text."""

    path: Path
    before: str | None
    """Its current text; None when the file does not exist."""
    after: str

    def diff(self) -> str:
        """Return the change as a unified diff."""
        old = [] if self.before is None else self.before.splitlines(keepends=True)
        name = str(self.path)
        lines = difflib.unified_diff(
            old,
            self.after.splitlines(keepends=True),
            "/dev/null" if self.before is None else name,
            name,
        )
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class SetupFindings:
    """A project that was inspected."""

    project: Project
    folder: Path
    rows: tuple[SetupVolume, ...]
    databases: tuple[str, ...]
    """PostgreSQL services: `rotate-password --sync` can set their password without the old one."""

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


# -- inspection ------------------------------------------------------------------------------------


def inspect(workspace: Workspace, invocation: Invocation) -> SetupFindings:
    """Return the project of this folder with its volumes, including those not created yet.

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
    return SetupFindings(
        project,
        Path(project.working_dir),
        tuple(sorted(rows, key=lambda r: r.key)),
        tuple(sorted(services)),
    )


# -- propose ---------------------------------------------------------------------------------------


def propose(
    found: SetupFindings, tiers: Mapping[str, str], *, deploy: bool
) -> tuple[SetupFile, ...]:
    """Return the files that would change.

    Args:
        found: The project.
        tiers: The key of a volume in the compose file -> its tier.
        deploy: Also propose a deploy job.

    Raises:
        ConfigError: The settings file cannot be read.
        Refused: The settings file cannot be extended without guessing.
    """
    made = [_settings(found, tiers), _propose_gitignore(found.folder)]
    if deploy:
        made.append(_deploy(found))
    return tuple(w for w in made if w is not None and w.before != w.after)


def _settings(found: SetupFindings, tiers: Mapping[str, str]) -> SetupFile:
    path = found.folder / PROJECT_FILE
    before = _text(path)
    why = {r.key: r.why for r in found.rows}
    lines = {
        key: f'{_quote(key)} = "{tier}"{" " * max(1, 24 - len(key) - len(tier))}# {why[key]}'
        for key, tier in tiers.items()
    }
    if before is None:
        head = (
            f"# What safe-compose does before docker deletes a volume of {found.project.name}."
            " Commit this file.\n"
        )
        return SetupFile(
            path,
            None,
            head + "\n[volumes]\n" + "".join(f"{line}\n" for line in lines.values()) + _RULES,
        )
    return SetupFile(path, before, add_volumes(before, tiers, lines, str(path)))


def add_volumes(text: str, tiers: Mapping[str, str], lines: Mapping[str, str], path: str) -> str:
    """Return a TOML text with lines added to its table `volumes` for the keys that it lacks.

    Everything else in the text stays as it is.

    Raises:
        ConfigError: The text is not valid TOML.
        Refused: The result would not contain exactly the old and the new settings.
    """
    bom, text = text[: text.startswith("\ufeff")], text.removeprefix("\ufeff")
    try:
        known = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path}: {error}; nothing was written", next_step="correct it, then run setup again"
        ) from error
    told_of = known.get("volumes", {})
    new = {
        key: tier for key, tier in tiers.items() if isinstance(told_of, dict) and key not in told_of
    }
    if not new:
        return bom + text
    added = "".join(f"{lines[key]}\n" for key in new)
    header = re.search(r"^\[volumes\][ \t]*(#.*)?\r?\n", text, re.MULTILINE)
    if header is not None:
        after = text[: header.end()] + added + text[header.end() :]
    else:
        after = text + ("" if text.endswith("\n") or not text else "\n") + f"\n[volumes]\n{added}"
    wanted = {**known, "volumes": {**told_of, **new}}
    with suppress(tomllib.TOMLDecodeError):
        if tomllib.loads(after) == wanted:
            return bom + after
    raise Refused(
        f"{path}: its [volumes] is written in a way that cannot be added to without guessing;"
        " nothing was written",
        next_step=f"add by hand: {', '.join(lines[key].partition('#')[0].strip() for key in new)}",
    )


def _quote(key: str) -> str:
    """Return a TOML key, bare where that is allowed."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", key):
        return key
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" for c in key)
    return f'"{escaped}"'


def _propose_gitignore(folder: Path) -> SetupFile | None:
    """Return `.gitignore` with a line for backups.

    Returns:
        The file; None outside of a git repository, or when it has such a line.
    """
    if not any(os.path.lexists(above / ".git") for above in (folder, *folder.parents)):
        return None
    path = folder / ".gitignore"
    before = _text(path)
    lines = (before or "").splitlines()
    if {"/backups/", "backups/", "/backups", "backups"} & {line.strip() for line in lines}:
        return None
    gap = "" if not before or before.endswith("\n") else "\n"
    return SetupFile(path, before, f"{before or ''}{gap}{_IGNORED}\n")


def _deploy(found: SetupFindings) -> SetupFile | None:
    """Return a deploy job, unless that file exists: then it is somebody's work."""
    path = found.folder / DEPLOY_FILE
    return (
        None if os.path.lexists(path) else SetupFile(path, None, make_deploy_job(found.databases))
    )


def make_deploy_job(databases: Sequence[str]) -> str:
    """Return a GitHub Actions job that backs up, syncs changed passwords and deploys.

    It deletes nothing.
    """
    follow = "".join(
        f'          if [ -n "$(docker compose ps --quiet {s})" ]; then safe-compose rotate-password'
        f" {s} --sync --yes; fi\n"
        for s in databases
    )
    step = (
        f"      - name: let the database follow a changed password\n        run: |\n{follow}"
        if databases
        else ""
    )
    return _DEPLOY.replace("      @FOLLOW@\n", step)


_DEPLOY = """\
name: deploy
on:
  push:
    branches: [main]
concurrency: deploy  # never two at once
jobs:
  deploy:
    runs-on: [self-hosted]  # the machine with the daemon: its disk outlives the job
    env:
      SAFE_COMPOSE_HOME: /var/lib/safe-compose  # not in the workspace: checkouts clean it
    steps:
      - uses: actions/checkout@v4
      - name: write .env
        env:
          DOTENV: ${{ secrets.DOTENV }}
        run: |
          if [ -z "$DOTENV" ]; then
            echo 'the secret DOTENV is empty; nothing was changed' >&2
            exit 1
          fi
          umask 077
          printf '%s\\n' "$DOTENV" >.env.new
          mv .env.new .env
      - name: back up what is there
        run: |
          if [ -n "$(docker compose ps --quiet)" ]; then safe-compose backup; fi
      @FOLLOW@
      - name: deploy
        run: docker compose up --detach --wait --remove-orphans
      - name: write a receipt of the backups
        if: always()
        run: safe-compose verify --sample 1/7 --junit receipt.xml
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: backup-receipt
          path: receipt.xml
"""


def _text(path: Path) -> str | None:
    """Return the text of a file; None when there is no file.

    Raises:
        Refused: It is not a readable text file.
    """
    if not os.path.lexists(path):
        return None
    found = project_files.read(str(path))
    if found is None:
        raise Refused(
            f"{path} is there, but it is no text file that can be read; nothing was written"
        )
    return found


# -- write -----------------------------------------------------------------------------------------


def refuse_unless_possible(files: Sequence[SetupFile]) -> None:
    """Check that all files can be written, before the first one is.

    Raises:
        Refused: One of them cannot be written.
    """
    for file in files:
        if file.before is not None:
            _change(file).refuse_unless_possible()
        elif not os.access(_nearest(file.path.parent), os.W_OK | os.X_OK):
            raise Refused(
                f"{file.path} cannot be written; nothing was written",
                next_step="run setup as the folder's owner",
            )


def apply(files: Sequence[SetupFile]) -> None:
    """Write the files, each as a whole.

    Raises:
        StateChanged: A file was changed or created meanwhile.
        OperationFailed: A file cannot be written.
    """
    for file in files:
        if file.before is not None:
            _change(file).apply()
            continue
        above = _nearest(file.path.parent).stat()
        owner = (above.st_uid, above.st_gid) if os.geteuid() == 0 else None
        try:
            with reporting(f"write {file.path}"):
                file.path.parent.mkdir(parents=True, exist_ok=True)
                write(
                    file.path,
                    file.after.encode("utf-8", "surrogateescape"),
                    Access(files=0o644, owner=owner),
                )
                sync_folder(file.path.parent)
        except Exception as fault:
            if isinstance(fault.__cause__, FileExistsError):
                raise StateChanged(
                    f"{file.path} was made by somebody else meanwhile; it was left as it is"
                ) from fault
            raise


def _change(file: SetupFile) -> project_files.FileChange:
    return project_files.FileChange.of(str(file.path), file.before or "", file.after)


def _nearest(folder: Path) -> Path:
    return next(p for p in (folder, *folder.parents) if p.is_dir())


# -- report ----------------------------------------------------------------------------------------


def to_json(found: SetupFindings, files: Sequence[SetupFile], *, done: bool) -> dict[str, Any]:
    """Return findings and proposed files as JSON."""
    return {
        "project": found.project.name,
        "folder": str(found.folder),
        "volumes": [
            {"key": r.key, "name": r.volume, "tier": r.tier, "why": r.why, "said": r.said}
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
