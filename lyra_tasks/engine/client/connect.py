"""Choose the Docker engine of a project and connect to it.

An engine on another machine is used only if the configuration or `LYRA_ENGINE` names it.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.contexts import find_current_context, read_context_endpoint
from lyra_tasks.engine.client.endpoint import Endpoint, describe_permission_fix, is_on_this_machine, select_endpoint
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.client.facts import EngineFacts, UnsupportedEngineError, read_engine_facts
from lyra_tasks.engine.client.own_container import find_own_container
from lyra_tasks.engine.client.tunnel import open_tunnel, resolve_engine_address
from lyra_tasks.errors import EngineUnavailableError
from lyra_tasks.redaction import strip_url_credentials

if TYPE_CHECKING:
    from pathlib import Path

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
ENGINE_VARIABLE = "LYRA_ENGINE"


@dataclass(frozen=True)
class Engine:
    """A connection to an engine, with the path and the environment of the `docker` command for it.

    `stream_api` is a low-level client without a timeout. Published ports are bound to `host_address` and reached there;
    if it is empty, they cannot be reached. An engine that does not share files cannot mount those of this program.
    `blobs` is the directory of the content of images, by digest, if it is a private engine's. An engine that may proxy
    ports accepts connections for a service that listens on none, and closes them.
    """

    client: docker.DockerClient
    stream_api: Any
    facts: EngineFacts
    host_address: str
    cli: str
    cli_environment: Mapping[str, str]
    is_remote: bool = False
    shares_files: bool = True
    blobs: Path | None = None
    may_proxy_ports: bool = True

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
    """Connect to the configured engine, `DOCKER_HOST`, the current context or the private engine, in this order.

    With `[engine] sandbox = "auto"` the private engine is started if no engine is configured and none is there, with
    `"always"` no other engine is used, except that of `LYRA_ENGINE`. A private engine that was started by hand is used
    where no other one is there.
    """
    mode = _sandbox_mode(config)
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
    return _connect_system_engine(os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CONTEXT", ""))


def connect_existing_engine(config: Configuration, paths: Paths) -> Engine | None:
    """Connect to the engine that may hold objects of this project, or return None if there cannot be any."""
    connect = connect_engine if sandbox.has_sandbox_data(paths.state) else connect_running_engine
    return connect(config, paths)


def connect_running_engine(config: Configuration, paths: Paths) -> Engine | None:
    """Connect to a running engine, or return None if the private engine would have to be started."""
    mode = _sandbox_mode(config)
    if mode == "never":
        return connect_engine(config, paths)
    if mode == "auto":
        try:
            return _connect_system_engine(config.engine.context)
        except NoEngineError:
            pass
    running = sandbox.find_sandbox(paths.state)
    return connect_sandbox(running) if running else None


def _sandbox_mode(config: Configuration) -> str:
    return "never" if os.environ.get(ENGINE_VARIABLE) else config.engine.sandbox


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


class RemoteEngineError(UnsupportedEngineError):
    """The environment selects an engine on another machine that neither configuration nor `LYRA_ENGINE` names."""


def _connect_system_engine(configured: str) -> Engine:
    from docker.errors import DockerException

    endpoint, tunnel = select_endpoint(configured), None
    try:
        if not endpoint.is_permitted and not is_on_this_machine(endpoint.host):
            raise _remote_engine_error(endpoint)
        if running_sandbox := sandbox.find_sandbox_at(endpoint.host):
            return connect_sandbox(running_sandbox, is_own=False)
        address = resolve_engine_address(endpoint.host)
        tunnel = open_tunnel(endpoint.host, endpoint.context) if endpoint.is_remote else None
        client, stream_api, facts = _open_clients(tunnel.url if tunnel else endpoint.host, sandboxed=False)
        container = None if endpoint.is_remote else find_own_container(client)
    except (DockerException, OSError, ValueError) as error:
        reason = describe_connection_error(error)
        is_none_there = not endpoint.is_chosen and reason in _ABSENCE_REASONS
        raise (NoEngineError if is_none_there else EngineUnavailableError)(
            f"Cannot connect to a Docker engine at {endpoint.address}{f': {reason}' if reason else ''}",
            hint=_connection_hint(reason, endpoint),
            details=tunnel.last_errors() if tunnel else (),
        ) from error
    return Engine(
        client,
        stream_api,
        facts,
        host_address=container.host_address if container else address,
        cli=shutil.which("docker") or "docker",
        cli_environment=endpoint.cli_environment,
        is_remote=endpoint.is_remote,
        shares_files=not endpoint.is_remote and container is None,
    )


def _remote_engine_error(endpoint: Endpoint) -> RemoteEngineError:
    context, source = find_current_context()
    name, source = (endpoint.address, "DOCKER_HOST") if os.environ.get("DOCKER_HOST") else (context, source)
    return RemoteEngineError(
        f"The current Docker engine is on another machine ({endpoint.address}): selected by {source}",
        hint=f"To use it, run `export {ENGINE_VARIABLE}={shlex.quote(name)}`, or set [engine] context in .lyra.toml; "
        "else select another one",
    )


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
    address, docker_command, blobs = running_sandbox.address, str(running_sandbox.docker), running_sandbox.blobs
    # of its address, which is that of another network, the kernel forwards the ports
    return Engine(
        client,
        stream_api,
        facts,
        address,
        docker_command,
        running_sandbox.environment(),
        blobs=blobs,
        may_proxy_ports=False,
    )


def _open_clients(base_url: str, *, sandboxed: bool) -> tuple[docker.DockerClient, Any, EngineFacts]:
    import docker

    client = docker.DockerClient(base_url=base_url, timeout=_CONNECT_TIMEOUT_S)
    stream_api = docker.APIClient(base_url=base_url, version=client.api.api_version, timeout=_STREAM_TIMEOUT_S)
    facts = read_engine_facts(client, sandboxed=sandboxed)
    client.api.timeout = _REQUEST_TIMEOUT_S
    return client, stream_api, facts


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


def _connection_hint(reason: str, endpoint: Endpoint) -> str:
    if endpoint.is_remote:
        option = f"--context {endpoint.context}" if endpoint.context else f"--host {endpoint.address}"
        return f"Check that `docker {option} version` works without a prompt"
    if reason == "permission denied":
        return describe_permission_fix(endpoint.host)
    if endpoint.is_chosen:
        is_by_host = not endpoint.is_permitted and os.environ.get("DOCKER_HOST")
        other = "run `unset DOCKER_HOST`" if is_by_host else "run `docker context use NAME`"
        return f"Start that engine, or {other}, or name another one in [engine] context or {ENGINE_VARIABLE}"
    return (
        "Start Docker, or select a context ([engine] context), or start a private engine with `engine.up` "
        'or [engine] sandbox = "auto"'
    )
