"""What is decided about a command after one look, and how that reads: pure tables, no engine."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from safe_compose.core import plan, plan_text, quantities
from safe_compose.core.observed import (
    ANONYMOUS_LABEL,
    PROJECT_LABEL,
    Container,
    Mount,
    Observed,
    Project,
    Volume,
)
from safe_compose.core.plan import Doomed
from safe_compose.core.policy import Verdict
from safe_compose.core.threat import Threat
from safe_compose.core.tier import Tier
from safe_compose.grammar.parser import parse

ENDPOINT = "unix:///var/run/docker.sock"
DOWN = ("compose", "down", "-v")


def doomed(
    name: str,
    tier: Tier = Tier.CRITICAL,
    *,
    why: str = "nobody knows it",
    kind: str = "files",
    other: str | None = None,
    size: int | None = None,
    labels: Mapping[str, str] | None = None,
    users: tuple[Container, ...] = (),
) -> Doomed:
    verdict = Verdict(name, tier, why, kind, explicit=False)
    return Doomed(Volume(name, labels=labels or {}), verdict, users, other, size)


def made(
    *volumes: Doomed,
    words: tuple[str, ...] = DOWN,
    kind: str = "compose_down_volumes",
    project: Project | None = None,
    spared: tuple[tuple[str, str], ...] = (),
    warnings: tuple[str, ...] = (),
) -> plan.Plan:
    project = project or (
        Project("shop", "folder", "config")
        if words[-3:][0] == "compose" or "compose" in words
        else None
    )
    threat = Threat(kind, tuple(d.volume for d in volumes), spared, (), warnings)
    return plan.make(parse(words), Observed(ENDPOINT, "engine", project=project), threat, volumes)


# -- the phrase ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "project", "volumes", "phrase"),
    [
        ("compose_down_volumes", "shop", [doomed("shop_data")], "shop"),
        ("compose_down_volumes", "shop", [doomed("shop_data"), doomed("shop_up")], "shop"),
        ("compose_rm_anon", "shop", [doomed("a" * 64)], "shop"),
        ("compose_renew_anon", "shop", [doomed("a" * 64)], "shop"),
        ("compose_recreate_changed_volume", "shop", [doomed("shop_data")], "shop"),
        ("volume_rm", None, [doomed("data")], "data"),
        ("volume_rm", "shop", [doomed("shop_data")], "shop_data"),
        ("volume_rm", None, [doomed("data"), doomed("more")], "delete 2 volumes"),
        ("volume_prune", None, [doomed("data")], "delete 1 volume"),
        (
            "system_prune_volumes",
            None,
            [doomed("a"), doomed("b"), doomed("c", Tier.DISPOSABLE)],
            "delete 3 volumes",
        ),
        ("container_rm_anon", None, [doomed("a" * 64)], "delete 1 volume"),
        ("autoremove_anon", "shop", [doomed("a" * 64)], "delete 1 volume"),
        ("compose_down_volumes", None, [doomed("x")], "delete 1 volume"),
        (
            "compose_down_volumes",
            "shop",
            [doomed("shop_data"), doomed("bank_data", other="bank")],
            "delete 2 volumes",
        ),
        ("volume_rm", None, [doomed("bank_data", other="bank")], "delete 1 volume"),
    ],
)
def test_the_phrase_is_the_name_that_is_meant_and_a_count_for_everything_else(
    kind: str, project: str | None, volumes: list[Doomed], phrase: str
) -> None:
    assert plan.choose_phrase(kind, project, volumes) == phrase


@pytest.mark.parametrize(
    ("phrase", "skipped"),
    [
        ("shop", "delete shop without backup"),
        ("delete 3 volumes", "delete 3 volumes without backup"),
        ("delete", "delete delete without backup"),
    ],
)
def test_the_phrase_for_no_backup_says_so(phrase: str, skipped: str) -> None:
    assert plan.skip_phrase(phrase) == skipped


def test_a_project_or_volume_with_a_name_like_a_phrase_keeps_all_of_it_in_the_phrase_for_no_backup() -> (
    None
):
    assert plan.skip_phrase("delete-me") == "delete delete-me without backup"


# -- pass, guard, refuse ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "volume", "verdict", "refusal"),
    [
        ((), doomed("shop_data"), "guard", None),
        (("--backup-first",), doomed("shop_data"), "guard", None),
        (("--non-interactive",), doomed("shop_data"), "refuse", "add --backup-first"),
        (("--non-interactive", "--backup-first"), doomed("shop_data"), "guard", None),
        (
            ("--non-interactive",),
            doomed("shop_data", Tier.IMPORTANT),
            "refuse",
            "add --backup-first",
        ),
        (("--non-interactive",), doomed("shop_cache", Tier.DISPOSABLE), "pass", None),
        (
            ("--non-interactive", "--backup-first"),
            doomed("bank", other="bank"),
            "refuse",
            "--confirm 'delete 1 volume' as well",
        ),
        (
            ("--non-interactive", "--backup-first", "--confirm", "x"),
            doomed("bank", other="bank"),
            "guard",
            None,
        ),
        ((), doomed("bank_cache", Tier.DISPOSABLE, other="bank"), "guard", None),
        (
            ("--non-interactive", "--skip-backup"),
            doomed("d"),
            "refuse",
            "add --confirm 'delete shop without backup'",
        ),
        (("--non-interactive", "--skip-backup", "--confirm", "x"), doomed("d"), "guard", None),
    ],
)
def test_flags_that_forbid_to_ask_refuse_unless_they_answer_too(
    flags: tuple[str, ...], volume: Doomed, verdict: str, refusal: str | None
) -> None:
    decided = made(volume, words=(*flags, *DOWN))
    assert decided.verdict == verdict
    assert (decided.refusal or "").endswith(refusal or "") or (refusal or "") in (
        decided.refusal or ""
    )
    assert (decided.refusal is None) == (refusal is None)


def test_a_disposable_volume_passes_with_a_note_and_an_empty_one_without() -> None:
    decided = made(
        doomed("shop_cache", Tier.DISPOSABLE, why="safe-compose.toml: volumes.cache"),
        doomed("shop_new", Tier.DISPOSABLE, why="empty"),
        doomed("shop_zero", Tier.DISPOSABLE, why="a cache", size=0),
        warnings=("the file does not parse",),
    )
    assert decided.verdict == "pass"
    assert decided.warnings == (
        "the file does not parse",
        (
            "volume shop_cache is deleted without a backup: disposable, safe-compose.toml:"
            " volumes.cache"
        ),
    )
    assert decided.phrase is None and decided.backed_up == ()


@pytest.mark.parametrize(
    ("volumes", "typed"),
    [
        ((doomed("a", Tier.IMPORTANT),), False),
        ((doomed("a", Tier.IMPORTANT), doomed("b", Tier.DISPOSABLE)), False),
        ((doomed("a", Tier.IMPORTANT), doomed("b", Tier.CRITICAL)), True),
        ((doomed("a", Tier.IMPORTANT, other="bank"),), True),
    ],
)
def test_important_ones_alone_are_asked_for_with_y_or_n(
    volumes: tuple[Doomed, ...], typed: bool
) -> None:
    assert made(*volumes).typed is typed


def test_only_what_is_not_disposable_is_backed_up() -> None:
    decided = made(doomed("a"), doomed("b", Tier.IMPORTANT), doomed("c", Tier.DISPOSABLE))
    assert [d.name for d in decided.backed_up] == ["a", "b"]


def test_volumes_of_one_project_name_it_where_no_compose_file_does() -> None:
    labels = {PROJECT_LABEL: "shop"}
    same = made(
        doomed("a", labels=labels),
        doomed("b", labels=labels),
        words=("volume", "rm", "a", "b"),
        kind="volume_rm",
    )
    mixed = made(
        doomed("a", labels=labels), doomed("b"), words=("volume", "rm", "a", "b"), kind="volume_rm"
    )
    assert (same.project, mixed.project) == ("shop", None)


def test_a_later_look_must_find_the_same_volumes_made_the_same_way() -> None:
    first = made(doomed("a", labels={"x": "1"}), doomed("b"))
    assert first.identity() == made(doomed("b", size=5), doomed("a", labels={"x": "1"})).identity()
    assert first.identity() != made(doomed("a", labels={"x": "2"}), doomed("b")).identity()
    assert first.identity() != made(doomed("a", labels={"x": "1"})).identity()


def test_room_and_time_are_told_when_every_size_that_counts_is_known() -> None:
    known = [
        doomed("a", size=160 << 20),
        doomed("b", Tier.IMPORTANT, size=0),
        doomed("c", Tier.DISPOSABLE),
    ]
    assert str(plan.estimate_effort(known)) == "up to 160.0 MiB and about 8 seconds"
    assert (
        str(plan.estimate_effort([doomed("a", size=100 << 30)]))
        == "up to 60.1 GiB and about 27 minutes"
    )
    assert plan.estimate_effort([*known, doomed("d")]) is None
    assert plan.estimate_effort([doomed("c", Tier.DISPOSABLE, size=5)]) is None


# -- --explain -------------------------------------------------------------------------------------

USER = Container(
    "1",
    "shop-db-1",
    "postgres:15",
    "sha256:1",
    "running",
    mounts=(Mount("volume", "shop_data", "", "/d"),),
)


def whole() -> plan.Plan:
    return made(
        doomed(
            "shop_data",
            why="image postgres:15 mounts it",
            kind="postgres",
            size=47185920,
            users=(USER,),
        ),
        doomed("f" * 64, labels={ANONYMOUS_LABEL: ""}),
        doomed("shop_cache", Tier.DISPOSABLE, why="a cache", kind="cache"),
        spared=(("shared", "external"),),
        warnings=("an orphan",),
    )


def test_the_json_of_a_plan_is_the_documented_one() -> None:
    shape = plan_text.to_json(whole())
    assert shape == {
        "version": 1,
        "argv": ["compose", "down", "-v"],
        "verdict": "guard",
        "kind": "compose_down_volumes",
        "project": "shop",
        "inferred_from": "folder",
        "mode": "config",
        "endpoint": ENDPOINT,
        "volumes": [
            {
                "name": "shop_data",
                "tier": "critical",
                "why": "image postgres:15 mounts it",
                "kind": "postgres",
                "anonymous": False,
                "in_use_by": ["shop-db-1"],
                "mounted_at": ["shop-db-1:/d"],
                "other_project": None,
                "bytes": 47185920,
            },
            {
                "name": "f" * 64,
                "tier": "critical",
                "why": "nobody knows it",
                "kind": "files",
                "anonymous": True,
                "in_use_by": [],
                "mounted_at": [],
                "other_project": None,
                "bytes": None,
            },
            {
                "name": "shop_cache",
                "tier": "disposable",
                "why": "a cache",
                "kind": "cache",
                "anonymous": False,
                "in_use_by": [],
                "mounted_at": [],
                "other_project": None,
                "bytes": None,
            },
        ],
        "spared": [{"name": "shared", "why": "external"}],
        "warnings": ["an orphan"],
        "unlocks": [],
        "phrase": "shop",
        "backup": True,
        "trash": False,
    }
    assert json.loads(json.dumps(shape)) == shape


def test_the_keys_are_those_of_the_readers_contract_in_every_verdict() -> None:
    keys = set(plan_text.to_json(whole()))
    for decided in (
        made(),
        made(doomed("c", Tier.DISPOSABLE)),
        made(doomed("a"), words=("--non-interactive", *DOWN)),
        made(doomed("a"), words=("volume", "rm", "a"), kind="volume_rm"),
    ):
        assert set(plan_text.to_json(decided)) == keys


@pytest.mark.parametrize(
    ("decided", "backup", "phrase"),
    [
        (made(doomed("c", Tier.DISPOSABLE)), False, None),
        (made(doomed("a"), words=("--skip-backup", *DOWN)), False, "delete shop without backup"),
        (made(doomed("a"), words=("--non-interactive", *DOWN)), True, "shop"),
        (made(doomed("c", Tier.DISPOSABLE, other="bank")), False, "delete 1 volume"),
    ],
)
def test_the_json_says_whether_a_backup_is_made_and_what_is_typed(
    decided: plan.Plan, backup: bool, phrase: str | None
) -> None:
    shape = plan_text.to_json(decided)
    assert (shape["backup"], shape["phrase"]) == (backup, phrase)


def test_read_aloud_it_says_everything_the_json_does() -> None:
    assert plan_text.format_lines(whole()) == [
        "This command deletes 3 volumes for good.",
        "command   docker compose down -v",
        "verdict   guard",
        "project   shop (from the folder)",
        f"daemon    {ENDPOINT}",
        "shop_data  critical",
        "  image postgres:15 mounts it; used by shop-db-1 (running); no verified backup",
        f"{'f' * 64}  critical",
        "  nobody knows it; used by nothing; no verified backup",
        "shop_cache  disposable",
        "  a cache; used by nothing; no verified backup",
        "will NOT come back: shop_cache",
        "not touched: shared (external)",
        "warning: an orphan",
        f"backup    shop_data, {'f' * 64}, verified before docker runs",
        "phrase    shop",
    ]


def test_read_aloud_refused_important_and_without_backup() -> None:
    refused = made(
        doomed("shop_certs", Tier.IMPORTANT, why="certificates"), words=("--non-interactive", *DOWN)
    )
    assert plan_text.format_lines(refused) == [
        "This command deletes 1 volume for good.",
        "command   docker compose down -v",
        "verdict   refuse",
        "project   shop (from the folder)",
        f"daemon    {ENDPOINT}",
        "shop_certs  important",
        "  certificates; used by nothing; no verified backup",
        "backup    shop_certs, verified before docker runs",
        "asks      y/N",
        "refused   add --backup-first: then a verified backup takes the place of the typed"
        " confirmation",
    ]
    skipped = made(
        doomed("data"), words=("--skip-backup", "volume", "rm", "data"), kind="volume_rm"
    )
    assert plan_text.format_lines(skipped) == [
        "This command deletes 1 volume for good.",
        "command   docker volume rm data",
        "verdict   guard",
        f"daemon    {ENDPOINT}",
        "data  critical",
        "  nobody knows it; used by nothing; no verified backup",
        "will NOT come back: data",
        "backup    none (--skip-backup)",
        "phrase    delete data without backup",
    ]


def test_read_aloud_names_the_other_project_whose_data_it_is() -> None:
    decided = made(doomed("bank_cache", Tier.DISPOSABLE, other="bank", why="a cache"))
    said = "\n".join(plan_text.format_lines(decided))
    assert "bank_cache  disposable  of project bank\n  a cache;" in said
    assert "will NOT come back: bank_cache\n" in said
    assert "backup    none (nothing but disposable volumes)\n" in said
    assert said.endswith("phrase    delete 1 volume")


def test_read_aloud_a_pass_promises_neither_backup_nor_question() -> None:
    assert plan_text.format_lines(made(words=("compose", "down"), kind="none")) == [
        "This command deletes no volume.",
        "command   docker compose down",
        "verdict   pass",
        "project   shop (from the folder)",
        f"daemon    {ENDPOINT}",
    ]


# -- --offline -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "verdict", "kind"),
    [
        (("ps",), "pass", "none"),
        (("compose", "down"), "pass", "none"),
        (("compose", "down", "-v"), "guard", "compose_down_volumes"),
        (("volume", "rm", "x"), "guard", "volume_rm"),
        (("volume", "prune"), "guard", "volume_prune"),
        (("system", "prune", "--volumes"), "guard", "system_prune_volumes"),
        (("compose", "up", "-V"), "pass", "compose_renew_anon"),
        (("compose", "down", "-v", "--new"), "refuse", "compose_down_volumes"),
        (("extension", "rm", "x"), "refuse", "unsupported"),
    ],
)
def test_offline_the_words_alone_decide(words: tuple[str, ...], verdict: str, kind: str) -> None:
    shape = plan_text.to_offline_json(parse(words))
    assert (shape["verdict"], shape["kind"]) == (verdict, kind)
    assert (
        set(shape) == {"version", "argv", "verdict", "kind", "warnings"} and shape["version"] == 1
    )
    assert shape["argv"] == list(words)


def test_offline_a_command_that_only_loses_names_warns() -> None:
    assert plan_text.to_offline_json(parse(("compose", "up", "-V")))["warnings"] != []


def test_offline_a_doubt_is_told() -> None:
    doubtful = parse(("compose", "down", "-v", "--brand-new-flag"))
    assert doubtful.doubt is not None
    assert plan_text.to_offline_json(doubtful)["warnings"] == [doubtful.doubt]


CASES = json.loads((Path(__file__).parents[1] / "cases" / "argv.json").read_text())["cases"]


DELETING = [c["tokens"] for c in CASES if c["expect"] == "guard" and c["tokens"][0] == "docker"]


@pytest.mark.parametrize("tokens", DELETING, ids=" ".join)
def test_offline_every_recorded_command_that_deleted_is_guarded(tokens: list[str]) -> None:
    assert plan_text.to_offline_json(parse(tokens[1:]))["verdict"] == "guard"


# -- sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "not measured"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (47185920, "45.0 MiB"),
        (1 << 40, "1.0 TiB"),
        (1 << 50, "1024.0 TiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        ((1 << 30) - 1, "1.0 GiB"),
    ],
)
def test_sizes_read_as_people_say_them(size: int | None, text: str) -> None:
    assert quantities.format_size(size) == text
