"""The confirmation of a plan, before anything is stopped.

A person, flags or an earlier approval can give it.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from safe_compose.core.plan import Plan
from safe_compose.core.text import join_for_shell, shell_quote_always
from safe_compose.errors import OperationFailed, Refused
from safe_compose.grammar import parser
from safe_compose.grammar.parser import Invocation
from safe_compose.operations import approval
from safe_compose.operations.guard.look import list_names
from safe_compose.settings import load
from safe_compose.store import settings_approval
from safe_compose.system.signals import raise_swallowed
from safe_compose.ui import confirmation
from safe_compose.ui import terminal as ui_terminal
from safe_compose.ui.confirmation_lines import Circumstances, Screen, make_question
from safe_compose.workspace import Workspace


class Confirmed(NamedTuple):
    """A plan that may be carried out."""

    workspace: Workspace
    """The workspace, with the settings that apply to the doomed volumes."""
    plan: Plan
    approval: str | None
    """The code of the approval that was given before; it is still to be used up."""


def confirm(workspace: Workspace, made: Plan, case: approval.RefusalContext) -> Confirmed:
    """Have the plan confirmed by a person, by flags or by an earlier approval.

    Args:
        workspace: The workspace.
        made: The plan.
        case: Receives the request for an approval, when the plan is refused.

    Raises:
        Refused: Nobody may be asked, or the answer is no.
        OperationFailed: The backup would not last.
    """
    own = made.invocation.own
    if own.skip_backup and made.verdict == "refuse" and made.must_back_up:
        raise Refused(
            f"this command deletes {list_names(made.doomed)} without a backup",
            next_step=made.refusal,
        )
    workspace = _approve_settings(workspace, made)
    granted = approval.find_granted(workspace, made)
    with approval.offering_approval(workspace, made, case):
        if made.verdict == "refuse" and granted is None:
            raise Refused(
                f"this command deletes {list_names(made.doomed)}, and {case.nobody}",
                next_step=made.refusal,
            )
    if not own.skip_backup:
        _require_lasting_store(workspace.settings)
        workspace.catalogue.folder.ensure()
    terminal = (
        None
        if own.non_interactive or own.confirm is not None or granted
        else ui_terminal.Terminal.open()
    )
    if terminal is None and granted is None:
        with approval.offering_approval(workspace, made, case):
            made = _take_flags(made)
    made, screen = _show_confirmation(workspace, made, terminal)
    raise_swallowed()
    return Confirmed(
        workspace, _ask(made, screen, terminal) if terminal is not None else made, granted
    )


def _approve_settings(workspace: Workspace, made: Plan) -> Workspace:
    """Return the workspace with the settings that apply to the doomed volumes.

    A person approves the new ones among them, before anything is stopped.

    Raises:
        Refused: Nobody may be asked, or the answer is no (exit code 77).
    """
    settings = workspace.settings_for(made.observed, [d.volume for d in made.backed_up])
    own = made.invocation.own
    if (waiting := settings_approval.list_waiting(settings)) and not own.skip_backup:
        terminal = (
            None if own.non_interactive or own.confirm is not None else ui_terminal.Terminal.open()
        )
        if terminal is None or not settings_approval.ask(settings, waiting, terminal):
            raise settings_approval.make_refusal(waiting, "nothing was deleted")
    return workspace.with_settings(settings_approval.reduce_to_approved(settings))


def _require_lasting_store(settings: load.Settings) -> None:
    """Check that the backup would outlive the machine that makes it.

    Raises:
        OperationFailed: It would be kept in the home of a CI runner.
    """
    if os.environ.get("CI") and not settings.store_configured and not settings.required_copies:
        raise OperationFailed(
            "CI is set and the backup would be kept in this runner's home, which dies with it;"
            " nothing was deleted",
            next_step=(
                "set SAFE_COMPOSE_HOME, or [store] path in safe-compose.toml, or an off-site copy"
                " with required = true"
            ),
        )


def _plan_without_copy(made: Plan) -> Plan:
    """Return the plan after the phrase for the trash was given."""
    return replace(made, safety="trash", insisted=True)


def _take_flags(made: Plan) -> Plan:
    """Return the plan as the flags confirm it, when nobody can be asked.

    Raises:
        Refused: They do not confirm it; the message names the flags to add.
    """
    own = made.invocation.own
    if own.confirm is not None:
        if own.confirm == made.trash_phrase and not own.backup_first:
            return _plan_without_copy(made)
        if own.confirm != made.phrase:
            raise Refused(
                f"--confirm does not match: this command deletes {list_names(made.doomed)}",
                next_step=f"--confirm {shell_quote_always(str(made.phrase))}",
            )
        return made
    if own.non_interactive and own.backup_first:
        return made
    phrase = shell_quote_always(str(made.phrase))
    job = "add --non-interactive --backup-first (a verified backup instead of the confirmation)"
    raise Refused(
        f"this command deletes {list_names(made.doomed)}, and there is no terminal to confirm it"
        " on. A person decides this",
        next_step=(
            f"add --confirm {phrase}"
            if own.skip_backup
            else job + (f", and --confirm {phrase}" if made.touches_others else "")
        ),
    )


def _ask(made: Plan, screen: Screen, terminal: ui_terminal.Terminal) -> Plan:
    """Return the plan as a person confirms it at the terminal.

    `?` shows the details and asks again. A wrong phrase is asked for once more.

    Raises:
        Refused: The phrase was not typed, or the answer is no.
    """
    question = make_question(made)
    again = f"That was not '{made.phrase}'. Details: ?  Once more, type '{made.phrase}': "
    while True:
        answer = terminal.ask(question)
        if answer.strip() == "?":
            confirmation.show_details(screen)
            continue
        if answer == made.trash_phrase and not made.invocation.own.backup_first:
            return _plan_without_copy(made)
        if not made.typed and not made.invocation.own.skip_backup:
            if answer.strip().lower() not in ("y", "yes"):
                raise Refused("not confirmed; nothing was deleted")
            return made
        if answer == made.phrase:
            return made
        if question == again:
            raise Refused(f"the phrase was not '{made.phrase}'; nothing was deleted")
        question = again


def _collect_circumstances(workspace: Workspace, made: Plan) -> Circumstances:
    """Return what the confirmation screen shows besides the plan, without the warnings."""
    settings = workspace.settings
    found = Circumstances(
        stopped=tuple(c.name for c in made.threat.stops if c.lively),
        safer=_suggest_without_volumes(made.invocation),
        patience=settings.patience,
    )
    if not _is_copied(made):
        return found
    return replace(
        found,
        store=str(workspace.catalogue.root),
        free=workspace.catalogue.folder.free_space().bytes,
        recipients=len(settings.recipients),
        copies=tuple(f"{to.name} ({to.url})" for to in settings.required_copies),
    )


def _is_copied(made: Plan) -> bool:
    """Return whether a backup is made, unless a person types the phrase for the trash."""
    own = made.invocation.own
    copied = made.safety != "trash" or made.no_trash is not None or own.backup_first
    return copied and not own.skip_backup and bool(made.backed_up)


def _list_warnings(workspace: Workspace, made: Plan) -> tuple[str, ...]:
    """Return what a person should know about earlier losses and about the backup to be made."""
    from safe_compose.operations.backup.free_space import explain_over_budget
    from safe_compose.operations.outcome import list_earlier_losses

    warnings: list[str | None] = [
        *list_earlier_losses(
            workspace.journal, workspace.engine.id, [d.name for d in made.doomed], workspace.run_id
        )
    ]
    if _is_copied(made):
        warnings.append(explain_over_budget(workspace.catalogue, workspace.settings))
        warnings.append(_find_schedule_fault(workspace, made))
    return tuple(filter(None, warnings))


def _find_schedule_fault(workspace: Workspace, made: Plan) -> str | None:
    """Return what is wrong with the project's scheduled backups; None when nothing is.

    The confirmation screen is where somebody reads it.
    """
    from safe_compose.store.schedules import Schedules

    return Schedules(workspace.catalogue.root).troubles().get(made.project or "")


def _suggest_without_volumes(invocation: Invocation) -> str | None:
    """Return the command without its flag for volumes.

    Returns:
        The command; None when it would be a different command, or when that is uncertain.
    """
    words = [word for word in invocation.argv if word not in ("-v", "--volumes", "--volume")]
    harmless = parser.parse(words, invocation.program).kind == "none"
    return (
        join_for_shell([invocation.program, *words])
        if harmless and invocation.kind == "compose_down_volumes"
        else None
    )


def _show_confirmation(
    workspace: Workspace, made: Plan, terminal: ui_terminal.Terminal | None
) -> tuple[Plan, Screen]:
    """Show the confirmation screen, and return the plan with the verdicts found meanwhile.

    Those are the verdicts that a quick `Workspace.judge` postponed. Whatever takes time, or modules
    of its own, comes after the first paint.
    """
    facts = _collect_circumstances(workspace, made)

    def measured() -> Iterator[tuple[Plan, Circumstances]]:
        known = replace(facts, warnings=_list_warnings(workspace, made))
        yield made, known
        from safe_compose.operations.guard import confirmation_facts

        for plan in confirmation_facts.collect_facts(workspace, made):
            yield plan, known

    screen = confirmation.show_confirmation(made, facts, measured, terminal)
    judged = tuple(
        replace(d, verdict=now.verdict) for d, now in zip(made.doomed, screen.doomed, strict=True)
    )
    return replace(made, doomed=judged), screen
