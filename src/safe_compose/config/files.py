"""One settings file: its TOML, what its keys may hold, and every fault in it."""

import math
import re
import tomllib
from dataclasses import dataclass
from datetime import timedelta
from os.path import normpath
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from safe_compose import destination
from safe_compose.policy import Rule, Tier
from safe_compose.retention import Policy, span


@dataclass(frozen=True, slots=True)
class Words:
    """What one file says; None for what it leaves out. Units as in `Settings`."""

    path: Path
    rules: tuple[Rule, ...]
    store: Path | None
    shared: bool | None
    max_size: int | None
    trial_limit: int | None
    stop_timeout: int | None
    patience: int | None
    safety: str | None
    method: str | None
    retention: Policy | None
    recipients: tuple[str, ...]
    identity: Path | None
    offsite: tuple[destination.Destination, ...]
    webhook: str | None


_UNITS = {"": 1, "b": 1} | {
    f"{letter}{tail}": base**power
    for power, letter in enumerate("kmgtp", start=1)
    for tail, base in (("", 1000), ("b", 1000), ("ib", 1024), ("i", 1024))
}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def _bytes(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip().lower(), re.ASCII) if isinstance(value, str) else None
    if match is None or match[2] not in _UNITS:
        raise ValueError('a size is a number of bytes or a text such as "500MB" or "1.5GiB"')
    return int(float(match[1]) * _UNITS[match[2]]) if "." in match[1] else int(match[1]) * _UNITS[match[2]]


def _budget(value: object) -> int:
    if (size := _bytes(value)) == 0:
        raise ValueError("a budget of 0 would allow no backup at all; leave the key out for no budget")
    return size


def _duration(value: object) -> int:
    seconds: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    elif isinstance(value, str) and (match := re.fullmatch(r"(\d+)\s*([smh]?)", value.strip().lower(), re.ASCII)):
        seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds is None or not 0 < seconds <= 86400:  # NaN compares false
        raise ValueError('a time is a number of seconds or a text such as "90s" or "3m", above 0 and at most a day')
    return math.ceil(seconds)


def _tier(value: object) -> Tier:
    if isinstance(value, str) and value in [t.value for t in Tier]:
        return Tier(value)
    raise ValueError('a tier is "critical", "important" or "disposable"')


def _within(value: object) -> timedelta:
    found = span(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('an age is a text such as "48h", "14d" or "8w", above 0 and at most 100 years')
    return found


def _address(value: object) -> str:
    """Its text may hold a secret: no message repeats it."""
    if isinstance(value, str) and re.fullmatch(r"https?://[^\s/?#]+([/?][!-~]*)?", value, re.ASCII):
        return value
    raise ValueError("a web address begins with https:// or http:// and has no blanks")


_Tier = Annotated[Tier, BeforeValidator(_tier)]
_Count = Annotated[int, Field(ge=1, le=100_000)]
_Name = Annotated[str, StringConstraints(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Store(_Strict):
    path: _Name | None = None
    max_size: Annotated[int, BeforeValidator(_budget)] | None = None
    shared: bool | None = None


class _Backup(_Strict):
    trial_limit: Annotated[int, BeforeValidator(_bytes)] | None = None
    stop_timeout: Annotated[int, BeforeValidator(_duration)] | None = None
    patience: Annotated[int, BeforeValidator(_duration)] | None = None
    safety: Literal["backup", "trash", "both"] | None = None
    method: Literal["dump", "physical"] | None = None


class _Retention(_Strict):
    keep_last: _Count | None = None
    keep_daily: _Count | None = None
    keep_weekly: _Count | None = None
    keep_monthly: _Count | None = None
    keep_within: Annotated[timedelta, BeforeValidator(_within)] | None = None

    def policy(self) -> Policy | None:
        policy = Policy(
            last=self.keep_last or 0,
            daily=self.keep_daily or 0,
            weekly=self.keep_weekly or 0,
            monthly=self.keep_monthly or 0,
            within=self.keep_within,
        )
        return None if policy.empty else policy


class _Offsite(_Strict):
    url: _Name
    required: bool = False
    endpoint: _Name | None = None
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")] | None = None


_Recipient = Annotated[str, StringConstraints(pattern=r"^(age1[0-9a-z]{20,3000}|ssh-(ed25519|rsa) [A-Za-z0-9+/=]+( [^\r\n]*)?)$")]


class _Encrypt(_Strict):
    recipients: list[_Recipient] = []
    identity: _Name | None = None


class _Schedule(_Strict):
    webhook: Annotated[str, BeforeValidator(_address)] | None = None


class _Project(_Strict):
    tier: _Tier | None = None


class _Common(_Strict):
    volumes: dict[_Name, _Tier] = {}
    store: _Store = _Store()
    backup: _Backup = _Backup()
    retention: _Retention = _Retention()
    encrypt: _Encrypt = _Encrypt()
    schedule: _Schedule = _Schedule()
    offsite: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")], _Offsite] = {}


class _UserFile(_Common):
    projects: dict[_Name, _Tier] = {}


class _ProjectFile(_Common):
    project: _Project = _Project()


def parse(path: Path, data: bytes, home: Path, faults: list[str], *, own: bool) -> Words | None:
    """The bytes of the user's file, or of the project's (`own`). None when it has faults, which are then added.

    home: what `~` means.
    """
    try:
        table = tomllib.loads(data.decode("utf-8").removeprefix("\ufeff"))  # some editors begin with a BOM
    except UnicodeDecodeError as error:
        faults.append(f"{path}: is not UTF-8 (byte {error.start})")
        return None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        faults.append(f"{path}: is not TOML: {error}")
        return None
    try:
        model = (_ProjectFile if own else _UserFile).model_validate(table)
        store = _place(path, model, model.store.path, home, "store.path")
        identity = _place(path, model, model.encrypt.identity, home, "encrypt.identity")
    except ValidationError as error:
        faults.extend(f"{path}: {_key(fault['loc'])}: {_words(fault['type'], fault['msg'])}" for fault in error.errors())
        return None
    except ValueError as error:
        faults.append(f"{path}: {error}")
        return None
    copies = _offsite(path, model, faults)
    if copies is None:
        return None
    kept = model.backup
    return Words(
        path=path,
        rules=tuple(_rules(path, model)),
        store=store,
        shared=model.store.shared,
        max_size=model.store.max_size,
        trial_limit=kept.trial_limit,
        stop_timeout=kept.stop_timeout,
        patience=kept.patience,
        safety=kept.safety,
        method=kept.method,
        retention=model.retention.policy(),
        recipients=tuple(model.encrypt.recipients),
        identity=identity,
        offsite=copies,
        webhook=model.schedule.webhook,
    )


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location if part != "[key]")


def _words(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "string_too_short":
        return "must not be empty"
    return message.removeprefix("Value error, ")


def _place(path: Path, model: _Common, named: str | None, home: Path, key: str) -> Path | None:
    """Raises ValueError for a path that means another place in each folder."""
    if named is None:
        return None
    if named == "~" or named.startswith("~/"):
        return home / named[2:]
    if named.startswith("/"):
        return Path(normpath(named))
    if isinstance(model, _ProjectFile) and not named.startswith("~"):
        return Path(normpath(path.parent / named))
    raise ValueError(f"{key}: must begin with / or ~/")


def _offsite(path: Path, model: _Common, faults: list[str]) -> tuple[destination.Destination, ...] | None:
    """The destinations; None when one of them has a fault, which is then added without the URL: it may hold a password."""
    found = []
    for name, said in model.offsite.items():
        try:
            found.append(destination.parse(name, said.url, endpoint=said.endpoint, region=said.region, required=said.required))
        except ValueError as error:
            faults.append(f"{path}: offsite.{name}: {error}")
    return tuple(found) if len(found) == len(model.offsite) else None


def _rules(path: Path, model: _Common) -> list[Rule]:
    own = isinstance(model, _ProjectFile)
    name = path.name if own else str(path)
    rules = [Rule(pattern, tier, f"{name}: volumes.{pattern}", own=own) for pattern, tier in model.volumes.items()]
    if isinstance(model, _ProjectFile) and model.project.tier is not None:
        rules.append(Rule("*", model.project.tier, f"{name}: project.tier", of_project=True, own=True))
    if isinstance(model, _UserFile):
        rules += [Rule(p, tier, f"{name}: projects.{p}", of_project=True) for p, tier in model.projects.items()]
    return rules
