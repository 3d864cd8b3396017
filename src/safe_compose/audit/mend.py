"""Pure: a document with a warning and the safe form beside every command in it that deletes volumes."""

import difflib
import re
from collections import Counter
from collections.abc import Sequence

from safe_compose.audit import judge
from safe_compose.audit.judge import Finding
from safe_compose.audit.markdown import markdown, outline

_MARKER = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+")


def mended(path: str, data: bytes) -> bytes:
    """The bytes of a Markdown document with its warnings; the same bytes where none is missing.

    A warning is only written where the document afterwards reads as before, but for that warning: the others stay findings.
    """
    text = data.decode("utf-8", "surrogateescape")
    done: set[tuple[int, int]] = set()
    while True:
        blocks = {f.block for f in _findings(path, text) if f.block is not None} - done
        if not blocks:
            return text.encode("utf-8", "surrogateescape")
        block = max(blocks)  # from the end, so that lines before it stay where they are
        done.add(block)
        text = _with_warning(path, text, block) or text


def diff(path: str, before: bytes, after: bytes) -> str:
    """What changes, as a unified diff."""
    old, new = (data.decode("utf-8", "replace").replace("\r\n", "\n").splitlines(keepends=True) for data in (before, after))
    return "".join(line if line.endswith("\n") else line + "\n" for line in difflib.unified_diff(old, new, path, path))


def _findings(path: str, text: str) -> list[Finding]:
    plain = _plain(text)
    return judge.findings(path, plain, markdown(plain))


def _with_warning(path: str, text: str, block: tuple[int, int]) -> str | None:
    """The document with a warning beside one block; None where it would then read otherwise."""
    before = _findings(path, text)
    words = "> **Warning:** " + " ".join(_sentences([f for f in before if f.block == block]))
    for less in (0, 4):  # what is indented is so by its list, or is code for it
        after = _placed(text, block, words, less)
        now = _findings(path, after)
        gone = Counter(_what(f) for f in before) - Counter(_what(f) for f in now)
        more = Counter(_what(f) for f in now) - Counter(_what(f) for f in before)
        lost = Counter(outline(_plain(text))) - Counter(outline(_plain(after)))
        if gone and not more and not lost:
            return after
    return None


def _placed(text: str, block: tuple[int, int], words: str, less: int) -> str:
    """The document with words above a fence, or below any other block; `less`: blanks that they stand further to the left."""
    lines = text.split("\n")
    end = "\r" if lines[0].endswith("\r") else ""
    if lines[-1]:
        lines[-1:] = [lines[-1] + end, ""]  # the last line gets its end
    first, last = block
    line = lines[first - 1]
    prefix = (re.match(r"[ \t>]*", line) or [""])[0]
    if re.match(r"[ \t>]*(?:```|~~~)", line):
        above = lines[first - 2].rstrip("\r") if first > 1 else ""
        gap = [prefix.rstrip() + end] if above.strip(" \t>") else []
        lines[first - 1 : first - 1] = [*gap, prefix + words + end, prefix.rstrip() + end]
    else:
        if marker := _MARKER.match(line[len(prefix.rstrip(" \t")) :]):
            prefix = prefix.rstrip(" \t") + " " * marker.end()
        if prefix.endswith(" " * less):
            prefix = prefix[: len(prefix) - less]
        while last < len(lines) and lines[last].strip(" \t\r>") and line.lstrip(" >").startswith("|"):
            last += 1  # below the table, not in it
        gap = [prefix.rstrip() + end] if last < len(lines) and lines[last].strip(" \t\r>") else []
        lines[last:last] = [prefix.rstrip() + end, prefix + words + end, *gap]
    return "\n".join(lines)


def _what(finding: Finding) -> tuple[str, str]:
    return finding.kind, finding.command


def _plain(text: str) -> str:
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _sentences(findings: Sequence[Finding]) -> list[str]:
    said = []
    for f in {_what(f): f for f in findings}.values():
        keeps = f"{_code(f.keeps)} keeps the data; " if f.keeps else ""
        said.append(f"{_code(f.command)} {f.does} for good. {keeps}{_code(f.guarded)} makes a verified backup first.")
    return said


def _code(text: str) -> str:
    """Inline code, whatever backticks are in it."""
    text = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    blank = " " if "`" in text[:1] + text[-1:] else ""
    return f"{fence}{blank}{text}{blank}{fence}"
