"""Which file is read as what, told by its path and its first line; and which bytes could matter at all."""

import re
from collections.abc import Callable
from typing import NamedTuple

from safe_compose.audit.pieces import Read

LARGEST = 1 << 20
"""Bytes of a file that is read; a larger one is noted."""


class Kind(NamedTuple):
    """One kind of file."""

    name: str
    unattended: bool = False
    """Nobody can type where it runs."""


MARKDOWN = Kind("markdown")
SHELL = Kind("shell")
_BY_ENDING = {
    **dict.fromkeys(("md", "markdown", "mdx", "mdc", "mkd"), MARKDOWN),
    **dict.fromkeys(("sh", "bash", "zsh", "ksh", "fish", "bats", "command", "ps1", "bat", "cmd"), SHELL),
    **dict.fromkeys(("yml", "yaml"), Kind("yaml", True)),
    **dict.fromkeys(("mk", "mak", "make"), Kind("make")),
    "just": Kind("just"),
    **dict.fromkeys(("dockerfile", "containerfile"), Kind("dockerfile", True)),
    **dict.fromkeys(("cron", "crontab"), Kind("crontab", True)),
    **dict.fromkeys(("service", "timer", "socket", "path"), Kind("unit", True)),
    "py": Kind("python"),
    **dict.fromkeys(("html", "htm"), Kind("html")),
    **dict.fromkeys(("groovy", "jenkinsfile"), Kind("groovy", True)),
    **dict.fromkeys(("rst", "adoc", "asciidoc", "txt"), Kind("prose")),
}
_BY_NAME = {
    **dict.fromkeys(("makefile", "gnumakefile", "bsdmakefile"), Kind("make")),
    **dict.fromkeys(("justfile", ".justfile"), Kind("just")),
    **dict.fromkeys(("dockerfile", "containerfile"), Kind("dockerfile", True)),
    "crontab": Kind("crontab", True),
    "jenkinsfile": Kind("groovy", True),
    **dict.fromkeys(
        ("package.json", "composer.json", "deno.json", "devcontainer.json", "tasks.json", "settings.json"), Kind("json")
    ),
    **dict.fromkeys((".bashrc", ".bash_profile", ".bash_aliases", ".profile", ".zshrc", ".zprofile", ".envrc", ".xonshrc"), SHELL),
    **dict.fromkeys((".cursorrules", ".windsurfrules", ".clinerules", ".goosehints", ".aider.conf"), MARKDOWN),
    **dict.fromkeys(("readme", "install", "contributing", "hacking"), Kind("prose")),
}


def kind_of_path(path: str) -> Kind | None:
    """The kind of a file by its path alone; None when that does not tell.

    >>> kind_of_path("deploy/Dockerfile.prod").name, kind_of_path("etc/cron.d/clean").name, kind_of_path("logo.png")
    ('dockerfile', 'crontab', None)
    """
    folder, _, name = path.rpartition("/")
    lower = name.lower()
    if folder.rpartition("/")[2] == "cron.d":
        return Kind("crontab", True)
    if lower.startswith("taskfile") and lower.endswith((".yml", ".yaml")):
        return Kind("yaml")
    found = _BY_NAME.get(lower) or _BY_ENDING.get(lower.rpartition(".")[2]) if "." in lower else _BY_NAME.get(lower)
    if found is None and lower.partition(".")[0] in ("dockerfile", "containerfile", "makefile", "jenkinsfile"):
        found = _BY_NAME[lower.partition(".")[0]]
    return found


def may_have_shebang(path: str) -> bool:
    """Whether a file of no known kind is worth a look at its first line: its name has no ending."""
    return "." not in path.rpartition("/")[2].lstrip(".")


def kind_of_shebang(start: bytes) -> Kind | None:
    """The kind that a first line `#!...` tells."""
    line = start.partition(b"\n")[0]
    if not line.startswith(b"#!"):
        return None
    if re.search(rb"\b(?:ba|z|k|da|a|fi)?sh\b", line):
        return SHELL
    if b"python" in line:
        return Kind("python")
    return Kind("make") if re.search(rb"\bmake\b", line) else Kind("just") if re.search(rb"\bjust\b", line) else None


_ABOUT = (b"docker", b"compose", b"podman", b"nerdctl")
_NEAR = 300
"""Bytes within which the words of one command stand."""
_VOLUMES_FLAG = re.compile(rb"(?<![\w-])-[a-z]*v|--vol")
_YES_FLAG = re.compile(rb"(?<![\w-])-[a-z]*y\b|--yes\b|--y\b")
_VARIABLE = re.compile(rb"\$|\{\{")
_VOLUME = re.compile(rb"volumes?\b")
_OF_VOLUMES_FLAG = re.compile(rb"\b(?:down|rm|remove)\b")
_OF_YES_FLAG = re.compile(rb"\b(?:up|create|run|scale|watch)\b")
_DOWN = re.compile(rb"\bdown\b")
_REMOVE = re.compile(rb"\b(?:rm|remove)\b")


def may_matter(data: bytes) -> bool:
    """Whether a file could hold a finding at all: the parsers are asked only then. Errs toward yes.

    >>> may_matter(b"docker compose -f a.yml down"), may_matter(b"args: [docker, compose, down, -tv]")
    (False, True)
    """
    lower = data.lower()
    if not any(word in lower for word in _ABOUT):
        return False
    return (
        b"prune" in lower
        or b"skip-backup" in lower
        or _pair(lower, _VOLUMES_FLAG, _OF_VOLUMES_FLAG)
        or _pair(lower, _YES_FLAG, _OF_YES_FLAG)
        or _pair(lower, _VARIABLE, _DOWN)
        or _pair(lower, _REMOVE, _VOLUME)
    )


def _pair(data: bytes, later: "re.Pattern[bytes]", earlier: "re.Pattern[bytes]") -> bool:
    """Whether one pattern stands shortly after another."""
    return any(earlier.search(data, max(0, found.start() - _NEAR), found.start()) for found in later.finditer(data))


def finder_of(kind: Kind) -> Callable[[str], Read]:
    """The finder for a kind; its parser is imported here. Raises ImportError where the extra `audit` is not installed."""
    if kind.name in ("markdown", "html"):
        from safe_compose.audit.markdown import html_page, markdown

        return markdown if kind.name == "markdown" else html_page
    if kind.name == "yaml":
        from safe_compose.audit.yaml_files import yaml

        return yaml
    from safe_compose.audit import recipes

    finders: dict[str, Callable[[str], Read]] = {
        "shell": recipes.shell,
        "make": recipes.make,
        "just": recipes.just,
        "dockerfile": recipes.dockerfile,
        "crontab": recipes.crontab,
        "unit": recipes.unit,
        "json": recipes.package_json,
        "python": recipes.python,
        "groovy": recipes.groovy,
        "prose": recipes.prose,
    }
    return finders[kind.name]
