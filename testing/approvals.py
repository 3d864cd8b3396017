"""The part of a person in `safe-compose approve --settings`, for tests that are about something
else.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from safe_compose.settings import load
from safe_compose.store import settings_approval


def approve_settings(folder: Path, env: Mapping[str, str] | None = None) -> None:
    """Approve all that the settings of a folder name now."""
    settings = load.load(folder, {**os.environ, **(env or {})})
    settings_approval.record(settings, settings.foreign)
