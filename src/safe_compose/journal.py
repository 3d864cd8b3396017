"""What was done, step by step: one file per guarded command, on disk before the step it tells of goes on."""

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from safe_compose.artifacts import redact
from safe_compose.durable import PRIVATE, Access, cause, make_folders, own_open, sync_folder, told, write, write_all
from safe_compose.errors import BackupFailed
from safe_compose.process import Process, new_id, stamp, utc_now

VERSION = 1
_NUMBER = ".number"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as its file tells it."""

    id: str
    seq: int = 0
    """Orders runs; 0 when the file's first line is damaged."""
    started: str = ""
    program: str = "docker"
    command: tuple[str, ...] = ()
    """docker's argv without secrets: to be shown, not to be run again."""
    docker_globals: tuple[str, ...] = ()
    compose_globals: tuple[str, ...] = ()
    project: str | None = None
    cwd: str = ""
    endpoint: str = ""
    engine_id: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The whole first line."""
    steps: tuple[Mapping[str, Any], ...] = ()
    """Each with `step`, `at`, `t` (seconds since its process took the run up) and its own facts."""
    damaged: str | None = None
    """What of the file does not read, apart from a last line that a crash cut short."""

    def last(self, name: str) -> Mapping[str, Any] | None:
        """The last step of that name."""
        return next((s for s in reversed(self.steps) if s["step"] == name), None)

    @property
    def outcome(self) -> str:
        ended = self.last("ended")
        return str(ended.get("outcome", "ended")) if ended is not None else "did not end"

    @property
    def backup(self) -> str | None:
        """The id of the backup that was made first, if one was."""
        named = [s["backup"] for s in self.steps if s["step"] in ("backed-up", "running") and s.get("backup")]
        return str(named[-1]) if named else None

    @property
    def deleted(self) -> bool:
        """docker ran and something is gone, or we died while it ran and nobody knows."""
        ran = self.last("ran")
        return self.last("running") is not None and (ran is None or bool(ran.get("gone", True)))

    @property
    def restored(self) -> bool:
        """All that it had to put back is back, whatever came after that."""
        return (self.last("restored") or self.last("undid")) is not None

    @property
    def half(self) -> dict[str, Mapping[str, Any]]:
        """Volume -> the step with which content began to be put into it, of all that were neither settled nor taken back."""
        if self.restored:
            return {}
        begun = {str(step["volume"]): step for step in self.steps if step["step"] == "putting-back"}
        rolled_back = {str(step["volume"]) for step in self.steps if step["step"] == "rolled-back"}
        return {volume: step for volume, step in begun.items() if volume not in rolled_back}

    @property
    def undid(self) -> str | None:
        """The run that this one undid."""
        step = self.last("undid")
        return str(step["run"]) if step is not None and step.get("run") else None

    @property
    def process(self) -> Process | None:
        found = self.facts.get("process")
        return Process.read(found) if isinstance(found, dict) else None


class Run:
    """The run that is going on."""

    def __init__(self, run_id: str, path: Path, clock: Callable[[], datetime]) -> None:
        self.id = run_id
        self.path = path
        self._clock = clock
        self._taken_up = time.monotonic()

    def step(self, name: str, **facts: object) -> None:
        """Write one step down, synced. Raises BackupFailed; a line that did not fit is taken back."""
        t = round(time.monotonic() - self._taken_up, 3)
        line = _line({"step": name, "at": stamp(self._clock()), "t": t, **facts})
        with told(f"write the journal of run {self.id}"):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                before = os.fstat(descriptor).st_size
                try:
                    write_all(descriptor, line)
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, before)
                    raise
            finally:
                os.close(descriptor)


class Journal:
    """The journal in the store at `root`. Reading works where there is none yet."""

    def __init__(self, root: Path, access: Access = PRIVATE, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.folder = root / "journal"
        self._access = access
        self._clock = clock

    def new_id(self) -> str:
        """An id for a run, of the same form as a backup's."""
        return new_id(self._clock())

    def begin(
        self,
        run_id: str,
        *,
        command: Sequence[str] = (),
        program: str = "docker",
        docker_globals: Sequence[str] = (),
        compose_globals: Sequence[str] = (),
        project: str | None = None,
        cwd: str | None = None,
        endpoint: str = "",
        engine_id: str = "",
        **facts: object,
    ) -> Run:
        """Start the file of a run. cwd: default where we are. Raises BackupFailed, also when the id was used before."""
        path = self.folder / f"{run_id}.jsonl"
        with told(f"begin the journal of run {run_id}"):
            make_folders(self.folder, self._access)
            head = {
                **facts,
                "version": VERSION,
                "run": run_id,
                "seq": self._next(),
                "started": stamp(self._clock()),
                "process": Process.current().facts(),
                "uid": os.getuid(),
                "tty": sys.stderr is not None and sys.stderr.isatty(),
                "cwd": _here() if cwd is None else cwd,
                "endpoint": endpoint,
                "engine_id": engine_id,
                "program": program,
                "argv": redact(command),
                "docker_globals": redact(docker_globals),
                "compose_globals": redact(compose_globals),
                "project": project,
            }
            line = _line(head)
            try:
                write(path, line, self._access)
            except FileExistsError:
                raise
            except OSError:
                with suppress(OSError):  # half of a first line would be a damaged run; the first fault is the one to tell
                    path.unlink()
                raise
            sync_folder(self.folder)
        return Run(run_id, path, self._clock)

    def reopen(self, run_id: str) -> Run:
        """Go on with the file of a dead run, to write down what was done about it. Raises BackupFailed."""
        path = self.folder / f"{run_id}.jsonl"
        with told(f"go on with the journal of run {run_id}"):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
                os.ftruncate(descriptor, data.rfind(b"\n") + 1)  # a last line cut short would swallow the next one
            finally:
                os.close(descriptor)
        return Run(run_id, path, self._clock)

    def runs(self) -> list[RunRecord]:
        """Every run, the newest first. A last line that was cut short is left out; other damage is told in `damaged`."""
        try:
            with os.scandir(self.folder) as entries:
                files = [Path(e.path) for e in entries if e.name.endswith(".jsonl") and not e.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise BackupFailed(f"cannot list the journal {self.folder}: {cause(error)}") from error
        return sorted((_read(path) for path in files), key=lambda r: (r.seq, r.id), reverse=True)

    def find(self, run_id: str) -> RunRecord | None:
        """One run by its id."""
        path = self.folder / f"{run_id}.jsonl"
        return _read(path) if path.parent == self.folder and path.is_file() else None

    def unfinished(self) -> list[RunRecord]:
        """Runs that did not come to their end and whose process is certainly dead, the newest first."""
        open_runs = [r for r in self.runs() if r.last("ended") is None]
        return [r for r in open_runs if (process := r.process) is not None and process.is_dead()]

    def last_deletion(self, project: str | None = None, cwd: str | None = None, endpoint: str | None = None) -> RunRecord | None:
        """The newest run after which volumes are gone and that no later run undid.

        What is None is not asked for; cwd also matches the project's own folder. A deletion without a backup
        (`RunRecord.backup` is None) is returned too: to undo an older one instead would bring back the wrong data.
        """
        undone: set[str] = set()
        for run in self.runs():
            if run.undid is not None:
                undone.add(run.undid)
            fits = (
                (project is None or run.project == project)
                and (cwd is None or cwd in (run.cwd, run.facts.get("working_dir")))
                and (endpoint is None or run.endpoint == endpoint)
            )
            if fits and run.deleted and run.id not in undone:
                return run
        return None

    def _next(self) -> int:
        """The next number of a run: the clock may step back, this does not. Raises OSError."""
        with _locked(self.folder / _NUMBER, self._access) as descriptor:
            text = os.pread(descriptor, 32, 0)
            number = int(text) if text.isdigit() else 1 + max((r.seq for r in self.runs()), default=0)
            following = str(number + 1).encode("ascii")
            os.pwrite(descriptor, following, 0)
            os.ftruncate(descriptor, len(following))
            os.fsync(descriptor)
        return number


@contextmanager
def _locked(path: Path, access: Access) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, access.files & 0o600)
    try:
        own_open(descriptor, access, folder=False)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # held for a moment only, so waiting for it cannot take long
        yield descriptor
    finally:
        os.close(descriptor)


def _here() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return ""  # the folder we were started in is gone


def _line(shape: Mapping[str, object]) -> bytes:
    return (json.dumps(shape, default=_plain, sort_keys=True) + "\n").encode("ascii")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a journal holds no {type(value).__name__}")


def _read(path: Path) -> RunRecord:
    """One file; never raises for what is in it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return RunRecord(path.stem, damaged=f"cannot be read: {cause(error)}")
    lines = data.split(b"\n")[:-1]  # what follows the last line end was cut short by a crash
    shapes = [_shape(line) for line in lines]
    head = shapes[0] if shapes else None
    steps = tuple(s for s in shapes[1:] if s is not None and isinstance(s.get("step"), str))
    if head is None or head.get("version") != VERSION or not isinstance(head.get("seq"), int):
        return RunRecord(path.stem, steps=steps, damaged="its first line does not read")
    return RunRecord(
        id=path.stem,
        seq=head["seq"],
        started=str(head.get("started", "")),
        program=str(head.get("program", "docker")),
        command=_words(head.get("argv")),
        docker_globals=_words(head.get("docker_globals")),
        compose_globals=_words(head.get("compose_globals")),
        project=head["project"] if isinstance(head.get("project"), str) else None,
        cwd=str(head.get("cwd", "")),
        endpoint=str(head.get("endpoint", "")),
        engine_id=str(head.get("engine_id", "")),
        facts=head,
        steps=steps,
        damaged=None if len(steps) == len(shapes) - 1 else "a line does not read",
    )


def _shape(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _words(value: object) -> tuple[str, ...]:
    return tuple(str(word) for word in value) if isinstance(value, list) else ()
