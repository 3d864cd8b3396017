"""Every table and list of our verbs on 60, 80 and 200 columns, and in a pipe: nothing of Python's,
no name and no id cut or broken over two lines, nothing wider than the terminal.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from safe_compose.core.backup import Backup
from safe_compose.core.short_id import find_end
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import CommandLine, Journal
from safe_compose.store.schedules import Schedule, Schedules
from safe_compose.system.process import read_clock, stamp
from testing import screen
from testing.backups import keep
from testing.fixtures import ProjectFactory
from testing.projects import ComposeProject, docker, unique, volume_exists

COMPOSE = """\
services:
  app: {image: "busybox:latest", volumes: ["data:/data", "photos:/photos", "prometheus-data-of-a-very-long-name:/p"]}
volumes: {data: , photos: , prometheus-data-of-a-very-long-name: }
"""
VERBS: tuple[tuple[str, ...], ...] = (
    ("list",), ("list", "--all", "--utc"), ("show", "ID"), ("show", "PARTIAL"), ("verify", "--all"),
    ("volumes",), ("volumes", "--all"), ("journal",), ("offsite", "list"), ("offsite", "status"),
    ("schedule", "status"), ("trash", "list"), ("about",), ("approve", "--list"),
    ("forget", "--keep-last", "1", "--dry-run"),
)  # fmt: skip
OF_PYTHON = re.compile(
    r"\b(True|False|None|PosixPath|datetime|NamedTuple|dict|Traceback)\b|\[\]|\{\}|\{'|\['|\(\)|<[a-z_.]+ object"
)
"""What no person should read."""
FOR_PROGRAMS = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}")
"""How JSON and a pipe write a time; people read ages, or `2026-11-30 14:05 UTC`."""


@dataclass(frozen=True)
class Scene:
    """A project with volumes, backups, a schedule, copies elsewhere, runs and something in the
    trash. Nothing of it runs.
    """

    project: ComposeProject
    store: Path
    home: Path
    backups: list[Backup]
    names: list[str]

    @property
    def env(self) -> dict[str, str]:
        return {
            **os.environ,
            "SAFE_COMPOSE_HOME": str(self.store),
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
        }

    def words(self, *words: str) -> tuple[str, ...]:
        marks = {"ID": self.backups[-1].id, "PARTIAL": find_end(self.backups[0].id)}
        return tuple(marks.get(word, word) for word in words)

    def show(self, *words: str, width: int = 80, **env: str) -> list[str]:
        written = self.write(*words, width=width, **env)
        return screen.emulate(written, width)

    def write(self, *words: str, width: int = 80, messages: bool = False, **env: str) -> bytes:
        return screen.run(
            *self.words(*words),
            width=width,
            cwd=self.project.folder,
            env={**self.env, **env},
            messages=messages,
        )

    def pipe(self, *words: str, **env: str) -> str:
        here = self.project.folder
        return screen.pipe(*self.words(*words), cwd=here, env={**self.env, **env})


@pytest.fixture(scope="module")
def scene(
    module_compose_project: ProjectFactory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    project = module_compose_project(COMPOSE, name=unique("dating"))
    home = tmp_path_factory.mktemp("home")
    store = home / "safe-compose"
    place = tmp_path_factory.mktemp("nas")
    settings = home / ".config/safe-compose/config.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'[offsite.nas]\nurl = "{place.as_uri()}"\n')
    engine_id = docker("info", "--format", "{{.ID}}").stdout.strip()
    project.docker("compose", "create", "--pull", "never")
    names = [
        f"{project.name}_{key}" for key in ("data", "photos", "prometheus-data-of-a-very-long-name")
    ]
    catalogue = Catalogue.at(store)
    backups = [keep(catalogue, names, project=project.name, engine_id=engine_id) for _ in range(3)]
    backups += [
        keep(catalogue, names[:1], project="a-project-of-somebody-else", reason="pre-delete")
    ]
    for _ in range(18):
        keep(catalogue, ["blog_data"], project="blog", verify=False)
    journal = Journal(store)
    for number in range(3):
        run = journal.begin(
            journal.new_id(), CommandLine(["compose", "down", "-v"]), project=project.name
        )
        if number:
            run.step("ended", outcome="docker exited with 0")
    now = stamp(read_clock())
    schedules = Schedules(store)
    schedules.put(
        Schedule(
            project.name,
            str(project.folder),
            ("03:00", "15:00"),
            now,
            "cron",
            now,
            now,
            good=now,
            backup=backups[0].id,
        )
    )
    schedules.put(Schedule("blog", "/srv/blog", ("03:00",), "2026-01-01T00:00:00Z"))
    made = Scene(project, store, home, backups, names)
    made.pipe("offsite", "push", backups[0].id)
    thrown = unique("thrown")
    docker("volume", "create", thrown)
    put = ("busybox:latest", "touch", "/v/x")
    docker("run", "--rm", "--network", "none", "-v", f"{thrown}:/v", *put)
    words = (screen.PROGRAM, "volume", "rm", thrown, "--confirm", f"trash {thrown}")
    subprocess.run(words, check=True, env=made.env, cwd=project.folder)
    assert not volume_exists(thrown)
    yield made
    made.pipe("trash", "empty", "--confirm", "delete 1 item", thrown)


WIDTHS = (60, 80, 200)


@pytest.mark.engine
@pytest.mark.thorough
@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_a_table_fits_its_terminal_and_shows_every_name_whole(
    words: tuple[str, ...], scene: Scene
) -> None:
    whole = {*scene.names, scene.project.name, *(b.id for b in scene.backups)}
    for width in WIDTHS:
        written = scene.write(*words, width=width, NO_COLOR="1", TERM="dumb").decode()
        lines = screen.emulate(written.encode(), width)
        text = "\n".join(lines)
        assert not OF_PYTHON.search(text), (width, text)
        assert not FOR_PROGRAMS.search(text), (width, text)
        raw = [line.rstrip() for line in written.splitlines()]
        assert all(len(line) <= width or " " not in line for line in raw), (width, text)
        seen = set(re.split(r"[\s,;:()]+", text)) - whole
        cut = [w for w in seen for name in whole if len(w) > 10 and name.startswith(w)]
        assert not cut, (width, cut, text)
        wanted = names_of(scene, words)
        assert wanted <= seen | whole.intersection(text.split()), (width, wanted, text)
    assert not OF_PYTHON.search(scene.pipe(*words))


@pytest.mark.engine
def test_volumes_says_first_what_would_be_lost_and_a_pipe_says_it_last(scene: Scene) -> None:
    shown = " ".join(line.strip() for line in scene.show("volumes", width=120))
    assert shown.startswith(f"If this machine died now: {scene.project.name} loses everything")
    assert "whether the copy at nas is good is unknown" in shown or "copy at nas" in shown
    names, *rows = scene.pipe("volumes").splitlines()
    assert names.split("\t")[-1] == "off_this_machine" and len(rows) == len(scene.names)


MESSAGES: tuple[tuple[str, ...], ...] = (
    ("show", "an-id-that-nobody-has-ever-seen-here"), ("undo", "--dry-run"), ("undo", "--project", "nobody"),
    ("restore", "ID", "--dry-run"),
    ("restore", "ID", "--volume", "prometheus-data-of-a-very-long-name"),
    ("restore", "ID", "--into", "another-project", "--dry-run"),
    ("restore", "ID", "--path", "a/b/c", "--dry-run"),
    ("protect", "prometheus-data-of-a-very-long-name"), ("unprotect", "prometheus-data", "--yes"),
    ("verify", "--volume", "other"), ("forget", "another-id-that-nobody-has-ever-seen"),
    ("offsite", "push", "--to", "a-destination-that-is-not-configured"), ("approve",),
    ("backup", "--volume", "prometheus-data-of-a-very-long-name"), ("rotate-password", "app"),
    ("schedule", "remove", "--dry-run"), ("schedule", "cron"), ("trash", "restore", "something"),
    ("start", "--dry-run"), ("audit", "a-folder-that-is-not-there"),
    ("shell", "bash", "--json"), ("recover",), ("list", "--jsn"),
)  # fmt: skip


@pytest.mark.engine
@pytest.mark.parametrize("words", MESSAGES, ids=" ".join)
def test_no_word_of_a_message_goes_over_two_rows(words: tuple[str, ...], scene: Scene) -> None:
    """Names, ids, paths and the commands to copy, in faults too."""
    for width in (60, 80):
        written = scene.write(*words, width=width, messages=True)
        text = "\n".join(screen.emulate(written, width))
        assert not screen.find_broken(written, width), (width, text)
        assert not OF_PYTHON.search(text) and not FOR_PROGRAMS.search(text), (width, text)


def names_of(scene: Scene, words: tuple[str, ...]) -> set[str]:
    """What must be seen whatever the width is."""
    first, newest = scene.backups[0], scene.backups[2]
    match words[0]:
        case "volumes":
            return {*scene.names, "critical"}
        case "list":
            return {find_end(newest.id)} if "--all" in words else set()
        case "show":
            return {(words[1] == "ID" and scene.backups[-1].id) or first.id}
        case "schedule":
            return {"blog", scene.project.name}
        case "offsite" | "forget" | "verify":
            return {find_end(first.id)}
    return set()
