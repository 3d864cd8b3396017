"""SQLite databases in any volume: found, copied consistently while in use, verified and restored.

- `find`: databases in an archive that was just made, by their first bytes
- `copy`: consistent copies of them
- `verify`: checks of the copies and of archived databases
- `restore`: copies in the place of inconsistent files
- `check`: the result of this host's SQLite for one database, from a process with limits that runs
  `judge`
- `workplace`: the folder in which copies are checked
"""

from safe_compose.databases.sqlite.copy import METHODS, UNJUDGED, copy_databases
from safe_compose.databases.sqlite.find import MAGIC, Finder, find, make_readable
from safe_compose.databases.sqlite.restore import put_copies
from safe_compose.databases.sqlite.verify import verify_archived, verify_copies

__all__ = [
    "MAGIC",
    "METHODS",
    "UNJUDGED",
    "Finder",
    "copy_databases",
    "find",
    "make_readable",
    "put_copies",
    "verify_archived",
    "verify_copies",
]
