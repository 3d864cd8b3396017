"""The calling user, whose settings files are obeyed."""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    pass


class Caller(NamedTuple):
    """The calling user, and the paths of that user's own files."""

    environ: Mapping[str, str]
    uid: int
    invoker: pwd.struct_passwd | None

    @property
    def owners(self) -> frozenset[int]:
        """Return the users whose files are obeyed.

        They are this user and root, and under sudo its caller.

        That user may run this program as root, and owns the folders of the project.
        """
        return frozenset(
            {0, self.uid, *([self.invoker.pw_uid] if self.invoker is not None else [])}
        )

    @property
    def home(self) -> Path:
        """Return the home folder of the calling user."""
        if self.invoker is not None:
            return Path(self.invoker.pw_dir)
        home = self.environ.get("HOME", "")
        return Path(home) if home.startswith("/") else Path(pwd.getpwuid(os.getuid()).pw_dir)

    @property
    def user_file(self) -> Path:
        """Return the path of the user's settings file."""
        return self._base("XDG_CONFIG_HOME", ".config") / "safe-compose" / "config.toml"

    @property
    def default_store(self) -> Path:
        """Return the user's store where nothing names another one."""
        return self._base("XDG_DATA_HOME", ".local/share") / "safe-compose"

    def _base(self, variable: str, default: str) -> Path:
        """Return a base folder of the XDG specification, from the given environment.

        A relative one counts as unset. Under sudo the variables are root's, so the invoking user's
        own default counts.
        """
        value = self.environ.get(variable, "") if self.invoker is None else ""
        return Path(value) if value.startswith("/") else self.home / default

    def named_store(self) -> Path | None:
        """Return the store that SAFE_COMPOSE_HOME names, or None."""
        named = self.environ.get("SAFE_COMPOSE_HOME", "")
        # from a CI file or a unit, where no shell expands it
        if named == "~" or named.startswith("~/"):
            return self.home / named[2:]
        # `..` goes, symbolic links stay
        return Path(os.path.abspath(named)) if named else None  # noqa: PTH100


def find_invoker(environ: Mapping[str, str]) -> pwd.struct_passwd | None:
    """Return the user who called sudo; None when there is none, or when it was root."""
    name = environ.get("SUDO_USER", "")
    try:
        found = pwd.getpwnam(name) if name else None
    except KeyError:
        return None
    return found if found is not None and found.pw_uid != 0 else None
