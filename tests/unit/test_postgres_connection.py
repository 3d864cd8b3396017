"""Connection strings, read back by libpq."""

import subprocess
import sys

from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from safe_compose.databases.postgres.connection import format_conninfo

VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(VALUES, VALUES, st.integers(1, 65535))
@example("user=evil host=1.2.3.4", "", 1)
@example("it's \\", "a\t\v\f\r\nb", 1)
@example("postgresql://evil/x", "'", 1)
def test_libpq_reads_back_what_was_put_in(database: str, user: str, port: int) -> None:
    made = format_conninfo(host="/run/x", port=port, user=user, dbname=database)
    read = {"host": "/run/x", "port": str(port), "user": user, "dbname": database}
    assert conninfo_to_dict(made) == read


def test_a_client_does_without_the_import_of_psycopg() -> None:
    program = (
        "import sys; from safe_compose.databases.postgres import PostgresClient;"
        "PostgresClient(None, 'c', 'i', 'u').conninfo('d'); print('psycopg' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
