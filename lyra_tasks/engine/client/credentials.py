"""Credentials for registries, as `docker login` stored them, and the programs that keep them."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from typing import Any

from lyra_tasks import console
from lyra_tasks.documents import translate_failures
from lyra_tasks.engine.client.contexts import docker_config_directory, read_json_object
from lyra_tasks.errors import LyraError, PreconditionError
from lyra_tasks.files import quote_path

_HELPER_PREFIX = "docker-credential-"
_HUB_NAMES = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")


def require_credential_helper(host: str) -> None:
    """Raise PreconditionError if the program that keeps the credentials of a registry is not installed."""
    settings = _read_settings()
    helpers = settings.get("credHelpers")
    names = _HUB_NAMES if host in _HUB_NAMES else (host,)
    own = next((helpers[name] for name in names if name in helpers), None) if isinstance(helpers, Mapping) else None
    if helper := own or settings.get("credsStore"):
        error = _check_helper(str(helper), "credHelpers" if own else "credsStore")
        if error is not None:
            raise error


def find_missing_helpers() -> list[LyraError]:
    """Return an error for each configured credential helper that is not installed."""
    settings = _read_settings()
    helpers = settings.get("credHelpers")
    keys = {str(helper): "credHelpers" for helper in (helpers.values() if isinstance(helpers, Mapping) else ())}
    if store := settings.get("credsStore"):
        keys[str(store)] = "credsStore"
    errors = (_check_helper(helper, key) for helper, key in sorted(keys.items()))
    return [error for error in errors if error is not None]


def helper_failure(host: str) -> PreconditionError:
    """Return the error of a credential helper that failed; its output is not shown, since it may contain a password."""
    return PreconditionError(
        f"The credential helper for {console.escape(host)} failed",
        hint=f"Check that `docker login {shlex.quote(host)}` works",
    )


def find_registry_credentials(host: str) -> tuple[str, str]:
    """Return user and password of a registry as `docker login` stored them, or empty strings."""
    from docker.auth import load_config

    require_credential_helper(host)
    with translate_failures(lambda _: helper_failure(host)):
        credentials = load_config().resolve_authconfig(host) or {}
    get = {str(key).lower(): str(value) for key, value in credentials.items() if value}.get
    return get("username", ""), get("password", "")


def _read_settings() -> dict[str, Any]:
    return read_json_object(docker_config_directory() / "config.json")


def _check_helper(helper: str, key: str) -> PreconditionError | None:
    program = f"{_HELPER_PREFIX}{helper}"
    if shutil.which(program):
        return None
    file = docker_config_directory() / "config.json"
    return PreconditionError(
        f"The credential helper {console.escape(program)} is not installed; {key} in {console.escape(file)} names it",
        hint=f"Install it, or remove {key} from {quote_path(file)} and run `docker login` again",
    )
