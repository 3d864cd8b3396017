"""Which containers a command removes, and how what goes with them is said."""

import pytest

from safe_compose.core.layers import LayerContent, describe_losses, find_recreated, find_removed
from safe_compose.core.observed import (
    CONFIG_HASH_LABEL,
    ONEOFF_LABEL,
    PROJECT_LABEL,
    SERVICE_LABEL,
    Container,
    Observed,
    Project,
)
from safe_compose.fastpath.layer_data import LayerData
from safe_compose.grammar import parser


def container(
    service: str, state: str = "running", *, project: str = "shop", one_off: str = "False"
) -> Container:
    name = f"{project}-{service}-1"
    labels = {
        PROJECT_LABEL: project,
        SERVICE_LABEL: service,
        ONEOFF_LABEL: one_off,
        CONFIG_HASH_LABEL: f"hash of {service}",
    }
    return Container(name.encode().hex(), name, service, f"id of {service}", state, labels=labels)


SHOP = Project("shop", "folder", "config", services=("web", "db"))
HERE = Observed(
    "",
    "",
    containers=(
        container("web"),
        container("db", "exited"),
        container("old"),
        container("other", "exited", project="other"),
    ),
    project=SHOP,
)
HASHES = {"web": "hash of web", "db": "hash of db"}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("compose down", "shop-web-1 shop-db-1"),
        ("compose down web", "shop-web-1"),
        ("compose down --remove-orphans", "shop-web-1 shop-db-1 shop-old-1"),
        ("compose rm -f", "shop-db-1"),
        ("compose rm -sf", "shop-web-1 shop-db-1 shop-old-1"),
        ("compose stop", ""),
        ("rm shop-web-1 shop-db-1", "shop-db-1"),
        ("rm -f shop-web-1 other-other-1", "shop-web-1 other-other-1"),
        ("container prune -f", "shop-db-1 other-other-1"),
        (
            "container prune -f --filter label=com.docker.compose.project=shop",
            "shop-db-1",
        ),
        ("system prune -f", "shop-db-1 other-other-1"),
        ("compose up -d", ""),
        ("compose up -d --remove-orphans", "shop-old-1"),
        ("compose up --force-recreate", "shop-web-1 shop-db-1"),
        ("compose up --force-recreate web", "shop-web-1"),
        ("compose up --build --no-deps db", "shop-db-1"),
        ("compose run web true", ""),
    ],
)
def test_a_command_removes_the_containers_that_docker_would(words: str, names: str) -> None:
    invocation = parser.parse(words.split())
    recreated = find_recreated(invocation, HERE, HASHES, {})
    if "up" not in words:
        recreated = frozenset()
    found = find_removed(invocation, HERE, recreated)
    assert [c.name for c in found] == names.split()


def test_another_definition_or_another_image_recreates_a_container() -> None:
    invocation = parser.parse(["compose", "up"])
    web, db, *_ = HERE.containers
    assert find_recreated(invocation, HERE, {**HASHES, "web": "new"}, {}) == {web.id}
    assert find_recreated(invocation, HERE, HASHES, {"db": "newer", "web": "id of web"}) == {db.id}


def test_a_one_off_container_is_not_recreated() -> None:
    once = container("web", one_off="True")
    here = Observed("", "", containers=(once,), project=SHOP)
    assert not find_recreated(parser.parse(["compose", "up", "--build"]), here, HASHES, {})


def test_a_sentence_stays_short_and_plain() -> None:
    data = LayerData(
        ("/var/lib/mysql",), ("/a.db", "/b\n\x1b.db", "/c.db"), tuple(f"/u/{n}" for n in range(9))
    )
    many = [LayerContent(container(f"s{n}"), data) for n in range(5)]
    words = describe_losses(many)
    assert "a database in /var/lib/mysql, SQLite /a.db" in words and "more" in words
    assert "2 other containers" in words and "\n" not in words and "\x1b" not in words


def test_what_is_unknown_is_no_loss_but_said() -> None:
    known = LayerContent(container("web"), LayerData(sqlite=("/a.db",)))
    partly = LayerContent(container("web"), LayerData(sqlite=("/a.db",)), unread=True)
    unknown = LayerContent(container("db"), LayerData(), unread=True)
    assert describe_losses([unknown]) == (
        "this deletes shop-db-1: what its own layer holds could not be listed in time"
    )
    assert describe_losses([known, unknown]) == (
        "this deletes data that is in no volume: shop-web-1 (SQLite /a.db); also shop-db-1: what"
        " its own layer holds could not be listed in time"
    )
    assert describe_losses([partly]) == (
        "this deletes data that is in no volume: shop-web-1 (SQLite /a.db, what else it holds could"
        " not be listed in time)"
    )
