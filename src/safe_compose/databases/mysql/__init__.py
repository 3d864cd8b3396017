"""MySQL and MariaDB servers: detection, dumps counted in one snapshot, verification and restore.

- `discover`: the server, and the location of its data
- `login`: accounts that may let us in
- `client`: the client programs and sessions
- `write_counter`: whether anybody wrote
- `contents`: tables and other objects, and their counts
- `dump`: dumps and their verification (L2, L3)
- `dump_scanner`: the content of a dump, counted while it streams
- `accounts`: accounts as a script
- `restore`: a dump restored into a running server
- `dump_file`: dump files from any source
- `statements`: the statements that such a file may hold
- `helper_server`: a server of ours on a volume
- `trial`: a test restore into a scratch volume, with counts (L4)
- `shutdown_state`: the state in which a stopped server left its volume
- `password`: the stored hash of a password, changed and tested
"""

from safe_compose.databases.mysql import password
from safe_compose.databases.mysql.client import MysqlClient
from safe_compose.databases.mysql.contents import count
from safe_compose.databases.mysql.discover import (
    MysqlServer,
    contact,
    is_server,
    own_files,
    server,
    serves,
    summary,
)
from safe_compose.databases.mysql.dump import MysqlDump, dump, verify_dump
from safe_compose.databases.mysql.login import Login, logins
from safe_compose.databases.mysql.restore import rebuild, restore_dump
from safe_compose.databases.mysql.shutdown_state import inspect_shutdown, settling
from safe_compose.databases.mysql.trial import MysqlTrial
from safe_compose.databases.mysql.write_counter import WriteCounter

__all__ = [
    "Login",
    "MysqlClient",
    "MysqlDump",
    "MysqlServer",
    "MysqlTrial",
    "WriteCounter",
    "contact",
    "count",
    "dump",
    "inspect_shutdown",
    "is_server",
    "logins",
    "own_files",
    "password",
    "rebuild",
    "restore_dump",
    "server",
    "serves",
    "settling",
    "summary",
    "verify_dump",
]
