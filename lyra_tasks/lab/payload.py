"""Create payloads of containers: isolated, limited, read-only, without privileges (R4, R10)."""

from __future__ import annotations

from typing import Any

from lyra_tasks.config.containers import (
    LOG_DRIVER,
    LOG_OPTIONS,
    format_tmpfs_options,
    resolve_dns,
    resolve_hostname,
    resolve_ulimits,
    stop_timeout_seconds,
)
from lyra_tasks.config.models import Healthcheck, Service, Volume
from lyra_tasks.config.services import EffectiveService, to_argv
from lyra_tasks.lab.facts import LabFacts
from lyra_tasks.ports import docker_port

HOLDER_MOUNT_ROOT = "/held"
_NANO = 1_000_000_000


def build_container_payload(
    prefix: str, name: str, service: Service, facts: LabFacts, effective: EffectiveService, *, memory: int, network: str
) -> dict[str, Any]:
    """Return the payload of `POST /containers/create` for one service."""
    service_facts = facts.services[name]
    files_directory = None if facts.supports_subpaths else f"{facts.files_directory}/{name}"
    ports = sorted(docker_port(port) for port in service.ports.values())
    payload: dict[str, Any] = {
        "Image": service_facts.image_id,
        "Hostname": resolve_hostname(name, service),
        "StopTimeout": stop_timeout_seconds(service),
        "Env": [f"{key}={value}" for key, value in sorted(service_facts.environment.items())],
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            **build_hardening_options(service),
            "Memory": memory,
            "MemorySwap": memory,  # memory plus swap: an equal value means no swap
            "NanoCpus": round(service.limits.cpus * _NANO),
            "PidsLimit": service.limits.pids,
            "Mounts": _build_mounts(prefix, name, service, files_directory),
            "Tmpfs": {
                path: format_tmpfs_options(size, effective.user_ids) for path, size in sorted(effective.tmpfs.items())
            },
            "NetworkMode": network,
            "Dns": resolve_dns(service),
            "ExtraHosts": [f"{host}:{address}" for host, address in sorted(service.extra_hosts.items())],
            "GroupAdd": list(service.group_add),
            "Sysctls": {key: str(value) for key, value in sorted(service.sysctls.items())},
            "PortBindings": {port: [{"HostIp": facts.publish_on, "HostPort": ""}] for port in ports},
        },
        "ExposedPorts": {port: {} for port in ports},
        "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": [name, *service.aliases]}}},
    }
    optional = {
        "User": service.user,
        "WorkingDir": service.working_dir,
        "StopSignal": service.stop_signal,
        "Cmd": to_argv(service.command) if service.command is not None else None,
        "Entrypoint": to_argv(service.entrypoint) if service.entrypoint is not None else None,
        "Healthcheck": _build_healthcheck(service),
    }
    return payload | {key: value for key, value in optional.items() if value}


def build_hardening_options(service: Service) -> dict[str, Any]:
    """Return the restrictions of every container, apart from deviations."""
    return {
        "ReadonlyRootfs": service.read_only,
        "CapDrop": ["ALL"],
        "CapAdd": list(service.cap_add),
        "SecurityOpt": ["no-new-privileges:true"],
        "Init": service.init,
        "IpcMode": "private",
        "RestartPolicy": {"Name": "no"},
        "ShmSize": service.shm_size,
        "LogConfig": {"Type": LOG_DRIVER, "Config": dict(LOG_OPTIONS)},
        "Ulimits": [
            {"Name": name, "Soft": soft, "Hard": hard} for name, (soft, hard) in resolve_ulimits(service).items()
        ],
    }


def name_data_volume(prefix: str, service: str, key: str, volume: Volume) -> str:
    """Return the name of a volume for data; one that is shared has that of no service."""
    return f"{prefix}-{'' if volume.shared else service}-data-{volume.shared or key}"


def _build_mounts(prefix: str, name: str, service: Service, files_directory: str | None) -> list[dict[str, Any]]:
    """Return the mounts; configs and secrets are bind mounted from `files_directory`, or None for volumes."""
    mounts: list[dict[str, Any]] = [
        {"Type": "volume", "Source": name_data_volume(prefix, name, key, volume), "Target": volume.path}
        | ({"ReadOnly": True} if volume.read_only else {})
        | ({"VolumeOptions": {"NoCopy": True}} if "nocopy" in volume.mount_options else {})
        for key, volume in service.volumes.items()
    ]
    for kind, files in (("configs", service.configs), ("secrets", service.secrets)):
        for key, file in files.items():
            mount = {"Target": file.path, "ReadOnly": True}
            if files_directory is None:
                # without NoCopy the engine tries to copy the image's content at that path, as if it were a directory
                options = {"Subpath": key, "NoCopy": True}
                source = {"Type": "volume", "Source": f"{prefix}-{name}-{kind}", "VolumeOptions": options}
            else:
                source = {"Type": "bind", "Source": f"{files_directory}/{kind}/{key}"}
            mounts.append(mount | source)
    return mounts


def _build_healthcheck(service: Service) -> dict[str, Any] | None:
    """Return the configured `exec` health check with its own timing, as in the bundle's compose file.

    Without one, the engine runs the image's HEALTHCHECK with the timing of the image.
    """
    configured = service.healthcheck
    if configured is None or configured.is_polled:
        return None
    if configured.disable:
        return {"Test": ["NONE"]}
    command = configured.exec
    if command is None:
        return _build_timing(configured)
    return {
        "Test": ["CMD", *command] if isinstance(command, list) else ["CMD-SHELL", command],
        "Interval": round(configured.interval * _NANO),
        "Timeout": round(configured.timeout * _NANO),
        "Retries": configured.retries,
        "StartPeriod": round((configured.start_period or 0.0) * _NANO),
    }


def _build_timing(check: Healthcheck) -> dict[str, Any] | None:
    """Return the timing that is set; the engine takes the test and the rest from the image."""
    durations = {"Interval": check.interval, "Timeout": check.timeout, "StartPeriod": check.start_period or 0.0}
    timing = {
        key: round(seconds * _NANO)
        for key, seconds in durations.items()
        if {"Interval": "interval", "Timeout": "timeout", "StartPeriod": "start_period"}[key] in check.model_fields_set
    }
    return timing | ({"Retries": check.retries} if "retries" in check.model_fields_set else {}) or None
