"""The verb that reads backups again: verify."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from safe_compose.cli.backups import find_holding, select_holding, summarize_backup
from safe_compose.cli.latest import choose_project
from safe_compose.cli.options import (
    AsJson,
    Every,
    HoldsVolume,
    IdentityFile,
    ProjectName,
    app,
    load_settings,
    make_down,
    open_catalogue,
    print_json,
    unlock,
)
from safe_compose.core.short_id import shorten_ids
from safe_compose.errors import UsageError, VerificationFailed
from safe_compose.operations import forget as operations_forget
from safe_compose.ui import tables
from safe_compose.ui.table_layout import BAD, GOOD, Cell
from safe_compose.workspace import open_workspace


@app.command()
def verify(
    id: Annotated[
        str | None,
        typer.Argument(help="A backup's id, its short id, or latest (the default)."),
    ] = None,
    project: ProjectName = None,
    volume: HoldsVolume = None,
    every: Every = False,
    share: Annotated[
        str | None,
        typer.Option(
            "--sample", help="A share, such as 10% or 1/7: those that were read longest ago."
        ),
    ] = None,
    trial: Annotated[
        bool, typer.Option("--trial", help="Also restore it into a scratch server (L4).")
    ] = False,
    receipt: Annotated[
        Path | None, typer.Option("--junit", help="Write what was found to a file, as JUnit XML.")
    ] = None,
    identity: IdentityFile = None,
    as_json: AsJson = False,
) -> None:
    """Read backups again from the first byte to the last; 65 when one fails verification."""
    if sum((id is not None, every, share is not None)) > 1:
        raise UsageError(
            "verify takes one of: an id, --all, --sample", next_step="safe-compose verify --all"
        )
    wanted = operations_forget.parse_share(share) if share is not None else None
    unlock(load_settings(), identity)
    catalogue = open_catalogue()
    if wanted is not None or every:
        chosen = select_holding(catalogue.reader.list_summaries(project), volume)
        chosen = operations_forget.choose_sample(chosen, wanted) if wanted is not None else chosen
    else:
        of = choose_project(id, project, catalogue)
        chosen = [find_holding(catalogue, id or "latest", of, volume).summarize()]
    readings = []
    with _writing_receipt(receipt) as write:
        engine = open_workspace(make_down(None, None)).engine if trial else None
        shorten = shorten_ids(catalogue.reader.list_ids())
        for reading in operations_forget.reverify(catalogue, chosen, engine, time.monotonic):
            readings.append(reading)
            if not as_json:
                _tell_reading(reading, shorten)
        write(operations_forget.format_junit(readings))
    if as_json:
        print_json({"results": [_make_shape(reading) for reading in readings]})
    _require_verified(readings)


def _require_verified(readings: Sequence[operations_forget.ReverificationResult]) -> None:
    broken = [r.listed.id for r in readings if r.fault]
    if broken:
        raise VerificationFailed(
            f"{len(broken)} of {len(readings)} backups do not verify: {', '.join(broken)}"
        )


def _tell_reading(
    reading: operations_forget.ReverificationResult, shorten: Callable[[str], str]
) -> None:
    """Print what reading one backup again has shown: as a line, in a pipe as fields."""
    listed, fault = reading.listed, reading.fault
    good = f"verified {listed.level or ''}".strip()
    if reading.is_closed:
        before = f", {listed.level} before" if listed.level not in (None, "L1") else ""
        good = f"verified L1{before}"
    tables.print_fields(
        Cell(shorten(listed.id), listed.id),
        Cell(listed.project),
        Cell("BROKEN", style=BAD) if fault else Cell(good, style=GOOD),
        Cell(fault or ""),
    )


def _make_shape(reading: operations_forget.ReverificationResult) -> dict[str, Any]:
    listed = reading.listed
    return {
        "id": listed.id,
        "project": listed.project,
        "volumes": list(listed.volumes),
        "bytes": listed.bytes,
        "seconds": round(reading.seconds, 3),
        "verified": summarize_backup(listed)["verified"],
        "fault": reading.fault,
        "opened": not reading.is_closed,
        "recorded": reading.unrecorded is None,
    }


@contextmanager
def _writing_receipt(path: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Yield a function that writes the receipt; the file is opened before the hours of reading.

    Raises:
        UsageError: It cannot be written.
    """
    if path is None:
        yield lambda _: None
        return
    try:
        with path.open("wb") as file:
            yield file.write
    except OSError as error:
        raise UsageError(f"--junit {path} cannot be written: {error.strerror or error}") from error
