"""The detection of deletions of volumes in code that is not shell.

Its strings are read as commands, where it can start programs at all; a script that only prints or
searches for such words deletes nothing. This module is pure.
"""

import re

from safe_compose.audit.destructive_words import may_hold_destructive
from safe_compose.audit.programs import ENGINES
from safe_compose.audit.risk import SOFT, docker_name, read_invocation
from safe_compose.audit.shell import read, read_argv
from safe_compose.audit.shell_line import ShellLine

_LONGEST = 50_000
_STARTS = re.compile(
    r"\b(?:system|popen|Popen|p?exec\w*|spawn\w*|subprocess|shell\w*|sh|child_process|Command|cmd"
    r"|run|call|check_\w+|getoutput|getstatusoutput|passthru|proc_open|open3|Open3|qx|Process\w*"
    r"|invoke|Invoke|os|IO|fork|zx|execa|do|shell-command|call-process|start-process)\b\s*(?:[(\[\"'`.{/!]|shell\b)|`|%x|qx|\$`"
)
"""Matches what starts a program in one of the usual languages."""
_SDK = re.compile(
    r"volumes?\b[\w.()\[\]'\"]*?\.(?:prune|remove)\w*\s*\(|\.remove\([^)]*\bv\s*=\s*(?:True|1)"
    r"|prune_volumes|remove_volume|VolumeRemove|VolumesPrune|pruneVolumes|/volumes/prune"
)
_CLIENT = re.compile(r"\bdocker\b|\bpodman\b|dockerode", re.IGNORECASE)
_STRING = re.compile(r"(?P<q>\"\"\"|'''|\"|'|`)(?P<text>(?:\\.|(?!(?P=q)).)*?)(?P=q)", re.DOTALL)
_NEAR = re.compile(r"\s*[,+]?\s*[\[({]?\s*(?:args\s*:\s*)?[\[({]?\s*")


def may_delete(code: str) -> bool:
    """Return whether code may delete a volume; when it is too long to be read, by its words."""
    if not may_hold_destructive(code):
        return False
    if len(code) > _LONGEST:
        return bool(_CLIENT.search(code))
    if _SDK.search(code) and _CLIENT.search(code):
        return True
    if re.search(r"\bDELETE\b|requests\.delete|\.delete\(", code) and re.search(
        r"docker\.sock[\s\S]*/volumes|/volumes[\s\S]*docker\.sock", code
    ):
        return True
    if not _STARTS.search(code):
        return False
    groups: list[list[str]] = []
    end = -1
    for found in _STRING.finditer(code):
        if end >= 0 and _NEAR.fullmatch(code[end : found.start()]) and len(groups[-1]) < 50:
            groups[-1].append(found["text"])
        else:
            groups.append([found["text"]])
        end = found.end()
    argvs = [argv for words in groups[:200] for argv in (words, words[1:]) if argv]
    return any(_deletes(read_argv(argv)) for argv in argvs) or any(
        re.search(r"\s", text) and _deletes(read(re.sub(r"\\(.)", r"\1", text), expand=True))
        for words in groups[:200]
        for text in (*words, "".join(words))
    )


def _deletes(line: ShellLine) -> bool:
    for command in line.commands:
        program = command.program
        if program in ENGINES:
            words = command.words[1:]
            # a word may be added to the string: "docker volume rm " + name
            for asked in (words, (*words, words[-1]._replace(text="x")) if words else words):
                found = read_invocation(asked, docker_name(program))
                if found is not None and found.kind not in SOFT:
                    return True
    return False
