"""The texts that the files of a project should have. A second run changes nothing."""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from safe_compose.errors import ConfigError, Refused
from safe_compose.operations.setup.files import SetupFile, read_text
from safe_compose.operations.setup.inspect import SetupFindings
from safe_compose.settings.load import PROJECT_FILE

DEPLOY_FILE = ".github/workflows/deploy.yml"
_IGNORED = "/backups/"
"""A folder where a project's store may be, and where people put dumps made by hand."""
_RULES = """
[retention]            # what `safe-compose forget` leaves; nothing is forgotten by itself
keep_daily = 7
keep_weekly = 4
keep_monthly = 6
"""


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
    before = read_text(path)
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
    before = read_text(path)
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
