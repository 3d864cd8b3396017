"""The sections of `RESTORE.md` for the data of database servers."""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from safe_compose.core.backup import MYSQL_SETTINGS, POSTGRES_SETTINGS, Artifact, VolumeRecord
from safe_compose.core.initdb import initdb_arguments
from safe_compose.core.observed import INIT_FOLDERS
from safe_compose.core.owners import Owners, make_file_commands, make_folder_commands
from safe_compose.core.text import escape_markdown, join_for_shell, quote_markdown, shell_quote
from safe_compose.store.catalogue.restore_commands import (
    RUN,
    create_location,
    format_block,
    print_file,
    run_on_volume,
    set_variables,
)

_WRITES = "-e PGOPTIONS='-c default_transaction_read_only=off'"
"""Option of `docker exec`: a database, or a role, may be set to read only."""
_NO_SCRIPTS = " ".join(f"--tmpfs {folder}" for folder in INIT_FOLDERS)
"""Options of `docker run` that hide the image's init scripts, so that they add nothing to the
dump."""


def describe_server(record: VolumeRecord, name: str, *, archived: bool) -> Iterator[str]:
    """Yield the sections that restore the data of the server on a volume; none without a server.

    Args:
        record: The volume.
        name: The name of the container in which a dump is loaded, quoted for the shell.
        archived: Whether the backup also holds an archive of the volume.
    """
    for base in (a for a in record.artifacts if a.kind == "base"):
        yield from _describe_physical_copy(record, base)
    databases = [a for a in record.artifacts if a.kind == "database"]
    kind = record.statistics.kind if record.statistics is not None else ""
    if databases and kind == "redis":
        yield from _describe_rdb(record, databases[0])
    if databases and kind == "postgres":
        yield from _describe_postgres_dump(record, databases, name, archived=archived)
    if kind in ("mariadb", "mysql"):
        yield from _describe_mysql_dump(record, name, archived=archived)


def _describe_physical_copy(record: VolumeRecord, base: Artifact) -> Iterator[str]:
    """Yield the section that restores a physical copy of a PostgreSQL server."""
    version = escape_markdown(record.statistics.version if record.statistics else "?")
    yield ""
    needs = f"PostgreSQL {version} of the same major version, the same machine type"
    yield f"### {quote_markdown(record.name)} from its physical copy ({needs})"
    yield "The server recovers by itself when it first starts on it."
    found, within = Owners.of([base]), base.detail.get("pgdata", ".")
    yield from format_block(
        set_variables(record),
        f"{create_location(record)} &&",
        f"{print_file(base)} | docker run --rm -i --pull never --network none --user 0 \\",
        f'  -v "$VOLUME":/volume -e DATA={shell_quote("/volume/" + within)} --entrypoint sh'
        ' "$IMAGE" \\',
        '  -c \'mkdir -p "$DATA" && tar -C "$DATA" --numeric-owner -xpf - && chmod 700 "$DATA" &&',
        *run_on_volume(
            '  chown --reference="$DATA/PG_VERSION" "$DATA" "$DATA/backup_manifest"\'',
            make_folder_commands(found, "/volume", within) if found is not None else (),
        ),
    )


def _describe_rdb(record: VolumeRecord, rdb: Artifact) -> Iterator[str]:
    """Yield the section that restores the RDB of a Redis server."""
    server = record.statistics
    assert server is not None  # the caller checked
    folder = server.settings.get("folder", ".")
    base = "/volume" if folder == "." else f"/volume/{folder}"
    names = [server.settings.get("dbfilename", "dump.rdb")]
    if server.settings.get("appendonly") == "yes":
        names.append(server.settings.get("appendfilename", "appendonly.aof"))
    uid, gid, mode = rdb.detail.get("owner", "0 0 755").split()
    owner = shell_quote(f"{uid}:{gid}")
    root = rdb.detail.get("root", f"{uid} {gid} {mode}").split()
    yield ""
    yield (
        f"### {quote_markdown(record.name)} from its RDB (server {escape_markdown(server.version)},"
        " or a newer one)"
    )
    if len(names) > 1:
        yield (
            "The server appends, so it loads nothing but its append-only file: that may begin with"
            " an RDB, and is the same here."
        )
    lines = [f'{RUN.format("")} mkdir "$IMAGE" -p {shell_quote(base)} &&']
    for name in names:
        fill = f'{RUN.format("-i ")} dd "$IMAGE" of={shell_quote(f"{base}/{name}")} status=none'
        lines.append(f"{print_file(rdb)} | {fill} &&")
    yield from format_block(
        set_variables(record),
        f"{create_location(record)} &&",
        *lines,
        f'{RUN.format("")} chown "$IMAGE" -R {owner} {shell_quote(base)} &&',
        f'{RUN.format("")} chmod "$IMAGE" {shell_quote(mode)} {shell_quote(base)} &&',
        f'{RUN.format("")} chown "$IMAGE" {shell_quote(":".join(root[:2]))} /volume &&',
        f'{RUN.format("")} chmod "$IMAGE" {shell_quote(root[2])} /volume',
    )
    yield from _settings(record)


def _describe_postgres_dump(
    record: VolumeRecord, databases: Sequence[Artifact], name: str, *, archived: bool
) -> Iterator[str]:
    """Yield the section that loads the dump of a PostgreSQL server."""
    server = record.statistics
    assert server is not None  # the caller checked
    user = shell_quote(server.user)
    psql = f"docker exec -i {_WRITES} {name} psql -X -q -U {user} -d postgres"
    place, directory = _choose_mount(record, server.pgdata, "/var/lib/postgresql/data")
    pgdata = f" -e PGDATA={shell_quote(directory)}" if server.pgdata else ""
    needs = [
        word
        for n in POSTGRES_SETTINGS
        if n in server.settings
        for word in ("-c", f"{n}={server.settings[n]}")
    ]
    initdb = initdb_arguments(server.settings)
    made = f" -e POSTGRES_INITDB_ARGS={shell_quote(initdb)}" if initdb else ""
    started = f" {join_for_shell(['postgres', *needs])}" if needs else ""
    yield ""
    yield (
        f"### {quote_markdown(record.name)} from its dump (PostgreSQL"
        f" {escape_markdown(server.version)}, or a newer server)"
    )
    yield from _introduce_dump(record, archived=archived)
    yield (
        "Where roles have md5 passwords (the default before PostgreSQL 14), add"
        " `-e POSTGRES_HOST_AUTH_METHOD=md5` to `docker run`: otherwise no network lets them in."
    )
    yield from format_block(
        set_variables(record),
        "printf 'password: '; read -r POSTGRES_PASSWORD; export POSTGRES_PASSWORD",
        f"{create_location(record)} &&",
        f"docker run -d --pull never --network none --name {name} -e POSTGRES_PASSWORD -e"
        f" POSTGRES_USER={user} \\",
        f"  {_NO_SCRIPTS}{made} \\",
        f'  -e POSTGRES_DB=postgres{pgdata} -v "$VOLUME":{shell_quote(place)} "$IMAGE"{started} &&',
        f"until docker exec {name} psql -X -h 127.0.0.1 -U {user} -d postgres -c 'select 1'"
        " >/dev/null 2>&1",
        "do sleep 1; done",
    )
    yield from _load_databases(record, databases, psql)
    yield from _leave(record, name, place, directory)


def _load_databases(
    record: VolumeRecord, databases: Sequence[Artifact], psql: str
) -> Iterator[str]:
    """Yield the commands that load roles, then databases, with the command `psql`."""
    server = record.statistics
    assert server is not None  # the caller checked
    for role in (a for a in record.artifacts if a.kind == "globals"):
        yield (
            f"Roles and tablespaces; that role {quote_markdown(server.user)} already exists is the"
            " one error to expect:"
        )
        yield from format_block(f"{print_file(role)} | {psql}")
    extended = {
        d.name for d in server.databases if any(e.startswith("timescaledb ") for e in d.extensions)
    }
    for database in databases:
        yield from _load_one(database, psql, timescale=database.database in extended)
    yield (
        "Where one stops at `REFRESH MATERIALIZED VIEW`, every row is in: fill the view once its"
        " source answers. Where one stops"
    )
    yield (
        "at a function that is not found, drop that database and load it under its own search_path,"
        " with this before its pipe:"
    )
    yield quote_markdown(
        "| sed \"1,/^COPY /s/^SELECT pg_catalog.set_config('search_path', '', false);/-- &/\""
    )


def _introduce_dump(record: VolumeRecord, *, archived: bool) -> Iterator[str]:
    if record.dump_older_than_archive:
        yield (
            "The dump is older than the archive above: something was written in between. Prefer the"
            " archive."
        )
    elif archived:
        yield "Use the archive above unless the server's version changes or the archive is damaged."
    yield "Choose a password for the time of loading; the passwords of the backup replace it."
    server = record.statistics
    program = "postgres" if server is None or server.kind == "postgres" else "mysqld"
    program = "mariadbd" if server is not None and server.kind == "mariadb" else program
    yield (
        "If the image has an entrypoint of its own that creates objects, or needs what is missing"
        " here, add"
    )
    yield (
        f'`--entrypoint docker-entrypoint.sh` before `"$IMAGE"`, and `{program}` after it unless it'
        " stands there already."
    )


def _load_one(database: Artifact, psql: str, *, timescale: bool) -> Iterator[str]:
    """Yield the commands that load the dump of one database."""
    name = database.database or "?"
    own = psql.removesuffix("postgres") + shell_quote(name)
    if timescale:
        yield (
            f"Database {quote_markdown(name)}; first TimescaleDB is told of it. That the database"
            " exists already is the one error"
        )
        yield "to expect:"
        yield from format_block(
            f"{print_file(database)} | sed -n '/^SET client_encoding /p; /^CREATE DATABASE"
            f" /{{p;q;}}' | {psql}",
            f"{own} -c 'CREATE EXTENSION timescaledb' -c 'SELECT timescaledb_pre_restore()'"
            " </dev/null",
            f"{print_file(database)} | {psql}",
            f"{own} -c 'SELECT timescaledb_post_restore()' </dev/null",
        )
    elif name in ("postgres", "template1"):
        yield f"Database {quote_markdown(name)}; that it already exists is the one error to expect:"
        yield from format_block(f"{print_file(database)} | {psql}")
    else:
        yield f"Database {quote_markdown(name)}:"
        yield from format_block(f"{print_file(database)} | {psql} -v ON_ERROR_STOP=1")


def _describe_mysql_dump(record: VolumeRecord, name: str, *, archived: bool) -> Iterator[str]:
    """Yield the section that loads the dump of a MariaDB or MySQL server."""
    server = record.statistics
    assert server is not None  # the caller checked
    dumps = [a for a in record.artifacts if a.kind in ("database", "globals")]
    program = shell_quote(dumps[0].detail.get("client", "mysql") if dumps else "mysql")
    client = f"docker exec -i -e MYSQL_PWD {name} {program} -u root --max-allowed-packet=1G"
    brand = "MARIADB" if server.kind == "mariadb" else "MYSQL"
    options = [
        f"--{key.replace('_', '-')}={server.settings[key]}"
        for key in MYSQL_SETTINGS
        if key in server.settings
    ]
    place, directory = _choose_mount(record, server.pgdata, "/var/lib/mysql")
    if server.pgdata and directory != "/var/lib/mysql":
        options.append(f"--datadir={directory}")
    yield ""
    title = "MariaDB" if server.kind == "mariadb" else "MySQL"
    yield (
        f"### {quote_markdown(record.name)} from its dump ({title}"
        f" {escape_markdown(server.version)}, or a newer server)"
    )
    yield from _introduce_dump(record, archived=archived)
    yield from format_block(
        set_variables(record),
        "printf 'password: '; read -r MYSQL_PWD; export MYSQL_PWD",
        f'export {brand}_ROOT_PASSWORD="$MYSQL_PWD"',
        f"{create_location(record)} &&",
        f"docker run -d --pull never --network none --name {name} -e {brand}_ROOT_PASSWORD -e"
        f" {brand}_ROOT_HOST=localhost \\",
        f"  {_NO_SCRIPTS} \\",
        f'  -v "$VOLUME":{shell_quote(place)} "$IMAGE" --event-scheduler=OFF'
        " --max-allowed-packet=1G \\",
        f"  {join_for_shell(options)} &&",
        f"until {client} -N -e 'select @@skip_networking' 2>/dev/null </dev/null | grep -qx 0",
        "do sleep 1; done",
    )
    for kind, what in (
        ("database", "The databases"),
        ("globals", "Their accounts, last, because their passwords hold from then on"),
    ):
        for dump in (a for a in dumps if a.kind == kind):
            yield f"{what}:"
            yield from format_block(
                f"{print_file(dump)} | {client} --binary-mode --default-character-set=utf8mb4"
            )
    yield from _leave(record, name, place, directory)


def _leave(record: VolumeRecord, name: str, place: str, directory: str) -> Iterator[str]:
    """Yield the commands that end a server started by hand on a volume mounted at `place`.

    They also set the owners of its data.
    """
    yield f"Then leave the {record.location} to its own service:"
    found, inside = Owners.of(record.artifacts), PurePosixPath(directory)
    words: list[tuple[str, ...]] = []
    if found is not None and inside.is_relative_to(place):
        within = str(inside.relative_to(place))
        words = [
            *make_file_commands(found, str(PurePosixPath("/volume", within))),
            *make_folder_commands(found, "/volume", within),
        ]
    yield from format_block(*run_on_volume(f"docker stop -t 120 {name} && docker rm {name}", words))
    yield from _settings(record)


def _settings(record: VolumeRecord) -> Iterator[str]:
    """Yield how to restore the server's own settings, while the server is stopped."""
    for settings in (a for a in record.artifacts if a.kind == "settings"):
        if names := settings.detail.get("names"):
            yield (
                "Only if you want the server's own settings back, which may name what is not there"
                " any more"
            )
            yield f"({escape_markdown(names)}):"
            place = shell_quote(str(PurePosixPath("/volume", settings.detail.get("pgdata", "."))))
            yield from format_block(
                f'{print_file(settings)} | {RUN.format("-i ")} tar "$IMAGE" -C {place} -xpf -'
            )
        else:
            yield (
                f"What the server told of itself is in {quote_markdown(settings.file)}, for you to"
                " read."
            )


def _choose_mount(record: VolumeRecord, directory: str, usual: str) -> tuple[str, str]:
    """Return where to mount the volume by hand, and the data directory there.

    For a service that mounted a part of the volume, the whole volume is mounted at `/volume`: that
    needs no folder that does not exist yet.
    """
    user = next((u for u in record.users if u.get("destination")), None)
    if user is None:
        return usual, directory or usual
    place, inside = user["destination"], PurePosixPath(directory or user["destination"])
    if not user.get("subpath") or not inside.is_relative_to(place):
        return place, str(inside)
    return "/volume", str(PurePosixPath("/volume", user["subpath"], inside.relative_to(place)))
