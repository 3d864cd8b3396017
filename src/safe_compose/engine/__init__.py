"""The only package that talks to docker: it finds a command's daemon, inspects it and runs helpers.

- `connect`: the connection to the daemon, verified by its id; `http` asks it without importing
  docker-py, and `values` parses its answers
- `compose_project`: the project that a command means (`compose_document` reads what compose prints
  of it); `compose_v1` does this for docker-compose 1.x
- `docker`: the volumes, containers and images of the daemon, inspected one by one, and changes to
  them
- `helper_containers`: our own containers (`helper_args` are their arguments); their bytes go
  through the docker binary (`client_stream`), come from the daemon's socket (`attach`), or bypass
  the daemon of this host (`named_pipe`)
- `volume_archives`: the content of a volume (`volume_entries`: one entry of it); `deletion_locks`
  make docker refuse to delete it; `mount_keepers` keep it mounted while nothing else uses it;
  `mount_events` tell who mounted it in the meantime
- `layers`: what containers changed in their own layers
- `commands`: the effects of a command, asked of all these
- `engine`: the Engine that other packages use: these parts for one run; those that the confirmation
  screen does without are in `parts`, imported at their first use
- `helper_image`: our own image with the program for volumes; `own_images` loads it into a daemon
- `errors`: errors of all these as errors of this program
"""

from safe_compose.engine.compose_project import (
    read_declared_hooks,
    read_declared_mounts,
)
from safe_compose.engine.engine import Engine, begin, connect
from safe_compose.engine.values import Image, StartConfiguration, resolve_folders

__all__ = [
    "Engine",
    "Image",
    "StartConfiguration",
    "begin",
    "connect",
    "read_declared_hooks",
    "read_declared_mounts",
    "resolve_folders",
]
