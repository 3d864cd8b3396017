"""Commands in files that remove or change a folder with data of a service."""

import json
import time
from pathlib import Path

import pytest

from safe_compose.audit import report, scan
from safe_compose.audit.scan import Finding

COMPOSE = """
services:
  db:
    image: postgres:16
    volumes: ["${DB_DATA_LOCATION}:/var/lib/postgresql/data"]
  web:
    image: me/web
    volumes:
      - .:/app
      - ./node_modules:/app/node_modules
      - ./uploads:/app/uploads
      - ./config:/etc/web:ro
    command: sh -c "rm -rf uploads/tmp"
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shop"
    for name in ("scripts", "docs", ".github/workflows", ".git"):
        (folder / name).mkdir(parents=True)
    (folder / "docker-compose.yml").write_text(COMPOSE)
    (folder / ".env").write_text("DB_DATA_LOCATION=./postgres\nDB_PASSWORD=hunter2\n")
    monkeypatch.chdir(folder)
    return folder


def find_in(folder: Path, path: str, text: str) -> list[Finding]:
    (folder / path).write_text(text)
    return [f for f in scan.scan(()).findings if f.path == path]


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        ("clean.sh", "rm -rf postgres\n", "folder_rm"),
        ("clean.sh", "rm -rf ./postgres/*\n", "folder_rm"),
        ("clean.sh", 'set -e\ncd "$(dirname "$0")"\nsudo rm -rf postgres uploads\n', "folder_rm"),
        ("clean.sh", "rm -rf *\n", "folder_rm"),
        ("clean.sh", "git clean -fdx\n", "folder_rm"),
        ("clean.sh", "mv postgres postgres.old\n", "folder_rm"),
        ("clean.sh", "find ./uploads -mtime +30 -delete\n", "folder_rm"),
        ("clean.sh", "rsync -a --delete backup/ uploads/\n", "folder_rm"),
        ("clean.sh", "sudo chown -R 1000:1000 .\n", "folder_change"),
        ("clean.sh", "chmod -R 777 uploads\n", "folder_change"),
        ("clean.sh", "cp -r backup/. postgres\n", "folder_change"),
        ("scripts/reset", "#!/bin/sh\nrm -rf postgres\n", "folder_rm"),
        ("scripts/reset.sh", "cd ..\nrm -rf postgres\n", "folder_rm"),
        ("Makefile", "clean:\n\tdocker compose down\n\trm -rf postgres\n", "folder_rm"),
        ("package.json", '{"scripts": {"clean": "rm -rf uploads"}}', "folder_rm"),
        ("docs/reset.md", "Reset:\n\n```sh\nrm -rf ./postgres\n```\n", "folder_rm"),
        (".github/workflows/a.yml", "jobs: {a: {steps: [{run: rm -rf postgres}]}}\n", "folder_rm"),
    ],
)
def test_a_command_that_loses_files_of_a_service_is_found(
    path: str, text: str, kind: str, repository: Path
) -> None:
    found = find_in(repository, path, text)
    assert [f.kind for f in found] == [kind], found
    assert found[0].level == ("error" if kind == "folder_rm" else "warning")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("clean.sh", "rm -rf node_modules dist\n"),
        ("clean.sh", "rm -rf config\n"),
        ("clean.sh", "rm postgres.sql\n"),
        ("clean.sh", 'cd "$TMPDIR"\nrm -rf *\n'),
        ("clean.sh", "cd /tmp/x && rm -rf postgres\n"),
        ("clean.sh", "rm -rf $X/postgres\n"),
        ("clean.sh", "mkdir -p postgres\nchown -R 999:999 postgres\n"),
        ("clean.sh", "docker compose exec db rm -rf uploads\n"),
        ("clean.sh", "ssh host rm -rf postgres\n"),
        ("clean.sh", "rm -rf postgres # safe-compose: allow\n"),
        ("clean.sh", "# safe-compose: allow-file\nrm -rf postgres\n"),
        ("clean.sh", "git clean -fd\n"),
        ("clean.sh", "echo rm -rf postgres\n"),
        ("clean.sh", "cp -r uploads /backup\n"),
        ("Dockerfile", "FROM x\nRUN rm -rf postgres\n"),
        ("docs/a.md", "**Danger**: `rm -rf postgres`; first `safe-compose backup`.\n"),
        ("docs/a.md", "The folder postgres is removed by rm.\n"),
    ],
)
def test_what_loses_none_is_not_found(path: str, text: str, repository: Path) -> None:
    assert find_in(repository, path, text) == []


def test_without_a_compose_file_nothing_is_said(repository: Path) -> None:
    (repository / "docker-compose.yml").unlink()
    assert find_in(repository, "clean.sh", "rm -rf postgres uploads *\n") == []


def test_a_compose_file_in_a_subfolder_counts(repository: Path) -> None:
    (repository / "docker-compose.yml").rename(repository / "docs/compose.prod.yaml")
    (repository / ".env").rename(repository / "docs/.env")
    assert find_in(repository, "clean.sh", "rm -rf docs/postgres\n")
    assert find_in(repository, "clean.sh", "rm -rf docs\n")


def test_a_file_that_is_named_alone_is_judged_by_the_compose_file_above(repository: Path) -> None:
    (repository / "scripts/a.sh").write_text("rm -rf ../postgres\n")
    assert [f.kind for f in scan.scan(["scripts/a.sh"]).findings] == ["folder_rm"]


def test_people_and_programs_read_which_folder_it_is(repository: Path) -> None:
    (repository / "a.sh").write_text("rm -rf postgres\n")
    found = scan.scan(())
    lines = list(report.text(found.findings, found.notes, found.looked_at, 0))
    assert lines[:2] == [
        "a.sh:1: error: removes files of a folder that a service mounts (postgres, which the"
        " service db mounts): rm -rf postgres",
        "    with a verified backup first: safe-compose backup && rm -rf postgres",
    ]
    (shown,) = report.to_json(found.findings, (), (), 1)["findings"]
    assert shown["mount"] == "postgres, which the service db mounts"
    assert report.sarif(found.findings, ())["runs"][0]["results"][0]["ruleId"] == "folder_rm"
    assert "hunter2" not in json.dumps(shown)


@pytest.mark.parametrize(
    "text",
    [
        "a: !!bool x",
        'a: !!int ""',
        "a: !!timestamp x",
        'services: {b: {volumes: ["./\\0x:/data"]}}',
        "services: {b: {volumes: [{type: bind, source: ./x, target: [1]}]}}",
        "services: {? [a, b] : {volumes: [./x:/data]}}",
        "services: {b: {image: [x], volumes: [./x:/data, 1, [2]]}}",
    ],
)
def test_odd_values_in_a_compose_file_hide_no_other(text: str, repository: Path) -> None:
    (repository / "compose.b.yaml").write_text(text)
    (repository / "a.sh").write_text("rm -rf postgres\n")
    assert scan.scan(()).findings


def test_hostile_compose_files_end_nothing_and_print_no_control_characters(
    repository: Path,
) -> None:
    (repository / "compose.yaml").write_text(
        'services: {"a\\e[2J": {volumes: ["./\\e[31mx:/data", "./[a-:/data", "./**:/data"]}}'
    )
    (repository / "compose.b.yaml").write_text("a: &a [" + "[" * 5000)
    (repository / "compose.c.yaml").symlink_to("/dev/zero")
    many = ", ".join(f"./d{n}:/data" for n in range(2000))
    (repository / "compose.d.yaml").write_text(f"services: {{a: {{volumes: [{many}]}}}}")
    bomb = ["a0: &a0 {a: 1, b: 2}"]
    bomb += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30)]
    (repository / "compose.e.yaml").write_text("\n".join([*bomb, "services: {}"]))
    began = time.process_time()
    (repository / "a.sh").write_text("rm -rf *\n" * 300)
    found = scan.scan(())
    assert time.process_time() - began < 20
    assert found.findings
    assert all("\x1b" not in line for line in report.text(found.findings, (), 1, 0))
