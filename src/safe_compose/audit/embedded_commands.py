"""Commands that stand in a program's own language: awk, sed, git, editors, clients of databases.

Each finder takes the words after the program, and returns words (lists) and scripts of shell. This
module is pure.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from safe_compose.audit.shell_words import Word

_DATABASE_CLIENTS = "psql pgcli mysql mariadb mycli sqlite3 litecli"
Stdin = Callable[[], tuple[Word, ...]]
Found = Iterator[list[Word] | Word]
_STRING = r'"((?:[^"\\]|\\.){0,2000})"'
_SINGLE = r"'((?:[^'\\]|\\.){0,2000})'"
_GIT_SCRIPTS = re.compile(
    r"(core\.(?:pager|editor|sshcommand|fsmonitor|askpass)|sequence\.editor|diff\.external"
    r"|pager\.\w+|alias\.[\w-]+|credential\.helper|filter\.\w+\.\w+)=(.*)",
    re.DOTALL | re.IGNORECASE,
)


def _script(word: Word, text: str) -> Word:
    """Return a part of a word as a script; a blank at its end stands for a word that is added."""
    text = re.sub(r"\\([\"'\\])", r"\1", text)
    return word._replace(text=text + ('"$_"' if text[-1:].isspace() else ""), sure=True, parts=())


def _find(rest: Sequence[Word], stdin: Stdin) -> Found:
    """Find and fd: the words between `-exec` and `;` or `+`."""
    del stdin
    index = 0
    while index < len(rest):
        if rest[index].text in (
            "-exec", "-execdir", "-ok", "-okdir", "-x", "-X", "--exec", "--exec-batch",
        ):  # fmt: skip
            end = index + 1
            while end < len(rest) and rest[end].text not in (";", "+", "\\;"):
                end += 1
            if end > index + 1:
                yield list(rest[index + 1 : end])
            index = end
        index += 1


def _git(rest: Sequence[Word], stdin: Stdin) -> Found:
    del stdin
    texts = [word.text for word in rest]
    for before, word in zip(["", *texts], rest, strict=False):
        found = _GIT_SCRIPTS.fullmatch(word.text) if before in ("-c", "--config") else None
        if found and not found[1].lower().startswith(("alias.", "credential.")):
            yield _script(word, found[2])
        elif found and found[2].startswith("!"):
            yield _script(word, found[2][1:])
        elif before in ("-x", "--exec", "--tree-filter", "--index-filter", "--msg-filter"):
            yield word
        elif word.text.startswith("--exec="):
            yield _script(word, word.text.partition("=")[2])
    for verb, sub in (("bisect", "run"), ("submodule", "foreach"), ("worktree", "exec")):
        if verb in texts and sub in texts[texts.index(verb) :]:
            after = list(rest[texts.index(sub, texts.index(verb)) + 1 :])
            while after and after[0].text.startswith("-"):
                after.pop(0)
            if len(after) == 1:
                yield after[0]
            elif after:
                yield after


def _awk(rest: Sequence[Word], stdin: Stdin) -> Found:
    del stdin
    for word in rest:
        if "system" in word.text or "|" in word.text:
            for text in re.findall(_STRING, word.text):
                yield _script(word, text)


def _sed(rest: Sequence[Word], stdin: Stdin) -> Found:
    del stdin
    for word in rest:
        if found := re.search(r"(?:^|[;{}\n]|[\d$/])\s*e\s+([^\n]+)", word.text):
            yield _script(word, found[1])
        if found := re.search(r"s([/|#,@!])(?:.{0,500}?)\1(.{0,500})\1[\dgIiMmp]*e", word.text):
            yield _script(word, found[2])


def _database_client(rest: Sequence[Word], stdin: Stdin) -> Found:
    r"""Clients of databases: `\!`, `system`, `.shell` at the beginning of a line."""
    for word in (*rest, *stdin()):
        for found in re.finditer(
            r"(?:^|[\n;])\s*(?:\\!|system\s|\.shell\s|\.system\s)\s*([^\n]+)|\\!\s*([^\n]+)",
            re.sub(r"^(?:--\w+=|-[ce])(?=[\\.s])", "", word.text),
        ):
            yield _script(word, (found[1] or found[2]).rstrip("; "))


def _editor(rest: Sequence[Word], stdin: Stdin) -> Found:
    del stdin
    for word in rest:
        text = word.text.lstrip("+:")
        if found := re.search(
            r"(?:^|[|:%]|\b(?:r|read|w|sil|silent|exe|execute)!?\s*)!\s*(.+)", text
        ):
            yield _script(word, found[1])
        for call in re.findall(rf"system(?:list)?\(\s*(?:{_STRING}|{_SINGLE})", text):
            yield _script(word, call[0] or call[1])
        if found := re.match(r"(?:term|terminal)\w*\s+(.+)", text):
            yield _script(word, found[1])


def _expect(rest: Sequence[Word], stdin: Stdin) -> Found:
    for word in (*rest, *stdin()):
        for found in re.finditer(
            r"(?:^|[;\n{\[])\s*(?:spawn|exec|system)\s+([^;\n\]}]+)", word.text
        ):
            yield _script(word, re.sub(r"^(?:-\w+\s+)+", "", found[1]))


def _crontab(rest: Sequence[Word], stdin: Stdin) -> Found:
    if not any(word.text == "-" for word in rest):
        return
    for word in stdin():
        for line in word.text.split("\n"):
            if found := re.match(r"\s*(?:@\w+|(?:\S+\s+){4}\S+)\s+(.*)", line):
                yield _script(word, found[1])
            elif line.strip() and not line.lstrip().startswith("#"):
                yield _script(word, line)


def _options(pattern: str) -> Callable[[Sequence[Word], Stdin], Found]:
    """Return a finder of scripts in options: the pattern's group, or else the next word."""
    compiled = re.compile(pattern, re.DOTALL)

    def finder(rest: Sequence[Word], stdin: Stdin) -> Found:
        del stdin
        for index, word in enumerate(rest):
            if found := compiled.fullmatch(word.text):
                text = next((group for group in found.groups() if group), None)
                if text is not None:
                    yield _script(word, text)
                elif index + 1 < len(rest):
                    yield rest[index + 1]

    return finder


FINDERS: dict[str, Callable[[Sequence[Word], Stdin], Found]] = {
    **dict.fromkeys(("find", "gfind", "fd", "fdfind"), _find),
    "git": _git,
    **dict.fromkeys(("awk", "gawk", "mawk", "nawk"), _awk),
    **dict.fromkeys(("sed", "gsed"), _sed),
    **dict.fromkeys(_DATABASE_CLIENTS.split(), _database_client),
    **dict.fromkeys(("vi", "vim", "nvim", "view", "ex", "gvim", "vimdiff"), _editor),
    "expect": _expect,
    "crontab": _crontab,
    **dict.fromkeys(
        ("tar", "gtar", "bsdtar"),
        _options(
            r"--(?:to-command|use-compress-program|checkpoint-action|rsh-command)=(?:exec=)?(.+)"
            r"|-I|--to-command|--use-compress-program"
        ),
    ),
    **dict.fromkeys(("gdb", "lldb"), _options(r"\s*(?:!|shell\s|platform shell\s)\s*(.+)")),
    **dict.fromkeys(("less", "more", "most"), _options(r"\+?!(.+)")),
    **dict.fromkeys(("rsync", "scp"), _options(r"--rsh=(.+)|-e|--rsh|-S|--rsync-path=(.+)")),
    "zip": _options(r"--unzip-command=?(.+)|-TT|--unzip-command"),
    "man": _options(r"--pager=(.+)|-P|--pager"),
    "socat": _options(r"(?:EXEC|SYSTEM|SHELL):([^,]+).*"),
    **dict.fromkeys(("nc", "ncat"), _options(r"-c|--sh-exec|-e|--exec|--sh-exec=(.+)")),
}
