"""The texts of a project's files with a new password, each written in the syntax of its file."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from safe_compose.credentials import compose_yaml, dotenv, dsn
from safe_compose.credentials.search import Search

_DEFAULT = re.compile(r"(?<!\$)(?:\$\$)*\$\{(?P<name>\w+):?-(?P<default>[^${}]*)\}")
_USERLIST = re.compile(
    r'^[ \t]*"(?P<user>(?:[^"]|"")*)"[ \t]+"(?P<secret>(?:[^"]|"")*)"', re.MULTILINE
)
_PGPASS = re.compile(
    r"^(?P<host>(?:[^:\\\n]|\\.)*):(?:(?:[^:\\\n]|\\.)*:){2}(?P<user>(?:[^:\\\n]"
    r"|\\.)*):(?P<secret>(?:[^\n\\]|\\.)*)$",
    re.M,
)


@dataclass(frozen=True, slots=True)
class CredentialFile:
    """One file of the project, as it is on the disk."""

    path: str
    kind: str
    """`compose`, `env` (interpolation), `env_file`, `env_file raw` or `file` (mounted: a secret, a
    userlist, a configuration).
    """
    text: str = field(repr=False)
    services: tuple[str, ...] = ()
    """Services that mount the file."""


@dataclass(frozen=True, slots=True)
class FileEdit:
    """One file with the new password in place of the old one."""

    source: CredentialFile
    text: str = field(repr=False)
    places: tuple[str, ...]
    """Places for messages, such as `DB_PASSWORD (line 3)`."""


@dataclass(frozen=True)
class Rewriter:
    """A writer of one new password, which collects the reasons why it cannot be written."""

    search: Search
    new: str = field(repr=False)
    leave: frozenset[str] = frozenset()
    """Keys that stay unchanged."""
    given: frozenset[str] = frozenset()
    """Variables that have a value somewhere, so that a default for them has no effect."""
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    literal: set[str] = field(default_factory=set, repr=False)
    """Whole values that are rewritten in their files and not composed by interpolation."""

    def edit(self, source: CredentialFile) -> FileEdit | None:
        """Return the edit of a file; None if nothing changes.

        Raises:
            compose_yaml.BadYaml: A compose file cannot be parsed.
        """
        methods = {
            "compose": self._compose_file,
            "env": self._env_file,
            "env_file": self._env_file,
            "env_file raw": self._env_file,
        }
        edit = methods.get(source.kind, self._plain_file)(source)
        return edit if edit is not None and edit.places else None

    def _value(self, key: str, value: str, where: str, *, dollars: bool) -> str | None:
        """Return the value with the new password; None if it stays unchanged.

        `dollars`: each `$` of the value has to be doubled.
        """
        if key in self.leave:
            return None
        escape: Callable[[str], str] = (
            (lambda text: text.replace("$", "$$")) if dollars else lambda text: text
        )
        if value == escape(self.search.account.password):
            ours = self.search.is_ours(key)
            if ours is None:
                self.refusals.append(
                    f"{where}: {key} has the same value, and its name does not tell whether it is"
                    f" this account's: --also {key} changes it too, --leave {key} leaves it"
                )
            return escape(self.new) if ours else None
        places = self.search.places(value, doubled=dollars)
        try:
            for found in reversed(places):
                value = (
                    value[: found.start] + escape(dsn.encode(found, self.new)) + value[found.end :]
                )
        except dsn.UnwritablePassword as fault:
            self.refusals.append(
                f"{where}: {key}: the new password cannot be written there: {fault}"
            )
            return None
        if places:
            return value
        counts = self._without_defaults(value, where)
        if self.search.mentions(counts) and not self.search.elsewhere(counts):
            self.refusals.append(
                f"{where}: {key} holds the password in a form that cannot be parsed: change it by"
                f" hand, with --leave {key}"
            )
        return None

    def _defaults(self, value: str) -> Iterator[re.Match[str]]:
        """Return each `${NAME:-default}` whose default is the old password, the last one first."""
        return reversed(
            [m for m in _DEFAULT.finditer(value) if m["default"] == self.search.account.password]
        )

    def _without_defaults(self, value: str, where: str) -> str:
        """Return a value without the defaults that have no effect.

        A note says that these keep the old password.
        """
        for m in self._defaults(value):
            if m["name"] in self.given:
                value = value[: m.start("default")] + value[m.end("default") :]
                self.notes.append(
                    f"{where}: the default of {m['name']}, which does not count, stays the old"
                    " password"
                )
        return value

    def _with_defaults(self, key: str, value: str) -> str | None:
        """Return a value with the new password in its effective defaults; None if there are none.

        A default may be the password itself or a part of a connection string.
        """
        edited = value
        for m in self._defaults(value):
            if m["name"] not in self.given and (
                self.search.is_ours(m["name"]) or self.search.is_ours(key)
            ):
                edited = (
                    edited[: m.start("default")]
                    + self.new.replace("$", "$$")
                    + edited[m.end("default") :]
                )
        return edited if edited != value else None

    def _env_file(self, source: CredentialFile) -> FileEdit:
        values: dict[dotenv.Assignment, str] = {}
        for entry in dotenv.entries(source.text, raw=source.kind == "env_file raw"):
            where = f"{source.path}, line {entry.line}"
            value = self._value(entry.key, entry.value, where, dollars=False)
            if value is None:
                continue
            try:
                dotenv.write_value(entry, value)
            except dotenv.Unquotable as fault:
                self.refusals.append(
                    f"{where}: {entry.key}: the new password cannot be written there: {fault}"
                )
                continue
            values[entry] = value
            self.literal.add(entry.value)
        return FileEdit(
            source,
            dotenv.replace_values(source.text, values),
            tuple(f"{e.key} (line {e.line})" for e in values),
        )

    def _compose_file(self, source: CredentialFile) -> FileEdit:
        values: dict[compose_yaml.Scalar, str] = {}
        for scalar in compose_yaml.scalars(source.text):
            where = f"{source.path}, line {scalar.line}"
            before, key, held = "", scalar.path[-1] if scalar.path else "", scalar.value
            if pair := re.match(r"([A-Za-z_]\w*)=", held):  # `- KEY=value`
                before, key, held = pair[0], pair[1], held[pair.end() :]
            if key in self.leave:
                continue
            if scalar.anchored and (
                held == self.search.account.password or self.search.places(held)
            ):
                self.refusals.append(
                    f"{where}: {key} has a name of its own (&), so it stands for several: change"
                    f" it, with --leave {key}"
                )
                continue
            value = self._with_defaults(key, held) or self._value(key, held, where, dollars=True)
            if value is None:
                continue
            if not compose_yaml.is_simple(source.text, scalar):
                self.refusals.append(
                    f"{where}: {key} is written over several lines or with escapes: change it by"
                    f" hand, with --leave {key}"
                )
                continue
            values[scalar] = before + value
            self.literal.add(held.replace("$$", "$"))
        places = tuple(f"{'.'.join(s.path)} (line {s.line})" for s in values)
        return FileEdit(source, compose_yaml.replace_scalars(source.text, values), places)

    def _plain_file(self, source: CredentialFile) -> FileEdit | None:
        """Return the edit of a file that a service mounts; None if nothing in it changes.

        The file is the password alone, a pooler's list of users, a `.pgpass`, or holds connection
        strings.
        """
        text, account = source.text, self.search.account
        if (bare := text.rstrip("\r\n")) == account.password:
            if not self.search.distinctive and source.path != account.file:
                return None
            return FileEdit(source, self.new + text[len(bare) :], ("all of it",))
        ours = dict(self._find_listed(source))
        try:
            ours |= {(f.start, f.end): dsn.encode(f, self.new) for f in self.search.places(text)}
        except dsn.UnwritablePassword as fault:
            self.refusals.append(
                f"{source.path}: the new password cannot be written there: {fault}"
            )
            return None
        spans = {span: put for span, put in ours.items() if put is not None}
        rest = _put(text, dict.fromkeys(ours, ""))
        if self.search.mentions(rest) and not self.search.elsewhere(rest):
            self.refusals.append(
                f"{source.path} holds the password in a form that cannot be parsed: change it by"
                f" hand, with --leave {source.path}"
            )
        lines = sorted({_line(text, start) for start, _ in spans})
        return FileEdit(source, _put(text, spans), tuple(f"line {line}" for line in lines))

    def _find_listed(self, source: CredentialFile) -> Iterator[tuple[tuple[int, int], str | None]]:
        """Yield where a pooler's list of users or a `.pgpass` holds the password, and the new text.

        The text is None if the entry belongs to another account.
        """
        account = self.search.account
        for m in _USERLIST.finditer(source.text):
            ours, secret = (
                m["user"].replace('""', '"') == account.user,
                m["secret"].replace('""', '"'),
            )
            if secret == account.password:
                yield m.span("secret"), self.new.replace('"', '""') if ours else None
            elif ours and secret.startswith(("SCRAM-SHA-256$", "md5")):
                self.refusals.append(
                    f"{source.path}, line {_line(source.text, m.start())}: a list of users holds a"
                    f" hash for {account.user}, which has to follow the server's: change it by hand"
                    f" afterwards, with --leave {source.path}"
                )
        if "pgpass" in source.path.rpartition("/")[2]:
            for m in _PGPASS.finditer(source.text):
                if re.sub(r"\\(.)", r"\1", m["secret"]) == account.password:
                    ours = m["user"] in ("*", account.user)
                    yield m.span("secret"), re.sub(r"([:\\])", r"\\\1", self.new) if ours else None


def _line(text: str, start: int) -> int:
    return text.count("\n", 0, start) + 1


def _put(text: str, spans: dict[tuple[int, int], str]) -> str:
    for (start, end), put in sorted(spans.items(), reverse=True):
        text = text[:start] + put + text[end:]
    return text
