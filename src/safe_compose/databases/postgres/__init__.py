"""PostgreSQL servers: detection, dumps counted in one snapshot, verification and restore.

- `discover`: the server, the location of its data, and a login
- `client`: client programs and sessions; `connection`: their settings; `login`: their passwords
- `server_facts`: the server's description of itself
- `extensions`: those that databases need and their image lacks
- `settings`: settings files and replication slots
- `dump_lexer`: a plain dump split as psql does it
- `dump_scanner`: the content of a plain dump, counted while it streams
- `encodings`: texts of servers and dumps
- `write_counter`: whether anybody wrote
- `dump`: dumps and their verification (L2, L3); `row_counts`: the counts of tables
- `restore`: a dump restored into a fresh server
- `trial`: a test restore into a scratch volume, with counts (L4)
- `helper_server`: a server of ours on a volume; `helper_settings`: its settings
- `control_data`: the state that a stopped server left; `control_file`: the file that holds it
- `dump_stopped`: a dump of an unused volume, from a copy of it
- `major_upgrade`: a backup for a volume whose server now has a newer major version
- `dump_reader`: the facts in a plain dump; `dump_loading`: its order of loading
- `dump_file`: a dump file from any source; `dumpall`: one of a whole server
- `statement_router`: who may run a statement of a dump; `statement_forms`: how pg_dump writes them
- `restricted_load`: a dump loaded by a role that owns a single database
- `restrict`: scripts for psql, and its mode that takes no commands from them
- `target_server`: the server that gets a database; `dump_roles`: the roles that it lacks
- `side_by_side`: one database restored next to the current one, and swapped in
- `service_login`: the login of the service itself
- `base_backup`: a copy of the files of a running server; `base_manifest`: its verification
- `password`: the stored verifier of a password, changed and tested
"""

from safe_compose.databases.postgres import password
from safe_compose.databases.postgres.base_backup import copy, find_base
from safe_compose.databases.postgres.client import PostgresClient
from safe_compose.databases.postgres.control_data import (
    clean,
    control_state,
    inspect_shutdown,
    settling,
)
from safe_compose.databases.postgres.discover import (
    PostgresServer,
    is_server,
    own_files,
    server,
    serves,
    summary,
)
from safe_compose.databases.postgres.dump import PostgresDump, dump, verify_dump
from safe_compose.databases.postgres.dump_stopped import dump_stopped
from safe_compose.databases.postgres.extensions import find_missing_extensions
from safe_compose.databases.postgres.major_upgrade import adapt_record
from safe_compose.databases.postgres.restore import rebuild, restore_dump
from safe_compose.databases.postgres.row_counts import count
from safe_compose.databases.postgres.side_by_side import settle_restore
from safe_compose.databases.postgres.trial import PostgresTrial
from safe_compose.databases.postgres.write_counter import TransactionCounter

__all__ = [
    "PostgresClient",
    "PostgresDump",
    "PostgresServer",
    "PostgresTrial",
    "TransactionCounter",
    "adapt_record",
    "clean",
    "control_state",
    "copy",
    "count",
    "dump",
    "dump_stopped",
    "find_base",
    "find_missing_extensions",
    "inspect_shutdown",
    "is_server",
    "own_files",
    "password",
    "rebuild",
    "restore_dump",
    "server",
    "serves",
    "settle_restore",
    "settling",
    "summary",
    "verify_dump",
]
