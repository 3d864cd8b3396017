"""The paths of everything that is installed, for one user and one environment."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class InstallPlaces:
    """The paths of everything that is installed, for one user and one environment."""

    home: Path
    environ: Mapping[str, str]

    @classmethod
    def here(cls) -> "InstallPlaces":
        """Return the paths of this user and environment."""
        return cls(Path.home(), dict(os.environ))

    def _xdg(self, name: str, default: str) -> Path:
        given = self.environ.get(name, "")
        return Path(given) if given.startswith("/") else self.home / default

    @property
    def shims(self) -> Path:
        """Return a separate folder next to the store, so that nothing else gets on PATH with it."""
        return self._xdg("XDG_DATA_HOME", ".local/share") / "safe-compose-shims"

    @property
    def record(self) -> Path:
        """Return the path of the record of changes."""
        return self._xdg("XDG_STATE_HOME", ".local/state") / "safe-compose" / "ways.json"

    @property
    def fish(self) -> Path:
        """Return fish's folder of configuration files."""
        return self._xdg("XDG_CONFIG_HOME", ".config") / "fish" / "conf.d"

    @property
    def zsh(self) -> Path:
        """Return the folder of zsh's files."""
        return Path(self.environ.get("ZDOTDIR") or self.home)

    @property
    def plugins(self) -> Path:
        """Return docker's folder of the user's CLI plugins."""
        return Path(self.environ.get("DOCKER_CONFIG") or self.home / ".docker") / "cli-plugins"

    def uses(self, shell: str) -> bool:
        """Return whether a shell is installed."""
        return shutil.which(shell, path=self.environ.get("PATH")) is not None
