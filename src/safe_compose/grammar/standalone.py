"""The words of docker-compose v2 as a program of its own: it rewrites them for its plugin."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

STANDALONE_BOOLS = ("--debug", "-D", "--verbose", "--tls", "--tlsverify")
STANDALONE_VALUES = (
    "--tlscacert",
    "--tlscert",
    "--tlskey",
    "--host",
    "-H",
    "--context",
    "--log-level",
)


def split_standalone(words: "Sequence[str]") -> tuple[list[str], list[str]] | None:
    """Return (docker's flags, `compose` and the rest) as docker-compose v2 rewrites its words.

    None when it refuses them. See compose `cmd/compatibility/convert.go` (5.5.0), whose looseness
    is repeated: `--hostile=x` is `--host x`.
    """
    moved: list[str] = []
    command = ["compose"]
    index = 0
    while index < len(words):
        word = words[index]
        if word in ("__complete", "__completeNoDesc"):
            command.insert(0, word)
            index += 1
            continue
        if word and word[0] != "-":
            return moved, command + list(words[index:])
        word = {
            "--verbose": "--debug",
            "-h": "--help",
            "--version": "version",
            "-v": "version",
        }.get(word, word)
        index += 1
        if word in STANDALONE_BOOLS:
            moved.append(word)
        elif word in STANDALONE_VALUES:
            if index >= len(words):
                return None
            moved += [word, words[index]]
            index += 1
        else:
            flag = next((f for f in STANDALONE_VALUES if word.startswith(f) and "=" in word), None)
            if flag:
                moved += [flag, word.partition("=")[2]]
            else:
                command.append(word)
    return moved, command
