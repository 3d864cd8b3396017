"""Extensions that the databases of a running server need and that its image does not have.

The server starts on such data and counts its rows all the same; only what uses the extension fails.
"""

import json

from safe_compose.databases.postgres.client import naming_client_fault
from safe_compose.databases.postgres.discover import PostgresServer
from safe_compose.databases.postgres.server_facts import parse_name
from safe_compose.databases.protocol import understanding

_MISSING = """
SELECT COALESCE(pg_catalog.jsonb_agg(extname ORDER BY extname), '[]')
FROM pg_catalog.pg_extension
WHERE extname NOT IN (SELECT name FROM pg_catalog.pg_available_extensions)
"""


def find_missing_extensions(server: PostgresServer) -> dict[str, tuple[str, ...]]:
    """Return each database that needs extensions which the image lacks, with their names.

    Raises:
        OperationFailed: The server does not answer.
    """
    client, found = server.client.by_exec(), {}
    with naming_client_fault(server.volume, "look at the extensions"):
        for database in server.databases:
            answer = client.ask(database, _MISSING)
            with understanding(f"database {database}"):
                if missing := tuple(map(parse_name, json.loads(answer))):
                    found[database] = missing
    return found
