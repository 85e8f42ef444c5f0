"""Find what a service asks for and does not get: of the host, or at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lyra_tasks.compose.model import Location
from lyra_tasks.compose.translation.draft import Draft, ServiceDraft
from lyra_tasks.compose.translation.keys import HOST_ACCESS, NOTED, REFUSED

_DEFAULT_NETWORK_MODES = {"", "bridge", "default"}
_PRIVATE_MODES = {"", "private", "shareable"}
_HARMLESS_SECURITY_OPTIONS = {"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"}
_EMPTY: tuple[Any, ...] = (None, "", False, [], {})


def check_service(service: ServiceDraft) -> None:
    """Record each key of a service that is not carried."""
    _check_namespaces(service)
    for option in service.raw_list("security_opt"):
        if str(option) not in _HARMLESS_SECURITY_OPTIONS:
            service.ask_host(f"{option} ({HOST_ACCESS['services.*.security_opt']})", "security_opt")
    noted: set[Location] = set()
    for path, value in _walk_keys(("services", service.compose_name), service.raw):
        pattern = _to_pattern(path)
        if pattern in _CONDITIONAL or value in _EMPTY or any(path[: len(parent)] == parent for parent in noted):
            continue
        if pattern in HOST_ACCESS:
            service.ask_host(f"{HOST_ACCESS[pattern]} ({pattern.removeprefix('services.*.')})", *path[2:])
        elif pattern in REFUSED and pattern not in _REFUSED_ELSEWHERE:
            service.refuse(f"is not possible: {REFUSED[pattern]}", *path[2:])
        elif pattern in NOTED and not _is_default(pattern, value):
            service.draft.note(path, NOTED[pattern])
            noted.add(path)


def check_resources(draft: Draft, document: Mapping[str, Any]) -> None:
    """Record what is not carried of networks, volumes, secrets and configs that services use."""
    for table in ("networks", "volumes", "secrets", "configs"):
        for path, value in _walk_keys((table,), document.get(table) or {}):
            pattern = _to_pattern(path)
            if pattern in NOTED and value not in _EMPTY and not _is_default(pattern, value):
                draft.note(path, NOTED[pattern])


_CONDITIONAL = {
    f"services.*.{key}" for key in ("network_mode", "pid", "ipc", "uts", "userns_mode", "cgroup", "security_opt")
}
_REFUSED_ELSEWHERE = {f"services.*.build.{key}" for key in ("additional_contexts", "dockerfile_inline")}


def _check_namespaces(service: ServiceDraft) -> None:
    mode = str(service.raw.get("network_mode") or "")
    if mode == "host":
        service.ask_host(f"{HOST_ACCESS['services.*.network_mode']} (network_mode)", "network_mode")
    elif mode == "none":
        service.note("it shares a network with the other services, which leads nowhere else", "network_mode")
    elif mode not in _DEFAULT_NETWORK_MODES:
        other = mode.partition(":")[2] if mode.startswith("service:") else "the other service"
        message = f"delete the key, and use the name {other} instead of localhost" if ":" in mode else "delete the key"
        service.refuse(f"{mode} is not possible, every service has an address of its own: {message}", "network_mode")
    for key in ("pid", "ipc", "uts", "userns_mode", "cgroup"):
        value = str(service.raw.get(key) or "")
        if value == "host":
            service.ask_host(f"{HOST_ACCESS[f'services.*.{key}']} ({key})", key)
        elif value not in _PRIVATE_MODES:
            service.refuse(f"{value} is not possible, every container has namespaces of its own: delete the key", key)


def _is_default(pattern: str, value: object) -> bool:
    """Return whether a value is what Compose writes for one that is not set."""
    if pattern == "services.*.ports.[].mode":
        return value == "ingress"
    if pattern in {"services.*.deploy.replicas", "services.*.scale"}:
        return value in (0, 1)
    if pattern == "networks.*.ipam":
        return not any(item for item in dict(value).values()) if isinstance(value, dict) else False
    if pattern == "services.*.deploy.mode":
        return value == "replicated"
    return pattern in {
        "services.*.volumes.[].bind.create_host_path",  # written for every short form
        "services.*.depends_on.*.restart",
    }


def _walk_keys(path: Location, value: object) -> Iterator[tuple[Location, object]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, str(key)), item
            yield from _walk_keys((*path, str(key)), item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk_keys((*path, index), item)


_NAMED_TABLES = {"networks", "depends_on", "ulimits", "models"}


def _to_pattern(path: Location) -> str:
    """Return the path in the schema of a location: `services.*.ports.[].mode`."""
    parts: list[str] = []
    for index, part in enumerate(path):
        is_name = index == 1 or (index >= 2 and path[index - 1] in _NAMED_TABLES and index >= 3)
        parts.append("[]" if isinstance(part, int) else "*" if is_name else part)
    return ".".join(parts)
