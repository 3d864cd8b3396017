"""The kind of a file, by its path and its first line, and a filter for files that could matter."""

import re
from collections.abc import Callable
from typing import NamedTuple

from safe_compose.audit.snippets import FileSnippets

LARGEST = 1 << 20
"""Most bytes of a file that is read; a larger one is noted."""


class FileKind(NamedTuple):
    """A kind of file."""

    name: str
    unattended: bool = False
    """Whether it runs where no person can type."""


MARKDOWN = FileKind("markdown")
SHELL = FileKind("shell")
_BY_ENDING = {
    **dict.fromkeys(("md", "markdown", "mdx", "mdc", "mkd"), MARKDOWN),
    **dict.fromkeys(
        ("sh", "bash", "zsh", "ksh", "fish", "bats", "command", "ps1", "bat", "cmd"), SHELL
    ),
    **dict.fromkeys(("yml", "yaml"), FileKind("yaml", True)),
    **dict.fromkeys(("mk", "mak", "make"), FileKind("make")),
    "just": FileKind("just"),
    **dict.fromkeys(("dockerfile", "containerfile"), FileKind("dockerfile", True)),
    **dict.fromkeys(("cron", "crontab"), FileKind("crontab", True)),
    **dict.fromkeys(("service", "timer", "socket", "path"), FileKind("unit", True)),
    "py": FileKind("python"),
    **dict.fromkeys(("js", "mjs", "cjs", "jsx", "ts", "mts", "cts", "tsx"), FileKind("javascript")),
    "go": FileKind("go"),
    **dict.fromkeys(("rb", "rake"), FileKind("ruby")),
    "toml": FileKind("toml"),
    **dict.fromkeys(("html", "htm"), FileKind("html")),
    **dict.fromkeys(("groovy", "jenkinsfile"), FileKind("groovy", True)),
    **dict.fromkeys(("rst", "adoc", "asciidoc", "txt"), FileKind("prose")),
}
_BY_NAME = {
    **dict.fromkeys(("makefile", "gnumakefile", "bsdmakefile"), FileKind("make")),
    **dict.fromkeys(("justfile", ".justfile"), FileKind("just")),
    **dict.fromkeys(("dockerfile", "containerfile"), FileKind("dockerfile", True)),
    "crontab": FileKind("crontab", True),
    "jenkinsfile": FileKind("groovy", True),
    **dict.fromkeys(("rakefile", "vagrantfile", "fastfile", "guardfile"), FileKind("ruby")),
    **dict.fromkeys(
        (
            "package.json",
            "composer.json",
            "deno.json",
            "devcontainer.json",
            "tasks.json",
            "settings.json",
            "settings.local.json",
            "permissions.json",
            "opencode.json",
            "cli-config.json",
            "hooks.json",
            ".huskyrc.json",
            ".lintstagedrc.json",
            "turbo.json",
            "project.json",
        ),
        FileKind("json"),
    ),
    **dict.fromkeys(
        (
            ".bashrc",
            ".bash_profile",
            ".bash_aliases",
            ".profile",
            ".zshrc",
            ".zprofile",
            ".envrc",
            ".xonshrc",
        ),
        SHELL,
    ),
    **dict.fromkeys(
        (".cursorrules", ".windsurfrules", ".clinerules", ".goosehints", ".aider.conf"), MARKDOWN
    ),
    **dict.fromkeys(("readme", "install", "contributing", "hacking"), FileKind("prose")),
}


_HOOK_FOLDERS = frozenset({".husky", ".githooks", "git-hooks", ".git-hooks"})


def find_kind_by_path(path: str) -> FileKind | None:
    """Return the kind of a file by its path alone, or None.

    >>> find_kind_by_path("deploy/Dockerfile.prod").name, find_kind_by_path("etc/cron.d/clean").name
    ('dockerfile', 'crontab')
    >>> find_kind_by_path("logo.png") is None
    True
    """
    folder, _, name = path.rpartition("/")
    lower = name.lower()
    if folder.rpartition("/")[2] == "cron.d":
        return FileKind("crontab", True)
    if folder.rpartition("/")[2] in _HOOK_FOLDERS and "." not in name:
        return SHELL
    if lower.startswith("taskfile") and lower.endswith((".yml", ".yaml")):
        return FileKind("yaml")
    found = (
        _BY_NAME.get(lower) or _BY_ENDING.get(lower.rpartition(".")[2])
        if "." in lower
        else _BY_NAME.get(lower)
    )
    if found is None and lower.partition(".")[0] in (
        "dockerfile",
        "containerfile",
        "makefile",
        "jenkinsfile",
    ):
        found = _BY_NAME[lower.partition(".")[0]]
    return found


def may_have_shebang(path: str) -> bool:
    """Return whether the first line of a file of unknown kind is worth reading.

    That is so when its name has no suffix.
    """
    return "." not in path.rpartition("/")[2].lstrip(".")


def find_kind_by_shebang(start: bytes) -> FileKind | None:
    """Return the kind that a first line `#!...` names, or None."""
    line = start.partition(b"\n")[0]
    if not line.startswith(b"#!"):
        return None
    if re.search(rb"\b(?:ba|z|k|da|a|fi)?sh\b", line):
        return SHELL
    if b"python" in line:
        return FileKind("python")
    return (
        FileKind("make")
        if re.search(rb"\bmake\b", line)
        else FileKind("just")
        if re.search(rb"\bjust\b", line)
        else None
    )


_ABOUT = (b"docker", b"compose", b"podman", b"nerdctl")
_NEAR = 300
"""Bytes within which the words of one command occur."""
_VOLUMES_FLAG = re.compile(rb"(?<![\w-])-[a-z]*v|--vol")
_YES_FLAG = re.compile(rb"(?<![\w-])-[a-z]*y\b|--yes\b|--y\b")
_VARIABLE = re.compile(rb"\$|\{\{")
_VOLUME = re.compile(rb"volumes?\b")
_OF_VOLUMES_FLAG = re.compile(rb"\b(?:down|rm|remove)\b")
_OF_YES_FLAG = re.compile(rb"\b(?:up|create|run|scale|watch)\b")
_DOWN = re.compile(rb"\bdown\b")
_REMOVE = re.compile(rb"\b(?:rm|remove)(?:\b|_volumes)|\bstate: *absent")


def may_matter(data: bytes) -> bool:
    """Return whether a file could hold a finding at all; when in doubt, True.

    The parsers run only then.

    >>> may_matter(b"docker compose -f a.yml down")
    False
    >>> may_matter(b"args: [docker, compose, down, -tv]")
    True
    """
    lower = data.lower()
    if not any(word in lower for word in _ABOUT):
        return False
    return (
        b"prune" in lower
        or b"skip-backup" in lower
        or occur_together(lower, _VOLUMES_FLAG, _OF_VOLUMES_FLAG)
        or occur_together(lower, _YES_FLAG, _OF_YES_FLAG)
        or occur_together(lower, _VARIABLE, _DOWN)
        or occur_together(lower, _REMOVE, _VOLUME)
        or occur_together(lower, _VOLUME, _REMOVE)
        or (b"/volumes/" in lower and b"delete" in lower)
    )


def occur_together(data: bytes, later: "re.Pattern[bytes]", earlier: "re.Pattern[bytes]") -> bool:
    """Return whether one pattern occurs shortly after another, as the words of a command do."""
    return any(
        earlier.search(data, max(0, found.start() - _NEAR), found.start())
        for found in later.finditer(data)
    )


def choose_finder(kind: FileKind) -> Callable[[str], FileSnippets]:
    """Return the finder for a kind, whose parser is imported here.

    Raises:
        ImportError: The extra `audit` is not installed.
    """
    if kind.name in ("markdown", "html"):
        from safe_compose.audit.markdown import html_page, markdown

        return markdown if kind.name == "markdown" else html_page
    if kind.name == "yaml":
        from safe_compose.audit.yaml import yaml

        return yaml
    from safe_compose.audit import data_files, formats, source_code

    finders: dict[str, Callable[[str], FileSnippets]] = {
        "shell": formats.shell,
        "make": formats.make,
        "just": formats.just,
        "dockerfile": formats.dockerfile,
        "crontab": formats.crontab,
        "unit": formats.unit,
        "json": data_files.package_json,
        "python": source_code.python,
        "toml": data_files.toml_tasks,
        "javascript": source_code.javascript,
        "go": source_code.go,
        "ruby": source_code.ruby,
        "groovy": formats.groovy,
        "prose": formats.prose,
    }
    return finders[kind.name]
