"""A program in docker's place that records how it was started."""

import os
from pathlib import Path
from typing import NamedTuple

from testing.plain_install import plain_python

RECORDER = f"""#!{plain_python()} -IS
import os, signal, sys
environ = open("/proc/self/environ", "rb").read()
status = open("/proc/self/status", "rb").read()
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
def save(name, data):
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)
umask = os.umask(0)
save("argv", b"\\0".join(os.fsencode(word) for word in sys.argv[1:]) + b"\\0" * (len(sys.argv) > 1))
save("argv0", os.fsencode(sys.argv[0]))
save("environ", environ)
save("facts", repr([os.getpid(), os.getcwd(), oct(umask)]).encode())
save("fds", b"\\n".join(os.readlink(f"/proc/self/fd/{{n}}").encode() if os.path.exists(f"/proc/self/fd/{{n}}") else b"-"
                        for n in range(10)))
try:
    if b"7" in os.environb.get(b"READ", b""):
        save("seven", os.read(7, 100))
    if b"0" in os.environb.get(b"READ", b""):
        save("stdin", sys.stdin.buffer.read())
except OSError as error:
    save("error", repr(error).encode())
print("docker speaks")
sys.stdout.flush()
if "DIE" in os.environ:
    signal.signal(int(os.environ["DIE"]), signal.SIG_DFL) if os.environ["DIE"] != "9" else None
    os.kill(os.getpid(), int(os.environ["DIE"]))
sys.exit(int(os.environ.get("EXIT", "0")))
"""


class FakeDocker(NamedTuple):
    """The place of the fake docker, and the commands that it saw."""

    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "docker"

    def bytes_of(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    @property
    def argv(self) -> list[bytes]:
        return self.bytes_of("argv").split(b"\0")[:-1]

    @property
    def words(self) -> list[str]:
        return [os.fsdecode(word) for word in self.argv]

    @property
    def ran(self) -> bool:
        return (self.folder / "argv").exists()


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


ODD_ENVIRONMENT = {
    b"LANG": b"C",
    b"a.b": b"dot",
    b"BASH_FUNC_f%%": b"() { :; }",
    b"EMPTY": b"",
    b"BYTES": b"\xff\xfe=\n",
    b"PYTHONUTF8": b"0",
    b"npm-x": b"1",
}
