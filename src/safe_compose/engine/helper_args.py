"""The arguments of the docker client for our helper containers, and their labels; pure."""

import csv
import hmac
import io
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from safe_compose.core.observed import FOLDER, HELPER_LABEL, PROCESS_LABEL
from safe_compose.engine.named_pipe import AT, Ending, Pipe, never_end
from safe_compose.system.process import Process

DEFAULT_CAPABILITIES = ("default",)
SERVING_PROCESSES = 1024
"""Process limit of one of our servers: a broken one must not exhaust the machine."""
SERVING_SHARES = 512
"""CPU shares, where other containers have 1024: a test restore yields to production services."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Helper:
    """A helper container.

    It never pulls, never logs, has our label and no compose label, and leaves no volume.
    """

    image: str
    """The image's id, so that nothing can be pulled."""
    argv: tuple[str, ...] = ()
    """One plain argv, never a shell pipeline; empty: the command of the image."""
    piped: tuple[str, ...] = ()
    """The argv that writes into the file `named_pipe.AT` instead of stdout (or, where the helper is
    fed, reads from it instead of stdin): for much data, where the daemon shares our file system.
    Empty: the program cannot do this."""
    network: str = "none"
    """`none` or `container:ID`."""
    volumes: tuple[tuple[str, str, bool], ...] = ()
    """(volume, or absolute path of a folder or file of the engine's host; path; read only). What is
    mounted from the host must exist: docker creates nothing."""
    subpath: str = ""
    """The folder of the volumes that is mounted instead of their roots; it must exist. Needs engine
    and client 26 or newer."""
    binds: tuple[tuple[str, str], ...] = ()
    """(folder on the engine's host, path): only for folders of the engine itself."""
    tmpfs: tuple[str, ...] = ()
    """Paths that get a tmpfs, in addition to each VOLUME of the image that nothing is mounted
    on."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Passed by name; the values are only in the environment of the client."""
    user: str | None = None
    capabilities: tuple[str, ...] = ()
    """All capabilities but these are dropped; `("default",)` leaves docker's default set."""
    hardened: bool = False
    """Whether its root file system is read-only and no program in it can gain privileges: for our
    own program."""
    memory: str | None = None
    """The memory limit in the form of `--memory`: `256m`."""
    ending: Ending = field(default=never_end, repr=False, compare=False)
    """Entered while its program has not opened its pipe yet, for as long as that takes."""


def make_run_args(
    helper: Helper,
    name: str,
    labels: Mapping[str, str],
    image_volumes: Sequence[str],
    *,
    stdin: bool,
    pipe: Pipe | None = None,
) -> list[str]:
    """Return the arguments after `docker <globals>` that run a helper in the foreground.

    Its bytes go through `pipe` if there is one.
    """
    words = [
        "run",
        "--rm",
        "--log-driver",
        "none",
        *_make_shared_args(helper, name, labels, image_volumes),
    ]
    if pipe is not None:
        mount = _csv(["type=bind", f"source={pipe.path}", f"target={AT}"])
        return [*words, "--mount", mount, *_program(helper.image, helper.piped)]
    return [*words, *(["--interactive"] if stdin else []), *_program(helper.image, helper.argv)]


def make_create_args(
    helper: Helper, name: str, labels: Mapping[str, str], image_volumes: Sequence[str]
) -> list[str]:
    """Return the arguments after `docker <globals>` that create a helper to be started later.

    The container removes itself when it ends.
    """
    words = [
        "create",
        "--rm",
        "--log-driver",
        "none",
        *_make_shared_args(helper, name, labels, image_volumes),
    ]
    return [*words, *_program(helper.image, helper.argv)]


def make_serve_args(
    helper: Helper, name: str, labels: Mapping[str, str], image_volumes: Sequence[str]
) -> list[str]:
    """Return the arguments after `docker <globals>` that run a helper in the background.

    It keeps a small log and is not removed when it ends, so that the reason can be read.
    """
    words = [
        "run",
        "--detach",
        "--pids-limit",
        str(SERVING_PROCESSES),
        "--cpu-shares",
        str(SERVING_SHARES),
    ]
    words += ["--log-driver", "local", "--log-opt", "max-size=1m", "--log-opt", "max-file=1"]
    # 20.10 refuses a single log file with compression (run)
    words += ["--log-opt", "compress=false"]
    return [
        *words,
        *_make_shared_args(helper, name, labels, image_volumes),
        *_program(helper.image, helper.argv),
    ]


def make_exec_args(
    container_id: str,
    argv: Sequence[str],
    *,
    stdin: bool,
    user: str | None,
    environment: Mapping[str, str],
) -> list[str]:
    """Return the arguments after `docker <globals>` that run one plain argv in a container."""
    words = [
        "exec",
        *(["--interactive"] if stdin else []),
        *(["--user", user] if user is not None else []),
    ]
    for key in environment:
        words += ["--env", key]
    return [*words, container_id, *argv]


def make_mount(location: str, at: str, *, read_only: bool) -> Any:
    """Return the mount of a volume or folder for a container that is created by the API.

    A folder that is not there is not created: the engine refuses the container.
    """
    from docker.types import Mount as MountPoint

    if location.startswith(FOLDER):
        return MountPoint(at, location, type="bind", read_only=read_only)
    return MountPoint(at, location, type="volume", read_only=read_only, no_copy=True)


def list_uncovered(helper: Helper, image_volumes: Sequence[str]) -> list[str]:
    """Return the paths that need a tmpfs, so that docker creates no anonymous volume for them."""
    taken = {posixpath.normpath(path) for _, path, _ in helper.volumes}
    return [
        p
        for p in dict.fromkeys([*helper.tmpfs, *image_volumes])
        if posixpath.normpath(p) not in taken
    ]


def make_labels(run_id: str, name: str, key: bytes | None) -> dict[str, str]:
    """Return the labels of every object that a run creates for itself.

    They do not name this host, because the daemon may belong to others. With the key of a store
    they prove to that store that it created the object of this name; without a proof, any user can
    write such a label.
    """
    facts = {fact: value for fact, value in Process.current().facts().items() if fact != "host"}
    mark = {"mark": make_mark(run_id, name, key)} if key is not None else {}
    return {HELPER_LABEL: run_id, PROCESS_LABEL: json.dumps({**facts, **mark})}


def make_mark(run_id: str, name: str, key: bytes) -> str:
    """Return the mark of a store with this key for an object of this name that a run creates."""
    return hmac.new(
        key, f"{run_id} {name}".encode("utf-8", "backslashreplace"), "sha256"
    ).hexdigest()


def has_own_label(labels: Mapping[str, str], name: str, key: bytes | None) -> bool:
    """Return whether `make_labels` with this key made these labels for an object of this name."""
    try:
        found = json.loads(labels[PROCESS_LABEL])["mark"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return key is not None and isinstance(found, str) and hmac.compare_digest(
        found.encode("utf-8", "replace"), make_mark(labels.get(HELPER_LABEL, ""), name,
         key).encode()
    )  # fmt: skip


def _make_shared_args(
    helper: Helper, name: str, labels: Mapping[str, str], image_volumes: Sequence[str]
) -> list[str]:
    words = ["--name", name, "--pull=never", "--network", helper.network]
    for key, value in labels.items():
        words += ["--label", f"{key}={value}"]
    words += _make_mount_args(helper)
    for source, path in helper.binds:
        words += ["--mount", _csv(["type=bind", f"source={source}", f"target={path}"])]
    for path in list_uncovered(helper, image_volumes):
        words += ["--tmpfs", path]
    for key in helper.environment:
        words += ["--env", key]
    if helper.user is not None:
        words += ["--user", helper.user]
    if helper.capabilities != DEFAULT_CAPABILITIES:
        words += ["--cap-drop", "ALL"]
        for capability in helper.capabilities:
            words += ["--cap-add", capability]
    if helper.hardened:
        words += ["--read-only", "--security-opt", "no-new-privileges"]
    if helper.memory is not None:
        words += ["--memory", helper.memory]
    return words


def _make_mount_args(helper: Helper) -> list[str]:
    words: list[str] = []
    for source, path, read_only in helper.volumes:
        if source.startswith(FOLDER):
            options = ["type=bind", f"source={source}", f"target={path}"]
        else:
            # without volume-nocopy docker fills an empty volume from the image and changes the
            # owner of its root
            options = ["type=volume", f"source={source}", f"target={path}", "volume-nocopy=true"]
            options += [f"volume-subpath={helper.subpath}"] if helper.subpath else []
        words += ["--mount", _csv([*options, "readonly"] if read_only else options)]
    if any(source.startswith(FOLDER) for source, _, _ in helper.volumes):
        # SELinux lets no container read a folder of the host that is not labelled for containers
        words += ["--security-opt", "label=disable"]
    return words


def _program(image: str, argv: Sequence[str]) -> list[str]:
    if not argv:
        return [image]
    return ["--entrypoint", argv[0], image, *argv[1:]]


def _csv(fields: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)  # a name with a newline is quoted too
    return text.getvalue().removesuffix("\n")


def read_process(labels: Mapping[str, str]) -> Process | None:
    """Return the process that made an object with these labels; None where they do not tell."""
    try:
        return Process.read(json.loads(labels[PROCESS_LABEL]))
    except (ValueError, KeyError, AttributeError, RecursionError):
        return None
