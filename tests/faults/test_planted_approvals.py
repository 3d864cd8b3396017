"""What changes between a person's approval and the command that it was for: it asks again, and says
what changed.
"""

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from safe_compose.store.approvals import Approvals, ApprovalSubject
from testing.fixtures import Completed, ProjectFactory, SafeCompose
from testing.private_engine import private_engine
from testing.projects import ComposeProject, docker, read_in_volume
from testing.stacks import FILES
from testing.terminal import Person

DOWN = ("compose", "down", "-v")
AGE = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


def make_volume(project: ComposeProject) -> str:
    """A critical volume of the project that nothing runs on."""
    name = f"{project.name}_uploads"
    labels = {"com.docker.compose.project": project.name, "com.docker.compose.volume": "uploads"}
    docker(
        "volume",
        "create",
        *(word for pair in labels.items() for word in ("--label", "=".join(pair))),
        name,
    )
    read_in_volume(name, "dd", "of=/v/f", "status=none", input="a photo")
    return name


@pytest.fixture
def files(compose_project: ProjectFactory) -> ComposeProject:
    project = compose_project(FILES)
    make_volume(project)
    return project


@pytest.fixture(autouse=True)
def agent(sealed_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coding agent runs the commands."""
    monkeypatch.setenv("CLAUDECODE", "1")


def code_of(answer: Completed) -> str:
    assert answer.returncode == 77, answer.stderr
    line = next(line for line in answer.stderr.splitlines() if line.startswith("{"))
    return str(json.loads(line)["approve"]["code"])


def approve(project: ComposeProject, code: str, **env: str) -> str:
    person = Person("approve", code, cwd=project.folder, env=env)
    shown = person.sees("type '")
    person.types(project.name)
    assert person.leaves_with() == 0, person.last_words
    return shown


@contextmanager
def planted_file(path: Path, text: str) -> Iterator[None]:
    before = path.read_bytes() if path.exists() else None
    path.write_text(text)
    try:
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


SETTINGS = {
    'safety = "trash"': ("[backup]\nsafety = 'trash'\n", "NO COPY IS MADE"),
    'safety = "both"': ("[backup]\nsafety = 'both'\n", "moved into the trash"),
    "recipients": (f"[encrypt]\nrecipients = ['{AGE}']\n", "encrypted for was 'nobody', and is"),
    "trial_limit": ("[backup]\ntrial_limit = 0\n", "setting trial_limit was"),
    "patience": ("[backup]\npatience = '2s'\n", "setting patience was"),
    "stop_timeout": ("[backup]\nstop_timeout = 1\n", "setting stop_timeout was"),
    "method": ("[backup]\nmethod = 'physical'\n", "setting method was"),
    "max_size": ("[store]\nmax_size = '1GiB'\n", "setting max_size was"),
    "retention": ("[retention]\nkeep_last = 1\n", "setting retention was"),
    "tier": ("[volumes]\nuploads = 'important'\n", "uploads was 'critical"),
    "webhook": (
        "[schedule]\nwebhook = 'https://example.org/hook'\n",
        "the setting webhook changed",
    ),
}


@pytest.mark.thorough
@pytest.mark.engine
def test_settings_that_changed_after_an_approval_ask_again(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    volume = f"{files.name}_uploads"
    shown = approve(files, code_of(safe_compose(*DOWN, cwd=files.folder)))
    for words in (
        "first    a verified backup",
        "encrypted for nobody",
        "critical",
        volume,
        "trial_limit=",
    ):
        assert words in shown, shown
    for name, (text, words) in SETTINGS.items():
        with planted_file(files.folder / "safe-compose.toml", text):
            answer = safe_compose(*DOWN, cwd=files.folder)
        assert answer.returncode in (77, 78), (name, answer.stderr)
        if answer.returncode == 77 and "was given for another plan" in answer.stderr:
            assert words in answer.stderr, (name, answer.stderr)
        assert "docker was not run (77)" in answer.stderr or answer.returncode == 78, name
        assert files.volumes() == [volume], name
    through = safe_compose(*DOWN, cwd=files.folder)
    assert through.returncode == 0, through.stderr
    assert files.volumes() == []


@pytest.mark.thorough
@pytest.mark.engine
def test_variables_files_and_volumes_that_changed_after_an_approval_ask_again(
    files: ComposeProject, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    volume = f"{files.name}_uploads"
    approve(files, code_of(safe_compose(*DOWN, cwd=files.folder)))

    def refused(words: str, *argv: str, **env: str) -> None:
        answer = safe_compose(*(argv or DOWN), cwd=files.folder, env=env)
        assert answer.returncode == 77 and words in answer.stderr, (words, answer.stderr)
        assert files.volumes() == [volume]

    refused("CI was 'no', and is 'yes'", CI="true")
    home = tmp_path / "another"
    home.mkdir(0o700)
    refused("no terminal to confirm it on", SAFE_COMPOSE_HOME=str(home))
    with planted_file(files.folder / "compose.yaml", FILES.replace('"100000"', '"200000"')):
        refused("what the compose files say changed")
    # recreated meanwhile: the same name, driver and labels, other data
    docker("volume", "rm", volume)
    make_volume(files)
    refused(f"volume {volume} was")


@pytest.mark.thorough
@pytest.mark.engine
def test_another_engine_behind_the_same_context_name_asks_again(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    volume = f"{files.name}_uploads"
    docker("context", "create", "mine", "--docker", "host=unix:///var/run/docker.sock")
    command = ("--context", "mine", *DOWN)
    approve(files, code_of(safe_compose(*command, cwd=files.folder)))
    with private_engine(["busybox:latest"]) as other:
        other.docker(
            "volume", "create", "--label", f"com.docker.compose.project={files.name}", volume
        )
        other.docker("volume", "create", f"{files.name}_x")
        docker("context", "update", "mine", "--docker", f"host={other.host}")
        with planted_file(files.folder / "safe-compose.toml", "[volumes]\nuploads = 'critical'\n"):
            answer = safe_compose(*command, cwd=files.folder)
        assert answer.returncode == 77 and volume in other.docker("volume", "ls", "-q").stdout, (
            answer.stderr
        )
        assert "daemon was" in answer.stderr, (
            answer.stderr
        )  # the two share the key file that an id is made of
    assert files.volumes() == [volume]


# -- the files of approvals ------------------------------------------------------------------------

ASKED = ApprovalSubject(
    ("compose", "down", "-v"),
    {"command": "docker compose down -v", "folder": "/srv/shop", "engine": "A"},
)


@pytest.fixture
def store(tmp_path: Path) -> Approvals:
    return Approvals(tmp_path / "store")


def granted(store: Approvals) -> Path:
    code = store.grant(store.ask(ASKED, {"phrase": "shop"})).code
    assert store.find_granted(ASKED) == code
    return store.folder / f"{code}.json"


def _symlink(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _second_name(path: Path) -> None:
    (path.parent / "again").hardlink_to(path)


def _endless(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(1 << 40)


def _readable(path: Path) -> None:
    path.chmod(0o644)


def _folder_of_all(path: Path) -> None:
    path.parent.chmod(0o777)


def _linked_folder(path: Path) -> None:
    folder = path.parent
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def _somebody_elses(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(path, 12345, 12345)


def _folder_of_somebody_else(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(path.parent, 12345, 12345)


PLANTS: Sequence[Callable[[Path], None]] = (
    _symlink, _fifo, _second_name, _endless, _readable, _folder_of_all, _linked_folder,
    _somebody_elses, _folder_of_somebody_else
)  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
def test_a_file_that_is_not_ours_alone_approves_nothing(
    store: Approvals, plant: Callable[[Path], None]
) -> None:
    plant(granted(store))
    assert store.find_granted(ASKED) is None and not store.any_approved()


def test_what_the_person_was_shown_cannot_be_edited(store: Approvals) -> None:
    """Words that show less than what would be let through: the approval is then none."""
    path = granted(store)
    for change in (
        {"terms": {**ASKED.terms, "engine": "B"}},
        {"digest": "0" * 64},
        {"terms": {}},
        {"code": "AAAA-AAAA"},
    ):
        before = path.read_bytes()
        path.write_text(json.dumps({**json.loads(before), **change}))
        assert store.find_granted(ASKED) is None, change
        path.write_bytes(before)
    assert store.find_granted(ASKED)


def test_a_copy_of_a_used_approval_is_none(store: Approvals, tmp_path: Path) -> None:
    path = granted(store)
    shutil.copy2(path, tmp_path / "copy")
    code = str(store.find_granted(ASKED))
    assert store.take(ASKED, code) and not store.take(ASKED, code)
    shutil.copy2(tmp_path / "copy", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert store.find_granted(ASKED) is None and not store.take(ASKED, code)
    shutil.copy2(tmp_path / "copy", path.with_name("ZZZZ-2222.json"))  # nor under another name
    assert store.find_granted(ASKED) is None


def test_a_refusal_says_what_changed_in_one_line(store: Approvals) -> None:
    path = granted(store)
    now = ApprovalSubject(
        ASKED.argv, {**ASKED.terms, "engine": "B\n" + "x" * 1000, "first": "nothing"}
    )
    [(code, changes)] = store.list_outdated(now)
    assert code == path.stem
    assert changes[0].startswith("engine was 'A', and is 'B") and len(changes[0]) < 300
    assert changes[1] == "first is new: 'nothing'"
    assert store.list_outdated(ApprovalSubject(ASKED.argv, {**ASKED.terms, "folder": "/x"})) == []
