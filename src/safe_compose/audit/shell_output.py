"""The output of commands, as far as their text shows it: input of a shell, `xargs`, or a file."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from safe_compose.audit.programs import ENGINES
from safe_compose.audit.shell_state import ShellState
from safe_compose.audit.shell_words import (
    ShellSource,
    Word,
    find_row,
    name_program,
    read_text,
    read_word,
    unescape,
)

if TYPE_CHECKING:
    import tree_sitter

_DEEPEST = 12
_PASSING = frozenset(
    {"cat", "tee", "grep", "head", "tail", "sort", "uniq", "tac", "sponge", "less"}
)
_DECODERS = frozenset(
    {
        "base64", "base32", "xxd", "openssl", "gunzip", "zcat", "gzip", "bunzip2", "xz", "unxz",
        "zstd", "uudecode", "rev", "tr", "gpg", "age", "sops", "basenc", "unhex",
    }
)  # fmt: skip


class Reader(Protocol):
    """The reader of a line (`shell.ShellReader`), as far as it is used here."""

    state: ShellState

    def is_spent(self) -> bool:
        """Count one part of the line, and return whether there were too many."""

    def parse(self, text: str) -> "tree_sitter.Node | None":
        """Return the tree of a text; None when it cannot be read."""

    def expand(self, word: Word, depth: int) -> tuple[Word, ...]:
        """Return the words that a shell makes of one word of the text."""


class Feed(NamedTuple):
    """Something that a command reads on stdin."""

    nodes: tuple["tree_sitter.Node", ...] = ()
    """Commands before it in a pipeline."""
    source: ShellSource = ShellSource("", 0)
    feeds: tuple["Feed", ...] = ()
    """What these read in turn."""
    text: Word | None = None
    """A here-document or here-string."""
    file: Word | None = None


def here_text(node: "tree_sitter.Node", source: ShellSource) -> Word:
    """Return the text of a here-document's body or of a here-string."""
    if node.type == "heredoc_body":
        return Word(read_text(node, source), row=find_row(node, source))
    words = [read_word(child, source) for child in node.children if child.type != "<<<"]
    return Word(" ".join(word.text for word in words), row=find_row(node, source))


def own_feeds(node: "tree_sitter.Node", source: ShellSource) -> tuple[Feed, ...]:
    """Return what the redirects of a node make its commands read."""
    found = []
    for child in node.children:
        if child.type == "herestring_redirect":
            found.append(Feed(text=here_text(child, source)))
        elif child.type == "heredoc_redirect":
            found += [
                Feed(text=here_text(body, source))
                for body in child.children
                if body.type == "heredoc_body"
            ]
        elif child.type == "file_redirect" and read_text(child, source).startswith("<"):
            target = child.child_by_field_name("destination")
            if target is not None:
                found.append(Feed(file=read_word(target, source)))
    return tuple(found)


def feed_children(
    node: "tree_sitter.Node", source: ShellSource, feeds: tuple[Feed, ...]
) -> list[tuple["tree_sitter.Node", tuple[Feed, ...]]]:
    """Return the children of a node, each with what it reads."""
    if node.type == "pipeline":
        return _feed_pipeline(node, source, feeds)
    own = own_feeds(node, source) if node.type == "redirected_statement" else ()
    children: list[tuple[tree_sitter.Node, tuple[Feed, ...]]] = []
    for child in node.children:
        if child.type == "heredoc_redirect" and child.parent is not None:
            before = Feed((node.children[0],), source, own or feeds)
            children += [
                (
                    inner,
                    (before,) if inner.type in ("pipeline", "command") else (),
                )
                for inner in child.children
            ]
        else:
            children.append((child, own or feeds))
    return children


def _feed_pipeline(
    node: "tree_sitter.Node", source: ShellSource, feeds: tuple[Feed, ...]
) -> list[tuple["tree_sitter.Node", tuple[Feed, ...]]]:
    children = []
    for child in node.children:
        children.append((child, feeds))
        if child.type not in ("|", "|&"):
            feeds = (Feed((child,), source, feeds),)
    return children


def read_feed(reader: Reader, feed: Feed, depth: int) -> tuple[Word, ...]:
    """Return the texts that a feed gives; empty when they are not known."""
    if feed.text is not None:
        return (feed.text,)
    if feed.file is not None:
        return _read_file(reader, feed.file)
    return tuple(
        word
        for node in feed.nodes
        for word in find_output(reader, node, feed.source, feed.feeds, depth)
    )


def find_output_of_script(reader: Reader, script: str, depth: int) -> tuple[Word, ...]:
    """Return what a script prints: texts, or a word that is not sure, with its origin."""
    root = reader.parse(script) if depth <= _DEEPEST else None
    if root is None:
        return ()
    found = find_output(reader, root, ShellSource(script, 0), (), depth)
    return tuple(word._replace(text=word.text.rstrip("\n")) for word in found)


def find_output(
    reader: Reader,
    node: "tree_sitter.Node",
    source: ShellSource,
    feeds: tuple[Feed, ...],
    depth: int,
) -> tuple[Word, ...]:
    """Return what a node's commands print; empty when that is not known."""
    if depth > _DEEPEST or reader.is_spent():
        return ()
    if node.type == "command":
        return tuple(_output_of_command(reader, node, source, feeds, depth))
    if node.type in ("comment", "file_redirect", "heredoc_redirect", "variable_assignment"):
        return ()
    children = feed_children(node, source, feeds)
    if node.type == "pipeline":
        children = children[-1:]
    elif node.type == "redirected_statement":
        children = children[:1]
    return tuple(
        word
        for child, given in children[:200]
        if child.is_named
        for word in find_output(reader, child, source, given, depth + 1)
    )


def _output_of_command(
    reader: Reader,
    node: "tree_sitter.Node",
    source: ShellSource,
    feeds: tuple[Feed, ...],
    depth: int,
) -> Iterator[Word]:
    words = [
        word
        for child in node.children
        if child.is_named and not child.type.endswith("redirect") and child.type != "comment"
        for part in (child.children if child.type == "command_name" else [child])
        if child.type != "variable_assignment"
        for word in reader.expand(read_word(part, source), depth + 1)
    ]
    name = name_program(words[0]) if words else None
    if name is None:
        return
    feeds = own_feeds(node, source) or feeds
    given = [word for feed in feeds for word in read_feed(reader, feed, depth + 1)]
    yield from _list_printed(reader, name, words, given)


def _list_printed(
    reader: Reader, name: str, words: Sequence[Word], given: Sequence[Word]
) -> Iterator[Word]:
    """Yield what a command with these words prints when it reads the texts `given`."""
    rest = words[1:]
    operands = [word for word in rest if not word.text.startswith("-")]
    if name in _TEXTS:
        yield _TEXTS[name](rest, words[0].row)
    elif name in ("which", "whence") or (
        name in ("command", "type") and re.match(r"-\w*[vVpP]", rest[0].text if rest else "")
    ):
        if operands and name_program(operands[0]) in ENGINES:
            yield Word(operands[0].text, operands[0].sure)
    elif name in ("curl", "wget", "fetch"):
        yield Word(f"$({name})", sure=False, origin="downloaded")
    elif name in ENGINES:
        yield from _list_printed_by_engine(rest)
    elif name in ("find", "ls", "fd"):
        for word in operands[:1] if name == "find" else operands:
            yield Word(word.text.rstrip("/") + "/*", sure=False, origin="paths")
    elif name == "cat" and operands and operands[0].text != "-":
        for word in operands:
            yield from _read_file(reader, word)
    elif name in _DECODERS:
        yield from _decode(name, rest)
    elif name in _PASSING:
        yield from given


def _list_printed_by_engine(rest: Sequence[Word]) -> Iterator[Word]:
    texts = [word.text for word in rest]
    if "Mountpoint" in " ".join(texts) and "inspect" in texts:
        yield Word("$(docker inspect)", sure=False, origin="mountpoint")
    elif set(texts) & {"ps", "ls", "list", "images", "inspect", "create", "run"}:
        yield Word("$(docker ls)", sure=False, origin="ids")


def _echo(rest: Sequence[Word], row: int) -> Word:
    words = list(rest)
    escapes = False
    while words and re.fullmatch(r"-[neE]+", words[0].text):
        escapes = escapes or "e" in words.pop(0).text
    text = " ".join(word.text for word in words)
    sure = all(word.sure for word in words)
    # dash's echo, and zsh's, replace escapes without -e
    return Word(unescape(text) if escapes or "\\n" in text else text, sure, False, row)


def _printf(rest: Sequence[Word], row: int) -> Word:
    if rest[:1] and rest[0].text == "--":
        rest = rest[1:]
    if not rest:
        return Word("")
    values = list(rest[1:])
    sure = all(word.sure for word in rest)
    form, out = unescape(rest[0].text), ""
    for _ in range(64):
        before = len(values)
        out += re.sub(
            r"%%|%[-+ #0]*[\d.]*[a-zA-Z]",
            lambda found: "%" if found[0] == "%%" else values.pop(0).text if values else "",
            form,
        )
        if not values or len(values) == before:
            break
    return Word(out, sure, False, row)


def _yes(rest: Sequence[Word], row: int) -> Word:
    return Word(" ".join(word.text for word in rest) or "y", row=row)


_TEXTS = {"echo": _echo, "printf": _printf, "yes": _yes}


def _decode(name: str, rest: Sequence[Word]) -> Iterator[Word]:
    flags = {word.text for word in rest if word.text.startswith("-")}
    decodes = bool(flags & {"-d", "-D", "--decode", "-r", "-p", "-rp", "-dc", "-cd", "-di", "-c"})
    if name in ("base64", "base32", "basenc", "openssl", "xz", "zstd", "gzip") and not decodes:
        return
    yield Word(f"$({name})", sure=False, origin="decoded")


def _read_file(reader: Reader, path: Word) -> tuple[Word, ...]:
    """Return the content of a file that the line wrote before; else the file."""
    written = [write for write in reader.state.writes if write.path.text == path.text]
    found = tuple(word for write in written for word in write.content)
    return found or ((path._replace(origin="file"),) if path.sure else ())
