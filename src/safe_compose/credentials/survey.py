"""The check of a password change, before it is made and afterwards.

Before, it lists who uses the password, how every file changes, and why the change is refused.
Afterwards it compares the models: everything must have followed, and nothing else changed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from safe_compose.credentials import compose_yaml, dotenv, dsn
from safe_compose.credentials.account import (
    VARIABLES,
    Account,
    ModelString,
    environment,
    find_kind,
    list_mounted_files,
    serves,
    services,
    strings,
)
from safe_compose.credentials.rewrite import CredentialFile, FileEdit, Rewriter
from safe_compose.credentials.search import Search

_REFERENCE = re.compile(r"(?<!\$)(?:\$\$)*\$(?:\{(?P<braced>\w+)(?P<rest>[^{}]*)\}|(?P<plain>\w+))")


@dataclass(frozen=True, slots=True)
class Survey:
    """The findings of the check before a password change."""

    edits: tuple[FileEdit, ...]
    takers: Mapping[str, tuple[str, ...]]
    """Places in each service that hold the password: `environment.DATABASE_URL`, a file."""
    refusals: tuple[str, ...]
    """Reasons to change nothing."""
    notes: tuple[str, ...]
    mounted: tuple[str, ...] = ()
    """Services that mount an edited file: they keep the old password until they are recreated."""
    left: tuple[str, ...] = ()
    """Keys and files that the user chose to leave unchanged."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The user's decisions about single keys and files."""

    leave: frozenset[str] = frozenset()
    """Keys and files that stay unchanged."""
    also: frozenset[str] = frozenset()
    """Keys that change although nothing shows that the password in them belongs to this account."""


NO_CHOICES = Choices()


def survey(
    model: Mapping[str, Any],
    raw: Mapping[str, Any] | None,
    sources: Sequence[CredentialFile],
    account: Account,
    new: str,
    *,
    exported: Mapping[str, str],
    choices: Choices = NO_CHOICES,
) -> Survey:
    """Find everything that holds the password of `account`, and compute every file for `new`.

    `raw` is the model without interpolation; `exported` is the environment, which overrides `.env`.
    """
    own, leave = own_names(raw, account) | choices.also, choices.leave
    search = Search(account, model, own)
    values = {
        e.key: e.value for s in sources if s.kind == "env" for e in dotenv.entries(s.text)
    } | dict(exported)
    pen = Rewriter(search, new, leave, frozenset(name for name, value in values.items() if value))
    refusals, edits = pen.refusals, []
    for source in sources:
        if source.path in leave:
            continue
        try:
            edits.append(pen.edit(source))
        except compose_yaml.BadYaml as fault:
            refusals.append(f"{source.path} is no YAML ({fault})")
    made = tuple(edit for edit in edits if edit is not None)
    takers = _takers(model, search, [e.source.path for e in made])
    refusals += _find_exported(sources, search, exported, leave)
    refusals += _explain_unencoded(model, search, pen, new)
    refusals += _databases_of_their_own(model, account)
    refusals += _find_shared(model, raw, account, own, leave)
    if not made and not account.password:
        refusals.append(f"nothing says what the password of {account.user} is")
    elif not made and takers:
        refusals.append(
            f"no file of this project that could be edited holds the password of {account.user}"
        )
    notes = [*pen.notes]
    if not search.distinctive:
        notes.append(
            "the old password is short or a common word: it was looked for in connection strings"
            " and password keys alone"
        )
    mounted = tuple(dict.fromkeys(s for e in made for s in e.source.services))
    return Survey(
        made, takers, tuple(dict.fromkeys(refusals)), tuple(notes), mounted, tuple(sorted(leave))
    )


def _explain_unencoded(
    model: Mapping[str, Any], search: Search, pen: Rewriter, new: str
) -> Iterator[str]:
    """Yield why a password cannot be used that compose itself puts into connection strings."""
    composed = [
        s
        for s in strings(services(model))
        if s.value not in pen.literal
        and search.is_held_in(s)
        and s.value != search.account.password
    ]
    if composed and not dsn.PLAIN.fullmatch(new):
        where = ", ".join(f"{s.path[0]}: {'.'.join(s.path[1:])}" for s in composed[:3])
        yield (
            f"compose puts the password unencoded into {where}: there only letters, digits and _ ."
            " ~ - are safe; choose such a password, or let one be generated"
        )


def _databases_of_their_own(model: Mapping[str, Any], account: Account) -> Iterator[str]:
    """Yield the other databases that take the same password from the same place."""
    for name, body in services(model).items():
        if name != account.service and serves(body) and _server_of_its_own(body, account):
            yield (
                f"database {name} takes the same password from the same place; give it one of its"
                " own first"
            )


def _find_shared(
    model: Mapping[str, Any],
    raw: Mapping[str, Any] | None,
    account: Account,
    own: frozenset[str],
    leave: frozenset[str],
) -> Iterator[str]:
    """Yield other accounts of the server that share the password.

    Theirs would not change in the database.
    """
    declared = environment(services(model).get(account.service) or {})
    written = environment(services(raw or {}).get(account.service) or {})
    for role_key, key, default in VARIABLES[account.kind]:
        role = declared.get(role_key) or default
        if role and role != account.user and declared.get(key) == account.password:
            same_place = bool(
                {m["braced"] or m["plain"] for m in _REFERENCE.finditer(written.get(key, ""))} & own
            )
            if same_place or key not in leave:
                yield (
                    f"service {account.service}: {key} of account {role} has the same value: give"
                    " it one of its own first"
                )


def own_names(raw: Mapping[str, Any] | None, account: Account) -> frozenset[str]:
    """Return the variables that supply the service's own password.

    They are found in `raw`, the model without interpolation.
    """
    names = set(account.variables)
    for key, value in environment(services(raw or {}).get(account.service) or {}).items():
        if key in account.variables:
            names |= {m["braced"] or m["plain"] for m in _REFERENCE.finditer(value)}
    return frozenset(names)


def _server_of_its_own(body: Mapping[str, Any], account: Account) -> bool:
    declared = environment(body)
    keys = [key for _, key, _ in VARIABLES[find_kind(body) or account.kind]]
    return any(declared.get(key) == account.password for key in keys)


def _takers(
    model: Mapping[str, Any], search: Search, files: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for s in strings(services(model)):
        if search.is_held_in(s):
            found.setdefault(s.path[0], []).append(".".join(s.path[1:]))
    for service in services(model):
        found.setdefault(service, []).extend(
            file for file, _ in list_mounted_files(model, service) if file in files
        )
    return {service: tuple(places) for service, places in found.items() if places}


def _find_exported(
    sources: Sequence[CredentialFile],
    search: Search,
    exported: Mapping[str, str],
    leave: frozenset[str],
) -> Iterator[str]:
    """Yield the exported variables that hold the password: they override every file."""
    text = "\n".join(s.text for s in sources if s.kind in ("compose", "env", "env_file"))
    for name, value in exported.items():
        holds = value == search.account.password or bool(search.places(value))
        if holds and name not in leave and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            yield (
                f"{name} is exported in this shell with the password, and that wins over every"
                " file: unset it (and set it again where it comes from)"
            )


# -- verify ----------------------------------------------------------------------------------------


def find_differences(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    account: Account,
    new: str,
    own: frozenset[str],
    *,
    leave: bool = False,
) -> list[str]:
    """Compare the models before and after the edits, and return the unexpected differences.

    Each is named by its path, without any value. With `leave` some places may keep the old
    password, because the user chose so.

    Returns:
        An empty list if only passwords changed, and all of them did.
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
            held = search.is_held_in(ModelString(old.path[1:], old.value))
            if (
                not leave
                and held
                and (old.value != account.password or search.is_ours(old.path[-1]))
            ):
                wrong.append(f"{place} still has the old password")
        elif not _is_expected_change(old.value, now.value, search, new):
            wrong.append(f"{place} changed, and not from the old password to the new one")
    return wrong


def _is_expected_change(old: str, now: str, search: Search, new: str) -> bool:
    """Return whether `now` is `old` with the new password in place of the old one."""
    if old == search.account.password:
        return now == new
    places = search.places(old)
    if not places:
        return now == old.replace(search.account.password, new)
    found = [f for f in dsn.find_passwords(now) if f.password == new]
    return dsn.mask(old, places, "\0") == dsn.mask(now, found, "\0")
