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
from lyra_tasks.config.platforms import architecture_named
from lyra_tasks.config.text import public
from lyra_tasks.engine import remote, sandbox
from lyra_tasks.engine.contexts import endpoint
from lyra_tasks.engine.faults import engine_faults
from lyra_tasks.errors import EngineUnavailableError

if TYPE_CHECKING:
    import docker

    from lyra_tasks.config.models import Configuration
    from lyra_tasks.run import Paths

_TIMEOUT = 120
_FIRST_ANSWER = 20  # seconds; an engine that does not say who it is by then will not do anything else, either
MIN_API = (1, 41)  # of Engine 20.10, the oldest that Proxima may have
_FOREVER = 10**7


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
        return version_numbers(self.version)


@dataclass(frozen=True)
class Engine:
    """A connected engine: the SDK client, one without time limit for streams, and the environment of the `docker` CLI.

    Published ports are bound to `publish_on`, an address of the engine's host, and answer at `reach_at`. An engine that
    is `remote` does not see this machine's files.
    """

    client: docker.DockerClient
    streams: Any
    facts: EngineFacts
    publish_on: str
    reach_at: str
    cli: str
    cli_environment: Mapping[str, str]
    remote: bool = False

    @property
    def host(self) -> str:
        """Where it answers, for programs that read `DOCKER_HOST` and know no contexts: of another machine, our end."""
        context = self.cli_environment.get("DOCKER_CONTEXT", "")
        host = endpoint(context) if context else self.cli_environment["DOCKER_HOST"]
        return remote.tunnel(host, context).url if self.remote else host

    @property
    def api(self) -> Any:
        """The SDK's low-level client, one method per engine call; half of it has no types."""
        return self.client.api


def prepare() -> None:
    """Import what talks to an engine, which takes a while: to be done while something else is waited for."""
    import docker  # noqa: F401


def connect(config: Configuration, paths: Paths) -> Engine:
    """The engine this project uses: its context, the environment's, the current context's, or the sandbox.

    `[engine] sandbox = "auto"` starts the sandbox where no engine answers, `"always"` uses nothing else; one that was
    started by hand is used where no other answers. EngineUnavailableError says what to do.
    """
    mode = config.engine.sandbox
    if mode != "always":
        try:
            return _system(config.engine.context)
        except EngineUnavailableError as error:
            running = sandbox.find(paths.state)
            if running is not None:
                return engine_in(running)
            if mode == "never" or config.engine.context or isinstance(error, UnfitEngineError):
                raise
            console.note("no Docker engine answers; starting this project's private one")
    return engine_in(start_sandbox(config, paths))


def reconnect() -> Engine:
    """The engine that `cli_environment` names, in a process that was started with it."""
    # the user's own DOCKER_CONTEXT is in the environment, too, and DOCKER_HOST goes before it, as for `docker`
    return _system("" if os.environ.get("DOCKER_HOST") else os.environ.get("DOCKER_CONTEXT", ""))


def connect_existing(config: Configuration, paths: Paths) -> Engine | None:
    """The engine that may hold something of ours, or None: no sandbox is made only to be looked through."""
    return connect(config, paths) if sandbox.has_data(paths.state) else connect_running(config, paths)


def connect_running(config: Configuration, paths: Paths) -> Engine | None:
    """The engine that answers now, or None where one would be started; EngineUnavailableError where none would be."""
    if config.engine.sandbox == "never":
        return connect(config, paths)
    if config.engine.sandbox == "auto":
        try:
            return _system(config.engine.context)
        except UnfitEngineError:
            raise
        except EngineUnavailableError:
            pass
    running = sandbox.find(paths.state)
    return engine_in(running) if running else None


def start_sandbox(config: Configuration, paths: Paths) -> sandbox.Sandbox:
    """The project's sandbox engine, started if it is not running yet."""
    with console.doing("starting the private engine"):
        return sandbox.up(paths.state, cache=paths.cache, suite=config.engine.suite)


class UnfitEngineError(EngineUnavailableError):
    """An engine is there, and must not or cannot be used: no other one takes its place in silence."""


class RemoteEngineError(UnfitEngineError):
    """The environment points at another machine, which the configuration does not name."""


def version_numbers(text: str) -> tuple[int, ...]:
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


def _system(context: str) -> Engine:
    import docker
    from docker.errors import DockerException

    host = os.environ.get("DOCKER_HOST", "") if not context else ""
    host = host or endpoint(context)
    remotely, way = remote.is_remote(host), None
    try:
        if not context and remotely:
            raise RemoteEngineError(
                f"the current Docker engine is on another machine ({host.split('@')[-1]})",
                hint='name its context in .lyra.toml ([engine] context = "…") if that is meant, or unset DOCKER_HOST',
            )
        if box := sandbox.behind(host):
            return engine_in(box, own=False)
        address = remote.address_of(host)
        way = remote.tunnel(host, context) if remotely else None
        url = way.url if way else host
        client = docker.DockerClient(base_url=url, timeout=_FIRST_ANSWER)
        streams = docker.APIClient(base_url=url, version=client.api.api_version, timeout=_FOREVER)
        facts = read_facts(client, sandboxed=False)
    except (DockerException, OSError, ValueError) as error:
        raise EngineUnavailableError(
            f"no Docker engine answers at {public(host)}{_reason(error)}",
            hint=_choices(error, host),
            details=way.said() if way else (),
        ) from error
    cli = shutil.which("docker") or "docker"
    # an inherited DOCKER_HOST would win over the context
    environment = {"DOCKER_CONTEXT": context, "DOCKER_HOST": ""} if context else {"DOCKER_HOST": host}
    return Engine(client, streams, facts, address, address, cli, environment, remotely)


def engine_in(box: sandbox.Sandbox, *, own: bool = True) -> Engine:
    """A connection to a running sandbox engine; one that is not `own` counts as any other's, its builder cache too."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.DockerClient(base_url=f"unix://{box.socket}", timeout=_FIRST_ANSWER)
        streams = docker.APIClient(base_url=f"unix://{box.socket}", version=client.api.api_version, timeout=_FOREVER)
        facts = read_facts(client, sandboxed=own)
    except (DockerException, OSError) as error:
        raise EngineUnavailableError(
            f"the sandbox engine is running but does not answer{_reason(error)}",
            hint="`engine.down engine.up` starts it anew",
        ) from error
    return Engine(client, streams, facts, box.address, box.address, str(box.docker), box.environment())


def read_facts(client: docker.DockerClient, *, sandboxed: bool) -> EngineFacts:
    """What the engine behind `client` says of itself."""
    info: dict[str, Any] = client.info()
    version, api = str(info["ServerVersion"]), str(client.api.api_version)
    status = {str(key): str(value) for key, value in info.get("DriverStatus") or []}
    _require_api(version, api)
    client.api.timeout = _TIMEOUT
    return EngineFacts(
        id=info["ID"],
        version=version,
        api=version_numbers(api),
        store="containerd" if "containerd" in status.get("driver-type", "") else "classic",
        cpus=int(info["NCPU"]),
        memory=int(info["MemTotal"]),
        platform=f"{info['OSType']}/{architecture_named(info['Architecture'])}",
        sandboxed=sandboxed,
    )


def _require_api(version: str, api: str) -> None:
    if version_numbers(api) < MIN_API:
        least = ".".join(map(str, MIN_API))
        raise UnfitEngineError(
            f"Docker Engine {version} speaks API {api}, and {least} is the oldest that is known here",
            hint="use Docker Engine 20.10 or newer, or name another one's context ([engine] context)",
        )


def components(engine: Engine) -> dict[str, str]:
    """The versions of what the engine consists of: `Engine`, `containerd`, `runc`, …"""
    with engine_faults("asking for its version"):
        said = engine.api.version().get("Components") or []
    return {str(each["Name"]): str(each["Version"]).removeprefix("v") for each in said}


def engine_time(engine: Engine) -> str:
    """The engine's own clock, as ISO 8601."""
    with engine_faults("asking for its time"):
        return str(engine.api.info().get("SystemTime", ""))


def _reason(error: Exception) -> str:
    text = str(error)
    if "Permission denied" in text:
        return ": permission denied"
    if "timed out" in text:
        return ": it takes connections, and says nothing"
    if "No such file" in text or "FileNotFound" in text:
        return ": no such socket"
    return ": connection refused" if "refused" in text else ""


def _choices(error: Exception, host: str) -> str:
    if remote.is_remote(host):
        return "see that `docker --context NAME version` answers, without asking for anything"
    if "Permission denied" in str(error):
        return "add yourself to the group that owns the socket (usually docker), or run `engine.up` as root"
    return (
        "start Docker, or name a context ([engine] context), or let Lyra make a private engine: "
        '`engine.up`, or [engine] sandbox = "auto"'
    )
