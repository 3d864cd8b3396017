"""Settings, labels and compose files that somebody else planted: what they say must cost nobody a
volume.
"""

import itertools
import json
import os
import pwd
import re
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from safe_compose.errors import ConfigError
from safe_compose.settings.load import load
from safe_compose.system import trusted_file
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, read_in_volume, unique, volume_exists
from testing.stacks import FILES, JOB, write_file
from testing.terminal import Person

STRANGER = pwd.getpwnam("nobody")
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give a file to another user"
)


def settings_of(folder: Path, text: str) -> Path:
    path = folder / "safe-compose.toml"
    path.write_text(text)
    return path


def users_file(home: Path, text: str) -> Path:
    path = home / ".config/safe-compose/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def volume(lab: None) -> Iterator[str]:
    """A volume that nobody's project made, with a file in it."""
    name = unique("planted")
    docker("volume", "create", name)
    read_in_volume(name, "dd", "of=/v/one", "status=none", input="a photo")
    yield name
    docker("volume", "rm", "--force", name, check=False)


def content(volume: str) -> str:
    return read_in_volume(volume, "cat", "/v/one")


# -- who can have written a file -------------------------------------------------------------------


def make_writable(folder: Path) -> None:
    settings_of(folder, DISPOSABLE).chmod(0o666)


def make_group_writable(folder: Path) -> None:
    settings_of(folder, DISPOSABLE).chmod(0o620)


def make_folder_writable(folder: Path) -> None:
    settings_of(folder, DISPOSABLE)
    folder.chmod(0o777)


def make_parent_writable(folder: Path) -> None:
    settings_of(folder, DISPOSABLE)
    folder.parent.chmod(0o775)


def make_link_through_writable(folder: Path) -> None:
    open_folder = folder.parent / "open"
    (open_folder / "in").mkdir(parents=True)
    settings_of(open_folder / "in", DISPOSABLE)
    open_folder.chmod(0o777)
    (folder / "safe-compose.toml").symlink_to(open_folder / "in" / "safe-compose.toml")


def give_file_away(folder: Path) -> None:
    os.chown(settings_of(folder, DISPOSABLE), STRANGER.pw_uid, STRANGER.pw_gid)


def give_file_away_in_sticky(folder: Path) -> None:
    give_file_away(folder)
    folder.chmod(0o1777)


def give_folder_away(folder: Path) -> None:
    settings_of(folder, DISPOSABLE)
    os.chown(folder, STRANGER.pw_uid, STRANGER.pw_gid)


def give_folder_on_the_way_away(folder: Path) -> None:
    settings_of(folder, DISPOSABLE)
    os.chown(folder.parent, STRANGER.pw_uid, STRANGER.pw_gid)


def second_name_in_sticky(folder: Path) -> None:
    elsewhere = folder.parent / "mine.toml"
    elsewhere.write_text(DISPOSABLE)
    (folder / "safe-compose.toml").hardlink_to(elsewhere)
    folder.chmod(0o1777)


DISPOSABLE = '[volumes]\n"*" = "disposable"\nkept = "critical"\n[backup]\nsafety = "trash"\n'
PLANTED = [
    make_writable,
    make_group_writable,
    make_folder_writable,
    make_parent_writable,
    make_link_through_writable,
    second_name_in_sticky,
    *(
        pytest.param(plant, marks=needs_root)
        for plant in (
            give_file_away,
            give_file_away_in_sticky,
            give_folder_away,
            give_folder_on_the_way_away,
        )
    ),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "parent" / "shop"
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("plant", PLANTED)
def test_a_file_that_others_can_have_written_only_raises_and_that_is_said(
    plant: Callable[[Path], None], folder: Path, tmp_path: Path
) -> None:
    plant(folder)
    settings = load(folder, {"HOME": str(tmp_path)})
    assert all(rule.only_raises for rule in settings.rules) and [
        r.pattern for r in settings.rules
    ] == ["*", "kept"]
    assert (settings.safety, settings.personal, settings.project_file) == ("backup", None, None)
    [remark] = settings.remarks
    assert str(folder / "safe-compose.toml") in remark and "not obeyed" in remark


def test_a_file_of_ours_is_obeyed_through_a_sticky_folder_and_links_of_ours(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "sticky").mkdir()
    (tmp_path / "sticky").chmod(0o1777)
    real = tmp_path / "sticky" / "real"
    real.mkdir()
    settings_of(real, DISPOSABLE)
    (folder / "safe-compose.toml").symlink_to("../../sticky/real/safe-compose.toml")
    settings = load(folder, {"HOME": str(tmp_path)})
    assert settings.remarks == () and settings.safety == "trash"


@pytest.fixture
def shared(folder: Path) -> Path:
    """A project of user `daemon`, all of it open to the group `daemon`, in which nobody else is:
    umask 002 makes it so.
    """
    path = settings_of(folder, DISPOSABLE)
    owner = pwd.getpwnam("daemon")
    for one in (path, folder):
        os.chown(one, owner.pw_uid, owner.pw_gid)
    path.chmod(0o664)
    folder.chmod(0o775)
    return path


@needs_root
def test_a_file_that_only_its_owners_private_group_may_write_is_obeyed(
    shared: Path, tmp_path: Path
) -> None:
    settings = load(shared.parent, {"HOME": str(tmp_path)}, uid=pwd.getpwnam("daemon").pw_uid)
    assert settings.remarks == () and settings.safety == "trash"


@needs_root
@pytest.mark.parametrize(
    "opened",
    ["group of others", "group of root", "group without a name", "everybody", "access list"],
)
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_that_a_group_with_others_may_write_only_raises(
    opened: str, what: str, shared: Path, tmp_path: Path
) -> None:
    at = shared if what == "file" else shared.parent
    match opened:
        case "everybody":
            at.chmod(0o777)
        case "access list":  # version 2; u::rwx u:nobody:rwx g::--- m::rwx o::---
            rows = [
                (1, 7, 0xFFFFFFFF),
                (2, 7, STRANGER.pw_uid),
                (4, 0, 0xFFFFFFFF),
                (16, 7, 0xFFFFFFFF),
                (32, 0, 0xFFFFFFFF),
            ]
            os.setxattr(
                at,
                "system.posix_acl_access",
                struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *r) for r in rows),
            )
        case _:
            os.chown(
                at,
                -1,
                {
                    "group of others": STRANGER.pw_gid,
                    "group of root": 0,
                    "group without a name": 987654,
                }[opened],
            )
    settings = load(shared.parent, {"HOME": str(tmp_path)}, uid=pwd.getpwnam("daemon").pw_uid)
    assert all(rule.only_raises for rule in settings.rules) and "not obeyed" in settings.remarks[0]


def test_the_users_own_file_is_held_to_the_same(tmp_path: Path) -> None:
    path = users_file(tmp_path, '[projects]\n"*" = "disposable"\n[store]\npath = "/somewhere"\n')
    path.chmod(0o622)
    settings = load(None, {"HOME": str(tmp_path)})
    assert (
        settings.rules[0].only_raises and settings.store == tmp_path / ".local/share/safe-compose"
    )
    assert str(path) in settings.remarks[0]


@pytest.mark.parametrize(
    "kind", ["pipe", "socket", "device", "large", "folder of a pipe", "link to nothing"]
)
def test_what_is_no_file_is_not_obeyed_and_never_waited_for(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "safe-compose.toml"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                monkeypatch.chdir(folder)
                listener.bind(path.name)
        case "device":
            path.symlink_to("/dev/zero")
        case "link to nothing":
            path.symlink_to("/nowhere/safe-compose.toml")
        case "large":
            path.write_bytes(b"# " + b"x" * (1 << 20))
        case _:
            os.mkfifo(folder / "pipe")
            path.symlink_to("pipe")
    settings = load(folder, {"HOME": str(tmp_path)})
    assert settings.rules == () and "not obeyed" in settings.remarks[0]


def test_a_folder_behind_a_link_without_a_file_has_no_settings(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "linked").symlink_to(folder)
    settings = load(tmp_path / "linked", {"HOME": str(tmp_path)})
    assert settings.rules == () and settings.remarks == ()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe\x00",
        b"a = 1\na = 2\n",
        b"a = " + b"[" * 50_000,
        b"a = " + b"{b=" * 5_000,
        b"d = 2021-13-45\n",
        b"n = " + b"9" * 5000 + b"\n",
        b"a" + b".a" * 200_000 + b" = 1\n",
        b'[backup]\ntrial_limit = "' + b"9" * 400 + b'.5GiB"\n',
        b'[store]\npath = "a\\u0000b"\n',
        b'[store]\npath = "' + b"a/" * 5000 + b'"\n',
        b'[encrypt]\nidentity = "\\u0000"\n',
        b'[offsite.x]\nurl = "file:///a\\u0000"\n',
    ],
    ids=range(12),
)
@pytest.mark.parametrize("ours", [True, False])
def test_damaged_settings_end_as_a_fault_or_are_not_obeyed(
    data: bytes, ours: bool, folder: Path, tmp_path: Path
) -> None:
    path = folder / "safe-compose.toml"
    path.write_bytes(data)
    if ours:
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            load(folder, {"HOME": str(tmp_path)})
        return
    path.chmod(0o666)
    settings = load(folder, {"HOME": str(tmp_path)})
    assert settings.rules == () and str(path) in settings.remarks[0]


def test_a_damaged_file_ends_with_78_and_a_line(folder: Path, safe_compose: SafeCompose) -> None:
    (folder / "safe-compose.toml").write_bytes(b"\xff" + b"[" * 50_000)
    answer = safe_compose("about", cwd=folder, timeout=30)
    assert answer.returncode == 78 and "is not UTF-8" in answer.stderr


def test_a_folder_that_cannot_be_told_apart_has_no_settings(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert trusted_file.read(tmp_path / "file" / "x", frozenset({0, os.geteuid()}), 10) is None
    assert trusted_file.read(tmp_path / "missing" / "x", frozenset({0, os.geteuid()}), 10) is None


# -- a volume that is not the project's ------------------------------------------------------------


@pytest.mark.engine
@pytest.mark.parametrize(
    "plant", [make_writable, pytest.param(give_file_away_in_sticky, marks=needs_root)]
)
def test_a_strangers_file_in_an_open_folder_deletes_nothing(
    plant: Callable[[Path], None], folder: Path, volume: str, safe_compose: SafeCompose
) -> None:
    plant(folder)
    answer = safe_compose("volume", "rm", volume, cwd=folder)
    assert answer.returncode == 77 and content(volume) == "a photo", answer.stderr
    assert answer.stderr.count("is not obeyed") == 1


@pytest.mark.engine
@pytest.mark.parametrize(
    "words",
    [
        ("volume", "rm", "{}"),
        ("volume", "prune", "--all", "--force", "--filter", "label=planted={}"),
    ],
)
def test_a_projects_own_file_lowers_no_volume_without_its_label(
    words: tuple[str, ...], compose_project: ProjectFactory, safe_compose: SafeCompose, lab: None
) -> None:
    name = unique("planted")
    docker("volume", "create", "--label", f"planted={name}", name)
    read_in_volume(name, "touch", "/v/one")
    tiers = (
        f'[volumes]\n"{name}" = "disposable"\n"*" = "disposable"\n[project]\ntier = "disposable"\n'
    )
    project = compose_project(FILES, files={"safe-compose.toml": tiers})
    try:
        answer = safe_compose(*(word.format(name) for word in words), cwd=project.folder)
        assert answer.returncode == 77 and volume_exists(name), answer.stderr
        assert "safe-compose.toml: volumes" in answer.stderr and "does not count" in answer.stderr
    finally:
        docker("volume", "rm", "--force", name, check=False)


@pytest.mark.engine
def test_a_projects_own_file_lowers_what_carries_its_label_by_any_command(
    compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(
        FILES, files={"safe-compose.toml": '[volumes]\nuploads = "disposable"\n'}
    )
    project.docker("compose", "create", "--pull", "never")
    read_in_volume(f"{project.name}_uploads", "touch", "/v/one")
    project.docker("compose", "rm", "--force")
    answer = safe_compose("volume", "rm", f"{project.name}_uploads", cwd=project.folder)
    assert answer.returncode == 0 and project.volumes() == [], answer.stderr


@pytest.mark.engine
@pytest.mark.parametrize("how", ["x-safe-compose", "file"])
def test_a_declared_volume_without_the_label_stays_critical(
    how: str, compose_project: ProjectFactory, safe_compose: SafeCompose, volume: str
) -> None:
    text = FILES.replace(
        "  uploads:\n", f"  uploads: {{name: {volume}, x-safe-compose: disposable}}\n"
    )
    if how == "file":
        text = text.replace(", x-safe-compose: disposable", "")
    files = (
        {"safe-compose.toml": '[volumes]\nuploads = "disposable"\n[project]\ntier = "disposable"\n'}
        if how == "file"
        else {}
    )
    project = compose_project(text, files=files)
    answer = safe_compose("compose", "down", "-v", cwd=project.folder)
    assert answer.returncode == 77 and content(volume) == "a photo", answer.stderr


@pytest.mark.engine
@pytest.mark.parametrize(
    "opened", ["compose file", "override", "folder", "include", "include in flow style"]
)
def test_a_compose_file_that_others_can_have_written_lowers_nothing(
    opened: str, compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(
        "x-safe-compose: disposable\n" + FILES, files={"compose.override.yaml": "services: {}\n"}
    )
    if opened.startswith("include"):
        (project.folder / "compose.override.yaml").unlink()
        (project.folder / "more.yaml").write_text("x-safe-compose: disposable\nservices: {}\n")
        text = (project.folder / "compose.yaml").read_text()
        shape = json.dumps(YAML(typ="safe").load(text) | {"include": ["more.yaml"]})
        (project.folder / "compose.yaml").write_text(
            f"include: [more.yaml]\n{text}" if opened == "include" else shape
        )
    project.up()
    write_file(project)
    match opened:
        case "compose file":
            (project.folder / "compose.yaml").chmod(0o666)
        case "override":
            (project.folder / "compose.override.yaml").chmod(0o660)
        case "folder":
            project.folder.chmod(0o777)
    answer = safe_compose("compose", "down", "-v", cwd=project.folder)
    assert answer.returncode == 77 and project.running() != [], answer.stderr
    assert "x-safe-compose is not obeyed" in answer.stderr


LOWERED = {
    "file": (FILES, '[volumes]\n"*" = "disposable"\n'),
    "x-safe-compose": ("x-safe-compose: disposable\n" + FILES, None),
    "image": (
        FILES.replace("busybox:latest", "prom/prometheus:planted").replace(
            "/app/uploads", "/prometheus"
        ),
        None,
    ),
}


def clone_of(project: ComposeProject, folder: Path, kind: str = "file") -> Path:
    """A repository whose compose file claims a project's name and whose files say that nothing of
    it matters.
    """
    docker("tag", "busybox:latest", "prom/prometheus:planted")
    compose, settings = LOWERED[kind]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compose.yaml").write_text(f"name: {project.name}\n{compose}")
    if settings is not None:
        settings_of(folder, settings)
    return folder


@pytest.fixture
def seen(compose_project: ProjectFactory, safe_compose: SafeCompose) -> ComposeProject:
    """A project whose folder this user's store knows, with a volume and without containers."""
    project = compose_project(FILES)
    project.up()
    write_file(project)
    assert safe_compose("backup", cwd=project.folder).returncode == 0
    project.docker("compose", "down")
    return project


@pytest.mark.thorough
@pytest.mark.engine
def test_a_foreign_folder_with_a_projects_name_lowers_nothing_of_it(
    seen: ComposeProject, tmp_path: Path, safe_compose: SafeCompose
) -> None:
    for kind, comes_up in itertools.product(LOWERED, (False, True)):
        clone = clone_of(seen, tmp_path / f"clone-{kind}-{comes_up}", kind)
        if comes_up:
            docker("compose", "create", "--pull", "never", cwd=clone)
        for words in (("compose", "down", "-v"), ("volume", "rm", f"{seen.name}_uploads")):
            if comes_up and words[0] == "volume":
                docker("compose", "rm", "--force", cwd=clone)
            answer = safe_compose(*words, cwd=clone)
            what = (kind, comes_up, words, answer.stderr)
            assert answer.returncode == 77, what
            assert seen.volumes() == [f"{seen.name}_uploads"], what
            if words[0] == "compose":
                assert f"first seen in {seen.folder}" in answer.stderr, what
                assert "safe-compose approve --settings" in answer.stderr, what


@pytest.mark.thorough
@pytest.mark.engine
def test_a_projects_own_folder_that_moved_asks_a_person_once(
    seen: ComposeProject, tmp_path: Path, safe_compose: SafeCompose
) -> None:
    moved = clone_of(seen, tmp_path / "moved")
    assert safe_compose("compose", "down", "-v", cwd=moved).returncode == 77
    person = Person("approve", "--settings", cwd=moved)
    shown = " ".join(person.sees("Approve them").split())
    assert "first seen in" in shown and str(seen.folder) in shown, shown
    person.types("y")
    assert person.leaves_with() == 0
    answer = safe_compose("compose", "down", "-v", cwd=moved)
    assert answer.returncode == 0 and seen.volumes() == [] and "first seen" not in answer.stderr, (
        answer.stderr
    )


@pytest.mark.thorough
@pytest.mark.engine
def test_checkouts_of_one_project_in_ever_new_folders_are_never_asked(
    compose_project: ProjectFactory, tmp_path: Path, safe_compose: SafeCompose
) -> None:
    project = compose_project(FILES)
    for number in range(2):
        checkout = clone_of(project, tmp_path / f"checkout{number}")
        docker("compose", "up", "--detach", "--pull", "never", cwd=checkout)
        answer = safe_compose("compose", "down", "-v", cwd=checkout)
        assert answer.returncode == 0 and project.volumes() == [], answer.stderr
        assert "first seen" not in answer.stderr


@pytest.mark.engine
@pytest.mark.parametrize(("mode", "code"), [("ro", 0), ("rw", 77)])
def test_a_volume_that_a_container_of_no_project_writes_to_is_not_only_the_projects(
    mode: str, code: int, compose_project: ProjectFactory, safe_compose: SafeCompose
) -> None:
    project = compose_project(
        FILES, files={"safe-compose.toml": '[volumes]\nuploads = "disposable"\n'}
    )
    project.up()
    write_file(project)
    docker(
        "create",
        "--name",
        f"{project.name}-other",
        "-v",
        f"{project.name}_uploads:/x:{mode}",
        "busybox:latest",
        "true",
    )
    try:
        shown = safe_compose("--explain", "--json", "compose", "down", "-v", cwd=project.folder)
        verdict = json.loads(shown.stdout)["verdict"]
        assert verdict == ("pass" if code == 0 else "guard"), shown.stdout
    finally:
        docker("rm", "--force", f"{project.name}-other", check=False)


@pytest.mark.thorough
@pytest.mark.engine
def test_an_images_name_lowers_no_volume_of_somebody_else(
    compose_project: ProjectFactory, safe_compose: SafeCompose, volume: str
) -> None:
    docker("tag", "busybox:latest", "prom/prometheus:planted")
    text = f"""
services:
  metrics: {{image: "prom/prometheus:planted", command: [sleep, "1000"], volumes: ["data:/prometheus"]}}
volumes:
  data: {{name: {volume}}}
"""
    project = compose_project(text)
    answer = safe_compose("compose", "down", "-v", cwd=project.folder)
    assert answer.returncode == 77 and content(volume) == "a photo", answer.stderr
    docker(
        "run",
        "--detach",
        "--name",
        f"{volume}-user",
        "-v",
        f"{volume}:/prometheus",
        "prom/prometheus:planted",
        "true",
    )
    try:
        answer = safe_compose("volume", "rm", "--force", volume)
        docker("rm", "--force", f"{volume}-user")
        answer = safe_compose("volume", "rm", volume)
        assert answer.returncode == 77 and content(volume) == "a photo", answer.stderr
    finally:
        docker("rm", "--force", f"{volume}-user", check=False)


@pytest.mark.engine
def test_a_label_makes_no_volume_disposable(safe_compose: SafeCompose, lab: None) -> None:
    name = unique("planted")
    docker(
        "volume",
        "create",
        "--label",
        "io.github.safe-compose.scratch=20261129T000000Z-aaaaaa",
        name,
    )
    read_in_volume(name, "touch", "/v/one")
    try:
        answer = safe_compose("volume", "rm", name)
        assert answer.returncode == 77 and volume_exists(name), answer.stderr
    finally:
        docker("volume", "rm", "--force", name, check=False)


# -- protections -----------------------------------------------------------------------------------


@pytest.mark.engine
def test_no_file_and_no_variable_switches_a_protection_off(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    project = compose_project(FILES)
    project.up()
    write_file(project)
    name = f"{project.name}_uploads"
    assert safe_compose("protect", name, env={"SAFE_COMPOSE_HOME": ""}).returncode == 0
    settings_of(project.folder, '[volumes]\nuploads = "disposable"\n[store]\npath = "backups"\n')
    for env in ({"SAFE_COMPOSE_HOME": ""}, {"SAFE_COMPOSE_HOME": str(tmp_path / "elsewhere")}):
        answer = safe_compose("compose", "down", "-v", cwd=project.folder, env=env)
        assert answer.returncode == 77 and project.volumes() == [name], answer.stderr
        shown = json.loads(
            safe_compose(
                "--explain", "--json", "compose", "down", "-v", cwd=project.folder, env=env
            ).stdout
        )
        assert "protected" in shown["volumes"][0]["why"]
    # also when it is taken away from there: for a while, and for good
    lifted = safe_compose("unprotect", "--for", "10m", "--yes", name, cwd=project.folder)
    assert lifted.returncode == 0, lifted.stderr
    shown = json.loads(
        safe_compose("--explain", "--json", "compose", "down", "-v", cwd=project.folder).stdout
    )
    assert shown["volumes"][0]["tier"] == "disposable"


@pytest.mark.parametrize(
    "plant", [os.mkfifo, lambda path: path.symlink_to("/nowhere")], ids=["pipe", "link to nothing"]
)
def test_a_registry_that_is_no_file_is_a_fault_and_nobody_waits(
    plant: Callable[[Path], None], safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    store = sealed_environment / "safe-compose"
    store.mkdir(mode=0o700)
    plant(store / "protections.json")
    answer = safe_compose("unprotect", "x", "--yes", timeout=30)
    assert answer.returncode == 73 and "protections.json" in answer.stderr


# -- where data goes -------------------------------------------------------------------------------

KEY = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


def foreign(tmp_path: Path) -> dict[str, str]:
    place = tmp_path / "foreign"
    place.mkdir(exist_ok=True)
    return {
        "store": f'[store]\npath = "{place}/store"\n',
        "folder": f'[offsite.there]\nurl = "file://{place}"\n',
        "required folder": f'[offsite.there]\nurl = "file://{place}"\nrequired = true\n',
        "sftp": '[offsite.there]\nurl = "sftp://127.0.0.1:1/x"\n',
        "endpoint": (
            '[offsite.there]\nurl = "s3://bucket/x"\nendpoint = "https://127.0.0.1:1"\nregion ='
            ' "x"\n'
        ),
        "recipient": f'[encrypt]\nrecipients = ["{KEY}"]\n',
        "webhook": '[schedule]\nwebhook = "http://user:hunter2@127.0.0.1:1/hook"\n',
    }


VERBS = (
    ("offsite", "list"),
    ("offsite", "push"),
    ("offsite", "verify"),
    ("offsite", "pull", "latest"),
)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("kind", "verbs"),
    [
        ("store", VERBS[1:2]),
        ("folder", VERBS),
        ("required folder", VERBS[1:2]),
        ("sftp", VERBS[1:2]),
        ("endpoint", VERBS[1:2]),
        ("recipient", VERBS[1:2]),
        ("webhook", VERBS),
    ],
)
def test_a_foreign_destination_is_named_and_refused_until_a_person_approves(
    kind: str,
    verbs: Sequence[Sequence[str]],
    folder: Path,
    tmp_path: Path,
    safe_compose: SafeCompose,
) -> None:
    """Each kind with one verb, and each verb with two kinds: what is foreign is found in one place."""
    settings_of(folder, foreign(tmp_path)[kind])
    for words in verbs:
        answer = safe_compose(*words, cwd=folder)
        assert answer.returncode == 77, answer.stderr
        assert "safe-compose approve --settings" in answer.stderr and str(folder) in answer.stderr
        assert "hunter2" not in answer.stderr
    assert list((tmp_path / "foreign").iterdir()) == []
    alone = safe_compose("approve", "--settings", cwd=folder)
    assert alone.returncode == 77 and "no terminal" in alone.stderr


@pytest.mark.thorough
def test_an_approval_holds_until_the_content_changes(
    folder: Path, tmp_path: Path, safe_compose: SafeCompose
) -> None:
    settings_of(folder, foreign(tmp_path)["folder"])
    person = Person("approve", "--settings", cwd=folder)
    person.sees("Approve them")
    person.types("no")
    assert person.leaves_with() == 77
    assert safe_compose("offsite", "list", cwd=folder).returncode == 77
    person = Person("approve", "--settings", cwd=folder)
    person.sees("Approve them")
    person.types("y")
    assert person.leaves_with() == 0
    done = safe_compose("offsite", "list", cwd=folder)
    assert done.returncode == 0, done.stderr
    settings_of(folder, foreign(tmp_path)["folder"].replace("foreign", "foreign/deeper"))
    assert safe_compose("offsite", "list", cwd=folder).returncode == 77
    # the same words in another folder are another project's
    other = folder.parent / "other"
    other.mkdir()
    settings_of(other, foreign(tmp_path)["folder"])
    assert safe_compose("offsite", "list", cwd=other).returncode == 77


@pytest.mark.thorough
def test_an_approval_that_others_can_have_written_is_none(
    folder: Path, tmp_path: Path, safe_compose: SafeCompose
) -> None:
    settings_of(folder, foreign(tmp_path)["folder"])
    person = Person("approve", "--settings", cwd=folder)
    person.sees("Approve them")
    person.types("y")
    assert person.leaves_with() == 0
    [record] = (tmp_path / "home/safe-compose/journal/settings").iterdir()
    record.chmod(0o666)
    assert safe_compose("offsite", "list", cwd=folder).returncode == 77
    # one that the repository brings along counts as little, even where its folder is named as the
    # store
    record.chmod(0o600)
    planted = folder / "store/journal/settings"
    planted.mkdir(parents=True)
    planted.joinpath(record.name).write_bytes(record.read_bytes())
    answer = safe_compose(
        "offsite", "list", cwd=folder, env={"SAFE_COMPOSE_HOME": str(folder / "store")}
    )
    assert answer.returncode == 77, answer.stderr


@pytest.mark.thorough
def test_what_the_users_own_file_names_needs_no_approval_but_plain_http_does(
    folder: Path, tmp_path: Path, sealed_environment: Path, safe_compose: SafeCompose
) -> None:
    there = foreign(tmp_path)
    users_file(sealed_environment, there["folder"])
    settings_of(folder, there["folder"])
    assert safe_compose("offsite", "list", cwd=folder).returncode == 0
    users_file(sealed_environment, there["endpoint"].replace("https://", "http://"))
    answer = safe_compose(
        "offsite", "list", "--from", "there", env={"AWS_SESSION_TOKEN": "hunter2"}
    )
    assert answer.returncode == 77 and "WITHOUT ENCRYPTION" in answer.stderr, answer.stderr


@pytest.mark.parametrize("url", ["file:///mine", "file:///theirs"])
def test_a_project_does_not_take_back_a_copy_that_the_user_requires(
    url: str, folder: Path, tmp_path: Path
) -> None:
    users_file(tmp_path, '[offsite.nas]\nurl = "file:///mine"\nrequired = true\n')
    settings_of(folder, f'[offsite.nas]\nurl = "{url}"\nrequired = false\n')
    assert [d.url for d in load(folder, {"HOME": str(tmp_path)}).required_copies] == [
        "file:///mine"
    ]


@pytest.mark.thorough
@pytest.mark.engine
def test_backup_and_deletion_wait_for_the_approval_and_nothing_is_stopped(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    project = compose_project(FILES)
    project.up()
    write_file(project)
    ids = ("ps", "-q", "--no-trunc", "--filter", f"name={project.name}")
    running = docker(*ids).stdout
    for kind in ("store", "folder", "required folder", "endpoint", "recipient"):
        settings_of(project.folder, foreign(tmp_path)[kind])
        for words in (
            (*JOB, "compose", "down", "-v"),
            ("backup",),
            ("schedule", "run", f"--project={project.name}"),
        ):
            answer = safe_compose(*words, cwd=project.folder)
            what = (kind, words, answer.stderr)
            assert answer.returncode == 77 and "approve --settings" in answer.stderr, what
        assert docker(*ids).stdout == running, kind
        assert list((tmp_path / "foreign").iterdir()) == [] and project.volumes() != [], kind


@pytest.mark.thorough
@pytest.mark.engine
def test_a_person_at_the_screen_approves_the_settings_once(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    project = compose_project(
        FILES, files={"safe-compose.toml": foreign(tmp_path)["required folder"]}
    )
    project.up()
    write_file(project)
    person = Person("compose", "down", "-v", cwd=project.folder)
    person.sees("Approve them")
    person.types("y")
    person.sees(f"'{project.name}'")
    person.types(project.name)
    assert person.leaves_with() == 0, person.last_words
    assert project.volumes() == [] and list((tmp_path / "foreign").rglob("manifest.json"))


@pytest.mark.thorough
@pytest.mark.engine
def test_approved_settings_of_a_project_take_nothing_of_another_ones(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path, volume: str
) -> None:
    """`volume rm` of a stranger's volume in the folder: not to the project's store, not to its
    copies, not for its key.
    """
    text = (
        "".join(foreign(tmp_path)[kind] for kind in ("required folder", "recipient"))
        + '[store]\npath = "backups"\n'
    )
    project = compose_project(FILES, files={"safe-compose.toml": text})
    person = Person("approve", "--settings", cwd=project.folder)
    person.sees("Approve them")
    person.types("y")
    assert person.leaves_with() == 0
    answer = safe_compose(
        *JOB, "volume", "rm", volume, cwd=project.folder, env={"SAFE_COMPOSE_HOME": ""}
    )
    assert answer.returncode == 0 and not volume_exists(volume), answer.stderr
    assert "not the project's own" in answer.stderr
    assert (
        list((tmp_path / "foreign").iterdir()) == [] and not (project.folder / "backups").exists()
    )
    [kept] = json.loads(safe_compose("list", "--json", env={"SAFE_COMPOSE_HOME": ""}).stdout)[
        "backups"
    ]
    assert not list(Path(kept["path"]).rglob("*.age"))
    assert "SAFE_COMPOSE_HOME=" in answer.stderr  # how `undo` finds it from that folder
    docker("volume", "rm", "--force", volume, check=False)
