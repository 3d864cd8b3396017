"""Redis in its three ways of keeping data: saved hot, settled before a stop, proved, tried, and
brought back.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.observed import Container, Mount
from safe_compose.databases import redis
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.redis.discover import is_memory_only, name_module_files
from safe_compose.databases.redis.rdb import BadRdb, read
from safe_compose.engine import Engine, StartConfiguration
from safe_compose.volumes.engine_location import EngineLocation
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import (
    ComposeProject,
    docker,
    read_in_volume,
    real_docker,
    require_success,
    wait_until,
)
from testing.recipe import type_recipe
from testing.stacks import JOB

pytestmark = pytest.mark.long

PASSWORD = "canary-7b02-password"
NO_ENGINE: Any = None  # nothing is asked

# -- without an engine -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "at", "serves"),
    [
        ("redis:7", "/data", True),
        ("valkey/valkey:8-alpine", "/data", True),
        ("registry:5000/team/my-redis@sha256:1", "/data", True),
        ("bitnami/redis:7.2", "/bitnami/redis/data", True),
        ("redis:7", "/backups", False),
        ("oliver006/redis_exporter:latest", "/data", False),
        ("app:1", "/data", False),
    ],
)
def test_a_server_is_recognised_by_its_image_and_mounts(image: str, at: str, serves: bool) -> None:
    mounts = (Mount("volume", "v", "", at),)
    container = Container(
        id="c", name="c", image=image, image_id="sha256:0", state="running", mounts=mounts
    )
    assert redis.serves(container, "v") is serves
    assert not redis.serves(container, "w")


@pytest.mark.parametrize(
    ("argv", "config", "memory_only"),
    [
        (["redis-server", "--save", ""], "", True),
        (["sh", "-c", "exec redis-server --save '' --requirepass $PW"], "", True),
        (["redis-server", "--save", "", "--appendonly", "yes"], "", False),
        (["redis-server", "--save", "60", "1"], "", False),
        (["redis-server"], "", False),
        (["redis-server", "x.conf"], 'port 6379\n save ""\n', True),
        (["redis-server", "x.conf"], "SAVE ''\nappendonly no\n", True),
        (["redis-server", "x.conf"], '# save ""\nmaxmemory 1mb\n', False),
        (["redis-server", "x.conf"], 'save ""\nsave 60 1\n', False),
        (["redis-server", "x.conf"], 'save ""\nappendonly yes\n', False),
        (["redis-server", "x.conf", "--save", "60 1"], 'save ""\n', False),
        (["redis-server", "x.conf", "--appendonly", "no"], 'save ""\nappendonly yes\n', True),
    ],
)
def test_command_line_and_configuration_tell_whether_data_is_kept_in_memory_alone(
    argv: list[str], config: str, memory_only: bool
) -> None:
    assert is_memory_only(StartConfiguration(tuple(argv), {}), config) is memory_only


def module(name: str, path: str | None, *arguments: str) -> list[str]:
    """What the server's client prints of one; the path since Redis 7."""
    there = [] if path is None else ["path", path, "args", *(arguments or [""])]
    return ["name", name, "ver", "1", *there]


@pytest.mark.parametrize(
    ("loaded", "files"),
    [
        ([module("vectorset", "")], ""),  # Redis 8 has it built in
        ([module("lua", "lua")], ""),  # Valkey 9.1 as well
        ([module("vectorset", ""), module("search", "/opt/s.so", "a", "b")], "/opt/s.so"),
        ([module("path", "/a.so"), module("b", "/b.so")], "/a.so:/b.so"),
        ([module("old", None)], "unknown"),
        ([module("beside", "beside.so"), module("b", "/b.so")], "unknown"),
    ],
)
def test_the_files_of_modules_are_known_and_those_without_are_built_in(
    loaded: list[list[str]], files: str
) -> None:
    info = [f"module:name={words[1]},ver=1" for words in loaded]
    assert name_module_files(info, [line for words in loaded for line in words]) == files


def test_no_secret_shows_in_what_is_printed_of_a_way_in() -> None:
    access = redis.RedisClient(NO_ENGINE, "c", "i", password=PASSWORD)
    private = StartConfiguration(
        ("redis-server", "--requirepass", PASSWORD), {"REDIS_PASSWORD": PASSWORD}
    )
    assert PASSWORD not in f"{access!r} {private!r} {access} {private}"


# -- with an engine --------------------------------------------------------------------------------

PROJECT = f"""
services:
  rdb:
    image: redis:7
    command: [--enable-debug-command, local]
    volumes: ["rdb:/data"]
  aof:
    image: redis:7
    command: [redis-server, --appendonly, "yes", --requirepass, {PASSWORD}, --enable-debug-command, local]
    volumes: ["aof:/data"]
  mem:
    image: redis:7
    # No delay: a server waits 5 s for other replicas before it sends the first one its data.
    command:
      - sh
      - -c
      - exec redis-server --save "" --repl-diskless-sync-delay 0 --enable-debug-command local --requirepass "$$REDIS_PASSWORD"
    environment: {{REDIS_PASSWORD: "{PASSWORD} '2"}}
    volumes: ["mem:/data"]
volumes:
  rdb:
  aof:
  mem:
"""
SERVICES = ("rdb", "aof", "mem")
AUTH = {"rdb": "", "aof": PASSWORD, "mem": f"{PASSWORD} '2"}

# One of every kind of value, two databases, a key that expires.
FILL = """
SET a 1
SET b hello
SETEX c 10000 hello
LPUSH l 1 2 3
SADD s 1 2 3
SADD s2 a b c
ZADD z 1.5 a 2 b
HSET h f v g w
XADD st 1-1 a 1
XADD st 1-2 a 2
XGROUP CREATE st g 0
XREADGROUP GROUP g me COUNT 1 STREAMS st >
PFADD hll a b c
FUNCTION LOAD "#!lua name=mylib\\nredis.register_function('f', function(k,a) return 1 end)"
EVAL "for i=1,3000 do redis.call('HSET','H',i,i..'x'); redis.call('ZADD','Z',i,i..'x'); redis.call('SADD','S',i..'x') end" 0
EVAL "for i=1,3000 do redis.call('RPUSH','L',string.rep('y',200)); redis.call('SET','k'..i,i) end" 0
EVAL "redis.call('SET','huge',string.rep('abc',900000))" 0
SELECT 3
SET x 1
PEXPIRE x 100000000
SET y 2
"""


def cli(project: ComposeProject, service: str, *words: str, input: str | None = None) -> str:
    name = f"{project.name}-{service}-1"
    auth = ("-e", f"REDISCLI_AUTH={AUTH[service]}") if AUTH[service] else ()
    return docker("exec", "-i", *auth, name, "redis-cli", *words, input=input).stdout.strip()


def answers(project: ComposeProject, *services: str) -> None:
    for service in services:
        wait_until(f"{service} answers", lambda s=service: "PONG" in cli(project, s, "ping"))  # type: ignore[misc]


def digest(project: ComposeProject, service: str) -> str:
    """The server's own digest of every key with its whole content, in all databases."""
    found = cli(project, service, "DEBUG", "DIGEST")
    assert re.fullmatch(r"[0-9a-f]{40}", found), found
    return found


@pytest.fixture
def shop(compose_project: ProjectFactory) -> ComposeProject:
    project = compose_project(PROJECT)
    project.up()
    answers(project, *SERVICES)
    for service in SERVICES:
        said = cli(project, service, input=FILL)
        assert not re.search(r"^(ERR|NOAUTH)", said, re.M), said
    return project


def newest(safe_compose: SafeCompose, project: ComposeProject) -> dict[str, Any]:
    """The manifest of the project's newest backup."""
    found = json.loads(
        require_success(safe_compose("list", "--project", project.name, "--json")).stdout
    )["backups"][0]
    manifest: dict[str, Any] = json.loads((Path(found["path"]) / "manifest.json").read_text())
    return manifest


def keys_of(record: dict[str, Any]) -> dict[str, int]:
    return {
        d["name"]: sum(t["rows"] for t in d["tables"]) for d in record["statistics"]["databases"]
    }


@pytest.mark.thorough
@pytest.mark.engine
def test_hot_cold_and_back_with_rdb_with_aof_and_with_neither(
    shop: ComposeProject, safe_compose: SafeCompose, sealed_environment: Path, tmp_path: Path
) -> None:
    before = {service: digest(shop, service) for service in SERVICES}
    assert len({*before.values()}) == 1
    started = docker("inspect", "-f", "{{.State.StartedAt}}", *shop.running()).stdout

    hot = json.loads(require_success(safe_compose("backup", "--json", cwd=shop.folder)).stdout)[
        "backup"
    ]
    assert hot["verified"]["level"] == "L3"
    assert docker("inspect", "-f", "{{.State.StartedAt}}", *shop.running()).stdout == started, (
        "something was stopped"
    )
    found = read_in_volume(f"{shop.name}_mem", "ls", "/v", image="redis:7")
    assert found == "", "a server that keeps nothing would load what a backup left there"
    manifest = json.loads((Path(hot["path"]) / "manifest.json").read_text())
    for record in manifest["volumes"]:
        assert (record["method"], keys_of(record)) == ("dump", {"0": 3015, "3": 2}), record["name"]
    assert "in memory alone" in json.dumps(manifest)
    tried = require_success(safe_compose("verify", "--trial", hot["id"]))
    assert "L4" in json.dumps(json.loads((Path(hot["path"]) / "verification.json").read_text())), (
        tried.stderr
    )

    for service in SERVICES:
        cli(shop, service, "SET", "last", "acknowledged just before the deletion")
    later = {service: digest(shop, service) for service in SERVICES}
    deleted = require_success(safe_compose(*JOB, "compose", "down", "-v", cwd=shop.folder))
    assert "verified (L4)" in deleted.stderr and shop.volumes() == []
    assert [keys_of(v) for v in newest(safe_compose, shop)["volumes"]] == [{"0": 3016, "3": 2}] * 3

    require_success(safe_compose("undo", cwd=shop.folder))
    answers(shop, *SERVICES)
    assert {service: digest(shop, service) for service in SERVICES} == later

    require_success(safe_compose("restore", hot["id"], "--confirm", shop.name, cwd=shop.folder))
    answers(shop, *SERVICES)
    assert {service: digest(shop, service) for service in SERVICES} == before
    for service in ("rdb", "aof"):
        cli(shop, service, "SET", "after", "the restore")
    shop.docker("compose", "restart")
    answers(shop, *SERVICES)
    for service in ("rdb", "aof"):
        assert cli(shop, service, "GET", "after") == "the restore"

    shop.docker("compose", "down", "-v")
    type_recipe(Path(hot["path"]), tmp_path / "tools")
    shop.up()
    answers(shop, *SERVICES)
    assert {service: digest(shop, service) for service in SERVICES} == before, "by hand"

    written = [
        p.read_bytes()
        for p in (sealed_environment / "safe-compose").rglob("*")
        if p.suffix in (".json", ".jsonl", ".md")
    ]
    assert PASSWORD.encode() not in b"".join(written)


LOCKED = """
services:
  cache:
    image: redis:7
    command: COMMAND
    configs: [{source: users, target: /etc/users.acl}, {source: own, target: /etc/redis.conf}]
    volumes: ["data:/data"]
configs: {users: {file: ./users.acl}, own: {file: ./redis.conf}}
volumes: {data: }
"""


@pytest.mark.thorough
@pytest.mark.engine
@pytest.mark.parametrize(
    ("command", "config"),
    [
        ('[redis-server, --save, "", --aclfile, /etc/users.acl]', ""),
        ("[redis-server, /etc/redis.conf]", 'save ""\naclfile /etc/users.acl\n'),
        ("[redis-server, --aclfile, /etc/users.acl]", ""),
    ],
    ids=["command line", "configuration file", "while it runs"],
)
def test_what_only_memory_holds_is_not_stopped_when_we_cannot_log_in(
    compose_project: ProjectFactory, safe_compose: SafeCompose, command: str, config: str
) -> None:
    users = f"user default on >{PASSWORD} ~* &* +@all\n"
    project = compose_project(
        LOCKED.replace("COMMAND", command), files={"users.acl": users, "redis.conf": config}
    )
    project.up()
    name = f"{project.name}-cache-1"
    auth = ("-e", f"REDISCLI_AUTH={PASSWORD}")
    wait_until(
        "it answers", lambda: "PONG" in docker("exec", *auth, name, "redis-cli", "ping").stdout
    )
    docker("exec", *auth, name, "redis-cli", "set", "a", "1")
    docker("exec", *auth, name, "redis-cli", "config", "set", "save", "")
    started = docker("inspect", "-f", "{{.State.StartedAt}}", name).stdout
    for words, code in ((("backup",), 73), ((*JOB, "compose", "down", "-v"), 73)):
        refused = safe_compose(*words, cwd=project.folder)
        assert refused.returncode == code and "NOAUTH" in refused.stderr, refused.stderr
        assert PASSWORD not in refused.stderr
    assert "it cannot be asked to save" in refused.stderr
    assert f"docker stop {name}" in refused.stderr
    docker("pause", name)
    refused = safe_compose(*JOB, "compose", "down", "-v", cwd=project.folder)
    assert refused.returncode == 75 and f"docker unpause {name}" in refused.stderr, refused.stderr
    docker("unpause", name)
    assert docker("inspect", "-f", "{{.State.StartedAt}}", name).stdout == started
    assert docker("exec", *auth, name, "redis-cli", "get", "a").stdout.strip() == "1"


@pytest.mark.engine
def test_damaged_files_are_seen_after_a_stop_and_writes_go_on_after_a_fault_before_it(
    shop: ComposeProject, engine: Engine, tmp_path: Path
) -> None:
    container = engine.docker.container(f"{shop.name}-mem-1")
    assert container is not None
    with pytest.raises(KeyError), redis.settling(EngineContainer(engine, container)) as known:
        blocked = subprocess.Popen(
            [
                real_docker(),
                "exec",
                "-e",
                f"REDISCLI_AUTH={AUTH['mem']}",
                container.id,
                "redis-cli",
                "set",
                "late",
                "1",
            ],
            stdout=subprocess.PIPE,
        )
        wait_until(
            "the write waits", lambda: "blocked_clients:1" in cli(shop, "mem", "info", "clients")
        )
        raise KeyError
    assert blocked.communicate(timeout=60)[0].strip() == b"OK", (
        "a fault before the stop left the server paused"
    )
    assert {d.name: d.rows for d in known.databases} == {"0": 3015, "3": 2}

    with redis.settling(EngineContainer(engine, container)) as known:
        engine.docker.stop(container.id, timeout=30)
    volume = f"{shop.name}_mem"
    left = redis.inspect_shutdown(EngineLocation(engine, volume), known)
    assert left.clean and left.statistics is not None and "dump.rdb" in " ".join(left.notes)
    whole = in_volume_bytes(volume, "cat", "/v/dump.rdb")
    for harm in (
        whole[:-1],
        whole[: len(whole) // 2],
        whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:],
    ):
        argv = [
            real_docker(),
            "run",
            "-i",
            "--rm",
            "--network",
            "none",
            "-v",
            f"{volume}:/v",
            "--entrypoint",
            "dd",
            "redis:7",
        ]
        subprocess.run([*argv, "of=/v/dump.rdb"], input=harm, check=True, capture_output=True)
        for seen in (known, None):
            assert not redis.inspect_shutdown(EngineLocation(engine, volume), seen).clean
    for cut in range(0, len(whole) - 1, 4099):
        with pytest.raises(BadRdb):
            read([whole[:cut]])
    read([whole])
    with pytest.raises(BadRdb, match="follows"):
        read([whole, b"x"])


def in_volume_bytes(volume: str, *argv: str) -> bytes:
    words = (
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        f"{volume}:/v",
        "--entrypoint",
        argv[0],
        "redis:7",
    )
    return subprocess.run(
        [real_docker(), *words, *argv[1:]], check=True, capture_output=True
    ).stdout
