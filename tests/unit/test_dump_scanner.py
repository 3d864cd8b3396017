"""Counting a plain dump while it streams, wherever its blocks are cut, and seeing its end."""

import pytest

from safe_compose.databases.postgres.dump_lexer import PieceKind, split_dump
from safe_compose.databases.postgres.dump_scanner import CLUSTER_TRAILER, PostgresScanner
from safe_compose.databases.postgres.restore import make_idempotent
from safe_compose.databases.sql_lexer import BadDump

DUMP = rb"""--
-- PostgreSQL database dump
--

\restrict bWlsayBpcyBub3Qgd2hpdGU

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
CREATE FUNCTION public.f() RETURNS text
    LANGUAGE sql
    AS $_$
--
-- Data for Name: fake; Type: TABLE DATA; Schema: public; Owner: it's
--

COPY public.fake (x) FROM stdin;
not a row
\.
--
-- PostgreSQL database dump complete
--
$_$;
COMMENT ON TABLE public.x IS 'two lines
COPY public.t (a) FROM stdin;
it''s one string';
ALTER TABLE public.x ALTER COLUMN y SET DEFAULT E'a\'b''
COPY public.t (a) FROM stdin;
\\';
CREATE TABLE public."co
lon"";" ();
--
-- Name: it's; Type: TABLE; Schema: public; Owner: -
--

\connect "a b'c"

--
-- Data for Name: co lon; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public."co
lon"";"  FROM stdin;
\.


--
-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: -
--

COPY public.t (a, "b (c", "FROM stdin;") FROM stdin;
1	two\nlines	3
\N	it's $$ and -- and "	x

\\.	COPY public.u (a) FROM stdin;
\.


COPY "Upper"."select" (a) FROM stdin;
only
\.


SELECT pg_catalog.lo_create('16410');
SELECT pg_catalog.lo_open('16410', 131072);
SELECT pg_catalog.lowrite(0, '\x53454c454354');
--
-- PostgreSQL database dump complete
--

\unrestrict bWlsayBpcyBub3Qgd2hpdGU

"""
ROWS = {("public", 'co\nlon";'): 0, ("public", "t"): 4, ("Upper", "select"): 1}


def _scan(data: bytes, size: int) -> PostgresScanner:
    scanner = PostgresScanner()
    for at in range(0, len(data), size):
        scanner.feed(data[at : at + size])
    scanner.finish()
    return scanner


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 11, 64, 139, 141, 1000, 1 << 20])
def test_rows_are_counted_alike_wherever_the_blocks_are_cut(size: int) -> None:
    scanner = _scan(DUMP, size)
    assert scanner.rows == ROWS
    assert scanner.large_objects == 1


def test_any_split_into_two_blocks_counts_alike() -> None:
    for cut in range(len(DUMP)):
        scanner = PostgresScanner()
        scanner.feed(DUMP[:cut])
        scanner.feed(DUMP[cut:])
        scanner.finish()
        assert scanner.rows == ROWS


def test_every_prefix_up_to_the_last_line_is_rejected() -> None:
    complete = DUMP.rindex(b"-- PostgreSQL database dump complete\n--\n") + len(
        b"-- PostgreSQL database dump complete\n--\n"
    )
    for cut in range(complete):
        with pytest.raises(BadDump):
            _scan(DUMP[:cut], 1 << 20)


def test_a_cut_at_a_line_end_within_rows_is_named_as_such() -> None:
    cut = DUMP.index(b"two\\nlines\t3\n") + len(b"two\\nlines\t3\n")
    with pytest.raises(BadDump, match=r"within the rows of public\.t"):
        _scan(DUMP[:cut], 1 << 20)


def test_something_after_the_last_line_is_rejected() -> None:
    for more in (b"DROP TABLE x;\n", DUMP, b"x" * 10000):
        with pytest.raises(BadDump):
            _scan(DUMP + more, 100)


def test_the_same_table_twice_is_rejected() -> None:
    with pytest.raises(BadDump, match="twice"):
        _scan(b"COPY public.t (a) FROM stdin;\n\\.\nCOPY public.t (a) FROM stdin;\n\\.\n", 1000)


def test_a_header_that_never_ends_does_not_fill_the_memory() -> None:
    scanner = PostgresScanner()
    with pytest.raises(BadDump, match="COPY line"):
        for _ in range(64):
            scanner.feed(b"COPY " + b"x" * (1 << 16))


def test_nothing_is_kept_of_long_rows_and_long_strings() -> None:
    scanner = PostgresScanner()
    scanner.feed(b"COPY public.t (a) FROM stdin;\n")
    for _ in range(20):
        scanner.feed(b"x" * (1 << 20))
    assert len(scanner._lexer._data) < 3 << 20
    scanner.feed(b"\n\\.\nSELECT pg_catalog.lowrite(0, '")
    for _ in range(20):
        scanner.feed(b"x" * (1 << 20))
    assert len(scanner._lexer._data) < 3 << 20
    scanner.feed(b"');\n-- PostgreSQL database dump complete\n--\n\n")
    scanner.finish()
    assert scanner.rows == {("public", "t"): 1}


GLOBALS = rb"""--
-- PostgreSQL database cluster dump
--

CREATE ROLE "a""b";
ALTER ROLE "a""b" WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:x$y:z';
COMMENT ON ROLE "a""b" IS 'says
CREATE ROLE postgres;
';
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER;
--
-- PostgreSQL database cluster dump complete
--

"""


def test_only_the_creation_of_known_roles_becomes_a_comment() -> None:
    changed = make_idempotent(GLOBALS, {"postgres"})
    assert changed == GLOBALS.replace(
        b"';\nCREATE ROLE postgres;", b"';\n-- there already: CREATE ROLE postgres;"
    )
    assert make_idempotent(GLOBALS, set()) == GLOBALS
    assert b'-- there already: CREATE ROLE "a""b";\n' in make_idempotent(
        GLOBALS, {'a"b', "postgres"}
    )


def test_the_pieces_of_a_script_are_all_of_it_and_a_line_within_a_string_is_no_statement() -> None:
    pieces = list(split_dump([GLOBALS]))
    assert b"".join(piece.raw for piece in pieces) == GLOBALS
    statements = [piece for piece in pieces if piece.kind is PieceKind.STATEMENT]
    assert [piece.raw for piece in statements].count(b"CREATE ROLE postgres;") == 1
    assert all(
        GLOBALS.split(b"\n")[piece.line - 1].startswith(piece.raw.split(b"\n")[0])
        for piece in statements
    )


def test_globals_end_with_a_line_of_their_own() -> None:
    scanner = PostgresScanner(CLUSTER_TRAILER)
    scanner.feed(GLOBALS)
    scanner.finish()
    with pytest.raises(BadDump):
        _scan(GLOBALS, 1000)
