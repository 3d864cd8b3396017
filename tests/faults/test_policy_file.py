"""Root's floors in /etc/safe-compose/policy.toml, each in a mount namespace of its own: this
machine's /etc is never touched.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from testing.fixtures import ProjectFactory
from testing.projects import Completed
from testing.stacks import FILES, JOB, write_file

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to mount in a namespace"
    ),
]
PROGRAM = Path(sys.executable).with_name("safe-compose")
NAMESPACE = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
mkdir -m 755 /etc/safe-compose
cp "$1" /etc/safe-compose/policy.toml
sh -c "$2"
shift 2
exec "$@"
"""

Run = Callable[..., Completed]


@pytest.fixture
def under(tmp_path: Path) -> Run:
    """`under(policy, words...)`: safe-compose on a machine with that policy. `spoil`: a shell line
    that is run there first.
    """

    def run(
        policy: str,
        *words: str,
        cwd: Path,
        spoil: str = "true",
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        text = tmp_path / "policy.toml"
        text.write_text(policy)
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", NAMESPACE, "sh", text, spoil, PROGRAM, *words],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            start_new_session=True,
        )

    return run


LOWERED = '[project]\ntier = "disposable"\n[backup]\nsafety = "trash"\n'


@pytest.mark.thorough
@pytest.mark.engine
def test_floors_are_lowered_by_nobody(
    compose_project: ProjectFactory, under: Run, sealed_environment: Path
) -> None:
    project = compose_project(FILES, files={"safe-compose.toml": LOWERED})
    project.up()
    write_file(project)
    mine = sealed_environment / ".config/safe-compose/config.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text('[projects]\n"*" = "disposable"\n')
    shown = under("", "--explain", "--json", "compose", "down", "-v", cwd=project.folder)
    assert json.loads(shown.stdout)["volumes"][0]["tier"] == "disposable", shown.stderr
    for policy, tier in (
        ('[volumes]\nuploads = "critical"\n', "critical"),
        ('[volumes]\n"*_uploads" = "important"\n', "important"),
        ('[projects]\n"scproj-*" = "important"\n', "important"),
    ):
        shown = under(policy, "--explain", "--json", "compose", "down", "-v", cwd=project.folder)
        assert json.loads(shown.stdout)["volumes"][0]["tier"] == tier, shown.stderr
        assert "/etc/safe-compose/policy.toml" in json.loads(shown.stdout)["volumes"][0]["why"]


@pytest.mark.thorough
@pytest.mark.engine
def test_a_required_backup_is_made_whatever_flags_and_files_say(
    compose_project: ProjectFactory, under: Run
) -> None:
    project = compose_project(FILES, files={"safe-compose.toml": '[backup]\nsafety = "trash"\n'})
    project.up()
    write_file(project)
    policy = "[require]\nbackup = true\nguard = true\n"
    phrase = f"delete {project.name} without backup"
    skipped = under(
        policy, "--skip-backup", "--confirm", phrase, "compose", "down", "-v", cwd=project.folder
    )
    assert (
        skipped.returncode == 77 and "policy.toml" in skipped.stderr and project.running() != []
    ), skipped.stderr
    trashed = under(
        policy, "--confirm", f"trash {project.name}", "compose", "down", "-v", cwd=project.folder
    )
    assert trashed.returncode == 77 and project.running() != [], trashed.stderr
    off = under(policy, "compose", "down", "-v", cwd=project.folder, env={"SAFE_COMPOSE": "off"})
    assert off.returncode == 77 and "forbidden" in off.stderr and project.running() != [], (
        off.stderr
    )
    done = under(policy, *JOB, "compose", "down", "-v", cwd=project.folder)
    assert done.returncode == 0 and "is verified" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("policy", "spoil", "words"),
    [
        ("", "chmod 666 /etc/safe-compose/policy.toml", "others may write to it"),
        ("", "chmod 775 /etc/safe-compose", "others may write to the folder /etc/safe-compose"),
        ("", "chown nobody /etc/safe-compose/policy.toml", "belongs to user nobody"),
        ("", "chown nobody /etc/safe-compose", "belongs to user nobody"),
        (
            "",
            "rm /etc/safe-compose/policy.toml && mkfifo /etc/safe-compose/policy.toml",
            "a named pipe",
        ),
        (
            "",
            "ln -sf /nowhere /etc/safe-compose/policy.toml",
            "behind a link that leads to nothing",
        ),
        (
            "",
            "rm -r /etc/safe-compose && ln -s /nowhere /etc/safe-compose",
            "behind a link that leads to nothing",
        ),
        ("", "head -c 2000000 /dev/zero >> /etc/safe-compose/policy.toml", "is larger than"),
        ('[volumes]\nx = "disposable"\n', "true", "a floor is"),
        ("[store]\npath = '/x'\n", "true", "unknown key"),
        ("[volumes", "true", "is not TOML"),
    ],
    ids=range(11),
)
@pytest.mark.parametrize("off", [False, True], ids=["on", "off"])
def test_a_policy_that_cannot_be_trusted_or_read_ends_everything(
    policy: str, spoil: str, words: str, off: bool, under: Run, tmp_path: Path
) -> None:
    env = {"SAFE_COMPOSE": "off"} if off else {}
    answer = under(policy, "volume", "rm", "no-such-volume", cwd=tmp_path, spoil=spoil, env=env)
    assert answer.returncode == 78 and words in answer.stderr, answer.stderr
    assert (
        "/etc/safe-compose/policy.toml" in answer.stderr
        and "docker was not run (78)" in answer.stderr
    )
