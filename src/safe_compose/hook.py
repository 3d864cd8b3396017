"""The road of `safe-compose hook`: what a coding agent's shell line would do to volumes, answered before it runs.

The hook is a second look, not the guard: whatever it lets by still meets safe-compose when it runs `docker` by its name.
So a line that is harmless gets no answer at all (empty output, exit 0: the agent's own rules decide), a door that goes
through safe-compose gets `ask`, and a door that goes round it, or a line that switches it off, gets `deny`.
"""

import json
import os
import posixpath
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safe_compose import grammar, harmless, shim
from safe_compose.artifacts import hide_secrets, redact
from safe_compose.doors import DOES, INSTALL, SOFT, docker_name, kind_of, may_turn
from safe_compose.shell_line import ENGINES, REMOVERS, SENDERS, Line, Missing, Simple, Word, read, read_argv, words_of_a_door

LOOK_SECONDS = 10.0
"""How long the engine may take to tell which volumes a command means; after that the words alone are judged."""
WHOLE_SECONDS = 20.0
"""How long one answer may take altogether."""
LARGEST = 1 << 20
"""Bytes of stdin that are read."""

DECIDES = "A person decides this"

_LEVELS = ("", "ask", "deny")
_COMMAND_KEYS = ("command", "cmd", "commands", "script", "CommandLine", "commandLine", "command_line", "code", "input")
_INPUT_KEYS = ("tool_input", "toolInput", "tool_args", "toolArgs", "input", "args", "arguments", "params", "parameters")
_FOLDER_KEYS = ("cwd", "workdir", "working_directory", "workingDirectory", "Cwd", "directory", "dir")
_DATA_ROOTS = ("/var/lib/docker", "/var/lib/containers/storage", ".local/share/docker", ".local/share/containers/storage")

_EXPANDS = re.compile(r"^~|[*?\[]|\{.*(,|\.\.).*\}")
"""An unquoted word of which the shell makes others; of `{}` find does, quoted or not."""

Look = Callable[[Sequence[str], Path], Mapping[str, Any] | None]


class Answer(NamedTuple):
    """What is said of one line."""

    decision: str = ""
    """`deny`, `ask`, or empty: no opinion."""
    reason: str = ""

    @property
    def rank(self) -> int:
        return _LEVELS.index(self.decision)


NOTHING = Answer()


class Door(NamedTuple):
    """One command that may delete a volume."""

    command: Simple
    invocation: grammar.Invocation
    sure: bool
    """False: only if a word whose value is not known turns out so."""
    round_us: str
    """Why it would not meet safe-compose; empty when it would."""

    @property
    def typed(self) -> str:
        return hide_secrets(" ".join(redact([word.text for word in self.command.words])))


# -- in and out --------------------------------------------------------------------------------------------------------


def main(words: Sequence[str]) -> int:
    """`safe-compose hook [--strict]`: answer what stands on stdin. Returns 0, always: an agent whose hook fails goes on."""
    data = sys.stdin.buffer.read(LARGEST + 1)
    strict = "--strict" in words
    said = apart(lambda: run(data, strict=strict))
    if said is None:
        answer = Answer("ask", f"this line may delete volumes, and safe-compose could not judge it in time or at all. {DECIDES}")
        said = shaped(answer if words_of_a_door(data.decode("utf-8", "replace")) else NOTHING, {}, strict=strict)
    sys.stdout.write(said)
    return 0


def apart(work: Callable[[], str], *, seconds: float = WHOLE_SECONDS) -> str | None:
    """What `work` returns, done in a process of its own; None when that fails, is too slow, or dies.

    The parser is native code, and a hook that crashes lets the line by.
    """
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(readable)
            with os.fdopen(writable, "w") as out:
                out.write(work())
            code = 0
        finally:
            os._exit(code)
    os.close(writable)
    until = time.monotonic() + seconds
    said = b""
    while (left := until - time.monotonic()) > 0 and select.select([readable], [], [], left)[0]:
        more = os.read(readable, 1 << 16)
        if not more:
            break
        said += more
    else:
        os.kill(child, signal.SIGKILL)
    os.close(readable)
    _, status = os.waitpid(child, 0)
    return said.decode() if status == 0 else None


def run(data: bytes, *, strict: bool = False, look: Look | None = None) -> str:
    """Answer one request.

    Given what stood on stdin. Return what goes to stdout: one line of JSON, or nothing when there is no opinion. `strict`:
    `deny` takes the place of `ask`, for callers that know no `ask`. Never raises for what the request holds.
    """
    try:
        request = json.loads(data.decode("utf-8", "replace")) if len(data) <= LARGEST else None
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        text = data[:LARGEST].decode("utf-8", "replace")
        answer = Answer("ask", "the request does not read as JSON, and holds words that may delete volumes")
        return shaped(answer if words_of_a_door(text) else NOTHING, {}, strict=strict)
    here = folder_of(request)
    answer = NOTHING
    for line in lines_of(request):
        found = judge(line, here, look=look or explained)
        answer = found if found.rank > answer.rank else answer
    return shaped(answer, request, strict=strict)


def shaped(answer: Answer, request: Mapping[str, Any], *, strict: bool = False) -> str:
    """The JSON for an answer, in the shape that the caller reads.

    Callers that name the event `PreToolUse` discard an answer with a key that they do not know, and then run the command
    (their output schemas forbid more), so they get `hookSpecificOutput` alone; all others get a plain pair as well.
    """
    if not answer.decision:
        return ""
    decision = "deny" if strict else answer.decision
    shape: dict[str, Any] = {
        "hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": decision,
            "permissionDecisionReason": answer.reason,
        }
    }
    if request.get("hook_event_name", request.get("hookEventName")) != "PreToolUse":
        shape |= {"decision": decision, "permission": decision, "reason": answer.reason}
    return json.dumps(shape) + "\n"


def lines_of(request: Mapping[str, Any]) -> Iterator[str | list[str]]:
    """Every shell line, or argv, that a request carries, wherever the caller puts it."""
    for key in _INPUT_KEYS:
        inner = request.get(key)
        if isinstance(inner, str):
            try:
                inner = json.loads(inner)  # some callers send the arguments as text
            except (ValueError, RecursionError):
                continue
        if isinstance(inner, dict):
            yield from _commands(inner)
    yield from _commands(request)


def _commands(shape: Mapping[str, Any]) -> Iterator[str | list[str]]:
    for key in _COMMAND_KEYS:
        value = shape.get(key)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            words = [word for word in value if isinstance(word, str)]
            yield words
            if key == "commands":
                yield from words


def folder_of(request: Mapping[str, Any]) -> Path:
    """Where the line would run."""
    inner: list[Mapping[str, Any]] = [request[key] for key in _INPUT_KEYS if isinstance(request.get(key), dict)]
    for shape in (*inner, request):
        for key in _FOLDER_KEYS:
            value = shape.get(key)
            if isinstance(value, str) and value and "\0" not in value:
                return Path.cwd() / value
    return Path.cwd()


# -- judging -----------------------------------------------------------------------------------------------------------


def judge(line: str | Sequence[str], here: Path, *, look: Look | None = None) -> Answer:
    """What is to be said of a shell line (or an argv) that would run in the folder `here`."""
    text = line if isinstance(line, str) else " ".join(line)
    try:
        found = read(line) if isinstance(line, str) else read_argv(line)
    except Missing:
        if words_of_a_door(text):
            return Answer("ask", f"this line may delete volumes, and shell lines cannot be read here: {INSTALL}. {DECIDES}")
        return NOTHING
    answers = [*_switched_off(found), *(a for c in found.commands for a in _of_command(c, found, here, text))]
    doors = list(_doors(found, here, text))
    answers += [_of_door(door, _look_for(door, doors, found, here, look)) for door in doors]
    if not doors:
        answers += _unread(found, text)
    return max(answers, key=lambda a: a.rank, default=NOTHING)


def _switched_off(line: Line) -> Iterator[Answer]:
    """Lines that take the guard out of the way."""
    off = Answer("deny", f"SAFE_COMPOSE=off switches the guard off: volumes would be deleted without a backup. {DECIDES}")
    for name, value in line.assignments:
        if name == "SAFE_COMPOSE" and (value.text == "off" or not value.sure):
            yield off
    for command in line.commands:
        words = [word.text for word in command.words]
        if command.program in ("set", "setenv") and "SAFE_COMPOSE" in words and "off" in words:
            yield off  # fish, csh
        if command.program == "safe-compose":
            verb = shim.own_verb(words[1:]) or next((w for w in words[1:] if not w.startswith("-")), "")
            if verb == "approve" and "--list" not in words:
                yield Answer("deny", "`safe-compose approve` is typed by a person, in a terminal of their own")
            elif (
                verb in ("unprotect", "forget")
                or (verb == "shell" and "--uninstall" in words)
                or (verb == "schedule" and "remove" in words)
                or (verb == "trash" and "list" not in words)
                or (verb in ("undo", "restore") and "--confirm" in " ".join(words))
            ):
                yield Answer("ask", f"`safe-compose {verb}` takes protection or data away. {DECIDES}")
        elif "uninstall" in words and any(word.partition("[")[0] == "safe-compose" for word in words):
            yield Answer("ask", f"this uninstalls safe-compose: nothing stands before a deletion from then on. {DECIDES}")
    if line.targets and any("SAFE_COMPOSE=off" in text for text in line.texts):
        yield Answer("ask", f"this writes SAFE_COMPOSE=off into a file: the guard may be off from then on. {DECIDES}")


def _of_command(command: Simple, line: Line, here: Path, text: str) -> Iterator[Answer]:
    """What deletes volumes without docker's command line: the data folder itself, and the engine's API."""
    words = [word.text for word in command.words[1:]]
    if "container" in command.via or "ssh" in command.via:
        return
    if command.program in REMOVERS and (where := _data_root(command, line, here)):
        yield Answer("deny", f"this removes files under {where}, where the engine keeps every volume, past any backup")
    if command.program in REMOVERS - {"find"} and any("share/safe-compose" in word for word in words):
        yield Answer("ask", f"this removes files from safe-compose's store: the backups. {DECIDES}")
    joined = " ".join(words)
    if command.program in SENDERS and re.search(r"(docker|podman|containerd)\.sock|:237[56]\b", f"{joined} {text}"):
        everything = f"{joined} {' '.join(line.texts)}"
        if re.search(r"\bDELETE\b|/prune\b", everything, re.IGNORECASE):
            yield Answer("deny", "this deletes through the engine's API, past any backup; docker's own command for it is guarded")
        elif any(not word.sure for word in command.words) and words_of_a_door(text):
            yield Answer("ask", "this talks to the engine's API, and what it asks for is not known before it runs")
    if command.program in ENGINES and any(w in ("run", "exec") for w in words):
        mounted = [root for root in _DATA_ROOTS if any(root in word for word in words)]
        if mounted and any(re.search(r"\b(rm|mv|shred|find)\b", word) for word in words):
            yield Answer("deny", f"this hands {mounted[0]}, where the engine keeps every volume, to a container that removes files")


def _data_root(command: Simple, line: Line, here: Path) -> str:
    """The engine's data folder that a removing command would reach, or empty."""
    words = [word.text for word in command.words[1:]]
    if command.program == "find" and not any(w in ("-delete", "-exec", "-execdir", "-ok") for w in words):
        return ""
    if command.program == "rsync" and not any(w.startswith("--del") or w == "--remove-source-files" for w in words):
        return ""
    deep = command.program != "rm" or any(re.fullmatch(r"-[A-Za-z]*[rR][A-Za-z]*|--recursive", w) for w in words)
    home = os.environ.get("HOME", "/root")
    roots = [posixpath.join(home, root) if not root.startswith("/") else root for root in _DATA_ROOTS]
    folders = [str(here), *(c.words[1].text for c in line.commands if c.program in ("cd", "pushd") and len(c.words) > 1)]
    for word in words:
        word = re.sub(r"^(~|\$HOME|\$\{HOME\})(?=/|$)", home, word.removeprefix("of="))
        if word.startswith("-"):
            continue
        for folder in [""] if word.startswith("/") else folders:
            path = posixpath.normpath(posixpath.join(folder or "/", word))
            literal = re.split(r"[*?\[{$`]", path)[0]
            for root in roots:
                inside = path == root or path.startswith(root + "/")
                above = deep and (literal == "/" or (root.startswith(literal) if literal != path else root.startswith(path + "/")))
                if inside or (above and command.program in ("rm", "mv", "find", "shred")):
                    return root
    return ""


def _doors(line: Line, here: Path, text: str) -> Iterator[Door]:
    """Every command that docker's grammar says may delete a volume."""
    for command in line.commands:
        program, words = command.program, command.words
        if program in line.names and program not in ENGINES:
            program = None
        if program is None:
            # a variable, a function, an alias: what if it is docker?
            groups: tuple[tuple[Word, ...], ...] = ((),)
            if "docker" in text or "compose" in text:
                groups += ((Word("compose"),), (Word("volume"),))  # an alias may stand for two words
            for group in groups:
                found = kind_of((*group, *words[1:]), "docker")
                if found is not None and found.kind not in SOFT and len(words) > 1:
                    yield Door(command, found, False, "")
                    break
            continue
        if program not in ENGINES:
            continue
        name = docker_name(program)
        found = kind_of(words[1:], name, own_verb=shim.own_verb if program == "safe-compose" else None)
        if found is not None:
            yield Door(command, found, True, _round_us(command, here))
            continue
        turned = may_turn(words[1:], name, text)
        if turned is not None:
            yield Door(command, turned, False, _round_us(command, here))


def _round_us(command: Simple, here: Path) -> str:
    """Why a command would not meet safe-compose; empty when it would, or when nobody can know."""
    word = command.words[0].text
    program = command.program
    if program in ("podman", "podman-compose", "nerdctl"):
        return f"{program} is not guarded"
    if "/" in word:
        path = os.path.join(here, os.path.expanduser(word))  # noqa: PTH111, PTH118 - text that may be no path at all
        if program != "safe-compose" and not ("\0" not in path and shim.is_ourselves(path)):
            return "docker is started by its path"
    if program == "safe-compose":
        return ""
    if "sudo" in command.via:
        return "another user's PATH usually leads to docker itself"
    if "path" in command.via:
        return "PATH is changed for it"
    return ""


# -- answers -----------------------------------------------------------------------------------------------------------


def _of_door(door: Door, plan: Mapping[str, Any] | None) -> Answer:
    kind, soft = door.invocation.kind, door.invocation.kind in SOFT
    does = DOES.get(kind, "may delete volumes")
    if not door.sure:
        does = f"may turn into a command that {does} (not all of its words are known before it runs)"
    if door.round_us and "ssh" not in door.command.via:
        if soft or not door.sure:
            return Answer("ask", f"`{door.typed}` {does}, and goes round safe-compose: {door.round_us}. {DECIDES}")
        instead = _through_us(door)
        return Answer("deny", f"`{door.typed}` {does}, and goes round safe-compose: {door.round_us}. Write instead: {instead}")
    if "ssh" in door.command.via:
        if soft:
            return NOTHING
        host = "docker -H ssh://HOST ..." if door.command.program != "safe-compose" else ""
        then = f"; to have it guarded from here: {host}" if host else ""
        return Answer("ask", f"`{door.typed}` {does} on another machine, whose guard is not seen from here{then}. {DECIDES}")
    if "container" in door.command.via:
        return Answer("ask", f"`{door.typed}` {does}, from inside a container, where safe-compose does not stand. {DECIDES}")
    if plan is not None and plan.get("verdict") == "pass":
        return NOTHING
    if plan is None:
        if soft:
            return NOTHING
        return Answer("ask", f"`{door.typed}` {does}. {_what_then(door)}")
    doomed = [f"{v['name']} ({v['tier']}: {v['why']})" for v in plan.get("volumes", ()) if v.get("tier") != "disposable"]
    more = f" and {len(doomed) - 5} more" if len(doomed) > 5 else ""
    return Answer("ask", f"`{door.typed}` deletes {', '.join(doomed[:5])}{more} on {plan.get('endpoint')}. {_what_then(door)}")


def _what_then(door: Door) -> str:
    own = door.invocation.own
    if own.skip_backup:
        return f"--skip-backup: nothing is backed up. {DECIDES}"
    if own.non_interactive and own.backup_first:
        return f"A verified backup is made first, and nobody is asked again. {DECIDES}"
    return f"safe-compose stands before it: without a terminal it is refused, with a code that a person approves. {DECIDES}"


def _through_us(door: Door) -> str:
    if door.command.program in ("podman", "podman-compose", "nerdctl"):
        return "nothing: tell a person"
    words = redact([word.text for word in door.command.words[1:]])
    return f"safe-compose {'compose ' if door.command.program == 'docker-compose' else ''}{' '.join(words)}"


def _unread(line: Line, text: str) -> Iterator[Answer]:
    """Parts that run and were not read."""
    if not words_of_a_door(text):
        return
    if line.unreadable:
        yield Answer("ask", f"this line may delete volumes, and {line.unreadable[0]}. {DECIDES}")
    unknown = [c for c in line.commands if c.program is None]
    if unknown:
        yield Answer("ask", f"this line may delete volumes: what `{unknown[0].words[0].text}` runs is not known. {DECIDES}")
    for code in line.codes:
        if words_of_a_door(code) and re.search(r"docker|podman|/volumes", code):
            yield Answer("ask", f"this code may delete volumes past safe-compose. {DECIDES}")
    for command in line.commands:
        if command.program in ENGINES and any(not w.sure for w in command.words[1:]) and "wrapper" in command.via:
            yield Answer("ask", f"what `{command.words[0].text}` is given is not known before it runs. {DECIDES}")


# -- looking -----------------------------------------------------------------------------------------------------------


def _look_for(door: Door, doors: Sequence[Door], line: Line, here: Path, look: Look | None) -> Mapping[str, Any] | None:
    """The plan for a door, where the engine can be asked about exactly what would run: one door, nothing set, no doubt."""
    words = door.command.words
    if look is None or len(doors) != 1 or door.command.via - {"wrapper"} or door.round_us or not door.sure:
        return None
    if not all(word.sure and "{}" not in word.text and not (word.bare and _EXPANDS.search(word.text)) for word in words):
        return None
    if door.command.program not in ("docker", "safe-compose"):
        return None
    if line.assignments or line.names or line.unreadable:
        return None
    for command in line.commands:
        if command.program in ("pushd", "popd", "source", ".", "set", "read"):
            return None
        if command.program == "cd" and "aside" not in command.via:
            if len(command.words) != 2 or not command.words[1].sure:
                return None
            here = here / Path(command.words[1].text).expanduser()
    return look([word.text for word in words[1:]], here)


def explained(words: Sequence[str], here: Path) -> Mapping[str, Any] | None:
    """What `--explain --json` says of a command, by a process of our own that cannot take longer than LOOK_SECONDS.

    None when it does not say: no engine, no such folder, too slow.
    """
    own = [w for w in words if w.partition("=")[0] in harmless.OWN_FLAGS - {"--confirm"}]
    argv = [sys.executable, "-P", "-m", "safe_compose", "--explain", "--json", *(w for w in words if w not in own)]
    try:
        done = subprocess.run(argv, cwd=here, stdin=subprocess.DEVNULL, capture_output=True, timeout=LOOK_SECONDS, check=False)
        plan = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return plan if isinstance(plan, dict) else None
