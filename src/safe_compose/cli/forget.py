"""The verb that forgets backups."""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Annotated

import typer

from safe_compose.cli.options import (
    AsJson,
    Confirm,
    DryRun,
    NonInteractive,
    ProjectName,
    Utc,
    Wait,
    Yes,
    app,
    ask_yes,
    check_wait,
    load_settings,
    make_down,
    print_json,
)
from safe_compose.core.quantities import count, format_size, rewrite_stamps
from safe_compose.core.retention import Policy, parse_span
from safe_compose.core.short_id import shorten_ids, shorten_in
from safe_compose.errors import DockerNotFound, EngineUnavailable, UsageError
from safe_compose.operations import forget as operations_forget
from safe_compose.settings.load import Settings
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.journal import Journal
from safe_compose.system.process import read_clock
from safe_compose.ui import tables, terminal
from safe_compose.ui.table_layout import BAD, GOOD, Cell, Column
from safe_compose.workspace import open_workspace

KeepLast = Annotated[
    int | None, typer.Option("--keep-last", min=1, help="Of each volume the newest so many.")
]
KeepDaily = Annotated[
    int | None, typer.Option("--keep-daily", min=1, help="The newest of so many days.")
]
KeepWeekly = Annotated[
    int | None, typer.Option("--keep-weekly", min=1, help="The newest of so many weeks.")
]
KeepMonthly = Annotated[
    int | None, typer.Option("--keep-monthly", min=1, help="The newest of so many months.")
]
KeepWithin = Annotated[
    str | None,
    typer.Option(
        "--keep-within", help="Those at most so much older than the newest: 48h, 14d, 8w."
    ),
]


@app.command()
def forget(
    ids: Annotated[list[str] | None, typer.Argument(help="Backups' ids, or short ids.")] = None,
    project: ProjectName = None,
    last: KeepLast = None,
    daily: KeepDaily = None,
    weekly: KeepWeekly = None,
    monthly: KeepMonthly = None,
    within: KeepWithin = None,
    confirm: Confirm = None,
    non_interactive: NonInteractive = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    wait: Wait = 60.0,
    utc: Utc = False,
    as_json: AsJson = False,
) -> None:
    """Forget the backups that no rule keeps, or the named ones; the plan is shown with reasons."""
    check_wait(wait)
    settings = load_settings()
    catalogue = Catalogue.at(settings.store, settings.access)
    if any(rule is not None for rule in (last, daily, weekly, monthly, within)):
        if ids:
            raise UsageError("forget takes ids or rules, not both; nothing was forgotten")
        rules: Policy | None = _make_policy(last, daily, weekly, monthly, within)
    else:
        rules = None
    forgetting = _select(catalogue, settings, ids or (), rules, project)
    if not as_json:
        shorten = shorten_ids(catalogue.reader.list_ids())
        _tell_forgetting(forgetting, shorten, tables.Moments(read_clock(), utc))
    if not dry_run:
        forgetting.refuse_wrong_clock()
    answered = yes or (confirm is not None and forgetting.phrase is not None)
    act = bool(forgetting.doomed) and not dry_run and (answered or not as_json)
    if act:
        terminal.flush()
        _confirm_forgetting(forgetting, yes=yes, confirm=confirm, ask=not non_interactive)
        journal = Journal(settings.store, settings.access)
        command = ("forget", *(ids or ()))
        operations_forget.forget(catalogue, journal, forgetting, command, wait=wait)
    elif not dry_run and catalogue.root.exists():
        catalogue.trash.finish_forgetting()  # of a run that was killed
    if as_json:
        print_json({"forget": forgetting.shape(done=act or not forgetting.doomed)})
    elif act:
        size = format_size(forgetting.bytes)
        tables.print_summary(f"forgot {count(len(forgetting.doomed), 'backup')}, {size}")


def _make_policy(
    last: int | None,
    daily: int | None,
    weekly: int | None,
    monthly: int | None,
    within: str | None,
) -> Policy:
    """Return the rules of the command line.

    Raises:
        UsageError: `within` is no age.
    """
    age = parse_span(within) if within is not None else None
    if within is not None and age is None:
        raise UsageError(
            f"--keep-within takes 48h, 14d or 8w, not {within!r}; nothing was forgotten"
        )
    return Policy(last or 0, daily or 0, weekly or 0, monthly or 0, age)


def _select(
    catalogue: Catalogue,
    settings: Settings,
    ids: Sequence[str],
    rules: Policy | None,
    project: str | None,
) -> operations_forget.Forgetting:
    """Return the backups that go: the named ones, or by the rules, else by those of the settings.

    Raises:
        UsageError: The rules of this folder's file are of a project that cannot be determined.
    """
    now = read_clock()
    if ids:
        return operations_forget.select_by_id(catalogue, ids, now, project)
    if rules is None and settings.own_retention and project is None:
        project = _find_project()
    chosen = rules if rules is not None else settings.retention
    return operations_forget.select_by_policy(catalogue, chosen, now, project)


def _find_project() -> str:
    """Return the project that the settings file in this folder belongs to.

    Raises:
        UsageError: It cannot be determined.
    """
    invocation = make_down(None, None)
    try:
        workspace = open_workspace(invocation)
        with closing(workspace.engine):
            found = workspace.engine.commands.look(invocation).project
    except (EngineUnavailable, DockerNotFound):
        found = None
    if found is None:
        raise UsageError(
            "the [retention] here is of one project, and which that is cannot be told; nothing was"
            " forgotten",
            next_step="safe-compose forget --dry-run --project NAME",
        )
    return found.name


def _tell_forgetting(
    forgetting: operations_forget.Forgetting,
    shorten: Callable[[str], str],
    moments: tables.Moments,
) -> None:
    columns = [
        Column("id"),
        Column("project", 1),
        Column("created"),
        Column("size", 2, is_number=True),
        Column("plan"),
        Column("why", is_prose=True),
    ]
    rows = [
        [
            Cell(shorten(j.backup.id), j.backup.id),
            Cell(j.backup.project),
            moments.cell(j.backup.created, none="unknown"),
            tables.size_cell(j.backup.bytes),
            Cell("stays", style=GOOD) if j.stays else Cell("GOES", style=BAD),
            _make_why_cell("; ".join((*j.why, *j.held)), shorten),
        ]
        for j in forgetting.judged
    ]
    tables.print_table(columns, rows, empty="no backups yet; make one: safe-compose backup")
    if forgetting.judged:
        doomed = len(forgetting.doomed)
        rules = f"keep {forgetting.policy}: " if forgetting.policy is not None else ""
        go = f"{doomed:,} of {count(len(rows), 'backup')} {'goes' if doomed == 1 else 'go'}"
        tables.print_summary(f"{rules}{go} ({format_size(forgetting.bytes)})")


def _make_why_cell(why: str, shorten: Callable[[str], str]) -> Cell:
    return Cell(rewrite_stamps(shorten_in(why, shorten)), why)


def _name_doomed(doomed: int) -> str:
    return "this backup" if doomed == 1 else f"these {doomed:,} backups"


def _confirm_forgetting(
    forgetting: operations_forget.Forgetting, *, yes: bool, confirm: str | None, ask: bool
) -> None:
    """Ask for a yes if the rules let all of them go, else for the phrase.

    Raises:
        Refused: The answer differs, or nobody can be asked.
    """
    phrase, nothing = forgetting.phrase, "nothing was forgotten"
    if phrase is None:
        question = f"Forget {_name_doomed(len(forgetting.doomed))} for good?"
        ask_yes(question, yes=yes, ask=ask, nothing=nothing)
        return
    reasons = [f"{j.backup.id}: {why}" for j in forgetting.doomed for why in j.held]
    why = "; ".join(dict.fromkeys(reasons))
    if confirm is None and ask:
        terminal.say(why)
    terminal.ask_phrase("To forget for good", phrase, confirm, ask=ask, nothing=nothing, why=why)
