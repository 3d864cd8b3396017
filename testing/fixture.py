"""A cheap fixture for one command: volumes and containers made by the API on a private engine,
mended after each command.

Two compose projects (`fx`, `fy`), loose volumes, a plain, a running and a --rm container. Compose's
own labels are written by hand, so that the clients of every version take them for theirs; nothing
is started but the two that have to run.
"""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker import APIClient
from docker.errors import APIError, NotFound

from safe_compose.engine.compose_document import volume_hash
from testing.private_engine import PrivateEngine
from testing.projects import wait_until

IMAGE = "busybox:latest"
SERIAL = "fixture"
"""On each volume that we made: one that a client recreated under the same name lacks it."""
FX = """
services:
  db:
    image: busybox:latest
    network_mode: none
    command: [sleep, "600"]
    stop_grace_period: 0s
    volumes: ["data:/data", "/anon", "ext:/ext"]
  web:
    image: busybox:latest
    network_mode: none
    command: [sleep, "600"]
    stop_grace_period: 0s
    volumes: ["webdata:/w"]
    depends_on: [db]
  tool:
    image: busybox:latest
    network_mode: none
    command: [sleep, "600"]
    stop_grace_period: 0s
    profiles: [tools]
    volumes: ["tooldata:/t", "/tanon"]
volumes:
  data: {}
  webdata: {name: fx-custom}
  tooldata: {}
  unused: {}
  ext: {external: true, name: fx-ext}
"""
FY = """
name: fy
services:
  one: {image: "busybox:latest", network_mode: none, command: [sleep, "600"], stop_grace_period: 0s, volumes: ["data:/d"]}
volumes: {data: {}}
"""


def _project(name: str, key: str, *, hashed: str | None = None) -> dict[str, str]:
    labels = {
        "com.docker.compose.project": name,
        "com.docker.compose.volume": key,
        "com.docker.compose.version": "2.40.3",
    }
    return labels | ({"com.docker.compose.config-hash": hashed} if hashed else {})


def _hash(name: str) -> str:
    known = volume_hash({"name": name})
    assert known is not None
    return known


VOLUMES: Mapping[str, Mapping[str, str]] = {
    "fx_data": _project("fx", "data", hashed=_hash("fx_data")),
    "fx-custom": _project(
        "fx", "webdata", hashed="0" * 64
    ),  # its definition has changed since it was made
    "fx_tooldata": _project("fx", "tooldata"),
    "fx_unused": _project("fx", "unused"),
    "fx_old": _project("fx", "old"),  # not in the file any more
    "fx-ext": {},
    "fy_data": _project("fy", "data", hashed=_hash("fy_data")),
    "fy_left": _project("fy", "left"),
    "loose": {},
    "kept": {"keep": "1"},
    "used": {},
}


@dataclass(frozen=True, slots=True)
class Made:
    """A container of the fixture."""

    volumes: tuple[str, ...] = ()
    """`NAME:/path`, or `/path` for an anonymous one."""
    project: str = ""
    service: str = ""
    oneoff: bool = False
    runs: bool = False
    auto_remove: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


CONTAINERS: Mapping[str, Made] = {
    "fx-db-1": Made(("fx_data:/data", "/anon", "fx-ext:/ext"), "fx", "db"),
    "fx-web-1": Made(("fx-custom:/w",), "fx", "web"),
    "fx-tool-1": Made(("fx_tooldata:/t", "/tanon"), "fx", "tool"),
    "fx-gone-1": Made(("fx_old:/o", "/oanon"), "fx", "gone"),
    "fx-web-run-1": Made(("/ranon",), "fx", "web", oneoff=True),
    "fy-one-1": Made(("fy_data:/d",), "fy", "one"),
    "plain": Made(("used:/u", "/panon")),
    "runner": Made(("/xanon",), runs=True),
    "passing": Made(("/yanon",), runs=True, auto_remove=True),
    "marked": Made(("/zanon",), labels={"keep": "1"}),
}


class Fixture:
    """The volumes and containers on one private engine, below one folder."""

    def __init__(self, engine: PrivateEngine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self._api = APIClient(engine.host, version="auto", timeout=60)
        self._mine: dict[str, str] = {}
        """Container -> id, as we made it."""
        self._anonymous: dict[str, frozenset[str]] = {}
        for path, text in {
            "fx/compose.yaml": FX,
            "fx/sub/keep": "",
            "fy/compose.yaml": FY,
            "none/keep": "",
        }.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")

    def volumes(self) -> dict[str, str]:
        """Name -> what tells it from another one of the same name."""
        listed = self._api.volumes().get("Volumes") or []
        return {v["Name"]: (v.get("Labels") or {}).get(SERIAL, "") for v in listed}

    def settle(self, *, killed: bool) -> None:
        """Wait until a --rm container that was stopped has gone, and its volumes with it.

        `killed`: a signal is on its way to it, while it still counts as running.
        """

        def settled() -> bool:
            listed = self._api.containers(all=True, filters={"name": "^/passing$"})
            return not listed or (listed[0]["State"] == "running" and not killed)

        wait_until("the --rm container is gone or running", settled, timeout=40)

    def mend(self) -> None:
        """Put back what is missing or another one, and remove what is new."""
        listed = {c["Names"][0].lstrip("/"): c for c in self._api.containers(all=True)}
        for name, found in listed.items():
            if not self._as_made(name, found):
                self._remove(found["Id"])
                self._mine.pop(name, None)
        for name in [n for n in self._mine if n not in listed]:
            del self._mine[name]
        kept = {v for name in self._mine for v in self._anonymous[name]}
        for name, serial in self.volumes().items():
            if name not in kept and not (name in VOLUMES and serial):
                self._free(name)
                self._api.remove_volume(name)
        present = self.volumes()
        for name in set(VOLUMES) - set(present):
            self._api.create_volume(name, labels={**VOLUMES[name], SERIAL: "1"})
        for name in CONTAINERS:
            if name not in self._mine:
                self._make(name)

    def _free(self, volume: str) -> None:
        """A container that was recreated on a volume that was recreated holds it, and so may one
        that we made.
        """
        for found in self._api.containers(all=True, filters={"volume": volume}):
            self._remove(found["Id"])
            self._mine.pop(found["Names"][0].lstrip("/"), None)

    def _remove(self, identity: str) -> None:
        """Also one that is removing itself at this moment (`compose run --rm`)."""

        def gone() -> bool:
            try:
                self._api.remove_container(identity, force=True, v=True)
            except NotFound:
                return True
            except APIError as error:
                if error.status_code != 409:  # in progress
                    raise
            return False

        wait_until("a container that must go is gone", gone, timeout=20)

    def _as_made(self, name: str, found: Mapping[str, Any]) -> bool:
        if self._mine.get(name) != found["Id"]:
            return False
        mounted = {m["Name"] for m in found["Mounts"] if m.get("Name")}
        whole = self._anonymous[name] <= mounted
        return whole and found["State"] == ("running" if CONTAINERS[name].runs else "created")

    def _make(self, name: str) -> None:
        made = CONTAINERS[name]
        labels = dict(made.labels)
        if made.project:
            labels |= {
                "com.docker.compose.project": made.project,
                "com.docker.compose.service": made.service,
                "com.docker.compose.oneoff": "True" if made.oneoff else "False",
                "com.docker.compose.container-number": "1",
                "com.docker.compose.config-hash": "made by hand",
                "com.docker.compose.version": "2.40.3",
            }
        named = [v for v in made.volumes if not v.startswith("/")]
        created = self._api.create_container(
            IMAGE,
            ["sleep", "1000000"],  # a --rm container that ends by itself takes its volume with it
            name=name,
            labels=labels,
            volumes=[v for v in made.volumes if v.startswith("/")]
            + [v.partition(":")[2] for v in named],
            host_config=self._api.create_host_config(
                binds=named, network_mode="none", auto_remove=made.auto_remove, init=made.runs
            ),
        )
        identity = str(created["Id"])
        if made.runs:
            self._api.start(identity)
        self._mine[name] = identity
        mounts = self._api.inspect_container(identity)["Mounts"]
        self._anonymous[name] = frozenset(
            m["Name"] for m in mounts if m.get("Name") and m["Name"] not in VOLUMES
        )

    def owner(self, volume: str) -> str:
        """`anonymous of CONTAINER` for a 64-hex name, for people."""
        return next(
            (f"anonymous of {c}" for c, names in self._anonymous.items() if volume in names), volume
        )


def plugin_folder(folder: Path, binary: Path) -> Path:
    """A docker configuration whose compose plugin is `binary`."""
    plugins = folder / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-compose").symlink_to(binary)
    (folder / "config.json").write_text(json.dumps({}), encoding="utf-8")
    return folder


def version_of(binary: Path) -> str:
    done = subprocess.run(
        [binary, "version", "--short"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()
