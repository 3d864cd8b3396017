"""Who holds a database's password: found in what compose says of a project and in the project's files, and rewritten there.

The model (`docker compose config`) tells the truth about what services get; the raw files tell where it is written. Nothing of
a password reaches a message: places are named by file, line and key.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple
from urllib.parse import quote

from safe_compose import composefile, dotenv, dsn

_IMAGES = {
    "postgres": re.compile(r"postgres|postgis|timescale|pgvector|pgrouting|citus|cloudnative-pg"),
    "mysql": re.compile(r"mysql|mariadb|percona"),
}
_VARIABLES = {
    "postgres": (("POSTGRES_USER", "POSTGRES_PASSWORD", "postgres"),),
    "mysql": (
        ("MARIADB_ROOT_USER", "MARIADB_ROOT_PASSWORD", "root"),
        ("MYSQL_ROOT_USER", "MYSQL_ROOT_PASSWORD", "root"),
        ("MARIADB_USER", "MARIADB_PASSWORD", ""),
        ("MYSQL_USER", "MYSQL_PASSWORD", ""),
    ),
}
"""Kind -> (variable of the role, variable of its password, the role where that variable is not set), by the official images."""
_LOOKS_SECRET = re.compile(r"pass|pwd|secret", re.IGNORECASE)
_LOOKS_LIKE_A_DATABASE = re.compile(r"pg|postgres|db|database|sql|maria", re.IGNORECASE)
_REFERENCE = re.compile(r"(?<!\$)(?:\$\$)*\$(?:\{(?P<braced>\w+)(?P<rest>[^{}]*)\}|(?P<plain>\w+))")
_DEFAULT = re.compile(r"(?<!\$)(?:\$\$)*\$\{(?P<name>\w+):?-(?P<default>[^${}]*)\}")
_COMMON = frozenset({"postgres", "root", "admin", "password", "secret", "mysql", "mariadb", "app", "test", "user", "db"})
LONG_ENOUGH = 6
"""Characters from which on a password is looked for in free text."""


@dataclass(frozen=True, slots=True)
class Account:
    """The role whose password changes, as the project's files know it."""

    service: str
    kind: str
    """`postgres` or `mysql`."""
    user: str
    password: str = field(repr=False)
    """What the files hold now."""
    variables: tuple[str, ...] = ()
    """Keys in the service's own environment that hold it."""
    file: str | None = None
    """Or the file that holds it (`POSTGRES_PASSWORD_FILE`), on this machine."""


class Unfit(ValueError):
    """The account cannot be told from the model; the message says why, without any value."""


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


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that was found out before anything changes."""

    edits: tuple[Edit, ...]
    takers: Mapping[str, tuple[str, ...]]
    """Service -> what of it holds the password: `environment.DATABASE_URL`, a file."""
    refusals: tuple[str, ...]
    """Why nothing may be changed."""
    notes: tuple[str, ...]
    mounted: tuple[str, ...] = ()
    """Services that mount an edited file: they keep the old one until they are made anew."""
    left: tuple[str, ...] = ()
    """Keys and files that stay as they are, because a person said so."""


# -- the account -------------------------------------------------------------------------------------------------------


def kind_of(body: Mapping[str, Any]) -> str | None:
    """Whether a service of the model is a database server, by its image or by the variables that only its image reads."""
    image = str(body.get("image") or "").rpartition("/")[2].partition("@")[0].lower()
    if re.search(r"exporter|bouncer|pgadmin|adminer|backup|client|proxy", image):
        return None
    return next((kind for kind, pattern in _IMAGES.items() if pattern.search(image)), None)


def serves(body: Mapping[str, Any]) -> str | None:
    """The kind of a service that its image would make a server with a password; a client of the same image is told none."""
    kind = kind_of(body)
    told = environment(body)
    return kind if kind and any(told.get(name) for _, key, _ in _VARIABLES[kind] for name in (key, f"{key}_FILE")) else None


def environment(body: Mapping[str, Any]) -> dict[str, str]:
    """A service's environment as its containers get it: `config` doubles every dollar sign."""
    given = body.get("environment")
    return {k: str(v).replace("$$", "$") for k, v in given.items() if v is not None} if isinstance(given, dict) else {}


def account(model: Mapping[str, Any], service: str, user: str | None, read: Callable[[str], str | None]) -> Account:
    """The account of a service. `read` gives the text of a file of this machine. Raises Unfit."""
    body = _services(model).get(service)
    if body is None:
        there = ", ".join(name for name, b in _services(model).items() if serves(b)) or "none"
        raise Unfit(f"this project has no service {service}; database services of it: {there}")
    kind = kind_of(body)
    if kind is None:
        raise Unfit(f"service {service} is no PostgreSQL, MySQL or MariaDB server, as far as its image tells")
    told = environment(body)
    for role_key, key, default in _VARIABLES[kind]:
        role = told.get(role_key) or default
        if not role or (user is not None and user != role):
            continue
        names = tuple(k for r, k, d in _VARIABLES[kind] if k in told and (told.get(r) or d) == role)
        if len({told[name] for name in names}) > 1:
            raise Unfit(f"service {service}: {' and '.join(names)} differ")
        if told.get(key):
            if told.get(f"{key}_FILE"):
                raise Unfit(f"service {service} has {key} and {key}_FILE; its image takes only one of them")
            return Account(service, kind, role, told[key], names)
        if told.get(f"{key}_FILE"):
            path = file_of(model, service, told[f"{key}_FILE"])
            held = read(path) if path is not None else None
            if path is None or held is None:
                raise Unfit(f"service {service}: the file of {key}_FILE is none of this machine that could be read and edited")
            return Account(service, kind, role, held.rstrip("\r\n"), (), path)
    if user is None:
        raise Unfit(f"service {service} says no password: none of {', '.join(k for _, k, _ in _VARIABLES[kind])} is set")
    used = {f.password for s in _strings(model) for f in dsn.passwords(s.value) if f.user == user and f.host == service}
    if len(used) != 1:
        said = "several different passwords are" if used else "no password is"
        raise Unfit(f"{said} used for {user} at {service} in the connection strings of this project")
    return Account(service, kind, user, used.pop())


def file_of(model: Mapping[str, Any], service: str, inside: str) -> str | None:
    """The file of this machine that a service sees under a path; None for what no file of this machine is mounted at."""
    return next((file for file, place in mounted_files(model, service) if place == inside), None)


def mounted_files(model: Mapping[str, Any], service: str) -> Iterator[tuple[str, str]]:
    """(file on this machine, path inside) of a service's secrets, configurations and bind mounts."""
    body = _services(model).get(service) or {}
    for kind, folder in (("secrets", "/run/secrets"), ("configs", "")):
        declared = model.get(kind)
        for use in body.get(kind) or ():
            name = use if isinstance(use, str) else str(use.get("source", ""))
            target = str((use.get("target") if isinstance(use, dict) else None) or name)
            about = declared.get(name) if isinstance(declared, dict) else None
            if isinstance(about, dict) and about.get("file"):
                yield str(about["file"]), target if target.startswith("/") else f"{folder}/{target}"
    for mount in body.get("volumes") or ():
        if isinstance(mount, dict) and mount.get("type") == "bind":
            yield str(mount.get("source", "")), str(mount.get("target", ""))


# -- the model ---------------------------------------------------------------------------------------------------------


class _String(NamedTuple):
    path: tuple[str, ...]
    value: str


def _services(model: Mapping[str, Any]) -> dict[str, Any]:
    services = model.get("services")
    return {k: v for k, v in services.items() if isinstance(v, dict)} if isinstance(services, dict) else {}


def _strings(model: Any, path: tuple[str, ...] = ()) -> Iterator[_String]:
    """Every string of the model, with single dollar signs."""
    if isinstance(model, dict):
        for key, value in model.items():
            yield from _strings(value, (*path, str(key)))
    elif isinstance(model, list):
        for number, value in enumerate(model):
            yield from _strings(value, (*path, str(number)))
    elif isinstance(model, str):
        yield _String(path, model.replace("$$", "$"))


def strangers(model: Mapping[str, Any], account: Account) -> list[str]:
    """Connection strings of the project that log in to the account's server as its role with yet another password, by place."""
    known = hosts(model, account)
    return [
        ".".join(s.path)
        for s in _strings(_services(model))
        for f in dsn.passwords(s.value)
        if f.user == account.user and f.host in known and not f.means(account.password)
    ]


def stale(model: Mapping[str, Any], account: Account, service: str, told: Mapping[str, str]) -> bool:
    """Whether a container's environment holds another password than the model gives its service now."""
    search = _Search(account, model, frozenset(account.variables))
    now = environment(_services(model).get(service) or {})
    return any(told.get(k) != v for k, v in now.items() if _holds(_String((service, "environment", k), v), search))


def held_by(model: Mapping[str, Any], account: Account, told: Mapping[str, str]) -> list[str]:
    """Variables of some container's environment that hold the account's password, as far as they surely mean this server."""
    search = _Search(account, model, frozenset(account.variables))
    whole = [k for k, v in told.items() if v == account.password and search.distinctive and search.is_ours(k)]
    return [*whole, *(k for k, v in told.items() if v != account.password and search.strings(v))]


def hosts(model: Mapping[str, Any], account: Account) -> frozenset[str]:
    """Names under which the server may be meant: its own, poolers and proxies of the project, published ports. Not those of the
    project's other database servers."""
    names: set[str] = {"localhost", "127.0.0.1", "::1", "host.docker.internal"}
    others: set[str] = set()
    for service, body in _services(model).items():
        mine = {service, str(body.get("container_name") or service), str(body.get("hostname") or service)}
        networks = body.get("networks")
        for network in (networks or {}).values() if isinstance(networks, dict) else ():
            mine |= set(map(str, (network or {}).get("aliases") or ()))
        mine |= {f"{model.get('name', '')}-{service}-1"}
        (others if service != account.service and serves(body) else names).update(mine)
    return frozenset(names - (others - {account.service}))


# -- the survey --------------------------------------------------------------------------------------------------------


class _Search:
    """Where one account's password stands in a text, and what to make of it."""

    def __init__(self, account: Account, model: Mapping[str, Any], own: frozenset[str]) -> None:
        self.account = account
        self.own = own
        self._hosts = hosts(model, account)
        words = _COMMON | {account.user, account.service, str(model.get("name", "")), *_services(model)}
        self.distinctive = len(account.password) >= LONG_ENOUGH and account.password.lower() not in {w.lower() for w in words}

    def strings(self, text: str, *, doubled: bool = False) -> list[dsn.Found]:
        """Places of the password in connection strings that mean this account; with `doubled` dollar signs as in a compose file."""
        password = self.account.password
        return [
            f
            for f in dsn.passwords(text)
            if (f.means(password) or (doubled and f.means(password.replace("$", "$$"))))
            and f.user in (None, "", self.account.user)
            and (f.host in (None, "") or f.host in self._hosts or "$" in f.host)
        ]

    def mentioned(self, text: str) -> bool:
        """It stands in free text. Not asked of a password that is a common word."""
        encoded = quote(self.account.password, safe="-._~")
        return self.distinctive and (self.account.password in text or encoded in text)

    def elsewhere(self, text: str) -> bool:
        """It stands in connection strings of other accounts or servers, and nowhere else."""
        rest = text
        for f in sorted(dsn.passwords(text), reverse=True):
            if f.means(self.account.password):
                rest = rest[: f.start] + rest[f.end :]
        return rest != text and not self.mentioned(rest)

    def is_ours(self, key: str) -> bool | None:
        """Whether a key whose whole value is the password means this account's. None: nobody can tell."""
        if key in self.own or (_LOOKS_SECRET.search(key) and _LOOKS_LIKE_A_DATABASE.search(key)):
            return True
        return None if _LOOKS_SECRET.search(key) or self.distinctive else False


def survey(
    model: Mapping[str, Any],
    raw: Mapping[str, Any] | None,
    sources: Sequence[Source],
    account: Account,
    new: str,
    *,
    exported: Mapping[str, str],
    leave: frozenset[str] = frozenset(),
    also: frozenset[str] = frozenset(),
) -> Survey:
    """Who holds the password of `account`, and every file as it must be for `new`.

    `raw` is the model without interpolation, `exported` the environment that wins over `.env`. `leave` and `also` are keys and
    files that a person decided about.
    """
    own = own_names(raw, account) | also
    search = _Search(account, model, own)
    edits: list[Edit] = []
    refusals: list[str] = []
    notes: list[str] = []
    literal: set[str] = set()
    """Whole values that are rewritten where they stand, not put together by interpolation."""
    set_somewhere = {e.key for s in sources if s.kind == "env" for e in dotenv.entries(s.text)} | set(exported)
    for source in sources:
        if source.path in leave:
            continue
        rewrite = _OF_KIND.get(source.kind, _plain_file)
        try:
            edit = rewrite(source, search, new, refusals, literal, leave, set_somewhere)
        except composefile.Unreadable as fault:
            refusals.append(f"{source.path} is no YAML ({fault})")
            continue
        if edit is not None and edit.places:
            edits.append(edit)
    takers = _takers(model, search, [e.source.path for e in edits])
    _refuse_exported(sources, search, exported, leave, refusals)
    composed = [
        s for s in _strings(_services(model)) if s.value not in literal and _holds(s, search) and s.value != account.password
    ]
    if composed and not dsn.PLAIN.fullmatch(new):
        where = ", ".join(f"{s.path[0]}: {'.'.join(s.path[1:])}" for s in composed[:3])
        refusals.append(
            f"compose puts the password unencoded into {where}: there only letters, digits and _ . ~ - are safe; "
            "choose such a password, or let one be generated"
        )
    others = [
        name
        for name, body in _services(model).items()
        if name != account.service and serves(body) and _server_of_its_own(body, account)
    ]
    refusals += [f"database {name} takes the same password from the same place; give it one of its own first" for name in others]
    refusals += _shared(model, raw, account, own, leave)
    if not edits and not account.password:
        refusals.append(f"nothing says what the password of {account.user} is")
    elif not edits and takers:
        refusals.append(f"no file of this project that could be edited holds the password of {account.user}")
    if not search.distinctive:
        notes.append("the old password is short or a common word: it was looked for in connection strings and password keys alone")
    mounted = tuple(dict.fromkeys(s for e in edits for s in e.source.services))
    return Survey(tuple(edits), takers, tuple(dict.fromkeys(refusals)), tuple(notes), mounted, tuple(sorted(leave)))


def _shared(
    model: Mapping[str, Any], raw: Mapping[str, Any] | None, account: Account, own: frozenset[str], leave: frozenset[str]
) -> Iterator[str]:
    """Other accounts of the same server that have the same password: theirs would not change in the database."""
    told = environment(_services(model).get(account.service) or {})
    written = environment(_services(raw or {}).get(account.service) or {})
    for role_key, key, default in _VARIABLES[account.kind]:
        role = told.get(role_key) or default
        if role and role != account.user and told.get(key) == account.password:
            same_place = bool({m["braced"] or m["plain"] for m in _REFERENCE.finditer(written.get(key, ""))} & own)
            if same_place or key not in leave:
                yield f"service {account.service}: {key} of account {role} has the same value: give it one of its own first"


def own_names(raw: Mapping[str, Any] | None, account: Account) -> frozenset[str]:
    """Variables that the service's own password is made of, by the model without interpolation."""
    names = set(account.variables)
    for key, value in environment(_services(raw or {}).get(account.service) or {}).items():
        if key in account.variables:
            names |= {m["braced"] or m["plain"] for m in _REFERENCE.finditer(value)}
    return frozenset(names)


def _server_of_its_own(body: Mapping[str, Any], account: Account) -> bool:
    told = environment(body)
    keys = [key for _, key, _ in _VARIABLES[kind_of(body) or account.kind]]
    return any(told.get(key) == account.password for key in keys)


def _takers(model: Mapping[str, Any], search: _Search, files: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for s in _strings(_services(model)):
        if _holds(s, search):
            found.setdefault(s.path[0], []).append(".".join(s.path[1:]))
    for service in _services(model):
        found.setdefault(service, []).extend(file for file, _ in mounted_files(model, service) if file in files)
    return {service: tuple(places) for service, places in found.items() if places}


def _holds(s: _String, search: _Search) -> bool:
    """A string of a service that holds this account's password."""
    if s.value == search.account.password:
        return s.path[1:2] == ("environment",) and search.is_ours(s.path[-1]) is not False
    return bool(search.strings(s.value)) or (search.mentioned(s.value) and not search.elsewhere(s.value))


def _refuse_exported(
    sources: Sequence[Source], search: _Search, exported: Mapping[str, str], leave: frozenset[str], refusals: list[str]
) -> None:
    text = "\n".join(s.text for s in sources if s.kind in ("compose", "env", "env_file"))
    for name, value in exported.items():
        holds = value == search.account.password or bool(search.strings(value))
        if holds and name not in leave and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            refusals.append(
                f"{name} is exported in this shell with the password, and that wins over every file: unset it (and set it anew "
                "where it comes from)"
            )


# -- files -------------------------------------------------------------------------------------------------------------


def _in_value(
    key: str, value: str, where: str, search: _Search, new: str, refusals: list[str], leave: frozenset[str], *, dollars: bool
) -> str | None:
    """The value with the new password, or None where it stays. `dollars`: a `$` of it has to be doubled."""
    if key in leave:
        return None
    escape: Callable[[str], str] = (lambda text: text.replace("$", "$$")) if dollars else lambda text: text
    if value == escape(search.account.password):
        ours = search.is_ours(key)
        if ours is None:
            refusals.append(
                f"{where}: {key} has the same value, and its name does not tell whether it is this account's: --also {key} changes "
                f"it too, --leave {key} leaves it"
            )
        return escape(new) if ours else None
    places = search.strings(value, doubled=dollars)
    try:
        for found in reversed(places):
            value = value[: found.start] + escape(dsn.encode(found, new)) + value[found.end :]
    except dsn.Unwritable as fault:
        refusals.append(f"{where}: {key}: the new password cannot be written there: {fault}")
        return None
    if places:
        return value
    if search.mentioned(value) and not search.elsewhere(value):
        refusals.append(f"{where}: {key} holds the password in a form that cannot be parsed: change it by hand, with --leave {key}")
    return None


def _env_file(
    source: Source,
    search: _Search,
    new: str,
    refusals: list[str],
    literal: set[str],
    leave: frozenset[str],
    _: set[str],
) -> Edit:
    values: dict[dotenv.Entry, str] = {}
    for entry in dotenv.entries(source.text, raw=source.kind == "env_file raw"):
        where = f"{source.path}, line {entry.line}"
        value = _in_value(entry.key, entry.value, where, search, new, refusals, leave, dollars=False)
        if value is None:
            continue
        try:
            dotenv.written(entry, value)
        except dotenv.Unwritable as fault:
            refusals.append(f"{where}: {entry.key}: the new password cannot be written there: {fault}")
            continue
        values[entry] = value
        literal.add(entry.value)
    places = tuple(f"{e.key} (line {e.line})" for e in values)
    return Edit(source, dotenv.replaced(source.text, values), places)


def _compose_file(
    source: Source,
    search: _Search,
    new: str,
    refusals: list[str],
    literal: set[str],
    leave: frozenset[str],
    set_somewhere: set[str],
) -> Edit:
    values: dict[composefile.Scalar, str] = {}
    for scalar in composefile.scalars(source.text):
        where = f"{source.path}, line {scalar.line}"
        before, key, held = "", scalar.path[-1] if scalar.path else "", scalar.value
        if pair := re.match(r"([A-Za-z_]\w*)=", held):  # `- KEY=value`
            before, key, held = pair[0], pair[1], held[pair.end() :]
        if scalar.anchored and (held == search.account.password or search.strings(held)) and key not in leave:
            refusals.append(f"{where}: {key} has a name of its own (&), so it stands for several: change it, with --leave {key}")
            continue
        value = _in_value(key, held, where, search, new, refusals, leave, dollars=True)
        if value is None and key not in leave:
            value = _with_defaults(key, held, search, new, set_somewhere)
        if value is None:
            continue
        if not composefile.simple(source.text, scalar):
            refusals.append(f"{where}: {key} is written over several lines or with escapes: change it by hand, with --leave {key}")
            continue
        values[scalar] = before + value
        literal.add(held.replace("$$", "$"))
    places = tuple(f"{'.'.join(s.path)} (line {s.line})" for s in values)
    return Edit(source, composefile.replaced(source.text, values), places)


def _with_defaults(key: str, value: str, search: _Search, new: str, set_somewhere: set[str]) -> str | None:
    """A default that counts, `${DB_PASSWORD:-old}`, alone or in a connection string."""
    found = [
        m
        for m in _DEFAULT.finditer(value)
        if m["default"] == search.account.password
        and m["name"] not in set_somewhere
        and (search.is_ours(m["name"]) or search.is_ours(key))
    ]
    for m in reversed(found):
        value = value[: m.start("default")] + new.replace("$", "$$") + value[m.end("default") :]
    return value if found else None


_USERLIST = re.compile(r'^[ \t]*"(?P<user>(?:[^"]|"")*)"[ \t]+"(?P<secret>(?:[^"]|"")*)"', re.MULTILINE)
_PGPASS = re.compile(
    r"^(?P<host>(?:[^:\\\n]|\\.)*):(?:(?:[^:\\\n]|\\.)*:){2}(?P<user>(?:[^:\\\n]|\\.)*):(?P<secret>(?:[^\n\\]|\\.)*)$", re.M
)


def _plain_file(
    source: Source,
    search: _Search,
    new: str,
    refusals: list[str],
    literal: set[str],
    leave: frozenset[str],
    _: set[str],
) -> Edit | None:
    """A file that a service mounts: the password alone, a pooler's list of users, a `.pgpass`, or connection strings."""
    text, account = source.text, search.account
    if text.rstrip("\r\n") == account.password:
        if not search.distinctive and source.path != account.file:
            return None
        return Edit(source, new + text[len(text.rstrip("\r\n")) :], ("all of it",))
    spans: dict[tuple[int, int], str] = {}
    for m in _USERLIST.finditer(text):
        if m["user"].replace('""', '"') != account.user:
            continue
        secret = m["secret"].replace('""', '"')
        if secret == account.password:
            spans[m.span("secret")] = new.replace('"', '""')
        elif secret.startswith(("SCRAM-SHA-256$", "md5")):
            line = text.count("\n", 0, m.start()) + 1
            refusals.append(
                f"{source.path}, line {line}: a list of users holds a hash for {account.user}, which has to follow the server's: "
                f"change it by hand afterwards, with --leave {source.path}"
            )
    if "pgpass" in source.path.rpartition("/")[2]:
        for m in _PGPASS.finditer(text):
            if re.sub(r"\\(.)", r"\1", m["secret"]) == account.password and m["user"] in ("*", account.user):
                spans[m.span("secret")] = re.sub(r"([:\\])", r"\\\1", new)
    try:
        spans |= {(f.start, f.end): dsn.encode(f, new) for f in search.strings(text)}
    except dsn.Unwritable as fault:
        refusals.append(f"{source.path}: the new password cannot be written there: {fault}")
        return None
    edited, rest = text, text
    for (start, end), put in sorted(spans.items(), reverse=True):
        edited = edited[:start] + put + edited[end:]
        rest = rest[:start] + rest[end:]
    if search.mentioned(rest) and not search.elsewhere(rest):
        refusals.append(
            f"{source.path} holds the password in a form that cannot be parsed: change it by hand, with --leave {source.path}"
        )
    lines = sorted({text.count("\n", 0, start) + 1 for start, _ in spans})
    return Edit(source, edited, tuple(f"line {line}" for line in lines))


_OF_KIND = {"compose": _compose_file, "env": _env_file, "env_file": _env_file, "env_file raw": _env_file}


# -- proof -------------------------------------------------------------------------------------------------------------


def differences(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    account: Account,
    new: str,
    own: frozenset[str],
    *,
    leave: bool = False,
) -> list[str]:
    """What the edits did to the model that they should not have done, or did not do: empty when only passwords changed, and all.

    Each is named by its place, without any value. With `leave` some may keep the old password: a person said so.
    """
    search = _Search(account, before, own | frozenset(account.variables))
    wrong = []
    for old, now in zip_longest(_strings(before), _strings(after)):
        if old is None or now is None or old.path != now.path:
            wrong.append(f"{'.'.join((old or now).path)} came or went")
            break
        place = ".".join(old.path)
        if old.value == now.value:
            if old.path[:1] != ("services",):
                continue  # `x-...` is only read by what merges it
            held = _holds(_String(old.path[1:], old.value), search)
            if not leave and held and (old.value != account.password or search.is_ours(old.path[-1])):
                wrong.append(f"{place} still has the old password")
        elif not _became(old.value, now.value, search, new):
            wrong.append(f"{place} changed, and not from the old password to the new one")
    return wrong


def _became(old: str, now: str, search: _Search, new: str) -> bool:
    """Whether `now` is `old` with the new password in the place of the old one."""
    if old == search.account.password:
        return now == new
    places = search.strings(old)
    if not places:
        return now == old.replace(search.account.password, new)
    found = [f for f in dsn.passwords(now) if f.password == new]
    return _without(old, places) == _without(now, found)


def _without(text: str, places: Sequence[dsn.Found]) -> str:
    for found in reversed(places):
        text = text[: found.start] + "\0" + text[found.end :]
    return text
