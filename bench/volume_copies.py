"""The ways of copying data, ours against the usual one-liners, on the same data: dump, cold
archive, and back.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import table
from pairs import Pairs, by_turns
from stage import Stage, docker, high_mark, real_docker, shell

from safe_compose.core.backup import Artifact
from safe_compose.core.observed import Location
from safe_compose.databases import postgres
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.engine import Engine, connect
from safe_compose.engine.helper_args import Helper
from safe_compose.engine.named_pipe import AT as PIPE
from safe_compose.volumes import archive, extraction, gzip_stream
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.helper_program import feed
from testing.projects import unique


def rows(stage: Stage, rounds: int) -> list[table.Row]:
    """The comparisons; the database is stopped for the archives and runs again afterwards.

    Each round runs every way once. "Through the daemon" is how it goes where no pipe of this host
    reaches the helper. What is put back is what was archived and dumped: an archive made after the
    first load would hold the copy as well.
    """
    here = partial(shell, cwd=stage.project.folder, environ=stage.environ)
    run = "docker run --rm --network {} --pull never"
    gzip = (
        f"docker exec {stage.database} pg_dump -U dating dating | gzip >"
        f" {stage.scratch}/naive.sql.gz"
    )
    nowhere = (
        f"{run.format(f'container:{stage.database}')} --entrypoint pg_dump postgres:15 -h 127.0.0.1"
        " -U dating -f /dev/null dating"
    )
    tar = (
        f"{run.format('none')} -v {stage.volume}:/volume:ro -v {stage.scratch}:/out "
        "--entrypoint tar postgres:15 czf /out/naive.tar.gz -C / volume"
    )
    back = (
        f"zcat {stage.scratch}/naive.sql.gz | docker exec -i {stage.database} "
        "psql -qX -v ON_ERROR_STOP=1 -U dating -d bench_copy -o /dev/null"
    )
    proofs: list[float] = []

    def load() -> float:
        stage.project.psql("CREATE DATABASE bench_copy", database="postgres")
        return here(back)

    def unloaded() -> None:
        stage.project.psql(
            "DROP DATABASE IF EXISTS bench_copy", database="postgres"
        )  # and so no autovacuum of it
        stage.project.psql("CHECKPOINT", database="postgres")
        os.sync()

    with connect(real_docker(), (), environ=stage.environ, run_id=unique("bench")) as engine:
        source = engine.docker.volume(stage.volume)
        assert source is not None
        dump = partial(_dump, stage, engine, proofs)
        ways = [
            after(os.sync, way)
            for way in (
                partial(here, gzip),
                partial(here, nowhere),
                dump,
                through_the_daemon(engine, dump),
            )
        ]
        naive, floor, piped, far = by_turns(ways, rounds)
        found = [
            table.pair(Pairs("dump / exec pg_dump | gzip", naive, piped), speed=True),
            table.pair(Pairs("dump / pg_dump to /dev/null, side container", floor, piped)),
            table.pair(
                Pairs("dump through the daemon / exec pg_dump | gzip", naive, far), speed=True
            ),
            table.single("  the dump verified, L3", proofs[1:]),
        ]
        proofs.clear()
        stage.project.docker("compose", "stop", "db")
        sizes: dict[str, int] = {}
        pack = partial(archive_once, stage, engine, source, proofs, sizes)
        old = partial(_archive_by_gnu_tar, stage, engine, sizes)
        ways = [
            after(os.sync, way)
            for way in (partial(here, tar), old, pack, through_the_daemon(engine, pack))
        ]
        naive, gnu, piped, far = by_turns(ways, rounds)
        found += [
            table.pair(Pairs("cold archive / docker run tar czf", naive, piped), speed=True),
            table.pair(
                Pairs(
                    "cold archive / the same by GNU tar and find of the service's image", gnu, piped
                )
            ),
            table.single("  bytes of it, by GNU tar", [sizes["gnu"] / 1e6], "MB"),
            table.single("  bytes of it, by our own program", [sizes["helper"] / 1e6], "MB"),
            table.pair(
                Pairs("cold archive through the daemon / docker run tar czf", naive, far),
                speed=True,
            ),
            table.single("  the archive verified, L2", proofs[1:]),
        ]
        with _fresh(stage) as kept:
            made = archive.archive(EngineLocation(engine, source.name), into=kept)
            fill, tarred = (
                partial(_extract, engine, kept, made),
                partial(_extract_by_gnu_tar, engine, kept, made),
            )
            stage.project.up("db")
            ways = [
                after(unloaded, way)
                for way in (load, tarred, fill, through_the_daemon(engine, fill))
            ]
            naive, gnu, piped, far = by_turns(ways, rounds, warm=False)
        found += [
            table.pair(Pairs("archive put back / zcat | psql", naive, piped), speed=True),
            table.pair(
                Pairs(
                    "archive put back / by GNU tar of the service's image, not compared", gnu, piped
                )
            ),
            table.pair(
                Pairs("archive put back through the daemon / zcat | psql", naive, far), speed=True
            ),
        ]
        stage.project.psql("DROP DATABASE IF EXISTS bench_copy", database="postgres")
    found.append(
        table.single(
            "peak memory of ours, this bench included", [high_mark(os.getpid()) / (1 << 20)], "MiB"
        )
    )
    return found


def through_the_daemon(engine: Engine, way: Callable[[], float]) -> Callable[[], float]:
    """The same way with all bytes passing the daemon."""

    def run() -> float:
        before, engine.helpers.pipes_work = engine.helpers.pipes_work, False
        try:
            return way()
        finally:
            engine.helpers.pipes_work = before

    return run


def after(settled: Callable[[], None], way: Callable[[], float]) -> Callable[[], float]:
    """The same way, once what the one before it has left to do (pages to write, tables to vacuum)
    is done.
    """

    def run() -> float:
        settled()
        return way()

    return run


def _dump(stage: Stage, engine: Engine, proofs: list[float]) -> float:
    """Globals and every database, each counted in its own snapshot: more than the one-liner does.
    How long the proof takes is added to `proofs`.
    """
    with _fresh(stage) as into:
        begun = time.perf_counter()
        container = engine.docker.container(stage.database)
        assert container is not None
        server = postgres.server(EngineContainer(engine, container))
        made = postgres.dump(server, stage.volume, into)
        took = time.perf_counter() - begun
        postgres.verify_dump(into, made.artifacts, made.statistics)
        proofs.append(time.perf_counter() - begun - took)
        return took


def archive_once(
    stage: Stage, engine: Engine, location: Location, proofs: list[float], sizes: dict[str, int]
) -> float:
    """The archive with its list; how long the proof takes is added to `proofs`."""
    with _fresh(stage) as into:
        begun = time.perf_counter()
        artifacts = archive.archive(EngineLocation(engine, location.name), into=into)
        took = time.perf_counter() - begun
        sizes["helper"] = artifacts[0].bytes
        archive.verify(into, artifacts)
        proofs.append(time.perf_counter() - begun - took)
        return took


_ATTRIBUTES = ("--xattrs", "--xattrs-include=*", "--xattrs-exclude=security.selinux", "--acls")
_LARGE = ("--blocking-factor=128", "--read-full-records")


def _archive_by_gnu_tar(stage: Stage, engine: Engine, sizes: dict[str, int]) -> float:
    """The way of earlier releases: GNU tar and find of an image that has them, side by side."""
    pax = "--pax-option=delete=atime,delete=ctime"
    words = (
        "tar",
        "--create",
        "--format=posix",
        pax,
        "--numeric-owner",
        "--sparse",
        *_ATTRIBUTES,
        "--one-file-system",
    )
    volumes, capabilities = ((stage.volume, "/volume", True),), ("DAC_READ_SEARCH",)
    tar, piped = ((*words, f"--file={file}", *_LARGE, "-C", "/", "volume") for file in ("-", PIPE))
    helper = Helper(
        image=_image(engine),
        argv=tar,
        piped=piped,
        volumes=volumes,
        user="0:0",
        capabilities=capabilities,
    )
    find = replace(
        helper, argv=("find", "/volume", "-xdev", "-printf", r"%y %s %m %U %G %P\0"), piped=()
    )
    with _fresh(stage) as into:
        begun = time.perf_counter()
        with engine.helpers.stream(find) as listed:
            with engine.helpers.stream(helper) as made:
                sums = gzip_stream.pack(
                    gzip_stream.read_blocks(made.stdout),
                    into / "data.tar.gz",
                    subject="bench",
                    stage="archive",
                )
            gzip_stream.pack(
                gzip_stream.read_blocks(listed.stdout),
                into / "data.list.gz",
                subject="bench",
                stage="list",
            )
        took = time.perf_counter() - begun
        sizes["gnu"] = sums.bytes
        return took


def _extract(engine: Engine, kept: Path, artifacts: Sequence[Artifact]) -> float:
    """A new volume filled from an archive, compared with it, and on the disk."""
    target = engine.docker.create_volume(unique("scback"))
    try:
        begun = time.perf_counter()
        extraction.extract(EngineLocation(engine, target.name), kept, artifacts)
        extraction.sync(EngineLocation(engine, target.name))
        return time.perf_counter() - begun
    finally:
        docker("volume", "rm", target.name)


def _extract_by_gnu_tar(engine: Engine, kept: Path, artifacts: Sequence[Artifact]) -> float:
    """A new volume filled by GNU tar, as earlier releases did before they compared it, and on the
    disk.
    """
    target = engine.docker.create_volume(unique("scback"))
    words = (
        "tar",
        "--extract",
        "--numeric-owner",
        "--same-owner",
        "--preserve-permissions",
        *_ATTRIBUTES,
    )
    tar, piped = ((*words, f"--file={file}", *_LARGE, "-C", "/") for file in ("-", PIPE))
    capabilities = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP")
    volumes = ((target.name, "/volume", False),)
    helper = Helper(
        image=_image(engine),
        argv=tar,
        piped=piped,
        volumes=volumes,
        user="0:0",
        capabilities=capabilities,
    )
    try:
        begun = time.perf_counter()
        with engine.helpers.stream(helper, stdin=subprocess.PIPE) as filled:
            feed(gzip_stream.unpack(kept, artifacts[0], checked=True), filled.stdin)
        engine.helpers.run(replace(helper, argv=("sync", "--file-system", "/volume"), piped=()))
        return time.perf_counter() - begun
    finally:
        docker("volume", "rm", target.name)


def _image(engine: Engine) -> str:
    image = engine.docker.image("postgres:15")
    assert image is not None
    return image.id


@contextmanager
def _fresh(stage: Stage) -> Iterator[Path]:
    """A new folder; its files are removed afterwards, outside of what is timed."""
    folder = stage.scratch / unique("made")
    folder.mkdir()
    try:
        yield folder
    finally:
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
