"""`make bench`: the whole table, or parts of it."""

import argparse
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from functools import partial

import audit
import confirmation
import folders
import guarded
import launcher
import remote
import store
import table
import trash
import verbs
import volume_copies
from stage import Stage, docker, stage

PARTS = (
    "launcher",
    "verbs",
    "confirmation",
    "store",
    "audit",
    "copies",
    "folders",
    "guarded",
    "remote",
    "trash",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench/run",
        description="What safe-compose costs, pairwise against what it stands for.",
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all"
    )
    parser.add_argument(
        "--rows",
        type=int,
        default=200_000,
        help=(
            "users in the example's database: 200000 make about 200 MB, 2200000 about 2.2 GB"
            " (default: %(default)s)"
        ),
    )
    parser.add_argument(
        "--rounds", type=int, default=40, help="pairs for short commands (default: %(default)s)"
    )
    parser.add_argument(
        "--long-rounds",
        type=int,
        default=3,
        help="pairs for those of seconds (default: %(default)s)",
    )
    parser.add_argument(
        "--trash",
        type=int,
        default=1,
        metavar="GB",
        help="size of the big volume of part trash (default: %(default)s)",
    )
    parser.add_argument(
        "--folder",
        type=int,
        default=2,
        metavar="GB",
        help="size of the folder of part folders (default: %(default)s)",
    )
    asked = parser.parse_args()
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    begun = time.monotonic()
    measures: dict[str, tuple[str, Callable[[Stage, int], list[table.Row]], int]] = {
        "launcher": (
            "a command that deletes nothing, against bare docker",
            launcher.rows,
            asked.rounds,
        ),
        "verbs": ("our own verbs", verbs.rows, asked.rounds),
        "confirmation": (
            "Enter to the first paint of the confirmation screen",
            confirmation.rows,
            max(asked.rounds // 2, 5),
        ),
        "store": ("lists of a store with very many backups", store.rows, max(asked.rounds // 4, 5)),
        "audit": ("audit of a repository", audit.rows, max(asked.rounds // 4, 5)),
        "copies": (
            "ways of copying the database's data",
            volume_copies.rows,
            asked.long_rounds,
        ),
        "folders": (
            "ways of copying a folder of the host",
            partial(folders.rows, gigabytes=asked.folder),
            asked.long_rounds,
        ),
        "guarded": ("delete and undo, end to end", guarded.rows, asked.long_rounds),
        "remote": ("delete and undo over ssh, end to end", remote.rows, asked.long_rounds),
        "trash": (
            "delete and undo by renaming",
            partial(trash.rows, gigabytes=asked.trash),
            asked.long_rounds,
        ),
    }
    sections: list[tuple[str, list[table.Row]]] = []
    signal.signal(
        signal.SIGTERM, lambda number, _: sys.exit(128 + number)
    )  # unwinds, so that all of it is removed
    try:
        with stage(asked.rows) as here:
            for part in asked.parts or PARTS:
                title, measure, rounds = measures[part]
                print(f"bench: {title} ...", file=sys.stderr)
                sections.append((title, measure(here, rounds)))
    finally:
        print(table.text(sections))
    versions = docker(
        "version", "--format", "client {{.Client.Version}}, engine {{.Server.Version}}"
    ).stdout.strip()
    compose = docker("compose", "version", "--short").stdout.strip()
    machine = (
        f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(f"\n{versions}, compose {compose}, {machine}")
    print(
        f"{time.monotonic() - begun:.0f} s in all. Medians; intervals by bootstrap; read them as"
        " ratios."
    )


main()
