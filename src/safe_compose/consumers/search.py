"""Where one account's password stands in a text, and what to make of it there."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from safe_compose import dsn
from safe_compose.consumers.account import Account, String, environment, hosts, services, strings

_LOOKS_SECRET = re.compile(r"pass|pwd|secret", re.IGNORECASE)
_LOOKS_LIKE_A_DATABASE = re.compile(r"pg|postgres|db|database|sql|maria", re.IGNORECASE)
_COMMON = frozenset({"postgres", "root", "admin", "password", "secret", "mysql", "mariadb", "app", "test", "user", "db"})
LONG_ENOUGH = 6
"""Characters from which on a password is looked for in free text."""


class Search:
    """What is looked for: one account's password, and what speaks for or against a place of it."""

    def __init__(self, account: Account, model: Mapping[str, Any], own: frozenset[str]) -> None:
        self.account = account
        self.own = own
        self._hosts = hosts(model, account.service)
        words = _COMMON | {account.user, account.service, str(model.get("name", "")), *services(model)}
        self.distinctive = len(account.password) >= LONG_ENOUGH and account.password.lower() not in {w.lower() for w in words}

    def places(self, text: str, *, doubled: bool = False) -> list[dsn.Found]:
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
        rest = dsn.without(text, [f for f in dsn.passwords(text) if f.means(self.account.password)])
        return rest != text and not self.mentioned(rest)

    def is_ours(self, key: str) -> bool | None:
        """Whether a key whose whole value is the password means this account's. None: nobody can tell."""
        if key in self.own or (_LOOKS_SECRET.search(key) and _LOOKS_LIKE_A_DATABASE.search(key)):
            return True
        return None if _LOOKS_SECRET.search(key) or self.distinctive else False

    def held_in(self, s: String) -> bool:
        """Whether a string of a service, by its path in the model, holds this account's password."""
        if s.value == self.account.password:
            return s.path[1:2] == ("environment",) and self.is_ours(s.path[-1]) is not False
        return bool(self.places(s.value)) or (self.mentioned(s.value) and not self.elsewhere(s.value))


def strangers(model: Mapping[str, Any], account: Account) -> list[str]:
    """Connection strings of the project that log in to the account's server as its role with yet another password, by place."""
    known = hosts(model, account.service)
    return [
        ".".join(s.path)
        for s in strings(services(model))
        for f in dsn.passwords(s.value)
        if f.user == account.user and f.host in known and not f.means(account.password)
    ]


def stale(model: Mapping[str, Any], account: Account, service: str, told: Mapping[str, str]) -> bool:
    """Whether a container's environment holds another password than the model gives its service now."""
    search = Search(account, model, frozenset(account.variables))
    now = environment(services(model).get(service) or {})
    return any(told.get(k) != v for k, v in now.items() if search.held_in(String((service, "environment", k), v)))


def held_by(model: Mapping[str, Any], account: Account, told: Mapping[str, str]) -> list[str]:
    """Variables of some container's environment that hold the account's password, as far as they surely mean this server."""
    search = Search(account, model, frozenset(account.variables))
    whole = [k for k, v in told.items() if v == account.password and search.distinctive and search.is_ours(k)]
    return [*whole, *(k for k, v in told.items() if v != account.password and search.places(v))]
