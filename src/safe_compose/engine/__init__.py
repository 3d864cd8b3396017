"""The only room that talks to docker: it finds the daemon that a command would reach, looks, and runs helper containers.

- `connect`  the way to that daemon, proved by its id           - `look`     its answers as `Observed` values
- `compose`  which project a command means, `compose_v1` the    - `clients`  byte streams through the docker binary
  same of docker-compose 1.x                                    - `pipe`     bytes of a helper, past a daemon of this host
- `daemon`   the Engine that the other rooms are handed         - `locks`    what makes docker refuse a deletion
"""

from safe_compose.engine.clients import Helper, HelperFailed, Stream
from safe_compose.engine.compose import Files, declared_mounts
from safe_compose.engine.daemon import Engine, begin, connect
from safe_compose.engine.look import Image, Private
from safe_compose.engine.pipe import AT as PIPE

__all__ = ["PIPE", "Engine", "Files", "Helper", "HelperFailed", "Image", "Private", "Stream", "begin", "connect", "declared_mounts"]
