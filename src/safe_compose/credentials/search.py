"""The search for one account's password in a text, and the meaning of each place."""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from safe_compose.credentials import dsn
from safe_compose.credentials.account import (
    Account,
    ModelString,
    environment,
    hosts,
    services,
    strings,
)

_LOOKS_SECRET = re.compile(r"pass|pwd|secret", re.IGNORECASE)
_LOOKS_LIKE_A_DATABASE = re.compile(r"pg|postgres|db|database|sql|maria", re.IGNORECASE)
_COMMON = frozenset(
    {
        "postgres",
        "root",
        "admin",
        "password",
        "secret",
        "mysql",
        "mariadb",
        "app",
        "test",
        "user",
        "db",
    }
)
LONG_ENOUGH = 6
"""Smallest length of a password that is searched for in free text."""


class Search:
    """A search for one account's password that judges each place by its context."""

    def __init__(self, account: Account, model: Mapping[str, Any], own: frozenset[str]) -> None:
        """Prepare a search; `own` holds the keys that surely mean this account."""
        self.account = account
        self.own = own
        self._hosts = hosts(model, account.service)
        words = _COMMON | {
            account.user,
            account.service,
            str(model.get("name", "")),
            *services(model),
        }
        self.distinctive = len(
            account.password
        ) >= LONG_ENOUGH and account.password.lower() not in {w.lower() for w in words}

    def places(self, text: str, *, doubled: bool = False) -> list[dsn.Password]:
        """Return the places of the password in connection strings that mean this account.

        With `doubled` dollar signs are doubled, as in a compose file.
        """
        password = self.account.password
        return [
            f
            for f in dsn.find_passwords(text, password.replace("$", "$$") if doubled else password)
            if (f.means(password) or (doubled and f.means(password.replace("$", "$$"))))
            and f.user in (None, "", self.account.user)
            and (f.host in (None, "") or f.host in self._hosts or "$" in f.host)
        ]

    def mentions(self, text: str) -> bool:
        """Return whether the password occurs in free text.

        A password that is a common word is not searched for.
        """
        encoded = quote(self.account.password, safe="-._~")
        return self.distinctive and (self.account.password in text or encoded in text)

    def elsewhere(self, text: str) -> bool:
        """Return whether the password occurs, but only in connection strings of others.

        These log in to another account or server.
        """
        rest = dsn.mask(
            text,
            [
                f
                for f in dsn.find_passwords(text, self.account.password)
                if f.means(self.account.password)
            ],
        )
        return rest != text and not self.mentions(rest)

    def is_ours(self, key: str) -> bool | None:
        """Return whether a key whose whole value is the password belongs to this account.

        Returns:
            None if that cannot be decided.
        """
        if key in self.own or (_LOOKS_SECRET.search(key) and _LOOKS_LIKE_A_DATABASE.search(key)):
            return True
        return None if _LOOKS_SECRET.search(key) or self.distinctive else False

    def is_held_in(self, s: ModelString) -> bool:
        """Return whether a string of a service holds this account's password.

        The path of the string in the model begins with the service.
        """
        if s.value == self.account.password:
            return s.path[1:2] == ("environment",) and self.is_ours(s.path[-1]) is not False
        return bool(self.places(s.value)) or (
            self.mentions(s.value) and not self.elsewhere(s.value)
        )


def find_other_logins(model: Mapping[str, Any], account: Account) -> list[str]:
    """Return the connection strings that log in to the account's server with yet another password.

    Each is named by its path in the model.
    """
    known = hosts(model, account.service)
    return [
        ".".join(s.path)
        for s in strings(services(model))
        for f in dsn.find_passwords(s.value, account.password)
        if f.user == account.user and f.host in known and not f.means(account.password)
    ]


def find_unencoded(model: Mapping[str, Any], secrets: Iterable[str]) -> list[str]:
    """Return the connection strings in which a secret is not encoded or quoted.

    Clients read another password, host or port from such a string. Each is named by its path in the
    model.
    """
    known = [secret for secret in dict.fromkeys(secrets) if len(secret) > 1]
    return [
        ".".join(s.path)
        for s in strings(services(model))
        if any(
            f.raw
            for secret in known
            if secret in s.value
            for f in dsn.find_passwords(s.value, secret)
        )
    ]


def collect_secrets(model: Mapping[str, Any], more: Iterable[tuple[str, str]] = ()) -> list[str]:
    """Return the values of services' variables, and of `more`, whose names suggest a secret."""
    variables = [
        *more,
        *(pair for body in services(model).values() for pair in environment(body).items()),
    ]
    return [value for key, value in variables if value and _LOOKS_SECRET.search(key)]


def is_stale(
    model: Mapping[str, Any], account: Account, service: str, variables: Mapping[str, str]
) -> bool:
    """Return whether a container's environment holds another password than the model gives now."""
    search = Search(account, model, frozenset(account.variables))
    now = environment(services(model).get(service) or {})
    return any(
        variables.get(k) != v
        for k, v in now.items()
        if search.is_held_in(ModelString((service, "environment", k), v))
    )


def find_holders(
    model: Mapping[str, Any], account: Account, variables: Mapping[str, str]
) -> list[str]:
    """Return the variables of a container that surely hold this account's password."""
    search = Search(account, model, frozenset(account.variables))
    whole = [
        k
        for k, v in variables.items()
        if v == account.password and search.distinctive and search.is_ours(k)
    ]
    return [
        *whole,
        *(k for k, v in variables.items() if v != account.password and search.places(v)),
    ]
