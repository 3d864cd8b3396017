"""The command that brings back an image that is missing on the engine.

This module is pure.
"""

import re
from collections.abc import Mapping

from safe_compose.core.observed import PROJECT_LABEL
from safe_compose.core.text import shell_quote

_ID = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}")


def suggest_command(image: str, service: str, project: str) -> str:
    """Return the command that brings back an image; empty where there is none.

    Two commands where the image's name does not show whether it is pulled or built.

    Args:
        image: The reference as it was given to the container.
        service: The compose service, or empty.
        project: The compose project, or empty.
    """
    # compose's own name for it
    if service and image.removesuffix(":latest") in (
        f"{project}-{service}",
        f"{project}_{service}",
    ):
        return f"docker compose build {shell_quote(service)}"
    if service:
        name = shell_quote(service)
        return (
            f"docker compose pull {name}, or where the compose file builds it: docker compose build"
            f" {name}"
        )
    return "" if not image or _ID.fullmatch(image) else f"docker pull {shell_quote(image)}"


def suggest_command_for_user(user: Mapping[str, str], labels: Mapping[str, str]) -> str:
    """Return `suggest_command` for a container that used a volume with these labels.

    Both come from a backup's record.
    """
    return suggest_command(
        user.get("image", ""), user.get("service", ""), labels.get(PROJECT_LABEL, "")
    )
