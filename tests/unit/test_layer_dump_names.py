"""No two dumps of servers without a volume get one name, nor that of a volume that is there."""

from safe_compose.core.observed import (
    NUMBER_LABEL,
    ONEOFF_LABEL,
    PROJECT_LABEL,
    SERVICE_LABEL,
    Container,
    DeclaredVolume,
    Observed,
    Project,
    Volume,
)
from safe_compose.operations.backup.layers import list_taken_names, name_dump


def container(number: int = 1, *, one_off: bool = False) -> Container:
    name = f"shop-db-{'run' if one_off else number}"
    labels = {
        PROJECT_LABEL: "shop",
        SERVICE_LABEL: "db",
        NUMBER_LABEL: str(number),
        ONEOFF_LABEL: str(one_off),
    }
    return Container(name, name, "postgres:15", "sha256:0", "running", labels=labels)


def test_the_first_container_names_its_dump_after_the_service() -> None:
    taken: set[str] = set()
    assert [name_dump(container(), n, taken) for n in (0, 1)] == ["shop_db-dump", "shop_db-dump-2"]


def test_replicas_and_one_off_containers_have_names_of_their_own() -> None:
    taken: set[str] = set()
    all_of_db = (container(1), container(2), container(1, one_off=True))
    names = {name_dump(one, 0, taken) for one in all_of_db}
    assert names == {"shop_db-dump", "shop_shop-db-2-dump", "shop_shop-db-run-dump"}


def test_a_volume_that_exists_or_is_declared_keeps_its_name() -> None:
    project = Project(
        "shop", "folder", "config", volumes=(DeclaredVolume("dump", "shop_db-dump-2"),)
    )
    taken = list_taken_names(Observed("", "", volumes=(Volume("shop_db-dump"),), project=project))
    assert name_dump(container(), 0, taken) == "shop_db-dump-3"
