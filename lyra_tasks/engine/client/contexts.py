"""Read Docker contexts from the configuration directory of the `docker` command.

The SDK's own reader fails without a `config.json` and ignores `DOCKER_CONFIG`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lyra_tasks import console
from lyra_tasks.digests import sha256_hex
from lyra_tasks.documents import parse_foreign_json, read_document, shorten, translate_failures
from lyra_tasks.errors import EngineUnavailableError
from lyra_tasks.files import quote_path

DEFAULT_SOCKET = "unix:///var/run/docker.sock"


def read_context_endpoint(name: str) -> str:
    """Return the endpoint of a context (`unix://…`, `ssh://…`), by default of the current one."""
    context, source = (name, "configured") if name else find_current_context()
    if not context or context == "default":
        return DEFAULT_SOCKET
    context_id = sha256_hex(context.encode("utf-8", "surrogatepass"))
    metadata = read_json_object(docker_config_directory() / "contexts" / "meta" / context_id / "meta.json")
    endpoints = metadata.get("Endpoints")
    docker = endpoints.get("docker") if isinstance(endpoints, dict) else None
    if not isinstance(docker, dict):
        fixes = {"configured": "[engine] context or LYRA_ENGINE", "DOCKER_CONTEXT": "DOCKER_CONTEXT, or unset it"}
        raise EngineUnavailableError(
            f"Unknown Docker context {shorten(context)!r} ({source})",
            hint=f"Run `docker context ls` and name one of these in {fixes.get(source, '`docker context use NAME`')}",
        )
    return str(docker.get("Host") or DEFAULT_SOCKET)


def find_current_context() -> tuple[str, str]:
    """Return the name of the current context, "" for the default one, and the variable or file that selects it."""
    if context := os.environ.get("DOCKER_CONTEXT"):
        return context, "DOCKER_CONTEXT"
    file = docker_config_directory() / "config.json"
    return str(read_json_object(file).get("currentContext") or ""), str(file)


def docker_config_directory() -> Path:
    """Return the configuration directory of the `docker` command; for a user without a home, one below `/`."""
    home = Path("/")
    with suppress(RuntimeError):  # HOME is unset and the user has no passwd entry
        home = Path.home()
    return Path(os.environ.get("DOCKER_CONFIG") or home / ".docker")


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a file of the `docker` command, {} if there is none; raise EngineUnavailableError."""
    if not os.path.lexists(path):
        return {}
    with translate_failures(
        lambda problem: EngineUnavailableError(
            f"Cannot read {console.escape(path)}: {problem}",
            hint=f"Correct it, or move it away: `mv {quote_path(path)} {quote_path(path.with_suffix('.broken'))}`",
        )
    ):
        document = parse_foreign_json(read_document(path))
    return document if isinstance(document, dict) else {}
