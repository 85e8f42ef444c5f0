"""What an engine says about itself, whether it is one that Lyra supports, and which vulnerabilities it is known for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lyra_tasks.config.platforms import docker_architecture
from lyra_tasks.errors import EngineUnavailableError
from lyra_tasks.results.engine import EngineProperties

if TYPE_CHECKING:
    import docker

MIN_API_VERSION = (1, 41)  # Engine 20.10, the oldest version supported on Proxima
_LIMITS = {"MemoryLimit": "memory", "CpuCfsQuota": "CPUs", "PidsLimit": "processes"}
_ROOTLESS = "name=rootless"
_LIMITS_FIX = "Use a kernel with the memory, cpu and pids controllers"
_ROOTLESS_LIMITS_FIX = (
    "Use cgroup v2 and delegate its controllers to the user: "
    "https://docs.docker.com/engine/security/rootless/tips/#limiting-resources"
)


@dataclass(frozen=True)
class EngineFacts(EngineProperties):
    """Properties of an engine. `missing_limits` are those that it cannot enforce: `memory`, `CPUs`, `processes`."""

    is_rootless: bool = False
    missing_limits: tuple[str, ...] = ()

    @property
    def release(self) -> tuple[int, ...]:
        """The version as comparable numbers: `26.1.5+dfsg1` is (26, 1, 5)."""
        return parse_version_numbers(self.version)

    @property
    def limits_fix(self) -> str:
        """What lets the engine enforce the limits that are missing."""
        return _ROOTLESS_LIMITS_FIX if self.is_rootless else _LIMITS_FIX


class UnsupportedEngineError(EngineUnavailableError):
    """An engine that must not or cannot be used; it is never silently replaced by another one."""


def parse_version_numbers(text: str) -> tuple[int, ...]:
    """Return the leading dotted numbers of a version."""
    match = re.match(r"[0-9]{1,6}(\.[0-9]{1,6})*", text)
    return tuple(map(int, match[0].split("."))) if match else ()


def read_engine_facts(client: docker.DockerClient, *, sandboxed: bool) -> EngineFacts:
    """Read the properties of an engine, or raise UnsupportedEngineError."""
    info: dict[str, Any] = client.info()
    api = parse_version_numbers(str(client.api.api_version))
    _require_supported(info, api)
    status = {str(key): str(value) for key, value in info.get("DriverStatus") or []}
    return EngineFacts(
        id=info["ID"],
        version=str(info["ServerVersion"]),
        api=api,
        store="containerd" if "containerd" in status.get("driver-type", "") else "classic",
        cpus=int(info["NCPU"]),
        memory=int(info["MemTotal"]),
        platform=f"{info['OSType']}/{docker_architecture(info['Architecture'])}",
        sandboxed=sandboxed,
        is_rootless=_ROOTLESS in (info.get("SecurityOptions") or ()),
        missing_limits=tuple(name for key, name in _LIMITS.items() if info.get(key) is False),
    )


def _require_supported(info: Mapping[str, Any], api: tuple[int, ...]) -> None:
    version = info["ServerVersion"]
    if "BuildahVersion" in info:  # Podman builds by Buildah, and says so in no other engine's words
        raise UnsupportedEngineError(
            f"Podman {version} is not supported: Lyra needs a Docker Engine",
            hint="Start Docker and select it: `unset DOCKER_HOST`, [engine] context, or `docker context use NAME`; "
            'or set [engine] sandbox = "always" for a private engine',
        )
    if api < MIN_API_VERSION:
        minimum = ".".join(map(str, MIN_API_VERSION))
        raise UnsupportedEngineError(
            f"Docker Engine {version} is not supported: API {'.'.join(map(str, api))}, at least {minimum} required",
            hint='Use Docker Engine 20.10 or newer, or add [engine] context = "NAME" to .lyra.toml',
        )


@dataclass(frozen=True)
class Advisory:
    """A vulnerability of a component, and the first fixed version of each release line."""

    component: str
    title: str
    fixed_versions: tuple[tuple[int, ...], ...]


# From the projects' advisories. Release lines that are not listed and older than the newest listed were never fixed.
_ADVISORIES = (
    Advisory("Engine", "CVE-2024-23651 and others (a build can reach files of the host)", ((24, 0, 9), (25, 0, 2))),
    Advisory("Engine", "CVE-2024-29018 (names leave an internal network)", ((23, 0, 11), (25, 0, 5), (26, 0, 0))),
    Advisory("runc", "CVE-2024-21626 (a container can reach the host)", ((1, 1, 12),)),
    Advisory("runc", "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881 (the same)", ((1, 2, 8), (1, 3, 3))),
)


def find_advisories(components: Mapping[str, str]) -> list[Advisory]:
    """Return the advisories that affect components, by their versions; an unreadable version is not affected."""
    versions = {name: parse_version_numbers(version) for name, version in components.items()}
    return [advisory for advisory in _ADVISORIES if _is_vulnerable(versions.get(advisory.component, ()), advisory)]


def _is_vulnerable(version: tuple[int, ...], advisory: Advisory) -> bool:
    same_line = [fixed for fixed in advisory.fixed_versions if fixed[:2] == version[:2]]
    return bool(version) and version < max(same_line or advisory.fixed_versions)
