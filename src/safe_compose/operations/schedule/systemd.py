"""systemd units of a scheduled backup, installed and removed; also as lines for a crontab."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from safe_compose.core.slug import slug
from safe_compose.core.text import make_visible
from safe_compose.errors import Refused, UsageError
from safe_compose.system import children
from safe_compose.system import files as system_files
from safe_compose.system.files import Access

MARK = "# Written by `safe-compose schedule install`; `safe-compose schedule remove` takes it away."
_SECONDS = 60
_LONGEST_CRON = 900
"""The longest command in bytes: cron takes 998 of a line (cron.h, MAX_COMMAND is 1000)."""
_NEXT_RUN = re.compile(r"\w+ (\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2}) UTC", re.ASCII)
"""A time as systemctl prints it in UTC: `Thu 2026-11-26 03:00:00 UTC`."""


class Job(NamedTuple):
    """A command that is to run every day."""

    project: str
    folder: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    at: tuple[str, ...]
    """The times as `HH:MM`, in local time."""

    @property
    def name(self) -> str:
        """The name of its units, without the suffix."""
        return make_unit_name(self.project)


def make_unit_name(project: str) -> str:
    """Return the name of a project's units, without the suffix."""
    return f"safe-compose-{slug(project)}"


def make_units(job: Job) -> dict[str, str]:
    """Return the names and texts of the two unit files.

    Raises:
        UsageError: A unit cannot hold a path or value.
    """
    _refuse_what_a_line_cannot_hold(job, "a unit")
    # Without quotes, a backslash at the end joins the next line.
    for text in (job.folder, job.project):
        if text != text.strip() or text.endswith("\\"):
            raise UsageError(
                f"a unit cannot hold {text!r}; nothing was written",
                next_step="safe-compose schedule cron",
            )
    environment = "".join(
        f'Environment="{_escape(f"{name}={value}")}"\n' for name, value in job.environ.items()
    )
    command = " ".join(f'"{_escape(word).replace("$", "$$")}"' for word in job.argv)
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


def _escape(text: str) -> str:
    return _percent(text.replace("\\", "\\\\").replace('"', '\\"'))


def make_cron_lines(job: Job) -> list[str]:
    r"""Return lines for `crontab -e`.

    A `%` there is a line end unless a backslash precedes it.

    >>> job = Job("x", "/srv/a b", ("safe-compose", "schedule"), {"A": "1%"}, ("03:05",))
    >>> make_cron_lines(job)
    ["5 3 * * * cd '/srv/a b' && A=1\\% safe-compose schedule"]

    Raises:
        UsageError: A line cannot hold the command.
    """
    _refuse_what_a_line_cannot_hold(job, "a line of a crontab")
    words = [
        *(f"{name}={_cron_word(value)}" for name, value in job.environ.items()),
        *map(_cron_word, job.argv),
    ]
    line = f"cd {_cron_word(job.folder)} && {' '.join(words)}"
    if len(os.fsencode(line)) > _LONGEST_CRON:
        raise UsageError(
            f"a line of a crontab holds {_LONGEST_CRON} bytes; nothing was printed",
            next_step="safe-compose schedule install",
        )
    return [f"{int(at[3:])} {int(at[:2])} * * * {line}" for at in job.at]


def _cron_word(word: str) -> str:
    """Return a word for the shell that cron runs.

    Crons differ in how they read two backslashes, and one before a percent sign; neither occurs in
    the result.
    """
    return shlex.quote(word).replace("\\", "\\''").replace("%", "\\%")


def _refuse_what_a_line_cannot_hold(job: Job, where: str) -> None:
    """Refuse control characters and invisible ones: a person reads the line before using it.

    Raises:
        UsageError: The job contains one.
    """
    for text in (job.folder, job.project, *job.argv, *job.environ.values(), *job.environ):
        if make_visible(text, len(text)) != text:
            raise UsageError(
                f"{where} cannot hold {text!r}; nothing was written",
                next_step="give the folder another name",
            )


def parse_times(texts: Sequence[str]) -> tuple[str, ...]:
    """Return `3:00` and `15:30` as `HH:MM`, sorted and without duplicates.

    Raises:
        UsageError: A text is not a time of day.
    """
    found = set()
    for text in texts:
        match = re.fullmatch(r"(\d{1,2}):(\d{2})", text.strip(), re.ASCII)
        if match is None or int(match[1]) > 23 or int(match[2]) > 59:
            raise UsageError(f"--at takes a time of day such as 03:00, not {text!r}")
        found.add(f"{int(match[1]):02}:{match[2]}")
    return tuple(sorted(found))


def find_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder for units: the system's for root, otherwise the user's."""
    if os.geteuid() == 0:
        return Path("/etc/systemd/system")
    base = environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "systemd" / "user"


def _systemctl(*words: str) -> "subprocess.CompletedProcess[bytes]":
    """Run systemctl.

    Raises:
        Refused: There is no systemctl, or it does not answer.
    """
    program = shutil.which("systemctl")
    if program is None:
        raise Refused(
            "there is no systemctl on PATH; nothing was written",
            next_step="safe-compose schedule cron",
        )
    argv = [program, *([] if os.geteuid() == 0 else ["--user"]), "--no-pager", *words]
    try:
        return children.run(
            argv, seconds=_SECONDS, largest=1 << 20, environ={**os.environ, "TZ": "UTC"}
        )
    except (OSError, subprocess.TimeoutExpired, children.TooMuch) as fault:
        raise Refused(
            f"systemctl does not answer ({type(fault).__name__})",
            next_step="safe-compose schedule cron",
        ) from fault


def check_listens() -> None:
    """Check that systemd would run a timer.

    Raises:
        Refused: It would not.
    """
    asked = _systemctl("show", "--property=Version", "--value")
    if asked.returncode != 0 or not asked.stdout.strip():
        answer = _text(asked.stderr).partition("\n")[0] or "it does not run"
        raise Refused(
            f"no systemd would run a timer here ({answer}); nothing was written",
            next_step="safe-compose schedule cron",
        )


def install(files: Mapping[str, str], into: Path) -> None:
    """Write units and start the timer; if systemd rejects them, restore what was there.

    Raises:
        Refused: They cannot be installed; nothing has changed.
    """
    before: dict[Path, bytes | None] = {}
    try:
        system_files.make_folders(into, Access(folders=0o755))
        for name, text in files.items():
            path = into / name
            before[path] = _read_own_unit(path)
            system_files.replace(path, text.encode(), Access(files=0o644))
        timer = next(name for name in files if name.endswith(".timer"))
        for words in (("daemon-reload",), ("enable", "--now", timer), ("restart", timer)):
            done = _systemctl(*words)
            if done.returncode != 0:
                raise Refused(
                    f"systemctl {' '.join(words)}: {_text(done.stderr) or done.returncode}; nothing"
                    " was changed"
                )
    except (OSError, Refused) as fault:
        for path, data in before.items():
            if data is None:
                path.unlink(missing_ok=True)
            else:
                system_files.replace(path, data, Access(files=0o644))
        if before:
            _systemctl("daemon-reload")
        if isinstance(fault, Refused):
            raise
        raise Refused(
            f"cannot write {into}: {system_files.explain_error(fault)}; nothing was changed"
        ) from fault


def _read_own_unit(path: Path) -> bytes | None:
    """Return the content of a unit of ours; None when there is no file.

    Raises:
        Refused: The file is not ours.
    """
    if not os.path.lexists(path):
        return None
    try:
        data = system_files.read_regular(path)
    except OSError as fault:
        raise Refused(
            f"{path} is in the way ({system_files.explain_error(fault)}); nothing was changed"
        ) from fault
    if not data.startswith(MARK.encode()):
        raise Refused(
            f"{path} was not written by safe-compose; it was left alone",
            next_step=f"rm {shlex.quote(str(path))}",
        )
    return data


def remove(names: Sequence[str], at: Path) -> list[str]:
    """Stop the timer, delete our units, and return what was deleted.

    Raises:
        Refused: A file is not ours.
    """
    there = [at / name for name in names if _read_own_unit(at / name) is not None]
    if there:
        _systemctl("disable", "--now", next(name for name in names if name.endswith(".timer")))
        try:
            for path in there:
                path.unlink()
        except OSError as fault:
            raise Refused(
                f"cannot delete {there[0]}: {system_files.explain_error(fault)}"
            ) from fault
        _systemctl("daemon-reload")
    return [str(path) for path in there]


def read_next_run(name: str) -> str | None:
    """Return when systemd will next start a timer, as `stamp` writes it; None for unknown."""
    try:
        asked = _systemctl("show", f"{name}.timer", "--property=NextElapseUSecRealtime", "--value")
    except Refused:
        return None
    found = _NEXT_RUN.fullmatch(_text(asked.stdout))
    return f"{found[1]}T{found[2]}Z" if found else None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").strip()
