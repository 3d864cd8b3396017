"""The workspace of one command: settings, engine, store and journal, opened together."""

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safe_compose.compose import first_query
from safe_compose.compose.files import Files
from safe_compose.compose.first_query import FirstQuery
from safe_compose.core.observed import WORKING_DIR_LABEL
from safe_compose.engine import Engine, read_declared_mounts
from safe_compose.engine import begin as begin_engine
from safe_compose.errors import SafeComposeError
from safe_compose.fastpath import launch
from safe_compose.grammar.parser import Invocation
from safe_compose.system.process import make_id, read_clock

# These packages are imported while docker and compose answer the first questions.
if TYPE_CHECKING:
    from safe_compose.core.backup_summary import BackupSummary
    from safe_compose.core.observed import Location, Observed
    from safe_compose.core.policy import Rule
    from safe_compose.settings.foreign_settings import ForeignSetting
    from safe_compose.settings.load import Settings
    from safe_compose.settings.project_folders import ProjectFolders
    from safe_compose.store.catalogue.catalogue import Catalogue
    from safe_compose.store.journal import Journal
    from safe_compose.store.protections import ProtectionStores


class StartedConnection(NamedTuple):
    """A connection to the engine whose first questions were sent before the other imports."""

    docker: str
    engine: Engine
    stdin: bytes | None


@dataclass(frozen=True, slots=True)
class Workspace:
    """An engine, a store and a journal, with the settings that apply to them."""

    docker: str
    """The path of the real client that runs the command: docker or a standalone docker-compose."""
    engine: Engine
    catalogue: "Catalogue"
    journal: "Journal"
    settings: "Settings"
    folder: Path
    """The folder whose `safe-compose.toml` is part of the settings."""
    stdin: bytes | None = None
    """The compose file that `-f -` read from stdin once, for the probe and for docker."""
    whole: "Settings | None" = None
    """The settings of this folder including everything its file says, approved by a person or not.

    None: these are `settings`.
    """
    irreplaceable: dict[str, str] = field(default_factory=dict, compare=False)
    """Volume -> what was found in it that argues against its being disposable."""
    searched: set[str] = field(default_factory=set, compare=False)
    """The volumes that were searched for such content."""

    @property
    def run_id(self) -> str:
        """The id of this run, which its helper containers carry as a label."""
        return self.engine.run_id

    @property
    def protections(self) -> "ProtectionStores":
        """The protections in the user's own store, whatever the settings of this folder say."""
        from safe_compose.store.protections import ProtectionStores

        return ProtectionStores.of(self.whole or self.settings)

    @property
    def own_store(self) -> Path:
        """The user's own store, for approvals: no file of a project can redirect it."""
        settings = self.whole or self.settings
        return (settings.personal or settings).store

    @property
    def own_catalogue(self) -> "Catalogue":
        """The catalogue of the user's own store."""
        from safe_compose.store.catalogue.catalogue import Catalogue

        settings = self.whole or self.settings
        return Catalogue.at(self.own_store, (settings.personal or settings).access)

    def rules(self, observed: "Observed") -> "tuple[Rule, ...]":
        """Return every explicit rule that applies to the observed state.

        Rules come from the project's own file, the user's and root's settings, and the registries
        of protections. With `-p NAME` or COMPOSE_PROJECT_NAME another project than that of the
        current folder can be meant: then the settings file next to that project's compose file
        applies, if its containers name its folder, and the rules of this folder for its own data do
        not apply.
        """
        from safe_compose.core.tier import Tier

        settings = self._find_settings(observed)
        rules = settings.rules
        if any(
            rule.own and not rule.only_raises and rule.tier is not Tier.CRITICAL for rule in rules
        ):
            name = self._find_name(observed)
            rules = tuple(replace(rule, project=name) if rule.own else rule for rule in rules)
        return (*rules, *self._scratch_rules(observed), *self.protections.rules())

    def _scratch_rules(self, observed: "Observed") -> "list[Rule]":
        """Return a rule for each unused volume that `restore --into scratch` of this store created.

        The label of such a volume proves nothing by itself, because anybody can write one. The
        journal does.
        """
        from safe_compose.core.observed import SCRATCH_LABEL
        from safe_compose.core.policy import Rule
        from safe_compose.core.tier import Tier

        claimed = [
            v for v in observed.volumes if SCRATCH_LABEL in v.labels and not observed.users(v.name)
        ]
        if not claimed:
            return []
        made = self.journal.volumes_made(self.engine.id)
        source = "the journal of restore --into scratch"
        return [Rule(v.name, Tier.DISPOSABLE, source) for v in claimed if v.name in made]

    def _find_settings(self, observed: "Observed") -> "Settings":
        """Return the settings of the folder of the observed project, as its files state them."""
        from safe_compose.settings import load
        from safe_compose.store import settings_approval
        from safe_compose.system.files import find_real_path

        here = self.whole or self.settings
        project = observed.project
        if project is None:
            return here
        folder = Path(project.working_dir) if project.working_dir else None
        if folder is not None and find_real_path(folder) == find_real_path(self.folder):
            return here
        found = load.load(folder, dict(os.environ))
        settings_approval.tell(found)
        return found

    def _find_name(self, observed: "Observed") -> str | None:
        """Return the name of the project that `_find_settings` describes, as compose resolves it.

        This is the name that the command means when it runs in the folder of that project, and
        otherwise the name that the folder itself has. A container's label names a folder and proves
        nothing.

        Returns:
            The name; None when there is none, or when the name belongs to another folder.
        """
        project = observed.project
        folder = self.folder if project is None else Path(project.working_dir or self.folder)
        files = project.config_files if project is not None else ()
        if project is not None and project.mode == "config":
            name: str | None = project.name
        else:
            name = _read_name(self.engine.docker.client, str(folder), files)
        return (
            None if name is None or self._find_first_folder(name, str(folder)) is not None else name
        )

    @property
    def _project_folders(self) -> "ProjectFolders":
        from safe_compose.settings.project_folders import ProjectFolders

        settings = self.whole or self.settings
        return ProjectFolders(
            settings.approved_in or self.own_store, (settings.personal or settings).access
        )

    def _find_first_folder(self, name: str, folder: str) -> str | None:
        """Return the other folder in which a project was first seen, and report it.

        Returns:
            The folder; None when the project is new, or known in this folder, or when a person has
                approved that it is in this folder as well.
        """
        from safe_compose.settings.project_folders import KnownFolder
        from safe_compose.store import settings_approval

        real = os.path.realpath(folder)
        known = self._project_folders.of(self.engine.id, name)
        if known is None or known == real:
            return None
        if not settings_approval.is_waiting(
            self.whole or self.settings,
            KnownFolder(self.engine.id, name, known).make_setting(real),
        ):
            return None
        settings_approval.say_once(
            f"safe-compose: project {name} was first seen in {known}: what the files in {real} say"
            " lowers and redirects nothing of its volumes. If it is this folder's too, a person"
            f" types there: {settings_approval.COMMAND}"
        )
        return known

    def note_folders(self, observed: "Observed", deleted: "Collection[str]" = ()) -> None:
        """Record the folder of each project with volumes, where it is unknown.

        Containers or the command name that folder. Projects whose last volume is among `deleted`
        are forgotten.
        """
        seen: dict[str, set[str]] = {}
        for container in observed.containers:
            if container.project and (folder := container.labels.get(WORKING_DIR_LABEL)):
                seen.setdefault(container.project, set()).add(os.path.realpath(folder))
        project = observed.project
        if project is not None and project.mode == "config" and project.working_dir:
            seen.setdefault(project.name, {os.path.realpath(project.working_dir)})
        staying = {v.project for v in observed.volumes if v.project and v.name not in deleted}
        records = self._project_folders
        for name in sorted(
            {v.project for v in observed.volumes if v.project and v.name in deleted} - staying
        ):
            records.forget(self.engine.id, name)
        new = [
            (n, *seen[n])
            for n in sorted(staying & seen.keys())
            if len(seen[n]) == 1 and records.of(self.engine.id, n) is None
        ]
        if not new:
            return
        with suppress(SafeComposeError):  # an unusable store is reported by whatever needs it
            self.own_catalogue.folder.ensure()
            for name, folder in new:
                records.note(self.engine.id, name, folder)

    def settings_for(self, observed: "Observed", locations: "Sequence[Location]") -> "Settings":
        """Return the settings that apply to these locations, approved by a person or not.

        The redirections, encryption and retention of a project's file apply only when every volume
        is the project's own. Otherwise the user's own settings apply, and this is reported.
        """
        settings = self._find_settings(observed)
        if (
            settings.personal is None
            or not locations
            or not (others := self._list_not_own(observed, locations))
        ):
            return settings
        from safe_compose.store import settings_approval

        are = "is" if len(others) == 1 else "are"
        settings_approval.say_once(
            f"safe-compose: {settings.project_file}: {', '.join(settings.project_keys)} not obeyed:"
            f" {', '.join(others)} {are} not the project's own, by its label and its users; your"
            " own settings hold"
        )
        return settings.personal

    def list_not_own(self, observed: "Observed", locations: "Sequence[Location]") -> frozenset[str]:
        """Return the locations to which the user's own settings apply, not the project's file.

        Returns:
            The names; none when that file does not say where and how backups are kept.
        """
        settings = self._find_settings(observed)
        if settings.personal is None:
            return frozenset()
        return frozenset(self._list_not_own(observed, locations))

    def for_locations(
        self, observed: "Observed", locations: "Sequence[Location]", doing: str
    ) -> "Workspace":
        """Return this workspace with the settings of these locations and the store they name.

        Args:
            observed: The state of the engine.
            locations: The locations in question.
            doing: What was not done, for the message of a refusal.

        Raises:
            Refused: A person must first approve part of the settings (exit code 77).
        """
        from safe_compose.store import settings_approval

        settings = self.settings_for(observed, locations)
        settings_approval.require(settings, doing)
        return self.with_settings(settings)

    def with_settings(self, settings: "Settings") -> "Workspace":
        """Return this workspace with other settings, and the store and journal that they name."""
        from safe_compose.store.catalogue.catalogue import Catalogue
        from safe_compose.store.journal import Journal

        return replace(
            self,
            settings=settings,
            whole=self.whole or self.settings,
            catalogue=Catalogue.at(settings.store, settings.access),
            journal=Journal(settings.store, settings.access),
        )

    def _list_not_own(self, observed: "Observed", locations: "Sequence[Location]") -> list[str]:
        """Return the locations that are not the project's: without its label, or used by others.

        An anonymous volume has no label. It is the project's if only the project's containers use
        it.
        """
        from safe_compose.core import policy

        name = self._find_name(observed)
        return [
            v.name
            for v in locations
            if name is None
            or not policy.is_own(policy.add_label_of_users(v, observed), observed, name)
        ]

    def trusting(self, observed: "Observed") -> "Observed":
        """Return the observed state, marked where `x-safe-compose` may only raise a tier.

        That is the case when others can have written one of the compose files.
        """
        project = observed.project
        if (
            project is not None
            and project.working_dir
            and (known := self._find_first_folder(project.name, project.working_dir))
        ):
            project = replace(project, elsewhere=known)
            observed = replace(observed, project=project)
        if (
            project is None
            or project.distrust is not None
            or (project.tier is None and all(v.tier is None for v in project.volumes))
        ):
            return observed
        from safe_compose.settings import load
        from safe_compose.store import settings_approval

        why = load.explain_distrust([Path(file) for file in project.config_files], dict(os.environ))
        if project.unseen_files and why is None:
            why = "a compose file is at a git or OCI address"
        if why is None:
            return observed
        settings_approval.say_once(
            f"safe-compose: x-safe-compose is not obeyed ({why}); only what raises a tier there"
            " counts"
        )
        return replace(observed, project=replace(project, distrust=why))

    def find_newest(self) -> "Mapping[str, BackupSummary]":
        """Return volume -> its newest verified backup on this engine.

        A volume with the same name on another engine is another volume.
        """
        newest: dict[str, BackupSummary] = {}
        for backup in self.catalogue.reader.list_summaries():
            if backup.counts and backup.engine_id == self.engine.id:
                for volume in backup.volumes:
                    newest.setdefault(volume, backup)
        return newest

    def newest_verified(self) -> Mapping[str, str]:
        """Return volume -> id and level of its newest verified backup on this engine."""
        return {
            name: f"{backup.id} ({backup.level})" for name, backup in self.find_newest().items()
        }


def begin(invocation: Invocation, query: FirstQuery | None = None) -> StartedConnection:
    """Ask docker the first questions without waiting for the answers.

    `open_workspace` waits for them.

    Args:
        invocation: The command.
        query: What compose was asked about it, dropped on any exception; by default a new one, for
            a verb of safe-compose.

    Raises:
        DockerNotFound: There is no real docker.
        Refused: Compose would read something that can be read only once.
    """
    query = query or first_query.begin(invocation, guarded=False)
    docker = query.docker
    standalone = invocation.program == "docker-compose"
    try:
        engine = begin_engine(
            launch.find_docker("docker") if standalone or launch.LaunchContext.plugin else docker,
            invocation.docker_globals,
            environ=dict(os.environ),
            run_id=make_id(read_clock()),
            compose=docker if standalone else None,
            query=query,
        )
    except BaseException:
        query.drop()
        raise
    return StartedConnection(docker, engine, query.inputs.stdin)


def open_workspace(
    invocation: Invocation, begun: StartedConnection | None = None, *, guarded: bool = False
) -> Workspace:
    """Open the workspace that `invocation` would reach: the same engine, and the project's store.

    Settings that wait for a person's approval are left out, which is reported.

    Args:
        invocation: The command whose words choose engine and project.
        begun: The connection that `begin` started; by default a new one.
        guarded: The guard itself reports which settings are left out.

    Raises:
        DockerNotFound: There is no real docker.
        ConfigError: A settings file cannot be read.
        EngineUnavailable: The daemon cannot be inspected.
    """
    docker, engine, stdin = begun or begin(invocation)
    try:
        from safe_compose.settings import load
        from safe_compose.store import settings_approval
        from safe_compose.store.catalogue.catalogue import Catalogue
        from safe_compose.store.journal import Journal
        from safe_compose.store.mark_key import mark_key

        folder = project_folder(invocation)
        whole = load.load(folder, dict(os.environ))
        engine.open()
        settings_approval.tell(whole)
        settings = settings_approval.reduce_to_approved(whole, silent=guarded)
        own = whole.personal or whole
        begin_store = (
            None if invocation.own.explain else Catalogue.at(own.store, own.access).folder.ensure
        )
        engine.mark_key = cache(partial(mark_key, own.store, own.access, begin_store))
    except BaseException:
        engine.close()
        raise
    return Workspace(
        docker,
        engine,
        Catalogue.at(settings.store, settings.access),
        Journal(settings.store, settings.access),
        settings,
        folder,
        stdin,
        whole,
    )


def find_claimed_projects(settings: "Settings", folder: Path) -> "tuple[ForeignSetting, ...]":
    """Return what must be approved for projects of this folder that were first seen elsewhere.

    Until a person does so, what the files of this folder lower and redirect does not apply to them.
    """
    from safe_compose.settings.project_folders import ProjectFolders

    own = settings.personal or settings
    name, real = _read_name(launch.find_docker("docker"), str(folder), ()), os.path.realpath(folder)
    seen = (
        ProjectFolders(settings.approved_in or own.store, own.access).all(name)
        if name is not None
        else ()
    )
    return tuple(one.make_setting(real) for one in seen if one.folder != real)


@cache
def _read_name(docker: str, folder: str, files: tuple[str, ...]) -> str | None:
    """Return the project name that the compose files of a folder have there; None without one."""
    words = [word for file in files for word in ("--file", file)]
    return read_declared_mounts((docker, "compose", *words), dict(os.environ), folder)[0] or None


def project_folder(invocation: Invocation) -> Path:
    """Return the folder of the compose project that the command and the environment name.

    `safe-compose.toml` is looked for there.
    """
    return Files(invocation, os.environ).working_dir
