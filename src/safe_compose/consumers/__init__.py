"""Who holds a database's password: found in what compose says of a project and in the project's files, and rewritten there.

The model (`docker compose config`) tells the truth about what services get; the raw files tell where it is written. Nothing of
a password reaches a message: places are named by file, line and key.
"""

from safe_compose.consumers.account import Account, Unfit, account, environment, mounted_files, serves
from safe_compose.consumers.files import Edit, Source
from safe_compose.consumers.search import held_by, stale, strangers
from safe_compose.consumers.survey import Survey, differences, own_names, survey

__all__ = [
    "Account",
    "Edit",
    "Source",
    "Survey",
    "Unfit",
    "account",
    "differences",
    "environment",
    "held_by",
    "mounted_files",
    "own_names",
    "serves",
    "stale",
    "strangers",
    "survey",
]
