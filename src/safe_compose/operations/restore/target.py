"""One volume of a restore, with what is in its place now."""

from collections.abc import Iterator
from dataclasses import dataclass

from safe_compose.core.backup import Artifact, VolumeRecord
from safe_compose.core.observed import FOLDER, Location, is_in_memory
from safe_compose.core.text import join_for_shell
from safe_compose.databases import server_files
from safe_compose.volumes.folder_swap import FolderSwap


@dataclass(frozen=True, slots=True)
class RestoreTarget:
    """A volume or folder to restore, with what is in its place now."""

    record: VolumeRecord
    into: str
    """The location that gets the content: the one of that name, or an anonymous one's successor."""
    current: Location | None
    has_content: bool = False
    """It has content that would be replaced, which is first backed up and confirmed by a person."""
    trash: str = ""
    """The trash volume with its content, which is then renamed back instead of copied."""
    reach: str | None = None
    """What it reaches outside of the engine's own storage, in words.

    None: nothing, or what our own journal says it reached before.
    """
    other_project: str = ""
    """The other project that the existing volume belongs to."""
    adds: bool = False
    """All of its content is part of the archive, byte for byte.

    What is missing is added, and nothing is replaced.
    """
    server: str = ""
    """The image of another major version that serves the volume now.

    `record` then says how its dump is loaded into that version.
    """
    archived: bool = False
    """The backup holds the whole volume, even if `record` does not."""
    swap: FolderSwap | None = None
    """The folder that is filled next to it and then renamed into its place.

    None for a volume, and for a folder that cannot be renamed.
    """

    @property
    def is_mounted(self) -> bool:
        """Whether it is a folder that something is mounted on, which nobody can rename."""
        return self.into.startswith(FOLDER) and self.swap is None

    @property
    def backed_up_first(self) -> bool:
        """Whether its content is backed up before it is replaced; a folder's is only renamed."""
        return self.occupied and self.swap is None

    @property
    def source(self) -> str:
        """The source of the content: `trash`, `archive`, `physical copy` or `dump`."""
        if self.trash:
            return "trash"
        if find_archive(self.record) is not None:
            return "archive"
        return "physical copy" if self.record.method == "physical" else "dump"

    @property
    def in_memory(self) -> bool:
        """Whether its content ends with the last container on it.

        It is then kept mounted from before it is filled until its containers run again.
        """
        if self.current is not None:
            return self.current.in_memory
        return is_in_memory(self.record.driver, self.record.options)

    @property
    def outside(self) -> bool:
        """Whether it only points to a place, a folder of the host or a share.

        A deletion of the volume does not touch that place.
        """
        if self.record.location != "volume":
            return False
        return self.record.driver != "local" or bool(self.record.options.get("device"))

    @property
    def occupied(self) -> bool:
        """Whether it has content that would be replaced."""
        return self.has_content and not self.adds

    @property
    def is_only_recreated(self) -> bool:
        """Whether a deleted volume gets its own content back under its own name."""
        recreated = self.current is None and self.into == self.record.name
        return recreated and not (self.server or self.in_memory)

    def action(self) -> str:
        """Return in words what is done to the volume."""
        source = f"{self.source}{f', because {self.server} serves it now' if self.server else ''}"
        source += (
            "; its content is kept in memory, for as long as a container runs on it"
            if self.in_memory
            else ""
        )
        source += "; something is mounted there, so it is copied into it" if self.is_mounted else ""
        if self.current is None:
            return f"made{' again' if self.into == self.record.name else ''}, from its {source}"
        if self.adds:
            return f"a part of it is there and stays; what is missing comes back from its {source}"
        if self.swap is not None and self.has_content:
            return f"replaced from its {source}; what is there stays, as {self.swap.old_name}"
        return f"{'replaced' if self.has_content else 'empty now: filled'} from its {source}"

    def remarks(self, backup_id: str) -> Iterator[str]:
        """Yield what a person has to know of the volume besides."""
        if self.reach is not None:
            yield f"    REACHES OUTSIDE of the engine's own storage: {self.reach}"
        if stays := self.stays(backup_id):
            yield f"    {stays}"
        notes = server_files.note(self.record.artifacts) if self.source == "dump" else ()
        if notes and not self.server:
            yield f"    {notes[0]}"
        if self.other_project:
            yield f"    is of project {self.other_project}"

    def stays(self, backup_id: str) -> str | None:
        """Return what is not restored because only the dump fits the current server.

        Returns:
            A sentence; None when everything is restored.
        """
        if not (self.server and self.archived):
            return None
        look = join_for_shell(
            [
                "safe-compose",
                "restore",
                backup_id,
                "--volume",
                self.record.name,
                "--into",
                "scratch",
            ]
        )
        return (
            "only its database, from its dump; whatever else was in the volume stays in the"
            f" archive: {look}"
        )


def find_archive(record: VolumeRecord) -> Artifact | None:
    """Return the archive of a record; None when it has none."""
    return next((a for a in record.artifacts if a.kind == "archive"), None)
