"""The settings: what the files and the environment decide, and every way in which a file can be
wrong.
"""

import pwd
from pathlib import Path

import pytest

from safe_compose.core.policy import Rule
from safe_compose.core.tier import Tier
from safe_compose.errors import ConfigError
from safe_compose.settings import load as settings_load
from safe_compose.settings.load import load
from safe_compose.system.files import PRIVATE, SHARED


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "me")}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    return tmp_path / "shop"


def write_user(environ: dict[str, str], text: str) -> Path:
    path = Path(environ["HOME"]) / ".config" / "safe-compose" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_project(project: Path, text: str) -> Path:
    path = project / "safe-compose.toml"
    path.write_text(text)
    return path


def test_without_files_the_defaults_hold(environ: dict[str, str], project: Path) -> None:
    settings = load(project, environ)
    store = Path(environ["HOME"]) / ".local/share/safe-compose"
    assert settings == settings_load.Settings(
        store=store,
        own_stores=(store,),
        home_store=store,
        approved_in=store,
        key_folder=str(store / ".signing"),
    )
    assert (settings.trial_limit, settings.stop_timeout, settings.safety,
     settings.store_configured) == (
        1 << 30, 120, "backup", False
    )  # fmt: skip


def test_every_key_of_both_files_is_read(environ: dict[str, str], project: Path) -> None:
    user = write_user(
        environ,
        """
        [volumes]
        "*_cache" = "disposable"
        [projects]
        "ci-*" = "disposable"
        [store]
        path = "~/kept"
        max_size = "50GiB"
        shared = true
        [backup]
        trial_limit = 0
        stop_timeout = "2m"
        patience = 90
        safety = "both"
        """,
    )
    write_project(
        project,
        """
        [volumes]
        db = "critical"
        [project]
        tier = "important"
        [store]
        path = "backups"
        [folders]
        "./data/*" = "disposable"
        "/srv/pictures" = "critical"
        [backup]
        stop_timeout = 30
        """,
    )
    settings = load(project, environ)
    assert settings.rules == (
        Rule("db", Tier.CRITICAL, "safe-compose.toml: volumes.db", own=True),
        Rule("*", Tier.IMPORTANT, "safe-compose.toml: project.tier", of_project=True, own=True),
        Rule(
            f"{project}/data/*", Tier.DISPOSABLE, 'safe-compose.toml: folders."./data/*"', own=True
        ),
        Rule(
            "/srv/pictures", Tier.CRITICAL, 'safe-compose.toml: folders."/srv/pictures"', own=True
        ),
        Rule("*_cache", Tier.DISPOSABLE, f"{user}: volumes.*_cache"),
        Rule("ci-*", Tier.DISPOSABLE, f"{user}: projects.ci-*", of_project=True),
    )
    assert settings.store == project / "backups"
    assert (settings.store_configured, settings.access, settings.max_size) == (
        True,
        SHARED,
        50 << 30,
    )
    assert (settings.trial_limit, settings.stop_timeout, settings.patience, settings.safety) == (
        0,
        30,
        90,
        "both",
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ('"1"', 1), ('"500MB"', 500_000_000), ('"500 mb"', 500_000_000), ('"1k"', 1000), ('"1KiB"', 1024),
     ('"1.5GiB"', 3 << 29), ('"2TB"', 2 * 10**12), ('"1 B"', 1)],
)  # fmt: skip
def test_sizes_are_numbers_or_have_units(
    environ: dict[str, str], project: Path, text: str, size: int
) -> None:
    write_project(project, f"[backup]\ntrial_limit = {text}\n")
    assert load(project, environ).trial_limit == size


@pytest.mark.parametrize(
    "text",
    ["true", "-1", '"-1"', '"1XB"', '"GiB"', '""', "1.5", '"١MB"', "[]", '"1 GiB B"', '"1e9"'],
)
def test_what_is_no_size_is_a_fault(environ: dict[str, str], project: Path, text: str) -> None:
    write_project(project, f"[backup]\ntrial_limit = {text}\n")
    with pytest.raises(ConfigError, match=r"safe-compose\.toml: backup\.trial_limit: a size is"):
        load(project, environ)


@pytest.mark.parametrize("text", ["0", "-5", "true", '"5d"', "nan", "inf", '""', "86401"])
def test_what_is_no_time_is_a_fault(environ: dict[str, str], project: Path, text: str) -> None:
    write_project(project, f"[backup]\nstop_timeout = {text}\n")
    with pytest.raises(ConfigError, match=r"backup\.stop_timeout: a time is"):
        load(project, environ)


def test_all_faults_of_all_files_are_listed(environ: dict[str, str], project: Path) -> None:
    user = write_user(
        environ,
        '[volumes]\n"" = "critical"\nx = "vital"\n[project]\ntier = "critical"\n[store]\npath ='
        ' "here"\n',
    )
    mine = write_project(
        project, '[volums]\n[projects]\n"a" = "critical"\n[backup]\nsafety = "none"\nspeed = 1\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(project, environ)
    assert caught.value.code == 78
    lines = caught.value.message.splitlines()
    for fault in (
        f"  {mine}: volums: unknown key",
        f"  {mine}: projects: unknown key",
        f"  {mine}: backup.safety: Input should be 'backup', 'trash' or 'both'",
        f"  {mine}: backup.speed: unknown key",
        f"  {user}: project: unknown key",
        f'  {user}: volumes.x: a tier is "critical", "important" or "disposable"',
        f"  {user}: volumes.: must not be empty",
    ):
        assert fault in lines


def test_a_relative_store_in_the_users_file_is_a_fault(
    environ: dict[str, str], project: Path
) -> None:
    user = write_user(environ, '[store]\npath = "here"\n')
    with pytest.raises(ConfigError, match="begin with / or ~/") as caught:
        load(project, environ)
    assert str(user) in caught.value.message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[volumes", "is not TOML"),
        (b"a = 1\na = 2\n", "is not TOML"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"a" + b".a" * 1000 + b" = 1\n", "is not TOML: more than 64 dots in a line"),
        (b"a = " + b"[" * 100_000, "is not TOML"),
    ],
)
def test_a_file_that_does_not_read_is_a_fault(
    environ: dict[str, str], project: Path, data: bytes, words: str
) -> None:
    (project / "safe-compose.toml").write_bytes(data)
    with pytest.raises(ConfigError, match=words):
        load(project, environ)


def test_a_file_may_begin_with_a_bom(environ: dict[str, str], project: Path) -> None:
    (project / "safe-compose.toml").write_text(
        "\ufeff# мой\r\n[backup]\r\ntrial_limit = '4GiB'\r\n", encoding="utf-8"
    )
    assert load(project, environ).trial_limit == 4 << 30


def test_a_folder_in_the_place_of_a_file_is_a_fault(environ: dict[str, str], project: Path) -> None:
    (project / "safe-compose.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(project, environ)


def test_the_store_of_the_environment_goes_before_every_file(
    environ: dict[str, str], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(project, '[store]\npath = "backups"\n')
    assert load(project, environ | {"SAFE_COMPOSE_HOME": "/srv/store/../kept"}).store == Path(
        "/srv/kept"
    )
    monkeypatch.chdir(tmp_path)
    assert load(project, environ | {"SAFE_COMPOSE_HOME": "kept"}).store == tmp_path / "kept"


@pytest.mark.parametrize(
    ("variables", "store"),
    [
        ({"XDG_DATA_HOME": "/data"}, "/data/safe-compose"),
        ({"XDG_DATA_HOME": "relative"}, "{home}/.local/share/safe-compose"),
        ({"XDG_DATA_HOME": "", "SAFE_COMPOSE_HOME": ""}, "{home}/.local/share/safe-compose"),
    ],
)
def test_the_default_store_follows_xdg(
    environ: dict[str, str], variables: dict[str, str], store: str
) -> None:
    settings = load(None, environ | variables)
    assert str(settings.store) == store.format(home=environ["HOME"])
    assert not settings.store_configured


def test_the_users_file_follows_xdg(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "conf" / "safe-compose").mkdir(parents=True)
    (tmp_path / "conf" / "safe-compose" / "config.toml").write_text('[volumes]\na = "critical"\n')
    assert len(load(None, environ | {"XDG_CONFIG_HOME": str(tmp_path / "conf")}).rules) == 1


def test_under_sudo_the_store_is_that_of_the_invoking_user(environ: dict[str, str]) -> None:
    somebody = next(
        entry for entry in pwd.getpwall() if entry.pw_uid != 0 and entry.pw_dir.startswith("/")
    )
    sudo = environ | {"SUDO_USER": somebody.pw_name, "XDG_DATA_HOME": "/root/data"}
    settings = load(None, sudo, uid=0)
    assert settings.store == Path(somebody.pw_dir) / ".local/share/safe-compose"
    assert settings.access.owner == (somebody.pw_uid, somebody.pw_gid)
    assert load(None, sudo | {"SAFE_COMPOSE_HOME": "/srv/kept"}, uid=0).store == Path("/srv/kept")
    assert load(None, sudo, uid=1000).store == Path("/root/data/safe-compose")


@pytest.mark.parametrize("name", ["root", "no-such-user-here", ""])
def test_sudo_of_nobody_in_particular_changes_nothing(environ: dict[str, str], name: str) -> None:
    assert load(None, environ | {"SUDO_USER": name}, uid=0).access == PRIVATE


def test_an_unreadable_file_is_a_fault(environ: dict[str, str], project: Path) -> None:
    (project / "safe-compose.toml").symlink_to("safe-compose.toml")
    with pytest.raises(ConfigError, match="cannot be read: Too many levels"):
        load(project, environ)
