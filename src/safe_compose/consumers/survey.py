"""Everything about a change of a password before it is made: who takes it, what every file becomes, and why it cannot be; and
afterwards whether everything followed, and nothing else."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from safe_compose import composefile, dotenv, dsn
from safe_compose.consumers.account import (
    VARIABLES,
    Account,
    String,
    environment,
    kind_of,
    mounted_files,
    serves,
    services,
    strings,
)
from safe_compose.consumers.files import Edit, Pen, Source
from safe_compose.consumers.search import Search

_REFERENCE = re.compile(r"(?<!\$)(?:\$\$)*\$(?:\{(?P<braced>\w+)(?P<rest>[^{}]*)\}|(?P<plain>\w+))")


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
    search = Search(account, model, own)
    values = {e.key: e.value for s in sources if s.kind == "env" for e in dotenv.entries(s.text)} | dict(exported)
    pen = Pen(search, new, leave, frozenset(name for name, value in values.items() if value))
    refusals, edits = pen.refusals, []
    for source in sources:
        if source.path in leave:
            continue
        try:
            edits.append(pen.edited(source))
        except composefile.Unreadable as fault:
            refusals.append(f"{source.path} is no YAML ({fault})")
    made = tuple(edit for edit in edits if edit is not None)
    takers = _takers(model, search, [e.source.path for e in made])
    refusals += _exported(sources, search, exported, leave)
    composed = [
        s for s in strings(services(model)) if s.value not in pen.literal and search.held_in(s) and s.value != account.password
    ]
    if composed and not dsn.PLAIN.fullmatch(new):
        where = ", ".join(f"{s.path[0]}: {'.'.join(s.path[1:])}" for s in composed[:3])
        refusals.append(
            f"compose puts the password unencoded into {where}: there only letters, digits and _ . ~ - are safe; "
            "choose such a password, or let one be generated"
        )
    others = [
        name
        for name, body in services(model).items()
        if name != account.service and serves(body) and _server_of_its_own(body, account)
    ]
    refusals += [f"database {name} takes the same password from the same place; give it one of its own first" for name in others]
    refusals += _shared(model, raw, account, own, leave)
    if not made and not account.password:
        refusals.append(f"nothing says what the password of {account.user} is")
    elif not made and takers:
        refusals.append(f"no file of this project that could be edited holds the password of {account.user}")
    notes = [*pen.notes]
    if not search.distinctive:
        notes.append("the old password is short or a common word: it was looked for in connection strings and password keys alone")
    mounted = tuple(dict.fromkeys(s for e in made for s in e.source.services))
    return Survey(made, takers, tuple(dict.fromkeys(refusals)), tuple(notes), mounted, tuple(sorted(leave)))


def _shared(
    model: Mapping[str, Any], raw: Mapping[str, Any] | None, account: Account, own: frozenset[str], leave: frozenset[str]
) -> Iterator[str]:
    """Other accounts of the same server that have the same password: theirs would not change in the database."""
    told = environment(services(model).get(account.service) or {})
    written = environment(services(raw or {}).get(account.service) or {})
    for role_key, key, default in VARIABLES[account.kind]:
        role = told.get(role_key) or default
        if role and role != account.user and told.get(key) == account.password:
            same_place = bool({m["braced"] or m["plain"] for m in _REFERENCE.finditer(written.get(key, ""))} & own)
            if same_place or key not in leave:
                yield f"service {account.service}: {key} of account {role} has the same value: give it one of its own first"


def own_names(raw: Mapping[str, Any] | None, account: Account) -> frozenset[str]:
    """Variables that the service's own password is made of, by the model without interpolation."""
    names = set(account.variables)
    for key, value in environment(services(raw or {}).get(account.service) or {}).items():
        if key in account.variables:
            names |= {m["braced"] or m["plain"] for m in _REFERENCE.finditer(value)}
    return frozenset(names)


def _server_of_its_own(body: Mapping[str, Any], account: Account) -> bool:
    told = environment(body)
    keys = [key for _, key, _ in VARIABLES[kind_of(body) or account.kind]]
    return any(told.get(key) == account.password for key in keys)


def _takers(model: Mapping[str, Any], search: Search, files: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for s in strings(services(model)):
        if search.held_in(s):
            found.setdefault(s.path[0], []).append(".".join(s.path[1:]))
    for service in services(model):
        found.setdefault(service, []).extend(file for file, _ in mounted_files(model, service) if file in files)
    return {service: tuple(places) for service, places in found.items() if places}


def _exported(sources: Sequence[Source], search: Search, exported: Mapping[str, str], leave: frozenset[str]) -> Iterator[str]:
    """Variables of the shell that hold the password: they win over every file."""
    text = "\n".join(s.text for s in sources if s.kind in ("compose", "env", "env_file"))
    for name, value in exported.items():
        holds = value == search.account.password or bool(search.places(value))
        if holds and name not in leave and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            yield (
                f"{name} is exported in this shell with the password, and that wins over every file: unset it (and set it anew "
                "where it comes from)"
            )


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
    search = Search(account, before, own | frozenset(account.variables))
    wrong = []
    for old, now in zip_longest(strings(before), strings(after)):
        if old is None or now is None or old.path != now.path:
            wrong.append(f"{'.'.join((old or now).path)} came or went")
            break
        place = ".".join(old.path)
        if old.value == now.value:
            if old.path[:1] != ("services",):
                continue  # `x-...` is only read by what merges it
            held = search.held_in(String(old.path[1:], old.value))
            if not leave and held and (old.value != account.password or search.is_ours(old.path[-1])):
                wrong.append(f"{place} still has the old password")
        elif not _became(old.value, now.value, search, new):
            wrong.append(f"{place} changed, and not from the old password to the new one")
    return wrong


def _became(old: str, now: str, search: Search, new: str) -> bool:
    """Whether `now` is `old` with the new password in the place of the old one."""
    if old == search.account.password:
        return now == new
    places = search.places(old)
    if not places:
        return now == old.replace(search.account.password, new)
    found = [f for f in dsn.passwords(now) if f.password == new]
    return dsn.without(old, places, "\0") == dsn.without(now, found, "\0")
