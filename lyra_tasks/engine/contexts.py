"""Docker contexts, read where the `docker` command keeps them.

The SDK reads them, too, but finds none where there is no `config.json`, or another user's where `DOCKER_CONFIG` says
otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lyra_tasks.errors import EngineUnavailableError

DEFAULT = "default"
SOCKET = "unix:///var/run/docker.sock"


def endpoint(name: str) -> str:
    """Where the engine of the context `name` is, or that of the current one for an empty name: `unix://…`, `ssh://…`.

    EngineUnavailableError if there is no such context.
    """
    wanted = name or os.environ.get("DOCKER_CONTEXT") or _current()
    if wanted == DEFAULT:
        return SOCKET
    identity = hashlib.sha256(wanted.encode()).hexdigest()
    found = _document(settings_folder() / "contexts" / "meta" / identity / "meta.json")
    docker = (found.get("Endpoints") or {}).get("docker")
    if docker is None:
        raise EngineUnavailableError(
            f"there is no Docker context named {wanted!r}", hint="`docker context ls` shows those there are"
        )
    return str(docker.get("Host") or SOCKET)


def _current() -> str:
    return str(_document(settings_folder() / "config.json").get("currentContext") or DEFAULT)


def settings_folder() -> Path:
    """Where the `docker` command keeps its settings; there is none below `/` for a user without a home."""
    home = Path("/")
    with suppress(RuntimeError):  # no HOME, and a user whom the system does not know
        home = Path.home()
    return Path(os.environ.get("DOCKER_CONFIG") or home / ".docker")


def _document(path: Path) -> dict[str, Any]:
    """A JSON file; empty if there is none. EngineUnavailableError for one that cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EngineUnavailableError(f"{path} cannot be read", hint="see `docker context ls`") from error
    return found if isinstance(found, dict) else {}
