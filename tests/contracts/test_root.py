"""What the root of the repository may contain: nothing of an experiment by hand."""

import subprocess

from testing.projects import ROOT

ALLOWED = {
    ".ci", ".claude-plugin", ".editorconfig", ".gitattributes", ".github", ".gitignore", ".pre-commit-config.yaml",
    ".pre-commit-hooks.yaml", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
    "SECURITY.md", "bench", "docs", "examples", "hatch_build.py", "integrations", "mkdocs.yml", "native",
    "pyproject.toml", "shell", "src", "testing", "tests",
}  # fmt: skip


def test_the_root_of_the_repository_holds_nothing_else() -> None:
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True
    ).stdout.decode()
    found = {name.partition("/")[0] for name in listed.split("\0") if name}
    assert found <= ALLOWED
