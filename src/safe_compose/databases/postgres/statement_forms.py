"""The forms in which pg_dump writes its statements, as patterns for `StatementRouter`."""

import re
from collections.abc import Iterator
from functools import cached_property

from safe_compose.databases.postgres.encodings import IDENTIFIER

_WRITTEN_AS = {
    "%N": IDENTIFIER.decode("latin-1"),
    "%S": r"[EeBbXx]?(?:'')++",
    "%ARGUMENTS": r"\([^;'()]*+(?:\([^;'()]*+\)[^;'()]*+)*+\)",
    "%PRIVILEGE": (
        r"(?:ALL(?: PRIVILEGES)?|SELECT|INSERT|UPDATE|DELETE|TRUNCATE|REFERENCES|TRIGGER|MAINTAIN"
        r"|USAGE|CREATE|CONNECT"
        r"|TEMPORARY|TEMP|EXECUTE|RULE|SET|ALTER SYSTEM)(?: ?\(%N(?:, ?%N)*+\))?"
    ),
    "%GRANTS": r"(?:GRANT|REVOKE)(?: GRANT OPTION FOR)? %PRIVILEGE(?:, ?%PRIVILEGE)*+ ON ",
    "%TO": (
        r" (?:TO|FROM) (?:GROUP )?%N(?:, ?%N)*+(?: WITH GRANT OPTION)?(?: GRANTED BY %N)?(?:"
        r" CASCADE)?"
    ),
    "%ROUTINE": "(?:FUNCTION|PROCEDURE|ROUTINE|AGGREGATE)",
    "%WORDS": r'(?:"(?:[^"]|"")*+"|\(%BRACKETED\)|[^"();])*?',
    "%BRACKETED": (
        r'(?:"(?:[^"]|"")*+"|\((?:"(?:[^"]|"")*+"|\((?:"(?:[^"]|"")*+"|[^"()])*+\)|[^"()])*+\)'
        r'|[^"()])*+'
    ),
    "%PARAMETER": r'(?:[A-Za-z0-9_.]+|"(?:[^"]|"")++")',
}
"""An identifier; a string as `DumpPiece.code` has it; parts that several kinds of statements have.
"""


class Form:
    """Forms of a statement, in upper or lower case.

    They are compiled when they are first needed, which for all of them takes longer than most
    commands that load no dump.
    """

    def __init__(self, *patterns: str) -> None:
        """Match any of these patterns, which may have the names of `_WRITTEN_AS`."""
        self._patterns = patterns

    @cached_property
    def _compiled(self) -> re.Pattern[bytes]:
        pattern = "|".join(self._patterns)
        while any(name in pattern for name in _WRITTEN_AS):
            for name, meaning in _WRITTEN_AS.items():
                pattern = pattern.replace(name, meaning)
        return re.compile(f"(?:{pattern})".encode("latin-1"), re.IGNORECASE)

    def match(self, code: bytes) -> re.Match[bytes] | None:
        """Return the match at the beginning, as `re.Pattern.match`."""
        return self._compiled.match(code)

    def fullmatch(self, code: bytes) -> re.Match[bytes] | None:
        """Return the match of the whole, as `re.Pattern.fullmatch`."""
        return self._compiled.fullmatch(code)

    def finditer(self, code: bytes) -> Iterator[re.Match[bytes]]:
        """Return every match, as `re.Pattern.finditer`."""
        return self._compiled.finditer(code)

    def findall(self, code: bytes) -> list[bytes]:
        """Return the group of every match, as `re.Pattern.findall`."""
        return self._compiled.findall(code)


# -- statements that may be loaded -----------------------------------------------------------------

SETTING = Form(r"SET ([a-z_]+) (?:=|TO) (?:%S|-?[A-Za-z0-9_.]+|%N(?:, ?%N)*+);")
TABLESPACE = re.compile(rb"SET default_tablespace = (" + IDENTIFIER + rb");")
HARMLESS_SETTINGS = frozenset(
    b"statement_timeout lock_timeout idle_in_transaction_session_timeout transaction_timeout"
    b" client_encoding standard_conforming_strings check_function_bodies xmloption"
    b" client_min_messages row_security default_tablespace default_table_access_method"
    b" default_with_oids search_path escape_string_warning quote_all_identifiers extra_float_digits"
    b" datestyle intervalstyle timezone bytea_output synchronize_seqscans synchronous_commit"
    b" maintenance_work_mem work_mem default_toast_compression".split()
)
"""Settings of pg_dump, and those that people add for speed."""
SAFE_ENCODINGS = re.compile(
    rb"UTF8|UNICODE|SQLASCII|LATIN\d+|ISO8859\d+|WIN(?:DOWS)?(?:12\d\d|866|874)|WIN|KOI8?[RU]?"
    rb"|EUC[A-Z]+(?:2004)?|MULEINTERNAL|ALT|ABC"
    rb"|TCVN(?:5712)?|VSCII"
)
"""Encodings in which no second byte of a character can be a backslash (PostgreSQL: Character Set
Support).
"""

SELECT = Form(
    r"SELECT pg_catalog\.set_config\('', '', false\);",
    r"SELECT pg_catalog\.setval\(%S, -?\d+, (?:true|false)\);",
    r"SELECT pg_catalog\.(?:lo_create\((?:''|\d+)\)|lo_creat\(-?\d+\)|lo_close\(0\));",
    r"SELECT pg_catalog\.(?:lo_open\((?:''|\d+), \d+\)|lowrite\(0, %S\));",
    r"SELECT \* FROM pg_catalog\.pg_(?:restore|clear)_(?:relation|attribute"
    r"|extended)_stats\((?:[A-Za-z0-9_:\[\],. -]|%S)*+\);",
)
SET_PATH = re.compile(
    rb"SELECT pg_catalog\.set_config\('search_path', '[^'\\]*+', false\);", re.IGNORECASE
)
"""`SELECT` does not see the content of its strings."""
UNLINK = Form(
    r"SELECT pg_catalog\.lo_unlink\((?:''|oid|\d+)\)(?: FROM pg_catalog\.pg_largeobject_metadata"
    r" WHERE oid = (?:''|\d+))?;"
)
INSERT = Form(
    r"INSERT INTO (?:%N\.)?%N (?:\(%N(?:, ?%N)*+\) )?(?:OVERRIDING (?:SYSTEM|USER) VALUE )?"
    r"(?:DEFAULT VALUES|VALUES(?:[ (),]|%S|-?[0-9][0-9.eE+]*+|\b(?:NULL|TRUE|FALSE|DEFAULT)\b)++)"
    r"(?: ?ON CONFLICT DO NOTHING)?;"
)
MAKES = Form(
    r"CREATE (?:OR REPLACE )?(?!(?:OR|ROLE|USER|GROUP|DATABASE|TABLESPACE|EXTENSION|TRUSTED"
    r"|PROCEDURAL|LANGUAGE|SERVER|FOREIGN"
    r"|EVENT|SUBSCRIPTION|ACCESS)\b)[A-Z]+ ",
    r'CREATE OR REPLACE (?:PROCEDURAL )?LANGUAGE "?plpgsql"?;',
    r"ALTER (?:TABLE|INDEX|SEQUENCE|VIEW|MATERIALIZED VIEW|FUNCTION|PROCEDURE|AGGREGATE|TYPE"
    r"|DOMAIN|SCHEMA|OPERATOR|COLLATION"
    r"|CONVERSION|TEXT SEARCH (?:CONFIGURATION|DICTIONARY)|STATISTICS|PUBLICATION|TRIGGER"
    r"|LARGE OBJECT|POLICY|RULE) ",
    r"COMMENT ON (?!ROLE |TABLESPACE |DATABASE |EXTENSION )",
    r"SECURITY LABEL (?:FOR \S+ )?ON (?!ROLE |TABLESPACE |DATABASE )",
    r"REFRESH MATERIALIZED VIEW |ANALYZE;",
)
OWN_MAKES = Form(
    r"(?:CREATE (?:OR REPLACE )?|ALTER |COMMENT ON )(?:SERVER|FOREIGN DATA WRAPPER|FOREIGN TABLE"
    r"|USER MAPPING|SUBSCRIPTION"
    r"|EVENT TRIGGER|(?:TRUSTED )?(?:PROCEDURAL )?LANGUAGE|ACCESS METHOD|EXTENSION) ",
    r"ALTER DATABASE %N (?:IS_TEMPLATE = true|SET [^;]+);",
)
"""Statements that only the superuser's own dumps have, and that reach further than one database."""
OWN_OWNERS = Form(r"ALTER [A-Z ]+ (?:%N\.)?%N OWNER TO %N;", r"%GRANTS[^;]*;")
"""Owners and grants that only the superuser's own dumps have."""
SUPERUSERS_ALONE = Form(
    r"CREATE TYPE %N\.%N(?:;| ?\(\s*INTERNALLENGTH )",
    r"(?:CREATE|ALTER) OPERATOR (?:CLASS|FAMILY) ",
    r"CREATE (?:TEXT SEARCH (?:TEMPLATE|PARSER)|TRANSFORM) ",
    r"CREATE CAST \(%WORDS\) WITHOUT FUNCTION",
    # Of two types of the server's own: any other is written with its schema.
    r'CREATE CAST \((?:[a-z0-9_ ]|\[\]|"char")+\) WITH ',
    r'CREATE AGGREGATE %N\.%N\(%BRACKETED\) \((?:"(?:[^"]|"")*+"|[^";])*?\sSTYPE = internal\b',
    r"ALTER PUBLICATION %N ADD TABLES IN SCHEMA ",
)
"""Statements that `MAKES` accepts and only a superuser may run. No name that somebody else chose
can look like one.
"""
OWN_FUNCTION = Form(
    r"CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE) %N\.%N\(%BRACKETED\)(?: RETURNS"
    r" %WORDS)?\s+LANGUAGE (?P<language>%N)"
    r"(?: (?:WINDOW|IMMUTABLE|STABLE|STRICT|SECURITY DEFINER|(?P<alone>LEAKPROOF"
    r"|SUPPORT %N(?:\.%N)?)|COST [0-9.e+]+|ROWS [0-9.e+]+"
    r"|PARALLEL [A-Z]+))*(?P<sets>(?: SET %PARAMETER TO %S(?:, ?%S)*+)*)"
)
"""As pg_dump writes its head (pg_dump.c: dumpFunc): the language comes right after what is
returned.
"""
SETS = Form(r" SET (%PARAMETER) TO ")
SUPERUSERS_SETTING = re.compile(
    rb'"?(?:session_replication_role|log_(?!parameter_max_length_on_error)\w+|track_\w+'
    rb"|lc_messages|lo_compat_privileges"
    rb"|deadlock_timeout|temp_file_limit|event_triggers|zero_damaged_pages|ignore_system_indexes"
    rb'|allow_system_table_mods)"?',
    re.IGNORECASE,
)
"""Those that no other role may set, nor have a function set (guc_tables.c: PGC_SUSET)."""

# -- statements that are checked in detail ---------------------------------------------------------

FUNCTION = Form(r"CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE)\b")
LANGUAGE = Form(r"\bLANGUAGE (%N|'')")
UNTRUSTED = re.compile("c|internal|pl.*u|plsh|plr|''")
"""`''` is a language in a string, as nobody writes it."""
IN_FUNCTION = re.compile(
    rb'\(|\)|"(?:[^"]|"")*+"|(?<![A-Za-z0-9_$])[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+'
)
IN_BODY = re.compile(
    rb"(?:SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|VALUES|RETURN|END)\b|\(", re.IGNORECASE
)
DROP = Form(
    r"DROP (?!ROLE|USER|GROUP|TABLESPACE|OWNED|DATABASE)[A-Z ]+",
    r"ALTER (?:TABLE|DOMAIN) (?:IF EXISTS )?(?:ONLY )?%N(?:\.%N)? DROP CONSTRAINT ",
)
"""Statements that `pg_dump --clean` writes before it creates anything; such a dump recreates the
schema public.
"""
DROP_PUBLIC = Form(r"DROP SCHEMA (?:IF EXISTS )?public;")

ABOUT_DATABASE = Form(
    r"(?:(?:CREATE|ALTER|COMMENT ON|DROP) DATABASE (?:IF EXISTS )?|ALTER ROLE %N IN DATABASE "
    r"|SECURITY LABEL (?:FOR %N )?ON DATABASE |(?:GRANT"
    r"|REVOKE)(?: GRANT OPTION FOR)? [A-Z, ]+ ON DATABASE )(%N)(?=[ ;,])"
)
ON_DATABASE = re.compile(
    rb"((?:CREATE|ALTER|COMMENT ON) DATABASE |ALTER ROLE " + IDENTIFIER + rb" IN DATABASE "
    rb"|SECURITY LABEL (?:FOR " + IDENTIFIER + rb" )?ON DATABASE "
    rb"|(?:GRANT|REVOKE)(?: GRANT OPTION FOR)? [A-Z, ]+ ON DATABASE )(" + IDENTIFIER + rb")"
    rb"([ ;].*)",
    re.S,
)  # fmt: skip
"""Every statement about a database as a whole that pg_dump writes (pg_dump.c: dumpDatabase,
dumpDatabaseConfig, ACL), in its form: the name in it is changed in place.
"""
CREATE_DATABASE = Form(
    r"CREATE DATABASE %N(?: WITH)?(?: (?:TEMPLATE = template0|(?:ENCODING|LOCALE_PROVIDER|LOCALE"
    r"|LC_COLLATE|LC_CTYPE|ICU_LOCALE"
    r"|ICU_RULES|BUILTIN_LOCALE|TABLESPACE|CONNECTION LIMIT) = (?:''|-?\d+|%N)))*+;"
)
DATABASE_LOADS = Form(
    r"ALTER DATABASE %N SET %PARAMETER (?:TO|=) [^;]++;",
    r"COMMENT ON DATABASE %N IS (?:%S|NULL);",
    r"SECURITY LABEL (?:FOR %N )?ON DATABASE %N IS %S;",
)
ROLE_SETTING = Form(r"ALTER ROLE %N IN DATABASE %N SET (%PARAMETER) (?:TO|=) [^;]++;")
PREFIXED_SETTING = Form(r'ALTER (ROLE %N IN )?DATABASE %N SET (?:([A-Za-z0-9_]*)\.|"([^".]*)\.)')
"""A library decides what its setting does, and to whom, once it is loaded: `plperl.on_plperlu_init`
runs a program. A setting with another prefix has a name that the application chose (`app.tenant`),
which means nothing to the server.
"""
OF_LIBRARIES = re.compile(
    r"pl\w*|pg\w*|session\w*|login\w*|auto_explain|set_user|supautils|cron|timescaledb\w*|citus\w*"
    r"|anon|age|sepgsql|basic_archive"
    r"|postgis\w*|safeupdate|credcheck|passwordcheck|auth_delay|bdr|spock|repmgr|neon|rds|aws\w*"
    r"|azure\w*|cloudsql|google\w*|alloydb"
    r"|wal2json|orafce|http\w*",
    re.IGNORECASE,
)
"""Prefixes of libraries; in addition, no available extension may have one
(`target_server.find_obstacle`).
"""
EVENT_TRIGGER = Form(
    r"CREATE EVENT TRIGGER (?P<made>%N) ON %N(?: WHEN TAG IN \(''(?:, ?'')*+\))? EXECUTE "
    r"(?:FUNCTION|PROCEDURE) %N\.%N\(\);",
    r"ALTER EVENT TRIGGER %N (?:OWNER TO %N|DISABLE|ENABLE(?: REPLICA| ALWAYS)?);",
    r"COMMENT ON EVENT TRIGGER %N IS (?:%S|NULL);",
)
"""Event triggers as pg_dump writes them. Their functions run with the rights of whoever changes a
table, superusers included.
"""
DENIED_SETTING = re.compile(
    rb"(?:role|session_authorization|standard_conforming_strings|client_encoding"
    rb"|.*_preload_libraries|dynamic_library_path"
    rb"|session_replication_role)\Z",
    re.IGNORECASE,
)

# -- statements for the superuser ------------------------------------------------------------------

GRANT = Form(
    r"%GRANTS(?:(?:TABLE|SEQUENCE|TYPE|DOMAIN) (?P<table>%N)\.%N"
    r"|%ROUTINE (?P<routine>%N)\.%N%ARGUMENTS|SCHEMA (?P<schema>%N)"
    r'|LARGE OBJECT \d+|LANGUAGE "?(?:sql|plpgsql)"?|DATABASE %N)%TO;'
)
OWNER = Form(
    r"ALTER (?:(?:TABLE|SEQUENCE|VIEW|MATERIALIZED VIEW|TYPE|DOMAIN|COLLATION|CONVERSION|STATISTICS"
    r"|TEXT SEARCH (?:CONFIGURATION|DICTIONARY)) (?:IF EXISTS )?(?:ONLY )?(?P<table>%N)\.%N"
    r"|%ROUTINE (?P<routine>%N)\.%N%ARGUMENTS"
    r"|OPERATOR (?P<operator>%N)\.[^\s\"';()]+ %ARGUMENTS|OPERATOR (?:CLASS"
    r"|FAMILY) (?P<class>%N)\.%N USING %N"
    r"|SCHEMA (?P<schema>%N)|PUBLICATION %N|LARGE OBJECT \d+|DATABASE %N) OWNER TO %N;"
)
AFTERWARDS = Form(
    r"ALTER DEFAULT PRIVILEGES FOR ROLE %N(?: IN SCHEMA %N)? (?:GRANT"
    r"|REVOKE)(?: GRANT OPTION FOR)? [A-Z, ]+ ON "
    r"(?:TABLES|SEQUENCES|FUNCTIONS|ROUTINES|TYPES|SCHEMAS|LARGE OBJECTS)%TO;",
    r"COMMENT ON (?:EXTENSION|PUBLICATION) %N IS (?:%S|NULL);",
    r"CREATE PUBLICATION %N FOR ALL TABLES(?: WITH \([^;()]*+\))?;",
    r"ALTER DATABASE %N CONNECTION LIMIT = -?\d+;",
)
AUTHORIZATION = Form(r"SET SESSION AUTHORIZATION (?:''|%N);", r"RESET SESSION AUTHORIZATION;")
ROLES = Form(
    r"(?: OWNER TO |^(?:GRANT|REVOKE) .* (?:TO|FROM) |^ALTER DEFAULT PRIVILEGES FOR ROLE "
    r"|^SET SESSION AUTHORIZATION |^ALTER ROLE )"
    r"(%N)"
)
EXTENSION = Form(r"CREATE EXTENSION (?:IF NOT EXISTS )?(%N)(?: WITH)?(?: SCHEMA %N)?;")
REACHES_OUT = re.compile(
    r"dblink|adminpack|.*_fdw|pl.*u|plsh|plr|pg_cron|aws_s3|pg_net|http", re.IGNORECASE
)
"""Extensions that reach files, programs or other servers; an untrusted language's name ends with
`u`.
"""
SUPERUSERS_EXTENSIONS = frozenset(
    (  # noqa: SIM905
        "address_standardizer address_standardizer_data_us bloom cube earthdistance fuzzystrmatch"
        " h3 hll hypopg pageinspect pg_buffercache pg_freespacemap pg_prewarm pg_repack"
        " pg_stat_statements pg_visibility pgrouting pgrowlocks pgstattuple postgis postgis_raster"
        " postgis_sfcgal postgis_tiger_geocoder postgis_topology rum timescaledb vector"
    ).split()
)
"""Extensions that only a superuser may create, with those that they require, and that reach nothing
outside of their database; the server itself decides about all others.
"""
