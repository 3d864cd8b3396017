"""The texts that the files of a project should have. A second run changes nothing."""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from safe_compose.core.text import make_visible
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
    made = [_settings(found, tiers), _propose_gitignore(found.folder, found.exposed)]
    if deploy:
        made.append(_deploy(found))
    return tuple(w for w in made if w is not None and w.before != w.after)


def _settings(found: SetupFindings, tiers: Mapping[str, str]) -> SetupFile:
    path = found.folder / PROJECT_FILE
    before = read_text(path)
    rows = [r for r in found.rows if r.key in tiers]
    volumes = {r.key: tiers[r.key] for r in rows if r.location == "volume"}
    # what a pattern says needs no line
    folders = {r.key: tiers[r.key] for r in rows if r.location == "folder" and not r.said}
    lines = {
        r.key: _write_line(
            make_literal(r.key) if r.location == "folder" else r.key, tiers[r.key], r.why
        )
        for r in rows
    }
    if before is None:
        head = (
            f"# What safe-compose does before docker deletes a volume of {found.project.name}."
            " Commit this file.\n"
        )
        tables = "".join(
            f"\n[{table}]\n" + "".join(f"{lines[key]}\n" for key in keys)
            for table, keys in (("volumes", volumes), ("folders", folders))
            if keys or table == "volumes"
        )
        return SetupFile(path, None, head + tables + _RULES)
    after = add_rows(before, "volumes", volumes, lines, str(path))
    of_folders = {make_literal(key): tier for key, tier in folders.items()}
    shown = {make_literal(key): lines[key] for key in folders}
    return SetupFile(path, before, add_rows(after, "folders", of_folders, shown, str(path)))


def _write_line(key: str, tier: str, why: str) -> str:
    name = _quote(key)
    return f'{name} = "{tier}"{" " * max(1, 24 - len(name) - len(tier))}# {make_visible(why)}'


def make_literal(path: str) -> str:
    """Return the pattern that fits a path alone.

    >>> make_literal("./up [1]")
    './up [[]1]'
    """
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def add_rows(
    text: str, table: str, tiers: Mapping[str, str], lines: Mapping[str, str], path: str
) -> str:
    """Return a TOML text with lines added to one of its tables for the keys that it lacks.

    Everything else in the text stays as it is.

    Args:
        text: The text.
        table: The table's name, such as `volumes`.
        tiers: Key -> tier.
        lines: Key -> the line to add for it.
        path: The path of the file, for messages.

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
    told_of = known.get(table, {})
    new = {
        key: tier for key, tier in tiers.items() if isinstance(told_of, dict) and key not in told_of
    }
    if not new:
        return bom + text
    added = "".join(f"{lines[key]}\n" for key in new)
    header = re.search(rf"^\[{table}\][ \t]*(#.*)?\r?\n", text, re.MULTILINE)
    if header is not None:
        after = text[: header.end()] + added + text[header.end() :]
    else:
        after = text + ("" if text.endswith("\n") or not text else "\n") + f"\n[{table}]\n{added}"
    wanted = {**known, table: {**told_of, **new}}
    with suppress(tomllib.TOMLDecodeError):
        if tomllib.loads(after) == wanted:
            return bom + after
    raise Refused(
        f"{path}: its [{table}] is written in a way that cannot be added to without guessing;"
        " nothing was written",
        next_step=f"add by hand: {', '.join(lines[key].partition('#')[0].strip() for key in new)}",
    )


def _quote(key: str) -> str:
    """Return a TOML key, bare where that is allowed."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", key):
        return key
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" for c in key)
    return f'"{escaped}"'


def _propose_gitignore(folder: Path, exposed: Sequence[str]) -> SetupFile | None:
    """Return `.gitignore` with a line for backups, and one for each folder with data.

    Returns:
        The file; None outside of a git repository, or when it has such lines.
    """
    if not any(os.path.lexists(above / ".git") for above in (folder, *folder.parents)):
        return None
    path = folder / ".gitignore"
    before = read_text(path)
    lines = {line.strip() for line in (before or "").splitlines()}
    wanted = [] if {"/backups/", "backups/", "/backups", "backups"} & lines else [_IGNORED]
    wanted += [f"/{_escape(one)}/" for one in exposed if one.isprintable()]
    if not wanted:
        return None
    gap = "" if not before or before.endswith("\n") else "\n"
    return SetupFile(path, before, f"{before or ''}{gap}" + "".join(f"{w}\n" for w in wanted))


def _escape(path: str) -> str:
    """Return a path as a pattern of git, which fits it alone (gitignore(5))."""
    return re.sub(r"([\\*?\[])", r"\\\1", path)


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
