"""The files of a compose project, found by its flags, variables and folders."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safe_compose.compose.single_use import find_descriptor, read_again
from safe_compose.fastpath.layers import COMPOSE_FILES
from safe_compose.grammar.parser import Invocation
from safe_compose.grammar.tables import TRUE

BY_LABEL = frozenset({"down", "kill", "rm"})
"""Verbs of section 4 that go by labels with `-p` but without `-f`, or when the file does not load
(`projectOrName`)."""


class Files:
    """The files of a project, for people and the lookup of settings.

    They never decide what is deleted.
    """

    def __init__(
        self, invocation: Invocation, environ: Mapping[str, str], *, folder: str | None = None
    ) -> None:
        """Find the files of a command.

        Args:
            invocation: The command.
            environ: Its environment.
            folder: The folder in which it is typed; None: the current one.
        """
        self._environ = environ
        here = Path(folder) if folder is not None else Path.cwd()
        directory = flag(invocation, "project-directory") or flag(invocation, "workdir")
        base = here / directory if directory else here
        self.flags = tuple(value for name, value in invocation.compose_flags if name == "file")
        env_files = [value for name, value in invocation.compose_flags if name == "env-file"]
        env_files = env_files or [f for f in environ.get("COMPOSE_ENV_FILES", "").split(",") if f]
        has_default = not env_files and environ.get("COMPOSE_DISABLE_ENV_FILE") not in TRUE
        self._settings = dict(
            _settings([here / f for f in env_files] or ([base / ".env"] if has_default else []))
        )
        words = list(self.flags)
        if not words and (
            listed := environ.get("COMPOSE_FILE") or self._settings.get("COMPOSE_FILE")
        ):
            words = listed.split(environ.get("COMPOSE_PATH_SEPARATOR") or ":")
        self.remote = any(map(_is_remote, words))
        """Whether a compose file is at a git or OCI address."""
        self.reads_stdin = "-" in words
        paths = (
            [here / w for w in words if w != "-" and not _is_remote(w)]
            if words
            else _search_upward(base)
        )
        # The folder of a descriptor (`<(...)`, /dev/stdin) is not a project folder.
        self.files = [path for path in paths if find_descriptor(path) is None]
        self.unseen = len(self.files) != len(words or paths)
        first = self.files[0].parent if self.files else base
        self.working_dir = Path(base if directory else first).resolve()
        self._base = base
        defaults = [folder / ".env" for folder in self.folders()] if has_default else []
        self.named = [*paths, *(here / f for f in env_files), *defaults]
        self.removes_orphans = (self.setting("COMPOSE_REMOVE_ORPHANS") or "").strip().lower() in (
            "1",
            "t",
            "true",
        )

    def setting(self, key: str) -> str | None:
        """Return a COMPOSE_* variable: first from the environment, then from the env file."""
        return self._environ[key] if key in self._environ else self._settings.get(key)

    def values(self) -> Mapping[str, str]:
        """Return the values of variables in the compose files.

        Env files are read in a simpler way than compose reads them.
        """
        return {**self._settings, **self._environ}

    def folders(self) -> list[Path]:
        """Return the folders in which compose may have found its `.env`.

        2.26.1 looks next to the compose file, later versions in the current folder first (run).
        """
        return list(dict.fromkeys([self._base, self.working_dir]))

    def may_speak(self) -> bool:
        """Return whether one of the files may hold `x-safe-compose`, or lead to a further file."""
        if self.unseen:
            return True
        return any(
            word in text
            for text in self._texts()
            for word in (b"x-safe-compose", b"include", b"extends", b"\\")
        )

    def lead_elsewhere(self) -> bool:
        """Return whether the project may include parts that are not files here.

        Then it may load for docker and not for us.
        """
        return self.unseen or any(
            word in text for text in self._texts() for word in (b"include", b"extends", b"\\")
        )

    def _texts(self) -> Iterator[bytes]:
        for file in self.files:
            yield read_again(file) or b""  # compose itself complains about a missing file


def flag(invocation: Invocation, name: str) -> str | None:
    """Return the last value of a compose flag, or None."""
    return next((value for key, value in reversed(invocation.compose_flags) if key == name), None)


def label_flag(invocation: Invocation) -> str:
    """Return the project that `-p` names when compose 2 or later goes by its labels alone.

    Empty when compose reads the files instead. An empty -p counts as none (`projectOrName` of
    docker/compose).
    """
    verb = invocation.verb[-1] if invocation.verb else ""
    if (verb and verb not in BY_LABEL) or any(
        name == "file" for name, _ in invocation.compose_flags
    ):
        return ""
    return flag(invocation, "project-name") or ""


def _is_remote(word: str) -> bool:
    """Return whether compose takes a word for a git or OCI address.

    See moby/buildkit `gitutil.ParseGitRef`.
    """
    return (
        "://" in word
        or word.startswith("github.com/")
        or re.match(r"[\w.-]+@[\w.-]+:", word) is not None
    )


def _settings(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    for file in files:
        text = (read_again(file) or b"").decode("utf-8", "replace")
        for line in text.splitlines():
            match = re.match(r"\s*(?:export\s+)?(\w+)\s*[=:]\s*(.*?)\s*$", line)
            if match:
                quoted = match[2][:1] in ('"', "'")
                yield match[1], match[2].strip("\"'") if quoted else re.split(r"\s#", match[2])[0]


def _search_upward(start: Path) -> list[Path]:
    """Return the default compose file and its override.

    They are searched from `start` upward, as compose does.
    """
    start = start.resolve()
    for folder in (start, *start.parents):
        for name in COMPOSE_FILES:
            # Path.exists raises where a folder may not be searched
            if os.path.exists(folder / name):  # noqa: PTH110
                stem, dot, suffix = name.partition(".")
                for ending in dict.fromkeys((suffix, "yaml", "yml")):
                    override = folder / f"{stem}.override{dot}{ending}"
                    if os.path.exists(override):  # noqa: PTH110
                        return [folder / name, override]
                return [folder / name]
    return []
