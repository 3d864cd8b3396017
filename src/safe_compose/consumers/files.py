"""The texts of a project's files with the new password in the place of the old one, each in its own way of writing."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from safe_compose import composefile, dotenv, dsn
from safe_compose.consumers.search import Search

_DEFAULT = re.compile(r"(?<!\$)(?:\$\$)*\$\{(?P<name>\w+):?-(?P<default>[^${}]*)\}")
_USERLIST = re.compile(r'^[ \t]*"(?P<user>(?:[^"]|"")*)"[ \t]+"(?P<secret>(?:[^"]|"")*)"', re.MULTILINE)
_PGPASS = re.compile(
    r"^(?P<host>(?:[^:\\\n]|\\.)*):(?:(?:[^:\\\n]|\\.)*:){2}(?P<user>(?:[^:\\\n]|\\.)*):(?P<secret>(?:[^\n\\]|\\.)*)$", re.M
)


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the project, as it is on the disk."""

    path: str
    kind: str
    """`compose`, `env` (interpolation), `env_file`, `env_file raw`, `file` (mounted: a secret, a userlist, a configuration)."""
    text: str = field(repr=False)
    services: tuple[str, ...] = ()
    """Who mounts it."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One file with the new password in the place of the old one."""

    source: Source
    text: str = field(repr=False)
    places: tuple[str, ...]
    """`DB_PASSWORD (line 3)`"""


@dataclass(frozen=True)
class Pen:
    """Writes one new password, and gathers what keeps it from being written."""

    search: Search
    new: str = field(repr=False)
    leave: frozenset[str] = frozenset()
    """Keys that stay as they are."""
    given: frozenset[str] = frozenset()
    """Variables that have a value somewhere: a default for them does not count."""
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    literal: set[str] = field(default_factory=set, repr=False)
    """Whole values that are rewritten where they stand, not put together by interpolation."""

    def edited(self, source: Source) -> Edit | None:
        """The file as it must be; None where nothing of it changes. Raises composefile.Unreadable."""
        ways = {"compose": self._compose_file, "env": self._env_file, "env_file": self._env_file, "env_file raw": self._env_file}
        edit = ways.get(source.kind, self._plain_file)(source)
        return edit if edit is not None and edit.places else None

    def _value(self, key: str, value: str, where: str, *, dollars: bool) -> str | None:
        """The value with the new password, or None where it stays. `dollars`: a `$` of it has to be doubled."""
        if key in self.leave:
            return None
        escape: Callable[[str], str] = (lambda text: text.replace("$", "$$")) if dollars else lambda text: text
        if value == escape(self.search.account.password):
            ours = self.search.is_ours(key)
            if ours is None:
                self.refusals.append(
                    f"{where}: {key} has the same value, and its name does not tell whether it is this account's: --also {key} "
                    f"changes it too, --leave {key} leaves it"
                )
            return escape(self.new) if ours else None
        places = self.search.places(value, doubled=dollars)
        try:
            for found in reversed(places):
                value = value[: found.start] + escape(dsn.encode(found, self.new)) + value[found.end :]
        except dsn.Unwritable as fault:
            self.refusals.append(f"{where}: {key}: the new password cannot be written there: {fault}")
            return None
        if places:
            return value
        counts = self._without_defaults(value, where)
        if self.search.mentioned(counts) and not self.search.elsewhere(counts):
            self.refusals.append(
                f"{where}: {key} holds the password in a form that cannot be parsed: change it by hand, with --leave {key}"
            )
        return None

    def _defaults(self, value: str) -> Iterator[re.Match[str]]:
        """`${NAME:-default}` with the old password for a default, the last first."""
        return reversed([m for m in _DEFAULT.finditer(value) if m["default"] == self.search.account.password])

    def _without_defaults(self, value: str, where: str) -> str:
        """A value without those defaults that do not count; that they keep the old password is noted."""
        for m in self._defaults(value):
            if m["name"] in self.given:
                value = value[: m.start("default")] + value[m.end("default") :]
                self.notes.append(f"{where}: the default of {m['name']}, which does not count, stays the old password")
        return value

    def _with_defaults(self, key: str, value: str) -> str | None:
        """A value with the new password in those defaults that count, alone or in a connection string; None without any."""
        edited = value
        for m in self._defaults(value):
            if m["name"] not in self.given and (self.search.is_ours(m["name"]) or self.search.is_ours(key)):
                edited = edited[: m.start("default")] + self.new.replace("$", "$$") + edited[m.end("default") :]
        return edited if edited != value else None

    def _env_file(self, source: Source) -> Edit:
        values: dict[dotenv.Entry, str] = {}
        for entry in dotenv.entries(source.text, raw=source.kind == "env_file raw"):
            where = f"{source.path}, line {entry.line}"
            value = self._value(entry.key, entry.value, where, dollars=False)
            if value is None:
                continue
            try:
                dotenv.written(entry, value)
            except dotenv.Unwritable as fault:
                self.refusals.append(f"{where}: {entry.key}: the new password cannot be written there: {fault}")
                continue
            values[entry] = value
            self.literal.add(entry.value)
        return Edit(source, dotenv.replaced(source.text, values), tuple(f"{e.key} (line {e.line})" for e in values))

    def _compose_file(self, source: Source) -> Edit:
        values: dict[composefile.Scalar, str] = {}
        for scalar in composefile.scalars(source.text):
            where = f"{source.path}, line {scalar.line}"
            before, key, held = "", scalar.path[-1] if scalar.path else "", scalar.value
            if pair := re.match(r"([A-Za-z_]\w*)=", held):  # `- KEY=value`
                before, key, held = pair[0], pair[1], held[pair.end() :]
            if key in self.leave:
                continue
            if scalar.anchored and (held == self.search.account.password or self.search.places(held)):
                self.refusals.append(
                    f"{where}: {key} has a name of its own (&), so it stands for several: change it, with --leave {key}"
                )
                continue
            value = self._with_defaults(key, held) or self._value(key, held, where, dollars=True)
            if value is None:
                continue
            if not composefile.simple(source.text, scalar):
                self.refusals.append(
                    f"{where}: {key} is written over several lines or with escapes: change it by hand, with --leave {key}"
                )
                continue
            values[scalar] = before + value
            self.literal.add(held.replace("$$", "$"))
        places = tuple(f"{'.'.join(s.path)} (line {s.line})" for s in values)
        return Edit(source, composefile.replaced(source.text, values), places)

    def _plain_file(self, source: Source) -> Edit | None:
        """A file that a service mounts: the password alone, a pooler's list of users, a `.pgpass`, or connection strings."""
        text, account = source.text, self.search.account
        if (bare := text.rstrip("\r\n")) == account.password:
            if not self.search.distinctive and source.path != account.file:
                return None
            return Edit(source, self.new + text[len(bare) :], ("all of it",))
        ours = dict(self._listed(source))
        try:
            ours |= {(f.start, f.end): dsn.encode(f, self.new) for f in self.search.places(text)}
        except dsn.Unwritable as fault:
            self.refusals.append(f"{source.path}: the new password cannot be written there: {fault}")
            return None
        spans = {span: put for span, put in ours.items() if put is not None}
        rest = _put(text, dict.fromkeys(ours, ""))
        if self.search.mentioned(rest) and not self.search.elsewhere(rest):
            self.refusals.append(
                f"{source.path} holds the password in a form that cannot be parsed: change it by hand, with --leave {source.path}"
            )
        lines = sorted({_line(text, start) for start, _ in spans})
        return Edit(source, _put(text, spans), tuple(f"line {line}" for line in lines))

    def _listed(self, source: Source) -> Iterator[tuple[tuple[int, int], str | None]]:
        """Where a pooler's list of users or a `.pgpass` holds the password, and how the new one is written there; None where it
        is that of somebody else."""
        account = self.search.account
        for m in _USERLIST.finditer(source.text):
            ours, secret = m["user"].replace('""', '"') == account.user, m["secret"].replace('""', '"')
            if secret == account.password:
                yield m.span("secret"), self.new.replace('"', '""') if ours else None
            elif ours and secret.startswith(("SCRAM-SHA-256$", "md5")):
                self.refusals.append(
                    f"{source.path}, line {_line(source.text, m.start())}: a list of users holds a hash for {account.user}, which "
                    f"has to follow the server's: change it by hand afterwards, with --leave {source.path}"
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
