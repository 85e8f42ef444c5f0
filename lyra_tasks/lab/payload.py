"""A service as the engine's create payload: isolated, limited, read-only, without privileges (R4, R10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lyra_tasks.config.models import Service
from lyra_tasks.config.ports import docker_name
from lyra_tasks.config.services import RunningShape, argv, image_health

HOLDER_FOLDER = "/held"
_SECOND = 1_000_000_000


def container_payload(
    prefix: str,
    name: str,
    service: Service,
    image_id: str,
    shape: RunningShape,
    *,
    memory: int,
    environment: Mapping[str, str],
    image_config: Mapping[str, Any],
    network: str,
    publish_on: str,
    files_folder: str | None,
    health_starts_fast: bool,
) -> dict[str, Any]:
    """The payload of `POST /containers/create` for one service.

    `files_folder` is None where configs and secrets come out of volumes, else the folder on the host to bind from.
    """
    ports = sorted(docker_name(port) for port in service.ports.values())
    payload: dict[str, Any] = {
        "Image": image_id,
        "Hostname": name,
        "Env": [f"{key}={value}" for key, value in sorted(environment.items())],
        "AttachStdout": True,
        "AttachStderr": True,
        "HostConfig": {
            **hardening(service),
            **limits(service, memory),
            "Mounts": _mounts(prefix, name, service, shape, files_folder),
            "NetworkMode": network,
            "Dns": [] if service.egress else ["127.0.0.1"],
            "PortBindings": {name: [{"HostIp": publish_on, "HostPort": ""}] for name in ports},
        },
        "ExposedPorts": {name: {} for name in ports},
        "NetworkingConfig": {"EndpointsConfig": {network: {"Aliases": [name]}}},
    }
    optional = {
        "User": service.user,
        "WorkingDir": service.working_dir,
        "StopSignal": service.stop_signal,
        "Cmd": argv(service.command) if service.command is not None else None,
        "Entrypoint": argv(service.entrypoint) if service.entrypoint is not None else None,
        "Healthcheck": _healthcheck(service, image_config, health_starts_fast),
    }
    return payload | {key: value for key, value in optional.items() if value}


def hardening(service: Service) -> dict[str, Any]:
    """What every container lacks, unless a deviation says otherwise."""
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


def limits(service: Service, memory: int) -> dict[str, Any]:
    """The limits, with swap equal to memory so that swap adds nothing."""
    return {
        "Memory": memory,
        "MemorySwap": memory,
        "NanoCpus": round(service.limits.cpus * _SECOND),
        "PidsLimit": service.limits.pids,
    }


def _mounts(
    prefix: str, name: str, service: Service, shape: RunningShape, files_folder: str | None
) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"Type": "tmpfs", "Target": path, "TmpfsOptions": {"SizeBytes": size, "Mode": 0o1777}}
        for path, size in sorted(shape.tmpfs.items())
    ]
    for key, volume in service.volumes.items():
        mounts.append({"Type": "volume", "Source": f"{prefix}-{name}-data-{key}", "Target": volume.path})
    for kind, files in (("configs", service.configs), ("secrets", service.secrets)):
        for key, file in files.items():
            mount = {"Target": file.path, "ReadOnly": True}
            if files_folder is None:
                # without NoCopy the engine tries to copy what the image has at that path, as if it were a folder
                options = {"Subpath": key, "NoCopy": True}
                source = {"Type": "volume", "Source": f"{prefix}-{name}-{kind}", "VolumeOptions": options}
            else:
                source = {"Type": "bind", "Source": f"{files_folder}/{kind}/{key}"}
            mounts.append(mount | source)
    return mounts


def _healthcheck(service: Service, image_config: Mapping[str, Any], fast: bool) -> dict[str, Any] | None:
    """The `exec` check or the image's own, asked often while the service starts; None if there is neither.

    Only the rhythm is the lab's: on Proxima the intervals are those of the image and of the configuration.
    """
    own = service.healthcheck
    if own is not None and own.exec is not None:
        words = own.exec
        test = ["CMD", *words] if isinstance(words, list) else ["CMD-SHELL", words]
    else:
        test = image_health(image_config)
    if not test or (own is not None and own.exec is None):
        return None
    check: dict[str, Any] = {
        "Test": test,
        "Interval": _SECOND // 2,
        "Timeout": round((own.timeout if own else 5.0) * _SECOND),
        "Retries": own.retries if own else 30,
    }
    if fast:
        check |= {"StartPeriod": 60 * _SECOND, "StartInterval": _SECOND // 5, "Interval": _SECOND}
    return check
