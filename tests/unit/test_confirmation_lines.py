"""The lines of the confirmation screen: they fit on the terminal, whatever the plan holds."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from safe_compose.core import plan
from safe_compose.core.observed import PROJECT_LABEL, Container, Mount, Observed, Project, Volume
from safe_compose.core.plan import Doomed
from safe_compose.core.policy import Verdict
from safe_compose.core.text import make_visible
from safe_compose.core.threat import Threat
from safe_compose.core.tier import Tier
from safe_compose.grammar.parser import parse
from safe_compose.ui.confirmation_details import make_details
from safe_compose.ui.confirmation_lines import (
    Circumstances,
    Screen,
    Size,
    make_lines,
    make_question,
)
from safe_compose.ui.lines import Line, fold_question, measure, read_plain

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
SMALL = Size(80, 24)
MIB = 1 << 20
POSTGRES = "PostgreSQL 15.20, 2 databases, 4 tables, about 2498 rows"
FACTS = Circumstances(
    store="/home/me/.local/share/safe-compose",
    free=60 << 30,
    stopped=("shop-db-1", "shop-app-1"),
    safer="docker compose down",
    patience=180,
)


def volume(
    name: str,
    tier: Tier = Tier.CRITICAL,
    *,
    kind: str = "files",
    contents: str | None = None,
    why: str = "nobody knows it",
    size: int | None = 100 * MIB,
    other: str | None = None,
    labels: dict[str, str] | None = None,
    remedy: tuple[str, str] | None = None,
    wrote: datetime | None = NOW - timedelta(minutes=3),
) -> Doomed:
    user = Container(
        "c", "shop-app-1", "busybox:latest", "sha256:1", "running",
        mounts=(Mount("volume", name, "", "/data"),),
    )  # fmt: skip
    place = f"/var/lib/docker/volumes/{name}/_data"
    return Doomed(
        Volume(name, labels=labels or {}, mountpoint=place),
        Verdict(name, tier, why, kind),
        (user,),
        other,
        size,
        contents,
        None,
        wrote,
        remedy,
    )


def screen(
    *doomed: Doomed,
    words: str = "compose down -v",
    kind: str = "compose_down_volumes",
    facts: Circumstances = FACTS,
    endpoint: str = "unix:///var/run/docker.sock",
    project: str | None = "shop",
    warnings: tuple[str, ...] = (),
    spared: tuple[tuple[str, str], ...] = (),
    measuring: bool = False,
    safety: str = "backup",
) -> Screen:
    where = Project(project, "folder", "config") if project else None
    threat = Threat(kind, tuple(d.volume for d in doomed), spared, (), warnings)
    made = plan.make(parse(words.split()), Observed(endpoint, "e", project=where), threat, doomed)
    return Screen(replace(made, safety=safety), facts, NOW, measuring)


def read(shown: Screen, size: Size = SMALL) -> str:
    return "\n".join(read_plain(line) for line in make_lines(shown, size))


def one_line(text: str) -> str:
    """The text as if the terminal had no edge."""
    return re.sub(r"\s+", " ", text)


SIX = (
    volume("dating_postgres_data", kind="postgres", contents=POSTGRES),
    volume("dating_photo_storage"),
    volume("dating_traefik_certs", Tier.IMPORTANT, kind="certificates"),
    *(
        volume(f"dating_{name}_data", Tier.DISPOSABLE, kind="metrics", why="metrics", size=1024)
        for name in ("grafana", "loki", "prometheus")
    ),
)


def test_the_example_project_fits_on_a_small_terminal() -> None:
    assert read(screen(*SIX, project="dating")).splitlines() == [
        "This command deletes 6 volumes for good.",
        "command   docker compose down -v",
        "project   dating (from the folder) on unix:///var/run/docker.sock",
        "",
        "dating_photo_storage  critical   100.0 MiB  written 3 minutes ago",
        "  files, used by shop-app-1; no verified backup",
        "dating_postgres_data  critical   100.0 MiB  written 3 minutes ago",
        f"  {POSTGRES}; no verified backup",
        "dating_traefik_certs  important  100.0 MiB  written 3 minutes ago",
        "  certificates, used by shop-app-1; no verified backup",
        "will NOT come back (disposable, 3.0 KiB): dating_grafana_data, dating_loki_data,",
        "  dating_prometheus_data",
        "",
        "safer     docker compose down keeps every volume with a name",
        "will stop 2 containers, which start again only if the backup fails",
        "backup    made and verified first: about 11 seconds, up to 244.0 MiB, in",
        "          /home/me/.local/share/safe-compose",
        "or 'trash dating': without a copy, in seconds; undo works for 30 days",
    ]


NAMES = st.one_of(
    st.from_regex(r"[a-z][a-z0-9_.-]{0,30}", fullmatch=True),
    st.from_regex(r"[a-z][a-z0-9_.-]{100,120}", fullmatch=True),
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    st.text(min_size=1, max_size=40),
    st.sampled_from(
        ["\x1b[2J\x1b[8m", "[red]x[/red]", "\u202eevil", "\u05d0\u05d1" * 9, "漢字" * 30, "a\nb"]
    ),
)
VOLUMES = st.builds(
    volume,
    NAMES,
    st.sampled_from(Tier),
    contents=st.one_of(st.none(), st.just(POSTGRES), st.text(max_size=300)),
    why=st.sampled_from(["empty", "a cache"]),
    size=st.one_of(st.none(), st.integers(0, 1 << 50)),
    other=st.one_of(st.none(), NAMES),
    remedy=st.one_of(st.none(), st.just(("the log shows failed logins (3). It is", "docker ps"))),
    wrote=st.one_of(st.none(), st.just(NOW - timedelta(days=40))),
)
SCREENS = st.builds(
    lambda doomed, project, warnings, words, remote, measuring, safety: screen(
        *doomed,
        words=words,
        project=project,
        warnings=tuple(warnings),
        spared=tuple((w, "external") for w in warnings),
        endpoint="ssh://me@far" if remote else "unix:///var/run/docker.sock",
        measuring=measuring,
        safety=safety,
    ),
    st.lists(VOLUMES, min_size=1, max_size=8, unique_by=lambda d: d.name),
    st.one_of(st.none(), NAMES),
    st.lists(NAMES, max_size=3),
    st.sampled_from(
        ["compose down -v", "--skip-backup compose down -v", "volume rm " + "long_name " * 300]
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["backup", "trash", "both"]),
)


@settings(max_examples=25, deadline=None)
@given(SCREENS, st.sampled_from([60, 80, 200]))
@example(screen(*(volume(f"{n}" + "x" * 120) for n in range(6))), 80)
def test_no_line_is_too_wide_no_name_is_cut_and_the_headline_stays(
    shown: Screen, width: int
) -> None:
    whole: Sequence[Line] = make_lines(shown, Size(width, None))
    short, details = make_lines(shown, Size(width, 24)), make_details(shown, width)
    for line in (*whole, *short, *details):
        assert measure(line) == cell_len(read_plain(line)) <= width
        assert read_plain(line).isprintable()
    bare = [re.sub(r"\s", "", "".join(map(read_plain, lines))) for lines in (whole, details)]
    for d in shown.doomed:
        name = re.sub(r"\s", "", make_visible(d.name))
        assert name in bare[1]
        if not d.volume.anonymous and d.verdict.tier is not Tier.DISPOSABLE:
            assert name in bare[0]
    question = len(fold_question(make_visible(make_question(shown.plan)), width).split("\n"))
    assert read_plain(short[0]).startswith("This command deletes ")
    assert len(short) + question <= 22


@pytest.mark.parametrize(
    "six",
    [
        [volume(f"shop_volume_with_a_name_{n}") for n in range(6)],
        [volume(f"shop_db_{n}_data", kind="postgres", contents=POSTGRES) for n in range(6)],
        [volume(f"{n}" * 64) for n in range(6)],
        [volume(f"shop_{n}", other="bank") for n in range(6)],
        [volume(f"shop_{n}", size=None, wrote=None) for n in range(6)],
    ],
    ids=["plain", "databases", "anonymous", "others'", "unknown"],
)
@pytest.mark.parametrize("words", ["compose down -v", "--skip-backup compose down -v"])
def test_six_volumes_that_all_matter_take_22_lines(six: list[Doomed], words: str) -> None:
    shown = screen(*six, words=words, warnings=("something is odd",))
    for rows in (24, 60):
        lines = [read_plain(line) for line in make_lines(shown, Size(80, rows))]
        assert len(lines) + 1 <= 22
    assert all(d.name in "\n".join(lines) for d in six)
    assert sum("written" in line or "last write" in line for line in lines) == 6


@pytest.mark.parametrize("number", [7, 40, 300])
def test_of_many_volumes_the_strictest_are_shown_and_the_rest_is_counted(number: int) -> None:
    many = [
        volume(f"shop_{n:03}", Tier.CRITICAL if n % 2 else Tier.IMPORTANT) for n in range(number)
    ]
    lines = [read_plain(line) for line in make_lines(screen(*many), SMALL)]
    assert len(lines) + 1 <= 22
    entries = [line for line in lines if line.startswith("shop_")]
    critical = number // 2
    assert len(entries) >= 6
    assert all("critical" in line for line in entries[:critical])
    [rest] = [line for line in lines if line.startswith("and ")]
    left = sum(int(found) for found in re.findall(r"(\d+) (?:critical|important)", rest))
    assert rest.startswith(f"and {left} more") and left == number - len(entries)
    assert "? shows all" in rest
    details = "\n".join(read_plain(line) for line in make_details(screen(*many), 80))
    assert all(d.name in details for d in many)


def test_of_many_disposable_volumes_the_rest_is_counted_and_a_log_has_all() -> None:
    many = [
        volume("a"),
        *(volume(f"cache_{n:03}", Tier.DISPOSABLE, why="cache") for n in range(300)),
    ]
    text = read(screen(*many))
    assert re.search(
        r"will NOT come back \(disposable, .*\): cache_000, .* and \d+ more \(\?\)", one_line(text)
    )
    assert len(text.splitlines()) <= 21


def test_a_log_has_every_name_and_no_question_mark() -> None:
    many = [volume(f"cache_{n:03}", Tier.DISPOSABLE, why="cache") for n in range(300)]
    words = "volume rm " + " ".join(d.name for d in many)
    text = read(screen(volume("a"), *many, words=words), Size(20_000, None))
    assert all(text.count(d.name) == 2 for d in many) and "(?)" not in text


def test_singular_and_plural() -> None:
    one = read(screen(volume("a"), facts=replace(FACTS, stopped=("shop-db-1",))))
    assert "deletes 1 volume for good" in one
    assert "will stop shop-db-1, which starts again" in one
    assert "1 volumes" not in one
    assert "deletes 2 volumes" in read(screen(volume("a"), volume("b")))


def test_what_is_unknown_is_called_so_once_it_will_not_be_known() -> None:
    unknown = volume("a", size=None, wrote=None, kind="unknown")
    measuring = read(screen(unknown, measuring=True))
    assert (
        "size ..." in measuring
        and "last write ..." in measuring
        and "unknown" not in measuring.replace("contents unknown", "")
    )
    final = read(screen(unknown))
    assert "size unknown" in final and "last write unknown" in final
    assert "time and size unknown" in final
    assert "1970" not in final and " 0 B" not in final


def test_only_what_is_empty_is_not_lost() -> None:
    mere = [
        volume("shop_tmp", Tier.DISPOSABLE, why="empty", size=0),
        volume("shop_cache", Tier.DISPOSABLE, why="a cache", size=None),
    ]
    text = read(screen(volume("a"), *mere))
    assert "will NOT come back (disposable): shop_cache\n" in text
    assert "nothing in: shop_tmp\n" in text


def test_the_trash_is_offered_only_where_it_can_be_used() -> None:
    offered = "or 'trash shop'"
    assert offered in read(screen(volume("a")))
    anonymous = volume("f" * 64)
    assert offered not in read(screen(anonymous))
    assert offered not in read(screen(volume("a"), words="--backup-first compose down -v"))
    assert offered not in read(screen(volume("a"), words="--skip-backup compose down -v"))
    assert offered not in read(screen(volume("a"), safety="trash"))
    assert offered not in read(screen(volume("a"), kind="volume_prune", words="volume prune -a"))


def test_a_backup_that_takes_longer_than_patience_is_remarked() -> None:
    impatient = replace(FACTS, patience=5)
    assert "long: more than 5 seconds (backup.patience)" in read(
        screen(volume("a"), facts=impatient)
    )
    assert "patience" not in read(screen(volume("a")))
    skipped = screen(volume("a"), facts=impatient, words="--skip-backup compose down -v")
    assert "patience" not in read(skipped) and "will stop" not in read(skipped)
    assert "without a backup.\n" in read(skipped)
    assert "No backup will be made: undo cannot bring any of this back." in read(skipped)


def test_a_daemon_of_another_machine_is_loud() -> None:
    lines = make_lines(screen(volume("a"), endpoint="ssh://me@far"), SMALL)
    [loud] = [line for line in lines if "REMOTE" in read_plain(line)]
    assert "ssh://me@far" in read_plain(loud)
    assert all("red" in span.style for span in loud if "REMOTE" in span.text)


def test_the_projects_that_a_prune_touches_are_named_with_their_number_of_volumes() -> None:
    labels = [{PROJECT_LABEL: name} for name in ("bank", "shop", "shop")]
    three = [volume(f"v{n}", labels=label) for n, label in enumerate(labels)]
    shown = screen(*three, volume("w"), words="volume prune -a", kind="volume_prune", project=None)
    said = "bank (1 volume), shop (2 volumes), without a project (1 volume)"
    assert f"projects  {said}" in one_line(read(shown)).replace("projects ", "projects  ")


def test_the_cure_for_failed_logins_is_named_and_explained_in_the_details() -> None:
    cure = (
        "the log of db-1 shows failed logins (3). A password that",
        "safe-compose rotate-password --sync db",
    )
    shown = screen(volume("a", remedy=cure))
    assert (
        "better    the log of db-1 shows failed logins (3): safe-compose rotate-password --sync db"
        in one_line(read(shown)).replace("better ", "better    ")
    )
    details = one_line("\n".join(map(read_plain, make_details(shown, 80))))
    assert " ".join(cure) in details


def test_the_details_say_why_and_where_and_what_it_takes() -> None:
    facts = replace(FACTS, recipients=2, copies=("nas (sftp://nas/backups)",), warnings=("odd",))
    shown = screen(*SIX, facts=facts, spared=(("shared", "external"),))
    text = one_line("\n".join(map(read_plain, make_details(shown, 80))))
    for words in (
        "why nobody knows it",
        "shop-app-1 (running), image busybox:latest at /data",
        "last write 2026-11-29 11:57 UTC, 3 minutes ago",
        "backup goes to /home/me/.local/share/safe-compose (60.0 GiB free)",
        "it takes up to 244.0 MiB and about 11 seconds",
        "encrypted for 2 recipients",
        "copied to nas (sftp://nas/backups)",
        "will stop shop-db-1, shop-app-1",
        "services down about 11 seconds for the backup",
        "safer docker compose down keeps every volume",
        "not touched shared (external)",
        "warning odd",
        "not backed up, will NOT come back",
        "'trash shop' moves the content aside",
    ):
        assert words in text, words


def test_a_store_without_space_is_warned_of() -> None:
    text = read(screen(volume("a"), facts=replace(FACTS, free=MIB)))
    assert "warning: the backup may need 124.0 MiB, and 1.0 MiB are free in" in one_line(text)


def test_words_stay_whole_on_a_very_narrow_terminal() -> None:
    for width in (24, 40, 71):
        text = read(screen(volume("shop_uploads_with_a_rather_long_name")), Size(width, 60))
        assert all(word in text for word in ("critical", "100.0 MiB", "files"))
