"""The road of `safe-compose setup`: what a project's files should say, shown as a diff first; twice changes nothing more.

look at the project -> propose a tier for each volume -> make the texts -> show them -> write.
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

from safe_compose import edits, policy
from safe_compose.config import PROJECT_FILE
from safe_compose.durable import Access, sync_folder, told, write
from safe_compose.errors import ConfigError, LookAgain, Refused, UsageError
from safe_compose.grammar import Invocation
from safe_compose.observed import SCRATCH_LABEL, TRASH_LABEL, VOLUME_LABEL, Project, Volume
from safe_compose.policy import Tier
from safe_compose.world import World

_MADE_BY_US = {SCRATCH_LABEL, TRASH_LABEL}
DEPLOY_FILE = ".github/workflows/deploy.yml"
_IGNORED = "/backups/"
"""Where a project's store may lie, and where people put dumps that they make by hand."""
_RULES = """
[retention]            # what `safe-compose forget` leaves; nothing is forgotten by itself
keep_daily = 7
keep_weekly = 4
keep_monthly = 6
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One volume of the project and what is proposed for it."""

    key: str
    """What the compose file calls it."""
    volume: str
    tier: str
    why: str
    said: bool
    """A file, a label or the registry says so already."""


@dataclass(frozen=True, slots=True)
class Written:
    """One file as it would be."""

    path: Path
    before: str | None
    """None: it is not there."""
    after: str

    def diff(self) -> str:
        old = [] if self.before is None else self.before.splitlines(keepends=True)
        name = str(self.path)
        lines = difflib.unified_diff(old, self.after.splitlines(keepends=True), "/dev/null" if self.before is None else name, name)
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Found:
    """A project, looked at."""

    project: Project
    folder: Path
    rows: tuple[Row, ...]
    databases: tuple[str, ...]
    """Services whose password `rotate-password --sync` could set without the old one: PostgreSQL's."""


# -- look --------------------------------------------------------------------------------------------------------------


def look(world: World, invocation: Invocation) -> Found:
    """The project here and its volumes, those that are not made yet included. Raises UsageError where there is none."""
    observed = world.engine.look(invocation)
    project = observed.project
    if project is None or project.mode != "config" or not project.working_dir:
        raise UsageError(
            "there is no compose project here that compose can read; nothing was written",
            next_step="cd to its compose file; docker compose config --quiet says what is wrong with one",
        )
    names = {d.name: d.key for d in project.volumes if not d.external}
    ours = [v for v in observed.volumes if v.project == project.name and not v.anonymous and not _MADE_BY_US & set(v.labels)]
    there = {v.name: v for v in (*ours, *(v for v in observed.volumes if v.name in names))}
    volumes = [*there.values(), *(Volume(name) for name in names if name not in there)]
    rules = world.rules(observed)
    # Never by content: what is empty today would stand there as disposable for ever.
    verdicts = [policy.judge(volume, observed, rules, None) for volume in volumes]
    rows = [
        Row(names.get(volume.name, volume.labels.get(VOLUME_LABEL, volume.name)), volume.name, v.tier.value, v.why, v.explicit)
        for volume, v in zip(volumes, verdicts, strict=True)
    ]
    data = {v.volume for v in verdicts if v.kind == "postgres"}
    services = {m.service for m in project.mounts if m.volume in data}
    return Found(project, Path(project.working_dir), tuple(sorted(rows, key=lambda r: r.key)), tuple(sorted(services)))


# -- propose -----------------------------------------------------------------------------------------------------------


def proposed(found: Found, tiers: Mapping[str, str], *, deploy: bool) -> tuple[Written, ...]:
    """The files that would change. tiers: compose key -> tier. Raises ConfigError for a settings file that does not read,
    Refused for one that cannot be added to without guessing."""
    made = [_settings(found, tiers), _ignored(found.folder)]
    if deploy:
        made.append(_deploy(found))
    return tuple(w for w in made if w is not None and w.before != w.after)


def _settings(found: Found, tiers: Mapping[str, str]) -> Written:
    path = found.folder / PROJECT_FILE
    before = _text(path)
    why = {r.key: r.why for r in found.rows}
    lines = {key: f'{_quoted(key)} = "{tier}"{" " * max(1, 24 - len(key) - len(tier))}# {why[key]}' for key, tier in tiers.items()}
    if before is None:
        head = f"# What safe-compose does before docker deletes a volume of {found.project.name}. Commit this file.\n"
        return Written(path, None, head + "\n[volumes]\n" + "".join(f"{line}\n" for line in lines.values()) + _RULES)
    return Written(path, before, with_volumes(before, tiers, lines, str(path)))


def with_volumes(text: str, tiers: Mapping[str, str], lines: Mapping[str, str], path: str) -> str:
    """TOML with lines added to its table `volumes` for the keys that it does not have; all else stays as it is.

    Raises ConfigError when it does not read, Refused when the outcome would not say exactly the old and the new.
    """
    bom, text = text[: text.startswith("\ufeff")], text.removeprefix("\ufeff")
    try:
        known = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}; nothing was written", next_step="correct it, then run setup again") from error
    told_of = known.get("volumes", {})
    new = {key: tier for key, tier in tiers.items() if isinstance(told_of, dict) and key not in told_of}
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
        f"{path}: its [volumes] is written in a way that cannot be added to without guessing; nothing was written",
        next_step=f"add by hand: {', '.join(lines[key].partition('#')[0].strip() for key in new)}",
    )


def _quoted(key: str) -> str:
    """A key of TOML: bare where it may be."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", key):
        return key
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" for c in key)
    return f'"{escaped}"'


def _ignored(folder: Path) -> Written | None:
    """`.gitignore` with a line for backups; None outside of a git repository."""
    if not any(os.path.lexists(above / ".git") for above in (folder, *folder.parents)):
        return None
    path = folder / ".gitignore"
    before = _text(path)
    lines = (before or "").splitlines()
    if {"/backups/", "backups/", "/backups", "backups"} & {line.strip() for line in lines}:
        return None
    gap = "" if not before or before.endswith("\n") else "\n"
    return Written(path, before, f"{before or ''}{gap}{_IGNORED}\n")


def _deploy(found: Found) -> Written | None:
    """A deploy job, where none of that name is there: one that is there is somebody's work."""
    path = found.folder / DEPLOY_FILE
    return None if os.path.lexists(path) else Written(path, None, deploy_job(found.databases))


def deploy_job(databases: Sequence[str]) -> str:
    """A job of GitHub Actions that backs up first, lets the databases follow a changed password, and deletes nothing."""
    follow = "".join(
        f'          if [ -n "$(docker compose ps --quiet {s})" ]; then safe-compose rotate-password {s} --sync --yes; fi\n'
        for s in databases
    )
    step = f"      - name: let the database follow a changed password\n        run: |\n{follow}" if databases else ""
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
      SAFE_COMPOSE_HOME: /var/lib/safe-compose  # outside of the workspace, which every checkout cleans
    steps:
      - uses: actions/checkout@v4
      - name: write .env
        env:
          DOTENV: ${{ secrets.DOTENV }}
        run: |
          if [ -z "$DOTENV" ]; then echo 'the secret DOTENV is empty; nothing was changed' >&2; exit 1; fi
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
    """The text of a file; None where there is none. Raises Refused for what is no text file."""
    if not os.path.lexists(path):
        return None
    found = edits.read(str(path))
    if found is None:
        raise Refused(f"{path} is there, but it is no text file that can be read; nothing was written")
    return found


# -- write -------------------------------------------------------------------------------------------------------------


def refuse_unless_possible(files: Sequence[Written]) -> None:
    """Raises Refused before the first file is touched when one of them cannot be written."""
    for file in files:
        if file.before is not None:
            _change(file).refuse_unless_possible()
        elif not os.access(_nearest(file.path.parent), os.W_OK | os.X_OK):
            raise Refused(f"{file.path} cannot be written; nothing was written", next_step="run setup as the folder's owner")


def apply(files: Sequence[Written]) -> None:
    """Write them, each in one step. Raises LookAgain when one was changed or made meanwhile, BackupFailed."""
    for file in files:
        if file.before is not None:
            _change(file).apply()
            continue
        above = _nearest(file.path.parent).stat()
        owner = (above.st_uid, above.st_gid) if os.geteuid() == 0 else None
        try:
            with told(f"write {file.path}"):
                file.path.parent.mkdir(parents=True, exist_ok=True)
                write(file.path, file.after.encode("utf-8", "surrogateescape"), Access(files=0o644, owner=owner))
                sync_folder(file.path.parent)
        except Exception as fault:
            if isinstance(fault.__cause__, FileExistsError):
                raise LookAgain(f"{file.path} was made by somebody else meanwhile; it was left as it is") from fault
            raise


def _change(file: Written) -> edits.Change:
    return edits.Change.of(str(file.path), file.before or "", file.after)


def _nearest(folder: Path) -> Path:
    return next(p for p in (folder, *folder.parents) if p.is_dir())


# -- tell --------------------------------------------------------------------------------------------------------------


def shape(found: Found, files: Sequence[Written], *, done: bool) -> dict[str, Any]:
    """As JSON."""
    return {
        "project": found.project.name,
        "folder": str(found.folder),
        "volumes": [{"key": r.key, "name": r.volume, "tier": r.tier, "why": r.why, "said": r.said} for r in found.rows],
        "files": [{"path": str(f.path), "diff": f.diff()} for f in files],
        "done": done,
    }


def next_steps(found: Found, *, scheduled: bool) -> Iterator[str]:
    """What a person may want to do after it."""
    if not scheduled and any(r.tier != Tier.DISPOSABLE.value for r in found.rows):
        yield "back it up every day: safe-compose schedule install (or: safe-compose schedule cron)"
    yield "see that all is in order: safe-compose doctor"
