"""The data among the changed files of a container, by their names."""

import json
import time

import pytest

from safe_compose.fastpath import layers
from safe_compose.fastpath.layer_data import LayerData, find_data, find_highest


def with_folders(*files: str) -> set[str]:
    """The files with all the folders above them, as an engine lists them."""
    return {
        "/".join(file.split("/")[:end]) for file in files for end in range(2, file.count("/") + 2)
    }


@pytest.mark.parametrize(
    "file",
    [
        "/tmp/upload-1234",
        "/run/nginx.pid",
        "/var/run/app/data/x",
        "/var/log/app/data/today",
        "/var/cache/nginx/data/1",
        "/var/lib/apt/lists/data.db",
        "/var/lib/dpkg/status",
        "/var/lib/rpm/rpmdb.sqlite",
        "/etc/nginx/conf.d/default.conf",
        "/etc/aliases.db",
        "/root/.cache/pip/selfcheck.db",
        "/root/.npm/_logs/data/debug",
        "/app/node_modules/pkg/data/table.json",
        "/app/__pycache__/main.cpython-312.pyc",
        "/app/data/app.log",
        "/app/data/cache/page",
        "/usr/lib/python3/dist-packages/x/data/a",
        "/usr/share/doc/data/x",
        "/home/node/.config/app/data/x",
        "/app/main.py",
    ],
)
def test_what_programs_write_for_themselves_is_no_data(file: str) -> None:
    assert find_data(with_folders(file)) == LayerData()


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            ["/var/lib/postgresql/data/global/pg_control", "/var/lib/postgresql/data/base/1/1255"],
            LayerData(databases=("/var/lib/postgresql/data",)),
        ),
        (["/var/lib/mysql/ibdata1"], LayerData(databases=("/var/lib/mysql",))),
        (["/data/dump.rdb"], LayerData(databases=("/data",))),
        (
            ["/data/appendonlydir/appendonly.aof.manifest", "/data/appendonlydir/a.incr.aof"],
            LayerData(databases=("/data",)),
        ),
        (["/data/db/WiredTiger.wt"], LayerData(databases=("/data/db",))),
        (
            ["/app/app.db", "/app/app.db-wal", "/app/app.db-shm"],
            LayerData(sqlite=("/app/app.db",)),
        ),
        (
            ["/home/node/.n8n/database.sqlite"],
            LayerData(sqlite=("/home/node/.n8n/database.sqlite",)),
        ),
        (["/opt/tool/state", "/opt/tool/state-wal"], LayerData(sqlite=("/opt/tool/state",))),
        (["/app/uploads/a.jpg"], LayerData(files=("/app/uploads/a.jpg",))),
        (["/usr/src/app/media/1/b"], LayerData(files=("/usr/src/app/media/1/b",))),
        (["/var/lib/ghost/content/x.png"], LayerData(files=("/var/lib/ghost/content/x.png",))),
    ],
)
def test_data_is_found_by_its_names(files: list[str], found: LayerData) -> None:
    assert find_data(with_folders(*files)) == found


def test_a_mounted_folder_is_not_of_the_layer() -> None:
    paths = with_folders("/app/uploads", "/var/lib/postgresql/data", "/data/hidden/a.db")
    mounts = ["/app/uploads", "/var/lib/postgresql/data", "/data/"]
    assert find_data(paths, mounts) == LayerData()


def test_a_folder_is_not_below_another_with_a_longer_name() -> None:
    paths = with_folders("/app/uploads-old/a", "/app/uploads/a", "/app/uploads.old/a", "/db/x.db")
    found = find_data(paths, ["/app/uploads", "/db"])
    assert found == LayerData()
    paths = with_folders("/app/data-old/data/a", "/app/data/a", "/app/data.old/data/a")
    assert find_data(paths, ["/app/data"]).files == ("/app/data-old/data/a", "/app/data.old/data/a")
    assert find_data(paths, ["/"]) == LayerData()


def test_a_container_with_many_databases_and_mounts_is_looked_through_at_once() -> None:
    many = [f"/app/{number}/dump.rdb" for number in range(40_000)]
    files = [f"/app/uploads/{number}" for number in range(40_000)]
    mounts = [f"/mnt/{number}" for number in range(40_000)]
    begun = time.process_time()
    found = find_data(with_folders(*many, *files), mounts)
    assert len(found.databases) == len(found.files) == 40_000
    assert time.process_time() - begun < 10


def test_of_many_paths_the_highest_are_found_at_once() -> None:
    assert find_highest(["/a/b", "/a-b", "/a", "/a/b/c", "/a.b/c", "/b/c"]) == [
        "/a", "/a-b", "/a.b/c", "/b/c",
    ]  # fmt: skip
    many = [f"/app/{number}" for number in range(40_000)]
    begun = time.process_time()
    assert len(find_highest([*many, *(f"{path}/below" for path in many)])) == 40_000
    assert time.process_time() - begun < 10


def test_a_list_of_changes_is_read_to_where_it_breaks_off() -> None:
    body = (
        b'[{"Path":"/app","Kind":0},{"Path":"/app/a\\"b.db","Kind":1},'
        b'{"Kind":2,"Path":"/app/gone.db"},{"Path":"/app/c.db","Kind":1},{"Path":"/app/hal'
    )
    assert layers.read_changed(body) == ["/app", '/app/a"b.db', "/app/c.db"]


def test_braces_and_quotes_in_names_hide_nothing() -> None:
    names = [
        "/app/a}.db",
        '/app/},{"Kind":2,"Path":"x.db',
        '/app/b\\".db',
        "/app/c\\",
        "/app/{d}.db",
    ]
    for order in (("Path", "Kind"), ("Kind", "Path")):
        entries = [{"Path": name, "Kind": 1} for name in names]
        entries.insert(2, {"Path": "/app/gone}.db", "Kind": 2})
        listed = [{key: entry[key] for key in order} for entry in entries]
        body = json.dumps(listed, separators=(",", ":")).encode()
        assert layers.read_changed(body) == names


def test_a_list_of_strange_names_is_read() -> None:
    for body in (b"", b"null", b"[]", b'{"message":"no"}', b"\xff\xfe", b'[{"Path":"","Kind":1}]'):
        assert find_data(layers.read_changed(body)) == LayerData()
