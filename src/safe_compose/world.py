"""The outside things that one command of ours deals with, and how a road gets hold of them."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safe_compose import shim
from safe_compose.engine import Engine, Files
from safe_compose.engine import begin as begin_engine
from safe_compose.grammar import Invocation
from safe_compose.process import hold_standard_descriptors, new_id, utc_now

if TYPE_CHECKING:  # the rooms behind these are imported while docker and compose think about the first questions
    from safe_compose.catalogue import Catalogue
    from safe_compose.config import Settings
    from safe_compose.destination import Destination
    from safe_compose.journal import Journal
    from safe_compose.observed import Observed, Volume
    from safe_compose.policy import Rule, Verdict


class Begun(NamedTuple):
    """What is on its way before anything else is imported."""

    docker: str
    engine: Engine
    stdin: bytes | None


@dataclass(frozen=True, slots=True)
class World:
    """One engine, one store, one journal, and the settings that hold here."""

    docker: str
    """Path of the real client that runs the command: docker, or the standalone docker-compose."""
    engine: Engine
    catalogue: "Catalogue"
    journal: "Journal"
    settings: "Settings"
    folder: Path
    """Whose `safe-compose.toml` the settings hold."""
    stdin: bytes | None = None
    """What `-f -` had on stdin, read once: given to the probe and to docker."""

    @property
    def run_id(self) -> str:
        return self.engine.run_id

    def rules(self, observed: "Observed") -> "tuple[Rule, ...]":
        """Every explicit word that counts for what was found: of the project's own file, the user's, the registry.

        `-p NAME` and COMPOSE_PROJECT_NAME mean another project than the folder that we stand in: then the file beside that
        one's compose file counts, as far as its containers tell where that is. What this folder says of its own `data` says
        nothing of theirs.
        """
        return (*self._settings_of(observed).rules, *self.catalogue.protections())

    def _settings_of(self, observed: "Observed") -> "Settings":
        from safe_compose import config

        project = observed.project
        theirs = Path(project.working_dir) if project is not None and project.working_dir else None
        if project is not None and (theirs is None or theirs.resolve() != self.folder.resolve()):
            return config.load(theirs, dict(os.environ))
        return self.settings

    def safety(self, observed: "Observed") -> str:
        """What a deletion of what was found leaves: `backup`, `trash` or `both`. A copy elsewhere needs a backup."""
        said = self._settings_of(observed).safety
        return "both" if said == "trash" and self.required_copies(observed) else said

    def recipients(self, observed: "Observed") -> "tuple[str, ...]":
        """Whom a backup of what was found is encrypted for."""
        return self._settings_of(observed).recipients or self.settings.recipients

    def required_copies(self, observed: "Observed") -> "tuple[Destination, ...]":
        """The off-site destinations without whose copy nothing is deleted: of this folder's settings and of the project's."""
        both = (*self.settings.required_copies, *self._settings_of(observed).required_copies)
        return tuple({to.url: to for to in both}.values())

    def judge(self, volumes: Sequence["Volume"], observed: "Observed", rules: Sequence["Rule"]) -> "list[Verdict]":
        """The verdicts on volumes; content is read only where no word and no image rule knows one (design, section 5)."""
        from safe_compose import policy

        verdicts = [policy.judge(volume, observed, rules, None) for volume in volumes]
        contents = self.engine.list_roots([v.volume for v in verdicts if v.kind == "unknown" and not v.explicit])
        return [
            policy.judge(volume, observed, rules, contents[volume.name]) if volume.name in contents else verdict
            for volume, verdict in zip(volumes, verdicts, strict=True)
        ]

    def newest_verified(self) -> Mapping[str, str]:
        """Volume name -> id and level of its newest verified backup; another engine's volume of that name is another volume."""
        newest: dict[str, str] = {}
        for kept in self.catalogue.listed():
            if kept.verified and kept.engine_id == self.engine.id:
                for volume in kept.volumes:
                    newest.setdefault(volume, f"{kept.id} ({kept.level})")
        return newest

    def over_budget(self) -> str | None:
        """That the store holds more than `[store] max_size`, and how to see what could go; None while it does not."""
        from safe_compose import retention
        from safe_compose.plan import size_text

        budget = self.settings.max_size
        used = sum(kept.bytes for kept in self.catalogue.listed()) if budget is not None else 0
        command = retention.over_budget(used, budget, self.settings.retention)
        if budget is None or command is None:
            return None
        return f"the backups take {size_text(used)}, more than max_size ({size_text(budget)}); see what could go: {command}"


def begin(invocation: Invocation) -> Begun:
    """Ask docker and compose what will be needed of them, and wait for nothing: `enter` does. Raises DockerNotFound."""
    hold_standard_descriptors()
    docker = shim.runner(invocation.program)
    stdin = sys.stdin.buffer.read() if ("file", "-") in invocation.compose_flags else None
    standalone = invocation.program == "docker-compose"
    engine = begin_engine(
        shim.real_docker("docker") if standalone or shim.Place.plugin else docker,
        invocation.docker_globals,
        environ=dict(os.environ),
        run_id=new_id(utc_now()),
        compose=docker if standalone else None,
        invocation=invocation,
        stdin=stdin,
    )
    return Begun(docker, engine, stdin)


def enter(invocation: Invocation, begun: Begun | None = None) -> World:
    """The world that `invocation` would reach: the same engine by the same words, the store that its project configured.

    Raises DockerNotFound, ConfigError, or EngineUnavailable when the daemon cannot be inspected.
    """
    docker, engine, stdin = begun or begin(invocation)
    try:
        from safe_compose import config
        from safe_compose.catalogue import Catalogue
        from safe_compose.journal import Journal

        folder = project_folder(invocation)
        settings = config.load(folder, dict(os.environ))
        engine.open()
    except BaseException:
        engine.close()
        raise
    return World(
        docker,
        engine,
        Catalogue(settings.store, settings.access),
        Journal(settings.store, settings.access),
        settings,
        folder,
        stdin,
    )


def project_folder(invocation: Invocation) -> Path:
    """Where `safe-compose.toml` is looked for: the folder of the compose project that the words and variables name."""
    return Files(invocation, os.environ).working_dir
