"""The store of backups on disk: one folder per backup that appears by one rename, and what is known about it.

- `place`     its folder, safe and locked (`locks`)
- `kept`      the backups in it, listed (`index`), found and read (`shapes`)
- `drafts`    the way in: `manifest` and `recipe` write the files that describe a backup
- `outgoing`  the way out
- `registry`  which volumes are protected
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from safe_compose.artifacts import Backup, Copy, Evidence
from safe_compose.catalogue import outgoing
from safe_compose.catalogue.drafts import Adoption, Draft, Drafts
from safe_compose.catalogue.kept import read_copy
from safe_compose.catalogue.manifest import MANIFEST, VERIFICATION, Damaged
from safe_compose.catalogue.place import COUNTER, Room, room
from safe_compose.catalogue.registry import Registry
from safe_compose.durable import read_regular, told
from safe_compose.durable import replace as replace_file
from safe_compose.errors import LookAgain

if TYPE_CHECKING:
    from safe_compose.catalogue.shapes import Verification

__all__ = ["Adoption", "Catalogue", "Draft", "Room", "read_copy", "room"]


class Catalogue(Drafts, Registry):
    """The store at `root`. Reading works for a store that does not exist; writing begins with `ensure`."""

    # -- the way out ---------------------------------------------------------------------------------------------------

    def forget(self, chosen: Collection[str], may_go: Callable[[Sequence[Backup]], Collection[str]]) -> list[Backup]:
        """Take backups out of the store, each by one rename; `finish_forgetting` then frees their room. Works on a full disk.

        chosen: their paths. may_go: which paths may go, asked once more of all that is there while nothing can be added and
        nothing be found broken. Returns those that went. Raises LookAgain when one may not go any more (then none went),
        BackupFailed.
        """
        self._refuse_unsafe()
        with told(f"read {self.root / COUNTER}"):
            self._counter()
        with self._hold("store", must_sign=False), self._hold("verification", must_sign=False):
            now = {b.path: b for b in self.backups(bare=True)}
            allowed = may_go(list(now.values()))
            doubted = sorted(Path(path).name for path in chosen if path not in now or path not in allowed)
            if doubted:
                raise LookAgain(
                    f"the store has changed since the plan: {', '.join(doubted)} must be looked at again; nothing was forgotten",
                    next_step="safe-compose forget --dry-run",
                )
            with told("take a backup out of the store"):
                outgoing.prepare(self.root, self.access)
                for path in chosen:
                    outgoing.take(self.root, Path(path))
        return [now[path] for path in chosen]

    def finish_forgetting(self) -> int:
        """Remove what was forgotten, also by a run that was killed; how many backups that were. Raises BackupFailed."""
        removed = 0
        with told(f"empty {self.root / outgoing.NAME}"):
            for path in outgoing.waiting(self.root):
                # One at a time, so that others can number and name in between; one that has gone was another run's.
                with self._hold("store", must_sign=False), suppress(FileNotFoundError):
                    outgoing.remove(path)
                    removed += 1
        return removed

    # -- what is found out later ---------------------------------------------------------------------------------------

    def mark_verified(self, backup: Backup, evidence: Iterable[Evidence]) -> Backup:
        """Add evidence; of one subject and level the newest counts. The backup as it is now.

        A broken one stays broken unless every one of its artifacts was read (L1 alone reads nothing). Raises BackupFailed.
        """

        def add(before: "Verification") -> "Verification":
            new = tuple(evidence)
            merged = {(e.subject, e.level): e for e in (*before.evidence, *new)}
            files = {a.file for v in backup.volumes for a in v.artifacts if a.kind != "list"}
            broken = before.broken if before.broken and not files <= {e.subject for e in new if e.level > "L1"} else None
            return before.model_copy(update={"evidence": tuple(merged.values()), "broken": broken})

        return self._amend(backup, add)

    def mark_broken(self, backup: Backup, why: str) -> Backup:
        """Say that a backup must not be trusted. It is kept, and never chosen by itself. Raises BackupFailed."""
        return self._amend(backup, lambda before: before.model_copy(update={"evidence": (), "broken": why}))

    def mark_copied(self, backup: Backup, copy: Copy) -> Backup:
        """Note what is known of a copy elsewhere, in the place of what was known before. Raises BackupFailed."""

        def note(before: "Verification") -> "Verification":
            return before.model_copy(update={"offsite": (*(c for c in before.offsite if c.name != copy.name), copy)})

        return self._amend(backup, note)

    def _amend(self, backup: Backup, change: Callable[["Verification"], "Verification"]) -> Backup:
        from safe_compose.catalogue import shapes

        folder = Path(backup.path)
        with self._hold("verification"), told(f"write what was found out about backup {backup.id}"):
            described = read_regular(folder / MANIFEST) if (folder / MANIFEST).exists() else b""
            digest = sha256(described).hexdigest()
            try:
                before = shapes.read_verification(read_regular(folder / VERIFICATION), digest)
            except FileNotFoundError:
                before = shapes.Verification(manifest_sha256=digest)
            except Damaged as damage:  # what it said is worth nothing any more
                before = shapes.Verification(manifest_sha256=digest, broken=str(damage))
            after = change(before).model_copy(update={"manifest_sha256": digest})
            replace_file(folder / VERIFICATION, shapes.write_verification(after), self.access)
        return replace(backup, evidence=after.evidence, broken=after.broken, offsite=after.offsite)
