"""The volumes that a person has protected, read from all of the user's own stores.

They do not depend on where a project or a variable keeps its backups.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from safe_compose.core.policy import Rule
from safe_compose.core.text import shell_quote
from safe_compose.core.tier import Tier
from safe_compose.errors import OperationFailed, UsageError
from safe_compose.settings.load import Settings
from safe_compose.store.catalogue.catalogue import Catalogue
from safe_compose.store.catalogue.folder import PROTECTIONS
from safe_compose.system.files import Access, acting_as_owner, explain_error, make_folders
from safe_compose.system.files import replace as replace_file
from safe_compose.ui.terminal import say


class ProtectionStores:
    """The stores whose protections count.

    New protections go into the first store. All are read, and they can only raise tiers. A store
    elsewhere than in the home folder is recorded there with its first protection. So a store whose
    disk is not mounted is not taken for one without protections.
    """

    def __init__(self, roots: Sequence[Path], access: Access, home: Path | None = None) -> None:
        """Use the stores at `roots`, the first one for new protections.

        Args:
            roots: The folders of the stores.
            access: Modes and owner of their files.
            home: The store in the home folder, for the records; None: without records.
        """
        self._stores = [Catalogue.at(root, _access_of(root, access)) for root in roots]
        self._access = access
        self._home = home

    @classmethod
    def of(cls, settings: Settings) -> "ProtectionStores":
        """Return the user's stores, and one that the project's file names.

        Under sudo these are the stores of the invoking user and of root.
        """
        access = (settings.personal or settings).access
        return cls(settings.own_stores, access, settings.home_store)

    def rules(self) -> list[Rule]:
        """Return the tier floors that hold now.

        Raises:
            OperationFailed: One of the stores is unreadable, so the floors are unknown.
        """
        return list(
            {
                (rule.pattern, rule.tier, rule.source): rule
                for s in self._present()
                for rule in s.protections.rules()
            }.values()
        )

    def list_locked(self, engine_id: str) -> list[str]:
        """Return the volumes of an engine that must have a deletion lock now.

        Raises:
            OperationFailed: One of the stores is unreadable.
        """
        return list(
            dict.fromkeys(
                name for s in self._present() for name in s.protections.list_locked(engine_id)
            )
        )

    def is_protected(self, name: str) -> bool:
        """Return whether a volume is protected, even if the protection is suspended.

        Raises:
            OperationFailed: One of the stores is unreadable.
        """
        return any(store.protections.is_protected(name) for store in self._present())

    def protect(self, names: Iterable[str], tier: Tier, *, lock_on: str | None = None) -> None:
        """Make `tier` the floor of volumes until `unprotect`.

        Args:
            names: Names of the volumes.
            tier: Critical or important.
            lock_on: Id of an engine on which the volumes are to have a deletion lock as well.

        Raises:
            UsageError: The tier is disposable, or a name is empty.
            OperationFailed: The store cannot be written.
        """
        first = self._stores[0]
        self._require_present(first.root)
        first.folder.ensure()
        for name in names:
            first.protections.protect(name, tier, lock_on=lock_on)
        self._record(first)

    def require_protected(self, names: Iterable[str]) -> None:
        """Require that each of the volumes is protected in some store.

        Raises:
            UsageError: One of them is protected in none.
            OperationFailed: One of the stores is unreadable.
        """
        for name in names:
            if not self.is_protected(name):
                there = sorted({rule.pattern for rule in self.rules()})
                known = f"protected are: {', '.join(there)}" if there else "nothing is protected"
                raise UsageError(f"{name} is not protected ({known}); nothing was changed")

    def unprotect(self, name: str, *, until: datetime | None = None) -> None:
        """Remove a protection from every store that has it, or suspend it until a moment.

        Raises:
            OperationFailed: One of the stores cannot be read or written.
        """
        for store in self._present():
            if store.protections.is_protected(name):
                store.protections.unprotect(name, until=until)

    def require_present(self) -> None:
        """Require that no store is missing whose protections are recorded, before one is created.

        Raises:
            OperationFailed: One is: the disk that it is on may not be mounted.
        """
        for store in self._stores:
            self._require_present(store.root)

    def _present(self) -> "list[Catalogue]":
        """Return the stores, after a check that none of them is missing.

        Raises:
            OperationFailed: One is.
        """
        self.require_present()
        return self._stores

    def _require_present(self, root: Path) -> None:
        """Require that a store whose protections are recorded still has a file of them.

        Raises:
            OperationFailed: It has none.
        """
        record = self._record_of(root)
        if record is None or os.path.lexists(root / PROTECTIONS) or _is_missing(record):
            return
        raise OperationFailed(
            f"cannot read what is protected: {root / PROTECTIONS} was there and is missing; nothing"
            " was deleted",
            next_step=(
                "mount the disk of that store; or, if it is gone for good, protect the volumes"
                f" again after: rm {shell_quote(str(record))}"
            ),
        )

    def _record(self, store: "Catalogue") -> None:
        """Record in the home folder that a store has protections, or say why it is not recorded."""
        record = self._record_of(store.root)
        if record is None or self._home is None or os.path.lexists(record):
            return
        # The home folder is its owner's, whoever owns the store that is recorded there.
        own = replace(self._access, folders=0o700, files=0o600, acts=self._access.owner is not None)
        access = _access_of(self._home, own)
        try:
            with acting_as_owner(access):
                make_folders(record.parent, access)
                replace_file(record, f"{store.root}\n".encode("utf-8", "surrogateescape"), access)
        except OSError as error:
            say(
                f"safe-compose: cannot write {record} ({explain_error(error)}): if {store.root} is"
                " missing one day, its protections are not missed"
            )

    def _record_of(self, root: Path) -> Path | None:
        if self._home is None or root == self._home:
            return None
        return self._home / ".protecting" / sha256(os.fsencode(root)).hexdigest()


def _is_missing(record: Path) -> bool:
    """Return whether there is no record; one that cannot be inspected counts as there."""
    try:
        record.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _access_of(root: Path, access: Access) -> Access:
    """Return the access for a store: new files belong to the owner of an existing store.

    So root's store does not become the invoking user's.
    """
    try:
        found = root.stat()
    except OSError:
        return access  # not created yet; the code that writes to it finds out more
    return (
        access
        if os.geteuid() != 0 or access.owner is None
        else replace(access, owner=(found.st_uid, found.st_gid))
    )
