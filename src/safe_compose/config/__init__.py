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
    method = "dump"                  # "physical": pg_basebackup of a running PostgreSQL, for big databases
    [retention]                      # what `safe-compose forget` leaves of each volume; nothing is forgotten by itself
    keep_last = 3                    # the newest verified backups
    keep_daily = 7                   # the newest of each of so many days that have one; so for the next two
    keep_weekly = 4
    keep_monthly = 12
    keep_within = "14d"              # those at most so much older than the newest; hours, days or weeks
    [encrypt]                        # backups that only a key opens; the manifest stays readable
    recipients = ["age1..."]         # of age-keygen, or "ssh-ed25519 ..." lines; the project's list takes the place of the user's
    identity = "~/key.txt"           # read when a backup is verified or restored; better kept off this machine
    [offsite.NAME]                   # where copies go; credentials come from the environment, ~/.aws or ssh, never from here
    url = "sftp://me@host:22/copies" # or "s3://bucket/prefix", "file:///mnt/disk"
    required = false                 # true: a deletion waits until the copy is there and was read back
    endpoint = "https://minio:9000"  # s3 only: a server that is not Amazon's
    region = "eu-central-1"          # s3 only
    [schedule]
    webhook = "https://example.org/" # told of every scheduled run, as JSON

The project's `safe-compose.toml`, beside its compose file, takes the same except `[projects]`; instead of that one

    [project]
    tier = "disposable"              # of every volume of this project

and a relative `store.path` is meant from the file's folder. The project's `[store]` and `[backup]` go before the user's, key by
key; its `[retention]` as a whole, and for this project alone. Of the tiers the strictest word wins; destinations of both
files count. An unknown key is a fault.
"""

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safe_compose.destination import Destination
from safe_compose.durable import PRIVATE, SHARED, Access
from safe_compose.errors import ConfigError
from safe_compose.policy import Rule
from safe_compose.retention import Policy

if TYPE_CHECKING:
    from safe_compose.config.files import Words

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
    method: str = "dump"
    """How a running PostgreSQL is backed up by hand and on schedule: `dump` or `physical`."""
    retention: Policy | None = None
    """What `forget` leaves; None: no file says."""
    own_retention: bool = False
    """The project's file says it, so it is about that project alone."""
    recipients: tuple[str, ...] = ()
    """Whom backups are encrypted for; empty: they are not."""
    identity: Path | None = None
    """The file that opens them."""
    offsite: tuple[Destination, ...] = ()
    """Where copies go. Of two with one name the project's."""
    webhook: str | None = None
    """Who is told of scheduled runs. It may hold a secret."""
    files: tuple[Path, ...] = ()
    """What was read."""

    @property
    def required_copies(self) -> tuple[Destination, ...]:
        """The destinations without whose copy nothing is deleted."""
        return tuple(d for d in self.offsite if d.required)


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
    project_path = Path(os.path.abspath(project_dir)) / PROJECT_FILE if project_dir is not None else None  # noqa: PTH100
    home = _home(environ, invoker)
    user = _read(user_path, home, faults, own=False)
    project = _read(project_path, home, faults, own=True) if project_path is not None else None
    if faults:
        raise ConfigError(
            "\n".join([f"{len(faults)} fault(s) in the settings:", *(f"  {fault}" for fault in faults)]),
            next_step="correct them; without them safe-compose cannot know which volumes matter",
        )
    found = [words for words in (project, user) if words is not None]  # the one that goes before the other first
    stores = [words.store for words in found if words.store is not None]
    named = environ.get("SAFE_COMPOSE_HOME", "")
    if named:
        tilde = named == "~" or named.startswith("~/")  # from a CI file or a unit, where no shell replaces it
        store = home / named[2:] if tilde else Path(os.path.abspath(named))  # noqa: PTH100  (`..` goes, symbolic links stay)
    else:
        store = stores[0] if stores else _base(environ, invoker, "XDG_DATA_HOME", ".local/share") / "safe-compose"
    shared = next((w.shared for w in found if w.shared is not None), False)
    owner = (invoker.pw_uid, invoker.pw_gid) if invoker is not None else None
    base = SHARED if shared else PRIVATE
    return Settings(
        store=store,
        store_configured=bool(named or stores),
        access=Access(base.folders, base.files, owner),
        rules=tuple(rule for w in found for rule in w.rules),
        max_size=next((w.max_size for w in found if w.max_size is not None), None),
        trial_limit=next((w.trial_limit for w in found if w.trial_limit is not None), GIB),
        stop_timeout=next((w.stop_timeout for w in found if w.stop_timeout is not None), 120),
        patience=next((w.patience for w in found if w.patience is not None), 180),
        safety=next((w.safety for w in found if w.safety is not None), "backup"),
        method=next((w.method for w in found if w.method is not None), "dump"),
        retention=next((w.retention for w in found if w.retention is not None), None),
        own_retention=project is not None and project.retention is not None,
        recipients=next((w.recipients for w in found if w.recipients), ()),
        identity=next((w.identity for w in found if w.identity is not None), None),
        offsite=tuple({d.name: d for w in reversed(found) for d in w.offsite}.values()),
        webhook=next((w.webhook for w in found if w.webhook is not None), None),
        files=tuple(w.path for w in found),
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


def _read(path: Path, home: Path, faults: list[str], *, own: bool) -> "Words | None":
    """One file (`own`: the project's), or None when there is none or it has faults (which are then added)."""
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
    from safe_compose.config import files  # 50 ms of pydantic: most folders have no such file

    return files.parse(path, data, home, faults, own=own)
