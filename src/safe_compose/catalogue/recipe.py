"""`RESTORE.md`: how a backup is put back by hand, with docker, sha256sum, gzip, tar and the database's own
client alone."""

from collections.abc import Iterator, Sequence
from shlex import quote
from urllib.parse import unquote

from safe_compose.artifacts import HIDDEN, Artifact, Backup, VolumeRecord

_TAR = "tar -C / --numeric-owner --same-owner --xattrs '--xattrs-include=*' --xattrs-exclude=security.selinux --acls -xpf -"

_RUN = 'docker run --rm {}--pull never --network none --user 0 -v "$VOLUME":/volume --entrypoint'
"""Only where something is piped in it gets `-i`: else it would eat the lines that are pasted after it."""


def recipe(backup: Backup) -> str:
    """The whole text of `RESTORE.md`. Every command only makes new things: none deletes or overwrites."""
    return "\n".join(_lines(backup)) + "\n"


def _lines(backup: Backup) -> Iterator[str]:
    yield f"# Backup {backup.id}"
    yield ""
    yield f"Project {_code(backup.project)}, made {backup.created} ({backup.reason}) from {_code(backup.endpoint)}."
    yield "With safe-compose:"
    yield from _shell(f"safe-compose restore {backup.id}")
    yield "Without it, in a POSIX shell. First go to this folder and check it; go on only when every line says OK:"
    yield from _shell("sha256sum -c SHA256SUMS")
    yield "A dump that is cut short loads without an error, so never leave that check out."
    yield "Each section below makes a new volume and fills it. It does nothing when a volume of that name exists: then look"
    yield "at that one first, or change the name in `VOLUME`."
    if any(a.sealed for v in backup.volumes for a in v.artifacts):
        yield "The files that end in `.age` are encrypted: `age` opens them with the identity of one of their recipients. Name its"
        yield "file first; a wrong one prints `no identity matched` and nothing more:"
        yield from _shell("KEY=$HOME/key.txt")
    for warning in backup.warnings:
        yield f"\nWarning: {warning}"
    for record in backup.volumes:
        yield ""
        yield from _volume(record, backup.id)


def _volume(record: VolumeRecord, backup_id: str) -> Iterator[str]:
    yield f"## Volume {_code(record.name)}"
    yield ""
    yield f"{record.data_kind}, method {record.method}, made {record.created_at or 'at an unknown time'}."
    for user in record.users:
        place = f"image {_code(user.get('image', '?'))} at {_code(user.get('destination', '?'))}"
        yield f"- used by {_code(user.get('container', '?'))} (service {_code(user.get('service') or '-')}), {place}"
    for artifact in record.artifacts:
        what = f"{artifact.kind}{' ' + _code(artifact.database) if artifact.database is not None else ''}"
        yield f"- {_code(artifact.file)}: {what}, {artifact.bytes} bytes, sha256 {artifact.sha256}"
    for note in record.notes:
        yield f"- note: {note}"
    if any(HIDDEN in value for value in record.options.values()):
        yield f"- put the real value in the place of `{HIDDEN}` below"
    archives = [a for a in record.artifacts if a.kind == "archive"]
    for archive in archives:
        yield from _from_archive(record, archive)
    for number, copy in enumerate(a for a in record.artifacts if a.kind == "sqlite"):
        yield from _sqlite_copy(record, copy, first=number == 0)
    for base in (a for a in record.artifacts if a.kind == "base"):
        yield from _from_copy(record, base)
    databases = [a for a in record.artifacts if a.kind == "database"]
    kind = record.statistics.kind if record.statistics is not None else ""
    if databases and kind == "redis":
        yield from _from_rdb(record, databases[0])
    if databases and kind == "postgres":
        yield from _from_dump(record, databases, f"restore-{backup_id}", also=bool(archives))
    if kind in ("mariadb", "mysql"):
        yield from _from_mysql_dump(record, f"restore-{backup_id}", also=bool(archives))


def _from_archive(record: VolumeRecord, archive: Artifact) -> Iterator[str]:
    yield ""
    yield f"### {_code(record.name)} from its archive (everything as it was)"
    if archive.detail.get("tar") == "engine":
        yield from _through_the_engine(record, archive)
        return
    yield "`IMAGE` may be any local image with GNU tar."
    before, after = ("FILLED= ", ' && FILLED="$VOLUME"') if record.sqlite else ("", "")
    yield from _shell(
        f"{before}VOLUME={quote(record.name)} IMAGE={quote(archive.detail.get('image') or _image(record))}",
        f"{_unless_it_exists()} {_create(record)} &&",
        f"{_unpacked(archive)} | docker run --rm -i --pull never --network none --user 0 \\",
        '  -v "$VOLUME":/volume \\',
        f'  --entrypoint tar "$IMAGE" {_TAR.removeprefix("tar ")}{after}',
    )


def _through_the_engine(record: VolumeRecord, archive: Artifact) -> Iterator[str]:
    """No image had GNU tar when it was made: docker itself unpacks it, through a container that is never started."""
    yield "`IMAGE` may be any local image; it is not started."
    before, after = ("FILLED= ", ' && FILLED="$VOLUME"') if record.sqlite else ("", "")
    yield from _shell(
        f"{before}VOLUME={quote(record.name)} IMAGE={quote(_image(record))}",
        f"{_unless_it_exists()} {_create(record)} &&",
        "CONTAINER=$(docker create --pull never --network none \\",
        '  -v "$VOLUME":/volume "$IMAGE" none) &&',
        f'{_unpacked(archive)} | docker cp - "$CONTAINER":/ && docker rm "$CONTAINER"{after}',
    )


def _from_copy(record: VolumeRecord, base: Artifact) -> Iterator[str]:
    version = record.statistics.version if record.statistics else "?"
    yield ""
    yield f"### {_code(record.name)} from its physical copy (PostgreSQL {version} of the same major version, the same machine type)"
    yield "The server recovers by itself when it first starts on it."
    yield from _shell(
        f"VOLUME={quote(record.name)} IMAGE={quote(_image(record))}",
        f"{_unless_it_exists()} {_create(record)} &&",
        f"{_unpacked(base)} | docker run --rm -i --pull never --network none --user 0 \\",
        f'  -v "$VOLUME":/volume -e DATA={quote("/volume/" + base.detail.get("pgdata", "."))} --entrypoint sh "$IMAGE" \\',
        '  -c \'mkdir -p "$DATA" && tar -C "$DATA" --numeric-owner -xpf - && chmod 700 "$DATA" &&',
        '  chown --reference="$DATA/PG_VERSION" "$DATA" "$DATA/backup_manifest"\'',
    )


def _sqlite_copy(record: VolumeRecord, copy: Artifact, *, first: bool) -> Iterator[str]:
    """Right after the archive, in the same shell; nothing happens unless that has just filled a new volume."""
    if first:
        yield "The archive was made while something ran on the volume. Then put the consistent copies of its SQLite databases over"
        yield "those that it holds, and take away what lay beside them. `IMAGE` needs `dd` and `rm`."
    place = quote("/volume/" + unquote(copy.detail["path"], errors="surrogateescape"))
    yield from _shell(
        f"PLACE={place}",
        '[ "$FILLED" = "$VOLUME" ] &&',
        f'{_unpacked(copy)} | {_RUN.format("-i ")} dd "$IMAGE" of="$PLACE" status=none &&',
        f'{_RUN.format("")} rm "$IMAGE" -f "$PLACE-wal" "$PLACE-shm" "$PLACE-journal"',
    )


def _from_rdb(record: VolumeRecord, rdb: Artifact) -> Iterator[str]:
    server = record.statistics
    assert server is not None  # the caller looked
    folder = server.settings.get("folder", ".")
    base = "/volume" if folder == "." else f"/volume/{folder}"
    names = [server.settings.get("dbfilename", "dump.rdb")]
    if server.settings.get("appendonly") == "yes":
        names.append(server.settings.get("appendfilename", "appendonly.aof"))
    owner = ":".join(rdb.detail.get("owner", "0 0 755").split()[:2])
    yield ""
    yield f"### {_code(record.name)} from its RDB (server {server.version}, or a newer one)"
    if len(names) > 1:
        yield "The server appends, so it loads nothing but its append-only file: that may begin with an RDB, and is the same here."
    lines = [f'{_RUN.format("")} mkdir "$IMAGE" -p {quote(base)} &&']
    for name in names:
        fill = f'{_RUN.format("-i ")} dd "$IMAGE" of={quote(f"{base}/{name}")} status=none'
        lines.append(f"{_unpacked(rdb)} | {fill} &&")
    yield from _shell(
        f"VOLUME={quote(record.name)} IMAGE={quote(_image(record))}",
        f"{_unless_it_exists()} {_create(record)} &&",
        *lines,
        f'{_RUN.format("")} chown "$IMAGE" -R {owner} /volume',
    )


def _from_dump(record: VolumeRecord, databases: Sequence[Artifact], name: str, *, also: bool) -> Iterator[str]:
    server = record.statistics
    assert server is not None  # the caller looked
    user = quote(server.user)
    psql = f"docker exec -i {name} psql -X -q -U {user} -d postgres"
    place = next((u["destination"] for u in record.users if u.get("destination")), "/var/lib/postgresql/data")
    pgdata = f" -e PGDATA={quote(server.pgdata)}" if server.pgdata else ""
    yield ""
    yield f"### {_code(record.name)} from its dump (PostgreSQL {server.version}, or a newer server)"
    if record.dump_older_than_archive:
        yield "The dump is older than the archive above: something was written in between. Prefer the archive."
    elif also:
        yield "Use the archive above unless the server's version changes or the archive is damaged."
    yield "Choose a password for the time of loading; the passwords of the backup replace it."
    yield from _shell(
        f"VOLUME={quote(record.name)} IMAGE={quote(_image(record))}",
        "printf 'password: '; read -r POSTGRES_PASSWORD; export POSTGRES_PASSWORD",
        f"{_unless_it_exists()} {_create(record)} &&",
        f"docker run -d --pull never --network none --name {name} -e POSTGRES_PASSWORD -e POSTGRES_USER={user} \\",
        f'  -e POSTGRES_DB=postgres{pgdata} -v "$VOLUME":{quote(place)} "$IMAGE" &&',
        f"until docker exec {name} psql -X -h 127.0.0.1 -U {user} -d postgres -c 'select 1' >/dev/null 2>&1",
        "do sleep 1; done",
    )
    for role in (a for a in record.artifacts if a.kind == "globals"):
        yield f"Roles and tablespaces; that role {_code(server.user)} already exists is the one error to expect:"
        yield from _shell(f"{_unpacked(role)} | {psql}")
    for database in databases:
        if database.database in ("postgres", "template1"):
            yield f"Database {_code(database.database)}; that it already exists is the one error to expect:"
            yield from _shell(f"{_unpacked(database)} | {psql}")
        else:
            yield f"Database {_code(database.database or '?')}:"
            yield from _shell(f"{_unpacked(database)} | {psql} -v ON_ERROR_STOP=1")
    yield "Then leave the volume to its own service:"
    yield from _shell(f"docker stop -t 120 {name} && docker rm {name}")


def _from_mysql_dump(record: VolumeRecord, name: str, *, also: bool) -> Iterator[str]:
    server = record.statistics
    assert server is not None  # the caller looked
    dumps = [a for a in record.artifacts if a.kind in ("database", "globals")]
    program = dumps[0].detail.get("client", "mysql") if dumps else "mysql"
    client = f"docker exec -i -e MYSQL_PWD {name} {program} -u root --max-allowed-packet=1G"
    brand = "MARIADB" if server.kind == "mariadb" else "MYSQL"
    options = [f"--{key.replace('_', '-')}={value}" for key, value in server.settings.items()]
    if server.pgdata and server.pgdata != "/var/lib/mysql":
        options.append(f"--datadir={server.pgdata}")
    place = next((u["destination"] for u in record.users if u.get("destination")), "/var/lib/mysql")
    yield ""
    title = "MariaDB" if server.kind == "mariadb" else "MySQL"
    yield f"### {_code(record.name)} from its dump ({title} {server.version}, or a newer server)"
    if record.dump_older_than_archive:
        yield "The dump is older than the archive above: something was written in between. Prefer the archive."
    elif also:
        yield "Use the archive above unless the server's version changes or the archive is damaged."
    yield "Choose a password for the time of loading; the passwords of the backup replace it."
    yield from _shell(
        f"VOLUME={quote(record.name)} IMAGE={quote(_image(record))}",
        "printf 'password: '; read -r MYSQL_PWD; export MYSQL_PWD",
        f'export {brand}_ROOT_PASSWORD="$MYSQL_PWD"',
        f"{_unless_it_exists()} {_create(record)} &&",
        f"docker run -d --pull never --network none --name {name} -e {brand}_ROOT_PASSWORD -e {brand}_ROOT_HOST=localhost \\",
        f'  -v "$VOLUME":{quote(place)} "$IMAGE" --event-scheduler=OFF --max-allowed-packet=1G \\',
        f"  {' '.join(map(quote, options))} &&",
        f"until {client} -N -e 'select @@skip_networking' 2>/dev/null </dev/null | grep -qx 0",
        "do sleep 1; done",
    )
    for kind, what in (
        ("database", "The databases"),
        ("globals", "Their accounts, last, because their passwords hold from then on"),
    ):
        for dump in (a for a in dumps if a.kind == kind):
            yield f"{what}:"
            yield from _shell(f"{_unpacked(dump)} | {client} --binary-mode --default-character-set=utf8mb4")
    yield "Then leave the volume to its own service:"
    yield from _shell(f"docker stop -t 120 {name} && docker rm {name}")


def _unpacked(artifact: Artifact) -> str:
    """The command that prints what a file holds."""
    file = quote("./" + artifact.file)
    return f'age -d -i "$KEY" {file} | gzip -dc' if artifact.sealed else f"gzip -dc {file}"


def _unless_it_exists() -> str:
    return '! docker volume inspect "$VOLUME" >/dev/null 2>&1 &&'


def _create(record: VolumeRecord) -> str:
    words = ["docker", "volume", "create", "--driver", record.driver]
    words += [word for name, value in sorted(record.options.items()) for word in ("--opt", f"{name}={value}")]
    words += [word for name, value in sorted(record.labels.items()) for word in ("--label", f"{name}={value}")]
    return " ".join(quote(word) for word in words) + ' "$VOLUME"'


def _image(record: VolumeRecord) -> str:
    return next((u["image"] for u in record.users if u.get("image")), "debian:12")


def _shell(*lines: str) -> Iterator[str]:
    yield ""
    yield "```sh"
    yield from lines
    yield "```"
    yield ""


def _code(text: str) -> str:
    """A name as Markdown code, whatever it holds."""
    flat = " ".join(text.split("\n"))
    return f"`` {flat} ``" if "`" in flat else f"`{flat}`"
