"""`safe-compose hook --install`, and the plugin of OpenCode, as they are run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("safe-compose"))
SETTINGS = """{
  "env": {
    "SOME_API_KEY": "sk-hunter2"
  }
}
"""


def run(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [PROGRAM, "hook", *words],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
    )


def test_it_is_shown_first_and_written_after_a_yes(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    path = home / ".claude" / "settings.json"
    path.parent.mkdir(parents=True)
    path.write_text(SETTINGS)
    asked = run(home, "--install", "claude")
    assert asked.returncode == 77 and "add --yes" in asked.stderr
    assert '+  "hooks": {' in asked.stdout and "hunter2" not in asked.stdout
    assert path.read_text() == SETTINGS
    shown = json.loads(run(home, "--install", "claude", "--json").stdout)
    assert not shown["done"] and "hunter2" not in shown["hooks"][0]["diff"]
    assert path.read_text() == SETTINGS
    done = run(home, "--install", "claude", "--yes", "--json")
    assert json.loads(done.stdout)["done"] and done.returncode == 0
    assert json.loads(path.read_text())["env"] == {"SOME_API_KEY": "sk-hunter2"}
    again = run(home, "--install", "claude")
    assert again.returncode == 0 and "nothing was written" in again.stderr
    assert run(home, "--uninstall", "claude", "--yes").returncode == 0
    assert path.read_text() == SETTINGS


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--install", "nobody"), 64),
        (("--install", "claude", "--scope", "world"), 64),
        (("--install", "claude", "--uninstall", "claude"), 64),
        (("--install", "claude", "--agent", "claude"), 64),
        (("--uninstall", "claude", "--strict"), 64),
    ],
)
def test_wrong_options_write_nothing(words: tuple[str, ...], code: int, tmp_path: Path) -> None:
    done = run(tmp_path, *words, "--yes")
    assert done.returncode == code and "Traceback" not in done.stderr
    assert not list(tmp_path.glob(".claude*"))


DRIVER = """
import { pathToFileURL } from "node:url"
const { SafeCompose } = await import(pathToFileURL(process.argv[1]))
const hooks = await SafeCompose({ directory: process.cwd() })
for (const args of JSON.parse(process.argv[2])) {
  try {
    await hooks["tool.execute.before"]({ tool: "bash", sessionID: "s", callID: "c" }, { args })
    console.log("runs")
  } catch (error) {
    console.log(error.message)
  }
}
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_the_plugin_of_opencode_throws(tmp_path: Path) -> None:
    assert run(tmp_path, "--install", "opencode", "--yes").returncode == 0
    plugin = tmp_path / ".config" / "opencode" / "plugins" / "safe-compose.js"
    module = tmp_path / "plugin.mjs"

    def call(text: str, *args: object) -> list[str]:
        module.write_text(text)
        words = ["node", "--input-type=module", "-e", DRIVER, str(module), json.dumps(args)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    text = plugin.read_text()
    said = call(text, {"command": "docker ps"}, {"command": "/usr/bin/docker volume rm x"}, {})
    assert said[0] == "runs" and "goes round safe-compose" in said[1] and "no command" in said[2]
    (gone,) = call(text.replace(f'["{PROGRAM}"', '["/nonexistent"'), {"command": "ls"})
    assert "does not start (ENOENT)" in gone
    (failed,) = call(text.replace(f'["{PROGRAM}"', '["/bin/false"'), {"command": "ls"})
    assert "could not judge" in failed
