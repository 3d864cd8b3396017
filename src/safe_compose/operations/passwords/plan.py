"""The plan of a rotation: the files and services that a new password changes.

It is refused when a password cannot be changed safely.
"""

import os
import re
import secrets
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from safe_compose import credentials
from safe_compose.core.observed import Container
from safe_compose.core.text import shell_quote
from safe_compose.credentials import Survey, dotenv
from safe_compose.engine import Engine
from safe_compose.errors import Refused
from safe_compose.operations.passwords.inspect import RotationInspection
from safe_compose.operations.passwords.recreate import dry_run
from safe_compose.operations.stopped_containers import refuse_own
from safe_compose.system.project_files import FileChange
from safe_compose.workspace import Workspace

LENGTH = 32
"""The length of a generated password, whose letters and digits need no quoting anywhere."""
_DIVERGES = "doesn't match configuration in compose file"
_RECREATES = re.compile(r"Container (\S+)\s+Recreate$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Rotation:
    """A plan of everything that a rotation does."""

    inspection: RotationInspection
    new: str = field(repr=False)
    survey: Survey
    changes: tuple[FileChange, ...]
    first: tuple[str, ...]
    """The service of the database, if its container has to be recreated."""
    services: tuple[str, ...]
    """The other services whose containers have to be recreated."""
    scale: Mapping[str, int] = field(default_factory=dict)
    """Service -> the number of its running containers, where that is not one."""
    awaited: Mapping[str, str] = field(default_factory=dict)
    """Service -> `healthy` or `running`, its current state, which it must reach again.

    Nobody waits for a service that is neither.
    """
    sync: bool = False
    unencoded: tuple[str, ...] = ()
    """The places of connection strings that hold an unencoded password.

    Their clients read another password there.
    """

    @property
    def backed_up(self) -> str:
        """What is backed up first, in words."""
        server = self.inspection.server
        return (
            f"a dump of {server.volume}, a folder of the host"
            if server.in_folder
            else str(server.volume)
        )

    def lines(self) -> list[str]:
        """Return the plan as lines for people, with names and places but no values."""
        inspection, account = self.inspection, self.inspection.account
        lines = [
            f"database:   {account.user} at {inspection.container.name} ({inspection.server.title})"
        ]
        if self.sync:
            agrees = inspection.agrees
            lines.append(
                "password:   the one that the files say"
                + (
                    ": the database has it already"
                    if agrees
                    else "; the database has another one"
                    if agrees is False
                    else ""
                )
            )
        elif inspection.agrees is False:
            lines.append(
                "password:   the database does not have the one that the files say, so nothing can"
                " log in now"
            )
        for edit in self.survey.edits:
            lines.append(f"edits:      {edit.source.path}: {', '.join(edit.places)}")
        for service, places in self.survey.takers.items():
            lines.append(f"takes it:   {service}: {', '.join(places)}")
        lines.append(
            f"backup:     {self.backed_up}, hot, before anything changes; nothing is deleted"
        )
        if recreated := [*self.first, *self.services]:
            lines.append(f"recreated:  {', '.join(recreated)} (compose up -d --no-deps)")
        lines += [f"note:       {note}" for note in self.notes]
        return lines

    @property
    def notes(self) -> tuple[str, ...]:
        """Further remarks for people, one per line."""
        service = shell_quote(self.inspection.account.service)
        other = (
            "or take one that needs none of that: safe-compose rotate-password --generate"
            f" {service}"
        )
        raw = (
            f"{place} holds a password as it is, so its client reads another one: write it"
            f" {ENCODED}; {other}"
            for place in self.unencoded
        )
        return (*self.inspection.notes, *self.inspection.role.notes, *self.survey.notes, *raw)


def generate() -> str:
    """Return a new password that needs no quoting anywhere."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(LENGTH))


def plan(
    workspace: Workspace,
    inspection: RotationInspection,
    new: str,
    *,
    leave: frozenset[str],
    also: frozenset[str],
) -> Rotation:
    """Return the plan of everything that a new password changes.

    Args:
        workspace: The workspace.
        inspection: The inspection.
        new: The new password.
        leave: Keys and files that stay as they are.
        also: Keys and files that change even though nothing shows that the password in them is that
            of this account.

    Raises:
        Refused: It cannot be changed safely; the message has every reason.
    """
    _require_usable(inspection, new)
    choices = credentials.Choices(leave, also)
    survey = credentials.survey(
        inspection.model,
        inspection.raw,
        inspection.sources,
        inspection.account,
        new,
        exported=os.environ,
        choices=choices,
    )
    if survey.refusals:
        raise Refused(
            "; ".join(survey.refusals) + "; nothing was changed",
            next_step="correct that, then run the same command again",
        )
    by_text = {edit.source.path: edit for edit in survey.edits}
    changes = tuple(
        FileChange.of(path, edit.source.text, edit.text) for path, edit in by_text.items()
    )
    for change in changes:
        change.refuse_unless_possible()
    strangers = credentials.find_other_logins(inspection.model, inspection.account)
    notes = (
        *survey.notes,
        *(f"{place} logs in with another password already" for place in strangers),
        *_note_neighbours(workspace.engine, inspection),
    )
    touched = {*survey.takers, *survey.mounted, inspection.account.service}
    return _add_services(
        workspace,
        inspection,
        Rotation(inspection, new, replace(survey, notes=notes), changes, (), ()),
        touched,
    )


def _require_usable(inspection: RotationInspection, new: str) -> None:
    """Check that the new password is one that can be written to files, and another one.

    Raises:
        Refused: It is not.
    """
    if not new or not new.isprintable() or new != new.strip():
        raise Refused(
            "the new password is empty, has a blank at an end or holds control characters; nothing"
            " was changed"
        )
    if new == inspection.account.password:
        raise Refused(
            "that is the password that the files hold already; nothing was changed",
            next_step=_make_sync_command(inspection),
        )


ENCODED = (
    "percent-encoded in a URL (@ is %40, : is %3A, / is %2F, # is %23, ? is %3F, % is %25), within"
    " quotes elsewhere"
)


def _find_unencoded(inspection: RotationInspection) -> list[str]:
    """Return the places of connection strings that a password with special characters breaks."""
    entries = [
        (e.key, e.value)
        for source in inspection.sources
        if source.kind == "env"
        for e in dotenv.entries(source.text)
    ]
    return credentials.find_unencoded(
        inspection.model,
        [inspection.account.password, *credentials.collect_secrets(inspection.model, entries)],
    )


def _note_neighbours(engine: Engine, inspection: RotationInspection) -> Iterator[str]:
    """Yield a note for each container of another project that knows the database's password.

    Such a container shares a network with the database. Nobody changes its password.
    """
    networks = set(inspection.container.networks) - {"host", "none"}
    neighbours = [
        c
        for c in inspection.observed.containers
        if c.project != inspection.project and networks & set(c.networks)
    ]
    for other in neighbours:
        if keys := credentials.find_holders(
            inspection.model, inspection.account, engine.docker.private(other.id).environment
        ):
            whose = f" of project {other.project}" if other.project else ""
            yield (
                f"container {other.name}{whose} has the old password ({', '.join(keys)}) and keeps"
                " it: change it there"
            )


def plan_sync(workspace: Workspace, inspection: RotationInspection) -> Rotation:
    """Return the plan to change the database to the password of the files; no file is edited.

    Raises:
        Refused: Compose would delete a volume to recreate a container.
    """
    account = inspection.account
    survey = credentials.survey(
        inspection.model, inspection.raw, (), account, account.password, exported={}
    )
    strangers = credentials.find_other_logins(inspection.model, account)
    notes = tuple(
        f"{place} logs in with another password, and will still be refused" for place in strangers
    )
    touched = {
        c.service
        for c in inspection.observed.containers
        if c.project == inspection.project and c.service and c.lively
        if credentials.is_stale(
            inspection.model, account, c.service, workspace.engine.docker.private(c.id).environment
        )
    }
    found = Survey((), survey.takers, (), notes)
    rotation = Rotation(
        inspection,
        account.password,
        found,
        (),
        (),
        (),
        sync=True,
        unencoded=tuple(_find_unencoded(inspection)),
    )
    return _add_services(workspace, inspection, rotation, touched)


def _add_services(
    workspace: Workspace, inspection: RotationInspection, rotation: Rotation, touched: set[str]
) -> Rotation:
    """Add the touched services that run, the database first, and how many containers of each.

    Raises:
        Refused: Compose would want to delete a volume for it.
        OperationFailed: We run in one of the containers ourselves.
    """
    mine = [
        c
        for c in inspection.observed.containers
        if c.project == inspection.project and c.lively and c.service in touched
    ]
    refuse_own(mine)
    lively = [c.service for c in mine]
    own = inspection.account.service
    others = sorted({s for s in lively if s is not None and s != own})
    scale = {s: lively.count(s) for s in {*others, own} if lively.count(s) > 1}
    first = (own,) if own in lively else ()
    awaited = {
        s: state
        for s in (*first, *others)
        if (state := _find_common_state([c for c in mine if c.service == s]))
    }
    made = replace(rotation, first=first, services=tuple(others), scale=scale, awaited=awaited)
    recreated = [*made.first, *made.services]
    output = dry_run(workspace, inspection.invocation, recreated) if recreated else ""
    if _DIVERGES in output:
        raise Refused(
            "the compose file defines a volume otherwise than it was made, and compose would delete"
            " it to recreate it; nothing was changed",
            next_step="put its definition back, then run the same command again",
        )
    if not made.sync and (changed := sorted(set(_RECREATES.findall(output)))):
        note = (
            f"{', '.join(changed)}: the compose file says something else than it was made from,"
            " which takes effect as well"
        )
        made = replace(made, survey=replace(made.survey, notes=(*made.survey.notes, note)))
    return made


def _find_common_state(containers: Sequence[Container]) -> str | None:
    """Return the state that all containers of a service share: `healthy`, or else `running`.

    Returns:
        The state; None when they share neither, so that it cannot be waited for.
    """
    if all(c.health == "healthy" for c in containers):
        return "healthy"
    return "running" if all(c.state == "running" for c in containers) else None


def _make_sync_command(inspection: RotationInspection) -> str:
    return f"safe-compose rotate-password --sync {shell_quote(inspection.account.service)}"


# -- report ----------------------------------------------------------------------------------------


def report(rotation: Rotation, backup_id: str | None, *, done: bool) -> dict[str, Any]:
    """Return a plan and its result as JSON, with names and places but no values."""
    inspection, account = rotation.inspection, rotation.inspection.account
    return {
        "service": account.service,
        "role": account.user,
        "container": inspection.container.name,
        "sync": rotation.sync,
        "agreed_before": inspection.agrees,
        "files": [{"path": e.source.path, "places": list(e.places)} for e in rotation.survey.edits],
        "takers": {service: list(places) for service, places in rotation.survey.takers.items()},
        "made_anew": [*rotation.first, *rotation.services],
        "notes": list(rotation.notes),
        "unencoded": list(rotation.unencoded),
        "backup": backup_id,
        "done": done,
    }


def to_json(rotation: Rotation) -> dict[str, Any]:
    """Return a plan as JSON, with names and places but no values."""
    return report(rotation, None, done=False)
