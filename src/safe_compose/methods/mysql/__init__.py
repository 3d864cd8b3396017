"""MySQL and MariaDB: found, dumped and counted in one view, proved from the disk, tried out, and brought back.

- `server`   which server, how it lets us in, how it is asked     - `scan`     what a dump holds, while it streams
- `dump`     dump, accounts, counts, and the proof (L2, L3)       - `restore`  from a dump to a living server
- `password` what the server keeps of it, changed and tried        - `foreign`  dumps that anybody made
- `trial`    restored in a scratch volume and counted (L4)        - `control`  how a stopped server left its volume
"""

from safe_compose.methods.mysql import password
from safe_compose.methods.mysql.control import left_behind, settled
from safe_compose.methods.mysql.dump import Dump, count, dump, verify_dump
from safe_compose.methods.mysql.restore import rebuild, restore_dump
from safe_compose.methods.mysql.server import Address, Login, Reading, Server, contact, logins, server, serves, summary
from safe_compose.methods.mysql.trial import trial, trial_archive, trial_dump

DUMPED_BEFORE_DELETION = True

__all__ = [
    "DUMPED_BEFORE_DELETION",
    "Address",
    "Dump",
    "Login",
    "Reading",
    "Server",
    "contact",
    "count",
    "dump",
    "left_behind",
    "logins",
    "password",
    "rebuild",
    "restore_dump",
    "server",
    "serves",
    "settled",
    "summary",
    "trial",
    "trial_archive",
    "trial_dump",
    "verify_dump",
]
