"""A refusal for programs, and the one approval that a person gives in a terminal."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safe_compose.errors import UsageError
from safe_compose.store.approvals import HOLDS, MOST, WAITS, Approvals, ApprovalSubject, Moment
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker
from testing.stacks import FILES, write_file
from testing.terminal import Person

SECRET = "hunter2-canary"
ASKED = ApprovalSubject(
    argv=("compose", "down", "-v"),
    terms={
        "command": "docker compose down -v",
        "folder": "/srv/shop",
        "engine": "ABCD",
        "volume shop_data": "critical",
    },
    hidden={"the webhook": "https://example.org/secret"},
)


def other_terms(**terms: str) -> ApprovalSubject:
    return replace(ASKED, terms={**ASKED.terms, **terms})


SHOWN: dict[str, Any] = {"argv": ["compose", "down", "-v"], "phrase": "shop"}


class ApprovalClock:
    """Both clocks, turned by hand."""

    def __init__(self) -> None:
        self.moment = Moment(1_700_000_000.0, "boot-1", 5_000.0)

    def __call__(self) -> Moment:
        return self.moment

    def goes_on(self, seconds: float) -> None:
        self.moment = replace(
            self.moment, wall=self.moment.wall + seconds, up=self.moment.up + seconds
        )


@pytest.fixture
def clock() -> ApprovalClock:
    return ApprovalClock()


@pytest.fixture
def store(tmp_path: Path, clock: ApprovalClock) -> Approvals:
    return Approvals(tmp_path / "store", clock=clock)


def approved(store: Approvals) -> str:
    return store.grant(store.ask(ASKED, SHOWN)).code


# -- codes -----------------------------------------------------------------------------------------


def test_an_approval_is_good_once(store: Approvals) -> None:
    assert store.find_granted(ASKED) is None
    code = store.ask(ASKED, SHOWN).code
    assert store.find_granted(ASKED) is None and not store.take(ASKED, code), (
        "a request alone opens nothing"
    )
    store.grant(store.find(code))
    assert store.find_granted(ASKED) == code
    assert store.take(ASKED, code)
    assert store.find_granted(ASKED) is None and not store.take(ASKED, code)


@pytest.mark.parametrize(
    "other",
    [
        {"argv": ("compose", "down", "-v", "--rmi", "all")},
        {"argv": ("compose", "down", "-v ")},
        {"terms": {**ASKED.terms, "folder": "/srv/shop2"}},
        {"terms": {**ASKED.terms, "engine": "EFGH"}},
        {"terms": {**ASKED.terms, "volume shop_data": "disposable"}},
        {"terms": {**ASKED.terms, "volume shop_more": "critical"}},
        {"terms": {name: words for name, words in ASKED.terms.items() if name != "engine"}},
        {"hidden": {"the webhook": "https://example.org/other"}},
        {"hidden": {}},
    ],
)
def test_an_approval_fits_nothing_else(store: Approvals, other: dict[str, Any]) -> None:
    code = approved(store)
    assert store.find_granted(replace(ASKED, **other)) is None
    assert not store.take(replace(ASKED, **other), code)
    assert store.find_granted(ASKED) == code


@pytest.mark.parametrize(("seconds", "holds"), [(0, True), (HOLDS - 1, True), (HOLDS + 1, False)])
def test_an_approval_holds_ten_minutes(
    store: Approvals, clock: ApprovalClock, seconds: float, holds: bool
) -> None:
    code = approved(store)
    clock.goes_on(seconds)
    assert (store.find_granted(ASKED) == code) is holds
    assert store.take(ASKED, code) is holds


def test_a_clock_that_was_set_back_does_not_stretch_it(
    store: Approvals, clock: ApprovalClock
) -> None:
    approved(store)
    clock.goes_on(HOLDS + 1)
    clock.moment = replace(clock.moment, wall=clock.moment.wall - HOLDS)
    assert store.find_granted(ASKED) is None


@pytest.mark.parametrize(
    "change",
    [
        {"boot": "boot-2"},
        {"up": 10.0},
        {"wall": 1_700_000_000.0 - 3600},
        {"wall": 1_700_000_000.0 + 3600},
    ],
)
def test_what_cannot_be_told_from_too_late_is_too_late(
    store: Approvals, clock: ApprovalClock, change: dict[str, Any]
) -> None:
    approved(store)
    clock.moment = replace(clock.moment, **change)
    assert store.find_granted(ASKED) is None


def test_a_request_waits_an_hour_and_then_nobody_can_approve_it(
    store: Approvals, clock: ApprovalClock
) -> None:
    code = store.ask(ASKED, SHOWN).code
    clock.goes_on(WAITS - 1)
    assert store.find(code).code == code
    clock.goes_on(2)
    with pytest.raises(UsageError, match="expired"):
        store.find(code)
    assert list(store.folder.iterdir()) == []


def test_the_same_refusal_again_keeps_its_code_and_another_one_gets_its_own(
    store: Approvals,
) -> None:
    first, second = store.ask(ASKED, SHOWN), store.ask(ASKED, SHOWN)
    other = store.ask(other_terms(folder="/x"), SHOWN)
    assert first.code == second.code != other.code
    assert len(store.all()) == 2


def test_many_requests_are_capped_and_push_no_approval_out(
    store: Approvals, clock: ApprovalClock
) -> None:
    code = approved(store)
    for number in range(3 * MOST):
        clock.goes_on(1)
        last = store.ask(other_terms(folder=f"/{number}"), SHOWN)
    assert len(store.all()) == MOST
    assert store.find_granted(ASKED) == code and store.find(last.code)


def test_a_code_is_read_as_people_type_it(store: Approvals) -> None:
    code = store.ask(ASKED, SHOWN).code
    assert store.find(code.lower()).code == store.find(code.replace("-", "")).code == code
    for wrong in ("", "../../x", "\0", "ZZZZ-ZZZZ", code + "2"):
        with pytest.raises(UsageError):
            store.find(wrong)


def test_requests_are_private_and_hold_no_secret(store: Approvals) -> None:
    store.ask(replace(ASKED, argv=("compose", "-f", f"password={SECRET}", "down", "-v")), SHOWN)
    [file] = store.folder.iterdir()
    assert (
        stat.S_IMODE(file.stat().st_mode) == 0o600
        and stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    )
    assert SECRET not in file.read_text()


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"null", b'{"version": 1}', b"\xff", b"[" * 50_000]
)
def test_a_damaged_file_is_no_approval_and_no_fault(store: Approvals, damage: bytes) -> None:
    code = approved(store)
    (store.folder / f"{code}.json").write_bytes(damage)
    assert store.find_granted(ASKED) is None and store.all() == []


def test_a_file_that_others_can_write_is_no_approval(store: Approvals) -> None:
    code = approved(store)
    (store.folder / f"{code}.json").chmod(0o666)
    assert store.find_granted(ASKED) is None


# -- the whole way ---------------------------------------------------------------------------------


@pytest.fixture
def files(compose_project: ProjectFactory) -> ComposeProject:
    """An app with one critical file volume, running."""
    project = compose_project(FILES)
    project.up()
    write_file(project, "a photo", "uploads/f")
    return project


@pytest.fixture(autouse=True)
def agent(sealed_environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coding agent runs the commands."""
    monkeypatch.setenv("CLAUDECODE", "1")


def refusal(stderr: str) -> dict[str, Any]:
    """The one line of JSON of a refusal, after checking where it stands."""
    lines = stderr.rstrip("\n").split("\n")
    found = [index for index, line in enumerate(lines) if line.startswith("{")]
    assert found == [len(lines) - 2], stderr
    assert lines[0].startswith("safe-compose: ") and lines[-1].startswith(
        "safe-compose: docker was not run ("
    )
    shape = json.loads(lines[-2])
    assert isinstance(shape, dict)
    return shape


@pytest.mark.engine
def test_an_agent_is_refused_a_person_approves_and_the_same_command_goes_through_once(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    command = ("compose", "down", "-v")
    first = safe_compose(*command, cwd=files.folder)
    assert first.returncode == 77
    said = refusal(first.stderr)
    assert (said["version"], said["refused_by"], said["exit_code"], said["docker_was_run"]) == (
        1,
        "safe-compose",
        77,
        False,
    )
    assert said["argv"] == list(command) and said["project"] == files.name
    assert said["endpoint"] == os.environ.get(
        "DOCKER_HOST", "unix:///var/run/docker.sock"
    ) and said["folder"] == os.path.realpath(files.folder)
    assert [v["name"] for v in said["volumes"]] == [f"{files.name}_uploads"]
    assert "person" in said["who_decides"]
    code = said["approve"]["code"]
    assert (
        said["approve"]["command"] == f"safe-compose approve {code}"
        and code in first.stderr.split("{")[0]
    )

    # the agent cannot do it itself
    alone = safe_compose("approve", code, cwd=files.folder, input=f"{files.name}\n")
    assert alone.returncode == 77 and "terminal" in alone.stderr
    assert refusal(safe_compose(*command, cwd=files.folder).stderr)["approve"]["code"] == code
    waiting = json.loads(safe_compose("approve", "--list", "--json", cwd=files.folder).stdout)
    assert [(r["code"], r["state"]) for r in waiting["requests"]] == [(code, "waiting")]

    person = Person("approve", code, cwd=files.folder)
    shown = person.sees("type '")
    assert (
        f"{files.name}_uploads" in shown
        and os.path.realpath(files.folder) in shown
        and "docker compose down -v" in shown
    )
    for again in ("Once more", "nothing was approved"):
        person.types("nonsense")
        person.sees(again)
    assert person.leaves_with() == 77
    assert safe_compose(*command, cwd=files.folder).returncode == 77

    person = Person("approve", code.lower(), cwd=files.folder)
    person.sees("type '")
    person.types(files.name.upper())
    person.sees("Once more")
    person.types(files.name)
    assert person.leaves_with() == 0, person.last_words

    # another folder, other words, another volume: not what was approved
    elsewhere = files.folder / "sub"
    elsewhere.mkdir()
    assert (
        safe_compose("compose", "-f", "../compose.yaml", "down", "-v", cwd=elsewhere).returncode
        == 77
    )
    assert (
        safe_compose("compose", "down", "-v", "--remove-orphans", cwd=files.folder).returncode == 77
    )
    assert safe_compose("compose", "down", "-v", "--skip-backup", cwd=files.folder).returncode == 77
    assert files.volumes() == [f"{files.name}_uploads"]

    through = safe_compose(*command, cwd=files.folder)
    assert through.returncode == 0, through.stderr
    assert (
        f"approved once by a person ({code})" in through.stderr and "is verified" in through.stderr
    )
    assert files.volumes() == []
    kept = json.loads(safe_compose("list", "--json", cwd=files.folder).stdout)["backups"]
    assert [b["reason"] for b in kept if b["project"] == files.name] == ["pre-delete"]
    journal = safe_compose("journal", "--json", cwd=files.folder).stdout
    assert f"approved once ({code})" in journal

    files.up()
    write_file(files, "another photo", "uploads/g")
    again = safe_compose(*command, cwd=files.folder)
    assert again.returncode == 77
    assert refusal(again.stderr)["approve"]["code"] != code
    assert files.volumes() == [f"{files.name}_uploads"]


@pytest.mark.engine
def test_an_upload_into_a_layer_is_shown_and_changes_no_approval(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    files.exec("app", "mkdir", "/app/media")
    write_file(files, "a note", "media/1")
    code = refusal(safe_compose("compose", "down", "-v", cwd=files.folder).stderr)["approve"][
        "code"
    ]
    person = Person("approve", code, cwd=files.folder)
    assert "1 file in /app/media" in person.sees("type '")
    person.types(files.name)
    assert person.leaves_with() == 0, person.last_words
    write_file(files, "another note", "media/2")
    assert safe_compose("compose", "down", "-v", cwd=files.folder).returncode == 0


@pytest.mark.engine
def test_an_approval_does_not_cover_volumes_that_were_not_shown(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    code = refusal(safe_compose("compose", "down", "-v", cwd=files.folder).stderr)["approve"][
        "code"
    ]
    person = Person("approve", code, cwd=files.folder)
    person.sees("type '")
    person.types(files.name)
    assert person.leaves_with() == 0, person.last_words
    compose = files.folder / "compose.yaml"
    compose.write_text(compose.read_text() + "  more:\n")
    docker(
        "volume",
        "create",
        "--label",
        f"com.docker.compose.project={files.name}",
        f"{files.name}_more",
    )
    answer = safe_compose("compose", "down", "-v", cwd=files.folder)
    assert answer.returncode == 77
    assert refusal(answer.stderr)["approve"]["code"] != code
    assert files.volumes() == sorted([f"{files.name}_more", f"{files.name}_uploads"])


@pytest.mark.engine
def test_words_that_decide_by_themselves_get_no_code(
    files: ComposeProject, safe_compose: SafeCompose
) -> None:
    for words in (("--confirm", SECRET), ("--skip-backup",)):
        answer = safe_compose(*words, "compose", "down", "-v", cwd=files.folder)
        assert answer.returncode == 77
        assert refusal(answer.stderr)["approve"] is None
        assert SECRET not in answer.stderr
    assert refusal(
        safe_compose("--non-interactive", "compose", "down", "-v", cwd=files.folder).stderr
    )["approve"]["code"]


@pytest.mark.engine
def test_other_refusals_are_told_to_programs_as_well(
    files: ComposeProject, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    away = safe_compose("-H", "unix:///nowhere.sock", "compose", "down", "-v", cwd=files.folder)
    assert away.returncode == 69
    said = refusal(away.stderr)
    assert said["exit_code"] == 69 and said["volumes"] is None and said["approve"] is None
    ci = safe_compose(
        "--non-interactive",
        "--backup-first",
        "compose",
        "down",
        "-v",
        cwd=files.folder,
        env={"CI": "1", "SAFE_COMPOSE_HOME": ""},
    )
    assert ci.returncode == 73 and refusal(ci.stderr)["exit_code"] == 73
    (tmp_path / "file").touch()
    full = safe_compose(
        "compose", "down", "-v", cwd=files.folder, env={"SAFE_COMPOSE_HOME": str(tmp_path / "file")}
    )
    assert full.returncode in (73, 77) and refusal(full.stderr)["approve"] is None
    assert files.volumes() == [f"{files.name}_uploads"]


@pytest.mark.engine
def test_a_person_at_a_terminal_sees_no_json(files: ComposeProject) -> None:
    person = Person("compose", "down", "-v", cwd=files.folder)
    for _ in range(2):
        person.sees("type '")
        person.types("no")
    assert person.leaves_with() == 77
    assert '"refused_by"' not in person.last_words


def test_approve_is_used_with_a_code_or_list(safe_compose: SafeCompose) -> None:
    for words in (("approve",), ("approve", "A", "--list"), ("approve", "A", "--json")):
        assert safe_compose(*words).returncode == 64
    assert json.loads(safe_compose("approve", "--list", "--json").stdout) == {
        "version": 1,
        "requests": [],
    }
