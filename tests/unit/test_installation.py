"""How an extra is added to the installation that runs: never by a name that anybody may own."""

import pytest

from safe_compose.system.installation import describe_extra, make_command


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (
            "/home/me/.local/share/pipx/venvs/safe-compose",
            "pipx install --force '/src/safe compose[s3]'",
        ),
        (
            "/home/me/.local/share/uv/tools/safe-compose",
            "uv tool install --force '/src/safe compose[s3]'",
        ),
        ("/srv/venv", "/srv/venv/bin/python -m pip install '/src/safe compose[s3]'"),
    ],
)
def test_the_command_is_that_of_the_installer_and_names_the_source(
    prefix: str, expected: str
) -> None:
    assert make_command("s3", "/src/safe compose", prefix) == expected


def test_an_unknown_source_is_asked_of_the_reader() -> None:
    assert (
        make_command("audit", None, "/x/pipx/venvs/safe-compose")
        == "in the checkout of safe-compose: pipx install --force '.[audit]'"
    )


def test_this_editable_installation_stays_editable() -> None:
    assert "-m pip install --editable " in describe_extra("audit")
    assert "'safe-compose[" not in describe_extra("audit")
