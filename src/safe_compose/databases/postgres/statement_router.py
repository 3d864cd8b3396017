"""The decision who may run each statement of a dump; only what pg_dump writes is accepted.

A dump is loaded by a role that owns the new database and nothing else (`restricted_load`): its
functions, checks and defaults run with that role's rights while it is loaded. What such a role
cannot do, owners and grants above all, the superuser does afterwards, in forms that run no code of
the dump. A backup of ours that such a role cannot load is left to the superuser: a superuser
created the objects in it that the role cannot create.
"""

import re
from collections.abc import Iterator
from enum import Enum

from safe_compose.databases.postgres import statement_forms as forms
from safe_compose.databases.postgres.dump_lexer import DumpPiece, PieceKind, excerpt
from safe_compose.databases.postgres.dump_scanner import is_known_command
from safe_compose.databases.postgres.encodings import decode_name
from safe_compose.databases.sql_lexer import NotADump


class StatementRoute(Enum):
    """The destination of a statement of a dump."""

    LOAD = "load"
    """Run by the role that loads the dump."""
    AFTERWARDS = "afterwards"
    """Run by the superuser, after everything else."""
    LAST = "last"
    """Run by the superuser, after everything that other statements create."""
    BEFORE = "before"
    """Run by the superuser, before everything else."""
    NOWHERE = "nowhere"
    """Not run: it drops something that a new database does not have."""


def list_roles(piece: DumpPiece) -> Iterator[str]:
    """Yield the roles that a statement names as owner, in a grant, or as a user."""
    for found in forms.ROLES.finditer(piece.code):
        yield decode_name(found[1])


class StatementRouter:
    """A router that checks the statements of one dump in order.

    `own` marks a backup of ours, made from a server by its superuser; otherwise anybody may have
    written the file.
    """

    def __init__(self, *, own: bool) -> None:
        """Begin before the first statement of a dump."""
        self._own = own
        self.database: str | None = None
        """The dump's database, if a statement names it."""
        self.prefixes: dict[str, None] = {}
        """Prefixes of settings that the application chose."""
        self.left_out: list[str] = []
        """Event triggers of a dump that is not ours: nobody creates them."""
        self.needs_superuser: str | None = None
        """The first statement of a backup of ours that a role which owns the database alone cannot
        load; None where there is none. What every role can make is not among them, or anybody could
        choose with whose rights it is loaded. TimescaleDB is: only a server that preloads it has
        it, and nobody else may make its tables in its schemas.
        """
        self.tablespaces: dict[bytes, None] = {}
        """Tablespaces with tables or indexes of a backup of ours, as SQL names them."""
        self._body = 0
        """psql's nesting depth within a body that begins with BEGIN ATOMIC."""
        self._other_user = False
        self._transaction: int | None = None
        """Line of the statement that began the open transaction."""

    def route(self, piece: DumpPiece) -> StatementRoute:
        """Return the destination of a piece of a dump.

        Raises:
            NotADump: The piece belongs in no dump.
        """
        if piece.kind is PieceKind.COMMAND:
            self._command(piece)
            return StatementRoute.LOAD
        if piece.kind in (PieceKind.COPY, PieceKind.INSERTS):
            self._no_other_user(piece)
        if piece.kind not in (PieceKind.STATEMENT, PieceKind.PART, PieceKind.LAST):
            return StatementRoute.LOAD
        if piece.code == b";":
            return StatementRoute.LOAD
        return self._part(piece) if piece.kind is PieceKind.PART else self._statement(piece)

    def close(self) -> None:
        """Require that no transaction and no body is open: its work would be rolled back silently.

        Raises:
            NotADump: One is open.
        """
        if self._transaction is not None:
            raise NotADump(f"line {self._transaction}: a transaction begins that has no end")
        if self._body:
            raise NotADump("a function's body has no end")

    def _command(self, piece: DumpPiece) -> None:
        if not is_known_command(piece.raw):
            raise NotADump(
                f"line {piece.line}: it asks psql for what no dump needs: {excerpt(piece.raw)}"
            )

    def _part(self, piece: DumpPiece) -> StatementRoute:
        """Return the destination of a part of a long statement, which may only be loaded.

        Raises:
            NotADump: The statement belongs in no dump.
        """
        if not (
            self._body
            or re.match(rb"INSERT INTO |SELECT pg_catalog\.lowrite\(", piece.code)
            or self._makes(piece)
        ):
            raise self._refusal(piece)
        return StatementRoute.LOAD

    def _makes(self, piece: DumpPiece) -> bool:
        makes = forms.MAKES.match(piece.code) is not None
        if (
            self._own
            and (forms.SUPERUSERS_ALONE if makes else forms.OWN_MAKES).match(piece.code) is not None
        ):
            self._note(piece)
            makes = True
        return makes

    def _note(self, piece: DumpPiece) -> None:
        self.needs_superuser = self.needs_superuser or f"line {piece.line}: {excerpt(piece.raw)}"

    def _statement(self, piece: DumpPiece) -> StatementRoute:
        code = piece.code
        if self._body:
            if not forms.IN_BODY.match(code):
                raise self._refusal(piece)
            self._follow(piece)
            return StatementRoute.LOAD
        if forms.FUNCTION.match(code):
            self._function(piece)
        if (database := forms.ABOUT_DATABASE.match(code)) is not None:
            return self._about_database(piece, database[1])
        if (trigger := forms.EVENT_TRIGGER.fullmatch(code)) is not None:
            if self._own:
                return StatementRoute.LAST
            self.left_out.extend(
                decode_name(name) for name in (trigger["made"],) if name is not None
            )
            return StatementRoute.NOWHERE
        if (route := self._superusers(piece)) is not None:
            return route
        self._no_other_user(piece)
        return self._loaders(piece)

    def _loaders(self, piece: DumpPiece) -> StatementRoute:
        """Return the destination of a statement that is not for the superuser.

        Raises:
            NotADump: The statement belongs in no dump.
        """
        code = piece.code
        if code.upper() in (b"BEGIN;", b"COMMIT;"):
            self._transaction = piece.line if code[:1].upper() == b"B" else None
        elif forms.SETTING.fullmatch(code):
            self._setting(piece)
        elif (
            forms.DROP.match(code) and not forms.DROP_PUBLIC.fullmatch(code)
        ) or forms.UNLINK.fullmatch(code):
            return StatementRoute.NOWHERE
        elif (extension := forms.EXTENSION.fullmatch(code)) is not None:
            return self._extension(piece, decode_name(extension[1]))
        elif not (
            self._makes(piece)
            or forms.INSERT.fullmatch(code)
            or forms.DROP_PUBLIC.fullmatch(code)
            or self._selects(piece)
        ):
            raise self._refusal(piece)
        return StatementRoute.LOAD

    def _selects(self, piece: DumpPiece) -> bool:
        sets = b"set_config" in piece.code.lower()
        return (
            forms.SET_PATH.fullmatch(piece.raw) if sets else forms.SELECT.fullmatch(piece.code)
        ) is not None

    def _superusers(self, piece: DumpPiece) -> StatementRoute | None:
        """Return the destination of a statement for the superuser; None for any other.

        Raises:
            NotADump: It changes objects of the server itself.
        """
        code = piece.code
        if forms.AUTHORIZATION.fullmatch(code):
            self._other_user = code[:3].upper() == b"SET"
            return StatementRoute.AFTERWARDS
        found = forms.GRANT.fullmatch(code) or forms.OWNER.fullmatch(code)
        if found is not None:
            if not self._own:
                self._not_the_servers(piece, found.groupdict().values())
            return StatementRoute.AFTERWARDS
        later = forms.AFTERWARDS.fullmatch(code) or (self._own and forms.OWN_OWNERS.fullmatch(code))
        return StatementRoute.AFTERWARDS if later else None

    def _not_the_servers(self, piece: DumpPiece, schemas: object) -> None:
        for schema in filter(None, schemas):  # type: ignore[call-overload]
            if decode_name(schema).lower().startswith(("pg_", "information_schema")):
                raise self._refusal(piece, "it changes what belongs to the server itself")

    def _no_other_user(self, piece: DumpPiece) -> None:
        if self._other_user and self._own:
            self._note(piece)
        elif self._other_user:
            raise self._refusal(
                piece, "it makes things as other users (pg_dump --use-set-session-authorization)"
            )

    def _about_database(self, piece: DumpPiece, name: bytes) -> StatementRoute:
        code, database = piece.code, decode_name(name)
        if self.database not in (None, database):
            raise NotADump(
                f"line {piece.line}: it holds more than one database, or touches another:"
                f" {excerpt(piece.raw)}"
            )
        makes = code[:7].upper() == b"CREATE " or code[:5].upper() == b"DROP "
        if self.database is None and not makes:
            raise NotADump(
                f"line {piece.line}: it touches a database that it does not make:"
                f" {excerpt(piece.raw)}"
            )
        self.database = database
        if code[:5].upper() == b"DROP ":
            return StatementRoute.NOWHERE
        written = forms.ON_DATABASE.match(piece.raw)
        if written is None or decode_name(written[2]) != database:
            raise self._refusal(piece, "pg_dump writes it in another form")
        if forms.CREATE_DATABASE.fullmatch(code):
            return StatementRoute.BEFORE
        role = forms.ROLE_SETTING.fullmatch(code)
        if not self._own and (prefixed := forms.PREFIXED_SETTING.match(code)) is not None:
            prefix = (prefixed[2] or prefixed[3] or b"").decode("utf-8", "backslashreplace")
            sets = forms.DATABASE_LOADS.fullmatch(code) or forms.ROLE_SETTING.fullmatch(code)
            if not (sets and prefix) or forms.OF_LIBRARIES.fullmatch(prefix):
                raise self._refusal(
                    piece,
                    "a library's setting is a superuser's to make",
                    "take that line out of the script, restore it, and make the setting with psql"
                    " afterwards",
                )
            self.prefixes[prefix.lower()] = None
            return StatementRoute.AFTERWARDS
        if role is not None and not forms.DENIED_SETTING.match(role[1].strip(b'"')):
            return StatementRoute.AFTERWARDS
        if self._own and role is not None:
            return StatementRoute.AFTERWARDS
        if (
            forms.GRANT.fullmatch(code)
            or forms.OWNER.fullmatch(code)
            or forms.AFTERWARDS.fullmatch(code)
        ):
            return StatementRoute.AFTERWARDS
        if forms.DATABASE_LOADS.fullmatch(code) or (self._own and forms.OWN_MAKES.match(code)):
            return StatementRoute.AFTERWARDS if self._own else StatementRoute.LOAD
        raise self._refusal(piece)

    def _setting(self, piece: DumpPiece) -> None:
        found = forms.SETTING.fullmatch(piece.code)
        assert found is not None  # the caller checked it
        name = found[1].lower()
        if name not in forms.HARMLESS_SETTINGS:
            raise self._refusal(piece)
        value = re.sub(
            rb"[^A-Z0-9]",
            b"",
            re.split(rb"=|\b(?:TO|to|To|tO)\b", piece.raw, maxsplit=1)[-1].upper(),
        )
        if name == b"standard_conforming_strings" and value not in (b"ON", b"TRUE", b"1", b"YES"):
            raise NotADump(
                f"line {piece.line}: it turns standard_conforming_strings off; make the dump from a"
                " server that has it on"
            )
        if (
            name == b"default_tablespace"
            and self._own
            and (place := forms.TABLESPACE.fullmatch(piece.raw)) is not None
        ):
            self.tablespaces[place[1]] = None
        if name == b"client_encoding" and not forms.SAFE_ENCODINGS.fullmatch(value):
            cause = (
                f"it is encoded in {excerpt(value)}, in which a letter may hold a backslash; make"
                " it with -E UTF8"
            )
            raise NotADump(f"line {piece.line}: {cause}")

    def _extension(self, piece: DumpPiece, name: str) -> StatementRoute:
        if self._own:
            if forms.REACHES_OUT.fullmatch(name) or name == "timescaledb":
                self._note(piece)
            return StatementRoute.BEFORE  # a superuser allowed it
        if name in forms.SUPERUSERS_EXTENSIONS:
            return StatementRoute.BEFORE
        if forms.REACHES_OUT.fullmatch(name):
            raise self._refusal(piece, "that extension reaches outside of the database")
        return StatementRoute.LOAD

    def _function(self, piece: DumpPiece) -> None:
        head = forms.OWN_FUNCTION.match(piece.code) if self._own else None
        if head is not None and (
            head["alone"]
            or forms.UNTRUSTED.fullmatch(decode_name(head["language"]).lower())
            or any(
                forms.SUPERUSERS_SETTING.fullmatch(name)
                for name in forms.SETS.findall(head["sets"])
            )
        ):
            self._note(piece)
        for found in forms.LANGUAGE.finditer(piece.code) if not self._own else ():
            language = decode_name(found[1]).lower()
            if forms.UNTRUSTED.fullmatch(language):
                raise self._refusal(
                    piece,
                    "a function in such a language has the rights of the server's own process",
                )
        self._follow(piece)

    def _follow(self, piece: DumpPiece) -> None:
        """Count the nesting depth as psql does (psqlscan.l: begin_depth).

        psql does not take a semicolon within a body for the end of a statement.
        """
        within, parentheses, previous = self._body > 0, 0, b""
        for found in forms.IN_FUNCTION.finditer(piece.code):
            word = found[0].lower()
            if word in (b"(", b")"):
                parentheses = parentheses + 1 if word == b"(" else max(parentheses - 1, 0)
            elif not parentheses:
                if previous == b"begin" and word != b"atomic":
                    raise self._refusal(piece, "psql may not agree where it ends")
                if word == b"begin" or (word == b"case" and self._body):
                    self._body += 1
                elif word == b"end":
                    self._body = max(self._body - 1, 0)
                previous = word
        ends = piece.code.upper() == b"END;"
        if previous == b"begin" or (within and ends != (not self._body)):
            raise self._refusal(piece, "psql may not agree where it ends")

    def _refusal(
        self,
        piece: DumpPiece,
        why: str = "no dump of one database needs it",
        next_step: str | None = None,
    ) -> NotADump:
        system = (
            "it changes the server itself, "
            if re.match(rb"ALTER SYSTEM|UPDATE pg_catalog", piece.code, re.IGNORECASE)
            else ""
        )
        return NotADump(f"line {piece.line}: {system}{why}: {excerpt(piece.raw)}", next_step)
