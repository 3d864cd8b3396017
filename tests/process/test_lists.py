"""Lists in a pipe, colours, empty lists and short ids: a store of backups, and no engine."""

import os
import re
from pathlib import Path

import pytest

from safe_compose.core.short_id import find_end
from safe_compose.store.catalogue.catalogue import Catalogue
from testing import screen
from testing.backups import fill, keep
from testing.fixtures import SafeCompose

NO_ENGINE = {"DOCKER_HOST": "unix:///nowhere.sock"}
COLOR = "\x1b["


@pytest.fixture
def store() -> Path:
    return Path(os.environ["SAFE_COMPOSE_HOME"])


def on_terminal(*words: str, cwd: Path, **env: str) -> str:
    return screen.run(*words, width=100, cwd=cwd, env={**os.environ, **NO_ENGINE, **env}).decode()


def test_a_pipe_gets_a_line_for_each_backup_with_exact_values(
    store: Path, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    fill(store, 25, projects=1)
    names, *rows = [line.split("\t") for line in safe_compose("list").stdout.splitlines()]
    assert names == ["id", "project", "created", "size", "verified", "reason", "off-site", "volumes",
                     "note"]  # fmt: skip
    assert len(rows) == 25 and all(len(row) == len(names) for row in rows)
    assert rows[0] == [
        "20260125T072700Z-000018", "project-0", "2026-01-25T07:27:00Z", str(3 << 20), "L3",
        "manual", "", "project-0_postgres_data,project-0_uploads", "",
    ]  # fmt: skip
    shown = on_terminal("list", cwd=tmp_path)
    assert shown.count("project-0 ") == 20 and "5 older ones: safe-compose list --all" in shown
    assert on_terminal("list", "--all", cwd=tmp_path).count("project-0 ") == 25
    assert "2026-01-25 07:27:00 UTC" in on_terminal("list", "--utc", cwd=tmp_path)
    files = safe_compose("show", "000018").stdout
    assert "\n# files\nfile\tkind\tsize\t" in files and "\n# evidence\nlevel\t" in files
    shown = on_terminal("show", "000018", cwd=tmp_path)
    assert "safe-compose show 000018 --verbose" in shown and "levels" not in shown
    assert "levels" in on_terminal("show", "000018", "--verbose", cwd=tmp_path)


def test_colors_are_for_terminals_unless_they_are_forced_or_not_wanted(
    store: Path, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    fill(store, 2)
    assert COLOR in on_terminal("list", cwd=tmp_path)
    assert f"{COLOR}32m" not in on_terminal("list", cwd=tmp_path, NO_COLOR="1")
    plain = safe_compose("list").stdout
    forced = safe_compose("list", env={"FORCE_COLOR": "1", "TERM": "xterm"}).stdout
    assert COLOR not in plain and f"{COLOR}32mL3{COLOR}0m" in forced
    assert re.sub(r"\x1b\[[0-9;]*m", "", forced) == plain, "it changes nothing else"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list",), "make one: safe-compose backup"),
        (("list", "--project", "shop"), "no backups of project shop"),
        (("forget", "--keep-last", "1", "--dry-run"), "make one: safe-compose backup"),
        (("journal",), "no guarded commands yet"),
        (("schedule", "status"), "safe-compose schedule install"),
        (("offsite", "status"), "no copies elsewhere"),
        (("approve", "--list"), "nothing waits for an approval"),
    ],
)
def test_an_empty_list_says_what_is_missing_and_what_to_do(
    words: tuple[str, ...], said: str, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    assert said in " ".join(on_terminal(*words, cwd=tmp_path).split())
    piped = safe_compose(*words, env=NO_ENGINE)
    assert said in piped.stderr and len(piped.stdout.splitlines()) == 1


def test_a_short_id_is_taken_wherever_an_id_is_and_never_guessed(
    store: Path, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    place = ("--to", f"file://{tmp_path}/place")
    (tmp_path / "place").mkdir()
    kept = [keep(Catalogue.at(store), verify=False) for _ in range(2)]
    short = find_end(kept[0].id)
    for words in (
        ("show", short),
        ("verify", short),
        ("forget", "--dry-run", short),
        ("offsite", "push", short, *place),
        ("offsite", "pull", short, *place),
        ("offsite", "verify", short, *place),
        ("offsite", "status", short),
    ):
        answer = safe_compose(*words, env=NO_ENGINE)
        assert answer.returncode == 0 and kept[0].id in answer.stdout, (words, answer)
    twin = Path(kept[0].path)
    twin.rename(twin.with_name(f"20200101T000000Z-{find_end(kept[1].id)}"))
    unclear = safe_compose("show", find_end(kept[1].id))
    assert unclear.returncode == 64 and unclear.stderr.count(find_end(kept[1].id)) >= 3
    for word in ("", "*", "../shop", "a\nb", "\x1b[2J", "3f9", "x" * 300):
        answer = safe_compose("show", word)
        assert answer.returncode == 64 and "\x1b" not in answer.stderr, (word, answer)
