"""Create payloads of containers: isolated, limited, read-only, without privileges (R4, R10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lyra_tasks.config.models import Service
from lyra_tasks.config.services import EffectiveService, image_healthcheck, to_argv
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
        "Hostname": name,
        "Env": [f"{key}={value}" for key, value in sorted(service_facts.environment.items())],
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            **build_hardening_options(service),
            "Memory": memory,
            "MemorySwap": memory,  # memory plus swap: an equal value means no swap
            "NanoCpus": round(service.limits.cpus * _NANO),
            "PidsLimit": service.limits.pids,
            "Mounts": _build_mounts(prefix, name, service, effective, files_directory),
            "NetworkMode": network,
            "Dns": [] if service.egress else ["127.0.0.1"],
            "PortBindings": {port: [{"HostIp": facts.publish_on, "HostPort": ""}] for port in ports},
        },
        "ExposedPorts": {port: {} for port in ports},
        "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": [name]}}},
    }
    optional = {
        "User": service.user,
        "WorkingDir": service.working_dir,
        "StopSignal": service.stop_signal,
        "Cmd": to_argv(service.command) if service.command is not None else None,
        "Entrypoint": to_argv(service.entrypoint) if service.entrypoint is not None else None,
        "Healthcheck": _build_healthcheck(service, service_facts.image_config, facts.supports_start_interval),
    }
    return payload | {key: value for key, value in optional.items() if value}


def build_hardening_options(service: Service) -> dict[str, Any]:
    """Return the restrictions of every container, apart from deviations."""
    return {
        "ReadonlyRootfs": service.read_only,
        "CapDrop": ["ALL"],
        "CapAdd": list(service.cap_add),
        "SecurityOpt": ["no-new-privileges:true"],
        "Init": True,
        "IpcMode": "private",
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "1"}},
        "Ulimits": [
            {"Name": "nofile", "Soft": 1024, "Hard": 1024},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
    }


def _build_mounts(
    prefix: str, name: str, service: Service, effective: EffectiveService, files_directory: str | None
) -> list[dict[str, Any]]:
    """Return the mounts; configs and secrets are bind mounted from `files_directory`, or None for volumes."""
    mounts: list[dict[str, Any]] = [
        {"Type": "tmpfs", "Target": path, "TmpfsOptions": {"SizeBytes": size, "Mode": 0o1777}}
        for path, size in sorted(effective.tmpfs.items())
    ]
    for key, volume in service.volumes.items():
        mounts.append({"Type": "volume", "Source": f"{prefix}-{name}-data-{key}", "Target": volume.path})
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


def _build_healthcheck(
    service: Service, image_config: Mapping[str, Any], supports_start_interval: bool
) -> dict[str, Any] | None:
    """Return the configured `exec` health check or that of the image, or None if there is neither.

    The intervals are shorter than configured, so that a lab starts quickly; the bundle has the configured ones.
    """
    configured = service.healthcheck
    if configured is not None and configured.exec is not None:
        command = configured.exec
        test = ["CMD", *command] if isinstance(command, list) else ["CMD-SHELL", command]
    else:
        test = image_healthcheck(image_config)
    if not test or (configured is not None and configured.exec is None):
        return None
    check: dict[str, Any] = {
        "Test": test,
        "Interval": _NANO // 2,
        "Timeout": round((configured.timeout if configured else 5.0) * _NANO),
        "Retries": configured.retries if configured else 30,
    }
    if supports_start_interval:
        check |= {"StartPeriod": 60 * _NANO, "StartInterval": _NANO // 5, "Interval": _NANO}
    return check
