"""Copies elsewhere: an SFTP server, a bucket of S3 and a folder, real ones; cut off, damaged, full,
unreachable.
"""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from safe_compose.core import destination
from safe_compose.core.slug import slug
from safe_compose.errors import ConfigError
from safe_compose.settings import load
from testing.approvals import approve_settings
from testing.fixtures import ProjectFactory, SafeCompose
from testing.offsite_servers import (
    KEY_ID,
    SECRET,
    BrokenLine,
    NetworkLine,
    free_port,
    s3_server,
    sftp_server,
    user,
)
from testing.projects import ComposeProject, docker, wait_until
from testing.stacks import FILES, JOB, write_file
from testing.terminal import PROGRAM

pytestmark = [pytest.mark.engine, pytest.mark.long]

SIZE = 24
"""MiB of the large file, which does not compress: three parts of an upload to S3."""


@dataclass
class Somewhere:
    """One kind of destination: where it is, and a hand that reaches into it behind our back."""

    url: str
    environment: Mapping[str, str]
    names: Callable[[], set[str]]
    damage: Callable[[str], None]
    remove: Callable[[str], None]
    settings: str = ""


@pytest.fixture(scope="module")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkLine]:
    with sftp_server(tmp_path_factory.mktemp("sftp") / "lab") as line:
        yield line


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkLine]:
    with s3_server(tmp_path_factory.mktemp("s3") / "lab") as line:
        yield line


def in_folder(base: Path, url: str, environment: Mapping[str, str]) -> Somewhere:
    def damage(name: str) -> None:
        data = bytearray((base / name).read_bytes())
        data[len(data) // 2] ^= 1
        (base / name).write_bytes(data)

    def names() -> set[str]:
        return {str(path.relative_to(base)) for path in base.rglob("*") if path.is_file()}

    return Somewhere(url, environment, names, damage, lambda name: (base / name).unlink())


def bucket(line: NetworkLine, prefix: str) -> S3Store:
    end = f"http://127.0.0.1:{line.port}"
    return S3Store(
        "copies", prefix=prefix, endpoint=end, region="us-east-1", access_key_id=KEY_ID,
        secret_access_key=SECRET, client_options={"allow_http": True},
    )  # fmt: skip


def in_bucket(line: NetworkLine, prefix: str) -> Somewhere:
    store = bucket(line, prefix)

    def damage(name: str) -> None:
        data = bytearray(bytes(obstore.get(store, name).bytes()))
        data[len(data) // 2] ^= 1
        obstore.put(store, name, bytes(data))

    return Somewhere(
        f"s3://copies/{prefix}",
        line.environment,
        lambda: {entry["path"] for some in obstore.list(store) for entry in some},
        damage,
        lambda name: obstore.delete(store, name),
        f'endpoint = "http://127.0.0.1:{line.port}"',
    )


@pytest.fixture(params=["file", "sftp", "s3"])
def somewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Somewhere:
    if request.param == "s3":
        return in_bucket(request.getfixturevalue("s3"), tmp_path.name)
    if request.param == "file":
        base = tmp_path / "disk"
        base.mkdir()
        return in_folder(base, f"file://{base}", {})
    line: NetworkLine = request.getfixturevalue("sftp")
    base = line.folder / tmp_path.name
    base.mkdir()
    return in_folder(base, f"sftp://{user()}@127.0.0.1:{line.port}{base}", line.environment)


@dataclass(frozen=True)
class ShopOffsite:
    """A project with one backup, made once; each test gets its own copy of the store."""

    project: ComposeProject
    store: Path
    id: str
    key: str
    """`<project>/<id>`, as folders are called."""


@pytest.fixture(scope="module")
def made(
    module_compose_project: ProjectFactory, tmp_path_factory: pytest.TempPathFactory
) -> ShopOffsite:
    project = module_compose_project(FILES)
    project.up()
    big = ("dd", "if=/dev/urandom", "of=/app/uploads/big", "bs=1M", f"count={SIZE}", "status=none")
    project.exec("app", *big)
    write_file(project)
    project.docker("compose", "stop")
    store = tmp_path_factory.mktemp("store") / "store"
    done = subprocess.run(
        [PROGRAM, "backup", "--json"],
        cwd=project.folder,
        env={**os.environ, "SAFE_COMPOSE_HOME": str(store)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kept = json.loads(done.stdout)["backup"]
    return ShopOffsite(project, store, kept["id"], str(Path(kept["path"]).relative_to(store)))


@pytest.fixture
def shop(made: ShopOffsite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShopOffsite:
    store = tmp_path / "store"
    shutil.copytree(made.store, store)
    monkeypatch.setenv("SAFE_COMPOSE_HOME", str(store))
    return ShopOffsite(made.project, store, made.id, made.key)


Run = Callable[..., Any]


@pytest.fixture
def offsite(safe_compose: SafeCompose, tmp_path: Path) -> Run:
    """`offsite(somewhere, "push", ...)` in a folder whose settings name it `there`; what it says as
    JSON, or its fault.
    """

    def run(
        at: Somewhere, action: str, *words: str, code: int = 0, env: Mapping[str, str] | None = None
    ) -> Any:
        folder = tmp_path / "settings"
        folder.mkdir(exist_ok=True)
        (folder / "safe-compose.toml").write_text(
            f'[offsite.there]\nurl = "{at.url}"\n{at.settings}\n'
        )
        approve_settings(folder)
        done = safe_compose(
            "offsite", action, *words, "--json", cwd=folder, env={**at.environment, **(env or {})}
        )
        assert done.returncode == code, done.stderr
        assert SECRET not in done.stdout + done.stderr
        if code:
            return done.stderr
        return json.loads(done.stdout)["offsite"]

    return run


# -- there and back --------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_copy_is_sent_read_back_kept_apart_from_the_backup_and_fetched_again(
    shop: ShopOffsite, somewhere: Somewhere, offsite: Run, safe_compose: SafeCompose
) -> None:
    folder = shop.store / shop.key
    before = {
        p: p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "verification.json"
    }
    assert offsite(somewhere, "push", "--dry-run")[0]["state"] == "would-send"
    assert somewhere.names() == set()

    [sent] = offsite(somewhere, "push")
    assert sent["state"] == "verified" and sent["fault"] is None
    assert somewhere.names() == {str(p.relative_to(shop.store)) for p in before}
    assert sent["sent"] == len(before)
    [again] = offsite(somewhere, "push")
    assert (again["state"], again["sent"]) == ("verified", 0)
    assert {p: p.read_bytes() for p in before} == before

    [listed] = offsite(somewhere, "list")
    assert (listed["id"], listed["project"]) == (shop.id, shop.project.name)
    shown = json.loads(safe_compose("show", shop.id, "--json").stdout)["backup"]
    assert [(c["name"], c["url"], c["state"]) for c in shown["offsite"]] == [
        ("there", somewhere.url, "verified")
    ]
    assert offsite(somewhere, "status")[0]["state"] == "verified"

    shutil.rmtree(shop.store)
    [fetched] = offsite(somewhere, "pull", "latest")
    assert fetched["state"] == "verified"
    assert {p: p.read_bytes() for p in before} == before
    assert {p.stat().st_mode & 0o777 for p in shop.store.rglob("*") if p.is_file()} == {0o600}
    back = json.loads(safe_compose("list", "--json").stdout)["backups"]
    assert [(b["id"], b["verified"]["level"]) for b in back] == [(shop.id, "L2")]
    assert offsite(somewhere, "pull", shop.id)[0]["state"] == "there"
    made = safe_compose("backup", "--json", cwd=shop.project.folder)
    assert json.loads(made.stdout)["backup"]["seq"] > back[0]["seq"]


@pytest.mark.thorough
def test_damage_there_is_found_kept_out_of_the_store_and_mended(
    shop: ShopOffsite, somewhere: Somewhere, offsite: Run
) -> None:
    volume = f"{shop.key}/{slug(f'{shop.project.name}_uploads')}"
    offsite(somewhere, "push")
    somewhere.damage(f"{volume}/data.tar.gz")
    somewhere.remove(f"{volume}/data.list.gz")
    said = offsite(somewhere, "verify", code=65)
    assert "data.tar.gz is damaged" in said and "data.list.gz is missing" in said
    assert offsite(somewhere, "status")[0]["state"] == "failed"

    kept = shop.store.with_name("kept")
    shop.store.rename(kept)
    said = offsite(somewhere, "pull", shop.id, code=65)
    assert "nothing was kept" in said
    assert not (shop.store / shop.key).exists() and list(shop.store.rglob(".partial-*")) == []
    assert "data.tar.gz is damaged" in offsite(
        somewhere, "verify", code=65
    )  # against its own sums: the store has none
    shutil.rmtree(shop.store)
    kept.rename(shop.store)

    [mended] = offsite(somewhere, "push")
    assert (mended["state"], mended["sent"]) == ("verified", 2)
    assert offsite(somewhere, "verify", "--all")[0]["state"] == "verified"

    # a local file that is not what it was is never sent
    for name in sorted(somewhere.names()):
        somewhere.remove(name)
    archive = shop.store / volume / "data.tar.gz"
    archive.write_bytes(b"x" + archive.read_bytes()[1:])
    assert "is damaged in the store" in offsite(somewhere, "push", code=65)
    assert offsite(somewhere, "list") == []


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["sftp", "s3"])
def test_an_upload_that_is_cut_off_never_looks_whole_and_goes_on_later(
    kind: str, shop: ShopOffsite, offsite: Run, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Killed after 20 MiB of it; what is there then is neither listed nor fetched, and whole files
    of it are not sent again.
    """
    line: NetworkLine = request.getfixturevalue(kind)
    with BrokenLine(line.port, 20 << 20) as cut:
        if kind == "s3":
            at = in_bucket(line, tmp_path.name)
            slow = Somewhere(
                at.url,
                at.environment,
                at.names,
                at.damage,
                at.remove,
                f'endpoint = "http://127.0.0.1:{cut.port}"',
            )
        else:
            base = line.folder / tmp_path.name
            base.mkdir()
            at = in_folder(base, f"sftp://{user()}@127.0.0.1:{line.port}{base}", line.environment)
            hosts = line.folder.parent / "known_hosts"
            hosts.write_text(
                hosts.read_text()
                + hosts.read_text().split("\n")[0].replace(str(line.port), str(cut.port))
                + "\n"
            )
            slow = in_folder(base, f"sftp://{user()}@127.0.0.1:{cut.port}{base}", line.environment)
        environment = {
            **os.environ,
            **slow.environment,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{cut.port}",
        }
        upload = subprocess.Popen(
            [PROGRAM, "offsite", "push", "--to", slow.url],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until("the line is held", cut.held.is_set)
        peak = next(
            line
            for line in Path(f"/proc/{upload.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        words = b"".join(
            path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()
        )
        os.killpg(upload.pid, signal.SIGKILL)
        upload.wait()
    assert int(peak.split()[1]) <= 100 * 1024, peak
    assert SECRET.encode() not in words
    assert not any(name.endswith("manifest.json") for name in at.names())
    assert offsite(at, "list") == []
    assert "there is no backup" in offsite(at, "pull", shop.id, code=64)
    whole = {name.rpartition("/")[2] for name in at.names() if not name.endswith(".new")}
    [sent] = offsite(at, "push")
    assert sent["state"] == "verified"
    assert sent["sent"] <= 5 - len(whole)
    assert offsite(at, "verify")[0]["state"] == "verified"
    assert not any(".partial-" in name or name.endswith(".new") for name in at.names())


@pytest.mark.thorough
def test_no_secret_is_in_the_store_or_in_what_is_said(
    shop: ShopOffsite, s3: NetworkLine, offsite: Run, tmp_path: Path
) -> None:
    """Also of keys in ~/.aws, and when the server refuses."""
    at = in_bucket(s3, tmp_path.name)
    home = Path(os.environ["HOME"])
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text(
        f"[backup]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
    )
    (home / ".aws/config").write_text(
        f"[profile backup]\nregion = us-east-1\nendpoint_url = http://127.0.0.1:{s3.port}\n"
    )
    profile = Somewhere(at.url, {"AWS_PROFILE": "backup"}, at.names, at.damage, at.remove)
    assert offsite(profile, "push")[0]["state"] == "verified"
    nowhere = Somewhere(
        "s3://no-such-bucket/x", at.environment, at.names, at.damage, at.remove, at.settings
    )
    said = offsite(nowhere, "push", code=73)
    assert "NoSuchBucket" in said and KEY_ID not in said
    for path in shop.store.rglob("*"):
        assert path.is_dir() or (
            SECRET.encode() not in path.read_bytes() and KEY_ID.encode() not in path.read_bytes()
        ), path


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_what_cannot_be_reached_is_73_and_the_backup_stays_good(
    shop: ShopOffsite, sftp: NetworkLine, offsite: Run, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    port = free_port()
    base = f"127.0.0.1:{sftp.port}{sftp.folder}"
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "ssh").write_text(
        f'#!/bin/sh\nexec {sftp.folder.parent}/bin/ssh -o UserKnownHostsFile=/dev/null "$@"\n'
    )
    keyless = tmp_path / "keyless"
    keyless.mkdir()
    (keyless / "ssh").write_text(
        f'#!/bin/sh\nexec {sftp.folder.parent}/bin/ssh -o PubkeyAuthentication=no "$@"\n'
    )
    for script in (stranger / "ssh", keyless / "ssh"):
        script.chmod(0o755)
    path = sftp.environment["PATH"]
    cases = [
        (f"file://{tmp_path}/not-mounted", {}, "there is no folder"),
        (f"sftp://{user()}@127.0.0.1:{port}/x", sftp.environment, "Connection refused"),
        (f"sftp://{user()}@{base}/missing", sftp.environment, "there is no folder"),
        (f"sftp://{user()}@{base}", {"PATH": f"{stranger}:{path}"}, "Host key verification failed"),
        (f"sftp://{user()}@{base}", {"PATH": f"{keyless}:{path}"}, "Permission denied"),
        ("s3://copies/x", {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "a",
          "AWS_SECRET_ACCESS_KEY": "b"},
         "127.0.0.1"),
        ("s3://copies/x", {"AWS_CONFIG_FILE": str(tmp_path / "config")}, "which is not done here"),
    ]  # fmt: skip
    (tmp_path / "config").write_text("[default]\nrole_arn = arn:aws:iam::1:role/x\n")
    for url, environment, words in cases:
        at = Somewhere(url, environment, set, lambda _: None, lambda _: None)
        said = offsite(at, "push", code=73)
        assert words in said, (url, said)
    shown = json.loads(safe_compose("show", shop.id, "--json").stdout)["backup"]
    assert shown["verified"]["level"] == "L2"
    assert [c["state"] for c in shown["offsite"]] == ["failed"]


def test_without_its_extra_a_bucket_names_the_extra(
    shop: ShopOffsite, offsite: Run, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    (hidden / "obstore").mkdir(parents=True)
    (hidden / "obstore/__init__.py").write_text("raise ImportError('hidden')\n")
    at = Somewhere(
        "s3://copies/x", {"PYTHONPATH": str(hidden)}, set, lambda _: None, lambda _: None
    )
    assert "[s3]" in offsite(at, "push", code=73)


def test_a_full_disk_is_73_and_later_the_rest_is_sent(
    shop: ShopOffsite, offsite: Run, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"mode=0700,size={SIZE - 2}m", "tmpfs", disk], check=True
    )
    try:
        at = in_folder(disk, f"file://{disk}", {})
        assert "no space" in offsite(at, "push", code=73)
        assert at.names() == set()
        subprocess.run(["mount", "-o", f"remount,size={SIZE + 8}m", disk], check=True)
        assert offsite(at, "push")[0]["state"] == "verified"
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sftp://me:hunter2@host/x", "password"), ("s3://AKIA:hunter2@bucket/x", "password"), ("http://host/x", "a destination is"),
        ("file://relative", "three slashes"), ("sftp://-oProxyCommand=hunter2/x", "sftp://USER"), ("s3://bucket/../x", ".."),
        ("sftp://host/", "sftp://USER"), ("s3://UPPER/x", "bucket"), ("file:///a\n/b", "a destination is"),
    ],
)  # fmt: skip
def test_a_url_that_is_none_or_holds_a_secret_is_refused_and_not_repeated(
    url: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "safe-compose.toml").write_text(f"[offsite.x]\nurl = {json.dumps(url)}\n")
    with pytest.raises(ConfigError) as refused:
        load.load(tmp_path, {"HOME": str(tmp_path)})
    assert "offsite.x" in refused.value.message and words in refused.value.message
    assert "hunter2" not in refused.value.message
    with pytest.raises(ValueError, match=re.escape(words)):
        destination.parse("x", url)


def test_destinations_of_both_files_count_and_the_projects_own_go_first(tmp_path: Path) -> None:
    user_file = tmp_path / ".config/safe-compose/config.toml"
    user_file.parent.mkdir(parents=True)
    user_file.write_text(
        '[offsite.a]\nurl = "file:///user/a"\n[offsite.b]\nurl = "sftp://[::1]:2222/~/b"\nrequired'
        " = true\n"
    )
    (tmp_path / "safe-compose.toml").write_text(
        '[offsite.a]\nurl = "s3://bucket"\nregion = "eu-central-1"\n'
    )
    settings = load.load(tmp_path, {"HOME": str(tmp_path)})
    found = {d.name: (d.kind, d.host, d.port, d.path, d.required) for d in settings.offsite}
    assert found == {"a": ("s3", "bucket", None, "", False), "b": ("sftp", "::1", 2222, "b", True)}
    assert [d.name for d in settings.required_copies] == ["b"]


# -- a deletion and the way back -------------------------------------------------------------------


def test_a_deletion_that_requires_a_copy_waits_for_it_and_the_copy_brings_all_back(
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    sealed_environment: Path,
    tmp_path: Path,
) -> None:
    project = compose_project(FILES)
    project.up()
    write_file(project)
    disk = tmp_path / "disk"
    (project.folder / "safe-compose.toml").write_text(
        f'[offsite.disk]\nurl = "file://{disk}"\nrequired = true\n'
    )
    running = project.running()

    # on a runner whose home dies with it the required copy is what counts; one that cannot be
    # reached is known before any stop
    runner = {"CI": "true", "SAFE_COMPOSE_HOME": ""}
    for env in (runner, {}):
        approve_settings(project.folder, env)
    refused = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder, env=runner)
    assert refused.returncode == 73 and "there is no folder" in refused.stderr
    assert "docker was not run (73)" in refused.stderr and "started again" not in refused.stderr
    assert project.running() == running

    # it goes wrong after the backup: docker is not run, what was stopped runs again, the backup is
    # good
    disk.mkdir()
    in_the_way = disk / slug(project.name)
    in_the_way.write_text("a file is in the way")
    refused = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder, env=runner)
    assert (
        refused.returncode == 73
        and "the required off-site copy could not be made" in refused.stderr
    )
    assert "docker was not run (73)" in refused.stderr
    assert project.running() == running and project.volumes() != []
    [kept] = json.loads(safe_compose("list", "--json", env=runner).stdout)["backups"]
    assert kept["verified"] and [c["state"] for c in kept["offsite"]] == ["failed"]

    in_the_way.unlink()
    done = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder, env=runner)
    assert done.returncode == 0, done.stderr
    assert project.volumes() == []
    newest = json.loads(safe_compose("list", "--json", env=runner).stdout)["backups"][0]
    assert [(c["name"], c["state"]) for c in newest["offsite"]] == [("disk", "verified")]

    # the machine is lost, and with it the store
    shutil.rmtree(sealed_environment / ".local/share/safe-compose")
    restored = safe_compose(
        "restore", "--from", "disk", "latest", "--project", project.name, cwd=project.folder
    )
    assert restored.returncode == 0, restored.stderr
    content = docker(
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        f"{project.name}_uploads:/v",
        "busybox:latest",
        "cat",
        "/v/one.jpg",
    )
    assert content.stdout == "a photo"
    (project.folder / "safe-compose.toml").unlink()
    refused = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder, env=runner)
    assert refused.returncode == 73 and "CI is set" in refused.stderr
