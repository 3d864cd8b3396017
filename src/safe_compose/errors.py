"""The exceptions that end a command of safe-compose, each with its exit code.

Codes 64 to 78 are those of sysexits.h.
"""


class SafeComposeError(Exception):
    """A fault that ends a command of safe-compose; docker was not run.

    Neither the message nor the next step may hold a secret.
    """

    code = 70
    report: str | None = None
    """One line of JSON about the fault, for programs."""
    is_report_wanted = False
    """Whether `--json` asks for that line; else only a coding agent gets it."""

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        """Store the message and the next step.

        Args:
            message: What was seen and what was not done.
            next_step: The exact command or action to try next, never a command that safe-compose
                itself would guard.
        """
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def lines(self) -> list[str]:
        """Return the message as it is printed: one line, whatever names it contains."""
        return [self.message]


class UsageError(SafeComposeError):
    """A wrong use of the flags or verbs of safe-compose."""

    code = 64


class VerificationFailed(SafeComposeError):
    """A backup that fails verification; it is kept and marked, and never counts as good."""

    code = 65


class EngineUnavailable(SafeComposeError):
    """An engine that the command would reach and that cannot be inspected."""

    code = 69


class OperationFailed(SafeComposeError):
    """An operation that could not be completed: disk full, store unusable, container died."""

    code = 73


class PlaceUnusable(OperationFailed):
    """An off-site destination that answers wrongly or not at all; none of its answers is used."""

    code = 69


class StateChanged(SafeComposeError):
    """A state that changed between plan and action, or a project locked by another safe-compose."""

    code = 75


class Refused(SafeComposeError):
    """A refusal: by policy, for a wrong phrase, without a terminal, or at the end of the input.

    Destructive commands that are recognized but not supported yet are refused as well.
    """

    code = 77


class ConfigError(SafeComposeError):
    """A configuration file that cannot be read or that is invalid."""

    code = 78

    def __init__(
        self, message: str, *, faults: tuple[str, ...] = (), next_step: str | None = None
    ) -> None:
        """Store the message and the faults of the file.

        Args:
            message: The file and the fact that it is not usable.
            faults: What is wrong with it, one fault per line.
            next_step: The exact command or action to try next.
        """
        self._lines = [message, *(f"  {fault}" for fault in faults)]
        super().__init__("\n".join(self._lines), next_step=next_step)

    def lines(self) -> list[str]:
        """Return the message, followed by one indented line for each fault."""
        return self._lines


class DockerNotFound(SafeComposeError):
    """A docker client, other than safe-compose itself, that cannot be found or started."""

    code = 127


class Interrupted(SafeComposeError):
    """An interruption by Ctrl-C before docker ran."""

    code = 130
