"""Pure: findings as text, JSON, SARIF 2.1.0 and GitHub annotations; and the baseline of those that are known."""

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from safe_compose import __version__
from safe_compose.artifacts import visible
from safe_compose.audit.judge import Finding
from safe_compose.audit.tree import Note
from safe_compose.doors import DOES, SOFT
from safe_compose.errors import ConfigError

Known = Mapping[tuple[str, str, str], int]
"""(path, kind, command) -> how often: lines move, so they do not count."""


def text(findings: Sequence[Finding], notes: Sequence[Note], looked_at: int, known: int) -> Iterator[str]:
    """Lines for people: PATH:LINE first, as editors and terminals open it."""
    for f in findings:
        yield visible(f"{f.path}:{f.line}: {f.level}: {f.sentence}: {f.command}").replace("\n", " ")
        if f.keeps:
            yield visible(f"    keeps the data: {f.keeps}").replace("\n", " ")
        yield visible(f"    with a verified backup first: {f.guarded}").replace("\n", " ")
    for note in notes:
        yield visible(f"{note.path}{f':{note.line}' if note.line else ''}: note: {note.words}").replace("\n", " ")
    where = f" in {_counted(len({f.path for f in findings}), 'file')}" if findings else ""
    old = f", {known} more in the baseline" if known else ""
    said = _counted(len(findings), "finding")
    yield f"{said}{where}{old}; {_counted(looked_at, 'file')} looked at, {_counted(len(notes), 'note')}"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def shape(findings: Sequence[Finding], old: Sequence[Finding], notes: Sequence[Note], looked_at: int) -> dict[str, Any]:
    """The JSON of `--json`, without its version."""
    shown = sorted([*((f, False) for f in findings), *((f, True) for f in old)], key=lambda pair: (pair[0].path, pair[0].line))
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
    """A SARIF 2.1.0 log of one run."""
    kinds = [kind for kind in DOES if kind not in SOFT]
    rules = [
        {
            "id": kind,
            "shortDescription": {"text": f"This command {DOES[kind]}."},
            "help": {"text": "Leave out what deletes, or let safe-compose make a verified backup first."},
        }
        for kind in kinds
    ]
    seen: Counter[tuple[str, str, str]] = Counter()
    results = []
    for f in findings:
        seen[_key(f)] += 1
        mark = hashlib.sha256("\0".join([*_key(f), str(seen[_key(f)])]).encode("utf-8", "surrogateescape")).hexdigest()
        results.append(
            {
                "ruleId": f.kind,
                "ruleIndex": kinds.index(f.kind),
                "level": f.level,
                "message": {"text": _message(f)},
                "locations": [_location(f.path, f.line)],
                "partialFingerprints": {"safeComposeCommand/v1": mark},
            }
        )
    told = [{"level": "note", "message": {"text": visible(n.words)}, "locations": [_location(n.path, n.line or 1)]} for n in notes]
    invocation = {"executionSuccessful": True, "toolExecutionNotifications": told}
    driver = {"name": "safe-compose", "version": __version__, "rules": rules}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "invocations": [invocation], "results": results}],
    }


def _message(f: Finding) -> str:
    keeps = f"{f.keeps} keeps the data; " if f.keeps else ""
    return visible(f"{f.command}: {f.sentence}. {keeps}{f.guarded} makes a verified backup first.")


def _location(path: str, line: int) -> dict[str, Any]:
    uri = quote(path.encode("utf-8", "surrogateescape"), safe="/._-~")
    artifact = {"uri": f"file://{uri}"} if path.startswith("/") else {"uri": uri, "uriBaseId": "%SRCROOT%"}
    return {"physicalLocation": {"artifactLocation": artifact, "region": {"startLine": line}}}


def github(findings: Sequence[Finding], notes: Sequence[Note]) -> Iterator[str]:
    """Workflow commands that GitHub shows beside the lines of a change."""
    for f in findings:
        yield _annotation(f.level, f.path, f.line, f"safe-compose: {f.kind}", _message(f))
    for note in notes:
        yield _annotation("notice", note.path, note.line, "safe-compose", visible(note.words))


def _annotation(level: str, path: str, line: int, title: str, words: str) -> str:
    def data(value: str) -> str:
        return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    def setting(value: str) -> str:
        return data(value).replace(":", "%3A").replace(",", "%2C")

    where = f",line={line}" if line else ""
    return f"::{level} file={setting(path)}{where},title={setting(title)}::{data(words)}"


# -- baseline ----------------------------------------------------------------------------------------------------------


def _key(f: Finding) -> tuple[str, str, str]:
    return f.path, f.kind, f.command


def baseline(findings: Sequence[Finding]) -> str:
    """The file that makes today's findings known."""
    counted = Counter(_key(f) for f in findings)
    rows = [{"path": path, "kind": kind, "command": command, "count": n} for (path, kind, command), n in sorted(counted.items())]
    return json.dumps({"version": 1, "findings": rows}, indent=1) + "\n"


def read_baseline(data: str, name: str) -> Known:
    """What a baseline knows. Raises ConfigError when it is none."""
    try:
        whole = json.loads(data)
        if whole["version"] != 1:
            raise ValueError("its version is not 1")
        return {(str(r["path"]), str(r["kind"]), str(r["command"])): int(r["count"]) for r in whole["findings"]}
    except (ValueError, KeyError, TypeError) as fault:
        step = f"safe-compose audit --baseline {shlex.quote(name)} --write-baseline"
        raise ConfigError(f"{name} does not read as a baseline ({fault}); nothing was judged", next_step=step) from fault


def without(findings: Sequence[Finding], known: Known) -> tuple[list[Finding], list[Finding]]:
    """(new findings, known ones): of the same command in the same file as many are known as the baseline counts."""
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
