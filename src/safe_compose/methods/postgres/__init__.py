"""PostgreSQL: found, dumped and counted in one snapshot, proved from the disk, tried out, and brought back.

- `server`   which server, where its data lies, how it is asked   - `scan`     what a plain dump holds, while it streams
- `dump`     dumps, counts, and the proof (L2, L3)                - `restore`  from a dump to a living server
- `trial`    restored in a scratch volume and counted (L4)        - `control`  the state that a stopped server left behind
- `throwaway` a dump where no server runs, from a copy of the volume
- `moved`    a backup, and the server of today that its volume is mounted by
- `said`     what a plain dump tells of itself                  - `bare`     a dump that anybody made, as a file
- `beside`   one database beside the living one, and swapped in
- `physical` a copy of the files of a running server               - `manifest` that copy, held against the server's own list
- `password` what the server keeps of it, changed and tried
"""

from safe_compose.methods.postgres import password
from safe_compose.methods.postgres.beside import settled as settled_swap
from safe_compose.methods.postgres.control import clean, control_state, left_behind, settled
from safe_compose.methods.postgres.dump import Dump, count, dump, verify_dump
from safe_compose.methods.postgres.moved import moved
from safe_compose.methods.postgres.physical import base_of, copy
from safe_compose.methods.postgres.restore import rebuild, restore_dump
from safe_compose.methods.postgres.server import (
    Address,
    Reading,
    Server,
    reading,
    server,
    serves,
    summary,
)
from safe_compose.methods.postgres.throwaway import dump_stopped
from safe_compose.methods.postgres.trial import trial, trial_archive, trial_base, trial_dump

DUMPED_BEFORE_DELETION = True

__all__ = [
    "DUMPED_BEFORE_DELETION",
    "Address",
    "Dump",
    "Reading",
    "Server",
    "base_of",
    "clean",
    "control_state",
    "copy",
    "count",
    "dump",
    "dump_stopped",
    "left_behind",
    "moved",
    "password",
    "reading",
    "rebuild",
    "restore_dump",
    "server",
    "serves",
    "settled",
    "settled_swap",
    "summary",
    "trial",
    "trial_archive",
    "trial_base",
    "trial_dump",
    "verify_dump",
]
