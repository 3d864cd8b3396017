"""The end of a guarded command: each volume is named once, and the next step works in that shell."""

import sys
from pathlib import Path

import pytest

from safe_compose.core import plan
from safe_compose.core.backup import Artifact, Backup, VolumeRecord
from safe_compose.core.observed import Observed, Project, Volume
from safe_compose.core.plan import Doomed
from safe_compose.core.policy import Verdict
from safe_compose.core.threat import Threat
from safe_compose.core.tier import Tier
from safe_compose.grammar.parser import parse
from safe_compose.operations.guard.look import list_names
from safe_compose.operations.guard.report import MOST_NAMES, list_deleted, make_undo_command
from safe_compose.ui import terminal

ID = "20261130T113333Z-62e880"


def backup_of(*names: str) -> Backup:
    artifact = Artifact("a.tar.gz", "archive", 1, "", 1, "")
    records = tuple(
        VolumeRecord(n, "local", {}, {}, "", "critical", "files", False, "cold", (), (artifact,))
        for n in names
    )
    return Backup(ID, 1, "", "shop", "", "", "pre-delete", (), "", records)


def plan_of(*volumes: tuple[str, Tier, str]) -> plan.Plan:
    doomed = [Doomed(Volume(n), Verdict(n, tier, why, "files")) for n, tier, why in volumes]
    observed = Observed("unix:///run/docker.sock", "e", project=Project("shop", "folder", "config"))
    threat = Threat("compose_down_volumes", tuple(d.volume for d in doomed))
    return plan.make(parse(["compose", "down", "-v"]), observed, threat, doomed)


def test_each_volume_is_named_once_with_what_became_of_it() -> None:
    made = plan_of(
        ("db", Tier.CRITICAL, ""),
        ("both", Tier.CRITICAL, ""),
        ("photos", Tier.CRITICAL, ""),
        ("cache", Tier.DISPOSABLE, "a cache"),
        ("tmp", Tier.DISPOSABLE, "empty"),
        ("left", Tier.CRITICAL, ""),
    )
    gone = {"db", "both", "photos", "cache", "tmp"}
    assert list(list_deleted(made, gone, backup_of("db", "both", "left"), {"both", "photos"})) == [
        f"deleted 1 volume, with a copy in backup {ID}: db",
        f"deleted 1 volume, with a copy in backup {ID} and in the trash for 30 days: both",
        "deleted 1 volume, in the trash for 30 days: photos",
        "deleted 1 volume, without a copy (disposable): cache",
        "deleted 1 volume, empty: tmp",
    ]
    assert list(list_deleted(made, {"db", "left"}, None, ())) == [
        "deleted 2 volumes, without a copy: db, left"
    ]


def test_of_many_volumes_the_rest_is_counted() -> None:
    made = plan_of(*((f"v{n:03}", Tier.CRITICAL, "") for n in range(MOST_NAMES + 60)))
    names = [d.name for d in made.doomed]
    [line] = list_deleted(made, names, backup_of(*names), ())
    assert line.startswith(f"deleted 100 volumes, with a copy in backup {ID}: v000, ")
    assert line.endswith("v039 and 60 more")


def test_a_refusal_names_the_volumes_that_matter_and_counts_the_rest() -> None:
    few = plan_of(("a", Tier.IMPORTANT, ""), ("b", Tier.CRITICAL, ""), ("c", Tier.DISPOSABLE, ""))
    assert list_names(few.doomed) == "3 volumes (b, a and 1 disposable)"
    many = plan_of(*((f"v{n:03}", Tier.CRITICAL, "") for n in range(300)))
    assert list_names(many.doomed).endswith(", v018, v019, 280 more)")


@pytest.mark.parametrize(
    ("environ", "called", "store", "key", "command"),
    [
        ({}, "docker", None, False, "safe-compose undo"),
        ({"PATH": "/none"}, "/opt/a b/safe-compose", None, False, "'/opt/a b/safe-compose' undo"),
        ({"SUDO_COMMAND": "/usr/bin/docker compose down -v"}, "docker", None, False, "sudo safe-compose undo"),
        ({"SUDO_COMMAND": "/bin/bash"}, "docker", None, False, "safe-compose undo"),
        ({}, "docker", "/o t", False, "SAFE_COMPOSE_HOME='/o t' safe-compose undo"),
        ({}, "docker", None, True, "safe-compose undo --identity KEYFILE"),
    ],
    ids=["plain", "no path", "sudo", "a shell by sudo", "another store", "encrypted"],
)  # fmt: skip
def test_the_next_step_works_in_the_shell_that_called(
    environ: dict[str, str], called: str, store: str | None, key: bool, command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("SUDO_COMMAND", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", [called])
    assert make_undo_command(Path(store) if store else None, needs_key=key) == command


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_the_line_of_a_step_is_never_wider_than_the_terminal(columns: int) -> None:
    for name in ("archive shop_data", "archive " + "x" * 300, "archive 漢字" * 20, "\x1b[2J"):
        for share in (None, 0.0, 0.5, 7.0):
            line = terminal.fit_progress(name, share, "31.0 MiB, about 2 seconds left", columns)
            assert terminal.cell_len(line) <= columns and line.isprintable()
    whole = terminal.fit_progress("archive a", 0.5, "2 seconds", 80)
    assert whole == f"safe-compose: archive a  [{'=' * 10}{' ' * 10}]  2 seconds"
