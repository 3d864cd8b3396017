"""What the user's and the project's TOML files say: which volumes matter, where backups live, how much time they may take.

The user's file, `$XDG_CONFIG_HOME/safe-compose/config.toml` (else `~/.config/...`):

    [volumes]                        # volume name, compose key or pattern = "critical" | "important" | "disposable"
    "*_cache" = "disposable"
    [projects]                       # project name or pattern = tier of all its volumes
    "ci-*" = "disposable"
    [store]
    path = "~/backups"               # absolute, or below the home folder
    max_size = "50GiB"               # a budget that warns; nothing is ever deleted to make room
    shared = false                   # true: readable and writable for the folder's group (2770, 0660)
    [backup]
    trial_limit = "1GiB"             # up to this size a backup is also restored and started on trial; 0: never
    stop_timeout = 120               # seconds that a database gets to stop cleanly; also "2m"
    patience = "3m"                  # a backup that would take longer is said so before
    safety = "backup"                # "trash" and "both" are the other choices

The project's `safe-compose.toml`, beside its compose file, takes the same except `[projects]`; instead of that one

    [project]
    tier = "disposable"              # of every volume of this project

and a relative `store.path` is meant from the file's folder. The project's `[store]` and `[backup]` go before the user's;
of the tiers the strictest word wins. An unknown key is a fault.
"""

import math
import os
import pwd
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError

from safe_compose.durable import PRIVATE, SHARED, Access
from safe_compose.errors import ConfigError
from safe_compose.policy import Rule, Tier

PROJECT_FILE = "safe-compose.toml"
GIB = 1 << 30
LARGEST_FILE = 1 << 20
"""Bytes; a settings file above that is not one."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the files and the environment decide, with defaults filled in."""

    store: Path
    """Absolute. Where backups, journal and protections live."""
    store_configured: bool = False
    """SAFE_COMPOSE_HOME or a file named the store: somebody thought about whether it outlives this machine."""
    access: Access = PRIVATE
    """Modes and owner of what is written to the store."""
    rules: tuple[Rule, ...] = ()
    max_size: int | None = None
    """Bytes."""
    trial_limit: int = GIB
    """Bytes of data up to which a backup is tried (L4)."""
    stop_timeout: int = 120
    """Seconds."""
    patience: int = 180
    """Seconds."""
    safety: str = "backup"
    """`backup`, `trash` or `both`."""
    files: tuple[Path, ...] = ()
    """What was read."""


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


_Tier = Annotated[Tier, BeforeValidator(_tier)]
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


class _Project(_Strict):
    tier: _Tier | None = None


class _Common(_Strict):
    volumes: dict[_Name, _Tier] = {}
    store: _Store = _Store()
    backup: _Backup = _Backup()


class _UserFile(_Common):
    projects: dict[_Name, _Tier] = {}


class _ProjectFile(_Common):
    project: _Project = _Project()


Model = TypeVar("Model", _UserFile, _ProjectFile)


def load(project_dir: Path | None, environ: Mapping[str, str], *, uid: int | None = None) -> Settings:
    """Read what the two files and the environment say.

    project_dir: the folder of the compose file, where `safe-compose.toml` is looked for; None: no project.
    uid: who runs (for tests; default the effective user). Root under sudo reads the invoking user's file and uses the
    invoking user's store, which stays theirs.
    Raises ConfigError that lists every fault of every file.
    """
    uid = os.geteuid() if uid is None else uid
    invoker = _invoker(environ) if uid == 0 else None
    faults: list[str] = []
    user_path = _base(environ, invoker, "XDG_CONFIG_HOME", ".config") / "safe-compose" / "config.toml"
    user = _read(user_path, _UserFile, faults)
    project_path = Path(os.path.abspath(project_dir)) / PROJECT_FILE if project_dir is not None else None  # noqa: PTH100
    project = _read(project_path, _ProjectFile, faults) if project_path is not None else None
    home = _home(environ, invoker)
    found: list[tuple[Path, _UserFile | _ProjectFile]] = []  # the one that goes before the other first
    if project_path is not None and project is not None:
        found.append((project_path, project))
    if user is not None:
        found.append((user_path, user))
    stores = [store for path, model in found if (store := _store_of(path, model, home, faults)) is not None]
    if faults:
        raise ConfigError(
            "\n".join([f"{len(faults)} fault(s) in the settings:", *(f"  {fault}" for fault in faults)]),
            next_step="correct them; without them safe-compose cannot know which volumes matter",
        )
    named = environ.get("SAFE_COMPOSE_HOME", "")
    if named:
        store = Path(os.path.abspath(named))  # noqa: PTH100  (`..` goes, symbolic links stay)
    else:
        store = stores[0] if stores else _base(environ, invoker, "XDG_DATA_HOME", ".local/share") / "safe-compose"
    shared = next((m.store.shared for _, m in found if m.store.shared is not None), False)
    owner = (invoker.pw_uid, invoker.pw_gid) if invoker is not None else None
    base = SHARED if shared else PRIVATE
    backups = [model.backup for _, model in found]
    return Settings(
        store=store,
        store_configured=bool(named or stores),
        access=Access(base.folders, base.files, owner),
        rules=tuple(rule for path, model in found for rule in _rules(path, model)),
        max_size=next((m.store.max_size for _, m in found if m.store.max_size is not None), None),
        trial_limit=next((b.trial_limit for b in backups if b.trial_limit is not None), GIB),
        stop_timeout=next((b.stop_timeout for b in backups if b.stop_timeout is not None), 120),
        patience=next((b.patience for b in backups if b.patience is not None), 180),
        safety=next((b.safety for b in backups if b.safety is not None), "backup"),
        files=tuple(path for path, _ in found),
    )


def _invoker(environ: Mapping[str, str]) -> pwd.struct_passwd | None:
    """Who called sudo; None when nobody did, or when it was root."""
    name = environ.get("SUDO_USER", "")
    try:
        found = pwd.getpwnam(name) if name else None
    except KeyError:
        return None
    return found if found is not None and found.pw_uid != 0 else None


def _home(environ: Mapping[str, str], invoker: pwd.struct_passwd | None) -> Path:
    if invoker is not None:
        return Path(invoker.pw_dir)
    home = environ.get("HOME", "")
    return Path(home) if home.startswith("/") else Path(pwd.getpwuid(os.getuid()).pw_dir)


def _base(environ: Mapping[str, str], invoker: pwd.struct_passwd | None, variable: str, default: str) -> Path:
    """A base folder of the XDG specification (a relative one counts as unset), always from the environment that is given.

    Under sudo the variables are root's, whatever they say, so that the invoking user's own default counts.
    """
    value = environ.get(variable, "") if invoker is None else ""
    return Path(value) if value.startswith("/") else _home(environ, invoker) / default


def _read(path: Path, model: type[Model], faults: list[str]) -> Model | None:
    """One file, or None when there is none or it has faults (which are then added)."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return None  # something of the way there is a file: so there is no settings file
    except OSError as error:
        faults.append(f"{path}: cannot be read: {error.strerror or error}")
        return None
    if len(data) > LARGEST_FILE:
        faults.append(f"{path}: is larger than {LARGEST_FILE} bytes")
        return None
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        faults.append(f"{path}: is not UTF-8 (byte {error.start})")
        return None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        faults.append(f"{path}: is not TOML: {error}")
        return None
    try:
        return model.model_validate(table)
    except ValidationError as error:
        faults.extend(f"{path}: {_key(fault['loc'])}: {_words(fault['type'], fault['msg'])}" for fault in error.errors())
        return None


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location if part != "[key]")


def _words(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "string_too_short":
        return "must not be empty"
    return message.removeprefix("Value error, ")


def _store_of(path: Path, model: _Common, home: Path, faults: list[str]) -> Path | None:
    named = model.store.path
    if named is None:
        return None
    if named == "~" or named.startswith("~/"):
        return home / named[2:]
    if named.startswith("/"):
        return Path(os.path.normpath(named))
    if isinstance(model, _ProjectFile) and not named.startswith("~"):
        return Path(os.path.normpath(path.parent / named))
    faults.append(f"{path}: store.path: must begin with / or ~/")
    return None


def _rules(path: Path, model: _UserFile | _ProjectFile) -> list[Rule]:
    own = isinstance(model, _ProjectFile)
    name = PROJECT_FILE if own else str(path)
    rules = [Rule(pattern, tier, f"{name}: volumes.{pattern}", own=own) for pattern, tier in model.volumes.items()]
    if isinstance(model, _ProjectFile):
        if model.project.tier is not None:
            rules.append(Rule("*", model.project.tier, f"{name}: project.tier", of_project=True, own=True))
    else:
        rules += [Rule(p, tier, f"{name}: projects.{p}", of_project=True) for p, tier in model.projects.items()]
    return rules
