"""The form in which a file's command is shown to people, and the one that deletes nothing.

This module is pure.
"""

import re
import shlex
from collections.abc import Sequence

from safe_compose.audit.risk import LIKE_FLAGS, SOFT, docker_name
from safe_compose.audit.shell_words import Word, name_program
from safe_compose.core.redaction import hide_secrets, redact
from safe_compose.grammar import parser, tables

_FLAGS = {
    "compose_down_volumes": ("v", ("--volumes", "--volume", "--vol")),
    "compose_rm_anon": ("v", ("--volumes",)),
    "container_rm_anon": ("v", ("--volumes",)),
    "system_prune_volumes": ("", ("--volumes",)),
    "compose_recreate_changed_volume": ("y", ("--yes", "--y")),
}
"""The flags that make a command destructive: the letter, the long names."""
_LONGEST_WORD = 500
_MOST_WORDS = 200
"""Most words of a command that are shown to people."""


def show_words(words: Sequence[Word]) -> str:
    """Return the words of a file as a command, without secrets."""
    return _make_safe([shlex.quote(_cut(w.text)) if w.sure else _cut(w.text) for w in words])


def join_words(words: Sequence[str]) -> str:
    """Return a command of these words without secrets; variables in them stay."""
    return _make_safe([w if "$" in w or "{" in w else shlex.quote(w) for w in map(_cut, words)])


def _make_safe(words: Sequence[str]) -> str:
    """Return words without secrets, in a readable length."""
    return hide_secrets(" ".join(redact(words[:_MOST_WORDS]))) + (
        " ..." if len(words) > _MOST_WORDS else ""
    )


def _cut(word: str) -> str:
    return word if len(word) <= _LONGEST_WORD else word[:_LONGEST_WORD] + "..."


def make_harmless(
    words: Sequence[Word], invocation: parser.Invocation, *, in_variable: bool
) -> str | None:
    """Return the command as typed without the destructive flag, or None.

    None where there is no such form.
    """
    opener = _FLAGS.get(invocation.kind)
    if opener is None or invocation.own.skip_backup:
        return None
    letter, longs = opener
    remaining: list[Word] = []
    for word in words:
        if (word.text.partition("=")[0] in longs and word.sure) or (
            in_variable and LIKE_FLAGS.search(word.text) and not word.sure
        ):
            continue
        bundle = re.match(r"-([A-Za-z]+)", word.text) if word.sure else None
        if bundle and letter and letter in bundle[1]:
            text = "-" + bundle[1].replace(letter, "", 1) + word.text[bundle.end() :]
            if text == "-":
                continue
            word = word._replace(text=text)
        remaining.append(word)
    program = name_program(words[0])
    group = (
        []
        if program is not None
        else ["compose"]
        if "compose" not in [w.text for w in remaining]
        else []
    )
    asked = [*group, *(w.text if w.sure else "x" for w in remaining[1:])]
    after = parser.parse(asked, docker_name(program or "docker"))
    dialect = invocation.program == "docker-compose"
    same = after.operands == invocation.operands or dialect or any(not w.sure for w in remaining)
    if (
        after.kind not in (*SOFT, tables.NONE)
        or after.verb != invocation.verb
        or not same
        or after.doubt
    ):
        return None
    return show_words(remaining)
