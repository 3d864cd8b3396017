"""Every verb of ours, on a terminal and into a pipe, where everything has a name that commands the
terminal or forges a line.
"""

import os
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from safe_compose.core.backup import (
    Artifact,
    DatabaseStatistics,
    ServerStatistics,
    TableCount,
    VolumeRecord,
)
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import CommandLine, Journal
from testing.fixtures import SafeCompose
from testing.projects import docker, unique
from testing.terminal import Person

EVIL = (
    "a\x1b[2J\x07\x9b8m\u202e\u200b[/][bold]\r\nsafe-compose: verified\u2028safe-compose:"
    " verified\n# h\n```sh\nid\n``` `x`\x7f"
)
FORBIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
OUR_STYLING = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AK]|\x1b\[2K|\r")
FORGED = re.compile(r"^[\s\u2500-\u257f]*(safe-compose: verified|# h|```)", re.MULTILINE)

VERBS: tuple[tuple[str, ...], ...] = (
    ("list",), ("show", "latest"), ("verify", "--all"), ("journal",), ("approve", "--list"),
    ("offsite", "status"), ("about",), ("schedule", "status"), ("forget", "--keep-last", "1",
     "--dry-run"), ("audit",), ("commands",),
)  # fmt: skip
WITH_ENGINE: tuple[tuple[str, ...], ...] = (
    ("volumes",), ("trash", "list"), ("undo", "--dry-run"), ("restore", "latest", "--dry-run"),
    ("recover",), ("setup", "--dry-run"),
    ("--explain", "compose", "down", "-v"), ("--explain", "volume", "prune", "-f"), ("compose",
     "down", "-v"),
)  # fmt: skip


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder, and a store (the test's own) in which every name is planted."""
    catalogue = Catalogue.at(Path(os.environ["SAFE_COMPOSE_HOME"]))
    with catalogue.writer.draft(
        "shop", "manual", endpoint=f"unix:///{EVIL}", engine_id="E", command=("compose", EVIL)
    ) as draft:
        folder = draft.folder("data")
        (folder / "data.tar.gz").write_bytes(b"no archive")
        digest = sha256(b"no archive").hexdigest()
        made = Artifact(
            f"{folder.name}/data.tar.gz",
            "archive",
            10,
            digest,
            10,
            "shop_data",
            database=EVIL,
            detail={"image": EVIL},
        )
        one_line = EVIL.replace("\n", " ")  # a manifest with more is damaged
        databases = (DatabaseStatistics(EVIL, 10, (TableCount(EVIL, EVIL, 3),), 2, (EVIL,)),)
        record = VolumeRecord(
            "shop_data",
            "local",
            {},
            {EVIL: EVIL},
            "",
            "critical",
            "postgres",
            False,
            "cold",
            artifacts=(made,),
        )
        record = replace(
            record,
            statistics=ServerStatistics("postgres", EVIL, one_line, EVIL, one_line, databases),
            users=(
                {
                    "container": "shop-db-1",
                    "image": "postgres:15",
                    "service": "",
                    "destination": f"/{EVIL}",
                },
            ),
            notes=(EVIL,),
        )
        draft.commit([record], warnings=[EVIL])
    journal = Journal(catalogue.root)
    run = journal.begin(
        journal.new_id(),
        CommandLine(["compose", EVIL]),
        project=EVIL,
        cwd=EVIL,
        endpoint=EVIL,
    )
    run.step("ended", outcome=EVIL)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a\x1b[2J\nsafe-compose: verified.sh").write_text(
        "docker compose down -v # \x1b[2J\n"
    )
    return folder


def check(output: str, words: tuple[str, ...]) -> None:
    plain = OUR_STYLING.sub("", output)
    found = FORBIDDEN.search(plain)
    assert found is None, (words, plain[max(0, found.start() - 80) : found.end() + 80])
    assert not FORGED.search(plain), (words, plain)


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_no_planted_name_commands_the_terminal(
    words: tuple[str, ...], planted: Path, safe_compose: SafeCompose
) -> None:
    [manifest] = Path(os.environ["SAFE_COMPOSE_HOME"]).rglob("manifest.json")
    words = tuple(word.replace("latest", manifest.parent.name) for word in words)
    piped = safe_compose(*words, cwd=planted)
    assert piped.returncode != 70, piped.stderr
    check(piped.stdout, words)
    check(piped.stderr, words)
    person = Person(*words, cwd=planted)
    assert person.leaves_with() != 70, person.last_words
    check(person.last_words, words)
    if words[0] in ("show", "journal"):
        assert "\\x1b[2J" in piped.stdout and "[/]" in piped.stdout
        exact = safe_compose(*words, "--json", cwd=planted)
        assert exact.stdout.isascii() and not FORBIDDEN.search(exact.stdout)
        assert (
            "\\u001b[2J" in exact.stdout or words[0] == "show"
        )  # a manifest with such names may be refused, which says so


def test_restore_md_has_no_heading_fence_or_line_of_a_planted_name(planted: Path) -> None:
    [path] = Path(os.environ["SAFE_COMPOSE_HOME"]).rglob("RESTORE.md")
    text = path.read_text(errors="surrogateescape")
    check(text.replace("```sh\n", "").replace("\n```\n", "\n"), ("RESTORE.md",))
    assert text.count("\n```") % 2 == 0
    assert {line.split(" ")[1] for line in text.splitlines() if line.startswith("#")} == {
        "Backup",
        "Volume",
    } | {line.split(" ")[1] for line in text.splitlines() if line.startswith("### ")}


@pytest.mark.thorough
@pytest.mark.engine
def test_no_planted_label_commands_the_terminal(
    planted: Path, safe_compose: SafeCompose, lab: None
) -> None:
    name = unique("planted")
    labels = {
        "com.docker.compose.project": f"{name}\x1b[2J\nsafe-compose: verified",
        "com.docker.compose.volume": "a\x1b[2J\n# h",
    }
    (planted / "compose.yaml").write_text(
        f"name: {name}\nservices: {{a: {{image: busybox}}}}\nvolumes: {{d: {{name: {name}_d}}}}\n"
        "x-safe-compose: {tier: critical}\n"
    )
    docker(
        "volume",
        "create",
        *(word for pair in labels.items() for word in ("--label", "=".join(pair))),
        f"{name}_d",
    )
    try:
        for words in WITH_ENGINE:
            piped = safe_compose(*words, cwd=planted)
            assert piped.returncode != 70, (words, piped.stderr)
            check(piped.stdout, words)
            check(
                "\n".join(line for line in piped.stderr.splitlines() if not line.startswith("{")),
                words,
            )
    finally:
        docker("volume", "rm", f"{name}_d")
