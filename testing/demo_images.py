"""Bring the images of the demo to the engine, and remove at the end those that it brought.

python3 -m testing.demo_images bring CACHE PROJECT RECORD
python3 -m testing.demo_images remove RECORD

An image that is there under its official name is used. Else a registry is tried; from the first
failure or the time limit on, look-alikes below `safe-compose-lab/` take the place of the others, so
that no later project runs a stand-in by an official name. PROJECT gets a compose override with the
names, RECORD the images that were brought. No image that was there before is replaced or removed.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from testing.debian import Apt, NoDebianSource, say
from testing.image_recipe import Recipe
from testing.images import build, find_image, holds, is_ours
from testing.server_images import POSTGRES
from testing.standin_images import BOT, STANDINS

PREFIX = "safe-compose-lab/"
PATIENCE = 120.0
"""Seconds that a registry gets in all."""
HELPERS = ("safe-compose/helper", "safe-compose/nothing")
"""The images that safe-compose itself loads."""
TRAEFIK, PROMETHEUS, GRAFANA, LOKI = STANDINS
SERVICES = {
    "traefik": TRAEFIK,
    "db": POSTGRES,
    "bot": BOT,
    "prometheus": PROMETHEUS,
    "grafana": GRAFANA,
    "loki": LOKI,
}
"""Service of examples/dating -> its image. The first is the smallest that a registry has."""
OVERRIDE = "compose.override.yaml"

Pull = Callable[[str, float], bool]


@dataclass(slots=True)
class Record:
    """The images that were brought, in a file that is written before each one is used."""

    path: Path
    images: dict[str, str] = field(default_factory=dict)
    """Name -> id; empty while it is being loaded."""
    helpers: list[str] = field(default_factory=list)
    """The images of safe-compose itself that were there before."""

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Read the file, or begin one."""
        if not path.exists():
            return cls(path, helpers=list_helpers())
        read = json.loads(path.read_text("utf-8"))
        return cls(path, read["images"], read["helpers"])

    def save(self) -> None:
        """Write the file."""
        self.path.write_text(
            json.dumps({"images": self.images, "helpers": self.helpers}, indent=1), "utf-8"
        )

    def expect(self, name: str) -> None:
        """Note an image that is about to be loaded."""
        self.images[name] = ""
        self.save()

    def add(self, name: str) -> None:
        """Note an image that has just come."""
        image = find_image(name)
        assert image is not None, name
        self.images[name] = image["Id"]
        self.save()


@dataclass(slots=True)
class Registry:
    """A registry that is tried until it fails once, or its time is over."""

    pull: Pull
    patience: float = PATIENCE
    gave_up: bool = False
    spent: float = 0.0

    def has(self, name: str) -> bool:
        """Try to bring an image."""
        if self.gave_up:
            return False
        began = time.monotonic()
        came = self.pull(name, self.patience - self.spent)
        self.spent += time.monotonic() - began
        self.gave_up = not came or self.spent >= self.patience
        return came


def pull(name: str, patience: float) -> bool:
    """Have the engine pull an image."""
    say(f"pulling {name}")
    try:
        done = subprocess.run(
            ["docker", "pull", "--quiet", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=patience,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def lookalike_of(recipe: Recipe) -> Recipe:
    """Return the recipe under the demo's own name."""
    return replace(recipe, name=PREFIX + recipe.name)


def bring(cache: Path, project: Path, record: Record, registry: Registry) -> None:
    """Bring each image, and write the override."""
    record.save()
    names = {}
    sources: dict[str, Apt] = {}
    for service, recipe in SERVICES.items():
        official = recipe.name
        there = find_image(official)
        if recipe is not BOT and there is not None and not is_ours(there):
            names[service] = official
        elif recipe is not BOT and there is None and registry.has(official):
            names[service] = official
            record.add(official)
        else:
            names[service] = bring_lookalike(lookalike_of(recipe), cache, sources, record)
    lines = [
        f"  {service}:\n    image: {name}\n    pull_policy: never"
        for service, name in names.items()
    ]
    text = "# Written by the demo.\nservices:\n" + "\n".join(lines) + "\n"
    (project / OVERRIDE).write_text(text, "utf-8")


def bring_lookalike(recipe: Recipe, cache: Path, sources: dict[str, Apt], record: Record) -> str:
    """Load a look-alike that is not there yet, and return its name."""
    there = find_image(recipe.name)
    if there is None:
        record.expect(recipe.name)
        build(recipe, cache, sources)
        record.add(recipe.name)
    elif not holds(there, recipe):
        sys.exit(
            f"demo: an image {recipe.name} is there that this demo did not make; nothing was"
            f" replaced. If nobody needs it: docker image rm {recipe.name}"
        )
    return recipe.name


def list_helpers() -> list[str]:
    """Return the names of the images that safe-compose itself has loaded."""
    found = []
    for name in HELPERS:
        listed = subprocess.run(
            ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", name],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        found += listed.split()
    return found


def remove(record: Record) -> None:
    """Remove what was brought; say what had to stay."""
    loaded = [name for name in list_helpers() if name not in record.helpers]
    left = []
    for name in [*record.images, *loaded]:
        there = find_image(name)
        if there is None or not (name in loaded or is_brought(there, name, record)):
            continue
        if subprocess.run(["docker", "image", "rm", name], capture_output=True).returncode:
            left.append(name)
    record.path.unlink(missing_ok=True)
    if left:
        say(f"these images are in use elsewhere and stay: {' '.join(left)}")


def is_brought(image: Mapping[str, Any], name: str, record: Record) -> bool:
    """Is it still the image that the demo brought under that name?"""
    if identity := record.images[name]:
        return bool(image["Id"] == identity)
    return name.startswith(PREFIX) and is_ours(image)


def main(words: list[str]) -> int:
    """Do what the words ask."""
    match words:
        case ["bring", cache, project, record]:
            try:
                bring(
                    Path(cache).resolve(), Path(project), Record.load(Path(record)), Registry(pull)
                )
            except (NoDebianSource, subprocess.CalledProcessError) as problem:
                sys.exit(f"demo: the images cannot be had: {problem}")
        case ["remove", record]:
            if Path(record).exists():
                remove(Record.load(Path(record)))
        case _:
            sys.exit(__doc__)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
