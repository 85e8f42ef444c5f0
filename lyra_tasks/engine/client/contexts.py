"""Read Docker contexts from the configuration directory of the `docker` command.

The SDK's own reader fails without a `config.json` and ignores `DOCKER_CONFIG`.
"""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from lyra_tasks.digests import sha256_hex
from lyra_tasks.documents import parse_foreign_json, read_document, shorten, translate_failures
from lyra_tasks.errors import EngineUnavailableError, PreconditionError

DEFAULT_SOCKET = "unix:///var/run/docker.sock"


def read_context_endpoint(name: str) -> str:
    """Return the endpoint of a context (`unix://…`, `ssh://…`), by default of the current one."""
    context = name or os.environ.get("DOCKER_CONTEXT")
    context = context or _read_json_object(docker_config_directory() / "config.json").get("currentContext")
    if not context or context == "default":
        return DEFAULT_SOCKET
    context_id = sha256_hex(str(context).encode("utf-8", "surrogatepass"))
    metadata = _read_json_object(docker_config_directory() / "contexts" / "meta" / context_id / "meta.json")
    endpoints = metadata.get("Endpoints")
    docker = endpoints.get("docker") if isinstance(endpoints, dict) else None
    if not isinstance(docker, dict):
        raise EngineUnavailableError(
            f"Unknown Docker context {shorten(str(context))!r}", hint="Run `docker context ls` to list all contexts"
        )
    return str(docker.get("Host") or DEFAULT_SOCKET)


def docker_config_directory() -> Path:
    """Return the configuration directory of the `docker` command; for a user without a home, one below `/`."""
    home = Path("/")
    with suppress(RuntimeError):  # HOME is unset and the user has no passwd entry
        home = Path.home()
    return Path(os.environ.get("DOCKER_CONFIG") or home / ".docker")


def _read_json_object(path: Path) -> dict[str, Any]:
    if not os.path.lexists(path):
        return {}
    with translate_failures(
        lambda problem: EngineUnavailableError(f"Cannot read {path}: {problem}", hint="Check `docker context ls`")
    ):
        document = parse_foreign_json(read_document(path))
    return document if isinstance(document, dict) else {}


def find_registry_credentials(host: str) -> tuple[str, str]:
    """Return user and password of a registry as `docker login` stored them, or empty strings."""
    from docker.auth import load_config

    with translate_failures(
        lambda _: PreconditionError(  # a helper may print the password
            f"The credential helper for {host} failed", hint=f"Check that `docker login {shlex.quote(host)}` works"
        )
    ):
        credentials = load_config().resolve_authconfig(host) or {}
    get = {str(key).lower(): str(value) for key, value in credentials.items() if value}.get
    return get("username", ""), get("password", "")
