"""Which engine is used, and a connection to it.

Never another machine by mistake (R4): a remote engine is used only where the configuration names its context.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lyra_tasks import console
from lyra_tasks.config.platforms import docker_architecture
from lyra_tasks.engine import sandbox
from lyra_tasks.engine.client.contexts import read_context_endpoint
from lyra_tasks.engine.client.errors import translate_errors
from lyra_tasks.engine.client.tunnel import is_remote_endpoint, open_tunnel, resolve_engine_address
from lyra_tasks.errors import EngineUnavailableError
from lyra_tasks.redaction import strip_url_credentials

if TYPE_CHECKING:
    import docker

    from lyra_tasks.config.models import Configuration
    from lyra_tasks.paths import Paths

_REQUEST_TIMEOUT_S = 120
_CONNECT_TIMEOUT_S = 20  # seconds; an engine that does not say who it is by then will not do anything else, either
MIN_API_VERSION = (1, 41)  # of Engine 20.10, the oldest that Proxima may have
_STREAM_TIMEOUT_S = 10**7


@dataclass(frozen=True)
class EngineFacts:
    """What the engine says of itself; memory in bytes, `store` is `classic` or `containerd`."""

    id: str
    version: str
    api: tuple[int, ...]
    store: str
    cpus: int
    memory: int
    platform: str
    sandboxed: bool

    @property
    def release(self) -> tuple[int, ...]:
        """The version as numbers that compare: `26.1.5+dfsg1` is (26, 1, 5)."""
        return parse_version_numbers(self.version)


@dataclass(frozen=True)
class Engine:
    """A connected engine: the SDK client, one without time limit for streams, and the environment of the `docker` CLI.

    Published ports are bound to `publish_on`, an address of the engine's host, and answer at `reach_at`. An engine that
    is `remote` does not see this machine's files.
    """

    client: docker.DockerClient
    stream_api: Any
    facts: EngineFacts
    publish_address: str
    host_address: str
    cli: str
    cli_environment: Mapping[str, str]
    is_remote: bool = False

    @property
    def host(self) -> str:
        """Where it answers, for programs that read `DOCKER_HOST` and know no contexts: of another machine, our end."""
        context = self.cli_environment.get("DOCKER_CONTEXT", "")
        host = read_context_endpoint(context) if context else self.cli_environment["DOCKER_HOST"]
        return open_tunnel(host, context).url if self.is_remote else host

    @property
    def api(self) -> Any:
        """The SDK's low-level client, one method per engine call; half of it has no types."""
        return self.client.api


def import_docker_sdk() -> None:
    """Import what talks to an engine, which takes a while: to be done while something else is waited for."""
    import docker  # noqa: F401


def connect_engine(config: Configuration, paths: Paths) -> Engine:
    """The engine this project uses: its context, the environment's, the current context's, or the sandbox.

    `[engine] sandbox = "auto"` starts the sandbox where no engine answers, `"always"` uses nothing else; one that was
    started by hand is used where no other answers. EngineUnavailableError says what to do.
    """
    mode = config.engine.sandbox
    if mode != "always":
        try:
            return _connect_system_engine(config.engine.context)
        except EngineUnavailableError as error:
            running = sandbox.find_sandbox(paths.state)
            if running is not None:
                return connect_sandbox(running)
            if mode == "never" or config.engine.context or isinstance(error, UnsupportedEngineError):
                raise
            console.info("no Docker engine answers; starting this project's private one")
    return connect_sandbox(start_sandbox(config, paths))


def reconnect_engine() -> Engine:
    """The engine that `cli_environment` names, in a process that was started with it."""
    # the user's own DOCKER_CONTEXT is in the environment, too, and DOCKER_HOST goes before it, as for `docker`
    return _connect_system_engine("" if os.environ.get("DOCKER_HOST") else os.environ.get("DOCKER_CONTEXT", ""))


def connect_existing_engine(config: Configuration, paths: Paths) -> Engine | None:
    """The engine that may hold something of ours, or None: no sandbox is made only to be looked through."""
    return (
        connect_engine(config, paths)
        if sandbox.has_sandbox_data(paths.state)
        else connect_running_engine(config, paths)
    )


def connect_running_engine(config: Configuration, paths: Paths) -> Engine | None:
    """The engine that answers now, or None where one would be started; EngineUnavailableError where none would be."""
    if config.engine.sandbox == "never":
        return connect_engine(config, paths)
    if config.engine.sandbox == "auto":
        try:
            return _connect_system_engine(config.engine.context)
        except UnsupportedEngineError:
            raise
        except EngineUnavailableError:
            pass
    running = sandbox.find_sandbox(paths.state)
    return connect_sandbox(running) if running else None


def start_sandbox(config: Configuration, paths: Paths) -> sandbox.Sandbox:
    """The project's sandbox engine, started if it is not running yet."""
    with console.progress("starting the private engine"):
        return sandbox.launch_sandbox(paths.state, cache=paths.cache, suite=config.engine.suite)


class UnsupportedEngineError(EngineUnavailableError):
    """An engine is there, and must not or cannot be used: no other one takes its place in silence."""


class RemoteEngineError(UnsupportedEngineError):
    """The environment points at another machine, which the configuration does not name."""


def parse_version_numbers(text: str) -> tuple[int, ...]:
    """The leading dotted numbers of a version."""
    numbers: list[int] = []
    for part in text.split("."):
        digits = "".join(character for character in part[:6] if character.isdigit())
        if not part[:1].isdigit():
            break
        numbers.append(int(digits))
        if not part.isdigit():
            break
    return tuple(numbers)


def _connect_system_engine(context: str) -> Engine:
    import docker
    from docker.errors import DockerException

    host = os.environ.get("DOCKER_HOST", "") if not context else ""
    host = host or read_context_endpoint(context)
    is_remote, tunnel = is_remote_endpoint(host), None
    try:
        if not context and is_remote:
            raise RemoteEngineError(
                f"the current Docker engine is on another machine ({host.split('@')[-1]})",
                hint='name its context in .lyra.toml ([engine] context = "…") if that is meant, or unset DOCKER_HOST',
            )
        if running_sandbox := sandbox.find_sandbox_at(host):
            return connect_sandbox(running_sandbox, is_own=False)
        address = resolve_engine_address(host)
        tunnel = open_tunnel(host, context) if is_remote else None
        base_url = tunnel.url if tunnel else host
        client = docker.DockerClient(base_url=base_url, timeout=_CONNECT_TIMEOUT_S)
        stream_api = docker.APIClient(base_url=base_url, version=client.api.api_version, timeout=_STREAM_TIMEOUT_S)
        facts = read_engine_facts(client, sandboxed=False)
    except (DockerException, OSError, ValueError) as error:
        raise EngineUnavailableError(
            f"no Docker engine answers at {strip_url_credentials(host)}{_error_text(error)}",
            hint=_connection_hint(error, host),
            details=tunnel.last_errors() if tunnel else (),
        ) from error
    docker_command = shutil.which("docker") or "docker"
    # an inherited DOCKER_HOST would win over the context
    environment = {"DOCKER_CONTEXT": context, "DOCKER_HOST": ""} if context else {"DOCKER_HOST": host}
    return Engine(client, stream_api, facts, address, address, docker_command, environment, is_remote)


def connect_sandbox(running_sandbox: sandbox.Sandbox, *, is_own: bool = True) -> Engine:
    """A connection to a running sandbox engine; one that is not `own` counts as any other's, its builder cache too."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.DockerClient(base_url=f"unix://{running_sandbox.socket}", timeout=_CONNECT_TIMEOUT_S)
        stream_api = docker.APIClient(
            base_url=f"unix://{running_sandbox.socket}", version=client.api.api_version, timeout=_STREAM_TIMEOUT_S
        )
        facts = read_engine_facts(client, sandboxed=is_own)
    except (DockerException, OSError) as error:
        raise EngineUnavailableError(
            f"the sandbox engine is running but does not answer{_error_text(error)}",
            hint="`engine.down engine.up` starts it anew",
        ) from error
    return Engine(
        client,
        stream_api,
        facts,
        running_sandbox.address,
        running_sandbox.address,
        str(running_sandbox.docker),
        running_sandbox.environment(),
    )


def read_engine_facts(client: docker.DockerClient, *, sandboxed: bool) -> EngineFacts:
    """What the engine behind `client` says of itself."""
    info: dict[str, Any] = client.info()
    version, api = str(info["ServerVersion"]), str(client.api.api_version)
    status = {str(key): str(value) for key, value in info.get("DriverStatus") or []}
    _require_api(version, api)
    client.api.timeout = _REQUEST_TIMEOUT_S
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


def _require_api(version: str, api: str) -> None:
    if parse_version_numbers(api) < MIN_API_VERSION:
        minimum = ".".join(map(str, MIN_API_VERSION))
        raise UnsupportedEngineError(
            f"Docker Engine {version} speaks API {api}, and {minimum} is the oldest that is known here",
            hint="use Docker Engine 20.10 or newer, or name another one's context ([engine] context)",
        )


def read_component_versions(engine: Engine) -> dict[str, str]:
    """The versions of what the engine consists of: `Engine`, `containerd`, `runc`, …"""
    with translate_errors("asking for its version"):
        components = engine.api.version().get("Components") or []
    return {str(component["Name"]): str(component["Version"]).removeprefix("v") for component in components}


def read_engine_time(engine: Engine) -> str:
    """The engine's own clock, as ISO 8601."""
    with translate_errors("asking for its time"):
        return str(engine.api.info().get("SystemTime", ""))


def _error_text(error: Exception) -> str:
    text = str(error)
    if "Permission denied" in text:
        return ": permission denied"
    if "timed out" in text:
        return ": it takes connections, and says nothing"
    if "No such file" in text or "FileNotFound" in text:
        return ": no such socket"
    return ": connection refused" if "refused" in text else ""


def _connection_hint(error: Exception, host: str) -> str:
    if is_remote_endpoint(host):
        return "see that `docker --context NAME version` answers, without asking for anything"
    if "Permission denied" in str(error):
        return "add yourself to the group that owns the socket (usually docker), or run `engine.up` as root"
    return (
        "start Docker, or name a context ([engine] context), or let Lyra make a private engine: "
        '`engine.up`, or [engine] sandbox = "auto"'
    )
