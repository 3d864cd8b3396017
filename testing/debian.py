"""Fetch Debian packages of a chosen release with an apt that has lists and a cache of its own.

Mirrors and keys come from the sources that the machine itself has, so no host is named here; its
apt configuration (proxy, rules on outdated lists) counts, its lists and packages are neither used
nor changed. apt verifies every package against the archive's signature. Nothing is installed and no
maintainer script runs.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

MIRROR_VARIABLE = "SAFE_COMPOSE_LAB_DEBIAN"
"""Names a Debian archive for machines whose own sources have none (Ubuntu)."""

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

ROLLING = frozenset({"forky", "sid"})
"""Releases without a suite for updates and one for security."""


class NoDebianSource(Exception):
    """The machine's apt sources name no Debian archive."""


@dataclass(frozen=True, slots=True)
class AptSource:
    """One apt source: where, which suites and components, and the options that came with it."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str


def say(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr, flush=True)


def machine_sources() -> Iterator[AptSource]:
    """Yield each enabled binary source of this machine, from `sources.list`, `*.list` and
    `*.sources`.
    """
    etc = Path("/etc/apt")
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.suffix == ".list" and path.is_file():
            yield from _one_line_sources(path.read_text(encoding="utf-8", errors="replace"))
        elif path.suffix == ".sources":
            yield from _deb822_sources(path.read_text(encoding="utf-8", errors="replace"))


def _one_line_sources(text: str) -> Iterator[AptSource]:
    for raw in text.splitlines():
        words = shlex.split(raw.partition("#")[0])
        if not words or words[0] != "deb":
            continue
        del words[0]
        options: list[str] = []
        if words and words[0].startswith("["):
            while words and not words[0].endswith("]"):
                options.append(words.pop(0).strip("[]"))
            options.append(words.pop(0).strip("[]"))
        signed_by = next((o.partition("=")[2] for o in options if o.startswith("signed-by=")), "")
        if len(words) >= 3:
            yield AptSource(words[0], (words[1],), tuple(words[2:]), signed_by)


def _deb822_sources(text: str) -> Iterator[AptSource]:
    stanza: dict[str, str] = {}
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if line.strip():
            key, colon, value = line.partition(":")
            if colon and not line[0].isspace():
                stanza[key.strip().lower()] = value.strip()
            continue
        if (
            "deb" in stanza.get("types", "").split()
            and stanza.get("enabled", "yes").lower() != "no"
        ):
            signed_by = stanza.get("signed-by", "")
            for uri in stanza.get("uris", "").split():
                suites, components = (
                    stanza.get("suites", "").split(),
                    stanza.get("components", "").split(),
                )
                yield AptSource(uri, tuple(suites), tuple(components), signed_by)
        stanza = {}


def debian_sources(release: str) -> list[AptSource]:
    """Return sources for `release`, made of the machine's own: the archive, and for its own release
    the security one.

    Raise NoDebianSource when neither the machine nor SAFE_COMPOSE_LAB_DEBIAN names an archive.
    """
    if mirror := os.environ.get(MIRROR_VARIABLE):
        return [AptSource(mirror, (release,), ("main",), str(KEYRING))]
    archive: AptSource | None = None
    security: AptSource | None = None
    for source in machine_sources():
        path = urlsplit(source.uri).path.rstrip("/")
        if "main" not in source.components:
            continue
        if path.endswith("/debian-security"):
            security = security or source
        elif path.endswith("/debian"):
            archive = archive or source
    if archive is None:
        raise NoDebianSource(
            f"this machine's apt sources name no Debian archive; set {MIRROR_VARIABLE} to the"
            " address of one"
        )
    suites = (release,) if release in ROLLING else (release, f"{release}-updates")
    sources = [AptSource(archive.uri, suites, ("main",), archive.signed_by or str(KEYRING))]
    if security is not None and release not in ROLLING:
        signed_by = security.signed_by or str(KEYRING)
        sources.append(AptSource(security.uri, (f"{release}-security",), ("main",), signed_by))
    return sources


class Apt:
    """An apt with folders of its own below `folder`, for one Debian release, that takes no package
    as installed.
    """

    def __init__(self, folder: Path, release: str) -> None:
        self.folder = folder / release
        self.debs = folder / "debs"
        self.release = release
        self._updated = False
        self._closures: dict[tuple[str, ...], dict[str, str]] = {}

    def _command(self, *words: str) -> list[str]:
        options = {
            "Dir::Etc": self.folder / "etc",
            "Dir::Etc::sourcelist": self.folder / "debian.sources",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State": self.folder / "state",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": self.folder / "cache",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "APT::Sandbox::User": "root",
            "APT::Install-Recommends": "false",
            "APT::Update::Post-Invoke-Success": "",
            # A mirror that follows sid slowly has lists past their date; they are signed all the same.
            **({"Acquire::Check-Valid-Until": "false"} if self.release == "sid" else {}),
        }
        return ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items()), *words]

    def update(self) -> None:
        """Read the package lists once per process."""
        if self._updated:
            return
        for part in (
            "etc/apt.conf.d",
            "etc/preferences.d",
            "state/lists/partial",
            "cache/archives/partial",
        ):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        stanzas = [
            f"Types: deb\nURIs: {s.uri}\nSuites: {' '.join(s.suites)}\nComponents:"
            f" {' '.join(s.components)}\nSigned-By: {s.signed_by}\n"
            for s in debian_sources(self.release)
        ]
        (self.folder / "debian.sources").write_text("\n".join(stanzas), encoding="utf-8")
        say(f"reading the package lists of Debian {self.release} (into {self.folder})")
        subprocess.run(
            self._command("update"), check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        self._updated = True

    def closure(self, packages: Iterable[str]) -> dict[str, str]:
        """Return name -> version of `packages` and all that they depend on, as apt would install
        them on nothing.
        """
        key = tuple(packages)
        if key not in self._closures:  # many images are made of the same packages
            self._closures[key] = self._simulate(key)
        return dict(self._closures[key])

    def _simulate(self, packages: Sequence[str]) -> dict[str, str]:
        self.update()
        simulation = subprocess.run(
            self._command("-y", "-s", "install", *packages),
            check=True,
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=self.folder,
        ).stdout
        chosen: dict[str, str] = {}
        for line in (
            simulation.splitlines()
        ):  # "Inst libpq5 (15.20-0+deb12u1 Debian-Security:12/... [amd64])"
            if line.startswith("Inst "):
                _, name, version, *_ = line.split()
                chosen[name.partition(":")[0]] = version.lstrip("(")
        return chosen

    def download(self, packages: dict[str, str]) -> list[Path]:
        """Bring name -> version into the cache and return the files, in the order of their names."""
        self.debs.mkdir(parents=True, exist_ok=True)
        files, missing = {}, []
        for name, version in sorted(packages.items()):
            # apt writes the colon of an epoch as %3a
            found = sorted(self.debs.glob(f"{name}_{version.replace(':', '%3a')}_*.deb"))
            if found:
                files[name] = found[0]
            else:
                missing.append(name)
        if missing:
            # Into a fresh folder, then renamed one by one: a half file of an interrupted run is
            # never taken for good, and apt leaves out what already lies in its working directory.
            incoming = self.debs / f"incoming-{os.getpid()}"
            incoming.mkdir()
            say(f"downloading {len(missing)} Debian packages")
            subprocess.run(
                self._command("download", *(f"{name}={packages[name]}" for name in missing)),
                check=True,
                stdout=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
                cwd=incoming,
            )
            for deb in sorted(incoming.glob("*.deb")):
                files[deb.name.partition("_")[0]] = deb.rename(self.debs / deb.name)
            incoming.rmdir()
        return [files[name] for name in sorted(packages)]


def extract_one(deb: Path, member: str, target: Path) -> None:
    """Write the file `member` (`usr/bin/x`) of a package to `target`, executable, by one rename."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    unpack = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
    with partial.open("wb") as out:
        subprocess.run(["tar", "-xO", f"./{member}"], stdin=unpack.stdout, stdout=out, check=True)
    if unpack.stdout is not None:
        unpack.stdout.close()
    unpack.wait()
    partial.chmod(0o755)
    partial.rename(target)


def candidate(apt: Apt, package: str) -> str:
    """Return the version of `package` that apt would choose."""
    return apt.closure([package])[package]


def fetch_compose(cache: Path, releases: Sequence[str]) -> bool:
    """Put Debian's `docker-compose` of each release into `cache`/compose/VERSION/docker-compose.

    Since trixie the package is one Go program that runs wherever libc is 2.34 or newer, as a plugin
    and by itself. A release that cannot be had (a mirror without it, or with lists that apt calls
    expired) is said, and not tried again while another version is there. Return whether at least
    one version is there.
    """
    for release in releases:
        missed = cache / "compose" / f"{release}.missed"
        if missed.exists() and any((cache / "compose").glob("*/docker-compose")):
            continue
        note = cache / "compose" / f"{release}.version"
        if (
            note.exists()
            and (cache / "compose" / note.read_text(encoding="utf-8") / "docker-compose").exists()
        ):
            continue
        apt = Apt(cache / "apt", release)
        try:
            version = candidate(apt, "docker-compose")
            [deb] = apt.download({"docker-compose": version})
        except (NoDebianSource, subprocess.CalledProcessError) as problem:
            reason = problem if isinstance(problem, NoDebianSource) else "apt's reason is above"
            say(f"no Compose of Debian {release}: {reason}")
            missed.parent.mkdir(parents=True, exist_ok=True)
            missed.touch()
            continue
        upstream = version.rpartition(":")[2].rpartition("-")[0]
        target = cache / "compose" / upstream / "docker-compose"
        extract_one(deb, "usr/libexec/docker/cli-plugins/docker-compose", target)
        note.write_text(upstream, encoding="utf-8")
        say(f"Compose {upstream} of Debian {release} is {target}")
    return any((cache / "compose").glob("*/docker-compose"))


if __name__ == "__main__":
    sys.exit(0 if fetch_compose(Path(sys.argv[1]).resolve(), sys.argv[2:]) else 3)
