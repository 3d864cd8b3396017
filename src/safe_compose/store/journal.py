"""The journal: one file per guarded command; each step is on disk before the command goes on."""

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from safe_compose.core.redaction import redact
from safe_compose.errors import OperationFailed
from safe_compose.system.files import (
    PRIVATE,
    Access,
    acting_as_owner,
    explain_error,
    make_folders,
    reporting,
    set_owner_of_open,
    sync_folder,
    write,
    write_all,
)
from safe_compose.system.process import Process, is_id, make_id, read_clock, stamp

# These classes take as long to make as all the rest that a confirmation imports from the store.
if TYPE_CHECKING:
    from safe_compose.store.run_record import RunRecord

_NUMBER = ".number"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The command of a run; the journal records it without secrets."""

    argv: Sequence[str] = ()
    program: str = "docker"
    docker_globals: Sequence[str] = ()
    compose_globals: Sequence[str] = ()


_NO_COMMAND = CommandLine()


class Run:
    """A run in progress."""

    def __init__(self, run_id: str, path: Path, clock: Callable[[], datetime]) -> None:
        """Write the steps of a run to the file at `path`."""
        self.id = run_id
        self.path = path
        self._clock = clock
        self._opened = time.monotonic()

    def step(self, name: str, **facts: object) -> None:
        """Write one step, synced.

        A line that could not be written completely is removed.

        Raises:
            OperationFailed: The step cannot be written.
        """
        t = round(time.monotonic() - self._opened, 3)
        line = _line({"step": name, "at": stamp(self._clock()), "t": t, **facts})
        with reporting(f"write the journal of run {self.id}"):
            descriptor = os.open(
                self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            )
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
    """The journal in the store at `root`.

    Reading works where there is none yet.
    """

    def __init__(
        self, root: Path, access: Access = PRIVATE, *, clock: Callable[[], datetime] = read_clock
    ) -> None:
        """Use the journal in the store at `root`."""
        self.folder = root / "journal"
        self._access = access
        self._clock = clock

    def new_id(self) -> str:
        """Return an id for a run, of the same form as a backup's."""
        return make_id(self._clock())

    def begin(
        self,
        run_id: str,
        command: CommandLine = _NO_COMMAND,
        *,
        project: str | None = None,
        cwd: str | None = None,
        endpoint: str = "",
        engine_id: str = "",
        **facts: object,
    ) -> Run:
        """Start the file of a run.

        Args:
            run_id: An id from `new_id`.
            command: The command that the run serves; secrets are redacted.
            project: Name of the compose project, if any.
            cwd: Default: the current folder.
            endpoint: Address of the engine.
            engine_id: Id of the engine.
            **facts: Further values of the first line.

        Raises:
            OperationFailed: The file cannot be written, or the id was used before.
        """
        from safe_compose.store.run_record import VERSION

        path = self.folder / f"{run_id}.jsonl"
        with reporting(f"begin the journal of run {run_id}"):
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
                "cwd": _find_folder() if cwd is None else cwd,
                "endpoint": endpoint,
                "engine_id": engine_id,
                "program": command.program,
                "argv": redact(command.argv),
                "docker_globals": redact(command.docker_globals),
                "compose_globals": redact(command.compose_globals),
                "project": project,
            }
            _create(path, _line(head), self._access)
        return Run(run_id, path, self._clock)

    def reopen(self, run_id: str) -> Run:
        """Reopen the file of a dead run, to record what was done about it.

        Raises:
            OperationFailed: The file cannot be opened.
        """
        path = self.folder / f"{run_id}.jsonl"
        with reporting(f"go on with the journal of run {run_id}"):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
                # the next line would be joined to a last line that was cut short
                os.ftruncate(descriptor, data.rfind(b"\n") + 1)
            finally:
                os.close(descriptor)
        return Run(run_id, path, self._clock)

    def runs(self) -> "list[RunRecord]":
        """Return every run, the newest first.

        A last line that was cut short is left out; other damage is described in `damaged`.

        Raises:
            OperationFailed: The journal cannot be listed.
        """
        try:
            with os.scandir(self.folder) as entries:
                files = [
                    Path(e.path)
                    for e in entries
                    if e.name.endswith(".jsonl") and not e.name.startswith(".")
                ]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise OperationFailed(
                f"cannot list the journal {self.folder}: {explain_error(error)}"
            ) from error
        if not files:
            return []
        from safe_compose.store.run_record import read

        return sorted((read(path) for path in files), key=lambda r: (r.seq, r.id), reverse=True)

    def find(self, run_id: str) -> "RunRecord | None":
        """Return the run with an id, or None."""
        from safe_compose.store.run_record import read

        path = self.folder / f"{run_id}.jsonl"
        return read(path) if is_id(run_id) and path.is_file() else None

    def list_unfinished(self) -> "list[RunRecord]":
        """Return runs that did not end and whose process is certainly dead, the newest first."""
        open_runs = [r for r in self.runs() if is_id(r.id) and r.last("ended") is None]
        return [r for r in open_runs if (process := r.process) is not None and process.is_dead()]

    def volumes_made(self, engine_id: str) -> frozenset[str]:
        """Return the volumes that runs of this store created on an engine for a restore."""
        if not (runs := self.runs()):
            return frozenset()
        from safe_compose.store.steps import RestoringVolume

        begun = (
            step
            for run in runs
            if run.engine_id == engine_id
            for step in run.every(RestoringVolume)
        )
        return frozenset(step.volume for step in begun if not step.existed)

    def find_earlier_losses(
        self, engine_id: str, names: Collection[str], but: str
    ) -> "dict[str, RunRecord]":
        """Return volume -> the newest run whose docker took a part of it.

        Of `names`, only volumes count that were neither restored nor deleted as a whole since.

        Args:
            engine_id: Id of the engine.
            names: Names of volumes.
            but: The id of the current run, or of the run in question; only older runs count.
        """
        if not (runs := self.runs()):
            return {}
        from safe_compose.store.steps import Ran, VolumeRestored

        found: dict[str, RunRecord] = {}
        resolved: set[str] = set()
        since = next((run.seq for run in runs if run.id == but), None)
        for run in runs:
            if (
                run.id == but
                or run.engine_id != engine_id
                or (since is not None and run.seq > since)
            ):
                continue
            ran = run.newest(Ran)
            for name in (ran.parts & set(names) if ran is not None else set()) - resolved:
                found.setdefault(name, run)
            if run.restored:
                resolved |= {step.volume for step in run.every(VolumeRestored)} - found.keys()
            resolved |= (
                (ran.gone or frozenset()) if ran is not None else frozenset()
            ) - found.keys()
        return found

    def last_deletion(
        self, project: str | None = None, cwd: str | None = None, endpoint: str | None = None
    ) -> "RunRecord | None":
        """Return the newest run that deleted volumes and that no later run undid, or None.

        A filter that is None is not applied; `cwd` also matches the project's own folder. A
        deletion without a backup (`RunRecord.backup` is None) is returned too: undoing an older one
        instead would restore the wrong data.
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
        """Return the next number of a run.

        Unlike the clock, it never goes backwards.

        Raises:
            OSError: The number cannot be written.
        """
        with _locking(self.folder / _NUMBER, self._access) as descriptor:
            text = os.pread(descriptor, 32, 0)
            number = (
                int(text) if text.isdigit() else 1 + max((r.seq for r in self.runs()), default=0)
            )
            following = str(number + 1).encode("ascii")
            os.pwrite(descriptor, following, 0)
            os.ftruncate(descriptor, len(following))
            os.fsync(descriptor)
        return number


@contextmanager
def _locking(path: Path, access: Access) -> Iterator[int]:
    with acting_as_owner(access):
        descriptor = os.open(
            path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, access.files & 0o600
        )
    try:
        set_owner_of_open(descriptor, access, folder=False)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # held only briefly, so the wait is short
        yield descriptor
    finally:
        os.close(descriptor)


def _create(path: Path, line: bytes, access: Access) -> None:
    """Create the file of a run with its first line, synced.

    Raises:
        OSError: It exists, or cannot be written.
    """
    try:
        write(path, line, access)
    except FileExistsError:
        raise
    except OSError:
        # half of a first line would be a damaged run; report the first error
        with suppress(OSError):
            path.unlink()
        raise
    sync_folder(path.parent)


def _find_folder() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return ""  # the current folder was removed


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
