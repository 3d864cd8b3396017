"""Postgres, found, dumped, counted, proved, tried and brought back, with everything that dumps are
known to stumble over.
"""

import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from safe_compose.core.backup import (
    Artifact,
    DatabaseStatistics,
    ServerStatistics,
    TableCount,
    VolumeRecord,
)
from safe_compose.core.observed import HELPER_LABEL, Container, Mount
from safe_compose.databases import postgres
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.postgres import restricted_load, side_by_side
from safe_compose.databases.protocol import CopyRefused, ServerUnreachable
from safe_compose.engine import Engine
from safe_compose.engine.client_stream import HelperFailed
from safe_compose.errors import OperationFailed, Refused, StateChanged, VerificationFailed
from safe_compose.volumes import archive, gzip_stream
from safe_compose.volumes.engine_location import EngineLocation
from testing.projects import docker, wait_until

pytestmark = pytest.mark.long

IMAGE = "postgres:15"
NO_ENGINE: Any = None  # nothing is asked
PASSWORD = "canary-5e0c1d"
DATA = "/var/lib/postgresql/data"
PSQL = "/usr/lib/postgresql/15/bin/psql"
NO_LIMITS = "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
ODD = ("--help", 'a b"c', "x=y", "Ünï %s'; --")


# -- without an engine -----------------------------------------------------------------------------


def _container(image: str, environment: dict[str, str], *mounts: tuple[str, str]) -> Container:
    return Container(
        id="c", name="c", image=image, image_id="sha256:0", state="running",
        environment=environment, mounts=tuple(Mount("volume" if name else "bind", name or None, "",
          at) for name, at in mounts),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("image", "environment", "mounts", "serves"),
    [
        ("postgres:15", {"PGDATA": DATA, "PG_MAJOR": "15"}, [("v", DATA)], True),
        ("postgres:15", {"PGDATA": f"{DATA}/pgdata", "PG_MAJOR": "15"}, [("v", DATA)], True),
        (
            "postgres:18",
            {"PGDATA": "/var/lib/postgresql/18/docker", "PG_MAJOR": "18"},
            [("v", "/var/lib/postgresql")],
            True,
        ),
        ("registry:5000/team/db@sha256:1", {"PG_MAJOR": "15"}, [("v", DATA)], True),
        ("bitnami/postgresql:16", {}, [("v", "/bitnami/postgresql")], True),
        ("postgres:15", {"PGDATA": DATA, "PG_MAJOR": "15"}, [("v", "/backups")], False),
        (
            "postgres:15",
            {"PGDATA": DATA, "PG_MAJOR": "15"},
            [("v", "/var/lib/postgresql"), ("w", DATA)],
            False,
        ),
        ("postgres:15", {"PGDATA": DATA, "PG_MAJOR": "15"}, [("", DATA)], False),
        ("app:1", {}, [("v", DATA)], False),
    ],
)
def test_a_server_is_recognised_by_its_image_and_mounts(
    image: str, environment: dict[str, str], mounts: list[tuple[str, str]], serves: bool
) -> None:
    assert postgres.serves(_container(image, environment, *mounts), "v") is serves


@pytest.mark.parametrize("database", [*ODD, "user=evil host=1.2.3.4", "\\"])
def test_no_database_name_breaks_out_of_a_connection_string(database: str) -> None:
    from psycopg.conninfo import conninfo_to_dict

    parts = conninfo_to_dict(
        postgres.PostgresClient(NO_ENGINE, "c", "i", "the user").conninfo(database)
    )
    assert (parts["dbname"], parts["user"], parts["host"]) == (
        database,
        "the user",
        "/var/run/postgresql",
    )


@pytest.mark.parametrize(
    ("before", "later", "still"),
    [
        ((5, 5), (5, 5), True),
        ((4, 5), (5, 5), False),
        ((5, 5), (5, 6), False),
        ((5, 5), (4, 5), True),
    ],
)
def test_the_transaction_counter_tells_whether_anybody_wrote(
    before: tuple[int, int], later: tuple[int, int], still: bool
) -> None:
    assert postgres.TransactionCounter(*before).still(postgres.TransactionCounter(*later)) is still


HEAD = b"--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE public.t ();\n\n"
BODY = b"COPY public.t (a) FROM stdin;\n1\tx\n2\ty\n3\tz\n\\.\n\n"
TAIL = b"--\n-- PostgreSQL database dump complete\n--\n\n"
COUNTED = ServerStatistics(
    "postgres",
    "15",
    "postgres",
    databases=(DatabaseStatistics("d", 0, (TableCount("public", "t", 3),)),),
)


def _kept(folder: Path, name: str, text: bytes, kind: str, database: str | None = None) -> Artifact:
    (folder / name).unlink(missing_ok=True)
    sums = gzip_stream.pack([text], folder / name, subject="v", stage="t")
    return Artifact(name, kind, sums.bytes, sums.sha256, sums.uncompressed_bytes, "v", database)


def _set(folder: Path, text: bytes) -> list[Artifact]:
    roles = b"--\n-- PostgreSQL database cluster dump complete\n--\n\n"
    return [_kept(folder, "g.gz", roles, "globals"), _kept(folder, "d.gz", text, "database", "d")]


def test_a_dump_that_died_before_its_file_was_closed_cleanly_is_rejected_at_every_cut(
    tmp_path: Path,
) -> None:
    whole = HEAD + BODY + TAIL
    assert [e.level for e in postgres.verify_dump(tmp_path, _set(tmp_path, whole), COUNTED)] == [
        "L2",
        "L3",
    ]
    for cut in range(len(whole) - 1):
        with pytest.raises(VerificationFailed):
            postgres.verify_dump(tmp_path, _set(tmp_path, whole[:cut]), COUNTED)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + BODY.replace(b"2\ty\n", b"") + TAIL,
        HEAD + BODY.replace(b"public.t", b"public.u") + TAIL,
        HEAD + TAIL,
        HEAD + BODY + b"SELECT pg_catalog.lo_create('1');\n" + TAIL,
    ],
    ids=["a row less", "another table", "no table", "a large object more"],
)
def test_a_dump_that_is_whole_but_not_what_was_counted_is_rejected(
    tmp_path: Path, text: bytes
) -> None:
    with pytest.raises(VerificationFailed, match="counted"):
        postgres.verify_dump(tmp_path, _set(tmp_path, text), COUNTED)


def test_a_backup_that_lacks_a_counted_database_or_the_globals_is_rejected(tmp_path: Path) -> None:
    roles, database = _set(tmp_path, HEAD + BODY + TAIL)
    for part in ([roles], [database], []):
        with pytest.raises(VerificationFailed, match="no dump of"):
            postgres.verify_dump(tmp_path, part, COUNTED)


# -- with an engine --------------------------------------------------------------------------------


@dataclass(frozen=True)
class PostgresLab:
    """One database server of the tests."""

    docker: str
    engine: Engine
    name: str
    user: str = "boss"
    port: int = 5432
    data: str = DATA

    def call(self, *argv: str, stdin: str = "") -> str:
        argv = (self.docker, *argv)
        try:
            done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=True)
        except subprocess.CalledProcessError as error:
            error.add_note(str(error.stderr))
            raise
        return done.stdout

    def sql(self, text: str, database: str = "postgres") -> str:
        info = make_conninfo(
            host="/var/run/postgresql",
            port=self.port,
            user=self.user,
            dbname=database,
            options=NO_LIMITS,
        )
        argv = [
            "exec",
            "-i",
            self.name,
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            info,
        ]
        return self.call(*argv, stdin=text).strip()

    @property
    def container(self) -> Container:
        found = self.engine.docker.container(self.name)
        assert found is not None
        return found


Start = Callable[..., PostgresLab]


Full = tuple[PostgresLab, Path, postgres.PostgresDump]


@pytest.fixture(scope="module")
def start(engine: Engine, real_docker: str) -> Iterator[Start]:
    """Start a server with its data in a volume of its own name; `command` for postgres."""
    labs: list[PostgresLab] = []

    def make(
        *command: str, port: int = 5432, data: str = DATA, mount: str = DATA, sockets: str = ""
    ) -> PostgresLab:
        lab = PostgresLab(
            real_docker, engine, f"Test_pg_{uuid.uuid4().hex[:10]}", port=port, data=data
        )
        labs.append(lab)
        settings = (
            "-e",
            f"POSTGRES_PASSWORD={PASSWORD}",
            "-e",
            f"POSTGRES_USER={lab.user}",
            "-e",
            "POSTGRES_DB=app",
        )
        lab.call("volume", "create", lab.name)
        settings += ("-e", f"PGPORT={port}", "-e", f"PGDATA={data}")
        if sockets:
            settings += ("-v", f"{sockets}:/var/run/postgresql")
        lab.call(
            "run", "-d", "--name", lab.name, *settings, "-v", f"{lab.name}:{mount}", IMAGE, *command
        )
        _wait(lab)
        return lab

    yield make
    for lab in labs:
        lab.call("rm", "-fv", lab.name)
        lab.call("volume", "rm", lab.name)


def _wait(lab: PostgresLab) -> None:
    """Until the final server answers: it is process 1, the temporary one of the first start is not."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            head = lab.call("exec", lab.name, "head", "-n", "1", f"{lab.data}/postmaster.pid")
            if head.strip() == "1" and lab.sql("SELECT 1") == "1":
                return
        except subprocess.CalledProcessError:
            assert lab.container.state == "running", lab.call("logs", lab.name)
    raise AssertionError(f"{lab.name} did not start")


FILL = r"""
CREATE ROLE alice LOGIN PASSWORD 'canary-5e0c1d';
CREATE ROLE "we""ird ROLE" NOLOGIN;
GRANT "we""ird ROLE" TO alice;
COMMENT ON ROLE alice IS 'a comment
CREATE ROLE boss;
';
CREATE SCHEMA "Sch""ema" AUTHORIZATION alice;
CREATE TABLE plain (id int PRIMARY KEY, t text, d text DEFAULT E'it\'s\nCOPY public.plain (id) FROM stdin;\n');
INSERT INTO plain SELECT g, repeat(md5(g::text), 3) FROM generate_series(1, 20000) g;
INSERT INTO plain VALUES (-1, E'a\\b\nc\td\re\\.'), (-2, E'\\.'), (-3, NULL), (-4, E'\n\\.\n'), (-5, '');
CREATE TABLE empty (x int);
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES; INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE "Sch""ema"."select from ""x"" (stdin);" ("a ("")" int, "FROM stdin;" text);
INSERT INTO "Sch""ema"."select from ""x"" (stdin);" VALUES (1, 'x');
CREATE TABLE parted (a int, b text) PARTITION BY LIST (a);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
INSERT INTO parted VALUES (1, 'x'), (2, 'y'), (3, 'z');
CREATE TABLE parent (x int);
CREATE TABLE child (y int) INHERITS (parent);
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 2), (3, 3);
CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS x;
CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM plain;
CREATE FUNCTION fake() RETURNS text LANGUAGE sql AS $$
  SELECT $_$
--
-- Data for Name: plain; Type: TABLE DATA; Schema: public; Owner: boss
--

COPY public.plain (id, t, d) FROM stdin;
1	2	3
\.
--
-- PostgreSQL database dump complete
--
$_$::text $$;
COMMENT ON TABLE plain IS 'the row''s
COPY public.plain (id) FROM stdin;
';
SELECT lo_from_bytea(4711, '\x00ff274a');
SELECT lo_from_bytea(4712, decode(repeat('ab', 100000), 'hex'));
ALTER TABLE empty OWNER TO alice;
ALTER DATABASE app SET work_mem = '5MB';
ALTER DATABASE app SET idle_in_transaction_session_timeout = '1ms';
ALTER DATABASE app SET statement_timeout = '1ms';
ALTER DATABASE app SET search_path = 'nowhere';
"""


@pytest.fixture(scope="module")
def full(start: Start, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Full:
    """A server with everything in it, and its dump."""
    lab = start()
    lab.sql(FILL, "app")
    for name in ODD:
        quoted = '"' + name.replace('"', '""') + '"'
        lab.sql(f"CREATE DATABASE {quoted}")
        lab.sql("CREATE TABLE t AS SELECT generate_series(1, 3) AS x", name)
    lab.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    lab.sql("CREATE TABLE \"größe\" AS SELECT 'ä'::text AS x", "latin")
    folder = tmp_path_factory.mktemp("full")
    found = postgres.server(EngineContainer(engine, lab.container))
    return lab, folder, postgres.dump(found, lab.name, folder)


def _record(
    lab: PostgresLab, artifacts: tuple[Artifact, ...], statistics: ServerStatistics
) -> VolumeRecord:
    user = {
        "container": lab.name,
        "service": "",
        "image": IMAGE,
        "image_id": lab.container.image_id,
        "destination": DATA,
    }
    return VolumeRecord(
        name=lab.name, driver="local", options={}, labels={}, created_at="", tier="critical",
        data_kind="postgres", anonymous=False, method="dump+cold", users=(user,),
        artifacts=artifacts, statistics=statistics,
    )  # fmt: skip


@pytest.mark.engine
def test_the_server_is_described_and_reached_by_a_side_container(full: Full) -> None:
    lab, _, dump = full
    server = dump.server
    assert (server.volume, server.pgdata, server.user) == (lab.name, ".", "boss")
    assert server.client.side
    assert server.system_identifier == lab.sql("SELECT system_identifier FROM pg_control_system()")
    assert set(server.databases) == {*ODD, "app", "postgres", "latin"}


@pytest.mark.engine
def test_every_table_is_counted_and_every_dump_proves_itself(full: Full) -> None:
    _, folder, dump = full
    app = next(d for d in dump.statistics.databases if d.name == "app")
    assert {(t.schema, t.table): t.rows for t in app.tables} == {
        ("public", "plain"): 20005, ("public", "empty"): 0, ("public", "no_columns"): 2,
        ('Sch"ema', 'select from "x" (stdin);'): 1, ("public", "parted_1"): 1, ("public",
         "parted_rest"): 2,
        ("public", "parent"): 1, ("public", "child"): 2, ("public", "unlogged"): 1,
    }  # fmt: skip
    assert app.large_objects == 2
    assert {d.name for d in dump.statistics.databases if d.rows == 3} == set(ODD)
    evidence = postgres.verify_dump(folder, dump.artifacts, dump.statistics)
    assert sorted(e.level for e in evidence) == ["L2"] + ["L3"] * 7
    assert {e.subject for e in evidence} == {a.file for a in dump.artifacts if a.kind != "settings"}


@pytest.mark.engine
def test_role_verifiers_are_in_the_globals_and_no_clear_password_is_anywhere(full: Full) -> None:
    _, folder, dump = full
    roles = next(a for a in dump.artifacts if a.kind == "globals")
    script = b"".join(gzip_stream.unpack(folder, roles))
    assert script.count(b"SCRAM-SHA-256$") == 2
    assert PASSWORD not in repr(dump)
    for artifact in dump.artifacts:
        assert PASSWORD.encode() not in b"".join(gzip_stream.unpack(folder, artifact))


@pytest.mark.engine
def test_a_dump_file_cut_or_flipped_on_disk_is_rejected(full: Full) -> None:
    _, folder, dump = full
    artifact = next(a for a in dump.artifacts if a.database == "app")
    file = folder / artifact.file
    raw = file.read_bytes()
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 1
    try:
        for bad in (
            *(raw[: len(raw) * percent // 100] for percent in range(0, 100, 9)),
            raw[:-1],
            bytes(flipped),
        ):
            file.write_bytes(bad)
            with pytest.raises(VerificationFailed):
                postgres.verify_dump(folder, dump.artifacts, dump.statistics)
    finally:
        file.write_bytes(raw)


@pytest.mark.engine
def test_the_dump_of_everything_restores_into_a_fresh_server(full: Full, engine: Engine) -> None:
    lab, folder, dump = full
    record = _record(lab, dump.artifacts, dump.statistics)
    evidence = postgres.PostgresTrial(engine, folder, record, lab.container.image_id).run()
    assert [(e.level, e.subject) for e in evidence] == [("L4", lab.name)]
    assert _leftovers(engine) == []


@pytest.mark.thorough
@pytest.mark.engine
def test_a_rebuilt_volume_serves_the_same_rows_roles_and_settings(
    full: Full, engine: Engine
) -> None:
    lab, folder, dump = full
    fresh = PostgresLab(lab.docker, engine, f"Test_pg_{uuid.uuid4().hex[:10]}")
    engine.docker.create_volume(fresh.name)
    try:
        postgres.rebuild(
            EngineLocation(engine, fresh.name),
            folder,
            _record(lab, dump.artifacts, dump.statistics),
        )
        assert postgres.clean(postgres.control_state(EngineLocation(engine, fresh.name), None))
        with pytest.raises(StateChanged):
            postgres.rebuild(
                EngineLocation(engine, fresh.name),
                folder,
                _record(lab, dump.artifacts, dump.statistics),
            )
        fresh.call("run", "-d", "--name", fresh.name, "-v", f"{fresh.name}:{DATA}", IMAGE)
        _wait(fresh)
        for sql in (
            "SELECT md5(string_agg(p::text, ',' ORDER BY id)) FROM plain p",
            (
                "SELECT md5(string_agg(rolname || COALESCE(rolpassword, '-'), ',' ORDER BY"
                " rolname)) FROM pg_authid"
            ),
            "SELECT string_agg(loid || md5(data), ',' ORDER BY loid, pageno) FROM pg_largeobject",
            "SELECT fake() || obj_description('plain'::regclass) || current_setting('work_mem')",
            (
                "SELECT string_agg(relname || pg_get_userbyid(relowner), ',' ORDER BY relname) FROM"
                " pg_class WHERE relkind = 'r'"
            ),
        ):
            answers = [
                server.sql(f"SHOW search_path; SET search_path = public; {sql}", "app")
                for server in (fresh, lab)
            ]
            assert answers[0] == answers[1]
    finally:
        subprocess.run([lab.docker, "rm", "-fv", fresh.name], capture_output=True, check=False)
        engine.docker.remove_volume(fresh.name)


@pytest.mark.thorough
@pytest.mark.engine
def test_a_psql_that_is_older_than_the_dump_is_named(full: Full, engine: Engine) -> None:
    """Releases before August 2025 know no \\restrict: here one whose words for it were taken away."""
    lab, folder, dump = full
    name = f"lab-old-psql-{uuid.uuid4().hex[:10]}"
    lab.call(
        "run", "--name", name, "--entrypoint", "sed", IMAGE, "-i", "s/restrict/restrixx/g", PSQL
    )
    try:
        lab.call(
            "commit",
            "--change",
            'ENTRYPOINT ["docker-entrypoint.sh"]',
            "--change",
            'CMD ["postgres"]',
            name,
            name,
        )
        lab.call("volume", "create", name)
        record = _record(lab, dump.artifacts, dump.statistics)
        image = engine.docker.image(name)
        assert image is not None
        with pytest.raises(OperationFailed, match="invalid command") as fault:
            postgres.rebuild(
                EngineLocation(engine, name),
                folder,
                replace(record, users=({**record.users[0], "image_id": image.id},)),
            )
        assert "latest minor release" in str(fault.value.next_step)
    finally:
        for argv in (("rm", "-fv", name), ("rmi", "-f", name), ("volume", "rm", name)):
            subprocess.run([lab.docker, *argv], capture_output=True, check=False)


@pytest.mark.engine
def test_a_database_that_is_not_empty_is_never_dropped_for_a_dump(
    full: Full, engine: Engine
) -> None:
    lab, folder, dump = full
    client = dump.server.client.by_exec()
    with pytest.raises(Refused, match="not empty"):
        postgres.restore_dump(client, folder, dump.artifacts, dump.statistics)
    assert lab.sql("SELECT count(*) FROM public.plain", "app") == "20005"
    lab.sql("CREATE DATABASE postgres", "app")  # it was empty, so it was about to be made again


@pytest.mark.thorough
@pytest.mark.engine
def test_writes_after_the_dump_are_noticed_and_reads_are_not(
    start: Start, engine: Engine, tmp_path: Path
) -> None:
    lab = start()
    lab.sql("CREATE TABLE t (x int)", "app")
    dump = postgres.dump(
        postgres.server(EngineContainer(engine, lab.container)), lab.name, tmp_path
    )
    lab.sql("SELECT count(*) FROM t; CHECKPOINT", "app")
    assert dump.was_written_since() is False
    assert stopped_after(lab, engine, dump) is False
    lab.call("start", lab.name)
    _wait(lab)
    lab.sql("INSERT INTO t VALUES (1)", "app")
    assert dump.was_written_since() is True
    assert stopped_after(lab, engine, dump) is True, (
        "also what comes in the moment before the stop is noticed"
    )


def stopped_after(lab: PostgresLab, engine: Engine, dump: postgres.PostgresDump) -> bool:
    """What the files of the stopped server say."""
    engine.docker.stop(lab.container.id, timeout=60)
    left = postgres.inspect_shutdown(EngineLocation(engine, lab.name), dump.server)
    assert left.clean
    return dump.is_older_than(left)


@pytest.mark.thorough
@pytest.mark.engine
def test_cold_archives_are_tried_and_their_control_state_is_told(
    start: Start, engine: Engine, tmp_path: Path
) -> None:
    lab = start()
    lab.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS x", "app")
    found = postgres.server(EngineContainer(engine, lab.container))
    dump = postgres.dump(found, lab.name, tmp_path)
    image = lab.container.image_id
    assert postgres.control_state(EngineLocation(engine, lab.name), found.pgdata) == "in production"
    assert engine.docker.stop(lab.container.id, timeout=60) == 0
    assert postgres.control_state(EngineLocation(engine, lab.name), None) == "shut down"
    volume = engine.docker.volume(lab.name)
    assert volume is not None
    artifacts = archive.archive(EngineLocation(engine, volume.name), into=tmp_path)
    record = _record(lab, (*artifacts, *dump.artifacts), dump.statistics)
    assert [e.level for e in postgres.PostgresTrial(engine, tmp_path, record, image).run()] == [
        "L4"
    ]

    app = next(d for d in dump.statistics.databases if d.name == "app")
    others = tuple(d for d in dump.statistics.databases if d.name != "app")
    tampered = replace(
        dump.statistics, databases=(replace(app, tables=(TableCount("public", "t", 999),)), *others)
    )
    with pytest.raises(VerificationFailed, match=r"app: public\.t: 1000, was 999"):
        postgres.PostgresTrial(engine, tmp_path, replace(record, statistics=tampered), image).run()
    older = replace(record, statistics=tampered, dump_older_than_archive=True)
    assert "1,000 rows" in postgres.PostgresTrial(engine, tmp_path, older, image).run()[0].what

    engine.docker.start(lab.container.id)
    _wait(lab)
    lab.call("kill", lab.name)
    assert postgres.control_state(EngineLocation(engine, lab.name), found.pgdata) == "in production"
    assert _leftovers(engine) == []


@pytest.mark.engine
def test_a_trial_of_something_that_is_no_cluster_fails_and_says_so(
    full: Full, engine: Engine, tmp_path: Path
) -> None:
    lab, _, dump = full
    name = f"Test_pg_{uuid.uuid4().hex[:10]}"
    volume = engine.docker.create_volume(name)
    try:
        artifacts = archive.archive(EngineLocation(engine, volume.name), into=tmp_path)
        with pytest.raises(VerificationFailed, match="no data directory"):
            postgres.PostgresTrial(
                engine, tmp_path, _record(lab, artifacts, dump.statistics), lab.container.image_id
            ).run()
    finally:
        engine.docker.remove_volume(name)
    assert _leftovers(engine) == []


@pytest.mark.thorough
@pytest.mark.engine
def test_without_tcp_the_dump_goes_by_exec_over_the_socket(
    start: Start, engine: Engine, tmp_path: Path
) -> None:
    lab = start("postgres", "-c", "listen_addresses=")
    lab.sql("CREATE TABLE t AS SELECT generate_series(1, 5000) AS x", "app")
    found = postgres.server(EngineContainer(engine, lab.container))
    assert not found.client.side
    dump = postgres.dump(found, lab.name, tmp_path)
    assert {a.detail["by"] for a in dump.artifacts if a.kind != "settings"} == {"exec"}
    by_pg_dump = {
        a.database for a in dump.artifacts if (tmp_path / a.file).read_bytes()[9] == 3
    }  # made on Unix (RFC 1952)
    assert by_pg_dump == {"app", "postgres"}  # not the globals
    assert len(postgres.verify_dump(tmp_path, dump.artifacts, dump.statistics)) == 3
    assert "PostgreSQL 15" in str(
        postgres.summary(EngineContainer(engine, lab.container), timeout=10)
    )


@pytest.mark.thorough
@pytest.mark.engine
def test_a_pg_dump_that_cannot_compress_is_asked_again_without(
    start: Start, engine: Engine, tmp_path: Path
) -> None:
    lab = start("postgres", "-c", "listen_addresses=")
    program = lab.call("exec", lab.name, "which", "pg_dump").strip()
    script = (
        'case " $* " in *" --compress="*) echo "error: this build does not support compression'
        f' with gzip" >&2; exit 1 ;; esac\nexec {program}.real "$@"\n'
    )
    lab.call("exec", lab.name, "mv", program, f"{program}.real")
    lab.call(
        "exec",
        "-i",
        lab.name,
        "install",
        "-m",
        "0755",
        "/dev/stdin",
        program,
        stdin=f"#!/bin/sh\n{script}",
    )
    dump = postgres.dump(
        postgres.server(EngineContainer(engine, lab.container)), lab.name, tmp_path
    )
    assert len(postgres.verify_dump(tmp_path, dump.artifacts, dump.statistics)) == 3


@pytest.mark.thorough
@pytest.mark.engine
def test_a_server_that_lets_nobody_replicate_gives_no_copy_and_keeps_its_dump(
    start: Start, engine: Engine, tmp_path: Path
) -> None:
    lab = start("postgres", "-c", "max_wal_senders=0", "-c", "wal_level=minimal")
    found = postgres.server(EngineContainer(engine, lab.container))
    with pytest.raises(CopyRefused, match="pg_basebackup"):
        postgres.copy(found, lab.name, tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    dump = postgres.dump(found, lab.name, tmp_path)
    assert len(postgres.verify_dump(tmp_path, dump.artifacts, dump.statistics)) == 3


@pytest.mark.thorough
@pytest.mark.engine
def test_another_port_and_a_data_folder_below_the_mount_are_found(
    start: Start, engine: Engine, tmp_path: Path
) -> None:
    lab = start(port=5499, data="/srv/db/sub/pgdata", mount="/srv/db")
    found = postgres.server(EngineContainer(engine, lab.container))
    assert (found.client.port, found.pgdata, found.client.side) == (5499, "sub/pgdata", True)
    assert postgres.control_state(EngineLocation(engine, lab.name), None) == "in production"
    dump = postgres.dump(found, lab.name, tmp_path)
    engine.docker.stop(lab.container.id, timeout=60)
    volume = engine.docker.volume(lab.name)
    assert volume is not None
    artifacts = archive.archive(EngineLocation(engine, volume.name), into=tmp_path)
    record = _record(lab, (*artifacts, *dump.artifacts), dump.statistics)
    record = replace(record, users=({**record.users[0], "destination": "/srv/db"},))
    assert (
        postgres.PostgresTrial(engine, tmp_path, record, "sha256:not-the-servers-image")
        .run()[0]
        .level
        == "L4"
    )


@pytest.mark.thorough
@pytest.mark.engine
def test_of_two_servers_that_share_a_folder_of_sockets_each_is_itself(
    start: Start, engine: Engine, tmp_path: Path
) -> None:
    usual = start(sockets=f"{tmp_path}")
    other = start(port=5433, sockets=f"{tmp_path}")
    names = [
        postgres.server(EngineContainer(engine, lab.container)).system_identifier
        for lab in (usual, other)
    ]
    assert names == [
        lab.sql("SELECT system_identifier FROM pg_control_system()") for lab in (usual, other)
    ]
    other.call("rm", "-f", other.name)
    settings = ("-v", f"{tmp_path}:/var/run/postgresql", "-v", f"{other.name}:{DATA}")
    other.call(
        "run", "-d", "--name", other.name, *settings, IMAGE
    )  # both are process 1: it takes the other one's socket away
    wait_until(
        "it serves", lambda: "ready to accept connections" in docker("logs", other.name).stderr
    )
    assert usual.sql("SELECT system_identifier FROM pg_control_system()") == names[1]
    with pytest.raises(ServerUnreachable, match="another server"):
        postgres.server(EngineContainer(engine, usual.container))


@pytest.mark.thorough
@pytest.mark.engine
def test_of_an_extension_only_configuration_tables_are_counted(
    start: Start, engine: Engine, tmp_path: Path
) -> None:
    lab = start()
    files = {
        "fancy.control": "default_version = '1.0'\nrelocatable = true\n",
        "fancy--1.0.sql": (
            "CREATE TABLE own (x int); INSERT INTO own VALUES (1);CREATE TABLE conf (x int); INSERT"
            " INTO conf VALUES (1); SELECT pg_extension_config_dump('conf', 'WHERE x > 1');CREATE"
            " TABLE every (x int); INSERT INTO every VALUES (1); SELECT"
            " pg_extension_config_dump('every', '');"
        ),
    }
    for name, text in files.items():
        lab.call(
            "exec", "-i", lab.name, "tee", f"/usr/share/postgresql/15/extension/{name}", stdin=text
        )
    lab.sql(
        "CREATE EXTENSION fancy; INSERT INTO conf VALUES (2), (3); INSERT INTO own VALUES (2)",
        "app",
    )
    dump = postgres.dump(
        postgres.server(EngineContainer(engine, lab.container)), lab.name, tmp_path
    )
    app = next(d for d in dump.statistics.databases if d.name == "app")
    assert {t.table: t.rows for t in app.tables} == {"conf": 2, "every": 1}
    assert "fancy 1.0" in app.extensions


@pytest.mark.thorough
@pytest.mark.engine
def test_a_tablespace_outside_of_the_data_directory_is_refused(
    start: Start, engine: Engine
) -> None:
    lab = start()
    lab.call("exec", lab.name, "install", "-d", "-o", "postgres", "/elsewhere")
    lab.sql("CREATE TABLESPACE far LOCATION '/elsewhere'")
    with pytest.raises(OperationFailed, match="tablespace far in /elsewhere") as fault:
        postgres.server(EngineContainer(engine, lab.container))
    assert not isinstance(fault.value, ServerUnreachable)
    assert fault.value.next_step


@pytest.mark.engine
def test_a_role_that_may_use_a_tablespace_is_taken_away_all_the_same(full: Full) -> None:
    lab, _, made = full
    name = restricted_load.loader_name("abc123")
    lab.sql(f"CREATE ROLE {name}; GRANT CREATE ON TABLESPACE pg_default TO {name}", "app")
    for _ in range(2):
        side_by_side.drop_restored(made.server, "app", "app_new_abc123", [name])
        left = lab.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'safe%'", "app")
        assert left == "0"


@pytest.mark.thorough
@pytest.mark.engine
def test_clients_besides_us_are_named(start: Start, engine: Engine) -> None:
    lab = start()
    argv = [lab.docker, "exec", "-i", lab.name, "psql", "-X", "-U", lab.user, "-d", "app"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write(b"SELECT 1;\n")
        client.stdin.flush()
        client.stdout.readline()
        assert postgres.server(EngineContainer(engine, lab.container)).foreign_sessions == (
            "boss in app from the socket",
        )
        client.stdin.close()


@pytest.mark.thorough
@pytest.mark.engine
def test_a_server_that_does_not_answer_or_does_not_run_is_silent(
    start: Start, engine: Engine
) -> None:
    lab = start()
    lab.call(
        "exec",
        lab.name,
        "sh",
        "-c",
        f"sed -i 's/^[a-z].*/local all all reject/' {DATA}/pg_hba.conf",
    )
    lab.sql("SELECT 1")  # a session before the reload still works
    lab.call("kill", "--signal", "HUP", lab.name)
    until = time.monotonic() + 20
    with pytest.raises(ServerUnreachable, match="lets us in by no way"):
        while time.monotonic() < until:  # the reload takes a moment
            postgres.server(EngineContainer(engine, lab.container))
    engine.docker.stop(lab.container.id, timeout=60)
    with pytest.raises(ServerUnreachable, match="does not run"):
        postgres.server(EngineContainer(engine, lab.container))


@pytest.mark.thorough
@pytest.mark.engine
def test_a_server_that_dies_while_it_is_dumped_fails_the_backup(
    start: Start, engine: Engine, tmp_path: Path
) -> None:
    lab = start()
    lab.sql(
        "CREATE TABLE t AS SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, 100000) g",
        "app",
    )
    found = postgres.server(EngineContainer(engine, lab.container))
    killed: list[int] = []

    def kill(size: int) -> None:
        if size > 4 << 20 and not killed:
            killed.append(size)
            lab.call("kill", lab.name)

    with pytest.raises((OperationFailed, HelperFailed)) as fault:
        postgres.dump(found, lab.name, tmp_path, kill)
    assert killed and fault.value.code == 73
    assert lab.name in fault.value.message and PASSWORD not in fault.value.message
    assert _leftovers(engine) == []


def _leftovers(engine: Engine) -> list[str]:
    """Our containers, and scratch volumes of ours."""
    listed = subprocess.run(
        [engine.docker.client, "volume", "ls", "-q", "--filter",
         f"label={HELPER_LABEL}={engine.run_id}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [*engine.helpers.leftovers(), *listed.stdout.split()]


@pytest.mark.thorough
@pytest.mark.engine
def test_a_server_with_locks_for_one_dump_is_dumped_one_after_the_other(
    start: Start, engine: Engine, tmp_path: Path
) -> None:
    """Two at the same time need more locks than it has; each of them alone does not."""
    few = "max_connections=10 max_locks_per_transaction=10 max_wal_senders=0 autovacuum=off"
    lab = start("postgres", *(word for setting in few.split() for word in ("-c", setting)))
    for name in ("first", "later"):
        lab.sql(f"CREATE DATABASE {name}")
        for part in range(4):
            lab.sql(
                f"DO $$ BEGIN FOR i IN 1..40 LOOP EXECUTE 'CREATE TABLE t{part}_' || i || '()';"
                " END LOOP; END $$",
                name,
            )
    # Too large for the buffers between pg_dump and us even when it is compressed on the way.
    sums = "md5(g::text) || md5('a' || g) || md5('b' || g) || md5('c' || g) || md5('d' || g)"
    lab.sql(f"CREATE TABLE big AS SELECT g, {sums} FROM generate_series(1, 250000) g", "first")
    together: list[int] = []

    def wait_for_the_other(_: int) -> None:
        """Keep the locks of the first dump, in the middle of its table, until they are missed."""
        if list(tmp_path.glob("*/db-first*")) and not together:
            together.append(1)
            wait_until("locks are missed", lambda: "out of shared memory" in logs())

    def logs() -> str:
        return docker("logs", lab.name).stderr

    found = postgres.server(EngineContainer(engine, lab.container))
    dump = postgres.dump(found, lab.name, tmp_path, wait_for_the_other)
    tables = {d.name: len(d.tables) for d in dump.statistics.databases}
    assert (tables["first"], tables["later"]) == (161, 160)
    assert len(postgres.verify_dump(tmp_path, dump.artifacts, dump.statistics)) == 5
    assert _leftovers(engine) == []


@pytest.mark.thorough
@pytest.mark.engine
@pytest.mark.parametrize("ended", ["first", "later"])
def test_a_dump_that_lost_its_counts_is_made_once_more(
    start: Start, engine: Engine, tmp_path: Path, ended: str
) -> None:
    """Two run at once: the dump of one is complete, and its counts never come.

    Their session ends by itself, or because the dump beside it failed.
    """
    lab = start("postgres", "-c", "autovacuum=off")
    for name in ("first", "later"):
        lab.sql(f"CREATE DATABASE {name}")
        lab.sql("CREATE TABLE t AS SELECT 1 AS a", name)
    # large on the disk, small in a dump
    lab.sql(
        "INSERT INTO t SELECT g FROM generate_series(2, 1200000) g; DELETE FROM t WHERE a > 1",
        "first",
    )
    clients = "FROM pg_stat_activity WHERE application_name = 'safe-compose' AND datname ="
    complete: list[int] = []
    """When the dump before was written, at the end of each dump of the first."""

    def end_one(_: int) -> None:
        own = threading.current_thread() is threading.main_thread()
        if not own or not list(tmp_path.glob("*/db-first*")) or len(complete) == 2:
            return
        complete.extend(p.stat().st_mtime_ns for p in tmp_path.glob("*/db-app*"))
        if len(complete) == 2:
            free()
            return
        waiting = f"SELECT count(*) {clients} 'later' AND wait_event_type = 'Lock'"
        wait_until(
            "the other dump and its counts wait", lambda: lab.sql(waiting) == "2", timeout=180
        )
        lab.sql(f"SELECT pg_terminate_backend(pid) {clients} '{ended}'")
        counting = f"SELECT count(*) {clients} 'first'"
        wait_until("the counts have ended", lambda: lab.sql(counting) == "0")

    def free() -> None:
        lab.sql("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE mode = 'AccessExclusiveLock'")

    with ThreadPoolExecutor(1) as holder:
        held = holder.submit(lab.sql, "BEGIN; LOCK TABLE t; SELECT pg_sleep(600)", "later")
        try:
            locked = "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND granted"
            wait_until("the table is locked", lambda: lab.sql(locked, "later") == "1")
            found = postgres.server(EngineContainer(engine, lab.container))
            dump = postgres.dump(found, lab.name, tmp_path, end_one)
        finally:
            free()
        assert held.exception() is not None
    assert "lock timeout" not in docker("logs", lab.name).stderr, "nobody waited for the other"
    assert len(complete) == 2 and len(set(complete)) == 1, "what was complete is kept"
    rows = {d.name: d.rows for d in dump.statistics.databases}
    assert rows["first"] == rows["later"] == 1
    assert len(postgres.verify_dump(tmp_path, dump.artifacts, dump.statistics)) == 5
    assert _leftovers(engine) == []


@pytest.mark.thorough
@pytest.mark.engine
def test_an_interruption_ends_both_dumps_that_run(
    start: Start, engine: Engine, tmp_path: Path
) -> None:
    lab = start()
    for name in ("first", "second"):
        lab.sql(f"CREATE DATABASE {name}")
        lab.sql("CREATE TABLE t AS SELECT repeat('x', 2000) FROM generate_series(1, 60000)", name)
    found = postgres.server(EngineContainer(engine, lab.container))
    by: set[str] = set()

    def interrupt(_: int) -> None:
        by.add(threading.current_thread().name)
        if len(by) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        postgres.dump(found, lab.name, tmp_path, interrupt)
    assert _leftovers(engine) == []
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'safe-compose'"
    wait_until("both have logged out", lambda: lab.sql(ours) == "0")
    assert not list(tmp_path.glob("*/db-second*"))
