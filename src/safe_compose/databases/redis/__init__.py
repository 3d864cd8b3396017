"""Redis and Valkey servers: detection, dumps, saving before a stop, verification and restore.

- `discover`: the server, and the location of its data
- `client`: commands to the server; `info`: its answers
- `login`: the password and port it accepts
- `rdb`: a reader of RDB files
- `dump`: the RDB of a running server, verified (L3)
- `restore`: an RDB restored for a server that loads it; test restores (L4)
- `shutdown`: saving before a stop, and the files it left
"""

from safe_compose.databases.redis.client import RedisClient
from safe_compose.databases.redis.discover import (
    RedisServer,
    count,
    is_server,
    own_files,
    server,
    serves,
    summary,
)
from safe_compose.databases.redis.dump import RedisDump, dump, verify_dump
from safe_compose.databases.redis.restore import RedisTrial, rebuild
from safe_compose.databases.redis.shutdown import inspect_shutdown, settling

__all__ = [
    "RedisClient",
    "RedisDump",
    "RedisServer",
    "RedisTrial",
    "count",
    "dump",
    "inspect_shutdown",
    "is_server",
    "own_files",
    "rebuild",
    "server",
    "serves",
    "settling",
    "summary",
    "verify_dump",
]
