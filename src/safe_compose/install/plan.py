"""The changes that an installation needs, without those that are already in place."""

import base64
import os
import shlex
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from safe_compose.errors import Refused, UsageError
from safe_compose.fastpath import first_look, launch
from safe_compose.install import scripts
from safe_compose.install.places import InstallPlaces
from safe_compose.install.record import InstallChange, read_record
from safe_compose.system import trusted_file

LARGEST = 16 << 20
"""Largest size in bytes of a file that lines are added to."""
KINDS = ("shims", "plugin", "rc")
PLUGIN_NAME = "docker-compose"
PROGRAM_NAME = "safe-compose"


def plan(kinds: Sequence[str], folder: Path | None, places: InstallPlaces) -> list[InstallChange]:
    """Return the changes that these kinds need, without those that are already in place.

    Args:
        kinds: `shims`, `plugin`, `rc`.
        folder: The folder for shims; None: the default.
        places: The user's paths.

    Raises:
        UsageError: The arguments do not fit together.
        Refused: A file of others is in the way, or a path is not safe.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(
                f"--install takes {', '.join(KINDS)}, not {kind!r}; nothing was written"
            )
    if folder is not None and "shims" not in kinds:
        raise UsageError("--dir is where shims go: it needs --install shims; nothing was written")
    wanted: list[InstallChange] = []
    for kind in dict.fromkeys(kinds):
        if kind == "shims":
            wanted += _shims((folder or places.shims).absolute(), places)
        elif kind == "plugin":
            wanted += _plugin(places)
        else:
            wanted += _rc(places)
    known = read_record(places)
    todo: list[InstallChange] = []
    for change in wanted:
        refuse_unsafe(Path(change.path), lines=change.how in ("head", "tail"))
        if change.how == "link":
            refuse_unsafe(Path(change.text), lines=False)
        # another block of this plan precedes it
        whole_lines = any((c.path, c.how) == (change.path, "tail") for c in todo)
        if (made := _find_todo(change, known, whole_lines=whole_lines)) is not None:
            todo.append(made)
    return todo


def refuse_unsafe(path: Path, *, lines: bool) -> None:
    """Refuse a path that others can change: programs written there run as this user in every shell.

    `lines` means that lines are added to a file.

    Raises:
        Refused: It is not safe.
    """
    if (why := trusted_file.explain_unsafe(path)) is not None:
        raise Refused(
            f"{path} is no safe place for a program that stands before docker: {why}; nothing was"
            " written",
            next_step="choose a folder of your own with --dir, or correct its owner and mode",
        )
    try:
        found = path.stat()
    except OSError:
        return
    if not lines:
        return
    if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
        raise Refused(
            f"{path} is no regular file of at most {LARGEST >> 20} MiB; nothing was written"
        )
    if found.st_nlink > 1:
        raise Refused(
            f"{path} has another name (a hard link) that would keep the old content; nothing was"
            " written"
        )


def _shims(folder: Path, places: InstallPlaces) -> Iterator[InstallChange]:
    if any(c in str(folder) for c in ":\n"):
        raise UsageError(
            f"PATH cannot hold a folder with a colon or a new line in its name: {str(folder)!r}"
        )
    program = require_program(places)
    if program == str(folder / PROGRAM_NAME):  # our own link, of which no record is left
        program = os.path.realpath(program)
    # by its own name as well, for a program that is in no folder of PATH (a venv's)
    for name in ("docker", PLUGIN_NAME, PROGRAM_NAME):
        yield InstallChange("shims", "link", str(folder / name), program)
    lines = scripts.make_path_lines(str(folder), "sh")
    home, zsh = places.home, places.zsh
    spots = [(home / ".profile", "tail")]
    spots += [
        (home / name, "tail") for name in (".bash_profile", ".bash_login") if (home / name).exists()
    ]
    if places.uses("bash") or (home / ".bashrc").exists():
        # First, because Debian's returns early in non-interactive shells (ssh HOST docker ...);
        # last, because other entries put themselves first.
        spots += [(home / ".bashrc", "head"), (home / ".bashrc", "tail")]
    if places.uses("zsh") or any(
        (zsh / name).exists() for name in (".zshenv", ".zprofile", ".zshrc")
    ):
        spots += [(zsh / ".zshenv", "tail"), (zsh / ".zprofile", "tail")]
    for path, how in spots:
        name = "path, first" if how == "head" else "path"
        yield InstallChange("shims", how, str(path), scripts.make_block(name, lines), name=name)
    if places.uses("fish") or places.fish.parent.exists():
        yield InstallChange(
            "shims",
            "file",
            str(places.fish / "safe-compose-path.fish"),
            scripts.make_path_lines(str(folder), "fish"),
        )
    if places.environ.get("GITHUB_PATH"):
        yield InstallChange("shims", "tail", places.environ["GITHUB_PATH"], f"{folder}\n")


def _plugin(places: InstallPlaces) -> Iterator[InstallChange]:
    folder = places.plugins
    first = next((f for f in launch.list_plugin_folders() if _is_foreign(Path(f, PLUGIN_NAME))), "")
    before = launch.list_plugin_folders()
    if first and before.index(first) < before.index(str(folder)):
        raise Refused(
            f"docker takes compose from {first} (cliPluginsExtraDirs in its config.json) before it"
            f" looks at {folder}; nothing was written",
            next_step=f"move docker-compose from {first} to {folder}, then run this again",
        )
    if not first and not _is_foreign(folder / launch.ASIDE):
        raise Refused(
            "docker has no compose plugin that ours could stand before; nothing was written",
            next_step="install it",
        )
    path = folder / PLUGIN_NAME
    program = require_program(places)
    # Renamed by an installation whose record is gone: the record of this one restores it.
    left = _is_foreign(folder / launch.ASIDE) and not _is_foreign(path)
    if not (left or _is_foreign(path) or (path.is_symlink() and not _is_ours(path))):
        yield InstallChange("plugin", "link", str(path), program)
        return
    yield InstallChange("plugin", "aside", str(path), str(folder / launch.ASIDE))
    yield from _copies(path, Path(program).resolve())


def _copies(path: Path, program: Path) -> Iterator[InstallChange]:
    """Yield a copy of the program in the place of a plugin that was renamed.

    After safe-compose was removed docker would skip a link, and find no compose any more. The copy
    then hands everything to the renamed plugin but what plainly deletes.
    """
    entry = program.with_name(launch.ENTRY)
    content = program.read_bytes()
    if content[:4] != first_look.ELF:
        yield InstallChange("plugin", "file", str(path), os.fsdecode(content), mode=0o755)
        return
    yield InstallChange("plugin", "link", str(path.with_name(entry.name)), str(entry))
    text = base64.b64encode(zlib.compress(content)).decode()
    yield InstallChange("plugin", "file", str(path), text, mode=0o755, packed=True)


def _rc(places: InstallPlaces) -> Iterator[InstallChange]:
    for shell, path in (("bash", places.home / ".bashrc"), ("zsh", places.zsh / ".zshrc")):
        if places.uses(shell) or path.exists():
            lines = scripts.make_block(
                "function", scripts.make_function_lines(_find_program(places), shell)
            )
            yield InstallChange("rc", "tail", str(path), lines, name="function")
    if places.uses("fish") or places.fish.parent.exists():
        lines = scripts.make_function_lines(_find_program(places), "fish")
        yield InstallChange("rc", "file", str(places.fish / "safe-compose.fish"), lines)


def _find_program(places: InstallPlaces) -> str:
    """Return the path of the `safe-compose` that runs, and not that of our own link to it."""
    path = scripts.find_program()
    links = {c.path: c.text for c in read_record(places) if c.way == "shims" and c.how == "link"}
    return links.get(path, path)


def require_program(places: InstallPlaces | None = None) -> str:
    """Return the path of the `safe-compose` that links lead to.

    Raises:
        Refused: There is none: this is no installed package.
    """
    path = _find_program(places or InstallPlaces.here())
    if launch.is_program(path) and launch.is_ourselves(path):
        return path
    raise Refused(
        f"{path} is no program of safe-compose; nothing was written",
        next_step="install the package, in its checkout: pipx install .",
    )


def _is_ours(path: Path) -> bool:
    return path.is_file() and launch.is_ourselves(str(path))


def _is_foreign(path: Path) -> bool:
    return launch.is_program(str(path)) and not launch.is_ourselves(str(path))


def _find_todo(
    change: InstallChange, known: Sequence[InstallChange], *, whole_lines: bool
) -> InstallChange | None:
    """Return the change with its consequences, or None when it is already in place.

    Raises:
        Refused: A file of others is in the way.
    """
    path = Path(change.path)
    before = next((k for k in known if k.key == change.key), None)
    if change.how in ("head", "tail"):
        return _find_todo_block(change, before, known, whole_lines=whole_lines)
    if change.how == "aside":
        if os.path.lexists(change.text):
            if not _is_foreign(path):
                return None if before is not None else change
            raise Refused(
                f"{change.text} is in the way of {change.path}; nothing was written",
                next_step="look at both",
            )
        return change
    if not os.path.lexists(path):
        return _add_folders(change, known)
    if change.how == "link" and path.is_symlink() and str(path.readlink()) == change.text:
        done = before is not None and (before.how, before.text) == (change.how, change.text)
        return None if done else replace(change, created=True)
    if change.how == "file" and _is_written(change) and before is not None:
        return None
    if _may_replace(path, before):
        return replace(change, created=True, folders=before.folders if before else ())
    if _is_shell_file(change):
        return _add_folders(change, known)
    state = "was edited since safe-compose wrote it" if before else "is there and not ours"
    command = shlex.join(["mv", str(path), f"{path}.before"])
    raise Refused(f"{path} {state}; nothing was written", next_step=f"move it away: {command}")


def _is_written(change: InstallChange) -> bool:
    """Return whether a file is there as the change would write it."""
    path = Path(change.path)
    return (
        not path.is_symlink()
        and path.read_bytes() == change.content
        and stat.S_IMODE(path.stat().st_mode) == change.mode
    )


def _may_replace(path: Path, before: InstallChange | None) -> bool:
    """Return whether a file or link is one that we wrote and that nobody has changed since."""
    if path.is_symlink():
        target = path.readlink()
        return target.name in ("safe-compose", launch.ENTRY) or (
            before is not None and before.how == "link" and str(target) == before.text
        )
    if before is None:
        return _is_ours(path)
    return path.is_file() and before.how == "file" and path.read_bytes() == before.content


def _is_shell_file(change: InstallChange) -> bool:
    return (
        change.way == "plugin"
        and change.path.endswith(PLUGIN_NAME)
        and _is_foreign(Path(change.path))
    )


def _find_todo_block(
    change: InstallChange,
    before: InstallChange | None,
    known: Sequence[InstallChange],
    *,
    whole_lines: bool,
) -> InstallChange | None:
    path = Path(change.path)
    text = read_text(path) if path.exists() else ""
    if before is not None and before.text in text:
        if before.text.strip("\n") == change.text.strip("\n"):
            return None
        return replace(change, created=before.created, folders=before.folders, mode=before.mode)
    if change.text in text and not change.name:
        return None
    if change.name and scripts.OPEN.format(change.name) in text:
        raise Refused(
            f"{path} has lines between `{scripts.OPEN.format(change.name)}` and its end that are"
            " not the ones we wrote; nothing was written",
            next_step=f"remove them from {path}, then run this again",
        )
    if change.how == "tail" and text and not text.endswith("\n") and not whole_lines:
        change = replace(change, text="\n" + change.text)
    return change if path.exists() else _add_folders(change, known)


def _add_folders(change: InstallChange, known: Sequence[InstallChange]) -> InstallChange:
    """Return the change with the folders that must be removed with it.

    These are the missing ones, and those that were missing before.
    """
    ours = {folder for one in known for folder in one.folders}
    folders = [str(p) for p in Path(change.path).parents if not p.exists() or str(p) in ours]
    return replace(change, created=True, folders=tuple(reversed(folders)))


def read_text(path: Path) -> str:
    """Return the text of a file; any bytes survive, and line ends are not translated."""
    return path.read_bytes().decode("utf-8", "surrogateescape")
