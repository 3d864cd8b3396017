"""What a command threatens, from hand-made looks at an engine. Which container holds what is
docker-facts, sections 0 to 2.
"""

from dataclasses import replace

import pytest

from safe_compose.core.observed import (
    ANONYMOUS_LABEL,
    HELPER_LABEL,
    ONEOFF_LABEL,
    PROJECT_LABEL,
    SERVICE_LABEL,
    VERSION_LABEL,
    Container,
    DeclaredVolume,
    Mount,
    Observed,
    Project,
    Volume,
)
from safe_compose.core.threat import CONFIG_HASH_LABEL, Threat, find_threat
from safe_compose.engine import values
from safe_compose.grammar import parser

ANON, INHERITED = "a" * 64, "b" * 64


def volume(name: str, project: str | None = None, **more: str) -> Volume:
    return Volume(name, labels={**({PROJECT_LABEL: project} if project else {}), **more})


def container(
    name: str,
    *volumes: str,
    service: str | None = None,
    state: str = "running",
    anonymous: tuple[str, ...] = (),
    auto_remove: bool = False,
    labels: dict[str, str] | None = None,
) -> Container:
    given = (
        {PROJECT_LABEL: "shop", SERVICE_LABEL: service, ONEOFF_LABEL: "False"} if service else {}
    )
    mounts = [Mount("volume", v, "", f"/{v}") for v in volumes] + [
        Mount("volume", v, "", f"/{v}", declared=False) for v in anonymous
    ]
    return Container(
        id=(name.encode().hex() + "0" * 64)[:64],
        name=name,
        image="busybox",
        image_id="sha256:1",
        state=state,
        labels={**given, **(labels or {})},
        mounts=tuple(mounts),
        auto_remove=auto_remove,
    )


WEB = container("shop-web-1", "shop_web", service="web")
DB = container("shop-db-1", "shop_data", INHERITED, service="db", anonymous=(ANON,))
ONEOFF = container("shop-web-run-1", "shop_web", service="web", labels={ONEOFF_LABEL: "True"})
ORPHAN = container("shop-old-1", "shop_old", service="old")
TOOL = container("shop-tool-1", "shop_tool", service="tool", state="exited")
SHOP = Project(
    "shop",
    "folder",
    "config",
    services=("web", "db"),
    disabled=("tool",),
    volumes=(
        DeclaredVolume("web", "shop_web"),
        DeclaredVolume("data", "shop_data"),
        DeclaredVolume("ext", "ext", external=True),
        DeclaredVolume("missing", "shop_missing"),
    ),
)
BY_LABEL = Project("shop", "flag", "label")
VOLUMES = (
    volume("shop_web", "shop"),
    volume("shop_data"),
    volume("shop_old", "shop"),
    volume("shop_tool", "shop"),
    volume("ext", "shop"),
    volume("loose"),
    volume("other_data", "other"),
    volume(ANON),
    volume(INHERITED),
)


def ask(
    words: str,
    *containers: Container,
    project: Project | None = None,
    volumes: tuple[Volume, ...] = VOLUMES,
    **more: bool,
) -> Threat:
    observed = Observed(
        "unix:///x", "ID", volumes=volumes, containers=containers, project=project, **more
    )
    return find_threat(parser.parse(words.split()), observed)


def names(threat: Threat) -> list[str]:
    return [v.name for v in threat.volumes]


def stops(threat: Threat) -> list[str]:
    return [c.name for c in threat.stops]


def test_a_harmless_command_threatens_nothing() -> None:
    assert ask("compose down", WEB, DB, project=SHOP) == Threat("none", ())


def test_config_mode_takes_declared_labelled_and_anonymous_ones() -> None:
    threat = ask("compose down -v", WEB, DB, project=SHOP)
    assert names(threat) == [ANON, "shop_data", "shop_old", "shop_tool", "shop_web"]
    assert stops(threat) == ["shop-web-1", "shop-db-1"]
    spared = dict(threat.spared)
    assert spared["ext"] == "external"
    assert "by name" in spared[INHERITED]


def test_label_mode_takes_every_labelled_one_external_or_not() -> None:
    threat = ask("compose -p shop down -v", WEB, DB, project=BY_LABEL)
    assert names(threat) == [ANON, "ext", "shop_old", "shop_tool", "shop_web"]


def test_a_project_that_compose_cannot_load_threatens_nothing() -> None:
    assert names(ask("compose down -v", WEB, DB, project=None)) == []


def test_a_volume_of_another_project_with_a_declared_name_counts() -> None:
    foreign = (volume("shop_data", "other"),)
    assert names(ask("compose down -v", DB, project=SHOP, volumes=foreign)) == ["shop_data"]


@pytest.mark.parametrize("state", ["running", "exited"])
def test_a_foreign_container_does_not_spare_a_volume_of_a_project_and_is_not_stopped(
    state: str,
) -> None:
    """Compose takes its time; by then that container may be gone, and with it what makes docker
    refuse.
    """
    threat = ask(
        "compose down -v", WEB, DB, container("stranger", "shop_data", state=state), project=SHOP
    )
    assert "shop_data" in names(threat)
    assert "stranger" not in stops(threat)


def test_a_container_of_the_project_that_stays_spares_its_volume() -> None:
    threat = ask("compose down -v web", WEB, DB, project=SHOP)
    assert "shop_data" not in names(threat)
    assert "shop-db-1" in dict(threat.spared)["shop_data"]


def test_a_container_that_may_be_gone_at_any_moment_protects_nothing() -> None:
    removing_itself = container("passing", "shop_data", auto_remove=True)
    ours = container("helper", "shop_web", labels={HELPER_LABEL: "run"})
    assert {"shop_data", "shop_web"} <= set(
        names(ask("compose down -v", WEB, DB, removing_itself, ours, project=SHOP))
    )


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        ("compose down -v", ["shop-web-1", "shop-db-1"]),
        ("compose down -v web", ["shop-web-1"]),
        ("compose down -v tool", ["shop-tool-1"]),
        (
            "compose down -v --remove-orphans",
            ["shop-web-1", "shop-db-1", "shop-web-run-1", "shop-old-1"],
        ),
        ("compose down -v --remove-orphans=false", ["shop-web-1", "shop-db-1"]),
    ],
)
def test_what_down_itself_removes_in_config_mode(words: str, gone: list[str]) -> None:
    threat = ask(words, WEB, DB, ONEOFF, ORPHAN, TOOL, project=SHOP)
    assert stops(threat) == gone
    held = {
        name
        for c in (WEB, DB, ONEOFF, ORPHAN, TOOL)
        if c.name not in gone
        for name in c.volume_names()
    }
    assert not held & set(names(threat))


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        ("compose -p shop down -v", ["shop-web-1", "shop-db-1", "shop-old-1", "shop-tool-1"]),
        ("compose -p shop down -v db", ["shop-db-1"]),
        ("compose -p shop down -v typo", []),
    ],
)
def test_what_down_itself_removes_in_label_mode(words: str, gone: list[str]) -> None:
    assert stops(ask(words, WEB, DB, ONEOFF, ORPHAN, TOOL, project=BY_LABEL)) == gone


def test_an_unknown_service_in_label_mode_may_take_everything() -> None:
    assert set(names(ask("compose -p shop down -v typo", WEB, DB, project=BY_LABEL))) >= {
        "shop_web",
        ANON,
    }


def test_the_environment_can_make_orphans_go() -> None:
    project = Project("shop", "folder", "config", services=("web", "db"), removes_orphans=True)
    assert "shop-old-1" in stops(ask("compose down -v", WEB, ORPHAN, project=project))


OLD = replace(SHOP, services=("web", "db", "tool"), disabled=(), old=True)


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        ("compose down -v", ["shop-web-1", "shop-db-1", "shop-web-run-1", "shop-tool-1"]),
        (
            "compose down -v --remove-orphans",
            ["shop-web-1", "shop-db-1", "shop-web-run-1", "shop-old-1", "shop-tool-1"],
        ),
    ],
)
def test_docker_compose_1_removes_one_offs_and_goes_by_no_label_of_a_volume(
    words: str, gone: list[str]
) -> None:
    threat = ask(words, WEB, DB, ONEOFF, ORPHAN, TOOL, project=OLD)
    assert stops(threat) == gone
    assert names(threat) == sorted([ANON, "shop_data", "shop_web"])


@pytest.mark.parametrize(
    ("version", "died"), [("1.20.1", [ANON]), ("", [ANON]), ("2.40.3", []), ("1.21.0", [])]
)
def test_docker_compose_1_takes_containers_of_the_spelling_before_1_21(
    version: str, died: list[str]
) -> None:
    labels = {PROJECT_LABEL: "myshop", VERSION_LABEL: version}
    threat = ask(
        "compose down -v",
        container("x", service="web", anonymous=(ANON,), labels=labels),
        project=replace(OLD, name="my-shop", volumes=()),
    )
    assert names(threat) == died
    assert stops(threat) == []


def test_docker_compose_1_rm_takes_one_offs() -> None:
    oneoff = container(
        "shop-web-run-1", service="web", anonymous=(ANON,), labels={ONEOFF_LABEL: "True"}
    )
    assert stops(ask("compose rm -fsv", oneoff, ORPHAN, project=OLD)) == ["shop-web-run-1"]


def test_an_orphans_anonymous_volume_survives() -> None:
    orphan = container("shop-old-1", service="old", anonymous=(ANON,))
    assert ANON not in names(ask("compose down -v --remove-orphans", orphan, project=SHOP))


@pytest.mark.parametrize(
    ("words", "died", "gone"),
    [
        ("compose rm -v", [], []),
        ("compose rm -fsv", [ANON], ["shop-web-1", "shop-db-1"]),
        ("compose rm -fsv web", [], ["shop-web-1"]),
    ],
)
def test_compose_rm_takes_anonymous_volumes_of_what_it_removes(
    words: str, died: list[str], gone: list[str]
) -> None:
    threat = ask(words, WEB, DB, project=SHOP)
    assert (names(threat), stops(threat)) == (died, gone)


def test_compose_rm_takes_stopped_containers_without_stop() -> None:
    stopped = container("shop-db-1", service="db", anonymous=(ANON,), state="exited")
    assert names(ask("compose rm -v", WEB, stopped, project=SHOP)) == [ANON]


def test_renewing_anonymous_volumes_deletes_nothing_and_names_what_dangles() -> None:
    threat = ask("compose up -V", WEB, DB, project=SHOP)
    assert names(threat) == []
    assert (
        ANON in threat.warnings[0]
        and INHERITED in threat.warnings[0]
        and "shop_data" not in threat.warnings[0]
    )


def test_answering_yes_threatens_declared_volumes_that_carry_a_hash() -> None:
    volumes = (volume("shop_web", "shop", **{CONFIG_HASH_LABEL: "1"}), volume("shop_data", "shop"))
    threat = ask("compose up -d -y", WEB, DB, project=SHOP, volumes=volumes)
    assert (names(threat), stops(threat)) == (["shop_web"], ["shop-web-1"])


def test_volume_rm_takes_exactly_the_names_that_exist() -> None:
    assert names(ask("volume rm loose ext other missing")) == ["ext", "loose"]


@pytest.mark.parametrize(
    ("case", "words", "containers", "died"),
    [
        (174, "volume rm shop_data", (container("c", "shop_data", state="exited"),), []),
        (175, "volume rm shop_data ext", (), ["ext", "shop_data"]),
        (178, f"volume rm {ANON}", (), [ANON]),
    ],
)
def test_volume_rm_as_it_really_went(
    case: int, words: str, containers: tuple[Container, ...], died: list[str]
) -> None:
    """The numbers are those of cases/argv.json, where each was run."""
    assert names(ask(words, *containers)) == died


def test_volume_rm_of_one_in_use_says_by_whom() -> None:
    assert "shop-web-1" in dict(ask("volume rm -f shop_web", WEB).spared)["shop_web"]
    assert names(ask("volume rm shop_web", container("x", "shop_web", auto_remove=True))) == [
        "shop_web"
    ]


PRUNABLE = (
    volume("named"),
    volume("keep", **{"keep": "1"}),
    volume("anon", **{ANONYMOUS_LABEL: ""}),
    Volume("nfs", options={"type": "nfs"}),
    Volume("plugin", driver="rexray"),
    volume("used"),
    volume("idle"),
)


@pytest.mark.parametrize(
    ("words", "takes_named", "died"),
    [
        ("volume prune -f", True, ["anon", "idle", "keep", "named"]),
        ("volume prune -f", False, ["anon"]),
        ("volume prune -af", False, ["anon", "idle", "keep", "named"]),
        ("volume prune --filter all=1", False, ["anon", "idle", "keep", "named"]),
        ("volume prune --filter all=0", False, ["anon"]),
        ("volume prune --filter label=keep", True, ["keep"]),
        ("volume prune --filter label=keep=2", True, []),
        ("volume prune --filter label!=keep", True, ["anon", "idle", "named"]),
        ("volume prune --filter label=keep --filter label=other", True, []),
    ],
)
def test_volume_prune(words: str, takes_named: bool, died: list[str]) -> None:
    users = (container("a", "used"), container("b", "idle", labels={HELPER_LABEL: "run"}))
    threat = ask(words, *users, volumes=PRUNABLE, prune_takes_named=takes_named)
    assert (names(threat), threat.stops, threat.spared) == (died, (), ())


@pytest.mark.parametrize(
    ("words", "takes_named", "died"),
    [
        ("system prune -f --volumes", True, ["anon", "idle", "keep", "named"]),
        ("system prune -af --volumes", False, ["anon"]),
        ("system prune -f --volumes --filter label!=mine", True, ["anon", "keep", "named"]),
    ],
)
def test_system_prune_removes_stopped_containers_first(
    words: str, takes_named: bool, died: list[str]
) -> None:
    users = (container("a", "used"), container("b", "idle", state="exited", labels={"mine": ""}))
    threat = ask(words, *users, volumes=PRUNABLE, prune_takes_named=takes_named)
    assert (names(threat), threat.stops) == (died, ())


def test_a_command_that_prunes_no_volume_threatens_none() -> None:
    assert ask("system prune -f", volumes=PRUNABLE).kind == "none"


@pytest.mark.parametrize(
    ("words", "died", "gone"),
    [
        ("rm -v db", [], []),
        ("rm -fv db", [ANON], ["db"]),
        ("container rm -fv 6462", [ANON], ["db"]),
        ("rm -fv web", [], []),
        ("rm -v old", ["c" * 64], ["old"]),
    ],
)
def test_container_rm_takes_anonymous_volumes_of_what_docker_lets_go(
    words: str, died: list[str], gone: list[str]
) -> None:
    db = container("db", "shop_data", INHERITED, anonymous=(ANON,))
    old = container("old", anonymous=("c" * 64,), state="exited")
    threat = ask(words, db, old, volumes=(*VOLUMES, volume("c" * 64)))
    assert (names(threat), stops(threat)) == (died, gone)


def test_an_anonymous_volume_that_another_container_holds_survives() -> None:
    threat = ask("rm -fv db", container("db", anonymous=(ANON,)), container("sharer", ANON))
    assert names(threat) == [] and "sharer" in dict(threat.spared)[ANON]


@pytest.mark.parametrize(
    ("words", "died", "gone"),
    [
        ("stop passing", [ANON], ["passing"]),
        ("kill passing", [ANON], ["passing"]),
        ("kill -s SIGKILL passing", [ANON], ["passing"]),
        ("kill -s HUP passing", [ANON], []),
        ("rm -f passing", [ANON], ["passing"]),
        ("stop lasting", [], ["lasting"]),
    ],
)
def test_a_container_that_removes_itself_takes_its_anonymous_volumes_along(
    words: str, died: list[str], gone: list[str]
) -> None:
    passing = container("passing", anonymous=(ANON,), auto_remove=True)
    threat = ask(words, passing, container("lasting", anonymous=(INHERITED,)))
    assert (names(threat), stops(threat)) == (died, gone)


def test_swarm_removals_only_warn() -> None:
    threat = ask("service rm web")
    assert (threat.kind, threat.volumes) == ("swarm_task_anon", ()) and threat.warnings


def test_of_what_another_container_shares_only_anonymous_volumes_go_with_this_one() -> None:
    """As `docker inspect` describes `--volumes-from`; which of them stays was run on 28.5.2."""
    anonymous = "0a" * 32
    body = {
        "Id": "1", "Name": "/web", "State": {"Status": "exited"}, "Config": {"Image": "x"},
        "HostConfig": {"VolumesFrom": ["other"]},
        "Mounts": [
            {"Type": "volume", "Name": name, "Destination": f"/{number}"}
            for number, name in enumerate(("uploads", anonymous))
        ],
    }  # fmt: skip
    seen = Observed(
        "", "", volumes=(Volume("uploads"), Volume(anonymous)),
        containers=(values.read_container(body),),
    )  # fmt: skip
    threat = find_threat(parser.parse(["rm", "-v", "web"]), seen)
    assert [volume.name for volume in threat.volumes] == [anonymous]
