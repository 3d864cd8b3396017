"""One settings file: its TOML, the rules for its values, and all of its errors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from glob import escape
from os.path import normpath
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)

from safe_compose.core import destination
from safe_compose.core.policy import Rule
from safe_compose.core.retention import Policy
from safe_compose.core.tier import Tier
from safe_compose.core.toml import parse_toml
from safe_compose.settings import values
from safe_compose.system.files import find_real_path


@dataclass(frozen=True, slots=True)
class FileSettings:
    """The values of one settings file; None for a missing one.

    Units as in `Settings`.
    """

    path: Path
    rules: tuple[Rule, ...]
    store: Path | None
    shared: bool | None
    max_size: int | None
    trial_limit: int | None
    max_folder: int | None
    stop_timeout: int | None
    patience: int | None
    safety: str | None
    method: str | None
    retention: Policy | None
    recipients: tuple[str, ...]
    identity: Path | None
    offsite: tuple[destination.Destination, ...]
    webhook: str | None
    inside: str | None
    """`ask`, `note` or `off`."""
    layers: str | None
    """`ask`, `tell` or `off`."""
    must_back_up: bool = False
    """Whether `[require] backup` is set, in the policy alone; the next field likewise."""
    must_guard: bool = False
    keys: tuple[str, ...] = ()
    """Its sections besides tiers and retention."""
    obeyed: bool = True
    """False: other users can have written it, so only its tiers are left, which can only raise."""

    def raising(self) -> "FileSettings":
        """Return the part of a file that counts when the file is not obeyed."""
        rules = tuple(replace(rule, only_raises=True) for rule in self.rules)
        nothing: dict[str, Any] = dict.fromkeys(self.__dataclass_fields__)
        return FileSettings(
            **nothing
            | {
                "path": self.path,
                "rules": rules,
                "recipients": (),
                "offsite": (),
                "inside": self.inside if self.inside == "ask" else None,
                "layers": self.layers if self.layers == "ask" else None,
                "keys": (),
                "obeyed": False,
            }
        )


_SECTIONS = ("store", "backup", "encrypt", "offsite", "schedule")
"""Those of a file besides tiers and retention."""
_LONGEST_PATH = 4096

_Tier = Annotated[Tier, BeforeValidator(values.parse_tier)]


def _describe_either(number: dict[str, object], pattern: str) -> WithJsonSchema:
    """Describe a number or a text in the JSON Schema (`docs/schema`)."""
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": pattern}]})


def _text(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


_SIZE = r"^\s*[0-9]+(\.[0-9]+)?\s*([kKmMgGtTpP]([iI]?[bB]?)|[bB])?\s*$"
_Bytes = Annotated[
    int,
    BeforeValidator(values.parse_bytes),
    _describe_either({"type": "integer", "minimum": 0}, _SIZE),
]
_Budget = Annotated[
    int,
    BeforeValidator(values.parse_budget),
    _describe_either({"type": "integer", "minimum": 1}, _SIZE),
]
_Seconds = Annotated[
    int,
    BeforeValidator(values.parse_duration),
    _describe_either(
        {"type": "number", "exclusiveMinimum": 0, "maximum": 86400},
        r"^\s*[0-9]{1,9}\s*[smhSMH]?\s*$",
    ),
]
_Age = Annotated[timedelta, BeforeValidator(values.parse_age), _text(r"^\s*[0-9]{1,7}[hdwHDW]\s*$")]
_WebAddress = Annotated[
    str, BeforeValidator(values.parse_address), _text(r"^https?://[^\s/?#]+([/?][!-~]*)?$")
]
_Count = Annotated[int, Field(ge=1, le=100_000)]
_Name = Annotated[str, StringConstraints(min_length=1)]


_Model = TypeVar("_Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Store(_Strict):
    path: _Name | None = None
    max_size: _Budget | None = None
    shared: bool | None = None


class _Backup(_Strict):
    trial_limit: _Bytes | None = None
    max_folder: _Bytes | None = None
    stop_timeout: _Seconds | None = None
    patience: _Seconds | None = None
    safety: Literal["backup", "trash", "both"] | None = None
    method: Literal["dump", "physical"] | None = None


class _Retention(_Strict):
    keep_last: _Count | None = None
    keep_daily: _Count | None = None
    keep_weekly: _Count | None = None
    keep_monthly: _Count | None = None
    keep_within: _Age | None = None

    def policy(self) -> Policy | None:
        """Return the retention policy, or None for an empty one."""
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
    signed: bool = False
    verify_key: list[Annotated[str, BeforeValidator(values.parse_public_key)]] = []


_OffsiteName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
_Recipient = Annotated[
    str,
    StringConstraints(
        pattern=r"^(age1[0-9a-z]{20,3000}|ssh-(ed25519|rsa) [A-Za-z0-9+/=]+( [^\r\n]*)?)$"
    ),
]


class _Encrypt(_Strict):
    recipients: list[_Recipient] = []
    identity: _Name | None = None


class _Schedule(_Strict):
    webhook: _WebAddress | None = None


class _Hook(_Strict):
    inside: Literal["ask", "note", "off"] | None = None


class _Guard(_Strict):
    layers: Literal["ask", "tell", "off"] | None = None


class _Project(_Strict):
    tier: _Tier | None = None


class _Common(_Strict):
    volumes: dict[_Name, _Tier] = {}
    folders: dict[_Name, _Tier] = {}
    store: _Store = _Store()
    backup: _Backup = _Backup()
    retention: _Retention = _Retention()
    encrypt: _Encrypt = _Encrypt()
    schedule: _Schedule = _Schedule()
    hook: _Hook = _Hook()
    guard: _Guard = _Guard()
    offsite: dict[_OffsiteName, _Offsite] = {}


class _UserFile(_Common):
    projects: dict[_Name, _Tier] = {}


class _ProjectFile(_Common):
    project: _Project = _Project()


def _floor(value: object) -> Tier:
    if (tier := values.parse_tier(value)) is Tier.DISPOSABLE:
        raise ValueError('a floor is "critical" or "important"')
    return tier


_Floor = Annotated[
    Tier,
    BeforeValidator(_floor),
    WithJsonSchema({"enum": [Tier.CRITICAL.value, Tier.IMPORTANT.value]}),
]


class _Require(_Strict):
    backup: bool = False
    guard: bool = False


class _PolicyCopy(_Offsite):
    required: bool = True


class _PolicyEncrypt(_Strict):
    recipients: list[_Recipient] = []


class _PolicyFile(_Strict):
    volumes: dict[_Name, _Floor] = {}
    projects: dict[_Name, _Floor] = {}
    require: _Require = _Require()
    encrypt: _PolicyEncrypt = _PolicyEncrypt()
    offsite: dict[_OffsiteName, _PolicyCopy] = {}


def parse(
    path: Path, data: bytes, home: Path, faults: list[str], *, own: bool
) -> FileSettings | None:
    """Return the settings of the user's file, or of the project's (`own`).

    Args:
        path: The file.
        data: Its bytes.
        home: The meaning of `~`.
        faults: Gets the errors of the file.
        own: Whether it is the project's.

    Returns:
        None when it has errors.
    """
    table = _table(path, data, faults)
    if table is None:
        return None
    model: _Common | None = _validate(_ProjectFile if own else _UserFile, path, table, faults)
    if model is None:
        return None
    try:
        store = _place(path, model, model.store.path, home, "store.path")
        identity = _place(path, model, model.encrypt.identity, home, "encrypt.identity")
        folders = tuple(_folder_rules(path, model, home))
    except ValueError as error:
        faults.append(f"{path}: {error}")
        return None
    copies = _offsite(path, model.offsite, faults)
    if copies is None:
        return None
    backup = model.backup
    return FileSettings(
        path=path,
        rules=(*_rules(path, model), *folders),
        store=store,
        shared=model.store.shared,
        max_size=model.store.max_size,
        trial_limit=backup.trial_limit,
        max_folder=backup.max_folder,
        stop_timeout=backup.stop_timeout,
        patience=backup.patience,
        safety=backup.safety,
        method=backup.method,
        retention=model.retention.policy(),
        recipients=tuple(model.encrypt.recipients),
        identity=identity,
        offsite=copies,
        webhook=model.schedule.webhook,
        inside=model.hook.inside,
        layers=model.guard.layers,
        keys=tuple(key for key in _SECTIONS if table.get(key)),
    )


def parse_policy(path: Path, data: bytes, faults: list[str]) -> FileSettings | None:
    """Return the settings of root's policy, or None when it has errors.

    The errors are added to `faults`.
    """
    table = _table(path, data, faults)
    if table is None:
        return None
    model = _validate(_PolicyFile, path, table, faults)
    if model is None:
        return None
    copies = _offsite(path, model.offsite, faults)
    if copies is None:
        return None
    rules = [Rule(p, tier, f"{path}: volumes.{p}", floor=True) for p, tier in model.volumes.items()]
    rules += [
        Rule(p, tier, f"{path}: projects.{p}", floor=True, of_project=True)
        for p, tier in model.projects.items()
    ]
    nothing: dict[str, Any] = dict.fromkeys(FileSettings.__dataclass_fields__)
    return FileSettings(
        **nothing
        | {
            "path": path,
            "rules": tuple(rules),
            "recipients": tuple(model.encrypt.recipients),
            "offsite": copies,
            "must_back_up": model.require.backup,
            "must_guard": model.require.guard,
            "keys": (),
            "obeyed": True,
        }
    )


def _table(path: Path, data: bytes, faults: list[str]) -> dict[str, Any] | None:
    """Return the TOML of a file; None when it is invalid, which is added to `faults`."""
    try:
        # some editors begin with a BOM
        return parse_toml(data.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        faults.append(f"{path}: is not UTF-8 (byte {error.start})")
    except ValueError as error:
        faults.append(f"{path}: is not TOML: {error}")
    return None


def _validate(
    shape: type[_Model], path: Path, table: Mapping[str, Any], faults: list[str]
) -> _Model | None:
    """Return a table in its shape; None when it is invalid, which is added to `faults`."""
    try:
        return shape.model_validate(table)
    except ValidationError as error:
        faults.extend(
            f"{path}: {_key(fault['loc'])}: {_words(fault['type'], fault['msg'])}"
            for fault in error.errors()
        )
        return None


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location if part != "[key]")


def _words(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "string_too_short":
        return "must not be empty"
    return message.removeprefix("Value error, ")


def _place(path: Path, model: _Common, named: str | None, home: Path, key: str) -> Path | None:
    """Return the path that a setting names.

    Raises:
        ValueError: It means another path in each folder, or no system accepts it.
    """
    if named is None:
        return None
    if "\0" in named or len(named) > _LONGEST_PATH:
        raise ValueError(f"{key}: is no path")
    if named == "~" or named.startswith("~/"):
        return home / named[2:]
    if named.startswith("/"):
        return Path(normpath(named))
    if isinstance(model, _ProjectFile) and not named.startswith("~"):
        return Path(normpath(path.parent / named))
    raise ValueError(f"{key}: must begin with / or ~/")


def _folder_rules(path: Path, model: _Common, home: Path) -> Iterator[Rule]:
    """Yield the rules about folders of the host; the pattern of each is an absolute path.

    Raises:
        ValueError: One names another path in each folder, or no system accepts it.
    """
    own = isinstance(model, _ProjectFile)
    name = path.name if own else str(path)
    for given, tier in model.folders.items():
        source = f'{name}: folders."{given}"'
        if own and not given.startswith(("/", "~")):
            _place(path, model, given, home, f"folders.{given}")
            # compose may name the project's folder by a link as well
            for base in dict.fromkeys((str(path.parent), str(find_real_path(path.parent)))):
                yield Rule(normpath(f"{escape(base)}/{given}"), tier, source, own=True)
        else:
            place = _place(path, model, given, home, f"folders.{given}")
            yield Rule(str(place), tier, source, own=own)


def _offsite(
    path: Path, given: Mapping[str, _Offsite], faults: list[str]
) -> tuple[destination.Destination, ...] | None:
    """Return the destinations; None when one has an error, which is added to `faults`.

    The error omits the URL, which may hold a password.
    """
    found = []
    for name, copy in given.items():
        try:
            to = destination.parse(
                name, copy.url, endpoint=copy.endpoint, region=copy.region, required=copy.required
            )
            found.append(replace(to, signed=copy.signed, verify_keys=tuple(copy.verify_key)))
        except ValueError as error:
            faults.append(f"{path}: offsite.{name}: {error}")
    return tuple(found) if len(found) == len(given) else None


def _rules(path: Path, model: _Common) -> list[Rule]:
    own = isinstance(model, _ProjectFile)
    name = path.name if own else str(path)
    rules = [
        Rule(pattern, tier, f"{name}: volumes.{pattern}", own=own)
        for pattern, tier in model.volumes.items()
    ]
    if isinstance(model, _ProjectFile) and model.project.tier is not None:
        rules.append(
            Rule("*", model.project.tier, f"{name}: project.tier", of_project=True, own=True)
        )
    if isinstance(model, _UserFile):
        rules += [
            Rule(p, tier, f"{name}: projects.{p}", of_project=True)
            for p, tier in model.projects.items()
        ]
    return rules
