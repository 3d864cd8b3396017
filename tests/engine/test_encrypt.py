"""Backups that only a key opens: nothing plain in the store, every level with the key, honest words
without it.
"""

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest

from safe_compose.core.backup import Artifact
from safe_compose.errors import ConfigError, VerificationFailed
from safe_compose.settings import load
from safe_compose.volumes import encryption, gzip_stream
from testing.approvals import approve_settings
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker
from testing.stacks import JOB
from testing.terminal import PROGRAM

CANARY = "canary-58d1-in-the-database"
SHOP = """
services:
  db:
    image: postgres:15
    environment: {POSTGRES_USER: shop, POSTGRES_PASSWORD: example, POSTGRES_DB: shop}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}
volumes:
  data:
"""


@dataclass(frozen=True)
class Key:
    recipient: str
    file: Path


def new_key(folder: Path, name: str) -> Key:
    identity = pyrage.x25519.Identity.generate()
    file = folder / name
    file.write_text(f"# created: today\n# public key: {identity.to_public()}\n{identity}\n")
    return Key(str(identity.to_public()), file)


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return new_key(tmp_path, "key.txt")


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The keys of this process, as if it had just begun."""
    monkeypatch.setattr(encryption, "_keys", encryption._Keys())
    yield


def packed(folder: Path, data: bytes) -> Artifact:
    blocks = [data[at : at + gzip_stream.BLOCK] for at in range(0, len(data), gzip_stream.BLOCK)]
    sums = gzip_stream.pack(blocks, folder / "x", subject="v", stage="archive")
    return Artifact("x", "archive", sums.bytes, sums.sha256, sums.uncompressed_bytes, "v")


def forget_own_key() -> None:
    """What the end of the process does."""
    encryption._keys.identities.clear()


# -- the stream ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65536, 3 * gzip_stream.BLOCK + 7])
def test_a_sealed_file_is_read_by_this_run_by_its_recipients_and_by_nobody_else(
    size: int, tmp_path: Path, key: Key, ring: None
) -> None:
    data = os.urandom(size)
    encryption.set_recipients([key.recipient])
    artifact = packed(tmp_path, data)
    sealed = (tmp_path / "x").read_bytes()
    assert sealed.startswith(b"age-encryption.org/v1\n")
    assert b"".join(gzip_stream.unpack(tmp_path, artifact)) == data
    opened = pyrage.decrypt(
        sealed, [pyrage.x25519.Identity.from_str(key.file.read_text().split("\n")[2])]
    )
    assert gzip.decompress(opened) == data
    forget_own_key()
    with pytest.raises(encryption.KeyMissing, match="no identity"):
        list(gzip_stream.unpack(tmp_path, artifact))
    encryption.add_identity(new_key(tmp_path, "other.txt").file)
    with pytest.raises(encryption.KeyMissing, match="other identities"):
        list(gzip_stream.unpack(tmp_path, artifact))
    encryption.add_identity(key.file)
    assert b"".join(gzip_stream.unpack(tmp_path, artifact)) == data


def test_a_sealed_file_that_was_changed_or_cut_anywhere_is_damaged_not_locked(
    tmp_path: Path, key: Key, ring: None
) -> None:
    encryption.set_recipients([key.recipient])
    artifact = packed(tmp_path, os.urandom(200_000))
    sealed = (tmp_path / "x").read_bytes()
    places = [0, 30, 100, 320, 70_000, len(sealed) - 1]
    changed = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in places]
    for bad in (*changed, sealed[:-1], sealed[:65_000], b"", sealed + b"x"):
        (tmp_path / "x").write_bytes(bad)
        with pytest.raises(VerificationFailed):
            list(gzip_stream.unpack(tmp_path, artifact))


def test_an_ssh_key_is_a_recipient_too(tmp_path: Path, ring: None) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "id"], check=True
    )
    encryption.set_recipients([(tmp_path / "id.pub").read_text().strip()])
    artifact = packed(tmp_path, b"data")
    forget_own_key()
    encryption.add_identity(tmp_path / "id")
    assert b"".join(gzip_stream.unpack(tmp_path, artifact)) == b"data"


def test_who_stops_reading_and_who_fails_to_write_leave_nothing_behind(
    tmp_path: Path, key: Key, ring: None
) -> None:
    encryption.set_recipients([key.recipient])
    artifact = packed(tmp_path, os.urandom(8 * gzip_stream.BLOCK))
    reading = gzip_stream.unpack(tmp_path, artifact)
    next(reading)
    reading.close()  # type: ignore[attr-defined]

    def fails() -> Iterator[bytes]:
        yield b"x" * gzip_stream.BLOCK
        raise KeyError("the source")

    with pytest.raises(KeyError, match="the source"):
        gzip_stream.pack(fails(), tmp_path / "y", subject="v", stage="archive")
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize(
    "recipient", ["age1tooshort", "AGE-SECRET-KEY-1HUNTER2", "ssh-dss AAAA", "me@example.org"]
)
def test_what_is_no_recipient_is_a_fault_of_the_settings_and_not_repeated(
    recipient: str, tmp_path: Path
) -> None:
    (tmp_path / "safe-compose.toml").write_text(f'[encrypt]\nrecipients = ["{recipient}"]\n')
    with pytest.raises(ConfigError) as refused:
        load.load(tmp_path, {"HOME": str(tmp_path)})
    assert (
        "encrypt.recipients.0" in refused.value.message and "HUNTER2" not in refused.value.message
    )


def test_a_recipient_with_a_typing_error_and_a_missing_extra_end_before_anything_is_done(
    key: Key, ring: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="number 1"):
        encryption.set_recipients([key.recipient[:-1] + ("q" if key.recipient[-1] != "q" else "p")])
    monkeypatch.setitem(__import__("sys").modules, "pyrage", None)
    with pytest.raises(encryption.OperationFailed, match="encrypt"):
        encryption.set_recipients([key.recipient])


# -- a project -------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.engine
def test_a_guarded_deletion_seals_its_backup_and_undo_needs_the_key(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path, key: Key
) -> None:
    project: ComposeProject = compose_project(SHOP)
    project.up()
    project.psql(
        f"CREATE TABLE t (v text); INSERT INTO t SELECT '{CANARY}' FROM generate_series(1, 1000)",
        user="shop",
        database="shop",
    )
    settings = project.folder / "safe-compose.toml"
    settings.write_text(f'[encrypt]\nrecipients = ["{key.recipient}"]\n')
    approve_settings(project.folder)

    done = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder)
    assert done.returncode == 0, done.stderr
    [kept] = json.loads(safe_compose("list", "--json").stdout)["backups"]
    assert kept["verified"]["level"] == "L4"  # by the key that only that run had
    folder = Path(kept["path"])
    inside = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    assert inside and all(path.name.endswith(".gz.age") for path in inside)
    assert all(path.read_bytes().startswith(b"age-encryption.org/v1\n") for path in inside)
    assert not any(
        CANARY.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file()
    )
    recipe = (folder / "RESTORE.md").read_text()
    assert 'age -d -i "$KEY"' in recipe and "KEY=" in recipe

    # without the key: size and sum, and nothing is touched
    unopened = safe_compose("verify", kept["id"])
    assert (
        unopened.returncode == 0 and "only size and sha256 were compared (L1)" in unopened.stderr
    ), unopened.stderr
    assert unopened.stdout.rstrip().endswith("verified L1, L4 before"), "what was read now"
    for words in ((), ("--identity", str(new_key(tmp_path, "other.txt").file))):
        refused = safe_compose("undo", *words, cwd=project.folder)
        assert refused.returncode == 64 and "is encrypted" in refused.stderr, refused.stderr
        assert "nothing was touched" in refused.stderr
        assert project.volumes() == []
    [now] = json.loads(safe_compose("list", "--json").stdout)["backups"]
    assert now["verified"]["level"] == "L4"

    # without the key damage is found all the same, and only reading all of it makes up for that
    archive = next(path for path in inside if path.name == "data.tar.gz.age")
    good = archive.read_bytes()
    archive.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert safe_compose("verify", kept["id"]).returncode == 65
    archive.write_bytes(good)
    assert safe_compose("verify", kept["id"]).returncode == 0
    assert json.loads(safe_compose("list", "--json").stdout)["backups"][0]["verified"] is False
    reread = safe_compose("verify", kept["id"], env={"SAFE_COMPOSE_IDENTITY": str(key.file)})
    assert reread.returncode == 0, reread.stderr
    assert (
        json.loads(safe_compose("list", "--json").stdout)["backups"][0]["verified"]["level"] == "L3"
    )

    settings.write_text(f'[encrypt]\nrecipients = ["{key.recipient}"]\nidentity = "{key.file}"\n')
    undone = safe_compose("undo", cwd=project.folder)
    assert undone.returncode == 0, undone.stderr
    project.up()
    assert project.psql("SELECT count(*) FROM t", user="shop", database="shop") == "1000"


@pytest.mark.thorough
@pytest.mark.engine
def test_a_sealed_backup_is_opened_by_hand_as_its_recipe_says(
    compose_project: ProjectFactory, safe_compose: SafeCompose, tmp_path: Path, key: Key
) -> None:
    """Where this machine lacks `age`, a script of that name reads the format with another
    implementation.
    """
    project = compose_project(
        "services: {app: {image: 'busybox:latest', command: ['true'], volumes:"
        " ['files:/files']}}\nvolumes: {files: {}}\n"
    )
    project.docker("compose", "create", "--pull", "never")
    volume = f"{project.name}_files"
    docker(
        "run",
        "--rm",
        "-i",
        "--network",
        "none",
        "-v",
        f"{volume}:/v",
        "busybox:latest",
        "dd",
        "of=/v/one",
        input=CANARY,
    )
    (project.folder / "safe-compose.toml").write_text(
        f'[encrypt]\nrecipients = ["{key.recipient}"]\n'
    )
    approve_settings(project.folder)
    made = subprocess.run(
        [PROGRAM, "backup", "--json"],
        cwd=project.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    folder = Path(json.loads(made.stdout)["backup"]["path"])
    assert (
        subprocess.run(
            ["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=folder, check=False
        ).returncode
        == 0
    )
    found = re.search(
        r"(age -d -i \"\$KEY\" \S*data\.tar\.gz\.age \| gzip -dc) \|",
        (folder / "RESTORE.md").read_text(),
    )
    assert found
    programs = tmp_path / "bin"
    programs.mkdir()
    if shutil.which("age") is None:
        age = programs / "age"
        age.write_text(
            f"#!{shutil.which('python3')}\nimport sys\nsys.path[:0] ="
            f" {[str(Path(pyrage.__file__).parents[1])]!r}\nimport pyrage\nassert sys.argv[1:3] =="
            " ['-d', '-i']\nkey = open(sys.argv[3]).read().split('\\n')[2]\nopened ="
            " pyrage.decrypt(open(sys.argv[4], 'rb').read(),"
            " [pyrage.x25519.Identity.from_str(key)])\nsys.stdout.buffer.write(opened)\n"
        )
        age.chmod(0o755)
    environment = {**os.environ, "KEY": str(key.file), "PATH": f"{programs}:{os.environ['PATH']}"}
    tar = subprocess.run(
        ["sh", "-c", found[1]], cwd=folder, env=environment, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        held = {
            name.rpartition("/")[2]: archive.extractfile(name)
            for name in archive.getnames()
            if name.endswith("one")
        }
    assert held["one"] is not None and held["one"].read() == CANARY.encode()


KINDS = f"""
services:
  db:
    image: postgres:15
    environment: {{POSTGRES_USER: shop, POSTGRES_PASSWORD: example, POSTGRES_DB: shop}}
    volumes: ["physical:/var/lib/postgresql/data"]
    healthcheck: {{test: [CMD, pg_isready, -q, -h, 127.0.0.1, -U, shop], interval: 1s, retries: 60}}
  maria:
    image: mariadb:10.11
    environment: {{MARIADB_ROOT_PASSWORD: {CANARY}, MARIADB_DATABASE: shop}}
    volumes: ["sales:/var/lib/mysql"]
    healthcheck: {{test: [CMD, mariadb-admin, ping, -h, 127.0.0.1, -uroot, "-p{CANARY}"], interval: 1s, retries: 90}}
  cache:
    image: redis:7
    volumes: ["keys:/data"]
    healthcheck: {{test: [CMD, redis-cli, ping], interval: 1s, retries: 60}}
volumes: {{physical: , sales: , keys: }}
"""


@pytest.mark.thorough
@pytest.mark.engine
def test_sealed_backups_of_running_servers_of_all_kinds_come_back(
    compose_project: ProjectFactory, safe_compose: SafeCompose, key: Key
) -> None:
    settings = f'[backup]\nmethod = "physical"\n[encrypt]\nrecipients = ["{key.recipient}"]\n'
    project: ComposeProject = compose_project(KINDS, files={"safe-compose.toml": settings})
    approve_settings(project.folder)
    project.up()
    maria = (
        "compose",
        "exec",
        "-T",
        "maria",
        "mariadb",
        "-uroot",
        f"-p{CANARY}",
        "-BN",
        "shop",
        "-e",
    )
    project.psql(
        f"CREATE TABLE t AS SELECT '{CANARY}' AS v FROM generate_series(1, 1000)",
        user="shop",
        database="shop",
    )
    project.docker(*maria, f"CREATE TABLE sale AS SELECT seq, '{CANARY}' AS v FROM seq_1_to_500")
    project.docker("compose", "exec", "-T", "cache", "redis-cli", "set", "k", CANARY)

    made = safe_compose("backup", "--json", cwd=project.folder)
    assert made.returncode == 0, made.stderr
    folder = Path(json.loads(made.stdout)["backup"]["path"])
    inside = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    assert len(inside) >= 3 and all(path.name.endswith(".age") for path in inside)
    assert not any(
        CANARY.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file()
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    methods = {
        record["name"].removeprefix(f"{project.name}_"): record["method"]
        for record in manifest["volumes"]
    }
    assert methods == {"physical": "physical", "sales": "dump", "keys": "dump"}

    project.docker("compose", "down", "-v")
    back = safe_compose("restore", folder.name, "--identity", str(key.file), cwd=project.folder)
    assert back.returncode == 0, back.stderr
    project.up()
    assert project.psql("SELECT count(*) FROM t", user="shop", database="shop") == "1000"
    assert project.docker(*maria, "SELECT COUNT(*) FROM sale").stdout.strip() == "500"
    assert (
        project.docker("compose", "exec", "-T", "cache", "redis-cli", "get", "k").stdout.strip()
        == CANARY
    )
