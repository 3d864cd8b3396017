"""The ways of copying data, ours against the usual one-liners, on the same data: dump, cold archive, and back."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import table
from pairs import alternate
from stage import Stage, docker, real_docker, shell

from lab.projects import unique
from safe_compose.engine import Engine, connect
from safe_compose.methods import archive, postgres


def rows(stage: Stage, rounds: int) -> list[table.Row]:
    """The comparisons; the database is stopped for the archives and runs again afterwards."""
    here = partial(shell, cwd=stage.project.folder, environ=stage.environ)
    with connect(real_docker(), (), environ=stage.environ, run_id=unique("bench")) as engine:
        gzip = f"docker exec {stage.database} pg_dump -U dating dating | gzip > {stage.scratch}/naive.sql.gz"
        nowhere = f"docker exec {stage.database} pg_dump -U dating -f /dev/null dating"
        ours = partial(_dump, stage, engine)
        found = [
            table.pair(alternate("dump / exec pg_dump | gzip", partial(here, gzip), ours, rounds), speed=True),
            table.pair(alternate("dump / pg_dump to /dev/null", partial(here, nowhere), ours, rounds)),
        ]
        stage.project.docker("compose", "stop", "db")
        tar = (
            f"docker run --rm --network none --pull never -v {stage.volume}:/volume:ro -v {stage.scratch}:/out "
            "--entrypoint tar postgres:15 czf /out/naive.tar.gz -C / volume"
        )
        pack = partial(_archive, stage, engine)
        found.append(table.pair(alternate("cold archive / docker run tar czf", partial(here, tar), pack, rounds), speed=True))
        stage.project.up("db")
        back = (
            f"zcat {stage.scratch}/naive.sql.gz | docker exec -i {stage.database} "
            "psql -qX -v ON_ERROR_STOP=1 -U dating -d bench_copy -o /dev/null"
        )

        def load() -> float:
            for statement in ("DROP DATABASE IF EXISTS bench_copy", "CREATE DATABASE bench_copy"):
                stage.project.psql(statement, database="postgres")
            return here(back)

        fill = partial(_extract, stage, engine)
        found.append(table.pair(alternate("archive put back / zcat | psql", load, fill, rounds, warm=False), speed=True))
        stage.project.psql("DROP DATABASE bench_copy", database="postgres")
    return found


def _dump(stage: Stage, engine: Engine) -> float:
    """Globals and every database, each counted in its own snapshot: more than the one-liner does."""
    with _fresh(stage) as into:
        begun = time.perf_counter()
        container = engine.container(stage.database)
        assert container is not None
        postgres.dump(engine, postgres.server(engine, container), stage.volume, into)
        return time.perf_counter() - begun


def _archive(stage: Stage, engine: Engine) -> float:
    """The archive with its list, which the extraction below then uses."""
    with _fresh(stage) as into:
        volume = engine.volume(stage.volume)
        assert volume is not None
        begun = time.perf_counter()
        archive.archive(engine, volume, image_ids=_images(engine), into=into)
        return time.perf_counter() - begun


def _extract(stage: Stage, engine: Engine) -> float:
    """A new volume filled from an archive of the database's, and compared with it. What is archived runs: only time counts."""
    image_ids = _images(engine)
    source, target = engine.volume(stage.volume), engine.create_volume(unique("scback"))
    assert source is not None
    try:
        with _fresh(stage) as into:
            stage.project.docker("compose", "stop", "db")
            artifacts = archive.archive(engine, source, image_ids=image_ids, into=into)
            stage.project.up("db")
            begun = time.perf_counter()
            archive.extract(engine, into, artifacts, target.name, image_ids)
            return time.perf_counter() - begun
    finally:
        docker("volume", "rm", target.name)


def _images(engine: Engine) -> list[str]:
    image = engine.image("postgres:15")
    assert image is not None
    return [image.id]


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
