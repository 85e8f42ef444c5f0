"""A service as it really runs: its table in the configuration merged with the configuration of its image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lyra_tasks.config.models import Command, Service

_TMP = "/tmp"  # noqa: S108
_LEAST_TMP = 1024**2


@dataclass(frozen=True)
class RunningShape:
    """What does not stand in either alone; sizes in bytes.

    `tmpfs` holds `/tmp`, the service's own entries, and every VOLUME of the image, as far as no volume covers them.
    """

    user: str
    tmpfs: Mapping[str, int]
    memory: int
    has_healthcheck: bool


def running_shape(service: Service, image_config: Mapping[str, Any]) -> RunningShape:
    """Merge a service with its image; memory counts what the container may write to its tmpfs.

    `/tmp` gets what the volumes leave of `limits.disk`, and never less than 1 MiB.
    """
    covered = {volume.path for volume in service.volumes.values()} | set(service.tmpfs)
    rest = service.limits.disk - sum(volume.size for volume in service.volumes.values())
    tmpfs = {**({} if _TMP in covered else {_TMP: max(rest, _LEAST_TMP)}), **service.tmpfs}
    for path in image_config.get("Volumes") or {}:
        if path.rstrip("/") not in covered:
            tmpfs.setdefault(path.rstrip("/"), service.limits.disk)
    return RunningShape(
        user=service.user or str(image_config.get("User") or ""),
        tmpfs=tmpfs,
        memory=service.limits.memory + sum(tmpfs.values()),
        has_healthcheck=bool(image_health(image_config)) or service.healthcheck is not None,
    )


def image_health(image_config: Mapping[str, Any]) -> list[str]:
    """The image's own HEALTHCHECK test, or nothing."""
    test = (image_config.get("Healthcheck") or {}).get("Test") or []
    return [] if test[:1] == ["NONE"] else [str(word) for word in test]


def argv(command: Command) -> list[str]:
    """A command as an argument list: a list is taken as it is, a string goes to the container's shell."""
    return list(command) if isinstance(command, list) else ["/bin/sh", "-c", command]


def start_order(services: Mapping[str, Service]) -> list[list[str]]:
    """Service names in waves: each wave depends on earlier ones only. `checks.py` has refused cycles."""
    waves: list[list[str]] = []
    done: set[str] = set()
    while len(done) < len(services):
        wave = sorted(n for n, each in services.items() if n not in done and set(each.depends_on) <= done)
        if not wave:
            raise ValueError("services depend on each other in a circle")
        waves.append(wave)
        done.update(wave)
    return waves
