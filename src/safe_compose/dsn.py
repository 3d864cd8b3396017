"""Passwords in connection strings: where each stands in a text, what it means, and how another is written in its place.

Known are URLs of any scheme (`postgresql+asyncpg://u:p@h/d`, percent-encoded), parameters of URLs (`jdbc:...?user=u&password=p`),
words of libpq (`host=h user=u password='p'`), pairs with semicolons (`Host=h;Username=u;Password=p`) and the form of Go's MySQL
driver (`u:p@tcp(h:3306)/d`). Everything around the password stays as it is, character for character.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")
"""A password that stands for itself in every form here, in YAML, in `.env` and in a shell."""


class Unwritable(ValueError):
    """The new password cannot be written in this form without doubt."""


class Found(NamedTuple):
    """One password in a text."""

    start: int
    end: int
    """text[start:end] is the password as it is written, quotes included."""
    password: str
    """What it means."""
    form: str
    """`url`, `parameter`, `words`, `pairs`, `go`."""
    user: str | None = None
    host: str | None = None
    """The first host, without its port."""
    written: str = ""
    """text[start:end]"""

    def means(self, password: str) -> bool:
        """Whether it is that password; in a URL also one that somebody forgot to encode."""
        return password in (self.password, self.written)


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?P<authority>[^\s/?#\"'<>]*)(?P<rest>[^\s\"'<>]*)")
_PARAMETER = re.compile(r"(?<=[?&;])(?P<key>password|pwd|pass)=(?P<value>[^&;#\s]*)", re.IGNORECASE)
_WORDS = re.compile(r"(?:(?<=\s)|^|(?<=[\"']))password\s*=\s*(?P<value>'(?:[^'\\]|\\.)*'|[^\s'\"]+)", re.MULTILINE)
_WORD_BESIDE = re.compile(
    r"(?:(?<=\s)|^|(?<=[\"']))(?P<key>host|hostaddr|user|dbname|port)\s*=\s*(?P<value>'(?:[^'\\]|\\.)*'|[^\s'\"]+)"
)
_PAIR = re.compile(r"(?:^|(?<=;))\s*(?P<key>[A-Za-z][A-Za-z ]*?)\s*=\s*(?P<value>\"[^\"]*\"|'[^']*'|[^;\"']*)(?=;|$)")
_GO = re.compile(r"(?:^|(?<=[\s\"'=]))(?P<user>[^\s:/@\"'=]+):(?P<value>\S*?)@(?:tcp6?|unix)\((?P<host>[^)]*)\)/")
_PAIR_HOSTS = ("host", "server", "data source", "datasource", "address", "addr")
_PAIR_USERS = ("username", "user id", "userid", "user", "uid")


def passwords(text: str) -> list[Found]:
    """Every password in the connection strings of a text, in order."""
    found = [*_of_urls(text), *_of_go(text)]
    if not found:
        found = _of_pairs(text) or _of_words(text)
    return sorted(found)


def without(text: str, places: Sequence[Found], mark: str = "") -> str:
    """The text with a mark in the place of some passwords, given in order."""
    for found in reversed(places):
        text = text[: found.start] + mark + text[found.end :]
    return text


def put(text: str, found: Found, new: str) -> str:
    """The text with another password in that place. Raises Unwritable."""
    return text[: found.start] + encode(found, new) + text[found.end :]


def encode(found: Found, new: str) -> str:
    """How the new password is written in that place. Raises Unwritable."""
    if not new or not new.isprintable():
        raise Unwritable("it is empty or holds control characters")
    if found.form in ("url", "parameter"):
        return quote(new, safe="-._~")
    if found.form == "words":
        return new if PLAIN.fullmatch(new) and not found.written.startswith("'") else "'" + re.sub(r"(['\\])", r"\\\1", new) + "'"
    if found.form == "pairs":
        mark = found.written[:1] if found.written[:1] in ("'", '"') else ""
        if not PLAIN.fullmatch(new):
            raise Unwritable("a string of pairs takes only letters, digits and _ . ~ - without doubt")
        return f"{mark}{new}{mark}"
    if re.search(r"[\s/@()]", new):
        raise Unwritable("this driver reads passwords without any encoding")
    return new


def _of_urls(text: str) -> list[Found]:
    found = []
    for url in _URL.finditer(text):
        userinfo, at, hosts = url["authority"].rpartition("@")
        host = hosts.partition(",")[0]
        host = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        user, colon, written = userinfo.partition(":")
        if at and colon and written:
            start = url.start("authority") + len(user) + 1
            found.append(Found(start, start + len(written), unquote(written), "url", unquote(user), host or None, written))
        parameters = url["rest"]
        named = re.search(r"[?&;](?:user|username)=([^&;#\s]*)", parameters, re.IGNORECASE)
        for one in _PARAMETER.finditer(text, url.start("rest"), url.end()):
            who = unquote(named[1]) if named else (unquote(user) if at else None)
            if one["value"]:
                found.append(
                    Found(one.start("value"), one.end("value"), unquote(one["value"]), "parameter", who, host or None, one["value"])
                )
    return found


def _of_go(text: str) -> list[Found]:
    return [
        Found(m.start("value"), m.end("value"), m["value"], "go", m["user"], m["host"].partition(":")[0] or None, m["value"])
        for m in _GO.finditer(text)
        if m["value"]
    ]


def _of_pairs(text: str) -> list[Found]:
    if ";" not in text or "\n" in text.strip():
        return []
    pairs = list(_PAIR.finditer(text))
    said = {pair["key"].lower(): pair["value"].strip().strip("\"'") for pair in pairs}
    if not any(key in said for key in _PAIR_HOSTS):
        return []
    user = next((said[key] for key in _PAIR_USERS if key in said), None)
    host = re.split(r"[,:]", next(said[key] for key in _PAIR_HOSTS if key in said).removeprefix("tcp:"))[0]
    found = []
    for pair in pairs:
        written = pair["value"].rstrip()
        if pair["key"].lower() in ("password", "pwd") and written:
            start = pair.start("value")
            found.append(Found(start, start + len(written), written.strip("\"'"), "pairs", user, host or None, written))
    return found


def _of_words(text: str) -> list[Found]:
    beside = {m["key"]: _bare(m["value"]) for m in _WORD_BESIDE.finditer(text)}
    if not beside:
        return []
    host = beside.get("host", beside.get("hostaddr"))
    return [
        Found(m.start("value"), m.end("value"), _bare(m["value"]), "words", beside.get("user"), host, m["value"])
        for m in _WORDS.finditer(text)
    ]


def _bare(value: str) -> str:
    """A value of a libpq string without its quotes and backslashes."""
    inner = value[1:-1] if value.startswith("'") else value
    return re.sub(r"\\(.)", r"\1", inner)
