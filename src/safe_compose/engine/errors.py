"""Errors between us and a daemon, as errors of this program in docker's own words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safe_compose.engine.connect import MISREAD
from safe_compose.errors import EngineUnavailable, OperationFailed


@contextmanager
def inspecting() -> Iterator[None]:
    """Turn an error while the daemon is asked, or an unexpected answer, into EngineUnavailable."""
    try:
        yield
    except _network_errors() as error:
        raise EngineUnavailable(
            f"the daemon cannot be inspected: {_extract_reason(error)}",
            next_step="check that `docker info` answers with the same flags",
        ) from error
    except MISREAD as error:
        raise EngineUnavailable(
            f"the daemon's answer does not read ({type(error).__name__}: {error})",
            next_step=(
                "check that `docker info` answers with the same flags, and that it is a docker"
                " engine"
            ),
        ) from error


@contextmanager
def changing(what: str) -> Iterator[None]:
    """Turn an error while the daemon changes something into OperationFailed."""
    try:
        yield
    except _network_errors() as error:
        raise OperationFailed(
            f"docker could not {what}:"
            f" {getattr(error, 'explanation', None) or _extract_reason(error)}"
        ) from error
    except MISREAD as error:
        raise OperationFailed(
            f"docker could not {what}: its answer does not read ({type(error).__name__}: {error})"
        ) from error


def read_message(answer: Any) -> str:
    """Return the error message of an answer, or its status."""
    try:
        return str(answer.json().get("message", answer.status_code))
    except ValueError:
        return f"HTTP {answer.status_code}"


def _network_errors() -> tuple[type[Exception], ...]:
    from docker.errors import DockerException
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    from safe_compose.engine.http import NoAnswer

    return NoAnswer, DockerException, RequestException, HTTPError


def _extract_reason(error: Exception) -> str:
    """Return the reason of an error.

    The exceptions that requests and urllib3 wrap around it are left out.
    """
    from requests.exceptions import Timeout
    from urllib3.exceptions import TimeoutError as NoAnswerInTime

    inner: BaseException | None = error
    seen = 0
    while inner is not None and seen < 10:
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        if isinstance(inner, Timeout | NoAnswerInTime):
            return "it did not answer in time"
        packed = [
            a for a in (*inner.args, getattr(inner, "reason", None)) if isinstance(a, BaseException)
        ]
        packed += [
            a
            for arg in inner.args
            if isinstance(arg, tuple)
            for a in arg
            if isinstance(a, BaseException)
        ]
        inner = packed[0] if packed else inner.__cause__
        seen += 1
    return str(error)
