"""`deploy/compose.yaml`: the tested services with the same limits and the same hardening."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lyra_tasks.bundle.content.environment import PromotedService
from lyra_tasks.bundle.content.yaml_text import render_yaml
from lyra_tasks.config.containers import (
    LOG_DRIVER,
    LOG_OPTIONS,
    format_tmpfs_options,
    resolve_dns,
    resolve_hostname,
    resolve_ulimits,
)
from lyra_tasks.config.deployment import (
    can_be_compose_default,
    compose_object_name,
    compose_project,
    config_path,
    is_settable_name,
    publish_variable,
    secret_variable,
    volume_name,
)
from lyra_tasks.config.models import Command, ConfigFile, Healthcheck, SecretFile, Service
from lyra_tasks.config.services import to_argv

NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "inner": {"internal": True},
    "edge": {"driver_opts": {"com.docker.network.bridge.enable_ip_masquerade": "false"}},
    "out": {},
}
"""Services talk on the first one, publish ports on the second, and reach other networks through the third."""
_HEAD = """\
# Written by lyra-tasks. PROMOTION.md explains the variables. Copy .env.example to .env and fill it in.
"""


def render_compose_file(project: str, services: Sequence[PromotedService], platforms: Mapping[str, str]) -> str:
    """Return the Compose file as YAML; `platforms` are by service."""
    return _HEAD + render_yaml(build_compose_document(project, services, platforms))


def build_compose_document(
    project: str, services: Sequence[PromotedService], platforms: Mapping[str, str]
) -> dict[str, Any]:
    """Return the Compose file as a document; services without a platform run on the node's own."""
    services_by_name = {service.name: service for service in services}
    document: dict[str, Any] = {
        "name": compose_project(project),
        "services": {
            service.name: _service(service, services_by_name, platforms.get(service.name)) for service in services
        },
        "networks": {"inner": NETWORKS["inner"]},
    }
    if any(service.config.ports and not service.config.egress for service in services):
        document["networks"]["edge"] = NETWORKS["edge"]
    if any(service.config.egress for service in services):
        document["networks"]["out"] = NETWORKS["out"]
    parts: dict[str, dict[str, Any]] = {
        "volumes": {
            volume_name(service.name, key, volume): {}
            for service in services
            for key, volume in service.config.volumes.items()
        },
        "configs": {
            compose_object_name(service.name, key): {"file": _escape(f"./{config_path(service.name, key, file)}")}
            for service in services
            for key, file in service.config.configs.items()
        },
        "secrets": {
            compose_object_name(service.name, key): {
                "file": format_required_variable(secret_variable(service.name, key), f"path of the file with {key}")
            }
            for service in services
            for key in service.config.secrets
        },
    }
    return document | {key: value for key, value in parts.items() if value}


def list_service_keys() -> frozenset[str]:
    """Return the keys that a service may have in the Compose file."""
    return frozenset(_define_service(PromotedService("web", Service(image="web"), "web", {}, {}), {}, None))


def _service(
    service: PromotedService, services_by_name: dict[str, PromotedService], platform: str | None
) -> dict[str, Any]:
    definition = _define_service(service, services_by_name, platform)
    return {key: value for key, value in definition.items() if value not in (None, "", [], {})}


def _define_service(
    service: PromotedService, services_by_name: dict[str, PromotedService], platform: str | None
) -> dict[str, Any]:
    config, effective = service.config, service.effective
    return {
        "image": service.reference,
        "platform": platform,
        "pull_policy": "never",
        "entrypoint": _exec_form(config.entrypoint),
        "command": _exec_form(config.command),
        "user": config.user,
        "working_dir": _escape(config.working_dir),
        "stop_signal": config.stop_signal,
        "stop_grace_period": _duration(config.stop_grace_period),
        "hostname": resolve_hostname(service.name, config),
        "environment": _environment(service),
        "ports": [f"{_published_port(service, name)}:{port}" for name, port in config.ports.items()],
        "networks": _networks(config),
        "dns": resolve_dns(config),
        "extra_hosts": dict(sorted(config.extra_hosts.items())),
        "depends_on": {
            other: {"condition": _startup_condition(services_by_name[other])}
            for other in config.depends_on
            if other in services_by_name
        },
        "volumes": [
            ":".join(
                (
                    volume_name(service.name, key, volume),
                    _escape(volume.path),
                    *filter(None, [",".join(volume.mount_options)]),
                )
            )
            for key, volume in config.volumes.items()
        ],
        "configs": _file_mounts(service, config.configs),
        "secrets": _file_mounts(service, config.secrets),
        "healthcheck": _healthcheck(config.healthcheck),
        "read_only": config.read_only,
        "init": config.init,
        "restart": "no" if config.oneshot else "unless-stopped",
        "cap_drop": ["ALL"],
        "cap_add": list(config.cap_add),
        "group_add": list(config.group_add),
        "security_opt": ["no-new-privileges:true"],
        "ipc": "private",
        "cpus": config.limits.cpus,
        "mem_limit": effective.memory,
        "memswap_limit": effective.memory,
        "pids_limit": config.limits.pids,
        "shm_size": config.shm_size,
        "sysctls": {key: _escape(str(value)) for key, value in sorted(config.sysctls.items())},
        "ulimits": {name: {"soft": soft, "hard": hard} for name, (soft, hard) in resolve_ulimits(config).items()},
        "tmpfs": [
            f"{_escape(path)}:{format_tmpfs_options(size, effective.user_ids)}"
            for path, size in sorted(effective.tmpfs.items())
        ],
        "logging": {"driver": LOG_DRIVER, "options": dict(LOG_OPTIONS)},
    }


def _networks(config: Service) -> list[str] | dict[str, dict[str, list[str]]]:
    names = ["inner", *(["out"] if config.egress else ["edge"] if config.ports else [])]
    return {name: {"aliases": list(config.aliases)} for name in names} if config.aliases else names


def _published_port(service: PromotedService, port: str) -> str:
    variable, address = publish_variable(service.name, port), service.publish_addresses[port]
    if address:
        return f"${{{variable}:-{address}}}"
    return format_required_variable(variable, f"where {service.name} publishes its port {port}")


def _file_mounts(
    service: PromotedService, files: Mapping[str, ConfigFile] | Mapping[str, SecretFile]
) -> list[dict[str, str]]:
    return [
        {"source": compose_object_name(service.name, key), "target": _escape(file.path)} for key, file in files.items()
    ]


def _environment(service: PromotedService) -> dict[str, str]:
    values = {}
    for name, variable in service.config.environment.items():
        if not is_settable_name(name):
            values[name] = _escape(variable.default or "")
        elif variable.default is not None and not can_be_compose_default(variable.default):
            values[name] = f"${{{name}?see .env.example for its default}}"
        elif variable.default is not None:
            values[name] = f"${{{name}-{_escape(variable.default)}}}"
        elif variable.secret or variable.required:
            values[name] = format_required_variable(name, variable.description or "required")
        else:
            values[name] = f"${{{name}-}}"
    return values


def format_required_variable(name: str, message: str) -> str:
    """Return a variable without which Compose stops with the message."""
    return f"${{{name}:?{_escape(message).replace('}', ')')}}}"


def _startup_condition(other: PromotedService) -> str:
    if other.config.oneshot:
        return "service_completed_successfully"
    check = other.config.healthcheck
    if check is not None and check.is_polled:
        return "service_started"
    return "service_healthy" if other.effective.has_healthcheck else "service_started"


def _healthcheck(check: Healthcheck | None) -> dict[str, Any] | None:
    """Return an `exec` check; `http` and `tcp` checks need a client outside the container."""
    if check is None or check.is_polled:
        return None
    if check.disable:
        return {"disable": True}
    if check.exec is None:
        durations = {key: getattr(check, key) for key in ("interval", "timeout", "start_period")}
        written = {key: _duration(value) for key, value in durations.items() if key in check.model_fields_set and value}
        return written | ({"retries": check.retries} if "retries" in check.model_fields_set else {})
    command = ["CMD", *check.exec] if isinstance(check.exec, list) else ["CMD-SHELL", check.exec]
    healthcheck = {
        "test": [_escape(argument) for argument in command],
        "interval": _duration(check.interval),
        "timeout": _duration(check.timeout),
        "retries": check.retries,
    }
    if check.start_period is not None:
        healthcheck["start_period"] = _duration(check.start_period)
    return healthcheck


def _duration(seconds: float) -> str:
    return f"{seconds:g}s"


def _exec_form(command: Command | None) -> list[str] | None:
    return [_escape(argument) for argument in to_argv(command)] if command is not None else None


def _escape(text: str) -> str:
    """Escape `$`, which begins a variable in Compose."""
    return text.replace("$", "$$")
