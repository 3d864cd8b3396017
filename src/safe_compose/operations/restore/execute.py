"""The execution of a restore plan: volumes are backed up, stopped, cleared, filled and started.

At every point everything can be rolled back.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from safe_compose.core.backup import Backup
from safe_compose.core.observed import Volume, describe_location
from safe_compose.core.policy import Verdict
from safe_compose.core.quantities import format_size
from safe_compose.core.tier import Tier
from safe_compose.errors import SafeComposeError, StateChanged
from safe_compose.operations import file_logs, trash
from safe_compose.operations.backup.before_deletion import ColdBackup, DeletionBackup
from safe_compose.operations.backup.request import BackupRequest
from safe_compose.operations.compose_stop import find_hooked_services
from safe_compose.operations.recover.rollback import InterruptedRestore, add_heartbeat, roll_back
from safe_compose.operations.restore.confirmation import require_possible
from safe_compose.operations.restore.plan import RestorePlan, make_plan
from safe_compose.operations.restore.request import LOCK_SECONDS
from safe_compose.operations.restore.target import RestoreTarget
from safe_compose.operations.restore.volumes import fill
from safe_compose.operations.stopped_containers import StoppedContainers
from safe_compose.operations.transaction import begin, locking, transaction
from safe_compose.store import settings_approval
from safe_compose.store.journal import Run
from safe_compose.system.signals import deferring_signals
from safe_compose.ui import terminal
from safe_compose.volumes import encryption, gzip_stream
from safe_compose.volumes.engine_location import EngineLocation
from safe_compose.volumes.folder_swap import FolderSwap
from safe_compose.workspace import Workspace


@contextmanager
def restoring(
    workspace: Workspace, plan: RestorePlan, command: tuple[str, ...], *, undoes: str | None = None
) -> Iterator["RestoreRun"]:
    """Lock the projects, back up what is there, stop what runs on it, and yield the run.

    The block restores. Unless it succeeds, the earlier content is rolled back. In every case, what
    was stopped is started again.

    Args:
        workspace: The workspace.
        plan: The confirmed plan.
        command: The command, for the journal.
        undoes: The id of the run that is undone; None for a restore.

    Raises:
        StateChanged: The volumes changed since the plan; nothing was restored.
        Refused: The plan cannot work any more; nothing was restored.
        OperationFailed: The safety backup could not be made; nothing was restored.
        VerificationFailed: The safety backup does not verify; nothing was restored.
    """
    there = replace(workspace, engine=plan.engine)  # for `undo`, the engine that the journal names
    with locking(there, plan.projects, command, wait=LOCK_SECONDS):
        again = make_plan(
            plan.engine,
            plan.backup,
            [t.record for t in plan.targets],
            plan.declared,
            plan.relocation,
            plan.trash,
            plan.recorded,
        )
        if again.identity() != plan.identity():
            raise StateChanged(
                "the volumes changed between the plan and now; nothing was restored",
                next_step="run it again",
            )
        require_possible(again)
        run = begin(
            there, command, project=plan.owner, restores=plan.backup.id, projects=plan.projects
        )
        restore_run = RestoreRun(workspace, again, run, undoes=undoes)
        with transaction(run, restore_run.roll_back, leave=restore_run.leave) as change:
            restore_run.make_safety_backup()
            yield restore_run
            change.outcome = restore_run.result


class RestoreRun:
    """A restore in progress, which can be rolled back at every point."""

    def __init__(
        self, workspace: Workspace, plan: RestorePlan, run: Run, *, undoes: str | None
    ) -> None:
        """Start with nothing touched.

        Args:
            workspace: The workspace.
            plan: The plan, made again under the locks.
            run: The run to journal to.
            undoes: The id of the run that is undone; None for a restore.
        """
        self.workspace = workspace
        self.plan = plan
        self.run = run
        self.undoes = undoes
        self.safety: Backup | None = None
        self._cold_backup: ColdBackup | None = None
        """The safety backup, and who wrote to its volumes since."""
        self.touched: list[RestoreTarget] = []
        self.filled: list[dict[str, Any]] = []
        self.homes: dict[str, str] = {}
        """The old name of an anonymous volume -> the volume that has its content now."""
        self.result = "nothing was changed"
        self.with_settings = False
        """Also restore what a dump's server kept next to its databases."""
        self._swaps: list[RestoreTarget] = []
        """Folders that are filled next to their place, or are in it already."""
        self._seen_empty: set[str] = set()
        """Volumes created for this that point outside of docker, to a place that was empty then.

        Everything at that place is ours.
        """
        self._users: dict[str, dict[str, str]] = {}
        """Volume -> the id of each container on it -> its `StartedAt` when the restore began."""
        self._stopped_containers = StoppedContainers(
            plan.engine, run, find_hooked_services(workspace.docker, plan.engine, plan.users())
        )

    def make_safety_backup(self) -> None:
        """Back up the content that is to be replaced, and stop what runs on a target.

        Raises:
            StateChanged: A container that may not be stopped uses a volume.
            OperationFailed: The backup could not be made.
            VerificationFailed: The backup does not verify.
        """
        plan = self.plan
        judged = tuple(
            (t.current, _make_verdict(t))
            for t in plan.occupied
            if t.current is not None and t.backed_up_first
        )
        if judged:
            settings = settings_approval.reduce_to_approved(
                self.workspace.settings_for(plan.observed, [v for v, _ in judged])
            )
            encryption.set_recipients(settings.recipients)
            users = tuple(
                {u.id: u for v, _ in judged for u in plan.observed.users(v.name)}.values()
            )
            request = BackupRequest(plan.owner, "pre-restore", (), plan.observed, judged, users)
            backup = DeletionBackup(
                plan.engine,
                self.workspace.catalogue,
                self.run,
                settings,
                self._stopped_containers,
            )
            self._cold_backup = backup.make(request)
            self.safety = self._cold_backup.backup
        self._stopped_containers.stop(
            replace(c, mounts=u.mounts)  # with real paths
            for u in plan.users()
            if (c := plan.engine.docker.container(u.id)) is not None
        )

    def restore_all(self) -> None:
        """Restore all targets.

        It is first checked that nothing runs on them and that empty ones stayed empty.

        Raises:
            StateChanged: A container was started on a target, or something was written to one.
            SafeComposeError: A target could not be restored.
        """
        engine = self.plan.engine
        observed, ours = engine.commands.look_at_folders(), engine.mounts.keepers()
        for target in self.plan.targets:
            users = [u for u in observed.users(target.into) if u.name not in ours]
            self._users[target.into] = {
                u.id: full.started_at for u in users if (full := engine.docker.container(u.id))
            }
            above = observed.list_above(target.into)
            for user in (*users, *(c for c in above if c.project in self.plan.projects)):
                if user.lively:
                    raise StateChanged(
                        f"container {user.name} was started on {target.into} meanwhile; what was"
                        " there is there again",
                        next_step="stop what starts it, then run the command again",
                    )
        for target in self.plan.targets:
            self._require_still_empty(target)
            if target.swap is not None and target.swap.is_file:
                file_logs.require_no_log(engine, observed.users(target.into), target.into)
        if self._cold_backup is not None:
            self._cold_backup.require_unwritten("nothing was restored")
        for target in self.plan.targets:
            self._restore_one(target)

    def _require_still_empty(self, target: RestoreTarget) -> None:
        """Check that a volume that was empty in the plan is still empty.

        A service may write when it stops, and nobody has a copy of that.

        Raises:
            StateChanged: It is not empty; nothing was touched.
        """
        if (
            target.current is not None
            and not target.has_content
            and self.plan.engine.archives.list_root(target.into) != []
        ):
            raise StateChanged(
                f"{describe_location(target.into)} was empty and is not any more, as where a"
                " service writes"
                " when it stops; nothing was touched",
                next_step="run it again",
            )

    def settle(self) -> None:
        """Rename the folders into place, and journal that everything is restored.

        From here on nothing is rolled back.

        Raises:
            SafeComposeError: A folder could not be renamed.
        """
        for target in self._swaps:
            self._swap_in(target)
        with deferring_signals():  # what the journal has as restored is never rolled back
            if self.undoes is not None:  # one step for both: no kill falls between them
                self.run.step("undid", run=self.undoes, backup=self.plan.backup.id)
            else:
                self.run.step("restored", backup=self.plan.backup.id)
            self.result = f"restored from {self.plan.backup.id}"
            self.touched.clear()
            self._swaps.clear()
            self._stopped_containers.half.clear()
        for target in self.plan.targets:
            if target.trash:
                with terminal.reporting_only():
                    trash.discard(EngineLocation(self.plan.engine, target.trash))

    def _restore_one(self, target: RestoreTarget) -> None:
        """Restore one target, creating its volume if it does not exist, and report that."""
        if target.swap is not None:
            self._fill_staging(target, target.swap)
            return
        engine, record = self.plan.engine, target.record
        self.run.step("putting-back", **self._make_interrupted(target)._asdict())
        self.touched.append(target)
        self._stopped_containers.half.add(target.into)
        if target.current is None:
            engine.docker.create_volume(
                target.into, driver=record.driver, options=record.options, labels=record.labels
            )
        else:
            _tell_difference(target)
        self._stopped_containers.keep_mounted([target.into])
        if target.current is None and target.outside and not self._is_empty_outside(target):
            source = self._left_outside(target)
        else:
            source = fill(
                self.plan,
                self.run,
                target,
                target.into,
                empty_first=target.occupied,
                add=target.adds,
                with_settings=self.with_settings,
            )
        self.run.step("put-back", volume=target.into, source=source)
        self.filled.append({"name": record.name, "into": target.into, "from": source})
        size = format_size(sum(a.bytes for a in record.artifacts))
        where = "is back" if self.plan.relocation is None else f"is in {target.into} now"
        words = (
            f" {where}, from its {source} ({size})"
            if source in ("archive", "physical copy", "dump")
            else f": {source}"
        )
        words = " is back, from the trash" if source == "trash" else words
        name = f"what was missing of {record.name}" if target.adds else record.name
        terminal.say(f"safe-compose: {name}{words}")

    def _fill_staging(self, target: RestoreTarget, swap: FolderSwap) -> None:
        """Fill a new folder next to the current one; `_swap_in` renames it."""
        self.run.step(
            "placing",
            volume=swap.parent.name,
            path=swap.name,
            staging=swap.staging_name,
            aside=swap.old_name,
            existed=target.current is not None,
            is_file=swap.is_file,
        )
        self._swaps.append(target)
        swap.make_staging()
        source = fill(
            self.plan,
            self.run,
            target,
            swap.staging,
            empty_first=False,
            with_settings=self.with_settings,
        )
        self.filled.append({"name": target.record.name, "into": target.into, "from": source})

    def _swap_in(self, target: RestoreTarget) -> None:
        """Rename a filled folder into its place, and report that."""
        swap = target.swap
        if swap is None:
            return
        swap.swap_in(existed=target.current is not None)
        kept = ""
        if target.has_content:
            kept = (
                f"; the one before it is {swap.old_path}: safe-compose restore --finish removes it"
            )
        elif (
            target.current is not None and self.plan.engine.archives.list_root(swap.old_path) == []
        ):
            swap.remove_old()
        size = format_size(sum(a.bytes for a in target.record.artifacts))
        terminal.say(
            f"safe-compose: {target.record.location} {target.into} is back, from its"
            f" {target.source} ({size}){kept}"
        )

    def _is_empty_outside(self, target: RestoreTarget) -> bool:
        """Return whether the place that a recreated volume points to is empty, and journal that.

        It is journaled before anything is put there: only then may a rollback clear that place.
        """
        if self.plan.engine.archives.list_root(target.into) != []:
            return False
        self._seen_empty.add(target.into)
        # The newest step counts.
        self.run.step("putting-back", **self._make_interrupted(target)._asdict())
        return True

    def _left_outside(self, target: RestoreTarget) -> str:
        """Handle a recreated volume that has content at once, because its place was never deleted.

        Returns:
            What became of the volume, in words, for an `undo`.

        Raises:
            StateChanged: It is a restore; the content was not touched.
        """
        if self.undoes is not None:
            return (
                "left as it was: its content lies outside of docker, where no deletion of the"
                " volume reached it"
            )
        # The volume stays, so that the next run sees its content, asks, and backs it up.
        self.touched.remove(target)
        self._stopped_containers.half.discard(target.into)
        raise StateChanged(
            f"volume {target.into} was made again and points at a place that has content; that was"
            " not touched",
            next_step=(
                f"run it again to replace that content: safe-compose restore {self.plan.backup.id}"
            ),
        )

    def roll_back(self, _fault: BaseException) -> str:
        """Roll every touched volume back to its earlier content, and report the result.

        A failure hides no earlier fault.

        Returns:
            The result; empty where a volume could not be rolled back. That is for `recover`, and
                no container is started on it meanwhile.
        """
        if not (self.touched or self._swaps):
            return self.result
        failed = self._revert_swaps()
        for target in reversed(self.touched):
            try:
                self._roll_back_one(target)
            except SafeComposeError as further:
                failed.append(target.into)
                terminal.say(
                    f"safe-compose: {target.into} could not be rolled back: {further.message}"
                )
            else:
                self._stopped_containers.half.discard(target.into)
        where = f"; what was there is in backup {self.safety.id}" if self.safety else ""
        self.result = (
            f"cut off while putting back {', '.join(failed)}{where}"
            if failed
            else describe_rollback([*self.touched, *self._swaps])
        )
        terminal.say(f"safe-compose: {self.result}")
        if failed:
            terminal.say("safe-compose: next: safe-compose recover")
        return "" if failed else self.result

    def _revert_swaps(self) -> list[str]:
        """Make every folder as it was, and return those where that failed."""
        failed = []
        for target in reversed(self._swaps):
            if target.swap is None:
                continue
            try:
                target.swap.revert(existed=target.current is not None)
            except SafeComposeError as further:
                failed.append(target.into)
                self._stopped_containers.half.add(target.into)
                terminal.say(
                    f"safe-compose: {target.into} could not be rolled back: {further.message}"
                )
        return failed

    def _roll_back_one(self, target: RestoreTarget) -> None:
        words = add_heartbeat(self.run, target.into, gzip_stream.show_nothing)
        roll_back(self.plan.engine, self.workspace.catalogue, self._make_interrupted(target), words)
        with terminal.reporting_only():  # it is back, be the disk of the store full
            self.run.step("rolled-back", volume=target.into)

    def _make_interrupted(self, target: RestoreTarget) -> InterruptedRestore:
        return InterruptedRestore(
            target.into,
            target.current is not None,
            self.safety.id if self.safety and target.occupied else None,
            target.trash or None,
            target.in_memory,
            target.outside,
            self._users[target.into],
            target.adds,
            target.into in self._seen_empty,
        )

    def leave(self) -> bool:
        """Start again what was stopped; no fault here hides what happened before.

        Returns:
            False when not everything could be started.
        """
        complete = self._stopped_containers.restore()
        with terminal.reporting_only():
            self.plan.engine.helpers.sweep()
        return complete

    def outcome(self) -> dict[str, Any]:
        """Return the backup, the restored volumes and the safety backup, as JSON."""
        volumes = [
            {**filled, "into": self.homes.get(filled["into"], filled["into"])}
            for filled in self.filled
        ]
        return {
            "backup": self.plan.backup.id,
            "volumes": volumes,
            "safety": self.safety.id if self.safety else None,
        }


def describe_rollback(touched: Sequence[RestoreTarget]) -> str:
    """Return in words what a rollback leaves."""
    parts = ", ".join(t.into for t in touched if t.adds)
    words = ["what was there is there again"] if not all(t.adds for t in touched) else []
    return "; ".join(
        [
            *words,
            *(
                [f"{parts}: what docker had left of it, and what was put back until then"]
                if parts
                else []
            ),
        ]
    )


def _make_verdict(target: RestoreTarget) -> Verdict:
    record = target.record
    # It may come from a label on the engine, which is not trusted.
    tier = Tier(record.tier) if record.tier in {t.value for t in Tier} else Tier.CRITICAL
    return Verdict(target.into, tier, "in the backup", record.data_kind, explicit=False)


def _tell_difference(target: RestoreTarget) -> None:
    now, record = target.current, target.record
    if not isinstance(now, Volume) or target.into != record.name:
        return
    if (now.driver, dict(now.options)) != (record.driver, dict(record.options)):
        terminal.say(
            f"safe-compose: {record.name} exists with another driver or other options than"
            " recorded; it keeps them"
        )
    if dict(now.labels) != dict(record.labels):
        terminal.say(
            f"safe-compose: {record.name} exists with other labels than recorded; it keeps them"
        )
