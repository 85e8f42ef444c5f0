"""`deploy/compose.yaml`: on Proxima runs what was tested on Lyra, with the same limits and the same hardening."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lyra_tasks.bundle.subject import PromotedService
from lyra_tasks.config.deployment import config_path, object_name, stands_as_default
from lyra_tasks.config.models import ConfigFile, Healthcheck, SecretFile

_HEAD = """\
# Written by lyra-tasks; PROMOTION.md says what every variable means. Copy .env.example to .env and fill it in.
"""


def compose_text(project: str, services: Sequence[PromotedService], platforms: Mapping[str, str]) -> str:
    """The compose file as text; its paths are relative to its own folder. `platforms` are by service."""
    import yaml

    return _HEAD + yaml.safe_dump(
        compose_document(project, services, platforms), sort_keys=False, default_flow_style=False, width=100
    )


def compose_document(project: str, services: Sequence[PromotedService], platforms: Mapping[str, str]) -> dict[str, Any]:
    """The compose file as a document; a service without a platform runs on that of the node."""
    names = {each.name: each for each in services}
    document: dict[str, Any] = {
        "name": project.replace(".", "-"),
        "services": {each.name: _service(each, names, platforms.get(each.name)) for each in services},
        "networks": {"inner": {"internal": True}},
    }
    if any(each.service.ports and not each.service.egress for each in services):
        document["networks"]["edge"] = {"driver_opts": {"com.docker.network.bridge.enable_ip_masquerade": "false"}}
    if any(each.service.egress for each in services):
        document["networks"]["out"] = {}
    parts: dict[str, dict[str, Any]] = {
        "volumes": {object_name(each.name, key): {} for each in services for key in each.service.volumes},
        "configs": {
            object_name(each.name, key): {"file": _literal(f"./{config_path(each.name, key, file.source)}")}
            for each in services
            for key, file in each.service.configs.items()
        },
        "secrets": {
            object_name(each.name, key): {"file": _required(each.secret_variable(key), f"path of the file with {key}")}
            for each in services
            for key in each.service.secrets
        },
    }
    return document | {key: value for key, value in parts.items() if value}


def _service(each: PromotedService, names: dict[str, PromotedService], platform: str | None) -> dict[str, Any]:
    service, shape = each.service, each.shape
    networks = ["inner", *(["out"] if service.egress else ["edge"] if service.ports else [])]
    described: dict[str, Any] = {
        "image": each.reference,
        "platform": platform,
        "pull_policy": "never",
        "entrypoint": _escaped(service.entrypoint),
        "command": _escaped(service.command),
        "user": service.user,
        "working_dir": _literal(service.working_dir),
        "stop_signal": service.stop_signal,
        "environment": _environment(each),
        "ports": [f"{_published(each, name)}:{port}" for name, port in service.ports.items()],
        "networks": networks,
        "depends_on": {
            other: {"condition": _condition(names[other])} for other in service.depends_on if other in names
        },
        "volumes": [f"{object_name(each.name, key)}:{_literal(one.path)}" for key, one in service.volumes.items()],
        "configs": _mounted(each, service.configs),
        "secrets": _mounted(each, service.secrets),
        "healthcheck": _healthcheck(service.healthcheck),
    }
    hardening = {
        "read_only": service.read_only,
        "init": True,
        "restart": "no" if service.oneshot else "unless-stopped",
        "cap_drop": ["ALL"],
        "cap_add": list(service.cap_add),
        "security_opt": ["no-new-privileges:true"],
        "ipc": "private",
        "cpus": service.limits.cpus,
        "mem_limit": shape.memory,
        "memswap_limit": shape.memory,
        "pids_limit": service.limits.pids,
        "ulimits": {"nofile": {"soft": 1024, "hard": 1024}, "core": 0},
        "tmpfs": [
            f"{_literal(path)}:rw,noexec,nosuid,nodev,size={size},mode=1777"
            for path, size in sorted(shape.tmpfs.items())
        ],
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }
    return {key: value for key, value in (described | hardening).items() if value not in (None, "", [], {})}


def _published(each: PromotedService, port: str) -> str:
    variable, place = each.publish_variable(port), each.places[port]
    return f"${{{variable}:-{place}}}" if place else _required(variable, f"where {each.name} publishes its port {port}")


def _mounted(each: PromotedService, files: Mapping[str, ConfigFile] | Mapping[str, SecretFile]) -> list[dict[str, str]]:
    return [{"source": object_name(each.name, key), "target": _literal(file.path)} for key, file in files.items()]


def _environment(each: PromotedService) -> dict[str, str]:
    values = {}
    for name, variable in each.service.environment.items():
        if variable.default is not None and not stands_as_default(variable.default):
            values[name] = f"${{{name}?its default stands in .env.example}}"
        elif variable.default is not None:
            values[name] = f"${{{name}-{_literal(variable.default)}}}"
        elif variable.secret or variable.required:
            values[name] = _required(name, variable.description or "required")
        else:
            values[name] = f"${{{name}-}}"
    return values


def _required(name: str, message: str) -> str:
    return f"${{{name}:?{_literal(message).replace('}', ')')}}}"


def _condition(other: PromotedService) -> str:
    if other.service.oneshot:
        return "service_completed_successfully"
    check = other.service.healthcheck
    if check is not None and check.exec is None:
        return "service_started"
    return "service_healthy" if other.shape.has_healthcheck else "service_started"


def _healthcheck(check: Healthcheck | None) -> dict[str, Any] | None:
    """An `exec` check; `http` and `tcp` were asked from outside and are not shipped."""
    if check is None or check.exec is None:
        return None
    words = check.exec
    found = {
        "test": ["CMD", *_escaped_list(words)] if isinstance(words, list) else ["CMD-SHELL", _literal(words)],
        "interval": f"{check.interval:g}s",
        "timeout": f"{check.timeout:g}s",
        "retries": check.retries,
    }
    if check.start_period is not None:
        found["start_period"] = f"{check.start_period:g}s"
    return found


def _escaped(command: list[str] | str | None) -> list[str] | None:
    if command is None:
        return None
    return _escaped_list(command if isinstance(command, list) else ["/bin/sh", "-c", command])


def _escaped_list(words: list[str]) -> list[str]:
    return [_literal(word) for word in words]


def _literal(text: str) -> str:
    """Compose reads `$` as the beginning of a variable."""
    return text.replace("$", "$$")
