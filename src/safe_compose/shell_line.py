"""Which commands a line of shell would run, as far as its text tells; the only room that knows tree-sitter.

The parser (extra `audit`) finds the plain commands. What it does not see into is followed here: `bash -c`, `eval`, `ssh`,
here-documents and `echo` piped into a shell, `xargs`, `sudo`, `env` and their like. Whatever cannot be read is said
(`Line.unreadable`), never left out: a reader that must not miss anything then goes by `words_of_a_door`.

Time and depth are bounded, whatever the text: `LONGEST`, `DEEPEST` and `NODES`.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import tree_sitter

LONGEST = 50_000
"""Characters of a text that is parsed; a longer one is unreadable."""
DEEPEST = 8
"""Shells within shells."""
NODES = 40_000
"""Parts of all texts of one line together."""

ENGINES = frozenset({"docker", "docker-compose", "podman", "podman-compose", "nerdctl", "safe-compose"})
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "rbash"})
INTERPRETERS = frozenset({"python", "python2", "python3", "pypy3", "perl", "ruby", "node", "nodejs", "deno", "bun", "php", "lua"})
ROOTS = frozenset({"sudo", "doas", "su", "runuser", "pkexec", "run0"})
"""Wrappers that change who runs, and with that usually PATH."""
APPENDING = frozenset({"xargs", "parallel"})
WRAPPERS = (
    ROOTS
    | APPENDING
    | {
        "env", "nohup", "time", "timeout", "nice", "ionice", "chrt", "taskset", "stdbuf", "setsid", "command", "builtin",
        "exec", "coproc", "watch", "script", "flock", "unbuffer", "expect", "strace", "ltrace", "systemd-run", "busybox",
        "toybox", "entr", "at", "batch", "nsenter", "unshare", "chroot", "setpriv", "prlimit", "caffeinate", "gosu",
        "su-exec", "tini", "dumb-init", "dotenv", "direnv", "concurrently", "gtimeout", "find", "fd", "screen", "tmux",
        "faketime", "retry", "chronic", "ts", "not", "!",
    }
)  # fmt: skip
REMOVERS = frozenset({"rm", "rmdir", "unlink", "shred", "mv", "truncate", "find", "rsync", "dd", "mkfs", "wipefs", "trash"})
SENDERS = frozenset({"curl", "wget", "nc", "ncat", "netcat", "socat", "http", "https", "xh", "httpie"})
FOLLOWED = ENGINES | SHELLS | INTERPRETERS | WRAPPERS | REMOVERS | SENDERS | {"ssh", "eval", "echo", "printf"}
"""What is looked for after a wrapper's own words, whose options are not known one by one."""

_DELETING = frozenset(
    {
        "rm", "remove", "delete", "kill", "stop", "-y", "--yes", "reset", "rmtree", "mv", "find", "shred", "approve", "unprotect",
        "forget", "trash", "uninstall", "--uninstall",
    }
)  # fmt: skip
_HANDS_ON = frozenset({"--", "run", "exec"})
"""After one of these an unknown program may start another one: `op run -- docker ...`, `poetry run docker ...`."""
_OWN_SHELL = frozenset({"subshell", "pipeline", "command_substitution", "process_substitution"})
_SSH_TAKES = frozenset("bBcDEeFIiJLlmOopQRSWw")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|[uU]([0-9A-Fa-f]{1,8})|(.))", re.DOTALL)
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "v": "\v"}


class Missing(Exception):
    """The extra that brings the parser is not installed."""


class Word(NamedTuple):
    """One word of a command."""

    text: str
    """Its value without quotes where `sure`; else its source, `$x` and `$(...)` as they stand."""
    sure: bool = True
    """Its value is known before it runs."""
    bare: bool = True
    """Nothing of it was quoted: an alias of that name is used."""
    row: int = 0
    """The line of the text on which it begins, counted from 0."""


class Simple(NamedTuple):
    """One command that would run, or may."""

    words: tuple[Word, ...]
    """At least one."""
    via: frozenset[str] = frozenset()
    """What stands between the line and it: `sudo`, `path` (another PATH), `ssh`, `container`, `wrapper` (any other);
    `aside` for a `cd` whose shell ends before it comes to a docker."""

    @property
    def program(self) -> str | None:
        """The name of what is started, without its folder; None when that is not known."""
        return program_of(self.words[0])


class Line(NamedTuple):
    """What one line of shell may run."""

    commands: tuple[Simple, ...] = ()
    assignments: tuple[tuple[str, Word], ...] = ()
    """Variables that are set, for one command or for all that follow."""
    names: frozenset[str] = frozenset()
    """Functions and aliases that are defined here: as a command each may be anything."""
    bodies: tuple[tuple[str, str], ...] = ()
    """What they stand for: (name, shell)."""
    targets: tuple[Word, ...] = ()
    """Files that output is sent to."""
    texts: tuple[str, ...] = ()
    """What `echo`, `printf` and here-documents say."""
    codes: tuple[str, ...] = ()
    """Code for interpreters other than shells."""
    unreadable: tuple[str, ...] = ()
    """Why something that runs is not among `commands`."""


def program_of(word: Word) -> str | None:
    """The name of the program that a command word starts; None when the word is not known (variables, globs, braces)."""
    if not word.sure or (word.bare and re.search(r"[*?\[{]", word.text)):
        return None
    return word.text.rpartition("/")[2].removesuffix(".exe")


def read(text: str) -> Line:
    """Every command in a line of bash. Raises Missing without the parser; never for what the text holds."""
    reader = _Reader()
    reader.read(text, frozenset(), 0)
    reader.feed()
    return reader.line()


def read_argv(argv: Sequence[str | Word]) -> Line:
    """The same for a command that is already split into words."""
    reader = _Reader()
    if argv:
        reader.simple(tuple(Word(word, bare=False) if isinstance(word, str) else word for word in argv), frozenset(), 0)
    reader.feed()
    return reader.line()


def words_of_a_door(text: str) -> bool:
    """Whether a text holds, in whatever order and quoting, words that could delete a volume. Errs toward yes.

    >>> words_of_a_door('d"ock"er com\\\\pose down')
    True
    >>> words_of_a_door("rm -rf node_modules")
    False
    """
    plain = re.sub(r"[\"']", "", text)
    words = {word for way in (plain.replace("\\", ""), _unescape(plain)) for word in re.split(r"[^A-Za-z0-9_-]+", way)}
    lower = {word.lower() for word in words}
    if lower & {"down", "prune"} or "SAFE_COMPOSE" in words:
        return True
    about = bool(lower & {"compose", "volume", "volumes", "container", "containers"}) or any(
        engine in word for word in lower for engine in ("docker", "podman", "nerdctl", "safe-compose")
    )
    about = about or re.search(r"/var/lib|local/share|\brm\b.*\s/(\*|\s|$)", plain) is not None
    return about and not lower.isdisjoint(_DELETING)


class _Source(NamedTuple):
    """The text that nodes are of. The parser gets one byte for each character, so its places are those of the text."""

    text: str
    row: int
    """The line of the whole on which it begins."""


class _Reader:
    def __init__(self) -> None:
        self._parser = _parser()
        self._left = NODES
        self._commands: list[Simple] = []
        self._assignments: list[tuple[str, Word]] = []
        self._names: dict[str, str] = {}
        self._targets: list[Word] = []
        self._texts: list[Word] = []
        self._codes: list[str] = []
        self._unreadable: list[str] = []
        self._shells: list[frozenset[str]] = []
        """Shells that read their script from stdin, by what stands before them."""
        self._interpreter_reads = False

    def line(self) -> Line:
        texts = tuple(word.text for word in self._texts)
        return Line(
            tuple(self._commands),
            tuple(self._assignments),
            frozenset(self._names),
            tuple(self._names.items()),
            tuple(self._targets),
            texts,
            (*self._codes, *(texts if self._interpreter_reads else ())),
            tuple(dict.fromkeys(self._unreadable)),
        )

    def _spent(self) -> bool:
        self._left -= 1
        if self._left < 0:
            self._unreadable.append("it is too long to be read to its end")
        return self._left < 0

    def feed(self) -> None:
        """Give what stands in here-documents and in `echo` to the shells that read a script from stdin.

        Which of them feeds which shell is not worked out: each text goes to each.
        """
        fed = 0
        while self._shells and fed < DEEPEST:
            shells, self._shells = self._shells, []
            fed += 1
            named = {command.program for command in self._commands} - SHELLS - {"echo", "printf", "cat", "tee", *WRAPPERS, "ssh"}
            if named or not self._texts:
                self._unreadable.append("a shell reads its script from somewhere else")
            for via in dict.fromkeys(shells):
                for word in tuple(self._texts):
                    self.read(word.text, via, fed, word.row)

    def read(self, text: str, via: frozenset[str], depth: int, row: int = 0) -> None:
        if depth > DEEPEST or len(text) > LONGEST:
            self._unreadable.append("it is too deep or too long to be read to its end")
            return
        if "\0" in text:
            self._unreadable.append("it holds a NUL")
            return
        # The grammar's scanner looks characters up in tables that end soon after ASCII, and crashes the process (0.25.1: `{` and
        # a private-use character). To a shell each of them is a letter like any other.
        tree = self._parser.parse(re.sub(r"[^\x00-\x7f]", "_", text).encode("ascii"))
        if tree is None or tree.root_node.has_error:
            self._unreadable.append("not all of it reads as bash")
        if tree is None:
            return
        source = _Source(text, row)
        waiting = [tree.root_node]
        while waiting:
            node = waiting.pop()
            if self._spent():
                return
            self._take(node, source, via, depth)
            waiting.extend(reversed(node.children))

    def _take(self, node: "tree_sitter.Node", source: _Source, via: frozenset[str], depth: int) -> None:
        kind = node.type
        if kind == "command":
            self._command(node, source, via, depth)
        elif kind in ("declaration_command", "unset_command"):
            for child in node.children:
                if child.type in ("word", "string", "raw_string", "concatenation"):
                    self._assign(_word(child, source))
        elif kind == "variable_assignment":
            name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
            if name is not None:
                self._assignments.append((_text(name, source), _word(value, source) if value is not None else Word("")))
        elif kind == "function_definition":
            name = node.child_by_field_name("name")
            body = node.child_by_field_name("body")
            if name is not None:
                self._names[_text(name, source)] = _text(body, source) if body is not None else ""
        elif kind in ("heredoc_body", "herestring_redirect"):
            inner = [c for c in node.children if c.type not in ("<<<",)]
            said = _text(node, source) if kind == "heredoc_body" else " ".join(_word(c, source).text for c in inner)
            self._texts.append(Word(said, row=_row(node, source)))
        elif kind == "file_redirect":
            target = node.child_by_field_name("destination")
            if target is not None and ">" in _text(node, source).lstrip("0123456789&")[:2]:
                self._targets.append(_word(target, source))

    def _assign(self, word: Word) -> bool:
        name, equals, value = word.text.partition("=")
        if equals and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*\+?", name):
            self._assignments.append((name.rstrip("+"), Word(value, word.sure, word.bare)))
            return True
        return False

    def _command(self, node: "tree_sitter.Node", source: _Source, via: frozenset[str], depth: int) -> None:
        words: list[Word] = []
        for child in node.children:
            if child.type == "variable_assignment":
                name = child.child_by_field_name("name")
                if name is not None and _text(name, source) == "PATH":
                    via = via | {"path"}
            elif child.type == "command_name":
                words += [_word(c, source) for c in child.children] or [Word(_text(child, source), row=_row(child, source))]
            elif not child.type.endswith("redirect") and child.type not in ("comment", "<", ">", "|", "&", "\\"):
                words.append(_word(child, source))
        if words and program_of(words[0]) == "cd" and _is_aside(node, source, depth):
            via = via | {"aside"}
        if words:
            self.simple(tuple(words), via, depth)

    def simple(self, words: tuple[Word, ...], via: frozenset[str], depth: int) -> None:
        """One command, and every command that it starts in its turn."""
        if self._spent():
            return
        if depth > DEEPEST:
            self._unreadable.append("it is too deep or too long to be read to its end")
            return
        self._commands.append(Simple(words, via))
        name = program_of(words[0])
        if name is None:
            return
        rest = words[1:]
        if name in SHELLS:
            self._shell(rest, via, depth)
        elif name == "eval":
            self._script(rest, via, depth)
        elif name in ("source", "."):
            if rest and (not rest[0].sure or rest[0].text in ("/dev/stdin", "-")):
                self._shells.append(via)
        elif name == "trap":
            self._script(rest[:1], via, depth)
        elif name == "ssh":
            self._ssh(rest, via, depth)
        elif name in ("echo", "printf"):
            self._texts.append(Word(_unescape(" ".join(word.text for word in rest)), row=words[0].row))
        elif name == "alias":
            for word in rest:
                alias, equals, meaning = word.text.partition("=")
                if equals:
                    self._names[alias] = meaning
                    self.read(meaning, via, depth + 1, word.row)
        elif name.rstrip("0123456789.") in {i.rstrip("0123456789") for i in INTERPRETERS}:
            self._codes += [word.text for word in rest if not word.text.startswith("-")]
            self._interpreter_reads = self._interpreter_reads or not any(w.text != "-" for w in rest)
        elif name in WRAPPERS:
            self._wrapped(name, rest, via, depth)
        elif name in ENGINES:
            if any(word.text in ("run", "exec") for word in rest):
                self._inner(rest, via | {"container"}, depth, ENGINES | SHELLS)
        else:
            at = next((i for i, word in enumerate(rest) if word.text in _HANDS_ON), None)
            if at is not None:
                self._inner(rest[at + 1 :], via | {"wrapper"}, depth, ENGINES | SHELLS | ROOTS | {"env"})

    def _script(self, words: Sequence[Word], via: frozenset[str], depth: int) -> None:
        if any(not word.sure for word in words):
            self._unreadable.append("a script is put together while it runs")
        self.read(" ".join(word.text for word in words), via, depth + 1, words[0].row if words else 0)

    def _shell(self, rest: Sequence[Word], via: frozenset[str], depth: int) -> None:
        """`-c SCRIPT`, a script file (not read), or a script on stdin."""
        flags = [i for i, word in enumerate(rest) if re.fullmatch(r"-[A-Za-z]*c[A-Za-z]*|--command(=.*)?", word.text)]
        if flags:
            for word in rest[flags[0] :]:
                if not word.text.startswith(("-", "+")):  # the script, and after it its $0, $1, ...: read as well, harmless
                    self._script((word,), via, depth)
                elif word.text.startswith("--command="):
                    self._script((Word(word.text.partition("=")[2], word.sure, row=word.row),), via, depth)
            return
        operands = [word for word in rest if not word.text.startswith(("-", "+"))]
        if not operands or any(word.text == "-s" for word in rest) or operands[0].text == "/dev/stdin":
            self._shells.append(via)
        elif not operands[0].sure:
            self._shells.append(via)  # `bash <(echo ...)`, `bash "$file"`

    def _ssh(self, rest: Sequence[Word], via: frozenset[str], depth: int) -> None:
        index = 0
        while index < len(rest) and rest[index].text.startswith("-"):
            letters = rest[index].text[1:]
            takes = next((i for i, letter in enumerate(letters) if letter in _SSH_TAKES), None)
            index += 2 if takes is not None and takes == len(letters) - 1 else 1
        remote = rest[index + 1 :]
        if remote:
            self._script(remote, via | {"ssh"}, depth)
        elif index < len(rest):
            self._shells.append(via | {"ssh"})

    def _wrapped(self, name: str, rest: tuple[Word, ...], via: frozenset[str], depth: int) -> None:
        """The command after a wrapper's own words: their options are not known one by one, so every place may be it."""
        if name in ROOTS:
            via = via | {"sudo"}
        if name == "command":
            if any(re.fullmatch(r"-[pvV]*[vV][pvV]*", word.text) for word in rest[:1]):
                return  # it only tells where the command is
            if rest[:1] and rest[0].text == "-p":
                via = via | {"path"}
        if name in ("env", "sudo", "doas"):
            for word in rest:
                cleared = name == "env" and word.text in ("-i", "-", "--ignore-environment")
                if cleared or (self._assign(word) and word.text.startswith("PATH=")):
                    via = via | {"path"}
        if name in ("chroot", "nsenter", "unshare"):
            via = via | {"path"}
        if name in APPENDING:
            rest = (*rest, Word("{}", sure=False))
        if name in ("su", "runuser", "at", "batch") and not any(" " in word.text or word.text == "-c" for word in rest):
            self._shells.append(via)  # they read a script from stdin
        self._inner(rest, via | {"wrapper"}, depth, FOLLOWED)

    def _inner(self, rest: tuple[Word, ...], via: frozenset[str], depth: int, names: frozenset[str]) -> None:
        unknown = next((i for i, word in enumerate(rest) if not word.text.startswith("-") and "=" not in word.text), None)
        if unknown is not None and not rest[unknown].sure and len(rest) - unknown > 1:
            self._commands.append(Simple(rest[unknown:], via))
        for index, word in enumerate(rest):
            if re.search(r"\s", word.text):
                self.read(word.text.partition("=")[2] if word.text.startswith("--") else word.text, via, depth + 1, word.row)
                continue
            found = program_of(word)
            if found in names:
                self.simple(rest[index:], via, depth + 1)
                if found in WRAPPERS or found in ("ssh", "eval"):
                    return  # whatever follows it is found from there; any other name may be a wrapper's value, `-u docker`


def _parser() -> "tree_sitter.Parser":
    try:
        import tree_sitter
        import tree_sitter_bash
    except ImportError as error:
        raise Missing from error
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


def _text(node: "tree_sitter.Node", source: _Source) -> str:
    return source.text[node.start_byte : node.end_byte]


def _row(node: "tree_sitter.Node", source: _Source) -> int:
    return source.row + node.start_point[0]


def _is_aside(node: "tree_sitter.Node", source: _Source, depth: int) -> bool:
    """Whether a command runs in a shell of its own in which no engine is named after it."""
    around = node.parent
    while around is not None:
        own = around.type in _OWN_SHELL or (depth > 0 and around.parent is None)
        if own and not any(engine in source.text[node.end_byte : around.end_byte] for engine in ENGINES):
            return True
        around = around.parent
    return False


def _word(node: "tree_sitter.Node", source: _Source) -> Word:
    """The value of one word, as far as its text tells it."""
    raw, row = _text(node, source), _row(node, source)
    match node.type:
        case "raw_string":
            return Word(raw[1:-1], bare=False, row=row)
        case "ansi_c_string":
            return Word(_unescape(raw[2:-1]), bare=False, row=row)
        case "translated_string":
            return _string(raw[1:], node.children[-1] if node.children else node, row)
        case "string":
            return _string(raw, node, row)
        case "concatenation":
            parts = [
                _word(child, source) if child.type != "concatenation" else Word(_text(child, source), False)
                for child in node.children
            ]
            return Word("".join(p.text for p in parts), all(p.sure for p in parts), all(p.bare for p in parts), row)
        case "word" | "number" | "variable_name" | "special_variable_name" | "regex" | "extglob_pattern" | "test_operator":
            plain = re.sub(r"\\(.)", lambda m: "" if m[1] == "\n" else m[1], raw, flags=re.DOTALL)
            return Word(plain, bare="\\" not in raw, row=row)
    return Word(raw, sure=node.child_count == 0 and "$" not in raw and "`" not in raw, bare=False, row=row)


def _string(raw: str, node: "tree_sitter.Node", row: int) -> Word:
    sure = all(child.type in ('"', "string_content") for child in node.children)
    inner = raw[1:-1]
    plain = re.sub(r'\\(["\\$`\n])', lambda m: "" if m[1] == "\n" else m[1], inner) if sure else inner.replace('\\"', '"')
    return Word(plain, sure, bare=False, row=row)


def _unescape(text: str) -> str:
    """`$'...'`, and what `printf` makes of its format."""

    def one(found: "re.Match[str]") -> str:
        hexadecimal, octal, point, letter = found.groups()
        if letter is not None:
            return _CONTROLS.get(letter, letter)
        number = int(hexadecimal or point, 16) if octal is None else int(octal, 8)
        return chr(number) if number < 0x110000 else found[0]

    return _ESCAPE.sub(one, text)
