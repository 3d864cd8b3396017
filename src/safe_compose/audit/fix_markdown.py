"""Documents with a warning and the safe form next to every command that deletes volumes.

This module is pure.
"""

import difflib
import re
from collections import Counter
from collections.abc import Sequence

from safe_compose.audit import findings
from safe_compose.audit.findings import FileFindings, Finding
from safe_compose.audit.markdown import markdown, outline
from safe_compose.core.text import make_visible

_MARKER = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+")


def fix(path: str, data: bytes) -> bytes:
    """Return a Markdown document with its warnings; unchanged where none is missing.

    A warning is only written where the document otherwise reads as before: other findings stay.
    """
    text = data.decode("utf-8", "surrogateescape")
    if _find(path, text).left_out:
        return data  # what the rest means is not known
    done: set[tuple[int, int]] = set()
    while True:
        blocks = {f.block for f in _findings(path, text) if f.block is not None} - done
        if not blocks:
            return text.encode("utf-8", "surrogateescape")
        block = max(blocks)  # from the end, so that lines before it keep their numbers
        done.add(block)
        text = _add_warning(path, text, block) or text


def diff(path: str, before: bytes, after: bytes) -> str:
    """Return the changes as a unified diff."""
    old, new = (
        data.decode("utf-8", "replace").replace("\r\n", "\n").splitlines(keepends=True)
        for data in (before, after)
    )
    name = make_visible(path)
    return "".join(
        line if line.endswith("\n") else line + "\n"
        for line in difflib.unified_diff(old, new, name, name)
    )


def _findings(path: str, text: str) -> list[Finding]:
    return _find(path, text).findings


def _find(path: str, text: str) -> FileFindings:
    plain = _normalize(text)
    return findings.find(path, plain, markdown(plain))


def _add_warning(path: str, text: str, block: tuple[int, int]) -> str | None:
    """Return the document with a warning next to one block, or None.

    None where that would change the meaning of the rest.
    """
    before = _findings(path, text)
    words = "> **Warning:** " + " ".join(_sentences([f for f in before if f.block == block]))
    for less in (0, 4):  # indentation comes from a list, or makes the line code in it
        after = _insert(text, block, words, less)
        now = _findings(path, after)
        gone = Counter(_describe_change(f) for f in before) - Counter(
            _describe_change(f) for f in now
        )
        more = Counter(_describe_change(f) for f in now) - Counter(
            _describe_change(f) for f in before
        )
        lost = Counter(outline(_normalize(text))) - Counter(outline(_normalize(after)))
        if gone and not more and not lost:
            return after
    return None


def _insert(text: str, block: tuple[int, int], words: str, less: int) -> str:
    """Return the document with a text above a fence, or below any other block.

    The text is indented by `less` fewer blanks.
    """
    lines = text.split("\n")
    end = "\r" if lines[0].endswith("\r") else ""
    if lines[-1]:
        lines[-1:] = [lines[-1] + end, ""]  # the last line gets its line end
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
        while (
            last < len(lines) and lines[last].strip(" \t\r>") and line.lstrip(" >").startswith("|")
        ):
            last += 1  # below the table, not in it
        gap = [prefix.rstrip() + end] if last < len(lines) and lines[last].strip(" \t\r>") else []
        lines[last:last] = [prefix.rstrip() + end, prefix + words + end, *gap]
    return "\n".join(lines)


def _describe_change(finding: Finding) -> tuple[str, str]:
    return finding.kind, finding.command


def _normalize(text: str) -> str:
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _sentences(findings: Sequence[Finding]) -> list[str]:
    sentences = []
    for f in {_describe_change(f): f for f in findings}.values():
        keeps = f"{_code(f.keeps)} keeps the data; " if f.keeps else ""
        sentences.append(
            f"{_code(f.command)} {f.does} for good. {keeps}{_code(f.guarded)} makes a verified"
            " backup first."
        )
    return sentences


def _code(text: str) -> str:
    """Return inline code, with any number of backticks in it."""
    text = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    blank = " " if "`" in text[:1] + text[-1:] else ""
    return f"{fence}{blank}{text}{blank}{fence}"
