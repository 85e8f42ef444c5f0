"""Choose the Docker engine of a project and connect to it.

A remote engine is used only if the configuration names its context (R4).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.config.platforms import docker_architecture
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.contexts import DEFAULT_SOCKET, read_context_endpoint
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.client.tunnel import is_remote_endpoint, open_tunnel, resolve_engine_address
from lyra_tasks.errors import EngineUnavailableError
from lyra_tasks.redaction import strip_url_credentials
from lyra_tasks.results.engine import EngineProperties

if TYPE_CHECKING:
    import docker

    from lyra_tasks.config.models import Configuration
    from lyra_tasks.paths import Paths

_CONNECT_TIMEOUT_S = 20
_REQUEST_TIMEOUT_S = 120
_STREAM_TIMEOUT_S = 10**7
_PROBE_TIMEOUT_S = 5
_CONNECTION_REASONS = {
    "Permission denied": "permission denied",
    "timed out": "no response",
    "No such file": "no such socket",
    "FileNotFound": "no such socket",
    "refused": "connection refused",
}
_ABSENCE_REASONS = frozenset({"no such socket", "connection refused"})
MIN_API_VERSION = (1, 41)  # Engine 20.10, the oldest version supported on Proxima


@dataclass(frozen=True)
class EngineFacts(EngineProperties):
    """Properties of an engine."""

    @property
    def release(self) -> tuple[int, ...]:
        """The version as comparable numbers: `26.1.5+dfsg1` is (26, 1, 5)."""
        return parse_version_numbers(self.version)


@dataclass(frozen=True)
class Engine:
    """A connection to an engine, with the path and the environment of the `docker` command for it.

    `stream_api` is a low-level client without a timeout. Published ports are bound to `host_address` and reached there.
    A remote engine cannot mount files of this machine.
    """

    client: docker.DockerClient
    stream_api: Any
    facts: EngineFacts
    host_address: str
    cli: str
    cli_environment: Mapping[str, str]
    is_remote: bool = False

    @property
    def host(self) -> str:
        """The value of `DOCKER_HOST` for programs without support for contexts (remote engines: the local tunnel)."""
        context = self.cli_environment.get("DOCKER_CONTEXT", "")
        host = read_context_endpoint(context) if context else self.cli_environment["DOCKER_HOST"]
        return open_tunnel(host, context).url if self.is_remote else host

    @property
    def endpoint(self) -> str:
        """How the engine is reached, for messages and the journal: its address, or the context of a remote one."""
        context = self.cli_environment.get("DOCKER_CONTEXT", "")
        return (
            f"the Docker context {context}" if context else strip_url_credentials(self.cli_environment["DOCKER_HOST"])
        )

    @property
    def api(self) -> Any:
        """The SDK's low-level client, one method per API call; partly untyped."""
        return self.client.api


def import_docker_sdk() -> None:
    """Import the Docker SDK ahead of time, since that takes a while."""
    import docker  # noqa: F401


def connect_engine(config: Configuration, paths: Paths) -> Engine:
    """Connect to the configured context, `DOCKER_HOST`, the current context or the private engine, in this order.

    With `[engine] sandbox = "auto"` the private engine is started if no engine is configured and none is there, with
    `"always"` no other engine is used. A private engine that was started by hand is used where no other one is there.
    """
    mode = config.engine.sandbox
    if mode != "always":
        try:
            return _connect_system_engine(config.engine.context)
        except NoEngineError:
            running = sandbox.find_sandbox(paths.state)
            if running is not None:
                return connect_sandbox(running)
            if mode == "never":
                raise
            console.info("No Docker engine is running; starting this project's private engine")
    return connect_sandbox(start_sandbox(config, paths))


def reconnect_engine() -> Engine:
    """Connect to the engine named by `Engine.cli_environment`, in a process started with that environment."""
    # the user's own DOCKER_CONTEXT is inherited as well; DOCKER_HOST takes precedence, as it does for `docker`
    return _connect_system_engine("" if os.environ.get("DOCKER_HOST") else os.environ.get("DOCKER_CONTEXT", ""))


def connect_existing_engine(config: Configuration, paths: Paths) -> Engine | None:
    """Connect to the engine that may hold objects of this project, or return None if there cannot be any."""
    connect = connect_engine if sandbox.has_sandbox_data(paths.state) else connect_running_engine
    return connect(config, paths)


def connect_running_engine(config: Configuration, paths: Paths) -> Engine | None:
    """Connect to a running engine, or return None if the private engine would have to be started."""
    if config.engine.sandbox == "never":
        return connect_engine(config, paths)
    if config.engine.sandbox == "auto":
        try:
            return _connect_system_engine(config.engine.context)
        except NoEngineError:
            pass
    running = sandbox.find_sandbox(paths.state)
    return connect_sandbox(running) if running else None


def start_sandbox(config: Configuration, paths: Paths) -> sandbox.Sandbox:
    """Start the project's private engine unless it is running, and return it."""
    with console.progress("starting the private engine"):
        share = config.resources.host_share
        return sandbox.launch_sandbox(paths.state, cache=paths.cache, suite=config.engine.suite, host_share=share)


class NoEngineError(EngineUnavailableError):
    """Nothing selects an engine, and none is at Docker's default address: a private one may take its place.

    Any other obstacle (permission, unknown context, an address that does not answer) is for the user to remove, since
    that engine may hold objects of the project.
    """


class UnsupportedEngineError(EngineUnavailableError):
    """An engine that must not or cannot be used; it is never silently replaced by another one."""


class RemoteEngineError(UnsupportedEngineError):
    """The environment selects an engine on another machine that the configuration does not name."""


def parse_version_numbers(text: str) -> tuple[int, ...]:
    """Return the leading dotted numbers of a version."""
    match = re.match(r"[0-9]{1,6}(\.[0-9]{1,6})*", text)
    return tuple(map(int, match[0].split("."))) if match else ()


def _connect_system_engine(context: str) -> Engine:
    from docker.errors import DockerException

    configured_host = os.environ.get("DOCKER_HOST", "") if not context else ""
    host = configured_host or read_context_endpoint(context)
    is_remote, tunnel = is_remote_endpoint(host), None
    try:
        if not context and is_remote:
            raise RemoteEngineError(
                f"The current Docker engine is on another machine ({host.split('@')[-1]})",
                hint='Add [engine] context = "NAME" to .lyra.toml to use that engine, or unset DOCKER_HOST',
            )
        if running_sandbox := sandbox.find_sandbox_at(host):
            return connect_sandbox(running_sandbox, is_own=False)
        address = resolve_engine_address(host)
        tunnel = open_tunnel(host, context) if is_remote else None
        client, stream_api, facts = _open_clients(tunnel.url if tunnel else host, sandboxed=False)
    except (DockerException, OSError, ValueError) as error:
        reason = describe_connection_error(error)
        is_none_there = not (context or configured_host) and host == DEFAULT_SOCKET and reason in _ABSENCE_REASONS
        raise (NoEngineError if is_none_there else EngineUnavailableError)(
            f"Cannot connect to a Docker engine at {strip_url_credentials(host)}{f': {reason}' if reason else ''}",
            hint=_connection_hint(error, host),
            details=tunnel.last_errors() if tunnel else (),
        ) from error
    docker_command = shutil.which("docker") or "docker"
    # an inherited DOCKER_HOST would take precedence over the context
    environment = {"DOCKER_CONTEXT": context, "DOCKER_HOST": ""} if context else {"DOCKER_HOST": host}
    return Engine(client, stream_api, facts, address, docker_command, environment, is_remote)


def connect_sandbox(running_sandbox: sandbox.Sandbox, *, is_own: bool = True) -> Engine:
    """Connect to a running private engine; if it is not this project's own, its build cache is left alone."""
    from docker.errors import DockerException

    try:
        client, stream_api, facts = _open_clients(f"unix://{running_sandbox.socket}", sandboxed=is_own)
    except (DockerException, OSError) as error:
        reason = describe_connection_error(error)
        raise EngineUnavailableError(
            f"The private engine is running but does not respond{f': {reason}' if reason else ''}",
            hint="Restart it with `engine.down engine.up`",
        ) from error
    address, docker_command = running_sandbox.address, str(running_sandbox.docker)
    return Engine(client, stream_api, facts, address, docker_command, running_sandbox.environment())


def _open_clients(base_url: str, *, sandboxed: bool) -> tuple[docker.DockerClient, Any, EngineFacts]:
    import docker

    client = docker.DockerClient(base_url=base_url, timeout=_CONNECT_TIMEOUT_S)
    stream_api = docker.APIClient(base_url=base_url, version=client.api.api_version, timeout=_STREAM_TIMEOUT_S)
    facts = _read_engine_facts(client, sandboxed=sandboxed)
    client.api.timeout = _REQUEST_TIMEOUT_S
    return client, stream_api, facts


def _read_engine_facts(client: docker.DockerClient, *, sandboxed: bool) -> EngineFacts:
    info: dict[str, Any] = client.info()
    version, api = str(info["ServerVersion"]), str(client.api.api_version)
    status = {str(key): str(value) for key, value in info.get("DriverStatus") or []}
    if parse_version_numbers(api) < MIN_API_VERSION:
        minimum = ".".join(map(str, MIN_API_VERSION))
        raise UnsupportedEngineError(
            f"Docker Engine {version} is not supported: API {api}, at least {minimum} required",
            hint='Use Docker Engine 20.10 or newer, or add [engine] context = "NAME" to .lyra.toml',
        )
    return EngineFacts(
        id=info["ID"],
        version=version,
        api=parse_version_numbers(api),
        store="containerd" if "containerd" in status.get("driver-type", "") else "classic",
        cpus=int(info["NCPU"]),
        memory=int(info["MemTotal"]),
        platform=f"{info['OSType']}/{docker_architecture(info['Architecture'])}",
        sandboxed=sandboxed,
    )


def read_component_versions(engine: Engine) -> dict[str, str]:
    """Return the versions of the engine's components (`Engine`, `containerd`, `runc`, …) by name."""
    with translate_errors("reading the engine's version"):
        components = engine.api.version().get("Components") or []
    return {str(component["Name"]): str(component["Version"]).removeprefix("v") for component in components}


def read_engine_time(engine: Engine) -> str:
    """Return the engine's clock time in ISO 8601."""
    with translate_errors("reading the engine's time"):
        return str(engine.api.info().get("SystemTime", ""))


def read_engine_id(host: str) -> str:
    """Return the id of the engine at an address of this machine; raise EngineUnavailableError with just the reason."""
    import docker
    from docker.errors import DockerException

    try:
        with closing(docker.APIClient(base_url=host, version="auto", timeout=_PROBE_TIMEOUT_S)) as client:
            return str(client.info()["ID"])
    except (DockerException, OSError, ValueError, LookupError, TypeError) as error:
        raise EngineUnavailableError(describe_connection_error(error) or "no valid answer") from error


def describe_connection_error(error: Exception) -> str:
    """Return why a connection failed, such as `permission denied`, or "" if its text does not tell."""
    text = str(error)
    for cause, reason in _CONNECTION_REASONS.items():
        if cause in text:
            return reason
    return ""


def _connection_hint(error: Exception, host: str) -> str:
    if is_remote_endpoint(host):
        return "Check that `docker --context NAME version` works without a prompt"
    if "Permission denied" in str(error):
        return "Add yourself to the group that owns the socket (usually docker), or run `engine.up` as root"
    return (
        "Start Docker, or select a context ([engine] context), or start a private engine with `engine.up` "
        'or [engine] sandbox = "auto"'
    )
