"""The `docker` command that users type: harmless commands are exec'd at once.

Only `os` and `sys` are imported before a harmless command is handed over (design, sections 10 and
12). Everything else is imported lazily, inside functions.
"""

# pathlib would cost more than all of this:
# ruff: noqa: PTH119, PTH123

import os
import sys

from safe_compose.fastpath import launch
from safe_compose.fastpath.first_look import (
    PLUMBING,
    PROBE,
    SUSPECT,
    is_known_to_docker,
    own_flags,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from safe_compose.grammar.parser import Invocation


def main(*, plugin: bool = False, python: str = "", launched: bool = False) -> int:
    """Run the command line and return its exit code; never return when docker is exec'd.

    The name of the program decides its role: as `docker`, `docker-compose` or a foreign client it
    is a shim, and only as safe-compose it has verbs of its own.

    Args:
        plugin: Whether a script in the folder of CLI plugins, of an earlier version, started us.
        python: The interpreter that has our packages, named by scripts of earlier versions, which
            start without `site`.
        launched: Whether the launcher may have started us.
    """
    if launched:
        launch.take_over()
    if sys.stdout is None:  # it was closed, and exec closes it again
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    name = launch.LaunchContext.name or os.path.basename(sys.argv[0])
    plugin = plugin or (name == "docker-compose" and launch.is_plugin_path(sys.argv[0]))
    words = sys.argv[1:]
    shim = name in ("docker", "docker-compose", *launch.FOREIGN)
    if not shim and words[:1] == ["docker-compose"]:
        # Shell functions cannot choose the name of the program.
        words, name, shim = words[1:], "docker-compose", True
    alias = not shim and words[:1] == ["docker"]
    if alias:
        words = words[1:]
    program = name if name in ("docker-compose", *launch.FOREIGN) else "docker"
    verb = launch.find_own_verb(words) if not shim else None
    launch.LaunchContext.python = python
    try:
        if verb is not None and not (alias and verb == launch.START):
            return run_own_verb(verb, words)
        if plugin:
            return dispatch_plugin(words)
        if not shim and (code := answer(words, alias=alias)) is not None:
            return code
        return dispatch(words, program, shim=shim)
    except KeyboardInterrupt:
        from safe_compose import faults

        return faults.end(130, "interrupted", None, about_docker=verb is None)
    except BrokenPipeError:
        from safe_compose import faults

        return faults.report_broken_pipe(about_docker=verb is None)
    # The one error boundary: whatever happened, docker was not run, and we say so.
    except Exception as error:  # noqa: BLE001
        from safe_compose import faults

        return faults.report_fault(error, about_docker=verb is None)


_HOOK_BY_TYPER = frozenset({"--install", "--uninstall", "--help"})
"""The options of `hook` with which it answers no agent."""


def answer(words: "Sequence[str]", *, alias: bool) -> int | None:
    """Answer words that no command of docker has, and return the exit code; None where it has.

    Args:
        words: The words of a `safe-compose`, of which none is a verb of ours.
        alias: Whether it stands for docker, whose help and version are then docker's own.

    Raises:
        UsageError: One of them is a typing error.
    """
    if not alias and words and words[0] in launch.COMPLETE and _completes_ours(words[1:]):
        from safe_compose.cli import completion

        return completion.answer(words)
    asked = words[1:] if words[:1] == ["help"] else ()
    verb = launch.find_own_verb(asked)
    if verb is not None and verb == asked[0] and not (alias and verb == launch.START):
        return run_own_verb(verb, [*asked, "--help"])
    if not alias and tuple(words) in launch.HELP:
        from safe_compose.cli import overview

        return overview.print_help() if words else overview.print_usage()
    if not alias and tuple(words) in launch.VERSION:
        from safe_compose.cli import overview

        return overview.print_version()
    typed = asked or words[launch.count_own_flags(words) :]
    if typed and not is_known_to_docker(typed[0]) and typed[0] not in PLUMBING:
        from safe_compose.cli import typing_errors

        typing_errors.refuse(typed)
    return None


def _completes_ours(words: "Sequence[str]") -> bool:
    """Return whether words to be completed are a first one, or those of a verb of ours."""
    return len(words) == 1 or (len(words) > 1 and launch.find_own_verb(words[:1]) == words[0])


def run_own_verb(verb: str, words: "Sequence[str]") -> int:
    """Run one of our own verbs and return its exit code."""
    if verb == "shell" and len(words) == 2 and words[1] in ("bash", "zsh", "fish"):
        # Every shell evaluates this at its start: no time for typer.
        from safe_compose.install import scripts

        return scripts.print_function(words[1])
    if verb == "hook" and words[0] == verb and _HOOK_BY_TYPER.isdisjoint(words):
        # Runs before each command of an agent: no time for typer, and any other code lets it run.
        from safe_compose import faults

        try:
            from safe_compose.audit import agent_hook
        except ImportError as error:
            return faults.end(2, f"this command was not judged: {error}", None, about_docker=False)

        try:
            code = agent_hook.main(words[1:])
            sys.stdout.flush()
        except OSError as error:  # an answer that nobody gets would let the command run
            faults.drop_output()
            return faults.end(2, f"the answer cannot be written: {error}", None, about_docker=False)
        return code
    import gc

    # As in `start`: looking for garbage among the imports takes a tenth of a short command's time.
    gc.disable()  # `app.run` turns it on again
    from safe_compose.cli import app

    return app.run(words)


def dispatch_plugin(words: "Sequence[str]") -> int:
    """Handle a call of the compose plugin, made by docker or by hand.

    Docker passes all of its own arguments. The plugin takes itself for docker-compose unless docker
    started it (`RunningStandalone` of docker/cli), and so do we.
    """
    launch.LaunchContext.plugin = launch.find_plugin()
    alone = not os.environ.get(launch.ORIGIN) and words[:1] != ["docker-cli-plugin-metadata"]
    if is_guarded():
        launch.hand_over(words)
    return dispatch(words, "docker-compose" if alone else "docker", shim=True)


def is_guarded() -> bool:
    """Return whether the docker that runs us as its plugin was itself started by the guard.

    This includes a docker that replaced a process of ours by exec. Everything has then been checked
    and reported already.
    """
    given = os.environ.get(launch.GUARDED, "")
    return given != "" and given in (str(os.getppid()), find_parent(os.getppid()))


def find_parent(pid: int) -> str:
    """Return the process id of a process's parent; an empty string when it cannot be determined."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in brackets can contain anything.
            return file.read().rpartition(b")")[2].split()[1].decode()
    except OSError:
        import subprocess

        done = subprocess.run(
            ["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return done.stdout.strip()


def dispatch(words: "Sequence[str]", program: str, *, shim: bool) -> int:
    """Hand a command over to docker, or to the guard when it may delete a volume."""
    if words and words[0] in PLUMBING:
        launch.hand_over(words, program)
    if (
        words[-1:] == [PROBE]
        and len(words) <= 2
        and words[:-1] in ([], ["compose"])
        and launch.PROBED in os.environ
    ):
        place = "plugin" if launch.LaunchContext.plugin else program if shim else "safe-compose"
        sys.stdout.write(f"{PROBE} {os.environ[launch.PROBED]} {place}\n")
        return 0
    own = own_flags(words)
    if not own and SUSPECT.isdisjoint(words):
        launch.hand_over(words, program)
    if program in launch.FOREIGN:
        from safe_compose.fastpath import impostors

        impostors.refuse_words(words, program)
        launch.hand_over(words, program)
    if not shim and ("up" in words or "down" in words):
        words = add_compose(words)
    off = os.environ.get("SAFE_COMPOSE") == "off"
    invocation = look_around(read(words, program))
    if off:
        hand_over_unguarded(invocation)
    refused = invocation.is_refused
    if refused or invocation.kind != "none" or invocation.own.explain:
        from safe_compose.fastpath import queries

        if refused and not invocation.own.offline and queries.is_harmless_removal(invocation):
            # docker's own error says more
            invocation = invocation._replace(kind="none", doubt=None)
        if (invocation.kind != "none" or invocation.own.explain) and (
            refused or invocation.own.json or not queries.is_harmless_removal(invocation)
        ):
            return guard(invocation)
    if invocation.own.json:
        from safe_compose.errors import UsageError

        raise UsageError(
            "--json would do nothing: this command deletes no volume; nothing was done",
            next_step="leave it out, or add --explain",
        )
    hand_over_harmless(invocation, program)


def hand_over_harmless(invocation: "Invocation", program: str) -> "NoReturn":
    """Hand a command that deletes no volume to docker.

    What it takes from the layers of containers is said before.

    Raises:
        Refused: It would reach an impostor, or the settings ask for a confirmation.
    """
    from safe_compose.fastpath import impostors, layers

    # To docker these words are harmless; to Podman under the name of docker they are not.
    if impostors.may_delete(invocation.argv):
        impostors.refuse_impostor(launch.find_docker(program))
    if layers.may_lose_data(invocation):
        start()
        from safe_compose.system import signals

        signals.resend_dropped_signals()
        from safe_compose.operations.guard.layers import check

        check(invocation)
        launch.hand_over(invocation.argv, invocation.program, judged=True)
    launch.hand_over(invocation.argv, invocation.program)


def add_compose(words: "Sequence[str]") -> "Sequence[str]":
    """Return the words with `compose` before `up` or `down` as a command, which docker has not."""
    from safe_compose.grammar.own_flags import find_command

    at = find_command(words)
    return (
        [*words[:at], "compose", *words[at:]] if words[at : at + 1] in (["up"], ["down"]) else words
    )


def look_around(invocation: "Invocation") -> "Invocation":
    """Return the invocation with everything outside its words that can make it delete something.

    That is an answer on stdin, the environment, and deletion locks on the engine.
    """
    if invocation.asks:
        from safe_compose.fastpath import queries

        if queries.may_be_answered(invocation):
            from safe_compose.grammar import parser

            invocation = parser.add_answer(invocation)
    # Only the shell's value: compose sets up its flags before it reads `.env` (tried with 2.26.1
    # and 2.40.3).
    orphans = os.environ.get("COMPOSE_REMOVE_ORPHANS", "").strip().lower() in ("1", "t", "true")
    if orphans and invocation.verb == ("compose", "down"):
        from safe_compose.grammar import parser

        invocation = parser.add_remove_orphans(invocation)
    if invocation.removes and invocation.kind == "none":
        from safe_compose.fastpath import queries

        if queries.may_hold_lock(invocation):
            from safe_compose.grammar import parser

            invocation = parser.add_unlocking(invocation)
    return invocation


def hand_over_unguarded(invocation: "Invocation") -> "NoReturn":
    """Hand a command to docker because SAFE_COMPOSE=off asks for it.

    Raises:
        Refused: The machine's policy forbids that.
        ConfigError: The machine's policy cannot be read.
    """
    if invocation.kind != "none":
        start()  # may replace the process, so nothing is printed before
        from safe_compose.operations.guard import bypass

        bypass.refuse_where_off_is_forbidden()
    from safe_compose.faults import say

    say("safe-compose: SAFE_COMPOSE=off, docker runs unguarded")
    if invocation.kind != "none":
        from safe_compose.operations.guard import bypass

        bypass.note_unguarded(invocation)
    launch.hand_over(invocation.argv, invocation.program, judged=True)


def guard(invocation: "Invocation") -> int:
    """Run a command that may delete a volume under guard and return its exit code."""
    start()
    from safe_compose.system import signals

    signals.resend_dropped_signals()
    begun = None
    if not invocation.own.offline and invocation.kind != "none" and not invocation.is_refused:
        from safe_compose.compose import first_query

        renews = invocation.kind == "compose_renew_anon"
        if renews and first_query.has_single_use_inputs(invocation):
            from safe_compose.faults import say

            say(
                "safe-compose: anonymous volumes may be replaced by empty ones; which ones was not"
                " looked up"
            )
            # It deletes nothing, so its input is left to docker.
            launch.hand_over(invocation.argv, invocation.program, judged=True)
        query = first_query.begin(invocation, guarded=True)  # it answers during the imports
        from safe_compose import workspace

        begun = workspace.begin(invocation, query)
    from safe_compose.operations.guard import run

    code = run.run(invocation, begun)
    sys.stdout.flush()  # of a plan: here a reader that has gone is no fault
    return code


def start() -> None:
    """Prepare the interpreter for imports of the other packages.

    The interpreter of a shim runs without `site`, so it replaces itself, in the same process, with
    the one that has the packages. Otherwise garbage collection is turned off: until the
    confirmation screen is shown no import becomes garbage, and looking for some takes 20 ms.
    `guard` turns it on again once it has a workspace.

    Raises:
        DockerNotFound: The interpreter that safe-compose was installed with does not start.
    """
    if not (launch.LaunchContext.python and sys.flags.no_site):
        import gc

        gc.disable()
        return
    from safe_compose.errors import DockerNotFound

    command = [launch.LaunchContext.python, "-I", *sys.argv]
    try:
        os.execve(command[0], command, launch.read_original_environment())
    except OSError as error:
        raise DockerNotFound(
            f"{command[0]}, which safe-compose was installed with, does not start:"
            f" {error.strerror}",
            next_step="install safe-compose again, then: safe-compose shell --install shims",
        ) from error


def read(words: "Sequence[str]", program: str) -> "Invocation":
    """Return the full parse of a command.

    When docker-compose 1.x and 2.x would read it differently, the installed program is asked for
    its version.
    """
    from safe_compose.grammar import parser

    invocation = parser.parse(words, program)
    if program != "docker-compose":
        return invocation
    from safe_compose.grammar.dialects import doubt_dashes

    path = launch.LaunchContext.plugin or launch.search(program)
    if path is None:
        from safe_compose.grammar.standalone import split_standalone

        converted = split_standalone(invocation.argv)
        if converted is None:
            return invocation
        return parser.parse([*converted[0], *converted[1]], "docker")._replace(own=invocation.own)
    old = parser.parse(words, program, dialect="v1")
    same = old._replace(docker_globals=(), compose_globals=()) == invocation._replace(
        docker_globals=(), compose_globals=()
    )
    harmless = old.kind == invocation.kind == "none" and old.argv == invocation.argv
    settled = (same and invocation.doubt is None) or (harmless and not invocation.unknown)
    doubtful = doubt_dashes(old)
    if settled and doubtful is old:
        return invocation
    dialect = launch.detect_dialect(path)
    # Where nobody knows which one it is, the reading that may delete is believed.
    if dialect is not None or invocation.kind != "none" or invocation.asks:
        return old if dialect == "v1" else invocation
    return doubtful
