"""Foreign exceptions of the Docker SDK, translated where they are caught."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from lyra_tasks.errors import EngineUnavailableError, LyraError, NoSpaceError, PreconditionError


@contextmanager
def translate_errors(action: str) -> Iterator[None]:
    """Turn what the SDK raises while `doing` something into a LyraError that says so."""
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except APIError as error:
        raise _api_error(action, str(error.explanation or error)) from error
    except (DockerException, RequestException, HTTPError, HTTPException, ConnectionError) as error:
        raise EngineUnavailableError(
            f"the engine stopped answering while {action}", hint="see that it is running, then run the same word again"
        ) from error


def _api_error(action: str, reason: str) -> LyraError:
    if "no space left" in reason.lower():
        return NoSpaceError(
            f"the engine's disk is full ({action})", hint="free space, for example with `clean --cache`"
        )
    if reason.lower().startswith("no such "):
        return PreconditionError(
            f"{action}: {reason}; it was removed by somebody else",
            hint="run the same word again, `build` first for images",
        )
    return PreconditionError(f"the engine refused {action}: {reason}")
