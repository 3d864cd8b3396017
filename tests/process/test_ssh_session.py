"""The one login at a daemon behind ssh: its words, and whose connection is shared."""

from pathlib import Path

import pytest

from safe_compose.engine.ssh_session import SshSession, parse_address

PLAIN = ("-o", "ConnectTimeout=30", "-T")
DIAL = ("docker", "system", "dial-stdio")


@pytest.mark.parametrize(
    ("endpoint", "where"),
    [
        ("ssh://host", ("--", "host", *DIAL)),
        ("ssh://Host.example:2222", ("-p", "2222", "--", "Host.example", *DIAL)),
        ("ssh://me@host/", ("-l", "me", "--", "host", *DIAL)),
        ("ssh://a%40b@[fe80::1]:22", ("-l", "a@b", "-p", "22", "--", "fe80::1", *DIAL)),
        (
            "ssh://me@host/run/my docker.sock",
            (
                "-l", "me", "--", "host",
                "docker", "--host", "'unix:///run/my docker.sock'", "system", "dial-stdio",
            ),
        ),
        ("ssh://-oProxyCommand=x", ("--", "-oProxyCommand=x", *DIAL)),
    ],
)  # fmt: skip
def test_ssh_is_called_as_docker_calls_it(
    endpoint: str, where: tuple[str, ...], tmp_path: Path
) -> None:
    address = parse_address(endpoint)
    assert address is not None
    session = SshSession(address, {"PATH": str(tmp_path)}, tmp_path)
    assert session.make_command() == ("ssh", *PLAIN, *where)


@pytest.mark.parametrize(
    "endpoint",
    ["unix:///var/run/docker.sock", "tcp://host:2376", "ssh://", "ssh://me:word@host",
     "ssh://host?x=1", "ssh://host#x", "ssh://host:port", "ssh://[::1", ""],
)  # fmt: skip
def test_what_docker_refuses_is_left_to_docker(endpoint: str) -> None:
    assert parse_address(endpoint) is None


@pytest.mark.parametrize(
    ("configured", "shared"),
    [
        ("controlmaster auto\ncontrolpath /run/me-%C\n", False),
        ("controlmaster yes\ncontrolpath none\n", True),
        ("controlmaster false\ncontrolpath /run/me-%C\n", True),
    ],
)
def test_a_connection_that_the_user_shares_is_used(
    configured: str, shared: bool, tmp_path: Path
) -> None:
    """`ssh -G` tells; for everything else this ssh makes the socket that it is asked for."""
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f"""#!/bin/sh
if [ "$1" = -G ]; then printf '{configured.encode("unicode_escape").decode()}'; exit; fi
while [ "$1" != -S ]; do shift; done
: > "$2"
exec cat
"""
    )
    ssh.chmod(0o755)
    address = parse_address("ssh://host")
    assert address is not None
    session = SshSession(address, {"PATH": f"{tmp_path}:/usr/bin:/bin"}, tmp_path)
    session.open(20)
    try:
        assert ("-S" in session.make_command()) is shared
        assert (tmp_path / "m").exists() is shared
    finally:
        session.close()
