"""The destinations of copies, and their keys."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safe_compose.core import destination
from safe_compose.core.destination import Destination
from safe_compose.errors import OperationFailed, UsageError
from safe_compose.offsite import place as offsite_place
from safe_compose.offsite import signing, transfer
from safe_compose.settings.load import Settings
from safe_compose.system.files import Access
from safe_compose.ui import terminal


def choose_destinations(settings: Settings, name: str | None) -> tuple[Destination, ...]:
    """Return the destination of that name or URL; None means all of the settings.

    Raises:
        UsageError: There is no such destination.
    """
    if name is None:
        if not settings.offsite:
            raise UsageError(
                "there is no off-site destination in the settings",
                next_step=(
                    f"name one by its URL ({destination.FORMS}), or write [offsite.NAME] into"
                    " safe-compose.toml"
                ),
            )
        return settings.offsite
    found = next((d for d in settings.offsite if name in (d.name, d.url)), None)
    if found is not None:
        return (found,)
    if "://" not in name:
        there = (
            f"there are: {', '.join(d.name for d in settings.offsite)}"
            if settings.offsite
            else "there is none"
        )
        raise UsageError(f"the settings have no off-site destination {name!r}; {there}")
    try:
        mine = (*settings.signed_offsite, *settings.offsite)
        return destination.keep_signed((destination.parse(name, name),), mine, settings.key_folder)
    except ValueError as error:
        # The text itself may hold a password, so it is not repeated.
        raise UsageError(f"that is no destination: {error}") from error


def open_signer(to: Destination, access: Access) -> signing.Signer:
    """Return the signer of copies for a destination, with the key in the user's own store."""
    return signing.Signer(Path(to.key_folder), access)


@contextmanager
def showing_bytes(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar, and yield a function that adds bytes to it."""
    done = 0
    with terminal.showing_progress(description, total=total) as report:

        def more(count: int) -> None:
            nonlocal done
            done += count
            report(done)

        yield more


@contextmanager
def opening_place(at: Destination, but: str | None = None) -> Iterator[offsite_place.Place]:
    """Open a destination for the block.

    Args:
        at: The destination.
        but: What was not done, for the message when it cannot be opened.

    Raises:
        OperationFailed: It cannot be opened.
    """
    try:
        place = transfer.open_place(at)
    except OperationFailed as fault:
        if but is None:
            raise
        raise OperationFailed(f"{fault.message}; {but}", next_step=fault.next_step) from fault
    try:
        yield place
    finally:
        place.close()
