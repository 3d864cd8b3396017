"""The execution of a destructive command: back up, inspect again, run docker.

If docker was not run, everything is left as it was.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from safe_compose.core import backup_set
from safe_compose.core.observed import Container
from safe_compose.core.plan import Plan
from safe_compose.core.redaction import hide_option
from safe_compose.core.text import join_for_shell
from safe_compose.core.tier import Tier
from safe_compose.errors import Interrupted, OperationFailed, StateChanged
from safe_compose.operations import offsite
from safe_compose.operations.backup.before_deletion import (
    ColdBackup,
    DeletionBackup,
    stop_all,
)
from safe_compose.operations.backup.free_space import explain_over_budget
from safe_compose.operations.backup.records import make_record
from safe_compose.operations.backup.request import BackupRequest
from safe_compose.operations.compose_stop import HookedServices
from safe_compose.operations.guard.docker_child import run_docker
from safe_compose.operations.guard.last_look import require_same, take_last_look
from safe_compose.operations.guard.look import look
from safe_compose.operations.guard.report import report
from safe_compose.operations.recover.run import recover
from safe_compose.operations.stopped_containers import StoppedContainers
from safe_compose.operations.transaction import begin
from safe_compose.operations.trash import TrashedVolumes
from safe_compose.store.journal import Run
from safe_compose.system.process import Process
from safe_compose.system.signals import ignoring_signals
from safe_compose.ui import terminal as ui_terminal
from safe_compose.volumes import encryption, rename
from safe_compose.workspace import Workspace


def execute(workspace: Workspace, made: Plan, approval: str | None) -> int:
    """Back up, run docker, report, and return docker's exit code.

    The caller holds the lock of the project. Whatever happens, what was stopped is started again.

    Args:
        workspace: The workspace.
        made: The confirmed plan.
        approval: The code of the approval that confirmed it, for the journal; None for none.

    Raises:
        Interrupted: Ctrl-C; nothing was deleted.
        SafeComposeError: Docker was not run.
    """
    journal_run = begin(
        workspace,
        made.invocation.argv,
        program=made.invocation.program,
        globals_of=made.invocation,
        project=made.project,
        working_dir=made.observed.project.working_dir if made.observed.project else "",
        approval=approval,
    )
    stopped_containers = StoppedContainers(
        workspace.engine, journal_run, _find_hooked_services(workspace, made)
    )
    trashed_volumes = TrashedVolumes(workspace.engine, journal_run)
    code: int | None = None
    try:
        last, backup = _prepare(workspace, made, journal_run, stopped_containers, trashed_volumes)
        started = partial(_note_docker, journal_run) if trashed_volumes.names else None
        code = run_docker(workspace, made.invocation, started)
        # Docker ran, so its exit code is ours; a fault here changes nothing any more.
        with ui_terminal.reporting_only():
            report(workspace, last, journal_run, backup, trashed_volumes.names, code)
    except KeyboardInterrupt as interrupt:
        raise Interrupted("interrupted; nothing was deleted") from interrupt
    finally:
        _leave(workspace, journal_run, stopped_containers, trashed_volumes, code)
    return code


def _find_hooked_services(workspace: Workspace, made: Plan) -> HookedServices | None:
    """Return the services with hooks that compose runs when it stops them.

    Returns:
        The services; None when there are none, or when the command goes by labels, as `-p` does.
    """
    project = made.observed.project
    if project is None or not project.hooked or made.invocation.verb[:1] != ("compose",):
        return None

    def run(words: Sequence[str], seconds: float) -> tuple[int, str]:
        return workspace.engine.commands.run_compose(
            made.invocation, words, stdin=workspace.stdin, seconds=seconds
        )

    return HookedServices(
        project.name, frozenset(project.hooked), workspace.engine.commands.client_versions()[1], run
    )


def _note_docker(journal_run: Run, pid: int) -> None:
    """Journal which docker process deletes.

    If our process is killed, nothing is restored while docker still works.
    """
    with ui_terminal.reporting_only():
        journal_run.step("docker", process=Process.of(pid).facts())


def _prepare(
    workspace: Workspace,
    made: Plan,
    journal_run: Run,
    stopped_containers: StoppedContainers,
    trashed_volumes: TrashedVolumes,
) -> tuple[Plan, ColdBackup | None]:
    """Make everything true that must be true before docker may run.

    Returns:
        The plan of the last inspection, and the backup, if one was made.
    """
    holding = (made.project or "volumes",)
    recover(
        workspace.engine,
        workspace.catalogue,
        workspace.journal,
        own_run=workspace.engine.run_id,
        holding=holding,
    )
    again = look(workspace, made.invocation)
    again = replace(again, safety=made.safety, insisted=True) if made.insisted else again
    require_same(made, again)
    if stopped_containers.hooked is not None:
        command = join_for_shell([made.invocation.program, *made.invocation.argv])
        stopped_containers.hooked.refuse_where_a_stop_blocks(_list_stopped_first(again), command)
    backup = None
    for_trash = _choose_for_trash(workspace, again)
    needed = again.backed_up and not made.invocation.own.skip_backup
    if (
        needed
        and len(for_trash) == len(again.backed_up)
        and again.safety == "trash"
        and not made.invocation.own.backup_first
    ):
        stop_all(workspace.engine, _make_request(again), workspace.settings, stopped_containers)
    elif needed:
        backup = _back_up(workspace, again, journal_run, stopped_containers)
    last = take_last_look(workspace, again, backup, stopped_containers)
    if for_trash:
        last = _move_to_trash(workspace, last, for_trash, trashed_volumes)
    # From `again`, because the services are stopped by now.
    journal_run.step("running", **_describe_undo(again, backup))
    return last, backup


def _back_up(
    workspace: Workspace, made: Plan, journal_run: Run, stopped_containers: StoppedContainers
) -> ColdBackup:
    """Back up what the plan deletes, and make the off-site copies that the settings require.

    Raises:
        StateChanged: A container that may not be stopped uses a volume.
        OperationFailed: The backup or a required copy could not be made.
        VerificationFailed: The backup does not verify.
    """
    required = workspace.settings.required_copies
    offsite.require_reachable(required)
    encryption.set_recipients(workspace.settings.recipients)
    backup = DeletionBackup(
        workspace.engine,
        workspace.catalogue,
        journal_run,
        workspace.settings,
        stopped_containers,
    ).make(_make_request(made))
    with ui_terminal.reporting_only():
        if over := explain_over_budget(workspace.catalogue, workspace.settings):
            ui_terminal.say(f"safe-compose: {over}")
    if required:
        offsite.send_required(workspace.catalogue, backup.backup, required)
        journal_run.step("copied", backup=backup.id, to=[to.name for to in required])
    return backup


def _list_stopped_first(made: Plan) -> list[Container]:
    """Return the containers that are stopped before docker runs; none without a backup."""
    return (
        []
        if made.invocation.own.skip_backup or not made.backed_up
        else [c for c in made.threat.stops if c.lively]
    )


def _make_request(made: Plan) -> BackupRequest:
    return BackupRequest(
        project=made.project or "volumes",
        reason="pre-delete",
        command=made.invocation.argv,
        observed=made.observed,
        volumes=tuple((d.volume, d.verdict) for d in made.backed_up),
        may_stop=made.threat.stops,
        omitted=tuple(
            backup_set.omit_disposable(d.verdict)
            for d in made.doomed
            if d.verdict.tier is Tier.DISPOSABLE
        ),
    )


def _choose_for_trash(workspace: Workspace, made: Plan) -> frozenset[str]:
    """Return the volumes whose content goes to the trash before docker runs.

    It is reported why a volume cannot go there.

    Raises:
        OperationFailed: It cannot, and a person had asked for exactly that.
    """
    if made.safety == "backup" or made.invocation.own.skip_backup:
        return frozenset()
    refusals = {d.name: made.no_trash for d in made.backed_up}
    if made.no_trash is None:
        folder = workspace.engine.docker.volumes_folder()
        refusals = {
            d.name: rename.examine(workspace.engine, d.volume, folder) for d in made.backed_up
        }
    reasons = [
        f"volume {name} cannot go into the trash: {why}"
        for name, why in refusals.items()
        if why is not None
    ]
    if reasons and made.insisted:
        raise OperationFailed(
            f"{'; '.join(reasons)}; nothing was deleted",
            next_step="run the command again, for a backup instead",
        )
    for words in reasons:
        ui_terminal.say(f"safe-compose: {words}; it is backed up")
    return frozenset(name for name, why in refusals.items() if why is None)


def _move_to_trash(
    workspace: Workspace, last: Plan, names: frozenset[str], trashed_volumes: TrashedVolumes
) -> Plan:
    """Move the content of volumes to the trash.

    Returns:
        The plan with the volumes as they are now, empty.

    Raises:
        StateChanged: A volume is in use.
    """
    request = _make_request(last)
    now = []
    for d in last.doomed:
        if d.name in names:
            trashed_volumes.move_in(
                d.volume,
                make_record(request, d.volume, d.verdict, "trash", ()),
                last.project or "volumes",
            )
            ui_terminal.say(f"safe-compose: the content of {d.name} is in the trash")
        now.append(replace(d, volume=workspace.engine.docker.volume(d.name) or d.volume))
    workspace.engine.helpers.sweep()
    if left := workspace.engine.helpers.leftovers():
        raise StateChanged(
            f"helper containers are still there ({', '.join(left)}); nothing was deleted"
        )
    for d in now:
        if d.name in names and (
            on := [u.name for u in workspace.engine.docker.users(d.name) if u.lively]
        ):
            raise StateChanged(
                f"container {on[0]} was started on volume {d.name}; nothing was deleted"
            )
    return replace(last, doomed=tuple(now))


def _leave(
    workspace: Workspace,
    journal_run: Run,
    stopped_containers: StoppedContainers,
    trashed_volumes: TrashedVolumes,
    code: int | None,
) -> None:
    """Return to the normal state: trash, stopped containers, helpers and journal.

    Content in the trash whose volume was not deleted is moved back, what was stopped is started
    again, helpers are removed, and the run is closed. No fault here hides what happened before. A
    run that could not do all of it stays open, so that `recover` and the next run try again.
    """
    with ignoring_signals():
        untouched = trashed_volumes.settle(docker_ran=code is not None)
        if not untouched:
            ui_terminal.say(
                "safe-compose: what was stopped stays so until then: nothing may start on an empty"
                " volume"
            )
        restored = complete = untouched and stopped_containers.restore()
    with ui_terminal.reporting_only():
        if code is None:
            complete = False  # until the helpers are gone
            workspace.engine.helpers.sweep()
            complete = restored
    with ui_terminal.reporting_only():
        if complete:
            journal_run.step(
                "ended",
                outcome="docker was not run" if code is None else f"docker exited with {code}",
            )
        else:
            ui_terminal.say("safe-compose: to start them later: safe-compose recover")


def _describe_undo(made: Plan, backup: ColdBackup | None) -> dict[str, object]:
    """Return what `undo` needs: the doomed volumes, the backup, and the services that ran."""
    running = [c.service for c in made.threat.stops if c.lively and c.service]
    return {
        "volumes": [
            {
                "name": d.name,
                "created_at": d.volume.created_at,
                "driver": d.volume.driver,
                "options": {
                    name: f"{name}={hide_option(name, value)}"
                    for name, value in d.volume.options.items()
                },
            }
            for d in made.doomed
        ],
        "backup": backup.id if backup else None,
        "services": sorted({s for s in running if s}),
    }
