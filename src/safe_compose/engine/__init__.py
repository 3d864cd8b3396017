"""The only room that talks to docker: it finds the daemon that a command would reach, looks, and runs helper containers.

- `connect`   the way to that daemon, proved by its id; `reader` asks it without an import, `look` makes values of answers
- `compose`   which project a command means; `compose_v1` the same of docker-compose 1.x
- `daemon`    what is on it: volumes, containers and images, looked at one by one, and told what to do
- `helpers`   containers of ours on it, their bytes through the docker binary (`clients`), from the daemon's socket (`attached`),
              or past the daemon of this host (`pipe`)
- `archives`  what is in a volume; `locks` what makes docker refuse to delete it
- `engine`    all of these for one run: the Engine that the other rooms are handed
- `faults`    what goes wrong on the way, as errors of ours
"""

from safe_compose.engine.clients import Helper, HelperFailed, Stream
from safe_compose.engine.compose import Files, declared_mounts
from safe_compose.engine.engine import Engine, begin, connect
from safe_compose.engine.look import Image, Private
from safe_compose.engine.pipe import AT as PIPE

__all__ = ["PIPE", "Engine", "Files", "Helper", "HelperFailed", "Image", "Private", "Stream", "begin", "connect", "declared_mounts"]
