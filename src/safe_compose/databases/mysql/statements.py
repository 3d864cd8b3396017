r"""A check that a dump file fills one database and does nothing else, read as client and server do.

Only what mysqldump and mariadb-dump write is accepted. A backslash outside of strings is a command
for the client (`\!` runs a program); the content of `/*! ... */` is run. If client and server, or
two versions of the server, could disagree about the end of a string or comment, the dump is
refused.
"""

import re
from collections.abc import Callable

from safe_compose.databases.sql_lexer import BadDump

SANDBOX = re.compile(rb"/\*M?!999999\\- enable the sandbox mode \*/")
"""The first line of a dump by MariaDB since May 2024 (MDEV-21178); the first releases that had it
wrote it without `M`.
"""
_TOKEN = re.compile(rb"['\"`#\\\n]|--|/\*M?!?|\*/|;;?|\$\$|//")
_IN_QUOTES = {quote: re.compile(rb"[\\" + quote + rb"]|\*/|/\*") for quote in (b"'", b'"', b"`")}
_DELIMITER = re.compile(rb"DELIMITER (;;|;|\$\$|//)[ \t]*\n")
_CODE_LIMIT = 16 << 20

NAME = rb"`(?:[^`]|``)*+`"
_ONE = NAME + rb"(?![ ]?\.)"
"""A name that is not qualified by a database."""
_LITERAL = rb"(?:''|-?[0-9]+|[A-Za-z0-9_]+|@@?[A-Za-z0-9_.]+)"
_VARIABLE = rb"(?:@[A-Za-z0-9_]+|(?:SESSION )?[A-Za-z_]+)"
_ASSIGNED = _VARIABLE + rb" ?= ?" + _LITERAL
_ACCOUNT = rb"(?:" + NAME + rb"|'')@(?:" + NAME + rb"|'')"
_HEADS = re.compile(
    rb"(?:SET " + _ASSIGNED + rb"(?:, ?" + _ASSIGNED + rb")*+\Z"
    rb"|SET NAMES [A-Za-z0-9_]+\Z|SET @@SESSION\.SQL_LOG_BIN ?= ?[A-Za-z0-9_@.]+\Z"
    rb"|DROP (?:TABLE|VIEW|EVENT|FUNCTION|PROCEDURE|TRIGGER|SEQUENCE"
    rb"|PACKAGE(?: BODY)?) (?:IF EXISTS )?" + _ONE + rb"\Z"
    rb"|CREATE TABLE (?:IF NOT EXISTS )?" + _ONE + rb" ?\(|CREATE SEQUENCE " + _ONE
    + rb"|DO SETVAL\(" + _ONE + rb", ?-?[0-9]+, ?[01]\)\Z"
    rb"|ALTER TABLE " + _ONE + rb" (?:DIS|EN)ABLE KEYS\Z"
    rb"|LOCK TABLES " + _ONE + rb" (?:READ|WRITE)(?: LOCAL)?\Z|UNLOCK TABLES\Z"
    rb"|(?:INSERT|REPLACE) (?:IGNORE )?INTO " + _ONE + rb"|COMMIT\Z|START TRANSACTION\Z|BEGIN\Z"
    rb"|CREATE (?:OR REPLACE )?(?:ALGORITHM ?= ?[A-Z]+ )?(?:DEFINER ?= ?" + _ACCOUNT + rb" )?"
    rb"(?:SQL SECURITY [A-Z]+ )?(?:AGGREGATE )?(?:VIEW|TRIGGER|EVENT|FUNCTION|PROCEDURE"
    rb"|PACKAGE(?: BODY)?) (?:IF NOT EXISTS )?"
    rb"(?:" + _ONE + rb"|[A-Za-z0-9_$]+[ (]))",
    re.IGNORECASE,
)  # fmt: skip
CHOOSES = re.compile(
    rb"CREATE DATABASE /\*!32312 IF NOT EXISTS\*/ `(?:[^`]|``)+` [^\n;]*;|USE `(?P<used>(?:[^`]"
    rb"|``)+)`;"
)
"""The two lines that put a dump into a database of its own choice (mysqldump.c: init_dumping)."""
_VALUES = re.compile(
    rb"(?:INSERT|REPLACE) (?:IGNORE )?INTO "
    + NAME
    + rb" ?(?:\("
    + NAME
    + rb"(?:, ?"
    + NAME
    + rb")*+\) ?)?VALUES",
    re.IGNORECASE,
)
_PROGRAM = re.compile(rb"CREATE .*?\b(?:TRIGGER|EVENT|FUNCTION|PROCEDURE|PACKAGE)\b", re.IGNORECASE)
_IN_VALUES = re.compile(
    rb"(?:[(), ]|''|\b(?:NULL|DEFAULT|_binary|_[a-z0-9]+|true|false)\b|0x[0-9A-Fa-f]+|x''|b''"
    rb"|-?[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?)*+",
    re.IGNORECASE,
)
_REACHES_OUT = re.compile(
    rb"\b(?:OUTFILE|DUMPFILE|INFILE|LOAD_FILE|LOAD DATA|LOAD XML|INSTALL|SONAME|SYS_EXEC|SYS_EVAL"
    rb"|DELIMITER|GLOBAL|PERSIST"
    rb"|PERSIST_ONLY|GRANT|CREATE USER|ALTER USER|SET PASSWORD|(?:DATA|INDEX) DIRECTORY"
    rb"|CREATE SERVER|FEDERATED|CONNECTION ?=)",
    re.IGNORECASE,
)
_UNSAFE_CHARSET = re.compile(
    rb"\b(?:gbk|gb18030|gb2312|big5|sjis|cp932)(?:_[a-z0-9_]+)?\b", re.IGNORECASE
)
_UNSAFE_MODE = re.compile(
    rb"NO_BACKSLASH_ESCAPES|ANSI_QUOTES|\bANSI\b|\bORACLE\b|\bMSSQL\b|\bDB2\b|\bPOSTGRESQL\b",
    re.IGNORECASE,
)


class UntrustedStatement(BadDump):
    """The dump does, or may do, more than a dump of one database; the message says where."""


class StatementReader:
    """A reader that is fed with a dump block by block.

    Memory: a block, and the current statement without its strings.
    """

    def __init__(self) -> None:
        """Begin before the first statement of a dump."""
        self._data = b"\n"
        self._at = 1
        self._line = 1
        self._counted = 1
        self._state: Callable[[], bool] = self._between
        self._delimiter = b";"
        self._quote = b"'"
        self._code: list[bytes] = []
        self._strings: list[bytes] = []
        self._size = 0
        self._conditional = False
        self._begun = 1
        self._first_line = b""
        self.programs = 0
        """Number of triggers, events and routines, which run with the rights of their definer."""

    def feed(self, block: bytes) -> None:
        """Check the next bytes of a dump.

        Raises:
            UntrustedStatement: A statement may do more than fill one database.
        """
        if b"\0" in block:
            before = self._data.count(b"\n", self._counted) + block.count(
                b"\n", 0, block.index(b"\0")
            )
            raise self._fault("it holds a NUL byte", self._line + before)
        self._line += self._data.count(b"\n", self._counted, self._at)
        self._data = self._data[self._at - 1 :] + block
        self._at = self._counted = 1
        while self._state():
            pass

    def finish(self) -> None:
        """End the dump.

        Raises:
            UntrustedStatement: A statement has no end.
        """
        self.feed(b"\n")
        if self._state != self._between:
            raise self._fault("it ends within a statement")

    def _fault(self, words: str, line: int | None = None) -> UntrustedStatement:
        now = self._line + self._data.count(b"\n", self._counted, self._at)
        return UntrustedStatement(f"line {now if line is None else line}: {words}")

    def _now(self) -> int:
        return self._line + self._data.count(b"\n", self._counted, self._at)

    def _between(self) -> bool:
        while self._at < len(self._data) and self._data[self._at] in b" \t\n":
            self._at += 1
        line_end = self._data.find(b"\n", self._at)
        if line_end < 0 and len(self._data) - self._at < 512:
            return False
        self._first_line = (
            self._data[self._at : line_end]
            if line_end >= 0 and self._data[self._at - 1] == 0x0A
            else b""
        )
        if self._data[self._at : self._at + 10].upper() == b"DELIMITER ":
            found = _DELIMITER.match(self._data, self._at)
            if found is None or self._data[self._at - 1] != 0x0A:
                raise self._fault(
                    f"a delimiter that no dump has: {excerpt(self._data[self._at :])}"
                )
            self._delimiter, self._at = found[1], found.end()
            return True
        if (sandbox := SANDBOX.match(self._data, self._at)) is not None:
            self._at = sandbox.end()
            return True
        self._code, self._strings, self._size, self._begun = [], [], 0, self._now()
        self._state = self._statement
        return True

    def _add(self, code: bytes) -> None:
        self._code.append(code)
        self._size += len(code)
        if self._size > _CODE_LIMIT:
            raise self._fault("a statement has no end")

    def _statement(self) -> bool:
        data = self._data
        found = _TOKEN.search(data, self._at)
        if found is None or len(data) - found.end() < (7 if found[0].endswith(b"!") else 3):
            stop = found.start() if found is not None else max(self._at, len(data) - 1)
            self._add(data[self._at : stop])
            self._at = stop
            return False
        self._add(data[self._at : found.start()])
        token, self._at = found[0], found.start()
        if token in (b"'", b'"', b"`"):
            self._quote, self._at = token, self._at + 1
            self._add(b"`" if token == b"`" else b"''")
            self._state = self._string
        elif token == b"\\":
            raise self._fault(
                f"it asks the client for what no dump needs: {excerpt(data[self._at :])}"
            )
        elif token == b"#" or (token == b"--" and data[self._at + 2] <= 0x20):
            self._state = self._comment
        elif token.startswith(b"/*"):
            self._open_comment(token)
        elif token == b"*/" and self._conditional:
            self._conditional = False
            self._add(b" ")
            self._at += 2
        elif data.startswith(self._delimiter, self._at) and (
            self._delimiter != b";" or not data.startswith(b";;", self._at)
        ):
            self._at += len(self._delimiter)
            self._end()
        else:
            length = 1 if token != b"*/" else 2
            self._add(token[:length])
            self._at += length
        return True

    def _open_comment(self, token: bytes) -> None:
        if self._conditional:
            raise self._fault(
                "a comment within a comment that is run ends where the server's version says"
            )
        if token.endswith(b"!"):
            self._conditional = True
            self._at += len(token)
            digits = 0
            while digits < 6 and self._data[self._at + digits : self._at + digits + 1].isdigit():
                digits += 1
            self._at += digits
            self._add(b" ")
        else:
            self._at += 2
            self._state = self._skip_comment

    def _skip_comment(self) -> bool:
        end = self._data.find(b"*/", self._at)
        self._at = end + 2 if end >= 0 else max(self._at, len(self._data) - 1)
        if end >= 0:
            self._add(b" ")
            self._state = (
                self._statement if self._code and b"".join(self._code).strip() else self._between
            )
        return end >= 0

    def _comment(self) -> bool:
        end = self._data.find(b"\n", self._at)
        self._at = end if end >= 0 else len(self._data)
        if end >= 0:
            self._state = self._statement if b"".join(self._code).strip() else self._between
        return end >= 0

    def _string(self) -> bool:
        found = _IN_QUOTES[self._quote].search(self._data, self._at)
        stop = found.start() if found is not None else max(self._at, len(self._data) - 1)
        piece = self._data[self._at : stop]
        self._add(piece) if self._quote == b"`" else self._keep(piece)
        self._at = stop
        if found is None or (found[0] == b"\\" and found.end() == len(self._data)):
            return False
        if found[0] in (b"*/", b"/*"):
            if self._conditional:
                raise self._fault("a comment that is run holds the sign of its end in a string")
            self._at = found.start() + 1
        elif found[0] == b"\\" and self._quote != b"`":
            self._at = found.end() + 1
        elif found[0] == b"\\":
            self._at = found.end()
        else:
            if self._quote == b"`":
                self._add(b"`")
            self._at = found.end()
            self._state = self._statement
        return True

    def _keep(self, piece: bytes) -> None:
        if sum(map(len, self._strings)) < 4096:
            self._strings.append(piece[:4096])

    def _end(self) -> None:
        code = b" ".join(b"".join(self._code).split())
        self._state = self._between
        if not code:
            return
        strings = b" ".join(self._strings)
        if (
            CHOOSES.fullmatch(self._first_line)
            and code[:3].upper() in (b"USE", b"CRE")
            and self._now() == self._begun
        ):
            return
        self.programs += _PROGRAM.match(code[:4096]) is not None
        good = _HEADS.match(code) is not None and not _REACHES_OUT.search(re.sub(NAME, b"``", code))
        if (values := _VALUES.match(code)) is not None:
            good = (
                _HEADS.match(code) is not None
                and _IN_VALUES.fullmatch(code, values.end()) is not None
            )
        elif code[:3].upper() == b"SET":
            good = good and not (_UNSAFE_CHARSET.search(code) or _UNSAFE_MODE.search(strings))
        if not good:
            raise self._fault(f"no dump of one database needs it: {excerpt(code)}", self._begun)


def excerpt(raw: bytes) -> str:
    """Return the beginning of a part of a dump, safe for a terminal."""
    words = " ".join(raw[:60].partition(b"\n")[0].decode("utf-8", "backslashreplace").split())
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in words)[:60]
