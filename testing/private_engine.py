"""A second dockerd that a test may prune: its own network namespace, folders and socket; the first
one is not touched.

Without a network namespace of its own a second dockerd takes away docker0 of the first, also with
`--bridge=none`. Its containers can have no network of their own but `none`, `host` and user-defined
bridges without internet.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from testing.projects import Completed, real_docker, wait_until

DOCKERD = ("dockerd", "/usr/sbin/dockerd", "/usr/bin/dockerd")


@dataclass(slots=True)
class PrivateEngine:
    """A running dockerd of this test module alone."""

    folder: Path
    argv: Sequence[str]
    child: "subprocess.Popen[bytes] | None" = None

    @property
    def host(self) -> str:
        """`unix:///tmp/.../docker.sock`, for DOCKER_HOST or -H."""
        return f"unix://{self.folder / 'docker.sock'}"

    def start(self) -> None:
        """Start it, on what an earlier one may have left, and wait until it answers."""
        log = self.folder / "log"
        environment = {**os.environ, "PATH": f"/usr/sbin:/sbin:{os.environ.get('PATH', '')}"}
        with log.open("ab") as out:
            self.child = child = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                start_new_session=True,
            )

        def answers() -> bool:
            assert child.poll() is None, (
                f"the private dockerd ended:\n{log.read_text(errors='replace')[-3000:]}"
            )
            return (self.folder / "docker.sock").exists() and self.docker(
                "version", check=False
            ).returncode == 0

        wait_until("the private dockerd answers", answers, timeout=180)

    def lose_power(self) -> None:
        """Kill the daemon, its containerd and everything that runs in containers, all at once and
        without a word.
        """
        mark = str(self.folder).encode()
        for _ in range(2):  # a shim that was about to start somebody
            for entry in Path("/proc").iterdir():
                if entry.name.isdecimal() and int(entry.name) != os.getpid():
                    with suppress(OSError):
                        if mark in (entry / "cmdline").read_bytes() or self._is_inside(entry):
                            os.kill(int(entry.name), signal.SIGKILL)
        assert self.child is not None
        self.child.wait(30)
        (self.folder / "pid").unlink(missing_ok=True)
        # what lies below /run does not outlive a boot; a containerd.pid that did would be believed
        for mount in _mounts_below(self.folder):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.folder / "exec")

    def _is_inside(self, entry: Path) -> bool:
        """Return whether a process runs in a container of this engine: its root is made of layers below
        our folder.
        """
        return (
            f"={self.folder}/"
            in (entry / "mountinfo").read_text(errors="replace").split("\n", 1)[0]
        )

    def docker(
        self, *argv: str, check: bool = True, input: str | None = None, cwd: Path | None = None
    ) -> Completed:
        """Run the real docker against it."""
        done = subprocess.run(
            [real_docker(), *argv],
            cwd=cwd,
            env={**os.environ, "DOCKER_HOST": self.host},
            input=input if input is not None else "",
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            start_new_session=True,
            timeout=300,
        )
        if check and done.returncode:
            raise AssertionError(
                f"docker {' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def load(self, images: Sequence[str]) -> None:
        """Bring images of the first engine (`docker save | docker load`)."""
        with subprocess.Popen([real_docker(), "save", *images], stdout=subprocess.PIPE) as save:
            load = [real_docker(), "-H", self.host, "load", "--quiet"]
            subprocess.run(
                load, stdin=save.stdout, stdout=subprocess.DEVNULL, check=True, timeout=300
            )
        assert save.returncode == 0, f"docker save {' '.join(images)} ended with {save.returncode}"

    @property
    def all_volumes(self) -> tuple[str, ...]:
        """What `volume prune` has to be told to take named volumes too: a flag since API 1.42."""
        version = self.docker("version", "--format", "{{.Server.APIVersion}}").stdout
        major, minor = version.split(".")
        return ("--all",) if (int(major), int(minor)) >= (1, 42) else ()

    def volumes(self) -> set[str]:
        return set(self.docker("volume", "ls", "-q").stdout.split())


@contextmanager
def private_engine(
    images: Sequence[str], data: Path | None = None, options: Sequence[str] = ()
) -> Iterator[PrivateEngine]:
    """Start it with these images of the first engine, and stop it with all that it holds. data:
    where it keeps that, a folder on another disk for one. options: more of its dockerd.

    Needs root, as the first one does. Its log is shown when it does not start.
    """
    # a socket's path holds at most 107 bytes, and pytest's temporary folders are long
    folder = Path(tempfile.mkdtemp(prefix="sc-engine-", dir="/tmp"))
    folder.chmod(0o711)  # with `--userns-remap` its root is another user
    dockerd = next(found for name in DOCKERD if (found := shutil.which(name)))
    argv = [
        *([] if os.geteuid() == 0 else ["sudo", "--non-interactive"]),
        *(["setpriv", "--pdeathsig", "TERM"] if os.geteuid() == 0 else []),
         # it must not outlive a killed pytest
        "unshare", "--net",
        dockerd, "--data-root", str(data or folder / "data"), "--exec-root", str(folder / "exec"),
        "--pidfile", str(folder / "pid"), "--host", f"unix://{folder / 'docker.sock'}",
        "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
        *options,
    ]  # fmt: skip
    engine = PrivateEngine(folder, argv)
    try:
        engine.start()
        engine.load(images)
        yield engine
    finally:
        child = engine.child
        if child is not None and child.poll() is None:
            if containers := engine.docker("ps", "-aq", check=False).stdout.split():
                engine.docker("rm", "--force", *containers, check=False)
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for mount in _mounts_below(folder):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _mounts_below(folder: Path) -> list[str]:
    """Network namespaces and overlays that dockerd left mounted, the deepest first."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return sorted(
        (line.split()[4] for line in lines if line.split()[4].startswith(f"{folder}/")),
        reverse=True,
    )
