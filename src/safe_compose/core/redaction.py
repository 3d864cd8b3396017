"""Secrets in options, commands and messages, hidden before they are shown or recorded."""

import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile

from safe_compose.errors import UsageError

HIDDEN = "***"
"""Replaces a secret in texts."""
_SECRET_NAME = (
    r"(?:password|passwd|passphrase|(?<![^\W_])(?:pwd|pass)|secret|token|api_?key|access_?key|private_?key"
    r"|credential)"
)
_SECRET_PAIR = re.compile(rf"(?i)([\w.-]*{_SECRET_NAME}[\w.-]*[=:])[^,\s]+")
_SECRET_BEGINS = re.compile(rf"(?i)[\w.-]*{_SECRET_NAME}[\w.-]*[=:]")
_HARMLESS_OPTION = re.compile(
    r"rw|ro|soft|hard|nolock|noperm|nobrl|noatime|mfsymlinks|serverino|noserverino"
    r"|(?:vers|nfsvers|uid|gid|file_mode|dir_mode|addr|sec|iocharset|cache|port|domain|username)"
    r"=[\w.:-]*"
)
_URL_PASSWORD = re.compile(
    r"((?:[A-Za-z][A-Za-z0-9+.-]*:|(?<!\S)|(?<==))//[^/@\s:]*:)[^/@\s]+(?=@)"
)
"""The password in `scheme://user:password@host`, and in a share's `//user:password@host`."""
_URL_TOKEN = re.compile(r"(https?://)[^/?#\s:]+(?=(?::(?:x-oauth-basic)?)?@)", re.IGNORECASE)
"""The token in `https://TOKEN@host`, the form in which repositories are named for reading."""
_PAIR = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)=.*", re.DOTALL)
_VALUE_IS_SECRET = frozenset({"--confirm", "--password"})
_PAIR_FOLLOWS = frozenset({"-e", "--env", "--build-arg"})
_BUNDLE_WITH_ENV = re.compile(r"-[A-Za-z]*e")


def hide_secrets(text: str) -> str:
    """Return a text with secrets replaced by `***`.

    Secrets are the values of words like `password=...`, and passwords and tokens in URLs.
    """
    for secret in (_URL_TOKEN, _SECRET_PAIR, _URL_PASSWORD):
        text = secret.sub(rf"\g<1>{HIDDEN}", text)
    return text


def hide_option(name: str, value: str) -> str:
    """Return the value of a volume's option or label with secrets replaced by `***`.

    A password in mount options can hold commas, as `,,` or after `sep=;` (mount.cifs(8)), and
    blanks. So all that follows it is hidden, up to options at the end that hold none.
    """
    if _SECRET_PAIR.match(f"{name}=x"):
        return HIDDEN if value else ""
    found = _SECRET_BEGINS.search(value)
    if found is None or not value[found.end() :]:
        return hide_secrets(value)
    parts = value[found.end() :].split(",")
    harmless = list(takewhile(_HARMLESS_OPTION.fullmatch, reversed(parts[1:])))
    tail = "".join(f",{part}" for part in reversed(harmless))
    return f"{hide_secrets(value[: found.start()])}{found[0]}{HIDDEN}{tail}"


def redact(argv: Sequence[str]) -> tuple[str, ...]:
    """Return a command in a form that may be stored, for people to read, not to be run again.

    Values of `--confirm` and `--password`, of `-e NAME=value` and `--build-arg NAME=value` in every
    spelling, of words that look like `PASSWORD=value`, and passwords in URLs become `***`. The
    command that `compose run` starts in its container becomes `...`, because the way in which that
    program takes a password is unknown (`mysql -pVALUE`). When in doubt, a value is hidden.
    """
    words: list[str] = []
    before = ""
    for word in argv:
        flag, equals, value = word.partition("=")
        pair = _PAIR.fullmatch(word)
        if before in _VALUE_IS_SECRET or (before == "-p" and "login" in words):
            shown = HIDDEN
        elif equals and flag in _VALUE_IS_SECRET:
            shown = f"{flag}={HIDDEN}"
        elif pair and (before in _PAIR_FOLLOWS or _BUNDLE_WITH_ENV.fullmatch(before)):
            shown = f"{pair[1]}={HIDDEN}"
        elif flag in _PAIR_FOLLOWS and "=" in value:
            shown = f"{flag}={value.partition('=')[0]}={HIDDEN}"
        elif (
            equals
            and not flag.startswith("--")
            and (glued := re.fullmatch(r"(-[A-Za-z]*e=?)([A-Za-z_][\w.-]*)", flag))
        ):
            shown = f"{glued[1]}{glued[2]}={HIDDEN}"
        elif pair and before in ("-o", "--opt"):
            shown = f"{pair[1]}={hide_option(pair[1], value)}"
        elif pair and _SECRET_PAIR.match(word):
            shown = f"{pair[1]}={HIDDEN}"  # the whole value: it may hold blanks and commas
        else:
            shown = hide_secrets(word)
        words.append(shown)
        before = word
    within = _count_words_within(argv)
    return (*words[:-within], "...") if within else tuple(words)


def _count_words_within(argv: Sequence[str]) -> int:
    """Return how many words at the end are the command that `compose run` starts in a container.

    The first word may be the program or already its first argument.
    """
    if "run" not in argv:
        return 0
    from safe_compose.grammar.parser import parse  # with docker's tables, which no list needs

    first = argv[0].rpartition("/")[2]
    readings = [("docker", argv), ("docker-compose", argv)]
    if first in ("docker", "docker-compose", "safe-compose"):
        readings = [("docker-compose" if first == "docker-compose" else "docker", argv[1:])]
    for program, words in readings:
        with suppress(UsageError):
            if (found := parse(words, program)).verb == ("compose", "run"):
                return max(0, len(found.operands) - 1)
    return 0
