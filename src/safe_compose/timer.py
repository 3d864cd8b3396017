"""systemd: the units of a scheduled backup, put in place and taken away; and the same as lines for a crontab."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from safe_compose import durable
from safe_compose.artifacts import slug
from safe_compose.durable import Access
from safe_compose.errors import Refused, UsageError

MARK = "# Written by `safe-compose schedule install`; `safe-compose schedule remove` takes it away."
_SECONDS = 60


class Job(NamedTuple):
    """What is to run each day."""

    project: str
    folder: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    at: tuple[str, ...]
    """`HH:MM`, local time."""

    @property
    def name(self) -> str:
        return unit_name(self.project)


def unit_name(project: str) -> str:
    """Of a project's units, without their ending."""
    return f"safe-compose-{slug(project)}"


def units(job: Job) -> dict[str, str]:
    """The two unit files, by name. Raises UsageError for a path or value that a unit cannot hold."""
    for text in (job.folder, job.project, *job.argv, *job.environ.values(), *job.environ):
        if not text.isprintable() or text != text.strip():
            raise UsageError(f"a unit cannot hold {text!r}; nothing was written", next_step="safe-compose schedule cron")
    environment = "".join(f'Environment="{_escaped(f"{name}={value}")}"\n' for name, value in job.environ.items())
    command = " ".join(f'"{_escaped(word).replace("$", "$$")}"' for word in job.argv)
    title = _percent(job.project)
    service = f"""\
{MARK}
[Unit]
Description=safe-compose: backup of the project {title}

[Service]
Type=oneshot
WorkingDirectory={_percent(job.folder)}
{environment}ExecStart={command}
Nice=10
"""
    timer = f"""\
{MARK}
[Unit]
Description=safe-compose: when the project {title} is backed up

[Timer]
{"".join(f"OnCalendar=*-*-* {at}:00{chr(10)}" for at in job.at)}RandomizedDelaySec=5min
Persistent=true

[Install]
WantedBy=timers.target
"""
    return {f"{job.name}.service": service, f"{job.name}.timer": timer}


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _escaped(text: str) -> str:
    return _percent(text.replace("\\", "\\\\").replace('"', '\\"'))


def cron_lines(job: Job) -> list[str]:
    """Lines for `crontab -e`. A `%` there is a line end unless a backslash stands before it.

    >>> cron_lines(Job("x", "/srv/a b", ("safe-compose", "schedule", "run"), {"A": "1%"}, ("03:05",)))
    ["5 3 * * * cd '/srv/a b' && A='1\\\\%' safe-compose schedule run"]
    """
    words = [*(f"{name}={shlex.quote(value)}" for name, value in job.environ.items()), *map(shlex.quote, job.argv)]
    line = f"cd {shlex.quote(job.folder)} && {' '.join(words)}".replace("%", "\\%")
    return [f"{int(at[3:])} {int(at[:2])} * * * {line}" for at in job.at]


def times(texts: Sequence[str]) -> tuple[str, ...]:
    """`3:00` and `15:30` as `HH:MM`, in order, each once. Raises UsageError."""
    found = set()
    for text in texts:
        match = re.fullmatch(r"(\d{1,2}):(\d{2})", text.strip(), re.ASCII)
        if match is None or int(match[1]) > 23 or int(match[2]) > 59:
            raise UsageError(f"--at takes a time of day such as 03:00, not {text!r}")
        found.add(f"{int(match[1]):02}:{match[2]}")
    return tuple(sorted(found))


def folder(environ: Mapping[str, str]) -> Path:
    """Where units go: the system's for root, else the user's."""
    if os.geteuid() == 0:
        return Path("/etc/systemd/system")
    base = environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "systemd" / "user"


def _systemctl(*words: str) -> "subprocess.CompletedProcess[str]":
    """Raises Refused where there is no systemd that would listen."""
    program = shutil.which("systemctl")
    if program is None:
        raise Refused("there is no systemctl on PATH; nothing was written", next_step="safe-compose schedule cron")
    argv = [program, *([] if os.geteuid() == 0 else ["--user"]), "--no-pager", *words]
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise Refused(f"systemctl does not answer ({type(fault).__name__})", next_step="safe-compose schedule cron") from fault


def check_listens() -> None:
    """Raises Refused where no systemd would run a timer."""
    asked = _systemctl("show", "--property=Version", "--value")
    if asked.returncode != 0 or not asked.stdout.strip():
        said = asked.stderr.strip().partition("\n")[0] or "it does not run"
        raise Refused(f"no systemd would run a timer here ({said}); nothing was written", next_step="safe-compose schedule cron")


def install(files: Mapping[str, str], into: Path) -> None:
    """Write units and start the timer; what was there is put back when systemd does not take them.

    Raises Refused: then nothing has changed.
    """
    before: dict[Path, bytes | None] = {}
    try:
        durable.make_folders(into, Access(folders=0o755))
        for name, text in files.items():
            path = into / name
            before[path] = _ours(path)
            durable.replace(path, text.encode(), Access(files=0o644))
        timer = next(name for name in files if name.endswith(".timer"))
        for words in (("daemon-reload",), ("enable", "--now", timer), ("restart", timer)):
            done = _systemctl(*words)
            if done.returncode != 0:
                raise Refused(f"systemctl {' '.join(words)}: {done.stderr.strip() or done.returncode}; nothing was changed")
    except (OSError, Refused) as fault:
        for path, data in before.items():
            if data is None:
                path.unlink(missing_ok=True)
            else:
                durable.replace(path, data, Access(files=0o644))
        if before:
            _systemctl("daemon-reload")
        if isinstance(fault, Refused):
            raise
        raise Refused(f"cannot write {into}: {durable.cause(fault)}; nothing was changed") from fault


def _ours(path: Path) -> bytes | None:
    """What stands in the place of a unit of ours; None for nothing. Raises Refused for somebody else's file."""
    if not os.path.lexists(path):
        return None
    try:
        data = durable.read_regular(path)
    except OSError as fault:
        raise Refused(f"{path} is in the way ({durable.cause(fault)}); nothing was changed") from fault
    if not data.startswith(MARK.encode()):
        raise Refused(f"{path} was not written by safe-compose; it was left alone", next_step=f"rm {shlex.quote(str(path))}")
    return data


def remove(names: Sequence[str], at: Path) -> list[str]:
    """Stop the timer and delete our units. Returns what was deleted; raises Refused for a file that is not ours."""
    there = [at / name for name in names if _ours(at / name) is not None]
    if there:
        _systemctl("disable", "--now", next(name for name in names if name.endswith(".timer")))
        try:
            for path in there:
                path.unlink()
        except OSError as fault:
            raise Refused(f"cannot delete {there[0]}: {durable.cause(fault)}") from fault
        _systemctl("daemon-reload")
    return [str(path) for path in there]


def next_run(name: str) -> str | None:
    """When systemd will start a timer next, in its own words; None where it does not know it."""
    try:
        asked = _systemctl("show", f"{name}.timer", "--property=NextElapseUSecRealtime", "--value")
    except Refused:
        return None
    return asked.stdout.strip() or None
