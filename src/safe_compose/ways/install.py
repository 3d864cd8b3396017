"""Putting the ways in place and taking them away: every change is shown first, remembered, and undone byte for byte.

What is written stands in a record below `$XDG_STATE_HOME/safe-compose` before it is written, so that a crash in between
leaves nothing that `uninstall` does not know. What somebody edited since is never removed: it is named, and stays.
"""

import base64
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safe_compose import durable, shim
from safe_compose.durable import Access
from safe_compose.errors import Refused, UsageError
from safe_compose.ways import native, texts

KINDS = ("shims", "plugin", "rc")
PLUGIN_NAME = "docker-compose"
LONGEST_FIRST_LINE = 120
"""Bytes of an interpreter's path: a `#!` line is cut at 127 by kernels before 5.1."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is written."""

    way: str
    """Which of KINDS it belongs to."""
    how: str
    """`file`: a whole file of ours. `head`, `tail`: a block of lines in somebody's file. `link`: a symbolic link. `aside`: a
    file that is renamed."""
    path: str
    text: str
    """The file, the lines, where the link leads, or the new path."""
    name: str = ""
    """Of a block, in its first and last line."""
    mode: int = 0o644
    created: bool = False
    """The file was not there before."""
    folders: tuple[str, ...] = ()
    """Folders that were not there before, outermost first."""
    packed: bool = False
    """The file is a native program, and `text` the base64 of what zlib makes of it."""

    @property
    def content(self) -> bytes:
        """What stands in a whole file. Raises ValueError and zlib.error when a packed one does not read."""
        if self.packed:
            return zlib.decompress(base64.b64decode(self.text, validate=True))
        return self.text.encode("utf-8", "surrogateescape")

    @property
    def shown(self) -> str:
        """What a person is shown of it."""
        return f"(a native program of {len(self.content)} bytes, compiled from {native.SOURCE})" if self.packed else self.text


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are, for one user and one environment."""

    home: Path
    environ: Mapping[str, str]

    @classmethod
    def here(cls) -> "Places":
        return cls(Path.home(), dict(os.environ))

    def _xdg(self, name: str, default: str) -> Path:
        given = self.environ.get(name, "")
        return Path(given) if given.startswith("/") else self.home / default

    @property
    def shims(self) -> Path:
        """A folder of its own beside the store, so that nothing else ever stands on PATH with it."""
        return self._xdg("XDG_DATA_HOME", ".local/share") / "safe-compose-shims"

    @property
    def record(self) -> Path:
        return self._xdg("XDG_STATE_HOME", ".local/state") / "safe-compose" / "ways.json"

    @property
    def fish(self) -> Path:
        return self._xdg("XDG_CONFIG_HOME", ".config") / "fish" / "conf.d"

    @property
    def zsh(self) -> Path:
        return Path(self.environ.get("ZDOTDIR") or self.home)

    @property
    def plugins(self) -> Path:
        return Path(self.environ.get("DOCKER_CONFIG") or self.home / ".docker") / "cli-plugins"

    def uses(self, shell: str) -> bool:
        return shutil.which(shell, path=self.environ.get("PATH")) is not None


# -- the plan ----------------------------------------------------------------------------------------------------------


def plan(kinds: Sequence[str], folder: Path | None, places: Places) -> list[Change]:
    """What would be written for these ways; nothing that is there already.

    Raise UsageError when the words do not make sense, Refused when something of somebody else's is in the way.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"--install takes {', '.join(KINDS)}, not {kind!r}; nothing was written")
    if folder is not None and "shims" not in kinds:
        raise UsageError("--dir is where shims go: it needs --install shims; nothing was written")
    wanted: list[Change] = []
    for kind in dict.fromkeys(kinds):
        if kind == "shims":
            wanted += _shims((folder or places.shims).absolute(), places)
        elif kind == "plugin":
            wanted += _plugin(places)
        else:
            wanted += _rc(places)
    known = recorded(places)
    todo: list[Change] = []
    for change in wanted:
        whole_lines = any((c.path, c.how) == (change.path, "tail") for c in todo)  # another block of this plan goes before it
        if (made := _todo(change, known, whole_lines=whole_lines)) is not None:
            todo.append(made)
    return todo


def _shims(folder: Path, places: Places) -> Iterator[Change]:
    if any(c in str(folder) for c in ":\n"):
        raise UsageError(f"PATH cannot hold a folder with a colon or a new line in its name: {str(folder)!r}")
    interpreter, links = find_interpreter(folder, "shims")
    yield from links
    script = _script(interpreter, plugin=False)
    closer = {name: str(folder / texts.CLOSER / name) for name in ("docker", "docker-compose")}
    programs = native.programs(closer, interpreter, places.environ)
    if programs:  # the scripts first, since the programs call them
        yield from (Change("shims", "file", path, script, mode=0o755) for path in closer.values())
    for name in closer:
        text = base64.b64encode(zlib.compress(programs[name])).decode() if programs else script
        yield Change("shims", "file", str(folder / name), text, mode=0o755, packed=bool(programs))
    lines = texts.path_lines(str(folder), "sh")
    home, zsh = places.home, places.zsh
    spots = [(home / ".profile", "tail")]
    spots += [(home / name, "tail") for name in (".bash_profile", ".bash_login") if (home / name).exists()]
    if places.uses("bash") or (home / ".bashrc").exists():
        # First, because Debian's returns early where nobody types (ssh HOST docker ...); last, because others put themselves first.
        spots += [(home / ".bashrc", "head"), (home / ".bashrc", "tail")]
    if places.uses("zsh") or any((zsh / name).exists() for name in (".zshenv", ".zprofile", ".zshrc")):
        spots += [(zsh / ".zshenv", "tail"), (zsh / ".zprofile", "tail")]
    for path, how in spots:
        name = "path, first" if how == "head" else "path"
        yield Change("shims", how, str(path), texts.block(name, lines), name=name)
    if places.uses("fish") or places.fish.parent.exists():
        yield Change("shims", "file", str(places.fish / "safe-compose-path.fish"), texts.path_lines(str(folder), "fish"))
    if places.environ.get("GITHUB_PATH"):
        yield Change("shims", "tail", places.environ["GITHUB_PATH"], f"{folder}\n")


def _plugin(places: Places) -> Iterator[Change]:
    folder = places.plugins
    first = next((f for f in shim.plugin_folders() if _other(Path(f, PLUGIN_NAME))), "")
    before = shim.plugin_folders()
    if first and before.index(first) < before.index(str(folder)):
        raise Refused(
            f"docker takes compose from {first} (cliPluginsExtraDirs in its config.json) before it looks at {folder}; "
            "nothing was written",
            next_step=f"move docker-compose from {first} to {folder}, then run this again",
        )
    if not first and not _other(folder / shim.ASIDE):
        raise Refused("docker has no compose plugin that ours could stand before; nothing was written", next_step="install it")
    interpreter, links = find_interpreter(folder, "plugin")
    yield from links
    path = folder / PLUGIN_NAME
    if _other(path) or (path.is_symlink() and not _is_ours(path)):
        yield Change("plugin", "aside", str(path), str(folder / shim.ASIDE))
    yield Change("plugin", "file", str(path), _script(interpreter, plugin=True), mode=0o755)


def _rc(places: Places) -> Iterator[Change]:
    for shell, path in (("bash", places.home / ".bashrc"), ("zsh", places.zsh / ".zshrc")):
        if places.uses(shell) or path.exists():
            lines = texts.block("function", texts.function_lines(texts.program(), shell))
            yield Change("rc", "tail", str(path), lines, name="function")
    if places.uses("fish") or places.fish.parent.exists():
        lines = texts.function_lines(texts.program(), "fish")
        yield Change("rc", "file", str(places.fish / "safe-compose.fish"), lines)


def _script(interpreter: str, *, plugin: bool) -> str:
    package = Path(shim.__file__).resolve().parents[1]
    return texts.script(interpreter, str(package), str(Path(sys.executable).absolute()), plugin=plugin)


def find_interpreter(folder: Path, way: str, candidates: Sequence[str] | None = None) -> tuple[str, list[Change]]:
    """A Python for the first line of scripts in `folder`, and the link that it needs.

    The system's own before ours: it starts sooner and outlives the environment that safe-compose is installed in. A `#!` line
    takes no blank: then a link in `folder` stands for it. Raise Refused when that has a blank as well.
    """
    own = getattr(sys, "_base_executable", sys.executable) or sys.executable
    if candidates is None:
        candidates = [own]
        if sys.platform == "linux" and _same_python("/usr/bin/python3"):
            candidates = ["/usr/bin/python3", own]
    for path in candidates:
        if _fits(path):
            return path, []
    link = folder / "safe-compose-python"
    if not _fits(str(link)):
        raise Refused(
            f"the first line of a script can name neither {candidates[-1]} nor {link}: no blanks, at most "
            f"{LONGEST_FIRST_LINE} bytes; nothing was written",
            next_step="choose another folder with --dir" if way == "shims" else "set DOCKER_CONFIG to another folder",
        )
    return str(link), [Change(way, "link", str(link), candidates[-1])]


def _fits(path: str) -> bool:
    return not any(c.isspace() for c in path) and len(os.fsencode(path)) <= LONGEST_FIRST_LINE


def _same_python(path: str) -> bool:
    """Whether it reads the bytecode that ours has written."""
    if not shim.is_program(path):
        return False
    words = [path, "-IS", "-c", "import sys; sys.stdout.write(sys.implementation.cache_tag)"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout == sys.implementation.cache_tag


def _is_ours(path: Path) -> bool:
    return path.is_file() and shim.is_ourselves(str(path))


def _other(path: Path) -> bool:
    return shim.is_program(str(path)) and not shim.is_ourselves(str(path))


def _todo(change: Change, known: Sequence[Change], *, whole_lines: bool) -> Change | None:
    """The change, unless it is there already; with what it will have made. Raises Refused."""
    path = Path(change.path)
    before = next((k for k in known if (k.path, k.how, k.name) == (change.path, change.how, change.name)), None)
    if change.how in ("head", "tail"):
        return _todo_block(change, before, known, whole_lines=whole_lines)
    if change.how == "aside":
        if os.path.lexists(change.text):
            raise Refused(f"{change.text} is in the way of {change.path}; nothing was written", next_step="look at both")
        return change
    if not os.path.lexists(path):
        return _made(change, known)
    if change.how == "link":
        if path.is_symlink() and str(path.readlink()) in (change.text, before.text if before else None):
            return None if str(path.readlink()) == change.text else change
        raise Refused(f"{path} is there and not ours; nothing was written", next_step="choose another folder with --dir")
    there = path.read_bytes()
    if there == change.content and before is not None and stat.S_IMODE(path.stat().st_mode) == change.mode:
        return None
    if there == change.content or (before is not None and there == before.content) or (before is None and _is_ours(path)):
        return replace(change, created=True, folders=before.folders if before else ())
    if _will_move(change):
        return _made(change, known)
    what = "was edited since safe-compose wrote it" if before else "is there and not ours"
    aside = shlex.join(["mv", str(path), f"{path}.before"])
    raise Refused(f"{path} {what}; nothing was written", next_step=f"move it away: {aside}")


def _will_move(change: Change) -> bool:
    return change.way == "plugin" and change.path.endswith(PLUGIN_NAME) and _other(Path(change.path))


def _todo_block(change: Change, before: Change | None, known: Sequence[Change], *, whole_lines: bool) -> Change | None:
    path = Path(change.path)
    text = _read(path) if path.exists() else ""
    if before is not None and before.text in text:
        if before.text.strip("\n") == change.text.strip("\n"):
            return None
        return replace(change, created=before.created, folders=before.folders, mode=before.mode)
    if change.text in text and not change.name:
        return None
    if change.name and texts.OPEN.format(change.name) in text:
        raise Refused(
            f"{path} has lines between `{texts.OPEN.format(change.name)}` and its end that are not the ones we wrote; "
            "nothing was written",
            next_step=f"remove them from {path}, then run this again",
        )
    if change.how == "tail" and text and not text.endswith("\n") and not whole_lines:
        change = replace(change, text="\n" + change.text)
    return change if path.exists() else _made(change, known)


def _made(change: Change, known: Sequence[Change]) -> Change:
    """With the folders that are ours to take away again: the missing ones, and those that were missing before."""
    ours = {folder for one in known for folder in one.folders}
    folders = [str(p) for p in Path(change.path).parents if not p.exists() or str(p) in ours]
    return replace(change, created=True, folders=tuple(reversed(folders)))


# -- doing it ----------------------------------------------------------------------------------------------------------


def apply(changes: Sequence[Change], places: Places) -> None:
    """Write them. Raises Refused when a file cannot be written; what was written before that stays recorded."""
    for change in changes:
        known = recorded(places)
        key = (change.path, change.how, change.name)
        before = next((k for k in known if (k.path, k.how, k.name) == key), None)
        # Both the old and the new until it is done: whichever a crash leaves in the file is known.
        _remember([*known, change], places)
        with _told(change.path):
            _write(change, before)
        _remember([*(k for k in known if k is not before), change], places)


def _write(change: Change, before: Change | None) -> None:
    path = Path(change.path)
    for folder in change.folders:
        if not Path(folder).is_dir():
            durable.make_folder(Path(folder), Access(folders=0o755))
    match change.how:
        case "aside":
            path.rename(change.text)
        case "link":
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.symlink_to(change.text)
            draft.rename(path)
        case "file":
            durable.replace(path, change.content, Access(files=change.mode))
        case _:
            text = _read(path) if path.exists() else ""
            if before is not None and before.text in text:
                text = text.replace(before.text, _joined(change.text, before.text), 1)
            else:
                text = change.text + text if change.how == "head" else text + change.text
            _write_over(path, text)


def _joined(new: str, old: str) -> str:
    """A new block in the place of an old one keeps the line break that the old one needed before it."""
    return "\n" + new if old.startswith("\n") and not new.startswith("\n") else new


def uninstall(places: Places) -> tuple[list[str], list[str]]:
    """Take away everything that is recorded: what was done, and what was left because somebody edited it, in sentences."""
    done: list[str] = []
    left: list[str] = []
    kept: list[Change] = []
    for change in reversed(recorded(places)):
        with _told(change.path):
            said, gone = _take_away(change)
        (done if gone else left).append(f"{change.path}: {said}")
        if not gone:
            kept.insert(0, change)
    _remember(kept, places)
    return done, left


def _take_away(change: Change) -> tuple[str, bool]:
    path = Path(change.path)
    match change.how:
        case "aside":
            if not os.path.lexists(change.text):
                return "nothing to put back", True
            if os.path.lexists(path):
                return f"another one is there now; the one from before is still {change.text}", False
            Path(change.text).rename(path)
            return "put back", True
        case "link":
            if path.is_symlink() and str(path.readlink()) != change.text:
                return "leads somewhere else now, left", False
            said = _unlink(path, there=path.is_symlink())
        case "file":
            if path.is_file() and path.read_bytes() != change.content:
                return "was edited since, left", False
            said = _unlink(path, there=path.is_file())
        case _:
            said, gone = _take_block(change, path)
            if not gone:
                return said, gone
    if not os.path.lexists(path):
        _remove_empty(change.folders)
    return said, True


def _unlink(path: Path, *, there: bool) -> str:
    if not there:
        return "already gone"
    path.unlink()
    return "removed"


def _take_block(change: Change, path: Path) -> tuple[str, bool]:
    text = _read(path) if path.exists() else ""
    at = text.find(change.text)
    if at < 0:
        if change.name and texts.OPEN.format(change.name) in text:
            return f"the lines after `{texts.OPEN.format(change.name)}` were edited since, left", False
        return "already gone", True
    rest = text[at + len(change.text) :]
    joint = "\n" if rest and change.text.startswith("\n") else ""  # somebody wrote after us: their line stays a line
    text = text[:at] + joint + rest
    if not text and change.created:
        path.unlink()
    else:
        _write_over(path, text)
    return "our lines removed", True


# -- files -------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> str:
    """Any bytes, unchanged on the way back: new lines are not translated."""
    return path.read_bytes().decode("utf-8", "surrogateescape")


def _write_over(path: Path, text: str) -> None:
    """In one step, behind a symbolic link, with the mode and the owner that the file has."""
    real = path.resolve()
    access = Access(files=0o644)
    if real.exists():
        now = real.stat()
        access = Access(files=stat.S_IMODE(now.st_mode), owner=(now.st_uid, now.st_gid))
    durable.replace(real, text.encode("utf-8", "surrogateescape"), access)


def recorded(places: Places) -> list[Change]:
    """What is in place, oldest first. Raises Refused when the record does not read."""
    if not places.record.exists():
        return []
    try:
        body = json.loads(places.record.read_text("utf-8"))
        changes = [Change(**{**entry, "folders": tuple(entry["folders"])}) for entry in body["changes"]]
        for change in changes:
            _ = change.content
        return changes
    except (OSError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise Refused(
            f"the record of what safe-compose wrote does not read ({places.record}); nothing was changed",
            next_step="remove the lines marked `safe-compose` by hand, then that file",
        ) from error


def _remember(changes: Sequence[Change], places: Places) -> None:
    record = places.record
    with _told(str(record)):
        folders = json.loads(record.read_bytes())["folders"] if record.exists() else None
        if not changes:
            record.unlink(missing_ok=True)
            _remove_empty(folders or ())
            return
        if folders is None:
            folders = [str(p) for p in reversed(record.parents) if not p.exists()]
            durable.make_folders(record.parent)
        body = {"version": 1, "folders": folders, "changes": [asdict(change) for change in changes]}
        durable.replace(record, json.dumps(body, indent=1).encode())


def _remove_empty(folders: Sequence[str]) -> None:
    for folder in map(Path, reversed(folders)):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def _told(path: str) -> Iterator[None]:
    """A file fault inside the block becomes Refused."""
    try:
        yield
    except OSError as error:
        raise Refused(
            f"cannot change {path}: {durable.cause(error)}; the changes before this one are done",
            next_step="correct that and run this again, or take it all back: safe-compose shell --uninstall",
        ) from error
