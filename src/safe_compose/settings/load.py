"""The settings that the user's and the project's TOML files define.

They set which volumes matter, where backups are kept, and how much time they may take.

The user's file is `$XDG_CONFIG_HOME/safe-compose/config.toml` (otherwise `~/.config/...`):

    [volumes]
    # volume name, compose key or pattern = "critical" | "important" | "disposable"
    "*_cache" = "disposable"
    [folders]                        # the same for folders of the host that services mount
    "~/photos" = "critical"
    [projects]                       # project name or pattern = tier of all its volumes
    "ci-*" = "disposable"
    [store]
    path = "~/backups"               # absolute, or below the home folder
    max_size = "50GiB"               # a budget that warns; nothing is ever deleted to free space
    shared = false                   # true: the folder's group may read and write (2770, 0660)
    [backup]
    trial_limit = "1GiB"             # up to this size a backup is also restored and started for
                                     # a test; 0: never
    max_folder = "5GiB"              # up to this size a folder of the host that holds data is
                                     # backed up by itself
    stop_timeout = 120               # seconds that a database gets to stop cleanly; also "2m"
    patience = "3m"                  # a backup that would take longer is announced
    safety = "backup"                # "trash" and "both" are the other choices
    method = "dump"                  # "physical": pg_basebackup of a running PostgreSQL, for big
                                     # databases
    [retention]                      # the backups of each volume that `safe-compose forget`
                                     # leaves; nothing is forgotten automatically
    keep_last = 3                    # the newest verified backups
    keep_daily = 7                   # the newest of each of so many days that have one; the next
                                     # two likewise
    keep_weekly = 4
    keep_monthly = 12
    keep_within = "14d"              # those at most so much older than the newest; hours, days or
                                     # weeks
    [encrypt]                        # backups that only a key opens; the manifest stays readable
    recipients = ["age1..."]         # of age-keygen, or "ssh-ed25519 ..." lines; the project's
                                     # list replaces the user's
    identity = "~/key.txt"           # read when a backup is verified or restored; better kept off
                                     # this machine
    [offsite.NAME]                   # the destination of copies; credentials come from the
                                     # environment, ~/.aws or ssh, never from here
    url = "sftp://me@host:22/copies" # or "s3://bucket/prefix", "file:///mnt/disk"
    required = false                 # true: a deletion waits until the copy was sent and read back
    endpoint = "https://minio:9000"  # s3 only: a server that is not Amazon's
    region = "eu-central-1"          # s3 only
    signed = false                   # true: copies are signed when sent, and fetched only with a
                                     # good signature
    verify_key = ["ssh-ed25519 ..."] # accepted keys besides this machine's own; the project's file
                                     # cannot lower either
    [schedule]
    webhook = "https://example.org/" # gets a report of every scheduled run, as JSON
    [guard]
    layers = "tell"                  # what happens before a command removes a container whose own
                                     # layer holds data: a line, "ask" or "off"; the project's file
                                     # cannot lower it
    [hook]
    inside = "note"                  # what a coding agent gets before a command that deletes data
                                     # inside a database: a note, "ask" or "off"; the project's
                                     # file cannot lower it

The project's `safe-compose.toml`, next to its compose file, has the same sections except
`[projects]`. Instead of that it has

    [project]
    tier = "disposable"              # of every volume of this project

and a relative `store.path` starts at the file's folder. The project's `[store]` and `[backup]`
precede the user's, key by key; its `[retention]` does as a whole, and for this project alone. Of
several tiers the strictest counts; destinations of both files count. An unknown key is an error.

A project's file counts for volumes with that project's label (`Settings.personal` holds for all
others), and only where no other user can have written it (`trusted_file`); a tier that it raises
always counts. Destinations that it names count once a person has approved them (`Settings.foreign`,
`settings_approval`). `policy` reads root's floors.
"""

import os
import pwd
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from safe_compose.core.destination import Destination, keep_signed
from safe_compose.errors import ConfigError
from safe_compose.settings.caller import Caller, find_invoker
from safe_compose.settings.foreign_settings import (
    ForeignSetting,
    find_foreign,
    find_plain_endpoints,
    is_in,
)
from safe_compose.system import trusted_file
from safe_compose.system.files import PRIVATE, SHARED, Access

if TYPE_CHECKING:
    from safe_compose.core.policy import Rule
    from safe_compose.core.retention import Policy
    from safe_compose.settings.schema import FileSettings

PROJECT_FILE = "safe-compose.toml"
POLICY_FILE = Path("/etc/safe-compose/policy.toml")
GIB = 1 << 30
_INSIDE = ("off", "note", "ask")
"""The values of `[hook] inside`, the strictest last."""
_LAYERS = ("off", "tell", "ask")
"""The values of `[guard] layers`, the strictest last."""
KEY_FOLDER = ".signing"
"""Folder in the user's own store that holds the key that signs copies."""
LARGEST_FILE = 1 << 20
"""Bytes; a larger file is no settings file."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of the files and the environment, with defaults."""

    store: Path
    """The absolute folder of the backups and the journal."""
    store_configured: bool = False
    """Whether SAFE_COMPOSE_HOME or a file names the store, so that a person has considered whether
    it survives this machine."""
    access: Access = PRIVATE
    """Modes and owner of files that are written to the store."""
    rules: "tuple[Rule, ...]" = ()
    max_size: int | None = None
    """Bytes."""
    trial_limit: int = GIB
    """Bytes of data up to which a backup is restored for a test (L4)."""
    max_folder: int = 5 * GIB
    """Bytes up to which a folder of the host is backed up by itself."""
    stop_timeout: int = 120
    """Seconds."""
    patience: int = 180
    """Seconds."""
    safety: str = "backup"
    """`backup`, `trash` or `both`."""
    method: str = "dump"
    """How a running PostgreSQL is backed up by hand and on schedule: `dump` or `physical`."""
    retention: "Policy | None" = None
    """The backups that `forget` leaves; None: not set."""
    own_retention: bool = False
    """Whether the project's file sets it, so that it applies to that project alone."""
    recipients: tuple[str, ...] = ()
    """The recipients that backups are encrypted for; empty: they are not encrypted."""
    identity: Path | None = None
    """The file with the key that decrypts them."""
    signed_offsite: tuple[Destination, ...] = ()
    """Destinations of the user's own file whose copies must be signed, under whatever name or URL
    they are reached."""
    key_folder: str = ""
    """The folder of the key that signs copies: in the user's own store, whatever a project says."""
    offsite: tuple[Destination, ...] = ()
    """The destinations of copies. Of two with one name the policy's counts, then the project's."""
    webhook: str | None = None
    """The address that gets reports of scheduled runs. It may hold a secret."""
    inside: str = "note"
    """What a coding agent is answered about data inside a database: `off`, `note` or `ask`."""
    layers: str = "tell"
    """What happens before data in a container's own layer goes: `off`, `tell` or `ask`."""
    files: tuple[Path, ...] = ()
    """The files that were read and are obeyed."""
    must_back_up: bool = False
    """Whether the policy forbids a deletion without a backup, also by `--skip-backup` and by the
    trash alone."""
    own_stores: tuple[Path, ...] = ()
    """The stores whose protections count wherever backups are kept; new ones are written to the
    first."""
    home_store: Path | None = None
    """The store in the user's home folder, which counts where nothing names another one."""
    foreign: tuple[ForeignSetting, ...] = ()
    """Settings that a person must have approved before they count."""
    approved_in: Path | None = None
    """The store in which approvals of `foreign` are kept, never one that a project chose."""
    remarks: tuple[str, ...] = ()
    """The parts of the files that are not obeyed, and why: for stderr, once."""
    project_file: Path | None = None
    """The project's file, where it is obeyed."""
    project_keys: tuple[str, ...] = ()
    """Its sections besides tiers and retention: `store`, `backup`, `encrypt`, `offsite`,
    `schedule`."""
    personal: "Settings | None" = None
    """The settings for volumes that are not the project's own: those without its file, except for
    the tiers. None: these settings."""

    @property
    def required_copies(self) -> tuple[Destination, ...]:
        """Return the destinations that must have a copy before anything is deleted."""
        return tuple(d for d in self.offsite if d.required)


def load(
    project_dir: Path | None, environ: Mapping[str, str], *, uid: int | None = None
) -> Settings:
    """Return the settings of the files and the environment.

    Root under sudo reads the invoking user's file and uses the invoking user's store, which stays
    theirs.

    Args:
        project_dir: The folder of the compose file, where `safe-compose.toml` is looked for; None:
            no project.
        environ: The environment.
        uid: The running user (for tests); default: the effective user.

    Raises:
        ConfigError: A file is invalid; lists every error of every file.
    """
    uid = os.geteuid() if uid is None else uid
    caller = Caller(environ, uid, find_invoker(environ) if uid == 0 else None)
    faults: list[str] = []
    remarks: list[str] = []
    policy = _load_policy(faults)
    user = _read(caller.user_file, caller, faults, remarks, own=False)
    folder = Path(os.path.abspath(project_dir)) if project_dir is not None else None  # noqa: PTH100
    project = (
        _read(folder / PROJECT_FILE, caller, faults, remarks, own=True)
        if folder is not None
        else None
    )
    roots = _root_stores(caller, faults)
    _require_none(faults)
    rules = tuple(rule for w in (policy, project, user) if w is not None for rule in w.rules)
    personal = _combine(caller, policy, [user])
    named = [user.store] if user is not None and user.store is not None else []
    mine = [personal.store, *named, caller.default_store, *roots]
    personal = replace(
        personal,
        rules=rules,
        own_stores=tuple(dict.fromkeys(mine)),
        home_store=caller.default_store,
        foreign=find_plain_endpoints(user),
        approved_in=personal.store,
        remarks=tuple(remarks),
    )
    signed = tuple(d for w in (policy, user) if w is not None for d in w.offsite if d.signed)
    files = [words for words in (user, project) if words is not None]
    personal = replace(
        personal,
        inside=_find_strictest(_INSIDE, "note", [words.inside for words in files]),
        layers=_find_strictest(_LAYERS, "tell", [words.layers for words in files]),
    )
    if project is None or not project.obeyed or folder is None:
        return _require_signatures(personal, signed, personal.store)
    return _add_project(caller, policy, user, project, folder, personal, signed)


def _add_project(
    caller: Caller,
    policy: "FileSettings | None",
    user: "FileSettings | None",
    project: "FileSettings",
    folder: Path,
    personal: Settings,
    signed: tuple[Destination, ...],
) -> Settings:
    """Return the settings of a folder whose project file is obeyed.

    Args:
        caller: The calling user.
        policy: Root's file.
        user: The user's file.
        project: The project's file.
        folder: Its folder.
        personal: The settings without the project's file.
        signed: The destinations of the user's file and the policy that require signatures.
    """
    # a setting that a repository brings along must not count as a person's approval
    if is_in(personal.store, folder):
        personal = replace(personal, approved_in=caller.default_store)
    own_store = personal.approved_in or caller.default_store
    personal = _require_signatures(personal, signed, own_store)
    whole = _require_signatures(_combine(caller, policy, [project, user]), signed, own_store)
    return replace(
        whole,
        own_retention=project.retention is not None,
        rules=personal.rules,
        own_stores=tuple(dict.fromkeys([*personal.own_stores, whole.store])),
        home_store=personal.home_store,
        foreign=(*find_foreign(project, user, folder, personal.store), *personal.foreign),
        approved_in=personal.approved_in,
        remarks=personal.remarks,
        inside=personal.inside,
        layers=personal.layers,
        project_file=project.path,
        project_keys=project.keys,
        personal=personal if project.keys else None,
    )


def _find_strictest(order: Sequence[str], default: str, given: Sequence[str | None]) -> str:
    """Return the strictest of some values: the project's counts unless it is below the user's."""
    return max(filter(None, given), key=order.index, default=default)


def _require_none(faults: Sequence[str]) -> None:
    """Require that there are no errors.

    Raises:
        ConfigError: There are some; it lists them.
    """
    if faults:
        raise ConfigError(
            f"{len(faults)} fault(s) in the settings:",
            faults=tuple(faults),
            next_step="correct them; without them safe-compose cannot know which volumes matter",
        )


def _require_signatures(found: Settings, signed: tuple[Destination, ...], store: Path) -> Settings:
    """Return the settings with signatures wherever the user's own file or the policy requires them.

    Args:
        found: The settings.
        signed: The destinations of those files that require signatures.
        store: The user's own store, which holds the key.
    """
    folder = str(store / KEY_FOLDER)
    return replace(
        found,
        offsite=keep_signed(found.offsite, signed, folder),
        signed_offsite=signed,
        key_folder=folder,
    )


def _combine(
    caller: Caller, policy: "FileSettings | None", given: "list[FileSettings | None]"
) -> Settings:
    """Return the settings of some files, with the highest precedence first, after root's policy."""
    found = [words for words in given if words is not None]
    named, stores = (
        caller.named_store(),
        [words.store for words in found if words.store is not None],
    )
    shared = next((w.shared for w in found if w.shared is not None), False)
    base = SHARED if shared else PRIVATE
    owner = (caller.invoker.pw_uid, caller.invoker.pw_gid) if caller.invoker is not None else None
    recipients = next((w.recipients for w in found if w.recipients), ())
    destinations = {d.name: d for w in reversed(found) for d in w.offsite}
    for own in (d for w in found if w.path == caller.user_file for d in w.offsite if d.required):
        # A project's destination of that name does not affect the copy that the user requires for a
        # deletion.
        there = destinations[own.name]
        destinations[own.name] = replace(there, required=True) if there.is_same_place(own) else own
    destinations |= {d.name: d for d in (policy.offsite if policy is not None else ())}
    return Settings(
        store=named or (stores[0] if stores else caller.default_store),
        store_configured=bool(named or stores),
        access=Access(base.folders, base.files, owner, acts=owner is not None and named is None),
        max_size=next((w.max_size for w in found if w.max_size is not None), None),
        trial_limit=next((w.trial_limit for w in found if w.trial_limit is not None), GIB),
        max_folder=next((w.max_folder for w in found if w.max_folder is not None), 5 * GIB),
        stop_timeout=next((w.stop_timeout for w in found if w.stop_timeout is not None), 120),
        patience=next((w.patience for w in found if w.patience is not None), 180),
        safety=next((w.safety for w in found if w.safety is not None), "backup"),
        method=next((w.method for w in found if w.method is not None), "dump"),
        retention=next((w.retention for w in found if w.retention is not None), None),
        recipients=tuple(
            dict.fromkeys([*(policy.recipients if policy is not None else ()), *recipients])
        ),
        identity=next((w.identity for w in found if w.identity is not None), None),
        offsite=tuple(destinations.values()),
        webhook=next((w.webhook for w in found if w.webhook is not None), None),
        files=tuple(w.path for w in [policy, *found] if w is not None and w.obeyed),
        must_back_up=policy is not None and policy.must_back_up,
    )


def is_off_forbidden() -> bool:
    """Return whether root's policy refuses `SAFE_COMPOSE=off`.

    Raises:
        ConfigError: The policy is unreadable, so the answer is unknown.
    """
    faults: list[str] = []
    policy = _load_policy(faults)
    if faults:
        raise ConfigError(
            f"{POLICY_FILE} does not read:",
            faults=tuple(faults),
            next_step=f"root corrects {POLICY_FILE}",
        )
    return policy is not None and policy.must_guard


# -- reading ---------------------------------------------------------------------------------------


def _root_stores(caller: Caller, faults: list[str]) -> list[Path]:
    """Return root's own stores under sudo.

    Root's protections hold for every user who acts as root.
    """
    if caller.invoker is None:
        return []
    root = Caller({"HOME": pwd.getpwuid(0).pw_dir}, 0, None)
    words = _read(root.user_file, root, faults, [], own=False)
    return [
        *([words.store] if words is not None and words.store is not None else []),
        root.default_store,
    ]


def _load_policy(faults: list[str]) -> "FileSettings | None":
    """Return root's floors, or None where there is no such file.

    A file that other users can have written is an error: no floor is left out.
    """
    try:
        found = trusted_file.read(POLICY_FILE, frozenset({0}), LARGEST_FILE)
    except OSError as error:
        faults.append(f"{POLICY_FILE}: cannot be read: {error.strerror or error}")
        return None
    if found is None:
        return None
    if found.distrust is not None or found.data is None:
        faults.append(f"{POLICY_FILE}: {found.distrust}")
        return None
    from safe_compose.settings import schema

    return schema.parse_policy(POLICY_FILE, found.data, faults)


def explain_distrust(files: Sequence[Path], environ: Mapping[str, str]) -> str | None:
    """Explain why `x-safe-compose` in these compose files can only raise tiers, or return None.

    Other users can have written one of them, or they lead to further files, which are not examined.
    """
    uid = os.geteuid()
    owners = Caller(environ, uid, find_invoker(environ) if uid == 0 else None).owners
    for file in files:
        try:
            found = trusted_file.read(file, owners, 16 * LARGEST_FILE)
        except OSError as error:
            return f"{file} cannot be read: {error.strerror or error}"
        if found is None or found.distrust is not None or found.data is None:
            return f"{file}: {found.distrust if found is not None else 'it is gone'}"
        if _LEADS_ON.search(found.data):
            return f"{file} may take in further files"
    return None


_LEADS_ON = re.compile(rb"(?m)\binclude[\"']?\s*:|\bextends\b|\\[xuU]|^\s*\?")
"""`include:`, `extends:`, in flow style and JSON too, and escapes that could be either."""


def _read(
    path: Path, caller: Caller, faults: list[str], remarks: list[str], *, own: bool
) -> "FileSettings | None":
    """Return the settings of one file (`own`: the project's), or None.

    None when there is none or it has errors, which are then added to `faults`. A file that is not
    obeyed can still raise tiers: nothing may become less safe because someone made it writable for
    others.
    """
    try:
        found = trusted_file.read(path, caller.owners, LARGEST_FILE)
    except OSError as error:
        faults.append(f"{path}: cannot be read: {error.strerror or error}")
        return None
    if found is None:
        return None
    words = None
    if found.data is not None:
        # 50 ms of pydantic: most folders have no such file
        from safe_compose.settings import schema

        ignored: list[str] = []
        words = schema.parse(
            path, found.data, caller.home, faults if found.distrust is None else ignored, own=own
        )
    if found.distrust is None:
        return words
    remarks.append(f"{path} is not obeyed ({found.distrust}); only what raises a tier there counts")
    return words.raising() if words is not None else None
