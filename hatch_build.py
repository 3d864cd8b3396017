"""Puts the native programs into the wheel; see native/build.py.

- `safe-compose` among the scripts: the launcher, compiled for the machine that builds, or for the
  one of WANTED. The wheel is then one for that platform. Without a compiler it is a script, and the
  wheel one for every platform.
- The volume helper for each architecture that a compiler is at hand for. It runs in containers,
  never on the host.

What a compiler was missing for is said by the build, and done without by safe-compose.
"""

import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INSIDE = "safe_compose/native"
WANTED = "SAFE_COMPOSE_ARCHITECTURE"
"""The variable that names another architecture than this machine's: amd64 or arm64."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
TAGS = {
    "amd64": "py3-none-manylinux_2_17_x86_64.musllinux_1_1_x86_64",
    "arm64": "py3-none-manylinux_2_17_aarch64.musllinux_1_1_aarch64",
}
"""A static program asks for no C library, so these are the oldest that installers know."""


class NativeProgramsHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling names no default
    """For a wheel, compile into a temporary folder; for an editable install the volume helper goes
    into the package itself, where git ignores it.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name what was made to hatchling."""
        root = Path(self.root)
        sys.path.insert(0, str(root / "native"))
        try:
            import build
        finally:
            del sys.path[0]
        self._folder = tempfile.TemporaryDirectory(prefix="safe-compose-")
        folder = Path(self._folder.name)
        made, missing = build.build(
            root / "src" / INSIDE if version == "editable" else folder / "native"
        )
        if version != "editable":
            build_data["force_include"].update(
                {str(path): f"{INSIDE}/{path.name}" for path in made}
            )
        python = folder / str(build.definitions()["ENTRY"], "ascii")
        python.write_text(build.script(launched=True), encoding="utf-8")
        architecture = os.environ.get(WANTED) or (
            ARCHITECTURES.get(platform.machine(), "") if sys.platform == "linux" else ""
        )
        launcher = folder / "safe-compose"
        if (complaint := build.build_launcher(architecture, launcher)) is None:
            build_data["tag"] = TAGS[architecture]
            build_data["pure_python"] = False
            build_data["shared_scripts"][str(python)] = python.name
        else:
            missing.append(f"no launcher, safe-compose starts later: {complaint}")
            launcher.write_text(build.script(launched=False), encoding="utf-8")
        build_data["shared_scripts"][str(launcher)] = launcher.name
        for path in (python, launcher):
            path.chmod(0o755)
        for line in missing:
            self.app.display_warning(line)

    def finalize(self, _version: str, _build_data: dict[str, Any], _artifact_path: str) -> None:
        """Remove what was compiled."""
        self._folder.cleanup()
