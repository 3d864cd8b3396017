"""Redis and Valkey: found, saved and read, settled before a stop, proved, tried out, and brought back.

- `server`  which server, how we log in, where its data lies  - `rdb`      what an RDB file holds
- `dump`    the RDB of a running server, and the proof (L3)   - `restore`  from an RDB to a server that loads it; trials (L4)
- `stop`    what is done before a stop, and what it left behind
"""

from safe_compose.methods.redis.dump import Dump, dump, verify_dump
from safe_compose.methods.redis.restore import rebuild, trial
from safe_compose.methods.redis.server import Access, Server, count, server, serves, summary
from safe_compose.methods.redis.stop import left_behind, settled

DUMPED_BEFORE_DELETION = False
"""The archive of what a stop leaves is the same RDB, and the append-only file besides."""

__all__ = [
    "DUMPED_BEFORE_DELETION",
    "Access",
    "Dump",
    "Server",
    "count",
    "dump",
    "left_behind",
    "rebuild",
    "server",
    "serves",
    "settled",
    "summary",
    "trial",
    "verify_dump",
]
