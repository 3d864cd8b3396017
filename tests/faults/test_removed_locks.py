"""A deletion lock that a docker command would remove, in every spelling: that is a person's
decision.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.fixtures import SafeCompose
from testing.projects import docker, read_in_volume, unique, volume_exists
from testing.terminal import Person

pytestmark = pytest.mark.engine


@pytest.fixture
def locked(lab: None, safe_compose: SafeCompose) -> Iterator[str]:
    """A volume with a deletion lock."""
    name = unique("locked")
    docker("volume", "create", name)
    read_in_volume(name, "touch", "/v/one")
    answer = safe_compose("protect", "--lock", name)
    assert answer.returncode == 0, answer.stderr
    yield name
    docker("rm", "--force", lock_of(name), check=False)
    docker("rm", "--force", f"{name}-renamed", check=False)
    docker("volume", "rm", "--force", name, check=False)


def lock_of(volume: str) -> str:
    return f"safe-compose-lock-{volume}"


def exists(container: str) -> bool:
    return docker("container", "inspect", container, check=False).returncode == 0


@pytest.mark.thorough
def test_no_spelling_removes_a_lock_without_a_person(
    locked: str, safe_compose: SafeCompose
) -> None:
    name = lock_of(locked)
    identity = docker("container", "inspect", "--format", "{{.Id}}", name).stdout.strip()
    spellings = [
        ("rm", "-f", name),
        ("rm", "--force", f"/{name}"),
        ("rm", "-fv", identity[:12]),
        ("container", "rm", "-f", identity),
        ("container", "remove", "--force", name),
        ("--non-interactive", "--backup-first", "rm", "-f", name),
        ("--confirm", "yes", "rm", "-f", name),
        ("rm", "-f", "no-such-container", identity[:10]),
    ]
    for words in spellings:
        answer = safe_compose(*words)
        assert answer.returncode == 77 and exists(name), (words, answer.stderr)
        assert locked in answer.stderr and "docker was not run (77)" in answer.stderr
    assert safe_compose("--explain", "rm", "-f", name).stdout.count("unlocks ") == 1


@pytest.mark.matrix
@pytest.mark.thorough
def test_a_stopped_and_renamed_lock_still_holds_and_is_still_guarded(
    locked: str, safe_compose: SafeCompose
) -> None:
    name, renamed = lock_of(locked), f"{locked}-renamed"
    for words in (
        ("update", "--restart", "no", name),
        ("stop", "-t", "1", name),
        ("rename", name, renamed),
    ):
        answer = safe_compose(*words)
        assert answer.returncode == 0, (words, answer.stderr)
    assert docker("volume", "rm", locked, check=False).returncode != 0
    answer = safe_compose("rm", renamed)
    assert answer.returncode == 77 and exists(renamed), answer.stderr
    # here, where others work, only with a filter that fits nothing but this lock
    pruned = safe_compose(
        "container", "prune", "--force", "--filter", f"label=io.github.safe-compose.lock={locked}"
    )
    assert pruned.returncode == 77 or exists(name), pruned.stderr
    assert volume_exists(locked) and docker("volume", "rm", locked, check=False).returncode != 0


@pytest.mark.thorough
def test_the_phrase_lets_docker_remove_it(
    locked: str, safe_compose: SafeCompose, tmp_path: Path
) -> None:
    person = Person("rm", "-f", lock_of(locked), cwd=tmp_path)
    person.sees(f"'{locked}'")
    person.types("yes")
    person.sees("Once more")
    person.types("yes")
    assert person.leaves_with() == 77 and exists(lock_of(locked))
    answer = safe_compose("rm", "-f", "--confirm", locked, lock_of(locked))
    assert answer.returncode == 0 and not exists(lock_of(locked)), answer.stderr
    assert "safe-compose unprotect" in answer.stderr


@pytest.mark.thorough
def test_removing_any_other_container_passes(locked: str, safe_compose: SafeCompose) -> None:
    other = unique("other")
    docker("create", "--name", other, "busybox:latest", "true")
    answer = safe_compose("rm", other)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, f"{other}\n", "")
    assert exists(lock_of(locked))
