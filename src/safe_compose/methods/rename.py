"""A volume's content changes places with that of an empty one, whatever its size: by renaming inside the daemon's own folder.

A local volume without driver options is the folder `NAME/_data` below `volumes_folder`. A helper container has that folder
mounted, so this works on a daemon of another machine too. D is the folder with the content, E an empty one:

    0   V/_data = D                    T/_data = E
    1   V/_data = D   T/_swap = E                          what one rename leaves to the next is told by the names alone, so
    2                 T/_swap = E      T/_data = D         every cut is gone on with, or back from, by the same script
    3   V/_data = E                    T/_data = D

`out` goes from 0 to 3 and `back` from 3 to 0, each from wherever it finds them. D is never in `_swap`, and no byte is copied:
where `mv` would have to copy (another file system, something mounted), nothing is touched.
"""

import subprocess
from collections.abc import Callable, Iterable

from safe_compose.engine import Engine, Helper, HelperFailed
from safe_compose.errors import BackupFailed, LookAgain
from safe_compose.methods.archive import last_words
from safe_compose.observed import Volume
from safe_compose.plan import why_no_trash

AT = "/volumes"
_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID")
_NO = 10
"""The script's own code for: it cannot be done, and nothing was touched by this step."""
_NOT_STARTED = (125, 126, 127)

_SCRIPT = r"""
set -u
way=$1 v=$2/$3 t=$2/$4
no() { echo "$1" >&2; exit 10; }
is_empty() { found=$(ls -A "$1") || no "$1 cannot be read"; [ -z "$found" ]; }
step() { mv "$1" "$2" && [ -d "$2" ] && [ ! -e "$1" ] || { echo "$1 cannot be renamed" >&2; exit 12; }; }

for tool in ls mv stat chown chmod rmdir sync; do command -v "$tool" >/dev/null || exit 127; done
[ -d "$v" ] || [ "$way" = out ] || no "the volume has no folder"
[ -d "$t" ] || no "the trash has no folder"
for at in "$v" "$t"; do
    [ ! -L "$at" ] && [ ! -L "$at/_data" ] || no "its folder is a symbolic link"
    [ ! -d "$at" ] || [ -w "$at" ] || no "its folder cannot be written (user namespaces, SELinux or a read-only disk)"
done
while read -r a b c d at rest; do
    case $at in "$v" | "$v"/* | "$t" | "$t"/*) no "something is mounted at its folder" ;; esac
done </proc/self/mountinfo || no "what is mounted cannot be told"
device=$(stat -c %d "$t") || no "its file system cannot be told"
for at in "$v" "$v/_data" "$t/_data" "$t/_swap"; do
    [ ! -e "$at" ] || [ "$(stat -c %d "$at")" = "$device" ] || no "its folder is on another file system"
done
[ "$way" != look ] || { [ -d "$v/_data" ] || no "the volume has no folder"; exit 0; }

echo ready
read -r word && [ "$word" = go ] || no "nobody said go"
case $way in
out)
    if [ ! -e "$t/_swap" ] && is_empty "$t/_data"; then
        [ -d "$v/_data" ] || no "the volume has no folder"
        chown "$(stat -c %u:%g "$v/_data")" "$t/_data" && chmod "$(stat -c %a "$v/_data")" "$t/_data" ||
            no "owner and mode cannot be set"
        step "$t/_data" "$t/_swap"
    fi
    if [ -e "$t/_swap" ]; then
        [ -e "$t/_data" ] || step "$v/_data" "$t/_data"
        if [ -d "$v" ]; then
            [ ! -e "$v/_data" ] || no "the volume has another folder by now"
            step "$t/_swap" "$v/_data"
        else
            rmdir "$t/_swap"
        fi
    fi
    ;;
back)
    if [ ! -e "$t/_swap" ] && ! is_empty "$t/_data"; then
        [ -d "$v/_data" ] || no "the volume has no folder"
        is_empty "$v/_data" || no "the volume has other content by now"
        step "$v/_data" "$t/_swap"
    fi
    if [ -e "$t/_swap" ]; then
        if [ -e "$t/_data" ]; then
            [ ! -e "$v/_data" ] || no "the volume has another folder by now"
            step "$t/_data" "$v/_data"
        fi
        step "$t/_swap" "$t/_data"
    fi
    ;;
esac
[ -d "$v" ] || v=$t
sync "$v" "$t" 2>/dev/null || sync
echo done
"""


class CannotMove(BackupFailed):
    """The content cannot change places here; nothing was touched."""


def examine(engine: Engine, volume: Volume, folder: str) -> str | None:
    """Why its content cannot be moved, found out in a helper; None when it can. `folder` is `engine.volumes_folder()`."""
    if (why := why_no_trash(volume)) is not None:
        return why
    if volume.mountpoint != f"{folder}/{volume.name}/_data":
        return f"its folder is {volume.mountpoint}"
    try:
        _run(engine, folder, "look", volume.name, volume.name, lambda: None)
    except CannotMove as fault:
        return fault.message
    return None


def out(engine: Engine, volume: str, trash: str, go: Callable[[], None]) -> None:
    """Content of `volume` into `trash`; an empty folder with the same owner and mode takes its place. On disk afterwards.

    `go` is called when all is checked, a moment before the first rename: it raises when somebody uses the volume by now.
    Raises CannotMove, BackupFailed when it was cut off (then `back`, or this again, goes on from there).
    """
    _run(engine, engine.volumes_folder(), "out", volume, trash, go)


def back(engine: Engine, volume: str, trash: str, go: Callable[[], None]) -> None:
    """Content of `trash` into `volume`, which must exist and be empty. As `out`."""
    _run(engine, engine.volumes_folder(), "back", volume, trash, go)


def nobody_runs_on(engine: Engine, volume: str) -> None:
    """Raises LookAgain when a container runs on the volume, or may at any moment."""
    for user in engine.users(volume):
        if user.lively:
            raise LookAgain(
                f"container {user.name} runs on volume {volume}; its content was not moved",
                next_step=f"stop it first: docker stop {user.name}",
            )


_images: dict[str, str] = {}
"""Run of ours -> the image that has all that the script needs."""


def _run(engine: Engine, folder: str, way: str, volume: str, trash: str, go: Callable[[], None]) -> None:
    cause = "no local image has a shell with mv, ls, stat and chown"
    for image in _candidates(engine):
        helper = Helper(
            image=image,
            argv=("sh", "-c", _SCRIPT, "sh", way, AT, volume, trash),
            binds=((folder, AT),),
            user="0:0",
            capabilities=_CAPABILITIES,
        )
        try:
            with engine.stream(helper, stdin=subprocess.PIPE) as moving:
                if moving.stdout.readline() == b"ready\n":
                    go()
                    if moving.stdin is not None:
                        moving.stdin.write(b"go\n")
                        moving.stdin.flush()
                    moving.stdout.read()
        except HelperFailed as error:
            if error.returncode in _NOT_STARTED:
                cause = last_words(error) if error.returncode == _NOT_STARTED[0] else cause
                continue
            if error.returncode == _NO:
                raise CannotMove(last_words(error)) from error
            raise BackupFailed(
                f"volume {volume}: its content was not moved: {last_words(error)}", next_step="safe-compose recover"
            ) from error
        except BrokenPipeError as error:
            raise BackupFailed(f"volume {volume}: its content was not moved: the helper has gone") from error
        _images[engine.run_id] = image
        return
    raise CannotMove(cause)


def _candidates(engine: Engine) -> Iterable[str]:
    known = _images.get(engine.run_id)
    if known is not None:
        return [known]
    return [i.id for i in sorted(engine.images(), key=lambda i: (not i.references, i.size)) if i.size]
