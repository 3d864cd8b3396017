"""Findings as text, JSON, SARIF 2.1.0 and GitHub annotations; and the baseline of known ones.

This module is pure.
"""

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from safe_compose import __version__
from safe_compose.audit.findings import Finding
from safe_compose.audit.risk import DOES, SOFT
from safe_compose.audit.walk import Note
from safe_compose.core.text import make_visible
from safe_compose.errors import ConfigError

Known = Mapping[tuple[str, str, str], int]
"""(path, kind, command) -> number of occurrences. Lines do not count, because they move."""


def text(
    findings: Sequence[Finding], notes: Sequence[Note], looked_at: int, known: int
) -> Iterator[str]:
    """Yield lines for people; each begins with PATH:LINE, which editors and terminals can open."""
    for f in findings:
        yield make_visible(f"{f.path}:{f.line}: {f.level}: {f.sentence}: {f.command}")
        if f.keeps:
            yield make_visible(f"    keeps the data: {f.keeps}")
        yield make_visible(f"    with a verified backup first: {f.guarded}")
    for note in notes:
        yield make_visible(f"{note.path}{f':{note.line}' if note.line else ''}: note: {note.words}")
    where = f" in {_count(len({f.path for f in findings}), 'file')}" if findings else ""
    old = f", {known} more in the baseline" if known else ""
    total = _count(len(findings), "finding")
    files = _count(looked_at, "file")
    yield f"{total}{where}{old}; {files} looked at, {_count(len(notes), 'note')}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def to_json(
    findings: Sequence[Finding], old: Sequence[Finding], notes: Sequence[Note], looked_at: int
) -> dict[str, Any]:
    """Return the JSON of `--json`, without its version."""
    shown = sorted(
        [*((f, False) for f in findings), *((f, True) for f in old)],
        key=lambda pair: (pair[0].path, pair[0].line),
    )
    return {
        "findings": [
            {
                "path": f.path,
                "line": f.line,
                "kind": f.kind,
                "level": f.level,
                "command": f.command,
                "does": f.does,
                "doubt": f.doubt,
                "place": f.place,
                "mount": f.mount,
                "keeps": f.keeps,
                "guarded": f.guarded,
                "baseline": is_old,
            }
            for f, is_old in shown
        ],
        "notes": [{"path": n.path, "line": n.line or None, "note": n.words} for n in notes],
        "files": looked_at,
    }


def sarif(findings: Sequence[Finding], notes: Sequence[Note]) -> dict[str, Any]:
    """Return a SARIF 2.1.0 log of one run."""
    kinds = [kind for kind in DOES if kind not in SOFT]
    seen: Counter[tuple[str, str, str]] = Counter()
    results = []
    for f in findings:
        seen[_key(f)] += 1
        results.append(_sarif_result(f, kinds.index(f.kind), seen[_key(f)]))
    notifications = [
        {
            "level": "note",
            "message": {"text": make_visible(n.words)},
            "locations": [_location(n.path, n.line or 1)],
        }
        for n in notes
    ]
    invocation = {"executionSuccessful": True, "toolExecutionNotifications": notifications}
    rules = [_sarif_rule(kind) for kind in kinds]
    driver = {"name": "safe-compose", "version": __version__, "rules": rules}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "invocations": [invocation],
                "results": results,
            }
        ],
    }


def _sarif_rule(kind: str) -> dict[str, Any]:
    advice = "Leave out what deletes, or let safe-compose make a verified backup first."
    return {
        "id": kind,
        "shortDescription": {"text": f"This command {DOES[kind]}."},
        "help": {"text": advice},
    }


def _sarif_result(f: Finding, rule: int, count: int) -> dict[str, Any]:
    """Return a result; `count` tells equal findings of one file apart in its fingerprint."""
    key = "\0".join([*_key(f), str(count)]).encode("utf-8", "surrogateescape")
    return {
        "ruleId": f.kind,
        "ruleIndex": rule,
        "level": f.level,
        "message": {"text": _message(f)},
        "locations": [_location(f.path, f.line)],
        "partialFingerprints": {"safeComposeCommand/v1": hashlib.sha256(key).hexdigest()},
    }


def _message(f: Finding) -> str:
    keeps = f"{f.keeps} keeps the data; " if f.keeps else ""
    return make_visible(
        f"{f.command}: {f.sentence}. {keeps}{f.guarded} makes a verified backup first."
    )


def _location(path: str, line: int) -> dict[str, Any]:
    uri = quote(path.encode("utf-8", "surrogateescape"), safe="/._-~")
    artifact = (
        {"uri": f"file://{uri}"} if path.startswith("/") else {"uri": uri, "uriBaseId": "%SRCROOT%"}
    )
    return {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": line}}}


def github(findings: Sequence[Finding], notes: Sequence[Note]) -> Iterator[str]:
    """Yield workflow commands that GitHub shows next to the lines of a change."""
    for f in findings:
        yield _annotation(f.level, f.path, f.line, f"safe-compose: {f.kind}", _message(f))
    for note in notes:
        yield _annotation("notice", note.path, note.line, "safe-compose", make_visible(note.words))


def _annotation(level: str, path: str, line: int, title: str, words: str) -> str:
    def data(value: str) -> str:
        return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    def setting(value: str) -> str:
        return data(value).replace(":", "%3A").replace(",", "%2C")

    where = f",line={line}" if line else ""
    return f"::{level} file={setting(path)}{where},title={setting(title)}::{data(words)}"


# -- baseline --------------------------------------------------------------------------------------


def _key(f: Finding) -> tuple[str, str, str]:
    return f.path, f.kind, f.command


def baseline(findings: Sequence[Finding]) -> str:
    """Return the file that records these findings as known."""
    counted = Counter(_key(f) for f in findings)
    rows = [
        {"path": path, "kind": kind, "command": command, "count": n}
        for (path, kind, command), n in sorted(counted.items())
    ]
    return json.dumps({"version": 1, "findings": rows}, indent=1) + "\n"


def read_baseline(data: str, name: str) -> Known:
    """Return the known findings of a baseline.

    Raises:
        ConfigError: The text is no baseline.
    """
    try:
        whole = json.loads(data)
        if whole["version"] != 1:
            raise ValueError("its version is not 1")
        return {
            (str(r["path"]), str(r["kind"]), str(r["command"])): int(r["count"])
            for r in whole["findings"]
        }
    except (ValueError, KeyError, TypeError) as fault:
        step = f"safe-compose audit --baseline {shlex.quote(name)} --write-baseline"
        raise ConfigError(
            f"{name} does not read as a baseline ({fault}); nothing was judged", next_step=step
        ) from fault


def subtract_known(
    findings: Sequence[Finding], known: Known
) -> tuple[list[Finding], list[Finding]]:
    """Return (new findings, known ones).

    Of one command in one file, as many are known as the baseline counts.
    """
    left = dict(known)
    new: list[Finding] = []
    old: list[Finding] = []
    for f in findings:
        if left.get(_key(f), 0) > 0:
            left[_key(f)] -= 1
            old.append(f)
        else:
            new.append(f)
    return new, old
