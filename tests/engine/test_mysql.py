"""MySQL and MariaDB: found, logged in to, dumped, counted, verified, tried and restored, by hand
and by the operations.
"""

import gzip
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_compose.core.backup import (
    Artifact,
    Backup,
    DatabaseStatistics,
    ServerStatistics,
    TableCount,
    VolumeRecord,
)
from safe_compose.core.observed import HELPER_LABEL, Container, Mount
from safe_compose.databases import mysql
from safe_compose.databases.engine_container import EngineContainer
from safe_compose.databases.mysql import dump_file
from safe_compose.databases.mysql.dump_scanner import ACCOUNTS_TRAILER, MySQLDumpScanner
from safe_compose.databases.mysql.restore import require_equal
from safe_compose.databases.mysql.write_counter import read_counter
from safe_compose.databases.protocol import ServerUnreachable
from safe_compose.databases.sql_lexer import BadDump
from safe_compose.engine import Engine
from safe_compose.errors import Refused, StateChanged, VerificationFailed
from safe_compose.store.catalogue.restore_md import write_text
from safe_compose.volumes import archive, gzip_stream
from safe_compose.volumes.engine_location import EngineLocation
from testing.fixtures import ProjectFactory, SafeCompose
from testing.projects import ComposeProject, docker, unique, wait_until
from testing.watch import command_lines

pytestmark = pytest.mark.long

IMAGE = "mariadb:10.11"
DATA = "/var/lib/mysql"
ROOT = "canary-7d1e-root"
APP = "canary-7d1e-app"


# -- without an engine -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "environment", "mount", "serves"),
    [
        ("mariadb:10.11", {}, "/var/lib/mysql", True),
        ("registry:5000/team/mysql-8@sha256:1", {}, "/var/lib/mysql", True),
        ("percona/percona-server:8.0", {}, "/var/lib/mysql", True),
        ("bitnami/mariadb:11", {}, "/bitnami/mariadb", True),
        ("lscr.io/linuxserver/mariadb", {}, "/config", True),
        ("shop-db", {"MARIADB_VERSION": "1:11.4.2"}, "/var/lib/mysql", True),
        ("shop-db", {}, "/var/lib/mysql", False),
        ("mysql:8", {}, "/backups", False),
    ],
)
def test_a_server_is_recognised_by_its_image_and_mounts(
    image: str, environment: dict[str, str], mount: str, serves: bool
) -> None:
    container = Container(
        id="c", name="c", image=image, image_id="sha256:0", state="running",
        environment=environment, mounts=(Mount("volume", "v", "", mount),),
    )  # fmt: skip
    assert mysql.serves(container, "v") is serves
    assert not mysql.serves(container, "w")
    assert not mysql.serves(
        replace(container, mounts=(Mount("volume", "v", "", mount, read_only=True),)), "v"
    )


@pytest.mark.parametrize(
    ("before", "later", "still"),
    [
        (("5", 7, False), ("5", 7, True), True),
        (("5", 7, True), ("5", 7, False), False),
        (("5", 7, False), ("6", 7, False), False),
        (("5", 7, False), ("5", 8, False), False),
    ],
)
def test_a_write_moves_a_counter_or_was_at_work(
    before: tuple[str, int, bool], later: tuple[str, int, bool], still: bool
) -> None:
    assert mysql.WriteCounter(*before).still(mysql.WriteCounter(*later)) is still


HEAD = b"""/*M!999999\\- enable the sandbox mode */ 
-- MySQL dump 10.13  Distrib 8.0.36
/* a comment; LOCK TABLES `x` WRITE;
INSERT INTO `x` VALUES (1); */
/*!40101 SET NAMES utf8mb4 */;
CREATE DATABASE /*!32312 IF NOT EXISTS*/ `sh``op`;
USE `sh``op`;
CREATE TABLE `t` (
  `a` int COMMENT 'it''s (not) "so" \\'\\\\',
  `b` text DEFAULT 'x;\\n' # a comment '
) COMMENT='
INSERT INTO `t` VALUES (1);
';
"""  # noqa: W291
MANY_LINES = b"INSERT INTO `t` VALUES\n(1,'a\\'),(;\\n\\\\',0x00FF),\n(2,NULL,-1.5e+300);\n"
ONE_LINE = (
    b"INSERT INTO `t` (`a`, `b`) VALUES (3,_binary '),(',''),(4,'\\\\\\'','\xf0\x9f\x98\x80');\n"
)
ROWS = (
    b"LOCK TABLES `t` WRITE;\n/*!40000 ALTER TABLE `t` DISABLE KEYS */;\n"
    + MANY_LINES
    + ONE_LINE
    + b"UNLOCK TABLES;\n"
)
PROGRAM = b"""DELIMITER ;;
CREATE PROCEDURE `p`()
BEGIN
-- Dump completed
INSERT INTO `t` VALUES (1);
SELECT 'ansi_quotes\\';
END ;;
DELIMITER ;
"""
TAIL = b"/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;\n\n-- Dump completed on 2026-11-25 16:00:03\n"
WHOLE = HEAD + ROWS + PROGRAM + TAIL
COUNTED = ServerStatistics(
    "mariadb", "10.11.19", "root",
    databases=(DatabaseStatistics("sh`op", 0, (TableCount("sh`op", "t", 4),),
      extensions=("procedure p",)),),
)  # fmt: skip
ACCOUNTS = b"CREATE USER IF NOT EXISTS `a`@`%`;\n-- accounts end here\n"


def scanned(*blocks: bytes) -> MySQLDumpScanner:
    scanner = MySQLDumpScanner()
    for block in blocks:
        scanner.feed(block)
    scanner.finish()
    return scanner


def test_rows_are_counted_wherever_the_stream_is_cut() -> None:
    for size in (1, 2, 3, 5, 16, 61, len(WHOLE)):
        found = scanned(*(WHOLE[at : at + size] for at in range(0, len(WHOLE), size)))
        assert (found.rows, found.databases, found.programs) == ({("sh`op", "t"): 4}, {"sh`op"}, 1)


def test_every_proper_prefix_of_a_dump_is_rejected() -> None:
    for cut in range(len(WHOLE)):
        with pytest.raises(BadDump):
            scanned(WHOLE[:cut])
    with pytest.raises(BadDump, match="follows"):
        scanned(WHOLE + b"\n")
    for cut in range(len(ACCOUNTS)):
        scanner = MySQLDumpScanner(ACCOUNTS_TRAILER)
        with pytest.raises(BadDump):
            scanner.feed(ACCOUNTS[:cut])
            scanner.finish()


_ESCAPED = str.maketrans(
    {"\\": "\\\\", "'": "\\'", '"': '\\"', "\n": "\\n", "\r": "\\r", "\0": "\\0", "\x1a": "\\Z"}
)


@pytest.mark.thorough
@given(
    st.lists(
        st.lists(
            st.none()
            | st.integers()
            | st.text(max_size=12)
            | st.sampled_from(["),(", "\\", "'", ";\n"]),
            min_size=1,
            max_size=4,
        ),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
    st.integers(1, 40),
)
@settings(max_examples=150, deadline=None)
def test_tuples_are_counted_whatever_their_strings_hold(
    rows: list[list[str | int | None]], lines: bool, size: int
) -> None:
    def value(of: str | int | None) -> str:
        return (
            "NULL"
            if of is None
            else str(of)
            if isinstance(of, int)
            else "'" + of.translate(_ESCAPED) + "'"
        )

    tuples = [f"({','.join(map(value, row))})" for row in rows]
    text = "VALUES\n" + ",\n".join(tuples) if lines else "VALUES " + ",".join(tuples)
    insert = f"INSERT INTO `t` {text};\n".encode("utf-8", "surrogatepass")
    whole = b"USE `d`;\nLOCK TABLES `t` WRITE;\n" + insert + b"UNLOCK TABLES;\n" + TAIL
    found = scanned(*(whole[at : at + size] for at in range(0, len(whole), size)))
    assert found.rows == {("d", "t"): len(rows)}


def test_a_value_of_any_size_passes_in_bounded_memory() -> None:
    scanner = MySQLDumpScanner()
    scanner.feed(b"USE `d`;\nLOCK TABLES `t` WRITE;\nINSERT INTO `t` VALUES\n(1,'")
    for _ in range(64):
        scanner.feed(b"x(),;" * 50_000)
        assert len(scanner._data) < 2 << 20
    scanner.feed(b"');\nUNLOCK TABLES;\n" + TAIL)
    scanner.finish()
    assert scanner.rows == {("d", "t"): 1}


def kept(folder: Path, name: str, text: bytes, kind: str) -> Artifact:
    (folder / name).unlink(missing_ok=True)
    sums = gzip_stream.pack([text], folder / name, subject="v", stage="t")
    return Artifact(name, kind, sums.bytes, sums.sha256, sums.uncompressed_bytes, "v")


def pair(folder: Path, text: bytes) -> list[Artifact]:
    return [kept(folder, "a.gz", ACCOUNTS, "globals"), kept(folder, "d.gz", text, "database")]


def test_a_dump_proves_itself_from_the_disk_or_is_rejected(tmp_path: Path) -> None:
    assert [e.level for e in mysql.verify_dump(tmp_path, pair(tmp_path, WHOLE), COUNTED)] == [
        "L2",
        "L3",
    ]
    for wrong in (
        WHOLE.replace(ONE_LINE, b""),
        WHOLE.replace(ONE_LINE, ONE_LINE + ONE_LINE),
        WHOLE.replace(b"`t` WRITE", b"`u` WRITE"),
        WHOLE.replace(ROWS, b""),
        WHOLE.replace(ROWS, ROWS + ROWS),
        WHOLE.replace(PROGRAM, b""),
        WHOLE.replace(b"USE `sh``op`", b"USE `other`"),
        WHOLE.replace(b"\\\\\\'", b"\\\\'"),
        HEAD + ROWS + PROGRAM + ROWS.replace(b"`t`", b"`more`") + TAIL,
    ):
        with pytest.raises(VerificationFailed):
            mysql.verify_dump(tmp_path, pair(tmp_path, wrong), COUNTED)
    accounts, dump = pair(tmp_path, WHOLE)
    for part in ([accounts], [dump], []):
        with pytest.raises(VerificationFailed, match="does not have one dump"):
            mysql.verify_dump(tmp_path, part, COUNTED)
    assert [
        e.level for e in mysql.verify_dump(tmp_path, [accounts], replace(COUNTED, databases=()))
    ] == ["L2"]


def test_another_number_of_rows_and_a_missing_program_are_named() -> None:
    old = COUNTED.databases
    more = (replace(old[0], tables=(TableCount("sh`op", "t", 9),)),)
    with pytest.raises(VerificationFailed, match=r"sh`op\.t: 9, was 4"):
        require_equal(old, more, "v", "trial")
    with pytest.raises(VerificationFailed, match="procedure p of sh`op: not there, was 1"):
        require_equal(old, (replace(old[0], extensions=()),), "v", "trial")


# -- with an engine --------------------------------------------------------------------------------

FILL = r"""
DROP USER root@127.0.0.1, root@'::1';
CREATE DATABASE IF NOT EXISTS app CHARACTER SET utf8mb4; USE app;
CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, s TEXT, b BLOB, f DOUBLE, j JSON, d DATETIME, bits BIT(3),
  g INT GENERATED ALWAYS AS (id * 2) VIRTUAL) CHARACTER SET utf8mb4;
INSERT INTO t (s, b, f, j, d, bits) VALUES ('a\'b"c\\\n),(;\n\r\0', x'00ff2727', 1e300, '{"a": 1}', '2026-02-03 04:05:06', b'101'),
  ('😀', NULL, NULL, NULL, NULL, NULL), ('', '', -1.5, '[]', NULL, b'0');
INSERT INTO t (s, b) SELECT REPEAT(CONCAT('x''\\', seq), 5), UNHEX(SHA2(seq, 512)) FROM seq_1_to_5000;
CREATE TABLE child (t INT, FOREIGN KEY (t) REFERENCES t (id)); INSERT INTO child VALUES (1), (2);
CREATE TABLE parted (a INT) PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (5), PARTITION p1 VALUES LESS THAN MAXVALUE);
INSERT INTO parted VALUES (1), (2), (7);
CREATE TABLE empty_one (a INT);
CREATE TABLE no_rollback (a INT, s VARCHAR(20)) ENGINE=MyISAM; INSERT INTO no_rollback VALUES (1, 'x'), (2, 'y');
CREATE TABLE forgetful (a INT) ENGINE=MEMORY; INSERT INTO forgetful VALUES (1), (2);
CREATE TABLE versioned (a INT) WITH SYSTEM VERSIONING; INSERT INTO versioned VALUES (1); UPDATE versioned SET a = 2;
CREATE SEQUENCE numbers; SELECT NEXTVAL(numbers);
CREATE VIEW v AS SELECT id, 'x;\nINSERT INTO `t` VALUES (1);' AS y FROM t;
CREATE TABLE gone (a INT); CREATE VIEW broken AS SELECT a FROM gone; DROP TABLE gone;
DELIMITER ;;
CREATE PROCEDURE p() BEGIN
/*
-- Dump completed on 2026-11-25 16:00:03
*/
INSERT INTO `no_rollback` VALUES (1, 'p');
END;;
CREATE FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN x + 1;;
CREATE TRIGGER tr BEFORE INSERT ON no_rollback FOR EACH ROW SET NEW.s = CONCAT(NEW.s, '!');;
SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES';;
CREATE PROCEDURE "q"() SELECT 'a\';;
SET sql_mode = DEFAULT;;
CREATE EVENT ev ON SCHEDULE EVERY 1 SECOND DO INSERT INTO child VALUES (1);;
DELIMITER ;
CREATE TABLE `we``ird "x" 'y' \n` (`co``l` INT, `(` INT); INSERT INTO `we``ird "x" 'y' \n` VALUES (1, 2);
CREATE DATABASE `--help`; CREATE TABLE `--help`.`ü x` (a INT) COMMENT 'x\ny''; INSERT INTO'; INSERT INTO `--help`.`ü x` VALUES (1);
CREATE DATABASE `a b"c`; CREATE VIEW `a b"c`.across AS SELECT * FROM app.v;
CREATE ROLE reader; GRANT SELECT ON app.* TO reader;
CREATE USER IF NOT EXISTS 'app'@'%' IDENTIFIED BY 'canary-7d1e-app'; GRANT ALL ON app.* TO 'app'@'%';
GRANT reader TO 'app'@'%'; SET DEFAULT ROLE reader FOR 'app'@'%';
CREATE USER 'o''d`d'@'10.%' IDENTIFIED BY 'canary-7d1e-odd' REQUIRE SSL WITH MAX_USER_CONNECTIONS 3 PASSWORD EXPIRE NEVER;
CREATE USER locked@localhost IDENTIFIED VIA unix_socket ACCOUNT LOCK;
CREATE USER expired@localhost IDENTIFIED BY 'canary-7d1e-odd' PASSWORD EXPIRE;
GRANT SELECT (id), UPDATE (s) ON app.t TO 'o''d`d'@'10.%'; GRANT EXECUTE ON PROCEDURE app.p TO 'o''d`d'@'10.%';
CREATE USER healthcheck@localhost IDENTIFIED BY 'of the old folder';
"""

SAME = (
    (
        "SELECT MD5(GROUP_CONCAT(CONCAT_WS('|', id, HEX(s), HEX(b), f, j, d, HEX(bits), g) ORDER BY"
        " id SEPARATOR ',')) FROM app.t"
    ),
    "SELECT a, s FROM app.no_rollback ORDER BY a",
    "SELECT a FROM app.parted ORDER BY a",
    'SELECT COUNT(*) FROM `a b"c`.across',
    "SELECT app.f(41)",
    (
        "SELECT User, Host, JSON_REMOVE(Priv, '$.version_id', '$.password_last_changed') FROM"
        " mysql.global_priv WHERE User NOT IN ('mariadb.sys', 'healthcheck') ORDER BY 1, 2"
    ),
    "SELECT * FROM mysql.roles_mapping ORDER BY 1, 2, 3",
    (
        "SELECT ROUTINE_NAME, ROUTINE_DEFINITION, SQL_MODE FROM information_schema.ROUTINES WHERE"
        " ROUTINE_SCHEMA = 'app' ORDER BY 1"
    ),
    "SELECT EVENT_NAME, EVENT_DEFINITION, STATUS FROM information_schema.EVENTS",
    (
        "SELECT TRIGGER_NAME, ACTION_STATEMENT FROM information_schema.TRIGGERS WHERE"
        " TRIGGER_SCHEMA = 'app'"
    ),
)


@dataclass(frozen=True)
class MySQLLab:
    """One database server of the tests."""

    engine: Engine
    name: str

    def sql(
        self, text: str, user: str = "root", password: str = ROOT, host: str = "localhost"
    ) -> str:
        argv = ["mariadb", f"-u{user}", f"-h{host}", "-BN", "--default-character-set=utf8mb4"]
        argv = ["docker", "exec", "-i", "-e", "MYSQL_PWD", self.name, *argv]
        environment = {**os.environ, "MYSQL_PWD": password}
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def container(self) -> Container:
        found = self.engine.docker.container(self.name)
        assert found is not None
        return found


Start = Callable[..., MySQLLab]


@pytest.fixture(scope="module")
def start(engine: Engine) -> Iterator[Start]:
    """Start a server with its data in a volume of its own name; `ready` is the line of its log that
    ends the first start.
    """
    names: list[str] = []

    def make(
        *options: str,
        environment: dict[str, str] | None = None,
        volume: str | None = None,
        files: str = "",
        sockets: str = "",
    ) -> MySQLLab:
        lab = MySQLLab(engine, volume or unique("Test_my"))
        names.append(lab.name)
        if volume is None:
            docker("volume", "create", lab.name)
        words = [
            w
            for k, v in (environment or {"MARIADB_ROOT_PASSWORD": ROOT}).items()
            for w in ("-e", f"{k}={v}")
        ]
        words += ["-v", f"{files}:/run/secrets:ro"] if files else []
        words += ["-v", f"{sockets}:/run/mysqld"] if sockets else []
        docker("run", "-d", "--name", lab.name, *words, "-v", f"{lab.name}:{DATA}", IMAGE, *options)
        wait_until(
            f"{lab.name} serves",
            lambda: (
                "socket: '/run/mysqld/mysqld.sock'  port: 3306" in docker("logs", lab.name).stderr
            ),
        )
        return lab

    yield make
    for name in names:
        docker("rm", "-fv", name, check=False)
        docker("volume", "rm", name, check=False)


@dataclass(frozen=True)
class Full:
    lab: MySQLLab
    folder: Path
    dump: mysql.MysqlDump
    argvs: frozenset[bytes]


@pytest.fixture(scope="module")
def full(start: Start, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Full:
    """A server with everything in it, and its dump."""
    lab = start("--event-scheduler=OFF", "--character-set-server=utf8mb4")
    lab.sql(FILL)
    folder = tmp_path_factory.mktemp("full")
    with command_lines() as argvs:
        found = mysql.server(EngineContainer(engine, lab.container))
        made = mysql.dump(found, lab.name, folder)
    return Full(lab, folder, made, frozenset(argvs))


def record_of(full: Full, *more: Artifact) -> VolumeRecord:
    user = {
        "container": full.lab.name, "service": "", "image": IMAGE,
        "image_id": full.lab.container.image_id, "destination": DATA,
    }  # fmt: skip
    return VolumeRecord(
        name=full.lab.name, driver="local", options={}, labels={}, created_at="", tier="critical",
        data_kind="mariadb", anonymous=False, method="dump", users=(user,), artifacts=(*more,
         *full.dump.artifacts), statistics=full.dump.statistics,
    )  # fmt: skip


def leftovers(engine: Engine) -> list[str]:
    listed = docker(
        "volume", "ls", "-q", "--filter", f"label={HELPER_LABEL}={engine.run_id}"
    ).stdout
    return [*engine.helpers.leftovers(), *listed.split()]


@pytest.mark.engine
def test_the_server_is_described_and_reached_by_a_side_container(full: Full) -> None:
    server = full.dump.server
    assert (server.kind, server.volume, server.user) == ("mariadb", full.lab.name, "root")
    assert server.title.startswith("MariaDB 10.11.")
    assert server.client.side
    assert server.databases == ("--help", 'a b"c', "app")
    assert {a.detail["by"] for a in full.dump.artifacts} == {"side container"}
    summary = mysql.summary(EngineContainer(full.lab.engine, full.lab.container), timeout=60)
    assert summary is not None and re.fullmatch(
        r"MariaDB 10\.11\.\d+, 3 databases, 9 tables, about .* rows", summary
    )


@pytest.mark.engine
def test_every_table_and_program_is_counted_and_the_dump_proves_itself(full: Full) -> None:
    app = next(d for d in full.dump.statistics.databases if d.name == "app")
    assert {t.table: t.rows for t in app.tables} == {
        "t": 5003, "child": 2, "parted": 3, "empty_one": 0, "no_rollback": 2, "forgetful": 2,
        "versioned": 1, "we`ird \"x\" 'y' \\n": 1,
    }  # fmt: skip
    assert set(app.extensions) == {
        "procedure p",
        "procedure q",
        "function f",
        "trigger tr",
        "event ev",
        "view v",
    }
    evidence = mysql.verify_dump(full.folder, full.dump.artifacts, full.dump.statistics)
    assert [(e.level, e.subject) for e in evidence] == [
        ("L2", full.dump.artifacts[0].file), ("L3", full.dump.artifacts[1].file),
    ]  # fmt: skip
    said = "\n".join(full.dump.warnings)
    assert "without transactions (MEMORY, MyISAM)" in said
    for words in ("app.forgetful", "app.versioned", "app.broken"):
        assert words in said


@pytest.mark.engine
def test_no_clear_password_is_anywhere(full: Full) -> None:
    texts = [b"".join(gzip_stream.unpack(full.folder, a)) for a in full.dump.artifacts]
    assert texts[0].count(b"IDENTIFIED BY PASSWORD '*") >= 8
    for where in (*texts, repr(full.dump).encode(), *full.argvs):
        assert b"canary-7d1e" not in where
    assert any(b"mariadb-dump" in argv for argv in full.argvs)  # it was watched while it ran


@pytest.mark.engine
def test_every_cut_of_the_dump_is_rejected(full: Full) -> None:
    """A client loads a dump that was cut at the end of a line without a word (run)."""
    text = b"".join(gzip_stream.unpack(full.folder, full.dump.artifacts[1]))
    ends = [found.end() for found in re.finditer(rb"\n", text)]
    for cut in (*ends[:-1:29], ends[-2], *range(0, len(text), 59_999), len(text) - 1):
        with pytest.raises(BadDump):
            scanned(text[:cut])
    assert sum(scanned(text).rows.values()) == sum(d.rows for d in full.dump.statistics.databases)


@pytest.mark.engine
def test_a_rebuilt_volume_serves_the_same_rows_programs_and_accounts(
    full: Full, start: Start, engine: Engine
) -> None:
    name = unique("Test_my")
    engine.docker.create_volume(name)
    mysql.rebuild(EngineLocation(engine, name), full.folder, record_of(full))
    assert leftovers(engine) == []
    assert mysql.inspect_shutdown(EngineLocation(engine, name), None).clean
    with pytest.raises(StateChanged):
        mysql.rebuild(EngineLocation(engine, name), full.folder, record_of(full))
    fresh = start("--event-scheduler=OFF", volume=name)
    for sql in SAME:
        assert fresh.sql(sql) == full.lab.sql(sql), sql
    assert fresh.sql("SELECT COUNT(*) FROM app.t", "app", APP, "127.0.0.1") == "5003"
    assert fresh.sql("SELECT NEXTVAL(app.numbers) > 1") == "1"
    wrong = replace(full.dump.server.client, container=fresh.container.id, side=False)
    with pytest.raises(Refused, match="not empty"):
        mysql.restore_dump(wrong, full.folder, full.dump.artifacts, full.dump.statistics)


@pytest.mark.thorough
@pytest.mark.engine
def test_the_dump_loads_by_hand_as_its_recipe_says(full: Full, tmp_path: Path) -> None:
    name = unique("Test-my-hand")
    record = replace(record_of(full), name=name)
    kept_ = Backup(unique("x"), 1, "", "shop", "e", "E", "manual", (), str(full.folder), (record,))
    blocks = re.findall(r"^```sh\n(.*?)^```", write_text(kept_), re.DOTALL | re.MULTILINE)
    server = f"restore-{kept_.id}"
    try:
        words = {"input": "a password\n", "cwd": full.folder, "capture_output": True, "text": True}
        done = subprocess.run(["sh", "-c", "".join(blocks[2:5])], **words)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr
        loaded = MySQLLab(full.lab.engine, server)
        for sql in SAME[:5]:
            assert loaded.sql(sql) == full.lab.sql(sql)
        # In the same shell, as far as the variables go.
        (names,) = re.findall(r"^MADE= VOLUME=.*\n", "".join(blocks[2:5]), re.MULTILINE)
        assert subprocess.run(["sh", "-c", names + blocks[5]], capture_output=True).returncode == 0
    finally:
        docker("rm", "-fv", server, check=False)
        docker("volume", "rm", name, check=False)


@pytest.mark.thorough
@pytest.mark.engine
def test_writes_are_noticed_and_reads_are_not(full: Full, engine: Engine) -> None:
    client = full.dump.server.client

    def look() -> mysql.WriteCounter:
        with client.session() as asked:
            return read_counter(asked)

    before = look()
    full.lab.sql(
        "SELECT COUNT(*) FROM app.t; START TRANSACTION; SELECT 1; COMMIT; SHOW DATABASES; CHECKSUM"
        " TABLE app.child"
    )
    assert before.still(look())
    for sql in (
        "INSERT INTO app.child VALUES (2)",
        "UPDATE app.no_rollback SET a = a + 0",
        "CREATE DATABASE later",
        "DROP DATABASE later",
    ):
        full.lab.sql(sql)
        now = look()
        assert not before.still(now), sql
        before = now
    with client.session() as asked:
        asked.rows("START TRANSACTION; INSERT INTO app.child VALUES (1); SELECT 1;")
        assert look().busy
        assert mysql.server(EngineContainer(engine, full.lab.container)).foreign_sessions == (
            "root in no database from 127.0.0.1",
        )
    full.lab.sql("DELETE FROM app.child WHERE t = 2 LIMIT 1")


@pytest.mark.thorough
@pytest.mark.engine
def test_a_cold_archive_is_tried_and_how_it_was_stopped_is_told(
    full: Full, engine: Engine, tmp_path: Path
) -> None:
    lab, image = full.lab, full.lab.container.image_id
    assert not mysql.inspect_shutdown(
        EngineLocation(engine, lab.name), full.dump.server
    ).clean  # it runs
    assert engine.docker.stop(lab.container.id, timeout=60) == 0
    left = mysql.inspect_shutdown(EngineLocation(engine, lab.name), full.dump.server)
    assert left.clean and left.words
    volume = engine.docker.volume(lab.name)
    assert volume is not None
    record = record_of(full, *archive.archive(EngineLocation(engine, volume.name), into=tmp_path))
    assert [e.level for e in mysql.MysqlTrial(engine, tmp_path, record, image).run()] == ["L4"]
    assert leftovers(engine) == []
    engine.docker.start(lab.container.id)
    wait_until(
        "it serves again",
        lambda: mysql.summary(EngineContainer(engine, lab.container), timeout=60) is not None,
    )
    lab.sql("INSERT INTO app.forgetful VALUES (1), (2)")
    with pytest.raises(ServerUnreachable, match="does not run"):
        mysql.server(EngineContainer(engine, replace(lab.container, state="exited")))


@pytest.mark.thorough
@pytest.mark.engine
def test_a_dump_made_under_fire_holds_exactly_what_was_counted(
    full: Full, engine: Engine, tmp_path: Path
) -> None:
    """Writers at full speed into a table with transactions and one without: the counts are of the
    dump's own moment.
    """
    lab, over, rounds = full.lab, threading.Event(), [0]
    insert = (
        "START TRANSACTION; INSERT INTO app.fire VALUES (1); INSERT INTO app.fire_plain VALUES (1);"
        " COMMIT;\n"
    )

    def write() -> None:
        while not over.is_set():
            lab.sql(insert * 50)
            rounds[0] += 1

    lab.sql("CREATE TABLE app.fire (a INT); CREATE TABLE app.fire_plain (a INT) ENGINE=MyISAM")
    thread = threading.Thread(target=write)
    thread.start()
    try:
        wait_until("somebody writes", lambda: rounds[0] > 1)
        made = mysql.dump(mysql.server(EngineContainer(engine, lab.container)), lab.name, tmp_path)
        assert made.was_written_since()
    finally:
        over.set()
        thread.join()
        lab.sql("DROP TABLE app.fire, app.fire_plain")
    rows = {t.table: t.rows for d in made.statistics.databases for t in d.tables}
    assert rows["fire"] >= 50 and 0 <= rows["fire_plain"] - rows["fire"] <= 1
    assert [e.level for e in mysql.verify_dump(tmp_path, made.artifacts, made.statistics)] == [
        "L2",
        "L3",
    ]


@pytest.mark.thorough
@pytest.mark.engine
def test_another_server_at_the_usual_place_of_a_shared_folder_of_sockets_is_not_dumped(
    start: Start, engine: Engine, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    start(sockets=f"{tmp_path}")
    lab = start()
    lab.sql("DROP USER root@'127.0.0.1'")  # the official images have none, but root@'%'
    docker("stop", lab.name)
    docker("rm", lab.name)
    words = (
        "-e",
        f"MARIADB_ROOT_PASSWORD={ROOT}",
        "-v",
        f"{tmp_path}:/run/mysqld",
        "-v",
        f"{lab.name}:{DATA}",
    )
    docker("run", "-d", "--name", lab.name, *words, IMAGE, "--socket=/run/mysqld/other.sock")
    wait_until(
        "it serves",
        lambda: "socket: '/run/mysqld/other.sock'  port: 3306" in docker("logs", lab.name).stderr,
    )
    with pytest.raises(ServerUnreachable, match="another server"):
        mysql.server(EngineContainer(engine, lab.container))


@pytest.mark.thorough
@pytest.mark.engine
def test_a_password_in_a_file_or_in_the_first_log_lets_us_in(
    start: Start, engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "pw").write_text(ROOT + "\n")
    tmp_path.chmod(0o755)
    filed = start(environment={"MYSQL_ROOT_PASSWORD_FILE": "/run/secrets/pw"}, files=str(tmp_path))
    found = mysql.server(EngineContainer(engine, filed.container))
    assert found.client.login == mysql.Login("root", "file", "/run/secrets/pw")
    assert not found.client.side  # this image lets root in over 127.0.0.1 by another account
    made = mysql.dump(found, filed.name, tmp_path / "into")
    assert {a.detail["by"] for a in made.artifacts} == {"exec"}
    assert made.statistics.databases == ()
    assert not made.was_written_since()
    filed.sql("ALTER USER root@localhost IDENTIFIED BY 'changed since'")
    with pytest.raises(ServerUnreachable, match="Access denied") as silent:
        mysql.server(EngineContainer(engine, filed.container))
    assert ROOT not in silent.value.message

    logged = start(
        environment={
            "MARIADB_RANDOM_ROOT_PASSWORD": "1",
            "MARIADB_USER": "app",
            "MARIADB_PASSWORD": APP,
        }
    )
    assert mysql.server(EngineContainer(engine, logged.container)).client.login == mysql.Login(
        "root", "log"
    )


# -- by the operations -----------------------------------------------------------------------------

SECRET = "canary-51c8"
SHOP = f"""
services:
  db:
    image: {IMAGE}
    environment:
      {{MARIADB_ROOT_PASSWORD: {SECRET}-root, MARIADB_DATABASE: shop, MARIADB_USER: app, MARIADB_PASSWORD: {SECRET}-app}}
    volumes: ["data:{DATA}"]
  app:
    image: {IMAGE}
    init: true
    environment: {{MYSQL_PWD: {SECRET}-app}}
    entrypoint: [sleep, "100000"]
    tmpfs: [{DATA}]
    depends_on: [db]
volumes: {{data: }}
"""


def ask_as_app(shop: ComposeProject, sql: str) -> str:
    argv = (
        "compose",
        "exec",
        "-T",
        "app",
        "mariadb",
        "-h",
        "db",
        "-u",
        "app",
        "-BN",
        "shop",
        "-e",
        sql,
    )
    done: list[str] = []

    def answered() -> bool:
        answer = shop.docker(*argv, check=False)
        done[:] = [answer.stdout.strip()]
        return answer.returncode == 0

    wait_until("the app is let in over the network", answered)
    return done[0]


@pytest.mark.thorough
@pytest.mark.engine
def test_a_shop_comes_back_from_its_archive_and_from_its_hot_dump(
    compose_project: ProjectFactory, safe_compose: SafeCompose, sealed_environment: Path
) -> None:
    shop = compose_project(SHOP)
    shop.up()
    ask_as_app(
        shop,
        "CREATE TABLE sale (id INT PRIMARY KEY, what VARCHAR(40)); INSERT INTO sale SELECT seq,"
        " MD5(seq) FROM seq_1_to_1000",
    )
    rows = "SELECT COUNT(*), MD5(GROUP_CONCAT(what ORDER BY id)) FROM sale"
    before = ask_as_app(shop, rows)
    told = []
    with command_lines() as argvs:
        hot = safe_compose("backup", "--json", cwd=shop.folder)
        told.append(hot)
        assert hot.returncode == 0, hot.stderr
        deleted = safe_compose(
            "--non-interactive", "--backup-first", "compose", "down", "-v", cwd=shop.folder
        )
        told.append(deleted)
        assert deleted.returncode == 0, deleted.stderr
        assert shop.volumes() == []
        undone = safe_compose("undo", cwd=shop.folder)
        told.append(undone)
    assert undone.returncode == 0, undone.stderr
    assert "L4" in deleted.stderr
    assert ask_as_app(shop, rows) == before

    shop.docker("compose", "rm", "-fsv", "db")
    docker("volume", "rm", f"{shop.name}_data")
    backup = json.loads(hot.stdout)["backup"]
    alone = safe_compose("restore", backup["id"], "--database", "shop", cwd=shop.folder)
    assert alone.returncode == 77 and "to PostgreSQL only; nothing was restored" in alone.stderr, (
        alone.stderr
    )
    restored = safe_compose("restore", backup["id"], cwd=shop.folder)
    told.append(restored)
    assert restored.returncode == 0, restored.stderr
    assert "from its dump" in restored.stderr
    shop.docker("compose", "up", "-d", "--pull", "never")
    assert ask_as_app(shop, rows) == before

    texts = [answer.stdout + answer.stderr for answer in told]
    home = sealed_environment / "safe-compose"
    files = [f for f in home.rglob("*") if f.is_file() and f.suffix != ".gz"]
    assert {"manifest.json", "RESTORE.md"} <= {f.name for f in files}
    texts += [f.read_text("utf-8", "replace") for f in files]
    for text in (*texts, *(argv.decode("utf-8", "replace") for argv in argvs)):
        assert SECRET not in text


# -- dumps that anybody made -----------------------------------------------------------------------


@pytest.mark.thorough
def test_a_dump_of_anybodys_is_named_and_what_is_told_loads_it_beside_the_living_one(
    full: Full, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    words = [
        "mariadb-dump",
        "-uroot",
        "--default-character-set=utf8mb4",
        "app",
        "t",
        "child",
        "no_rollback",
    ]
    environment = {**os.environ, "MYSQL_PWD": ROOT}
    made = subprocess.run(
        ["docker", "exec", "-e", "MYSQL_PWD", full.lab.name, *words],
        env=environment,
        capture_output=True,
        check=True,
    ).stdout
    path, cut = tmp_path / "app.sql.gz", tmp_path / "cut.sql"
    path.write_bytes(gzip.compress(made))
    cut.write_bytes(made[:-200])
    refused = safe_compose("restore", str(path), "--volume", full.lab.name)
    assert (
        refused.returncode == 77 and "a dump of database app by MariaDB 10.11" in refused.stderr
    ), refused.stderr
    assert "cannot rename a database" in refused.stderr and ROOT not in refused.stderr
    told = next(
        line for line in refused.stderr.splitlines() if "load it next to the current one: " in line
    )
    command = told.split("load it next to the current one: ")[1].split(
        "; then look at app_restored"
    )[0]
    sums = "SELECT COUNT(*), SUM(CRC32(CONCAT_WS('|', id, s, b, f, j, d, bits, g))) FROM {}.t"
    try:
        subprocess.run(["sh", "-c", command], check=True, capture_output=True)
        assert full.lab.sql(sums.format("app_restored")) == full.lab.sql(sums.format("app"))
    finally:
        full.lab.sql("DROP DATABASE IF EXISTS app_restored")
    half = safe_compose("restore", str(cut), "--volume", full.lab.name)
    assert (
        half.returncode == 77
        and "cut off before its end" in half.stderr
        and "make the dump again" in half.stderr
    )


@pytest.mark.parametrize("size", [1, 40, 1 << 20])
def test_a_dump_that_chooses_its_databases_is_told_apart(size: int) -> None:
    head = (
        b"-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB\n-- Host: localhost    Database: shop\n--"
        b" Server version\t10.11.6\n"
    )
    makes = (
        b"CREATE DATABASE /*!32312 IF NOT EXISTS*/ `%b` /*!40100 DEFAULT CHARACTER SET utf8mb4"
        b" */;\n\nUSE `%b`;\n"
    )
    tail = b"CREATE PROCEDURE p()\nCREATE DATABASE x;\n-- Dump completed on 2026-11-25 16:00:03\n"
    plain, one = head + tail, head + makes % (b"shop", b"shop") + tail
    two = head + makes % (b"a", b"a") + makes % (b"b", b"b") + tail
    found = [
        dump_file.summarize(dump[at : at + size] for at in range(0, len(dump), size))
        for dump in (plain, one, two)
    ]
    assert [f.title for f in found] == ["MariaDB 10.11.6"] * 3
    told = [(f.databases, f.chooses, f.whole) for f in found]
    assert told == [(("shop",), False, True), (("shop",), True, True), (("a", "b"), True, True)]
    words = [f.next_step(Path("d.sql"), zipped=False, container="c", password="P") for f in found]
    assert (
        "sed" not in words[0] and "sed" in words[1] and "CREATE DATABASE shop_restored" in words[1]
    )
    assert "one database" in words[2]
    sed = re.search(r"sed -E '[^']*'", words[1])
    assert sed is not None
    left = subprocess.run(["sh", "-c", sed[0]], input=one, capture_output=True, check=True).stdout
    assert b"USE `" not in left and left.count(b"CREATE DATABASE") == 1
