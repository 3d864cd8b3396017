"""What a new password changes, or why it cannot be changed safely: files, services, and what is told of it."""

import os
import re
import secrets
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from safe_compose import consumers
from safe_compose.consumers import Survey
from safe_compose.edits import Change
from safe_compose.engine import Engine
from safe_compose.errors import Refused
from safe_compose.observed import Container
from safe_compose.rotate.anew import dry_run
from safe_compose.rotate.look import Looked
from safe_compose.world import World

LENGTH = 32
"""Letters and digits of a generated password: they need no quoting anywhere."""
_DIVERGES = "doesn't match configuration in compose file"
_RECREATES = re.compile(r"Container (\S+)\s+Recreate$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Rotation:
    """Everything that will be done."""

    looked: Looked
    new: str = field(repr=False)
    survey: Survey
    changes: tuple[Change, ...]
    first: tuple[str, ...]
    """The database's service, when its container has to be made anew."""
    services: tuple[str, ...]
    """The others that have to be."""
    scale: Mapping[str, int] = field(default_factory=dict)
    """Service -> containers that run of it, where that is not one."""
    awaited: Mapping[str, str] = field(default_factory=dict)
    """Service -> `healthy` or `running`, as it is now and has to be again. Nobody waits for one that is neither."""
    sync: bool = False

    @property
    def kept(self) -> str:
        """What is backed up first."""
        server = self.looked.server
        return f"a dump of {server.volume}, a folder of the host" if server.in_folder else str(server.volume)

    def lines(self) -> list[str]:
        """The plan as it is shown: names and places, no value."""
        looked, account = self.looked, self.looked.account
        lines = [f"database:   {account.user} at {looked.container.name} ({looked.server.title})"]
        if self.sync:
            agrees = looked.agrees
            lines.append(
                "password:   the one that the files say"
                + (": the database has it already" if agrees else "; the database has another one" if agrees is False else "")
            )
        elif looked.agrees is False:
            lines.append("password:   the database does not have the one that the files say, so nothing can log in now")
        for edit in self.survey.edits:
            lines.append(f"edits:      {edit.source.path}: {', '.join(edit.places)}")
        for service, places in self.survey.takers.items():
            lines.append(f"takes it:   {service}: {', '.join(places)}")
        lines.append(f"backup:     {self.kept}, hot, before anything changes; nothing is deleted")
        if anew := [*self.first, *self.services]:
            lines.append(f"made anew:  {', '.join(anew)} (compose up -d --no-deps)")
        lines += [f"note:       {note}" for note in (*looked.notes, *looked.role.notes, *self.survey.notes)]
        return lines


def generated() -> str:
    """A new password that needs no quoting anywhere."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(LENGTH))


def plan(world: World, looked: Looked, new: str, *, leave: frozenset[str], also: frozenset[str]) -> Rotation:
    """Everything that a new password changes. Raises Refused, with every reason, when one cannot be changed safely."""
    if not new or not new.isprintable() or new != new.strip():
        raise Refused("the new password is empty, has a blank at an end or holds control characters; nothing was changed")
    if new == looked.account.password:
        raise Refused("that is the password that the files hold already; nothing was changed", next_step=_sync_command(looked))
    survey = consumers.survey(
        looked.model, looked.raw, looked.sources, looked.account, new, exported=os.environ, leave=leave, also=also
    )
    if survey.refusals:
        raise Refused(
            "; ".join(survey.refusals) + "; nothing was changed", next_step="correct that, then run the same command again"
        )
    by_text = {edit.source.path: edit for edit in survey.edits}
    changes = tuple(Change.of(path, edit.source.text, edit.text) for path, edit in by_text.items())
    for change in changes:
        change.refuse_unless_possible()
    strangers = consumers.strangers(looked.model, looked.account)
    notes = (
        *survey.notes,
        *(f"{place} logs in with another password already" for place in strangers),
        *_neighbours(world.engine, looked),
    )
    touched = {*survey.takers, *survey.mounted, looked.account.service}
    return _with_services(world, looked, Rotation(looked, new, replace(survey, notes=notes), changes, (), ()), touched)


def _neighbours(engine: Engine, looked: Looked) -> Iterator[str]:
    """Containers of other projects that share a network with the database and know its password: nobody changes theirs."""
    networks = set(looked.container.networks) - {"host", "none"}
    beside = [c for c in looked.observed.containers if c.project != looked.project and networks & set(c.networks)]
    for other in beside:
        if keys := consumers.held_by(looked.model, looked.account, engine.private(other.id).environment):
            whose = f" of project {other.project}" if other.project else ""
            yield f"container {other.name}{whose} has the old password ({', '.join(keys)}) and keeps it: change it there"


def plan_sync(world: World, looked: Looked) -> Rotation:
    """The database follows the files: nothing is edited."""
    account = looked.account
    survey = consumers.survey(looked.model, looked.raw, (), account, account.password, exported={})
    strangers = consumers.strangers(looked.model, account)
    notes = tuple(f"{place} logs in with another password, and will still be refused" for place in strangers)
    touched = {
        c.service
        for c in looked.observed.containers
        if c.project == looked.project and c.service and c.lively
        if consumers.stale(looked.model, account, c.service, world.engine.private(c.id).environment)
    }
    rotation = Rotation(looked, account.password, Survey((), survey.takers, (), notes), (), (), (), sync=True)
    return _with_services(world, looked, rotation, touched)


def _with_services(world: World, looked: Looked, rotation: Rotation, touched: set[str]) -> Rotation:
    """Those of the touched services that run, the database first; how many containers of each. Raises Refused when compose
    would want to delete a volume for it."""
    mine = [c for c in looked.observed.containers if c.project == looked.project and c.lively and c.service in touched]
    lively = [c.service for c in mine]
    own = looked.account.service
    others = sorted({s for s in lively if s is not None and s != own})
    scale = {s: lively.count(s) for s in {*others, own} if lively.count(s) > 1}
    first = (own,) if own in lively else ()
    awaited = {s: state for s in (*first, *others) if (state := _state([c for c in mine if c.service == s]))}
    made = replace(rotation, first=first, services=tuple(others), scale=scale, awaited=awaited)
    anew = [*made.first, *made.services]
    said = dry_run(world, looked.invocation, anew) if anew else ""
    if _DIVERGES in said:
        raise Refused(
            "the compose file defines a volume otherwise than it was made, and compose would delete it to make it anew; nothing "
            "was changed",
            next_step="put its definition back, then run the same command again",
        )
    if not made.sync and (changed := sorted(set(_RECREATES.findall(said)))):
        note = f"{', '.join(changed)}: the compose file says something else than it was made from, which takes effect as well"
        made = replace(made, survey=replace(made.survey, notes=(*made.survey.notes, note)))
    return made


def _state(containers: Sequence[Container]) -> str | None:
    """What all containers of a service are: `healthy`, else `running`, else nothing that could be waited for."""
    if all(c.health == "healthy" for c in containers):
        return "healthy"
    return "running" if all(c.state == "running" for c in containers) else None


def _sync_command(looked: Looked) -> str:
    return f"safe-compose rotate-password --sync {looked.account.service}"


# -- telling -----------------------------------------------------------------------------------------------------------


def told(rotation: Rotation, backup_id: str | None, *, done: bool) -> dict[str, Any]:
    looked, account = rotation.looked, rotation.looked.account
    return {
        "service": account.service,
        "role": account.user,
        "container": looked.container.name,
        "sync": rotation.sync,
        "agreed_before": looked.agrees,
        "files": [{"path": e.source.path, "places": list(e.places)} for e in rotation.survey.edits],
        "takers": {service: list(places) for service, places in rotation.survey.takers.items()},
        "made_anew": [*rotation.first, *rotation.services],
        "notes": [*looked.notes, *looked.role.notes, *rotation.survey.notes],
        "backup": backup_id,
        "done": done,
    }


def shape(rotation: Rotation) -> dict[str, Any]:
    """What a plan is, as JSON: names and places, no value."""
    return told(rotation, None, done=False)
