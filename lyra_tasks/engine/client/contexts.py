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

DEFAULT_CONTEXT = "default"
DEFAULT_SOCKET = "unix:///var/run/docker.sock"


def read_context_endpoint(name: str) -> str:
    """Where the engine of the context `name` is, or that of the current one for an empty name: `unix://…`, `ssh://…`.

    EngineUnavailableError if there is no such context.
    """
    context = name or os.environ.get("DOCKER_CONTEXT") or _current_context()
    if context == DEFAULT_CONTEXT:
        return DEFAULT_SOCKET
    context_id = hashlib.sha256(context.encode()).hexdigest()
    metadata = _read_json_object(docker_config_directory() / "contexts" / "meta" / context_id / "meta.json")
    docker = (metadata.get("Endpoints") or {}).get("docker")
    if docker is None:
        raise EngineUnavailableError(
            f"there is no Docker context named {context!r}", hint="`docker context ls` shows those there are"
        )
    return str(docker.get("Host") or DEFAULT_SOCKET)


def _current_context() -> str:
    return str(_read_json_object(docker_config_directory() / "config.json").get("currentContext") or DEFAULT_CONTEXT)


def docker_config_directory() -> Path:
    """Where the `docker` command keeps its settings; there is none below `/` for a user without a home."""
    home = Path("/")
    with suppress(RuntimeError):  # no HOME, and a user whom the system does not know
        home = Path.home()
    return Path(os.environ.get("DOCKER_CONFIG") or home / ".docker")


def _read_json_object(path: Path) -> dict[str, Any]:
    """A JSON file; empty if there is none. EngineUnavailableError for one that cannot be read."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EngineUnavailableError(f"{path} cannot be read", hint="see `docker context ls`") from error
    return document if isinstance(document, dict) else {}
