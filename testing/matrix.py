"""Run the tests that depend on engine and Compose on each stack, and say what came of it.

.venv/bin/python -m testing.matrix [STACK...] [--save] [-- ARGUMENT OF PYTEST...]

Each stack of `engines.STACKS` gets network and mount namespaces in which the machine looks like one
without an engine: /run, docker's data and its plugin folder are empty. There `testing/up` brings the
stack, and the tests marked `matrix` run. Nothing of it is left when the namespaces end; the images
stay in .lab/matrix for the next time. Needs root. With --save, the results are kept in RESULTS, from
which the table in docs/reference.md is made.
"""

import argparse
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from testing.engines import (
    CERTIFICATES,
    LAB,
    ROOT,
    ROOTLESS_ID,
    ROOTLESS_RUN,
    STACKS,
    VARIABLE,
    Stack,
    bring,
)
from testing.images import fetch_usual_layers
from testing.oldclients import old_compose, old_docker

RESULTS = ROOT / "tests" / "cases" / "matrix.json"
REFERENCE = ROOT / "docs" / "reference.md"
BEGIN, END = "<!-- matrix -->\n", "<!-- /matrix -->\n"
_OLD_COMPOSE = "1.29.2"
"""That of `oldclients.py`."""
NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
"""That of processes is there so that nothing outlives an interrupted run."""
SETUP = """
set -eu
state=$1; shift
ip link set lo up
mount --make-rshared /
mount --bind "$state/run" /run
mkdir -p /run/lock /var/lib/docker-lab /usr/local/lib/docker/cli-plugins
mount --bind "$state/data" /var/lib/docker-lab
mount --bind "$state/plugins" /usr/local/lib/docker/cli-plugins
if [ -e "$state/tun" ]; then mount --bind "$state/tun" /dev/net/tun; fi
if [ -d "$state/tls" ]; then mount --bind "$state/tls" /run/lab-tls; fi
testing/up
if [ -d "$state/ssh" ]; then
	mkdir -p /root/.ssh /run/sshd
	mount --bind "$state/ssh" /root/.ssh
	/usr/sbin/sshd -f /root/.ssh/sshd_config
fi
code=0
"$@" || code=$?
kill "$(cat /run/docker.pid)" $(cat /run/sshd.pid 2>/dev/null)
while [ -S /run/docker.sock ] && [ -e /run/docker.pid ]; do sleep 0.2; done
exit $code
"""
"""What runs in the namespaces of a stack."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the tests on one stack."""

    stack: str
    engine: str
    options: str
    client: str
    compose: str
    date: str
    passed: int
    failed: int
    seconds: int
    failures: tuple[str, ...]
    host: str = ""
    standalone: str = ""
    """The version of docker-compose 1.x whose tests passed there as well."""


def run(stack: Stack, arguments: Sequence[str]) -> Result:
    """Run the tests on one stack.

    Raise LookupError or CalledProcessError when it cannot be brought.
    """
    assert stack.engine is not None and stack.client is not None
    bring(stack)
    # The namespaces reach no archive, and another engine may have its images already.
    fetch_usual_layers(LAB)
    old_compose()
    old_docker()
    data = LAB / "matrix" / stack.data
    data.mkdir(parents=True, exist_ok=True)
    # A socket's path holds at most 107 bytes.
    state = Path(tempfile.mkdtemp(prefix="sc-matrix-", dir="/tmp"))
    try:
        for name in ("run", "plugins"):
            (state / name).mkdir()
        (state / "data").symlink_to(data)
        if stack.rootless:
            prepare_rootless(state, data)
        if stack.host.startswith("tcp:"):
            (state / "run" / CERTIFICATES.name).mkdir()
            make_certificates(state / "tls")
        elif stack.host.startswith("ssh:"):
            make_keys(state / "ssh")
        report = state / "report.xml"
        tests = [sys.executable, "-m", "pytest", "-q", "-m", "matrix", f"--junit-xml={report}"]
        argv = [*NAMESPACES, "sh", "-c", SETUP, "sh", str(state), *tests]
        environ = {**os.environ, VARIABLE: stack.name}
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            # To docker-py they count for more than the certificates of the engine.
            environ.pop(name, None)
        texts = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
        files = [path for path, text in texts.items() if "mark.matrix" in text]
        if stack.host:
            # Private engines listen on sockets, and Compose 1.29 knows neither of the two ways.
            environ["SAFE_COMPOSE_LAB_HOST"] = stack.host
            files = [f for f in files if "private_engine" not in texts[f]]
        argv += [*map(str, files), *arguments]
        done = subprocess.run(argv, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL)
        if not report.exists():
            raise LookupError(f"{stack.name}: no test ran (code {done.returncode})")
        result = _result(stack, report)
        if not result.passed + result.failed:
            raise LookupError(f"{stack.name}: no test ran (code {done.returncode})")
        return result
    finally:
        shutil.rmtree(state, ignore_errors=True)


def prepare_rootless(state: Path, data: Path) -> None:
    """Make what a user's engine needs of root: its folders, and a tunnel that it may use.

    Its socket and its pid file are found at the default paths as well.
    """
    runtime = state / "run" / ROOTLESS_RUN.relative_to("/run")
    own = data / "rootless"
    for folder in (runtime, own):
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, ROOTLESS_ID, ROOTLESS_ID)
    for name in ("docker.sock", "docker.pid"):
        (state / "run" / name).symlink_to(ROOTLESS_RUN / name)
    tunnel = state / "tun"
    os.mknod(tunnel, 0o666 | stat.S_IFCHR, os.makedev(10, 200))
    tunnel.chmod(0o666)


def make_certificates(folder: Path) -> None:
    """Make an authority, and certificates of a server and of a client that it signed."""
    folder.mkdir()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes", "-days", "30")
    openssl(*new, "-x509", "-subj", "/CN=lab", "-keyout", "ca-key.pem", "-out", "ca.pem")
    for prefix, usage in (("server-", "serverAuth"), ("", "clientAuth")):
        extensions = f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n"
        (folder / "extensions").write_text(extensions, encoding="utf-8")
        openssl(*new, "-subj", "/CN=lab", "-keyout", f"{prefix}key.pem", "-out", "request")
        signed = ("x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca-key.pem")
        more = ("-CAcreateserial", "-days", "30", "-extfile", "extensions")
        openssl(*signed, *more, "-out", f"{prefix}cert.pem")


def make_keys(folder: Path) -> None:
    """Make root's folder for ssh, with the keys of a server on this machine and its settings."""
    folder.mkdir(mode=0o700)
    for name in ("id_ed25519", "host"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(argv, check=True)
    shutil.copy(folder / "id_ed25519.pub", folder / "authorized_keys")
    host_key = (folder / "host.pub").read_text(encoding="utf-8")
    (folder / "known_hosts").write_text(f"127.0.0.1 {host_key}", encoding="utf-8")
    settings = (
        "ListenAddress 127.0.0.1\nHostKey /root/.ssh/host\nPidFile /run/sshd.pid\n"
        "PasswordAuthentication no\nStrictModes no\nMaxStartups 100\nMaxSessions 100\n"
    )
    (folder / "sshd_config").write_text(settings, encoding="utf-8")


def _result(stack: Stack, report: Path) -> Result:
    assert stack.engine is not None and stack.client is not None
    [suite] = ET.parse(report).getroot().iter("testsuite")
    failures = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    ran = int(suite.get("tests", "0")) - int(suite.get("skipped", "0"))
    return Result(
        stack=stack.name,
        engine=stack.engine.version,
        options=" ".join(stack.options),
        client=stack.client.version,
        compose=stack.compose,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        passed=ran - len(failures),
        failed=len(failures),
        seconds=round(float(suite.get("time", "0"))),
        failures=tuple(sorted(failures)),
        host=stack.host,
        standalone=_OLD_COMPOSE if _ran_old_compose(suite) else "",
    )


def _ran_old_compose(suite: ET.Element) -> bool:
    cases = [c for c in suite.iter("testcase") if "test_compose_v1" in (c.get("classname") or "")]
    return bool(cases) and not any(
        case.find(fault) is not None for case in cases for fault in ("failure", "error", "skipped")
    )


def load() -> dict[str, Result]:
    """Return the saved results by the stack's name, in the order of STACKS."""
    saved = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    made = {n: Result(**{**r, "failures": tuple(r["failures"])}) for n, r in saved.items()}
    return {name: made[name] for name in STACKS if name in made}


def save(results: Mapping[str, Result]) -> None:
    """Add results to those saved, and write the table into the reference."""
    kept = {**load(), **results}
    shapes = {name: asdict(kept[name]) for name in STACKS if name in kept}
    RESULTS.write_text(json.dumps(shapes, indent=1) + "\n", encoding="utf-8")
    text = REFERENCE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    new = f"{before}{BEGIN}{markdown(load())}{END}{after}"
    REFERENCE.write_text(new, encoding="utf-8")


def markdown(results: Mapping[str, Result]) -> str:
    """Return the table of what was tried, and of what was not."""
    lines = [
        "| Docker Engine | its options and its address | docker CLI | Compose | docker-compose"
        " | tried on | tests passed | failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for stack in STACKS.values():
        if stack.engine is None or stack.client is None:
            continue
        result = results.get(stack.name)
        if result is None:
            cells = [stack.engine.version, _describe(stack), stack.client.version, stack.compose]
            cells += ["", "not tried", "", ""]
        else:
            cells = [result.engine, _describe(stack), result.client, result.compose]
            cells += [result.standalone, result.date, str(result.passed), str(result.failed)]
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |"))
    return "\n".join(lines) + "\n"


def _describe(stack: Stack) -> str:
    words = [f"`{' '.join(stack.options)}`"] if stack.options else []
    words += ["rootless"] if stack.rootless else []
    if stack.host.startswith("tcp:"):
        words.append("`tcp://` with TLS and a client certificate")
    elif stack.host:
        words.append("`ssh://`")
    return ", ".join(words)


def main() -> int:
    """Run the stacks that are named, or all, and print the table."""
    parser = argparse.ArgumentParser(description="run the tests marked matrix on each stack")
    every = [name for name, stack in STACKS.items() if stack.engine is not None]
    parser.add_argument("stacks", nargs="*", metavar="STACK", help=", ".join(every))
    parser.add_argument("--save", action="store_true", help="keep the results and the table")
    words = [*sys.argv[1:], "--"]
    own, tests = words[: words.index("--")], words[words.index("--") + 1 : -1]
    given = parser.parse_args(own)
    if unknown := set(given.stacks) - set(every):
        parser.error(f"no such stack: {', '.join(sorted(unknown))}")
    results: dict[str, Result] = {}
    faults: list[str] = []
    for name in given.stacks or every:
        print(f"matrix: {name}", file=sys.stderr, flush=True)
        try:
            results[name] = run(STACKS[name], tests)
        except (LookupError, subprocess.CalledProcessError) as problem:
            faults.append(f"matrix: {name}: {problem}")
    if given.save:
        save(results)
    sys.stdout.write(markdown(results))
    for result in results.values():
        for failure in result.failures:
            print(f"{result.stack}: {failure}")
    print(*faults, sep="\n", file=sys.stderr)
    return 1 if faults or any(result.failed for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
