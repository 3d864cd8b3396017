"""The hooks of coding agents: what their settings become with ours, and without.

Nothing but our own hook is changed in a file of somebody else's. It is recognized by its command,
so that no record is needed and a copy of the file on another machine can be cleaned as well.
"""

import hashlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safe_compose.audit.agent_protocols import TITLES
from safe_compose.core.toml import parse_toml
from safe_compose.errors import OperationFailed, Refused
from safe_compose.fastpath import launch
from safe_compose.install import json_edit
from safe_compose.install.agent_places import FORMATS, HookFormat, HookPlace, find_other_place
from safe_compose.install.json_edit import JsonValue, NotJson
from safe_compose.install.plan import require_program
from safe_compose.system import files, trusted_file
from safe_compose.system.files import Access
from safe_compose.system.installation import describe_extra
from safe_compose.system.project_files import FileChange

LARGEST = 1 << 20
"""Most bytes of a settings file that is read."""
_MARK = "// Written by `safe-compose hook --install opencode`. sha256 of what follows: "
_NAMES = ("safe-compose", launch.ENTRY)
_ALL_TOOLS = (None, "", "*", ".*")
"""Matchers of a group that every tool is in."""


@dataclass(frozen=True, slots=True)
class HookEdit:
    """The change of one agent's file."""

    place: HookPlace
    before: str | None
    """None: there is no file."""
    after: str | None
    """None: the file is removed."""
    notes: tuple[str, ...] = ()
    """What else a person has to know or do."""

    @property
    def changes(self) -> bool:
        """Return whether the file becomes another one."""
        return self.before != self.after


def plan_install(place: HookPlace, environ: Mapping[str, str], *, strict: bool = False) -> HookEdit:
    """Return the change that puts our hook into an agent's settings.

    Raises:
        Refused: The file does not parse, belongs to others, or leads out of its scope.
    """
    before = read(place)
    words = [_program_for(place, environ), "hook", "--agent", place.agent]
    words += ["--strict"] if strict else []
    if place.agent == "opencode":
        return HookEdit(place, before, _plan_plugin(place, before, words), _note(place, None))
    form = FORMATS[place.agent]
    kind = {"type": "command"} if "type" in form.handler else {}
    handler = {**kind, form.command: shlex.join(words), **form.handler}
    after = _install(before, handler, form, place)
    settings = json_edit.parse(after, comments=form.comments).data
    return HookEdit(place, before, after, _note(place, settings))


def plan_removal(place: HookPlace) -> HookEdit:
    """Return the change that takes our hook out of an agent's settings.

    Raises:
        Refused: The file does not parse, was edited, belongs to others, or leads out of its scope.
    """
    before = read(place)
    if before is None:
        return HookEdit(place, None, None)
    if place.agent == "opencode":
        _refuse_edited(place, before)
        return HookEdit(place, before, None)
    form = FORMATS[place.agent]
    after = _remove(before, form, place)
    fresh = {**form.root, "hooks": {}}
    made = [_dump(fresh), _dump(dict(form.root)), _dump({})]
    return HookEdit(place, before, None if after != before and after in made else after)


def apply(edit: HookEdit) -> None:
    """Make a change in one step; mode, owner and attributes of a file that is there stay.

    Raises:
        Refused: The file cannot be replaced.
        StateChanged: Somebody else changed it meanwhile.
        OperationFailed: It cannot be written.
    """
    path = edit.place.path
    if edit.before is not None and edit.after is not None:
        change = FileChange.of(str(path), edit.before, edit.after)
        change.refuse_unless_possible()
        change.apply()
        return
    if read(edit.place) != edit.before:
        raise Refused(f"{path} was changed by somebody else meanwhile; it was left as it is")
    real = Path(os.path.realpath(path))
    try:
        if edit.after is None:
            path.unlink()
            _remove_empty_folders(edit.place)
            return
        for folder in reversed(real.parents):
            if not folder.is_dir():
                files.make_folder(folder, Access(folders=0o755))
        mode = 0o600 if edit.place.scope == "user" else 0o644
        files.replace(real, edit.after.encode(), Access(files=mode))
    except OSError as error:
        raise OperationFailed(
            f"cannot write {path}: {files.explain_error(error)}",
            next_step="correct that, then run the same command again",
        ) from error


def read(place: HookPlace) -> str | None:
    """Return the text of an agent's file, or None when there is none.

    Raises:
        Refused: It is no file of this user's alone within its scope, or no UTF-8.
    """
    real = Path(os.path.realpath(place.path))
    if not real.is_relative_to(os.path.realpath(place.root)):
        raise Refused(
            f"{place.path} leads to {real}, out of {place.root}; nothing was written",
            next_step="replace the symbolic link by a file or folder of its own",
        )
    if place.scope == "user" and (why := trusted_file.explain_unsafe(place.path)) is not None:
        raise Refused(
            f"{place.path} is no safe place for a program that runs as you: {why}; nothing was"
            " written",
            next_step="correct its owner and mode",
        )
    there = next(p for p in (real, *real.parents) if os.path.lexists(p))
    found = there.lstat()
    if found.st_uid != os.geteuid():
        raise Refused(f"{there} belongs to somebody else; nothing was written")
    if there != real:
        if not stat.S_ISDIR(found.st_mode):
            raise Refused(f"{there} is no folder; nothing was written")
        if place.path.is_symlink():
            raise Refused(
                f"{place.path} is a symbolic link to nothing; nothing was written",
                next_step=shlex.join(["ls", "-l", str(place.path)]),
            )
        return None
    try:
        return files.read_regular(real, LARGEST).decode("utf-8")
    except UnicodeDecodeError:
        raise Refused(f"{place.path} is not UTF-8; nothing was written") from None
    except OSError as error:
        raise Refused(f"{place.path}: {files.explain_error(error)}; nothing was written") from error


def list_commands(text: str, place: HookPlace) -> list[str]:
    """Return the commands of ours in an agent's file, as they stand there.

    Raises:
        NotJson: It does not parse.
    """
    agent = place.agent
    if place.path.suffix == ".toml":
        return _list_toml_commands(text, FORMATS[agent])
    if agent == "opencode":
        return _list_plugin_commands(text)
    form = FORMATS[agent]
    root = json_edit.parse(text, comments=form.comments)
    return [str(ours.hook.data[form.command]) for ours in _find_ours(root, form)]


def _list_plugin_commands(text: str) -> list[str]:
    """Return the command of a plugin of ours; the sum in it proves nothing: anybody can write it.

    Raises:
        NotJson: The command does not parse.
    """
    found = re.search(r"^const COMMAND = (\[.*\])$", text, re.MULTILINE)
    if found is None or not is_ours(text):
        return []
    words = json_edit.parse(found[1], comments=False).data
    command = shlex.join(word for word in words if isinstance(word, str))
    return [command] if _starts_our_hook(command) else []


def _list_toml_commands(text: str, form: HookFormat) -> list[str]:
    try:
        # The same tables as in JSON, so they are read in that form.
        root = json_edit.parse(json.dumps(parse_toml(text), default=str), comments=False)
    except ValueError as error:
        raise NotJson(str(error)) from error
    return [str(ours.hook.data[form.command]) for ours in _find_ours(root, form)]


def is_ours(plugin: str) -> bool:
    """Return whether a plugin file is one that we wrote, and nobody has changed since."""
    first, _, rest = plugin.partition("\n")
    return first == _MARK + hashlib.sha256(rest.encode()).hexdigest()


def _program_for(place: HookPlace, environ: Mapping[str, str]) -> str:
    """Return the program that a hook starts.

    A project's file is shared, so it has the name alone where that leads to this program.
    """
    program = require_program()
    found = shutil.which("safe-compose", path=environ.get("PATH"))
    if (
        place.scope == "project"
        and found is not None
        and os.path.realpath(found) == os.path.realpath(program)
    ):
        return "safe-compose"
    return program


# -- JSON ------------------------------------------------------------------------------------------


class _OwnHook(NamedTuple):
    """A hook of ours in an agent's settings."""

    holder: JsonValue
    """The list that it stands in."""
    at: int
    """Its index there."""
    hook: JsonValue
    matcher: object
    """The tools of its group."""


def _install(
    before: str | None, handler: Mapping[str, Any], form: HookFormat, place: HookPlace
) -> str:
    entry = {"matcher": form.matcher, "hooks": [handler]} if form.matcher else dict(handler)
    if before is None or not before.strip():
        return _dump({**form.root, "hooks": {form.event: [entry]}})
    root = _parse(before, form, place)
    ours = list(_find_ours(root, form))
    if len(ours) == 1 and _is_in_place(ours[0], handler, form):
        return before
    text = _remove(before, form, place) if ours else before
    for key, data in form.root.items():
        root = _parse(text, form, place)
        if root.get(key) is None:
            text = json_edit.add(text, root, key, data)
    root = _parse(text, form, place)
    hooks = root.get("hooks")
    if hooks is None:
        return json_edit.add(text, root, "hooks", {form.event: [entry]})
    event = hooks.get(form.event)
    if event is None:
        return json_edit.add(text, hooks, form.event, [entry])
    return json_edit.add(text, event, None, entry)


def _remove(text: str, form: HookFormat, place: HookPlace) -> str:
    """Return the text without our hooks, and without the lists that held nothing else."""
    while ours := list(_find_ours(root := _parse(text, form, place), form)):
        trail = _find_trail(root, ours[-1], form)
        # The outermost container that would hold nothing but this.
        container, at = next(
            ((c, i) for c, i in trail if len(c.members) > 1 or c is trail[-1][0]), trail[-1]
        )
        text = json_edit.remove(text, container, at)
    return text


def _find_trail(root: JsonValue, ours: _OwnHook, form: HookFormat) -> list[tuple[JsonValue, int]]:
    """Return the containers around a hook, the innermost first, each with the member in it."""
    holder, index = ours.holder, ours.at
    hooks = root.get("hooks")
    event = hooks.get(form.event) if hooks is not None else None
    if hooks is None or event is None:
        return [(holder, index)]
    trail = [(holder, index)]
    if holder is not event:
        groups = [m.value.get("hooks") for m in event.members]
        trail.append((event, groups.index(holder)))
    trail.append((hooks, [m.value for m in hooks.members].index(event)))
    trail.append((root, [m.value for m in root.members].index(hooks)))
    return trail


def _find_ours(root: JsonValue, form: HookFormat) -> Iterator[_OwnHook]:
    """Yield each hook of ours."""
    hooks = root.get("hooks")
    event = hooks.get(form.event) if hooks is not None else None
    if event is None:
        return
    lists: list[tuple[JsonValue | None, object]] = [(event, form.matcher)]
    if form.matcher is not None:
        groups = [m.value for m in event.members if isinstance(m.value.data, dict)]
        lists = [(group.get("hooks"), group.data.get("matcher")) for group in groups]
    for holder, matcher in lists:
        for index, member in enumerate(holder.members if holder is not None else ()):
            command = member.value.get(form.command)
            if holder is not None and command is not None and _starts_our_hook(command.data):
                yield _OwnHook(holder, index, member.value, matcher)


def _is_in_place(ours: _OwnHook, handler: Mapping[str, Any], form: HookFormat) -> bool:
    """Return whether a hook is as we would write it; its group may have others next to it."""
    return dict(ours.hook.data) == dict(handler) and ours.matcher in (
        form.matcher,
        *_ALL_TOOLS,
    )


def _starts_our_hook(command: object) -> bool:
    if not isinstance(command, str):
        return False
    try:
        words = shlex.split(command)
    except ValueError:
        return False
    return words[1:2] == ["hook"] and os.path.basename(words[0]) in _NAMES  # noqa: PTH119


def _parse(text: str, form: HookFormat, place: HookPlace) -> JsonValue:
    """Return the value of a settings file, whose hooks are where they belong.

    Raises:
        Refused: It does not parse, or its hooks have another form.
    """
    try:
        root = json_edit.parse(text, comments=form.comments)
        hooks = root.get("hooks") if isinstance(root.data, dict) else None
        event = hooks.get(form.event) if hooks is not None else None
        shapes: list[tuple[str, JsonValue | None, type]] = [
            ("the file", root, dict), ("`hooks`", hooks, dict), (f"`{form.event}`", event, list)
        ]  # fmt: skip
        shapes += (
            [(f"an entry of `{form.event}`", m.value, dict) for m in event.members] if event else []
        )
        for key, data in form.root.items():
            if (value := root.get(key)) is not None and value.data != data:
                raise NotJson(f"its {key} is {json.dumps(value.data)}, not {json.dumps(data)}")
        for name, value, kind in shapes:
            if value is not None and not isinstance(value.data, kind):
                raise NotJson(f"{name} is no {'object' if kind is dict else 'list'}")
    except NotJson as error:
        raise Refused(
            f"{place.path} is not what {TITLES[place.agent]} reads: {error}; nothing was written",
            next_step="correct the file, then run this again",
        ) from error
    return root


def _dump(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"


# -- OpenCode --------------------------------------------------------------------------------------


def _plan_plugin(place: HookPlace, before: str | None, words: Sequence[str]) -> str:
    if before is not None:
        _refuse_edited(place, before)
    template = Path(__file__).with_name("opencode_plugin.js").read_text("utf-8")
    body = template.replace("@COMMAND@", json.dumps(words))
    return f"{_MARK}{hashlib.sha256(body.encode()).hexdigest()}\n{body}"


def _refuse_edited(place: HookPlace, text: str) -> None:
    """Refuse a plugin file that is not as we wrote it.

    Raises:
        Refused: It is not.
    """
    if not is_ours(text):
        raise Refused(
            f"{place.path} is not as safe-compose wrote it; nothing was written",
            next_step=(
                f"move it away: {shlex.join(['mv', str(place.path), str(place.path) + '.before'])}"
            ),
        )


# -- notes -----------------------------------------------------------------------------------------


def _note(place: HookPlace, settings: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return what a person has to know or do besides the change."""
    notes = []
    if importlib.util.find_spec("tree_sitter_bash") is None:
        command = describe_extra("audit")
        notes.append(f"shell lines cannot be read without the extra `audit`: {command}")
    if settings and settings.get("disableAllHooks") is True:
        notes.append(f"disableAllHooks is set in {place.path}: no hook runs")
    match place.agent:
        case "codex":
            notes.append("Codex runs a hook once a person has trusted it: type /hooks there")
            notes += _note_codex_settings(find_other_place(place))
        case "gemini":
            switch = settings.get("hooksConfig") if settings else None
            if isinstance(switch, dict) and switch.get("enabled") is False:
                notes.append(f"hooks are off in {place.path} (hooksConfig.enabled)")
            if place.scope == "project":
                notes.append("Gemini CLI runs a project's hooks only in a trusted folder")
        case "cursor" | "opencode":
            notes.append(f"{TITLES[place.agent]} reads it when it starts again")
    return tuple(notes)


def _note_codex_settings(place: HookPlace | None) -> Iterator[str]:
    """Yield what Codex's own configuration says about hooks."""
    if place is None:
        return
    try:
        text = files.read_regular(place.path, LARGEST).decode()
        features = parse_toml(text).get("features")
        commands = list_commands(text, place)
    except (OSError, ValueError, NotJson):
        return
    if isinstance(features, dict) and False in (features.get("hooks"), features.get("codex_hooks")):
        yield f"hooks are off in {place.path} ([features])"
    if commands:
        yield f"{place.path} has the hook as well, and Codex runs both: remove it there by hand"


def _remove_empty_folders(place: HookPlace) -> None:
    """Remove the folders of an agent's file that hold nothing any more, up to its root."""
    for folder in place.path.parents:
        if folder == place.root or any(folder.iterdir()):
            return
        folder.rmdir()
