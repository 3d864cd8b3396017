"""A volume that cannot be backed up never takes the others with it: they are kept and verified, it
is named, and the end is 73.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core.backup import Backup, Evidence, Omission, VolumeRecord
from safe_compose.core.observed import Container, Mount, Observed, Volume
from safe_compose.core.policy import Verdict
from safe_compose.core.tier import Tier
from safe_compose.engine import Engine
from safe_compose.errors import OperationFailed
from safe_compose.operations.backup import hot, omissions
from safe_compose.operations.backup.location_copy import LocationCopy
from safe_compose.operations.backup.request import BackupRequest
from safe_compose.operations.doctor.store import list_partial_backups
from safe_compose.store.catalogue import checks, manifest, restore_md, schema
from testing.approvals import approve_settings
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import docker, require_success

# -- one volume ----------------------------------------------------------------------------------

LACKS = Omission(
    "shop_mq",
    "volume",
    "a running rabbitmq is not archived",
    "critical",
    True,
    "docker stop shop-mq-1",
)
PASSED = Omission("/srv/photos", "folder", "a folder of the host")


def made(*omitted: Omission) -> Backup:
    record = VolumeRecord("shop_data", "local", {}, {}, "", "critical", "files", False, "cold")
    found = Evidence("L2", "x", "2026-11-22T07:27:00Z", "read")
    when = "2026-11-22T07:27:00Z"
    return Backup(
        "20261122T072700Z-3f9a1c",
        1,
        when,
        "shop",
        "unix:///x",
        "E",
        "manual",
        (),
        "/x",
        (record,),
        (found,),
        omitted=omitted,
    )


def copy_of(engine: Engine, kind: str, user: Container) -> LocationCopy:
    """A copy of the volume of a container that the engine does not have."""
    volume = Volume(user.mounts[0].location)
    verdict = Verdict(volume.name, Tier.CRITICAL, "", kind)
    observed = Observed("unix:///x", "E", (volume,), (user,))
    request = BackupRequest("shop", "manual", (), observed, ((volume, verdict),))
    return LocationCopy(engine, request, volume, verdict, Path("/x"))


def container(name: str, image: str, state: str, volume: str, at: str) -> Container:
    mounts = (Mount("volume", volume, "", at),)
    return Container("1", name, image, "sha256:0", state, mounts=mounts)


def test_a_paused_server_is_not_archived_without_what_it_holds_in_memory(
    engine: Engine,
) -> None:
    paused = container("shop-cache-1", "redis:7", "paused", "shop_cache", "/data")
    with pytest.raises(OperationFailed, match="shop-cache-1 is paused") as refused:
        hot.copy_running(copy_of(engine, "redis", paused))
    assert "docker unpause shop-cache-1" in (refused.value.next_step or "")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("postgres", "data of postgres is not archived while shop-web-1 runs on it"),
        ("rabbitmq", "a running rabbitmq is not archived (shop-web-1)"),
    ],
)
def test_a_container_on_the_data_of_a_server_that_does_not_run_is_not_called_that_server(
    engine: Engine, kind: str, words: str
) -> None:
    web = container("shop-web-1", "nginx:1", "running", "shop_data", "/data")
    with pytest.raises(OperationFailed) as refused:
        hot.copy_running(copy_of(engine, kind, web))
    assert words in refused.value.message
    assert "docker stop shop-web-1" in (refused.value.next_step or "")


def test_what_a_backup_lacks_survives_its_manifest_and_stands_in_its_guide() -> None:
    kept = made(LACKS, PASSED)
    back = schema.read_manifest(manifest.write_manifest(kept), kept.id, kept.path)
    assert back.omitted == (LACKS, PASSED) and back.lacking == (LACKS,)
    assert back.summarize().lacking == ("shop_mq",)
    assert "- volume `shop_mq`: a running rabbitmq is not archived" in restore_md.write_text(kept)
    fault = omissions.report_incomplete(back)
    assert fault is not None and fault.code == 73 and fault.next_step == "docker stop shop-mq-1"
    assert "lacks shop_mq (a running rabbitmq" in fault.message and "shop_data" in fault.message
    assert omissions.report_incomplete(made(PASSED)) is None


def test_doctor_tells_of_a_newest_backup_that_is_partial_until_there_is_a_whole_one() -> None:
    partial = replace(made(LACKS).summarize(), verified=True)
    whole = replace(made(PASSED).summarize(), verified=True, id="20261123T072700Z-3f9a1c")
    other = replace(whole, project="other")
    [line] = list_partial_backups([other, partial, whole])
    assert (
        line
        == f"the newest backup of shop, {partial.id}, is partial: it lacks shop_mq: safe-compose"
        f" show {partial.id}"
    )
    assert list(list_partial_backups([whole, partial])) == []
    assert list(list_partial_backups([replace(whole, reason="pre-delete"), partial])) != []


@pytest.mark.parametrize(
    ("omission", "fault"),
    [
        (Omission("x", "thing", "r"), "kind that nobody knows"),
        (Omission("shop_data", "volume", "r"), "that it does not"),
        (Omission("x", "volume", "r", "dear"), "is no tier"),
        (Omission("x", "volume", "a\0b"), "does not read"),
        (Omission("x", "volume", "r" * 5000), "does not read"),
    ],
    ids=["kind", "held", "tier", "null", "long"],
)
def test_a_manifest_from_elsewhere_cannot_lack_what_none_of_ours_would(
    omission: Omission, fault: str
) -> None:
    assert fault in str(checks.find_fault(made(omission)))


# -- against a real engine -------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[tuple[str, list[Any]]]:
    """A web address of our own, and what it was told."""
    told: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", told
    server.shutdown()
    thread.join()
    server.server_close()


SHOP = """
services:
  app: {image: "busybox:latest", init: true, command: [sleep, "100000"], volumes: ["uploads:/uploads"]}
  mq: {image: "NAME/rabbitmq:1", init: true, command: [sleep, "100000"], volumes: ["queue:/var/lib/rabbitmq", "empty:/empty"]}
volumes:
  uploads: {labels: ["LABEL=x"]}
  queue:
  empty:
"""
LONG = "k" * 5000
"""A label that the engine takes and no manifest holds."""


@pytest.mark.thorough
@pytest.mark.engine
def test_the_rest_is_kept_sent_and_told_and_the_way_back_says_what_is_missing(
    compose_project: ProjectFactory,
    safe_compose: SafeCompose,
    listener: tuple[str, list[Any]],
    tmp_path: Path,
) -> None:
    url, told = listener
    copies = tmp_path / "copies"
    copies.mkdir()
    project = compose_project(SHOP)
    name = project.name
    image = f"{name}/rabbitmq:1"
    (project.folder / "compose.yaml").write_text(SHOP.replace("NAME", name).replace("LABEL", LONG))
    (project.folder / "safe-compose.toml").write_text(
        f'[offsite.disk]\nurl = "file://{copies}"\n[schedule]\nwebhook = "{url}"\n[volumes]\nqueue'
        ' = "critical"\n'
    )
    approve_settings(project.folder)
    uploads, queue = f"{name}_uploads", f"{name}_queue"
    docker("tag", "busybox:latest", image)
    try:
        project.up()
        docker("exec", f"{name}-app-1", "touch", "/uploads/photo")
        docker("exec", f"{name}-mq-1", "touch", "/var/lib/rabbitmq/queue")
        project.docker("compose", "stop", "-t", "1", "mq")
        made = require_success(safe_compose("backup", "--json", cwd=project.folder))
        assert f"its label '{LONG[:80]}' cannot be written down" in made.stderr
        whole = json.loads(made.stdout)["backup"]
        assert (
            set(whole["volumes"]) == {uploads, queue} and whole["lacking"] == []
        )  # the other one is empty
        project.docker("compose", "start", "mq")

        partial = safe_compose("backup", "--json", cwd=project.folder)
        shape = json.loads(partial.stdout)
        assert partial.returncode == 73 and shape["backup"]["verified"]["level"] == "L2"
        assert shape["backup"]["volumes"] == [uploads] and shape["backup"]["lacking"] == [queue]
        assert (
            f"volume {queue} (critical, LACKING): a running rabbitmq is not"
            " archived" in partial.stderr
        )
        assert f"  next: stop it for the backup: docker stop {name}-mq-1" in partial.stderr

        run = safe_compose("schedule", "run", f"--project={name}", "--json", cwd=project.folder)
        scheduled = json.loads(run.stdout)["run"]
        assert run.returncode == 73 and scheduled["ok"] is False and scheduled["backup"]
        assert run.stderr.count("is partial") == 1 and "backup: PARTIAL, see the" in run.stderr
        assert [step["step"] for step in scheduled["steps"]] == [
            "backup",
            "forget",
            "copy to disk",
            "read again",
            "trial",
        ]
        assert len(scheduled["faults"]) == 1 and f"lacks {queue}" in scheduled["faults"][0]
        assert told[-1]["omitted"] == scheduled["omitted"] and list(
            copies.glob(f"*/{scheduled['backup']}")
        )

        status = safe_compose("schedule", cwd=project.folder)
        assert status.returncode == 1 and f"lacks {queue}" in status.stdout
        shown = require_success(safe_compose("show", "latest", "--project", name)).stdout
        assert "PARTIAL" in shown and f"\nnote\tlacks {queue}\n" in shown

        plan = require_success(
            safe_compose("restore", "latest", "--dry-run", "--json", cwd=project.folder)
        )
        assert json.loads(plan.stdout)["restored"]["lacking"] == [queue]
        assert f"safe-compose restore {whole['id']} --volume {queue}" in plan.stderr
        absent = safe_compose(
            "restore", scheduled["backup"], "--volume", queue, "--confirm", name, cwd=project.folder
        )
        assert absent.returncode == 64 and "a running rabbitmq" in absent.stderr
        older = require_success(
            safe_compose(
                "restore", "latest", "--volume", queue, "--dry-run", "--json", cwd=project.folder
            )
        )
        assert json.loads(older.stdout)["restored"]["backup"] == whole["id"]

        alone = safe_compose("backup", "--volume", queue, cwd=project.folder)
        assert alone.returncode == 73 and "no backup was made" in alone.stderr
    finally:
        project.docker("compose", "down", "-t", "1", check=False)
        docker("rmi", image, check=False)
