"""Passwords in connection strings: where each is, its value, and how to write another one.

Supported forms are URLs of any scheme (`postgresql+asyncpg://u:p@h/d`, percent-encoded), parameters
of URLs (`jdbc:...?user=u&password=p`), keywords of libpq (`host=h user=u password='p'`), pairs with
semicolons (`Host=h;Username=u;Password=p`) and the form of Go's MySQL driver (`u:p@tcp(h:3306)/d`).
Everything around the password stays unchanged, character for character.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")
"""Passwords that need no encoding in any form here, in YAML, in `.env` and in a shell."""


class UnwritablePassword(ValueError):
    """The new password cannot be written safely in this form."""


class Password(NamedTuple):
    """One password in a text."""

    start: int
    end: int
    """`text[start:end]` is the password as written, with its quotes."""
    password: str
    """The decoded password."""
    form: str
    """`url`, `parameter`, `words`, `pairs` or `go`."""
    user: str | None = None
    host: str | None = None
    """The first host, without its port."""
    written: str = ""
    """The password as written: `text[start:end]`."""
    raw: bool = False
    """The password was not encoded or quoted although this form needs it for some of its
    characters: clients read something else.
    """

    def means(self, password: str) -> bool:
        """Return whether this is the given password; unencoded ones count."""
        return password in (self.password, self.written)


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?P<authority>[^\s/?#\"'<>]*)(?P<rest>[^\s\"'<>]*)")
_PARAMETER = re.compile(r"(?<=[?&;])(?P<key>password|pwd|pass)=(?P<value>[^&;#\s]*)", re.IGNORECASE)
_WORDS = re.compile(
    r"(?:(?<=\s)|^|(?<=[\"']))password\s*=\s*(?P<value>'(?:[^'\\]|\\.)*'|[^\s'\"]+)", re.MULTILINE
)
_ADJACENT_WORD = re.compile(
    r"(?:(?<=\s)|^|(?<=[\"']))(?P<key>host|hostaddr|user|dbname|port)\s*=\s*(?P<value>'(?:[^'\\]"
    r"|\\.)*'|[^\s'\"]+)"
)
_PAIR = re.compile(
    r"(?:^|(?<=;))\s*(?P<key>[A-Za-z][A-Za-z ]*?)\s*=\s*(?P<value>\"[^\"]*\"|'[^']*'|[^;\"']*)(?=;"
    r"|$)"
)
_GO = re.compile(
    r"(?:^|(?<=[\s\"'=]))(?P<user>[^\s:/@\"'=]+):(?P<value>\S*?)@(?:tcp6?|unix)\((?P<host>[^)]*)\)/"
)
_PAIR_HOSTS = ("host", "server", "data source", "datasource", "address", "addr")
_PAIR_USERS = ("username", "user id", "userid", "user", "uid")


def find_passwords(text: str, known: str = "") -> list[Password]:
    """Return every password in the connection strings of a text, in order.

    `known` is a password that is also found where it was not encoded or quoted (`raw`).
    """
    raw = _raw(text, known)
    found = [*_of_urls(text), *_of_go(text)]
    if not found:
        found = _of_pairs(text) or _of_words(text)
    apart = [f for f in found if not any(f.start < r.end and r.start < f.end for r in raw)]
    return sorted([*raw, *(f for f in apart if not _is_within_url_of(f, raw, text))])


_URL_BREAKS = re.compile(r"[@/?#%\[\]\s\"<>\\^`{|}]")
_PARAMETER_BREAKS = re.compile(r"[&;#%+\s\"<>]")
_WORDS_BREAK = re.compile(r"[\s'\\]")
_PAIRS_BREAK = re.compile(r"[;\"']")


def _raw(text: str, known: str) -> list[Password]:
    """Return the places where a password is not encoded or quoted although its form requires it.

    libpq ends the user's part of a URL at the first `@` or `/` (fe-connect.c,
    conninfo_uri_parse_options), RFC 3986 the authority at the first `/`, `?` or `#`; a `%` is
    decoded.
    """
    if not known or known not in text:
        return []
    word = re.escape(known)
    found = [*_raw_in_urls(text, word)] if _URL_BREAKS.search(known) else []
    found += _raw_in_parameters(text, word) if _PARAMETER_BREAKS.search(known) else []
    if "://" in text:
        return found
    found += _raw_in_words(text, word) if _WORDS_BREAK.search(known) else []
    return found + (_raw_in_pairs(text, word) if _PAIRS_BREAK.search(known) else [])


def _raw_in_urls(text: str, word: str) -> list[Password]:
    host = r"(?P<host>\[[^]]*\]|[^\s/?#\"'<>:@,]*)"
    url = rf"[A-Za-z][A-Za-z0-9+.-]*://(?P<user>[^\s/?#\"'<>:@]*):(?P<value>{word})@{host}"
    return [
        _raw_at(m, "url", unquote(m["user"]), m["host"].strip("[]")) for m in re.finditer(url, text)
    ]


def _raw_in_parameters(text: str, word: str) -> list[Password]:
    found = []
    for m in re.finditer(
        rf"(?<=[?&;])(?:password|pwd|pass)=(?P<value>{word})(?=[&;\s\"']|$)", text, re.IGNORECASE
    ):
        url = next((u for u in _URL.finditer(text) if u.start() < m.start()), None)
        host = url["authority"].rpartition("@")[2].partition(":")[0] if url is not None else None
        named = re.search(r"[?&;](?:user|username)=([^&;#\s]*)", text, re.IGNORECASE)
        found.append(_raw_at(m, "parameter", unquote(named[1]) if named else None, host))
    return found


def _raw_in_words(text: str, word: str) -> list[Password]:
    adjacent = {m["key"]: _unquote(m["value"]) for m in _ADJACENT_WORD.finditer(text)}
    places = (
        re.finditer(rf"(?:(?<=\s)|^)password\s*=\s*(?P<value>{word})(?=\s|$)", text, re.MULTILINE)
        if adjacent
        else ()
    )
    return [
        _raw_at(m, "words", adjacent.get("user"), adjacent.get("host", adjacent.get("hostaddr")))
        for m in places
    ]


def _raw_in_pairs(text: str, word: str) -> list[Password]:
    pairs_found = {m["key"].strip().lower(): m["value"].strip() for m in _PAIR.finditer(text)}
    host = next((pairs_found[key] for key in _PAIR_HOSTS if key in pairs_found), None)
    user = next((pairs_found[key] for key in _PAIR_USERS if key in pairs_found), None)
    places = (
        re.finditer(
            rf"(?:^|(?<=;))\s*(?:password|pwd)\s*=(?P<value>{word})(?=;|$)", text, re.IGNORECASE
        )
        if host
        else ()
    )
    return [_raw_at(m, "pairs", user, host) for m in places]


def _raw_at(m: "re.Match[str]", form: str, user: str | None, host: str | None) -> Password:
    return Password(
        m.start("value"), m.end("value"), m["value"], form, user, host or None, m["value"], raw=True
    )


def _is_within_url_of(found: Password, raw: Sequence[Password], text: str) -> bool:
    """Return whether a match exists only because a raw password ends a URL too early.

    Then no whitespace is between the two.
    """
    return any(
        r.form == "url" and r.end <= found.start and not re.search(r"\s", text[r.end : found.start])
        for r in raw
    ) and (found.form != "parameter")


def mask(text: str, places: Sequence[Password], mark: str = "") -> str:
    """Return the text with a mark in the places of some passwords, which are given in order."""
    for found in reversed(places):
        text = text[: found.start] + mark + text[found.end :]
    return text


def put(text: str, found: Password, new: str) -> str:
    """Return the text with another password in one place.

    Raises:
        UnwritablePassword: The form there cannot hold the password safely.
    """
    return text[: found.start] + encode(found, new) + text[found.end :]


def encode(found: Password, new: str) -> str:
    """Return the new password as it is written in one place.

    Raises:
        UnwritablePassword: The form there cannot hold the password safely.
    """
    if not new or not new.isprintable():
        raise UnwritablePassword("it is empty or holds control characters")
    if found.form in ("url", "parameter"):
        return quote(new, safe="-._~")
    if found.form == "words":
        return (
            new
            if PLAIN.fullmatch(new) and not found.written.startswith("'")
            else "'" + re.sub(r"(['\\])", r"\\\1", new) + "'"
        )
    if found.form == "pairs":
        mark = found.written[:1] if found.written[:1] in ("'", '"') else ""
        if not PLAIN.fullmatch(new):
            raise UnwritablePassword(
                "a string of pairs takes only letters, digits and _ . ~ - without doubt"
            )
        return f"{mark}{new}{mark}"
    if re.search(r"[\s/@()]", new):
        raise UnwritablePassword("this driver reads passwords without any encoding")
    return new


def _of_urls(text: str) -> list[Password]:
    found = []
    for url in _URL.finditer(text):
        userinfo, at, hosts = url["authority"].rpartition("@")
        host = hosts.partition(",")[0]
        host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        user, colon, written = userinfo.partition(":")
        if at and colon and written:
            start = url.start("authority") + len(user) + 1
            found.append(
                Password(
                    start,
                    start + len(written),
                    unquote(written),
                    "url",
                    unquote(user),
                    host or None,
                    written,
                )
            )
        parameters = url["rest"]
        named = re.search(r"[?&;](?:user|username)=([^&;#\s]*)", parameters, re.IGNORECASE)
        for one in _PARAMETER.finditer(text, url.start("rest"), url.end()):
            who = unquote(named[1]) if named else (unquote(user) if at else None)
            if value := one["value"]:
                start, end = one.span("value")
                found.append(
                    Password(start, end, unquote(value), "parameter", who, host or None, value)
                )
    return found


def _of_go(text: str) -> list[Password]:
    return [
        Password(
            m.start("value"),
            m.end("value"),
            m["value"],
            "go",
            m["user"],
            m["host"].partition(":")[0] or None,
            m["value"],
        )
        for m in _GO.finditer(text)
        if m["value"]
    ]


def _of_pairs(text: str) -> list[Password]:
    if ";" not in text or "\n" in text.strip():
        return []
    pairs = list(_PAIR.finditer(text))
    pairs_found = {pair["key"].lower(): pair["value"].strip().strip("\"'") for pair in pairs}
    if not any(key in pairs_found for key in _PAIR_HOSTS):
        return []
    user = next((pairs_found[key] for key in _PAIR_USERS if key in pairs_found), None)
    host = re.split(
        r"[,:]",
        next(pairs_found[key] for key in _PAIR_HOSTS if key in pairs_found).removeprefix("tcp:"),
    )[0]
    found = []
    for pair in pairs:
        written = pair["value"].rstrip()
        if pair["key"].lower() in ("password", "pwd") and written:
            start = pair.start("value")
            found.append(
                Password(
                    start,
                    start + len(written),
                    written.strip("\"'"),
                    "pairs",
                    user,
                    host or None,
                    written,
                )
            )
    return found


def _of_words(text: str) -> list[Password]:
    adjacent = {m["key"]: _unquote(m["value"]) for m in _ADJACENT_WORD.finditer(text)}
    if not adjacent:
        return []
    host = adjacent.get("host", adjacent.get("hostaddr"))
    return [
        Password(
            m.start("value"),
            m.end("value"),
            _unquote(m["value"]),
            "words",
            adjacent.get("user"),
            host,
            m["value"],
        )
        for m in _WORDS.finditer(text)
    ]


def _unquote(value: str) -> str:
    """Return a value of a libpq connection string without its quotes and backslashes."""
    inner = value[1:-1] if value.startswith("'") else value
    return re.sub(r"\\(.)", r"\1", inner)
