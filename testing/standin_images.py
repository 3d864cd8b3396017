"""The images of services that are no database servers: the example's, and small ones for tests."""

import gzip
import json
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from testing.image_recipe import (
    BASE,
    PATH,
    ImageFile,
    Recipe,
    debian_frame,
    make_folder,
    script,
    split_words,
    text_file,
)
from testing.server_images import POSTGRES

BOT = Recipe(
    name="dating-bot:latest",
    packages=POSTGRES.packages,
    entries={
        **debian_frame(("app", 1000, "/app", "/bin/bash")),
        "usr/local/bin/dating-bot": script("bot-entrypoint.sh"),
        "app": make_folder(0o755, 1000),
        "app/photos": make_folder(0o750, 1000),
    },
    edits=POSTGRES.edits,
    config={
        "Env": [f"PATH={PATH}:/usr/lib/postgresql/15/bin", "LANG=C.UTF-8", "PHOTO_DIR=/app/photos"],
        "Entrypoint": ["dating-bot"],
        "User": "1000:1000",
        "WorkingDir": "/app",
    },
)

BUSYBOX_APPLETS = split_words(
    "[ awk basename cat chmod chown cp cut date dd df dirname du echo env expr false find grep"
    " gunzip gzip head hostname id kill ln ls md5sum mkdir mkfifo mknod mktemp mv nc od printf ps"
    " pwd readlink rm rmdir sed seq sh sha256sum sleep sort stat sync tail tar tee test touch tr"
    " true uname uniq vi wc wget which xargs yes zcat"
)


def busybox_frame(*accounts: tuple[str, int]) -> dict[str, ImageFile]:
    lines = (
        [("root", 0), *accounts]
        if ("nobody", 65534) in accounts
        else [("root", 0), *accounts, ("nobody", 65534)]
    )
    return {
        "etc/passwd": text_file(
            "".join(f"{name}:x:{uid}:{uid}::/:/bin/sh\n" for name, uid in lines)
        ),
        "etc/group": text_file("".join(f"{name}:x:{uid}:\n" for name, uid in lines)),
        "tmp": make_folder(0o1777),
        **{f"bin/{applet}": ImageFile(link="busybox") for applet in BUSYBOX_APPLETS},
    }


BUSYBOX = Recipe(
    name="busybox:latest",
    packages=("busybox-static",),
    only=("bin/busybox",),
    entries=busybox_frame(),
    config={"Env": [f"PATH={PATH}"], "Cmd": ["sh"]},
)


def make_database(*statements: str) -> bytes:
    """The bytes of a fresh SQLite database."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.db"
        connection = sqlite3.connect(path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
        return path.read_bytes()


def make_standin(
    name: str,
    folder: str,
    uid: int,
    seed: Mapping[str, bytes],
    *,
    mode: int = 0o755,
    entrypoint: Sequence[str] = ("/entrypoint.sh",),
    **config: object,
) -> Recipe:
    """An image that fills `folder` with `seed` once and waits; the data folder belongs to `uid` as
    in the real image.
    """
    share = "usr/share/standin"
    entries: dict[str, ImageFile] = {
        **busybox_frame(*([("service", uid)] if uid else [])),
        entrypoint[0].lstrip("/"): script("standin-entrypoint.sh"),
        f"{share}/name": text_file(name),
        f"{share}/folder": text_file(folder),
        f"{share}/data": make_folder(),
    }
    if uid:
        entries[folder.lstrip("/")] = make_folder(
            mode, uid, 0 if name.startswith("grafana/grafana") else uid
        )
        config["User"] = str(uid)
    for path, content in seed.items():
        entries[f"{share}/data/{path}"] = ImageFile(content)
    return Recipe(
        name=name,
        packages=("busybox-static",),
        only=("bin/busybox",),
        entries=entries,
        config={"Env": [f"PATH={PATH}"], "Entrypoint": list(entrypoint), **config},
    )


_BLOCK = "01J9ZT5V0Q8M3X4N7B6C2D1E0F"
STANDINS = (
    make_standin(
        "traefik:v2.10",
        "/letsencrypt",
        0,
        {
            "acme.json": (
                json.dumps(
                    {
                        "le": {
                            "Account": {
                                "Email": "ops@example.org",
                                "KeyType": "4096",
                                "PrivateKey": "bm90IGEga2V5",
                            },
                            "Certificates": [
                                {
                                    "domain": {"main": "dating.example.org"},
                                    "certificate": "bm90IGEgY2VydA==",
                                    "Store": "default",
                                }
                            ],
                        }
                    },
                    indent=2,
                ).encode()
            )
        },
        Cmd=["traefik"],
        ExposedPorts={"80/tcp": {}},
    ),
    make_standin(
        "prom/prometheus:latest",
        "/prometheus",
        65534,
        {
            "wal/00000000": bytes(range(256)) * 512,
            "chunks_head/000001": b"\x01\x30\xbc\x91" + bytes(4096),
            f"{_BLOCK}/meta.json": (
                json.dumps(
                    {"ulid": _BLOCK, "minTime": 0, "maxTime": 7200000, "version": 1}
                ).encode()
            ),
            f"{_BLOCK}/index": b"\xba\xaa\xd7\x00\x02" + bytes(2048),
            f"{_BLOCK}/chunks/000001": b"\x85\xbd\x40\xdd\x01" + bytes(8192),
            f"{_BLOCK}/tombstones": b"\x01\x30\xba\x30\x01" + bytes(4),
            "queries.active": bytes(20001),
            "lock": b"",
        },
        entrypoint=("/bin/prometheus",),
        Cmd=["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"],
        ExposedPorts={"9090/tcp": {}},
        Volumes={"/prometheus": {}},
        WorkingDir="/prometheus",
    ),
    make_standin(
        "grafana/grafana:latest",
        "/var/lib/grafana",
        472,
        {
            "grafana.db": make_database(
                # as after a first start: what the server makes by itself, and dashboards that come
                # from files
                "CREATE TABLE migration_log (id INTEGER PRIMARY KEY, migration_id TEXT)",
                "INSERT INTO migration_log (migration_id) VALUES ('create migration_log table')",
                "CREATE TABLE org (id INTEGER PRIMARY KEY, name TEXT)",
                "INSERT INTO org (name) VALUES ('Main Org.')",
                "CREATE TABLE user (id INTEGER PRIMARY KEY, login TEXT, is_service_account"
                " INTEGER)",
                "INSERT INTO user (login, is_service_account) VALUES ('admin', 0)",
                "CREATE TABLE dashboard (id INTEGER PRIMARY KEY, title TEXT NOT NULL, is_folder"
                " INTEGER, updated_by INTEGER)",
                "INSERT INTO dashboard (title, is_folder, updated_by) VALUES ('Likes per minute',"
                " 0, -1), ('Photos', 0, -1)",
                "CREATE TABLE dashboard_provisioning (id INTEGER PRIMARY KEY, dashboard_id INTEGER,"
                " name TEXT)",
                "INSERT INTO dashboard_provisioning (dashboard_id, name) VALUES (1, 'default'), (2,"
                " 'default')",
                "CREATE TABLE alert_rule (id INTEGER PRIMARY KEY, uid TEXT, title TEXT)",
            ),
            "plugins/.keep": b"",
            "png/.keep": b"",
        },
        mode=0o777,
        entrypoint=("/run.sh",),
        ExposedPorts={"3000/tcp": {}},
        WorkingDir="/usr/share/grafana",
    ),
    make_standin(
        "grafana/loki:latest",
        "/loki",
        10001,
        {
            "chunks/ZmFrZS8xOjE6Mg==": gzip.compress(b"2026-07-01 bot: 3 users\n" * 500, mtime=0),
            "tsdb-shipper-active/uploader/name": b"loki-1730000000",
            "wal/00000000": bytes(32768),
            "rules/.keep": b"",
        },
        entrypoint=("/usr/bin/loki",),
        Cmd=["-config.file=/etc/loki/local-config.yaml"],
        ExposedPorts={"3100/tcp": {}},
    ),
)

SQLITE = Recipe(
    name="lab-sqlite:latest",
    packages=("python3.11-minimal", "libpython3.11-stdlib", "sqlite3", *BASE),
    entries={
        **debian_frame(("app", 1000, "/app", "/bin/bash")),
        "usr/bin/python3": ImageFile(link="python3.11"),
        "app": make_folder(0o755, 1000),
        "app/state": make_folder(0o755, 1000),
    },
    config={"Env": [f"PATH={PATH}"], "Cmd": ["python3"], "User": "1000:1000", "WorkingDir": "/app"},
)
"""An application's image with both programs that can copy a SQLite database."""
