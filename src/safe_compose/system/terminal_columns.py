"""The width of a terminal."""

# pathlib and shutil would cost more than all of this.
import os


def read_columns(descriptor: int) -> int:
    """Return the columns of the terminal that a descriptor is; 0 where it is none.

    A terminal that says that it can do nothing (`TERM=dumb`) is taken for none.
    """
    if os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        return 0
    try:
        return os.get_terminal_size(descriptor).columns if os.isatty(descriptor) else 0
    except (OSError, ValueError):
        return 0
