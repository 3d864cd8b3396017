"""The login of a service itself, tried over the network with the password of its environment."""

from contextlib import suppress

from safe_compose.databases.postgres.client import APPLICATION, PSQL
from safe_compose.databases.postgres.connection import IN_ENGLISH, format_conninfo
from safe_compose.databases.postgres.discover import PostgresServer
from safe_compose.databases.postgres.login import read_password
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.engine.helper_args import Helper
from safe_compose.volumes.helper_program import read_last_words


class LoginUntried(Exception):
    """A login cannot be tried; the message says why."""


def try_login(server: PostgresServer, database: str) -> str | None:
    """Log in over the network as the service's environment says, and return why it failed, or None.

    The password is on no command line.

    Raises:
        LoginUntried: The login cannot be tried.
    """
    container = server.container
    if not container.addresses or not container.networks:
        raise LoginUntried("its container is in no network of its own")
    environment = server.engine.docker.private(container.id).environment
    password, file = environment.get("POSTGRES_PASSWORD"), environment.get("POSTGRES_PASSWORD_FILE")
    if not password and file:
        with suppress(HelperFailed):
            password = read_password(server.engine, container.id, file)
    if not password:
        raise LoginUntried("its environment names no password")
    user = environment.get("POSTGRES_USER") or "postgres"
    where = format_conninfo(
        host=container.addresses[0], port=server.client.port, user=user, dbname=database,
        connect_timeout=10, application_name=APPLICATION,
    )  # fmt: skip
    helper = Helper(
        image=server.client.image,
        argv=(*PSQL, f"--dbname={where}", "--command=SELECT 1"),
        network=container.networks[0],
        environment={**IN_ENGLISH, "PGPASSWORD": password},
    )
    try:
        server.engine.helpers.run(helper, timeout=60)
    except HelperFailed as error:
        return read_last_words(error)
    return None
