"""What can go wrong before docker runs: one class for each exit code of ours (sysexits numbers)."""


class SafeComposeError(Exception):
    """A fault that ends a command of ours; docker was not run.

    `message` says what was seen and what was not done; `next_step` is the exact command or action to try next (never a
    command that we ourselves would guard). Neither may hold a secret.
    """

    code = 70
    report: str | None = None
    """One line of JSON about it, for programs: printed where stderr is no terminal."""

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step


class UsageError(SafeComposeError):
    """Our own flags or verbs were used wrongly."""

    code = 64


class VerifyFailed(SafeComposeError):
    """A backup does not prove itself; it is kept and marked, and never counted as good."""

    code = 65


class EngineUnavailable(SafeComposeError):
    """The daemon that the command would reach cannot be inspected."""

    code = 69


class BackupFailed(SafeComposeError):
    """A backup could not be made or kept: disk full, store unusable, container died."""

    code = 73


class LookAgain(SafeComposeError):
    """Another safe-compose holds this project, or the world changed between plan and act."""

    code = 75


class Refused(SafeComposeError):
    """Policy, wrong phrase, no terminal, end of input, or a door that is known but not handled yet."""

    code = 77


class ConfigError(SafeComposeError):
    """A configuration file does not read; the message lists all its faults."""

    code = 78


class DockerNotFound(SafeComposeError):
    """There is no docker besides ourselves."""

    code = 127


class Interrupted(SafeComposeError):
    """Ctrl-C before docker ran."""

    code = 130
