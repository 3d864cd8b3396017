"""Print the summary of a job from the JSON of `safe-compose verify` on stdin.

It is a table of HTML on one line. Names come from engines and stores, and no name may become markup
or Markdown.
"""

import html
import json
import sys
from typing import Any


def cell(value: object) -> str:
    """Return a value as text alone: what could be markup is escaped, control characters are `?`."""
    text = "".join(char if char.isprintable() else "?" for char in str(value))
    return f"<td><code>{html.escape(text)}</code></td>"


def row(result: dict[str, Any]) -> str:
    """Return the row of one backup."""
    verified = result.get("verified") or {}
    state = result.get("fault") or f"verified {verified.get('level', '')}".strip()
    volumes = ", ".join(map(str, result.get("volumes", ())))
    values = (result.get("id"), result.get("project"), volumes, result.get("bytes"), state)
    return f"<tr>{''.join(map(cell, values))}</tr>"


def summary(text: str) -> str:
    """Return the summary of the JSON; a sentence where there is none."""
    try:
        results = json.loads(text)["results"]
    except (ValueError, KeyError, TypeError):
        return "### safe-compose\n\nNo backup was read; the log of the step says why.\n"
    broken = sum(1 for result in results if result.get("fault"))
    count = f"{len(results)} backup{'' if len(results) == 1 else 's'} read again, {broken} broken."
    heads = "".join(f"<th>{name}</th>" for name in ("id", "project", "volumes", "bytes", "result"))
    table = f"<table><tr>{heads}</tr>{''.join(map(row, results))}</table>"
    return f"### safe-compose\n\n{count}\n\n" + (f"{table}\n" if results else "")


if __name__ == "__main__":
    sys.stdout.write(summary(sys.stdin.read()))
