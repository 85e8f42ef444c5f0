"""Translate exceptions of the Docker SDK into errors of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from tarfile import TarError

from lyra_tasks.documents import describe_failure
from lyra_tasks.errors import EngineUnavailableError, LyraError, NoSpaceError, PreconditionError

EXEC_FORMAT_ERROR = "exec format error"
"""The kernel's words, in answers of the engine and of BuildKit, for a program of another platform."""

_UNREADABLE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RecursionError, TarError, TypeError,
    ValueError,
)  # fmt: skip


@contextmanager
def translate_errors(action: str) -> Iterator[None]:
    """Raise exceptions of the SDK, and failures to read what the engine answered, as LyraError.

    `action` is a gerund phrase such as "starting a container".
    """
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except APIError as error:
        raise _api_error(action, str(error.explanation or error)) from error
    except (DockerException, RequestException, HTTPError, HTTPException, ConnectionError) as error:
        raise EngineUnavailableError(
            f"The engine stopped responding while {action}", hint="Check that it is running and retry"
        ) from error
    except _UNREADABLE as error:
        raise PreconditionError(
            f"{action[:1].upper()}{action[1:]} failed: cannot read the engine's answer: {describe_failure(error)}",
            hint="Check that it is a Docker engine and retry",
        ) from error


def _api_error(action: str, reason: str) -> LyraError:
    failure = f"{action[:1].upper()}{action[1:]} failed"
    if "no space left" in reason.lower():
        return NoSpaceError(
            f"{failure}: the engine's disk is full", hint="Run `clean`, which frees most, then `clean --cache`"
        )
    if reason.lower().startswith("no such "):
        return PreconditionError(
            f"{failure}: {reason} (removed by another process)", hint="Retry; rebuild missing images with `build`"
        )
    return PreconditionError(f"{failure}: {reason}")
