"""Our hook in the settings of coding agents: nothing else in them changes."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_compose.audit.agent_protocols import AGENTS
from safe_compose.errors import Refused, StateChanged
from safe_compose.fastpath import first_look
from safe_compose.install import agent_hooks, json_edit
from safe_compose.install.agent_hooks import HookEdit
from safe_compose.install.agent_places import FORMATS, HookPlace, find_place
from safe_compose.install.plan import require_program

OTHER = {"matcher": "Bash", "hooks": [{"type": "command", "command": "theirs"}]}


def place(agent: str, folder: Path, scope: str = "user") -> HookPlace:
    if scope == "project":
        return find_place(agent, scope, Path("/nowhere"), {})
    return find_place(agent, scope, folder, {})


def written(agent: str, folder: Path, text: str) -> HookPlace:
    found = place(agent, folder)
    found.path.parent.mkdir(parents=True, exist_ok=True)
    found.path.write_bytes(text.encode())
    return found


def install(where: HookPlace, **options: bool) -> HookEdit:
    edit = agent_hooks.plan_install(where, {}, **options)
    agent_hooks.apply(edit)
    return edit


def remove(where: HookPlace) -> HookEdit:
    edit = agent_hooks.plan_removal(where)
    if edit.changes:
        agent_hooks.apply(edit)
    return edit


@pytest.mark.parametrize("agent", AGENTS)
def test_a_hook_comes_once_and_goes_with_its_file_and_folders(agent: str, tmp_path: Path) -> None:
    home = tmp_path / "a home"
    home.mkdir()
    where = place(agent, home)
    install(where)
    assert where.path.stat().st_mode & 0o777 == 0o600
    assert not agent_hooks.plan_install(where, {}).changes
    (command,) = agent_hooks.list_commands(where.path.read_text(), where)
    assert shlex.split(command)[1:] == ["hook", "--agent", agent]
    assert agent_hooks.plan_install(where, {}, strict=True).changes
    remove(where)
    assert list(home.iterdir()) == []
    assert not agent_hooks.plan_removal(where).changes


FORMS = {
    "pretty": json.dumps({"a": 1, "hooks": {"{event}": ["{other}"], "Stop": []}, "z": "ü"}, indent=2),
    "four blanks, no line break at the end": json.dumps({"a": {"b": [1, 2]}}, indent=4),
    "tabs": json.dumps({"model": "x", "hooks": {"{event}": ["{other}", "{other}"]}}, indent="\t") + "\n",
    "one line": json.dumps({"hooks": {"{event}": ["{other}"]}, "a": 1}),
    "one short line": '{"a":1}',
    "hooks of other events": '{\n  "hooks": {\n    "Stop": [ ]\n  }\n}\n',
    "a list in one line": '{\n  "hooks": {"{event}": [{other}]},\n  "b": [ 1,2 ]\n}\n',
    "CRLF": '{\r\n  "a": 1,\r\n  "b": {\r\n    "c": 2\r\n  }\r\n}\r\n',
    "a BOM": '\ufeff{\n  "a": 1\n}\n',
    "odd spacing": '{ "a" :1 ,\n\n\n   "hooks":{\n "Stop":[\n]}\n\n}\n\n',
}  # fmt: skip


@pytest.mark.parametrize("agent", FORMATS)
@pytest.mark.parametrize("name", FORMS)
def test_a_file_is_what_it_was_after_the_hook_is_gone(
    agent: str, name: str, tmp_path: Path
) -> None:
    form = FORMATS[agent]
    other = json.dumps(OTHER if form.matcher else OTHER["hooks"][0])  # type: ignore[index]
    text = FORMS[name].replace("{event}", form.event).replace('"{other}"', other)
    text = text.replace("{other}", other)
    if form.root:
        text = text.replace("{", '{"version": 1, ', 1)
    where = written(agent, tmp_path, text)
    where.path.chmod(0o640)
    edit = install(where)
    now = where.path.read_bytes().decode()
    before, after = (json.loads(t.lstrip("\ufeff")) for t in (text, now))
    assert now.count("\n") == now.count("\r\n") or "\r" not in text
    assert after["hooks"][form.event][:-1] == before.get("hooks", {}).get(form.event, [])
    assert {k: v for k, v in after.items() if k != "hooks"} == {
        k: v for k, v in before.items() if k != "hooks"
    }
    if "\n" in text.strip():
        lines = [line.rstrip(" ,") for line in text.splitlines() if "{" not in line]
        assert all(line in now for line in lines)
    assert not agent_hooks.plan_install(where, {}).changes and edit.changes
    remove(where)
    assert where.path.read_bytes().decode() == text
    assert where.path.stat().st_mode & 0o777 == 0o640


COMMENTED = """// mine
{
  "theme": "dark", // the {best} one
  /* hooks: [ */
  "hooks": {
    "BeforeTool": [
      {"matcher": ".*", "hooks": []} // last, "so far"
    ]
    // nothing more
  }
}
"""


def test_comments_stay_where_the_agent_reads_them(tmp_path: Path) -> None:
    where = written("gemini", tmp_path, COMMENTED)
    install(where)
    now = where.path.read_text()
    for comment in (
        "// mine",
        "// the {best} one",
        "/* hooks: [ */",
        '// last, "so far"',
        "// nothing",
    ):
        assert comment in now
    assert len(json_edit.parse(now, comments=True).data["hooks"]["BeforeTool"]) == 2
    remove(where)
    assert where.path.read_text() == COMMENTED
    where = written("claude", tmp_path, COMMENTED)
    with pytest.raises(Refused, match="line 1: no JSON"):
        agent_hooks.plan_install(where, {})


def test_a_hook_that_was_written_by_hand_is_replaced_and_its_neighbours_stay(
    tmp_path: Path,
) -> None:
    ours = {"type": "command", "command": "safe-compose hook --strict"}
    theirs = {"type": "command", "command": "echo 'safe-compose hook'"}
    where = written(
        "claude",
        tmp_path,
        json.dumps(
            {
                "hooks": {
                    "PreToolUse": [
                        {"matcher": "*", "hooks": [theirs, ours]},
                        OTHER,
                        {"hooks": [ours]},
                    ]
                }
            },
            indent=1,
        ),
    )
    install(where)
    groups = json.loads(where.path.read_text())["hooks"]["PreToolUse"]
    assert groups[:2] == [{"matcher": "*", "hooks": [theirs]}, OTHER] and len(groups) == 3
    remove(where)
    assert json.loads(where.path.read_text())["hooks"]["PreToolUse"] == groups[:2]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no key"),
        ('{"a": 1,}', "no key"),
        ('{"a": 1} {}', "more than one value"),
        ("[]", "no object"),
        ('{"hooks": []}', "`hooks` is no object"),
        ('{"hooks": null}', "`hooks` is no object"),
        ('{"hooks": {"PreToolUse": {}}}', "`PreToolUse` is no list"),
        ('{"hooks": {"PreToolUse": ["x"]}}', "an entry of `PreToolUse` is no object"),
        ('{"hooks": {}, "hooks": {}}', "twice"),
        ("[" * 100_000, "more than 64 levels"),
        ('{"a": ' + "9" * 10_000 + "}", "too long"),
        ("\x00", "no JSON"),
    ],
)
def test_a_file_that_the_agent_would_not_read_is_left_alone(
    text: str, why: str, tmp_path: Path
) -> None:
    where = written("claude", tmp_path, text)
    for plan in (
        lambda: agent_hooks.plan_install(where, {}),
        lambda: agent_hooks.plan_removal(where),
    ):
        with pytest.raises(Refused, match=why):
            plan()
    assert where.path.read_text() == text


def test_another_version_of_a_file_is_left_alone(tmp_path: Path) -> None:
    where = written("cursor", tmp_path, '{"version": 2, "hooks": {}}')
    with pytest.raises(Refused, match="its version is 2, not 1"):
        agent_hooks.plan_install(where, {})


def test_files_of_others_and_ways_out_of_the_scope_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    (home / ".claude").mkdir(parents=True)
    outside.mkdir()
    where = place("claude", home)
    (outside / "settings.json").write_text("{}")
    where.path.symlink_to(outside / "settings.json")
    with pytest.raises(Refused, match="out of"):
        agent_hooks.plan_install(where, {})
    where.path.unlink()
    where.path.symlink_to(home / "nothing.json")
    with pytest.raises(Refused, match="symbolic link to nothing"):
        agent_hooks.plan_install(where, {})
    where.path.unlink()
    (home / "dotfiles.json").write_text("{}")
    where.path.symlink_to(home / "dotfiles.json")  # as managers of dotfiles have it
    install(where)
    assert where.path.is_symlink() and "safe-compose" in (home / "dotfiles.json").read_text()
    (home / "dotfiles.json").chmod(0o666)
    with pytest.raises(Refused, match="no safe place"):
        agent_hooks.plan_removal(where)
    (home / "dotfiles.json").chmod(0o600)
    os.link(home / "dotfiles.json", home / "second name")
    with pytest.raises(Refused, match="another name"):
        agent_hooks.apply(agent_hooks.plan_removal(where))
    where.path.unlink()
    where.path.mkdir()
    with pytest.raises(Refused, match="nothing was written"):
        agent_hooks.plan_install(where, {})
    (home / ".cursor").symlink_to(outside)
    with pytest.raises(Refused, match="out of"):
        agent_hooks.plan_install(place("cursor", home), {})
    where = written("codex", home, "{}")
    where.path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(Refused, match="not UTF-8"):
        agent_hooks.plan_install(where, {})
    if os.geteuid() == 0:
        where.path.write_text("{}")
        os.chown(where.path, 65534, 65534)
        with pytest.raises(Refused, match="belongs to"):
            agent_hooks.plan_install(where, {})


def test_a_file_that_changed_since_it_was_shown_is_left_alone(tmp_path: Path) -> None:
    where = written("claude", tmp_path, "{}")
    edit = agent_hooks.plan_install(where, {})
    where.path.write_text('{"more": 1}')
    with pytest.raises(StateChanged, match="meanwhile"):
        agent_hooks.apply(edit)
    fresh = place("codex", tmp_path)
    edit = agent_hooks.plan_install(fresh, {})
    written("codex", tmp_path, "{}")
    with pytest.raises(Refused, match="meanwhile"):
        agent_hooks.apply(edit)
    assert fresh.path.read_text() == "{}"


def test_a_plugin_that_was_edited_is_left_alone(tmp_path: Path) -> None:
    where = place("opencode", tmp_path)
    install(where)
    where.path.write_text(where.path.read_text() + "// mine\n")
    for plan in (
        lambda: agent_hooks.plan_install(where, {}),
        lambda: agent_hooks.plan_removal(where),
    ):
        with pytest.raises(Refused, match="not as safe-compose wrote it"):
            plan()
    assert agent_hooks.list_commands(where.path.read_text(), where) == []


def test_a_path_with_blanks_and_quotes_is_one_word_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / 'it\'s "mine" $(touch x) `y` \\ &; ü'
    folder.mkdir()
    program = folder / "safe-compose"
    program.write_text(f'#!/bin/sh\n# {first_look.MARKER.decode()}\necho "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(program)])
    for agent in FORMATS:
        where = place(agent, tmp_path)
        install(where)
        (command,) = agent_hooks.list_commands(where.path.read_text(), where)
        for shell in filter(None, map(shutil.which, ("sh", "bash", "zsh", "fish"))):
            said = subprocess.run(
                [shell, "-c", command], capture_output=True, text=True, cwd=tmp_path
            )
            assert said.stdout == f"hook --agent {agent}\n", (shell, said.stderr)
    assert not (tmp_path / "x").exists()


def test_a_project_is_the_top_of_its_work_tree_and_its_file_is_for_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "down")
    program = Path(require_program())
    where = place("copilot", tmp_path, "project")
    assert where.path == tmp_path / ".github" / "hooks" / "safe-compose.json"
    by_name = agent_hooks.plan_install(where, {"PATH": str(program.parent)})
    assert '"bash": "safe-compose hook --agent copilot"' in str(by_name.after)
    by_path = agent_hooks.plan_install(where, {"PATH": "/nonexistent"})
    assert str(program) in str(by_path.after)
    agent_hooks.apply(by_name)
    assert where.path.stat().st_mode & 0o777 == 0o644


def test_time_outs_are_in_each_agents_own_unit() -> None:
    found = {
        agent: next(v for k, v in form.handler.items() if k.startswith("timeout"))
        for agent, form in FORMATS.items()
    }
    assert found == {"claude": 10, "codex": 10, "cursor": 10, "gemini": 10_000, "copilot": 10}


def test_hooks_that_are_switched_off_are_named(tmp_path: Path) -> None:
    where = written("gemini", tmp_path, '{"hooksConfig": {"enabled": false}}')
    assert "hooks are off" in " ".join(agent_hooks.plan_install(where, {}).notes)
    where = written("claude", tmp_path, '{"disableAllHooks": true}')
    assert "disableAllHooks" in " ".join(agent_hooks.plan_install(where, {}).notes)
    where = place("codex", tmp_path)
    written("codex", tmp_path, "{}").path.with_name("config.toml").write_text(
        "[features]\nhooks = false\n[[hooks.PreToolUse]]\n[[hooks.PreToolUse.hooks]]\n"
        'type = "command"\ncommand = "safe-compose hook"\n'
    )
    notes = " ".join(agent_hooks.plan_install(where, {}).notes)
    assert "hooks are off" in notes and "Codex runs both" in notes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON, st.sampled_from([None, 0, 2, "\t"]), st.booleans())
def test_the_scanner_reads_what_json_reads(data: object, indent: int | None, ascii_: bool) -> None:
    text = json.dumps(data, indent=indent, ensure_ascii=ascii_)
    assert json_edit.parse(text, comments=True).data == data


@given(st.lists(JSON, max_size=4), JSON, st.sampled_from([None, 2, "\t"]), st.data())
def test_what_is_added_is_the_last_and_what_is_removed_is_that_alone(
    values: list[object], new: object, indent: int | None, data: st.DataObject
) -> None:
    text = json.dumps({"a": values, "b": 1}, indent=indent)
    array = json_edit.parse(text, comments=False).get("a")
    assert array is not None
    longer = json_edit.add(text, array, None, new)
    assert json.loads(longer) == {"a": [*values, new], "b": 1}
    again = json_edit.parse(longer, comments=False).get("a")
    assert again is not None
    at = data.draw(st.integers(0, len(values)))
    shorter = json_edit.remove(longer, again, at)
    left = [*values, new]
    del left[at]
    assert json.loads(shorter) == {"a": left, "b": 1}
    if at == len(values):
        assert shorter == text


@given(st.text(alphabet='{}[],:"\\/* \n01ae', max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for comments in (True, False):
        try:
            found = json_edit.parse(text, comments=comments)
        except json_edit.NotJson:
            continue
        if not comments:
            assert json.loads(text) == found.data
